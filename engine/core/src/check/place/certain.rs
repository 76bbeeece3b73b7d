//! Mistakes in inputs of a step that stand there whatever its templates give. What a template may mend is left to the run.

use crate::Json;
use crate::check::schema::CompiledSchema;
use crate::step::{AnyStepType, InputProblem};
use crate::template::ValueTemplate;

/// More templates than these in one step are not tried out.
const MOST_TEMPLATES: usize = 64;

/// What the step type says of inputs in which some are templates: only what it says for all that may stand in the places
/// of templates, and only of values that are written out.
pub(super) fn problems(
    step_type: &dyn AnyStepType,
    schema: &CompiledSchema,
    with: &ValueTemplate,
) -> Vec<InputProblem> {
    let samples = schema.samples(with);
    if samples.len() > MOST_TEMPLATES {
        return Vec::new();
    }
    let told = |pick: &dyn Fn(usize) -> usize| {
        let inputs = filled(with, &samples, pick);
        step_type.decodes(&inputs).then(|| step_type.problems(&inputs))
    };
    let most = samples.iter().map(Vec::len).max().unwrap_or(1);
    let Some((base, mut certain)) = (0..most).find_map(|n| Some((n, told(&|_| n)?))) else { return Vec::new() };
    certain.retain(|p| is_written(with, &p.path));
    for (at, all) in samples.iter().enumerate() {
        let mut tried = false;
        for (n, value) in all.iter().enumerate() {
            let again = narrow(&mut certain, || told(&|leaf| if leaf == at { n } else { base }));
            tried |= again && !value.is_null();
        }
        if !tried {
            // None of the values made up for this place is one that it takes.
            return Vec::new();
        }
    }
    for n in 0..most {
        narrow(&mut certain, || told(&|leaf| n + leaf));
    }
    certain
}

/// Keeps what is told again. Values that do not even decode tell nothing: false. Nothing left is nothing to try.
fn narrow(certain: &mut Vec<InputProblem>, told: impl FnOnce() -> Option<Vec<InputProblem>>) -> bool {
    if certain.is_empty() {
        return true;
    }
    let Some(again) = told() else { return false };
    certain.retain(|p| again.iter().any(|other| other.path == p.path && other.message == p.message));
    true
}

fn filled(with: &ValueTemplate, samples: &[Vec<Json>], pick: &dyn Fn(usize) -> usize) -> Json {
    fn fill(value: &ValueTemplate, next: &mut dyn FnMut() -> Json) -> Json {
        match value {
            ValueTemplate::Literal(json) => json.clone(),
            ValueTemplate::Text(_) => next(),
            ValueTemplate::List(items) => items.iter().map(|item| fill(item, next)).collect(),
            ValueTemplate::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.clone(), fill(value, next)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
    let mut leaves = samples.iter().enumerate();
    fill(with, &mut || leaves.next().map_or(Json::Null, |(leaf, all)| all[pick(leaf) % all.len()].clone()))
}

/// Whether what a problem is about holds no template: a value, one that is not there, or the step as a whole.
fn is_written(with: &ValueTemplate, path: &[String]) -> bool {
    let mut at = with;
    for key in path {
        let below = match at {
            ValueTemplate::Literal(_) => return true,
            ValueTemplate::Text(_) => return false,
            ValueTemplate::List(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
            ValueTemplate::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
        };
        match below {
            Some(below) => at = below,
            None => return true,
        }
    }
    path.is_empty() || at.is_literal()
}
