//! Removes runs that are over, as `runback runs prune` does.

use runback_exec::store::retention::{self, Retention, WhyKept};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::serve::log;
use crate::serve::problem::Problem;
use crate::serve::route::{Call, Nothing, Ok200};
use crate::words;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PruneRuns {
    /// Those whose last event is older than so many milliseconds.
    #[serde(default)]
    older_than_ms: Option<u64>,
    /// All but so many of the newest.
    #[serde(default)]
    keep: Option<usize>,
    /// Only runs of this playbook.
    #[serde(default)]
    playbook: Option<String>,
    /// Also runs that failed and could be resumed, or are stuck.
    #[serde(default)]
    all: bool,
    /// Say what would go, and remove nothing.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PrunedRuns {
    removed: Vec<String>,
    /// Due, and kept because they are not over.
    kept: Vec<KeptRun>,
    dry_run: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct KeptRun {
    run: String,
    why: Why,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Why {
    Alive,
    Resumable,
    Stuck,
}

pub(crate) async fn prune(call: Call<Nothing, Nothing, PruneRuns>) -> Result<Ok200<PrunedRuns>, Problem> {
    let (app, body) = (call.app, call.body);
    if body.older_than_ms.is_none() && body.keep.is_none() {
        return Err(Problem::bad_request("nothing says which runs are to go").help("give older_than_ms, keep, or both"));
    }
    let rule = Retention {
        older_than: body.older_than_ms.map(|age| words::now_ms().saturating_sub(age)),
        keep_newest: body.keep,
        playbook: body.playbook,
        all: body.all,
        dry_run: body.dry_run,
    };
    let pruned = retention::prune(app.store.as_ref(), &rule).await?;
    if !rule.dry_run && !pruned.removed.is_empty() {
        log::info("runs removed", json!({ "removed": pruned.removed.len(), "by": call.who.by() }));
        app.index.nudge();
    }
    let kept = pruned.kept.into_iter().map(|k| KeptRun {
        run: k.run,
        why: match k.why {
            WhyKept::Alive => Why::Alive,
            WhyKept::Resumable => Why::Resumable,
            WhyKept::Stuck => Why::Stuck,
        },
    });
    Ok(Ok200(PrunedRuns {
        removed: pruned.removed.into_iter().map(|r| r.run).collect(),
        kept: kept.collect(),
        dry_run: rule.dry_run,
    }))
}
