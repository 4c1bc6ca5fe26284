//! `icecore branches …`: what the commands ask before they change a branch.

use crate::{admin::icecore, harness::TestServer};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_make_a_branch_and_drop_it_once_they_are_told_to() {
    let server = TestServer::start().await;
    let events = ["a", "b", "c"].map(|id| json!({"id": id, "type": "order.placed", "ns": "shop"}));
    assert_eq!(server.ingest(&json!(events)).await.0, 200);
    server.commit("shop").await;
    let run = |words: &[&str]| icecore(&server, &[words, &["--ns", "shop"]].concat());
    let made = run(&["branches", "create", "prices", "--collection", "prices"]);
    assert!(made.0 && made.1.contains("prices begins at seq 3"), "{}", made.1);
    let (done, text) = run(&["branches"]);
    assert!(done && text.contains("prices"), "{text}");
    let (done, text) = icecore(&server, &["branches", "--ns", "shop", "list"]);
    assert!(!done && text.contains("branches list --ns NS"), "{text}");
    let other = json!({"op": "c", "ns": "shop", "collection": "users", "key": "1", "after": {}});
    assert_eq!(server.ingest_at("/ingest?branch=prices", &other).await.0, 400);
    let path = "/v1/shop/branches/prices";
    for verb in ["squash", "drop"] {
        let (done, text) = run(&["branches", verb, "prices", "--dry-run"]);
        assert!(done && text.contains("up to seq 3"), "{text}");
        // Nobody is there to be asked.
        let (done, text) = run(&["branches", verb, "prices"]);
        assert!(!done && text.contains("--yes"), "{text}");
        assert_eq!(server.get(path).await.status(), 200, "{verb}");
    }
    let (done, text) = run(&["branches", "squash", "prices", "--yes"]);
    assert!(done && text.contains("prices stays as it is"), "{text}");
    let (done, text) = run(&["branches", "drop", "prices", "--yes"]);
    assert!(done && text.contains("prices is dropped"), "{text}");
    assert_eq!(server.get(path).await.status(), 404);
    let (done, text) = run(&["branches", "create", "side", "--table", "events"]);
    assert!(done && text.contains("side is at snapshot"), "{text}");
    let (done, text) = run(&["branches", "create", "events", "other", "--table", "events"]);
    assert!(!done && text.contains("the table is there twice"), "{text}");
    let (done, text) = run(&["branches", "drop", "side", "--table", "events"]);
    assert!(done && text.contains("side is dropped"), "{text}");
    server.stop().await;
}
