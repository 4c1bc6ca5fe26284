//! The Durable Object of an event as one value, a struct of its columns.

use crate::template::fill;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DictionaryField, Expr, Ident, Subscript, Value,
};

/// A struct of these members, with their columns and whether one of them alone makes an object. NULL where none
/// does; none without such a member.
pub(super) fn whole(members: &[(&str, Expr, bool)]) -> Option<Expr> {
    let makes_it = members.iter().filter(|(.., makes_it)| *makes_it);
    let nulls = makes_it.map(|(_, column, _)| Expr::IsNull(Box::new(column.clone())));
    let is_absent = nulls.reduce(|one, other| Expr::BinaryOp {
        left: Box::new(one),
        op: BinaryOperator::And,
        right: Box::new(other),
    })?;
    let fields = members.iter().map(|(member, column, _)| DictionaryField {
        key: Ident::with_quote('\'', *member),
        value: Box::new(column.clone()),
    });
    let object = Expr::Dictionary(fields.collect());
    let text = "CASE WHEN __x THEN NULL ELSE __y END";
    Some(fill(text, &[("__x", &is_absent), ("__y", &object)], None))
}

/// The member that `.member` or `['member']` names.
pub(super) fn accessed(access: &AccessExpr) -> Option<Ident> {
    match access {
        AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
        AccessExpr::Subscript(Subscript::Index { index: Expr::Value(literal) }) => {
            match &literal.value {
                Value::SingleQuotedString(text) => Some(Ident::with_quote('"', text.as_str())),
                _ => None,
            }
        }
        _ => None,
    }
}
