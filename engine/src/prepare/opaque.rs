//! Values that the optimizer does not look into, where it would make something else of them.

use arrow::datatypes::DataType;
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use std::sync::Arc;

/// The same value, of which nobody knows what it is made of.
pub(super) fn opaque(expr: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let func = Arc::new(ScalarUDF::from(OpaqueValue { signature }));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OpaqueValue {
    signature: Signature,
}

impl ScalarUDFImpl for OpaqueValue {
    fn name(&self) -> &'static str {
        "value_of"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String, DataFusionError> {
        Ok(args.first().map_or_else(String::new, ToString::to_string))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        Ok(args.args[0].clone())
    }
}
