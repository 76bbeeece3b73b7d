//! `dns.check`: a name has the records it should have.
//!
//! Asks DNS itself (the hosts file is not looked at), from the machine that runback runs on, also when the step's
//! target is another one: the resolvers of `/etc/resolv.conf`, or `server`. The name is taken as fully qualified; no search
//! domain is added. Nothing is cached by runback. It changes nothing. To wait until a change has spread, give the step a
//! `retry`.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::within;
use crate::http::look::problem;
use crate::period::Period;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Kind {
    #[default]
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Srv,
    Txt,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Cname => RecordType::CNAME,
            Self::Mx => RecordType::MX,
            Self::Ns => RecordType::NS,
            Self::Ptr => RecordType::PTR,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Match {
    /// Each of `values` is there; others may be there too.
    #[default]
    Contains,
    /// `values` and nothing else is there.
    Exact,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// Fully qualified, with or without the dot at its end.
    pub(crate) name: String,
    /// The type of record.
    #[serde(default)]
    pub(crate) r#type: Kind,
    /// What must be there: an address, a name, `10 mail.example.com` (MX), `10 5 443 web1.example.com` (SRV), the text
    /// (TXT). Empty = any record.
    #[serde(default)]
    pub(crate) values: Vec<String>,
    /// Whether the answer holds all of `values`, or exactly them.
    #[serde(default)]
    pub(crate) r#match: Match,
    /// True wants no such record.
    #[serde(default)]
    pub(crate) absent: bool,
    /// Whom to ask: an address or a name, with `:port` where it is not 53. Default: the system's resolvers.
    #[serde(default)]
    pub(crate) server: Option<String>,
    /// For the whole check.
    #[serde(default = "five_seconds")]
    pub(crate) timeout: Period,
}

fn five_seconds() -> Period {
    Period::seconds(5)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Sorted; names in lower case without the dot at their end.
    pub(crate) values: Vec<String>,
    /// The shortest time that a resolver may keep them, in seconds; null without records.
    pub(crate) ttl: Option<u32>,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DnsCheck;

const EXAMPLES: &[&str] = &[
    "
- id: switched
  uses: dns.check
  with: { name: shop.example.com, type: CNAME, values: [new-lb.example.net], server: ns1.example.com }
  retry: { max_attempts: 60, initial_interval: 10s, backoff_coefficient: 1 }
",
    "
- id: mail
  uses: dns.check
  with: { name: example.com, type: MX, values: [10 mail.example.com], match: exact }
",
];

#[async_trait::async_trait]
impl StepType for DnsCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "dns.check",
            doc: "Checks that a name has the DNS records it should have.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = Vec::new();
        if let Err(e) = absolute(&inputs.name) {
            found.push(problem(&["name"], e));
        }
        if inputs.absent && !inputs.values.is_empty() {
            found.push(problem(&["absent"], "`absent: true` wants no record; leave `values` out".to_owned()));
        }
        if inputs.r#match == Match::Exact && inputs.values.is_empty() {
            found.push(problem(&["match"], "has no meaning without `values`".to_owned()));
        }
        for (i, value) in inputs.values.iter().enumerate() {
            if let Err(e) = normal(inputs.r#type, value) {
                found.push(problem(&["values", &i.to_string()], e));
            }
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let wanted = match (inputs.absent, inputs.values.is_empty()) {
            (true, _) => "is not there".to_owned(),
            (false, true) => "is there".to_owned(),
            (false, false) => format!("is {}", inputs.values.join(", ")),
        };
        let summary = format!("{} {wanted}", what(inputs));
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let what = what(inputs);
        let found = within(cx, inputs.timeout.0, &what, look_up(inputs, &what)).await?;
        let shown = if found.values.is_empty() { "no record".to_owned() } else { found.values.join(", ") };
        cx.host.output(Stream::Stdout, format!("{what}: {shown}\n").as_bytes());
        compare(inputs, &what, &found, &shown)?;
        Ok(Acted::unchanged(found))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

/// "A of shop.example.com (asked ns1.example.com)".
fn what(inputs: &Inputs) -> String {
    let asked = inputs.server.as_ref().map(|s| format!(" (asked {s})")).unwrap_or_default();
    format!("{} of {}{asked}", inputs.r#type.record_type(), inputs.name)
}

fn absolute(name: &str) -> Result<Name, String> {
    let mut parsed = Name::from_utf8(name).map_err(|e| format!("`{name}` is not a DNS name: {e}"))?;
    if parsed.num_labels() == 0 {
        return Err("must not be empty".to_owned());
    }
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn plain_name(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

/// A value as the outputs show it, so that two ways to write it are equal.
fn normal(kind: Kind, value: &str) -> Result<String, String> {
    let value = value.trim();
    let wrong = |like: &str| format!("`{value}` is not a value of {}; write it like {like}", kind.record_type());
    match kind {
        Kind::A => value.parse::<std::net::Ipv4Addr>().map(|a| a.to_string()).map_err(|_| wrong("192.0.2.7")),
        Kind::Aaaa => value.parse::<std::net::Ipv6Addr>().map(|a| a.to_string()).map_err(|_| wrong("2001:db8::7")),
        Kind::Cname | Kind::Ns | Kind::Ptr => Ok(plain_name(value)),
        Kind::Txt => Ok(value.to_owned()),
        Kind::Mx => numbers_and_name(value, 1).ok_or_else(|| wrong("10 mail.example.com")),
        Kind::Srv => numbers_and_name(value, 3).ok_or_else(|| wrong("10 5 443 web1.example.com")),
    }
}

fn numbers_and_name(value: &str, numbers: usize) -> Option<String> {
    let mut words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    let name = words.pop().filter(|_| words.len() == numbers)?;
    let mut parts = Vec::with_capacity(numbers + 1);
    for word in &words {
        parts.push(word.parse::<u16>().ok()?.to_string());
    }
    parts.push(plain_name(&name));
    Some(parts.join(" "))
}

fn value_of(kind: Kind, data: &RData) -> Option<String> {
    let name = |n: &Name| plain_name(&n.to_utf8());
    match (kind, data) {
        (Kind::A, RData::A(a)) => Some(a.0.to_string()),
        (Kind::Aaaa, RData::AAAA(a)) => Some(a.0.to_string()),
        (Kind::Cname, RData::CNAME(n)) => Some(name(&n.0)),
        (Kind::Ns, RData::NS(n)) => Some(name(&n.0)),
        (Kind::Ptr, RData::PTR(n)) => Some(name(&n.0)),
        (Kind::Mx, RData::MX(mx)) => Some(format!("{} {}", mx.preference, name(&mx.exchange))),
        (Kind::Srv, RData::SRV(s)) => Some(format!("{} {} {} {}", s.priority, s.weight, s.port, name(&s.target))),
        (Kind::Txt, RData::TXT(txt)) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    }
}

async fn look_up(inputs: &Inputs, what: &str) -> Result<Outputs, StepError> {
    let name = absolute(&inputs.name).map_err(StepError::permanent)?;
    let resolver = resolver(inputs).await?;
    let lookup = match resolver.lookup(name, inputs.r#type.record_type()).await {
        Ok(lookup) => lookup,
        Err(error) => return no_records(error, what),
    };
    let mut values = Vec::new();
    let mut ttl = None;
    for record in lookup.answers() {
        if let Some(value) = value_of(inputs.r#type, &record.data) {
            values.push(value);
            ttl = Some(ttl.map_or(record.ttl, |t: u32| t.min(record.ttl)));
        }
    }
    values.sort();
    Ok(Outputs { values, ttl })
}

/// "There is none" is an answer; anything else is an error that another try may cure.
fn no_records(error: NetError, what: &str) -> Result<Outputs, StepError> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            Ok(Outputs { values: Vec::new(), ttl: None })
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            Err(StepError::transient(format!("{what}: the server answered {}", none.response_code)))
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Err(StepError::transient(format!("{what}: the server answered {code}")))
        }
        NetError::Timeout => Err(StepError::new(Class::Timeout, format!("{what}: no answer"))),
        other => Err(StepError::transient(format!("{what}: {other}"))),
    }
}

async fn resolver(inputs: &Inputs) -> Result<TokioResolver, StepError> {
    let mut builder = match &inputs.server {
        Some(server) => {
            let address = server_address(server).await?;
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            let config = ResolverConfig::from_name_servers(vec![config]);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
        None => Resolver::builder_tokio().map_err(|e| {
            StepError::permanent(format!("the system's resolvers cannot be read: {e}"))
                .help("see /etc/resolv.conf, or give `server`")
        })?,
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    // Half of the whole, so that a lost packet is asked for once more.
    options.timeout = inputs.timeout.0 / 2;
    options.attempts = 1;
    builder.build().map_err(|e| StepError::permanent(format!("cannot set up a resolver: {e}")))
}

/// `1.1.1.1`, `1.1.1.1:5353`, `[::1]:53`, `::1`, `ns1.example.com`, `ns1.example.com:5353`.
async fn server_address(server: &str) -> Result<SocketAddr, StepError> {
    if let Ok(ip) = server.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 53));
    }
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()),
        None => (server, Some(53)),
    };
    let port = port.ok_or_else(|| StepError::permanent(format!("`{server}` is not an address or name of a server")))?;
    let unresolved = |why: String| StepError::transient(format!("server {server}: cannot be resolved: {why}"));
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|e| unresolved(e.to_string()))?;
    found.next().ok_or_else(|| unresolved("the name has no address".to_owned()))
}

fn compare(inputs: &Inputs, what: &str, found: &Outputs, shown: &str) -> Result<(), StepError> {
    if inputs.absent {
        if found.values.is_empty() {
            return Ok(());
        }
        return Err(StepError::transient(format!("{what}: is {shown}, wanted no record")));
    }
    if found.values.is_empty() {
        return Err(StepError::transient(format!("{what}: there is no record")));
    }
    let wanted: Result<Vec<String>, String> = inputs.values.iter().map(|v| normal(inputs.r#type, v)).collect();
    let wanted = wanted.map_err(StepError::permanent)?;
    let missing = wanted.iter().any(|w| !found.values.contains(w));
    let extra = inputs.r#match == Match::Exact && found.values.iter().any(|f| !wanted.contains(f));
    if missing || extra {
        let only = if inputs.r#match == Match::Exact { "exactly " } else { "" };
        return Err(StepError::transient(format!("{what}: is {shown}, wanted {only}{}", wanted.join(", "))));
    }
    Ok(())
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
