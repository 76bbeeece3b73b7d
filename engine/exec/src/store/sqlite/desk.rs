//! The server's tables: schedules, their instants, tokens. Every change is one job of the writer, so that two servers on
//! one store decide each instant once.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::journal::signed;
use super::writer::{Fault, Journal};
use super::{SqliteStore, read};
use crate::lease::now_ms;
use crate::store::desk::{FiringRow, Paused, ScheduleRow, TokenRow};
use crate::store::{RawRow, StoreError};

impl Journal {
    /// The instant becomes the run's, in the commit that makes the run. One that was passed over may be taken later.
    pub(super) fn take_instant(&mut self, schedule: &str, at: u64, run: &str, now: u64) -> Result<(), Fault> {
        let mut statement =
            self.connection.prepare_cached("SELECT decision, run FROM firings WHERE schedule = ?1 AND at = ?2")?;
        let found: Option<(String, Option<String>)> =
            statement.query_row(params![schedule, signed(at)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((decision, run @ Some(_))) = found {
            return Err(StoreError::Fired { schedule: schedule.to_owned(), decision, run }.into());
        }
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO firings (schedule, at, run, decision, decided_at)
                 VALUES (?1, ?2, ?3, 'started', ?4)",
            )?
            .execute(params![schedule, signed(at), run, signed(now)])?;
        Ok(())
    }
}

impl SqliteStore {
    /// All runs with the number of their last event, newest first.
    pub async fn run_seqs(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT run, (SELECT max(seq) FROM events WHERE events.run = runs.run) FROM runs ORDER BY no DESC",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or_default().cast_unsigned()))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Runs of which somebody asks that they stop (a cancellation, a hold, a rollback), and whose owner has not taken that
    /// up yet.
    pub async fn asked_to_stop(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT DISTINCT run FROM requests WHERE json_extract(body, '$.type') IN ('cancel', 'hold', 'rollback')",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Names that have a lock file: runs that somebody drives, and some whose owner died.
    pub async fn leased(&self) -> Result<Vec<String>, StoreError> {
        let leases = self.layout.leases.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let io = |error: &std::io::Error| StoreError::from_io(&leases, error);
            let entries = std::fs::read_dir(&leases).map_err(|e| io(&e))?;
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            Ok(names.filter_map(|name| Some(name.strip_suffix(".lock")?.to_owned())).collect())
        });
        listed.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Events as they are stored, for whoever checks or copies them. At most `limit` after `after`.
    pub async fn raw_rows(&self, run: &str, after: u64, limit: usize) -> Result<Vec<RawRow>, StoreError> {
        let run = run.to_owned();
        self.read(move |connection| read::raw_rows(connection, &run, after, limit)).await
    }

    /// The schedule's row; made with everything up to `now` decided where there is none.
    pub async fn meet_schedule(&self, schedule: &str, now: u64) -> Result<ScheduleRow, StoreError> {
        let schedule = schedule.to_owned();
        self.writer
            .write(None, move |journal| {
                journal
                    .connection
                    .prepare_cached("INSERT OR IGNORE INTO schedules (schedule, decided) VALUES (?1, ?2)")?
                    .execute(params![schedule, signed(now)])?;
                let row = schedule_row(&journal.connection, &schedule)?;
                Ok(row.unwrap_or(ScheduleRow { schedule: schedule.clone(), decided: now, paused: None }))
            })
            .await
    }

    /// What the store knows of all schedules, also of those whose playbooks are gone.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT schedule, decided, paused_by, paused_at, paused_why FROM schedules ORDER BY schedule",
            )?;
            let rows = statement.query_map([], to_schedule)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Moves the mark up to which all is decided. `back`: also to an earlier instant (the clock was set back).
    pub async fn decide_until(&self, schedule: &str, until: u64, back: bool) -> Result<(), StoreError> {
        let schedule = schedule.to_owned();
        self.writer
            .write(None, move |journal| {
                let sql = if back {
                    "UPDATE schedules SET decided = ?2 WHERE schedule = ?1"
                } else {
                    "UPDATE schedules SET decided = ?2 WHERE schedule = ?1 AND decided < ?2"
                };
                journal.connection.prepare_cached(sql)?.execute(params![schedule, signed(until)])?;
                Ok(())
            })
            .await
    }

    /// Passes over one instant, if nothing is decided about it. True when it was this call that decided.
    pub async fn pass_over(&self, schedule: &str, at: u64, decision: &str) -> Result<bool, StoreError> {
        let (schedule, decision, now) = (schedule.to_owned(), decision.to_owned(), now_ms());
        self.writer
            .write(None, move |journal| {
                let changed = journal
                    .connection
                    .prepare_cached(
                        "INSERT OR IGNORE INTO firings (schedule, at, run, decision, decided_at)
                         VALUES (?1, ?2, NULL, ?3, ?4)",
                    )?
                    .execute(params![schedule, signed(at), decision, signed(now)])?;
                Ok(changed > 0)
            })
            .await
    }

    /// Newest first; `schedule` None = of all.
    pub async fn firings(
        &self,
        schedule: Option<&str>,
        since: u64,
        limit: usize,
    ) -> Result<Vec<FiringRow>, StoreError> {
        let (schedule, limit) = (schedule.map(str::to_owned), i64::try_from(limit).unwrap_or(i64::MAX));
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT schedule, at, run, decision, decided_at FROM firings
                 WHERE (?1 IS NULL OR schedule = ?1) AND at >= ?2 ORDER BY at DESC LIMIT ?3",
            )?;
            let rows = statement.query_map(params![schedule, signed(since), limit], to_firing)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Runs that the schedule's instants have got, those of the newest instants first.
    pub async fn fired_runs(&self, schedule: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let (schedule, limit) = (schedule.to_owned(), i64::try_from(limit).unwrap_or(i64::MAX));
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT run FROM firings WHERE schedule = ?1 AND run IS NOT NULL ORDER BY at DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![schedule, limit], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// What was decided about one instant.
    pub async fn firing(&self, schedule: &str, at: u64) -> Result<Option<FiringRow>, StoreError> {
        let schedule = schedule.to_owned();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT schedule, at, run, decision, decided_at FROM firings WHERE schedule = ?1 AND at = ?2",
            )?;
            Ok(statement.query_row(params![schedule, signed(at)], to_firing).optional()?)
        })
        .await
    }

    /// Forgets decisions about instants before `before`. Returns how many.
    pub async fn forget_firings(&self, before: u64) -> Result<usize, StoreError> {
        self.writer
            .write(None, move |journal| {
                Ok(journal.connection.prepare_cached("DELETE FROM firings WHERE at < ?1")?.execute([signed(before)])?)
            })
            .await
    }

    /// None resumes. False: no such schedule.
    pub async fn pause_schedule(&self, schedule: &str, paused: Option<Paused>) -> Result<bool, StoreError> {
        let schedule = schedule.to_owned();
        self.writer
            .write(None, move |journal| {
                let (by, at, why) = match &paused {
                    Some(p) => (Some(&p.by), Some(signed(p.at)), p.why.as_ref()),
                    None => (None, None, None),
                };
                let changed = journal
                    .connection
                    .prepare_cached(
                        "UPDATE schedules SET paused_by = ?2, paused_at = ?3, paused_why = ?4 WHERE schedule = ?1",
                    )?
                    .execute(params![schedule, by, at, why])?;
                Ok(changed > 0)
            })
            .await
    }

    pub async fn add_token(&self, token: TokenRow) -> Result<(), StoreError> {
        self.writer
            .write(None, move |journal| {
                journal
                    .connection
                    .prepare_cached(
                        "INSERT INTO tokens (id, name, roles, hash, created_at, created_by, expires_at)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        token.id,
                        token.name,
                        token.roles,
                        token.hash,
                        signed(token.created_at),
                        token.created_by,
                        token.expires_at.map(signed),
                    ])?;
                Ok(())
            })
            .await
    }

    /// All, the revoked ones too, oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, name, roles, hash, created_at, created_by, expires_at, revoked_at FROM tokens
                 ORDER BY created_at, id",
            )?;
            let rows = statement.query_map([], to_token)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, name, roles, hash, created_at, created_by, expires_at, revoked_at FROM tokens WHERE id = ?1",
            )?;
            Ok(statement.query_row([id], to_token).optional()?)
        })
        .await
    }

    /// False: there is no such token, or it is revoked already.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, StoreError> {
        let (id, now) = (id.to_owned(), now_ms());
        self.writer
            .write(None, move |journal| {
                let changed = journal
                    .connection
                    .prepare_cached("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")?
                    .execute(params![id, signed(now)])?;
                Ok(changed > 0)
            })
            .await
    }
}

fn to_schedule(row: &Row<'_>) -> rusqlite::Result<ScheduleRow> {
    let by: Option<String> = row.get(2)?;
    let at = row.get::<_, Option<i64>>(3)?.unwrap_or_default().cast_unsigned();
    let why = row.get(4)?;
    Ok(ScheduleRow {
        schedule: row.get(0)?,
        decided: row.get::<_, i64>(1)?.cast_unsigned(),
        paused: by.map(|by| Paused { by, at, why }),
    })
}

fn to_firing(row: &Row<'_>) -> rusqlite::Result<FiringRow> {
    Ok(FiringRow {
        schedule: row.get(0)?,
        at: row.get::<_, i64>(1)?.cast_unsigned(),
        run: row.get(2)?,
        decision: row.get(3)?,
        decided_at: row.get::<_, i64>(4)?.cast_unsigned(),
    })
}

fn to_token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        id: row.get(0)?,
        name: row.get(1)?,
        roles: row.get(2)?,
        hash: row.get(3)?,
        created_at: row.get::<_, i64>(4)?.cast_unsigned(),
        created_by: row.get(5)?,
        expires_at: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
        revoked_at: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
    })
}

fn schedule_row(connection: &Connection, schedule: &str) -> rusqlite::Result<Option<ScheduleRow>> {
    connection
        .prepare_cached(
            "SELECT schedule, decided, paused_by, paused_at, paused_why FROM schedules WHERE schedule = ?1",
        )?
        .query_row([schedule], to_schedule)
        .optional()
}
