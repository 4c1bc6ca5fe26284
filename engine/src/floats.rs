//! One zero and one NaN.
//!
//! Arrow compares floats by their bits: `-0.0` is below `0.0`, and a NaN with a sign, which the processor
//! makes of `inf - inf`, below every number. So each float of a file, and each that an expression makes,
//! goes through here; then NaN is equal to itself and above every number, as in PostgreSQL.

use crate::functions::returned;
use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    datatypes::{DataType, Float32Type, Float64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use std::{any::Any, sync::Arc};

/// The array with one zero and one NaN; of no floats the array itself.
#[must_use]
pub fn normal(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            mapped::<Float32Type>(
                array,
                |value| {
                    if value.is_nan() { f32::NAN } else { value + 0.0 }
                },
            )
        }
        DataType::Float64 => mapped::<Float64Type>(array, one),
        _ => Arc::clone(array),
    }
}

/// The number with one zero and one NaN.
#[must_use]
pub fn one(value: f64) -> f64 {
    // The sum of both zeros is the positive one, and with any other number that number.
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn mapped<T: ArrowPrimitiveType>(array: &ArrayRef, map: fn(T::Native) -> T::Native) -> ArrayRef {
    Arc::new(array.as_primitive::<T>().unary::<_, T>(map))
}

/// Whether an expression is `inner` in [`call`]; the inner one then.
#[must_use]
pub fn inner_of(expr: &Expr) -> Option<&Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let is_it = (func.inner().as_ref() as &dyn Any).is::<FloatNormalizer>();
    if is_it { args.first() } else { None }
}

/// An expression of floats with one zero and one NaN.
#[must_use]
pub fn call(expr: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let func = Arc::new(ScalarUDF::from(FloatNormalizer { signature }));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatNormalizer {
    signature: Signature,
}

impl ScalarUDFImpl for FloatNormalizer {
    fn name(&self) -> &'static str {
        "one_zero"
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
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        returned(&args.args, normal(&arrays[0]))
    }
}
