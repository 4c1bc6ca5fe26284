//! `icecore catalog …`: administration of tables, one request each, and a probe of the catalog.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns, time, typed},
        client::{ClientError, ServerClient},
        relocate::{self, RelocateCommand},
        say,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use icecore_catalog::catalog::NAMESPACE_SEPARATOR;
use icecore_schemas::{
    snapshot_id::SnapshotId,
    tables::{
        self, DroppedList, DroppedTable, NewTableName, ProtectedList, ProtectedTable, Protection,
        TableDropped, TableName, TablePurging, TableStats,
    },
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

/// `icecore catalog …`
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Try every step of a table's life, in a namespace of its own
    Check(ServerArgs),
    /// Files, bytes, small files, deletes and age of a table
    Stats(TableArgs),
    /// Refuse to drop or rename a table
    Protect(TableArgs),
    /// Allow dropping and renaming again
    Unprotect(TableArgs),
    /// Give a table another name or namespace
    Rename(RenameCommand),
    /// Make an earlier snapshot of a table its current one
    Rollback(RollbackCommand),
    /// Drop a table; it can be restored within `catalog.undrop_window`
    Drop(DropCommand),
    /// List the tables that can be neither dropped nor renamed
    Protected(ServerArgs),
    /// List the dropped tables that can be restored, and count the files waiting for deletion
    Dropped(ServerArgs),
    /// List changes, the oldest first
    Events(EventsCommand),
    /// Restore a dropped table
    Undrop(UndropCommand),
    /// Delete the files of a dropped table
    Purge(PurgeCommand),
    /// Rewrite the metadata of a data folder or warehouse that was moved or copied; with no server
    /// running
    Relocate(RelocateCommand),
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The server, http://host:port
    #[arg(long)]
    pub(super) url: Option<String>,
}

/// Which table.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The table
    table: String,
    /// Its namespace, levels separated by `/`
    #[arg(long, default_value = "default")]
    ns: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// `icecore catalog events`
#[derive(Debug, Args)]
pub struct EventsCommand {
    /// Only changes after this token, from the end of an earlier list
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
    /// At most this many, up to 1000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
}

/// `icecore catalog rename`
#[derive(Debug, Args)]
pub struct RenameCommand {
    #[command(flatten)]
    table: TableArgs,
    /// The new name
    name: String,
    /// The new namespace; default: the same
    #[arg(long)]
    to_ns: Option<String>,
}

/// `icecore catalog rollback`
#[derive(Debug, Args)]
pub struct RollbackCommand {
    #[command(flatten)]
    table: TableArgs,
    /// A snapshot id, or an RFC 3339 time
    #[arg(long)]
    to: String,
}

/// `icecore catalog drop`
#[derive(Debug, Args)]
pub struct DropCommand {
    #[command(flatten)]
    table: TableArgs,
    /// Delete its files once it can no longer be restored, if `catalog.purge` is on
    #[arg(long)]
    purge: bool,
}

/// `icecore catalog undrop`
#[derive(Debug, Args)]
pub struct UndropCommand {
    /// Its uuid, as `icecore catalog dropped` lists it
    uuid: String,
    /// Another name, with --ns
    #[arg(long, requires = "ns")]
    name: Option<String>,
    /// Another namespace, with --name
    #[arg(long, requires = "name")]
    ns: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// `icecore catalog purge`
#[derive(Debug, Args)]
pub struct PurgeCommand {
    /// Its uuid, as `icecore catalog dropped` lists it
    uuid: String,
    #[command(flatten)]
    server: ServerArgs,
}

impl ServerArgs {
    pub(super) fn client(&self, config: &Config) -> ServerClient {
        ServerClient::new(config, self.url.as_deref())
    }
}

impl TableArgs {
    /// A table of this name.
    pub(super) fn new(table: &str, ns: &str, url: Option<&str>) -> Self {
        let server = ServerArgs { url: url.map(str::to_owned) };
        Self { table: table.to_owned(), ns: ns.to_owned(), server }
    }

    /// Its path below the server, for a call named `call`.
    pub(super) fn path(&self, call: &str) -> String {
        let call = if call.is_empty() { String::new() } else { format!("/{call}") };
        format!("/v1/{}/tables/{}{call}", escape_ns(&self.ns), escape(&self.table))
    }

    pub(super) fn client(&self, config: &Config) -> ServerClient {
        self.server.client(config)
    }
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Refused`] when the probe finds a step that does not work.
pub async fn run(config: &Config, command: &CatalogCommand) -> Result<(), CliError> {
    match command {
        CatalogCommand::Check(server) => probe(&server.client(config)).await,
        CatalogCommand::Stats(table) => {
            call::<TableStats>(&table.client(config), Method::GET, &table.path("stats"), None).await
        }
        CatalogCommand::Protect(table) => set_protected(config, table, Method::PUT).await,
        CatalogCommand::Unprotect(table) => set_protected(config, table, Method::DELETE).await,
        CatalogCommand::Rename(RenameCommand { table, name, to_ns }) => {
            let ns = to_ns.as_deref().map(levels);
            let body = json!(NewTableName { ns, name: Some(name.clone()) });
            let (client, path) = (table.client(config), table.path("rename"));
            call::<TableName>(&client, Method::POST, &path, Some(&body)).await
        }
        CatalogCommand::Rollback(RollbackCommand { table, to }) => {
            let snapshot = to.parse().ok().map(SnapshotId);
            let time = snapshot.is_none().then(|| to.clone());
            let body = json!(tables::Rollback { snapshot, time });
            let (client, path) = (table.client(config), table.path("rollback"));
            let answer = client.read_with("snapshot", Method::POST, &path, Some(&body)).await?;
            say(&lines(&answer))
        }
        CatalogCommand::Drop(DropCommand { table, purge }) => {
            let path = format!("{}?purge={purge}", table.path(""));
            call::<TableDropped>(&table.client(config), Method::DELETE, &path, None).await
        }
        CatalogCommand::Protected(server) => protected(&server.client(config)).await,
        CatalogCommand::Events(events) => list_events(config, events).await,
        CatalogCommand::Dropped(server) => dropped(&server.client(config)).await,
        CatalogCommand::Undrop(UndropCommand { uuid, name, ns, server }) => {
            let path = format!("/admin/dropped/{}/undrop", escape(uuid));
            let body = json!(NewTableName { name: name.clone(), ns: ns.as_deref().map(levels) });
            call::<TableName>(&server.client(config), Method::POST, &path, Some(&body)).await
        }
        CatalogCommand::Purge(PurgeCommand { uuid, server }) => {
            let path = format!("/admin/dropped/{}", escape(uuid));
            call::<TablePurging>(&server.client(config), Method::DELETE, &path, None).await
        }
        CatalogCommand::Relocate(command) => relocate::run(config, command).await,
    }
}

/// One request; its answer is printed with a line for each member.
async fn call<T: Serialize + DeserializeOwned>(
    client: &ServerClient,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(), CliError> {
    say(&lines(&json!(client.read::<T>(method, path, body).await?)))
}

async fn set_protected(config: &Config, table: &TableArgs, method: Method) -> Result<(), CliError> {
    call::<Protection>(&table.client(config), method, &table.path("protection"), None).await
}

async fn dropped(client: &ServerClient) -> Result<(), CliError> {
    let listed: DroppedList = client.read(Method::GET, "/admin/dropped", None).await?;
    let row = |row: DroppedTable| {
        vec![
            row.uuid,
            typed(&row.levels),
            row.name,
            time(row.dropped_ms),
            time(row.until_ms),
            row.purge.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = listed.dropped.into_iter().map(row).collect();
    say(&aligned(&["uuid", "namespace", "table", "dropped", "until", "purge"], &rows))?;
    say(&format!("\nfiles waiting for deletion: {}", listed.queued_files))
}

async fn protected(client: &ServerClient) -> Result<(), CliError> {
    let listed: ProtectedList = client.read(Method::GET, "/admin/protected", None).await?;
    let row = |row: ProtectedTable| vec![typed(&row.levels), row.name];
    let rows: Vec<Vec<String>> = listed.protected.into_iter().map(row).collect();
    say(&aligned(&["namespace", "table"], &rows))
}

async fn list_events(config: &Config, events: &EventsCommand) -> Result<(), CliError> {
    let mut body = json!({ "page-size": events.limit });
    if let Some(after) = &events.after {
        body["continuation-token"] = json!(after);
    }
    let client = events.server.client(config);
    let path = "/catalog/v1/events";
    let answer = client.read_with("events", Method::POST, path, Some(&body)).await?;
    let rows = answer["events"].as_array().into_iter().flatten().map(event);
    say(&aligned(
        &["event", "time", "actor", "operation", "object", "request"],
        &rows.collect::<Vec<_>>(),
    ))?;
    say(&format!("\nnext page: --after {}", plain(&answer["continuation-token"])))
}

/// A line of the feed; operations differ in how they say what they are about.
fn event(row: &Value) -> Vec<String> {
    let operation = &row["operation"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let levels = |value: &Value| {
        let levels = value.as_array()?.iter().filter_map(Value::as_str);
        Some(levels.collect::<Vec<_>>().join("/"))
    };
    let named = |value: &Value| {
        let name = text(&value["name"])?;
        Some(levels(&value["namespace"]).map_or(name.clone(), |levels| format!("{levels}/{name}")))
    };
    let object = ["identifier", "source-identifier", "source", "destination"]
        .iter()
        .find_map(|member| named(&operation[member]))
        .or_else(|| levels(&operation["namespace"]))
        .or_else(|| text(&operation["table-uuid"]).or_else(|| text(&operation["view-uuid"])));
    vec![
        plain(&row["event-id"]),
        time(row["timestamp-ms"].as_i64()),
        plain(&row["actor"]),
        plain(&operation["operation-type"]),
        object.unwrap_or_else(|| "-".to_owned()),
        plain(&row["request-id"]),
    ]
}

/// A value of an answer, or a dash for null.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A namespace in a body, as it is in a path once that is decoded.
fn levels(typed: &str) -> String {
    typed.replace('/', NAMESPACE_SEPARATOR)
}

/// A line for each member of an answer; a time for those that end in `_ms` and are one.
fn lines(answer: &Value) -> String {
    let member = |(key, value): (&String, &Value)| match key.strip_suffix("_ms") {
        Some(name) if name != "age" => vec![name.to_owned(), time(value.as_i64())],
        _ => vec![key.clone(), plain(value)],
    };
    let rows: Vec<Vec<String>> = answer.as_object().into_iter().flatten().map(member).collect();
    aligned(&["", ""], &rows).trim_start().to_owned()
}

/// One step of the probe: what it does, and the request.
struct ProbeStep {
    does: &'static str,
    method: Method,
    path: String,
    body: Value,
}

/// The life of a table in a namespace that nobody else uses.
fn steps(namespace: &str) -> Vec<ProbeStep> {
    let step = |does, method, path: &str, body| {
        let path = format!("/catalog/v1{path}");
        ProbeStep { does, method, path, body }
    };
    let inside = format!("/namespaces/{namespace}");
    let table = format!("{inside}/tables/probe");
    let moved = format!("{inside}/tables/moved");
    let field = json!({ "id": 1, "name": "id", "required": true, "type": "long" });
    let schema = json!({ "type": "struct", "fields": [field] });
    let name = |table: &str| json!({ "namespace": [namespace], "name": table });
    vec![
        step("read the configuration", Method::GET, "/config", Value::Null),
        step(
            "create a namespace",
            Method::POST,
            "/namespaces",
            json!({ "namespace": [namespace] }),
        ),
        step(
            "create a table",
            Method::POST,
            &format!("{inside}/tables"),
            json!({ "name": "probe", "schema": schema }),
        ),
        step("load it", Method::GET, &table, Value::Null),
        step(
            "commit to it",
            Method::POST,
            &table,
            json!({ "requirements": [], "updates":
                [{ "action": "set-properties", "updates": { "probe": "done" } }] }),
        ),
        step("list tables", Method::GET, &format!("{inside}/tables"), Value::Null),
        step(
            "rename it",
            Method::POST,
            "/tables/rename",
            json!({ "source": name("probe"), "destination": name("moved") }),
        ),
        step("drop it", Method::DELETE, &format!("{moved}?purgeRequested=true"), Value::Null),
        step("drop the namespace", Method::DELETE, &inside, Value::Null),
    ]
}

async fn purge_dropped_of(client: &ServerClient, namespace: &str) -> Result<(), ClientError> {
    let listed: DroppedList = client.read(Method::GET, "/admin/dropped", None).await?;
    for row in listed.dropped.iter().filter(|row| row.namespace == namespace) {
        let path = format!("/admin/dropped/{}", row.uuid);
        let TablePurging { .. } = client.read(Method::DELETE, &path, None).await?;
    }
    Ok(())
}

async fn probe(client: &ServerClient) -> Result<(), CliError> {
    let namespace = format!("icecore_check_{}", unused_name());
    let (mut rows, mut failed) = (Vec::new(), 0);
    for ProbeStep { does, method, path, body } in steps(&namespace) {
        let started = Instant::now();
        let outcome = client.done(method, &path, (!body.is_null()).then_some(&body)).await;
        failed += usize::from(outcome.is_err());
        let ms = format!("{:.1}", started.elapsed().as_secs_f64() * 1000.0);
        let outcome = outcome.map_or_else(|problem| problem.to_string(), |()| "ok".to_owned());
        rows.push(vec![does.to_owned(), ms, outcome]);
    }
    say(&aligned(&["step", "ms", "outcome"], &rows))?;
    purge_dropped_of(client, &namespace).await?;
    if failed == 0 {
        return Ok(());
    }
    Err(CliError::Refused(format!("{failed} of {} steps failed", rows.len())))
}

fn unused_name() -> String {
    ulid::Ulid::generate().to_string().to_lowercase()
}
