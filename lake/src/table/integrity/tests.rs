use super::*;
use crate::table::lake::{TestLake, longs, texts, within};
use iceberg::spec::{DataFile, DataFileBuilder, Datum};
use std::sync::Arc;

/// A file with the people 1 to 3 of one city.
async fn people(lake: &mut TestLake) -> DataFileBuilder {
    let columns = [
        (1, "id", longs([Some(1), Some(2), Some(3)])),
        (2, "name", texts([Some("Ann"), None, Some("Cid")])),
        (3, "city", texts([Some("Rome"); 3])),
    ];
    let mut file = lake.write(&columns).await;
    file.partition(within("Rome"));
    file
}

async fn checked(lake: &TestLake) -> TableFindings {
    checked_at(lake, CheckDepth::Rows).await
}

async fn checked_at(lake: &TestLake, depth: CheckDepth) -> TableFindings {
    let table = LoadedTable {
        metadata: Arc::new(lake.metadata.clone()),
        metadata_location: "file:///none".to_owned(),
        version: 1,
        watermark: None,
    };
    let storage = &lake.storage;
    let (name, table) = ("a.people", &table);
    let input = CheckedTable { storage, name, table, ours: None, lost: &[], depth };
    check(input).await.unwrap()
}

/// What is found where the manifest says this of a file.
async fn found(change: impl FnOnce(&mut DataFileBuilder)) -> Vec<FindingKind> {
    found_at(CheckDepth::Rows, change).await
}

async fn found_at(
    depth: CheckDepth,
    change: impl FnOnce(&mut DataFileBuilder),
) -> Vec<FindingKind> {
    let mut lake = TestLake::of_people(true);
    let mut file = people(&mut lake).await;
    change(&mut file);
    lake.commit(vec![file.build().unwrap()]).await;
    let found = checked_at(&lake, depth).await;
    assert!(found.missing.is_empty(), "{found:?}");
    found.report.damage.iter().map(|finding| finding.kind).collect()
}

#[tokio::test]
async fn what_a_manifest_says_of_a_file_is_held_against_its_rows() {
    assert_eq!(found(|_| ()).await, [FindingKind::Counts; 0]);
    assert_eq!(
        found(|file| {
            file.record_count(4);
        })
        .await,
        [FindingKind::Counts; 2]
    );
    assert_eq!(
        found(|file| {
            file.file_size_in_bytes(9);
        })
        .await,
        [FindingKind::Size]
    );
    assert_eq!(
        found(|file| {
            file.partition(within("Oslo"));
        })
        .await,
        [FindingKind::Partition]
    );
    let nulls = |count: u64| HashMap::from([(2, count)]);
    assert_eq!(
        found(|file| {
            file.null_value_counts(nulls(1));
        })
        .await,
        [FindingKind::Counts; 0]
    );
    assert_eq!(
        found(|file| {
            file.null_value_counts(nulls(2));
        })
        .await,
        [FindingKind::Counts]
    );
}

#[tokio::test]
async fn rows_of_a_file_without_the_column_of_its_partition_have_the_value_of_the_partition() {
    let mut lake = TestLake::of_people(true);
    let mut file = lake.write(&[(1, "id", longs([Some(1)]))]).await;
    file.partition(within("Rome"));
    lake.commit(vec![file.build().unwrap()]).await;
    let found = checked(&lake).await;
    assert!(found.report.is_whole() && found.missing.is_empty(), "{found:?}");
}

#[tokio::test]
async fn bounds_hold_or_are_damage() {
    let long = |value: i64| HashMap::from([(1, Datum::long(value))]);
    let text = |value: &str| HashMap::from([(2, Datum::string(value))]);
    // A bound may be further away than the values, and the beginning of one.
    for (lower, upper) in [(long(1), long(3)), (long(-5), long(9)), (text("A"), text("D"))] {
        let kinds = found(|file| {
            file.lower_bounds(lower).upper_bounds(upper);
        })
        .await;
        assert_eq!(kinds, [FindingKind::Counts; 0]);
    }
    for lower in [long(2), text("B")] {
        assert_eq!(
            found(|file| {
                file.lower_bounds(lower);
            })
            .await,
            [FindingKind::Bounds]
        );
    }
    for upper in [long(2), text("C")] {
        assert_eq!(
            found(|file| {
                file.upper_bounds(upper);
            })
            .await,
            [FindingKind::Bounds]
        );
    }
}

#[tokio::test]
async fn files_with_deletes_are_whole_and_a_file_that_is_live_twice_is_told() {
    let mut lake = TestLake::of_people(false);
    let file = lake.write(&[(1, "id", longs([Some(1), Some(2)]))]).await.build().unwrap();
    lake.commit(vec![file.clone()]).await;
    let positions = lake.positions(&[(&file, 1)]).await.build().unwrap();
    let equality = lake.equality(&[(1, "id", longs([Some(1)]))]).await.build().unwrap();
    lake.commit(vec![positions, equality]).await;
    let report = checked(&lake).await.report;
    assert!(report.is_whole() && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.snapshots, report.files), (2, 3));
    assert_eq!((report.rows, report.deleted_rows), (1, 1), "the equality delete is not counted");
    lake.commit(vec![file]).await;
    let report = checked(&lake).await.report;
    assert_eq!((report.files, report.rows, report.notes.len()), (3, 3, 1), "{report:?}");
    assert_eq!(report.notes[0].kind, FindingKind::Twice);
}

#[tokio::test]
async fn a_missing_file_is_needed_as_long_as_a_snapshot_names_it() {
    let mut lake = TestLake::of_people(false);
    let file: DataFile = lake.write(&[(1, "id", longs([Some(1)]))]).await.build().unwrap();
    lake.commit(vec![file.clone()]).await;
    lake.storage.delete(file.file_path()).await.unwrap();
    let found = checked(&lake).await;
    let missing: Vec<&str> = found.missing.iter().map(|it| it.location.as_str()).collect();
    assert_eq!(missing, [file.file_path()]);
    assert!(found.report.is_whole(), "that is not known yet: {found:?}");

    let table = LoadedTable {
        metadata: Arc::new(lake.metadata.clone()),
        metadata_location: "file:///none".to_owned(),
        version: 1,
        watermark: None,
    };
    let files = HashSet::from([file.file_path().to_owned(), "file:///elsewhere".to_owned()]);
    let needed = needed::needed(&lake.storage, &table, &files).await.unwrap();
    assert_eq!(needed, HashSet::from([file.file_path().to_owned()]));
}

#[tokio::test]
async fn footers_alone_tell_counts_bounds_and_partitions() {
    let whole: [FindingKind; 0] = [];
    let footers = CheckDepth::Footers;
    assert_eq!(found_at(footers, |_| ()).await, whole);
    for nulls in [1_u64, 2] {
        let kinds = found_at(footers, |file| {
            file.null_value_counts(HashMap::from([(2, nulls)]));
        });
        assert_eq!(kinds.await.len(), usize::from(nulls != 1));
    }
    let oslo = found_at(footers, |file| {
        file.partition(within("Oslo"));
    });
    assert_eq!(oslo.await, [FindingKind::Partition]);
    for (id, bound) in [(1, Datum::long(2)), (2, Datum::string("B"))] {
        let lower = found_at(footers, |file| {
            file.lower_bounds(HashMap::from([(id, bound.clone())]));
        });
        assert_eq!(lower.await, [FindingKind::Bounds]);
        let upper = found_at(footers, |file| {
            file.upper_bounds(HashMap::from([(id, bound)]));
        });
        assert_eq!(upper.await, [FindingKind::Bounds]);
    }
}

#[tokio::test]
async fn ids_of_columns_that_no_reader_can_go_by_are_told() {
    for depth in [CheckDepth::Footers, CheckDepth::Rows] {
        let mut lake = TestLake::of_people(false);
        let columns = [
            (1, "id", longs([Some(1)])),
            (99, "later", longs([Some(1)])),
            (99, "again", longs([Some(1)])),
        ];
        let file = lake.write(&columns).await.build().unwrap();
        lake.commit(vec![file]).await;
        let report = checked_at(&lake, depth).await.report;
        let told: Vec<&str> = report.notes.iter().map(|note| note.what.as_str()).collect();
        assert_eq!(
            told,
            [
                "the footer of the data file: its column `later` has the id 99, which the table never gave",
                "the footer of the data file: its column `again` has the id 99, which the table never gave",
                "the footer of the data file: its columns `later` and `again` have the same id 99",
            ]
        );
        assert!(report.is_whole(), "others may have wanted it so: {report:?}");
    }
}
