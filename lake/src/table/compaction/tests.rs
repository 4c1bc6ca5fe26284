use super::{merge::RowMerge, places::carry_deletes, rewrite::*, *};
use crate::{
    clock::Clock,
    ids::IdGenerator,
    table::{
        deletes::RowDeletes,
        file_columns::{FileColumns, OpenFile},
        lake::{TestLake, longs, optional, schema, texts, within},
        reader::{DeleteHandling, ReadError, ReadRequest, rows, rows_in_batches},
        row_sum::hash_of,
        writer::{FileLayout, delete},
    },
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use futures::StreamExt;
use iceberg::spec::{
    DataFile, ListType, Literal, NullOrder,
    PrimitiveType::{self, Long},
    SortDirection, SortField, SortOrder, Struct, StructType, Type, UnboundPartitionSpec,
};
use icecore_catalog::row_sum::RowSum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Id and name of each row, in order.
fn people(batches: &[RecordBatch]) -> Vec<(i64, Option<String>)> {
    let rows = batches.iter().flat_map(|rows| {
        let (ids, names) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1));
        let names = names.as_string::<i32>().iter().map(|name| name.map(str::to_owned));
        ids.values().iter().copied().zip(names).collect::<Vec<_>>()
    });
    rows.collect()
}

async fn read(lake: &TestLake) -> Vec<(i64, Option<String>)> {
    let request = ReadRequest {
        snapshot_id: lake.metadata.current_snapshot_id().unwrap(),
        columns: vec![1, 2, 3],
        filter: Filter::True,
        deletes: DeleteHandling::Applied,
    };
    let batches: Vec<_> = rows(lake.source(), request).await.unwrap().try_collect().await.unwrap();
    let mut found = people(&batches);
    found.sort();
    found
}

/// People of Ulm, in a file.
async fn file(lake: &mut TestLake, ids: &[i64]) -> DataFile {
    let names: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
    let columns = [
        (1, "id", longs(ids.iter().copied().map(Some))),
        (2, "name", texts(names.iter().map(|name| Some(name.as_str())))),
        (3, "city", texts(ids.iter().map(|_| Some("Ulm")))),
    ];
    let mut file = lake.write(&columns).await;
    file.partition(within("Ulm")).build().unwrap()
}

/// A table that is sorted by id.
fn sorted_people() -> TestLake {
    let mut lake = TestLake::of_people(true);
    let by_id = SortField {
        source_id: 1,
        transform: Transform::Identity,
        direction: SortDirection::Ascending,
        null_order: NullOrder::First,
    };
    let order = SortOrder::builder().with_order_id(1).with_fields(vec![by_id]).build_unbound();
    lake.change(|builder| builder.add_sort_order(order.unwrap()));
    lake
}

async fn rewrite(lake: &TestLake) -> Result<RewrittenFiles, RewriteError> {
    let id = lake.metadata.current_snapshot_id().unwrap();
    let live = live_files(lake.source(), id).await.unwrap();
    let locations = live.iter().map(|file| file.location.as_str()).collect();
    let (files, deletes) = planned_files(lake.source(), id, &locations).await.unwrap();
    let deletes = RowDeletes::read(lake.source(), deletes, &files).await.unwrap();
    let ids = IdGenerator::new(Clock::manual(1_000));
    let input = RewriteInput { source: lake.source(), files: &files, deletes: &deletes };
    let mut rewrite = FileRewrite::open(input, &ids).await?;
    loop {
        match rewrite.step().await {
            Ok(true) => (),
            Ok(false) => return rewrite.finish().await,
            Err(cause) => {
                rewrite.abandon().await;
                return Err(cause);
            }
        }
    }
}

#[tokio::test]
async fn rows_are_merged_in_order_and_deleted_ones_left_out() {
    let mut lake = sorted_people();
    lake.group_rows = Some(3);
    let first = file(&mut lake, &[1, 4, 7, 10, 13, 16, 19]).await;
    let second = file(&mut lake, &[18, 2, 9, 11, 5]).await;
    lake.commit(vec![first.clone(), second.clone()]).await;
    let positions = lake.positions(&[(&first, 1), (&first, 6)]).await;
    let positions = positions
        .clone()
        .partition(within("Ulm"))
        .referenced_data_file(Some(first.file_path().to_owned()))
        .build()
        .unwrap();
    let mut keys = lake.equality(&[(1, "id", longs([Some(11), Some(12)]))]).await;
    let keys = keys.partition(within("Ulm")).build().unwrap();
    lake.commit(vec![positions.clone(), keys]).await;
    // What comes after the deletes is not reached by them.
    let third = file(&mut lake, &[11, 30]).await;
    lake.commit(vec![third]).await;
    let before = read(&lake).await;

    let done = rewrite(&lake).await.unwrap();
    assert_eq!((done.files, done.rows, done.deleted_rows), (3, 11, 3));
    let [added] = done.added.as_slice() else { panic!("{:?}", done.added) };
    assert_eq!((added.record_count(), added.sort_order_id()), (11, Some(1)));
    assert_eq!(added.partition(), &Struct::from_iter([Some(Literal::string("Ulm"))]));
    let removed: Vec<&str> = done.removed.iter().map(DataFile::file_path).collect();
    assert!(removed.len() == 4 && removed.contains(&positions.file_path()), "{removed:?}");

    let mut alone = sorted_people();
    let bytes = lake.storage.get(added.file_path()).await.unwrap();
    let moved = alone.put(bytes.to_vec()).await.record_count(11).partition(within("Ulm")).build();
    alone.commit(vec![moved.unwrap()]).await;
    assert_eq!(read(&alone).await, before);
    let request = ReadRequest {
        snapshot_id: alone.metadata.current_snapshot_id().unwrap(),
        columns: vec![1, 2],
        filter: Filter::True,
        deletes: DeleteHandling::Applied,
    };
    let batches: Vec<_> = rows(alone.source(), request).await.unwrap().try_collect().await.unwrap();
    assert!(people(&batches).is_sorted(), "the rows of the file are in order");
}

/// People of Ulm with these ids and long names, in a file.
async fn large_file(
    lake: &mut TestLake,
    ids: impl Iterator<Item = i64>,
    name: impl Fn(i64) -> String,
) -> DataFile {
    let ids: Vec<i64> = ids.collect();
    let names: Vec<String> = ids.iter().map(|id| name(*id)).collect();
    let columns = [
        (1, "id", longs(ids.iter().copied().map(Some))),
        (2, "name", texts(names.iter().map(|name| Some(name.as_str())))),
        (3, "city", texts(ids.iter().map(|_| Some("Ulm")))),
    ];
    let mut file = lake.write(&columns).await;
    file.partition(within("Ulm")).sort_order_id(1).build().unwrap()
}

/// Bytes of a large name.
const LARGE: usize = 512 << 10;

/// Names of that size: one for all, which a footer tells to be long or not, or each another one.
#[derive(Clone, Copy, Debug)]
enum LargeNames {
    Shared,
    SharedAndSilent,
    Distinct,
}

impl LargeNames {
    fn of(self, id: i64) -> String {
        match self {
            Self::Shared | Self::SharedAndSilent => "x".repeat(LARGE),
            Self::Distinct => format!("{id:032}").repeat(LARGE / 32),
        }
    }
}

#[tokio::test]
async fn large_rows_are_merged_in_small_batches() {
    const ROWS: i64 = 70;
    for (names, rows_max) in
        [(LargeNames::Shared, 8), (LargeNames::Distinct, 8), (LargeNames::SharedAndSilent, 64)]
    {
        let mut lake = sorted_people();
        lake.is_silent = matches!(names, LargeNames::SharedAndSilent);
        for first in [0, 1] {
            let ids = (0..ROWS).map(|row| 2 * row + first);
            let file = large_file(&mut lake, ids, |id| names.of(id)).await;
            lake.commit(vec![file]).await;
        }
        let columns = FileColumns::of(&lake.metadata, &[1, 2, 3]).unwrap();
        let mut merge = RowMerge::new(Arc::new(FileLayout::of(&lake.metadata)));
        for file in &lake.plan().await.files {
            let opened = OpenFile::new(&lake.storage, file, &columns).await.unwrap();
            let (kept, rows) = rows_in_batches(opened, None, 4 << 20).unwrap();
            assert_eq!(kept, ROWS.unsigned_abs());
            let rows = rows.map_err(ReadError::from).inspect_ok(move |rows: &RecordBatch| {
                assert!(rows.num_rows() <= rows_max, "{} in {names:?}", rows.num_rows());
            });
            merge.add(&file.location, rows.boxed(), true, None).await.unwrap();
        }
        // Texts may have room for as much again.
        assert!(merge.held_bytes() <= 2 * 2 * (rows_max + 1) * LARGE, "{names:?}");
        let mut ids = Vec::new();
        while let Some(rows) = merge.next().await.unwrap() {
            assert!(rows.num_rows() <= 36, "{} large rows at once", rows.num_rows());
            ids.extend(people(&[rows]).into_iter().map(|(id, _)| id));
        }
        assert_eq!(ids, (0..2 * ROWS).collect::<Vec<_>>());
    }
}

/// Each file is half a MiB, and its first batch 31 MiB.
#[tokio::test]
async fn files_that_do_not_fit_beside_one_another_in_memory_stay() {
    let mut lake = sorted_people();
    lake.is_silent = true;
    for first in 0..6 {
        let ids = (0..62).map(|row| 6 * row + first);
        let file = large_file(&mut lake, ids, |id| LargeNames::Shared.of(id)).await;
        lake.commit(vec![file]).await;
    }
    let id = lake.metadata.current_snapshot_id().unwrap();
    let locations: Vec<String> =
        lake.plan().await.files.iter().map(|file| file.location.clone()).collect();
    let locations = locations.iter().map(String::as_str).collect();
    let (files, deletes) = planned_files(lake.source(), id, &locations).await.unwrap();
    let deletes = RowDeletes::read(lake.source(), deletes, &files).await.unwrap();
    let ids = IdGenerator::new(Clock::manual(1_000));
    let input = RewriteInput { source: lake.source(), files: &files, deletes: &deletes };
    let rewrite = FileRewrite::open(input, &ids).await.unwrap();
    assert!((2..6).contains(&rewrite.planned().files), "{rewrite:?}");
    rewrite.abandon().await;
}

/// It is longer than what is sorted in memory, as an engine may write it.
#[tokio::test]
async fn a_long_file_in_no_known_order_keeps_the_order_that_it_has() {
    let mut lake = sorted_people();
    let ids = [7, 3, 19, 1, 2, 11, 5, 4, 18, 12, 8, 6, 20, 15, 14, 9, 10, 17, 16, 13];
    let names: Vec<String> = ids.iter().map(|id| LargeNames::Distinct.of(*id)).collect();
    let columns = [
        (1, "id", longs(ids.map(Some))),
        (2, "name", texts(names.iter().map(|name| Some(name.as_str())))),
        (3, "city", texts(ids.iter().map(|_| Some("Ulm")))),
    ];
    let file = lake.write(&columns).await.partition(within("Ulm")).build().unwrap();
    assert!(8 << 20 < file.file_size_in_bytes());
    lake.commit(vec![file]).await;
    let done = rewrite(&lake).await.unwrap();
    let [added] = done.added.as_slice() else { panic!("{:?}", done.added) };
    assert_eq!((added.record_count(), added.sort_order_id()), (20, None));
    let bytes = lake.storage.get(added.file_path()).await.unwrap();
    let written = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let written: Vec<RecordBatch> = written.map(Result::unwrap).collect();
    let found: Vec<i64> = people(&written).into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, ids);
}

/// Whoever takes an earlier schema again finds what the rows had.
#[tokio::test]
async fn a_dropped_column_keeps_its_values() {
    let mut lake = sorted_people();
    let (one, other) = (file(&mut lake, &[1, 2]).await, file(&mut lake, &[3]).await);
    lake.commit(vec![one, other]).await;
    let before = read(&lake).await;
    // Another column has the name now.
    let columns = [(1, "id", Long), (3, "city", PrimitiveType::String), (4, "name", Long)];
    let without = schema(columns.map(|(id, name, kind)| optional(id, name, kind)));
    lake.change(|builder| builder.add_current_schema(without));
    let columns = [
        (1, "id", longs([Some(4)])),
        (3, "city", texts([Some("Ulm")])),
        (4, "name", longs([Some(9)])),
    ];
    let mut third = lake.write(&columns).await;
    let third = third.partition(within("Ulm")).build().unwrap();
    lake.commit(vec![third]).await;
    let done = rewrite(&lake).await.unwrap();
    assert_eq!((done.files, done.rows), (3, 4));

    let mut again = sorted_people();
    let bytes = lake.storage.get(done.added[0].file_path()).await.unwrap();
    let moved = again.put(bytes.to_vec()).await.record_count(4).partition(within("Ulm")).build();
    again.commit(vec![moved.unwrap()]).await;
    assert_eq!(read(&again).await, [before, vec![(4, None)]].concat());
}

#[tokio::test]
async fn a_file_without_ids_has_no_dropped_column_under_the_name_of_another() {
    let mut lake = sorted_people();
    let columns = [(1, "id", Long), (3, "city", PrimitiveType::String), (4, "name", Long)];
    let other = schema(columns.map(|(id, name, kind)| optional(id, name, kind)));
    lake.change(|builder| builder.add_current_schema(other));
    for id in [1, 2] {
        let columns = [
            (0, "id", longs([Some(id)])),
            (0, "city", texts([Some("Ulm")])),
            (0, "name", longs([Some(9)])),
        ];
        let file = lake.write(&columns).await.partition(within("Ulm")).build().unwrap();
        lake.commit(vec![file]).await;
    }
    let done = rewrite(&lake).await.unwrap();
    let mut again = sorted_people();
    let bytes = lake.storage.get(done.added[0].file_path()).await.unwrap();
    let moved = again.put(bytes.to_vec()).await.record_count(2).partition(within("Ulm")).build();
    again.commit(vec![moved.unwrap()]).await;
    assert_eq!(read(&again).await, [(1, None), (2, None)]);
}

#[test]
fn a_dropped_column_has_a_free_name() {
    let mut lake = sorted_people();
    let columns = [(1, "id", Long), (3, "city", PrimitiveType::String), (4, "dropped_2", Long)];
    let without = schema(columns.map(|(id, name, kind)| optional(id, name, kind)));
    lake.change(|builder| builder.add_current_schema(without));
    let kept = layout(&lake.metadata).unwrap().schema;
    assert_eq!(kept.field_by_id(2).unwrap().name, "dropped_2_");
}

#[test]
fn a_dropped_column_without_single_values_is_left_out() {
    let mut lake = sorted_people();
    let inner = [Arc::new(optional(10, "x", Long))];
    let nested = NestedField::optional(9, "own", Type::Struct(StructType::new(inner.into())));
    let before = lake.metadata.current_schema().as_ref().clone();
    let wider = before.clone().into_builder().with_fields([Arc::new(nested)]).build().unwrap();
    lake.change(|builder| builder.add_current_schema(wider));
    assert!(obstacle(&lake.metadata).is_some());
    lake.change(|builder| builder.add_current_schema(before));
    assert_eq!(obstacle(&lake.metadata), None);
    assert!(had_nested(&lake.metadata));
}

#[test]
fn a_table_whose_property_says_so_is_left_alone() {
    let mut lake = sorted_people();
    assert_eq!(obstacle(&lake.metadata), None);
    let off = [("icecore.compaction".to_owned(), "off".to_owned())];
    lake.change(|builder| builder.set_properties(off.into()));
    assert!(obstacle(&lake.metadata).is_some());
}

#[test]
fn an_order_that_is_empty_is_none_and_one_of_no_column_leaves_the_table_alone() {
    for (columns, is_left) in [("", false), (" ", false), ("name", false), ("nope", true)] {
        let mut lake = sorted_people();
        let order = [("icecore.compaction.zorder".to_owned(), columns.to_owned())];
        lake.change(|builder| builder.set_properties(order.into()));
        assert_eq!(obstacle(&lake.metadata).is_some(), is_left, "`{columns}`");
        assert_eq!(order_fault(&lake.metadata), obstacle(&lake.metadata));
    }
}

/// Rows that lack a value of it would take as much.
#[test]
fn a_table_with_a_wide_column_is_left_alone() {
    for (bytes, is_left) in [(64 << 10, false), ((64 << 10) + 1, true)] {
        let mut lake = sorted_people();
        let mut fields: Vec<NestedField> = lake
            .metadata
            .current_schema()
            .as_struct()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .collect();
        fields.push(optional(9, "wide", PrimitiveType::Fixed(bytes)));
        lake.change(|builder| builder.add_current_schema(schema(fields)));
        assert_eq!(obstacle(&lake.metadata).is_some(), is_left, "{bytes}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_in_the_order_it_claims_is_not_written_anew() {
    let mut lake = sorted_people();
    let mut wrong = file(&mut lake, &[2, 1]).await;
    lake.commit(vec![wrong.clone()]).await;
    assert_eq!(rewrite(&lake).await.unwrap().rows, 2, "it claims none");
    let mut lake = sorted_people();
    wrong = file(&mut lake, &[2, 1]).await;
    let bytes = lake.storage.get(wrong.file_path()).await.unwrap();
    let claims = lake
        .put(bytes.to_vec())
        .await
        .record_count(2)
        .partition(within("Ulm"))
        .sort_order_id(1)
        .build();
    lake.commit(vec![claims.unwrap()]).await;
    let refused = rewrite(&lake).await;
    assert!(matches!(refused, Err(RewriteError::Unsorted { .. })), "{refused:?}");
}

#[tokio::test]
async fn rows_without_a_place_in_the_order_stay_and_carried_out_deletes_do_not_count() {
    let mut lake = sorted_people();
    let columns = [
        (1, "id", longs([Some(1), None])),
        (2, "name", texts([Some("a"), Some("b")])),
        (3, "city", texts([Some("Ulm"), Some("Ulm")])),
    ];
    let mut nulls = lake.write(&columns).await;
    let nulls = nulls.partition(within("Ulm")).null_value_counts([(1, 1)].into()).build().unwrap();
    let (one, other) = (file(&mut lake, &[1, 2]).await, file(&mut lake, &[3, 4]).await);
    let mut of_both = lake.positions(&[(&one, 0), (&other, 0)]).await;
    let of_both = of_both.partition(within("Ulm")).build().unwrap();
    // All of one number, as a file that is written anew is beside the deletes that it carried out.
    lake.commit(vec![nulls, one.clone(), other, of_both.clone()]).await;
    let live = async |lake: &TestLake| {
        let id = lake.metadata.current_snapshot_id().unwrap();
        live_files(lake.source(), id).await.unwrap()
    };
    let found = live(&lake).await;
    let obstacles = found.iter().filter(|file| file.obstacle.is_some()).count();
    assert_eq!((found.len(), obstacles), (3, 1), "{found:?}");
    assert!(found.iter().all(|file| file.delete_files == 0), "{found:?}");
    let mut later = lake.positions(&[(&one, 1)]).await;
    let later = later
        .partition(within("Ulm"))
        .referenced_data_file(Some(one.file_path().to_owned()))
        .build();
    lake.commit(vec![later.unwrap()]).await;
    let counts: usize = live(&lake).await.iter().map(|file| file.delete_files).sum();
    assert_eq!(counts, 1);
}

#[tokio::test]
async fn a_manifest_that_miscounts_ends_a_rewrite() {
    let mut lake = sorted_people();
    let right = file(&mut lake, &[1, 2]).await;
    let bytes = lake.storage.get(right.file_path()).await.unwrap();
    let wrong = lake.put(bytes.to_vec()).await.record_count(3).partition(within("Ulm")).build();
    lake.commit(vec![wrong.unwrap()]).await;
    let refused = rewrite(&lake).await;
    let Err(RewriteError::Miscounted { expected: 3, written: 2 }) = refused else {
        panic!("{refused:?}")
    };
    let data = format!("{}/data", lake.metadata.location());
    assert_eq!(lake.storage.list(&data).await.unwrap().len(), 2, "nothing is left behind");
}

#[tokio::test]
async fn other_rows_than_were_read_end_a_rewrite() {
    let columns = schema([optional(1, "id", PrimitiveType::String), optional(2, "seq", Long)]);
    let mut lake = TestLake::new(columns, UnboundPartitionSpec::builder().build());
    for seqs in [[1, 2], [3, 4]] {
        let ids = seqs.map(|seq| format!("e-{seq}"));
        let columns = [
            (1, "id", texts(ids.iter().map(|id| Some(id.as_str())))),
            (2, "seq", longs(seqs.map(Some))),
        ];
        let file = lake.write(&columns).await.build().unwrap();
        lake.commit(vec![file]).await;
    }
    let id = lake.metadata.current_snapshot_id().unwrap();
    let live = live_files(lake.source(), id).await.unwrap();
    let locations = live.iter().map(|file| file.location.as_str()).collect();
    let (files, deletes) = planned_files(lake.source(), id, &locations).await.unwrap();
    let deletes = RowDeletes::read(lake.source(), deletes, &files).await.unwrap();
    let ids = IdGenerator::new(Clock::manual(1_000));
    let mut lost = RowSum::default();
    lost.add(hash_of("e-5", 5));
    for fault in [RowSum::default(), lost] {
        let input = RewriteInput { source: lake.source(), files: &files, deletes: &deletes };
        let mut rewrite = FileRewrite::open(input, &ids).await.unwrap();
        while rewrite.step().await.unwrap() {}
        rewrite.read_sum.add(fault);
        let data = format!("{}/data", lake.metadata.location());
        let ended = rewrite.finish().await;
        let left = lake.storage.list(&data).await.unwrap().len();
        match ended {
            Ok(done) => {
                assert_eq!((fault, left), (RowSum::default(), 3));
                assert_eq!(done.rows_sum.map(RowSum::rows), Some(4));
                delete(&lake.storage, done.locations()).await;
            }
            Err(RewriteError::RowsDiffer { first, others, expected, written }) => {
                assert_eq!((expected.minus(written), left), (lost, 2));
                assert!(others == 1 && files.iter().any(|file| file.location == first), "{first}");
            }
            Err(cause) => panic!("{cause}"),
        }
    }
}

#[test]
fn a_nested_column_keeps_a_table_from_being_merged() {
    let mut lake = TestLake::of_people(false);
    assert_eq!(obstacle(&lake.metadata), None);
    let list = Type::List(ListType::new(Arc::new(optional(5, "element", Long))));
    let columns = schema([optional(1, "id", Long), NestedField::optional(4, "tags", list)]);
    lake.change(|builder| builder.add_current_schema(columns));
    let told = obstacle(&lake.metadata).unwrap();
    let expected =
        "its column `tags` is a nested column (struct, list or map), which compaction cannot write";
    assert_eq!(told, expected);
}

/// Rows that others delete by their places while files are merged.
#[tokio::test]
async fn deletes_that_came_meanwhile_are_carried_over_to_what_was_written() {
    let mut lake = sorted_people();
    let name = |id: i64| format!("n{id}");
    let first = large_file(&mut lake, [1, 4, 7, 10, 13].into_iter(), name).await;
    let second = large_file(&mut lake, [2, 3, 9, 11].into_iter(), name).await;
    lake.commit(vec![first.clone(), second.clone()]).await;
    let mut before = lake.positions(&[(&first, 1)]).await;
    lake.commit(vec![before.partition(within("Ulm")).build().unwrap()]).await;
    let done = rewrite(&lake).await.unwrap();
    assert_eq!((done.rows, done.deleted_rows), (8, 1));
    // Those of 1, 10 and 9, which are behind one another in 1, 2, 3, 7, 9, 10, 11, 13.
    let mut since = lake.positions(&[(&first, 0), (&first, 3), (&second, 2)]).await;
    lake.commit(vec![since.partition(within("Ulm")).build().unwrap()]).await;
    let ids = IdGenerator::new(Clock::manual(2_000));
    let carried = carry_deletes(lake.source(), &ids, &done).await.unwrap().unwrap();
    assert_eq!(carried.deletes_read, lake.metadata.current_snapshot_id());
    let [(spec_id, deletes)] = carried.deletes.as_slice() else { panic!("{carried:?}") };
    assert_eq!((*spec_id, deletes.record_count()), (0, 3));
    let about = deletes.referenced_data_file();
    assert_eq!(about.as_deref(), Some(carried.added[0].file_path()));
    let bytes = lake.storage.get(deletes.file_path()).await.unwrap();
    let read = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let read: Vec<RecordBatch> = read.map(Result::unwrap).collect();
    let [rows] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().values().to_vec(), [0, 4, 5]);
    assert!(rows.column(0).as_string::<i32>().iter().all(|path| path == about.as_deref()));
    let replaced = replacement(1, std::slice::from_ref(&carried), "commit".to_owned());
    assert_eq!((replaced.deletes.len(), replaced.removed.len()), (1, 2));
    assert_eq!(replaced.deletes_read, lake.metadata.current_snapshot_id());
    // Of one of two groups nobody carried anything over.
    let mixed = replacement(1, &[carried, done.clone()], "commit".to_owned());
    assert_eq!((mixed.deletes.len(), mixed.deletes_read), (1, None));

    // One of the files is gone, or nothing is known of their rows.
    let mut gone = done.clone();
    gone.removed.push(large_file(&mut lake, [20].into_iter(), name).await);
    let unknown = RewrittenFiles { places: None, ..done };
    for group in [gone, unknown] {
        assert!(carry_deletes(lake.source(), &ids, &group).await.unwrap().is_none());
    }
}
