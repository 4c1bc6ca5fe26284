//! Partition fields that were dropped from tables of the first version of the format.

use super::*;

/// A table of version 1 that is partitioned by its column `c`.
async fn partitioned(house: &House) -> LoadedTable {
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "c", "required": false, "type": "string"},
        {"id": 2, "name": "n", "required": false, "type": "long"}]});
    let spec = json!({"spec-id": 0, "fields": [
        {"source-id": 1, "field-id": 1000, "name": "c", "transform": "identity"}]});
    let table = CreateTable {
        schema: serde_json::from_value(schema).unwrap(),
        partition_spec: Some(serde_json::from_value(spec).unwrap()),
        properties: HashMap::from([("format-version".to_owned(), "1".to_owned())]),
        ..new_table("t")
    };
    house.catalog.namespaces().ensure(&suite::levels("a"), &Properties::new()).await.unwrap();
    house.catalog.tables().create(&suite::levels("a"), table).await.unwrap()
}

fn spec(fields: &[(i32, i32, &str, &str)]) -> TableChange {
    let field = |(source, id, name, transform): &(i32, i32, &str, &str)| json!({"source-id": source, "field-id": id, "name": name, "transform": transform});
    let fields: Vec<Value> = fields.iter().map(field).collect();
    let spec = json!({"spec-id": 1, "fields": fields});
    let updates = json!([{"action": "add-spec", "spec": spec}, {"action": "set-default-spec", "spec-id": -1}]);
    change("a.t", json!([]), updates)
}

/// Its default spec, field by field.
fn default_spec(table: &LoadedTable) -> Vec<(i32, String, String)> {
    let fields = table.metadata.default_partition_spec().fields().iter();
    fields.map(|field| (field.field_id, field.name.clone(), field.transform.to_string())).collect()
}

#[tokio::test]
async fn a_dropped_partition_field_of_version_1_keeps_its_place_and_its_name() {
    let house = house().await;
    let catalog = &house.catalog;
    partitioned(&house).await;
    let dropped = catalog.commit(spec(&[(1, 1000, "c", "void")])).await.unwrap();
    let void = (1000, "c".to_owned(), "void".to_owned());
    assert_eq!(default_spec(&dropped), std::slice::from_ref(&void));
    assert_eq!(dropped.metadata.partition_specs_iter().count(), 2);
    // Whatever is committed afterwards leaves it as it is, and further fields come after it.
    let changed = catalog.commit(set("a.t", "k", "v")).await.unwrap();
    assert_eq!(default_spec(&changed), std::slice::from_ref(&void));
    let later = [(1, 1000, "c", "void"), (2, 1001, "n_bucket", "bucket[4]")];
    let more = catalog.commit(spec(&later)).await.unwrap();
    assert_eq!(default_spec(&more), [void, (1001, "n_bucket".to_owned(), "bucket[4]".to_owned())]);
    let seen = house.other.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(seen.metadata, more.metadata);
    // A spec that is there is not added again.
    let again = catalog.commit(spec(&later)).await.unwrap();
    assert_eq!(again.metadata.partition_specs_iter().count(), 3);
}

#[tokio::test]
async fn a_table_with_a_dropped_partition_field_is_registered_and_committed_to() {
    let house = house().await;
    let catalog = &house.catalog;
    partitioned(&house).await;
    let dropped = catalog.commit(spec(&[(1, 1000, "c", "void")])).await.unwrap();
    let left = catalog.tables().unregister(&ident("a.t")).await.unwrap();
    let place = &left.metadata_location;
    let back =
        catalog.tables().register(&suite::levels("a"), "t", place, &suite::anywhere).await.unwrap();
    assert_eq!(back.metadata, dropped.metadata);
    let changed = catalog.commit(set("a.t", "k", "v")).await.unwrap();
    assert_eq!(default_spec(&changed), default_spec(&dropped));
}

#[tokio::test]
async fn a_void_field_does_not_take_the_name_of_another_column_or_field() {
    let house = house().await;
    partitioned(&house).await;
    for (fields, expected) in [
        (&[(1, 1000, "n", "void")][..], "conflicts with schema field"),
        (&[(1, 1000, "c", "void"), (1, 1001, "c", "bucket[4]")][..], "more than once"),
    ] {
        let refused = house.catalog.commit(spec(fields)).await;
        let Err(CatalogError::Invalid(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains(expected), "{text}");
    }
}
