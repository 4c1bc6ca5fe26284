//! Files that no metadata names and that stay all the same: nobody can tell what they are, or how old.

use super::reachable::checked_file;
use crate::storage::Storage;
use std::collections::BTreeMap;

/// How the names end of the files that Iceberg's writers put into a table.
const ENDINGS: [&str; 7] =
    [".parquet", ".avro", ".orc", ".puffin", ".stats", ".metadata.json", ".metadata.json.gz"];

/// Why a file stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeptReason {
    /// It is a link or a device.
    NoFile,
    /// No writer gives such a name.
    Name,
    /// The store does not tell when it was written.
    Age,
    /// It was written later than now.
    Future,
}

/// Which files stay.
#[derive(Debug, Default)]
pub(super) struct KeptFiles(BTreeMap<KeptReason, KeptCount>);

/// How many, and one of them.
#[derive(Debug, Default)]
struct KeptCount {
    files: u64,
    first: String,
}

impl KeptFiles {
    pub(super) fn add(&mut self, reason: KeptReason, location: &str) {
        let count = self.0.entry(reason).or_default();
        count.files += 1;
        // The same one each time, in whichever order they are listed.
        if count.files == 1 || location < count.first.as_str() {
            location.clone_into(&mut count.first);
        }
    }

    /// How many files stay, in words.
    pub(super) fn reasons(&self) -> Vec<String> {
        let reason = |(reason, KeptCount { files, first }): (&KeptReason, &KeptCount)| {
            let why = match reason {
                KeptReason::NoFile => "is a link or a device",
                KeptReason::Name => "has a name that no writer of Iceberg tables gives",
                KeptReason::Age => "does not tell when it was written",
                KeptReason::Future => "was written later than now",
            };
            match *files {
                1 => format!("1 file that no snapshot has is kept: `{first}` {why}"),
                _ => format!("{files} files that no snapshot has are kept: `{first}` {why}"),
            }
        };
        self.0.iter().map(reason).collect()
    }
}

/// Whether a file may be one that a writer left behind, by its name: a file of a table, a checksum of
/// one, or what the service itself was writing at a crash.
pub(super) fn is_of_a_writer(storage: &Storage, location: &str) -> bool {
    let checked = checked_file(location);
    let location = checked.as_deref().unwrap_or(location);
    let name = location.rsplit('/').next().unwrap_or_default();
    storage.is_temporary(name) || ENDINGS.iter().any(|ending| name.ends_with(ending))
}
