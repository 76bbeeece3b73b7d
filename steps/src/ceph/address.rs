//! Addresses as Ceph writes them: `10.0.0.7:0/2494281927`, `[fe80::1]:0/7`, `v2:10.0.0.7:6789/0`. Knows no cluster.

use std::net::IpAddr;

/// A client's address, or a whole machine's where port and nonce are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) nonce: u32,
}

impl Address {
    /// Takes an IP, `IP:PORT/NONCE`, or the same with a protocol before it. Says what is wrong otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` is not an address of a client: {why}");
        let bare = ["v1:", "v2:", "any:"].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
        if let Ok(ip) = bare.trim_matches(['[', ']']).parse() {
            return Ok(Self { ip, port: 0, nonce: 0 });
        }
        let (place, nonce) = bare.rsplit_once('/').ok_or_else(|| wrong("write 10.0.0.7 or 10.0.0.7:0/2494281927"))?;
        if place.parse::<IpAddr>().is_ok() {
            return Err(wrong("a range of addresses is not fenced; list the machines"));
        }
        let nonce = nonce.parse().map_err(|_| wrong("the part after `/` is not a number"))?;
        let (ip, port) = place.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let ip = ip.trim_matches(['[', ']']).parse().map_err(|_| wrong("the part before the port is not an IP"))?;
        Ok(Self { ip, port: port.parse().map_err(|_| wrong("the port is not a number"))?, nonce })
    }

    /// It stands for every client on that machine.
    pub(crate) fn whole_machine(&self) -> bool {
        self.port == 0 && self.nonce == 0
    }
}

impl std::fmt::Display for Address {
    /// As the blocklist has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}/{}", self.port, self.nonce),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}/{}", self.port, self.nonce),
        }
    }
}

/// The IP of an address; empty where it cannot be read.
pub(crate) fn ip(text: &str) -> String {
    Address::parse(text).map(|a| a.ip.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ceph_writes() {
        for (text, shown) in [
            ("10.0.0.7", "10.0.0.7:0/0"),
            ("10.0.0.7:0/2494281927", "10.0.0.7:0/2494281927"),
            ("v1:10.0.0.7:6789/0", "10.0.0.7:6789/0"),
            ("fe80::1", "[fe80::1]:0/0"),
            ("[fe80::1]:0/77", "[fe80::1]:0/77"),
            ("[fe80::1]", "[fe80::1]:0/0"),
        ] {
            assert_eq!(Address::parse(text).map(|a| a.to_string()), Ok(shown.to_owned()), "{text}");
        }
        assert_eq!(ip("10.0.0.7:0/1"), "10.0.0.7");
        assert_eq!(ip(""), "");
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "node1", "10.0.0.0/24", "10.0.0.7:0", "10.0.0.7:0/x", "10.0.0.7:x/1", "10.0.0.7:0/99999999999"]
        {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
