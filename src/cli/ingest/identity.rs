//! What an event of an input is known by that has no id of its own.
//!
//! A file's place, the event's place in it and what it says: the same file sent again, longer or not,
//! gives the same ids, and no two files share one.

use std::{fmt, io, path::Path};
use xxhash_rust::xxh3::xxh3_64;

/// Tells an input from others.
#[derive(Clone, Debug)]
pub(super) struct InputIdentity(String);

impl InputIdentity {
    /// That of the file that this path leads to, whichever way it is written.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let whole = path.canonicalize()?;
        Ok(Self(format!("{:016x}", xxh3_64(whole.as_os_str().as_encoded_bytes()))))
    }

    /// Of an input that has no name: another one in every run.
    pub(super) fn new_one() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// The id of the event that stands at this line, row or element and is written so.
    pub(super) fn id(&self, number: u64, event: &[u8]) -> String {
        format!("{self}-{number:08x}-{:016x}", xxh3_64(event))
    }
}

impl fmt::Display for InputIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
