use super::*;
use datafusion::prelude::SessionContext;

async fn plan(sql: &str) -> LogicalPlan {
    SessionContext::new().state().create_logical_plan(sql).await.unwrap()
}

fn nested(step: &str, times: usize) -> String {
    let first = "SELECT column1 AS x, column2 AS y FROM (VALUES (1, 2))".to_owned();
    (0..times).fold(first, |below, _| format!("SELECT {step} AS x, y FROM ({below})"))
}

#[tokio::test]
async fn a_column_weighs_as_much_as_what_it_stands_for() {
    check(&plan(&nested("x + x", 9)).await, QueryProcess::Shared).unwrap();
    check(&plan(&nested("x + y", 12)).await, QueryProcess::Shared).unwrap();
    let error = check(&plan(&nested("x + x + x + x", 9)).await, QueryProcess::Shared).unwrap_err();
    assert!(error.to_string().contains("more than 100000 parts"), "{error}");
    let within = format!("SELECT 1 WHERE 3 IN (SELECT x FROM ({}))", nested("x + x + x + x", 9));
    check(&plan(&within).await, QueryProcess::Shared).unwrap_err();
    let both = format!(
        "SELECT a.x + b.x FROM ({0}) a JOIN ({0}) b ON a.y = b.y",
        nested("x + x + x + x", 8)
    );
    check(&plan(&both).await, QueryProcess::Shared).unwrap_err();
    // What is summed up is worked out once and not put in another's place.
    let summed = format!("SELECT sum(x) AS x, 1 AS y FROM ({})", nested("x + x", 9));
    check(&plan(&summed).await, QueryProcess::Shared).unwrap();
}

#[tokio::test]
async fn what_the_optimizer_copies_weighs_as_much_as_the_copies() {
    let within = |form: &str, times: usize| {
        let made = (0..times).fold("x".to_owned(), |inner, _| form.replace('_', &inner));
        format!("SELECT {made} FROM (VALUES (true)) t(x)")
    };
    for form in [
        "coalesce(_, x)",
        "nvl(_, false)",
        "nullif(_, x)",
        "(_ BETWEEN false AND true)",
        "(_ NOT IN (true, NULL))",
    ] {
        check(&plan(&within(form, 8)).await, QueryProcess::Shared).unwrap();
        let error = check(&plan(&within(form, 30)).await, QueryProcess::Shared).unwrap_err();
        assert!(error.to_string().contains("more than 100000 parts"), "{form}: {error}");
    }
    let longer = within("(_ IN (true, false, NULL, x))", 30);
    check(&plan(&longer).await, QueryProcess::Shared).unwrap();
}

#[tokio::test]
async fn only_so_many_regular_expressions_are_compiled() {
    let sql = |times: usize| {
        let patterns: Vec<String> =
            (0..times / 2).map(|n| format!("x ~ 'a{n}' OR regexp_like(x, 'b{n}')")).collect();
        format!("SELECT 1 FROM (VALUES ('a')) t(x) WHERE {}", patterns.join(" OR "))
    };
    check(&plan(&sql(10)).await, QueryProcess::Shared).unwrap();
    let twice = format!("WITH c AS ({0}) SELECT * FROM c UNION ALL SELECT * FROM c", sql(10));
    check(&plan(&twice).await, QueryProcess::Shared).unwrap();
    let often =
        format!("WITH c AS ({0}) SELECT 1{1}", sql(10), " UNION ALL SELECT * FROM c".repeat(6));
    let error = check(&plan(&often).await, QueryProcess::Shared).unwrap_err();
    assert!(error.to_string().contains("more than 50 regular expressions"), "{error}");
}

#[tokio::test]
async fn batches_are_small_where_constants_are_large() {
    let rows = async |sql: &str| batch_rows(&plan(sql).await, 8_192, QueryProcess::Shared);
    assert_eq!(rows("SELECT 'short', 1").await.unwrap(), 8_192);
    let long = "x".repeat(60_000);
    let few = rows(&format!("SELECT '{long}'")).await.unwrap();
    assert!((1_000..1_200).contains(&few), "{few} rows");
    assert_eq!(rows(&format!("SELECT 1 WHERE 'x' IN (SELECT '{long}')")).await.unwrap(), few);
    let columns: Vec<String> = (0..20).map(|n| format!("'{long}' AS c{n}")).collect();
    let error = rows(&format!("SELECT {}", columns.join(", "))).await;
    assert!(error.is_err_and(|error| error.to_string().contains("constants")));
    let all = plan(&format!("SELECT {}", columns.join(", "))).await;
    let own = batch_rows(&all, 8_192, QueryProcess::Own).unwrap();
    assert!((1..ROWS_MIN).contains(&own), "{own} rows");
}

#[tokio::test]
async fn a_process_of_its_own_counts_columns_alone() {
    check(&plan(&nested("x + x + x + x", 9)).await, QueryProcess::Own).unwrap();
    let columns: Vec<String> = (0..=COLUMNS_MAX).map(|n| format!("1 AS c{n}")).collect();
    let wide = plan(&format!("SELECT count(*) FROM (SELECT {})", columns.join(", "))).await;
    for process in [QueryProcess::Own, QueryProcess::Shared] {
        let error = check(&wide, process).unwrap_err().to_string();
        assert!(error.contains("more than 4000 columns"), "{error}");
    }
}

#[test]
fn types_that_double_or_are_deep_are_refused() {
    let of = |levels: usize, made_of: fn(DataType) -> DataType| {
        let kind = (0..levels).fold(DataType::Int64, |kind, _| made_of(kind));
        check_types(&Fields::from(vec![Field::new("s", kind, true)]))
    };
    let twice = |kind: DataType| {
        let members = ["a", "b"].map(|name| Field::new(name, kind.clone(), true));
        DataType::Struct(members.to_vec().into())
    };
    let listed = |kind: DataType| DataType::List(Field::new("item", kind, true).into());
    of(10, twice).unwrap();
    of(LEVELS_MAX - 1, listed).unwrap();
    for refused in [of(20, twice), of(LEVELS_MAX, listed)] {
        assert!(refused.unwrap_err().to_string().contains("too many members"));
    }
}
