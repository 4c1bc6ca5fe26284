//! A query's filters as the catalog's planner reads them.
//!
//! Its one invariant: what is translated is true for every row for which the expression is; what
//! has no translation is unknown.

use crate::buckets;
use arrow::datatypes::{DataType, Schema as ArrowSchema, TimeUnit};
use datafusion::{
    common::{Column, ScalarValue},
    logical_expr::{Between, BinaryExpr, Expr, Like, Operator, expr::InList},
};
use iceberg::spec::{Datum, PrimitiveType, Schema, Transform};
use icecore_catalog::scan::filter::{Comparison, Filter, FilterTest, Term, ValueCheck};
use icecore_lake::event::rows::UTC;

/// Largest whole number that a 64-bit float has exactly.
const EXACT_MAX: i64 = 1 << 53;
/// Most buckets that Iceberg's arithmetic has.
const BUCKETS_MAX: u32 = i32::MAX.cast_unsigned();

/// The condition that follows from an expression over these columns.
#[must_use]
pub fn translate(expression: &Expr, columns: &Schema, schema: &ArrowSchema) -> Filter {
    FilterTranslator { columns, schema }.condition(expression).unwrap_or(Filter::Unknown)
}

struct FilterTranslator<'a> {
    columns: &'a Schema,
    schema: &'a ArrowSchema,
}

impl FilterTranslator<'_> {
    fn condition(&self, expression: &Expr) -> Option<Filter> {
        let whole = |expression| self.condition(expression).unwrap_or(Filter::Unknown);
        match expression {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => Some(Filter::True),
            // A condition that is null selects nothing, but its opposite neither.
            Expr::Literal(ScalarValue::Boolean(Some(false)), _) => Some(Filter::False),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                Some(whole(left).and(whole(right)))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                Some(whole(left).or(whole(right)))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.comparison(left, *op, right),
            Expr::Not(inner) => Some(whole(inner).negate()),
            Expr::IsNull(inner) => self.column(inner).map(|term| test(term, ValueCheck::IsNull)),
            Expr::IsNotNull(inner) => {
                self.column(inner).map(|term| test(term, ValueCheck::NotNull))
            }
            Expr::Column(_) => self.boolean(expression, true),
            Expr::IsTrue(inner) => self.boolean(inner, true),
            Expr::IsFalse(inner) => self.boolean(inner, false),
            Expr::InList(list) => self.in_list(list),
            Expr::Between(Between { expr, negated, low, high }) => {
                let low = self.comparison(expr, Operator::GtEq, low).unwrap_or(Filter::Unknown);
                let high = self.comparison(expr, Operator::LtEq, high).unwrap_or(Filter::Unknown);
                let between = low.and(high);
                Some(if *negated { between.negate() } else { between })
            }
            Expr::Like(like) => self.like(like).or_else(|| self.some_value(&like.expr)),
            _ => None,
        }
    }

    fn comparison(&self, left: &Expr, operator: Operator, right: &Expr) -> Option<Filter> {
        if let Expr::Literal(value, _) = left {
            return self.comparison_with(right, operator.swap()?, value);
        }
        let Expr::Literal(value, _) = right else { return None };
        self.comparison_with(left, operator, value)
    }

    fn comparison_with(
        &self,
        side: &Expr,
        operator: Operator,
        value: &ScalarValue,
    ) -> Option<Filter> {
        let comparison = match operator {
            Operator::Lt => Comparison::Less,
            Operator::LtEq => Comparison::LessOrEqual,
            Operator::Gt => Comparison::Greater,
            Operator::GtEq => Comparison::GreaterOrEqual,
            Operator::Eq => Comparison::Equal,
            Operator::NotEq => Comparison::NotEqual,
            _ => return None,
        };
        if let Some(term) = self.bucket(side) {
            return Some(test(term, ValueCheck::Compare(comparison, bucket_number(value)?)));
        }
        match side {
            Expr::Cast(cast) => {
                let column = self.column(&cast.expr)?;
                let from = self.arrow_type(&cast.expr)?;
                through_cast(column, from, comparison, value)
            }
            _ => match self.value(side, value) {
                Some(value) => {
                    Some(test(self.column(side)?, ValueCheck::Compare(comparison, value)))
                }
                None => self.some_value(side),
            },
        }
    }

    /// A condition of a column that is not true where it has no value. What else it says is not known here.
    fn some_value(&self, side: &Expr) -> Option<Filter> {
        Some(test(self.column(side)?, ValueCheck::NotNull).and(Filter::Unknown))
    }

    fn boolean(&self, side: &Expr, value: bool) -> Option<Filter> {
        let term = self.column(side)?;
        let check = ValueCheck::Compare(Comparison::Equal, Datum::bool(value));
        (term.result == PrimitiveType::Boolean).then(|| test(term, check))
    }

    fn in_list(&self, InList { expr, list, negated }: &InList) -> Option<Filter> {
        let of_bucket = self.bucket(expr);
        let values: Option<Vec<Datum>> = list
            .iter()
            .map(|item| match item {
                Expr::Literal(value, _) if of_bucket.is_some() => bucket_number(value),
                Expr::Literal(value, _) => self.value(expr, value),
                _ => None,
            })
            .collect();
        let term = of_bucket.or_else(|| self.column(expr))?;
        let values = values?;
        Some(test(term, if *negated { ValueCheck::NotIn(values) } else { ValueCheck::In(values) }))
    }

    fn like(&self, like: &Like) -> Option<Filter> {
        let Expr::Literal(pattern, _) = like.pattern.as_ref() else { return None };
        let pattern = text_of_literal(pattern)?;
        if like.case_insensitive || like.escape_char.is_some() || pattern.contains('\\') {
            return None;
        }
        let term = self.column(&like.expr)?;
        if term.result != PrimitiveType::String {
            return None;
        }
        let Some(wildcard_at) = pattern.find(['%', '_']) else {
            let comparison = if like.negated { Comparison::NotEqual } else { Comparison::Equal };
            return Some(test(term, ValueCheck::Compare(comparison, Datum::string(pattern))));
        };
        let (prefix, rest) = pattern.split_at(wildcard_at);
        if prefix.is_empty() {
            return None;
        }
        let prefix = prefix.to_owned();
        match (like.negated, rest) {
            (true, "%") => Some(test(term, ValueCheck::NotStartsWith(prefix))),
            // What does not match the whole pattern may still start like it.
            (true, _) => None,
            // The opposite of what follows does not follow from the opposite.
            (false, "%") => Some(test(term, ValueCheck::StartsWith(prefix))),
            (false, _) => {
                let starts = test(term, ValueCheck::StartsWith(prefix));
                Some(starts.and(Filter::Unknown))
            }
        }
    }

    /// The buckets of a column of texts.
    fn bucket(&self, expression: &Expr) -> Option<Term> {
        let Expr::ScalarFunction(call) = expression else { return None };
        let [Expr::Literal(ScalarValue::Int64(Some(count)), _), column] = call.args.as_slice()
        else {
            return None;
        };
        let term = self.column(column).filter(|_| call.func.name() == buckets::FUNCTION)?;
        let count = u32::try_from(*count).ok().filter(|count| (1..=BUCKETS_MAX).contains(count))?;
        let is_text = term.source == PrimitiveType::String;
        is_text.then(|| term.transformed(Transform::Bucket(count)).ok()).flatten()
    }

    /// A column of the table as it is, however its text is laid out.
    fn column(&self, expression: &Expr) -> Option<Term> {
        Term::column(self.columns, &self.named(expression)?.name, true).ok()
    }

    fn arrow_type(&self, expression: &Expr) -> Option<&DataType> {
        Some(self.schema.field_with_name(&self.named(expression)?.name).ok()?.data_type())
    }

    fn named<'e>(&self, expression: &'e Expr) -> Option<&'e Column> {
        match expression {
            // A name with a dot is not a path here.
            Expr::Column(column) if self.schema.field_with_name(&column.name).is_ok() => {
                Some(column)
            }
            _ => None,
        }
    }

    /// A literal that has the type of the column beside it.
    fn value(&self, column: &Expr, value: &ScalarValue) -> Option<Datum> {
        let kind = self.arrow_type(column)?;
        // To SQL, NaN is above every number, and no bound covers it.
        if kind.is_floating() {
            return None;
        }
        let value_kind = value.data_type();
        let same = value_kind == *kind
            || is_text(kind) && text_of_literal(value).is_some()
            || is_same_time(kind, &value_kind);
        datum(&self.column(column)?.result, value).filter(|_| same)
    }
}

fn test(term: Term, check: ValueCheck) -> Filter {
    Filter::Test(FilterTest { term, check })
}

/// The number of a bucket, as partitions have it.
fn bucket_number(value: &ScalarValue) -> Option<Datum> {
    let ScalarValue::Int64(Some(number)) = value else { return None };
    i32::try_from(*number).ok().map(Datum::int)
}

/// A comparison of a column that is cast first: what follows for the column itself.
fn through_cast(
    term: Term,
    from: &DataType,
    comparison: Comparison,
    value: &ScalarValue,
) -> Option<Filter> {
    if is_text(from) && text_of_literal(value).is_some() {
        let value = datum(&term.result, value)?;
        return Some(test(term, ValueCheck::Compare(comparison, value)));
    }
    if !keeps_order(from, &value.data_type()) {
        return None;
    }
    let (lowest, highest) = behind(from, value)?;
    let at = |value: i64| match from {
        DataType::Int32 => i32::try_from(value).ok().map(Datum::int),
        DataType::Date32 => i32::try_from(value).ok().map(Datum::date),
        _ => Some(match term.result {
            PrimitiveType::Timestamp => Datum::timestamp_micros(value),
            PrimitiveType::Timestamptz => Datum::timestamptz_micros(value),
            PrimitiveType::TimestampNs => Datum::timestamp_nanos(value),
            PrimitiveType::TimestamptzNs => Datum::timestamptz_nanos(value),
            _ => Datum::long(value),
        }),
    };
    let (lowest, highest) = (at(lowest)?, at(highest)?);
    let from_below = test(term.clone(), ValueCheck::Compare(Comparison::GreaterOrEqual, lowest));
    let to_above = test(term, ValueCheck::Compare(Comparison::LessOrEqual, highest));
    // What follows may be true where the comparison is not, so its opposite must stay unknown.
    Some(Filter::Unknown.and(match comparison {
        Comparison::Less | Comparison::LessOrEqual => to_above,
        Comparison::Greater | Comparison::GreaterOrEqual => from_below,
        Comparison::Equal => from_below.and(to_above),
        Comparison::NotEqual => return None,
    }))
}

/// A range of the column's values that has all whose cast is `value`, and splits the others.
fn behind(from: &DataType, value: &ScalarValue) -> Option<(i64, i64)> {
    let back = |value: &ScalarValue| match value.cast_to(from).ok()? {
        ScalarValue::Int32(Some(value)) | ScalarValue::Date32(Some(value)) => {
            Some(i64::from(value))
        }
        ScalarValue::Int64(Some(value))
        | ScalarValue::TimestampMicrosecond(Some(value), _)
        | ScalarValue::TimestampNanosecond(Some(value), _) => Some(value),
        _ => None,
    };
    let near = back(value)?;
    if let (DataType::Timestamp(..), ScalarValue::Date32(Some(day))) = (from, value) {
        let next = back(&ScalarValue::Date32(Some(day.checked_add(1)?)))?;
        return Some((near, next.checked_sub(1)?));
    }
    if EXACT_MAX < near.checked_abs()? && value.data_type().is_floating() {
        return None;
    }
    // The value may lie between two of the column's, and casting it back rounds it to either.
    Some((near.checked_sub(1)?, near.checked_add(1)?))
}

/// Whether both count the same unit from the same start, whatever they call UTC.
fn is_same_time(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::Timestamp(one, _), DataType::Timestamp(other, _)) => {
            one == other && keeps_order(left, right)
        }
        _ => false,
    }
}

/// Whether casting a column of one type to the other keeps the order of its values, and keeps them
/// apart but for the times of a day.
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    let is_utc = |zone: &Option<std::sync::Arc<str>>| {
        zone.as_deref().is_none_or(|zone| matches!(zone, "UTC" | UTC | "Z"))
    };
    match (from, to) {
        (DataType::Int32 | DataType::Int64, DataType::Int64 | DataType::Float64) => true,
        (DataType::Date32, DataType::Timestamp(_, zone)) => is_utc(zone),
        (DataType::Timestamp(_, zone), DataType::Date32) => is_utc(zone),
        (DataType::Timestamp(from_unit, from), DataType::Timestamp(to_unit, to)) => {
            let is_finer = from_unit == to_unit
                || (*from_unit, *to_unit) == (TimeUnit::Microsecond, TimeUnit::Nanosecond);
            is_finer && is_utc(from) && is_utc(to)
        }
        _ => false,
    }
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn text_of_literal(value: &ScalarValue) -> Option<&str> {
    value.try_as_str()?
}

/// A literal as a value of the column's type; none for null and for types that are not pruned on.
fn datum(kind: &PrimitiveType, value: &ScalarValue) -> Option<Datum> {
    Some(match (kind, value) {
        (PrimitiveType::Boolean, ScalarValue::Boolean(Some(value))) => Datum::bool(*value),
        (PrimitiveType::Int, ScalarValue::Int32(Some(value))) => Datum::int(*value),
        (PrimitiveType::Long, ScalarValue::Int64(Some(value))) => Datum::long(*value),
        (PrimitiveType::Float, ScalarValue::Float32(Some(value))) => Datum::float(*value),
        (PrimitiveType::Double, ScalarValue::Float64(Some(value))) => Datum::double(*value),
        (PrimitiveType::Date, ScalarValue::Date32(Some(value))) => Datum::date(*value),
        (PrimitiveType::Timestamp, ScalarValue::TimestampMicrosecond(Some(value), _)) => {
            Datum::timestamp_micros(*value)
        }
        (PrimitiveType::Timestamptz, ScalarValue::TimestampMicrosecond(Some(value), _)) => {
            Datum::timestamptz_micros(*value)
        }
        (PrimitiveType::TimestampNs, ScalarValue::TimestampNanosecond(Some(value), _)) => {
            Datum::timestamp_nanos(*value)
        }
        (PrimitiveType::TimestamptzNs, ScalarValue::TimestampNanosecond(Some(value), _)) => {
            Datum::timestamptz_nanos(*value)
        }
        (PrimitiveType::String, value) => Datum::string(text_of_literal(value)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
