use super::{
    evolution::{EvolutionError, SchemaEvolution},
    json_schema::{DocumentSchema, SchemaError, check_names},
    *,
};
use crate::table::{
    documents::{self, AppliedChanges},
    erasure::condition::RowCondition,
    row_sum::RowKeys,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, StringViewArray, StructArray},
    datatypes::Int32Type,
    record_batch::RecordBatch,
    util::display::array_value_to_string,
};
use icecore_samples as sample;
use serde_json::{Value, json};

fn orders() -> TableMetadata {
    sample::metadata(documents::create("orders"), "file:///warehouse/table/")
}

fn schema(properties: &Value) -> DocumentSchema {
    let schema = json!({"type": "object", "properties": properties, "required": ["must"]});
    DocumentSchema::parse(&schema).unwrap()
}

/// The table once its schema is this one.
fn evolved(table: &TableMetadata, properties: &Value) -> TableMetadata {
    let made = SchemaEvolution::of(table, &schema(properties)).unwrap();
    let evolution = made.evolution(table).unwrap().expect("the schema changes the table");
    let mut builder = table.clone().into_builder(None);
    for update in evolution.updates {
        builder = update.apply(builder).unwrap();
    }
    builder.build().unwrap().metadata
}

fn refused(table: &TableMetadata, properties: &Value) -> String {
    SchemaEvolution::of(table, &schema(properties)).unwrap_err().to_string()
}

fn typed(properties: &Value, docs: &[Option<&str>]) -> StructArray {
    let columns = TypedColumns::of(&evolved(&orders(), properties));
    columns.values(&docs.iter().copied().collect::<StringViewArray>()).unwrap()
}

/// The column of one property for one value.
fn check(property: &Value, value: &str, expected: Option<&str>) {
    let doc = format!("{{\"v\":{value}}}");
    let made = typed(&json!({ "v": property }), &[Some(doc.as_str())]);
    let column = made.column_by_name("v").unwrap();
    let found = column.is_valid(0).then(|| array_value_to_string(column, 0).unwrap());
    assert_eq!(found.as_deref(), expected, "{property} {value}");
    let misfits = made.column(0).as_primitive::<Int32Type>().value(0);
    assert_eq!(misfits, i32::from(expected.is_none()), "{property} {value}");
}

#[test]
fn a_value_that_fits_is_in_its_column_and_every_other_one_counts() {
    let kind = |name: &str| json!({ "type": name });
    let of = |name: &str, format: &str| json!({"type": name, "format": format});
    check(&kind("boolean"), "true", Some("true"));
    check(&kind("boolean"), "1", None);
    check(&kind("integer"), "9223372036854775807", Some("9223372036854775807"));
    check(&kind("integer"), "-9223372036854775808", Some("-9223372036854775808"));
    check(&kind("integer"), "9223372036854775808", None);
    check(&kind("integer"), "1.0", None);
    check(&kind("integer"), "\"1\"", None);
    check(&of("integer", "int32"), "-2147483648", Some("-2147483648"));
    check(&of("integer", "int32"), "2147483648", None);
    check(&kind("number"), "1e-1", Some("0.1"));
    check(&kind("number"), "1e999", None);
    check(&kind("number"), "1e400", None);
    check(&kind("number"), "-1e-400", Some("0.0"));
    check(&of("number", "float"), "-0.0", Some("0.0"));
    check(&of("number", "float"), "1.5", Some("1.5"));
    check(&of("number", "float"), "1e39", None);
    check(&kind("string"), "\"a\\u00e9\"", Some("aé"));
    check(&kind("string"), "\"\\ud83d\\ude00\"", Some("\u{1f600}"));
    check(&kind("string"), "\"\\ud83d\"", None);
    check(&kind("string"), "7", None);
    check(&kind("string"), "null", None);
    check(&of("string", "email"), "\"no\"", Some("no"));
    check(&of("string", "date"), "\"2026-11-20\"", Some("2026-11-20"));
    check(&of("string", "date"), "\"2026-02-30\"", None);
    check(&of("string", "date"), "\"+202-01-02\"", None);
    check(&of("string", "date"), "\"2026- 1- 2\"", None);
    check(&of("string", "date"), "\"2026-11-20Z\"", None);
    check(&of("string", "date"), "\"0000-01-01\"", None);
    let time = of("string", "date-time");
    check(&time, "\"2026-11-20T12:00:00.5+02:00\"", Some("2026-11-20T10:00:00.500Z"));
    check(&time, "\"2026-11-20T12:00:00\"", None);
    check(&time, "1700000000", None);
    // What is finer than a column holds, and what no minute has.
    check(&time, "\"2026-11-20 12:00:00.1234567Z\"", Some("2026-11-20T12:00:00.123456Z"));
    check(&time, "\"2026-11-20T12:00:60Z\"", Some("2026-11-20T12:01:00Z"));
    let uuid = "67E55044-10B1-426F-9247-BB680E5FE0C8";
    check(&of("string", "uuid"), &format!("\"{uuid}\""), Some(&uuid.to_lowercase()));
    check(&of("string", "uuid"), "\"67e5504410b1426f9247bb680e5fe0c8\"", None);
    check(&kind("object"), "{\"a\": [1]}", Some("{\"a\": [1]}"));
    check(&kind("object"), "[]", None);
    check(&kind("array"), "[1,  2]", Some("[1,  2]"));
}

#[test]
fn a_decimal_is_never_rounded() {
    let kind = json!({"type": "number", "format": "decimal", "precision": 5, "scale": 2});
    for (value, expected) in [
        ("1", Some("1.00")),
        ("-12.3", Some("-12.30")),
        ("\"999.99\"", Some("999.99")),
        ("1.2300", Some("1.23")),
        ("1.5e2", Some("150.00")),
        ("15000e-2", Some("150.00")),
        ("0e99999", Some("0.00")),
        ("0e999999999999", Some("0.00")),
        ("-0.0E+0", Some("0.00")),
        ("\"1e+2\"", Some("100.00")),
        ("1000", None),
        ("1.234", None),
        ("1e99999999999", None),
        ("1e2147483647", None),
        ("1e-2147483648", None),
        ("\"1,5\"", None),
        ("\"1.\"", None),
        ("\"01\"", None),
        ("\"00\"", None),
        ("\"-.5\"", None),
        ("\"+1\"", None),
        ("\" 1\"", None),
        ("\"1e\"", None),
        ("\"1e+-2\"", None),
        ("\"1.e2\"", None),
        ("\"\"", None),
        ("true", None),
    ] {
        check(&kind, value, expected);
    }
    let wide = json!({"type": "string", "format": "decimal", "precision": 38});
    let digits = "9".repeat(38);
    check(&wide, &digits, Some(&digits));
}

#[test]
fn what_is_missing_counts_where_it_has_to_be_there() {
    let properties = json!({
        "must": {"type": "integer"},
        "may": {"type": ["string", "null"]},
        "or": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    });
    let docs = [
        Some(r#"{"must":1,"may":null,"or":null}"#),
        Some("{}"),
        Some(r#"{"must":null,"may":2,"or":"x"}"#),
        Some("[1]"),
        Some("no JSON"),
        None,
        // Of two members of one name the last counts.
        Some(r#"{"must":"x","must":2}"#),
        // A name that is no text.
        Some(r#"{"must":1,"\ud800":2}"#),
        Some(r#"{"mu\u0073t":1,"may":"\u0000"}"#),
    ];
    let made = typed(&properties, &docs);
    let misfits: Vec<i32> = made.column(0).as_primitive::<Int32Type>().values().to_vec();
    assert_eq!(misfits, [0, 1, 3, 1, 1, 0, 0, 1, 0]);
    assert_eq!(made.column_by_name("must").unwrap().null_count(), 6);
}

#[test]
fn a_schema_says_what_to_change_where_it_makes_no_columns() {
    let parsed = |schema: Value| DocumentSchema::parse(&schema).map_err(|cause| cause.to_string());
    for form in [json!([]), json!({"type": "object"}), json!({"properties": {"a": {}}})] {
        assert_eq!(parsed(form), Err(SchemaError::Form.to_string()));
    }
    let of = |property: Value| parsed(json!({"type": "object", "properties": {"p": property}}));
    for (property, text) in [
        (json!({}), "has no type"),
        (json!({"$ref": "#/$defs/x"}), "has no type"),
        (json!({"type": ["null"]}), "has no type"),
        (json!({"anyOf": [{"type": "null"}]}), "has no type"),
        (json!({"type": ["string", "integer"]}), "several types"),
        (json!({"type": "text"}), "unknown type"),
        (json!({"type": "number", "format": "decimal"}), "precision"),
        (json!({"type": "number", "format": "decimal", "precision": 39}), "precision"),
        (json!({"type": "number", "format": "decimal", "precision": 3, "scale": 4}), "precision"),
    ] {
        let found = of(property.clone()).unwrap_err();
        assert!(found.starts_with("property `p` ") && found.contains(text), "{property}: {found}");
    }
    for kind in ["integer", "boolean", "object"] {
        let found = of(json!({"type": kind, "format": "decimal", "precision": 5})).unwrap_err();
        assert!(found.contains("another type"), "{kind}: {found}");
    }
    for required in [json!("p"), json!([1]), json!(["p", null]), json!(true), json!(null)] {
        let properties = json!({"p": {"type": "string"}});
        let found =
            parsed(json!({"type": "object", "properties": properties, "required": required}));
        assert_eq!(found, Err(SchemaError::Required.to_string()), "{required}");
    }
    let many: serde_json::Map<String, Value> =
        (0..201).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let many = parsed(json!({"type": "object", "properties": many}));
    assert_eq!(many, Err(SchemaError::TooMany.to_string()));
}

#[test]
fn a_property_that_is_there_twice_is_found_in_the_text() {
    let twice = Err(SchemaError::Repeated("a".to_owned()));
    for (text, expected) in [
        (r#"{"properties":{"a":{},"b":{},"\u0061":1}}"#, twice),
        (r#"{"properties":{"a":{"x":1,"x":2},"b":{}}}"#, Ok(())),
        (r#"{"properties":["a","a"]}"#, Ok(())),
        (r#"{"type":"object"}"#, Ok(())),
        ("[1", Ok(())),
    ] {
        assert_eq!(check_names(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn columns_come_behind_those_of_every_collection_and_keep_their_ids_as_they_widen() {
    let plain = orders();
    assert!(TypedColumns::of(&plain).is_empty());
    assert_eq!(TypedColumns::of(&plain).names().count(), 0);
    let first = json!({"n": {"type": "integer", "format": "int32"}, "key": {"type": "string"}});
    let one = evolved(&plain, &first);
    let names: Vec<String> = TypedColumns::of(&one).names().map(str::to_owned).collect();
    assert_eq!(names, [MISFITS, "doc_key", "n"]);
    let fields = one.current_schema().as_struct().fields();
    assert_eq!(fields[11].name, MISFITS);
    let id = one.current_schema().field_id_by_name("n");
    assert!(TypedColumns::registered(&one).unwrap().contains("int32"));

    let wider = json!({"n": {"type": ["integer", "null"]}, "key": {"type": "string"},
        "N": {"type": "boolean"}});
    let two = evolved(&one, &wider);
    let field = two.current_schema().field_by_name("n").unwrap();
    assert_eq!((Some(field.id), field.required), (id, false));
    assert_eq!(*field.field_type, Type::Primitive(PrimitiveType::Long));
    let names: Vec<String> = TypedColumns::of(&two).names().map(str::to_owned).collect();
    assert_eq!(names[..3], [MISFITS, "doc_key", "n"]);
    assert!(names[3].starts_with("N_"), "{names:?}");
    let again = SchemaEvolution::of(&two, &schema(&wider)).unwrap();
    assert_eq!(again.evolution(&two).unwrap().map(|it| it.updates), None);
    assert!(again.changes().is_empty());
}

#[test]
fn a_schema_that_takes_something_away_is_refused_with_what_it_takes() {
    let properties = json!({
        "total": {"type": "string", "format": "decimal", "precision": 10, "scale": 2},
        "name": {"type": ["string", "null"]},
        "must": {"type": "integer"},
    });
    let table = evolved(&orders(), &properties);
    let change = |name: &str, property: Value| {
        let mut other = properties.clone();
        other[name] = property;
        other
    };
    let scale = json!({"type": "string", "format": "decimal", "precision": 12, "scale": 3});
    let narrow = json!({"type": "string", "format": "decimal", "precision": 9, "scale": 2});
    for (other, text) in [
        (change("total", scale), "`total` is decimal(10,2), and would be decimal(12,3)"),
        (change("total", narrow), "`total` is decimal(10,2), and would be decimal(9,2)"),
        (change("name", json!({"type": "string"})), "`name` may be null, and would not be"),
        (change("must", json!({"type": "number"})), "`must` is long, and would be double"),
        (json!({"total": properties["total"]}), "`must` is gone; property `name` is gone"),
    ] {
        let found = refused(&table, &other);
        assert!(found.contains(text), "{other}: {found}");
    }
    let wide = json!({"type": "string", "format": "decimal", "precision": 12, "scale": 2});
    let made = SchemaEvolution::of(&table, &schema(&change("total", wide))).unwrap();
    let [change] = made.changes() else { panic!("{made:?}") };
    assert_eq!(change.before.as_deref(), Some("decimal(10,2) not null"));
    assert_eq!(change.now, "decimal(12,2) not null");
    assert!(matches!(
        SchemaEvolution::of(&table, &schema(&json!({"must": {"type": "integer"}}))),
        Err(EvolutionError::Narrower(lost)) if lost.len() == 2
    ));
}

#[test]
fn rows_lack_columns_unless_they_were_written_with_the_schema_of_now() {
    let plain = orders();
    let table = evolved(&plain, &json!({"n": {"type": "integer"}}));
    let written = |schema_id: Option<i32>| AppliedChanges {
        seq: 1,
        log: "log".to_owned(),
        erasures: None,
        schema_id,
    };
    let now = table.current_schema_id();
    assert!(written(Some(now)).has_columns_of_now(&table));
    // The second one is of a server that knew no schemas.
    for before in [Some(plain.current_schema_id()), None] {
        assert!(!written(before).has_columns_of_now(&table), "{before:?}");
        assert!(written(before).has_columns_of_now(&plain), "{before:?}");
    }
}

/// The table as one of no collection.
fn of_others(table: &TableMetadata) -> TableMetadata {
    let removals = vec![icecore_catalog::retention::COLLECTION.to_owned()];
    let builder = table.clone().into_builder(None).remove_properties(&removals).unwrap();
    builder.build().unwrap().metadata
}

#[test]
fn columns_that_tables_of_others_describe_so_are_theirs() {
    let table = evolved(&orders(), &json!({"n": {"type": "integer"}}));
    assert!(!TypedColumns::of(&table).is_empty());
    assert!(TypedColumns::of(&of_others(&table)).is_empty());
}

#[tokio::test]
async fn a_member_of_documents_says_neither_whose_a_row_is_nor_which_one() {
    let text = json!({"type": "string"});
    let table = evolved(&orders(), &json!({"id": text, "user_id": text}));
    assert!(table.current_schema().field_by_name("id").is_some());
    assert_eq!(RowKeys::of(table.current_schema()), None);
    let condition = RowCondition {
        value: "ann".into(),
        columns: &["user_id"],
        documents: &[],
        beside: &[],
        test: Arc::new(|columns: &[Option<ArrayRef>], rows: usize| {
            BooleanArray::from(vec![columns[0].is_some(); rows])
        }),
        bound: None,
        person: None,
        erased: Arc::default(),
    };
    let column: ArrayRef = Arc::new(StringArray::from(vec!["ann"]));
    let rows = RecordBatch::try_from_iter([("user_id", column)]).unwrap();
    let id = table.current_schema().field_id_by_name("user_id").unwrap();
    for (table, is_met) in [(of_others(&table), true), (table, false)] {
        let met = condition.within(&table, &[id]).met(&rows).await;
        assert_eq!(met.value(0), is_met);
    }
}
