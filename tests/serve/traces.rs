//! OpenTelemetry traces, as a collector gets them: one that is played here, one that hangs, and none.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{PATIENCE, Place};

/// What was posted: the head, and the body.
type Posted = Arc<Mutex<Vec<(String, Json)>>>;

/// Answers each request with `status`; takes none of the spans where that says so.
struct Collector {
    endpoint: String,
    posted: Posted,
}

fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line.to_lowercase().replace("bearer", "Bearer"));
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

impl Collector {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let posted = Posted::default();
        let kept = Arc::clone(&posted);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    while let Some((head, body)) = request(&stream) {
                        let body = serde_json::from_slice(&body).expect("JSON");
                        kept.lock().expect("a lock").push((head, body));
                        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { endpoint, posted }
    }

    fn posted(&self) -> Vec<(String, Json)> {
        self.posted.lock().expect("a lock").clone()
    }

    fn spans(&self) -> Vec<Json> {
        let of = |(_, body): (String, Json)| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned();
        self.posted().into_iter().flat_map(|p| of(p).expect("spans")).collect()
    }

    /// All that has come once this one has.
    fn wait_for(&self, name: &str) -> Vec<Json> {
        let until = Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            if spans.iter().any(|s| s["name"] == name) {
                return spans;
            }
            assert!(Instant::now() < until, "no span {name}: {spans:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn named<'a>(spans: &'a [Json], name: &str) -> &'a Json {
    let found: Vec<_> = spans.iter().filter(|s| s["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {:?}", spans.iter().map(|s| &s["name"]).collect::<Vec<_>>());
    found[0]
}

fn attribute<'a>(span: &'a Json, key: &str) -> &'a Json {
    let all = span["attributes"].as_array().expect("attributes");
    all.iter().find(|a| a["key"] == key).map_or(&Json::Null, |a| &a["value"])
}

/// Milliseconds, from the nanoseconds of the wire.
fn time(span: &Json, key: &str) -> u64 {
    let nanos: u64 = span[key].as_str().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{key}: {span}"));
    assert_eq!(nanos % 1_000_000, 0);
    nanos / 1_000_000
}

const SECRET: &str = "canary-7f3a9c";

/// A block, a `for_each`, a step that needs two attempts, one that is skipped, and a failure that takes all back.
const TRACED: &str = "runback: 1
name: traced
secrets: { token: { env: TRACED_TOKEN } }
steps:
  - id: outer
    steps:
      - { id: inner, uses: file.write, with: { path: made, content: x } }
      - id: each
        for_each: { items: [a, b], as: n }
        env: { N: '{{ n.value }}' }
        run: 'test $N'
  - id: flaky
    run: test -e again || { touch again; exit 7; }
    retry: { max_attempts: 2, initial_interval: 20ms }
  - { id: never, when: 'false', run: 'true' }
  - id: bad
    run: exit 3
    env: { T: '{{ secrets.token }}' }
";

fn with_collector(place: &Place, arguments: &[&str], endpoint: &str) -> Command {
    let mut command = place.command(arguments);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("TRACED_TOKEN", SECRET).env("NO_PROXY", "127.0.0.1");
    command
}

fn events(output: &Output) -> Vec<Json> {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|l| serde_json::from_str(l).expect("an event is JSON")).collect()
}

/// When an event of a step came, by the journal.
fn at(events: &[Json], kind: &str, step: &str, attempt: u64) -> u64 {
    let found = events.iter().find(|e| e["type"] == kind && e["step"] == step && e["attempt"] == attempt);
    found.and_then(|e| e["at"].as_u64()).unwrap_or_else(|| panic!("no {kind} {step} #{attempt}"))
}

#[test]
fn a_run_becomes_spans_with_parents_times_and_errors() {
    let place = Place::new();
    std::fs::write(place.path("p.yaml"), TRACED).expect("a file");
    let collector = Collector::start("200 OK");
    let output = with_collector(&place, &["run", "p.yaml", "--output", "json"], &collector.endpoint)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20k3y, x-scope=t1")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
        .output()
        .expect("runback runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(!said.contains("traces"), "{said}");
    let events = events(&output);
    // All is sent before the process ends.
    let spans = collector.spans();
    for (head, body) in collector.posted() {
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(head.contains("authorization: Bearer k3y") && head.contains("x-scope: t1"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(!body.to_string().contains(SECRET));
        let resource = &body["resourceSpans"][0]["resource"]["attributes"];
        assert_eq!(resource[0], json!({ "key": "service.name", "value": { "stringValue": "runback" } }));
        assert!(resource.to_string().contains("deployment.environment.name"), "{resource}");
    }
    let mut names: Vec<_> = spans.iter().map(|s| s["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    let wanted = [
        "bad",
        "bad #1",
        "flaky",
        "flaky #1",
        "flaky #2",
        "never",
        "outer",
        "outer/each",
        "outer/each[a]",
        "outer/each[a] #1",
        "outer/each[b]",
        "outer/each[b] #1",
        "outer/inner",
        "outer/inner #1",
        "run traced",
        "undo outer/inner #1",
    ];
    assert_eq!(names, wanted);
    let root = named(&spans, "run traced");
    assert_eq!(root.get("parentSpanId"), None);
    let ids: HashMap<&str, &Json> = spans.iter().map(|s| (s["spanId"].as_str().expect("an id"), s)).collect();
    assert_eq!(ids.len(), spans.len(), "each has an id of its own");
    for span in &spans {
        assert_eq!(span["traceId"], root["traceId"]);
        assert_eq!(
            (span["traceId"].as_str().map(str::len), span["spanId"].as_str().map(str::len)),
            (Some(32), Some(16))
        );
        assert_eq!(span["kind"], 1);
        if let Some(parent) = span.get("parentSpanId") {
            let parent = ids[parent.as_str().expect("an id")];
            let undo = span["name"].as_str().is_some_and(|n| n.starts_with("undo "));
            assert!(time(span, "startTimeUnixNano") >= time(parent, "startTimeUnixNano"), "{span}");
            // An undo comes after its step is over.
            assert!(undo || time(span, "endTimeUnixNano") <= time(parent, "endTimeUnixNano"), "{span} {parent}");
        }
    }
    let parent = |name: &str| ids[named(&spans, name)["parentSpanId"].as_str().expect("a parent")]["name"].clone();
    for (child, of) in [
        ("outer", "run traced"),
        ("outer/inner", "outer"),
        ("outer/inner #1", "outer/inner"),
        ("undo outer/inner #1", "outer/inner"),
        ("outer/each", "outer"),
        ("outer/each[a]", "outer/each"),
        ("outer/each[b] #1", "outer/each[b]"),
        ("flaky #2", "flaky"),
        ("never", "run traced"),
        ("bad #1", "bad"),
    ] {
        assert_eq!(parent(child), of, "{child}");
    }
    for (step, attempt, end) in
        [("flaky", 1, "attempt_failed"), ("flaky", 2, "attempt_succeeded"), ("bad", 1, "attempt_failed")]
    {
        let span = named(&spans, &format!("{step} #{attempt}"));
        assert_eq!(time(span, "startTimeUnixNano"), at(&events, "attempt_started", step, attempt), "{step}");
        assert_eq!(time(span, "endTimeUnixNano"), at(&events, end, step, attempt), "{step}");
    }
    let flaky = named(&spans, "flaky");
    assert_eq!(time(flaky, "startTimeUnixNano"), at(&events, "attempt_started", "flaky", 1));
    assert_eq!(time(flaky, "endTimeUnixNano"), at(&events, "attempt_succeeded", "flaky", 2));
    let status = |name: &str| named(&spans, name)["status"]["code"].clone();
    for (name, code) in [
        ("flaky #1", 2),
        ("flaky #2", 0),
        ("flaky", 0),
        ("never", 0),
        ("outer", 0),
        ("bad #1", 2),
        ("bad", 2),
        ("run traced", 2),
    ] {
        assert_eq!(status(name), code, "{name}");
    }
    let failed = events.iter().find(|e| e["type"] == "attempt_failed" && e["step"] == "bad").expect("it failed");
    let message = &failed["error"]["message"];
    assert_eq!(
        (&named(&spans, "bad #1")["status"]["message"], &named(&spans, "bad")["status"]["message"]),
        (message, message)
    );
    let whole = root["status"]["message"].as_str().expect("a message");
    assert_eq!(whole, format!("rolled-back: bad: {}", message.as_str().expect("text")));
    assert_eq!(attribute(root, "runback.status")["stringValue"], "rolled-back");
    assert_eq!(attribute(flaky, "runback.attempts")["intValue"], "2");
    assert_eq!(attribute(named(&spans, "never"), "runback.status")["stringValue"], "skipped");
}

/// The process that takes a run up continues the trace of the one before.
#[test]
fn a_run_that_is_held_and_resumed_is_one_trace() {
    let place = Place::new();
    let text = "runback: 1\nname: held\non_failure: hold\nsteps:\n  - { id: a, run: 'true' }\n  - { id: b, run: test -e ready }\n";
    std::fs::write(place.path("p.yaml"), text).expect("a file");
    let collector = Collector::start("200 OK");
    let run = |arguments: &[&str]| {
        with_collector(&place, arguments, &collector.endpoint).output().expect("runback runs").status.code()
    };
    assert_eq!(run(&["run", "p.yaml"]), Some(1));
    std::fs::write(place.path("ready"), "").expect("a file");
    assert_eq!(run(&["resume", "last"]), Some(0));
    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|s| s["name"] == name).collect::<Vec<_>>();
    let (roots, b) = (named("run held"), named("b"));
    assert_eq!((roots.len(), b.len(), named("a").len(), named("b #1").len(), named("b #2").len()), (2, 2, 1, 1, 1));
    assert_eq!(roots[0]["traceId"], roots[1]["traceId"]);
    assert_ne!(roots[0]["spanId"], roots[1]["spanId"]);
    assert_eq!((&b[0]["parentSpanId"], &b[1]["parentSpanId"]), (&roots[0]["spanId"], &roots[1]["spanId"]));
    assert_eq!(named("b #2")[0]["parentSpanId"], b[1]["spanId"]);
    assert_eq!((&roots[0]["status"]["code"], &roots[1]["status"]["code"]), (&json!(2), &json!(0)));
}

/// The exit code and all that is said, without what differs from run to run.
fn told(output: &Output) -> (Option<i32>, usize, Vec<String>) {
    let lines = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    // `● a runs` is said of what has run for two seconds: on a busy machine that is any step.
    let told = String::from_utf8_lossy(&output.stdout).lines().filter(|l| !l.contains('●')).count();
    (output.status.code(), told, lines)
}

#[test]
fn a_collector_that_is_not_there_changes_nothing_but_one_warning() {
    let place = Place::new();
    std::fs::write(place.path("p.yaml"), TRACED).expect("a file");
    let run = |endpoint: &str| {
        // What makes `flaky` fail once.
        let _ = std::fs::remove_file(place.path("again"));
        let arguments = ["run", "p.yaml", "--output", "lines"];
        with_collector(&place, &arguments, endpoint).output().expect("runback runs")
    };
    let without = told(&run(""));
    let refuses = Collector::start("400 Bad Request");
    for (endpoint, why) in [
        // Nobody listens there, and nobody can come to: no test is given that port.
        ("http://127.0.0.1:1".to_owned(), "refused"),
        (refuses.endpoint.clone(), "it answers 400"),
        ("localhost:4318".to_owned(), "must begin with http"),
    ] {
        let (code, lines, mut said) = told(&run(&endpoint));
        let warnings: Vec<String> = said.extract_if(.., |l| l.contains("traces")).collect();
        assert_eq!((code, lines, said.len()), (without.0, without.1, without.2.len()), "{endpoint}: {said:?}");
        assert_eq!(warnings.len(), 1, "{endpoint}: {warnings:?}");
        assert!(warnings[0].to_lowercase().contains(why), "{endpoint}: {warnings:?}");
    }
    assert!(!refuses.posted().is_empty());
}

#[test]
fn a_collector_that_hangs_holds_up_neither_runs_nor_the_end_of_the_server() {
    let place = Place::new();
    place.playbook("p", "runback: 1\nname: p\nsteps:\n  - { id: a, run: 'true' }\n");
    let token = place.token("ann", "operator");
    // It accepts, by the kernel alone, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let server = place.serve(&["--otlp-endpoint", &endpoint]);
    let start = || {
        let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p" })).json();
        let run = started["run"].as_str().expect("an id").to_owned();
        server.wait_for(&token, &run, "succeeded");
    };
    let began = Instant::now();
    (0..5).for_each(|_| start());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    let warnings: Vec<_> = log.lines().filter(|l| l.contains("trace")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("\"warn\""), "{warnings:?}");
}

#[test]
fn the_server_sends_the_spans_of_its_runs() {
    let place = Place::new();
    place.playbook("p", "runback: 1\nname: p\nsteps:\n  - { id: a, run: 'true' }\n  - { id: b, run: exit 4 }\n");
    let token = place.token("ann", "operator");
    let collector = Collector::start("200 OK");
    let server = place.serve(&["--otlp-endpoint", &collector.endpoint]);
    let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p" })).json();
    let run = started["run"].as_str().expect("an id").to_owned();
    server.wait_for(&token, &run, "rolled-back");
    let spans = collector.wait_for("run p");
    let root = named(&spans, "run p");
    assert_eq!(attribute(root, "runback.run")["stringValue"], json!(run));
    assert_eq!(attribute(root, "runback.by")["stringValue"], "ann@127.0.0.1");
    assert_eq!(named(&spans, "a #1")["parentSpanId"], named(&spans, "a")["spanId"]);
    assert_eq!(named(&spans, "b")["parentSpanId"], root["spanId"]);
    assert_eq!(named(&spans, "b #1")["status"]["code"], 2);
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(0));
    assert!(!log.contains("trace"), "{log}");
}

#[test]
fn real_spans_are_otlp_by_its_own_definition() {
    let Some(python) = super::python() else { return };
    let place = Place::new();
    std::fs::write(place.path("p.yaml"), TRACED).expect("a file");
    let collector = Collector::start("200 OK");
    let output = with_collector(&place, &["run", "p.yaml"], &collector.endpoint).output().expect("runback runs");
    assert_eq!(output.status.code(), Some(3));
    let mut read = 0;
    for (_, body) in collector.posted() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/otlp.py");
        let mut child = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("it is piped").write_all(body.to_string().as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{body}\n{}", String::from_utf8_lossy(&output.stderr));
        let names: Vec<String> = serde_json::from_slice(&output.stdout).expect("JSON");
        read += names.len();
    }
    assert_eq!(read, collector.spans().len());
    assert!(read > 10, "{read}");
}
