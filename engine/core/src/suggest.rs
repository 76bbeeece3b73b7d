//! "Did you mean": the nearest known name.

/// The known name nearest to what was written, when it is near enough to be a slip.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(written.len()) / 4 && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}
