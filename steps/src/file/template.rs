//! `file.template`: a file rendered from a Handlebars template that lies beside the playbook.
//!
//! **Does.** Reads `src` on the machine that runback runs on, renders it with `vars`, and puts the result at `path` as
//! `file.write` does: in one step, checked by `validate` first, and not at all where it is already so. The templates
//! are those of playbooks: Handlebars, strict (a name that has no value is an error), nothing escaped, with the same
//! helpers. In scope are the names of `vars` and nothing else; pass `inputs` and `outputs` through `vars`. The limits
//! are those of playbooks too: 64 KiB and 1,000 expressions.
//!
//! **Outputs.** `path`, `sha256`, `size`, `mode`, `uid`, `gid`, `previous_sha256`, `backup`.
//!
//! **Undo** is that of `file.write`: the earlier file comes back, if this one is still as the step left it.
//!
//! **Does not** render file names, and does not include other templates.

use std::collections::BTreeMap;

use runback_core::Json;
use runback_core::diagnostic::Diagnostic;
use runback_core::playbook::yaml::{Node, NodeValue, Style};
use runback_core::span::{Source as Text, SourceId, Span};
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::template::Template as Compiled;

use super::placed::placed_inputs;
use super::put::{self, Capture, Outputs, Source, Wanted};
use super::{local, paths};

/// In bytes; what templates are held to.
const MAX_TEMPLATE: u64 = 64 << 10;

placed_inputs! {
    /// The template, on the machine that runback runs on; a relative path counts from the playbook's folder.
    src: String,
    /// The file to make. On `local`, a relative path counts from the playbook's folder.
    path: String,
    /// Names in scope of the template, with their values.
    #[serde(default)]
    vars: BTreeMap<String, Json>,
}

/// The step type `file.template`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template;

fn wanted<'a>(cx: &Cx<'_>, inputs: &'a Inputs) -> Result<Wanted<'a>, StepError> {
    Ok(inputs.placed(cx, Source::Bytes(render(cx, inputs)?.into_bytes()), 0o644))
}

fn render(cx: &Cx<'_>, inputs: &Inputs) -> Result<String, StepError> {
    let src = &inputs.src;
    let bytes = local::read(&cx.local_path(src), MAX_TEMPLATE)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| StepError::permanent(format!("{src} is not UTF-8")).help("use `file.copy` for binary files"))?;
    let span = Span::new(SourceId::default(), 0, text.len());
    let node = Node { span, value: NodeValue::Str(text.as_str().into(), Style::Plain) };
    let template = Compiled::parse(&text, &node).map_err(|problems| explain(src, &text, &problems))?;
    let scope = Json::Object(inputs.vars.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    template.render_string(&scope).map_err(|e| {
        StepError::permanent(format!("{src}: {}", e.message)).help("the template sees the names under `vars` only")
    })
}

/// `src:LINE:COLUMN: message`, one line per mistake.
fn explain(src: &str, text: &str, problems: &[Diagnostic]) -> StepError {
    let text = Text::new(src, text);
    let lines: Vec<String> = problems
        .iter()
        .map(|p| match p.labels.first() {
            Some(label) => {
                let at = text.position(label.span.start);
                format!("{src}:{}:{}: {}", at.line, at.column, p.message)
            }
            None => format!("{src}: {}", p.message),
        })
        .collect();
    let error = StepError::permanent(lines.join("\n"));
    match problems.iter().find_map(|p| p.help.clone()) {
        Some(help) => error.help(help),
        None => error,
    }
}

#[async_trait::async_trait]
impl StepType for Template {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.template",
            doc: "A file rendered from a Handlebars template beside the playbook.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: config\n  uses: file.template\n  with:\n    src: nginx.conf.hbs\n    path: /etc/nginx/nginx.conf\n    vars: { port: 8080, hosts: [a.example.com, b.example.com] }\n    validate: [nginx, -t, -c, \"{path}\"]\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<_> = paths::file_problems("src", &inputs.src).into_iter().collect();
        all.extend(inputs.placed_problems());
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        put::preview(cx, &wanted(cx, inputs)?).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        put::capture(cx, &wanted(cx, inputs)?).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        put::act(cx, &wanted(cx, inputs)?, capture).await
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        put::undo(cx, capture, outputs).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Failing, Lab, break_everywhere};
    use runback_core::step::Class;
    use serde_json::json;

    const TEMPLATE: &str = "port = {{port}}\n{{#each hosts}}\nhost {{this}} & co\n{{/each}}\n";

    fn with() -> Json {
        json!({"src": "app.hbs", "path": "app.conf", "vars": {"port": 80, "hosts": ["a", "<b>"]}})
    }

    #[tokio::test]
    async fn renders_creates_and_undoes() {
        let lab = Lab::new();
        lab.put("app.hbs", TEMPLATE);
        let before = lab.snapshot();
        let preview = lab.preview(&Template, &with()).await.unwrap();
        assert_eq!(preview.details[3..], ["+port = 80", "+host a & co", "+host <b> & co"]);
        let ran = lab.run(&Template, &with()).await.unwrap();
        assert_eq!(lab.text("app.conf"), "port = 80\nhost a & co\nhost <b> & co\n");
        assert!(!lab.run(&Template, &with()).await.unwrap().changed, "a second run finds it so");
        lab.undo(&Template, &with(), &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn drift_is_a_conflict_and_breaks_can_be_undone() {
        let mut lab = Lab::new();
        lab.put("app.hbs", TEMPLATE);
        lab.put("app.conf", "old");
        let before = lab.snapshot();
        let ran = lab.run(&Template, &with()).await.unwrap();
        lab.put("app.conf", "by hand");
        assert_eq!(lab.undo(&Template, &with(), &ran).await.unwrap_err().class, Class::Conflict);
        lab.force = true;
        lab.undo(&Template, &with(), &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        let prepare = |lab: &Lab| lab.put("app.hbs", TEMPLATE);
        assert!(break_everywhere(&Template, prepare, |_| with()).await >= 2);
    }

    #[tokio::test]
    async fn a_template_edited_between_two_attempts_is_known_to_undo() {
        let lab = Lab::new();
        lab.put("app.hbs", TEMPLATE);
        let capture = lab.capture(&Template, &with()).await.unwrap();
        lab.put("app.hbs", "edited {{port}}");
        lab.target.fail_at(0, Failing::After);
        lab.act(&Template, &with(), &capture).await.unwrap_err();
        lab.target.heal();
        assert_eq!(lab.text("app.conf"), "edited 80");
        assert!(lab.undo_unfinished(&Template, &with(), &capture).await.unwrap().changed);
        assert!(!lab.exists("app.conf"));
    }

    #[tokio::test]
    async fn mistakes_name_their_place() {
        let lab = Lab::new();
        let fails = async |text: &str| {
            lab.put("app.hbs", text);
            lab.preview(&Template, &with()).await.unwrap_err().message
        };
        let unknown = fails("a\n  {{prot}}\n").await;
        assert!(unknown.starts_with("app.hbs: ") && unknown.contains("prot"), "{unknown}");
        let unclosed = fails("a\n {{#if port}} x").await;
        assert!(unclosed.starts_with("app.hbs:2:"), "{unclosed}");
        let list = fails("{{hosts}}").await;
        assert!(list.contains("hosts"), "{list}");
        std::fs::remove_file(lab.path("app.hbs")).unwrap();
        let gone = lab.preview(&Template, &with()).await.unwrap_err();
        assert!(gone.message.contains("app.hbs"), "{gone}");
    }

    #[test]
    fn bad_inputs_are_named() {
        let problems = Lab::problems(&Template, &json!({"src": "", "path": "d/", "validate": ["x"]}));
        let paths: Vec<_> = problems.into_iter().map(|p| p.path.join(".")).collect();
        assert_eq!(paths, ["src", "path", "validate"]);
    }
}
