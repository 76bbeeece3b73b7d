//! The beginning of a long text, for a message.

use std::borrow::Cow;

/// At most so many characters, and an ellipsis where more is left out: by that the driver knows what is left of a secret.
pub fn beginning(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_longer_is_cut() {
        assert_eq!(beginning("äöü", 3), "äöü");
        assert_eq!(beginning("äöüß", 3), "äöü…");
        assert_eq!(beginning("", 0), "");
    }
}
