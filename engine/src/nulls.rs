//! `IN`, `ANY` and `ALL` over queries, spelled out so that NULLs count as the SQL standard says.
//!
//! DataFusion 54.1 plans `NOT IN` as a join that loses the NULLs unless the left side is a plain
//! column and the condition stands alone (apache/datafusion#25340, #23900, #25336, #25480), and `ANY`
//! and `ALL` as one that keeps every row (#25258); no release mends all of them. Here `NOT IN` of a
//! WHERE becomes conditions with `NOT EXISTS`, and what stands anywhere else becomes a CASE over counts.
//! EXISTS in a select list, for which there is no plan, becomes a count, too.

use crate::template::fill;
use datafusion::sql::sqlparser::ast::{
    Array, BinaryOperator, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Statement,
    TableFactor, TableWithJoins, UnaryOperator, VisitMut, VisitorMut, visit_expressions,
};
use std::{collections::HashSet, convert::Infallible, ops::ControlFlow};

/// Most expressions that are rewritten: each is planned several times.
const REWRITES_MAX: usize = 50;

/// Rewrites every `IN`, `ANY` and `ALL` of a statement whose NULLs would be lost.
///
/// # Errors
/// The statement has too many.
pub fn spell_out(statement: &mut Statement) -> Result<(), String> {
    match statement.visit(&mut NullRewriter::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

const NOT_IN_CONDITION: &str = "(NOT EXISTS (SELECT 1 FROM (SELECT 1) AS __q(v) WHERE __q.v = __x) \
    AND NOT EXISTS (SELECT 1 FROM (SELECT 1) AS __q(v) WHERE __q.v IS NULL) \
    AND (__x IS NOT NULL OR NOT EXISTS (SELECT 1 FROM (SELECT 1) AS __q(v))))";

/// The value of `__x = ANY (query)`: `__hit` if one is equal, else null if one could be, else `__miss`.
const MEMBERSHIP: &str = "CASE \
    WHEN (SELECT count(*) FROM (SELECT 1) AS __q(v) WHERE __q.v = __x) > 0 THEN __hit \
    WHEN (SELECT count(*) FROM (SELECT 1) AS __q(v)) = 0 THEN __miss \
    WHEN __x IS NULL OR (SELECT count(*) FROM (SELECT 1) AS __q(v) WHERE __q.v IS NULL) > 0 THEN NULL \
    ELSE __miss END";

/// The value of a comparison with any or all rows of a query. `__decides` says that there is a row
/// for which it is `__hit`; of no rows it is `__miss`.
const COMPARISON: &str = "CASE \
    WHEN (SELECT count(*) FROM (SELECT 1) AS __q(v)) = 0 THEN __miss \
    WHEN __decides THEN __hit \
    WHEN __x IS NULL OR (SELECT count(*) FROM (SELECT 1) AS __q(v) WHERE __q.v IS NULL) > 0 THEN NULL \
    ELSE __miss END";

#[derive(Default)]
struct NullRewriter {
    /// Addresses of expressions that are right as they are where they stand.
    kept: HashSet<usize>,
    rewrites: usize,
}

impl VisitorMut for NullRewriter {
    type Break = String;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        let around = tables(&select.from).unwrap_or_default();
        let conditions = [&mut select.selection, &mut select.having, &mut select.qualify];
        for condition in conditions.into_iter().flatten() {
            self.condition(condition, &around)?;
        }
        // There the planner has a join for EXISTS, and in a select list for queries with one value.
        let ControlFlow::Continue(()) = select.projection.visit(&mut ExistsCounter::default());
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        if self.kept.contains(&address(expr)) {
            return ControlFlow::Continue(());
        }
        if let Some(made) = value_of(expr) {
            self.count()?;
            *expr = made;
        }
        ControlFlow::Continue(())
    }
}

impl NullRewriter {
    fn count(&mut self) -> ControlFlow<String> {
        self.rewrites += 1;
        if self.rewrites <= REWRITES_MAX {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(format!(
            "the statement has more than {REWRITES_MAX} uses of IN, ANY or ALL over a query; use EXISTS"
        ))
    }

    /// Where only true lets a row pass, null and false are the same, and `IN` may stay a join. `around`
    /// are the tables of the query whose condition it is.
    fn condition(&mut self, expr: &mut Expr, around: &[String]) -> ControlFlow<String> {
        match expr {
            Expr::Nested(inner) => self.condition(inner, around),
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                self.condition(left, around)?;
                self.condition(right, around)
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => {
                if let Some((value, query, negated)) = membership(inner) {
                    *expr = in_subquery(value, query, !negated);
                    return self.condition(expr, around);
                }
                ControlFlow::Continue(())
            }
            _ => match membership(expr) {
                Some((value, query, true)) => {
                    self.count()?;
                    *expr = not_in_condition(&value, &query, around);
                    ControlFlow::Continue(())
                }
                Some((value, query, false)) => {
                    *expr = in_subquery(value, query, false);
                    self.kept.insert(address(expr));
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Continue(()),
            },
        }
    }
}

/// Counts what EXISTS asks for, but not inside of other queries.
#[derive(Default)]
struct ExistsCounter {
    open_queries: usize,
}

impl VisitorMut for ExistsCounter {
    type Break = Infallible;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Infallible> {
        self.open_queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Infallible> {
        self.open_queries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        if let (0, Expr::Exists { subquery, negated }) = (self.open_queries, &*expr)
            && let Some(counted) = counted(subquery)
        {
            let form = if *negated { "(__q = 0)" } else { "(__q > 0)" };
            *expr = fill(form, &[("__q", &Expr::Subquery(Box::new(counted)))], None);
        }
        ControlFlow::Continue(())
    }
}

/// The query with the number of its rows; none for one whose rows do not stand for rows of tables.
fn counted(query: &Query) -> Option<Query> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let mut select = select.clone();
    let calls = select.projection.iter().any(|item| {
        visit_expressions(item, |part| match part {
            Expr::Function(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    });
    if calls || !is_rows_of_tables(query, &select) {
        return None;
    }
    select.projection = vec![SelectItem::UnnamedExpr(fill("count(*)", &[], None))];
    let mut query = query.clone();
    query.order_by = None;
    query.body = Box::new(SetExpr::Select(select));
    Some(query)
}

/// Whether a query is nothing but rows of tables under a condition.
fn is_rows_of_tables(query: &Query, select: &Select) -> bool {
    query.with.is_none()
        && query.limit_clause.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty())
}

fn not_in_condition(value: &Expr, query: &Query, around: &[String]) -> Expr {
    let parts = plain_column(query).filter(|(select, _)| keeps_its_meaning(value, select, around));
    let Some((select, column)) = parts else {
        return fill(NOT_IN_CONDITION, &[("__x", value)], Some(query));
    };
    // What the query takes from the one around it is not found again inside of a derived table.
    let exists = |condition: Option<Expr>| {
        let mut select = select.clone();
        select.selection = match (select.selection.take(), condition) {
            (Some(had), Some(condition)) => {
                Some(fill("__had AND __more", &[("__had", &had), ("__more", &condition)], None))
            }
            (had, condition) => had.or(condition),
        };
        let mut query = query.clone();
        query.body = Box::new(SetExpr::Select(Box::new(select)));
        Expr::Exists { subquery: Box::new(query), negated: true }
    };
    let hit = exists(Some(fill("__v = __x", &[("__v", column), ("__x", value)], None)));
    let unknown = exists(Some(fill("__v IS NULL", &[("__v", column)], None)));
    let holes = [("__hit", &hit), ("__null", &unknown), ("__x", value), ("__none", &exists(None))];
    fill("(__hit AND __null AND (__x IS NOT NULL OR __none))", &holes, None)
}

/// The one column of a query that is nothing but rows of tables under a condition.
fn plain_column(query: &Query) -> Option<(&Select, &Expr)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let is_plain = is_rows_of_tables(query, select);
    let [SelectItem::UnnamedExpr(column) | SelectItem::ExprWithAlias { expr: column, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let has_call = visit_expressions(column, |part| match part {
        Expr::Function(_) | Expr::Subquery(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    (is_plain && has_call.is_continue()).then_some((select, column))
}

/// Whether an expression means the same inside of this query: each of its columns names a table of
/// the query around, and none of this one has that name.
fn keeps_its_meaning(expr: &Expr, select: &Select, around: &[String]) -> bool {
    let Some(inside) = tables(&select.from) else { return false };
    let found = visit_expressions(expr, |part| {
        let keeps = match part {
            Expr::CompoundIdentifier(parts) => parts.first().is_some_and(|table| {
                let table = table.value.to_lowercase();
                around.contains(&table) && !inside.contains(&table)
            }),
            Expr::Identifier(_) | Expr::Subquery(_) => false,
            _ => true,
        };
        if keeps { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    found.is_continue()
}

/// The names by which columns of a FROM are called; none where it has more than tables and queries.
fn tables(from: &[TableWithJoins]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for table in from {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined) {
            let name = match factor {
                TableFactor::Table { alias: Some(alias), .. }
                | TableFactor::Derived { alias: Some(alias), .. } => &alias.name,
                TableFactor::Table { name, .. } => name.0.last()?.as_ident()?,
                _ => return None,
            };
            names.push(name.value.to_lowercase());
        }
    }
    Some(names)
}

fn address(expr: &Expr) -> usize {
    std::ptr::from_ref(expr).addr()
}

fn in_subquery(value: Expr, query: Query, negated: bool) -> Expr {
    Expr::InSubquery { expr: Box::new(value), subquery: Box::new(query), negated }
}

/// What is looked for in which query, and whether it shall not be there.
fn membership(expr: &Expr) -> Option<(Expr, Query, bool)> {
    match expr {
        Expr::Nested(inner) => membership(inner),
        Expr::InSubquery { expr, subquery, negated } => {
            Some((expr.as_ref().clone(), subquery.as_ref().clone(), *negated))
        }
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
            Some((left.as_ref().clone(), query_of(right)?.clone(), false))
        }
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
            Some((left.as_ref().clone(), query_of(right)?.clone(), true))
        }
        _ => None,
    }
}

/// A comparison with any element of a list, whose NULLs the engine counts only in one with all of them.
#[must_use]
pub fn any_of_list(value: &Expr, operator: &BinaryOperator, list: &Expr) -> Option<Expr> {
    if let (BinaryOperator::Eq, Expr::Array(Array { elem, .. })) = (operator, list)
        && !elem.is_empty()
    {
        let (expr, list) = (Box::new(value.clone()), elem.clone());
        return Some(Expr::InList { expr, list, negated: false });
    }
    let none_of_it = match operator {
        BinaryOperator::Eq => "NOT (__x <> ALL (__l))",
        BinaryOperator::NotEq => "NOT (__x = ALL (__l))",
        BinaryOperator::Lt => "NOT (__x >= ALL (__l))",
        BinaryOperator::LtEq => "NOT (__x > ALL (__l))",
        BinaryOperator::Gt => "NOT (__x <= ALL (__l))",
        BinaryOperator::GtEq => "NOT (__x < ALL (__l))",
        _ => return None,
    };
    Some(fill(none_of_it, &[("__x", value), ("__l", list)], None))
}

/// The query that an expression is.
#[must_use]
pub fn query_of(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Subquery(query) => Some(query),
        Expr::Nested(inner) => query_of(inner),
        _ => None,
    }
}

/// The same value without `IN`, `ANY` and `ALL` over a query; none for any other expression.
fn value_of(expr: &Expr) -> Option<Expr> {
    if let Expr::Nested(_) = expr {
        return None;
    }
    if let Some((value, query, negated)) = membership(expr) {
        let (hit, miss) = (truth(!negated), truth(negated));
        let holes = [("__x", &value), ("__hit", &hit), ("__miss", &miss)];
        return Some(fill(MEMBERSHIP, &holes, Some(&query)));
    }
    let (value, operator, right, is_any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, true),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, false),
        _ => return None,
    };
    let query = query_of(right)?;
    let decides = fill(decisive(operator, is_any)?, &[("__x", value)], Some(query));
    let (hit, miss) = (truth(is_any), truth(!is_any));
    let holes =
        [("__x", value.as_ref()), ("__hit", &hit), ("__miss", &miss), ("__decides", &decides)];
    Some(fill(COMPARISON, &holes, Some(query)))
}

fn truth(value: bool) -> Expr {
    Expr::value(datafusion::sql::sqlparser::ast::Value::Boolean(value))
}

/// One row makes ANY true or ALL false: whether there is such a row, by the least or greatest one.
fn decisive(operator: &BinaryOperator, is_any: bool) -> Option<&'static str> {
    Some(match (operator, is_any) {
        (BinaryOperator::Gt, true) => "__x > (SELECT min(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::GtEq, true) => "__x >= (SELECT min(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::Lt, true) => "__x < (SELECT max(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::LtEq, true) => "__x <= (SELECT max(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::Gt, false) => "__x <= (SELECT max(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::GtEq, false) => "__x < (SELECT max(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::Lt, false) => "__x >= (SELECT min(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::LtEq, false) => "__x > (SELECT min(__q.v) FROM (SELECT 1) AS __q(v))",
        (BinaryOperator::NotEq, true) | (BinaryOperator::Eq, false) => {
            "__x <> (SELECT min(__q.v) FROM (SELECT 1) AS __q(v)) \
             OR __x <> (SELECT max(__q.v) FROM (SELECT 1) AS __q(v))"
        }
        _ => return None,
    })
}
