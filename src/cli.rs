//! The command line: what it understands, and which exit code each end has.
//!
//! `serve` and `quickstart` run a server in this process; every other command is a client of one,
//! or reads files. Results go to stdout, everything else to stderr.

pub mod about;
pub mod admin;
pub mod audit;
pub mod backup;
pub mod branches;
pub mod catalog;
pub mod client;
pub mod collections;
pub mod compact;
pub mod deadletters;
pub mod doctor;
pub mod erase;
pub mod export;
pub mod fsck;
pub mod import;
pub mod ingest;
pub mod jobs;
mod json_log;
mod layout;
pub mod materialize;
pub mod quickstart;
pub mod refs;
pub mod relocate;
pub mod repair;
pub mod restore;
pub mod sample;
pub mod serve;
pub mod sql;
pub mod sql_worker;
pub mod tags;
pub mod token;
pub mod wal;
pub mod webhooks;

use crate::{
    config::{self, Config, ConfigError, logging::LogFormat, redaction::beginning_of_key},
    server::StartError,
    tasks,
};
use admin::ConfigCommand;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, error::ContextKind};
use client::ClientError;
use icecore_catalog::{
    audit::BrokenChain,
    error::{CatalogError, with_causes},
};
use std::{
    io::{ErrorKind, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

/// What is being done when a result is written.
const STDOUT: &str = "write to stdout";

/// What `icecore help` shows behind the commands.
const EXAMPLES: &str = r#"Examples:
  icecore quickstart                              a server, sample events, some answers
  icecore serve                                   http://127.0.0.1:8181, all data in ./icecore-data
  icecore ingest events.ndjson --ns shop.example  send a file
  icecore sql --ns shop.example "SELECT type, count(*) FROM events GROUP BY type"
  icecore sql --ns shop.example                   a prompt
  icecore doctor                                  what would prevent a start
  icecore config                                  every setting, its value and meaning

Each setting is a flag or --set KEY=VALUE, else a variable such as ICECORE_DATA_DIR, else a line of
icecore.toml. `icecore help COMMAND` describes a command."#;

/// An event lakehouse in one binary.
#[derive(Debug, Parser)]
#[command(name = "icecore", about, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    settings: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// Settings that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct GlobalOptions {
    /// A settings file; default `icecore.toml`, if it exists
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Address of the server, HOST:PORT; default 127.0.0.1:8181
    #[arg(long, global = true)]
    listen: Option<String>,
    /// Folder of the log, the metastore and the default warehouse; default ./icecore-data
    #[arg(long, global = true)]
    data_dir: Option<String>,
    /// file:///folder or s3://bucket/prefix; default DATA_DIR/warehouse
    #[arg(long, global = true)]
    warehouse: Option<String>,
    /// sqlite://FILE or postgres://…; default DATA_DIR/icecore.db
    #[arg(long, global = true)]
    metastore: Option<String>,
    /// The token for the server; better in ICECORE_TOKEN, where other users cannot see it
    #[arg(long, global = true)]
    token: Option<String>,
    /// Any other setting: key=value, as `icecore config` lists them
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Run(RunCommand),
    #[command(flatten)]
    About(about::AboutCommand),
    /// Run queries of the server that starts this
    #[command(hide = true)]
    SqlWorker(sql_worker::SqlWorkerCommand),
}

/// What takes settings.
#[derive(Debug, Subcommand)]
enum RunCommand {
    /// Run the server
    Serve,
    /// Run a server with sample events and example queries
    Quickstart(quickstart::QuickstartCommand),
    /// Send files of events
    Ingest(ingest::IngestFiles),
    /// Send the files of another layout, such as the folders of an earlier lakehouse
    Import(import::ImportFolder),
    /// Write events as files of another layout
    Export(export::ExportFolder),
    /// Run a query, or open a prompt
    Sql(sql::SqlCommand),
    /// Keep the rows of a query as a table, and run the query anew at its times
    Materialize(materialize::MaterializeCommand),
    /// List the tables of a namespace
    Tables(admin::TablesCommand),
    /// List the snapshots of a table
    Snapshots(admin::SnapshotsCommand),
    /// List the collections of a namespace
    Collections(collections::CollectionsCommand),
    /// Show a document of a collection, or list all of them, now or as they were
    Docs(collections::DocsCommand),
    /// List the versions of a document
    History(collections::HistoryCommand),
    /// Compare the documents of a collection at two points
    Diff(collections::DiffCommand),
    /// Administer the catalog's tables, or probe the catalog
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Branches of a namespace, or of a table
    Branches(branches::BranchesCommand),
    /// Tags of a table, or of all tables of a namespace
    #[command(subcommand)]
    Tags(tags::TagCommand),
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, show, retry and discard rejected events
    #[command(subcommand, name = "deadletters")]
    DeadLetters(deadletters::DeadLetterCommand),
    /// Set, list and delete the secrets of webhook providers
    #[command(subcommand)]
    Webhooks(webhooks::WebhookCommand),
    /// Read and verify the audit log, and audit the rows of a namespace
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Merge small data files now, and write files with deleted rows anew
    Compact(compact::CompactCommand),
    /// Prove that tables are whole: every file, every row, every number
    Fsck(fsck::FsckCommand),
    /// List what the server does by itself: each job, its last run and its next one; or run a job
    Jobs(jobs::JobsCommand),
    /// Erase the rows of a subject from tables, branches, history and dead letters
    Erase(Box<erase::EraseCommand>),
    /// Put a collection, or all of a namespace, to what it was at a point of its history
    Restore(restore::RestoreCommand),
    /// Show every setting with its value, origin and meaning
    Config(ConfigCommand),
    /// Create, list, restore and forget backups
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Check settings, disk, metastore, warehouse and address, and report what would prevent a start
    Doctor(doctor::DoctorCommand),
    /// Inspect a log that no server has open
    #[command(subcommand)]
    Wal(wal::WalCommand),
    /// Rebuild a metastore that is gone, or move a damaged table back to its last whole snapshot
    #[command(subcommand)]
    Repair(repair::RepairCommand),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings.
    #[error("settings")]
    Config(#[from] ConfigError),
    /// What was typed.
    #[error("{0}")]
    Usage(String),
    /// The server did not start.
    #[error("start the server")]
    Start(#[from] StartError),
    /// What is done in a data folder while no server has it open.
    #[error("{operation}")]
    Offline {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: StartError,
    },
    /// A request failed.
    #[error("ask the server")]
    Client(#[from] ClientError),
    /// A file or the terminal.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The metastore.
    #[error("open the metastore")]
    Metastore(#[source] CatalogError),
    /// The audit log is not what was written.
    #[error("the audit log is broken")]
    Audit(#[from] BrokenChain),
    /// A backup.
    #[error("backup")]
    Backup(#[from] crate::server::backup::BackupError),
    /// The log.
    #[error("read the log")]
    Wal(#[from] icecore_lake::wal::WalError),
    /// An answer that does not decode.
    #[error("decode the answer")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Some events were refused.
    #[error("{0}")]
    Refused(String),
}

impl From<CatalogError> for CliError {
    fn from(cause: CatalogError) -> Self {
        match cause {
            // What was asked for is at fault, and the text says what to change.
            CatalogError::Invalid(text) => Self::Refused(text),
            cause => Self::Metastore(cause),
        }
    }
}

/// Runs the command that the process was started with. Exit codes: 0 done, 1 failed, 2 wrong usage.
///
/// `build` names the build, such as a commit.
#[must_use]
pub fn run(build: Option<&'static str>) -> ExitCode {
    // Lives as long as the process: clap keeps no text of its own.
    let version: &'static str = about::version(build).leak();
    let line = || Cli::command().version(version);
    let mut parser = line();
    let parsed = parser.try_get_matches_from_mut(std::env::args_os());
    let cli = parsed
        .and_then(|words| {
            Cli::from_arg_matches(&words).map_err(|problem| problem.format(&mut parser))
        })
        .unwrap_or_else(|problem| misused(&problem));
    let done = match cli.command {
        // These work where the settings do not.
        Command::About(command) => about::run(&command, line()),
        Command::SqlWorker(command) => sql_worker::run(&command),
        Command::Run(RunCommand::Config(ConfigCommand { sample: true })) => {
            say(config::sample().trim_end())
        }
        Command::Run(command) => load(&cli.settings).and_then(|mut config| {
            config.build = build;
            config.worker_program = this_program();
            log_to_stderr(&config);
            // They are among what doctor finds.
            if !matches!(command, RunCommand::Doctor(_)) {
                config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            let no_threads =
                |source| CliError::Io { operation: "start the async runtime".to_owned(), source };
            let requests = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let requests = requests.map_err(no_threads)?;
            // Other commands have no jobs.
            let is_server = matches!(command, RunCommand::Serve | RunCommand::Quickstart(_));
            let jobs = is_server.then(tasks::job_threads).transpose().map_err(no_threads)?;
            config.job_threads = jobs.as_ref().map(|jobs| jobs.handle().clone());
            requests.block_on(execute(command, &config))
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // As with `… | head -1`: who has read enough wants no more.
        Err(CliError::Io { operation, source })
            if operation == STDOUT && source.kind() == ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&problem);
            if matches!(problem, CliError::Usage(_) | CliError::Config(_)) {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// This program, to be started once more. On Linux it is the one that runs, also when its file was replaced
/// by another version since.
fn this_program() -> Option<PathBuf> {
    if cfg!(target_os = "linux") {
        Some(PathBuf::from("/proc/self/exe"))
    } else {
        std::env::current_exe().ok()
    }
}

/// Ends the process as help, version or a usage error do. Who writes `--port`, as many servers have it,
/// is told how it is done here.
fn misused(problem: &clap::Error) -> ! {
    let unknown = problem.get(ContextKind::InvalidArg).map(ToString::to_string);
    // As in `exit`: there is nowhere left to report that stderr is closed.
    let _ = problem.print();
    if unknown.is_some_and(|flag| matches!(flag.as_str(), "--port" | "-p" | "--host")) {
        remark("\n  tip: --listen HOST:PORT sets both, as in --listen 127.0.0.1:9000");
    }
    std::process::exit(problem.exit_code())
}

async fn execute(command: RunCommand, config: &Config) -> Result<(), CliError> {
    match command {
        RunCommand::Serve => serve::serve(config).await,
        RunCommand::Quickstart(quickstart) => quickstart::run(config, &quickstart).await,
        RunCommand::Ingest(files) => ingest::run(config, &files).await,
        RunCommand::Import(folder) => import::run(config, &folder).await,
        RunCommand::Export(folder) => export::run(config, &folder).await,
        RunCommand::Sql(command) => sql::run(config, &command).await,
        RunCommand::Materialize(command) => materialize::run(config, &command).await,
        RunCommand::Tables(command) => admin::tables(config, &command).await,
        RunCommand::Snapshots(command) => admin::snapshots(config, &command).await,
        RunCommand::Collections(command) => collections::collections(config, &command).await,
        RunCommand::Docs(command) => collections::docs(config, &command).await,
        RunCommand::History(command) => collections::history(config, &command).await,
        RunCommand::Diff(command) => collections::diff(config, &command).await,
        RunCommand::Catalog(command) => catalog::run(config, &command).await,
        RunCommand::Branches(command) => branches::run(config, &command).await,
        RunCommand::Tags(command) => tags::run(config, &command).await,
        RunCommand::Token(command) => token::run(config, &command).await,
        RunCommand::DeadLetters(command) => deadletters::run(config, &command).await,
        RunCommand::Webhooks(command) => webhooks::run(config, &command).await,
        RunCommand::Audit(command) => audit::run(config, &command).await,
        RunCommand::Compact(command) => compact::run(config, &command).await,
        RunCommand::Fsck(command) => fsck::run(config, &command).await,
        RunCommand::Jobs(command) => jobs::run(config, &command).await,
        RunCommand::Erase(command) => erase::run(config, &command).await,
        RunCommand::Restore(command) => restore::run(config, &command).await,
        RunCommand::Config(_) => admin::config(config),
        RunCommand::Backup(command) => backup::run(config, &command).await,
        RunCommand::Doctor(command) => doctor::run(config, &command).await,
        RunCommand::Wal(command) => wal::run(config, &command).await,
        RunCommand::Repair(command) => repair::run(config, &command).await,
    }
}

fn load(settings: &GlobalOptions) -> Result<Config, CliError> {
    let mut flags = Vec::new();
    let named = [
        ("listen", &settings.listen),
        ("data_dir", &settings.data_dir),
        ("warehouse", &settings.warehouse),
        ("metastore", &settings.metastore),
        ("token", &settings.token),
    ];
    for (key, value) in named {
        flags.extend(value.clone().map(|value| (key, value)));
    }
    for pair in &settings.set {
        let Some((key, value)) = pair.split_once('=') else {
            let key = beginning_of_key(pair);
            return Err(CliError::Usage(format!("--set `{key}` is not KEY=VALUE")));
        };
        flags.push((key, value.to_owned()));
    }
    Ok(Config::load(settings.config.as_deref(), &flags)?)
}

/// Colours are for terminals: journals and files keep the bytes.
fn log_to_stderr(config: &Config) {
    let options = &config.log;
    let filter = EnvFilter::try_new(&options.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = options.may_colour && std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    match options.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().event_format(json_log::JsonFormat).init(),
    }
}

/// Writes a result to stdout.
///
/// # Errors
/// Nobody reads it any more.
pub fn say(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|source| CliError::Io { operation: STDOUT.to_owned(), source })
}

/// `1 event`, `2 events`.
fn counted(count: u64, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

/// Writes a line for a person to stderr.
fn remark(text: &str) {
    // There is nowhere left to report that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes an error and its causes to stderr.
fn complain(problem: &dyn std::error::Error) {
    remark(&format!("icecore: {}", with_causes(problem)));
}
