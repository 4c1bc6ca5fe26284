//! Aggregates that manifests answer: `count`, `min` and `max` over data files that are not read for them.
//!
//! The first step of an aggregation hands on a partial state for each group. The state of a file is known without
//! its rows where the manifest says that each of them meets the conditions and has the one key. Then `count` is
//! the number of rows, and a file can be left out of a `min` or `max` whose value is certain to be in another file.
//! So the states of these files take the place of the files, beside the step that reads the others and the log.
//!
//! Its one invariant: the states and the step over the rest give what the step over all files gave. Bounds may be
//! wider than the values are, so a bound never becomes an answer, but for a range of one value.

use crate::{
    scanned_file::{ScannedFile, ValueRange},
    value_range::{constant_of, is_true_for_all, range_of},
};
use arrow::{
    array::ArrayRef,
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    catalog::memory::MemorySourceConfig,
    common::{
        ScalarValue, Statistics,
        config::ConfigOptions,
        exec_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder},
        source::DataSourceExec,
    },
    error::DataFusionError,
    physical_expr::{
        PhysicalExpr,
        expressions::{Column, Literal},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        filter::FilterExec,
        projection::ProjectionExec,
        udaf::AggregateFunctionExpr,
        union::UnionExec,
    },
};
use std::{cmp::Ordering, collections::HashMap, sync::Arc, vec::IntoIter};

/// Most parts of the expressions of an aggregation: steps below it may write them out again and again.
const PARTS_MAX: usize = 4_096;
/// Most parts that are looked at for all files together; with more, the last files are read.
const LOOKS_MAX: usize = 1 << 20;
/// Most states of a batch.
const BATCH_ROWS: usize = 8_192;

/// Puts known states in the place of files. It runs before filters are handed to scans, whose files would then have
/// rows that do not count.
#[derive(Debug)]
pub struct ManifestAggregates;

impl PhysicalOptimizerRule for ManifestAggregates {
    fn name(&self) -> &'static str {
        "manifest_aggregates"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let with_states = |node: Arc<dyn ExecutionPlan>| {
            let replaced = with_known_states(&node)?;
            Ok(replaced.map_or_else(|| Transformed::no(node), Transformed::yes))
        };
        plan.transform_up(with_states).map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The node over fewer files and with their states, if it is the first step of an aggregation and any are known.
fn with_known_states(
    node: &Arc<dyn ExecutionPlan>,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(question) = AggregateQuestion::of(aggregate) else { return Ok(None) };
    let mut found = Vec::new();
    question.ask(aggregate.input(), &mut found);
    let is_settled = question.settled(&found);
    let settled: Vec<&FileAnswer> = found
        .iter()
        .zip(&is_settled)
        .filter_map(|(answer, is_settled)| answer.as_ref().filter(|_| *is_settled))
        .collect();
    let Some(states) = question.states(&settled, &aggregate.schema())? else { return Ok(None) };
    let rest = question.rest(aggregate.input(), &mut is_settled.into_iter())?;
    for answer in settled {
        answer.file.leave_out();
    }
    let Some(rest) = rest else { return Ok(Some(states)) };
    let step = Arc::clone(node).with_new_children(vec![rest])?;
    UnionExec::try_new(vec![step, states]).map(Some)
}

/// What is computed over all rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MeasureKind {
    Count,
    Least,
    Greatest,
}

impl MeasureKind {
    /// The value that the answer of a group is certain to reach, as one of its files has this range.
    fn reached(self, range: &ValueRange) -> &ScalarValue {
        match self {
            Self::Count | Self::Greatest => &range.lowest,
            Self::Least => &range.highest,
        }
    }

    /// Whether the answer is rather the first of two values.
    fn prefers(self, one: &ScalarValue, other: &ScalarValue) -> bool {
        let order = one.partial_cmp(other);
        match self {
            Self::Count => false,
            Self::Least => order == Some(Ordering::Less),
            Self::Greatest => order == Some(Ordering::Greater),
        }
    }

    /// Whether no value of a range is the answer of a group that reaches `reached`.
    fn is_behind(self, range: &ValueRange, reached: &ScalarValue) -> bool {
        match self {
            Self::Count => false,
            Self::Least => self.prefers(reached, &range.lowest),
            Self::Greatest => self.prefers(reached, &range.highest),
        }
    }
}

/// What an aggregation asks of the rows of a scan: its keys, measures and conditions, in terms of the columns there.
#[derive(Clone)]
struct AggregateQuestion {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    measures: Vec<(MeasureKind, Arc<dyn PhysicalExpr>)>,
    conditions: Vec<Arc<dyn PhysicalExpr>>,
}

/// What one file answers. A measure has the range of its value.
struct FileAnswer {
    file: ScannedFile,
    key: Vec<ScalarValue>,
    values: Vec<ValueRange>,
}

/// The values that groups are certain to reach, one for each measure.
struct ReachedValues<'a> {
    by_key: HashMap<&'a [ScalarValue], Vec<Option<&'a ScalarValue>>>,
}

impl AggregateQuestion {
    /// The question of a first step; none if it asks for what manifests never tell.
    fn of(aggregate: &AggregateExec) -> Option<Self> {
        let is_plain = *aggregate.mode() == AggregateMode::Partial
            && aggregate.group_expr().is_single()
            && aggregate.limit_options().is_none()
            && aggregate.filter_expr().iter().all(Option::is_none);
        if !is_plain {
            return None;
        }
        let measures = aggregate.aggr_expr().iter().map(|function| measure(function));
        let measures = measures.collect::<Option<Vec<_>>>()?;
        let keys = aggregate.group_expr().expr().iter().map(|(key, _)| Arc::clone(key)).collect();
        Some(Self { keys, measures, conditions: Vec::new() })
    }

    /// What the files below `node` answer, in the order of the plan.
    fn ask(&self, node: &Arc<dyn ExecutionPlan>, found: &mut Vec<Option<FileAnswer>>) {
        if let Some(scan) = scan_of(node) {
            let schema = node.schema();
            let asked_max = match self.parts() {
                Some(parts) if is_whole(scan) => LOOKS_MAX / parts.max(1),
                _ => 0,
            };
            for file in scan.file_groups.iter().flat_map(FileGroup::iter) {
                let file = file.extension::<ScannedFile>();
                let file = file.filter(|_| found.len() < asked_max);
                found.push(file.and_then(|file| self.answer(file, &schema)));
            }
        } else if let Some(below) = self.below(node) {
            for child in node.children() {
                below.ask(child, found);
            }
        }
    }

    /// The question to the inputs of a step; none for a step that is not looked through.
    fn below(&self, step: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        if step.fetch().is_some() {
            return None;
        }
        if step.is::<UnionExec>() {
            // A union has the names of its first input, and rules look columns up by their names. So the others must
            // have them, too, for the case that the first one is not needed.
            let schema = step.schema();
            let has_names = |input: &Arc<dyn ExecutionPlan>| {
                let own = input.schema();
                let mut pairs = own.fields().iter().zip(schema.fields());
                pairs.all(|(own, field)| own.name() == field.name())
            };
            return step.children().into_iter().all(has_names).then(|| self.clone());
        }
        if let Some(filter) = step.downcast_ref::<FilterExec>() {
            let mut below = match filter.projection() {
                None => self.clone(),
                Some(kept) => {
                    let schema = filter.input().schema();
                    let column = |at: &usize| -> Arc<dyn PhysicalExpr> {
                        Arc::new(Column::new(schema.field(*at).name(), *at))
                    };
                    self.in_terms_of(&kept.iter().map(column).collect::<Vec<_>>())?
                }
            };
            below.conditions.push(Arc::clone(filter.predicate()));
            return Some(below);
        }
        let projection = step.downcast_ref::<ProjectionExec>()?;
        let columns: Vec<_> =
            projection.expr().iter().map(|column| Arc::clone(&column.expr)).collect();
        self.in_terms_of(&columns)
    }

    /// The question with these expressions in the place of columns.
    fn in_terms_of(&self, columns: &[Arc<dyn PhysicalExpr>]) -> Option<Self> {
        let all = |exprs: &[Arc<dyn PhysicalExpr>]| {
            exprs.iter().map(|expr| in_terms_of(expr, columns)).collect::<Option<Vec<_>>>()
        };
        let measures = self.measures.iter();
        let measures = measures.map(|(kind, expr)| Some((*kind, in_terms_of(expr, columns)?)));
        let made = Self {
            keys: all(&self.keys)?,
            measures: measures.collect::<Option<Vec<_>>>()?,
            conditions: all(&self.conditions)?,
        };
        made.parts().map(|_| made)
    }

    /// How many parts its expressions have; none if they are too many.
    fn parts(&self) -> Option<usize> {
        let mut left = PARTS_MAX;
        let measures = self.measures.iter().map(|(_, argument)| argument);
        let mut exprs = self.keys.iter().chain(&self.conditions).chain(measures);
        exprs.all(|expr| fits(expr, &mut left)).then(|| PARTS_MAX - left)
    }

    /// What a file answers that is read with `schema`: none if only its rows can tell.
    fn answer(&self, file: &ScannedFile, schema: &Schema) -> Option<FileAnswer> {
        let is_met = |condition| is_true_for_all(condition, file, schema);
        if file.rows() == 0 || !self.conditions.iter().all(is_met) {
            return None;
        }
        let key = self.keys.iter().map(|key| constant_of(key, file, schema));
        let key = key.collect::<Option<Vec<_>>>()?;
        let values = self.measures.iter().map(|(kind, argument)| match kind {
            MeasureKind::Count => count(argument, file, schema).map(ValueRange::at),
            MeasureKind::Least | MeasureKind::Greatest => range_of(argument, file, schema),
        });
        let values = values.collect::<Option<Vec<_>>>()?;
        Some(FileAnswer { file: file.clone(), key, values })
    }

    /// Which files need not be read. A file with the value that a group is certain to reach is never behind it, so one
    /// that has the answer is read, or its state has it.
    fn settled(&self, found: &[Option<FileAnswer>]) -> Vec<bool> {
        let mut reached = ReachedValues { by_key: HashMap::new() };
        for answer in found.iter().flatten() {
            let group = reached.by_key.entry(answer.key.as_slice());
            let group = group.or_insert_with(|| vec![None; self.measures.len()]);
            for ((best, (kind, _)), range) in
                group.iter_mut().zip(&self.measures).zip(&answer.values)
            {
                let value = kind.reached(range);
                if best.is_none_or(|best| kind.prefers(value, best)) {
                    *best = Some(value);
                }
            }
        }
        let is_settled = |answer: &FileAnswer| {
            let Some(group) = reached.by_key.get(answer.key.as_slice()) else { return false };
            let mut measures = self.measures.iter().zip(&answer.values).zip(group);
            measures.all(|(((kind, _), range), best)| {
                range.only().is_some() || best.is_some_and(|best| kind.is_behind(range, best))
            })
        };
        found.iter().map(|answer| answer.as_ref().is_some_and(is_settled)).collect()
    }

    /// The states of files as rows of `schema`, which is the one of the step; none where it has other columns. A file
    /// without the least or greatest value of its group has null there, as a group of no values has.
    fn states(
        &self,
        settled: &[&FileAnswer],
        schema: &SchemaRef,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        let fields = schema.fields();
        let has_all = fields.len() == self.keys.len() + self.measures.len();
        if settled.is_empty() || fields.is_empty() || !has_all {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let none = ScalarValue::try_from(field.data_type())?;
            let value = |answer: &&FileAnswer| match at.checked_sub(self.keys.len()) {
                None => answer.key[at].clone(),
                Some(at) => answer.values[at].only().unwrap_or(&none).clone(),
            };
            // Values of a type that the step does not hand on would fail the query, and reading the files does not.
            if settled.iter().any(|answer| value(answer).data_type() != *field.data_type()) {
                return Ok(None);
            }
            let values = ScalarValue::iter_to_array(settled.iter().map(value))?;
            if !field.is_nullable() && 0 < values.null_count() {
                return Ok(None);
            }
            columns.push(values);
        }
        let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
        let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
        let batches: Vec<RecordBatch> =
            starts.map(|at| rows.slice(at, BATCH_ROWS.min(rows.num_rows() - at))).collect();
        let states: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[batches], Arc::clone(schema), None)?;
        Ok(Some(states))
    }

    /// The plan below an aggregation without the settled files, which are told in the order of the plan; none if
    /// nothing is left.
    fn rest(
        &self,
        node: &Arc<dyn ExecutionPlan>,
        is_settled: &mut IntoIter<bool>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        if let Some(scan) = scan_of(node) {
            return Ok(without(scan, is_settled));
        }
        let Some(below) = self.below(node) else { return Ok(Some(Arc::clone(node))) };
        let mut left = Vec::new();
        for child in node.children() {
            left.extend(below.rest(child, is_settled)?);
        }
        match left.is_empty() {
            true => Ok(None),
            false if node.is::<UnionExec>() => UnionExec::try_new(left).map(Some),
            false => Arc::clone(node).with_new_children(left).map(Some),
        }
    }
}

fn measure(function: &AggregateFunctionExpr) -> Option<(MeasureKind, Arc<dyn PhysicalExpr>)> {
    let is_plain =
        !function.is_distinct() && !function.ignore_nulls() && function.order_bys().is_empty();
    let kind = match function.fun().name() {
        "count" => MeasureKind::Count,
        "min" => MeasureKind::Least,
        "max" => MeasureKind::Greatest,
        _ => return None,
    };
    let [argument] = <[Arc<dyn PhysicalExpr>; 1]>::try_from(function.expressions()).ok()?;
    is_plain.then_some((kind, argument))
}

/// How many rows of a file have a value of `argument`.
fn count(
    argument: &Arc<dyn PhysicalExpr>,
    file: &ScannedFile,
    schema: &Schema,
) -> Option<ScalarValue> {
    let nulls = if let Some(literal) = argument.downcast_ref::<Literal>() {
        if literal.value().is_null() { file.rows() } else { 0 }
    } else {
        let column = argument.downcast_ref::<Column>()?;
        file.nulls(schema.fields().get(column.index())?.name())?
    };
    let values = i64::try_from(file.rows().checked_sub(nulls)?).ok()?;
    Some(ScalarValue::Int64(Some(values)))
}

/// Whether `expr` has no more than `left` parts, which are taken from it.
fn fits(expr: &Arc<dyn PhysicalExpr>, left: &mut usize) -> bool {
    let Some(others) = left.checked_sub(1) else { return false };
    *left = others;
    expr.children().into_iter().all(|part| fits(part, left))
}

/// `expr` with these expressions in the place of its columns.
fn in_terms_of(
    expr: &Arc<dyn PhysicalExpr>,
    columns: &[Arc<dyn PhysicalExpr>],
) -> Option<Arc<dyn PhysicalExpr>> {
    let put = |part: Arc<dyn PhysicalExpr>| {
        let Some(column) = part.downcast_ref::<Column>() else {
            return Ok(Transformed::no(part));
        };
        match columns.get(column.index()) {
            // What is put in has columns of the input, which are none of these.
            Some(made) => Ok(Transformed::new(Arc::clone(made), true, TreeNodeRecursion::Jump)),
            None => exec_err!("a column is not in the input of its step"),
        }
    };
    Arc::clone(expr).transform_down(put).ok().map(|transformed| transformed.data)
}

fn scan_of(node: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    node.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

/// Whether a scan gives all rows of its files, with columns of theirs under their names.
fn is_whole(scan: &FileScanConfig) -> bool {
    let made = scan.file_source.projection();
    let mut made = made.into_iter().flat_map(|columns| columns.iter());
    let is_plain = made.all(|made| {
        made.expr.downcast_ref::<Column>().is_some_and(|column| column.name() == made.alias)
    });
    is_plain && scan.limit.is_none() && scan.file_source.filter().is_none()
}

/// The scan without the settled files; none if no file is left.
fn without(
    scan: &FileScanConfig,
    is_settled: &mut IntoIter<bool>,
) -> Option<Arc<dyn ExecutionPlan>> {
    let mut groups = Vec::new();
    for group in &scan.file_groups {
        let files = group.iter().filter(|_| !is_settled.next().unwrap_or(false));
        let files: Vec<PartitionedFile> = files.cloned().collect();
        if !files.is_empty() {
            groups.push(FileGroup::new(files));
        }
    }
    if groups.is_empty() {
        return None;
    }
    // Those of the whole scan are of more rows.
    let statistics = Statistics::new_unknown(scan.file_schema());
    let scan = FileScanConfigBuilder::from(scan.clone())
        .with_file_groups(groups)
        .with_statistics(statistics)
        .build();
    Some(DataSourceExec::from_data_source(scan))
}
