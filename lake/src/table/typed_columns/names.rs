//! Names of columns for members of documents.

use crate::{collection::COLUMNS, table::typed_columns::MISFITS};
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// What is put before a name that is no column's own.
const PREFIX: &str = "doc_";
/// How the names of partition fields begin, which no column may have.
const BUCKETS: &str = "key_bucket";
/// Columns that have a meaning in whatever table of the service they are: when a row came, who sees it, and how it is
/// read where an erasure looks for somebody.
const MEANINGS: [&str; 5] = ["collection", "detail", "ingested_at", "received_at", "visibility"];
/// Digits of a member's hash behind a name that another column has.
const HASH_DIGITS: usize = 8;

/// The name of the column for a member, which is `taken` with it; none where even the hash of the member makes
/// a name that another column has. Many engines take names that differ by case alone for one.
pub(super) fn column_name(member: &str, taken: &mut HashSet<String>) -> Option<String> {
    let letters = member.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' });
    let mut name: String = letters.collect();
    let lower = name.to_lowercase();
    let is_kept = COLUMNS.iter().any(|column| column.name == lower)
        || lower == MISFITS
        || MEANINGS.contains(&lower.as_str())
        || lower.starts_with(BUCKETS)
        || !name.starts_with(char::is_alphabetic);
    if is_kept {
        name.insert_str(0, PREFIX);
    }
    if taken.insert(name.to_lowercase()) {
        return Some(name);
    }
    let hash = xxh3_64(member.as_bytes()) & 0xffff_ffff;
    name.push_str(&format!("_{hash:0HASH_DIGITS$x}"));
    taken.insert(name.to_lowercase()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(members: &[&str]) -> Vec<Option<String>> {
        let mut taken = HashSet::new();
        members.iter().map(|member| column_name(member, &mut taken)).collect()
    }

    fn check(member: &str, name: &str) {
        assert_eq!(names(&[member]), [Some(name.to_owned())]);
    }

    #[test]
    fn a_member_has_a_column_of_its_name_unless_the_table_has_it_for_something_else() {
        check("total", "total");
        check("größe", "größe");
        check("a.b c", "a_b_c");
        for (member, name) in [
            ("key", "doc_key"),
            ("Seq", "doc_Seq"),
            ("misfits", "doc_misfits"),
            ("ingested_at", "doc_ingested_at"),
            ("key_bucket_32", "doc_key_bucket_32"),
            ("_file", "doc__file"),
            ("1st", "doc_1st"),
            ("", "doc_"),
        ] {
            check(member, name);
        }
    }

    #[test]
    fn names_that_differ_by_case_alone_are_told_apart_by_a_hash_of_the_member() {
        let found = names(&["Name", "name", "NAME"]);
        let [Some(first), Some(second), Some(third)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(first, "Name");
        assert!(second.starts_with("name_") && second.len() == "name_".len() + HASH_DIGITS);
        assert_ne!(second.to_lowercase(), third.to_lowercase());
        assert_eq!(names(&["Name", "name", "NAME"]), found);
    }
}
