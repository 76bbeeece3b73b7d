//! Names beside a file, and mistakes in paths. Paths are the target's own, with `/` between their parts.

use runback_core::step::{Cx, InputProblem};

/// The folder that holds it; `.` for a bare name.
pub(crate) fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((dir, _)) => dir,
        None => ".",
    }
}

pub(crate) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// A hidden name beside the path that belongs to this step of this run alone: `.NAME.runback-RUN-STEP.SUFFIX`.
/// It is the same for every attempt, so a later one, or the undo, finds what an earlier one left.
pub(crate) fn beside(cx: &Cx<'_>, path: &str, suffix: &str) -> String {
    let dir = path.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
    let short: String = name(path).chars().take(40).collect();
    format!("{dir}.{short}.runback-{}-{}.{suffix}", cx.run, step_name(cx.step))
}

/// A step's path as part of a file name. Where characters had to go, a checksum keeps two steps apart.
fn step_name(step: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '.' };
    let name: String = step.chars().map(plain).take(60).collect();
    if name == step { name } else { format!("{name}-{}", &super::sha256_hex(step.as_bytes())[..8]) }
}

/// What is wrong with a literal path.
pub(crate) fn problems(key: &str, path: &str) -> Option<InputProblem> {
    let (message, help) = if path.is_empty() {
        ("the path is empty", None)
    } else if path == "~" || path.starts_with("~/") {
        ("`~` is not expanded", Some("write the path from `/` on"))
    } else if path.contains('\0') {
        ("a path has no NUL byte", None)
    } else if path.trim_end_matches('/').is_empty() {
        ("this is the root of the file system", None)
    } else if matches!(name(path.trim_end_matches('/')), "." | "..") {
        ("the last part of the path is not a name", Some("write the name itself"))
    } else {
        return None;
    };
    Some(InputProblem { path: vec![key.to_owned()], message: message.to_owned(), help: help.map(str::to_owned) })
}

/// Like [`problems`], for something that is not a folder.
pub(crate) fn file_problems(key: &str, path: &str) -> Option<InputProblem> {
    problems(key, path).or_else(|| {
        let problem = |help: &str| InputProblem {
            path: vec![key.to_owned()],
            message: "a path that ends in `/` is a folder".to_owned(),
            help: Some(help.to_owned()),
        };
        path.ends_with('/').then(|| problem("add the file's name"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lab;

    #[tokio::test]
    async fn names_beside_are_the_steps_own() {
        let mut lab = Lab::new();
        assert_eq!(beside(&lab.cx(), "/etc/motd", "bak"), "/etc/.motd.runback-r1-step.bak");
        assert_eq!(beside(&lab.cx(), "motd", "bak"), ".motd.runback-r1-step.bak");
        lab.step = "a/b[c]".into();
        let first = beside(&lab.cx(), "/motd", "new");
        lab.step = "a.b.c.".into();
        let second = beside(&lab.cx(), "/motd", "new");
        assert!(first.starts_with("/.motd.runback-r1-a.b.c.-"), "{first}");
        assert_ne!(first, second);
        assert!(name(&beside(&lab.cx(), &"x".repeat(255), "new")).len() < 255);
    }

    #[test]
    fn parts_of_paths() {
        assert_eq!((parent("/a/b"), name("/a/b")), ("/a", "b"));
        assert_eq!((parent("/a"), name("a")), ("/", "a"));
        assert_eq!(parent("a"), ".");
    }

    #[test]
    fn bad_paths_are_named() {
        for path in ["", "~/x", "/", "a/..", "a\0", "/etc/."] {
            assert!(problems("path", path).is_some(), "{path}");
        }
        for path in ["a", "/a/b/", "./a", "~x"] {
            assert!(problems("path", path).is_none(), "{path}");
        }
        assert!(file_problems("path", "/a/").is_some());
    }
}
