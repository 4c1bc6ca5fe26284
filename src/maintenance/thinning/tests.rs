use super::*;
use iceberg::{
    TableIdent,
    spec::{NestedField, PrimitiveType, Schema, Type},
};
use icecore_catalog::{
    catalog::CreateTable,
    metastore::{Metastore, Watermark},
    retention::{MANAGED, SNAPSHOTS_MAX, SNAPSHOTS_SLACK},
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    table::as_of::{AsOfError, resolve},
};
use icecore_schemas::as_of::AsOf;
use std::collections::BTreeMap;

/// A catalog with a table of the service, `a.events`.
struct House {
    catalog: Catalog,
    clock: Clock,
    table: TableIdent,
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
        let levels = vec!["a".to_owned()];
        catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
        let field = NestedField::required(1, "seq", Type::Primitive(PrimitiveType::Long));
        let events = CreateTable {
            properties: [(MANAGED.to_owned(), "true".to_owned())].into(),
            ..CreateTable::plain(
                "events",
                Schema::builder().with_fields([field.into()]).build().unwrap(),
            )
        };
        catalog.tables().create(&levels, events).await.unwrap();
        let table = TableIdent::from_strs(["a", "events"]).unwrap();
        Self { catalog, clock, table, _folder: folder }
    }

    /// Commits snapshots without files up to this position, one a second.
    async fn append(&self, positions: std::ops::RangeInclusive<u64>) {
        for position in positions {
            let append = NewSnapshot {
                mark: Some(MarkMove {
                    watermark: Watermark { epoch: 1, position, last_seq: position },
                    since: 1,
                }),
                ..NewSnapshot::default()
            };
            self.catalog.add_snapshot(&self.table, append).await.unwrap();
            self.clock.advance_ms(1_000);
        }
    }

    async fn snapshots(&self) -> usize {
        self.catalog.tables().load(&self.table).await.unwrap().metadata.snapshots().len()
    }
}

#[tokio::test]
async fn commits_leave_old_snapshots_to_the_job() {
    let house = House::new().await;
    let (job, wake) = ThinSnapshots::new(&house.catalog);
    // The second tick of those that get so far fails.
    let faults = Failpoints::parse("thin.before_removal=error@1;thin.after_removal=error@1");
    let mut job = job.with_faults(faults.unwrap());
    let bound = (SNAPSHOTS_MAX + SNAPSHOTS_SLACK) as u64;
    house.append(1..=bound).await;
    assert_eq!(job.tick().await.unwrap(), Progress::Idle, "there is slack");
    house.append(bound + 1..=bound + 10).await;
    assert_eq!(house.snapshots().await as u64, bound + 10, "a commit removes none");
    wake.notified().await;
    job.tick().await.unwrap_err();
    assert_eq!(house.snapshots().await as u64, bound + 10, "it failed before");
    job.tick().await.unwrap_err();
    assert!(house.snapshots().await <= SNAPSHOTS_MAX, "it failed afterwards");
    let newest = house.catalog.tables().load(&house.table).await.unwrap();
    assert_eq!(newest.watermark.unwrap().position, bound + 10, "the log's mark stays");
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
    house.append(bound + 11..=bound + 12).await;
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
}

#[tokio::test]
async fn a_time_whose_snapshot_was_thinned_is_refused_also_beside_a_tag() {
    let house = House::new().await;
    let (mut job, _) = ThinSnapshots::new(&house.catalog);
    house.append(1..=100).await;
    let kind = icecore_catalog::catalog::RefKind::Tag;
    house.catalog.refs().create(&house.table, "then", kind, None).await.unwrap();
    house.append(101..=600).await;
    assert_eq!(job.tick().await.unwrap(), Progress::Done);
    let now_ms = house.clock.now_ms();
    let metadata = house.catalog.tables().load(&house.table).await.unwrap().metadata;
    let (mut read, mut refused) = (0, 0);
    for ms in (now_ms - 600_000..now_ms).step_by(1_000) {
        match resolve(&AsOf::Time(ms), "events", Some(&metadata), now_ms) {
            Ok(id) => {
                let made = metadata.snapshot_by_id(id).unwrap().timestamp_ms();
                assert!(ms - 1_100 < made && made <= ms, "{made} at {ms}");
                read += 1;
            }
            Err(cause) => {
                assert!(matches!(cause, AsOfError::Removed { next_ms: Some(_), .. }), "{cause}");
                refused += 1;
            }
        }
    }
    assert!(400 <= read && 0 < refused, "{read} and {refused}");
}

#[tokio::test]
async fn a_table_that_is_gone_holds_nothing_up() {
    let house = House::new().await;
    let (mut job, _) = ThinSnapshots::new(&house.catalog);
    house.append(1..=(SNAPSHOTS_MAX + SNAPSHOTS_SLACK) as u64 + 1).await;
    let levels = vec!["a".to_owned()];
    house.catalog.metastore().drop_table(&levels, "events").await.unwrap();
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
}
