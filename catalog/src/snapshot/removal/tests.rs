use super::*;
use crate::snapshot::{build, tests::Table};
use iceberg::spec::FormatVersion;

#[test]
fn manifests_are_kept_up_to_a_bound() {
    let zeros = |count| Bytes::from(vec![0; count]);
    let mut read = ReadManifests::default();
    read.keep("a", zeros(KEPT_BYTES_MAX - 2));
    read.keep("too much", zeros(3));
    read.keep("b", zeros(2));
    read.keep("no more", zeros(1));
    let mut kept: Vec<&str> = read.bytes.keys().map(String::as_str).collect();
    kept.sort_unstable();
    assert_eq!((kept, read.kept_bytes), (vec!["a", "b"], KEPT_BYTES_MAX));
}

/// Takes out one file of two, with room for so many bytes of manifests.
async fn left(room: usize) -> Vec<String> {
    let mut table = Table::new(FormatVersion::V2, true);
    let (one, other) = (table.file("a"), table.file("a"));
    let built = table.build(vec![one.clone(), other]).await.unwrap();
    table.apply(built.updates);
    let new = NewSnapshot {
        operation: Operation::Delete,
        read: table.metadata.current_snapshot_id(),
        removed: vec![one],
        ..NewSnapshot::default()
    };
    let mut read = ReadManifests { kept_bytes: KEPT_BYTES_MAX - room, ..ReadManifests::default() };
    let listed = table.manifests(built.snapshot_id).await;
    check(&table.storage, &table.metadata, &listed, &new, &mut read).await.unwrap();
    assert_eq!(read.bytes.len(), usize::from(0 < room));
    let built = build(&table.storage, &table.metadata, &new, &read, table.now_ms).await.unwrap();
    table.apply(built.updates);
    table.live(built.snapshot_id).await.into_iter().map(|(path, ..)| path).collect()
}

#[tokio::test]
async fn a_manifest_that_was_not_kept_is_read_once_more() {
    let [kept, read_again] = [left(KEPT_BYTES_MAX).await, left(0).await];
    assert_eq!(kept.len(), 1);
    let names = |paths: &[String]| -> Vec<String> {
        paths.iter().map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&kept), names(&read_again));
}
