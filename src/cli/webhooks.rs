//! `icecore webhooks …`: the secrets that webhook providers sign with; one request each.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns},
        client::ServerClient,
        say,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use icecore_schemas::webhooks::{NewSecret, WebhookDeleted, WebhookEntry, WebhookList};
use reqwest::Method;
use serde_json::json;
use std::io::Read;

/// Longest secret that is read.
const SECRET_BYTES_MAX: u64 = 4096;

/// `icecore webhooks …`
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Set a secret, read from stdin; the previous one stays valid
    Set(SetSecret),
    /// List which namespaces have secrets of which providers
    List(WebhookServerArgs),
    /// Delete the secrets of a provider
    Delete(ProviderArgs),
}

/// Which server, and how answers are printed.
#[derive(Debug, Args)]
pub struct WebhookServerArgs {
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

/// A provider in a namespace.
#[derive(Debug, Args)]
pub struct ProviderArgs {
    /// github, stripe, slack, svix, standard-webhooks, shopify, linear, workos, generic, or any other
    /// name
    provider: String,
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    #[command(flatten)]
    server: WebhookServerArgs,
}

/// `icecore webhooks set`
#[derive(Debug, Args)]
pub struct SetSecret {
    #[command(flatten)]
    provider: ProviderArgs,
    /// How it signs, if its name does not say so
    #[arg(long)]
    scheme: Option<String>,
    /// The header with a delivery's id, of a generic provider; without one of these three equal
    /// deliveries are one event, unless a common header such as X-Delivery-Id tells them apart
    #[arg(long, value_name = "NAME", conflicts_with_all = ["id_member", "no_id"])]
    id_header: Option<String>,
    /// The member of the JSON body with a delivery's id, such as event.id
    #[arg(long, value_name = "PATH", conflicts_with = "no_id")]
    id_member: Option<String>,
    /// Store each delivery as an event of its own, repeated ones too
    #[arg(long)]
    no_id: bool,
}

impl ProviderArgs {
    fn path(&self) -> String {
        format!("/admin/webhooks/{}/{}", escape_ns(&self.ns), escape(&self.provider))
    }
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError`]
pub async fn run(config: &Config, command: &WebhookCommand) -> Result<(), CliError> {
    match command {
        WebhookCommand::Set(command) => set(config, command).await,
        WebhookCommand::List(server) => list(config, server).await,
        WebhookCommand::Delete(provider) => {
            let client = ServerClient::new(config, provider.server.url.as_deref());
            let answer: WebhookDeleted =
                client.read(Method::DELETE, &provider.path(), None).await?;
            let ProviderArgs { provider, ns, server } = provider;
            match server.json {
                true => say(&json!(answer).to_string()),
                false => say(&format!("the secrets of {provider} in {ns} are deleted")),
            }
        }
    }
}

async fn set(config: &Config, command: &SetSecret) -> Result<(), CliError> {
    let SetSecret { provider, scheme, id_header, id_member, no_id } = command;
    // An argument would be seen by other users of the machine.
    let mut secret = String::new();
    std::io::stdin()
        .take(SECRET_BYTES_MAX)
        .read_to_string(&mut secret)
        .map_err(|source| CliError::Io { operation: "read the secret".to_owned(), source })?;
    let secret = secret.trim();
    if secret.is_empty() {
        return Err(CliError::Usage("write the secret to stdin".to_owned()));
    }
    let body = json!(NewSecret {
        secret: secret.to_owned(),
        scheme: scheme.clone(),
        id_header: id_header.clone(),
        id_member: id_member.clone(),
        no_id: *no_id,
    });
    let client = ServerClient::new(config, provider.server.url.as_deref());
    let answer: WebhookEntry = client.read(Method::PUT, &provider.path(), Some(&body)).await?;
    if provider.server.json {
        return say(&json!(answer).to_string());
    }
    say(&format!(
        "{} in {} signs as {}; valid secrets: {}",
        provider.provider,
        provider.ns,
        answer.scheme,
        answer.secrets.len()
    ))
}

async fn list(config: &Config, server: &WebhookServerArgs) -> Result<(), CliError> {
    let client = ServerClient::new(config, server.url.as_deref());
    let answer: WebhookList = client.read(Method::GET, "/admin/webhooks", None).await?;
    if server.json {
        return say(&json!(answer).to_string());
    }
    let row = |row: WebhookEntry| {
        let secrets = row.secrets.len().to_string();
        vec![row.namespace, row.provider, row.scheme, row.since, secrets]
    };
    let rows: Vec<Vec<String>> = answer.webhooks.into_iter().map(row).collect();
    say(&aligned(&["namespace", "provider", "scheme", "since", "secrets"], &rows))
}
