//! Many clients at once, at two catalogs over one metastore, with timeouts, lost answers and
//! killed connections; what each was told goes to the checker.

use super::*;
use crate::metastore::tests::database;
use icecore_histories::{Asked, Operation, Rng, SeedableRng, StdRng, Told, any, check};
use std::{sync::Mutex, time::Duration};

/// How a run goes.
#[derive(Clone, Copy, Debug)]
struct Run {
    seed: u64,
    clients: u64,
    operations: u64,
    /// One in so many commits is said to be made and is not: a catalog that does this is broken.
    broken: Option<u32>,
}

/// A catalog as one process has it.
struct Process {
    catalog: Catalog,
    metastore: Metastore,
}

async fn process(folder: &std::path::Path, url: Option<&str>) -> Process {
    let metastore = match url {
        Some(url) => Metastore::postgres(url).await.unwrap(),
        None => Metastore::sqlite(&folder.join("icecore.db")).await.unwrap(),
    };
    let warehouse = format!("file://{}/warehouse", folder.display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    Process {
        catalog: Catalog::new("icecore", storage, metastore.clone(), Arc::new(|| NOW)),
        metastore,
    }
}

/// Runs the clients and gives what they saw, and what the feed tells.
async fn history(run: Run, url: Option<&str>) -> (Vec<Operation>, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let processes = [process(folder.path(), url).await, process(folder.path(), url).await];
    processes[0]
        .catalog
        .namespaces()
        .ensure(&suite::levels("a"), &Properties::new())
        .await
        .unwrap();
    let (clock, seen) = (AtomicI64::new(0), Mutex::new(Vec::new()));
    let tick = || clock.fetch_add(1, Ordering::SeqCst).cast_unsigned();
    let clients = (0..run.clients).map(|client| {
        let (processes, seen) = (&processes, &seen);
        async move {
            let mut random = StdRng::seed_from_u64(run.seed * 1000 + client);
            let process = &processes[usize::try_from(client).unwrap() % 2];
            for n in 0..run.operations / run.clients {
                let id = client * 1_000_000 + n + 1;
                let asked = any(&mut random, id);
                let catalog = process.catalog.on_behalf_of(&id.to_string());
                disturb(&mut random, process, url).await;
                let patience = random.random_ratio(1, 30).then(|| random.random_range(0..4));
                let lies = run.broken.is_some_and(|one_in| random.random_ratio(1, one_in));
                let called = tick();
                let told = match asked {
                    Asked::Commit { .. } if lies => Told::Done,
                    _ => ask_within(&catalog, asked, patience).await,
                };
                let operation = Operation { id, called, returned: tick(), asked, told };
                seen.lock().unwrap().push(operation);
            }
        }
    });
    join_all(clients).await;
    let seen = seen.into_inner().unwrap();
    let changes = changes(&process(folder.path(), url).await.metastore).await;
    (seen, changes)
}

/// Who asked for each change, in order.
async fn changes(metastore: &Metastore) -> Vec<u64> {
    let mut changes = Vec::new();
    let mut after = 0;
    loop {
        let events = metastore.events(after, 1000).await.unwrap();
        let Some(last) = events.last() else { return changes };
        after = last.number;
        // The namespace is nobody's.
        changes.extend(events.iter().filter_map(|event| event.actor.parse::<u64>().ok()));
    }
}

/// Loses the answer of a COMMIT, or kills a connection, now and then.
async fn disturb(random: &mut StdRng, process: &Process, url: Option<&str>) {
    match random.random_range(0..200) {
        0 => process.metastore.faults.set(CommitFault::Before),
        1 => process.metastore.faults.set(CommitFault::After),
        2 => process.metastore.faults.set(CommitFault::Deaf),
        3 if url.is_some() => process.metastore.kill_a_connection().await,
        _ => (),
    }
}

async fn ask_within(catalog: &Catalog, asked: Asked, patience_ms: Option<u64>) -> Told {
    let Some(patience) = patience_ms.map(Duration::from_millis) else {
        return ask(catalog, asked).await;
    };
    // A client that gives up may have been heard.
    tokio::time::timeout(patience, ask(catalog, asked)).await.unwrap_or(Told::Unknown)
}

async fn ask(catalog: &Catalog, asked: Asked) -> Told {
    let done = match asked {
        Asked::Read { name } => match catalog.tables().load(&table(name)).await {
            Ok(loaded) => return contents(&loaded),
            Err(cause) => Err(cause),
        },
        Asked::Create { name, made } => {
            let new = CreateTable {
                properties: HashMap::from([("made".to_owned(), made.to_string())]),
                ..new_table(&table(name).name)
            };
            catalog.tables().create(&suite::levels("a"), new).await.map(|_| ())
        }
        Asked::Drop { name } => catalog.tables().drop(&table(name), false).await.map(drop),
        Asked::Rename { from, to } => catalog.tables().rename(&table(from), &table(to)).await,
        Asked::Commit { name, mark } => catalog.commit(marked(name, mark)).await.map(|loaded| {
            assert!(loaded.metadata.properties().contains_key(&mark.to_string()));
        }),
        Asked::CommitBoth { names: [one, other], mark } => {
            catalog.commit_all(vec![marked(one, mark), marked(other, mark)]).await
        }
    };
    match done {
        Ok(()) => Told::Done,
        Err(CatalogError::NoSuchTable(_)) => Told::Missing,
        Err(CatalogError::AlreadyExists(_)) => Told::Exists,
        Err(CatalogError::CommitStateUnknown(_)) => Told::Unknown,
        Err(CatalogError::CommitFailed(_) | CatalogError::Metastore { .. }) => Told::NotDone,
        Err(other) => panic!("{asked:?}: {other:?}"),
    }
}

fn table(name: usize) -> TableIdent {
    ident(&format!("a.t{name}"))
}

fn marked(name: usize, mark: u64) -> TableChange {
    set(&table(name).to_string(), &mark.to_string(), "x")
}

fn contents(loaded: &LoadedTable) -> Told {
    let properties = loaded.metadata.properties();
    let marks = properties.keys().filter_map(|key| key.parse().ok()).collect();
    Told::Seen { made: properties["made"].parse().unwrap(), marks }
}

/// Checks a history, and that it is one of a catalog that was used.
#[expect(clippy::print_stdout, reason = "the long form reports what it did")]
fn verify(run: Run, (history, changes): (Vec<Operation>, Vec<u64>)) {
    let count = |wanted: fn(&Told) -> bool| {
        history.iter().filter(|operation| wanted(&operation.told)).count()
    };
    let done = count(|told| matches!(told, Told::Done | Told::Seen { .. }));
    // How many of the faults are told as failures depends on who was at work: most leave it open.
    let failed = count(|told| matches!(told, Told::NotDone | Told::Unknown));
    println!("{run:?}: {} operations, {done} done, {failed} failed", history.len());
    assert!(history.len() / 4 < done && 0 < failed);
    if let Err(cause) = check(&history, &changes) {
        panic!("{run:?} has no order: {cause}");
    }
}

/// On SQLite the odd seeds, on PostgreSQL the even ones. `LARGE=1` has the long form, some twenty minutes
/// for each metastore: `LARGE=1 cargo test -p icecore-catalog --lib -- histories_of_two --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_of_two_processes_have_an_order() {
    let mut runs = vec![
        Run { seed: 1, clients: 8, operations: 600, broken: None },
        Run { seed: 2, clients: 12, operations: 900, broken: None },
    ];
    if std::env::var_os("LARGE").is_some() {
        let long = |seed| Run { seed, clients: 8 + seed % 9, operations: 8000, broken: None };
        runs.extend((100..120).map(long));
    }
    for run in runs {
        if run.seed % 2 == 1 {
            verify(run, history(run, None).await);
        } else if let Some(url) = database().await {
            verify(run, history(run, Some(&url)).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_history_of_a_catalog_that_lies_has_none() {
    let run = Run { seed: 3, clients: 8, operations: 400, broken: Some(20) };
    let (history, changes) = history(run, None).await;
    check(&history, &changes).unwrap_err();
}
