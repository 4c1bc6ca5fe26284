//! `icecore branches …` and `icecore tags …`: names of a table's snapshots.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, plain},
        catalog::Table,
        say,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

/// `icecore branches …`
#[derive(Debug, Subcommand)]
pub enum BranchCommand {
    /// List them
    List(Table),
    /// Start one at a snapshot
    Create(Create),
    /// Move one forward to where another branch or tag is
    FastForward(FastForward),
    /// Drop one; its snapshots stay until they expire
    Drop(Named),
}

/// `icecore tags …`
#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// List them
    List(Table),
    /// Name a snapshot, which then stays
    Create(Create),
    /// Drop one; its snapshot stays until it expires
    Drop(Named),
}

/// A name of a table's snapshot.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    table: Table,
    /// The branch or tag
    name: String,
}

/// A new name.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    named: Named,
    /// A snapshot id; the current snapshot when left out
    #[arg(long)]
    snapshot: Option<i64>,
}

/// `icecore branches fast-forward`
#[derive(Debug, Args)]
pub struct FastForward {
    #[command(flatten)]
    named: Named,
    /// Where to
    #[arg(long)]
    to: String,
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError::Client`].
pub async fn branches(config: &Config, command: &BranchCommand) -> Result<(), CliError> {
    match command {
        BranchCommand::List(table) => list(config, table, "branch").await,
        BranchCommand::Create(new) => create(config, new, "branch").await,
        BranchCommand::Drop(named) => drop(config, named, "branch").await,
        BranchCommand::FastForward(FastForward { named, to }) => {
            let path = named.table.path(&format!("refs/{}/fast-forward", escape(&named.name)));
            let client = named.table.client(config);
            let answer = client.json(Method::POST, &path, Some(&json!({ "to": to }))).await?;
            say(&format!("{} is at snapshot {}", named.name, plain(&answer["snapshot"])))
        }
    }
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError::Client`].
pub async fn tags(config: &Config, command: &TagCommand) -> Result<(), CliError> {
    match command {
        TagCommand::List(table) => list(config, table, "tag").await,
        TagCommand::Create(new) => create(config, new, "tag").await,
        TagCommand::Drop(named) => drop(config, named, "tag").await,
    }
}

async fn list(config: &Config, table: &Table, kind: &str) -> Result<(), CliError> {
    let answer = table.client(config).json(Method::GET, &table.path("refs"), None).await?;
    let row = |row: &Value| vec![plain(&row["name"]), plain(&row["snapshot"])];
    let refs = answer["refs"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = refs.filter(|row| row["type"] == kind).map(row).collect();
    say(&aligned(&[kind, "snapshot"], &rows))
}

async fn create(config: &Config, new: &Create, kind: &str) -> Result<(), CliError> {
    let Create { named: Named { table, name }, snapshot } = new;
    let body = json!({ "name": name, "type": kind, "snapshot": snapshot });
    let client = table.client(config);
    let answer = client.json(Method::POST, &table.path("refs"), Some(&body)).await?;
    say(&format!("{name} is at snapshot {}", plain(&answer["snapshot"])))
}

async fn drop(config: &Config, Named { table, name }: &Named, kind: &str) -> Result<(), CliError> {
    let path = table.path(&format!("refs/{}?type={kind}", escape(name)));
    table.client(config).json(Method::DELETE, &path, None).await?;
    say(&format!("{name} is dropped"))
}
