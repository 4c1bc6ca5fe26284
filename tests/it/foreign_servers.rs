//! Commands that reach no server, or one that is not Icecore: they fail, say so, and print nothing
//! that could be taken for an answer.

use crate::process::run;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
    thread,
};

/// Each kind of command that asks a server.
const COMMANDS: &[&[&str]] = &[
    &["sql", "select 1"],
    &["sql", "--format", "csv", "select 1"],
    &["sql", "--format", "ndjson", "select 1"],
    &["sql", "--format", "parquet", "select 1"],
    &["ingest"],
    &["tables"],
    &["snapshots"],
    &["catalog", "stats", "t"],
    &["catalog", "protect", "t"],
    &["catalog", "rename", "t", "u"],
    &["catalog", "rollback", "t", "--to", "1"],
    &["catalog", "drop", "t"],
    &["catalog", "protected"],
    &["catalog", "dropped"],
    &["catalog", "events"],
    &["catalog", "undrop", "u"],
    &["catalog", "purge", "u"],
    &["branches", "list", "t"],
    &["branches", "fast-forward", "t", "b", "--to", "main"],
    &["tags", "create", "t", "a"],
    &["tags", "drop", "t", "a"],
    &["token", "create", "n", "--admin"],
    &["token", "list"],
    &["token", "revoke", "i"],
    &["deadletters", "list"],
    &["deadletters", "retry", "--all"],
    &["deadletters", "purge", "--before", "2026-01-01T00:00:00Z"],
    &["webhooks", "list"],
    &["webhooks", "delete", "github"],
    &["audit", "list"],
    &["audit", "verify"],
    &["jobs"],
    &["export", "--layout", "r2", "--ns", "n", "exported"],
];

const PAGE: &str = "\n<!DOCTYPE html>\n<html><body>Welcome</body></html>\n";

/// A server of something else, which gives every request the same answer; where it listens.
fn foreign(status: &'static str, media: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A command that has ended reads no more.
            drop(answer(&stream.unwrap(), status, media, body));
        }
    });
    url
}

fn answer(mut stream: &TcpStream, status: &str, media: &str, body: &str) -> std::io::Result<()> {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn ask(command: &[&str], url: &str) -> (Output, String) {
    let output = run(&[command, &["--url", url]].concat(), &[], b"{\"type\":\"t\"}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

#[track_caller]
fn check(command: &[&str], url: &str, parts: &[&str]) {
    let (output, said) = ask(command, url);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert!(output.stdout.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(parts.iter().all(|part| said.contains(part)), "{command:?}: {said}");
    assert!(!said.contains("struct") && !said.contains("Welcome"), "{command:?}: {said}");
}

#[test]
fn an_answer_of_another_server_is_told_from_one_of_icecore() {
    for (status, media, body, start) in [
        ("200 OK", "text/html; charset=utf-8", PAGE, "`<!DOCTYPE html>`"),
        ("404 Not Found", "text/html", PAGE, "`<!DOCTYPE html>`"),
        ("401 Unauthorized", "text/html", PAGE, "`<!DOCTYPE html>`"),
        ("404 Not Found", "application/json", "{\"detail\":\"none\"}", "`{\"detail\":\"none\"}`"),
        ("200 OK", "application/json", "{\"hello\":\"world\"}", "`{\"hello\":\"world\"}`"),
        ("200 OK", "application/json", "[]", "`[]`"),
        ("200 OK", "text/plain", "", "``"),
    ] {
        let url = foreign(status, media, body);
        for command in COMMANDS {
            let rest = format!("(it starts with {start})");
            check(command, &url, &[" is not from ", "Icecore", "check --url", &rest]);
        }
        // It shows each step.
        let (output, said) = ask(&["catalog", "check"], &url);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("check --url"), "{said}");
    }
    // A dead letter may be any bytes, but it is never sent as a page.
    check(&["deadletters", "show", "x"], &foreign("200 OK", "text/html", PAGE), &["check --url"]);
}

#[test]
fn where_nobody_listens_the_address_and_the_cause_are_said_once() {
    for command in [&["sql", "select 1"][..], &["tables"], &["token", "list"], &["jobs"]] {
        for url in ["127.0.0.1:1", "http://127.0.0.1:1"] {
            check(command, url, &["no answer from http://127.0.0.1:1: Connection refused"]);
            let (_, said) = ask(command, url);
            assert!(said.ends_with("; is `icecore serve` running there?\n"), "{said}");
            assert_eq!(said.matches("refused").count(), 1, "{said}");
        }
    }
}

#[test]
fn a_url_that_no_request_goes_to_is_told_at_once() {
    for command in [&["ingest"][..], &["tables"]] {
        check(
            command,
            "ftp://u:hush@h",
            &["ftp://h is not the URL of a server: only http and https"],
        );
        check(command, "http://h:99999", &["not the URL of a server: invalid port", "check --url"]);
    }
}
