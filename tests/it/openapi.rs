//! The description of the API: what the server answers, what the repository has, and that it is whole.

use crate::harness::TestServer;
use icecore::http::{openapi::document, routes::ROUTES};
use serde_json::Value;
use std::{fs, path::Path};

/// `UPDATE=1` writes the file anew.
#[test]
fn the_file_is_what_the_routes_and_their_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/openapi/icecore.json");
    let text = document();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is not what the routes say; run with UPDATE=1", path.display());
}

#[tokio::test]
async fn the_server_answers_it_with_its_version() {
    let server = TestServer::start().await;
    let answer: Value = server.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(answer, serde_json::from_str::<Value>(&document()).unwrap());
    assert_eq!(answer["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(answer["paths"]["/ingest"]["post"]["summary"].as_str().unwrap().contains("`/e`"));
    server.stop().await;
}

#[test]
fn every_route_is_described() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let mut others = Vec::new();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        if operation.is_null() {
            others.push(route.path);
            continue;
        }
        // Of what goes on by itself that it was taken.
        let done = ["200", "201", "202"]
            .into_iter()
            .find(|status| !operation["responses"][status].is_null());
        assert!(done.is_some(), "{} {}", route.method, route.path);
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let about = parameter["description"].as_str().unwrap_or_default();
            assert!(!about.is_empty(), "{} {}: {parameter}", route.method, route.path);
        }
    }
    let is_call = |path: &&str| path.starts_with("/v1/");
    let (calls, others): (Vec<&str>, Vec<&str>) = others.into_iter().partition(is_call);
    assert_eq!(others, ["/ingest/", "/e", "/e/", "/ingest/", "/e", "/e/"], "names of /ingest");
    // Those of `/v1/batch`, and the other types and first letters beside `/v1/track`.
    let expected = "b import t identify i page p screen s group g alias a";
    let expected: Vec<String> = expected.split(' ').map(|name| format!("/v1/{name}")).collect();
    assert_eq!(calls, expected);
}

/// Each member has a description, and each reference leads somewhere.
fn check(at: &str, value: &Value, document: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let found = document.pointer(reference.trim_start_matches('#'));
                assert!(
                    found.is_some(),
                    "{at}: {reference}; schemas/src/generate/tests.rs lists types"
                );
            }
            if let Some(Value::Object(properties)) = members.get("properties") {
                for (name, property) in properties {
                    assert!(property["description"].is_string(), "{at}.{name}");
                }
            }
            for (name, value) in members {
                check(&format!("{at}/{name}"), value, document);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| check(at, value, document)),
        _ => (),
    }
}

#[test]
fn every_member_is_described_and_no_reference_leads_nowhere() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    check("", &document, &document);
}
