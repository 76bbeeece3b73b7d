//! `virt.wait`: waits until a domain is in a state, has an address, or answers on a port there.
//!
//! **Does.** Looks every two seconds, until all that was asked for is so, for at most `within`. Addresses come from the
//! leases of libvirt's own networks (`lease`), the guest agent (`agent`) or the host's ARP table (`arp`); default is to
//! try them in this order. With `port`, the address must accept connections there; it is tried from the machine that
//! runback runs on, so the guest must be reachable from there.
//!
//! **Does not** change anything.

use std::time::Duration;

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{self, State};
use super::errors;
use super::virsh::{Connection, libvirt_inputs, name_problems};
use crate::bounded::pause;
use crate::http::look::problem;
use crate::period::Period;

const POLL: Duration = Duration::from_secs(2);
/// For one connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Where addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    Lease,
    Agent,
    Arp,
}

libvirt_inputs! {
    /// Which domain, what to wait for, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// The state that it must be in. Default: running.
        #[serde(default)]
        state: Option<State>,
        /// Wait for an address too.
        #[serde(default)]
        address: bool,
        /// Where the address comes from. Default: lease, agent, arp.
        #[serde(default)]
        source: Option<Source>,
        /// Wait until this TCP port answers at the address.
        #[serde(default)]
        #[schemars(range(min = 1))]
        port: Option<u16>,
        /// How long to wait for all of it.
        #[serde(default = "five_minutes")]
        within: Period,
    }
}

fn five_minutes() -> Period {
    Period::seconds(300)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The domain's name.
    pub(crate) domain: String,
    /// How it is.
    pub(crate) state: State,
    /// The first address (the one that answers, with `port`); null where none was asked for.
    pub(crate) address: Option<String>,
    /// All addresses that were found.
    pub(crate) addresses: Vec<String>,
}

/// The step type `virt.wait`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtWait;

/// Addresses in what `virsh domifaddr` prints: the last column, without its prefix length. Not those that only work
/// inside of the guest or its network.
fn parse(text: &str) -> Vec<String> {
    let address = |line: &str| {
        let mut columns = line.split_whitespace().rev();
        let (last, family) = (columns.next()?, columns.next()?);
        matches!(family, "ipv4" | "ipv6").then(|| last.split('/').next().unwrap_or(last).to_owned())
    };
    let all = text.lines().filter_map(address);
    all.filter(|a| !a.starts_with("127.") && a != "::1" && !a.to_lowercase().starts_with("fe80:")).collect()
}

/// The error says which sources failed, and why.
async fn addresses(
    cx: &Cx<'_>,
    connection: &Connection,
    name: &str,
    source: Option<Source>,
) -> Result<Result<Vec<String>, String>, StepError> {
    let mut failed = Vec::new();
    let sources = match source {
        Some(one) => vec![one],
        None => vec![Source::Lease, Source::Agent, Source::Arp],
    };
    for source in sources {
        let word = match source {
            Source::Lease => "lease",
            Source::Agent => "agent",
            Source::Arp => "arp",
        };
        // One that has no answer (no agent, not this driver) is no answer yet.
        let exit = connection.asked(cx, &["domifaddr", name, "--source", word], name).await?;
        let found = if exit.ok() { parse(&exit.stdout_text()) } else { Vec::new() };
        if !found.is_empty() {
            return Ok(Ok(found));
        }
        if !exit.ok() {
            let said = errors::said(&exit.stderr_text()).unwrap_or_else(|| exit.describe());
            failed.push(format!("{word}: {said}"));
        }
    }
    let why = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join("; ")) };
    Ok(Err(format!("it has no address{why}")))
}

async fn answers(address: &str, port: u16) -> bool {
    let connect = tokio::net::TcpStream::connect((address, port));
    matches!(tokio::time::timeout(CONNECT, connect).await, Ok(Ok(_)))
}

/// What is so now; the error says what is not so yet.
async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<Result<Outputs, String>, StepError> {
    let connection = inputs.connection();
    let wanted = inputs.state.unwrap_or(State::Running);
    let now = domain::must(cx, &connection, &inputs.domain).await?;
    if now.state != wanted {
        return Ok(Err(format!("it is {}", now.state.word())));
    }
    let mut outputs = Outputs { domain: now.name, state: now.state, address: None, addresses: Vec::new() };
    if !inputs.address && inputs.port.is_none() {
        return Ok(Ok(outputs));
    }
    outputs.addresses = match addresses(cx, &connection, &inputs.domain, inputs.source).await? {
        Ok(found) => found,
        Err(not_yet) => return Ok(Err(not_yet)),
    };
    let Some(port) = inputs.port else {
        outputs.address = outputs.addresses.first().cloned();
        return Ok(Ok(outputs));
    };
    for address in &outputs.addresses {
        if answers(address, port).await {
            outputs.address = Some(address.clone());
            return Ok(Ok(outputs));
        }
    }
    Ok(Err(format!("port {port} of {} does not answer", outputs.addresses.join(", "))))
}

#[async_trait::async_trait]
impl StepType for VirtWait {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.wait",
            doc: "Waits for a domain's state, its address, or a port there.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: up\n  uses: virt.wait\n  with: { domain: web1, port: 22, within: 3m }\n",
                "- id: off\n  uses: virt.wait\n  with: { domain: web1, state: shut-off }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        if (inputs.address || inputs.port.is_some()) && inputs.state.is_some_and(|s| s != State::Running) {
            found.push(problem(&["state"], "only a domain that runs has an address".to_owned()));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let summary = match look(cx, inputs).await? {
            Ok(_) => format!("{}: all that is waited for is so", inputs.domain),
            Err(not_yet) => format!("{}: would wait up to {}, {not_yet}", inputs.domain, inputs.within),
        };
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let limit = u64::try_from(inputs.within.0.as_millis()).unwrap_or(u64::MAX);
        let end = cx.host.now_ms().saturating_add(limit);
        loop {
            let not_yet = match look(cx, inputs).await? {
                Ok(outputs) => {
                    let at = outputs.address.as_ref().map_or(String::new(), |a| format!(", at {a}"));
                    let line = format!("{} is {}{at}\n", outputs.domain, outputs.state.word());
                    cx.host.output(Stream::Stdout, line.as_bytes());
                    return Ok(Acted::unchanged(outputs));
                }
                Err(not_yet) => not_yet,
            };
            if cx.host.now_ms() >= end {
                let message = format!("{}: {not_yet}, after {}", inputs.domain, inputs.within);
                return Err(StepError::new(Class::Timeout, message)
                    .help("look at its console (`virsh console`), or give it more time: `within`"));
            }
            cx.phase(format!("waiting for {}: {not_yet}", inputs.domain));
            pause(cx, POLL, &inputs.domain).await?;
        }
    }

    async fn probe(&self, _: &Cx<'_>, _: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libvirt 9.0.0 prints it; an interface with two addresses has dashes in its second line.
    #[test]
    fn addresses_are_read() {
        let text = " vnet0  52:54:00:00:00:01  ipv4  192.168.77.10/24\n -  -  ipv6  fe80::1/64\n -  -  ipv6  2001:db8::1/64\n\
            lo  00:00:00:00:00:00  ipv4  127.0.0.1/8\n eth1  52:54:00:00:00:02  N/A  N/A\n";
        assert_eq!(parse(text), ["192.168.77.10", "2001:db8::1"]);
    }
}
