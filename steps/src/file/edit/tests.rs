//! `file.edit` on texts in the style of the container world, and as a step.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::testing::{Lab, TestHost, break_everywhere};
use runback_core::Json;
use runback_core::step::{AnyStepType, Class};
use serde_json::json;

fn edit(format: &str, old: &str, edits: Json) -> Result<String, String> {
    let mut with = json!({"path": "f", "format": format});
    with["edits"] = edits;
    let inputs: Inputs = serde_json::from_value(with).unwrap();
    let once = inputs.edited(old).map_err(|e| e.message)?;
    assert_eq!(inputs.edited(&once).unwrap(), once, "a second time changes nothing");
    Ok(once)
}

const COMPOSE: &str = "\
version: '2'
# who keeps the logs
services:
  log:
    image: example/log:1   # the oldest
    volumes:
      - /var/log/app/:/var/log/docker/:z
  db:
    image: example/db:1
    volumes:
      - /data/database:/var/lib/mysql:z
    depends_on:
      - log
    logging:
      options:  
        tag: \"db\"
  # in front
  proxy:
    image: example/nginx:1
    volumes:
      - ./nginx:/etc/nginx:z
      - /data/cert:/cert:z
    ports:
      - 80:80
      - 443:443
    depends_on:
      - db
      - log   # always
  ui:
    image: example/ui:1
    depends_on:
      - db
  worker:
    depends_on:
      db: { condition: service_started }
      log:
        condition: service_started
networks:
  app:
    external: false
";

#[test]
fn a_service_goes_with_every_mention_of_it() {
    let edited = edit(
        "yaml",
        COMPOSE,
        json!([
            {"remove": "services.db"},
            {"remove": "services.*.depends_on.db"},
            {"set": "services.proxy.ports", "value": ["8070:80"]},
            {"replace": "services.*.volumes.*", "from": "/data/", "to": "/mnt/shared/"},
        ]),
    );
    insta::assert_snapshot!(edited.unwrap());
}

#[test]
fn yaml_edits() {
    let cases = [
        ("a: 1\nb: 2 # two\n", json!([{"set": "b", "value": 3}]), "a: 1\nb: 3 # two\n"),
        (
            "a: 'x'\nb: \"y\"\n",
            json!([{"set": "a", "value": "it's"}, {"set": "b", "value": "z"}]),
            "a: 'it''s'\nb: \"z\"\n",
        ),
        (
            "a:\n  b: 1\n",
            json!([{"set": "a.c.d", "value": {"e": [1]}}]),
            "a:\n  b: 1\n  c:\n    d:\n      e:\n        - 1\n",
        ),
        ("a:\n", json!([{"set": "a.b", "value": true}]), "a:\n  b: true\n"),
        ("a:\nb: 1\n", json!([{"set": "a", "value": "x"}]), "a: x\nb: 1\n"),
        ("# nothing yet\n", json!([{"set": "a.b", "value": 1}]), "# nothing yet\na:\n  b: 1\n"),
        ("a: {}\n", json!([{"set": "a.b", "value": "x"}]), "a: {b: x}\n"),
        ("a: [1, 2]\n", json!([{"append": "a", "value": 3}, {"remove": "a", "value": 1}]), "a: [2, 3]\n"),
        ("a: [x]\n", json!([{"remove": "a.x"}]), "a: []\n"),
        ("a:\n  - x\nb: 1\n", json!([{"remove": "a.x"}]), "a: []\nb: 1\n"),
        ("a: # why\n  - x # this\nb: 1\n", json!([{"remove": "a.x"}]), "a: [] # why\nb: 1\n"),
        ("a:\n- x\n- y", json!([{"append": "a", "value": "z"}]), "a:\n- x\n- y\n- z"),
        ("a:\n  - x: 1\n    y: 2\n  - x: 3\n", json!([{"remove": "a.*.x"}]), "a:\n  - y: 2\n  - {}\n"),
        ("a: |\n  one\n  two\nb: 1\n", json!([{"set": "a", "value": "x"}]), "a: x\nb: 1\n"),
        ("a: |\n  one\n\nb: 1\n", json!([{"remove": "a"}]), "\nb: 1\n"),
        ("old: 1 # c\nx: 2\n", json!([{"rename": "old", "to": "new"}]), "new: 1 # c\nx: 2\n"),
        ("a: 1\r\nb: 2\r\n", json!([{"remove": "a"}, {"set": "c", "value": "x"}]), "b: 2\r\nc: x\r\n"),
        ("a: &x [1]\nb: *x\nc: 2\n", json!([{"set": "b", "value": 1}]), "a: &x [1]\nb: 1\nc: 2\n"),
        ("a: &x [1]\nb: *x # c\nc: 2\n", json!([{"remove": "b"}]), "a: &x [1]\nc: 2\n"),
        ("a:\n  - 1\n  -  - 2\n     - 3\n", json!([{"remove": "a.1", "value": 2}]), "a:\n  - 1\n  -  - 3\n"),
    ];
    for (old, edits, new) in cases {
        let made = edit("yaml", old, edits.clone());
        assert_eq!(made.as_deref(), Ok(new), "{old:?} {edits}");
    }
}

#[test]
fn json_edits() {
    let daemon = "{\n\t\"log-driver\": \"journald\",\n\t\"insecure-registries\": [\n\t\t\"a:1\"\n\t]\n}\n";
    let cases = [
        (
            daemon,
            json!([{"append": "insecure-registries", "value": "b:2"}]),
            "{\n\t\"log-driver\": \"journald\",\n\t\"insecure-registries\": [\n\t\t\"a:1\",\n\t\t\"b:2\"\n\t]\n}\n",
        ),
        (daemon, json!([{"remove": "insecure-registries"}]), "{\n\t\"log-driver\": \"journald\"\n}\n"),
        (
            "{\n  \"a\": 1\n}\n",
            json!([{"set": "b", "value": {"c": [true]}}]),
            "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": [\n      true\n    ]\n  }\n}\n",
        ),
        ("{}", json!([{"set": "a.b", "value": "x"}]), "{\"a\": {\"b\":\"x\"}}"),
        ("{\"a\": \"\\ud83d\\ude00\", \"b\": 1e3}", json!([{"remove": "b"}]), "{\"a\": \"\\ud83d\\ude00\"}"),
        ("{\"a\":[1,2,3]}", json!([{"remove": "a", "value": 2}, {"rename": "a", "to": "z"}]), "{\"z\":[1,3]}"),
    ];
    for (old, edits, new) in cases {
        assert_eq!(edit("json", old, edits.clone()).as_deref(), Ok(new), "{old:?} {edits}");
    }
}

#[test]
fn toml_edits() {
    let old = "# top\ntitle = \"x\" # t\n\n[server] # s\nport = 80\nhosts = [\"a\"]\n\n[[user]]\nname = \"n\"\n";
    let edits = json!([
        {"set": "server.port", "value": 8070},
        {"append": "server.hosts", "value": "b"},
        {"set": "server.tls.cert", "value": "c"},
        {"rename": "title", "to": "name"},
        {"set": "user.0.name", "value": "m"},
    ]);
    insta::assert_snapshot!(edit("toml", old, edits).unwrap());
    assert_eq!(
        edit("toml", old, json!([{"remove": "server"}, {"remove": "user"}])).unwrap(),
        "# top\ntitle = \"x\" # t\n"
    );
}

#[test]
fn ini_edits() {
    let old = "## Configuration\nhostname = reg.mydomain.com\n\nworkers = 3 \n#filter = x\n[mail]\nserver=smtp\nfrom = a\n  b\n\n[tail]\n";
    let cases = [
        (json!([{"set": "hostname", "value": "h"}]), old.replace("reg.mydomain.com", "h")),
        (json!([{"set": "workers", "value": 3}]), old.to_owned()),
        (json!([{"set": "filter", "value": "y"}]), old.replace("workers = 3 \n", "workers = 3 \nfilter = y\n")),
        (json!([{"set": "mail.port", "value": 25}]), old.replace("  b\n", "  b\nport=25\n")),
        (json!([{"remove": "mail.from"}]), old.replace("from = a\n  b\n", "")),
        (json!([{"set": "mail.from", "value": "c"}]), old.replace("a\n  b\n", "c\n")),
        (json!([{"remove": "mail"}]), old.replace("[mail]\nserver=smtp\nfrom = a\n  b\n\n", "")),
        (json!([{"set": "tail.x", "value": true}]), format!("{old}x = true\n")),
        (json!([{"set": "new.x", "value": "y"}]), format!("{old}\n[new]\nx = y\n")),
        (json!([{"rename": "mail.server", "to": "host"}]), old.replace("server=", "host=")),
        (json!([{"replace": "*.server", "from": "sm", "to": "x"}]), old.replace("=smtp", "=xtp")),
    ];
    for (edits, new) in cases {
        assert_eq!(edit("ini", old, edits.clone()).as_deref(), Ok(new.as_str()), "{edits}");
    }
}

#[test]
fn env_edits() {
    let old = "LOG=debug\nexport MYSQL_HOST=mysql\nPWD=$db_password\n";
    let edits = json!([
        {"set": "MYSQL_HOST", "value": "db.example.com"},
        {"set": "MYSQL_PORT", "value": 3306},
        {"remove": "PWD"},
    ]);
    let new = "LOG=debug\nexport MYSQL_HOST=db.example.com\nMYSQL_PORT=3306\n";
    assert_eq!(edit("env", old, edits).unwrap(), new);
    assert_eq!(edit("env", "", json!([{"set": "A", "value": ""}])).unwrap(), "A=\n");
}

#[test]
fn what_cannot_be_done_says_why() {
    let cases = [
        ("yaml", "a: 1\n", json!([{"set": "a.b", "value": 1}]), "edit 1 (a.b): `a` is a number, not a map"),
        ("yaml", "a: 1\n", json!([{"rename": "b", "to": "c"}]), "nothing is at `b`"),
        ("yaml", "a: 1\nb: 2\n", json!([{"rename": "a", "to": "b"}]), "`b` is there already"),
        ("yaml", "a: 1\n", json!([{"append": "a", "value": 1}]), "`a` is a number, not a list"),
        ("yaml", "a: 1\na: 2\n", json!([{"remove": "b"}]), "line 2: the key `a` stands twice in one map"),
        (
            "yaml",
            "a: &x [1]\nb: [*x, 2]\n",
            json!([{"remove": "b", "value": [1]}]),
            "cannot be changed without touching",
        ),
        ("yaml", "a: [x, y]\n", json!([{"remove": "a.0"}]), "an item is not removed by its number"),
        (
            "yaml",
            "a: /d/d/x\n",
            json!([{"replace": "a", "from": "/d/", "to": "/"}]),
            "done twice, it would be something else",
        ),
        ("yaml", "a: &x {k: 1}\nb: *x\n", json!([{"set": "b.k", "value": 2}]), "cannot be changed without touching"),
        ("json", "{\"a\": }", json!([{"remove": "b"}]), "expected value at line 1 column 7"),
        ("toml", "a = \n", json!([{"remove": "b"}]), "TOML parse error at line 1"),
        ("ini", "a = 1\na = 2\n", json!([{"set": "a", "value": 3}]), "`a` stands in lines 1 and 2"),
        ("ini", "a = 1\n", json!([{"set": "a", "value": [1]}]), "a text, a number or a boolean"),
    ];
    for (format, old, edits, why) in cases {
        let error = edit(format, old, edits).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn edits_keep_the_mode_and_undo() {
    let mut lab = Lab::new();
    lab.put("c.yml", COMPOSE);
    lab.set_mode("c.yml", 0o600);
    let before = lab.snapshot();
    let with = json!({"path": "c.yml", "edits": [{"remove": "services.db"}], "validate": ["test", "-s", "{path}"]});
    let preview = lab.preview(&FileEdit, &with).await.unwrap();
    assert!(preview.details.contains(&"-    image: example/db:1".to_owned()), "{preview:?}");
    let ran = lab.run(&FileEdit, &with).await.unwrap();
    assert!(!lab.text("c.yml").contains("example/db"));
    assert_eq!(lab.mode("c.yml"), 0o600);
    assert!(!lab.run(&FileEdit, &with).await.unwrap().changed);
    lab.undo(&FileEdit, &with, &ran).await.unwrap();
    assert_eq!(lab.snapshot(), before);

    let ran = lab.run(&FileEdit, &with).await.unwrap();
    lab.put("c.yml", "version: '3'\n");
    assert_eq!(lab.undo(&FileEdit, &with, &ran).await.unwrap_err().class, Class::Conflict);
    lab.force = true;
    lab.undo(&FileEdit, &with, &ran).await.unwrap();
    assert_eq!(lab.snapshot(), before);
}

/// Steps beside each other, each with a host of its own: what one notes is not the others'.
#[tokio::test]
async fn steps_beside_each_other_append_to_one_list_and_each_undoes_its_own() {
    let all = [
        ("c.json", Some("{\"list\": [\"x\"]}\n"), None),
        ("c.json", Some("{\n  \"list\": [\n    \"x\"\n  ]\n}\n"), Some(json!(["test", "-s", "{path}"]))),
        ("c.json", None, Some(json!(["test", "-s", "{path}"]))),
        ("c.yml", Some("list:\n  - x\nmore: 1\n"), None),
    ];
    for (path, old, validate) in all {
        let lab = Lab::new();
        if let Some(old) = old {
            lab.put(path, old);
        }
        let before = lab.snapshot();
        let edit: &dyn AnyStepType = &FileEdit;
        let with = ["a", "b", "c", "d"].map(|value| {
            let edits = json!([{"append": "list", "value": value}]);
            json!({"path": path, "create": true, "edits": edits, "validate": validate})
        });
        let hosts = [(); 4].map(|()| TestHost::default());
        let cx = |n: usize| Cx { host: &hosts[n], step: ["a", "b", "c", "d"][n], ..lab.cx() };
        let mut captured = Vec::new();
        for (n, with) in with.iter().enumerate() {
            captured.push(edit.capture(&cx(n), with).await.unwrap());
        }
        let act = async |n: usize| edit.act(&cx(n), &with[n], &captured[n]).await.unwrap().outputs;
        let (a, b, c, d) = tokio::join!(act(0), act(1), act(2), act(3));
        let outputs = [a, b, c, d];
        let text = lab.text(path);
        for value in ["a", "b", "c", "d"] {
            assert!(text.contains(&format!("\"{value}\"")) || text.contains(&format!("- {value}")), "{text}");
        }
        for n in [1, 3, 0, 2] {
            edit.undo(&cx(n), &with[n], &captured[n], Some(&outputs[n])).await.unwrap();
        }
        assert_eq!(lab.snapshot(), before, "{text}");
    }
}

#[tokio::test]
async fn every_break_can_be_undone() {
    let prepare = |lab: &Lab| lab.put("d.json", "{}\n");
    let with = |_: &Lab| json!({"path": "d.json", "edits": [{"append": "insecure-registries", "value": "r:1"}]});
    assert!(break_everywhere(&FileEdit, prepare, with).await >= 2);
    let create = |_: &Lab| json!({"path": "x.env", "create": true, "edits": [{"set": "A", "value": "1"}]});
    assert!(break_everywhere(&FileEdit, |_| {}, create).await >= 2);
}

#[tokio::test]
async fn bad_inputs_are_named() {
    let paths =
        |with: Json| -> Vec<String> { Lab::problems(&FileEdit, &with).into_iter().map(|p| p.path.join(".")).collect() };
    let edits = |edits: Json| paths(json!({"path": "f.yml", "edits": edits}));
    assert_eq!(paths(json!({"path": "f", "edits": []})), ["path", "edits"]);
    assert_eq!(paths(json!({"path": "f.ini", "edits": [{"append": "a", "value": 1}]})), ["edits.0.append"]);
    assert_eq!(edits(json!([{"value": 1}])), ["edits.0"]);
    assert_eq!(edits(json!([{"set": "a", "remove": "b"}])), ["edits.0.remove"]);
    assert_eq!(edits(json!([{"set": "a"}])), ["edits.0.set"]);
    assert_eq!(edits(json!([{"remove": "a", "to": "x"}])), ["edits.0.to"]);
    assert_eq!(edits(json!([{"remove": "a..b"}])), ["edits.0.remove"]);
    assert_eq!(edits(json!([{"replace": "a", "from": "", "to": "x"}])), ["edits.0.from"]);
    let lab = Lab::new();
    let missing = lab.capture(&FileEdit, &json!({"path": "no.yml", "edits": [{"remove": "a"}]})).await.unwrap_err();
    assert!(missing.message.contains("there is no such file"), "{missing}");
}
