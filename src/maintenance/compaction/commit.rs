//! The commit of what a step wrote, beside those of others.
//!
//! Where others deleted rows of its files meanwhile, by their places, the work is not done again: the deletes are
//! written for what stands for these files. Where a file went, or it is not known where its rows are, its
//! group is lost, and chosen anew by a later step; the other groups are committed at once.
//!
//! Its one invariant: files that no snapshot names are deleted, unless it is not known whether one does.

use crate::maintenance::compaction::{
    Compaction, CompactionError, outcome::CompactionStep, step::GROUPS_MAX,
};
use icecore_catalog::{
    error::CatalogError,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
};
use icecore_lake::table::{
    compaction::{
        places::carry_deletes,
        rewrite::{RewrittenFiles, replacement},
    },
    schema::TableIdent,
    writer,
};
use std::error::Error;
use tracing::{debug, warn};

/// After so many commits of a step none that is refused is tried again without what was changed: enough for
/// each group to be refused alone.
const COMMITS_MAX: usize = 2 * GROUPS_MAX;
/// How often a step carries deletes over. Each time takes as long as reading the manifests and the deletes, so it
/// is enough beside an engine that deletes several times a second.
const CARRIES_MAX: usize = 8;

impl Compaction {
    /// Commits groups together. Where that is refused, one of them was changed meanwhile: deletes are carried
    /// over, and the others are committed without the one whose file the refusal names, or looked for by
    /// halves where it names none. What is refused at last is told.
    pub(super) async fn commit(
        &self,
        table: &TableIdent,
        read: i64,
        written: Vec<RewrittenFiles>,
        step: &mut CompactionStep,
    ) -> Result<(), CompactionError> {
        if written.is_empty() {
            return Ok(());
        }
        let (mut left, mut commits, mut carries) = (vec![written], 0, 0);
        while let Some(mut part) = left.pop() {
            commits += 1;
            match self.replace(table, read, &part).await {
                Ok(()) => part.iter().for_each(|done| step.add(done)),
                Err(CompactionError::Catalog(CatalogError::CommitFailed(why))) => {
                    let mut lost: Vec<RewrittenFiles> =
                        part.extract_if(.., |group| group.is_named_in(&why)).collect();
                    if COMMITS_MAX <= commits {
                        lost.append(&mut part);
                    } else if !lost.is_empty() && carries < CARRIES_MAX {
                        carries += 1;
                        // Deletes of one statement are often about files of many groups.
                        lost.append(&mut part);
                        let (carried, others) = Box::pin(self.carry(table, lost)).await;
                        (lost, part) =
                            others.into_iter().partition(|group| group.is_named_in(&why));
                        left.extend((!carried.is_empty()).then_some(carried));
                    } else if lost.is_empty() && 1 < part.len() {
                        let other = part.split_off(part.len() / 2);
                        left.extend([other, part]);
                        continue;
                    } else if lost.is_empty() {
                        lost.append(&mut part);
                    }
                    left.extend((!part.is_empty()).then_some(part));
                    if !lost.is_empty() {
                        self.delete(&lost).await;
                        step.skipped.push(why);
                        step.is_refused = true;
                    }
                }
                Err(cause) => {
                    left.extend((!is_unknown(&cause)).then_some(part));
                    for part in left {
                        self.delete(&part).await;
                    }
                    return Err(cause);
                }
            }
        }
        Ok(self.0.faults.hit("compact.after_commit")?)
    }

    /// Groups of which files were changed since they were read: those whose deletes are carried over, all to one
    /// snapshot, and the others.
    async fn carry(
        &self,
        table: &TableIdent,
        refused: Vec<RewrittenFiles>,
    ) -> (Vec<RewrittenFiles>, Vec<RewrittenFiles>) {
        let loaded = match self.0.catalog.tables().load(table).await {
            Ok(loaded) => loaded,
            Err(cause) => {
                warn!(%table, error = &cause as &dyn Error, "deletes are not carried over");
                return (Vec::new(), refused);
            }
        };
        let (storage, cache) = (self.0.catalog.storage(), ManifestCache::default());
        let metadata = loaded.metadata.as_ref();
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        let (mut carried, mut lost) = (Vec::new(), Vec::new());
        for group in refused {
            match Box::pin(carry_deletes(source, &self.0.ids, &group)).await {
                Ok(Some(done)) => {
                    let files = done.deletes.len();
                    debug!(%table, files, "deletes that came meanwhile are carried over");
                    // Those of an earlier try are of no use any more.
                    let earlier = group.deletes.iter().map(|(_, file)| file.file_path());
                    let earlier: Vec<&str> = earlier.collect();
                    writer::delete(storage, earlier.into_iter()).await;
                    carried.push(done);
                }
                Ok(None) => lost.push(group),
                Err(cause) => {
                    warn!(%table, error = &cause as &dyn Error, "deletes are not carried over");
                    lost.push(group);
                }
            }
        }
        (carried, lost)
    }

    async fn replace(
        &self,
        table: &TableIdent,
        read: i64,
        groups: &[RewrittenFiles],
    ) -> Result<(), CompactionError> {
        self.0.faults.hit("compact.before_commit")?;
        let new = replacement(read, groups, self.0.ids.mint().to_string());
        self.0.catalog.add_snapshot(table, new).await?;
        let unknown = |fault: std::io::Error| CatalogError::CommitStateUnknown(fault.to_string());
        Ok(self.0.faults.hit("compact.lost_answer").map_err(unknown)?)
    }

    /// Deletes files that no snapshot names.
    pub(super) async fn delete(&self, groups: &[RewrittenFiles]) {
        let files = groups.iter().flat_map(RewrittenFiles::locations);
        let files: Vec<String> = files.map(str::to_owned).collect();
        writer::delete(self.0.catalog.storage(), files.iter().map(String::as_str)).await;
    }
}

/// Whether a commit may have been made all the same.
fn is_unknown(cause: &CompactionError) -> bool {
    matches!(cause, CompactionError::Catalog(CatalogError::CommitStateUnknown(_)))
}
