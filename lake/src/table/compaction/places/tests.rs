use super::*;

fn set(places: impl IntoIterator<Item = u64>) -> DeletedRows {
    places.into_iter().collect()
}

#[test]
fn places_are_those_of_the_same_rows_among_what_was_written() {
    let mut places = RowPlaces::default();
    places.add_file("a", Some(set([1])));
    places.add_file("b", None);
    // Rows 0 and 2 of `a`, 0 and 1 of `b`, 3 of `a`, 2 of `b`, 4 of `a`.
    for (file, rows) in [(0, 1), (0, 1), (1, 2), (0, 1), (1, 1), (0, 0), (0, 1)] {
        places.add_rows(file, rows);
    }
    let places = places.of_rows(7).unwrap();
    assert_eq!(places.runs.len(), 5);
    // No row is at place 9.
    let (a, b) = (set([0, 1, 3, 9]), set([1, 2]));
    let carried = places.carried(|location| Some(if location == "a" { &a } else { &b }));
    assert_eq!(carried, Some(set([0, 3, 4, 5])));
    assert_eq!(places.carried(|_| None), Some(set([])));
}

#[test]
fn more_deletes_than_are_worth_it_are_not_carried_over() {
    let mut places = RowPlaces::default();
    places.add_file("a", Some(set([0])));
    places.add_rows(0, 2 * PLACES_MAX);
    // The first one was left out before.
    let (most, more) = (set(0..=PLACES_MAX), set(0..PLACES_MAX + 2));
    let carried = places.carried(|_| Some(&most)).unwrap();
    assert_eq!(carried, set(0..PLACES_MAX));
    assert_eq!(places.carried(|_| Some(&more)), None);
}

#[test]
fn nothing_is_known_of_other_rows_and_where_there_are_too_many_runs() {
    let mut places = RowPlaces::default();
    places.add_file("a", None);
    places.add_rows(0, 3);
    assert!(places.clone().of_rows(2).is_none());
    assert!(places.clone().of_rows(3).is_some());
    places.lose();
    places.add_rows(0, 3);
    assert!(places.of_rows(0).is_none());
    let mut places = RowPlaces::default();
    for run in 0..=RUNS_MAX {
        places.add_rows(run % 2, 1);
    }
    assert!(places.of_rows(RUNS_MAX as u64 + 1).is_none());
}
