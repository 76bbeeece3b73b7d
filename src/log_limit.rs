//! How much output of one attempt is kept, as the command line says it. What is done with it is `runback_exec::output`'s.

use clap::Args;
use runback_exec::output::LIMIT_DEFAULT;

/// Less than a page of text would hide the error that it ends with.
const LEAST: u64 = 4 << 10;

const VARIABLE: &str = "RUNBACK_LOG_LIMIT";

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogLimit {
    /// Output of one attempt that is kept, half of its beginning and half of its end: 64MiB, 2GiB; default: 16MiB
    #[arg(long = "log-limit", env = VARIABLE, value_name = "SIZE", value_parser = bytes)]
    limit: Option<u64>,
}

impl LogLimit {
    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let from_variable = std::env::var_os(VARIABLE).is_some_and(|value| value == text);
    if from_variable && text.is_empty() {
        return Ok(LIMIT_DEFAULT);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.zip(unit).and_then(|(n, shift)| n.checked_mul(1 << shift));
    bytes.filter(|n| (LEAST..=1 << 40).contains(n)).ok_or_else(|| {
        // The parser's own words name the option, which nobody gave.
        let by = if from_variable { format!("{VARIABLE} must be ") } else { String::new() };
        format!("{by}a whole number and KiB, MiB or GiB, from 4KiB to 1024GiB, such as 64MiB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("4096"), Ok(4096));
        for wrong in ["", "MiB", "1", "64MB", "1.5GiB", "-1MiB", "99999999999999GiB", "2TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
