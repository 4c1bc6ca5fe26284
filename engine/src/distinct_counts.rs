//! Distinct texts that are counted beside rows, in two steps: `SELECT a, count(*), count(DISTINCT t) … GROUP BY a`
//! counts the rows of each pair of `a` and `t` first. Then it adds these up and counts the `t` of each `a`.
//!
//! DataFusion 54 does so for distinct counts alone. With others beside them it keeps a set of texts for each group,
//! hands the sets on as lists, and merges them text by text. Its one invariant: the plan gives the same rows under
//! the same names.

use arrow::datatypes::DataType;
use datafusion::{
    common::{Column, tree_node::Transformed},
    error::DataFusionError,
    functions_aggregate::sum::sum_udaf,
    logical_expr::{
        Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
        expr::{AggregateFunction, AggregateFunctionParams},
        lit, when,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};
use std::sync::Arc;

/// What the first step calls the text.
const TEXT: &str = "distinct_text";

/// Makes two steps of an aggregation. It runs before DataFusion's own rule for distinct values.
#[derive(Debug)]
pub struct DistinctCounts;

impl OptimizerRule for DistinctCounts {
    fn name(&self) -> &'static str {
        "distinct_counts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let Some((counts, text)) = counts_of(aggregate)? else { return Ok(Transformed::no(plan)) };
        in_two_steps(aggregate, &counts, text).map(Transformed::yes)
    }
}

/// The counts of an aggregation that has no other functions, and the one text whose distinct values some of them count;
/// none for an aggregation that stays as it is.
fn counts_of(
    aggregate: &Aggregate,
) -> Result<Option<(Vec<&AggregateFunction>, &Expr)>, DataFusionError> {
    if aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return Ok(None);
    }
    let counts = aggregate.aggr_expr.iter().map(count_of).collect::<Option<Vec<_>>>();
    let Some(counts) = counts else { return Ok(None) };
    let is_alone = counts.iter().all(|count| count.params.distinct);
    let distinct = counts.iter().filter(|count| count.params.distinct);
    let mut texts = distinct.flat_map(|count| &count.params.args);
    let Some(text) = texts.next() else { return Ok(None) };
    if is_alone || texts.any(|other| other != text) {
        return Ok(None);
    }
    let kind = text.get_type(aggregate.input.schema())?;
    let is_text = matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    Ok(is_text.then_some((counts, text)))
}

/// The count of one argument in all rows; none for anything else.
fn count_of(expr: &Expr) -> Option<&AggregateFunction> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        expr => expr,
    };
    let Expr::AggregateFunction(call) = expr else { return None };
    let AggregateFunctionParams { args, filter, order_by, null_treatment, .. } = &call.params;
    let is_plain = filter.is_none() && order_by.is_empty() && null_treatment.is_none();
    (is_plain && args.len() == 1 && call.func.name() == "count").then_some(call)
}

fn in_two_steps(
    aggregate: &Aggregate,
    counts: &[&AggregateFunction],
    text: &Expr,
) -> Result<LogicalPlan, DataFusionError> {
    let column = |name: String| Expr::Column(Column::from_name(name));
    let key_name = |at: usize| format!("key_{at}");
    let count_name = |at: usize| format!("count_{at}");
    let keys = aggregate.group_expr.iter().enumerate();
    let first_keys = keys.map(|(at, key)| key.clone().alias(key_name(at)));
    let first_keys = first_keys.chain([text.clone().alias(TEXT)]);
    let of_rows = counts.iter().enumerate().filter(|(_, count)| !count.params.distinct);
    let of_rows = of_rows.map(|(at, count)| {
        Expr::AggregateFunction(AggregateFunction::clone(count)).alias(count_name(at))
    });
    let first =
        Aggregate::try_new(Arc::clone(&aggregate.input), first_keys.collect(), of_rows.collect())?;
    let last_keys: Vec<Expr> =
        (0..aggregate.group_expr.len()).map(|at| column(key_name(at))).collect();
    let added = counts.iter().enumerate().map(|(at, count)| {
        let (function, argument) = match count.params.distinct {
            true => (Arc::clone(&count.func), column(TEXT.to_owned())),
            false => (sum_udaf(), column(count_name(at))),
        };
        let call = AggregateFunction::new_udf(function, vec![argument], false, None, vec![], None);
        Expr::AggregateFunction(call).alias(count_name(at))
    });
    let first = Arc::new(LogicalPlan::Aggregate(first));
    let last = Aggregate::try_new(first, last_keys.clone(), added.collect())?;
    // Of no rows there is no count to add to another.
    let total = |at: usize| {
        let total = column(count_name(at));
        when(total.clone().is_not_null(), total).otherwise(lit(0_i64))
    };
    let totals = (0..counts.len()).map(total).collect::<Result<Vec<_>, _>>()?;
    let named = last_keys.into_iter().chain(totals).enumerate().map(|(at, expr)| {
        let (qualifier, field) = aggregate.schema.qualified_field(at);
        expr.alias_qualified(qualifier.cloned(), field.name())
    });
    let named: Vec<Expr> = named.collect();
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(last)).project(named)?.build()
}
