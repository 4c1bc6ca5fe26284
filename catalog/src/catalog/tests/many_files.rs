//! What a commit reads of a table that has many files, and who waits for that.

use super::{late_client::*, live::*, places::strict, row_delta::listed, *};
use futures::poll;
use std::time::Instant;

const MANIFESTS: u64 = 20;
/// Files of a manifest, and with `LARGE=1`. What is counted are calls, of which a manifest takes one
/// however many files it has.
const FILES: u64 = 50;
const LARGE_FILES: u64 = 1_000;

/// The calls to the store that a commit takes.
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "says how long it took")]
async fn calls(catalog: &Catalog, id: i64, work: Work<'_>) -> u64 {
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    let change = put(catalog, &head, id, work).await;
    let (before, start) = (catalog.storage().calls(), Instant::now());
    catalog.commit(change).await.unwrap();
    let calls = catalog.storage().calls() - before;
    println!("{work:?}: {calls} calls, {:?}", start.elapsed());
    calls
}

#[tokio::test]
async fn a_commit_reads_no_more_of_a_table_than_tells_which_files_are_live() {
    let house = house().await;
    let catalog = strict(&house);
    let table = ident("a.t");
    let in_each = if std::env::var_os("LARGE").is_some() { LARGE_FILES } else { FILES };
    let made = create(&catalog, "a.t").await;
    let of_none = calls(&catalog, 1, Work { adds: &[("x1", 1)], ..on("append") }).await;
    for position in 1..=MANIFESTS {
        let files = (0..in_each).map(|n| rows_of(&made, &format!("own{position}-{n}"), 3));
        let append = NewSnapshot { added: files.collect(), ..own_append(&made, "", position) };
        catalog.add_snapshot(&table, append).await.unwrap();
    }
    let of_many = calls(&catalog, 2, Work { adds: &[("x2", 1)], ..on("append") }).await;
    // The parent's list.
    assert_eq!(of_many, of_none + 1);
    let newest = format!("own{MANIFESTS}-0");
    let newest = calls(&catalog, 3, Work { deletes: &[("d1", &newest)], ..on("delete") }).await;
    assert!(newest < of_many + 8, "{newest} calls");
    let oldest = calls(&catalog, 4, Work { deletes: &[("d2", "own1-0")], ..on("delete") }).await;
    assert!((MANIFESTS..MANIFESTS + 20).contains(&oldest), "{oldest} calls");
}

fn on(operation: &str) -> Work<'_> {
    Work { operation, ..Work::default() }
}

/// Has one commit read the manifests of a large table, stops it in the middle of that, and lets another
/// commit go by. `LARGE=1` has the tables of 100 000 files.
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "says how long it took")]
async fn check_goes_by(work: Work<'_>, is_moved: bool) {
    const MANIFESTS: u64 = 40;
    let in_each = if std::env::var_os("LARGE").is_some() { 2_500 } else { 10 };
    let house = house().await;
    let (catalog, table) = (strict(&house), ident("a.t"));
    let made = create(&catalog, "a.t").await;
    for position in 1..=MANIFESTS {
        let files = (0..in_each).map(|n| rows_of(&made, &format!("own{position}-{n}"), 3));
        let append = NewSnapshot { added: files.collect(), ..own_append(&made, "", position) };
        catalog.add_snapshot(&table, append).await.unwrap();
    }
    let head = catalog.tables().load(&table).await.unwrap();
    assert_eq!(listed(&catalog, &head).await.len() as u64, MANIFESTS);
    let slow = put(&catalog, &head, 1, work).await;
    let start = Instant::now();
    let calls = || catalog.storage().calls();
    let before = calls();
    let mut slow = Box::pin(catalog.commit(slow));
    while calls() < before + MANIFESTS / 2 {
        assert!(poll!(&mut slow).is_pending());
        tokio::task::yield_now().await;
    }
    let (half, read) = (start.elapsed(), calls());
    let own = own_append(&made, "own", MANIFESTS + 1);
    let after = catalog.add_snapshot(&table, own).await.unwrap();
    println!("{in_each} files a manifest: {half:?} to read half, {:?} beside", start.elapsed());
    // The four reads that had begun, the lists, the manifest and the metadata file of the append.
    assert!(calls() - read < 12, "{} calls", calls() - read);
    assert_eq!(after.version, head.version + 1);
    assert!(after.metadata.snapshot_by_id(1).is_none());
    let told = slow.await;
    println!("{work:?}: {:?} in all", start.elapsed());
    assert_eq!(told.is_ok(), is_moved, "{told:?}");
    assert!(MANIFESTS <= calls() - before, "it had to read them all");
    assert!(matches!(told, Ok(_) | Err(CatalogError::CommitFailed(_))), "{told:?}");
}

#[tokio::test]
async fn a_commit_that_reads_a_large_table_holds_up_no_other() {
    // A delete of the oldest file looks for it in every manifest, and is put on top of what went by.
    check_goes_by(Work { deletes: &[("d1", "own1-0")], ..on("delete") }, true).await;
    // An update of it writes all manifests anew, and has lost its race.
    let update = Work { removes: &["own1-0"], adds: &[("own1-0-new", 2)], ..on("overwrite") };
    check_goes_by(update, false).await;
}
