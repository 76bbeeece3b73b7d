//! What a step type says of itself, and all that the engine ever learns of it.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Reads,
    Changes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoKind {
    /// Undo brings back what was there.
    Full,
    /// No inverse is known, or none is needed; a rollback passes over it (and says so where it changed something).
    None,
    /// What it did cannot be taken back.
    Impossible,
}

/// What is right when the process died while the step acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    Rerun,
    /// [`StepType::probe`](super::StepType::probe) can tell.
    Probe,
    /// Only a person can.
    Ask,
}

/// The commands that an action runs, and so which keys of a step reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Commands {
    /// None: it computes, or speaks to servers from the machine that runback runs on. `target` and `env` mean nothing.
    None,
    /// None either, but its client looks into `env`.
    Client,
    /// Small ones, on the step's target. None outlives runback.
    Small,
    /// One that the step is about, by [`Cx::run`](super::Cx::run): it outlives runback where the step says `detach: true`.
    Main,
    /// The same, unless the step says `detach: false`.
    Detached,
}

#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// `family.verb`.
    pub name: &'static str,
    /// One line, for `runback steps` and the schema.
    pub doc: &'static str,
    pub access: Access,
    pub undo: UndoKind,
    pub on_interrupt: OnInterrupt,
    pub commands: Commands,
    /// Playbook fragments (a list item under `steps:`), each checked by a test.
    pub examples: &'static [&'static str],
}
