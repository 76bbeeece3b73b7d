//! `virt.pool`: a libvirt storage pool is there, started, refreshed, and starts with its host.
//!
//! **Does.** With `path` it makes a pool that is that folder, if there is none (the folder too, with its parents). Then it
//! is started, marked for autostart, and refreshed, so that libvirt knows the files that came into it by other ways:
//! volumes that no pool knows are passed over by `virsh undefine --remove-all-storage`.
//!
//! **Undo** stops, unmarks and undefines what the step started, marked and defined. Files stay; folders that it made go
//! where they are empty.

use roxmltree::Document;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::{Switches, back, define, switch, switches, yes};
use super::virsh::{Connection, libvirt_inputs, name_problems};
use crate::begun::{self, Tells};
use crate::file::{parents, paths};

libvirt_inputs! {
    /// Which pool, how it shall be, and which libvirtd.
    {
        /// The pool's name.
        pool: String,
        /// The folder that it is, on the target.
        #[serde(default)]
        path: Option<String>,
        /// Let it start with its host.
        #[serde(default = "yes")]
        autostart: bool,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The pool's name.
    pub(crate) pool: String,
    /// Its folder; null where it is none.
    pub(crate) path: Option<String>,
    /// Names of its volumes.
    pub(crate) volumes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    before: Option<Switches>,
    /// Folders that are made.
    made: Vec<String>,
    #[serde(default)]
    tells: Tells,
}

/// The step type `virt.pool`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtPool;

async fn path_of(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<Option<String>, StepError> {
    let text = connection.read(cx, &["pool-dumpxml", name, "--inactive"], name).await?;
    let document = Document::parse(&text).map_err(|e| StepError::permanent(format!("{name}: {e}")))?;
    let path = document.descendants().find(|n| n.has_tag_name("path"));
    Ok(path.and_then(|p| p.text()).map(|p| p.trim().trim_end_matches('/').to_owned()))
}

async fn fits(cx: &Cx<'_>, inputs: &Inputs, connection: &Connection) -> Result<Option<String>, StepError> {
    let there = path_of(cx, connection, &inputs.pool).await?;
    let wanted = inputs.path.as_deref().map(|p| cx.path(p.trim_end_matches('/')));
    if wanted.is_some() && wanted != there {
        let is = there.unwrap_or_else(|| "no folder".to_owned());
        return Err(StepError::conflict(format!("pool {} is {is}, not {}", inputs.pool, wanted.unwrap_or_default()))
            .help("choose another name, or leave `path` out to take it as it is"));
    }
    Ok(there)
}

#[async_trait::async_trait]
impl StepType for VirtPool {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.pool",
            doc: "Makes sure that a libvirt storage pool is there, started and refreshed.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: images\n  uses: virt.pool\n  with: { pool: images, path: /var/lib/libvirt/images }\n",
                "- id: refresh\n  uses: virt.pool\n  with: { pool: images }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("pool", &inputs.pool));
        found.extend(inputs.path.as_ref().and_then(|path| paths::problems("path", path)));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let connection = inputs.connection();
        let name = &inputs.pool;
        let (changes, summary) = match (switches(cx, &connection, "pool-info", name).await?, &inputs.path) {
            (None, Some(path)) => (true, format!("define pool {name} in {path}")),
            (None, None) => (false, format!("would refuse: there is no pool {name}")),
            (Some(now), _) => match fits(cx, inputs, &connection).await {
                Err(e) => (false, format!("would refuse: {}", e.message)),
                Ok(_) if now.active && now.autostart == inputs.autostart => (false, format!("refresh pool {name}")),
                Ok(_) => (true, format!("switch pool {name}")),
            },
        };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let before = switches(cx, &inputs.connection(), "pool-info", &inputs.pool).await?;
        let made = match (&before, &inputs.path) {
            (None, Some(path)) => parents::missing(cx, &format!("{}/x", cx.path(path.trim_end_matches('/')))).await?,
            _ => Vec::new(),
        };
        Ok(Capture { before, made, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.pool;
        if switches(cx, &connection, "pool-info", name).await?.is_none() {
            let path = inputs.path.as_deref().ok_or_else(|| {
                StepError::permanent(format!("there is no pool {name}")).help("say which folder it is to be: `path`")
            })?;
            if !capture.made.is_empty() {
                begun::begins(cx).await?;
                parents::make(cx, &capture.made).await?;
            }
            let path = cx.path(path.trim_end_matches('/'));
            let words = ["pool-define-as", name, "dir", "--target", &path];
            define(cx, &connection, ("pool", name), connection.command(&words)).await?;
        }
        let path = fits(cx, inputs, &connection).await?;
        begun::begins(cx).await?;
        switch(cx, &connection, "pool", name, (true, inputs.autostart)).await?;
        connection.ran(cx, connection.command(&["pool-refresh", name]), name).await?;
        let listed = connection.read(cx, &["vol-list", name], name).await?;
        let volumes: Vec<String> =
            listed.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
        cx.host.output(Stream::Stdout, format!("pool {name} is there, with {} volume(s)\n", volumes.len()).as_bytes());
        let changed = capture.before.as_ref().is_none_or(|b| !b.active || b.autostart != inputs.autostart);
        Ok(Acted { outputs: Outputs { pool: name.clone(), path, volumes }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        if capture.tells.nothing_of(cx, outputs) {
            return Ok(Undone { changed: false, note: None });
        }
        let undone = back(cx, &inputs.connection(), "pool", &inputs.pool, capture.before.as_ref()).await?;
        let (removed, left) = parents::unmake(cx, &capture.made).await?;
        Ok(Undone { changed: undone.changed || removed, note: left.or(undone.note) })
    }
}
