//! What changed, in the order of the commits: one row for each change, in the transaction that
//! makes it. What a change was made of is kept beside it, in a column of its own that is read only for
//! the changes that somebody is told.
//!
//! Its one invariant: numbers have no gaps and are visible in their order. They come from a row of
//! `counters` that a transaction locks as the last thing before its COMMIT, so a number is never
//! visible before a smaller one, and one of a transaction that is rolled back is taken again.

use super::{
    ChangeOrigin, ChangeSet, Levels, Metastore, NameKind, NewTable, ObjectKey, PointerSwap,
    Properties, TableOrigin, TableRow, failed, requests, stored,
};
use crate::error::CatalogError;
use serde_json::{Value, json};
use sqlx::{AnyConnection, AssertSqlSafe};
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

/// The bytes of a change and of all up to it: what is kept has a bound in bytes as well.
pub(super) const CHANGES_STEP: &str = r"
ALTER TABLE outbox ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN bytes_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN changes TEXT;
CREATE INDEX outbox_by_bytes ON outbox (bytes_before);
";

/// How much of what is over is remembered.
#[derive(Clone, Copy, Debug)]
pub struct FeedRetention {
    /// Requests since this time, ms since 1970.
    pub requests_since_ms: i64,
    /// Of those that were refused or staged a table, the newest so many.
    pub without_effect: u32,
    /// The newest changes.
    pub events: u64,
    /// Of those the newest that together take so many bytes, and the last one in any case.
    pub event_bytes: u64,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeEvent {
    /// Its place in the order of all changes, from 1 and without gaps.
    pub number: u64,
    /// Names the request it was part of.
    pub request: String,
    /// How many changes that request made.
    pub request_events: i32,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// Who asked for it.
    pub actor: String,
    /// What changed, as the draft of the specification writes an operation, without its updates.
    pub operation: serde_json::Value,
    /// How much room the change takes, its updates included.
    pub bytes: u64,
}

/// Where the feed of changes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeFeed {
    /// Made once with the metastore: another metastore has another feed.
    pub id: u64,
    /// The number of the last change; 0 when there was none.
    pub last: u64,
}

impl Metastore {
    /// The feed of changes, which [`Metastore::events`] reads.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn feed(&self) -> Result<ChangeFeed, CatalogError> {
        let (id, last): (i64, i64) = sqlx::query_as(
            "SELECT feed.value, event.value FROM counters AS feed, counters AS event
             WHERE feed.name = $1 AND event.name = 'event'",
        )
        .bind(FEED)
        .fetch_one(&self.database.readers)
        .await
        .map_err(failed("read events"))?;
        Ok(ChangeFeed { id: id.cast_unsigned(), last: last.cast_unsigned() })
    }

    /// At most `limit` changes with numbers above `after`, in order.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn events(&self, after: u64, limit: u32) -> Result<Vec<ChangeEvent>, CatalogError> {
        let rows: Vec<FeedRow> = sqlx::query_as(
            "SELECT number, request, request_events, at_ms, actor, operation, bytes FROM outbox
             WHERE number > $1 ORDER BY number LIMIT $2",
        )
        .bind(stored(after)?)
        .bind(i64::from(limit))
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read events"))?;
        let broken = |cause| failed("read events")(sqlx::Error::Decode(Box::new(cause)));
        let event = |(number, request, request_events, at_ms, actor, operation, bytes): FeedRow| {
            Ok(ChangeEvent {
                number: number.cast_unsigned(),
                request,
                request_events,
                at_ms,
                actor,
                operation: serde_json::from_str(&operation).map_err(broken)?,
                bytes: bytes.cast_unsigned(),
            })
        };
        rows.into_iter().map(event).collect()
    }

    /// What the changes of these numbers were made of, as [`ChangeSet::as_text`] has it; those that
    /// are not kept any more are left out.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn event_changes(
        &self,
        numbers: &[u64],
    ) -> Result<Vec<(u64, Option<String>)>, CatalogError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        // Numbers need no escaping, and neither database takes a list of them as one parameter.
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let query =
            format!("SELECT number, changes FROM outbox WHERE number IN ({})", numbers.join(", "));
        let rows: Vec<(i64, Option<String>)> = sqlx::query_as(AssertSqlSafe(query))
            .fetch_all(&self.database.readers)
            .await
            .map_err(failed("read events"))?;
        Ok(rows.into_iter().map(|(number, changes)| (number.cast_unsigned(), changes)).collect())
    }

    /// The number before the first change at or after a time; the last one's when there is none.
    pub(crate) async fn events_before(&self, at_ms: i64) -> Result<u64, CatalogError> {
        let number: i64 = sqlx::query_scalar(
            "SELECT coalesce((SELECT min(number) - 1 FROM outbox WHERE at_ms >= $1),
                             (SELECT value FROM counters WHERE name = 'event'))",
        )
        .bind(at_ms)
        .fetch_one(&self.database.readers)
        .await
        .map_err(failed("read events"))?;
        Ok(number.cast_unsigned())
    }

    /// Forgets all other requests and changes.
    pub(crate) async fn forget_records(
        &self,
        remembered: FeedRetention,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        requests::forget(&mut tx, remembered).await?;
        forget(&mut tx, remembered).await?;
        tx.commit().await.map_err(failed("forget old records"))
    }
}

/// The counter that holds what names the feed.
const FEED: &str = "feed";

/// Changes of one request.
pub(super) struct RequestChanges {
    pub(super) origin: ChangeOrigin,
    pub(super) operations: Vec<FeedOperation>,
}

/// One of them.
pub(super) struct FeedOperation {
    /// As the draft of the specification writes it, without its updates.
    told: Value,
    changes: ChangeSet,
}

impl From<Value> for FeedOperation {
    /// For one that has no updates.
    fn from(told: Value) -> Self {
        Self { told, changes: ChangeSet::default() }
    }
}

/// The last event that a transaction wrote, by which it is found after a lost answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventMark {
    number: i64,
    request: Uuid,
}

/// A table or view as it was before a change.
pub(super) struct FormerState {
    pub(super) kind: NameKind,
    pub(super) levels: Levels,
    pub(super) name: String,
    pub(super) metadata_location: String,
}

fn identifier(ObjectKey { levels, name }: ObjectKey<'_>) -> Value {
    json!({"namespace": levels, "name": name})
}

/// An operation on one table or view, named as the draft of the specification does.
fn on(kind: NameKind, what: &str, uuid: Uuid, members: Value) -> FeedOperation {
    let noun = match kind {
        NameKind::Table => "table",
        NameKind::View => "view",
    };
    let mut operation = members;
    operation["operation-type"] = format!("{what}-{noun}").into();
    operation[format!("{noun}-uuid")] = uuid.to_string().into();
    operation.into()
}

pub(super) fn made_namespace(levels: &Levels, properties: &Properties) -> FeedOperation {
    json!({
        "operation-type": "create-namespace",
        "namespace": levels,
        "properties": properties,
    })
    .into()
}

pub(super) fn created(table: &NewTable) -> FeedOperation {
    let snapshots: Vec<i64> = table.snapshots.iter().map(|row| row.snapshot_id).collect();
    // The draft knows no registering of views.
    let what = match (table.kind, &table.comes) {
        (NameKind::Table, TableOrigin::Registered { .. }) => "register",
        (NameKind::Table | NameKind::View, _) => "create",
    };
    let members = json!({
        "identifier": identifier(table.key()),
        "snapshot-ids": snapshots,
        "metadata-location": table.metadata_location,
    });
    let told = on(table.kind, what, table.uuid, members);
    FeedOperation { changes: table.changes.clone(), ..told }
}

pub(super) fn updated(
    swap: &PointerSwap,
    from: &FormerState,
    snapshots: &[i64],
    changes: &ChangeSet,
) -> FeedOperation {
    let members = json!({
        "identifier": identifier(ObjectKey { levels: &from.levels, name: &from.name }),
        "snapshot-ids": snapshots,
        "previous-metadata-location": from.metadata_location,
        "metadata-location": swap.metadata_location,
    });
    let told = on(from.kind, "update", swap.uuid, members);
    FeedOperation { changes: changes.clone(), ..told }
}

/// A table that left; `purge` says that its files are going to be deleted.
pub(super) fn dropped(key: ObjectKey<'_>, row: &TableRow, purge: bool) -> FeedOperation {
    let members = json!({
        "identifier": identifier(key),
        "previous-metadata-location": row.metadata_location,
        "purge": purge,
    });
    on(NameKind::Table, "drop", row.uuid, members)
}

pub(super) fn dropped_view(key: ObjectKey<'_>, row: &TableRow) -> FeedOperation {
    let members = json!({
        "identifier": identifier(key),
        "previous-metadata-location": row.metadata_location,
    });
    on(NameKind::View, "drop", row.uuid, members)
}

pub(super) fn renamed(
    kind: NameKind,
    from: ObjectKey<'_>,
    to: ObjectKey<'_>,
    row: &TableRow,
) -> FeedOperation {
    let members = json!({"source": identifier(from), "destination": identifier(to)});
    on(kind, "rename", row.uuid, members)
}

/// Writes the events; to be called last before COMMIT, as it holds up every other change.
pub(super) async fn write(
    tx: &mut AnyConnection,
    told: &[RequestChanges],
) -> Result<Option<EventMark>, CatalogError> {
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
    let mut mark = EventMark { number: last - count, request: Uuid::nil() };
    for told in told {
        mark.request = Uuid::new_v4();
        for operation in &told.operations {
            mark.number += 1;
            let text = operation.told.to_string();
            let changes = operation.changes.as_text();
            let bytes = text.len() + changes.map_or(0, str::len);
            // The change before it is there: the newest is never forgotten.
            sqlx::query(
                "INSERT INTO outbox (number, request, request_events, at_ms, actor, operation,
                     bytes, bytes_before, changes)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce(
                     (SELECT bytes_before + bytes FROM outbox WHERE number = $1 - 1), 0), $8)",
            )
            .bind(mark.number)
            .bind(mark.request.to_string())
            .bind(i32::try_from(told.operations.len()).unwrap_or(i32::MAX))
            .bind((told.origin.now)())
            .bind(told.origin.actor.as_ref())
            .bind(text)
            .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
            .bind(changes)
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
    mark: EventMark,
) -> Result<bool, CatalogError> {
    let request: Option<String> =
        sqlx::query_scalar("SELECT request FROM outbox WHERE number = $1")
            .bind(mark.number)
            .fetch_optional(connection)
            .await
            .map_err(failed("find out how a commit ended"))?;
    Ok(request.is_some_and(|request| request == mark.request.to_string()))
}

/// number, request, events of the request, time, actor, operation, bytes.
type FeedRow = (i64, String, i32, i64, String, String, i64);

/// Names the feed of a metastore that has none yet.
pub(super) async fn name_feed(tx: &mut AnyConnection) -> Result<(), CatalogError> {
    sqlx::query("INSERT INTO counters VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(FEED)
        .bind(rand::random_range(1..i64::MAX))
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(failed("name the feed of changes"))
}

pub(super) async fn forget(
    tx: &mut AnyConnection,
    remembered: FeedRetention,
) -> Result<(), CatalogError> {
    for (query, kept) in [
        (
            "DELETE FROM outbox
             WHERE number <= (SELECT value FROM counters WHERE name = 'event') - $1",
            remembered.events.max(1),
        ),
        // The newest stays however long it is.
        (
            "DELETE FROM outbox WHERE bytes_before < (SELECT bytes_before + bytes FROM outbox
                 WHERE number = (SELECT value FROM counters WHERE name = 'event')) - $1
             AND number < (SELECT value FROM counters WHERE name = 'event')",
            remembered.event_bytes,
        ),
    ] {
        sqlx::query(query)
            .bind(stored(kept)?)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget events"))?;
    }
    Ok(())
}
