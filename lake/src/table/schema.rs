//! Icecore's tables in Iceberg's terms: fields, partition specs, sort orders, properties.
//!
//! What is particular about each is its `icecore_schemas::service_table::ServiceTable`. How tables that
//! are there stand to it is [`crate::table::evolve`]'s.

pub use iceberg::TableIdent;
use iceberg::{
    NamespaceIdent, TableUpdate,
    spec::{
        NestedField, NestedFieldRef, NullOrder, PrimitiveType, Schema, SortDirection, SortField,
        SortOrder, SortOrderRef, TableMetadata, Transform, Type, UnboundPartitionField,
        UnboundPartitionSpec,
    },
};
use icecore_catalog::{catalog::CreateTable, retention};
use icecore_schemas::{
    columns::{Column, ColumnKind},
    names::Namespace,
    service_table::{PartitionBy, ServiceTable},
};
use std::{collections::HashMap, sync::Arc};

/// Columns with long free text: their bounds would cost bytes in every manifest and prune nothing.
pub const UNBOUNDED: &[&str] =
    &["before", "after", "data", "meta", "payload", "error", "url", "detail", "doc", "patch"];

/// Columns that are looked up by one exact value and have a bloom filter in each file of ours. Other
/// writers are not asked for them: Iceberg's Java library makes each as long as the longest may be,
/// which is 1 MiB whatever the file has, and files of a few thousand events six times as long.
pub const BLOOM_FILTERS: &[&str] = &["id", "key", "bookmark"];

/// The property, before a column's name, that asks writers for them.
pub(super) const BLOOM_FILTER: &str = "write.parquet.bloom-filter-enabled.column.";

/// The property that marks a table as written by our own log.
pub const MANAGED: &str = retention::MANAGED;

/// Field id of the first partition field; Iceberg counts them from here.
const PARTITION_FIELD_FIRST: i32 = 1000;

/// A new table of ours. It asks no writer for an order of rows, only our own files have
/// one: DuckDB writes to no table that does.
#[must_use]
pub fn create(ours: &ServiceTable) -> CreateTable {
    CreateTable {
        partition_spec: Some(partition_spec(ours)),
        file_order: Some(sort_order(ours)),
        properties: properties(ours.columns),
        ..CreateTable::plain(ours.name, schema(ours.columns))
    }
}

/// How the rows of our files are sorted: by the table's default order or, where it has none, by the
/// oldest of its orders, which is the one that it was made with.
#[must_use]
pub fn file_order(table: &TableMetadata) -> &SortOrderRef {
    let default = table.default_sort_order();
    let orders = table.sort_orders_iter().filter(|order| !order.is_unsorted());
    let oldest = || orders.min_by_key(|order| order.order_id);
    if default.is_unsorted() { oldest().unwrap_or(default) } else { default }
}

/// What is to change in one of our tables that version 0.1 made, for it to be as it would be made
/// now: it asked every writer for its sort order, and for bloom filters. What others have changed
/// stays.
#[must_use]
pub fn upgrades(ours: &ServiceTable, table: &TableMetadata) -> Vec<TableUpdate> {
    /// The sort order that was added last.
    const LAST: i64 = -1;
    if sort_order(ours).fields != table.default_sort_order().fields {
        return Vec::new();
    }
    let asks_for_filters = |key: &String| table.properties().contains_key(key);
    let filters = BLOOM_FILTERS.iter().map(|column| format!("{BLOOM_FILTER}{column}"));
    vec![
        TableUpdate::AddSortOrder { sort_order: SortOrder::unsorted_order() },
        TableUpdate::SetDefaultSortOrder { sort_order_id: LAST },
        TableUpdate::RemoveProperties { removals: filters.filter(asks_for_filters).collect() },
    ]
}

/// The catalog's name for a table of a namespace.
#[must_use]
pub fn ident(namespace: &Namespace, kind_name: &str) -> TableIdent {
    TableIdent::new(NamespaceIdent::new(namespace.name().to_owned()), kind_name.to_owned())
}

/// The catalog's name for a table of any namespace; none when there is no level.
#[must_use]
pub fn foreign_ident(levels: &[String], name: &str) -> Option<TableIdent> {
    let namespace = NamespaceIdent::from_vec(levels.to_vec()).ok()?;
    Some(TableIdent::new(namespace, name.to_owned()))
}

/// The schema of a new table: later columns get the ids after those of version 0.1.0.
pub(super) fn schema(columns: &[Column]) -> Schema {
    let fields =
        (1..).zip(columns).map(|(place, column)| field(column, column.id.unwrap_or(place)));
    Schema::builder()
        .with_fields(fields)
        .build()
        .expect("ids and names of the constant columns are unique")
}

/// A column as a table has it that gives it this id.
pub(super) fn field(column: &Column, id: i32) -> NestedFieldRef {
    let kind = Type::Primitive(primitive(column.kind));
    Arc::new(NestedField::new(id, column.name, kind, column.required).with_doc(column.doc))
}

/// A column's type in Iceberg's terms.
pub(super) fn primitive(kind: ColumnKind) -> PrimitiveType {
    match kind {
        ColumnKind::String => PrimitiveType::String,
        ColumnKind::Long => PrimitiveType::Long,
        ColumnKind::Int => PrimitiveType::Int,
        ColumnKind::Double => PrimitiveType::Double,
        ColumnKind::Boolean => PrimitiveType::Boolean,
        ColumnKind::Timestamptz => PrimitiveType::Timestamptz,
    }
}

fn id_of(ours: &ServiceTable, name: &str) -> i32 {
    let column = ours.column(name).and_then(|column| column.id);
    column.expect("partition and sort columns are columns of version 0.1.0")
}

fn partition_spec(ours: &ServiceTable) -> UnboundPartitionSpec {
    let fields = (PARTITION_FIELD_FIRST..).zip(ours.partition);
    let fields = fields.map(|(field_id, field)| UnboundPartitionField {
        source_id: id_of(ours, field.column),
        field_id: Some(field_id),
        name: field.name.to_owned(),
        transform: match field.by {
            PartitionBy::Identity => Transform::Identity,
            PartitionBy::Day => Transform::Day,
        },
    });
    UnboundPartitionSpec::builder()
        .with_spec_id(0)
        .add_partition_fields(fields)
        .expect("names and ids of the constant partition fields are unique")
        .build()
}

fn sort_order(ours: &ServiceTable) -> SortOrder {
    let fields = ours.sort.iter().map(|name| SortField {
        source_id: id_of(ours, name),
        transform: Transform::Identity,
        direction: SortDirection::Ascending,
        null_order: NullOrder::First,
    });
    SortOrder::builder()
        .with_order_id(1)
        .with_fields(fields.collect::<Vec<_>>())
        .build_unbound()
        .expect("an order with an id and fields is sound")
}

pub(super) fn properties(columns: &[Column]) -> HashMap<String, String> {
    let mut properties: HashMap<String, String> = [
        (MANAGED, "true"),
        ("write.format.default", "parquet"),
        ("write.parquet.compression-codec", "zstd"),
        ("write.metadata.previous-versions-max", "20"),
        ("write.metadata.delete-after-commit.enabled", "true"),
        ("write.metadata.metrics.default", "truncate(16)"),
        ("commit.manifest-merge.enabled", "true"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    for column in columns.iter().filter(|column| UNBOUNDED.contains(&column.name)) {
        properties
            .insert(format!("write.metadata.metrics.column.{}", column.name), "counts".to_owned());
    }
    properties
}
