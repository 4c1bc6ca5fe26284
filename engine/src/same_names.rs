//! Aggregates, windows and grouped expressions that differ by a cast alone, told apart.
//!
//! The planner calls a cast by what is cast, so `max(ts)` and `max(ts::date)` have one name to it, and it
//! takes no two columns of one name. Of expressions that are alike without their casts, the second has its
//! casts in `coalesce(…)` here, the third in two of them, and so on: names of their own, which
//! the optimizer takes away again. Windows keep theirs, as the casts that the planner adds can make two alike
//! after that. What is written alike is treated alike everywhere in the statement, so
//! that a select list still has what is grouped and sorted by.

use crate::{clauses, template::fill};
use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, GroupByExpr, Ident, Select, SelectItem, Statement, TypedString, Value,
    VisitMut, VisitorMut, visit_expressions,
};
use std::{collections::HashMap, convert::Infallible, mem, ops::ControlFlow};

/// Most expressions of one name that are told apart; the planner refuses more.
const VARIANTS_MAX: usize = 8;

/// Tells the expressions of a statement apart.
pub fn tell_apart(statement: &mut Statement) {
    let has_cast = visit_expressions(&*statement, |part| match is_cast(part) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    if has_cast.is_continue() {
        return;
    }
    let mut found = NamedExpressions::default();
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut found);
    found.variants.retain(|_, variants| 1 < variants.len());
    if !found.variants.is_empty() {
        let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut VariantMarker(found));
    }
}

/// What gets a column with a name of the planner's.
#[derive(Default)]
struct NamedExpressions {
    /// By the text without casts: the texts with them, the one that has none first.
    variants: HashMap<String, Vec<String>>,
    /// Whether some of them are grouped by, and not only functions.
    has_groups: bool,
}

impl NamedExpressions {
    fn note(&mut self, expr: &Expr) {
        let (name, text) = (text_of(expr, false), text_of(expr, true));
        let has_casts = name != text;
        let variants = self.variants.entry(name).or_default();
        if variants.contains(&text) {
            return;
        }
        match has_casts {
            true => variants.push(text),
            false => variants.insert(0, text),
        }
    }

    /// In how many calls the casts of this expression are put.
    fn depth_of(&self, expr: &Expr) -> usize {
        if !self.has_groups && !is_of_many_rows(expr) {
            return 0;
        }
        let Some(variants) = self.variants.get(&text_of(expr, false)) else { return 0 };
        let text = text_of(expr, true);
        let at = variants.iter().position(|variant| *variant == text);
        at.filter(|at| *at < VARIANTS_MAX).unwrap_or(0)
    }
}

impl VisitorMut for NamedExpressions {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        let grouped: &[Expr] = match &select.group_by {
            GroupByExpr::Expressions(grouped, _) if grouped.is_empty() => {
                return ControlFlow::Continue(());
            }
            GroupByExpr::Expressions(grouped, _) => grouped,
            GroupByExpr::All(_) => &[],
        };
        self.has_groups = true;
        grouped.iter().for_each(|expr| self.note(expr));
        for item in &select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                self.note(expr);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        if is_of_many_rows(expr) {
            self.note(expr);
        }
        ControlFlow::Continue(())
    }
}

/// An aggregate or a window.
fn is_of_many_rows(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(call) if call.over.is_some() || clauses::kind(&call.name).0)
}

fn is_cast(expr: &Expr) -> bool {
    matches!(expr, Expr::Cast { .. } | Expr::TypedString(_))
}

/// Puts the casts of each variant into as many calls as tell it from the others.
struct VariantMarker(NamedExpressions);

impl VisitorMut for VariantMarker {
    type Break = Infallible;

    // On the way up, so that what is put in is not looked at again.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        match self.0.depth_of(expr) {
            0 => ControlFlow::Continue(()),
            depth => {
                let is_window = matches!(&*expr, Expr::Function(call) if call.over.is_some());
                let form = if is_window { "value_of(__x)" } else { "coalesce(__x)" };
                VisitMut::visit(expr, &mut CastWrapper { depth, form })
            }
        }
    }
}

struct CastWrapper {
    depth: usize,
    form: &'static str,
}

impl VisitorMut for CastWrapper {
    type Break = Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        // Some clauses take constants alone.
        if let Expr::Cast { expr: inner, .. } = &*expr
            && !matches!(inner.as_ref(), Expr::Value(_))
        {
            for _ in 0..self.depth {
                *expr = fill(self.form, &[("__x", &*expr)], None);
            }
        }
        ControlFlow::Continue(())
    }
}

/// An expression as the planner tells it from others, whatever it is spelled like; with its casts or
/// without.
fn text_of(expr: &Expr, has_casts: bool) -> String {
    let mut expr = expr.clone();
    let ControlFlow::Continue(()) = VisitMut::visit(&mut expr, &mut PlainSpelling { has_casts });
    expr.to_string().to_lowercase()
}

struct PlainSpelling {
    has_casts: bool,
}

impl VisitorMut for PlainSpelling {
    type Break = Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        let made = match expr {
            Expr::Nested(inner) => taken(inner),
            Expr::Cast { expr: inner, .. } if !self.has_casts => taken(inner),
            Expr::TypedString(TypedString { value, .. }) if !self.has_casts => {
                Expr::Value(value.clone())
            }
            Expr::Cast { kind, .. } if *kind == CastKind::DoubleColon => {
                *kind = CastKind::Cast;
                return ControlFlow::Continue(());
            }
            Expr::Identifier(name) => Expr::Identifier(Ident::new(name.value.as_str())),
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(name) => Expr::Identifier(Ident::new(name.value.as_str())),
                None => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        *expr = made;
        ControlFlow::Continue(())
    }
}

fn taken(expr: &mut Expr) -> Expr {
    mem::replace(expr, Expr::value(Value::Null))
}
