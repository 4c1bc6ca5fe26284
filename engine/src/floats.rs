//! One zero and one NaN.
//!
//! Arrow compares floats by their bits: `-0.0` is below `0.0`, and a NaN with a sign, which the processor
//! makes of `inf - inf`, below every number. So each float of a file, and each that an expression makes,
//! goes through here; then NaN is equal to itself and above every number, as in PostgreSQL.

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    datatypes::{DataType, Float32Type, Float64Type},
};
use std::sync::Arc;

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
