//! `runback token`: who may come in by the API, and as what.

use std::path::Path;

use clap::{Args, Subcommand};
use runback_core::playbook::duration;
use runback_exec::store::SqliteStore;
use runback_exec::store::desk::TokenRow;
use serde_json::json;

use super::{Format, OutputArg};
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::serve::auth::Role;
use crate::serve::token;
use crate::term::{self, DIM, RESET};
use crate::{state_dir, surroundings, table, words};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token; it is shown once
#[derive(Debug, Args)]
struct Create {
    /// Who uses it: what events and approvals will say
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,

    /// What it may do; can be given several times
    #[arg(long = "role", value_enum, value_name = "ROLE", default_value = "viewer", value_delimiter = ',')]
    roles: Vec<Role>,

    /// It ends after so long: 90d
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,

    #[command(flatten)]
    output: OutputArg,
}

/// List tokens, without what is secret in them
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    output: OutputArg,
}

/// End a token; a session of the page that began with it ends too
#[derive(Debug, Args)]
struct Revoke {
    /// A token's id, or the name of somebody: all of theirs
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    output: OutputArg,
}

impl Arguments {
    pub(crate) fn output(&self) -> Format {
        match &self.what {
            What::Create(a) => a.output.output,
            What::List(a) => a.output.output,
            What::Revoke(a) => a.output.output,
        }
    }
}

/// It stands before the `@` of `who@where`.
fn name(text: &str) -> Result<String, String> {
    if Role::ALL.iter().any(|r| r.name() == text) {
        return Err("it is a role's name, and `approvers` could not tell them apart".to_owned());
    }
    let fits = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("use letters, digits, `-`, `_` and `.`, at most 64".to_owned())
    }
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = SqliteStore::open(&state_dir::path(dir)?)?;
    state_dir::block_on(async {
        match &arguments.what {
            What::Create(create) => make(create, &store).await,
            What::List(list) => show(list, &store).await,
            What::Revoke(revoke) => end(revoke, &store).await,
        }
    })
}

async fn make(create: &Create, store: &SqliteStore) -> Done {
    let now = words::now_ms();
    let expires_at = match &create.expires_in {
        None => None,
        Some(text) => {
            let span = duration::parse(text)
                .map_err(|e| Failure::usage(format!("--expires-in {text}: {}", e.message)).help(e.help))?;
            Some(now.saturating_add(span.as_millis() as u64))
        }
    };
    let made = token::make()?;
    let mut roles: Vec<&str> = create.roles.iter().map(|r| r.name()).collect();
    roles.dedup();
    let row = TokenRow {
        id: made.id.clone(),
        name: create.name.clone(),
        roles: roles.join(","),
        hash: made.hash,
        created_at: now,
        created_by: surroundings::by(),
        expires_at,
        revoked_at: None,
    };
    store.add_token(row).await?;
    if create.output.is_json() {
        term::json(&json!({
            "id": made.id, "name": create.name, "roles": roles, "token": made.text, "expires_at": expires_at,
        }));
    } else {
        term::line(&made.text);
        term::note(&format!("{DIM}token {} of {}: keep it now, it is not shown again{RESET}", made.id, create.name));
    }
    Ok(Exit::Succeeded)
}

fn state(token: &TokenRow) -> &'static str {
    match token {
        t if t.revoked_at.is_some() => "revoked",
        t if t.expires_at.is_some_and(|at| at <= words::now_ms()) => "expired",
        _ => "active",
    }
}

async fn show(list: &List, store: &SqliteStore) -> Done {
    let tokens = store.tokens().await?;
    if list.output.is_json() {
        let one = |t: &TokenRow| {
            json!({
                "id": t.id, "name": t.name, "roles": t.roles.split(',').collect::<Vec<_>>(), "state": state(t),
                "created_at": t.created_at, "created_by": t.created_by, "expires_at": t.expires_at,
                "revoked_at": t.revoked_at,
            })
        };
        term::json(&tokens.iter().map(one).collect());
        return Ok(Exit::Succeeded);
    }
    if tokens.is_empty() {
        term::note("no tokens");
        return Ok(Exit::Succeeded);
    }
    let rows = tokens.iter().map(|t| {
        let expires = t.expires_at.map_or_else(|| "never".to_owned(), words::date);
        let roles = t.roles.replace(',', " ");
        vec![t.id.clone(), t.name.clone(), roles, state(t).to_owned(), words::date(t.created_at), expires]
    });
    term::line(&table::render(&["ID", "NAME", "ROLES", "STATE", "MADE", "EXPIRES"], rows));
    Ok(Exit::Succeeded)
}

async fn end(revoke: &Revoke, store: &SqliteStore) -> Done {
    let all = store.tokens().await?;
    let theirs = all.iter().filter(|t| (t.id == revoke.id || t.name == revoke.id) && t.revoked_at.is_none());
    let mut ended = Vec::new();
    for token in theirs {
        if store.revoke_token(&token.id).await? {
            ended.push(token.id.clone());
        }
    }
    if ended.is_empty() {
        let failure = Failure::usage(format!("there is no active token `{}`", revoke.id));
        return Err(failure.help("see them: runback token list"));
    }
    if revoke.output.is_json() {
        term::json(&json!({ "revoked": ended }));
    } else {
        term::line(&format!("revoked {}", ended.join(", ")));
    }
    Ok(Exit::Succeeded)
}
