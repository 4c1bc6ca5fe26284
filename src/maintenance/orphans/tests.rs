use super::*;
use crate::{
    maintenance::obsolete::{DeleteObsolete, DeletionError},
    tasks::{Job, Progress, Tasks},
};
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use icecore_catalog::{
    catalog::CreateTable,
    metastore::Metastore,
    storage::{S3Options, Storage},
};
use icecore_lake::{clock::Clock, load::IngestLoad};
use std::{collections::BTreeMap, fs::File, path::PathBuf, sync::Arc, time::UNIX_EPOCH};

const NOW: i64 = 1_700_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A catalog with the tables `a.t` and `b.u`, each with an orphan of two days.
struct House {
    catalog: Catalog,
    clock: Clock,
    left: Vec<String>,
    folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let clock = Clock::manual(NOW);
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        let mut left = Vec::new();
        for (namespace, name) in [("a", "t"), ("b", "u")] {
            let levels = vec![namespace.to_owned()];
            catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
            let field = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
            let schema = Schema::builder().with_fields([field.into()]).build().unwrap();
            let table = CreateTable::plain(name, schema);
            let made = catalog.tables().create(&levels, table).await.unwrap();
            let file = format!("{}/data/left.parquet", made.metadata.location());
            catalog.storage().put(&file, "x".into()).await.unwrap();
            set_time(&file, NOW - 2 * DAY_MS);
            left.push(file);
        }
        Self { catalog, clock, left, folder }
    }

    fn job(&self, script: &str) -> Orphans {
        let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
        Orphans::new(&self.catalog, DAY, Failpoints::parse(script).unwrap(), pace)
    }

    async fn there(&self) -> Vec<bool> {
        let mut there = Vec::new();
        for file in &self.left {
            there.push(self.catalog.storage().exists(file).await.unwrap());
        }
        there
    }

    /// Has the queue worked off once its grace is over.
    async fn delete(&self) {
        self.clock.advance_ms(10 * 60 * 1000);
        let mut job = DeleteObsolete::new(self.catalog.clone());
        while !matches!(job.tick().await.unwrap(), Progress::Idle) {}
    }
}

fn set_time(location: &str, time_ms: i64) {
    let path = PathBuf::from(location.strip_prefix("file://").unwrap());
    let time = UNIX_EPOCH + Duration::from_millis(time_ms.unsigned_abs());
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn all() -> RunRequest {
    RunRequest::default()
}

/// Orphans before and after, tables, and what was left alone.
fn told(report: &JobReport) -> (u64, u64, u64, usize) {
    (report.files.before, report.files.after, report.tables, report.skipped.len())
}

#[tokio::test]
async fn orphans_of_all_tables_go_in_two_runs_and_a_dry_run_changes_nothing() {
    let house = House::new().await;
    let job = house.job("");
    let dry = RunRequest { dry_run: true, ..all() };
    assert_eq!(told(&job.run(&dry).await.unwrap()), (2, 2, 0, 0));
    house.clock.advance_ms(DAY_MS);
    let first = job.run(&all()).await.unwrap();
    assert_eq!(told(&first), (2, 2, 0, 0), "the dry run marked nothing");
    assert_eq!((first.job.as_str(), first.bytes.before, first.rows), ("orphans", 2, 0));
    house.clock.advance_ms(DAY_MS);
    assert_eq!(told(&job.run(&dry).await.unwrap()), (2, 0, 0, 0));
    let one = RunRequest { levels: Some(vec!["b".to_owned()]), ..all() };
    assert_eq!(told(&job.run(&one).await.unwrap()), (1, 0, 1, 0));
    let none = RunRequest { table: Some("none".to_owned()), ..all() };
    let refused = job.run(&none).await.unwrap_err();
    assert!(
        matches!(&refused, OrphansError::Catalog(CatalogError::NoSuchTable(name)) if name == "none"),
        "no namespace has such a table: {refused:?}"
    );
    house.delete().await;
    assert_eq!(house.there().await, [true, false]);
    assert_eq!(told(&job.run(&all()).await.unwrap()), (1, 0, 1, 0));
    house.delete().await;
    assert_eq!(house.there().await, [false, false]);
    assert_eq!(told(&job.run(&all()).await.unwrap()), (0, 0, 0, 0));
}

#[tokio::test]
async fn nothing_is_deleted_while_the_metastore_file_is_gone() {
    let house = House::new().await;
    let job = house.job("");
    job.run(&all()).await.unwrap();
    house.clock.advance_ms(DAY_MS);
    assert_eq!(told(&job.run(&all()).await.unwrap()), (2, 0, 2, 0));
    let file = house.folder.path().join("icecore.db");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    house.clock.advance_ms(10 * 60 * 1000);
    let gone = DeleteObsolete::new(house.catalog.clone()).tick().await.unwrap_err();
    assert!(matches!(gone, DeletionError::Catalog(CatalogError::Metastore { .. })), "{gone:?}");
    assert_eq!(house.there().await, [true, true]);
    std::fs::rename(&aside, &file).unwrap();
    house.delete().await;
    assert_eq!(house.there().await, [false, false]);
}

#[tokio::test]
async fn a_table_that_is_left_alone_does_not_hold_up_the_others() {
    let house = House::new().await;
    let shared = TableIdent::from_strs(["a", "t"]).unwrap();
    let change = icecore_catalog::catalog::TableChange {
        table: shared,
        requirements: Vec::new(),
        updates: vec![iceberg::TableUpdate::SetProperties {
            updates: [("gc.enabled".to_owned(), "false".to_owned())].into(),
        }],
        keeps_history: false,
    };
    house.catalog.commit(change).await.unwrap();
    let job = house.job("");
    job.run(&all()).await.unwrap();
    house.clock.advance_ms(DAY_MS);
    let report = job.run(&all()).await.unwrap();
    assert_eq!(told(&report), (1, 0, 1, 1));
    assert_eq!(report.skipped[0].table, "a.t");
    assert!(report.skipped[0].reason.contains("gc.enabled"), "{report:?}");
    house.delete().await;
    assert_eq!(house.there().await, [true, false]);
}

#[tokio::test]
async fn a_run_that_ends_at_any_step_is_gone_on_with_by_the_next() {
    let points = icecore_lake::faults::POINTS.iter().filter(|point| point.starts_with("orphans."));
    for point in points {
        for at in [0, 1] {
            let house = House::new().await;
            // It ends in the run that marks, and in the run that queues.
            for _ in 0..2 {
                let failing = house.job(&format!("{point}=error@{at}"));
                let failed = failing.run(&all()).await;
                assert!(matches!(failed, Err(OrphansError::Fault(_))), "{point}: {failed:?}");
                assert_eq!(house.there().await, [true, true], "{point}");
                house.job("").run(&all()).await.unwrap();
                house.clock.advance_ms(DAY_MS);
            }
            house.job("").run(&all()).await.unwrap();
            house.delete().await;
            assert_eq!(house.there().await, [false, false], "{point}");
        }
    }
}

#[tokio::test]
async fn a_folder_of_no_table_goes_in_two_runs_of_all_tables() {
    let mut house = House::new().await;
    let job = house.job("");
    let root = house.catalog.storage().root().to_owned();
    let folder = format!("{root}/b/{}", uuid::Uuid::from_u128(7));
    let file = format!("{folder}/data/0a/01JD0000000000000000000000.parquet");
    house.catalog.storage().put(&file, "x".into()).await.unwrap();
    set_time(&file, NOW - 2 * DAY_MS);
    house.left = vec![file];
    let of_table = RunRequest { table: Some("u".to_owned()), ..all() };
    assert_eq!(told(&job.run(&of_table).await.unwrap()), (1, 1, 0, 0), "that of the table");
    assert_eq!(told(&job.run(&all()).await.unwrap()), (3, 3, 0, 0));
    house.clock.advance_ms(DAY_MS);
    let elsewhere = RunRequest { levels: Some(vec!["a".to_owned()]), ..all() };
    assert_eq!(told(&job.run(&elsewhere).await.unwrap()), (1, 0, 1, 0));
    house.delete().await;
    assert_eq!(house.there().await, [true]);
    let dry = RunRequest { dry_run: true, ..all() };
    assert_eq!(told(&job.run(&dry).await.unwrap()), (2, 0, 0, 0));
    assert_eq!(told(&job.run(&all()).await.unwrap()), (2, 0, 1, 0));
    house.delete().await;
    assert_eq!(house.there().await, [false]);
    assert_eq!(told(&job.run(&all()).await.unwrap()), (0, 0, 0, 0));
}
