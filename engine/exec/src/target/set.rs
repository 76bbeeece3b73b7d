//! The targets of one run, made from what its playbook declares.

use std::collections::HashMap;
use std::sync::Arc;

use runback_core::playbook::model::{TargetDecl, TargetKind};
use runback_core::target::{Target, TargetError, TargetErrorKind};

use super::{LocalTarget, Targets};

/// `local`, and the declared ones.
#[derive(Debug)]
pub struct TargetSet {
    by_name: HashMap<String, Arc<dyn Target>>,
}

impl TargetSet {
    /// `ssh` makes the targets of other machines.
    pub fn new(
        decls: &[TargetDecl],
        local: Arc<LocalTarget>,
        mut ssh: impl FnMut(&str, &runback_core::playbook::model::SshTarget) -> Arc<dyn Target>,
    ) -> Self {
        let local: Arc<dyn Target> = local;
        let mut by_name = HashMap::from([("local".to_owned(), Arc::clone(&local))]);
        for decl in decls {
            match &decl.kind {
                TargetKind::Local => by_name.insert(decl.name.value.clone(), Arc::clone(&local)),
                TargetKind::Ssh(spec) => by_name.insert(decl.name.value.clone(), ssh(&decl.name.value, spec)),
                TargetKind::Group(_) => None,
            };
        }
        Self { by_name }
    }
}

impl Targets for TargetSet {
    fn get(&self, name: &str) -> Result<Arc<dyn Target>, TargetError> {
        self.by_name.get(name).cloned().ok_or_else(|| {
            TargetError::new(TargetErrorKind::NotFound, format!("there is no target `{name}`"))
                .help("declare it under `targets:`; a group is a list of targets, not one")
        })
    }
}
