use super::{BOUND_CHARS_MAX, ColumnStats, of_column};
use arrow::array::{
    Array, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use iceberg::spec::{Datum, PrimitiveLiteral};
use icecore_samples as sample;
use rand::{Rng, SeedableRng, rngs::StdRng};

fn stats(column: &dyn Array) -> ColumnStats {
    of_column(column, true)
}

fn text(bound: Option<&Datum>) -> Option<&str> {
    bound.map(|datum| match datum.literal() {
        PrimitiveLiteral::String(text) => text.as_str(),
        other => panic!("a string has string bounds, not {other:?}"),
    })
}

#[track_caller]
fn check_text(values: &[Option<&str>], lower: Option<&str>, upper: Option<&str>) {
    let stats = stats(&StringArray::from(values.to_vec()));
    assert_eq!(text(stats.lower.as_ref()), lower);
    assert_eq!(text(stats.upper.as_ref()), upper);
}

#[test]
fn short_texts_are_their_own_bounds() {
    check_text(&[Some("b"), None, Some("a"), Some("")], Some(""), Some("b"));
    check_text(&[Some("0123456789abcdef")], Some("0123456789abcdef"), Some("0123456789abcdef"));
    check_text(&[None, None], None, None);
    check_text(&[], None, None);
}

#[test]
fn a_long_text_is_cut_below_and_raised_above() {
    check_text(&[Some("0123456789abcdefg")], Some("0123456789abcdef"), Some("0123456789abcdeg"));
    let euros = "€".repeat(17);
    check_text(&[Some(&euros)], Some(&"€".repeat(16)), Some(&("€".repeat(15) + "₭")));
}

#[test]
fn a_character_that_cannot_be_raised_is_dropped() {
    let last = char::MAX;
    let long = format!("ab{}", last.to_string().repeat(20));
    check_text(&[Some(&long)], Some(&long[..2 + 14 * 4]), Some("ac"));
    let all_last = last.to_string().repeat(17);
    check_text(&[Some(&all_last)], Some(&last.to_string().repeat(16)), None);
}

#[test]
fn raising_passes_over_the_surrogates() {
    let long = "\u{d7ff}".repeat(17);
    let upper = "\u{d7ff}".repeat(15) + "\u{e000}";
    check_text(&[Some(&long)], Some(&"\u{d7ff}".repeat(16)), Some(&upper));
}

#[test]
fn every_random_text_lies_within_its_bounds() {
    let rng = &mut StdRng::seed_from_u64(1);
    for _ in 0..2_000 {
        let count = rng.random_range(1..4);
        let texts: Vec<String> = (0..count).map(|_| sample::text(rng)).collect();
        let stats = stats(&StringArray::from(texts.clone()));
        let low = texts.iter().min().unwrap();
        let high = texts.iter().max().unwrap();
        let cut = |text: &str| text.chars().take(BOUND_CHARS_MAX).collect::<String>();
        assert_eq!(text(stats.lower.as_ref()), Some(cut(low).as_str()));
        match text(stats.upper.as_ref()) {
            Some(upper) => {
                assert!(high.as_str() <= upper, "{high:?} above {upper:?}");
                assert!(upper.chars().count() <= BOUND_CHARS_MAX);
                // Tight: no bound passes another text with the same short prefix and more.
                assert!(*high == upper || cut(high).as_str() < upper);
            }
            None => assert!(cut(high).chars().all(|c| c == char::MAX)),
        }
    }
}

#[test]
fn nan_is_counted_and_is_no_bound() {
    let stats = stats(&Float64Array::from(vec![
        Some(f64::NAN),
        Some(2.5),
        None,
        Some(-1.0),
        Some(-f64::NAN),
    ]));
    assert_eq!((stats.values, stats.nulls, stats.nans), (5, 1, Some(2)));
    assert_eq!(stats.lower, Some(Datum::double(-1.0)));
    assert_eq!(stats.upper, Some(Datum::double(2.5)));
}

#[test]
fn only_nan_has_no_bounds() {
    let stats = stats(&Float64Array::from(vec![f64::NAN, f64::NAN]));
    assert_eq!((stats.nans, stats.lower, stats.upper), (Some(2), None, None));
}

#[test]
fn zeros_of_both_signs_lie_within_zero_bounds() {
    for zeros in [vec![0.0, 0.0], vec![-0.0, -0.0], vec![0.0, -0.0], vec![-0.0, 0.0]] {
        let stats = stats(&Float64Array::from(zeros));
        let bits = |bound: Option<Datum>| match bound.unwrap().literal() {
            PrimitiveLiteral::Double(value) => value.to_bits(),
            other => panic!("a double has double bounds, not {other:?}"),
        };
        assert_eq!(bits(stats.lower), (-0.0_f64).to_bits());
        assert_eq!(bits(stats.upper), 0.0_f64.to_bits());
    }
}

#[test]
fn numbers_times_and_booleans_have_exact_bounds() {
    let longs = stats(&Int64Array::from(vec![Some(i64::MAX), None, Some(i64::MIN)]));
    assert_eq!(longs.lower, Some(Datum::long(i64::MIN)));
    assert_eq!(longs.upper, Some(Datum::long(i64::MAX)));
    assert_eq!((longs.values, longs.nulls, longs.nans), (3, 1, None));
    let ints = stats(&Int32Array::from(vec![3, -7, 3]));
    assert_eq!((ints.lower, ints.upper), (Some(Datum::int(-7)), Some(Datum::int(3))));
    let times = stats(&TimestampMicrosecondArray::from(vec![-5, 9]).with_timezone("+00:00"));
    assert_eq!(times.lower, Some(Datum::timestamptz_micros(-5)));
    assert_eq!(times.upper, Some(Datum::timestamptz_micros(9)));
    let flags = stats(&BooleanArray::from(vec![Some(true), None]));
    assert_eq!((flags.lower, flags.upper), (Some(Datum::bool(true)), Some(Datum::bool(true))));
}

#[test]
fn an_unbounded_column_has_counts_alone() {
    let stats = of_column(&StringArray::from(vec![Some("a"), None]), false);
    assert_eq!((stats.values, stats.nulls, stats.lower, stats.upper), (2, 1, None, None));
}

#[test]
fn counts_and_bounds_of_two_parts_are_those_of_the_whole() {
    let rows = sample::events(200, 3, 1, 9);
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        for cut in [0, 1, 100, 200] {
            let of =
                |from: usize, to: usize| of_column(column.slice(from, to - from).as_ref(), true);
            assert_eq!(of(0, cut).and(&of(cut, 200)), of(0, 200), "`{}` {cut}", field.name());
        }
    }
}
