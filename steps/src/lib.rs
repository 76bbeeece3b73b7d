//! The step types of runback: one file each, families in folders. Nothing here knows the executor.

mod approval;
mod assert;
mod bounded;
mod command_outputs;
mod dns;
mod exec;
mod file;
mod http;
mod json_path;
mod period;
mod set;
mod shell;
mod tcp;
#[cfg(test)]
mod testing;
mod value_path;
mod wait;

use runback_core::step::Catalog;

/// Every step type that this build has. One line per type.
pub fn catalog() -> Catalog {
    let mut all = Catalog::default();
    all.add(approval::Approval);
    all.add(assert::Assert);
    all.add(dns::DnsCheck);
    all.add(exec::Exec);
    all.add(file::copy::FileCopy);
    all.add(file::line::Line);
    all.add(file::link::Link);
    all.add(file::remove::Remove);
    all.add(file::template::Template);
    all.add(file::write::Write);
    all.add(http::check::HttpCheck);
    all.add(http::request::HttpRequest);
    all.add(set::Set);
    all.add(shell::Shell);
    all.add(tcp::TcpCheck);
    all.add(wait::Wait);
    all
}

#[cfg(test)]
mod tests {
    use runback_core::Json;

    /// The whole language is checked elsewhere; this finds an example whose keys or values its own step type refuses.
    #[test]
    fn every_example_is_accepted_by_its_step_type() {
        let all = super::catalog();
        for step_type in all.iter() {
            let descriptor = step_type.descriptor();
            assert!(!descriptor.examples.is_empty(), "{} has no example", descriptor.name);
            for text in descriptor.examples {
                let steps: Vec<Json> = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
                let with = |s: &Json| (s["uses"] == descriptor.name).then(|| s["with"].clone());
                for inputs in steps.iter().filter_map(with) {
                    // A template stands for a value of any type: only whole literals can be looked at here.
                    let problems =
                        if inputs.to_string().contains("{{") { Vec::new() } else { step_type.problems(&inputs) };
                    assert_eq!(problems, [], "{text}");
                }
            }
        }
    }
}
