use super::*;
use apache_avro::{Writer, types::Record};

/// A manifest list whose records have these string members: name, field id, value.
fn list(members: &[(&str, u64, &str)]) -> Vec<u8> {
    let fields: Vec<_> = members
        .iter()
        .map(|(name, id, _)| serde_json::json!({"name": name, "type": "string", "field-id": id}))
        .collect();
    let schema = serde_json::json!({"type": "record", "name": "manifest_file", "fields": fields});
    let schema = Schema::parse(&schema).unwrap();
    let mut writer = Writer::new(&schema, Vec::new());
    let mut record = Record::new(&schema).unwrap();
    for (name, _, value) in members {
        record.put(name, *value);
    }
    writer.append(record).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_member_that_two_readers_find_in_two_places_is_none() {
    let read = |members: &[(&str, u64, &str)]| texts(&list(members), MANIFEST_PATH);
    let found = Some(vec!["a".to_owned()]);
    assert_eq!(read(&[("manifest_path", 500, "a")]), found);
    assert_eq!(read(&[("manifest_path", 500, "a"), ("other", 501, "b")]), found);
    assert_eq!(read(&[("manifest_path", 500, "a"), ("decoy", 500, "b")]), None);
    assert_eq!(read(&[("manifest_path", 499, "a"), ("decoy", 500, "b")]), None);
    assert_eq!(read(&[("path", 500, "a")]), None);
    assert_eq!(texts(b"no avro", MANIFEST_PATH), None);
    assert_eq!(texts(b"", MANIFEST_PATH), None);
}
