//! Columns by field id, for tables whose columns were renamed, or dropped and added anew.
//!
//! A data file keeps the names it was written with; only the field ids in it say which column of
//! today each one is. Files without ids are read by name.

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    error::DataFusionError,
    physical_expr::{PhysicalExpr, expressions::Column},
    physical_expr_adapter::{
        DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
    },
};
use std::{collections::HashMap, sync::Arc};

/// Maps the columns that are read to those of each file.
#[derive(Debug)]
pub struct ByFieldId {
    names: HashMap<i32, String>,
}

impl ByFieldId {
    /// The columns of `schema` under its names.
    #[must_use]
    pub fn new(schema: &iceberg::spec::Schema) -> Self {
        let fields = schema.as_struct().fields().iter();
        Self { names: fields.map(|field| (field.id, field.name.clone())).collect() }
    }

    /// The file's columns under today's names. One that is no column today gets a name that no
    /// column can have.
    fn renamed(&self, file: &Schema) -> Schema {
        let fields = file.fields().iter().enumerate().map(|(at, field)| {
            let id = field.metadata().get(FIELD_ID).and_then(|id| id.parse::<i32>().ok());
            let name = match id.map(|id| self.names.get(&id)) {
                Some(Some(name)) => name.clone(),
                Some(None) => format!("\u{0}{at}"),
                None => return field.as_ref().clone(),
            };
            field.as_ref().clone().with_name(name)
        });
        Schema::new_with_metadata(fields.collect::<Vec<_>>(), file.metadata().clone())
    }
}

const FIELD_ID: &str = parquet::arrow::PARQUET_FIELD_ID_META_KEY;

impl PhysicalExprAdapterFactory for ByFieldId {
    fn create(
        &self,
        table: SchemaRef,
        file: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>, DataFusionError> {
        let renamed = Arc::new(self.renamed(&file));
        let inner = DefaultPhysicalExprAdapterFactory.create(table, renamed)?;
        Ok(Arc::new(Adapter { inner, file }))
    }
}

/// Rewrites by today's names, then says the file's names again: the reader finds columns by them.
#[derive(Debug)]
struct Adapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    file: SchemaRef,
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(
        &self,
        expr: Arc<dyn PhysicalExpr>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let rewritten = self.inner.rewrite(expr)?;
        let to_file = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let index = column.index();
            let name = self.file.field(index).name();
            Ok(Transformed::yes(Arc::new(Column::new(name, index)) as _))
        };
        rewritten.transform_down(to_file).data()
    }
}
