//! Numbers with a point, which are exact beside exact numbers.
//!
//! DataFusion 54 reads `8.21` as a double, and compares it with a decimal as decimals of 15 digits behind the
//! point, so that 8.21 is not 8.21. Here a number of the statement is a decimal where it is compared with, or
//! added to, decimals and whole numbers; beside a double that is no constant decimals become doubles. This is
//! what PostgreSQL does, but that a number alone stays a double.

use crate::{comparisons::is_comparison, same_type::SameTypeKind, template::fill};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, DecimalType,
};
use datafusion::{
    common::{
        DFSchema, ScalarValue, plan_err,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{
        Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator,
        expr::{InList, InSubquery, ScalarFunction},
        lit,
    },
    sql::sqlparser::ast::{self, Value},
};

/// Below it, a whole number as a double is on the same side of a double as it is itself.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Functions whose arguments are of one type, and in which it is the answer's.
const OF_ONE_TYPE: &[&str] = &["coalesce", "greatest", "least", "nullif", "nvl"];

/// Significant digits that a double has for every number.
const DOUBLE_DIGITS: usize = 15;

/// The decimal for a number of the statement that has more digits than a double.
#[must_use]
pub fn too_long(value: &Value) -> Option<ast::Expr> {
    let Value::Number(text, _) = value else { return None };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = whole.bytes().chain(part.bytes()).all(|letter| letter.is_ascii_digit());
    let digits = whole.trim_start_matches('0').len() + part.len();
    let precision = digits.max(1);
    let is_long = DOUBLE_DIGITS < format!("{whole}{part}").trim_matches('0').len();
    let is_whole = part.is_empty() && text.parse::<u64>().is_ok();
    if !is_plain || !is_long || is_whole || usize::from(DECIMAL128_MAX_PRECISION) < precision {
        return None;
    }
    let cast = format!("CAST('{text}' AS DECIMAL({precision},{}))", part.len());
    Some(fill(&cast, &[], None))
}

/// Settles the numbers of one expression whose parts are settled.
///
/// # Errors
/// An operation on the bits of a number that is not whole.
pub fn of_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(Transformed::yes(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let mut sides = vec![*left, *right];
            compare(&mut sides, schema);
            binary(sides, op)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_exact_operation(op) => {
            let mut sides = vec![*left, *right];
            add(&mut sides, schema);
            binary(sides, op)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_of_bits(op) => {
            for side in [&left, &right] {
                let found = side.get_type(schema);
                if found.is_ok_and(|found| found.is_numeric() && !found.is_integer()) {
                    return plan_err!(
                        "`{op}` takes whole numbers, not `{side}`; cast it to bigint"
                    );
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let mut sides = vec![*expr, *low, *high];
            compare(&mut sides, schema);
            let mut sides = sides.into_iter().map(Box::new);
            let mut next = || sides.next().expect("three went in");
            Expr::Between(Between::new(next(), negated, next(), next()))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut sides = vec![*expr];
            sides.extend(list);
            compare(&mut sides, schema);
            let expr = Box::new(sides.remove(0));
            Expr::InList(InList::new(expr, sides, negated))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let found = subquery.subquery.schema().fields().first().map(|field| field.data_type());
            let of_query = found.map_or(NumberKind::Other, kind_of_type);
            let expr = match (kind(&expr, schema), of_query) {
                (NumberKind::Exact, NumberKind::Float) if is_decimal(&expr, schema) => {
                    to_double(*expr)
                }
                (NumberKind::Open, NumberKind::Exact) => to_exact(&expr).unwrap_or(*expr),
                _ => *expr,
            };
            Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated })
        }
        Expr::Cast(Cast { expr, field }) if is_decimal_type(field.data_type()) => {
            let is_open = kind(&expr, schema) == NumberKind::Open;
            let exact = if is_open { to_exact(&expr) } else { None };
            Expr::Cast(Cast { expr: exact.map_or(expr, Box::new), field })
        }
        Expr::Negative(inner) if needs_function(&inner, schema) => {
            SameTypeKind::Negative.call(*inner)
        }
        Expr::Case(case) => Expr::Case(of_case(case, schema)),
        Expr::ScalarFunction(mut call) if OF_ONE_TYPE.contains(&call.func.name()) => {
            combine(&mut call.args, schema);
            Expr::ScalarFunction(call)
        }
        Expr::ScalarFunction(call) if call.func.name() == "round" => rounded(call, schema),
        other => return Ok(Transformed::no(other)),
    }))
}

/// Whether the engine's own negative would fail: of a decimal that is NULL, and where its order is asked for
/// and it is of more than a column, whose bounds the engine does not know.
fn needs_function(inner: &Expr, schema: &DFSchema) -> bool {
    let is_plain = matches!(inner, Expr::Column(_) | Expr::Literal(..));
    let is_made = matches!(kind(inner, schema), NumberKind::Exact | NumberKind::Float);
    is_decimal(inner, schema) || is_made && !is_plain
}

/// A number of the statement is rounded as the decimal that it is written as.
fn rounded(mut call: ScalarFunction, schema: &DFSchema) -> Expr {
    // The engine changes its mind about the answer's type where it has to cast the digits.
    if let Some(Expr::Literal(ScalarValue::Int64(Some(digits)), _)) = call.args.get(1)
        && let Ok(digits) = i32::try_from(*digits)
    {
        call.args[1] = lit(digits);
    }
    let Some(value) = call.args.first_mut() else { return Expr::ScalarFunction(call) };
    match kind(value, schema) {
        NumberKind::Open => match to_exact(value) {
            Some(exact) => {
                *value = exact;
                let rounded = Box::new(Expr::ScalarFunction(call));
                Expr::Cast(Cast::new(rounded, DataType::Float64))
            }
            None => Expr::ScalarFunction(call),
        },
        _ => Expr::ScalarFunction(call),
    }
}

fn binary(mut sides: Vec<Expr>, op: Operator) -> Expr {
    let right = Box::new(sides.remove(1));
    Expr::BinaryExpr(BinaryExpr::new(Box::new(sides.remove(0)), op, right))
}

fn is_exact_operation(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Modulo)
}

fn is_of_bits(op: Operator) -> bool {
    matches!(
        op,
        Operator::BitwiseAnd
            | Operator::BitwiseOr
            | Operator::BitwiseShiftLeft
            | Operator::BitwiseShiftRight
    )
}

fn of_case(case: Case, schema: &DFSchema) -> Case {
    let Case { expr, when_then_expr, else_expr } = case;
    let (whens, thens): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let count = whens.len();
    let mut compared = whens;
    let has_base = expr.is_some();
    compared.extend(expr.map(|base| *base));
    if has_base {
        compare(&mut compared, schema);
    }
    let base = if has_base { compared.pop().map(Box::new) } else { None };
    let mut made = thens;
    made.extend(else_expr.map(|last| *last));
    combine(&mut made, schema);
    let mut made = made.into_iter().map(Box::new);
    let pairs = compared.into_iter().map(Box::new).zip(made.by_ref().take(count)).collect();
    Case { expr: base, when_then_expr: pairs, else_expr: made.next() }
}

/// What a value is, as far as it matters whether it is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberKind {
    /// A whole number or a decimal.
    Exact,
    /// Made of numbers of the statement with a point, and of whole numbers: it can be either.
    Open,
    /// A double.
    Float,
    /// No number.
    Other,
}

fn kind(expr: &Expr, schema: &DFSchema) -> NumberKind {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) if value.is_finite() => {
            NumberKind::Open
        }
        Expr::Negative(inner) => kind(inner, schema),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_exact_operation(*op) => {
            match (kind(left, schema), kind(right, schema)) {
                (NumberKind::Float, _) | (_, NumberKind::Float) => NumberKind::Float,
                (NumberKind::Open, NumberKind::Open | NumberKind::Exact)
                | (NumberKind::Exact, NumberKind::Open) => NumberKind::Open,
                (NumberKind::Exact, NumberKind::Exact) => NumberKind::Exact,
                _ => NumberKind::Other,
            }
        }
        _ => expr.get_type(schema).map_or(NumberKind::Other, |found| kind_of_type(&found)),
    }
}

fn kind_of_type(found: &DataType) -> NumberKind {
    if found.is_integer() || is_decimal_type(found) {
        NumberKind::Exact
    } else if found.is_floating() {
        NumberKind::Float
    } else {
        NumberKind::Other
    }
}

fn is_decimal_type(found: &DataType) -> bool {
    matches!(found, DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn is_decimal(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|found| is_decimal_type(&found))
}

/// Puts sides that are compared into types in which equal numbers are equal.
fn compare(sides: &mut [Expr], schema: &DFSchema) {
    let kinds: Vec<NumberKind> = sides.iter().map(|side| kind(side, schema)).collect();
    let is_small = |side: &Expr| match side {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => value.abs() < EXACT_MAX,
        _ => false,
    };
    let has_decimal = sides.iter().any(|side| is_decimal(side, schema));
    let all_small = kinds
        .iter()
        .zip(sides.iter())
        .all(|(kind, side)| *kind != NumberKind::Open || is_small(side));
    if kinds.contains(&NumberKind::Open)
        && (has_decimal || !all_small)
        && !kinds.contains(&NumberKind::Float)
    {
        open_to_exact(sides, &kinds);
    }
    settle(sides, schema);
}

/// Puts values of which one is the answer into one type.
fn combine(sides: &mut [Expr], schema: &DFSchema) {
    if !sides.iter().any(|side| is_decimal(side, schema)) {
        return;
    }
    let kinds: Vec<NumberKind> = sides.iter().map(|side| kind(side, schema)).collect();
    if !kinds.contains(&NumberKind::Float) {
        open_to_exact(sides, &kinds);
    }
    settle(sides, schema);
}

/// A decimal and a number of the statement make a decimal.
fn add(sides: &mut [Expr], schema: &DFSchema) {
    let kinds: Vec<NumberKind> = sides.iter().map(|side| kind(side, schema)).collect();
    let both = matches!(
        kinds.as_slice(),
        [NumberKind::Open, NumberKind::Exact] | [NumberKind::Exact, NumberKind::Open]
    );
    if both && sides.iter().any(|side| is_decimal(side, schema)) {
        open_to_exact(sides, &kinds);
    }
}

/// All of them or none.
fn open_to_exact(sides: &mut [Expr], kinds: &[NumberKind]) {
    let made: Option<Vec<Option<Expr>>> = sides
        .iter()
        .zip(kinds)
        .map(|(side, kind)| match kind {
            NumberKind::Open => to_exact(side).map(Some),
            _ => Some(None),
        })
        .collect();
    for (side, made) in sides.iter_mut().zip(made.into_iter().flatten()) {
        if let Some(made) = made {
            *side = made;
        }
    }
}

/// Decimals beside doubles become doubles; decimals that have no common type of 38 digits get more.
fn settle(sides: &mut [Expr], schema: &DFSchema) {
    let types: Vec<Option<DataType>> =
        sides.iter().map(|side| side.get_type(schema).ok()).collect();
    let decimals: Vec<bool> =
        types.iter().map(|found| found.as_ref().is_some_and(is_decimal_type)).collect();
    if !decimals.contains(&true) {
        return;
    }
    if types.iter().flatten().any(DataType::is_floating) {
        for (side, is_decimal) in sides.iter_mut().zip(decimals) {
            if is_decimal {
                *side = to_double(side.clone());
            }
        }
        return;
    }
    let digits: Vec<(i16, i16)> = types.iter().flatten().filter_map(digits_of).collect();
    let before = digits.iter().map(|(before, _)| *before).max().unwrap_or(0);
    let behind = digits.iter().map(|(_, behind)| *behind).max().unwrap_or(0);
    let (Ok(precision), Ok(scale)) = (u8::try_from(before + behind), i8::try_from(behind)) else {
        return;
    };
    if DECIMAL128_MAX_PRECISION < precision && precision <= DECIMAL256_MAX_PRECISION {
        for (side, found) in sides.iter_mut().zip(&types) {
            if found.as_ref().and_then(digits_of).is_some() {
                let wide = DataType::Decimal256(precision, scale);
                *side = Expr::Cast(Cast::new(Box::new(side.clone()), wide));
            }
        }
    }
}

/// The most digits before and behind the point.
fn digits_of(found: &DataType) -> Option<(i16, i16)> {
    match found {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale)))
        }
        found if found.is_integer() => Some((20, 0)),
        _ => None,
    }
}

fn to_double(expr: Expr) -> Expr {
    let text = match &expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), _) => {
            Some(Decimal128Type::format_decimal(*value, *precision, *scale))
        }
        Expr::Cast(Cast { expr, .. }) => match expr.as_ref() {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            _ => None,
        },
        _ => None,
    };
    match text.and_then(|text| text.parse::<f64>().ok()) {
        Some(value) => lit(value),
        None => Expr::Cast(Cast::new(Box::new(expr), DataType::Float64)),
    }
}

/// The same with decimals in the place of doubles of the statement; none if one has too many digits.
fn to_exact(expr: &Expr) -> Option<Expr> {
    let mut fits = true;
    let made = expr.clone().transform_up(|part| match &part {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => {
            let exact = decimal(*value);
            fits &= exact.is_some();
            Ok(exact.map_or_else(|| Transformed::no(part), |exact| Transformed::yes(lit(exact))))
        }
        _ => Ok(Transformed::no(part)),
    });
    made.ok().filter(|_| fits).map(|made| made.data)
}

/// The decimal of the fewest digits that reads as this double.
fn decimal(value: f64) -> Option<ScalarValue> {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e')?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let scale = i32::try_from(part.len()).ok()? - exponent.parse::<i32>().ok()?;
    let number: i128 = format!("{whole}{part}").parse().ok()?;
    let zeros = u32::try_from((-scale).max(0)).ok()?;
    let number = number.checked_mul(10_i128.checked_pow(zeros)?)?;
    let scale = u8::try_from(scale.max(0)).ok()?;
    let digits = u8::try_from(number.unsigned_abs().to_string().len()).ok()?;
    let precision = digits.max(scale);
    (precision <= DECIMAL128_MAX_PRECISION)
        .then(|| ScalarValue::Decimal128(Some(number), precision, scale.cast_signed()))
}
