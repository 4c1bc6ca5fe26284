//! What others write to the documents of many changes while these are on their way: which documents are left out of a
//! batch that is not appended yet, and which of the last batch were written right before it.
//!
//! Its one invariant: a look reads all that came since the one before, so of each write behind the comparison it is known
//! whether it is before the batch of its document or behind it.

use super::{ChangedBranch, PlannedChange, document_number};
use crate::http::{
    AppState,
    error::ApiError,
    rows::{number_at, text_at},
    state_rows,
};
use futures::StreamExt;
use icecore_engine::{
    QueryAnswer,
    collections::{IS_CHANGE, IS_TRUNCATE},
};
use icecore_schemas::{error_code::ErrorCode, query::SqlRequest, restore::LeftDocument};
use std::{collections::HashSet, time::Duration};

/// Most documents that are listed because others wrote them, and most bytes of their names: the event that tells of the
/// change has the list.
const LISTED_MAX: usize = 100;
const LISTED_BYTES_MAX: usize = 8 << 10;
/// Most documents of others that are known meanwhile.
const WRITTEN_MAX: usize = 1_000_000;
/// Most times that the look at a batch waits for a place among other queries, as long as each of them does, and the pause
/// in between. It takes less than a query may run, as the comparison waits as well.
const LOOKS_MAX: usize = 8;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// A collection and a key.
pub(super) type DocumentName = (String, String);

/// Documents that others wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct DocumentList {
    /// All of them, by their numbers.
    pub(in crate::http) numbers: HashSet<u128>,
    /// Collection and key of some.
    pub(in crate::http) listed: Vec<DocumentName>,
    /// Of those.
    bytes: usize,
}

impl DocumentList {
    /// How many there are.
    pub(in crate::http) fn count(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// Some of them, as reports have them.
    pub(in crate::http) fn entries(&self) -> Vec<LeftDocument> {
        let entry = |(collection, key): &DocumentName| LeftDocument {
            collection: collection.clone(),
            key: key.clone(),
        };
        self.listed.iter().map(entry).collect()
    }

    pub(super) fn add(&mut self, collection: String, key: String) {
        let is_new = self.numbers.insert(document_number(&collection, &key));
        let name = collection.len() + key.len();
        if is_new && self.listed.len() < LISTED_MAX && self.bytes + name <= LISTED_BYTES_MAX {
            self.bytes += name;
            self.listed.push((collection, key));
        }
    }
}

/// A batch that is durable, and behind which nobody looked yet.
#[derive(Debug)]
pub(super) struct AppendedBatch {
    /// Its first event.
    pub(super) first: u64,
    pub(super) documents: HashSet<DocumentName>,
}

impl AppendedBatch {
    /// Its documents that a row of a look is about; one without a key is about all of a collection.
    fn documents_of(&self, collection: &str, key: Option<&str>) -> Vec<DocumentName> {
        match key {
            Some(key) => {
                let name = (collection.to_owned(), key.to_owned());
                self.documents.get(&name).cloned().into_iter().collect()
            }
            None => self.documents.iter().filter(|(it, _)| it == collection).cloned().collect(),
        }
    }
}

/// What others wrote since a comparison, as far as it was looked at.
#[derive(Debug, Default)]
pub(super) struct WrittenDocuments {
    /// The documents, by their numbers.
    numbers: HashSet<u128>,
    /// The collections that were emptied.
    emptied: HashSet<String>,
    /// All events up to this one were looked at.
    seq: u64,
    /// The last batch, until somebody looked behind it.
    batch: Option<AppendedBatch>,
}

impl WrittenDocuments {
    /// Notes a batch that is durable. The one before was looked at.
    pub(super) fn append(&mut self, batch: AppendedBatch) {
        self.batch = Some(batch).filter(|batch| !batch.documents.is_empty());
    }

    /// Whether nobody looked yet behind the last batch.
    pub(super) fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Looks at what came since, and gives the documents of the last batch that were written before it: the look for
    /// that batch did not see these writes. `later` is the statement of [`later_changes`], and `last` an event that is
    /// durable.
    ///
    /// # Errors
    /// 422 for too many; else as queries.
    pub(super) async fn look(
        &mut self,
        ChangedBranch { app, levels, .. }: ChangedBranch<'_>,
        later: &str,
        last: u64,
    ) -> Result<Vec<DocumentName>, ApiError> {
        let batch = self.batch.take();
        let later = format!("{later} AND seq > {} GROUP BY collection, key", self.seq);
        let mut overwritten = Vec::new();
        let Some(mut answer) = Box::pin(ask(app, levels, &later)).await? else {
            return Ok(overwritten);
        };
        while let Some(rows) = answer.batches.next().await {
            let rows = rows?;
            for row in 0..rows.num_rows() {
                let Some(collection) = text_at(&rows, "collection", row) else { continue };
                let key = text_at(&rows, "key", row);
                let first = number_at(&rows, "first_seq", row);
                if let (Some(batch), Some(first)) = (&batch, first)
                    && first < batch.first
                {
                    overwritten.extend(batch.documents_of(&collection, key.as_deref()));
                }
                match key {
                    Some(key) => self.numbers.insert(document_number(&collection, &key)),
                    None => self.emptied.insert(collection),
                };
            }
            if WRITTEN_MAX < self.numbers.len() {
                let text = format!(
                    "others wrote more than {WRITTEN_MAX} documents since the states were compared: send it again under another Idempotency-Key"
                );
                return Err(ApiError::new(ErrorCode::QueryLimit, text));
            }
        }
        self.seq = last;
        Ok(overwritten)
    }

    /// Whether the document of a change was written, or was in a collection that was emptied.
    pub(super) fn has(&self, PlannedChange { collection, key, .. }: &PlannedChange) -> bool {
        self.emptied.contains(collection)
            || self.numbers.contains(&document_number(collection, key))
    }
}

/// The statement for the documents that others changed behind an event, as columns `collection`, `key` and `first_seq`,
/// the first of these changes; a row without a key is a collection that was emptied. A look adds where it begins and the
/// groups. `events` is what they are read from, as FROM names it, and the ids of the change's own events begin with `own`.
pub(in crate::http) fn later_changes(events: &str, seq: u64, own: &str) -> String {
    format!(
        "SELECT collection, key, CAST(min(seq) AS bigint) AS first_seq FROM {events} WHERE seq > {seq} \
         AND collection <> '' AND (({IS_CHANGE}) OR ({IS_TRUNCATE})) AND (id LIKE '{own}%') IS NOT TRUE"
    )
}

/// Starts the query for what others wrote. Others may have all places of queries for a moment, and a change that ends for
/// that stands half done.
async fn ask(
    app: &AppState,
    levels: &[String],
    later: &str,
) -> Result<Option<QueryAnswer>, ApiError> {
    let mut looks = 1;
    loop {
        let request = SqlRequest { sql: later.to_owned(), ..SqlRequest::default() };
        let asked = state_rows::ask(app, levels, request).await;
        let is_busy = asked.as_ref().is_err_and(|cause| cause.code() == ErrorCode::TooManyRequests);
        if !is_busy || LOOKS_MAX <= looks {
            return asked;
        }
        looks += 1;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_the_documents_of_a_write_and_of_an_emptied_collection() {
        let name = |collection: &str, key: &str| (collection.to_owned(), key.to_owned());
        let documents = [name("users", "1"), name("users", "2"), name("orders", "1")];
        let batch = AppendedBatch { first: 9, documents: documents.into() };
        assert_eq!(batch.documents_of("users", Some("1")), [name("users", "1")]);
        assert!(batch.documents_of("users", Some("3")).is_empty());
        let mut emptied = batch.documents_of("users", None);
        emptied.sort();
        assert_eq!(emptied, [name("users", "1"), name("users", "2")]);
    }

    #[test]
    fn a_document_is_counted_and_listed_once() {
        let mut list = DocumentList::default();
        for key in ["1", "2", "1"] {
            list.add("users".to_owned(), key.to_owned());
        }
        assert_eq!((list.count(), list.listed.len()), (2, 2));
        for key in 0..LISTED_MAX {
            list.add("orders".to_owned(), key.to_string());
        }
        assert_eq!((list.count(), list.listed.len()), (2 + LISTED_MAX as u64, LISTED_MAX));
    }
}
