use super::*;
use crate::columns::DEAD_LETTERS;
use std::{collections::HashSet, fs, path::Path};

/// The file is what `text` says; `UPDATE=1` makes it so.
fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{file} is not what the columns say; run the test with UPDATE=1");
}

#[test]
fn the_files_are_what_the_columns_say() {
    check("iceberg/events.json", &iceberg_schema(EVENTS));
    check("iceberg/dead_letters.json", &iceberg_schema(DEAD_LETTERS));
    check("avro/event.avsc", &avro_event_schema());
}

#[test]
fn the_columns_of_the_first_version_have_field_ids_and_the_later_ones_come_after_them() {
    for (columns, first_version) in [(EVENTS, 54), (DEAD_LETTERS, 12)] {
        for (position, column) in columns.iter().enumerate() {
            let id = (position < first_version).then(|| i32::try_from(position + 1).unwrap());
            assert_eq!(column.id, id, "{}", column.name);
            assert!(id.is_some() || !column.required, "{}", column.name);
            assert!(!column.doc.is_empty());
        }
        let names: HashSet<_> = columns.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), columns.len());
    }
}
