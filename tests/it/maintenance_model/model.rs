//! What a table has to show: the rows that were acknowledged, those of each snapshot, and where its branches
//! and tags are. It leaves to its user how a table is read.
//!
//! Its one invariant: a row goes from the log into one snapshot of `main`, and is in each snapshot after that
//! as often as in the one before, but for what a client said that its snapshot adds or removes, and for rows that
//! the service was asked to take out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Rows that a difference shows.
const SHOWN_MAX: usize = 8;

/// A row by its id and its number.
pub(crate) type RowKey = (String, i64);

/// How often each row is there; none is there zero times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowCounts(BTreeMap<RowKey, u32>);

impl RowCounts {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, row: RowKey) {
        *self.0.entry(row).or_default() += 1;
    }

    pub(crate) fn add_all(&mut self, others: &Self) {
        for (row, count) in &others.0 {
            *self.0.entry(row.clone()).or_default() += count;
        }
    }

    /// Takes rows away, or says which one is not there so often.
    pub(crate) fn take(&mut self, others: &Self) -> Result<(), String> {
        for (row, count) in &others.0 {
            let have = self.0.get(row).copied().unwrap_or_default();
            match have.checked_sub(*count) {
                None => return Err(format!("{row:?} is there {have} times, not {count}")),
                Some(0) => {
                    self.0.remove(row);
                }
                Some(left) => {
                    self.0.insert(row.clone(), left);
                }
            }
        }
        Ok(())
    }

    /// The ids of the rows, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|(id, _)| id.as_str())
    }

    /// The rows but those of these ids.
    pub(crate) fn without(&self, ids: &BTreeSet<String>) -> Self {
        let left = self.0.iter().filter(|((id, _), _)| !ids.contains(id));
        Self(left.map(|(row, count)| (row.clone(), *count)).collect())
    }

    /// Some of the rows that are there more or less often than they have to be.
    pub(crate) fn difference(&self, wanted: &Self) -> String {
        let count = |rows: &Self, row: &RowKey| rows.0.get(row).copied().unwrap_or_default();
        let rows = self.0.keys().chain(wanted.0.keys());
        let differs = rows.filter(|row| count(self, row) != count(wanted, row));
        let told = |row| format!("{row:?}: {} of {}", count(self, row), count(wanted, row));
        let shown: Vec<String> = differs.take(SHOWN_MAX).map(told).collect();
        format!("{} rows of {}; {}", self.0.len(), wanted.0.len(), shown.join(", "))
    }
}

impl FromIterator<RowKey> for RowCounts {
    fn from_iter<T: IntoIterator<Item = RowKey>>(rows: T) -> Self {
        let mut counts = Self::default();
        rows.into_iter().for_each(|row| counts.add(row));
        counts
    }
}

/// What a client says that its snapshot does.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowChange {
    pub(crate) added: RowCounts,
    pub(crate) removed: RowCounts,
}

/// What the service was asked to take out.
#[derive(Clone, Debug, Default)]
struct ExpectedRemoval {
    /// Rows of these ids may go.
    ids: BTreeSet<String>,
    /// The heads of branches before: of an erasure with several commits the history keeps the last one alone.
    heads: Vec<i64>,
}

/// What a snapshot says that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotKind {
    Append,
    Replace,
    /// A delete or an overwrite.
    Change,
}

/// A snapshot that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewerSnapshot {
    pub(crate) id: i64,
    pub(crate) parent: Option<i64>,
    pub(crate) kind: SnapshotKind,
}

/// What a table has to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableModel {
    /// Acknowledged, and in no snapshot yet.
    log: RowCounts,
    /// The rows of every snapshot that was ever there.
    snapshots: BTreeMap<i64, Arc<RowCounts>>,
    /// What clients' snapshots do that were taken.
    announced: BTreeMap<i64, RowChange>,
    /// What the service may take out now.
    removal: ExpectedRemoval,
    /// Branches beside `main` and tags, and where they are.
    pub(crate) names: BTreeMap<String, i64>,
}

impl TableModel {
    /// Rows were acknowledged.
    pub(crate) fn acknowledge(&mut self, rows: &RowCounts) {
        self.log.add_all(rows);
    }

    /// A client's snapshot was taken.
    pub(crate) fn announce(&mut self, id: i64, change: RowChange) {
        self.announced.insert(id, change);
    }

    /// From now on the service may take rows of these ids out, on top of these snapshots.
    pub(crate) fn expect_removal(&mut self, ids: BTreeSet<String>, heads: Vec<i64>) {
        self.removal = ExpectedRemoval { ids, heads };
    }

    /// From now on the service takes nothing out.
    pub(crate) fn end_removal(&mut self) {
        self.removal = ExpectedRemoval::default();
    }

    /// Acknowledged, and in no snapshot yet.
    pub(crate) fn log(&self) -> &RowCounts {
        &self.log
    }

    pub(crate) fn knows(&self, id: i64) -> bool {
        self.snapshots.contains_key(&id)
    }

    /// What a snapshot shows that was observed.
    pub(crate) fn rows(&self, id: i64) -> Result<&RowCounts, String> {
        let rows =
            self.snapshots.get(&id).ok_or_else(|| format!("snapshot {id} was never seen"))?;
        Ok(rows)
    }

    /// What everybody sees who asks for no snapshot.
    pub(crate) fn now(&self, head: Option<i64>) -> Result<RowCounts, String> {
        let mut rows = match head {
            Some(head) => self.rows(head)?.clone(),
            None => RowCounts::default(),
        };
        rows.add_all(&self.log);
        Ok(rows)
    }

    /// A snapshot came after those that were observed before, and shows `rows`.
    pub(crate) fn observe(
        &mut self,
        newer: NewerSnapshot,
        rows: &Arc<RowCounts>,
    ) -> Result<(), String> {
        let NewerSnapshot { id, parent, kind } = newer;
        let before: Arc<RowCounts> = match parent {
            Some(parent) => match self.snapshots.get(&parent) {
                Some(seen) => Arc::clone(seen),
                None if self.is_left_of_a_head(rows) => Arc::clone(rows),
                None => {
                    return Err(format!(
                        "snapshot {id} comes after {parent}, which was never seen"
                    ));
                }
            },
            None => Arc::default(),
        };
        match (self.announced.remove(&id), kind) {
            (Some(change), _) => {
                let mut wanted = RowCounts::clone(&before);
                wanted
                    .take(&change.removed)
                    .map_err(|cause| format!("removed by {id}: {cause}"))?;
                wanted.add_all(&change.added);
                same(id, rows, &wanted)?;
            }
            // Most come with no rows at all.
            (None, SnapshotKind::Append) if !Arc::ptr_eq(&before, rows) => {
                let mut moved = RowCounts::clone(rows);
                moved.take(&before).map_err(|cause| format!("lost by {id}: {cause}"))?;
                self.log.take(&moved).map_err(|cause| format!("doubled by {id}: {cause}"))?;
            }
            (None, SnapshotKind::Append | SnapshotKind::Replace) => same(id, rows, &before)?,
            (None, SnapshotKind::Change) if self.removal.ids.is_empty() => {
                return Err(format!("snapshot {id} changes rows, and no client said so"));
            }
            (None, SnapshotKind::Change) => self.removal.check(id, &before, rows)?,
        }
        self.snapshots.insert(id, Arc::clone(rows));
        Ok(())
    }

    /// Whether these rows are all that is left of a head.
    fn is_left_of_a_head(&self, rows: &RowCounts) -> bool {
        let ExpectedRemoval { ids, heads } = &self.removal;
        let mut heads = heads.iter().filter_map(|head| self.snapshots.get(head));
        heads.any(|head| head.without(ids) == *rows)
    }
}

impl ExpectedRemoval {
    /// Nothing comes by a removal, and nothing goes that nobody asked for.
    fn check(&self, id: i64, before: &RowCounts, rows: &RowCounts) -> Result<(), String> {
        let mut gone = before.clone();
        gone.take(rows).map_err(|cause| format!("added by {id}: {cause}"))?;
        match gone.ids().find(|row| !self.ids.contains(*row)) {
            Some(row) => Err(format!("snapshot {id} takes `{row}` out, and nobody asked for it")),
            None => Ok(()),
        }
    }
}

fn same(id: i64, rows: &RowCounts, wanted: &RowCounts) -> Result<(), String> {
    if rows == wanted {
        return Ok(());
    }
    Err(format!("snapshot {id} has {}", rows.difference(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seqs: &[i64]) -> Arc<RowCounts> {
        Arc::new(seqs.iter().map(|seq| (format!("e{seq}"), *seq)).collect())
    }

    fn newer(id: i64, parent: Option<i64>, kind: SnapshotKind) -> NewerSnapshot {
        NewerSnapshot { id, parent, kind }
    }

    /// Rows 1 to 3, of which the snapshot 1 has two.
    fn two_of_three() -> TableModel {
        let mut model = TableModel::default();
        model.acknowledge(&rows(&[1, 2, 3]));
        model.observe(newer(1, None, SnapshotKind::Append), &rows(&[1, 2])).unwrap();
        model
    }

    #[test]
    fn a_row_goes_from_the_log_into_one_snapshot() {
        let mut model = two_of_three();
        assert_eq!(model.log(), &*rows(&[3]));
        assert_eq!(model.now(Some(1)).unwrap(), *rows(&[1, 2, 3]));
        model.observe(newer(2, Some(1), SnapshotKind::Append), &rows(&[1, 2, 3])).unwrap();
        assert!(model.log().is_empty());
        assert_eq!(model.now(Some(2)).unwrap(), *rows(&[1, 2, 3]));
        assert_eq!(model.rows(1).unwrap(), &*rows(&[1, 2]));
    }

    #[test]
    fn a_row_that_is_lost_doubled_or_nobodys_is_found() {
        for (kind, shown, told) in [
            (SnapshotKind::Append, &[1, 3][..], "lost by 2"),
            (SnapshotKind::Append, &[1, 2, 2], "doubled by 2"),
            (SnapshotKind::Append, &[1, 2, 4], "doubled by 2"),
            (SnapshotKind::Replace, &[1], "1 rows of 2"),
            (SnapshotKind::Replace, &[1, 2, 2], "2 of 1"),
            (SnapshotKind::Change, &[1, 2], "no client said so"),
        ] {
            let error = two_of_three().observe(newer(2, Some(1), kind), &rows(shown)).unwrap_err();
            assert!(error.contains(told), "{kind:?} {shown:?}: {error}");
        }
        let orphan = newer(3, Some(2), SnapshotKind::Replace);
        let error = two_of_three().observe(orphan, &rows(&[1, 2])).unwrap_err();
        assert!(error.contains("never seen"), "{error}");
    }

    #[test]
    fn a_client_changes_what_it_said_and_no_more() {
        let change = || RowChange {
            added: RowCounts::clone(&rows(&[2, 9])),
            removed: RowCounts::clone(&rows(&[1])),
        };
        let announced = |shown: &[i64]| {
            let mut model = two_of_three();
            model.announce(2, change());
            model.observe(newer(2, Some(1), SnapshotKind::Change), &rows(shown)).map(|()| model)
        };
        let model = announced(&[2, 2, 9]).unwrap();
        assert_eq!(model.now(Some(2)).unwrap(), *rows(&[2, 2, 3, 9]));
        for shown in [&[2, 9][..], &[1, 2, 2, 9], &[2, 2], &[2, 2, 3, 9]] {
            announced(shown).unwrap_err();
        }
    }

    #[test]
    fn the_service_takes_out_what_it_was_asked_to_and_no_more() {
        let removed = |parent: i64, shown: &[i64]| {
            let mut model = two_of_three();
            model.expect_removal(["e1".to_owned()].into(), vec![1]);
            model.observe(newer(9, Some(parent), SnapshotKind::Change), &rows(shown))
        };
        removed(1, &[2]).unwrap();
        removed(1, &[1, 2]).unwrap();
        // The commit before it is gone from the history.
        removed(8, &[2]).unwrap();
        for (parent, shown, told) in [
            (1, &[1][..], "takes `e2` out"),
            (1, &[2, 2], "added by 9"),
            (1, &[2, 4], "added by 9"),
            (8, &[1], "never seen"),
        ] {
            let error = removed(parent, shown).unwrap_err();
            assert!(error.contains(told), "{shown:?}: {error}");
        }
        let mut model = two_of_three();
        model.expect_removal(["e1".to_owned()].into(), vec![1]);
        model.end_removal();
        let late = newer(2, Some(1), SnapshotKind::Change);
        model.observe(late, &rows(&[2])).unwrap_err();
    }
}
