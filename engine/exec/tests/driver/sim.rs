//! Two runs on one store, from a seed: random steps that wait, fail, panic, ask, write and hear no stop; locks between
//! them; people who cancel, hold and take back; processes that die. Whatever happens: it ends, the journals are legal,
//! nothing was done unrecorded or twice, no two had one lock, and nothing is left behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use runback_core::Json;
use runback_core::event::{Event, Resolution};
use runback_core::plan::Plan;
use runback_core::state::Phase;
use runback_core::step::Answer;
use runback_exec::driver::{Control, DriveOptions, Driver, DriverError, Intent};
use runback_exec::store::{MemoryStore, Request, Store};
use tokio::time::Instant;

use super::world::{Driving, Ledger, create, journal, names, open, plan};

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

const LOCKS: [&str; 3] = ["", ", locks: [l0]", ", locks: [l0, l1]"];

/// A playbook whose steps are called after their run.
fn playbook(dice: &mut Dice, run: &str) -> String {
    let mut text = format!("max_parallel: {}\n", 1 + dice.roll(3));
    let policy = ["rollback", "hold", "continue"][dice.roll(3) as usize];
    let _ = writeln!(text, "on_failure: {policy}");
    if dice.roll(4) == 0 {
        text.push_str("locks: [l1]\n");
    }
    text.push_str("steps:\n");
    for step in 0..=dice.roll(5) {
        let word = match dice.roll(14) {
            0 => "fail".to_owned(),
            1 => "panic".to_owned(),
            2 => format!("deaf {}", dice.roll(30_000)),
            3 => "ask may it".to_owned(),
            4 => "flaky 1".to_owned(),
            5 => "note something".to_owned(),
            6 => "say something".to_owned(),
            7 => "sleep 100000".to_owned(),
            _ => format!("sleep {}", dice.roll(3_000)),
        };
        let uses = ["t.probe", "t.rerun", "t.ask"][dice.roll(3) as usize];
        let needs = if dice.roll(2) == 0 { ", needs: []" } else { "" };
        let locks = LOCKS[dice.roll(3) as usize];
        let each = if dice.roll(5) == 0 { ", for_each: { items: [x, y], max_parallel: 1 }" } else { "" };
        let may = if dice.roll(5) == 0 { ", continue_on_error: true" } else { "" };
        let undo = ["", "sleep 50", "flaky 1"][dice.roll(3) as usize];
        let capture = ["", "sleep 200"][dice.roll(2) as usize];
        let _ = writeln!(
            text,
            "  - {{ id: {run}{step}, uses: {uses}{needs}{locks}{each}{may}, timeout: 20s, idle_timeout: 15s, kill_grace: 1s, \
             retry: {{ max_attempts: 2, initial_interval: 1s }}, with: {{ do: [{word}], undo: [{undo}], capture: [{capture}] }} }}"
        );
    }
    text
}

fn answer() -> Answer {
    Answer { approved: true, by: "you@there".to_owned(), roles: Vec::new(), reason: None, fields: Json::Null }
}

/// One process drives the run until it ends, is left or dies. True = nothing more is to come.
async fn one_life(store: &Arc<dyn Store>, plan: &Arc<Plan>, run: &str, dice: &mut Dice, calm: bool) -> bool {
    let options = DriveOptions { wait: true, wait_for_locks: true };
    let exists = store.run(run).await.is_ok();
    let driver = if exists {
        match open(Arc::clone(store), plan, run, Intent::Resume).await {
            Ok(mut driver) => {
                for node in driver.state().doubts().collect::<Vec<_>>() {
                    let step = driver.state().path(node).to_string();
                    let said = [Resolution::Done, Resolution::Redo, Resolution::Fail][dice.roll(3) as usize];
                    driver.resolve(&step, said, Json::Null).unwrap();
                }
                driver
            }
            Err(DriverError::Refused { .. }) => return true,
            Err(other) => panic!("{run}: {other}"),
        }
    } else {
        create(Arc::clone(store), plan, run).await.unwrap()
    };
    let driving = Driving::start(driver, options);
    let until = Instant::now() + Duration::from_millis(if calm { 3_600_000 } else { dice.roll(40_000) });
    while !driving.is_over() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let state = Driver::fold(&**store, run, Arc::clone(plan)).await.unwrap();
        for node in state.questions() {
            let step = state.path(node).to_string();
            store.post(run, Request::Answer { step, answer: answer() }).await.unwrap();
        }
    }
    if driving.is_over() {
        let ended = driving.end().await;
        let ended = ended.unwrap_or_else(|e| panic!("{run}: {e}"));
        return !ended.left && dice.roll(3) > 0;
    }
    assert!(!calm, "{run} does not end: {:#?}", names(&journal(&**store, run).await));
    let by = "them@there".to_owned();
    match dice.roll(6) {
        0 => {
            driving.kill().await;
            return false;
        }
        1 => driving.tell(Control::Leave),
        2 => driving.tell(Control::Cancel),
        3 => drop(store.post(run, Request::Hold { by }).await.unwrap()),
        4 => drop(store.post(run, Request::Rollback { by, force: false }).await.unwrap()),
        _ => {
            driving.tell(Control::Cancel);
            driving.tell(Control::Cancel);
        }
    }
    let asked = Instant::now();
    driving.end_or_answer(store, plan, run).await;
    assert!(asked.elapsed() < Duration::from_secs(7_200), "{run} does not end");
    false
}

/// Steps with a lock in common never act at once, whichever run they are of.
fn exclusive(ledger: &[String], plans: &[Arc<Plan>]) {
    let mut locks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for plan in plans {
        for (_, step) in plan.iter().filter(|(_, s)| !s.locks.is_empty()) {
            let id = step.id.split('[').next().unwrap_or(&step.id);
            locks.insert(id, step.locks.iter().map(runback_core::template::Template::text).collect());
        }
    }
    let mut acting: Vec<&str> = Vec::new();
    for line in ledger {
        let (what, step) = line.split_once(' ').unwrap();
        match what {
            "act" => {
                let bare = step.split('[').next().unwrap_or(step);
                let own = locks.get(bare).cloned().unwrap_or_default();
                for other in &acting {
                    let theirs = locks.get(other.split('[').next().unwrap_or(other)).cloned().unwrap_or_default();
                    assert!(!own.iter().any(|l| theirs.contains(l)), "{step} and {other} act at once: {ledger:#?}");
                }
                acting.push(step);
            }
            "left" => acting.retain(|s| *s != step),
            _ => {}
        }
    }
    assert!(acting.is_empty(), "still acting: {acting:?}");
}

fn judge(journal: &[Event], ledger: &[String]) {
    let mut started: BTreeMap<String, usize> = BTreeMap::new();
    for event in journal.iter().filter(|e| matches!(e.body.type_name(), "attempt_started")) {
        *started.entry(event.body.step().unwrap().to_string()).or_default() += 1;
    }
    for (step, started) in started {
        let acts = ledger.iter().filter(|l| **l == format!("act {step}")).count();
        assert!(acts <= started, "{step} acted {acts} times, recorded {started}");
    }
}

async fn simulate(seed: u64, texts: &[String; 2]) {
    let ledger = Ledger::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let plans = texts.each_ref().map(|text| plan(text, &ledger));
    let lives = plans.iter().zip(["a", "b"]).map(|(plan, run)| {
        let (store, plan) = (Arc::clone(&store), Arc::clone(plan));
        let mut dice = Dice(seed ^ u64::from(run.as_bytes()[0]));
        tokio::spawn(async move {
            for life in 0..8 {
                if one_life(&store, &plan, run, &mut dice, life > 4).await {
                    break;
                }
            }
        })
    });
    for life in lives.collect::<Vec<_>>() {
        life.await.unwrap();
    }
    let ledger = ledger.lock().unwrap().clone();
    for (plan, run) in plans.iter().zip(["a", "b"]) {
        let told = journal(&*store, run).await;
        let state = Driver::fold(&*store, run, Arc::clone(plan)).await.unwrap();
        let over = matches!(state.phase, Phase::Finished(_) | Phase::Held(_));
        assert!(over, "{run} is {:?}: {:#?}", state.phase, names(&told));
        assert!(told.windows(2).all(|w| w[0].at <= w[1].at));
        judge(&told, &ledger);
        assert!(store.owner(run).await.unwrap().is_none(), "{run} has an owner");
        assert_eq!(store.lock_waits(run).await.unwrap(), []);
    }
    exclusive(&ledger, &plans);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "a task is left");
}

/// `RUNBACK_SEED=n` runs one again.
#[test]
fn random_runs_end_as_they_must() {
    let one = std::env::var("RUNBACK_SEED").ok().and_then(|s| s.parse().ok());
    for seed in one.map_or(0..120_u64, |seed: u64| seed..seed + 1) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let mut dice = Dice(seed);
        let texts = ["a", "b"].map(|run| playbook(&mut dice, run));
        let simulated = catch_unwind(AssertUnwindSafe(|| runtime.block_on(simulate(seed, &texts))));
        assert!(simulated.is_ok(), "RUNBACK_SEED={seed}\n{}\n{}", texts[0], texts[1]);
    }
}
