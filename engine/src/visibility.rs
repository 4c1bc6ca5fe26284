//! Rows that the asker may not see: they are taken out before anything else of the statement looks at them.
//!
//! A condition in the plan would not do. The optimizer may evaluate conditions of the statement before it, and one
//! that fails for some value (a division, a cast) tells whether a hidden row has the value. So the rows are taken
//! out by an operator that lets no condition through. Its one invariant: what goes below it cannot fail for a
//! row, and only leaves out files.

use crate::{
    comparisons::is_comparison,
    error::SqlError,
    forward::{forward, one_input, shown_by_name},
    view::{TableView, View},
};
use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::{cast, filter_record_batch},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, project_schema},
    datasource::TableType,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{
        Between, BinaryExpr, Expr, Operator, TableProviderFilterPushDown, expr::InList, lit,
    },
    physical_expr::{EquivalenceProperties, Partitioning},
    physical_plan::{ExecutionPlan, PlanProperties, stream::RecordBatchStreamAdapter},
    sql::sqlparser::ast::Statement,
};
use futures::StreamExt;
use iceberg::spec::{NestedField, PrimitiveType, Type};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// The column that says who may see a row.
pub const VISIBILITY_COLUMN: &str = "visibility";
/// What it has in rows that everybody may see, as those have where it is null.
pub const PUBLIC: &str = "public";

/// Which rows of a namespace's tables the asker sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisibleRows {
    /// The namespace, as the view names it.
    pub namespace: String,
    /// Values of the column in rows that are seen; those where it is null are seen, too.
    pub values: Vec<String>,
}

/// Refuses a statement that shows how rows are read: files that are left out and rows that are counted tell of
/// rows that the asker does not see.
///
/// # Errors
/// [`SqlError::Forbidden`]
pub fn check_statement(statement: &Statement, view: &View) -> Result<(), SqlError> {
    if view.visible.is_empty() || !matches!(statement, Statement::Explain { .. }) {
        return Ok(());
    }
    Err(SqlError::Forbidden(
        "EXPLAIN would tell of rows that the token does not see (visibility.filter is on): it needs the scope `admin`"
            .to_owned(),
    ))
}

/// The columns of a table that say who may see a row, by their names in the state that is read.
///
/// A column of a table that is not ours is found by its id: its name may have been another one before, and
/// may have become another one since. Tables of ours keep the name.
///
/// # Errors
/// [`SqlError::Forbidden`] where the table has or had such a column, and the state does not have it: nothing
/// says then who may see its rows.
pub fn deciding_columns(table: &TableView) -> Result<Vec<String>, SqlError> {
    if table.ours.is_some() {
        return Ok(vec![VISIBILITY_COLUMN.to_owned()]);
    }
    let Some(metadata) = &table.metadata else { return Ok(Vec::new()) };
    let ids: BTreeSet<i32> = metadata
        .schemas_iter()
        .flat_map(|schema| schema.as_struct().fields())
        .filter(|field| field.name.eq_ignore_ascii_case(VISIBILITY_COLUMN) && is_text(field))
        .map(|field| field.id)
        .collect();
    let read = table.past_columns().unwrap_or_else(|| metadata.current_schema());
    let name_of = |id: i32| {
        let mut fields = read.as_struct().fields().iter();
        let found = fields.find(|field| field.id == id && is_text(field));
        found.map(|field| field.name.clone()).ok_or_else(|| without_column(&table.name))
    };
    ids.into_iter().map(name_of).collect()
}

/// Whether SQL shows a column as text.
fn is_text(field: &NestedField) -> bool {
    matches!(*field.field_type, Type::Primitive(PrimitiveType::String | PrimitiveType::Uuid))
}

fn without_column(table: &str) -> SqlError {
    SqlError::Forbidden(format!(
        "`{table}` has or had a column `{VISIBILITY_COLUMN}` that the state read here does not have, so nothing says who may see its rows (visibility.filter is on): read a state that has the column, or use a token with the scope `admin`"
    ))
}

/// A table without the rows that the asker may not see; the table itself where none of `names` is a column of
/// text.
#[must_use]
pub fn visible_rows(
    table: Arc<dyn TableProvider>,
    names: &[String],
    values: &[String],
) -> Arc<dyn TableProvider> {
    let schema = table.schema();
    let fields = schema.fields().iter().enumerate();
    let deciding = fields.filter(|(_, field)| {
        names.contains(field.name())
            && matches!(
                field.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            )
    });
    let columns: Vec<usize> = deciding.map(|(at, _)| at).collect();
    if columns.is_empty() {
        return table;
    }
    Arc::new(VisibleTable { inner: table, columns, values: values.into() })
}

/// A table of which some rows are seen.
#[derive(Debug)]
struct VisibleTable {
    inner: Arc<dyn TableProvider>,
    /// Where the columns stand that say who may see a row. All of them have to let it be seen.
    columns: Vec<usize>,
    values: Arc<[String]>,
}

impl VisibleTable {
    /// The conditions by which files without a visible row are left out.
    fn conditions(&self) -> Vec<Expr> {
        let schema = self.inner.schema();
        let values: Vec<Expr> = self.values.iter().map(|value| lit(value.as_str())).collect();
        let condition = |column: &usize| {
            let column = Expr::Column(Column::from_name(schema.field(*column).name()));
            column.clone().is_null().or(column.in_list(values.clone(), false))
        };
        self.columns.iter().map(condition).collect()
    }
}

#[async_trait]
impl TableProvider for VisibleTable {
    forward! {
        fn schema(&self) -> SchemaRef;
        fn table_type(&self) -> TableType;
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        let support = |filter: &&Expr| match cannot_fail(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = self.inner.schema();
        let wanted = project_schema(&schema, projection)?;
        let mut read: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let mut at = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let known = read.iter().position(|known| known == column);
            at.push(known.unwrap_or(read.len()));
            if known.is_none() {
                read.push(*column);
            }
        }
        let mut below: Vec<Expr> =
            filters.iter().filter(|filter| cannot_fail(filter)).cloned().collect();
        below.extend(self.conditions());
        let rows = self.inner.scan(state, Some(&read), &below, None).await?;
        Ok(VisibleRowsExec::over(rows, at, wanted, Arc::clone(&self.values)))
    }
}

/// Whether a condition has an answer for each row, whatever its values: comparisons of columns with constants.
fn cannot_fail(filter: &Expr) -> bool {
    let is_column = |expression: &Expr| matches!(expression, Expr::Column(_));
    let is_constant = |expression: &Expr| matches!(expression, Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            cannot_fail(left) && cannot_fail(right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            is_comparison(*op)
                && (is_column(left) && is_constant(right) || is_constant(left) && is_column(right))
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => is_column(inner),
        Expr::InList(InList { expr, list, .. }) => is_column(expr) && list.iter().all(is_constant),
        Expr::Between(Between { expr, low, high, .. }) => {
            is_column(expr) && is_constant(low) && is_constant(high)
        }
        _ => false,
    }
}

/// The operator that takes the rows out. As every operator that does not say otherwise, it lets no condition
/// from above through to its input, and knows no counts.
#[derive(Debug)]
struct VisibleRowsExec {
    inner: Arc<dyn ExecutionPlan>,
    /// Where the columns stand in the input; the columns that are wanted stand at its beginning.
    at: Vec<usize>,
    schema: SchemaRef,
    values: Arc<[String]>,
    properties: Arc<PlanProperties>,
}

impl VisibleRowsExec {
    fn over(
        inner: Arc<dyn ExecutionPlan>,
        at: Vec<usize>,
        schema: SchemaRef,
        values: Arc<[String]>,
    ) -> Arc<dyn ExecutionPlan> {
        let of_input = inner.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(of_input.partitioning.partition_count()),
            of_input.emission_type,
            of_input.boundedness,
        );
        Arc::new(Self { inner, at, schema, values, properties: Arc::new(properties) })
    }
}

shown_by_name!(VisibleRowsExec);

impl ExecutionPlan for VisibleRowsExec {
    one_input!("VisibleRowsExec");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let (schema, values) = (Arc::clone(&self.schema), Arc::clone(&self.values));
        Ok(Self::over(children.remove(0), self.at.clone(), schema, values))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let rows = self.inner.execute(partition, context)?;
        let (at, values) = (self.at.clone(), Arc::clone(&self.values));
        let wanted: Vec<usize> = (0..self.schema.fields().len()).collect();
        let seen = rows.map(move |batch| -> Result<RecordBatch, DataFusionError> {
            let batch = visible(&batch?, &at, &values)?;
            Ok(batch.project(&wanted)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), seen)))
    }
}

/// The rows of a batch that are seen.
fn visible(
    batch: &RecordBatch,
    at: &[usize],
    values: &[String],
) -> Result<RecordBatch, DataFusionError> {
    let texts = at.iter().map(|at| cast(batch.column(*at), &DataType::Utf8));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<_> = texts.iter().map(|column| column.as_string::<i32>()).collect();
    let is_seen = |row: usize| {
        columns.iter().all(|column| {
            column.is_null(row) || values.iter().any(|seen| seen.as_str() == column.value(row))
        })
    };
    let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_seen(row))).collect();
    if mask.true_count() == batch.num_rows() {
        return Ok(batch.clone());
    }
    Ok(filter_record_batch(batch, &mask)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };
    use datafusion::{common::stats::Precision, datasource::MemTable, prelude::SessionContext};

    fn table() -> Arc<dyn TableProvider> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new(VISIBILITY_COLUMN, DataType::Utf8, true),
        ]));
        let values = [Some("public"), None, Some("team"), Some("user"), Some("")];
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int64Array::from_iter_values(0..5)),
                Arc::new(StringArray::from(values.to_vec())),
            ],
        );
        Arc::new(MemTable::try_new(schema, vec![vec![batch.unwrap()]]).unwrap())
    }

    async fn rows(values: &[&str], sql: &str) -> Result<usize, DataFusionError> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let names = [VISIBILITY_COLUMN.to_owned()];
        let context = SessionContext::new();
        context.register_table("t", visible_rows(table(), &names, &values))?;
        let batches = context.sql(sql).await?.collect().await?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }

    #[tokio::test]
    async fn rows_are_seen_by_their_value() {
        assert_eq!(rows(&["public"], "SELECT n FROM t").await.unwrap(), 2);
        assert_eq!(rows(&["public", "team"], "SELECT * FROM t").await.unwrap(), 3);
        assert_eq!(rows(&["public"], "SELECT 1 FROM t WHERE n = 2").await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_condition_that_fails_tells_nothing_of_a_row_that_is_not_seen() {
        let sql = "SELECT n FROM t WHERE 1 / (n - 2) < 10";
        assert_eq!(rows(&["public"], sql).await.unwrap(), 2);
        assert!(rows(&["public", "team"], sql).await.is_err());
    }

    #[tokio::test]
    async fn rows_are_not_counted_before_they_are_read() {
        let names = [VISIBILITY_COLUMN.to_owned()];
        let context = SessionContext::new();
        context.register_table("t", visible_rows(table(), &names, &[])).unwrap();
        let query = context.sql("SELECT n FROM t").await.unwrap();
        let plan = query.create_physical_plan().await.unwrap();
        assert_eq!(plan.partition_statistics(None).unwrap().num_rows, Precision::Absent);
    }

    #[tokio::test]
    async fn all_columns_that_decide_have_to_let_a_row_be_seen() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("vis", DataType::Utf8, true),
            Field::new("Visibility", DataType::Utf8, true),
        ]));
        let first = StringArray::from(vec![Some("public"), Some("team"), Some("public"), None]);
        let second = StringArray::from(vec![Some("public"), Some("public"), Some("team"), None]);
        let columns: Vec<ArrayRef> = vec![Arc::new(first), Arc::new(second)];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
        let table = MemTable::try_new(schema, vec![vec![batch.unwrap()]]).unwrap();
        let names = ["vis".to_owned(), "Visibility".to_owned()];
        let table = visible_rows(Arc::new(table), &names, &[PUBLIC.to_owned()]);
        let context = SessionContext::new();
        context.register_table("t", table).unwrap();
        for sql in ["SELECT vis FROM t", "SELECT \"Visibility\" FROM t", "SELECT 1 FROM t"] {
            let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2, "{sql}");
        }
    }

    #[test]
    fn a_table_that_does_not_say_who_may_see_it_stays() {
        let found = visible_rows(table(), &["vis".to_owned()], &[]);
        assert!(format!("{found:?}").starts_with("MemTable"));
    }
}
