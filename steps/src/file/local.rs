//! Files on the machine that runback runs on, beside the playbook: read, never written.

use std::io::Read as _;
use std::path::Path;

use runback_core::step::StepError;

/// Size in bytes and permission bits of a regular file.
pub(crate) fn stat(path: &Path) -> Result<(u64, u32), StepError> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).map_err(|e| failed(path, &e))?;
    if meta.is_dir() {
        return Err(StepError::permanent(format!("{} is a directory", path.display())).help("name a file in it"));
    }
    if !meta.is_file() {
        return Err(StepError::permanent(format!("{} is not a regular file", path.display())));
    }
    Ok((meta.len(), meta.mode() & 0o7777))
}

/// All of a regular file, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, StepError> {
    stat(path)?;
    let file = std::fs::File::open(path).map_err(|e| failed(path, &e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| failed(path, &e))?;
    if bytes.len() as u64 > limit {
        let shown = if limit >= 1 << 20 { format!("{} MiB", limit >> 20) } else { format!("{} KiB", limit >> 10) };
        return Err(StepError::permanent(format!("{} is larger than {shown}", path.display())));
    }
    Ok(bytes)
}

fn failed(path: &Path, e: &std::io::Error) -> StepError {
    let error = StepError::permanent(format!("{}: {e}", path.display()));
    match e.kind() {
        std::io::ErrorKind::NotFound => error.help("relative paths count from the playbook's folder"),
        _ => error,
    }
}
