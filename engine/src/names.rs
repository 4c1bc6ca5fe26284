//! Columns with capital letters, named without quotes.
//!
//! SQL folds such a name to small letters, and so does the planner. Where no column has the folded name
//! and exactly one has it but for the case, that one is meant, as in DuckDB and Spark.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectNamePart, Query,
    Select, SelectItem, SetExpr, Statement, Subscript, TableFactor, VisitMut, VisitorMut,
};
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    ops::ControlFlow,
};

/// Writes the names of columns as they are. `columns` are all that the statement can mean.
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
    let ControlFlow::Continue(()) = statement.visit(&mut ListVisitor);
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
        | TableFactor::Derived { alias: Some(alias), .. } = factor
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

/// Gives columns plain names where a list renames them, as in `(SELECT "orderId" FROM t) AS q(v)`. The
/// planner reads the names that they have as identifiers without quotes, and does not find them.
struct ListVisitor;

impl VisitorMut for ListVisitor {
    type Break = Infallible;

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        for cte in query.with.iter_mut().flat_map(|with| with.cte_tables.iter_mut()) {
            if !cte.alias.columns.is_empty() {
                name_plainly(&mut cte.query);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor
            && !alias.columns.is_empty()
        {
            name_plainly(subquery);
        }
        ControlFlow::Continue(())
    }
}

/// Where an order, a group or a condition may be about the name, it stays.
fn name_plainly(query: &mut Query) {
    if query.order_by.is_none() {
        name_body(&mut query.body);
    }
}

fn name_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) if is_grouped(select) => (),
        SetExpr::Select(select) => {
            for (at, item) in select.projection.iter_mut().enumerate() {
                let (name, expr) = match &*item {
                    SelectItem::UnnamedExpr(expr @ Expr::Identifier(name)) => (Some(name), expr),
                    SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(parts)) => {
                        (parts.last(), expr)
                    }
                    SelectItem::ExprWithAlias { expr, alias } => (Some(alias), expr),
                    _ => continue,
                };
                if name.is_some_and(needs_quotes) {
                    let (expr, alias) = (expr.clone(), Ident::new(format!("__v{at}")));
                    *item = SelectItem::ExprWithAlias { expr, alias };
                }
            }
        }
        SetExpr::SetOperation { left, .. } => name_body(left),
        SetExpr::Query(query) => name_plainly(query),
        _ => (),
    }
}

fn is_grouped(select: &Select) -> bool {
    let has_groups = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    has_groups || select.having.is_some() || select.qualify.is_some()
}

fn needs_quotes(name: &Ident) -> bool {
    let text = &name.value;
    name.quote_style.is_some() && (text.contains(['.', '"']) || *text != text.to_lowercase())
}
