use super::*;
use crate::{
    clock::Clock,
    table::{
        documents,
        lake::{TestLake, longs, texts},
        row_fit::RowFit,
    },
};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use std::collections::BTreeMap;

fn people(rows: std::ops::Range<i64>) -> RecordBatch {
    let fields = [("id", DataType::Int64), ("name", DataType::Utf8), ("city", DataType::Utf8)];
    let fields = fields.map(|(name, kind)| Field::new(name, kind, true));
    let names: Vec<String> = rows.clone().map(|n| format!("name {n}")).collect();
    let cities =
        rows.clone().map(|n| (n % 3 != 2).then_some(if n % 3 == 0 { "Bern" } else { "Rome" }));
    let columns = vec![
        longs(rows.map(Some)),
        texts(names.iter().map(|name| Some(name.as_str()))),
        texts(cities),
    ];
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields.to_vec())), columns).unwrap()
}

async fn written(lake: &TestLake, batches: &[RecordBatch]) -> Vec<DataFile> {
    let ids = IdGenerator::new(Clock::manual(1_790_000_000_000));
    let schema = lake.metadata.current_schema();
    let fit = RowFit::new(schema, &[1, 2, 3], batches[0].schema_ref()).unwrap();
    let mut writer = ForeignWriter::new(&lake.storage, &lake.metadata, fit.schema(), &ids);
    for batch in batches {
        writer.write(fit.fit(batch).unwrap()).await.unwrap();
    }
    writer.finish().await.unwrap()
}

#[tokio::test]
async fn rows_of_a_table_without_partitions_are_one_file_with_counts_and_bounds() {
    let lake = TestLake::of_people(false);
    let files = written(&lake, &[people(0..10), people(10..30)]).await;
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!((file.record_count(), file.value_counts()[&1]), (30, 30));
    assert_eq!(file.null_value_counts()[&3], 10);
    assert_eq!(file.lower_bounds()[&1], iceberg::spec::Datum::long(0));
    assert_eq!(file.upper_bounds()[&1], iceberg::spec::Datum::long(29));
    assert_eq!(file.sort_order_id(), None);
    assert!(lake.storage.get(file.file_path()).await.is_ok());
}

#[tokio::test]
async fn rows_whose_partitions_alternate_are_one_file_a_partition() {
    let lake = TestLake::of_people(true);
    let files = written(&lake, &[people(0..10), people(10..30)]).await;
    let counts: BTreeMap<String, u64> =
        files.iter().map(|file| (format!("{:?}", file.partition()), file.record_count())).collect();
    assert_eq!((files.len(), counts.len()), (3, 3), "{counts:?}");
    assert!(counts.values().all(|count| *count == 10), "{counts:?}");
}

#[test]
fn rows_of_a_collections_table_are_written_as_they_come() {
    let lake = TestLake::of_people(true);
    let ids = IdGenerator::new(Clock::manual(1_790_000_000_000));
    let orders = icecore_samples::metadata(documents::create("orders"), "file:///warehouse/table/");
    let schema = Arc::new(ArrowSchema::empty());
    for (table, is_gathering) in [(&orders, false), (&lake.metadata, true)] {
        let writer = ForeignWriter::new(&lake.storage, table, &schema, &ids);
        assert_eq!(writer.is_gathering, is_gathering);
    }
}

#[tokio::test]
async fn what_is_abandoned_is_gone() {
    let lake = TestLake::of_people(false);
    let ids = IdGenerator::new(Clock::manual(1_790_000_000_000));
    let rows = people(0..10);
    let fit = RowFit::new(lake.metadata.current_schema(), &[1, 2, 3], rows.schema_ref()).unwrap();
    let mut writer = ForeignWriter::new(&lake.storage, &lake.metadata, fit.schema(), &ids);
    writer.write(fit.fit(&rows).unwrap()).await.unwrap();
    writer.store_file().await.unwrap();
    let location = writer.written[0].file_path().to_owned();
    assert!(lake.storage.get(&location).await.is_ok());
    writer.abandon().await;
    assert!(lake.storage.get(&location).await.is_err());
}

#[tokio::test]
async fn slices_of_one_buffer_are_gathered_as_what_they_hold() {
    let lake = TestLake::of_people(true);
    let all = people(0..60_000);
    let slices: Vec<RecordBatch> = (0..100).map(|at| all.slice(at * 600, 600)).collect();
    let files = written(&lake, &slices).await;
    assert_eq!(files.len(), 3, "one of each partition");
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 60_000);
}

#[tokio::test]
async fn rows_of_too_many_partitions_are_refused_before_they_are_written() {
    let lake = TestLake::of_people(true);
    let ids = IdGenerator::new(Clock::manual(1_790_000_000_000));
    let rows = people(0..i64::try_from(FILES_MAX + 1).unwrap());
    // Each has a city of its own.
    let columns =
        vec![Arc::clone(rows.column(0)), Arc::clone(rows.column(1)), Arc::clone(rows.column(1))];
    let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let fit = RowFit::new(lake.metadata.current_schema(), &[1, 2, 3], rows.schema_ref()).unwrap();
    let mut writer = ForeignWriter::new(&lake.storage, &lake.metadata, fit.schema(), &ids);
    writer.write(fit.fit(&rows).unwrap()).await.unwrap();
    let refused = writer.end().await;
    assert!(matches!(refused, Err(WriteError::TooManyFiles(FILES_MAX))), "{refused:?}");
    assert!(writer.open.is_none() && writer.written.is_empty());
}
