use super::*;
use serde_json::json;

fn version(sql: &str, at: i64) -> ViewVersion {
    dialects(&["spark"], sql, at)
}

fn dialects(dialects: &[&str], sql: &str, at: i64) -> ViewVersion {
    let sql = |dialect: &&str| json!({"type": "sql", "sql": sql, "dialect": dialect});
    let representations: Vec<Value> = dialects.iter().map(sql).collect();
    serde_json::from_value(json!({"version-id": 1, "schema-id": 0, "timestamp-ms": at,
        "summary": {}, "default-namespace": ["ns"], "representations": representations}))
    .unwrap()
}

fn schema() -> Schema {
    serde_json::from_value(json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "id", "required": true, "type": "string"}]}))
    .unwrap()
}

fn new(properties: &[(&str, &str)]) -> Result<ViewMetadata, CatalogError> {
    let properties = properties.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let properties = properties.collect();
    create(Uuid::from_u128(7), "file:///w/v".to_owned(), schema(), version("1", 1000), properties)
}

fn replace(base: &ViewMetadata, version: ViewVersion) -> Result<ViewMetadata, CatalogError> {
    apply_updates(
        base,
        &[
            ViewUpdate::AddViewVersion { view_version: version },
            ViewUpdate::SetCurrentViewVersion { view_version_id: -1 },
        ],
    )
}

#[track_caller]
fn refused(result: Result<ViewMetadata, CatalogError>, part: &str) {
    let Err(CatalogError::IllegalArgument(text)) = result else { panic!("{result:?}") };
    assert!(text.contains(part), "{text}");
}

#[test]
fn a_view_of_another_identity_fails_the_requirement() {
    let view = new(&[]).unwrap();
    let mut requirement = ViewRequirement::UuidMatch { uuid: view.uuid() };
    check_requirements(std::slice::from_ref(&requirement), &view).unwrap();
    requirement = ViewRequirement::UuidMatch { uuid: Uuid::from_u128(8) };
    let failed = check_requirements(&[requirement], &view).unwrap_err();
    let (expected, found) = (Uuid::from_u128(8), Uuid::from_u128(7));
    assert_eq!(
        failed.to_string(),
        format!("Requirement failed: view UUID does not match: expected {expected} != {found}")
    );
}

#[test]
fn a_view_keeps_as_many_versions_as_it_wants() {
    for (properties, kept) in [(&[][..], 10), (&[("version.history.num-entries", "3")][..], 3)] {
        let mut view = new(properties).unwrap();
        for number in 2..=15 {
            view = replace(&view, version(&number.to_string(), 1000 + number)).unwrap();
        }
        assert_eq!((view.versions().len(), view.history().len()), (kept, kept));
        assert_eq!(view.current_version_id(), 15);
        let json = to_json(&view);
        let ids = json["versions"].as_array().unwrap().iter().map(|v| v["version-id"].as_i64());
        assert!(ids.is_sorted(), "{json}");
    }
    for wrong in ["0", "-1", "many"] {
        refused(new(&[("version.history.num-entries", wrong)]), "must be positive");
        let updates = HashMap::from([(HISTORY_PROPERTY.to_owned(), wrong.to_owned())]);
        let update = ViewUpdate::SetProperties { updates };
        refused(apply_updates(&new(&[]).unwrap(), &[update]), "must be positive");
    }
}

#[test]
fn a_replace_that_is_sent_again_changes_nothing() {
    let view = new(&[]).unwrap();
    let once = replace(&view, version("2", 2000)).unwrap();
    assert_ne!(once, view);
    assert_eq!(replace(&once, version("2", 3000)).unwrap(), once);
}

#[test]
fn a_slow_clock_does_not_keep_a_client_from_replacing_a_view() {
    let hour = 3_600_000;
    let view = replace(&new(&[]).unwrap(), version("2", 10 * hour)).unwrap();
    let view = replace(&view, version("3", 9 * hour)).unwrap();
    let times: Vec<i64> = view.history().iter().map(|entry| entry.timestamp_ms()).collect();
    assert_eq!(times, [1000, 10 * hour, 10 * hour]);
    assert_eq!(view.current_version().timestamp_ms(), 10 * hour);
}

#[test]
fn what_does_not_fit_is_refused() {
    let view = new(&[]).unwrap();
    refused(replace(&view, dialects(&["trino"], "1", 2000)), "loss of view dialects");
    let twice = replace(&view, dialects(&["spark", "SPARK"], "1", 2000));
    refused(twice, "Cannot add multiple queries for dialect");
    refused(replace(&view, dialects(&[], "1", 2000)), "without specifying a query");
    let other = ViewUpdate::AssignUuid { uuid: Uuid::from_u128(8) };
    refused(apply_updates(&view, &[other]), "Cannot reassign uuid");
    let unknown = ViewUpdate::SetCurrentViewVersion { view_version_id: 9 };
    refused(apply_updates(&view, &[unknown]), "unknown version");
    let allowed = new(&[("replace.drop-dialect.allowed", "true")]).unwrap();
    replace(&allowed, dialects(&["trino"], "1", 2000)).unwrap();
}
