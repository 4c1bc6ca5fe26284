use super::*;

fn helper() -> PromptNames {
    let row = |schema: &str, table: &str, column: &str| {
        (schema.to_owned(), table.to_owned(), column.to_owned())
    };
    PromptNames::with(vec![
        row("shop", "dead_letters", "reason"),
        row("shop", "events", "seq"),
        row("shop", "events", "type"),
        row("shop", "events", "odd name"),
        row("shop", "events", "bell\u{7}"),
        row("system", "audit", "principal"),
    ])
}

fn check(before: &str, start: usize, expected: &[&str]) {
    assert_eq!(
        helper().candidates(before),
        (start, expected.iter().map(|it| (*it).to_owned()).collect()),
        "{before}"
    );
}

#[test]
fn tables_are_offered_where_a_table_is_named() {
    check("SELECT 1 FROM ", 14, &["audit", "dead_letters", "events"]);
    check("SELECT 1 from EV", 14, &["events"]);
    check("DESCRIBE d", 9, &["dead_letters"]);
    check("\\d ev", 3, &["events"]);
    check("SELECT 1 FROM system.", 21, &["audit"]);
}

#[test]
fn columns_are_those_of_the_tables_that_the_statement_names() {
    check("SELECT e.seq FROM events e WHERE ", 33, &["\"odd name\"", "seq", "type"]);
    check("SELECT 1 FROM events WHERE se", 27, &["select", "seq"]);
    check("SELECT 1 FROM events WHERE odd", 27, &["\"odd name\""]);
    check("SELECT events.ty", 14, &["type"]);
    check("SELECT pri", 7, &["principal"]);
    check("SELECT ", 7, &[]);
    let mut helper = helper();
    helper.earlier = "SELECT type FROM events\n".to_owned();
    assert_eq!(helper.candidates("WHERE re"), (6, vec![]));
}

#[test]
fn keywords_are_in_the_case_of_what_was_typed() {
    check("sel", 0, &["select"]);
    check("SEL", 0, &["SELECT"]);
    check("select 'sel", 8, &[]);
    check("select 'it''s', sele", 16, &["select"]);
}

#[test]
fn commands_are_completed_at_the_beginning_of_a_line() {
    check("\\t", 0, &["\\timing"]);
    check("\\d", 0, &["\\d", "\\dt"]);
    check("x", 0, &[]);
}

#[test]
fn a_name_begins_with_what_was_typed_whatever_its_case() {
    assert!(begins_with("Events", "eV") && begins_with("events", ""));
    assert!(!begins_with("ev", "events"));
    assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    assert_eq!(quoted("docId"), "docId");
    assert_eq!(quoted("1st"), "\"1st\"");
}
