//! `random()` and `uuid()`: each mention draws once for each row, whatever becomes of it.
//!
//! DataFusion 54 evaluates a volatile function again wherever its optimizer puts a copy of it: in the filters
//! above a derived table, on both sides of BETWEEN, in CASE and coalesce (apache/datafusion#25457, #25477).
//! So here each mention has a number before the statement is rewritten or planned. In the plan, all copies of
//! one number in a node become one column, which a window function makes below that node; the optimizer takes
//! nothing out of a window. A number in two nodes would be drawn twice: that statement is refused.

use arrow::{
    array::{Array, ArrayRef, new_empty_array},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::{
        Column, ScalarValue, plan_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, Filter, Join, JoinType, LimitEffect, LogicalPlan, LogicalPlanBuilder,
        PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility, WindowUDF, WindowUDFImpl,
        expr::{ScalarFunction, WindowFunction},
        expr_rewriter::NamePreserver,
        function::{PartitionEvaluatorArgs, WindowUDFFieldArgs},
        utils::{conjunction, split_conjunction_owned},
    },
    physical_plan::PhysicalExpr,
    sql::sqlparser::ast::{
        self, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Select, SelectItem,
        Statement, VisitMut, VisitorMut, visit_expressions,
    },
};
use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    ops::{ControlFlow, Range},
    sync::Arc,
};

/// The functions by all their names.
const NAMES: &[&str] = &["random", "rand", "uuid"];
/// Rows that a window draws for at once.
const ROWS_AHEAD: usize = 1_024;

/// Gives each mention its number, as an argument.
///
/// # Errors
/// One has arguments of its own.
pub fn number(statement: &mut Statement) -> Result<(), String> {
    match statement.visit(&mut DrawNumbers::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

/// Whether a statement calls one of these functions.
#[must_use]
pub fn is_drawn(statement: &Statement) -> bool {
    let drawn = visit_expressions(statement, |part| match call_of(part) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    });
    drawn.is_break()
}

#[derive(Default)]
struct DrawNumbers {
    last: u64,
}

impl VisitorMut for DrawNumbers {
    type Break = String;

    /// A column is called as it was written, without the number.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let draws = visit_expressions(expr, |part| match call_of(part) {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            });
            if draws.is_break() {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<String> {
        if call_of(expr).is_none() {
            return ControlFlow::Continue(());
        }
        let ast::Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let FunctionArguments::List(list) = &mut call.args else {
            return ControlFlow::Break(format!("`{}` needs brackets behind it", call.name));
        };
        if !list.args.is_empty() {
            return ControlFlow::Break(format!("`{}` takes no arguments", call.name));
        }
        self.last += 1;
        let number = ast::Expr::value(ast::Value::Number(self.last.to_string(), false));
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(number)));
        ControlFlow::Continue(())
    }
}

fn call_of(expr: &ast::Expr) -> Option<&ast::Function> {
    let ast::Expr::Function(call) = expr else { return None };
    let [part] = call.name.0.as_slice() else { return None };
    NAMES.contains(&part.as_ident()?.value.to_lowercase().as_str()).then_some(call)
}

/// The functions of `theirs` that draw, as they take their numbers.
pub fn numbered(theirs: impl Iterator<Item = Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    let drawing = theirs.filter(|function| NAMES.contains(&function.name()));
    let signature = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::Any(1)]);
    let signature = Signature::new(signature, Volatility::Volatile);
    drawing
        .map(|inner| ScalarUDF::from(DrawFunction { inner, signature: signature.clone() }))
        .collect()
}

fn drawn(inner: &ScalarUDF, rows: usize) -> Result<ArrayRef, DataFusionError> {
    let arguments = ScalarFunctionArgs {
        args: Vec::new(),
        arg_fields: Vec::new(),
        number_rows: rows,
        return_field: Arc::new(Field::new(inner.name(), inner.return_type(&[])?, false)),
        config_options: Arc::default(),
    };
    inner.invoke_with_args(arguments)?.into_array(rows)
}

/// A function that takes the number of its mention, and does not look at it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DrawFunction {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DrawFunction {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        self.inner.return_type(&[])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        drawn(&self.inner, args.number_rows).map(ColumnarValue::Array)
    }
}

/// The plan with a column for each mention.
///
/// # Errors
/// A mention would be drawn more than once for a row, or stands where no column can be made for it.
pub fn once_a_row(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let (mut nodes, mut places) = (0_usize, HashMap::new());
    plan.apply_with_subqueries(|node| {
        nodes += 1;
        if let LogicalPlan::Unnest(unnest) = node {
            let below = mentions(&unnest.input)?;
            if let Some(inner) = below.values().next() {
                return plan_err!(
                    "`{}()` beside unnest would be drawn once for each list: select it in a query around the one with unnest",
                    inner.name()
                );
            }
        }
        for (number, inner) in mentions(node)? {
            if places.insert(number, nodes).is_some_and(|other| other != nodes) {
                return plan_err!(
                    "`{}()` would be drawn again for each use of the query that it is part of: read a common table expression with it once, and keep it out of IN, ANY and ALL over a query",
                    inner.name()
                );
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if places.is_empty() {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(of_node).map(|done| done.data)
}

/// The mentions in a node's own expressions, by their numbers.
fn mentions(node: &LogicalPlan) -> Result<BTreeMap<i64, Arc<ScalarUDF>>, DataFusionError> {
    let mut found = BTreeMap::new();
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            found.extend(mention(part));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn mention(expr: &Expr) -> Option<(i64, Arc<ScalarUDF>)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let inner = func.inner().as_ref() as &dyn Any;
    let inner = &inner.downcast_ref::<DrawFunction>()?.inner;
    match args.as_slice() {
        [Expr::Literal(ScalarValue::Int64(Some(number)), _)] => Some((*number, Arc::clone(inner))),
        _ => None,
    }
}

fn of_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let draws = mentions(&plan)?;
    let Some(first) = draws.values().next() else { return Ok(Transformed::no(plan)) };
    Ok(Transformed::yes(match plan {
        // Its rows are made once.
        LogicalPlan::Values(_) => plan,
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => above_window(plan, &draws)?,
        LogicalPlan::Window(_) | LogicalPlan::Sort(_) => without_draws(plan, &draws)?,
        LogicalPlan::Filter(filter) => of_filter(filter, &draws)?,
        LogicalPlan::Join(Join { join_type: JoinType::Inner, ref on, .. })
            if !on.iter().any(|(left, right)| left.is_volatile() || right.is_volatile()) =>
        {
            let LogicalPlan::Join(mut join) = plan else { unreachable!("see above") };
            let Some(condition) = join.filter.take() else { return plan_err!("a join has none") };
            let joined = Arc::new(LogicalPlan::Join(join));
            of_filter(Filter::try_new(condition, joined)?, &draws)?
        }
        _ => {
            return plan_err!(
                "`{}()` cannot be drawn in ON of an outer join, in LIMIT or in DISTINCT ON: select it in a query below, and use its column",
                first.name()
            );
        }
    }))
}

/// Conditions without a draw stay below, where they may reach a scan.
fn of_filter(
    filter: Filter,
    draws: &BTreeMap<i64, Arc<ScalarUDF>>,
) -> Result<LogicalPlan, DataFusionError> {
    let (above, below): (Vec<Expr>, Vec<Expr>) =
        split_conjunction_owned(filter.predicate).into_iter().partition(Expr::is_volatile);
    let mut input = filter.input;
    if let Some(condition) = conjunction(below) {
        input = Arc::new(LogicalPlan::Filter(Filter::try_new(condition, input)?));
    }
    match conjunction(above) {
        Some(above) => without_draws(LogicalPlan::Filter(Filter::try_new(above, input)?), draws),
        None => Ok(input.as_ref().clone()),
    }
}

/// A node whose answer has the columns of its input, and not those of the draws.
fn without_draws(
    plan: LogicalPlan,
    draws: &BTreeMap<i64, Arc<ScalarUDF>>,
) -> Result<LogicalPlan, DataFusionError> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    LogicalPlanBuilder::from(above_window(plan, draws)?).project(columns)?.build()
}

/// The node above a window that draws for it.
fn above_window(
    plan: LogicalPlan,
    draws: &BTreeMap<i64, Arc<ScalarUDF>>,
) -> Result<LogicalPlan, DataFusionError> {
    let input = plan.inputs()[0].clone();
    let width = input.schema().fields().len();
    let calls = draws.iter().map(|(number, inner)| {
        let function = WindowUDF::from(DrawWindow {
            name: format!("{}_{number}", inner.name()),
            inner: Arc::clone(inner),
            signature: Signature::nullary(Volatility::Volatile),
        });
        Expr::from(WindowFunction::new(Arc::new(function), Vec::new()))
    });
    let window = LogicalPlanBuilder::from(input).window(calls.collect::<Vec<_>>())?.build()?;
    let columns: Vec<Column> = window.schema().columns().into_iter().skip(width).collect();
    let columns: BTreeMap<i64, Column> = draws.keys().copied().zip(columns).collect();
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_up(|part| {
            Ok(match mention(&part).and_then(|(number, _)| columns.get(&number)) {
                Some(column) => Transformed::yes(Expr::Column(column.clone())),
                None => Transformed::no(part),
            })
        })?;
        Ok(if done.transformed { done.update_data(|expr| name.restore(expr)) } else { done })
    })?;
    plan.data.with_new_exprs(plan.data.expressions(), vec![window])
}

/// A column of draws.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DrawWindow {
    name: String,
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl WindowUDFImpl for DrawWindow {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        let ahead = new_empty_array(&self.inner.return_type(&[])?);
        Ok(Box::new(DrawEvaluator { inner: Arc::clone(&self.inner), ahead, used: 0 }))
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::new(Field::new(arguments.name(), self.inner.return_type(&[])?, false)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

#[derive(Debug)]
struct DrawEvaluator {
    inner: Arc<ScalarUDF>,
    ahead: ArrayRef,
    used: usize,
}

impl PartitionEvaluator for DrawEvaluator {
    fn is_causal(&self) -> bool {
        true
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }

    fn evaluate_all(&mut self, _: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
        drawn(&self.inner, rows)
    }

    fn evaluate(
        &mut self,
        _: &[ArrayRef],
        _: &Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        if self.used == self.ahead.len() {
            (self.ahead, self.used) = (drawn(&self.inner, ROWS_AHEAD)?, 0);
        }
        self.used += 1;
        ScalarValue::try_from_array(&self.ahead, self.used - 1)
    }
}
