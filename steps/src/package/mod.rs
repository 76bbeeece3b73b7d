//! `package.present`: packages of the target's distribution are installed.
//!
//! **Does.** Installs those of `names` that are not there, with apt, dnf, yum or apk, whichever the target has. A package
//! that is there is left alone, whatever its version.
//!
//! **Outputs.** `manager`, and `installed`: the packages that came, dependencies included.
//!
//! **Undo** removes what the step installed, dependencies included, and nothing that was there before. Packages that
//! somebody installed since and that need one of these make it fail, as the manager then wants to remove them too. After an
//! action that did not finish, only those of `names` that were not there are removed.
//!
//! **Does not** upgrade, and does not add sources of packages. Tried with apt 2.6 and dnf 4.14; yum and apk are called as
//! they document it, and have not been tried.

use std::collections::{BTreeMap, BTreeSet};

use runback_core::step::{
    Access, Acted, Class, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{Command, Exit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::look::problem;

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
}

/// The step type `package.present`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackagePresent;

/// How a manager is called.
#[derive(Debug, Clone, Copy)]
struct Manager {
    name: &'static str,
    /// Lists what is installed, a name per line.
    list: &'static [&'static str],
    update: Option<&'static [&'static str]>,
    install: &'static [&'static str],
    remove: &'static [&'static str],
}

const MANAGERS: [Manager; 4] = [
    Manager {
        name: "apt",
        list: &["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n"],
        update: Some(&["apt-get", "update", "--quiet"]),
        install: &["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--"],
        remove: &["apt-get", "purge", "--yes", "--quiet", "--"],
    },
    Manager {
        name: "dnf",
        list: &["rpm", "--query", "--all", "--queryformat", "installed %{NAME}\\n"],
        update: None,
        install: &["dnf", "install", "--assumeyes", "--quiet", "--"],
        remove: &["dnf", "remove", "--assumeyes", "--quiet", "--noautoremove", "--"],
    },
    Manager {
        name: "yum",
        list: &["rpm", "--query", "--all", "--queryformat", "installed %{NAME}\\n"],
        update: None,
        install: &["yum", "install", "--assumeyes", "--quiet", "--"],
        remove: &["yum", "remove", "--assumeyes", "--quiet", "--"],
    },
    Manager {
        name: "apk",
        list: &["apk", "info", "--quiet"],
        update: Some(&["apk", "update", "--quiet"]),
        install: &["apk", "add", "--quiet", "--"],
        remove: &["apk", "del", "--quiet", "--"],
    },
];

fn manager(name: &str) -> Result<Manager, StepError> {
    let found = MANAGERS.into_iter().find(|m| m.name == name);
    found.ok_or_else(|| StepError::permanent(format!("`{name}` is no manager of packages that is known here")))
}

async fn detect(cx: &Cx<'_>) -> Result<Manager, StepError> {
    for manager in MANAGERS {
        let program = manager.install[0];
        match cx.query(Command::query([program, "--version"])).await {
            Ok(exit) if exit.ok() => return Ok(manager),
            Ok(_) => {}
            Err(e) if e.class == Class::Permanent => {}
            Err(e) => return Err(e),
        }
    }
    Err(StepError::permanent("the target has none of apt-get, dnf, yum and apk")
        .help("install the packages with `exec` and its own manager"))
}

/// What is there, by name. False = not whole: an installation was cut off, or is under way.
async fn listed(cx: &Cx<'_>, manager: Manager) -> Result<BTreeMap<String, bool>, StepError> {
    let command = Command::query(manager.list.iter().copied()).keep_stdout(16 << 20);
    let exit = cx.query(command.clone()).await?;
    if !exit.ok() {
        return Err(StepError::from_exit(Class::Permanent, &command, &exit));
    }
    let text = exit.stdout_text();
    let all = text.lines().filter_map(|line| match line.trim().split_once(' ') {
        // dpkg's: what was removed is listed for as long as its configuration is there.
        Some(("not-installed" | "config-files", _)) => None,
        Some(("installed" | "triggers-pending" | "triggers-awaited", name)) => Some((name.to_owned(), true)),
        Some((_, name)) => Some((name.to_owned(), false)),
        None => Some((line.trim().to_owned(), true)),
    });
    Ok(all.filter(|(name, _)| !name.is_empty()).collect())
}

fn failed(command: &Command, exit: &Exit) -> StepError {
    let stderr = exit.stderr_text();
    let says = |texts: &[&str]| texts.iter().any(|t| stderr.contains(t));
    let (class, help) =
        if says(&["Could not get lock", "is another process using it", "Unable to lock database", "lock is held"]) {
            (Class::Transient, "another installation is under way on the target; it is tried again if `retry` says so")
        } else if says(&[
            "Temporary failure resolving",
            "Could not resolve",
            "Failed to fetch",
            "Could not connect",
            "Cannot download",
            "temporary error",
        ]) {
            (Class::Transient, "the source of packages could not be reached from the target")
        } else if says(&[
            "Unable to locate package",
            "has no installation candidate",
            "No match for argument",
            "no such package",
            "Unable to find a match",
        ]) {
            (Class::Permanent, "correct the name; `update: true` fetches the lists of packages first")
        } else if says(&["are you root", "superuser privileges", "Permission denied"]) {
            (Class::Permanent, "become root for it: `become: true` of the target")
        } else {
            (Class::Permanent, "the whole output is in the step's log")
        };
    match unmet(&exit.stdout_text()) {
        None => StepError::from_exit(class, command, exit).help(help),
        Some(unmet) => {
            let mut error = StepError::from_exit(Class::Permanent, command, exit);
            error.message = format!("{}: {unmet}", error.message);
            error.help("what it needs is in no source of packages that the target has, or stands in another's way")
        }
    }
}

/// apt says on stdout what a package needs and does not get.
fn unmet(stdout: &str) -> Option<String> {
    let (_, rest) = stdout.split_once("The following packages have unmet dependencies:\n")?;
    let lines: Vec<&str> = rest.lines().take_while(|l| l.starts_with(' ')).map(str::trim).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

async fn change(cx: &Cx<'_>, words: &[&str], names: &[String]) -> Result<(), StepError> {
    let argv = words.iter().map(|w| (*w).to_owned()).chain(names.iter().cloned());
    let command = Command::new(argv).env("DEBIAN_FRONTEND", "noninteractive").keep_stdout(64 << 10);
    let exit = cx.query(command.clone()).await?;
    if exit.ok() { Ok(()) } else { Err(failed(&command, &exit)) }
}

fn missing(names: &[String], there: &BTreeMap<String, bool>) -> Vec<String> {
    names.iter().filter(|n| there.get(*n) != Some(&true)).cloned().collect()
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
            detach: false,
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
        let lacks = missing(&inputs.names, &listed(cx, manager).await?);
        let summary = if lacks.is_empty() {
            format!("{} is installed", inputs.names.join(", "))
        } else {
            format!("install {} with {}", lacks.join(", "), manager.name)
        };
        Ok(Preview { changes: Some(!lacks.is_empty()), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, _: &Inputs) -> Result<Capture, StepError> {
        let manager = detect(cx).await?;
        Ok(Capture { manager: manager.name.to_owned(), before: listed(cx, manager).await?.into_keys().collect() })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let manager = manager(&capture.manager)?;
        let lacks = missing(&inputs.names, &listed(cx, manager).await?);
        if !lacks.is_empty() {
            if let (true, Some(update)) = (inputs.update, manager.update) {
                change(cx, update, &[]).await?;
            }
            change(cx, manager.install, &lacks).await?;
        }
        let after = listed(cx, manager).await?;
        if let Some(name) = missing(&inputs.names, &after).first() {
            return Err(StepError::permanent(format!("{name} is not installed, though {} succeeded", manager.name))
                .help("it may be the name of a group or of something that others provide; name the package itself"));
        }
        let installed: Vec<String> = after.into_keys().filter(|n| !capture.before.contains(n)).collect();
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
        let manager = manager(&capture.manager)?;
        let now = listed(cx, manager).await?;
        let ours = outputs.map_or(&inputs.names, |o| &o.installed);
        let came = |n: &&String| now.contains_key(*n) && !capture.before.contains(*n);
        let ours: Vec<String> = ours.iter().filter(came).cloned().collect();
        if ours.is_empty() {
            return Ok(Undone { changed: false, note: None });
        }
        change(cx, manager.remove, &ours).await?;
        let after = listed(cx, manager).await?;
        let lost: Vec<String> =
            capture.before.iter().filter(|n| now.contains_key(*n) && !after.contains_key(*n)).cloned().collect();
        if !lost.is_empty() {
            return Err(StepError::conflict(format!("{} went too, and was there before", lost.join(", ")))
                .help(format!("install it again: {} {}", manager.install[..2].join(" "), lost.join(" "))));
        }
        Ok(Undone { changed: true, note: Some(format!("removed {}", crate::file::parents::some(&ours))) })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Lab, Ran};
    use serde_json::json;

    /// An `apt` whose packages are lines of a file. `web` needs `lib`.
    fn lab() -> Lab {
        let mut lab = Lab::new();
        let dir = lab.path("");
        lab.put("all", "base\nlib2\n");
        lab.put("bin/dpkg-query", format!("#!/bin/sh\nsed 's/^/installed /' {dir}/all; echo config-files gone\n"));
        let apt = format!(
            "#!/bin/sh\ncd {dir}\necho \"$*\" >>asked\nverb=$1\ncase $verb in --version|update) exit 0;; esac\n\
             while [ \"$1\" != -- ]; do shift; done; shift\nfor p; do case $verb:$p in\n\
             install:none) echo 'E: Unable to locate package none' >&2; exit 100;;\n\
             install:busy) echo 'E: Could not get lock /var/lib/dpkg/lock-frontend' >&2; exit 100;;\n\
             install:web) printf 'lib\\nweb\\n' >>all;; install:*) echo $p >>all;;\n\
             purge:*) grep -vx \"$p\" all >all.new; mv all.new all;; esac; done\n"
        );
        lab.put("bin/apt-get", apt);
        for name in ["bin/apt-get", "bin/dpkg-query"] {
            lab.set_mode(name, 0o755);
        }
        let path = format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap());
        lab.env.insert("PATH".to_owned(), path);
        lab
    }

    #[tokio::test]
    async fn what_came_goes_again_and_nothing_else() {
        let lab = lab();
        let with = json!({"names": ["base", "web"], "update": true});
        assert_eq!(lab.preview(&PackagePresent, &with).await.unwrap().summary, "install web with apt");
        let ran = lab.run(&PackagePresent, &with).await.unwrap();
        assert_eq!(ran.outputs["installed"], json!(["lib", "web"]));
        assert!(lab.text("asked").contains("update") && !lab.text("asked").contains("-- base"));
        assert!(!lab.run(&PackagePresent, &with).await.unwrap().changed);
        lab.undo(&PackagePresent, &with, &ran).await.unwrap();
        assert_eq!(lab.text("all"), "base\nlib2\n");
        assert!(!lab.undo(&PackagePresent, &with, &ran).await.unwrap().changed);

        let capture = lab.capture(&PackagePresent, &with).await.unwrap();
        lab.act(&PackagePresent, &with, &capture).await.unwrap();
        lab.undo_unfinished(&PackagePresent, &with, &capture).await.unwrap();
        assert_eq!(lab.text("all"), "base\nlib2\nlib\n", "of an unfinished one, only what was asked for");
    }

    /// Seen on a machine where another installation was under way.
    #[tokio::test]
    async fn what_was_half_there_before_is_not_removed() {
        let lab = lab();
        lab.put("bin/dpkg-query", format!("#!/bin/sh\n[ -e {0}/done ] || echo triggers-pending man; [ -e {0}/done ] || echo unpacked cron; [ ! -e {0}/done ] || printf 'installed man\\ninstalled cron\\n'; sed 's/^/installed /' {0}/all\n", lab.path("")));
        lab.set_mode("bin/dpkg-query", 0o755);
        let half = lab.preview(&PackagePresent, &json!({"names": ["man", "cron"]})).await.unwrap();
        assert_eq!(half.summary, "install cron with apt");
        let with = json!({"names": ["web"]});
        let capture = lab.capture(&PackagePresent, &with).await.unwrap();
        lab.put("done", "");
        let acted = lab.act(&PackagePresent, &with, &capture).await.unwrap();
        assert_eq!(acted.outputs["installed"], json!(["lib", "web"]));
        let ran = Ran { capture, outputs: acted.outputs, changed: acted.changed };
        lab.undo(&PackagePresent, &with, &ran).await.unwrap();
        assert!(!lab.text("asked").contains("cron"), "{}", lab.text("asked"));
        assert_eq!(lab.text("all"), "base\nlib2\n");
    }

    #[tokio::test]
    async fn failures_have_a_class() {
        let lab = lab();
        let none = lab.run(&PackagePresent, &json!({"names": ["none"]})).await.unwrap_err();
        assert_eq!(none.class, Class::Permanent);
        assert!(none.help.unwrap().contains("correct the name"));
        let busy = lab.run(&PackagePresent, &json!({"names": ["busy"]})).await.unwrap_err();
        assert_eq!(busy.class, Class::Transient);
        for name in ["", "-y", "a b", "web-", "a;b"] {
            assert_eq!(Lab::problems(&PackagePresent, &json!({"names": [name]})).len(), 1, "{name}");
        }
    }
}
