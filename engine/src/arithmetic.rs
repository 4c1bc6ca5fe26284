//! Arithmetic that fails where its result does not fit, and floats of one zero and one NaN.
//!
//! DataFusion 54 wraps around silently when whole numbers or decimals overflow. Its physical
//! `BinaryExpr` has a switch for the former that no planner sets. An interval has no order that all of
//! its operators share.

use crate::same_type::SameTypeKind;
use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::kernels::numeric,
    datatypes::{DataType, Decimal128Type, Decimal256Type},
};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        exec_datafusion_err, plan_err,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{
        BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator,
        ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TryCast, Volatility,
        expr::ScalarFunction, expr_rewriter::NamePreserver, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
    physical_expr_common::datum::apply,
};
use std::{any::Any, fmt::Write, sync::Arc};

/// Rewrites a plan whose types are settled.
#[derive(Debug)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }

    fn analyze(
        &self,
        plan: LogicalPlan,
        _: &ConfigOptions,
    ) -> Result<LogicalPlan, DataFusionError> {
        plan.transform_up_with_subqueries(of_plan).map(|done| done.data)
    }
}

fn of_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let schema = merge_schema(&plan.inputs());
    refuse_order_of_intervals(&plan, &schema)?;
    let names = NamePreserver::new(&plan);
    let done = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_up(|part| checked(part, &schema))?;
        Ok(if done.transformed { done.update_data(|expr| name.restore(expr)) } else { done })
    })?;
    if done.transformed { done.map_data(LogicalPlan::recompute_schema) } else { Ok(done) }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let makes_float = match &expr {
        // One with its sign is a constant for the planner already.
        Expr::Literal(ScalarValue::Float64(Some(value)), metadata)
            if value.to_bits() == (-0.0_f64).to_bits() =>
        {
            let zero = ScalarValue::Float64(Some(0.0));
            return Ok(Transformed::yes(Expr::Literal(zero, metadata.clone())));
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply),
            right,
        }) => {
            let returns = expr.get_type(schema)?;
            if returns.is_integer() || is_decimal(&returns) {
                let (mut ops, mut args) = chain(left, &returns);
                ops.push(*op);
                args.push(right.as_ref().clone());
                let signature = Signature::variadic_any(Volatility::Immutable);
                let func = Arc::new(ScalarUDF::from(CheckedChain { ops, returns, signature }));
                return Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })));
            }
            if returns.is_floating() {
                // What is asked of the last one is asked of all.
                let inner =
                    |side: &Expr| SameTypeKind::OneZero.inner_of(side).unwrap_or(side).clone();
                let sides = BinaryExpr::new(Box::new(inner(left)), *op, Box::new(inner(right)));
                return Ok(Transformed::yes(SameTypeKind::OneZero.call(Expr::BinaryExpr(sides))));
            }
            false
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, .. })
        | Expr::Negative(_) => true,
        // Of numbers that have one zero and one NaN a cast makes no other.
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => {
            // But the least negative doubles are negative zeros as floats of half the size.
            expr.get_type(schema).is_ok_and(|kind| kind.is_string() || kind == DataType::Float64)
        }
        // A field of a struct is read as it is in the table.
        Expr::ScalarFunction(call) => call.func.name() != "get_field",
        _ => false,
    };
    let is_float = |expr: &Expr| expr.get_type(schema).is_ok_and(|kind| kind.is_floating());
    Ok(if makes_float && is_float(&expr) && SameTypeKind::OneZero.inner_of(&expr).is_none() {
        Transformed::yes(SameTypeKind::OneZero.call(expr))
    } else {
        Transformed::no(expr)
    })
}

/// What the left side of an operation does already, if it is a chain of them in the same type: one
/// function of many steps is planned in a fraction of the time of many around one another.
fn chain(left: &Expr, returns: &DataType) -> (Vec<Operator>, Vec<Expr>) {
    if let Expr::ScalarFunction(ScalarFunction { func, args }) = left
        && let Some(inner) = (func.inner().as_ref() as &dyn Any).downcast_ref::<CheckedChain>()
        && inner.returns == *returns
        && returns.is_integer()
    {
        return (inner.ops.clone(), args.clone());
    }
    (Vec::new(), vec![left.clone()])
}

fn is_decimal(kind: &DataType) -> bool {
    matches!(kind, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// Sorting and grouping compare intervals field by field.
fn refuse_order_of_intervals(plan: &LogicalPlan, schema: &DFSchema) -> Result<(), DataFusionError> {
    let keys: Vec<&Expr> = match plan {
        LogicalPlan::Sort(sort) => sort.expr.iter().map(|sort| &sort.expr).collect(),
        LogicalPlan::Aggregate(aggregate) => {
            let mut keys: Vec<&Expr> = aggregate.group_expr.iter().collect();
            for call in &aggregate.aggr_expr {
                if let Expr::AggregateFunction(call) = call {
                    keys.extend(call.params.order_by.iter().map(|sort| &sort.expr));
                    if is_of_order(call.func.name()) {
                        keys.extend(&call.params.args);
                    }
                }
            }
            keys
        }
        LogicalPlan::Window(window) => {
            let mut keys = Vec::new();
            for call in &window.window_expr {
                if let Expr::WindowFunction(call) = call {
                    keys.extend(&call.params.partition_by);
                    keys.extend(call.params.order_by.iter().map(|sort| &sort.expr));
                    if is_of_order(call.fun.name()) {
                        keys.extend(&call.params.args);
                    }
                }
            }
            keys
        }
        _ => return Ok(()),
    };
    for key in keys {
        if let Ok(DataType::Interval(_)) = key.get_type(schema) {
            return plan_err!(
                "the interval `{key}` cannot be sorted or grouped by; use extract(epoch from …)"
            );
        }
    }
    Ok(())
}

fn is_of_order(function: &str) -> bool {
    ["max", "min", "mode"].contains(&function)
}

/// Operations from left to right that fail where a result does not fit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedChain {
    ops: Vec<Operator>,
    returns: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for CheckedChain {
    fn name(&self) -> &'static str {
        "checked"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String, DataFusionError> {
        let Some((first, rest)) = args.split_first() else { return Ok(self.name().to_owned()) };
        let mut text = first.to_string();
        for (op, arg) in self.ops.iter().zip(rest) {
            write!(text, " {op} {arg}").map_err(|cause| DataFusionError::External(cause.into()))?;
        }
        Ok(text)
    }

    // Columns are told apart by this name, so it says which operations they are.
    fn schema_name(&self, args: &[Expr]) -> Result<String, DataFusionError> {
        let ops: String = self.ops.iter().map(ToString::to_string).collect();
        let args: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(format!("checked{ops}({})", args.join(",")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let Some((first, rest)) = args.args.split_first() else {
            return plan_err!("an operation has two sides");
        };
        let mut made = first.clone();
        for (op, right) in self.ops.iter().zip(rest) {
            let operation = match op {
                Operator::Plus => numeric::add,
                Operator::Minus => numeric::sub,
                _ => numeric::mul,
            };
            made = match apply(&made, right, operation)? {
                ColumnarValue::Array(array) => ColumnarValue::Array(fitting(array, &self.returns)?),
                ColumnarValue::Scalar(value) => {
                    fitting(value.to_array()?, &self.returns)?;
                    ColumnarValue::Scalar(value)
                }
            };
        }
        Ok(made)
    }
}

/// Refuses a decimal with more digits than its type has.
fn fitting(array: ArrayRef, kind: &DataType) -> Result<ArrayRef, DataFusionError> {
    let checked = match (array.data_type(), kind) {
        (DataType::Decimal128(..), DataType::Decimal128(precision, _)) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)
        }
        (DataType::Decimal256(..), DataType::Decimal256(precision, _)) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision)
        }
        _ => Ok(()),
    };
    checked.map_err(|cause| exec_datafusion_err!("overflow of a decimal: {cause}"))?;
    Ok(array)
}
