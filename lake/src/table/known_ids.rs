//! Which events a table holds: id, `seq`, time of arrival and what makes a CloudEvent of one.
//!
//! Rows that another engine deleted are read as well: they were taken once.

use crate::table::reader::{self, DeleteHandling, ReadError, ReadRequest};
use arrow::{
    array::{AsArray, Int64Array, StringArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use iceberg::spec::{Datum, Literal, PrimitiveLiteral, TableMetadata, Transform};
use icecore_catalog::scan::{
    ManifestSource,
    filter::{Comparison, Filter, FilterTest, Term, ValueCheck},
    manifests::PlannedFile,
};
use icecore_schemas::service_table::ServiceTable;
use std::{collections::BTreeSet, pin::pin};

/// The columns that are read, in this order.
const COLUMNS: [&str; 5] = ["id", "seq", "ingested_at", "source", "payload"];

/// Rows of a data file, by column.
#[derive(Debug)]
pub struct IdRows {
    /// Ids.
    pub ids: StringArray,
    /// Their `seq`s.
    pub seqs: Int64Array,
    /// When they arrived, µs since 1970.
    pub ingested_us: Int64Array,
    /// Their sources.
    pub sources: StringArray,
    /// The events that are stored whole.
    pub payloads: StringArray,
}

/// Every type that has rows in the current snapshot, as the partitions of its files tell.
///
/// # Errors
/// [`ReadError`]
pub async fn types(source: ManifestSource<'_>) -> Result<BTreeSet<String>, ReadError> {
    let mut types = BTreeSet::new();
    let Some(snapshot) = source.metadata.current_snapshot_id() else { return Ok(types) };
    let listed = source.list(snapshot, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    while let Some(plan) = plans.try_next().await? {
        types.extend(plan.files.iter().filter_map(|file| type_of(source.metadata, file)));
    }
    Ok(types)
}

/// The type of a file's rows, where its partition spec has it as it is.
fn type_of(table: &TableMetadata, file: &PlannedFile) -> Option<String> {
    let source = table.current_schema().field_by_name("type")?.id;
    let fields = table.partition_spec_by_id(file.spec_id)?.fields();
    let at = fields
        .iter()
        .position(|field| field.source_id == source && field.transform == Transform::Identity)?;
    match file.partition.fields().get(at)? {
        Some(Literal::Primitive(PrimitiveLiteral::String(text))) => Some(text.clone()),
        _ => None,
    }
}

/// The rows of the current snapshot that arrived since `since_us` and have at least this `seq`.
///
/// # Errors
/// [`ReadError`], here and in the stream.
pub async fn rows<'a>(
    source: ManifestSource<'a>,
    ours: &ServiceTable,
    since_us: i64,
    seq_min: u64,
) -> Result<impl Stream<Item = Result<IdRows, ReadError>> + use<'a>, ReadError> {
    let id = |name: &str| ours.column(name).and_then(|column| column.id);
    let ids = COLUMNS.map(|name| id(name).expect("these are columns of version 0.1.0"));
    let seq_min = Datum::long(i64::try_from(seq_min).unwrap_or(i64::MAX));
    let filter = at_least(source.metadata, ids[1], seq_min)?.and(at_least(
        source.metadata,
        ids[2],
        Datum::timestamptz_micros(since_us),
    )?);
    let request = source.metadata.current_snapshot_id().map(|snapshot_id| ReadRequest {
        snapshot_id,
        columns: ids.to_vec(),
        filter,
        deletes: DeleteHandling::Ignored,
    });
    let rows = match request {
        Some(request) => reader::rows(source, request).await?.left_stream(),
        None => stream::empty().right_stream(),
    };
    Ok(rows.map_ok(|rows| {
        let texts = |at: usize| rows.column(at).as_string::<i32>().clone();
        let times = rows.column(2).as_primitive::<TimestampMicrosecondType>();
        IdRows {
            ids: texts(0),
            seqs: rows.column(1).as_primitive::<Int64Type>().clone(),
            ingested_us: times.reinterpret_cast(),
            sources: texts(3),
            payloads: texts(4),
        }
    }))
}

fn at_least(table: &TableMetadata, id: i32, least: Datum) -> Result<Filter, ReadError> {
    let schema = table.current_schema();
    let name = schema.name_by_field_id(id).unwrap_or_default();
    let term = Term::column(schema, name, true).map_err(ReadError::Unsupported)?;
    let check = ValueCheck::Compare(Comparison::GreaterOrEqual, least);
    Ok(Filter::Test(FilterTest { term, check }))
}
