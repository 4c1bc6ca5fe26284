use super::*;
use std::{path::PathBuf, sync::Arc};

const LOG: Uuid = Uuid::from_u128(1);

fn ns() -> Namespace {
    Namespace::parse("shop").unwrap()
}

fn mark((seq, position): (u64, u64)) -> RowMark {
    RowMark { seq, position }
}

/// A record of events.
fn record((position, first_seq, rows): (u64, u64, u32)) -> RecordRef {
    RecordRef {
        position,
        kind: RecordKind::Events,
        namespace: ns(),
        first_seq,
        rows,
        path: Arc::new(PathBuf::new()),
        offset: 0,
        length: 0,
        crc: 0,
        durable_ms: 0,
    }
}

/// What is missing where the table is at `table`, the log has these records, and this was noted.
fn missing(
    table: (u64, u64),
    records: &[(u64, u64, u32)],
    (acknowledged, committed, accepted): ((u64, u64), (u64, u64), u64),
    is_behind: bool,
) -> Vec<(u64, u64)> {
    let marks =
        TableMarks { acknowledged: mark(acknowledged), committed: mark(committed), accepted };
    let key = (RecordKind::Events, ns());
    let noted = NotedMarks {
        log: LOG,
        metastore: Some(MetastoreMark { id: 1, last: 10 }),
        seen_ms: 0,
        tables: HashMap::from([(key.clone(), marks)]),
    };
    let known = CatalogState {
        tables: HashMap::from([(key, mark(table))]),
        metastore: MetastoreMark { id: 1, last: if is_behind { 9 } else { 10 } },
        ..CatalogState::default()
    };
    let records: Vec<RecordRef> = records.iter().copied().map(record).collect();
    let stores = StoreComparison {
        noted: &noted,
        known: &known,
        log: LOG,
        records: &records,
        seq_after: 0,
        ledger: HashMap::new(),
    };
    let findings = stores.compare();
    assert_eq!(findings.metastore.is_some(), is_behind);
    findings.missing.into_iter().map(|one| (one.first, one.last)).collect()
}

#[test]
fn what_is_in_table_or_log_is_not_missing() {
    let noted = ((30, 9), (20, 5), 0);
    assert_eq!(missing((20, 5), &[(9, 21, 10)], noted, false), []);
    // Also where the log was trimmed in between, or still has what the table has.
    assert_eq!(missing((20, 5), &[(5, 11, 10), (9, 21, 10)], noted, false), []);
    assert_eq!(missing((30, 9), &[], ((30, 9), (30, 9), 0), false), []);
}

#[test]
fn the_end_of_the_log_that_was_acknowledged_is_missed() {
    let noted = ((30, 9), (20, 5), 0);
    assert_eq!(missing((20, 5), &[], noted, false), [(21, 30)]);
    assert_eq!(missing((20, 5), &[(7, 21, 4)], noted, false), [(25, 30)]);
    // A note that is behind claims nothing more.
    assert_eq!(missing((25, 7), &[(9, 26, 5)], ((21, 6), (20, 5), 0), false), []);
    assert_eq!(missing((20, 5), &[], ((30, 9), (20, 5), 30), false), [], "it was given up");
}

#[test]
fn rows_that_left_the_log_for_a_table_that_is_older_now_are_missed() {
    let noted = ((30, 9), (20, 5), 0);
    assert_eq!(missing((10, 2), &[(9, 21, 10)], noted, true), [(11, 20)]);
    assert_eq!(missing((0, 0), &[(9, 21, 10)], noted, true), [(1, 20)]);
    // The log still has them.
    assert_eq!(missing((10, 2), &[(5, 11, 10), (9, 21, 10)], noted, true), []);
    // A table that was dropped with a metastore that is not older is nobody's loss.
    assert_eq!(missing((0, 0), &[(9, 21, 10)], noted, false), []);
}

#[test]
fn numbers_of_a_group_that_could_not_be_written_are_no_rows() {
    let noted = ((40, 7), (20, 5), 0);
    assert_eq!(missing((20, 5), &[(6, 31, 5), (7, 36, 5)], noted, false), []);
    // A hole in the positions as well is a part of the log that is gone.
    assert_eq!(missing((20, 5), &[(7, 36, 5)], noted, false), [(21, 35)]);
}
