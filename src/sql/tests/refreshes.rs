//! Tables that are refreshed: when the rows of materialised ones are of another origin by now, and whose turn a
//! refresh takes.

use super::*;
use crate::sql::{
    collection_refresh::{CommitCheck, branch::BranchState},
    materialized::{RefreshCaller, definition::MaterializedQuery},
    writes::WriteFailure,
};
use futures::FutureExt;
use icecore_catalog::{
    catalog::RefKind,
    commit::{COMMIT_ID, LAST_SEQ},
    error::CatalogError,
    retention::BRANCH,
};
use icecore_lake::branch::Branch;
use std::{future::ready, pin::pin, task::Poll};

fn daily(house: &House) -> (TableIdent, MaterializedQuery) {
    let ident = schema::foreign_ident(&levels(&house.ns), "daily").unwrap();
    let sql = "SELECT type, count(*) AS n FROM events GROUP BY type";
    (ident, MaterializedQuery::parse(sql, "0 0 1 1 *").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_and_the_filter_of_rows_have_a_table_made_anew() {
    let house = House::new().await;
    house.take(1..7);
    house.commit().await;
    let ids = IdGenerator::new(house.clock.clone());
    let erasures = Some("0/none".to_owned());
    let caller = RefreshCaller { catalog: house.catalog.clone(), ids: &ids, erasures };
    let (ident, query) = daily(&house);
    let made = house.sql.materialize(&caller, ident.clone(), query.clone()).await.unwrap();
    assert_eq!(made.rows, 2);
    let load = async || house.catalog.tables().load(&ident).await.unwrap();
    let is_other = |sql: &Sql, table: &LoadedTable| {
        sql.schedule_of(&ident, &table.metadata, &query).is_of_other_origin(None)
    };
    let table = load().await;
    assert!(!is_other(&house.sql, &table));
    let none = house.sql.refresh(&caller, &ident, table, &query).await.unwrap();
    assert!(none.is_none(), "{none:?}");

    let options = house.sql.inner.options.clone();
    let again = |options: SqlOptions, owner: LogOwnership| {
        Sql::new(options, house.wal.clone(), owner, house.catalog.clone(), Failpoints::default())
    };
    let hiding = SqlOptions { filters_visibility: true, ..options.clone() };
    let lossy = LogOwnership::first();
    lossy.note_losses(1);
    for sql in [again(hiding, LogOwnership::first()), again(options, lossy)] {
        let table = load().await;
        assert!(is_other(&sql, &table));
        let report = sql.refresh(&caller, &ident, table, &query).await.unwrap();
        assert_eq!(report.map(|report| report.rows), Some(2));
        assert!(!is_other(&sql, &load().await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_waits_for_the_turn_of_a_statement_that_writes() {
    let house = House::new().await;
    house.take(1..7);
    house.commit().await;
    let ids = IdGenerator::new(house.clock.clone());
    let caller = RefreshCaller { catalog: house.catalog.clone(), ids: &ids, erasures: None };
    let (ident, query) = daily(&house);
    house.sql.materialize(&caller, ident.clone(), query.clone()).await.unwrap();
    let table = house.catalog.tables().load(&ident).await.unwrap();
    let turns = [house.sql.write_turn().unwrap(), house.sql.write_turn().unwrap()];
    let mut refresh = pin!(house.sql.refresh(&caller, &ident, table, &query));
    assert!(futures::poll!(refresh.as_mut()).is_pending());
    let [one, other] = turns;
    drop(one);
    // It is the refresh's by now.
    assert!(house.sql.write_turn().is_err());
    assert!(refresh.await.unwrap().is_some());
    drop(other);
}

/// Events that make documents of the collection `orders`.
pub(super) fn take_changes(house: &House, seqs: Range<u64>) {
    let schema = rows::event_schema();
    let plain = sample(&schema, seqs.clone());
    let columns = schema.fields().iter().zip(plain.columns()).map(|(field, column)| {
        let value = match field.name().as_str() {
            "op" => "c",
            "collection" => "orders",
            "after" => "{}",
            _ => return Arc::clone(column),
        };
        Arc::new(StringArray::from(vec![value; plain.num_rows()])) as ArrayRef
    });
    let changes = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let record = LogRecord {
        kind: RecordKind::Events,
        namespace: house.ns.clone(),
        first_seq: seqs.start,
        rows: u32::try_from(changes.num_rows()).unwrap(),
        payload: codec::encode(&schema, &changes),
    };
    house.writer.lock().unwrap().append(&[record]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_collections_are_written_in_turns_that_statements_do_not_have() {
    let house = House::new().await;
    take_changes(&house, 1..7);
    house.commit().await;
    let ids = IdGenerator::new(house.clock.clone());
    let erasures = Some("0/none".to_owned());
    let caller = RefreshCaller { catalog: house.catalog.clone(), ids: &ids, erasures };
    let levels = levels(&house.ns);
    let mut refresh = pin!(house.sql.refresh_collection(&caller, &levels, "orders", false));
    let [one, other] = [house.sql.write_turn().unwrap(), house.sql.write_turn().unwrap()];
    let mut turns = materialized::COLLECTION_WRITES_MAX;
    let made = loop {
        if let Poll::Ready(made) = futures::poll!(refresh.as_mut()) {
            break made.unwrap();
        }
        turns = turns.min(house.sql.inner.collection_writes.available_permits());
        tokio::task::yield_now().await;
    };
    assert_eq!((made.documents, turns), (6, materialized::COLLECTION_WRITES_MAX - 1));
    drop((one, other));
}

/// A branch `trial` of the namespace, without events of its own behind the six of `main`.
async fn forked(house: &House) -> BranchState {
    let table = house.events();
    let at = house.catalog.tables().load(&table).await.unwrap().metadata.current_snapshot_id();
    house.catalog.refs().create(&table, "trial", RefKind::Branch, at).await.unwrap();
    let branch = Branch {
        name: "trial".to_owned(),
        forked_from: "main".to_owned(),
        fork_seq: 6,
        created_at: NOW_MS + 60_000,
        collection: None,
        merges: Vec::new(),
    };
    let updates = HashMap::from([(Branch::property("trial"), branch.to_property().unwrap())]);
    let summary = [(BRANCH, "trial"), (COMMIT_ID, "c"), (LAST_SEQ, "6")];
    let begun = NewSnapshot {
        read: at,
        branch: Some("trial".to_owned()),
        summary: summary.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        upgrades: vec![TableUpdate::SetProperties { updates }],
        ..NewSnapshot::default()
    };
    let made = house.catalog.add_snapshot(&table, begun).await.unwrap();
    let head = made.metadata.snapshot_for_ref("trial").unwrap().snapshot_id();
    BranchState { branch, events: made.metadata, head, seq: 6 }
}

fn check_of(answer: fn() -> Result<(), CatalogError>) -> CommitCheck {
    Arc::new(move || ready(answer()).boxed())
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_branch_are_committed_only_where_the_check_before_it_holds() {
    let house = House::new().await;
    take_changes(&house, 1..7);
    house.commit().await;
    let ids = IdGenerator::new(house.clock.clone());
    let erasures = Some("0/none".to_owned());
    let caller = RefreshCaller { catalog: house.catalog.clone(), ids: &ids, erasures };
    let levels = levels(&house.ns);
    let made = house.sql.refresh_collection(&caller, &levels, "orders", false);
    assert_eq!(Box::pin(made).await.unwrap().documents, 6);
    let state = forked(&house).await;
    let ident = schema::foreign_ident(&levels, "cdc_orders").unwrap();
    let head = async || {
        let table = house.catalog.tables().load(&ident).await.unwrap();
        table.metadata.snapshot_for_ref("trial").map(|head| head.snapshot_id())
    };
    let place = (levels.as_slice(), "orders");
    let refusing = check_of(|| Err(CatalogError::CommitFailed("an erasure began".to_owned())));
    // Without a change a snapshot has no files, and with `is_full` all of them are new.
    for is_full in [false, true] {
        let refresh = house.sql.refresh_branch(&caller, place, (&state, &refusing), is_full);
        let refused = Box::pin(refresh).await;
        let is_refused =
            matches!(&refused, Err(WriteFailure::Catalog(CatalogError::CommitFailed(_))));
        assert!(is_refused, "{refused:?}");
        assert_eq!(head().await, None);
    }
    let holding = check_of(|| Ok(()));
    for is_full in [false, true] {
        let before = head().await;
        let refresh = house.sql.refresh_branch(&caller, place, (&state, &holding), is_full);
        let done = Box::pin(refresh).await.unwrap();
        assert_eq!((done.documents, done.snapshot), (6, head().await));
        assert_ne!(head().await, before);
    }
}
