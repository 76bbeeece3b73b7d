//! `service.*`: a systemd unit is started, stopped, restarted, reloaded or enabled.
//!
//! **Does.** `service.started` and `service.stopped` see to it that the unit is active or not; `service.restarted` and
//! `service.reloaded` act each time; `service.enabled` says whether it starts with the machine (`enabled: false`: it does
//! not). Each waits for what systemd reports, and fails with the unit's own result. `daemon_reload` makes systemd read unit
//! files anew first. The state is read with `systemctl show`.
//!
//! **Outputs.** `name`, `active`, `enabled`: ActiveState and UnitFileState as systemd calls them.
//!
//! **Undo** brings back what was before: whether the unit was active, or started with the machine. A unit that ran before a
//! restart or reload is left running: its files are brought back later, as undo goes backwards. What must be restarted
//! after that belongs to the `rollback` of a step that comes before the files.
//!
//! **Does not** know other service managers than systemd. Tried with systemd 252.

use std::collections::BTreeMap;

use runback_core::step::{
    Access, Acted, Class, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{Command, Exit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::look::problem;

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

impl Unit {
    fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "activating")
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
            Verb::Stopped => !unit.is_active(),
            Verb::Restarted | Verb::Reloaded => false,
            Verb::Enabled => unit.is_enabled() == enabled.unwrap_or(true),
        }
    }
}

/// What all five have in common.
const ALIKE: Descriptor = Descriptor {
    name: "service",
    doc: "",
    access: Access::Changes,
    undo: UndoKind::Full,
    on_interrupt: OnInterrupt::Rerun,
    detach: false,
    examples: &[],
};

#[async_trait::async_trait]
impl StepType for Service {
    type Inputs = Inputs;
    type Outputs = Unit;
    type Capture = Unit;

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

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Unit, StepError> {
        look(cx, &inputs.unit).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Unit) -> Result<Acted<Unit>, StepError> {
        let unit = &inputs.unit;
        if inputs.daemon_reload {
            systemctl(cx, &["daemon-reload"], unit).await?;
        }
        let now = look(cx, unit).await?;
        let so = self.is_so(&now, inputs.enabled);
        if !so {
            if self.0 == Verb::Reloaded && !now.is_active() {
                return Err(StepError::permanent(format!("{unit} is {}, so it cannot be reloaded", now.active))
                    .help("start it with `uses: service.started`"));
            }
            systemctl(cx, &[self.words(inputs.enabled), "--", unit], unit).await?;
        }
        let after = look(cx, unit).await?;
        let right = match self.0 {
            Verb::Started | Verb::Restarted | Verb::Reloaded => after.is_active(),
            Verb::Stopped => !after.is_active(),
            Verb::Enabled => self.is_so(&after, inputs.enabled),
        };
        if !right {
            return Err(StepError::permanent(format!("{unit} is {} and {} afterwards", after.active, after.enabled))
                .help(format!("see `systemctl status {unit}` and `journalctl -u {unit}` on the target")));
        }
        let changed = !so || after != *capture;
        Ok(Acted { outputs: after, changed })
    }

    async fn undo(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Unit, _: Option<&Unit>) -> Result<Undone, StepError> {
        let unit = &inputs.unit;
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
        let Some(verb) = verb else { return Ok(Undone { changed: false, note: None }) };
        systemctl(cx, &[verb, "--", unit], unit).await?;
        Ok(Undone { changed: true, note: Some(format!("{verb} {unit}")) })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Lab;
    use serde_json::json;

    /// A `systemctl` that keeps a unit's state in two files, in the words that systemd 252 prints.
    fn lab(active: &str, enabled: &str) -> Lab {
        let mut lab = Lab::new();
        lab.put("active", active);
        lab.put("enabled", enabled);
        let dir = lab.path("");
        let script = format!(
            "#!/bin/sh\ncd {dir}\necho \"$*\" >>asked\nfor unit; do :; done\ncase $1 in\n\
             show) case $unit in none*) echo LoadState=not-found;; *) echo LoadState=loaded; echo ActiveState=$(cat active); echo UnitFileState=$(cat enabled);; esac;;\n\
             start|restart) case $unit in bad*) echo 'Job for bad.service failed.' >&2; exit 1;; esac; printf active >active;;\n\
             stop) printf inactive >active;;\nenable) printf enabled >enabled;;\ndisable) printf disabled >enabled;;\nesac\n"
        );
        lab.put("bin/systemctl", script);
        lab.set_mode("bin/systemctl", 0o755);
        let path = format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap());
        lab.env.insert("PATH".to_owned(), path);
        lab
    }

    #[tokio::test]
    async fn each_verb_does_its_work_once_and_undoes_it() {
        for (service, active, enabled, done) in [
            (Service(Verb::Started), "inactive", "disabled", "start"),
            (Service(Verb::Stopped), "active", "enabled", "stop"),
            (Service(Verb::Enabled), "active", "disabled", "enable"),
        ] {
            let lab = lab(active, enabled);
            let with = json!({"unit": "app"});
            let ran = lab.run(&service, &with).await.unwrap();
            assert!(ran.changed && lab.text("asked").contains(&format!("{done} -- app")), "{}", lab.text("asked"));
            assert!(!lab.run(&service, &with).await.unwrap().changed);
            assert!(lab.undo(&service, &with, &ran).await.unwrap().changed);
            assert_eq!((lab.text("active").as_str(), lab.text("enabled").as_str()), (active, enabled));
            assert!(!lab.undo(&service, &with, &ran).await.unwrap().changed);
        }
        let lab = lab("active", "enabled");
        let with = json!({"unit": "app", "enabled": false});
        let ran = lab.run(&Service(Verb::Enabled), &with).await.unwrap();
        assert_eq!(ran.outputs["enabled"], "disabled");
    }

    #[tokio::test]
    async fn a_restart_of_what_ran_has_nothing_to_undo() {
        let lab = lab("active", "enabled");
        let with = json!({"unit": "app", "daemon_reload": true});
        let ran = lab.run(&Service(Verb::Restarted), &with).await.unwrap();
        assert!(ran.changed);
        assert!(!lab.undo(&Service(Verb::Restarted), &with, &ran).await.unwrap().changed);
        let asked = lab.text("asked");
        assert_eq!(
            (asked.matches("restart -- app").count(), asked.matches("daemon-reload").count()),
            (1, 1),
            "{asked}"
        );
        lab.put("active", "inactive");
        let ran = lab.run(&Service(Verb::Restarted), &with).await.unwrap();
        assert!(lab.undo(&Service(Verb::Restarted), &with, &ran).await.unwrap().changed);
        assert_eq!(lab.text("active"), "inactive");
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_named() {
        let lab = lab("inactive", "disabled");
        let none = lab.capture(&Service(Verb::Started), &json!({"unit": "none"})).await.unwrap_err();
        assert_eq!(none.message, "there is no unit none");
        let bad = lab.run(&Service(Verb::Started), &json!({"unit": "bad"})).await.unwrap_err();
        assert!(bad.message.contains("Job for bad.service failed.") && bad.help.unwrap().contains("journalctl -u bad"));
        let idle = lab.run(&Service(Verb::Reloaded), &json!({"unit": "app"})).await.unwrap_err();
        assert_eq!(idle.message, "app is inactive, so it cannot be reloaded");
        for unit in ["", "-x", "a b", "a*"] {
            assert_eq!(Lab::problems(&Service(Verb::Started), &json!({"unit": unit})).len(), 1, "{unit}");
        }
    }
}
