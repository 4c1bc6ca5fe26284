use super::*;
use crate::table::schema::{create, ident};
use iceberg::spec::{NestedField, TableMetadataBuilder, Type};
use icecore_samples as sample;
use icecore_schemas::{columns::EVENTS, names::Namespace, service_table::SERVICE_TABLES};

/// What `events` is once there are two columns more.
fn with_two_more() -> ServiceTable {
    *ServiceTables::with_trial(2).unwrap().events()
}

fn of_this_release() -> TableMetadata {
    sample::metadata(create(&SERVICE_TABLES[0]), "file:///t")
}

/// The table after others added these columns: name, type, whether rows must have it.
fn with_foreign(table: TableMetadata, columns: &[(&str, PrimitiveType, bool)]) -> TableMetadata {
    let next_id = table.last_column_id() + 1;
    let fields = (next_id..).zip(columns).map(|(id, (name, kind, required))| {
        Arc::new(NestedField::new(id, *name, Type::Primitive(kind.clone()), *required))
    });
    let schema = table.current_schema().as_ref().clone().into_builder().with_fields(fields);
    changed(table, vec![TableUpdate::AddSchema { schema: schema.build().unwrap() }])
}

fn changed(table: TableMetadata, mut updates: Vec<TableUpdate>) -> TableMetadata {
    updates.push(TableUpdate::SetCurrentSchema { schema_id: -1 });
    let mut builder: TableMetadataBuilder = table.into_builder(None);
    for update in updates {
        builder = update.apply(builder).unwrap();
    }
    builder.build().unwrap().metadata
}

fn names(columns: &[&Column]) -> Vec<&'static str> {
    columns.iter().map(|column| column.name).collect()
}

#[test]
fn a_table_of_an_earlier_version_lacks_the_later_columns_and_gets_them_with_its_own_ids() {
    let ours = with_two_more();
    let old = with_foreign(of_this_release(), &[("note", PrimitiveType::String, false)]);
    assert!(SchemaFit::of(&SERVICE_TABLES[0], &old).unwrap().missing.is_empty());
    let fit = SchemaFit::of(&ours, &old).unwrap();
    assert_eq!(names(&fit.missing), ["deployment_environment", "attempt_number"]);
    assert!(fit.left_out.is_empty());
    let seen = fit.extended(&old).unwrap();
    assert_eq!(seen.field_by_name("deployment_environment").unwrap().id, 57, "not yet given");

    // Only the second one has a value at first.
    let ident = ident(&Namespace::parse("a").unwrap(), "events");
    let change = add_columns(&ident, &old, &fit.missing[1..]).unwrap();
    let new = changed(old, change.updates[..1].to_vec());
    let id = |name: &str| new.current_schema().field_by_name(name).map(|field| field.id);
    assert_eq!((id("note"), id("attempt_number")), (Some(56), Some(57)));
    let fit = SchemaFit::of(&ours, &new).unwrap();
    assert_eq!(names(&fit.missing), ["deployment_environment"]);
    assert_eq!(fit.extended(&new).unwrap().highest_field_id(), 58);
    // The version before reads the table as it did.
    assert!(SchemaFit::of(&SERVICE_TABLES[0], &new).unwrap().missing.is_empty());
}

#[test]
fn a_new_table_has_every_column() {
    let ours = with_two_more();
    let new = sample::metadata(create(&ours), "file:///t");
    let fit = SchemaFit::of(&ours, &new).unwrap();
    assert!(fit.missing.is_empty() && fit.left_out.is_empty());
    assert_eq!(new.last_column_id() as usize, EVENTS.len() + 2);
    assert_eq!(fit.extended(&new).unwrap().as_ref(), new.current_schema().as_ref());
}

#[test]
fn anothers_column_of_the_name_is_ours_if_it_holds_our_values_and_leaves_ours_out_if_not() {
    use PrimitiveType::{Int, Long, String, Timestamp};
    let ours = with_two_more();
    for (column, is_ours) in [
        (("attempt_number", Long, false), true),
        // It would not hold every number.
        (("attempt_number", Int, false), false),
        (("attempt_number", String, false), false),
        (("attempt_number", Timestamp, false), false),
        // Rows of ours may have no value.
        (("attempt_number", Long, true), false),
        // DuckDB and Spark would take them for one.
        (("Attempt_Number", Long, false), false),
    ] {
        let name = column.0;
        let table = with_foreign(of_this_release(), &[column]);
        let fit = SchemaFit::of(&ours, &table).unwrap();
        assert_eq!(names(&fit.missing), ["deployment_environment"]);
        let left_out: &[&str] = if is_ours { &[] } else { &["attempt_number"] };
        assert_eq!(names(&fit.left_out), left_out, "{name}");
        assert!(fit.extended(&table).is_ok());
    }
}

#[test]
fn a_table_that_lost_a_column_of_the_first_version_takes_no_rows() {
    let table = of_this_release();
    let fields = table.current_schema().as_struct().fields().iter();
    let fields: Vec<_> = fields.filter(|field| field.name != "data").cloned().collect();
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let table = changed(table, vec![TableUpdate::AddSchema { schema }]);
    assert_eq!(SchemaFit::of(&with_two_more(), &table).unwrap_err(), TableMismatch::Column("data"));
}
