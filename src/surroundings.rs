//! What a run needs besides its plan and its journal: targets, secrets, and what masks them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runback_core::Json;
use runback_core::diagnostic::Code;
use runback_core::plan::Plan;
use runback_core::target::{Stream, Target, Watch};
use runback_exec::driver::Surroundings;
use runback_exec::lease::Owner;
use runback_exec::mask::Masker;
use runback_exec::process::Processes;
use runback_exec::process::guard::GuardCommand;
use runback_exec::secrets::{self, SecretError, SecretSources};
use runback_exec::target::{LocalTarget, SshTarget, TargetSet};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Map;

use crate::failure::Failure;
use crate::term::{self, RESET, YELLOW};

/// The targets of a process, with the connections that are to be closed at its end.
pub(crate) struct Machines {
    pub(crate) local: Arc<LocalTarget>,
    pub(crate) set: Arc<TargetSet>,
    ssh: Vec<Arc<SshTarget>>,
}

impl Machines {
    pub(crate) fn new(plan: &Plan, base: &Path, state_dir: &Path) -> Result<Self, Failure> {
        let processes = Processes::new(GuardCommand::this_binary(), |warning| {
            term::note(&format!("{YELLOW}!{RESET} {warning}"));
        });
        Self::of(&processes, plan, base, state_dir)
    }

    /// The same with the processes of somebody who has several runs.
    pub(crate) fn of(processes: &Arc<Processes>, plan: &Plan, base: &Path, state_dir: &Path) -> Result<Self, Failure> {
        let local = Arc::new(LocalTarget::new(base.to_owned(), state_dir.join("detached"), Arc::clone(processes)));
        let mut ssh = Vec::new();
        let mut refused = None;
        let set = TargetSet::new(&plan.targets, Arc::clone(&local), |name, config| {
            match SshTarget::new(name, config, base.to_owned(), Arc::clone(processes)) {
                Ok(target) => {
                    let target = Arc::new(target);
                    ssh.push(Arc::clone(&target));
                    target
                }
                Err(error) => {
                    refused = Some(Failure::usage(format!("target {name}: {error}")).maybe_help(error.help));
                    // Never used: the failure ends everything.
                    Arc::clone(&local) as Arc<dyn Target>
                }
            }
        });
        match refused {
            Some(failure) => Err(failure),
            None => Ok(Self { local, set: Arc::new(set), ssh }),
        }
    }

    pub(crate) async fn close(&self) {
        for target in &self.ssh {
            target.close().await;
        }
    }
}

/// user@host of this process.
pub(crate) fn by() -> String {
    let owner = Owner::this_process();
    format!("{}@{}", owner.user, owner.host)
}

/// Reads the secrets of the plan and puts everything together, or says all that cannot be read.
pub(crate) async fn new(
    plan: &Plan,
    base: PathBuf,
    machines: &Machines,
    secret_inputs: Map<String, Json>,
) -> Result<Surroundings, Failure> {
    match gather(plan, base, machines, secret_inputs).await {
        Ok((around, weak)) => {
            for warning in weak {
                term::note(&format!("{YELLOW}!{RESET} {warning}"));
            }
            Ok(around)
        }
        Err(errors) => {
            let mistake = |e: SecretError| (Code::SecretUnavailable, e.to_string(), Some(e.help));
            let mistakes: Vec<_> = errors.into_iter().map(mistake).collect();
            Err(Failure::given(&mistakes))
        }
    }
}

/// Like [`new`], and prints nothing: what cannot be read is the error, warnings come with the result.
pub(crate) async fn gather(
    plan: &Plan,
    base: PathBuf,
    machines: &Machines,
    secret_inputs: Map<String, Json>,
) -> Result<(Surroundings, Vec<String>), Vec<SecretError>> {
    let mut all: Vec<(String, SecretString)> = Vec::new();
    let mut by_scope = Vec::new();
    let mut failed = Vec::new();
    for scope in &plan.scopes {
        let env = |name: &str| std::env::var_os(name);
        let sources = SecretSources { env: &env, base: &base, target: machines.local.as_ref() };
        let mut values = Map::new();
        match secrets::resolve(&scope.secrets, sources, &Unwatched).await {
            Ok(found) => {
                for (name, value) in found.iter() {
                    values.insert(name.to_owned(), value.expose_secret().into());
                    all.push((name.to_owned(), value.clone()));
                }
            }
            Err(errors) => failed.extend(errors),
        }
        by_scope.push(values);
    }
    if !failed.is_empty() {
        return Err(failed);
    }
    for (name, value) in &secret_inputs {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        all.push((name.clone(), SecretString::from(text)));
    }
    let masker = Masker::new(all);
    let weak = masker.weak().iter().map(runback_exec::mask::Weak::describe).collect();
    let around = Surroundings {
        targets: Arc::clone(&machines.set) as _,
        secrets: by_scope,
        secret_inputs,
        masker,
        base,
        by: by(),
        clock_at: None,
    };
    Ok((around, weak))
}

/// What masks words about a run that this process does not drive: the secrets that can be read here. With it the names of
/// those that cannot, inputs marked secret among them: these are stored nowhere.
pub(crate) async fn masker(plan: &Plan, base: &Path, local: &LocalTarget) -> (Masker, Vec<String>) {
    let env = |name: &str| std::env::var_os(name);
    let sources = SecretSources { env: &env, base, target: local };
    let mut all: Vec<(String, SecretString)> = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for decl in plan.scopes.iter().flat_map(|scope| &scope.secrets) {
        match secrets::resolve(std::slice::from_ref(decl), sources, &Unwatched).await {
            Ok(found) => all.extend(found.iter().map(|(name, value)| (name.to_owned(), value.clone()))),
            Err(_) => unknown.push(decl.name.value.clone()),
        }
    }
    let inputs = plan.scopes.first().into_iter().flat_map(|scope| &scope.inputs);
    unknown.extend(inputs.filter(|decl| decl.secret).map(|decl| decl.name.value.clone()));
    (Masker::new(all), unknown)
}

/// Before a run there is nothing to stop but the process itself.
struct Unwatched;

#[async_trait::async_trait]
impl Watch for Unwatched {
    fn output(&self, _stream: Stream, _bytes: &[u8]) {}

    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }

    fn kill_grace(&self) -> Duration {
        Duration::ZERO
    }
}
