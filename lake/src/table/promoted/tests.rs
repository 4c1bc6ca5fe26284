use super::*;
use crate::table::schema::{create, ident};
use arrow::datatypes::{Float64Type, Int64Type};
use iceberg::{TableUpdate, spec::TableMetadataBuilder};
use icecore_samples as sample;
use icecore_schemas::{columns::KNOWN_EVENTS, names::Namespace, service_table::SERVICE_TABLES};

fn events_table(paths: &str) -> TableMetadata {
    let table = sample::metadata(create(&SERVICE_TABLES[0]), "file:///t");
    asking(table, paths)
}

fn changed(table: TableMetadata, updates: Vec<TableUpdate>) -> TableMetadata {
    let mut builder: TableMetadataBuilder = table.into_builder(None);
    for update in updates {
        builder = update.apply(builder).unwrap();
    }
    builder.build().unwrap().metadata
}

/// The table with the columns that it lacks.
fn with_columns(table: TableMetadata) -> TableMetadata {
    let asked = PathRequests::of(&table).unwrap();
    let ident = ident(&Namespace::parse("a").unwrap(), "events");
    let change = asked.add_to(&ident, &table).unwrap();
    changed(table, change.updates)
}

/// The values that a path finds in these documents.
fn values(path: &str, documents: &[&str]) -> ArrayRef {
    let fields = vec![Field::new("data", DataType::Utf8, true)];
    let texts: ArrayRef =
        Arc::new(documents.iter().map(|text| Some(*text)).collect::<StringArray>());
    let rows = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), vec![texts]).unwrap();
    PromotedPath::parse(path).unwrap().values(&rows).unwrap()
}

#[test]
fn a_property_names_paths_or_says_what_to_change() {
    let names = |text: &str| -> Result<Vec<String>, String> {
        let paths = parse(text).map_err(|cause| cause.to_string())?;
        Ok(paths.into_iter().map(|path| path.name).collect())
    };
    let expected = ["data__amount", "data__user__first_name", "after__userId"];
    let text = " data.amount:double, data.user.first_name : string,after.userId:long,";
    assert_eq!(names(text).unwrap(), expected);
    assert!(names("").unwrap().is_empty());
    for (text, told) in [
        ("data.amount", "`data.amount` is no path"),
        ("data:double", "`data:double` is no path"),
        ("user_id.a:string", "is in no column of JSON"),
        ("data.amount:float", "has no type of a path"),
        ("data.:long", "has a member that makes no column name"),
        ("data.a__b:long", "has a member that makes no column name"),
        ("data.a_:long", "has a member that makes no column name"),
        ("data._a:long", "has a member that makes no column name"),
        ("data.ü:long", "has a member that makes no column name"),
        ("data.a b:long", "has a member that makes no column name"),
        ("data.a:long,data.A:long", "two paths make the column `data__A`"),
    ] {
        let cause = names(text).unwrap_err();
        assert!(cause.contains(told), "{text}: {cause}");
    }
    let long = format!("data.{}:long", "a".repeat(NAME_BYTES_MAX));
    assert_eq!(parse(&long), Err(PathsError::TooLong(long.clone())));
    let many =
        |count: usize| (0..count).map(|n| format!("data.a{n}:long")).collect::<Vec<_>>().join(",");
    assert_eq!(parse(&many(PATHS_MAX)).unwrap().len(), PATHS_MAX);
    assert_eq!(parse(&many(PATHS_MAX + 1)), Err(PathsError::TooMany));
}

#[test]
fn no_column_of_ours_has_the_name_of_a_path() {
    assert!(KNOWN_EVENTS.iter().all(|column| !column.name.contains(SEPARATOR)));
}

#[test]
fn a_value_of_another_type_or_of_nothing_is_null() {
    let documents = [
        r#"{"a": 1}"#,
        r#"{"a": -2.50}"#,
        r#"{"a": 1e2}"#,
        r#"{"a": 9223372036854775808}"#,
        r#"{"a": 1e999}"#,
        r#"{"a": "1"}"#,
        r#"{"a": true}"#,
        r#"{"a": null}"#,
        r#"{"a": [1]}"#,
        r#"{"b": 1}"#,
        r#"{"a": 1, "a": 7}"#,
        r#"{"\u0061": 8}"#,
        "[1]",
        "not JSON",
        "",
    ];
    let longs = values("data.a:long", &documents);
    let longs: Vec<Option<i64>> = longs.as_primitive::<Int64Type>().iter().collect();
    let mut expected = vec![None; documents.len()];
    (expected[0], expected[10], expected[11]) = (Some(1), Some(7), Some(8));
    assert_eq!(longs, expected);

    let doubles = values("data.a:double", &documents);
    let doubles: Vec<Option<f64>> = doubles.as_primitive::<Float64Type>().iter().collect();
    let mut expected = vec![None; documents.len()];
    (expected[0], expected[1], expected[2]) = (Some(1.0), Some(-2.5), Some(100.0));
    (expected[3], expected[10], expected[11]) =
        (Some(9_223_372_036_854_775_808.0), Some(7.0), Some(8.0));
    assert_eq!(doubles, expected);

    let truths = values("data.a:boolean", &documents);
    let truths: Vec<Option<bool>> = truths.as_boolean().iter().collect();
    assert_eq!(truths.iter().flatten().count(), 1);
    assert_eq!(truths[6], Some(true));
}

#[test]
fn a_string_is_its_text_and_half_of_a_surrogate_pair_is_none() {
    let documents = [
        r#"{"a": {"b": "x \"y\" \u00e4"}}"#,
        r#"{"a": {"b": ""}}"#,
        r#"{"a": {"b": "\ud800"}}"#,
        r#"{"a": {"b": 1}}"#,
        r#"{"a": "b"}"#,
    ];
    let texts = values("data.a.b:string", &documents);
    let texts: Vec<Option<&str>> = texts.as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("x \"y\" ä"), Some(""), None, None, None]);
}

/// The table with another value of the property.
fn asking(table: TableMetadata, paths: &str) -> TableMetadata {
    let updates = [(PROMOTED_PATHS.to_owned(), paths.to_owned())].into();
    changed(table, vec![TableUpdate::SetProperties { updates }])
}

#[test]
fn a_column_is_added_once_and_computed_as_long_as_it_is_there() {
    let table = events_table("data.amount:double,data.user.id:string");
    let asked = PathRequests::of(&table).unwrap();
    assert_eq!(asked.missing(), ["data__amount", "data__user__id"]);
    assert_eq!(Promotions::of(&table).ids().count(), 0);
    let next_id = table.last_column_id() + 1;
    let table = with_columns(table);
    let asked = PathRequests::of(&table).unwrap();
    assert!(asked.missing().is_empty() && asked.left_out().is_empty());
    let promotions = Promotions::of(&table);
    assert_eq!(promotions.ids().collect::<Vec<_>>(), [next_id, next_id + 1]);
    assert!(promotions.has(next_id) && !promotions.has(next_id - 1));

    // Whatever is asked for by then.
    for paths in ["", "data", "data.amount:double"] {
        let table = asking(table.clone(), paths);
        assert_eq!(Promotions::of(&table).ids().count(), 2, "{paths}");
    }
    // Another type is another column, which the name has no room for.
    let asked = PathRequests::of(&asking(table.clone(), "data.amount:long")).unwrap();
    assert_eq!((asked.missing().len(), asked.left_out()), (0, vec!["data__amount"]));
    // Columns that are there count as well.
    let paths: Vec<String> = (0..PATHS_MAX - 1).map(|n| format!("data.a{n}:long")).collect();
    let refused = PathRequests::of(&asking(table, &paths.join(",")));
    assert_eq!(refused.unwrap_err(), PathsError::TooMany);
}

#[test]
fn what_others_made_is_left_alone() {
    let table = events_table("data.amount:double");
    let id = table.last_column_id() + 1;
    let kind = Type::Primitive(PrimitiveType::Double);
    let ident = ident(&Namespace::parse("a").unwrap(), "events");
    for name in ["data__amount", "Data__Amount"] {
        let foreign = Arc::new(NestedField::optional(id, name, kind.clone()));
        let change = evolve::add_fields(&ident, &table, [foreign].into_iter()).unwrap();
        let table = changed(table.clone(), change.updates);
        let asked = PathRequests::of(&table).unwrap();
        assert_eq!((asked.missing().len(), asked.left_out()), (0, vec!["data__amount"]), "{name}");
        assert_eq!(Promotions::of(&table).ids().count(), 0, "{name}");
    }

    // A table of others' has no paths, and one without the JSON no column.
    let removals = vec![retention::MANAGED.to_owned()];
    let foreign = changed(with_columns(table), vec![TableUpdate::RemoveProperties { removals }]);
    assert!(PathRequests::of(&foreign).unwrap().missing().is_empty());
    assert_eq!(Promotions::of(&foreign).ids().count(), 0);
    let letters = sample::metadata(create(&SERVICE_TABLES[1]), "file:///t");
    let letters = asking(letters, "data.amount:double");
    assert_eq!(PathRequests::of(&letters).unwrap().left_out(), ["data__amount"]);
    assert!(PathRequests::of(&events_table("data.amount")).is_err());
}

#[test]
fn rows_get_the_column_and_one_that_they_have_is_computed_anew() {
    let promotions = Promotions::of(&with_columns(events_table("data.amount:double")));
    let id = promotions.ids().next().unwrap();
    let fields = vec![Field::new("data", DataType::Utf8, true)];
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(r#"{"amount": 3}"#), None]));
    let rows = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), vec![texts]).unwrap();
    let filled = promotions.fill(rows).unwrap();
    assert_eq!(filled.schema_ref().field(1).metadata()[FIELD_ID], id.to_string());
    let amounts = |rows: &RecordBatch| -> Vec<Option<f64>> {
        rows.column_by_name("data__amount").unwrap().as_primitive::<Float64Type>().iter().collect()
    };
    assert_eq!(amounts(&filled), [Some(3.0), None]);

    let stale: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(9.0)]));
    let columns = vec![Arc::clone(filled.column(0)), stale];
    let stale = RecordBatch::try_new(filled.schema(), columns).unwrap();
    let again = promotions.fill(stale).unwrap();
    assert_eq!((amounts(&again), again.schema()), (amounts(&filled), filled.schema()));
}
