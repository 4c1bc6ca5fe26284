//! Columns with capital letters, named without quotes.
//!
//! SQL folds such a name to small letters, and so does the planner. Where no column has the folded name
//! and exactly one has it but for the case, that one is meant, as in DuckDB and Spark.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, JoinConstraint, JoinOperator, ObjectNamePart, Select, SelectItem,
    Statement, Subscript, TableFactor, VisitMut, VisitorMut,
};
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    ops::ControlFlow,
};

/// Writes the names of columns as they are. `columns` are all that the statement can mean; its lists of
/// names stand behind tables only, see [`crate::column_lists`].
pub fn resolve(statement: &mut Statement, columns: &[String]) {
    let exact: HashSet<&str> = columns.iter().map(String::as_str).collect();
    let mut meant: HashMap<String, Option<&str>> = HashMap::new();
    for name in &exact {
        let folded = name.to_lowercase();
        if folded == *name || exact.contains(folded.as_str()) {
            continue;
        }
        // A second one makes it ambiguous.
        meant.entry(folded).and_modify(|name| *name = None).or_insert(Some(name));
    }
    meant.retain(|_, name| name.is_some());
    if !meant.is_empty() {
        let mut resolver = NameResolver { meant };
        let ControlFlow::Continue(()) = statement.visit(&mut resolver);
    }
}

struct NameResolver<'a> {
    meant: HashMap<String, Option<&'a str>>,
}

impl NameResolver<'_> {
    fn name(&self, name: &mut Ident) {
        if name.quote_style.is_none()
            && let Some(Some(exact)) = self.meant.get(&name.value.to_lowercase())
        {
            *name = Ident::with_quote('"', *exact);
        }
    }

    fn constraint(&self, constraint: &mut JoinConstraint) {
        if let JoinConstraint::Using(columns) = constraint {
            let parts = columns.iter_mut().flat_map(|column| column.0.iter_mut());
            for part in parts {
                if let ObjectNamePart::Identifier(name) = part {
                    self.name(name);
                }
            }
        }
    }

    /// Names that are given are given in the same way as they are used.
    fn select(&self, select: &mut Select) {
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.name(alias);
            }
        }
        for join in select.from.iter_mut().flat_map(|table| table.joins.iter_mut()) {
            match &mut join.join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint)
                | JoinOperator::Semi(constraint)
                | JoinOperator::LeftSemi(constraint)
                | JoinOperator::RightSemi(constraint)
                | JoinOperator::Anti(constraint)
                | JoinOperator::LeftAnti(constraint)
                | JoinOperator::RightAnti(constraint) => self.constraint(constraint),
                _ => (),
            }
        }
    }
}

impl VisitorMut for NameResolver<'_> {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        self.select(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } = factor
        {
            for column in &mut alias.columns {
                self.name(&mut column.name);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Identifier(name) => self.name(name),
            // What stands before the last dot may be a table, a schema or a struct.
            Expr::CompoundIdentifier(parts) => {
                parts.iter_mut().skip(1).for_each(|part| self.name(part))
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    match access {
                        AccessExpr::Dot(Expr::Identifier(name)) => self.name(name),
                        AccessExpr::Dot(_) | AccessExpr::Subscript(Subscript::Index { .. }) => (),
                        AccessExpr::Subscript(Subscript::Slice { .. }) => (),
                    }
                }
            }
            _ => (),
        }
        ControlFlow::Continue(())
    }
}
