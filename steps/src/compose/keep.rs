//! What the containers of a project are configured with, kept on the target while they may be replaced. It holds their
//! environment, passwords included: so it is a file that only its owner can read, beside the project's own files, and
//! never in the journal.

use runback_core::Json;
use runback_core::step::{Cx, StepError};
use runback_core::target::FileAttributes;
use serde_json::json;

use super::cli::Compose;
use super::project::{Before, Now};
use crate::docker::container::Container;
use crate::file::paths;

/// In bytes.
const LIMIT: u64 = 64 << 20;

pub(super) fn path(compose: &Compose, cx: &Cx<'_>) -> String {
    let dir = compose.folder(cx);
    paths::beside(cx, &format!("{}/compose", dir.trim_end_matches('/')), "bak")
}

/// Writes it, unless an earlier attempt did: from then on only that one knows the containers of before.
pub(super) async fn save(compose: &Compose, cx: &Cx<'_>, before: &Before, now: &Now) -> Result<(), StepError> {
    let path = path(compose, cx);
    if before.containers.is_empty() && before.networks.is_empty() {
        return Ok(());
    }
    if cx.attempt > 1 {
        cx.target.clear_leftovers(&path).await?;
    }
    if cx.target.stat(&path).await?.is_some() {
        return Ok(());
    }
    if let Some(gone) = before.containers.iter().find(|b| !now.containers.iter().any(|c| c.id == b.id)) {
        return Err(StepError::conflict(format!(
            "{}: container {} went away since the step began",
            compose.what(cx),
            gone.name
        ))
        .help("start a new run: what was there could not be brought back"));
    }
    let containers: Vec<&Json> = now.containers.iter().map(|c| &c.raw).collect();
    let text = json!({ "containers": containers, "networks": now.networks }).to_string();
    let mode = FileAttributes { mode: Some(0o600), ..FileAttributes::default() };
    Ok(cx.target.write(&path, text.as_bytes(), &mode).await?)
}

/// What was kept; nothing where nothing was.
pub(super) async fn load(compose: &Compose, cx: &Cx<'_>) -> Result<(Vec<Container>, Vec<Json>), StepError> {
    let path = path(compose, cx);
    if cx.target.stat(&path).await?.is_none() {
        return Ok((Vec::new(), Vec::new()));
    }
    let bytes = cx.target.read(&path, LIMIT).await?;
    let mut kept: Json =
        serde_json::from_slice(&bytes).map_err(|e| StepError::permanent(format!("{path} cannot be read: {e}")))?;
    let mut take = |key: &str| match kept[key].take() {
        Json::Array(list) => list,
        _ => Vec::new(),
    };
    Ok((take("containers").into_iter().map(Container::of).collect(), take("networks")))
}

/// Removes it. True = it was there.
pub(super) async fn drop(compose: &Compose, cx: &Cx<'_>) -> Result<bool, StepError> {
    let path = path(compose, cx);
    cx.target.clear_leftovers(&path).await?;
    let there = cx.target.stat(&path).await?.is_some();
    cx.target.remove_file(&path).await?;
    Ok(there)
}
