//! `range` and `generate_series` in FROM: rows that are made as they are read.
//!
//! Those of DataFusion 54 fail where a series ends at the last number of 64 bits, take times of nanoseconds alone,
//! and make such times of dates.

use arrow::{
    array::{ArrayRef, Int64Array, TimestampMicrosecondArray, timezone::Tz},
    datatypes::{
        DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit,
        TimestampMicrosecondType,
    },
    record_batch::RecordBatch,
};
use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider, streaming::StreamingTable},
    common::{Column, ScalarValue, plan_err},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::Expr,
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::stream;
use icecore_lake::event::rows::UTC;
use std::{iter, sync::Arc};

/// The column, which a statement gives another name.
const COLUMN: &str = "value";
/// Nanoseconds of the shortest step of times.
const STEP_NANOS_MIN: u64 = 1_000;

/// Both functions by their names.
#[must_use]
pub fn all() -> [(&'static str, Arc<dyn TableFunctionImpl>); 2] {
    [("range", false), ("generate_series", true)].map(|(name, has_end)| {
        let function: Arc<dyn TableFunctionImpl> = Arc::new(SeriesFunction { name, has_end });
        (name, function)
    })
}

#[derive(Debug)]
struct SeriesFunction {
    name: &'static str,
    /// Whether the end is a value of the series.
    has_end: bool,
}

impl TableFunctionImpl for SeriesFunction {
    fn call_with_args(
        &self,
        args: TableFunctionArgs<'_, '_>,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let values = args.exprs().iter().map(|argument| match argument {
            Expr::Literal(value, _) => Ok(value.clone()),
            _ => plan_err!("`{}` in FROM takes constants", self.name),
        });
        let values = values.collect::<Result<Vec<ScalarValue>, DataFusionError>>()?;
        let is_of_times = values.iter().any(|value| is_day(&value.data_type()));
        let rows = if is_of_times { self.times(&values)? } else { self.numbers(&values)? };
        let schema = Arc::clone(&rows.schema);
        let order = rows.bounds.map(|bounds| {
            Expr::Column(Column::from_name(COLUMN)).sort(!bounds.step.is_down(), false)
        });
        let table = StreamingTable::try_new(schema, vec![Arc::new(rows)])?;
        Ok(Arc::new(table.with_sort_order(order.into_iter().collect())))
    }
}

impl SeriesFunction {
    fn numbers(&self, values: &[ScalarValue]) -> Result<SeriesRows, DataFusionError> {
        let number = |value: &ScalarValue| -> Result<Option<i64>, DataFusionError> {
            let kind = value.data_type();
            if !kind.is_null() && !kind.is_integer() {
                return plan_err!("`{}` takes whole numbers, dates or times", self.name);
            }
            match value.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(number) => Ok(number),
                _ => Ok(None),
            }
        };
        let numbers = values.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        let (start, end, step) = match numbers.as_slice() {
            [end] => (Some(0), *end, Some(1)),
            [start, end] => (*start, *end, Some(1)),
            [start, end, step] => (*start, *end, *step),
            _ => return plan_err!("`{}` takes a start, an end and a step", self.name),
        };
        if step == Some(0) {
            return plan_err!("the step of `{}` is 0, so it has no end", self.name);
        }
        Ok(self.rows(DataType::Int64, (start, end), step.map(SeriesStep::Number)))
    }

    fn times(&self, values: &[ScalarValue]) -> Result<SeriesRows, DataFusionError> {
        let [start, end, step] = values else {
            return plan_err!("`{}` of times takes a start, an end and an interval", self.name);
        };
        let has_zone =
            |value: &ScalarValue| matches!(value.data_type(), DataType::Timestamp(_, Some(_)));
        let zone = (has_zone(start) || has_zone(end)).then(|| UTC.into());
        let kind = DataType::Timestamp(TimeUnit::Microsecond, zone);
        let time = |value: &ScalarValue| -> Result<Option<i64>, DataFusionError> {
            let given = value.data_type();
            if !given.is_null() && !is_day(&given) {
                return plan_err!(
                    "start and end of `{}` are both times, or both numbers",
                    self.name
                );
            }
            match value.cast_to(&kind)? {
                ScalarValue::TimestampMicrosecond(time, _) => Ok(time),
                _ => Ok(None),
            }
        };
        let bounds = (time(start)?, time(end)?);
        let step = self.interval(step)?;
        Ok(self.rows(kind, bounds, step))
    }

    fn interval(&self, value: &ScalarValue) -> Result<Option<SeriesStep>, DataFusionError> {
        let kind = value.data_type();
        if !kind.is_null() && !matches!(kind, DataType::Interval(_)) {
            return plan_err!("the step of `{}` is an interval where it is of times", self.name);
        }
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let ScalarValue::IntervalMonthDayNano(Some(step)) = value.cast_to(&interval)? else {
            return Ok(None);
        };
        let parts = [i64::from(step.months), i64::from(step.days), step.nanoseconds];
        let is_up = parts.iter().any(|part| 0 < *part);
        let is_down = parts.iter().any(|part| *part < 0);
        let is_short =
            step.months == 0 && step.days == 0 && step.nanoseconds.unsigned_abs() < STEP_NANOS_MIN;
        if is_up == is_down || is_short {
            return plan_err!(
                "the step of `{}` is a microsecond at least, and all of it goes in one direction",
                self.name
            );
        }
        Ok(Some(SeriesStep::Interval { step, is_down, zone: UTC.parse()? }))
    }

    /// The rows of a series; none where one of its bounds or its step is NULL.
    fn rows(
        &self,
        kind: DataType,
        bounds: (Option<i64>, Option<i64>),
        step: Option<SeriesStep>,
    ) -> SeriesRows {
        let schema = Arc::new(Schema::new(vec![Field::new(COLUMN, kind, false)]));
        let bounds = match (bounds, step) {
            ((Some(start), Some(end)), Some(step)) => {
                Some(SeriesBounds { start, end, step, has_end: self.has_end })
            }
            _ => None,
        };
        SeriesRows { schema, bounds }
    }
}

fn is_day(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

#[derive(Clone, Copy, Debug)]
enum SeriesStep {
    Number(i64),
    Interval { step: IntervalMonthDayNano, is_down: bool, zone: Tz },
}

impl SeriesStep {
    fn is_down(self) -> bool {
        match self {
            Self::Number(step) => step < 0,
            Self::Interval { is_down, .. } => is_down,
        }
    }
}

/// Where a series begins and ends: numbers, or microseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct SeriesBounds {
    start: i64,
    end: i64,
    step: SeriesStep,
    has_end: bool,
}

impl SeriesBounds {
    fn has(&self, value: i64) -> bool {
        match (self.step.is_down(), self.has_end) {
            (false, true) => value <= self.end,
            (false, false) => value < self.end,
            (true, true) => self.end <= value,
            (true, false) => self.end < value,
        }
    }

    /// The value behind this one; none where there is no such number or time.
    fn after(&self, value: i64) -> Option<i64> {
        match self.step {
            SeriesStep::Number(step) => value.checked_add(step),
            SeriesStep::Interval { step, zone, .. } => {
                TimestampMicrosecondType::add_month_day_nano(value, step, zone)
            }
        }
    }

    /// The next values from `next` on, which is behind them then.
    fn values(&self, next: &mut Option<i64>, count_max: usize) -> Vec<i64> {
        let mut values = Vec::new();
        while values.len() < count_max
            && let Some(value) = next.filter(|value| self.has(*value))
        {
            values.push(value);
            *next = self.after(value);
        }
        values
    }
}

#[derive(Debug)]
struct SeriesRows {
    schema: SchemaRef,
    /// None for no rows.
    bounds: Option<SeriesBounds>,
}

impl PartitionStream for SeriesRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows_max = context.session_config().batch_size();
        let (schema, bounds) = (Arc::clone(&self.schema), self.bounds);
        let mut next = bounds.map(|bounds| bounds.start);
        let batches = iter::from_fn(move || {
            let values = bounds?.values(&mut next, rows_max);
            if values.is_empty() {
                return None;
            }
            let column: ArrayRef = match schema.field(0).data_type() {
                DataType::Timestamp(_, zone) => Arc::new(
                    TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone()),
                ),
                _ => Arc::new(Int64Array::from(values)),
            };
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]);
            Some(batch.map_err(DataFusionError::from))
        });
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{array::AsArray, compute::cast, datatypes::Int64Type};
    use datafusion::prelude::SessionContext;

    /// The values of a series as numbers, or why there are none.
    async fn values(series: &str) -> Result<Vec<i64>, String> {
        let context = SessionContext::new();
        for (name, function) in all() {
            context.register_udtf(name, function);
        }
        let sql = format!("SELECT * FROM {series}");
        let rows = context.sql(&sql).await.map_err(|cause| cause.to_string())?;
        let mut values = Vec::new();
        for batch in rows.collect().await.map_err(|cause| cause.to_string())? {
            let numbers = cast(batch.column(0), &DataType::Int64).unwrap();
            values.extend_from_slice(numbers.as_primitive::<Int64Type>().values());
        }
        Ok(values)
    }

    #[tokio::test]
    async fn a_series_ends_where_its_numbers_or_times_do() {
        let (most, least) = (i64::MAX, i64::MIN);
        let day = 86_400_000_000;
        for (series, expected) in [
            ("range(3)".to_owned(), vec![0, 1, 2]),
            ("range(3, 1)".to_owned(), vec![]),
            ("range(NULL)".to_owned(), vec![]),
            ("generate_series(3, 1, -1)".to_owned(), vec![3, 2, 1]),
            (format!("generate_series({}, {most})", most - 1), vec![most - 1, most]),
            (format!("range({}, {most})", most - 1), vec![most - 1]),
            (format!("generate_series({}, {least}, -2)", least + 3), vec![least + 3, least + 1]),
            (
                "range(TIMESTAMP '1970-01-01', TIMESTAMP '1970-01-03', INTERVAL '1 day')"
                    .to_owned(),
                vec![0, day],
            ),
            (
                "generate_series(DATE '1970-01-02', DATE '1970-01-01', INTERVAL '-12 hours')"
                    .to_owned(),
                vec![day, day / 2, 0],
            ),
            ("range(CAST('1970-01-01' AS TIMESTAMPTZ), NULL, INTERVAL '1 day')".to_owned(), vec![]),
        ] {
            assert_eq!(values(&series).await, Ok(expected), "{series}");
        }
    }

    #[tokio::test]
    async fn a_series_without_an_end_is_refused() {
        let times = "TIMESTAMP '1970-01-01', TIMESTAMP '1970-01-03'";
        for (series, told) in [
            ("range(1, 5, 0)".to_owned(), "has no end"),
            ("range(1.5)".to_owned(), "whole numbers"),
            ("range(1, 2, 3, 4)".to_owned(), "a start, an end and a step"),
            (format!("range({times})"), "an interval"),
            (format!("range({times}, INTERVAL '1 day -1 hour')"), "one direction"),
            (format!("range({times}, INTERVAL '1 nanosecond')"), "a microsecond at least"),
        ] {
            let error = values(&series).await.unwrap_err();
            assert!(error.contains(told), "{series}: {error}");
        }
    }
}
