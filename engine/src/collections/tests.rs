use super::*;
use crate::subquery_order::SubqueryOrderRule;
use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
    util::pretty::pretty_format_batches,
};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::MemTable,
    execution::session_state::SessionStateBuilder,
    logical_expr::LogicalPlan,
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    prelude::SessionConfig,
};

/// An event: its `seq`, type, key, operation, document and patch.
type Row = (
    i64,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
);

const CHANGE: &str = "cdc.update";

fn rows() -> Vec<Row> {
    vec![
        (1, CHANGE, Some("a"), Some("c"), Some(r#"{"n":1}"#), None),
        (2, CHANGE, Some("b"), Some("c"), Some(r#"{"n":1}"#), None),
        (3, CHANGE, Some("a"), Some("u"), None, Some(r#"{"n":2}"#)),
        (4, CHANGE, Some("b"), Some("d"), None, None),
        (5, CHANGE, Some("c"), Some("u"), None, Some(r#"{"m":1}"#)),
        (6, CHANGE, None, None, None, None),
        (7, CHANGE, Some("b"), Some("c"), Some(r#"{"n":7}"#), None),
        (8, "cdc.truncate", None, None, None, None),
        (9, CHANGE, Some("a"), Some("u"), None, Some(r#"{"n":9}"#)),
        (10, CHANGE, Some("d"), Some("r"), Some(r#"{"n":10}"#), None),
        (11, CHANGE, Some("d"), Some("u"), None, Some(r#"[{"op":"add","path":"/o","value":1}]"#)),
        (12, CHANGE, Some("a"), Some("d"), None, None),
    ]
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn events(rows: &[Row]) -> RecordBatch {
    let text = |of: fn(&Row) -> Option<&'static str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let seqs = || rows.iter().map(|row| row.0);
    let times = TimestampMicrosecondArray::from_iter_values(seqs().map(|seq| seq * 1_000));
    let ids: StringArray = seqs().map(|seq| Some(format!("e-{seq}"))).collect();
    let of_all = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; rows.len()])) };
    batch(vec![
        ("seq", Arc::new(Int64Array::from_iter_values(seqs()))),
        ("type", text(|row| Some(row.1))),
        ("key", text(|row| row.2)),
        ("op", text(|row| row.3)),
        ("after", text(|row| row.4)),
        ("patch", text(|row| row.5)),
        ("ts", Arc::new(times.with_timezone("+00:00"))),
        ("collection", of_all("o'users")),
        ("store", of_all("d1")),
        ("actor", of_all("ann")),
        ("bookmark", of_all("b")),
        ("id", Arc::new(ids)),
    ])
}

fn view(applied_seq: Option<u64>, until: Option<u64>) -> CollectionView {
    CollectionView {
        namespace: "shop".to_owned(),
        name: "cdc_users".to_owned(),
        collection: "o'users".to_owned(),
        events: Some("events".to_owned()),
        applied_seq,
        until,
        typed: TypedColumns::default(),
        has_typed: false,
    }
}

/// A session with these events, each in a part of its own, and these rows of a base.
fn session(events: Vec<RecordBatch>, base: Option<Vec<RecordBatch>>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2);
    // As in sessions of queries: without it an answer may lose its order.
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> =
        vec![Arc::new(SubqueryOrderRule)];
    rules.extend(PhysicalOptimizer::new().rules);
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_physical_optimizer_rules(rules)
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_udaf(fold::fold_changes());
    context.register_udaf(fold::document_versions());
    context.add_optimizer_rule(Arc::new(fold_arguments::FoldArguments));
    let schema = events[0].schema();
    let parts = events.into_iter().map(|part| vec![part]).collect();
    context.register_table("events", Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
    if let Some(base) = base {
        let schema = base[0].schema();
        let table = MemTable::try_new(schema, vec![base]).unwrap();
        context.register_table("cdc_users", Arc::new(table)).unwrap();
    }
    context
}

async fn ask(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

fn parts() -> Vec<RecordBatch> {
    rows().iter().map(|row| events(std::slice::from_ref(row))).collect()
}

/// The documents as the event with this `seq` left them: from events alone, or on a base of another event.
async fn documents(base: Option<u64>, until: u64) -> String {
    let base_rows = match base {
        Some(applied) => {
            let context = session(parts(), None);
            let sql = query_of(&view(None, Some(applied)), true);
            let sql = format!("SELECT * FROM ({sql}) AS documents");
            let plan = context.sql(&sql).await.unwrap();
            let planned = Arc::new(plan.schema().as_arrow().clone());
            let mut rows = plan.collect().await.unwrap();
            let schema = rows.first().map_or(planned, RecordBatch::schema);
            rows.push(RecordBatch::new_empty(schema));
            Some(rows)
        }
        None => None,
    };
    let context = session(parts(), base_rows);
    let sql = query_of(&view(base, Some(until)), true);
    let sql = format!(
        "SELECT key, doc, op, version, updated_at, seq, event_id, store FROM ({sql}) AS it ORDER BY key"
    );
    let shown = pretty_format_batches(&ask(&context, &sql).await).unwrap().to_string();
    let rows = shown.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| key"));
    rows.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn with_every_base_the_documents_are_those_of_the_events_alone() {
    // Nothing, patches and a delete, the truncate as the last event, and all.
    for until in [0, 5, 8, 12] {
        let expected = documents(None, until).await;
        for base in 0..=until {
            assert_eq!(documents(Some(base), until).await, expected, "{base} to {until}");
        }
    }
}

#[tokio::test]
async fn the_last_change_of_a_key_is_its_document() {
    let at_7 = documents(None, 7).await;
    let expected = [
        r#"| a   | {"n":2} | u  | 2 "#,
        r#"| b   | {"n":7} | c  | 1 "#,
        r#"| c   | {"m":1} | u  | 1 "#,
    ];
    for line in expected {
        assert!(at_7.contains(line), "{line}\n{at_7}");
    }
    let emptied = documents(None, 8).await;
    assert!(!emptied.contains("e-"), "{emptied}");
    let last = documents(None, 12).await;
    assert!(last.contains("| d ") && last.contains(r#""o":1"#), "{last}");
    assert!(!last.contains("| a ") && !last.contains("| b "), "{last}");
}

#[tokio::test]
async fn rows_below_the_first_event_are_no_changes() {
    let theirs = [
        (0, CHANGE, Some("z"), Some("c"), Some("{}"), None),
        (-1, CHANGE, Some("b"), Some("d"), None, None),
        (-2, "cdc.truncate", None, None, None, None),
    ];
    let ours = || rows().into_iter().take(2);
    for until in [None, Some(2)] {
        let mut shown = Vec::new();
        for all in [ours().collect::<Vec<Row>>(), ours().chain(theirs).collect()] {
            let context = session(vec![events(&all)], None);
            let sql = format!("{} ORDER BY key", query_of(&view(None, until), true));
            shown.push(pretty_format_batches(&ask(&context, &sql).await).unwrap().to_string());
            let sql = versions_of("o'users", "b");
            shown.push(pretty_format_batches(&ask(&context, &sql).await).unwrap().to_string());
        }
        assert_eq!(shown[..2], shown[2..]);
        assert!(shown[0].contains("| b "), "{}", shown[0]);
    }
}

#[tokio::test]
async fn the_anomalies_of_a_page_are_those_of_its_keys() {
    let context = session(parts(), None);
    context.register_udaf(fold::document_anomalies());
    let patch = rows().into_iter().filter(|row| 8 < row.0).collect::<Vec<_>>();
    let rows = events(&patch);
    let nothing = |kind: DataType| arrow::array::new_null_array(&kind, patch.len());
    let named = rows.schema();
    let mut columns: Vec<(&str, ArrayRef)> = named
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| (field.name().as_str(), Arc::clone(column)))
        .collect();
    columns.push(("before", Arc::new(StringArray::from(vec![Some("{}"); patch.len()]))));
    columns.push(("lsn", Arc::new(Int64Array::from_iter_values((0..4).map(|n| 9 - n)))));
    columns.push(("version", nothing(DataType::Int64)));
    context.deregister_table("events").unwrap();
    let rows = batch(columns);
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    context.register_table("events", Arc::new(table)).unwrap();
    for (condition, limit, keys, told) in [
        ("", 1, "a", vec!["kind: prev_mismatch", "kind: lsn_went_back"]),
        (" AND key > 'a'", 1, "d", vec!["kind: prev_mismatch", "kind: lsn_went_back"]),
        (" AND key > 'd'", 1, "", vec![]),
    ] {
        let found = ask(&context, &anomalies_of("o'users", condition, limit)).await;
        let shown = pretty_format_batches(&found).unwrap().to_string();
        for key in ["a", "d"] {
            assert_eq!(shown.contains(&format!("| {key} ")), keys == key, "{shown}");
        }
        assert!(told.iter().all(|it| shown.contains(it)), "{shown}");
    }
}

#[tokio::test]
async fn events_of_before_patches_are_read() {
    let first = rows().into_iter().take(2).collect::<Vec<_>>();
    let all = events(&first);
    let at = all.schema().index_of(PATCH_COLUMN).unwrap();
    let without: Vec<usize> = (0..all.num_columns()).filter(|column| *column != at).collect();
    let context = session(vec![all.project(&without).unwrap()], None);
    let sql = query_of(&view(None, None), false);
    let count = format!("SELECT key FROM ({sql}) AS it ORDER BY key");
    let rows = pretty_format_batches(&ask(&context, &count).await).unwrap().to_string();
    assert!(rows.contains("| a ") && rows.contains("| b "), "{rows}");
}

#[tokio::test]
async fn a_condition_on_the_key_reaches_base_and_events() {
    let base = batch(vec![
        ("key", Arc::new(StringArray::from(vec!["a"]))),
        ("doc", Arc::new(StringArray::from(vec!["{}"]))),
        ("op", Arc::new(StringArray::from(vec!["c"]))),
        ("store", Arc::new(StringArray::from(vec!["d1"]))),
        ("version", Arc::new(Int64Array::from(vec![1]))),
        ("created_at", arrow::array::new_null_array(&time(), 1)),
        ("updated_at", arrow::array::new_null_array(&time(), 1)),
        ("actor", Arc::new(StringArray::from(vec!["ann"]))),
        ("bookmark", Arc::new(StringArray::from(vec!["b"]))),
        ("seq", Arc::new(Int64Array::from(vec![1]))),
        ("event_id", Arc::new(StringArray::from(vec!["e-1"]))),
    ]);
    let context = session(parts(), Some(vec![base]));
    let sql = query_of(&view(Some(1), Some(12)), true);
    let sql = format!("SELECT doc FROM ({sql}) AS it WHERE key = 'd'");
    let plan = context.sql(&sql).await.unwrap().into_optimized_plan().unwrap();
    let shown = plan.display_indent().to_string();
    let has_key = |condition: &String| condition.contains("\"d\"");
    let of_base = conditions(&plan, "cdc_users");
    assert_eq!(of_base.len(), 2, "{shown}");
    assert!(of_base.iter().all(has_key), "{shown}");
    assert!(conditions(&plan, "events").iter().any(has_key), "{shown}");
}

/// The conditions on the rows of a table right after they are read, of each place where it is.
fn conditions(plan: &LogicalPlan, table: &str) -> Vec<String> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node
            && let LogicalPlan::TableScan(scan) = filter.input.as_ref()
            && scan.table_name.table() == table
        {
            found.push(filter.predicate.to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found
}

/// The columns that are read of a table, in each place where it is.
fn scanned(plan: &LogicalPlan, table: &str) -> Vec<String> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == table
        {
            found.extend(scan.projected_schema.columns().into_iter().map(|column| column.name));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found
}

#[tokio::test]
async fn only_the_columns_are_read_that_a_statement_needs() {
    let words = ["store", "actor", "bookmark", "id"];
    let cases: [(&str, &[&str]); 9] = [
        ("SELECT key, doc FROM it ORDER BY key", &[]),
        ("SELECT count(*) FROM it", &[]),
        ("SELECT count(DISTINCT doc) FROM it WHERE version = 1", &[]),
        ("SELECT key, doc, store FROM it ORDER BY key", &["store"]),
        ("SELECT key, seq FROM it WHERE actor = 'ann' ORDER BY key", &["actor"]),
        ("SELECT max(bookmark), min(event_id) FROM it", &["bookmark", "id"]),
        (
            "SELECT a.key, a.doc, b.store FROM it a JOIN it b ON a.key = b.key ORDER BY a.key",
            &["store"],
        ),
        (
            "SELECT key, updated_at FROM it WHERE event_id > 'a' ORDER BY store, key",
            &["id", "store"],
        ),
        ("SELECT * FROM it ORDER BY key", &words),
    ];
    for (asked, read) in cases {
        let mut answers = Vec::new();
        for narrows in [true, false] {
            let context = session(parts(), None);
            // As in sessions of queries.
            let off = "SET datafusion.optimizer.enable_leaf_expression_pushdown = false";
            context.sql(off).await.unwrap();
            if !narrows {
                assert!(context.remove_optimizer_rule("fold_arguments"));
            }
            let sql = format!("WITH it AS ({}) {asked}", query_of(&view(None, Some(7)), true));
            if narrows {
                let plan = context.sql(&sql).await.unwrap().into_optimized_plan().unwrap();
                let scanned = scanned(&plan, "events");
                for word in words {
                    let is_read = scanned.iter().any(|column| column == word);
                    assert_eq!(is_read, read.contains(&word), "{word}: {}", plan.display_indent());
                }
            }
            answers.push(pretty_format_batches(&ask(&context, &sql).await).unwrap().to_string());
        }
        assert_eq!(answers[0], answers[1], "{asked}");
    }
}

#[tokio::test]
async fn the_versions_of_a_document_are_a_list() {
    let context = session(parts(), None);
    let sql = versions_of("o'users", "d");
    let shown = pretty_format_batches(&ask(&context, &sql).await).unwrap().to_string();
    assert!(shown.contains("version: 1") && shown.contains("version: 2"), "{shown}");
    assert!(!shown.contains("version: 3"), "{shown}");
    // What was before the collection was emptied is no version.
    let sql = versions_of("o'users", "b");
    let shown = pretty_format_batches(&ask(&context, &sql).await).unwrap().to_string();
    assert!(!shown.contains("version: 1"), "{shown}");
    let of_branch = versions_of_branch("u", "k", "it's", 7);
    assert_eq!(
        of_branch.matches(" FROM events FOR SEQ AS OF 7 OF BRANCH 'it''s' WHERE ").count(),
        2
    );
}

#[test]
fn a_name_says_which_collection_it_stands_for() {
    let cases = [
        ("cdc_users", Some("users")),
        ("cdc_Odd Name", Some("Odd Name")),
        ("collections/x_deltas", Some("x_deltas")),
        ("collections/a@b", Some("a@b")),
        ("cdc_users_deltas", None),
        ("cdc_", None),
        ("collections/", None),
        ("events", None),
        ("users", None),
    ];
    for (name, expected) in cases {
        assert_eq!(collection_of(name), expected, "{name}");
    }
    assert!(is_path("collections/users") && !is_path("collections/") && !is_path("cdc_users"));
    assert_eq!(relation("a\"b"), "\"collections/a\"\"b\"");
    assert_eq!(documents_at("u", 7), format!("{} FOR SEQ AS OF 7", documents_of("u")));
    let condition =
        "collection = 'o''x' AND op IN ('c', 'u', 'd', 'r') AND key IS NOT NULL AND seq > 0";
    assert!(changes_of("events", "'o''x'").starts_with(condition));
}

#[test]
fn events_are_named_by_the_point_of_their_collection() {
    let of = |name, table| events_name(name, table);
    assert_eq!(of("cdc_users", "cdc_users").as_deref(), Some("events"));
    assert_eq!(of("cdc_users@nightly", "cdc_users").as_deref(), Some("events@nightly"));
    let versioned = of("collections/u FOR SEQ AS OF 3", "collections/u");
    assert_eq!(versioned.as_deref(), Some("events FOR SEQ AS OF 3"));
    assert_eq!(of("orders FOR SEQ AS OF 3", "orders"), None);
}

#[test]
fn a_base_that_has_every_event_is_read_alone() {
    let sql = query_of(&view(Some(7), Some(7)), true);
    assert_eq!(sql, format!("SELECT {} FROM \"cdc_users\"", columns_text("")));
    let of_base = CollectionView { events: None, ..view(Some(7), Some(7)) };
    assert_eq!(query_of(&of_base, false), sql);
}

/// The typed columns of all documents: from events alone, or on a base of another event, which has them or not.
async fn typed_columns(base: Option<(u64, bool)>) -> String {
    let member = |name: &str| serde_json::json!({"name": name, "of": {"member": name, "type": "long", "nullable": true, "required": true}});
    let columns = serde_json::json!({"columns": [member("n"), member("o"), member("x")]});
    let typed: TypedColumns = serde_json::from_value(columns).unwrap();
    let context_of = |base_rows| {
        let context = session(parts(), base_rows);
        context.register_udf(typed::document_values(&typed));
        context
    };
    let view_of = |applied, until, typed: &TypedColumns, has_typed| {
        let typed = typed.clone();
        query_of(&CollectionView { typed, has_typed, ..view(applied, Some(until)) }, true)
    };
    let base_rows = match base {
        Some((applied, has_typed)) => {
            let of_base = if has_typed { typed.clone() } else { TypedColumns::default() };
            let sql = view_of(None, applied, &of_base, false);
            Some(ask(&context_of(None), &format!("SELECT * FROM ({sql}) AS documents")).await)
        }
        None => None,
    };
    let (applied, has_typed) = base.unzip();
    let sql = view_of(applied, 12, &typed, has_typed.unwrap_or_default());
    let sql = format!("SELECT key, misfits, n, o, x, seq FROM ({sql}) AS it ORDER BY key");
    pretty_format_batches(&ask(&context_of(base_rows), &sql).await).unwrap().to_string()
}

#[tokio::test]
async fn typed_columns_are_the_same_whether_a_base_has_them_or_they_are_computed() {
    let alone = typed_columns(None).await;
    assert!(alone.contains("| key | misfits | n "), "{alone}");
    assert!(alone.contains("| d   | 1       | 10 | 1 |"), "{alone}");
    // The documents of event 10 are in the base: some changed since.
    for base in [(10, false), (10, true), (12, false), (12, true)] {
        assert_eq!(typed_columns(Some(base)).await, alone, "{base:?}");
    }
}
