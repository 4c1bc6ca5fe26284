//! Rows of `dead_letters` as SQL reads them, resolved to the newest of each id.
//!
//! Ids and states are read without payloads: those are most of the bytes, and are asked for alone.

use crate::http::{AppState, error::ApiError, guard};
use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type},
    record_batch::RecordBatch,
};
use futures::StreamExt;
use icecore_engine::{QueryAnswer, references::QueryScope};
use icecore_lake::event::dead_letter::{DeadLetter, LetterStatus};
use icecore_schemas::{names::Namespace, query::SqlRequest};
use serde_json::Value;
use std::collections::HashMap;
use ulid::Ulid;

const DAY_US: i64 = 86_400_000_000;

/// A letter at its newest row.
#[derive(Clone, Debug)]
pub(super) struct NewestLetter {
    /// The row, whose payload is empty until it is asked for.
    pub(super) row: DeadLetter,
    /// When its first row was written: when the event came.
    pub(super) first_us: i64,
    /// When its newest row was written.
    pub(super) newest_us: i64,
}

impl NewestLetter {
    pub(super) fn is_discarded(&self) -> bool {
        self.row.status == LetterStatus::Discarded
    }

    /// The namespace that its rows are written for: the one it names, if that is one whose table is
    /// that of `asked`.
    pub(super) fn namespace(&self, asked: &Namespace) -> Namespace {
        let named = Namespace::parse(&self.row.namespace).ok();
        named.filter(|named| named.name() == asked.name()).unwrap_or_else(|| asked.clone())
    }

    /// The namespace that it was sent to, which may be another than the one that keeps it.
    pub(super) fn sent_to(&self, asked: &Namespace) -> Namespace {
        Namespace::parse(&self.row.namespace).unwrap_or_else(|_| asked.clone())
    }
}

/// Which letters. Discarded ones are never among them.
#[derive(Clone, Debug, Default)]
pub(super) struct LetterFilter {
    /// Refused for this reason, at last.
    pub(super) reason: Option<String>,
    /// In this state now.
    pub(super) status: Option<String>,
    /// Received before this time.
    pub(super) before_us: Option<i64>,
    /// With an id up to this one.
    pub(super) until: Option<String>,
}

impl LetterFilter {
    /// Those there are now: those of later milliseconds have greater ids.
    pub(super) fn until(app: &AppState) -> Self {
        let last = Ulid::from_parts(app.ids.mint().timestamp_ms(), u128::MAX >> 48);
        Self { until: Some(last.to_string()), ..Self::default() }
    }

    pub(super) fn includes(&self, letter: &NewestLetter) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        !letter.is_discarded()
            && is(&self.reason, &letter.row.reason)
            && is(&self.status, letter.row.status.as_str())
    }

    /// The statement for a page of ids, and its parameters. A letter whose reason or state is another
    /// by now may be among them.
    fn statement(&self, after: &str, limit: usize) -> (String, Vec<Value>) {
        let mut params = vec![Value::from(after)];
        let mut place = |text: &str| {
            params.push(text.into());
            format!("${}", params.len())
        };
        let mut rows = "id > $1".to_owned();
        if let Some(until) = &self.until {
            rows.push_str(&format!(" AND id <= {}", place(until)));
        }
        let is = |condition: &str| format!("max(CASE WHEN {condition} THEN 1 ELSE 0 END)");
        let mut states = vec![(is("status = 'discarded'"), 0)];
        if let Some(reason) = &self.reason {
            states.push((is(&format!("reason = {}", place(reason))), 1));
        }
        // A letter that was taken is never pending again.
        if let Some(status) = &self.status {
            let is_redriven = i32::from(status == LetterStatus::Redriven.as_str());
            states.push((is("status = 'redriven'"), is_redriven));
        }
        if let Some(before_us) = self.before_us {
            states.push((is(&format!("CAST(received_at AS BIGINT) < {before_us}")), 1));
        }
        let numbered = || states.iter().enumerate();
        let columns: Vec<String> =
            numbered().map(|(n, (state, _))| format!("{state} AS state_{n}")).collect();
        let wanted: Vec<String> =
            numbered().map(|(n, (_, value))| format!("state_{n} = {value}")).collect();
        let sql = format!(
            "SELECT id FROM (SELECT id, {} FROM dead_letters WHERE {rows} GROUP BY id) AS letters
             WHERE {} ORDER BY id LIMIT {limit}",
            columns.join(", "),
            wanted.join(" AND ")
        );
        (sql, params)
    }
}

/// How far a walk over the ids has come.
#[derive(Clone, Debug)]
pub(super) struct LetterCursor {
    /// The last id.
    pub(super) after: String,
    /// Whether there are no more.
    pub(super) is_at_end: bool,
}

impl LetterCursor {
    pub(super) fn after(after: Option<String>) -> Self {
        Self { after: after.unwrap_or_default(), is_at_end: false }
    }
}

/// The next ids, in order.
pub(super) async fn page_of_ids(
    app: &AppState,
    namespace: &Namespace,
    wanted: &LetterFilter,
    cursor: &mut LetterCursor,
    limit: usize,
) -> Result<Vec<String>, ApiError> {
    let (sql, params) = wanted.statement(&cursor.after, limit + 1);
    let mut answer = select(app, namespace, sql, params).await?;
    let mut ids = Vec::new();
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        ids.extend((0..batch.num_rows()).filter_map(|row| text_at(&batch, "id", row)));
    }
    cursor.is_at_end = ids.len() <= limit;
    ids.truncate(limit);
    if let Some(last) = ids.last() {
        cursor.after.clone_from(last);
    }
    Ok(ids)
}

/// These letters at their newest rows, by id; those that are not there are left out.
pub(super) async fn newest(
    app: &AppState,
    namespace: &Namespace,
    ids: &[String],
) -> Result<Vec<NewestLetter>, ApiError> {
    let Some(places) = IdCondition::of(ids) else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT id, ns, CAST(received_at AS BIGINT) AS received_us, reason, detail, type, event_id, batch_id, source, correlation_id, retries, status
         FROM dead_letters WHERE {}",
        places.condition
    );
    let mut answer = select(app, namespace, sql, places.params).await?;
    let mut found: HashMap<String, NewestLetter> = HashMap::new();
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let Some(letter) = letter(&batch, row) else { continue };
            match found.get_mut(&letter.row.id) {
                Some(known) => known.join(letter),
                None => {
                    found.insert(letter.row.id.clone(), letter);
                }
            }
        }
    }
    let mut letters: Vec<NewestLetter> = found.into_values().map(NewestLetter::dated).collect();
    letters.sort_by(|one, other| one.row.id.cmp(&other.row.id));
    Ok(letters)
}

impl NewestLetter {
    /// Another row of the same id.
    fn join(&mut self, other: Self) {
        let first_us = self.first_us.min(other.first_us);
        let age = |letter: &Self| (letter.row.retries.unwrap_or(0), letter.newest_us);
        if age(self) < age(&other) {
            *self = other;
        }
        self.first_us = first_us;
    }

    /// With the time of its id, where its first row was taken out for its age: rows go by whole days.
    fn dated(mut self) -> Self {
        let minted = Ulid::from_string(&self.row.id).ok();
        let minted_us =
            minted.and_then(|id| i64::try_from(id.timestamp_ms()).ok()?.checked_mul(1000));
        if let Some(minted_us) = minted_us
            && minted_us.div_euclid(DAY_US) < self.first_us.div_euclid(DAY_US)
        {
            self.first_us = minted_us;
        }
        self
    }
}

/// A letter's payload; none when it is not there.
pub(super) async fn payload(
    app: &AppState,
    namespace: &Namespace,
    id: &str,
) -> Result<Option<String>, ApiError> {
    let mut answer = payloads(app, namespace, &[id.to_owned()]).await?;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        if 0 < batch.num_rows() {
            return Ok(text_at(&batch, "payload", 0));
        }
    }
    Ok(None)
}

/// `id` and `payload` of these letters in any order; a letter may be there several times. Every row but
/// that of a discarded letter has it, so it is there as long as any of them is.
pub(super) async fn payloads(
    app: &AppState,
    namespace: &Namespace,
    ids: &[String],
) -> Result<QueryAnswer, ApiError> {
    let places = IdCondition::of(ids).unwrap_or_default();
    let sql = format!(
        "SELECT id, payload FROM dead_letters WHERE status <> 'discarded' AND {}",
        places.condition
    );
    select(app, namespace, sql, places.params).await
}

/// A condition for ids.
struct IdCondition {
    condition: String,
    params: Vec<Value>,
}

impl Default for IdCondition {
    fn default() -> Self {
        Self { condition: "false".to_owned(), params: Vec::new() }
    }
}

impl IdCondition {
    /// None for no ids. The bounds let files be left out.
    fn of(ids: &[String]) -> Option<Self> {
        let (first, last) = (ids.iter().min()?, ids.iter().max()?);
        let params = [first, last].into_iter().chain(ids).map(|id| Value::from(id.as_str()));
        let listed: Vec<String> = (3..ids.len() + 3).map(|n| format!("${n}")).collect();
        Some(Self {
            condition: format!("id >= $1 AND id <= $2 AND id IN ({})", listed.join(",")),
            params: params.collect(),
        })
    }
}

async fn select(
    app: &AppState,
    namespace: &Namespace,
    sql: String,
    params: Vec<Value>,
) -> Result<QueryAnswer, ApiError> {
    let request = SqlRequest { sql, params, ..SqlRequest::default() };
    Ok(app.sql.query(&guard::levels(namespace), QueryScope::Namespace, None, request).await?)
}

/// A row of [`newest`]; none for one that another engine wrote with a state of its own.
fn letter(batch: &RecordBatch, row: usize) -> Option<NewestLetter> {
    let column = |name| batch.column_by_name(name).filter(|column| column.is_valid(row));
    let number = column("received_us")?.as_primitive_opt::<Int64Type>()?.value(row);
    let retries = column("retries").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let required = |name| text_at(batch, name, row);
    Some(NewestLetter {
        row: DeadLetter {
            id: required("id")?,
            namespace: required("ns")?,
            reason: required("reason")?,
            detail: required("detail")?,
            event_type: text_at(batch, "type", row),
            event_id: text_at(batch, "event_id", row),
            batch_id: text_at(batch, "batch_id", row),
            source: text_at(batch, "source", row),
            correlation_id: text_at(batch, "correlation_id", row),
            retries: retries.map(|retries| retries.value(row)),
            status: LetterStatus::parse(&required("status")?)?,
            payload: String::new(),
        },
        first_us: number,
        newest_us: number,
    })
}

/// A text column's value, in whichever layout the engine answers.
pub(super) fn text_at(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name)?.slice(row, 1);
    let column = cast(&column, &DataType::Utf8).ok()?;
    let column = column.as_string_opt::<i32>()?;
    column.is_valid(0).then(|| column.value(0).to_owned())
}
