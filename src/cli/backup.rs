//! `icecore backup`: make a backup, list and verify backups, restore one, let go of one.

use crate::{
    cli::{
        CliError,
        admin::{aligned, time},
        client::Client,
        say,
    },
    clock::Clock,
    config::Config,
    ids::Ids,
    server::{
        backup::{
            Backup,
            create::{self, Creation, Files},
            restore,
        },
        open_metastore,
    },
};
use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;

/// `icecore backup …`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup in a new folder, while the server runs or not
    Create {
        /// The folder
        folder: PathBuf,
        /// The running server, http://host:port
        #[arg(long)]
        url: Option<String>,
        /// Copy data files instead of linking them where the file system can
        #[arg(long)]
        copy: bool,
        /// Count the files of the warehouse that are needed and write nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the backups that were begun
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the data folder of --data-dir, which is new, out of a backup
    Restore {
        /// The backup
        folder: PathBuf,
        /// Look at every file of the backup and write nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let go of what a backup keeps from deletion; its folder stays
    Forget {
        /// Its name, as `list` has it
        id: String,
        /// Say whether there is such a backup and change nothing
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
        BackupCommand::Create { folder, url, copy, dry_run: false, json } => {
            let files = if *copy { Files::Copied } else { Files::Linked };
            let id = Ids::new(clock.clone()).mint().to_string();
            let creation = Creation::begin(config, folder, (id, clock.now_ms())).await?;
            if creation.is_running() {
                // Everything that was acknowledged before this answer is in tables after it.
                let client = Client::new(config, url.as_deref());
                client.json(Method::POST, "/admin/commit", None).await?;
            }
            let backup = creation.finish(files, || clock.now_ms()).await?;
            told(&backup, "made", *json)
        }
        BackupCommand::List { json } => list(config, *json).await,
        BackupCommand::Restore { folder, dry_run: true, json } => {
            told(&restore::verify(config, folder).await?, "whole; nothing was written", *json)
        }
        BackupCommand::Restore { folder, dry_run: false, json } => {
            told(&restore::restore(config, folder, clock.now_ms()).await?, "restored", *json)
        }
        BackupCommand::Forget { id, dry_run, json } => forget(config, id, *dry_run, *json).await,
    }
}

async fn forget(config: &Config, id: &str, dry_run: bool, json: bool) -> Result<(), CliError> {
    let metastore = open_metastore(config).await?;
    let is_there = match dry_run {
        true => metastore.backups().await?.iter().any(|backup| backup.id == id),
        false => metastore.forget_backup(id).await?,
    };
    if !is_there {
        return Err(CliError::Refused(format!(
            "there is no backup `{id}`; `icecore backup list` lists them"
        )));
    }
    let done = if dry_run { "would be forgotten" } else { "is forgotten" };
    say(&match json {
        true => json!({ "id": id, "forgotten": !dry_run }).to_string(),
        false => format!("backup {id} {done}; its folder is yours to remove"),
    })
}

fn told(backup: &Backup, done: &str, json: bool) -> Result<(), CliError> {
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

async fn list(config: &Config, json: bool) -> Result<(), CliError> {
    let backups = open_metastore(config).await?.backups().await?;
    let state = |ended_ms: Option<i64>| if ended_ms.is_some() { "whole" } else { "incomplete" };
    if json {
        let rows: Vec<_> = backups
            .iter()
            .map(|backup| {
                json!({
                    "id": backup.id,
                    "place": backup.place,
                    "state": state(backup.ended_ms),
                    "begun_ms": backup.begun_ms,
                    "ended_ms": backup.ended_ms,
                    "files": backup.files,
                    "bytes": backup.bytes,
                    "holds": backup.holds,
                })
            })
            .collect();
        return say(&json!({ "backups": rows }).to_string());
    }
    let rows: Vec<Vec<String>> = backups
        .iter()
        .map(|backup| {
            vec![
                backup.id.clone(),
                state(backup.ended_ms).to_owned(),
                time(&json!(backup.begun_ms)),
                backup.files.to_string(),
                backup.bytes.to_string(),
                if backup.holds { "yes" } else { "no" }.to_owned(),
                backup.place.clone(),
            ]
        })
        .collect();
    say(&aligned(&["id", "state", "begun", "files", "bytes", "holds files", "place"], &rows))
}
