use super::*;
use crate::table::lake::{TestLake, longs, optional, schema, texts, within};
use arrow::{
    array::{ArrayRef, Int32Array},
    util::pretty::pretty_format_batches,
};
use iceberg::spec::{Datum, Literal, PrimitiveType};
use icecore_catalog::scan::filter::{Comparison, FilterTest, Term, ValueCheck};

/// Columns of a lake's newest snapshot that meet a filter, as text.
async fn shown(lake: &TestLake, columns: &[i32], filter: Filter) -> Result<String, ReadError> {
    let batches = batches(lake, columns, filter, DeleteHandling::Applied).await?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

async fn batches(
    lake: &TestLake,
    columns: &[i32],
    filter: Filter,
    deletes: DeleteHandling,
) -> Result<Vec<RecordBatch>, ReadError> {
    let snapshot_id = lake.metadata.current_snapshot_id().unwrap();
    let request = ReadRequest { snapshot_id, columns: columns.to_vec(), filter, deletes };
    rows(lake.source(), request).await?.try_collect().await
}

fn test(lake: &TestLake, column: &str, check: ValueCheck) -> Filter {
    let term = Term::column(lake.metadata.current_schema(), column, true).unwrap();
    Filter::Test(FilterTest { term, check })
}

fn is(lake: &TestLake, column: &str, comparison: Comparison, value: Datum) -> Filter {
    test(lake, column, ValueCheck::Compare(comparison, value))
}

fn numbers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    longs(values.into_iter().map(Some))
}

#[tokio::test]
async fn each_row_that_meets_the_filter_comes_once_without_those_that_are_deleted() {
    let mut lake = TestLake::of_people(true);
    for (city, from) in [("x", 0), ("y", 100)] {
        let names = (0..100).map(|n| if n % 3 == 0 { None } else { Some("n") });
        let columns = [
            (1, "id", numbers(from..from + 100)),
            (2, "name", texts(names)),
            (3, "city", texts([Some(city); 100])),
        ];
        let file = lake.write(&columns).await.partition(within(city)).build().unwrap();
        let places: Vec<_> = (10..90).map(|place| (&file, place)).collect();
        let mut gone = lake.positions(&places).await;
        let gone = gone.partition(within(city)).build().unwrap();
        lake.commit(vec![file, gone]).await;
    }
    let mut by_key = lake.equality(&[(1, "id", numbers([5, 105]))]).await;
    let by_key = by_key.partition(within("y")).build().unwrap();
    lake.commit(vec![by_key]).await;
    let in_y = is(&lake, "city", Comparison::Equal, Datum::string("y"));
    let low = is(&lake, "id", Comparison::Less, Datum::long(108));
    let filter = low.clone().and(in_y.or(test(&lake, "name", ValueCheck::IsNull)));
    expect_test::expect![[r#"
        +------+-----+
        | name | id  |
        +------+-----+
        |      | 0   |
        |      | 3   |
        |      | 6   |
        |      | 9   |
        |      | 90  |
        |      | 93  |
        |      | 96  |
        |      | 99  |
        |      | 100 |
        | n    | 101 |
        | n    | 102 |
        |      | 103 |
        | n    | 104 |
        |      | 106 |
        | n    | 107 |
        +------+-----+"#]]
    .assert_eq(&shown(&lake, &[2, 1], filter).await.unwrap());
    let all = batches(&lake, &[1], low, DeleteHandling::Ignored).await.unwrap();
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 108);
}

#[tokio::test]
async fn tests_of_missing_values_are_met_by_none_but_the_test_for_them() {
    let mut lake = TestLake::of_people(false);
    let names = texts([Some("a"), None, Some("b"), Some("c")]);
    let file = lake.write(&[(1, "id", numbers(1..5)), (2, "name", names)]).await.build().unwrap();
    lake.commit(vec![file]).await;
    let text = |text: &str| Datum::string(text);
    for (check, expected) in [
        (ValueCheck::IsNull, vec![2]),
        (ValueCheck::NotNull, vec![1, 3, 4]),
        (ValueCheck::Compare(Comparison::NotEqual, text("a")), vec![3, 4]),
        (ValueCheck::Compare(Comparison::LessOrEqual, text("b")), vec![1, 3]),
        (ValueCheck::Compare(Comparison::Greater, text("b")), vec![4]),
        (ValueCheck::In(vec![text("c"), text("a")]), vec![1, 4]),
        (ValueCheck::NotIn(vec![text("c"), text("x")]), vec![1, 3]),
        (ValueCheck::In(Vec::new()), vec![]),
    ] {
        for negated in [false, true] {
            let filter = test(&lake, "name", check.clone());
            let filter = if negated { filter.negate() } else { filter };
            let found = batches(&lake, &[1], filter, DeleteHandling::Applied).await.unwrap();
            let mut found: Vec<i64> = found
                .iter()
                .flat_map(|rows| {
                    let ids = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(
                        rows.column(0),
                    );
                    ids.values().to_vec()
                })
                .collect();
            found.sort_unstable();
            let is_null_test = matches!(check, ValueCheck::IsNull | ValueCheck::NotNull);
            let others = [1, 2, 3, 4].into_iter().filter(|id| !expected.contains(id));
            let others: Vec<i64> = others.filter(|id| is_null_test || *id != 2).collect();
            assert_eq!(found, if negated { others } else { expected.clone() }, "{check:?}");
        }
    }
}

#[tokio::test]
async fn columns_are_read_as_they_are_today() {
    let mut lake = TestLake::of_people(false);
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let old = lake.write(&[(2, "name", texts([Some("a"), None])), (1, "id", narrow)]).await;
    let old = old.build().unwrap();
    lake.commit(vec![old]).await;
    let later = optional(4, "name", PrimitiveType::Long).with_initial_default(Literal::long(7));
    let columns = schema([optional(1, "key", PrimitiveType::Long), later]);
    lake.change(|builder| builder.add_current_schema(columns));
    // A file without ids has the columns under their names of today, and none that was dropped.
    let plain = lake.write(&[(0, "name", numbers([8])), (0, "key", numbers([3]))]).await;
    let plain = plain.build().unwrap();
    lake.commit(vec![plain]).await;
    let few = is(&lake, "name", Comparison::GreaterOrEqual, Datum::long(7));
    expect_test::expect![[r#"
        +-----+------+-----------+
        | key | name | dropped_2 |
        +-----+------+-----------+
        | 1   | 7    | a         |
        | 2   | 7    |           |
        | 3   | 8    |           |
        +-----+------+-----------+"#]]
    .assert_eq(&shown(&lake, &[1, 4, 2], few).await.unwrap());
}

#[tokio::test]
async fn what_is_not_read_is_an_error_that_says_what() {
    let mut lake = TestLake::of_people(false);
    let file = lake.write(&[(1, "id", numbers(1..5))]).await.build().unwrap();
    let location = file.file_path().to_owned();
    lake.commit(vec![file]).await;
    let prefix = test(&lake, "name", ValueCheck::StartsWith("a".to_owned()));
    for (columns, filter, expected) in [
        (vec![9], Filter::True, "it has no column with id 9"),
        (vec![1], Filter::Unknown, "a part that is not known"),
        (vec![1], prefix, "filter on `name`"),
    ] {
        let error = shown(&lake, &columns, filter).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let bytes = lake.storage.get(&location).await.unwrap();
    lake.storage.delete(&location).await.unwrap();
    let error = format!("{:?}", shown(&lake, &[1], Filter::True).await.unwrap_err());
    assert!(error.contains(&location), "{error}");
    lake.storage.put(&location, bytes.slice(..bytes.len() - 20)).await.unwrap();
    let error = format!("{:?}", shown(&lake, &[1], Filter::True).await.unwrap_err());
    assert!(error.contains(&location), "{error}");
}

/// Row groups of a hundred rows: of each thousand rows one is read for one value.
#[tokio::test]
async fn row_groups_that_cannot_meet_the_filter_are_not_read() {
    let mut lake = TestLake::of_people(false);
    lake.group_rows = Some(100);
    let file = lake.write(&[(1, "id", numbers(0..1000))]).await.build().unwrap();
    let mut gone = lake.positions(&[(&file, 655), (&file, 0)]).await;
    let gone = gone.content(iceberg::spec::DataContentType::PositionDeletes).build().unwrap();
    lake.commit(vec![file, gone]).await;
    let ids = |from, to| {
        is(&lake, "id", Comparison::GreaterOrEqual, Datum::long(from)).and(is(
            &lake,
            "id",
            Comparison::Less,
            Datum::long(to),
        ))
    };
    let ScanPlan { files, .. } = lake.plan().await;
    let columns = FileColumns::of(&lake.metadata, &[1]).unwrap();
    let opened = OpenFile::new(&lake.storage, &files[0], &columns).await.unwrap();
    let read = opened.footer().row_groups().iter();
    let read = read.filter(|group| statistics::may_match(&ids(653, 702), group, &opened));
    assert_eq!(read.count(), 2);
    let found = batches(&lake, &[1], ids(653, 702), DeleteHandling::Applied).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 48);
}

/// Pages of fifty rows in row groups of five hundred: one page is read for one value, with every column of it.
#[tokio::test]
async fn pages_that_cannot_meet_the_filter_are_not_read() {
    let mut lake = TestLake::of_people(false);
    (lake.group_rows, lake.page_rows) = (Some(500), Some(50));
    let texts_of = |number: i64| if number % 100 < 50 { Some("first") } else { None };
    let names = texts((0..1000).map(texts_of));
    let columns = [(1, "id", numbers(0..1000)), (2, "name", names)];
    let file = lake.write(&columns).await.build().unwrap();
    let mut gone = lake.positions(&[(&file, 655), (&file, 0)]).await;
    let gone = gone.content(iceberg::spec::DataContentType::PositionDeletes).build().unwrap();
    lake.commit(vec![file, gone]).await;
    let ScanPlan { files, .. } = lake.plan().await;
    let columns = FileColumns::of(&lake.metadata, &[1, 2]).unwrap();
    let id = |comparison, id: i64| is(&lake, "id", comparison, Datum::long(id));
    let (from, to) = (Comparison::GreaterOrEqual, Comparison::Less);
    let is_there = || test(&lake, "name", ValueCheck::NotNull);
    for (filter, expected, met) in [
        (id(Comparison::Equal, 654), vec![(150, 200)], 1),
        (id(Comparison::Equal, 655), vec![(150, 200)], 0),
        (id(from, 649).and(id(to, 702)), vec![(100, 250)], 52),
        (id(Comparison::Equal, 510).or(id(from, 990)), vec![(0, 50), (450, 500)], 11),
        (id(from, 700).and(is_there()), vec![(200, 250), (300, 350), (400, 450)], 150),
        (Filter::Unknown.or(id(to, 0)), vec![(0, 500)], 0),
    ] {
        let opened = OpenFile::with_pages(&lake.storage, &files[0], &columns).await.unwrap();
        let found = pages::rows_of(&filter, 1, &opened);
        let found: Vec<_> = found.iter().map(|rows| (rows.start, rows.end)).collect();
        assert_eq!(found, expected, "{filter:?}");
        let without = OpenFile::new(&lake.storage, &files[0], &columns).await.unwrap();
        assert_eq!(pages::rows_of(&filter, 1, &without).len(), 1, "{filter:?}");
        assert_eq!(pages::held_bytes(&Filter::Unknown, &without), without.bytes().open);
        if condition::columns(&filter).is_err() {
            continue;
        }
        let found = batches(&lake, &[2, 1], filter.clone(), DeleteHandling::Applied).await.unwrap();
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), met, "{filter:?}");
    }
    // Of files whose pages with such rows have more than there is room for, nothing is read.
    let one = id(Comparison::Equal, 654);
    let opened = OpenFile::with_pages(&lake.storage, &files[0], &columns).await.unwrap();
    let held = pages::held_bytes(&one, &opened);
    assert!(0 < held && held * 5 < opened.bytes().open, "{held}");
    let snapshot_id = lake.metadata.current_snapshot_id().unwrap();
    for (held_max, expected) in [(held, Some(1)), (held - 1, None)] {
        let (filter, deletes) = (one.clone(), DeleteHandling::Applied);
        let request = ReadRequest { snapshot_id, columns: vec![1, 2], filter, deletes };
        let found = rows_within(lake.source(), request, held_max).await.unwrap();
        let found: Result<Vec<RecordBatch>, ReadError> = found.try_collect().await;
        let found = found.map(|rows| rows.iter().map(RecordBatch::num_rows).sum::<usize>());
        assert_eq!(found.ok(), expected, "{held_max}");
    }
}
