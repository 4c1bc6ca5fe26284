//! Lists that one value is held against twice.
//!
//! DataFusion 54 makes one list of two that AND or OR joins, and true or false of an empty one: then
//! NULL, which is in no list and not outside of one either, is lost.

use crate::same_type::SameTypeKind;
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    logical_expr::{BinaryExpr, Expr, Operator},
};

/// Hides the lists of the right side from those of the left side.
///
/// # Errors
/// None of its own.
pub fn of_expr(expr: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) = &expr
    else {
        return Ok(Transformed::no(expr));
    };
    let (seen, others) = (values(left)?, values(right)?);
    let is_twice = |value: &Expr| seen.iter().any(|(of, _)| of == value);
    let has_list = seen.iter().chain(&others).any(|(_, is_list)| *is_list);
    if !has_list || !others.iter().any(|(value, _)| is_twice(value)) {
        return Ok(Transformed::no(expr));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { unreachable!("see above") };
    let right = right.transform_down(|part| {
        Ok(match value(&part).is_some_and(|(value, _)| is_twice(value)) {
            true => {
                Transformed::new(SameTypeKind::Opaque.call(part), true, TreeNodeRecursion::Jump)
            }
            false => Transformed::no(part),
        })
    })?;
    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(right.data) })))
}

/// The values that a condition holds against constants, and whether against a list.
fn values(condition: &Expr) -> Result<Vec<(Expr, bool)>, DataFusionError> {
    let mut found = Vec::new();
    condition.apply(|part| {
        found.extend(value(part).map(|(value, is_list)| (value.clone(), is_list)));
        let goes_on = matches!(
            part,
            Expr::Not(_) | Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. })
        );
        Ok(if goes_on { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Jump })
    })?;
    Ok(found)
}

fn value(condition: &Expr) -> Option<(&Expr, bool)> {
    match condition {
        Expr::InList(list) => Some((&list.expr, true)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq | Operator::NotEq, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Literal(..), value) | (value, Expr::Literal(..)) => Some((value, false)),
                _ => None,
            }
        }
        _ => None,
    }
}
