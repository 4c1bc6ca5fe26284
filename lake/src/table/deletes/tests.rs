use super::*;
use crate::table::lake::{TestLake, longs, optional, schema, texts, within};
use arrow::array::{ArrayRef, Int32Array};
use flate2::Crc;
use iceberg::spec::{
    DataFile, ListType, Literal, NestedField, PrimitiveType, Type, UnboundPartitionSpec,
};
use icecore_catalog::scan::ScanPlan;

/// The deleted places of each data file, in the order of their writing.
async fn deleted(lake: &TestLake) -> Result<Vec<Vec<u64>>, DeletesError> {
    deleted_within(lake, HELD_BYTES_MAX).await
}

async fn deleted_within(lake: &TestLake, bytes_max: usize) -> Result<Vec<Vec<u64>>, DeletesError> {
    let ScanPlan { mut files, deletes } = lake.plan().await;
    files.sort_by(|one, other| one.location.cmp(&other.location));
    let read = RowDeletes::read_within(lake.source(), deletes, &files, bytes_max).await?;
    let found = read.of_all(lake.source(), &files).await?;
    let places = |file: &Arc<PlannedFile>| {
        found.get(&file.location).map(|rows| rows.iter().collect()).unwrap_or_default()
    };
    Ok(files.iter().map(places).collect())
}

fn numbers(values: &[i64]) -> ArrayRef {
    longs(values.iter().copied().map(Some))
}

/// A data file of people without names and cities.
async fn ids(lake: &mut TestLake, values: &[i64]) -> DataFile {
    lake.write(&[(1, "id", numbers(values))]).await.build().unwrap()
}

async fn delete_ids(lake: &mut TestLake, values: &[i64]) -> DataFile {
    lake.equality(&[(1, "id", numbers(values))]).await.build().unwrap()
}

#[tokio::test]
async fn an_equality_delete_reaches_what_is_older_and_a_position_delete_its_own_commit_too() {
    let mut lake = TestLake::of_people(false);
    let first = ids(&mut lake, &[1, 2, 3]).await;
    lake.commit(vec![first.clone()]).await;
    let second = ids(&mut lake, &[2, 4]).await;
    let by_key = delete_ids(&mut lake, &[2, 9]).await;
    let by_place = lake.positions(&[(&first, 2), (&second, 1)]).await.build().unwrap();
    lake.commit(vec![second, by_key, by_place]).await;
    let third = ids(&mut lake, &[2]).await;
    lake.commit(vec![third]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [vec![1, 2], vec![1], vec![]]);
    // The key counts with its youngest delete.
    let again = delete_ids(&mut lake, &[2]).await;
    lake.commit(vec![again]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [vec![1, 2], vec![0, 1], vec![0]]);
}

#[tokio::test]
async fn values_of_all_columns_are_compared_and_a_missing_one_equals_a_missing_one() {
    let mut lake = TestLake::of_people(false);
    let names = texts([Some("a"), None, None, Some("a")]);
    let cities = texts([Some("x"), Some("x"), None, None]);
    let data = lake.write(&[(2, "name", names), (3, "city", cities)]).await.build().unwrap();
    lake.commit(vec![data]).await;
    let (names, cities) = (texts([None, Some("a")]), texts([Some("x"), None]));
    // In another order than the table's, under names that do not count.
    let delete = lake.equality(&[(3, "name", cities), (2, "city", names)]).await.build().unwrap();
    lake.commit(vec![delete]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [[1, 3]]);
}

#[tokio::test]
async fn an_equality_delete_stays_in_its_partition_unless_its_spec_has_none() {
    let mut lake = TestLake::of_people(true);
    for city in ["x", "y"] {
        let columns = [(1, "id", numbers(&[1, 2])), (3, "city", texts([Some(city); 2]))];
        let file = lake.write(&columns).await.partition(within(city)).build().unwrap();
        lake.commit(vec![file]).await;
    }
    let mut delete = lake.equality(&[(1, "id", numbers(&[1]))]).await;
    let delete = delete.partition(within("y")).build().unwrap();
    lake.commit(vec![delete]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [vec![], vec![0]]);
    lake.change(|builder| {
        builder.add_default_partition_spec(UnboundPartitionSpec::builder().build())
    });
    let everywhere = delete_ids(&mut lake, &[2]).await;
    lake.commit(vec![everywhere]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [vec![1], vec![0, 1]]);
}

#[tokio::test]
async fn columns_are_followed_through_changes_of_the_schema() {
    let mut lake = TestLake::of_people(false);
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let old = lake.write(&[(1, "id", narrow), (2, "name", texts([Some("a"), Some("b")]))]).await;
    let old = old.build().unwrap();
    lake.commit(vec![old]).await;
    // `name` is dropped, and its name given to a new column that older files have a value for.
    let later = optional(4, "name", PrimitiveType::Long).with_initial_default(Literal::long(7));
    let columns = schema([optional(1, "key", PrimitiveType::Long), later]);
    lake.change(|builder| builder.add_current_schema(columns));
    let new = [(1, "key", numbers(&[1, 2, 3])), (4, "name", longs([Some(7), None, Some(8)]))];
    let new = lake.write(&new).await.build().unwrap();
    lake.commit(vec![new]).await;
    let dropped = lake.equality(&[(2, "name", texts([Some("b")]))]).await.build().unwrap();
    lake.commit(vec![dropped]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [vec![1], vec![]]);
    let both = [(4, "name", numbers(&[7])), (1, "key", numbers(&[1]))];
    let both = lake.equality(&both).await.build().unwrap();
    lake.commit(vec![both]).await;
    assert_eq!(deleted(&lake).await.unwrap(), [vec![0, 1], vec![0]]);
}

#[tokio::test]
async fn what_cannot_be_applied_refuses_the_read_and_says_why() {
    let list = Type::List(ListType::new(Arc::new(optional(3, "element", PrimitiveType::Long))));
    let columns =
        schema([optional(1, "id", PrimitiveType::Long), NestedField::optional(2, "list", list)]);
    for (equality_ids, format, expected) in [
        (vec![1], DataFileFormat::Avro, "has avro delete files"),
        (vec![1], DataFileFormat::Orc, "has orc delete files"),
        (vec![7], DataFileFormat::Parquet, "has no column with id 7"),
        (vec![2], DataFileFormat::Parquet, "column `list` has no single values"),
        (vec![3], DataFileFormat::Parquet, "column `element` has no single values"),
        (vec![], DataFileFormat::Parquet, "does not say which columns"),
        (vec![1, 9], DataFileFormat::Parquet, "has no column with id 9"),
    ] {
        let mut lake = TestLake::new(columns.clone(), UnboundPartitionSpec::builder().build());
        let data = ids(&mut lake, &[1]).await;
        lake.commit(vec![data]).await;
        let mut delete = lake.equality(&[(1, "id", numbers(&[1]))]).await;
        delete.equality_ids(Some(equality_ids)).file_format(format);
        lake.commit(vec![delete.build().unwrap()]).await;
        let error = deleted(&lake).await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_delete_file_that_is_gone_or_lacks_its_column_is_an_error() {
    let mut lake = TestLake::of_people(false);
    let data = ids(&mut lake, &[1]).await;
    lake.commit(vec![data]).await;
    let mut lacking = lake.equality(&[(1, "id", numbers(&[1]))]).await;
    let lacking = lacking.equality_ids(Some(vec![1, 2])).build().unwrap();
    let location = lacking.file_path().to_owned();
    lake.commit(vec![lacking]).await;
    let error = format!("{:?}", deleted(&lake).await.unwrap_err());
    assert!(error.contains("lacks a required column"), "{error}");
    lake.storage.delete(&location).await.unwrap();
    let error = format!("{:?}", deleted(&lake).await.unwrap_err());
    assert!(error.contains(&location), "{error}");
}

#[tokio::test]
async fn deletes_beyond_the_bound_are_an_error_that_names_the_table() {
    let mut lake = TestLake::of_people(false);
    let data = ids(&mut lake, &[1]).await;
    lake.commit(vec![data.clone()]).await;
    let many: Vec<i64> = (0..100).collect();
    let keys = delete_ids(&mut lake, &many).await;
    lake.commit(vec![keys]).await;
    assert_eq!(deleted_within(&lake, 10_000).await.unwrap(), [[0]]);
    let error = deleted_within(&lake, 5_000).await.unwrap_err();
    assert!(matches!(error, DeletesError::TooMany { .. }), "{error:?}");
    assert!(error.to_string().contains(lake.metadata.location()), "{error}");
    let rows: Vec<(&DataFile, i64)> = many.iter().map(|place| (&data, *place)).collect();
    let places = lake.positions(&rows).await.build().unwrap();
    lake.commit(vec![places]).await;
    let error = deleted_within(&lake, 7_350).await.unwrap_err();
    assert!(matches!(error, DeletesError::TooMany { .. }), "{error:?}");
}

/// A deletion vector of these places, as the Puffin specification has it.
fn vector(places: &[u64]) -> Vec<u8> {
    let mut content = vec![0xd1, 0xd3, 0x39, 0x64];
    DeletedRows::from_iter(places).serialize_into(&mut content).unwrap();
    let mut crc = Crc::new();
    crc.update(&content);
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], &content, &crc.sum().to_be_bytes()].concat()
}

#[tokio::test]
async fn a_deletion_vector_deletes_rows_of_its_file_if_it_is_whole() {
    for damage in [None, Some(2), Some(5), Some(12), Some(30)] {
        let mut lake = TestLake::of_people(false);
        let data = ids(&mut lake, &[1, 2, 3, 4]).await;
        let path = data.file_path().to_owned();
        lake.commit(vec![data]).await;
        let mut bytes = vector(&[0, 3, 1 << 40]);
        let length = i64::try_from(bytes.len()).unwrap();
        if let Some(at) = damage {
            bytes[at] ^= 1;
        }
        let mut file = lake.put([b"PFA1".to_vec(), bytes].concat()).await;
        file.content(DataContentType::PositionDeletes)
            .file_format(DataFileFormat::Puffin)
            .referenced_data_file(Some(path))
            .content_offset(Some(4))
            .content_size_in_bytes(Some(length));
        lake.commit(vec![file.build().unwrap()]).await;
        match (deleted(&lake).await, damage) {
            (Ok(found), None) => assert_eq!(found, [[0, 3, 1 << 40]]),
            (Err(DeletesError::Damaged { .. }), Some(_)) => (),
            (other, _) => panic!("{damage:?}: {other:?}"),
        }
    }
}
