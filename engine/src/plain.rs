//! Functions without what DataFusion 54 reckons of their answers, and with NULL where an argument is NULL.
//!
//! It asks them how they keep the order of their argument, and where it does not know the argument's bounds they
//! fail: then it does not find its own sort for windows, ORDER BY and aggregates by `abs(a - b)`. And it takes
//! `power(x, 0)` for 1 and `log(x, 1)` for 0 where `x` is NULL (apache/datafusion#24246).

use crate::forward::forward;
use arrow::{
    array::{Array, BooleanArray},
    buffer::NullBuffer,
    compute::nullif,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    },
};
use std::sync::Arc;

/// Those that fail, and those that simplify themselves.
const NAMES: &[&str] = &[
    "abs", "acos", "acosh", "asin", "atanh", "cosh", "ln", "log", "log10", "log2", "power", "sqrt",
];

/// Those that answer 0, true or false where they are asked of NULL.
const STRICT: &[&str] = &["array_has_all", "array_has_any", "regexp_count", "regexp_instr"];

/// The functions of `theirs` that only make values.
pub fn plain(theirs: impl Iterator<Item = Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    let found = theirs.filter(|function| NAMES.contains(&function.name()));
    found.map(|inner| ScalarUDF::from(PlainFunction { inner, strict: false })).collect()
}

/// The function with NULL where an argument is NULL, if it has something else there.
#[must_use]
pub fn strict(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    if !STRICT.contains(&inner.name()) {
        return inner;
    }
    Arc::new(ScalarUDF::from(PlainFunction { inner, strict: true }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PlainFunction {
    inner: Arc<ScalarUDF>,
    /// Whether NULL is made of NULL.
    strict: bool,
}

// Order and simplification are not passed on.
impl ScalarUDFImpl for PlainFunction {
    forward! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError>;
        fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>)
            -> Result<FieldRef, DataFusionError>;
        fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError>;
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        if !self.strict {
            return self.inner.invoke_with_args(args);
        }
        let mut nulls = None;
        for arg in &args.args {
            match arg {
                ColumnarValue::Scalar(value) if value.is_null() => {
                    let none = ScalarValue::try_from(args.return_type())?;
                    return Ok(ColumnarValue::Scalar(none));
                }
                ColumnarValue::Scalar(_) => (),
                ColumnarValue::Array(array) => {
                    nulls = NullBuffer::union(nulls.as_ref(), array.logical_nulls().as_ref());
                }
            }
        }
        let made = self.inner.invoke_with_args(args)?;
        let (ColumnarValue::Array(array), Some(nulls)) = (&made, nulls) else { return Ok(made) };
        let is_null = BooleanArray::new(!nulls.inner(), None);
        Ok(ColumnarValue::Array(nullif(array, &is_null)?))
    }
}
