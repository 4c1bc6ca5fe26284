use super::*;
use crate::table::{
    lake::{TestLake, longs, optional, schema, texts},
    row_sum::hash_of,
};
use iceberg::spec::{DataFile, PrimitiveType, UnboundPartitionSpec};
use icecore_catalog::scan::manifests::ManifestCache;

/// A table of rows with an id and a `seq`.
fn lake() -> TestLake {
    let columns =
        schema([optional(1, "id", PrimitiveType::String), optional(2, "seq", PrimitiveType::Long)]);
    TestLake::new(columns, UnboundPartitionSpec::builder().build())
}

async fn file(lake: &mut TestLake, seqs: &[i64]) -> DataFile {
    let ids: Vec<String> = seqs.iter().map(|seq| format!("e-{seq}")).collect();
    let columns = [
        (1, "id", texts(ids.iter().map(|id| Some(id.as_str())))),
        (2, "seq", longs(seqs.iter().copied().map(Some))),
    ];
    lake.write(&columns).await.build().unwrap()
}

fn rows(seqs: &[i64]) -> RowSum {
    let mut sum = RowSum::default();
    seqs.iter().for_each(|seq| sum.add(hash_of(&format!("e-{seq}"), *seq)));
    sum
}

async fn found(lake: &TestLake, account: &RowAccount) -> RowFindings {
    let keys = RowKeys::of(lake.metadata.current_schema()).unwrap();
    check(lake.source(), keys, account).await.unwrap()
}

/// Two commits of another engine: five rows, and one of them deleted.
async fn with_history() -> (TestLake, DataFile) {
    let mut lake = lake();
    let one = file(&mut lake, &[1, 2, 3]).await;
    let two = file(&mut lake, &[4, 5]).await;
    lake.commit(vec![one.clone(), two.clone()]).await;
    let deleted = lake.positions(&[(&one, 1)]).await.build().unwrap();
    lake.commit(vec![deleted]).await;
    (lake, two)
}

#[tokio::test]
async fn an_empty_table_has_no_rows_to_miss() {
    let found = found(&lake(), &RowAccount::default()).await;
    assert!(found.agree(RowSum::default()) && !found.begins, "{found:?}");
    assert!(!found.agree(rows(&[1])), "acknowledged and nowhere");
}

#[tokio::test]
async fn rows_of_other_engines_are_found_in_the_files_that_they_changed() {
    let (mut lake, _) = with_history().await;
    let first = found(&lake, &RowAccount::default()).await;
    assert_eq!((first.table, first.expected), (rows(&[1, 3, 4, 5]), rows(&[1, 3, 4, 5])));
    // The delete file may be about both files: they were read with the row and without it.
    assert_eq!(first.foreign, rows(&[1, 2, 3, 4, 5, 1, 3, 4, 5]));
    assert_eq!(first.removed, rows(&[1, 2, 3, 4, 5]));
    assert!(first.agree(RowSum::default()) && !first.begins, "{first:?}");
    assert!(!first.agree(rows(&[9])), "a row of the log that is not there");

    let more = file(&mut lake, &[6]).await;
    lake.commit(vec![more]).await;
    let account = RowAccount { checkpoint: first.checkpoint, ..RowAccount::default() };
    let next = found(&lake, &account).await;
    assert_eq!((next.foreign, next.removed), (first.foreign.merge(rows(&[6])), first.removed));
    assert!(next.agree(RowSum::default()), "{next:?}");
}

#[tokio::test]
async fn of_an_append_to_a_large_table_its_own_manifests_are_read() {
    let mut lake = lake();
    let one = file(&mut lake, &[1, 2]).await;
    lake.commit(vec![one]).await;
    let first = found(&lake, &RowAccount::default()).await;
    let id = lake.metadata.current_snapshot_id().unwrap();
    let old = lake.source().list(id, &Filter::True).await.unwrap();
    let two = file(&mut lake, &[3]).await;
    lake.commit(vec![two]).await;
    for (manifest, _) in &old.data {
        lake.storage.delete(&manifest.manifest_path).await.unwrap();
    }
    let cache = ManifestCache::default();
    let source = ManifestSource { cache: &cache, ..lake.source() };
    let keys = RowKeys::of(lake.metadata.current_schema()).unwrap();
    let account = RowAccount { checkpoint: first.checkpoint, ..RowAccount::default() };
    let settled = settle(source, keys, &account).await.unwrap().unwrap();
    assert_eq!((settled.rows, settled.foreign), (rows(&[1, 2, 3]), rows(&[1, 2, 3])));
}

#[tokio::test]
async fn rows_that_nobody_can_tell_of_any_more_begin_anew() {
    let (mut lake, _) = with_history().await;
    let oldest = lake.metadata.snapshots().map(|made| made.snapshot_id()).min().unwrap();
    lake.change(|builder| Ok(builder.remove_snapshots(&[oldest])));
    let found = found(&lake, &RowAccount::default()).await;
    assert!(found.begins && found.agree(RowSum::default()), "{found:?}");
    assert_eq!(found.checkpoint.map(|checkpoint| checkpoint.opening), Some(rows(&[1, 3, 4, 5])));
}

#[tokio::test]
async fn a_file_with_another_row_of_the_same_count_is_found() {
    let (mut lake, two) = with_history().await;
    let before = found(&lake, &RowAccount::default()).await;
    let other = file(&mut lake, &[4, 6]).await;
    let bytes = lake.storage.get(other.file_path()).await.unwrap();
    assert_eq!(bytes.len() as u64, two.file_size_in_bytes(), "no size tells");
    lake.storage.delete(two.file_path()).await.unwrap();
    lake.storage.put(two.file_path(), bytes).await.unwrap();
    let account = RowAccount { checkpoint: before.checkpoint, ..RowAccount::default() };
    let found = found(&lake, &account).await;
    assert_eq!((found.table, found.expected), (rows(&[1, 3, 4, 6]), before.table));
    assert!(!found.agree(RowSum::default()), "{found:?}");
    assert_eq!(found.parts_at, lake.metadata.current_snapshot_id());
    assert_eq!(found.checkpoint, None, "nothing is made to fit");
}
