//! The types that SQL names, where they differ from DataFusion's: times are microseconds, as they are
//! in the tables.

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::{
    error::DataFusionError,
    logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo},
};
use std::sync::Arc;

/// Plans `timestamp` and `time`.
#[derive(Debug)]
pub struct InMicroseconds;

impl TypePlanner for InMicroseconds {
    fn plan_type_field(&self, sql: &SqlType) -> Result<Option<FieldRef>, DataFusionError> {
        let has_zone =
            |zone: &TimezoneInfo| matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
        let kind = match sql {
            SqlType::Timestamp(None | Some(6), zone) => {
                let zone = has_zone(zone).then(|| Arc::from("+00:00"));
                DataType::Timestamp(TimeUnit::Microsecond, zone)
            }
            SqlType::Datetime(None | Some(6)) => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Time(None | Some(6), zone) if !has_zone(zone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", kind, true))))
    }
}
