//! A way to the API server that ends whoever comes by it, at the moment of a change: `kill -9` before the API server hears of it,
//! or when it is done and nobody knows. Knows no step type.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;

use crate::cluster::{Api, until};
use crate::serve::{Answer, Asked, serve_whole};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// Set to the moment of the next kill; taken when it is over.
type Plan = Arc<Mutex<Option<When>>>;

pub(crate) struct Between {
    pub(crate) port: u16,
    plan: Plan,
    /// The process that is to be killed.
    client: Arc<Mutex<Option<u32>>>,
}

fn forward(api: &Api, asked: &Asked) -> Answer {
    let body: Option<Json> = serde_json::from_slice(&asked.body).ok();
    let kind = asked.kind.trim_start_matches("application/");
    let (status, answer) = api.send(&asked.method, &asked.path, kind, body.as_ref());
    (status, "Content-Type: application/json\r\n".to_owned(), answer.to_string())
}

impl Between {
    /// `is_change` says which requests count.
    pub(crate) fn new(api: &Api, is_change: impl Fn(&Asked) -> bool + Send + 'static) -> Self {
        let (plan, client): (Plan, Arc<Mutex<Option<u32>>>) = Default::default();
        let (api, planned, killed) = (api.clone(), plan.clone(), client.clone());
        let kill = move || {
            let pid = || *killed.lock().expect("nobody panics with it");
            until("the client to be known", || pid().is_some());
            let pid = pid().expect("it is known").to_string();
            assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
        };
        let port = serve_whole(move |asked| {
            let when = if is_change(asked) { planned.lock().expect("nobody panics with it").take() } else { None };
            if when == Some(When::Before) {
                kill();
                return None;
            }
            let answer = forward(&api, asked);
            if when == Some(When::After) {
                kill();
                return None;
            }
            Some(answer)
        });
        Self { port, plan, client }
    }

    /// Starts a process and sees it killed at its first change.
    #[track_caller]
    pub(crate) fn kills(&self, when: When, start: impl FnOnce() -> Child) {
        *self.client.lock().expect("nobody panics with it") = None;
        *self.plan.lock().expect("nobody panics with it") = Some(when);
        let mut child = start();
        *self.client.lock().expect("nobody panics with it") = Some(child.id());
        let ended = child.wait().expect("it is ours");
        assert_eq!(ended.signal(), Some(9), "it ended by itself, without a change: {ended:?}");
        assert_eq!(*self.plan.lock().expect("nobody panics with it"), None);
    }
}
