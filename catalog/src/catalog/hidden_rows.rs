//! What says who may see a row, where the service shows rows by who asks.
//!
//! Its one invariant: who does not see all rows of a table does not make its metadata forget the columns by which
//! its rows are hidden, nor puts other metadata over its files. The service finds these columns in all schemas of
//! the metadata, whatever they are called by now.

use super::{Catalog, TableChange};
use crate::error::CatalogError;
use iceberg::spec::{PrimitiveType, TableMetadata, Type};
use std::collections::BTreeSet;

/// The column by which the service hides rows, in any case of letters.
const VISIBILITY: &str = "visibility";

impl Catalog {
    /// Refuses a change of `base` to `new` after which the metadata lacks such a column, unless its sender sees all
    /// rows. Only the removal of schemas can do that.
    pub(super) fn check_rows_stay_hidden(
        &self,
        change: &TableChange,
        base: &TableMetadata,
        new: &TableMetadata,
    ) -> Result<(), CatalogError> {
        // Who may not take history away is who has no scope `admin`, and so does not see all rows.
        if !self.inner.options.hides_rows || !change.keeps_history {
            return Ok(());
        }
        if deciding_columns(base).is_subset(&deciding_columns(new)) {
            return Ok(());
        }
        Err(CatalogError::Forbidden(format!(
            "a schema of {} that is removed says by its column `{VISIBILITY}` who may see the rows (visibility.filter is on): leave it, or use a token with the scope `admin`",
            change.table
        )))
    }

    /// Refuses to register a metadata file, unless who asks sees all rows: it may be one from before a table had
    /// such a column.
    pub(crate) fn check_registers(&self, sees_all_rows: bool) -> Result<(), CatalogError> {
        if sees_all_rows || !self.inner.options.hides_rows {
            return Ok(());
        }
        Err(CatalogError::Forbidden(
            "other metadata may show rows that are hidden (visibility.filter is on): registering a table needs the scope `admin` for its namespace"
                .to_owned(),
        ))
    }
}

/// The field ids of the text columns that are or were called so.
fn deciding_columns(table: &TableMetadata) -> BTreeSet<i32> {
    let fields = table.schemas_iter().flat_map(|schema| schema.as_struct().fields());
    fields
        .filter(|field| {
            let is_text = matches!(
                *field.field_type,
                Type::Primitive(PrimitiveType::String | PrimitiveType::Uuid)
            );
            is_text && field.name.eq_ignore_ascii_case(VISIBILITY)
        })
        .map(|field| field.id)
        .collect()
}
