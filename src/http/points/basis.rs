//! The basis of answers that are made of several statements, or at a head that has no `seq` of its own.

use crate::http::{AppState, points::FoundPoint};
use chrono::{DateTime, SecondsFormat};
use icecore_schemas::query::QueryBasis;

/// The basis of what is read as the event with this `seq` of a branch left it, before the first statement; 0 where
/// there is no event, none for `main`.
pub(in crate::http) fn at_event(app: &AppState, branch: Option<&str>, seq: u64) -> QueryBasis {
    let now = DateTime::from_timestamp_micros(app.clock.now_us()).unwrap_or_default();
    QueryBasis {
        seq: Some(seq),
        branch: branch.map(str::to_owned),
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
