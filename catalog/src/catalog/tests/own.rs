//! Tables that this server writes, in the hands of others.

use super::*;
use crate::retention::MANAGED;

async fn managed(house: &House) -> LoadedTable {
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "id", "required": true, "type": "string"},
        {"id": 2, "name": "type", "required": true, "type": "string"},
        {"id": 3, "name": "ts", "required": true, "type": "timestamptz"},
        {"id": 4, "name": "n", "required": true, "type": "int"},
        {"id": 5, "name": "data", "required": false, "type": "string"}]});
    let spec = json!({"spec-id": 0, "fields": [
        {"source-id": 2, "field-id": 1000, "name": "type", "transform": "identity"},
        {"source-id": 3, "field-id": 1001, "name": "dt", "transform": "day"}]});
    let table = CreateTable {
        schema: serde_json::from_value(schema).unwrap(),
        partition_spec: Some(serde_json::from_value(spec).unwrap()),
        properties: HashMap::from([(MANAGED.to_owned(), "true".to_owned())]),
        ..new_table("events")
    };
    house.catalog.create_table(&suite::levels("a"), table).await.unwrap()
}

/// The updates that make `fields` the table's columns.
fn columns(made: &LoadedTable, change: impl Fn(&mut Vec<Value>)) -> Value {
    let mut schema = serde_json::to_value(made.metadata.current_schema()).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    schema["schema-id"] = json!(1);
    json!([{"action": "add-schema", "schema": schema}, {"action": "set-current-schema", "schema-id": -1}])
}

#[tokio::test]
async fn what_would_keep_our_rows_from_fitting_is_refused() {
    let house = house().await;
    let made = managed(&house).await;
    let spec = |fields: Value| json!([{"action": "add-spec", "spec": {"fields": fields}}, {"action": "set-default-spec", "spec-id": -1}]);
    let day = json!({"source-id": 3, "field-id": 1001, "name": "dt", "transform": "day"});
    let added = json!({"id": 6, "name": "extra", "required": true, "type": "string"});
    let cases = [
        (columns(&made, |fields| drop(fields.remove(0))), "column `id`"),
        (columns(&made, |fields| fields[0]["name"] = json!("key")), "column `id`"),
        (columns(&made, |fields| fields[3]["type"] = json!("long")), "column `n`"),
        (columns(&made, |fields| fields[3]["required"] = json!(false)), "column `n`"),
        (columns(&made, |fields| fields[4]["required"] = json!(true)), "`data` has to be optional"),
        (columns(&made, |fields| fields.push(added.clone())), "`extra` has to be optional"),
        (spec(json!([])), "partition spec"),
        (spec(json!([day])), "partition spec"),
        (json!([{"action": "remove-properties", "removals": [MANAGED]}]), MANAGED),
        (json!([{"action": "set-properties", "updates": {MANAGED: "false"}}]), MANAGED),
        (json!([{"action": "upgrade-format-version", "format-version": 3}]), "format version 2"),
        (
            json!([{"action": "set-location", "location": format!("{}/x", house.root())}]),
            "stays where it is",
        ),
    ];
    for (updates, expected) in cases {
        let refused = house.catalog.commit(change("a.events", json!([]), updates.clone())).await;
        let Err(CatalogError::Invalid(message)) = refused else { panic!("{updates}: {refused:?}") };
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("written by this server"), "{message}");
    }
    for what in ["dropped", "renamed"] {
        let refused = house.catalog.check_stays(&ident("a.events"), what).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("cannot be {what}")), "{refused}");
    }
    create(&house.catalog, "a.foreign").await;
    house.catalog.check_stays(&ident("a.foreign"), "dropped").await.unwrap();
    assert_eq!(house.catalog.load_table(&ident("a.events")).await.unwrap().version, 1);
}

#[tokio::test]
async fn columns_rows_and_settings_of_others_are_welcome() {
    let house = house().await;
    let made = managed(&house).await;
    let added = json!({"id": 6, "name": "extra", "required": false, "type": "string"});
    let updates = columns(&made, |fields| {
        fields.push(added.clone());
        fields[4]["name"] = json!("payload");
    });
    let made = house.catalog.commit(change("a.events", json!([]), updates)).await.unwrap();
    assert!(made.metadata.current_schema().field_by_name("extra").is_some());
    house.catalog.commit(set("a.events", "write.target-file-size-bytes", "1048576")).await.unwrap();
    let sent = change("a.events", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    house.catalog.commit(sent).await.unwrap();
}

#[tokio::test]
async fn only_this_server_marks_its_tables() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let refused = house.catalog.commit(set("a.t", MANAGED, "true")).await;
    assert!(matches!(refused, Err(CatalogError::Invalid(_))));
}
