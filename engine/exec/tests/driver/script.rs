//! Step types that do what their inputs say, word by word, and write a ledger of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runback_core::Json;
use runback_core::progress::Progress;
use runback_core::step::{
    Access, Acted, AnyStepType, Catalog, Class, Commands, Cx, Descriptor, Held, InputProblem, OnInterrupt, OutputNames,
    Preview, Probe, Question, StepError, UndoKind, Undone,
};
use runback_core::target::{Command, Stream};
use runback_core::template::ValueTemplate;
use serde_json::json;

/// What happened in the world, in order: `act a`, `undo a`.
pub(crate) type Ledger = Arc<Mutex<Vec<String>>>;

/// `do`, `undo` and `capture` under `with` are lists of words: `sleep MS`, `deaf MS` (hears no stop), `say TEXT`,
/// `phase TEXT`, `note TEXT`, `ask PROMPT`, `ask-within MS PROMPT`, `sh SCRIPT`, `flaky N` (the first N attempts fail for
/// now), `fail`, `panic`.
#[derive(Debug, Clone)]
struct Acting {
    name: &'static str,
    on_interrupt: OnInterrupt,
    access: Access,
    fails: bool,
    ledger: Ledger,
}

/// What `t.hold` holds: says when it ends.
struct Open(Ledger, String);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(format!("drop {}", self.1));
    }
}

pub(crate) fn catalog(ledger: &Ledger) -> Catalog {
    let mut catalog = Catalog::default();
    for (name, on_interrupt, access, fails) in [
        ("t.probe", OnInterrupt::Probe, Access::Changes, false),
        ("t.rerun", OnInterrupt::Rerun, Access::Changes, false),
        ("t.ask", OnInterrupt::Ask, Access::Changes, false),
        ("t.read", OnInterrupt::Rerun, Access::Reads, false),
        ("t.fail", OnInterrupt::Rerun, Access::Changes, true),
        ("t.hold", OnInterrupt::Rerun, Access::Reads, false),
        ("t.pure", OnInterrupt::Rerun, Access::Reads, false),
    ] {
        catalog.add(Acting { name, on_interrupt, access, fails, ledger: Arc::clone(ledger) });
    }
    catalog
}

impl Acting {
    fn write(&self, what: &str, step: &str) {
        self.ledger.lock().unwrap().push(format!("{what} {step}"));
    }

    fn has(&self, what: &str, step: &str) -> bool {
        let line = format!("{what} {step}");
        self.ledger.lock().unwrap().contains(&line)
    }
}

/// Writes that an action is over, however it ends.
struct Left<'a> {
    step: &'a str,
    acting: &'a Acting,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.acting.write("left", self.step);
    }
}

async fn follow(cx: &Cx<'_>, words: Option<&Json>) -> Result<(), StepError> {
    for word in words.and_then(Json::as_array).into_iter().flatten() {
        let word = word.as_str().unwrap_or_default();
        if word.is_empty() {
            continue;
        }
        let (verb, rest) = word.split_once(' ').unwrap_or((word, ""));
        let number = || rest.parse::<u64>().unwrap();
        match verb {
            "sleep" => tokio::select! {
                () = cx.host.sleep(Duration::from_millis(number())) => {}
                () = cx.host.stopped() => return Err(StepError::new(Class::Cancelled, "stopped")),
            },
            "deaf" => cx.host.sleep(Duration::from_millis(number())).await,
            "say" => cx.host.output(Stream::Stdout, format!("{rest}\n").as_bytes()),
            "phase" => cx.host.progress(Progress::Phase { text: rest.to_owned() }),
            "note" => cx.host.note(json!(rest)).await?,
            "ask" | "ask-two" | "ask-within" => {
                let several = verb == "ask-two";
                let (within, rest) = if verb == "ask-within" { rest.split_once(' ').unwrap() } else { ("", rest) };
                let approvers = if several { vec!["approver".to_owned(), "oncall".to_owned()] } else { Vec::new() };
                let question = Question {
                    prompt: rest.to_owned(),
                    form: Json::Null,
                    approvers,
                    min_approvals: if several { 2 } else { 1 },
                    allow_self: !several,
                    timeout_ms: within.parse().ok(),
                    approve_on_timeout: false,
                };
                if !cx.host.ask(question).await?.approved {
                    return Err(StepError::permanent("it was refused"));
                }
            }
            "sh" => {
                let exit = cx.run(Command::new(["sh", "-c", rest])).await?;
                if !exit.ok() {
                    return Err(StepError::permanent(exit.describe()));
                }
            }
            "flaky" if u64::from(cx.attempt) <= number() => return Err(StepError::transient("not now")),
            "flaky" => {}
            "fail" => return Err(StepError::permanent("it fails")),
            "panic" => panic!("it was told to: {rest}"),
            other => panic!("no such word: {other}"),
        }
    }
    Ok(())
}

#[async_trait]
impl AnyStepType for Acting {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: self.name,
            doc: "A step type of a test.",
            access: self.access,
            undo: if self.access == Access::Reads { UndoKind::None } else { UndoKind::Full },
            on_interrupt: self.on_interrupt,
            commands: Commands::Main,
            examples: &[],
        }
    }
    fn input_schema(&self) -> Json {
        json!({ "type": "object" })
    }
    fn output_schema(&self) -> Json {
        json!({ "type": "object" })
    }
    fn problems(&self, _: &Json) -> Vec<InputProblem> {
        Vec::new()
    }
    fn output_names(&self, _: &ValueTemplate) -> OutputNames {
        OutputNames::Open
    }
    fn capabilities(&self, _: &ValueTemplate) -> (Access, UndoKind) {
        (self.access, self.descriptor().undo)
    }
    async fn preview(&self, _: &Cx<'_>, _: &Json) -> Result<Preview, StepError> {
        Ok(Preview::default())
    }
    async fn capture(&self, cx: &Cx<'_>, inputs: &Json) -> Result<Json, StepError> {
        follow(cx, inputs.get("capture")).await?;
        Ok(json!({ "was": 1 }))
    }
    async fn act(&self, cx: &Cx<'_>, inputs: &Json, _: &Json) -> Result<Acted<Json>, StepError> {
        self.write("act", cx.step);
        let _left = Left { step: cx.step, acting: self };
        follow(cx, inputs.get("do")).await?;
        if self.fails {
            return Err(StepError::permanent("it fails"));
        }
        self.write("acted", cx.step);
        Ok(Acted::changed(json!({ "n": 1 })))
    }
    async fn probe(&self, cx: &Cx<'_>, _: &Json, _: &Json) -> Result<Probe<Json>, StepError> {
        let done = self.has("acted", cx.step);
        Ok(if done { Probe::Done(Acted::changed(json!({ "n": 1 }))) } else { Probe::NotDone })
    }
    async fn undo(&self, cx: &Cx<'_>, inputs: &Json, _: &Json, _: Option<&Json>) -> Result<Undone, StepError> {
        self.write("undo", cx.step);
        follow(cx, inputs.get("undo")).await?;
        self.write("undone", cx.step);
        Ok(Undone { changed: true, note: None })
    }
    /// `t.pure` does what it is told without a host: `flaky` and `panic` only.
    fn work_out(&self, inputs: &Json) -> Option<Result<Acted<Json>, StepError>> {
        if self.name != "t.pure" {
            return None;
        }
        let step = inputs["step"].as_str().unwrap_or_default();
        let turn = self.ledger.lock().unwrap().iter().filter(|l| **l == format!("act {step}")).count();
        self.write("act", step);
        let first = inputs["do"][0].as_str().unwrap_or_default();
        assert!(first != "panic", "it was told to");
        let now = first.strip_prefix("flaky ").is_none_or(|n| turn >= n.parse::<usize>().unwrap());
        Some(if now { Ok(Acted::unchanged(json!({ "n": 1 }))) } else { Err(StepError::transient("not now")) })
    }
    fn holds(&self) -> bool {
        self.name == "t.hold"
    }
    async fn hold(&self, cx: &Cx<'_>, _: &Json, outputs: &Json) -> Result<Option<Held>, StepError> {
        assert_eq!(*outputs, json!({ "n": 1 }), "the outputs that were recorded");
        self.write("hold", cx.step);
        Ok(Some(Box::new(Open(Arc::clone(&self.ledger), cx.step.to_owned()))))
    }
}
