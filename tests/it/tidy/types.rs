//! Names of types: nouns of the field, of two words rather than one, so that a reader can search
//! for them.

use std::path::{Path, PathBuf};

use super::{source_files, without_comments};

/// The folders whose types are counted.
const FOLDERS: &[&str] = &["src", "engine/src", "lake/src", "catalog/src", "schemas/src"];

/// Most types with a name of one word, in a hundred.
const ONE_WORD_PERCENT_MAX: usize = 33;

/// Most types called by a bare participle or gerund, in a hundred.
const PARTICIPLE_PERCENT_MAX: usize = 2;

/// Participles that do not end in `-ed` or `-ing`.
const IRREGULAR: &[&str] = &[
    "Begun",
    "Bound",
    "Broken",
    "Brought",
    "Built",
    "Chosen",
    "Come",
    "Cut",
    "Done",
    "Drawn",
    "Fallen",
    "Forgotten",
    "Found",
    "Given",
    "Gone",
    "Held",
    "Hidden",
    "Kept",
    "Known",
    "Laid",
    "Left",
    "Lent",
    "Lost",
    "Made",
    "Meant",
    "Met",
    "Paid",
    "Put",
    "Read",
    "Said",
    "Seen",
    "Sent",
    "Shown",
    "Shut",
    "Split",
    "Spoken",
    "Spread",
    "Stood",
    "Sworn",
    "Taken",
    "Thrown",
    "Told",
    "Torn",
    "Understood",
    "Unread",
    "Untold",
    "Withdrawn",
    "Won",
    "Written",
];

/// Nouns that look like participles.
const NOUNS: &[&str] = &[
    "Binding", "Building", "Encoding", "Feed", "Finding", "Heading", "Listing", "Mapping",
    "Meaning", "Need", "Ping", "Seed", "Setting", "Speed", "Spelling", "String", "Thing", "Timing",
    "Warning",
];

#[test]
fn most_types_have_names_of_two_words() {
    let types = all_types();
    let one_word: Vec<&Type> = types.iter().filter(|found| words(&found.name) == 1).collect();
    assert_few(&one_word, types.len(), ONE_WORD_PERCENT_MAX, "of one word");
}

#[test]
fn types_are_nouns() {
    let types = all_types();
    let bare: Vec<&Type> = types.iter().filter(|found| is_participle(&found.name)).collect();
    assert_few(&bare, types.len(), PARTICIPLE_PERCENT_MAX, "participles or gerunds");
}

#[test]
fn the_check_of_names_sees_what_it_looks_for() {
    let code = "pub(in crate::x) struct PlanCost(u64);\nenum Held<'a> {\n    Type,\n}\n\
                impl Iterator for X {\n    type Item = u8;\n}\nfn f() {\n    struct Inner;\n}\n\
                pub type Rows = u8;\npub trait Job {}\nstructure!();\n";
    assert_eq!(declared(code), ["PlanCost", "Held", "Inner", "Rows", "Job"]);
    for (name, expected) in [("Wal", 1), ("PlanCost", 2), ("S3Options", 2), ("JSONRows", 2)] {
        assert_eq!(words(name), expected, "{name}");
    }
    assert!(["Held", "Buried", "Waiting"].into_iter().all(is_participle));
    assert!(!["Feed", "Setting", "HeldRows", "Wal"].into_iter().any(is_participle));
}

/// A type of the code, tests apart.
struct Type {
    name: String,
    path: PathBuf,
}

fn all_types() -> Vec<Type> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut types = Vec::new();
    for path in FOLDERS.iter().flat_map(|folder| source_files(&root.join(folder))) {
        if path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable source file");
        types.extend(
            declared(&without_comments(&text))
                .into_iter()
                .map(|name| Type { name, path: path.clone() }),
        );
    }
    types
}

/// The names of the types that a text declares. What a trait calls `type` is not ours to name.
fn declared(code: &str) -> Vec<String> {
    code.lines().filter_map(declared_in).collect()
}

fn declared_in(line: &str) -> Option<String> {
    let public = line.trim_start().strip_prefix("pub");
    let code = public.map_or(line, |rest| match rest.strip_prefix('(') {
        Some(limited) => limited.split_once(')').map_or("", |(_, code)| code),
        None => rest,
    });
    let mut parts = code.split_whitespace();
    let keyword = parts.next()?;
    let is_ours = match keyword {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !line.starts_with(' '),
        _ => false,
    };
    let name: String = parts.next()?.chars().take_while(|c| c.is_alphanumeric()).collect();
    (is_ours && name.starts_with(|c: char| c.is_uppercase())).then_some(name)
}

/// How many words a name in camel case has; an abbreviation in capitals is one.
fn words(name: &str) -> usize {
    let chars: Vec<char> = name.chars().collect();
    (0..chars.len())
        .filter(|at| {
            let before = at.checked_sub(1).map(|before| chars[before]);
            let starts_lower = chars.get(at + 1).is_some_and(|after| after.is_lowercase());
            chars[*at].is_uppercase()
                && before.is_none_or(|before| !before.is_uppercase() || starts_lower)
        })
        .count()
}

fn is_participle(name: &str) -> bool {
    let ends = name.ends_with("ed") || name.ends_with("ing") || IRREGULAR.contains(&name);
    words(name) == 1 && ends && !NOUNS.contains(&name)
}

fn assert_few(found: &[&Type], all: usize, percent_max: usize, what: &str) {
    assert!(0 < all, "no types");
    let names: Vec<String> =
        found.iter().map(|found| format!("{}: {}", found.path.display(), found.name)).collect();
    assert!(
        found.len() * 100 <= percent_max * all,
        "{} of {all} types are {what}, more than {percent_max} %:\n{}",
        found.len(),
        names.join("\n")
    );
}
