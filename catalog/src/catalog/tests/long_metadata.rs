//! Metadata files that would become too long to be read.

use super::*;
use write::{CHANGED_BYTES_MAX, check_length};

#[tokio::test]
async fn a_change_that_makes_a_metadata_file_too_long_is_refused() {
    let house = house().await;
    let catalog = &house.catalog;
    create(catalog, "a.t").await;
    let long = "x".repeat(CHANGED_BYTES_MAX);
    let refused = catalog.commit(set("a.t", "long", &long)).await.map(|_| ()).unwrap_err();
    let expected = "file of a.t would have 65 MiB, but it may have 64 MiB: expire snapshots";
    assert!(refused.to_string().contains(expected), "{refused}");
    // Whoever has to read the file still can, and the next commit is made.
    let made = catalog.commit(set("a.t", "short", "x")).await.unwrap();
    let loaded = house.other.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!((loaded.version, &loaded.metadata), (2, &made.metadata));
}

#[tokio::test]
async fn a_metadata_file_that_is_too_long_may_become_shorter() {
    let most = CHANGED_BYTES_MAX;
    for (length, before, passes) in [
        (most, 0, true),
        (most + 1, most, false),
        (most + 1, most + 1, true),
        (most + 1, most + 2, true),
        (most + 3, most + 2, false),
    ] {
        let checked = check_length(&ident("a.t"), length, most, async || before).await;
        assert_eq!(checked.is_ok(), passes, "{length} after {before}");
    }
}
