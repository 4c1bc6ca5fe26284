use super::*;

#[test]
fn a_step_is_shorter_where_snapshots_are_thinned_soon_and_where_others_change_the_table() {
    let seconds = Duration::from_secs;
    assert_eq!(step_time(None, 0), TIME_MAX);
    assert_eq!(step_time(Some(600_000), 0), TIME_MAX);
    assert_eq!(step_time(Some(12_000), 0), seconds(4));
    assert_eq!(step_time(Some(12_000), 2), seconds(1));
    assert_eq!(step_time(Some(-1), 0), TIME_MIN, "a clock went back");
    assert_eq!(step_time(None, u32::MAX), TIME_MIN);
}

#[test]
fn groups_are_smaller_the_more_often_a_table_was_changed_meanwhile() {
    let files = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<String>>();
    let of = |count: usize, is_for_deletes| FileGroup {
        files: files(count),
        bytes: count as u64,
        is_for_deletes,
        ..FileGroup::default()
    };
    for (refused, expected) in [(0, 40), (1, 20), (3, 5), (4, 4)] {
        let (groups, is_more) = within_bounds(vec![of(40, false), of(9, true)], refused);
        assert_eq!(groups[0].files, files(expected), "the first of them");
        assert_eq!((groups[1].files.len(), is_more), (9, 0 < refused));
    }
}
