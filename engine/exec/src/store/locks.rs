//! Who gets a named lock: all names or none, first come first served, over the table of holds and waits.
//! Pure; knows no store, and takes every run in the table for alive.
//!
//! A run keeps what it has until it ends, so every one of its waits must be over before it gives anything back:
//! a cycle of runs that wait for each other's holds never ends. A wait behind an earlier waiter is softer: it is
//! overtaken where that waiter cannot go on before us anyhow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::LockWait;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldName {
    pub(super) name: String,
    pub(super) run: String,
    pub(super) step: Option<String>,
    pub(super) since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) ticket: u64,
    pub(super) run: String,
    pub(super) step: Option<String>,
    /// Sorted.
    pub(super) names: Vec<String>,
    pub(super) since: u64,
}

/// `waits` in the order of their tickets.
#[derive(Debug, Clone, Default)]
pub(super) struct LockTable {
    pub(super) holds: Vec<HeldName>,
    pub(super) waits: Vec<Wait>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InTheWay {
    pub(super) name: String,
    pub(super) run: String,
    pub(super) step: Option<String>,
    pub(super) since: u64,
    pub(super) queued: bool,
    pub(super) position: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// These are new for the run; the others it had.
    Take(Vec<String>),
    Wait(InTheWay),
    Deadlock(Vec<LockWait>),
}

/// run → the runs that it waits for, with the wait that says so.
type Graph<'t> = BTreeMap<&'t str, BTreeMap<&'t str, LockWait>>;

impl LockTable {
    pub(super) fn runs(&self) -> BTreeSet<String> {
        let holders = self.holds.iter().map(|hold| hold.run.clone());
        holders.chain(self.waits.iter().map(|wait| wait.run.clone())).collect()
    }

    pub(super) fn ticket(&self, run: &str, step: Option<&str>) -> Option<&Wait> {
        self.waits.iter().find(|wait| wait.run == run && wait.step.as_deref() == step)
    }

    /// Who is in the way of each wait of a run.
    pub(super) fn waits_of(&self, run: &str) -> Vec<(Option<String>, InTheWay)> {
        let own = self.waits.iter().filter(|wait| wait.run == run);
        let blocked = own.filter_map(|wait| match self.decide(run, wait.step.as_deref(), &wait.names) {
            Decision::Wait(blocker) => Some((wait.step.clone(), blocker)),
            Decision::Take(_) | Decision::Deadlock(_) => None,
        });
        blocked.collect()
    }

    /// `names` sorted and without repetition. Its own earlier wait, if there is one, has these names.
    pub(super) fn decide(&self, run: &str, step: Option<&str>, names: &[String]) -> Decision {
        let ticket = self.ticket(run, step).map_or(u64::MAX, |wait| wait.ticket);
        let holders: Vec<&HeldName> =
            self.holds.iter().filter(|hold| hold.run != run && names.contains(&hold.name)).collect();
        let earlier: Vec<(&Wait, &String)> = self
            .waits
            .iter()
            .filter(|wait| wait.ticket < ticket && wait.run != run)
            .filter_map(|wait| Some((wait, wait.names.iter().find(|name| names.contains(name))?)))
            .collect();

        let (hard, all) = self.graphs();
        for hold in &holders {
            if let Some(mut rest) = path(&hard, &hold.run, run) {
                rest.insert(0, edge(run, step, &hold.name, &hold.run));
                return Decision::Deadlock(rest);
            }
        }
        let position = earlier.len() + 1;
        if let Some(hold) = holders.first() {
            return Decision::Wait(InTheWay {
                name: hold.name.clone(),
                run: hold.run.clone(),
                step: hold.step.clone(),
                since: hold.since,
                queued: false,
                position,
            });
        }
        if let Some((wait, name)) = earlier.iter().find(|(wait, _)| path(&all, &wait.run, run).is_none()) {
            return Decision::Wait(InTheWay {
                name: (*name).clone(),
                run: wait.run.clone(),
                step: wait.step.clone(),
                since: wait.since,
                queued: true,
                position,
            });
        }
        let had = |name: &&String| self.holds.iter().any(|hold| &hold.name == *name && hold.run == run);
        Decision::Take(names.iter().filter(|name| !had(name)).cloned().collect())
    }

    /// Waits for holders, and those with waits for earlier waiters besides.
    fn graphs(&self) -> (Graph<'_>, Graph<'_>) {
        let mut hard = Graph::new();
        let mut all = Graph::new();
        for (index, wait) in self.waits.iter().enumerate() {
            for hold in self.holds.iter().filter(|hold| hold.run != wait.run && wait.names.contains(&hold.name)) {
                for graph in [&mut hard, &mut all] {
                    let found = edge(&wait.run, wait.step.as_deref(), &hold.name, &hold.run);
                    graph.entry(&wait.run).or_default().entry(&hold.run).or_insert(found);
                }
            }
            for before in self.waits[..index].iter().filter(|before| before.run != wait.run) {
                if let Some(name) = before.names.iter().find(|name| wait.names.contains(name)) {
                    let found = edge(&wait.run, wait.step.as_deref(), name, &before.run);
                    all.entry(&wait.run).or_default().entry(&before.run).or_insert(found);
                }
            }
        }
        (hard, all)
    }
}

fn edge(run: &str, step: Option<&str>, name: &str, holder: &str) -> LockWait {
    LockWait { run: run.to_owned(), step: step.map(str::to_owned), name: name.to_owned(), holder: holder.to_owned() }
}

/// The shortest chain of waits from one run to another; breadth first.
fn path(graph: &Graph<'_>, from: &str, to: &str) -> Option<Vec<LockWait>> {
    let mut reached_by: BTreeMap<&str, &LockWait> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(run) = queue.pop_front() {
        for (next, wait) in graph.get(run).into_iter().flatten() {
            if *next == from || reached_by.contains_key(next) {
                continue;
            }
            reached_by.insert(next, wait);
            if *next == to {
                let mut chain = vec![(*wait).clone()];
                let mut at = wait.run.as_str();
                while at != from {
                    let wait = reached_by.get(at)?;
                    chain.push((*wait).clone());
                    at = wait.run.as_str();
                }
                chain.reverse();
                return Some(chain);
            }
            queue.push_back(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Bench {
        table: LockTable,
        tickets: u64,
    }

    impl Bench {
        fn ask(&mut self, run: &str, step: &str, names: &[&str]) -> Decision {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let step = Some(step).filter(|step| !step.is_empty());
            let decision = self.table.decide(run, step, &names);
            match &decision {
                Decision::Take(new) => {
                    self.table.waits.retain(|wait| !(wait.run == run && wait.step.as_deref() == step));
                    self.table.holds.extend(new.iter().map(|name| HeldName {
                        name: name.clone(),
                        run: run.to_owned(),
                        step: step.map(str::to_owned),
                        since: 0,
                    }));
                }
                Decision::Wait(_) if self.table.ticket(run, step).is_none() => {
                    self.tickets += 1;
                    self.table.waits.push(Wait {
                        ticket: self.tickets,
                        run: run.to_owned(),
                        step: step.map(str::to_owned),
                        names,
                        since: 0,
                    });
                }
                Decision::Wait(_) => {}
                Decision::Deadlock(_) => {
                    self.table.waits.retain(|wait| !(wait.run == run && wait.step.as_deref() == step));
                }
            }
            decision
        }

        fn end(&mut self, run: &str) {
            self.table.holds.retain(|hold| hold.run != run);
            self.table.waits.retain(|wait| wait.run != run);
        }
    }

    fn taken(decision: &Decision) -> bool {
        matches!(decision, Decision::Take(_))
    }

    fn position(decision: &Decision) -> usize {
        match decision {
            Decision::Wait(blocker) => blocker.position,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_at_once_and_first_come_first_served() {
        let mut bench = Bench::default();
        assert!(taken(&bench.ask("a", "", &["x"])));
        assert_eq!(position(&bench.ask("b", "", &["x", "y"])), 1);
        // y is free, but b came first and wants it.
        match bench.ask("c", "", &["y"]) {
            Decision::Wait(blocker) => {
                assert_eq!((blocker.run.as_str(), blocker.queued, blocker.position), ("b", true, 2));
            }
            other => panic!("{other:?}"),
        }
        assert!(taken(&bench.ask("d", "", &["z"])), "what nobody waits for is free");
        bench.end("a");
        assert!(!taken(&bench.ask("c", "", &["y"])));
        assert!(taken(&bench.ask("b", "", &["x", "y"])));
        bench.end("b");
        assert!(taken(&bench.ask("c", "", &["y"])));
    }

    #[test]
    fn a_run_gets_what_it_has() {
        let mut bench = Bench::default();
        assert!(taken(&bench.ask("a", "", &["x"])));
        assert_eq!(bench.ask("a", "one", &["x", "y"]), Decision::Take(vec!["y".into()]));
        assert_eq!(bench.ask("a", "two", &["y"]), Decision::Take(vec![]));
    }

    #[test]
    fn a_cycle_is_named_whole() {
        let mut bench = Bench::default();
        assert!(taken(&bench.ask("a", "1", &["x"])));
        assert!(taken(&bench.ask("b", "1", &["y"])));
        assert!(taken(&bench.ask("c", "1", &["z"])));
        assert!(!taken(&bench.ask("a", "2", &["y"])));
        assert!(!taken(&bench.ask("b", "2", &["z"])));
        match bench.ask("c", "2", &["x"]) {
            Decision::Deadlock(cycle) => {
                let said: Vec<String> = cycle.iter().map(ToString::to_string).collect();
                assert_eq!(
                    said,
                    ["c waits for `x`, held by a", "a waits for `y`, held by b", "b waits for `z`, held by c"]
                );
            }
            other => panic!("{other:?}"),
        }
        bench.end("c");
        assert!(taken(&bench.ask("b", "2", &["z"])));
    }

    /// b waits for a's x and wants y; a wants y too. If a stood behind b, neither would ever go on.
    #[test]
    fn a_waiter_that_waits_for_us_is_overtaken() {
        let mut bench = Bench::default();
        assert!(taken(&bench.ask("a", "1", &["x"])));
        assert!(!taken(&bench.ask("b", "1", &["x", "y"])));
        assert!(taken(&bench.ask("a", "2", &["y"])));
        bench.end("a");
        assert!(taken(&bench.ask("b", "1", &["x", "y"])));
    }

    proptest::proptest! {
        /// Whatever runs ask for: two never have one name, and everybody who was not told of a deadlock gets done.
        #[test]
        fn exclusive_and_alive(
            wants in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::btree_set(0..5_u8, 1..4), 1..4), 1..6),
            order in proptest::collection::vec(0..6_usize, 0..60),
        ) {
            let mut bench = Bench::default();
            let mut done = vec![false; wants.len()];
            let mut got: Vec<Vec<bool>> = wants.iter().map(|steps| vec![false; steps.len()]).collect();
            let everybody: Vec<usize> = (0..wants.len()).collect();
            // Every round all ask once more: each round somebody must get on, or all are done.
            let rounds: usize = wants.iter().map(Vec::len).sum::<usize>() + wants.len() + 1;
            let fair = std::iter::repeat_n(everybody, rounds).flatten();
            for who in order.into_iter().filter(|who| *who < wants.len()).chain(fair) {
                if done[who] {
                    continue;
                }
                let run = format!("r{who}");
                let mut lost = false;
                for (step, names) in wants[who].iter().enumerate() {
                    if got[who][step] {
                        continue;
                    }
                    let names: Vec<String> = names.iter().map(|name| format!("n{name}")).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    match bench.ask(&run, &format!("s{step}"), &names) {
                        Decision::Take(_) => got[who][step] = true,
                        Decision::Wait(_) => {}
                        Decision::Deadlock(cycle) => {
                            proptest::prop_assert!(cycle.len() >= 2);
                            lost = true;
                        }
                    }
                    let mut held: Vec<&String> = bench.table.holds.iter().map(|hold| &hold.name).collect();
                    held.sort();
                    let all = held.len();
                    held.dedup();
                    proptest::prop_assert_eq!(held.len(), all);
                }
                if lost || got[who].iter().all(|got| *got) {
                    done[who] = true;
                    bench.end(&run);
                }
            }
            proptest::prop_assert!(done.iter().all(|done| *done), "{:?}", bench.table);
        }
    }
}
