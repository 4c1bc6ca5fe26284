//! What an expression is for all rows of a data file, as far as the file's manifest entry tells.
//!
//! Its one invariant: a range has the value of the expression for each row, and a condition that is true for all
//! rows is true for each. What is not understood has no range and is not true for all.

use crate::scanned_file::{ScannedFile, ValueRange};
use arrow::{
    array::RecordBatchOptions,
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::ScalarValue,
    logical_expr::{ColumnarValue, Operator},
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, Literal},
    },
};
use icecore_lake::event::rows::UTC;
use std::{cmp::Ordering, sync::Arc};

/// A function whose value does not go down where that of its second argument goes up.
const TRUNCATION: &str = "date_trunc";

/// Where the values of `expr` are in the rows of `file`, which are read with `schema`. None where one may be
/// null.
#[must_use]
pub fn range_of(
    expr: &Arc<dyn PhysicalExpr>,
    file: &ScannedFile,
    schema: &Schema,
) -> Option<ValueRange> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        let field = schema.fields().get(column.index())?;
        return file.range(field.name(), field.data_type());
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        let value = literal.value();
        let has_order = !value.is_null() && !value.data_type().is_floating();
        return has_order.then(|| ValueRange::at(value.clone()));
    }
    let place = place_of_time(expr, schema)?;
    let children = expr.children();
    let ValueRange { lowest, highest } = range_of(children.get(place)?, file, schema)?;
    let lowest = value_at(expr, place, lowest)?;
    let highest = value_at(expr, place, highest)?;
    Some(ValueRange { lowest, highest })
}

/// The one value that `expr` has in all rows of `file`, which are read with `schema`: null where a column has no value
/// in any of them.
#[must_use]
pub fn constant_of(
    expr: &Arc<dyn PhysicalExpr>,
    file: &ScannedFile,
    schema: &Schema,
) -> Option<ScalarValue> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        let field = schema.fields().get(column.index())?;
        if file.nulls(field.name()) == Some(file.rows()) {
            return ScalarValue::try_new_null(field.data_type()).ok();
        }
    }
    range_of(expr, file, schema)?.only().cloned()
}

/// Where a function has the time that it follows: its value stays or goes up as the time goes up. All columns
/// with a time are in UTC, so no hour comes twice.
fn place_of_time(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<usize> {
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        let [unit, _] = call.args() else { return None };
        return (call.name() == TRUNCATION && unit.is::<Literal>()).then_some(1);
    }
    let cast = expr.downcast_ref::<CastExpr>()?;
    let from = cast.expr().data_type(schema).ok()?;
    let DataType::Timestamp(_, zone) = from else { return None };
    let is_utc = zone.is_none_or(|zone| &*zone == UTC);
    (is_utc && *cast.cast_type() == DataType::Date32).then_some(0)
}

/// What `expr` is where the argument at `place` is `value`.
fn value_at(expr: &Arc<dyn PhysicalExpr>, place: usize, value: ScalarValue) -> Option<ScalarValue> {
    let mut children: Vec<Arc<dyn PhysicalExpr>> =
        expr.children().into_iter().map(Arc::clone).collect();
    *children.get_mut(place)? = Arc::new(Literal::new(value));
    let expr = Arc::clone(expr).with_new_children(children).ok()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).ok()?;
    let value = match expr.evaluate(&row).ok()? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0).ok()?,
    };
    (!value.is_null()).then_some(value)
}

/// Whether a condition is true for all rows of `file`, which are read with `schema`.
#[must_use]
pub fn is_true_for_all(
    condition: &Arc<dyn PhysicalExpr>,
    file: &ScannedFile,
    schema: &Schema,
) -> bool {
    let holds = |part: &Arc<dyn PhysicalExpr>| is_true_for_all(part, file, schema);
    let range = |part: &Arc<dyn PhysicalExpr>| range_of(part, file, schema);
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And => holds(binary.left()) && holds(binary.right()),
            Operator::Or => holds(binary.left()) || holds(binary.right()),
            operator => match (range(binary.left()), range(binary.right())) {
                (Some(left), Some(right)) => compares(*operator, &left, &right),
                _ => false,
            },
        };
    }
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        let Some(range) = range(list.expr()).filter(|_| !list.negated()) else { return false };
        let mut values = list.list().iter().filter_map(|value| value.downcast_ref::<Literal>());
        return range.only().is_some_and(|only| values.any(|value| value.value() == only));
    }
    if let Some(check) = condition.downcast_ref::<IsNotNullExpr>() {
        let column = check.arg().downcast_ref::<Column>();
        let field = column.and_then(|column| schema.fields().get(column.index()));
        return field.is_some_and(|field| file.nulls(field.name()) == Some(0));
    }
    let only = range(condition).and_then(|range| range.only().cloned());
    only == Some(ScalarValue::Boolean(Some(true)))
}

/// Whether a comparison is true for each value of `left` with each of `right`. Values of different types have no
/// order here.
fn compares(operator: Operator, left: &ValueRange, right: &ValueRange) -> bool {
    let order = |one: &ScalarValue, other: &ScalarValue| one.partial_cmp(other);
    let is_below = |one: &ValueRange, other: &ValueRange| {
        order(&one.highest, &other.lowest) == Some(Ordering::Less)
    };
    let is_not_above = |one: &ValueRange, other: &ValueRange| {
        matches!(order(&one.highest, &other.lowest), Some(Ordering::Less | Ordering::Equal))
    };
    match operator {
        Operator::Lt => is_below(left, right),
        Operator::LtEq => is_not_above(left, right),
        Operator::Gt => is_below(right, left),
        Operator::GtEq => is_not_above(right, left),
        // Each is at most and at least the other.
        Operator::Eq => is_not_above(left, right) && is_not_above(right, left),
        Operator::NotEq => is_below(left, right) || is_below(right, left),
        _ => false,
    }
}
