//! Tables that this server writes, in the hands of others.

use super::*;
use crate::{
    commit::{COMPACTION, FIRST_SEQ, merge_order::MERGE_ORDER},
    metastore::DropTerms,
    retention::{
        COLLECTION, COLLECTION_TABLE, MANAGED,
        expiry::{GC_ENABLED, MAX_REF_AGE, MAX_SNAPSHOT_AGE, MIN_SNAPSHOTS},
    },
    row_sum::{ROWS_SUM, ROWS_SUM_BASIS},
    snapshot::{obsolete::FORKED, rebase::REBASE_APPENDS},
};

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
    house.catalog.tables().create(&suite::levels("a"), table).await.unwrap()
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
    let cased = json!({"id": 6, "name": "ID", "required": false, "type": "string"});
    let wide = json!({"id": 6, "name": "wide", "required": false, "type": "fixed[1048577]"});
    let cases = [
        (columns(&made, |fields| fields.push(wide.clone())), "1048576 bytes at most"),
        (columns(&made, |fields| fields.push(cased.clone())), "by case only"),
        (columns(&made, |fields| drop(fields.remove(0))), "column `id`"),
        (columns(&made, |fields| fields[0]["name"] = json!("key")), "column `id`"),
        (columns(&made, |fields| fields[3]["type"] = json!("long")), "column `n`"),
        (columns(&made, |fields| fields[3]["required"] = json!(false)), "column `n`"),
        (columns(&made, |fields| fields[4]["required"] = json!(true)), "column `data`"),
        (columns(&made, |fields| drop(fields.remove(4))), "column `data`"),
        (columns(&made, |fields| fields[4]["name"] = json!("payload")), "column `data`"),
        (columns(&made, |fields| fields[4]["type"] = json!("long")), "column `data`"),
        (columns(&made, |fields| fields.push(added.clone())), "`extra` must be optional"),
        (spec(json!([])), "partition spec"),
        (spec(json!([day])), "partition spec"),
        (json!([{"action": "remove-properties", "removals": [MANAGED]}]), MANAGED),
        (json!([{"action": "set-properties", "updates": {MANAGED: "false"}}]), MANAGED),
        (json!([{"action": "set-properties", "updates": {FORKED: "0"}}]), FORKED),
        (json!([{"action": "set-properties", "updates": {COLLECTION: "x"}}]), COLLECTION),
        (json!([{"action": "upgrade-format-version", "format-version": 3}]), "format version 2"),
        (
            json!([{"action": "set-location", "location": format!("{}/x", house.root())}]),
            "its location cannot change",
        ),
    ];
    for (updates, expected) in cases {
        let refused = house.catalog.commit(change("a.events", json!([]), updates.clone())).await;
        let Err(CatalogError::Invalid(message)) = refused else { panic!("{updates}: {refused:?}") };
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("written by this server"), "{message}");
    }
    assert_eq!(house.catalog.tables().load(&ident("a.events")).await.unwrap().version, 1);
}

#[tokio::test]
async fn our_tables_and_their_names_stay() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = managed(&house).await;
    create(catalog, "a.foreign").await;
    let events = ident("a.events");
    let refused = [
        (catalog.tables().drop(&events, false).await.map(drop), "cannot be dropped"),
        (catalog.tables().rename(&events, &ident("a.mine")).await, "cannot be renamed"),
        (catalog.tables().unregister(&events).await.map(|_| ()), "cannot be unregistered"),
        (
            catalog
                .tables()
                .register_over(&a, "events", &made.metadata_location, &suite::anywhere)
                .await
                .map(|_| ()),
            "cannot be replaced",
        ),
    ];
    for (refused, expected) in refused {
        let Err(CatalogError::Invalid(message)) = refused else { panic!("{expected}") };
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(catalog.tables().load(&events).await.unwrap().metadata, made.metadata);
    // One that was dropped before, or by force, comes back as itself and as nothing else.
    let trash = DropTerms { dropped_ms: NOW, until_ms: NOW + UNDROP_MS, purge: false };
    catalog.metastore().trash_table(&a, "events", &trash).await.unwrap();
    let uuid = made.metadata.uuid();
    let elsewhere = catalog.trash().restore(uuid, Some(&ident("a.foreign2"))).await;
    assert!(matches!(elsewhere, Err(CatalogError::Invalid(_))), "{elsewhere:?}");
    catalog.trash().restore(uuid, None).await.unwrap();
    assert_eq!(catalog.tables().load(&events).await.unwrap().metadata, made.metadata);
}

#[tokio::test]
async fn metadata_with_our_mark_is_not_adopted() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = managed(&house).await;
    catalog.metastore().drop_table(&a, "events").await.unwrap();
    for adopted in [
        catalog.tables().register(&a, "mine", &made.metadata_location, &suite::anywhere).await,
        catalog.tables().register_over(&a, "mine", &made.metadata_location, &suite::anywhere).await,
    ] {
        let Err(CatalogError::Invalid(message)) = adopted else { panic!("{adopted:?}") };
        assert!(message.contains(MANAGED), "{message}");
    }
}

#[tokio::test]
async fn main_stays_a_branch() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    house.catalog.commit(sent).await.unwrap();
    let tag = json!([{"action": "set-snapshot-ref", "ref-name": "main", "type": "tag", "snapshot-id": 1}]);
    let refused = house.catalog.commit(change("a.t", json!([]), tag)).await;
    let Err(CatalogError::Invalid(message)) = refused else { panic!("{refused:?}") };
    assert!(message.contains("`main` is a branch"), "{message}");
}

/// Whether a table goes on after a snapshot with `member` set to `value` was refused.
async fn refused_snapshot(member: &str, value: Value) -> String {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let mut updates = add_snapshot(&made, 1, &own_list(&made, 1));
    updates[0]["snapshot"][member] = value.clone();
    let refused = house.catalog.commit(change("a.t", json!([]), updates)).await;
    let Err(CatalogError::Invalid(message)) = refused else {
        panic!("{member} {value}: {refused:?}")
    };
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    house.catalog.commit(sent).await.unwrap();
    message
}

#[tokio::test]
async fn a_snapshot_has_the_next_number_and_a_time_that_is_not_to_come() {
    for number in [2, 3, i64::MAX] {
        let message = refused_snapshot("sequence-number", json!(number)).await;
        assert!(message.contains("sequence number"), "{message}");
    }
    for time in [NOW + 11 * 60_000, i64::MAX] {
        let message = refused_snapshot("timestamp-ms", json!(time)).await;
        assert!(message.contains("in the future"), "{message}");
    }
}

#[tokio::test]
async fn a_stale_number_is_a_lost_race() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    let made = house.catalog.commit(sent).await.unwrap();
    let mut updates = add_snapshot(&made, 2, &own_list(&made, 2));
    updates[0]["snapshot"]["sequence-number"] = json!(1);
    updates[0]["snapshot"]["summary"]["operation"] = json!("overwrite");
    let lost = house.catalog.commit(change("a.t", json!([]), updates)).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
}

#[tokio::test]
async fn columns_rows_and_settings_of_others_are_welcome() {
    let house = house().await;
    let made = managed(&house).await;
    let added = json!({"id": 6, "name": "extra", "required": false, "type": "string"});
    let updates = columns(&made, |fields| fields.push(added.clone()));
    let made = house.catalog.commit(change("a.events", json!([]), updates)).await.unwrap();
    assert!(made.metadata.current_schema().field_by_name("extra").is_some());
    let mut renamed = columns(&made, |fields| fields[5]["name"] = json!("more"));
    renamed[0]["schema"]["schema-id"] = json!(2);
    house.catalog.commit(change("a.events", json!([]), renamed)).await.unwrap();
    let back = json!([{"action": "set-current-schema", "schema-id": 0}]);
    let made = house.catalog.commit(change("a.events", json!([]), back)).await.unwrap();
    house.catalog.commit(set("a.events", "write.target-file-size-bytes", "1048576")).await.unwrap();
    let sent = change("a.events", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    house.catalog.commit(sent).await.unwrap();
}

/// What a client says of its rows is not taken for what this server knows of its own.
#[tokio::test]
async fn sums_and_numbers_of_rows_are_told_by_this_server_alone() {
    let house = house().await;
    let made = managed(&house).await;
    let theirs = create(&house.catalog, "a.t").await;
    for key in [FIRST_SEQ, COMPACTION, ROWS_SUM, ROWS_SUM_BASIS] {
        let mut updates = add_snapshot(&made, 1, &own_list(&made, 1));
        updates[0]["snapshot"]["summary"][key] = json!("1");
        let refused = house.catalog.commit(change("a.events", on_main(None), updates)).await;
        let Err(CatalogError::Invalid(message)) = refused else { panic!("{key}: {refused:?}") };
        assert!(message.contains(key), "{message}");
    }
    let mut updates = add_snapshot(&theirs, 1, &own_list(&theirs, 1));
    updates[0]["snapshot"]["summary"][ROWS_SUM] = json!("1");
    house.catalog.commit(change("a.t", on_main(None), updates)).await.unwrap();
}

#[tokio::test]
async fn only_this_server_marks_its_tables() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    for mark in [MANAGED, COLLECTION] {
        let refused = house.catalog.commit(set("a.t", mark, "true")).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{mark}");
    }
}

#[tokio::test]
async fn row_numbers_that_pass_the_highest_are_refused() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let upgrade = json!([{"action": "upgrade-format-version", "format-version": 3}]);
    let made = house.catalog.commit(change("a.t", json!([]), upgrade)).await.unwrap();
    for (first, rows, taken) in [(10, i64::MAX, false), (i64::MAX, 1, false), (0, 5, true)] {
        let mut updates = add_snapshot(&made, 1, &own_list(&made, 1));
        updates[0]["snapshot"]["first-row-id"] = json!(first);
        updates[0]["snapshot"]["added-rows"] = json!(rows);
        let answer = house.catalog.commit(change("a.t", json!([]), updates)).await;
        match (taken, answer) {
            (true, Ok(table)) => assert_eq!(table.metadata.next_row_id(), 5),
            (false, Err(CatalogError::Invalid(text))) => {
                assert!(text.contains("highest"), "{text}")
            }
            (_, answer) => panic!("{first} {rows}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_starts_a_table_anew_may_have_a_used_number() {
    let house = house().await;
    let mut made = create(&house.catalog, "a.t").await;
    for id in [1, 2] {
        let sent = change("a.t", json!([]), add_snapshot(&made, id, &own_list(&made, id)));
        made = house.catalog.commit(sent).await.unwrap();
    }
    let mut updates = add_snapshot(&made, 3, &own_list(&made, 3));
    updates[0]["snapshot"]["sequence-number"] = json!(2);
    updates[0]["snapshot"]["parent-snapshot-id"] = Value::Null;
    updates[0]["snapshot"]["summary"]["operation"] = json!("overwrite");
    let made = house.catalog.commit(change("a.t", json!([]), updates.clone())).await.unwrap();
    assert_eq!(made.metadata.current_snapshot_id(), Some(3));
    updates[0]["snapshot"]["snapshot-id"] = json!(4);
    updates[0]["snapshot"]["sequence-number"] = json!(0);
    let lost = house.catalog.commit(change("a.t", json!([]), updates)).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
}

#[tokio::test]
async fn a_column_that_the_service_finds_by_name_stays_once_it_is_there() {
    use crate::catalog::{OwnColumn, OwnTable, managed_table_rules};
    use iceberg::spec::PrimitiveType::{Long, String};
    let house = house().await;
    let made = managed(&house).await;
    let column = |id, name, types| OwnColumn { id, name, types };
    let own = [OwnTable {
        name: "events",
        columns: vec![
            column(Some(1), "id", vec![String]),
            column(None, "later", vec![String]),
            column(None, "misfit", vec![Long]),
            column(None, "missing", vec![String]),
        ],
    }];
    let with = |base: &TableMetadata, fields: &dyn Fn(&mut Vec<Value>)| {
        let mut schema = serde_json::to_value(base.current_schema()).unwrap();
        fields(schema["fields"].as_array_mut().unwrap());
        let schema = serde_json::from_value(schema).unwrap();
        let builder = base.clone().into_builder(None).add_current_schema(schema).unwrap();
        builder.build().unwrap().metadata
    };
    let check = |base: &TableMetadata, new: &TableMetadata| {
        managed_table_rules::check(&ident("a.events"), &own, Some(base), new)
            .map_err(|refused| refused.to_string())
    };
    let text =
        |id: i32, name: &str| json!({"id": id, "name": name, "required": false, "type": "string"});
    let more = with(&made.metadata, &|fields| {
        fields.extend([text(6, "later"), text(7, "misfit"), text(8, "theirs")]);
    });
    assert_eq!(check(&made.metadata, &more), Ok(()));
    let without = |name: &'static str| {
        move |fields: &mut Vec<Value>| fields.retain(|field| field["name"] != name)
    };
    for (name, is_ours) in [("id", true), ("later", true), ("misfit", false), ("theirs", false)] {
        let lost = check(&more, &with(&more, &without(name)));
        assert_eq!(lost.is_err(), is_ours, "{name}: {lost:?}");
        let renamed = |fields: &mut Vec<Value>| {
            let field = fields.iter_mut().find(|field| field["name"] == name);
            field.unwrap()["name"] = json!("else");
        };
        assert_eq!(check(&more, &with(&more, &renamed)).is_err(), is_ours, "{name}");
    }
    // Of a table that nobody said anything of, what it was made with stays.
    let refused = managed_table_rules::check(
        &ident("a.events"),
        &[],
        Some(&more),
        &with(&more, &without("data")),
    );
    assert!(refused.is_err());
    let kept = managed_table_rules::check(
        &ident("a.events"),
        &[],
        Some(&more),
        &with(&more, &without("later")),
    );
    assert!(kept.is_ok());
}

#[tokio::test]
async fn of_a_table_whose_rows_are_computed_others_set_tags_and_properties_of_their_own() {
    let house = house().await;
    let properties = [(MANAGED, "true"), (COLLECTION, "orders"), (COLLECTION_TABLE, "cdc_orders")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let table = CreateTable { properties: properties.into(), ..new_table("cdc_orders") };
    let made = house.catalog.tables().create(&suite::levels("a"), table).await.unwrap();
    let column = json!({"id": 99, "name": "more", "required": false, "type": "string"});
    for updates in [
        add_snapshot(&made, 1, &own_list(&made, 1)),
        columns(&made, |fields| fields.push(column.clone())),
        json!([{"action": "set-properties", "updates": {COLLECTION: "others"}}]),
        json!([{"action": "remove-properties", "removals": [COLLECTION_TABLE]}]),
    ] {
        let refused = house.catalog.commit(change("a.cdc_orders", json!([]), updates)).await;
        let Err(CatalogError::Invalid(message)) = refused else { panic!("{refused:?}") };
        assert!(message.contains("collection `orders`"), "{message}");
    }
    let own = house.catalog.commit(set("a.cdc_orders", "team", "b")).await.unwrap();
    assert_eq!(own.metadata.properties()["team"], "b");
}

#[tokio::test]
async fn the_service_widens_columns_of_a_table_whose_rows_are_computed() {
    use crate::catalog::managed_table_rules;
    let house = house().await;
    let made = managed(&house).await;
    let mut schema = serde_json::to_value(made.metadata.current_schema()).unwrap();
    schema["fields"][3]["type"] = json!("long");
    let schema: iceberg::spec::Schema = serde_json::from_value(schema).unwrap();
    let is_allowed = |base: &TableMetadata| {
        let builder = base.clone().into_builder(None).add_current_schema(schema.clone()).unwrap();
        let new = builder.build().unwrap().metadata;
        managed_table_rules::check(&ident("a.t"), &[], Some(base), &new).is_ok()
    };
    assert!(!is_allowed(&made.metadata));
    let property = HashMap::from([(COLLECTION.to_owned(), "orders".to_owned())]);
    let builder = made.metadata.as_ref().clone().into_builder(None);
    let computed = builder.set_properties(property).unwrap().build().unwrap().metadata;
    assert!(is_allowed(&computed));
}

#[tokio::test]
async fn a_commit_sets_no_property_that_the_service_could_not_go_by() {
    let house = house().await;
    managed(&house).await;
    create(&house.catalog, "a.own").await;
    for (key, value, why) in [
        (MERGE_ORDER, "nope", "name one column or two columns of the table"),
        (MERGE_ORDER, "ID", "spelled as there"),
        (MERGE_ORDER, "id,", "with a comma between them"),
        (MERGE_ORDER, "id,type,n", "one column or two"),
        (MIN_SNAPSHOTS, "0", "write a whole number from 1 on"),
        (MAX_SNAPSHOT_AGE, "5d", "write a whole number from 1 on"),
        (MAX_REF_AGE, "", "write a whole number from 1 on"),
        (GC_ENABLED, "no", "write `true` or `false`"),
        (REBASE_APPENDS, "no", "write `true` or `false`"),
    ] {
        for dotted in ["a.events", "a.own"] {
            let answer = house.catalog.commit(set(dotted, key, value)).await;
            // Of tables of others this one is not read.
            let is_read = dotted == "a.events" || key != MERGE_ORDER;
            match answer {
                Err(CatalogError::Invalid(text)) if is_read => {
                    let told = format!("{dotted}: its property `{key}`");
                    assert!(text.starts_with(&told) && text.contains(why), "{text}");
                }
                Ok(_) if !is_read => (),
                answer => panic!("{dotted} {key} `{value}`: {answer:?}"),
            }
        }
        let named = CreateTable {
            properties: [(key.to_owned(), value.to_owned())].into(),
            ..new_table("made")
        };
        let made = house.catalog.tables().stage_first(&suite::levels("a"), named).await;
        assert_eq!(made.is_err(), key != MERGE_ORDER, "{key}");
    }
    for (key, value) in
        [(MERGE_ORDER, "id, n"), (MERGE_ORDER, ""), (MIN_SNAPSHOTS, "5"), (GC_ENABLED, "TRUE")]
    {
        house.catalog.commit(set("a.events", key, value)).await.unwrap();
    }
}

#[test]
fn a_policy_has_numbers_from_one_on() {
    use crate::catalog::property_rules;
    use iceberg::spec::{SnapshotReference, SnapshotRetention};
    let is_taken = |retention: SnapshotRetention| {
        let reference = SnapshotReference { snapshot_id: 1, retention };
        let update = TableUpdate::SetSnapshotRef { ref_name: "work".to_owned(), reference };
        property_rules::check_policies(&ident("a.t"), None, &[update]).is_ok()
    };
    let branch = |min_snapshots_to_keep, max_snapshot_age_ms, max_ref_age_ms| {
        SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, max_ref_age_ms }
    };
    assert!(is_taken(branch(None, None, None)) && is_taken(branch(Some(1), Some(1), Some(1))));
    assert!(!is_taken(branch(Some(0), None, None)) && !is_taken(branch(None, Some(0), None)));
    assert!(!is_taken(branch(None, None, Some(-1))));
    assert!(!is_taken(SnapshotRetention::Tag { max_ref_age_ms: Some(0) }));
    assert!(is_taken(SnapshotRetention::Tag { max_ref_age_ms: Some(1) }));
}

#[tokio::test]
async fn a_property_that_is_wrong_already_refuses_no_other_change() {
    use crate::catalog::property_rules;
    let house = house().await;
    let made = managed(&house).await;
    let with = |base: &TableMetadata, key: &str, value: &str| {
        let property = HashMap::from([(key.to_owned(), value.to_owned())]);
        let builder = base.clone().into_builder(None).set_properties(property).unwrap();
        builder.build().unwrap().metadata
    };
    let check = |base: &TableMetadata, new: &TableMetadata| {
        property_rules::check(&ident("a.events"), None, Some(base), new).is_ok()
    };
    let wrong = with(&made.metadata, MIN_SNAPSHOTS, "0");
    assert!(!check(&made.metadata, &wrong));
    assert!(check(&wrong, &with(&wrong, "owner", "ann")));
    assert!(check(&wrong, &with(&wrong, MIN_SNAPSHOTS, "1")));
    assert!(!check(&wrong, &with(&wrong, MIN_SNAPSHOTS, "-1")));
}

#[tokio::test]
async fn a_policy_that_is_wrong_already_refuses_no_other_change() {
    use crate::catalog::property_rules;
    use iceberg::spec::{SnapshotReference, SnapshotRetention};
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let new = NewSnapshot::default();
    let made = house.catalog.add_snapshot(&ident("a.t"), new).await.unwrap();
    let snapshot_id = made.metadata.current_snapshot_id().unwrap();
    let with = |least| SnapshotReference {
        snapshot_id,
        retention: SnapshotRetention::branch(Some(least), None, None),
    };
    let builder = made.metadata.as_ref().clone().into_builder(None);
    let base = builder.set_ref("work", with(0)).unwrap().build().unwrap().metadata;
    let is_taken = |name: &str, least| {
        let set = TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference: with(least) };
        property_rules::check_policies(&ident("a.t"), Some(&base), &[set]).is_ok()
    };
    // A client that moves the branch sends the policy that it read.
    assert!(is_taken("work", 0) && is_taken("work", 1));
    assert!(!is_taken("work", -1) && !is_taken("other", 0));
}
