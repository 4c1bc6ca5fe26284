//! Functions of time whose answers DataFusion 54 cuts off: seconds without their parts, and instants that
//! end in 2262.

use crate::time;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::{DFSchema, ScalarValue, tree_node::Transformed},
    error::DataFusionError,
    functions::expr_fn::{date_part, round},
    logical_expr::{Cast, Expr, ExprSchemable, expr::ScalarFunction, lit},
};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;

/// Puts what has no bound in its place.
///
/// # Errors
/// None of its own.
pub fn of_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::ScalarFunction(ScalarFunction { ref func, ref args }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let made = match (func.name(), args.as_slice()) {
        ("date_part", [part, time]) => parts_of_seconds(part, time, schema),
        ("to_timestamp", [value]) => instant(&expr, value, schema),
        _ => None,
    };
    Ok(made.map_or_else(|| Transformed::no(expr), Transformed::yes))
}

/// `second` and `millisecond` have the parts of a second behind the point, as in PostgreSQL.
fn parts_of_seconds(part: &Expr, time: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::Literal(name, _) = part else { return None };
    let micros = match name.try_as_str().flatten()?.to_lowercase().as_str() {
        "second" | "seconds" | "sec" | "secs" => 1e6,
        "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => 1e3,
        _ => return None,
    };
    let is_clock = matches!(
        time.get_type(schema),
        Ok(DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Interval(_))
    );
    let whole = cast(date_part(lit("microsecond"), time.clone()), DataType::Float64);
    is_clock.then(|| whole / lit(micros))
}

/// An instant in microseconds, from seconds since 1970 or from a text.
fn instant(call: &Expr, value: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Ok(DataType::Timestamp(_, zone)) = call.get_type(schema) else { return None };
    let to = DataType::Timestamp(TimeUnit::Microsecond, zone);
    let value = value.clone();
    let micros = match value.get_type(schema).ok()? {
        found if found.is_string() => return Some(cast(completed(value), to)),
        found if found.is_integer() => cast(value, DataType::Int64) * lit(SECOND),
        found if found.is_numeric() => {
            let micros = cast(value, DataType::Float64) * lit(1e6);
            cast(round(vec![micros]), DataType::Int64)
        }
        _ => return None,
    };
    Some(cast(micros, to))
}

/// Arrow wants to see seconds.
fn completed(text: Expr) -> Expr {
    let complete = match &text {
        Expr::Literal(value, _) => value.try_as_str().flatten().and_then(time::with_seconds),
        _ => None,
    };
    complete.map_or(text, lit)
}

fn cast(expr: Expr, to: DataType) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Null, _) => expr,
        other => Expr::Cast(Cast::new(Box::new(other), to)),
    }
}
