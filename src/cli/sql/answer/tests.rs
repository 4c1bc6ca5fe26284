use super::*;

fn told(media: &str, body: &str, chunk: usize) -> Option<String> {
    let mut end = AnswerEnd::default();
    body.as_bytes().chunks(chunk).for_each(|bytes| end.push(bytes));
    end.error(media)
}

#[test]
fn a_body_without_a_trailer_tells_by_its_last_line() {
    let (json, ndjson) = ("application/json", "application/x-ndjson");
    let long = "x".repeat(3 * END_BYTES_MAX);
    for chunk in [1, 7, 1 << 20] {
        let check = |media, body: &str, expected: Option<&str>| {
            assert_eq!(told(media, body, chunk).as_deref(), expected, "{body:.100}");
        };
        let error = r#"{"error":"division by zero","code":"INVALID_SQL"}"#;
        check(ndjson, &format!("{{\"a\":1}}\n {error}\n"), Some("division by zero"));
        check(ndjson, &format!("{{\"a\":\"{long}\"}}\n {error}\n"), Some("division by zero"));
        // A row that looks like one.
        check(ndjson, &format!("{error}\n"), None);
        check(ndjson, "", None);
        let whole = r#"{"columns":[],"rows":[
[1],
["],\"error\":\"x\"}"]],"rowCount":2,"elapsedMs":1}
"#;
        check(json, whole, None);
        let torn = r#"{"columns":[],"rows":[
[1]
],"rowCount":1,"elapsedMs":1,"error":"out of memory","code":"QUERY_LIMIT"}
"#;
        check(json, torn, Some("out of memory"));
        check("text/csv", &format!("a\n {error}\n"), None);
    }
}
