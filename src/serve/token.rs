//! Tokens: how they are made, what of them is kept, and how one that is shown is compared. What a role may do is
//! `auth`'s business.
//!
//! A token reads `rbk_ID_SECRET`. The store has the id and the SHA-256 of the secret, which is 256 random bits: nothing
//! that could be guessed faster with the hash than without it.

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};

use crate::failure::Failure;
pub(crate) use crate::words::hex;

const MARK: &str = "rbk";

/// A new token, shown once.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) hash: Vec<u8>,
}

pub(crate) fn make() -> Result<Made, Failure> {
    let (id, secret) = (hex(&random::<4>()?), hex(&random::<32>()?));
    let text = format!("{MARK}_{id}_{secret}");
    Ok(Made { id, text, hash: hash_of(&secret) })
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::failed("the system gives no random numbers"))?;
    Ok(bytes)
}

/// The public part, and the hash of the secret one. None: it does not look like a token.
pub(crate) fn read(text: &str) -> Option<(&str, Vec<u8>)> {
    let (id, secret) = text.strip_prefix(MARK)?.strip_prefix('_')?.split_once('_')?;
    let is_hex = |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex(id, 8) && is_hex(secret, 64)).then(|| (id, hash_of(secret)))
}

fn hash_of(secret: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, secret.as_bytes()).as_ref().to_vec()
}

/// In constant time: both are hashed with a key that nobody knows before they are compared.
pub(crate) fn same(key: &hmac::Key, ours: &[u8], shown: &[u8]) -> bool {
    let tag = hmac::sign(key, ours);
    hmac::verify(key, shown, tag.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_token_is_known_again_and_no_other_is() {
        let (made, other) = (make().unwrap(), make().unwrap());
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"any");
        let (id, hash) = read(&made.text).unwrap();
        assert_eq!(id, made.id);
        assert!(same(&key, &made.hash, &hash) && !same(&key, &other.hash, &hash));
        assert!(!made.text.contains(&hex(&made.hash)), "what is kept is not what is shown");
        for bad in
            ["", "rbk_", "rbk_1_2", "xyz_00000000_", &made.text[..made.text.len() - 1], &format!("{}0", made.text)]
        {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
