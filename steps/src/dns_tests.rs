#![expect(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata;
use runback_core::Json;
use serde_json::json;
use tokio::net::UdpSocket;

use super::*;
use crate::testing::{Lab, Ran};

/// Answers every question with the records of its type; without one, with the code.
struct Responder {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn responder(records: Vec<RData>, none: ResponseCode) -> Responder {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (n, from) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let asked = Message::from_vec(&buffer[..n]).unwrap();
            let question = asked.queries[0].clone();
            let mut answer = Message::response(asked.id, asked.op_code);
            answer.metadata.recursion_desired = true;
            answer.metadata.recursion_available = true;
            let fitting = records.iter().filter(|r| r.record_type() == question.query_type());
            for (i, data) in (0_u32..).zip(fitting) {
                answer.add_answer(Record::from_rdata(question.name().clone(), 300 + i, data.clone()));
            }
            if answer.answers.is_empty() {
                answer.metadata.response_code = none;
            }
            answer.add_query(question);
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    Responder { address, asked, task }
}

fn name(text: &str) -> Name {
    Name::from_utf8(text).unwrap()
}

fn zone() -> Vec<RData> {
    vec![
        RData::A(rdata::A("192.0.2.7".parse().unwrap())),
        RData::A(rdata::A("192.0.2.10".parse().unwrap())),
        RData::AAAA(rdata::AAAA("2001:db8::7".parse().unwrap())),
        RData::CNAME(rdata::CNAME(name("New-LB.example.net."))),
        RData::MX(rdata::MX::new(10, name("mail.example.com."))),
        RData::SRV(rdata::SRV::new(1, 2, 443, name("web1.example.com."))),
        RData::TXT(rdata::TXT::new(vec!["v=spf1 ".to_owned(), "-all".to_owned()])),
    ]
}

async fn check(server: &Responder, more: Json) -> Result<Ran, StepError> {
    let mut with = json!({ "name": "shop.example.com", "server": server.address.to_string(), "timeout": "60s" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!(Lab::problems(&DnsCheck, &with), Vec::new());
    Lab::new().run(&DnsCheck, &with).await
}

#[tokio::test]
async fn records_of_each_type() {
    let server = responder(zone(), ResponseCode::NXDomain).await;
    for (with, values) in [
        (json!({ "values": ["192.0.2.10"] }), vec!["192.0.2.10", "192.0.2.7"]),
        (json!({ "values": ["192.0.2.7", "192.0.2.10"], "match": "exact" }), vec!["192.0.2.10", "192.0.2.7"]),
        (json!({ "type": "AAAA", "values": ["2001:0db8:0::7"] }), vec!["2001:db8::7"]),
        (json!({ "type": "CNAME", "values": ["new-lb.example.net."] }), vec!["new-lb.example.net"]),
        (json!({ "type": "MX", "values": ["10  Mail.example.com"] }), vec!["10 mail.example.com"]),
        (json!({ "type": "SRV", "values": ["1 2 443 web1.example.com"] }), vec!["1 2 443 web1.example.com"]),
        (json!({ "type": "TXT", "values": ["v=spf1 -all"] }), vec!["v=spf1 -all"]),
    ] {
        let ran = check(&server, with.clone()).await.unwrap_or_else(|e| panic!("{with}: {e}"));
        assert_eq!(ran.outputs["values"], json!(values), "{with}");
        assert_eq!(ran.outputs["ttl"], 300);
        assert!(!ran.changed);
    }
}

#[tokio::test]
async fn nothing_is_cached() {
    let server = responder(zone(), ResponseCode::NXDomain).await;
    check(&server, json!({})).await.unwrap();
    check(&server, json!({})).await.unwrap();
    assert_eq!(server.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_wrong_value_names_both() {
    let server = responder(zone(), ResponseCode::NXDomain).await;
    let error = check(&server, json!({ "values": ["192.0.2.8"] })).await.unwrap_err();
    assert_eq!(error.class, Class::Transient);
    let asked = server.address;
    let what = format!("A of shop.example.com (asked {asked})");
    assert_eq!(error.message, format!("{what}: is 192.0.2.10, 192.0.2.7, wanted 192.0.2.8"));
    let error = check(&server, json!({ "values": ["192.0.2.7"], "match": "exact" })).await.unwrap_err();
    assert_eq!(error.message, format!("{what}: is 192.0.2.10, 192.0.2.7, wanted exactly 192.0.2.7"));
}

#[tokio::test]
async fn a_name_that_is_not_there() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let server = responder(Vec::new(), code).await;
        let error = check(&server, json!({})).await.unwrap_err();
        assert_eq!(error.class, Class::Transient);
        assert!(error.message.ends_with("there is no record"), "{}", error.message);
        let ran = check(&server, json!({ "absent": true })).await.unwrap();
        assert_eq!(ran.outputs, json!({ "values": [], "ttl": null }));
    }
    let server = responder(zone(), ResponseCode::NXDomain).await;
    let error = check(&server, json!({ "absent": true })).await.unwrap_err();
    assert!(error.message.ends_with("is 192.0.2.10, 192.0.2.7, wanted no record"), "{}", error.message);
}

#[tokio::test]
async fn a_server_that_fails_proves_no_absence() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let server = responder(Vec::new(), code).await;
        let error = check(&server, json!({ "absent": true })).await.unwrap_err();
        assert_eq!(error.class, Class::Transient, "{code}: {}", error.message);
    }
}

#[tokio::test]
async fn a_silent_server_is_a_timeout() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap().to_string();
    let with = json!({ "name": "shop.example.com", "server": server, "timeout": "60ms", "absent": true });
    let error = Lab::new().run(&DnsCheck, &with).await.unwrap_err();
    assert_eq!(error.class, Class::Timeout, "{}", error.message);
}

#[test]
fn problems_point_at_the_key() {
    for (with, path) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": "a..b" }), "name"),
        (json!({ "name": "a", "absent": true, "values": ["192.0.2.1"] }), "absent"),
        (json!({ "name": "a", "match": "exact" }), "match"),
        (json!({ "name": "a", "values": ["192.0.2.1", "web1"] }), "values.1"),
        (json!({ "name": "a", "type": "MX", "values": ["mail.example.com"] }), "values.0"),
        (json!({ "name": "a", "type": "SRV", "values": ["1 2 99999 web1"] }), "values.0"),
    ] {
        let found = Lab::problems(&DnsCheck, &with);
        assert_eq!(found.len(), 1, "{with}: {found:?}");
        assert_eq!(found[0].path.join("."), path, "{with}");
    }
}
