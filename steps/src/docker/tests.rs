//! Tests over a scripted docker, which says what version 28.2.2 says. Real daemons are in the suite that
//! has root.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use runback_core::step::{AnyStepType, Class};
use serde_json::json;

use super::login::DockerLogin;
use super::pull::DockerPull;
use super::run::DockerRun;
use super::stop::DockerStop;
use super::tag::DockerTag;
use crate::testing::{Lab, Ran};

/// Images are the files `image.NAME`, containers the folders `c/ID`. `fails` makes the next command fail with that text,
/// `dies` lets it do its work and kills it then.
const DOCKER: &str = r#"#!/bin/sh
cd "$(dirname "$0")/.."
echo "$*" >>asked
[ ! -e down ] || { [ "$1" != inspect ] || echo '[]'; cat down >&2; exit 1; }
show() {
  d=c/$1 r=$(cat c/$1/running) s=exited
  [ $r = false ] || s=running
  printf '[{"Id":"%s","Name":"/%s","Image":"%s","State":{"Status":"%s","Running":%s,"ExitCode":0},' \
    "$1" "$(cat $d/name)" "$(cat $d/image)" $s $r
  printf '"Config":{"Image":"app:1","Labels":{"dev.runback.spec":"%s","dev.runback.step":"%s"}},' \
    "$(cat $d/spec)" "$(cat $d/step)"
  printf '"HostConfig":{"RestartPolicy":{"Name":"%s"}}}]\n' "$(cat $d/restart)"
}
found() {
  [ ! -d "c/$1" ] || { echo "$1"; return; }
  for d in c/*; do [ "$(cat $d/name)" != "$1" ] || { echo "${d#c/}"; return; }; done
  for d in c/"$1"*; do [ ! -d "$d" ] || echo "${d#c/}"; done
}
not_there() { echo '[]'; echo "Error: No such $1: $2" >&2; exit 1; }
for last; do :; done
verb=$1
case $verb in inspect) ;; *) [ ! -e fails ] || { cat fails >&2; rm fails; exit 1; };; esac
case "$verb $3" in
"inspect container") id=$(found "$4"); [ -n "$id" ] || not_there container "$4"; show $id;;
"inspect image")
  file=image.$4
  [ -e "$file" ] || file=$(grep -l "^sha256:$4" image.* | head -n1)
  [ -e "$file" ] || not_there image "$4"
  echo "[{\"Id\":\"$(cat "$file")\",\"RepoTags\":[\"${file#image.}\"]}]";;
esac
case $verb in
pull) echo sha256:pulled >"image.$last";;
tag) cp "image.$2" "image.$3";;
image) rm "image.$3";;
login) cat >/dev/null; mkdir -p "$DOCKER_CONFIG"; echo '{"auths":{"new":{}}}' >"$DOCKER_CONFIG/config.json";;
start) echo true >c/$(found "$last")/running;;
stop) echo false >c/$(found "$last")/running;;
update) echo "$3" >c/$4/restart;;
rename) echo "$3" >c/$(found "$2")/name;;
rm) rm -r c/$(found "$last");;
run)
  env >env; id=c/ffff; mkdir -p $id; echo true >$id/running; echo no >$id/restart
  while [ $# -gt 1 ]; do
    case $1 in
    --name) echo "$2" >$id/name;;
    --label) echo "${2#*=}" >$id/${2%%=*}; mv $id/${2%%=*} $id/$(echo "${2%%=*}" | sed 's/.*\.//');;
    --env-file) cat "$2" >env-file;;
    esac
    shift
  done
  cat "image.$last" >$id/image;;
esac
[ ! -e dies ] || [ $verb = inspect ] || { rm dies; kill -KILL $$; }
"#;

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.put("bin/docker", DOCKER);
    lab.set_mode("bin/docker", 0o755);
    lab.put("c/0000/name", "other");
    for (key, value) in [("running", "true"), ("image", "x"), ("spec", ""), ("step", ""), ("restart", "no")] {
        lab.put(&format!("c/0000/{key}"), value);
    }
    lab.put("image.app:1", "sha256:app\n");
    lab.env.insert("PATH".to_owned(), format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap()));
    lab
}

/// A container that nobody of runback's made.
fn container(lab: &Lab, id: &str, name: &str) {
    for (key, value) in
        [("name", name), ("running", "true"), ("image", "sha256:x"), ("spec", ""), ("step", ""), ("restart", "always")]
    {
        lab.put(&format!("c/{id}/{key}"), value);
    }
}

fn says(lab: &Lab, id: &str) -> (String, String) {
    let of = |key: &str| lab.text(&format!("c/{id}/{key}")).trim().to_owned();
    (of("name"), of("running"))
}

fn said(name: &str, running: &str) -> (String, String) {
    (name.to_owned(), running.to_owned())
}

#[tokio::test]
async fn an_id_that_begins_like_a_name_is_no_container_of_that_name() {
    let lab = lab();
    let id = "feaaf1612345aabb0d5e3eb2b3e2b2a1d3d7c0a4aa8cf1b0bd1c5f4f2a3e4d5c";
    container(&lab, id, "innocent");
    let with = json!({"image": "app:1", "name": "fe"});
    assert_eq!(lab.preview(&DockerRun, &with).await.unwrap().summary, "run app:1 as fe");
    let ran = lab.run(&DockerRun, &with).await.unwrap();
    assert_eq!((&ran.outputs["container"], &ran.outputs["previous"]), (&json!("fe"), &Json::Null));
    assert_eq!(says(&lab, id), said("innocent", "true"));
    lab.undo(&DockerRun, &with, &ran).await.unwrap();
    assert_eq!(says(&lab, id), said("innocent", "true"));
    assert!(!lab.exists("c/ffff"));

    let error = lab.run(&DockerStop, &json!({"container": "fe"})).await.unwrap_err();
    assert_eq!(error.message, "there is no container fe");
    // What `docker ps` shows, and the whole of it.
    for name in [&id[..12], id, "innocent"] {
        let ran = lab.run(&DockerStop, &json!({"container": name})).await.unwrap();
        assert_eq!((&ran.outputs["id"], says(&lab, id)), (&json!(id), said("innocent", "false")));
        lab.undo(&DockerStop, &json!({"container": name}), &ran).await.unwrap();
        assert_eq!(says(&lab, id), said("innocent", "true"));
    }
}

#[tokio::test]
async fn an_id_that_begins_like_a_name_is_no_image_of_that_name() {
    let lab = lab();
    lab.put("image.other:1", "sha256:cafe01\n");
    let with = json!({"image": "other:1", "name": "cafe"});
    let ran = lab.run(&DockerTag, &with).await.unwrap();
    assert!(ran.changed && lab.exists("image.cafe"));
    assert!(!lab.run(&DockerTag, &with).await.unwrap().changed);
    assert!(lab.undo(&DockerTag, &with, &ran).await.unwrap().changed);
    assert!(!lab.exists("image.cafe") && lab.exists("image.other:1"));
}

#[tokio::test]
async fn a_daemon_that_is_not_found_is_no_container_that_is_not_there() {
    let lab = lab();
    let with = json!({"image": "app:1", "name": "app"});
    let ran = lab.run(&DockerRun, &with).await.unwrap();
    for down in [
        "error during connect: Get \"http://node1:2375/v1.50/containers/app/json\": dial tcp: lookup node1 on 10.0.0.53:53: no such host\n",
        "error during connect: Get \"http://docker.example.com/v1.50/containers/app/json\": command [ssh -l ops -- node1 docker system dial-stdio] has exited with exit status 255, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr=ssh: Could not resolve hostname node1: No such container: app\n",
        "open /root/.docker/cert.pem: no such file or directory\n",
    ] {
        lab.put("down", down);
        let error = lab.undo(&DockerRun, &with, &ran).await.unwrap_err();
        assert!(error.message.contains(down.trim()), "{error}");
        assert_eq!(error.class == Class::Transient, down.starts_with("error during connect"), "{error}");
    }
    std::fs::remove_file(lab.path("down")).unwrap();
    assert!(lab.undo(&DockerRun, &with, &ran).await.unwrap().changed);
    assert!(!lab.exists("c/ffff"));
    // The name is not what tells.
    let with = json!({"image": "app:1", "name": "dial-lookup"});
    assert_eq!(lab.preview(&DockerRun, &with).await.unwrap().summary, "run app:1 as dial-lookup");
}

#[tokio::test]
async fn values_are_in_no_list_of_processes() {
    let lab = lab();
    let env = json!({
        "DOCKER_INFLUXDB_INIT_PASSWORD": "canary-1", "TOKEN": "canary-2", "DOCKER_HOST": "tcp://canary-3:1",
        "PATH": "/canary-4", "DOCKER_CONTENT_TRUST": "canary-5", "HTTPS_PROXY": "http://canary-6"
    });
    let with = json!({"image": "app:1", "name": "app", "env": env});
    lab.run(&DockerRun, &with).await.unwrap();
    assert!(!lab.text("asked").contains("canary"), "{}", lab.text("asked"));
    for option in ["--env DOCKER_INFLUXDB_INIT_PASSWORD ", "--env TOKEN "] {
        assert!(lab.text("asked").contains(option), "{}", lab.text("asked"));
    }
    let (env, file) = (lab.text("env"), lab.text("env-file"));
    assert!(env.contains("DOCKER_INFLUXDB_INIT_PASSWORD=canary-1\n") && env.contains("TOKEN=canary-2\n"), "{env}");
    // Those that `docker` itself reads must not change it.
    for own in [
        "DOCKER_CONTENT_TRUST=canary-5",
        "DOCKER_HOST=tcp://canary-3:1",
        "HTTPS_PROXY=http://canary-6",
        "PATH=/canary-4",
    ] {
        assert!(file.contains(&format!("{own}\n")) && !env.contains(own), "{own}: {file}");
    }
    let broken = json!({"image": "a", "name": "a", "env": {"DOCKER_AUTH_CONFIG": "{\n}", "TEXT": "a\nb"}});
    let problems = Lab::problems(&DockerRun, &broken);
    assert_eq!((problems.len(), &problems[0].path), (1, &vec!["env".to_owned(), "DOCKER_AUTH_CONFIG".to_owned()]));
}

/// An action fails; then `by_hand` does something on the machine; then the run is rolled back, which must leave that.
async fn failed(step: &dyn AnyStepType, with: Json, by_hand: impl Fn(&Lab)) {
    let lab = lab();
    let capture = lab.capture(step, &with).await.unwrap();
    lab.put("fails", "Error response from daemon: denied: requested access to the resource is denied\n");
    lab.act(step, &with, &capture).await.unwrap_err();
    by_hand(&lab);
    let before = lab.snapshot();
    let undone = lab.undo_unfinished(step, &with, &capture).await.unwrap();
    std::fs::write(lab.path("asked"), "").unwrap();
    let without = |mut all: std::collections::BTreeMap<String, String>| {
        all.remove("asked");
        all
    };
    assert_eq!(without(lab.snapshot()), without(before), "{}", step.descriptor().name);
    assert!(!undone.changed, "{}", step.descriptor().name);
}

#[tokio::test]
async fn what_somebody_did_after_a_failure_stays() {
    failed(&DockerPull, json!({"image": "web:1"}), |lab| lab.put("image.web:1", "sha256:theirs\n")).await;
    failed(&DockerPull, json!({"image": "app:1"}), |lab| lab.put("image.app:1", "sha256:theirs\n")).await;
    failed(&DockerTag, json!({"image": "app:1", "name": "web:1"}), |lab| lab.put("image.web:1", "sha256:theirs\n"))
        .await;
    failed(&DockerStop, json!({"container": "other"}), |lab| lab.put("c/0000/running", "false")).await;
    failed(&DockerRun, json!({"image": "none:1", "name": "other"}), |lab| lab.put("c/0000/running", "false")).await;
    failed(&DockerRun, json!({"image": "none:1", "name": "web"}), |lab| container(lab, "1111", "web")).await;
    let login = json!({"registry": "r", "username": "u", "password": "p", "config_dir": "config"});
    failed(&DockerLogin, login.clone(), |lab| lab.put("config/config.json", "theirs")).await;

    let lab = lab();
    lab.put("config/config.json", "before");
    let before = lab.snapshot().keys().filter(|k| k.starts_with("config")).cloned().collect::<Vec<_>>();
    let capture = lab.capture(&DockerLogin, &login).await.unwrap();
    lab.put("fails", "Error response from daemon: unauthorized: incorrect username or password\n");
    lab.act(&DockerLogin, &login, &capture).await.unwrap_err();
    lab.put("config/config.json", "theirs");
    lab.undo_unfinished(&DockerLogin, &login, &capture).await.unwrap();
    assert_eq!(lab.text("config/config.json"), "theirs");
    let after = lab.snapshot().keys().filter(|k| k.starts_with("config")).cloned().collect::<Vec<_>>();
    assert_eq!(after, before, "nothing is left beside it");
}

/// What was cut off may be the step's own: it goes, as long as it is as it can have been left.
#[tokio::test]
async fn what_was_interrupted_is_taken_back() {
    let login = json!({"registry": "r", "username": "u", "password": "p", "config_dir": "config"});
    let steps: [(&dyn AnyStepType, Json); 4] = [
        (&DockerPull, json!({"image": "web:1"})),
        (&DockerTag, json!({"image": "app:1", "name": "web:1"})),
        (&DockerStop, json!({"container": "other"})),
        (&DockerLogin, login),
    ];
    for (step, with) in steps {
        for tells in [true, false] {
            let lab = lab();
            lab.put("asked", "");
            let before = lab.snapshot();
            let mut capture = lab.capture(step, &with).await.unwrap();
            lab.put("dies", "");
            lab.act(step, &with, &capture).await.unwrap_err();
            if !tells {
                // A run of runback 0.1, whose actions noted nothing.
                lab.host.notes.lock().unwrap().clear();
                let old = if capture.is_array() { &mut capture[0] } else { &mut capture };
                old.as_object_mut().unwrap().remove("tells");
            }
            let name = step.descriptor().name;
            assert!(lab.undo_unfinished(step, &with, &capture).await.unwrap().changed, "{name}");
            lab.put("asked", "");
            let after = lab.snapshot();
            assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{name}");
            assert_eq!(says(&lab, "0000"), said("other", "true"), "{name}");
        }
    }
}

#[tokio::test]
async fn an_image_that_somebody_pulled_while_the_run_was_held_stays() {
    let lab = lab();
    let with = json!({"image": "web:1", "missing_only": true});
    let capture = lab.capture(&DockerPull, &with).await.unwrap();
    lab.put("fails", "Error response from daemon: unauthorized\n");
    lab.act(&DockerPull, &with, &capture).await.unwrap_err();
    lab.put("image.web:1", "sha256:theirs\n");
    let acted = lab.act(&DockerPull, &with, &capture).await.unwrap();
    assert!(!acted.changed);
    let ran = Ran { capture, outputs: acted.outputs, changed: acted.changed };
    assert!(!lab.undo(&DockerPull, &with, &ran).await.unwrap().changed);
    assert_eq!(lab.text("image.web:1"), "sha256:theirs\n");
}
