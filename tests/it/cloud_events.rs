//! CloudEvents 1.0 over HTTP: the three content modes, and what tells one event from another.

use crate::harness::TestServer;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::fs;

/// Sends with these headers, bytes as they are.
async fn send(server: &TestServer, headers: &[(&str, &[u8])], body: &[u8]) -> (u16, Value) {
    let mut request = server.http.post(format!("{}/ingest?backfill=true", server.url));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request = request.header(name, HeaderValue::from_bytes(value).unwrap());
    }
    let response = request.body(body.to_vec()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// A binary-mode event with the id `id` and, beside the required attributes, these headers.
async fn binary(
    server: &TestServer,
    id: &[u8],
    more: &[(&str, &[u8])],
    body: &[u8],
) -> (u16, Value) {
    let mut headers: Vec<(&str, &[u8])> = vec![
        ("ce-specversion", b"1.0"),
        ("ce-type", b"com.example.made"),
        ("ce-source", b"/s"),
        ("ce-id", id),
    ];
    headers.extend_from_slice(more);
    send(server, &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modes_of_the_specification_are_one_event() {
    let server = TestServer::start().await;
    let event = json!({
        "specversion": "1.0", "type": "com.example.someevent", "source": "/mycontext", "subject": null,
        "id": "C234-1234-1234", "time": "2018-04-05T17:31:00Z", "comexampleextension1": "value",
        "comexampleothervalue": 5, "datacontenttype": "application/json",
        "data": { "appinfoA": "abc", "appinfoB": 123, "appinfoC": true },
    });
    let text = event.to_string();
    let structured: &[(&str, &[u8])] =
        &[("content-type", b"application/cloudevents+json; charset=UTF-8")];
    let (status, reply) = send(&server, structured, text.as_bytes()).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    // The media type says the mode: attributes in headers beside it are copies.
    let mixed = [structured, &[("ce-specversion", b"1.0"), ("ce-id", b"other")]].concat();
    let (status, reply) = send(&server, &mixed, text.as_bytes()).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    let batched: &[(&str, &[u8])] = &[("content-type", b"application/cloudevents-batch+json")];
    let other = json!({ "specversion": "1.0", "type": "com.example.someotherevent", "source": "/mycontext/9", "id": "C234-1234-1234", "datacontenttype": "application/xml", "data": "<much wow=\"xml\"/>" });
    let (status, reply) =
        send(&server, batched, json!([event, other]).to_string().as_bytes()).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    assert_eq!(send(&server, batched, b"[]").await.0, 200);
    let headers: &[(&str, &[u8])] = &[
        ("ce-specversion", b"1.0"),
        ("ce-type", b"com.example.someevent"),
        ("ce-time", b"2018-04-05T03:56:24Z"),
        ("ce-id", b"1234-1234-1234"),
        ("ce-source", b"/mycontext/subcontext"),
        ("content-type", b"application/json; charset=utf-8"),
    ];
    let (status, reply) = send(&server, headers, b"{\"n\": 1}").await;
    assert_eq!(status, 200, "{reply}");
    let rows = "SELECT id, type, source, data, cast(ts AS varchar) LIKE '2018-04-05%' FROM events ORDER BY seq";
    assert_eq!(
        server.rows("default", rows).await,
        json!([
            [
                "C234-1234-1234",
                "com.example.someevent",
                "/mycontext",
                "{\"appinfoA\":\"abc\",\"appinfoB\":123,\"appinfoC\":true}",
                true
            ],
            [
                "C234-1234-1234",
                "com.example.someotherevent",
                "/mycontext/9",
                "\"<much wow=\\\"xml\\\"/>\"",
                false
            ],
            [
                "1234-1234-1234",
                "com.example.someevent",
                "/mycontext/subcontext",
                "{\"n\": 1}",
                true
            ],
        ])
    );
    let whole = "SELECT count(*) FROM events WHERE payload LIKE '%\"specversion\":\"1.0\"%'";
    assert_eq!(server.rows("default", whole).await, json!([[3]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_unquoted_and_decoded_once() {
    let server = TestServer::start().await;
    for (id, expected) in [
        (&b"order%2520"[..], "order%20"),
        (b"order%20", "order "),
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"100%", "100%"),
        (b"%zz", "%zz"),
        (b"\"a b\"", "a b"),
        (b"\"a \\\"b\\\" %25\"", "a \"b\" %"),
        (b"\"a", "\"a"),
        (b"%22q%22", "\"q\""),
        ("grüße".as_bytes(), "grüße"),
    ] {
        let (status, reply) = binary(&server, id, &[("ce-subject", id)], b"").await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{expected}: {reply}");
        let sql = format!("SELECT id, payload FROM events WHERE seq = {}", reply["seq"]["last"]);
        let rows = server.rows("default", &sql).await;
        let payload: Value = serde_json::from_str(rows[0][1].as_str().unwrap()).unwrap();
        assert_eq!((&rows[0][0], &payload["subject"]), (&json!(expected), &json!(expected)));
    }
    for id in [&b"%FF"[..], b"a%C3", b"\xff\xfe", b"\"%ff\""] {
        let (status, reply) = binary(&server, id, &[], b"{}").await;
        assert_eq!(status, 400, "{reply}");
        assert!(reply["errors"][0]["reason"].as_str().unwrap().contains("ce-id"), "{reply}");
        assert!(reply["errors"][0]["deadLetter"].is_string(), "{reply}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_binary_mode_is_kept_to_the_byte() {
    let server = TestServer::start().await;
    let cases: &[(&str, &[u8], Value, Value)] = &[
        ("application/json", b" {\"a\": 1}\n", json!("{\"a\": 1}"), json!({ "data": { "a": 1 } })),
        ("application/vnd.x+json; v=1", b"[1]", json!("[1]"), json!({ "data": [1] })),
        ("application/json", b"{broken", json!("\"{broken\""), json!({ "data": "{broken" })),
        ("text/plain", b"  123 \n", json!("\"  123 \\n\""), json!({ "data": "  123 \n" })),
        ("text/plain", b"123", json!("\"123\""), json!({ "data": "123" })),
        ("application/xml", b"<a/>", json!("\"<a/>\""), json!({ "data": "<a/>" })),
        ("text/plain", b"caf\xe9", Value::Null, json!({ "data_base64": "Y2Fm6Q==" })),
        (
            "application/x-protobuf",
            b"\x0a\x03\xff\xfe\x80\x10\x01",
            Value::Null,
            json!({ "data_base64": "CgP//oAQAQ==" }),
        ),
        ("application/octet-stream", b"abc", Value::Null, json!({ "data_base64": "YWJj" })),
        ("", b"{\"a\":1}", json!("{\"a\":1}"), json!({ "data": { "a": 1 } })),
        (
            "",
            b"plain \"text\"",
            json!("\"plain \\\"text\\\"\""),
            json!({ "data": "plain \"text\"" }),
        ),
        ("", b"\xff\x00", Value::Null, json!({ "data_base64": "/wA=" })),
        ("text/plain", b"", Value::Null, json!({})),
    ];
    for (number, (media, body, data, kept)) in cases.iter().enumerate() {
        let id = number.to_string();
        let media: &[(&str, &[u8])] = match *media {
            "" => &[],
            media => &[("content-type", media.as_bytes())],
        };
        for duplicates in 0..2 {
            let (status, reply) = binary(&server, id.as_bytes(), media, body).await;
            assert_eq!(
                (status, &reply["duplicates"]),
                (200, &json!(duplicates)),
                "{media:?}: {reply}"
            );
        }
        let sql = format!("SELECT data, payload FROM events WHERE id = '{id}'");
        let rows = server.rows("default", &sql).await;
        assert_eq!(&rows[0][0], data, "{media:?}");
        let payload: Value = serde_json::from_str(rows[0][1].as_str().unwrap()).unwrap();
        for member in ["data", "data_base64"] {
            assert_eq!(payload.get(member), kept.get(member), "{media:?} {member}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_no_partition_may_have_keeps_its_own_word() {
    let server = TestServer::start().await;
    let structured: &[(&str, &[u8])] = &[("content-type", b"application/cloudevents+json")];
    for (number, (event_type, stored)) in [
        ("https://example.com/made", "https___example.com_made"),
        ("a b#c", "a_b_c"),
        ("größe.geändert", "gr__e.ge_ndert"),
        ("/leading", "leading"),
        ("日本", "cloudevent"),
        ("com.example.plain", "com.example.plain"),
    ]
    .into_iter()
    .enumerate()
    {
        let event = json!({ "specversion": "1.0", "id": number.to_string(), "source": "/s", "type": event_type });
        let (status, reply) = send(&server, structured, event.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{event_type}: {reply}");
        let sql = format!("SELECT type, event_type FROM events WHERE id = '{number}'");
        let original = if event_type == stored { Value::Null } else { json!(event_type) };
        assert_eq!(server.rows("default", &sql).await, json!([[stored, original]]));
    }
    for event_type in [json!(""), json!(7), Value::Null] {
        let event = json!({ "specversion": "1.0", "id": "x", "source": "/s", "type": event_type });
        assert_eq!(send(&server, structured, event.to_string().as_bytes()).await.0, 400);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_known_by_its_source_and_id_also_when_the_index_is_lost() {
    let server = TestServer::start().await;
    let cloud = |source: Value, n: u32| json!({ "specversion": "1.0", "id": "1", "source": source, "type": "t", "data": { "n": n } });
    let mut plain = cloud(json!("/sensor/1"), 1);
    plain.as_object_mut().unwrap().remove("specversion");
    let events =
        [cloud(json!("/sensor/1"), 1), cloud(json!("/sensor/2"), 2), cloud(Value::Null, 3), plain];
    let send_all = async |server: &TestServer| {
        let (status, reply) = server.ingest(&json!({ "events": events })).await;
        assert_eq!(status, 200, "{reply}");
        reply["duplicates"].as_u64().unwrap()
    };
    assert_eq!(send_all(&server).await, 0);
    assert_eq!(send_all(&server).await, 4);
    let (status, reply) = server.ingest(&cloud(json!("/sensor/2"), 9)).await;
    assert_eq!((status, &reply["errors"][0]["code"]), (400, &json!("CONFLICT")), "{reply}");
    // From the log, then from the tables.
    let folder = server.stop().await;
    fs::remove_dir_all(folder.path().join("ids")).unwrap();
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(send_all(&server).await, 4);
    server.commit("default").await;
    let folder = server.stop().await;
    fs::remove_dir_all(folder.path().join("ids")).unwrap();
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(send_all(&server).await, 4);
    let (_, reply) = server.ingest(&cloud(json!("/sensor/3"), 1)).await;
    assert_eq!(reply["duplicates"], 0, "{reply}");
    let count = server.rows("default", "SELECT count(*) FROM events WHERE id = '1'").await;
    assert_eq!(count, json!([[5]]));
    server.stop().await;
}
