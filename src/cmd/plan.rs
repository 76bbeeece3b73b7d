//! `runback plan`: what would be done, in which order, and what could be taken back, before anything runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use runback_core::Json;
use runback_core::event::OnFailure;
use runback_core::plan::{FINALLY, MAIN, Plan, PlanAction, PlanKind, PlanRollback, PlanStep, SegmentIdx, StepIdx};
use runback_core::playbook::model::Exhausted;
use runback_core::step::{Access, UndoKind};
use runback_core::template::ValueTemplate;
use serde_json::json;

use super::OutputArg;
use crate::exit::Exit;
use crate::failure::Done;
use crate::inputs::{InputArgs, Inputs};
use crate::load;
use crate::preview::{Previewed, Previews};
use crate::state_dir;
use crate::term::{self, BOLD, CYAN, DIM, RED, RESET, YELLOW};
use crate::words;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "FILE")]
    file: String,

    #[command(flatten)]
    inputs: InputArgs,

    /// Do not look at the live world
    #[arg(long)]
    no_preview: bool,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let loaded = load::load(&arguments.file, &runback_steps::catalog());
    let plan = loaded.plan()?;
    if !arguments.output.is_json() {
        loaded.mention_warnings(&arguments.file);
    }
    let (inputs, missing) = arguments.inputs.resolve_some(&plan.scopes[0].inputs)?;
    let previews = if arguments.no_preview {
        Previews::blind(&plan, &inputs)
    } else {
        Previews::look(&plan, &inputs, &missing, &loaded.base, &state_dir::path(dir)?)?
    };
    let view = View { plan: &plan, waves: plan.waves(), inputs: &inputs, missing: &missing, previews: &previews };
    if arguments.output.is_json() {
        term::json(&view.json());
    } else {
        term::line(view.text().trim_end());
    }
    Ok(Exit::Succeeded)
}

/// The contract of `runback plan --output json`, for others than the terminal.
#[cfg(feature = "serve")]
pub(crate) fn as_json(plan: &Arc<Plan>, inputs: &Inputs, missing: &[String], previews: &Previews) -> Json {
    View { plan, waves: plan.waves(), inputs, missing, previews }.json()
}

struct View<'a> {
    plan: &'a Arc<Plan>,
    waves: Vec<u32>,
    inputs: &'a Inputs,
    missing: &'a [String],
    previews: &'a Previews,
}

impl View<'_> {
    /// Siblings by wave, each wave in the order of the file.
    fn by_wave(&self, mut steps: Vec<StepIdx>) -> Vec<StepIdx> {
        steps.sort_by_key(|s| (self.waves[s.at()], s.0));
        steps
    }

    fn inside(&self, step: StepIdx) -> Vec<StepIdx> {
        match &self.plan.step(step).kind {
            PlanKind::Action(_) => Vec::new(),
            PlanKind::Block(_) => self.plan.children(self.plan.step(step).segment, Some(step)).collect(),
            PlanKind::ForEach(each) => self.plan.children(each.body, None).collect(),
        }
    }

    fn top(&self, segment: SegmentIdx) -> Vec<StepIdx> {
        self.by_wave(self.plan.children(segment, None).collect())
    }

    /// A step, and everything that it needs at any distance, with all that is inside.
    fn up_to(&self, step: StepIdx) -> BTreeSet<StepIdx> {
        let mut all = BTreeSet::new();
        let mut todo = vec![step];
        let mut at = Some(step);
        while let Some(around) = at {
            todo.extend(self.plan.edges.needs(around));
            let segment = self.plan.step(around).segment;
            at = self.plan.step(around).parent.or(self.plan.segment(segment).owner);
        }
        while let Some(step) = todo.pop() {
            if all.insert(step) {
                todo.extend(self.plan.edges.needs(step));
                todo.extend(self.inside(step));
            }
        }
        all
    }

    /// Steps whose effect stays after a rollback from the very end, and why.
    fn keeps(&self) -> Vec<(StepIdx, String)> {
        let mut behind: Vec<(StepIdx, BTreeSet<StepIdx>)> = Vec::new();
        for (idx, step) in self.plan.iter() {
            if step.irreversible {
                behind.push((idx, self.up_to(idx)));
            }
        }
        let mut keeps = Vec::new();
        for (idx, step) in self.plan.iter() {
            let Some(action) = step.action() else { continue };
            if self.plan.segment(step.segment).first == self.plan.segment(FINALLY).first && step.segment == FINALLY {
                continue;
            }
            if action.access == Access::Reads && action.undo_kind() != UndoKind::Full {
                continue;
            }
            let point = behind.iter().find(|(_, all)| all.contains(&idx));
            let why = match (point, action.undo_kind()) {
                (Some((point, _)), _) if *point == idx => "it is the point of no return".to_owned(),
                (Some((point, _)), _) => {
                    let unless = if self.plan.step(*point).when.is_some() { ", unless that is skipped" } else { "" };
                    format!("it is before {}{unless}", self.plan.path(*point))
                }
                (None, UndoKind::Full) => continue,
                (None, UndoKind::None)
                    if matches!(action.rollback, PlanRollback::None) && action.undo == UndoKind::None =>
                {
                    continue;
                }
                (None, UndoKind::None) if matches!(action.rollback, PlanRollback::None) => "rollback: none".to_owned(),
                (None, UndoKind::None) => format!("{} has no inverse", step.type_name()),
                (None, UndoKind::Impossible) => "it cannot be taken back".to_owned(),
            };
            keeps.push((idx, why));
        }
        keeps
    }

    fn text(&self) -> String {
        let plan = self.plan;
        let mut out = format!("{BOLD}{}{RESET}", plan.name);
        if let Some(description) = &plan.description {
            out.push_str(&format!(": {}", description.trim()));
        }
        out.push('\n');
        for line in self.head() {
            out.push_str(&format!("{DIM}{line}{RESET}\n"));
        }
        out.push('\n');
        let numbers = self.waves.iter().max().copied().unwrap_or(0).to_string().len() + 1;
        self.level(&self.top(MAIN), 0, numbers, &mut out);
        let finally = self.top(FINALLY);
        if !finally.is_empty() {
            out.push_str(&format!("\n{BOLD}finally{RESET}, however it ended\n"));
            self.level(&finally, 0, numbers, &mut out);
        }
        out.push('\n');
        let keeps = self.keeps();
        if keeps.is_empty() {
            out.push_str("a rollback from the end takes everything back\n");
        } else {
            out.push_str("a rollback from the end would keep\n");
            let wide = keeps.iter().map(|(s, _)| plan.path(*s).chars().count()).max().unwrap_or(0);
            for (step, why) in keeps {
                out.push_str(&format!("  {:wide$}  {DIM}{why}{RESET}\n", plan.path(step)));
            }
        }
        out.push_str(&format!("{DIM}{}{RESET}\n", self.legend()));
        out
    }

    fn head(&self) -> Vec<String> {
        let plan = self.plan;
        let mut lines = Vec::new();
        if !self.inputs.open.is_empty() {
            let pairs = self.inputs.open.iter().map(|(name, value)| format!("{name}={}", short(value)));
            lines.push(format!("  inputs      {}", pairs.collect::<Vec<_>>().join("  ")));
        }
        if !self.missing.is_empty() {
            lines.push(format!("  {RESET}{YELLOW}to be given{RESET}{DIM} {}", self.missing.join(", ")));
        }
        if !plan.locks.is_empty() {
            let locks: Vec<_> = plan.locks.iter().map(|l| self.previews.rendered(l)).collect();
            lines.push(format!("  locks       {}", locks.join(", ")));
        }
        let mut how = vec![match plan.on_failure {
            OnFailure::Rollback => "roll back".to_owned(),
            OnFailure::Hold => "hold, resumable".to_owned(),
            OnFailure::Continue => "go on with what does not depend on it".to_owned(),
        }];
        if plan.fail_fast {
            how.push("stop what runs".to_owned());
        }
        lines.push(format!("  on failure  {}", how.join(", ")));
        if let Some(max) = plan.max_parallel {
            lines.push(format!("  at once     {max}"));
        }
        if let Some(timeout) = plan.timeout {
            lines.push(format!("  timeout     {} in all", words::span(timeout)));
        }
        lines
    }

    fn legend(&self) -> String {
        let mut seen = BTreeSet::new();
        for (_, step) in self.plan.iter() {
            seen.extend(step.action().map(words::undo_sign));
        }
        let all =
            [("↶", "undone by a rollback"), ("–", "left as it is"), ("✗", "cannot be taken back"), ("·", "only looks")];
        let mut known: Vec<_> = all.iter().filter(|(sign, _)| seen.contains(sign)).collect();
        let previews: Vec<_> = self.previews.all().collect();
        let changes = |previewed: &&Previewed, what: Option<bool>| match previewed {
            Previewed::Seen(preview) => preview.changes == what,
            Previewed::Failed(_) | Previewed::Later(_) => what.is_none(),
        };
        let signs =
            [(Some(true), ("→", "would change")), (Some(false), ("=", "is so already")), (None, ("?", "seen later"))];
        known.extend(signs.iter().filter(|(what, _)| previews.iter().any(|p| changes(p, *what))).map(|(_, sign)| sign));
        known.iter().map(|(sign, text)| format!("{sign} {text}")).collect::<Vec<_>>().join("   ")
    }

    fn level(&self, steps: &[StepIdx], depth: usize, numbers: usize, out: &mut String) {
        let wide = steps.iter().map(|s| self.plan.step(*s).id.chars().count()).max().unwrap_or(0);
        let type_wide = steps.iter().map(|s| self.plan.step(*s).type_name().len()).max().unwrap_or(0);
        let pad = "  ".repeat(depth);
        let mut last = None;
        for (at, step) in steps.iter().enumerate() {
            let s = self.plan.step(*step);
            let wave = self.waves[step.at()];
            let number = if last == Some(wave) { String::new() } else { (wave + 1).to_string() };
            last = Some(wave);
            let sign = s.action().map_or(" ", words::undo_sign);
            let color = if sign == "✗" { RED } else { CYAN };
            let about = self.about(*step);
            let about = if about.is_empty() { String::new() } else { format!("  {}", about.join(" · ")) };
            let type_name = s.type_name();
            let type_wide = if about.is_empty() { 0 } else { type_wide };
            let line = format!(
                "{pad}{DIM}{number:>numbers$}{RESET}  {color}{sign}{RESET} {BOLD}{:wide$}{RESET}  {type_name:type_wide$}{DIM}{about}{RESET}",
                s.id
            );
            out.push_str(line.trim_end());
            out.push('\n');
            let under = format!("{pad}{:numbers$}      ", "");
            if let Some(previewed) = self.previews.of(*step) {
                self.previewed(*step, previewed, &under, out);
            }
            self.instances(*step, &under, out);
            let inner = self.by_wave(self.inside(*step));
            if !inner.is_empty() {
                self.level(&inner, depth + 2, numbers, out);
            }
            let wave_ends = steps.get(at + 1).is_none_or(|next| self.waves[next.at()] != wave);
            if wave_ends {
                let from = steps[..=at].iter().rposition(|s| self.waves[s.at()] != wave).map_or(0, |p| p + 1);
                self.line_across(&steps[from..=at], &steps[..=at], out);
            }
        }
    }

    /// The point of no return, where one of these steps is it.
    fn line_across(&self, wave: &[StepIdx], above: &[StepIdx], out: &mut String) {
        for point in wave.iter().filter(|s| self.plan.step(**s).irreversible) {
            let behind = self.up_to(*point);
            let others = above.iter().filter(|s| !behind.contains(s)).count();
            let text = if others == 0 {
                "point of no return: after this nothing above is undone".to_owned()
            } else {
                format!("point of no return: after {} what it needs is not undone", self.plan.step(*point).id)
            };
            // One that may be skipped is one only then.
            let when = self.plan.step(*point).when.as_ref();
            let when = when.map_or(String::new(), |when| format!(", when {}", when.text().trim()));
            out.push_str(&format!("{RED}──── {text}{when} ────{RESET}\n"));
        }
    }

    /// What is set for a step, in few words each.
    fn about(&self, step: StepIdx) -> Vec<String> {
        let s = self.plan.step(step);
        let mut about = Vec::new();
        let needs = self.plan.edges.needs(step);
        let above = step.0.checked_sub(1).map(StepIdx);
        let follows = needs.len() == 1 && needs.first().copied() == above;
        if !needs.is_empty() && !follows {
            let ids: Vec<&str> = needs.iter().map(|n| &*self.plan.step(*n).id).collect();
            about.push(format!("after {}", listed(&ids, 4)));
        }
        if let Some(when) = &s.when {
            about.push(format!("when {}", when.text().trim()));
        }
        if let PlanKind::ForEach(each) = &s.kind {
            about.push(self.items(&each.items));
            about.extend(each.max_parallel.map(|n| format!("{n} at once")));
        }
        if let Some(action) = s.action() {
            if let Some(target) = &action.target {
                about.push(format!("on {}", self.previews.rendered(target)));
            }
            if let PlanRollback::Action { action, .. } = &action.rollback {
                about.push(format!("undone by {}", action.step_type.descriptor().name));
            }
        }
        about.extend(policy(s));
        if !s.locks.is_empty() {
            let locks: Vec<_> = s.locks.iter().map(|l| self.previews.rendered(l)).collect();
            about.push(format!("locks {}", locks.join(", ")));
        }
        if s.continue_on_error {
            about.push("may fail".to_owned());
        }
        match s.on_failure {
            Some(OnFailure::Rollback) => about.push("on failure: rolled back by itself".to_owned()),
            Some(OnFailure::Hold) => about.push("on failure: hold".to_owned()),
            Some(OnFailure::Continue) => about.push("on failure: go on".to_owned()),
            None => {}
        }
        about
    }

    fn items(&self, items: &ValueTemplate) -> String {
        match self.previews.rendered_value(items) {
            Some(Json::Array(list)) => {
                let names: Vec<String> = list.iter().map(item_name).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                format!("for each of {}: {}", list.len(), listed(&names, 5))
            }
            Some(Json::Object(map)) => {
                let names: Vec<&str> = map.keys().map(String::as_str).collect();
                format!("for each of {}: {}", map.len(), listed(&names, 5))
            }
            _ => "for each item, known while running".to_owned(),
        }
    }

    fn follows_a_change(&self, step: StepIdx) -> bool {
        let changes = |s: &StepIdx| self.plan.step(*s).action().is_some_and(|a| a.access == Access::Changes);
        self.up_to(step).iter().filter(|s| **s != step).any(changes)
    }

    /// A step of a `for_each`, for each item that is known.
    fn instances(&self, step: StepIdx, pad: &str, out: &mut String) {
        let instances = self.previews.instances(step);
        for (path, previewed) in instances.iter().take(MOST_INSTANCES) {
            out.push_str(&format!("{pad}{DIM}{path}{RESET}\n"));
            self.previewed(step, previewed, &format!("{pad}  "), out);
        }
        if instances.len() > MOST_INSTANCES {
            let more = words::grouped(instances.len() - MOST_INSTANCES);
            out.push_str(&format!("{pad}{DIM}and {more} more: --output json shows them{RESET}\n"));
        }
    }

    fn previewed(&self, step: StepIdx, previewed: &Previewed, pad: &str, out: &mut String) {
        match previewed {
            Previewed::Seen(preview) => {
                let word = match preview.changes {
                    Some(true) => format!("{CYAN}→{RESET} "),
                    Some(false) => format!("{DIM}={RESET} "),
                    None => format!("{DIM}?{RESET} "),
                };
                let mut lines = preview.summary.lines();
                out.push_str(&format!("{pad}{word}{}\n", lines.next().unwrap_or_default()));
                for line in lines.chain(preview.details.iter().map(String::as_str)) {
                    out.push_str(&format!("{pad}  {}{line}{RESET}\n", diff_color(line)));
                }
            }
            // It was looked at in the world as it is now, before what comes first has been done.
            Previewed::Failed(error) if self.follows_a_change(step) => {
                out.push_str(&format!("{pad}{DIM}? not yet: {}{RESET}\n", error.message));
            }
            Previewed::Failed(error) => {
                out.push_str(&format!("{pad}{YELLOW}! cannot be foreseen: {}{RESET}\n", error.message));
            }
            Previewed::Later(waits) => out.push_str(&format!("{pad}{DIM}? known after {waits}{RESET}\n")),
        }
    }

    fn json(&self) -> Json {
        let plan = self.plan;
        let keeps = self.keeps();
        json!({
            "playbook": plan.name, "description": plan.description, "digest": plan.digest(),
            "inputs": self.inputs.open, "missing_inputs": self.missing,
            "on_failure": plan.on_failure, "fail_fast": plan.fail_fast, "max_parallel": plan.max_parallel,
            "timeout_ms": plan.timeout.map(|t| t.as_millis() as u64),
            "locks": plan.locks.iter().map(|l| self.previews.rendered(l)).collect::<Vec<_>>(),
            "steps": self.json_level(&self.top(MAIN)),
            "finally": self.json_level(&self.top(FINALLY)),
            "keeps": keeps.iter().map(|(s, why)| json!({ "step": plan.path(*s), "why": why })).collect::<Vec<_>>(),
        })
    }

    fn json_level(&self, steps: &[StepIdx]) -> Json {
        steps.iter().map(|step| self.json_step(*step)).collect()
    }

    fn json_step(&self, step: StepIdx) -> Json {
        let plan = self.plan;
        let s = plan.step(step);
        let needs: Vec<_> = plan.edges.needs(step).iter().map(|n| plan.path(*n)).collect();
        let mut one = json!({
            "id": plan.path(step), "type": s.type_name(), "wave": self.waves[step.at()] + 1, "needs": needs,
            "when": s.when.as_ref().map(runback_core::expr::Expr::text), "irreversible": s.irreversible,
            "continue_on_error": s.continue_on_error, "on_failure": s.on_failure,
            "locks": s.locks.iter().map(|l| self.previews.rendered(l)).collect::<Vec<_>>(),
        });
        if let Some(action) = s.action() {
            one["access"] = json!(action.access);
            one["undo"] = json!(action.undo_kind());
            one["target"] = json!(action.target.as_ref().map_or("local".to_owned(), |t| self.previews.rendered(t)));
            one["timeout_ms"] = json!(s.policy.timeout.map(|t| t.as_millis() as u64));
            one["max_attempts"] = json!(s.policy.retry.max_attempts);
            one["rollback"] = json!(rollback_name(action));
            one["preview"] = self.previews.of(step).map_or(Json::Null, preview_json);
            let instances = self.previews.instances(step);
            if !instances.is_empty() {
                one["previews"] = instances
                    .iter()
                    .map(|(path, previewed)| json!({ "step": path, "preview": preview_json(previewed) }))
                    .collect();
            }
        }
        if let PlanKind::ForEach(each) = &s.kind {
            one["items"] = self.previews.rendered_value(&each.items).unwrap_or(Json::Null);
            one["max_parallel"] = json!(each.max_parallel);
        }
        let inner = self.by_wave(self.inside(step));
        if !inner.is_empty() {
            one["steps"] = self.json_level(&inner);
        }
        one
    }
}

fn preview_json(previewed: &Previewed) -> Json {
    match previewed {
        Previewed::Seen(preview) => json!(preview),
        Previewed::Failed(error) => json!({ "error": error }),
        Previewed::Later(waits) => json!({ "known_after": waits }),
    }
}

fn rollback_name(action: &PlanAction) -> &'static str {
    match &action.rollback {
        PlanRollback::Auto => "auto",
        PlanRollback::None => "none",
        PlanRollback::Action { action, .. } => action.step_type.descriptor().name,
    }
}

/// Instances of one step that are told; a program gets all that were looked at.
const MOST_INSTANCES: usize = 8;

fn policy(step: &PlanStep) -> Vec<String> {
    let policy = &step.policy;
    let mut about = Vec::new();
    let retry = &policy.retry;
    if retry.max_attempts > 1 {
        about.push(format!("up to {} attempts from {}", retry.max_attempts, words::span(retry.initial_interval)));
        if retry.on_exhausted == Exhausted::Hold {
            about.push("then hold".to_owned());
        }
    }
    about.extend(policy.timeout.map(|t| format!("timeout {}", words::span(t))));
    about.extend(policy.deadline.map(|t| format!("deadline {}", words::span(t))));
    about.extend(policy.idle_timeout.map(|t| format!("idle timeout {}", words::span(t))));
    if policy.detach {
        about.push("detached".to_owned());
    }
    about
}

fn diff_color(line: &str) -> &'static str {
    match line.as_bytes().first() {
        Some(b'+') => term::GREEN,
        Some(b'-') => RED,
        _ => DIM,
    }
}

fn item_name(item: &Json) -> String {
    match item {
        Json::String(s) => s.clone(),
        Json::Object(map) => map
            .get("name")
            .or_else(|| map.get("id"))
            .and_then(Json::as_str)
            .map_or_else(|| Json::Object(map.clone()).to_string(), str::to_owned),
        other => other.to_string(),
    }
}

fn listed(names: &[&str], most: usize) -> String {
    if names.len() <= most {
        return names.join(", ");
    }
    format!("{} and {} more", names[..most].join(", "), words::grouped(names.len() - most))
}

/// A value in at most 60 characters.
fn short(value: &Json) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= 60 {
        return text;
    }
    format!("{}…", text.chars().take(59).collect::<String>())
}
