//! Tables at points of their own, and answers that are made again from their basis.

use super::*;
use icecore_catalog::{
    catalog::RefKind,
    commit::{COMMIT_ID, LAST_SEQ},
    retention::BRANCH,
};
use icecore_lake::branch::Branch;
use icecore_schemas::{query::QueryBasis, snapshot_id::SnapshotId};

const COUNT: &str = "SELECT count(*) FROM events";

/// Ten events in a first snapshot, twenty in a second one, and five in the log.
async fn travelled() -> (House, i64, i64) {
    let house = House::new().await;
    house.take(1..11);
    let first = house.commit().await.metadata.current_snapshot_id().unwrap();
    house.take(11..31);
    let second = house.commit().await.metadata.current_snapshot_id().unwrap();
    house.trim();
    house.take(31..36);
    (house, first, second)
}

fn time(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(NOW_MS + ms).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

impl House {
    async fn basis(&self, request: SqlRequest) -> QueryBasis {
        let reach = QueryScope::Namespace;
        let answer = self.sql.query(&levels(&self.ns), reach, None, request).await.unwrap();
        let basis = answer.basis.clone().unwrap();
        answer.batches.try_collect::<Vec<_>>().await.unwrap();
        basis
    }
}

fn again(sql: &str, basis: &QueryBasis) -> SqlRequest {
    SqlRequest { basis: Some(basis.clone()), ..asked(sql) }
}

#[tokio::test]
async fn every_spelling_reads_the_table_at_its_point() {
    let (house, first, second) = travelled().await;
    let refs = house.catalog.refs();
    refs.create(&house.events(), "nightly", RefKind::Tag, Some(first)).await.unwrap();
    refs.create(&house.events(), "side", RefKind::Branch, Some(first)).await.unwrap();
    let zoned = time(1).replace('Z', "+00:00").replace('T', " ");
    for (behind, expected) in [
        (String::new(), 35),
        (format!("FOR SYSTEM_TIME AS OF TIMESTAMP '{}'", time(1)), 10),
        (format!("FOR TIMESTAMP AS OF '{}'", time(1_000)), 30),
        (format!("TIMESTAMP AS OF TIMESTAMP '{zoned}' + INTERVAL '1 second'"), 30),
        ("AT (TIMESTAMP => now() - INTERVAL '1500 milliseconds')".to_owned(), 10),
        (format!("FOR VERSION AS OF {first}"), 10),
        (format!("VERSION AS OF '{second}'"), 30),
        ("FOR VERSION AS OF 'nightly'".to_owned(), 10),
        ("AT (VERSION => 'side')".to_owned(), 10),
        ("VERSION AS OF 'main' AS e".to_owned(), 30),
        ("FOR SEQ AS OF 7".to_owned(), 7),
        ("FOR SEQ AS OF 33".to_owned(), 33),
        ("AT (SEQ => 1000)".to_owned(), 35),
        ("FOR SEQ AS OF 7 OF BRANCH 'side'".to_owned(), 7),
        ("SEQ AS OF 25 OF BRANCH 'side'".to_owned(), 10),
        ("FOR SEQ AS OF 33 OF BRANCH 'main'".to_owned(), 33),
        ("BETWEEN SEQ 9 AND 32".to_owned(), 24),
        ("BETWEEN SEQ 9 AND 8".to_owned(), 0),
    ] {
        assert_eq!(house.count(&format!("{COUNT} {behind}")).await, expected, "{behind}");
    }
    for (point, expected) in [
        (first.to_string(), 10),
        ("nightly".to_owned(), 10),
        ("main".to_owned(), 30),
        (time(1), 10),
        ("~0".to_owned(), 30),
        ("~1".to_owned(), 10),
    ] {
        let sql = format!("SELECT count(\"events@{point}\".id) FROM \"events@{point}\"");
        assert_eq!(house.count(&sql).await, expected, "{point}");
    }
    let tag = asked("SELECT 1 FROM events FOR SEQ AS OF 3 OF BRANCH 'nightly'");
    house.check_refused(tag, "`nightly` is a tag of table `events`").await;
    let values = vec![json!("nightly"), json!(12)];
    let sql = "SELECT (SELECT count(*) FROM events VERSION AS OF $1) * 100 + (SELECT count(*) FROM events FOR SEQ AS OF $2)";
    assert_eq!(house.number(SqlRequest { params: values, ..asked(sql) }).await, 1_012);
}

#[tokio::test]
async fn a_seq_or_a_day_in_the_name_is_read_where_no_ref_is_called_so() {
    let (house, first, _) = travelled().await;
    // It is the next day.
    house.clock.advance_ms(86_400_000);
    for (address, expected) in [("v7", 7), ("v33", 33), ("v1000", 35), ("2025-10-10", 30)] {
        let sql = format!("SELECT count(*) FROM \"events@{address}\"");
        assert_eq!(house.count(&sql).await, expected, "{address}");
    }
    let before = asked("SELECT count(*) FROM \"events@2025-10-09\"");
    house.check_refused(before, "has no snapshot at").await;
    let sql = "SELECT count(*) FROM \"events@v1000\"";
    let basis = house.basis(asked(sql)).await;
    house.take(36..41);
    assert_eq!(house.number(again(sql, &basis)).await, 35);
    assert_eq!(house.count(sql).await, 40);
    let refs = house.catalog.refs();
    refs.create(&house.events(), "v7", RefKind::Tag, Some(first)).await.unwrap();
    assert_eq!(house.count("SELECT count(*) FROM \"events@v7\"").await, 10);
}

#[tokio::test]
async fn a_table_is_joined_with_itself_at_other_points() {
    let (house, first, _) = travelled().await;
    let sql = format!(
        "SELECT count(*) * 1000 + count(events.id) FROM events AS n LEFT JOIN events VERSION AS OF {first} ON n.id = events.id"
    );
    assert_eq!(house.count(&sql).await, 35_010);
    let sql = format!(
        "WITH events AS (SELECT * FROM events VERSION AS OF {first}) SELECT count(*) FROM events"
    );
    assert_eq!(house.count(&sql).await, 10);
    let added = format!(
        "SELECT count(*) FROM events FOR SEQ AS OF 33 n WHERE NOT EXISTS (SELECT 1 FROM events VERSION AS OF {first} o WHERE o.id = n.id)"
    );
    assert_eq!(house.count(&added).await, 23);
    // A point of its own goes before that of the request.
    let request = at(&format!("{COUNT} VERSION AS OF 'main'"), json!(first));
    assert_eq!(house.number(request).await, 30);
}

#[tokio::test]
async fn a_range_of_seq_reads_only_files_that_may_have_it() {
    let (house, ..) = travelled().await;
    let all = house.files("SELECT id FROM events").await;
    let some = house.files("SELECT id FROM events BETWEEN SEQ 1 AND 10").await;
    assert!(some < all, "{some} of {all} files");
    assert_eq!(house.files("SELECT id FROM events BETWEEN SEQ 31 AND 40").await, 0);
}

#[tokio::test]
async fn a_point_that_is_not_there_is_told_by_the_names_of_the_statement() {
    let (house, first, _) = travelled().await;
    for (sql, expected) in [
        (
            "SELECT 1 FROM events VERSION AS OF 42",
            "NotFound(\"table `events` has no snapshot 42\")",
        ),
        ("SELECT 1 FROM events VERSION AS OF 'no'", "has no branch or tag `no`"),
        ("SELECT 1 FROM \"events@no\"", "table `events` has no branch or tag `no`"),
        ("SELECT 1 FROM \"events@~9\"", "no snapshot that is 9 before"),
        ("SELECT 1 FROM evnts VERSION AS OF 3", "table `evnts` does not exist"),
        ("SELECT 1 FROM events VERSION AS OF main", "in single quotes, not main"),
        ("SELECT 1 FROM events FOR SEQ AS OF 'x'", "a seq is a whole number"),
        (
            "SELECT 1 FROM events FOR SEQ AS OF 3 OF BRANCH 'no'",
            "table `events` has no branch or tag `no`",
        ),
        ("SELECT 1 FROM branches VERSION AS OF 3", "`branches` has no versions"),
        ("SELECT 1 FROM events FOR BOOKMARK AS OF 'x'", "has bookmark `x`"),
        ("SELECT 1 FROM events TIMESTAMP AS OF ts", "without columns and queries"),
        ("SELECT 1 FROM events TIMESTAMP AS OF (SELECT now())", "without columns and queries"),
        ("SELECT 1 FROM events TIMESTAMP AS OF 'soon'", "the version of table `events`"),
        ("SELECT 1 FROM events TIMESTAMP AS OF now() + INTERVAL '1 day'", "in the future"),
        ("SELECT 1 FROM other.events VERSION AS OF 3", "table `other.events` is outside namespace"),
        ("SELECT 1 FROM other.events BOOKMARK AS OF 'b'", "`other.events` with FOR SEQ AS OF"),
        (
            "SELECT 1 FROM information_schema.tables VERSION AS OF 3",
            "`information_schema.tables` has no versions",
        ),
        ("SELECT 1 FROM dead_letters FOR SEQ AS OF 3", "dead_letters` has no column `seq`"),
        ("SELECT nothing FROM events FOR SEQ AS OF 3", "no column `nothing`"),
    ] {
        house.check_refused(asked(sql), expected).await;
    }
    let shown = house
        .shown(&format!(
            "SELECT events.id, events.seq FROM events VERSION AS OF {first} ORDER BY 2 LIMIT 1"
        ))
        .await;
    assert!(shown.contains("| id  | seq |"), "{shown}");
}

#[tokio::test]
async fn a_wall_clocks_time_that_is_there_twice_is_the_second_one() {
    let house = House::new().await;
    house.take(1..3);
    house.commit().await;
    // Both are before the first snapshot, whose error names the time.
    for (written, meant) in [
        (
            "TIMESTAMP '2024-10-27 02:30:00' AT TIME ZONE 'Europe/Berlin'",
            "2024-10-27T01:30:00.000Z",
        ),
        ("TIMESTAMP '2024-10-27 02:30:00'", "2024-10-27T02:30:00.000Z"),
        ("TIMESTAMP '2024-10-27 02:30:00+02:00'", "2024-10-27T00:30:00.000Z"),
        ("DATE '2024-10-27'", "2024-10-27T00:00:00.000Z"),
    ] {
        let sql = format!("SELECT 1 FROM events TIMESTAMP AS OF {written}");
        house.check_refused(asked(&sql), &format!("no snapshot at {meant}")).await;
    }
}

#[tokio::test]
async fn a_table_that_has_the_whole_name_is_that_table() {
    let (house, ..) = travelled().await;
    let column = NestedField::optional(1, "mine", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([column.into()]).build().unwrap();
    let table = CreateTable::plain("events@main", schema);
    house.catalog.tables().create(&levels(&house.ns), table).await.unwrap();
    assert_eq!(house.count("SELECT count(mine) FROM \"events@main\"").await, 0);
}

#[tokio::test]
async fn an_answer_is_made_again_from_its_basis() {
    let (house, first, second) = travelled().await;
    let sql = "SELECT count(*) * 1000000 + count(DISTINCT id) * 1000 + max(seq) FROM events";
    let basis = house.basis(asked(sql)).await;
    assert_eq!(basis.seq, Some(35));
    assert_eq!(basis.snapshots["events"], Some(SnapshotId(second)));
    let check = async |when: &str| {
        assert_eq!(house.number(again(sql, &basis)).await, 35_035_035, "{when}");
        assert_eq!(house.basis(again(sql, &basis)).await, basis, "{when}");
        let cut = format!("{COUNT} FOR SEQ AS OF 32");
        let cut_basis = QueryBasis {
            snapshots: [("events FOR SEQ AS OF 32".to_owned(), Some(SnapshotId(second)))].into(),
            ..basis.clone()
        };
        assert_eq!(house.number(again(&cut, &cut_basis)).await, 32, "{when}");
    };
    check("at once").await;
    house.take(36..41);
    check("with more in the log").await;
    house.commit().await;
    check("committed").await;
    house.trim();
    house.take(41..51);
    check("trimmed").await;
    let expected = house.count(sql).await;
    assert_eq!(expected, 50_050_050);
    let old = house.basis(asked(&format!("{COUNT} VERSION AS OF {first}"))).await;
    assert_eq!(old.seq, Some(10));

    let lost = QueryBasis {
        snapshots: [("events".to_owned(), Some(SnapshotId(42)))].into(),
        ..basis.clone()
    };
    house.check_refused(again(sql, &lost), "Gone { text: \"the basis cannot be repeated").await;
    let other = "SELECT count(*) FROM dead_letters";
    house.check_refused(again(other, &basis), "the basis has no snapshot of table").await;
    let ahead = QueryBasis { seq: Some(99), ..basis.clone() };
    house.check_refused(again(sql, &ahead), "NotYet(\"the basis has events up to 99").await;
    let both = SqlRequest { as_of: Some(json!("main")), ..again(sql, &basis) };
    house.check_refused(both, "either as_of or basis").await;
    let beyond = SqlRequest { min_seq: Some(36), ..again(sql, &basis) };
    house.check_refused(beyond, "min_seq 36 is beyond the basis").await;
    let within = SqlRequest { min_seq: Some(35), ..again(sql, &basis) };
    assert_eq!(house.number(within).await, 35_035_035);
}

#[tokio::test]
async fn a_branch_of_the_namespace_is_told_with_its_last_event() {
    let (house, first, _) = travelled().await;
    let (table, refs) = (house.events(), house.catalog.refs());
    refs.create(&table, "trial", RefKind::Branch, Some(first)).await.unwrap();
    let none = "SELECT count(*) FROM branches";
    assert_eq!(house.count(none).await, 0);
    let branch = Branch {
        name: "trial".to_owned(),
        forked_from: "main".to_owned(),
        fork_seq: 10,
        created_at: NOW_MS,
        collection: None,
        merges: Vec::new(),
    };
    let updates = HashMap::from([(Branch::property("trial"), branch.to_property().unwrap())]);
    let summary = [(BRANCH, "trial"), (COMMIT_ID, "c"), (LAST_SEQ, "10")];
    let begun = NewSnapshot {
        read: Some(first),
        branch: Some("trial".to_owned()),
        summary: summary.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        upgrades: vec![TableUpdate::SetProperties { updates }],
        ..NewSnapshot::default()
    };
    house.catalog.add_snapshot(&table, begun).await.unwrap();
    for (from, seq, branch) in [
        ("\"events@trial\"", Some(10), Some("trial")),
        ("events FOR VERSION AS OF 'trial'", Some(10), Some("trial")),
        ("\"things@trial\"", Some(10), Some("trial")),
        ("cdc_users FOR SEQ AS OF 3 OF BRANCH 'trial'", Some(10), Some("trial")),
        ("events, \"events@trial\" AS t", Some(35), None),
        ("branches", None, None),
    ] {
        let sql = format!("SELECT count(*) FROM {from}");
        let basis = house.basis(asked(&sql)).await;
        assert_eq!((basis.seq, basis.branch.as_deref()), (seq, branch), "{from}");
        assert_eq!(house.basis(again(&sql, &basis)).await, basis, "{from}");
        if branch.is_some() {
            // `min_seq` is of main, and the basis is of the branch.
            let request = SqlRequest { min_seq: Some(99), ..again(&sql, &basis) };
            assert_eq!(house.basis(request).await, basis, "{from}");
        }
    }
    let beyond = "SELECT 1 FROM events FOR SEQ AS OF 11 OF BRANCH 'trial'";
    let expected = "NotFound(\"no event of branch `trial` has seq 11 yet: the last one has 10\")";
    house.check_refused(asked(beyond), expected).await;
    let rows = format!(
        "SELECT count(*) FROM branches WHERE name = 'trial' AND forked_from = 'main' \
         AND fork_seq = 10 AND head_seq = 10 AND head <> base AND base = {first} AND created_at < now()"
    );
    assert_eq!(house.count(&rows).await, 1);
}

#[tokio::test]
async fn a_table_that_was_in_the_log_alone_is_repeated_after_its_first_commit() {
    let house = House::new().await;
    house.take(1..6);
    let basis = house.basis(asked(COUNT)).await;
    assert_eq!(basis.snapshots["events"], None);
    house.take(6..11);
    assert_eq!(house.number(again(COUNT, &basis)).await, 5);
    house.commit().await;
    house.trim();
    assert_eq!(house.number(again(COUNT, &basis)).await, 5);
    assert_eq!(house.count(COUNT).await, 10);
}

#[tokio::test]
async fn the_clock_is_that_of_the_point() {
    let (house, first, _) = travelled().await;
    let clock = "SELECT CAST(date_part('epoch', now()) AS BIGINT) FROM events LIMIT 1";
    let seconds = |ms: i64| (NOW_MS + ms) / 1_000;
    // The clock is two seconds ahead, as there were two commits.
    assert_eq!(house.count(clock).await, seconds(2_000));
    assert_eq!(house.number(at(clock, json!(first))).await, seconds(0));
    assert_eq!(house.number(at(clock, json!(time(1_000)))).await, seconds(1_000));
    let basis = house.basis(asked(clock)).await;
    assert_eq!(basis.clock, time(2_000));
    house.clock.advance_ms(60_000);
    assert_eq!(house.number(again(clock, &basis)).await, seconds(2_000));
    // Without a table it is that of `events`.
    let alone = "SELECT CAST(date_part('epoch', now()) AS BIGINT)";
    let refs = house.catalog.refs();
    refs.create(&house.events(), "nightly", RefKind::Tag, Some(first)).await.unwrap();
    assert_eq!(house.number(at(alone, json!("nightly"))).await, seconds(0));
    assert_eq!(house.number(at(alone, json!("main"))).await, seconds(1_000));
    house.check_refused(at(alone, json!("no")), "NotFound").await;
    for year in ["0001", "1600", "2300", "9999"] {
        let clock = format!("{year}-01-01T00:00:00Z");
        let request = QueryBasis { clock: clock.clone(), ..basis.clone() };
        house.check_refused(again(alone, &request), "the year 1678 to 2261").await;
        house.check_refused(at(alone, json!(clock)), "the year 1678 to 2261").await;
    }
    let day = "SELECT count(*) FROM events WHERE current_date = DATE '2025-10-09'";
    assert_eq!(house.number(at(day, json!(first))).await, 10);
}
