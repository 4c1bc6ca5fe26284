//! `icecore branches …` and `icecore tags …` of one table: names of its snapshots.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, shown},
        catalog::TableArgs,
        say,
    },
    config::Config,
};
use clap::Args;
use icecore_schemas::{
    snapshot_id::SnapshotId,
    tables::{self, NewRef, RefDropped, RefEntry, RefKind, RefList, RefReply},
};
use reqwest::Method;
use serde_json::json;

/// A name of a table's snapshot.
#[derive(Debug, Args)]
pub struct RefArgs {
    #[command(flatten)]
    pub(super) table: TableArgs,
    /// The branch or tag
    pub(super) name: String,
}

/// A new name.
#[derive(Debug, Args)]
pub struct CreateRef {
    #[command(flatten)]
    pub(super) named: RefArgs,
    /// A snapshot id; the current snapshot when left out
    #[arg(long)]
    pub(super) snapshot: Option<i64>,
}

/// `icecore branches fast-forward`
#[derive(Debug, Args)]
pub struct FastForwardCommand {
    #[command(flatten)]
    named: RefArgs,
    /// Where to
    #[arg(long)]
    to: String,
}

impl RefArgs {
    pub(super) fn new(table: TableArgs, name: String) -> Self {
        Self { table, name }
    }
}

impl CreateRef {
    pub(super) fn new(named: RefArgs, snapshot: Option<i64>) -> Self {
        Self { named, snapshot }
    }
}

/// Prints the branches of a table.
///
/// # Errors
/// [`CliError::Client`].
pub async fn list_branches(config: &Config, table: &TableArgs) -> Result<(), CliError> {
    list(config, table, RefKind::Branch).await
}

/// Starts a branch of a table at a snapshot.
///
/// # Errors
/// [`CliError::Client`].
pub async fn create_branch(config: &Config, new: &CreateRef) -> Result<(), CliError> {
    create(config, new, RefKind::Branch).await
}

/// Drops a branch of a table.
///
/// # Errors
/// [`CliError::Client`].
pub async fn drop_branch(config: &Config, named: &RefArgs) -> Result<(), CliError> {
    drop(config, named, RefKind::Branch).await
}

/// Moves a branch of a table forward.
///
/// # Errors
/// [`CliError::Client`].
pub async fn fast_forward(
    config: &Config,
    FastForwardCommand { named, to }: &FastForwardCommand,
) -> Result<(), CliError> {
    let path = named.table.path(&format!("refs/{}/fast-forward", escape(&named.name)));
    let client = named.table.client(config);
    let body = json!(tables::FastForward { to: to.clone() });
    say_place(&client.read(Method::POST, &path, Some(&body)).await?)
}

/// Lists those of a table that are of this kind.
///
/// # Errors
/// [`CliError::Client`].
pub(super) async fn list(
    config: &Config,
    table: &TableArgs,
    kind: RefKind,
) -> Result<(), CliError> {
    let listed: RefList = table.client(config).read(Method::GET, &table.path("refs"), None).await?;
    let row = |row: RefEntry| vec![row.name, shown(row.snapshot.snapshot.as_ref())];
    let refs = listed.refs.into_iter().filter(|row| row.kind == kind);
    say(&aligned(&[kind.name(), "snapshot"], &refs.map(row).collect::<Vec<_>>()))
}

/// Names a snapshot of a table.
///
/// # Errors
/// [`CliError::Client`].
pub(super) async fn create(
    config: &Config,
    new: &CreateRef,
    kind: RefKind,
) -> Result<(), CliError> {
    let CreateRef { named: RefArgs { table, name }, snapshot } = new;
    let body = json!(NewRef { name: name.clone(), kind, snapshot: snapshot.map(SnapshotId) });
    let client = table.client(config);
    say_place(&client.read(Method::POST, &table.path("refs"), Some(&body)).await?)
}

fn say_place(RefReply { name, snapshot }: &RefReply) -> Result<(), CliError> {
    say(&format!("{name} is at snapshot {}", shown(snapshot.snapshot.as_ref())))
}

/// Drops a branch or tag of a table.
///
/// # Errors
/// [`CliError::Client`].
pub(super) async fn drop(
    config: &Config,
    RefArgs { table, name }: &RefArgs,
    kind: RefKind,
) -> Result<(), CliError> {
    let path = table.path(&format!("refs/{}?type={}", escape(name), kind.name()));
    let RefDropped { .. } = table.client(config).read(Method::DELETE, &path, None).await?;
    say(&format!("{name} is dropped"))
}
