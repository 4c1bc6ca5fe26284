//! Columns of data files by field id, for DataFusion's Parquet source.
//!
//! A data file keeps the names it was written with, or what its writer made of them; only the field
//! ids in it say which column of today each one is. Files without ids are read by the table's name
//! mapping, and where there is none by name.

use crate::conform::{ColumnConversion, conform, default_of};
use arrow::{
    datatypes::{DataType, FieldRef, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    error::DataFusionError,
    logical_expr::ColumnarValue,
    physical_expr::{
        PhysicalExpr,
        expressions::{CastExpr, Column, Literal},
    },
    physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory},
};
use icecore_lake::table::field_ids::{FieldAliases, FieldFinder};
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Maps the columns that are read to those of each file.
#[derive(Debug)]
pub struct FieldIdMapper {
    columns: Arc<iceberg::spec::Schema>,
    aliases: Arc<FieldAliases>,
}

impl FieldIdMapper {
    /// These columns, in files without ids under these names.
    #[must_use]
    pub fn new(columns: Arc<iceberg::spec::Schema>, aliases: Arc<FieldAliases>) -> Self {
        Self { columns, aliases }
    }
}

impl PhysicalExprAdapterFactory for FieldIdMapper {
    fn create(
        &self,
        table: SchemaRef,
        file: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>, DataFusionError> {
        let (columns, aliases) = (Arc::clone(&self.columns), Arc::clone(&self.aliases));
        let has_ids = FieldFinder::of(&file, &aliases).has_ids;
        Ok(Arc::new(FileAdapter { columns, aliases, table, file, has_ids }))
    }
}

/// One file's columns.
#[derive(Debug)]
struct FileAdapter {
    columns: Arc<iceberg::spec::Schema>,
    aliases: Arc<FieldAliases>,
    table: SchemaRef,
    file: SchemaRef,
    has_ids: bool,
}

impl PhysicalExprAdapter for FileAdapter {
    fn rewrite(
        &self,
        expr: Arc<dyn PhysicalExpr>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let to_file = |expr: Arc<dyn PhysicalExpr>| match expr.downcast_ref::<Column>() {
            Some(column) => self.column(column.name()).map(Transformed::yes),
            None => Ok(Transformed::no(expr)),
        };
        // From below, so that what is put in the place of a column is not visited again.
        expr.transform_up(to_file).data()
    }
}

impl FileAdapter {
    fn column(&self, name: &str) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let field = Arc::clone(&self.table.fields()[self.table.index_of(name)?]);
        let missing = || DataFusionError::Execution(format!("the table has no column `{name}`"));
        let column = self.columns.as_struct().field_by_name(name).ok_or_else(missing)?;
        let finder = FieldFinder { has_ids: self.has_ids, aliases: &self.aliases };
        let target = field.data_type();
        let Some(at) = finder.find(self.file.fields(), column) else {
            return Ok(Arc::new(Literal::new(default_of(column, target)?)));
        };
        let of_file = self.file.field(at);
        let conform = conform(finder, of_file.data_type(), &column.field_type, target)?;
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(of_file.name(), at));
        Ok(match conform {
            ColumnConversion::Same => column,
            // The reader can prune through a cast that it knows.
            ColumnConversion::Cast(target) => Arc::new(CastExpr::new(column, target, None)),
            conform => Arc::new(ConvertedColumn { column, conform: Arc::new(conform), field }),
        })
    }
}

/// A column of a file as the table has it.
///
/// The reader cannot see through it, which for floats is on purpose: minima and maxima say nothing
/// of NaN, and DataFusion 54 takes a row group whose bounds satisfy a condition for one whose rows
/// all do, and prunes those whose NaN would (mended by apache/datafusion#24804).
#[derive(Debug, Eq)]
struct ConvertedColumn {
    column: Arc<dyn PhysicalExpr>,
    conform: Arc<ColumnConversion>,
    field: FieldRef,
}

// Derived, they would move out of the expression (rust-lang/rust#78808).
impl PartialEq for ConvertedColumn {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.conform == other.conform && self.field == other.field
    }
}

impl Hash for ConvertedColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.conform.hash(state);
    }
}

impl fmt::Display for ConvertedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt(f)
    }
}

impl PhysicalExpr for ConvertedColumn {
    fn data_type(&self, _: &Schema) -> Result<DataType, DataFusionError> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool, DataFusionError> {
        Ok(true)
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::clone(&self.field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue, DataFusionError> {
        let array = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(self.conform.apply(&array)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let column = children.pop().expect("it has one child");
        let (conform, field) = (Arc::clone(&self.conform), Arc::clone(&self.field));
        Ok(Arc::new(Self { column, conform, field }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt_sql(f)
    }
}
