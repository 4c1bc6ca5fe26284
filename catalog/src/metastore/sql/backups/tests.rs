use super::Backup;
use crate::metastore::{Metastore, Obsolete, sql::SqlMetastore};

async fn queue(metastore: &SqlMetastore, file: &str) {
    let file = Obsolete { location: format!("file:///w/{file}"), not_before_ms: 10 };
    metastore.add_obsolete(&[file]).await.unwrap();
}

async fn due(metastore: &SqlMetastore) -> Vec<String> {
    metastore.obsolete(10, 10).await.unwrap()
}

#[tokio::test]
async fn a_backup_holds_what_was_needed_when_the_first_one_began() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = SqlMetastore::sqlite(&folder.path().join("m.db")).await.unwrap();
    queue(&metastore, "before").await;
    metastore.begin_backup("b1", "/b1", 1).await.unwrap();
    queue(&metastore, "between").await;
    metastore.begin_backup("b2", "/b2", 2).await.unwrap();
    queue(&metastore, "after").await;
    let before = ["file:///w/before"];
    assert_eq!(due(&metastore).await, before);
    // Each of them holds; one that was never ended as well.
    assert!(metastore.forget_backup("b1").await.unwrap());
    assert!(!metastore.forget_backup("b1").await.unwrap());
    assert_eq!(due(&metastore).await, before);
    let mut backup = metastore.backups().await.unwrap().remove(0);
    assert_eq!((backup.id.as_str(), backup.ended_ms, backup.holds), ("b2", None, true));
    backup = Backup { ended_ms: Some(3), files: 7, bytes: 9, holds: true, ..backup };
    metastore.end_backup(&backup).await.unwrap();
    assert_eq!(metastore.backups().await.unwrap(), [backup.clone()]);
    assert_eq!(due(&metastore).await, before);
    metastore.end_backup(&Backup { holds: false, ..backup }).await.unwrap();
    assert_eq!(due(&metastore).await.len(), 3);
}

#[tokio::test]
async fn a_copy_is_whole_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = SqlMetastore::sqlite(&folder.path().join("m.db")).await.unwrap();
    let copy = folder.path().join("it's a copy.db");
    queue(&metastore, "a").await;
    metastore.copy_to(&copy).await.unwrap();
    queue(&metastore, "b").await;
    let copied = SqlMetastore::sqlite(&copy).await.unwrap();
    assert_eq!(due(&copied).await, ["file:///w/a"]);
    assert!(metastore.copy_to(&copy).await.is_err(), "nothing is written over");
}
