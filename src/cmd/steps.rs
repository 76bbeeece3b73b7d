//! `runback steps`: the step types of this build, from their own descriptors and schemas.

mod markdown;

use clap::Args;
use runback_core::Json;
use runback_core::step::{Access, AnyStepType, Catalog, Commands, OnInterrupt, UndoKind};
use serde_json::json;

use super::OutputArg;
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::table;
use crate::term::{self, BOLD, CYAN, DIM, RESET, YELLOW};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A step type such as `file.write`, or the beginning of several
    #[arg(value_name = "TYPE")]
    step_type: Option<String>,

    /// As a section of the reference: docs/reference/steps is made of these
    #[arg(long, requires = "step_type", hide = true)]
    markdown: bool,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let catalog = runback_steps::catalog();
    let Some(name) = &arguments.step_type else {
        return Ok(list(&catalog, "", arguments.output.is_json()));
    };
    if let Some(step_type) = catalog.get(name) {
        if arguments.markdown {
            term::line(markdown::section(&**step_type).trim_end());
        } else if arguments.output.is_json() {
            term::json(&to_json(&**step_type));
        } else {
            term::line(page(&**step_type).trim_end());
        }
        return Ok(Exit::Succeeded);
    }
    if name == PLAYBOOK {
        built_in(arguments.output.is_json());
        return Ok(Exit::Succeeded);
    }
    if catalog.names().chain([PLAYBOOK]).any(|n| n.starts_with(name.as_str())) {
        return Ok(list(&catalog, name, arguments.output.is_json()));
    }
    let near =
        catalog.names().chain([PLAYBOOK]).max_by_key(|n| similarity(n, name)).filter(|n| similarity(n, name) > 600);
    let failure = Failure::usage(format!("there is no step type `{name}`"));
    Err(failure.maybe_help(near.map(|n| format!("did you mean {n}?"))).help("runback steps lists them all"))
}

const PLAYBOOK: &str = "playbook";
const PLAYBOOK_DOC: &str = "Runs the steps of another playbook in the place of this step.";
const PLAYBOOK_EXAMPLE: &str = "
- id: web
  uses: playbook
  target: web1
  with:
    file: restart.yaml
    inputs: { service: nginx }
";

/// `uses: playbook`, which is part of the language and no step type.
fn built_in(as_json: bool) {
    let inputs = crate::schema::playbook::with_playbook();
    if as_json {
        term::json(&json!({
            "name": PLAYBOOK, "doc": PLAYBOOK_DOC, "built_in": true, "inputs": inputs, "examples": [PLAYBOOK_EXAMPLE],
        }));
        return;
    }
    let mut text = format!("{BOLD}{PLAYBOOK}{RESET}  {PLAYBOOK_DOC}\n\n");
    text.push_str("  Built into the language. From outside it is one step, like a block: its outputs are the\n");
    text.push_str("  `outputs` of that playbook, and it is taken back step by step. `target`, `env`, `timeout`,\n");
    text.push_str("  `deadline` and `retry` of this step are the defaults of the steps inside; `locks`, `when`,\n");
    text.push_str("  `for_each` and `on_failure` are about the whole. More in docs/guide/using-playbooks.md.\n");
    text.push_str(&fields("inputs", &inputs));
    text.push_str(&example(PLAYBOOK_EXAMPLE));
    term::line(text.trim_end());
}

fn example(example: &str) -> String {
    let lines = example.trim_matches('\n').lines().map(|line| format!("  {CYAN}{line}{RESET}\n"));
    format!("\n{BOLD}example{RESET}\n{}", lines.collect::<String>())
}

/// In thousandths.
fn similarity(a: &str, b: &str) -> u32 {
    let bigrams = |s: &str| -> Vec<(char, char)> { s.chars().zip(s.chars().skip(1)).collect() };
    let (a, mut b) = (bigrams(a), bigrams(b));
    let total = a.len() + b.len();
    let mut common = 0;
    for pair in a {
        if let Some(at) = b.iter().position(|p| *p == pair) {
            b.swap_remove(at);
            common += 1;
        }
    }
    if total == 0 { 0 } else { 2000 * common / total as u32 }
}

fn list(catalog: &Catalog, beginning: &str, as_json: bool) -> Exit {
    let found = || catalog.iter().filter(|t| t.descriptor().name.starts_with(beginning));
    let built_in = PLAYBOOK.starts_with(beginning);
    if as_json {
        let built_in = built_in.then(|| json!({ "name": PLAYBOOK, "doc": PLAYBOOK_DOC, "built_in": true }));
        term::json(&found().map(|t| summary(&**t)).chain(built_in).collect());
        return Exit::Succeeded;
    }
    // What it reads, changes and takes back is up to the steps of that playbook.
    let built_in = built_in.then(|| [PLAYBOOK, "", "", PLAYBOOK_DOC].map(str::to_owned).to_vec());
    let rows = found().map(|t| {
        let d = t.descriptor();
        vec![d.name.to_owned(), access(d.access).to_owned(), undo(d.undo).to_owned(), d.doc.to_owned()]
    });
    let rows = rows.chain(built_in);
    term::line(&table::render(&["TYPE", "ACCESS", "UNDO", ""], rows));
    term::note(&format!("{DIM}one in full: runback steps TYPE{RESET}"));
    Exit::Succeeded
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Reads => "reads",
        Access::Changes => "changes",
    }
}

fn undo(undo: UndoKind) -> &'static str {
    match undo {
        UndoKind::Full => "↶ full",
        UndoKind::None => "– none",
        UndoKind::Impossible => "✗ impossible",
    }
}

fn interrupted(on_interrupt: OnInterrupt) -> &'static str {
    match on_interrupt {
        OnInterrupt::Rerun => "done again",
        OnInterrupt::Probe => "looked at: done, not done, or asked",
        OnInterrupt::Ask => "put to the operator",
    }
}

fn commands(commands: Commands) -> &'static str {
    match commands {
        Commands::None => "none; `target` and `env` do not reach it",
        Commands::Client => "none; `target` does not reach it, `env` its client",
        Commands::Small => "small ones, which end with runback",
        Commands::Main => "one, which outlives runback with `detach: true`",
        Commands::Detached => "one, which outlives runback unless `detach: false`",
    }
}

fn summary(step_type: &dyn AnyStepType) -> Json {
    let d = step_type.descriptor();
    json!({
        "name": d.name, "doc": d.doc, "access": d.access, "undo": d.undo,
        "on_interrupt": d.on_interrupt, "commands": d.commands,
    })
}

fn to_json(step_type: &dyn AnyStepType) -> Json {
    let mut all = summary(step_type);
    all["inputs"] = step_type.input_schema();
    all["outputs"] = step_type.output_schema();
    all["examples"] = step_type.descriptor().examples.iter().copied().collect();
    all
}

fn page(step_type: &dyn AnyStepType) -> String {
    let d = step_type.descriptor();
    let mut text = format!("{BOLD}{}{RESET}  {}\n\n", d.name, d.doc);
    let interrupted = interrupted(d.on_interrupt);
    text.push_str(&format!("  access       {}\n", access(d.access)));
    text.push_str(&format!("  undo         {}\n", undo(d.undo)));
    text.push_str(&format!("  interrupted  {interrupted}\n"));
    text.push_str(&format!("  commands     {}\n", commands(d.commands)));
    text.push_str(&fields("inputs", &step_type.input_schema()));
    text.push_str(&fields("outputs", &step_type.output_schema()));
    for one in d.examples {
        text.push_str(&example(one));
    }
    text
}

fn fields(title: &str, schema: &Json) -> String {
    let Some(properties) = schema.get("properties").and_then(Json::as_object).filter(|p| !p.is_empty()) else {
        return String::new();
    };
    let required: Vec<&str> =
        schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let wide = properties.keys().map(String::len).max().unwrap_or(0);
    let mut text = format!("\n{BOLD}{title}{RESET}\n");
    for (name, field) in properties {
        let must = if title == "inputs" && required.contains(&name.as_str()) {
            format!(" {YELLOW}required{RESET}")
        } else {
            match field.get("default").filter(|d| !d.is_null()) {
                Some(default) => format!(" {DIM}default {default}{RESET}"),
                None => String::new(),
            }
        };
        text.push_str(&format!("  {BOLD}{name:wide$}{RESET}  {}{must}\n", type_text(schema, field, 0)));
        if let Some(doc) = described(schema, field) {
            for line in doc.lines() {
                text.push_str(&format!("  {:wide$}  {DIM}{line}{RESET}\n", ""));
            }
        }
    }
    text
}

fn described<'a>(root: &'a Json, field: &'a Json) -> Option<&'a str> {
    let own = field.get("description").or_else(|| resolve(root, field).get("description"));
    own.and_then(Json::as_str).filter(|d| !d.is_empty())
}

/// Follows a `$ref` into `$defs`.
fn resolve<'a>(root: &'a Json, field: &'a Json) -> &'a Json {
    let name = field.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    name.and_then(|n| root.get("$defs")?.get(n)).unwrap_or(field)
}

/// A schema's type in words: `string`, `list of string`, `a | b`.
fn type_text(root: &Json, field: &Json, depth: usize) -> String {
    let field = resolve(root, field);
    if depth > 4 {
        return "…".to_owned();
    }
    if let Some(options) = field.get("enum").and_then(Json::as_array) {
        return options.iter().map(plain).collect::<Vec<_>>().join(" | ");
    }
    if let Some(only) = field.get("const") {
        return plain(only);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = field.get(key).and_then(Json::as_array) {
            let mut words: Vec<String> =
                options.iter().map(|o| type_text(root, o, depth + 1)).filter(|w| w != "null").collect();
            words.dedup();
            return words.join(" | ");
        }
    }
    let types = match field.get("type") {
        Some(Json::String(one)) => vec![one.as_str()],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).filter(|t| *t != "null").collect(),
        _ => return "any".to_owned(),
    };
    let words = types.iter().map(|t| match *t {
        "array" => match field.get("items") {
            Some(items) => format!("list of {}", type_text(root, items, depth + 1)),
            None => "list".to_owned(),
        },
        "object" => match (field.get("properties").and_then(Json::as_object), field.get("additionalProperties")) {
            (Some(properties), _) if !properties.is_empty() => {
                format!("map {{ {} }}", properties.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            (_, Some(values @ Json::Object(_))) => format!("map of {}", type_text(root, values, depth + 1)),
            _ => "map".to_owned(),
        },
        other => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(" | ")
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
