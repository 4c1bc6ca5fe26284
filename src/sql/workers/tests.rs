use super::{LockReport, SqlWorkers, WorkerOptions};
use crate::sql::tests::House;
use icecore_schemas::service_table::ServiceTables;
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Seek},
    path::PathBuf,
    sync::Arc,
};

/// What is logged where the first worker tells this of its lock, and what is kept of it.
fn noted(house: &House, lock: LockReport) -> (String, Vec<String>) {
    let options = WorkerOptions {
        program: PathBuf::from("/nowhere"),
        memory_bytes_max: 1 << 20,
        spill: None,
        spill_bytes_max: 0,
        disk_free_min: 0.0,
        tables: ServiceTables::default(),
        idle_max: 1,
        has_foreign_files: false,
    };
    let workers = SqlWorkers::new(options, house.catalog.storage().clone());
    let mut file = tempfile::tempfile().unwrap();
    let written: Arc<File> = Arc::new(file.try_clone().unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(written).json().finish();
    tracing::subscriber::with_default(subscriber, || workers.note_lock(lock));
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    (text, workers.missing().to_vec())
}

#[tokio::test]
async fn what_the_system_does_not_enforce_is_logged_and_kept() {
    let house = House::new().await;
    let missing = vec!["Landlock: not there".to_owned(), "seccomp: neither".to_owned()];
    let (text, kept) = noted(&house, LockReport { missing: missing.clone() });
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["fields"]["message"], "queries are not locked in fully", "{line}");
    assert_eq!(line["fields"]["missing"], "Landlock: not there; seccomp: neither", "{line}");
    assert_eq!(kept, missing);
    assert_eq!(noted(&house, LockReport::default()), (String::new(), Vec::new()));
}
