//! Paths of folders as they are kept: locations of a warehouse have no `..`.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// The path from the root without `.` and `..`. A link keeps its name, but where `..` follows: above
/// it is the folder that has what it leads to.
///
/// # Errors
/// The path is empty, or the working folder is gone.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path);
    }
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain = std::fs::canonicalize(&plain).unwrap_or(plain);
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    Ok(plain)
}
