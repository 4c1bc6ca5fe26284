use super::*;
use crate::event::rows::{dead_letter_schema, event_schema};
use arrow::{
    array::{
        BooleanArray, Float64Array, Int32Array, StringArray, TimestampMicrosecondArray, UInt32Array,
    },
    compute,
    datatypes::{DataType, Field},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Rows with the required columns and some of the others, in random order and with random nulls.
fn random_rows(schema: &SchemaRef, rng: &mut StdRng, rows: usize) -> RecordBatch {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for field in schema.fields() {
        if field.name() == SEQ || (field.is_nullable() && rng.random_bool(0.6)) {
            continue;
        }
        let nulls = if field.is_nullable() { rng.random_range(0.0..=1.0) } else { 0.0 };
        fields.push(Arc::clone(field));
        columns.push(random_column(field, rng, rows, nulls));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn random_column(field: &Field, rng: &mut StdRng, rows: usize, nulls: f64) -> ArrayRef {
    fn values<T, C: FromIterator<Option<T>>>(
        rng: &mut StdRng,
        (rows, nulls): (usize, f64),
        mut value: impl FnMut(&mut StdRng) -> T,
    ) -> C {
        (0..rows).map(|_| (!rng.random_bool(nulls)).then(|| value(rng))).collect()
    }
    let size = (rows, nulls);
    match field.data_type() {
        DataType::Utf8 => {
            let text = |rng: &mut StdRng| "ü日x".repeat(rng.random_range(0..9));
            Arc::new(values::<_, StringArray>(rng, size, text))
        }
        DataType::Int64 => Arc::new(values::<_, Int64Array>(rng, size, |rng| rng.random::<i64>())),
        DataType::Int32 => Arc::new(values::<_, Int32Array>(rng, size, |rng| rng.random::<i32>())),
        DataType::Float64 => {
            Arc::new(values::<_, Float64Array>(rng, size, |rng| rng.random::<f64>()))
        }
        DataType::Boolean => {
            Arc::new(values::<_, BooleanArray>(rng, size, |rng| rng.random::<bool>()))
        }
        DataType::Timestamp(..) => {
            let time = |rng: &mut StdRng| rng.random_range(0..1_i64 << 50);
            let times: TimestampMicrosecondArray = values(rng, size, time);
            Arc::new(times.with_timezone("+00:00"))
        }
        other => panic!("{other}"),
    }
}

/// Decoding gives the rows back, with every column and `seq`.
fn check(schema: &SchemaRef, rows: &RecordBatch, first_seq: u64) -> RecordBatch {
    let payload = encode(schema, rows);
    let decoded = decode(schema, &payload, first_seq).unwrap();
    assert_eq!(decoded.schema(), *schema);
    assert_eq!(decoded.num_rows(), rows.num_rows());
    for (field, column) in schema.fields().iter().zip(decoded.columns()) {
        if field.name() == SEQ {
            let seqs = first_seq as i64..first_seq as i64 + rows.num_rows() as i64;
            assert_eq!(column.as_ref(), &Int64Array::from_iter_values(seqs));
            continue;
        }
        match rows.column_by_name(field.name()) {
            Some(original) => assert_eq!(column, original, "{}", field.name()),
            None => assert_eq!(column.null_count(), rows.num_rows(), "{}", field.name()),
        }
    }
    decoded
}

#[test]
fn more_than_64_columns_have_a_wider_mask() {
    let fields: Vec<Field> =
        (0..200).map(|n| Field::new(format!("c{n}"), DataType::Int64, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let column = |n: usize| (format!("c{n}"), Arc::new(Int64Array::from(vec![n as i64])) as _);
    for (columns, version, further) in [
        (vec![0, 63], VERSION, 0),
        (vec![64], WIDE_VERSION, 1),
        (vec![3, 127, 128, 199], WIDE_VERSION, 3),
    ] {
        let rows = RecordBatch::try_from_iter(columns.into_iter().map(column)).unwrap();
        let payload = encode(&schema, &rows);
        assert_eq!((payload[0], usize::from(payload[1])), (version, further));
        check(&schema, &rows, 1);
        // A shorter schema has no place for the last one.
        let short = Arc::new(schema.project(&(0..60).collect::<Vec<_>>()).unwrap());
        assert!(decode(&short, &payload, 1).is_err());
    }
}

#[test]
fn random_rows_survive_whole_sliced_filtered_and_concatenated() {
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..60 {
        for schema in [event_schema(), dead_letter_schema()] {
            let length = [0, 1, 7, 8, 9, 64, 65, 300][round % 8];
            let rows = random_rows(&schema, &mut rng, length);
            check(&schema, &rows, 10 + round as u64);
            let start = rng.random_range(0..=length);
            check(&schema, &rows.slice(start, rng.random_range(0..=length - start)), 1);
            let keep: BooleanArray = (0..length).map(|_| Some(rng.random::<bool>())).collect();
            check(&schema, &compute::filter_record_batch(&rows, &keep).unwrap(), 1);
            let other = random_rows(&schema, &mut rng, 5);
            let both = rows::concat(&schema, &[rows.slice(0, length / 2), other.clone()]).unwrap();
            let decoded = check(&schema, &both, 1);
            let last = UInt32Array::from_iter_values(length as u32 / 2..length as u32 / 2 + 5);
            let last = compute::take_record_batch(&decoded, &last).unwrap();
            for (field, column) in schema.fields().iter().zip(last.columns()) {
                if let Some(original) = other.column_by_name(field.name()) {
                    assert_eq!(column, original);
                }
            }
        }
    }
}

#[test]
fn columns_without_a_value_take_no_space() {
    let schema = event_schema();
    let mut rng = StdRng::seed_from_u64(2);
    let full = random_rows(&schema, &mut rng, 10);
    let required: Vec<usize> =
        (0..full.num_columns()).filter(|n| !full.schema().field(*n).is_nullable()).collect();
    let bare = full.project(&required).unwrap();
    let bare_schema = bare.schema();
    let padded = bare_schema.fields().iter().cloned();
    let padded: Vec<_> =
        padded.chain([schema.field_with_name("data").unwrap().clone().into()]).collect();
    let mut columns = bare.columns().to_vec();
    columns.push(arrow::array::new_null_array(&DataType::Utf8, 10));
    let padded = RecordBatch::try_new(Arc::new(Schema::new(padded)), columns).unwrap();
    assert_eq!(encode(&schema, &bare), encode(&schema, &padded));
}

#[test]
fn buffers_are_shared_with_an_aligned_payload() {
    let schema = event_schema();
    let rows = random_rows(&schema, &mut StdRng::seed_from_u64(3), 100);
    let payload = encode(&schema, &rows);
    assert_eq!(payload.as_ptr() as usize % 8, 0, "the allocator aligns to 8 and more");
    let decoded = decode(&schema, &payload, 1).unwrap();
    let inside = payload.as_ptr_range();
    for name in ["id", "type", "ts"] {
        for buffer in decoded.column_by_name(name).unwrap().to_data().buffers() {
            assert!(inside.contains(&buffer.as_ptr()), "{name}");
        }
    }
}

#[test]
fn a_payload_that_is_not_aligned_decodes_too() {
    let schema = event_schema();
    let rows = random_rows(&schema, &mut StdRng::seed_from_u64(4), 20);
    let payload = encode(&schema, &rows);
    for shift in 1..8 {
        let moved = Bytes::from([&vec![0; shift][..], &payload].concat()).slice(shift..);
        assert_eq!(decode(&schema, &moved, 1).unwrap(), decode(&schema, &payload, 1).unwrap());
    }
}

#[test]
fn a_payload_of_a_shorter_schema_decodes() {
    let long = event_schema();
    let short = Arc::new(Schema::new(long.fields()[..10].to_vec()));
    let rows = random_rows(&short, &mut StdRng::seed_from_u64(5), 3);
    let decoded = decode(&long, &encode(&short, &rows), 1).unwrap();
    assert_eq!(decoded.num_columns(), long.fields().len());
    assert!(
        decode(&short, &encode(&long, &random_rows(&long, &mut StdRng::seed_from_u64(6), 3)), 1)
            .is_err()
    );
}

#[test]
fn payloads_that_are_decoded_together_have_the_rows_of_each() {
    let mut rng = StdRng::seed_from_u64(9);
    for schema in [event_schema(), dead_letter_schema()] {
        for count in 1..6_u64 {
            let mut payload = |n| encode(&schema, &random_rows(&schema, &mut rng, n));
            let mut payloads: Vec<(Bytes, u64)> =
                (0..count).map(|n| (payload(1 + n as usize % 3), 100 * n)).collect();
            let rows = payloads.iter().map(|(one, first)| decode(&schema, one, *first).unwrap());
            let rows: Vec<RecordBatch> = rows.collect();
            let expected = compute::concat_batches(&schema, &rows).unwrap();
            assert_eq!(decode_all(&schema, &payloads).unwrap(), expected);
            payloads.push((Bytes::from_static(b"of nobody"), 900));
            assert!(decode_all(&schema, &payloads).is_err());
        }
    }
}

#[test]
fn a_payload_that_was_not_made_here_is_an_error() {
    let schema = event_schema();
    let payload = encode(&schema, &random_rows(&schema, &mut StdRng::seed_from_u64(7), 3));
    for length in [0, 1, 15, 16, 17, 100, payload.len() / 2] {
        assert!(decode(&schema, &payload.slice(..length), 1).is_err(), "{length}");
    }
    for (at, value) in [(0, 9), (8, 0), (8, 0xff), (15, 0xff)] {
        let mut bytes = payload.to_vec();
        bytes[at] = value;
        assert!(decode(&schema, &bytes.into(), 1).is_err(), "byte {at} = {value}");
    }
    assert!(decode(&schema, &payload, u64::MAX).is_err());
    assert!(decode(&dead_letter_schema(), &payload, 1).is_err());
}
