//! How large a plan is, counted before anything takes time or memory by its size.
//!
//! The optimizer puts an expression in the place of a column that stands for it. So a column weighs
//! as much as the expression behind it, through all queries below: a few queries that each name a
//! column twice are larger than memory once they are put into one.

use crate::{error::SqlError, query_process::QueryProcess, rewrite::pattern_of};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlan},
};

/// Most parts of all expressions of a plan, each column counted as what it stands for.
pub const EXPRESSIONS_MAX: u64 = 100_000;
/// Most regular expressions: each may take a good part of a second to compile, for each batch.
pub const PATTERNS_MAX: usize = 50;
/// Most columns that an answer or a query within has.
pub const COLUMNS_MAX: usize = 4_000;
/// Most bytes of all names in the types of an answer, with [`FIELD_BYTES`] for each field: a struct that is made of
/// a struct twice has a type that doubles with each query, and the server has it in hand too.
const TYPES_BYTES_MAX: usize = 4 << 20;
/// What a field counts beside its name.
const FIELD_BYTES: usize = 64;
/// Most levels of structs, lists and maps in one another. Readers of Arrow take no more than about 60.
const LEVELS_MAX: usize = 48;
/// Most bytes of the constants of a plan: each is copied for each row of a batch.
pub const CONSTANTS_BYTES_MAX: usize = 1 << 20;
/// The longest list that DataFusion 54 compares with one by one.
const INLINE_LIST_MAX: usize = 3;
/// Functions whose arguments it writes twice.
const TWICE: &[&str] = &["coalesce", "nullif", "nvl"];
/// Rows of a batch are as few as keep the constants of all of them below this, but never less than
/// [`ROWS_MIN`].
const BATCH_CONSTANTS_BYTES: usize = 64 << 20;
/// The smallest batch.
const ROWS_MIN: usize = 64;

/// Refuses a plan that is too large to be optimized. In a process of its own only its columns and their
/// types are counted, as the server has them in hand too.
///
/// # Errors
/// [`SqlError::Invalid`] says what is too large.
pub fn check(plan: &LogicalPlan, process: QueryProcess) -> Result<(), SqlError> {
    match process {
        QueryProcess::Shared => PlanCost::default().weigh(plan).map(|_| ()),
        QueryProcess::Own => check_widths(plan),
    }
}

fn check_widths(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut widest = 0;
    let walked = plan.apply_with_subqueries(|node| {
        widest = widest.max(node.schema().fields().len());
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|cause| SqlError::Invalid(cause.to_string()))?;
    check_width(widest)?;
    check_types(plan.schema().fields())
}

fn check_types(columns: &Fields) -> Result<(), SqlError> {
    let mut bytes_left = TYPES_BYTES_MAX;
    if columns.iter().all(|column| takes_its_part(column, LEVELS_MAX, &mut bytes_left)) {
        return Ok(());
    }
    Err(SqlError::Invalid(format!(
        "the structs, lists and maps of the answer have more than {LEVELS_MAX} levels or too many members; select less of them"
    )))
}

/// Takes what a field and all in it need of the bytes that are left; false where they are too few, or the levels are.
fn takes_its_part(field: &Field, levels_left: usize, bytes_left: &mut usize) -> bool {
    let rest = bytes_left.checked_sub(FIELD_BYTES + field.name().len());
    let (Some(rest), Some(levels)) = (rest, levels_left.checked_sub(1)) else { return false };
    *bytes_left = rest;
    match field.data_type() {
        DataType::Struct(members) => {
            members.iter().all(|member| takes_its_part(member, levels, bytes_left))
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => takes_its_part(item, levels, bytes_left),
        _ => true,
    }
}

fn check_width(width: usize) -> Result<(), SqlError> {
    if width <= COLUMNS_MAX {
        return Ok(());
    }
    Err(SqlError::Invalid(format!(
        "a query has more than {COLUMNS_MAX} columns; select only those that you need"
    )))
}

/// How many rows a batch of this optimized plan may have, at most `rows_max`.
///
/// # Errors
/// [`SqlError::Invalid`] when the constants are too large for a process that does other work.
pub fn batch_rows(
    plan: &LogicalPlan,
    rows_max: usize,
    process: QueryProcess,
) -> Result<usize, SqlError> {
    let mut bytes = 0_usize;
    let mut add = |expression: &Expr| {
        expression.apply(|part| {
            if let Expr::Literal(value, _) = part {
                bytes = bytes.saturating_add(value.size() - size_of_val(value));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    };
    plan.apply_with_subqueries(|node| node.apply_expressions(&mut add))
        .map_err(|cause| SqlError::Invalid(cause.to_string()))?;
    let rows = BATCH_CONSTANTS_BYTES / bytes.max(1);
    if process == QueryProcess::Own {
        return Ok(rows.clamp(1, rows_max));
    }
    if CONSTANTS_BYTES_MAX < bytes {
        return Err(SqlError::Invalid(format!(
            "the evaluated constants of the statement take more than {CONSTANTS_BYTES_MAX} bytes; shorten them, or use each only once"
        )));
    }
    Ok(rows.clamp(ROWS_MIN, rows_max))
}

#[derive(Default)]
struct PlanCost {
    total: u64,
    patterns: usize,
}

impl PlanCost {
    /// What each column of the plan's answer stands for.
    fn weigh(&mut self, plan: &LogicalPlan) -> Result<Vec<u64>, SqlError> {
        let width = plan.schema().fields().len();
        check_width(width)?;
        let inputs = plan.inputs();
        let mut columns = Vec::new();
        for input in &inputs {
            columns.push((input.schema().as_ref(), self.weigh(input)?));
        }
        let mut expressions = Vec::new();
        for expression in plan.expressions() {
            expressions.push(self.expression(&expression, &columns)?);
        }
        let below = columns.into_iter().map(|(_, weights)| weights);
        Ok(match plan {
            LogicalPlan::Projection(_) => expressions,
            // Columns of the groups come first; what is counted or summed up stays one column.
            LogicalPlan::Aggregate(_) => {
                expressions.resize(width, 1);
                expressions
            }
            LogicalPlan::Union(_) => below.fold(vec![1; width], |most, branch| {
                most.iter().zip(branch).map(|(a, b)| (*a).max(b)).collect()
            }),
            _ => {
                let mut weights: Vec<u64> = below.flatten().collect();
                weights.resize(width, 1);
                weights
            }
        })
    }

    fn expression(
        &mut self,
        expression: &Expr,
        inputs: &[(&DFSchema, Vec<u64>)],
    ) -> Result<u64, SqlError> {
        let weight = self.part(expression, inputs)?;
        self.total = self.total.saturating_add(weight);
        if EXPRESSIONS_MAX < self.total {
            return Err(SqlError::Invalid(format!(
                "the expanded expressions of the statement have more than {EXPRESSIONS_MAX} parts; nest fewer queries that build on one another"
            )));
        }
        if PATTERNS_MAX < self.patterns {
            return Err(SqlError::Invalid(format!(
                "the statement has more than {PATTERNS_MAX} regular expressions; combine alternatives into one, or use LIKE"
            )));
        }
        Ok(weight)
    }

    /// A part of an expression with all below it, as often as the optimizer makes copies of them.
    fn part(&mut self, part: &Expr, inputs: &[(&DFSchema, Vec<u64>)]) -> Result<u64, SqlError> {
        self.patterns += usize::from(pattern_of(part).is_some());
        let query = match part {
            Expr::ScalarSubquery(query) => Some(query),
            Expr::InSubquery(query) => Some(&query.subquery),
            Expr::Exists(query) => Some(&query.subquery),
            _ => None,
        };
        if let Some(query) = query {
            self.weigh(&query.subquery)?;
        }
        let mut weight = match part {
            Expr::Column(column) => inputs
                .iter()
                .find_map(|(schema, weights)| {
                    schema.maybe_index_of_column(column).map(|at| weights[at])
                })
                .unwrap_or(1),
            _ => 1,
        };
        let mut below = Ok(());
        let walked = part.apply_children(|child| {
            below = self.part(child, inputs).map(|more| weight = weight.saturating_add(more));
            let goes_on = below.is_ok();
            Ok::<_, DataFusionError>(match goes_on {
                true => TreeNodeRecursion::Continue,
                false => TreeNodeRecursion::Stop,
            })
        });
        walked.map_err(|cause| SqlError::Invalid(cause.to_string()))?;
        below.map(|()| weight.saturating_mul(copies(part)))
    }
}

/// How often the optimizer writes what is below this expression: comparisons with two bounds or a short
/// list become one with each, and functions that look for a value become a CASE.
fn copies(part: &Expr) -> u64 {
    match part {
        Expr::Between(_) => 2,
        Expr::InList(list) if list.list.len() <= INLINE_LIST_MAX => list.list.len().max(1) as u64,
        Expr::ScalarFunction(call) if 1 < call.args.len() && TWICE.contains(&call.func.name()) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
