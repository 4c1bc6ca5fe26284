//! Several tables of routes as one.

use crate::http::routes::Route;

/// How many rows they have.
pub(super) const fn count(tables: &[&[Route]]) -> usize {
    let (mut all, mut table) = (0, 0);
    while table < tables.len() {
        all += tables[table].len();
        table += 1;
    }
    all
}

/// All rows, in their order.
pub(super) const fn joined<const COUNT: usize>(tables: &[&[Route]]) -> [Route; COUNT] {
    let mut all = [tables[0][0]; COUNT];
    let (mut at, mut table, mut row) = (0, 0, 0);
    while at < COUNT {
        if row == tables[table].len() {
            table += 1;
            row = 0;
        } else {
            all[at] = tables[table][row];
            row += 1;
            at += 1;
        }
    }
    all
}
