use super::Backup;
use crate::metastore::{Metastore, ObsoleteFile, Properties, tests::database};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

async fn queue(metastore: &Metastore, file: &str) {
    let file = ObsoleteFile { location: format!("file:///w/{file}"), not_before_ms: 10 };
    metastore.add_obsolete(&[file]).await.unwrap();
}

async fn due(metastore: &Metastore) -> Vec<String> {
    metastore.obsolete(10, 10).await.unwrap()
}

#[tokio::test]
async fn a_backup_holds_what_was_needed_when_the_first_one_began() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("m.db")).await.unwrap();
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
    let metastore = Metastore::sqlite(&folder.path().join("m.db")).await.unwrap();
    let copy = folder.path().join("it's a copy.db");
    queue(&metastore, "a").await;
    metastore.copy_to(&copy).await.unwrap();
    queue(&metastore, "b").await;
    let copied = Metastore::sqlite(&copy).await.unwrap();
    assert_eq!(due(&copied).await, ["file:///w/a"]);
    assert!(metastore.copy_to(&copy).await.is_err(), "nothing is written over");
}

/// What is hard to carry over: no value, the largest and the least numbers, text of every kind,
/// rows that come before those that they refer to, numbers that were given and are gone.
const HARD: &str = r#"
INSERT INTO namespaces VALUES ('a', '', '{"k":"it''s \\ \"é\" 🦀"}'), (E'a\x1fb', 'a', '{}');
INSERT INTO tables VALUES
    ('1', 'a', 't', E'file:///m\n\t\r', 9223372036854775807, 9223372036854775807, 0, NULL, 'table', 'file:///l'),
    ('2', 'a', 'T', '', -9223372036854775808, NULL, NULL, NULL, 'view', NULL);
INSERT INTO snapshots (uuid, snapshot_id, timestamp_ms) VALUES ('1', 7, 1), ('1', -8, 2), ('1', 9, 3);
DELETE FROM snapshots WHERE snapshot_id = 9;
INSERT INTO tokens VALUES ('p', NULL, 'h', 'n', NULL, 1, NULL, NULL);
INSERT INTO tokens SELECT 'c' || n, 'p', 'h', '', 'home', 2, 3, NULL FROM generate_series(1, 500) AS n;
INSERT INTO tokens VALUES ('cc', 'c500', 'h', '', 'home', 2, 3, NULL);
UPDATE tokens SET name = 'last' WHERE id = 'p';
INSERT INTO protected VALUES ('1');
INSERT INTO outbox VALUES (1, 'r', 3, 5, 'me', repeat('x', 3000000), 7, 8, NULL);
UPDATE counters SET value = 9223372036854775807 WHERE name = 'epoch';
UPDATE audit_head SET number = 41, hash = 'abc';
INSERT INTO audit VALUES (-1, 'w', 0, '', '', '', '', '', '', repeat('y', 10), '');
INSERT INTO fences VALUES ('marks', 'l', 1, 2, 4294967296);
INSERT INTO requests VALUES ('q', '', 0, 2147483647, '', '');
INSERT INTO holds VALUES ('a', 'case-7', NULL, -1), (E'a\x1fb', 'é', 'it''s', 2);
INSERT INTO orphans VALUES ('file:///o', '1', 9223372036854775807, -1, 3, NULL), ('file:///p', '2', 0, 1, 2, 3);
INSERT INTO snapshot_leases VALUES ('1', -9223372036854775808, 5, 0), ('1', 7, 9223372036854775807, 6);
INSERT INTO writer_loads VALUES ('1', -9223372036854775808, 5, 0), ('2', 7, 9223372036854775807, 6);
INSERT INTO row_accounts VALUES
    ('1', '-1:f', -9223372036854775808, '1:0', '2:0', '3:0', ''), ('2', '', NULL, NULL, NULL, NULL, NULL);
"#;

/// Every row of every table as text, in order, and the numbers that come next.
async fn dump(metastore: &Metastore) -> Vec<String> {
    let mut connection = metastore.reader().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    let mut rows = Vec::new();
    let numbers = "SELECT sequencename || ' ' || coalesce(last_value, 0) FROM pg_sequences";
    let keys = "SELECT conrelid::regclass::text || ' ' || pg_get_constraintdef(oid)
                FROM pg_constraint WHERE connamespace = 'public'::regnamespace";
    let of_tables =
        tables.iter().map(|table| format!("SELECT '{table}' || t::text FROM {table} AS t"));
    for query in of_tables.chain([numbers.to_owned(), keys.to_owned()]) {
        let query = format!("{query} ORDER BY 1");
        let found: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut *connection).await.unwrap();
        rows.extend(found);
    }
    rows
}

#[tokio::test]
async fn a_copy_of_postgres_is_the_same_in_another_postgres() {
    let (Some(url), Some(new)) = (database().await, database().await) else { return };
    let metastore = Metastore::postgres(&url).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    let mut tx = metastore.begin().await.unwrap();
    sqlx::raw_sql(HARD).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    metastore.copy_to(&copy).await.unwrap();
    assert!(!folder.path().join("copy.db-wal").exists(), "one file is all of it");
    Metastore::check_empty_postgres(&new).await.unwrap();
    Metastore::copy_to_postgres(&copy, &new).await.unwrap();
    let restored = Metastore::postgres(&new).await.unwrap();
    let (before, after) = (dump(&metastore).await, dump(&restored).await);
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    // What has a metastore is not written over.
    for refused in [
        Metastore::copy_to_postgres(&copy, &new).await,
        Metastore::check_empty_postgres(&new).await,
    ] {
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("CREATE DATABASE"), "{told}");
    }
    assert_eq!(dump(&restored).await, after);
}

#[tokio::test]
async fn a_copy_of_postgres_is_of_one_moment() {
    let Some(url) = database().await else { return };
    let metastore = Metastore::postgres(&url).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let changes = async {
        for n in 0..200 {
            // One transaction: a namespace, and the event that tells of it.
            let levels = vec![format!("n{n}")];
            metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
        }
    };
    let copies = async {
        let mut counts = Vec::new();
        for n in 0..5 {
            let copy = folder.path().join(format!("{n}.db"));
            metastore.copy_to(&copy).await.unwrap();
            let copied = Metastore::sqlite(&copy).await.unwrap();
            let count: (i64, i64, i64) = sqlx::query_as(
                "SELECT (SELECT count(*) FROM namespaces), (SELECT count(*) FROM outbox),
                     (SELECT value FROM counters WHERE name = 'event')",
            )
            .fetch_one(&mut *copied.reader().await.unwrap())
            .await
            .unwrap();
            counts.push(count);
        }
        counts
    };
    let (counts, ()) = tokio::join!(copies, changes);
    assert!(counts.iter().all(|(a, b, c)| a == b && b == c), "{counts:?}");
}

#[tokio::test]
async fn a_copy_of_sqlite_is_the_same_in_postgres_and_back() {
    let Some(url) = database().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let metastore = Metastore::sqlite(&path("m.db")).await.unwrap();
    let levels = vec!["a".to_owned()];
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", Uuid::from_u128(1), "file:///m").await.unwrap();
    queue(&metastore, "a").await;
    metastore.begin_backup("b1", "/b1", 1).await.unwrap();
    let feed = metastore.feed().await.unwrap();
    metastore.copy_to(&path("copy.db")).await.unwrap();
    Metastore::copy_to_postgres(&path("copy.db"), &url).await.unwrap();
    let there = Metastore::postgres(&url).await.unwrap();
    there.copy_to(&path("back.db")).await.unwrap();
    let back = Metastore::sqlite(&path("back.db")).await.unwrap();
    for copied in [&there, &back] {
        assert_eq!(copied.feed().await.unwrap(), feed);
        assert_eq!(copied.backups().await.unwrap(), metastore.backups().await.unwrap());
        assert_eq!(copied.places().await.unwrap(), metastore.places().await.unwrap());
        assert_eq!(copied.events(0, 9).await.unwrap(), metastore.events(0, 9).await.unwrap());
        assert_eq!(due(copied).await, due(&metastore).await);
        // It goes on where it was.
        copied.create_namespace(&vec!["b".to_owned()], &Properties::new()).await.unwrap();
        assert_eq!(copied.feed().await.unwrap().last, feed.last + 1);
    }
}
