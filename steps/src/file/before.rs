//! What stood at a path before a step touched it, in a form that undo can bring back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runback_core::step::{Cx, StepError};
use runback_core::target::{FileAttributes, FileKind, FileStat};
use serde::{Deserialize, Serialize};

use super::attributes;

/// A file up to this size is kept in the journal, in bytes; a larger one beside itself.
pub(crate) const KEEP_INLINE: u64 = 4 << 20;

/// A regular file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileBefore {
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) content: Content,
}

impl FileBefore {
    pub(crate) fn attributes(&self) -> FileAttributes {
        FileAttributes { mode: Some(self.mode), uid: Some(self.uid), gid: Some(self.gid) }
    }
}

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    Text(String),
    Base64(String),
    /// Too large for the journal: a path on the target that the action brings it to.
    Aside(String),
}

impl Content {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(e) => Self::Base64(STANDARD.encode(e.as_bytes())),
        }
    }

    /// None = it lies aside.
    pub(crate) fn bytes(&self) -> Result<Option<Vec<u8>>, StepError> {
        match self {
            Self::Text(text) => Ok(Some(text.clone().into_bytes())),
            Self::Base64(text) => {
                let bytes = STANDARD.decode(text);
                bytes.map(Some).map_err(|e| StepError::permanent(format!("the captured content is broken: {e}")))
            }
            Self::Aside(_) => Ok(None),
        }
    }

    pub(crate) fn aside(&self) -> Option<&str> {
        match self {
            Self::Aside(path) => Some(path),
            _ => None,
        }
    }
}

/// Reads a regular file for the journal; a large one is only hashed, and will lie at `aside`.
pub(crate) async fn read(cx: &Cx<'_>, path: &str, stat: &FileStat, aside: String) -> Result<FileBefore, StepError> {
    read_up_to(cx, path, stat, aside, KEEP_INLINE).await
}

/// Like [`read`], with another bound than [`KEEP_INLINE`].
pub(crate) async fn read_up_to(
    cx: &Cx<'_>,
    path: &str,
    stat: &FileStat,
    aside: String,
    inline: u64,
) -> Result<FileBefore, StepError> {
    let (sha256, size, content) = if stat.size > inline {
        (cx.target.sha256(path).await?, stat.size, Content::Aside(aside))
    } else {
        let bytes = cx.target.read(path, KEEP_INLINE).await?;
        (super::sha256_hex(&bytes), bytes.len() as u64, Content::of(bytes))
    };
    Ok(FileBefore { sha256, size, mode: stat.mode, uid: stat.uid, gid: stat.gid, content })
}

/// What stands at a path now: its stat, and the hash where it is a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Now {
    Absent,
    File { sha256: String, attributes: FileAttributes },
    Other(FileStat),
}

pub(crate) async fn look(cx: &Cx<'_>, path: &str) -> Result<Now, StepError> {
    Ok(match cx.target.stat(path).await? {
        None => Now::Absent,
        Some(stat) if stat.kind == FileKind::File => {
            Now::File { sha256: cx.target.sha256(path).await?, attributes: attributes::of(&stat) }
        }
        Some(stat) => Now::Other(stat),
    })
}

impl Now {
    /// As it was captured; None = nothing was there.
    pub(crate) fn of(before: Option<&FileBefore>) -> Self {
        before.map_or(Self::Absent, |b| Self::File { sha256: b.sha256.clone(), attributes: b.attributes() })
    }

    /// Of a regular file's content.
    pub(crate) fn sha256(&self) -> Option<&str> {
        match self {
            Self::File { sha256, .. } => Some(sha256),
            Self::Absent | Self::Other(_) => None,
        }
    }

    /// It is the captured file, to the last bit.
    pub(crate) fn is(&self, before: &FileBefore) -> bool {
        *self == Self::of(Some(before))
    }
}

/// Copies a file that is too large for the journal beside itself, before it is replaced. `now` is what stands there.
pub(crate) async fn copy_aside(cx: &Cx<'_>, path: &str, before: &FileBefore, now: &Now) -> Result<(), StepError> {
    let Some(aside) = before.content.aside() else { return Ok(()) };
    if matches!(look(cx, aside).await?, Now::File { sha256, .. } if sha256 == before.sha256) {
        return Ok(());
    }
    if !now.is(before) {
        return Err(changed_since(cx, path));
    }
    Ok(cx.target.copy(path, aside).await?)
}

/// The error of an action that found neither what was captured nor what it wrote itself.
pub(crate) fn changed_since(cx: &Cx<'_>, path: &str) -> StepError {
    StepError::conflict(format!("{path} was changed by someone else since the step began; nothing was changed now"))
        .help(format!(
            "look at it; `runback rollback {}` ends this run, and leaves what this step has not written as it is; then \
             start a new run",
            cx.run
        ))
}

/// Brings a captured file back to its path. What stands there now is replaced.
pub(crate) async fn restore(cx: &Cx<'_>, path: &str, before: &FileBefore) -> Result<(), StepError> {
    let attributes = before.attributes();
    if let Some(bytes) = before.content.bytes()? {
        return Ok(cx.target.write(path, &bytes, &attributes).await?);
    }
    let Some(aside) = before.content.aside() else { return Ok(()) };
    match look(cx, aside).await? {
        Now::File { sha256, .. } if sha256 == before.sha256 => {}
        Now::Absent => {
            return Err(StepError::conflict(format!("{path}: what was there lay at {aside}, and is gone"))
                .help("restore it from a backup of your own"));
        }
        _ => {
            return Err(StepError::conflict(format!("{path}: what was there lay at {aside}, and was changed"))
                .help(format!("its sha256 was {}", before.sha256)));
        }
    }
    cx.target.rename(aside, path).await?;
    Ok(cx.target.set_attributes(path, &attributes).await?)
}

/// "a directory", "a symbolic link to x": for messages.
pub(crate) fn kind(stat: &FileStat) -> String {
    match (stat.kind, &stat.link) {
        (FileKind::File, _) => "a file".to_owned(),
        (FileKind::Dir, _) => "a directory".to_owned(),
        (FileKind::Symlink, Some(to)) => format!("a symbolic link to {to}"),
        (FileKind::Symlink, None) => "a symbolic link".to_owned(),
        (FileKind::Other, _) => "neither a file nor a directory".to_owned(),
    }
}

/// The error of an undo that found something else than the step left.
pub(crate) fn drift(cx: &Cx<'_>, path: &str, what: &str) -> StepError {
    StepError::conflict(format!("{path}: {what}"))
        .help(format!("look at it; `runback rollback {} --force` brings back what was there before this step", cx.run))
}
