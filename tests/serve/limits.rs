//! Limits: connections, streams, bodies, and readers that do not read. Nothing of it may cost the others anything.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::{PATIENCE, Place, Server, until};

/// How long a test looks at an answer that must not come.
const MOMENT: Duration = Duration::from_millis(400);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Up to the end of the head, or of what comes.
fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        all.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    let place = Place::new();
    let server = place.serve(&["--max-connections", "3"]);
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
    for stream in &mut held {
        // Each has been answered, and is kept open.
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).expect("it reads");
        assert!(head(stream).expect("an answer").starts_with("HTTP/1.1 200"));
    }
    let mut late = connect(&server);
    write!(late, "GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).expect("the kernel takes it");
    late.set_read_timeout(Some(MOMENT)).expect("a socket");
    let error = head(&mut late).expect_err("three are all that may be served");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    held.pop();
    late.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert!(head(&mut late).expect("there is a place now").starts_with("HTTP/1.1 200"));
}

#[test]
fn streams_beyond_the_limit_are_refused_and_say_what_to_do() {
    let place = Place::new();
    place.playbook("p", "runback: 1\nname: p\nsteps:\n  - { id: go, uses: approval, with: { prompt: Go? } }\n");
    let token = place.token("ann", "operator");
    let server = place.serve(&["--max-streams", "2"]);
    let run = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p" })).json();
    let run = run["run"].as_str().expect("an id");
    let bearer = format!("Bearer {token}");
    let mut one = server.stream(&token, run, None);
    one.until("run_started");
    let open = |path: &str| {
        let mut stream = connect(&server);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {bearer}\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).expect("it reads");
        let head = head(&mut stream).expect("an answer");
        (head, stream)
    };
    // The list's stream counts like a run's.
    let (said, list) = open("/api/v1/changes");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let refused = server.ask("GET", &format!("/api/v1/runs/{run}/stream"), &[("Authorization", &bearer)], "");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"]["help"].as_str().is_some_and(|h| h.contains("--max-streams")));
    assert_eq!(server.get(&token, "/api/v1/status")["watched"], 1, "what is no stream is answered as before");
    drop(list);
    let (said, _again) = until("the place of a stream that was closed is not free", || {
        let (said, stream) = open("/api/v1/changes");
        said.starts_with("HTTP/1.1 200").then_some((said, stream))
    });
    assert!(said.contains("text/event-stream"), "{said}");
}

#[test]
fn bodies_and_heads_beyond_the_limit_are_refused() {
    let place = Place::new();
    let token = place.token("ann", "admin");
    let server = place.serve(&[]);
    let start = format!("POST /api/v1/runs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n", server.address);
    // One that says how large it is need not be sent.
    let mut stream = connect(&server);
    write!(stream, "{start}Content-Length: {}\r\n\r\n", (1 << 20) + 1).expect("it reads");
    assert!(head(&mut stream).expect("an answer").starts_with("HTTP/1.1 413"));
    // One that does not say it is read up to the limit and no further.
    let mut stream = connect(&server);
    write!(stream, "{start}Transfer-Encoding: chunked\r\n\r\n").expect("it reads");
    let chunk = vec![b' '; 64 << 10];
    for _ in 0..16 {
        write!(stream, "{:x}\r\n", chunk.len()).expect("it reads");
        stream.write_all(&chunk).expect("it reads");
        stream.write_all(b"\r\n").expect("it reads");
    }
    stream.write_all(b"1\r\n \r\n").expect("it reads");
    assert!(head(&mut stream).expect("an answer").starts_with("HTTP/1.1 413"));
    // The largest that may be is read; it is no JSON.
    let whole = " ".repeat(1 << 20);
    assert_eq!(
        server.ask("POST", "/api/v1/runs", &[("Authorization", &format!("Bearer {token}"))], &whole).status,
        400
    );
    let long = "x".repeat(600 << 10);
    let answer = server.try_ask("GET", "/healthz", &[("x-long", &long)], "");
    // It may hang up while the rest is still being sent.
    assert!(answer.map_or(true, |a| a.status == 431));
    assert_eq!(server.ask("GET", "/readyz", &[], "").status, 200, "it still serves");
}

/// Resident memory of the server, in KiB.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it lives");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[cfg(target_os = "linux")]
#[test]
fn readers_that_do_not_read_hold_no_memory() {
    const READERS: usize = 60;
    let place = Place::new();
    // A journal of some 12 MB: more than the kernel keeps for a reader that stands still.
    let items: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    place.playbook(
        "wide",
        &format!(
            "runback: 1\nname: wide\nsteps:\n  - id: say\n    for_each: {{ items: [{}], as: n, max_parallel: 8 }}\n    run: head -c 60000 /dev/zero | tr '\\0' x\n",
            items.join(", ")
        ),
    );
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let run = server.post(&token, "/api/v1/runs", &json!({ "playbook": "wide" })).json();
    let run = run["run"].as_str().expect("an id").to_owned();
    // The run itself has all outputs in it, and is not to be asked for again and again.
    let head = || server.get(&token, "/api/v1/runs?limit=1")["runs"][0]["status"] == "succeeded";
    until("the run does not end", || head().then_some(()));
    let read = |follow: bool| {
        let mut stream = connect(&server);
        write!(
            stream,
            "GET /api/v1/runs/{run}/stream?follow={follow} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n",
            server.address
        )
        .expect("it reads");
        stream
    };
    let whole = |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("all of it");
        all.len()
    };
    let journal = whole(read(false));
    assert!(journal > 8 << 20, "only {journal} bytes");
    let before = resident(&server);
    let still: Vec<TcpStream> = (0..READERS).map(|_| read(true)).collect();
    // One that reads is not kept waiting by those that do not, and by then they have got all that they will get.
    assert_eq!(whole(read(false)), journal);
    let grown = until("the memory does not come to rest", || {
        let one = resident(&server);
        std::thread::sleep(Duration::from_millis(250));
        (resident(&server).abs_diff(one) < 256).then(|| resident(&server).saturating_sub(before))
    });
    // What is kept for all of them together (16 MiB), what making it takes, and little for each: not the journal 60 times.
    println!("{READERS} readers that stand still at {journal} bytes: {grown} KiB more");
    assert!(grown < 64 << 10, "{grown} KiB more for {READERS} readers");
    drop(still);
}
