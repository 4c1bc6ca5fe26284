use super::*;
use crate::http::routes;
use std::collections::BTreeSet;

#[test]
fn the_router_and_the_table_of_what_routes_need_are_the_same() {
    let text = format!("{:?}", routes());
    let (routes, paths) = text.split_once("Node { paths: {").expect("the router shows its paths");
    let mut found = BTreeSet::new();
    for route in routes.split("RouteId(").skip(1) {
        let (id, route) = route.split_once("): MethodRouter(").expect("every route has methods");
        let (_, path) = paths.split_once(&format!("RouteId({id}): \"")).unwrap();
        let path = path.split_once('"').unwrap().0;
        let fields = route.split_once("fallback:").unwrap().0;
        let before = found.len();
        for method in ["get", "head", "delete", "options", "patch", "post", "put", "trace"] {
            let (_, value) = fields.split_once(&format!("{method}: ")).unwrap();
            if !value.starts_with("None") {
                found.insert((method.to_uppercase(), path.to_owned()));
            }
        }
        assert!(before < found.len(), "{path} takes no method that the table could list");
    }
    let listed: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(found, listed);
}

#[test]
fn every_route_is_described() {
    let text = include_str!("../../../schemas/openapi/icecore.json");
    let described: serde_json::Value = serde_json::from_str(text).unwrap();
    for (method, path, _) in ROUTES {
        // Aliases, and the description itself.
        if !["/ingest/", "/e", "/e/", "/openapi.json"].contains(path) {
            let operation = &described["paths"][path][method.to_lowercase()];
            assert!(operation.is_object(), "{method} {path}");
        }
    }
}
