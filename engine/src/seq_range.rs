//! A table cut to a range of `seq`, and one that goes on in a later state of the same table.
//!
//! Both are plans over scans, so that conditions reach the scans and leave out files by their bounds. Rows of
//! other engines count by the `seq` that they have.

use crate::provider::ViewTable;
use datafusion::{
    catalog::TableProvider,
    common::{Column, TableReference},
    datasource::{default_table_source::provider_as_source, view::ViewTable as DataFusionView},
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlanBuilder, lit},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The column that is cut by.
pub const SEQ_COLUMN: &str = "seq";

/// Events from one `seq` up to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl SeqRange {
    /// All events up to this one.
    #[must_use]
    pub fn up_to(last: u64) -> Self {
        Self { first: 0, last }
    }

    /// What both have. It may be nothing: then the first is beyond the last.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }
}

/// One state of a table, and which of its rows count.
#[derive(Debug)]
pub struct TablePart {
    /// The rows of the state.
    pub table: ViewTable,
    /// Those that count; none for all.
    pub seqs: Option<SeqRange>,
}

/// The rows of one part, and those of a later state of the table in the columns of the first.
///
/// # Errors
/// DataFusion's, for a table without `seq`.
pub fn provider(
    name: &str,
    part: TablePart,
    later: Option<TablePart>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    if part.seqs.is_none() && later.is_none() {
        return Ok(Arc::new(part.table));
    }
    let schema = part.table.schema();
    let columns = schema.fields().iter();
    let columns: Vec<Expr> =
        columns.map(|field| Expr::Column(Column::from_name(field.name()))).collect();
    let mut plan = scan(name, part)?;
    if let Some(later) = later {
        let more = scan(name, later)?.project(columns)?.build()?;
        plan = plan.union(more)?;
    }
    Ok(Arc::new(DataFusionView::new(plan.build()?, None)))
}

fn scan(name: &str, part: TablePart) -> Result<LogicalPlanBuilder, DataFusionError> {
    let source = provider_as_source(Arc::new(part.table));
    let reference = TableReference::bare(name);
    let plan = LogicalPlanBuilder::scan(reference, source, None)?;
    let Some(SeqRange { first, last }) = part.seqs else { return Ok(plan) };
    let seq = || Expr::Column(Column::from_name(SEQ_COLUMN));
    // No event has a larger one.
    let number = |seq: u64| lit(i64::try_from(seq).unwrap_or(i64::MAX));
    let upper = seq().lt_eq(number(last));
    plan.filter(if first == 0 { upper } else { upper.and(seq().gt_eq(number(first))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_what_both_have() {
        let range = SeqRange { first: 3, last: 9 };
        assert_eq!(range.and(SeqRange::up_to(5)), SeqRange { first: 3, last: 5 });
        assert_eq!(range.and(SeqRange::up_to(20)), range);
        let nothing = range.and(SeqRange::up_to(1));
        assert!(nothing.last < nothing.first);
    }
}
