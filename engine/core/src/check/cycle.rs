//! Steps that need each other in a circle: the whole path, with a label at each edge.

use std::collections::{HashMap, VecDeque};

use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Code, Diagnostic, Label};
use crate::plan::StepIdx;

use super::place::{Edge, Placed, Why};

/// Reports one shortest circle for each knot of steps.
pub(super) fn find(placed: &mut Placed<'_>, pairs: &[(StepIdx, StepIdx)]) {
    if pairs.iter().all(|(step, needed)| needed < step) {
        // Each needs only what stands above it: no circle, and nearly every playbook.
        return;
    }
    let mut graph = DiGraph::<(), ()>::with_capacity(placed.steps.len(), pairs.len());
    for _ in 0..placed.steps.len() {
        graph.add_node(());
    }
    for (from, to) in pairs {
        graph.add_edge(NodeIndex::new(from.at()), NodeIndex::new(to.at()), ());
    }
    if petgraph::algo::toposort(&graph, None).is_ok() {
        return;
    }
    let mut knots: Vec<Vec<StepIdx>> = petgraph::algo::kosaraju_scc(&graph)
        .into_iter()
        .filter(|knot| knot.len() > 1)
        .map(|knot| {
            let mut knot: Vec<_> = knot.into_iter().map(|n| StepIdx(n.index() as u32)).collect();
            knot.sort();
            knot
        })
        .collect();
    knots.sort();
    for knot in knots {
        let circle = shortest(&graph, &knot);
        report(placed, &circle);
    }
}

/// The shortest circle through the first step of a knot, from that step on.
fn shortest(graph: &DiGraph<(), ()>, knot: &[StepIdx]) -> Vec<StepIdx> {
    let start = NodeIndex::new(knot[0].at());
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut todo = VecDeque::from([start]);
    while let Some(at) = todo.pop_front() {
        for next in graph.neighbors(at) {
            if next == start {
                let mut circle = vec![StepIdx(at.index() as u32)];
                let mut back = at;
                while let Some(before) = came_from.get(&back) {
                    circle.push(StepIdx(before.index() as u32));
                    back = *before;
                }
                circle.reverse();
                return circle;
            }
            let inside = knot.binary_search(&StepIdx(next.index() as u32)).is_ok();
            if inside && next != start && !came_from.contains_key(&next) {
                came_from.insert(next, at);
                todo.push_back(next);
            }
        }
    }
    knot.to_vec()
}

fn report(placed: &mut Placed<'_>, circle: &[StepIdx]) {
    let name = |s: StepIdx| placed.steps[s.at()].id.to_string();
    let around: Vec<String> = circle.iter().chain(&circle[..1]).map(|s| name(*s)).collect();
    let labels: Vec<Label> = circle
        .iter()
        .zip(circle.iter().cycle().skip(1))
        .filter_map(|(from, to)| {
            // The edge that the author wrote says more than the one that follows from the order.
            let between = placed.edges.iter().filter(|e| e.from == *from && e.to == *to);
            let Edge { span, why, .. } = between.min_by_key(|e| (e.why == Why::Order, e.span))?;
            let text = match why {
                Why::Needs => format!("`{}` needs `{}`", name(*from), name(*to)),
                Why::Order => {
                    format!("`{}` has no `needs`, so it runs after `{}`, the step above", name(*from), name(*to))
                }
                Why::Reference => format!("`{}` uses an output of `{}`", name(*from), name(*to)),
            };
            Some(Label { span: *span, text })
        })
        .collect();
    let by_order = circle.iter().any(|from| placed.edges.iter().any(|e| e.from == *from && e.why == Why::Order));
    let help = if by_order {
        "a step without `needs` runs after the step above it: move the step up, or give it `needs: []`"
    } else {
        "take one of these edges away"
    };
    let message = format!("these steps need each other in a circle: {}", around.join(" → "));
    placed.diagnostics.push(Diagnostic { code: Code::Cycle, message, help: Some(help.to_owned()), labels });
}
