//! Columns of JSON paths: asking for them holds no row up, whatever comes of it.

use super::*;
use crate::flush::commit::FlushTarget;
use iceberg::{TableIdent, TableUpdate};
use icecore_catalog::catalog::TableChange;
use icecore_lake::table::promoted::{PROMOTED_PATHS, PathRequests};

fn events() -> TableIdent {
    schema::ident(&namespace("a"), "events")
}

async fn ask(server: &Server, paths: &str) {
    let updates = [(PROMOTED_PATHS.to_owned(), paths.to_owned())].into();
    let change = TableChange {
        table: events(),
        requirements: Vec::new(),
        updates: vec![TableUpdate::SetProperties { updates }],
        keeps_history: false,
    };
    server.catalog.commit(change).await.unwrap();
}

async fn has_column(server: &Server, name: &str) -> bool {
    server.load("a", "events").await.metadata.current_schema().field_by_name(name).is_some()
}

#[tokio::test]
async fn a_crash_after_the_columns_are_added_and_a_wrong_property_hold_no_row_up() {
    let mut server = Server::start_with("flush.after_columns=error").await;
    server.append("a", &sample::events(30, 1, 1, 1));
    server.tick().await.unwrap();
    ask(&server, "data.amount:double").await;
    server.append("a", &sample::events(30, 1, 31, 2));
    server.tick().await.unwrap_err();
    assert!(has_column(&server, "data__amount").await);
    ask(&server, "data").await;
    let mut server = server.restart().await;
    server.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, (1..=60).collect::<Vec<_>>());
    assert!(server.wal.pending().is_empty());
}

#[tokio::test]
async fn a_table_whose_columns_others_changed_meanwhile_takes_the_rows_without() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(30, 1, 1, 1));
    server.tick().await.unwrap();
    ask(&server, "data.amount:double").await;
    let stale = server.load("a", "events").await;
    let before = stale.metadata.current_schema_id();
    ask(&server, "data.other:long").await;
    let now = server.load("a", "events").await.metadata;
    let others = PathRequests::of(&now).unwrap().add_to(&events(), &now).unwrap();
    server.catalog.commit(others).await.unwrap();

    let target = FlushTarget::There(stale);
    let target = server.job.tables.with_promoted(&events(), target).await.unwrap();
    assert_eq!(target.metadata().current_schema_id(), before);
    assert!(!has_column(&server, "data__amount").await);
    // The next flush sees the table as it is.
    ask(&server, "data.amount:double").await;
    server.append("a", &sample::events(30, 1, 31, 2));
    server.tick().await.unwrap();
    assert!(has_column(&server, "data__amount").await && has_column(&server, "data__other").await);
    assert_eq!(server.seqs("a").await, (1..=60).collect::<Vec<_>>());
}
