//! `bucket(count, text)`: the bucket of a text as Iceberg partitions by it, from 0.
//!
//! It is Spark's `system.bucket`. A condition on it reads the files of these buckets alone, where a table is
//! partitioned so.

use crate::functions::returned;
use arrow::{
    array::{Array, ArrayRef, Int64Builder},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::{ScalarValue, exec_err},
    error::DataFusionError,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use icecore_lake::table::partition::buckets;
use std::sync::Arc;

/// Its name.
pub const FUNCTION: &str = "bucket";

/// The function.
#[must_use]
pub fn function() -> ScalarUDF {
    let kinds = vec![DataType::Int64, DataType::Utf8View];
    create_udf(FUNCTION, kinds, DataType::Int64, Volatility::Immutable, Arc::new(of_arguments))
}

fn of_arguments(arguments: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let count = match arguments.first() {
        Some(ColumnarValue::Scalar(ScalarValue::Int64(count))) => *count,
        _ => return exec_err!("{FUNCTION}: the number of buckets is one number for all rows"),
    };
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let texts: ArrayRef = cast(&arrays[1], &DataType::Utf8)?;
    let Some(count) = count else {
        return returned(arguments, nulls(texts.len()));
    };
    let Ok(count) = u32::try_from(count) else {
        return exec_err!("{FUNCTION}: {count} is no number of buckets: take 1 to {}", i32::MAX);
    };
    let made = buckets(&texts, count);
    let made = made.map_err(|cause| DataFusionError::Execution(cause.message().to_owned()))?;
    returned(arguments, cast(&made, &DataType::Int64)?)
}

fn nulls(rows: usize) -> ArrayRef {
    let mut values = Int64Builder::with_capacity(rows);
    values.append_nulls(rows);
    Arc::new(values.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{AsArray, StringViewArray},
        datatypes::Int64Type,
    };

    fn of(count: i64, texts: &[Option<&str>]) -> Vec<Option<i64>> {
        let texts: StringViewArray = texts.iter().copied().collect();
        let count = ColumnarValue::Scalar(ScalarValue::Int64(Some(count)));
        let made = of_arguments(&[count, ColumnarValue::Array(Arc::new(texts))]).unwrap();
        let made = made.into_array(3).unwrap();
        made.as_primitive::<Int64Type>().iter().collect()
    }

    #[test]
    fn a_text_is_in_the_bucket_that_iceberg_puts_it_in() {
        // The specification's hash of `iceberg` is 1210000089.
        let found = of(16, &[Some("iceberg"), None, Some("")]);
        assert_eq!(found, [Some(1_210_000_089 % 16), None, Some(0)]);
        assert_eq!(of(1, &[Some("a"), Some("b"), None]), [Some(0), Some(0), None]);
    }

    #[test]
    fn a_number_of_buckets_is_a_positive_number() {
        let texts = || ColumnarValue::Scalar(ScalarValue::Utf8View(Some("a".to_owned())));
        for count in [0, -1, i64::MAX] {
            let count = ColumnarValue::Scalar(ScalarValue::Int64(Some(count)));
            let refused = of_arguments(&[count, texts()]).unwrap_err().to_string();
            assert!(refused.contains("number of buckets"), "{refused}");
        }
    }
}
