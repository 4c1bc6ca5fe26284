//! Names for columns that would have none, or one that another has.

use crate::{dialect::is_translated, functions::members, prepare::exact};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Select, SelectItem, SetExpr, Statement, Visit, VisitMut, VisitorMut,
    visit_expressions,
};
use std::{collections::HashSet, convert::Infallible, ops::ControlFlow};

/// What stands before the name of a column that has the name of an earlier one; the answer leaves
/// it out.
const REPEATED: char = '\u{1}';

/// Writes the names.
pub(super) fn write(statement: &mut Statement) {
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut ExpressionLabels);
}

/// The name that an answer shows for a column.
#[must_use]
pub fn shown_name(name: &str) -> &str {
    match name.strip_prefix(REPEATED).and_then(|rest| rest.split_once(REPEATED)) {
        Some((_, name)) => name,
        None => name,
    }
}

/// Gives columns without a name of their own the text of their expression: the planner calls a cast
/// by what is cast, and then two columns have one name (DataFusion 54 takes no such projection).
struct ExpressionLabels;

impl VisitorMut for ExpressionLabels {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && needs_label(expr)
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Self::Break> {
        if let Statement::Query(query) = statement {
            let mut used = HashSet::new();
            names_in(&query.order_by, &mut used);
            let mut body = query.body.as_mut();
            while let SetExpr::Query(inner) = body {
                body = inner.body.as_mut();
            }
            if let SetExpr::Select(select) = body {
                // The labels come first: what they make alike is told apart here.
                self.pre_visit_select(select)?;
                names_in(&select.group_by, &mut used);
                names_in(&select.having, &mut used);
                names_in(&select.qualify, &mut used);
                tell_apart(&mut select.projection, &used);
            }
        }
        ControlFlow::Continue(())
    }
}

fn needs_label(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |part| {
        let is_it = match part {
            Expr::Value(literal) => exact::too_long(&literal.value).is_some(),
            Expr::Cast { .. }
            | Expr::TypedString(_)
            | Expr::AtTimeZone { .. }
            | Expr::InSubquery { .. }
            | Expr::Subquery(_)
            | Expr::Exists { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. } => true,
            Expr::Function(call) => is_translated(call),
            Expr::BinaryOp { op, .. } => members::of_operator(op).is_some(),
            _ => false,
        };
        if is_it { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_break()
}

/// Columns of one name in the outermost select list; `used` are names that other clauses look for.
fn tell_apart(projection: &mut [SelectItem], used: &HashSet<String>) {
    let has_wildcard = projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken = HashSet::new();
    for (at, item) in projection.iter_mut().enumerate() {
        let (expr, shown, is_alias) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr, shown_as(expr), false),
            SelectItem::ExprWithAlias { expr, alias } => {
                let is_quoted = alias.quote_style.is_some();
                let name = &alias.value;
                (expr, if is_quoted { name.clone() } else { name.to_lowercase() }, true)
            }
            _ => continue,
        };
        // A column alone and behind its table are the same, and those of two tables are not.
        let (texts, may_be_in_wildcard) = match expr {
            _ if is_alias => {
                (vec![shown.clone(), format!("*.{shown}")], !used.contains(&shown.to_lowercase()))
            }
            Expr::Identifier(name) => (vec![name.value.clone(), format!("*.{}", name.value)], true),
            Expr::CompoundIdentifier(_) => (vec![expr.to_string(), shown.clone()], true),
            _ => (vec![shown.clone()], false),
        };
        let is_known = texts.iter().any(|text| taken.contains(&text.to_lowercase()));
        taken.insert(texts[0].to_lowercase());
        if let (Expr::CompoundIdentifier(_), false) = (expr, is_alias) {
            taken.insert(format!("*.{shown}").to_lowercase());
        }
        if is_known || has_wildcard && may_be_in_wildcard {
            let alias = Ident::with_quote('"', format!("{REPEATED}{at}{REPEATED}{shown}"));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// The names alone that stand in these clauses.
fn names_in(clause: &impl Visit, names: &mut HashSet<String>) {
    let ControlFlow::Continue(()) = visit_expressions(clause, |part| {
        if let Expr::Identifier(name) = part {
            names.insert(name.value.to_lowercase());
        }
        ControlFlow::<Infallible>::Continue(())
    });
}

/// The name that the column of an expression has.
fn shown_as(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map_or_else(String::new, |name| name.value.clone())
        }
        other => other.to_string(),
    }
}
