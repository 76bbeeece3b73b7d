//! What `runback schedule export --k8s-cronjob` writes, as a real API server takes it.

use serde_json::Value as Json;

use crate::cluster::Cluster;
use crate::play::Play;

pub(crate) const TESTS: &[crate::Test] = &[("schedule_export_makes_cron_jobs", cron_jobs)];

/// Everything that is not the same for all schedulers, and a name that is too long for an object.
const TICK: &str = r#"runback: 1
name: tick
inputs: { text: { type: string, default: x } }
schedule:
  - { cron: "0 0 * * 5-7", timezone: Europe/Berlin, overlap: buffer_one }
  - { cron: "0 0 */2 * */3", overlap: cancel_other, paused: true }
  - { cron: "15,45 */6 10-20/5 jan,dec *", overlap: allow_all, catchup_window: 1h }
  - { cron: "@monthly", inputs: { text: "a 'b' \"c\" $HOME $(id) : - # x\nsecond" } }
steps: [ { run: 'true' } ]
"#;

fn cron_jobs(cluster: &Cluster, ns: &str) {
    let play = Play::of_text(cluster, "");
    let name = format!("playbooks/{}.yaml", "a-long-name-".repeat(5));
    play.put(&name, TICK);
    let folder = play.path("playbooks");
    let written =
        play.does("schedule", &["export", "--k8s-cronjob", "--image", "runback:1", "--playbooks", &folder]).is(0);
    let mut jobs: Vec<Json> = written.text.split("---\n").map(|one| serde_yaml::from_str(one).expect("YAML")).collect();
    assert_eq!(jobs.len(), 4, "{}", written.text);
    assert!(jobs.iter().all(|job| job["apiVersion"] == "batch/v1"), "{}", written.text);
    // Before 1.21 they were a beta, and before 1.27 without a zone; the rest was read in the same way.
    let known = cluster.api.get("/apis/batch/v1")["resources"].to_string().contains("\"cronjobs\"");
    let version = if known { "batch/v1" } else { "batch/v1beta1" };
    let zones = known && cluster.api.find("/apis/resource.k8s.io").is_some();
    for job in &mut jobs {
        job["apiVersion"] = version.into();
    }
    let at = format!("/apis/{version}/namespaces/{ns}/cronjobs");
    for job in &jobs {
        // A field that it does not know is an error.
        let made = cluster.api.must("POST", &format!("{at}?fieldValidation=Strict"), job);
        for key in ["schedule", "concurrencyPolicy", "startingDeadlineSeconds", "suspend"] {
            assert_eq!(made["spec"][key], job["spec"][key], "{key}");
        }
        assert!(!zones || made["spec"]["timeZone"] == job["spec"]["timeZone"], "{made}");
    }
    let listed = cluster.api.get(&at);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(4), "each has a name of its own");
    // It would have refused one that it cannot read, such as a 7 for Sunday.
    let mut wrong = jobs[0].clone();
    wrong["metadata"]["name"] = "wrong".into();
    wrong["spec"]["schedule"] = "0 0 * * 5-7".into();
    let (status, said) = cluster.api.send("POST", &at, "json", Some(&wrong));
    assert_eq!(status, 422, "{said}");
    let words = &jobs[3]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"];
    let text = words.as_array().and_then(|w| w.last()).and_then(Json::as_str).expect("words");
    // `$$(` is what Kubernetes makes `$(` of.
    assert_eq!(text, "text=a 'b' \"c\" $HOME $$(id) : - # x\nsecond");
}
