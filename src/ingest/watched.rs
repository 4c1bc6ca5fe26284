//! Documents that somebody changes on a look at them, while others may write: the ingest thread notes such writes, and
//! refuses the submission that comes behind one.
//!
//! Its one invariant: all that was taken before a watch began is durable by then, and of what is taken later each write
//! to a watched document is noted before a later submission is judged.

use crate::ingest::admit::AcceptedRows;
use arrow::{
    array::{Array, AsArray, StringArray},
    record_batch::RecordBatch,
};
use icecore_schemas::{names::Namespace, service_table::TRUNCATE_TYPE};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// Documents of one namespace, and whether one of them was written since their watch began.
///
/// The watch ends when the last handle is gone.
#[derive(Debug)]
pub struct WatchedDocuments {
    namespace: Namespace,
    /// Their keys, by their collections.
    keys: HashMap<String, HashSet<String>>,
    is_written: AtomicBool,
}

impl WatchedDocuments {
    /// These documents, by their collections.
    pub(super) fn new(namespace: Namespace, keys: HashMap<String, HashSet<String>>) -> Self {
        Self { namespace, keys, is_written: AtomicBool::new(false) }
    }

    /// Whether somebody wrote one of them, or emptied its collection. A write that could not be made durable counts, too.
    pub(super) fn is_written(&self) -> bool {
        self.is_written.load(Ordering::Relaxed)
    }

    fn note(&self, taken: &[AcceptedRows]) {
        let mut of_namespace = taken.iter().filter(|taken| taken.namespace == self.namespace);
        if !self.is_written() && of_namespace.any(|taken| self.is_changed_by(&taken.rows)) {
            self.is_written.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one of these events changes a document, or empties its collection.
    fn is_changed_by(&self, rows: &RecordBatch) -> bool {
        let text = |name: &str| rows.column_by_name(name)?.as_string_opt::<i32>();
        let (kind, op) = (text("type"), text("op"));
        let (collection, key) = (text("collection"), text("key"));
        (0..rows.num_rows()).any(|row| {
            let Some(keys) = value_at(collection, row).and_then(|it| self.keys.get(it)) else {
                return false;
            };
            match value_at(key, row) {
                Some(key) => value_at(op, row).is_some() && keys.contains(key),
                None => value_at(kind, row) == Some(TRUNCATE_TYPE),
            }
        })
    }
}

/// The text of a row; none where there is no such column.
fn value_at(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

/// The watches that the ingest thread knows.
///
/// Restores and merges of a namespace take turns, so each namespace has one, with the documents of one batch. Whoever
/// watched and is gone has dropped its handle, whatever it ended by.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Weak<WatchedDocuments>>);

impl Watches {
    /// Begins to note writes to these documents.
    pub(super) fn begin(&mut self, documents: &Arc<WatchedDocuments>) {
        self.0.retain(|watched| watched.strong_count() != 0);
        self.0.push(Arc::downgrade(documents));
    }

    /// Notes events that are taken.
    pub(super) fn note(&mut self, taken: &[AcceptedRows]) {
        self.0.retain(|watched| {
            let watched = watched.upgrade();
            if let Some(documents) = &watched {
                documents.note(taken);
            }
            watched.is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::ArrayRef;

    /// One event of a namespace; what it has no value for is no column.
    fn taken(namespace: &str, columns: &[(&str, &str)]) -> AcceptedRows {
        let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
        for (name, value) in columns {
            let column: ArrayRef = Arc::new(StringArray::from(vec![*value]));
            arrays.push(((*name).to_owned(), column));
        }
        AcceptedRows {
            namespace: Namespace::parse(namespace).unwrap(),
            first_seq: 1,
            rows: RecordBatch::try_from_iter(arrays).unwrap(),
            keys: Vec::new(),
            types: Vec::new(),
        }
    }

    fn check(namespace: &str, columns: &[(&str, &str)], expected: bool) {
        let keys = HashMap::from([("users".to_owned(), HashSet::from(["1".to_owned()]))]);
        let watched = WatchedDocuments::new(Namespace::parse("shop").unwrap(), keys);
        let watched = Arc::new(watched);
        let mut watches = Watches::default();
        watches.begin(&watched);
        watches.note(&[taken("shop", &[("id", "0")]), taken(namespace, columns)]);
        assert_eq!(watched.is_written(), expected, "{namespace} {columns:?}");
    }

    #[test]
    fn a_watch_is_about_changes_of_its_documents_alone() {
        let change = [("op", "u"), ("collection", "users"), ("key", "1")];
        check("shop", &change, true);
        check("other", &change, false);
        check("shop", &[("op", "u"), ("collection", "users"), ("key", "2")], false);
        check("shop", &[("op", "u"), ("collection", "orders"), ("key", "1")], false);
        // An event about a document is no change of it.
        check("shop", &[("type", "seen"), ("collection", "users"), ("key", "1")], false);
        check("shop", &[("type", "cdc.truncate"), ("collection", "users")], true);
        check("shop", &[("type", "cdc.truncate"), ("collection", "orders")], false);
    }

    #[test]
    fn a_watch_that_ended_is_forgotten() {
        let mut watches = Watches::default();
        let watched = WatchedDocuments::new(Namespace::parse("shop").unwrap(), HashMap::new());
        let watched = Arc::new(watched);
        watches.begin(&watched);
        watches.note(&[]);
        assert_eq!(watches.0.len(), 1);
        drop(watched);
        watches.note(&[]);
        assert!(watches.0.is_empty());
    }
}
