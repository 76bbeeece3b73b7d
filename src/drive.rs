//! Drives a run in this process: reports what happens, asks whoever sits there, passes signals on, and ends with
//! the exit code that the table says.

use std::sync::{Arc, OnceLock};

use clap::Args;
use runback_core::state::{RunState, RunStatus};
use runback_exec::driver::{Control, DriveOptions, Driver, DriverError, Ended};
use runback_exec::reporter::{Nobody, Operator};
use runback_exec::store::Store;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::journal::{self, status_word};
use crate::log_limit::LogLimit;
use crate::operator::AtTerminal;
use crate::report::{self, Report, RunFormat, TakenUp};
use crate::term::{self, RESET, YELLOW};
use crate::trace::{Spans, TraceArgs, Traced, Tracer};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct DriveArgs {
    /// How it is told; default: tty on a terminal, else lines
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<RunFormat>,

    /// Print nothing when it succeeds
    #[arg(long, short)]
    pub(crate) quiet: bool,

    /// Where only a person can go on, end with exit code 5 and leave the run to wait
    #[arg(long)]
    no_wait: bool,

    /// Wait for the run's locks instead of refusing (exit code 6)
    #[arg(long)]
    wait: bool,

    /// Ask nothing, even on a terminal
    #[arg(long)]
    no_input: bool,

    #[command(flatten)]
    trace: TraceArgs,

    #[command(flatten)]
    log_limit: LogLimit,
}

impl DriveArgs {
    pub(crate) fn is_json(&self) -> bool {
        self.output == Some(RunFormat::Json)
    }

    /// In bytes.
    pub(crate) fn log_limit(&self) -> u64 {
        self.log_limit.bytes()
    }

    fn format(&self) -> RunFormat {
        RunFormat::chosen(self.output)
    }
}

/// What the verb knows of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// None = it is new.
    pub(crate) taken_up: Option<TakenUp>,
    /// False: what follows a failure is decided already.
    pub(crate) ask_on_failure: bool,
}

/// Drives to the end, or to where it can go no further without somebody.
pub(crate) async fn drive(driver: Driver, store: Arc<dyn Store>, arguments: &DriveArgs, how: How) -> Done {
    // Told when the report has the screen no more.
    let warning = Arc::new(OnceLock::new());
    let kept = Arc::clone(&warning);
    let keep = move |text: &str| drop(kept.set(text.to_owned()));
    let tracer = Tracer::new(&arguments.trace, &Handle::current(), keep);
    let mut spans = match &tracer {
        Some(tracer) => Some(tracer.follow(store.as_ref(), driver.state()).await),
        None => None,
    };
    let done = reported(driver, store, arguments, how, spans.as_mut()).await;
    if let Some(tracer) = tracer {
        tracer.close().await;
    }
    if let Some(warning) = warning.get() {
        term::note(&format!("{YELLOW}!{RESET} {warning}"));
    }
    done
}

async fn reported(
    mut driver: Driver,
    store: Arc<dyn Store>,
    arguments: &DriveArgs,
    how: How,
    mut spans: Option<&mut Spans>,
) -> Done {
    let mut report = report::new(arguments.format(), arguments.quiet, store.logs_dir(driver.run()));
    match how.taken_up {
        Some(what) => report.taken_up(driver.state(), what),
        None => {
            // It became durable before anybody could watch.
            if let Some(event) = driver.first_event() {
                report.event(driver.state(), &event);
            }
        }
    }
    let (send, mut control) = mpsc::unbounded_channel();
    let (interrupt, interrupted) = watch::channel(false);
    pass_signals(send, interrupt)?;
    let asks = !arguments.no_input && !arguments.is_json() && term::can_ask();
    let operator: Box<dyn Operator> =
        if asks { Box::new(AtTerminal::new(interrupted, how.ask_on_failure)) } else { Box::new(Nobody) };
    let options = DriveOptions { wait: !arguments.no_wait, wait_for_locks: arguments.wait };
    let ended = loop {
        let mut traced = Traced { inner: report.as_mut(), spans: spans.as_deref_mut() };
        let ended = driver.drive(&mut traced, operator.as_ref(), &mut control, options).await;
        match ended {
            Ok(ended) if ended.waiting && settle(&mut driver, report.as_mut(), operator.as_ref()).await? => {}
            other => break other,
        }
    };
    let refused = matches!(ended, Err(DriverError::Locked { .. } | DriverError::Deadlock { .. }));
    if refused && how.taken_up.is_some() {
        // It is as it was: nothing was recorded, and there is nothing to tell of it.
        return Err(ended.err().map_or_else(|| Failure::failed("it was refused"), Failure::from));
    }
    let logs = store.logs_dir(driver.run());
    let last_words = |report: &mut dyn Report, state: &RunState| {
        report.end(state, status_word(state.status(), false, false), logs.as_deref());
    };
    match ended {
        Ok(ended) => {
            last_words(report.as_mut(), driver.state());
            Ok(exit_of(&ended))
        }
        Err(error) => {
            // What could not be recorded did not happen: the journal is told of, not what this process thought.
            match journal::read(store.as_ref(), driver.run(), &runback_steps::catalog()).await {
                Ok(run) => last_words(report.as_mut(), &run.state),
                Err(_) => report.pause(driver.state()),
            }
            Err(error.into())
        }
    }
}

/// Puts what is in doubt to the person at the terminal. True when something was settled.
async fn settle(driver: &mut Driver, report: &mut dyn Report, operator: &dyn Operator) -> Result<bool, Failure> {
    if !operator.is_there() {
        return Ok(false);
    }
    let doubts: Vec<(String, String)> = {
        let state = driver.state();
        let words = |n| (state.path(n).to_string(), state.node(n).doubt().unwrap_or_default().to_owned());
        state.doubts().map(words).collect()
    };
    let mut settled = false;
    for (step, doubt) in doubts {
        report.pause(driver.state());
        let answer = operator.settle(&step, &doubt).await;
        report.unpause(driver.state());
        if let Some(answer) = answer {
            driver.resolve(&step, answer.resolution, runback_core::Json::Null)?;
            settled = true;
        }
    }
    Ok(settled)
}

fn exit_of(ended: &Ended) -> Exit {
    match ended.status {
        _ if ended.waiting => Exit::Waiting,
        // A signal ended this process, and not the wait.
        RunStatus::Waiting if ended.left && !ended.cancelled => Exit::Waiting,
        _ if ended.left => Exit::Cancelled,
        // It was cancelled and is held as it stands.
        RunStatus::Failed if ended.cancelled => Exit::Cancelled,
        status => status.into(),
    }
}

/// Ctrl-C cancels, and once more leaves; TERM and a terminal that is closed leave, unless `nohup` had that ignored.
fn pass_signals(control: mpsc::UnboundedSender<Control>, interrupt: watch::Sender<bool>) -> Result<(), Failure> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
    tokio::spawn(async move {
        loop {
            let wish = tokio::select! {
                _ = int.recv() => Control::Cancel,
                _ = term.recv() => Control::Leave,
                Some(()) = async { hup.as_mut()?.recv().await }, if hup.is_some() => Control::Leave,
            };
            interrupt.send_replace(true);
            if control.send(wish).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Whoever started this process had it ignore a signal. Linux tells; elsewhere none is taken for ignored.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let help = error.help();
        let exit = match error {
            DriverError::Store(error) => return error.into(),
            DriverError::Locked { .. } | DriverError::Deadlock { .. } => Exit::Refused,
            DriverError::Refused { .. } | DriverError::OtherPlan { .. } => Exit::Usage,
            DriverError::Illegal(_) | DriverError::Empty { .. } => Exit::Failed,
        };
        Failure { exit, help: help.into_iter().collect(), ..Failure::failed(error.to_string()) }
    }
}
