//! Spellings of other dialects that have one meaning, as the planner knows them; and names for
//! columns that would have none, or one that another has.

use crate::{
    functions::members, lengths, nulls, prepare::exact, replacement, similar, structs,
    template::fill, time, uuid,
};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, Select, SelectItem, SetExpr, Statement, Subscript, TimezoneInfo,
    TypedString, UnaryOperator, Value, ValueWithSpan, Visit, VisitMut, VisitorMut,
    visit_expressions,
};
use std::{collections::HashSet, convert::Infallible, ops::ControlFlow};

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

/// What stands before the name of a column that has the name of an earlier one; the answer leaves
/// it out.
const REPEATED: char = '\u{1}';

/// Translates a statement.
///
/// # Errors
/// It has a form that cannot be translated; the text says which.
pub fn translate(statement: &mut Statement) -> Result<(), String> {
    let ControlFlow::Continue(()) = statement.visit(&mut ExpressionLabels);
    match statement.visit(&mut DialectTranslator) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

/// The name that an answer shows for a column.
#[must_use]
pub fn shown_name(name: &str) -> &str {
    match name.strip_prefix(REPEATED).and_then(|rest| rest.split_once(REPEATED)) {
        Some((_, name)) => name,
        None => name,
    }
}

/// Gives columns without a name of their own the text of their expression: the planner calls a cast
/// by what is cast, and then two columns have one name (DataFusion 54 takes no such projection).
struct ExpressionLabels;

impl VisitorMut for ExpressionLabels {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && needs_label(expr)
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Self::Break> {
        if let Statement::Query(query) = statement {
            let mut used = HashSet::new();
            names_in(&query.order_by, &mut used);
            let mut body = query.body.as_mut();
            while let SetExpr::Query(inner) = body {
                body = inner.body.as_mut();
            }
            if let SetExpr::Select(select) = body {
                // The labels come first: what they make alike is told apart here.
                self.pre_visit_select(select)?;
                names_in(&select.group_by, &mut used);
                names_in(&select.having, &mut used);
                names_in(&select.qualify, &mut used);
                tell_apart(&mut select.projection, &used);
            }
        }
        ControlFlow::Continue(())
    }
}

fn needs_label(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |part| {
        let is_it = match part {
            Expr::Value(literal) => exact::too_long(&literal.value).is_some(),
            Expr::Cast { .. }
            | Expr::TypedString(_)
            | Expr::AtTimeZone { .. }
            | Expr::InSubquery { .. }
            | Expr::Subquery(_)
            | Expr::Exists { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. } => true,
            Expr::Function(call) => is_translated(call),
            Expr::BinaryOp { op, .. } => members::of_operator(op).is_some(),
            _ => false,
        };
        if is_it { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_break()
}

fn is_translated(call: &Function) -> bool {
    name_of(call)
        .is_some_and(|name| AGGREGATES.contains(&name.as_str()) || SCALARS.contains(&name.as_str()))
}

/// Columns of one name in the outermost select list; `used` are names that other clauses look for.
fn tell_apart(projection: &mut [SelectItem], used: &HashSet<String>) {
    let has_wildcard = projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken = HashSet::new();
    for (at, item) in projection.iter_mut().enumerate() {
        let (expr, shown, is_alias) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr, shown_as(expr), false),
            SelectItem::ExprWithAlias { expr, alias } => {
                let is_quoted = alias.quote_style.is_some();
                let name = &alias.value;
                (expr, if is_quoted { name.clone() } else { name.to_lowercase() }, true)
            }
            _ => continue,
        };
        // A column alone and behind its table are the same, and those of two tables are not.
        let (texts, may_be_in_wildcard) = match expr {
            _ if is_alias => {
                (vec![shown.clone(), format!("*.{shown}")], !used.contains(&shown.to_lowercase()))
            }
            Expr::Identifier(name) => (vec![name.value.clone(), format!("*.{}", name.value)], true),
            Expr::CompoundIdentifier(_) => (vec![expr.to_string(), shown.clone()], true),
            _ => (vec![shown.clone()], false),
        };
        let is_known = texts.iter().any(|text| taken.contains(&text.to_lowercase()));
        taken.insert(texts[0].to_lowercase());
        if let (Expr::CompoundIdentifier(_), false) = (expr, is_alias) {
            taken.insert(format!("*.{shown}").to_lowercase());
        }
        if is_known || has_wildcard && may_be_in_wildcard {
            let alias = Ident::with_quote('"', format!("{REPEATED}{at}{REPEATED}{shown}"));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// The names alone that stand in these clauses.
fn names_in(clause: &impl Visit, names: &mut HashSet<String>) {
    let ControlFlow::Continue(()) = visit_expressions(clause, |part| {
        if let Expr::Identifier(name) = part {
            names.insert(name.value.to_lowercase());
        }
        ControlFlow::<Infallible>::Continue(())
    });
}

/// The name that the column of an expression has.
fn shown_as(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map_or_else(String::new, |name| name.value.clone())
        }
        other => other.to_string(),
    }
}

struct DialectTranslator;

impl VisitorMut for DialectTranslator {
    type Break = String;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let made = match expr {
            Expr::Function(call) => function(call),
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
                Some(similar_to(*negated, expr, pattern, escape_char.as_ref())?)
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take() {
                    escaped(pattern, &escape.value)?;
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
        text.truncate(time::without_zone(text).len());
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

/// The comparison with a regular expression that is the same as `SIMILAR TO`.
fn similar_to(
    negated: bool,
    expr: &Expr,
    pattern: &Expr,
    escape: Option<&ValueWithSpan>,
) -> ControlFlow<String, Expr> {
    let text = |value: &ValueWithSpan| match &value.value {
        Value::SingleQuotedString(text) => Some(text.clone()),
        _ => None,
    };
    let Expr::Value(literal) = pattern else {
        return ControlFlow::Break(
            "SIMILAR TO is supported for a constant pattern only".to_owned(),
        );
    };
    let escape = match escape.map(text) {
        None => Some('\\'),
        Some(Some(escape)) if escape.is_empty() => None,
        Some(Some(escape)) if escape.chars().count() == 1 => escape.chars().next(),
        Some(_) => return ControlFlow::Break("ESCAPE takes one character in quotes".to_owned()),
    };
    let Some(regex) = text(literal).and_then(|pattern| similar::to_regex(&pattern, escape)) else {
        return ControlFlow::Break(format!(
            "{literal} is not a SIMILAR TO pattern: its brackets must be closed, and it must not end with its ESCAPE character"
        ));
    };
    let regex = Expr::value(Value::SingleQuotedString(regex));
    let form = if negated { "(__x !~ __p)" } else { "(__x ~ __p)" };
    ControlFlow::Continue(fill(form, &[("__x", expr), ("__p", &regex)], None))
}

/// Writes a pattern for the one escape character that the engine knows, the backslash.
fn escaped(pattern: &mut Expr, escape: &Value) -> ControlFlow<String> {
    let Value::SingleQuotedString(escape) = escape else {
        return refuse("ESCAPE takes one character in quotes");
    };
    let mut letters = escape.chars();
    let (escape, more) = (letters.next(), letters.next());
    let Expr::Value(literal) = pattern else {
        return refuse("ESCAPE is supported for a constant pattern only");
    };
    let Value::SingleQuotedString(text) = &mut literal.value else {
        return refuse("ESCAPE is supported for a constant pattern only");
    };
    if more.is_some() {
        return refuse("ESCAPE takes one character in quotes");
    }
    let mut made = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            let Some(next) = letters.next() else {
                return refuse("a LIKE pattern must not end with its ESCAPE character");
            };
            made.push('\\');
            made.push(next);
        } else {
            if letter == '\\' {
                made.push('\\');
            }
            made.push(letter);
        }
    }
    *text = made;
    ControlFlow::Continue(())
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
