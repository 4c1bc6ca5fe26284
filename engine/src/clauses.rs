//! Clauses that the parser knows and the planner passes over: each is refused by its name.
//!
//! The parser takes the words of many dialects, and DataFusion 54 plans a statement as if those it
//! has no plan for were not there. Every field of the parser's types is named here, so a version of
//! it that brings another clause does not compile until somebody has looked at it.

mod shared_columns;

use crate::{
    allowed::{AGGREGATE, WINDOW},
    table_functions,
};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, Join, JoinConstraint, JoinOperator, LimitClause,
    NamedWindowDefinition, NamedWindowExpr, ObjectName, OrderBy, OrderByExpr, OrderByKind, Query,
    Select, SelectFlavor, SelectItem, SetExpr, SetOperator, SetQuantifier, TableAlias, TableFactor,
    TableWithJoins, Value, WildcardAdditionalOptions, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowSpec, WindowType, With,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::ops::ControlFlow;

/// Goes on, or ends with the reason for refusing.
pub type ClauseVerdict = ControlFlow<String>;

const FINE: ClauseVerdict = ControlFlow::Continue(());

/// What is refused where [`may_be_without_rows`].
const LEAPING_FRAME: &str =
    "an aggregate over a RANGE frame without the current row (use a join with the other rows)";

/// DataFusion 54 forgets values there.
const LONG_LEAD: &str =
    "IGNORE NULLS of `lead` with a distance (use `lag` over the opposite order)";

/// What the parser does not know, by the words that it has.
const UNPARSED: &[(&[&[&str]], &str)] = &[(
    &[&["exclude"], &["current", "group", "ties", "no"], &["row", ")", "others"]],
    "EXCLUDE in a window frame is not supported here; subtract what it leaves out",
)];

/// Words that other dialects put behind a table and that change the answer there. Without `AS` they
/// are no aliases.
const NOT_AN_ALIAS: &[&str] = &["final", "format", "prewhere", "sample", "settings"];

/// Functions that read a time by a pattern.
const READS_TIMES: &[&str] = &["to_date", "to_time", "to_timestamp"];

fn refuse(clause: &str) -> ClauseVerdict {
    ControlFlow::Break(format!(
        "{clause} is not supported here; remove it or rewrite the statement"
    ))
}

fn only(is_there: bool, clause: &str) -> ClauseVerdict {
    if is_there { refuse(clause) } else { FINE }
}

/// Clauses that the parser does not take, found by their words: it would name only what it expected.
///
/// # Errors
/// Breaks with the first one.
pub fn words(tokens: &[Token]) -> ClauseVerdict {
    let words: Vec<String> = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .map(|token| token.to_string().to_lowercase())
        .collect();
    let has = |pattern: &[&[&str]]| {
        words.windows(pattern.len()).any(|some| {
            some.iter().zip(pattern).all(|(word, choices)| choices.contains(&word.as_str()))
        })
    };
    match UNPARSED.iter().find(|(pattern, _)| has(pattern)) {
        Some((_, reason)) => ControlFlow::Break((*reason).to_owned()),
        None => FINE,
    }
}

/// Clauses around a query's body.
///
/// # Errors
/// Breaks with the first one that has no effect here.
pub fn query(query: &Query) -> ClauseVerdict {
    let Query {
        with,
        body,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
        for cte in cte_tables {
            alias(Some(&cte.alias))?;
            only(cte.from.is_some(), "FROM after a common table expression")?;
        }
    }
    set_operation(body)?;
    if let Some(order_by) = order_by {
        check_order_by(order_by)?;
    }
    if let Some(LimitClause::LimitOffset { limit: _, offset: _, limit_by }) = limit_clause {
        only(!limit_by.is_empty(), "LIMIT … BY")?;
    }
    only(fetch.is_some(), "FETCH")?;
    if !locks.is_empty() {
        return ControlFlow::Break(
            "FOR UPDATE and FOR SHARE have no effect here; remove them".to_owned(),
        );
    }
    only(for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE")?;
    only(settings.is_some(), "SETTINGS")?;
    only(format_clause.is_some(), "FORMAT")?;
    only(!pipe_operators.is_empty(), "a pipe operator (|>)")
}

fn set_operation(body: &SetExpr) -> ClauseVerdict {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return FINE };
    set_operation(left)?;
    set_operation(right)?;
    let is_by_name = matches!(
        set_quantifier,
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName
    );
    only(is_by_name && *op != SetOperator::Union, &format!("{op} BY NAME"))
}

fn check_order_by(OrderBy { kind, interpolate }: &OrderBy) -> ClauseVerdict {
    only(interpolate.is_some(), "INTERPOLATE")?;
    match kind {
        OrderByKind::All(_) => FINE,
        OrderByKind::Expressions(list) => {
            for OrderByExpr { expr, options: _, with_fill } in list {
                only(with_fill.is_some(), "WITH FILL")?;
                only(uses_named_window(expr), "a named window in ORDER BY")?;
            }
            FINE
        }
    }
}

/// Clauses of a SELECT.
///
/// # Errors
/// Breaks with the first one that has no effect here.
pub fn select(select: &Select) -> ClauseVerdict {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    only(!optimizer_hints.is_empty(), "an optimizer hint")?;
    only(
        select_modifiers.as_ref().is_some_and(|words| words.is_any_set()),
        "a modifier of SELECT",
    )?;
    only(top.is_some(), "TOP")?;
    only(exclude.is_some(), "EXCLUDE without `*`")?;
    if into.is_some() {
        return ControlFlow::Break("SELECT INTO is not allowed: only queries are".to_owned());
    }
    only(!lateral_views.is_empty(), "LATERAL VIEW")?;
    only(prewhere.is_some(), "PREWHERE")?;
    only(!connect_by.is_empty(), "CONNECT BY")?;
    check_group_by(group_by)?;
    only(!cluster_by.is_empty(), "CLUSTER BY")?;
    only(!distribute_by.is_empty(), "DISTRIBUTE BY")?;
    only(!sort_by.is_empty(), "SORT BY")?;
    only(value_table_mode.is_some(), "SELECT AS STRUCT and SELECT AS VALUE")?;
    only(matches!(flavor, SelectFlavor::FromFirstNoSelect), "FROM without SELECT")?;
    for condition in [having, qualify].into_iter().flatten() {
        only(uses_named_window(condition), "a named window outside the select list")?;
    }
    for NamedWindowDefinition(_, window) in named_window {
        if let NamedWindowExpr::WindowSpec(window) = window {
            only(may_be_without_rows(window), LEAPING_FRAME)?;
        }
    }
    projection.iter().try_for_each(select_item)?;
    from.iter().try_for_each(table_with_joins)?;
    shared_columns::check(select)
}

fn check_group_by(group_by: &GroupByExpr) -> ClauseVerdict {
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
    let Some(modifier) = modifiers.first() else { return FINE };
    ControlFlow::Break(format!(
        "{modifier} after GROUP BY is not supported here; write GROUP BY ROLLUP (…) or CUBE (…)"
    ))
}

fn select_item(item: &SelectItem) -> ClauseVerdict {
    match item {
        SelectItem::UnnamedExpr(_) => FINE,
        SelectItem::ExprWithAlias { .. } => FINE,
        SelectItem::ExprWithAliases { .. } => refuse("a list of aliases"),
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
            let WildcardAdditionalOptions {
                wildcard_token: _,
                opt_ilike,
                opt_exclude: _,
                opt_except: _,
                opt_replace: _,
                opt_rename,
                opt_alias,
            } = options;
            only(opt_ilike.is_some(), "ILIKE behind `*`")?;
            only(opt_rename.is_some(), "RENAME behind `*`")?;
            only(opt_alias.is_some(), "an alias of `*`")
        }
    }
}

fn table_with_joins(TableWithJoins { relation: _, joins }: &TableWithJoins) -> ClauseVerdict {
    joins.iter().try_for_each(join)
}

fn join(Join { relation: _, global, join_operator }: &Join) -> ClauseVerdict {
    only(*global, "GLOBAL JOIN")?;
    match join_operator {
        // DataFusion 54 takes the left side's column for the one of both, which is null in rows that the
        // right side alone has.
        JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => only(
            matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural),
            "USING or NATURAL of a RIGHT or FULL JOIN (write ON, and coalesce(a.x, b.x) for the shared column)",
        ),
        JoinOperator::Join(_)
        | JoinOperator::Inner(_)
        | JoinOperator::Left(_)
        | JoinOperator::LeftOuter(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::LeftAnti(_)
        | JoinOperator::RightAnti(_)
        | JoinOperator::CrossJoin(JoinConstraint::None) => FINE,
        JoinOperator::Semi(_) => refuse("SEMI JOIN without a side (write LEFT SEMI JOIN)"),
        JoinOperator::Anti(_) => refuse("ANTI JOIN without a side (write LEFT ANTI JOIN)"),
        JoinOperator::CrossJoin(_) => refuse("a condition of CROSS JOIN"),
        JoinOperator::CrossApply | JoinOperator::OuterApply => refuse("APPLY"),
        JoinOperator::AsOf { .. } => refuse("ASOF JOIN"),
        JoinOperator::StraightJoin(_) => refuse("STRAIGHT_JOIN"),
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            refuse("ARRAY JOIN")
        }
    }
}

/// Clauses of what stands in FROM.
///
/// # Errors
/// Breaks with the first one that has no effect here.
pub fn table_factor(factor: &TableFactor) -> ClauseVerdict {
    match factor {
        TableFactor::Table {
            name,
            alias: shown,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            only(args.is_some(), &format!("table function `{name}`"))?;
            alias(shown.as_ref())?;
            only(!with_hints.is_empty(), "a table hint (WITH …)")?;
            // Those that are supported are taken out before the statement is parsed.
            only(version.is_some(), "a table version of this form")?;
            only(*with_ordinality, "WITH ORDINALITY")?;
            only(!partitions.is_empty(), "PARTITION after a table")?;
            only(json_path.is_some(), "a path after a table")?;
            only(sample.is_some(), "TABLESAMPLE (or SAMPLE)")?;
            only(!index_hints.is_empty(), "an index hint")
        }
        TableFactor::Derived { lateral: _, subquery: _, alias: shown, sample } => {
            only(sample.is_some(), "TABLESAMPLE (or SAMPLE)")?;
            alias(shown.as_ref())
        }
        TableFactor::NestedJoin { table_with_joins: nested, alias: shown } => {
            alias(shown.as_ref())?;
            table_with_joins(nested)
        }
        TableFactor::TableFunction { .. } => refuse("TABLE (function)"),
        TableFactor::Function {
            lateral: false,
            name,
            args: _,
            with_ordinality: false,
            alias: shown,
        } if table_functions::is_series(name) => alias(shown.as_ref()),
        TableFactor::Function { name, .. } => refuse(&format!("table function `{name}`")),
        TableFactor::UNNEST {
            alias: shown,
            array_exprs: _,
            with_offset,
            with_offset_alias: _,
            with_ordinality,
        } => {
            only(*with_offset, "WITH OFFSET")?;
            only(*with_ordinality, "WITH ORDINALITY")?;
            alias(shown.as_ref())
        }
        TableFactor::JsonTable { .. } => refuse("JSON_TABLE"),
        TableFactor::OpenJsonTable { .. } => refuse("OPENJSON"),
        TableFactor::Pivot { .. } => refuse("PIVOT"),
        TableFactor::Unpivot { .. } => refuse("UNPIVOT"),
        TableFactor::MatchRecognize { .. } => refuse("MATCH_RECOGNIZE"),
        TableFactor::XmlTable { .. } => refuse("XMLTABLE"),
        TableFactor::SemanticView { .. } => refuse("SEMANTIC_VIEW"),
    }
}

fn alias(alias: Option<&TableAlias>) -> ClauseVerdict {
    let Some(TableAlias { explicit, name, columns, at }) = alias else { return FINE };
    let word = name.value.to_lowercase();
    if !explicit && name.quote_style.is_none() && NOT_AN_ALIAS.contains(&word.as_str()) {
        return refuse(&format!("{} (write AS if it is an alias)", word.to_uppercase()));
    }
    only(at.is_some(), "AT after an alias")?;
    only(columns.iter().any(|column| column.data_type.is_some()), "a type after a column alias")
}

/// Clauses of an expression.
///
/// # Errors
/// Breaks with the first one that has no effect here.
pub fn expression(expr: &Expr) -> ClauseVerdict {
    match expr {
        Expr::Function(call) => {
            time_pattern(call)?;
            function(call)
        }
        // Its precedence is another one, and it would be the operation on bits.
        Expr::BinaryOp { op: BinaryOperator::BitwiseXor, .. } => {
            ControlFlow::Break("`^` is not supported here; write power(x, y)".to_owned())
        }
        Expr::BinaryOp { op: BinaryOperator::DuckIntegerDivide, .. } => ControlFlow::Break(
            "`//` is not supported here; `/` of whole numbers gives a whole number".to_owned(),
        ),
        Expr::Cast { format, .. } => only(format.is_some(), "FORMAT of a CAST"),
        Expr::Like { any, .. } | Expr::ILike { any, .. } => only(*any, "LIKE ANY"),
        _ => FINE,
    }
}

/// A pattern of PostgreSQL's where the engine takes those of strftime.
fn time_pattern(call: &Function) -> ClauseVerdict {
    let FunctionArguments::List(list) = &call.args else { return FINE };
    let name = call.name.to_string().to_lowercase();
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(pattern)))) = list.args.get(1)
    else {
        return FINE;
    };
    match &pattern.value {
        Value::SingleQuotedString(text)
            if READS_TIMES.contains(&name.as_str()) && !text.contains('%') =>
        {
            ControlFlow::Break(format!(
                "`{name}` takes patterns of strftime, such as '%Y-%m-%d', not '{text}'"
            ))
        }
        _ => FINE,
    }
}

fn function(call: &Function) -> ClauseVerdict {
    let Function {
        name,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter,
        null_treatment,
        over,
        within_group,
    } = call;
    only(!matches!(parameters, FunctionArguments::None), "a second list of arguments")?;
    if let Some(WindowType::WindowSpec(window)) = over {
        only(window.window_name.is_some(), "a window that extends a named one")?;
    }
    let (mut is_distinct, mut has_order, mut treats_nulls) =
        (false, false, null_treatment.is_some());
    let mut has_distance = false;
    if let FunctionArguments::List(list) = args {
        has_distance = 1 < list.args.len();
        is_distinct = list.duplicate_treatment.is_some();
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(_) => has_order = true,
                FunctionArgumentClause::IgnoreOrRespectNulls(_) => treats_nulls = true,
                other => return refuse(&format!("`{other}` in the arguments of `{name}`")),
            }
        }
    }
    let (is_aggregate, is_window) = kind(name);
    let of = |clause: &str| format!("{clause} of `{name}`, which is not an aggregate function,");
    if !is_aggregate {
        only(filter.is_some(), &of("FILTER"))?;
        only(is_distinct, &of("DISTINCT or ALL"))?;
        only(has_order, &of("ORDER BY"))?;
        only(!within_group.is_empty(), &of("WITHIN GROUP"))?;
    }
    if let (true, false, Some(WindowType::WindowSpec(window))) = (is_aggregate, is_window, over) {
        only(may_be_without_rows(window), LEAPING_FRAME)?;
    }
    if has_distance && name.to_string().eq_ignore_ascii_case("lead") {
        only(treats_nulls, LONG_LEAD)?;
    }
    if !is_aggregate && !is_window {
        only(treats_nulls, &format!("IGNORE or RESPECT NULLS of `{name}`"))?;
        only(over.is_some(), &format!("OVER after `{name}`"))?;
    }
    FINE
}

/// Whether frames by distance may leave rows out and be without any in between. DataFusion 54 forgets
/// about the rows that leave while a frame has none, so they stay in the sums of later frames (no release
/// mends it).
fn may_be_without_rows(window: &WindowSpec) -> bool {
    use WindowFrameBound::{Following, Preceding};
    let Some(WindowFrame { units: WindowFrameUnits::Range, start_bound, end_bound }) =
        &window.window_frame
    else {
        return false;
    };
    match (start_bound, end_bound) {
        (Preceding(None), _) | (_, Some(Following(None))) => false,
        (Following(Some(_)), _) | (_, Some(Preceding(Some(_)))) => true,
        _ => false,
    }
}

/// Whether a function is one of many rows, and whether it is one of a row's place.
#[must_use]
pub fn kind(name: &ObjectName) -> (bool, bool) {
    let name = name.to_string().to_lowercase();
    let name = name.trim_matches('"');
    let is_aggregate = AGGREGATE.contains(&name)
        || crate::dialect::AGGREGATES.contains(&name)
        || ["document_anomalies", "document_versions", "mean", "std", "string_agg"].contains(&name)
        || name.starts_with("var")
        || name.starts_with("stddev")
        || name.starts_with("covar");
    (is_aggregate, WINDOW.contains(&name))
}

/// Whether an expression has `OVER name`, which is resolved in the select list only.
fn uses_named_window(expr: &Expr) -> bool {
    let found = datafusion::sql::sqlparser::ast::visit_expressions(expr, |part| match part {
        Expr::Function(Function { over: Some(WindowType::NamedWindow(_)), .. }) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}
