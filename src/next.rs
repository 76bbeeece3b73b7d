//! What to type next, by what a run is. The last words of every report. Can be pasted: it names the program and the
//! store as they were typed.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;

use runback_core::Json;
use runback_core::state::{NodeId, Phase, RunState, UndoStatus};
use runback_core::step::Question;
use runback_exec::store::default_state_dir;

use crate::term::{CYAN, DIM, RESET};
use crate::words;

/// The program's name, and the option that names the store.
static TYPED: OnceLock<(String, String)> = OnceLock::new();

/// Takes note of how this process was started. A store that the environment names will be found again without a word.
/// `elsewhere`: who reads it has another folder and another environment than this process. So has who reads the mail of
/// cron, or the journal of systemd.
pub(crate) fn typed(state_dir: Option<&Path>, elsewhere: bool) {
    let elsewhere = elsewhere || is_unattended();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let program = std::env::args().next().filter(|p| p.contains('/') && !p.starts_with('/'));
    let program = program.map(|p| if elsewhere { absolute(p.as_ref()).to_string_lossy().into_owned() } else { p });
    let by_option = state_dir.map(|dir| {
        let known = if elsewhere { default_state_dir() } else { std::env::var_os("RUNBACK_STATE_DIR").map(Into::into) };
        let dir = if elsewhere { absolute(dir) } else { dir.to_owned() };
        if known.as_ref() == Some(&dir) { String::new() } else { option_word(dir.as_os_str()) }
    });
    let _ = TYPED.set((program.unwrap_or_else(|| "runback".to_owned()), by_option.unwrap_or_default()));
}

/// Nobody sits there, and cron and systemd give no TERM.
pub(crate) fn is_unattended() -> bool {
    let seen = [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
    !seen.contains(&true) && std::env::var_os("TERM").is_none()
}

/// The option that names the store, for a shell: also a name that looks like an option, or is no text.
fn option_word(dir: &OsStr) -> String {
    let Some(text) = dir.to_str() else {
        let escaped: Vec<String> = dir.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        return format!(" --state-dir=$'{}'", escaped.concat());
    };
    format!(" --state-dir{}{}", if text.starts_with('-') { '=' } else { ' ' }, word(text))
}

/// One word for a shell.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A command that begins with `runback`, as it is to be typed here.
pub(crate) fn as_typed(command: &str) -> String {
    let (program, option) = TYPED.get().map_or(("runback", ""), |(p, o)| (p.as_str(), o.as_str()));
    let rest = command.strip_prefix("runback").unwrap_or(command);
    format!("{}{rest}{option}", if program == "runback" { program.to_owned() } else { word(program) })
}

/// The same for the commands that a text has between backquotes: the packages below do not know what was typed.
pub(crate) fn in_text(text: &str) -> Cow<'_, str> {
    if !text.contains("`runback ") {
        return Cow::Borrowed(text);
    }
    let mut pieces = text.split('`');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    let mut quoted = true;
    for piece in pieces {
        out.push('`');
        let verb = piece.strip_prefix("runback ").and_then(|rest| rest.split(' ').next());
        match verb.filter(|verb| quoted && OF_A_STORE.contains(verb)) {
            Some(_) => out.push_str(&as_typed(piece)),
            None => out.push_str(piece),
        }
        quoted = !quoted;
    }
    Cow::Owned(out)
}

/// Characters of a command that what it does stands in a column beside.
const LONGEST_IN_COLUMN: usize = 80;

/// Verbs that look for a run.
const OF_A_STORE: [&str; 8] = ["approve", "cancel", "logs", "resume", "rollback", "runs", "show", "why"];

/// Lines of a command and what it does. `driven` = some process has the run now.
pub(crate) fn steps(state: &RunState, status: &str, driven: bool) -> Vec<String> {
    lines(&commands(state, status, driven))
}

/// Commands, and what each does.
pub(crate) fn commands(state: &RunState, status: &str, driven: bool) -> Vec<(String, &'static str)> {
    let run = state.run_id();
    let mut all: Vec<(String, &'static str)> = Vec::new();
    let mut add = |command: String, what| all.push((command, what));
    let doubt = state.doubts().next();
    let secrets = wanted_secrets(state);
    let question = state.questions().next();
    if let Some(node) = question {
        let fields = state.node(node).question().map(wanted_fields).unwrap_or_default();
        add(format!("runback approve {run} {}{fields}", word(state.path(node))), "say yes (--refuse: no)");
    }
    if let Some(node) = doubt {
        let settled = word(&format!("{}=done", state.path(node)));
        add(format!("runback resume {run} --step {settled}"), "it is done (or redo, fail, skip)");
    }
    match status {
        "failed" => {
            let again = if words::failure(state).is_some() {
                "try what failed again, and go on"
            } else {
                "go on where it stopped"
            };
            add(format!("runback resume {run}"), again);
            add(format!("runback rollback {run}"), "take it back");
        }
        "stuck" => {
            if let Some(node) = state.ids().find(|n| state.node(*n).undo == UndoStatus::Failed) {
                add(format!("runback rollback {run}"), "try what could not be undone again");
                add(format!("runback rollback {run} --force"), "undo also where the world has changed since");
                let settled = word(&format!("{}=undone", state.path(node)));
                add(format!("runback rollback {run} --step {settled}"), "you took it back by hand (or kept: it stays)");
            } else {
                add(format!("runback rollback {run}"), "go on taking it back");
            }
        }
        "running" | "rolling-back" | "waiting" if driven => {
            add(format!("runback why {run}"), "what it does and waits for");
            if matches!(state.phase, Phase::RollingBack | Phase::Finally) {
                add(format!("runback cancel {run} --now"), "leave it at once, as it stands");
            } else {
                add(format!("runback cancel {run}"), "stop it");
            }
        }
        "interrupted" | "waiting" => {
            if doubt.is_none() {
                let way = words::on_its_way(state);
                let what = way.unwrap_or(if question.is_some() { "then go on" } else { "go on where it stopped" });
                add(format!("runback resume {run}"), what);
            }
            add(format!("runback rollback {run}"), "take it back");
        }
        "succeeded" => add(format!("runback rollback {run}"), "take it back"),
        _ => {}
    }
    // What only computes prints nothing.
    let prints = |n: &NodeId| !state.step(*n).action().is_some_and(|a| a.step_type.is_pure());
    let tried = || state.ids().any(|n| state.node(n).attempts > 0 && prints(&n));
    if let Some(node) = state.ids().find(|n| status == "stuck" && state.node(*n).undo == UndoStatus::Failed) {
        add(format!("runback logs {run} {} --undo", word(state.path(node))), "what its undo printed");
    } else if matches!(status, "failed" | "stuck" | "rolled-back" | "cancelled") && tried() {
        let failed =
            words::failure(state).filter(prints).map(|n| format!(" {}", word(state.path(n)))).unwrap_or_default();
        add(format!("runback logs {run}{failed}"), "what the commands printed");
    }
    let whole = |command: String| {
        let takes_up = ["runback resume ", "runback rollback "].iter().any(|verb| command.starts_with(verb));
        as_typed(&if takes_up { command + &secrets } else { command })
    };
    all.into_iter().map(|(command, what)| (whole(command), what)).collect()
}

/// Inputs marked secret are stored nowhere: who takes the run up gives them again, unless its environment does.
fn wanted_secrets(state: &RunState) -> String {
    let inputs = state.plan.scopes.first().into_iter().flat_map(|scope| &scope.inputs);
    let wanted = inputs.filter(|d| d.secret && d.default.is_none() && d.env.is_none());
    wanted.map(|d| format!(" -i {}=…", d.name.value)).collect::<Vec<_>>().concat()
}

/// Fields of a form that have no value of their own.
fn wanted_fields(question: &Question) -> String {
    let form = question.form.as_object().into_iter().flatten();
    let wanted = form.filter(|(_, field)| field.get("default").is_none_or(Json::is_null));
    wanted.map(|(name, _)| format!(" -f {name}=…")).collect::<Vec<_>>().concat()
}

fn lines(all: &[(String, &str)]) -> Vec<String> {
    // A long one has no column: the others would be torn from what they do.
    let wide = all.iter().map(|(command, _)| command.chars().count()).filter(|n| *n <= LONGEST_IN_COLUMN).max();
    let wide = wide.unwrap_or(0);
    all.iter().map(|(command, what)| format!("  {CYAN}{command:wide$}{RESET}  {DIM}{what}{RESET}")).collect()
}
