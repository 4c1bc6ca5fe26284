use super::*;

fn check(event: &str, expected: &str) {
    let found = redact(event).unwrap_or_else(|| event.to_owned());
    assert_eq!(found, expected, "{event}");
    let parsed: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert!(parsed.is_object());
    // What was redacted has nothing more to redact.
    assert_eq!(redact(&found), None, "{found}");
}

/// Checks a member of an event, and the place that is noted.
fn check_place(member: &str, expected: &str, place: &str) {
    let event = format!("{{\"type\":\"tail\",{member}}}");
    let meta = format!(r#""_meta":{{"redacted":["{place}"]}}"#);
    check(&event, &format!("{{\"type\":\"tail\",{expected},{meta}}}"));
}

#[test]
fn credentials_are_found_in_every_form_of_headers() {
    for (member, expected, place) in [
        (
            r#""headers":{"Authorization":"a","host":"h"}"#,
            r#""headers":{"Authorization":"REDACTED","host":"h"}"#,
            "headers.Authorization",
        ),
        (
            r#""headers": { "set-cookie" : ["a=1","b=2"] }"#,
            r#""headers": { "set-cookie" : "REDACTED" }"#,
            "headers.set-cookie",
        ),
        (
            r#""headers":[{"name":"Cookie","value":"a"},{"name":"host","value":"h"}]"#,
            r#""headers":[{"name":"Cookie","value":"REDACTED"},{"name":"host","value":"h"}]"#,
            "headers.Cookie",
        ),
        (
            r#""headers":[{"value":"a","key":"X-Api-Key"},{"key":"host","value":"h"}]"#,
            r#""headers":[{"value":"REDACTED","key":"X-Api-Key"},{"key":"host","value":"h"}]"#,
            "headers.X-Api-Key",
        ),
        (
            r#""headers":[["host","h"],["proxy-authorization","a"]]"#,
            r#""headers":[["host","h"],["proxy-authorization","REDACTED"]]"#,
            "headers.proxy-authorization",
        ),
        (
            r#""rawHeaders":["Host","h","Cookie","a"]"#,
            r#""rawHeaders":["Host","h","Cookie","REDACTED"]"#,
            "rawHeaders.Cookie",
        ),
        (
            r#""event":{"request":{"headers":{"cf-access-client-secret":"a"}}}"#,
            r#""event":{"request":{"headers":{"cf-access-client-secret":"REDACTED"}}}"#,
            "event.request.headers.cf-access-client-secret",
        ),
        (
            r#""responseHeaders":{"x-amz-security-token":7}"#,
            r#""responseHeaders":{"x-amz-security-token":"REDACTED"}"#,
            "responseHeaders.x-amz-security-token",
        ),
        (r#""cookies":{"sid":"a"}"#, r#""cookies":"REDACTED""#, "cookies"),
        (
            r#""x":[1,{"password":"a","ok":true}]"#,
            r#""x":[1,{"password":"REDACTED","ok":true}]"#,
            "x.password",
        ),
        (
            r#""query":{"code":"a","page":"1"}"#,
            r#""query":{"code":"REDACTED","page":"1"}"#,
            "query.code",
        ),
        (r#""query":{"pass":["a"]}"#, r#""query":{"pass":"REDACTED"}"#, "query.pass"),
        (
            r#""message":["{\"headers\":{\"cookie\":\"a\"}}"]"#,
            r#""message":["{\"headers\":{\"cookie\":\"REDACTED\"}}"]"#,
            "message.headers.cookie",
        ),
    ] {
        check_place(member, expected, place);
    }
}

#[test]
fn credentials_are_found_outside_of_headers_and_in_text() {
    for (member, expected, place) in [
        (
            r#""nested":[{"name":"Set-Cookie","value":"a"},{"name":"plan","value":"b"}]"#,
            r#""nested":[{"name":"Set-Cookie","value":"REDACTED"},{"name":"plan","value":"b"}]"#,
            "nested.Set-Cookie",
        ),
        (
            r#""header":{"value":"a","name":"Authorization"}"#,
            r#""header":{"value":"REDACTED","name":"Authorization"}"#,
            "header.Authorization",
        ),
        (r#""s":"{\"token\":\"a\"}""#, r#""s":"{\"token\":\"REDACTED\"}""#, "s.token"),
        (r#""x":{"pwd":"a","n":1}"#, r#""x":{"pwd":"REDACTED","n":1}"#, "x.pwd"),
        (
            r#""x":{"aws_secret_access_key":"a"}"#,
            r#""x":{"aws_secret_access_key":"REDACTED"}"#,
            "x.aws_secret_access_key",
        ),
        (
            r#""x":{"credentials":{"user":"u","pass":"p"}}"#,
            r#""x":{"credentials":"REDACTED"}"#,
            "x.credentials",
        ),
        (r#""x":{"auth":{"pass":"a"}}"#, r#""x":{"auth":{"pass":"REDACTED"}}"#, "x.auth.pass"),
        (r#""x":{"pass":{"old":"a"}}"#, r#""x":{"pass":"REDACTED"}"#, "x.pass"),
        (r#""x":{"pass":[null,"a"]}"#, r#""x":{"pass":"REDACTED"}"#, "x.pass"),
        (
            r#""headers":[{"k":"Cookie","v":"a"}]"#,
            r#""headers":[{"k":"Cookie","v":"REDACTED"}]"#,
            "headers.Cookie",
        ),
        (
            r#""s":"\"{\\\"token\\\":\\\"a\\\"}\"""#,
            r#""s":"\"{\\\"token\\\":\\\"REDACTED\\\"}\"""#,
            "s.token",
        ),
        (
            r#""message":["config: {\"api_key\":\"a\"} [1] {x {\"n\":1}"]"#,
            r#""message":["config: {\"api_key\":\"REDACTED\"} [1] {x {\"n\":1}"]"#,
            "message.api_key",
        ),
        (
            r#""message":["x {\"headers\":{\"authorization\":\"a\"}} y"]"#,
            r#""message":["x {\"headers\":{\"authorization\":\"REDACTED\"}} y"]"#,
            "message.headers.authorization",
        ),
        (
            r#""h\u0065aders":{"c\u006fokie":"a"}"#,
            r#""h\u0065aders":{"c\u006fokie":"REDACTED"}"#,
            "headers.cookie",
        ),
    ] {
        check_place(member, expected, place);
    }
}

#[test]
fn credentials_are_found_in_urls_wherever_they_stand() {
    for (text, expected, name) in [
        ("https://x/?token=a&b=1", "https://x/?token=REDACTED&b=1", "token"),
        (
            "https://x/?b=1&ACCESS_TOKEN=a#f",
            "https://x/?b=1&ACCESS_TOKEN=REDACTED#f",
            "ACCESS_TOKEN",
        ),
        ("/cb?code=a", "/cb?code=REDACTED", "code"),
        ("https://x/#access_token=a", "https://x/#access_token=REDACTED", "access_token"),
        ("https://u:p@x/", "https://REDACTED@x/", "userinfo"),
        ("postgres://u:p@ss@db:5432/x", "postgres://REDACTED@db:5432/x", "userinfo"),
        ("GET https://x/?sig=a&ok=1 failed", "GET https://x/?sig=REDACTED&ok=1 failed", "sig"),
        (
            "https://x/?to=https%3A%2F%2Fy%2F%3Fapi_key%3Da%26b%3D1",
            "https://x/?to=https%3A%2F%2Fy%2F%3Fapi_key%3DREDACTED%26b%3D1",
            "api_key",
        ),
        (
            r"https://x/?a=1\u0026password=a\u0026b=2",
            "https://x/?a=1&password=REDACTED&b=2",
            "password",
        ),
        ("https://x/?X-Amz-Signature=a", "https://x/?X-Amz-Signature=REDACTED", "X-Amz-Signature"),
        ("https://x/?api%5Fkey=a", "https://x/?api%5Fkey=REDACTED", "api_key"),
        ("sent Bearer abcdefgh12345678.x to x", "sent Bearer REDACTED to x", "bearer"),
        ("sent Bearer eyJabc.def.ghi to x", "sent Bearer REDACTED to x", "bearer"),
        (
            "> Authorization: Basic dTpw ok\\n> Accept: x",
            "> Authorization: REDACTED\\n> Accept: x",
            "Authorization",
        ),
        ("é cookie:sid=a; b=c", "é cookie:REDACTED", "cookie"),
        ("login user=u password=aé! ok", "login user=u password=REDACTED ok", "password"),
        ("pwd=a", "pwd=REDACTED", "pwd"),
        ("user=u pass=hunter", "user=u pass=REDACTED", "pass"),
        ("{'pass': 'ab'}", "{'pass': 'REDACTED'}", "pass"),
        ("Bearer my-secret-tok", "Bearer REDACTED", "bearer"),
        ("password: open-sesame", "password: REDACTED", "password"),
        ("retry (api_key='a b', n=1)", "retry (api_key='REDACTED', n=1)", "api_key"),
        ("x,Access-Token=a", "x,Access-Token=REDACTED", "Access-Token"),
        ("{'password': 'a b', 'n': 1}", "{'password': 'REDACTED', 'n': 1}", "password"),
        ("new token: s3cr3t ok", "new token: REDACTED ok", "token"),
        ("api_key: k-0123\\nb: 1", "api_key: REDACTED\\nb: 1", "api_key"),
    ] {
        let event = format!(r#"{{"type":"tail","url":"{text}"}}"#);
        let meta = format!(r#""_meta":{{"redacted":["url.{name}"]}}"#);
        check(&event, &format!(r#"{{"type":"tail","url":"{expected}",{meta}}}"#));
    }
}

#[test]
fn what_is_no_credential_stays() {
    for event in [
        r#"{"type":"tail","url":"https://x/?page=2&q=token"}"#,
        r#"{"type":"tail","headers":{"user-agent":"Mozilla","accept":"*/*",":authority":"x"}}"#,
        r#"{"type":"tail","key":"k","code":7,"tokens":1,"headers":{"cookie":null,"authorization":""}}"#,
        r#"{"type":"tail","id":"https://x/?token=a","url":"mailto:a@b","m":"why? x = 1"}"#,
        r#"{"type":"tail","scheduledTime":1,"cron":"* * * * *"}"#,
        r#"{"type":"tail","m":"the bearer certificate. and cookie:","n":"token: none {\"a\":1}"}"#,
        r#"{"type":"tail","m":"Unexpected token: '}', password: must not be empty, a token: see b"}"#,
        r#"{"type":"tail","pass":12,"fail":3,"x":{"pass":[1],"query":{"pass":12}}}"#,
        r#"{"type":"tail","metric":[{"name":"pass","value":12}],"n":"{\"pass\":1}"}"#,
        r#"{"type":"tail","m":"suite done pass=120000 fail=3","n":"{'pass': 12}"}"#,
        r#"{"type":"tail","m":"Token: Schlüssel fehlt","n":"Unexpected token: end-of-file"}"#,
        r#"{"type":"tail","m":"token: 无效的访问令牌请重新登录"}"#,
        r#"{"type":"tail","pass":true,"list":[{"k":"plan","v":"a"}],"m":"\"a\\nb\""}"#,
        r#"{"type":"tail","metric":{"name":"sessions","value":1}}"#,
        r#"{"type":"tail","m":"token = 1 token== 2 token=null max_token=512 nexttoken=a x.token"}"#,
        "{}",
        "[1,\"cookie\"]",
    ] {
        assert_eq!(redact(event), None, "{event}");
    }
}

#[test]
fn the_note_goes_into_the_meta_that_counts() {
    for (before, after) in [
        (r#"{"cookie":"a"}"#, r#"{"cookie":"REDACTED","_meta":{"redacted":["cookie"]}}"#),
        (
            r#"{"_meta":{},"cookie":"a"}"#,
            r#"{"_meta":{"redacted":["cookie"]},"cookie":"REDACTED"}"#,
        ),
        (
            r#"{"_meta":{"a":1 },"cookie":"a"}"#,
            r#"{"_meta":{"a":1 ,"redacted":["cookie"]},"cookie":"REDACTED"}"#,
        ),
        (
            r#"{"_meta":{},"meta":{"b":2},"cookie":"a"}"#,
            r#"{"_meta":{},"meta":{"b":2,"redacted":["cookie"]},"cookie":"REDACTED"}"#,
        ),
        (
            r#"{"_meta":7,"cookie":"a"}"#,
            r#"{"_meta":7,"cookie":"REDACTED","meta":{"redacted":["cookie"]}}"#,
        ),
    ] {
        check(before, after);
    }
}

#[test]
fn broken_and_hostile_texts_keep_no_credentials_either() {
    for text in [
        r#"{"type":"tail","headers":{"cookie":"SECRET","a":1"#,
        r#"{"type":"tail","headers":{"cookie":"SECRET"#,
        r#"{"type":"tail","m":"a"b","headers":{"cookie":"SECRET"}}"#,
        "{\"type\":\"tail\",\"m\":\"tab\there\",\"headers\":{\"cookie\":\"SECRET\"}}",
        r#""authorization": "SECRET","#,
        r#"{"type":"tail","url":"https://x/?token=SECRET"#,
        r#"{"type":"tail",,,]}"cookie":"SECRET"}"#,
    ] {
        let found = redact(text).unwrap();
        assert!(!found.contains("SECRET") && found.contains("REDACTED"), "{found}");
    }
    let deep = format!("{}{{\"cookie\":\"SECRET\"}}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(!redact(&deep).unwrap().contains("SECRET"));
    assert_eq!(redact(&"[".repeat(1_000_000)), None);
    // What is inside one value is not looked at again for each of many names in it.
    let many = format!("{{\"m\":\"{}\"}}", ",token=".repeat(150_000));
    assert!(redact(&many).unwrap().len() < 100);
    // A long path is not copied for each of many members.
    let members = "\"a\":{},".repeat(50_000);
    let long = format!("{{\"{}\":{{{members}\"cookie\":\"SECRET\"}}}}", "x".repeat(400_000));
    assert!(!redact(&long).unwrap().contains("SECRET"));
}

#[test]
fn traces_are_told_from_other_events() {
    for (event_type, expected) in [
        ("tail", true),
        ("tail.request", true),
        ("tail_x", true),
        ("tailor.made", false),
        ("t", false),
    ] {
        assert_eq!(is_trace_type(event_type), expected, "{event_type}");
        assert_eq!(may_be_trace(&format!("{{\"type\":\"{event_type}\"")), expected, "{event_type}");
    }
}
