use super::*;
use datafusion::logical_expr::{exists, lit};

fn constants() -> LogicalPlanBuilder {
    LogicalPlanBuilder::empty(true).project([lit(1).alias("a")]).unwrap()
}

#[test]
fn signs_that_mean_something_else_in_a_dialect_are_refused() {
    for (dialect, sql, is_read) in [
        ("trino", r#"SELECT "a" / 2 FROM t WHERE b = '\\d'"#, true),
        ("ICECORE", r#"SELECT "a" / 2 FROM t"#, true),
        ("duckdb", r#"SELECT "a" FROM t WHERE b = '\\d'"#, true),
        ("duckdb", "SELECT a / 2 FROM t", false),
        ("spark", "SELECT `a` FROM t WHERE b = '/' AND c = '\"'", true),
        ("spark", r#"SELECT a FROM t WHERE b = "c""#, false),
        ("spark", r"SELECT a FROM t WHERE b = '\\d'", false),
        ("spark", "SELECT a / 2 FROM t", false),
        ("hive", r#"SELECT "a" FROM t"#, false),
    ] {
        assert_eq!(check_dialect(dialect, sql).is_ok(), is_read, "{dialect}: {sql}");
    }
}

#[test]
fn plans_are_counted_with_rows_of_constants() {
    let of = |count: usize| {
        let first = constants().build().unwrap();
        let all = (1..count).fold(LogicalPlanBuilder::from(first), |all, _| {
            all.union(constants().build().unwrap()).unwrap()
        });
        all.build().unwrap()
    };
    assert!(check_size(&of(RELATIONS_MAX)).is_ok());
    let refused = check_size(&of(RELATIONS_MAX + 1)).unwrap_err();
    assert!(refused.to_string().contains("more than 250 tables"), "{refused}");
}

#[test]
fn queries_in_expressions_are_counted_through_views() {
    let nested = |depth: usize| {
        (0..depth).fold(constants().build().unwrap(), |within, _| {
            constants().filter(exists(Arc::new(within))).unwrap().build().unwrap()
        })
    };
    assert!(check_size(&nested(SUBQUERY_DEPTH_MAX)).is_ok());
    let refused = check_size(&nested(SUBQUERY_DEPTH_MAX + 1)).unwrap_err();
    assert!(refused.to_string().contains("8 levels of queries"), "{refused}");
}

#[test]
fn steps_of_a_plan_are_counted() {
    let names = ["s", "t"].into_iter().cycle().take(60);
    let branch = names.fold(constants(), |below, name| below.alias(name).unwrap());
    let branch = branch.build().unwrap();
    let of = |count: usize| {
        let first = LogicalPlanBuilder::from(branch.clone());
        let all = (1..count).fold(first, |all, _| all.union(branch.clone()).unwrap());
        all.build().unwrap()
    };
    assert!(check_size(&of(100)).is_ok());
    let refused = check_size(&of(200)).unwrap_err();
    assert!(refused.to_string().contains("10000 steps"), "{refused}");
}

#[tokio::test]
async fn a_member_of_a_struct_is_read_through_a_view() {
    let context = SessionContext::new();
    let query = context.sql("SELECT named_struct('a', 1) AS s, 2 AS n").await.unwrap();
    let names = ["s", "n"].map(str::to_owned);
    let plan = named(query.into_unoptimized_plan(), &names).unwrap();
    context.register_table("v", Arc::new(ViewTable::new(plan, None))).unwrap();
    for sql in ["SELECT get_field(s, 'a') FROM v", "SELECT s, n FROM v"] {
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1, "{sql}");
    }
}
