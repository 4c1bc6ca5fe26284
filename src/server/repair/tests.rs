use super::*;
use std::{path::PathBuf, sync::Arc};

const LOG: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

pub(super) fn record(position: u64, first_seq: u64, rows: u32) -> RecordRef {
    RecordRef {
        position,
        kind: RecordKind::Events,
        namespace: Namespace::parse("shop").unwrap(),
        first_seq,
        rows,
        path: Arc::new(PathBuf::new()),
        offset: 0,
        length: 0,
        crc: 0,
        durable_ms: 0,
    }
}

#[track_caller]
fn check_position(last_seq: u64, named: Option<u64>, expected: u64) {
    // Rows 11..=20 at 5, 21..=25 at 7, 26 at 9.
    let records = [record(5, 11, 10), record(7, 21, 5), record(9, 26, 1)];
    let records: Vec<&RecordRef> = records.iter().collect();
    assert_eq!(position(&records, last_seq, named), expected, "seq {last_seq}, {named:?}");
}

#[test]
fn a_mark_is_below_every_record_that_the_table_lacks_and_above_the_others() {
    check_position(10, None, 0);
    check_position(10, Some(4), 4);
    check_position(20, None, 5);
    check_position(25, Some(8), 8);
    check_position(26, None, 9);
    check_position(26, Some(30), 30);
    // The position of another log says nothing where it is beyond what the table lacks.
    check_position(20, Some(9), 5);
    check_position(10, Some(5), 0);
}

fn config() -> Config {
    Config::from_sources(None, Vec::new(), &[]).unwrap()
}

fn log(log: Uuid, records: Vec<RecordRef>) -> LocalLog {
    LocalLog { _folder: None, log: Some(log), records }
}

#[test]
fn the_log_of_another_server_is_taken_by_force_alone() {
    let found = RecoveredCatalog { holder: Some((OTHER, 40)), ..RecoveredCatalog::default() };
    let nothing = RecoveredCatalog::default();
    let (none, noted) = (NotedMarks::default(), NotedMarks { log: OTHER, ..NotedMarks::default() });
    let full = || log(LOG, vec![record(1, 1, 1)]);
    for (found, noted) in [(&found, &none), (&nothing, &noted)] {
        let refused = holder(&config(), &full(), noted, found, false);
        let Err(StartError::Catalog(CatalogError::Invalid(text))) = refused else { panic!() };
        assert!(text.contains("--force"), "{text}");
        let forced = holder(&config(), &full(), noted, found, true).unwrap();
        assert_eq!(forced.map(|(log, _)| log), Some(LOG));
    }
    // A log without records is a new one, which stands in nobody's way.
    let new = holder(&config(), &log(LOG, Vec::new()), &none, &found, false).unwrap();
    assert_eq!(new, Some((OTHER, 40)));
    let only = holder(&config(), &full(), &none, &nothing, false).unwrap();
    assert_eq!(only, Some((LOG, 0)));
    let nobody = holder(&config(), &log(LOG, Vec::new()), &none, &nothing, false).unwrap();
    assert_eq!(nobody, None);
}
