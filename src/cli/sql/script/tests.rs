use super::*;

#[test]
fn statements_end_where_sql_ends_them() {
    let check = |text: &str, expected: &[&str]| assert_eq!(statements(text), expected, "{text}");
    check("select 1", &["select 1"]);
    check("select 1;\n", &["select 1"]);
    check("select 1; select 2;select 3", &["select 1", "select 2", "select 3"]);
    check("select ';', 'it''s;', \"a;b\"; x", &["select ';', 'it''s;', \"a;b\"", "x"]);
    check("-- a; b\nselect 1 -- ; c\n;", &["-- a; b\nselect 1 -- ; c"]);
    check("select /* ; /* ; */ ; */ 1; 2", &["select /* ; /* ; */ ; */ 1", "2"]);
    check(" ;; -- nothing\n;", &[]);
    check("", &[]);
    check("select 'ü;€'; select 'open; ", &["select 'ü;€'", "select 'open;"]);
    check("select 1 /* open; */ */ ; /* ; ", &["select 1 /* open; */ */"]);
}
