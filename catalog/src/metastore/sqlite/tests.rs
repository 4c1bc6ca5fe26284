use super::*;
use crate::metastore::suite;

async fn open() -> (tempfile::TempDir, SqliteMetastore) {
    let folder = tempfile::tempdir().unwrap();
    let metastore = SqliteMetastore::open(&folder.path().join("icecore.db")).await.unwrap();
    (folder, metastore)
}

#[tokio::test]
async fn sqlite_does_what_every_metastore_must_do() {
    suite::namespaces(&open().await.1).await;
    suite::tables(&open().await.1).await;
    suite::commits(&open().await.1).await;
    suite::watermarks(&open().await.1).await;
    suite::snapshot_index(&open().await.1).await;
    suite::deletion_queue(&open().await.1).await;
    suite::epochs(&open().await.1).await;
    suite::one_of_many_racing_commits_wins_each_version(&open().await.1).await;
}

#[tokio::test]
async fn everything_is_there_after_the_file_is_opened_again() {
    let (folder, metastore) = open().await;
    let levels = vec!["a".to_owned()];
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", Uuid::from_u128(1), "file:///m").await.unwrap();
    assert_eq!(metastore.next_epoch().await.unwrap(), 1);
    drop(metastore);
    let metastore = SqliteMetastore::open(&folder.path().join("icecore.db")).await.unwrap();
    assert_eq!(metastore.tables(&levels).await.unwrap(), ["t"]);
    assert_eq!(metastore.next_epoch().await.unwrap(), 2);
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let (folder, metastore) = open().await;
    sqlx::query("UPDATE counters SET value = 2 WHERE name = 'schema_version'")
        .execute(&metastore.writer)
        .await
        .unwrap();
    let opened = SqliteMetastore::open(&folder.path().join("icecore.db")).await;
    assert!(matches!(opened, Err(CatalogError::Invalid(text)) if text.contains("layout 2")));
}

#[tokio::test]
async fn a_failed_commit_is_read_back() {
    let (_folder, metastore) = open().await;
    let levels = vec!["a".to_owned()];
    let uuid = Uuid::from_u128(1);
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", uuid, "m1").await.unwrap();
    let swap = suite::swap(uuid, 1, "m2");
    let lost = || sqlx::Error::WorkerCrashed;

    let nothing = metastore.find_out(lost(), &[], std::slice::from_ref(&swap)).await;
    assert!(matches!(nothing, Err(CatalogError::Metastore { .. })));

    metastore.commit(std::slice::from_ref(&swap)).await.unwrap();
    let done = metastore.find_out(lost(), &[], std::slice::from_ref(&swap)).await;
    assert_eq!(done.unwrap(), SwapOutcome::Done);

    metastore.commit(&[suite::swap(uuid, 2, "m3")]).await.unwrap();
    let unknown = metastore.find_out(lost(), &[], std::slice::from_ref(&swap)).await;
    assert!(matches!(unknown, Err(CatalogError::CommitStateUnknown(_))));

    metastore.readers.close().await;
    let unreadable = metastore.find_out(lost(), &[], &[suite::swap(uuid, 3, "m4")]).await;
    assert!(matches!(unreadable, Err(CatalogError::CommitStateUnknown(_))));
}
