//! A filter on rows that are read.
//!
//! Every test of a filter is one that a row has to meet, so a test of a missing value is simply not
//! met: there is no third truth.

use crate::table::{file_columns::one_value, partition::field_id};
use arrow::{
    array::{Array, ArrayRef, BooleanArray, Scalar},
    compute::{and, is_not_null, is_null, kernels::cmp, not, or, prep_null_mask_filter},
    error::ArrowError,
    record_batch::RecordBatch,
};
use iceberg::spec::{Datum, Transform};
use icecore_catalog::scan::filter::{Comparison, Filter, FilterTest, ValueCheck};

/// The field ids of the columns that a filter compares.
///
/// # Errors
/// What of the filter is not applied to rows.
pub(super) fn columns(filter: &Filter) -> Result<Vec<i32>, String> {
    match filter {
        Filter::True | Filter::False => Ok(Vec::new()),
        Filter::Unknown => Err("the filter has a part that is not known".to_owned()),
        Filter::And(left, right) | Filter::Or(left, right) => {
            let mut ids = columns(left)?;
            ids.extend(columns(right)?);
            ids.sort_unstable();
            ids.dedup();
            Ok(ids)
        }
        Filter::Test(FilterTest { term, check }) => {
            let is_applied = match check {
                ValueCheck::IsNull | ValueCheck::NotNull | ValueCheck::Compare(..) => true,
                ValueCheck::In(_) | ValueCheck::NotIn(_) => true,
                ValueCheck::IsNan | ValueCheck::NotNan => false,
                ValueCheck::StartsWith(_) | ValueCheck::NotStartsWith(_) => false,
            };
            match is_applied && term.transform == Transform::Identity {
                true => Ok(vec![term.field_id]),
                false => Err(format!("the filter on `{}` is not applied to rows", term.name)),
            }
        }
    }
}

/// Which rows meet the filter, of whose columns all are there.
pub(super) fn met(filter: &Filter, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
    let all = |value: bool| BooleanArray::from(vec![value; rows.num_rows()]);
    match filter {
        Filter::True => Ok(all(true)),
        Filter::False => Ok(all(false)),
        Filter::And(left, right) => and(&met(left, rows)?, &met(right, rows)?),
        Filter::Or(left, right) => or(&met(left, rows)?, &met(right, rows)?),
        Filter::Test(FilterTest { term, check }) => {
            let fields = rows.schema();
            let found =
                fields.fields().iter().position(|field| field_id(field) == Some(term.field_id));
            match found {
                Some(at) => checked(rows.column(at), check),
                None => Err(not_applied()),
            }
        }
        Filter::Unknown => Err(not_applied()),
    }
}

fn checked(column: &ArrayRef, check: &ValueCheck) -> Result<BooleanArray, ArrowError> {
    let compared = |comparison: Comparison, value: &Datum| {
        let value = Scalar::new(one_value(value.literal(), column.data_type())?);
        let met = match comparison {
            Comparison::Less => cmp::lt(column, &value),
            Comparison::LessOrEqual => cmp::lt_eq(column, &value),
            Comparison::Greater => cmp::gt(column, &value),
            Comparison::GreaterOrEqual => cmp::gt_eq(column, &value),
            Comparison::Equal => cmp::eq(column, &value),
            Comparison::NotEqual => cmp::neq(column, &value),
        };
        met.map(|met| if met.null_count() == 0 { met } else { prep_null_mask_filter(&met) })
    };
    let any = |values: &[Datum]| {
        let none = BooleanArray::from(vec![false; column.len()]);
        values.iter().try_fold(none, |met, value| or(&met, &compared(Comparison::Equal, value)?))
    };
    match check {
        ValueCheck::IsNull => is_null(column),
        ValueCheck::NotNull => is_not_null(column),
        ValueCheck::Compare(comparison, value) => compared(*comparison, value),
        ValueCheck::In(values) => any(values),
        ValueCheck::NotIn(values) => and(&not(&any(values)?)?, &is_not_null(column)?),
        ValueCheck::IsNan
        | ValueCheck::NotNan
        | ValueCheck::StartsWith(_)
        | ValueCheck::NotStartsWith(_) => Err(not_applied()),
    }
}

fn not_applied() -> ArrowError {
    ArrowError::NotYetImplemented("a filter of this form on rows".to_owned())
}
