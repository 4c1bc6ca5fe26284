//! `EXCEPT ALL` and `INTERSECT ALL`, which DataFusion 54 plans as joins that count a row once or too often
//! (no release mends it).
//!
//! The copies of a row are numbered on both sides. Then no row is there twice, and the operation
//! without `ALL` over rows with their numbers leaves as many copies as the standard says.

use datafusion::sql::sqlparser::{
    ast::{
        Expr, Ident, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement,
        TableFactor, VisitMut, VisitorMut,
    },
    dialect::GenericDialect,
    parser::Parser,
};
use std::{convert::Infallible, fmt::Write, ops::ControlFlow};

/// Numbers copies in every such operation of a statement.
///
/// # Errors
/// The columns are not written down, so that nothing tells how many there are.
pub fn number_copies(statement: &mut Statement) -> Result<(), String> {
    match statement.visit(&mut MultisetRewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

struct MultisetRewriter;

impl VisitorMut for MultisetRewriter {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        body(&mut query.body)
    }
}

fn body(set: &mut SetExpr) -> ControlFlow<String> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = set else {
        return ControlFlow::Continue(());
    };
    body(left)?;
    body(right)?;
    let word = match (op, set_quantifier) {
        (SetOperator::Except | SetOperator::Minus, SetQuantifier::All) => "EXCEPT",
        (SetOperator::Intersect, SetQuantifier::All) => "INTERSECT",
        _ => return ControlFlow::Continue(()),
    };
    let Some(names) = names_of(left) else {
        return ControlFlow::Break(format!(
            "{word} ALL needs a list of columns; write them in place of `*`"
        ));
    };
    plain_names(left);
    plain_names(right);
    let mut made = skeleton(word, &names);
    let ControlFlow::Continue(()) = VisitMut::visit(&mut made, &mut OperandFiller { left, right });
    *set = made;
    ControlFlow::Continue(())
}

/// The names of the columns that a query's body gives.
fn names_of(set: &SetExpr) -> Option<Vec<String>> {
    match set {
        SetExpr::Select(select) => select.projection.iter().map(name_of).collect(),
        SetExpr::Query(query) => names_of(&query.body),
        SetExpr::SetOperation { left, .. } => names_of(left),
        SetExpr::Values(values) => {
            let columns = values.rows.first()?.content.len();
            Some((1..=columns).map(|at| format!("column{at}")).collect())
        }
        _ => None,
    }
}

fn name_of(item: &SelectItem) -> Option<String> {
    let of_word = |name: &Ident| match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    };
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(of_word(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(of_word(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(of_word),
        SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
        _ => None,
    }
}

/// Gives columns other names where the planner would not find them by their own: it reads them as
/// identifiers without quotes.
fn plain_names(set: &mut SetExpr) {
    match set {
        SetExpr::Select(select) => {
            for (at, item) in select.projection.iter_mut().enumerate() {
                let is_plain = name_of(item).is_none_or(|name| is_plain(&name));
                let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
                    &*item
                else {
                    continue;
                };
                if !is_plain {
                    let alias = Ident::new(format!("__v{at}"));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        // Its order would be by the table's column of that name.
        SetExpr::Query(query) if query.order_by.is_none() => plain_names(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            plain_names(left);
            plain_names(right);
        }
        _ => (),
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Both sides as `__a` and `__b`, each with the number of a copy, and the columns of the first under
/// their own names.
fn skeleton(word: &str, names: &[String]) -> SetExpr {
    let columns: Vec<String> = (0..names.len()).map(|at| format!("__v{at}")).collect();
    let columns = columns.join(", ");
    let mut shown = String::new();
    for (at, name) in names.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let name = Ident::with_quote('"', name);
        write!(shown, "{comma}__v{at} AS {name}").expect("a text takes whatever is written");
    }
    let side = |name: &str| {
        format!(
            "SELECT {columns}, row_number() OVER (PARTITION BY {columns}) AS __n FROM (SELECT 1) AS {name}({columns})"
        )
    };
    let text = format!("SELECT {shown} FROM ({} {word} {}) AS __c", side("__a"), side("__b"));
    let parser = Parser::new(&GenericDialect {}).try_with_sql(&text);
    let query = parser.and_then(|mut parser| parser.parse_query()).expect("the skeleton is SQL");
    *query.body
}

struct OperandFiller<'a> {
    left: &'a SetExpr,
    right: &'a SetExpr,
}

impl VisitorMut for OperandFiller<'_> {
    type Break = Infallible;

    // On the way up, so that what is put in is not searched.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Infallible> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor {
            match alias.name.value.as_str() {
                "__a" => subquery.body.as_mut().clone_from(self.left),
                "__b" => subquery.body.as_mut().clone_from(self.right),
                _ => (),
            }
        }
        ControlFlow::Continue(())
    }
}
