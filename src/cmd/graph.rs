//! `runback graph`: the DAG of a playbook as Mermaid, DOT or text.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use runback_core::plan::{FINALLY, MAIN, Plan, PlanKind, SegmentIdx, StepIdx};

use crate::exit::Exit;
use crate::failure::Done;
use crate::load;
use crate::term;
use crate::words;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "FILE")]
    file: String,

    #[arg(long, short, value_enum, default_value_t = GraphFormat::Text)]
    format: GraphFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GraphFormat {
    /// For Markdown and wikis
    Mermaid,
    /// For Graphviz: runback graph FILE -f dot | dot -Tsvg
    Dot,
    Text,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let plan = load::load(&arguments.file, &runback_steps::catalog()).plan()?;
    let text = match arguments.format {
        GraphFormat::Mermaid => mermaid(&plan),
        GraphFormat::Dot => dot(&plan),
        GraphFormat::Text => text(&plan),
    };
    term::line(text.trim_end());
    Ok(Exit::Succeeded)
}

/// The steps one level down: a block's children, or the one step of a `for_each` body.
fn inside(plan: &Plan, step: StepIdx) -> Vec<StepIdx> {
    match &plan.step(step).kind {
        PlanKind::Action(_) => Vec::new(),
        PlanKind::Block(_) => plan.children(plan.step(step).segment, Some(step)).collect(),
        PlanKind::ForEach(each) => plan.children(each.body, None).collect(),
    }
}

fn top(plan: &Plan, segment: SegmentIdx) -> Vec<StepIdx> {
    plan.children(segment, None).collect()
}

/// Where an edge from or to a container is tied in DOT, which has no edges to clusters: one of its actions.
fn anchor(plan: &Plan, step: StepIdx, last: bool) -> StepIdx {
    let mut at = step;
    loop {
        let inner = inside(plan, at);
        match if last { inner.last() } else { inner.first() } {
            Some(next) => at = *next,
            None => return at,
        }
    }
}

fn label(plan: &Plan, step: StepIdx) -> String {
    let s = plan.step(step);
    let sign = s.action().map_or(String::new(), |a| format!("{} ", words::undo_sign(a)));
    format!("{sign}{}", s.id)
}

fn mermaid(plan: &Plan) -> String {
    fn level(plan: &Plan, steps: &[StepIdx], depth: usize, out: &mut String) {
        let pad = "  ".repeat(depth);
        for step in steps {
            let s = plan.step(*step);
            let inner = inside(plan, *step);
            let name = quoted(&label(plan, *step));
            if inner.is_empty() {
                let class = if s.irreversible { ":::irreversible" } else { "" };
                let _ = writeln!(out, "{pad}s{}[\"{name}<br/><small>{}</small>\"]{class}", step.0, s.type_name());
            } else {
                let _ = writeln!(out, "{pad}subgraph s{}[\"{name} ({})\"]", step.0, s.type_name());
                level(plan, &inner, depth + 1, out);
                let _ = writeln!(out, "{pad}end");
            }
        }
    }
    let mut out = String::from("flowchart TD\n");
    level(plan, &top(plan, MAIN), 1, &mut out);
    let finally = top(plan, FINALLY);
    if !finally.is_empty() {
        out.push_str("  subgraph finally\n");
        level(plan, &finally, 2, &mut out);
        out.push_str("  end\n");
    }
    for (step, _) in plan.iter() {
        for need in plan.edges.needs(step) {
            let arrow = if plan.step(*need).irreversible { "==>" } else { "-->" };
            let _ = writeln!(out, "  s{} {arrow} s{}", need.0, step.0);
        }
    }
    if plan.steps.iter().any(|s| s.irreversible) {
        out.push_str("  classDef irreversible stroke:#c00,stroke-width:3px\n");
    }
    out
}

fn quoted(text: &str) -> String {
    text.replace('"', "#quot;").replace('<', "&lt;")
}

fn dot(plan: &Plan) -> String {
    fn level(plan: &Plan, steps: &[StepIdx], depth: usize, out: &mut String) {
        let pad = "  ".repeat(depth);
        for step in steps {
            let s = plan.step(*step);
            let inner = inside(plan, *step);
            let name = escaped(&label(plan, *step));
            if inner.is_empty() {
                let extra = if s.irreversible { ", color=red, penwidth=3" } else { "" };
                let _ = writeln!(out, "{pad}s{} [label=\"{name}\\n{}\"{extra}];", step.0, s.type_name());
            } else {
                let _ = writeln!(out, "{pad}subgraph cluster_s{} {{", step.0);
                let _ = writeln!(out, "{pad}  label=\"{name} ({})\";", s.type_name());
                level(plan, &inner, depth + 1, out);
                let _ = writeln!(out, "{pad}}}");
            }
        }
    }
    let mut out = format!("digraph \"{}\" {{\n", escaped(&plan.name));
    out.push_str("  compound=true;\n  node [shape=box, style=rounded];\n");
    level(plan, &top(plan, MAIN), 1, &mut out);
    let finally = top(plan, FINALLY);
    if !finally.is_empty() {
        out.push_str("  subgraph cluster_finally {\n    label=\"finally\";\n");
        level(plan, &finally, 2, &mut out);
        out.push_str("  }\n");
    }
    for (step, _) in plan.iter() {
        for need in plan.edges.needs(step) {
            let (from, to) = (anchor(plan, *need, true), anchor(plan, step, false));
            let mut extra = Vec::new();
            if from != *need {
                extra.push(format!("ltail=cluster_s{}", need.0));
            }
            if to != step {
                extra.push(format!("lhead=cluster_s{}", step.0));
            }
            let extra = if extra.is_empty() { String::new() } else { format!(" [{}]", extra.join(", ")) };
            let _ = writeln!(out, "  s{} -> s{}{extra};", from.0, to.0);
        }
    }
    out.push_str("}\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn text(plan: &Plan) -> String {
    fn level(plan: &Plan, steps: &[StepIdx], depth: usize, out: &mut String) {
        for step in steps {
            let s = plan.step(*step);
            let needs: Vec<_> = plan.edges.needs(*step).iter().map(|n| plan.step(*n).id.to_string()).collect();
            let after = if needs.is_empty() { String::new() } else { format!("  ← {}", needs.join(", ")) };
            let _ = writeln!(out, "{}{} ({}){after}", "  ".repeat(depth), label(plan, *step), s.type_name());
            level(plan, &inside(plan, *step), depth + 1, out);
        }
    }
    let mut out = String::new();
    level(plan, &top(plan, MAIN), 0, &mut out);
    let finally = top(plan, FINALLY);
    if !finally.is_empty() {
        out.push_str("finally\n");
        level(plan, &finally, 1, &mut out);
    }
    out
}
