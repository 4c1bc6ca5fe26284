use super::{faults::CommitFault, *};
use crate::metastore::transaction::LostCommit;
use sqlx::AnyPool;
use uuid::Uuid;

/// Names the PostgreSQL server that the tests may make databases in. `./check` starts one.
const SERVER: &str = "TEST_POSTGRES";

pub(crate) async fn sqlite() -> (tempfile::TempDir, Metastore) {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
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

/// The databases there are, each with what keeps it.
pub(crate) async fn stores() -> Vec<(Option<tempfile::TempDir>, Metastore)> {
    let (folder, sqlite) = sqlite().await;
    let mut stores = vec![(Some(folder), sqlite)];
    if let Some(url) = database().await {
        stores.push((None, Metastore::postgres(&url).await.unwrap()));
    }
    stores
}

/// Parts of the suite.
const PARTS: usize = 21;

async fn suite(store: &Metastore, part: usize) {
    match part {
        0 => suite::namespaces(store).await,
        1 => suite::tables(store).await,
        2 => suite::commits(store).await,
        3 => suite::watermarks(store).await,
        4 => suite::snapshot_index(store).await,
        5 => suite::deletion_queue(store).await,
        6 => suite::pages(store).await,
        7 => suite::trash(store).await,
        8 => suite::protection(store).await,
        9 => suite::views(store).await,
        10 => suite::one_of_many_racing_renames_gets_the_name(store).await,
        11 => suite::places(store).await,
        12 => suite::of_nested_places_that_race_one_is_taken(store).await,
        13 => suite::replaced_tables(store).await,
        14 => suite::reports(store).await,
        17 => suite::names_that_nothing_has(store).await,
        16 => suite::remembered_requests(store).await,
        15 => suite::no_version_comes_back(store).await,
        18 => suite::row_accounts(store).await,
        19 => suite::orphans(store).await,
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
        suite(&Metastore::postgres(&url).await.unwrap(), part).await;
    }
}

#[tokio::test]
async fn many_processes_may_open_a_new_postgres_database_at_once() {
    let Some(url) = database().await else { return };
    let opens = (0..8).map(|_| Metastore::postgres(&url));
    let opened = futures::future::join_all(opens).await;
    let mut epochs = Vec::new();
    for metastore in opened {
        epochs.push(metastore.unwrap().raise_fence(fence::tests::held_by(0)).await.unwrap().epoch);
    }
    assert_eq!(epochs, (1..=8).collect::<Vec<u64>>());
}

#[tokio::test]
async fn everything_is_there_after_the_file_is_opened_again() {
    let (folder, metastore) = sqlite().await;
    let levels = vec!["a".to_owned()];
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", Uuid::from_u128(1), "file:///m").await.unwrap();
    let first = metastore.raise_fence(fence::tests::held_by(0)).await.unwrap();
    assert_eq!(first.epoch, 1);
    drop(metastore);
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    assert_eq!(metastore.tables(&levels).await.unwrap(), ["t"]);
    let second = metastore.raise_fence(fence::tests::held_by(0)).await.unwrap();
    assert_eq!(second, fence::Fence { epoch: 2, ..first });
}

#[tokio::test]
async fn a_file_name_may_have_any_character() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b?c#d%41é.db");
    Metastore::sqlite(&path).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_postgres_that_is_not_there_is_named_at_once() {
    let free = "127.0.0.1:1";
    let url = format!("postgres://me:secret@{free}/lake");
    let opened = Metastore::postgres(&url);
    let opened = tokio::time::timeout(std::time::Duration::from_secs(5), opened).await;
    let Err(CatalogError::Invalid(text)) = opened.expect("it does not wait") else { panic!() };
    assert!(text.contains(free) && text.contains("refused"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let (folder, metastore) = sqlite().await;
    sqlx::raw_sql("INSERT INTO layout VALUES (1000), (1001), (1002), (1003), (1004), (1005)")
        .execute(&metastore.database.writer)
        .await
        .unwrap();
    let opened = Metastore::sqlite(&folder.path().join("icecore.db")).await;
    assert!(matches!(opened, Err(CatalogError::Invalid(text)) if text.contains("newer program")));
}

#[tokio::test]
async fn commits_are_durable_when_they_return() {
    let (_folder, metastore) = sqlite().await;
    let mut connection = metastore.database.writer.acquire().await.unwrap();
    let pragma = async |name: &str, connection: &mut sqlx::AnyConnection| -> String {
        let query = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(connection).await.unwrap()
    };
    assert_eq!(pragma("synchronous", &mut connection).await, "2");
    assert_eq!(pragma("journal_mode", &mut connection).await, "wal");
    assert_eq!(pragma("foreign_keys", &mut connection).await, "1");
}

#[tokio::test]
async fn commits_to_postgres_are_durable_whatever_the_database_is_set_to() {
    let Some(url) = database().await else { return };
    let name = url.rsplit('/').next().unwrap();
    let pool = AnyPool::connect(&url).await.unwrap();
    let lax = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lax)).execute(&pool).await.unwrap();
    let metastore = Metastore::postgres(&url).await.unwrap();
    let mut connection = metastore.database.writer.acquire().await.unwrap();
    let setting: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(setting, "on");
}

/// Commits of one table, at versions 1 and 2.
async fn committed(metastore: &Metastore) -> Uuid {
    let levels = vec!["a".to_owned()];
    let uuid = Uuid::from_u128(1);
    metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
    metastore.create_table(&levels, "t", uuid, "m1").await.unwrap();
    uuid
}

/// Makes one change of each kind with a fault in its COMMIT.
async fn faulty(metastore: &Metastore, fault: CommitFault) {
    let uuid = committed(metastore).await;
    let levels = vec!["a".to_owned()];
    let more = vec!["b".to_owned()];
    let none = Properties::new();
    let set = Properties::from([("k".to_owned(), "v".to_owned())]);
    let lose = || metastore.faults.set(fault);
    let is_as_expected = |result: Result<(), CatalogError>| match fault {
        CommitFault::Before => assert!(matches!(result, Err(CatalogError::Metastore { .. }))),
        CommitFault::After => result.unwrap(),
        CommitFault::Deaf => assert!(matches!(result, Err(CatalogError::CommitStateUnknown(_)))),
    };
    let happened = fault != CommitFault::Before;

    lose();
    is_as_expected(metastore.create_namespace(&more, &none).await);
    assert_eq!(metastore.namespace(&more).await.unwrap().is_some(), happened);
    lose();
    is_as_expected(metastore.update_namespace(&levels, &set, &[]).await);
    assert_eq!(metastore.namespace(&levels).await.unwrap() == Some(set.clone()), happened);
    lose();
    is_as_expected(metastore.create_table(&levels, "u", Uuid::from_u128(2), "m").await);
    assert_eq!(metastore.table(&levels, "u").await.unwrap().is_some(), happened);
    lose();
    let swapped = metastore.commit(&[suite::swap(uuid, 1, "m2")]).await;
    is_as_expected(swapped.map(|outcome| assert_eq!(outcome, SwapOutcome::Done)));
    let location = metastore.table(&levels, "t").await.unwrap().unwrap().metadata_location;
    assert_eq!(location == "m2", happened);
    lose();
    is_as_expected(
        metastore.rename_table(ObjectKey::new(&levels, "t"), ObjectKey::new(&levels, "v")).await,
    );
    assert_eq!(metastore.table(&levels, "v").await.unwrap().is_some(), happened);
    lose();
    let name = if happened { "v" } else { "t" };
    is_as_expected(metastore.drop_table(&levels, name).await.map(|_| ()));
    assert_eq!(metastore.table(&levels, name).await.unwrap().is_none(), happened);

    // What did not happen is not told of, and leaves no gap.
    let numbers: Vec<u64> =
        metastore.events(0, 100).await.unwrap().iter().map(|event| event.number).collect();
    let last = if happened { 8 } else { 2 };
    assert_eq!(numbers, (1..=last).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_commit_to_sqlite_whose_answer_is_lost_is_read_back() {
    for fault in [CommitFault::Before, CommitFault::After, CommitFault::Deaf] {
        faulty(&sqlite().await.1, fault).await;
    }
}

#[tokio::test]
async fn a_commit_to_postgres_whose_answer_is_lost_is_read_back() {
    for fault in [CommitFault::Before, CommitFault::After, CommitFault::Deaf] {
        let Some(url) = database().await else { return };
        faulty(&Metastore::postgres(&url).await.unwrap(), fault).await;
    }
}

#[tokio::test]
async fn postgres_tells_how_a_commit_ends_that_is_under_way() {
    let Some(url) = database().await else { return };
    let metastore = Metastore::postgres(&url).await.unwrap();
    let uuid = committed(&metastore).await;
    let mut tx = metastore.begin().await.unwrap();
    tables::swap(&mut tx, &suite::swap(uuid, 1, "m2")).await.unwrap();
    let database::TransactionId::Postgres(id) = database::transaction_id(&mut tx).await.unwrap()
    else {
        panic!("PostgreSQL numbers its transactions");
    };
    let (asked, ended) = tokio::join!(database::outcome(&metastore.database.readers, &id), async {
        tx.commit().await
    });
    ended.unwrap();
    assert_eq!(asked.unwrap(), LostCommit::Happened);
}

/// Changes from many sides at once, while a reader follows the feed.
async fn followed(metastores: Vec<Metastore>) {
    const CHANGES: u64 = 20;
    let makers = metastores.iter().enumerate().map(|(maker, metastore)| async move {
        for n in 0..CHANGES {
            let levels = vec![format!("{maker}-{n}")];
            metastore.create_namespace(&levels, &Properties::new()).await.unwrap();
            // A change that fails takes no number.
            metastore.create_namespace(&levels, &Properties::new()).await.unwrap_err();
        }
    });
    let all = CHANGES * metastores.len() as u64;
    let follow = async {
        let mut seen = Vec::new();
        while (seen.len() as u64) < all {
            let after = seen.last().copied().unwrap_or(0);
            let events = metastores[0].events(after, 7).await.unwrap();
            seen.extend(events.iter().map(|event| event.number));
            tokio::task::yield_now().await;
        }
        seen
    };
    let (_, seen) = tokio::join!(futures::future::join_all(makers), follow);
    assert_eq!(seen, (1..=all).collect::<Vec<u64>>(), "a reader misses nothing");
    let remembered =
        FeedRetention { requests_since_ms: 0, without_effect: 0, events: 5, event_bytes: 1 << 20 };
    metastores[0].forget_records(remembered).await.unwrap();
    let kept = metastores[0].events(0, 100).await.unwrap();
    assert_eq!((kept.len(), kept[0].number), (5, all - 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_are_numbered_without_gaps_in_the_order_they_are_seen() {
    let (_folder, metastore) = sqlite().await;
    followed(vec![metastore.clone(), metastore.clone(), metastore]).await;
    let Some(url) = database().await else { return };
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(Metastore::postgres(&url).await.unwrap());
    }
    followed(processes).await;
}

/// A table of a log in a namespace `n{number}` that may not be there.
fn of_log(number: u128, epoch: u64) -> NewTable {
    let noted = Properties::from([("text".to_owned(), number.to_string())]);
    NewTable {
        kind: NameKind::Table,
        levels: vec![format!("n{number}")],
        name: "events".to_owned(),
        uuid: Uuid::from_u128(number),
        metadata_location: "m".to_owned(),
        location: format!("s3://b/{number}"),
        snapshots: vec![SnapshotRow { snapshot_id: 7, timestamp_ms: 1, seq: Some((1, 2)) }],
        comes: TableOrigin::OfHolder {
            watermark: Watermark { epoch, position: 5, last_seq: 2 },
            acked: None,
            namespace: Some(noted),
        },
        changes: ChangeSet::default(),
    }
}

/// Commits that are all asked for before the first of them is begun.
async fn at_once(
    metastore: &Metastore,
    new: &[NewTable],
    swaps: &[PointerSwap],
) -> Vec<Result<SwapOutcome, CatalogError>> {
    let new = new.iter().map(|table| (std::slice::from_ref(table), [].as_slice()));
    let swaps = swaps.iter().map(|swap| ([].as_slice(), std::slice::from_ref(swap)));
    let commits = new.chain(swaps).map(|(new, swaps)| metastore.commit_with_new(new, swaps));
    futures::future::join_all(commits).await
}

async fn group(metastore: &Metastore) {
    let one = committed(metastore).await;
    let levels = vec!["a".to_owned()];
    let two = Uuid::from_u128(2);
    metastore.create_table(&levels, "u", two, "m1").await.unwrap();
    let owner = metastore.raise_fence(fence::tests::held_by(0)).await.unwrap();
    let homeless =
        NewTable { levels: vec!["none".to_owned()], comes: TableOrigin::Created, ..of_log(3, 0) };
    let told = metastore.feed().await.unwrap().last;
    let transactions = metastore.transactions();

    let new =
        [homeless, of_log(4, owner.epoch), of_log(5, owner.epoch - 1), of_log(6, owner.epoch)];
    let swaps = [suite::swap(one, 1, "m2"), suite::swap(two, 9, "stale")];
    let mut commits = std::pin::pin!(at_once(metastore, &new, &swaps));
    assert!(futures::poll!(&mut commits).is_pending());
    assert_eq!(metastore.waiting_commits(), new.len() + swaps.len());
    let answers = commits.await;
    assert_eq!(metastore.waiting_commits(), 0);
    assert!(matches!(answers[0], Err(CatalogError::NoSuchNamespace(_))), "{answers:?}");
    let outcomes: Vec<&SwapOutcome> =
        answers[1..].iter().map(|answer| answer.as_ref().unwrap()).collect();
    let deposed = SwapOutcome::Deposed(Uuid::from_u128(5));
    let done = SwapOutcome::Done;
    assert_eq!(outcomes, [&done, &deposed, &done, &done, &SwapOutcome::Lost(two)]);
    assert_eq!(metastore.transactions() - transactions, 1);

    let table = metastore.table(&vec!["n4".to_owned()], "events").await.unwrap().unwrap();
    let watermark = Watermark { epoch: owner.epoch, position: 5, last_seq: 2 };
    assert_eq!((table.version, table.watermark), (1, Some(watermark)));
    assert_eq!(metastore.snapshots(table.uuid).await.unwrap()[0].seq, Some((1, 2)));
    assert_eq!(metastore.namespace(&vec!["n5".to_owned()]).await.unwrap(), None);
    let logged = metastore.marks().await.unwrap();
    let logged: Vec<(&str, usize)> = logged
        .iter()
        .map(|namespace| (namespace.levels[0].as_str(), namespace.tables.len()))
        .collect();
    assert_eq!(logged, [("a", 0), ("n4", 1), ("n6", 1)]);
    assert_eq!(metastore.table(&levels, "t").await.unwrap().unwrap().metadata_location, "m2");
    assert_eq!(metastore.table(&levels, "u").await.unwrap().unwrap().version, 1);
    let events = metastore.events(told, 100).await.unwrap();
    let what = |event: &ChangeEvent| event.operation["operation-type"].as_str().unwrap().to_owned();
    let created = ["create-namespace", "create-table"];
    assert_eq!(
        events.iter().map(what).collect::<Vec<_>>(),
        [created.as_slice(), &created, &["update-table"]].concat()
    );
    assert_eq!(
        events.iter().map(|event| event.request_events).collect::<Vec<_>>(),
        [2, 2, 2, 2, 1]
    );

    // A namespace that has come meanwhile, of somebody else and of the same.
    let other = NewTable { uuid: Uuid::from_u128(8), ..of_log(4, owner.epoch) };
    let mut same = NewTable { name: "dead_letters".to_owned(), ..other.clone() };
    same.location.push_str("/more");
    let wrong =
        TableOrigin::OfHolder { watermark, acked: None, namespace: Some(Properties::new()) };
    let answers =
        at_once(metastore, &[NewTable { comes: wrong, ..same.clone() }, other], &[]).await;
    for answer in answers {
        assert!(matches!(answer, Err(CatalogError::AlreadyExists(_))), "{answer:?}");
    }
    same.location = "s3://b/other".to_owned();
    assert_eq!(at_once(metastore, &[same], &[]).await[0].as_ref().unwrap(), &done);
    let logged = &metastore.marks().await.unwrap()[1];
    assert_eq!(logged.properties["text"], "4");
    let both = ["dead_letters", "events"].map(|name| (name.to_owned(), watermark));
    assert_eq!((logged.levels[0].as_str(), logged.tables.as_slice()), ("n4", both.as_slice()));
}

#[tokio::test]
async fn commits_that_wait_share_a_transaction_and_fail_apart() {
    for (_folder, metastore) in stores().await {
        group(&metastore).await;
    }
}

#[tokio::test]
async fn commits_of_one_transaction_share_its_end() {
    for (_folder, metastore) in stores().await {
        for (number, fault) in
            [CommitFault::Before, CommitFault::Deaf, CommitFault::After].into_iter().enumerate()
        {
            let number = u128::try_from(number).unwrap() * 10;
            let new = [of_log(number + 1, 1), of_log(number + 2, 1)];
            metastore.faults.set(fault);
            let answers = at_once(&metastore, &new, &[]).await;
            for (table, answer) in new.iter().zip(answers) {
                match fault {
                    CommitFault::Before => {
                        assert!(matches!(answer, Err(CatalogError::Metastore { .. })));
                    }
                    CommitFault::After => assert_eq!(answer.unwrap(), SwapOutcome::Done),
                    CommitFault::Deaf => {
                        assert!(matches!(answer, Err(CatalogError::CommitStateUnknown(_))));
                    }
                }
                let found = metastore.table_by_uuid(table.uuid).await.unwrap();
                assert_eq!(found.is_some(), fault != CommitFault::Before);
            }
        }
    }
}

#[tokio::test]
async fn of_two_requests_with_one_key_in_a_transaction_one_is_carried_out() {
    for (_folder, metastore) in stores().await {
        let uuid = committed(&metastore).await;
        let key = RequestKey {
            id: Uuid::from_u128(99),
            fingerprint: "f".to_owned(),
            answer: crate::metastore::RecordedAnswer::Commit,
        };
        let request = Some(Arc::new(key));
        let origin = ChangeOrigin { request, ..ChangeOrigin::anonymous(Arc::new(|| 0)) };
        let same = metastore.on_behalf_of(origin);
        let transactions = metastore.transactions();
        let (first, second) = ([suite::swap(uuid, 1, "m2")], [suite::swap(uuid, 2, "m3")]);
        let (first, second) = tokio::join!(same.commit(&first), same.commit(&second));
        assert_eq!(first.unwrap(), SwapOutcome::Done);
        assert_eq!(second.unwrap(), SwapOutcome::Repeated(Uuid::from_u128(99)));
        assert_eq!(metastore.transactions() - transactions, 1);
        assert_eq!(metastore.table_by_uuid(uuid).await.unwrap().unwrap().metadata_location, "m2");
    }
}
