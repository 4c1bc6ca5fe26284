use super::*;
use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{
    execution::cache::{DefaultFilesMetadataCache, cache_manager::FileMetadataCache},
    object_store::{ObjectStoreExt, memory::InMemory},
};
use parquet::{
    arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY},
    file::properties::WriterProperties,
};
use std::{collections::HashMap, iter};

const ROWS: usize = 3_000;
const GROUP_ROWS: usize = 1_000;
const PAGE_ROWS: usize = 100;

/// A file with these ids, in three row groups of ten pages.
fn file(ids: impl Iterator<Item = Option<String>>, has_filters: bool) -> Vec<u8> {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), "1".to_owned())]);
    let field = Field::new("id", DataType::Utf8, true).with_metadata(metadata);
    let array: ArrayRef = Arc::new(ids.collect::<StringArray>());
    let schema = Arc::new(Schema::new(vec![field]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_bloom_filter_enabled(has_filters)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

/// What is read of a file for each of the look-ups, one after another; before the last one the file goes.
async fn looked_up(bytes: Vec<u8>, lookups: &[&[&str]]) -> Vec<Option<Vec<RowGroupAccess>>> {
    looked_up_in(RowPlaces::default(), bytes, lookups).await
}

async fn looked_up_in(
    places: RowPlaces,
    bytes: Vec<u8>,
    lookups: &[&[&str]],
) -> Vec<Option<Vec<RowGroupAccess>>> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let location = Key::from("t/data/x.parquet");
    store.put(&location, bytes.into()).await.unwrap();
    let meta = store.head(&location).await.unwrap();
    let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
    let source = FooterSource { store: store.as_ref(), cache: &cache, bytes_first: 64 };
    let mut answers = Vec::new();
    for (at, values) in lookups.iter().enumerate() {
        if at + 1 == lookups.len() {
            store.delete(&location).await.unwrap();
        }
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let lookup = Lookup { field_id: 1, values };
        let access = places.access(source, &store, &meta, &[lookup]).await;
        answers.push(access.map(ParquetAccessPlan::into_inner));
    }
    answers
}

/// These rows of a file, each of another row group.
fn rows(found: &[usize]) -> Option<Vec<RowGroupAccess>> {
    let mut groups = vec![RowGroupAccess::Skip; ROWS / GROUP_ROWS];
    for row in found {
        let place = row % GROUP_ROWS;
        let selected = iter::once(Range { start: place, end: place + 1 });
        let selection = RowSelection::from_consecutive_ranges(selected, GROUP_ROWS);
        groups[row / GROUP_ROWS] = RowGroupAccess::Selection(selection);
    }
    Some(groups)
}

#[tokio::test]
async fn from_the_second_look_up_on_the_rows_of_a_text_alone_are_read() {
    // In no order, each once; some have none.
    let id = |row: usize| (!row.is_multiple_of(10)).then(|| format!("k-{}", row * 7_919 % ROWS));
    let wanted = id(1_234).unwrap();
    let found = looked_up(
        file((0..ROWS).map(id), true),
        &[&[&wanted], &[&wanted], &["absent"], &["absent", &wanted], &[&wanted]],
    )
    .await;
    let one = rows(&[1_234]);
    assert_eq!(found, [None, one.clone(), rows(&[]), one.clone(), one]);
}

#[tokio::test]
async fn pages_in_order_frequent_texts_and_columns_without_filters_are_read_as_they_are() {
    let in_order = file((0..ROWS).map(|row| Some(format!("k-{row:05}"))), true);
    let wanted: &[&str] = &["k-00007"];
    let lookups = &[wanted; 3];
    assert_eq!(looked_up(in_order, lookups).await, [None, None, None]);
    let frequent = |row: usize| Some(format!("k-{}", row * 7_919 % ROWS / 4));
    let once = |row: usize| Some(format!("k-{}", row * 7_919 % ROWS));
    for bytes in [file((0..ROWS).map(frequent), true), file((0..ROWS).map(once), false)] {
        let wanted: &[&str] = &["k-7"];
        let lookups = &[wanted; 3];
        assert_eq!(looked_up(bytes, lookups).await, [None, None, None]);
    }
}

#[tokio::test]
async fn a_file_with_more_rows_than_there_is_room_for_is_read_as_it_is() {
    let file = file((0..ROWS).map(|row| Some(format!("k-{}", row * 7_919 % ROWS))), true);
    let wanted: &[&str] = &["k-7"];
    let lookups = &[wanted; 3];
    let hashes = ROWS * usize::try_from(HASH_BYTES).unwrap();
    for (bytes_max, is_told) in [(hashes - 1, false), (4 * hashes, true)] {
        let places = RowPlaces { kept: Arc::new(ByteCache::new(1 << 20)), bytes_max };
        let found = looked_up_in(places, file.clone(), lookups).await;
        assert_eq!(found.last().unwrap().is_some(), is_told, "{bytes_max}");
    }
}

#[test]
fn there_is_room_for_the_first_files_of_a_scan() {
    let places = RowPlaces::with_share(4);
    for (rows, expected) in [
        (vec![], 0),
        (vec![10_000_000, 5_000_000], 2),
        (vec![10_000_000, 5_000_000, 5_000_000, 1], 2),
        (vec![u64::MAX, 1], 0),
    ] {
        assert_eq!(places.count_with_room(rows.clone().into_iter()), expected, "{rows:?}");
    }
}
