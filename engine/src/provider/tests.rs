use super::*;
use datafusion::logical_expr::{col, lit};

#[test]
fn a_scan_reads_the_columns_of_its_answer_and_those_of_its_filters() {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema = Schema::new(vec![field("a"), field("b"), field("c")]);
    let filters = [col("c").gt(lit(1_i64)).or(col("strange").is_null())];
    let read =
        |projection: Option<Vec<usize>>| columns_read(&schema, projection.as_ref(), &filters);
    assert_eq!(read(Some(vec![0])), HashSet::from([0, 2]));
    assert_eq!(read(Some(vec![])), HashSet::from([2]));
    assert_eq!(read(None), HashSet::from([0, 1, 2]));
    assert_eq!(columns_read(&schema, Some(&vec![1]), &[]), HashSet::from([1]));
}
