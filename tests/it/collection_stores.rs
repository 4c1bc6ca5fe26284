//! Changes of every kind of store make documents, and the events of one request are never in two snapshots.

use crate::harness::TestServer;
use serde_json::{Value, json};

const REFRESH: &str = "/v1/shop/collections/things/refresh";

async fn take(server: &TestServer, events: &Value) {
    let (status, reply) = server.ingest(events).await;
    assert_eq!(status, 200, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_every_kind_of_store_is_read_as_it_came() {
    let server = TestServer::start().await;
    let stores = [
        ("blob", json!("AAECAwQFBgc=")),
        ("columnar", json!({"columns": {"a": [1, 2, null], "b": ["x", null, "z"]}})),
        ("document", json!({"name": "Ann", "tags": [], "address": {"city": "Rome"}})),
        ("graph", json!({"from": "n-1", "to": "n-2", "label": "knows", "properties": {}})),
        ("relational", json!({"id": 7, "price": "12.50", "note": null})),
        ("stream", json!({"offset": 9_007_199_254_740_993_u64, "partition": 0})),
        (
            "time-series",
            json!({"points": [[1_790_000_000_000_u64, 0.5], [1_790_000_060_000_u64, -1.25]]}),
        ),
        ("vector", json!([0.25, -0.5, 1.0])),
        ("workflow", json!({"state": "waiting", "step": {"name": "pay", "result": null}})),
    ];
    let change = |op: &str, (store, doc): &(&str, Value)| json!({"ns": "shop", "op": op, "store": store, "collection": "things", "key": store, "after": doc});
    let events: Vec<Value> = stores.iter().map(|it| change("insert", it)).collect();
    take(&server, &json!(events)).await;
    let rows: Vec<Value> =
        stores.iter().map(|(store, doc)| json!([store, store, doc.to_string(), "c"])).collect();
    let sql = "SELECT key, store, doc, op FROM cdc_things ORDER BY key";
    for round in ["from the log", "from the table"] {
        assert_eq!(server.rows("shop", sql).await, json!(rows), "{round}");
        for (store, doc) in &stores {
            let path = format!("/v1/shop/collections/things/docs/{store}");
            let found = server.get(&path).await.json::<Value>().await.unwrap();
            assert_eq!(found["doc"], *doc, "{round}: {found}");
        }
        let refreshed = server.post(REFRESH, "application/json", "").await;
        assert_eq!(refreshed.status(), 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_transaction_are_in_one_snapshot_and_refused_alone() {
    let server = TestServer::start().await;
    let event = |n: u64, kind: &str| json!({"ns": "shop", "type": kind, "txid": format!("t-{n}")});
    take(
        &server,
        &json!([event(0, "order.placed"), event(0, "order.paid"), event(0, "mail.sent")]),
    )
    .await;
    for n in 1..8 {
        let body =
            json!([event(n, "order.placed"), event(n, "stock.moved"), event(n, "mail.sent")]);
        // A commit comes before the request, after it, or beside it.
        tokio::join!(take(&server, &body), server.commit("shop"));
    }
    server.commit("shop").await;
    let path = "/v1/shop/tables/events/snapshots";
    let listed = server.get(path).await.json::<Value>().await.unwrap();
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert!(!snapshots.is_empty(), "{listed}");
    let torn = "SELECT txid FROM events GROUP BY txid HAVING count(*) <> 3";
    for snapshot in snapshots {
        let request = json!({ "sql": torn, "as_of": snapshot["snapshot"] });
        let (status, answer) = server.query("shop", &request).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([])), "{snapshot}: {answer}");
    }
    // What such a request is asked for to be all or none is told by the parameter alone.
    let mixed = json!([event(9, "order.placed"), {"ns": "shop", "type": "?", "txid": "t-9"}]);
    assert_eq!(server.ingest_at("/ingest?atomic=true", &mixed).await.0, 400);
    let of_it = "SELECT count(*) FROM events WHERE txid = 't-9'";
    assert_eq!(server.rows("shop", of_it).await, json!([[0]]));
    assert_eq!(server.ingest(&mixed).await.0, 207);
    assert_eq!(server.rows("shop", of_it).await, json!([[1]]));
    server.stop().await;
}
