//! `notify.slack`: says something in a channel of Slack, through an incoming webhook.
//!
//! The address of the webhook is a secret: whoever has it can write to the channel. Take it from `secrets`. Mattermost and
//! Rocket.Chat take the same messages. In `finally` it tells how a run ended; `when: run.status != "succeeded"` makes it
//! tell only what went wrong.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::{half_minute, place, post};
use crate::http::look::problem;
use crate::http::shape::parse_url;
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The incoming webhook's address. Take it from `secrets`.
    pub(crate) url: String,
    /// The message, in Slack's mrkdwn; also what a phone shows of one that has `blocks`.
    pub(crate) text: String,
    /// Blocks of Slack's Block Kit, in place of the plain text.
    #[serde(default)]
    pub(crate) blocks: Vec<Json>,
    /// Answer in the thread of this message (its `ts`).
    #[serde(default)]
    pub(crate) thread_ts: Option<String>,
    /// For the whole request.
    #[serde(default = "half_minute")]
    pub(crate) timeout: Period,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Of the answer.
    pub(crate) status: u16,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slack;

const EXAMPLES: &[&str] = &["
- id: tell
  uses: notify.slack
  with:
    url: https://hooks.slack.com/services/T000/B000/XXXX
    text: 'The nightly backup is done.'
"];

#[async_trait::async_trait]
impl StepType for Slack {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "notify.slack",
            doc: "Says something in a channel of Slack, through an incoming webhook.",
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
        if let Err(e) = parse_url(&inputs.url) {
            found.push(problem(&["url"], e));
        }
        if inputs.text.trim().is_empty() {
            found.push(problem(&["text"], "must not be empty: it is what a phone shows".to_owned()));
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        Ok(Preview { changes: Some(true), summary: format!("say \"{}\"", inputs.text), details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let url = parse_url(&inputs.url).map_err(StepError::permanent)?;
        let mut message = Map::new();
        message.insert("text".to_owned(), inputs.text.as_str().into());
        if !inputs.blocks.is_empty() {
            message.insert("blocks".to_owned(), json!(inputs.blocks));
        }
        if let Some(thread) = &inputs.thread_ts {
            message.insert("thread_ts".to_owned(), thread.as_str().into());
        }
        let what = place(&url);
        let body = Json::Object(message).to_string().into_bytes();
        let answered = post(cx, url, &what, &[], body, inputs.timeout).await.map_err(|e| match e.help {
            None => e.help("look at the webhook in Slack: it may be revoked, or its channel archived"),
            Some(_) => e,
        })?;
        Ok(Acted { outputs: Outputs { status: answered.status }, changed: true })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use runback_core::step::Class;

    use super::*;
    use crate::http::test_server::{Server, answer};
    use crate::testing::Lab;

    #[tokio::test]
    async fn the_message_arrives() {
        let server = Server::start(vec![answer("200 OK", "", "ok")]).await;
        let with = json!({ "url": server.url("/services/T/B/secret"), "text": "a \"b\"\n:tada:", "thread_ts": "1.2" });
        let ran = Lab::new().run(&Slack, &with).await.unwrap();
        assert_eq!(ran.outputs, json!({ "status": 200 }));
        let asked = server.asked().remove(0);
        assert_eq!(asked.line, "POST /services/T/B/secret");
        assert_eq!(
            serde_json::from_str::<Json>(&asked.text()).unwrap(),
            json!({ "text": "a \"b\"\n:tada:", "thread_ts": "1.2" })
        );
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_never_the_address() {
        for (status, class) in
            [("404 Not Found", Class::Permanent), ("429 Too Many", Class::Transient), ("503 Busy", Class::Transient)]
        {
            let server = Server::start(vec![answer(status, "", "no_service")]).await;
            let lab = Lab::new();
            let error =
                lab.run(&Slack, &json!({ "url": server.url("/services/s3cret"), "text": "x" })).await.unwrap_err();
            assert_eq!(error.class, class, "{status}");
            assert!(error.message.contains("no_service") && !error.message.contains("s3cret"), "{}", error.message);
            assert!(error.help.is_some_and(|h| h.contains("webhook")));
        }
    }

    #[test]
    fn problems_name_their_keys() {
        let found = Lab::problems(&Slack, &json!({ "url": "hooks.slack.com", "text": " " }));
        assert_eq!(found.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), ["url", "text"]);
    }
}
