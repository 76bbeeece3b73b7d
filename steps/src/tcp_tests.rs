#![expect(clippy::unwrap_used, reason = "tests")]
use runback_core::Json;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::testing::Lab;

/// Sends the banner to each client, then echoes what it reads.
async fn echo(banner: &'static str) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(banner.as_bytes()).await.unwrap();
            let mut got = [0; 64];
            if let Ok(n @ 1..) = stream.read(&mut got).await {
                let _ = stream.write_all(&got[..n]).await;
            }
        }
    });
    (port, task)
}

/// Nobody listens there; a port that was free a moment ago may have been given to another test.
const CLOSED: u16 = 1;

#[tokio::test]
async fn an_open_port() {
    let (port, task) = echo("").await;
    let lab = Lab::new();
    let ran = lab.run(&TcpCheck, &json!({ "host": "127.0.0.1", "port": port })).await.unwrap();
    assert_eq!(ran.outputs["address"], format!("127.0.0.1:{port}"));
    assert_eq!(ran.outputs["received"], Json::Null);
    assert_eq!(lab.host.stdout_text(), format!("127.0.0.1:{port}: open\n"));
    let error = lab.run(&TcpCheck, &json!({ "host": "127.0.0.1", "port": port, "state": "closed" })).await.unwrap_err();
    assert_eq!(error.message, format!("127.0.0.1:{port}: still open, wanted closed"));
    assert_eq!(error.class, Class::Transient);
    task.abort();
}

#[tokio::test]
async fn a_refused_port() {
    let port = CLOSED;
    let error = Lab::new().run(&TcpCheck, &json!({ "host": "127.0.0.1", "port": port })).await.unwrap_err();
    assert_eq!(error.class, Class::Transient);
    assert_eq!(error.message, format!("127.0.0.1:{port}: Connection refused (os error 111)"));
    assert_eq!(error.help.as_deref(), Some("nothing listens on that port"));
    let with = json!({ "host": "127.0.0.1", "port": port, "state": "closed" });
    let ran = Lab::new().run(&TcpCheck, &with).await.unwrap();
    assert_eq!(ran.outputs["address"], Json::Null);
}

/// What says nothing about the port is no proof that it is closed.
#[tokio::test]
async fn closed_is_told_by_the_other_side_only() {
    for (host, says) in
        [("no-such-host.invalid", "cannot be resolved"), ("255.255.255.255", "says nothing about the port")]
    {
        let with = json!({ "host": host, "port": 9, "state": "closed", "timeout": "20s" });
        let error = Lab::new().run(&TcpCheck, &with).await.unwrap_err();
        assert_eq!(error.class, Class::Transient);
        assert!(error.message.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_banner_and_an_answer() {
    let (port, task) = echo("SSH-2.0-test\r\n").await;
    let with = json!({ "host": "localhost", "port": port, "expect": "^SSH-2" });
    let ran = Lab::new().run(&TcpCheck, &with).await.unwrap();
    assert_eq!(ran.outputs["received"], "SSH-2");
    let with = json!({ "host": "127.0.0.1", "port": port, "send": "PING\r\n", "expect": "PING" });
    let ran = Lab::new().run(&TcpCheck, &with).await.unwrap();
    assert_eq!(ran.outputs["received"], "SSH-2.0-test\r\nPING");
    let with = json!({ "host": "127.0.0.1", "port": port, "send": "x", "expect": "HTTP" });
    let error = Lab::new().run(&TcpCheck, &with).await.unwrap_err();
    let says = format!("127.0.0.1:{port}: no match of /HTTP/: it closed the connection after: SSH-2.0-test  x");
    assert_eq!((error.message, error.class), (says, Class::Transient));
    task.abort();
}

#[tokio::test]
async fn a_silent_port_is_a_timeout() {
    let (port, task) = echo("").await;
    let with = json!({ "host": "127.0.0.1", "port": port, "expect": "x", "timeout": "30ms" });
    let error = Lab::new().run(&TcpCheck, &with).await.unwrap_err();
    assert_eq!(error.class, Class::Timeout);
    assert_eq!(error.message, format!("127.0.0.1:{port}: no answer within 30ms"));
    task.abort();
}

#[test]
fn problems_point_at_the_key() {
    let with = json!({ "host": " ", "port": 0, "expect": "(", "send": "x", "state": "closed" });
    let paths: Vec<_> = Lab::problems(&TcpCheck, &with).iter().map(|p| p.path.join(".")).collect();
    assert_eq!(paths, ["host", "port", "expect", "send", "expect"]);
    assert!(!Lab::problems(&TcpCheck, &json!({ "host": "h", "port": 70000 })).is_empty());
}
