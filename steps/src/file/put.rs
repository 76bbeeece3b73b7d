//! Puts one file's content and attributes in their place, and takes that back: what `file.write`, `file.template`,
//! `file.copy`, `file.edit` and `file.line` have in common. Knows not where the content comes from.

use runback_core::step::{Acted, Class, Cx, Preview, StepError, Undone};
use runback_core::target::{Command, FileAttributes, FileKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attributes::{self, Mode, Ownership};
use super::before::{self, FileBefore, Now};
use super::told::{self, Told};
use super::{diff, parents, paths, sha256_hex, turn};

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
    /// The action notes each replacement before it makes it. Not so in runs of runback 0.1 that began before it did.
    #[serde(default)]
    tells: bool,
}

impl Capture {
    /// Of what was there.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.before.as_ref().map(|before| before.sha256.as_str())
    }
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
        tells: true,
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

/// The step has written nothing of its own there so far.
fn untouched(cx: &Cx<'_>, capture: &Capture) -> bool {
    capture.tells && told::told(cx).is_empty()
}

/// An attempt of this step left these bytes. None = nothing is there.
pub(crate) fn is_ours(cx: &Cx<'_>, capture: &Capture, sha256: Option<&str>) -> bool {
    let told = told::told(cx);
    let old = !capture.tells && cx.attempt > 1 && sha256 == Some(capture.planned.as_str());
    old || told.iter().any(|told| Some(told.with.as_str()) == sha256 && told.over.as_deref() != sha256)
}

/// The step may begin with these bytes: it has written none yet, or they are those that it began with.
pub(crate) fn is_base(cx: &Cx<'_>, capture: &Capture, sha256: Option<&str>) -> bool {
    let told = told::told(cx);
    untouched(cx, capture) || capture.sha256() == sha256 || told.iter().any(|told| told.over.as_deref() == sha256)
}

pub(crate) async fn act(cx: &Cx<'_>, wanted: &Wanted<'_>, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
    let _turn = turn::take(cx, &capture.path).await;
    let now = before::look(cx, &capture.path).await?;
    let known = match (&capture.before, &now) {
        (None, Now::Absent) | (_, Now::Other(_)) => true,
        (Some(before), now) if now.is(before) => true,
        // What somebody else made just so needs no replacing.
        (_, Now::File { sha256, .. }) => {
            *sha256 == wanted.source.sha256() || is_ours(cx, capture, Some(sha256)) || told_of(cx, sha256)
        }
        (Some(_), Now::Absent) => false,
    };
    if !known {
        return Err(before::changed_since(cx, &capture.path));
    }
    act_in_turn(cx, wanted, capture, &now).await?.ok_or_else(|| before::changed_since(cx, &capture.path))
}

/// The mode or owner of these bytes is what an attempt of this step was about to change.
fn told_of(cx: &Cx<'_>, sha256: &str) -> bool {
    told::told(cx).iter().any(|told| told.with == sha256)
}

/// Like [`act`], by one who has the turn and knows that `now` may be replaced. None = somebody else, not of this process,
/// changed it meanwhile, and nothing was replaced.
pub(crate) async fn act_in_turn(
    cx: &Cx<'_>,
    wanted: &Wanted<'_>,
    capture: &Capture,
    now: &Now,
) -> Result<Option<Acted<Outputs>>, StepError> {
    let path = &capture.path;
    if cx.attempt > 1 {
        clear_leftovers(cx, path).await?;
    }
    let sha256 = wanted.source.sha256();
    match now {
        Now::Other(stat) => return Err(not_a_file(path, stat)),
        Now::File { sha256: is, attributes: have } if *is == sha256 => {
            if !attributes::fits(have, &capture.attributes) {
                told::tell(cx, Some(is), &sha256).await?;
                cx.target.set_attributes(path, &capture.attributes).await?;
            }
        }
        Now::File { .. } | Now::Absent => {
            parents::make(cx, &capture.made_dirs).await?;
            if let Some(old) = &capture.before {
                before::copy_aside(cx, path, old, now).await?;
            }
            if !put(cx, wanted, capture, now).await? {
                return Ok(None);
            }
        }
    }
    let stat = cx.target.stat(path).await?;
    let stat = stat.ok_or_else(|| StepError::conflict(format!("{path}: it went away while it was written")))?;
    let changed = !untouched(cx, capture)
        && match &capture.before {
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
    Ok(Some(Acted { outputs, changed }))
}

/// What writes of the file, of its new content and of its copy left beside it when a process was killed in the middle.
async fn clear_leftovers(cx: &Cx<'_>, path: &str) -> Result<(), StepError> {
    cx.target.clear_leftovers(path).await?;
    for suffix in ["new", "bak"] {
        cx.target.clear_leftovers(&paths::beside(cx, path, suffix)).await?;
    }
    Ok(())
}

/// Writes the new content beside the file where it must be checked or copied first, and switches. False = `now` does
/// not stand there any more, and nothing was switched.
async fn put(cx: &Cx<'_>, wanted: &Wanted<'_>, capture: &Capture, now: &Now) -> Result<bool, StepError> {
    let path = &capture.path;
    if let (Source::Bytes(bytes), true) = (&wanted.source, wanted.validate.is_empty()) {
        let switch = async { Ok(cx.target.write(path, bytes, &capture.attributes).await?) };
        return switched(cx, wanted, path, now, switch).await;
    }
    let staged = paths::beside(cx, path, "new");
    let done = async {
        stage(cx, wanted, capture, &staged).await?;
        validate(cx, wanted.validate, &staged, path).await?;
        let switch = async { Ok(cx.target.rename(&staged, path).await?) };
        switched(cx, wanted, path, now, switch).await
    }
    .await;
    if !matches!(done, Ok(true)) {
        // The first error is the one to tell; a leftover is the undo's.
        let _ = cx.target.remove_file(&staged).await;
    }
    done
}

/// Notes the replacement, looks whether `now` still stands there, and makes it.
async fn switched(
    cx: &Cx<'_>,
    wanted: &Wanted<'_>,
    path: &str,
    now: &Now,
    switch: impl Future<Output = Result<(), StepError>>,
) -> Result<bool, StepError> {
    told::tell(cx, now.sha256(), &wanted.source.sha256()).await?;
    let _alone = cx.target.alone_in_folder(path).await;
    if before::look(cx, path).await? != *now {
        told::untell(cx).await?;
        return Ok(false);
    }
    switch.await?;
    Ok(true)
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
    let _turn = turn::take(cx, &capture.path).await;
    let large = capture.before.as_ref().is_some_and(|before| before.content.aside().is_some());
    // To look at a large file takes long, and others in the folder need not wait for it.
    let _alone = if large { None } else { cx.target.alone_in_folder(&capture.path).await };
    undo_in_turn(cx, capture, left).await
}

/// Nobody else is in the way: undo brings the captured file back, or has nothing to do.
pub(crate) fn is_plain_undo(cx: &Cx<'_>, capture: &Capture, left: Option<&Outputs>, now: &Now) -> bool {
    let Now::File { sha256, .. } = now else { return true };
    let told = told::told(cx);
    let as_left = left.map_or_else(|| told.iter().any(|t| t.with == *sha256), |left| left.sha256 == *sha256);
    let over_captured = match told.last() {
        Some(last) => last.over.as_deref() == capture.sha256(),
        None => !capture.tells,
    };
    nothing_to_undo(cx, capture, left, now) || (as_left && over_captured)
}

fn nothing_to_undo(cx: &Cx<'_>, capture: &Capture, left: Option<&Outputs>, now: &Now) -> bool {
    let already = match (&capture.before, now) {
        (None, Now::Absent) => true,
        (Some(before), now) => now.is(before),
        _ => false,
    };
    already || untouched(cx, capture) || did_nothing(capture, left)
}

pub(crate) async fn undo_in_turn(cx: &Cx<'_>, capture: &Capture, left: Option<&Outputs>) -> Result<Undone, StepError> {
    let path = &capture.path;
    let tidied = tidy(cx, capture).await?;
    let now = before::look(cx, path).await?;
    if nothing_to_undo(cx, capture, left, &now) {
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
        // As runback 0.1 noted it at first, where it was another than the planned one.
        let earlier = notes.iter().filter_map(|n| n.get("writes_sha256")?.as_str()).map(str::to_owned);
        let noted = told::told(cx).into_iter().map(|Told { with, .. }| with).chain(earlier);
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

/// Removes what an interrupted attempt left beside the file. The flag tells of a staged file.
pub(crate) async fn tidy(cx: &Cx<'_>, capture: &Capture) -> Result<bool, StepError> {
    clear_leftovers(cx, &capture.path).await?;
    let staged = paths::beside(cx, &capture.path, "new");
    let there = cx.target.stat(&staged).await?.is_some();
    if there {
        cx.target.remove_file(&staged).await?;
    }
    Ok(there)
}

/// Removes the copy beside the file, where the file itself holds what was there, or is none of this step's business.
async fn drop_aside(cx: &Cx<'_>, capture: &Capture, now: &Now) -> Result<bool, StepError> {
    let Some(before) = &capture.before else { return Ok(false) };
    let Some(aside) = before.content.aside() else { return Ok(false) };
    let needed = !now.is(before) && !untouched(cx, capture);
    if needed || cx.target.stat(aside).await?.is_none() {
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
