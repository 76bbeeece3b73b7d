//! Changes a text file by what stands in it: what `file.line` and `file.edit` have in common. Steps beside each other may
//! change one file: each edits what stands there at its turn, and its undo takes its own change out and leaves theirs.
//! Knows not what an edit is about.
//!
//! The captured file may be older than the one that is edited. That is no loss: a step that has not replaced the file yet
//! (its notes say so) begins with what stands there, and undo needs of the captured one only the lines that this step
//! changed. Where the file was edited as it was captured, undo brings back the captured one, to the last bit.

use std::time::Duration;

use runback_core::step::{Acted, Cx, Preview, StepError, Undone};
use runback_core::target::FileAttributes;

use super::before::{self, Now};
use super::put::{self, Capture, Outputs, Source, Wanted};
use super::{sha256_hex, text, told, turn};

/// How often an edit is made again because somebody else, not of this process, was faster.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(5);

/// A file, and what shall stand in it.
pub(crate) struct Editing<'a> {
    /// As the target knows it.
    pub(crate) path: String,
    pub(crate) validate: &'a [String],
    /// The text that shall stand there, by the one that stands there; None = there is no file.
    pub(crate) edit: &'a (dyn Fn(Option<&str>) -> Result<String, StepError> + Send + Sync),
}

impl<'a> Editing<'a> {
    fn wanted(&self, old: Option<&str>) -> Result<Wanted<'a>, StepError> {
        Ok(self.put((self.edit)(old)?))
    }

    fn put(&self, text: String) -> Wanted<'a> {
        let source = Source::Bytes(text.into_bytes());
        Wanted { validate: self.validate, ..Wanted::new(self.path.clone(), source) }
    }
}

fn hash(text: Option<&String>) -> Option<String> {
    text.map(|text| sha256_hex(text.as_bytes()))
}

pub(crate) async fn preview(cx: &Cx<'_>, editing: &Editing<'_>) -> Result<Preview, StepError> {
    let old = text::read(cx, &editing.path).await?;
    put::preview(cx, &editing.wanted(old.as_deref())?).await
}

/// Also tells the text that it read.
pub(crate) async fn capture(cx: &Cx<'_>, editing: &Editing<'_>) -> Result<(Capture, Option<String>), StepError> {
    for _ in 0..TRIES {
        let old = text::read(cx, &editing.path).await?;
        let capture = put::capture(cx, &editing.wanted(old.as_deref())?).await?;
        if capture.sha256() == hash(old.as_ref()).as_deref() {
            return Ok((capture, old));
        }
    }
    Err(restless(&editing.path))
}

fn restless(path: &str) -> StepError {
    StepError::conflict(format!("{path} is changed by someone else again and again; this step changed nothing of it"))
        .help("find out who writes it, and run this when they are done")
}

/// Also tells the text that was edited; None where the edit was done before.
pub(crate) async fn act(
    cx: &Cx<'_>,
    editing: &Editing<'_>,
    captured: &Capture,
) -> Result<(Acted<Outputs>, Option<String>), StepError> {
    let path = &editing.path;
    let _turn = turn::take(cx, path).await;
    for _ in 0..TRIES {
        if let Some(done) = act_once(cx, editing, captured).await? {
            return Ok(done);
        }
        cx.host.sleep(PAUSE).await;
    }
    Err(restless(path))
}

/// None = the file did not stay the same from the first look to the last, and nothing was replaced.
async fn act_once(
    cx: &Cx<'_>,
    editing: &Editing<'_>,
    captured: &Capture,
) -> Result<Option<(Acted<Outputs>, Option<String>)>, StepError> {
    let path = &editing.path;
    let old = text::read(cx, path).await?;
    let sha256 = hash(old.as_ref());
    if let (Some(old), true) = (&old, put::is_ours(cx, captured, sha256.as_deref())) {
        // An earlier attempt wrote it. To edit it again could change it again.
        let now = before::look(cx, path).await?;
        if now.sha256() != sha256.as_deref() {
            return Ok(None);
        }
        let acted = put::act_in_turn(cx, &editing.put(old.clone()), captured, &now).await?;
        return Ok(acted.map(|acted| (acted, None)));
    }
    let wanted = editing.wanted(old.as_deref())?;
    let base = put::capture(cx, &wanted).await?;
    if base.sha256() != sha256.as_deref() {
        return Ok(None);
    }
    if !put::is_base(cx, captured, base.sha256()) {
        return Err(before::changed_since(cx, path));
    }
    let now = Now::of(base.before.as_ref());
    Ok(put::act_in_turn(cx, &wanted, &base, &now).await?.map(|acted| (acted, old)))
}

/// `take_out` is [`merge::take_out`](super::merge::take_out), or knows better.
pub(crate) async fn undo(
    cx: &Cx<'_>,
    editing: &Editing<'_>,
    captured: &Capture,
    left: Option<&Outputs>,
    take_out: impl Fn(&str, &str, &str, bool) -> Option<String> + Send + Sync,
) -> Result<Undone, StepError> {
    let path = &captured.path;
    let _turn = turn::take(cx, path).await;
    for _ in 0..TRIES {
        let _alone = cx.target.alone_in_folder(path).await;
        let now = before::look(cx, path).await?;
        let Now::File { sha256, .. } = &now else { return put::undo_in_turn(cx, captured, left).await };
        if cx.force || put::is_plain_undo(cx, captured, left, &now) {
            return put::undo_in_turn(cx, captured, left).await;
        }
        let Some(merged) = merged(cx, editing, captured, left.is_none(), &take_out).await? else {
            return Err(before::drift(cx, path, "others changed it in the same place after this step"));
        };
        if sha256_hex(merged.as_bytes()) == *sha256 {
            let tidied = put::tidy(cx, captured).await?;
            let note = format!("{path} holds nothing of this step any more; what others changed stays");
            return Ok(Undone { changed: tidied, note: Some(note) });
        }
        told::tell_undo(cx).await?;
        if before::look(cx, path).await? != now {
            continue;
        }
        if merged.is_empty() && captured.before.is_none() {
            cx.target.remove_file(path).await?;
        } else {
            cx.target.write(path, merged.as_bytes(), &FileAttributes::default()).await?;
        }
        put::tidy(cx, captured).await?;
        let note = format!("took this step's change out of {path}; what others changed in it stays");
        return Ok(Undone { changed: true, note: Some(note) });
    }
    Err(restless(path))
}

/// What stands there now, without the change of this step, which an action that did not finish may not have made.
async fn merged(
    cx: &Cx<'_>,
    editing: &Editing<'_>,
    captured: &Capture,
    unfinished: bool,
    take_out: &(impl Fn(&str, &str, &str, bool) -> Option<String> + Send + Sync),
) -> Result<Option<String>, StepError> {
    let Some(now) = text::read(cx, &captured.path).await? else { return Ok(None) };
    let back = match &captured.before {
        None => None,
        Some(before) => {
            let Some(Ok(text)) = before.content.bytes()?.map(String::from_utf8) else { return Ok(None) };
            Some(text)
        }
    };
    let Ok(left) = (editing.edit)(back.as_deref()) else { return Ok(None) };
    Ok(take_out(&left, back.as_deref().unwrap_or_default(), &now, unfinished || told::told_undo(cx)))
}
