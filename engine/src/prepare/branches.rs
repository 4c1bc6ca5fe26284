//! CASE as the way to say what is evaluated first.
//!
//! DataFusion 54 makes conditions with AND and OR of a CASE whose values are true and false, and evaluates
//! those in any order (apache/datafusion#25136, mended by #25143). Here such a CASE gives numbers, of which a
//! cast makes truth values again, where one of its parts can fail.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator},
};

/// Keeps the order of a CASE.
///
/// # Errors
/// None of its own.
pub fn of_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::Case(case) = expr else { return Ok(Transformed::no(expr)) };
    let is_truth = |value: &Expr| value.get_type(schema).is_ok_and(|it| it == DataType::Boolean);
    let gives_truth = case.when_then_expr.iter().any(|(_, then)| is_truth(then))
        || case.else_expr.as_ref().is_some_and(|last| is_truth(last));
    if case.expr.is_some() || !gives_truth || !parts(&case).any(|part| can_fail(part, schema)) {
        return Ok(Transformed::no(Expr::Case(case)));
    }
    let number = |value: Box<Expr>| Box::new(cast(*value, DataType::Int8));
    let pairs = case.when_then_expr.into_iter().map(|(when, then)| (when, number(then)));
    let case =
        Case { expr: None, when_then_expr: pairs.collect(), else_expr: case.else_expr.map(number) };
    Ok(Transformed::yes(cast(Expr::Case(case), DataType::Boolean)))
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

fn parts(case: &Case) -> impl Iterator<Item = &Expr> {
    let pairs = case.when_then_expr.iter().flat_map(|(when, then)| [when, then]);
    pairs.chain(&case.else_expr).map(AsRef::as_ref)
}

/// Whether there may be a row for which this is an error.
fn can_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let found = expr.exists(|part| {
        Ok(match part {
            Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }) => false,
            // The planner casts sides of different types.
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let types = (left.get_type(schema), right.get_type(schema));
                let alike = matches!(types, (Ok(left), Ok(right)) if left == right
                    || left.is_string() && right.is_string());
                !alike || op.is_numerical_operators()
            }
            Expr::Column(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_) => false,
            _ => true,
        })
    });
    found.unwrap_or(true)
}
