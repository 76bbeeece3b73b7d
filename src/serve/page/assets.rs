//! The files of the page, as they are in the binary. Knows nothing of what is in them.

use std::sync::OnceLock;

use ring::digest;

use crate::serve::token::hex;

pub(super) struct Asset {
    pub(super) name: &'static str,
    pub(super) media: &'static str,
    pub(super) bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($name:literal, $media:expr) => {
        Asset { name: $name, media: $media, bytes: include_bytes!(concat!("assets/", $name)) }
    };
}

const ASSETS: &[Asset] = &[
    asset!("style.css", "text/css; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("actions.js", SCRIPT),
    asset!("ansi.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("broken.js", SCRIPT),
    asset!("calendar.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("events.js", SCRIPT),
    asset!("form.js", SCRIPT),
    asset!("graph.js", SCRIPT),
    asset!("layout.js", SCRIPT),
    asset!("log.js", SCRIPT),
    asset!("login.js", SCRIPT),
    asset!("playbook.js", SCRIPT),
    asset!("playbooks.js", SCRIPT),
    asset!("run.js", SCRIPT),
    asset!("runs.js", SCRIPT),
    asset!("schedules.js", SCRIPT),
    asset!("shell.js", SCRIPT),
    asset!("words.js", SCRIPT),
];

pub(super) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|a| a.name == name)
}

/// Stands in the address of each file: another text, another address, so that a browser may keep them for ever.
pub(super) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut all = digest::Context::new(&digest::SHA256);
        for asset in ASSETS {
            all.update(asset.name.as_bytes());
            all.update(asset.bytes);
        }
        hex(&all.finish().as_ref()[..8])
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        ASSETS.iter().map(|a| (a.name, std::str::from_utf8(a.bytes).unwrap()))
    }

    #[test]
    fn every_import_is_a_file_that_is_served_and_every_file_is_listed() {
        for (name, text) in texts() {
            for line in text.lines().filter(|l| l.starts_with("import ")) {
                let from = line.split_once("\"./").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
                assert!(find(from).is_some(), "{name} imports {from}");
            }
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/page/assets");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(find(&name).is_some(), "{name} is not in the list");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_text_never_becomes_markup() {
        for (name, text) in texts() {
            for bad in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "https://",
                "@import",
            ] {
                assert!(!text.contains(bad), "{name} has {bad}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://"), "{name} names another host");
        }
    }
}
