//! The table of named locks: loaded, freed of the dead, decided and written within one transaction.

use std::path::Path;

use rusqlite::params;

use super::journal::signed;
use super::writer::{Fault, Journal};
use crate::lease::{Life, now_ms, probe};
use crate::store::locks::{Decision, HeldName, InTheWay, LockTable, Wait};
use crate::store::{Held, LockAttempt, LockWaiting, StoreError};

impl Journal {
    pub(super) fn try_lock(
        &mut self,
        held: &Held,
        step: Option<&str>,
        names: &[String],
        leases: &Path,
    ) -> Result<LockAttempt, Fault> {
        self.fence(held)?;
        let run = &*held.run;
        let mut table = self.load_locks()?;
        let dead = dead_runs(&table, run, leases)?;
        for gone in &dead {
            self.forget_locks(gone)?;
        }
        table.holds.retain(|hold| !dead.contains(&hold.run));
        table.waits.retain(|wait| !dead.contains(&wait.run));
        if table.ticket(run, step).is_some_and(|wait| wait.names != names) {
            self.remove_wait(run, step)?;
            table.waits.retain(|wait| !(wait.run == run && wait.step.as_deref() == step));
        }
        match table.decide(run, step, names) {
            Decision::Take(new) => {
                if table.ticket(run, step).is_some() {
                    self.remove_wait(run, step)?;
                }
                let since = signed(now_ms());
                for name in new {
                    self.connection
                        .prepare_cached("INSERT INTO holds (name, run, step, since) VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![name, run, step, since])?;
                }
                Ok(LockAttempt::Taken)
            }
            Decision::Wait(blocker) => {
                if table.ticket(run, step).is_none() {
                    let names = serde_json::Value::from(names.to_vec()).to_string();
                    self.connection
                        .prepare_cached("INSERT INTO waits (run, step, names, since) VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![run, step, names, signed(now_ms())])?;
                }
                Ok(LockAttempt::Waiting(LockWaiting::of(blocker, leases)))
            }
            Decision::Deadlock(cycle) => {
                self.remove_wait(run, step)?;
                Ok(LockAttempt::Deadlock { cycle })
            }
        }
    }

    pub(super) fn withdraw(&mut self, held: &Held, step: Option<&str>) -> Result<(), Fault> {
        self.fence(held)?;
        self.remove_wait(&held.run, step)
    }

    pub(super) fn has_locks(&self, held: &Held) -> Result<bool, Fault> {
        self.fence(held)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM holds WHERE run = ?1) OR EXISTS (SELECT 1 FROM waits WHERE run = ?1)",
        )?;
        Ok(statement.query_row([&*held.run], |row| row.get(0))?)
    }

    pub(super) fn release(&mut self, held: &Held) -> Result<(), Fault> {
        self.fence(held)?;
        self.forget_locks(&held.run)
    }

    /// What each wait of a run waits for, by the table as it is.
    pub(super) fn waits_of(&self, run: &str) -> Result<Vec<(Option<String>, InTheWay)>, Fault> {
        Ok(self.load_locks()?.waits_of(run))
    }

    fn forget_locks(&self, run: &str) -> Result<(), Fault> {
        self.connection.prepare_cached("DELETE FROM holds WHERE run = ?1")?.execute([run])?;
        self.connection.prepare_cached("DELETE FROM waits WHERE run = ?1")?.execute([run])?;
        Ok(())
    }

    fn remove_wait(&self, run: &str, step: Option<&str>) -> Result<(), Fault> {
        self.connection
            .prepare_cached("DELETE FROM waits WHERE run = ?1 AND step IS ?2")?
            .execute(params![run, step])?;
        Ok(())
    }

    fn load_locks(&self) -> Result<LockTable, Fault> {
        let mut statement = self.connection.prepare_cached("SELECT name, run, step, since FROM holds ORDER BY name")?;
        let holds = statement
            .query_map([], |row| {
                Ok(HeldName {
                    name: row.get(0)?,
                    run: row.get(1)?,
                    step: row.get(2)?,
                    since: row.get::<_, i64>(3)?.cast_unsigned(),
                })
            })?
            .collect::<Result<_, _>>()?;
        let mut statement =
            self.connection.prepare_cached("SELECT ticket, run, step, names, since FROM waits ORDER BY ticket")?;
        let mut rows = statement.query([])?;
        let mut waits = Vec::new();
        while let Some(row) = rows.next()? {
            let names: String = row.get(3)?;
            let names = serde_json::from_str(&names).map_err(|error| StoreError::Corrupt {
                path: self.path.clone(),
                why: format!("the names of a wait for locks: {error}"),
            })?;
            waits.push(Wait {
                ticket: row.get::<_, i64>(0)?.cast_unsigned(),
                run: row.get(1)?,
                step: row.get(2)?,
                names,
                since: row.get::<_, i64>(4)?.cast_unsigned(),
            });
        }
        Ok(LockTable { holds, waits })
    }
}

fn dead_runs(table: &LockTable, but: &str, leases: &Path) -> Result<Vec<String>, StoreError> {
    let mut dead = Vec::new();
    for run in table.runs() {
        if run != but && probe(leases, &run).map_err(|error| StoreError::from_io(leases, &error))? == Life::Dead {
            dead.push(run);
        }
    }
    Ok(dead)
}
