#![expect(clippy::unwrap_used, reason = "tests")]
use runback_core::step::Class;
use serde_json::json;

use super::*;
use crate::http::test_server::{Server, answer};
use crate::testing::{Lab, Ran};

async fn request(lab: &Lab, with: &Json) -> Result<Ran, StepError> {
    assert_eq!(Lab::problems(&HttpRequest, with), Vec::new());
    lab.run(&HttpRequest, with).await
}

#[tokio::test]
async fn a_get_gives_all_outputs() {
    let headers = "content-type: application/json\r\nset-cookie: session=s3cret\r\nx-a: 1\r\nx-a: 2\r\n";
    let server = Server::start(vec![answer("200 OK", headers, r#"{"id":7,"tags":["a"]}"#)]).await;
    let with = json!({
        "url": server.url("/api?fixed=1"), "query": { "q": "a b&c", "n": 2, "list": ["x", true], "none": null },
        "extract": { "id": { "json": "$.id" }, "a": { "header": "X-A" }, "tag": { "regex": "\"(\\w)\"\\]" } },
    });
    let ran = request(&Lab::new(), &with).await.unwrap();
    assert_eq!(server.asked()[0].line, "GET /api?fixed=1&list=x&list=true&n=2&q=a+b%26c");
    assert_eq!(server.asked()[0].header("idempotency-key"), None);
    assert!(!ran.changed);
    let out = &ran.outputs;
    assert_eq!((&out["status"], &out["id"], &out["tag"]), (&json!(200), &json!(7), &json!("a")));
    assert_eq!(out["json"], json!({ "id": 7, "tags": ["a"] }));
    assert_eq!(out["body"], r#"{"id":7,"tags":["a"]}"#);
    assert_eq!(out["headers"]["x-a"], "1, 2");
    assert_eq!(out["headers"].get("set-cookie"), None);
    assert!(!out.to_string().contains("s3cret"));
}

#[tokio::test]
async fn every_kind_of_body() {
    let server = Server::start(vec![answer("201 Created", "", "")]).await;
    let lab = Lab::new();
    lab.put("blob.bin", [0_u8, 159, 146, 150]);
    let url = server.url("/");
    for (body, kind, wanted) in [
        (json!({ "json": { "b": 1, "a": [null] } }), "application/json", &br#"{"b":1,"a":[null]}"#[..]),
        (json!({ "json": null }), "", b""),
        (json!({ "form": { "a b": "c&d", "n": 1 } }), "application/x-www-form-urlencoded", b"a+b=c%26d&n=1"),
        (json!({ "text": "hi" }), "text/plain; charset=utf-8", b"hi"),
        (json!({ "file": "blob.bin" }), "application/octet-stream", &[0, 159, 146, 150]),
    ] {
        let mut with = json!({ "url": url, "method": "PUT" });
        with.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let ran = request(&lab, &with).await.unwrap();
        assert!(ran.changed);
        assert_eq!(ran.outputs["body"], Json::Null);
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.body, wanted, "{body}");
        assert_eq!(asked.header("content-type").unwrap_or_default(), kind);
        assert_eq!(asked.header("idempotency-key"), None, "PUT is idempotent by itself");
    }
}

#[tokio::test]
async fn multipart_with_a_file() {
    let server = Server::start(vec![answer("200 OK", "", "ok")]).await;
    let lab = Lab::new();
    lab.put("build/site.tar.gz", "archive bytes");
    let with = json!({
        "url": server.url("/upload"), "method": "POST",
        "multipart": [
            { "name": "title", "value": "nightly" },
            { "name": "archive", "file": "build/site.tar.gz", "filename": "new.tgz", "content_type": "application/x-tgz" },
            { "name": "raw", "file": "build/site.tar.gz" },
        ],
    });
    let ran = request(&lab, &with).await.unwrap();
    assert_eq!(ran.outputs["body"], "ok");
    let asked = server.asked().pop().unwrap();
    assert!(asked.header("content-type").unwrap().starts_with("multipart/form-data; boundary="));
    let text = asked.text();
    assert!(text.contains("name=\"title\"\r\n\r\nnightly\r\n"), "{text}");
    assert!(
        text.contains("name=\"archive\"; filename=\"new.tgz\"\r\nContent-Type: application/x-tgz\r\n\r\narchive bytes")
    );
    assert!(text.contains("name=\"raw\"; filename=\"site.tar.gz\""));
}

#[tokio::test]
async fn the_idempotency_key_is_the_same_for_every_attempt() {
    let server = Server::start(vec![answer("200 OK", "", "")]).await;
    let mut lab = Lab::new();
    let post = |more: Json| {
        let mut with = json!({ "url": server.url("/"), "method": "POST" });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with
    };
    let key = || server.asked().pop().unwrap().header("idempotency-key").map(str::to_owned);
    request(&lab, &post(json!({}))).await.unwrap();
    assert_eq!(key().as_deref(), Some("r1/step"));
    lab.attempt = 2;
    request(&lab, &post(json!({}))).await.unwrap();
    assert_eq!(key().as_deref(), Some("r1/step"));
    lab.step = "each[zürich 1]".to_owned();
    request(&lab, &post(json!({}))).await.unwrap();
    assert_eq!(key().map(|k| k.len()), Some(64));
    request(&lab, &post(json!({ "idempotency_key": "mine" }))).await.unwrap();
    assert_eq!(key().as_deref(), Some("mine"));
    request(&lab, &post(json!({ "idempotency_key": "" }))).await.unwrap();
    assert_eq!(key(), None);
    request(&lab, &post(json!({ "headers": { "Idempotency-Key": "header" } }))).await.unwrap();
    assert_eq!(key().as_deref(), Some("header"));
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let server = Server::start(vec![answer("403 Forbidden", "", "no")]).await;
    let lab = Lab::new();
    let with = json!({
        "url": server.url("/"), "basic_auth": { "user": "bob", "password": "hunter2" }, "headers": { "X-Api-Key": "k3y" },
    });
    let error = request(&lab, &with).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent);
    assert_eq!(error.message, format!("GET {}: status 403, wanted 200-299: no", server.url("/")));
    assert!(error.help.unwrap().starts_with("check the credentials"));
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.header("authorization"), Some("Basic Ym9iOmh1bnRlcjI="));
    assert_eq!(asked.header("x-api-key"), Some("k3y"));
    let printed = lab.host.stdout_text() + &lab.host.stderr_text();
    assert!(!printed.contains("hunter2") && !printed.contains("k3y"), "{printed}");
}

#[tokio::test]
async fn a_post_does_not_follow_redirects_unasked() {
    let moved = answer("302 Found", "location: /elsewhere\r\n", "");
    let server = Server::start(vec![moved, answer("200 OK", "", "")]).await;
    let error =
        request(&Lab::new(), &json!({ "url": server.url("/"), "method": "POST", "text": "x" })).await.unwrap_err();
    assert_eq!(server.asked().len(), 1);
    assert_eq!(error.class, Class::Permanent);
    assert!(error.help.unwrap().starts_with("the server redirects elsewhere"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_an_error() {
    let server = Server::start(vec![answer("200 OK", "", &"x".repeat(5000))]).await;
    let error = request(&Lab::new(), &json!({ "url": server.url("/"), "max_body": 4999 })).await.unwrap_err();
    assert!(error.message.ends_with("the body is larger than 4999 bytes"), "{}", error.message);
    request(&Lab::new(), &json!({ "url": server.url("/"), "max_body": 5000 })).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_extracted_or_read_fails() {
    let server = Server::start(vec![answer("200 OK", "", "plain")]).await;
    let with = json!({ "url": server.url("/"), "extract": { "v": { "json": "$.v" } } });
    let error = request(&Lab::new(), &with).await.unwrap_err();
    assert!(error.message.ends_with("extract `v`: the body is not JSON: plain"), "{}", error.message);
    let with = json!({ "url": server.url("/"), "method": "POST", "file": "missing.bin" });
    let error = request(&Lab::new(), &with).await.unwrap_err();
    assert!(error.message.contains("missing.bin: No such file"), "{}", error.message);
    assert!(error.help.unwrap().contains("on the machine that runback runs on"));
}

#[test]
fn problems_point_at_the_key() {
    let with = json!({
        "url": "nowhere", "json": 1, "text": "x", "query": { "q": { "a": 1 } }, "form": { "f": [[1]] },
        "multipart": [{ "name": "a" }], "extract": { "x": {}, "status": { "header": "a" }, "y": { "json": "$[" } },
    });
    let found = Lab::problems(&HttpRequest, &with);
    let paths: Vec<_> = found.iter().map(|p| p.path.join(".")).collect();
    assert_eq!(
        paths,
        ["url", "form", "query.q", "form.f", "multipart.0", "extract.status", "extract.x", "extract.y.json"]
    );
}

#[test]
fn only_safe_methods_count_as_reading() {
    let access = |with: Json| HttpRequest.capabilities(&ValueTemplate::Literal(with)).0;
    assert_eq!(access(json!({ "url": "x" })), Access::Reads);
    assert_eq!(access(json!({ "method": "HEAD" })), Access::Reads);
    assert_eq!(access(json!({ "method": "DELETE" })), Access::Changes);
}

#[test]
fn output_names_hold_what_is_extracted() {
    let with = ValueTemplate::Literal(json!({ "url": "x", "extract": { "id": { "json": "$.id" } } }));
    let OutputNames::Closed(names) = HttpRequest.output_names(&with) else { panic!("closed") };
    assert_eq!(names, ["status", "url", "headers", "body", "json", "elapsed_ms", "id"]);
}

#[tokio::test]
async fn after_an_interruption_only_a_post_is_in_doubt() {
    let probe = async |method: &str| {
        Lab::new().probe(&HttpRequest, &json!({ "url": "http://h/x", "method": method }), &Json::Null).await.unwrap()
    };
    assert_eq!(probe("PUT").await, Probe::NotDone);
    assert_eq!(probe("GET").await, Probe::NotDone);
    let wanted = "POST http://h/x may have arrived or not; look at the server";
    assert_eq!(probe("POST").await, Probe::Unknown(wanted.to_owned()));
}
