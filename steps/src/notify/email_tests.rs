//! Mails to a server on loopback that says what it is told to.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::testing::Lab;

/// Takes one mail, and answers `RCPT` with this; gives back what it heard.
async fn server(rcpt: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 here\r\n").await.unwrap();
        let (mut heard, mut data) = (String::new(), false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return heard;
            }
            heard.push_str(&line);
            let answer = match line.trim_end() {
                "." if data => {
                    data = false;
                    "250 taken as 42\r\n"
                }
                _ if data => continue,
                "DATA" => {
                    data = true;
                    "354 go on\r\n"
                }
                "QUIT" => "221 bye\r\n",
                l if l.starts_with("EHLO") => "250-here\r\n250 AUTH PLAIN\r\n",
                l if l.starts_with("RCPT") => rcpt,
                l if l.starts_with("AUTH") => "235 welcome\r\n",
                _ => "250 ok\r\n",
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return heard;
            }
        }
    });
    (port, task)
}

fn with(port: u16, more: Json) -> Json {
    let mut with = json!({
        "host": "127.0.0.1", "port": port, "tls": "none", "from": "Night <n@example.com>", "to": ["a@example.com"],
        "subject": "Grüße", "text": "One.\n.two\n",
    });
    let Json::Object(more) = more else { panic!("a map") };
    with.as_object_mut().unwrap().extend(more);
    with
}

#[tokio::test]
async fn a_mail_is_taken() {
    let (port, task) = server("250 ok\r\n").await;
    let ran = Lab::new().run(&Email, &with(port, json!({ "cc": ["b@example.com"] }))).await.unwrap();
    assert_eq!(ran.outputs, json!({ "message_id": "<r1.step@runback>", "answer": "taken as 42" }));
    let heard = task.await.unwrap();
    assert!(heard.contains("RCPT TO:<a@example.com>") && heard.contains("RCPT TO:<b@example.com>"), "{heard}");
    assert!(heard.contains("Message-ID: <r1.step@runback>"), "{heard}");
    assert!(!heard.contains("Subject: Grüße") && heard.contains("Subject: =?utf-8?"), "{heard}");
    assert!(heard.contains("\r\n..two\r\n"), "a dot at the beginning of a line is doubled: {heard}");
}

#[tokio::test]
async fn a_refusal_for_now_is_transient_and_one_for_good_is_not() {
    for (answer, class) in [("450 later\r\n", Class::Transient), ("550 no such user\r\n", Class::Permanent)] {
        let (port, _task) = server(answer).await;
        let error = Lab::new().run(&Email, &with(port, json!({}))).await.unwrap_err();
        assert_eq!(error.class, class, "{}", error.message);
        assert!(error.message.contains(answer[4..].trim_end()), "{}", error.message);
    }
}

#[tokio::test]
async fn nobody_there_is_transient_and_a_password_is_never_said() {
    // A port that was free a moment ago may have been given to another test.
    let with = with(1, json!({ "user": "me", "password": "s3cret" }));
    let error = Lab::new().run(&Email, &with).await.unwrap_err();
    assert_eq!(error.class, Class::Transient);
    assert!(error.message.contains("127.0.0.1") && !error.message.contains("s3cret"), "{}", error.message);
}

#[tokio::test]
async fn a_server_without_tls_gets_nothing_unless_told() {
    let (port, task) = server("250 ok\r\n").await;
    let error = Lab::new().run(&Email, &with(port, json!({ "tls": "starttls" }))).await.unwrap_err();
    assert!(error.message.contains("mail through 127.0.0.1"), "{}", error.message);
    task.abort();
    assert!(!task.await.unwrap_or_default().contains("MAIL FROM"));
}

#[test]
fn problems_name_their_keys() {
    let found = Lab::problems(&Email, &with(1, json!({ "from": "nobody", "to": [], "user": "x" })));
    assert_eq!(found.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), ["from", "to", "user"]);
}
