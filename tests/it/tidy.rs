//! Checks of the code itself: which module may use which, where each library may be named, how long
//! a file may be, and that the documents name files that exist.
//!
//! They read the source as text, so they see a path written `crate::x`; `super::super` is refused.

mod types;

use crate::harness::files_below;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// For each module of the service and of the crates `lake` and `engine`, the modules it may name; all
/// of `engine` counts as one. What is not listed is an error: a new dependency between modules shows
/// up as a change of this table. `server`, `lib` and `main` wire everything together and are not
/// listed.
const MAY_USE: MayUse = &[
    // base
    ("blocking", &[]),
    ("clock", &[]),
    ("ids", &["clock"]),
    ("tasks", &[]),
    ("faults", &[]),
    ("load", &[]),
    ("metrics", &["load"]),
    // what a process knows of the metastore's one row on logs
    ("owner", &["tasks"]),
    // whether the store of the tables' files answers
    ("warehouse", &["tasks"]),
    // pure
    ("cron", &[]),
    ("event", &[]),
    ("collection", &["event"]),
    ("branch", &[]),
    // state
    // `collection` for the documents that an erasure takes
    ("store", &["clock", "collection"]),
    ("wal", &["clock", "faults", "metrics"]),
    ("table", &["blocking", "ids", "collection"]),
    // answers a statement over what it is given by value; it has no store, see `ENGINE_SEES`
    ("engine", &["blocking", "collection", "wal", "event", "table"]),
    // work: these never name one another
    // `collection` for the versions that events expect their documents to have
    ("ingest", &["wal", "event", "collection", "clock", "ids"]),
    (
        "flush",
        &[
            "blocking", "branch", "wal", "event", "table", "owner", "clock", "ids", "faults",
            "tasks", "metrics",
        ],
    ),
    // `cron` for the times of a materialised table
    (
        "sql",
        &[
            "cron",
            "branch",
            "collection",
            "engine",
            "wal",
            "event",
            "table",
            "owner",
            "ids",
            "faults",
            "metrics",
        ],
    ),
    (
        "maintenance",
        &[
            "blocking",
            "cron",
            "store",
            "wal",
            "event",
            "collection",
            "table",
            "clock",
            "ids",
            "faults",
            "tasks",
            "metrics",
            "owner",
            "load",
        ],
    ),
    // edge
    ("config", &["cron", "faults", "event"]),
    (
        "http",
        &[
            "blocking",
            "branch",
            "collection",
            "branch",
            "ingest",
            "flush",
            "sql",
            "engine",
            "maintenance",
            "event",
            "wal",
            "table",
            "owner",
            "clock",
            "ids",
            "tasks",
            "metrics",
        ],
    ),
    (
        "cli",
        &["config", "tasks", "server", "http", "sql", "engine", "event", "wal", "clock", "ids"],
    ),
];

/// The same for the modules of the catalog.
const CATALOG_MAY_USE: MayUse = &[
    // pure: names, rules and forms
    ("error", &[]),
    ("ancestors", &[]),
    ("background", &[]),
    ("clock", &[]),
    ("digest", &[]),
    ("avro", &[]),
    ("body", &[]),
    ("usage", &[]),
    ("names", &["error"]),
    ("location", &["error"]),
    ("principal", &["names"]),
    ("audit", &["clock", "digest"]),
    ("defaults", &[]),
    ("manifest_file", &["avro"]),
    ("metadata_file", &[]),
    ("view", &["error"]),
    ("row_sum", &[]),
    ("commit", &["ancestors", "error", "metadata_file"]),
    ("retention", &["ancestors", "commit", "metadata_file"]),
    ("columns", &["commit", "error"]),
    ("byte_cache", &[]),
    // state: files, and rows of a database
    ("storage", &["byte_cache", "error", "location", "usage"]),
    (
        "metastore",
        &[
            "audit",
            "background",
            "clock",
            "commit",
            "error",
            "location",
            "names",
            "principal",
            "row_sum",
        ],
    ),
    // work: one commit, one scan, one move; then the tables and views of a catalog
    (
        "scan",
        &[
            "ancestors",
            "byte_cache",
            "error",
            "location",
            "manifest_file",
            "metadata_file",
            "storage",
        ],
    ),
    (
        "snapshot",
        &[
            "ancestors",
            "avro",
            "commit",
            "error",
            "location",
            "manifest_file",
            "metastore",
            "retention",
            "row_sum",
            "storage",
            "usage",
        ],
    ),
    ("relocate", &["avro", "error", "location", "metadata_file", "metastore", "storage"]),
    (
        "catalog",
        &[
            "ancestors",
            "audit",
            "background",
            "clock",
            "columns",
            "commit",
            "defaults",
            "error",
            "location",
            "manifest_file",
            "metadata_file",
            "metastore",
            "names",
            "retention",
            "row_sum",
            "snapshot",
            "storage",
            "usage",
            "view",
        ],
    ),
    // edge: who is let in, and the protocol
    ("access", &["audit", "clock", "digest", "error", "metastore", "principal"]),
    (
        "rest",
        &[
            "access",
            "audit",
            "body",
            "catalog",
            "columns",
            "defaults",
            "error",
            "location",
            "metadata_file",
            "metastore",
            "retention",
            "scan",
            "storage",
            "view",
        ],
    ),
];

/// The two tables, and the folders whose modules they list.
const TABLES: &[(&[&str], MayUse)] =
    &[(&["lake/src", "engine/src", "src"], MAY_USE), (&["catalog/src"], CATALOG_MAY_USE)];

/// Rows of modules, each with those that it may name.
type MayUse = &'static [(&'static str, &'static [&'static str])];

/// Modules of the service that may name a library; everywhere else it is an error.
const SERVICE_SEAMS: &[(&str, &[&str])] = &[
    ("axum", &["http"]),
    ("croner", &["cron"]),
    ("datafusion", &["engine"]),
    ("iceberg", &["branch", "table", "engine", "sql", "flush"]),
    ("parquet", &["table", "engine", "flush", "cli"]),
    ("reqwest", &["cli"]),
    ("sqlx", &["store"]),
];

/// The same for the catalog, which names no library of the service at all.
const CATALOG_SEAMS: &[(&str, &[&str])] = &[
    ("axum", &["body", "rest"]),
    ("datafusion", &[]),
    ("icecore", &[]),
    ("icecore_schemas", &[]),
    ("reqwest", &["storage"]),
    ("sqlx", &["metastore", "error"]),
];

/// What `engine` may name where stores are: values that it is sent, and readers of files. So it can
/// run in a process that has neither the log nor the metastore.
const ENGINE_SEES: &[(&str, &[&str])] = &[
    ("icecore_catalog::", &["ancestors", "audit", "byte_cache", "scan", "storage"]),
    ("wal::", &["LogPosition", "RecordRef"]),
];

/// The folders whose files these checks read, and how they are called in a message.
const SOURCES: &[&str] = &[
    "src",
    "engine/src",
    "lake/src",
    "catalog/src",
    "schemas/src",
    "fuzz/src",
    "histories/src",
    "samples/src",
];

/// The files that start tasks. Those of the service are named, watched and stopped. The catalog, which
/// knows no service, starts only what was asked for and ends by itself, so that a client that goes away
/// does not break it off: a kill at any line of it is safe, and nothing waits for it at a stop.
const STARTS_TASKS: &[&str] = &["src/tasks.rs", "catalog/src/background.rs"];

/// The lines in front of a result that is thrown away, one of which says why.
const REASON_LINES: usize = 3;

/// The documents whose paths and links are checked; a folder stands for the files in it.
const DOCUMENTS: &[&str] =
    &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "benches/README.md", "docs", "docs/adr"];

/// The folders that a path in a document begins with.
const FOLDERS: &[&str] = &[
    "benches/",
    "catalog/src/",
    "docs/",
    "engine/src/",
    "fuzz/",
    "histories/",
    "lake/src/",
    "schemas/",
    "src/",
    "tests/",
];

/// Most lines of a source file; tests apart, which sit in `tests.rs`.
const FILE_LINES_MAX: usize = 500;

#[test]
fn modules_use_only_what_the_table_allows() {
    for (folders, table) in TABLES {
        check(folders, |file| {
            let Some(allowed) = row(table, &file.module) else { return Vec::new() };
            modules_named(&file.code)
                .into_iter()
                .filter(|used| row(table, used).is_some() || used == "server")
                .filter(|used| *used != file.module && !allowed.contains(&used.as_str()))
                .map(|used| format!("`{}` may not use `{used}`", file.module))
                .collect()
        });
    }
}

#[test]
fn every_module_is_in_the_table() {
    for (folders, table) in TABLES {
        check(folders, |file| {
            let wiring = ["lib", "main", "server"].contains(&file.module.as_str());
            if wiring || row(table, &file.module).is_some() {
                return Vec::new();
            }
            vec![format!("`{}` has no row in the table of its crate", file.module)]
        });
    }
}

/// A row of a table comes after the rows that it uses, so no arrow goes up and there is no circle.
#[test]
fn the_tables_have_no_arrow_up() {
    for (_, table) in TABLES {
        for (at, (name, used)) in table.iter().enumerate() {
            // `server` wires everything together and has no row.
            for below in used.iter().filter(|used| **used != "server") {
                let place = table.iter().position(|(listed, _)| *listed == *below);
                assert!(place.is_some_and(|place| place < at), "`{name}` uses `{below}` above it");
            }
        }
    }
}

#[test]
fn the_tables_allow_nothing_that_nobody_uses() {
    for (folders, table) in TABLES {
        let mut unused: std::collections::BTreeSet<(&str, &str)> = table
            .iter()
            .flat_map(|(name, used)| used.iter().map(move |used| (*name, *used)))
            .collect();
        check(folders, |file| {
            let uses = modules_named(&file.code);
            unused.retain(|(name, used)| *name != file.module || !uses.iter().any(|u| u == used));
            Vec::new()
        });
        assert!(unused.is_empty(), "{folders:?}: {unused:?}");
    }
}

#[test]
fn the_engine_has_no_store() {
    check(&["engine/src"], |file| {
        let named = ENGINE_SEES.iter().flat_map(|(place, seen)| {
            let named = names_after(&file.code, place).into_iter();
            named.filter(|name| !seen.contains(&name.as_str())).map(move |name| (*place, name))
        });
        named.map(|(place, name)| format!("`engine` may not name `{place}{name}`")).collect()
    });
}

#[test]
fn libraries_stay_behind_their_seam() {
    for ((folders, _), seams) in TABLES.iter().zip([SERVICE_SEAMS, CATALOG_SEAMS]) {
        check(folders, |file| {
            seams
                .iter()
                .filter(|(_, allowed)| !allowed.contains(&file.module.as_str()))
                .filter(|_| !["lib", "main", "server"].contains(&file.module.as_str()))
                .filter(|(library, _)| names_library(&file.code, library))
                .map(|(library, _)| format!("`{}` may not name `{library}`", file.module))
                .collect()
        });
    }
}

#[test]
fn files_stay_short() {
    check(SOURCES, |file| {
        let lines = file.text.lines().count();
        if lines <= FILE_LINES_MAX {
            return Vec::new();
        }
        vec![format!("{lines} lines: split it by responsibility")]
    });
}

#[test]
fn paths_are_written_from_the_crate() {
    check(SOURCES, |file| {
        let mut faults = Vec::new();
        if file.code.contains("super::super") {
            faults.push("write `crate::…`, not `super::super`".to_owned());
        }
        if file.path.ends_with("mod.rs") {
            faults.push("write `x.rs` beside `x/`, not `x/mod.rs`".to_owned());
        }
        faults
    });
}

#[test]
fn tasks_are_started_in_two_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    check(SOURCES, |file| {
        let is_allowed = STARTS_TASKS.iter().any(|name| file.path == root.join(name));
        let has_spawn = ["tokio::spawn(", "task::spawn(", "threads.spawn("]
            .iter()
            .any(|call| file.code.contains(call));
        if has_spawn == is_allowed {
            return Vec::new();
        }
        vec!["tasks are started in `tasks` and in the catalog's `background`".to_owned()]
    });
}

#[test]
fn results_that_are_thrown_away_have_a_reason() {
    check(SOURCES, |file| {
        let lines: Vec<&str> = file.text.lines().collect();
        let thrown = (0..lines.len()).filter(|at| without_comments(lines[*at]).contains("let _ ="));
        let bare = thrown.filter(|at| {
            let before = &lines[at.saturating_sub(REASON_LINES)..*at];
            !before.iter().any(|line| line.contains("//"))
        });
        bare.map(|at| format!("line {}: a comment has to say why", at + 1)).collect()
    });
}

#[test]
fn the_architecture_names_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        prose(&fs::read_to_string(root.join("ARCHITECTURE.md")).expect("a readable document"));
    let named = code_spans(&text);
    for (_, table) in TABLES {
        for (module, _) in *table {
            assert!(named.contains(module), "no row of ARCHITECTURE.md has `{module}`");
        }
    }
}

#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for document in DOCUMENTS.iter().flat_map(|name| markdown_files(&root.join(name))) {
        let text = prose(&fs::read_to_string(&document).expect("a readable document"));
        let folder = document.parent().expect("a document is in a folder");
        let paths = code_spans(&text).into_iter().filter(|span| is_path(span));
        let links = links(&text).into_iter().map(|link| folder.join(link));
        // A path may have arguments behind it, and a `*` stands for files of the folder before it.
        let named = paths.map(|path| root.join(path.split([' ', '*']).next().unwrap_or_default()));
        faults.extend(
            named
                .chain(links)
                .filter(|path| !path.exists())
                .map(|path| format!("{}: no {}", document.display(), path.display())),
        );
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// How tests ask whether their long form is wanted.
const LONG_FORM: [&str; 3] =
    ["var_os(\"LARGE\")", "\"LARGE\" in os.environ", "os.environ.get(\"LARGE\")"];

#[test]
fn every_long_form_of_a_test_has_a_row_that_says_how_to_run_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/building.md")).expect("a readable document");
    let (_, section) = text.split_once("## Long forms of tests").expect("a section about them");
    let mut told = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let spans = code_spans(row);
        let [file, command, ..] = spans.as_slice() else { panic!("{row}") };
        assert!(command.starts_with("LARGE="), "{row}");
        // What chooses the test: the first words of its name, or its file.
        let chosen = command.split(' ').find(|word| word.contains('_')).expect("a test");
        let source = fs::read_to_string(root.join(file)).expect("a readable test");
        assert!(chosen == *file || source.contains(&format!("fn {chosen}")), "{row}");
        told.push((*file).to_owned());
    }
    let folders = SOURCES.iter().chain(&["tests"]).map(|folder| root.join(folder));
    let files = folders.flat_map(|of| [".rs", ".py"].map(|end| files_below(&of, end)).concat());
    let is_long = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a readable source file");
        LONG_FORM.iter().any(|form| text.contains(form))
    };
    let below = |path: PathBuf| {
        let path = path.strip_prefix(root).expect("a file of the repository");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let mut asking: Vec<String> = files.filter(is_long).map(below).collect();
    // It is a part of the test whose row has `tests/it/maintenance_model.rs`.
    asking.retain(|path| path != "tests/it/maintenance_model/world.rs");
    told.sort_unstable();
    asking.sort_unstable();
    assert_eq!(told, asking);
}

#[test]
fn paths_and_links_of_a_document_are_found() {
    let text = prose(
        "`src/a.rs` and `b\nc`, [d](docs/d.md#e), [f](https://f.example)\n```\n`src/g.rs`\n```\n",
    );
    assert_eq!(code_spans(&text), ["src/a.rs", "b\nc"]);
    assert_eq!(links(&text), ["docs/d.md"]);
    assert!(is_path("src/a.rs") && is_path("x/y.rs") && !is_path("b") && !is_path("a.rs"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    let code = without_comments(
        "use crate::{wal::{Wal, block}, flush}; // crate::http\nlet x = crate::sql::View::new();",
    );
    assert_eq!(modules_named(&code), ["wal", "flush", "sql"]);
    assert_eq!(names_after(&code, "wal::"), ["Wal", "block"]);
    let code = "use icecore_lake::{clock, wal::Wal};\nuse icecore_engine::view;";
    assert_eq!(modules_named(code), ["clock", "wal", "engine"]);
    assert!(names_library("let a = axum::Router::new();", "axum"));
    assert!(names_library("use iceberg::{spec};", "iceberg"));
    assert!(!names_library("use icecore_iceberg::x; crate::iceberg::y();", "iceberg"));
}

/// One source file.
struct SourceFile {
    path: PathBuf,
    /// First part of its path below the source folder, without `.rs`: `wal` for `wal/segment.rs`.
    /// The crate `engine` is one module.
    module: String,
    text: String,
    /// The text without line comments.
    code: String,
}

/// Runs a check over every file of the folders and fails with all that it finds.
fn check(folders: &[&str], mut faults_of: impl FnMut(&SourceFile) -> Vec<String>) {
    let mut files = 0;
    let mut faults = Vec::new();
    for folder in folders {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for path in source_files(&root) {
            let file = read(&root, path);
            files += 1;
            let found = faults_of(&file);
            faults
                .extend(found.into_iter().map(|fault| format!("{}: {fault}", file.path.display())));
        }
    }
    assert!(0 < files, "no source files in {folders:?}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn read(root: &Path, path: PathBuf) -> SourceFile {
    let below = path.strip_prefix(root).expect("a file of the folder");
    let first = below.components().next().expect("a file name");
    let module = match root.ends_with("engine/src") {
        true => "engine".to_owned(),
        false => Path::new(first.as_os_str()).with_extension("").display().to_string(),
    };
    let text = fs::read_to_string(&path).expect("a readable source file");
    let code = without_comments(&text);
    SourceFile { path, module, text, code }
}

/// Every `.rs` file below `folder`, but the tests.
fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// The file itself, or the Markdown files of the folder.
fn markdown_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).expect("a readable folder");
    let files = entries.map(|entry| entry.expect("a readable entry").path());
    files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect()
}

/// A document without its code blocks.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between backticks.
fn code_spans(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// Whether a code span is a path of this repository: it begins with one of its folders, or is a Rust
/// file in some folder.
fn is_path(span: &str) -> bool {
    let is_below = FOLDERS.iter().any(|folder| span.starts_with(folder));
    is_below || (span.contains('/') && span.ends_with(".rs"))
}

/// The files that links lead to, without the heading.
fn links(prose: &str) -> Vec<&str> {
    prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

fn row<'a>(table: &'a [(&str, &[&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(listed, _)| *listed == name).map(|(_, row)| *row)
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Every module that is named as part of its crate.
fn modules_named(code: &str) -> Vec<String> {
    let mut named = names_after(code, "crate::");
    named.extend(names_after(code, "icecore_lake::"));
    named.extend(names_library(code, "icecore_engine").then(|| "engine".to_owned()));
    named
}

/// Every `x` of `place::x` and of `place::{x, y::z}`.
fn names_after(code: &str, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for after in code.split(place).skip(1) {
        match after.strip_prefix('{') {
            Some(group) => found.extend(group_names(group)),
            None => found.push(leading_name(after)),
        }
    }
    found
}

/// The names on the top level of a `use` group, given the text after its opening brace.
fn group_names(group: &str) -> Vec<String> {
    let mut names = vec![leading_name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(leading_name(&group[at + 1..])),
            _ => (),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn leading_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `library::` stands in the code at the start of a path.
fn names_library(code: &str, library: &str) -> bool {
    code.match_indices(&format!("{library}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}
