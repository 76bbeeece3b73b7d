//! What suspending a domain and resuming it have in common: each is what the other's undo does.

use runback_core::step::{Acted, Cx, Preview, StepError, Undone};
use runback_core::target::Stream;

use super::domain::{self, Info, Outputs, State};
use super::virsh::Connection;

/// One of the two ways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    to: State,
    /// Of virsh.
    verb: &'static str,
    /// How a domain is that was brought back to it.
    again: &'static str,
}

pub(crate) const SUSPEND: Way = Way { to: State::Paused, verb: "suspend", again: "is paused again" };
pub(crate) const RESUME: Way = Way { to: State::Running, verb: "resume", again: "runs again" };

impl Way {
    async fn go(self, cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<(), StepError> {
        domain::change(cx, connection, name, &[self.verb, name], |now| now.state == self.to).await
    }

    /// `would` says what it would do with the domain of this name.
    pub(crate) async fn preview(
        self,
        cx: &Cx<'_>,
        connection: &Connection,
        name: &str,
        would: impl Fn(&str) -> String,
    ) -> Result<Preview, StepError> {
        let now = domain::must(cx, connection, name).await?;
        let changes = now.state != self.to;
        let summary = if changes { would(&now.name) } else { format!("{} is {}", now.name, now.state.word()) };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    pub(crate) async fn act(
        self,
        cx: &Cx<'_>,
        connection: &Connection,
        name: &str,
        capture: &Info,
    ) -> Result<Acted<Outputs>, StepError> {
        self.go(cx, connection, name).await?;
        let now = domain::must(cx, connection, name).await?;
        cx.host.output(Stream::Stdout, format!("{name} is {}\n", now.state.word()).as_bytes());
        Ok(Acted { changed: capture.state != self.to, outputs: now.into() })
    }

    /// Goes back by the other way, where the domain came from there.
    pub(crate) async fn undo(
        self,
        cx: &Cx<'_>,
        connection: &Connection,
        capture: &Info,
        back: Self,
    ) -> Result<Undone, StepError> {
        let name = &capture.name;
        match domain::same(cx, connection, capture).await?.map(|now| now.state) {
            Some(now) if now == self.to && capture.state == back.to => {}
            Some(now) if now == capture.state => return Ok(Undone { changed: false, note: None }),
            Some(now) => return Err(domain::drift(name, &format!("it is {} now", now.word()))),
            None => return Err(domain::drift(name, "it is not there any more")),
        }
        back.go(cx, connection, name).await?;
        Ok(Undone { changed: true, note: Some(format!("{name} {}", back.again)) })
    }
}
