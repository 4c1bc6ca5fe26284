//! `icecore backup`: make a backup, list and verify backups, restore one, let go of one.

use crate::{
    cli::{
        CliError,
        admin::{aligned, time},
        client::ServerClient,
        say,
    },
    config::Config,
    server::{
        backup::{
            self, BackupManifest, CopyMode,
            create::{self, BackupCreation},
            place::BackupPlace,
            restore,
        },
        open_metastore,
    },
};
use clap::Subcommand;
use icecore_catalog::metastore::backups;
use icecore_lake::{clock::Clock, ids::IdGenerator};
use icecore_schemas::tables::CommitAllReply;
use reqwest::Method;
use serde_json::json;

/// Commits everything that was acknowledged.
const COMMIT: &str = "/admin/commit";

/// `icecore backup …`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Create a backup in a new location, whether the server runs or not
    Create {
        /// A folder, or s3://bucket/prefix
        place: String,
        /// The running server, http://host:port
        #[arg(long)]
        url: Option<String>,
        /// Copy data files instead of linking them or leaving them in their bucket
        #[arg(long)]
        copy: bool,
        /// Only count the files of the warehouse that are needed
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the backups that were started, or those at a location
    List {
        /// A folder, or s3://bucket/prefix: the backup there, or those one level below
        place: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restore a backup to a new data folder, warehouse and metastore
    Restore {
        /// The backup: a folder, or s3://bucket/prefix
        place: String,
        /// Only check every file of the backup
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Release the files that a backup keeps from deletion; its own files stay
    Forget {
        /// Its id or its location, as `list` shows them
        backup: String,
        /// Only say whether the backup exists
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Backup`], [`CliError::Client`], [`CliError::Refused`].
pub async fn run(config: &Config, command: &BackupCommand) -> Result<(), CliError> {
    let clock = Clock::system();
    match command {
        BackupCommand::Create { dry_run: true, json, .. } => {
            let (files, bytes) = create::plan(config).await?;
            say(&if *json {
                json!({ "files": files, "bytes": bytes }).to_string()
            } else {
                format!("{files} files of the warehouse, {bytes} bytes; nothing was written")
            })
        }
        BackupCommand::Create { place, url, copy, dry_run: false, json } => {
            let place = BackupPlace::parse(place, &config.s3)?;
            create::check_place(config, &place).await?;
            let files = if *copy { CopyMode::Copied } else { CopyMode::Linked };
            let id = IdGenerator::new(clock.clone()).mint().to_string();
            let now_ms = clock.now_ms();
            let client = ServerClient::new(config, url.as_deref());
            if url.is_some() || create::is_running(config).await? {
                // Who may not ask for that leaves nothing of a backup behind.
                let CommitAllReply { .. } = client.read(Method::POST, COMMIT, None).await?;
            }
            let creation = BackupCreation::begin(config, place, url.is_some(), id, now_ms).await?;
            if creation.is_running() {
                // Everything that was acknowledged before this answer is in tables after it.
                let CommitAllReply { .. } = client.read(Method::POST, COMMIT, None).await?;
            }
            let backup = creation.finish(files, || clock.now_ms()).await?;
            print_backup(&backup, "made", *json)
        }
        BackupCommand::List { place: None, json } => list(config, *json).await,
        BackupCommand::List { place: Some(place), json } => list_at(config, place, *json).await,
        BackupCommand::Restore { place, dry_run, json } => {
            let place = BackupPlace::parse(place, &config.s3)?;
            if *dry_run {
                return print_backup(
                    &restore::verify(config, &place).await?,
                    "complete; nothing was written",
                    *json,
                );
            }
            print_backup(
                &restore::restore(config, &place, clock.now_ms()).await?,
                "restored",
                *json,
            )
        }
        BackupCommand::Forget { backup, dry_run, json } => {
            forget(config, backup, *dry_run, *json).await
        }
    }
}

async fn forget(config: &Config, named: &str, dry_run: bool, json: bool) -> Result<(), CliError> {
    let metastore = open_metastore(config).await?;
    let place = BackupPlace::parse(named, &config.s3)?.name();
    let mut known = metastore.backups().await?;
    known.retain(|backup| backup.id == named || backup.place == named || backup.place == place);
    if known.is_empty() {
        return Err(CliError::Refused(format!(
            "there is no backup `{named}`; `icecore backup list` lists them"
        )));
    }
    let ids: Vec<&str> = known.iter().map(|backup| backup.id.as_str()).collect();
    if !dry_run {
        for id in &ids {
            create::remove_scratch(config, id)?;
            metastore.forget_backup(id).await?;
        }
    }
    let done = if dry_run { "would be forgotten" } else { "is forgotten" };
    say(&match json {
        true => json!({ "ids": ids, "forgotten": !dry_run }).to_string(),
        false => format!("backup {} {done}; remove its files yourself", ids.join(", ")),
    })
}

fn print_backup(backup: &BackupManifest, done: &str, json: bool) -> Result<(), CliError> {
    let (files, objects, bytes) = (backup.files.len(), backup.objects.len(), backup.bytes());
    if json {
        return say(&json!({
            "id": backup.id,
            "begun_ms": backup.begun_ms,
            "ended_ms": backup.ended_ms,
            "warehouse": backup.warehouse,
            "has_log": backup.has_log,
            "files": files,
            "objects": objects,
            "bytes": bytes,
        })
        .to_string());
    }
    let id = &backup.id;
    say(&format!("backup {id}: {files} files, {objects} objects, {bytes} bytes; {done}"))
}

/// What a row of a list says.
struct BackupLine {
    id: Option<String>,
    place: String,
    is_whole: bool,
    begun_ms: Option<i64>,
    ended_ms: Option<i64>,
    files: u64,
    bytes: u64,
    holds: bool,
}

/// The backups that the metastore knows of.
async fn list(config: &Config, json: bool) -> Result<(), CliError> {
    let backups = open_metastore(config).await?.backups().await?.into_iter();
    let row = |backup: backups::Backup| BackupLine {
        id: Some(backup.id),
        place: backup.place,
        is_whole: backup.ended_ms.is_some(),
        begun_ms: Some(backup.begun_ms),
        ended_ms: backup.ended_ms,
        files: backup.files,
        bytes: backup.bytes,
        holds: backup.holds,
    };
    say_rows(&backups.map(row).collect::<Vec<_>>(), json)
}

/// The backups that lie at a place, whoever made them.
async fn list_at(config: &Config, place: &str, json: bool) -> Result<(), CliError> {
    let listed = backup::list(&BackupPlace::parse(place, &config.s3)?, &config.s3).await?;
    let row = |listed: backup::BackupEntry| {
        let (place, found) = (listed.place, listed.backup.as_ref());
        BackupLine {
            id: found.map(|found| found.id.clone()),
            place,
            is_whole: found.is_some(),
            begun_ms: found.map(|found| found.begun_ms),
            ended_ms: found.map(|found| found.ended_ms),
            files: found.map_or(0, |found| (found.files.len() + found.objects.len()) as u64),
            bytes: found.map_or(0, BackupManifest::bytes),
            holds: found.is_some_and(|found| !found.objects.is_empty()),
        }
    };
    say_rows(&listed.into_iter().map(row).collect::<Vec<_>>(), json)
}

fn say_rows(rows: &[BackupLine], json: bool) -> Result<(), CliError> {
    let state = |row: &BackupLine| if row.is_whole { "whole" } else { "incomplete" };
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "id": row.id,
                    "place": row.place,
                    "state": state(row),
                    "begun_ms": row.begun_ms,
                    "ended_ms": row.ended_ms,
                    "files": row.files,
                    "bytes": row.bytes,
                    "holds": row.holds,
                })
            })
            .collect();
        return say(&json!({ "backups": rows }).to_string());
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.id.clone().unwrap_or_default(),
                state(row).to_owned(),
                row.begun_ms.map(time).unwrap_or_default(),
                row.files.to_string(),
                row.bytes.to_string(),
                if row.holds { "yes" } else { "no" }.to_owned(),
                row.place.clone(),
            ]
        })
        .collect();
    say(&aligned(&["id", "state", "begun", "files", "bytes", "holds files", "place"], &rows))
}
