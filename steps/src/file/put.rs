//! Puts one file's content and attributes in their place, and takes that back: what `file.write`, `file.template`,
//! `file.copy`, `file.edit` and `file.line` have in common. Knows not where the content comes from.

use runback_core::Json;
use runback_core::step::{Acted, Class, Cx, Preview, StepError, Undone};
use runback_core::target::{Command, FileAttributes, FileKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attributes::{self, Mode, Ownership};
use super::before::{self, FileBefore, Now};
use super::{diff, parents, paths, sha256_hex};

/// Files are shown as a diff up to this size, in bytes.
const SHOW: usize = 256 << 10;

/// The bytes that shall stand there.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Bytes(Vec<u8>),
    /// Too large to hold: a file on the target, and its hash and size.
    OnTarget {
        path: String,
        sha256: String,
        size: u64,
        mode: u32,
    },
}

impl Source {
    pub(crate) fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => sha256_hex(bytes),
            Self::OnTarget { sha256, .. } => sha256.clone(),
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::OnTarget { size, .. } => *size,
        }
    }
}

/// One file as a step wants it.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// As the target knows it.
    pub(crate) path: String,
    pub(crate) source: Source,
    pub(crate) ownership: Ownership<'a>,
    /// Mode of a file that was not there, where the inputs say none.
    pub(crate) new_mode: Option<u32>,
    pub(crate) create_dirs: bool,
    /// What it replaces is kept beside it, not in the journal: it is somebody's key.
    pub(crate) private: bool,
    /// argv with `{path}` for the new file before it takes the place of the old one. Empty = none.
    pub(crate) validate: &'a [String],
}

impl Wanted<'_> {
    /// Content for a file that keeps its mode and owner. A new one has mode 0644.
    pub(crate) fn new(path: String, source: Source) -> Self {
        let ownership = Ownership::default();
        Self { path, source, ownership, new_mode: Some(0o644), create_dirs: false, private: false, validate: &[] }
    }
}

/// The pre-state of one file, and what the action will leave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    pub(crate) path: String,
    /// None = nothing was there.
    pub(crate) before: Option<FileBefore>,
    /// The hash that the action will leave, as far as capture could tell.
    planned: String,
    attributes: FileAttributes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made_dirs: Vec<String>,
}

/// What the file is like now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The file, as the target knows it.
    pub(crate) path: String,
    /// Of its content.
    pub sha256: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Permission bits in octal.
    pub(crate) mode: Mode,
    /// Of its owner.
    pub(crate) uid: u32,
    /// Of its group.
    pub(crate) gid: u32,
    /// Of the content that was there before; null where nothing was.
    pub previous_sha256: Option<String>,
    /// Where the file that was there before is kept, if it was larger than 4 MiB or private. Undo moves it back; remove it once
    /// you no longer want to go back.
    pub(crate) backup: Option<String>,
}

/// Why a path cannot be written as a regular file.
fn not_a_file(path: &str, stat: &runback_core::target::FileStat) -> StepError {
    let error = StepError::permanent(format!("{path} is {}", before::kind(stat)));
    match (stat.kind, &stat.link) {
        (FileKind::Symlink, Some(to)) => {
            error.help(format!("name the file that it points to ({to}), or replace the link with `uses: file.link`"))
        }
        _ => error.help("only a regular file can be written; name another path"),
    }
}

pub(crate) async fn capture(cx: &Cx<'_>, wanted: &Wanted<'_>) -> Result<Capture, StepError> {
    let path = wanted.path.clone();
    let asked = wanted.ownership.resolve(cx).await?;
    let mut capture = Capture {
        planned: wanted.source.sha256(),
        attributes: asked,
        before: None,
        made_dirs: Vec::new(),
        path: path.clone(),
    };
    match cx.target.stat(&path).await? {
        Some(stat) if stat.kind == FileKind::File => {
            let inline = if wanted.private { 0 } else { before::KEEP_INLINE };
            let file = before::read_up_to(cx, &path, &stat, paths::beside(cx, &path, "bak"), inline).await?;
            capture.attributes = attributes::or(&capture.attributes, &file.attributes());
            capture.before = Some(file);
        }
        Some(stat) => return Err(not_a_file(&path, &stat)),
        None => {
            capture.made_dirs = parents::missing(cx, &path).await?;
            if !wanted.create_dirs && !capture.made_dirs.is_empty() {
                return Err(parents::none(&path, &capture.made_dirs));
            }
            capture.attributes.mode = capture.attributes.mode.or(wanted.new_mode);
        }
    }
    Ok(capture)
}

pub(crate) async fn act(cx: &Cx<'_>, wanted: &Wanted<'_>, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
    let path = &capture.path;
    if cx.attempt > 1 {
        cx.target.clear_leftovers(path).await?;
    }
    let sha256 = wanted.source.sha256();
    let now = before::look(cx, path).await?;
    match &now {
        Now::Other(stat) => return Err(not_a_file(path, stat)),
        Now::File { sha256: is, attributes: have } if *is == sha256 => {
            if !attributes::fits(have, &capture.attributes) {
                cx.target.set_attributes(path, &capture.attributes).await?;
            }
        }
        Now::File { .. } | Now::Absent => {
            if sha256 != capture.planned {
                // What was planned at capture is not what is written now (the template was edited between two
                // attempts); an undo of an action that does not finish must know it.
                cx.host.note(serde_json::json!({ "writes_sha256": sha256 })).await?;
            }
            parents::make(cx, &capture.made_dirs).await?;
            if let Some(old) = &capture.before {
                before::copy_aside(cx, path, old, &now).await?;
            }
            put(cx, wanted, capture).await?;
        }
    }
    let stat = cx.target.stat(path).await?;
    let stat = stat.ok_or_else(|| StepError::conflict(format!("{path}: it went away while it was written")))?;
    let changed = match &capture.before {
        Some(before) => before.sha256 != sha256 || before.attributes() != attributes::of(&stat),
        None => true,
    };
    let outputs = Outputs {
        path: path.clone(),
        sha256,
        size: stat.size,
        mode: Mode(stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        previous_sha256: capture.before.as_ref().map(|b| b.sha256.clone()),
        backup: if changed { capture.before.as_ref().and_then(|b| b.content.aside()).map(str::to_owned) } else { None },
    };
    Ok(Acted { outputs, changed })
}

/// Writes the new content beside the file where it must be checked or copied first, and switches.
async fn put(cx: &Cx<'_>, wanted: &Wanted<'_>, capture: &Capture) -> Result<(), StepError> {
    if let (Source::Bytes(bytes), true) = (&wanted.source, wanted.validate.is_empty()) {
        return Ok(cx.target.write(&capture.path, bytes, &capture.attributes).await?);
    }
    let staged = paths::beside(cx, &capture.path, "new");
    let done = async {
        stage(cx, wanted, capture, &staged).await?;
        validate(cx, wanted.validate, &staged, &capture.path).await?;
        Ok(cx.target.rename(&staged, &capture.path).await?)
    }
    .await;
    if done.is_err() {
        // The first error is the one to tell; a leftover is the undo's.
        let _ = cx.target.remove_file(&staged).await;
    }
    done
}

async fn stage(cx: &Cx<'_>, wanted: &Wanted<'_>, capture: &Capture, staged: &str) -> Result<(), StepError> {
    match &wanted.source {
        Source::Bytes(bytes) => Ok(cx.target.write(staged, bytes, &capture.attributes).await?),
        Source::OnTarget { path, sha256, mode, .. } => {
            // Written empty first, to learn whose a new file is: a copy has the owner of its source.
            cx.target.write(staged, b"", &FileAttributes { mode: Some(0o600), ..FileAttributes::default() }).await?;
            let own = cx.target.stat(staged).await?.map(|s| attributes::of(&s)).unwrap_or_default();
            let own = FileAttributes { mode: Some(*mode), ..own };
            cx.target.copy(path, staged).await?;
            cx.target.set_attributes(staged, &attributes::or(&capture.attributes, &own)).await?;
            if cx.target.sha256(staged).await? != *sha256 {
                return Err(StepError::conflict(format!("{path} was changed while it was copied")));
            }
            Ok(())
        }
    }
}

async fn validate(cx: &Cx<'_>, argv: &[String], staged: &str, path: &str) -> Result<(), StepError> {
    if argv.is_empty() {
        return Ok(());
    }
    let command = Command::new(argv.iter().map(|word| word.replace("{path}", staged)));
    let exit = cx.query(command.clone()).await?;
    if exit.ok() {
        return Ok(());
    }
    let why = StepError::from_exit(Class::Permanent, &command, &exit);
    Err(StepError { message: format!("{path} was not replaced, the new one is not valid: {}", why.message), ..why }
        .help("the command's output is in the step's log"))
}

/// Mistakes in `validate`.
pub(crate) fn validate_problems(validate: Option<&Vec<String>>) -> Vec<runback_core::step::InputProblem> {
    let Some(argv) = validate else { return Vec::new() };
    if argv.iter().any(|word| word.contains("{path}")) {
        return Vec::new();
    }
    vec![runback_core::step::InputProblem {
        path: vec!["validate".to_owned()],
        message: "the command does not name the file that it is to look at".to_owned(),
        help: Some("write {path} where the new file's path belongs, as in [nginx, -t, -c, \"{path}\"]".to_owned()),
    }]
}

pub(crate) async fn undo(cx: &Cx<'_>, capture: &Capture, left: Option<&Outputs>) -> Result<Undone, StepError> {
    let path = &capture.path;
    cx.target.clear_leftovers(path).await?;
    let tidied = tidy(cx, capture).await?;
    let now = before::look(cx, path).await?;
    let already = match (&capture.before, &now) {
        (None, Now::Absent) => true,
        (Some(before), now) => now.is(before),
        _ => false,
    };
    if already || (left.is_some() && did_nothing(capture, left)) {
        let (removed, note) = parents::unmake(cx, &capture.made_dirs).await?;
        let spare = drop_aside(cx, capture, &now).await?;
        return Ok(Undone { changed: tidied || removed || spare, note });
    }
    if let Now::Other(stat) = &now {
        // Even --force does not remove a directory or a link that somebody put there.
        return Err(StepError::conflict(format!("{path}: is {} now", before::kind(stat)))
            .help("move it away, then run the rollback again"));
    }
    if let Some(what) = differs(cx, capture, left, &now)
        && !cx.force
    {
        return Err(before::drift(cx, path, &what));
    }
    let note = match (&capture.before, &now) {
        (None, _) => {
            cx.target.remove_file(path).await?;
            let (_, left) = parents::unmake(cx, &capture.made_dirs).await?;
            left.map_or_else(|| format!("removed {path}"), |left| format!("removed {path}; {left}"))
        }
        (Some(before), Now::File { sha256, .. }) if *sha256 == before.sha256 => {
            cx.target.set_attributes(path, &before.attributes()).await?;
            drop_aside(cx, capture, &before::look(cx, path).await?).await?;
            format!("gave {path} its mode and owner back")
        }
        (Some(before), _) => {
            before::restore(cx, path, before).await?;
            format!("brought back {path} ({} bytes)", before.size)
        }
    };
    Ok(Undone { changed: true, note: Some(note) })
}

/// The step found everything as it wanted it, so what happened since is none of its business.
fn did_nothing(capture: &Capture, left: Option<&Outputs>) -> bool {
    let (Some(before), Some(left)) = (&capture.before, left) else { return false };
    before.sha256 == left.sha256 && before.attributes() == attributes_of(left)
}

fn attributes_of(left: &Outputs) -> FileAttributes {
    FileAttributes { mode: Some(left.mode.0), uid: Some(left.uid), gid: Some(left.gid) }
}

/// How the file differs from what the step left; None = not at all. An action that did not finish may have left the
/// new content, or the old one with some attributes changed.
fn differs(cx: &Cx<'_>, capture: &Capture, left: Option<&Outputs>, now: &Now) -> Option<String> {
    let Now::File { sha256, attributes: have } = now else { return Some("is gone".to_owned()) };
    let hashes = if let Some(left) = left {
        vec![left.sha256.clone()]
    } else {
        let notes = cx.host.notes();
        let noted = notes.iter().filter_map(|n| n.get("writes_sha256").and_then(Json::as_str)).map(str::to_owned);
        let old = capture.before.iter().map(|b| b.sha256.clone());
        [capture.planned.clone()].into_iter().chain(noted).chain(old).collect()
    };
    if !hashes.contains(sha256) {
        return Some(format!(
            "was changed after this step wrote it (its sha256 is {}…, was left as {}…)",
            &sha256[..12],
            hashes[0].get(..12).unwrap_or_default()
        ));
    }
    let old = capture.before.as_ref().map(FileBefore::attributes).unwrap_or_default();
    let new = left.map_or_else(|| capture.attributes.clone(), attributes_of);
    attributes::drift(have, &old, &new, left.is_some()).map(|what| format!("has {what}"))
}

/// Removes a staged file that an interrupted attempt left.
async fn tidy(cx: &Cx<'_>, capture: &Capture) -> Result<bool, StepError> {
    let staged = paths::beside(cx, &capture.path, "new");
    let there = cx.target.stat(&staged).await?.is_some();
    if there {
        cx.target.remove_file(&staged).await?;
    }
    Ok(there)
}

/// Removes the copy beside the file, where the file itself holds what was there.
async fn drop_aside(cx: &Cx<'_>, capture: &Capture, now: &Now) -> Result<bool, StepError> {
    let Some(before) = &capture.before else { return Ok(false) };
    let Some(aside) = before.content.aside() else { return Ok(false) };
    if !now.is(before) || cx.target.stat(aside).await?.is_none() {
        return Ok(false);
    }
    cx.target.remove_file(aside).await?;
    Ok(true)
}

pub(crate) async fn preview(cx: &Cx<'_>, wanted: &Wanted<'_>) -> Result<Preview, StepError> {
    let path = &wanted.path;
    let asked = wanted.ownership.resolve(cx).await?;
    let (old, have) = match cx.target.stat(path).await? {
        None => (None, None),
        Some(stat) if stat.kind == FileKind::File => {
            let small = stat.size <= SHOW as u64;
            let old = if small { Some(cx.target.read(path, SHOW as u64).await?) } else { None };
            let sha256 = match &old {
                Some(bytes) => sha256_hex(bytes),
                None => cx.target.sha256(path).await?,
            };
            (Some((old, sha256)), Some(attributes::of(&stat)))
        }
        Some(stat) => return Err(not_a_file(path, &stat)),
    };
    let missing = if old.is_none() { parents::missing(cx, path).await? } else { Vec::new() };
    if !missing.is_empty() && !wanted.create_dirs {
        return Err(parents::none(path, &missing));
    }
    let same = old.as_ref().is_some_and(|(_, sha256)| *sha256 == wanted.source.sha256());
    let modes: Vec<String> = have.iter().flat_map(|have| attributes::differences(have, &asked)).collect();
    let size = wanted.source.size();
    let summary = match (&old, same, modes.is_empty()) {
        (_, true, true) => format!("{path} is already so"),
        (_, true, false) => format!("change {path}: it has {}", modes.join(", ")),
        (None, ..) => format!("create {path} ({})", measure(&wanted.source)),
        (Some(_), ..) => format!("write {path} ({})", measure(&wanted.source)),
    };
    let mut details: Vec<String> = missing.iter().map(|dir| format!("create the directory {dir}")).collect();
    if !same {
        details.extend(modes.iter().map(|m| format!("it has {m}")));
        let old = old.map_or(Some(Vec::new()), |(bytes, _)| bytes).map(String::from_utf8);
        match (old, &wanted.source) {
            (Some(Ok(old)), Source::Bytes(new)) if new.len() <= SHOW => match std::str::from_utf8(new) {
                Ok(new) => details.extend(diff::unified(path, &old, new)),
                Err(_) => details.push(format!("binary, {size} bytes")),
            },
            _ => details.push(format!("binary or large, {size} bytes")),
        }
    }
    Ok(Preview { changes: Some(!same || !modes.is_empty()), summary, details })
}

fn measure(source: &Source) -> String {
    match source {
        Source::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => {
                let lines = text.lines().count();
                format!("{lines} line{}", if lines == 1 { "" } else { "s" })
            }
            Err(_) => format!("{} bytes", bytes.len()),
        },
        Source::OnTarget { size, .. } => format!("{size} bytes"),
    }
}
