//! Step types that are only what they declare: nothing here acts.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, AnyStepType, Catalog, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview,
    Probe, StepError, UndoKind, Undone,
};
use runback_core::template::ValueTemplate;
use serde_json::json;

#[derive(Debug, Clone, Copy)]
struct Declared {
    name: &'static str,
    access: Access,
    undo: UndoKind,
    on_interrupt: OnInterrupt,
}

pub(crate) const TYPES: [(&str, Access, UndoKind, OnInterrupt); 8] = [
    ("t.read", Access::Reads, UndoKind::None, OnInterrupt::Rerun),
    ("t.change", Access::Changes, UndoKind::Full, OnInterrupt::Probe),
    ("t.rerun", Access::Changes, UndoKind::Full, OnInterrupt::Rerun),
    ("t.ask", Access::Changes, UndoKind::Full, OnInterrupt::Ask),
    ("t.stays", Access::Changes, UndoKind::None, OnInterrupt::Ask),
    ("t.never", Access::Changes, UndoKind::Impossible, OnInterrupt::Probe),
    ("t.approve", Access::Reads, UndoKind::None, OnInterrupt::Rerun),
    ("t.apart", Access::Reads, UndoKind::None, OnInterrupt::Rerun),
];

pub(crate) fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (name, access, undo, on_interrupt) in TYPES {
        catalog.add(Declared { name, access, undo, on_interrupt });
    }
    catalog
}

fn never() -> StepError {
    StepError::permanent("nothing acts in this test")
}

#[async_trait::async_trait]
impl AnyStepType for Declared {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: self.name,
            doc: "A step type of a test.",
            access: self.access,
            undo: self.undo,
            on_interrupt: self.on_interrupt,
            commands: if self.name == "t.apart" { Commands::None } else { Commands::Main },
            examples: &[],
        }
    }
    fn input_schema(&self) -> Json {
        json!({ "type": "object", "properties": { "words": { "type": "string" } } })
    }
    fn output_schema(&self) -> Json {
        json!({ "type": "object" })
    }
    fn problems(&self, _: &Json) -> Vec<InputProblem> {
        Vec::new()
    }
    fn output_names(&self, _: &ValueTemplate) -> OutputNames {
        OutputNames::Open
    }
    fn capabilities(&self, _: &ValueTemplate) -> (Access, UndoKind) {
        (self.access, self.undo)
    }
    async fn preview(&self, _: &Cx<'_>, _: &Json) -> Result<Preview, StepError> {
        Err(never())
    }
    async fn capture(&self, _: &Cx<'_>, _: &Json) -> Result<Json, StepError> {
        Err(never())
    }
    async fn act(&self, _: &Cx<'_>, _: &Json, _: &Json) -> Result<Acted<Json>, StepError> {
        Err(never())
    }
    async fn probe(&self, _: &Cx<'_>, _: &Json, _: &Json) -> Result<Probe<Json>, StepError> {
        Err(never())
    }
    async fn undo(&self, _: &Cx<'_>, _: &Json, _: &Json, _: Option<&Json>) -> Result<Undone, StepError> {
        Err(never())
    }
}
