//! A path as it is written in a template, taken apart: `../a.[b c].0`. Knows nothing of scopes.

/// A path as it is written.
pub(super) struct Written<'r> {
    pub(super) root: bool,
    pub(super) local: Option<&'r str>,
    pub(super) up: usize,
    /// It says `this` or `./`.
    pub(super) this: bool,
    pub(super) segments: Vec<String>,
}

impl<'r> Written<'r> {
    pub(super) fn read(raw: &'r str) -> Self {
        let mut written = Self { root: false, local: None, up: 0, this: false, segments: Vec::new() };
        let mut rest = raw;
        if let Some(after) = rest.strip_prefix("./") {
            written.this = true;
            rest = after;
        }
        if rest == "@root" {
            return Self { root: true, ..written };
        }
        if let Some(after) = rest.strip_prefix("@root.").or_else(|| rest.strip_prefix("@root/")) {
            written.root = true;
            rest = after;
        }
        let local = rest.strip_prefix('@');
        rest = local.unwrap_or(rest);
        while let Some(after) = rest.strip_prefix("../") {
            written.up += 1;
            rest = after;
        }
        if local.is_some() {
            written.local = Some(rest);
            return written;
        }
        while !rest.is_empty() {
            let bracketed = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
            let (segment, after) =
                bracketed.unwrap_or_else(|| rest.split_at(rest.find(['.', '/']).unwrap_or(rest.len())));
            let bracket = bracketed.is_some();
            if segment == "this" && !bracket {
                written.this |= written.segments.is_empty();
            } else if !segment.is_empty() || bracket {
                written.segments.push(segment.to_owned());
            }
            rest = after.strip_prefix(['.', '/']).unwrap_or(after);
        }
        written
    }
}
