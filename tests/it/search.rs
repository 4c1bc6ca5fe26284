//! Things, found and counted by their properties.

use crate::{access::Guarded, harness::TestServer};
use serde_json::{Value, json};

/// Documents: a city has two people and a shop, one person moved, one is gone.
fn sent() -> Value {
    let change = |id: &str, op: &str, collection: &str, key: &str, doc: Value| json!({"id": id, "ns": "shop", "op": op, "collection": collection, "docId": key, "doc": doc});
    json!({ "events": [
        change("1", "c", "users", "u-1", json!({"name": "Ann", "type": "Person", "address": {"city": "Paris"}, "age": 30})),
        change("2", "c", "users", "u-2", json!({"name": "Bea O'Hara", "type": "Person", "address": {"city": "Rome"}})),
        change("3", "c", "users", "u-3", json!({"name": "Cid", "address": {"city": "Paris"}})),
        change("4", "c", "places", "p-1", json!({"name": "Chez Ann", "type": "Shop", "address": {"city": "Paris"}})),
        change("5", "u", "users", "u-2", json!({"name": "Bea O'Hara", "type": "Person", "address": {"city": "Paris"}})),
        {"id": "6", "ns": "shop", "op": "d", "collection": "users", "docId": "u-3"},
        {"id": "7", "ns": "shop", "type": "order.placed"},
    ]})
}

async fn found(server: &TestServer, query: &str) -> Vec<String> {
    let answer = server.get(&format!("/v1/shop/search?{query}")).await;
    let status = answer.status();
    let page: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{query}: {page}");
    let things = page["things"].as_array().unwrap().iter();
    things.map(|thing| thing["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn things_are_found_as_they_are_now() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    for _ in 0..2 {
        for (query, expected) in [
            ("", vec!["u-2", "p-1", "u-1"]),
            ("q=ANN", vec!["p-1", "u-1"]),
            ("q=o%27hara", vec!["u-2"]),
            ("q=p-1", vec!["p-1"]),
            ("type=Person", vec!["u-2", "u-1"]),
            ("type=Person&q=ann", vec!["u-1"]),
            ("property=address.city:Paris", vec!["u-2", "p-1", "u-1"]),
            ("property=address.city:Rome", vec![]),
            ("property=address.city:Paris&property=age:30", vec!["u-1"]),
            ("property=name:Bea%20O%27Hara", vec!["u-2"]),
            ("property=absent:x", vec![]),
        ] {
            assert_eq!(found(&server, query).await, expected, "{query}");
        }
        server.commit("shop").await;
    }
    let page: Value = server.get("/v1/shop/search?q=u-1").await.json().await.unwrap();
    let thing = &page["things"][0];
    assert_eq!(
        (&thing["collection"], &thing["type"], &thing["seq"]),
        (&json!("users"), &json!("Person"), &json!(1))
    );
    assert_eq!(thing["data"]["address"]["city"], "Paris");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_every_thing_once() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/shop/search?limit=1{after}");
        let page: Value = server.get(&path).await.json().await.unwrap();
        let things = page["things"].as_array().unwrap();
        assert!(things.len() <= 1, "{page}");
        seen.extend(things.iter().map(|thing| thing["id"].as_str().unwrap().to_owned()));
        match page["next"].as_u64() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["u-2", "p-1", "u-1"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thing_that_was_patched_is_found_as_it_is() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    let change = |id: &str, key: &str| json!({"id": id, "ns": "shop", "op": "u", "collection": "users", "docId": key});
    let mut patch = change("8", "u-1");
    patch["patch"] = json!({"age": 31});
    let events = json!({ "events": [patch, change("9", "u-2")] });
    assert_eq!(server.ingest(&events).await.0, 200);
    for _ in 0..2 {
        for (query, expected) in [
            ("", vec!["u-1", "u-2", "p-1"]),
            ("property=age:30", vec![]),
            ("property=age:31&property=address.city:Paris", vec!["u-1"]),
            ("type=Person", vec!["u-1", "u-2"]),
        ] {
            assert_eq!(found(&server, query).await, expected, "{query}");
        }
        server.commit("shop").await;
    }
    let path = "/v1/shop/facets?by=age";
    let facets: Value = server.get(path).await.json().await.unwrap();
    let ages = json!([{"value": null, "count": 2}, {"value": "31", "count": 1}]);
    assert_eq!(facets["facets"]["age"], ages);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn things_are_counted_by_their_properties() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    let path = "/v1/shop/facets?by=address.city&by=age";
    let facets: Value = server.get(path).await.json().await.unwrap();
    let expected = json!({"count": 3, "facets": {
        "type": [{"value": "Person", "count": 2}, {"value": "Shop", "count": 1}],
        "collection": [{"value": "users", "count": 2}, {"value": "places", "count": 1}],
        "address.city": [{"value": "Paris", "count": 3}],
        "age": [{"value": null, "count": 2}, {"value": "30", "count": 1}],
    }});
    assert_eq!(facets, expected);
    let path = "/v1/shop/facets?type=Nobody&limit=1";
    let facets: Value = server.get(path).await.json().await.unwrap();
    assert_eq!(facets, json!({"count": 0, "facets": {"type": [], "collection": []}}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_events_has_no_things() {
    let server = TestServer::start().await;
    let namespace = json!({"namespace": ["shop"]}).to_string();
    let made = server.post("/catalog/v1/namespaces", "application/json", namespace).await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
    assert_eq!(found(&server, "q=ann").await, Vec::<String>::new());
    let facets: Value = server.get("/v1/shop/facets?by=age").await.json().await.unwrap();
    let none = json!({"count": 0, "facets": {"type": [], "collection": [], "age": []}});
    assert_eq!(facets, none);
    // With the first event there are some.
    assert_eq!(server.ingest(&sent()).await.0, 200);
    assert_eq!(found(&server, "type=Shop").await, ["p-1"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_says_what_is_wrong_and_asks_for_the_right_to_read() {
    let guarded = Guarded::with_events().await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    for route in ["search", "facets"] {
        for limit in [0, 501] {
            let path = format!("/v1/shop/{route}?limit={limit}");
            let (status, answer) = guarded.get(&reader, &path).await;
            assert_eq!((status, &answer["code"]), (400, &json!("INVALID_REQUEST")), "{answer}");
        }
        let (status, answer) = guarded.get(&reader, &format!("/v1/shop/{route}?colour=red")).await;
        assert_eq!(status, 400);
        assert!(answer["error"].as_str().unwrap().contains("`colour`; known are q"), "{answer}");
        assert_eq!(guarded.get(&reader, &format!("/v1/shop/{route}")).await.0, 200);
        assert_eq!(guarded.get(&reader, &format!("/v1/other/{route}")).await.0, 404);
    }
    guarded.server.stop().await;
}
