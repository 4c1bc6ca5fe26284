//! Columns of JSON paths: what queries show of them in the log, in files and after compaction is what the
//! functions of JSON find.

use crate::harness::TestServer;
use serde_json::{Value, json};

const PATHS: &str = "data.amount:double,data.count:long,data.user.id:string,data.is_paid:boolean,data.nobody:string";
const TABLE: &str = "/catalog/v1/namespaces/shop/tables/events";
/// How many rows have another value in a column than the JSON has, among those after `$1`.
const DIFFERENT: &str = "SELECT count(*) FROM events WHERE seq > $1 AND (
    (data__amount IS DISTINCT FROM json_get_float(data, 'amount'))
    OR (data__count IS DISTINCT FROM json_get_int(data, 'count'))
    OR (data__user__id IS DISTINCT FROM json_get_str(data, 'user', 'id'))
    OR (data__is_paid IS DISTINCT FROM json_get_bool(data, 'is_paid'))
    OR data__nobody IS NOT NULL)";
/// How many rows have a value in each column.
const COUNTS: &str = "SELECT count(data__amount), count(data__count), count(data__user__id), \
                      count(data__is_paid), count(data__nobody) FROM events";

/// Values of all kinds, always the same ones in the same order.
struct RandomJson(u64);

impl RandomJson {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn value(&mut self) -> Value {
        let n = self.below(1_000);
        match self.below(9) {
            0 => json!(n),
            1 => json!(-1.5 - f64::from(u32::try_from(n).unwrap()) / 8.0),
            2 => json!(n.is_multiple_of(2)),
            3 => json!(format!("text \"{n}\" ä")),
            4 => json!(n.to_string()),
            5 => Value::Null,
            6 => json!([n]),
            7 => json!({ "id": n }),
            _ => json!(i64::MAX - i64::try_from(n).unwrap()),
        }
    }

    fn data(&mut self) -> Value {
        let mut data = json!({});
        for name in ["amount", "count", "is_paid", "user"] {
            if self.below(8) != 0 {
                data[name] = self.value();
            }
        }
        if self.below(2) == 0 {
            data["user"] = json!({ "id": self.value() });
        }
        data
    }
}

async fn send(server: &TestServer, random: &mut RandomJson, first: u32) {
    let events: Vec<Value> = (first..first + 60)
        .map(|n| json!({ "id": format!("e-{n}"), "type": "order.placed", "ns": "shop", "data": random.data() }))
        .collect();
    let (status, reply) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{reply}");
}

async fn update(server: &TestServer, update: &Value) {
    let body = json!({ "requirements": [], "updates": [update] });
    let (status, answer) = server.call(reqwest::Method::POST, TABLE, &body).await;
    assert_eq!(status, 200, "{answer}");
}

async fn different(server: &TestServer, after_seq: u64) -> Value {
    let sql = DIFFERENT.replace("$1", &after_seq.to_string());
    server.rows("shop", &sql).await[0][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_paths_are_the_json_in_the_log_in_files_and_after_compaction() {
    // Nothing is merged before the test does it by hand.
    let by_hand = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &by_hand).await;
    let mut random = RandomJson(7);
    send(&server, &mut random, 0).await;
    server.commit("shop").await;
    let set = json!({"action": "set-properties", "updates": {"icecore.promoted-paths": PATHS}});
    update(&server, &set).await;
    send(&server, &mut random, 60).await;
    server.commit("shop").await;

    // Files from before have nothing in the columns, those from then on what the JSON has.
    assert_eq!(different(&server, 60).await, 0);
    let counts = server.rows("shop", COUNTS).await[0].clone();
    let has_some = |at: usize| 0 < counts[at].as_u64().unwrap();
    assert!((0..4).all(has_some) && counts[4] == 0, "{counts}");
    let old = format!("{COUNTS} WHERE seq <= 60");
    assert_eq!(server.rows("shop", &old).await, json!([[0, 0, 0, 0, 0]]));

    // The log says the same as the file that it becomes.
    send(&server, &mut random, 120).await;
    assert_eq!(different(&server, 60).await, 0);
    let before = server.rows("shop", COUNTS).await;
    assert_ne!(before[0], counts, "the log has values as well");
    server.commit("shop").await;
    assert_eq!(server.rows("shop", COUNTS).await, before);
    assert_eq!(different(&server, 60).await, 0);

    // Compaction fills in what was written before.
    let answer = server.post("/admin/jobs/compact?namespace=shop", "application/json", "").await;
    let report: Value = answer.json().await.unwrap();
    assert_eq!(report["files"], json!({ "before": 3, "after": 1 }), "{report}");
    assert_eq!(different(&server, 0).await, 0);
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[180]]));
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    assert_eq!(checked.json::<Value>().await.unwrap()["whole"], true);

    // The columns are filled as long as they are there, whatever is asked for.
    let unset = json!({"action": "remove-properties", "removals": ["icecore.promoted-paths"]});
    let none = json!({"action": "set-properties", "updates": {"icecore.promoted-paths": ""}});
    for (round, change) in (3..).zip([unset, none]) {
        update(&server, &change).await;
        send(&server, &mut random, round * 60).await;
        assert_eq!(different(&server, 0).await, 0, "{change}");
        server.commit("shop").await;
        assert_eq!(different(&server, 0).await, 0, "{change}");
    }
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[300]]));
    server.stop().await;
}
