//! Which version's identities a folder of ids has: whether events may be known under those that version
//! 0.1.0 gave them.
//!
//! Its one invariant: the note is on disk before the first id of this version, so a folder without it
//! has ids of the former one, and those are out of the window once that has passed since the first
//! start.

use icecore_lake::wal::WalError;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

const FILE: &str = "derivation.json";
/// How the note is called until it is whole.
const UNFINISHED: &str = "derivation.json.next";
/// Counts up when events get other identities.
const CURRENT: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct DerivationNote {
    derivation: u32,
    /// Until when, in ms since 1970, events are looked for under their former identities too.
    #[serde(default)]
    former_until_ms: Option<i64>,
}

/// Until when, in ms since 1970, events are looked for under their former identities; `is_empty` is
/// whether no event was ever taken.
///
/// A note that is damaged or cannot be written is written at the next start: a longer window does no
/// harm.
///
/// # Errors
/// The file does not read.
pub(super) fn former_until_ms(
    folder: &Path,
    is_empty: bool,
    now_ms: i64,
    window_ms: i64,
) -> Result<Option<i64>, WalError> {
    let path = folder.join(FILE);
    let failed =
        |source| WalError::Io { operation: "read the note on ids", path: path.clone(), source };
    let note: Option<DerivationNote> = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).ok(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
        Err(cause) => return Err(failed(cause)),
    };
    if let Some(note) = note.filter(|note| note.derivation == CURRENT) {
        return Ok(note.former_until_ms);
    }
    let former_until_ms = (!is_empty).then(|| now_ms.saturating_add(window_ms));
    let note = DerivationNote { derivation: CURRENT, former_until_ms };
    if let Err(error) = write(folder, &note) {
        tracing::warn!(path = %path.display(), %error, "the note on ids is not written");
    }
    Ok(former_until_ms)
}

fn write(folder: &Path, note: &DerivationNote) -> io::Result<()> {
    let unfinished = folder.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_MS: i64 = 1_000;

    fn until(folder: &Path, is_empty: bool, now_ms: i64) -> Option<i64> {
        former_until_ms(folder, is_empty, now_ms, WINDOW_MS).unwrap()
    }

    #[test]
    fn a_folder_of_this_version_has_no_former_identities() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(until(folder.path(), true, 5_000), None);
        assert_eq!(until(folder.path(), false, 6_000), None, "what came since has this version's");
    }

    #[test]
    fn a_folder_of_a_former_version_has_them_for_one_window() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(until(folder.path(), false, 5_000), Some(6_000));
        assert_eq!(until(folder.path(), false, 9_000), Some(6_000), "restarts do not prolong it");
    }

    #[test]
    fn a_note_of_another_derivation_begins_a_window() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), r#"{"derivation":1}"#).unwrap();
        assert_eq!(until(folder.path(), false, 5_000), Some(6_000));
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(until(folder.path(), false, 7_000), Some(8_000), "it was damaged");
    }
}
