//! The table `branches`, which every namespace with events has where nothing else is called so: a row a branch.
//!
//! Its rows are a part of the view of a query, as they are few.

use crate::{
    aliases::RelationColumn,
    session::CATALOG,
    view::{BranchRow, BranchesView},
};
use arrow::{
    array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};
use datafusion::{
    common::TableReference, datasource::MemTable, error::DataFusionError, prelude::SessionContext,
};
use icecore_lake::event::rows::UTC;
use std::sync::Arc;

/// Its name.
pub const BRANCHES_TABLE: &str = "branches";

/// The columns of the table.
#[must_use]
pub fn columns() -> Vec<RelationColumn> {
    let schema = schema();
    let column =
        |field: &Arc<Field>| RelationColumn { name: field.name().clone(), is_of_events: false };
    schema.fields().iter().map(column).collect()
}

/// Shows a session the branches that its query names.
///
/// # Errors
/// Never, as a session has the schema of each namespace that is seen.
pub fn show(context: &SessionContext, views: &[BranchesView]) -> Result<(), DataFusionError> {
    for BranchesView { namespace, rows } in views {
        let table = MemTable::try_new(schema(), vec![vec![batch(rows)?]])?;
        let place = TableReference::full(CATALOG, namespace.as_str(), BRANCHES_TABLE);
        context.register_table(place, Arc::new(table))?;
    }
    Ok(())
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("head", DataType::Int64, false),
        Field::new("base", DataType::Int64, true),
        Field::new("forked_from", DataType::Utf8, false),
        Field::new("created_at", time, false),
        Field::new("fork_seq", DataType::Int64, false),
        Field::new("head_seq", DataType::Int64, true),
    ]))
}

fn batch(rows: &[BranchRow]) -> Result<RecordBatch, DataFusionError> {
    let texts = |of: fn(&BranchRow) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let numbers = |of: fn(&BranchRow) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    let times = rows.iter().map(|row| row.created_at.saturating_mul(1_000));
    let columns = vec![
        texts(|row| &row.name),
        numbers(|row| Some(row.head)),
        numbers(|row| row.base),
        texts(|row| &row.forked_from),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone(UTC)),
        numbers(|row| i64::try_from(row.fork_seq).ok()),
        numbers(|row| i64::try_from(row.head_seq?).ok()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn a_branch_is_a_row_of_the_columns() {
        let row = BranchRow {
            name: "trial".to_owned(),
            head: 7,
            base: None,
            forked_from: "main".to_owned(),
            created_at: 1_000,
            fork_seq: 17,
            head_seq: Some(20),
        };
        assert_eq!(batch(&[]).unwrap().num_rows(), 0);
        let batch = batch(&[row]).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (1, columns().len()));
        assert_eq!(batch.column(2).null_count(), 1);
    }
}
