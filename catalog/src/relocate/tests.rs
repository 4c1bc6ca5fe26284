use super::WarehouseMove;
use crate::{avro, location::Location};
use apache_avro::{Reader, Schema, Writer, types::Value};

/// Every kind of type that a manifest has, and some that it has not.
const SCHEMA: &str = r#"{"type": "record", "name": "entry", "fields": [
    {"name": "status", "type": "int", "field-id": 0},
    {"name": "kept", "type": {"type": "fixed", "name": "sixteen", "size": 16}},
    {"name": "again", "type": ["null", "sixteen"]},
    {"name": "data_file", "type": {"type": "record", "name": "r2", "fields": [
        {"name": "file_path", "type": "string", "field-id": 100},
        {"name": "partition", "type": {"type": "record", "name": "r102", "fields": [
            {"name": "file_path", "type": ["null", "string"]},
            {"name": "share", "type": "double"}, {"name": "part", "type": "float"},
            {"name": "flag", "type": "boolean"}
        ]}},
        {"name": "lower_bounds", "type": ["null", {"type": "array", "logicalType": "map", "items":
            {"type": "record", "name": "k126_v127", "fields": [
                {"name": "key", "type": "int"}, {"name": "value", "type": "bytes"}]}}]},
        {"name": "size", "type": "long"},
        {"name": "others", "type": {"type": "map", "values": "long"}}
    ]}}
]}"#;

fn row(path: &str, size: i64) -> Value {
    let record = |fields: Vec<(&str, Value)>| {
        Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let bound = record(vec![("key", Value::Int(7)), ("value", Value::Bytes(vec![0, 255, 3]))]);
    let file = record(vec![
        ("file_path", Value::String(path.to_owned())),
        (
            "partition",
            record(vec![
                ("file_path", Value::Union(1, Box::new(Value::String(path.to_owned())))),
                ("share", Value::Double(-0.5)),
                ("part", Value::Float(1.25)),
                ("flag", Value::Boolean(true)),
            ]),
        ),
        ("lower_bounds", Value::Union(1, Box::new(Value::Array(vec![bound.clone(), bound])))),
        ("size", Value::Long(size)),
        ("others", Value::Map([("a".to_owned(), Value::Long(i64::MIN))].into())),
    ]);
    record(vec![
        ("status", Value::Int(-3)),
        ("kept", Value::Fixed(16, (0..16).collect())),
        ("again", Value::Union(1, Box::new(Value::Fixed(16, vec![9; 16])))),
        ("data_file", file),
    ])
}

struct Edit(WarehouseMove);

impl avro::ValueEdit for Edit {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        (path == ["data_file", "file_path"]).then(|| self.0.path(value)).flatten()
    }

    fn number(&mut self, path: &[&str], value: i64) -> Option<i64> {
        (path == ["data_file", "size"]).then(|| value + 1)
    }
}

fn a_move() -> WarehouseMove {
    let location = |text| Location::parse(text).unwrap();
    WarehouseMove { from: location("file:///old/lake"), to: location("file:///new") }
}

#[test]
fn what_is_not_edited_stays_whatever_its_type_and_codec() {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let codecs = [
        apache_avro::Codec::Null,
        apache_avro::Codec::Deflate(apache_avro::DeflateSettings::default()),
        apache_avro::Codec::Snappy,
        apache_avro::Codec::Zstandard(apache_avro::ZstandardSettings::default()),
    ];
    for codec in codecs {
        let mut writer = Writer::with_codec(&schema, Vec::new(), codec);
        writer.add_user_metadata("format-version".to_owned(), "2").unwrap();
        for n in 0..500 {
            writer.append(row("file:///old/lake/a.parquet", n)).unwrap();
        }
        writer.append(row("file:///old/lakes/b.parquet", -1)).unwrap();
        let file = writer.into_inner().unwrap();
        let new = avro::rewrite(&file, &mut Edit(a_move())).unwrap();
        let reader = Reader::new(&new[..]).unwrap();
        assert_eq!(reader.user_metadata()["format-version"], b"2");
        let rows: Vec<Value> = reader.map(Result::unwrap).collect();
        assert_eq!(rows.len(), 501);
        let partition = |row: &Value| format!("{row:?}").matches("/old/lake/a.parquet").count();
        for (n, row) in rows.iter().take(500).enumerate() {
            let text = format!("{row:?}");
            assert!(text.contains("file:///new/a.parquet"), "{text}");
            assert!(text.contains(&format!("Long({})", n + 1)), "{text}");
            // A partition's value is no path, whatever it is called.
            assert_eq!(partition(row), 1);
        }
        assert_eq!(rows[500], row("file:///old/lakes/b.parquet", 0));
    }
}

#[test]
fn a_file_that_is_cut_is_refused() {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let mut writer = Writer::new(&schema, Vec::new());
    writer.append(row("file:///old/lake/a.parquet", 1)).unwrap();
    let file = writer.into_inner().unwrap();
    for length in 0..file.len() {
        let is_header = avro::rewrite(&file[..length], &mut Edit(a_move())).is_ok();
        // A header without a block is a file without rows.
        assert!(!is_header || length < file.len() - 16, "cut at {length}");
    }
}

#[test]
fn a_file_keeps_one_mark_however_often_it_moves() {
    let first = a_move();
    let location = |text| Location::parse(text).unwrap();
    let second = WarehouseMove { from: location("file:///new"), to: location("file:///newer") };
    let once = first.renamed("file:///new/t/metadata/snap-1.avro");
    let twice = second.renamed(&second.path(&once).unwrap());
    assert!(once.starts_with("file:///new/t/metadata/snap-1-moved-") && once.ends_with(".avro"));
    assert!(twice.starts_with("file:///newer/t/metadata/snap-1-moved-"), "{twice}");
    assert_eq!(twice.matches("-moved-").count(), 1);
    assert_ne!(first.renamed("file:///new/t/a.avro"), first.renamed("file:///new/t/b.avro"));
}

#[test]
fn only_whole_folders_are_moved() {
    let moved = a_move();
    for (old, new) in [
        ("file:///old/lake/t/a.avro", Some("file:///new/t/a.avro")),
        ("file:/old/lake/t", Some("file:///new/t")),
        ("file:///old/lake", Some("file:///new")),
        ("file:///old/lakes/t", None),
        ("s3://old/lake/t", None),
        ("file:///old/lake/%20 ä+/x", Some("file:///new/%20 ä+/x")),
    ] {
        assert_eq!(moved.path(old).as_deref(), new, "{old}");
    }
}
