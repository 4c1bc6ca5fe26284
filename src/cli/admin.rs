//! `icecore tables`, `snapshots`, `config`: one request each, printed as a table.

use crate::{
    cli::{CliError, client::ServerClient, remark, say},
    config::Config,
};
use clap::Args;
use icecore_catalog::catalog::NAMESPACE_SEPARATOR;
use icecore_schemas::tables::{
    NamespaceEntry, NamespaceList, SnapshotEntry, SnapshotList, TableEntry, TableList, TableState,
    TableSummary,
};
use reqwest::Method;
use std::fmt::{Display, Write};

/// `icecore tables`
#[derive(Debug, Args)]
pub struct TablesCommand {
    /// The namespace, levels separated by `/`; default all namespaces
    #[arg(long)]
    ns: Option<String>,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// `icecore snapshots`
#[derive(Debug, Args)]
pub struct SnapshotsCommand {
    /// The table
    #[arg(default_value = "events")]
    table: String,
    /// How many of the newest to list
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// The namespace, levels separated by `/`
    #[arg(long, default_value = "default")]
    ns: String,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Prints the tables of one namespace, or of all.
///
/// # Errors
/// [`CliError::Client`].
pub async fn tables(config: &Config, command: &TablesCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let namespaces = match &command.ns {
        Some(namespace) => vec![namespace.clone()],
        None => namespace_names(&client).await?,
    };
    let mut rows = Vec::new();
    for namespace in namespaces {
        let path = format!("/v1/{}/tables", escape_ns(&namespace));
        let listed: TableList = client.read(Method::GET, &path, None).await?;
        rows.extend(listed.tables.iter().map(|table| table_row(&namespace, table)));
    }
    let mut header =
        vec!["namespace", "table", "records", "files", "bytes", "snapshots", "last_seq", "error"];
    // Few have one.
    if rows.iter().all(|row| row.last().is_some_and(|error| error == "-")) {
        header.pop();
        rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    say(&aligned(&header, &rows))
}

/// The namespaces that the caller may see, as they can be typed.
///
/// # Errors
/// [`CliError::Client`].
pub(super) async fn namespace_names(client: &ServerClient) -> Result<Vec<String>, CliError> {
    let listed: NamespaceList = client.read(Method::GET, "/v1/namespaces", None).await?;
    let name = |NamespaceEntry { ns, levels, .. }| {
        ns.filter(|ns: &String| !ns.contains('/')).unwrap_or_else(|| typed(&levels))
    };
    Ok(listed.namespaces.into_iter().map(name).collect())
}

fn table_row(namespace: &str, table: &TableEntry) -> Vec<String> {
    let (counts, error) = match &table.state {
        TableState::Read(state) => {
            let TableSummary { records, files, bytes, snapshots, last_seq, .. } = state;
            ([*records, *files, *bytes, Some(*snapshots), *last_seq], None)
        }
        TableState::Waiting { snapshots, .. } => ([None, None, None, Some(*snapshots), None], None),
        TableState::Unreadable { error } => ([None; 5], Some(error)),
    };
    let mut row = vec![namespace.to_owned(), table.name.clone()];
    row.extend(counts.map(|count| shown(count.as_ref())));
    row.push(shown(error));
    row
}

/// Prints the newest snapshots of a table.
///
/// # Errors
/// [`CliError::Client`].
pub async fn snapshots(config: &Config, command: &SnapshotsCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let path =
        format!("/v1/{}/tables/{}/snapshots", escape_ns(&command.ns), escape(&command.table));
    let path = format!("{path}?limit={}", command.limit);
    let listed: SnapshotList = client.read(Method::GET, &path, None).await?;
    let header = [
        "snapshot",
        "time",
        "operation",
        "added_records",
        "total_records",
        "first_seq",
        "last_seq",
    ];
    let row = |row: &SnapshotEntry| {
        vec![
            shown(row.snapshot.snapshot.as_ref()),
            time(row.timestamp_ms),
            row.operation.clone(),
            shown(row.added_records.as_ref()),
            shown(row.total_records.as_ref()),
            shown(row.first_seq.as_ref()),
            shown(row.last_seq.as_ref()),
        ]
    };
    let rows: Vec<Vec<String>> = listed.snapshots.iter().map(row).collect();
    say(&aligned(&header, &rows))?;
    let total = listed.total;
    if (rows.len() as u64) < total {
        remark(&format!("the newest {} of {total} snapshots; --limit N lists more", rows.len()));
    }
    Ok(())
}

/// `icecore config`
#[derive(Debug, Args)]
pub struct ConfigCommand {
    /// Print an icecore.toml with every setting commented out, its default and its meaning
    #[arg(long)]
    pub sample: bool,
}

/// Prints every setting.
///
/// # Errors
/// Nobody reads stdout.
pub fn config(config: &Config) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = config
        .effective
        .iter()
        .map(|(key, value, origin, meaning)| {
            vec![(*key).to_owned(), value.clone(), origin.to_string(), (*meaning).to_owned()]
        })
        .collect();
    say(&aligned(&["setting", "value", "origin", "meaning"], &rows))
}

/// A namespace in a path; `/` separates its levels on the command line.
pub(super) fn escape_ns(text: &str) -> String {
    escape(&text.replace('/', NAMESPACE_SEPARATOR))
}

/// A namespace of an answer as it can be typed again.
pub(super) fn typed(levels: &[String]) -> String {
    levels.join("/")
}

pub(super) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A value, or a dash for none.
pub(super) fn shown(value: Option<&impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// A time in milliseconds since 1970, or a dash for none.
pub(super) fn time(ms: impl Into<Option<i64>>) -> String {
    let time = ms.into().and_then(chrono::DateTime::from_timestamp_millis);
    shown(time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)).as_ref())
}

/// Columns padded to their widest cell.
#[must_use]
pub fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut all = vec![header.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>()];
    all.extend_from_slice(rows);
    let width =
        |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("a String takes any text");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.trim_end().to_owned()
}
