//! What changed, in the order of the commits: one row for each change, in the transaction that
//! makes it.
//!
//! Its one invariant: numbers have no gaps and are visible in their order. They come from a row of
//! `counters` that a transaction locks as the last thing before its COMMIT, so a number is never
//! visible before a smaller one, and one of a transaction that is rolled back is taken again.

use super::failed;
use crate::{
    error::CatalogError,
    metastore::{Comes, Event, Kind, Levels, NewTable, Origin, PointerSwap, TableRow},
};
use serde_json::{Value, json};
use sqlx::AnyConnection;
use uuid::Uuid;

pub(super) const STEP: &str = r"
CREATE TABLE outbox (
    number BIGINT PRIMARY KEY,
    request TEXT NOT NULL,
    request_events INTEGER NOT NULL,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    operation TEXT NOT NULL
);
CREATE INDEX outbox_by_time ON outbox (at_ms, number);
INSERT INTO counters VALUES ('event', 0);
";

/// Changes of one request.
pub(super) struct Told {
    pub(super) origin: Origin,
    /// Each as the draft of the specification writes an operation.
    pub(super) operations: Vec<Value>,
}

/// The last event that a transaction wrote, by which it is found after a lost answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    number: i64,
    request: Uuid,
}

/// A table or view as it was before a change.
pub(super) struct Before {
    pub(super) kind: Kind,
    pub(super) levels: Levels,
    pub(super) name: String,
    pub(super) metadata_location: String,
}

fn identifier((levels, name): (&Levels, &str)) -> Value {
    json!({"namespace": levels, "name": name})
}

/// An operation on one table or view, named as the draft of the specification does.
fn on(kind: Kind, what: &str, uuid: Uuid, members: Value) -> Value {
    let noun = match kind {
        Kind::Table => "table",
        Kind::View => "view",
    };
    let mut operation = members;
    operation["operation-type"] = format!("{what}-{noun}").into();
    operation[format!("{noun}-uuid")] = uuid.to_string().into();
    operation
}

pub(super) fn created(table: &NewTable) -> Value {
    let snapshots: Vec<i64> = table.snapshots.iter().map(|row| row.snapshot_id).collect();
    // The draft knows no registering of views.
    let what = match (table.kind, &table.comes) {
        (Kind::Table, Comes::Adopted { .. }) => "register",
        (Kind::Table | Kind::View, _) => "create",
    };
    let members = json!({
        "identifier": identifier((&table.levels, &table.name)),
        "snapshot-ids": snapshots,
        "metadata-location": table.metadata_location,
    });
    on(table.kind, what, table.uuid, members)
}

pub(super) fn updated(swap: &PointerSwap, from: &Before, snapshots: &[i64]) -> Value {
    let members = json!({
        "identifier": identifier((&from.levels, &from.name)),
        "snapshot-ids": snapshots,
        "previous-metadata-location": from.metadata_location,
        "metadata-location": swap.metadata_location,
    });
    on(from.kind, "update", swap.uuid, members)
}

pub(super) fn dropped(kind: Kind, name: (&Levels, &str), row: &TableRow) -> Value {
    let members = json!({
        "identifier": identifier(name),
        "previous-metadata-location": row.metadata_location,
    });
    on(kind, "drop", row.uuid, members)
}

pub(super) fn renamed(
    kind: Kind,
    from: (&Levels, &str),
    to: (&Levels, &str),
    row: &TableRow,
) -> Value {
    let members = json!({"source": identifier(from), "destination": identifier(to)});
    on(kind, "rename", row.uuid, members)
}

/// Writes the events; to be called last before COMMIT, as it holds up every other change.
pub(super) async fn write(
    tx: &mut AnyConnection,
    told: &[Told],
) -> Result<Option<Mark>, CatalogError> {
    let count: usize = told.iter().map(|told| told.operations.len()).sum();
    if count == 0 {
        return Ok(None);
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let last: i64 = sqlx::query_scalar(
        "UPDATE counters SET value = value + $1 WHERE name = 'event' RETURNING value",
    )
    .bind(count)
    .fetch_one(&mut *tx)
    .await
    .map_err(failed("number an event"))?;
    let mut mark = Mark { number: last - count, request: Uuid::nil() };
    for told in told {
        mark.request = Uuid::new_v4();
        for operation in &told.operations {
            mark.number += 1;
            sqlx::query("INSERT INTO outbox VALUES ($1, $2, $3, $4, $5, $6)")
                .bind(mark.number)
                .bind(mark.request.to_string())
                .bind(i32::try_from(told.operations.len()).unwrap_or(i32::MAX))
                .bind((told.origin.now)())
                .bind(told.origin.actor.as_ref())
                .bind(operation.to_string())
                .execute(&mut *tx)
                .await
                .map_err(failed("write an event"))?;
        }
    }
    Ok(Some(mark))
}

/// Whether the transaction that wrote this event was committed.
pub(super) async fn is_there(
    connection: &mut AnyConnection,
    mark: Mark,
) -> Result<bool, CatalogError> {
    let request: Option<String> =
        sqlx::query_scalar("SELECT request FROM outbox WHERE number = $1")
            .bind(mark.number)
            .fetch_optional(connection)
            .await
            .map_err(failed("find out how a commit ended"))?;
    Ok(request.is_some_and(|request| request == mark.request.to_string()))
}

/// number, request, events of the request, time, actor, operation.
type Row = (i64, String, i32, i64, String, String);

pub(super) async fn list(
    connection: &mut AnyConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<Event>, CatalogError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT number, request, request_events, at_ms, actor, operation FROM outbox
         WHERE number > $1 ORDER BY number LIMIT $2",
    )
    .bind(super::stored(after)?)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
    .map_err(failed("read events"))?;
    let broken = |cause| failed("read events")(sqlx::Error::Decode(Box::new(cause)));
    let event = |(number, request, request_events, at_ms, actor, operation): Row| {
        Ok(Event {
            number: number.cast_unsigned(),
            request,
            request_events,
            at_ms,
            actor,
            operation: serde_json::from_str(&operation).map_err(broken)?,
        })
    };
    rows.into_iter().map(event).collect()
}

/// The number before the first event at or after a time; that of the last one when there is none.
pub(super) async fn before(
    connection: &mut AnyConnection,
    at_ms: i64,
) -> Result<u64, CatalogError> {
    let number: i64 = sqlx::query_scalar(
        "SELECT coalesce((SELECT min(number) - 1 FROM outbox WHERE at_ms >= $1),
                         (SELECT value FROM counters WHERE name = 'event'))",
    )
    .bind(at_ms)
    .fetch_one(connection)
    .await
    .map_err(failed("read events"))?;
    Ok(number.cast_unsigned())
}

pub(super) async fn forget(tx: &mut AnyConnection, kept: u64) -> Result<(), CatalogError> {
    sqlx::query(
        "DELETE FROM outbox
         WHERE number <= (SELECT value FROM counters WHERE name = 'event') - $1",
    )
    .bind(super::stored(kept)?)
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(failed("forget events"))
}
