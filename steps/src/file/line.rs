//! `file.line`: one line of a text file, present or absent.
//!
//! **Does.** With `state: present` (the default) it sees to it that `line` stands in the file once. Where a line matches
//! `regex`, that line is replaced; else `line` is added: after the last line that matches `after`, before the first that
//! matches `before`, or at the end. With `state: absent` it removes every line that matches `regex`, or equals `line`
//! where there is no `regex`. The file is replaced in one step, keeping its mode, its owner and its line endings.
//!
//! It fails where it cannot tell what is meant: several lines match `regex`, or one matches and `line` already stands
//! elsewhere.
//!
//! **Outputs.** `path`, `sha256`, `size`, `mode`, `uid`, `gid`, `previous_sha256`, and `lines`: the numbers of the lines
//! that were added, replaced or removed (removed ones as they were counted before).
//!
//! Several steps may change one file, also beside each other and in several runs: each edits what stands there when it is
//! its turn, and looks right before it replaces the file whether that still stands there; if not, it edits again. A file
//! that was changed while the run was held is edited as it is then. Only where an earlier attempt may have written the file
//! and somebody changed it since, that is a conflict.
//!
//! **Undo** brings the whole earlier file back, if it is still as the step left it. Where others changed other lines, it
//! takes its own change out and leaves theirs. Where they changed the same line, it is a conflict; `--force` brings the
//! whole earlier file back.
//!
//! **Does not** read files above 4 MiB or such that are not UTF-8. Programs that know nothing of runback can still write
//! the file in the instant between the last look and the replacement; on a remote target another runback, too.

use regex::Regex;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edited::{self, Editing};
use super::{Mode, merge, paths, put};
use crate::http::look::compile as regular_expression;

/// Whether the line shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum State {
    #[default]
    Present,
    Absent,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The file. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// The line, without its end. Needed unless `state: absent` has a `regex`.
    #[serde(default)]
    pub(crate) line: Option<String>,
    /// Pattern of the line to replace or remove; it may match anywhere in a line.
    #[serde(default)]
    pub(crate) regex: Option<String>,
    /// Whether the line shall be there.
    #[serde(default)]
    pub(crate) state: State,
    /// Where to add it: after the last line that matches this pattern.
    #[serde(default)]
    pub(crate) after: Option<String>,
    /// Where to add it: before the first line that matches this pattern.
    #[serde(default)]
    pub(crate) before: Option<String>,
    /// Make the file if it is not there.
    #[serde(default)]
    pub(crate) create: bool,
    /// A command, as a list of words, that must accept the new file before it takes the old one's place; `{path}` is the
    /// new file.
    #[serde(default)]
    pub(crate) validate: Option<Vec<String>>,
}

/// What the file is like now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The file, as the target knows it.
    pub(crate) path: String,
    /// Of its content.
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Permission bits in octal.
    pub(crate) mode: Mode,
    /// Of its owner.
    pub(crate) uid: u32,
    /// Of its group.
    pub(crate) gid: u32,
    /// Of the content that was there before; null where nothing was.
    pub(crate) previous_sha256: Option<String>,
    /// Numbers of the lines that were added, replaced or removed, from 1.
    pub(crate) lines: Vec<usize>,
}

/// The pre-state of the file, and which lines the edit touches: once it is done that cannot be seen any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    file: put::Capture,
    lines: Vec<usize>,
}

/// The step type `file.line`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line;

#[derive(Debug, PartialEq, Eq)]
struct Edit {
    text: String,
    lines: Vec<usize>,
}

fn pattern(key: &str, text: Option<&String>) -> Result<Option<Regex>, StepError> {
    text.map(|t| Regex::new(t).map_err(|e| StepError::permanent(format!("{key}: {e}")))).transpose()
}

/// The edited text, or why it cannot be told what is meant.
fn edit(old: &str, inputs: &Inputs) -> Result<Edit, StepError> {
    let regex = pattern("regex", inputs.regex.as_ref())?;
    let end =
        if old.lines().next().is_some_and(|first| old[first.len()..].starts_with("\r\n")) { "\r\n" } else { "\n" };
    let lines: Vec<&str> = old.lines().collect();
    let matches = |line: &str| regex.as_ref().is_some_and(|r| r.is_match(line));
    let wanted = inputs.line.as_deref();
    if inputs.state == State::Absent {
        let goes = |line: &str| if regex.is_some() { matches(line) } else { Some(line) == wanted };
        let gone = (0..lines.len()).filter(|i| goes(lines[*i])).map(|i| i + 1).collect();
        // Line by line with their own ends, so that all others stay as they are.
        let kept = old.split_inclusive('\n').zip(&lines).filter(|(_, line)| !goes(line)).map(|(whole, _)| whole);
        return Ok(Edit { text: kept.collect(), lines: gone });
    }
    let Some(wanted) = wanted else { return Err(StepError::permanent("`line` is missing")) };
    let present: Vec<usize> = (0..lines.len()).filter(|i| lines[*i] == wanted).collect();
    let others: Vec<usize> = (0..lines.len()).filter(|i| lines[*i] != wanted && matches(lines[*i])).collect();
    let numbers = |at: &[usize]| at.iter().map(|i| (i + 1).to_string()).collect::<Vec<_>>().join(", ");
    let unclear = |why: String| Err(StepError::permanent(why).help("make `regex` match one line"));
    let path = &inputs.path;
    match (&others[..], &present[..]) {
        ([], [_, ..]) => Ok(Edit { text: old.to_owned(), lines: Vec::new() }),
        ([], []) => insert(old, &lines, wanted, end, inputs),
        ([at], []) => {
            let replaced = old.split_inclusive('\n').enumerate().map(|(i, whole)| {
                if i == *at { format!("{wanted}{}", &whole[lines[i].len()..]) } else { whole.to_owned() }
            });
            Ok(Edit { text: replaced.collect(), lines: vec![at + 1] })
        }
        ([_, _, ..], _) => unclear(format!("{path}: lines {} match `regex`", numbers(&others))),
        ([at], _) => {
            unclear(format!("{path}: line {} is already so, and line {} matches `regex`", numbers(&present), at + 1))
        }
    }
}

fn insert(old: &str, lines: &[&str], wanted: &str, end: &str, inputs: &Inputs) -> Result<Edit, StepError> {
    let at = match (pattern("after", inputs.after.as_ref())?, pattern("before", inputs.before.as_ref())?) {
        (Some(after), _) => lines.iter().rposition(|l| after.is_match(l)).map(|i| i + 1),
        (None, Some(before)) => lines.iter().position(|l| before.is_match(l)),
        (None, None) => Some(lines.len()),
    };
    let Some(at) = at else {
        let (key, pattern) = if inputs.after.is_some() { ("after", &inputs.after) } else { ("before", &inputs.before) };
        let pattern = pattern.as_deref().unwrap_or_default();
        return Err(StepError::permanent(format!("{}: no line matches `{key}` ({pattern})", inputs.path))
            .help("give a pattern that matches, or leave it out to add the line at the end"));
    };
    let wholes: Vec<&str> = old.split_inclusive('\n').collect();
    let mut text: String = wholes[..at].concat();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(end);
    }
    text.push_str(wanted);
    text.push_str(end);
    text.push_str(&wholes[at..].concat());
    Ok(Edit { text, lines: vec![at + 1] })
}

/// The edit of what stands there; None = no file.
fn edit_there(path: &str, old: Option<&str>, inputs: &Inputs) -> Result<Edit, StepError> {
    match old {
        Some(old) => edit(old, inputs),
        None if inputs.create && inputs.state == State::Present => edit("", inputs),
        None if inputs.state == State::Absent => {
            Err(StepError::permanent(format!("{path}: there is no such file, so no line of it can be removed"))
                .help("give the step a `when:`, or correct the path"))
        }
        None => Err(StepError::permanent(format!("{path}: there is no such file"))
            .help("say `create: true`, or correct the path")),
    }
}

/// Calls `$with` for the file and its edit.
macro_rules! editing {
    ($cx:expr, $inputs:expr, |$editing:ident| $with:expr) => {{
        let path = $cx.path(&$inputs.path);
        let edit = |old: Option<&str>| edit_there(&path, old, $inputs).map(|edit| edit.text);
        let validate = $inputs.validate.as_deref().unwrap_or_default();
        let $editing = Editing { path: path.clone(), validate, edit: &edit };
        $with
    }};
}

#[async_trait::async_trait]
impl StepType for Line {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.line",
            doc: "One line of a text file, present or absent.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: no-root\n  uses: file.line\n  with:\n    path: /etc/ssh/sshd_config\n    regex: \"^#?PermitRootLogin \"\n    line: PermitRootLogin no\n    validate: [sshd, -t, -f, \"{path}\"]\n",
                "- id: no-swap\n  uses: file.line\n  with: { path: /etc/fstab, regex: '\\sswap\\s', state: absent }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<_> = paths::file_problems("path", &inputs.path).into_iter().collect();
        let mut problem = |key: &str, message: String, help: Option<&str>| {
            let path = if key.is_empty() { Vec::new() } else { vec![key.to_owned()] };
            all.push(InputProblem { path, message, help: help.map(str::to_owned) });
        };
        for (key, text) in [("regex", &inputs.regex), ("after", &inputs.after), ("before", &inputs.before)] {
            if let Some(Err(e)) = text.as_deref().map(regular_expression) {
                problem(key, e, None);
            }
        }
        match (&inputs.line, inputs.state) {
            (None, State::Present) => {
                problem("", "`line` is missing".to_owned(), Some("give the line that shall be there"));
            }
            (None, State::Absent) if inputs.regex.is_none() => {
                problem("", "neither `line` nor `regex` says what to remove".to_owned(), None);
            }
            (Some(line), _) if line.contains(['\n', '\r']) => {
                problem("line", "a line has no line break".to_owned(), Some("use one step per line, or `file.write`"));
            }
            (Some(_), State::Absent) if inputs.regex.is_some() => problem(
                "line",
                "with `state: absent` and a `regex`, `line` has no meaning".to_owned(),
                Some("leave one of the two out"),
            ),
            _ => {}
        }
        if inputs.after.is_some() && inputs.before.is_some() {
            problem("before", "`after` and `before` exclude each other".to_owned(), None);
        }
        all.extend(put::validate_problems(inputs.validate.as_ref()));
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        editing!(cx, inputs, |editing| edited::preview(cx, &editing).await)
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let (file, old) = editing!(cx, inputs, |editing| edited::capture(cx, &editing).await)?;
        let lines = edit_there(&file.path, old.as_deref(), inputs)?.lines;
        Ok(Capture { file, lines })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let (acted, old) = editing!(cx, inputs, |editing| edited::act(cx, &editing, &capture.file).await)?;
        let Acted { outputs: put, changed } = acted;
        let lines = match old {
            Some(_) => edit_there(&put.path, old.as_deref(), inputs)?.lines,
            None => capture.lines.clone(),
        };
        let outputs = Outputs {
            path: put.path,
            sha256: put.sha256,
            size: put.size,
            mode: put.mode,
            uid: put.uid,
            gid: put.gid,
            previous_sha256: put.previous_sha256,
            lines,
        };
        Ok(Acted { outputs, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let left = outputs.map(|o| put::Outputs {
            path: o.path.clone(),
            sha256: o.sha256.clone(),
            size: o.size,
            mode: o.mode,
            uid: o.uid,
            gid: o.gid,
            previous_sha256: o.previous_sha256.clone(),
            backup: None,
        });
        editing!(cx, inputs, |editing| edited::undo(cx, &editing, &capture.file, left.as_ref(), merge::take_out).await)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Failing, Lab, Ran, TestHost, break_everywhere};
    use runback_core::Json;
    use runback_core::step::{AnyStepType, Class};
    use serde_json::json;

    fn edited(old: &str, mut with: Json) -> Result<Edit, String> {
        with["path"] = json!("f");
        edit(old, &serde_json::from_value(with).unwrap()).map_err(|e| e.message)
    }

    #[test]
    fn one_line_is_added_replaced_or_removed() {
        let cases = [
            ("a\nb\n", json!({"line": "c"}), "a\nb\nc\n", vec![3]),
            ("a\nb", json!({"line": "c"}), "a\nb\nc\n", vec![3]),
            ("", json!({"line": "c"}), "c\n", vec![1]),
            ("a\nb\n", json!({"line": "b"}), "a\nb\n", vec![]),
            ("a=1\nb=2\n", json!({"line": "a=3", "regex": "^a="}), "a=3\nb=2\n", vec![1]),
            ("b=2\na=1", json!({"line": "a=3", "regex": "^a="}), "b=2\na=3", vec![2]),
            ("a=3\nb=2\n", json!({"line": "a=3", "regex": "^a="}), "a=3\nb=2\n", vec![]),
            ("[x]\n[y]\n", json!({"line": "k", "after": "^.x"}), "[x]\nk\n[y]\n", vec![2]),
            ("[x]\n[y]\n", json!({"line": "k", "before": "^.y"}), "[x]\nk\n[y]\n", vec![2]),
            ("[x]", json!({"line": "k", "after": "x"}), "[x]\nk\n", vec![2]),
            ("a\r\nb\r\n", json!({"line": "c"}), "a\r\nb\r\nc\r\n", vec![3]),
            ("a\r\nb\r\n", json!({"line": "c", "regex": "^a$"}), "c\r\nb\r\n", vec![1]),
            ("a\nb\na\n", json!({"line": "a", "state": "absent"}), "b\n", vec![1, 3]),
            ("a1\nb\na2", json!({"regex": "^a", "state": "absent"}), "b\n", vec![1, 3]),
            ("b\n", json!({"regex": "^a", "state": "absent"}), "b\n", vec![]),
        ];
        for (old, with, text, lines) in cases {
            assert_eq!(edited(old, with.clone()), Ok(Edit { text: text.into(), lines }), "{old:?} {with}");
        }
    }

    #[test]
    fn what_is_not_clear_is_an_error() {
        let cases = [
            ("a=1\na=2\n", json!({"line": "a=3", "regex": "^a="}), "f: lines 1, 2 match `regex`"),
            (
                "a=3\na=2\n",
                json!({"line": "a=3", "regex": "^a="}),
                "f: line 1 is already so, and line 2 matches `regex`",
            ),
            ("a\n", json!({"line": "b", "after": "x"}), "f: no line matches `after` (x)"),
        ];
        for (old, with, message) in cases {
            assert_eq!(edited(old, with).unwrap_err(), message);
        }
    }

    #[tokio::test]
    async fn edits_keeps_the_mode_and_undoes() {
        let mut lab = Lab::new();
        lab.put("sshd", "Port 22\n#PermitRootLogin yes\n");
        lab.set_mode("sshd", 0o600);
        let before = lab.snapshot();
        let with = json!({"path": "sshd", "regex": "^#?PermitRootLogin ", "line": "PermitRootLogin no"});
        let preview = lab.preview(&Line, &with).await.unwrap();
        assert!(preview.details.contains(&"+PermitRootLogin no".to_owned()));
        let ran = lab.run(&Line, &with).await.unwrap();
        assert_eq!((lab.text("sshd").as_str(), lab.mode("sshd")), ("Port 22\nPermitRootLogin no\n", 0o600));
        assert_eq!(ran.outputs["lines"], json!([2]));
        let again = lab.run(&Line, &with).await.unwrap();
        assert_eq!((again.changed, &again.outputs["lines"]), (false, &json!([])));
        lab.undo(&Line, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);

        let ran = lab.run(&Line, &with).await.unwrap();
        lab.put("sshd", "Port 22\nPermitRootLogin without-password\n");
        assert_eq!(lab.undo(&Line, &with, &ran).await.unwrap_err().class, Class::Conflict);
        lab.force = true;
        lab.undo(&Line, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    /// A step of its own on the lab's machine: what it notes is not the others'.
    #[derive(Default)]
    struct Beside {
        host: TestHost,
        capture: Json,
        outputs: Json,
    }

    impl Beside {
        fn cx<'a>(&'a self, lab: &'a Lab, name: &'a str) -> Cx<'a> {
            Cx { host: &self.host, step: name, ..lab.cx() }
        }

        async fn act(&mut self, lab: &Lab, name: &str, with: &Json) {
            let line: &dyn AnyStepType = &Line;
            self.outputs = line.act(&self.cx(lab, name), with, &self.capture).await.unwrap().outputs;
        }

        async fn undo(&self, lab: &Lab, name: &str, with: &Json) -> Undone {
            let line: &dyn AnyStepType = &Line;
            line.undo(&self.cx(lab, name), with, &self.capture, Some(&self.outputs)).await.unwrap()
        }
    }

    #[tokio::test]
    async fn steps_beside_each_other_lose_nothing_and_each_undoes_its_own() {
        // With an end of the last line and without; a file that none of them found; and with a check, which takes a while.
        for (old, check) in [(Some("127.0.0.1 me\n"), true), (Some("127.0.0.1 me"), false), (None, true)] {
            let lab = Lab::new();
            if let Some(old) = old {
                lab.put("hosts", old);
            }
            let before = lab.snapshot();
            let with = |name: &str| {
                let validate = if check { json!(["test", "-s", "{path}"]) } else { Json::Null };
                json!({"path": "hosts", "line": format!("10.0.0.1 {name}"), "create": true, "validate": validate})
            };
            let (mut a, mut b, mut c) = (Beside::default(), Beside::default(), Beside::default());
            for (name, step) in [("a", &mut a), ("b", &mut b), ("c", &mut c)] {
                let line: &dyn AnyStepType = &Line;
                step.capture = line.capture(&step.cx(&lab, name), &with(name)).await.unwrap();
            }
            let (with_a, with_b, with_c) = (with("a"), with("b"), with("c"));
            tokio::join!(a.act(&lab, "a", &with_a), b.act(&lab, "b", &with_b), c.act(&lab, "c", &with_c));
            let text = lab.text("hosts");
            for name in ["a", "b", "c"] {
                assert!(text.contains(&format!("10.0.0.1 {name}\n")), "{text}");
            }
            assert_eq!(text.lines().count(), 3 + old.iter().count(), "{text}");
            lab.put("hosts", format!("{text}10.9.9.9 admin\n"));
            a.undo(&lab, "a", &with_a).await;
            let twice = a.undo(&lab, "a", &with_a).await;
            assert!(!twice.changed, "a second undo finds it done");
            assert!(lab.text("hosts").contains("10.0.0.1 b\n10.0.0.1 c\n10.9.9.9 admin\n"), "{}", lab.text("hosts"));
            lab.put("hosts", lab.text("hosts").replace("10.9.9.9 admin\n", ""));
            c.undo(&lab, "c", &with_c).await;
            b.undo(&lab, "b", &with_b).await;
            assert_eq!(lab.snapshot(), before);
        }
    }

    #[tokio::test]
    async fn an_edit_that_was_about_to_be_made_when_the_process_died_is_no_drift() {
        let lab = Lab::new();
        lab.put("f", "x\n");
        let with = json!({"path": "f", "line": "c"});
        let capture = lab.capture(&Line, &with).await.unwrap();
        lab.put("f", "x\na\nb\n");
        lab.target.fail_at(0, Failing::Before);
        lab.act(&Line, &with, &capture).await.unwrap_err();
        lab.target.heal();
        for text in ["x\na\nb\n", "x\na\n", "x\n"] {
            lab.put("f", text);
            assert!(!lab.undo_unfinished(&Line, &with, &capture).await.unwrap().changed);
            assert_eq!(lab.text("f"), text);
        }
    }

    #[tokio::test]
    async fn what_is_edited_between_a_look_and_the_replacement_stays() {
        let lab = Lab::new();
        lab.put("f", "a\n");
        // Somebody else writes while the new file is checked.
        let script = format!("grep -q admin {0} || echo admin >> {0}", lab.path("f"));
        let with = json!({"path": "f", "line": "b", "validate": ["sh", "-c", script, "{path}"]});
        let ran = lab.run(&Line, &with).await.unwrap();
        assert_eq!(lab.text("f"), "a\nadmin\nb\n");
        assert_eq!(ran.outputs["lines"], json!([3]));
        lab.undo(&Line, &with, &ran).await.unwrap();
        assert_eq!(lab.text("f"), "a\nadmin\n");
    }

    #[tokio::test]
    async fn a_line_that_somebody_adds_at_any_instant_before_the_last_look_stays() {
        for check in [json!(["test", "-s", "{path}"]), Json::Null] {
            let mut looks = 0;
            loop {
                let lab = Lab::new();
                lab.put("hosts", "a\n");
                let with = json!({"path": "hosts", "line": "b", "validate": check});
                let capture = lab.capture(&Line, &with).await.unwrap();
                lab.target.meddle_at(looks, lab.path("hosts"), "admin\n");
                lab.act(&Line, &with, &capture).await.unwrap();
                if lab.target.was_not_meddled_with() {
                    break;
                }
                let text = lab.text("hosts");
                assert!(text.contains("admin\n") && text.contains("b\n"), "before look {looks}: {text}");
                looks += 1;
            }
            assert!(looks > 5, "{looks}");
        }
    }

    #[tokio::test]
    async fn what_is_edited_while_the_run_is_held_stays() {
        let mut lab = Lab::new();
        lab.put("app.conf", "port=80\nname=x\n");
        let with = json!({"path": "app.conf", "regex": "^port=", "line": "port=81",
            "validate": ["grep", "-q", "listen=", "{path}"]});
        let capture = lab.capture(&Line, &with).await.unwrap();
        lab.act(&Line, &with, &capture).await.unwrap_err();
        lab.put("app.conf", "port=80\nname=x\nlisten=all\n");
        lab.attempt = 2;
        let acted = lab.act(&Line, &with, &capture).await.unwrap();
        assert_eq!(lab.text("app.conf"), "port=81\nname=x\nlisten=all\n");
        let ran = Ran { capture, outputs: acted.outputs, changed: acted.changed };
        lab.undo(&Line, &with, &ran).await.unwrap();
        assert_eq!(lab.text("app.conf"), "port=80\nname=x\nlisten=all\n");
    }

    #[tokio::test]
    async fn a_file_that_changed_after_it_may_have_been_written_is_a_conflict() {
        let mut lab = Lab::new();
        lab.put("f", "a\n");
        let with = json!({"path": "f", "line": "b"});
        let capture = lab.capture(&Line, &with).await.unwrap();
        lab.target.fail_at(0, Failing::After);
        lab.act(&Line, &with, &capture).await.unwrap_err();
        lab.target.heal();
        lab.put("f", "a\nb\nadmin\n");
        lab.attempt = 2;
        let error = lab.act(&Line, &with, &capture).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.contains("f was changed by someone else since the step began"), "{error}");
        assert!(error.help.unwrap().contains("`runback rollback r1`"));
        lab.undo_unfinished(&Line, &with, &capture).await.unwrap();
        assert_eq!(lab.text("f"), "a\nadmin\n", "its own line is out, the other one stays");
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        let prepare = |lab: &Lab| lab.put("f", "a\n");
        assert!(break_everywhere(&Line, prepare, |_| json!({"path": "f", "line": "b"})).await >= 2);
        let create = |_: &Lab| json!({"path": "f", "line": "b", "create": true, "validate": ["test", "-s", "{path}"]});
        assert!(break_everywhere(&Line, |_| {}, create).await >= 4);
    }

    #[tokio::test]
    async fn files_that_are_not_there_or_not_text_are_named() {
        let lab = Lab::new();
        lab.put("bin", [0xff]);
        for (with, message) in [
            (json!({"path": "no", "line": "x"}), "there is no such file"),
            (json!({"path": "no", "line": "x", "state": "absent"}), "so no line of it can be removed"),
            (json!({"path": "bin", "line": "x"}), "is not UTF-8 text"),
            (json!({"path": ".", "line": "x"}), "is a directory"),
        ] {
            let error = lab.capture(&Line, &with).await.unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths =
            |with: Json| -> Vec<String> { Lab::problems(&Line, &with).into_iter().map(|p| p.path.join(".")).collect() };
        assert_eq!(paths(json!({"path": "f"})), [""]);
        assert_eq!(paths(json!({"path": "f", "state": "absent"})), [""]);
        assert_eq!(paths(json!({"path": "f", "line": "a\nb", "regex": "("})), ["regex", "line"]);
        assert_eq!(paths(json!({"path": "f", "line": "a", "regex": "a", "state": "absent"})), ["line"]);
        assert_eq!(paths(json!({"path": "f", "line": "a", "after": "a", "before": "b"})), ["before"]);
        assert!(paths(json!({"path": "f", "regex": "a", "state": "absent"})).is_empty());
    }
}
