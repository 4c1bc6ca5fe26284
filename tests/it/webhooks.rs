//! Deliveries of providers, and the secrets that they sign with.

use crate::{access::Guarded, admin::icecore, harness::TestServer};
use base64::{Engine, engine::general_purpose::STANDARD};
use icecore_lake::clock::Clock;
use reqwest::{Method, Response};
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};

const NOW_S: i64 = 1_795_183_200;

fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, secret), &parts.concat()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Headers = Vec<(&'static str, String)>;

fn github(secret: &str, delivery: &str, body: &[u8]) -> Headers {
    vec![
        ("x-hub-signature-256", format!("sha256={}", hex(&mac(secret.as_bytes(), &[body])))),
        ("x-github-delivery", delivery.to_owned()),
        ("x-github-event", "pull_request".to_owned()),
    ]
}

/// Headers of each provider for a body that it could send at this time.
fn signed(provider: &str, secret: &str, time_s: i64, body: &[u8]) -> Headers {
    let key = secret.as_bytes();
    let time = time_s.to_string();
    match provider {
        "github" => github(secret, "d-1", body),
        "stripe" => {
            let signature = hex(&mac(key, &[time.as_bytes(), b".", body]));
            vec![("stripe-signature", format!("t={time},v1={signature},v0=00"))]
        }
        "slack" => {
            let signature = hex(&mac(key, &[b"v0:", time.as_bytes(), b":", body]));
            vec![
                ("x-slack-request-timestamp", time),
                ("x-slack-signature", format!("v0={signature}")),
            ]
        }
        "svix" | "standard-webhooks" => {
            let key = STANDARD.decode(&secret["whsec_".len()..]).unwrap();
            let signature = STANDARD.encode(mac(&key, &[b"msg_1.", time.as_bytes(), b".", body]));
            let names = match provider {
                "svix" => ["svix-id", "svix-timestamp", "svix-signature"],
                _ => ["webhook-id", "webhook-timestamp", "webhook-signature"],
            };
            let values = ["msg_1".to_owned(), time, format!("v1,bm8= v1,{signature}")];
            names.into_iter().zip(values).collect()
        }
        "shopify" => vec![
            ("x-shopify-hmac-sha256", STANDARD.encode(mac(key, &[body]))),
            ("x-shopify-topic", "orders/create".to_owned()),
            ("x-shopify-webhook-id", "w-1".to_owned()),
        ],
        "linear" => vec![
            ("linear-signature", hex(&mac(key, &[body]))),
            ("linear-delivery", "l-1".to_owned()),
            ("linear-event", "Issue".to_owned()),
        ],
        "workos" => {
            let time = (time_s * 1000).to_string();
            let signature = hex(&mac(key, &[time.as_bytes(), b".", body]));
            vec![("workos-signature", format!("t={time}, v1={signature}"))]
        }
        _ => vec![("x-signature-256", format!("sha256={}", hex(&mac(key, &[body]))))],
    }
}

impl TestServer {
    async fn deliver(&self, path: &str, headers: &[(&str, String)], body: &[u8]) -> (u16, Value) {
        let mut request = self.http.post(format!("{}{path}", self.url)).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response: Response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn set_secret(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/admin/webhooks/{path}", self.url);
        let response = self.http.put(url).body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

async fn start() -> (TestServer, Clock) {
    let clock = Clock::manual(NOW_S * 1000);
    let folder = tempfile::tempdir().unwrap();
    (TestServer::start_at(folder, &[], clock.clone()).await, clock)
}

/// Provider, secret, body, and the event that it becomes: id, type, event_type, delivery_id.
const DELIVERIES: &[(&str, &str, &str, [Option<&str>; 4])] = &[
    (
        "github",
        "s1",
        r#"{ "action":"opened" , "number":1.0 }"#,
        [
            Some("github:d-1"),
            Some("webhook.github.pull_request"),
            Some("pull_request"),
            Some("d-1"),
        ],
    ),
    (
        "stripe",
        "whsec_plain",
        r#"{"id":"evt_1","type":"invoice.paid","data":{"object":{}}}"#,
        [
            Some("stripe:evt_1"),
            Some("webhook.stripe.invoice.paid"),
            Some("invoice.paid"),
            Some("evt_1"),
        ],
    ),
    (
        "slack",
        "s3",
        r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}"#,
        [Some("slack:Ev1"), Some("webhook.slack.app_mention"), Some("app_mention"), Some("Ev1")],
    ),
    (
        "svix",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        r#"{"type":"user.created"}"#,
        [
            Some("svix:msg_1"),
            Some("webhook.svix.user.created"),
            Some("user.created"),
            Some("msg_1"),
        ],
    ),
    (
        "standard-webhooks",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        r#"{"type":"user created!"}"#,
        [
            Some("standard-webhooks:msg_1"),
            Some("webhook.standard-webhooks.user.created."),
            Some("user created!"),
            Some("msg_1"),
        ],
    ),
    (
        "shopify",
        "s5",
        r#"{"id":1}"#,
        [
            Some("shopify:w-1"),
            Some("webhook.shopify.orders.create"),
            Some("orders/create"),
            Some("w-1"),
        ],
    ),
    (
        "linear",
        "s6",
        r#"{"action":"create","type":"Issue","webhookTimestamp":1795183200000}"#,
        [Some("linear:l-1"), Some("webhook.linear.Issue"), Some("Issue"), Some("l-1")],
    ),
    (
        "workos",
        "s7",
        r#"{"id":"event_1","event":"dsync.user.created"}"#,
        [
            Some("workos:event_1"),
            Some("webhook.workos.dsync.user.created"),
            Some("dsync.user.created"),
            Some("event_1"),
        ],
    ),
    ("generic", "s8", "not json at all \u{e9}", [None, Some("webhook.generic"), None, None]),
    ("acme", "s9", r#"{"event":"ping"}"#, [None, Some("webhook.acme.ping"), Some("ping"), None]),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_believed_stored_whole_and_stored_once() {
    let (server, clock) = start().await;
    for (provider, secret, body, [id, event_type, event, delivery]) in DELIVERIES {
        let path = format!("/webhooks/{provider}?ns=shop.example&extra=1");
        let headers = signed(provider, secret, NOW_S, body.as_bytes());
        let (status, _) = server.deliver(&path, &headers, body.as_bytes()).await;
        assert_eq!(status, 404, "{provider} has no secret yet");
        let place = format!("shop.example/{provider}");
        let (status, set) = server.set_secret(&place, &json!({ "secret": secret })).await;
        assert_eq!(status, 200, "{set}");
        assert!(!set.to_string().contains(secret), "{set}");
        let (status, reply) = server.deliver(&path, &headers, body.as_bytes()).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{provider} {reply}");
        let (status, again) = server.deliver(&path, &headers, body.as_bytes()).await;
        assert_eq!((status, &again["duplicates"], &again["seq"]), (200, &json!(1), &reply["seq"]));
        let sql = format!(
            "SELECT id, type, event_type, delivery_id, verified, provider, payload, ns, CAST(ts AS BIGINT)
             FROM events WHERE provider = '{provider}'"
        );
        let rows = server.rows("shop.example", &sql).await;
        assert_eq!(rows.as_array().unwrap().len(), 1, "{provider} {rows}");
        let row = rows[0].as_array().unwrap();
        if id.is_some() {
            assert_eq!(row[0], json!(id));
        }
        let rest = json!([
            event_type,
            event,
            delivery,
            true,
            provider,
            body,
            "shop.example",
            NOW_S * 1_000_000
        ]);
        assert_eq!(json!(row[1..]), rest, "{provider}");

        // Wrong in each way, and nothing is stored of it.
        let other = format!("{body} ");
        let mut wrong = vec![
            (signed(provider, "whsec_b3RoZXI=", NOW_S, body.as_bytes()), body.as_bytes()),
            (headers.clone(), other.as_bytes()),
            (Vec::new(), body.as_bytes()),
        ];
        if !["github", "shopify", "linear", "generic", "acme"].contains(provider) {
            wrong.push((signed(provider, secret, NOW_S - 301, body.as_bytes()), body.as_bytes()));
            wrong.push((signed(provider, secret, NOW_S + 301, body.as_bytes()), body.as_bytes()));
        }
        for (headers, body) in wrong {
            let (status, refused) = server.deliver(&path, &headers, body).await;
            assert_eq!(status, 401, "{provider} {refused}");
        }
        let elsewhere = format!("/webhooks/{provider}?ns=other");
        let (status, _) = server.deliver(&elsewhere, &headers, body.as_bytes()).await;
        assert_eq!(status, 404, "{provider}");
    }
    let count = "SELECT count(*), count(DISTINCT id) FROM events";
    let expected = json!([[DELIVERIES.len(), DELIVERIES.len()]]);
    assert_eq!(server.rows("shop.example", count).await, expected);
    let letters = server.rows("shop.example", "SELECT count(*) FROM dead_letters").await;
    assert_eq!(letters, json!([[0]]));
    // Linear's time is in its body.
    clock.advance_ms(301_000);
    let (provider, secret, body, _) = DELIVERIES[6];
    let headers = signed(provider, secret, NOW_S, body.as_bytes());
    let path = "/webhooks/linear?ns=shop.example";
    assert_eq!(server.deliver(path, &headers, body.as_bytes()).await.0, 401);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_comes_again_with_another_body_is_the_same_delivery() {
    let (server, _) = start().await;
    server.set_secret("default/github", &json!({ "secret": "s" })).await;
    for (body, duplicates) in [("{\"n\":1}", 0), ("{\"n\":2}", 1)] {
        let headers = github("s", "one", body.as_bytes());
        let (status, reply) = server.deliver("/webhooks/github", &headers, body.as_bytes()).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(duplicates)), "{reply}");
    }
    assert_eq!(server.rows("default", "SELECT payload FROM events").await, json!([["{\"n\":1}"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_and_bytes_that_are_no_text_are_kept_as_they_came() {
    let (server, _) = start().await;
    server.set_secret("default/github", &json!({ "secret": "s" })).await;
    let form = b"payload=%7B%22zen%22%3A%22Keep+it+simple%22%7D".to_vec();
    let mut headers = github("s", "form", &form);
    headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
    assert_eq!(server.deliver("/webhooks/github", &headers, &form).await.0, 200);
    let bytes = b"\xff\xfe\x00".to_vec();
    let headers = github("s", "bytes", &bytes);
    assert_eq!(server.deliver("/webhooks/github", &headers, &bytes).await.0, 200);
    let rows = server.rows("default", "SELECT payload, data, meta FROM events ORDER BY seq").await;
    let zen = r#"{"zen":"Keep it simple"}"#;
    let encoded = r#"{"payloadEncoding":"base64"}"#;
    let expected = json!([
        [String::from_utf8(form).unwrap(), zen, null],
        [STANDARD.encode(bytes), null, encoded]
    ]);
    assert_eq!(rows, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_is_answered_that_somebody_is_there() {
    let (server, _) = start().await;
    server.set_secret("default/slack", &json!({ "secret": "s" })).await;
    let body = br#"{"token":"t","challenge":"3eZbrw1a","type":"url_verification"}"#;
    let headers = signed("slack", "s", NOW_S, body);
    let (status, answer) = server.deliver("/webhooks/slack", &headers, body).await;
    assert_eq!((status, answer), (200, json!({ "challenge": "3eZbrw1a" })));
    let headers = signed("slack", "wrong", NOW_S, body);
    assert_eq!(server.deliver("/webhooks/slack", &headers, body).await.0, 401);
    assert_eq!(server.get("/v1/default/tables").await.status(), 404, "nothing was stored");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_secrets_are_valid_at_once_and_survive_a_restart() {
    let (server, clock) = start().await;
    for secret in ["one", "two", "three"] {
        clock.advance_ms(1000);
        let (status, _) = server.set_secret("default/github", &json!({ "secret": secret })).await;
        assert_eq!(status, 200);
    }
    let server = TestServer::start_at(server.stop().await, &[], clock).await;
    for (secret, expected) in [("one", 401), ("two", 200), ("three", 200)] {
        let headers = github(secret, secret, b"{}");
        assert_eq!(server.deliver("/webhooks/github", &headers, b"{}").await.0, expected);
    }
    let shown: Value = server.get("/admin/webhooks/default/github").await.json().await.unwrap();
    assert_eq!(shown["since"], "2026-11-20T14:00:03.000Z", "{shown}");
    assert_eq!(shown["secrets"].as_array().unwrap().len(), 2);
    assert!(!shown.to_string().contains("three"), "{shown}");
    let listed: Value = server.get("/admin/webhooks").await.json().await.unwrap();
    assert_eq!(listed, json!({ "webhooks": [shown] }));
    for (path, body) in [
        ("default/github", json!({ "secret": "" })),
        ("default/github", json!({ "secrets": "x" })),
        ("default/svix", json!({ "secret": "whsec_!" })),
        ("default/github", json!({ "secret": "x", "scheme": "rot13" })),
    ] {
        let (status, refused) = server.set_secret(path, &body).await;
        assert_eq!(status, 400, "{refused}");
    }
    let url = format!("{}/admin/webhooks/default/github", server.url);
    assert_eq!(server.http.delete(&url).send().await.unwrap().status(), 200);
    assert_eq!(server.http.delete(&url).send().await.unwrap().status(), 404);
    assert_eq!(server.get("/admin/webhooks/default/github").await.status(), 404);
    let headers = github("three", "later", b"{}");
    assert_eq!(server.deliver("/webhooks/github", &headers, b"{}").await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_any_name_signs_as_it_is_said_to() {
    let (server, _) = start().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = json!({ "secret": secret, "scheme": "standard-webhooks" });
    assert_eq!(server.set_secret("default/resend", &body).await.0, 200);
    let body = br#"{"type":"email.sent"}"#;
    let headers = signed("svix", secret, NOW_S, body);
    assert_eq!(server.deliver("/webhooks/resend", &headers, body).await.0, 200);
    let row = server.rows("default", "SELECT id, type FROM events").await;
    assert_eq!(row, json!([["resend:msg_1", "webhook.resend.email.sent"]]));
    for name in ["Resend", "a%2Fb", "a.b", "%00"] {
        assert_eq!(server.deliver(&format!("/webhooks/{name}"), &headers, body).await.0, 404);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_settings_hold_where_there_is_none_of_a_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("webhooks.github.secret", r#"["old", "new"]"#)];
    let server = TestServer::start_in(folder, &settings).await;
    for secret in ["old", "new"] {
        let headers = github(secret, secret, b"{}");
        assert_eq!(server.deliver("/webhooks/github?ns=a", &headers, b"{}").await.0, 200);
    }
    server.set_secret("a/github", &json!({ "secret": "own" })).await;
    let headers = github("old", "later", b"{}");
    assert_eq!(server.deliver("/webhooks/github?ns=a", &headers, b"{}").await.0, 401);
    let headers = github("own", "own", b"{}");
    assert_eq!(server.deliver("/webhooks/github?ns=a", &headers, b"{}").await.0, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_cannot_be_stored_is_a_dead_letter_that_is_still_one_when_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW_S * 1000);
    let settings = [("ingest.types_max", "1")];
    let server = TestServer::start_at(folder, &settings, clock.clone()).await;
    server.ingest(&json!({ "type": "a", "id": "0" })).await;
    server.set_secret("default/stripe", &json!({ "secret": "s" })).await;
    let body = br#"{"id":"evt_1","type":"invoice.paid"}"#;
    let headers = signed("stripe", "s", NOW_S, body);
    let (status, reply) = server.deliver("/webhooks/stripe", &headers, body).await;
    assert_eq!((status, &reply["errors"][0]["code"]), (400, &json!("TOO_MANY_TYPES")), "{reply}");
    let id = reply["errors"][0]["deadLetter"].as_str().unwrap();
    let kept = server.get(&format!("/v1/default/dead-letters/{id}")).await;
    assert_eq!(kept.bytes().await.unwrap(), body.as_slice());
    let server = TestServer::start_at(server.stop().await, &[], clock).await;
    let retry = "/v1/default/dead-letters/retry";
    let (_, answer) = server.ingest_at(retry, &json!({ "all": true })).await;
    assert_eq!(answer["accepted"], 1, "{answer}");
    let sql =
        "SELECT id, type, event_type, verified, delivery_id, payload FROM events WHERE id <> '0'";
    let body = String::from_utf8(body.to_vec()).unwrap();
    let expected = json!([[
        "stripe:evt_1",
        "webhook.stripe.invoice.paid",
        "invoice.paid",
        true,
        "evt_1",
        body
    ]]);
    assert_eq!(server.rows("default", sql).await, expected);
    // An event that only says so of itself does not become one.
    let lie = json!({"id": "x", "source": "verified webhook: ", "type": "verified webhook: "});
    assert_eq!(server.ingest(&lie).await.0, 400);
    let (_, answer) = server.ingest_at(retry, &json!({ "all": true })).await;
    assert_eq!(answer["rejected"], 1, "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_it_sends_is_answered() {
    let guarded = Guarded::start().await;
    for path in ["/ingest", "/e", "/webhooks/github"] {
        let url = format!("{}{path}", guarded.server.url);
        let request = || guarded.server.http.request(Method::OPTIONS, &url);
        let plain = request().send().await.unwrap();
        assert_eq!(plain.status(), 200);
        assert_eq!(plain.headers()["allow"], "POST,OPTIONS");
        assert!(!plain.headers().contains_key("webhook-allowed-origin"));
        let asked = request()
            .header("webhook-request-origin", "eventemitter.example.com")
            .header("webhook-request-rate", "120")
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status(), 200);
        assert_eq!(asked.headers()["webhook-allowed-origin"], "eventemitter.example.com");
        assert_eq!(asked.headers()["webhook-allowed-rate"], "120");
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_needs_no_token_and_secrets_need_an_admin() {
    let guarded = Guarded::start().await;
    let admin = guarded.token(&json!({"name": "a", "scopes": ["admin:mine"]})).await;
    let writer = guarded.token(&json!({"name": "w", "scopes": ["write:mine"]})).await;
    let other = guarded.token(&json!({"name": "o", "scopes": ["admin:other"]})).await;
    let path = "/admin/webhooks/mine/github";
    let secret = json!({ "secret": "s" });
    for (token, expected) in [(&other, 404), (&writer, 403), (&admin, 200)] {
        assert_eq!(guarded.call(Method::PUT, token, path, &secret).await.0, expected);
        assert_eq!(guarded.get(token, path).await.0, expected);
    }
    let shown = guarded.get(&other, "/admin/webhooks").await;
    assert_eq!(shown, (200, json!({ "webhooks": [] })));
    let server = &guarded.server;
    let headers = github("s", "1", b"{}");
    assert_eq!(server.deliver("/webhooks/github?ns=mine", &headers, b"{}").await.0, 200);
    // A flood of wrong ones is a few records.
    let wrong = github("x", "1", b"{}");
    for _ in 0..50 {
        assert_eq!(server.deliver("/webhooks/github?ns=mine", &wrong, b"{}").await.0, 401);
    }
    let (_, page) = guarded.get(&guarded.admin, "/admin/audit").await;
    let records = page["records"].as_array().unwrap();
    assert!(records.len() < 12, "{page}");
    assert!(
        records
            .iter()
            .any(|record| record["action"] == "PUT /admin/webhooks/{namespace}/{provider}")
    );
    server.deliver("/webhooks/github?ns=mine", &wrong, b"{}").await;
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_reads_a_secret_and_shows_none() {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let server = TestServer::start().await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
        .args(["webhooks", "set", "github", "--ns", "shop.example", "--url", &server.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"not to be shown\n").unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let headers = github("not to be shown", "1", b"{}");
    let path = "/webhooks/github?ns=shop.example";
    assert_eq!(server.deliver(path, &headers, b"{}").await.0, 200);
    let (done, text) = icecore(&server, &["webhooks", "list"]);
    assert!(done && text.contains("shop.example") && !text.contains("to be shown"), "{text}");
    let delete = ["webhooks", "delete", "github", "--ns", "shop.example"];
    assert!(icecore(&server, &delete).0);
    assert!(!icecore(&server, &delete).0);
    assert_eq!(server.deliver(path, &headers, b"{}").await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_without_ids_is_told_so_and_may_say_what_tells_its_deliveries_apart() {
    let (server, _) = start().await;
    let body = br#"{"door":"open","event":{"no":7}}"#;
    let deliver = async |provider: &str, header: Option<&str>, body: &[u8]| {
        let mut headers = signed("generic", "s", NOW_S, body);
        headers.extend(header.map(|id| ("x-request-number", id.to_owned())));
        let url = format!("{}/webhooks/{provider}", server.url);
        let mut request = server.http.post(url).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let note = response.headers().contains_key("x-icecore-note");
        let reply: Value = response.json().await.unwrap();
        assert_eq!(reply["ok"], true, "{reply}");
        (reply["duplicates"].as_u64().unwrap(), note)
    };
    let secret = json!({ "secret": "s" });
    let (_, set) = server.set_secret("default/plain", &secret).await;
    assert_eq!(set["delivery_id"], "usual headers, else the signed bytes");
    assert_eq!(deliver("plain", None, body).await, (0, true));
    assert_eq!(deliver("plain", None, body).await, (1, true), "the reply says why");

    let by_header = json!({ "secret": "s", "id_header": "X-Request-Number" });
    let (status, set) = server.set_secret("default/header", &by_header).await;
    assert_eq!((status, &set["scheme"]), (200, &json!("generic")), "{set}");
    assert_eq!(set["delivery_id"], "header x-request-number, else the signed bytes");
    assert_eq!(deliver("header", Some("1"), body).await, (0, false));
    assert_eq!(deliver("header", Some("2"), body).await, (0, false));
    assert_eq!(deliver("header", Some("1"), body).await, (1, false));
    assert_eq!(deliver("header", None, body).await, (0, true));
    // A new secret leaves that as it is.
    server.set_secret("default/header", &secret).await;
    assert_eq!(deliver("header", Some("2"), body).await, (1, false));

    let by_member = json!({ "secret": "s", "id_member": "event.no" });
    assert_eq!(server.set_secret("default/member", &by_member).await.0, 200);
    assert_eq!(deliver("member", None, body).await, (0, false));
    assert_eq!(deliver("member", None, br#"{"event":{"no":7},"n":2}"#).await, (1, false));
    assert_eq!(deliver("member", None, br#"{"event":{"no":8}}"#).await, (0, false));

    let none = json!({ "secret": "s", "no_id": true });
    assert_eq!(server.set_secret("default/doors", &none).await.0, 200);
    for _ in 0..3 {
        assert_eq!(deliver("doors", Some("1"), body).await, (0, false));
    }
    for (path, wrong) in [
        ("default/a", json!({ "secret": "s", "id_header": "no header" })),
        ("default/a", json!({ "secret": "s", "id_member": "a..b" })),
        ("default/a", json!({ "secret": "s", "id_member": "a", "no_id": true })),
        ("default/github", json!({ "secret": "s", "id_header": "x-id" })),
    ] {
        let (status, told) = server.set_secret(path, &wrong).await;
        assert_eq!(status, 400, "{told}");
    }
    server.stop().await;
}
