//! Pages of lists, and what the catalog says of itself.

use super::*;

#[tokio::test]
async fn every_list_comes_in_pages_with_tokens_that_tell_nothing() {
    let (server, _) = Server::with_table().await;
    let names = ["a b", "c%2F", "d", "é", "z"];
    let view = json!({"version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {},
        "default-namespace": ["ns"],
        "representations": [{"type": "sql", "sql": "select 1", "dialect": "spark"}]});
    server.call(Method::DELETE, "/v1/namespaces/ns/tables/t").await.empty();
    for name in names {
        server.post("/v1/namespaces", json!({"namespace": ["ns", name]})).await.ok();
        server.post("/v1/namespaces/ns/tables", new_table(name)).await.ok();
        let name = format!("v{name}");
        let body = json!({"name": name, "schema": new_table("x")["schema"],
            "view-version": view, "properties": {}});
        server.post("/v1/namespaces/ns/views", body).await.ok();
    }
    for (path, member) in [
        ("/v1/namespaces?parent=ns&", "namespaces"),
        ("/v1/namespaces/ns/tables?", "identifiers"),
        ("/v1/namespaces/ns/views?", "identifiers"),
    ] {
        let all = server.get(path).await.ok();
        assert_eq!(all["next-page-token"], Value::Null);
        let sized = server.get(&format!("{path}pageSize=2")).await.ok();
        assert_eq!(sized, all, "without a token everything comes at once");
        let (mut paged, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = server.get(&format!("{path}pageSize=2&pageToken={token}")).await.ok();
            let items = page[member].as_array().unwrap();
            assert!(items.len() <= 2);
            paged.extend(items.clone());
            pages += 1;
            let Some(next) = page["next-page-token"].as_str() else { break };
            assert!(next.bytes().all(|byte| byte.is_ascii_hexdigit()), "{next}");
            token = next.to_owned();
        }
        assert_eq!((json!(paged), pages), (all[member].clone(), 3));
        for wrong in ["pageToken=zz", "pageToken=6", "pageToken=ff", "pageToken=&pageSize=-1"] {
            let refused = server.get(&format!("{path}{wrong}")).await;
            refused.refused(400, "BadRequestException");
        }
    }
}

#[tokio::test]
async fn an_announced_separator_is_understood_beside_the_usual_one() {
    let server = Server::start_with(tempfile::tempdir().unwrap(), |catalog| {
        catalog.with_namespace_separator(".")
    })
    .await;
    let config = server.get("/v1/config").await.ok();
    assert_eq!(config["overrides"], json!({"namespace-separator": "."}));
    for namespace in [json!(["a"]), json!(["a", "b"]), json!(["a", "b", "c"])] {
        server.post("/v1/namespaces", json!({"namespace": namespace})).await.ok();
    }
    server.post("/v1/namespaces/a.b/tables", new_table("t")).await.ok();
    for path in ["a.b", "a%1Fb", "a%2Eb"] {
        let namespace = server.get(&format!("/v1/namespaces/{path}")).await.ok();
        assert_eq!(namespace["namespace"], json!(["a", "b"]), "{path}");
        server.get(&format!("/v1/namespaces/{path}/tables/t")).await.ok();
        let below = server.get(&format!("/v1/namespaces?parent={path}")).await.ok();
        assert_eq!(below["namespaces"], json!([["a", "b", "c"]]), "{path}");
    }
    server.get("/v1/namespaces/a.b%1Fc").await.ok();
    // Nobody could name it.
    let dotted = server.post("/v1/namespaces", json!({"namespace": ["x.y"]})).await;
    dotted.refused(400, "BadRequestException");
}

#[tokio::test]
async fn a_usual_separator_leaves_other_signs_to_names() {
    let server = Server::start().await;
    server.post("/v1/namespaces", json!({"namespace": ["x.y"]})).await.ok();
    let namespace = server.get("/v1/namespaces/x.y").await.ok();
    assert_eq!(namespace["namespace"], json!(["x.y"]));
}

/// What the specification has, by path. A path's methods that are not in `ENDPOINTS` are refused.
const PATHS: [&str; 25] = [
    "/namespaces",
    "/namespaces/{namespace}",
    "/namespaces/{namespace}/properties",
    "/namespaces/{namespace}/register",
    "/namespaces/{namespace}/register-view",
    "/namespaces/{namespace}/tables",
    "/namespaces/{namespace}/tables/{table}",
    "/namespaces/{namespace}/tables/{table}/credentials",
    "/namespaces/{namespace}/tables/{table}/metrics",
    "/namespaces/{namespace}/tables/{table}/plan",
    "/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
    "/namespaces/{namespace}/tables/{table}/sign",
    "/namespaces/{namespace}/tables/{table}/tasks",
    "/namespaces/{namespace}/tables/{table}/unregister",
    "/namespaces/{namespace}/views",
    "/namespaces/{namespace}/views/{view}",
    "/namespaces/{namespace}/functions",
    "/namespaces/{namespace}/functions/{function}",
    "/events",
    "/tables/rename",
    "/views/rename",
    "/transactions/commit",
    "/aws/s3/sign",
    "/scan-report",
    "/v2",
];

/// Own routes beside those of the specification.
const EXTENSIONS: [&str; 1] = ["GET /namespaces/{namespace}/tables/{table}/metrics"];

/// The router answers exactly what `ENDPOINTS` lists: with and without the prefix, and nothing
/// that a client would take for support of what is not listed.
#[tokio::test]
async fn the_listed_endpoints_are_those_that_the_router_has() {
    let server = Server::start().await;
    let listed = |method: &Method, path: &str| {
        config::ENDPOINTS.contains(&format!("{method} /v1/{{prefix}}{path}").as_str())
            || EXTENSIONS.contains(&format!("{method} {path}").as_str())
    };
    for endpoint in config::ENDPOINTS {
        let path = endpoint.split_once("{prefix}").unwrap().1;
        assert!(PATHS.contains(&path), "{endpoint} is no path of the specification");
    }
    for path in PATHS {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
            // A route that answers GET answers HEAD as well, without a body.
            let is_supported =
                listed(&method, path) || (method == Method::HEAD && listed(&Method::GET, path));
            for prefix in ["/v1", "/v1/icecore"] {
                let url = format!("{prefix}{path}").replace(['{', '}'], "");
                let answer = server.call(method.clone(), &url).await;
                let refused = match answer.status.as_u16() {
                    405 | 406 | 501 => true,
                    404 if method != Method::HEAD => {
                        answer.body["error"]["type"] == json!("NotFoundException")
                    }
                    404 => !listed(&Method::HEAD, path),
                    _ => false,
                };
                let head_of_get = method == Method::HEAD && !listed(&method, path);
                assert!(
                    refused != is_supported || head_of_get,
                    "{method} {url}: {}",
                    answer.status
                );
                if refused && method != Method::HEAD {
                    let error = &answer.body["error"];
                    assert_eq!(error["code"], json!(answer.status.as_u16()), "{method} {url}");
                }
            }
        }
    }
}
