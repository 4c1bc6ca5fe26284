//! What the columns of an answer are called: as their expressions are written, where the planner makes
//! names of its own such as `Int64(1)`.
//!
//! Only the answer has these names; inside a statement, columns are called as the planner calls them.

use crate::aliases;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, SetExpr, Statement};
use std::{collections::HashSet, sync::Arc};

/// Names for columns, from both ends: a wildcard between stands for any number of them.
#[derive(Clone, Debug, Default)]
pub struct ColumnLabels {
    front: Vec<Option<String>>,
    /// The last one first; empty where there is no wildcard.
    back: Vec<Option<String>>,
}

impl ColumnLabels {
    /// The names that a statement, as it was written, gives the columns of its answer.
    #[must_use]
    pub fn of(statement: &Statement) -> Self {
        let Statement::Query(query) = statement else { return Self::default() };
        let mut body = query.body.as_ref();
        loop {
            body = match body {
                SetExpr::Query(query) => query.body.as_ref(),
                // The first one names the columns of all.
                SetExpr::SetOperation { left, .. } => left.as_ref(),
                _ => break,
            };
        }
        let SetExpr::Select(select) = body else { return Self::default() };
        let items = &select.projection;
        let is_wildcard = |item: &SelectItem| {
            matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
        };
        let until = items.iter().position(is_wildcard);
        let after = items.iter().rposition(is_wildcard).map_or(items.len(), |at| at + 1);
        let repeated = aliases::repeated_names(items);
        let label = |item: &SelectItem| label(item, &repeated);
        Self {
            front: items[..until.unwrap_or(items.len())].iter().map(label).collect(),
            back: items[after..].iter().rev().map(label).collect(),
        }
    }

    /// The schema with these names.
    #[must_use]
    pub fn put_on(&self, schema: &SchemaRef) -> SchemaRef {
        let columns = schema.fields().len();
        // It is a select list of this statement.
        if columns < self.front.len() + self.back.len() {
            return Arc::clone(schema);
        }
        let named = schema.fields().iter().enumerate().map(|(at, field)| {
            let from_front = self.front.get(at);
            let label =
                from_front.or_else(|| self.back.get(columns - 1 - at)).and_then(Option::as_ref);
            match label {
                Some(label) => Arc::new(field.as_ref().clone().with_name(label)),
                None => Arc::clone(field),
            }
        });
        let fields: Vec<_> = named.collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }
}

/// The name of a column that is named by an alias, which inside of a statement has no capital letters, and is not
/// given at all where two columns have it.
fn of_alias(name: &Ident, repeated: &HashSet<String>) -> Option<String> {
    let has_capitals = name.value.contains(|c: char| c.is_ascii_uppercase());
    let is_lost = has_capitals || repeated.contains(&aliases::folded(name));
    (is_lost && aliases::is_alias(&name.value)).then(|| name.value.clone())
}

/// The name of a column that has none of its own.
fn label(item: &SelectItem, repeated: &HashSet<String>) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => of_alias(name, repeated),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            of_alias(parts.last()?, repeated)
        }
        SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
        _ => None,
    }
}
