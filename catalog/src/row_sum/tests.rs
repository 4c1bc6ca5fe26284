use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::collections::HashMap;

fn sum_of(hashes: &[u128]) -> RowSum {
    let mut sum = RowSum::default();
    hashes.iter().for_each(|hash| sum.add(*hash));
    sum
}

#[test]
fn a_sum_is_of_its_rows_whatever_their_order_and_their_parts() {
    let mut random = StdRng::seed_from_u64(46);
    for _ in 0..500 {
        let count = random.random_range(0..60);
        let mut hashes: Vec<u128> = (0..count).map(|_| random.random()).collect();
        let whole = sum_of(&hashes);
        hashes.shuffle(&mut random);
        assert_eq!(sum_of(&hashes), whole);
        let (one, other) = hashes.split_at(random.random_range(0..=count));
        assert_eq!(sum_of(one).merge(sum_of(other)), whole);
        assert_eq!(whole.minus(sum_of(one)), sum_of(other));
        let mut undone = whole;
        hashes.iter().for_each(|hash| undone.remove(*hash));
        assert_eq!(undone, RowSum::default());
    }
}

#[test]
fn rows_that_are_there_twice_are_told() {
    let (one, other) = (sum_of(&[7]), sum_of(&[9]));
    assert_ne!(one, other, "the same count");
    let twice = sum_of(&[7, 7, 9, 9]);
    assert_ne!(twice, sum_of(&[7, 9]));
    assert_ne!(twice.minus(sum_of(&[7, 9])), RowSum::default(), "a sum and not an exclusive or");
}

#[test]
fn a_sum_is_read_as_it_was_written() {
    let many = sum_of(&[u128::MAX, 1 << 90, 5]);
    let fewer_than_none = RowSum::default().minus(many);
    assert_eq!(fewer_than_none.rows(), -3);
    for sum in [RowSum::default(), many, fewer_than_none] {
        assert_eq!(sum.to_string().parse::<RowSum>(), Ok(sum));
    }
    assert_eq!(sum_of(&[255]).to_string(), "1:000000000000000000000000000000ff");
    for text in [
        "",
        "1",
        "1:",
        "1:ff",
        ":000000000000000000000000000000ff",
        "1:+00000000000000000000000000000ff",
    ] {
        assert_eq!(text.parse::<RowSum>(), Err(InvalidRowSum), "{text}");
    }
}

fn snapshot(id: i64, entries: Vec<(&'static str, String)>) -> Snapshot {
    let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
    let additional_properties: HashMap<String, String> = entries.collect();
    Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(None)
        .with_sequence_number(1)
        .with_timestamp_ms(1)
        .with_manifest_list("m")
        .with_summary(Summary { operation: Operation::Append, additional_properties })
        .build()
}

#[test]
fn totals_go_on_from_the_last_snapshot_that_nobody_summed_up() {
    let (three, two, one) = (sum_of(&[1, 2, 3]), sum_of(&[4, 5]), sum_of(&[3]));
    let change = |added, removed| Some(RowChange { added, removed });
    let none = RowSum::default();
    let first = snapshot(1, entries(None, &Operation::Append, change(three, none)));
    assert_eq!(RecordedSums::of(&first), RecordedSums { rows: three, removed: none, basis: None });
    let merged = snapshot(2, entries(Some(&first), &Operation::Replace, None));
    assert_eq!(RecordedSums::of(&merged), RecordedSums::of(&first));
    let fewer = snapshot(3, entries(Some(&merged), &Operation::Delete, change(none, one)));
    let left = RecordedSums { rows: three.minus(one), removed: one, basis: None };
    assert_eq!(RecordedSums::of(&fewer), left);
    let of_another = snapshot(4, Vec::new());
    assert!(entries(Some(&of_another), &Operation::Replace, None).is_empty());
    let merged = entries(Some(&of_another), &Operation::Replace, change(two, two));
    let since = RecordedSums { rows: none, removed: none, basis: Some(4) };
    assert_eq!(RecordedSums::of(&snapshot(7, merged)), since);
    let next = snapshot(5, entries(Some(&of_another), &Operation::Append, change(two, none)));
    let since = RecordedSums { rows: two, removed: none, basis: Some(4) };
    assert_eq!(RecordedSums::of(&next), since);
    let unknown = snapshot(6, entries(Some(&next), &Operation::Overwrite, None));
    assert_eq!(RecordedSums::of(&unknown).basis, Some(6));
}
