//! Statements that would run for hours: each stops for good at its deadline or when its client is
//! gone, and keeps nobody else from the server.

use crate::{harness::events, process::Process};
use reqwest::Client;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, interval, timeout},
};

/// How long a statement may go on after its end.
const END_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest a query of somebody else may take beside them, on a slow machine.
const OTHERS_TIME_MAX: Duration = Duration::from_secs(20);

/// Statements by what they keep busy; with thousands of events each takes hours.
const HOSTILE: &[(&str, &str)] = &[
    (
        "a filter",
        "SELECT count(*) FROM events a, events b, events c WHERE (a.seq + b.seq + c.seq) % 7 = 1",
    ),
    (
        "nothing passes",
        "SELECT count(*) FROM events a, events b, events c WHERE a.seq + b.seq + c.seq < 0",
    ),
    (
        "a cross join",
        "SELECT sum(a.seq * b.seq + c.seq) FROM events a CROSS JOIN events b CROSS JOIN events c",
    ),
    (
        "an outer join",
        "SELECT count(*) FROM events a LEFT JOIN events b ON a.seq + b.seq < 0 LEFT JOIN (SELECT c.seq + d.seq AS s FROM events c, events d) e ON a.seq + e.s < 0",
    ),
    (
        "a semi join",
        "SELECT count(*) FROM events a WHERE EXISTS (SELECT 1 FROM events b, events c WHERE a.seq + b.seq + c.seq < 0)",
    ),
    (
        "an anti join",
        "SELECT count(*) FROM events a WHERE NOT EXISTS (SELECT 1 FROM events b, events c WHERE a.seq + b.seq + c.seq < 0)",
    ),
    (
        "equal keys",
        "SELECT count(*) FROM events a JOIN events b ON a.type = b.type JOIN events c ON b.type = c.type WHERE a.seq + b.seq + c.seq < 0",
    ),
    (
        "null keys",
        "SELECT count(*) FROM (SELECT a.actor AS x FROM events a, events b WHERE b.seq < 41) l FULL JOIN (SELECT a.actor AS x FROM events a, events b WHERE b.seq < 41) r ON l.x = r.x",
    ),
    (
        "groups",
        "SELECT a.seq % 10, count(DISTINCT b.id) FROM events a, events b, events c GROUP BY 1",
    ),
    (
        "a sort",
        "SELECT a.seq FROM events a, events b, events c ORDER BY a.seq + b.seq * c.seq LIMIT 10",
    ),
    (
        "an aggregate over a frame",
        "SELECT max(x) FROM (SELECT median(s) OVER (ORDER BY s ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS x FROM (SELECT a.seq AS s FROM events a, events b WHERE b.seq < 40))",
    ),
    (
        "a function over a frame",
        "SELECT max(x) FROM (SELECT nth_value(CASE WHEN s % 2 = 0 THEN s END, 9) IGNORE NULLS OVER (ORDER BY s ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS x FROM (SELECT a.seq AS s FROM events a, events b WHERE b.seq < 100))",
    ),
    (
        "long texts",
        "SELECT sum(levenshtein(repeat(a.id, 1000), repeat(b.id, 1000))) FROM events a, events b",
    ),
    (
        "a pattern",
        "SELECT count(*) FROM events a, events b, events c WHERE a.data || b.data ~ '(n|d|u|r)*x(a|t|i|o)*$'",
    ),
    (
        "a union of joins",
        "SELECT sum(n) FROM (SELECT count(*) AS n FROM events a, events b, events c WHERE a.seq + b.seq + c.seq < 0 UNION ALL SELECT count(*) FROM events a, events b, events c WHERE a.seq + b.seq + c.seq < 1 UNION ALL SELECT count(*) FROM events a, events b, events c WHERE a.seq + b.seq + c.seq < 2)",
    ),
];

/// The settings of a server with four slots for queries, which one namespace may have.
const FOUR_SLOTS: &[(&str, &str)] =
    &[("sql.concurrent_max", "4"), ("sql.concurrent_per_namespace", "4")];

struct House {
    _folder: TempDir,
    process: Process,
    http: Client,
}

impl House {
    /// A server with events in several files of two tenants.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec![("data_dir", folder.path().display().to_string())];
        all.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let process = Process::start(&all).await;
        let house = Self { _folder: folder, process, http: Client::new() };
        for part in 0..3 {
            for ns in ["shop.example", "other"] {
                let body = events(part * 1_000..part * 1_000 + 1_000);
                let body = body.to_string().replace("shop.example", ns);
                assert_eq!(house.post("/ingest", body).await.0, 200);
                assert_eq!(house.post(&format!("/v1/{ns}/commit"), String::new()).await.0, 200);
            }
        }
        house
    }

    async fn post(&self, path: &str, body: String) -> (u16, String) {
        let request = self.http.post(format!("{}{path}", self.process.url)).body(body);
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    async fn ask(&self, ns: &str, request: Value) -> (u16, String) {
        self.post(&format!("/v1/{ns}/sql"), request.to_string()).await
    }

    /// Asks `count` times for an answer that does not fit into a connection, and reads none of it.
    async fn hold(&self, count: usize, timeout_ms: u64) -> Vec<TcpStream> {
        let sql = "SELECT a.*, b.* FROM events a, events b";
        let body = json!({ "sql": sql, "timeout_ms": timeout_ms }).to_string();
        let head = format!(
            "POST /v1/shop.example/sql HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let address = self.process.url.strip_prefix("http://").unwrap();
        let mut held = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            held.push(stream);
        }
        held
    }

    /// Returns when that many queries run.
    async fn check_runs(&self, count: usize) {
        let line = format!("\nicecore_queries_running {count}\n");
        let runs = async {
            let mut looks = interval(Duration::from_millis(50));
            loop {
                looks.tick().await;
                if self.get("metrics").await.1.contains(&line) {
                    return;
                }
            }
        };
        timeout(OTHERS_TIME_MAX, runs).await.expect("as many queries run as there are slots");
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("{}/{path}", self.process.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Returns when the server has nothing to do any more.
    async fn check_stops(&self, what: &str) {
        let rests = async {
            let mut looks = interval(Duration::from_millis(100));
            let mut before = [Duration::ZERO; 5];
            loop {
                looks.tick().await;
                let now = self.process.cpu_time();
                if now < before[0] + Duration::from_millis(100) && before[0] != Duration::ZERO {
                    return;
                }
                before.rotate_left(1);
                before[4] = now;
            }
        };
        let rested = timeout(END_TIME_MAX + Duration::from_millis(500), rests).await;
        assert!(rested.is_ok(), "{what} goes on after its end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_operator_does_it_ends_with_its_query() {
    let house = House::start(&[]).await;
    for (what, sql) in HOSTILE {
        let started = Instant::now();
        let (status, answer) =
            house.ask("shop.example", json!({ "sql": sql, "timeout_ms": 400 })).await;
        assert_eq!(status, 422, "{what}: {answer}");
        assert!(
            answer.contains("longer than 400 ms") || answer.contains("memory"),
            "{what}: {answer}"
        );
        assert!(started.elapsed() < END_TIME_MAX, "{what}: {:?}", started.elapsed());
        house.check_stops(what).await;
    }
    // Nulls are never equal, so where only equal keys count they need not be held together.
    let nulls = HOSTILE.iter().find(|(what, _)| *what == "null keys").unwrap().1;
    let nulls = json!({ "sql": nulls.replace("FULL JOIN", "JOIN") });
    let (status, answer) = house.ask("shop.example", nulls).await;
    assert!(status == 200 && answer.contains("\n[0]"), "{status}: {answer}");
    house.check_stops("equal nulls").await;
    let metrics = house.get("metrics").await.1;
    assert!(metrics.contains("\nicecore_queries_waiting 0\n"), "{metrics}");
    assert!(metrics.contains("\nicecore_queries_running 0\n"), "{metrics}");
    assert!(metrics.contains("\nicecore_queries_stuck 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_when_its_client_is_gone() {
    let house = House::start(&[]).await;
    for (what, sql) in [HOSTILE[1], HOSTILE[4]] {
        let asked = house.ask("shop.example", json!({ "sql": sql }));
        let answer = timeout(Duration::from_millis(300), asked).await;
        assert!(answer.is_err(), "{what} is answered: {answer:?}");
        house.check_stops(what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_amid_its_answer_gives_its_slot_back() {
    let house =
        House::start(&[("sql.concurrent_max", "1"), ("sql.concurrent_per_namespace", "1")]).await;
    let sql = "SELECT a.* FROM events a, events b";
    let body = json!({ "sql": sql, "timeout_ms": 60_000 }).to_string();
    for (media, accepted) in [
        ("application/json", "identity"),
        ("text/csv", "gzip"),
        ("application/x-ndjson", "zstd"),
        ("application/vnd.apache.arrow.stream", "identity"),
    ] {
        let request = house.http.post(format!("{}/v1/shop.example/sql", house.process.url));
        let request = request.header("accept", media).header("accept-encoding", accepted);
        let mut answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{media}");
        assert!(answer.chunk().await.unwrap().is_some(), "{media}");
        drop(answer);
        house.check_runs(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_keeps_no_other_waiting() {
    let house = House::start(&[]).await;
    let hostile = || house.ask("shop.example", json!({ "sql": HOSTILE[1].1, "timeout_ms": 8_000 }));
    let others = async {
        let (mut answered, mut small_answers) = (0, 0);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let started = Instant::now();
            let small = house.ask("shop.example", json!({ "sql": "SELECT 1" })).await;
            // It has two seconds, which a slow machine may need beside so many.
            assert!(matches!(small.0, 200 | 422), "{}: {}", small.0, small.1);
            small_answers += u32::from(small.0 == 200);
            for path in ["healthz", "readyz"] {
                assert_eq!(house.get(path).await.0, 200, "{path}");
            }
            let count = house.ask("other", json!({ "sql": "SELECT count(*) FROM events" })).await;
            assert_eq!(count.0, 200, "{}", count.1);
            assert!(started.elapsed() < OTHERS_TIME_MAX, "{:?}", started.elapsed());
            answered += 1;
        }
        assert!(0 < answered && 0 < small_answers);
    };
    let (busy, ()) = tokio::join!(futures::future::join_all((0..12).map(|_| hostile())), others);
    let refused = busy.iter().filter(|(status, _)| *status == 429).count();
    assert_eq!(refused, 4, "{busy:?}");
    let (_, told) = busy.iter().find(|(status, _)| *status == 429).unwrap();
    assert!(
        told.contains("too many other queries of namespace `shop_example` are running"),
        "{told}"
    );
    house.check_stops("all of them").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_hold_no_slot_beyond_their_deadline() {
    let house = House::start(FOUR_SLOTS).await;
    let held = house.hold(4, 1_000).await;
    let mut looks = interval(Duration::from_millis(200));
    let freed = async {
        loop {
            looks.tick().await;
            if house.ask("other", json!({ "sql": "SELECT count(*) FROM events" })).await.0 == 200 {
                return;
            }
        }
    };
    timeout(END_TIME_MAX + Duration::from_secs(2), freed).await.expect("the slots are free again");
    house.check_stops("answers that nobody reads").await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_statements_without_a_table_are_answered_while_every_slot_is_taken() {
    let house = House::start(FOUR_SLOTS).await;
    let held = house.hold(4, 60_000).await;
    house.check_runs(4).await;
    let count = json!({ "sql": "SELECT count(*) FROM events" });
    for ns in ["shop.example", "other"] {
        let (status, told) = house.ask(ns, count.clone()).await;
        assert_eq!(status, 429, "{told}");
        assert!(told.contains("are running (4 in all); try again when one has ended"), "{told}");
        for path in ["healthz", "readyz"] {
            let (status, told) = house.get(path).await;
            assert_eq!(status, 200, "{path}: {told}");
        }
        let (status, answer) = house.ask(ns, json!({ "sql": "SELECT 1" })).await;
        assert!(status == 200 && answer.contains("\n[1]"), "{status}: {answer}");
    }
    drop(held);
    house.check_runs(0).await;
    assert_eq!(house.ask("other", count).await.0, 200);
}
