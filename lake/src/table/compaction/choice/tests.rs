use super::*;

const TODAY: i32 = 20_000;
const NOW_MS: i64 = TODAY as i64 * DAY_MS + 3_600_000;
const MB: u64 = 1_000_000;

const RULES: CompactionRules =
    CompactionRules { file_bytes: 100 * MB, file_rows: 1_000_000, files_max: 16, days_back: 7 };

/// Sorted files of these sizes in one partition of a day, a hundred bytes a row, of an hour ago.
fn files(day: i32, sizes: &[u64]) -> Vec<LiveFile> {
    let file = |(at, bytes): (usize, &u64)| LiveFile {
        location: format!("{day}-{at}"),
        partition: format!("a {day}"),
        day: Some(day),
        bytes: *bytes,
        rows: bytes / 100,
        is_sorted: true,
        committed_ms: NOW_MS - 3_600_000,
        ..LiveFile::default()
    };
    sizes.iter().enumerate().map(file).collect()
}

/// How many files each group has.
fn sizes(files: &[LiveFile], mode: CompactionMode) -> Vec<usize> {
    let choice = choose(files, &RULES, mode, NOW_MS);
    choice.groups.iter().map(|group| group.files.len()).collect()
}

#[test]
fn few_files_of_the_open_day_stay_until_an_operator_asks() {
    let few = files(TODAY, &[20_000; 16]);
    assert!(sizes(&few, CompactionMode::Steady).is_empty());
    assert_eq!(sizes(&few, CompactionMode::Now), [16]);
    assert!(sizes(&few, CompactionMode::ClosedDays).is_empty());
    assert_eq!(sizes(&files(TODAY, &[20_000; 17]), CompactionMode::Steady), [17]);
}

#[test]
fn after_each_step_a_partition_has_at_most_twice_the_bound_of_small_files() {
    let mut live: Vec<u64> = Vec::new();
    // Ten thousand commits, and a step after each 168 of them.
    for step in 0..60 {
        live.extend([1_400; 168]);
        let choice = choose(&files(TODAY, &live), &RULES, CompactionMode::Steady, NOW_MS);
        assert_eq!(choice.most, live.len(), "{step}");
        for group in &choice.groups {
            let is_merged = |at: usize| group.files.contains(&format!("{TODAY}-{at}"));
            let mut left: Vec<u64> = Vec::new();
            left.extend((0..).zip(&live).filter(|(at, _)| !is_merged(*at)).map(|(_, bytes)| bytes));
            left.push(group.bytes);
            live = left;
        }
        assert!(live.len() <= 2 * RULES.files_max, "{step}: {live:?}");
    }
}

#[test]
fn a_large_file_waits_for_enough_small_ones() {
    let mut some = files(TODAY, &[[20_000; 17].as_slice(), &[40 * MB]].concat());
    let choice = choose(&some, &RULES, CompactionMode::Steady, NOW_MS);
    assert_eq!(choice.groups[0].files.len(), 17, "the large one stays");
    some = files(TODAY, &[[MB; 17].as_slice(), &[4 * MB]].concat());
    assert_eq!(sizes(&some, CompactionMode::Steady), [18]);
    // One event comes late.
    assert!(sizes(&files(TODAY - 1, &[1_000, 40 * MB]), CompactionMode::Steady).is_empty());
}

#[test]
fn a_closed_day_is_made_whole_once_it_is_quiet() {
    let mut closed = files(TODAY - 1, &[MB, MB, 2 * MB]);
    assert_eq!(sizes(&closed, CompactionMode::Steady), [3]);
    assert_eq!(sizes(&closed, CompactionMode::ClosedDays), [3]);
    assert!(sizes(&files(TODAY - 8, &[MB; 3]), CompactionMode::Steady).is_empty());
    closed[0].committed_ms = NOW_MS - QUIET_MS + 1;
    assert!(sizes(&closed, CompactionMode::Steady).is_empty());
}

#[test]
fn files_of_hours_that_are_over_are_merged_in_the_open_day_too() {
    let mut some = files(TODAY, &[20_000; 3]);
    some[2].committed_ms = NOW_MS - 1;
    assert_eq!(sizes(&some, CompactionMode::ClosedHours), [3]);
    some[2].committed_ms = NOW_MS;
    let choice = choose(&some, &RULES, CompactionMode::ClosedHours, NOW_MS);
    assert_eq!((choice.groups[0].files.len(), choice.reasons.kept[OPEN_HOUR]), (2, 1));

    // What counts is rows, and half of them are not worth it.
    let more = files(TODAY, &[20_000, 10_000]);
    assert!(sizes(&more, CompactionMode::ClosedHours).is_empty());
    assert_eq!(sizes(&more, CompactionMode::Now), [2]);
    let mut deleted = files(TODAY, &[60 * MB]);
    deleted[0].delete_files = 1;
    assert!(sizes(&deleted, CompactionMode::ClosedHours).is_empty(), "a few deletes wait");
}

/// Whoever sends as much each hour has few files, and a row is not written anew each hour.
#[test]
fn each_rewrite_of_closed_hours_doubles_the_file_of_a_row() {
    // Of few rows a file is mostly what each has.
    let file = |location: String, rows: u64| LiveFile {
        location,
        rows,
        bytes: 20_000 + rows,
        ..files(TODAY, &[0]).remove(0)
    };
    for commits in [1, 12] {
        // Each file with the most rewrites of a row of it.
        let (mut live, mut most): (Vec<(LiveFile, u32)>, u32) = (Vec::new(), 0);
        for hour in 0..24 {
            live.extend((0..commits).map(|at| (file(format!("{hour}-{at}"), 1_200 / commits), 0)));
            let now: Vec<LiveFile> = live.iter().map(|(file, _)| file.clone()).collect();
            for group in choose(&now, &RULES, CompactionMode::ClosedHours, NOW_MS).groups {
                let (merged, rest): (Vec<_>, Vec<_>) =
                    live.into_iter().partition(|(file, _)| group.files.contains(&file.location));
                let times = merged.iter().map(|(_, times)| times + 1).max().unwrap();
                most = most.max(times);
                live = rest;
                live.push((file(format!("{hour} merged"), group.rows), times));
            }
            assert!(live.len() <= 4, "{commits}: {} files after {hour} h", live.len());
        }
        assert!(most <= 5, "{commits}: {most}");
    }
}

#[test]
fn a_file_that_is_whole_stays() {
    assert!(sizes(&files(TODAY - 1, &[50 * MB, 60 * MB, 99 * MB]), CompactionMode::Now).is_empty());
    let mut rows = files(TODAY - 1, &[MB; 4]);
    rows.iter_mut().for_each(|file| file.rows = 500_000);
    assert!(sizes(&rows, CompactionMode::Now).is_empty());
    // A group ends where a file is whole.
    let mut many = files(TODAY - 1, &[30 * MB; 5]);
    many.iter_mut().for_each(|file| file.rows = 200_000);
    assert_eq!(sizes(&many, CompactionMode::Now), [3]);
}

#[test]
fn files_with_deleted_rows_are_written_anew() {
    let mut whole = files(TODAY, &[60 * MB, 60 * MB, 60 * MB]);
    whole[0].delete_files = 4;
    whole[1].delete_files = 1;
    (whole[2].delete_files, whole[2].deleted_rows) = (1, whole[2].rows / 10);
    let chosen = |mode| {
        let groups = choose(&whole, &RULES, mode, NOW_MS).groups;
        groups.into_iter().flat_map(|group| group.files).collect::<Vec<_>>()
    };
    assert_eq!(chosen(CompactionMode::Steady), ["20000-0", "20000-2"]);
    let groups = choose(&whole, &RULES, CompactionMode::Steady, NOW_MS).groups;
    assert!(groups.iter().all(|group| group.is_for_deletes));
    assert_eq!(chosen(CompactionMode::Now).len(), 3);
}

#[test]
fn a_small_file_with_deleted_rows_takes_the_smaller_ones_with_it() {
    let mut some = files(TODAY, &[MB, 3 * MB, 7 * MB, 20 * MB, 49 * MB]);
    assert!(sizes(&some, CompactionMode::Steady).is_empty());
    (some[3].delete_files, some[3].deleted_rows) = (1, some[3].rows / 10);
    assert_eq!(sizes(&some, CompactionMode::Steady), [4], "and not the larger one");
    (some[4].delete_files, some[4].deleted_rows) = (1, some[4].rows / 10);
    assert_eq!(sizes(&some, CompactionMode::Steady), [5]);
    // Without becoming longer than a file should be.
    let mut long = files(TODAY, &[15 * MB, 31 * MB, 48 * MB]);
    long[2].delete_files = 4;
    assert_eq!(sizes(&long, CompactionMode::Steady), [3]);
    (long[0].bytes, long[1].bytes) = (40 * MB, 47 * MB);
    assert_eq!(sizes(&long, CompactionMode::Steady), [2, 1]);
}

#[test]
fn files_of_other_engines_stay_until_an_operator_asks() {
    let mut some = files(TODAY - 1, &[MB, MB, MB]);
    some[2].is_foreign = true;
    assert_eq!(sizes(&some, CompactionMode::Steady), [2]);
    some[1].is_foreign = true;
    some[1].delete_files = 4;
    assert!(sizes(&some, CompactionMode::Steady).is_empty());
    assert_eq!(sizes(&some, CompactionMode::ClosedDays), [3]);
}

#[test]
fn so_many_files_may_come_before_the_next_look() {
    let patience = |count: usize| {
        let some = files(TODAY, &vec![20_000; count]);
        choose(&some, &RULES, CompactionMode::Steady, NOW_MS).patience
    };
    assert_eq!([0, 1, 16, 40].map(patience), [17, 16, 1, 1]);
    let closed = choose(&files(TODAY - 9, &[20_000; 16]), &RULES, CompactionMode::Steady, NOW_MS);
    assert_eq!(closed.patience, 17, "nothing is to come to it");
    // Each is longer than all smaller ones together.
    let doubled: Vec<u64> = (0..9).map(|n| (64 << 10) << n).collect();
    let strict = CompactionRules { files_max: 8, ..RULES };
    let none = choose(&files(TODAY, &doubled), &strict, CompactionMode::Steady, NOW_MS);
    assert_eq!((none.groups.len(), none.patience), (0, PATIENCE_MIN));
}

#[test]
fn what_cannot_be_written_anew_is_told() {
    let mut some = files(TODAY - 1, &[9 << 20, MB, MB, MB]);
    some[0].is_sorted = false;
    some[1].obstacle = Some("no");
    let choice = choose(&some, &RULES, CompactionMode::Now, NOW_MS);
    assert_eq!(choice.groups[0].files.len(), 2);
    assert_eq!(choice.skipped.len(), 2, "{:?}", choice.skipped);
}

#[test]
fn whoever_asks_is_told_why_files_are_merged_or_stay() {
    use reasons::{ALONE, DELETED, LARGE, LONG, PARTITIONS_MAX, ReasonCounts, SMALL};
    let told = |files: &[LiveFile], mode| choose(files, &RULES, mode, NOW_MS).reasons;
    let check = |files: &[LiveFile], merged: &[(&'static str, u64)], kept: &[_]| {
        let told = told(files, CompactionMode::Now);
        assert_eq!(told.merged, ReasonCounts::from_iter(merged.iter().copied()));
        assert_eq!(told.kept, ReasonCounts::from_iter(kept.iter().copied()));
    };
    check(&files(TODAY, &[MB; 16]), &[(SMALL, 16)], &[]);
    check(&files(TODAY, &[MB, 60 * MB, 70 * MB]), &[], &[(ALONE, 1), (LARGE, 2)]);
    check(&files(TODAY, &[MB, MB, 40 * MB]), &[(SMALL, 2)], &[(LONG, 1)]);
    // What is told of them holds of two that hardly differ, too.
    check(&files(TODAY, &[95_000, 95_300]), &[], &[(LONG, 2)]);
    assert!(LONG.contains("each is larger than all smaller ones together"), "{LONG}");
    let mut deleted = files(TODAY, &[60 * MB, 70 * MB]);
    deleted[1].delete_files = 1;
    check(&deleted, &[(DELETED, 1)], &[(LARGE, 1)]);

    let open = told(&files(TODAY, &[MB; 3]), CompactionMode::ClosedDays);
    assert_eq!((open.merged.len(), open.kept[OPEN_DAY]), (0, 3));
    let steady = told(&files(TODAY, &[MB; 17]), CompactionMode::Steady);
    assert_eq!(steady, ChoiceReasons::default(), "nobody asks");

    // Of very many partitions those are told first that change.
    let days = 0..2 * PARTITIONS_MAX as i32;
    let sizes = |day: i32| vec![MB; if day % 4 == 0 { 2 } else { 1 }];
    let many: Vec<LiveFile> = days.flat_map(|day| files(TODAY - day, &sizes(day))).collect();
    let (partitions, more) = told(&many, CompactionMode::Now).into_partitions();
    assert_eq!((partitions.len(), more), (PARTITIONS_MAX, PARTITIONS_MAX as u64));
    assert_eq!(partitions.iter().take_while(|it| 0 < it.groups).count(), PARTITIONS_MAX / 2);
}

/// Whatever comes: the number of small files and of rewrites of a row stay within what the rules promise.
#[test]
fn files_and_rewrites_of_a_row_are_bounded() {
    let mut seed = 7_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    for kind in 0..4 {
        // Each file with the most rewrites of a row of it.
        let mut live: Vec<(LiveFile, u32)> = Vec::new();
        let mut most = 0;
        for commit in 0..3_000_u64 {
            let bytes = match kind {
                0 => 20_000,
                1 => 300_000,
                2 => 1_000 + next() % 100_000,
                _ => 10_000 << (next() % 10),
            };
            let mut file = files(TODAY, &[bytes]).remove(0);
            file.location = format!("{commit}");
            live.push((file, 0));
            let now: Vec<LiveFile> = live.iter().map(|(file, _)| file.clone()).collect();
            for group in choose(&now, &RULES, CompactionMode::Steady, NOW_MS).groups {
                let (merged, rest): (Vec<_>, Vec<_>) =
                    live.into_iter().partition(|(file, _)| group.files.contains(&file.location));
                let times = merged.iter().map(|(_, times)| times + 1).max().unwrap();
                most = most.max(times);
                let mut file = files(TODAY, &[group.bytes]).remove(0);
                file.location = format!("{commit} merged");
                live = rest;
                live.push((file, times));
            }
            let small = live.iter().filter(|(file, _)| is_small(file, &RULES)).count();
            assert!(small <= 2 * RULES.files_max, "{kind}: {small} after {commit}");
        }
        assert!(most <= 11, "{kind}: {most}");
    }
}
