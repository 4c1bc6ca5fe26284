//! Rows as a terminal shows them: a table that fits its width, or a block of lines for each row.

use crate::cli::{
    counted,
    sql::{
        rows::ShownRows,
        text::{ELLIPSIS, first_letters, fitted, padded, width},
    },
};
use std::time::Duration;

/// A column is not made narrower than this before others are left out.
const COLUMN_WIDTH_KEPT: usize = 20;
/// What a column takes beside its text: `| ` before it and a blank behind it.
const BORDER_WIDTH: usize = 3;
/// Characters of a value that are looked at for a table.
const CELL_LETTERS_MAX: usize = 512;
/// The widest line above a row's block.
const RULE_WIDTH_MAX: usize = 80;

/// Which columns of an answer are shown, and how wide.
#[derive(Debug, PartialEq, Eq)]
struct ColumnFit {
    shown: Vec<usize>,
    /// The widest that any of them is.
    cap: usize,
    /// How many of `shown` stand before those that are left out; none when all are shown.
    gap: Option<usize>,
}

/// A table of at most `screen` columns of a terminal, and below it what it shows and in what time.
pub(super) fn table(rows: &ShownRows, screen: usize, time: Option<Duration>) -> String {
    let cells = |row: &Vec<String>| -> Vec<String> {
        row.iter().map(|value| first_letters(value, CELL_LETTERS_MAX)).collect()
    };
    let first: Vec<Vec<String>> = rows.first.iter().map(cells).collect();
    let last: Vec<Vec<String>> = rows.last.iter().map(cells).collect();
    let natural: Vec<usize> = (0..rows.columns.len())
        .map(|at| {
            let column = &rows.columns[at];
            let values = first.iter().chain(&last).map(|row| width(&row[at]));
            values.chain([width(&column.name), width(&column.kind), 1]).max().unwrap_or(1)
        })
        .collect();
    let fit = fit(&natural, screen);
    let mut lines = Vec::new();
    if !natural.is_empty() {
        let texts = |of: &dyn Fn(usize) -> String| line(rows, &natural, &fit, of);
        let rule = rule(&natural, &fit);
        lines.push(rule.clone());
        lines.push(texts(&|at| rows.columns[at].name.clone()));
        lines.push(texts(&|at| rows.columns[at].kind.clone()));
        lines.push(rule.clone());
        lines.extend(first.iter().map(|row| texts(&|at| row[at].clone())));
        if 0 < rows.left_out() {
            lines.push(texts(&|_| ELLIPSIS.to_owned()));
        }
        lines.extend(last.iter().map(|row| texts(&|at| row[at].clone())));
        lines.push(rule);
    }
    lines.push(footer(rows, fit.shown.len(), time));
    lines.join("\n")
}

/// A block of lines for each row, one line a column, and below them what they show and in what time.
pub(super) fn expanded(rows: &ShownRows, screen: usize, time: Option<Duration>) -> String {
    let names = rows.columns.iter().map(|column| width(&column.name)).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut block = |number: usize, row: &Vec<String>| {
        let title = format!("-[ row {number} ]");
        let dashes = screen.min(RULE_WIDTH_MAX).saturating_sub(width(&title));
        lines.push(title + &"-".repeat(dashes));
        for (column, value) in rows.columns.iter().zip(row) {
            lines.push(format!("{} | {value}", padded(&column.name, names, false)));
        }
    };
    rows.first.iter().enumerate().for_each(|(at, row)| block(at + 1, row));
    let before_last = rows.count - rows.last.len();
    rows.last.iter().enumerate().for_each(|(at, row)| block(before_last + at + 1, row));
    lines.push(footer(rows, rows.columns.len(), time));
    lines.join("\n")
}

/// All columns if they can be wide enough, else the first and the last ones.
fn fit(natural: &[usize], screen: usize) -> ColumnFit {
    let count = natural.len();
    let total = |shown: &[usize], cap: usize| -> usize {
        let gap = if shown.len() < count { width(ELLIPSIS) + BORDER_WIDTH } else { 0 };
        shown.iter().map(|at| natural[*at].min(cap) + BORDER_WIDTH).sum::<usize>() + 1 + gap
    };
    // No more have a place, however narrow they are.
    let mut kept = count.min(screen / BORDER_WIDTH).max(count.min(1));
    loop {
        let shown: Vec<usize> = (0..kept.div_ceil(2)).chain(count - kept / 2..count).collect();
        if kept <= 1 || total(&shown, COLUMN_WIDTH_KEPT) <= screen {
            let caps = 1..=natural.iter().copied().max().unwrap_or(1).min(screen);
            let cap = caps.rev().find(|cap| total(&shown, *cap) <= screen).unwrap_or(1);
            let gap = (kept < count).then_some(kept.div_ceil(2));
            return ColumnFit { shown, cap, gap };
        }
        kept -= 1;
    }
}

/// One line of a table; `of` gives the text of a column.
fn line(
    rows: &ShownRows,
    natural: &[usize],
    fit: &ColumnFit,
    of: &dyn Fn(usize) -> String,
) -> String {
    let cells = fit.shown.iter().map(|at| {
        let columns = natural[*at].min(fit.cap);
        padded(&fitted(&of(*at), columns), columns, rows.columns[*at].is_number)
    });
    let mut cells: Vec<String> = cells.collect();
    if let Some(gap) = fit.gap {
        cells.insert(gap, ELLIPSIS.to_owned());
    }
    format!("| {} |", cells.join(" | "))
}

/// The line above and below the rows.
fn rule(natural: &[usize], fit: &ColumnFit) -> String {
    let mut widths: Vec<usize> = fit.shown.iter().map(|at| natural[*at].min(fit.cap)).collect();
    if let Some(gap) = fit.gap {
        widths.insert(gap, width(ELLIPSIS));
    }
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    format!("+{}+", dashes.join("+"))
}

/// How much there is, how much of it is shown, and how long it took.
fn footer(rows: &ShownRows, columns_shown: usize, time: Option<Duration>) -> String {
    let mut text = format!("-- {}", counted(rows.count as u64, "row"));
    if 0 < rows.left_out() {
        text += &format!(", {} shown", rows.count - rows.left_out());
    }
    if columns_shown < rows.columns.len() {
        text += &format!("; {} columns, {columns_shown} shown", rows.columns.len());
    }
    if let Some(time) = time {
        text += &format!(" ({} ms)", time.as_millis());
    }
    text
}

#[cfg(test)]
mod tests;
