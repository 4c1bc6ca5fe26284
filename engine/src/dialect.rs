//! Spellings of other dialects that have one meaning, as the planner knows them.

pub mod column_names;
mod patterns;

use crate::{
    functions::members, lengths, nulls, prepare::exact, replacement, structs, template::fill, time,
    uuid,
};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, Statement, Subscript, TimezoneInfo,
    TypedString, UnaryOperator, Value, VisitMut, VisitorMut,
};
use icecore_lake::table::row_fit::wall_clock;
use std::ops::ControlFlow;

/// Aggregate functions beyond those that DataFusion calls so.
pub const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_distinct",
    "arbitrary",
    "arg_max",
    "arg_min",
    "argmax",
    "argmin",
    "count_if",
    "countif",
    "every",
    "first",
    "last",
    "max_by",
    "mean",
    "min_by",
    "mode",
    "p50",
    "p90",
    "p95",
    "p99",
    "quantile_cont",
    "regr_count",
    "variance",
];

/// Scalar functions that are spelled in another way here.
pub const SCALARS: &[&str] =
    &["atan2", "date", "if", "ifnull", "iff", "len", "mod", "pow", "power", "sign"];

/// Aggregates to which the order of their rows is nothing, and beginnings of the names of others.
const ORDERLESS: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "count_if",
    "countif",
    "every",
    "max",
    "mean",
    "median",
    "min",
    "p50",
    "p90",
    "p95",
    "p99",
    "std",
    "sum",
];
/// As above.
const ORDERLESS_STARTS: &[&str] = &["bit_", "covar", "regr_", "stddev", "var"];

/// Translates a statement.
///
/// # Errors
/// It has a form that cannot be translated; the text says which.
pub fn translate(statement: &mut Statement) -> Result<(), String> {
    column_names::write(statement);
    match statement.visit(&mut DialectTranslator) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

/// Whether a call is written in another way for the planner.
fn is_translated(call: &Function) -> bool {
    is_ordered_for_nothing(call)
        || name_of(call).is_some_and(|name| {
            AGGREGATES.contains(&name.as_str()) || SCALARS.contains(&name.as_str())
        })
}

struct DialectTranslator;

impl VisitorMut for DialectTranslator {
    type Break = String;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let made = match expr {
            Expr::Function(call) => {
                leave_out_order(call);
                function(call)
            }
            Expr::Value(literal) => exact::too_long(&literal.value),
            Expr::AtTimeZone { timestamp, time_zone } => {
                let call = format!("{}(__x, __z)", time::AT_TIME_ZONE);
                Some(fill(&call, &[("__x", timestamp), ("__z", time_zone)], None))
            }
            Expr::Cast { kind, expr, data_type: DataType::Uuid, .. } => match kind {
                CastKind::Cast | CastKind::DoubleColon => Some(to_uuid(expr)),
                CastKind::TryCast | CastKind::SafeCast => {
                    return refuse("TRY_CAST to uuid is not supported here; use CAST");
                }
            },
            Expr::TypedString(TypedString { data_type: DataType::Uuid, value, .. }) => {
                Some(to_uuid(&Expr::Value(value.clone())))
            }
            Expr::TypedString(TypedString { data_type, value, .. }) if is_time(data_type) => {
                complete_time(&mut value.value, data_type);
                None
            }
            Expr::Cast { expr, data_type, .. } if is_time(data_type) => {
                if let Expr::Value(literal) = expr.as_mut() {
                    complete_time(&mut literal.value, data_type);
                }
                None
            }
            Expr::TypedString(TypedString { data_type, .. }) | Expr::Cast { data_type, .. }
                if lengths::of(data_type).is_some() =>
            {
                Some(lengths::shortened(expr)?)
            }
            Expr::AnyOp { left, compare_op, right, .. } if nulls::query_of(right).is_none() => {
                nulls::any_of_list(left, compare_op, right)
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                access_chain.iter_mut().for_each(bounded);
                None
            }
            // Of whole numbers alone, like every operation on bits.
            Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr } => {
                Some(fill("(-1 - (__x | 0))", &[("__x", expr)], None))
            }
            Expr::BinaryOp { left, op: BinaryOperator::PGOverlap, right } => {
                Some(fill("array_has_any(__x, __y)", &[("__x", left), ("__y", right)], None))
            }
            Expr::BinaryOp { left, op, right } => members::of_operator(op)
                .map(|call| fill(call, &[("__x", left), ("__y", right)], None)),
            Expr::SimilarTo { negated, expr, pattern, escape_char } => {
                Some(patterns::similar_to(*negated, expr, pattern, escape_char.as_ref())?)
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take() {
                    patterns::escaped(pattern, &escape.value)?;
                }
                None
            }
            _ => None,
        };
        if let Some(made) = made {
            *expr = made;
        }
        ControlFlow::Continue(())
    }
}

/// DataFusion 54 fails for `avg(x ORDER BY y)` and the like (apache/datafusion#25403).
fn leave_out_order(call: &mut Function) {
    if is_ordered_for_nothing(call)
        && let FunctionArguments::List(list) = &mut call.args
    {
        list.clauses.retain(|clause| !is_order(clause));
    }
}

fn is_ordered_for_nothing(call: &Function) -> bool {
    let is_orderless = name_of(call).is_some_and(|name| {
        ORDERLESS.contains(&name.as_str())
            || ORDERLESS_STARTS.iter().any(|start| name.starts_with(start))
    });
    match &call.args {
        FunctionArguments::List(list) => is_orderless && list.clauses.iter().any(is_order),
        FunctionArguments::None | FunctionArguments::Subquery(_) => false,
    }
}

fn is_order(clause: &FunctionArgumentClause) -> bool {
    matches!(clause, FunctionArgumentClause::OrderBy(_))
}

/// A slice of a list without a bound goes to its end.
fn bounded(access: &mut AccessExpr) {
    let AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) = access else {
        return;
    };
    let number = |text: &str| Expr::value(Value::Number(text.to_owned(), false));
    lower_bound.get_or_insert_with(|| number("1"));
    upper_bound.get_or_insert_with(|| number("-1"));
}

fn is_text(value: &Value, wanted: &str) -> bool {
    matches!(value, Value::SingleQuotedString(text) if text.eq_ignore_ascii_case(wanted))
}

fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..) | DataType::Datetime(_))
}

/// A time without zone is what the clock of the text shows, whatever zone is behind it.
fn complete_time(value: &mut Value, kind: &DataType) {
    use TimezoneInfo::{Tz, WithTimeZone};
    let Value::SingleQuotedString(text) = value else { return };
    if !matches!(kind, DataType::Timestamp(_, Tz | WithTimeZone)) {
        text.truncate(wall_clock::without_zone(text).len());
    }
    if let Some(complete) = time::with_seconds(text) {
        *text = complete;
    }
}

fn refuse(reason: impl Into<String>) -> ControlFlow<String> {
    ControlFlow::Break(reason.into())
}

fn to_uuid(expr: &Expr) -> Expr {
    fill(&format!("{}(__x)", uuid::FUNCTION), &[("__x", expr)], None)
}

/// The name of a function that is no path.
fn name_of(call: &Function) -> Option<String> {
    let [part] = call.name.0.as_slice() else { return None };
    Some(part.as_ident()?.value.to_lowercase())
}

/// The arguments of a call, if they are plain expressions.
fn arguments(call: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    list.args.iter().map(plain).collect()
}

fn plain(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The call under another name.
fn named(call: &Function, name: &str) -> Option<Expr> {
    let mut call = call.clone();
    call.name = vec![Ident::new(name)].into();
    Some(Expr::Function(call))
}

/// The same call as the planner knows it; none for what it knows already.
fn function(call: &Function) -> Option<Expr> {
    let name = name_of(call)?;
    let named = |name: &str| named(call, name);
    match name.as_str() {
        "any_value" | "arbitrary" => return named("min"),
        "first" => return named("first_value"),
        "last" => return named("last_value"),
        "sign" => return named("signum"),
        "ifnull" => return named("coalesce"),
        "every" => return named("bool_and"),
        "variance" => return named("var_samp"),
        "struct_extract" => return named("get_field"),
        "struct_pack" => return structs::packed(call),
        // The engine has no row for a query that names an outer column and finds nothing.
        "approx_distinct" | "regr_count" => {
            let call = Expr::Function(call.clone());
            return Some(fill("coalesce(CAST(__x AS BIGINT), 0)", &[("__x", &call)], None));
        }
        _ => (),
    }
    match (name.as_str(), arguments(call)?.as_slice()) {
        ("mod", [left, right]) => Some(fill("(__x % __y)", &[("__x", left), ("__y", right)], None)),
        ("date", [value]) => Some(fill("CAST(__x AS DATE)", &[("__x", value)], None)),
        ("if" | "iff", [condition, yes, no]) => Some(fill(
            "CASE WHEN __x THEN __y ELSE __z END",
            &[("__x", condition), ("__y", yes), ("__z", no)],
            None,
        )),
        ("count_if" | "countif", [condition]) => {
            aggregate(call, "count(*)", "__x", &[("__x", condition)])
        }
        ("max_by" | "arg_max" | "argmax", [value, by]) => aggregate(
            call,
            "last_value(__x ORDER BY __y)",
            "__x IS NOT NULL AND __y IS NOT NULL",
            &[("__x", value), ("__y", by)],
        ),
        ("min_by" | "arg_min" | "argmin", [value, by]) => aggregate(
            call,
            "first_value(__x ORDER BY __y)",
            "__x IS NOT NULL AND __y IS NOT NULL",
            &[("__x", value), ("__y", by)],
        ),
        (name, arguments) => as_in_postgresql(call, name, arguments),
    }
}

/// A call of a function that DataFusion 54 has by the same name and another meaning.
fn as_in_postgresql(call: &Function, name: &str, arguments: &[&Expr]) -> Option<Expr> {
    match (name, arguments) {
        // Of decimals the engine makes one with their digits, and of whole numbers floats of 32 bits.
        ("power" | "pow", [x, y]) => Some(fill(
            "power(CAST(__x AS DOUBLE), CAST(__y AS DOUBLE))",
            &[("__x", x), ("__y", y)],
            None,
        )),
        ("encode", [bytes, Expr::Value(form)]) if is_text(&form.value, "base64") => {
            Some(fill("encode(__x, 'base64pad')", &[("__x", bytes)], None))
        }
        ("atan2", [y, x]) => Some(fill(
            "atan2(CAST(__y AS DOUBLE), CAST(__x AS DOUBLE))",
            &[("__y", y), ("__x", x)],
            None,
        )),
        // An empty list has no dimension.
        ("array_length" | "list_length", [list, dimension]) => Some(fill(
            "nullif(CAST(array_length(__x, __y) AS BIGINT), 0)",
            &[("__x", list), ("__y", dimension)],
            None,
        )),
        ("array_remove" | "list_remove", [list, Expr::Value(value)])
            if value.value == Value::Null =>
        {
            Some(fill("array_compact(__x)", &[("__x", list)], None))
        }
        ("array_remove" | "list_remove", _) => named(call, "array_remove_all"),
        ("array_replace" | "list_replace", _) => named(call, "array_replace_all"),
        ("regexp_replace", [_, _, made, ..]) => replacement::of_regex(call, made),
        // The engine has a list with NULL where the key is not there.
        ("map_extract" | "element_at", [map, key]) => Some(fill(
            "CASE WHEN array_has(map_keys(__x), __y) THEN map_extract(__x, __y) ELSE array_pop_back(map_extract(__x, __y)) END",
            &[("__x", map), ("__y", key)],
            None,
        )),
        _ => None,
    }
}

/// An aggregate with a condition, and with what stood behind the call that it replaces.
fn aggregate(
    call: &Function,
    text: &str,
    condition: &str,
    holes: &[(&'static str, &Expr)],
) -> Option<Expr> {
    let mut holes = holes.to_vec();
    let mut condition = format!("({condition})");
    if let Some(filter) = &call.filter {
        condition.push_str(" AND __f");
        holes.push(("__f", filter));
    }
    let made = fill(&format!("{text} FILTER (WHERE {condition})"), &holes, None);
    let Expr::Function(mut made) = made else { return None };
    made.over.clone_from(&call.over);
    Some(Expr::Function(made))
}
