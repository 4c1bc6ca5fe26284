//! Fuzz test of recovery: whatever happens to the files of a log, an acknowledged block that is
//! whole on disk is found again, or the start is refused with the file and the place. How to run
//! it for longer: crate `icecore-fuzz`.

use super::*;
use icecore_fuzz::{pick, run};
use std::ops::Range;

/// A block of a log as it was written.
#[derive(Clone)]
struct Written {
    /// The segment's number.
    generation: u64,
    range: Range<usize>,
    records: Vec<(LogPosition, String, Vec<u8>)>,
}

/// A log that was closed, and what is in it.
struct Base {
    rig: Rig,
    blocks: Vec<Written>,
    /// The segments' bytes by number.
    files: BTreeMap<u64, Vec<u8>>,
}

/// What is done to the files.
#[derive(Clone, Debug)]
enum Harm {
    Flip {
        file: u64,
        at: usize,
        bit: u8,
    },
    Fill {
        file: u64,
        range: Range<usize>,
        byte: Option<u8>,
    },
    Truncate {
        file: u64,
        at: usize,
    },
    /// Copies a range, mostly a block, over another place.
    Copy {
        from: (u64, Range<usize>),
        file: u64,
        at: usize,
    },
    /// Exchanges two ranges of a file.
    Swap {
        file: u64,
        first: Range<usize>,
        second: Range<usize>,
    },
    /// Puts one segment's bytes in place of another's, or beside them as a new one.
    Duplicate {
        from: u64,
        to: u64,
    },
    /// Exchanges two segments.
    Exchange {
        one: u64,
        other: u64,
    },
    /// A new segment of these many bytes of nothing.
    Garbage {
        to: u64,
        bytes: usize,
    },
}

#[derive(Debug)]
struct Case {
    base: usize,
    harms: Vec<Harm>,
}

#[test]
fn fuzz_a_damaged_log_gives_what_is_whole_or_is_refused() {
    let bases: Vec<Base> = (0..12).map(base).collect();
    run(
        200,
        |random| {
            let number = random.random_range(0..bases.len());
            let harms = (0..random.random_range(1..3)).map(|_| harm(random, &bases[number]));
            Case { base: number, harms: harms.collect() }
        },
        |case, _| check(&bases[case.base], &case.harms),
    );
}

/// A log of some groups, restarts and trims.
fn base(seed: u64) -> Base {
    let mut random = StdRng::seed_from_u64(seed);
    let rig = Rig::new();
    for _ in 0..random.random_range(1..4) {
        let (wal, mut writer) = rig.open();
        for _ in 0..random.random_range(1..9) {
            let group: Vec<LogRecord> = (0..random.random_range(1..4))
                .map(|_| {
                    let mut payload = vec![0; *pick(&mut random, &[0, 8, 64, 64, 900, 5_000])];
                    random.fill(&mut payload[..]);
                    record(["a", "b", "long.name"][random.random_range(0..3)], &payload)
                })
                .collect();
            let last = writer.append(&group).unwrap();
            if random.random_bool(0.1) {
                let through = random.random_range(0..=last);
                wal.set_keep_after(through);
                for name in ["a", "b", "long.name"] {
                    wal.trim(EVENTS, &ns(name), through).unwrap();
                }
            }
        }
    }
    let files: BTreeMap<u64, Vec<u8>> =
        rig.segments().iter().map(|path| (number(path), fs::read(path).unwrap())).collect();
    let blocks = blocks(&rig, &files);
    Base { rig, blocks, files }
}

fn number(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// What a sound log holds, block by block.
fn blocks(rig: &Rig, files: &BTreeMap<u64, Vec<u8>>) -> Vec<Written> {
    let copy = rig.copy();
    let (wal, _writer) = copy.open();
    let mut records: BTreeMap<LogPosition, _> = contents(&wal)
        .into_iter()
        .map(|(position, name, payload)| (position, (position, name, payload)))
        .collect();
    let mut blocks = Vec::new();
    for (generation, bytes) in files {
        let owner = segment::SegmentHeader::decode(bytes).unwrap().owner;
        let mut start = HEADER_BYTES as usize;
        while let Ok(block) = block::decode(&bytes[start..], owner) {
            let last = block.first_position + block.entries.len() as u64;
            let records = (block.first_position..last).map(|at| records.remove(&at).unwrap());
            let range = start..start + block.length;
            start = range.end;
            blocks.push(Written { generation: *generation, range, records: records.collect() });
        }
    }
    assert!(records.is_empty() && !blocks.is_empty());
    blocks
}

fn harm(random: &mut StdRng, base: &Base) -> Harm {
    let numbers: Vec<u64> = base.files.keys().copied().collect();
    let file = *pick(random, &numbers);
    let new = numbers.last().unwrap() + random.random_range(1..3);
    let at = |random: &mut StdRng| {
        let ends = base.blocks.iter().filter(|block| block.generation == file);
        let end = ends.map(|block| block.range.end).max().unwrap_or(HEADER_BYTES as usize);
        // Mostly where something is.
        match random.random_range(0..8) {
            0 => random.random_range(0..base.files[&file].len()),
            1 => random.random_range(0..600),
            2 => end - random.random_range(0..72),
            _ => random.random_range(HEADER_BYTES as usize - 8..end),
        }
    };
    let block = pick(random, &base.blocks);
    match random.random_range(0..10) {
        0 | 1 => Harm::Flip { file, at: at(random), bit: random.random_range(0..8) },
        2 | 3 => {
            let start = at(random);
            let end = start + random.random_range(1..200);
            let byte = *pick(random, &[Some(0), Some(0xFF), None]);
            Harm::Fill { file, range: start..end.min(base.files[&file].len()), byte }
        }
        4 => Harm::Truncate { file, at: at(random) },
        5 => {
            let other = pick(random, &base.blocks);
            let past_end = random.random_bool(0.3);
            let at = if past_end { other.range.end } else { other.range.start };
            let from = (block.generation, block.range.clone());
            Harm::Copy { from, file: other.generation, at }
        }
        6 => {
            let others: Vec<_> = base
                .blocks
                .iter()
                .filter(|other| other.generation == block.generation)
                .map(|other| other.range.clone())
                .collect();
            let second = pick(random, &others).clone();
            Harm::Swap { file: block.generation, first: block.range.clone(), second }
        }
        7 => {
            let to = if random.random() { new } else { *pick(random, &numbers) };
            Harm::Duplicate { from: file, to }
        }
        8 => Harm::Exchange { one: file, other: *pick(random, &numbers) },
        _ => {
            let bytes = *pick(random, &[0, 1, 100, HEADER_BYTES as usize, SMALL as usize]);
            Harm::Garbage { to: new, bytes }
        }
    }
}

fn inflict(files: &mut BTreeMap<u64, Vec<u8>>, harm: &Harm) {
    match harm.clone() {
        Harm::Flip { file, at, bit } => {
            if let Some(byte) = files.get_mut(&file).unwrap().get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Harm::Fill { file, range, byte } => {
            let mut random = StdRng::seed_from_u64(range.start as u64);
            let bytes = files.get_mut(&file).unwrap();
            for at in range.start.min(bytes.len())..range.end.min(bytes.len()) {
                bytes[at] = byte.unwrap_or_else(|| random.random());
            }
        }
        Harm::Truncate { file, at } => files.get_mut(&file).unwrap().truncate(at),
        Harm::Copy { from: (from, range), file, at } => {
            let part = files[&from].get(range).unwrap_or_default().to_vec();
            let bytes = files.get_mut(&file).unwrap();
            let end = (at + part.len()).max(bytes.len());
            bytes.resize(end, 0);
            bytes[at..at + part.len()].copy_from_slice(&part);
        }
        Harm::Swap { file, first, second } => {
            let bytes = files.get_mut(&file).unwrap();
            let (first, second) =
                if first.start < second.start { (first, second) } else { (second, first) };
            if first == second || bytes.len() < second.end {
                return;
            }
            let parts = [second.clone(), first.end..second.start, first.clone()];
            let mixed: Vec<u8> = parts.into_iter().flat_map(|part| bytes[part].to_vec()).collect();
            bytes[first.start..second.end].copy_from_slice(&mixed);
        }
        Harm::Duplicate { from, to } => {
            let bytes = files[&from].clone();
            files.insert(to, bytes);
        }
        Harm::Exchange { one, other } => {
            let (a, b) = (files[&one].clone(), files[&other].clone());
            files.insert(one, b);
            files.insert(other, a);
        }
        Harm::Garbage { to, bytes } => drop(files.insert(to, vec![7; bytes])),
    }
}

fn check(base: &Base, harms: &[Harm]) {
    let mut files = base.files.clone();
    harms.iter().for_each(|harm| inflict(&mut files, harm));
    let rig = base.rig.copy();
    let folder = rig.options.folder.clone();
    for (number, bytes) in &files {
        fs::write(segment::path(&folder, *number), bytes).unwrap();
    }
    let is_whole = |block: &Written| {
        let bytes = |files: &BTreeMap<u64, Vec<u8>>| {
            files[&block.generation].get(block.range.clone()).map(<[u8]>::to_vec)
        };
        let header =
            |files: &BTreeMap<u64, Vec<u8>>| files[&block.generation].get(..60).map(<[u8]>::to_vec);
        bytes(&files) == bytes(&base.files) && header(&files) == header(&base.files)
    };
    // Changes of an unused place are none.
    let harmed = |number: &u64| files.get(number) != base.files.get(number);

    let opened = rig.try_open();
    let (wal, writer) = match opened {
        Ok(opened) => opened,
        Err(WalError::Damaged { path, offset, .. }) => {
            assert!(harmed(&number(&path)), "{} was left alone", path.display());
            let before = |block: &&Written| {
                block.generation == number(&path) && block.range.end <= offset as usize
            };
            assert!(base.blocks.iter().filter(before).all(is_whole), "{offset} is not the place");
            let report = inspect(&folder).unwrap();
            assert!(report.segments.iter().any(|s| matches!(s.tail, SegmentTail::Damaged { .. })));
            let cut = quarantine(&folder).unwrap();
            assert!(cut.iter().any(|cut| cut.segment == path && cut.copy.exists()));
            rig.open()
        }
        Err(other) => panic!("{other}"),
    };
    let was_cut = folder.join("quarantine").exists();
    let found = contents(&wal);
    let known: Vec<_> = base.blocks.iter().flat_map(|block| &block.records).collect();
    assert!(found.iter().all(|record| known.contains(&record)), "a record that nobody wrote");
    let last = *base.files.keys().last().unwrap();
    for (index, block) in base.blocks.iter().enumerate() {
        if block.records.iter().all(|record| found.contains(record)) {
            continue;
        }
        assert!(
            !block.records.iter().any(|record| found.contains(record)),
            "half of a block of segment {}",
            block.generation
        );
        let mut up_to_it = base.blocks[..=index].iter().rev();
        if was_cut {
            // Quarantine keeps what lies before the first damage of a segment.
            assert!(
                up_to_it.any(|b| b.generation == block.generation && !is_whole(b)),
                "a block before the damage is gone: segment {}, {:?}",
                block.generation,
                block.range
            );
        } else {
            // Only a last block can look like one that was never finished.
            assert!(!is_whole(block), "segment {}, {:?}", block.generation, block.range);
            assert_eq!(block.generation, last, "lost without a word: {:?}", block.range);
        }
    }
    go_on(&rig, wal, writer, &found);
}

/// After all that the log takes records again, and keeps them.
fn go_on(rig: &Rig, wal: Wal, mut writer: WalWriter, found: &[(LogPosition, String, Vec<u8>)]) {
    let position = writer.append(&[record("a", b"next")]).unwrap();
    assert!(found.iter().all(|(known, ..)| *known < position));
    drop((wal, writer));
    let again = contents(&rig.open().0);
    let (last, before) = again.split_last().unwrap();
    assert_eq!((last.0, last.2.as_slice()), (position, &b"next"[..]));
    assert_eq!(before, found);
}
