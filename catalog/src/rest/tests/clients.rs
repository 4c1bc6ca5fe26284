//! Requests of clients that no test can run here, sent again as they were recorded.
//!
//! `clients.jsonl` has one request a line: who sends it, method, path, body, and the status that the
//! client needs. `{uuid}` stands for the identity of the table that was made last. Recorded were
//! iceberg-js 1.0.0, iceberg-go 0.7.0 and iceberg-catalog-rest 0.10.1 (Rust), which puts names into
//! URLs unescaped: where a name does not survive that, only the column has it. Appends are left out,
//! since their files are elsewhere.

use super::*;

#[derive(serde::Deserialize)]
struct Sent {
    agent: String,
    method: String,
    path: String,
    body: String,
    status: u16,
}

#[tokio::test]
async fn recorded_requests_of_other_clients_are_answered_as_they_need_it() {
    let server = Server::start().await;
    let (mut uuid, mut agents) = (String::new(), std::collections::BTreeSet::new());
    for (number, line) in (1..).zip(include_str!("clients.jsonl").lines()) {
        let sent: Sent = serde_json::from_str(line).unwrap();
        let request = Request::builder().method(sent.method.as_str()).uri(&sent.path);
        let request = request.header("user-agent", &sent.agent);
        let body = Body::from(sent.body.replace("{uuid}", &uuid));
        let answer = server.send(request.body(body).unwrap()).await;
        assert_eq!(answer.status.as_u16(), sent.status, "line {number}: {line}\n{}", answer.body);
        if let Some(made) = answer.body["metadata"]["table-uuid"].as_str() {
            made.clone_into(&mut uuid);
        }
        agents.insert(sent.agent.split('/').next().unwrap().to_owned());
    }
    assert!(3 <= agents.len(), "{agents:?}");
    let left = server.get("/v1/namespaces").await.ok();
    assert_eq!(left["namespaces"], json!([]), "each client has dropped what it made");
}
