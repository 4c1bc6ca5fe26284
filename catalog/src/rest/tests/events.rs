//! The feed of changes.

use super::*;
use crate::metastore::Remembered;

#[tokio::test]
async fn the_feed_tells_every_change_in_order() {
    let (server, table) = Server::with_table().await;
    let set = json!({"requirements": [], "updates": [
        {"action": "set-properties", "updates": {"k": "v"}}]});
    let path = "/v1/namespaces/ns/tables/t";
    let made = server.post(path, &set).await.ok();
    let name = |name: &str| json!({"namespace": ["ns"], "name": name});
    server
        .post("/v1/tables/rename", json!({"source": name("t"), "destination": name("u")}))
        .await
        .empty();
    let mut drop = Request::delete("/v1/namespaces/ns/tables/u").body(Body::empty()).unwrap();
    let entry = Entry { principal: "ann".to_owned(), ..Entry::default() };
    drop.extensions_mut().insert(Call::new(entry, Arc::new(|| 0)));
    server.send(drop).await.empty();
    server.call(Method::DELETE, "/v1/namespaces/ns").await.empty();

    let feed = server.get("/v1/events").await.ok();
    let events = feed["events"].as_array().unwrap();
    let kinds: Vec<&str> =
        events.iter().map(|event| event["operation"]["operation-type"].as_str().unwrap()).collect();
    let expected = [
        "create-namespace",
        "create-table",
        "update-table",
        "rename-table",
        "drop-table",
        "drop-namespace",
    ];
    assert_eq!(kinds, expected);
    let ids: Vec<&str> = events.iter().map(|event| event["event-id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    let update = &events[2]["operation"];
    assert_eq!(update["previous-metadata-location"], table["metadata-location"]);
    assert_eq!(update["metadata-location"], made["metadata-location"]);
    assert_eq!(update["table-uuid"], table["metadata"]["table-uuid"]);
    let actors = [&events[3]["actor"]["principal"], &events[4]["actor"]["principal"]];
    assert_eq!(actors, ["anonymous", "ann"]);

    let first = server.post("/v1/events", json!({"page-size": 2})).await.ok();
    assert_eq!(first["events"].as_array().unwrap().len(), 2);
    let next = json!({"continuation-token": first["continuation-token"],
                      "operation-types": ["drop-table", "rename-table"]});
    let next = server.post("/v1/events", next).await.ok();
    assert_eq!(next["events"].as_array().unwrap().len(), 2);
    assert_eq!(next["continuation-token"], "6");
    let end = server.get("/v1/events?continuation-token=6&page-size=5").await.ok();
    assert_eq!((&end["events"], &end["continuation-token"]), (&json!([]), &json!("6")));
    let later = server.get("/v1/events?after-timestamp-ms=1900000000000").await.ok();
    assert_eq!(later["continuation-token"], "6");
    server.get("/v1/events?continuation-token=x").await.refused(400, "BadRequestException");
    let remembered = Remembered { requests_since_ms: 0, without_effect: 0, events: 2 };
    server.catalog.metastore().forget_records(remembered).await.unwrap();
    let behind = server.get("/v1/events?continuation-token=1").await;
    assert!(behind.refused(400, "BadRequestException").contains("the oldest is 5"));
    assert_eq!(server.get("/v1/events").await.ok()["events"].as_array().unwrap().len(), 2);
}

/// The types of the events that a query finds, with their names.
async fn found(server: &Server, query: Value) -> Vec<String> {
    let feed = server.post("/v1/events", query).await.ok();
    let told = |event: &Value| {
        let operation = &event["operation"];
        let identifier = &operation["identifier"];
        let identifier = if identifier.is_null() { &operation["destination"] } else { identifier };
        let mut name: Vec<&str> = operation["namespace"]
            .as_array()
            .or(identifier["namespace"].as_array())
            .map(|levels| levels.iter().map(|level| level.as_str().unwrap()).collect())
            .unwrap_or_default();
        name.extend(identifier["name"].as_str());
        format!("{} {}", operation["operation-type"].as_str().unwrap(), name.join("."))
    };
    feed["events"].as_array().unwrap().iter().map(told).collect()
}

#[tokio::test]
async fn the_feed_is_filtered_by_name_identity_and_type() {
    let (server, table) = Server::with_table().await;
    let named = |levels: &[&str], name: &str| json!({"namespace": levels, "name": name});
    for levels in [json!(["ns", "sub"]), json!(["nsx"])] {
        server.post("/v1/namespaces", json!({"namespace": levels})).await.ok();
    }
    let properties = json!({"updates": {"a": "1"}});
    server.post("/v1/namespaces/nsx/properties", properties).await.ok();
    server.post("/v1/namespaces/ns%1Fsub/tables", new_table("t")).await.ok();
    let views = "/v1/namespaces/ns/views";
    let view = server.post(views, super::views::new_view("v", "select 1")).await.ok();
    let set = json!({"updates": [{"action": "set-properties", "updates": {"k": "v"}}]});
    let changed = server.post("/v1/namespaces/ns/views/v", set).await.ok();
    let renamed = json!({"source": named(&["ns"], "v"), "destination": named(&["nsx"], "w")});
    server.post("/v1/views/rename", renamed).await.empty();
    server.call(Method::DELETE, "/v1/namespaces/nsx/views/w").await.empty();
    let back = json!({"name": "b", "metadata-location": view["metadata-location"]});
    server.post("/v1/namespaces/ns/register-view", back).await.ok();

    let check = async |query: Value, expected: &[&str]| {
        assert_eq!(found(&server, query.clone()).await, expected, "{query}");
    };
    let all = [
        "create-namespace ns",
        "create-table ns.t",
        "create-namespace ns.sub",
        "create-namespace nsx",
        "update-namespace-properties nsx",
        "create-table ns.sub.t",
        "create-view ns.v",
        "update-view ns.v",
        "rename-view nsx.w",
        "drop-view nsx.w",
        "create-view ns.b",
    ];
    check(json!({"continuation-token": null, "custom-filters": {}}), &all).await;
    // A namespace stands for all that is in it, and a name only for itself.
    let by_name = |names: Value| json!({"catalog-objects-by-name": names});
    let in_ns: Vec<&str> = [0, 1, 2, 5, 6, 7, 8, 10].map(|at| all[at]).to_vec();
    check(by_name(json!([["ns"]])), &in_ns).await;
    check(by_name(json!([["ns", "t"]])), &[all[1]]).await;
    check(by_name(json!([["ns", "sub"], ["nsx", "w"]])), &[all[2], all[5], all[8], all[9]]).await;
    check(by_name(json!([["n"]])), &[]).await;
    // A renamed view is found by its old name as well.
    check(by_name(json!([["ns", "v"]])), &[all[6], all[7], all[8]]).await;
    let (table, view) = (&table["metadata"]["table-uuid"], &view["metadata"]["view-uuid"]);
    let by_id =
        |uuid: &Value, kind: &str| json!({"catalog-objects-by-id": [{"uuid": uuid, "type": kind}]});
    check(by_id(table, "table"), &[all[1]]).await;
    check(by_id(view, "view"), &all[6..]).await;
    check(by_id(view, "table"), &[]).await;
    let by_type = |types: Value| json!({"object-types": types});
    check(by_type(json!(["namespace"])), &[all[0], all[2], all[3], all[4]]).await;
    check(by_type(json!(["table"])), &[all[1], all[5]]).await;
    check(by_type(json!(["view", "table"])), &[&[all[1], all[5]], &all[6..]].concat()).await;
    // Every filter that is given holds.
    let both = json!({"object-types": ["view"], "operation-types": ["create-view", "x-mine"],
        "catalog-objects-by-name": [["ns", "b"], ["nsx"]]});
    check(both, &[all[10]]).await;

    let view_events = server.post("/v1/events", by_type(json!(["view"]))).await.ok();
    assert_eq!(view_events["continuation-token"], "11");
    let update = &view_events["events"][1]["operation"];
    assert_eq!(update["metadata-location"], changed["metadata-location"]);
    assert_eq!(&update["view-uuid"], view);
    for wrong in [
        json!({"object-types": ["column"]}),
        json!({"catalog-objects-by-id": [{"uuid": "x", "type": "table"}]}),
        json!({"catalog-objects-by-name": "ns"}),
        json!({"custom-filters": {"colour": "blue"}}),
        json!({"page-size": 0}),
    ] {
        server.post("/v1/events", wrong).await.refused(400, "BadRequestException");
    }
}
