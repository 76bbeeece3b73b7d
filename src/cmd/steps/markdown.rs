//! A step type as a section of the reference in docs/reference/steps: what `runback steps TYPE` says, as Markdown.

use runback_core::Json;
use runback_core::step::AnyStepType;

use super::{access, commands, described, interrupted, type_text, undo};

pub(super) fn section(step_type: &dyn AnyStepType) -> String {
    let d = step_type.descriptor();
    let mut text = "| access | undo | after an interruption | commands |\n| --- | --- | --- | --- |\n".to_owned();
    let about = [access(d.access), undo(d.undo), interrupted(d.on_interrupt), commands(d.commands)];
    text.push_str(&format!("| {} |\n", about.join(" | ")));
    text.push_str(&fields("Inputs", &step_type.input_schema()));
    text.push_str(&fields("Outputs", &step_type.output_schema()));
    for example in d.examples {
        text.push_str(&format!("\n```yaml\n{}\n```\n", example.trim_matches('\n')));
    }
    text
}

fn fields(title: &str, schema: &Json) -> String {
    let Some(properties) = schema.get("properties").and_then(Json::as_object).filter(|p| !p.is_empty()) else {
        return String::new();
    };
    let required = schema.get("required").and_then(Json::as_array);
    let must = |name: &str| required.is_some_and(|all| all.iter().any(|r| r == name));
    let mut text = format!("\n{title}:\n\n| name | type | |\n| --- | --- | --- |\n");
    for (name, field) in properties {
        let about = described(schema, field).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let default = field.get("default").filter(|d| !d.is_null());
        let more = match default {
            _ if title == "Inputs" && must(name) => " **Required.**".to_owned(),
            Some(default) => format!(" Default: `{default}`."),
            None => String::new(),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        text.push_str(&format!(
            "| `{name}` | {} | {}{} |\n",
            cell(&type_text(schema, field, 0)),
            cell(&about),
            cell(&more)
        ));
    }
    text
}
