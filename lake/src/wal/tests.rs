use super::*;
use crate::wal::{
    inspect::{inspect, quarantine},
    recover::SegmentTail,
    segment::HEADER_BYTES,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use tempfile::TempDir;

mod fuzz;

const SMALL: u64 = 8 * 1024;
const EVENTS: RecordKind = RecordKind::Events;

/// A log in a folder of its own, opened and closed at will.
struct Rig {
    folder: TempDir,
    options: WalOptions,
    faults: Failpoints,
    clock: Clock,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = WalOptions {
            folder: folder.path().join("wal"),
            segment_bytes: SMALL,
            free_segments_max: 2,
            bytes_max: 1 << 30,
            disk_free_min: 0.0,
            position_floor: 0,
            metrics: Metrics::default(),
        };
        Self { folder, options, faults: Failpoints::default(), clock: Clock::manual(1_000) }
    }

    fn open(&self) -> (Wal, WalWriter) {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<(Wal, WalWriter), WalError> {
        Wal::open(self.options.clone(), self.clock.clone(), self.faults.clone())
    }

    fn script(mut self, script: &str) -> Self {
        self.faults = Failpoints::parse(script).unwrap();
        self
    }

    /// Names in the log's folder that start with `prefix` and end with `suffix`.
    fn files(&self, prefix: &str, suffix: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&self.options.folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with(prefix) && name.ends_with(suffix)
            })
            .collect();
        files.sort();
        files
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.files("", ".seg")
    }

    /// The same folder elsewhere, to damage it in many ways.
    fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = WalOptions { folder: folder.path().join("wal"), ..self.options.clone() };
        fs::create_dir(&options.folder).unwrap();
        for path in self.files("", "") {
            match fs::copy(&path, options.folder.join(path.file_name().unwrap())) {
                Ok(_) => (),
                // The thread that makes spare files has just renamed it.
                Err(gone) => assert_eq!(gone.kind(), io::ErrorKind::NotFound),
            }
        }
        Self { folder, options, faults: Failpoints::default(), clock: self.clock.clone() }
    }
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

fn record(namespace: &str, payload: &[u8]) -> LogRecord {
    LogRecord {
        kind: EVENTS,
        namespace: ns(namespace),
        first_seq: 7,
        rows: 3,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// A record whose payload has `bytes` bytes, none of them zero.
fn sized(namespace: &str, bytes: usize) -> LogRecord {
    record(namespace, &vec![0xAB; bytes])
}

/// Every record as position, namespace and payload.
fn contents(wal: &Wal) -> Vec<(LogPosition, String, Vec<u8>)> {
    let line = |record: RecordRef| {
        let payload = record.read().unwrap().to_vec();
        (record.position, record.namespace.text().to_owned(), payload)
    };
    wal.all_records(0).into_iter().map(line).collect()
}

fn texts(wal: &Wal) -> Vec<String> {
    contents(wal).into_iter().map(|(_, _, payload)| String::from_utf8(payload).unwrap()).collect()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn many_records_are_read_each_from_its_own_segment() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    for byte in 1..=12_u8 {
        writer.append(&[record("a", &[byte; 1_500])]).unwrap();
    }
    let records = wal.all_records(0);
    let segments: BTreeSet<_> = records.iter().map(|record| Arc::clone(&record.path)).collect();
    assert!(1 < segments.len() && segments.len() < records.len(), "{segments:?}");
    // Back and forth, so that each segment is opened more than once.
    let order: Vec<RecordRef> = records.iter().chain(records.iter().rev()).cloned().collect();
    let payloads = RecordRef::read_all(&order).unwrap();
    assert_eq!(payloads.len(), order.len());
    for (record, payload) in order.iter().zip(payloads) {
        let expected = u8::try_from(record.position).unwrap();
        assert_eq!(payload, [expected; 1_500].as_slice());
    }
    assert_eq!(RecordRef::read_all(&[]).unwrap(), Vec::<Bytes>::new());
    let first = &records[0];
    edit(&first.path, |bytes| bytes[usize::try_from(first.offset).unwrap()] ^= 1);
    assert!(matches!(RecordRef::read_all(&order), Err(WalError::Damaged { .. })));
    assert!(matches!(first.read(), Err(WalError::Damaged { .. })));
}

#[test]
fn a_list_of_many_records_is_whole_and_ends_where_it_should() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    let count = listing::LISTED_AT_ONCE as u64 * 2 + 3;
    let group: Vec<_> = (0..count).map(|_| sized("a", 10)).collect();
    writer.append(&group).unwrap();
    rig.clock.advance_ms(5);
    writer.append(&[sized("b", 10), sized("a", 10)]).unwrap();
    let positions = |after, bytes_max| {
        let (records, left) = wal.records_within(EVENTS, &ns("a"), after, bytes_max);
        let positions = records.iter().map(|record| record.position);
        (positions.collect::<Vec<_>>(), left.map(|left| (left.position, left.durable_ms)))
    };
    let all: Vec<_> = (1..=count).chain([count + 2]).collect();
    assert_eq!(positions(0, u64::MAX), (all.clone(), None));
    assert_eq!(positions(0, 10 * count + 10), (all.clone(), None));
    let last = Some((count + 2, 1_005));
    assert_eq!(positions(0, 10 * count), ((1..=count).collect(), last));
    assert_eq!(positions(3, 19), (vec![4], Some((5, 1_000))));
    assert_eq!(positions(3, 0), (vec![4], Some((5, 1_000))), "one record at least");
    assert_eq!(positions(count + 2, 0), (Vec::new(), None));
    let listed = wal.records(EVENTS, &ns("a"), 0).into_iter().map(|record| record.position);
    assert_eq!(listed.collect::<Vec<_>>(), all);

    assert_eq!(wal.first_position(EVENTS, &ns("a")), Some(1));
    wal.trim(EVENTS, &ns("a"), count).unwrap();
    assert_eq!(wal.first_position(EVENTS, &ns("a")), Some(count + 2));
    assert_eq!(wal.first_position(RecordKind::DeadLetters, &ns("a")), None);
}

#[test]
fn records_are_the_same_after_a_restart() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    let dead = LogRecord { kind: RecordKind::DeadLetters, ..record("b", b"") };
    assert_eq!(writer.append(&[record("a", b"one"), dead]).unwrap(), 2);
    rig.clock.advance_ms(5);
    assert_eq!(writer.append(&[record("a.b c", b"three")]).unwrap(), 3);
    let before = wal.all_records(0);
    assert_eq!(before[0].durable_ms, 1_000);
    assert_eq!(before[2].durable_ms, 1_005);
    drop((wal, writer));

    rig.clock.advance_ms(1_000);
    let (wal, mut writer) = rig.open();
    assert_eq!(wal.all_records(0), before);
    assert_eq!(*wal.durable().borrow(), 3);
    assert_eq!(texts(&wal), ["one", "", "three"]);
    assert_eq!(writer.append(&[record("a", b"four")]).unwrap(), 4);
    assert_eq!(wal.records(EVENTS, &ns("a"), 1)[0].position, 4);
    assert_eq!(wal.records(RecordKind::DeadLetters, &ns("b"), 0).len(), 1);
}

#[test]
fn a_group_becomes_visible_when_it_is_durable_and_all_at_once() {
    let rig = Rig::new().script("wal.after_sync=error@1");
    let (wal, mut writer) = rig.open();
    let mut durable = wal.durable();
    assert_eq!(writer.append(&[]).unwrap(), 0);
    writer.append(&[record("a", b"1"), record("b", b"2")]).unwrap();
    assert!(durable.has_changed().unwrap());
    assert_eq!(*durable.borrow_and_update(), 2);
    assert_eq!(wal.all_records(0).len(), 2);

    writer.append(&[record("a", b"3"), record("b", b"4")]).unwrap_err();
    assert!(!durable.has_changed().unwrap());
    assert_eq!(wal.all_records(0).len(), 2);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"kept")]).unwrap();
    let start = block_end(&wal);
    writer.append(&[sized("a", 40), sized("b", 64)]).unwrap();
    let end = block_end(&wal);
    drop((wal, writer));

    let path = Arc::new(rig.segments().remove(0));
    let whole = fs::read(path.as_path()).unwrap();
    assert_eq!(recover::scan(&whole, &path, 1, 0, None).records.len(), 3);
    let mut random = StdRng::seed_from_u64(1);
    for torn_at in start..end {
        let mut garbage = whole.clone();
        random.fill(&mut garbage[torn_at..end]);
        let mut zeros = whole.clone();
        zeros[torn_at..end].fill(0);
        for torn in [garbage, zeros, whole[..torn_at].to_vec()] {
            let scan = recover::scan(&torn, &path, 1, 0, None);
            assert_eq!(scan.end, start as u64, "torn at {torn_at}");
            assert!(!matches!(scan.tail, SegmentTail::Damaged { .. }), "torn at {torn_at}");
            if torn_at % 23 != 0 {
                continue;
            }
            let rig = rig.copy();
            fs::write(&rig.segments()[0], torn).unwrap();
            let (wal, mut writer) = rig.open();
            assert_eq!(texts(&wal), ["kept"], "torn at {torn_at}");
            assert_eq!(writer.append(&[record("a", b"next")]).unwrap(), 2);
            drop((wal, writer));
            assert_eq!(texts(&rig.open().0), ["kept", "next"], "torn at {torn_at}");
        }
    }
}

/// Where the last block ends, when its last payload needs no padding.
fn block_end(wal: &Wal) -> usize {
    let last = wal.all_records(0).pop().unwrap();
    (last.offset as usize + last.length as usize).next_multiple_of(block::ALIGN)
}

#[test]
fn a_tail_whose_later_parts_alone_reached_the_disk_is_cut() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"kept")]).unwrap();
    let start = block_end(&wal);
    writer.append(&[sized("a", 2_000)]).unwrap();
    drop((wal, writer));
    edit(&rig.segments()[0], |bytes| bytes[start..start + 512].fill(0));
    assert_eq!(texts(&rig.open().0), ["kept"]);
}

#[test]
fn damage_before_a_sound_block_is_refused_and_can_be_quarantined() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"one")]).unwrap();
    let start = block_end(&wal);
    writer.append(&[record("a", b"two")]).unwrap();
    let bad = block_end(&wal) - 8;
    writer.append(&[record("a", b"three")]).unwrap();
    drop((wal, writer));
    let segment = rig.segments().remove(0);
    let whole = fs::read(&segment).unwrap();
    // The head, and the payload.
    for flipped in [start + 20, bad] {
        let rig = rig.copy();
        let segment = rig.segments().remove(0);
        edit(&segment, |bytes| bytes[flipped] ^= 1);
        let damaged = fs::read(&segment).unwrap();
        for _ in 0..2 {
            match rig.try_open().unwrap_err() {
                WalError::Damaged { path, offset, .. } => {
                    assert_eq!((path, offset), (segment.clone(), start as u64));
                }
                other => panic!("{other}"),
            }
        }
        let report = inspect(&rig.options.folder).unwrap();
        assert!(matches!(&report.segments[0].tail, SegmentTail::Damaged { .. }), "{report:?}");
        assert_eq!(report.segments[0].end, start as u64);
        assert_eq!(report.tables[0].records, 1);
        assert_eq!(fs::read(&segment).unwrap(), damaged, "inspect changes nothing");

        let cut = quarantine(&rig.options.folder).unwrap();
        assert_eq!(cut.len(), 1);
        assert_eq!((cut[0].offset, cut[0].records_kept), (start as u64, 1));
        assert_eq!(fs::read(&cut[0].copy).unwrap(), damaged);
        let (wal, mut writer) = rig.open();
        assert_eq!(texts(&wal), ["one"]);
        writer.append(&[record("a", b"new")]).unwrap();
        drop((wal, writer));
        assert_eq!(texts(&rig.open().0), ["one", "new"]);
        assert!(quarantine(&rig.options.folder).unwrap().is_empty());
    }
    assert_eq!(fs::read(&segment).unwrap(), whole);
}

#[test]
fn a_bad_last_block_of_an_earlier_segment_is_damage() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"one")]).unwrap();
    let start = block_end(&wal);
    writer.append(&[record("a", b"two")]).unwrap();
    drop((wal, writer));
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"three")]).unwrap();
    drop((wal, writer));
    let segment = rig.segments().remove(0);
    edit(&segment, |bytes| bytes[start + 60] ^= 0xFF);
    let error = rig.try_open().unwrap_err();
    assert!(
        matches!(&error, WalError::Damaged { path, offset, .. }
            if *path == segment && *offset == start as u64),
        "{error}"
    );
    quarantine(&rig.options.folder).unwrap();
    assert_eq!(texts(&rig.open().0), ["one", "three"]);
}

#[test]
fn a_sound_block_in_the_wrong_place_is_damage() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"one")]).unwrap();
    let (start, end) = (HEADER_BYTES as usize, block_end(&wal));
    writer.append(&[record("a", b"two")]).unwrap();
    drop((wal, writer));
    let second = end..2 * end - start;
    // Exchanged, the first lost to a copy of the second, and the second to one of the first.
    type Harm = fn(&mut [u8], usize);
    let harms: [(Harm, usize); 3] = [
        (|both, half| both.rotate_left(half), start),
        (|both, half| both.copy_within(half.., 0), start),
        (|both, half| both.copy_within(..half, half), end),
    ];
    for (harm, place) in harms {
        let rig = rig.copy();
        edit(&rig.segments()[0], |bytes| harm(&mut bytes[start..second.end], end - start));
        match rig.try_open() {
            Err(WalError::Damaged { offset, .. }) => assert_eq!(offset, place as u64),
            Err(other) => panic!("{other}"),
            Ok((wal, _)) => panic!("only {:?} is left, and nobody is told", texts(&wal)),
        }
    }
}

#[test]
fn a_quarantined_segment_stays_cut_when_the_one_after_it_goes() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"one")]).unwrap();
    let start = block_end(&wal);
    writer.append(&[record("a", b"two")]).unwrap();
    drop((wal, writer));
    let (wal, mut writer) = rig.open();
    writer.append(&[record("b", b"three")]).unwrap();
    drop((wal, writer));
    edit(&rig.segments()[0], |bytes| bytes[start + 60] ^= 1);
    quarantine(&rig.options.folder).unwrap();
    let (wal, writer) = rig.open();
    wal.set_keep_after(3);
    wal.trim(EVENTS, &ns("b"), 3).unwrap();
    drop((wal, writer));
    assert_eq!(texts(&rig.open().0), ["one"]);
}

#[test]
fn a_segment_without_a_sound_header_is_refused_and_can_be_quarantined() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"one")]).unwrap();
    drop((wal, writer));
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"two")]).unwrap();
    drop((wal, writer));
    let segment = rig.segments().remove(1);
    edit(&segment, |bytes| bytes[30] ^= 1);
    let error = rig.try_open().unwrap_err();
    assert!(
        matches!(&error, WalError::Damaged { path, offset: 0, .. } if *path == segment),
        "{error}"
    );
    let cut = quarantine(&rig.options.folder).unwrap();
    assert!(cut[0].copy.exists());
    assert_eq!(texts(&rig.open().0), ["one"]);
}

#[test]
fn blocks_of_a_recycled_files_former_life_do_not_count() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    for _ in 0..40 {
        writer.append(&[sized("old", 900)]).unwrap();
    }
    wal.set_keep_after(40);
    wal.trim(EVENTS, &ns("old"), 40).unwrap();
    // Goes on until a small block is in a recycled file, where many old blocks lie behind it.
    let stale = |bytes: &[u8]| bytes.windows(8).filter(|part| *part == b"\x89ICEBLK\n").count();
    loop {
        let last = writer.append(&[sized("old", 900)]).unwrap();
        assert!(last < 100, "no recycled file was used");
        let bytes = fs::read(rig.segments().pop().unwrap()).unwrap();
        if 1 < stale(&bytes[block_end(&wal)..]) {
            break;
        }
    }
    let last = *wal.durable().borrow();
    wal.set_keep_after(last - 1);
    wal.trim(EVENTS, &ns("old"), last - 1).unwrap();
    drop((wal, writer));

    let (wal, _writer) = rig.open();
    let positions: Vec<_> = wal.all_records(0).iter().map(|record| record.position).collect();
    assert_eq!(positions.last(), Some(&last));
    assert!(positions.is_sorted() && positions.windows(2).all(|two| two[0] < two[1]));
    let report = inspect_open(&rig);
    assert!(report.segments.iter().all(|segment| segment.tail == SegmentTail::Clean), "{report:?}");
}

/// Inspects a copy, because the log itself is open.
fn inspect_open(rig: &Rig) -> inspect::LogReport {
    inspect(&rig.copy().options.folder).unwrap()
}

#[test]
fn a_log_runs_over_many_segments_and_comes_back_whole() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    let mut expected = Vec::new();
    for number in 1..=100_u64 {
        let payload = format!("{number}").repeat(200).into_bytes();
        assert_eq!(writer.append(&[record("a", &payload)]).unwrap(), number);
        expected.push((number, "a".to_owned(), payload));
    }
    assert!(10 < rig.segments().len());
    assert_eq!(contents(&wal), expected);
    drop((wal, writer));
    assert_eq!(contents(&rig.open().0), expected);
}

#[test]
fn a_group_larger_than_a_segment_gets_a_segment_of_its_size() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"small")]).unwrap();
    writer.append(&[sized("a", 50_000), sized("a", 7)]).unwrap();
    writer.append(&[record("a", b"after")]).unwrap();
    let before = contents(&wal);
    drop((wal, writer));
    let (wal, _writer) = rig.open();
    assert_eq!(contents(&wal), before);
    assert_eq!(before.len(), 4);
    // Too large to be used again: it is deleted.
    wal.set_keep_after(4);
    wal.trim(EVENTS, &ns("a"), 4).unwrap();
    let sizes: Vec<_> = rig.files("", "").iter().map(|p| p.metadata().unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size <= SMALL), "{sizes:?}");
}

#[test]
fn a_segment_is_recycled_when_every_table_is_trimmed() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    writer.append(&[sized("a", 1_500), sized("b", 1_500)]).unwrap();
    writer.append(&[sized("a", 3_500)]).unwrap();
    let first = rig.segments().remove(0);
    assert_eq!(wal.bytes(), 6_500);
    wal.trim(EVENTS, &ns("a"), 1).unwrap();
    assert_eq!(wal.bytes(), 5_000);
    assert!(first.exists());
    assert_eq!(wal.records(EVENTS, &ns("a"), 0).len(), 1);
    assert_eq!(wal.records(EVENTS, &ns("b"), 0).len(), 1);
    let mut pending = wal.pending();
    pending.sort_by(|left, right| left.namespace.cmp(&right.namespace));
    let lines: Vec<_> = pending.iter().map(|p| (p.namespace.text(), p.last, p.bytes)).collect();
    assert_eq!(lines, [("a", 3, 3_500), ("b", 2, 1_500)]);
    assert!(pending.iter().all(|pending| pending.oldest_ms == 1_000));

    wal.trim(EVENTS, &ns("b"), 2).unwrap();
    assert!(!first.exists());
    // A spare file may be there as well.
    assert!(!rig.files("free-", "").is_empty());
    assert_eq!(wal.bytes(), 3_500);
    // The segment that is being written stays.
    wal.trim(EVENTS, &ns("a"), 3).unwrap();
    assert_eq!(rig.segments().len(), 1);
    assert!(wal.pending().is_empty());
    // At most `free_segments_max` files are kept.
    for _ in 0..6 {
        writer.append(&[sized("a", 3_500)]).unwrap();
    }
    wal.trim(EVENTS, &ns("a"), 9).unwrap();
    drop(writer);
    assert_eq!(rig.files("free-", "").len(), 2);
}

#[test]
fn a_pin_holds_the_segments_it_saw() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    let pin = wal.pin();
    writer.append(&[sized("a", 3_500)]).unwrap();
    writer.append(&[sized("a", 3_500)]).unwrap();
    let records = wal.records(EVENTS, &ns("a"), 0);
    wal.trim(EVENTS, &ns("a"), 2).unwrap();
    assert!(wal.records(EVENTS, &ns("a"), 0).is_empty());
    let later = wal.pin();
    for _ in 0..5 {
        writer.append(&[sized("b", 3_500)]).unwrap();
    }
    assert_eq!(records[0].read().unwrap().len(), 3_500);
    drop(pin);
    wal.trim(EVENTS, &ns("a"), 2).unwrap();
    assert!(matches!(records[0].read().unwrap_err(), WalError::Io { .. }));
    drop(later);
}

#[test]
fn what_a_pin_held_while_it_was_trimmed_is_given_up_on_demand() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    for _ in 0..3 {
        writer.append(&[sized("a", 3_500)]).unwrap();
    }
    let pin = wal.pin();
    wal.trim(EVENTS, &ns("a"), 2).unwrap();
    wal.give_up_free();
    assert_eq!(rig.segments().len(), 3);
    // The writer's thread may be making a spare file, which no caller waits for.
    drop((pin, writer));
    wal.give_up_free();
    assert_eq!(rig.segments().len(), 1);
    assert!(rig.files("free-", "").is_empty());
}

/// How many files of the log have these bytes.
fn files_with(rig: &Rig, bytes: &[u8]) -> usize {
    // A file that is renamed meanwhile is a spare one, and has zeros.
    let has = |path: &&PathBuf| {
        fs::read(path).is_ok_and(|read| read.windows(bytes.len()).any(|part| part == bytes))
    };
    rig.files("", "").iter().filter(has).count()
}

/// Calls the writer until its part of a purge is done.
fn purge(writer: &mut WalWriter) {
    while writer.purge().unwrap() {
        std::thread::yield_now();
    }
}

const SECRET: &[u8] = b"what is to be gone";

#[test]
fn a_purge_leaves_no_file_with_bytes_of_records_of_before() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    for _ in 0..9 {
        writer.append(&[record("a", &SECRET.repeat(100))]).unwrap();
    }
    writer.append(&[record("b", b"of another table")]).unwrap();
    let through = *wal.durable().borrow();
    wal.trim(EVENTS, &ns("a"), through).unwrap();
    assert!(1 < files_with(&rig, SECRET), "files that wait to be segments have them as well");
    assert!(!wal.purge(through));
    purge(&mut writer);
    assert!(!wal.purge(through), "a row that no table has keeps its segment");
    assert!(wal.pending().iter().all(|pending| pending.is_purged));
    writer.append(&[record("b", b"later")]).unwrap();
    let pin = wal.pin();
    wal.trim(EVENTS, &ns("b"), through).unwrap();
    purge(&mut writer);
    assert!(!wal.purge(through), "a reader holds it");
    assert!(wal.pending().iter().all(|pending| !pending.is_purged));
    drop(pin);
    purge(&mut writer);
    assert!(wal.purge(through));
    assert_eq!(files_with(&rig, SECRET), 0);
    drop((wal, writer));
    assert_eq!(texts(&rig.open().0), ["later"]);
}

#[test]
fn a_purge_lets_no_append_wait_for_others_who_remove_segments() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    writer.append(&[record("a", SECRET)]).unwrap();
    wal.trim(EVENTS, &ns("a"), 1).unwrap();
    let removing = wal.inner.removal.lock().unwrap();
    assert!(!wal.purge(1));
    // It ends, and begins nothing.
    purge(&mut writer);
    assert_eq!(files_with(&rig, SECRET), 1);
    drop(removing);
    purge(&mut writer);
    assert!(wal.purge(1));
    assert_eq!(files_with(&rig, SECRET), 0);
}

#[test]
fn a_purge_goes_on_from_when_it_is_asked_for_until_its_segments_are_gone() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    writer.append(&[record("a", SECRET)]).unwrap();
    assert!(!wal.inner.is_purging());
    assert!(!wal.purge(1) && wal.inner.is_purging());
    purge(&mut writer);
    assert!(wal.inner.is_purging(), "a row that no table has keeps its segment");
    wal.trim(EVENTS, &ns("a"), 1).unwrap();
    purge(&mut writer);
    assert!(wal.purge(1) && !wal.inner.is_purging());
    // What is asked for later is another one.
    writer.append(&[record("a", SECRET)]).unwrap();
    assert!(!wal.purge(2) && wal.inner.is_purging());
    wal.trim(EVENTS, &ns("a"), 2).unwrap();
    purge(&mut writer);
    assert!(wal.purge(2) && !wal.inner.is_purging());
    assert_eq!(files_with(&rig, SECRET), 0);
}

#[test]
fn a_purge_takes_what_a_segment_has_of_its_files_former_life() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    for _ in 0..9 {
        writer.append(&[record("a", &SECRET.repeat(100))]).unwrap();
    }
    wal.trim(EVENTS, &ns("a"), 9).unwrap();
    assert!(!wal.purge(9));
    // As after a crash: nothing tells any more that a purge went on.
    drop((wal, writer));
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    wal.trim(EVENTS, &ns("a"), 9).unwrap();
    assert!(wal.all_records(0).is_empty());
    assert!(0 < files_with(&rig, SECRET));
    assert!(!wal.purge(9));
    purge(&mut writer);
    assert!(wal.purge(9));
    assert_eq!(files_with(&rig, SECRET), 0);
    // What was asked for is done once, and files are used again.
    let segments = rig.segments();
    purge(&mut writer);
    assert_eq!(rig.segments(), segments);
    for _ in 0..9 {
        writer.append(&[sized("a", 3_500)]).unwrap();
    }
    let last = *wal.durable().borrow();
    wal.trim(EVENTS, &ns("a"), last).unwrap();
    drop(writer);
    let free = rig.files("free-", "");
    assert!(free.iter().any(|path| fs::read(path).unwrap().contains(&0xAB)), "{free:?}");
}

#[test]
fn keep_after_keeps_trimmed_segments_for_the_next_start() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    for _ in 0..4 {
        writer.append(&[sized("a", 3_500)]).unwrap();
    }
    wal.trim(EVENTS, &ns("a"), 4).unwrap();
    assert_eq!(rig.segments().len(), 4);
    assert!(wal.records(EVENTS, &ns("a"), 0).is_empty());
    assert_eq!(wal.all_records(1).len(), 3);
    wal.set_keep_after(2);
    wal.trim(EVENTS, &ns("a"), 4).unwrap();
    assert_eq!(rig.segments().len(), 2);
    drop((wal, writer));
    let (wal, _writer) = rig.open();
    let positions: Vec<_> = wal.all_records(0).iter().map(|record| record.position).collect();
    assert_eq!(positions, [3, 4]);
    assert_eq!(wal.bytes(), 7_000, "trims are known to the caller only");
}

#[test]
fn positions_go_on_behind_the_floor_and_are_never_given_twice() {
    let mut rig = Rig::new();
    rig.options.position_floor = 100;
    let (wal, mut writer) = rig.open();
    assert_eq!(*wal.durable().borrow(), 100);
    assert_eq!(writer.append(&[record("a", b"1"), record("a", b"2")]).unwrap(), 102);
    drop((wal, writer));
    rig.options.position_floor = 50;
    let (wal, mut writer) = rig.open();
    assert_eq!(writer.append(&[record("a", b"3")]).unwrap(), 103);
    wal.set_keep_after(103);
    wal.trim(EVENTS, &ns("a"), 103).unwrap();
    drop((wal, writer));
    // Only an empty segment is left after this, and it knows where it began.
    let (wal, writer) = rig.open();
    wal.set_keep_after(103);
    wal.trim(EVENTS, &ns("a"), 103).unwrap();
    assert_eq!(rig.segments().len(), 1);
    drop((wal, writer));
    rig.options.position_floor = 0;
    assert_eq!(rig.open().1.append(&[record("a", b"4")]).unwrap(), 104);
}

#[test]
fn a_failed_group_is_gone_and_the_log_goes_on() {
    for point in ["wal.before_write", "wal.after_write", "wal.after_sync"] {
        for first in [true, false] {
            let skip = if first { 0 } else { 1 };
            let rig = Rig::new().script(&format!("{point}=error@{skip}*3"));
            let (wal, mut writer) = rig.open();
            let mut expected = Vec::new();
            if !first {
                writer.append(&[record("a", b"before")]).unwrap();
                expected.push("before");
            }
            for _ in 0..3 {
                let error = writer.append(&[record("a", b"failed")]).unwrap_err();
                assert!(matches!(error, WalError::Io { .. }), "{error}");
                assert_eq!(texts(&wal), expected, "{point}");
                // Nor does it come back when the process ends here.
                assert_eq!(texts(&rig.copy().open().0), expected, "{point}");
            }
            let next = writer.append(&[record("a", b"after")]).unwrap();
            expected.push("after");
            assert_eq!(next, expected.len() as u64);
            assert_eq!(texts(&wal), expected);
            drop((wal, writer));
            assert_eq!(texts(&rig.open().0), expected, "{point}");
        }
    }
}

#[test]
fn a_failed_group_that_could_not_be_cut_off_does_not_come_back() {
    let rig = Rig::new().script("wal.after_sync=error@1");
    let (wal, mut writer) = rig.open();
    writer.append(&[record("stuck", b"before")]).unwrap();
    let segment = rig.segments().remove(0);
    let end = block_end(&wal);
    writer.append(&[record("a", b"failed")]).unwrap_err();
    writer.append(&[record("a", b"after")]).unwrap();
    // What the disk would hold if the cut had failed: the group, whole.
    let path = Arc::new(segment.clone());
    let bytes = fs::read(&segment).unwrap();
    let owner = recover::scan(&bytes, &path, 1, 0, None).header.unwrap().owner;
    let mut block = Vec::new();
    block::encode(&mut block, owner, 2, 1_000, &[record("a", b"failed")]);
    edit(&segment, |bytes| {
        assert_eq!(bytes.len(), end);
        bytes.extend_from_slice(&block);
    });
    let scan = recover::scan(&fs::read(&segment).unwrap(), &path, 1, 0, None);
    assert_eq!(scan.records.len(), 2, "by itself it is sound");
    assert_eq!(texts(&rig.copy().open().0), ["before", "after"]);

    // Nor when the segment that says so goes before it, as when commits of "stuck" fail for long.
    writer.append(&[record("b", &[b'x'; 6_000])]).unwrap();
    wal.set_keep_after(LogPosition::MAX);
    let second = rig.segments().remove(1);
    wal.trim(EVENTS, &ns("a"), 2).unwrap();
    assert!(segment.exists() && !second.exists());
    wal.trim(EVENTS, &ns("b"), 3).unwrap();
    drop((wal, writer));
    let (wal, _writer) = rig.open();
    assert_eq!(texts(&wal)[0], "before");
    assert!(!texts(&wal).contains(&"failed".to_owned()));
}

#[test]
fn an_error_after_publishing_is_too_late_to_count() {
    let rig = Rig::new().script("wal.after_publish=error;wal.after_trim=error");
    let (wal, mut writer) = rig.open();
    assert_eq!(writer.append(&[record("a", b"1")]).unwrap(), 1);
    assert_eq!(texts(&wal), ["1"]);
    wal.trim(EVENTS, &ns("a"), 1).unwrap_err();
    assert_eq!(wal.bytes(), 0);
}

#[test]
fn failing_segments_do_not_pile_up() {
    let rig = Rig::new().script("wal.after_write=error*50");
    let (wal, mut writer) = rig.open();
    for _ in 0..50 {
        writer.append(&[record("a", b"failed")]).unwrap_err();
    }
    assert_eq!(writer.append(&[record("a", b"1")]).unwrap(), 1);
    wal.trim(EVENTS, &ns("a"), 0).unwrap();
    assert_eq!(rig.segments().len(), 1);
}

#[test]
fn a_full_log_takes_nothing_until_it_is_trimmed() {
    let mut rig = Rig::new();
    rig.options.bytes_max = 5_000;
    let (wal, mut writer) = rig.open();
    writer.append(&[sized("a", 3_000)]).unwrap();
    let error = writer.append(&[sized("a", 2_001)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the log is full: 3000 bytes are waiting to be committed, 2001 more would exceed the limit of 5000"
    );
    assert_eq!(wal.bytes(), 3_000);
    wal.trim(EVENTS, &ns("a"), 1).unwrap();
    assert_eq!(writer.append(&[sized("a", 2_001)]).unwrap(), 2);
}

#[test]
fn a_disk_without_room_is_full() {
    let mut rig = Rig::new();
    rig.options.disk_free_min = 1.0;
    let (wal, mut writer) = rig.open();
    for _ in 0..2 {
        let error = writer.append(&[record("a", b"1")]).unwrap_err();
        assert!(matches!(error, WalError::Full { .. }), "{error}");
    }
    assert!(wal.all_records(0).is_empty());
}

#[test]
fn a_disk_without_room_gets_back_what_is_kept_for_reuse() {
    let mut rig = Rig::new();
    rig.options.disk_free_min = 1.0;
    let folder = rig.options.folder.clone();
    std::fs::create_dir_all(&folder).unwrap();
    for number in 1..=2 {
        let file = std::fs::File::create(folder.join(format!("free-{number:020}"))).unwrap();
        file.set_len(rig.options.segment_bytes).unwrap();
    }
    let free = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("free-")).count()
    };
    let (_wal, mut writer) = rig.open();
    assert_eq!(free(), 1, "the other one is the first segment");
    writer.append(&[record("a", b"1")]).unwrap_err();
    assert_eq!(free(), 0);
}

#[test]
fn a_log_opens_once() {
    let rig = Rig::new();
    let (wal, writer) = rig.open();
    let in_use = |error: WalError| matches!(error, WalError::InUse { .. });
    assert!(in_use(rig.try_open().unwrap_err()));
    assert!(in_use(inspect(&rig.options.folder).unwrap_err()));
    assert!(in_use(quarantine(&rig.options.folder).unwrap_err()));
    drop((wal, writer));
    rig.open();
}

#[test]
fn inspect_tells_what_is_there() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("b", b"12345"), record("a", b"1")]).unwrap();
    writer.append(&[record("b", b"123")]).unwrap();
    let end = block_end(&wal) as u64;
    drop((wal, writer));
    edit(&rig.segments()[0], |bytes| {
        let copy = bytes[HEADER_BYTES as usize..HEADER_BYTES as usize + 40].to_vec();
        bytes[end as usize..end as usize + 40].copy_from_slice(&copy);
    });
    let report = inspect(&rig.options.folder).unwrap();
    assert_eq!(report.segments.len(), 1);
    let segment = &report.segments[0];
    assert_eq!((segment.generation, segment.records, segment.end), (1, 3, end));
    assert_eq!(segment.positions, Some((1, 3)));
    assert!(matches!(segment.tail, SegmentTail::Torn { .. }), "{segment:?}");
    let tables: Vec<_> = report
        .tables
        .iter()
        .map(|table| (table.namespace.text(), table.records, table.rows, table.bytes))
        .collect();
    assert_eq!(tables, [("a", 1, 3, 1), ("b", 2, 6, 8)]);
    assert_eq!(report.tables[1].positions, (1, 3));
}

#[test]
fn a_damaged_payload_is_not_handed_out() {
    let rig = Rig::new();
    let (wal, mut writer) = rig.open();
    writer.append(&[record("a", b"payload")]).unwrap();
    let record = wal.all_records(0).remove(0);
    edit(&record.path, |bytes| bytes[record.offset as usize] ^= 1);
    assert!(matches!(record.read().unwrap_err(), WalError::Damaged { offset, .. }
        if offset == record.offset));
}

#[test]
fn interrupted_files_are_removed_and_free_ones_used() {
    let mut rig = Rig::new();
    drop(rig.open());
    let folder = rig.options.folder.clone();
    fs::write(folder.join("zero-00000000000000000009"), b"half").unwrap();
    fs::write(folder.join("free-00000000000000000008"), b"wrong size").unwrap();
    fs::write(folder.join("notes.txt"), b"not ours").unwrap();
    rig.options.free_segments_max = 1;
    drop(rig.open());
    assert_eq!(rig.segments().len(), 1);
    assert!(rig.files("zero-", "").is_empty());
    assert!(rig.files("free-", "").len() <= 1);
    assert!(folder.join("notes.txt").exists());
    assert!(rig.folder.path().exists());
}

/// Kills at random: what was acknowledged is there, in order, and a tail that was not is either
/// there whole or not at all.
#[test]
fn acknowledged_groups_survive_random_kills() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::new();
        let mut acknowledged: BTreeMap<LogPosition, Vec<u8>> = BTreeMap::new();
        let mut trimmed = 0;
        for _ in 0..6 {
            let (wal, mut writer) = rig.open();
            let found: BTreeMap<_, _> =
                contents(&wal).into_iter().map(|(position, _, bytes)| (position, bytes)).collect();
            assert!(found.keys().eq(acknowledged.keys()), "seed {seed}");
            assert!(found == acknowledged, "seed {seed}: a payload differs");
            for _ in 0..random.random_range(0..12) {
                let group: Vec<_> = (0..random.random_range(1..4))
                    .map(|_| {
                        let mut payload = vec![0; random.random_range(0..1_500)];
                        random.fill(&mut payload[..]);
                        record(["a", "b"][random.random_range(0..2)], &payload)
                    })
                    .collect();
                let last = writer.append(&group).unwrap();
                let positions = last + 1 - group.len() as u64..=last;
                acknowledged.extend(positions.zip(group.iter().map(|r| r.payload.to_vec())));
                if random.random_bool(0.2) {
                    let through = random.random_range(0..=last);
                    wal.set_keep_after(through);
                    wal.trim(EVENTS, &ns("a"), through).unwrap();
                    wal.trim(EVENTS, &ns("b"), through).unwrap();
                    trimmed = trimmed.max(through);
                }
            }
            // Trimmed records go with their segments, others stay.
            let kept: BTreeSet<_> = wal.all_records(0).iter().map(|r| r.position).collect();
            acknowledged.retain(|position, _| trimmed < *position || kept.contains(position));
            let copy = rig.copy();
            let end = wal.all_records(0).last().map(|record| {
                let end = record.offset as usize + record.length as usize;
                (record.path.file_name().unwrap().to_owned(), end.next_multiple_of(8))
            });
            drop((wal, writer));
            // The process died while it wrote the next group: parts of it are on disk.
            let current = copy.segments().pop().unwrap();
            let from = match end {
                Some((name, end)) if current.file_name().unwrap() == name => end,
                _ => HEADER_BYTES as usize,
            };
            edit(&current, |bytes| {
                let length = random.random_range(0..=(bytes.len() - from).min(2_000));
                let header = fs::read(&current).unwrap();
                let path = Arc::new(current.clone());
                let number = current.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                let scan = recover::scan(&header, &path, number, 0, None);
                let mut block = Vec::new();
                let owner = scan.header.unwrap().owner;
                let position = scan.last_position() + 1;
                block::encode(&mut block, owner, position, 0, &[sized("a", 2_000)]);
                bytes[from..from + length].copy_from_slice(&block[..length]);
            });
            rig = copy;
        }
    }
}

fn failing(namespace: &str, is_lasting: bool) -> quota::StuckTable {
    let (namespace, reason) = (ns(namespace), "gone".to_owned());
    quota::StuckTable { kind: EVENTS, namespace, since_ms: 1, reason, is_lasting }
}

#[test]
fn a_table_at_fault_takes_an_eighth_of_the_log_and_the_others_go_on() {
    let mut rig = Rig::new();
    rig.options.bytes_max = 32 * SMALL;
    let (wal, mut writer) = rig.open();
    let room = |namespace: &str| wal.check_room([&ns("well"), &ns(namespace)].into_iter());
    for _ in 0..32 {
        writer.append(&[sized("a", 1024)]).unwrap();
    }
    // Where the store fails, the log is there to bridge that.
    wal.note_failing(failing("a", false));
    room("a").unwrap();
    wal.note_failing(failing("a", true));
    let held = room("a").unwrap_err();
    assert!(matches!(&held, WalError::Held { reason, .. } if reason == "gone"), "{held}");
    room("b").unwrap();
    assert_eq!(wal.failing().len(), 1);
    wal.note_flushed(EVENTS, &ns("a"));
    room("a").unwrap();
    wal.note_failing(failing("a", true));
    room("a").unwrap_err();
    let last = *wal.durable().borrow();
    wal.trim(EVENTS, &ns("a"), last - 8).unwrap();
    room("a").unwrap();
    assert_eq!(wal.failing().len(), 1);
    wal.trim(EVENTS, &ns("a"), last).unwrap();
    assert_eq!(wal.failing(), []);
}

#[test]
fn a_few_bytes_in_each_segment_count_as_the_segments() {
    let mut rig = Rig::new();
    rig.options.bytes_max = 32 * SMALL;
    let (wal, mut writer) = rig.open();
    wal.set_keep_after(LogPosition::MAX);
    let mut rounds = 0;
    writer.append(&[sized("a", 8)]).unwrap();
    wal.note_failing(failing("a", true));
    while wal.check_room([&ns("a")].into_iter()).is_ok() {
        rounds += 1;
        let position = writer.append(&[sized("a", 8), sized("b", 6 * 1024)]).unwrap();
        wal.trim(EVENTS, &ns("b"), position).unwrap();
        assert!(rounds < 8, "{rounds}");
    }
    assert_eq!(rounds, 4);
    assert!(rig.segments().len() < 8);
    // What leaves the log gives the room back.
    wal.trim(EVENTS, &ns("a"), 4).unwrap();
    wal.check_room([&ns("a")].into_iter()).unwrap();
}

#[test]
fn all_tables_at_fault_take_half_of_the_log() {
    let mut rig = Rig::new();
    rig.options.bytes_max = 32 * SMALL;
    let (wal, mut writer) = rig.open();
    let names: Vec<String> = (0..6).map(|n| format!("n{n}")).collect();
    for name in &names {
        // Less than an eighth each.
        for _ in 0..3 {
            writer.append(&[sized(name, 7 * 1024)]).unwrap();
        }
    }
    for name in &names {
        wal.check_room([&ns(name)].into_iter()).unwrap();
        wal.note_failing(failing(name, true));
    }
    for name in &names {
        wal.check_room([&ns(name)].into_iter()).unwrap_err();
    }
    wal.check_room([&ns("well")].into_iter()).unwrap();
}
