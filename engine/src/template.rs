//! Pieces of SQL with holes, for rewriting a parsed statement.

use datafusion::sql::sqlparser::{
    ast::{Expr, Ident, Query, SelectItem, SetExpr, TableFactor, VisitMut, VisitorMut},
    dialect::GenericDialect,
    parser::Parser,
};
use std::{collections::HashMap, ops::ControlFlow};

/// The table whose query is put in its place, as in `FROM (SELECT 1) AS __q(v)`.
pub const QUERY: &str = "__q";

/// The expression that `text` is, with identifiers replaced by what `holes` has for them, and the
/// derived table [`QUERY`] by `query`.
///
/// # Panics
/// The text is not SQL.
#[must_use]
pub fn fill(text: &str, holes: &[(&'static str, &Expr)], query: Option<&Query>) -> Expr {
    let mut expr = Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .expect("a template is SQL");
    let holes = holes.iter().map(|(name, expr)| (*name, *expr)).collect();
    let ControlFlow::Continue(()) =
        VisitMut::visit(&mut expr, &mut TemplateFiller { holes, query });
    expr
}

/// Gives what has no name one: the planner does not find a column again that is called `NULL`.
fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for (at, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                {
                    let alias = Ident::new(format!("__v{at}"));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        SetExpr::SetOperation { left, .. } => name_columns(left),
        SetExpr::Query(query) => name_columns(&mut query.body),
        _ => (),
    }
}

struct TemplateFiller<'a> {
    holes: HashMap<&'static str, &'a Expr>,
    query: Option<&'a Query>,
}

impl VisitorMut for TemplateFiller<'_> {
    type Break = std::convert::Infallible;

    // On the way up, so that what is put in is not searched for holes.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::Identifier(name) = expr
            && let Some(filling) = self.holes.get(name.value.as_str())
        {
            *expr = Expr::Nested(Box::new((*filling).clone()));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor
            && alias.name.value == QUERY
            && let Some(query) = self.query
        {
            subquery.as_mut().clone_from(query);
            name_columns(&mut subquery.body);
        }
        ControlFlow::Continue(())
    }
}
