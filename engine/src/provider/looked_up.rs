//! Which files of a plan may have the rows that a query looks up, by their bloom filters and by hashes of numbers.

use crate::{
    lookups::{FooterSource, Lookup},
    plan::SnapshotScan,
    provider::{FOOTERS_AT_ONCE, ViewTable},
    row_places::numbers::NumberLookup,
};
use datafusion::{error::DataFusionError, logical_expr::Expr, object_store::ObjectStore};
use futures::{StreamExt, TryStreamExt, stream};
use icecore_catalog::scan::manifests::PlannedFiles;
use std::sync::Arc;

/// Files that tell whether the others are asked for bloom filters: most columns have none, and a query
/// that needs a few rows of them should not wait for the footers of all files.
const SAMPLED_FILES: usize = 8;

/// Most rows of a file whose reader does not ask its bloom filters again: those of a row group of ours.
const ASKED_ROWS_MAX: u64 = 131_072;

/// Fewest files that are asked for hashes of numbers: of fewer ones, readers find the rows as fast.
const NUMBER_FILES_MIN: usize = 8;

impl ViewTable {
    /// The files that may have a row for all `lookups`, and whether a reader has nothing to gain from asking their
    /// bloom filters again. One file alone is asked by its reader, and so are the row groups of a long one.
    pub(super) async fn looked_up(
        &self,
        files: PlannedFiles,
        lookups: &[Lookup],
        footers: FooterSource<'_>,
    ) -> Result<(PlannedFiles, bool), DataFusionError> {
        if lookups.is_empty() || files.len() < 2 {
            return Ok((files, false));
        }
        let sample = files.iter().step_by(files.len().div_ceil(SAMPLED_FILES));
        let sampled = sample.map(|file| async move {
            let meta = self.meta_in_time(file)?;
            Ok::<_, DataFusionError>(self.bloom_filters.are_in(footers, &meta, lookups).await)
        });
        let sampled: Vec<_> = sampled.collect();
        let sampled = stream::iter(sampled).buffered(FOOTERS_AT_ONCE).try_collect::<Vec<_>>();
        if !sampled.await?.contains(&true) {
            return Ok((files, false));
        }
        let asked = files.into_iter().map(|file| async move {
            let meta = self.meta_in_time(&file)?;
            let may_have = self.bloom_filters.may_have(footers, &meta, lookups).await;
            Ok::<_, DataFusionError>(may_have.then_some(file))
        });
        let asked: Vec<_> = asked.collect();
        let asked = stream::iter(asked).buffered(FOOTERS_AT_ONCE).try_collect::<Vec<_>>().await?;
        let files: PlannedFiles = asked.into_iter().flatten().collect();
        let are_short = files.iter().all(|file| file.rows <= ASKED_ROWS_MAX);
        Ok((files, are_short))
    }

    /// The files that may have a row with the whole numbers that the filters look up, as far as they are known.
    pub(super) async fn by_numbers(
        &self,
        files: PlannedFiles,
        (snapshot, filters): (&SnapshotScan, &[Expr]),
        (footers, store): (FooterSource<'_>, &Arc<dyn ObjectStore>),
    ) -> Result<PlannedFiles, DataFusionError> {
        let lookups = NumberLookup::all(filters, &snapshot.columns, &self.schema);
        if lookups.is_empty() || files.len() < NUMBER_FILES_MIN {
            return Ok(files);
        }
        let lookups = lookups.as_slice();
        let told = self.row_places.count_with_room(files.iter().map(|file| file.rows));
        let asked = files.into_iter().enumerate().map(|(at, file)| async move {
            let meta = self.meta_in_time(&file)?;
            let may_have = told <= at
                || self.row_places.may_have_numbers(footers, store, &meta, lookups).await;
            Ok::<_, DataFusionError>(may_have.then_some(file))
        });
        let asked: Vec<_> = asked.collect();
        let asked = stream::iter(asked).buffered(FOOTERS_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(asked.into_iter().flatten().collect())
    }
}
