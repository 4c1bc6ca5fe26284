//! Functions of numbers without what DataFusion 54 reckons of their answers.
//!
//! It asks them how they keep the order of their argument, and where it does not know the argument's bounds they
//! fail: then it does not find its own sort for windows, ORDER BY and aggregates by `abs(a - b)`. And it takes
//! `power(x, 0)` for 1 and `log(x, 1)` for 0 where `x` is NULL (apache/datafusion#24246).

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
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

/// The functions of `theirs` that only make values.
pub fn plain(theirs: impl Iterator<Item = Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    let found = theirs.filter(|function| NAMES.contains(&function.name()));
    found.map(|inner| ScalarUDF::from(PlainFunction { inner })).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PlainFunction {
    inner: Arc<ScalarUDF>,
}

// Order and simplification are not passed on.
impl ScalarUDFImpl for PlainFunction {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(
        &self,
        arguments: ReturnFieldArgs<'_>,
    ) -> Result<FieldRef, DataFusionError> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        self.inner.invoke_with_args(args)
    }
}
