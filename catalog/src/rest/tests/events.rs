//! The feed of changes.

use super::*;
use crate::metastore::{CHANGES_BYTES_MAX, FeedRetention};

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
    let entry = AuditEntry { principal: "ann".to_owned(), ..AuditEntry::default() };
    drop.extensions_mut().insert(AuditedCall::new(entry, Arc::new(|| 0)));
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
    let actors = [&events[3]["actor"], &events[4]["actor"]];
    assert_eq!(actors, [&json!({"id": "anonymous"}), &json!({"id": "ann"})]);
    let members: Vec<&String> = feed.as_object().unwrap().keys().collect();
    assert_eq!(members, ["continuation-token", "events"]);

    let first = server.post("/v1/events", json!({"page-size": 2})).await.ok();
    assert_eq!(first["events"].as_array().unwrap().len(), 2);
    let next = json!({"continuation-token": first["continuation-token"],
                      "operation-types": ["drop-table", "rename-table"]});
    let next = server.post("/v1/events", next).await.ok();
    assert_eq!(next["events"].as_array().unwrap().len(), 2);
    let token = |feed: &Value| feed["continuation-token"].as_str().unwrap().to_owned();
    let at_end = token(&feed);
    assert_eq!(token(&next), at_end);
    let end = server.get(&format!("/v1/events?continuation-token={at_end}&page-size=5")).await.ok();
    assert_eq!((&end["events"], &token(&end)), (&json!([]), &at_end));
    let later = server.get("/v1/events?since-timestamp-ms=1900000000000").await.ok();
    assert_eq!((&later["events"], &token(&later)), (&json!([]), &at_end));
    for wrong in
        ["continuation-token=x", "continuation-token=6", "after-timestamp-ms=1", "page-size=0"]
    {
        server.get(&format!("/v1/events?{wrong}")).await.refused(400, "BadRequestException");
    }
}

/// Follows the feed from a token.
async fn after(server: &Server, token: &Value) -> Answer {
    server.post("/v1/events", json!({"continuation-token": token})).await
}

#[tokio::test]
async fn a_reader_that_missed_something_is_told_so() {
    let server = Server::start().await;
    let made = |n: usize| json!({"namespace": [format!("n{n}")]});
    let start = server.get("/v1/events").await.ok()["continuation-token"].clone();
    for n in 0..6 {
        server.post("/v1/namespaces", made(n)).await.ok();
    }
    let first = server.post("/v1/events", json!({"page-size": 1})).await.ok();
    let end = server.get("/v1/events").await.ok()["continuation-token"].clone();
    assert_eq!(after(&server, &start).await.ok()["events"].as_array().unwrap().len(), 6);
    let is_gone = async |token: &Value, text: &str| {
        let message = after(&server, token).await.refused(410, "GoneException");
        assert!(message.contains(text), "{message}");
    };
    // Of a catalog that is not this one, and of a later state of this one.
    let other = Server::start().await;
    other.post("/v1/namespaces", made(0)).await.ok();
    let foreign = other.get("/v1/events").await.ok()["continuation-token"].clone();
    is_gone(&foreign, "another state").await;
    let text = end.as_str().unwrap();
    let (feed, request) = (&text[..16], text.rsplit('.').next().unwrap());
    is_gone(&json!(format!("{feed}.7.{request}")), "another state").await;
    // Its number was given again after an older copy was put back.
    is_gone(&json!(format!("{feed}.5.{request}")), "another state").await;
    let remembered =
        FeedRetention { requests_since_ms: 0, without_effect: 0, events: 2, event_bytes: 1 << 20 };
    server.catalog.metastore().forget_records(remembered).await.unwrap();
    is_gone(&first["continuation-token"], "no longer kept").await;
    is_gone(&start, "no longer kept").await;
    assert_eq!(after(&server, &end).await.ok()["events"], json!([]));
    assert_eq!(server.get("/v1/events").await.ok()["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_feed_tells_what_a_change_was_made_of() {
    let (server, table) = Server::with_table().await;
    let uuid = &table["metadata"]["table-uuid"];
    let path = "/v1/namespaces/ns/tables/t";
    let updates = json!([{"action": "set-properties", "updates": {"k": "v"}},
                         {"action": "remove-properties", "removals": ["x"]}]);
    let requirements = json!([{"type": "assert-table-uuid", "uuid": uuid}]);
    server.post(path, json!({"requirements": requirements, "updates": updates})).await.ok();
    let staged = json!({"identifier": {"namespace": ["ns"], "name": "u"},
        "requirements": [{"type": "assert-create"}],
        "updates": [{"action": "add-schema", "schema": new_table("u")["schema"]}]});
    server.post("/v1/transactions/commit", json!({"table-changes": [staged]})).await.empty();
    let view = super::views::new_view("v", "select 1");
    let view = server.post("/v1/namespaces/ns/views", view).await.ok();
    let set = json!({"updates": [{"action": "set-properties", "updates": {"k": "v"}}]});
    server.post("/v1/namespaces/ns/views/v", &set).await.ok();
    let back = json!({"name": "w", "metadata-location": view["metadata-location"]});
    server.call(Method::DELETE, "/v1/namespaces/ns/views/v").await.empty();
    server.post("/v1/namespaces/ns/register-view", back).await.ok();
    server.call(Method::DELETE, path).await.empty();

    let feed = server.get("/v1/events").await.ok();
    let told: Vec<&Value> =
        feed["events"].as_array().unwrap().iter().map(|event| &event["operation"]).collect();
    let actions = |operation: &Value| -> Vec<String> {
        let updates = operation["updates"].as_array().unwrap();
        // Every one of them can be read by who knows the specification.
        if operation["operation-type"].as_str().unwrap().ends_with("table") {
            serde_json::from_value::<Vec<iceberg::TableUpdate>>(operation["updates"].clone())
                .unwrap();
        } else {
            serde_json::from_value::<Vec<iceberg::ViewUpdate>>(operation["updates"].clone())
                .unwrap();
        }
        updates.iter().map(|update| update["action"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(told[1]["operation-type"], "create-table");
    let made = actions(told[1]);
    assert_eq!(made[..3], ["assign-uuid", "upgrade-format-version", "set-location"]);
    assert_eq!(told[1]["updates"][0]["uuid"], *uuid);
    assert_eq!(told[1]["updates"][3]["schema"], table["metadata"]["schemas"][0]);
    assert_eq!((&told[2]["updates"], &told[2]["requirements"]), (&updates, &requirements));
    assert_eq!(told[3]["operation-type"], "create-table");
    assert_eq!(actions(told[3]), ["add-schema"]);
    assert_eq!(told[4]["operation-type"], "create-view");
    assert_eq!(told[4]["updates"][4]["view-version"], view["metadata"]["versions"][0]);
    assert_eq!(told[5]["updates"], set["updates"]);
    assert_eq!(told[5]["requirements"], json!([]));
    assert_eq!(told[7]["operation-type"], "create-view", "as registering has no type of its own");
    assert_eq!(actions(told[7]), actions(told[4]));
    assert_eq!(
        (&told[8]["operation-type"], &told[8]["purge"]),
        (&json!("drop-table"), &json!(false))
    );
    assert_eq!(told[6].get("purge"), None, "views have no files of their own");
}

#[tokio::test]
async fn long_updates_are_told_up_to_a_bound_and_many_in_several_answers() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    let set = async |bytes: usize| {
        let set =
            json!({"updates": [{"action": "set-properties", "updates": {"k": "x".repeat(bytes)}}]});
        server.post(path, set).await.ok();
    };
    set(CHANGES_BYTES_MAX).await;
    for _ in 0..5 {
        set(CHANGES_BYTES_MAX - 10_000).await;
    }
    let mut feed = server.get("/v1/events").await.ok();
    let large = &feed["events"][2]["operation"];
    assert_eq!(large["updates"], json!([]));
    assert!(large["updates-left-out-bytes"].as_u64().unwrap() > CHANGES_BYTES_MAX as u64);
    let mut answers = Vec::new();
    loop {
        let events = feed["events"].as_array().unwrap().len();
        if events == 0 {
            break;
        }
        answers.push(events);
        feed = after(&server, &feed["continuation-token"]).await.ok();
    }
    assert_eq!(answers, [7, 1], "four of a megabyte in the first");
    // They are forgotten by their length as well.
    let remembered = FeedRetention {
        requests_since_ms: 0,
        without_effect: 0,
        events: 100,
        event_bytes: 5 << 19,
    };
    server.catalog.metastore().forget_records(remembered).await.unwrap();
    assert_eq!(server.get("/v1/events").await.ok()["events"].as_array().unwrap().len(), 2);
    let remembered = FeedRetention { event_bytes: 1, ..remembered };
    server.catalog.metastore().forget_records(remembered).await.unwrap();
    let last = server.get("/v1/events").await.ok();
    assert_eq!(last["events"].as_array().unwrap().len(), 1, "the newest stays");
    assert_eq!(after(&server, &last["continuation-token"]).await.ok()["events"], json!([]));
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
    let by_uuid = |uuids: &[&Value]| json!({"catalog-objects-by-uuid": uuids});
    check(by_uuid(&[table]), &[all[1]]).await;
    check(by_uuid(&[view, table]), &[&[all[1]], &all[6..]].concat()).await;
    // The time of an event is one of those since then.
    for (since_ms, expected) in [(1_800_000_000_000_i64, &all[..]), (1_800_000_000_001, &[])] {
        check(json!({"since-timestamp-ms": since_ms}), expected).await;
    }
    let by_type = |types: Value| json!({"object-types": types});
    check(by_type(json!(["namespace"])), &[all[0], all[2], all[3], all[4]]).await;
    check(by_type(json!(["table"])), &[all[1], all[5]]).await;
    check(by_type(json!(["view", "table"])), &[&[all[1], all[5]], &all[6..]].concat()).await;
    let both = json!({"object-types": ["view"], "operation-types": ["create-view", "x-mine"],
        "catalog-objects-by-name": [["ns", "b"], ["nsx"]]});
    check(both, &[all[10]]).await;

    let view_events = server.post("/v1/events", by_type(json!(["view"]))).await.ok();
    let update = &view_events["events"][1]["operation"];
    assert_eq!(update["metadata-location"], changed["metadata-location"]);
    assert_eq!(&update["view-uuid"], view);
}

#[tokio::test]
async fn filters_that_are_not_known_are_refused() {
    let server = Server::start().await;
    let table = uuid::Uuid::nil();
    for wrong in [
        json!({"object-types": ["column"]}),
        json!({"catalog-objects-by-uuid": ["x"]}),
        json!({"catalog-objects-by-id": [{"uuid": table, "type": "table"}]}),
        json!({"after-timestamp-ms": 5}),
        json!({"until-timestamp-ms": 5}),
        json!({"catalog-objects-by-name": "ns"}),
        json!({"custom-filters": {"colour": "blue"}}),
        json!({"page-size": 0}),
    ] {
        server.post("/v1/events", wrong).await.refused(400, "BadRequestException");
    }
}
