//! What manifests say that the folder has not. They are hints: files are found by looking, and a manifest that
//! is older than the last compaction names files that were merged since.

use crate::cli::layout::{folder::LayoutFolder, report::FileRemark};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Largest manifest that is looked into.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// How many missing files of one manifest are told.
const MISSING_SHOWN_MAX: usize = 10;

/// Which files manifests name that are not there, and which manifests cannot be read.
pub(in crate::cli) fn remarks(root: &Path, found: &LayoutFolder) -> Vec<FileRemark> {
    let mut remarks = Vec::new();
    for (name, path) in &found.manifests {
        let mut remark = |reason: String| remarks.push(FileRemark { file: name.clone(), reason });
        let manifest: Value = match read(path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(manifest)) => manifest,
            Ok(Err(cause)) => {
                remark(format!("it is not JSON: {cause}"));
                continue;
            }
            Err(cause) => {
                remark(cause.to_string());
                continue;
            }
        };
        let folder = path.parent().unwrap_or(root);
        let mut named = Vec::new();
        file_names(&manifest, &mut named);
        named.retain(|it| !folder.join(it).exists() && !root.join(it).exists());
        for missing in named.iter().take(MISSING_SHOWN_MAX) {
            remark(format!("it names `{missing}`, which is not there"));
        }
        if MISSING_SHOWN_MAX < named.len() {
            let more = named.len() - MISSING_SHOWN_MAX;
            remark(format!("it names {more} more files that are not there"));
        }
    }
    remarks
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The texts of a manifest that are names of files with rows.
fn file_names<'a>(value: &'a Value, names: &mut Vec<&'a str>) {
    match value {
        Value::String(text) if text.ends_with(".parquet") || text.ends_with(".jsonl") => {
            names.push(text);
        }
        Value::Array(list) => list.iter().for_each(|it| file_names(it, names)),
        Value::Object(members) => members.values().for_each(|it| file_names(it, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}
