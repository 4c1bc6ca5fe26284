use super::*;
use crate::columns::{ColumnKind, TRIAL};

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
    use RecordKind::{DeadLetters, Events, Keys};
    assert_eq!([Events, DeadLetters, Keys].map(RecordKind::code), [1, 2, 3]);
    let kinds = [0, 1, 2, 3, 4].map(RecordKind::from_code);
    assert_eq!(kinds, [None, Some(Events), Some(DeadLetters), Some(Keys), None]);
}

#[test]
fn tables_are_partitioned_and_sorted_by_what_the_writer_can() {
    for table in known_tables() {
        let first = |name| table.column(name).filter(|column| column.id.is_some()).unwrap();
        for field in table.partition {
            let kind = match field.by {
                PartitionBy::Identity => ColumnKind::String,
                PartitionBy::Day => ColumnKind::Timestamptz,
            };
            assert_eq!(first(field.column).kind, kind, "{}", field.name);
        }
        let is_number = |kind| matches!(kind, ColumnKind::Long | ColumnKind::Timestamptz);
        let sort: Vec<&Column> = table.sort.iter().copied().map(first).collect();
        assert!(sort.len() <= 2, "{}", table.name);
        assert!(sort.iter().all(|column| column.required && is_number(column.kind)));
    }
    assert!(SERVICE_TABLES[0].has_seq() && !SERVICE_TABLES[1].has_seq());
}

#[test]
fn what_has_no_column_in_a_table_has_a_place_there() {
    for table in known_tables() {
        assert!(table.column("payload").is_some(), "{}", table.name);
    }
}

#[test]
fn tables_of_copies_have_columns_of_events() {
    for table in known_tables().filter(|table| table.events_with.is_some()) {
        for column in table.columns {
            let copied = EVENTS.iter().find(|of_event| of_event.name == column.name);
            let copied = copied.expect(column.name);
            assert_eq!(copied.kind, column.kind, "{}", column.name);
            let has_value = copied.required || table.events_with == Some(column.name);
            assert!(has_value || !column.required, "{}", column.name);
        }
        assert!(!table.has_seq(), "{}: its rows are counted anew", table.name);
    }
}

#[test]
fn trial_columns_come_after_those_of_the_release() {
    let columns = ServiceTables::with_trial(2).unwrap().events().columns;
    assert_eq!(columns.len(), EVENTS.len() + 2);
    assert!(columns[EVENTS.len()..].iter().all(|column| column.id.is_none() && !column.required));
    assert!(ServiceTables::with_trial(TRIAL.len() + 1).is_none());
    let trial = |count| ServiceTables::default().and_trial(count);
    assert_eq!(trial(8).unwrap().named("trial_changes").unwrap().columns.len(), 8);
    assert!(trial(0).unwrap().named("trial_changes").is_none());
    assert!(trial(6).is_none() && trial(10).is_none());
}
