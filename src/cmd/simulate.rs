//! `runback simulate`: what would happen if a step failed, played through by the real engine with nothing done.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Args;
use runback_core::step::Class;
use runback_exec::reporter::Notice;

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::inputs::{InputArgs, Inputs};
use crate::report::{self, RunFormat};
use crate::simulate::script::{self, Outcome, Rule, Script};
use crate::simulate::{self, Start, named};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "FILE")]
    file: String,

    #[command(flatten)]
    inputs: InputArgs,

    /// A step that fails: ID, or ID=transient, permanent, timeout or conflict
    #[arg(long, value_name = "STEP")]
    fail: Vec<String>,

    /// The attempt that fails; default: all of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    at: Option<u32>,

    /// How it is told
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value = "lines")]
    pub(crate) output: RunFormat,

    /// Print nothing when it succeeds
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let script = Arc::new(Script::new(rules(arguments)?));
    let loaded = simulate::load(&arguments.file, &script);
    let plan = loaded.plan()?;
    known(&plan, arguments)?;
    let inputs: Inputs = arguments.inputs.resolve(&plan.scopes[0].inputs)?;
    known_instances(arguments, &inputs)?;
    let format = if arguments.output == RunFormat::Json { RunFormat::Json } else { RunFormat::Lines };
    let mut report = report::simulated(format, arguments.quiet);
    let start = Start { plan, base: &loaded.base, inputs: &inputs, on_failure: None, script };
    let simulated = simulate::simulate(start, Some(report.as_mut()))?;
    for text in &arguments.fail {
        if let Some(why) = named::not_begun(simulated.state(), step_of(text), arguments.at.unwrap_or(1)) {
            let message = format!("--fail {text} did not come about: {why}");
            report.notice(simulated.state(), &Notice::Warning { message: &message });
        }
    }
    let status = simulated.state().status();
    report.end(simulated.state(), status.name(), None);
    let exit = if simulated.ended.waiting { Exit::Waiting } else { status.into() };
    // As in `check`: their memory goes with the process.
    std::mem::forget((simulated, loaded));
    Ok(exit)
}

fn rules(arguments: &Arguments) -> Result<HashMap<String, Rule>, Failure> {
    let mut rules = HashMap::new();
    for text in &arguments.fail {
        let (step, class) = match text.rsplit_once('=') {
            None => (text.as_str(), Class::Permanent),
            Some((step, word)) => {
                let class = script::class(word).ok_or_else(|| {
                    Failure::usage(format!("--fail {text}: `{word}` is not a class of failure"))
                        .help("the classes are transient, permanent, timeout and conflict")
                })?;
                (step, class)
            }
        };
        let failed = Outcome { fail: Some(script::failure(class, None, None)), ..Outcome::default() };
        let attempts = match arguments.at {
            None => vec![failed],
            Some(at) => {
                let mut attempts = vec![Outcome::default(); at as usize + 1];
                // To come to attempt N, those before it must have failed too, in a way that is tried again.
                for before in &mut attempts[..at as usize - 1] {
                    before.fail = Some(script::failure(Class::Transient, None, None));
                }
                attempts[at as usize - 1] = failed;
                attempts
            }
        };
        rules.insert(step.to_owned(), Rule { attempts, ..Rule::default() });
    }
    Ok(rules)
}

fn known(plan: &runback_core::plan::Plan, arguments: &Arguments) -> Result<(), Failure> {
    for text in &arguments.fail {
        named::action(plan, step_of(text))
            .map_err(|w| Failure::usage(format!("--fail {text}: {}", w.why)).help(w.help))?;
    }
    Ok(())
}

fn step_of(fail: &str) -> &str {
    fail.rsplit_once('=').map_or(fail, |(step, _)| step)
}

/// Which instances there are is known once they are there: a run that nobody sees tells it.
fn known_instances(arguments: &Arguments, inputs: &Inputs) -> Result<(), Failure> {
    if !arguments.fail.iter().any(|f| step_of(f).contains('[')) {
        return Ok(());
    }
    let script = Arc::new(Script::default());
    let loaded = simulate::load(&arguments.file, &script);
    let start = Start { plan: loaded.plan()?, base: &loaded.base, inputs, on_failure: None, script };
    let simulated = simulate::simulate(start, None)?;
    let wrong = named::without_instance(simulated.state(), arguments.fail.iter().map(|f| step_of(f)));
    match wrong.into_iter().next() {
        Some(wrong) => Err(Failure::usage(format!("--fail: {}", wrong.why)).help(wrong.help)),
        None => Ok(()),
    }
}
