use super::*;
use iceberg::spec::{PrimitiveType, Type};

fn known(lower: &str, upper: &str) -> ColumnBounds {
    ColumnBounds {
        id: 1,
        bytes: None,
        values: Some(10),
        nulls: Some(10),
        nans: None,
        lower: Some(Datum::string(lower)),
        upper: Some(Datum::string(upper)),
    }
}

#[test]
fn bounds_that_may_be_cut_are_no_value() {
    let value = |lower, upper| text_of_bounds(&known(lower, upper)).cloned();
    let text = |text: &str| Some(PrimitiveLiteral::String(text.to_owned()));
    assert_eq!(value("call", "call"), text("call"));
    assert_eq!(value("", ""), text(""));
    assert_eq!(value("call", "calm"), None);
    assert_eq!(value("fifteen-letters", "fifteen-letters"), text("fifteen-letters"));
    assert_eq!(value("sixteen-letters!", "sixteen-letters!"), None);
    // Eight letters of two bytes each.
    assert_eq!(value("éééééééé", "éééééééé"), None);
    let one_bound = ColumnBounds { upper: None, ..known("call", "call") };
    assert_eq!(text_of_bounds(&one_bound), None);
    let number = Some(Datum::long(7));
    let numbers = ColumnBounds { lower: number.clone(), upper: number, ..known("", "") };
    assert_eq!(text_of_bounds(&numbers), None);
}

#[test]
fn nulls_are_known_where_counts_are_of_the_rows_of_the_file() {
    let column = || NestedField::optional(1, "kind", Type::Primitive(PrimitiveType::String));
    let all = known("a", "a");
    assert_eq!(nulls_of(&column(), &all, 10), Some(10));
    assert_eq!(nulls_of(&column(), &ColumnBounds { values: None, ..all.clone() }, 10), Some(10));
    assert_eq!(nulls_of(&column(), &ColumnBounds { nulls: None, ..all.clone() }, 10), None);
    assert_eq!(nulls_of(&column(), &all, 11), None);
    assert_eq!(nulls_of(&column(), &ColumnBounds { values: None, ..all.clone() }, 9), None);
    // Files from before the column read as its default.
    let with_default = column().with_initial_default(Literal::string("x"));
    assert_eq!(nulls_of(&with_default, &all, 10), None);
}
