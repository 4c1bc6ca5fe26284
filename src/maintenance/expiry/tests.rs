use super::*;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use icecore_catalog::{
    catalog::CreateTable,
    metastore::{Metastore, Watermark, holds::LegalHold},
    retention::{MANAGED, expiry::MAX_SNAPSHOT_AGE},
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{clock::Clock, table::schema::foreign_ident};
use std::{collections::BTreeMap, sync::Arc};

const DAY_MS: i64 = 86_400_000;

struct House {
    catalog: Catalog,
    clock: Clock,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let clock = Clock::manual(1_700_000_000_000);
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        Self { catalog, clock, _folder: folder }
    }

    /// A table of three snapshots of one moment.
    async fn table(
        &self,
        levels: &[&str],
        name: &str,
        property: Option<(&str, &str)>,
    ) -> TableIdent {
        let levels: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
        for depth in 1..=levels.len() {
            let above = levels[..depth].to_vec();
            self.catalog.namespaces().ensure(&above, &BTreeMap::new()).await.unwrap();
        }
        let field = NestedField::required(1, "seq", Type::Primitive(PrimitiveType::Long));
        let schema = Schema::builder().with_fields([field.into()]).build().unwrap();
        let properties = property.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let new = CreateTable {
            properties: properties.into_iter().collect(),
            ..CreateTable::plain(name, schema)
        };
        self.catalog.tables().create(&levels, new).await.unwrap();
        let table = foreign_ident(&levels, name).unwrap();
        for position in 1..=3 {
            let watermark = Watermark { epoch: 1, position, last_seq: position };
            let mark = Some(MarkMove { watermark, since: 1 });
            let append = NewSnapshot { mark, ..NewSnapshot::default() };
            Box::pin(self.catalog.add_snapshot(&table, append)).await.unwrap();
        }
        table
    }

    async fn snapshots(&self, table: &TableIdent) -> usize {
        self.catalog.tables().load(table).await.unwrap().metadata.snapshots().len()
    }
}

async fn run(job: &SnapshotExpiry, request: RunRequest) -> JobReport {
    Box::pin(job.run(&request)).await.unwrap()
}

#[tokio::test]
async fn snapshots_go_on_the_clock_where_a_table_is_ours_or_asks_for_it() {
    let house = House::new().await;
    let ours = house.table(&["a"], "events", Some((MANAGED, "true"))).await;
    let silent = house.table(&["a"], "orders", None).await;
    let asks = house.table(&["a", "deep"], "orders", Some((MAX_SNAPSHOT_AGE, "1000"))).await;
    let job = SnapshotExpiry::new(&house.catalog);
    assert_eq!(run(&job, RunRequest::default()).await.tables, 0, "they are young");
    house.clock.advance_ms(100 * DAY_MS);
    let dry = run(&job, RunRequest { dry_run: true, ..RunRequest::default() }).await;
    assert_eq!((dry.tables, house.snapshots(&ours).await), (2, 3));
    let done = run(&job, RunRequest::default()).await;
    assert_eq!((done.job.as_str(), done.tables, done.files), ("expire", 2, dry.files));
    assert!(4 <= done.files.before, "each snapshot has a list: {done:?}");
    for (table, left) in [(&ours, 1), (&silent, 3), (&asks, 1)] {
        assert_eq!(house.snapshots(table).await, left, "{table}");
    }
    let of_any = RunRequest { table: Some("orders".to_owned()), ..RunRequest::default() };
    assert_eq!(run(&job, of_any.clone()).await.tables, 0, "it may be of any namespace");
    let named = RunRequest { levels: Some(vec!["a".to_owned()]), ..of_any };
    assert_eq!(run(&job, named).await.tables, 1, "an operator names it");
    assert_eq!(house.snapshots(&silent).await, 1);
    assert_eq!(run(&job, RunRequest::default()).await.tables, 0);
}

#[tokio::test]
async fn a_hold_keeps_the_history_of_its_namespace_and_of_those_below() {
    let house = House::new().await;
    let above = house.table(&["a"], "events", Some((MANAGED, "true"))).await;
    let below = house.table(&["a", "deep"], "t", Some((MAX_SNAPSHOT_AGE, "1000"))).await;
    let other = house.table(&["b"], "events", Some((MANAGED, "true"))).await;
    house.clock.advance_ms(100 * DAY_MS);
    let hold =
        LegalHold { levels: vec!["a".to_owned()], name: "x".to_owned(), reason: None, since_ms: 0 };
    house.catalog.metastore().set_hold(&hold).await.unwrap();
    let done = run(&SnapshotExpiry::new(&house.catalog), RunRequest::default()).await;
    assert_eq!(done.tables, 1);
    let skipped: Vec<&str> = done.skipped.iter().map(|table| table.table.as_str()).collect();
    assert_eq!(skipped, ["a.events", "a.deep.t"]);
    for (table, left) in [(&above, 3), (&below, 3), (&other, 1)] {
        assert_eq!(house.snapshots(table).await, left, "{table}");
    }
}

#[tokio::test]
async fn a_table_that_does_not_read_holds_up_no_other() {
    let house = House::new().await;
    let broken = house.table(&["a"], "events", Some((MANAGED, "true"))).await;
    let whole = house.table(&["b"], "events", Some((MANAGED, "true"))).await;
    house.clock.advance_ms(100 * DAY_MS);
    let job = SnapshotExpiry::new(&Catalog::new(
        "icecore",
        house.catalog.storage().clone(),
        house.catalog.metastore().clone(),
        {
            let clock = house.clock.clone();
            Arc::new(move || clock.now_ms())
        },
    ));
    let file = house.catalog.tables().load(&broken).await.unwrap().metadata_location;
    house.catalog.storage().delete(&file).await.unwrap();
    let done = run(&job, RunRequest::default()).await;
    assert_eq!((done.tables, done.skipped.len()), (1, 1), "{done:?}");
    assert_eq!(done.skipped[0].table, "a.events");
    assert_eq!(house.snapshots(&whole).await, 1);
}

#[tokio::test]
async fn why_a_table_stays_is_told_once() {
    let house = House::new().await;
    let job = SnapshotExpiry::new(&house.catalog);
    let table = foreign_ident(&["a".to_owned()], "t").unwrap();
    for (why, is_news) in [("one", true), ("one", false), ("other", true), ("one", true)] {
        assert_eq!(job.is_news(&table, why), is_news, "{why}");
    }
}
