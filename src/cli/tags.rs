//! `icecore tags …`: names of a table's snapshots, or with `--namespace` one name for a snapshot of every table.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns, shown},
        catalog::TableArgs,
        client::ServerClient,
        counted,
        refs::{self, CreateRef, RefArgs},
        remark, say,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use icecore_schemas::{
    namespace_tags::{
        LeftOutTable, NamespaceTag, NamespaceTagDropped, NamespaceTagList, NewNamespaceTag,
        TableTag,
    },
    tables::RefKind,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};

/// `icecore tags …`
#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// List those of a table, or with --namespace of all tables
    List(ListTags),
    /// Name a snapshot, which then stays: TABLE NAME, or NAME with --namespace
    Create(CreateTag),
    /// Drop one, TABLE NAME, or NAME with --namespace; its snapshots stay until they expire
    Drop(DropTag),
}

/// Where tags are.
#[derive(Debug, Args)]
pub struct TagPlaceArgs {
    /// All tables of the namespace, in one commit
    #[arg(long)]
    namespace: bool,
    /// The namespace, levels separated by `/`
    #[arg(long, default_value = "default")]
    ns: String,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// `icecore tags list`
#[derive(Debug, Args)]
pub struct ListTags {
    /// The table; none with --namespace
    #[arg(required_unless_present = "namespace", conflicts_with = "namespace")]
    table: Option<String>,
    #[command(flatten)]
    place: TagPlaceArgs,
}

/// `icecore tags create`
#[derive(Debug, Args)]
pub struct CreateTag {
    /// The table and the name; the name alone with --namespace
    #[arg(required = true, num_args = 1..=2, value_name = "NAME")]
    names: Vec<String>,
    /// A snapshot id of the table; the current snapshot when left out
    #[arg(long, conflicts_with = "namespace")]
    snapshot: Option<i64>,
    /// With --namespace the point: seq:17, bookmark:…, time:2026-11-20T12:00:00Z, tag:…; now when left out
    #[arg(long, value_name = "POINT", requires = "namespace")]
    at: Option<String>,
    #[command(flatten)]
    place: TagPlaceArgs,
}

/// `icecore tags drop`
#[derive(Debug, Args)]
pub struct DropTag {
    /// The table and the name; the name alone with --namespace
    #[arg(required = true, num_args = 1..=2, value_name = "NAME")]
    names: Vec<String>,
    /// With --namespace only show which tables have it
    #[arg(long, requires = "namespace")]
    dry_run: bool,
    /// With --namespace do not ask before
    #[arg(long, requires = "namespace")]
    yes: bool,
    #[command(flatten)]
    place: TagPlaceArgs,
}

/// A tag that is named.
enum TagTarget {
    /// Of one table.
    Table(RefArgs),
    /// Of all tables of a namespace.
    Namespace(String),
}

impl TagPlaceArgs {
    fn client(&self, config: &Config) -> ServerClient {
        ServerClient::new(config, self.url.as_deref())
    }

    /// The path of the namespace's tags, or of one of them.
    fn path(&self, name: Option<&str>) -> String {
        let name = name.map_or_else(String::new, |name| format!("/{}", escape(name)));
        format!("/v1/{}/tags{name}", escape_ns(&self.ns))
    }

    fn table(&self, name: &str) -> TableArgs {
        TableArgs::new(name, &self.ns, self.url.as_deref())
    }

    /// What these words name.
    fn target(&self, names: &[String]) -> Result<TagTarget, CliError> {
        match (names, self.namespace) {
            ([name], true) => Ok(TagTarget::Namespace(name.clone())),
            ([table, name], false) => {
                let named = RefArgs { table: self.table(table), name: name.clone() };
                Ok(TagTarget::Table(named))
            }
            (_, true) => {
                let text = "with --namespace there is one name, that of the tag";
                Err(CliError::Usage(text.to_owned()))
            }
            (_, false) => {
                let text = "name a table and a tag, or a tag of all tables with --namespace";
                Err(CliError::Usage(text.to_owned()))
            }
        }
    }
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Usage`] for names that do not fit, and where nobody can be asked,
/// [`CliError::Refused`] for who says no.
pub async fn run(config: &Config, command: &TagCommand) -> Result<(), CliError> {
    match command {
        TagCommand::List(ListTags { table: Some(table), place }) => {
            refs::list(config, &place.table(table), RefKind::Tag).await
        }
        TagCommand::List(ListTags { table: None, place }) => list(config, place).await,
        TagCommand::Create(command) => match command.place.target(&command.names)? {
            TagTarget::Table(named) => {
                let new = CreateRef { named, snapshot: command.snapshot };
                refs::create(config, &new, RefKind::Tag).await
            }
            TagTarget::Namespace(name) => create(config, command, name).await,
        },
        TagCommand::Drop(command) => match command.place.target(&command.names)? {
            TagTarget::Table(named) => refs::drop(config, &named, RefKind::Tag).await,
            TagTarget::Namespace(name) => drop(config, command, &name).await,
        },
    }
}

async fn list(config: &Config, place: &TagPlaceArgs) -> Result<(), CliError> {
    let path = place.path(None);
    let listed: NamespaceTagList = place.client(config).read(Method::GET, &path, None).await?;
    let row = |NamespaceTag { name, seq, tables, .. }: NamespaceTag| {
        let tables: Vec<String> = tables.into_iter().map(|it| it.table).collect();
        vec![name, shown(seq.as_ref()), tables.join(", ")]
    };
    let rows: Vec<Vec<String>> = listed.tags.into_iter().map(row).collect();
    say(&aligned(&["tag", "seq", "tables"], &rows))
}

async fn create(config: &Config, command: &CreateTag, name: String) -> Result<(), CliError> {
    let CreateTag { place, at, .. } = command;
    let at = at.as_deref().map(Value::from);
    let body = json!(NewNamespaceTag { name, at, retain_ms: None });
    let client = place.client(config);
    let tag: NamespaceTag = client.read(Method::POST, &place.path(None), Some(&body)).await?;
    show(&tag)?;
    for LeftOutTable { table, reason } in &tag.left_out {
        remark(&format!("{table} does not have it: {reason}"));
    }
    Ok(())
}

fn show(tag: &NamespaceTag) -> Result<(), CliError> {
    if let Some(seq) = tag.seq {
        say(&format!("{} is of seq {seq}", tag.name))?;
    }
    let row = |TableTag { table, snapshot }: &TableTag| {
        vec![table.clone(), shown(snapshot.snapshot.as_ref())]
    };
    let rows: Vec<Vec<String>> = tag.tables.iter().map(row).collect();
    say(&aligned(&["table", "snapshot"], &rows))
}

async fn drop(config: &Config, command: &DropTag, name: &str) -> Result<(), CliError> {
    let DropTag { place, dry_run, yes, .. } = command;
    let (client, path) = (place.client(config), place.path(Some(name)));
    if *dry_run || !*yes {
        let tag: NamespaceTag = client.read(Method::GET, &path, None).await?;
        if *dry_run {
            return show(&tag);
        }
        agree(&tag)?;
    }
    let dropped: NamespaceTagDropped = client.read(Method::DELETE, &path, None).await?;
    say(&format!("{name} is dropped of {}", dropped.tables.join(", ")))
}

/// Asks whether to drop a tag.
fn agree(tag: &NamespaceTag) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = "there is no terminal to ask at: add --yes to drop the tag, or --dry-run to see which tables have it";
        return Err(CliError::Usage(text.to_owned()));
    }
    let tables = counted(tag.tables.len() as u64, "table");
    remark(&format!("{} would be dropped of {tables}. Drop it? [y/N]", tag.name));
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|source| CliError::Io {
        operation: "read the answer from the terminal".to_owned(),
        source,
    })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Refused("nothing was changed".to_owned())),
    }
}
