//! What steps would change, asked of the live world without changing it, for those whose inputs are known before
//! a run. Knows nothing of how it is shown.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runback_core::Json;
use runback_core::decide::{Effect, decide};
use runback_core::event::{Created, Event, EventBody, FORMAT, RunOptions, SkipReason};
use runback_core::plan::{Plan, PlanAction, PlanKind, StepIdx};
use runback_core::progress::Progress;
use runback_core::scope::{self, Lent};
use runback_core::state::{NodeId, RunState};
use runback_core::step::{Answer, Cx, Host, Preview, Question, StepError};
use runback_core::target::{Detached, Stream, Target, Watch};
use runback_core::template::{Reference, Template, ValueTemplate};
use runback_exec::driver::Surroundings;
use runback_exec::target::Targets;
use serde_json::json;

use crate::failure::Failure;
use crate::inputs::Inputs;
use crate::state_dir;
use crate::surroundings::{self, Machines};
use crate::words;

/// Instances of one `for_each` that are looked at.
const MOST_ITEMS: usize = 100;
/// Steps of which all instances together may consist.
const MOST_NODES: usize = 200_000;
/// How long one step may take to look at the world.
const LONGEST: Duration = Duration::from_secs(20);

/// What could be found out about one step.
#[derive(Debug)]
pub(crate) enum Previewed {
    Seen(Preview),
    Failed(StepError),
    /// Its inputs come from this step.
    Later(String),
}

#[derive(Debug, Default)]
pub(crate) struct Previews {
    steps: HashMap<StepIdx, Previewed>,
    /// Steps inside a `for_each`, with their paths, in the order of its items.
    instances: BTreeMap<StepIdx, Vec<(String, Previewed)>>,
    /// What templates can see before a run.
    context: Json,
}

impl Previews {
    /// Only what templates say, nothing from the world.
    pub(crate) fn blind(plan: &Plan, inputs: &Inputs) -> Self {
        let context = json!({
            "inputs": inputs.open,
            "playbook": { "name": plan.name, "description": plan.description },
        });
        Self { steps: HashMap::new(), instances: BTreeMap::new(), context }
    }

    pub(crate) fn look(
        plan: &Arc<Plan>,
        inputs: &Inputs,
        missing: &[String],
        base: &Path,
        state_dir: &Path,
    ) -> Result<Self, Failure> {
        let mut previews = Self::blind(plan, inputs);
        (previews.steps, previews.instances) = state_dir::block_on(async {
            let machines = Machines::new(plan, base, state_dir)?;
            let around = surroundings::new(plan, base.to_owned(), &machines, inputs.secret.clone()).await?;
            let looker = Looker { state: about_to_start(plan, inputs)?, around: &around, missing };
            let seen = looker.all().await;
            machines.close().await;
            Ok(seen)
        })?;
        Ok(previews)
    }

    pub(crate) fn of(&self, step: StepIdx) -> Option<&Previewed> {
        self.steps.get(&step)
    }

    pub(crate) fn instances(&self, step: StepIdx) -> &[(String, Previewed)] {
        self.instances.get(&step).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Previewed> {
        self.steps.values().chain(self.instances.values().flatten().map(|(_, previewed)| previewed))
    }

    /// A template's text, rendered where that is possible before a run.
    pub(crate) fn rendered(&self, template: &Template) -> String {
        template.render_string(&self.context).unwrap_or_else(|_| template.text().to_owned())
    }

    pub(crate) fn rendered_value(&self, value: &ValueTemplate) -> Option<Json> {
        value.render(&self.context).ok()
    }
}

/// The state of a run that has just begun: what the engine would render inputs from.
fn about_to_start(plan: &Arc<Plan>, inputs: &Inputs) -> Result<RunState, Failure> {
    let created = Created {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: "preview".to_owned(),
        playbook: plan.name.clone(),
        texts: Vec::new(),
        base: String::new(),
        digest: plan.digest().to_owned(),
        inputs: Json::Object(inputs.open.clone()),
        by: surroundings::by(),
        from: "plan".to_owned(),
        options: RunOptions::default(),
    };
    let mut state = RunState::new(Arc::clone(plan));
    let bodies = [EventBody::RunCreated(Box::new(created)), EventBody::RunStarted {}];
    for (seq, body) in (1..).zip(bodies) {
        let event = Event { seq, at: words::now_ms(), body };
        state.apply(&event).map_err(|e| {
            Failure::failed(format!("the plan cannot be started: {e}"))
                .help("report it: a plan that was checked can be")
        })?;
    }
    if plan.iter().any(|(_, step)| matches!(step.kind, PlanKind::ForEach(_))) {
        pass_through(&mut state);
    }
    Ok(state)
}

/// So that instances are there to look at: everything goes well and gives nothing. What then cannot be worked out is
/// passed over; only what is known beforehand is looked at anyway.
fn pass_through(state: &mut RunState) {
    while state.ids().count() < MOST_NODES
        && let Some(bodies) = decide(state, state.last_at).into_iter().find_map(|effect| passed(state, effect))
    {
        for body in bodies {
            let event = Event { seq: state.last_seq + 1, at: state.last_at, body };
            if state.apply(&event).is_err() {
                return;
            }
        }
    }
}

/// What becomes of an effect where nothing is done; None = it leads nowhere.
fn passed(state: &RunState, effect: Effect) -> Option<Vec<EventBody>> {
    let path = |node| Arc::clone(state.path(node));
    Some(match effect {
        Effect::Record(EventBody::StepFailed { step, .. }) => {
            vec![EventBody::StepSkipped { step, reason: SkipReason::Condition }]
        }
        Effect::Record(EventBody::StepExpanded { step, mut items }) => {
            items.truncate(MOST_ITEMS);
            vec![EventBody::StepExpanded { step, items }]
        }
        Effect::Record(body @ (EventBody::BlockStarted { .. } | EventBody::StepSkipped { .. })) => vec![body],
        Effect::TakeLocks { node, names } => vec![EventBody::LockTaken { step: Some(path(node)), names }],
        Effect::Start { node } => {
            let (step, attempt) = (path(node), state.node(node).attempts + 1);
            let (outputs, changed) = (Json::Null, false);
            vec![
                EventBody::AttemptStarted { step: Arc::clone(&step), attempt },
                EventBody::AttemptSucceeded { step, attempt, changed, outputs, masked: Vec::new() },
            ]
        }
        _ => return None,
    })
}

struct Looker<'a> {
    state: RunState,
    around: &'a Surroundings,
    missing: &'a [String],
}

impl Looker<'_> {
    async fn all(&self) -> (HashMap<StepIdx, Previewed>, BTreeMap<StepIdx, Vec<(String, Previewed)>>) {
        let (mut seen, mut instances) = (HashMap::new(), BTreeMap::<_, Vec<_>>::new());
        for node in self.state.ids() {
            let Some(action) = self.state.step(node).action() else { continue };
            if !action.expressions.is_empty() {
                // What an expression says about the run is not known yet.
                continue;
            }
            let previewed = match self.waits_for(node, action) {
                Some(what) => Previewed::Later(what),
                None => match self.one(node, action).await {
                    Ok(preview) => Previewed::Seen(self.masked(preview)),
                    Err(error) => Previewed::Failed(error),
                },
            };
            let (step, path) = (self.state.node(node).step, self.state.path(node));
            if RunState::is_root(self.state.group(node).owner) {
                seen.insert(step, previewed);
            } else {
                instances.entry(step).or_default().push((path.to_string(), previewed));
            }
        }
        (seen, instances)
    }

    /// What must be known first.
    fn waits_for(&self, node: NodeId, action: &PlanAction) -> Option<String> {
        let mut found = None;
        let step = self.state.step(node);
        let mut look = |r: &Reference| {
            let name = r.path.get(1).map_or("", String::as_str);
            let waits = match r.path.first().map(String::as_str) {
                Some("steps") => Some(name.to_owned()),
                Some("inputs") if step.scope.0 == 0 && self.missing.iter().any(|m| m == name) => {
                    Some(format!("-i {name}=…"))
                }
                _ => None,
            };
            if found.is_none() {
                found = waits;
            }
        };
        action.with.for_each_reference(&mut look);
        action.target.iter().flat_map(Template::references).for_each(&mut look);
        action.env.iter().flat_map(|(_, t)| t.references()).for_each(&mut look);
        found
    }

    async fn one(&self, node: NodeId, action: &PlanAction) -> Result<Preview, StepError> {
        let broken = |e: runback_core::template::RenderError| StepError::permanent(e.message);
        let lent = Lent {
            secrets: Some(&self.around.secrets),
            secret_inputs: Some(&self.around.secret_inputs),
            ..Lent::default()
        };
        let text = |template: &Template| {
            scope::of_step(&self.state, node, template.references().iter(), lent)
                .and_then(|context| template.render_string(&context))
                .map_err(broken)
        };
        let target_name = action.target.as_ref().map(text).transpose()?.unwrap_or_else(|| "local".to_owned());
        let target = self.around.targets.get(&target_name)?;
        let with = scope::render(&self.state, node, &action.with, Lent { target: Some(&target_name), ..lent });
        let inputs = with.map_err(broken)?;
        action.refuse(&inputs)?;
        let mut env = BTreeMap::new();
        for (name, template) in &action.env {
            env.insert(name.clone(), text(template)?);
        }
        let host = OnlyLooks { targets: Arc::clone(&self.around.targets) };
        let cx = Cx {
            run: "preview",
            step: self.state.path(node),
            attempt: 1,
            target: target.as_ref(),
            env: &env,
            base: &self.around.base,
            force: false,
            detach: false,
            reattach: None,
            host: &host,
        };
        let preview = action.step_type.preview(&cx, &inputs);
        tokio::time::timeout(LONGEST, preview).await.unwrap_or_else(|_| {
            Err(StepError::transient(format!("it took longer than {} s to look", LONGEST.as_secs())))
        })
    }

    fn masked(&self, preview: Preview) -> Preview {
        let mask = |text: String| self.around.masker.mask_str(&text).into_owned();
        Preview {
            changes: preview.changes,
            summary: mask(preview.summary),
            details: preview.details.into_iter().map(mask).collect(),
        }
    }
}

/// Lends a preview what it needs to look, and nothing to act with.
struct OnlyLooks {
    targets: Arc<dyn Targets>,
}

#[async_trait::async_trait]
impl Watch for OnlyLooks {
    fn output(&self, _stream: Stream, _bytes: &[u8]) {}

    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }

    fn kill_grace(&self) -> Duration {
        Duration::ZERO
    }
}

#[async_trait::async_trait]
impl Host for OnlyLooks {
    fn now_ms(&self) -> u64 {
        words::now_ms()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn progress(&self, _progress: Progress) {}

    async fn ask(&self, _question: Question) -> Result<Answer, StepError> {
        Err(StepError::permanent("a preview asks nobody"))
    }

    async fn note(&self, _note: Json) -> Result<(), StepError> {
        Err(StepError::permanent("a preview records nothing"))
    }

    fn notes(&self) -> Vec<Json> {
        Vec::new()
    }

    async fn started_detached(&self, _detached: &Detached) -> Result<(), StepError> {
        Err(StepError::permanent("a preview starts nothing"))
    }

    async fn target(&self, name: &str) -> Result<Arc<dyn Target>, StepError> {
        Ok(self.targets.get(name)?)
    }
}
