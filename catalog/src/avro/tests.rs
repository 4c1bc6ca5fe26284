//! Files that become larger than they look.

use super::*;

/// Sees nothing.
struct Unseen;

impl ValueEdit for Unseen {
    fn text(&mut self, _path: &[&str], _value: &str) -> Option<String> {
        None
    }
}

fn read(file: &[u8], edit: &mut dyn ValueEdit) -> Result<(), String> {
    super::read(file, |_| Ok(()), edit)
}

/// A file of blocks that are packed already.
fn file(schema: &str, codec: &str, blocks: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"Obj\x01".to_vec();
    put_long(&mut file, 2);
    for text in ["avro.schema", schema, "avro.codec", codec] {
        put_sized(&mut file, text.as_bytes());
    }
    put_long(&mut file, 0);
    let sync = [7; 16];
    file.extend(sync);
    for (count, packed) in blocks {
        put_long(&mut file, *count);
        put_sized(&mut file, packed);
        file.extend(sync);
    }
    file
}

/// So many zeros, packed.
fn zeros(codec: BlockCodec, bytes: usize) -> Vec<u8> {
    let mut block = vec![0; bytes];
    codec.pack(&mut block).unwrap();
    block
}

#[test]
fn a_file_is_unpacked_within_a_bound() {
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"b","type":"boolean"}]}"#;
    for name in ["deflate", "snappy", "zstandard"] {
        let codec = BlockCodec::named(name.as_bytes()).unwrap();
        let small = file(schema, name, &[(1_000, zeros(codec, 1_000))]);
        assert_eq!((read(&small, &mut Unseen), check_unpacked(&small)), (Ok(()), Ok(())));
        let large = file(schema, name, &[(1, zeros(codec, BLOCK_BYTES_MAX + 1))]);
        for refused in [read(&large, &mut Unseen), check_unpacked(&large)] {
            assert!(refused.unwrap_err().contains("more than 128 MiB"), "{name}");
        }
    }
    // A block of snappy only has to say so.
    let said = file(schema, "snappy", &[(1, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0])]);
    assert!(check_unpacked(&said).unwrap_err().contains("more than 128 MiB"));
    // Blocks that are small enough each.
    let codec = BlockCodec::Zstandard;
    let block = (0, zeros(codec, BLOCK_BYTES_MAX));
    let many = file(schema, "zstandard", &vec![block; 9]);
    assert!(check_unpacked(&many).unwrap_err().contains("1024 MiB in all"));
    // What is no Avro file, others refuse.
    assert_eq!(check_unpacked(b"{}"), Ok(()));
}

/// Notes texts.
#[derive(Default)]
struct TextNotes(Vec<String>);

impl ValueEdit for TextNotes {
    fn text(&mut self, _path: &[&str], value: &str) -> Option<String> {
        self.0.push(value.to_owned());
        None
    }
}

#[test]
fn a_deflated_file_has_the_same_values_in_fewer_bytes() {
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"t","type":"string"}]}"#;
    let mut blocks = Vec::new();
    for rows in [1_usize, 400] {
        let mut block = Vec::new();
        for row in 0..rows {
            put_sized(&mut block, format!("s3://bucket/warehouse/data/{row}.parquet").as_bytes());
        }
        blocks.push((rows as i64, block));
    }
    let plain = file(schema, "null", &blocks);
    let packed = deflated(&plain).unwrap();
    assert!(packed.len() * 3 < plain.len(), "{} of {}", packed.len(), plain.len());
    let texts = |file: &[u8]| {
        let mut notes = TextNotes::default();
        read(file, &mut notes).unwrap();
        notes.0
    };
    assert_eq!(texts(&plain).len(), 401);
    assert_eq!(texts(&packed), texts(&plain));
    assert_eq!(deflated(&packed).unwrap(), packed);
    let header = AvroFileHeader::parse(&packed).unwrap();
    assert_eq!((header.codec, header.schema), (BlockCodec::Deflate, schema.as_bytes()));
    // A file that does not name its compression has none.
    let mut unnamed = b"Obj\x01".to_vec();
    put_long(&mut unnamed, 1);
    put_sized(&mut unnamed, b"avro.schema");
    put_sized(&mut unnamed, schema.as_bytes());
    put_long(&mut unnamed, 0);
    unnamed.extend([7; 16]);
    assert_eq!(texts(&deflated(&unnamed).unwrap()), Vec::<String>::new());
    assert!(deflated(b"{}").is_err());
}

#[test]
fn a_file_has_no_more_values_than_its_bytes_allow() {
    let nulls: Vec<String> =
        (0..9_000).map(|n| format!(r#"{{"name":"n{n}","type":"null"}}"#)).collect();
    let schema = |fields: &str| format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#);
    let wide = schema(&format!(r#"{{"name":"b","type":"boolean"}},{}"#, nulls.join(",")));
    let refused = read(&file(&wide, "null", &[(1_000, vec![0; 1_000])]), &mut Unseen);
    assert!(refused.unwrap_err().contains("too many values"));
    // Such records as manifests have: an optional value in a record within a record.
    let optional = r#"{"name":"o","type":["null","long"]}"#;
    let inner = schema(optional).replace("\"r\"", "\"i\"");
    let nested = schema(&format!(r#"{{"name":"i","type":{inner}}}"#));
    let sound = file(&nested, "null", &[(500_000, vec![0; 500_000])]);
    assert_eq!(read(&sound, &mut Unseen), Ok(()));
}
