//! What the step types about one domain share: how it is, changing it, waiting until it is so. Knows no step type.

use std::time::Duration;

use runback_core::step::{Class, Cx, StepError, Undone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::errors::{self, Why, why};
use super::virsh::{Connection, field};
use crate::bounded::pause;
use crate::period::Period;

/// How often a state that is waited for is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A domain's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// The guest has its processors, busy or idle.
    Running,
    /// Stopped in memory, until it is resumed.
    Paused,
    /// Not there but as a definition.
    ShutOff,
    /// On its way down.
    InShutdown,
    /// The guest or its QEMU died.
    Crashed,
    /// The guest sleeps (ACPI S3).
    Suspended,
    /// libvirt does not say.
    Unknown,
}

impl State {
    fn read(text: &str) -> Self {
        match text {
            "running" | "idle" | "blocked" => Self::Running,
            "paused" => Self::Paused,
            "shut off" => Self::ShutOff,
            "in shutdown" => Self::InShutdown,
            "crashed" => Self::Crashed,
            "pmsuspended" => Self::Suspended,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShutOff => "shut off",
            Self::InShutdown => "shutting down",
            Self::Crashed => "crashed",
            Self::Suspended => "asleep",
            Self::Unknown => "in an unknown state",
        }
    }

    /// QEMU is there.
    pub(crate) fn active(self) -> bool {
        !matches!(self, Self::ShutOff | Self::Crashed)
    }
}

/// A domain as libvirt knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) state: State,
    pub(crate) persistent: bool,
    pub(crate) autostart: bool,
    pub(crate) managed_save: bool,
}

/// What the simple step types give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The domain's name.
    pub(crate) domain: String,
    /// Its UUID.
    pub(crate) uuid: String,
    /// How it is now.
    pub(crate) state: State,
}

impl From<Info> for Outputs {
    fn from(info: Info) -> Self {
        Self { domain: info.name, uuid: info.uuid, state: info.state }
    }
}

fn parse(text: &str, name: &str) -> Result<Info, StepError> {
    let get = |key: &str| {
        field(text, key).ok_or_else(|| {
            StepError::permanent(format!("{name}: the answer of `virsh dominfo` has no line `{key}`"))
                .help("this was made for libvirt 9.0; see what the command prints")
        })
    };
    Ok(Info {
        name: get("Name")?.to_owned(),
        uuid: get("UUID")?.to_owned(),
        state: State::read(get("State")?),
        persistent: get("Persistent")? == "yes",
        autostart: get("Autostart")? == "enable",
        managed_save: field(text, "Managed save") == Some("yes"),
    })
}

pub(crate) async fn find(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<Option<Info>, StepError> {
    let words = ["dominfo", name];
    let exit = connection.asked(cx, &words, name).await?;
    if exit.ok() {
        return parse(&exit.stdout_text(), name).map(Some);
    }
    match why(&exit) {
        Why::NoDomain => Ok(None),
        _ => Err(errors::of_exit(&connection.command(&words), &exit, name, connection)),
    }
}

pub(crate) async fn must(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<Info, StepError> {
    find(cx, connection, name).await?.ok_or_else(|| no_such(name))
}

pub(crate) fn no_such(name: &str) -> StepError {
    StepError::permanent(format!("{name}: there is no such domain")).help("see `virsh list --all`")
}

/// `virsh WORDS`, about this domain. When it fails, looks whether it is so all the same: somebody was faster.
pub(crate) async fn change(
    cx: &Cx<'_>,
    connection: &Connection,
    name: &str,
    words: &[&str],
    done: impl Fn(&Info) -> bool,
) -> Result<(), StepError> {
    let command = connection.command(words);
    let exit = connection.tried(cx, command.clone(), name).await?;
    if exit.ok() {
        return Ok(());
    }
    let failed = errors::of_exit(&command, &exit, name, connection);
    if !matches!(why(&exit), Why::AlreadyActive | Why::NotSo) {
        return Err(failed);
    }
    match find(cx, connection, name).await? {
        Some(now) if done(&now) => Ok(()),
        _ => Err(failed),
    }
}

/// Waits until the domain is so. `None` = it was not within `limit`; with how it was at the end.
pub(crate) async fn until(
    cx: &Cx<'_>,
    connection: &Connection,
    name: &str,
    limit: Duration,
    so: impl Fn(Option<&Info>) -> bool,
) -> Result<Result<Option<Info>, Option<Info>>, StepError> {
    let end = cx.host.now_ms().saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    loop {
        let now = find(cx, connection, name).await?;
        if so(now.as_ref()) {
            return Ok(Ok(now));
        }
        if cx.host.now_ms() >= end {
            return Ok(Err(now));
        }
        pause(cx, POLL, name).await?;
    }
}

/// Starts it, unless it runs.
pub(crate) async fn start(cx: &Cx<'_>, connection: &Connection, name: &str, paused: bool) -> Result<Info, StepError> {
    let words: &[&str] = if paused { &["start", name, "--paused"] } else { &["start", name] };
    change(cx, connection, name, words, |now| now.state.active()).await?;
    let reached = until(cx, connection, name, Duration::from_secs(30), |now| {
        now.is_some_and(|i| matches!(i.state, State::Running | State::Paused))
    });
    match reached.await? {
        Ok(Some(info)) => Ok(info),
        Ok(None) | Err(None) => Err(no_such(name)),
        Err(Some(info)) => Err(StepError::permanent(format!("{name} was started, and is {}", info.state.word()))
            .help(format!("see its log on the host, /var/log/libvirt/qemu/{name}.log"))),
    }
}

/// Asks the guest to shut down, and pulls the plug once `grace` is over. A grace of nothing pulls it at once.
pub(crate) async fn stop(cx: &Cx<'_>, connection: &Connection, name: &str, grace: Duration) -> Result<(), StepError> {
    let off = |now: Option<&Info>| now.is_none_or(|i| !i.state.active());
    if !grace.is_zero() {
        change(cx, connection, name, &["shutdown", name], |now| !now.state.active()).await?;
        if until(cx, connection, name, grace, off).await?.is_ok() {
            return Ok(());
        }
    }
    change(cx, connection, name, &["destroy", name], |now| !now.state.active()).await?;
    match until(cx, connection, name, Duration::from_secs(30), off).await? {
        Ok(_) => Ok(()),
        Err(_) => Err(StepError::new(
            Class::Timeout,
            format!("{name} still runs {} after it was destroyed", Period::seconds(30)),
        )
        .help("QEMU may hang in the kernel (a dead storage?): look at the host")),
    }
}

/// The domain of that name as it was captured, by its UUID; None where it is not there any more.
pub(crate) async fn same(cx: &Cx<'_>, connection: &Connection, before: &Info) -> Result<Option<Info>, StepError> {
    let now = find(cx, connection, &before.name).await?;
    match &now {
        Some(now) if now.uuid != before.uuid && !cx.force => Err(drift(
            &before.name,
            &format!("another domain has that name now ({}, it was {})", now.uuid, before.uuid),
        )),
        _ => Ok(now),
    }
}

pub(crate) fn drift(name: &str, how: &str) -> StepError {
    StepError::conflict(format!("{name} stays as it is: {how}"))
        .help("somebody else has changed it; look at it, then roll back with --force or repair it by hand")
}

/// The undo of what stopped a domain: it is started if it ran, and paused again if it was paused.
pub(crate) async fn run_again(cx: &Cx<'_>, connection: &Connection, before: &Info) -> Result<Undone, StepError> {
    if !before.state.active() {
        return Ok(Undone { changed: false, note: None });
    }
    let Some(now) = same(cx, connection, before).await? else {
        return Err(drift(&before.name, "it is not defined any more"));
    };
    if now.state.active() {
        return Ok(Undone { changed: false, note: None });
    }
    start(cx, connection, &before.name, before.state == State::Paused).await?;
    Ok(Undone { changed: true, note: Some(format!("{} runs again", before.name)) })
}

/// Its definition as it is kept, not as it runs. Without passwords: it may go into the journal.
pub(crate) async fn definition(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<String, StepError> {
    connection.read(cx, &["dumpxml", name, "--inactive"], name).await
}

/// The same with the passwords of its displays, which defining it again would lose. Never to be written anywhere.
pub(crate) async fn secret_definition(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<String, StepError> {
    connection.read(cx, &["dumpxml", name, "--inactive", "--security-info"], name).await
}

/// Makes the definition be this document; the domain's name is as it says.
pub(crate) async fn define(cx: &Cx<'_>, connection: &Connection, name: &str, xml: &str) -> Result<(), StepError> {
    connection.ran(cx, connection.feeding(&["define"], xml), name).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dominfo_is_read() {
        let text = "Id:             4\nName:           web\nUUID:           300cc564-2513-4906-9389-336f8a8c6636\n\
            OS Type:        hvm\nState:          running\nPersistent:     yes\nAutostart:      disable\n\
            Managed save:   no\nMessages:       tainted: running with undesirable elevated privileges\n";
        let info = parse(text, "web").expect("it is whole");
        assert_eq!(
            (info.state, info.persistent, info.autostart, info.managed_save),
            (State::Running, true, false, false)
        );
        let error = parse("Name: web\n", "web").expect_err("half of it");
        assert!(error.message.contains("no line `UUID`"), "{error}");
    }

    #[test]
    fn every_state_has_a_word() {
        for (text, state) in
            [("shut off", State::ShutOff), ("in shutdown", State::InShutdown), ("no state", State::Unknown)]
        {
            assert_eq!(State::read(text), state);
            assert!(!state.word().is_empty());
        }
        assert!(State::InShutdown.active() && !State::Crashed.active());
    }
}
