//! A table that is there and cannot be read: it is listed, without columns, and nothing else.

use crate::error::SqlError;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
};
use std::sync::Arc;

/// Such a table.
#[derive(Debug)]
pub(super) struct UnreadableTable {
    error: SqlError,
}

impl UnreadableTable {
    /// A table whose reading fails with this.
    pub(super) fn new(error: SqlError) -> Self {
        Self { error }
    }
}

#[async_trait]
impl TableProvider for UnreadableTable {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Err(DataFusionError::External(Box::new(self.error.clone())))
    }
}
