use super::QueryInputs;
use crate::sql::{
    points::QueryPoints,
    tests::House,
    workers::{
        SqlWorkers, WorkerOptions,
        frames::{self, FromWorker, ToWorker},
    },
};
use arrow::{
    array::AsArray,
    datatypes::{DataType, Field, Int64Type, Schema},
};
use bytes::Bytes;
use icecore_catalog::{
    audit::AuditRange,
    storage::remote::{FileCall, FileFailure, RANGE_BYTES_MAX},
};
use icecore_engine::{
    audit::AuditPages, error::SqlError, log_tail::TailRun, references::WantedTables,
    view::TailPlace,
};
use icecore_lake::wal::LogPin;
use icecore_schemas::{
    query::QueryBasis,
    service_table::{EVENTS_TABLE, ServiceTables},
    snapshot_id::SnapshotId,
};
use std::{ops::Range, path::PathBuf, sync::Arc};

/// What a query of `events` may ask for, ten of whose rows are committed, and ten in the log.
async fn inputs(house: &House, has_foreign_files: bool) -> (Arc<QueryInputs>, LogPin) {
    house.take(1..11);
    house.commit().await;
    house.take(11..21);
    inputs_at(house, has_foreign_files, &QueryPoints::default()).await
}

/// The same, where the tables are read in these states.
async fn inputs_at(
    house: &House,
    has_foreign_files: bool,
    points: &QueryPoints,
) -> (Arc<QueryInputs>, LogPin) {
    let wanted = WantedTables::Named(vec![EVENTS_TABLE.to_owned()]);
    let levels = [house.ns.name().to_owned()];
    let (view, pin) = house.sql.inner.sources().view(&levels, &wanted, points).await.unwrap();
    let options = WorkerOptions {
        program: PathBuf::from("/nowhere"),
        memory_bytes_max: 1 << 20,
        spill: None,
        spill_bytes_max: 0,
        disk_free_min: 0.0,
        tables: ServiceTables::default(),
        idle_max: 1,
        has_foreign_files,
    };
    let workers = SqlWorkers::new(options, house.catalog.storage().clone());
    let (audit, _) = AuditPages::channel();
    (Arc::new(QueryInputs::of(&workers, view, audit)), pin)
}

async fn file(
    inputs: &Arc<QueryInputs>,
    location: &str,
    call: FileCall,
) -> Result<(Option<u64>, Bytes), FileFailure> {
    let question = FromWorker::File { id: 3, location: location.to_owned(), call };
    match Arc::clone(inputs).answer(question, Bytes::new()).await {
        (ToWorker::File { id: 3, size, failure: None }, bytes) => Ok((size, bytes)),
        (ToWorker::File { id: 3, failure: Some(failure), .. }, _) => Err(failure),
        (other, _) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_gets_files_of_its_querys_tables_alone() {
    let house = House::new().await;
    let (inputs, _pin) = inputs(&house, false).await;
    let table = inputs.view.tables[0].metadata.clone().unwrap();
    let list = table.current_snapshot().unwrap().manifest_list().to_owned();
    let (size, _) = file(&inputs, &list, FileCall::Size).await.unwrap();
    let size = size.unwrap();
    let (_, bytes) = file(&inputs, &list, FileCall::Range(0..size + 9)).await.unwrap();
    assert_eq!(bytes, house.catalog.storage().get(&list).await.unwrap());
    let missing = format!("{}/data/missing", table.location());
    assert_eq!(file(&inputs, &missing, FileCall::Size).await, Err(FileFailure::Missing));
    let root = house.catalog.storage().root();
    for outside in [
        "file:///etc/passwd".to_owned(),
        "/etc/passwd".to_owned(),
        table.location().to_owned(),
        format!("{}2/data/x", table.location()),
        format!("{}/../dead_letters/data/x", table.location()),
        format!("{}/%2e%2e/dead_letters/data/x", table.location()),
        format!("{root}/bank/events/data/x"),
        root.to_owned(),
    ] {
        for call in [FileCall::Size, FileCall::Range(0..1)] {
            let answer = file(&inputs, &outside, call).await;
            assert_eq!(answer, Err(FileFailure::Forbidden), "{outside}");
        }
    }
    let long = FileCall::Range(0..RANGE_BYTES_MAX + 1);
    assert!(matches!(file(&inputs, &list, long).await, Err(FileFailure::Failed(_))));
    let turned = FileCall::Range(Range { start: 9, end: 3 });
    assert_eq!(file(&inputs, &list, turned).await, Ok((None, Bytes::new())));
}

#[tokio::test]
async fn where_tables_may_have_files_anywhere_a_worker_gets_those_of_the_warehouse() {
    let house = House::new().await;
    let (inputs, _pin) = inputs(&house, true).await;
    let elsewhere = format!("{}/moved/x.parquet", house.catalog.storage().root());
    house.catalog.storage().put(&elsewhere, Bytes::from_static(b"rows")).await.unwrap();
    let read = file(&inputs, &elsewhere, FileCall::Range(0..4)).await;
    assert_eq!(read, Ok((None, Bytes::from_static(b"rows"))));
    let answer = file(&inputs, "file:///etc/passwd", FileCall::Size).await;
    assert_eq!(answer, Err(FileFailure::Forbidden));
}

fn columns() -> Schema {
    Schema::new(vec![
        Field::new("seq", DataType::Int64, true),
        Field::new("type", DataType::Utf8View, true),
    ])
}

/// Asks for this many records of a tail, wherever they are.
async fn tail(
    inputs: &Arc<QueryInputs>,
    place: TailPlace,
    count: usize,
    columns: &Schema,
) -> (Option<SqlError>, Bytes) {
    let run = TailRun { first: 0, last: u64::MAX, count };
    let question = FromWorker::Tail { id: 5, place, run };
    let columns = Bytes::from(frames::schema_bytes(columns).unwrap());
    match Arc::clone(inputs).answer(question, columns).await {
        (ToWorker::Tail { id: 5, error }, rows) => (error, rows),
        (other, _) => panic!("{other:?}"),
    }
}

fn seqs(rows: &Bytes) -> Vec<i64> {
    let rows = frames::batch_of(rows).unwrap();
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn a_worker_gets_the_rows_of_a_later_state_and_never_fewer_than_it_asks_for() {
    let house = House::new().await;
    let (now, _pin) = inputs(&house, false).await;
    let snapshots = [(EVENTS_TABLE.to_owned(), now.view.tables[0].snapshot_id.map(SnapshotId))];
    let (seq, clock) = (Some(20), "2026-01-02T03:04:05Z".to_owned());
    let basis = QueryBasis { seq, snapshots: snapshots.into(), clock, ..QueryBasis::default() };
    let points = QueryPoints { basis: Some(basis), ..QueryPoints::default() };
    let (again, _pin) = inputs_at(&house, false, &points).await;
    let table = &again.view.tables[0];
    assert!(table.tail.is_empty());
    let records = table.later.as_ref().unwrap().tail.len();
    let place = |namespace: &str, is_later| TailPlace {
        namespace: namespace.to_owned(),
        table: EVENTS_TABLE.to_owned(),
        is_later,
    };
    let own = again.view.namespace.as_str();
    let (error, rows) = tail(&again, place(own, true), records, &columns()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(seqs(&rows), (11..21).collect::<Vec<i64>>());
    for (place, count) in [
        (place(own, false), records),
        (place(own, true), records + 1),
        (place(own, true), records - 1),
        (place("bank", true), records),
    ] {
        let (error, rows) = tail(&again, place.clone(), count, &columns()).await;
        assert!(error.is_some() && rows.is_empty(), "{place:?} {count}");
    }
}

#[tokio::test]
async fn a_worker_gets_rows_and_records_that_its_query_sees() {
    let house = House::new().await;
    let (inputs, _pin) = inputs(&house, false).await;
    let columns = columns();
    let records = inputs.view.tables[0].tail.len();
    let ask = async |table: &str, columns: &Schema| {
        let namespace = inputs.view.namespace.clone();
        let place = TailPlace { namespace, table: table.to_owned(), is_later: false };
        tail(&inputs, place, records, columns).await
    };
    let (error, rows) = ask(EVENTS_TABLE, &columns).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(seqs(&rows), (11..21).collect::<Vec<i64>>());
    assert!(ask("dead_letters", &columns).await.0.is_some(), "the query does not read it");
    // A value of these may be as wide as whoever asks likes, so that ten rows take more than there is.
    let seq = || Field::new("seq", DataType::Int64, true);
    for wide in [
        vec![Field::new("another_engines", DataType::FixedSizeBinary(i32::MAX), true)],
        vec![Field::new("seq", DataType::Utf8, true)],
        (0..1_000).map(|_| seq()).collect(),
    ] {
        let (error, rows) = ask(EVENTS_TABLE, &Schema::new(wide)).await;
        assert!(error.is_some() && rows.is_empty(), "{error:?}");
    }
    let question = FromWorker::Page { id: 6, range: AuditRange::default(), limit: 10 };
    let (answer, _) = Arc::clone(&inputs).answer(question, Bytes::new()).await;
    assert!(matches!(answer, ToWorker::Page { id: 6, error: Some(_) }), "{answer:?}");
}
