//! `runback audit`: whether the journals are as they were written, and a signed copy of them for those who keep records.
//!
//! Within a store each event carries the hash of the one before: a changed, lost or swapped row shows. Rows cut off at
//! the end do not show there; a signed copy holds the last hash of every run, and tells.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ring::digest::{Context, SHA256};
use ring::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use runback_exec::store::{RawRow, RunFilter, SqliteStore, Store as _, StoreError, chain_hash};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Format, OutputArg};
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::term::{self, DIM, RED, RESET};
use crate::words::hex;
use crate::{state_dir, words};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Verify(Verify),
    Export(Export),
}

/// Walk the hash chain of every run, or of one; or check a signed copy
#[derive(Debug, Args)]
struct Verify {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN", conflicts_with = "file")]
    run: Option<String>,

    /// A file that `audit export` wrote; the store is then compared with it, as far as it still has its runs
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The public key that must have signed it, in hexadecimal; default: this store's
    #[arg(long, value_name = "KEY", requires = "file")]
    key: Option<String>,

    #[command(flatten)]
    output: OutputArg,
}

/// Write all events to a file, signed with this store's key
#[derive(Debug, Args)]
struct Export {
    /// The file; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    output: OutputArg,
}

impl Arguments {
    pub(crate) fn output(&self) -> Format {
        match &self.what {
            What::Verify(a) => a.output.output,
            What::Export(a) => a.output.output,
        }
    }
}

/// In the state folder; made at the first export.
const KEY_FILE: &str = "audit.key";
const CHUNK: usize = 4096;

/// One line of a copy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Head {
        format: u32,
        runback: String,
        at: u64,
    },
    /// `body` as it is stored: the hash is over these very bytes.
    Event {
        run: String,
        seq: u64,
        at: u64,
        kind: String,
        body: String,
        hash: String,
    },
    /// The last line: over the SHA-256 of all lines before it, their ends included.
    Signature {
        sha256: String,
        public_key: String,
        ed25519: String,
    },
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    match &arguments.what {
        What::Verify(Verify { file: Some(file), key, output, .. }) => verify_file(file, key.as_deref(), output, dir),
        What::Verify(verify) => verify_store(verify, dir),
        What::Export(export) => write_copy(export, dir),
    }
}

fn verify_store(verify: &Verify, dir: Option<&Path>) -> Done {
    let store = SqliteStore::open_to_look(&state_dir::path(dir)?)?;
    let (runs, events, bad) = state_dir::block_on(async {
        let runs = match &verify.run {
            Some(run) => vec![store.resolve(run).await?],
            None => store.runs(&RunFilter::default()).await?.into_iter().map(|row| row.run).collect(),
        };
        let (mut events, mut bad) = (0, Vec::new());
        for run in &runs {
            match store.verify(run).await {
                Ok(verified) => events += verified.events,
                Err(error @ StoreError::BadRow { .. }) => bad.push(error.to_string()),
                // Pruned since the list was read.
                Err(StoreError::UnknownRun { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((runs.len(), events, bad))
    })?;
    Ok(tell(runs, events, &bad, &verify.output))
}

fn tell(runs: usize, events: u64, bad: &[String], output: &OutputArg) -> Exit {
    if output.is_json() {
        term::json(&json!({ "runs": runs, "events": events, "bad": bad }));
    } else {
        for finding in bad {
            term::line(&format!("{RED}✗{RESET} {finding}"));
        }
        let count = words::grouped(usize::try_from(events).unwrap_or(usize::MAX));
        term::line(&format!(
            "{} with {count} events: {}",
            words::plural(runs, "run"),
            match bad.len() {
                0 => "all as they were written".to_owned(),
                n => format!("{} changed", words::plural(n, "run")),
            }
        ));
    }
    if bad.is_empty() { Exit::Succeeded } else { Exit::Failed }
}

/// Writes and remembers what it wrote.
struct Hashing<W> {
    to: W,
    context: Context,
}

impl<W: Write> Hashing<W> {
    fn line(&mut self, line: &Line) -> std::io::Result<()> {
        let text = serde_json::to_string(line)? + "\n";
        self.context.update(text.as_bytes());
        self.to.write_all(text.as_bytes())
    }
}

fn write_copy(export: &Export, dir: Option<&Path>) -> Done {
    let path = state_dir::path(dir)?;
    let store = SqliteStore::open(&path)?;
    let key = own_key(&path)?;
    let cannot = |e: std::io::Error| Failure::failed(format!("{} cannot be written: {e}", export.file.display()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&export.file).map_err(cannot)?;
    let mut out = Hashing { to: BufWriter::new(file), context: Context::new(&SHA256) };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    out.line(&Line::Head { format: 1, runback: version, at: words::now_ms() }).map_err(cannot)?;
    let (runs, events) = state_dir::block_on(async {
        let mut rows = store.runs(&RunFilter::default()).await?;
        rows.reverse();
        let (mut runs, mut events) = (0, 0_u64);
        for row in rows {
            let mut after = 0;
            loop {
                let found = match store.raw_rows(&row.run, after, CHUNK).await {
                    Err(StoreError::UnknownRun { .. }) => break,
                    found => found?,
                };
                let full = found.len() == CHUNK;
                for raw in found {
                    after = raw.seq;
                    events += 1;
                    let RawRow { seq, at, kind, body, hash } = raw;
                    out.line(&Line::Event { run: row.run.clone(), seq, at, kind, body, hash: hex(&hash) })
                        .map_err(cannot)?;
                }
                if !full {
                    break;
                }
            }
            runs += 1;
        }
        Ok((runs, events))
    })?;
    let digest = out.context.clone().finish();
    let public_key = hex(key.public_key().as_ref());
    let signature = Line::Signature {
        sha256: hex(digest.as_ref()),
        public_key: public_key.clone(),
        ed25519: hex(key.sign(digest.as_ref()).as_ref()),
    };
    out.line(&signature).map_err(cannot)?;
    let file = out.to.into_inner().map_err(|e| cannot(e.into_error()))?;
    file.sync_all().map_err(cannot)?;
    if export.output.is_json() {
        term::json(&json!({ "runs": runs, "events": events, "public_key": public_key }));
    } else {
        term::line(&format!("{} in {}", words::plural(runs, "run"), export.file.display()));
        term::note(&format!(
            "{DIM}signed with {public_key}; keep that key elsewhere, and check: runback audit verify --file …{RESET}"
        ));
    }
    Ok(Exit::Succeeded)
}

/// This store's key; made where there is none.
fn own_key(state_dir: &Path) -> Result<Ed25519KeyPair, Failure> {
    let path = state_dir.join(KEY_FILE);
    let cannot = |why: String| Failure::failed(format!("{}: {why}", path.display()));
    if !path.exists() {
        let made = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
            .map_err(|_| Failure::failed("the system gives no random numbers"))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut f| f.write_all(made.as_ref()).and_then(|()| f.sync_all()))
            .map_err(|e| cannot(e.to_string()))?;
    }
    let bytes = std::fs::read(&path).map_err(|e| cannot(e.to_string()))?;
    Ed25519KeyPair::from_pkcs8(&bytes).map_err(|e| cannot(format!("it holds no Ed25519 key ({e})")))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?, 16).ok()).collect()
}

fn verify_file(file: &Path, key: Option<&str>, output: &OutputArg, dir: Option<&Path>) -> Done {
    let path = state_dir::path(dir)?;
    let key = match key {
        Some(key) => key.to_owned(),
        None => hex(own_key(&path)?.public_key().as_ref()),
    };
    let copy = Copy::read(file, &key)?;
    let mut bad = copy.bad;
    if path.exists() {
        let store = SqliteStore::open_to_look(&path)?;
        state_dir::block_on(async {
            for (run, seq, hash) in &copy.heads {
                match store.raw_rows(run, seq - 1, 1).await {
                    Ok(rows) if rows.first().is_some_and(|row| hex(&row.hash) == *hash) => {}
                    Ok(rows) if rows.is_empty() => bad.push(format!("run `{run}` had {seq} events; some are cut off")),
                    Ok(_) => bad.push(format!("run `{run}` is not what the copy has: event {seq} differs")),
                    // Its time was over.
                    Err(StoreError::UnknownRun { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })?;
    }
    Ok(tell(copy.heads.len(), copy.events, &bad, output))
}

/// What a signed copy says.
struct Copy {
    /// The last number and hash of each run.
    heads: Vec<(String, u64, String)>,
    events: u64,
    bad: Vec<String>,
}

impl Copy {
    fn read(path: &Path, key: &str) -> Result<Self, Failure> {
        let name = path.display();
        let cannot = |why: &str| Failure::failed(format!("{name}: {why}"));
        let file = File::open(path).map_err(|e| Failure::usage(format!("{name} cannot be read: {e}")))?;
        let mut copy = Self { heads: Vec::new(), events: 0, bad: Vec::new() };
        let mut context = Context::new(&SHA256);
        let mut previous = Vec::new();
        let mut signed = false;
        for line in BufReader::new(file).lines() {
            let text = line.map_err(|e| cannot(&e.to_string()))?;
            let line: Line =
                serde_json::from_str(&text).map_err(|e| cannot(&format!("a line is no copy of a journal: {e}")))?;
            if signed {
                return Err(cannot("something stands behind the signature"));
            }
            match line {
                Line::Head { format: 1, .. } => {}
                Line::Head { format, .. } => {
                    return Err(cannot(&format!("its format is {format}; this runback knows 1")));
                }
                Line::Event { run, seq, at, kind, body, hash } => {
                    if seq == 1 {
                        previous = chain_hash(None, &run, seq, at, &kind, &body);
                        copy.heads.push((run.clone(), 0, String::new()));
                    } else {
                        previous = chain_hash(Some(&previous), &run, seq, at, &kind, &body);
                    }
                    copy.events += 1;
                    let head = copy.heads.last_mut().filter(|(of, last, _)| *of == run && *last + 1 == seq);
                    let Some(head) = head else { return Err(cannot("its events are not in order")) };
                    if hex(&previous) != hash && copy.bad.last().is_none_or(|b| !b.contains(&run)) {
                        copy.bad.push(format!("event {seq} of run `{run}` does not follow from the one before"));
                    }
                    (head.1, head.2) = (seq, hash);
                }
                Line::Signature { sha256, public_key, ed25519 } => {
                    let digest = context.clone().finish();
                    if public_key != key {
                        return Err(cannot(&format!("it was signed with {public_key}, not with {key}")));
                    }
                    let (Some(public), Some(signature)) = (unhex(&public_key), unhex(&ed25519)) else {
                        return Err(cannot("its signature is no hexadecimal text"));
                    };
                    let verified =
                        UnparsedPublicKey::new(&signature::ED25519, public).verify(digest.as_ref(), &signature);
                    if verified.is_err() || sha256 != hex(digest.as_ref()) {
                        return Err(cannot("its signature does not fit: it was changed"));
                    }
                    signed = true;
                }
            }
            context.update(text.as_bytes());
            context.update(b"\n");
        }
        if signed { Ok(copy) } else { Err(cannot("it has no signature: it is cut off")) }
    }
}
