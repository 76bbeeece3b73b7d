//! `exec`: runs one program with its arguments, without a shell. `exec: [/bin/true]` in a playbook is this step type
//! with `command: [/bin/true]`.
//!
//! **Does.** Starts the program and waits for its end. No word is expanded, split or quoted. It works in the playbook's
//! folder on `local`, in the login folder elsewhere, or in `cwd`, and gets the step's `env`. With `creates`, and
//! something at that path, it does nothing; what a program left there that failed, timed out or was cut off does not count,
//! and it is run again.
//!
//! **Outputs.** `exit_code` and `stdout` (its first 64 KiB, cut at a space) are always there. `outputs` adds more, taken from the first
//! MiB of stdout: `stdout`, `{json: path}` or `{regex: pattern}`.
//!
//! **Fails** with any exit code that is not in `ok_codes`. It counts as having changed something, unless
//! `changed_codes` says which exit codes mean that, or `creates` was there.
//!
//! **Undo: none.** runback does not know what a program did. Give the step a `rollback:` of its own.
//!
//! **After an interruption** `creates` tells that it is not done, if nothing is there. Else, and without it, a person is asked:
//! what is there may be half of it.
//!
//! **Does not** hide its arguments from other users of the machine: pass secrets by `env` or `stdin`.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, Probe, StepError,
    StepType, UndoKind,
};
use runback_core::target::{Command, Exit};
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::begun;
use crate::command_outputs::{self, CommandOutputs, OutputSpecs};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The program and its arguments.
    #[schemars(extend("x-runback-line" = "argv"))]
    pub(crate) command: Vec<String>,
    /// Working directory.
    #[serde(default)]
    pub(crate) cwd: Option<String>,
    /// What the program reads from its standard input.
    #[serde(default)]
    pub(crate) stdin: Option<String>,
    /// Name → where its value comes from: `stdout`, `{json: path}` or `{regex: pattern}`.
    #[serde(default)]
    pub(crate) outputs: OutputSpecs,
    /// A path that the program makes: if something is there, it is not run.
    #[serde(default)]
    pub(crate) creates: Option<String>,
    /// Exit codes that are a success.
    #[serde(default = "command_outputs::zero")]
    pub(crate) ok_codes: Vec<i32>,
    /// Exit codes that mean that something was changed. Default: all that are a success. `[]`: it only looks, and a
    /// rollback passes over it.
    #[serde(default)]
    pub(crate) changed_codes: Option<Vec<i32>>,
}

/// The step type `exec`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exec;

#[async_trait::async_trait]
impl StepType for Exec {
    type Inputs = Inputs;
    type Outputs = CommandOutputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "exec",
            doc: "Runs one program with its arguments, without a shell.",
            access: Access::Changes,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::Main,
            examples: &[
                "- id: reload\n  uses: exec\n  with: { command: [nginx, -s, reload] }\n",
                "- id: dhparam\n  uses: exec\n  with:\n    command: [openssl, dhparam, -out, /etc/ssl/dh.pem, \"2048\"]\n    creates: /etc/ssl/dh.pem\n",
                "- id: pool\n  uses: exec\n  with:\n    command: [ceph, osd, pool, ls, detail, --format, json]\n    outputs: { name: { json: \"[0].pool_name\" } }\n",
            ],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        command_outputs::capabilities(with)
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = command_outputs::problems(&inputs.outputs, false);
        all.extend(command_outputs::code_problems(&inputs.ok_codes, inputs.changed_codes.as_deref()));
        let mut problem = |path: Vec<String>, message: &str, help: Option<&str>| {
            all.push(InputProblem { path, message: message.to_owned(), help: help.map(str::to_owned) });
        };
        match inputs.command.first().map(String::as_str) {
            None => problem(vec!["command".into()], "the command is empty", Some("write [program, argument, …]")),
            Some("") => problem(vec!["command".into(), "0".into()], "the program's name is empty", None),
            Some(program) if program.contains(' ') && !program.contains('/') => problem(
                vec!["command".into(), "0".into()],
                "a program's name with a blank in it",
                Some("one item of the list per word, or `run:` for a shell command"),
            ),
            Some(_) => {}
        }
        for (i, word) in inputs.command.iter().enumerate() {
            if word.contains('\0') {
                problem(vec!["command".into(), i.to_string()], "a NUL byte ends an argument", None);
            }
        }
        all
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        command_outputs::names(with)
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let command = Command::new(&inputs.command).display();
        if let Some(path) = made(cx, inputs).await? {
            let summary = format!("{path} is there: nothing to run");
            return Ok(Preview { changes: Some(false), summary, details: vec![command] });
        }
        Ok(Preview { changes: None, summary: format!("run {command}"), details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<CommandOutputs>, StepError> {
        if cx.reattach.is_none() && inputs.creates.is_some() && !begun::begun(cx) {
            if made(cx, inputs).await?.is_some() {
                return Ok(Acted::unchanged(not_run(inputs)?));
            }
            begun::begins(cx).await?;
        }
        let mut command = Command::new(&inputs.command).keep_stdout(command_outputs::keep(&inputs.outputs));
        command.cwd = inputs.cwd.as_deref().map(|dir| cx.path(dir));
        command.stdin = inputs.stdin.as_ref().map(|text| text.clone().into_bytes());
        let exit = cx.run(command).await?;
        if !exit.code.is_some_and(|code| inputs.ok_codes.contains(&code)) {
            return Err(StepError::from_exit(Class::Permanent, &Command::new(&inputs.command), &exit));
        }
        let outputs = command_outputs::collect(&inputs.outputs, &exit, "")?;
        let changed = match &inputs.changed_codes {
            Some(codes) => exit.code.is_some_and(|code| codes.contains(&code)),
            None => true,
        };
        Ok(Acted { outputs, changed })
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Probe<CommandOutputs>, StepError> {
        if inputs.creates.is_none() {
            return Ok(Probe::Unknown("only the program knows what it did; `creates` would tell".to_owned()));
        }
        Ok(match made(cx, inputs).await? {
            Some(path) if begun::begun(cx) => Probe::Unknown(format!(
                "{path} is there, and the program that makes it was cut off: it may be half of it"
            )),
            Some(_) => match not_run(inputs) {
                Ok(outputs) => Probe::Done(Acted::changed(outputs)),
                Err(e) => Probe::Unknown(e.message),
            },
            None => Probe::NotDone,
        })
    }
}

/// The path of `creates`, if something is there.
async fn made(cx: &Cx<'_>, inputs: &Inputs) -> Result<Option<String>, StepError> {
    let Some(path) = &inputs.creates else { return Ok(None) };
    let path = cx.path(path);
    Ok(cx.target.stat(&path).await?.map(|_| path))
}

/// The outputs of a program that had nothing to do. Those that would come from its stdout cannot be had.
fn not_run(inputs: &Inputs) -> Result<CommandOutputs, StepError> {
    if let Some(name) = inputs.outputs.keys().next() {
        let path = inputs.creates.as_deref().unwrap_or_default();
        return Err(StepError::permanent(format!("{path} is there, so output `{name}` has no stdout to come from"))
            .help("read the value in a step of its own, without `creates`"));
    }
    command_outputs::collect(&inputs.outputs, &Exit { code: Some(0), ..Exit::default() }, "")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Lab;
    use runback_core::Json;
    use serde_json::json;

    #[tokio::test]
    async fn runs_the_words_as_they_are() {
        let mut lab = Lab::new();
        lab.env.insert("A".into(), "b".into());
        let with =
            json!({"command": ["sh", "-c", "echo \"$1\" $A; cat; pwd", "x", "$HOME *"], "stdin": "in\n", "cwd": "/"});
        let ran = lab.run(&Exec, &with).await.unwrap();
        assert_eq!(ran.outputs, json!({"exit_code": 0, "stdout": "$HOME * b\nin\n/"}));
        assert!(ran.changed);
        assert!(lab.target.changes.lock().unwrap().is_empty(), "nothing but the program");
    }

    #[tokio::test]
    async fn outputs_come_from_stdout() {
        let lab = Lab::new();
        let with = json!({"command": ["echo", "{\"a\": [1, 2]}"], "outputs": {"second": {"json": "a[1]"}}});
        assert_eq!(lab.run(&Exec, &with).await.unwrap().outputs["second"], 2);
    }

    #[tokio::test]
    async fn failures_name_the_program() {
        let lab = Lab::new();
        let error = lab.run(&Exec, &json!({"command": ["ls", "/no such"]})).await.unwrap_err();
        assert!(error.message.starts_with("ls: exit code 2: "), "{error}");
        assert_eq!(error.command.as_deref(), Some("ls '/no such'"));
        assert_eq!(error.exit_code, Some(2));
        let error = lab.run(&Exec, &json!({"command": ["no-such-program"]})).await.unwrap_err();
        assert!(error.message.contains("no-such-program"), "{error}");
    }

    #[tokio::test]
    async fn creates_makes_it_idempotent() {
        let lab = Lab::new();
        let with = json!({"command": ["touch", "made"], "creates": "made"});
        assert!(matches!(lab.probe(&Exec, &with, &Json::Null).await.unwrap(), Probe::NotDone));
        assert_eq!(lab.preview(&Exec, &with).await.unwrap().changes, None);
        assert!(lab.run(&Exec, &with).await.unwrap().changed);
        // Another run's.
        lab.host.notes.lock().unwrap().clear();
        let again = lab.run(&Exec, &with).await.unwrap();
        assert_eq!((again.changed, again.outputs), (false, json!({"exit_code": 0, "stdout": ""})));
        assert_eq!(lab.target.commands.lock().unwrap().len(), 1);
        assert_eq!(lab.preview(&Exec, &with).await.unwrap().changes, Some(false));
        assert!(matches!(lab.probe(&Exec, &with, &Json::Null).await.unwrap(), Probe::Done(_)));
        let blind = json!({"command": ["true"]});
        assert!(matches!(lab.probe(&Exec, &blind, &Json::Null).await.unwrap(), Probe::Unknown(_)));
    }

    #[tokio::test]
    async fn what_a_failed_program_left_is_not_what_it_makes() {
        let lab = Lab::new();
        let script = "[ -e made ] && echo whole >made || { echo half >made; exit 1; }";
        let with = json!({"command": ["sh", "-c", script], "creates": "made"});
        lab.run(&Exec, &with).await.unwrap_err();
        assert_eq!(lab.text("made"), "half\n");
        let Probe::Unknown(why) = lab.probe(&Exec, &with, &Json::Null).await.unwrap() else { panic!("it may be half") };
        assert!(why.contains("half of it"), "{why}");
        assert!(lab.act(&Exec, &with, &Json::Null).await.unwrap().changed, "the next attempt");
        assert_eq!(lab.text("made"), "whole\n");
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths =
            |with: Json| -> Vec<String> { Lab::problems(&Exec, &with).into_iter().map(|p| p.path.join(".")).collect() };
        assert_eq!(paths(json!({"command": []})), ["command"]);
        assert_eq!(paths(json!({"command": ["ls -l"]})), ["command.0"]);
        assert_eq!(paths(json!({"command": ["a", "b\0"], "ok_codes": []})), ["ok_codes", "command.1"]);
        assert_eq!(paths(json!({"command": ["a"], "outputs": {"v": "file"}})), ["outputs.v"]);
        assert!(paths(json!({"command": ["/opt/my app/run"]})).is_empty());
    }
}
