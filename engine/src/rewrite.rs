//! What is put in the place of functions and operators that could take a query out of its bounds.
//!
//! It sees every expression of a plan before any is evaluated, whether the one who asks wrote it
//! or a planner of DataFusion made it.

use crate::{
    bounded_functions::{FunctionMemory, is_unbounded},
    plain,
    query_process::QueryProcess,
};
use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        metadata::FieldMetadata,
        plan_err,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    functions::regex::regexp_like,
    logical_expr::{
        BinaryExpr, Expr, Operator, WindowFunctionDefinition,
        expr::{Alias, ScalarFunction},
        expr_rewriter::FunctionRewrite,
        lit,
    },
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

/// Longest regular expression. A longer one takes seconds to compile and megabytes to keep.
const PATTERN_BYTES_MAX: usize = 4 << 10;
/// Functions whose second argument is a regular expression.
const WITH_PATTERN: &[&str] =
    &["regexp_count", "regexp_instr", "regexp_like", "regexp_match", "regexp_replace"];
/// Aggregates whose answer grows with each row of a window.
const NOT_OVER_WINDOWS: &[&str] =
    &["array_agg", "document_anomalies", "document_versions", "string_agg"];

/// Where a column's mark is in its metadata.
const MARK: &str = "icecore.step";

/// Puts bounded functions in the place of growing ones, and refuses what has no bound where the query runs.
#[derive(Debug)]
pub struct BoundedFunctionRule {
    /// Reckons what functions make.
    pub growth: Arc<FunctionMemory>,
    /// When the query ends.
    pub deadline: Instant,
    /// Columns that were told apart so far.
    pub marks: AtomicU64,
}

impl FunctionRewrite for BoundedFunctionRule {
    fn name(&self) -> &'static str {
        "keep_within_memory"
    }

    fn rewrite(
        &self,
        expr: Expr,
        _schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>, DataFusionError> {
        if self.growth.process() == QueryProcess::Shared
            && let Some(pattern) = pattern_of(&expr)
        {
            check_pattern(pattern)?;
        }
        match expr {
            Expr::ScalarFunction(call) if is_unbounded(call.func.name()) => {
                let func = plain::strict(call.func);
                let func = Arc::new(self.growth.bound(func, self.deadline));
                let args = call.args;
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let func = Arc::new(self.growth.concat_operator(self.deadline));
                let args = vec![*left, *right];
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_regular(op) => {
                let func = Arc::new(self.growth.bound(regexp_like(), self.deadline));
                let mut args = vec![*left, *right];
                if matches!(op, Operator::RegexIMatch | Operator::RegexNotIMatch) {
                    args.push(lit("i"));
                }
                let call = Expr::ScalarFunction(ScalarFunction { func, args });
                let negated = matches!(op, Operator::RegexNotMatch | Operator::RegexNotIMatch);
                Ok(Transformed::yes(if negated { Expr::Not(Box::new(call)) } else { call }))
            }
            // The optimizer takes two equal steps one upon the other for one, also where the second
            // goes on with what the first made: `x + 1 AS x` of `x + 1 AS x`. A mark makes them differ.
            Expr::Alias(mut alias) if stands_on_itself(&alias) => {
                let mark = self.marks.fetch_add(1, Ordering::Relaxed).to_string();
                let mark = BTreeMap::from([(MARK.to_owned(), mark)]);
                alias.metadata = Some(FieldMetadata::from(mark));
                Ok(Transformed::yes(Expr::Alias(alias)))
            }
            Expr::WindowFunction(ref call) => match &call.fun {
                WindowFunctionDefinition::AggregateUDF(function)
                    if NOT_OVER_WINDOWS.contains(&function.name()) =>
                {
                    plan_err!(
                        "`{}` cannot be used with OVER: its results would grow with the square of the rows; use GROUP BY",
                        function.name()
                    )
                }
                _ => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        }
    }
}

fn is_regular(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::RegexMatch
            | Operator::RegexIMatch
            | Operator::RegexNotMatch
            | Operator::RegexNotIMatch
    )
}

/// Whether a column is made of another one of the same name, and is not just that one.
fn stands_on_itself(alias: &Alias) -> bool {
    let is_it = |part: &Expr| matches!(part, Expr::Column(column) if column.name == alias.name);
    !is_it(&alias.expr) && alias.expr.exists(|part| Ok(is_it(part))).unwrap_or(true)
}

/// The regular expression that this expression itself looks for.
pub(super) fn pattern_of(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if WITH_PATTERN.contains(&call.func.name()) => call.args.get(1),
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) if is_regular(*op) => Some(right),
        Expr::SimilarTo(like) => Some(&like.pattern),
        _ => None,
    }
}

/// A pattern is compiled for each of its values and kept for a batch, so it may have only one.
fn check_pattern(pattern: &Expr) -> Result<(), DataFusionError> {
    let differs = pattern.exists(|part| {
        let of_row = matches!(
            part,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        );
        Ok(of_row || part.is_volatile_node())
    })?;
    if differs {
        return plan_err!(
            "a regular expression must be a constant, not `{pattern}`, which can differ from row to row"
        );
    }
    let bytes = match pattern {
        Expr::Literal(value, _) => value.try_as_str().flatten().map_or(0, str::len),
        _ => 0,
    };
    if PATTERN_BYTES_MAX < bytes {
        return plan_err!(
            "a regular expression of {bytes} bytes is longer than {PATTERN_BYTES_MAX}; use IN (…) or LIKE for lists of texts"
        );
    }
    Ok(())
}
