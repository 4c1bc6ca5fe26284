//! `icecore branches …`: branches of a namespace, and those of one table where a table is named.

mod merge;

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns, shown},
        catalog::{ServerArgs, TableArgs},
        client::ServerClient,
        refs::{self, CreateRef, FastForwardCommand, RefArgs},
        restore::ask,
        say,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use icecore_schemas::branches::{
    BranchDropped, BranchEntry, BranchList, BranchSquashed, NewBranch,
};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

/// `icecore branches`, and what it does besides listing.
#[derive(Debug, Args)]
pub struct BranchesCommand {
    #[command(subcommand)]
    command: Option<BranchCommand>,
    /// The namespace whose branches are listed; default when left out
    #[arg(long)]
    ns: Option<String>,
    /// Print the server's answer to that as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// `icecore branches …`
#[derive(Debug, Subcommand)]
pub enum BranchCommand {
    /// List the branches of a namespace, or of a table
    List(ListBranches),
    /// Make a branch of a namespace: `create NAME`; or of a table: `create NAME --table TABLE`, `create TABLE NAME`
    Create(CreateBranch),
    /// Move a branch of a table forward to where another branch or tag is
    FastForward(FastForwardCommand),
    /// Drop a branch of a namespace: `drop NAME`; or of a table: `drop TABLE NAME`
    Drop(DropBranch),
    /// Print what a branch of a namespace changed
    Diff(merge::DiffBranch),
    /// Bring what a branch of a namespace changed into another one
    Merge(merge::MergeBranch),
    /// Put one change for each document in the place of the changes of a branch of a namespace
    Squash(SquashBranch),
}

/// Whose branches.
#[derive(Debug, Args)]
pub struct SpaceArgs {
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// `icecore branches list`
#[derive(Debug, Args)]
pub struct ListBranches {
    /// A table, for its own branches
    table: Option<String>,
    #[command(flatten)]
    space: SpaceArgs,
}

/// A branch of a namespace, or of a table.
#[derive(Debug, Args)]
pub struct BranchArgs {
    /// The branch; or a table, and then its branch
    #[arg(value_name = "NAME", num_args = 1..=2, required = true)]
    names: Vec<String>,
    /// The table, for a branch of it alone
    #[arg(long)]
    table: Option<String>,
    #[command(flatten)]
    space: SpaceArgs,
}

/// `icecore branches create`
#[derive(Debug, Args)]
pub struct CreateBranch {
    #[command(flatten)]
    named: BranchArgs,
    /// The point where it begins, such as seq:17; everything that is acknowledged when left out
    #[arg(long)]
    at: Option<String>,
    /// The branch that it is made of; main when left out
    #[arg(long)]
    from: Option<String>,
    /// The one collection whose changes it takes
    #[arg(long)]
    collection: Option<String>,
    /// For a branch of a table: a snapshot id; the current snapshot when left out
    #[arg(long, conflicts_with_all = ["at", "from", "collection"])]
    snapshot: Option<i64>,
}

/// Whether a command asks before it changes a branch.
#[derive(Debug, Args)]
struct BranchConsent {
    /// Only show the branch
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before
    #[arg(long)]
    yes: bool,
}

/// `icecore branches drop`
#[derive(Debug, Args)]
pub struct DropBranch {
    #[command(flatten)]
    named: BranchArgs,
    #[command(flatten)]
    consent: BranchConsent,
}

/// `icecore branches squash`
#[derive(Debug, Args)]
pub struct SquashBranch {
    /// The branch
    name: String,
    #[command(flatten)]
    consent: BranchConsent,
    #[command(flatten)]
    space: SpaceArgs,
}

impl SpaceArgs {
    fn client(&self, config: &Config) -> ServerClient {
        self.server.client(config)
    }

    /// The path of the branches, or of what is below them.
    fn path(&self, below: &[&str]) -> String {
        let mut path = format!("/v1/{}/branches", escape_ns(&self.ns));
        for part in below {
            path.push('/');
            path.push_str(&escape(part));
        }
        path
    }

    fn table(&self, table: &str) -> TableArgs {
        TableArgs::new(table, &self.ns, self.server.url.as_deref())
    }
}

impl BranchArgs {
    /// The branch of a table, where one is named.
    fn of_table(&self) -> Result<Option<RefArgs>, CliError> {
        let (table, name) = match (self.names.as_slice(), &self.table) {
            ([name], Some(table)) | ([table, name], None) => (table, name),
            (_, None) => return Ok(None),
            (_, Some(_)) => {
                let text = "the table is there twice: name the branch alone with --table";
                return Err(CliError::Usage(text.to_owned()));
            }
        };
        Ok(Some(RefArgs::new(self.space.table(table), name.clone())))
    }

    fn name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }
}

impl BranchConsent {
    /// Whether to go on with a branch of a namespace: shows it alone, or asks.
    async fn given(
        &self,
        config: &Config,
        space: &SpaceArgs,
        name: &str,
        verb: &str,
    ) -> Result<bool, CliError> {
        if self.yes && !self.dry_run {
            return Ok(true);
        }
        let path = space.path(&[name]);
        let found: BranchEntry = space.client(config).read(Method::GET, &path, None).await?;
        if self.dry_run && space.json {
            say_json(&found)?;
            return Ok(false);
        }
        let BranchEntry { head_seq, forked_from, fork_seq, .. } = found;
        let state = format!(
            "{name} has events up to seq {head_seq}, those up to {fork_seq} of {forked_from}"
        );
        if self.dry_run {
            say(&state)?;
            return Ok(false);
        }
        ask(&format!("{state}. Do you want to {verb} it? [y/N]"), verb)?;
        Ok(true)
    }
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Usage`] for what a branch of a table has not, and where nobody can be asked,
/// [`CliError::Refused`] for who says no.
pub async fn run(config: &Config, command: &BranchesCommand) -> Result<(), CliError> {
    let BranchesCommand { command, ns, json, server } = command;
    let Some(command) = command else {
        let ns = ns.clone().unwrap_or_else(|| "default".to_owned());
        let server = ServerArgs { url: server.url.clone() };
        return list(config, &SpaceArgs { ns, json: *json, server }).await;
    };
    if ns.is_some() || *json || server.url.is_some() {
        let text = "write --ns, --json and --url behind the command, as `branches list --ns NS`";
        return Err(CliError::Usage(text.to_owned()));
    }
    match command {
        BranchCommand::List(ListBranches { table: Some(table), space }) => {
            refs::list_branches(config, &space.table(table)).await
        }
        BranchCommand::List(ListBranches { table: None, space }) => list(config, space).await,
        BranchCommand::Create(new) => match new.named.of_table()? {
            Some(named) => {
                if new.at.is_some() || new.from.is_some() || new.collection.is_some() {
                    let text = "--at, --from and --collection are of branches of a namespace: name the branch alone";
                    return Err(CliError::Usage(text.to_owned()));
                }
                refs::create_branch(config, &CreateRef::new(named, new.snapshot)).await
            }
            None => create(config, new).await,
        },
        BranchCommand::FastForward(forward) => refs::fast_forward(config, forward).await,
        BranchCommand::Drop(DropBranch { named, consent }) => match named.of_table()? {
            Some(_) if consent.dry_run => {
                let text = "--dry-run is of branches of a namespace: name the branch alone";
                Err(CliError::Usage(text.to_owned()))
            }
            Some(named) => refs::drop_branch(config, &named).await,
            None => drop(config, named, consent).await,
        },
        BranchCommand::Diff(command) => merge::diff(config, command).await,
        BranchCommand::Merge(command) => merge::merge(config, command).await,
        BranchCommand::Squash(command) => squash(config, command).await,
    }
}

async fn list(config: &Config, space: &SpaceArgs) -> Result<(), CliError> {
    let client = space.client(config);
    let listed: BranchList = client.read(Method::GET, &space.path(&[]), None).await?;
    if space.json {
        return say_json(&listed);
    }
    let row = |it: &BranchEntry| {
        vec![
            it.name.clone(),
            it.head_seq.to_string(),
            it.forked_from.clone(),
            it.fork_seq.to_string(),
            shown(it.collection.as_ref()),
            it.created_at.clone(),
            it.head.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = listed.branches.iter().map(row).collect();
    let header =
        ["branch", "head_seq", "forked_from", "fork_seq", "collection", "created_at", "snapshot"];
    say(aligned(&header, &rows).trim_end())
}

async fn create(config: &Config, new: &CreateBranch) -> Result<(), CliError> {
    let CreateBranch { named, at, from, collection, snapshot } = new;
    if snapshot.is_some() {
        let text =
            "--snapshot is of branches of a table: write `create TABLE NAME`, or --at snapshot:ID";
        return Err(CliError::Usage(text.to_owned()));
    }
    let body = json!(NewBranch {
        name: named.name().to_owned(),
        at: at.clone().map(Value::from),
        from: from.clone(),
        collection: collection.clone(),
    });
    let space = &named.space;
    let client = space.client(config);
    let made: BranchEntry = client.read(Method::POST, &space.path(&[]), Some(&body)).await?;
    if space.json {
        return say_json(&made);
    }
    say(&format!("{} begins at seq {} of {}", made.name, made.fork_seq, made.forked_from))
}

async fn drop(
    config: &Config,
    named: &BranchArgs,
    consent: &BranchConsent,
) -> Result<(), CliError> {
    let space = &named.space;
    if !consent.given(config, space, named.name(), "drop").await? {
        return Ok(());
    }
    let path = space.path(&[named.name()]);
    let dropped: BranchDropped = space.client(config).read(Method::DELETE, &path, None).await?;
    if space.json {
        return say_json(&dropped);
    }
    say(&format!("{} is dropped", named.name()))
}

async fn squash(
    config: &Config,
    SquashBranch { name, consent, space }: &SquashBranch,
) -> Result<(), CliError> {
    if !consent.given(config, space, name, "squash").await? {
        return Ok(());
    }
    let path = space.path(&[name, "squash"]);
    let squashed: BranchSquashed = space.client(config).read(Method::POST, &path, None).await?;
    if space.json {
        return say_json(&squashed);
    }
    let BranchSquashed { events_before, events, tag, .. } = &squashed;
    match tag {
        Some(tag) => say(&format!(
            "{name} has {events} events in the place of {events_before}: tag {tag} has those"
        )),
        None => say(&format!("{name} stays as it is: of {events} events none would go")),
    }
}

fn say_json(answer: &impl Serialize) -> Result<(), CliError> {
    say(&serde_json::to_string(answer).expect("its members are texts and numbers"))
}
