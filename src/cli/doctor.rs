//! `icecore doctor`: whether a server could run with these settings, and what is in the way.
//!
//! Each check says one line. Nothing is changed: files that are made to try something are removed.

use crate::{
    cli::{CliError, client::ServerClient, say},
    config::{Config, MetastoreUrl},
    server::{self, StartError},
};
use clap::Args;
use icecore_catalog::{error::with_causes, storage::Storage};
use icecore_lake::{clock::Clock, ids::IdGenerator, wal::WalError};
use icecore_schemas::version::Version;
use reqwest::Method;
use serde_json::json;
use std::{
    error::Error,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

/// The clock is held to be set when it is after this: 2025-01-01.
const CLOCK_MIN_MS: i64 = 1_735_689_600_000;

/// How long a server at the address is waited for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// `icecore doctor`
#[derive(Debug, Args)]
pub struct DoctorCommand {
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// What a check found.
struct DoctorFinding {
    check: &'static str,
    /// What is there, or what is in the way and what to do.
    outcome: Result<String, String>,
    /// Whether what is there is no good, and stops nothing.
    is_warning: bool,
}

impl DoctorFinding {
    fn new(check: &'static str, outcome: Result<String, String>) -> Self {
        Self { check, outcome, is_warning: false }
    }
}

/// What is known of a server that has the log open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogUse {
    /// Nobody has it open.
    Free,
    /// A server has.
    Taken,
    /// It was not looked at.
    Unknown,
}

/// Prints what every check found.
///
/// # Errors
/// [`CliError::Refused`] when something is in the way.
pub async fn run(config: &Config, command: &DoctorCommand) -> Result<(), CliError> {
    let ids = IdGenerator::new(Clock::system());
    let places = [
        DoctorFinding::new("data folder", data_folder(config, &ids)),
        disk(config),
        DoctorFinding::new("metastore", metastore(config).await),
        DoctorFinding::new("warehouse", warehouse(config, &ids).await),
    ];
    let (stores, log) = match places.iter().all(|finding| finding.outcome.is_ok()) {
        true => stores(config).await,
        false => {
            let text = "not compared, because one of them cannot be used";
            (Ok(text.to_owned()), LogUse::Unknown)
        }
    };
    let mut findings = vec![settings(config), DoctorFinding::new("clock", clock())];
    findings.extend(places);
    findings.push(DoctorFinding::new("stores", stores));
    findings.push(DoctorFinding::new("address", address(config, log).await));
    show(&findings, command.json)
}

fn show(findings: &[DoctorFinding], as_json: bool) -> Result<(), CliError> {
    let failed = findings.iter().filter(|finding| finding.outcome.is_err()).count();
    if as_json {
        let checks: Vec<_> = findings
            .iter()
            .map(|DoctorFinding { check, outcome, is_warning }| {
                let text = outcome.as_ref().unwrap_or_else(|text| text);
                json!({ "check": check, "ok": outcome.is_ok(), "warning": is_warning, "text": text })
            })
            .collect();
        say(&json!({ "ok": failed == 0, "checks": checks }).to_string())?;
    } else {
        for DoctorFinding { check, outcome, is_warning } in findings {
            let (mark, text) = match outcome {
                Ok(text) if *is_warning => ("WARN", text),
                Ok(text) => ("ok  ", text),
                Err(text) => ("FAIL", text),
            };
            say(&format!("{mark}  {check:<12}  {text}"))?;
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(CliError::Refused("1 check failed".to_owned())),
        more => Err(CliError::Refused(format!("{more} checks failed"))),
    }
}

/// Wrong settings end every command before it begins, so only warnings are left.
fn settings(config: &Config) -> DoctorFinding {
    let text = match config.warnings.is_empty() {
        true => "valid; `icecore config` lists them".to_owned(),
        false => config.warnings.join("; "),
    };
    let is_warning = !config.warnings.is_empty();
    DoctorFinding { is_warning, ..DoctorFinding::new("settings", Ok(text)) }
}

fn clock() -> Result<String, String> {
    let now_ms = Clock::system().now_ms();
    let now = super::admin::time(now_ms);
    if now_ms < CLOCK_MIN_MS {
        return Err(format!("it shows {now}; set it, because it dates events and snapshots"));
    }
    Ok(now)
}

fn data_folder(config: &Config, ids: &IdGenerator) -> Result<String, String> {
    let folder = &config.data_dir;
    let shown = folder.display();
    if folder.exists() && !folder.is_dir() {
        return Err(format!("`{shown}` is a file, not a folder; name another with --data-dir"));
    }
    server::backup::restore::check_finished(folder).map_err(|cause| cause.to_string())?;
    try_to_write(folder, ids)?;
    Ok(if folder.is_dir() { format!("{shown}") } else { format!("{shown}, will be created") })
}

/// Tries the folder, or the nearest one above that is there.
fn try_to_write(folder: &Path, ids: &IdGenerator) -> Result<(), String> {
    let place = existing(folder);
    let probe = place.join(format!(".icecore-probe-{}", ids.mint()));
    let tried = std::fs::write(&probe, "x").and_then(|()| std::fs::remove_file(&probe));
    tried.map_err(|cause| format!("`{}` cannot be written: {cause}", place.display()))
}

/// Small files are merged only while the disk of a local warehouse has room for it.
fn disk(config: &Config) -> DoctorFinding {
    let outcome = disk_of_log(config);
    let folder = config.warehouse.strip_prefix("file://").filter(|_| config.compaction.enabled);
    let bytes = folder.and_then(|folder| bytes_of_disk(Path::new(folder)).ok());
    let lack = bytes.and_then(|(free, all)| server::lacks_room_to_merge(config, free, all));
    match (outcome, lack) {
        (Ok(text), Some(reason)) => {
            let text = format!("{text}; small files are not merged: {reason}");
            DoctorFinding { is_warning: true, ..DoctorFinding::new("disk", Ok(text)) }
        }
        (outcome, _) => DoctorFinding::new("disk", outcome),
    }
}

/// The free and all bytes of the disk that a folder is on, or will be.
fn bytes_of_disk(folder: &Path) -> Result<(u64, u64), String> {
    let place = existing(folder);
    let found = rustix::fs::statvfs(&place)
        .map_err(|cause| format!("cannot read the free space of `{}`: {cause}", place.display()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

/// The log makes a segment first, and leaves a share of its disk to those who drain it.
fn disk_of_log(config: &Config) -> Result<String, String> {
    let (free, all) = bytes_of_disk(&config.data_dir)?;
    let needed = (all as f64 * config.wal_disk_free_min) as u64 + config.wal_segment_bytes;
    let mib = |bytes: u64| bytes >> 20;
    if free < needed {
        return Err(format!(
            "{} of {} MiB are free and {} are needed: one wal.segment_bytes above the share wal.disk_free_min",
            mib(free),
            mib(all),
            mib(needed)
        ));
    }
    Ok(format!("{} of {} MiB free", mib(free), mib(all)))
}

/// Opened only where it is: a file that is not there is made by the first start.
async fn metastore(config: &Config) -> Result<String, String> {
    if let MetastoreUrl::Sqlite(path) = &config.metastore
        && server::is_missing(path)
    {
        return Ok(format!("{}, will be created", config.metastore));
    }
    match server::open_metastore(config).await {
        Ok(_) => Ok(config.metastore.to_string()),
        Err(cause) => Err(format!("{}: {}", config.metastore, last_cause(&cause))),
    }
}

async fn warehouse(config: &Config, ids: &IdGenerator) -> Result<String, String> {
    if let Some(folder) = config.warehouse.strip_prefix("file://")
        && !Path::new(folder).exists()
    {
        try_to_write(Path::new(folder), ids)?;
        return Ok(format!("{}, will be created", config.warehouse));
    }
    let storage = Storage::open(&config.warehouse, &config.s3)
        .map_err(|cause| format!("{}: {}", config.warehouse, last_cause(&cause)))?;
    let name = format!(".icecore-probe-{}", ids.mint());
    storage.probe(&name).await.map_err(|failure| failure.reason)?;
    Ok(format!("{}: written, read and deleted", config.warehouse))
}

/// What a start would find. A server that runs has found it.
async fn stores(config: &Config) -> (Result<String, String>, LogUse) {
    match server::stopped::obstacles(config, &Clock::system()).await {
        Ok(obstacles) if obstacles.is_empty() => (Ok("agree".to_owned()), LogUse::Free),
        Ok(obstacles) => (Err(obstacles.join("; ")), LogUse::Free),
        Err(StartError::Wal(WalError::InUse { .. }))
            if TcpListener::bind(config.listen).is_err() =>
        {
            let text = "in use by a server, whose /readyz says whether they agree";
            (Ok(text.to_owned()), LogUse::Taken)
        }
        Err(cause) => (Err(with_causes(&cause)), LogUse::Unknown),
    }
}

/// A server at the address is the one that has the log open, where one has.
async fn address(config: &Config, log: LogUse) -> Result<String, String> {
    let Err(taken) = TcpListener::bind(config.listen) else {
        return Ok(format!("{} is free", config.listen));
    };
    let client = ServerClient::new(config, None);
    let answer = client.read::<Version>(Method::GET, "/version", None);
    let answer = tokio::time::timeout(ANSWER_WAIT_MAX, answer).await.ok().and_then(Result::ok);
    match answer.filter(|answer| answer.name == "icecore") {
        Some(answer) if log == LogUse::Free => Err(format!(
            "{}: icecore {} runs there with another data folder; choose another with --listen",
            config.listen, answer.version
        )),
        Some(answer) => Ok(format!("icecore {} runs at {}", answer.version, config.listen)),
        None => Err(format!("{}: {taken}; choose another with --listen", config.listen)),
    }
}

/// The nearest folder above that is there.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|place| place.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn last_cause(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
