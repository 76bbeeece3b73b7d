//! How `rbd` and `ceph` are called: the connection inputs that all their step types share, the argv with every wait
//! bounded, and one way to run it. What a failure means is in `errors`.
//!
//! Without bounds, a monitor that cannot be reached makes `rbd` wait 300 s, and an OSD that hangs makes it wait for
//! ever (Ceph 16.2.15). `--client-mount-timeout` bounds connecting, `--rados-osd-op-timeout` each request to an OSD,
//! `--rados-mon-op-timeout` each request to a monitor once connected; `ceph` takes `--connect-timeout` for the first.

use std::fmt;
use std::time::Duration;

use runback_core::step::{Class, Cx, InputProblem, StepError};
use runback_core::target::{Command, Exit};

use super::errors;
use crate::http::look::problem;
use crate::period::Period;

/// Where the cluster is, and who asks. An empty text is one that was not given.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) conf: String,
    pub(crate) id: String,
    pub(crate) keyring: String,
    pub(crate) cluster: String,
    pub(crate) timeout: Period,
}

/// Which image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) connection: Connection,
    pub(crate) pool: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Declares the inputs of a step type that talks to a cluster: its own, and the connection.
macro_rules! connection_inputs {
    ($(#[$meta:meta])* { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Inputs {
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// The cluster's configuration file, on the target. Default: /etc/ceph/CLUSTER.conf, or $CEPH_CONF.
            #[serde(default)]
            pub(crate) conf: String,
            /// The user without `client.`. Default: admin.
            #[serde(default)]
            pub(crate) id: String,
            /// The user's keyring, on the target.
            #[serde(default)]
            pub(crate) keyring: String,
            /// The cluster's name. Default: ceph.
            #[serde(default)]
            pub(crate) cluster: String,
            /// How long to wait for the monitors, and for each answer of the cluster: 1s to 10m, in whole seconds.
            #[serde(default = "crate::rbd::cli::default_timeout")]
            pub(crate) timeout: crate::period::Period,
        }

        impl Inputs {
            pub(crate) fn connection(&self) -> crate::rbd::cli::Connection {
                crate::rbd::cli::Connection {
                    conf: self.conf.clone(),
                    id: self.id.clone(),
                    keyring: self.keyring.clone(),
                    cluster: self.cluster.clone(),
                    timeout: self.timeout,
                }
            }
        }
    };
}

/// Declares the inputs of a step type about one image: which image, its own, and the connection.
macro_rules! image_inputs {
    ($(#[$meta:meta])* { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        crate::rbd::cli::connection_inputs! {
            $(#[$meta])* {
                /// The pool.
                #[serde(default = "crate::rbd::cli::default_pool")]
                pool: String,
                /// The namespace in the pool. Default: the pool's own.
                #[serde(default)]
                namespace: String,
                /// The image's name.
                image: String,
                $($(#[$own_meta])* $own: $own_type,)*
            }
        }

        impl Inputs {
            pub(crate) fn image(&self) -> crate::rbd::cli::Image {
                crate::rbd::cli::Image {
                    connection: self.connection(),
                    pool: self.pool.clone(),
                    namespace: self.namespace.clone(),
                    name: self.image.clone(),
                }
            }
        }
    };
}

pub(crate) use {connection_inputs, image_inputs};

pub(crate) fn default_timeout() -> Period {
    Period::seconds(30)
}

pub(crate) fn default_pool() -> String {
    "rbd".to_owned()
}

impl fmt::Display for Image {
    /// `pool/namespace/image`, as `rbd` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.pool, self.name)
        } else {
            write!(f, "{}/{}/{}", self.pool, self.namespace, self.name)
        }
    }
}

impl Connection {
    pub(crate) fn problems(&self) -> Vec<InputProblem> {
        let limits = Duration::from_secs(1)..=Duration::from_secs(600);
        if limits.contains(&self.timeout.0) && self.timeout.0.subsec_millis() == 0 {
            return Vec::new();
        }
        vec![problem(&["timeout"], format!("{} is not a whole number of seconds from 1s to 10m", self.timeout))]
    }

    /// A wrong bound never means "no bound".
    fn seconds(&self) -> u64 {
        self.timeout.0.as_secs().clamp(1, 600)
    }

    fn who(&self, cx: &Cx<'_>) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: &str| {
            if !value.is_empty() {
                words.push(format!("--{name}={value}"));
            }
        };
        option("cluster", &self.cluster);
        option("id", &self.id);
        for (name, path) in [("conf", &self.conf), ("keyring", &self.keyring)] {
            if !path.is_empty() {
                option(name, &cx.path(path));
            }
        }
        words
    }

    /// `ceph WORDS`, which changes something.
    pub(crate) fn ceph(&self, cx: &Cx<'_>, words: &[&str]) -> Command {
        let seconds = self.seconds();
        let mut argv = vec!["ceph".to_owned()];
        argv.extend(self.who(cx));
        argv.push(format!("--connect-timeout={seconds}"));
        argv.push(format!("--rados-mon-op-timeout={seconds}"));
        argv.extend(words.iter().map(|w| (*w).to_owned()));
        Command::new(argv).timeout(self.hard_limit())
    }

    /// Where the tool's own bounds do not reach (it hangs at its end, say). It may connect and then ask, each bounded.
    fn hard_limit(&self) -> Duration {
        Duration::from_secs(2 * self.seconds() + 10)
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
            _ => e.command(shown),
        })
    }
}

impl Image {
    pub(crate) fn problems(&self) -> Vec<InputProblem> {
        let mut found = self.connection.problems();
        let names = [("pool", &self.pool, true), ("namespace", &self.namespace, false), ("image", &self.name, true)];
        for (key, name, wanted) in names {
            if wanted && name.is_empty() {
                found.push(problem(&[key], "must not be empty".to_owned()));
            }
            if let Some(c) = name.chars().find(|c| "/@".contains(*c) || c.is_control()) {
                let mut wrong = problem(&[key], format!("{c:?} cannot be in the name of a {key}"));
                wrong.help = Some("write `pool`, `namespace` and `image` apart, and a snapshot as `snap`".to_owned());
                found.push(wrong);
            }
        }
        found
    }

    /// `rbd WORDS`, about this image, without a limit besides those that `rbd` knows itself.
    pub(crate) fn long(&self, cx: &Cx<'_>, words: &[&str]) -> Command {
        let seconds = self.connection.seconds();
        let mut argv = vec!["rbd".to_owned()];
        argv.extend(self.connection.who(cx));
        argv.push(format!("--client-mount-timeout={seconds}"));
        argv.push(format!("--rados-osd-op-timeout={seconds}"));
        argv.push(format!("--rados-mon-op-timeout={seconds}"));
        argv.push(format!("--pool={}", self.pool));
        if !self.namespace.is_empty() {
            argv.push(format!("--namespace={}", self.namespace));
        }
        argv.push(format!("--image={}", self.name));
        argv.extend(words.iter().map(|w| (*w).to_owned()));
        Command::new(argv)
    }

    /// `rbd WORDS`, about this image.
    pub(crate) fn command(&self, cx: &Cx<'_>, words: &[&str]) -> Command {
        self.long(cx, words).timeout(self.connection.hard_limit())
    }

    /// What `rbd WORDS` prints.
    pub(crate) async fn read(&self, cx: &Cx<'_>, words: &[&str]) -> Result<String, StepError> {
        let mut command = self.command(cx, words).keep_stdout(runback_core::target::KEEP_DEFAULT);
        command.log_output = false;
        let exit = self.connection.ran(cx, command, &self.to_string()).await?;
        Ok(exit.stdout_text())
    }

    /// What `rbd WORDS --format json` prints, decoded.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        cx: &Cx<'_>,
        words: &[&str],
    ) -> Result<T, StepError> {
        let words = [words, &["--format", "json"]].concat();
        decode(&self.read(cx, &words).await?, &format!("{self}: rbd {}", words.join(" ")))
    }
}

/// What a tool printed as JSON.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, StepError> {
    serde_json::from_str(text).map_err(|e| {
        StepError::permanent(format!("{what}: the answer cannot be read: {e}"))
            .help("this was made for the answers of Ceph 16; see what the command prints")
    })
}
