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
//! **Undo** brings the whole earlier file back, if it is still as the step left it; a change of another line by somebody
//! else is a conflict, and `--force` decides.
//!
//! **Does not** read files above 4 MiB or such that are not UTF-8.

use regex::Regex;
use runback_core::step::{
    Access, Acted, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::put::{self, Source, Wanted};
use super::{Mode, paths, text};

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

async fn wanted<'a>(cx: &Cx<'_>, inputs: &'a Inputs) -> Result<(Wanted<'a>, Vec<usize>), StepError> {
    let path = cx.path(&inputs.path);
    let old = match text::read(cx, &path).await? {
        Some(old) => old,
        None if inputs.create && inputs.state == State::Present => String::new(),
        None if inputs.state == State::Absent => {
            return Err(StepError::permanent(format!(
                "{path}: there is no such file, so no line of it can be removed"
            ))
            .help("give the step a `when:`, or correct the path"));
        }
        None => {
            return Err(StepError::permanent(format!("{path}: there is no such file"))
                .help("say `create: true`, or correct the path"));
        }
    };
    let Edit { text, lines } = edit(&old, inputs)?;
    let validate = inputs.validate.as_deref().unwrap_or_default();
    Ok((Wanted { validate, ..Wanted::new(path, Source::Bytes(text.into_bytes())) }, lines))
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
            detach: false,
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
            if let Some(Err(e)) = text.as_deref().map(Regex::new) {
                problem(key, e.to_string(), None);
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
        put::preview(cx, &wanted(cx, inputs).await?.0).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let (wanted, lines) = wanted(cx, inputs).await?;
        Ok(Capture { file: put::capture(cx, &wanted).await?, lines })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let (wanted, lines) = wanted(cx, inputs).await?;
        let Acted { outputs: put, changed } = put::act(cx, &wanted, &capture.file).await?;
        let lines = if lines.is_empty() { capture.lines.clone() } else { lines };
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
        _: &Inputs,
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
        put::undo(cx, &capture.file, left.as_ref()).await
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
        lab.put("sshd", "Port 23\nPermitRootLogin no\n");
        assert_eq!(lab.undo(&Line, &with, &ran).await.unwrap_err().class, Class::Conflict);
        lab.force = true;
        lab.undo(&Line, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
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
