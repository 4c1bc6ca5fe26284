use super::*;
use crate::{
    clock::Clock,
    table::{
        erasure::condition::ArrivalBound,
        lake::{TestLake, longs, texts, within},
    },
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, TimestampMicrosecondArray};
use iceberg::spec::DataFile;

/// People of this name, or with this city among their documents.
fn named(name: &'static str) -> RowCondition {
    let is_named = move |column: &Option<ArrayRef>, row: usize| {
        let texts = column.as_ref().map(|column| column.as_string::<i32>());
        texts.is_some_and(|texts| texts.is_valid(row) && texts.value(row) == name)
    };
    RowCondition {
        value: name.into(),
        columns: &["name"],
        documents: &["nickname"],
        beside: &[],
        test: Arc::new(move |columns: &[Option<ArrayRef>], rows: usize| {
            let met = (0..rows).map(|row| columns.iter().any(|column| is_named(column, row)));
            BooleanArray::from(met.collect::<Vec<bool>>())
        }),
        bound: None,
        person: None,
        erased: Arc::default(),
    }
}

/// People of Ulm, in a file.
async fn file(lake: &mut TestLake, names: &[&str]) -> DataFile {
    let columns = [
        (1, "id", longs((1..).take(names.len()).map(Some))),
        (2, "name", texts(names.iter().map(|name| Some(*name)))),
        (3, "city", texts(names.iter().map(|_| Some("Ulm")))),
    ];
    let mut file = lake.write(&columns).await;
    file.partition(within("Ulm")).build().unwrap()
}

#[tokio::test]
async fn files_are_written_anew_without_the_rows() {
    let mut lake = TestLake::of_people(true);
    let some = file(&mut lake, &["ann", "bea", "ann", "cid"]).await;
    let others = file(&mut lake, &["bea", "cid"]).await;
    let all = file(&mut lake, &["ann", "ann"]).await;
    lake.commit(vec![some.clone(), others.clone(), all.clone()]).await;
    let position = lake.positions(&[(&some, 0)]).await;
    let position = position
        .clone()
        .partition(within("Ulm"))
        .referenced_data_file(Some(some.file_path().to_owned()))
        .build()
        .unwrap();
    lake.commit(vec![position.clone()]).await;
    let snapshot = lake.metadata.current_snapshot_id().unwrap();
    let (condition, mut scanned) = (named("ann"), ScannedFiles::default());
    let found = matched_files(lake.source(), snapshot, &condition, &mut scanned, 10).await.unwrap();
    let mut counts: Vec<(&str, u64)> =
        found.files.iter().map(|it| (it.file.location.as_str(), it.rows)).collect();
    counts.sort_unstable();
    let mut expected = vec![(some.file_path(), 2), (all.file_path(), 2)];
    expected.sort_unstable();
    assert_eq!(counts, expected, "a deleted row's bytes are still there");

    let few = matched_files(lake.source(), snapshot, &condition, &mut scanned, 1).await.unwrap();
    assert_eq!(few.files.len(), 1, "no more than one commit takes");
    let mut rows = MatchedRows::default();
    for _ in 0..2 {
        let counted = count_rows(lake.source(), snapshot, &condition, &mut scanned, &mut rows);
        assert!(counted.await.unwrap());
    }
    assert_eq!((rows.rows(), rows.files()), (4, 2), "each file once");

    let ids = IdGenerator::new(Clock::manual(1_000));
    let files = planned(&found.files);
    let written =
        written_without(lake.source(), &files, &found.deletes, &condition, &ids).await.unwrap();
    let added: Vec<&DataFile> = written.iter().flat_map(|done| &done.added).collect();
    assert_eq!(added.len(), 1, "nothing is left of the other one");
    assert_eq!(added[0].record_count(), 2);
    let erased: u64 = written.iter().map(|done| done.erased_rows).sum();
    assert_eq!(erased, 3, "one was deleted before");

    let new = erasure_snapshot(("main", snapshot), &written, "e1", "c1".to_owned());
    assert_eq!((new.operation, new.branch, new.read), (Operation::Overwrite, None, Some(snapshot)));
    assert_eq!(new.summary[REMOVED_ROWS], "3");
    let mut removed: Vec<&str> = new.removed.iter().map(DataFile::file_path).collect();
    removed.sort_unstable();
    let mut gone = vec![some.file_path(), all.file_path(), position.file_path()];
    gone.sort_unstable();
    assert_eq!(removed, gone);

    // The new file is the table's now, and has no such row.
    let bytes = lake.storage.get(added[0].file_path()).await.unwrap();
    let mut alone = TestLake::of_people(true);
    let moved = alone.put(bytes.to_vec()).await.record_count(2).partition(within("Ulm")).build();
    alone.commit(vec![moved.unwrap()]).await;
    let snapshot = alone.metadata.current_snapshot_id().unwrap();
    for (name, files) in [("ann", 0), ("bea", 1), ("cid", 1)] {
        let (condition, mut scanned) = (named(name), ScannedFiles::default());
        let found = matched_files(alone.source(), snapshot, &condition, &mut scanned, 10).await;
        assert_eq!(found.unwrap().files.len(), files, "{name}");
    }
}

#[tokio::test]
async fn nothing_is_found_in_a_table_without_the_columns() {
    let mut lake = TestLake::of_people(true);
    let some = file(&mut lake, &["ann"]).await;
    lake.commit(vec![some]).await;
    let snapshot = lake.metadata.current_snapshot_id().unwrap();
    let condition = RowCondition { columns: &["user_id"], ..named("ann") };
    let mut scanned = ScannedFiles::default();
    let found = matched_files(lake.source(), snapshot, &condition, &mut scanned, 10).await.unwrap();
    assert!(found.files.is_empty());
    assert_eq!(named_snapshots(&lake.metadata)[0].name, MAIN_BRANCH);
    assert_eq!(retained_snapshots(&lake.metadata), [snapshot]);
}

#[tokio::test]
async fn many_files_are_looked_through_and_no_more_are_taken_than_asked_for() {
    let mut lake = TestLake::of_people(true);
    let mut files = Vec::new();
    for place in 0..FILES_AT_ONCE + 3 {
        let names: &[&str] = if place % 2 == 0 { &["ann", "bea"] } else { &["bea"] };
        files.push(file(&mut lake, names).await);
    }
    lake.commit(files).await;
    let snapshot = lake.metadata.current_snapshot_id().unwrap();
    let (condition, mut scanned) = (named("ann"), ScannedFiles::default());
    let few = matched_files(lake.source(), snapshot, &condition, &mut scanned, 5).await.unwrap();
    assert_eq!(few.files.len(), 5);
    let mut rows = MatchedRows::default();
    let counted = count_rows(lake.source(), snapshot, &condition, &mut scanned, &mut rows).await;
    assert!(counted.unwrap());
    let some = (FILES_AT_ONCE as u64 + 4) / 2;
    assert_eq!((rows.rows(), rows.files()), (some, some));
}

async fn found(lake: &TestLake, condition: &RowCondition) -> MatchedFiles {
    let snapshot = lake.metadata.current_snapshot_id().unwrap();
    let mut scanned = ScannedFiles::default();
    matched_files(lake.source(), snapshot, condition, &mut scanned, 10).await.unwrap()
}

fn set(lake: &mut TestLake, member: &str, column: &str) {
    let property = HashMap::from([(format!("icecore.erasure.{member}"), column.to_owned())]);
    lake.change(|builder| builder.set_properties(property));
}

#[tokio::test]
async fn rows_of_another_engines_table_go_by_the_column_that_its_property_names() {
    let mut lake = TestLake::of_people(true);
    let some = file(&mut lake, &["ann", "bea", "ann", "cid"]).await;
    lake.commit(vec![some.clone()]).await;
    let of_person = RowCondition { person: Some("user_id"), columns: &["user_id"], ..named("ann") };
    let obstacle = |lake: &TestLake| foreign::obstacle(&lake.metadata, Some("user_id"));
    assert!(obstacle(&lake).unwrap().contains("its property `icecore.erasure.user_id`"));
    set(&mut lake, "actor", "name");
    assert!(found(&lake, &of_person).await.files.is_empty(), "it is another member's");
    set(&mut lake, "user_id", "who");
    assert!(obstacle(&lake).unwrap().contains("none of its columns"));
    assert!(found(&lake, &of_person).await.files.is_empty());
    set(&mut lake, "user_id", "name");
    assert_eq!(obstacle(&lake), None);
    let matched = found(&lake, &of_person).await;
    assert_eq!(matched.files[0].rows, 2);

    let (ids, files) = (IdGenerator::new(Clock::manual(1_000)), planned(&matched.files));
    let written = written_without(lake.source(), &files, &matched.deletes, &of_person, &ids).await;
    let written = written.unwrap();
    assert_eq!((written[0].rows, written[0].erased_rows), (2, 2));
    let new = erasure_snapshot(("main", 1), &written, "e1", "c1".to_owned());
    assert_eq!((new.operation, new.added.len()), (Operation::Overwrite, 0));
    let [(spec_id, added)] = new.added_of_spec.as_slice() else {
        panic!("{:?}", new.added_of_spec)
    };
    assert_eq!((*spec_id, added.record_count(), added.partition()), (0, 2, &within("Ulm")));
    let removed: Vec<&str> = new.removed.iter().map(DataFile::file_path).collect();
    assert_eq!(removed, [some.file_path()]);

    // A number is compared as it is written.
    set(&mut lake, "user_id", "id");
    for (value, files) in [("3", 1), ("03", 0), ("ann", 0)] {
        let of_person = RowCondition { value: value.into(), ..of_person.clone() };
        assert_eq!(found(&lake, &of_person).await.files.len(), files, "{value}");
    }
}

#[test]
fn only_what_came_later_by_its_seq_and_by_its_time_is_spared() {
    let seqs: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 8, 7]));
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(vec![5_000, 5_000, 5_001, 5_001]));
    let later = |bound: ArrivalBound, arrival: &[Option<ArrayRef>]| -> Vec<usize> {
        (0..4).filter(|row| bound.is_later(arrival, *row)).collect()
    };
    let events = [Some(Arc::clone(&seqs)), Some(Arc::clone(&times)), None];
    let bound = ArrivalBound { seq: Some(7), at_ms: 5 };
    assert_eq!(later(bound, &events), [2]);
    assert_eq!(later(ArrivalBound { seq: None, ..bound }, &events), [2, 3]);
    assert_eq!(later(bound, &[None, None, Some(times)]), [2, 3], "dead letters have no `seq`");
    assert!(later(bound, &[Some(seqs), None, None]).is_empty(), "nothing tells of its time");
}
