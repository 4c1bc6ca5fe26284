use super::*;

/// What a file takes in a manifest.
const ENTRY_BYTES: u64 = 400;

/// The days of the files of each manifest after so many commits of so many files, and how many entries
/// were written anew.
fn committed(commits: i32, files: i32, day: impl Fn(i32) -> i32) -> (Vec<Vec<i32>>, usize) {
    let mut listed: Vec<Vec<i32>> = Vec::new();
    let (mut rewritten, mut bytes) = (0, 0);
    for n in 0..commits {
        let mut days: Vec<i32> = (n * files..(n + 1) * files).map(&day).collect();
        days.sort_unstable();
        bytes += ENTRY_BYTES * days.len() as u64;
        listed.push(days);
        let small = listed.iter().enumerate().map(|(index, days)| {
            let files = days.len() as u64;
            SmallManifest { files, bytes: ENTRY_BYTES * files, index }
        });
        let chosen = worth_merging(small.filter(SmallManifest::is_small).collect());
        let gone = chosen.iter().rev().flat_map(|index| listed.remove(*index));
        let mut merged: Vec<i32> = gone.collect();
        merged.sort_unstable();
        rewritten += merged.len();
        let later = day_cut(&merged).map(|at| merged.split_off(at));
        listed.extend([merged].into_iter().chain(later).filter(|part| !part.is_empty()));
        let full = usize::try_from(bytes / SMALL_BYTES_MAX).unwrap();
        assert!(listed.len() < MERGE_AT + full, "{} manifests", listed.len());
    }
    (listed, rewritten)
}

#[test]
fn an_entry_is_rewritten_a_few_times_and_the_list_stays_short() {
    const COMMITS: i32 = 10_000;
    for days in [1, 30, 365] {
        let (listed, rewritten) = committed(COMMITS, 1, |file| (file * 7_919) % days);
        assert_eq!(listed.iter().map(Vec::len).sum::<usize>(), COMMITS as usize);
        assert!(rewritten < 7 * COMMITS as usize, "{rewritten}");
    }
}

#[test]
fn manifests_of_many_files_in_few_bytes_are_merged_within_a_bound() {
    let of = |files: u64, index: usize| SmallManifest { files, bytes: 1, index };
    assert!(of(SMALL_FILES_MAX - 1, 0).is_small() && !of(SMALL_FILES_MAX, 0).is_small());
    let small = (0..MERGE_AT).map(|index| of(SMALL_FILES_MAX - 1, index)).collect();
    assert_eq!(worth_merging(small), [0, 1, 2, 3]);
}

#[test]
fn late_files_do_not_have_every_manifest_reach_back() {
    const IN_DAY: i32 = 10_000;
    let late = |file: i32| if file % 20 == 0 { 1 + file / 20 % 7 } else { 0 };
    let (listed, _) = committed(6_000, 10, |file| file / IN_DAY - late(file));
    let reads = |day: i32| -> usize {
        let has = |days: &&Vec<i32>| days[0] <= day && day <= days[days.len() - 1];
        listed.iter().filter(has).map(Vec::len).sum()
    };
    // Of 60 000; half of them if merges did not part them.
    let mean = (0..6).map(reads).sum::<usize>() / 6;
    assert!(mean < 2 * IN_DAY as usize, "{mean}");
}

#[test]
fn files_are_parted_where_that_spares_half() {
    let check = |days: &[i32], expected: Option<usize>| assert_eq!(day_cut(days), expected);
    check(&[], None);
    check(&[5], None);
    check(&[5, 5, 5], None);
    check(&[4, 5, 5], Some(1));
    check(&[1, 2, 3], None);
    check(&[1, 2, 3, 4], Some(2));
    check(&[i32::MIN, 7, 7], Some(1));
    check(&[1, 3, 5, 20, 20, 20, 20], Some(3));
}
