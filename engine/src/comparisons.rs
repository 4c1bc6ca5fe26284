//! Comparisons, and sums of dates, as SQL means them, where the planner's own coercions compare something else.
//!
//! - A truth value and a text: the text is read as one, as in PostgreSQL.
//! - A time and a text: DataFusion 54 reads the text as nanoseconds, which end in 2262.
//! - Intervals: it compares months, then days, then nanoseconds, so `90 days` is above `1 year`, and an
//!   age is below any day (no release mends it).
//! - A date and an interval: it keeps a date, and so loses the hours; the standard has a timestamp.
//!   Between dates it promises days and makes a duration.
//! - Lists: it takes `x IN (1, NULL) AND x NOT IN (2, NULL)` for `x IN (1)`, as if nothing were unknown (no
//!   release mends it).
//! - The clock is nanoseconds, and beside it a column of microseconds would have to be, too.

use crate::{functions::returned, time};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::{
    common::{DFSchema, ScalarValue, config::ConfigOptions, plan_err, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{
        Between, BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, Operator,
        ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::{InList, ScalarFunction},
        expr_rewriter::FunctionRewrite,
        lit,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use std::sync::Arc;

/// Functions of the clock and of texts that answer in nanoseconds.
const IN_NANOSECONDS: &[&str] = &["now", "to_timestamp"];

/// Puts both sides of a comparison into one type before the planner does.
#[derive(Debug)]
pub struct ComparisonTypes;

impl FunctionRewrite for ComparisonTypes {
    fn name(&self) -> &'static str {
        "compare_as_meant"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>, DataFusionError> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                let [left, right] = alike([*left, *right], schema);
                Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(left),
                    op,
                    Box::new(right),
                )))
            }
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::Plus | Operator::Minus),
                right,
            }) => of_dates(*left, op, *right, schema)?,
            Expr::Between(Between { expr, negated, low, high }) => {
                let [expr, low, high] = alike([*expr, *low, *high], schema);
                Transformed::yes(Expr::Between(Between::new(
                    Box::new(expr),
                    negated,
                    Box::new(low),
                    Box::new(high),
                )))
            }
            Expr::InList(InList { expr, list, negated }) => {
                let mut sides = vec![*expr];
                sides.extend(list);
                make_alike(&mut sides, schema);
                let value = sides.remove(0);
                Transformed::yes(of_list(value, sides, negated))
            }
            Expr::ScalarFunction(ref call) if IN_NANOSECONDS.contains(&call.func.name()) => {
                match expr.get_type(schema) {
                    Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone)) => {
                        let micros = DataType::Timestamp(TimeUnit::Microsecond, zone);
                        Transformed::yes(cast(expr, micros))
                    }
                    _ => Transformed::no(expr),
                }
            }
            other => Transformed::no(other),
        })
    }
}

/// The types of a select list are settled before expressions are rewritten.
impl ExprPlanner for ComparisonTypes {
    fn plan_binary_op(
        &self,
        RawBinaryExpr { op, left, right }: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>, DataFusionError> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        let mut sides = [left, right];
        if matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
            make_boolean(&mut sides, schema);
        }
        let [left, right] = sides;
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// Whether an operator says how two values of one type stand to each other.
#[must_use]
pub fn is_comparison(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn alike<const N: usize>(mut sides: [Expr; N], schema: &DFSchema) -> [Expr; N] {
    make_alike(&mut sides, schema);
    sides
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

/// `IN` over a list of constants that are there, beside a comparison with each other item.
fn of_list(value: Expr, list: Vec<Expr>, negated: bool) -> Expr {
    let (known, others): (Vec<Expr>, Vec<Expr>) =
        list.into_iter().partition(|item| is_null(item) == Some(false));
    if others.is_empty() || value.is_volatile() {
        return Expr::InList(InList::new(Box::new(value), [known, others].concat(), negated));
    }
    let (equal, either) =
        if negated { (Operator::NotEq, Operator::And) } else { (Operator::Eq, Operator::Or) };
    let binary = |left: Expr, op, right| {
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
    };
    let mut parts: Vec<Expr> = others
        .into_iter()
        .map(|item| match is_null(&item) {
            Some(true) => lit(ScalarValue::Boolean(None)),
            _ => binary(value.clone(), equal, item),
        })
        .collect();
    if !known.is_empty() {
        parts.push(Expr::InList(InList::new(Box::new(value), known, negated)));
    }
    // Joined in pairs, so that a long list is no deep expression.
    while 1 < parts.len() {
        let mut pairs = parts.into_iter();
        let mut joined = Vec::new();
        while let Some(left) = pairs.next() {
            joined.push(match pairs.next() {
                Some(right) => binary(left, either, right),
                None => left,
            });
        }
        parts = joined;
    }
    parts.pop().unwrap_or_else(|| lit(negated))
}

/// Whether a constant is null; none for what is worked out first.
fn is_null(item: &Expr) -> Option<bool> {
    match item {
        Expr::Literal(value, _) => Some(value.is_null()),
        Expr::Cast(Cast { expr, .. }) | Expr::Negative(expr) => is_null(expr),
        _ => None,
    }
}

/// A sum or difference in which a date is moved by an interval, or compared with another.
fn of_dates(
    left: Expr,
    op: Operator,
    right: Expr,
    schema: &DFSchema,
) -> Result<Transformed<Expr>, DataFusionError> {
    let again = |left: Expr, right: Expr| {
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
    };
    let kinds = (left.get_type(schema).ok(), right.get_type(schema).ok());
    let time = || DataType::Timestamp(TimeUnit::Microsecond, None);
    let days = |date: Expr| cast(cast(date, DataType::Int32), DataType::Int64);
    Ok(match (kinds.0, kinds.1) {
        (Some(DataType::Date32), Some(DataType::Interval(_) | DataType::Duration(_))) => {
            Transformed::yes(again(cast(left, time()), right))
        }
        (Some(DataType::Interval(_) | DataType::Duration(_)), Some(DataType::Date32)) => {
            Transformed::yes(again(left, cast(right, time())))
        }
        (Some(DataType::Date32), Some(DataType::Date32)) if op == Operator::Minus => {
            Transformed::yes(again(days(left), days(right)))
        }
        (Some(DataType::Time64(_) | DataType::Time32(_)), Some(DataType::Interval(_)))
        | (Some(DataType::Interval(_)), Some(DataType::Time64(_) | DataType::Time32(_))) => {
            return plan_err!(
                "a time of day cannot be combined with an interval here: add the interval to the timestamp that it is taken from"
            );
        }
        _ => Transformed::no(again(left, right)),
    })
}

/// Casts texts to truth values, texts and dates to times, and intervals to microseconds, where they are
/// compared with such.
fn make_alike(sides: &mut [Expr], schema: &DFSchema) {
    let types: Vec<Option<DataType>> =
        sides.iter().map(|side| side.get_type(schema).ok()).collect();
    let is_span = |kind: &DataType| matches!(kind, DataType::Interval(_) | DataType::Duration(_));
    if types.iter().flatten().any(is_span) {
        for (side, kind) in sides.iter_mut().zip(&types) {
            if text_of(side).is_some() {
                let interval = DataType::Interval(IntervalUnit::MonthDayNano);
                *side = micros(cast(side.clone(), interval));
            } else if kind.as_ref().is_some_and(is_span) {
                *side = micros(side.clone());
            }
        }
        return;
    }
    if make_boolean(sides, schema) {
        return;
    }
    let times = types.iter().flatten().filter(|kind| matches!(kind, DataType::Timestamp(..)));
    // With a zone before without, as the planner would choose.
    let Some(time) = times.max_by_key(|kind| matches!(kind, DataType::Timestamp(_, Some(_))))
    else {
        return;
    };
    for (side, kind) in sides.iter_mut().zip(&types) {
        let is_date = matches!(kind, Some(DataType::Date32 | DataType::Date64));
        if let Some(text) = text_of(side) {
            let text = time::with_seconds(text).unwrap_or_else(|| text.to_owned());
            *side = cast(lit(text), time.clone());
        } else if is_date {
            *side = cast(side.clone(), time.clone());
        }
    }
}

/// Casts texts beside a truth value to truth values; whether there is one.
fn make_boolean(sides: &mut [Expr], schema: &DFSchema) -> bool {
    let is_it = |side: &Expr| side.get_type(schema).is_ok_and(|kind| kind == DataType::Boolean);
    if !sides.iter().any(is_it) {
        return false;
    }
    for side in sides.iter_mut().filter(|side| text_of(side).is_some()) {
        *side = cast(side.clone(), DataType::Boolean);
    }
    true
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

fn micros(span: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let func = Arc::new(ScalarUDF::from(IntervalMicros { signature }));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![span] })
}

/// How long an interval or a duration is, in microseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalMicros {
    signature: Signature,
}

impl ScalarUDFImpl for IntervalMicros {
    fn name(&self) -> &'static str {
        "interval_micros"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        returned(&args.args, time::interval_micros(&arrays[0])?)
    }
}
