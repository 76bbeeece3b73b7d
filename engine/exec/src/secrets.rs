//! Reads the values of a playbook's secrets from where it says: environment, file, command. Does not know who
//! uses them; a value is never in a message.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use runback_core::diagnostic::{Code, Diagnostic};
use runback_core::playbook::model::{SecretDecl, SecretFrom};
use runback_core::span::Span;
use runback_core::target::{Command, Exit, KEEP_DEFAULT, Stream, Target, TargetError, TargetErrorKind, Watch};
use secrecy::SecretString;
use zeroize::{Zeroize as _, Zeroizing};

use crate::mask::Masker;

/// A command that gives a secret may ask an agent or a vault, not a person.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// In bytes.
const LARGEST: usize = KEEP_DEFAULT;

/// The values, by name. Wiped when dropped; `Debug` shows names.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, SecretString>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a value from elsewhere: an input that is marked `secret`.
    pub fn insert(&mut self, name: impl Into<String>, value: SecretString) {
        self.0.insert(name.into(), value);
    }

    pub fn masker(&self) -> Masker {
        Masker::new(self.0.iter().map(|(name, value)| (name.clone(), value.clone())))
    }
}

/// A secret that could not be read: RB0704.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret `{name}` cannot be read from {from}: {why}")]
pub struct SecretError {
    pub name: String,
    /// Of its name in the playbook.
    pub span: Span,
    /// "the environment variable `TOKEN`", "the file …", "the command …".
    pub from: String,
    pub why: String,
    pub help: String,
}

impl SecretError {
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic::new(Code::SecretUnavailable, self.to_string(), self.span, "this secret").help(self.help.clone())
    }
}

/// Where secrets are read from.
#[derive(Clone, Copy)]
pub struct SecretSources<'a> {
    /// Usually `std::env::var_os`.
    pub env: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// The playbook's folder: files are relative to it.
    pub base: &'a Path,
    /// Where commands run: the local one.
    pub target: &'a dyn Target,
}

impl std::fmt::Debug for SecretSources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSources").field("base", &self.base).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Reads all of them, or says for each one that fails why. `watch` is asked when to stop; it gets no output.
pub async fn resolve(
    decls: &[SecretDecl],
    sources: SecretSources<'_>,
    watch: &dyn Watch,
) -> Result<Secrets, Vec<SecretError>> {
    let mut secrets = Secrets::default();
    let mut errors = Vec::new();
    for decl in decls {
        let read = match &decl.from {
            SecretFrom::Env(variable) => from_env(variable, sources),
            SecretFrom::File(path) => from_file(path, sources),
            SecretFrom::Command(argv) => from_command(argv, sources, watch).await,
        };
        match read.and_then(text) {
            Ok(value) => secrets.insert(decl.name.value.clone(), value),
            Err((why, help)) => errors.push(SecretError {
                name: decl.name.value.clone(),
                span: decl.name.span,
                from: describe(&decl.from),
                why,
                help,
            }),
        }
    }
    if errors.is_empty() { Ok(secrets) } else { Err(errors) }
}

fn describe(from: &SecretFrom) -> String {
    match from {
        SecretFrom::Env(variable) => format!("the environment variable `{variable}`"),
        SecretFrom::File(path) => format!("the file `{path}`"),
        SecretFrom::Command(argv) => format!("the command `{}`", Command::new(argv.iter().cloned()).display()),
    }
}

type Read = Result<Zeroizing<Vec<u8>>, (String, String)>;

fn from_env(variable: &str, sources: SecretSources<'_>) -> Read {
    use std::os::unix::ffi::OsStringExt as _;
    match (sources.env)(variable) {
        Some(value) => Ok(Zeroizing::new(value.into_vec())),
        None => Err(("it is not set".to_owned(), format!("set it where runback is started: export {variable}=…"))),
    }
}

fn from_file(path: &str, sources: SecretSources<'_>) -> Read {
    use std::io::Read as _;
    let full = sources.base.join(path);
    let mut bytes = Zeroizing::new(Vec::new());
    let read = std::fs::File::open(&full).and_then(|f| f.take(LARGEST as u64 + 1).read_to_end(&mut bytes));
    let help = match read {
        Ok(n) if n <= LARGEST => return Ok(bytes),
        Ok(_) => {
            return Err((
                format!("it is larger than {LARGEST} bytes"),
                "name the file that holds the secret alone".to_owned(),
            ));
        }
        Err(ref e) if e.kind() == std::io::ErrorKind::NotFound => format!("create {}", full.display()),
        Err(ref e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("let the user who runs runback read {}", full.display())
        }
        Err(_) => format!("look at {}", full.display()),
    };
    Err((read.err().map(|e| e.to_string()).unwrap_or_default(), help))
}

/// Passes on when to stop; the output of the command is the secret, so it goes nowhere.
struct Silent<'a>(&'a dyn Watch);

#[async_trait::async_trait]
impl Watch for Silent<'_> {
    fn output(&self, _: Stream, _: &[u8]) {}
    async fn stopped(&self) {
        self.0.stopped().await;
    }
    fn kill_grace(&self) -> Duration {
        self.0.kill_grace()
    }
}

async fn from_command(argv: &[String], sources: SecretSources<'_>, watch: &dyn Watch) -> Read {
    let command = Command::query(argv.iter().cloned()).keep_stdout(LARGEST).timeout(COMMAND_TIMEOUT);
    let command = command.cwd(sources.base.to_string_lossy());
    let try_it = format!("try it: {}", command.display());
    let exit = sources.target.run(&command, &Silent(watch)).await;
    let mut exit: Exit = exit.map_err(|e: TargetError| {
        let help = match e.kind {
            TargetErrorKind::Timeout => format!("it has {} s and nobody to ask; {try_it}", COMMAND_TIMEOUT.as_secs()),
            _ => e.help.unwrap_or(try_it.clone()),
        };
        (e.message, help)
    })?;
    let bytes = Zeroizing::new(std::mem::take(&mut exit.stdout));
    if !exit.ok() {
        // stderr only: stdout may hold a part of the secret.
        let stderr = exit.stderr_text();
        let last = stderr.lines().rev().map(str::trim).find(|l| !l.is_empty());
        let why = last.map_or_else(|| exit.describe(), |line| format!("{}: {line}", exit.describe()));
        return Err((why, try_it));
    }
    if exit.stdout_cut {
        return Err((format!("it printed more than {LARGEST} bytes"), "let it print the secret alone".to_owned()));
    }
    Ok(bytes)
}

/// One trailing newline goes; an empty value or one that is not text is an error.
fn text(mut bytes: Zeroizing<Vec<u8>>) -> Result<SecretString, (String, String)> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        let help = "an empty secret is most often a mistake; to go without one, remove it from the playbook";
        return Err(("it is empty".to_owned(), help.to_owned()));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(value) => Ok(SecretString::from(value)),
        Err(e) => {
            e.into_bytes().zeroize();
            Err(("it is not UTF-8 text".to_owned(), "store it as base64, and decode it where it is used".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use runback_core::span::{SourceId, Spanned};
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::process::Processes;
    use crate::target::LocalTarget;

    struct Patient;
    #[async_trait::async_trait]
    impl Watch for Patient {
        fn output(&self, _: Stream, bytes: &[u8]) {
            panic!("a secret was shown: {bytes:?}");
        }
        async fn stopped(&self) {
            std::future::pending::<()>().await;
        }
        fn kill_grace(&self) -> Duration {
            Duration::ZERO
        }
    }

    async fn read(base: &Path, from: Vec<(&str, SecretFrom)>) -> Result<Secrets, Vec<SecretError>> {
        let span = Span::new(SourceId(0), 1, 3);
        let decls: Vec<_> = from
            .into_iter()
            .map(|(name, from)| SecretDecl { name: Spanned::new(name.to_owned(), span), from })
            .collect();
        let target = LocalTarget::new(base.to_owned(), base.join("d"), Processes::without_guard());
        let env = |name: &str| (name == "TOKEN").then(|| OsString::from("from-env"));
        resolve(&decls, SecretSources { env: &env, base, target: &target }, &Patient).await
    }

    fn command(words: &[&str]) -> SecretFrom {
        SecretFrom::Command(words.iter().map(|w| (*w).to_owned()).collect())
    }

    #[tokio::test]
    async fn values_come_from_env_file_and_command() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "line one\nline two\n\n").unwrap();
        let secrets = read(
            dir.path(),
            vec![
                ("a", SecretFrom::Env("TOKEN".to_owned())),
                ("b", SecretFrom::File("key".to_owned())),
                ("c", command(&["sh", "-c", "cat key | head -n1; pwd >&2"])),
            ],
        )
        .await
        .unwrap();
        let value = |name| secrets.get(name).unwrap().expose_secret();
        assert_eq!((value("a"), value("b"), value("c")), ("from-env", "line one\nline two\n", "line one"));
        assert_eq!(format!("{secrets:?}"), r#"{"a", "b", "c"}"#);
        assert_eq!(secrets.masker().mask_str("x from-env"), "x ***");
    }

    #[tokio::test]
    async fn every_failure_is_told_without_the_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        std::fs::write(dir.path().join("binary"), b"hunter22\xff").unwrap();
        let errors = read(
            dir.path(),
            vec![
                ("fine", SecretFrom::Env("TOKEN".to_owned())),
                ("unset", SecretFrom::Env("NO_SUCH".to_owned())),
                ("gone", SecretFrom::File("no/such".to_owned())),
                ("empty", SecretFrom::File("empty".to_owned())),
                ("binary", SecretFrom::File("binary".to_owned())),
                ("fails", command(&["sh", "-c", "echo hunter22; echo vault is sealed >&2; exit 3"])),
                ("missing", command(&["no-such-command", "a b"])),
            ],
        )
        .await
        .unwrap_err();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "secret `unset` cannot be read from the environment variable `NO_SUCH`: it is not set",
                "secret `gone` cannot be read from the file `no/such`: No such file or directory (os error 2)",
                "secret `empty` cannot be read from the file `empty`: it is empty",
                "secret `binary` cannot be read from the file `binary`: it is not UTF-8 text",
                "secret `fails` cannot be read from the command `sh -c 'echo hunter22; echo vault is sealed >&2; exit 3'`: \
                 exit code 3: vault is sealed",
                "secret `missing` cannot be read from the command `no-such-command 'a b'`: command not found: no-such-command",
            ]
        );
        assert!(errors.iter().all(|e| !e.help.is_empty()));
        assert_eq!(errors[0].diagnostic().code, Code::SecretUnavailable);
    }
}
