//! The names that scripts give to steps and instances, judged by the plan, and by what a run made of it.

use std::collections::HashMap;

use runback_core::plan::{Plan, PlanKind, StepIdx};
use runback_core::state::{NodeId, RunState, Status};
use runback_core::suggest::did_you_mean;

use super::script::bare;

/// A name that means nothing.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) why: String,
    pub(crate) help: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.why, self.help)
    }
}

/// The paths of a plan's steps without the keys of instances. Of a `for_each` and its instance, the instance.
fn names(plan: &Plan) -> HashMap<String, StepIdx> {
    plan.iter().map(|(idx, _)| (bare(&plan.path(idx)), idx)).collect()
}

/// The step that a name means, whatever instance of it.
pub(crate) fn step(plan: &Plan, name: &str) -> Result<StepIdx, Wrong> {
    if !is_well_formed(name) {
        let why = format!("`{name}` is no name of a step");
        let id = name.split('[').next().unwrap_or_default();
        return Err(Wrong { why, help: format!("an instance is written {id}[KEY]") });
    }
    let names = names(plan);
    let name = bare(name);
    names.get(&name).copied().ok_or_else(|| {
        let mut all: Vec<&str> = names.keys().map(String::as_str).collect();
        all.sort_unstable();
        let help = match did_you_mean(&name, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its steps are {}", all.join(", ")),
        };
        Wrong { why: format!("there is no step `{name}`"), help }
    })
}

/// The same for what has an outcome of its own.
pub(crate) fn action(plan: &Plan, name: &str) -> Result<StepIdx, Wrong> {
    let idx = step(plan, name)?;
    let step = plan.step(idx);
    if step.action().is_some() {
        return Ok(idx);
    }
    let why = format!("{name} is a {}, which fails by its steps", step.type_name());
    Err(Wrong { why, help: format!("name one of them: {name}/…") })
}

/// Outputs that a step is said to give, and does not have.
pub(crate) fn outputs<'n>(plan: &Plan, idx: StepIdx, given: impl Iterator<Item = &'n String>) -> Vec<Wrong> {
    let Some(known) = plan.output_names(idx) else { return Vec::new() };
    let unknown = given.filter(|name| !known.contains(name));
    let wrong = unknown.map(|name| {
        let help = match did_you_mean(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "it has none".to_owned(),
            None => format!("it has {}", known.join(", ")),
        };
        Wrong { why: format!("there is no output `{name}`"), help }
    });
    wrong.collect()
}

/// Names with keys that no instance of the run has. What the run did not come to is not judged.
pub(crate) fn without_instance<'n>(state: &RunState, names: impl Iterator<Item = &'n str>) -> Vec<Wrong> {
    let mut names: Vec<&str> = names.filter(|n| n.contains('[') && state.find(n).is_none()).collect();
    names.sort_unstable();
    names.into_iter().filter_map(|name| instance(state, name)).collect()
}

/// Why an attempt of a step, of all its instances if the name has no keys, was never made. None = one was.
pub(crate) fn not_begun(state: &RunState, name: &str, attempt: u32) -> Option<String> {
    let is_meant = |path: &str| path == name || !name.contains('[') && bare(path) == name;
    let nodes: Vec<_> = state.ids().filter(|n| is_meant(state.path(*n))).map(|n| state.node(n)).collect();
    let most = nodes.iter().map(|n| n.attempts).max().unwrap_or_default();
    if most >= attempt {
        return None;
    }
    Some(match most {
        0 if nodes.is_empty() => "the run did not come to it".to_owned(),
        0 if nodes.iter().all(|n| n.status == Status::Skipped) => "the step was skipped".to_owned(),
        0 => "the step did not begin".to_owned(),
        1 => format!("there was one attempt, and no attempt {attempt}"),
        _ => format!("there were {most} attempts, and no attempt {attempt}"),
    })
}

fn instance(state: &RunState, name: &str) -> Option<Wrong> {
    let mut from = 0;
    while let Some(open) = name[from..].find('[').map(|at| from + at) {
        let close = open + name[open..].find(']')?;
        let of = &name[..open];
        if state.find(&name[..=close]).is_none() {
            let Some(owner) = state.find(of) else { break };
            if !matches!(state.step(owner).kind, PlanKind::ForEach(_)) {
                let why = format!("{of} has no instances: it is no `for_each`");
                return Some(Wrong { why, help: format!("name it as {of}{}", &name[close + 1..]) });
            }
            return state.is_expanded(owner).then(|| no_instance(state, owner, of, &name[open + 1..close]));
        }
        from = close + 1;
    }
    let keys = |n: &NodeId| state.path(*n).matches('[').count();
    let alike = state.ids().filter(|n| bare(state.path(*n)) == bare(name)).max_by_key(keys)?;
    let why = format!("`{name}` has not the keys of all instances around it");
    Some(Wrong { why, help: format!("name all of them, as {}, or none, as {}", state.path(alike), bare(name)) })
}

fn no_instance(state: &RunState, owner: NodeId, of: &str, key: &str) -> Wrong {
    let key_of = |path: &str| path[of.len()..].trim_matches(['[', ']']).to_owned();
    let keys: Vec<String> = state.children(owner).into_iter().map(|n| key_of(state.path(n))).collect();
    let help = match did_you_mean(key, keys.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{of}[{near}]`?"),
        None if keys.is_empty() => "it has none: there are no items".to_owned(),
        None if keys.len() > 12 => format!("it has {} and {} more", keys[..10].join(", "), keys.len() - 10),
        None => format!("it has {}", keys.join(", ")),
    };
    Wrong { why: format!("{of} has no instance `{key}`"), help }
}

/// `deploy/convert[web1]/copy`: a key in brackets ends a part.
fn is_well_formed(name: &str) -> bool {
    name.split('/').all(|part| match part.split_once('[') {
        None => !part.contains(']'),
        Some((id, rest)) => {
            let key = rest.strip_suffix(']');
            !id.is_empty() && key.is_some_and(|k| !k.is_empty() && !k.contains(['[', ']']))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_keys() {
        for good in ["a", "a/b", "a[k-1]", "a[x y]/b/c[2]"] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["a[k", "a]", "a[]", "[k]", "a[k]b", "a[k][l]", "a[[k]]", "a[k]/b[l"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }
}
