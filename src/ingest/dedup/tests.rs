use super::{bloom::BloomFilter, *};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

const DAY_MS: i64 = 86_400_000;

fn open(folder: &Path, fresh_max: usize, now_ms: i64) -> IdIndex {
    let options = IndexOptions { folder: folder.to_owned(), window_ms: 7 * DAY_MS, fresh_max };
    IdIndex::open(options, now_ms).unwrap()
}

/// Spreads small numbers like the hashes that real ids are.
fn id(n: u64) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes())
}

fn seen(n: u64) -> SeenId {
    SeenId { content: n ^ 0xabc, seq: n + 1 }
}

fn persist(index: &mut IdIndex, now_ms: i64) {
    if index.has_fresh() {
        index.freeze(now_ms);
        assert!(index.wait(now_ms).unwrap());
    }
}

/// Polls until no merge is due or running.
fn merge_all(index: &mut IdIndex, now_ms: i64) {
    index.poll(now_ms).unwrap();
    while let Some(merging) = index.merging.take() {
        let run = join(merging).unwrap();
        index.replace_merged(run);
        index.poll(now_ms).unwrap();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_index_agrees_with_a_map_through_freezes_merges_and_restarts() {
    for seed in 0..4 {
        let folder = TempDir::new().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let mut model: HashMap<u64, SeenId> = HashMap::new();
        let mut durable = model.clone();
        let mut now_ms = 0;
        let mut index = open(folder.path(), 1000, now_ms);
        for _ in 0..6000 {
            now_ms += 10;
            let n = random.random_range(0..2500);
            assert_eq!(index.get(id(n)).unwrap(), model.get(&n).copied(), "id {n}, seed {seed}");
            if let std::collections::hash_map::Entry::Vacant(vacant) = model.entry(n) {
                index.insert(id(n), seen(n));
                if random.random_bool(0.1) {
                    index.forget(id(n));
                } else {
                    vacant.insert(seen(n));
                }
            }
            match random.random_range(0..300) {
                0..=4 => {
                    persist(&mut index, now_ms);
                    durable.clone_from(&model);
                }
                5 if !index.is_writing() => index.freeze(now_ms),
                6 => merge_all(&mut index, now_ms),
                7 => {
                    drop(index);
                    index = open(folder.path(), 1000, now_ms);
                    // What was not in a file is in the log, which is replayed.
                    for (n, seen) in &model {
                        if !durable.contains_key(n) {
                            index.insert(id(*n), *seen);
                        }
                    }
                }
                _ => {
                    index.poll(now_ms).unwrap();
                }
            }
            if index.is_writing() {
                assert!(index.wait(now_ms).unwrap());
                durable.clone_from(&model);
            }
        }
        for n in 0..2500 {
            assert_eq!(index.get(id(n)).unwrap(), model.get(&n).copied(), "id {n}, seed {seed}");
        }
        assert!(1000 < model.len());
    }
}

#[test]
fn many_ids_are_all_known_after_a_reopen_that_reads_no_entries() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 1 << 20, 0);
    for n in 0..200_000 {
        index.insert(id(n), seen(n));
    }
    persist(&mut index, 1);
    drop(index);
    let index = open(folder.path(), 1 << 20, 2);
    assert!(!index.has_fresh());
    for n in (0..200_000).step_by(7) {
        assert_eq!(index.get(id(n)).unwrap(), Some(seen(n)));
    }
    let run = &index.runs[0];
    let strangers = 200_000..300_000u64;
    assert!(strangers.clone().all(|n| run.get(id(n)).unwrap().is_none()));
    let bloom =
        BloomFilter::from_bytes(&fs::read(&run.path).unwrap()[4096 + 200_000 * 32 + 1563 * 20..]);
    let passed = strangers.filter(|n| bloom.as_ref().unwrap().may_hold(id(*n))).count();
    assert!(passed < 2000, "{passed} of 100 000 absent ids pass the filter");
}

#[test]
fn ids_are_found_while_their_file_is_being_written() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 10, 0);
    index.insert(id(1), seen(1));
    index.freeze(1);
    assert_eq!(index.get(id(1)).unwrap(), Some(seen(1)));
    index.insert(id(2), seen(2));
    assert!(index.wait(2).unwrap());
    assert!(!index.is_writing());
    assert_eq!(index.get(id(1)).unwrap(), Some(seen(1)));
    assert_eq!(index.get(id(2)).unwrap(), Some(seen(2)));
}

#[test]
fn small_files_become_few() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 10, 0);
    for n in 0..40 {
        index.insert(id(n), seen(n));
        persist(&mut index, n as i64);
    }
    merge_all(&mut index, 40);
    assert!(index.runs.len() <= RUNS_MAX);
    assert_eq!(files(folder.path()).len(), index.runs.len());
    assert_eq!(index.runs.iter().map(|run| run.count).sum::<u64>(), 40);
}

#[test]
fn an_id_in_two_files_keeps_its_first_seq() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 10, 0);
    for seq in 0..RUNS_MAX as u64 + 1 {
        index.insert(id(1), SeenId { content: 5, seq });
        persist(&mut index, 0);
    }
    merge_all(&mut index, 1);
    let merged = index.runs.iter().find(|run| run.span.low == 1).unwrap();
    assert_eq!((merged.count, merged.get(id(1)).unwrap().unwrap().seq), (1, 0));
}

#[test]
fn merging_picks_the_fewest_ids_within_a_part_of_the_window() {
    let at = |count: u64, day: i64| {
        let times = ArrivalTimes { first: day * DAY_MS, last: (day + 1) * DAY_MS - 1 };
        (count, times)
    };
    let eight = vec![at(1, 0); RUNS_MAX];
    assert_eq!(pick_merge(&eight, 100 * DAY_MS), None);
    let runs: Vec<_> = [90, 80, 9, 9, 1, 1, 1, 9, 9].map(|count| at(count, 0)).to_vec();
    assert_eq!(pick_merge(&runs, 100 * DAY_MS), Some(3..7));
    let spread: Vec<_> = (0..9).map(|day| at(1, day)).collect();
    assert_eq!(pick_merge(&spread, 8 * DAY_MS), None);
    assert_eq!(pick_merge(&spread, 16 * DAY_MS), Some(0..4));
}

#[test]
fn ids_leave_with_the_window_and_not_before() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 10, 0);
    index.insert(id(1), seen(1));
    persist(&mut index, DAY_MS);
    index.poll(8 * DAY_MS).unwrap();
    assert_eq!(index.get(id(1)).unwrap(), Some(seen(1)));
    let (expired, left) = index.totals();
    assert_eq!((expired, left.ids, left.files), (IdTotals::default(), 1, 1));
    index.poll(8 * DAY_MS + 1).unwrap();
    assert_eq!(index.get(id(1)).unwrap(), None);
    assert_eq!(index.totals(), (left, IdTotals::default()), "all of it went");
    index.take_expired();
    assert_eq!(index.totals(), (IdTotals::default(), IdTotals::default()));
    assert!(files(folder.path()).is_empty());
    index.insert(id(2), seen(2));
    persist(&mut index, 8 * DAY_MS + 2);
    assert_eq!(index.runs[0].span, FreezeSpan { low: 2, high: 2 });
}

#[test]
fn what_an_interrupted_merge_left_is_cleared_away() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 10, 0);
    for n in 0..4 {
        index.insert(id(n), seen(n));
        persist(&mut index, 1);
    }
    // The merged file is there, its parts are too.
    run::merge(folder.path(), &index.runs, &AtomicBool::new(false)).unwrap();
    fs::write(folder.path().join("00000000000000000009-00000000000000000009.tmp"), "half").unwrap();
    drop(index);
    let index = open(folder.path(), 10, 2);
    assert_eq!(files(folder.path()).len(), 1);
    for n in 0..4 {
        assert_eq!(index.get(id(n)).unwrap(), Some(seen(n)));
    }
}

/// Damages the only file at `at` and tells what opening, or else a look-up of every id, says.
fn damage_at(at: usize) -> String {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 1000, 0);
    for n in 0..300 {
        index.insert(id(n), seen(n));
    }
    persist(&mut index, 1);
    drop(index);
    let path = files(folder.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let options =
        IndexOptions { folder: folder.path().to_owned(), window_ms: DAY_MS, fresh_max: 1000 };
    let failed = IdIndex::open(options, 2)
        .and_then(|index| (0..300).try_for_each(|n| index.get(id(n)).map(|_| ())));
    let cause = failed.unwrap_err();
    let source = std::error::Error::source(&cause).unwrap().to_string();
    assert!(cause.to_string().contains(path.to_str().unwrap()), "{cause}");
    source.split(';').next().unwrap().to_owned()
}

#[test]
fn a_damaged_file_is_refused_and_named() {
    assert_eq!(damage_at(0), "its header is damaged");
    assert_eq!(damage_at(9), "its header is damaged");
    assert_eq!(damage_at(4096 + 130 * 32), "block 1 is damaged");
    assert_eq!(damage_at(4096 + 300 * 32 + 3), "its fences or filter is damaged");
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut index = open(folder.path(), 1000, 0);
    index.insert(id(1), seen(1));
    persist(&mut index, 1);
    drop(index);
    let path = files(folder.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let options =
        IndexOptions { folder: folder.path().to_owned(), window_ms: DAY_MS, fresh_max: 1000 };
    assert!(IdIndex::open(options, 2).is_err());
}

#[test]
fn a_failed_write_keeps_the_ids_and_is_tried_again() {
    let folder = TempDir::new().unwrap();
    let inside = folder.path().join("ids");
    let mut index = open(&inside, 2, 0);
    index.insert(id(1), seen(1));
    fs::remove_dir_all(&inside).unwrap();
    index.freeze(1);
    assert!(index.wait(1).is_err());
    assert_eq!(index.get(id(1)).unwrap(), Some(seen(1)));
    for n in 2..6 {
        assert!(!index.is_overfull());
        index.insert(id(n), seen(n));
    }
    assert!(index.is_overfull());
    fs::create_dir(&inside).unwrap();
    assert!(index.wait(2).unwrap());
    assert!(!index.is_overfull());
    assert_eq!(files(&inside).len(), 1);
}
