#![expect(clippy::unwrap_used, reason = "tests")]
use runback_core::Json;
use serde_json::json;

use super::*;
use crate::http::test_server::{Server, answer};
use crate::testing::{Lab, Ran};

async fn check(lab: &Lab, with: Json) -> Result<Ran, StepError> {
    lab.run(&HttpCheck, &with).await
}

fn ok(body: &str) -> String {
    answer("200 OK", "content-type: application/json\r\n", body)
}

#[tokio::test]
async fn a_good_answer_passes() {
    let server = Server::start(vec![ok(r#"{"status":"up","n":3}"#)]).await;
    let lab = Lab::new();
    let with = json!({
        "url": server.url("/health"), "headers": { "X-Probe": "yes" }, "bearer": "t0ken",
        "status": [200, "3xx"], "expect_headers": { "Content-Type": "^application/json$" },
        "body": { "contains": "up", "regex": "\"n\":\\d", "json": { "$.status": "up", "n": 3 } },
    });
    assert!(Lab::problems(&HttpCheck, &with).is_empty());
    let ran = check(&lab, with).await.unwrap();
    assert_eq!(ran.outputs["status"], 200);
    assert_eq!(ran.outputs["url"], server.url("/health"));
    assert_eq!(ran.outputs["tls_days_left"], Json::Null);
    assert!(!ran.changed);
    let asked = server.asked();
    assert_eq!(asked[0].line, "GET /health");
    assert_eq!(asked[0].header("x-probe"), Some("yes"));
    assert_eq!(asked[0].header("authorization"), Some("Bearer t0ken"));
    assert!(lab.host.stdout_text().contains("/health: 200 in "), "{}", lab.host.stdout_text());
}

#[tokio::test]
async fn all_that_differs_is_named() {
    let server = Server::start(vec![answer("503 Service Unavailable", "x-node: b\r\n", "down")]).await;
    let with = json!({
        "url": server.url("/"), "expect_headers": { "X-Node": "^a", "X-Zone": "." }, "body": { "contains": "up" },
    });
    let error = check(&Lab::new(), with).await.unwrap_err();
    assert_eq!(error.class, Class::Transient);
    let url = server.url("/");
    assert_eq!(
        error.message,
        format!(
            "GET {url}: status 503, wanted 200-299; header `X-Node` is `b`, wanted /^a/; no header `X-Zone`, wanted /./; \
             the body does not contain `up`: down"
        )
    );
}

#[tokio::test]
async fn the_class_says_whether_to_ask_again() {
    for (status, class) in [
        ("404 Not Found", Class::Permanent),
        ("401 Unauthorized", Class::Permanent),
        ("429 Too Many", Class::Transient),
        ("500 Oops", Class::Transient),
        ("204 No Content", Class::Transient),
    ] {
        let server = Server::start(vec![answer(status, "", "")]).await;
        let error = check(&Lab::new(), json!({ "url": server.url("/"), "status": 200 })).await.unwrap_err();
        assert_eq!(error.class, class, "{status}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_says_so() {
    // A port that was free a moment ago may have been given to another test.
    let free = "127.0.0.1:1";
    let url = format!("http://bob:hunter2@{free}/?token=hunter2");
    let error = check(&Lab::new(), json!({ "url": url })).await.unwrap_err();
    assert_eq!(error.class, Class::Transient);
    assert_eq!(error.message, format!("GET http://{free}/?token=…: Connection refused (os error 111)"));
    assert_eq!(error.help.as_deref(), Some("nothing listens there: is the service up, and the port right?"));
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_transient() {
    let server = Server::start(vec!["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned()]).await;
    let with = json!({ "url": server.url("/"), "body": { "contains": "x" } });
    assert_eq!(check(&Lab::new(), with).await.unwrap_err().class, Class::Transient);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let server = Server::start(vec![String::new()]).await;
    let with = json!({ "url": server.url("/"), "timeout": "50ms" });
    let error = check(&Lab::new(), with).await.unwrap_err();
    assert_eq!(error.class, Class::Timeout);
    assert_eq!(error.message, format!("GET {}: no answer within 50ms", server.url("/")));
}

#[tokio::test]
async fn a_cancel_ends_it_at_once() {
    let server = Server::start(vec![String::new()]).await;
    let lab = Lab::new();
    let with = json!({ "url": server.url("/"), "timeout": "10m" });
    let stop = async {
        while server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        lab.host.stop();
    };
    let (result, ()) = tokio::join!(check(&lab, with), stop);
    assert_eq!(result.unwrap_err().class, Class::Cancelled);
}

#[tokio::test]
async fn several_good_answers_in_a_row() {
    let server = Server::start(vec![ok("1"), ok("2"), ok("3"), answer("500 Oops", "", "")]).await;
    let lab = Lab::new();
    let with = json!({ "url": server.url("/"), "consecutive": 3, "interval": "1ms" });
    check(&lab, with.clone()).await.unwrap();
    assert_eq!(server.asked().len(), 3);
    assert_eq!(lab.host.phases(), ["good answer 1 of 3", "good answer 2 of 3", "good answer 3 of 3"]);
    let error = check(&lab, with).await.unwrap_err();
    assert!(error.message.contains("status 500"), "{}", error.message);
}

#[tokio::test]
async fn redirects_are_followed_or_not() {
    let moved = |to: &str| answer("302 Found", &format!("location: {to}\r\n"), "");
    let server = Server::start(vec![moved("/new?key=s3cret"), ok("{}")]).await;
    let ran = check(&Lab::new(), json!({ "url": server.url("/old") })).await.unwrap();
    assert_eq!(ran.outputs["url"], server.url("/new?key=…"));
    assert_eq!(server.asked()[1].line, "GET /new?key=s3cret");

    let server = Server::start(vec![moved("/new")]).await;
    let with =
        json!({ "url": server.url("/"), "status": 302, "redirects": 0, "expect_headers": { "location": "^/new$" } });
    check(&Lab::new(), with).await.unwrap();
    assert_eq!(server.asked().len(), 1);

    let error = check(&Lab::new(), json!({ "url": server.url("/"), "redirects": 3 })).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent);
    assert!(error.message.contains("redirect"), "{}", error.message);
}

#[tokio::test]
async fn the_end_of_a_certificate() {
    // The lab's clock stands at 2026-01-01; the certificate must be valid by the real one.
    let (server, pem) = Server::start_tls(vec![ok("{}")], (2045, 1, 1)).await;
    let lab = Lab::new();
    lab.put("ca.pem", pem);
    let with = |days: u32| json!({ "url": server.url("/"), "ca_file": "ca.pem", "tls_days_left": days });
    let ran = check(&lab, with(30)).await.unwrap();
    assert_eq!(ran.outputs["tls_days_left"], 6939);
    assert_eq!(ran.outputs["tls_expires"], "2045-01-01T00:00:00Z");
    let error = check(&lab, with(6941)).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent);
    let says = "the certificate ends on 2045-01-01T00:00:00Z, in 6939 days, wanted 6941 days or more";
    assert!(error.message.ends_with(says), "{}", error.message);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted() {
    let (server, _) = Server::start_tls(vec![ok("{}")], (2045, 1, 1)).await;
    let lab = Lab::new();
    lab.put("other.pem", Server::start_tls(vec![ok("{}")], (2045, 1, 1)).await.1);
    let error = check(&lab, json!({ "url": server.url("/"), "ca_file": "other.pem" })).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent);
    assert!(error.message.starts_with(&format!("GET {}: TLS: invalid peer certificate", server.url("/"))), "{error}");
    let ran = check(&lab, json!({ "url": server.url("/"), "insecure": true, "tls_days_left": 1 })).await.unwrap();
    assert_eq!(ran.outputs["tls_days_left"], 6939);
    assert!(lab.host.stderr_text().contains("is not verified"), "{}", lab.host.stderr_text());
}

#[tokio::test]
async fn a_certificate_of_another_name_or_of_the_past() {
    let (server, pem) = Server::start_tls(vec![ok("{}")], (2045, 1, 1)).await;
    let lab = Lab::new();
    lab.put("ca.pem", pem);
    let url = server.url("/").replace("localhost", "127.0.0.1");
    let error = check(&lab, json!({ "url": url, "ca_file": "ca.pem" })).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent);
    assert_eq!(error.help.as_deref(), Some("use a name that the certificate is for"));

    let (server, pem) = Server::start_tls(vec![ok("{}")], (2020, 1, 1)).await;
    lab.put("ca.pem", pem);
    let error = check(&lab, json!({ "url": server.url("/"), "ca_file": "ca.pem" })).await.unwrap_err();
    assert_eq!(error.help.as_deref(), Some("the certificate must be renewed"), "{}", error.message);
    let with = json!({ "url": server.url("/"), "insecure": true, "tls_days_left": 0 });
    let error = check(&lab, with).await.unwrap_err();
    assert!(error.message.contains("the certificate ended on 2020-01-01T00:00:00Z"), "{}", error.message);
}

#[tokio::test]
async fn tls_to_a_port_that_speaks_none() {
    let server = Server::start(vec![ok("{}")]).await;
    let lab = Lab::new();
    lab.put("ca.pem", Server::start_tls(vec![ok("{}")], (2045, 1, 1)).await.1);
    let url = server.url("/").replace("http:", "https:");
    // The server takes the handshake for a request that never ends; end it by a plain answer.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let _server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let url = url.replace(&url[url.rfind(':').unwrap()..], &format!(":{port}/"));
    let error = check(&lab, json!({ "url": url, "ca_file": "ca.pem" })).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent, "{}", error.message);
    assert_eq!(error.help.as_deref(), Some("does that port speak TLS? If not, write http://"), "{}", error.message);
}

#[test]
fn problems_point_at_the_key() {
    let with = json!({
        "url": "ftp://h/", "headers": { "a b": "x" }, "expect_headers": { "X": "(" }, "consecutive": 0,
        "method": "HEAD", "body": { "regex": "[", "json": { "$[": 1 } },
        "bearer": "x", "basic_auth": { "user": "u" },
    });
    let found = Lab::problems(&HttpCheck, &with);
    let paths: Vec<_> = found.iter().map(|p| p.path.join(".")).collect();
    let wanted =
        ["body.regex", "body.json.$[", "url", "headers.a b", "expect_headers.X", "bearer", "consecutive", "body"];
    assert_eq!(paths, wanted);
    let with = json!({ "url": "http://h/", "redirects": 0, "tls_days_left": 3 });
    assert_eq!(Lab::problems(&HttpCheck, &with)[0].path, ["tls_days_left"]);
}

#[tokio::test]
async fn the_preview_asks_nobody() {
    let preview = Lab::new().preview(&HttpCheck, &json!({ "url": "https://u:p@h.example/x" })).await.unwrap();
    assert_eq!(preview.summary, "https://h.example/x answers 200-299");
    assert_eq!(preview.changes, Some(false));
}
