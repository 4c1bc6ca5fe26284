//! What of a table's history has expired: pure rules, no IO.
//!
//! Iceberg's rules are the table properties `history.expire.*`, the policies of branches and tags, and
//! `gc.enabled`. The service's tables have a policy of their own beside them: after a day one
//! snapshot stays per day, and of the newest 400 those that were current for two minutes; after 90 days none.
//! Of those that are no appends the newest 50 stay for a week.
//! Its one invariant: the head of `main`, the head of a branch that stays, the snapshot of a tag that stays and
//! what clients hold never expire.

use super::{DAY_MS, candidates, is_managed, lease::LeasedSnapshots, thin_beyond};
use crate::{ancestors, metadata_file::refs::SnapshotRefs};
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata};
use std::{
    collections::{BTreeMap, HashSet},
    num::IntErrorKind,
};

/// The table property for the age at which a branch's snapshots expire, in ms.
pub const MAX_SNAPSHOT_AGE: &str = "history.expire.max-snapshot-age-ms";
/// The one for how many of a branch stay whatever their age.
pub const MIN_SNAPSHOTS: &str = "history.expire.min-snapshots-to-keep";
/// The one for the age at which branches and tags expire, in ms.
pub const MAX_REF_AGE: &str = "history.expire.max-ref-age-ms";
/// The one that, set to `false`, forbids to delete files of the table.
pub const GC_ENABLED: &str = "gc.enabled";

/// What Iceberg takes for [`MAX_SNAPSHOT_AGE`] where a table does not say.
const SNAPSHOT_AGE_MS: i64 = 5 * DAY_MS;
/// The newest snapshots of the service's tables stay in full for so long after the next one came: what
/// many commits in little time left behind goes with them, earlier metadata files too.
pub(crate) const IN_FULL_MS: i64 = DAY_MS;

/// What has expired of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiredHistory {
    /// Snapshots.
    pub snapshots: Vec<i64>,
    /// Branches and tags, as they were found.
    pub refs: BTreeMap<String, SnapshotReference>,
}

impl ExpiredHistory {
    /// Whether nothing has expired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.refs.is_empty()
    }
}

/// What the table says of its history.
#[derive(Clone, Copy, Debug, Default)]
struct ExpiryTerms {
    snapshot_age_ms: Option<i64>,
    snapshots_min: Option<i64>,
    ref_age_ms: Option<i64>,
}

impl ExpiryTerms {
    fn of(metadata: &TableMetadata) -> Result<Self, String> {
        Ok(Self {
            snapshot_age_ms: number(metadata, MAX_SNAPSHOT_AGE)?,
            snapshots_min: number(metadata, MIN_SNAPSHOTS)?,
            ref_age_ms: number(metadata, MAX_REF_AGE)?,
        })
    }
}

fn number(metadata: &TableMetadata, key: &str) -> Result<Option<i64>, String> {
    metadata.properties().get(key).map(|text| number_in(key, text)).transpose()
}

fn number_in(key: &str, text: &str) -> Result<i64, String> {
    match text.trim().parse::<i64>() {
        Ok(number) if 0 < number => Ok(number),
        Err(cause) if *cause.kind() == IntErrorKind::PosOverflow => Err(too_large(key, i64::MAX)),
        Ok(_) | Err(_) => Err(format!(
            "its property `{key}` is no positive number: write a whole number from 1 on"
        )),
    }
}

fn too_large(key: &str, most: i64) -> String {
    format!("its property `{key}` is larger than {most}, the most it may be: write less")
}

/// Why nothing of a table could expire with this value of a property; none for what is right or not read here.
pub(crate) fn fault(key: &str, value: &str) -> Option<String> {
    match key {
        MAX_SNAPSHOT_AGE | MIN_SNAPSHOTS | MAX_REF_AGE => match number_in(key, value) {
            // As far as Iceberg's Java library reads them.
            Ok(number) if key == MIN_SNAPSHOTS && i64::from(i32::MAX) < number => {
                Some(too_large(key, i32::MAX.into()))
            }
            Ok(_) if value.trim() != value => {
                Some(format!("its property `{key}` has blanks: write the number alone"))
            }
            read => read.err(),
        },
        GC_ENABLED => {
            let is = |word: &str| value.trim().eq_ignore_ascii_case(word);
            (!is("true") && !is("false"))
                .then(|| format!("its property `{key}` is `{value}`: write `true` or `false`"))
        }
        _ => None,
    }
}

/// Why no file of the table is deleted, where it forbids that: other tables may have them too. As in the
/// Java reference every value but `true` does, also one that nobody meant so.
pub(crate) fn gc_obstacle(metadata: &TableMetadata) -> Option<String> {
    let value = metadata.properties().get(GC_ENABLED)?;
    (!value.trim().eq_ignore_ascii_case("true"))
        .then(|| format!("its property `{GC_ENABLED}` is `{value}`"))
}

/// Whether a property of the table says nothing that expiry can go by, so that everything stays.
pub(crate) fn has_fault(metadata: &TableMetadata) -> bool {
    match gc_obstacle(metadata).and_then(|_| metadata.properties().get(GC_ENABLED)) {
        Some(value) => fault(GC_ENABLED, value).is_some(),
        None => ExpiryTerms::of(metadata).is_err(),
    }
}

/// What has expired of a table with these branches and tags at `now_ms`. Where an operator names a table
/// of another engine, Iceberg's default age holds for what it does not say; otherwise nothing of it
/// expires that neither its properties nor its refs ask for.
///
/// # Errors
/// Says why nothing of the table may go.
pub fn expired(
    metadata: &TableMetadata,
    refs: &SnapshotRefs,
    leased: &LeasedSnapshots,
    now_ms: i64,
    is_named: bool,
) -> Result<ExpiredHistory, String> {
    if let Some(why) = gc_obstacle(metadata) {
        return Err(why);
    }
    let mut terms = ExpiryTerms::of(metadata)?;
    let is_ours = is_managed(metadata);
    if is_named && !is_ours {
        terms.snapshot_age_ms = terms.snapshot_age_ms.or(Some(SNAPSHOT_AGE_MS));
    }
    let (stay, gone): (Vec<_>, Vec<_>) = refs
        .iter()
        .partition(|(name, reference)| ref_stays(metadata, name, reference, terms, now_ms));
    let lines = RetainedLines::of(metadata, stay.iter().map(|(_, it)| *it), terms, now_ms);
    let default_since = terms.snapshot_age_ms.map(|age| now_ms.saturating_sub(age));
    let by_terms = metadata.snapshots().filter(|snapshot| {
        let id = snapshot.snapshot_id();
        let is_too_old = || default_since.is_some_and(|since| snapshot.timestamp_ms() < since);
        !lines.held.contains(&id)
            && !lines.undecided.contains(&id)
            && (lines.reached.contains(&id) || is_too_old())
    });
    let mut snapshots: Vec<i64> = by_terms.map(|snapshot| snapshot.snapshot_id()).collect();
    if is_ours {
        // The head of `main` stands for its day like any other; it is held.
        let others = stay.iter().filter(|(name, _)| name.as_str() != MAIN_BRANCH);
        let named = others.map(|(_, reference)| reference.snapshot_id).collect();
        let mut all = candidates(metadata);
        let beyond = thin_beyond(&mut all, &named, leased, (now_ms, IN_FULL_MS));
        snapshots.extend(beyond.into_iter().filter(|id| !lines.held.contains(id)));
    }
    snapshots.retain(|id| !leased.has(*id));
    snapshots.sort_unstable();
    snapshots.dedup();
    let refs = gone.into_iter().map(|(name, it)| (name.clone(), it.clone())).collect();
    Ok(ExpiredHistory { snapshots, refs })
}

/// Whether a branch or tag stays: `main` always does.
fn ref_stays(
    metadata: &TableMetadata,
    name: &str,
    reference: &SnapshotReference,
    terms: ExpiryTerms,
    now_ms: i64,
) -> bool {
    let own = match reference.retention {
        SnapshotRetention::Branch { max_ref_age_ms, .. }
        | SnapshotRetention::Tag { max_ref_age_ms } => max_ref_age_ms,
    };
    let age_max = own.or(terms.ref_age_ms);
    let snapshot = metadata.snapshot_by_id(reference.snapshot_id);
    let (Some(age_max), Some(snapshot)) = (age_max, snapshot) else { return true };
    name == MAIN_BRANCH || now_ms.saturating_sub(snapshot.timestamp_ms()) <= age_max
}

/// What the branches and tags that stay say of snapshots.
#[derive(Debug, Default)]
struct RetainedLines {
    /// They are to stay.
    held: HashSet<i64>,
    /// They are on a line that has no age: by Iceberg's rules they stay.
    undecided: HashSet<i64>,
    /// They are on some line.
    reached: HashSet<i64>,
}

impl RetainedLines {
    fn of<'a>(
        metadata: &TableMetadata,
        refs: impl Iterator<Item = &'a SnapshotReference>,
        terms: ExpiryTerms,
        now_ms: i64,
    ) -> Self {
        let mut lines = Self::default();
        for reference in refs {
            let (own_min, own_age) = match reference.retention {
                SnapshotRetention::Branch {
                    min_snapshots_to_keep, max_snapshot_age_ms, ..
                } => (min_snapshots_to_keep.map(i64::from), max_snapshot_age_ms),
                SnapshotRetention::Tag { .. } => {
                    lines.held.insert(reference.snapshot_id);
                    lines.reached.insert(reference.snapshot_id);
                    continue;
                }
            };
            let least = own_min.or(terms.snapshots_min).unwrap_or(1).max(1);
            let age = own_age.or(terms.snapshot_age_ms);
            let since = age.map(|age| now_ms.saturating_sub(age));
            let mut goes_on = true;
            for (place, snapshot) in (0..).zip(ancestors::of(metadata, Some(reference.snapshot_id)))
            {
                let id = snapshot.snapshot_id();
                goes_on &= place < least || since.is_some_and(|at| at <= snapshot.timestamp_ms());
                lines.reached.insert(id);
                if goes_on {
                    lines.held.insert(id);
                } else if since.is_none() {
                    lines.undecided.insert(id);
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests;
