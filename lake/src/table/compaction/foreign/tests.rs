use super::*;
use crate::{
    clock::Clock,
    table::{
        compaction::{planned_files, rewrite::replacement},
        deletes::RowDeletes,
        lake::{FileColumn, TestLake, longs, optional, schema, texts, within},
        partition::FIELD_ID,
        reader::{DeleteHandling, ReadRequest, rows},
    },
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int32Array, ListArray, MapArray, StructArray,
        TimestampNanosecondArray,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Fields, Int64Type},
};
use futures::TryStreamExt;
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, Datum, ListType, MapType, Schema, StructType, UnboundPartitionSpec,
};
use icecore_catalog::error::with_causes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, HashMap};

/// A file of people of a city.
async fn file(lake: &mut TestLake, city: &str, ids: &[i64]) -> DataFile {
    let names: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
    let columns = [
        (1, "id", longs(ids.iter().copied().map(Some))),
        (2, "name", texts(names.iter().map(|name| Some(name.as_str())))),
        (3, "city", texts(ids.iter().map(|_| Some(city)))),
    ];
    let mut file = lake.write(&columns).await;
    file.partition(within(city)).build().unwrap()
}

/// Writes all files of a snapshot anew that are of this partition.
async fn rewrite(lake: &TestLake, partition: &str) -> RewrittenFiles {
    try_rewrite(lake, partition).await.unwrap()
}

async fn try_rewrite(lake: &TestLake, partition: &str) -> Result<RewrittenFiles, RewriteError> {
    let id = lake.metadata.current_snapshot_id().unwrap();
    let live = live_files(lake.source(), id, &Filter::True).await.unwrap();
    let of_partition = live.iter().filter(|file| file.partition == partition);
    let locations: HashSet<&str> = of_partition.map(|file| file.location.as_str()).collect();
    assert!(!locations.is_empty(), "{partition} of {live:?}");
    let (files, deletes) = planned_files(lake.source(), id, &locations).await.unwrap();
    let deletes = RowDeletes::read(lake.source(), deletes, &files).await.unwrap();
    let ids = IdGenerator::new(Clock::manual(1_000));
    let input = RewriteInput { source: lake.source(), files: &files, deletes: &deletes };
    let mut rewrite = ForeignRewrite::open(input, &ids).await?;
    while rewrite.step().await? {}
    rewrite.finish().await
}

/// The partitions of the live files, each once.
async fn partitions(lake: &TestLake) -> Vec<String> {
    let id = lake.metadata.current_snapshot_id().unwrap();
    let live = live_files(lake.source(), id, &Filter::True).await.unwrap();
    let mut partitions: Vec<String> = live.into_iter().map(|file| file.partition).collect();
    partitions.sort();
    partitions.dedup();
    partitions
}

/// The rows of a new file as it is stored.
async fn stored(lake: &TestLake, file: &DataFile) -> RecordBatch {
    let bytes = lake.storage.get(file.file_path()).await.unwrap();
    assert_eq!(bytes.len() as u64, file.file_size_in_bytes());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn ids_of(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn rows_stay_in_the_order_of_their_files_without_deleted_ones() {
    let mut lake = TestLake::of_people(true);
    let first = file(&mut lake, "Ulm", &[9, 1, 5]).await;
    let other = file(&mut lake, "Bonn", &[7]).await;
    lake.commit(vec![first.clone(), other]).await;
    let second = file(&mut lake, "Ulm", &[4, 2]).await;
    lake.commit(vec![second]).await;
    let mut positions = lake.positions(&[(&first, 1)]).await;
    let positions = positions
        .partition(within("Ulm"))
        .referenced_data_file(Some(first.file_path().to_owned()))
        .build()
        .unwrap();
    let mut keys = lake.equality(&[(1, "id", longs([Some(2), Some(8)]))]).await;
    let keys = keys.partition(within("Ulm")).build().unwrap();
    lake.commit(vec![positions.clone(), keys]).await;
    let third = file(&mut lake, "Ulm", &[8, 2]).await;
    lake.commit(vec![third]).await;

    let partitions = partitions(&lake).await;
    assert_eq!(partitions.len(), 2, "{partitions:?}");
    let ulm = partitions.iter().find(|partition| partition.contains("Ulm")).unwrap();
    let done = rewrite(&lake, ulm).await;
    assert_eq!((done.files, done.rows, done.deleted_rows), (3, 5, 2));
    assert_eq!(done.spec_id, Some(0), "it may not be the default one any more by the commit");
    let [added] = done.added.as_slice() else { panic!("{:?}", done.added) };
    assert_eq!(ids_of(&stored(&lake, added).await), [9, 5, 4, 8, 2]);
    assert_eq!((added.partition(), added.sort_order_id()), (&within("Ulm"), None));
    assert_eq!(added.value_counts()[&1], 5);
    assert_eq!(added.lower_bounds()[&1], Datum::long(2));
    assert_eq!(added.upper_bounds()[&1], Datum::long(9));
    assert!(added.column_sizes().contains_key(&2));
    let removed: Vec<&str> = done.removed.iter().map(DataFile::file_path).collect();
    assert!(removed.len() == 4 && removed.contains(&positions.file_path()), "{removed:?}");
}

#[tokio::test]
async fn files_of_an_earlier_spec_stay_in_it_and_columns_have_the_names_of_today() {
    let mut lake = TestLake::of_people(true);
    for ids in [[1, 2], [3, 4]] {
        let old = file(&mut lake, "Ulm", &ids).await;
        lake.commit(vec![old]).await;
    }
    let columns = schema([
        optional(1, "id", PrimitiveType::Long),
        optional(2, "title", PrimitiveType::String),
        optional(3, "city", PrimitiveType::String),
        optional(4, "age", PrimitiveType::Int),
    ]);
    lake.change(|builder| builder.add_current_schema(columns));
    let spec = UnboundPartitionSpec::builder();
    let spec = spec.add_partition_field(1, "ids", Transform::Bucket(4)).unwrap().build();
    lake.change(|builder| builder.add_default_partition_spec(spec));
    let mut newer = lake.write(&[(1, "id", longs([Some(5)]))]).await;
    let bucket = Struct::from_iter([Some(Literal::int(3))]);
    let spec_id = lake.metadata.default_partition_spec_id();
    let newer = newer.partition(bucket).partition_spec_id(spec_id).build().unwrap();
    lake.commit(vec![newer]).await;

    let partitions = partitions(&lake).await;
    assert_eq!(partitions.len(), 2, "{partitions:?}");
    let old = partitions.iter().find(|partition| partition.starts_with("0/")).unwrap();
    let done = rewrite(&lake, old).await;
    assert_eq!((done.files, done.rows, done.spec_id), (2, 4, Some(0)));
    let [added] = done.added.as_slice() else { panic!("{:?}", done.added) };
    assert_eq!(added.partition(), &within("Ulm"));
    let rows = stored(&lake, added).await;
    let names: Vec<String> =
        rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "title", "city", "age"]);
    assert_eq!(rows.column(1).as_string::<i32>().value(3), "n4");
    assert_eq!(rows.column(3).null_count(), 4);
    // What the commit is made of tells the spec as well.
    let new = replacement(1, std::slice::from_ref(&done), "c".to_owned());
    assert!(new.added.is_empty());
    assert!(matches!(new.added_of_spec.as_slice(), [(0, _)]), "{:?}", new.added_of_spec);
}

#[tokio::test]
async fn a_dropped_column_stays_where_a_file_has_it() {
    let mut lake = TestLake::of_people(false);
    for id in [1, 2] {
        let columns = [(1, "id", longs([Some(id)])), (2, "name", texts([Some("Ann")]))];
        let file = lake.write(&columns).await.build().unwrap();
        lake.commit(vec![file]).await;
    }
    // Another column has the name today.
    let columns = schema([
        optional(1, "id", PrimitiveType::Long),
        optional(4, "name", PrimitiveType::String),
    ]);
    lake.change(|builder| builder.add_current_schema(columns));
    let partitions = partitions(&lake).await;
    let done = rewrite(&lake, &partitions[0]).await;
    let rows = stored(&lake, &done.added[0]).await;
    let names: Vec<String> =
        rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "name", "dropped_2"], "`city` is in no file");
    assert_eq!(rows.column(1).null_count(), 2);
    assert_eq!(rows.column(2).as_string::<i32>().value(1), "Ann");
}

/// A field with its id.
fn field(id: i32, name: &str, kind: DataType, nullable: bool) -> Field {
    Field::new(name, kind, nullable).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
}

fn of_struct(fields: Vec<Field>, columns: Vec<ArrayRef>) -> ArrayRef {
    Arc::new(StructArray::try_new(Fields::from(fields), columns, None).unwrap())
}

/// A place with a street, and a name in later files; tags; numbers by name.
fn nested_table() -> Schema {
    let place = StructType::new(vec![
        Arc::new(optional(11, "street", PrimitiveType::String)),
        Arc::new(optional(12, "floor", PrimitiveType::Long)),
    ]);
    let tag = NestedField::list_element(21, Type::Primitive(PrimitiveType::String), false);
    let key = NestedField::map_key_element(31, Type::Primitive(PrimitiveType::String));
    let value = NestedField::map_value_element(32, Type::Primitive(PrimitiveType::Long), false);
    schema([
        optional(1, "id", PrimitiveType::Long),
        NestedField::optional(2, "place", Type::Struct(place)),
        NestedField::optional(3, "tags", Type::List(ListType::new(Arc::new(tag)))),
        NestedField::optional(
            4,
            "numbers",
            Type::Map(MapType::new(Arc::new(key), Arc::new(value))),
        ),
    ])
}

fn lists(texts_of_rows: ArrayRef, lengths: [usize; 2]) -> ArrayRef {
    let item = Arc::new(field(21, "element", DataType::Utf8, true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Arc::new(ListArray::try_new(item, offsets, texts_of_rows, None).unwrap())
}

fn maps(keys: ArrayRef, values: ArrayRef, lengths: [usize; 2]) -> ArrayRef {
    let fields = Fields::from(vec![
        field(31, "key", DataType::Utf8, false),
        field(32, "value", DataType::Int64, true),
    ]);
    let entries = StructArray::try_new(fields.clone(), vec![keys, values], None).unwrap();
    let entry = Arc::new(Field::new("key_value", DataType::Struct(fields), false));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Arc::new(MapArray::try_new(entry, offsets, entries, None, false).unwrap())
}

#[tokio::test]
async fn nested_columns_are_found_by_id_at_each_depth() {
    // A new table gets ids of its own.
    let flat = schema([optional(1, "id", PrimitiveType::Long)]);
    let mut lake = TestLake::new(flat, UnboundPartitionSpec::builder().build());
    lake.change(|builder| builder.add_current_schema(nested_table()));
    // The first file has another name for the street, a narrower floor, and a field that is gone.
    let floors: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let old = of_struct(
        vec![
            field(12, "floor", DataType::Int32, true),
            field(13, "gone", DataType::Utf8, true),
            field(11, "road", DataType::Utf8, true),
        ],
        vec![floors, texts([Some("x"), Some("y")]), texts([Some("A"), None])],
    );
    let tags = lists(texts([Some("a"), None, Some("c")]), [1, 2]);
    let numbers = maps(texts([Some("k")]), longs([Some(7)]), [0, 1]);
    let first = lake.write(&[(2, "place", old), (3, "tags", tags), (4, "numbers", numbers)]).await;
    let first = first.build().unwrap();
    // The second lacks the floor and the tags.
    let street = of_struct(
        vec![field(11, "street", DataType::Utf8, true)],
        vec![texts([Some("B"), Some("C")])],
    );
    let second = lake.write(&[(2, "place", street)]).await.build().unwrap();
    lake.commit(vec![first]).await;
    lake.commit(vec![second]).await;
    assert_eq!(obstacle(&lake.metadata, true), None);

    let partitions = partitions(&lake).await;
    let done = rewrite(&lake, &partitions[0]).await;
    assert_eq!((done.files, done.rows), (2, 4));
    let rows = stored(&lake, &done.added[0]).await;
    let place = rows.column(1).as_struct();
    assert_eq!(place.column_names(), ["street", "floor"]);
    let streets: Vec<Option<&str>> = place.column(0).as_string::<i32>().iter().collect();
    assert_eq!(streets, [Some("A"), None, Some("B"), Some("C")]);
    let floors: Vec<Option<i64>> = place.column(1).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(floors, [Some(1), None, None, None]);
    let tags = rows.column(2).as_list::<i32>();
    assert_eq!((tags.value_length(0), tags.value_length(1), tags.null_count()), (1, 2, 2));
    assert_eq!(tags.value(1).as_string::<i32>().value(1), "c");
    let numbers = rows.column(3).as_map();
    assert_eq!(numbers.value(1).column(1).as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(numbers.null_count(), 2);
    let street = place.fields()[0].metadata().get(FIELD_ID).cloned();
    assert_eq!(street.as_deref(), Some("11"), "inner fields have their ids");
}

/// A struct with one text.
fn struct_of(text: NestedField) -> Type {
    Type::Struct(StructType::new(vec![Arc::new(text)]))
}

#[tokio::test]
async fn a_file_in_which_others_find_other_values_stays() {
    let street = struct_of(optional(2, "street", PrimitiveType::String));
    let without_id = Field::new("street", DataType::Utf8, true);
    let place = of_struct(vec![without_id], vec![texts([Some("A")])]);
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_500]));
    let cases: [(NestedField, FileColumn<'_>, &str); 3] = [
        (optional(1, "at", PrimitiveType::Timestamp), (1, "at", nanos), "in nanoseconds"),
        (NestedField::optional(1, "place", street), (1, "place", place), "fields without ids"),
        (optional(1, "id", PrimitiveType::Long), (0, "id", longs([Some(1)])), "no name mapping"),
    ];
    for (column, values, why) in cases {
        let mut lake = TestLake::new(schema([column]), UnboundPartitionSpec::builder().build());
        let file = lake.write(&[values]).await.build().unwrap();
        lake.commit(vec![file]).await;
        let partitions = partitions(&lake).await;
        let refusal = try_rewrite(&lake, &partitions[0]).await.unwrap_err();
        assert!(with_causes(&refusal).contains(why), "{refusal:?}");
        assert_eq!(refusal.data_files().len(), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn all_files_that_stay_are_named_at_once() {
    let columns = schema([optional(1, "id", PrimitiveType::Long)]);
    let mut lake = TestLake::new(columns, UnboundPartitionSpec::builder().build());
    for (field_id, id) in [(0, 1), (1, 2), (0, 3)] {
        let file = lake.write(&[(field_id, "id", longs([Some(id)]))]).await.build().unwrap();
        lake.commit(vec![file]).await;
    }
    let partitions = partitions(&lake).await;
    let refusal = try_rewrite(&lake, &partitions[0]).await.unwrap_err();
    assert_eq!(refusal.data_files().len(), 2, "{refusal:?}");
    let told = with_causes(&refusal);
    assert!(told.contains("2 files") && told.contains("no name mapping"), "{told}");
}

#[tokio::test]
async fn a_file_without_ids_is_read_by_the_name_mapping() {
    let columns = schema([optional(1, "id", PrimitiveType::Long)]);
    let mut lake = TestLake::new(columns, UnboundPartitionSpec::builder().build());
    let file = lake.write(&[(0, "number", longs([Some(7)]))]).await.build().unwrap();
    lake.commit(vec![file]).await;
    let mapping = r#"[{"field-id": 1, "names": ["id", "number"]}]"#.to_owned();
    let properties = HashMap::from([(DEFAULT_SCHEMA_NAME_MAPPING.to_owned(), mapping)]);
    lake.change(|builder| builder.set_properties(properties));
    let partitions = partitions(&lake).await;
    let done = rewrite(&lake, &partitions[0]).await;
    assert_eq!(ids_of(&stored(&lake, &done.added[0]).await), [7]);
}

#[tokio::test]
async fn a_file_has_the_columns_of_its_partition_also_inside_of_structs() {
    let place = struct_of(optional(3, "city", PrimitiveType::String));
    let columns =
        schema([optional(1, "id", PrimitiveType::Long), NestedField::optional(2, "place", place)]);
    let spec = UnboundPartitionSpec::builder();
    let spec = spec.add_partition_field(3, "city", Transform::Identity).unwrap().build();
    let mut lake = TestLake::new(columns, spec);
    let city = || field(3, "city", DataType::Utf8, true);
    for (id, city) in [(1, city()), (2, city())] {
        let place = of_struct(vec![city], vec![texts([Some("Ulm")])]);
        let mut file = lake.write(&[(1, "id", longs([Some(id)])), (2, "place", place)]).await;
        let file = file.partition(within("Ulm")).build().unwrap();
        lake.commit(vec![file]).await;
    }
    let ulm = partitions(&lake).await;
    let done = rewrite(&lake, &ulm[0]).await;
    assert_eq!((done.files, done.rows), (2, 2));
    // As `add_files` finds it in the folders of Hive.
    let mut file = lake.write(&[(1, "id", longs([Some(3)]))]).await;
    let file = file.partition(within("Ulm")).build().unwrap();
    lake.commit(vec![file]).await;
    let refusal = try_rewrite(&lake, &ulm[0]).await.unwrap_err();
    assert!(with_causes(&refusal).contains("only its partition has"), "{refusal:?}");
}

#[test]
fn what_stands_in_the_way_is_told() {
    let mut lake = TestLake::of_people(false);
    let why = |lake: &TestLake, is_asked| obstacle(&lake.metadata, is_asked).unwrap_or_default();
    assert!(why(&lake, false).contains("not a table of the service"));
    assert_eq!(why(&lake, true), "");
    let set = |lake: &mut TestLake, value: &str| {
        let properties = HashMap::from([(SWITCH.to_owned(), value.to_owned())]);
        lake.change(|builder| builder.set_properties(properties));
    };
    set(&mut lake, "on");
    assert_eq!(why(&lake, false), "");
    set(&mut lake, "off");
    assert!(why(&lake, true).contains("is `off`"));
    set(&mut lake, "on");
    lake.change(|builder| {
        builder.add_current_schema(schema([optional(4, "key", PrimitiveType::Uuid)]))
    });
    assert!(why(&lake, true).contains("uuids"), "{}", why(&lake, true));
    lake.change(|builder| builder.upgrade_format_version(FormatVersion::V3));
    assert!(why(&lake, true).contains("format version 3"));
}

/// Id and name of each row of the table, in order.
async fn read(lake: &TestLake) -> Vec<(i64, Option<String>)> {
    let request = ReadRequest {
        snapshot_id: lake.metadata.current_snapshot_id().unwrap(),
        columns: vec![1, 2],
        filter: Filter::True,
        deletes: DeleteHandling::Applied,
    };
    let batches: Vec<_> = rows(lake.source(), request).await.unwrap().try_collect().await.unwrap();
    let mut found: Vec<_> = batches.iter().flat_map(people).collect();
    found.sort();
    found
}

fn people(rows: &RecordBatch) -> Vec<(i64, Option<String>)> {
    let names = rows.column(1).as_string::<i32>().iter().map(|name| name.map(str::to_owned));
    ids_of(rows).into_iter().zip(names).collect()
}

/// A file of some people of a city, of whom some lack a name, in row groups of any length.
async fn random_file(lake: &mut TestLake, random: &mut StdRng, city: &str) -> DataFile {
    lake.group_rows = Some(random.random_range(1..8));
    let ids: Vec<i64> =
        (0..random.random_range(1..20)).map(|_| random.random_range(0..30)).collect();
    let names: Vec<Option<String>> =
        ids.iter().map(|id| random.random_bool(0.8).then(|| format!("n{id}"))).collect();
    let columns = [
        (1, "id", longs(ids.iter().copied().map(Some))),
        (2, "name", texts(names.iter().map(Option::as_deref))),
        (3, "city", texts(ids.iter().map(|_| Some(city)))),
    ];
    let mut file = lake.write(&columns).await;
    file.partition(within(city)).build().unwrap()
}

#[tokio::test]
async fn random_tables_have_the_same_rows_after_all_of_their_files_were_written_anew() {
    for seed in 0..24 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut lake = TestLake::of_people(true);
        let mut files: BTreeMap<&str, Vec<DataFile>> = BTreeMap::new();
        for _ in 0..random.random_range(2..7) {
            let city = ["Ulm", "Bonn"][random.random_range(0..2)];
            let mut added = Vec::new();
            if let Some(of_city) = files.get(city).filter(|_| random.random_bool(0.5)) {
                let about = &of_city[random.random_range(0..of_city.len())];
                let last = i64::try_from(about.record_count()).unwrap();
                let mut positions = lake.positions(&[(about, random.random_range(0..last))]).await;
                added.push(positions.partition(within(city)).build().unwrap());
            }
            if random.random_bool(0.3) {
                let keys = longs([Some(random.random_range(0..30))]);
                let mut keys = lake.equality(&[(1, "id", keys)]).await;
                added.push(keys.partition(within(city)).build().unwrap());
            }
            let file = random_file(&mut lake, &mut random, city).await;
            files.entry(city).or_default().push(file.clone());
            added.push(file);
            lake.commit(added).await;
        }
        let before = read(&lake).await;
        let mut after = Vec::new();
        for partition in partitions(&lake).await {
            let done = rewrite(&lake, &partition).await;
            for added in &done.added {
                after.extend(people(&stored(&lake, added).await));
            }
        }
        after.sort();
        assert_eq!(after, before, "seed {seed}");
    }
}
