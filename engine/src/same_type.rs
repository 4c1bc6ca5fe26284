//! Functions of one value whose answer has its type, put around expressions by rules of this crate.

use crate::{floats, functions::returned};
use arrow::{compute::kernels::numeric::neg, datatypes::DataType};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use std::{any::Any, sync::Arc};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SameTypeKind {
    /// The float with one zero and one NaN.
    OneZero,
    /// The value itself, which the optimizer does not look into.
    Opaque,
    /// The negative; DataFusion 54 has none of a NULL that is a decimal.
    Negative,
}

impl SameTypeKind {
    /// The function.
    #[must_use]
    pub fn function(self) -> ScalarUDF {
        let signature = Signature::any(1, Volatility::Immutable);
        ScalarUDF::from(SameTypeFunction { kind: self, signature })
    }

    /// The expression in this function.
    #[must_use]
    pub fn call(self, expr: Expr) -> Expr {
        let func = Arc::new(self.function());
        Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] })
    }

    /// What an expression has in this function; none for any other expression.
    #[must_use]
    pub fn inner_of(self, expr: &Expr) -> Option<&Expr> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
        let found = (func.inner().as_ref() as &dyn Any).downcast_ref::<SameTypeFunction>()?;
        args.first().filter(|_| found.kind == self)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SameTypeFunction {
    kind: SameTypeKind,
    signature: Signature,
}

impl ScalarUDFImpl for SameTypeFunction {
    fn name(&self) -> &'static str {
        match self.kind {
            SameTypeKind::OneZero => "one_zero",
            SameTypeKind::Opaque => "value_of",
            SameTypeKind::Negative => "negative",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String, DataFusionError> {
        let inner = args.first().map_or_else(String::new, ToString::to_string);
        Ok(match self.kind {
            SameTypeKind::OneZero | SameTypeKind::Opaque => inner,
            SameTypeKind::Negative => format!("(- {inner})"),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let made = match self.kind {
            SameTypeKind::OneZero => floats::normal(&arrays[0]),
            SameTypeKind::Opaque => Arc::clone(&arrays[0]),
            SameTypeKind::Negative => neg(&arrays[0])?,
        };
        returned(&args.args, made)
    }
}
