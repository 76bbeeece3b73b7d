//! `package.present`: packages of the target's distribution are installed.
//!
//! **Does.** Installs those of `names` that are not there, with apt, dnf, yum or apk, whichever the target has. A package
//! that is there is left alone, whatever its version.
//!
//! **Outputs.** `manager`, and `installed`: the packages that came, dependencies included.
//!
//! **Undo** removes what the step installed, dependencies included, and nothing that was there before: configuration that
//! an earlier removal had left on a system with apt stays, too. Packages that somebody installed since and that need one of
//! these make it fail, as the manager then wants to remove them too. After an installation that failed, what it left is
//! removed; after one that was interrupted, those of `names` that were not there. What somebody installed after an action
//! that failed stays.
//!
//! With apt, a name may have an architecture: `libc6:i386`. Those of another than the system's own are listed so.
//!
//! **Does not** upgrade, and does not add sources of packages. Tried with apt 2.6 and dnf 4.14; yum and apk are called as
//! they document it, and have not been tried.

use std::collections::BTreeSet;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::begun::{self, Tells};
use crate::http::look::problem;

mod manager;

use manager::{Manager, Packages, change, detect, listed, manager};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The packages, as the distribution calls them.
    #[schemars(length(min = 1))]
    pub(crate) names: Vec<String>,
    /// Fetch the lists of packages first (apt, apk).
    #[serde(default)]
    pub(crate) update: bool,
}

/// What came.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// apt, dnf, yum or apk.
    pub(crate) manager: String,
    /// Packages that were not there before.
    pub(crate) installed: Vec<String>,
}

/// The packages before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    manager: String,
    before: BTreeSet<String>,
    /// Those that were removed, and whose configuration is there.
    #[serde(default)]
    config: BTreeSet<String>,
    #[serde(default)]
    tells: Tells,
}

impl Capture {
    fn had(&self, name: &str) -> bool {
        // Before the action told when it begins, no name had an architecture.
        let bare = name.split(':').next().unwrap_or(name);
        self.before.contains(name) || (self.tells == Tells::default() && self.before.contains(bare))
    }
}

/// The step type `package.present`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackagePresent;

/// The note of what came by installations that failed; null = one is under way, or was interrupted.
const LEFT: &str = "left";

fn left(cx: &Cx<'_>) -> Option<Vec<String>> {
    let notes = cx.host.notes();
    let last = notes.iter().filter_map(|note| note.get(LEFT)).next_back()?;
    Vec::deserialize(last).ok()
}

/// Tells the run what has come by an installation that ended without success, so that what comes later is nobody's here.
async fn tell_left(cx: &Cx<'_>, all: &[String]) -> Result<(), StepError> {
    if all.is_empty() { begun::never_began(cx).await } else { cx.host.note(serde_json::json!({ LEFT: all })).await }
}

/// Installs what is missing. Returns what is there afterwards.
async fn install(cx: &Cx<'_>, manager: Manager, inputs: &Inputs, now: Packages) -> Result<Packages, StepError> {
    let lacks = now.missing(&inputs.names);
    if lacks.is_empty() {
        return Ok(now);
    }
    if let (true, Some(update)) = (inputs.update, manager.update) {
        change(cx, update, &[]).await?;
    }
    let earlier = if begun::begun(cx) { left(cx) } else { Some(Vec::new()) };
    if left(cx).is_some() {
        cx.host.note(serde_json::json!({ LEFT: Json::Null })).await?;
    }
    begun::begins(cx).await?;
    let done = change(cx, manager.install, &lacks).await;
    let after = match (done.as_ref().err(), listed(cx, manager).await) {
        // Interrupted, or its result cannot be seen.
        (Some(failed), after) if failed.exit_code.is_none() || after.is_err() => return Err(failed.clone()),
        (_, after) => after?,
    };
    let wrong = done.err().or_else(|| {
        let name = after.missing(&inputs.names).into_iter().next()?;
        Some(
            StepError::permanent(format!("{name} is not installed, though {} succeeded", manager.name))
                .help("it may be the name of a group or of something that others provide; name the package itself"),
        )
    });
    let Some(wrong) = wrong else { return Ok(after) };
    if let Some(mut all) = earlier {
        all.extend(now.came(&after));
        tell_left(cx, &all).await?;
    }
    Err(wrong)
}

#[async_trait::async_trait]
impl StepType for PackagePresent {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "package.present",
            doc: "Packages of the target's distribution are installed.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: docker\n  uses: package.present\n  with: { names: [docker.io, docker-compose], update: true }\n  timeout: 15m\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = Vec::new();
        if inputs.names.is_empty() {
            all.push(problem(&["names"], "there is no package".to_owned()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._:".contains(c);
        for (number, name) in inputs.names.iter().enumerate() {
            // apt takes `name-` for a removal and `name+` for an installation.
            let odd = name.is_empty() || !name.chars().all(plain) || name.starts_with('-') || name.ends_with('-');
            if odd {
                all.push(problem(&["names", &number.to_string()], format!("`{name}` is not the name of a package")));
            }
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let manager = detect(cx).await?;
        let lacks = listed(cx, manager).await?.missing(&inputs.names);
        let summary = if lacks.is_empty() {
            format!("{} is installed", inputs.names.join(", "))
        } else {
            format!("install {} with {}", lacks.join(", "), manager.name)
        };
        Ok(Preview { changes: Some(!lacks.is_empty()), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, _: &Inputs) -> Result<Capture, StepError> {
        let manager = detect(cx).await?;
        let Packages { there, config, .. } = listed(cx, manager).await?;
        let before = there.into_keys().collect();
        Ok(Capture { manager: manager.name.to_owned(), before, config, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let manager = manager(&capture.manager)?;
        let now = listed(cx, manager).await?;
        // What somebody else installed since the capture is not this step's.
        let ours = if capture.tells.strangers(cx) { Some(Vec::new()) } else { left(cx) };
        let theirs: BTreeSet<String> = match ours {
            Some(ours) => now.there.keys().filter(|n| !ours.contains(n)).cloned().collect(),
            None => BTreeSet::new(),
        };
        let after = install(cx, manager, inputs, now).await?;
        let came = |n: &String| !capture.had(n) && !theirs.contains(n);
        let installed: Vec<String> = after.there.into_keys().filter(came).collect();
        let changed = !installed.is_empty();
        Ok(Acted { outputs: Outputs { manager: capture.manager.clone(), installed }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let nothing = Undone { changed: false, note: None };
        if capture.tells.strangers(cx) {
            return Ok(nothing);
        }
        let manager = manager(&capture.manager)?;
        let now = listed(cx, manager).await?;
        let ours = match outputs {
            Some(outputs) => outputs.installed.clone(),
            None => left(cx).unwrap_or_else(|| inputs.names.iter().map(|n| now.name(n)).collect()),
        };
        let ours: Vec<String> = ours.into_iter().filter(|n| now.there.contains_key(n) && !capture.had(n)).collect();
        if ours.is_empty() {
            return Ok(nothing);
        }
        let (keep, purge): (Vec<_>, Vec<_>) = ours.iter().cloned().partition(|n| capture.config.contains(n));
        // In this order: a package that goes because another one goes is purged only after it.
        for (words, names) in [(manager.remove_only.unwrap_or(manager.remove), keep), (manager.remove, purge)] {
            if !names.is_empty() {
                change(cx, words, &names).await?;
            }
        }
        let after = listed(cx, manager).await?;
        let lost: Vec<String> = capture
            .before
            .iter()
            .filter(|n| now.there.contains_key(*n) && !after.there.contains_key(*n))
            .cloned()
            .collect();
        if !lost.is_empty() {
            return Err(StepError::conflict(format!("{} went too, and was there before", lost.join(", ")))
                .help(format!("install it again: {} {}", manager.install[..2].join(" "), lost.join(" "))));
        }
        Ok(Undone { changed: true, note: Some(format!("removed {}", crate::file::parents::some(&ours))) })
    }
}

#[cfg(test)]
mod tests;
