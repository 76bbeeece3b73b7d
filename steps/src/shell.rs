//! `shell`: runs a script. `run: TEXT` in a playbook is this step type with `script: TEXT`.
//!
//! **Does.** Runs the script with `bash -euo pipefail` where the target has bash, else with `sh -eu`, so it stops at
//! the first command that fails. `shell:` names another interpreter. The script works in the playbook's folder on
//! `local`, in the login folder elsewhere, or in `cwd`. It gets the step's `env`, and besides:
//!
//! - `RUNBACK_RUN`, `RUNBACK_STEP`, `RUNBACK_ATTEMPT`: the run's id, the step's path, the attempt's number from 1;
//! - `RUNBACK_OUTPUT`: a file to append `name=value` lines to; each becomes an output of the step. A value of several
//!   lines is written as `name<<END`, its lines, and `END`. The file is removed when the attempt ends. On another machine
//!   it is there only if the script names it, or the step declares `outputs`.
//!
//! **Outputs.** `exit_code` and `stdout` (its first 64 KiB, cut at a space) are always there. `outputs` adds more: `stdout`,
//! `{json: path}`, `{regex: pattern}`, or `file` for a name that the script must write to `$RUNBACK_OUTPUT`. Values are
//! taken from the first MiB of stdout.
//!
//! **Fails** with any exit code that is not in `ok_codes`. It counts as having changed something, unless
//! `changed_codes` says which exit codes mean that.
//!
//! **Undo: none.** runback does not know what a script did. Give the step a `rollback:` of its own.
//!
//! **After an interruption** a person is asked whether it is done, unless the step says `on_interrupt: rerun`.
//!
//! **Does not** quote anything: a template inside a script is pasted as it is. Pass values by `env`, or with
//! `{{quote x}}`. The text of a script can be seen by other users of the machine while it runs: pass secrets by `env`.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, StepError,
    StepType, UndoKind,
};
use runback_core::target::{Command, Exit, TargetErrorKind, output_file as output_beside};
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::command_outputs::{self, CommandOutputs, Entry, OutputSpecs};

/// Linux takes at most 128 KiB in one argument of a program.
const MAX_SCRIPT: usize = 120 << 10;
const MAX_WRITTEN: u64 = 1 << 20;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The script's text.
    #[schemars(extend("x-runback-line" = "script"))]
    pub(crate) script: String,
    /// What runs it: `bash`, `sh`, `dash`, `ksh`, `zsh`, `python3`, `perl`, `ruby` or `node`. Default: `bash` where the
    /// target has it, else `sh`.
    #[serde(default)]
    pub(crate) shell: Option<String>,
    /// Working directory.
    #[serde(default)]
    pub(crate) cwd: Option<String>,
    /// What the script reads from its standard input.
    #[serde(default)]
    pub(crate) stdin: Option<String>,
    /// Name → where its value comes from: `stdout`, `file`, `{json: path}` or `{regex: pattern}`.
    #[serde(default)]
    pub(crate) outputs: OutputSpecs,
    /// Exit codes that are a success.
    #[serde(default = "command_outputs::zero")]
    pub(crate) ok_codes: Vec<i32>,
    /// Exit codes that mean that something was changed. Default: all that are a success. `[]`: it only looks, and a
    /// rollback passes over it.
    #[serde(default)]
    pub(crate) changed_codes: Option<Vec<i32>>,
}

/// The step type `shell`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shell;

/// Interpreters and the options that come before the script's text.
const SHELLS: [(&str, &[&str]); 9] = [
    ("bash", &["-euo", "pipefail", "-c"]),
    ("sh", &["-eu", "-c"]),
    ("dash", &["-eu", "-c"]),
    ("ksh", &["-eu", "-c"]),
    ("zsh", &["-eu", "-c"]),
    ("python3", &["-c"]),
    ("perl", &["-e"]),
    ("ruby", &["-e"]),
    ("node", &["-e"]),
];

fn interpreter(shell: &str, script: &str) -> Option<Vec<String>> {
    let (program, options) = SHELLS.iter().find(|(name, _)| *name == shell)?;
    let words = std::iter::once(program).chain(options.iter()).map(|w| (*w).to_owned());
    Some(words.chain([script.to_owned()]).collect())
}

/// Makes the folder of `$RUNBACK_OUTPUT` and becomes the interpreter, in one process on the target.
/// The file is made with its folder, as another step may remove that when it is empty.
const PICK: &str = r#"if [ -n "${RUNBACK_OUTPUT-}" ]; then
  (umask 077; i=0; until mkdir -p -- "${RUNBACK_OUTPUT%/*}" && true >"$RUNBACK_OUTPUT"; do i=$((i+1)); [ $i -lt 5 ] || exit; done) || exit
fi
if [ "$#" -gt 1 ]; then exec "$@"; fi
if command -v bash >/dev/null 2>&1; then exec bash -euo pipefail -c "$1"; fi
exec sh -eu -c "$1""#;

#[async_trait::async_trait]
impl StepType for Shell {
    type Inputs = Inputs;
    type Outputs = CommandOutputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "shell",
            doc: "Runs a shell script; `run:` is short for it.",
            access: Access::Changes,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Ask,
            commands: Commands::Main,
            examples: &[
                "- id: build\n  run: make -j2 all\n",
                "- id: version\n  uses: shell\n  with:\n    script: |\n      echo \"commit=$(git rev-parse HEAD)\" >>\"$RUNBACK_OUTPUT\"\n      ./app --version\n    outputs:\n      commit: file\n      version: { regex: \"app ([0-9.]+)\" }\n",
            ],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        command_outputs::capabilities(with)
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = command_outputs::problems(&inputs.outputs, true);
        all.extend(command_outputs::code_problems(&inputs.ok_codes, inputs.changed_codes.as_deref()));
        let mut problem = |key: &str, message: String, help: Option<String>| {
            all.push(InputProblem { path: vec![key.to_owned()], message, help });
        };
        if inputs.script.trim().is_empty() {
            problem("script", "the script is empty".to_owned(), None);
        }
        if inputs.script.len() > MAX_SCRIPT {
            let size = inputs.script.len() >> 10;
            let help = "put it into a file beside the playbook and run that".to_owned();
            problem("script", format!("the script has {size} KiB; at most 120 can be passed"), Some(help));
        }
        if inputs.script.contains('\0') {
            problem("script", "the script has a NUL byte, which ends an argument".to_owned(), None);
        }
        if let Some(shell) = &inputs.shell
            && interpreter(shell, "").is_none()
        {
            let names: Vec<_> = SHELLS.iter().map(|(name, _)| *name).collect();
            let help = format!("one of {}; for another program: `uses: exec`", names.join(", "));
            problem("shell", format!("`{shell}` is not an interpreter that runback knows"), Some(help));
        }
        all
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        let script = match command_outputs::entry(with, "script") {
            Some(Entry::Literal(json) | Entry::Template(ValueTemplate::Literal(json))) => json.as_str(),
            Some(Entry::Template(ValueTemplate::Text(template))) => Some(template.text()),
            _ => None,
        };
        // A script may write outputs that nobody declared.
        if script.is_none_or(|s| s.contains("RUNBACK_OUTPUT")) {
            return OutputNames::Open;
        }
        command_outputs::names(with)
    }

    async fn preview(&self, _: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let lines: Vec<String> = inputs.script.lines().map(str::to_owned).collect();
        let summary = format!("run a script of {} line{}", lines.len(), if lines.len() == 1 { "" } else { "s" });
        Ok(Preview { changes: None, summary, details: lines })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<CommandOutputs>, StepError> {
        let file = output_file(cx, inputs).await?;
        let ended = run(cx, inputs, file.as_deref()).await;
        let written = match &file {
            Some(file) => take(cx, file).await,
            None => Ok(String::new()),
        };
        let exit = ended?;
        if !exit.code.is_some_and(|code| inputs.ok_codes.contains(&code)) {
            return Err(failed(inputs, &exit));
        }
        let outputs = command_outputs::collect(&inputs.outputs, &exit, &written?)?;
        let changed = match &inputs.changed_codes {
            Some(codes) => exit.code.is_some_and(|code| codes.contains(&code)),
            None => true,
        };
        Ok(Acted { outputs, changed })
    }
}

/// The same for every process that looks after this attempt, so that a re-attached one finds it. Near the records of
/// detached commands, because that place is private to the user; not in the run's own folder there, which goes when
/// its last record does.
///
/// None = the script does not ask for it; on another machine, it then leaves no trace that it would have to remove.
async fn output_file(cx: &Cx<'_>, inputs: &Inputs) -> Result<Option<String>, StepError> {
    let asked = inputs.script.contains("RUNBACK_OUTPUT") || !inputs.outputs.is_empty();
    if !cx.target.is_local() && !asked {
        return Ok(None);
    }
    let records = cx.target.detached_dir(cx.run, cx.step, cx.attempt);
    let file = output_beside(&records);
    let Some(below) = file.strip_prefix("~/") else { return Ok(Some(file)) };
    // Neither a file operation nor the script's own redirection knows `~`.
    let exit = cx.query(Command::query(["printenv", "HOME"])).await?;
    let home = exit.stdout_text().trim_end().to_owned();
    if !home.starts_with('/') {
        return Err(StepError::permanent(format!("the user on {} has no $HOME for $RUNBACK_OUTPUT", cx.target.name())));
    }
    Ok(Some(format!("{}/{below}", home.trim_end_matches('/'))))
}

async fn run(cx: &Cx<'_>, inputs: &Inputs, file: Option<&str>) -> Result<Exit, StepError> {
    let mut base = Command::default()
        .keep_stdout(command_outputs::keep(&inputs.outputs))
        .env("RUNBACK_RUN", cx.run)
        .env("RUNBACK_STEP", cx.step)
        .env("RUNBACK_ATTEMPT", cx.attempt.to_string());
    if let Some(file) = file {
        base = base.env("RUNBACK_OUTPUT", file);
    }
    base.log_output = true;
    base.cwd = inputs.cwd.as_deref().map(|dir| cx.path(dir));
    base.stdin = inputs.stdin.as_ref().map(|text| text.clone().into_bytes());
    let with = |argv: Vec<String>| Command { argv, ..base.clone() };
    let named = inputs.shell.as_deref().and_then(|shell| interpreter(shell, &inputs.script));

    if cx.target.is_local() && !cx.detach && cx.reattach.is_none() {
        if let Some(file) = file {
            make_folder(cx, file).await?;
        }
        let picked = named.is_some();
        let argv = named.or_else(|| interpreter("bash", &inputs.script)).unwrap_or_default();
        let direct = |argv| async move {
            let mut command = with(argv);
            for (name, value) in cx.env {
                command.env.entry(name.clone()).or_insert_with(|| value.clone());
            }
            cx.target.run(&command, cx.host).await
        };
        return match direct(argv).await {
            Err(e) if e.kind == TargetErrorKind::CommandNotFound && !picked => {
                Ok(direct(interpreter("sh", &inputs.script).unwrap_or_default()).await?)
            }
            ended => Ok(ended?),
        };
    }
    let words = named.unwrap_or_else(|| vec![inputs.script.clone()]);
    let wrapped = ["sh", "-c", PICK, "sh"].into_iter().map(str::to_owned).chain(words).collect();
    cx.run(with(wrapped)).await
}

async fn make_folder(cx: &Cx<'_>, file: &str) -> Result<(), StepError> {
    let mut missing = Vec::new();
    let mut dir = file;
    while let Some((parent, _)) = dir.rsplit_once('/') {
        if parent.is_empty() || cx.target.stat(parent).await?.is_some() {
            break;
        }
        missing.push(parent);
        dir = parent;
    }
    for dir in missing.into_iter().rev() {
        if let Err(e) = cx.target.create_dir(dir, Some(0o700)).await {
            // Another step of the run may have been faster.
            if cx.target.stat(dir).await?.is_none() {
                return Err(e.into());
            }
        }
    }
    Ok(())
}

/// Reads what the script wrote and removes the file.
async fn take(cx: &Cx<'_>, file: &str) -> Result<String, StepError> {
    let read = match cx.target.read(file, MAX_WRITTEN).await {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind == TargetErrorKind::NotFound => return Ok(String::new()),
        Err(e) => Err(e),
    };
    cx.target.remove_file(file).await?;
    if let (false, Some((dir, _))) = (cx.target.is_local(), file.rsplit_once('/')) {
        // Not empty while another step or a detached command has something in it.
        let _ = cx.target.remove_dir(dir).await;
    }
    String::from_utf8(read?).map_err(|_| StepError::permanent("$RUNBACK_OUTPUT: what the script wrote is not UTF-8"))
}

fn failed(inputs: &Inputs, exit: &Exit) -> StepError {
    let first = inputs.script.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    let command = Command::new([inputs.shell.as_deref().unwrap_or("script")]);
    let lines = inputs.script.trim().lines().count();
    let shown = if lines > 1 { format!("{first} … ({lines} lines)") } else { first.to_owned() };
    StepError { command: Some(shown), ..StepError::from_exit(Class::Permanent, &command, exit) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Lab;
    use runback_core::Json;
    use serde_json::json;

    fn nothing_left(lab: &Lab) {
        let left: Vec<_> = lab.snapshot().into_iter().filter(|(_, what)| !what.starts_with("dir")).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn runs_in_bash_with_its_variables_and_outputs() {
        let mut lab = Lab::new();
        lab.step = "deploy/convert[web1]".into();
        lab.attempt = 2;
        lab.env.insert("WHO".into(), "me".into());
        let script = "[[ $BASH_VERSION ]]; [[ -o pipefail ]]; cat\n\
            echo \"v=$WHO $RUNBACK_RUN $RUNBACK_STEP $RUNBACK_ATTEMPT\" >>$RUNBACK_OUTPUT; pwd >&2";
        let ran = lab.run(&Shell, &json!({"script": script, "stdin": "in", "outputs": {"v": "file"}})).await.unwrap();
        assert_eq!(ran.outputs, json!({"exit_code": 0, "stdout": "in", "v": "me r1 deploy/convert[web1] 2"}));
        assert!(ran.changed);
        assert_eq!(lab.host.stdout_text(), "in");
        assert_eq!(lab.host.stderr_text().trim(), lab.path("").trim_end_matches('/'));
        nothing_left(&lab);
    }

    #[tokio::test]
    async fn without_bash_it_is_sh() {
        let lab = Lab::new();
        lab.target.missing.lock().unwrap().push("bash".into());
        let ran = lab.run(&Shell, &json!({"script": "echo ${BASH_VERSION:-none}; : $0"})).await.unwrap();
        assert_eq!(ran.outputs["stdout"], "none");
        let error = lab.run(&Shell, &json!({"script": "echo $nothing; echo on"})).await.unwrap_err();
        assert!(error.exit_code.is_some());
        // A shell that was asked for by name is not replaced.
        let error = lab.run(&Shell, &json!({"script": ":", "shell": "bash"})).await.unwrap_err();
        assert!(error.message.contains("bash"), "{error}");
    }

    #[tokio::test]
    async fn detached_and_remote_scripts_give_the_same() {
        for (local, detach) in [(true, true), (false, false), (false, true)] {
            let mut lab = Lab::new();
            lab.target.local = local;
            lab.detach = detach;
            let with = json!({"script": "[[ -o pipefail ]]; echo a=1 >>$RUNBACK_OUTPUT; echo hi"});
            let ran = lab.run(&Shell, &with).await.unwrap();
            assert_eq!(ran.outputs, json!({"a": "1", "exit_code": 0, "stdout": "hi"}));
            assert_eq!(lab.host.detached.lock().unwrap().len(), usize::from(detach));
            let python = json!({"script": "print(6 * 7)", "shell": "python3"});
            assert_eq!(lab.run(&Shell, &python).await.unwrap().outputs["stdout"], "42");
            nothing_left(&lab);
        }
    }

    #[tokio::test]
    async fn a_reattached_one_finds_what_the_earlier_process_started() {
        let mut lab = Lab::new();
        lab.detach = true;
        let with = json!({"script": "echo a=1 >>$RUNBACK_OUTPUT; echo hi"});
        let inputs: Inputs = serde_json::from_value(with.clone()).unwrap();
        let wrapped = ["sh", "-c", PICK, "sh", &inputs.script];
        let dir = lab.cx().target.detached_dir("r1", "step", 1);
        let command =
            Command::new(wrapped).env("RUNBACK_OUTPUT", output_file(&lab.cx(), &inputs).await.unwrap().unwrap());
        lab.reattach = Some(lab.cx().target.start_detached(&command, &dir).await.unwrap());
        let ran = lab.run(&Shell, &with).await.unwrap();
        assert_eq!(ran.outputs, json!({"a": "1", "exit_code": 0, "stdout": "hi"}));
        assert_eq!(lab.target.commands.lock().unwrap().len(), 1, "started once");
        nothing_left(&lab);
    }

    #[tokio::test]
    async fn a_failure_names_the_code_and_the_last_words() {
        let lab = Lab::new();
        let script = "\necho a=1 >>$RUNBACK_OUTPUT\necho one >&2; echo two >&2; echo >&2; exit 7";
        let error = lab.run(&Shell, &json!({"script": script})).await.unwrap_err();
        assert_eq!(error.message, "script: exit code 7: two");
        assert_eq!(error.exit_code, Some(7));
        assert_eq!(error.class, Class::Permanent);
        assert_eq!(error.command.as_deref(), Some("echo a=1 >>$RUNBACK_OUTPUT … (2 lines)"));
        nothing_left(&lab);
    }

    /// Such a target names its records from the user's home, and `~` is no folder.
    #[tokio::test]
    async fn on_another_machine_nothing_is_left_in_the_home() {
        let mut lab = Lab::new();
        lab.target.local = false;
        lab.put("home/x", "");
        let before = lab.snapshot();
        lab.env.insert("HOME".to_owned(), lab.path("home"));
        let with = json!({"script": "cd /; echo a=1 >>$RUNBACK_OUTPUT; echo $RUNBACK_OUTPUT"});
        let ran = lab.run(&Shell, &with).await.unwrap();
        assert_eq!(ran.outputs["a"], "1");
        let file = ran.outputs["stdout"].as_str().unwrap();
        assert!(file.starts_with(&lab.path("home/.runback/")), "{file}");
        let quiet = lab.run(&Shell, &json!({"script": "env | grep '^RUNBACK_OUT' || echo none"})).await.unwrap();
        assert_eq!(quiet.outputs["stdout"], "none");
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn a_stopped_one_leaves_no_file() {
        let lab = Lab::new();
        let with = json!({"script": "echo a=1 >>$RUNBACK_OUTPUT; touch started; sleep 100"});
        let (ended, ()) = tokio::join!(lab.run(&Shell, &with), async {
            while !lab.exists("started") {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            lab.host.stop();
        });
        assert_eq!(ended.unwrap_err().class, Class::Cancelled);
        std::fs::remove_file(lab.path("started")).unwrap();
        nothing_left(&lab);
    }

    #[tokio::test]
    async fn codes_decide_success_and_change() {
        let lab = Lab::new();
        let with = |code: i32| json!({"script": format!("exit {code}"), "ok_codes": [0, 2], "changed_codes": [2]});
        let (same, new) = (lab.run(&Shell, &with(0)).await.unwrap(), lab.run(&Shell, &with(2)).await.unwrap());
        assert_eq!((same.changed, new.changed), (false, true));
        assert!(lab.run(&Shell, &with(1)).await.is_err());
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths = |with: Json| -> Vec<String> {
            Lab::problems(&Shell, &with).into_iter().map(|p| p.path.join(".")).collect()
        };
        let bad = json!({
            "script": " ", "shell": "fish", "ok_codes": [0], "changed_codes": [3], "outputs": {"exit_code": "stdout"}
        });
        assert_eq!(paths(bad), ["outputs.exit_code", "changed_codes.0", "script", "shell"]);
        assert_eq!(paths(json!({"script": "x".repeat(MAX_SCRIPT + 1)})), ["script"]);
        assert!(paths(json!({"script": "make"})).is_empty());
        let unknown = Lab::problems(&Shell, &json!({"script": "x", "scrip": "y"}));
        assert!(unknown[0].message.contains("unknown field `scrip`"), "{unknown:?}");
    }

    #[test]
    fn output_names_are_open_where_the_script_writes_them() {
        let names = |script: &str| Shell.output_names(&ValueTemplate::Literal(json!({"script": script})));
        assert_eq!(names("make"), OutputNames::Closed(vec!["exit_code".into(), "stdout".into()]));
        assert_eq!(names("echo a=1 >>$RUNBACK_OUTPUT"), OutputNames::Open);
    }
}
