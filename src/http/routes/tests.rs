use super::*;

#[test]
fn every_route_is_described() {
    let text = include_str!("../../../schemas/openapi/icecore.json");
    let described: serde_json::Value = serde_json::from_str(text).unwrap();
    for Route { method, path, .. } in ROUTES {
        // Aliases, and the description itself.
        if !["/ingest/", "/e", "/e/", "/openapi.json"].contains(path) {
            let operation = &described["paths"][path][method.to_lowercase()];
            assert!(operation.is_object(), "{method} {path}");
        }
    }
}
