//! The files of a folder, and what each is by its place.
//!
//! Nothing is read but names and sizes. Each file is either read, set aside because it has no events of its
//! own, or skipped with a reason: none is passed over in silence.

use crate::cli::{
    CliError,
    ingest::{
        FileFormat,
        source::{failed_at, format_of_name},
    },
};
use chrono::NaiveDate;
use icecore_schemas::names::Namespace;
use std::{
    collections::BTreeMap,
    fs::DirEntry,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Folders of events by the hour. Without one of these names the years are at the top, as older copies
/// have it.
const STREAMS: [&str; 3] = ["events", "webhooks", "tail"];
/// What the name of a file begins with that repeats the rows of others.
const COMPACTED: &str = "_compact_";
/// What says of a folder which files it should have.
const MANIFEST: &str = "manifest.json";
/// How deep folders are looked into; the layout has at most seven levels.
const DEPTH_MAX: usize = 16;

/// What the rows of a file are, in the order in which files are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum FileKind {
    /// Events.
    Events,
    /// Changes of a collection.
    Deltas,
    /// Documents of a collection as they are now.
    Documents,
    /// Messages that a consumer gave up.
    DeadLetters,
}

/// What the place of a file says of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct FilePlace {
    pub(in crate::cli) kind: FileKind,
    /// Of rows that name none.
    pub(in crate::cli) namespace: Option<String>,
    pub(in crate::cli) collection: Option<String>,
    /// The rows of a group's files are counted together, those of each layer by themselves. A compacted file
    /// and a message are a group of their own: another one may repeat their rows or not.
    pub(in crate::cli) group: String,
    /// 0 for a file as it was first written; a higher one repeats rows of those below it.
    pub(in crate::cli) layer: u8,
    /// The start of its hour, or of its day where it has no hour.
    pub(in crate::cli) hour: Option<String>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileRole {
    /// One with rows.
    Rows(FilePlace),
    /// A list of files, which is read and not relied on.
    Manifest,
    /// One that has no events of its own, and why.
    Aside(&'static str),
    /// One that is not read, and why.
    Unknown(String),
}

/// A file with rows.
#[derive(Clone, Debug)]
pub(in crate::cli) struct LayoutFile {
    pub(in crate::cli) path: PathBuf,
    /// Its path below the folder, with `/`.
    pub(in crate::cli) name: String,
    pub(in crate::cli) place: FilePlace,
    pub(in crate::cli) format: FileFormat,
    pub(in crate::cli) bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub(in crate::cli) modified_ms: u64,
}

/// The files of a folder.
#[derive(Debug, Default)]
pub(in crate::cli) struct LayoutFolder {
    /// In the order in which they are sent.
    pub(in crate::cli) files: Vec<LayoutFile>,
    /// Manifests.
    pub(in crate::cli) manifests: Vec<(String, PathBuf)>,
    /// How many files have no events of their own, by the reason.
    pub(in crate::cli) aside: BTreeMap<&'static str, u64>,
    /// What is not read, and why.
    pub(in crate::cli) skipped: Vec<(String, String)>,
}

impl LayoutFolder {
    /// Looks at all of a folder.
    ///
    /// # Errors
    /// [`CliError::Io`] for a folder that cannot be read.
    pub(in crate::cli) fn open(root: &Path) -> Result<Self, CliError> {
        let mut found = Self::default();
        let mut folders = vec![(root.to_owned(), Vec::<String>::new())];
        while let Some((folder, parts)) = folders.pop() {
            let failed = failed_at(&folder);
            for entry in folder.read_dir().map_err(&failed)? {
                let entry = entry.map_err(&failed)?;
                let mut below = parts.clone();
                below.push(entry.file_name().to_string_lossy().into_owned());
                let file_type = entry.file_type().map_err(&failed)?;
                if entry.file_name().to_str().is_none() {
                    found.skip(&below, "its name is not UTF-8");
                } else if file_type.is_dir() && below.len() < DEPTH_MAX {
                    folders.push((entry.path(), below));
                } else if file_type.is_dir() {
                    found.skip(&below, "too many folders in folders");
                } else {
                    found.add(&entry, &below);
                }
            }
        }
        found.files.sort_by(|a, b| {
            let kinds = a.place.kind.cmp(&b.place.kind);
            kinds
                .then_with(|| a.place.group.cmp(&b.place.group))
                .then_with(|| a.place.layer.cmp(&b.place.layer))
                .then_with(|| a.name.cmp(&b.name))
        });
        found.skipped.sort();
        found.manifests.sort();
        Ok(found)
    }

    fn skip(&mut self, parts: &[String], reason: impl Into<String>) {
        self.skipped.push((parts.join("/"), reason.into()));
    }

    /// Adds a file. A link counts as what it leads to, unless that is a folder.
    fn add(&mut self, entry: &DirEntry, parts: &[String]) {
        let path = entry.path();
        let metadata = match path.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => {
                return self.skip(parts, "a link to a folder, or no file; import it by itself");
            }
            Err(cause) => return self.skip(parts, cause.to_string()),
        };
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        match role_of(&names) {
            FileRole::Rows(place) => {
                let since =
                    metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let modified_ms = since.map_or(0, |since| since.as_millis());
                let format = format_of_name(&path).unwrap_or(FileFormat::Ndjson);
                self.files.push(LayoutFile {
                    name: parts.join("/"),
                    place,
                    format,
                    bytes: metadata.len(),
                    modified_ms: u64::try_from(modified_ms).unwrap_or(u64::MAX),
                    path,
                });
            }
            FileRole::Manifest => self.manifests.push((parts.join("/"), path)),
            FileRole::Aside(reason) => *self.aside.entry(reason).or_default() += 1,
            FileRole::Unknown(reason) => self.skip(parts, reason),
        }
    }
}

/// What a file is whose path below the folder has these parts.
pub(super) fn role_of(parts: &[&str]) -> FileRole {
    let (namespace, rest) = match parts {
        ["ns", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        _ => (None, parts),
    };
    let role = match rest {
        ["dedup", ..] => FileRole::Aside("a marker of an event that was taken; it has no event"),
        [.., MANIFEST] => FileRole::Manifest,
        ["cdc", rest @ ..] => collection_file(parts, rest, namespace),
        ["dead-letter", "queue", .., _] => FileRole::Rows(FilePlace {
            kind: FileKind::DeadLetters,
            namespace: namespace.map(str::to_owned),
            collection: None,
            group: parts.join("/"),
            layer: 0,
            hour: None,
        }),
        _ => event_file(parts, rest, namespace),
    };
    let reason = match &role {
        FileRole::Rows(place) => refusal(place, parts),
        FileRole::Manifest | FileRole::Aside(_) | FileRole::Unknown(_) => None,
    };
    reason.map_or(role, FileRole::Unknown)
}

/// Why a file at a place of the layout is not read after all.
fn refusal(place: &FilePlace, parts: &[&str]) -> Option<String> {
    if let Some(namespace) = &place.namespace
        && let Err(cause) = Namespace::parse(namespace)
    {
        return Some(format!("its folder `{namespace}` is not a namespace: {cause}"));
    }
    let name = parts.last().copied().unwrap_or_default();
    match format_of_name(Path::new(name)) {
        Some(FileFormat::Parquet | FileFormat::Ndjson | FileFormat::Json) => None,
        _ => Some("its name does not end in .parquet, .jsonl, .ndjson or .json".to_owned()),
    }
}

/// A file below `cdc`: `NS/COLLECTION/…`, and `COLLECTION/…` where the namespace is known from above.
fn collection_file(parts: &[&str], rest: &[&str], above: Option<&str>) -> FileRole {
    let is_folder = |part: &&str| ["deltas", "processed", "snapshots"].contains(part);
    let at = match rest.iter().position(is_folder) {
        Some(at) if at + 2 == rest.len() => at,
        _ => rest.len().saturating_sub(1),
    };
    let (namespace, collection) = match (&rest[..at], above) {
        ([namespace, collection], _) => (Some(*namespace), *collection),
        ([collection], Some(above)) => (Some(above), *collection),
        _ => {
            let reason = "it is not at cdc/NS/COLLECTION/data.parquet or …/deltas/";
            return FileRole::Unknown(reason.to_owned());
        }
    };
    let folder = parts[..parts.len() - (rest.len() - at)].join("/");
    let place = |kind: FileKind, layer: u8| {
        FileRole::Rows(FilePlace {
            kind,
            namespace: namespace.map(str::to_owned),
            collection: Some(collection.to_owned()),
            group: if layer == 1 { parts.join("/") } else { format!("{folder}/{kind:?}") },
            layer,
            hour: None,
        })
    };
    match &rest[at..] {
        ["data.parquet"] => place(FileKind::Documents, 0),
        ["deltas", name] if name.starts_with(COMPACTED) => place(FileKind::Deltas, 1),
        ["deltas", _] => place(FileKind::Deltas, 0),
        // Copied there from `deltas`, and deleted there a moment later.
        ["processed", _] => place(FileKind::Deltas, 2),
        ["snapshots", _] => FileRole::Aside("a copy of documents of an earlier day"),
        _ => FileRole::Unknown("it is no file of a collection that the layout has".to_owned()),
    }
}

/// A file at `[events/]YEAR/MONTH/DAY/[HOUR/]`.
fn event_file(parts: &[&str], rest: &[&str], namespace: Option<&str>) -> FileRole {
    let dated = match rest {
        [stream, dated @ ..] if STREAMS.contains(stream) => dated,
        _ => rest,
    };
    let found = match dated {
        [year, month, day, hour, name] => hour_of(year, month, day, hour).zip(Some((*name, true))),
        [year, month, day, name] => hour_of(year, month, day, "0").zip(Some((*name, false))),
        _ => None,
    };
    let Some((hour, (name, has_hour))) = found else {
        let reason = "it is not at a place of the layout, such as events/2026/11/20/14/";
        return FileRole::Unknown(reason.to_owned());
    };
    let layer = match (name.starts_with(COMPACTED), has_hour) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => 2,
    };
    let below_day = if has_hour { 2 } else { 1 };
    let counted = if layer == 0 { &parts[..parts.len() - below_day] } else { parts };
    FileRole::Rows(FilePlace {
        kind: FileKind::Events,
        namespace: namespace.map(str::to_owned),
        collection: None,
        group: counted.join("/"),
        layer,
        hour: Some(hour),
    })
}

/// The start of an hour as a time; none where the parts are no date.
fn hour_of(year: &str, month: &str, day: &str, hour: &str) -> Option<String> {
    let number = |text: &str, digits_max: usize| {
        let is_number = !text.is_empty()
            && text.len() <= digits_max
            && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u32>().ok()).flatten()
    };
    let year = number(year, 4).filter(|_| year.len() == 4)?;
    let date =
        NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, number(month, 2)?, number(day, 2)?);
    let time = date?.and_hms_opt(number(hour, 2)?, 0, 0)?;
    Some(time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
