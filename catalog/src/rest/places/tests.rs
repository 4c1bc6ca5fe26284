use super::*;
use crate::access::AccessScope;

#[track_caller]
fn check_allowed(scopes: &[&str], place: &str, expected: bool) {
    let scopes = scopes.iter().map(|scope| scope.parse::<AccessScope>().unwrap()).collect();
    let principal = Principal::new("token:t", scopes, None);
    let location = Location::parse(&format!("s3://lake/wh/{place}")).unwrap();
    assert_eq!(is_allowed(&principal, "s3://lake/wh", &location), expected, "{place}");
}

#[test]
fn a_place_belongs_to_who_may_write_the_namespace_of_its_folder() {
    check_allowed(&["write:evil"], "evil/x", true);
    check_allowed(&["write:evil"], "evil/x/y/z", true);
    check_allowed(&["write:evil/sub"], "evil/sub/x", true);
    check_allowed(&["read:*", "write:evil"], "evil/x", true);
    check_allowed(&["admin:evil"], "evil/x", true);
    check_allowed(&["write:*"], "anything", true);
    check_allowed(&["admin:*"], "vic/x", true);
    for place in ["vic/x", "evil", "evil2/x", "evi/x", "x", "Evil/x", "evil.2fx/y", "evil.2ex/y"] {
        check_allowed(&["write:evil"], place, false);
    }
    check_allowed(&["write:evil/sub"], "evil/x", false);
    check_allowed(&["read:*", "ingest:*"], "evil/x", false);
    check_allowed(&[], "evil/x", false);
}

#[test]
fn no_two_namespaces_share_a_folder() {
    let long = "x".repeat(300);
    let names: Vec<Vec<&str>> = vec![
        vec!["a", "b"],
        vec!["a/b"],
        vec!["a.b"],
        vec!["a_b"],
        vec!["a.2eb"],
        vec!["a.2fb"],
        vec!["a b"],
        vec!["\u{430}"],
        vec![".."],
        vec![&long],
        vec![&long[1..]],
    ];
    let folders: std::collections::HashSet<String> = names
        .iter()
        .map(|levels| {
            folder_of(&levels.iter().map(|level| (*level).to_owned()).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(folders.len(), names.len(), "{folders:?}");
    for folder in folders {
        assert!(Location::parse(&format!("s3://lake/wh/{folder}/x")).is_some(), "{folder}");
        assert!(folder.split('/').all(|level| level.len() < 256), "{folder}");
    }
}
