use super::*;
use datafusion::logical_expr::{col, lit};

#[test]
fn filters_on_number_and_time_are_asked_of_the_metastore() {
    let time = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())));
    let check = |filter: Expr, numbers: (i64, i64), times_ms: (i64, i64)| {
        let mut range = AuditRange::default();
        narrow(&mut range, &filter);
        assert_eq!(range, AuditRange { numbers, times_ms }, "{filter}");
    };
    let AuditRange { numbers, times_ms } = AuditRange::default();
    check(col("number").gt(lit(5_i64)), (5, i64::MAX), times_ms);
    check(lit(5_i64).gt_eq(col("number")), (0, 5), times_ms);
    check(col("number").eq(lit(5_i64)).and(col("outcome").eq(lit("403"))), (5, 5), times_ms);
    check(col("time").gt_eq(time(-1)).and(col("time").lt(time(2_001))), numbers, (-1, 2));
    for other in [
        col("number").not_eq(lit(5_i64)),
        col("number").eq(lit(5_i64)).or(col("number").eq(lit(7_i64))),
        col("object").gt(lit("a")),
        col("number").eq(col("number")),
    ] {
        check(other, numbers, times_ms);
    }
}
