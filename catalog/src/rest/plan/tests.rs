use super::*;
use crate::{
    catalog::{Catalog, CatalogOptions, DropPolicy},
    metastore::Metastore,
    scan::fixture::Lake,
    storage::{S3Options, Storage},
};
use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use iceberg::spec::{
    DataContentType, Datum, Literal, NestedField, Operation, PrimitiveType, Struct, Transform,
    UnboundPartitionSpec,
};
use tower::ServiceExt;

const TABLE: &str = "/v1/namespaces/ns/tables/t";

struct Server {
    router: Router,
    lake: Lake,
    _folder: tempfile::TempDir,
}

impl Server {
    /// With an empty table `ns.t` that is partitioned by its text and its day.
    async fn start() -> Self {
        Self::start_with(limits::PlanningLimits::default()).await
    }

    async fn start_with(planning: limits::PlanningLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let now = Arc::new(|| 1_800_000_000_000);
        let drop_policy = DropPolicy { undrop_ms: 0, purge: false };
        let options = CatalogOptions { drop_policy, ..CatalogOptions::default() };
        let catalog = Catalog::with_options("icecore", storage.clone(), metastore, now, options);
        let primitive = |id, name, kind| {
            Arc::new(NestedField::optional(id, name, iceberg::spec::Type::Primitive(kind)))
        };
        let schema = Schema::builder().with_fields([
            primitive(1, "id", PrimitiveType::Long),
            primitive(2, "kind", PrimitiveType::String),
            primitive(3, "at", PrimitiveType::Timestamptz),
        ]);
        let spec = UnboundPartitionSpec::builder()
            .add_partition_field(2, "kind", Transform::Identity)
            .unwrap()
            .add_partition_field(3, "day", Transform::Day)
            .unwrap();
        let location = format!("{}/t", storage.root());
        let lake = Lake::at(storage, location, schema.build().unwrap(), spec.build());
        let router = crate::rest::router_over(RestState {
            catalog,
            access: crate::access::AccessControl::off(),
            answers: Arc::default(),
            manifests: crate::scan::manifests::ManifestCache::default(),
            planning,
        });
        Self { router, lake, _folder: folder }
    }

    /// Makes the table as it stands the catalog's.
    async fn publish(&self) {
        let metadata = self.lake.write_metadata().await;
        self.call("POST", "/v1/namespaces", json!({"namespace": ["ns"]})).await;
        self.call("DELETE", TABLE, Value::Null).await;
        let body = json!({"name": "t", "metadata-location": metadata});
        let (status, answer) = self.call("POST", "/v1/namespaces/ns/register", body).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn plan(&self, body: Value) -> Value {
        let (status, answer) = self.call("POST", &format!("{TABLE}/plan"), body).await;
        assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{answer}");
        answer
    }

    async fn refused(&self, body: Value, expected: &str) {
        let (status, answer) = self.call("POST", &format!("{TABLE}/plan"), body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (status, &answer["error"]["type"]),
            (400, &json!("BadRequestException")),
            "{body}"
        );
        assert!(message.contains(expected), "{body}: {message}");
    }

    async fn fetch(&self, task: &str) -> (u16, Value) {
        self.call("POST", &format!("{TABLE}/tasks"), json!({"plan-task": task})).await
    }

    fn data(&mut self, kind: Option<&str>, day: i32) -> iceberg::spec::DataFileBuilder {
        let kind = kind.map(Literal::string);
        let mut file = self.lake.file(DataContentType::Data);
        file.partition(Struct::from_iter([kind, Some(Literal::date(day))]));
        file
    }
}

fn paths(answer: &Value) -> Vec<&str> {
    let tasks = answer["file-scan-tasks"].as_array().unwrap();
    tasks.iter().map(|task| task["data-file"]["file-path"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_plan_has_files_residuals_and_deletes_in_the_specifications_form() {
    let mut server = Server::start().await;
    let counts = |ids: [(i32, u64); 2]| HashMap::from(ids);
    let call = server
        .data(Some("call"), 20_000)
        .split_offsets(Some(vec![4, 500]))
        .sort_order_id(0)
        .key_metadata(Some(vec![0x78, 0x7a]))
        .column_sizes(counts([(1, 100), (2, 200)]))
        .value_counts(counts([(1, 10), (2, 10)]))
        .null_value_counts(counts([(1, 0), (2, 0)]))
        .lower_bounds(HashMap::from([(1, Datum::long(1)), (2, Datum::string("call"))]))
        .upper_bounds(HashMap::from([(1, Datum::long(9)), (2, Datum::string("call"))]))
        .build()
        .unwrap();
    let none = server.data(None, -1).build().unwrap();
    let first = server.lake.commit(Operation::Append, vec![vec![call.clone(), none.clone()]]).await;
    let mut delete = server.lake.file(DataContentType::EqualityDeletes);
    let partition = Struct::from_iter([Some(Literal::string("call")), Some(Literal::date(20_000))]);
    let delete = delete.partition(partition).equality_ids(Some(vec![1])).build().unwrap();
    server.lake.commit(Operation::Delete, vec![vec![delete.clone()]]).await;
    server.publish().await;
    let filter = json!({"type": "and",
        "left": {"type": "eq", "term": "kind", "value": "call"},
        "right": {"type": "lt", "term": "id", "value": 5}});
    let answer = server
        .plan(json!({"filter": filter, "select": ["id", "_pos"], "stats-fields": ["id"]}))
        .await;
    let expected = json!([{
        "data-file": {
            "spec-id": 0,
            "content": "data",
            "file-path": call.file_path(),
            "file-format": "parquet",
            "partition": ["call", "2024-10-04"],
            "file-size-in-bytes": 1000,
            "record-count": 10,
            "key-metadata": "787A",
            "split-offsets": [4, 500],
            "sort-order-id": 0,
            "column-sizes": {"keys": [1], "values": [100]},
            "value-counts": {"keys": [1], "values": [10]},
            "null-value-counts": {"keys": [1], "values": [0]},
            "lower-bounds": {"keys": [1], "values": ["0100000000000000"]},
            "upper-bounds": {"keys": [1], "values": ["0900000000000000"]},
        },
        "delete-file-references": [0],
        "residual-filter": {"type": "lt", "term": "id", "value": 5},
    }]);
    assert_eq!(answer["file-scan-tasks"], expected);
    let expected = json!([{
        "spec-id": 0,
        "content": "equality-deletes",
        "file-path": delete.file_path(),
        "file-format": "parquet",
        "partition": ["call", "2024-10-04"],
        "file-size-in-bytes": 1000,
        "record-count": 10,
        "equality-ids": [1],
    }]);
    assert_eq!(answer["delete-files"], expected);
    assert_eq!(answer.get("plan-tasks"), None);
    let plain = server.plan(json!({"snapshot-id": first})).await;
    assert_eq!(plain.get("delete-files"), None, "{plain}");
    let tasks = &plain["file-scan-tasks"];
    assert_eq!(tasks[0]["residual-filter"], json!(true));
    assert_eq!(tasks[0]["data-file"].get("lower-bounds"), None);
    assert_eq!(tasks[1]["data-file"]["partition"], json!([null, "1969-12-31"]));
}

#[tokio::test]
async fn a_client_that_wants_some_rows_gets_no_more_files_than_it_needs() {
    let mut server = Server::start().await;
    let a = server.data(Some("a"), 1).build().unwrap();
    let b = server.data(Some("b"), 1).build().unwrap();
    server.lake.commit(Operation::Append, vec![vec![a.clone(), b.clone()]]).await;
    server.publish().await;
    let few = server.plan(json!({"min-rows-requested": 10})).await;
    assert_eq!(paths(&few), [a.file_path()]);
    let more = server.plan(json!({"min-rows-requested": 11})).await;
    assert_eq!(paths(&more), [a.file_path(), b.file_path()]);
    // How many rows of a file pass the rest of a filter is not known.
    let filter = json!({"type": "gt", "term": "id", "value": 5});
    let filtered = server.plan(json!({"min-rows-requested": 1, "filter": filter})).await;
    assert_eq!(paths(&filtered), [a.file_path(), b.file_path()]);
}

#[tokio::test]
async fn a_plan_can_be_fetched_again_and_cancelled_by_its_id() {
    let mut server = Server::start().await;
    let file = server.data(Some("a"), 1).build().unwrap();
    server.lake.commit(Operation::Append, vec![vec![file.clone()]]).await;
    server.publish().await;
    let answer = server.plan(json!({"filter": {"type": "eq", "term": "kind", "value": "a"}})).await;
    let plan = format!("{TABLE}/plan/{}", answer["plan-id"].as_str().unwrap());
    assert_eq!(server.call("GET", &plan, Value::Null).await, (200, answer));
    assert_eq!(server.call("DELETE", &plan, Value::Null).await, (204, Value::Null));
    for unknown in ["x", "é", &plan[..plan.len() - 2]] {
        let unknown = unknown.rsplit('/').next().unwrap();
        let unknown = super::super::request::path_segment(unknown);
        for method in ["GET", "DELETE"] {
            let path = format!("{TABLE}/plan/{unknown}");
            let (status, answer) = server.call(method, &path, Value::Null).await;
            assert_eq!((status, &answer["error"]["type"]), (404, &json!("NoSuchPlanIdException")));
        }
    }
    let (status, answer) = server.call("POST", "/v1/namespaces/ns/tables/no/plan", json!({})).await;
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("NoSuchTableException")));
}

#[tokio::test]
async fn a_filter_that_is_too_long_is_left_to_the_client() {
    let mut server = Server::start().await;
    let a = server.data(Some("a"), 1).build().unwrap();
    let b = server.data(Some("b"), 1).build().unwrap();
    server.lake.commit(Operation::Append, vec![vec![a.clone(), b.clone()]]).await;
    server.publish().await;
    let all = [a.file_path(), b.file_path()];
    let is_left = |answer: &Value| {
        assert_eq!(paths(answer), all);
        let tasks = answer["file-scan-tasks"].as_array().unwrap();
        assert!(tasks.iter().all(|task| task.get("residual-filter").is_none()), "{answer}");
    };
    // So long that no answer could carry it.
    let values: Vec<String> = (0..6_000).map(|n| format!("a value of the column {n}")).collect();
    let filter = json!({"type": "in", "term": "kind", "values": values});
    assert!(FILTER_BYTES_MAX < filter.to_string().len());
    let answer = server.plan(json!({"filter": filter, "min-rows-requested": 1})).await;
    is_left(&answer);
    let plan = |answer: &Value| format!("{TABLE}/plan/{}", answer["plan-id"].as_str().unwrap());
    assert_eq!(server.call("GET", &plan(&answer), Value::Null).await, (200, answer));
    // A mistake in it is one all the same.
    server
        .refused(json!({"filter": {"type": "in", "term": "no", "values": values}}), "no column")
        .await;

    // So long that it fits no path: what is answered is exact, what its name stands for is not.
    let mut values: Vec<i64> = (1_000_000_000..1_000_001_000).collect();
    values.push(1);
    let filter = json!({"type": "and",
        "left": {"type": "in", "term": "id", "values": values},
        "right": {"type": "eq", "term": "kind", "value": "b"}});
    let answer = server.plan(json!({"filter": filter})).await;
    assert_eq!(paths(&answer), [b.file_path()]);
    let (status, again) = server.call("GET", &plan(&answer), Value::Null).await;
    assert_eq!((status, plan(&again)), (200, plan(&answer)));
    assert!(plan(&answer).len() < PLAN_ID_BYTES_MAX + 100);
    is_left(&again);
}

#[tokio::test]
async fn a_large_plan_is_handed_out_in_parts_that_have_each_file_once() {
    let mut server = Server::start().await;
    let mut lists = Vec::new();
    let mut expected = Vec::new();
    for manifest in 0..8 {
        let mut list = Vec::new();
        for _ in 0..300 {
            let kind = if manifest < 7 { "a" } else { "b" };
            list.push(server.data(Some(kind), 1).build().unwrap());
        }
        expected.extend(list.iter().map(|file| file.file_path().to_owned()));
        lists.push(list);
    }
    let snapshot_id = server.lake.commit(Operation::Append, lists).await;
    server.publish().await;
    let filter = json!({"type": "eq", "term": "kind", "value": "a"});
    let answer = server.plan(json!({"filter": filter})).await;
    assert_eq!(paths(&answer), Vec::<&str>::new());
    let tasks: Vec<&str> = answer["plan-tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task.as_str().unwrap())
        .collect();
    assert_eq!(tasks.len(), 3, "2 100 files, three manifests of 300 each");
    let mut found = Vec::new();
    for task in &tasks {
        let (status, part) = server.fetch(task).await;
        assert_eq!(status, 200, "{part}");
        assert!(paths(&part).len() <= usize::try_from(FILES_MAX).unwrap());
        assert_eq!(part["file-scan-tasks"][0]["residual-filter"], json!(true));
        found.extend(paths(&part).into_iter().map(str::to_owned));
    }
    assert_eq!(found, expected[..2_100]);
    // A part of a plan names its snapshot, so a commit in between changes nothing.
    let later = server.data(Some("a"), 2).build().unwrap();
    server.lake.commit(Operation::Append, vec![vec![later]]).await;
    server.publish().await;
    let (status, part) = server.fetch(tasks[2]).await;
    assert_eq!((status, paths(&part)), (200, found[1_800..].iter().map(String::as_str).collect()));
    // Nothing that was not written here is read.
    let token = PlanToken::read(tasks[0]).unwrap();
    let part = token.part.unwrap();
    let changed = |part: token::PlanPart| PlanToken { part: Some(part), ..token.clone() }.write();
    let other = PlanToken { table: uuid::Uuid::nil(), ..token.clone() }.write();
    let whole = PlanToken { part: None, ..token.clone() }.write();
    let mut damaged = tasks[0].to_owned();
    damaged.replace_range(20..21, if &damaged[20..21] == "0" { "1" } else { "0" });
    for task in [
        damaged,
        String::new(),
        "zz".repeat(40),
        other,
        whole,
        changed(token::PlanPart { to: 9, ..part }),
        changed(token::PlanPart { from: 5, to: 2, ..part }),
        changed(token::PlanPart { of: 1, ..part }),
    ] {
        let (status, answer) = server.fetch(&task).await;
        assert_eq!(
            (status, &answer["error"]["type"]),
            (404, &json!("NoSuchPlanTaskException")),
            "{task}"
        );
    }
    server.lake.change(|builder| Ok(builder.remove_snapshots(&[snapshot_id])));
    server.publish().await;
    let (status, _) = server.fetch(tasks[0]).await;
    assert_eq!(status, 404, "the snapshot has expired");
}

#[tokio::test]
async fn time_travel_increments_and_old_schemas_are_planned() {
    let mut server = Server::start().await;
    let one = server.data(Some("a"), 1).build().unwrap();
    let two = server.data(Some("a"), 1).build().unwrap();
    let first = server.lake.commit(Operation::Append, vec![vec![one.clone()]]).await;
    let renamed = [(1, "id"), (2, "sort"), (3, "at")].into_iter().zip([
        PrimitiveType::Long,
        PrimitiveType::String,
        PrimitiveType::Timestamptz,
    ]);
    let renamed = renamed.map(|((id, name), kind)| {
        Arc::new(NestedField::optional(id, name, iceberg::spec::Type::Primitive(kind)))
    });
    let renamed = Schema::builder().with_fields(renamed).build().unwrap();
    server.lake.change(|builder| builder.add_current_schema(renamed));
    let second = server.lake.commit(Operation::Append, vec![vec![two.clone()]]).await;
    server.publish().await;
    let of = |name: &str| json!({"type": "eq", "term": name, "value": "a"});
    let increment = server
        .plan(json!({"start-snapshot-id": first, "end-snapshot-id": second, "filter": of("sort")}))
        .await;
    assert_eq!(paths(&increment), [two.file_path()]);
    let then = server
        .plan(json!({"snapshot-id": first, "use-snapshot-schema": true, "filter": of("kind")}))
        .await;
    assert_eq!(paths(&then), [one.file_path()]);
    let now = server
        .plan(json!({"snapshot-id": first, "filter": of("SORT"), "case-sensitive": false}))
        .await;
    assert_eq!(paths(&now), [one.file_path()]);
    assert_eq!(paths(&server.plan(json!({"filter": of("sort")})).await).len(), 2);
    for (body, expected) in [
        (json!({"snapshot-id": first, "filter": of("kind")}), "there is no column `kind`"),
        (json!({"snapshot-id": 5}), "snapshot 5 has expired"),
        (json!({"snapshot-id": 5, "use-snapshot-schema": true}), "snapshot 5 has expired"),
        (
            json!({"snapshot-id": first, "start-snapshot-id": first, "end-snapshot-id": second}),
            "not both",
        ),
        (json!({"start-snapshot-id": first}), "both a start-snapshot-id and an end-snapshot-id"),
        (json!({"end-snapshot-id": first}), "both a start-snapshot-id and an end-snapshot-id"),
        (json!({"start-snapshot-id": second, "end-snapshot-id": first}), "is not an ancestor"),
        (json!({"select": ["nothing"]}), "select: there is no column `nothing`"),
        (json!({"stats-fields": ["nothing"]}), "stats-fields: there is no column `nothing`"),
        (
            json!({"filter": {"type": "near", "term": "id"}}),
            "filter: `near` is not a type of expression",
        ),
        (json!({"snapshot-id": "one"}), "invalid type"),
    ] {
        server.refused(body, expected).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_names_no_schema_is_planned_with_todays() {
    let mut server = Server::start().await;
    let file = server.data(Some("a"), 1).build().unwrap();
    let id = server.lake.commit(Operation::Append, vec![vec![file.clone()]]).await;
    let mut metadata = serde_json::to_value(&server.lake.metadata).unwrap();
    metadata["snapshots"][0].as_object_mut().unwrap().remove("schema-id").unwrap();
    server.lake.metadata = serde_json::from_value(metadata).unwrap();
    server.publish().await;
    let filter = json!({"type": "eq", "term": "kind", "value": "a"});
    for body in [
        json!({"filter": filter}),
        json!({"snapshot-id": id, "filter": filter}),
        json!({"snapshot-id": id, "use-snapshot-schema": true, "filter": filter}),
    ] {
        assert_eq!(paths(&server.plan(body).await), [file.file_path()]);
    }
}

#[tokio::test]
async fn a_table_without_a_snapshot_has_nothing_to_read() {
    let server = Server::start().await;
    server.publish().await;
    let answer = server.plan(json!({})).await;
    assert_eq!(answer["file-scan-tasks"], json!([]));
}

#[tokio::test]
async fn scans_that_are_too_slow_do_not_keep_others_out() {
    let mut server = Server::start_with(limits::PlanningLimits::without_time()).await;
    let file = server.data(Some("a"), 1).build().unwrap();
    server.lake.commit(Operation::Append, vec![vec![file]]).await;
    server.publish().await;
    for _ in 0..100 {
        let (status, answer) = server.call("POST", &format!("{TABLE}/plan"), json!({})).await;
        let kind = &answer["error"]["type"];
        assert_eq!((status, kind), (503, &json!("ServiceUnavailableException")), "{answer}");
    }
}
