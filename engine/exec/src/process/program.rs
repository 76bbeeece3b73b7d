//! Which file a program name means, and why one could not be started, in words. Starts nothing.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use runback_core::target::{TargetError, TargetErrorKind};

/// What the C library searches when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file to execute: a name with a slash as it is (it counts from the working directory), any other from the
/// PATH of the command's own environment.
pub(crate) fn find(program: &str, search_path: Option<&OsStr>, cwd: &Path) -> Result<CString, TargetError> {
    let nul = |_| TargetError::new(TargetErrorKind::CommandNotFound, "the command's name has a NUL byte in it");
    if program.is_empty() {
        return Err(TargetError::new(TargetErrorKind::CommandNotFound, "the command's name is empty"));
    }
    if program.contains('/') {
        return CString::new(program).map_err(nul);
    }
    let search_path = search_path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut forbidden = None;
    for dir in std::env::split_paths(search_path) {
        let candidate = cwd.join(dir).join(program);
        let Ok(meta) = candidate.metadata() else { continue };
        if !meta.is_file() {
            continue;
        }
        if meta.permissions().mode() & 0o111 != 0 {
            return CString::new(candidate.as_os_str().as_bytes()).map_err(nul);
        }
        forbidden.get_or_insert(candidate);
    }
    Err(match forbidden {
        Some(found) => not_executable(&found),
        None => not_found(program, search_path),
    })
}

fn not_found(program: &str, search_path: &OsStr) -> TargetError {
    TargetError::new(TargetErrorKind::CommandNotFound, format!("command not found: {program}"))
        .help(format!("install it, or give its full path; PATH is {}", search_path.to_string_lossy()))
}

fn not_executable(file: &Path) -> TargetError {
    let message = format!("{} is not executable", file.display());
    TargetError::new(TargetErrorKind::CommandNotFound, message).help(format!("chmod +x {}", file.display()))
}

/// Whether a found program can be started, for when a wrapper does it and could not say so.
pub(crate) fn check(program: &CStr, cwd: &Path) -> Result<(), TargetError> {
    let file = cwd.join(OsStr::from_bytes(program.to_bytes()));
    let executable = rustix::fs::access(&file, rustix::fs::Access::EXEC_OK);
    let executable = executable.map_err(io::Error::from).and_then(|()| {
        let is_file = file.metadata()?.is_file();
        if is_file { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EACCES)) }
    });
    executable.map_err(|e| explain(&e, program, cwd))
}

/// Why the start of a program failed: the kernel's one number can mean the program, its interpreter, the working
/// directory or a limit.
pub(crate) fn explain(error: &io::Error, program: &CStr, cwd: &Path) -> TargetError {
    let file = cwd.join(OsStr::from_bytes(program.to_bytes()));
    let shown = file.display();
    let other = |message: String| TargetError::new(TargetErrorKind::Other, message);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ELOOP) => explain_path(error, &file, cwd),
        Some(libc::ENOEXEC) => TargetError::new(
            TargetErrorKind::CommandNotFound,
            format!("{shown} is not a program that can be executed"),
        )
        .help(
            "if it is a script, begin it with a line such as #!/bin/sh; if it is a binary, it is for another machine",
        ),
        Some(libc::E2BIG) => other(format!("{shown}: the arguments and the environment are too long together"))
            .help("put the long values into a file, or pass them on standard input"),
        Some(libc::ETXTBSY) => other(format!("{shown} is still open for writing by another process"))
            .help("wait until it is written, or run it through its interpreter, such as sh FILE"),
        Some(libc::EAGAIN) => other(format!("{shown} was not started: the limit of processes is reached"))
            .help("see `ulimit -u` and the pids limit of the container or unit"),
        Some(libc::EMFILE | libc::ENFILE) => other(format!("{shown} was not started: too many open files"))
            .help("run fewer steps at once (-j), or raise `ulimit -n`"),
        _ => other(format!("{shown} was not started: {error}")),
    }
}

fn explain_path(error: &io::Error, file: &Path, cwd: &Path) -> TargetError {
    match std::fs::metadata(cwd) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let message = format!("the working directory {} does not exist", cwd.display());
            return TargetError::new(TargetErrorKind::NotFound, message)
                .help("make it in a step before, as with `dir.create`, or correct the step's working directory");
        }
        Err(e) => {
            let message = format!("the working directory {} cannot be used: {e}", cwd.display());
            return TargetError::new(TargetErrorKind::PermissionDenied, message);
        }
        Ok(meta) if !meta.is_dir() => {
            let message = format!("the working directory {} is not a directory", cwd.display());
            return TargetError::new(TargetErrorKind::WrongKind, message).help("name a folder");
        }
        Ok(_) => {}
    }
    if rustix::fs::access(cwd, rustix::fs::Access::EXEC_OK).is_err() {
        let message = format!("the working directory {} may not be entered by this user", cwd.display());
        return TargetError::new(TargetErrorKind::PermissionDenied, message)
            .help(format!("see `ls -ld {}`: a folder is entered by those who have `x` on it", cwd.display()));
    }
    let Ok(meta) = file.metadata() else {
        let message = format!("command not found: {}", file.display());
        return TargetError::new(TargetErrorKind::CommandNotFound, message);
    };
    if meta.is_dir() {
        let message = format!("{} is a directory, not a command", file.display());
        return TargetError::new(TargetErrorKind::CommandNotFound, message);
    }
    if error.raw_os_error() == Some(libc::EACCES) {
        return not_executable(file);
    }
    let interpreter = interpreter(file);
    let message = match &interpreter {
        Some(name) => format!("{}: its interpreter {} does not exist", file.display(), name.display()),
        None => format!("{}: its dynamic loader does not exist", file.display()),
    };
    let help = if interpreter.is_some() { "look at its first line" } else { "it may be built for another system" };
    TargetError::new(TargetErrorKind::CommandNotFound, message).help(help)
}

/// What stands behind `#!`.
fn interpreter(file: &Path) -> Option<PathBuf> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(file).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    // A carriage return belongs to the name here: it is what makes the kernel not find it.
    Some(PathBuf::from(line.trim_start_matches([' ', '\t']).split([' ', '\t']).next()?.escape_debug().to_string()))
}
