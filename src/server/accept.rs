//! An operator says that rows which are nowhere are lost, so that the server goes on.
//!
//! Its one invariant: no id of a row that was given up is known afterwards, so that an event which
//! is sent again is taken; and no `seq` of one is given again.

use crate::{
    config::Config,
    maintenance::fsck::LostNumbers,
    server::{
        StartError,
        claim::{self, marks_path, remove_ids},
        make_data_folder, metadata_watch, open_metastore,
        stopped::{StoppedStores, existing_catalog},
        stores::{CatalogState, LogTrouble, MetastoreTrouble, MissingRows, StoreFindings},
    },
};
use icecore_lake::{
    blocking::blocking,
    clock::Clock,
    wal::marks::{NotedMarks, RowMark},
};
use icecore_schemas::names::Namespace;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What is noted of losses that an operator accepted, by this and other commands.
const LOSSES: &str = "accepted-losses.ndjson";

/// Which rows are given up.
#[derive(Clone, Debug)]
pub enum LossScope {
    /// All that are missing, and what an older metastore does not know.
    All,
    /// The missing ones of one namespace, or of each, where none is above this `seq`.
    Through {
        /// Of which namespace; none is each.
        namespace: Option<Namespace>,
        /// The highest `seq`.
        seq: u64,
    },
}

/// What was, or would be, given up.
#[derive(Debug)]
pub struct LossReport {
    /// Rows that are given up.
    pub given: Vec<MissingRows>,
    /// Rows that are missing and not given up: the server takes no events until they are.
    pub left: Vec<MissingRows>,
    /// Whether the metastore is taken as it is.
    pub metastore: Option<MetastoreTrouble>,
    /// Where another server's log is now that was in this server's folder.
    pub aside: Option<PathBuf>,
    /// What the warehouse lacks, which is not given up here, and what to do.
    pub warehouse: Option<String>,
}

/// Gives up what is asked for. No server may have the folder open. `is_dry` changes nothing.
///
/// # Errors
/// [`StartError`]; the command may be given again.
pub async fn accept_loss(
    config: &Config,
    clock: &Clock,
    given: &LossScope,
    is_dry: bool,
) -> Result<LossReport, StartError> {
    make_data_folder(config)?;
    let folder = claim::take(config).await?;
    let metastore = open_metastore(config).await?;
    let catalog = existing_catalog(config, &metastore, clock).await?;
    let (log, records) = (folder.log(), folder.records()?);
    let StoppedStores { mut noted, known, findings, .. } =
        StoppedStores::compare(config, log, &records, &metastore, catalog.as_ref()).await?;
    let warehouse = metadata_watch::lacking(&metastore, catalog.as_ref()).await?;
    metastore.close().await;
    let mut accepted = LossReport { warehouse, ..choose(&findings, given) };
    let is_foreign = matches!(findings.log, Some(LogTrouble::Foreign(_)));
    let sets_aside = is_foreign && accepted.left.is_empty();
    let is_nothing = accepted.given.is_empty() && accepted.metastore.is_none() && !sets_aside;
    if is_dry || is_nothing {
        return Ok(accepted);
    }
    write_down(&config.data_dir, clock, &accepted)
        .map_err(|source| StartError::DataFolder { path: config.data_dir.clone(), source })?;
    if sets_aside {
        accepted.aside = blocking(move || folder.set_aside()).await?.1;
    }
    // Before the rows count as given up: a start in between reads the ids of what is there, and
    // still takes no events.
    remove_ids(config).await?;
    give_up(&mut noted, &known, &accepted, log);
    blocking({
        let path = marks_path(config);
        move || noted.write(&path)
    })
    .await?;
    Ok(accepted)
}

/// What of the findings is given up, and what is left.
fn choose(findings: &StoreFindings, given: &LossScope) -> LossReport {
    let is_given = |missing: &MissingRows| match given {
        LossScope::All => true,
        LossScope::Through { namespace, seq } => {
            missing.last <= *seq && namespace.as_ref().is_none_or(|of| *of == missing.namespace)
        }
    };
    let (given_up, left): (Vec<_>, Vec<_>) = findings.missing.iter().cloned().partition(is_given);
    // With its last row what an older metastore lacks is given up as well; without any it takes the
    // word for all.
    let is_all = matches!(given, LossScope::All) || (!given_up.is_empty() && left.is_empty());
    let metastore = findings.metastore.filter(|_| is_all);
    LossReport { given: given_up, left, metastore, aside: None, warehouse: None }
}

fn give_up(noted: &mut NotedMarks, known: &CatalogState, accepted: &LossReport, log: uuid::Uuid) {
    if noted.log.is_nil() {
        noted.log = log;
    }
    for MissingRows { namespace, kind, last, .. } in &accepted.given {
        let marks = noted.tables.entry((*kind, namespace.clone())).or_default();
        marks.accepted = marks.accepted.max(*last);
        marks.acknowledged.seq = marks.acknowledged.seq.max(*last);
    }
    if accepted.metastore.is_some() {
        noted.metastore = Some(known.metastore);
        for (key, marks) in &mut noted.tables {
            // What it does not have is in the log, or was given up.
            let table = known.tables.get(key).copied().unwrap_or_default();
            marks.committed = RowMark::min(marks.committed, table);
        }
    }
}

/// Notes what is given up, in a file for people. How many lines it has is part of what materialised tables and
/// those of collections are of.
fn write_down(folder: &Path, clock: &Clock, accepted: &LossReport) -> io::Result<()> {
    let mut line = serde_json::to_value(LossAnswer::of(accepted)).map_err(io::Error::from)?;
    line["at_ms"] = json!(clock.now_ms());
    note_loss(folder, &line)
}

/// Adds a line to the file of losses. It is on the disk on return.
pub(super) fn note_loss(folder: &Path, line: &serde_json::Value) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(folder.join(LOSSES))?;
    writeln!(file, "{line}")?;
    file.sync_all()
}

/// How many losses are noted. One whose command was killed before the loss counts, too.
pub(super) fn losses(folder: &Path) -> io::Result<u64> {
    match fs::read(folder.join(LOSSES)) {
        Ok(bytes) => Ok(bytes.iter().filter(|byte| **byte == b'\n').count() as u64),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(cause) => Err(cause),
    }
}

/// The numbers of the rows that the file of losses names: given up, or lost when a table was moved back. A line
/// that does not read names none: what it stands for is then told as unknown.
pub(super) fn lost_numbers(folder: &Path) -> io::Result<Vec<LostNumbers>> {
    let text = match fs::read_to_string(folder.join(LOSSES)) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.flat_map(|line| lost_in(&line)).collect())
}

fn lost_in(line: &Value) -> Vec<LostNumbers> {
    let lost = |table: String, of: &Value| {
        let range = (of["first"].as_u64()?, of["last"].as_u64()?);
        Some(LostNumbers { table, range })
    };
    let given = line["given_up"].as_array().into_iter().flatten().filter_map(|of| {
        let namespace = Namespace::parse(of["ns"].as_str()?).ok()?;
        lost(format!("{}.{}", namespace.name(), of["table"].as_str()?), of)
    });
    let moved = line["moved_back"]["table"].as_str();
    let moved = moved.and_then(|table| lost(table.to_owned(), &line["lost"]));
    given.chain(moved).collect()
}

/// The same for people and programs.
#[derive(Debug, Serialize)]
pub struct LossAnswer {
    given_up: Vec<MissingAnswer>,
    still_missing: Vec<MissingAnswer>,
    metastore_taken_as_it_is: bool,
    log_set_aside: Option<PathBuf>,
    warehouse_lacks: Option<String>,
}

#[derive(Debug, Serialize)]
struct MissingAnswer {
    ns: String,
    table: &'static str,
    first: u64,
    last: u64,
}

impl LossAnswer {
    /// What is to be told of it.
    #[must_use]
    pub fn of(accepted: &LossReport) -> Self {
        let told = |missing: &MissingRows| MissingAnswer {
            ns: missing.namespace.text().to_owned(),
            table: missing.kind.table_name().unwrap_or("?"),
            first: missing.first,
            last: missing.last,
        };
        Self {
            given_up: accepted.given.iter().map(told).collect(),
            still_missing: accepted.left.iter().map(told).collect(),
            metastore_taken_as_it_is: accepted.metastore.is_some(),
            log_set_aside: accepted.aside.clone(),
            warehouse_lacks: accepted.warehouse.clone(),
        }
    }

    /// As text, a line each.
    #[must_use]
    pub fn text(&self, is_dry: bool) -> String {
        let line = |missing: &MissingAnswer| {
            let MissingAnswer { ns, table, first, last } = missing;
            format!("  namespace {ns}, table {table}: {first}..{last}")
        };
        let mut lines = Vec::new();
        if self.given_up.is_empty()
            && self.still_missing.is_empty()
            && !self.metastore_taken_as_it_is
            && self.warehouse_lacks.is_none()
        {
            lines.push("nothing is missing, so there is nothing to give up".to_owned());
        }
        if !self.given_up.is_empty() {
            let would = if is_dry { "would be given up" } else { "given up" };
            lines.push(format!("{would}; send these events again if you have them:"));
            lines.extend(self.given_up.iter().map(line));
        }
        if self.metastore_taken_as_it_is {
            let would = if is_dry { "would be taken" } else { "is taken" };
            lines.push(format!("the metastore {would} as it is"));
        }
        if !self.still_missing.is_empty() {
            lines.push("still missing, and blocking new events:".to_owned());
            lines.extend(self.still_missing.iter().map(line));
        }
        if let Some(aside) = &self.log_set_aside {
            lines.push(format!("the other server's log was set aside in {}", aside.display()));
        }
        lines.extend(self.warehouse_lacks.clone());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_of_the_lines_of_both_commands() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lost_numbers(folder.path()).unwrap().is_empty());
        let given = json!({"given_up": [
            {"ns": "shop.example", "table": "events", "first": 51, "last": 80},
        ]});
        let moved = json!({
            "moved_back": {"table": "a.events", "snapshot": 1}, "lost": {"first": 3, "last": 4},
        });
        for line in [given, json!({}), json!("torn"), moved] {
            note_loss(folder.path(), &line).unwrap();
        }
        let expected = [("shop_example.events", (51, 80)), ("a.events", (3, 4))];
        let expected =
            expected.map(|(table, range)| LostNumbers { table: table.to_owned(), range });
        assert_eq!(lost_numbers(folder.path()).unwrap(), expected);
    }
}
