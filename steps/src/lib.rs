//! The step types of runback: one file each, families in folders. Nothing here knows the executor.

mod approval;
mod assert;
mod bounded;
mod command_outputs;
mod dir;
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
    all.add(dir::create::Create);
    all.add(dns::DnsCheck);
    all.add(exec::Exec);
    all.add(file::copy::FileCopy);
    all.add(file::line::Line);
    all.add(file::link::Link);
    all.add(file::mode::SetMode);
    all.add(file::remove::Remove);
    all.add(file::template::Template);
    all.add(file::unpack::Unpack);
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

    #[test]
    fn the_guide_shows_what_the_step_types_take() {
        let guide = include_str!("../../docs/guide/checks-and-waits.md");
        let blocks = guide.split("```yaml").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
        assert_eq!(blocks.map(accepted).sum::<usize>(), 10);
    }
}
