//! A text file on a target, read whole in order to be changed: what `file.line` and `file.edit` have in common.

use runback_core::step::{Cx, StepError};
use runback_core::target::FileKind;

use super::before::{self, KEEP_INLINE};

/// None = nothing is there.
pub(crate) async fn read(cx: &Cx<'_>, path: &str) -> Result<Option<String>, StepError> {
    match cx.target.stat(path).await? {
        None => Ok(None),
        Some(stat) if stat.kind != FileKind::File => {
            Err(StepError::permanent(format!("{path} is {}", before::kind(&stat))).help("name the file itself"))
        }
        Some(stat) if stat.size > KEEP_INLINE => Err(StepError::permanent(format!("{path} is larger than 4 MiB"))),
        Some(_) => {
            let bytes = cx.target.read(path, KEEP_INLINE).await?;
            let text = String::from_utf8(bytes);
            text.map(Some).map_err(|_| StepError::permanent(format!("{path} is not UTF-8 text")))
        }
    }
}
