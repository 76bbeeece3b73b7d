//! Reads the end of validity out of an X.509 certificate. Verifies nothing: rustls has done that.

use jiff::Timestamp;

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // DER: the definite long form, at most four bytes here (4 GiB).
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `notAfter` of a certificate (RFC 5280, 4.1.2.5). None = not a certificate.
pub(crate) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut tbs, _) = element(certificate)?;
    if tbs.first() == Some(&VERSION) {
        tbs = element(tbs)?.2;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        tbs = element(tbs)?.2;
    }
    let (_, validity, _) = element(tbs)?;
    let (_, _, after_not_before) = element(validity)?;
    let (tag, time, _) = element(after_not_before)?;
    time_of(tag, std::str::from_utf8(time).ok()?)
}

fn time_of(tag: u8, text: &str) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = text.strip_suffix('Z')?;
    let digits = match tag {
        // Two digits of the year: 50 to 99 are of the last century.
        UTC_TIME => format!("{}{digits}", if digits.get(..2)? >= "50" { "19" } else { "20" }),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    if digits.len() != 14 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits[from..to].parse::<i8>().ok();
    let year = digits[..4].parse::<i16>().ok()?;
    let date =
        jiff::civil::DateTime::new(year, part(4, 6)?, part(6, 8)?, part(8, 10)?, part(10, 12)?, part(12, 14)?, 0);
    // 99991231235959Z, "no end" (RFC 5280, 4.1.2.5), is some hours behind the last time that jiff knows.
    Some(date.ok()?.to_zoned(jiff::tz::TimeZone::UTC).map_or(Timestamp::MAX, |at| at.timestamp()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn made(not_after: (i32, u8, u8)) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_may_have_no_end() {
        assert_eq!(time_of(0x18, "99991231235959Z"), Some(Timestamp::MAX));
        assert_eq!(time_of(0x18, "99991331235959Z"), None);
    }

    #[test]
    fn reads_both_forms_of_time() {
        // Up to 2049 it is a UTCTime, from 2050 on a GeneralizedTime.
        for (date, text) in [
            ((2026, 3, 1), "2026-03-01T00:00:00Z"),
            ((2049, 12, 31), "2049-12-31T00:00:00Z"),
            ((2087, 1, 2), "2087-01-02T00:00:00Z"),
        ] {
            assert_eq!(not_after(&made(date)).unwrap().to_string(), text);
        }
        assert_eq!(time_of(0x17, "991231235958Z").unwrap().to_string(), "1999-12-31T23:59:58Z");
        assert_eq!(time_of(0x17, "260230000000Z"), None);
        assert_eq!(time_of(0x18, "2026010100000Z"), None);
    }

    #[test]
    fn a_torn_certificate_is_none() {
        let der = made((2030, 1, 1));
        for end in 0..der.len().min(150) {
            assert_eq!(not_after(&der[..end]), None);
        }
        assert_eq!(not_after(b"not a certificate"), None);
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }
}
