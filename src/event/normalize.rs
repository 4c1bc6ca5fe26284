//! One event: all names it may use for a member, all forms of a value, to one row.
//!
//! Leaves finding events to `decode` and columns to `build`. A row is complete before any of it
//! is stored, so an event is accepted whole or refused whole.

mod cell;
mod change;
mod cloud_event;
pub(crate) mod content;
mod glimpse;

use crate::event::{
    Arrival, Limits,
    json::{self, Kind, Member, Parts, Value},
    names::{self, COLUMNS, Known, SLOTS},
    time,
};
pub(crate) use cell::{Cell, convert};
pub(crate) use change::Former;
use change::Wrapped;
pub(crate) use change::is_among_cloud_events;
pub(crate) use cloud_event::is_cloud_event;
use content::content;
pub(crate) use glimpse::{glimpse, retries};
use icecore_schemas::{error_code::ErrorCode, names::is_event_type};
use std::borrow::Cow;

/// Why an event is refused.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// What an event says, apart from the cells of its other columns.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) namespace: Option<Cow<'a, str>>,
    pub(crate) ts_us: i64,
    pub(crate) has_batch_id: bool,
    pub(crate) content: u64,
    /// The source of a CloudEvent, which is part of its identity; empty where it has none.
    pub(crate) cloud_source: Option<String>,
    pub(crate) former: Option<Former>,
}

/// Reads the event with this text and these members; `cells` gets the values of its columns, but
/// for id, ts, ns and what the server gives. None: a tombstone, which says nothing that is stored.
pub(crate) fn read<'a>(
    raw: &'a str,
    parts: &Parts<'a>,
    context: (&Arrival, &Limits),
    cells: &mut Vec<(u8, Cell<'a>)>,
) -> Result<Option<Row<'a>>, Fault> {
    let mut draft = Draft::new(raw, &parts.top, &parts.data, cells);
    draft.content = content(&parts.top);
    if draft.has(names::SPEC_VERSION) {
        draft.change_in_data();
        return draft.finish(context).map(Some);
    }
    let wrapped = draft.wrapped();
    if draft.database_record() {
        return draft.finish(context).map(Some);
    }
    let (record, is_connect) = match wrapped {
        None => return draft.finish(context).map(Some),
        Some(Wrapped::Tombstone) => return Ok(None),
        Some(Wrapped::Record(record)) => (record, true),
        Some(Wrapped::Perhaps(record)) => (record, false),
    };
    let inner = json::members_of(record);
    let content = draft.content;
    let mut inside = Draft::new(raw, &inner, &[], draft.cells);
    inside.content = content;
    if !inside.database_record() {
        if !is_connect {
            let mut draft = Draft::new(raw, &parts.top, &parts.data, inside.cells);
            draft.content = content;
            return draft.finish(context).map(Some);
        }
        inside.other_record();
    }
    inside.finish(context).map(Some)
}

#[inline]
fn known(member: &Member<'_>) -> Option<Known> {
    match member.name.kind {
        Kind::Plain => names::find(&member.name.raw[1..member.name.raw.len() - 1]),
        _ => names::find(&member.name.text()?),
    }
}

/// An event whose members are being read.
struct Draft<'m, 'a> {
    raw: &'a str,
    top: &'m [Member<'a>],
    data: &'m [Member<'a>],
    /// Slots that have a member, a bit each.
    present: u128,
    /// For each of those, the member's number in `top`.
    member: [u32; SLOTS],
    /// Columns that have a cell, a bit each.
    filled: u64,
    cells: &'m mut Vec<(u8, Cell<'a>)>,
    /// Whether the columns do not hold everything that the event says.
    is_lossy: bool,
    /// Whether a name that nobody knows begins like those of a flattened row's fields.
    has_fields: bool,
    /// Hash of all members.
    content: u64,
    /// What a database's record says in place of `type`, `id` and `ts`.
    change: change::Derived<'a>,
}

impl<'m, 'a> Draft<'m, 'a> {
    #[inline]
    fn new(
        raw: &'a str,
        top: &'m [Member<'a>],
        data: &'m [Member<'a>],
        cells: &'m mut Vec<(u8, Cell<'a>)>,
    ) -> Self {
        cells.clear();
        let mut draft = Self {
            raw,
            top,
            data,
            present: 0,
            member: [0; SLOTS],
            filled: 0,
            cells,
            is_lossy: false,
            has_fields: false,
            content: 0,
            change: change::Derived::default(),
        };
        for (number, member) in top.iter().enumerate() {
            let Some(found) = known(member) else {
                draft.is_lossy = true;
                draft.has_fields |= member.name.raw.starts_with("\"__");
                continue;
            };
            if draft.has(found.slot) {
                draft.is_lossy = true;
                let other = known(&top[draft.member[found.slot] as usize]);
                if other.is_some_and(|other| other.rank < found.rank) {
                    continue;
                }
            }
            draft.present |= 1 << found.slot;
            draft.member[found.slot] = number as u32;
        }
        draft
    }

    fn has(&self, slot: usize) -> bool {
        self.present >> slot & 1 == 1
    }

    fn member(&self, slot: usize) -> Option<&'m Member<'a>> {
        self.has(slot).then(|| &self.top[self.member[slot] as usize])
    }

    /// The value of a slot; null is none.
    fn value(&self, slot: usize) -> Option<Value<'a>> {
        self.member(slot).map(|member| member.value).filter(|value| value.kind != Kind::Null)
    }

    /// Takes a member as done with.
    fn forget(&mut self, slot: usize) {
        self.present &= !(1 << slot);
    }

    fn is_filled(&self, column: usize) -> bool {
        self.filled >> column & 1 == 1
    }

    fn put(&mut self, column: usize, cell: Cell<'a>) {
        debug_assert!(column < COLUMNS && !self.is_filled(column));
        self.filled |= 1 << column;
        self.cells.push((column as u8, cell));
    }

    /// Whether the value was taken: it has the column's type, and the column was empty.
    fn put_if_it_fits(&mut self, column: usize, value: Value<'a>) -> bool {
        if value.kind == Kind::Null {
            return true;
        }
        match convert(column, value) {
            Some(cell) if !self.is_filled(column) => {
                self.put(column, cell);
                true
            }
            _ => false,
        }
    }

    fn finish(mut self, (arrival, limits): (&Arrival, &Limits)) -> Result<Row<'a>, Fault> {
        let is_cloud_event = self.has(names::SPEC_VERSION);
        if is_cloud_event {
            self.cloud_event()?;
        } else if self.value(names::TYPE).is_none() && self.change.event_type.is_none() {
            self.change_without_type();
        }
        let event_type = self.event_type()?;
        let ts_us = self.ts(arrival, limits)?;
        let namespace = self.namespace()?;
        let id = self.id()?;
        self.extras(&event_type);
        // Everything taken one by one above is no longer among the columns.
        let mut columns = self.present & ((1 << COLUMNS) - 1);
        while columns != 0 {
            let column = columns.trailing_zeros() as usize;
            columns &= columns - 1;
            self.column(column)?;
        }
        if let Some(value) = self.value(names::DO) {
            self.durable_object(value)?;
        }
        if self.has(names::META) {
            self.meta();
        }
        if !self.data.is_empty() {
            self.described_in_data(&event_type);
        }
        if !self.is_filled(names::OP)
            && let Some(op) = change::op_of_type(&event_type)
        {
            self.put(names::OP, Cell::Text(Cow::Borrowed(op)));
        }
        self.put(names::TYPE, Cell::Text(event_type));
        if self.is_lossy {
            self.put(names::PAYLOAD, Cell::Text(Cow::Borrowed(self.raw)));
        }
        let has_batch_id = self.is_filled(names::BATCH_ID);
        let cloud_source = is_cloud_event.then(|| self.text(names::SOURCE).unwrap_or_default());
        let content = self.change.content.unwrap_or(self.content);
        let former = self.change.former.take();
        Ok(Row { id, namespace, ts_us, has_batch_id, content, cloud_source, former })
    }

    /// A column's text, if it has one.
    fn text(&self, column: usize) -> Option<String> {
        let cell = self.cells.iter().find(|(filled, _)| usize::from(*filled) == column);
        match cell {
            Some((_, Cell::Text(text))) => Some(text.clone().into_owned()),
            _ => None,
        }
    }

    fn event_type(&mut self) -> Result<Cow<'a, str>, Fault> {
        let Some(value) = self.value(names::TYPE) else {
            self.forget(names::TYPE);
            let missing = || Fault::new(ErrorCode::MissingType, "the event has no `type`");
            return self.change.event_type.map(Cow::Borrowed).ok_or_else(missing);
        };
        self.forget(names::TYPE);
        match value.text() {
            Some(text) if is_event_type(&text) => Ok(text),
            Some(text) if self.has(names::SPEC_VERSION) && !text.is_empty() => {
                Ok(self.cloud_event_type(text))
            }
            _ => Err(Fault::new(
                ErrorCode::InvalidType,
                format!(
                    "`type` must match [A-Za-z0-9][A-Za-z0-9._-]{{0,255}}, not {}",
                    excerpt(value.raw)
                ),
            )),
        }
    }

    fn ts(&mut self, arrival: &Arrival, limits: &Limits) -> Result<i64, Fault> {
        let Some(value) = self.value(names::TS).or(self.change.ts) else {
            self.forget(names::TS);
            return Ok(arrival.first_came_us());
        };
        let Some(ts_us) = time::parse(value) else {
            if self.change.is_ts_loose {
                return Ok(arrival.first_came_us());
            }
            return Err(Fault::new(
                ErrorCode::InvalidTimestamp,
                format!(
                    "{} must be an ISO 8601 time or a number of seconds, milliseconds or microseconds since 1970, not {}",
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
                return Err(Fault::new(
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

    fn namespace(&mut self) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(value) = self.value(names::NS) else {
            self.forget(names::NS);
            return Ok(None);
        };
        self.forget(names::NS);
        match value.text() {
            Some(text) => Ok(Some(text)),
            None => Err(Fault::new(
                ErrorCode::InvalidNamespace,
                format!("`ns` must be a string, not {}", excerpt(value.raw)),
            )),
        }
    }

    fn id(&mut self) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(value) = self.value(names::ID) else {
            self.forget(names::ID);
            return Ok(self.change.id.take().map(Cow::Owned));
        };
        match convert(names::ID, value) {
            Some(Cell::Text(id)) if !id.is_empty() => {
                self.forget(names::ID);
                Ok(Some(id))
            }
            _ => Err(self.misfit(names::ID)),
        }
    }

    fn column(&mut self, column: usize) -> Result<(), Fault> {
        let Some(value) = self.value(column) else { return Ok(()) };
        match convert(column, value) {
            // A change that was already taken from a Debezium envelope stays.
            Some(_) if self.is_filled(column) => Ok(()),
            Some(cell) => {
                // Only a log position keeps a value of its own in place of its text.
                self.is_lossy |= column == names::LSN && value.kind != Kind::Number;
                self.put(column, cell);
                Ok(())
            }
            None => Err(self.misfit(column)),
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
        self.is_lossy |= self.present & names::KEPT_IN_PAYLOAD != 0;
    }

    fn durable_object(&mut self, value: Value<'a>) -> Result<(), Fault> {
        if value.kind != Kind::Object {
            return Err(Fault::new(
                ErrorCode::InvalidEvent,
                format!("`do` must be an object, not {}", excerpt(value.raw)),
            ));
        }
        self.is_lossy |= !self.put_durable_object(value);
        Ok(())
    }

    /// Whether the columns hold all of the object.
    fn put_durable_object(&mut self, value: Value<'a>) -> bool {
        let mut kept = true;
        json::each_member(value, |member| {
            let column = match member.name.raw {
                "\"id\"" => names::DO_ID,
                "\"name\"" => names::DO_NAME,
                "\"class\"" => names::DO_CLASS,
                "\"colo\"" => names::DO_COLO,
                "\"worker\"" => names::DO_WORKER,
                _ => {
                    kept = false;
                    return;
                }
            };
            kept &= self.put_if_it_fits(column, member.value);
        });
        kept
    }

    /// `_meta` keeps its text, so what does not fit a column is not lost.
    fn meta(&mut self) {
        let Some(value) = self.value(names::META) else { return };
        json::each_member(value, |member| {
            let column = match member.name.raw {
                "\"schemaVersion\"" | "\"schema_version\"" => names::SCHEMA_VERSION,
                "\"source\"" => names::SOURCE,
                "\"retries\"" => names::RETRIES,
                _ => return,
            };
            self.put_if_it_fits(column, member.value);
        });
    }

    /// `data` keeps its text, so what does not fit a column is not lost.
    fn described_in_data(&mut self, event_type: &str) {
        let is_change = event_type.starts_with("cdc.") && !self.is_filled(names::OP);
        let data = self.data;
        for member in data {
            let Some(known) = known(member) else { continue };
            match known.slot {
                names::DO if member.value.kind == Kind::Object => {
                    self.put_durable_object(member.value);
                }
                names::NAMESPACE if event_type.starts_with("rpc.") => {
                    self.put_if_it_fits(names::RPC_NAMESPACE, member.value);
                }
                names::CODE if event_type == "ws.close" => {
                    self.put_if_it_fits(names::CLOSE_CODE, member.value);
                }
                slot if slot < COLUMNS
                    && (names::is_found_in_data(slot) || (is_change && names::is_change(slot))) =>
                {
                    self.put_if_it_fits(slot, member.value);
                }
                _ => {}
            }
        }
    }

    fn name_of(&self, slot: usize) -> String {
        let name = self.member(slot).and_then(|member| member.name.text());
        format!("`{}`", name.unwrap_or(Cow::Borrowed("ts_ms")))
    }

    fn misfit(&self, slot: usize) -> Fault {
        let raw = self.member(slot).map_or("", |member| member.value.raw);
        let wanted = cell::wanted(slot);
        Fault::new(
            ErrorCode::InvalidEvent,
            format!("{} must be {wanted}, not {}", self.name_of(slot), excerpt(raw)),
        )
    }
}

/// The start of a text, for a message.
fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests;
