//! Which rows of a row group may meet a filter, as the index of its pages tells.
//!
//! Its one invariant: a row is left out only if no row of its page can meet the filter. Pages of two columns begin at
//! rows of their own, so rows are counted, and not pages.

use crate::table::{
    file_columns::OpenFile,
    reader::statistics::{has_unit_of, may_match, text_of},
};
use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType};
use icecore_catalog::scan::{
    facts::{RowShare, TermFacts},
    filter::{Filter, FilterTest, FilterVerdict, datum},
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use std::{iter, ops::Range};

/// The rows of a row group that may meet the filter, counted from its first: in order, and none twice. A file that is
/// open without its index has all of them.
pub(super) fn rows_of(filter: &Filter, group: usize, file: &OpenFile) -> Vec<Range<usize>> {
    let of = |part: &Filter| rows_of(part, group, file);
    match filter {
        Filter::True | Filter::Unknown => all_rows(group, file),
        Filter::False => Vec::new(),
        Filter::And(left, right) => in_both(&of(left), &of(right)),
        Filter::Or(left, right) => in_one(of(left), of(right)),
        Filter::Test(test) => of_test(test, group, file).unwrap_or_else(|| all_rows(group, file)),
    }
}

/// About the most bytes that are held of a file while the rows that may meet the filter are read: of a row group, those
/// of all its pages, or as large a part as these rows are where it is known where pages begin.
pub(super) fn held_bytes(filter: &Filter, file: &OpenFile) -> u64 {
    let footer = file.footer();
    let groups = footer.row_groups().iter().enumerate();
    let read = groups.filter(|(_, group)| may_match(filter, group, file));
    let held = read.map(|(at, group)| {
        let all = file.open_bytes(at);
        if footer.offset_index().is_none() {
            return all;
        }
        let rows: u64 = rows_of(filter, at, file).iter().map(|rows| rows.len() as u64).sum();
        let rows_max = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
        all.div_ceil(rows_max).saturating_mul(rows).min(all)
    });
    held.max().unwrap_or(0)
}

fn all_rows(group: usize, file: &OpenFile) -> Vec<Range<usize>> {
    iter::once(0..row_count(group, file)).collect()
}

fn row_count(group: usize, file: &OpenFile) -> usize {
    usize::try_from(file.footer().row_group(group).num_rows()).unwrap_or(0)
}

/// The rows in both lists of ranges.
pub(super) fn in_both(left: &[Range<usize>], right: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut right = right.iter().peekable();
    for range in left {
        while let Some(other) = right.peek() {
            let common = range.start.max(other.start)..range.end.min(other.end);
            if !common.is_empty() {
                found.push(common);
            }
            // The one that ends later may have rows of the next one as well.
            if range.end <= other.end {
                break;
            }
            right.next();
        }
    }
    found
}

/// The rows in one list of ranges at least.
fn in_one(mut left: Vec<Range<usize>>, right: Vec<Range<usize>>) -> Vec<Range<usize>> {
    left.extend(right);
    left.sort_unstable_by_key(|range| range.start);
    let mut found: Vec<Range<usize>> = Vec::new();
    for range in left {
        match found.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => found.push(range),
        }
    }
    found
}

/// The rows of the pages that may have a value which passes a test; none where that is not known.
fn of_test(test: &FilterTest, group: usize, file: &OpenFile) -> Option<Vec<Range<usize>>> {
    let footer = file.footer();
    let (leaf, kind) = (file.leaf(test.term.field_id)?, &test.term.source);
    let index = footer.column_index()?.get(group)?.get(leaf)?;
    let is_told = !matches!(index, ColumnIndexMetaData::NONE);
    if !is_told || !has_unit_of(footer.row_group(group).column(leaf), kind) {
        return None;
    }
    let pages = footer.offset_index()?.get(group)?.get(leaf)?.page_locations();
    let starts = pages.iter().map(|page| usize::try_from(page.first_row_index).ok());
    let mut ends = starts.collect::<Option<Vec<usize>>>()?;
    ends.push(row_count(group, file));
    let is_whole = ends.first() == Some(&0) && ends.is_sorted();
    if !is_whole || index.num_pages() != pages.len() as u64 {
        return None;
    }
    let may_pass =
        |page: usize| facts(index, page, kind).verdict(&test.check) != FilterVerdict::Never;
    let rows = ends.windows(2).enumerate().filter(|(page, _)| may_pass(*page));
    let rows = rows.map(|(_, ends)| ends[0]..ends[1]).filter(|rows| !rows.is_empty());
    Some(in_one(rows.collect(), Vec::new()))
}

fn facts(index: &ColumnIndexMetaData, page: usize, kind: &PrimitiveType) -> TermFacts {
    let nulls = match (index.is_null_page(page), index.null_count(page)) {
        (true, _) => RowShare::All,
        (false, Some(0)) => RowShare::None,
        (false, _) => RowShare::Some,
    };
    let (lower, upper) = bounds(index, page, kind);
    TermFacts { nulls, nans: RowShare::None, lower, upper }
}

/// The lowest and highest value of a page, of the same types as those of row groups.
fn bounds(
    index: &ColumnIndexMetaData,
    page: usize,
    kind: &PrimitiveType,
) -> (Option<Datum>, Option<Datum>) {
    use PrimitiveType as Kind;
    let both = |low: Option<PrimitiveLiteral>, high: Option<PrimitiveLiteral>| {
        let bound = |value: Option<PrimitiveLiteral>| value.and_then(|value| datum(&value, kind));
        (bound(low), bound(high))
    };
    match (index, kind) {
        (ColumnIndexMetaData::INT32(values), Kind::Int | Kind::Long | Kind::Date) => {
            let int = |value: Option<&i32>| value.map(|value| PrimitiveLiteral::Int(*value));
            both(int(values.min_value(page)), int(values.max_value(page)))
        }
        (ColumnIndexMetaData::INT64(values), Kind::Long | Kind::Timestamp | Kind::Timestamptz) => {
            let long = |value: Option<&i64>| value.map(|value| PrimitiveLiteral::Long(*value));
            both(long(values.min_value(page)), long(values.max_value(page)))
        }
        (ColumnIndexMetaData::BYTE_ARRAY(values), Kind::String) => {
            both(values.min_value(page).and_then(text_of), values.max_value(page).and_then(text_of))
        }
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ends: &[(usize, usize)]) -> Vec<Range<usize>> {
        ends.iter().map(|(start, end)| *start..*end).collect()
    }

    #[test]
    fn rows_of_two_lists_are_in_both_or_in_one() {
        for (left, right, both, one) in [
            (vec![(0, 10)], vec![], vec![], vec![(0, 10)]),
            (vec![(0, 10)], vec![(0, 10)], vec![(0, 10)], vec![(0, 10)]),
            (vec![(0, 10)], vec![(10, 20)], vec![], vec![(0, 20)]),
            (vec![(0, 4), (8, 9)], vec![(2, 20)], vec![(2, 4), (8, 9)], vec![(0, 20)]),
            (vec![(0, 30)], vec![(1, 2), (5, 9)], vec![(1, 2), (5, 9)], vec![(0, 30)]),
            (
                vec![(0, 5), (6, 12), (20, 30)],
                vec![(3, 7), (11, 21), (29, 40)],
                vec![(3, 5), (6, 7), (11, 12), (20, 21), (29, 30)],
                vec![(0, 40)],
            ),
        ] {
            let (left, right) = (ranges(&left), ranges(&right));
            assert_eq!(in_both(&left, &right), ranges(&both), "{left:?} {right:?}");
            assert_eq!(in_both(&right, &left), ranges(&both), "{right:?} {left:?}");
            assert_eq!(in_one(left.clone(), right.clone()), ranges(&one), "{left:?} {right:?}");
        }
    }
}
