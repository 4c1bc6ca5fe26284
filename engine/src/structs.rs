//! Structs as DuckDB's functions make them, and their members behind a point.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, DictionaryField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, Statement, Subscript, Value, VisitMut, VisitorMut,
};
use std::{convert::Infallible, ops::ControlFlow};

/// `struct_pack(a := x, b := y)` as `{'a': x, 'b': y}`; none where an argument has no name.
#[must_use]
pub fn packed(call: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let fields = list.args.iter().map(|argument| match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
            let key = Ident::with_quote('\'', name.value.as_str());
            Some(DictionaryField { key, value: Box::new(value.clone()) })
        }
        _ => None,
    });
    fields.collect::<Option<Vec<_>>>().map(Expr::Dictionary)
}

/// Writes members of values, such as `(s).a` and `l[1].a`, as `(s)['a']`, which the planner knows.
pub fn read_members(statement: &mut Statement) {
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut MemberReader);
}

struct MemberReader;

impl VisitorMut for MemberReader {
    type Break = Infallible;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        let Expr::CompoundFieldAccess { root, access_chain } = expr else {
            return ControlFlow::Continue(());
        };
        // Behind a name a point may be the one between a table and its column.
        let is_name = matches!(**root, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        let mut is_value = !is_name;
        for access in access_chain {
            let member = match access {
                AccessExpr::Dot(Expr::Identifier(name)) if is_value => folded(name),
                AccessExpr::Dot(_) => continue,
                AccessExpr::Subscript(_) => {
                    is_value = true;
                    continue;
                }
            };
            let index = Expr::value(Value::SingleQuotedString(member));
            *access = AccessExpr::Subscript(Subscript::Index { index });
        }
        ControlFlow::Continue(())
    }
}

/// The name that an identifier is.
fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::Grammar;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn a_point_behind_a_value_takes_a_member() {
        for (sql, expected) in [
            ("SELECT (s).A.\"B\"", "SELECT (s)['a']['B']"),
            ("SELECT ({'b': {'c': [4]}}).b.c[1]", "SELECT ({'b': {'c': [4]}})['b']['c'][1]"),
            ("SELECT t.l[1].a FROM t", "SELECT t.l[1]['a'] FROM t"),
            // What may be a column of a table stays.
            ("SELECT t.s.a, t.l[1] FROM t", "SELECT t.s.a, t.l[1] FROM t"),
        ] {
            let mut statement = Parser::parse_sql(&Grammar::default(), sql).unwrap().remove(0);
            read_members(&mut statement);
            assert_eq!(statement.to_string(), expected);
        }
    }
}
