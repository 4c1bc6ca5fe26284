//! Which of the metadata files in a table's folder is the current one. Pure.
//!
//! A metadata file is written before the pointer moves to it, so the newest one may be of a commit that
//! never happened. Each file names those before it, so what another one names was current once, and what
//! none names may be current now. Its one invariant: nothing older is chosen than the file that the newest
//! one was built on.

use serde::Deserialize;
use std::{cmp::Reverse, collections::HashSet};
use uuid::Uuid;

/// What every metadata file ends with, and one that is packed.
const ENDS: [&str; 2] = [".metadata.json", ".metadata.json.gz"];

/// Whether a file of the warehouse is called as metadata files are.
pub(super) fn is_metadata(location: &str) -> bool {
    ENDS.iter().any(|end| location.ends_with(end))
}

/// The number in the name of a metadata file of the usual form.
pub(super) fn number(location: &str) -> Option<u64> {
    let name = name(location);
    let digits: &str = name.split(['-', '.']).next()?;
    digits.strip_prefix('v').unwrap_or(digits).parse().ok()
}

/// What a metadata file of a table or view says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct MetadataHead {
    table_uuid: Option<Uuid>,
    view_uuid: Option<Uuid>,
    pub(super) location: String,
    last_updated_ms: Option<i64>,
    #[serde(default)]
    metadata_log: Vec<LogHead>,
    #[serde(default)]
    versions: Vec<VersionHead>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LogHead {
    metadata_file: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct VersionHead {
    timestamp_ms: i64,
}

impl MetadataHead {
    /// The identity of a table or view, and whether it is a view.
    pub(super) fn identity(&self) -> Option<(Uuid, bool)> {
        let view = self.view_uuid.map(|uuid| (uuid, true));
        self.table_uuid.map(|uuid| (uuid, false)).or(view)
    }

    /// When the table or view last changed.
    pub(super) fn at_ms(&self) -> i64 {
        let versions = self.versions.iter().map(|version| version.timestamp_ms).max();
        self.last_updated_ms.or(versions).unwrap_or(0)
    }
}

/// A metadata file that was read.
#[derive(Clone, Debug)]
pub(super) struct MetadataCandidate {
    pub(super) location: String,
    pub(super) head: MetadataHead,
}

impl MetadataCandidate {
    /// The name of the file that this one was built on, where it says so.
    pub(super) fn built_on(&self) -> Option<&str> {
        self.head.metadata_log.last().map(|entry| name(&entry.metadata_file))
    }

    /// Whether it says that another file was built on the same one as this tip, under the same number. A
    /// pointer has each number once, so the tip never was current.
    fn passes_by(&self, tip: &Self) -> bool {
        let (Some(base), Some(own)) = (tip.built_on(), number(&tip.location)) else { return false };
        let follows = |pair: &[LogHead]| {
            name(&pair[0].metadata_file) == base && number(&pair[1].metadata_file) == Some(own)
        };
        self.head.metadata_log.windows(2).any(follows)
    }

    /// The names of the files that it says came before it.
    pub(super) fn before(&self) -> impl Iterator<Item = &str> {
        self.head.metadata_log.iter().map(|entry| name(&entry.metadata_file))
    }
}

/// The file's own name: writers spell the folder in several ways.
pub(super) fn name(location: &str) -> &str {
    location.rsplit('/').next().unwrap_or(location)
}

/// What may be the current file of a table, the likeliest first.
#[derive(Debug, Default)]
pub(super) struct MetadataChoice<'a> {
    /// The newest file that none names, then others that were built on the same file, then that file.
    pub(super) ranked: Vec<&'a MetadataCandidate>,
    /// How many of them were built on the same file as the first, which is among them.
    pub(super) siblings: usize,
}

/// Ranks the files of one folder, all of one table or view.
pub(super) fn rank(read: &[MetadataCandidate]) -> MetadataChoice<'_> {
    let named: HashSet<&str> = read.iter().flat_map(MetadataCandidate::before).collect();
    let mut tips: Vec<&MetadataCandidate> =
        read.iter().filter(|file| !named.contains(name(&file.location))).collect();
    let is_passed = |tip: &MetadataCandidate| read.iter().any(|file| file.passes_by(tip));
    // Whatever the times say: the clocks of servers differ.
    tips.sort_by_cached_key(|tip| {
        (is_passed(tip), Reverse((tip.head.at_ms(), number(&tip.location))))
    });
    let Some(newest) = tips.first().copied() else { return MetadataChoice::default() };
    let base = newest.built_on();
    let is_sibling =
        |file: &&MetadataCandidate| base.is_some() && file.built_on() == base && !is_passed(file);
    let others = tips.iter().skip(1).copied().filter(is_sibling);
    let mut ranked: Vec<&MetadataCandidate> = std::iter::once(newest).chain(others).collect();
    let siblings = ranked.len();
    ranked.extend(read.iter().filter(|file| base == Some(name(&file.location))));
    MetadataChoice { ranked, siblings }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, at_ms: i64, before: &[&str]) -> MetadataCandidate {
        let log = before.iter().map(|file| LogHead { metadata_file: format!("s3://b/t/{file}") });
        let head = MetadataHead {
            table_uuid: Some(Uuid::nil()),
            last_updated_ms: Some(at_ms),
            metadata_log: log.collect(),
            ..MetadataHead::default()
        };
        MetadataCandidate { location: format!("s3://b/t/metadata/{name}"), head }
    }

    #[track_caller]
    fn check(files: &[MetadataCandidate], expected: &[&str], siblings: usize) {
        let choice = rank(files);
        let found: Vec<&str> = choice.ranked.iter().map(|file| name(&file.location)).collect();
        assert_eq!((found.as_slice(), choice.siblings), (expected, siblings));
    }

    #[test]
    fn the_newest_file_that_none_names_comes_first_and_then_what_it_was_built_on() {
        let files = [
            file("00000-a.metadata.json", 1, &[]),
            file("00001-b.metadata.json", 2, &["00000-a.metadata.json"]),
            file("00002-c.metadata.json", 3, &["00000-a.metadata.json", "00001-b.metadata.json"]),
        ];
        check(&files, &["00002-c.metadata.json", "00001-b.metadata.json"], 1);
    }

    #[test]
    fn two_files_on_one_are_both_candidates_and_the_newer_comes_first() {
        let files = [
            file("00000-a.metadata.json", 1, &[]),
            file("00001-b.metadata.json", 2, &["00000-a.metadata.json"]),
            file("00001-c.metadata.json", 5, &["00000-a.metadata.json"]),
        ];
        let expected = ["00001-c.metadata.json", "00001-b.metadata.json", "00000-a.metadata.json"];
        check(&files, &expected, 2);
        // A later one says which of them counts, whatever their times.
        let mut files = files.to_vec();
        files.push(file("00002-d.metadata.json", 6, &["00001-b.metadata.json"]));
        check(&files, &["00002-d.metadata.json", "00001-b.metadata.json"], 1);
    }

    #[test]
    fn a_file_that_another_line_passed_by_is_no_candidate_whatever_its_time() {
        let files = [
            file("00001-b.metadata.json", 2, &["00000-a.metadata.json"]),
            // Of a server whose clock is ahead, which ended before the pointer moved.
            file("00002-x.metadata.json", 99, &["00000-a.metadata.json", "00001-b.metadata.json"]),
            file("00002-c.metadata.json", 3, &["00000-a.metadata.json", "00001-b.metadata.json"]),
            file("00003-d.metadata.json", 4, &["00001-b.metadata.json", "00002-c.metadata.json"]),
        ];
        check(&files, &["00003-d.metadata.json", "00002-c.metadata.json"], 1);
        // An older file that was registered again goes on under a higher number.
        let mut files = files.to_vec();
        files.push(file("00005-e.metadata.json", 6, &["00001-b.metadata.json"]));
        check(&files, &["00005-e.metadata.json", "00001-b.metadata.json"], 1);
    }

    #[test]
    fn a_file_from_elsewhere_with_a_higher_number_is_what_the_next_one_was_built_on() {
        let files = [
            file("00057-a.metadata.json", 1, &[]),
            file("00001-b.metadata.json", 2, &["00057-a.metadata.json"]),
        ];
        check(&files, &["00001-b.metadata.json", "00057-a.metadata.json"], 1);
    }

    #[test]
    fn an_old_file_that_the_log_does_not_reach_is_no_candidate() {
        let files = [
            file("00001-old.metadata.json", 1, &[]),
            file("00200-new.metadata.json", 9, &["00199-x.metadata.json"]),
        ];
        check(&files, &["00200-new.metadata.json"], 1);
    }

    #[test]
    fn names_tell_numbers() {
        assert_eq!(number("s3://b/t/metadata/00012-x.metadata.json"), Some(12));
        assert_eq!(number("s3://b/t/metadata/v3.metadata.json"), Some(3));
        assert_eq!(number("s3://b/t/metadata/copy.metadata.json"), None);
        assert!(is_metadata("s3://b/t/metadata/00012-x.gz.metadata.json"));
        assert!(!is_metadata("s3://b/t/metadata/snap-1.avro"));
    }
}
