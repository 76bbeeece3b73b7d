//! A secret that must stand nowhere: every byte that runback writes about a run that does all it can to spread it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whatever needs escaping somewhere is in it.
const CANARY: &str = "Kanarie/9f+\"q\"&ü 77";
const PIN: &str = "pin-84-zebra-31";

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * at) & 63) as usize] as char;
            out.push(if at > chunk.len() { '=' } else { digit });
        }
    }
    out
}

fn url(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().fold(String::new(), |mut out, b| {
        if plain(b) {
            out.push(b as char);
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string().trim_matches('"').to_owned()
}

/// Every form of a secret; of base64 what does not depend on its neighbours, for each of the three alignments.
fn forms(secret: &str) -> Vec<(String, Vec<u8>)> {
    let mut forms = vec![
        ("plain".to_owned(), secret.to_owned()),
        ("URL".to_owned(), url(secret)),
        ("JSON".to_owned(), json(secret)),
        ("JSON twice".to_owned(), json(&json(secret))),
    ];
    for lead in 0..3 {
        let encoded = base64(&[vec![b'x'; lead], secret.as_bytes().to_vec()].concat());
        let inner = &encoded[[0, 2, 3][lead]..encoded.trim_end_matches('=').len() - 2];
        forms.push((format!("base64 at {lead}"), inner.to_owned()));
    }
    forms.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

const PLAYBOOK: &str = r#"runback: 1
name: spreads
secrets:
  token: { env: CANARY }
inputs:
  pin: { type: string, secret: true }
steps:
  - id: plain
    env: { T: "{{ secrets.token }}", P: "{{ inputs.pin }}" }
    run: |
      printf '%s\n' "$T"; printf '%s\n' "$P"
      printf '%s' "$T" | base64 -w0; printf '%s' "x$T" | base64 -w0; printf '%s' "xx$T" | base64 -w0
      printf '%s\n' "$T" >&2
      printf 'value=%s\n' "$T" >> "$RUNBACK_OUTPUT"
    outputs: { value: file }
  - id: torn
    env: { T: "{{ secrets.token }}" }
    run: |
      head=$(printf '%s' "$T" | cut -c1-5); tail=$(printf '%s' "$T" | cut -c6-)
      printf '%s' "$head"; sleep 0.3; printf '%s\n' "$tail"
  - id: escaped
    uses: exec
    with: { command: [python3, -c, "import json,os,urllib.parse as u; t=os.environ['T']; print(json.dumps(t), json.dumps(t, ensure_ascii=False), u.quote(t, safe=''), json.dumps(json.dumps(t)))"] }
    env: { T: "{{ secrets.token }}" }
  - id: writes
    uses: file.write
    with: { path: world/file, content: "token={{ secrets.token }}\n" }
  - id: rewrites
    uses: file.write
    with: { path: world/file, content: "pin={{ inputs.pin }}\n" }
  - id: fails
    needs: [rewrites]
    env: { T: "{{ secrets.token }}" }
    retry: { max_attempts: 2, initial_interval: 10ms }
    run: |
      echo "cannot log in with $T" >&2
      exit 7
"#;

/// What a command said, all of it.
fn told(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    told_of(CANARY, dir, arguments)
}

fn told_of(secret: &str, dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
    command.current_dir(dir).args(arguments).arg("--state-dir").arg(dir.join("state"));
    let output = command.env("CANARY", secret).stdin(Stdio::null()).output().expect("runback runs");
    [output.stdout, output.stderr].concat()
}

/// Each step's message, or its output, quotes a part of what holds the secret.
const QUOTING: &str = r#"runback: 1
name: quotes
on_failure: continue
secrets:
  token: { env: CANARY }
steps:
  - id: json
    uses: shell
    with: { script: 'printf "%s" "$T"', outputs: { x: { json: a } } }
    env: { T: "{{ secrets.token }}" }
  - id: written
    needs: []
    uses: shell
    with: { script: 'printf "%s" "$T" >"$RUNBACK_OUTPUT"', outputs: { x: file } }
    env: { T: "{{ secrets.token }}" }
  - id: asserted
    needs: []
    uses: assert
    with: { that: [ "secrets.token == 'x'" ] }
  - id: not-a-boolean
    needs: []
    uses: assert
    with: { that: [ "secrets.token" ] }
  - id: failed
    needs: []
    env: { T: "{{ secrets.token }}" }
    run: |
      printf '%s' "$T" >&2; head -c 4000 /dev/zero | tr '\0' x >&2
      exit 3
  - id: long
    needs: []
    env: { T: "{{ secrets.token }}" }
    run: |
      head -c 65450 /dev/zero | tr '\0' x; printf ' %s' "$T"; head -c 4000 /dev/zero | tr '\0' x
"#;

#[test]
fn no_part_of_a_secret_is_left_where_a_text_is_cut() {
    let secret = (0..60).fold(String::new(), |mut all, n: u32| {
        let _ = write!(all, "{:03x}{}", n * 67 + 300, "ghjkmnpq".as_bytes()[n as usize % 8] as char);
        all
    });
    let dir = tempfile::tempdir().expect("a temp folder");
    let dir = dir.path();
    std::fs::write(dir.join("p.yaml"), QUOTING).expect("the playbook");
    let mut said = vec![
        ("run".to_owned(), told_of(&secret, dir, &["run", "p.yaml", "--run-id", "r"])),
        ("show".to_owned(), told_of(&secret, dir, &["show", "r", "--output", "json"])),
        ("logs".to_owned(), told_of(&secret, dir, &["logs", "r"])),
    ];
    let run = String::from_utf8_lossy(&said[0].1).into_owned();
    for step in ["json", "written", "asserted", "not-a-boolean", "failed"] {
        assert!(run.contains(&format!("✗ {step}")) || run.contains(&format!("{step} failed")), "{step}: {run}");
    }
    let mut written = Vec::new();
    files(&dir.join("state"), &mut written);
    said.extend(written.iter().map(|f| (f.display().to_string(), std::fs::read(f).expect("a file"))));
    let mut found = Vec::new();
    for (place, bytes) in &said {
        for part in secret.as_bytes().windows(8) {
            if let Some(at) = bytes.windows(8).position(|w| w == part) {
                let around = &bytes[at.saturating_sub(60)..(at + 40).min(bytes.len())];
                found.push(format!("{place}: {}", String::from_utf8_lossy(around)));
                break;
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_secret_is_in_no_byte_that_is_written() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let dir = dir.path();
    std::fs::create_dir(dir.join("world")).expect("a folder");
    std::fs::write(dir.join("p.yaml"), PLAYBOOK).expect("the playbook");
    let pin = format!("pin={PIN}");
    let run = |id: &str, more: &[&str]| told(dir, &[&["run", "p.yaml", "-i", &pin, "--run-id", id], more].concat());
    let mut said: Vec<(String, Vec<u8>)> = vec![
        ("run, lines".to_owned(), run("lines", &["--output", "lines"])),
        ("run, json".to_owned(), run("json", &["--output", "json"])),
        ("run, held".to_owned(), run("held", &["--on-failure", "hold"])),
    ];
    for arguments in [
        &["plan", "p.yaml", "-i", &pin][..],
        &["show", "lines"],
        &["show", "lines", "--output", "json"],
        &["logs", "lines"],
        &["logs", "held"],
        &["why", "held", "fails"],
        &["runs", "--output", "json"],
        &["rollback", "held", "-i", &pin, "--output", "json"],
        &["show", "held", "--output", "json"],
    ] {
        said.push((arguments.join(" ").replace(PIN, "…"), told(dir, arguments)));
    }
    let mut written = Vec::new();
    files(&dir.join("state"), &mut written);
    assert!(written.len() >= 10, "the journal and the logs: {written:?}");
    said.extend(written.iter().map(|f| (f.display().to_string(), std::fs::read(f).expect("a file"))));
    let masked = said.iter().filter(|(_, bytes)| bytes.windows(3).any(|w| w == b"***")).count();
    assert!(masked >= 6, "the secret was there to be masked, in {masked} places");
    assert!(said[0].1.windows(11).any(|w| w == b"rolled back"), "{}", String::from_utf8_lossy(&said[0].1));
    let mut found = Vec::new();
    for secret in [CANARY, PIN] {
        for (form, needle) in forms(secret) {
            for (place, bytes) in &said {
                if bytes.windows(needle.len()).any(|w| w == needle) {
                    found.push(format!("{form} of {secret} in {place}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    // The world has what it was given, and got back what was there.
    assert!(!dir.join("world/file").exists(), "it was taken back");
}
