//! `icecore sql`: statements from the command line, a file or a pipe, or a prompt.

mod answer;
mod box_table;
mod completion;
mod meta_command;
mod pointer;
mod prompt;
mod rows;
mod screen;
mod script;
mod text;

use crate::{
    cli::{CliError, STDOUT, client::ServerClient, complain, counted, say},
    config::Config,
};
use answer::AnswerReader;
use arrow::{
    ipc::reader::StreamReader, record_batch::RecordBatch, util::pretty::pretty_format_batches,
};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use screen::ScreenStyle;
use std::{
    fs::File,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

/// `icecore sql`
#[derive(Clone, Debug, Args)]
pub struct SqlCommand {
    /// Statements, separated by `;`; without statements or a pipe, a prompt opens
    sql: Option<String>,
    /// The same, as other prompts take them
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with = "sql")]
    command: Option<String>,
    /// A file of statements; `-` is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["sql", "command"])]
    file: Option<PathBuf>,
    /// Run the statements behind one that fails, too; the command then fails at its end
    #[arg(long)]
    keep_going: bool,
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// A snapshot id, an RFC 3339 time such as 2026-11-20T12:00:00Z, a tag or a branch
    #[arg(long)]
    as_of: Option<String>,
    /// How rows are printed; default: by the extension of --output, else a table
    #[arg(long)]
    format: Option<PrintFormat>,
    /// File to write to, instead of stdout; for one statement
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Endings of files that are compressed, which no answer is.
const COMPRESSED_ENDINGS: [&str; 5] = ["gz", "zst", "zstd", "bz2", "xz"];

/// What the name of a file ends with that is not whole.
pub(super) const UNFINISHED: &str = ".part";

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrintFormat {
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
    /// A Parquet file.
    Parquet,
}

impl PrintFormat {
    fn accept(self) -> &'static str {
        match self {
            Self::Table | Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format that a file's ending stands for.
    fn of_file(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "arrow" | "arrows" => Some(Self::Arrow),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Whether a terminal cannot show it.
    fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }
}

/// Runs the statements in order, or a prompt until its end.
///
/// # Errors
/// [`CliError`] of the first statement that fails; those behind it are not run, unless they are wanted
/// all the same. At the prompt a failing statement is printed and the prompt goes on.
pub async fn run(config: &Config, command: &SqlCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let Some(text) = script_of(command)? else {
        check_output(command, 0, std::io::stdout().is_terminal())?;
        return Box::pin(prompt::run(&client, command)).await;
    };
    let script::SqlScript { mut statements, rest } = script::split(&text);
    if !rest.is_empty() {
        statements.push(rest);
    }
    check_output(command, statements.len(), std::io::stdout().is_terminal())?;
    // A file or a pipe may have none.
    if command.text().is_some() && statements.is_empty() {
        return Err(CliError::Usage("there is no statement".to_owned()));
    }
    let mut failed = 0;
    for sql in &statements {
        let answered = match &command.output {
            Some(file) => save_answer(&client, command, sql, file).await,
            None => print_answer(&client, command, sql).await,
        };
        match answered.map_err(|problem| pointer::pointed(problem, sql)) {
            Ok(()) => (),
            // Nobody reads what further ones would print.
            Err(problem) if !command.keep_going || matches!(problem, CliError::Io { .. }) => {
                return Err(problem);
            }
            Err(problem) => {
                complain(&problem);
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Refused(format!("{} failed", counted(failed, "statement")))),
    }
}

/// The text of the statements that the command was given, if it was given any.
fn script_of(command: &SqlCommand) -> Result<Option<String>, CliError> {
    let named = match (command.text(), &command.file) {
        (Some(sql), _) => return Ok(Some(sql.to_owned())),
        (None, file) => file.as_deref().filter(|file| *file != Path::new("-")),
    };
    let (operation, text) = match named {
        Some(file) => (format!("read `{}`", file.display()), std::fs::read_to_string(file)),
        None if command.file.is_none() && std::io::stdin().is_terminal() => return Ok(None),
        None => {
            ("read statements from stdin".to_owned(), std::io::read_to_string(std::io::stdin()))
        }
    };
    let text = text.map_err(|source| CliError::Io { operation, source })?;
    // Editors of some systems begin a file with a byte order mark.
    Ok(Some(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned)))
}

/// Refuses what would fill a terminal with bytes, or write several answers to one file.
fn check_output(
    command: &SqlCommand,
    statements: usize,
    is_terminal: bool,
) -> Result<(), CliError> {
    if command.output.is_some() && statements != 1 {
        return Err(CliError::Usage(format!(
            "--output takes the result of one statement, but there are {statements}"
        )));
    }
    if let Some(file) = command.output.as_deref()
        && file.extension().is_some_and(|ending| {
            COMPRESSED_ENDINGS.iter().any(|it| ending.eq_ignore_ascii_case(it))
        })
        && !is_stream(file)
    {
        return Err(CliError::Usage(format!(
            "`{}` would not be compressed: redirect stdout, as in --format csv | gzip > FILE",
            file.display()
        )));
    }
    let is_binary = command.format().is_binary();
    if is_binary && command.output.is_none() && is_terminal {
        return Err(CliError::Usage(
            "this format is binary and cannot go to a terminal; add --output FILE, or redirect stdout"
                .to_owned(),
        ));
    }
    if is_binary && 1 < statements {
        return Err(CliError::Usage(format!(
            "this format holds the result of one statement, but there are {statements}"
        )));
    }
    Ok(())
}

impl SqlCommand {
    /// The statements of the command line.
    fn text(&self) -> Option<&str> {
        self.sql.as_deref().or(self.command.as_deref())
    }

    fn format(&self) -> PrintFormat {
        let by_ending = || PrintFormat::of_file(self.output.as_deref()?);
        self.format.or_else(by_ending).unwrap_or(PrintFormat::Table)
    }
}

async fn print_answer(
    client: &ServerClient,
    command: &SqlCommand,
    sql: &str,
) -> Result<(), CliError> {
    if command.format() == PrintFormat::Table {
        if let Some(width) = screen::width() {
            let style = ScreenStyle::default();
            return Box::pin(screen::show(client, command, sql, style, width)).await;
        }
        let accept = command.format().accept();
        let bytes = ask(client, &command.ns, sql, command.as_of.as_deref(), accept).await?;
        return say(&table(&bytes)?);
    }
    let failed = |source| CliError::Io { operation: STDOUT.to_owned(), source };
    copy_answer(client, command, sql, &mut std::io::stdout(), failed).await
}

/// Writes the answer beside `file` first, so that `file` is never half an answer. A link stays: what
/// it leads to is replaced. A device or a pipe is written to as it is.
async fn save_answer(
    client: &ServerClient,
    command: &SqlCommand,
    sql: &str,
    file: &Path,
) -> Result<(), CliError> {
    let failed = |source| CliError::Io { operation: format!("write `{}`", file.display()), source };
    let file = &file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let is_stream = is_stream(file);
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(if is_stream { "" } else { UNFINISHED });
    let unfinished = PathBuf::from(unfinished);
    let written = async {
        let mut out = File::create(&unfinished).map_err(failed)?;
        if command.format() != PrintFormat::Table {
            return copy_answer(client, command, sql, &mut out, failed).await;
        }
        let accept = command.format().accept();
        let bytes = ask(client, &command.ns, sql, command.as_of.as_deref(), accept).await?;
        writeln!(out, "{}", table(&bytes)?).map_err(failed)
    };
    let written = written.await;
    if is_stream {
        return written;
    }
    if let Err(problem) = written {
        // What is left of it is only a nuisance.
        let _ = std::fs::remove_file(&unfinished);
        return Err(problem);
    }
    std::fs::rename(&unfinished, file).map_err(failed)
}

/// Whether it is a device or a pipe.
fn is_stream(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| !metadata.is_file())
}

/// Copies the answer as it comes.
async fn copy_answer(
    client: &ServerClient,
    command: &SqlCommand,
    sql: &str,
    out: &mut (impl Write + Send),
    failed: impl Fn(std::io::Error) -> CliError,
) -> Result<(), CliError> {
    let accept = command.format().accept();
    let as_of = command.as_of.as_deref();
    let mut answer = AnswerReader::open(client, &command.ns, sql, as_of, accept).await?;
    while let Some(bytes) = answer.next().await? {
        out.write_all(&bytes).map_err(&failed)?;
    }
    out.flush().map_err(&failed)
}

/// The whole raw answer to a statement in the format that `accept` names.
///
/// # Errors
/// [`CliError::Client`].
pub async fn ask(
    client: &ServerClient,
    namespace: &str,
    sql: &str,
    as_of: Option<&str>,
    accept: &'static str,
) -> Result<Bytes, CliError> {
    let mut answer = AnswerReader::open(client, namespace, sql, as_of, accept).await?;
    let mut whole = Vec::new();
    while let Some(bytes) = answer.next().await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.into())
}

/// Writes the answer to a statement as the Parquet file `file`, which is there only when it is whole.
///
/// # Errors
/// [`CliError::Client`], [`CliError::Io`].
pub(super) async fn save_parquet(
    client: &ServerClient,
    namespace: &str,
    sql: &str,
    as_of: Option<&str>,
    file: &Path,
) -> Result<(), CliError> {
    let failed = |source| CliError::Io { operation: format!("write `{}`", file.display()), source };
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let accept = PrintFormat::Parquet.accept();
    let mut answer = AnswerReader::open(client, namespace, sql, as_of, accept).await?;
    let mut out = File::create(&unfinished).map_err(failed)?;
    while let Some(bytes) = answer.next().await? {
        out.write_all(&bytes).map_err(failed)?;
    }
    out.sync_all().map_err(failed)?;
    std::fs::rename(&unfinished, file).map_err(failed)
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

#[cfg(test)]
mod tests;
