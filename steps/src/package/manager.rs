//! Managers of packages: how each is called, what is there by it, and what its failures mean. Knows not what a step wants.

use std::collections::{BTreeMap, BTreeSet};

use runback_core::step::{Class, Cx, StepError};
use runback_core::target::{Command, Exit};

/// How a manager is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manager {
    pub(super) name: &'static str,
    /// Lists what is installed, a name per line.
    list: &'static [&'static str],
    /// Prints the architecture whose packages need no name of it.
    native: Option<&'static [&'static str]>,
    pub(super) update: Option<&'static [&'static str]>,
    pub(super) install: &'static [&'static str],
    pub(super) remove: &'static [&'static str],
    /// Leaves the configuration.
    pub(super) remove_only: Option<&'static [&'static str]>,
}

const MANAGERS: [Manager; 4] = [
    Manager {
        name: "apt",
        list: &["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}:${Architecture}\\n"],
        native: Some(&["dpkg", "--print-architecture"]),
        update: Some(&["apt-get", "update", "--quiet"]),
        install: &["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--"],
        remove: &["apt-get", "purge", "--yes", "--quiet", "--"],
        remove_only: Some(&["apt-get", "remove", "--yes", "--quiet", "--"]),
    },
    Manager {
        name: "dnf",
        list: &["rpm", "--query", "--all", "--queryformat", "installed %{NAME}\\n"],
        native: None,
        update: None,
        install: &["dnf", "install", "--assumeyes", "--quiet", "--"],
        remove: &["dnf", "remove", "--assumeyes", "--quiet", "--noautoremove", "--"],
        remove_only: None,
    },
    Manager {
        name: "yum",
        list: &["rpm", "--query", "--all", "--queryformat", "installed %{NAME}\\n"],
        native: None,
        update: None,
        install: &["yum", "install", "--assumeyes", "--quiet", "--"],
        remove: &["yum", "remove", "--assumeyes", "--quiet", "--"],
        remove_only: None,
    },
    Manager {
        name: "apk",
        list: &["apk", "info", "--quiet"],
        native: None,
        update: Some(&["apk", "update", "--quiet"]),
        install: &["apk", "add", "--quiet", "--"],
        remove: &["apk", "del", "--quiet", "--"],
        remove_only: None,
    },
];

pub(super) fn manager(name: &str) -> Result<Manager, StepError> {
    let found = MANAGERS.into_iter().find(|m| m.name == name);
    found.ok_or_else(|| StepError::permanent(format!("`{name}` is no manager of packages that is known here")))
}

pub(super) async fn detect(cx: &Cx<'_>) -> Result<Manager, StepError> {
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

/// The packages of a system.
#[derive(Debug, Default)]
pub(super) struct Packages {
    /// By name. False = not whole: an installation was cut off, or is under way.
    pub(super) there: BTreeMap<String, bool>,
    /// Removed, but their configuration is there. dpkg alone lists them.
    pub(super) config: BTreeSet<String>,
    /// Empty = names have no architecture.
    native: String,
}

impl Packages {
    /// One name for one package: an architecture is part of it only where it is not the system's own.
    pub(super) fn name(&self, name: &str) -> String {
        match name.rsplit_once(':') {
            Some((bare, of))
                if !self.native.is_empty() && (of == self.native || ["all", "any", "native"].contains(&of)) =>
            {
                bare.to_owned()
            }
            _ => name.to_owned(),
        }
    }

    pub(super) fn missing(&self, names: &[String]) -> Vec<String> {
        names.iter().filter(|n| self.there.get(&self.name(n)) != Some(&true)).cloned().collect()
    }

    /// Those of `after` that are not here.
    pub(super) fn came(&self, after: &Self) -> Vec<String> {
        after.there.keys().filter(|n| !self.there.contains_key(*n)).cloned().collect()
    }
}

async fn said(cx: &Cx<'_>, words: &[&str]) -> Result<String, StepError> {
    let command = Command::query(words.iter().copied()).keep_stdout(16 << 20);
    let exit = cx.query(command.clone()).await?;
    if exit.ok() { Ok(exit.stdout_text()) } else { Err(StepError::from_exit(Class::Permanent, &command, &exit)) }
}

pub(super) async fn listed(cx: &Cx<'_>, manager: Manager) -> Result<Packages, StepError> {
    let mut all = Packages::default();
    if let Some(native) = manager.native {
        said(cx, native).await?.trim().clone_into(&mut all.native);
    }
    for line in said(cx, manager.list).await?.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (status, name) = line.split_once(' ').unwrap_or(("installed", line));
        let name = all.name(name);
        match status {
            "not-installed" => {}
            "config-files" => drop(all.config.insert(name)),
            whole => {
                let whole = matches!(whole, "installed" | "triggers-pending" | "triggers-awaited");
                all.there.insert(name, whole);
            }
        }
    }
    Ok(all)
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

pub(super) async fn change(cx: &Cx<'_>, words: &[&str], names: &[String]) -> Result<(), StepError> {
    let argv = words.iter().map(|w| (*w).to_owned()).chain(names.iter().cloned());
    let command = Command::new(argv).env("DEBIAN_FRONTEND", "noninteractive").keep_stdout(64 << 10);
    let exit = cx.query(command.clone()).await?;
    if exit.ok() { Ok(()) } else { Err(failed(&command, &exit)) }
}
