//! `k8s.exec`: runs a program in a container that runs, as `kubectl exec` does.
//!
//! `resource` is a pod, or a workload or Service, of which the oldest ready pod is taken. No shell is involved unless the
//! command is one. `outputs` picks values from stdout as those of `exec` do. A program gets no standard input: API servers
//! before 1.30 cannot tell it where that ends. **Undo: none**: runback does not know what the program did; give the step
//! a `rollback:`. **After an interruption** a person is asked: nobody can tell how far the program came.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, StepError,
    StepType, UndoKind,
};
use runback_core::target::{Command, Exit};
use runback_core::template::ValueTemplate;

use super::client::{Clusters, k8s_inputs};
use super::object::{common_problems, problem, split, text};
use super::pods::container;
use crate::command_outputs::{self, CommandOutputs, OutputSpecs};

k8s_inputs! {
    /// What to run, and where.
    {
        /// `pod/web-0`, or a workload or Service, such as `deploy/web`.
        resource: String,
        /// The container. Default: the pod's default one, or its only one.
        #[serde(default)]
        container: Option<String>,
        /// The program and its arguments.
        #[schemars(extend("x-runback-line" = "argv"))]
        command: Vec<String>,
        /// Name → where its value comes from: `stdout`, `{json: path}` or `{regex: pattern}`.
        #[serde(default)]
        outputs: OutputSpecs,
        /// Exit codes that are a success.
        #[serde(default = "command_outputs::zero")]
        ok_codes: Vec<i32>,
        /// Exit codes that mean that something was changed. Default: all that are a success. `[]`: it only looks.
        #[serde(default)]
        changed_codes: Option<Vec<i32>>,
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sExec(pub(crate) Clusters);

#[async_trait::async_trait]
impl StepType for K8sExec {
    type Inputs = Inputs;
    type Outputs = CommandOutputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.exec",
            doc: "Runs a program in a container of a Kubernetes pod.",
            access: Access::Changes,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Ask,
            commands: Commands::Client,
            examples: &[
                "\n- id: reload\n  uses: k8s.exec\n  with: { resource: deploy/web, container: nginx, command: [nginx, -s, reload] }\n",
                "\n- id: version\n  uses: k8s.exec\n  with: { resource: pod/db-0, command: [psql, --version], changed_codes: [], outputs: { version: { regex: '([0-9.]+)' } } }\n",
            ],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        command_outputs::capabilities(with)
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        command_outputs::names(with)
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        if inputs.command.first().is_none_or(String::is_empty) {
            found.push(problem("command", "must name a program"));
        }
        found.extend(command_outputs::problems(&inputs.outputs, false));
        found.extend(command_outputs::code_problems(&inputs.ok_codes, inputs.changed_codes.as_deref()));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let (_, pod) = kube.pod_for(&kube.object(&inputs.resource).await?).await?;
        let name = container(&pod, inputs.container.as_deref())?;
        let command = Command::new(&inputs.command).display();
        let summary = format!("run {command} in {name} of the pod {}", text(&pod, "/metadata/name"));
        Ok(Preview { changes: None, summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<CommandOutputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let (_, pod) = kube.pod_for(&kube.object(&inputs.resource).await?).await?;
        let name = container(&pod, inputs.container.as_deref())?;
        cx.phase(format!("running in {name} of the pod {}", text(&pod, "/metadata/name")));
        let ran = kube.exec(&pod, &name, &inputs.command, command_outputs::keep(&inputs.outputs)).await?;
        let exit = Exit {
            code: ran.code,
            stdout: ran.stdout,
            stdout_cut: ran.stdout_cut,
            stderr_tail: ran.stderr_tail,
            ..Exit::default()
        };
        if !exit.code.is_some_and(|code| inputs.ok_codes.contains(&code)) {
            return Err(StepError::from_exit(Class::Permanent, &Command::new(&inputs.command), &exit));
        }
        let outputs = command_outputs::collect(&inputs.outputs, &exit, "")?;
        let changes = |codes: &Vec<i32>| exit.code.is_some_and(|code| codes.contains(&code));
        Ok(Acted { outputs, changed: inputs.changed_codes.as_ref().is_none_or(changes) })
    }
}
