//! A table that lost a file, moved back to its last whole snapshot.
//!
//! The rows that leave it with that come again from the log as far as the log still has them. Its one
//! invariant: the mark goes back only to before records of which the table keeps no row, in the transaction
//! that moves `main`; so a row is never in the table twice, and none is lost without being named.

use crate::{
    config::Config,
    owner::LogOwner,
    server::{
        StartError,
        accept::note_loss,
        backup,
        claim::{marks_path, remove_ids},
        is_missing, open_metastore,
        repair::{ACTOR, LocalLog, fail_at, last_of},
        stopped::existing_catalog,
    },
};
use icecore_catalog::{
    catalog::{
        Catalog, LoadedTable,
        recovery::{DamagedSnapshot, SnapshotChoice},
    },
    commit::LAST_SEQ,
    error::CatalogError,
    metastore::Watermark,
};
use icecore_lake::{
    blocking::blocking,
    clock::Clock,
    table::schema::{TableIdent, foreign_ident},
    wal::{
        RecordRef,
        marks::{NotedMarks, RowMark},
    },
};
use icecore_schemas::{
    names::Namespace,
    service_table::{RecordKind, known_tables},
};
use serde::Serialize;
use serde_json::json;
use std::{io, path::Path};

/// Snapshot summary: how many rows the table has.
const ROWS: &str = "total-records";

/// Which table is moved back, and how.
#[derive(Clone, Debug)]
pub struct TableRepair {
    /// The table, as `namespace.table`.
    pub table: String,
    /// To which snapshot; without one to the newest that is whole.
    pub to: Option<i64>,
    /// Reads everything and changes nothing.
    pub is_dry: bool,
}

/// What was, or would be, moved back.
#[derive(Debug, Serialize)]
pub struct TableReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The table.
    pub table: String,
    /// The snapshot that `main` was at.
    pub from: Option<i64>,
    /// The snapshot that `main` is at.
    pub to: Option<i64>,
    /// What the snapshots after it lack, the newest first.
    pub damaged: Vec<DamageAnswer>,
    /// How many rows the table had, as its summary says, and how many it has.
    pub rows: Option<(u64, u64)>,
    /// First and last `seq` of the rows that the next start lands again from the log.
    pub relanded: Option<(u64, u64)>,
    /// First and last `seq` between which acknowledged rows are no longer in the table.
    pub lost: Option<(u64, u64)>,
}

/// A snapshot that lacks something.
#[derive(Debug, Serialize)]
pub struct DamageAnswer {
    /// Its id.
    pub snapshot_id: i64,
    /// What is wrong with it.
    pub damage: String,
}

/// How far the log's rows are in a table, before and after.
struct SeqLoss {
    kind: RecordKind,
    namespace: Namespace,
    /// The last row that the whole snapshot has.
    kept: u64,
    /// The last one that the table had.
    had: u64,
    /// The first one that comes again; above all where none does.
    again: u64,
    /// The mark that the table gets, where rows come again.
    mark: Option<Watermark>,
}

/// Moves a table back. No server may have the folder open.
///
/// # Errors
/// [`StartError`]; the table is as it was, and the command may be given again.
pub async fn repair_table(
    config: &Config,
    clock: &Clock,
    repair: &TableRepair,
) -> Result<TableReport, StartError> {
    let unfinished = backup::restore::check_finished(&config.data_dir);
    unfinished.map_err(|cause| StartError::Unfinished(cause.to_string()))?;
    if is_missing(&config.data_dir) {
        let text =
            format!("there is no data folder `{}`: set --data-dir", config.data_dir.display());
        return Err(CatalogError::Invalid(text).into());
    }
    let local = LocalLog::take(config, repair.is_dry).await?;
    let metastore = open_metastore(config).await?;
    let Some(catalog) = existing_catalog(config, &metastore, clock).await? else {
        let text = format!("there is no warehouse at `{}`: set --warehouse", config.warehouse);
        return Err(CatalogError::Invalid(text).into());
    };
    let catalog = catalog.on_behalf_of(ACTOR);
    let report = Box::pin(move_back(config, clock, repair, &catalog, &local)).await;
    metastore.close().await;
    report
}

async fn move_back(
    config: &Config,
    clock: &Clock,
    repair: &TableRepair,
    catalog: &Catalog,
    local: &LocalLog,
) -> Result<TableReport, StartError> {
    let (ident, base) = load(catalog, &repair.table).await?;
    let metadata = &base.metadata;
    let choice = catalog.recovery().last_whole(metadata, repair.to).await?;
    let from = metadata.current_snapshot_id();
    let mut report = TableReport::of(&ident, from, &choice, repair.is_dry);
    let Some(to) = choice.whole else {
        if from.is_none() {
            return Ok(report);
        }
        let damage = choice.damaged.first().map_or("", |first| first.damage.as_str());
        return Err(CatalogError::Invalid(format!(
            "no snapshot of {ident} that may be gone back to is whole, the newest lacks: {damage}. \
             Restore the files from a backup, or name another snapshot with --to"
        ))
        .into());
    };
    if from == Some(to) {
        return Ok(report);
    }
    report.rows = rows_at(&base, from).zip(rows_at(&base, Some(to)));
    let loss = SeqLoss::of(catalog, &base, &ident, to, local).await?;
    if let Some(loss) = &loss {
        let range = |first: u64, last: u64| (first <= last).then_some((first, last));
        report.relanded = range(loss.again, loss.had);
        report.lost = range(loss.kept + 1, loss.again - 1);
    }
    if repair.is_dry {
        return Ok(report);
    }
    fail_at(config, "repair.before_note")?;
    let mark = loss.as_ref().and_then(|loss| loss.mark);
    if let (Some(loss), Some(mark)) = (&loss, mark) {
        // Before the mark goes back: what is noted claims no more than the table has.
        note_back(config, loss, mark).await?;
    }
    if let Some((first, last)) = report.lost {
        write_down(&config.data_dir, clock, &ident, to, (first, last))
            .map_err(|source| StartError::DataFolder { path: config.data_dir.clone(), source })?;
        // The next start reads the ids of what is there, so that lost events are taken when they are sent
        // again.
        remove_ids(config).await?;
    }
    fail_at(config, "repair.before_move")?;
    catalog.recovery().move_back(&ident, base, to, mark).await?;
    fail_at(config, "repair.after_move")?;
    Ok(report)
}

/// The table that a text names: with the text of a namespace of events, or with the levels of another one.
async fn load(catalog: &Catalog, text: &str) -> Result<(TableIdent, LoadedTable), StartError> {
    let unnamed = || CatalogError::Invalid(format!("`{text}` is not NAMESPACE.TABLE"));
    let (namespace, name) = text.rsplit_once('.').ok_or_else(unnamed)?;
    let named = Namespace::parse(namespace).ok().map(|it| vec![it.name().to_owned()]);
    let levels = namespace.split('.').map(str::to_owned).collect();
    for levels in named.into_iter().chain([levels]) {
        let Some(ident) = foreign_ident(&levels, name) else { continue };
        match catalog.tables().load(&ident).await {
            Err(CatalogError::NoSuchTable(_)) => (),
            loaded => return Ok((ident, loaded?)),
        }
    }
    Err(CatalogError::NoSuchTable(text.to_owned()).into())
}

fn summary(table: &LoadedTable, snapshot: Option<i64>, key: &str) -> Option<u64> {
    let snapshot = table.metadata.snapshot_by_id(snapshot?)?;
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

fn rows_at(table: &LoadedTable, snapshot: Option<i64>) -> Option<u64> {
    summary(table, snapshot, ROWS)
}

impl SeqLoss {
    /// None for a table that the log is not written to.
    async fn of(
        catalog: &Catalog,
        base: &LoadedTable,
        ident: &TableIdent,
        to: i64,
        local: &LocalLog,
    ) -> Result<Option<Self>, StartError> {
        let Some(held) = base.watermark else { return Ok(None) };
        let levels = ident.namespace.as_ref();
        let properties = catalog.metastore().namespace(levels).await?.unwrap_or_default();
        let namespace = Namespace::from_properties(levels, &properties);
        let ours = known_tables().find(|ours| ours.name == ident.name);
        let (Some(namespace), Some(ours)) = (namespace, ours) else { return Ok(None) };
        // A snapshot of another engine says nothing: then what is before it does.
        let kept = icecore_catalog::ancestors::of(&base.metadata, Some(to))
            .filter_map(|it| it.summary().additional_properties.get(LAST_SEQ)?.parse::<u64>().ok());
        let said = kept.max();
        let (kept, had) = (said.unwrap_or(0), held.last_seq);
        let again = kept.max(had) + 1;
        let mut loss = Self { kind: ours.kind, namespace, kept, had, again, mark: None };
        let owner = LogOwner::of(catalog.metastore()).await?;
        // Where no snapshot says how far it is, rows that it has could come again.
        let own = owner.filter(|owner| Some(owner.log) == local.log && said.is_some());
        if let Some(owner) = own.filter(|owner| owner.since <= held.epoch && kept < had)
            && let Some(first) = loss.first_again(&local.records)
        {
            let (epoch, position) = (owner.epoch, first.position - 1);
            loss.again = first.first_seq;
            loss.mark = Some(Watermark { epoch, position, last_seq: kept });
        }
        Ok(Some(loss))
    }

    /// The first of the records that come again: those without a gap up to the last row that the table had,
    /// of which it keeps none.
    fn first_again<'a>(&self, records: &'a [RecordRef]) -> Option<&'a RecordRef> {
        let is_after = |record: &&RecordRef| {
            let is_own = record.kind == self.kind && record.namespace == self.namespace;
            is_own && 0 < record.rows && self.kept < last_of(record)
        };
        let mut first = None;
        let mut reached = self.kept;
        for record in records.iter().filter(is_after) {
            if record.first_seq != reached + 1 {
                if self.had <= reached {
                    // What comes after a gap is above what the table had.
                    break;
                }
                first = None;
            }
            reached = last_of(record);
            if self.kept < record.first_seq {
                first = first.or(Some(record));
            }
        }
        first.filter(|_| self.had <= reached)
    }
}

/// Notes beside the log that the table has less.
async fn note_back(config: &Config, loss: &SeqLoss, mark: Watermark) -> Result<(), StartError> {
    let path = marks_path(config);
    let mut noted = NotedMarks::read(&path)?;
    let Some(marks) = noted.tables.get_mut(&(loss.kind, loss.namespace.clone())) else {
        return Ok(());
    };
    let back = RowMark { seq: mark.last_seq, position: mark.position };
    marks.committed = RowMark::min(marks.committed, back);
    Ok(blocking(move || noted.write(&path)).await?)
}

/// Notes what is lost beside what operators gave up.
fn write_down(
    folder: &Path,
    clock: &Clock,
    table: &TableIdent,
    snapshot: i64,
    (first, last): (u64, u64),
) -> io::Result<()> {
    let line = json!({
        "at_ms": clock.now_ms(),
        "moved_back": {"table": table.to_string(), "snapshot": snapshot},
        "lost": {"first": first, "last": last},
    });
    note_loss(folder, &line)
}

impl TableReport {
    fn of(ident: &TableIdent, from: Option<i64>, choice: &SnapshotChoice, dry_run: bool) -> Self {
        let damage = |DamagedSnapshot { snapshot_id, damage }: &DamagedSnapshot| DamageAnswer {
            snapshot_id: *snapshot_id,
            damage: damage.clone(),
        };
        Self {
            dry_run,
            table: ident.to_string(),
            from,
            to: choice.whole,
            damaged: choice.damaged.iter().map(damage).collect(),
            rows: None,
            relanded: None,
            lost: None,
        }
    }

    /// As text, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        let table = &self.table;
        let mut lines = Vec::new();
        match (self.from, self.to) {
            (Some(from), Some(to)) if from != to => {
                let done = if self.dry_run { "would go" } else { "went" };
                lines.push(format!("{table} {done} back from snapshot {from} to snapshot {to}"));
            }
            (Some(to), _) => lines.push(format!("{table} is whole at snapshot {to}")),
            (None, _) => lines.push(format!("{table} has no snapshot")),
        }
        lines.extend(self.damaged.iter().map(|DamageAnswer { snapshot_id, damage }| {
            format!("  snapshot {snapshot_id}: {damage}")
        }));
        if let Some((had, has)) = self.rows {
            lines.push(format!("rows: {had} before, {has} after"));
        }
        if let Some((first, last)) = self.relanded {
            lines.push(format!("the next start lands seq {first}..{last} again from the log"));
        }
        if let Some((first, last)) = self.lost {
            lines.push(format!(
                "seq {first}..{last}: rows of these are no longer in the table, and the log does not \
                 have all of them; send these events again if you have them. Files of the later snapshots \
                 stay until these expire"
            ));
        }
        if self.dry_run {
            lines.push("nothing was changed".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
