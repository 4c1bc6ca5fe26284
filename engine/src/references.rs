//! The tables that a statement names, and nothing outside of what its sender may name.

use crate::{audit, error::SqlError, failure, session::CATALOG};
use datafusion::{
    common::TableReference,
    sql::{parser, resolve::resolve_table_references, sqlparser::ast},
};

/// What a query may name beside the tables of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryScope {
    /// Nothing.
    Namespace,
    /// Tables that belong to no namespace: `system.audit`.
    System,
}

impl QueryScope {
    /// The same for a query of this namespace: one that is called as the schema of such tables keeps
    /// its own, and from there the others are not seen.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        if namespace == audit::SCHEMA { Self::Namespace } else { self }
    }
}

/// Which tables of a namespace a query names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedTables {
    /// Every table: the query asks what there is.
    All,
    /// These, in no order; none for a query without tables.
    Named(Vec<String>),
}

/// The tables that a statement names, and whether it names tables of no namespace.
///
/// # Errors
/// [`SqlError::Invalid`] for a table outside of its namespace and reach.
pub fn wanted(
    statement: &ast::Statement,
    namespace: &str,
    reach: QueryScope,
) -> Result<(WantedTables, bool), SqlError> {
    let statement = parser::Statement::Statement(Box::new(statement.clone()));
    let (references, _) =
        resolve_table_references(&statement, true).map_err(|cause| failure::of(&cause))?;
    let mut names = Vec::new();
    let (mut names_system, mut names_all) = (false, false);
    for reference in references {
        let is_ours = reference.catalog().is_none_or(|catalog| catalog == CATALOG);
        match &reference {
            _ if !is_ours => return Err(outside(&reference, namespace)),
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                if schema.as_ref() == "information_schema" =>
            {
                names_all = true;
            }
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                if schema.as_ref() == audit::SCHEMA && reach == QueryScope::System =>
            {
                names_system = true;
            }
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                if schema.as_ref() != namespace =>
            {
                return Err(outside(&reference, namespace));
            }
            TableReference::Bare { table }
            | TableReference::Partial { table, .. }
            | TableReference::Full { table, .. } => names.push(table.to_string()),
        }
    }
    names.sort();
    names.dedup();
    let wanted = if names_all { WantedTables::All } else { WantedTables::Named(names) };
    Ok((wanted, names_system))
}

fn outside(reference: &TableReference, namespace: &str) -> SqlError {
    SqlError::Invalid(format!(
        "table `{reference}` is outside namespace `{namespace}`; write the table's name alone, or as `{namespace}.table`"
    ))
}
