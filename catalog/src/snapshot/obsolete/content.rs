//! Data and delete files that go with the manifests that list them.
//!
//! Its one invariant: a file that is live in a manifest of a retained snapshot is never named.

use super::{LISTS_MAX, UnlistedManifests, reads::HistoryReader};
use crate::{error::CatalogError, snapshot::changes::FileKey};
use std::collections::HashMap;

/// Files that are live in manifests that go and in none that stays, in their normal form.
pub(super) async fn unneeded(
    reader: &mut HistoryReader<'_>,
    unlisted: &UnlistedManifests,
) -> Result<HashMap<FileKey, String>, CatalogError> {
    if !unlisted.may_drop_files || unlisted.manifests.is_empty() {
        return Ok(HashMap::new());
    }
    let mut found = reader.live(&unlisted.manifests).await?;
    reader.take_out_live(&mut found, &unlisted.retained).await?;
    if found.is_empty() || unlisted.others.is_empty() {
        return Ok(found);
    }
    // A manifest has a new name each time, and a file may be added again by a client that has its path:
    // then a snapshot has it that is no neighbour.
    if LISTS_MAX < unlisted.others.len() {
        tracing::warn!(
            table = %reader.base.uuid(),
            "more than {LISTS_MAX} snapshots: data files of removed ones are left behind"
        );
        return Ok(HashMap::new());
    }
    let mut others = reader.listed(&unlisted.others).await?;
    others.retain(|manifest| !unlisted.retained.contains(manifest));
    reader.take_out_live(&mut found, &others).await?;
    Ok(found)
}
