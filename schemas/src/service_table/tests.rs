use super::*;
use crate::columns::TRIAL;

#[test]
fn a_table_is_found_by_its_kind_and_by_its_name() {
    let tables = ServiceTables::default();
    for table in SERVICE_TABLES {
        assert_eq!(tables.of(table.kind).unwrap().name, table.name);
        assert_eq!(tables.named(table.name).unwrap().kind, table.kind);
    }
    assert!(tables.of(RecordKind::Keys).is_none());
    for name in ["", "event", "Events", "events2", "cdc_users"] {
        assert!(tables.named(name).is_none(), "{name}");
    }
}

#[test]
fn what_the_log_calls_a_kind_stays() {
    assert_eq!(RecordKind::ALL.map(RecordKind::code), [1, 2, 3]);
    assert_eq!(
        [0, 1, 2, 3, 4].map(RecordKind::from_code).map(|kind| kind.is_some()),
        [false, true, true, true, false]
    );
}

#[test]
fn partition_and_sort_columns_are_columns_of_the_first_version() {
    for table in SERVICE_TABLES {
        let by = table.partition.iter().map(|field| field.column).chain(table.sort.iter().copied());
        for name in by {
            assert!(table.column(name).is_some_and(|column| column.id.is_some()), "{name}");
        }
    }
    assert!(SERVICE_TABLES[0].has_seq() && !SERVICE_TABLES[1].has_seq());
}

#[test]
fn trial_columns_come_after_those_of_the_release() {
    let columns = ServiceTables::with_trial(2).unwrap().events().columns;
    assert_eq!(columns.len(), EVENTS.len() + 2);
    assert!(columns[EVENTS.len()..].iter().all(|column| column.id.is_none() && !column.required));
    assert!(ServiceTables::with_trial(TRIAL.len() + 1).is_none());
}
