use super::*;
use crate::{
    clock::Clock,
    event::{codec, rows},
    ids::IdGenerator,
    table::{schema::create, writer},
};
use arrow::compute::concat_batches;
use icecore_catalog::storage::{S3Options, Storage};
use icecore_samples as sample;
use icecore_schemas::service_table::SERVICE_TABLES;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::HashSet;

#[test]
fn rows_with_another_id_or_seq_have_another_hash() {
    let long = "x".repeat(300);
    let mut seen = HashSet::new();
    for id in ["", "a", "b", "ab", "e-1", "e-2", "01JMABCDEFGHJKMNPQRSTVWXYZ", long.as_str()] {
        for seq in [i64::MIN, -1, 0, 1, 2, 256, i64::MAX] {
            assert!(seen.insert(hash_of(id, seq)), "{id} {seq}");
            assert_eq!(hash_of(id, seq), hash_of(id, seq));
        }
    }
}

#[test]
fn a_table_has_sums_where_its_rows_have_a_seq() {
    let has_sums = SERVICE_TABLES.iter().map(|ours| RowKeys::of(&create(ours).schema).is_some());
    let has_seq = SERVICE_TABLES.iter().map(|ours| ours.has_seq());
    assert_eq!(has_sums.collect::<Vec<_>>(), has_seq.collect::<Vec<_>>());
}

#[test]
fn batches_of_any_size_have_the_sum_of_all_their_rows() {
    let schema = rows::event_schema();
    let random = &mut StdRng::seed_from_u64(46);
    for round in 0..300 {
        let counts: Vec<usize> =
            (0..random.random_range(1..6)).map(|_| random.random_range(1..9)).collect();
        let mut seq: i64 = random.random_range(1..1_000_000);
        let (mut batches, mut sum) = (Vec::new(), RowSum::default());
        for count in counts {
            let batch = sample::events(count, 3, seq, round);
            // As the log gives them back.
            let payload = codec::encode(&schema, &batch);
            let read = codec::decode(&schema, &payload, seq.cast_unsigned()).unwrap();
            assert_eq!(sum_of(&read), sum_of(&batch));
            sum = sum.merge(sum_of(&read));
            seq += i64::try_from(count).unwrap();
            batches.push(batch);
        }
        batches.reverse();
        assert_eq!(sum_of(&concat_batches(&batches[0].schema(), &batches).unwrap()), sum);
    }
}

#[tokio::test]
async fn written_files_have_the_sum_of_what_they_were_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("file://{}", folder.path().display());
    let storage = Storage::open(&root, &S3Options::default()).unwrap();
    let ids = IdGenerator::new(Clock::manual(1_772_323_200_000));
    let table =
        sample::metadata(sample::events_table(), &format!("{}/ns/events-1", storage.root()));
    let batches = vec![sample::events(200, 4, 1, 7), sample::events(50, 2, 201, 8)];
    let sum = batches.iter().map(sum_of).reduce(RowSum::merge);
    let written = writer::write_summed(&storage, &table, batches, &ids).await.unwrap();
    assert!(1 < written.files.len());
    assert_eq!(written.rows_sum, sum);
    let letters =
        sample::metadata(sample::dead_letters_table(), &format!("{}/ns/l-1", storage.root()));
    let letters = writer::write_summed(&storage, &letters, Vec::new(), &ids).await.unwrap();
    assert_eq!(letters.rows_sum, None);
}
