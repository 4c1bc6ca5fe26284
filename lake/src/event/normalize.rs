//! One event: all names it may use for a member, all forms of a value, to one row.
//!
//! Leaves finding events to `decode` and columns to `build`. A row is complete before any of it
//! is stored, so an event is accepted whole or refused whole.

mod bus;
mod call;
mod cell;
mod change;
mod cloud_event;
pub(crate) mod content;
mod inner;
mod kept;
mod members;
mod salvage;
mod untyped;

use crate::event::{
    EventLimits, RequestContext,
    json::{self, EventParts, JsonKind, JsonMember, JsonValue},
    names::{self, COLUMNS, KnownName, SLOTS, SlotSet},
    redact, time,
};
pub(crate) use cell::{CellValue, convert, identifier};
use change::ConnectRecord;
pub(crate) use change::FormerIdentity;
pub(crate) use change::is_among_cloud_events;
pub(crate) use cloud_event::is_cloud_event;
use content::content;
use icecore_schemas::{error_code::ErrorCode, names::is_event_type};
use inner::NestedColumns;
use members::{excerpt, find};
pub(crate) use salvage::{retries, salvage};
use std::borrow::Cow;

/// Why an event is refused.
#[derive(Debug)]
pub(crate) struct EventFault {
    pub(crate) code: ErrorCode,
    pub(crate) reason: String,
}

impl EventFault {
    pub(crate) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// What an event says, apart from the cells of its other columns.
#[derive(Debug)]
pub(crate) struct EventRow<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) namespace: Option<Cow<'a, str>>,
    pub(crate) ts_us: i64,
    pub(crate) has_batch_id: bool,
    pub(crate) content: u64,
    /// The source of a CloudEvent, which is part of its identity; empty where it has none.
    pub(crate) cloud_source: Option<String>,
    pub(crate) former: Option<FormerIdentity>,
    /// Whether it is of a Tail Worker: such events carry the headers of requests.
    pub(crate) is_trace: bool,
}

/// Reads the event with this text and these members; `cells` gets the values of its columns, but
/// for id, ts, ns and what the server gives. None: a tombstone, which says nothing that is stored.
pub(crate) fn read<'a>(
    raw: &'a str,
    parts: &EventParts<'a>,
    arrival: &RequestContext,
    limits: &EventLimits,
    cells: &mut Vec<(u16, CellValue<'a>)>,
) -> Result<Option<EventRow<'a>>, EventFault> {
    let data;
    let columns = limits.columns.len();
    let mut draft = EventDraft::new(raw, &parts.top, &parts.data, cells, columns);
    draft.has_lone_surrogate = parts.has_lone_surrogate;
    draft.content = content(&parts.top);
    // What another log kept whole is the event: its own text, its own content.
    if let Some(text) = draft.kept_text() {
        return draft.kept(text, arrival, limits).map(Some);
    }
    // One form of event after the other is tried, and the first that fits is taken: their order
    // decides about an event that could be two.
    if let Some(call) = draft.call(parts.is_in_call_batch) {
        if call.id.is_some() {
            draft.content = content(&call::content(&parts.top));
        }
        data = call::data(&call);
        draft.take_call(call, &data);
        return draft.finish(arrival, limits).map(Some);
    }
    // A bus wraps events without a type of its own; what it wraps becomes the event's data.
    if draft.value(names::TYPE).is_none()
        && let Some(detail) = draft.bus_event()
    {
        draft.content = content(&bus::content(&parts.top));
        if let Some(detail) = detail {
            data = json::members_of(detail);
            draft.data = &data;
        }
        return draft.finish(arrival, limits).map(Some);
    }
    // A CloudEvent is not unwrapped: at most its data is a change.
    if draft.has(names::SPEC_VERSION) {
        draft.change_in_data();
        return draft.finish(arrival, limits).map(Some);
    }
    // What is wrapped counts only where the members around it are no record themselves.
    let wrapped = draft.wrapped();
    if draft.database_record() {
        return draft.finish(arrival, limits).map(Some);
    }
    // Connect's wrapper is `schema` and `payload` alone. Where there is more, only a database's
    // record inside tells that it is one.
    let (record, is_connect) = match wrapped {
        None => return draft.finish(arrival, limits).map(Some),
        Some(ConnectRecord::Tombstone) => return Ok(None),
        Some(ConnectRecord::Record(record)) => (record, true),
        Some(ConnectRecord::Perhaps(record)) => (record, false),
    };
    let inner = json::members_of(record);
    let content = draft.content;
    let mut inside = EventDraft::new(raw, &inner, &[], draft.cells, columns);
    inside.content = content;
    inside.has_lone_surrogate = parts.has_lone_surrogate;
    if !inside.database_record() {
        // `payload` was the sender's own member: the outer object is read again, from the start.
        if !is_connect {
            let mut draft = EventDraft::new(raw, &parts.top, &parts.data, inside.cells, columns);
            draft.content = content;
            draft.has_lone_surrogate = parts.has_lone_surrogate;
            return draft.finish(arrival, limits).map(Some);
        }
        inside.other_record();
    }
    inside.finish(arrival, limits).map(Some)
}

#[inline]
fn known(member: &JsonMember<'_>) -> Option<KnownName> {
    match member.name.kind {
        JsonKind::Plain => names::find(&member.name.raw[1..member.name.raw.len() - 1]),
        _ => names::find(&member.name.text()?),
    }
}

/// An event whose members are being read.
struct EventDraft<'m, 'a> {
    raw: &'a str,
    top: &'m [JsonMember<'a>],
    data: &'m [JsonMember<'a>],
    /// How many of the known columns there are to be filled: a member of another is one that nobody
    /// knows.
    columns: usize,
    /// Slots that have a member.
    present: SlotSet,
    /// For each of those, the member's number in `top`.
    member: [u32; SLOTS],
    /// Columns that have a cell.
    filled: SlotSet,
    cells: &'m mut Vec<(u16, CellValue<'a>)>,
    /// Whether the columns do not hold everything that the event says.
    is_lossy: bool,
    /// Whether a string of the event has half of a surrogate pair.
    has_lone_surrogate: bool,
    /// Whether a name that nobody knows begins like those of a flattened row's fields.
    has_fields: bool,
    /// Whether its type may be any text, as that of a CloudEvent may.
    has_free_type: bool,
    /// Hash of all members.
    content: u64,
    /// What a database's record says in place of `type`, `id` and `ts`.
    change: change::DerivedFields<'a>,
}

impl<'m, 'a> EventDraft<'m, 'a> {
    #[inline]
    fn new(
        raw: &'a str,
        top: &'m [JsonMember<'a>],
        data: &'m [JsonMember<'a>],
        cells: &'m mut Vec<(u16, CellValue<'a>)>,
        columns: usize,
    ) -> Self {
        cells.clear();
        let mut draft = Self {
            raw,
            top,
            data,
            columns,
            present: SlotSet::NONE,
            member: [0; SLOTS],
            filled: SlotSet::NONE,
            cells,
            is_lossy: false,
            has_lone_surrogate: false,
            has_fields: false,
            has_free_type: false,
            content: 0,
            change: change::DerivedFields::default(),
        };
        for (number, member) in top.iter().enumerate() {
            let Some(found) = draft.known(member) else {
                draft.is_lossy = true;
                draft.has_fields |= member.name.raw.starts_with("\"__");
                continue;
            };
            if draft.has(found.slot) {
                draft.is_lossy = true;
                // Two names of one column: the better known one fills it, whatever their order.
                let other = known(&top[draft.member[found.slot] as usize]);
                if other.is_some_and(|other| other.rank < found.rank) {
                    continue;
                }
            }
            draft.present.add(found.slot);
            draft.member[found.slot] = number as u32;
        }
        draft
    }

    /// What the member means; none when nobody knows its name.
    #[inline]
    fn known(&self, member: &JsonMember<'_>) -> Option<KnownName> {
        known(member).filter(|known| known.slot < self.columns || COLUMNS <= known.slot)
    }

    #[inline]
    fn has(&self, slot: usize) -> bool {
        self.present.has(slot)
    }

    fn member(&self, slot: usize) -> Option<&'m JsonMember<'a>> {
        self.has(slot).then(|| &self.top[self.member[slot] as usize])
    }

    /// The value of a slot; null is none.
    fn value(&self, slot: usize) -> Option<JsonValue<'a>> {
        self.member(slot).map(|member| member.value).filter(|value| value.kind != JsonKind::Null)
    }

    /// Takes a member as done with.
    fn forget(&mut self, slot: usize) {
        self.present.remove(slot);
    }

    fn is_filled(&self, column: usize) -> bool {
        self.filled.has(column)
    }

    fn put(&mut self, column: usize, cell: CellValue<'a>) {
        debug_assert!(column < COLUMNS && !self.is_filled(column));
        self.filled.add(column);
        self.cells.push((column as u16, cell));
    }

    /// Whether the column now says all that the value says: it was empty, and the value has its
    /// type.
    fn put_if_it_fits(&mut self, column: usize, value: JsonValue<'a>) -> bool {
        if value.kind == JsonKind::Null {
            return true;
        }
        match convert(column, value) {
            Some(cell) if !self.is_filled(column) => {
                self.put(column, cell);
                cell::is_kept(column, value)
            }
            _ => false,
        }
    }

    fn finish(
        mut self,
        arrival: &RequestContext,
        limits: &EventLimits,
    ) -> Result<EventRow<'a>, EventFault> {
        let is_cloud_event = self.has(names::SPEC_VERSION);
        if is_cloud_event {
            self.cloud_event()?;
        } else if self.value(names::TYPE).is_none() && self.change.event_type.is_none() {
            self.change_without_type();
        }
        // Each of these takes its member out of `present`, so that the columns below do not see it.
        let event_type = self.event_type()?;
        let ts_us = self.ts(arrival, limits)?;
        let namespace = self.namespace()?;
        let id = self.id()?;
        self.extras(&event_type);
        for column in self.present.below(COLUMNS) {
            self.column(column);
        }
        // A column that is filled stays, so what the event says itself wins over `do`, that over
        // `_meta`, and that over `data`.
        if let Some(value) = self.value(names::DO) {
            self.is_lossy |= value.kind != JsonKind::Object;
            self.is_lossy |= !self.put_durable_object(&mut NestedColumns::default(), value);
        }
        if self.has(names::META) {
            self.meta();
        }
        if !self.data.is_empty() {
            self.described_in_data(&event_type);
        }
        // The type tells the operation only where no member did.
        if !self.is_filled(names::OP)
            && let Some(op) = change::op_of_type(&event_type)
        {
            self.put(names::OP, CellValue::Text(Cow::Borrowed(op)));
        }
        let is_trace = redact::is_trace_type(&event_type);
        self.put(names::TYPE, CellValue::Text(event_type));
        // What the columns do not hold in full is kept as it came.
        if self.is_lossy && !self.is_filled(names::PAYLOAD) {
            self.put(names::PAYLOAD, CellValue::Text(Cow::Borrowed(self.raw)));
        }
        if self.has_lone_surrogate {
            self.escape_lone_surrogates();
        }
        // Content and source go into the comparison with what has the same id.
        let has_batch_id = self.is_filled(names::BATCH_ID);
        let cloud_source = is_cloud_event.then(|| self.text(names::SOURCE).unwrap_or_default());
        let content = self.change.content.unwrap_or(self.content);
        let former = self.change.former.take();
        let is_trace =
            is_trace || (self.is_filled(names::SCRIPT_NAME) && self.is_filled(names::OUTCOME));
        Ok(EventRow { id, namespace, ts_us, has_batch_id, content, cloud_source, former, is_trace })
    }

    fn text(&self, column: usize) -> Option<String> {
        let cell = self.cells.iter().find(|(filled, _)| usize::from(*filled) == column);
        match cell {
            Some((_, CellValue::Text(text))) => Some(text.clone().into_owned()),
            _ => None,
        }
    }

    fn event_type(&mut self) -> Result<Cow<'a, str>, EventFault> {
        let Some(value) = self.value(names::TYPE) else {
            self.forget(names::TYPE);
            let missing = || EventFault::new(ErrorCode::MissingType, untyped::reason(self.top));
            return self.change.event_type.map(Cow::Borrowed).ok_or_else(missing);
        };
        self.forget(names::TYPE);
        match value.text() {
            Some(text) if is_event_type(&text) => Ok(text),
            Some(text)
                if (self.has_free_type || self.has(names::SPEC_VERSION)) && !text.is_empty() =>
            {
                Ok(self.cloud_event_type(text))
            }
            _ => Err(EventFault::new(
                ErrorCode::InvalidType,
                format!(
                    "`type` must match [A-Za-z0-9][A-Za-z0-9._-]{{0,255}}, not {}",
                    excerpt(value.raw)
                ),
            )),
        }
    }

    fn ts(&mut self, arrival: &RequestContext, limits: &EventLimits) -> Result<i64, EventFault> {
        let Some(value) = self.value(names::TS).or(self.change.ts) else {
            self.forget(names::TS);
            return Ok(arrival.first_came_us());
        };
        let Some(ts_us) = time::parse(value) else {
            if self.change.is_ts_loose {
                return Ok(arrival.first_came_us());
            }
            return Err(EventFault::new(
                ErrorCode::InvalidTimestamp,
                format!(
                    "{} must be a time in the years 0001 to 9999 such as 2026-11-20T14:03:05Z, or a number of seconds, milliseconds or microseconds since 1970, not {}",
                    self.name_of(names::TS),
                    excerpt(value.raw)
                ),
            ));
        };
        self.forget(names::TS);
        if let Some(past_us) = limits.ts_past_us {
            let outside = if ts_us < arrival.first_came_us().saturating_sub(past_us) {
                Some(("before", past_us))
            } else if ts_us > arrival.first_came_us().saturating_add(limits.ts_future_us) {
                Some(("after", limits.ts_future_us))
            } else {
                None
            };
            if outside.is_some() && self.change.is_ts_loose {
                return Ok(arrival.first_came_us());
            }
            if let Some((side, allowed_us)) = outside {
                let hours = allowed_us / 3_600_000_000;
                return Err(EventFault::new(
                    ErrorCode::TsWindow,
                    format!(
                        "the event's time {} is more than {hours} h {side} its arrival; send it with `backfill=true` if it is right",
                        excerpt(value.raw)
                    ),
                ));
            }
        }
        Ok(ts_us)
    }

    fn namespace(&mut self) -> Result<Option<Cow<'a, str>>, EventFault> {
        let Some(value) = self.value(names::NS) else {
            self.forget(names::NS);
            return Ok(None);
        };
        self.forget(names::NS);
        match value.text() {
            Some(text) if !value.has_lone_surrogate() => Ok(Some(text)),
            _ => Err(EventFault::new(
                ErrorCode::InvalidNamespace,
                format!("`ns` must be text, not {}", excerpt(value.raw)),
            )),
        }
    }

    fn id(&mut self) -> Result<Option<Cow<'a, str>>, EventFault> {
        let Some(value) = self.value(names::ID) else {
            self.forget(names::ID);
            return Ok(self.change.id.take().map(Cow::Owned));
        };
        self.forget(names::ID);
        let id = identifier(value);
        // Version 0.1.0 took a number for the text that it is written as.
        if value.kind == JsonKind::Number
            && id.as_deref() != Some(value.raw)
            && self.change.former.is_none()
        {
            let id = Some(value.raw.to_owned());
            let former = FormerIdentity { id, content: self.content, is_certain: false };
            self.change.former = Some(former);
        }
        id.map(Some).ok_or_else(|| {
            let why =
                if value.has_lone_surrogate() { "; a lone surrogate is not text" } else { "" };
            let not = excerpt(value.raw);
            let wanted = "non-empty text, or a number";
            let reason = format!("`id` must be {wanted}, not {not}{why}; or omit it");
            EventFault::new(ErrorCode::InvalidEvent, reason)
        })
    }

    /// Fills the column from its member. A value of another type is no reason to lose the event.
    fn column(&mut self, column: usize) {
        // A change that was already taken from a Debezium envelope stays.
        if let Some(value) = self.value(column)
            && !self.is_filled(column)
        {
            self.is_lossy |= !self.put_if_it_fits(column, value);
        }
    }

    /// The members that are no columns and not taken apart elsewhere.
    fn extras(&mut self, event_type: &str) {
        let is_close = event_type == "ws.close" && !self.has(names::CLOSE_CODE);
        if let Some(value) = self.value(names::CODE) {
            self.is_lossy |= !(is_close && self.put_if_it_fits(names::CLOSE_CODE, value));
        }
        if let Some(value) = self.value(names::NAMESPACE) {
            let is_call = event_type.starts_with("rpc.") && !self.has(names::RPC_NAMESPACE);
            self.is_lossy |= !(is_call && self.put_if_it_fits(names::RPC_NAMESPACE, value));
        }
        self.is_lossy |= self.present.meets(&names::KEPT_IN_PAYLOAD);
    }

    /// Makes the event's JSON readable for everybody: half of a surrogate pair is valid JSON, and
    /// still many readers refuse a document with one.
    fn escape_lone_surrogates(&mut self) {
        for (column, cell) in self.cells.iter_mut() {
            let CellValue::Text(text) = cell else { continue };
            let column = usize::from(*column);
            let is_json = matches!(
                column,
                names::BEFORE
                    | names::AFTER
                    | names::PATCH
                    | names::DATA
                    | names::META
                    | names::PAYLOAD
            );
            // Elsewhere a text that is borrowed is JSON as it came: what has escapes is owned.
            if (is_json || matches!(text, Cow::Borrowed(_)))
                && let Some(readable) = json::without_lone_surrogates(text)
            {
                *text = Cow::Owned(readable);
            }
        }
    }

    fn name_of(&self, slot: usize) -> String {
        let name = self.member(slot).and_then(|member| member.name.text());
        format!("`{}`", name.unwrap_or(Cow::Borrowed("ts_ms")))
    }
}

#[cfg(test)]
mod tests;
