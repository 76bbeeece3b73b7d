//! `tcp.check`: a port accepts connections, or does not any more.
//!
//! Connects from the machine that runback runs on, also when the step's target is another one. With `send` and `expect`
//! it also talks: a banner (`SSH-2.0`), a `PING` that wants its `PONG`. `state: closed` wants the port shut: refused, silent
//! for `timeout`, or on a machine that is not there; where the name cannot be resolved, or this machine has no way there,
//! nothing is known and the step fails. It changes nothing. To wait for a port, give the step a `retry`.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bounded::within;
use crate::http::look::{compile, excerpt, problem};
use crate::period::Period;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    #[default]
    Open,
    Closed,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// A name or an address.
    pub(crate) host: String,
    /// Its TCP port.
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
    /// Whether something must listen there, or nothing may.
    #[serde(default)]
    pub(crate) state: State,
    /// Sent once connected, as it is: end it with "\r\n" where the protocol wants that.
    #[serde(default)]
    pub(crate) send: Option<String>,
    /// A regular expression that what comes back must match. At most 64 KiB are read.
    #[serde(default)]
    #[schemars(extend("format" = "regex"))]
    pub(crate) expect: Option<String>,
    /// For connecting, sending and the answer together.
    #[serde(default = "five_seconds")]
    pub(crate) timeout: Period,
}

fn five_seconds() -> Period {
    Period::seconds(5)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The address that answered; null for `state: closed`.
    pub(crate) address: Option<String>,
    /// What came back, up to the end of the match; null without `expect`.
    pub(crate) received: Option<String>,
    /// In milliseconds.
    pub(crate) elapsed_ms: u64,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TcpCheck;

const RECEIVE_LIMIT: usize = 64 << 10;

const EXAMPLES: &[&str] = &[
    "
- id: ssh-answers
  uses: tcp.check
  with: { host: kvm1.example.com, port: 22, expect: ^SSH-2.0 }
  retry: { max_attempts: 30, initial_interval: 2s, backoff_coefficient: 1 }
",
    "
- id: redis
  uses: tcp.check
  with: { host: 127.0.0.1, port: 6379, send: \"PING\\r\\n\", expect: PONG }
",
    "
- id: drained
  uses: tcp.check
  with: { host: web1, port: 8080, state: closed }
  retry: { max_attempts: 60, initial_interval: 1s, backoff_coefficient: 1 }
",
];

#[async_trait::async_trait]
impl StepType for TcpCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "tcp.check",
            doc: "Checks that a TCP port is open, closed, or answers as it should.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = Vec::new();
        if inputs.host.trim().is_empty() {
            found.push(problem(&["host"], "must not be empty".to_owned()));
        }
        if inputs.port == 0 {
            found.push(problem(&["port"], "must be 1 to 65535".to_owned()));
        }
        if let Some(Err(e)) = inputs.expect.as_deref().map(compile) {
            found.push(problem(&["expect"], e));
        }
        for (key, given) in [("send", inputs.send.is_some()), ("expect", inputs.expect.is_some())] {
            if given && inputs.state == State::Closed {
                found.push(problem(&[key], "a closed port does not talk".to_owned()));
            }
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let state = if inputs.state == State::Open { "open" } else { "closed" };
        let summary = format!("{} is {state}", place(inputs));
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let place = place(inputs);
        let began = cx.host.now_ms();
        let (address, received) = match inputs.state {
            State::Open => {
                let talk = within(cx, inputs.timeout.0, &place, open(inputs, &place)).await;
                let (address, received) = talk?;
                (Some(address.to_string()), received)
            }
            State::Closed => {
                closed(cx, inputs, &place).await?;
                (None, None)
            }
        };
        let elapsed_ms = cx.host.now_ms().saturating_sub(began);
        let line = match address {
            Some(_) => format!("{place}: open\n"),
            None => format!("{place}: closed\n"),
        };
        cx.host.output(Stream::Stdout, line.as_bytes());
        Ok(Acted::unchanged(Outputs { address, received, elapsed_ms }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

fn place(inputs: &Inputs) -> String {
    if inputs.host.contains(':') {
        format!("[{}]:{}", inputs.host.trim_matches(['[', ']']), inputs.port)
    } else {
        format!("{}:{}", inputs.host, inputs.port)
    }
}

/// At least one.
async fn addresses(inputs: &Inputs, place: &str) -> Result<Vec<SocketAddr>, StepError> {
    let host = inputs.host.trim_matches(['[', ']']);
    match tokio::net::lookup_host((host, inputs.port)).await.map(Iterator::collect::<Vec<_>>) {
        Ok(found) if found.is_empty() => Err(no_address(place, "the name has no address")),
        Ok(found) => Ok(found),
        Err(e) => Err(no_address(place, &e.to_string())),
    }
}

/// Tries each address in turn, and says why the last one failed.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut last = Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn no_address(place: &str, why: &str) -> StepError {
    StepError::transient(format!("{place}: the host's name cannot be resolved: {why}"))
        .help("check the name, and the resolver of the machine that runback runs on")
}

async fn open(inputs: &Inputs, place: &str) -> Result<(SocketAddr, Option<String>), StepError> {
    let lost = |e: Error| StepError::transient(format!("{place}: {e}"));
    let mut stream = connect(&addresses(inputs, place).await?).await.map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => lost(e).help("nothing listens on that port"),
        _ => lost(e),
    })?;
    let address = stream.peer_addr().map_err(lost)?;
    if let Some(text) = &inputs.send {
        stream.write_all(text.as_bytes()).await.map_err(lost)?;
    }
    let Some(expect) = &inputs.expect else { return Ok((address, None)) };
    let regex = compile(expect).map_err(StepError::permanent)?;
    let mut got = Vec::new();
    loop {
        let ended = stream.read_buf(&mut got).await.map_err(lost)? == 0;
        let text = String::from_utf8_lossy(&got);
        if let Some(found) = regex.find(&text) {
            return Ok((address, Some(text[..found.end()].to_owned())));
        }
        if ended || got.len() > RECEIVE_LIMIT {
            let why = if ended { "it closed the connection" } else { "64 KiB came" };
            return Err(StepError::transient(format!(
                "{place}: no match of /{expect}/: {why} after: {}",
                excerpt(&text)
            )));
        }
    }
}

async fn closed(cx: &Cx<'_>, inputs: &Inputs, place: &str) -> Result<(), StepError> {
    // A resolver that does not answer says nothing about the port.
    let addresses = within(cx, inputs.timeout.0, place, addresses(inputs, place)).await?;
    let probe = async {
        let shut =
            [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::HostUnreachable, ErrorKind::TimedOut];
        match connect(&addresses).await {
            Ok(_) => Err(StepError::transient(format!("{place}: still open, wanted closed"))),
            Err(e) if shut.contains(&e.kind()) => Ok(()),
            Err(e) => Err(StepError::transient(format!("{place}: {e}: that says nothing about the port"))
                .help("check the network of the machine that runback runs on")),
        }
    };
    match within(cx, inputs.timeout.0, place, probe).await {
        Err(error) if error.class == Class::Timeout => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
