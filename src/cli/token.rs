//! `icecore token`: makes, lists and revokes tokens, in the metastore of the settings or, with
//! `--url`, by asking a server.
//!
//! The metastore works without a server, so the first token comes from here; a server that runs
//! beside it sees the change within a second.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, shown, time},
        client::ServerClient,
        say,
    },
    config::{Config, MetastoreUrl, units::parse_duration},
    http::admin::{describe, scopes},
    server::{is_missing, make_data_folder, open_metastore},
};
use clap::{Args, Subcommand};
use icecore_catalog::{
    access::{self, AccessControl, CallRecording, IssuedToken, TokenControl, TokenRequest},
    audit::{AuditEntry, details},
    error::CatalogError,
};
use icecore_lake::clock::Clock;
use icecore_schemas::tokens::{NewToken, TokenList, TokenReply, TokenRevoked};
use reqwest::Method;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Who did it, in the audit log.
const PRINCIPAL: &str = "command line";

/// `icecore token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it, once
    Create(CreateToken),
    /// List the tokens
    List(TokenServerArgs),
    /// Revoke a token by its id
    Revoke(RevokeToken),
}

/// `icecore token create`
#[derive(Debug, Args)]
pub struct CreateToken {
    /// What it is for
    name: String,
    /// ACTION:NAMESPACE, ACTION:* or, with --ns, ACTION; actions are ingest, read, write, admin, and read.user, read.org, read.team
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Everything, everywhere
    #[arg(long, conflicts_with = "scopes")]
    admin: bool,
    /// Namespace of events without one, and of scopes without one
    #[arg(long)]
    ns: Option<String>,
    /// Lifetime, such as 12h or 30d; default: forever
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    #[command(flatten)]
    server: TokenServerArgs,
}

/// `icecore token revoke`
#[derive(Debug, Args)]
pub struct RevokeToken {
    /// The token's id, as `icecore token list` shows it
    id: String,
    #[command(flatten)]
    server: TokenServerArgs,
}

/// Which server.
#[derive(Debug, Args)]
pub struct TokenServerArgs {
    /// Ask the server at http://host:port; default: use the metastore
    #[arg(long)]
    url: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]
pub async fn run(config: &Config, command: &TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(create) => make(config, create).await,
        TokenCommand::List(server) => list(config, server).await,
        TokenCommand::Revoke(revoke) => take_back(config, revoke).await,
    }
}

async fn make(config: &Config, create: &CreateToken) -> Result<(), CliError> {
    if create.scopes.is_empty() && !create.admin {
        return Err(CliError::Usage(
            "set what the token may do: --scope ACTION:NAMESPACE (ingest, read, write or admin; \
             `*` for every namespace), once for each, or --admin"
                .to_owned(),
        ));
    }
    let lifetime = create.expires.as_deref().map(lifetime).transpose()?;
    let texts = if create.admin { vec!["admin:*".to_owned()] } else { create.scopes.clone() };
    if create.ns.as_deref() == Some("*") {
        let action = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
        let scopes: Vec<String> =
            texts.iter().map(|text| format!("--scope '{}:*'", action(text))).collect();
        return Err(CliError::Usage(format!(
            "--ns is one namespace; for every namespace write {} without it",
            scopes.join(" ")
        )));
    }
    let asked = json!(NewToken {
        name: create.name.clone(),
        scopes: texts.clone(),
        namespace: create.ns.clone(),
        expires_in: lifetime.map(|lifetime| lifetime.as_secs()),
    });
    let (id, token) = if let Some(url) = &create.server.url {
        let client = ServerClient::new(config, Some(url));
        let made: TokenReply = client.read(Method::POST, "/admin/tokens", Some(&asked)).await?;
        (made.id, made.token)
    } else {
        let request = TokenRequest {
            name: create.name.clone(),
            home: create.ns.clone(),
            scopes: scopes(&texts, create.ns.as_deref()).map_err(CliError::Usage)?,
            lifetime,
        };
        let access = open_or_make(config).await?;
        let made = made_here(&access, request, &asked).await?;
        (made.id, made.text)
    };
    say(&token)?;
    crate::cli::complain(&CliError::Refused(format!(
        "token {id} is created and shown only once; as OAuth client: id {id}, secret the whole token"
    )));
    Ok(())
}

async fn made_here(
    access: &AccessControl,
    request: TokenRequest,
    asked: &Value,
) -> Result<IssuedToken, CatalogError> {
    let asked = asked.to_string();
    let recording = begin(access, "token create", request.name.clone(), asked.as_bytes());
    let control = control(access);
    let store = control.store().for_call(recording.call());
    let made = access::make_token(&store, request, control.now_ms()).await;
    recording.end(if made.is_ok() { 200 } else { 400 }).await;
    made
}

async fn list(config: &Config, server: &TokenServerArgs) -> Result<(), CliError> {
    let tokens = match &server.url {
        Some(url) => {
            let client = ServerClient::new(config, Some(url));
            client.read::<TokenList>(Method::GET, "/admin/tokens", None).await?.tokens
        }
        None => {
            let access = open(config).await?;
            control(&access).store().tokens().await?.iter().map(describe).collect()
        }
    };
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|token| {
            vec![
                token.id.clone(),
                token.name.clone(),
                shown(token.namespace.as_ref()),
                token.scopes.join(","),
                time(token.created_ms),
                time(token.expires_ms),
                time(token.last_used_ms),
            ]
        })
        .collect();
    let header = ["id", "name", "namespace", "scopes", "created", "expires", "last_used"];
    say(&aligned(&header, &rows))
}

async fn take_back(config: &Config, revoke: &RevokeToken) -> Result<(), CliError> {
    let id = &revoke.id;
    if let Some(url) = &revoke.server.url {
        let path = format!("/admin/tokens/{}", escape(id));
        let client = ServerClient::new(config, Some(url));
        let TokenRevoked { .. } = client.read(Method::DELETE, &path, None).await?;
    } else {
        let access = open(config).await?;
        let recording = begin(&access, "token revoke", id.clone(), b"");
        let revoked = control(&access).revoke_token(id, recording.call()).await;
        recording.end(if matches!(revoked, Ok(true)) { 200 } else { 404 }).await;
        if !revoked? {
            return Err(CliError::Refused(format!(
                "no token `{id}`; `icecore token list` lists them"
            )));
        }
    }
    say(&format!("token {id} is revoked"))
}

fn lifetime(text: &str) -> Result<Duration, CliError> {
    parse_duration(text).filter(|time| Duration::from_secs(1) <= *time).ok_or_else(|| {
        CliError::Usage(format!("--expires `{text}` is not a time such as 12h or 30d"))
    })
}

/// Access control over the metastore of the settings, which has to be there: an empty one that is
/// made in the wrong folder would look like a good answer. Says on stderr which one it is.
pub(super) async fn open(config: &Config) -> Result<AccessControl, CliError> {
    if let MetastoreUrl::Sqlite(path) = &config.metastore
        && is_missing(path)
    {
        return Err(CliError::Refused(format!(
            "there is no metastore at `{}`: set --data-dir or --metastore; `icecore serve` creates \
             one",
            path.display()
        )));
    }
    open_or_make(config).await
}

/// As [`open`], for the first token: the metastore is made when missing.
async fn open_or_make(config: &Config) -> Result<AccessControl, CliError> {
    make_data_folder(config)?;
    let metastore = &config.metastore;
    let is_made = matches!(metastore, MetastoreUrl::Sqlite(path) if is_missing(path));
    let made = if is_made { ", created now: start the server with the same one" } else { "" };
    crate::cli::remark(&format!("the metastore is {metastore}{made}"));
    let clock = Clock::system();
    let store = open_metastore(config).await?;
    Ok(AccessControl::on(store, Arc::new(move || clock.now_ms()), None))
}

fn control(access: &AccessControl) -> &TokenControl {
    access.control().expect("it was made as one that is on")
}

/// Begins a record of a change that is made here.
fn begin<'a>(
    access: &'a AccessControl,
    action: &str,
    object: String,
    asked: &[u8],
) -> CallRecording<'a> {
    let entry = AuditEntry {
        principal: PRINCIPAL.to_owned(),
        action: action.to_owned(),
        object,
        details: details(action, asked),
        ..AuditEntry::default()
    };
    let recorder = access.recorder().expect("it was made as one that records");
    recorder.begin(entry).expect("nothing else is recorded here")
}
