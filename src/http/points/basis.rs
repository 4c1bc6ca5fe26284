//! The basis of answers that are made of several statements, or at a head that has no `seq` of its own.

use crate::http::{AppState, points::FoundPoint};
use chrono::{DateTime, SecondsFormat};
use icecore_schemas::{point::MAIN_BRANCH, query::QueryBasis};
use std::collections::BTreeMap;

/// Most tables in the basis of a report, which the log keeps.
const REPORTED_TABLES_MAX: usize = 100;

/// The basis of what is read as the event with this `seq` of a branch left it, before the first statement; 0 where
/// there is no event.
pub(in crate::http) fn at_event(app: &AppState, branch: Option<&str>, seq: u64) -> QueryBasis {
    let now = DateTime::from_timestamp_micros(app.clock.now_us()).unwrap_or_default();
    QueryBasis {
        seq: Some(seq),
        branch: branch.filter(|name| *name != MAIN_BRANCH).map(str::to_owned),
        clock: now.to_rfc3339_opts(SecondsFormat::Millis, true),
        ..QueryBasis::default()
    }
}

/// The basis of what one statement read at the head of a branch, or at an event of it.
pub(in crate::http) fn of_head(head: &FoundPoint, read: Option<QueryBasis>) -> QueryBasis {
    let read = read.unwrap_or_default();
    match head.seq {
        None => read,
        Some(_) => {
            let branch = head.branch.as_deref().map(str::to_owned);
            QueryBasis { seq: head.seq, branch, ..read }
        }
    }
}

/// The basis of a report, without its tables where they are many: a namespace may have a thousand collections, and the
/// `seq` alone tells their state.
pub(in crate::http) fn of_report(read: QueryBasis) -> QueryBasis {
    match REPORTED_TABLES_MAX < read.snapshots.len() {
        true => QueryBasis { snapshots: BTreeMap::new(), ..read },
        false => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_few_tables_or_none() {
        let of_tables = |count: usize| {
            let snapshots = (0..count).map(|at| (format!("cdc_{at}"), None)).collect();
            QueryBasis { seq: Some(7), snapshots, ..QueryBasis::default() }
        };
        let few = of_tables(REPORTED_TABLES_MAX);
        assert_eq!(of_report(few.clone()), few);
        assert_eq!(of_report(of_tables(REPORTED_TABLES_MAX + 1)), of_tables(0));
    }
}
