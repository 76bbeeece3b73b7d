//! The markup around each page: what is there before any module has run. Nobody's data is in it.

use maud::{DOCTYPE, Markup, html};

use super::assets;
use crate::serve::auth::Who;

#[derive(Debug)]
pub(super) enum Page {
    Runs,
    /// By its id, or the beginning of one.
    Run(String),
    Schedules,
    Playbooks,
    Playbook(String),
}

impl Page {
    fn title(&self) -> &str {
        match self {
            Self::Runs => "Runs",
            Self::Run(id) | Self::Playbook(id) => id,
            Self::Schedules => "Schedules",
            Self::Playbooks => "Playbooks",
        }
    }

    fn module(&self) -> &'static str {
        match self {
            Self::Runs => "runs.js",
            Self::Run(_) => "run.js",
            Self::Schedules => "schedules.js",
            Self::Playbooks => "playbooks.js",
            Self::Playbook(_) => "playbook.js",
        }
    }

    /// What the module needs, so that the browser asks for all of it at once.
    fn needs(&self) -> &'static [&'static str] {
        match self {
            Self::Runs => &["dom.js", "api.js", "words.js", "broken.js", "calendar.js"],
            Self::Run(_) => &[
                "dom.js",
                "api.js",
                "words.js",
                "actions.js",
                "form.js",
                "events.js",
                "graph.js",
                "layout.js",
                "log.js",
                "ansi.js",
            ],
            Self::Schedules => &["dom.js", "api.js", "words.js", "broken.js", "calendar.js", "actions.js", "form.js"],
            Self::Playbooks => &["dom.js", "api.js", "words.js", "broken.js"],
            Self::Playbook(_) => &["dom.js", "api.js", "words.js", "actions.js", "form.js"],
        }
    }

    fn run(&self) -> Option<&str> {
        if let Self::Run(id) = self { Some(id) } else { None }
    }

    fn playbook(&self) -> Option<&str> {
        if let Self::Playbook(id) = self { Some(id) } else { None }
    }
}

fn at(name: &str) -> String {
    format!("/assets/{}/{name}", assets::version())
}

fn head(title: &str, module: &str, needs: &[&str]) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · runback" }
            link rel="icon" href=(at("icon.svg")) type="image/svg+xml";
            link rel="stylesheet" href=(at("style.css"));
            @for name in needs {
                link rel="modulepreload" href=(at(name));
            }
            script type="module" src=(at(module)) {}
        }
    }
}

pub(super) fn page(page: &Page, who: &Who) -> Markup {
    let here = match page {
        Page::Runs | Page::Run(_) => "/",
        Page::Schedules => "/schedules",
        Page::Playbooks | Page::Playbook(_) => "/playbooks",
    };
    let roles: Vec<&str> = who.roles.iter().map(|r| r.name()).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(page.title(), page.module(), page.needs()))
            body data-roles=(roles.join(" ")) data-run=[page.run()] data-playbook=[page.playbook()] {
                a class="skip" href="#main" { "To the content" }
                header class="top" {
                    a class="brand" href="/" { img src=(at("icon.svg")) alt="" width="22" height="22"; "runback" }
                    nav aria-label="Main" {
                        @for (at, name) in [("/", "Runs"), ("/schedules", "Schedules"), ("/playbooks", "Playbooks")] {
                            a href=(at) aria-current=[(at == here).then_some("page")] { (name) }
                        }
                    }
                    span id="link" class="link-state" {}
                    span class="who" { (who.name) span class="muted" { " · " (roles.join(", ")) } }
                    button id="log-out" class="quiet" type="button" { "Log out" }
                }
                main id="main" tabindex="-1" {
                    div id="alarms" role="alert" {}
                    h1 id="title" { (page.title()) }
                    div id="content" { p class="muted" { "Loading …" } }
                }
                div id="live" class="hidden" aria-live="polite" {}
                script type="module" src=(at("shell.js")) {}
            }
        }
    }
}

pub(super) fn login() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Log in", "login.js", &["dom.js", "api.js"]))
            body class="login" {
                main id="main" class="panel" {
                    h1 { img src=(at("icon.svg")) alt="" width="28" height="28"; "runback" }
                    form id="login" {
                        div class="field" {
                            label for="token" { "Token" }
                            input id="token" type="password" autocomplete="current-password" required autofocus aria-describedby="token-about";
                            p id="token-about" class="hint" {
                                "Made on the server's machine: " code { "runback token create NAME --role viewer" }
                            }
                        }
                        div id="wrong" class="wrong" role="alert" {}
                        button type="submit" class="primary" { "Log in" }
                    }
                }
                div id="live" class="hidden" aria-live="polite" {}
            }
        }
    }
}
