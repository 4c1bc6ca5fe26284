//! Folds without the columns of events that nothing reads of their documents.
//!
//! DataFusion takes columns out of a scan that no step reads. A fold reads all that a document is made of, whatever is
//! read of its answer, which is one struct. Its one invariant: what is read of the answer is what it was.

use super::fold::{FOLD_ARGUMENTS, FOLD_CHANGES};
use arrow::datatypes::DataType;
use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Aggregate, Expr, LogicalPlan, lit},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};
use std::{collections::BTreeSet, sync::Arc};

/// DataFusion's function that reads a member of a struct.
const GET_FIELD: &str = "get_field";
/// Members of a document that are texts of its last change, and which argument of the fold has them. Nothing else of
/// the document depends on them.
const WORDS: [(&str, usize); 4] = [("store", 5), ("actor", 6), ("bookmark", 7), ("event_id", 8)];

/// The rule. It comes behind the one that takes columns out, which goes on from it in the next round.
#[derive(Debug)]
pub struct FoldArguments;

impl OptimizerRule for FoldArguments {
    fn name(&self) -> &'static str {
        "fold_arguments"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        // Steps of other kinds hand on every column.
        if !matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
            return Ok(Transformed::no(plan));
        }
        Ok(match over_narrower(&plan)? {
            Some(narrower) => Transformed::yes(narrower),
            None => Transformed::no(plan),
        })
    }
}

/// What is read of a column that is a struct.
#[derive(Debug, Default)]
struct ReadMembers {
    names: BTreeSet<String>,
    /// Whether more is read than these.
    is_whole: bool,
}

impl ReadMembers {
    /// Notes what an expression reads of columns with a name, of whatever relation they are.
    fn add(&mut self, expr: &Expr, name: &str) -> Result<(), DataFusionError> {
        let is_it = |part: &Expr| matches!(part, Expr::Column(column) if column.name == name);
        expr.apply(|part| {
            match part {
                Expr::IsNull(of) | Expr::IsNotNull(of) if is_it(of) => {
                    return Ok(TreeNodeRecursion::Jump);
                }
                Expr::ScalarFunction(call) if call.func.name() == GET_FIELD => {
                    if let [of, Expr::Literal(member, _)] = call.args.as_slice()
                        && is_it(of)
                        && let Some(Some(member)) = member.try_as_str()
                    {
                        self.names.insert(member.to_owned());
                        return Ok(TreeNodeRecursion::Jump);
                    }
                }
                // Its plan may read columns of this one.
                Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::Exists(_) => self.is_whole = true,
                other => self.is_whole |= is_it(other),
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }
}

/// A step over a fold that reads less; none where the fold is not below it, or reads no more than it has to.
fn over_narrower(plan: &LogicalPlan) -> Result<Option<LogicalPlan>, DataFusionError> {
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else { return Ok(None) };
    for (at, field) in input.schema().fields().iter().enumerate() {
        if !matches!(field.data_type(), DataType::Struct(_)) {
            continue;
        }
        let (mut read, exprs) = (ReadMembers::default(), plan.expressions());
        for expr in &exprs {
            read.add(expr, field.name())?;
        }
        if let Some(narrower) = narrower(input, at, read)? {
            return plan.with_new_exprs(exprs, vec![narrower]).map(Some);
        }
    }
    Ok(None)
}

/// A plan whose column `at` is a fold that reads less, if it is one of which no more than `read` is read.
fn narrower(
    plan: &LogicalPlan,
    at: usize,
    mut read: ReadMembers,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let below = match plan {
        LogicalPlan::SubqueryAlias(alias) => narrower(&alias.input, at, read)?,
        LogicalPlan::Filter(filter) => {
            read.add(&filter.predicate, plan.schema().field(at).name())?;
            narrower(&filter.input, at, read)?
        }
        LogicalPlan::Projection(projection) => {
            let own = projection.expr.get(at).cloned().map(Expr::unalias);
            let Some(Expr::Column(column)) = own else { return Ok(None) };
            let others = projection.expr.iter().enumerate().filter(|(other, _)| *other != at);
            for (_, expr) in others {
                read.add(expr, &column.name)?;
            }
            match projection.input.schema().maybe_index_of_column(&column) {
                Some(at) => narrower(&projection.input, at, read)?,
                None => None,
            }
        }
        LogicalPlan::Aggregate(aggregate) => return narrower_fold(aggregate, at, &read),
        _ => None,
    };
    match below {
        Some(below) => plan.with_new_exprs(plan.expressions(), vec![below]).map(Some),
        None => Ok(None),
    }
}

/// The aggregate with NULL in the place of the columns that are in its answer `at` and are not read.
fn narrower_fold(
    aggregate: &Aggregate,
    at: usize,
    read: &ReadMembers,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let Some(at) = at.checked_sub(aggregate.group_expr_len()?) else { return Ok(None) };
    let Some(known) = aggregate.aggr_expr.get(at) else { return Ok(None) };
    let name = known.schema_name().to_string();
    let Expr::AggregateFunction(mut fold) = known.clone().unalias() else { return Ok(None) };
    let arguments = &mut fold.params.args;
    let is_fold = fold.func.name() == FOLD_CHANGES && arguments.len() == FOLD_ARGUMENTS;
    if !is_fold || read.is_whole {
        return Ok(None);
    }
    let (nothing, mut is_narrower) = (lit(ScalarValue::Utf8View(None)), false);
    for (member, argument) in WORDS {
        if !read.names.contains(member) && arguments[argument] != nothing {
            arguments[argument] = nothing.clone();
            is_narrower = true;
        }
    }
    if !is_narrower {
        return Ok(None);
    }
    let mut aggr_expr = aggregate.aggr_expr.clone();
    // Those above know it by its name.
    aggr_expr[at] = Expr::AggregateFunction(fold).alias(name);
    let (input, schema) = (Arc::clone(&aggregate.input), Arc::clone(&aggregate.schema));
    let group_expr = aggregate.group_expr.clone();
    Aggregate::try_new_with_schema(input, group_expr, aggr_expr, schema)
        .map(|narrower| Some(LogicalPlan::Aggregate(narrower)))
}
