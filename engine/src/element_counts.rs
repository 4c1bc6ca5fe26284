//! `len`, as in DuckDB: how many characters a text has, how many elements a list, and how many entries a map.

use crate::functions::returned;
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    buffer::NullBuffer,
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::plan_err,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use std::sync::Arc;

/// Its name.
const FUNCTION: &str = "len";

/// The function.
#[must_use]
pub fn function() -> ScalarUDF {
    ScalarUDF::from(ElementCount { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ElementCount {
    signature: Signature,
}

impl ScalarUDFImpl for ElementCount {
    fn name(&self) -> &'static str {
        FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        match types.iter().find(|kind| !is_counted(kind)) {
            None => Ok(DataType::Int64),
            Some(other) => {
                plan_err!("{FUNCTION} takes a text, a list or a map, not {other}: CAST it to text")
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        returned(&args.args, counted(&arrays[0])?)
    }
}

fn is_counted(kind: &DataType) -> bool {
    match kind {
        DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Map(..) => true,
        DataType::Dictionary(_, values) => {
            matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
        _ => false,
    }
}

fn counted(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let nulls = array.nulls();
    Ok(match array.data_type() {
        DataType::List(_) => counts(array.as_list::<i32>().offsets().lengths(), nulls),
        DataType::LargeList(_) => counts(array.as_list::<i64>().offsets().lengths(), nulls),
        DataType::Map(..) => counts(array.as_map().offsets().lengths(), nulls),
        DataType::FixedSizeList(_, length) => {
            let length = usize::try_from(*length).unwrap_or(0);
            counts(std::iter::repeat_n(length, array.len()), nulls)
        }
        _ => {
            let texts = cast(array, &DataType::Utf8View)?;
            let lengths = texts
                .as_string_view()
                .iter()
                .map(|text| text.map_or(0, |text| text.chars().count()));
            counts(lengths, texts.nulls())
        }
    })
}

fn counts(lengths: impl Iterator<Item = usize>, nulls: Option<&NullBuffer>) -> ArrayRef {
    let counts: Vec<i64> =
        lengths.map(|length| i64::try_from(length).unwrap_or(i64::MAX)).collect();
    Arc::new(Int64Array::new(counts.into(), nulls.cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    async fn answer(sql: &str) -> Result<Vec<Option<i64>>, DataFusionError> {
        let context = SessionContext::new();
        context.register_udf(function());
        let batches = context.sql(sql).await?.collect().await?;
        let mut found = Vec::new();
        for batch in &batches {
            found.extend(batch.column(0).as_primitive::<Int64Type>().iter());
        }
        Ok(found)
    }

    #[tokio::test]
    async fn what_a_value_is_made_of_is_counted() {
        for (sql, expected) in [
            ("SELECT len('Åbc')", vec![Some(3)]),
            ("SELECT len(NULL)", vec![None]),
            ("SELECT len([1, 2, NULL])", vec![Some(3)]),
            ("SELECT len(make_array(make_array(1, 2), make_array(3)))", vec![Some(2)]),
            ("SELECT len(MAP {'a': 1, 'b': 2})", vec![Some(2)]),
            (
                "SELECT len(l) FROM (VALUES ([1, 2]), (NULL), ([3])) AS t(l)",
                vec![Some(2), None, Some(1)],
            ),
            (
                "SELECT len(s) FROM (VALUES ('ab'), (NULL), ('')) AS t(s)",
                vec![Some(2), None, Some(0)],
            ),
        ] {
            assert_eq!(answer(sql).await.unwrap(), expected, "{sql}");
        }
        for (sql, told) in
            [("SELECT len(5)", "a text, a list or a map"), ("SELECT len('a', 'b')", "len")]
        {
            let error = answer(sql).await.unwrap_err().to_string();
            assert!(error.contains(told), "{sql}: {error}");
        }
    }
}
