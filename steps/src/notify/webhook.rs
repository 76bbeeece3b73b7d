//! `notify.webhook`: sends JSON to a program, signed so that it can tell who sent it.
//!
//! The signature is that of Standard Webhooks: `webhook-id` (the same for all attempts of a step of a run, so that a
//! receiver can drop what it has seen), `webhook-timestamp` (seconds), and `webhook-signature`, `v1,` and the base64 of
//! HMAC-SHA256 over `ID.TIMESTAMP.BODY`. A secret that begins with `whsec_` is base64 behind that, any other is its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{half_minute, place, post};
use crate::http::look::problem;
use crate::http::shape::parse_url;
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// http or https.
    pub(crate) url: String,
    /// What is sent.
    pub(crate) json: Json,
    /// The key of the signature. Take it from `secrets`. Without one nothing is signed.
    #[serde(default)]
    pub(crate) secret: Option<String>,
    /// For the whole request.
    #[serde(default = "half_minute")]
    pub(crate) timeout: Period,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Of the answer.
    pub(crate) status: u16,
    /// What the receiver can tell the message by.
    pub(crate) id: String,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Webhook;

const EXAMPLES: &[&str] = &["
- id: tell
  uses: notify.webhook
  with:
    url: https://inbox.example.com/runback
    json: { event: deployed, host: web1 }
"];

#[async_trait::async_trait]
impl StepType for Webhook {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "notify.webhook",
            doc: "Sends signed JSON to a program.",
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
        if let Some(Err(e)) = inputs.secret.as_deref().map(key) {
            found.push(problem(&["secret"], e));
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let url = parse_url(&inputs.url).map_err(StepError::permanent)?;
        Ok(Preview { changes: Some(true), summary: place(&url), details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let url = parse_url(&inputs.url).map_err(StepError::permanent)?;
        let body = inputs.json.to_string();
        let id = id(cx.run, cx.step);
        let mut headers = vec![("webhook-id", id.clone())];
        let timestamp = (cx.host.now_ms() / 1000).to_string();
        if let Some(secret) = &inputs.secret {
            let key = key(secret).map_err(|e| StepError::permanent(format!("secret: {e}")))?;
            headers.push(("webhook-signature", signature(&key, &id, &timestamp, &body)));
        }
        headers.push(("webhook-timestamp", timestamp));
        let what = place(&url);
        let answered = post(cx, url, &what, &headers, body.into_bytes(), inputs.timeout).await?;
        Ok(Acted { outputs: Outputs { status: answered.status, id }, changed: true })
    }
}

/// The same for each attempt of a step of a run.
fn id(run: &str, step: &str) -> String {
    let digest = Sha256::digest(format!("{run}\n{step}"));
    digest.iter().take(12).fold("msg_".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn key(secret: &str) -> Result<Vec<u8>, String> {
    match secret.strip_prefix("whsec_") {
        _ if secret.is_empty() => Err("must not be empty".to_owned()),
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| "what stands behind whsec_ must be base64".to_owned()),
        None => Ok(secret.as_bytes().to_vec()),
    }
}

fn signature(key: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::http::test_server::{Server, answer};
    use crate::testing::Lab;

    /// The example of the specification's reference implementations (standard-webhooks 1.0).
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn what_arrives_can_be_told_and_verified() {
        let server = Server::start(vec![answer("500 Oops", "", ""), answer("202 Accepted", "", "")]).await;
        let mut lab = Lab::new();
        let with = json!({ "url": server.url("/in"), "json": { "b": 1, "a": "ü" }, "secret": "k3y" });
        lab.run(&Webhook, &with).await.unwrap_err();
        lab.attempt = 2;
        let ran = lab.run(&Webhook, &with).await.unwrap();
        let asked = server.asked();
        assert_eq!(asked[0].header("webhook-id"), asked[1].header("webhook-id"), "a receiver can drop the second");
        let header = |name| asked[1].header(name).unwrap();
        assert_eq!(ran.outputs, json!({ "status": 202, "id": header("webhook-id") }));
        let wanted = signature(b"k3y", header("webhook-id"), header("webhook-timestamp"), &asked[1].text());
        assert_eq!(header("webhook-signature"), wanted);
        assert_eq!(asked[1].text(), r#"{"b":1,"a":"ü"}"#);
    }

    #[tokio::test]
    async fn without_a_secret_nothing_is_signed() {
        let server = Server::start(vec![answer("200 OK", "", "")]).await;
        Lab::new().run(&Webhook, &json!({ "url": server.url("/"), "json": null })).await.unwrap();
        assert_eq!(server.asked()[0].header("webhook-signature"), None);
        let found = Lab::problems(&Webhook, &json!({ "url": "https://x", "json": 1, "secret": "whsec_?" }));
        assert_eq!(found[0].path, ["secret"]);
    }
}
