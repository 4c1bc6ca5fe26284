//! Filters and values in the JSON of the REST specification.
//!
//! Its one invariant: a filter that is written and read again is the same filter.

use super::filter::{Comparison, Filter, FilterTest, Term, ValueCheck};
use iceberg::spec::{Datum, Literal, PrimitiveLiteral, PrimitiveType, Schema, Transform, Type};
use serde_json::{Value, json};

/// Most expressions inside one another: the readers of JSON, ours among them, stop at 128 levels.
pub const DEPTH_MAX: usize = 100;

/// Reads an expression.
///
/// # Errors
/// Which part of it is not understood, and why.
pub fn parse(json: &Value, schema: &Schema, case_sensitive: bool) -> Result<Filter, String> {
    FilterParser { schema, case_sensitive }.expression(json, 1)
}

/// Writes an expression.
#[must_use]
pub fn write(filter: &Filter) -> Value {
    match filter {
        // Whoever is told nothing checks nothing, so what is not known must not be written; it
        // never comes from JSON.
        Filter::True | Filter::Unknown => json!(true),
        Filter::False => json!(false),
        Filter::And(left, right) => {
            json!({"type": "and", "left": write(left), "right": write(right)})
        }
        Filter::Or(left, right) => {
            json!({"type": "or", "left": write(left), "right": write(right)})
        }
        Filter::Test(test) => write_test(test),
    }
}

fn write_test(FilterTest { term, check }: &FilterTest) -> Value {
    let kind = check_name(check);
    let term = match term.transform {
        Transform::Identity => json!(term.name),
        transform => {
            json!({"type": "transform", "transform": transform.to_string(), "term": term.name})
        }
    };
    match check {
        ValueCheck::IsNull | ValueCheck::NotNull | ValueCheck::IsNan | ValueCheck::NotNan => {
            json!({"type": kind, "term": term})
        }
        ValueCheck::Compare(_, value) => {
            json!({"type": kind, "term": term, "value": write_datum(value)})
        }
        ValueCheck::StartsWith(prefix) | ValueCheck::NotStartsWith(prefix) => {
            json!({"type": kind, "term": term, "value": prefix})
        }
        ValueCheck::In(values) | ValueCheck::NotIn(values) => {
            let values: Vec<_> = values.iter().map(write_datum).collect();
            json!({"type": kind, "term": term, "values": values})
        }
    }
}

fn check_name(check: &ValueCheck) -> &'static str {
    match check {
        ValueCheck::IsNull => "is-null",
        ValueCheck::NotNull => "not-null",
        ValueCheck::IsNan => "is-nan",
        ValueCheck::NotNan => "not-nan",
        ValueCheck::Compare(Comparison::Less, _) => "lt",
        ValueCheck::Compare(Comparison::LessOrEqual, _) => "lt-eq",
        ValueCheck::Compare(Comparison::Greater, _) => "gt",
        ValueCheck::Compare(Comparison::GreaterOrEqual, _) => "gt-eq",
        ValueCheck::Compare(Comparison::Equal, _) => "eq",
        ValueCheck::Compare(Comparison::NotEqual, _) => "not-eq",
        ValueCheck::In(_) => "in",
        ValueCheck::NotIn(_) => "not-in",
        ValueCheck::StartsWith(_) => "starts-with",
        ValueCheck::NotStartsWith(_) => "not-starts-with",
    }
}

fn write_datum(value: &Datum) -> Value {
    write_value(value.literal(), value.data_type())
}

/// How UTC is written in a time.
const UTC: &str = "+00:00";

/// A value in the specification's form; null where it has none, as NaN.
#[must_use]
pub fn write_value(value: &PrimitiveLiteral, kind: &PrimitiveType) -> Value {
    let text = |per_second: i64, zone: &str| match value {
        PrimitiveLiteral::Long(value) => write_time(*value, per_second, zone),
        _ => Value::Null,
    };
    match kind {
        PrimitiveType::Timestamp => text(1_000_000, ""),
        PrimitiveType::Timestamptz => text(1_000_000, UTC),
        PrimitiveType::TimestampNs => text(1_000_000_000, ""),
        PrimitiveType::TimestamptzNs => text(1_000_000_000, UTC),
        PrimitiveType::Fixed(_) | PrimitiveType::Binary => match value {
            PrimitiveLiteral::Binary(bytes) => json!(hex::encode_upper(bytes)),
            _ => Value::Null,
        },
        _ => {
            let literal = Literal::Primitive(value.clone());
            literal.try_into_json(&Type::Primitive(kind.clone())).unwrap_or_default()
        }
    }
}

/// An instant with all digits of its precision.
fn write_time(value: i64, per_second: i64, zone: &str) -> Value {
    let seconds = value.div_euclid(per_second);
    let fraction = value.rem_euclid(per_second);
    let digits = if per_second == 1_000_000 { 6 } else { 9 };
    let Some(start) = seconds.checked_mul(1_000_000) else { return Value::Null };
    let whole = Literal::timestamp(start);
    let whole = whole.try_into_json(&Type::Primitive(PrimitiveType::Timestamp));
    match whole {
        Ok(Value::String(whole)) => json!(format!("{whole}.{fraction:0digits$}{zone}")),
        _ => Value::Null,
    }
}

struct FilterParser<'a> {
    schema: &'a Schema,
    case_sensitive: bool,
}

impl FilterParser<'_> {
    fn expression(&self, json: &Value, depth: usize) -> Result<Filter, String> {
        if DEPTH_MAX < depth {
            return Err(format!("the expression is more than {DEPTH_MAX} levels deep"));
        }
        let constant = |is_true: bool| if is_true { Filter::True } else { Filter::False };
        if let Some(is_true) = json.as_bool() {
            return Ok(constant(is_true));
        }
        let kind = json["type"].as_str().ok_or_else(|| {
            format!(
                "an expression must be true, false or an object with a `type`, not {}",
                shown(json)
            )
        })?;
        let kind = kind.to_ascii_lowercase().replace('_', "-");
        match kind.as_str() {
            "true" => Ok(Filter::True),
            "false" => Ok(Filter::False),
            "literal" => json["value"].as_bool().map(constant).ok_or_else(|| {
                "the `value` of a literal expression must be true or false".to_owned()
            }),
            "and" | "or" => {
                let left = self.expression(part(json, "left")?, depth + 1)?;
                let right = self.expression(part(json, "right")?, depth + 1)?;
                Ok(if kind == "and" { left.and(right) } else { left.or(right) })
            }
            "not" => Ok(self.expression(part(json, "child")?, depth + 1)?.negate()),
            _ => self.test(&kind, json),
        }
    }

    fn test(&self, kind: &str, json: &Value) -> Result<Filter, String> {
        let compared = |comparison| {
            let term = self.term(json)?;
            let value = parse_value(part(json, "value")?, &term)?;
            Ok((term, ValueCheck::Compare(comparison, value)))
        };
        let plain = |check| Ok((self.term(json)?, check));
        let (term, check) = match kind {
            "is-null" => plain(ValueCheck::IsNull),
            "not-null" => plain(ValueCheck::NotNull),
            "is-nan" => plain(ValueCheck::IsNan),
            "not-nan" => plain(ValueCheck::NotNan),
            "lt" => compared(Comparison::Less),
            "lt-eq" => compared(Comparison::LessOrEqual),
            "gt" => compared(Comparison::Greater),
            "gt-eq" => compared(Comparison::GreaterOrEqual),
            "eq" => compared(Comparison::Equal),
            "not-eq" => compared(Comparison::NotEqual),
            "in" => self.values(json).map(|(term, values)| (term, ValueCheck::In(values))),
            "not-in" => self.values(json).map(|(term, values)| (term, ValueCheck::NotIn(values))),
            "starts-with" => {
                self.prefix(json).map(|(term, prefix)| (term, ValueCheck::StartsWith(prefix)))
            }
            "not-starts-with" => {
                self.prefix(json).map(|(term, prefix)| (term, ValueCheck::NotStartsWith(prefix)))
            }
            _ => Err(format!("`{kind}` is not a type of expression")),
        }?;
        Ok(Filter::Test(FilterTest { term, check }))
    }

    fn term(&self, json: &Value) -> Result<Term, String> {
        let term = part(json, "term")?;
        if let Some(name) = term.as_str() {
            return Term::column(self.schema, name, self.case_sensitive);
        }
        match term["type"].as_str() {
            Some("reference") => self.term(term),
            Some("transform") => {
                let name = part(term, "transform")?.as_str().unwrap_or_default();
                let transform = name
                    .parse::<Transform>()
                    .map_err(|_| format!("`{name}` is not a transform"))?;
                self.term(term)?.transformed(transform)
            }
            _ => Err(format!(
                "a term must be a column's name, or an object of type reference or transform, not {}",
                shown(term)
            )),
        }
    }

    fn values(&self, json: &Value) -> Result<(Term, Vec<Datum>), String> {
        let term = self.term(json)?;
        let values = part(json, "values")?.as_array().ok_or("`values` must be a list")?;
        let values: Result<_, _> = values.iter().map(|value| parse_value(value, &term)).collect();
        Ok((term, values?))
    }

    fn prefix(&self, json: &Value) -> Result<(Term, String), String> {
        let term = self.term(json)?;
        let value = unwrapped(part(json, "value")?);
        match (value.as_str(), &term.result) {
            (Some(prefix), PrimitiveType::String) => Ok((term, prefix.to_owned())),
            _ => Err(format!("only strings have a prefix: `{}` is {}", term.name, term.result)),
        }
    }
}

fn part<'a>(json: &'a Value, name: &str) -> Result<&'a Value, String> {
    json.get(name).ok_or_else(|| format!("the expression {} has no `{name}`", shown(json)))
}

/// A literal may stand in an object that says that it is one.
fn unwrapped(json: &Value) -> &Value {
    if json["type"] == "literal" { &json["value"] } else { json }
}

fn parse_value(json: &Value, term: &Term) -> Result<Datum, String> {
    let json = unwrapped(json);
    let value = match (&term.result, json) {
        (PrimitiveType::Timestamp, Value::String(text)) => {
            read_time(text, 1_000_000, false).map(Datum::timestamp_micros)
        }
        (PrimitiveType::Timestamptz, Value::String(text)) => {
            read_time(text, 1_000_000, true).map(Datum::timestamptz_micros)
        }
        (PrimitiveType::TimestampNs, Value::String(text)) => {
            read_time(text, 1_000_000_000, false).map(Datum::timestamp_nanos)
        }
        (PrimitiveType::TimestamptzNs, Value::String(text)) => {
            read_time(text, 1_000_000_000, true).map(Datum::timestamptz_nanos)
        }
        // A number that the column cannot hold still compares with those that it holds.
        (PrimitiveType::Int | PrimitiveType::Long, Value::Number(number)) => {
            number.as_i64().map(|value| match (i32::try_from(value), &term.result) {
                (Ok(value), PrimitiveType::Int) => Datum::int(value),
                _ => Datum::long(value),
            })
        }
        (PrimitiveType::Decimal { scale, .. }, Value::String(text))
            if !fits_scale(text, *scale) =>
        {
            return Err(format!("{text} has more than the {scale} decimals of `{}`", term.name));
        }
        (kind, json) => {
            let read = Literal::try_from_json(json.clone(), &Type::Primitive(kind.clone()));
            read.ok()
                .flatten()
                .and_then(|literal| super::filter::datum(&literal.as_primitive_literal()?, kind))
        }
    };
    value.ok_or_else(|| {
        format!(
            "{} is not of type {}, as needed to compare it with `{}`",
            shown(json),
            term.result,
            term.name
        )
    })
}

/// Whether a decimal's text has no digits beyond the scale that its column has.
fn fits_scale(text: &str, scale: u32) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.trim_end_matches('0').len();
    usize::try_from(scale).is_ok_and(|scale| digits <= scale)
}

/// An instant in units of its precision. Without an offset it is in UTC.
fn read_time(text: &str, per_second: i64, has_zone: bool) -> Option<i64> {
    let (local, offset_minutes) = split_offset(text)?;
    if offset_minutes != 0 && !has_zone {
        return None;
    }
    let (whole, fraction) = local.split_once('.').unwrap_or((local, ""));
    let whole = if whole.len() == "2026-01-01T00:00".len() {
        format!("{whole}:00")
    } else {
        whole.to_owned()
    };
    let kind = Type::Primitive(PrimitiveType::Timestamp);
    let read = Literal::try_from_json(Value::String(whole), &kind).ok()??;
    let PrimitiveLiteral::Long(micros) = read.as_primitive_literal()? else { return None };
    let seconds = micros / 1_000_000 - i64::from(offset_minutes) * 60;
    let digits = if per_second == 1_000_000 { 6 } else { 9 };
    let fits = fraction.bytes().all(|digit| digit.is_ascii_digit())
        && fraction.trim_end_matches('0').len() <= digits;
    if !fits {
        return None;
    }
    let kept: String = fraction.chars().chain("000000000".chars()).take(digits).collect();
    seconds.checked_mul(per_second)?.checked_add(kept.parse().ok()?)
}

/// A time's text without its offset, and the offset in minutes.
fn split_offset(text: &str) -> Option<(&str, i32)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let time_at = text.find('T')?;
    let Some(sign_at) = text[time_at..].find(['+', '-']) else { return Some((text, 0)) };
    let (local, offset) = text.split_at(time_at + sign_at);
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<i32>().ok()? * 60 + minutes.parse::<i32>().ok()?;
    Some((local, if offset.starts_with('-') { -minutes } else { minutes }))
}

/// A value for a message, cut when it is long.
fn shown(json: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 120;
    let text = json.to_string();
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    format!("{}…", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests;
