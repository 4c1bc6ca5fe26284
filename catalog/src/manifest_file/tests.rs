use super::*;
use crate::scan::fixture::Lake;
use iceberg::spec::{
    DataContentType, Datum, Literal, Operation, Schema, Struct, Transform, UnboundPartitionSpec,
};
use serde_json::json;

/// The id of the paths in a delete file, by whose bounds it names its data file, and of their places.
const PATHS: i32 = 2_147_483_546;
const PLACES: i32 = 2_147_483_545;

/// A manifest of one file whose partition is (`x`, 7), as a writer leaves it that calls the first
/// field `written`, of a spec that calls it `name`.
async fn manifest(name: &str, written: &str, with_ids: bool) -> Bytes {
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "k", "required": false, "type": "string"},
        {"id": 2, "name": "n", "required": false, "type": "int"},
        {"id": 3, "name": "a_x20b", "required": false, "type": "int"}]});
    let spec = UnboundPartitionSpec::builder()
        .add_partition_field(1, "p", Transform::Identity)
        .and_then(|spec| spec.add_partition_field(2, "n", Transform::Identity))
        .unwrap()
        .build();
    let mut lake = Lake::new(serde_json::from_value::<Schema>(schema).unwrap(), spec);
    let values = [Some(Literal::string("x")), Some(Literal::int(7))];
    let bound = |text: &str| {
        let (path, place) = (Datum::string("s3://b/f"), Datum::long(0xff));
        HashMap::from([
            (1, Datum::string(text)),
            (2, Datum::int(7)),
            (PATHS, path),
            (PLACES, place),
        ])
    };
    let file = lake
        .file(DataContentType::Data)
        .partition(Struct::from_iter(values))
        .lower_bounds(bound("fifteen letters ä and more"))
        .upper_bounds(bound("fifteen letters ü and more"))
        .build()
        .unwrap();
    lake.commit(Operation::Append, vec![vec![file]]).await;
    let folder = format!("{}/metadata", lake.metadata.location());
    let files = lake.storage.list(&folder).await.unwrap();
    let found = files.iter().find(|file| file.ends_with("-m.avro")).unwrap();
    let bytes = lake.storage.get(found).await.unwrap();

    let (mut header, data) = ManifestHeader::parse(&bytes).unwrap();
    let mut spec: Value = serde_json::from_slice(header.get(SPEC).unwrap()).unwrap();
    spec[0]["name"] = name.into();
    let schema = String::from_utf8(header.get(SCHEMA).unwrap().to_vec()).unwrap();
    let mut schema = schema.replace("\"name\":\"p\"", &format!("\"name\":{}", json!(written)));
    if !with_ids {
        spec.as_array_mut().unwrap().iter_mut().for_each(|field| {
            field.as_object_mut().unwrap().remove("field-id");
        });
        schema =
            schema.replace("\"field-id\":1000", "\"x\":0").replace("\"field-id\":1001", "\"x\":0");
    }
    header.set(SPEC, &serde_json::to_vec(&spec).unwrap());
    header.set(SCHEMA, schema.as_bytes());
    header.encode(data).into()
}

#[tokio::test]
async fn a_partition_field_of_any_name_is_read() {
    for (name, written) in [
        ("p", "p"),
        ("größe", "größe"),
        ("größe", "gr_xF6_xDFe"),
        ("日本", "日本"),
        ("🦆", "_x1F986"),
        ("a b", "a_x20b"),
        ("a b", "a b"),
        ("1a", "_1a"),
        ("a-b", "a_x2Db"),
        ("%/+?\"", "_x25_x2F_x2B_x3F_x22"),
        ("", "_"),
    ] {
        for with_ids in [true, false] {
            let bytes = manifest(name, written, with_ids).await;
            let parsed = parse(&bytes).unwrap_or_else(|cause| panic!("{name}, {written}: {cause}"));
            let file = parsed.entries()[0].data_file();
            let values: Vec<_> = file.partition().iter().collect();
            assert_eq!(values, [Some(&Literal::string("x")), Some(&Literal::int(7))], "{name}");
            assert_eq!(file.record_count(), 10);
        }
    }
}

#[tokio::test]
async fn a_void_field_has_the_name_of_its_column() {
    let bytes = manifest("k", "k", true).await;
    assert_eq!(named(&bytes), bytes);
    let (mut header, data) = ManifestHeader::parse(&bytes).unwrap();
    let mut spec: Value = serde_json::from_slice(header.get(SPEC).unwrap()).unwrap();
    spec[0]["transform"] = "void".into();
    header.set(SPEC, &serde_json::to_vec(&spec).unwrap());
    let parsed = parse(&header.encode(data).into()).unwrap();
    let values: Vec<_> = parsed.entries()[0].data_file().partition().iter().collect();
    assert_eq!(values, [Some(&Literal::string("x")), Some(&Literal::int(7))]);
}

#[tokio::test]
async fn what_is_not_to_be_renamed_or_no_manifest_is_left_alone() {
    let plain = manifest("p", "p", true).await;
    assert_eq!(named(&plain), plain);
    let odd = manifest("a b", "a_x20b", true).await;
    assert_ne!(named(&odd), odd);
    for cut in (0..odd.len()).step_by(11) {
        // Whatever is left of a file, reading it ends with an answer.
        let _ = parse(&odd.slice(..cut));
    }
    for bytes in
        [&b""[..], b"Obj\x01", b"Obj\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"PAR1"]
    {
        let bytes = Bytes::from_static(bytes);
        assert_eq!(named(&bytes), bytes);
    }
}

#[tokio::test]
async fn bounds_that_are_cut_within_a_character_keep_no_table_from_being_read() {
    for name in ["p", "a b"] {
        let whole = named(&manifest(name, name, true).await);
        let (header, _) = ManifestHeader::parse(&whole).unwrap();
        let cut = |(_, mut value): (i32, Vec<u8>), _| {
            value.truncate(17);
            Some(value)
        };
        let broken = bounds::rewritten(&whole, &header, cut).unwrap();
        assert!(Manifest::parse_avro(&broken).is_err());
        let parsed = parse(&broken).unwrap();
        let file = parsed.entries()[0].data_file();
        assert_eq!(file.lower_bounds()[&1], Datum::string("fifteen letters "));
        assert_eq!(file.upper_bounds().get(&1), None, "nothing is certain of it");
        assert_eq!(
            (&file.lower_bounds()[&2], &file.upper_bounds()[&2]),
            (&Datum::int(7), &Datum::int(7))
        );
        for bounds in [file.lower_bounds(), file.upper_bounds()] {
            assert_eq!(bounds[&PATHS], Datum::string("s3://b/f"));
            assert_eq!(bounds[&PLACES], Datum::long(0xff));
        }
        let values: Vec<_> = file.partition().iter().collect();
        assert_eq!(values, [Some(&Literal::string("x")), Some(&Literal::int(7))], "{name}");
        assert_eq!((file.record_count(), parsed.entries()[0].sequence_number()), (10, Some(1)));
    }
}
