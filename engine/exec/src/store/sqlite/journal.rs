//! What the writer's thread does to the tables of runs, events and requests. Every refusal comes before the first
//! write of its job: the transaction is shared with other jobs.

use std::sync::atomic::Ordering;

use runback_core::event::{Event, EventBody};
use rusqlite::{OptionalExtension as _, params};

use super::writer::{Fault, Head, Journal};
use crate::store::chain::{GENESIS, Hash, link};
use crate::store::{Beginning, Held, Posted, Request, StoreError, check_order};

impl Journal {
    pub(super) fn epoch(&self, run: &str) -> Result<Option<u64>, Fault> {
        let mut statement = self.connection.prepare_cached("SELECT epoch FROM runs WHERE run = ?1")?;
        Ok(statement.query_row([run], |row| row.get::<_, i64>(0)).optional()?.map(i64::cast_unsigned))
    }

    /// Fences an owner whose lock was taken from it: files can be removed by hand, the epoch cannot.
    pub(super) fn fence(&self, held: &Held) -> Result<(), Fault> {
        if self.epoch(&held.run)? == Some(held.epoch) {
            return Ok(());
        }
        Err(StoreError::LeaseLost { run: held.run.to_string() }.into())
    }

    pub(super) fn create(&mut self, held: &Held, beginning: &Beginning, events: &[Event]) -> Result<(), Fault> {
        let Beginning { playbook, created_at, fired } = beginning;
        let rows = encode(held, events)?;
        if self.epoch(&held.run)?.is_some() {
            return Err(StoreError::RunExists { run: held.run.to_string() }.into());
        }
        if let Some((schedule, at)) = fired {
            self.take_instant(schedule, *at, &held.run, *created_at)?;
        }
        self.connection
            .prepare_cached("INSERT INTO runs (run, playbook, created_at, epoch) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![&*held.run, playbook, signed(*created_at), signed(held.epoch)])?;
        let head = Head { epoch: held.epoch, seq: 0, hash: GENESIS };
        self.insert(held, head, events, &rows)
    }

    pub(super) fn next_epoch(&mut self, run: &str) -> Result<u64, Fault> {
        let mut statement =
            self.connection.prepare_cached("UPDATE runs SET epoch = epoch + 1 WHERE run = ?1 RETURNING epoch")?;
        let epoch = statement.query_row([run], |row| row.get::<_, i64>(0)).optional()?;
        let epoch = epoch.ok_or_else(|| StoreError::unknown(run))?;
        self.connection.prepare_cached("DELETE FROM waits WHERE run = ?1")?.execute([run])?;
        Ok(epoch.cast_unsigned())
    }

    pub(super) fn append(&mut self, held: &Held, events: &[Event]) -> Result<(), Fault> {
        held.check()?;
        let rows = encode(held, events)?;
        self.fence(held)?;
        let head = match self.heads.get(&held.run) {
            Some(head) if head.epoch == held.epoch => head.clone(),
            _ => self.head(held)?,
        };
        check_order(&held.run, head.seq, events)?;
        self.insert(held, head, events, &rows)?;
        let seen = held.seen_request.load(Ordering::SeqCst);
        if seen > held.forgotten_request.load(Ordering::SeqCst) {
            self.connection
                .prepare_cached("DELETE FROM requests WHERE run = ?1 AND id <= ?2")?
                .execute(params![&*held.run, signed(seen)])?;
            // Too early if this commit fails; but then the lease is broken, and the next owner gets them again.
            held.forgotten_request.store(seen, Ordering::SeqCst);
        }
        Ok(())
    }

    fn head(&self, held: &Held) -> Result<Head, Fault> {
        let mut statement =
            self.connection.prepare_cached("SELECT seq, hash FROM events WHERE run = ?1 ORDER BY seq DESC LIMIT 1")?;
        let found = statement
            .query_row([&*held.run], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let bad = |seq, why: &str| StoreError::BadRow { run: held.run.to_string(), seq, why: why.to_owned() };
        let (seq, hash) = found.ok_or_else(|| bad(1, "it is missing"))?;
        let seq = seq.cast_unsigned();
        let hash: Hash = hash.try_into().map_err(|_| bad(seq, "its hash is cut"))?;
        Ok(Head { epoch: held.epoch, seq, hash })
    }

    fn insert(&mut self, held: &Held, mut head: Head, events: &[Event], rows: &[String]) -> Result<(), Fault> {
        {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO events (run, seq, at, type, body, about, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for (event, body) in events.iter().zip(rows) {
                let kind = event.body.type_name();
                head.hash = link(&head.hash, &held.run, event.seq, event.at, kind, body);
                head.seq = event.seq;
                let about = event.body.is_about_the_run();
                let (seq, at) = (signed(event.seq), signed(event.at));
                statement.execute(params![&*held.run, seq, at, kind, body, about, head.hash])?;
            }
        }
        let over = matches!(
            events.last().map(|event| &event.body),
            Some(EventBody::RunFinished { .. } | EventBody::RunHeld { .. })
        );
        if over {
            self.heads.remove(&held.run);
        } else {
            self.heads.insert(held.run.clone(), head);
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, run: &str) -> Result<(), Fault> {
        for table in ["events", "requests", "holds", "waits", "runs"] {
            self.connection.execute(&format!("DELETE FROM {table} WHERE run = ?1"), [run])?;
        }
        self.heads.remove(run);
        Ok(())
    }

    pub(super) fn post(&mut self, run: &str, at: u64, request: &Request) -> Result<u64, Fault> {
        let encoded =
            |error: serde_json::Error| StoreError::Encode { run: run.to_owned(), seq: 0, why: error.to_string() };
        let body = serde_json::to_string(request).map_err(encoded)?;
        if self.epoch(run)?.is_none() {
            return Err(StoreError::unknown(run).into());
        }
        self.connection
            .prepare_cached("INSERT INTO requests (run, at, body) VALUES (?1, ?2, ?3)")?
            .execute(params![run, signed(at), body])?;
        Ok(self.connection.last_insert_rowid().cast_unsigned())
    }

    pub(super) fn requests(&mut self, held: &Held) -> Result<Vec<Posted>, Fault> {
        self.fence(held)?;
        let seen = held.seen_request.load(Ordering::SeqCst);
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, at, body FROM requests WHERE run = ?1 AND id > ?2 ORDER BY id")?;
        let rows = statement.query_map(params![&*held.run, signed(seen)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut posted = Vec::new();
        for row in rows {
            let (id, at, body) = row?;
            let request = serde_json::from_str(&body).map_err(|error| StoreError::Corrupt {
                path: self.path.clone(),
                why: format!("request {id}: {error}"),
            })?;
            posted.push(Posted { id: id.cast_unsigned(), at: at.cast_unsigned(), request });
        }
        if let Some(last) = posted.last() {
            held.seen_request.store(last.id, Ordering::SeqCst);
        }
        Ok(posted)
    }

    pub(super) fn is_pending(&mut self, run: &str, request: u64) -> Result<bool, Fault> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM requests WHERE run = ?1 AND id = ?2")?;
        Ok(statement.exists(params![run, signed(request)])?)
    }

    pub(super) fn withdraw_request(&mut self, run: &str, request: u64) -> Result<bool, Fault> {
        let mut statement = self.connection.prepare_cached("DELETE FROM requests WHERE run = ?1 AND id = ?2")?;
        Ok(statement.execute(params![run, signed(request)])? > 0)
    }

    /// SQLite's count of what other connections committed.
    pub(super) fn data_version(&self) -> Result<u32, Fault> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }
}

fn encode(held: &Held, events: &[Event]) -> Result<Vec<String>, StoreError> {
    let text = |event: &Event| {
        serde_json::to_string(&event.body).map_err(|error| StoreError::Encode {
            run: held.run.to_string(),
            seq: event.seq,
            why: error.to_string(),
        })
    };
    events.iter().map(text).collect()
}

/// SQLite's integers are signed; the bits are kept.
pub(super) fn signed(value: u64) -> i64 {
    value.cast_signed()
}
