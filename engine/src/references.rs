//! The tables that a statement names. What these are, and whether its sender may read them, is decided where
//! the view is taken.

use crate::{audit, error::SqlError, failure, session::CATALOG};
use datafusion::sql::{
    parser,
    resolve::resolve_table_references,
    sqlparser::ast::{self, BinaryOperator, Expr, Value, ValueWithSpan, Visit, Visitor},
};
use std::{convert::Infallible, fmt, ops::ControlFlow};

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

/// A table that is named with more than its own name. What that means depends on what there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    /// The first of three parts.
    pub catalog: Option<String>,
    /// The part before the last.
    pub schema: String,
    /// The last part.
    pub table: String,
}

impl QualifiedName {
    /// Its parts.
    #[must_use]
    pub fn parts(&self) -> Vec<String> {
        let catalog = self.catalog.iter().cloned();
        catalog.chain([self.schema.clone(), self.table.clone()]).collect()
    }

    /// The namespace that it names, if it names a table.
    fn namespace(&self) -> &str {
        self.catalog.as_deref().filter(|catalog| *catalog != CATALOG).unwrap_or(&self.schema)
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join("."))
    }
}

/// The tables that a statement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementTables {
    /// Those of its own namespace.
    pub wanted: WantedTables,
    /// Those of its own namespace by name, also where it asks for all.
    pub named: Vec<String>,
    /// Those of other namespaces, and metadata tables.
    pub qualified: Vec<QualifiedName>,
    /// Other namespaces that it asks `information_schema` for.
    pub listed: Vec<String>,
    /// Whether it asks which namespaces there are.
    pub lists_namespaces: bool,
    /// Whether it names tables of no namespace.
    pub names_system: bool,
}

impl StatementTables {
    /// Tables of its own namespace alone.
    #[must_use]
    pub fn of(wanted: WantedTables) -> Self {
        let named = match &wanted {
            WantedTables::All => Vec::new(),
            WantedTables::Named(names) => names.clone(),
        };
        let (qualified, listed) = (Vec::new(), Vec::new());
        let (lists_namespaces, names_system) = (false, false);
        Self { wanted, named, qualified, listed, lists_namespaces, names_system }
    }
}

/// Most namespaces that one statement asks `information_schema` for: of each, every table is loaded.
const LISTED_MAX: usize = 50;
/// The column of `information_schema` with the namespace of a table.
const SCHEMA_COLUMN: &str = "table_schema";
/// The table of `information_schema` with a row for each namespace.
const NAMESPACES_TABLE: &str = "schemata";

/// The tables that a statement names, seen from a namespace.
///
/// # Errors
/// [`SqlError::Invalid`] for a name that no table has.
pub fn wanted(
    statement: &ast::Statement,
    namespace: &str,
    reach: QueryScope,
) -> Result<StatementTables, SqlError> {
    let texts = listed_namespaces(statement, namespace);
    // SHOW COLUMNS counts as one that names every table of `information_schema`.
    let is_query = matches!(statement, ast::Statement::Query(_) | ast::Statement::Explain { .. });
    let statement = parser::Statement::Statement(Box::new(statement.clone()));
    let (references, _) =
        resolve_table_references(&statement, true).map_err(|cause| failure::of(&cause))?;
    let (mut named, mut qualified) = (Vec::new(), Vec::new());
    let (mut names_system, mut names_all, mut lists_namespaces) = (false, false, false);
    for reference in references {
        let is_ours = reference.catalog().is_none_or(|catalog| catalog == CATALOG);
        match (reference.schema(), reference.table()) {
            (Some("information_schema"), table) if is_ours => {
                names_all = true;
                lists_namespaces |= is_query && table == NAMESPACES_TABLE;
            }
            (Some(audit::SCHEMA), _) if is_ours && reach == QueryScope::System => {
                names_system = true;
            }
            (None, table) => named.push(table.to_owned()),
            (Some(schema), table) if is_ours && schema == namespace => {
                named.push(table.to_owned());
            }
            (Some(schema), table) => qualified.push(QualifiedName {
                catalog: reference.catalog().map(str::to_owned),
                schema: schema.to_owned(),
                table: table.to_owned(),
            }),
        }
    }
    named.sort();
    named.dedup();
    let (wanted, listed) = match names_all {
        true => (WantedTables::All, texts),
        false => (WantedTables::Named(named.clone()), Vec::new()),
    };
    if LISTED_MAX < listed.len() {
        return Err(SqlError::Invalid(format!(
            "the statement asks information_schema for more than {LISTED_MAX} namespaces; ask for fewer at a time"
        )));
    }
    Ok(StatementTables { wanted, named, qualified, listed, lists_namespaces, names_system })
}

/// Texts that a statement compares with the namespace of a table.
fn listed_namespaces(statement: &ast::Statement, own: &str) -> Vec<String> {
    struct SchemaTexts(Vec<String>);
    impl Visitor for SchemaTexts {
        type Break = Infallible;

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
            match expr {
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                    self.note(left, right);
                    self.note(right, left);
                }
                Expr::InList { expr, list, negated: false } => {
                    list.iter().for_each(|item| self.note(expr, item));
                }
                _ => (),
            }
            ControlFlow::Continue(())
        }
    }
    impl SchemaTexts {
        fn note(&mut self, column: &Expr, text: &Expr) {
            let name = match column {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            let is_it = name.is_some_and(|name| name.value.eq_ignore_ascii_case(SCHEMA_COLUMN));
            if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = text
                && is_it
            {
                self.0.push(text.clone());
            }
        }
    }
    let mut texts = SchemaTexts(Vec::new());
    let ControlFlow::Continue(()) = Visit::visit(statement, &mut texts);
    let SchemaTexts(mut found) = texts;
    found.retain(|text| text != own && text != audit::SCHEMA && text != "information_schema");
    found.sort();
    found.dedup();
    found
}

/// The error for a name of another namespace that is not there for the caller: one that is there and may
/// not be read has the same.
#[must_use]
pub fn outside(name: &QualifiedName, namespace: &str) -> SqlError {
    SqlError::Invalid(format!(
        "table `{name}` is outside namespace `{namespace}`, and no namespace `{}` can be read; write the name of a table alone, or as `NAMESPACE.TABLE`",
        name.namespace()
    ))
}

#[cfg(test)]
mod tests;
