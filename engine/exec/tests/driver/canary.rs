//! A step that says a secret wherever it can: no notice, no event and no word of the journal has it.

use std::sync::Arc;

use runback_core::Json;
use runback_core::step::Answer;
use runback_exec::driver::{DriveOptions, Surroundings};
use runback_exec::mask::Masker;
use runback_exec::store::{MemoryStore, Request, Store};
use secrecy::SecretString;

use super::world::{Driving, Ledger, START, around, create_in, journal, plan};

const CANARY: &str = "canary-7f3a/91";

#[tokio::test(start_paused = true)]
async fn no_notice_and_no_event_has_the_secret() {
    let ledger = Ledger::default();
    let words = format!("phase logs in with {CANARY}, say {CANARY}, note {CANARY}, ask may {CANARY} be used, panic");
    let plan = plan(&format!("steps: [{{ id: a, uses: t.rerun, with: {{ do: [{words} {CANARY}] }} }}]"), &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let masker = Masker::new([("token".to_owned(), SecretString::from(CANARY))]);
    let around = Surroundings { masker, ..around(START) };
    let run =
        Driving::start(create_in(Arc::clone(&store), &plan, "r1", around).await.unwrap(), DriveOptions::default());
    let seen = run.seen.clone();
    seen.wait_for("approval_requested").await;
    for step in ["a", CANARY] {
        let reason = Some(format!("{CANARY} is fine"));
        let answer =
            Answer { approved: true, by: "them".to_owned(), roles: Vec::new(), reason, fields: Json::from(CANARY) };
        store.post("r1", Request::Answer { step: step.to_owned(), answer }).await.unwrap();
    }
    run.end().await.unwrap();
    let told = serde_json::to_string(&journal(&*store, "r1").await).unwrap();
    assert!(told.contains("***") && told.contains("approval_given"), "{told}");
    assert!(!told.contains(CANARY), "{told}");
    assert!(seen.has("progress a") && seen.has("warning"), "{:#?}", seen.all());
    assert!(!seen.has(CANARY), "{:#?}", seen.all());
}
