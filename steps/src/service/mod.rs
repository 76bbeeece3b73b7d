//! `service.*`: a systemd unit is started, stopped, restarted, reloaded or enabled.
//!
//! **Does.** `service.started` and `service.stopped` see to it that the unit is active or not; `service.restarted` and
//! `service.reloaded` act each time; `service.enabled` says whether it starts with the machine (`enabled: false`: it does
//! not). Each waits for what systemd reports, and fails with the unit's own result. A unit that is on its way up or down
//! after that, such as one that fell and is started again, is waited for, up to 30 s. `daemon_reload` makes systemd read
//! unit files anew first. The state is read with `systemctl show`.
//!
//! **Outputs.** `name`, `active`, `enabled`: ActiveState and UnitFileState as systemd calls them.
//!
//! **Undo** brings back what was before: whether the unit was active, or started with the machine. A unit that ran before a
//! restart or reload is left running: its files are brought back later, as undo goes backwards. What must be restarted
//! after that belongs to the `rollback` of a step that comes before the files. What somebody did with the unit after an
//! action that changed nothing of it stays.
//!
//! **Does not** know other service managers than systemd. Tried with systemd 252.

use std::collections::BTreeMap;
use std::time::Duration;

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::{Command, Exit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::begun::{self, Tells};
use crate::bounded::pause;
use crate::http::look::problem;
use crate::period::Period;

/// What is done with the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Started,
    Stopped,
    Restarted,
    Reloaded,
    Enabled,
}

/// The step types `service.*`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service(pub(crate) Verb);

pub(crate) const ALL: [Service; 5] = [
    Service(Verb::Started),
    Service(Verb::Stopped),
    Service(Verb::Restarted),
    Service(Verb::Reloaded),
    Service(Verb::Enabled),
];

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The unit, such as docker or docker.service.
    pub(crate) unit: String,
    /// Make systemd read unit files anew first.
    #[serde(default)]
    pub(crate) daemon_reload: bool,
    /// For `service.enabled`: false = it shall not start with the machine.
    #[serde(default)]
    pub(crate) enabled: Option<bool>,
}

/// The unit as systemd shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Unit {
    /// Of the unit.
    pub(crate) name: String,
    /// ActiveState: active, inactive, failed and others.
    pub(crate) active: String,
    /// UnitFileState: enabled, disabled, static and others; empty where there is no file.
    pub(crate) enabled: String,
}

/// The unit before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    #[serde(flatten)]
    unit: Unit,
    #[serde(default)]
    tells: Tells,
}

/// How long a unit may stay between two states once systemd says that it is done with it.
const SETTLES: Duration = Duration::from_secs(30);

impl Unit {
    /// `refreshing` is of systemd 257.
    fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing")
    }

    fn is_down(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// It shall be up, or soon is.
    fn is_active(&self) -> bool {
        self.is_up() || self.active == "activating"
    }

    /// As far as an undo looks at it.
    fn is_like(&self, other: &Self) -> bool {
        self.is_active() == other.is_active() && self.is_enabled() == other.is_enabled()
    }

    fn is_enabled(&self) -> bool {
        self.enabled.starts_with("enabled")
    }
}

async fn systemctl(cx: &Cx<'_>, words: &[&str], unit: &str) -> Result<Exit, StepError> {
    let command = Command::new(["systemctl"].iter().chain(words).copied());
    let exit = cx.query(command.clone()).await?;
    if exit.ok() {
        return Ok(exit);
    }
    let stderr = exit.stderr_text();
    let (class, help) =
        if stderr.contains("not been booted with systemd") || stderr.contains("Failed to connect to bus") {
            (Class::Permanent, "the target does not run systemd; use `exec` with its own service manager".to_owned())
        } else if stderr.contains("Interactive authentication required") || stderr.contains("Access denied") {
            (Class::Permanent, "become root for it: `become: true` of the target".to_owned())
        } else {
            (Class::Permanent, format!("see `systemctl status {unit}` and `journalctl -u {unit}` on the target"))
        };
    Err(StepError::from_exit(class, &command, &exit).help(help))
}

async fn look(cx: &Cx<'_>, unit: &str) -> Result<Unit, StepError> {
    let words = ["show", "--property=LoadState,ActiveState,UnitFileState,LoadError", "--", unit];
    let command = Command::query(["systemctl"].iter().chain(&words).copied());
    let exit = cx.query(command.clone()).await?;
    if !exit.ok() {
        // Says it in its own words.
        systemctl(cx, &words, unit).await?;
    }
    let text = exit.stdout_text();
    let all: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let of = |key: &str| all.get(key).copied().unwrap_or_default().to_owned();
    match of("LoadState").as_str() {
        "loaded" => Ok(Unit { name: unit.to_owned(), active: of("ActiveState"), enabled: of("UnitFileState") }),
        "not-found" => Err(StepError::permanent(format!("there is no unit {unit}"))
            .help("correct the name, or install its package first with `uses: package.present`")),
        "masked" => {
            Err(StepError::permanent(format!("the unit {unit} is masked")).help(format!("`systemctl unmask {unit}`")))
        }
        other => Err(StepError::permanent(format!("the unit {unit} is {other}: {}", of("LoadError")))),
    }
}

impl Service {
    fn words(self, enabled: Option<bool>) -> &'static str {
        match self.0 {
            Verb::Started => "start",
            Verb::Stopped => "stop",
            Verb::Restarted => "restart",
            Verb::Reloaded => "reload",
            Verb::Enabled if enabled == Some(false) => "disable",
            Verb::Enabled => "enable",
        }
    }

    /// It is already as it shall be.
    fn is_so(self, unit: &Unit, enabled: Option<bool>) -> bool {
        match self.0 {
            Verb::Started => unit.active == "active",
            Verb::Stopped => unit.is_down(),
            Verb::Restarted | Verb::Reloaded => false,
            Verb::Enabled => unit.is_enabled() == enabled.unwrap_or(true),
        }
    }

    fn is_right(self, unit: &Unit, enabled: Option<bool>) -> bool {
        match self.0 {
            Verb::Started | Verb::Restarted | Verb::Reloaded => unit.is_up(),
            Verb::Stopped | Verb::Enabled => self.is_so(unit, enabled),
        }
    }

    /// The unit as it is once systemd is done with it. One that is between two states, because it fell and is started
    /// again, must be right at two looks in a row after that.
    async fn settled(self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Unit, StepError> {
        let name = &inputs.unit;
        let help = format!("see `systemctl status {name}` and `journalctl -u {name}` on the target");
        let begun = cx.host.now_ms();
        let mut between = false;
        loop {
            let now = look(cx, name).await?;
            if self.is_right(&now, inputs.enabled) {
                if !between {
                    return Ok(now);
                }
                between = false;
            } else if matches!(now.active.as_str(), "activating" | "deactivating") && self.0 != Verb::Enabled {
                between = true;
            } else {
                let state = format!("{name} is {} and {} afterwards", now.active, now.enabled);
                return Err(StepError::permanent(state).help(help));
            }
            if cx.host.now_ms().saturating_sub(begun) >= SETTLES.as_millis() as u64 {
                let state = format!("{name} is still {} after {}", now.active, Period(SETTLES));
                return Err(StepError::transient(state).help(help));
            }
            pause(cx, Duration::from_millis(300), name).await?;
        }
    }

    /// Lets systemd do it, and tells when. What fails and leaves the unit as it was has nothing to undo.
    async fn change(self, cx: &Cx<'_>, inputs: &Inputs, now: &Unit) -> Result<Unit, StepError> {
        let unit = &inputs.unit;
        let first = !begun::begun(cx);
        begun::begins(cx).await?;
        let done = systemctl(cx, &[self.words(inputs.enabled), "--", unit], unit).await;
        let interrupted = done.as_ref().is_err_and(|e| e.exit_code.is_none());
        let after = match done {
            Ok(_) => self.settled(cx, inputs).await,
            Err(e) => Err(e),
        };
        if after.is_err()
            && first
            && !interrupted
            && let Ok(is) = look(cx, unit).await
            && is.is_like(now)
        {
            begun::never_began(cx).await?;
        }
        after
    }
}

/// What all five have in common.
const ALIKE: Descriptor = Descriptor {
    name: "service",
    doc: "",
    access: Access::Changes,
    undo: UndoKind::Full,
    on_interrupt: OnInterrupt::Rerun,
    commands: Commands::Small,
    examples: &[],
};

#[async_trait::async_trait]
impl StepType for Service {
    type Inputs = Inputs;
    type Outputs = Unit;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        match self.0 {
            Verb::Started => Descriptor {
                name: "service.started",
                doc: "A systemd unit is active.",
                examples: &["- id: docker\n  uses: service.started\n  with: { unit: docker }\n"],
                ..ALIKE
            },
            Verb::Stopped => Descriptor {
                name: "service.stopped",
                doc: "A systemd unit is not active.",
                examples: &["- id: quiet\n  uses: service.stopped\n  with: { unit: nginx }\n"],
                ..ALIKE
            },
            Verb::Restarted => Descriptor {
                name: "service.restarted",
                doc: "A systemd unit is restarted.",
                examples: &[
                    "- id: restart\n  uses: service.restarted\n  with: { unit: docker, daemon_reload: true }\n",
                ],
                ..ALIKE
            },
            Verb::Reloaded => Descriptor {
                name: "service.reloaded",
                doc: "A systemd unit reads its configuration anew.",
                examples: &["- id: reload\n  uses: service.reloaded\n  with: { unit: nginx }\n"],
                ..ALIKE
            },
            Verb::Enabled => Descriptor {
                name: "service.enabled",
                doc: "A systemd unit starts with the machine, or does not.",
                examples: &["- id: at-boot\n  uses: service.enabled\n  with: { unit: docker }\n"],
                ..ALIKE
            },
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = Vec::new();
        let unit = &inputs.unit;
        if unit.is_empty()
            || unit.starts_with('-')
            || unit.contains(char::is_whitespace)
            || unit.contains(['*', '?', '['])
        {
            all.push(problem(&["unit"], format!("`{unit}` is not the name of one unit")));
        }
        if inputs.enabled.is_some() && self.0 != Verb::Enabled {
            all.push(problem(&["enabled"], "this is for `service.enabled`".to_owned()));
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let unit = look(cx, &inputs.unit).await?;
        let so = self.is_so(&unit, inputs.enabled);
        let state = format!(
            "it is {} and {}",
            unit.active,
            if unit.enabled.is_empty() { "without a file" } else { &unit.enabled }
        );
        let verb = if so { "leave" } else { self.words(inputs.enabled) };
        Ok(Preview { changes: Some(!so), summary: format!("{verb} {}: {state}", inputs.unit), details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        Ok(Capture { unit: look(cx, &inputs.unit).await?, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Unit>, StepError> {
        let unit = &inputs.unit;
        if inputs.daemon_reload {
            systemctl(cx, &["daemon-reload"], unit).await?;
        }
        let now = look(cx, unit).await?;
        if self.is_so(&now, inputs.enabled) {
            let changed = !capture.tells.strangers(cx) && now != capture.unit;
            return Ok(Acted { outputs: now, changed });
        }
        if self.0 == Verb::Reloaded && !now.is_active() {
            return Err(StepError::permanent(format!("{unit} is {}, so it cannot be reloaded", now.active))
                .help("start it with `uses: service.started`"));
        }
        Ok(Acted::changed(self.change(cx, inputs, &now).await?))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _: Option<&Unit>,
    ) -> Result<Undone, StepError> {
        let nothing = Undone { changed: false, note: None };
        if capture.tells.strangers(cx) {
            return Ok(nothing);
        }
        let (unit, capture) = (&inputs.unit, &capture.unit);
        let now = look(cx, unit).await?;
        let verb = match self.0 {
            Verb::Enabled => match (capture.is_enabled(), now.is_enabled()) {
                (true, false) => Some("enable"),
                (false, true) => Some("disable"),
                _ => None,
            },
            _ => match (capture.is_active(), now.is_active()) {
                (true, false) => Some("start"),
                (false, true) => Some("stop"),
                _ => None,
            },
        };
        let Some(verb) = verb else { return Ok(nothing) };
        systemctl(cx, &[verb, "--", unit], unit).await?;
        Ok(Undone { changed: true, note: Some(format!("{verb} {unit}")) })
    }
}

#[cfg(test)]
mod tests;
