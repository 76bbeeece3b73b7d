//! A host behind ssh, as a target. One multiplexed master carries everything (`master`); a command or a file operation
//! is a small POSIX-shell program in a session of its own (`session`, `script`), so nothing is installed there. Knows
//! nothing of steps.
//!
//! Sessions are asked for in OpenSSH's own protocol between a client and a master (`mux`), so no `ssh` is started per
//! command; of the client's configuration, `SendEnv` and `SetEnv` therefore have no effect on commands.
//!
//! What differs from `local`: a command that a signal ended has the code 128 + the signal, as shells have it. Names of
//! environment variables must be such that a shell can export them. Commands start in the login folder, with the
//! environment of a non-interactive login.
//!
//! Limits: a host that is cut off without the far side noticing (no packet comes through) goes on running what it
//! was running until its own TCP gives up.

mod detached;
mod diagnose;
mod files;
mod master;
mod mux;
mod script;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use runback_core::playbook::model::SshTarget as SshConfig;
use runback_core::target::{
    Command, Detached, DetachedState, Exit, FileAttributes, FileStat, Target, TargetError, TargetErrorKind, Watch,
};

use self::master::Host;
use self::session::{Call, Reply};
use crate::process::Processes;

/// A host behind ssh. Connects when it is first used; [`SshTarget::close`] it at the end of a run. Dropped, it closes
/// too, without waiting.
#[derive(Debug)]
pub struct SshTarget {
    name: String,
    host: Host,
}

impl SshTarget {
    /// `base` is the playbook's folder: a relative `identity` counts from it. Fails (`Refused`) on a host name that
    /// is none and on options that would switch the check of host keys off.
    pub fn new(
        name: impl Into<String>,
        config: &SshConfig,
        base: PathBuf,
        processes: Arc<Processes>,
    ) -> Result<Self, TargetError> {
        Ok(Self { name: name.into(), host: Host::new(config.clone(), base, processes)? })
    }

    /// Ends the connection and waits for it. The next use connects again.
    pub async fn close(&self) {
        self.host.close().await;
    }
}

/// The environment of a command, if the far side's shell can set it.
fn checked_env<'c>(host: &Host, command: &'c Command) -> Result<Vec<(&'c str, &'c str)>, TargetError> {
    let nul = |what: &str| {
        let message = format!("{what} has a NUL byte in it, which no command on {} can take", host.label());
        TargetError::new(TargetErrorKind::Other, message)
    };
    if let Some(arg) = command.argv.iter().find(|a| a.contains('\0')) {
        return Err(nul(&format!("the argument {arg:?}")));
    }
    let env = command.env.iter().filter(|(name, _)| *name != crate::process::COOKIE);
    env.map(|(name, value)| {
        if !script::is_variable(name) {
            let message = format!("the environment variable {name:?} cannot be set on {}", host.label());
            return Err(TargetError::new(TargetErrorKind::Other, message)
                .help("a shell exports names of letters, digits and _ only"));
        }
        if value.contains('\0') {
            return Err(nul(&format!("the environment variable {name}")));
        }
        Ok((name.as_str(), value.as_str()))
    })
    .collect()
}

/// The errors that come before the command itself.
fn check_started(host: &Host, command: &Command, reply: &Reply) -> Result<(), TargetError> {
    let said = |word: &str| reply.said.iter().any(|s| s == word);
    let name = command.argv.first().map_or("", String::as_str);
    if said("missing") {
        let message = format!("command not found on {}: {name}", host.label());
        return Err(TargetError::new(TargetErrorKind::CommandNotFound, message)
            .help("install it there, or give its full path; a login without a terminal may have a shorter PATH"));
    }
    if said("cwd") {
        let dir = command.cwd.as_deref().unwrap_or_default();
        let message = format!("the working directory {dir} cannot be entered on {}", host.label());
        return Err(TargetError::new(TargetErrorKind::NotFound, message));
    }
    Ok(())
}

#[async_trait::async_trait]
impl Target for SshTarget {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError> {
        let env = checked_env(&self.host, command)?;
        let mut args = vec![command.cwd.as_deref().unwrap_or_default()];
        args.extend(command.argv.iter().map(String::as_str));
        let call = Call {
            body: script::RUN,
            args: &args,
            env: &env,
            stdin: command.stdin.as_deref(),
            keep: command.keep_stdout,
            log: command.log_output,
            timeout: command.timeout,
            name: command.argv.first().map_or("", String::as_str),
        };
        let reply = self.host.call(&call, watch).await?;
        check_started(&self.host, command, &reply)?;
        let Reply { code, stdout, stdout_cut, stderr_tail, .. } = reply;
        Ok(Exit { code: Some(code), signal: None, stdout, stdout_cut, stderr_tail })
    }

    async fn start_detached(&self, command: &Command, dir: &str) -> Result<Detached, TargetError> {
        detached::start(&self.host, command, dir).await
    }

    async fn detached_state(&self, detached: &Detached) -> Result<DetachedState, TargetError> {
        detached::state(&self.host, detached).await
    }

    async fn attach(&self, detached: &Detached, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError> {
        detached::attach(&self.host, detached, command, watch).await
    }

    async fn forget_detached(&self, detached: &Detached) -> Result<(), TargetError> {
        detached::remove(&self.host, detached).await
    }

    fn detached_dir(&self, run: &str, step: &str, attempt: u32) -> String {
        detached::dir(run, step, attempt)
    }

    async fn stat(&self, path: &str) -> Result<Option<FileStat>, TargetError> {
        files::stat(&self.host, path).await
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TargetError> {
        files::read(&self.host, path, limit).await
    }

    async fn sha256(&self, path: &str) -> Result<String, TargetError> {
        files::sha256(&self.host, path).await
    }

    async fn write(&self, path: &str, bytes: &[u8], attributes: &FileAttributes) -> Result<(), TargetError> {
        files::write(&self.host, path, bytes, attributes).await
    }

    async fn set_attributes(&self, path: &str, attributes: &FileAttributes) -> Result<(), TargetError> {
        files::set_attributes(&self.host, path, attributes).await
    }

    async fn symlink(&self, link: &str, points_to: &str) -> Result<(), TargetError> {
        files::symlink(&self.host, link, points_to).await
    }

    async fn create_dir(&self, path: &str, mode: Option<u32>) -> Result<(), TargetError> {
        files::create_dir(&self.host, path, mode).await
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TargetError> {
        files::list(&self.host, path).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), TargetError> {
        files::rename(&self.host, from, to).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<(), TargetError> {
        files::copy(&self.host, from, to).await
    }

    async fn remove_file(&self, path: &str) -> Result<(), TargetError> {
        files::remove_file(&self.host, path).await
    }

    async fn remove_dir(&self, path: &str) -> Result<(), TargetError> {
        files::remove_dir(&self.host, path).await
    }

    async fn remove_tree(&self, path: &str) -> Result<(), TargetError> {
        files::remove_tree(&self.host, path).await
    }

    async fn free_space(&self, path: &str) -> Result<u64, TargetError> {
        files::free_space(&self.host, path).await
    }

    async fn user_id(&self, name: &str) -> Result<u32, TargetError> {
        files::id(&self.host, "passwd", "user", name).await
    }

    async fn group_id(&self, name: &str) -> Result<u32, TargetError> {
        files::id(&self.host, "group", "group", name).await
    }
}
