use super::*;

#[test]
fn every_name_is_found_and_no_other() {
    for (at, column) in KNOWN_EVENTS.iter().enumerate() {
        let expected = match column.name {
            "payload" => Some(WRAPPED),
            _ => (column.found_in != FoundIn::Server).then_some(at),
        };
        assert_eq!(find(column.name).map(|known| known.slot), expected, "{}", column.name);
    }
    for (name, slot) in ALIASES {
        assert_eq!(find(name).map(|known| known.slot), Some(*slot), "{name}");
        assert!(*slot < SLOTS, "{name}");
    }
    for name in [
        "",
        "i",
        "ids",
        "ID",
        "Type",
        "tS",
        "durationms",
        "seq",
        "ingested_at",
        "日",
        "deployment_enviromnent",
        "trial_column_with_the_longest_mame_of_them_all",
    ] {
        assert_eq!(find(name), None, "{name}");
    }
}

#[test]
fn names_of_columns_in_sql_are_those_that_events_use() {
    for (alias, of) in icecore_schemas::columns::ALIASES {
        assert_eq!(find(alias).map(|known| known.slot), Some(column(of)), "{alias}");
    }
}

#[test]
fn look_ups_are_short() {
    let longest_run = SLOT_OF_NAME.split(|number| *number == 0).map(<[u16]>::len).max().unwrap();
    assert!(longest_run <= 8, "{longest_run}");
}

#[test]
fn identity_and_time_never_come_from_data() {
    for slot in [ID, TYPE, TS, NS, SOURCE, OP, KEY, BEFORE, AFTER, DATA, META, RETRIES] {
        assert!(!is_found_in_data(slot));
    }
    for name in
        ["id", "type", "ts", "ns", "source", "batch_id", "actor", "event", "retries", "data"]
    {
        assert!(!is_found_in_data(column(name)) && !is_change(column(name)), "{name}");
    }
    for name in [
        "op",
        "store",
        "collection",
        "key",
        "before",
        "after",
        "txid",
        "lsn",
        "bookmark",
        "version",
        "patch",
    ] {
        assert!(is_change(column(name)) && !is_found_in_data(column(name)), "{name}");
    }
    assert!(is_found_in_data(column("do_id")) && is_found_in_data(column("workflow_id")));
    for name in ["method", "durationMs", "success", "error", "do", "verified", "status_code"] {
        assert!(is_found_in_data(find(name).unwrap().slot), "{name}");
    }
}
