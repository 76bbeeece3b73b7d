//! `file.fetch`: brings one file from the step's target to the machine that runback runs on.
//!
//! **Does.** Reads `path` on the target and writes it to `to`, beside the playbook, as `file.write` does: in one step, and
//! not at all where it is already so. A new file has the mode of its source, unless `mode` says otherwise. At no time can
//! anybody read it who may not read it in the end. Where the source may not be read by everybody, what the copy replaces
//! is not kept in the journal but beside it, as `.NAME.runback-RUN-STEP.bak`.
//!
//! **Outputs.** `path` (on this machine), `sha256`, `size`, `mode`, `uid`, `gid`, `previous_sha256`, `backup`.
//!
//! **Undo** is that of `file.write`, on this machine. The target is only read.
//!
//! **Does not** fetch directories, or more than 256 MiB. To bring a file from one target to another, `file.copy` with
//! `from` needs no file in between.

use std::sync::Arc;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Target;
use schemars::JsonSchema;
use serde::Deserialize;

use super::put::{self, Capture, Outputs, Wanted};
use super::{Mode, Ownership, copy, paths};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The file, as the target knows it.
    pub(crate) path: String,
    /// Where it goes on the machine that runback runs on; a relative path counts from the playbook's folder.
    pub(crate) to: String,
    /// Permission bits as octal digits in quotes, such as "0600".
    #[serde(default)]
    pub(crate) mode: Option<Mode>,
    /// Make the directories above it that are not there.
    #[serde(default)]
    pub(crate) create_dirs: bool,
}

/// The step type `file.fetch`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileFetch;

async fn here(cx: &Cx<'_>) -> Result<Arc<dyn Target>, StepError> {
    cx.host.target("local").await
}

async fn wanted<'a>(cx: &Cx<'_>, inputs: &'a Inputs) -> Result<Wanted<'a>, StepError> {
    let (source, mode) = copy::read_all(cx, &cx.path(&inputs.path)).await?;
    Ok(Wanted {
        path: cx.local_path(&inputs.to).to_string_lossy().into_owned(),
        source,
        ownership: Ownership { mode: inputs.mode, ..Ownership::default() },
        new_mode: Some(mode),
        create_dirs: inputs.create_dirs,
        private: mode & 0o004 == 0,
        validate: &[],
    })
}

#[async_trait::async_trait]
impl StepType for FileFetch {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.fetch",
            doc: "Brings one file from the target to the machine that runback runs on.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: certificate\n  uses: file.fetch\n  target: node1\n  with: { path: /opt/app/root.crt, to: fetched/root.crt, create_dirs: true }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        [("path", &inputs.path), ("to", &inputs.to)].iter().filter_map(|(k, p)| paths::file_problems(k, p)).collect()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let (wanted, here) = (wanted(cx, inputs).await?, here(cx).await?);
        put::preview(&Cx { target: here.as_ref(), ..*cx }, &wanted).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let (wanted, here) = (wanted(cx, inputs).await?, here(cx).await?);
        put::capture(&Cx { target: here.as_ref(), ..*cx }, &wanted).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let (wanted, here) = (wanted(cx, inputs).await?, here(cx).await?);
        put::act(&Cx { target: here.as_ref(), ..*cx }, &wanted, capture).await
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let here = here(cx).await?;
        put::undo(&Cx { target: here.as_ref(), ..*cx }, capture, outputs).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Lab;
    use runback_core::step::Class;
    use serde_json::json;

    #[tokio::test]
    async fn fetches_and_undoes() {
        let (far, lab) = (Lab::new(), Lab::new());
        far.put("key.pem", "KEY");
        far.set_mode("key.pem", 0o600);
        let with = json!({"path": far.path("key.pem"), "to": lab.path("keys/key.pem"), "create_dirs": true});
        let before = lab.snapshot();
        far.knows("local", &lab);
        assert_eq!(far.preview(&FileFetch, &with).await.unwrap().changes, Some(true));
        let ran = far.run(&FileFetch, &with).await.unwrap();
        assert_eq!((lab.text("keys/key.pem").as_str(), lab.mode("keys/key.pem")), ("KEY", 0o600));
        assert!(!far.run(&FileFetch, &with).await.unwrap().changed);
        far.undo(&FileFetch, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        let ran = far.run(&FileFetch, &with).await.unwrap();
        lab.put("keys/key.pem", "another");
        assert_eq!(far.undo(&FileFetch, &with, &ran).await.unwrap_err().class, Class::Conflict);
        let none = far.capture(&FileFetch, &json!({"path": far.path("no"), "to": "x"})).await.unwrap_err();
        assert!(none.message.contains("nothing is there to copy"), "{none}");
    }

    #[test]
    fn bad_inputs_are_named() {
        let problems = Lab::problems(&FileFetch, &json!({"path": "", "to": "x/"}));
        assert_eq!(problems.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), ["path", "to"]);
    }
}
