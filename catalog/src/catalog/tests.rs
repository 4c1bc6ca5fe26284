mod linearizable;

use super::*;
use crate::{
    metastore::{
        Metastore, ObsoleteFile, PointerSwap, Properties, SwapOutcome, Watermark,
        faults::CommitFault, suite,
    },
    snapshot::{MarkMove, NewSnapshot},
    storage::S3Options,
};
use bytes::Bytes;
use futures::future::join_all;
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, ManifestListWriter, ManifestWriterBuilder,
    Struct,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicI64, Ordering},
};
use uuid::Uuid;

mod due_files;
mod first;
mod held_snapshots;
mod late_client;
mod live;
mod long_metadata;
mod managed_table_rules;
mod many_files;
mod orphans;
mod places;
mod purge;
mod rewrites;
mod row_delta;
mod take_back;
mod thin;
mod trust;
mod verify;
mod void;

pub(crate) const NOW: i64 = 1_700_000_000_000;
pub(crate) const UNDROP_MS: i64 = 60 * 60 * 1000;

pub(crate) struct House {
    _folder: tempfile::TempDir,
    pub(crate) catalog: Catalog,
    /// A second catalog over the same stores, as another process has it.
    pub(crate) other: Catalog,
    pub(crate) clock: Arc<AtomicI64>,
}

impl House {
    pub(super) fn root(&self) -> &str {
        self.catalog.storage().root()
    }

    pub(crate) async fn files(&self) -> Vec<String> {
        self.catalog.storage().list(self.root()).await.unwrap()
    }
}

pub(crate) async fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    house_over(folder, metastore).await
}

pub(crate) async fn house_over(folder: tempfile::TempDir, metastore: Metastore) -> House {
    let warehouse = format!("file://{}/warehouse", folder.path().display());
    let clock = Arc::new(AtomicI64::new(NOW));
    let open = || {
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let clock = Arc::clone(&clock);
        let now: NowMs = Arc::new(move || clock.load(Ordering::SeqCst));
        let options = CatalogOptions {
            drop_policy: DropPolicy { undrop_ms: UNDROP_MS, purge: true },
            checks_contents: false,
            ..CatalogOptions::default()
        };
        Catalog::with_options("icecore", storage, metastore.clone(), now, options)
    };
    let (catalog, other) = (open(), open());
    catalog.namespaces().ensure(&suite::levels("a"), &Properties::new()).await.unwrap();
    House { _folder: folder, catalog, other, clock }
}

pub(crate) fn ident(dotted: &str) -> TableIdent {
    TableIdent::from_strs(dotted.split('.')).unwrap()
}

pub(crate) fn new_table(name: &str) -> CreateTable {
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "id", "required": true, "type": "string"}]});
    CreateTable::plain(name, serde_json::from_value(schema).unwrap())
}

pub(crate) async fn create(catalog: &Catalog, dotted: &str) -> LoadedTable {
    let ident = ident(dotted);
    catalog.tables().create(ident.namespace.as_ref(), new_table(&ident.name)).await.unwrap()
}

pub(crate) fn change(dotted: &str, requirements: Value, updates: Value) -> TableChange {
    TableChange {
        table: ident(dotted),
        requirements: serde_json::from_value(requirements).unwrap(),
        updates: serde_json::from_value(updates).unwrap(),
        keeps_history: false,
    }
}

pub(crate) fn set(dotted: &str, key: &str, value: &str) -> TableChange {
    change(dotted, json!([]), json!([{"action": "set-properties", "updates": {key: value}}]))
}

pub(crate) fn add_snapshot(table: &LoadedTable, id: i64, manifest_list: &str) -> Value {
    json!([
        {"action": "add-snapshot", "snapshot": {
            "snapshot-id": id,
            "parent-snapshot-id": table.metadata.current_snapshot_id(),
            "sequence-number": table.metadata.next_sequence_number(),
            "timestamp-ms": table.metadata.last_updated_ms() + 1,
            "manifest-list": manifest_list,
            "schema-id": 0,
            "summary": {"operation": "append"},
        }},
        {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": id},
    ])
}

pub(crate) fn own_list(table: &LoadedTable, id: i64) -> String {
    format!("{}/metadata/{id}.avro", table.metadata.location())
}

pub(crate) fn on_main(expected: Option<i64>) -> Value {
    json!([{"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": expected}])
}

#[tokio::test]
async fn a_created_table_is_loaded_as_it_was_made() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let location = made.metadata.location().to_owned();
    assert_eq!(location, format!("{}/a/{}", house.root(), made.metadata.uuid()));
    assert_eq!((made.version, made.watermark), (1, None));
    assert_eq!(made.metadata.last_updated_ms(), NOW);
    for catalog in [&house.catalog, &house.other] {
        let loaded = catalog.tables().load(&ident("a.t")).await.unwrap();
        assert_eq!(loaded.metadata, made.metadata);
        assert_eq!(loaded.metadata_location, made.metadata_location);
    }
    assert!(has_folders(&made.metadata));
    assert_eq!(house.files().await, [made.metadata_location]);
}

/// Whether a table's writer finds the folders that it does not make itself.
fn has_folders(table: &TableMetadata) -> bool {
    let location = std::path::Path::new(table.location().strip_prefix("file://").unwrap());
    ["data", "metadata"].into_iter().all(|folder| location.join(folder).is_dir())
}

#[tokio::test]
async fn names_that_are_missing_or_taken_are_told_apart() {
    let house = house().await;
    let catalog = &house.catalog;
    create(catalog, "a.t").await;
    let files = house.files().await;
    let a = suite::levels("a");
    let taken = catalog.tables().create(&a, new_table("t")).await;
    assert!(matches!(taken, Err(CatalogError::AlreadyExists(text)) if text.ends_with("a.t")));
    let homeless = catalog.tables().create(&suite::levels("b"), new_table("t")).await;
    assert!(matches!(homeless, Err(CatalogError::NoSuchNamespace(name)) if name == "b"));
    for missing in ["a.none", "none.t"] {
        let loaded = catalog.tables().load(&ident(missing)).await;
        assert!(matches!(loaded, Err(CatalogError::NoSuchTable(name)) if name == missing));
        let committed = catalog.commit(set(missing, "k", "v")).await;
        assert!(matches!(committed, Err(CatalogError::NoSuchTable(_))));
        let dropped = catalog.tables().drop(&ident(missing), true).await;
        assert!(matches!(dropped, Err(CatalogError::NoSuchTable(_))));
        let snapshots = catalog.tables().snapshots(&ident(missing)).await;
        assert!(matches!(snapshots, Err(CatalogError::NoSuchTable(_))));
    }
    for name in ["", "a\nb"] {
        let refused = catalog.tables().create(&a, new_table(name)).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))));
    }
    assert_eq!(house.files().await, files);
}

#[tokio::test]
async fn namespaces_are_ensured_with_those_above_them() {
    let house = house().await;
    let (deep, mut properties) = (suite::levels("x.y.z"), Properties::new());
    properties.insert("k".to_owned(), "v".to_owned());
    assert_eq!(house.catalog.namespaces().ensure(&deep, &properties).await.unwrap(), properties);
    let kept = house.catalog.namespaces().ensure(&deep, &Properties::new()).await.unwrap();
    assert_eq!(kept, properties);
    let above = house.catalog.metastore().namespace(&suite::levels("x.y")).await.unwrap();
    assert_eq!(above, Some(Properties::new()));
}

#[tokio::test]
async fn a_table_in_a_hostile_namespace_stays_in_the_warehouse() {
    let house = house().await;
    let levels = vec!["../..".to_owned(), "%2e%2e".to_owned(), "ü/x".to_owned()];
    house.catalog.namespaces().ensure(&levels, &Properties::new()).await.unwrap();
    let made = house.catalog.tables().create(&levels, new_table("../t")).await.unwrap();
    let expected =
        format!("{}/.2e.2e.2f.2e.2e/.252e.252e/.c3.bc.2fx/{}", house.root(), made.metadata.uuid());
    assert_eq!(made.metadata.location(), expected);
}

#[tokio::test]
async fn a_commit_moves_the_table_and_a_failed_requirement_does_not() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let committed = catalog.commit(set("a.t", "k", "v")).await.unwrap();
    assert_eq!(committed.version, 2);
    assert_eq!(committed.metadata.properties()["k"], "v");
    assert_eq!(committed.metadata.last_updated_ms(), NOW + 1);
    assert_eq!(committed.metadata.metadata_log()[0].metadata_file, made.metadata_location);
    let seen = house.other.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(seen.metadata, committed.metadata);

    let files = house.files().await;
    let stale = change("a.t", on_main(Some(5)), add_snapshot(&made, 1, &own_list(&made, 1)));
    let failed = catalog.commit(stale).await;
    let text = "Requirement failed: branch or tag main is missing, expected 5";
    assert!(matches!(failed, Err(CatalogError::CommitFailed(found)) if found == text));
    let unfit = change("a.t", json!([]), json!([{"action": "set-current-schema", "schema-id": 9}]));
    assert!(matches!(catalog.commit(unfit).await, Err(CatalogError::Invalid(_))));
    let uuid = json!([{"action": "assign-uuid", "uuid": Uuid::nil()}]);
    let renamed = catalog.commit(change("a.t", json!([]), uuid)).await;
    assert!(matches!(renamed, Err(CatalogError::Invalid(_))));
    let nothing = catalog.commit(change("a.t", json!([]), json!([]))).await.unwrap();
    assert_eq!(nothing.version, 2);
    assert_eq!(house.files().await, files);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_concurrent_commit_is_lost() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let tasks = (0..8).map(|task| {
        // Half of the tasks share the queue of one process, half that of another.
        let catalog = if task % 2 == 0 { house.catalog.clone() } else { house.other.clone() };
        async move {
            for n in 0..25 {
                // Clients repeat what was refused after a lost race.
                while let Err(cause) = catalog.commit(set("a.t", &format!("{task}-{n}"), "x")).await
                {
                    assert!(matches!(cause, CatalogError::CommitFailed(_)), "{cause:?}");
                }
            }
        }
    });
    join_all(tasks).await;
    let table = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(table.metadata.properties().len(), 200);
    assert!(table.version <= 201);
    let files = i64::try_from(house.files().await.len()).unwrap();
    assert_eq!(files, table.version, "losers' metadata files are deleted");
}

#[tokio::test]
async fn commits_in_one_process_queue_and_never_fail() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let commits = (0..40).map(|n| house.catalog.commit(set("a.t", &n.to_string(), "x")));
    for commit in join_all(commits).await {
        commit.unwrap();
    }
    let table = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(table.metadata.properties().len(), 40);
    assert_eq!(table.metadata.metadata_log().len(), 1, "one file holds all that waited");
    assert_eq!(table.version, 2);
}

#[tokio::test]
async fn a_snapshot_that_is_sent_again_is_a_success_that_changes_nothing() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    let first = house.catalog.commit(sent.clone()).await.unwrap();
    assert_eq!(first.metadata.current_snapshot_id(), Some(1));
    let again = house.other.commit(sent.clone()).await.unwrap();
    assert_eq!(again.version, first.version);
    assert_eq!(again.metadata, first.metadata);

    let next = change("a.t", on_main(Some(1)), add_snapshot(&first, 2, &own_list(&made, 2)));
    house.catalog.commit(next).await.unwrap();
    let late = house.catalog.commit(sent).await.unwrap();
    assert_eq!(late.metadata.current_snapshot_id(), Some(2));
    let ids: Vec<i64> = house
        .catalog
        .tables()
        .snapshots(&ident("a.t"))
        .await
        .unwrap()
        .iter()
        .map(|row| row.snapshot_id)
        .collect();
    assert_eq!(ids, [1, 2]);

    let removed = json!([{"action": "remove-snapshots", "snapshot-ids": [1]}]);
    house.catalog.commit(change("a.t", json!([]), removed)).await.unwrap();
    assert_eq!(house.catalog.tables().snapshots(&ident("a.t")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_writers_of_one_branch_cannot_both_win() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let race = (1..=6).map(|id| {
        let catalog = if id % 2 == 0 { &house.catalog } else { &house.other };
        catalog.commit(change("a.t", on_main(None), add_snapshot(&made, id, &own_list(&made, id))))
    });
    let results = join_all(race).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for lost in results.into_iter().filter_map(Result::err) {
        assert!(matches!(lost, CatalogError::CommitFailed(_)), "{lost:?}");
    }
    assert_eq!(house.files().await.len(), 2);
}

fn finish(dotted: &str, staged: &TableMetadata) -> TableChange {
    let updates = json!([
        {"action": "assign-uuid", "uuid": staged.uuid()},
        {"action": "upgrade-format-version", "format-version": 2},
        {"action": "add-schema", "schema": serde_json::to_value(staged.current_schema()).unwrap()},
        {"action": "set-current-schema", "schema-id": -1},
        {"action": "add-spec", "spec": {"spec-id": 0, "fields": []}},
        {"action": "set-default-spec", "spec-id": -1},
        {"action": "add-sort-order", "sort-order": {"order-id": 0, "fields": []}},
        {"action": "set-default-sort-order", "sort-order-id": -1},
        {"action": "set-location", "location": staged.location()},
    ]);
    change(dotted, json!([{"type": "assert-create"}]), updates)
}

#[tokio::test]
async fn a_staged_table_exists_once_it_is_committed() {
    let house = house().await;
    let catalog = &house.catalog;
    let a = suite::levels("a");
    let staged = catalog.tables().stage(&a, new_table("t")).await.unwrap();
    assert!(catalog.tables().load(&ident("a.t")).await.is_err());
    assert_eq!(house.files().await, Vec::<String>::new());

    let mut sent = finish("a.t", &staged);
    let shell = LoadedTable {
        metadata: Arc::new(staged.clone()),
        metadata_location: String::new(),
        version: 0,
        watermark: None,
    };
    let snapshot = add_snapshot(&shell, 1, &format!("{}/metadata/1.avro", staged.location()));
    let snapshot: Vec<TableUpdate> = serde_json::from_value(snapshot).unwrap();
    sent.updates.extend(snapshot);
    let made = catalog.commit(sent.clone()).await.unwrap();
    assert_eq!(made.metadata.uuid(), staged.uuid());
    assert_eq!(made.metadata.location(), staged.location());
    assert_eq!(made.version, 1);
    assert_eq!(catalog.tables().snapshots(&ident("a.t")).await.unwrap()[0].snapshot_id, 1);
    let loaded = house.other.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(loaded.metadata, made.metadata);

    let again = catalog.commit(sent).await.unwrap();
    assert_eq!(again.version, 1, "the same create again is a success");
    let rival = catalog.commit(finish("a.t", &rival(catalog).await)).await;
    let text = "Requirement failed: table already exists";
    assert!(matches!(rival, Err(CatalogError::CommitFailed(found)) if found == text));
    let homeless = catalog.commit(finish("none.t", &staged)).await;
    assert!(matches!(homeless, Err(CatalogError::NoSuchNamespace(_))));
}

#[tokio::test]
async fn a_table_that_was_not_staged_is_made_by_its_updates_with_its_folders() {
    let house = house().await;
    let schema = serde_json::to_value(new_table("t").schema).unwrap();
    let updates = json!([{"action": "add-schema", "schema": schema}]);
    let create = change("a.t", json!([{"type": "assert-create"}]), updates);
    let made = house.catalog.commit(create).await.unwrap();
    assert!(has_folders(&made.metadata));
}

async fn rival(catalog: &Catalog) -> TableMetadata {
    catalog.tables().stage(&suite::levels("a"), new_table("rival")).await.unwrap()
}

#[tokio::test]
async fn a_transaction_changes_all_its_tables_or_none() {
    let house = house().await;
    let catalog = &house.catalog;
    create(catalog, "a.one").await;
    create(catalog, "a.two").await;
    let staged = catalog.tables().stage(&suite::levels("a"), new_table("new")).await.unwrap();
    let files = house.files().await;

    let failing = change(
        "a.two",
        on_main(Some(1)),
        json!([
        {"action": "set-properties", "updates": {"k": "v"}}]),
    );
    let failed =
        catalog.commit_all(vec![set("a.one", "k", "v"), finish("a.new", &staged), failing]).await;
    assert!(matches!(failed, Err(CatalogError::CommitFailed(_))));
    let missing = catalog.commit_all(vec![set("a.one", "k", "v"), set("a.none", "k", "v")]).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))));
    let twice = catalog.commit_all(vec![set("a.one", "k", "v"), set("a.one", "l", "v")]).await;
    assert!(matches!(twice, Err(CatalogError::Invalid(_))));
    assert_eq!(house.files().await, files);
    assert_eq!(catalog.tables().load(&ident("a.one")).await.unwrap().version, 1);
    assert!(catalog.tables().load(&ident("a.new")).await.is_err());

    let all = vec![set("a.two", "k", "v"), finish("a.new", &staged), set("a.one", "k", "v")];
    catalog.commit_all(all).await.unwrap();
    for (table, version) in [("a.one", 2), ("a.two", 2), ("a.new", 1)] {
        assert_eq!(house.other.tables().load(&ident(table)).await.unwrap().version, version);
    }
    catalog.commit_all(Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_transactions_neither_deadlock_nor_tear() {
    let house = house().await;
    create(&house.catalog, "a.one").await;
    create(&house.catalog, "a.two").await;
    let commits = (0..20).map(|n| {
        let catalog = if n % 3 == 0 { &house.other } else { &house.catalog };
        let mut both = vec![set("a.one", &n.to_string(), "x"), set("a.two", &n.to_string(), "x")];
        if n % 2 == 0 {
            both.reverse();
        }
        async move {
            while let Err(cause) = catalog.commit_all(both.clone()).await {
                assert!(matches!(cause, CatalogError::CommitFailed(_)), "{cause:?}");
            }
        }
    });
    join_all(commits).await;
    let one = house.catalog.tables().load(&ident("a.one")).await.unwrap();
    let two = house.catalog.tables().load(&ident("a.two")).await.unwrap();
    assert_eq!(one.metadata.properties().len(), 20);
    assert_eq!(one.metadata.properties(), two.metadata.properties());
    assert_eq!((one.version, two.version), (21, 21));
}

#[tokio::test]
async fn a_renamed_table_keeps_its_files_and_state() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    catalog.namespaces().ensure(&suite::levels("b"), &Properties::new()).await.unwrap();
    catalog.tables().rename(&ident("a.t"), &ident("b.u")).await.unwrap();
    let moved = catalog.tables().load(&ident("b.u")).await.unwrap();
    assert_eq!(moved.metadata, made.metadata);
    assert!(catalog.tables().load(&ident("a.t")).await.is_err());
    catalog.commit(set("b.u", "k", "v")).await.unwrap();
    let new = create(catalog, "a.t").await;
    assert_ne!(new.metadata.location(), made.metadata.location());
    let taken = catalog.tables().rename(&ident("a.t"), &ident("b.u")).await;
    assert!(matches!(taken, Err(CatalogError::AlreadyExists(_))));
}

#[tokio::test]
async fn a_dropped_table_can_be_registered_again() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    let before = catalog.commit(sent).await.unwrap();
    catalog.tables().drop(&ident("a.t"), false).await.unwrap();
    assert!(catalog.tables().load(&ident("a.t")).await.is_err());
    let a = suite::levels("a");
    let spelling = before.metadata_location.replacen("file:///", "file:/", 1);
    let adopted = catalog.tables().register(&a, "u", &spelling, &suite::anywhere).await.unwrap();
    assert_eq!(adopted.metadata, before.metadata);
    assert_eq!(catalog.tables().snapshots(&ident("a.u")).await.unwrap().len(), 1);
    catalog.commit(set("a.u", "k", "v")).await.unwrap();
    let twice =
        catalog.tables().register(&a, "u", &before.metadata_location, &suite::anywhere).await;
    assert!(matches!(twice, Err(CatalogError::AlreadyExists(_))), "{twice:?}");
    let twice =
        catalog.tables().register(&a, "v", &before.metadata_location, &suite::anywhere).await;
    assert!(matches!(twice, Err(CatalogError::Registered(uuid)) if uuid == before.metadata.uuid()));
    let nothing = catalog.tables().register(&a, "w", &own_list(&made, 77), &suite::anywhere).await;
    assert!(matches!(nothing, Err(CatalogError::Invalid(_))));
    let outside = catalog.tables().register(&a, "w", "file:///etc/passwd", &suite::anywhere).await;
    assert!(matches!(outside, Err(CatalogError::LocationForbidden(_))));
}

#[tokio::test]
async fn metadata_that_names_files_of_others_is_not_adopted() {
    let house = house().await;
    let catalog = &house.catalog;
    let victim = create(catalog, "a.victim").await;
    let made = create(catalog, "a.t").await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    let made = catalog.commit(sent).await.unwrap();
    let mut json = serde_json::to_value(&*made.metadata).unwrap();
    json["table-uuid"] = json!(Uuid::from_u128(1));
    let forged = format!("{}/metadata/forged.metadata.json", made.metadata.location());
    let register = async |json: &Value, location: &str| {
        let bytes = serde_json::to_vec(json).unwrap();
        catalog.storage().put(location, bytes.into()).await.unwrap();
        catalog.tables().register(&suite::levels("a"), "x", location, &suite::anywhere).await
    };
    let mut of_others = json.clone();
    of_others["snapshots"][0]["manifest-list"] = json!(own_list(&victim, 1));
    let refused = register(&of_others, &forged).await;
    assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))));
    let elsewhere = format!("{}/elsewhere.metadata.json", house.root());
    let refused = register(&json, &elsewhere).await;
    assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))));
    let taken = register(&json, &format!("{forged}.2")).await;
    assert!(matches!(taken, Err(CatalogError::Invalid(_))), "the place is another table's");
    catalog.tables().drop(&ident("a.t"), false).await.unwrap();
    let taken = register(&json, &format!("{forged}.2")).await;
    assert!(matches!(taken, Err(CatalogError::Invalid(_))), "that one can be had back");
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    catalog.trash().empty(10).await.unwrap();
    register(&json, &format!("{forged}.2")).await.unwrap();
}

#[tokio::test]
async fn locations_outside_of_the_table_are_refused() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let victim = create(catalog, "a.victim").await;
    let files = house.files().await;
    let lists = [
        own_list(&victim, 1),
        format!("{}x/metadata/1.avro", made.metadata.location()),
        format!("{}/../{}/metadata/1.avro", made.metadata.location(), victim.metadata.uuid()),
        format!("{}/%2e%2e/x.avro", made.metadata.location()),
        "file:///etc/passwd".to_owned(),
        "s3://bucket/a".to_owned(),
    ];
    let mut updates: Vec<Value> = lists.iter().map(|list| add_snapshot(&made, 1, list)).collect();
    for outside in [house.root(), "file:///tmp/x", "s3://b/x", &format!("{}/../x", house.root())] {
        updates.push(json!([{"action": "set-location", "location": outside}]));
        let path = json!({"write.data.path": outside});
        updates.push(json!([{"action": "set-properties", "updates": path}]));
    }
    updates.push(json!([{"action": "set-statistics", "snapshot-id": 1, "statistics": {
        "snapshot-id": 1, "statistics-path": own_list(&victim, 1), "file-size-in-bytes": 1,
        "file-footer-size-in-bytes": 1, "blob-metadata": []}}]));
    for update in updates {
        let refused = catalog.commit(change("a.t", json!([]), update.clone())).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{update}");
    }
    for outside in ["file:///tmp/x", house.root(), "s3://b/x"] {
        let table = CreateTable { location: Some(outside.to_owned()), ..new_table("x") };
        let refused = catalog.tables().create(&suite::levels("a"), table).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{outside}");
    }
    let paths = HashMap::from([("write.data.path".to_owned(), "file:///tmp".to_owned())]);
    let table = CreateTable { properties: paths, ..new_table("x") };
    let refused = catalog.tables().create(&suite::levels("a"), table).await;
    assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))));
    assert_eq!(house.files().await, files);
}

#[tokio::test]
async fn a_client_may_choose_a_place_inside_the_warehouse() {
    let house = house().await;
    let wanted = format!("{}/custom/place", house.root());
    let spelling = format!("{}/", wanted.replacen("file:///", "file:/", 1));
    let table = CreateTable { location: Some(spelling), ..new_table("t") };
    let made = house.catalog.tables().create(&suite::levels("a"), table).await.unwrap();
    assert_eq!(made.metadata.location(), wanted);
    let moved = format!("{}/custom/moved", house.root());
    let spelling = moved.replacen("file:///", "file:/", 1);
    let updates = json!([{"action": "set-location", "location": spelling}]);
    let made = house.catalog.commit(change("a.t", json!([]), updates)).await.unwrap();
    assert_eq!(made.metadata.location(), moved);
    assert!(made.metadata_location.starts_with(&moved));
}

#[tokio::test]
async fn old_metadata_files_are_deleted_after_a_grace_when_the_table_wants_it() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let wanted = json!([{"action": "set-properties", "updates": {
        "write.metadata.previous-versions-max": "2",
        "write.metadata.delete-after-commit.enabled": "true"}}]);
    catalog.commit(change("a.t", json!([]), wanted)).await.unwrap();
    for n in 0..3 {
        catalog.commit(set("a.t", "n", &n.to_string())).await.unwrap();
    }
    assert_eq!(house.files().await.len(), 5);
    assert_eq!(catalog.upkeep().delete_obsolete(10).await.unwrap(), 0);
    house.clock.fetch_add(10 * 60 * 1000 + 10, Ordering::SeqCst);
    assert_eq!(catalog.upkeep().delete_obsolete(1).await.unwrap(), 1);
    assert_eq!(catalog.upkeep().delete_obsolete(10).await.unwrap(), 1);
    let files = house.files().await;
    assert_eq!(files.len(), 3);
    assert!(!files.contains(&made.metadata_location));
    assert_eq!(house.other.tables().load(&ident("a.t")).await.unwrap().version, 5);
}

#[tokio::test]
async fn a_purged_table_loses_its_own_files_and_nobody_elses() {
    let house = house().await;
    let catalog = &house.catalog;
    let kept = create(catalog, "a.kept").await;
    let made = create(catalog, "a.t").await;
    let own = format!("{}/data/own.parquet", made.metadata.location());
    let foreign = format!("{}/data/foreign.parquet", kept.metadata.location());
    let orphan = format!("{}/data/unnamed.parquet", made.metadata.location());
    for file in [&own, &foreign, &orphan] {
        catalog.storage().put(file, Bytes::from_static(b"x")).await.unwrap();
    }
    let list = write_list(catalog, &made, 1, &[&own, &foreign]).await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &list));
    let made = catalog.commit(sent).await.unwrap();
    let broken = own_list(&made, 2);
    catalog.storage().put(&broken, Bytes::from_static(b"not avro")).await.unwrap();
    let sent = change("a.t", on_main(Some(1)), add_snapshot(&made, 2, &broken));
    catalog.commit(sent).await.unwrap();

    catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    assert_eq!(catalog.trash().empty(10).await.unwrap(), 0, "it can still be had back");
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(catalog.trash().empty(10).await.unwrap(), 1);
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 0, "readers get their grace");
    house.clock.fetch_add(10 * 60 * 1000, Ordering::SeqCst);
    // Three metadata files, two manifest lists, a manifest and a data file.
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 7);
    let mut left = vec![kept.metadata_location, foreign, orphan];
    left.sort();
    assert_eq!(house.files().await, left);
}

/// A manifest list with one manifest that names these data files.
pub(crate) async fn write_list(
    catalog: &Catalog,
    table: &LoadedTable,
    id: i64,
    files: &[&str],
) -> String {
    let io = catalog.storage().file_io();
    let metadata = &table.metadata;
    let location = format!("{}/metadata/m{id}.avro", metadata.location());
    let mut manifest = ManifestWriterBuilder::new(
        io.new_output(location).unwrap(),
        Some(id),
        Arc::clone(metadata.current_schema()),
        metadata.default_partition_spec().as_ref().clone(),
    )
    .build_v2_data();
    for file in files {
        let file = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path((*file).to_owned())
            .file_format(DataFileFormat::Parquet)
            .record_count(1)
            .file_size_in_bytes(1)
            .partition(Struct::empty())
            .partition_spec_id(0)
            .build()
            .unwrap();
        manifest.add_file(file, 1).unwrap();
    }
    let manifest = manifest.write_manifest_file().await.unwrap();
    let location = own_list(table, id);
    let writer = io.new_output(&location).unwrap().writer().await.unwrap();
    let mut list = ManifestListWriter::v2(writer, id, None, 1);
    list.add_manifests(std::iter::once(manifest)).unwrap();
    list.close().await.unwrap();
    location
}

#[tokio::test]
async fn a_purge_does_not_reach_a_place_whose_name_only_begins_alike() {
    let house = house().await;
    let catalog = &house.catalog;
    let a = suite::levels("a");
    let at = |name: &str| CreateTable {
        location: Some(format!("{}/{name}", house.root())),
        ..new_table(name)
    };
    let made = catalog.tables().create(&a, at("test")).await.unwrap();
    let neighbour = catalog.tables().create(&a, at("test2")).await.unwrap();
    let own = format!("{}/data/1.parquet", made.metadata.location());
    let theirs = format!("{}/data/1.parquet", neighbour.metadata.location());
    for file in [&own, &theirs] {
        catalog.storage().put(file, Bytes::from_static(b"x")).await.unwrap();
    }
    // Even a manifest of the one that names the other's files does not help.
    let list = write_list(catalog, &made, 1, &[&own, &theirs]).await;
    let sent = change("a.test", on_main(None), add_snapshot(&made, 1, &list));
    catalog.commit(sent).await.unwrap();
    catalog.tables().drop(&ident("a.test"), true).await.unwrap();
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(catalog.trash().empty(10).await.unwrap(), 1);
    house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
    while catalog.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
    assert_eq!(house.files().await, [theirs, neighbour.metadata_location]);
}

#[tokio::test]
async fn a_commit_that_fails_deletes_no_metadata_that_is_still_in_use() {
    let house = house().await;
    let catalog = &house.catalog;
    create(catalog, "a.t").await;
    let properties = json!({"write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "1"});
    let updates = json!([{"action": "set-properties", "updates": properties}]);
    catalog.commit(change("a.t", json!([]), updates)).await.unwrap();
    let before = catalog.commit(set("a.t", "k", "1")).await.unwrap();
    let queued = async || catalog.metastore().obsolete(i64::MAX, 10).await.unwrap();
    let files = queued().await;
    // It would push the oldest file out of the log, but its pointer does not move.
    let mut swap = suite::swap(before.metadata.uuid(), before.version + 1, "file:///never");
    swap.obsolete =
        vec![ObsoleteFile { location: before.metadata_location.clone(), not_before_ms: 0 }];
    let lost = catalog.metastore().commit(&[swap]).await.unwrap();
    assert_eq!(lost, SwapOutcome::Lost(before.metadata.uuid()));
    let refused = catalog.commit(change("a.t", on_main(Some(9)), json!([]))).await;
    assert!(matches!(refused, Err(CatalogError::CommitFailed(_))));
    assert_eq!(queued().await, files);
    house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), files.len());
    let cold = house.other.tables().load_present(&ident("a.t")).await.unwrap();
    assert_eq!(cold.metadata, before.metadata);
    for entry in cold.metadata.metadata_log() {
        assert!(catalog.storage().exists(&entry.metadata_file).await.unwrap());
    }
}

#[tokio::test]
async fn a_purge_that_is_cut_off_anywhere_is_finished_later() {
    let mut is_done = false;
    let mut steps = 0;
    while !is_done {
        let house = house().await;
        create(&house.catalog, "a.t").await;
        house.catalog.commit(set("a.t", "k", "v")).await.unwrap();
        house.catalog.tables().drop(&ident("a.t"), true).await.unwrap();
        house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
        let mut polls = 0;
        let mut purge = Box::pin(house.catalog.trash().empty(10));
        is_done = std::future::poll_fn(|context| {
            if polls == steps {
                return std::task::Poll::Ready(false);
            }
            polls += 1;
            purge.as_mut().poll(context).map(|emptied| emptied.unwrap() == 1)
        })
        .await;
        drop(purge);
        house.other.trash().empty(10).await.unwrap();
        house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
        while house.other.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
        assert_eq!(house.files().await, Vec::<String>::new(), "cut off at {steps}");
        steps += 1;
    }
    assert!(3 < steps, "{steps}");
}

#[tokio::test]
async fn a_commit_that_was_not_made_gives_up_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let house = house_over(folder, metastore.clone()).await;
    let catalog = &house.catalog;
    create(catalog, "a.t").await;
    let properties = json!({"write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "1"});
    let updates = json!([{"action": "set-properties", "updates": properties}]);
    let kept = catalog.commit(change("a.t", json!([]), updates)).await.unwrap();
    let queued = async || catalog.metastore().obsolete(i64::MAX, 10).await.unwrap();
    let named = || kept.metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone());
    let before: Vec<String> = named().chain([kept.metadata_location.clone()]).collect();
    for alone in [true, false] {
        // Each would push the oldest file out of the log.
        metastore.faults.set(CommitFault::Before);
        let failed = match alone {
            true => catalog.commit(set("a.t", "k", "v")).await.map(|_| ()),
            false => catalog.commit_all(vec![set("a.t", "k", "v")]).await,
        };
        assert!(matches!(failed, Err(CatalogError::Metastore { .. })), "{failed:?}");
        assert_eq!(queued().await, Vec::<String>::new());
        house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
        assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 0);
        assert_eq!(house.files().await, before);
    }
    catalog.commit(set("a.t", "k", "v")).await.unwrap();
    assert_eq!(queued().await, named().collect::<Vec<String>>());
}

#[tokio::test]
async fn a_table_that_shares_its_files_is_dropped_without_them() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    house.catalog.commit(set("a.t", "gc.enabled", "false")).await.unwrap();
    house.catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(house.catalog.trash().empty(10).await.unwrap(), 1);
    house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
    assert_eq!(house.catalog.upkeep().delete_obsolete(10).await.unwrap(), 0);
    assert_eq!(house.files().await.len(), 2);
}

#[tokio::test]
async fn queued_files_outside_of_the_warehouse_are_left_alone() {
    let house = house().await;
    let outside = tempfile::NamedTempFile::new().unwrap();
    let file =
        ObsoleteFile { location: format!("file://{}", outside.path().display()), not_before_ms: 0 };
    house.catalog.metastore().add_obsolete(&[file]).await.unwrap();
    assert_eq!(house.catalog.upkeep().delete_obsolete(10).await.unwrap(), 0);
    assert!(outside.path().exists());
    assert_eq!(
        house.catalog.metastore().obsolete(i64::MAX, 10).await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_replayed_or_deposed_append_changes_nothing() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let held = Watermark { epoch: 5, position: 10, last_seq: 100 };
    let swap = PointerSwap {
        watermark: Some(held),
        ..suite::swap(made.metadata.uuid(), 1, &made.metadata_location)
    };
    assert_eq!(house.catalog.metastore().commit(&[swap]).await.unwrap(), SwapOutcome::Done);
    let append = |epoch, position, since| NewSnapshot {
        mark: Some(MarkMove { watermark: Watermark { epoch, position, last_seq: 0 }, since }),
        ..NewSnapshot::default()
    };
    for position in [9, 10] {
        let replayed =
            house.catalog.add_snapshot(&ident("a.t"), append(5, position, 0)).await.unwrap();
        assert_eq!((replayed.version, replayed.watermark), (2, Some(held)));
    }
    for position in [9, 11] {
        let deposed = house.catalog.add_snapshot(&ident("a.t"), append(4, position, 0)).await;
        assert!(matches!(deposed, Err(CatalogError::CommitFailed(_))));
    }
    assert_eq!(house.files().await.len(), 1);
    // The watermark is another log's: its position says nothing of this one.
    let of_next = append(6, 3, 6);
    let made = house.catalog.add_snapshot(&ident("a.t"), of_next).await.unwrap();
    assert_eq!(made.watermark.map(|held| (held.epoch, held.position)), Some((6, 3)));
}
