use super::*;

#[test]
fn the_mark_is_under_the_place() {
    assert_eq!(shown("SELEC 1", (1, 1)).unwrap(), "  SELEC 1\n  ^");
    assert_eq!(shown("SELECT 1,\r\n\tcount(*) fro e", (2, 15)).unwrap(), {
        "   count(*) fro e\n                ^"
    });
    assert_eq!(shown("SELECT 1 +", (1, 11)).unwrap(), "  SELECT 1 +\n            ^");
    let long = format!("SELECT {}x y z{}", "1, ".repeat(100), ", 1".repeat(100));
    let text = shown(&long, (1, 312)).unwrap();
    let (line, mark) = text.split_once('\n').unwrap();
    assert!(line.starts_with("  …") && line.ends_with('…'), "{line}");
    assert_eq!(line.chars().nth(mark.chars().count() - 1), Some('z'), "{text}");
    assert_eq!(shown("SELECT", (3, 1)), None);
}

#[test]
fn what_an_error_quotes_of_the_data_cannot_drive_the_terminal() {
    let text = "cannot cast `\u{1b}[2J` to bigint\nin `x`".to_owned();
    let problem = ClientError::Refused { status: 400, text, place: Some((1, 8)) }.into();
    let expected = "400: cannot cast `\\u{1b}[2J` to bigint\nin `x`\n  SELECT x\n         ^";
    let CliError::Client(told) = pointed(problem, "SELECT x") else { unreachable!() };
    assert_eq!(told.to_string(), expected);
}

#[test]
fn a_name_that_is_refused_is_marked_where_the_statement_has_it_once() {
    let check = |text: &str, sql: &str, expected| {
        assert_eq!(place_of_name(text, sql), expected, "{text} in {sql}");
    };
    check("there is no column `typ`", "SELECT 1,\n  typ FROM events", Some((2, 3)));
    check("there is no column `typ`", "SELECT Typ, type FROM events", Some((1, 8)));
    check("there is no column `typ`", "SELECT typ, typ FROM events", None);
    check("there is no column `typ`", "SELECT type FROM events", None);
    check("there is no column `ö`", "SELECT 'ü', ö FROM events", Some((1, 13)));
    check("division by zero", "SELECT 1/0", None);
    check("an empty name ``", "SELECT 1", None);
}
