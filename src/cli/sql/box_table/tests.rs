use super::*;
use crate::cli::sql::rows::ShownColumn;
use expect_test::{Expect, expect};

fn rows(columns: &[(&str, &str)], values: &[&[&str]]) -> ShownRows {
    let columns = columns.iter().map(|(name, kind)| ShownColumn {
        name: (*name).to_owned(),
        kind: (*kind).to_owned(),
        is_number: *kind == "bigint",
    });
    let values = values.iter().map(|row| row.iter().map(|value| (*value).to_owned()).collect());
    let first: Vec<Vec<String>> = values.collect();
    let count = first.len();
    ShownRows { columns: columns.collect(), first, last: [].into(), count }
}

fn check(rows: &ShownRows, screen: usize, expected: &Expect) {
    let text = table(rows, screen, None);
    expected.assert_eq(&(text.clone() + "\n"));
    let widest = text.lines().filter(|line| !line.starts_with("--")).map(width).max();
    assert!(widest.is_none_or(|widest| widest <= screen), "{widest:?} of {screen}\n{text}");
}

#[test]
fn numbers_stand_to_the_right_and_wide_characters_keep_the_borders() {
    let rows = rows(
        &[("id", "varchar"), ("n", "bigint"), ("名前", "varchar")],
        &[&["a", "7", "漢字"], &["NULL", "-1234", "👍"]],
    );
    check(
        &rows,
        80,
        &expect![[r"
        +---------+--------+---------+
        | id      |      n | 名前    |
        | varchar | bigint | varchar |
        +---------+--------+---------+
        | a       |      7 | 漢字    |
        | NULL    |  -1234 | 👍      |
        +---------+--------+---------+
        -- 2 rows
    "]],
    );
}

#[test]
fn wide_columns_are_cut_before_others_are_left_out() {
    let long = "x".repeat(60);
    let rows = rows(&[("a", "varchar"), ("b", "varchar")], &[&["1", &long]]);
    check(
        &rows,
        42,
        &expect![[r"
        +---------+------------------------------+
        | a       | b                            |
        | varchar | varchar                      |
        +---------+------------------------------+
        | 1       | xxxxxxxxxxxxxxxxxxxxxxxxxxx… |
        +---------+------------------------------+
        -- 1 row
    "]],
    );
}

#[test]
fn columns_in_the_middle_are_left_out_where_all_are_too_many() {
    let names: Vec<String> = (0..54).map(|n| format!("column_{n:02}")).collect();
    let columns: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "bigint")).collect();
    let values = vec!["1"; 54];
    check(
        &rows(&columns, &[&values]),
        44,
        &expect![[r"
        +-----------+-----------+---+-----------+
        | column_00 | column_01 | … | column_53 |
        |    bigint |    bigint | … |    bigint |
        +-----------+-----------+---+-----------+
        |         1 |         1 | … |         1 |
        +-----------+-----------+---+-----------+
        -- 1 row; 54 columns, 3 shown
    "]],
    );
}

#[test]
fn rows_in_the_middle_are_left_out() {
    let mut rows = rows(&[("n", "bigint")], &[&["0"], &["1"]]);
    rows.last = [vec!["998".to_owned()], vec!["999".to_owned()]].into();
    rows.count = 1_000;
    check(
        &rows,
        80,
        &expect![[r"
        +--------+
        |      n |
        | bigint |
        +--------+
        |      0 |
        |      1 |
        |      … |
        |    998 |
        |    999 |
        +--------+
        -- 1000 rows, 4 shown
    "]],
    );
    expect![[r"
        -[ row 1 ]----------
        n | 0
        -[ row 2 ]----------
        n | 1
        -[ row 999 ]--------
        n | 998
        -[ row 1000 ]-------
        n | 999
        -- 1000 rows, 4 shown (7 ms)
    "]]
    .assert_eq(&(expanded(&rows, 20, Some(Duration::from_millis(7))) + "\n"));
}

#[test]
fn whatever_the_terminal_is_there_is_a_table() {
    for screen in 0..60 {
        for count in 0..30 {
            let fit = fit(&vec![9; count], screen);
            assert_eq!(fit.shown.is_empty(), count == 0, "{count} in {screen}");
            assert!(1 <= fit.cap && fit.shown.len() <= count, "{count} in {screen}");
            assert_eq!(fit.gap.is_some(), fit.shown.len() < count, "{count} in {screen}");
            assert!(fit.shown.is_sorted_by(|before, next| before < next), "{fit:?}");
        }
    }
    check(&rows(&[], &[]), 80, &expect!["-- 0 rows\n"]);
}
