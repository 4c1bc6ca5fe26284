//! What a commit reads of a table that has many files.

use super::{late_client::*, live::*, places::strict, *};
use std::time::Instant;

const MANIFESTS: u64 = 20;
const FILES: u64 = 1_000;

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
    let made = create(&catalog, "a.t").await;
    let of_none = calls(&catalog, 1, Work { adds: &[("x1", 1)], ..on("append") }).await;
    for position in 1..=MANIFESTS {
        let files = (0..FILES).map(|n| rows_of(&made, &format!("own{position}-{n}"), 3));
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
