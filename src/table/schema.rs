//! Icecore's tables in Iceberg's terms: fields, partition specs, sort orders, properties.
//!
//! The columns themselves are `icecore_schemas::columns`; field ids are theirs and never change.

pub use iceberg::TableIdent;
use iceberg::{
    NamespaceIdent, TableUpdate,
    spec::{
        NestedField, NullOrder, PrimitiveType, Schema, SortDirection, SortField, SortOrder,
        SortOrderRef, TableMetadata, Transform, Type, UnboundPartitionField, UnboundPartitionSpec,
    },
};
use icecore_catalog::{catalog::CreateTable, retention};
use icecore_schemas::{
    columns::{Column, ColumnKind, DEAD_LETTERS, DEAD_LETTERS_TABLE, EVENTS, EVENTS_TABLE},
    names::Namespace,
};
use std::{collections::HashMap, sync::Arc};

/// Columns with long free text: their bounds would cost bytes in every manifest and prune nothing.
pub const UNBOUNDED: &[&str] =
    &["before", "after", "data", "meta", "payload", "error", "url", "detail"];

/// Columns that are looked up by one exact value and have a bloom filter in each file of ours. Other
/// writers are not asked for them: Iceberg's Java library makes each as long as the longest may be,
/// which is 1 MiB whatever the file has, and files of a few thousand events six times as long.
pub const BLOOM_FILTERS: &[&str] = &["id", "key", "bookmark"];

/// The property, before a column's name, that asks writers for them.
const BLOOM_FILTER: &str = "write.parquet.bloom-filter-enabled.column.";

/// The property that marks a table as written by our own log.
pub const MANAGED: &str = retention::MANAGED;

/// Field id of the first partition field; Iceberg counts them from here.
const PARTITION_FIELD_FIRST: i32 = 1000;

/// `events`: the columns of `icecore_schemas::columns::EVENTS`, partitioned by `identity(type)` and
/// `day(ts)` named `dt`, rows of a file sorted by (ts, seq). The table itself asks no writer for an
/// order: DuckDB writes to no table that does.
#[must_use]
pub fn events() -> CreateTable {
    CreateTable {
        name: EVENTS_TABLE.to_owned(),
        schema: schema(EVENTS),
        partition_spec: Some(partition_spec(
            EVENTS,
            &[("type", "type", Transform::Identity), ("ts", "dt", Transform::Day)],
        )),
        sort_order: None,
        file_order: Some(sort_order(EVENTS, &["ts", "seq"])),
        location: None,
        properties: properties(EVENTS),
    }
}

/// `dead_letters`: partitioned by `day(received_at)` named `dt`, sorted by `received_at`.
#[must_use]
pub fn dead_letters() -> CreateTable {
    CreateTable {
        name: DEAD_LETTERS_TABLE.to_owned(),
        schema: schema(DEAD_LETTERS),
        partition_spec: Some(partition_spec(
            DEAD_LETTERS,
            &[("received_at", "dt", Transform::Day)],
        )),
        sort_order: None,
        file_order: Some(sort_order(DEAD_LETTERS, &["received_at"])),
        location: None,
        properties: properties(DEAD_LETTERS),
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
pub fn upgrades(name: &str, table: &TableMetadata) -> Vec<TableUpdate> {
    /// The sort order that was added last.
    const LAST: i64 = -1;
    let new = match name {
        EVENTS_TABLE => events(),
        DEAD_LETTERS_TABLE => dead_letters(),
        _ => return Vec::new(),
    };
    let asked = &table.default_sort_order().fields;
    if new.file_order.is_none_or(|order| order.fields != *asked) {
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

/// Why rows of the log do not go to a table, though it has the name of one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Somebody else made it.
    #[error("it was made by somebody else: it has no property `{MANAGED}`")]
    Unmarked,
    /// A value of this column would have no place.
    #[error("its column `{0}` is gone or has another type")]
    Column(&'static str),
}

/// Whether rows of the log fit the table that has this name.
///
/// # Errors
/// [`NotOurs`] for the table of somebody else, and for one that others have taken a column from.
pub fn check_ours(name: &str, table: &TableMetadata) -> Result<(), NotOurs> {
    let columns = match name {
        EVENTS_TABLE => EVENTS,
        DEAD_LETTERS_TABLE => DEAD_LETTERS,
        _ => return Err(NotOurs::Unmarked),
    };
    if !retention::is_managed(table) {
        return Err(NotOurs::Unmarked);
    }
    // The writer follows the id under another name, and an `int` that became a `long`.
    let fits = |column: &Column| {
        let field = table.current_schema().field_by_id(column.id);
        field.and_then(|field| field.field_type.as_primitive_type()).is_some_and(|kind| {
            *kind == primitive(column.kind)
                || (column.kind == ColumnKind::Int && *kind == PrimitiveType::Long)
        })
    };
    match columns.iter().find(|column| !fits(column)) {
        Some(column) => Err(NotOurs::Column(column.name)),
        None => Ok(()),
    }
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

fn schema(columns: &[Column]) -> Schema {
    let fields = columns.iter().map(|column| {
        let kind = Type::Primitive(primitive(column.kind));
        Arc::new(
            NestedField::new(column.id, column.name, kind, column.required).with_doc(column.doc),
        )
    });
    Schema::builder()
        .with_fields(fields)
        .build()
        .expect("ids and names of the constant columns are unique")
}

fn primitive(kind: ColumnKind) -> PrimitiveType {
    match kind {
        ColumnKind::String => PrimitiveType::String,
        ColumnKind::Long => PrimitiveType::Long,
        ColumnKind::Int => PrimitiveType::Int,
        ColumnKind::Double => PrimitiveType::Double,
        ColumnKind::Boolean => PrimitiveType::Boolean,
        ColumnKind::Timestamptz => PrimitiveType::Timestamptz,
    }
}

fn id_of(columns: &[Column], name: &str) -> i32 {
    columns
        .iter()
        .find(|column| column.name == name)
        .expect("partition and sort columns are constant columns")
        .id
}

/// A spec of (column, field name, transform).
fn partition_spec(columns: &[Column], fields: &[(&str, &str, Transform)]) -> UnboundPartitionSpec {
    let fields = (PARTITION_FIELD_FIRST..).zip(fields).map(|(field_id, (column, name, with))| {
        UnboundPartitionField {
            source_id: id_of(columns, column),
            field_id: Some(field_id),
            name: (*name).to_owned(),
            transform: *with,
        }
    });
    UnboundPartitionSpec::builder()
        .with_spec_id(0)
        .add_partition_fields(fields)
        .expect("names and ids of the constant partition fields are unique")
        .build()
}

fn sort_order(columns: &[Column], by: &[&str]) -> SortOrder {
    let fields = by
        .iter()
        .map(|name| SortField {
            source_id: id_of(columns, name),
            transform: Transform::Identity,
            direction: SortDirection::Ascending,
            null_order: NullOrder::First,
        })
        .collect();
    SortOrder::builder()
        .with_order_id(1)
        .with_fields(fields)
        .build_unbound()
        .expect("an order with an id and fields is sound")
}

fn properties(columns: &[Column]) -> HashMap<String, String> {
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
