use super::*;
use crate::table::lake::TestLake;
use icecore_catalog::retention::MANAGED;
use std::collections::HashMap;

fn table(is_ours: bool) -> TableMetadata {
    let mut lake = TestLake::of_people(true);
    let mark = HashMap::from([(MANAGED.to_owned(), is_ours.to_string())]);
    lake.change(|builder| builder.set_properties(mark));
    lake.metadata
}

#[test]
fn a_value_that_nobody_could_go_by_is_told_with_what_to_write() {
    let (ours, others) = (table(true), table(false));
    for (key, value, why, is_read_of_others) in [
        ("icecore.compaction", "maybe", "is `maybe`: write `on` or `off`", true),
        ("icecore.compaction", "", "write `on` or `off`", true),
        ("icecore.retention", "bad", "`bad` is not TYPE=DAYS, such as webhook.*=30d", false),
        ("icecore.retention", "a=0d", "is not a number of days from 1d to", false),
        ("icecore.promoted-paths", "data", "write `column.member:type`", false),
    ] {
        let told = fault(&ours, key, value).unwrap();
        assert!(told.starts_with(&format!("its property `{key}`")) && told.contains(why), "{told}");
        assert_eq!(fault(&others, key, value).is_some(), is_read_of_others, "{key}");
    }
    for (key, value) in [
        ("icecore.compaction", "on"),
        ("icecore.compaction", " OFF "),
        ("icecore.retention", "webhook.*=30d, rpc.*=7d"),
        ("icecore.retention", ""),
        ("icecore.promoted-paths", "data.amount:double"),
        ("icecore.materialize.cron", "never"),
        ("owner", "maybe"),
    ] {
        assert_eq!(fault(&ours, key, value), None, "{key}");
    }
}

#[test]
fn a_column_of_people_is_one_of_the_table() {
    let mut lake = TestLake::of_people(true);
    let named = |lake: &mut TestLake, column: &str| {
        let key = "icecore.erasure.user_id";
        let property = HashMap::from([(key.to_owned(), column.to_owned())]);
        lake.change(|builder| builder.set_properties(property));
        fault(&lake.metadata, key, column)
    };
    assert_eq!(named(&mut lake, "name"), None);
    assert_eq!(named(&mut lake, "id"), None);
    let told = named(&mut lake, "who").unwrap();
    assert!(told.contains("names `who`, which is none of its columns"), "{told}");
    let told = fault(&lake.metadata, "icecore.erasure.userId", "name").unwrap();
    assert!(told.contains("`icecore.erasure.userId` is of no member of a subject"), "{told}");
    assert_eq!(
        fault(&table(true), "icecore.erasure.user_id", "who"),
        None,
        "nobody reads it there"
    );
}
