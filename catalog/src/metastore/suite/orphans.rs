//! Files that nothing names, as rows.

use super::{id, with_table};
use crate::metastore::{Metastore, orphans::OrphanMark};

fn mark(location: &str, modified_ms: i64, marked_ms: i64) -> OrphanMark {
    OrphanMark { location: location.to_owned(), bytes: 1, modified_ms, marked_ms }
}

pub(crate) async fn orphans(store: &Metastore) {
    let one = with_table(store, 1).await;
    let version = store.table_by_uuid(one).await.unwrap().unwrap().version;
    let all = ["a", "b", "c"].map(str::to_owned);
    store.mark_orphans(one, &[mark("a", 1, 10), mark("b", 1, 10)]).await.unwrap();
    store.mark_orphans(one, &[mark("b", 2, 20), mark("c", 1, 20)]).await.unwrap();
    let marks = store.orphan_marks(one).await.unwrap();
    assert_eq!(marks.len(), 3);
    assert_eq!((&marks["a"], &marks["b"]), (&mark("a", 1, 10), &mark("b", 2, 20)));
    assert!(store.orphan_marks(id(9)).await.unwrap().is_empty());

    // A commit came meanwhile, or the table is gone.
    let queue = [mark("a", 1, 30), mark("b", 2, 30)];
    assert!(!store.queue_orphans((one, version + 1), &queue, (30, 40)).await.unwrap());
    assert!(!store.queue_orphans((id(9), version), &queue, (30, 40)).await.unwrap());
    assert_eq!(store.count_obsolete().await.unwrap(), 0);
    assert!(store.queue_orphans((one, version), &queue, (30, 40)).await.unwrap());
    assert_eq!(store.table_by_uuid(one).await.unwrap().unwrap().version, version + 1);
    assert_eq!(store.obsolete(39, 10).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.obsolete(40, 10).await.unwrap(), ["a", "b"]);
    let mut queued = store.queued_files(&all).await.unwrap();
    queued.sort();
    assert_eq!(queued, ["a", "b"]);
    assert_eq!(store.orphan_marks(one).await.unwrap().len(), 1);

    // Whoever saw one before it was deleted does not make it new; one that is written again is.
    store.forget_obsolete(&all).await.unwrap();
    store.mark_orphans(one, &[mark("a", 1, 50), mark("b", 3, 50)]).await.unwrap();
    assert_eq!(store.removed_orphans(&all).await.unwrap(), ["a"]);
    store.unmark_orphans(&all).await.unwrap();
    assert!(store.orphan_marks(one).await.unwrap().is_empty());
    assert_eq!(store.removed_orphans(&all).await.unwrap(), ["a"]);
    store.forget_orphans(30).await.unwrap();
    assert_eq!(store.removed_orphans(&all).await.unwrap(), ["a"]);
    store.forget_orphans(31).await.unwrap();
    assert_eq!(store.removed_orphans(&all).await.unwrap(), Vec::<String>::new());

    // More than one statement takes.
    let many: Vec<OrphanMark> = (0..1_201).map(|at| mark(&format!("m{at}"), at, 60)).collect();
    store.mark_orphans(one, &many).await.unwrap();
    assert!(store.queue_orphans((one, version + 1), &many, (70, 70)).await.unwrap());
    let many: Vec<String> = many.into_iter().map(|mark| mark.location).collect();
    assert_eq!(store.removed_orphans(&many).await.unwrap().len(), 1_201);
    assert_eq!(store.queued_files(&many).await.unwrap().len(), 1_201);

    store.mark_orphans(one, &[mark("d", 1, 80)]).await.unwrap();
    store.forget_orphan_marks().await.unwrap();
    assert!(store.orphan_marks(one).await.unwrap().is_empty());
    assert_eq!(store.removed_orphans(&many).await.unwrap().len(), 1_201);
}
