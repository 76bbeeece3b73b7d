//! `file.write`: a file with the content that the playbook gives.
//!
//! **Does.** Replaces the file in one step: a reader sees the old content or the new one, never a half. Where the file
//! is already so, in content, mode and owner, it does nothing. Mode and owner that are not given stay as they are; a new
//! file has mode 0644. What somebody changed since the step began, before another attempt say, is not replaced: it is a
//! conflict, and undo leaves it. `validate` runs a command on the new file before it takes the old one's place; if it fails, the
//! old one stays. A trailing newline is not added: write `content: |`.
//!
//! **Outputs.** `path`, `sha256`, `size`, `mode`, `uid`, `gid`, `previous_sha256`, `backup`.
//!
//! **Undo** brings the earlier content, mode and owner back, or removes the file that was not there before, with the
//! directories that `create_dirs` made if they are empty. It does so only if the file is still as the step left it; else
//! it is a conflict, and `--force` decides. The earlier content is kept in the run's journal up to 4 MiB. A larger file
//! is copied to `.NAME.runback-RUN-STEP.bak` beside it before it is replaced; undo moves it back. If the run is never
//! taken back, that copy stays until you remove it; the output `backup` names it.
//!
//! **Does not** follow a symbolic link at `path`, and does not keep access control lists or extended attributes.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};

use super::placed::placed_inputs;
use super::put::{self, Capture, Outputs, Source, Wanted};

placed_inputs! {
    /// The file. On `local`, a relative path counts from the playbook's folder.
    path: String,
    /// All of its content.
    content: String,
}

/// The step type `file.write`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write;

fn wanted<'a>(cx: &Cx<'_>, inputs: &'a Inputs) -> Wanted<'a> {
    inputs.placed(cx, Source::Bytes(inputs.content.clone().into_bytes()), 0o644)
}

#[async_trait::async_trait]
impl StepType for Write {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.write",
            doc: "A file with the content that the playbook gives.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: motd\n  uses: file.write\n  with:\n    path: /etc/motd\n    content: |\n      Maintenance until 18:00.\n",
                "- id: sudoers\n  uses: file.write\n  with:\n    path: /etc/sudoers.d/ops\n    content: \"%ops ALL=(ALL) ALL\\n\"\n    mode: \"0440\"\n    validate: [visudo, -cf, \"{path}\"]\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.placed_problems()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        put::preview(cx, &wanted(cx, inputs)).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        put::capture(cx, &wanted(cx, inputs)).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        put::act(cx, &wanted(cx, inputs), capture).await
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        put::undo(cx, capture, outputs).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Lab, break_everywhere};
    use runback_core::Json;
    use runback_core::step::Class;
    use serde_json::json;

    #[tokio::test]
    async fn creates_and_undoes() {
        let lab = Lab::new();
        let before = lab.snapshot();
        let with = json!({"path": "a/b/motd", "content": "hello\n", "mode": "0600", "create_dirs": true});
        let preview = lab.preview(&Write, &with).await.unwrap();
        assert_eq!(preview.summary, format!("create {} (1 line)", lab.path("a/b/motd")));
        assert_eq!(preview.details.last().unwrap(), "+hello");
        let ran = lab.run(&Write, &with).await.unwrap();
        assert!(ran.changed);
        assert_eq!((lab.text("a/b/motd").as_str(), lab.mode("a/b/motd")), ("hello\n", 0o600));
        assert_eq!(ran.outputs["path"], lab.path("a/b/motd"));
        assert_eq!(ran.outputs["previous_sha256"], Json::Null);
        assert_eq!(ran.outputs["mode"], "0600");
        let undone = lab.undo(&Write, &with, &ran).await.unwrap();
        assert!(undone.changed);
        assert_eq!(lab.snapshot(), before);
        assert!(!lab.undo(&Write, &with, &ran).await.unwrap().changed);
    }

    #[tokio::test]
    async fn replaces_keeps_the_mode_and_undoes() {
        let lab = Lab::new();
        lab.put("motd", "old\n");
        lab.set_mode("motd", 0o640);
        let before = lab.snapshot();
        let with = json!({"path": "motd", "content": "new\n"});
        let preview = lab.preview(&Write, &with).await.unwrap();
        assert_eq!(preview.changes, Some(true));
        assert_eq!(preview.details[2..], ["@@ -1,1 +1,1 @@", "-old", "+new"]);
        let ran = lab.run(&Write, &with).await.unwrap();
        assert_eq!((lab.text("motd").as_str(), lab.mode("motd")), ("new\n", 0o640));
        assert_eq!(ran.capture["before"]["content"], json!({"text": "old\n"}));
        lab.undo(&Write, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn binary_content_comes_back() {
        let lab = Lab::new();
        lab.put("f", [0xff, 0, 0xfe]);
        let before = lab.snapshot();
        let with = json!({"path": "f", "content": "text"});
        let ran = lab.run(&Write, &with).await.unwrap();
        assert_eq!(ran.capture["before"]["content"], json!({"base64": "/wD+"}));
        lab.undo(&Write, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn already_so_changes_nothing_and_has_nothing_to_undo() {
        let lab = Lab::new();
        lab.put("f", "same");
        lab.set_mode("f", 0o600);
        let with = json!({"path": "f", "content": "same", "mode": "0600"});
        assert_eq!(lab.preview(&Write, &with).await.unwrap().changes, Some(false));
        let ran = lab.run(&Write, &with).await.unwrap();
        assert!(!ran.changed);
        assert!(lab.target.changes.lock().unwrap().is_empty());
        lab.put("f", "changed later by someone");
        let undone = lab.undo(&Write, &with, &ran).await.unwrap();
        assert!(!undone.changed);
        assert_eq!(lab.text("f"), "changed later by someone");
    }

    #[tokio::test]
    async fn the_mode_alone_is_changed_in_place() {
        let lab = Lab::new();
        lab.put("f", "same");
        lab.set_mode("f", 0o600);
        let before = lab.snapshot();
        let with = json!({"path": "f", "content": "same", "mode": "0755"});
        let ran = lab.run(&Write, &with).await.unwrap();
        assert!(ran.changed);
        assert_eq!(lab.mode("f"), 0o755);
        lab.undo(&Write, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn drift_is_a_conflict_that_force_overrides() {
        let changes: [fn(&Lab); 3] = [
            |lab| lab.put("f", "someone else's"),
            |lab| lab.set_mode("f", 0o777),
            |lab| std::fs::remove_file(lab.path("f")).unwrap(),
        ];
        for (change, what) in changes.into_iter().zip(["was changed after", "has mode 0777", "is gone"]) {
            let mut lab = Lab::new();
            lab.put("f", "old");
            let before = lab.snapshot();
            let with = json!({"path": "f", "content": "new"});
            let ran = lab.run(&Write, &with).await.unwrap();
            change(&lab);
            let drifted = lab.snapshot();
            let error = lab.undo(&Write, &with, &ran).await.unwrap_err();
            assert_eq!(error.class, Class::Conflict);
            assert!(error.message.contains(what), "{error}");
            assert!(error.help.unwrap().contains("runback rollback r1 --force"));
            assert_eq!(lab.snapshot(), drifted, "nothing was touched");
            lab.force = true;
            lab.undo(&Write, &with, &ran).await.unwrap();
            assert_eq!(lab.snapshot(), before);
        }
    }

    #[tokio::test]
    async fn a_directory_in_the_way_is_never_removed() {
        let mut lab = Lab::new();
        let with = json!({"path": "f", "content": "new"});
        let ran = lab.run(&Write, &with).await.unwrap();
        std::fs::remove_file(lab.path("f")).unwrap();
        lab.put("f/inside", "x");
        lab.force = true;
        let error = lab.undo(&Write, &with, &ran).await.unwrap_err();
        assert!(error.message.contains("is a directory now"), "{error}");
        assert!(lab.exists("f/inside"));
    }

    #[tokio::test]
    async fn a_new_file_in_a_made_directory_is_left_with_a_note() {
        let lab = Lab::new();
        let with = json!({"path": "d/f", "content": "new", "create_dirs": true});
        let ran = lab.run(&Write, &with).await.unwrap();
        lab.put("d/other", "x");
        let undone = lab.undo(&Write, &with, &ran).await.unwrap();
        assert!(undone.note.unwrap().contains("it holds other"));
        assert!(lab.exists("d/other") && !lab.exists("d/f"));
    }

    #[tokio::test]
    async fn a_large_file_is_kept_beside_itself() {
        let lab = Lab::new();
        let large = vec![b'x'; 5 << 20];
        lab.put("f", &large);
        let before = lab.snapshot();
        let with = json!({"path": "f", "content": "small"});
        let ran = lab.run(&Write, &with).await.unwrap();
        let backup = lab.path(".f.runback-r1-step.bak");
        assert_eq!(ran.outputs["backup"], backup);
        assert_eq!(std::fs::read(&backup).unwrap(), large);
        assert!(ran.capture.to_string().len() < 2000, "the journal does not hold it");
        lab.undo(&Write, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn validate_keeps_the_old_file() {
        let lab = Lab::new();
        lab.put("f", "old");
        let before = lab.snapshot();
        let with =
            |content: &str| json!({"path": "f", "content": content, "validate": ["grep", "-q", "good", "{path}"]});
        let error = lab.run(&Write, &with("bad")).await.unwrap_err();
        assert!(error.message.contains("was not replaced, the new one is not valid: grep: exit code 1"), "{error}");
        assert_eq!(lab.snapshot(), before);
        lab.run(&Write, &with("good")).await.unwrap();
        assert_eq!(lab.text("f"), "good");
    }

    #[tokio::test]
    async fn what_somebody_changed_before_another_attempt_stays_and_is_a_conflict() {
        let admins: [fn(&Lab); 3] = [
            |lab| lab.put("f", "admin"),
            |lab| lab.set_mode("f", 0o777),
            |lab| std::fs::remove_file(lab.path("f")).unwrap(),
        ];
        for (size, admin) in [3, 5 << 20].into_iter().flat_map(|size| admins.map(|admin| (size, admin))) {
            let mut lab = Lab::new();
            lab.put("f", vec![b'x'; size]);
            let with = json!({"path": "f", "content": "new", "validate": ["false", "{path}"]});
            let capture = lab.capture(&Write, &with).await.unwrap();
            lab.act(&Write, &with, &capture).await.unwrap_err();
            admin(&lab);
            let before: Vec<_> = lab.snapshot().into_iter().filter(|(name, _)| !name.starts_with('.')).collect();
            lab.attempt = 2;
            let with = json!({"path": "f", "content": "new"});
            let error = lab.act(&Write, &with, &capture).await.unwrap_err();
            assert_eq!(error.class, Class::Conflict);
            assert!(error.message.contains("f was changed by someone else since the step began"), "{error}");
            assert!(error.help.unwrap().contains("`runback rollback r1`"));
            lab.undo_unfinished(&Write, &with, &capture).await.unwrap();
            assert_eq!(lab.snapshot().into_iter().collect::<Vec<_>>(), before, "and nothing is left beside it");
        }
    }

    #[tokio::test]
    async fn what_somebody_writes_while_the_new_file_is_checked_stays() {
        let lab = Lab::new();
        lab.put("f", "old");
        let script = format!("echo admin > {}", lab.path("f"));
        let with = json!({"path": "f", "content": "new", "validate": ["sh", "-c", script, "{path}"]});
        let capture = lab.capture(&Write, &with).await.unwrap();
        let error = lab.act(&Write, &with, &capture).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        lab.undo_unfinished(&Write, &with, &capture).await.unwrap();
        assert_eq!(lab.text("f"), "admin\n");
        assert_eq!(lab.snapshot().len(), 1);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_beside_is_cleared() {
        let mut lab = Lab::new();
        lab.put("f", vec![b'x'; 5 << 20]);
        let with = json!({"path": "f", "content": "new"});
        let capture = lab.capture(&Write, &with).await.unwrap();
        let places = ["f", ".f.runback-r1-step.new", ".f.runback-r1-step.bak"].map(|name| lab.path(name));
        lab.undo_unfinished(&Write, &with, &capture).await.unwrap();
        assert_eq!(std::mem::take(&mut *lab.target.cleared.lock().unwrap()), places, "by undo");
        lab.attempt = 2;
        lab.act(&Write, &with, &capture).await.unwrap();
        assert_eq!(*lab.target.cleared.lock().unwrap(), places, "by a later attempt");
    }

    #[tokio::test]
    async fn steps_beside_each_other_share_a_new_folder() {
        let lab = Lab::new();
        let before = lab.snapshot();
        let with = |name: &str| json!({"path": format!("base/{name}"), "content": "x", "create_dirs": true});
        let (of_a, of_b) =
            (lab.capture(&Write, &with("a")).await.unwrap(), lab.capture(&Write, &with("b")).await.unwrap());
        lab.act(&Write, &with("a"), &of_a).await.unwrap();
        lab.act(&Write, &with("b"), &of_b).await.unwrap();
        let undone = lab.undo_unfinished(&Write, &with("a"), &of_a).await.unwrap();
        assert!(undone.note.unwrap().ends_with("base: it holds b"));
        lab.undo_unfinished(&Write, &with("b"), &of_b).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        let small = |lab: &Lab| {
            lab.put("f", "old");
            lab.set_mode("f", 0o640);
        };
        let plain = |_: &Lab| json!({"path": "f", "content": "new", "mode": "0600"});
        assert!(break_everywhere(&Write, small, plain).await >= 2);
        let checked = |_: &Lab| json!({"path": "f", "content": "new", "validate": ["test", "-s", "{path}"]});
        assert!(break_everywhere(&Write, small, checked).await >= 4);
        let fresh = |_: &Lab| json!({"path": "a/b/f", "content": "new", "create_dirs": true});
        assert!(break_everywhere(&Write, |_| {}, fresh).await >= 6);
        let large = |lab: &Lab| lab.put("f", vec![b'x'; 5 << 20]);
        assert!(break_everywhere(&Write, large, plain).await >= 4);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_named() {
        let lab = Lab::new();
        lab.put("d/x", "");
        std::os::unix::fs::symlink("d/x", lab.path("l")).unwrap();
        let fails = async |path: &str| {
            let with = json!({"path": path, "content": ""});
            lab.capture(&Write, &with).await.unwrap_err()
        };
        assert!(fails("d").await.message.ends_with("/d is a directory"));
        assert!(fails("l").await.message.ends_with("/l is a symbolic link to d/x"));
        assert!(fails("no/f").await.message.contains("there is no directory"));
        assert!(fails("d/x/f").await.message.contains("d/x"), "a file where a directory is wanted");
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths = |with: Json| -> Vec<String> {
            Lab::problems(&Write, &with).into_iter().map(|p| p.path.join(".")).collect()
        };
        assert_eq!(paths(json!({"path": "~/x", "content": "", "validate": ["true"]})), ["path", "validate"]);
        assert!(paths(json!({"path": "x", "content": "", "validate": ["test", "-f", "{path}"]})).is_empty());
    }
}
