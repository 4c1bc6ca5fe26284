use super::*;
use crate::metastore::suite;

/// Names the PostgreSQL server that the tests may make databases in. `./check` starts one.
const SERVER: &str = "ICECORE_TEST_POSTGRES";

pub(crate) async fn sqlite() -> (tempfile::TempDir, SqlMetastore) {
    let folder = tempfile::tempdir().unwrap();
    let metastore = SqlMetastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    (folder, metastore)
}

/// The URL of a new, empty database; none without a server, which only CI forbids.
#[expect(clippy::disallowed_methods, reason = "says where the tests' PostgreSQL is")]
pub(crate) async fn database() -> Option<String> {
    let Ok(server) = std::env::var(SERVER) else {
        assert!(std::env::var_os("CI").is_none(), "{SERVER} is not set: PostgreSQL is not tested");
        return None;
    };
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", Uuid::new_v4().simple());
    let pool = AnyPool::connect(&server).await.unwrap();
    let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")));
    made.execute(&pool).await.unwrap();
    let mut url = url::Url::parse(&server).unwrap();
    url.set_path(&name);
    Some(url.into())
}

/// Parts of the suite.
const PARTS: usize = 16;

async fn suite(store: &dyn Metastore, part: usize) {
    match part {
        0 => suite::namespaces(store).await,
        1 => suite::tables(store).await,
        2 => suite::commits(store).await,
        3 => suite::watermarks(store).await,
        4 => suite::snapshot_index(store).await,
        5 => suite::deletion_queue(store).await,
        6 => suite::epochs(store).await,
        7 => suite::trash(store).await,
        8 => suite::protection(store).await,
        9 => suite::views(store).await,
        10 => suite::one_of_many_racing_renames_gets_the_name(store).await,
        11 => suite::places(store).await,
        12 => suite::of_nested_places_that_race_one_is_taken(store).await,
        13 => suite::replaced_tables(store).await,
        14 => suite::reports(store).await,
        _ => suite::one_of_many_racing_commits_wins_each_version(store).await,
    }
}

#[tokio::test]
async fn sqlite_does_what_every_metastore_must_do() {
    for part in 0..PARTS {
        suite(&sqlite().await.1, part).await;
    }
}

#[tokio::test]
async fn postgres_does_what_every_metastore_must_do() {
    for part in 0..PARTS {
        let Some(url) = database().await else { return };
        suite(&SqlMetastore::postgres(&url).await.unwrap(), part).await;
    }
}

#[tokio::test]
async fn many_processes_may_open_a_new_postgres_database_at_once() {
    let Some(url) = database().await else { return };
    let opens = (0..8).map(|_| SqlMetastore::postgres(&url));
    let opened = futures::future::join_all(opens).await;
    let mut epochs = Vec::new();
    for metastore in opened {
        epochs.push(metastore.unwrap().next_epoch().await.unwrap());
    }
    assert_eq!(epochs, (1..=8).collect::<Vec<u64>>());
}

#[tokio::test]
async fn everything_is_there_after_the_file_is_opened_again() {
    let (folder, metastore) = sqlite().await;
    let levels = vec!["a".to_owned()];
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", Uuid::from_u128(1), "file:///m").await.unwrap();
    assert_eq!(metastore.next_epoch().await.unwrap(), 1);
    drop(metastore);
    let metastore = SqlMetastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    assert_eq!(metastore.tables(&levels).await.unwrap(), ["t"]);
    assert_eq!(metastore.next_epoch().await.unwrap(), 2);
}

#[tokio::test]
async fn a_file_name_may_have_any_character() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b?c#d%41é.db");
    SqlMetastore::sqlite(&path).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let (folder, metastore) = sqlite().await;
    sqlx::raw_sql("INSERT INTO layout VALUES (1000), (1001), (1002), (1003), (1004), (1005)")
        .execute(&metastore.writer)
        .await
        .unwrap();
    let opened = SqlMetastore::sqlite(&folder.path().join("icecore.db")).await;
    assert!(matches!(opened, Err(CatalogError::Invalid(text)) if text.contains("newer program")));
}

#[tokio::test]
async fn commits_are_durable_when_they_return() {
    let (_folder, metastore) = sqlite().await;
    let mut connection = metastore.writer.acquire().await.unwrap();
    let pragma = async |name: &str, connection: &mut sqlx::AnyConnection| -> String {
        let query = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(connection).await.unwrap()
    };
    assert_eq!(pragma("synchronous", &mut connection).await, "2");
    assert_eq!(pragma("journal_mode", &mut connection).await, "wal");
    assert_eq!(pragma("foreign_keys", &mut connection).await, "1");
}

/// Commits of one table, at versions 1 and 2.
async fn committed(metastore: &SqlMetastore) -> Uuid {
    let levels = vec!["a".to_owned()];
    let uuid = Uuid::from_u128(1);
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", uuid, "m1").await.unwrap();
    uuid
}

#[tokio::test]
async fn a_failed_commit_to_sqlite_is_read_back() {
    let (_folder, metastore) = sqlite().await;
    let uuid = committed(&metastore).await;
    let swap = suite::swap(uuid, 1, "m2");
    let find_out = async |swap: &PointerSwap| {
        let lost = sqlx::Error::WorkerCrashed;
        metastore.find_out(lost, TransactionId::None, &[], std::slice::from_ref(swap)).await
    };

    assert!(matches!(find_out(&swap).await, Err(CatalogError::Metastore { .. })));
    metastore.commit(std::slice::from_ref(&swap)).await.unwrap();
    assert_eq!(find_out(&swap).await.unwrap(), SwapOutcome::Done);
    metastore.commit(&[suite::swap(uuid, 2, "m3")]).await.unwrap();
    assert!(matches!(find_out(&swap).await, Err(CatalogError::CommitStateUnknown(_))));
    metastore.readers.close().await;
    let unreadable = find_out(&suite::swap(uuid, 3, "m4")).await;
    assert!(matches!(unreadable, Err(CatalogError::CommitStateUnknown(_))));
}

#[tokio::test]
async fn postgres_tells_how_a_lost_commit_ended() {
    let Some(url) = database().await else { return };
    let metastore = SqlMetastore::postgres(&url).await.unwrap();
    let uuid = committed(&metastore).await;
    let swap = suite::swap(uuid, 1, "m2");

    // While it is under way nobody can say; here it goes on until the asking ends it.
    let mut tx = metastore.begin().await.unwrap();
    tables::swap(&mut tx, &swap).await.unwrap();
    let TransactionId::Postgres(id) = dialect::transaction_id(&mut tx).await.unwrap() else {
        panic!("PostgreSQL numbers its transactions");
    };
    let (asked, ended) =
        tokio::join!(dialect::outcome(&metastore.readers, &id), async { tx.commit().await });
    ended.unwrap();
    assert_eq!(asked.unwrap(), LostCommit::Happened);

    let mut tx = metastore.begin().await.unwrap();
    tables::swap(&mut tx, &suite::swap(uuid, 2, "m3")).await.unwrap();
    let id = dialect::transaction_id(&mut tx).await.unwrap();
    tx.rollback().await.unwrap();
    let undone = metastore.find_out(sqlx::Error::WorkerCrashed, id, &[], &[]).await;
    assert!(matches!(undone, Err(CatalogError::Metastore { .. })));
}
