//! The step types of runback: one file each, families in folders. Nothing here knows the executor.

mod approval;
mod assert;
mod begun;
mod bounded;
mod ceph;
mod command_outputs;
mod compose;
mod dir;
mod dns;
mod docker;
mod exec;
mod file;
mod http;
mod json_path;
#[cfg(feature = "k8s")]
mod k8s;
mod mount;
mod notify;
mod package;
mod period;
mod rbd;
mod service;
mod set;
mod shell;
mod tcp;
#[cfg(test)]
mod testing;
mod value_path;
mod virt;
mod wait;

pub use approval::form_field_accepts;
use runback_core::step::Catalog;

/// Every step type that this build has. One line per type.
pub fn catalog() -> Catalog {
    let mut all = Catalog::default();
    all.add(approval::Approval);
    all.add(assert::Assert);
    all.add(compose::check::ComposeCheck);
    all.add(compose::down::ComposeDown);
    all.add(compose::pull::ComposePull);
    all.add(compose::restart::ComposeRestart);
    all.add(compose::up::ComposeUp);
    all.add(dir::create::Create);
    all.add(ceph::blocklist::CephBlocklist);
    all.add(dns::DnsCheck);
    all.add(docker::build::DockerBuild);
    all.add(docker::image_check::DockerImageCheck);
    all.add(docker::login::DockerLogin);
    all.add(docker::pull::DockerPull);
    all.add(docker::push::DockerPush);
    all.add(docker::run::DockerRun);
    all.add(docker::stop::DockerStop);
    all.add(docker::tag::DockerTag);
    all.add(exec::Exec);
    all.add(file::copy::FileCopy);
    all.add(file::edit::FileEdit);
    all.add(file::fetch::FileFetch);
    all.add(file::line::Line);
    all.add(file::link::Link);
    all.add(file::mode::SetMode);
    all.add(file::remove::Remove);
    all.add(file::template::Template);
    all.add(file::unpack::Unpack);
    all.add(file::write::Write);
    all.add(http::check::HttpCheck);
    all.add(http::request::HttpRequest);
    all.add(mount::MountPresent);
    all.add(notify::email::Email);
    all.add(notify::slack::Slack);
    all.add(notify::webhook::Webhook);
    all.add(package::PackagePresent);
    all.add(rbd::info::RbdInfo);
    all.add(rbd::lock_check::RbdLockCheck);
    all.add(rbd::lock_rm::RbdLockRm);
    all.add(rbd::map_check::RbdMapCheck);
    all.add(rbd::snap_create::RbdSnapCreate);
    all.add(rbd::snap_protect::RbdSnapProtect);
    all.add(rbd::snap_remove::RbdSnapRemove);
    all.add(rbd::snap_rollback::RbdSnapRollback);
    for service in service::ALL {
        all.add(service);
    }
    all.add(set::Set);
    all.add(shell::Shell);
    all.add(tcp::TcpCheck);
    all.add(virt::autostart::VirtAutostart);
    all.add(virt::define::VirtDefine);
    all.add(virt::destroy::VirtDestroy);
    all.add(virt::host_check::VirtHostCheck);
    all.add(virt::install::VirtInstall);
    all.add(virt::net::VirtNet);
    all.add(virt::pool::VirtPool);
    all.add(virt::reboot::VirtReboot);
    all.add(virt::resume::VirtResume);
    all.add(virt::shutdown::VirtShutdown);
    all.add(virt::snapshot::VirtSnapshot);
    all.add(virt::start::VirtStart);
    all.add(virt::suspend::VirtSuspend);
    all.add(virt::undefine::VirtUndefine);
    all.add(virt::v2v::VirtV2v);
    all.add(virt::wait::VirtWait);
    all.add(wait::Wait);
    #[cfg(feature = "k8s")]
    add_kubernetes(&mut all);
    all
}

/// They share their connections to clusters.
#[cfg(feature = "k8s")]
fn add_kubernetes(all: &mut Catalog) {
    let clusters = k8s::Clusters::default();
    all.add(k8s::apply::K8sApply(clusters.clone()));
    all.add(k8s::delete::K8sDelete(clusters.clone()));
    all.add(k8s::config::map::K8sConfigMap(clusters.clone()));
    all.add(k8s::config::of_values::K8sSecret(clusters.clone()));
    all.add(k8s::cordon::K8sCordon(clusters.clone()));
    all.add(k8s::drain::K8sDrain(clusters.clone()));
    all.add(k8s::exec::K8sExec(clusters.clone()));
    all.add(k8s::expose::K8sExpose(clusters.clone()));
    all.add(k8s::get::K8sGet(clusters.clone()));
    all.add(k8s::logs::K8sLogs(clusters.clone()));
    all.add(k8s::patch::K8sPatch(clusters.clone()));
    all.add(k8s::port_forward::K8sPortForward(clusters.clone()));
    all.add(k8s::rolling_update::K8sRollingUpdate(clusters.clone()));
    all.add(k8s::rollout::K8sRollout(clusters.clone()));
    all.add(k8s::run::K8sRun(clusters.clone()));
    all.add(k8s::scale::K8sScale(clusters.clone()));
    all.add(k8s::set_image::K8sSetImage(clusters.clone()));
    all.add(k8s::wait::K8sWait(clusters));
}

#[cfg(test)]
mod tests {
    use runback_core::Json;
    use runback_core::check;
    use runback_core::diagnostic::Code;

    /// Looks at the steps of a fragment whose step type this build has, and says how many these are.
    fn accepted(text: &str) -> usize {
        let all = super::catalog();
        let steps: Vec<Json> = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let mut seen = 0;
        for step in &steps {
            let Some(step_type) = step["uses"].as_str().and_then(|name| all.get(name)) else { continue };
            seen += 1;
            // A template stands for a value of any type: only whole literals can be looked at here.
            let with = &step["with"];
            let problems = if with.to_string().contains("{{") { Vec::new() } else { step_type.problems(with) };
            assert_eq!(problems, [], "{text}");
        }
        seen
    }

    /// The whole language is checked elsewhere; this finds an example whose keys or values its own step type refuses.
    #[test]
    fn every_example_is_accepted_by_its_step_type() {
        for step_type in super::catalog().iter() {
            let descriptor = step_type.descriptor();
            assert!(!descriptor.examples.is_empty(), "{} has no example", descriptor.name);
            for text in descriptor.examples {
                accepted(text);
            }
        }
    }

    /// Places in a value, from the top on, all but the top itself.
    fn places(value: &Json, at: &str, found: &mut Vec<String>) {
        let below: Vec<(String, &Json)> = match value {
            Json::Object(map) => map.iter().map(|(k, v)| (k.replace('~', "~0").replace('/', "~1"), v)).collect(),
            Json::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
            _ => return,
        };
        for (key, value) in below {
            let place = format!("{at}/{key}");
            places(value, &place, found);
            found.push(place);
        }
    }

    /// A text that is no template, which may stand for a value of any type.
    fn is_text(value: &Json) -> bool {
        value.as_str().is_some_and(|text| !text.contains("{{"))
    }

    /// Inputs that are good are not called wrong because a value of any type, or a text, comes from a template.
    #[test]
    fn no_template_makes_an_example_wrong() {
        let all = super::catalog();
        let mut looked_at = 0;
        for step_type in all.iter() {
            let name = step_type.descriptor().name;
            let steps =
                step_type.descriptor().examples.iter().flat_map(|t| serde_yaml::from_str::<Vec<Json>>(t).expect(t));
            for step in steps.filter(|s| s["uses"] == name && s["with"].is_object()) {
                let mut found = Vec::new();
                places(&step["with"], "", &mut found);
                for place in found.iter().filter(|p| !p.starts_with("/that")) {
                    for template in ["{{ steps.any.outputs.v }}", "x{{ steps.any.outputs.v }}"] {
                        let mut with = step["with"].clone();
                        match with.pointer_mut(place) {
                            Some(value) if template.starts_with('{') || is_text(value) => *value = template.into(),
                            _ => continue,
                        }
                        let any = serde_json::json!({ "id": "any", "uses": "exec", "with": { "command": ["x"], "outputs": { "v": { "json": "." } } } });
                        let step = serde_json::json!({ "uses": name, "with": with });
                        let playbook =
                            serde_json::json!({ "runback": 1, "name": "t", "steps": [any, step] }).to_string();
                        let checked = check::check("t", &playbook, &mut check::NoLoad, &all);
                        let wrong = checked.diagnostics.iter().find(|d| d.code == Code::WrongStepInput);
                        assert!(wrong.is_none(), "{name}: {with}: {wrong:?}");
                        looked_at += 1;
                    }
                }
            }
        }
        assert!(looked_at > 300, "{looked_at}");
    }

    #[test]
    fn the_guide_shows_what_the_step_types_take() {
        let looked_at = |guide: &str| -> usize {
            let blocks = guide.split("```yaml").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
            blocks.map(accepted).sum()
        };
        assert_eq!(looked_at(include_str!("../../docs/guide/checks-and-waits.md")), 10);
        assert_eq!(looked_at(include_str!("../../docs/guide/breaking-a-stuck-rbd-lock.md")), 3);
        assert_eq!(looked_at(include_str!("../../docs/guide/moving-vms-off-esxi.md")), 2);
        #[cfg(feature = "k8s")]
        assert_eq!(looked_at(include_str!("../../docs/guide/kubernetes.md")), 3);
        assert_eq!(looked_at(include_str!("../../docs/guide/containers-on-several-hosts.md")), 9);
    }

    /// What a person meets: a line of help, a described input each, and shapes whose errors can be told in one line.
    #[test]
    fn every_type_is_described_and_has_plain_schemas() {
        let mut findings = Vec::new();
        for step_type in super::catalog().iter() {
            let d = step_type.descriptor();
            assert!(d.doc.ends_with('.') && d.doc.len() < 100 && !d.doc.contains('\n'), "{}: {:?}", d.name, d.doc);
            let schema = step_type.input_schema();
            // Without any name of its own it is a map of the author's names, as `set` is.
            let closed = schema["additionalProperties"] == false || schema["properties"].is_null();
            assert!(closed, "{}: unknown inputs must be refused", d.name);
            for (side, schema) in [("inputs", &schema), ("outputs", &step_type.output_schema())] {
                let properties = schema["properties"].as_object().into_iter().flatten();
                findings.extend(properties.filter_map(|(name, property)| {
                    let described = described(schema, property);
                    (!described).then(|| format!("{} {side}: `{name}` is not described", d.name))
                }));
                alternatives(schema, &mut |at| findings.push(format!("{} {side}: alternatives in {at}", d.name)));
            }
        }
        assert!(findings.is_empty(), "{findings:#?}");
    }

    /// By itself, or by the type that it refers to.
    fn described(schema: &Json, property: &Json) -> bool {
        let referred = property["$ref"].as_str().or_else(|| property["anyOf"][0]["$ref"].as_str());
        let referred = referred.and_then(|r| schema.pointer(r.trim_start_matches('#')));
        property["description"].is_string() || referred.is_some_and(|r| r["description"].is_string())
    }

    /// Finds what `untagged` and `flatten` make. An optional type of its own (`anyOf` of it and null), and a list of
    /// constants with a description each, are plain enough.
    fn alternatives(schema: &Json, found: &mut dyn FnMut(&Json)) {
        if let Some(map) = schema.as_object() {
            let optional = |list: &[Json]| list.len() == 2 && list[1] == serde_json::json!({ "type": "null" });
            let constants = |list: &[Json]| list.iter().all(|one| one.get("const").is_some());
            for word in ["anyOf", "oneOf", "allOf", "not", "if"] {
                let plain = |list: &Vec<Json>| optional(list) || constants(list);
                if map.get(word).is_some_and(|alternatives| !alternatives.as_array().is_some_and(plain)) {
                    found(schema);
                }
            }
            map.values().for_each(|value| alternatives(value, found));
        }
        schema.as_array().into_iter().flatten().for_each(|value| alternatives(value, found));
    }
}
