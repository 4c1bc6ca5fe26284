use super::*;
use apache_avro::{Schema, Writer, types::Record};

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
    let read = |members: &[(&str, u64, &str)]| {
        let read = manifests(&list(members), &LastSchema::default()).ok()?;
        Some(read.into_iter().map(|manifest| manifest.path).collect())
    };
    let found = Some(vec!["a".to_owned()]);
    assert_eq!(read(&[("manifest_path", 500, "a")]), found);
    assert_eq!(read(&[("manifest_path", 500, "a"), ("other", 501, "b")]), found);
    assert_eq!(read(&[("manifest_path", 500, "a"), ("decoy", 500, "b")]), None);
    assert_eq!(read(&[("manifest_path", 499, "a"), ("decoy", 500, "b")]), None);
    assert_eq!(read(&[("path", 500, "a")]), None);
    assert!(manifests(b"no avro", &LastSchema::default()).is_err());
    assert!(manifests(b"", &LastSchema::default()).is_err());
}

#[test]
fn a_list_has_a_million_manifests_at_most() {
    let one = list(&[("manifest_path", 500, "")]);
    let sync = &one[one.len() - 16..];
    let blocks = 16 + one.windows(16).position(|bytes| bytes == sync).unwrap();
    for (count, is_read) in [(MANIFESTS_MAX, true), (MANIFESTS_MAX + 1, false)] {
        let mut file = one[..blocks].to_vec();
        // The number of records and that of their bytes: each is an empty text, which is one byte.
        for _ in 0..2 {
            let mut left = count * 2;
            while 0x7f < left {
                file.push((left & 0x7f) as u8 | 0x80);
                left >>= 7;
            }
            file.push(left as u8);
        }
        file.resize(file.len() + count, 0);
        file.extend(sync);
        assert_eq!(
            manifests(&file, &LastSchema::default()).map(|read| read.len()),
            match is_read {
                true => Ok(count),
                false => Err("it has more than 1000000 manifests: merge them".to_owned()),
            }
        );
    }
}

#[test]
fn a_file_that_claims_values_without_bytes_is_given_up() {
    let header = list(&[("manifest_path", 500, "a")]);
    // The same header with another schema, and a block of very many records without a field.
    let schema = br#"{"type":"record","name":"r","fields":[{"name":"manifest_path","type":"null","field-id":500}]}"#;
    let sync = &header[header.len() - 16..];
    let mut file = b"Obj\x01\x02".to_vec();
    for text in [b"avro.schema".as_slice(), schema] {
        let mut length = text.len() * 2;
        while 0x7f < length {
            file.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        file.push(length as u8);
        file.extend(text);
    }
    file.push(0);
    file.extend(sync);
    file.extend([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]);
    file.extend(sync);
    let cause = manifests(&file, &LastSchema::default()).unwrap_err();
    assert!(cause.contains("too many values"), "{cause}");
}

#[test]
fn a_schema_that_is_known_stands_for_the_same_text_alone() {
    let last = LastSchema::default();
    let read = |members: &[(&str, u64, &str)]| {
        let read = manifests(&list(members), &last).ok()?;
        Some(read.into_iter().map(|manifest| manifest.path).collect::<Vec<_>>())
    };
    let path = |path: &str| Some(vec![path.to_owned()]);
    for _ in 0..2 {
        assert_eq!(read(&[("manifest_path", 500, "a")]), path("a"));
        assert_eq!(read(&[("manifest_path", 500, "b")]), path("b"));
        assert_eq!(read(&[("other", 501, "c"), ("manifest_path", 500, "d")]), path("d"));
        // One that is refused is refused again, whatever was read before.
        assert_eq!(read(&[("path", 500, "a")]), None);
    }
}
