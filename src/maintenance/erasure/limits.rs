//! What an erasure cannot reach, said in its report.

use crate::{
    maintenance::erasure::{EraseError, Erasures, rfc3339},
    store::StoredErasure,
};

/// Most backups and dropped tables that are named one by one.
const NAMED_MAX: usize = 20;

impl Erasures {
    /// What an erasure of this namespace cannot reach now, or does not know of. Counts what the log has.
    pub(super) async fn limits(
        &self,
        erasure: &mut StoredErasure,
        others: &[String],
    ) -> Result<Vec<String>, EraseError> {
        let (catalog, wal) = (&self.parts.catalog, &self.parts.wal);
        let mut limits = Vec::new();
        for backup in catalog.metastore().backups().await?.into_iter().take(NAMED_MAX) {
            limits.push(format!(
                "the backup `{}` of {} has what was there then: forget and delete it",
                backup.id,
                rfc3339(backup.begun_ms)
            ));
        }
        for table in others {
            limits.push(format!(
                "the table `{table}` is another engine's: delete the rows there, and expire its snapshots"
            ));
        }
        let dropped = catalog.trash().list().await?.into_iter();
        let dropped = dropped.filter(|row| row.levels == erasure.levels).take(NAMED_MAX);
        limits.extend(dropped.map(|row| {
            format!(
                "the dropped table `{}` keeps its rows until it is purged ({})",
                row.name, row.uuid
            )
        }));
        let through = erasure.report.log.through;
        let name = erasure.levels.first().map_or("", String::as_str);
        let is_of = |record: &&icecore_lake::wal::RecordRef| {
            record.position <= through && record.namespace.name() == name
        };
        erasure.report.log.kept = wal.all_records(0).iter().filter(is_of).count() as u64;
        limits.push(
            "segments of the log keep bytes of records that are in tables until they are written over or \
             removed: `log.kept` counts such records of the namespace, and unused segments are not counted"
                .to_owned(),
        );
        if !catalog.storage().is_local() {
            limits.push(
                "whether the bucket keeps old versions of deleted objects (versioning, Object Lock) is \
                 not known: look, and remove noncurrent versions"
                    .to_owned(),
            );
        }
        limits.push(
            "manifests keep the first 16 characters of the least and greatest values of removed files until \
             they are merged, and equality deletes of other engines name what they delete"
                .to_owned(),
        );
        limits.push(
            "files that no snapshot names, which writes left behind that were broken off, are not looked \
             through"
                .to_owned(),
        );
        limits.push(
            "copies outside of the warehouse are not known: snapshots of disks, replicas, exports, \
             clients that read the rows before"
                .to_owned(),
        );
        limits.push(
            "the ledger of erasures keeps the subject's value, so that the erasure is applied again after \
             a restore"
                .to_owned(),
        );
        Ok(limits)
    }
}

/// Says how many files of a table a backup holds.
pub(super) fn tell_of_held(limits: &mut Vec<String>, table: &str, files: u64) {
    let text = format!(
        "{files} files of `{table}` are held by a backup: they are deleted once it is forgotten"
    );
    tell(limits, text);
}

/// Says something once.
pub(super) fn tell(limits: &mut Vec<String>, text: String) {
    if !limits.contains(&text) {
        limits.push(text);
    }
}
