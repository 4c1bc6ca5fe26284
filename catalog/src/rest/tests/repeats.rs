//! Requests that are sent again under their `Idempotency-Key`.

use super::*;
use crate::rest::guard;
use std::collections::HashSet;

/// A request under an `Idempotency-Key`.
async fn keyed(server: &Server, key: &str, method: Method, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("idempotency-key", key);
    server.send(request.body(body).unwrap()).await
}

/// What a client sends: the route as the table of routes has it, method and path, body.
type Sent = (&'static str, Method, &'static str, Value);

/// Every route that changes something, in an order in which each succeeds; staged creates, commits
/// that change nothing and refusals too.
fn requests(table: &Value, copy: &str, view_copy: &str) -> Vec<Sent> {
    let named = |name: &str| json!({"namespace": ["ns"], "name": name});
    let set = |value: &str| {
        json!({"requirements": [], "updates": [
            {"action": "set-properties", "updates": {"k": value}}]})
    };
    let renamed = |from: &str, to: &str| json!({"source": named(from), "destination": named(to)});
    let register = |name: &str, file: &str, overwrite: bool| json!({"name": name, "metadata-location": file, "overwrite": overwrite});
    let mut staged = new_table("staged");
    staged["stage-create"] = json!(true);
    let uuid = &table["metadata"]["table-uuid"];
    let change = json!({"identifier": named("t"),
        "requirements": [{"type": "assert-table-uuid", "uuid": uuid}],
        "updates": [{"action": "set-properties", "updates": {"both": "x"}}]});
    let nothing = json!({"identifier": named("t"), "requirements": [], "updates": []});
    let (post, delete) = (Method::POST, Method::DELETE);
    let (table, tables) = ("/namespaces/{}/tables/{}", "/namespaces/{}/tables");
    let (view, views) = ("/namespaces/{}/views/{}", "/namespaces/{}/views");
    let registered = "/namespaces/{}/register";
    let sent = |route, method: &Method, path, body| (route, method.clone(), path, body);
    let properties = json!({"updates": {"a": "1"}, "removals": ["owner", "none"]});
    let two = json!({"namespace": ["two"], "properties": {"owner": "b"}});
    vec![
        sent("/namespaces", &post, "/v1/namespaces", two),
        sent("/namespaces/{}/properties", &post, "/v1/namespaces/two/properties", properties),
        sent(tables, &post, "/v1/namespaces/ns/tables", new_table("u")),
        sent(tables, &post, "/v1/namespaces/ns/tables", staged),
        sent(table, &post, "/v1/namespaces/ns/tables/t", set("v")),
        sent(table, &post, "/v1/namespaces/ns/tables/t", nothing.clone()),
        sent(
            "/transactions/commit",
            &post,
            "/v1/transactions/commit",
            json!({"table-changes": [change]}),
        ),
        sent(
            "/transactions/commit",
            &post,
            "/v1/transactions/commit",
            json!({"table-changes": [nothing]}),
        ),
        sent("/tables/rename", &post, "/v1/tables/rename", renamed("u", "w")),
        sent(registered, &post, "/v1/namespaces/ns/register", register("w", copy, true)),
        sent(
            "/namespaces/{}/tables/{}/unregister",
            &post,
            "/v1/namespaces/ns/tables/w/unregister",
            Value::Null,
        ),
        sent(registered, &post, "/v1/namespaces/ns/register", register("x", copy, false)),
        sent(table, &delete, "/v1/namespaces/ns/tables/x", Value::Null),
        sent(views, &post, "/v1/namespaces/ns/views", super::views::new_view("v", "select 1")),
        sent(view, &post, "/v1/namespaces/ns/views/v", set("v")),
        sent(view, &post, "/v1/namespaces/ns/views/v", set("v")),
        sent("/views/rename", &post, "/v1/views/rename", renamed("v", "o")),
        sent(view, &delete, "/v1/namespaces/ns/views/o", Value::Null),
        sent(
            "/namespaces/{}/register-view",
            &post,
            "/v1/namespaces/ns/register-view",
            register("p", view_copy, false),
        ),
        sent("/namespaces/{}", &delete, "/v1/namespaces/two", Value::Null),
        // Refusals that a repeat would get again.
        sent("/namespaces/{}", &delete, "/v1/namespaces/ns", Value::Null),
        sent(table, &post, "/v1/namespaces/ns/tables/none", set("v")),
    ]
}

/// A table's and a view's metadata file that no table and no view has.
async fn copies(server: &Server, table: &Value) -> (String, String) {
    let own = format!("{}/copy", server.root);
    let mut metadata = table["metadata"].clone();
    metadata["table-uuid"] = json!("00000000-0000-4000-8000-00000000000a");
    metadata["location"] = json!(own);
    let copy = format!("{own}/metadata/1.metadata.json");
    let storage = server.catalog.storage();
    storage.put(&copy, metadata.to_string().into()).await.unwrap();
    let made = server.post("/v1/namespaces/ns/views", super::views::new_view("c", "select 2"));
    let made = made.await.ok();
    server.call(Method::DELETE, "/v1/namespaces/ns/views/c").await.empty();
    (copy, made["metadata-location"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_request_that_is_sent_again_under_its_key_is_carried_out_once() {
    const REFUSED: usize = 2;
    let (mut server, table) = Server::with_table().await;
    let (copy, view_copy) = copies(&server, &table).await;
    let requests = requests(&table, &copy, &view_copy);
    let covered: HashSet<(&str, &str)> =
        requests.iter().map(|(route, method, ..)| (method.as_str(), *route)).collect();
    for (method, route, need) in guard::ROUTES {
        assert!(!need.is_change() || covered.contains(&(*method, *route)), "{method} {route}");
    }
    let mut answers = Vec::new();
    for (n, (_, method, path, body)) in requests.iter().enumerate() {
        // Any version of UUID is a key.
        let key = format!("00000000-0000-{}000-8000-{n:012}", 1 + n % 8);
        let answer = keyed(&server, &key, method.clone(), path, body).await;
        let succeeds = n < requests.len() - REFUSED;
        assert_eq!(answer.status.is_success(), succeeds, "{path}: {}", answer.body);
        answers.push((key, answer));
    }
    let later = json!({"requirements": [], "updates": [
        {"action": "set-properties", "updates": {"k": "later"}}]});
    server.post("/v1/namespaces/ns/tables/t", later).await.ok();
    let changes = server.catalog.metastore().events(0, 100).await.unwrap().len();
    let files = server.catalog.storage().list(&server.root).await.unwrap();
    // Another process, after a restart.
    server = Server::open(server.folder, 1_800_000_000_000).await;
    for ((_, method, path, body), (key, first)) in requests.iter().zip(&answers) {
        let again = keyed(&server, key, method.clone(), path, body).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{path}");
        let mut other = if body.is_null() { json!({}) } else { body.clone() };
        other["other"] = json!(1);
        let other = keyed(&server, key, method.clone(), path, &other).await;
        other.refused(422, "UnprocessableEntityException");
    }
    let now = server.get("/v1/namespaces/ns/tables/t").await.ok();
    assert_eq!(now["metadata"]["properties"]["k"], "later");
    assert_eq!(server.catalog.metastore().events(0, 100).await.unwrap().len(), changes);
    assert_eq!(server.catalog.storage().list(&server.root).await.unwrap(), files);
    let bad =
        keyed(&server, "abc", Method::POST, "/v1/namespaces", &json!({"namespace": ["x"]})).await;
    bad.refused(400, "BadRequestException");

    // Once its time is over a key may be used for anything.
    let later = 1_800_000_000_000 + 2 * crate::catalog::REQUEST_LIFETIME_MS;
    server = Server::open(server.folder, later).await;
    server.catalog.upkeep().forget_records().await.unwrap();
    let key = &answers[0].0;
    keyed(&server, key, Method::POST, "/v1/namespaces", &json!({"namespace": ["x"]})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_is_sent_many_times_at_once_is_carried_out_once() {
    let (server, _) = Server::with_table().await;
    let body = json!({"requirements": [], "updates": [
        {"action": "set-properties", "updates": {"k": "v"}}]});
    let before = server.catalog.metastore().events(0, 100).await.unwrap().len();
    let key = "00000000-0000-4000-8000-000000000001";
    let path = "/v1/namespaces/ns/tables/t";
    let sent = (0..8).map(|_| keyed(&server, key, Method::POST, path, &body));
    let answers = futures::future::join_all(sent).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, &answers[0].body));
    }
    assert_eq!(server.catalog.metastore().events(0, 100).await.unwrap().len(), before + 1);
}
