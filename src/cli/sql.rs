//! `icecore sql`: one statement, or a prompt.

use crate::{
    cli::{
        CliError,
        client::{Call, Client, refused},
        say,
    },
    config::Config,
};
use arrow::{
    ipc::reader::StreamReader, record_batch::RecordBatch, util::pretty::pretty_format_batches,
};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use reqwest::{Method, header};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::io::Write;
use tokio::time::Instant;

/// `icecore sql`
#[derive(Debug, Args)]
pub struct SqlCommand {
    /// The statement; without it a prompt opens
    sql: Option<String>,
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// A snapshot id or an RFC 3339 time
    #[arg(long)]
    as_of: Option<String>,
    /// How rows are printed
    #[arg(long, default_value = "table")]
    format: Format,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One object with columns and rows.
    Json,
    /// One object a row.
    Ndjson,
    /// Comma-separated with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    fn accept(self) -> &'static str {
        match self {
            Self::Table | Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

/// Runs the statement, or a prompt until its end.
///
/// # Errors
/// [`CliError`]; at the prompt a failing statement is printed and the prompt goes on.
pub async fn run(config: &Config, command: &SqlCommand) -> Result<(), CliError> {
    let client = Client::new(config, command.url.as_deref());
    if let Some(sql) = &command.sql {
        return print_answer(&client, command, sql).await;
    }
    let history = config.data_dir.join("sql-history");
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    // The history is a convenience: without it the prompt works all the same.
    let _ = editor.load_history(&history);
    let mut statement = String::new();
    loop {
        // The prompt waits for a person; nothing else runs in this process.
        let line =
            match editor.readline(if statement.is_empty() { "icecore> " } else { "     ...> " }) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    statement.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => break,
                Err(problem) => return Err(terminal(problem)),
            };
        statement.push_str(&line);
        let text = statement.trim();
        if matches!(text, "exit" | "quit" | "\\q") {
            break;
        }
        if text.ends_with(';') {
            // As above: a lost line of history is no reason to stop.
            let _ = editor.add_history_entry(text);
            let started = Instant::now();
            match print_answer(&client, command, text.trim_end_matches(';')).await {
                Ok(()) => say(&format!("({} ms)", started.elapsed().as_millis()))?,
                Err(problem) => crate::cli::complain(&problem),
            }
            statement.clear();
        } else if !text.is_empty() {
            statement.push('\n');
        }
    }
    // As above.
    let _ = editor.save_history(&history);
    Ok(())
}

async fn print_answer(client: &Client, command: &SqlCommand, sql: &str) -> Result<(), CliError> {
    let bytes =
        ask(client, &command.ns, sql, command.as_of.as_deref(), command.format.accept()).await?;
    if command.format == Format::Table {
        return say(&table(&bytes)?);
    }
    std::io::stdout()
        .write_all(&bytes)
        .and_then(|()| std::io::stdout().flush())
        .map_err(|source| CliError::Io { operation: "write to stdout".to_owned(), source })
}

/// The raw answer to a statement in the format that `accept` names.
///
/// # Errors
/// [`CliError::Client`].
pub async fn ask(
    client: &Client,
    namespace: &str,
    sql: &str,
    as_of: Option<&str>,
    accept: &str,
) -> Result<Bytes, CliError> {
    let mut request = serde_json::json!({ "sql": sql });
    if let Some(as_of) = as_of {
        request["as_of"] = as_of.into();
    }
    let path = format!(
        "/v1/{}/sql",
        percent_encoding::utf8_percent_encode(namespace, percent_encoding::NON_ALPHANUMERIC)
    );
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
        (header::ACCEPT.as_str(), accept.to_owned()),
    ];
    let call = Call {
        method: Method::POST,
        path: &path,
        headers: &headers,
        body: request.to_string().into(),
    };
    let (status, bytes) = client.send(&call).await?;
    if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes).into()) }
}

/// An Arrow stream as a table for people.
///
/// # Errors
/// [`CliError::Arrow`] when the stream ends early.
pub fn table(stream: &[u8]) -> Result<String, CliError> {
    let reader = StreamReader::try_new(stream, None)?;
    let schema = reader.schema();
    let mut batches = reader.collect::<Result<Vec<RecordBatch>, _>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(pretty_format_batches(&batches)?.to_string())
}

fn terminal(problem: ReadlineError) -> CliError {
    CliError::Io {
        operation: "read from the terminal".to_owned(),
        source: std::io::Error::other(problem),
    }
}
