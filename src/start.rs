//! Records a new run, from whoever starts it: the command line, the server. Knows nothing of how it is driven.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{Created, FORMAT, PlaybookText, RunOptions};
use runback_core::plan::Plan;
use runback_exec::driver::{Driver, DriverError, Engine, Surroundings};
use runback_exec::store::StoreError;

use crate::failure::Failure;
use crate::inputs::Inputs;
use crate::{run_id, words};

/// What a run is made from.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) plan: &'a Arc<Plan>,
    pub(crate) texts: &'a [PlaybookText],
    /// The folder of the playbook, absolute.
    pub(crate) base: &'a Path,
    pub(crate) inputs: &'a Inputs,
    pub(crate) options: RunOptions,
}

/// Who starts it is what `around` says. `id` = the id that was asked for; refused when there is one like it.
pub(crate) async fn create<F>(
    engine: &Arc<Engine>,
    new: &New<'_>,
    id: Option<&str>,
    from: &str,
    around: impl Fn() -> F,
) -> Result<Driver, Failure>
where
    F: Future<Output = Result<Surroundings, Failure>>,
{
    // Two made in the same minute may be alike; one that was asked for may not.
    let mut tries = if id.is_some() { 1 } else { 5 };
    loop {
        tries -= 1;
        let around = around().await?;
        let created = Created {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: id.map_or_else(|| run_id::new(words::now_ms()), str::to_owned),
            playbook: new.plan.name.clone(),
            texts: new.texts.to_vec(),
            base: new.base.to_string_lossy().into_owned(),
            digest: new.plan.digest().to_owned(),
            inputs: Json::Object(new.inputs.open.clone()),
            by: around.by.clone(),
            from: from.to_owned(),
            options: new.options.clone(),
        };
        match Driver::create(Arc::clone(engine), Arc::clone(new.plan), created, around).await {
            Err(DriverError::Store(StoreError::RunExists { .. })) if tries > 0 => {}
            other => return Ok(other?),
        }
    }
}
