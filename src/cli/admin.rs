//! `icecore tables`, `snapshots`, `config`: one request each, printed as a table.

use crate::{
    cli::{CliError, client::Client, remark, say},
    config::Config,
};
use clap::Args;
use reqwest::Method;
use serde_json::Value;
use std::fmt::Write;

/// `icecore tables`
#[derive(Debug, Args)]
pub struct Tables {
    /// The namespace, levels apart by `/`; without it every namespace is listed
    #[arg(long)]
    ns: Option<String>,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// `icecore snapshots`
#[derive(Debug, Args)]
pub struct Snapshots {
    /// The table
    #[arg(default_value = "events")]
    table: String,
    /// How many of the newest are listed
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// The namespace, levels apart by `/`
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
pub async fn tables(config: &Config, command: &Tables) -> Result<(), CliError> {
    let client = Client::new(config, command.url.as_deref());
    let namespaces = match &command.ns {
        Some(namespace) => vec![namespace.clone()],
        None => {
            let answer = client.json(Method::GET, "/v1/namespaces", None).await?;
            let listed = answer["namespaces"].as_array().cloned().unwrap_or_default();
            listed.iter().map(|entry| typed(entry, "name")).collect()
        }
    };
    let mut rows = Vec::new();
    for namespace in namespaces {
        let answer = client
            .json(Method::GET, &format!("/v1/{}/tables", escape_ns(&namespace)), None)
            .await?;
        for table in answer["tables"].as_array().into_iter().flatten() {
            let mut row = vec![namespace.clone()];
            row.extend(
                ["name", "records", "files", "bytes", "snapshots", "last_seq", "error"]
                    .map(|key| plain(&table[key])),
            );
            rows.push(row);
        }
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

/// Prints the newest snapshots of a table.
///
/// # Errors
/// [`CliError::Client`].
pub async fn snapshots(config: &Config, command: &Snapshots) -> Result<(), CliError> {
    let client = Client::new(config, command.url.as_deref());
    let path =
        format!("/v1/{}/tables/{}/snapshots", escape_ns(&command.ns), escape(&command.table));
    let answer = client.json(Method::GET, &format!("{path}?limit={}", command.limit), None).await?;
    let keys = [
        "snapshot",
        "time",
        "operation",
        "added_records",
        "total_records",
        "first_seq",
        "last_seq",
    ];
    let rows: Vec<Vec<String>> = answer["snapshots"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            keys.map(
                |key| if key == "time" { time(&row["timestamp_ms"]) } else { plain(&row[key]) },
            )
            .to_vec()
        })
        .collect();
    say(&aligned(&keys, &rows))?;
    let total = answer["total"].as_u64().unwrap_or(0);
    if (rows.len() as u64) < total {
        remark(&format!("the newest {} of {total} snapshots; --limit N lists more", rows.len()));
    }
    Ok(())
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
    text.split('/').map(escape).collect::<Vec<_>>().join("%1F")
}

/// A namespace of an answer as it can be typed again.
pub(super) fn typed(row: &Value, name: &str) -> String {
    let levels = row["levels"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let levels: Vec<&str> = levels.collect();
    if levels.is_empty() { plain(&row[name]) } else { levels.join("/") }
}

pub(super) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn time(value: &Value) -> String {
    let time = value.as_i64().and_then(chrono::DateTime::from_timestamp_millis);
    time.map_or_else(
        || "-".to_owned(),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    )
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
