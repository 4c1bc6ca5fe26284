//! Functions that answer with more than they are given, made to keep within the memory of queries.
//!
//! DataFusion reckons the memory of sorts, joins and groups, but not of expressions: one call of
//! `replace` could take all there is. A growing function is given only as many rows at once as
//! surely fit, its memory is reserved before it runs, and what it made stays reserved for as long
//! as it is held.

use crate::{forward::forward, query_process::QueryProcess};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{cast, concat, max},
    datatypes::{DataType, FieldRef, Int64Type},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{ScalarValue, exec_err},
    error::DataFusionError,
    execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
    logical_expr::{
        ColumnarValue, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility, type_coercion::binary::BinaryTypeCoercer,
    },
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column},
    },
};
use std::{
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::time::Instant;

/// Largest constant that a function may make in a process that does other work. A statement has many, and each
/// is copied for each row.
pub const CONSTANT_BYTES_MAX: usize = 4 << 10;
/// The same in a process of its own. The server has an answer's rows in hand, too, and this takes no table.
const OWN_CONSTANT_BYTES_MAX: usize = 16 << 20;
/// Largest value that a function may make, by what it can make at most of these arguments.
pub const VALUE_BYTES_MAX: usize = 128 << 20;
/// Rows are given to a function in pieces that make at most this much.
const PIECE_BYTES_MAX: usize = 16 << 20;
/// What surely stays below this is not reckoned: it is nearly every call.
const UNRECKONED_BYTES_MAX: usize = 1 << 20;

/// Functions whose answer can be larger than their arguments, or that put several into one.
pub const GROWING: &[&str] = &[
    "array_append",
    "array_concat",
    "array_prepend",
    "array_repeat",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_resize",
    "array_to_string",
    "array_union",
    "concat",
    "concat_ws",
    "encode",
    "flatten",
    "initcap",
    "lower",
    "lpad",
    "make_array",
    "overlay",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "rpad",
    "strftime",
    "string_to_array",
    "to_char",
    "translate",
    "upper",
];

/// Functions whose time grows with the product of two arguments' lengths.
pub const QUADRATIC: &[&str] = &[
    "array_has_all",
    "array_has_any",
    "btrim",
    "levenshtein",
    "ltrim",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "rtrim",
];
/// Rows are given to such a function in pieces of at most this many steps: a tenth of a second.
const PIECE_STEPS_MAX: usize = 64 << 20;
/// Most steps for one row in a process that does other work.
const VALUE_STEPS_MAX: usize = 1 << 30;
/// How functions with a regular expression begin.
const REGULAR: &str = "regexp_";

/// Whether a function has to be bounded.
#[must_use]
pub fn is_unbounded(name: &str) -> bool {
    GROWING.contains(&name) || QUADRATIC.contains(&name)
}

/// The memory that growing functions hold.
#[derive(Debug)]
pub struct FunctionMemory {
    pool: Arc<dyn MemoryPool>,
    process: QueryProcess,
    held: Mutex<Vec<HeldResult>>,
}

/// An answer that may still be in use.
#[derive(Debug)]
struct HeldResult {
    array: Weak<dyn Array>,
    _memory: MemoryReservation,
}

impl FunctionMemory {
    /// Functions that share `pool` with the rest of their queries.
    #[must_use]
    pub fn new(pool: Arc<dyn MemoryPool>, process: QueryProcess) -> Arc<Self> {
        Arc::new(Self { pool, process, held: Mutex::default() })
    }

    /// Where the functions run.
    #[must_use]
    pub fn process(&self) -> QueryProcess {
        self.process
    }

    /// `function`, kept within memory; its query ends at `deadline`.
    #[must_use]
    pub fn bound(self: &Arc<Self>, inner: Arc<ScalarUDF>, deadline: Instant) -> ScalarUDF {
        ScalarUDF::from(BoundedFunction { inner, growth: Arc::clone(self), deadline })
    }

    /// The operator `||` between texts.
    #[must_use]
    pub fn concat_operator(self: &Arc<Self>, deadline: Instant) -> ScalarUDF {
        self.bound(Arc::new(ScalarUDF::from(ConcatOperator::default())), deadline)
    }

    /// Gives back the memory of answers that nobody holds any more.
    pub fn sweep(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| 0 < held.array.strong_count());
    }

    fn reserve(&self, function: &str) -> MemoryReservation {
        self.sweep();
        MemoryConsumer::new(format!("function {function}")).register(&self.pool)
    }

    fn hold(&self, array: &ArrayRef, memory: MemoryReservation) {
        let bytes = array.get_array_memory_size();
        if bytes <= UNRECKONED_BYTES_MAX {
            return;
        }
        memory.shrink(memory.size().saturating_sub(bytes));
        let held = HeldResult { array: Arc::downgrade(array), _memory: memory };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }
}

/// A function of DataFusion with a bound on what it makes.
#[derive(Debug)]
struct BoundedFunction {
    inner: Arc<ScalarUDF>,
    growth: Arc<FunctionMemory>,
    deadline: Instant,
}

impl PartialEq for BoundedFunction {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for BoundedFunction {}

impl Hash for BoundedFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

// Simplification is not passed on: it would put functions without a bound in this one's place.
impl ScalarUDFImpl for BoundedFunction {
    forward! {
        fn name(&self) -> &str;
        fn signature(&self) -> &Signature;
        fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError>;
        fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>)
            -> Result<FieldRef, DataFusionError>;
        fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError>;
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let is_constant = call.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { call.number_rows };
        let most = most(self.name(), &call.args, rows);
        if most <= UNRECKONED_BYTES_MAX && steps(self.name(), &call.args, rows) <= PIECE_STEPS_MAX {
            let made = self.inner.invoke_with_args(call)?;
            if let ColumnarValue::Scalar(value) = &made
                && self.growth.process == QueryProcess::Shared
                && CONSTANT_BYTES_MAX < scalar_bytes(value)
            {
                return self.too_large(CONSTANT_BYTES_MAX);
            }
            return Ok(made);
        }
        let memory = self.growth.reserve(self.name());
        if is_constant {
            return match self.growth.process {
                QueryProcess::Shared => self.too_large(CONSTANT_BYTES_MAX),
                QueryProcess::Own if OWN_CONSTANT_BYTES_MAX < most => {
                    self.too_large(OWN_CONSTANT_BYTES_MAX)
                }
                QueryProcess::Own => {
                    memory.try_grow(most)?;
                    self.inner.invoke_with_args(call)
                }
            };
        }
        let mut pieces = Vec::new();
        self.invoke_in_pieces(&call, &memory, &mut pieces)?;
        let array = if pieces.len() == 1 {
            pieces.remove(0)
        } else {
            // Both the pieces and the whole are there for a moment.
            memory.try_grow(memory.size())?;
            let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
            concat(&pieces)?
        };
        self.growth.hold(&array, memory);
        Ok(ColumnarValue::Array(array))
    }
}

impl BoundedFunction {
    fn invoke_in_pieces(
        &self,
        call: &ScalarFunctionArgs,
        memory: &MemoryReservation,
        pieces: &mut Vec<ArrayRef>,
    ) -> Result<(), DataFusionError> {
        let rows = call.number_rows;
        let most = most(self.name(), &call.args, rows);
        let steps = steps(self.name(), &call.args, rows);
        if (PIECE_BYTES_MAX < most || PIECE_STEPS_MAX < steps) && 1 < rows {
            let half = rows / 2;
            self.invoke_in_pieces(&part(call, 0, half), memory, pieces)?;
            return self.invoke_in_pieces(&part(call, half, rows - half), memory, pieces);
        }
        // The answer ended then, but the thread is held until this batch is through.
        if self.deadline < Instant::now() {
            return exec_err!("the query has ended");
        }
        if VALUE_BYTES_MAX < most {
            return self.too_large(VALUE_BYTES_MAX);
        }
        // A regular expression takes as many steps at worst, and mostly one for each byte of the text.
        if self.growth.process == QueryProcess::Shared
            && VALUE_STEPS_MAX < steps
            && !self.name().starts_with(REGULAR)
        {
            return exec_err!(
                "`{}` would take more than {VALUE_STEPS_MAX} steps for one row; shorten its arguments",
                self.name()
            );
        }
        memory.try_grow(most)?;
        let array = self.inner.invoke_with_args(call.clone())?.into_array(rows)?;
        memory.shrink(most.saturating_sub(array.get_array_memory_size()));
        pieces.push(array);
        Ok(())
    }

    fn too_large<T>(&self, bytes_max: usize) -> Result<T, DataFusionError> {
        exec_err!(
            "`{}` could produce a value of more than {bytes_max} bytes here; shorten its arguments",
            self.name()
        )
    }
}

fn part(call: &ScalarFunctionArgs, first: usize, rows: usize) -> ScalarFunctionArgs {
    let part = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, rows)),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
    };
    let args = call.args.iter().map(part).collect();
    ScalarFunctionArgs { args, number_rows: rows, ..call.clone() }
}

/// The most bytes that function `name` makes of these arguments.
fn most(name: &str, arguments: &[ColumnarValue], rows: usize) -> usize {
    if ["regexp_count", "regexp_instr", "regexp_like"].contains(&name) {
        return rows.saturating_mul(size_of::<i64>());
    }
    let bytes = |at: usize| arguments.get(at).map_or(0, |value| value_bytes(value, rows));
    let longest = |at: usize| arguments.get(at).map_or(0, longest);
    let largest = |at: usize| arguments.get(at).map_or(0, largest);
    let all = (0..arguments.len()).fold(0, |sum: usize, at| sum.saturating_add(bytes(at)));
    let text = bytes(0).saturating_add(rows);
    let more = match name {
        // An empty text is found before each character and at the end.
        "replace" => text.saturating_mul(longest(2)),
        // Matches do not overlap, but the replacement may name a group as often as it is long.
        "regexp_replace" => text.saturating_mul(longest(2) + 1).saturating_mul(2),
        "array_to_string" => {
            let elements = arguments.first().map_or(0, |value| elements(value, rows));
            elements.saturating_mul(longest(1) + longest(2) + NUMBER_BYTES_MAX)
        }
        "array_repeat" => {
            let one = bytes(0).saturating_add(rows.saturating_mul(NUMBER_BYTES_MAX));
            one.saturating_mul(largest(1))
        }
        "array_resize" => {
            let added = rows.saturating_mul(largest(1));
            added.saturating_mul(longest(2) + NUMBER_BYTES_MAX)
        }
        "concat_ws" => bytes(0).saturating_mul(arguments.len()),
        "lpad" | "rpad" => rows.saturating_mul(largest(1)).saturating_mul(CHARACTER_BYTES_MAX),
        "repeat" => bytes(0).saturating_mul(largest(1)),
        "to_char" => rows.saturating_mul(longest(1)).saturating_mul(NUMBER_BYTES_MAX),
        // The pattern comes first or second.
        "strftime" => {
            let pattern = longest(0).max(longest(1));
            rows.saturating_mul(pattern).saturating_mul(NUMBER_BYTES_MAX)
        }
        "string_to_array" => all.saturating_mul(NUMBER_BYTES_MAX),
        _ => 0,
    };
    // Case and encoding at most quadruple a text.
    all.saturating_mul(4).saturating_add(more)
}

/// The most steps that function `name` takes over these arguments, if they are more than their bytes.
fn steps(name: &str, arguments: &[ColumnarValue], rows: usize) -> usize {
    let [left, right, ..] = arguments else { return 0 };
    match name {
        "btrim" | "levenshtein" | "ltrim" | "rtrim" => {
            longest(left).saturating_mul(longest(right)).saturating_mul(rows)
        }
        _ if name.starts_with(REGULAR) => value_bytes(left, rows).saturating_mul(longest(right)),
        "array_has_all" | "array_has_any" => {
            elements(left, rows).saturating_mul(elements(right, rows))
        }
        _ => 0,
    }
}

/// Most bytes of a number, a time, or an element's place in a list.
const NUMBER_BYTES_MAX: usize = 32;
/// Most bytes of a character.
const CHARACTER_BYTES_MAX: usize = 4;

fn value_bytes(value: &ColumnarValue, rows: usize) -> usize {
    match value {
        ColumnarValue::Scalar(value) => scalar_bytes(value).saturating_mul(rows),
        ColumnarValue::Array(array) => match lengths(array) {
            Some(lengths) => lengths.into_iter().sum(),
            None => array.to_data().get_slice_memory_size().unwrap_or(usize::MAX),
        },
    }
}

fn scalar_bytes(value: &ScalarValue) -> usize {
    match value.try_as_str() {
        Some(text) => text.map_or(0, str::len),
        None if value.data_type().is_primitive() || value.is_null() => 0,
        None => value.size(),
    }
}

/// The length of the longest text.
fn longest(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Scalar(value) => scalar_bytes(value),
        ColumnarValue::Array(array) => {
            lengths(array).map_or(0, |lengths| lengths.into_iter().max().unwrap_or(0))
        }
    }
}

fn lengths(array: &ArrayRef) -> Option<Vec<usize>> {
    let length = |text: Option<&str>| text.map_or(0, str::len);
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().iter().map(length).collect()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().iter().map(length).collect()),
        DataType::Utf8View => Some(array.as_string_view().iter().map(length).collect()),
        _ => None,
    }
}

/// The largest number; all there is for what is no number.
fn largest(value: &ColumnarValue) -> usize {
    let largest = match value {
        ColumnarValue::Scalar(value) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(number)) => number.or(Some(0)),
            _ => None,
        },
        ColumnarValue::Array(array) => match cast(array, &DataType::Int64) {
            Ok(numbers) => max(numbers.as_primitive::<Int64Type>()).or(Some(0)),
            Err(_) => None,
        },
    };
    largest.map_or(usize::MAX, |number| usize::try_from(number).unwrap_or(0))
}

/// How many elements lists have, those of lists in them too.
fn elements(value: &ColumnarValue, rows: usize) -> usize {
    fn of(array: &dyn Array) -> usize {
        let inner = match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (first, last) = (list.value_offsets()[0], list.value_offsets()[list.len()]);
                list.values().slice(first as usize, (last - first) as usize)
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let (first, last) = (list.value_offsets()[0], list.value_offsets()[list.len()]);
                list.values().slice(first as usize, (last - first) as usize)
            }
            DataType::FixedSizeList(..) => Arc::clone(array.as_fixed_size_list().values()),
            _ => return 0,
        };
        inner.len().saturating_add(of(&inner))
    }
    match value {
        ColumnarValue::Array(array) => of(array),
        ColumnarValue::Scalar(value) => {
            value.to_array().map_or(usize::MAX, |array| of(&array).saturating_mul(rows))
        }
    }
}

/// `||` as a function, so that it can be bounded; DataFusion's own operator does the work.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ConcatOperator {
    signature: Signature,
}

impl Default for ConcatOperator {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ConcatOperator {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let [left, right] = types else { return exec_err!("`||` has two sides") };
        let coercer = BinaryTypeCoercer::new(left, &Operator::StringConcat, right);
        let (left, right) = coercer.get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        let [left, right] = types else { return exec_err!("`||` has two sides") };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let is_constant = call.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { call.number_rows };
        let sides = call.args.into_iter().map(|value| value.into_array(rows));
        let sides = sides.collect::<Result<Vec<ArrayRef>, _>>()?;
        let fields = sides
            .iter()
            .zip(["left", "right"])
            .map(|(side, name)| arrow::datatypes::Field::new(name, side.data_type().clone(), true));
        let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, sides, &options)?;
        let side = |name: &str, at| Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>;
        let operator = BinaryExpr::new(side("left", 0), Operator::StringConcat, side("right", 1));
        let array = operator.evaluate(&batch)?.into_array(rows)?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

#[cfg(test)]
mod tests;
