//! Reading: on connections of their own that can write nothing, beside the writer and never in its way.

use std::sync::{Arc, Mutex, PoisonError};

use runback_core::event::Event;
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};

use super::journal::signed;
use super::open::Layout;
use crate::store::chain::{Row, Walk, decode};
use crate::store::{RawRow, RunFilter, RunRow, StoreError, Verified};

/// Idle connections that are kept; more readers at once open their own.
const IDLE: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    layout: Arc<Layout>,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
pub(super) enum ReadFault {
    Told(StoreError),
    Sql(rusqlite::Error),
}

impl From<StoreError> for ReadFault {
    fn from(error: StoreError) -> Self {
        Self::Told(error)
    }
}

impl From<rusqlite::Error> for ReadFault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Readers {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        Self { layout, idle: Mutex::new(Vec::new()) }
    }

    /// One consistent view for the whole of `work`.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, ReadFault>) -> Result<T, StoreError> {
        let told = |fault| match fault {
            ReadFault::Told(error) => error,
            ReadFault::Sql(error) => StoreError::from_sqlite(&self.layout.journal, &error),
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let view = connection.transaction().map_err(|error| told(error.into()))?;
        let result = work(&view).map_err(told);
        drop(view);
        // After an error the connection may be in any state.
        if result.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE {
                idle.push(connection);
            }
        }
        result
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let connection = self.layout.connect()?;
        connection
            .execute_batch("PRAGMA query_only = ON")
            .map_err(|error| StoreError::from_sqlite(&self.layout.journal, &error))?;
        Ok(connection)
    }
}

const ROW: &str = "SELECT seq, at, type, body, hash FROM events WHERE run = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3";

fn row(sql: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        seq: sql.get::<_, i64>(0)?.cast_unsigned(),
        at: sql.get::<_, i64>(1)?.cast_unsigned(),
        kind: sql.get(2)?,
        body: sql.get(3)?,
        hash: sql.get(4)?,
    })
}

fn known(connection: &Connection, run: &str) -> Result<(), ReadFault> {
    let found: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM runs WHERE run = ?1)")?
        .query_row([run], |row| row.get(0))?;
    if found { Ok(()) } else { Err(StoreError::unknown(run).into()) }
}

pub(super) fn events(
    connection: &Connection,
    run: &str,
    after_seq: u64,
    limit: usize,
) -> Result<Vec<Event>, ReadFault> {
    known(connection, run)?;
    // The row before is read too: the chain starts from it.
    let mut walk = if after_seq == 0 { Walk::from_start(run) } else { Walk::from_row(run, after_seq) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(i64::from(after_seq > 0));
    let mut statement = connection.prepare_cached(ROW)?;
    let mut rows = statement.query(params![run, signed(after_seq), limit])?;
    let mut events = Vec::new();
    while let Some(sql) = rows.next()? {
        let row = row(sql)?;
        walk.check(&row)?;
        if row.seq > after_seq {
            events.push(decode(run, &row)?);
        }
    }
    Ok(events)
}

/// Not checked: that is for who asks.
pub(super) fn raw_rows(connection: &Connection, run: &str, after: u64, limit: usize) -> Result<Vec<RawRow>, ReadFault> {
    known(connection, run)?;
    let mut statement = connection.prepare_cached(ROW)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![run, signed(after.saturating_add(1)), limit], |sql| {
        let Row { seq, at, kind, body, hash } = row(sql)?;
        Ok(RawRow { seq, at, kind, body, hash })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn verify(connection: &Connection, run: &str) -> Result<Verified, ReadFault> {
    known(connection, run)?;
    let mut walk = Walk::from_start(run);
    let mut statement = connection.prepare_cached(ROW)?;
    let mut rows = statement.query(params![run, 0, i64::MAX])?;
    while let Some(sql) = rows.next()? {
        walk.check(&row(sql)?)?;
    }
    let (events, head) = walk.end();
    if events == 0 {
        let why = "it is missing".to_owned();
        return Err(StoreError::BadRow { run: run.to_owned(), seq: 1, why }.into());
    }
    let head = head.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok(Verified { events, head })
}

pub(super) fn runs(connection: &Connection, filter: &RunFilter) -> Result<Vec<RunRow>, ReadFault> {
    let since = filter.since.map_or(0, signed);
    let limit = filter.limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let mut statement = connection.prepare_cached(
        "SELECT run FROM runs WHERE (?1 IS NULL OR playbook = ?1) AND created_at >= ?2 ORDER BY no DESC LIMIT ?3",
    )?;
    let ids = statement.query_map(params![filter.playbook, since, limit], |row| row.get::<_, String>(0))?;
    ids.map(|id| run_row(connection, id?)).collect()
}

pub(super) fn run(connection: &Connection, run: &str) -> Result<RunRow, ReadFault> {
    known(connection, run)?;
    run_row(connection, run.to_owned())
}

fn run_row(connection: &Connection, run: String) -> Result<RunRow, ReadFault> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, at, type,
           CASE type WHEN 'run_created' THEN json_set(body, '$.texts', json('[]')) ELSE body END, hash
         FROM events INDEXED BY events_about WHERE run = ?1 AND about = 1 ORDER BY seq",
    )?;
    let mut head_events = Vec::new();
    let mut rows = statement.query([&run])?;
    while let Some(sql) = rows.next()? {
        head_events.push(decode(&run, &row(sql)?)?);
    }
    let last = connection
        .prepare_cached("SELECT seq, at FROM events WHERE run = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([&run], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    let (last_seq, last_at) = last.unwrap_or_default();
    Ok(RunRow { run, head_events, last_seq: last_seq.cast_unsigned(), last_at: last_at.cast_unsigned(), owner: None })
}

pub(super) fn resolve(connection: &Connection, prefix: &str) -> Result<String, ReadFault> {
    let newest = |count: i64| -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare_cached("SELECT run FROM runs ORDER BY no DESC LIMIT ?1")?;
        statement.query_map([count], |row| row.get(0))?.collect()
    };
    let unknown = || -> Result<String, ReadFault> {
        Err(StoreError::UnknownRun { run: prefix.to_owned(), candidates: newest(5)? }.into())
    };
    if prefix == "last" {
        return match newest(1)?.pop() {
            Some(run) => Ok(run),
            None => unknown(),
        };
    }
    // Ids are ASCII: all that begin with the prefix stand between it and it with a last character behind.
    let mut statement = connection
        .prepare_cached("SELECT run FROM runs WHERE run >= ?1 AND run < ?1 || char(127) ORDER BY run LIMIT 10")?;
    let mut candidates: Vec<String> = statement.query_map([prefix], |row| row.get(0))?.collect::<Result<_, _>>()?;
    match candidates.as_slice() {
        [] => unknown(),
        [exact, ..] if exact == prefix => Ok(candidates.remove(0)),
        [_] if !prefix.is_empty() => Ok(candidates.remove(0)),
        _ => Err(StoreError::Ambiguous { prefix: prefix.to_owned(), candidates }.into()),
    }
}
