//! `notify.email`: sends a mail through an SMTP server.
//!
//! `tls` is `starttls` unless told otherwise; `none` sends everything, a password too, in the clear. A server that refuses
//! for now (4xx) is asked again by the step's `retry`; one that refuses for good (5xx) is not.

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::half_minute;
use crate::bounded::within;
use crate::http::look::problem;
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The SMTP server.
    pub(crate) host: String,
    /// Default 587, 465 with `tls: always`, 25 with `tls: none`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub(crate) tls: Tls,
    /// Logs in with this name; without one, nobody is logged in.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Take it from `secrets`.
    #[serde(default)]
    pub(crate) password: Option<String>,
    /// `runback@example.com`, or `Night shift <runback@example.com>`.
    pub(crate) from: String,
    /// Addresses, as in `from`.
    #[schemars(length(min = 1))]
    pub(crate) to: Vec<String>,
    /// Who gets a copy, for everyone to see.
    #[serde(default)]
    pub(crate) cc: Vec<String>,
    /// One line.
    pub(crate) subject: String,
    /// Plain text.
    pub(crate) text: String,
    /// For the whole conversation with the server.
    #[serde(default = "half_minute")]
    pub(crate) timeout: Period,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tls {
    /// Begins in the clear and goes on with TLS, or not at all.
    #[default]
    Starttls,
    /// From the first byte.
    Always,
    /// In the clear: for a relay on this machine.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The message's id.
    pub(crate) message_id: String,
    /// What the server said when it took the mail.
    pub(crate) answer: String,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Email;

const EXAMPLES: &[&str] = &["
- id: tell
  uses: notify.email
  with:
    host: mail.example.com
    from: runback@example.com
    to: [ oncall@example.com ]
    subject: The nightly backup is done
    text: See you tomorrow.
"];

#[async_trait::async_trait]
impl StepType for Email {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "notify.email",
            doc: "Sends a mail through an SMTP server.",
            access: Access::Changes,
            undo: UndoKind::None,
            // Told twice is better than not at all.
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = Vec::new();
        let one = [("from", std::slice::from_ref(&inputs.from)), ("to", &inputs.to), ("cc", &inputs.cc)];
        for (key, addresses) in one {
            for address in addresses {
                if let Err(e) = address.parse::<Mailbox>() {
                    found.push(problem(&[key], format!("`{address}` is no mail address: {e}")));
                }
            }
        }
        if inputs.to.is_empty() {
            found.push(problem(&["to"], "must name somebody".to_owned()));
        }
        if inputs.user.is_some() != inputs.password.is_some() {
            found.push(problem(&["user"], "`user` and `password` go together".to_owned()));
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let summary = format!("mail \"{}\" to {}", inputs.subject, inputs.to.join(", "));
        Ok(Preview { changes: Some(true), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let message_id = format!("<{}.{}@runback>", cx.run, plain(cx.step));
        let message = message(inputs, &message_id)?;
        let what = format!("mail through {}", inputs.host);
        let transport = transport(inputs, &what)?;
        let sent = within(cx, inputs.timeout.0, &what, async {
            transport.send(message).await.map_err(|e| classify(&e, &what))
        });
        let response = sent.await?;
        let answer = response.message().collect::<Vec<_>>().join(" ");
        Ok(Acted { outputs: Outputs { message_id, answer }, changed: true })
    }
}

/// What may stand in a message's id.
fn plain(step: &str) -> String {
    step.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '.' }).collect()
}

fn message(inputs: &Inputs, id: &str) -> Result<Message, StepError> {
    let mailbox = |text: &String| {
        text.parse::<Mailbox>().map_err(|e| StepError::permanent(format!("`{text}` is no mail address: {e}")))
    };
    let mut builder = Message::builder().from(mailbox(&inputs.from)?).message_id(Some(id.to_owned()));
    for to in &inputs.to {
        builder = builder.to(mailbox(to)?);
    }
    for cc in &inputs.cc {
        builder = builder.cc(mailbox(cc)?);
    }
    builder
        .subject(&inputs.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(inputs.text.clone())
        .map_err(|e| StepError::permanent(format!("the mail cannot be made: {e}")))
}

fn transport(inputs: &Inputs, what: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, StepError> {
    type Smtp = AsyncSmtpTransport<Tokio1Executor>;
    let unusable = |e: lettre::transport::smtp::Error| StepError::permanent(format!("{what}: {e}"));
    let (builder, port) = match inputs.tls {
        Tls::Starttls => (Smtp::starttls_relay(&inputs.host).map_err(unusable)?, 587),
        Tls::Always => (Smtp::relay(&inputs.host).map_err(unusable)?, 465),
        Tls::None => (Smtp::builder_dangerous(&inputs.host), 25),
    };
    let mut builder = builder.port(inputs.port.unwrap_or(port)).timeout(Some(inputs.timeout.0));
    if let (Some(user), Some(password)) = (&inputs.user, &inputs.password) {
        builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
    }
    Ok(builder.build())
}

fn classify(error: &lettre::transport::smtp::Error, what: &str) -> StepError {
    use std::error::Error as _;
    let class = match () {
        () if error.is_permanent() || error.is_tls() => Class::Permanent,
        () if error.is_timeout() => Class::Timeout,
        () => Class::Transient,
    };
    let why = error.source().map_or_else(String::new, |s| format!(": {s}"));
    let found = StepError::new(class, format!("{what}: {error}{why}"));
    if error.is_permanent() {
        found.help("the server will not take it: look at user, password, from and to")
    } else if error.is_tls() {
        found.help("the server does not speak TLS like that: look at `tls` and `port`")
    } else {
        found
    }
}

#[cfg(test)]
#[path = "email_tests.rs"]
mod tests;
