//! Who is let in: every route of the OpenAPI document, asked by those who may not.

use serde_json::Value as Json;

use super::{Place, Server};

/// Method, path with its parameters filled in, and the role that it takes.
fn routes(document: &Json) -> Vec<(String, String, String)> {
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let path = path.split('/').map(|part| if part.starts_with('{') { "last" } else { part });
            let role = operation["x-runback-role"].as_str().expect("a role").to_owned();
            routes.push((method.to_uppercase(), path.collect::<Vec<_>>().join("/"), role));
        }
    }
    routes
}

fn place() -> (Place, Server, String) {
    let place = Place::new();
    place.playbook("last", "runback: 1\nname: last\nschedule:\n  - cron: '@yearly'\nsteps:\n  - run: 'true'\n");
    let admin = place.token("root", "admin");
    let server = place.serve(&[]);
    (place, server, admin)
}

#[test]
fn no_route_answers_who_may_not_ask() {
    let (place, server, admin) = place();
    let viewer = place.token("vic", "viewer");
    let ended = place.token("gone", "admin");
    place.run(&["token", "revoke", "gone"]);
    let started = server.post(&admin, "/api/v1/runs", &serde_json::json!({ "playbook": "last" }));
    assert_eq!(started.status, 201);
    let document = server.get(&admin, "/api/v1/openapi.json");
    let routes = routes(&document);
    assert!(routes.len() > 25, "only {} routes", routes.len());
    let mut higher = 0;
    for (method, path, role) in &routes {
        let ask = |headers: &[(&str, &str)]| server.ask(method, path, headers, "{}");
        let bearer = |token: &str| format!("Bearer {token}");
        for headers in [
            &[][..],
            &[("Authorization", "Bearer rbk_00000000_")],
            &[("Authorization", &bearer(&ended))],
            &[("Authorization", &bearer(&format!("{}0", &admin[..admin.len() - 1])))],
            &[("Cookie", "runback_session=local.99999999999999.00")],
        ] {
            // A token that ends in 0 already is the right one.
            if headers.first().is_some_and(|(_, v)| *v == bearer(&admin)) {
                continue;
            }
            let answer = ask(headers);
            assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
            assert!(answer.header("www-authenticate").is_some() && answer.json()["error"]["help"] != "");
        }
        for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"] {
            let answer = ask(&[("Authorization", &bearer(&admin)), ("Origin", origin)]);
            assert_eq!(answer.status, 403, "{method} {path} from {origin}");
        }
        if role != "viewer" {
            higher += 1;
            assert_eq!(ask(&[("Authorization", &bearer(&viewer))]).status, 403, "{method} {path} takes {role}");
        }
    }
    assert!(higher > 10, "only {higher} routes take more than a viewer");
}

#[test]
fn an_operator_may_not_approve_and_an_approver_may_not_start() {
    let (place, server, _) = place();
    let (operator, approver) = (place.token("olga", "operator"), place.token("ada", "approver"));
    let body = serde_json::json!({ "playbook": "last" });
    assert_eq!(server.post(&approver, "/api/v1/runs", &body).status, 403);
    assert_eq!(server.post(&operator, "/api/v1/runs", &body).status, 201);
    assert_eq!(server.post(&operator, "/api/v1/runs/last/approve", &serde_json::json!({})).status, 403);
    assert_eq!(server.post(&approver, "/api/v1/runs/last/approve", &serde_json::json!({})).status, 409);
    let me = server.get(&approver, "/api/v1/me");
    assert_eq!(me, serde_json::json!({ "by": "ada@127.0.0.1", "name": "ada", "roles": ["approver"] }));
}

#[test]
fn a_session_of_the_page_needs_its_origin_and_ends_with_its_token() {
    let (place, server, _) = place();
    let token = place.token("olga", "operator");
    let origin = format!("http://{}", server.address);
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", origin.as_str())];
    let wrong = server.ask("POST", "/session", &form, "token=rbk_00000000_00");
    assert_eq!(wrong.status, 401);
    let other = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", "http://evil.example")];
    assert_eq!(server.ask("POST", "/session", &other, &format!("token={token}")).status, 403);
    let session = server.ask("POST", "/session", &form, &format!("token={token}"));
    assert_eq!(session.status, 204);
    let cookie = session.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a value").to_owned();
    let with = |more: &[(&'static str, String)]| {
        let mut headers = vec![("Cookie", cookie.as_str())];
        headers.extend(more.iter().map(|(n, v)| (*n, v.as_str())));
        server.ask("POST", "/api/v1/runs", &headers, "{\"playbook\":\"last\"}").status
    };
    assert_eq!(with(&[]), 403, "a change by cookie must say its origin");
    assert_eq!(with(&[("Origin", "http://evil.example".to_owned())]), 403);
    assert_eq!(with(&[("Origin", origin.clone())]), 201);
    let run = server.ask("GET", "/api/v1/runs/last", &[("Cookie", &cookie)], "");
    assert_eq!((run.status, run.json()["from"].as_str()), (200, Some("page")));
    let forged = cookie.replace("runback_session=", "runback_session=x");
    assert_eq!(server.ask("GET", "/api/v1/runs", &[("Cookie", &forged)], "").status, 401);
    place.run(&["token", "revoke", "olga"]);
    assert_eq!(server.ask("GET", "/api/v1/runs", &[("Cookie", &cookie)], "").status, 401);
}

#[test]
fn other_addresses_need_tls_and_a_token() {
    let place = Place::new();
    let refused = |arguments: &[&str]| {
        let output = place.command(arguments).output().expect("runback runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = refused(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(code == Some(2) && said.contains("--tls-cert"), "{said}");
    let (code, said) = refused(&["serve", "--listen", "0.0.0.0:0", "--insecure"]);
    assert!(code == Some(2) && said.contains("runback token create"), "{said}");
    let (code, said) = refused(&["serve", "--listen", "[::]:0", "--tls-cert", "x"]);
    assert!(code == Some(2) && said.contains("--tls-key"), "{said}");
    let (code, said) = refused(&["serve", "--tls-cert", "none.pem", "--tls-key", "none.pem"]);
    assert!(code == Some(2) && said.contains("none.pem"), "{said}");
}

#[test]
fn every_answer_carries_the_headers_that_keep_a_browser_safe() {
    let (_place, server, admin) = place();
    for path in ["/healthz", "/readyz", "/nothing", "/api/v1/runs", "/metrics"] {
        let answer = server.ask("GET", path, &[], "");
        let csp = answer.header("content-security-policy").expect(path);
        assert!(csp.contains("default-src 'none'") && !csp.contains("unsafe"), "{path}: {csp}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    assert_eq!(server.ask("GET", "/metrics", &[], "").status, 401);
    let large = "x".repeat(2 << 20);
    let answer = server.try_ask("POST", "/api/v1/runs", &[("Authorization", &format!("Bearer {admin}"))], &large);
    // The connection may be cut before all of it was sent.
    assert!(answer.map_or(true, |a| a.status == 413));
}
