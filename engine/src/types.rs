//! The types that SQL names, where they differ from DataFusion's: times are microseconds, as they are
//! in the tables, and `float` has 64 bits, as in PostgreSQL.

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::{
    error::DataFusionError,
    logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, TimezoneInfo},
};
use icecore_lake::event::rows::UTC;
use std::sync::Arc;

/// Binary digits of the largest `float(n)` that has 32 bits.
const SINGLE_DIGITS_MAX: u64 = 24;

/// Plans `timestamp`, `time` and `float`.
#[derive(Debug)]
pub struct MicrosecondTypes;

impl TypePlanner for MicrosecondTypes {
    fn plan_type_field(&self, sql: &SqlType) -> Result<Option<FieldRef>, DataFusionError> {
        let has_zone =
            |zone: &TimezoneInfo| matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
        let kind = match sql {
            SqlType::Timestamp(None | Some(6), zone) => {
                let zone = has_zone(zone).then(|| Arc::from(UTC));
                DataType::Timestamp(TimeUnit::Microsecond, zone)
            }
            SqlType::Datetime(None | Some(6)) => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Time(None | Some(6), zone) if !has_zone(zone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            SqlType::Float(ExactNumberInfo::Precision(digits)) if *digits <= SINGLE_DIGITS_MAX => {
                DataType::Float32
            }
            SqlType::Float(_) => DataType::Float64,
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", kind, true))))
    }
}
