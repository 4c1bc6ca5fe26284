use super::*;
use icecore_schemas::query::NamespaceBasis;

#[test]
fn a_name_tells_the_ref_that_a_table_is_read_at() {
    let mut points = QueryPoints::default();
    let until = SeqRange::up_to(3);
    let branch = "trial".to_owned();
    let of_branch = TableRead::Branch { branch, until: 3, snapshot: None };
    for (name, read) in [
        ("a", TableRead::AsOf(AsOf::Reference("nightly".to_owned()))),
        ("b", of_branch),
        ("c", TableRead::AsOf(AsOf::Snapshot(3))),
        ("d@trial", TableRead::Now(Some(until))),
    ] {
        points.versions.insert(name.to_owned(), (EVENTS_TABLE.to_owned(), read));
    }
    for (name, expected) in [
        ("a", Some("nightly")),
        ("b", Some("trial")),
        ("c", None),
        ("d@trial", None),
        ("events@trial", Some("trial")),
        ("events", None),
    ] {
        assert_eq!(points.reference(name), expected, "{name}");
    }
    points.as_of = Some(AsOf::Reference("nightly".to_owned()));
    assert_eq!(points.reference("events"), Some("nightly"));
    let mut snapshots = std::collections::BTreeMap::new();
    snapshots.insert("b".to_owned(), Some(SnapshotId(7)));
    points.basis = Some(QueryBasis { snapshots, ..QueryBasis::default() });
    let repeated = TableRead::Branch { branch: "trial".to_owned(), until: 3, snapshot: Some(7) };
    assert_eq!(points.of("b").unwrap(), (EVENTS_TABLE, repeated));
}

#[test]
fn an_address_is_a_seq_or_the_start_of_a_day() {
    let points = QueryPoints::default();
    let day = TableRead::AsOf(AsOf::Time(86_400_000));
    for (name, expected) in [
        ("events@v17", Some(("v17", TableRead::Now(Some(SeqRange::up_to(17)))))),
        ("events@1970-01-02", Some(("1970-01-02", day))),
        ("events@main", None),
        ("events@~1", None),
        ("events@nightly", None),
        ("events@17", None),
        ("@v17", None),
        ("events", None),
    ] {
        let expected = expected.map(|(point, read)| (EVENTS_TABLE, point, read));
        assert_eq!(points.of_address(name).unwrap(), expected, "{name}");
    }
}

#[test]
fn tables_behind_a_view_are_read_at_its_point() {
    let (up_to, words) = (TableRead::Now(Some(SeqRange::up_to(3))), " FOR SEQ AS OF 3");
    let statement = guard::check("SELECT 1 FROM bank.v FOR SEQ AS OF 3").unwrap();
    let version = &statement.versions[0];
    assert_eq!(other_namespace(version, "shop").unwrap(), Some("bank"));
    assert_eq!(other_namespace(version, "bank").unwrap(), None);
    let mut points = QueryPoints::default();
    points.hold(version, &up_to).unwrap();
    points.hold(version, &up_to).unwrap();
    points.hold(version, &TableRead::Back(1)).unwrap_err();
    let held = points.within("shop FOR SEQ AS OF 3").unwrap();
    assert_eq!(held.of("events").unwrap(), ("events", up_to));
    assert_eq!(points.words_of("shop FOR SEQ AS OF 3"), Some(words));
    assert!(points.within("shop").is_none() && points.words_of("shop").is_none());
}

#[test]
fn an_answer_that_is_repeated_has_the_parts_of_its_namespaces() {
    let part = NamespaceBasis {
        seq: Some(3),
        snapshots: [("events".to_owned(), Some(SnapshotId(7)))].into(),
        ..NamespaceBasis::default()
    };
    let namespaces = [("bank".to_owned(), part)].into();
    let basis = Some(QueryBasis { namespaces, ..QueryBasis::default() });
    let mut points = QueryPoints { basis, ..QueryPoints::default() };
    points.repeat_others();
    let expected = TableRead::Basis { snapshot: Some(7), until: Some(3), seqs: None };
    assert_eq!(points.within("bank").unwrap().of("events").unwrap(), ("events", expected));
    assert!(points.elsewhere().of("events").is_err());
}
