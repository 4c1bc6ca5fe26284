//! Events as a stream of JSON lines.
//!
//! One statement after another reads so many events at most, behind the last one that was sent: their order costs
//! the memory of so many, and a long range is no question of the most rows of an answer. The range has its end
//! before the first statement, so the stream has one, too.

use crate::http::{
    AppState,
    error::ApiError,
    events::cells::EventBatch,
    points::{FoundPoint, ReadCaller, basis, statement},
    query,
    rows::number_at,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use icecore_catalog::access::Principal;
use icecore_engine::QueryAnswer;
use icecore_schemas::{collections::EventOrder, query::QueryBasis};
use serde_json::{Value, value::RawValue};
use std::io;

/// The media type of JSON lines.
pub(super) const LINES: &str = "application/x-ndjson";
/// Most events of one statement.
const STATEMENT_EVENTS_MAX: usize = 10_000;

/// Which events are sent.
pub(super) struct EventRange {
    /// The events that they are of, as a statement names them.
    pub(super) events: String,
    /// As it stands behind `WHERE true`.
    pub(super) conditions: String,
    pub(super) params: Vec<Value>,
    pub(super) order: EventOrder,
    /// Most of them.
    pub(super) limit: usize,
}

/// The stream, and how far it is.
struct EventLines {
    app: AppState,
    principal: Principal,
    levels: Vec<String>,
    range: EventRange,
    answer: QueryAnswer,
    /// Events that the running statement gave.
    given: usize,
    /// The last event that was sent.
    last: Option<u64>,
}

/// A response with the events of a range up to `head`, a line each. A body that cannot go on breaks off.
///
/// # Errors
/// As queries, before the first line.
pub(super) async fn lines(
    caller: ReadCaller<'_>,
    head: &FoundPoint,
    mut range: EventRange,
) -> Result<Response, ApiError> {
    let newest = Box::pin(caller.seq_of(head.clone())).await?;
    range.conditions.push_str(&format!(" AND seq <= {newest}"));
    let mut answer = caller.ask(statement(&range.sql(None), range.params.clone())).await?;
    let basis = basis::of_head(&head.with_seq(newest), answer.basis.take());
    let state = EventLines {
        app: caller.app.clone(),
        principal: caller.principal.clone(),
        levels: caller.levels.to_vec(),
        range,
        answer,
        given: 0,
        last: None,
    };
    let pieces = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match Box::pin(state.next()).await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(state))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(code = ?error.code(), %error, "a stream of events broke off");
                Some((Err(io::Error::other(error.to_string())), None))
            }
        }
    });
    Ok(lines_of(Body::from_stream(pieces), &basis))
}

/// A response of JSON lines with its basis in a header.
pub(super) fn lines_of(body: Body, basis: &QueryBasis) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    if let Some(basis) = query::basis_header(basis) {
        headers.insert(query::BASIS, basis);
    }
    response
}

impl EventRange {
    /// How many events the next statement gives at most.
    fn statement_limit(&self) -> usize {
        self.limit.min(STATEMENT_EVENTS_MAX)
    }

    /// The statement for the events behind the last one that was sent.
    fn sql(&self, last: Option<u64>) -> String {
        let (operator, direction) = match self.order {
            EventOrder::Asc => (">", "ASC"),
            EventOrder::Desc => ("<", "DESC"),
        };
        let behind = last.map(|last| format!(" AND seq {operator} {last}")).unwrap_or_default();
        format!(
            "SELECT * FROM {} WHERE true{}{behind} ORDER BY seq {direction} LIMIT {}",
            self.events,
            self.conditions,
            self.statement_limit()
        )
    }
}

impl EventLines {
    /// The lines of some more events; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            while let Some(batch) = self.answer.batches.next().await {
                let batch = batch?;
                let Some(row) = batch.num_rows().checked_sub(1) else { continue };
                self.given += batch.num_rows();
                self.last = number_at(&batch, "seq", row).or(self.last);
                return Ok(Some(text_of(&EventBatch::new(&batch))));
            }
            let is_whole = self.given < self.range.statement_limit();
            self.range.limit = self.range.limit.saturating_sub(self.given);
            if is_whole || self.range.limit == 0 {
                return Ok(None);
            }
            self.given = 0;
            let request = statement(&self.range.sql(self.last), self.range.params.clone());
            // Fields one by one: the rows of an answer cannot be shared between threads.
            let (app, principal) = (&self.app, &self.principal);
            let caller = ReadCaller { app, principal, levels: &self.levels };
            let answer = caller.ask(request).await?;
            self.answer = answer;
        }
    }
}

fn text_of(batch: &EventBatch) -> Bytes {
    let mut text = Vec::new();
    for row in 0..batch.rows() {
        write_line(&mut text, batch.members(row));
    }
    text.into()
}

/// Writes an event as one line: what JSON text has of breaks is between its words, and becomes blanks.
fn write_line<'a>(text: &mut Vec<u8>, members: impl Iterator<Item = (&'a str, Box<RawValue>)>) {
    let mut before = b'{';
    for (name, value) in members {
        text.push(before);
        before = b',';
        text.extend_from_slice(Value::from(name).to_string().as_bytes());
        text.push(b':');
        let blank = |byte: &u8| if matches!(*byte, b'\n' | b'\r') { b' ' } else { *byte };
        text.extend(value.get().as_bytes().iter().map(blank));
    }
    if before == b'{' {
        text.push(before);
    }
    text.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rows::json_of;

    #[test]
    fn an_event_is_one_line() {
        let mut text = Vec::new();
        let after = json_of("{\n \"a\": 12345678901234567890.5\r\n}");
        write_line(&mut text, [("seq", json_of("7")), ("after", after)].into_iter());
        write_line(&mut text, std::iter::empty());
        let expected = "{\"seq\":7,\"after\":{  \"a\": 12345678901234567890.5  }}\n{}\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_statement_goes_on_behind_the_last_event() {
        let range = |order, limit| EventRange {
            events: "events".to_owned(),
            conditions: " AND seq <= 9".to_owned(),
            params: Vec::new(),
            order,
            limit,
        };
        let select = "SELECT * FROM events WHERE true AND seq <= 9";
        assert_eq!(
            range(EventOrder::Asc, usize::MAX).sql(Some(7)),
            format!("{select} AND seq > 7 ORDER BY seq ASC LIMIT 10000")
        );
        assert_eq!(
            range(EventOrder::Desc, 3).sql(None),
            format!("{select} ORDER BY seq DESC LIMIT 3")
        );
    }
}
