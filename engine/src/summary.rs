//! `SUMMARIZE table` and `SUMMARIZE query`, as in DuckDB: one row for each column, with what its values are like.
//!
//! The rows of the query are read once. What is counted of them is one row, and a row for each column takes its
//! part of that.

use crate::{dialect::column_names::shown_name, output::type_name, prepare::casts::is_of_time};
use arrow::datatypes::DataType;
use datafusion::{
    common::{Column, ScalarValue, plan_err},
    error::DataFusionError,
    execution::FunctionRegistry,
    functions::math::expr_fn::round,
    functions_aggregate::expr_fn::count,
    logical_expr::{
        AggregateUDF, Case, Expr, LogicalPlan, LogicalPlanBuilder, SortExpr, cast, col,
        expr::AggregateFunction, lit, when,
    },
    sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace},
};
use std::sync::Arc;

/// Most columns that are summarized at a time: each is counted in nine ways, and no query has more than 4 000.
const COLUMNS_MAX: usize = 400;
/// What a query begins with.
const QUERY: [&str; 4] = ["select", "with", "from", "values"];
/// The number of rows.
const ROWS: &str = "rows";

/// What is told of each column, and its type.
const FACTS: [(&str, DataType); 8] = [
    ("min", DataType::Utf8),
    ("max", DataType::Utf8),
    ("approx_unique", DataType::Int64),
    ("avg", DataType::Float64),
    ("std", DataType::Float64),
    ("q25", DataType::Float64),
    ("q50", DataType::Float64),
    ("q75", DataType::Float64),
];
/// The number of values that are not NULL.
const VALUES: (&str, DataType) = ("values", DataType::Int64);

/// Makes the query of a statement that begins with `SUMMARIZE`; false for any other.
pub fn take_word(tokens: &mut [TokenWithSpan]) -> bool {
    let is_space = |token: &Token| matches!(token, Token::Whitespace(_));
    let mut places = (0..tokens.len()).filter(|at| !is_space(&tokens[*at].token));
    let (Some(first), second) = (places.next(), places.next()) else { return false };
    let Token::Word(word) = &tokens[first].token else { return false };
    if word.quote_style.is_some() || !word.value.eq_ignore_ascii_case("summarize") {
        return false;
    }
    let begins_query = second.is_some_and(|second| match &tokens[second].token {
        Token::Word(word) => {
            word.quote_style.is_none() && QUERY.contains(&word.value.to_lowercase().as_str())
        }
        token => *token == Token::LParen,
    });
    tokens[first].token = match begins_query {
        true => Token::Whitespace(Whitespace::Space),
        false => Token::make_keyword("FROM"),
    };
    true
}

/// The summary of a query's rows, with the aggregates that any query has.
///
/// # Errors
/// DataFusion's, and one for a query with too many columns.
pub fn of(
    plan: LogicalPlan,
    registry: &dyn FunctionRegistry,
) -> Result<LogicalPlan, DataFusionError> {
    let fields = (0_i64..).zip(plan.schema().fields());
    let columns: Vec<SummaryColumn> = fields
        .map(|(at, field)| {
            let name = shown_name(field.name()).to_owned();
            SummaryColumn { at, name, data_type: field.data_type().clone() }
        })
        .collect();
    if COLUMNS_MAX < columns.len() {
        return plan_err!(
            "SUMMARIZE of more than {COLUMNS_MAX} columns is not supported; select those that you need"
        );
    }
    let names = plan.schema().columns().into_iter().zip(&columns);
    let named: Vec<Expr> =
        names.map(|(column, one)| Expr::Column(column).alias(one.input())).collect();
    let (mut aggregates, mut told) = (Vec::new(), Vec::new());
    let mut add = |aggregate: Expr, data_type: &DataType, name: String| {
        let found = Expr::Column(Column::from_name(aggregate.schema_name().to_string()));
        aggregates.push(aggregate);
        told.push(cast(found, data_type.clone()).alias(name));
    };
    add(count(lit(1_i64)), &DataType::Int64, ROWS.to_owned());
    for column in &columns {
        for (fact, data_type) in FACTS.iter().chain([&VALUES]) {
            if let Some(counted) = column.aggregate(fact) {
                let aggregate = counted.expr(registry)?;
                add(aggregate, data_type, column.fact(fact));
            }
        }
    }
    let counted = LogicalPlanBuilder::from(plan)
        .project(named)?
        .aggregate(Vec::<Expr>::new(), aggregates)?
        .project(told)?
        .build()?;
    let rows = columns.iter().map(SummaryColumn::row).collect();
    let joined = LogicalPlanBuilder::values(rows)?.cross_join(counted)?;
    // The order of the columns.
    joined.sort([col("column1").sort(true, false)])?.project(shown(&columns)?)?.build()
}

/// The columns of the answer.
fn shown(columns: &[SummaryColumn]) -> Result<Vec<Expr>, DataFusionError> {
    let mut shown = vec![col("column2").alias("column_name"), col("column3").alias("column_type")];
    for (fact, data_type) in &FACTS {
        shown.push(one_of(columns, fact, data_type)?.alias(*fact));
    }
    shown.push(col(ROWS).alias("count"));
    let rows = cast(col(ROWS), DataType::Float64);
    let values = cast(one_of(columns, VALUES.0, &VALUES.1)?, DataType::Float64);
    let share = (rows.clone() - values) * lit(100.0) / rows.clone();
    let share = when(rows.gt(lit(0.0)), round(vec![share, lit(2_i64)])).end()?;
    shown.push(share.alias("null_percentage"));
    Ok(shown)
}

/// A fact of the column that a row is of.
fn one_of(
    columns: &[SummaryColumn],
    fact: &str,
    data_type: &DataType,
) -> Result<Expr, DataFusionError> {
    let known = columns.iter().filter(|column| column.aggregate(fact).is_some());
    let branches: Vec<_> =
        known.map(|column| (Box::new(column.number()), Box::new(col(column.fact(fact))))).collect();
    if branches.is_empty() {
        return Ok(lit(ScalarValue::try_from(data_type)?));
    }
    Ok(Expr::Case(Case::new(Some(Box::new(col("column1"))), branches, None)))
}

/// A column of the query.
struct SummaryColumn {
    at: i64,
    name: String,
    data_type: DataType,
}

impl SummaryColumn {
    fn number(&self) -> Expr {
        lit(self.at)
    }

    /// What it is called where it is counted.
    fn input(&self) -> String {
        format!("c{}", self.at)
    }

    /// What a fact of it is called.
    fn fact(&self, fact: &str) -> String {
        format!("{fact}{}", self.at)
    }

    fn row(&self) -> Vec<Expr> {
        vec![self.number(), lit(self.name.as_str()), lit(type_name(&self.data_type))]
    }

    /// How a fact is counted; none where values of this type have none.
    fn aggregate(&self, fact: &str) -> Option<FactAggregate> {
        let value = || col(self.input());
        let number = || cast(value(), DataType::Float64);
        let of = FactAggregate::Of;
        let quantile = |share: f64| FactAggregate::Quantile(number(), share);
        let (is_number, is_simple) = (self.data_type.is_numeric(), self.is_simple());
        match fact {
            "values" => Some(FactAggregate::Count(value())),
            "min" if is_simple => Some(of("min", value())),
            "max" if is_simple => Some(of("max", value())),
            // Not every type can be counted so as it is.
            "approx_unique" if is_simple => {
                Some(of("approx_distinct", cast(value(), DataType::Utf8)))
            }
            "avg" if is_number => Some(of("avg", number())),
            "std" if is_number => Some(of("stddev", number())),
            "q25" if is_number => Some(quantile(0.25)),
            "q50" if is_number => Some(quantile(0.5)),
            "q75" if is_number => Some(quantile(0.75)),
            _ => None,
        }
    }

    /// Whether values have an order, and a text each.
    fn is_simple(&self) -> bool {
        let kind = &self.data_type;
        let is_text = matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        kind.is_numeric() || is_text || is_of_time(kind) || *kind == DataType::Boolean
    }
}

/// How a fact is counted.
enum FactAggregate {
    /// How many values there are.
    Count(Expr),
    /// The function of this name.
    Of(&'static str, Expr),
    /// The value that this share of all is below.
    Quantile(Expr, f64),
}

impl FactAggregate {
    fn expr(self, registry: &dyn FunctionRegistry) -> Result<Expr, DataFusionError> {
        Ok(match self {
            Self::Count(value) => count(value),
            Self::Of(name, value) => call(registry.udaf(name)?, vec![value], Vec::new()),
            Self::Quantile(value, share) => {
                let order = value.clone().sort(true, false);
                let function = registry.udaf("approx_percentile_cont")?;
                call(function, vec![value, lit(share)], vec![order])
            }
        })
    }
}

fn call(function: Arc<AggregateUDF>, arguments: Vec<Expr>, order: Vec<SortExpr>) -> Expr {
    let call = AggregateFunction::new_udf(function, arguments, false, None, order, None);
    Expr::AggregateFunction(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    fn query_of(text: &str) -> Option<String> {
        use crate::grammar::Grammar;
        use datafusion::sql::sqlparser::tokenizer::Tokenizer;
        let grammar = Grammar::default();
        let mut tokens = Tokenizer::new(&grammar, text).tokenize_with_location().unwrap();
        let is_it = take_word(&mut tokens);
        let text: String = tokens.iter().map(|token| token.token.to_string()).collect();
        is_it.then(|| text.trim().to_owned())
    }

    #[test]
    fn the_word_stands_before_a_table_or_a_query() {
        for (text, expected) in [
            ("SUMMARIZE events", Some("FROM events")),
            (
                " summarize shop.events FOR VERSION AS OF 'a'",
                Some("FROM shop.events FOR VERSION AS OF 'a'"),
            ),
            ("SUMMARIZE SELECT 1", Some("SELECT 1")),
            ("SUMMARIZE\n(SELECT 1)", Some("(SELECT 1)")),
            ("SUMMARIZE \"select\"", Some("FROM \"select\"")),
            ("SELECT summarize FROM t", None),
            ("\"summarize\"", None),
            ("", None),
        ] {
            assert_eq!(query_of(text).as_deref(), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn each_column_has_a_row_in_its_order() {
        let context = SessionContext::new();
        let sql = "SELECT * FROM (VALUES (1, 'b', [1]), (3, 'a', [2]), (NULL, 'b', NULL), (2, 'b', [1])) t(n, s, l)";
        let state = context.state();
        let plan = of(state.create_logical_plan(sql).await.unwrap(), &state).unwrap();
        let rows = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        let shown = pretty_format_batches(&rows).unwrap().to_string();
        let cells = |line: &str| {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            cells.collect::<Vec<String>>()
        };
        let lines: Vec<Vec<String>> =
            shown.lines().filter(|line| line.starts_with('|')).map(cells).collect();
        assert_eq!(lines[0].len(), 12, "{shown}");
        assert_eq!(lines[0][..4], ["column_name", "column_type", "min", "max"], "{shown}");
        assert_eq!(lines[1][..6], ["n", "bigint", "1", "3", "3", "2.0"], "{shown}");
        assert_eq!(lines[1][10..], ["4", "25.0"], "{shown}");
        assert_eq!(lines[2][2..6], ["a", "b", "2", ""], "{shown}");
        assert_eq!(lines[3][2..6], ["", "", "", ""], "{shown}");
        assert_eq!(lines[3][10..], ["4", "25.0"], "{shown}");
    }

    #[tokio::test]
    async fn a_summary_of_nothing_has_no_share_of_nulls() {
        let context = SessionContext::new();
        let state = context.state();
        let plan = state.create_logical_plan("SELECT 1 AS a WHERE false").await.unwrap();
        let plan = of(plan, &state).unwrap();
        let rows = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
        assert!(
            rows.iter()
                .all(|batch| batch.columns().last().unwrap().null_count() == batch.num_rows())
        );
    }
}
