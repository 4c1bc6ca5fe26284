use crate::{error::SqlError, guard};

#[test]
fn a_statement_that_does_not_parse_is_told_the_place() {
    for (sql, place) in [
        ("SELEC 1", (1, 1)),
        ("SELECT 1,\n  count(*) fro events", (2, 16)),
        ("SELECT 1 +\n", (1, 11)),
        ("SELECT (1", (1, 10)),
        ("SELECT 'ä' AS a b", (1, 17)),
        ("SELECT 'open", (1, 8)),
        ("SELECT 1 FROM\n\tevents WHERE", (2, 14)),
    ] {
        let Err(SqlError::Syntax { line, column, reason }) = guard::check(sql) else {
            panic!("{sql} parses");
        };
        assert_eq!((line, column), place, "{sql}: {reason}");
        assert!(!reason.contains("Line"), "{reason}");
    }
}
