//! The parts that a comparison of all documents is made in: one after the other, so that only one part of both states is
//! in memory at a time.
//!
//! Parts are of buckets, as the files of a collection's table are: a part reads its own files alone. Its one invariant:
//! each key is in one part.

use crate::http::{
    points::ReadCaller,
    rows::{PAGE_BYTES_MAX, RowPage},
};
use icecore_catalog::retention;
use icecore_lake::{
    collection::table_name,
    table::{documents, schema::foreign_ident},
};
use icecore_schemas::{collections::DiffEntry, query::QueryBasis};

/// Most parts: each reads the events behind the table anew.
const PARTS_MAX: u64 = 16;
/// Bytes of files that a part has at least.
const PART_BYTES: u64 = 1 << 20;
/// In the summary of a snapshot: the bytes of its files.
const FILES_SIZE: &str = "total-files-size";

/// Conditions on the keys of a collection, one for each part; an empty one where all of it is one part, as without a
/// table.
pub(super) async fn of_collection(caller: ReadCaller<'_>, collection: &str) -> Vec<String> {
    let all = vec![String::new()];
    let Some(ident) = foreign_ident(caller.levels, &table_name(collection)) else { return all };
    // Without a table that can be read, the documents are made of events alone.
    let Ok(table) = caller.app.catalog.tables().load(&ident).await else { return all };
    let metadata = &table.metadata;
    if retention::collection_of(metadata) != Some(collection) {
        return all;
    }
    let summary = metadata.current_snapshot().map(|it| &it.summary().additional_properties);
    let bytes = summary.and_then(|of| of.get(FILES_SIZE)).and_then(|text| text.parse().ok());
    match (documents::bucket_count(metadata), bytes) {
        (Some(buckets), Some(bytes)) => conditions(buckets, bytes),
        (None, _) | (_, None) => all,
    }
}

/// The conditions where the documents are in so many buckets and bytes.
fn conditions(buckets: u32, bytes: u64) -> Vec<String> {
    let count = (bytes / PART_BYTES).min(PARTS_MAX).min(u64::from(buckets));
    if count <= 1 {
        return vec![String::new()];
    }
    let of_part = |part: u64| {
        let numbers = (0..u64::from(buckets)).filter(|number| number % count == part);
        let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
        format!("bucket({buckets}, key) IN ({})", numbers.join(", "))
    };
    (0..count).map(of_part).collect()
}

/// The condition on keys of a statement, for one part of them.
pub(super) fn within(condition: &str, part: &str) -> String {
    match (condition, part) {
        (all, "") => all.to_owned(),
        ("", part) => format!(" WHERE {part}"),
        (condition, part) => format!("{condition} AND {part}"),
    }
}

/// A page of documents in the order of their keys that is made of the pages of parts. Where there are more, it has all
/// that come before its last one.
#[derive(Debug, Default)]
pub(super) struct DiffPage {
    /// Each with the bytes of its texts.
    pub(super) docs: Vec<(DiffEntry, usize)>,
    /// Whether there are others.
    pub(super) has_more: bool,
    /// What it was made of.
    pub(super) basis: Option<QueryBasis>,
}

impl DiffPage {
    /// Adds the page of another part; at most `limit` documents stay.
    pub(super) fn add(&mut self, part: RowPage<(DiffEntry, usize)>, limit: usize) {
        let last = |docs: &[(DiffEntry, usize)]| docs.last().map(|(doc, _)| doc.key.clone());
        // What one of both has behind its last document is not known.
        let ends = [
            last(&self.docs).filter(|_| self.has_more),
            last(&part.rows).filter(|_| part.has_more),
        ];
        let end = ends.into_iter().flatten().min();
        self.docs.extend(part.rows);
        self.docs.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
        let all = self.docs.len();
        if let Some(end) = end {
            self.docs.retain(|(doc, _)| doc.key <= end);
        }
        let mut bytes = 0;
        let fit = self.docs.iter().take(limit).take_while(|(_, length)| {
            bytes += length;
            bytes <= PAGE_BYTES_MAX
        });
        // One document is a page however long it is.
        let fit = fit.count().max(1);
        self.docs.truncate(fit);
        self.has_more |= part.has_more || self.docs.len() < all;
        match (&mut self.basis, part.basis) {
            (Some(basis), Some(other)) => basis.add(other),
            (basis, other) => *basis = basis.take().or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_schemas::collections::DocumentChange;

    #[test]
    fn each_bucket_is_in_one_part() {
        const MIB: u64 = 1 << 20;
        for (buckets, bytes, count) in [
            (4, 0, 1),
            (4, 2 * MIB - 1, 1),
            (4, 2 * MIB, 2),
            (4, 900 * MIB, 4),
            (32, 900 * MIB, 16),
        ] {
            assert_eq!(conditions(buckets, bytes).len(), count, "{buckets} {bytes}");
        }
        let parts = ["bucket(4, key) IN (0, 3)", "bucket(4, key) IN (1)", "bucket(4, key) IN (2)"];
        assert_eq!(conditions(4, 3 * MIB), parts);
    }

    #[test]
    fn a_part_is_one_more_condition() {
        for (condition, part, expected) in [
            ("", "", ""),
            (" WHERE key > $1", "", " WHERE key > $1"),
            ("", "bucket(2, key) IN (0)", " WHERE bucket(2, key) IN (0)"),
            (" WHERE key > $1", "b IN (0)", " WHERE key > $1 AND b IN (0)"),
        ] {
            assert_eq!(within(condition, part), expected);
        }
    }

    /// The keys of the page that the pages of these parts make, a plus sign where there are more. A key of a part is a
    /// document of this many bytes.
    fn page_of(parts: &[(&str, bool)], bytes: usize, limit: usize) -> String {
        let entry = |key: &str| {
            let (key, change) = (key.to_owned(), DocumentChange::Added);
            (DiffEntry { key, change, before: None, after: None }, bytes)
        };
        let mut page = DiffPage::default();
        for (keys, has_more) in parts {
            let rows = keys.split_whitespace().map(entry).collect();
            page.add(RowPage { rows, has_more: *has_more, basis: None }, limit);
        }
        let keys: Vec<&str> = page.docs.iter().map(|(doc, _)| doc.key.as_str()).collect();
        format!("{}{}", keys.join(" "), if page.has_more { " +" } else { "" })
    }

    #[test]
    fn a_page_ends_where_a_part_is_not_known_any_more() {
        for (parts, limit, expected) in [
            (&[("", false), ("", false)][..], 9, ""),
            (&[("a d", false), ("b c", false)][..], 9, "a b c d"),
            (&[("a d", false), ("b c", false)][..], 3, "a b c +"),
            (&[("a b", true), ("c d", false)][..], 9, "a b +"),
            (&[("c d", false), ("a b", true)][..], 9, "a b +"),
            (&[("a e", true), ("b c", true), ("d", false)][..], 9, "a b c +"),
            (&[("b d", true), ("a", false), ("c e", false)][..], 2, "a b +"),
            (&[("b", false), ("", false), ("a", false)][..], 1, "a +"),
        ] {
            assert_eq!(page_of(parts, 1, limit), expected, "{parts:?} {limit}");
        }
        let (half, whole) = (PAGE_BYTES_MAX / 2, PAGE_BYTES_MAX + 1);
        assert_eq!(page_of(&[("a c", false), ("b", false)], half, 9), "a b +");
        assert_eq!(page_of(&[("a", true), ("b", true)], whole, 9), "a +");
    }
}
