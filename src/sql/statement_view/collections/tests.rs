use super::*;
use icecore_engine::seq_range::SeqRange;
use std::collections::HashMap;

fn points(versions: &[(&str, &str, TableRead)]) -> QueryPoints {
    let versions = versions
        .iter()
        .map(|(name, table, read)| ((*name).to_owned(), ((*table).to_owned(), read.clone())));
    QueryPoints { versions: versions.collect::<HashMap<_, _>>(), ..QueryPoints::default() }
}

#[test]
fn a_name_means_a_collection_and_its_events_at_one_point() {
    let up_to = TableRead::Now(Some(SeqRange::up_to(3)));
    let points = points(&[("cdc_users FOR SEQ AS OF 3", "cdc_users", up_to)]);
    for (name, expected) in [
        ("cdc_users", vec![("cdc_users", "events")]),
        ("cdc_users FOR SEQ AS OF 3", vec![("cdc_users", "events FOR SEQ AS OF 3")]),
        ("cdc_a@b", vec![("cdc_a@b", "events"), ("cdc_a", "events@b")]),
        ("collections/a@b", vec![("collections/a@b", "events")]),
        ("events", vec![]),
        ("orders@b", vec![]),
    ] {
        let found = meanings(&points, name);
        let found: Vec<(&str, &str)> =
            found.iter().map(|it| (it.table.as_str(), it.events.as_str())).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_collection_has_no_range_of_events() {
    let name = "cdc_users BETWEEN SEQ 2 AND 3";
    let range = TableRead::Now(Some(SeqRange { first: 2, last: 3 }));
    let refused = check_is_state(&points(&[(name, "cdc_users", range)]), name);
    assert!(refused.unwrap_err().to_string().contains("FOR SEQ AS OF 3"));
    let state = TableRead::Now(Some(SeqRange::up_to(3)));
    assert!(check_is_state(&points(&[(name, "cdc_users", state)]), name).is_ok());
    assert!(check_is_state(&QueryPoints::default(), "cdc_users").is_ok());
}

#[test]
fn the_last_event_is_the_one_that_is_seen() {
    let table = |last_seq: u64, seqs: Option<SeqRange>| TableView {
        name: EVENTS_TABLE.to_owned(),
        metadata: None,
        snapshot_id: None,
        has_past_columns: false,
        ours: None,
        tail: Vec::new(),
        last_seq,
        metadata_location: None,
        inspected: Vec::new(),
        seqs,
        later: None,
    };
    assert_eq!(last_event(&table(7, None)), Some(7));
    assert_eq!(last_event(&table(7, Some(SeqRange::up_to(3)))), Some(3));
    assert_eq!(last_event(&table(7, Some(SeqRange::up_to(30)))), Some(7));
    assert_eq!(last_event(&table(0, None)), None);
    assert_eq!(main_part(&table(7, None)).map(|part| part.seq), Some(u64::MAX));
}
