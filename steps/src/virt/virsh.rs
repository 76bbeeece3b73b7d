//! How `virsh` is called: the connection that all step types of the family share, the argv, and one way to run it. What
//! a failure means is in `errors`.

use std::time::Duration;

use runback_core::step::{Class, Cx, InputProblem, StepError};
use runback_core::target::{Command, Exit, KEEP_DEFAULT};

use super::errors;
use crate::http::look::problem;

/// How long a question to libvirtd may take. What changes something has no limit but the attempt's.
const ANSWER: Duration = Duration::from_secs(60);

/// Which libvirtd.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) uri: String,
}

/// Declares the inputs of a step type that talks to libvirt: its own, and the connection.
macro_rules! libvirt_inputs {
    ($(#[$meta:meta])* { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Inputs {
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// The libvirt connection, as seen from the step's target.
            #[serde(default = "crate::virt::virsh::system")]
            pub(crate) uri: String,
        }

        impl Inputs {
            pub(crate) fn connection(&self) -> crate::virt::virsh::Connection {
                crate::virt::virsh::Connection { uri: self.uri.clone() }
            }
        }
    };
}

pub(crate) use libvirt_inputs;

pub(crate) fn system() -> String {
    "qemu:///system".to_owned()
}

impl Connection {
    pub(crate) fn problems(&self) -> Vec<InputProblem> {
        if self.uri.contains(':') && !self.uri.starts_with('-') {
            return Vec::new();
        }
        let mut wrong = problem(&["uri"], format!("{:?} is not a libvirt URI", self.uri));
        wrong.help = Some("write it like qemu:///system or qemu+ssh://root@host/system".to_owned());
        vec![wrong]
    }

    /// `virsh WORDS`. Messages are wanted in English: only they tell errors apart.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let argv = ["virsh", "-q", "-c", &self.uri].into_iter().chain(words.iter().copied());
        Command::new(argv).env("LC_ALL", "C")
    }

    /// Like [`Connection::command`], for one that reads a document from its last word, `/dev/stdin`. By a pipe of its own,
    /// since what a target gives as standard input may be a socket, which nobody can open by name.
    pub(crate) fn feeding(&self, words: &[&str], document: &str) -> Command {
        let direct = self.command(words);
        let wrapped = ["sh", "-c", "cat | \"$@\" /dev/stdin", "sh"].into_iter().map(str::to_owned);
        let mut command = Command::new(wrapped.chain(direct.argv)).stdin(document.as_bytes());
        command.env = direct.env;
        command
    }

    /// Runs a command to its end; a failure is told in terms of `what`.
    pub(crate) async fn ran(&self, cx: &Cx<'_>, command: Command, what: &str) -> Result<Exit, StepError> {
        let exit = self.tried(cx, command.clone(), what).await?;
        if exit.ok() { Ok(exit) } else { Err(errors::of_exit(&command, &exit, what, self)) }
    }

    /// Like [`Connection::ran`], when a failure is not one yet.
    pub(crate) async fn tried(&self, cx: &Cx<'_>, command: Command, what: &str) -> Result<Exit, StepError> {
        let shown = command.display();
        cx.query(command).await.map_err(|e| match e.class {
            Class::Timeout => StepError { message: format!("{what}: {}", e.message), ..e }.command(shown),
            Class::Permanent if e.message.contains("virsh") && e.help.is_none() => {
                e.command(shown).help("virsh is wanted on the step's target (Debian: libvirt-clients)")
            }
            _ => e.command(shown),
        })
    }

    /// How a question ended.
    pub(crate) async fn asked(&self, cx: &Cx<'_>, words: &[&str], what: &str) -> Result<Exit, StepError> {
        let mut command = self.command(words).keep_stdout(KEEP_DEFAULT).timeout(ANSWER);
        command.log_output = false;
        self.tried(cx, command, what).await
    }

    /// What a question is answered.
    pub(crate) async fn read(&self, cx: &Cx<'_>, words: &[&str], what: &str) -> Result<String, StepError> {
        let exit = self.asked(cx, words, what).await?;
        let failed = || errors::of_exit(&self.command(words), &exit, what, self);
        if exit.ok() { Ok(exit.stdout_text()) } else { Err(failed()) }
    }

    /// Whether libvirtd runs on the step's target itself, so that what it needs can be looked for there.
    pub(crate) fn is_on_target(&self) -> bool {
        let scheme = self.uri.split(':').next().unwrap_or_default();
        let elsewhere = scheme.split_once('+').is_some_and(|(_, by)| by != "unix");
        scheme.starts_with("qemu") && !elsewhere
    }
}

/// The value of a line `Key:   value`, as `virsh dominfo` and its like print them.
pub(crate) fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

/// What is wrong with the name of a domain, network, pool or snapshot.
pub(crate) fn name_problems(key: &str, name: &str) -> Vec<InputProblem> {
    let wrong = if name.is_empty() {
        "must not be empty".to_owned()
    } else if name.starts_with('-') {
        "a name cannot begin with a dash".to_owned()
    } else if let Some(c) = name.chars().find(|c| *c == '/' || c.is_control()) {
        format!("{c:?} cannot be in a name")
    } else {
        return Vec::new();
    };
    vec![problem(&[key], wrong)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_libvirtd_runs() {
        let on = |uri: &str| Connection { uri: uri.to_owned() }.is_on_target();
        assert!(on("qemu:///system") && on("qemu+unix:///system?socket=/run/x"));
        assert!(!on("qemu+ssh://root@kvm2/system") && !on("test:///default"));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "Id:             -\nUUID:  a:b\nManaged save:   no\n";
        assert_eq!(field(text, "UUID"), Some("a:b"));
        assert_eq!(field(text, "save"), None);
    }

    #[test]
    fn names_and_uris_that_cannot_be() {
        for name in ["", "-web", "a/b", "a\nb"] {
            assert_eq!(name_problems("domain", name).len(), 1, "{name:?}");
        }
        assert!(name_problems("domain", "web 1").is_empty());
        assert_eq!(Connection { uri: "kvm1".to_owned() }.problems().len(), 1);
    }
}
