//! Messages of DataFusion in the words of SQL: its types, its constants, and what it says of a statement
//! that it cannot run.

use crate::{failure, function_names};

/// What stands in messages that speak of the engine, not of the statement.
const OF_THE_ENGINE: &[&str] = &[
    "Internal error",
    "Internal(",
    "Plan: [",
    "likely caused by a bug",
    "Assertion failed",
    "Expects PARTITION BY",
    "does not satisfy order requirements",
    "does not satisfy distribution requirements",
    "PhysicalExpr",
    "LogicalPlan",
    "plan node",
];

/// The part of a statement that a message of the engine is about, by the first word that is in it.
const PARTS: &[(&str, &str)] = &[
    ("partition by", "its window functions"),
    ("window", "its window functions"),
    ("subquery", "the queries inside of it"),
    ("join", "its joins"),
    ("aggregat", "its aggregates and GROUP BY"),
    ("group", "its aggregates and GROUP BY"),
    ("sort", "its ORDER BY"),
    ("arithmetic", "the calculations in it"),
    ("cast", "the casts in it"),
    ("projection", "its select list"),
    ("type", "the expressions of different types in it"),
];

/// Arrow's names of types; those with a bracket behind them are types with it only.
const TYPES: &[(&str, &str)] = &[
    ("Utf8View", "varchar"),
    ("LargeUtf8", "varchar"),
    ("Utf8", "varchar"),
    ("Boolean", "boolean"),
    ("Int8", "tinyint"),
    ("Int16", "smallint"),
    ("Int32", "integer"),
    ("Int64", "bigint"),
    ("UInt8", "utinyint"),
    ("UInt16", "usmallint"),
    ("UInt32", "uinteger"),
    ("UInt64", "ubigint"),
    ("Float32", "real"),
    ("Float64", "double"),
    ("Date32", "date"),
    ("BinaryView", "varbinary"),
    ("Binary", "varbinary"),
    ("Timestamp(", "timestamp"),
    ("Time64(", "time"),
    ("Time32(", "time"),
    ("Interval(", "interval"),
    ("Duration(", "interval"),
    ("Decimal128(", "decimal"),
    ("Decimal256(", "decimal"),
];

/// Memory or disk that a query lacks.
pub(super) fn of_resources(text: &str) -> String {
    if let Some((_, rest)) = text.split_once("used disk space during the spilling process")
        && let Some((_, bytes)) = rest.split_once("limit of ")
    {
        let bytes = bytes.split(". ").next().unwrap_or(bytes);
        return format!(
            "the query needs more memory, and more than {bytes} of disk to help out (sql.spill_bytes_max); select fewer columns or rows"
        );
    }
    // What follows names the memory of other queries.
    let text = text.split(" with top memory consumers").next().unwrap_or(text);
    format!("the query needs more memory than it may use: {text}")
}

/// A message that says more than the engine's, where it has one.
pub(super) fn in_other_words(text: &str) -> Option<String> {
    if text.contains("Physical plan does not support logical expression") {
        return Some(
            "Physical plan does not support a subquery in this kind of expression or at this position: write it as a LEFT JOIN with its condition in ON, and GROUP BY if it has an aggregate"
                .to_owned(),
        );
    }
    if text.contains("Correlated") && text.contains("plan node") {
        return Some(failure::NOT_DECORRELATED.to_owned());
    }
    if let Some((_, after)) = text.split_once("Column in SELECT must be in GROUP BY")
        && let Some(column) = after.split('"').nth(1)
    {
        return Some(format!(
            "column `{column}` is selected next to an aggregate: add it to GROUP BY, or use an aggregate such as min({column})"
        ));
    }
    if let Some(name) = text.strip_prefix("Invalid function '").and_then(|it| it.split('\'').next())
    {
        let hint = match function_names::nearest(name) {
            Some(known) if known.eq_ignore_ascii_case(name) => {
                return Some(format!(
                    "function `{name}` is not called like this; give it its arguments, and OVER (…) behind them if it is a window function"
                ));
            }
            Some(known) => format!("did you mean `{known}`?"),
            None => "docs/sql.md lists those that are not DataFusion's".to_owned(),
        };
        return Some(format!("no function `{name}`; {hint}"));
    }
    if text.contains("Dot access not supported") {
        return Some(
            "behind the point of a value stands the name of a member, as in `(s).a` or `list[1].a`"
                .to_owned(),
        );
    }
    if let Some(part) =
        text.strip_prefix("Date part '").and_then(|rest| rest.strip_suffix("' not supported"))
    {
        return Some(format!(
            "extract and date_part do not know {part}; they take year, quarter, month, week, day, doy, dow, isodow, hour, minute, second, millisecond, microsecond, nanosecond and epoch"
        ));
    }
    if text == "Divide by zero error" {
        return Some("division by zero".to_owned());
    }
    if text.contains("annot access field") {
        let of_json = match text.contains("type Utf8") {
            true => "for a member of JSON text write json_extract_string(data, '$.order'); ",
            false => "",
        };
        return Some(format!(
            "{}; {of_json}if you mean a table, a column with that name hides its alias, or it is two query levels out: use another alias",
            failure::shortened(&in_sql(text))
        ));
    }
    let is_placeholder = text.starts_with("Failed to parse placeholder id")
        || text.contains("was not provided a value for execution");
    if is_placeholder {
        let text = "write parameters as $1, $2 …, and send their values in `params` of the request";
        return Some(text.to_owned());
    }
    of_names(text).or_else(|| of_arguments(text)).or_else(|| of_operators(text))
}

/// Columns of one name.
fn of_names(text: &str) -> Option<String> {
    let name = if text.starts_with("Projections require unique expression names") {
        let (_, second) = text.rsplit_once(" AS ").or_else(|| text.rsplit_once("and \""))?;
        second.split('"').next()?
    } else {
        let (_, rest) = text.split_once("Schema contains ")?;
        let (_, name) = rest.rsplit_once("field name ")?;
        name.split(' ').next()?
    };
    Some(format!(
        "a query has two columns of one name, `{}`; give one of them another name with AS",
        name.trim_matches('"')
    ))
}

/// A function with arguments that it does not take.
fn of_arguments(text: &str) -> Option<String> {
    let is_it = text.contains("failed to match any signature")
        || text.contains("No function matches the given name");
    let (_, rest) = text.split_once("Function '").filter(|_| is_it)?;
    let name = rest.split('\'').next()?;
    let counts = |text: &str| {
        let (_, number) = text.rsplit_once("but received ")?;
        number.chars().next().filter(char::is_ascii_digit)?;
        Some(number.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
    };
    let types = text
        .split_once(&format!("'{name}("))
        .and_then(|(_, types)| Some(types.split_once(")'")?.0))
        .or_else(|| Some(text.split_once("(DataType: ")?.1.split_once(").")?.0));
    Some(match (types, counts(text)) {
        (Some(types), _) => format!(
            "`{name}` does not take {}; cast it, for example CAST(x AS double)",
            in_sql(types)
        ),
        (None, Some(count)) => format!("`{name}` does not take {count} arguments"),
        (None, None) => format!("`{name}` does not take these arguments; cast them"),
    })
}

/// An operator between values that it is not for.
fn of_operators(text: &str) -> Option<String> {
    let comparison = "Cannot infer common argument type for comparison operation ";
    let arithmetic = text.strip_prefix("Cannot coerce arithmetic expression ");
    let parts = text
        .strip_prefix(comparison)
        .or_else(|| arithmetic.and_then(|rest| rest.strip_suffix(" to valid types")))?;
    Some(format!("there is no `{}`: cast one side to the type of the other", in_sql(parts)))
}

/// Whether a message is not for those who sent the statement.
pub(super) fn is_of_the_engine(text: &str) -> bool {
    OF_THE_ENGINE.iter().any(|mark| text.contains(mark))
}

/// The message for a statement that the engine cannot run; what the engine says is in the log.
pub(super) fn cannot_run(text: &str) -> String {
    tracing::warn!(text, "the query engine cannot run a statement");
    let text = text.to_lowercase();
    let part = PARTS.iter().find(|(word, _)| text.contains(word)).map_or("it", |(_, part)| part);
    format!(
        "the query engine cannot run this statement; rewrite {part} (the server's log has the engine's message)"
    )
}

/// The text with types and constants as SQL writes them: `Int64` is `bigint`, and `Int64(1)` is `1`.
#[must_use]
pub fn in_sql(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let is_inside = made.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if !is_inside && let Some((word, after)) = at_start(rest) {
            made.push_str(&word);
            rest = after;
            continue;
        }
        made.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    made
}

/// The type or constant that a text starts with, as SQL writes it, and what follows.
fn at_start(text: &str) -> Option<(String, &str)> {
    let (name, sql) = TYPES.iter().find(|(name, _)| text.starts_with(name))?;
    let rest = &text[name.len()..];
    let is_type_with_bracket = name.ends_with('(');
    if !is_type_with_bracket && rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let inner = if is_type_with_bracket { Some(rest) } else { rest.strip_prefix('(') };
    let Some(inner) = inner else { return Some(((*sql).to_owned(), rest)) };
    let (inner, after) = inner.split_once(')')?;
    let word = match *sql {
        "timestamp" if inner.contains('"') => "timestamptz".to_owned(),
        "decimal" => format!("decimal({})", inner.replace(' ', "")),
        _ if is_type_with_bracket => (*sql).to_owned(),
        _ => inner.replace('"', "'"),
    };
    Some((word, after))
}
