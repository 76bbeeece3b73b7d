//! `runback serve`: checks where it may listen, and hands over to the server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use runback_core::playbook::duration;

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::log_limit::LogLimit;
use crate::serve::{self, Settings, TlsFiles};
use crate::trace::TraceArgs;
use crate::{state_dir, term};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to listen; anything but this machine itself needs TLS and a token
    #[arg(long, default_value = "127.0.0.1:7117", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// The folder whose playbooks can be started, and whose schedules fire
    #[arg(long, value_name = "DIR")]
    playbooks: Option<PathBuf>,

    /// PEM file with the certificate and its chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Listen on another address without TLS: tokens then cross the network in the clear
    #[arg(long)]
    insecure: bool,

    /// Runs that are driven at once; the others wait in order
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = positive)]
    max_runs: usize,

    /// Runs that may wait
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = positive)]
    max_queue: usize,

    /// Remove runs that are over once they are older: 90d
    #[arg(long, value_name = "DURATION")]
    keep_for: Option<String>,

    /// Remove runs that are over beyond so many of the newest
    #[arg(long, value_name = "N", value_parser = positive)]
    keep: Option<usize>,

    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = positive, help = "Connections at once")]
    max_connections: usize,

    /// Watchers of runs at once
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = positive)]
    max_streams: usize,

    #[command(flatten)]
    trace: TraceArgs,

    #[command(flatten)]
    log_limit: LogLimit,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(|| "from 1 to 1000000".to_owned())
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let tls = arguments.tls_cert.clone().zip(arguments.tls_key.clone()).map(|(cert, key)| TlsFiles { cert, key });
    let state_dir = state_dir::path(dir)?;
    if let Some(folder) = arguments.playbooks.as_ref().filter(|f| !f.is_dir()) {
        let failure = Failure::usage(format!("--playbooks {}: there is no such folder", folder.display()));
        return Err(failure.help("name a folder with playbooks in it"));
    }
    let playbooks = arguments.playbooks.as_ref().map(std::path::absolute).transpose()?;
    let keep_for = match &arguments.keep_for {
        None => None,
        Some(text) => Some(
            duration::parse(text)
                .map_err(|e| Failure::usage(format!("--keep-for {text}: {}", e.message)).help(e.help))?,
        ),
    };
    let settings = Settings {
        keep_for,
        keep: arguments.keep,
        address: arguments.listen,
        tls,
        playbooks,
        state_dir,
        max_runs: arguments.max_runs,
        max_queue: arguments.max_queue,
        max_connections: arguments.max_connections,
        max_streams: arguments.max_streams,
        log_limit: arguments.log_limit.bytes(),
        print_login: term::can_ask(),
        trace: arguments.trace.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        check_address(arguments, &settings).await?;
        serve::run(settings).await
    });
    runtime.shutdown_background();
    served.map(|()| Exit::Succeeded)
}

/// Other machines may only come in where tokens tell who they are and TLS keeps those secret.
async fn check_address(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    if settings.address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let refuse = |why: &str| Failure::usage(format!("--listen {}: {why}", settings.address));
    if settings.tls.is_none() && !arguments.insecure {
        return Err(refuse("other machines could reach it, and what they say could be read on the way").help(
            "give --tls-cert FILE and --tls-key FILE, or listen on 127.0.0.1; --insecure if something else encrypts",
        ));
    }
    let store = runback_exec::store::SqliteStore::open(&settings.state_dir)?;
    let now = crate::words::now_ms();
    let tokens = store.tokens().await?;
    if !tokens.iter().any(|t| t.revoked_at.is_none() && t.expires_at.is_none_or(|at| at > now)) {
        return Err(refuse("other machines could reach it, and there is no token by which to know them")
            .help("make one first: runback token create NAME --role viewer"));
    }
    Ok(())
}
