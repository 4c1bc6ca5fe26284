//! What an erasure cannot reach, said in its report.

use crate::{
    maintenance::erasure::{EraseError, Erasures, rfc3339, tables::ErasureTables},
    store::StoredErasure,
};
use icecore_catalog::storage::bucket::{BucketState, BucketVersioning, ObjectLock};
use icecore_lake::collection::erased_documents::ErasedDocuments;

/// Most backups and dropped tables that are named one by one.
const NAMED_MAX: usize = 20;

/// Said of an erasure that did not wait any longer for segments to go.
pub(super) const LOG_KEEPS: &str = "segments of the log still have bytes of the erased rows: rows in them do not leave the \
     log, or there is no room for a new segment; erase once more when all tables take rows \
     again (`icecore_flush_failing_tables`)";

/// Said of files that others change with every try.
pub(super) const TRIED_AGAIN: &str = "meanwhile, which are tried again";

/// Whether the rows of a table were left aside, as others change its files with every try.
pub(super) fn is_left_aside(told: &[String], table: &str) -> bool {
    let text = format!(".{table}` {TRIED_AGAIN}");
    told.iter().any(|told| told.contains(&text))
}

/// Takes away what is told of tables whose rows were left aside.
pub(super) fn forget_left_aside(told: &mut Vec<String>) {
    told.retain(|told| !told.contains(TRIED_AGAIN));
}

/// Why an erasure waits for segments of the log.
pub(super) fn log_waits(until: &str) -> String {
    format!(
        "segments of the log with bytes of the erased rows are deleted once tables have all rows in \
         them and no reader holds them; that is waited for until {until}"
    )
}

impl Erasures {
    /// What an erasure of this namespace cannot reach now, or does not know of. Counts what the log has.
    pub(super) async fn limits(
        &self,
        erasure: &mut StoredErasure,
        tables: &ErasureTables,
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
        limits.extend_from_slice(&tables.limits);
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
            "damaged segments that `icecore wal quarantine` copied, logs that were set aside for a new one, and \
             logs of servers that took the events before keep their events: delete them"
                .to_owned(),
        );
        if let Some(bucket) = catalog.storage().bucket_state().await {
            limits.extend(limits_of(&bucket));
        }
        limits.push(
            "manifests name removed files and the values of their partitions until a later commit leaves them \
             out, those of other engines with the first 16 characters of least and greatest values, and \
             equality deletes of other engines name what they delete"
                .to_owned(),
        );
        limits.extend(copies_of(erasure));
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

/// That later changes may have copies of documents that the erased events made. All events of a key go, and with them
/// the copies.
fn copies_of(erasure: &StoredErasure) -> Option<String> {
    let has_some = erasure.documents != ErasedDocuments::default();
    (has_some && erasure.report.subject.key.is_none()).then(|| {
        "changes of others may have copies of documents that the erased events made, in `before` and behind \
         restores, merges and squashes, and say nothing of the subject: erase the `key` of such a document \
         with its `collection` where they are to go as well"
            .to_owned()
    })
}

/// What a bucket keeps of deleted objects, or that this is not known.
fn limits_of(bucket: &BucketState) -> Vec<String> {
    let versions = match &bucket.versioning {
        Ok(BucketVersioning::Off) => None,
        Ok(BucketVersioning::Enabled) => Some(
            "the bucket keeps old versions of deleted objects (versioning is enabled): remove noncurrent \
             versions, or have a rule of the bucket do it"
                .to_owned(),
        ),
        Ok(BucketVersioning::Suspended) => Some(
            "the bucket kept old versions of deleted objects until its versioning was suspended: remove \
             noncurrent versions"
                .to_owned(),
        ),
        Err(why) => Some(format!(
            "whether the bucket keeps old versions of deleted objects could not be asked ({why}): look at \
             its versioning, and remove noncurrent versions"
        )),
    };
    let lock = match &bucket.object_lock {
        Ok(ObjectLock::Off) => None,
        Ok(ObjectLock::On(rule)) => {
            let rule = rule.as_deref().unwrap_or("no rule for all objects");
            Some(format!(
                "the bucket has Object Lock ({rule}): nobody can remove locked versions before their time"
            ))
        }
        Err(why) => Some(format!(
            "whether the bucket has Object Lock could not be asked ({why}): look whether versions are locked"
        )),
    };
    versions.into_iter().chain(lock).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(
        versioning: Result<BucketVersioning, String>,
        lock: Result<ObjectLock, String>,
    ) -> String {
        limits_of(&BucketState { versioning, object_lock: lock }).join("\n")
    }

    #[test]
    fn a_bucket_is_named_for_what_it_keeps_and_for_what_it_does_not_tell() {
        assert_eq!(told(Ok(BucketVersioning::Off), Ok(ObjectLock::Off)), "");
        let rule = ObjectLock::On(Some("COMPLIANCE for 1 years".to_owned()));
        let kept = told(Ok(BucketVersioning::Enabled), Ok(rule));
        assert!(kept.contains("versioning is enabled"), "{kept}");
        assert!(kept.contains("Object Lock (COMPLIANCE for 1 years)"), "{kept}");
        let kept = told(Ok(BucketVersioning::Suspended), Ok(ObjectLock::On(None)));
        assert!(kept.contains("suspended") && kept.contains("no rule"), "{kept}");
        let denied = || "the store answered 403 AccessDenied".to_owned();
        let unknown = told(Err(denied()), Err(denied()));
        assert_eq!(unknown.matches("could not be asked (the store answered 403").count(), 2);
    }
}
