//! What becomes of columns that a table lacks: they are added when there is a value for one, or left
//! out where another's column has the name.

use crate::flush::{
    FlushError,
    commit::{FlushTarget, TableFlush},
};
use arrow::{array::Array, record_batch::RecordBatch};
use iceberg::{TableIdent, spec::TableMetadata};
use icecore_catalog::error::CatalogError;
use icecore_lake::{
    event::left_out::leave_out,
    table::{
        evolve::{self, SchemaFit},
        writer::WriteError,
    },
};
use icecore_schemas::{columns::Column, service_table::ServiceTable};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{info, warn};

/// The columns that tables had no place for at their last flush, by `namespace.table`.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOutColumns(Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>);

impl LeftOutColumns {
    /// Notes what is left out of a table, and tells the operator when that is news.
    fn note(&self, table: &TableIdent, columns: &[&'static Column]) {
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = table.to_string();
        if names.is_empty() {
            known.remove(&key);
        } else if known.get(&key) != Some(&names) {
            warn!(
                %table,
                columns = names.join(", "),
                "foreign columns have these names with other types: the table does not get these \
                 columns, and their values stay in `payload`"
            );
            known.insert(key, names);
        }
    }

    /// How many columns, by `namespace.table`.
    pub(super) fn counts(&self) -> Vec<(String, usize)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(table, columns)| (table.clone(), columns.len())).collect()
    }
}

impl TableFlush {
    /// The table with every column that the rows have a value for, and the rows as it takes them.
    /// A column is added by a commit of its own, before a file names its id: a table whose columns
    /// others changed meanwhile refuses it, and the flush is made anew.
    pub(super) async fn with_columns(
        &self,
        ident: &TableIdent,
        mut table: FlushTarget,
        ours: &ServiceTable,
        mut fit: SchemaFit,
        rows: Vec<RecordBatch>,
    ) -> Result<(FlushTarget, Vec<RecordBatch>), FlushError> {
        let has_value = |column: &&&Column| {
            let values = rows.iter().filter_map(|rows| rows.column_by_name(column.name));
            values.into_iter().any(|values| values.null_count() < values.len())
        };
        let needed: Vec<&Column> = fit.missing.iter().filter(has_value).copied().collect();
        if !needed.is_empty() {
            let change =
                evolve::add_columns(ident, table.metadata(), &needed).map_err(|source| {
                    CatalogError::Iceberg { operation: "add columns to a table", source }
                })?;
            table = FlushTarget::There(self.catalog.commit(change).await?);
            let names: Vec<&str> = needed.iter().map(|column| column.name).collect();
            info!(table = %ident, columns = names.join(", "), "columns are added to a table");
            self.faults.hit("flush.after_columns")?;
            fit = self.fit(ident, ours, table.metadata())?;
        }
        self.left_out.note(ident, &fit.left_out);
        let rows = rows.iter().map(|rows| leave_out(rows, &fit.left_out));
        let rows = rows.collect::<Result<_, _>>().map_err(WriteError::Split)?;
        Ok((table, rows))
    }

    /// How a table stands to ours.
    pub(super) fn fit(
        &self,
        ident: &TableIdent,
        ours: &ServiceTable,
        table: &TableMetadata,
    ) -> Result<SchemaFit, FlushError> {
        SchemaFit::of(ours, table)
            .map_err(|source| FlushError::Foreign { table: ident.to_string(), source })
    }
}
