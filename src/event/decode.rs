//! A body's bytes to rows: finds the events in each format and hands each to `normalize`.
//!
//! Every event of a sound body ends up accepted or rejected, in body order.

mod batch;
mod made;

use crate::event::{
    Arrival, BodyFormat, Decoded, Limits, Rejected, avro,
    build::{Groups, Place, id_in_batch},
    cloud,
    json::{Flaw, NESTING_MAX, Parts, Scan},
    letter, names,
    normalize::{self, Cell, Fault},
};
use batch::{batch_id_of, batch_members, guess, is_tombstone, look_ahead, rest_of_batch, slot};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};
use made::Made;

/// A body that cannot be taken apart into events; nothing of it is accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BodyError {
    /// What is wrong.
    pub code: ErrorCode,
    /// What is wrong, where, and what to change.
    pub reason: String,
}

impl BodyError {
    pub(crate) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Decodes a whole body, already decompressed, and returns its events and the `batchId` of a body
/// `{"events":[…],"batchId"}`.
///
/// In JSON, an object with an array `events` and no `type` before it is a batch; any other object
/// is one event. An event with a member `specversion` is a CloudEvent in every format. With
/// [`Arrival::cloud_event`] the body is the `data` of one CloudEvent whatever the format says.
///
/// # Errors
/// [`BodyError`] when there are no events to be found: broken JSON around them, a wrong Avro
/// header, more events than allowed. A broken event inside a sound body is a
/// [`crate::event::Rejected`] instead.
pub fn decode(
    body: &[u8],
    format: BodyFormat,
    arrival: &Arrival,
    limits: &Limits,
) -> Result<(Decoded, Option<String>), BodyError> {
    match take_apart(body, format, arrival, limits, false) {
        Err(Stop::LookAhead) => take_apart(body, format, arrival, limits, true),
        other => other,
    }
    .map_err(|stop| match stop {
        Stop::Body(error) => error,
        Stop::LookAhead => unreachable!("a careful pass looks ahead"),
    })
}

/// Why a pass ends early.
enum Stop {
    Body(BodyError),
    /// The guess at a batch's id was wrong: once more, with a look at the whole batch first.
    LookAhead,
}

impl From<BodyError> for Stop {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

fn take_apart(
    body: &[u8],
    format: BodyFormat,
    arrival: &Arrival,
    limits: &Limits,
    is_careful: bool,
) -> Result<(Decoded, Option<String>), Stop> {
    let mut pass = Pass::new(arrival, limits, is_careful);
    let whole = body;
    pass.source = body.as_ptr().addr();
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let mut made = Made::default();
    let mut batch_id = None;
    let mut sink = Sink::default();
    if !arrival.cloud_event.is_empty() {
        let (text, fault) = cloud::event_text(whole, &arrival.cloud_event);
        made = Made::of(&[text]);
        pass.source = made.text.as_ptr().addr();
        match fault {
            Some(fault) => {
                let index = pass.next_index()?;
                pass.reject(made.text.as_bytes(), index, None, fault);
            }
            None => pass.lines(made.texts(), &mut sink)?,
        }
    } else if format == BodyFormat::Avro {
        made = Made::of(&avro::events(body, limits)?);
        pass.source = made.text.as_ptr().addr();
        pass.lines(made.texts(), &mut sink)?;
    } else if format == BodyFormat::Ndjson {
        match std::str::from_utf8(body) {
            Ok(text) => pass.lines(text.split('\n'), &mut sink)?,
            Err(_) => pass.broken_lines(body)?,
        }
    } else {
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            BodyError::new(ErrorCode::InvalidJson, format!("the body is not UTF-8 at byte {at}"))
        })?;
        pass.needs_spec_version =
            matches!(format, BodyFormat::CloudEvent | BodyFormat::CloudEventBatch);
        batch_id = pass.json(text, &mut sink)?;
    }
    let decoded = Decoded {
        received: pass.received as usize,
        accepted: pass.groups.finish(),
        rejected: pass.rejected,
        source: made.text.into(),
        is_webhook: false,
    };
    Ok((decoded, batch_id))
}

/// Buffers of the event at hand, kept from one event to the next.
#[derive(Default)]
struct Sink<'a> {
    parts: Parts<'a>,
    cells: Vec<(u8, Cell<'a>)>,
}

/// One way through a body.
struct Pass<'r> {
    arrival: &'r Arrival,
    limits: &'r Limits,
    depth_max: usize,
    is_careful: bool,
    needs_spec_version: bool,
    /// Where the bytes of all events begin.
    source: usize,
    received: u32,
    groups: Groups<'r>,
    rejected: Vec<Rejected>,
}

impl<'r> Pass<'r> {
    fn new(arrival: &'r Arrival, limits: &'r Limits, is_careful: bool) -> Self {
        Self {
            arrival,
            limits,
            depth_max: limits.depth_max.min(NESTING_MAX),
            is_careful,
            needs_spec_version: false,
            source: 0,
            received: 0,
            groups: Groups::new(arrival),
            rejected: Vec::new(),
        }
    }

    /// A body of one JSON text; returns its batch id.
    fn json<'a>(&mut self, text: &'a str, sink: &mut Sink<'a>) -> Result<Option<String>, Stop> {
        let broken = |flaw| Stop::Body(broken(text, flaw));
        let mut scan = Scan::new(text);
        match scan.peek() {
            None => Err(BodyError::new(ErrorCode::InvalidRequest, "the body is empty").into()),
            Some(b'[') => {
                self.array(&mut scan, text, None, sink)?;
                scan.end().map_err(broken)?;
                Ok(None)
            }
            Some(b'{') => {
                if let Some(batch_id) = self.batch(text, sink)? {
                    return Ok(batch_id);
                }
                let event = self.scan_event(&mut scan, sink).map_err(broken)?;
                scan.end().map_err(broken)?;
                self.event(event, None, 0, sink)?;
                Ok(None)
            }
            Some(b'n') if is_tombstone(text) => {
                self.next_index()?;
                Ok(None)
            }
            Some(_) => Err(BodyError::new(
                ErrorCode::InvalidJson,
                "the body must be an event, an array of events or {\"events\":[…]}",
            )
            .into()),
        }
    }

    /// A batch, event by event, and its id; none when the text turns out to be no batch, before
    /// anything was taken from it.
    fn batch<'a>(
        &mut self,
        text: &'a str,
        sink: &mut Sink<'a>,
    ) -> Result<Option<Option<String>>, Stop> {
        let broken = |flaw| Stop::Body(broken(text, flaw));
        let mut scan = Scan::new(text);
        scan.expect(b'{').map_err(broken)?;
        let mut batch_id = None;
        if scan.take(b'}') {
            return Ok(None);
        }
        loop {
            let name = scan.name().map_err(broken)?;
            scan.expect(b':').map_err(broken)?;
            match slot(name) {
                Some(names::TYPE) => return Ok(None),
                Some(names::EVENT_LIST) if scan.peek() == Some(b'[') => break,
                Some(names::BATCH_ID) => {
                    batch_id = batch_id_of(scan.value(self.depth_max).map_err(broken)?);
                }
                // A single event may be too deep: that is for its own scan to find.
                _ => match scan.value(self.depth_max) {
                    Err(Flaw::TooDeep) => return Ok(None),
                    other => {
                        other.map_err(broken)?;
                    }
                },
            }
            if !scan.take(b',') {
                return Ok(None);
            }
        }
        let is_known = batch_id.is_some();
        if !is_known {
            batch_id = if self.is_careful { look_ahead(scan.clone()) } else { guess(text) };
        }
        self.array(&mut scan, text, batch_id.as_deref(), sink)?;
        let later = rest_of_batch(&mut scan).map_err(broken)?;
        scan.end().map_err(broken)?;
        if !is_known && later != batch_id {
            return Err(Stop::LookAhead);
        }
        Ok(Some(batch_id))
    }

    /// An array of events.
    fn array<'a>(
        &mut self,
        scan: &mut Scan<'a>,
        text: &str,
        batch_id: Option<&str>,
        sink: &mut Sink<'a>,
    ) -> Result<(), Stop> {
        let broken = |flaw| Stop::Body(broken(text, flaw));
        scan.expect(b'[').map_err(broken)?;
        if scan.take(b']') {
            return Ok(());
        }
        let mut number = 0;
        loop {
            if scan.peek() == Some(b'{') {
                let event = self.scan_event(scan, sink).map_err(broken)?;
                self.event(event, batch_id, number, sink)?;
            } else {
                let start = scan.at();
                match scan.value(self.depth_max) {
                    Ok(_) => {}
                    Err(Flaw::TooDeep) => scan.skip_blindly(start).map_err(broken)?,
                    Err(flaw) => return Err(broken(flaw)),
                }
                let index = self.next_index()?;
                let text = scan.since(start);
                if !is_tombstone(text) {
                    self.reject(text.as_bytes(), index, None, not_an_object());
                }
            }
            number += 1;
            if !scan.take(b',') {
                return scan.expect(b']').map_err(broken);
            }
        }
    }

    /// Events on a line each, or a whole batch on a line.
    fn lines<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a str>,
        sink: &mut Sink<'a>,
    ) -> Result<(), Stop> {
        for line in lines {
            let line = line.trim_ascii();
            if is_tombstone(line) {
                self.next_index()?;
            } else if !line.is_empty() {
                self.line(line, sink)?;
            }
        }
        Ok(())
    }

    /// One line. It is read to its end before anything is taken from it, so a broken line is one
    /// rejected event even if it was meant to be a batch.
    fn line<'a>(&mut self, line: &'a str, sink: &mut Sink<'a>) -> Result<(), Stop> {
        let refuse = |pass: &mut Self, fault| {
            let index = pass.next_index()?;
            pass.reject(line.as_bytes(), index, None, fault);
            Ok(())
        };
        let mut scan = Scan::new(line);
        if scan.peek() != Some(b'{') {
            let flaw = scan.value(NESTING_MAX).and_then(|_| scan.end()).err();
            let fault = flaw.map_or_else(not_an_object, |flaw| broken(line, flaw).into());
            return refuse(self, fault);
        }
        let mut event = match self.scan_event(&mut scan, sink) {
            Ok(event) => event,
            Err(flaw) => return refuse(self, broken(line, flaw).into()),
        };
        if let Err(flaw) = scan.end() {
            return refuse(self, broken(line, flaw).into());
        }
        if let Scanned::TooDeep(_) = event {
            // It may be a batch with an event that is too deep.
            sink.parts.top.clear();
            let whole = Scan::new(line).object(NESTING_MAX, &mut sink.parts);
            if whole.is_ok() && batch_members(&sink.parts.top).is_some() {
                event = Scanned::Event(line);
            }
        }
        let members = match event {
            Scanned::Event(_) => batch_members(&sink.parts.top),
            Scanned::TooDeep(_) => None,
        };
        match members {
            Some((events, batch_id)) => {
                self.array(&mut Scan::new(events), line, batch_id.as_deref(), sink)
            }
            None => Ok(self.event(event, None, 0, sink)?),
        }
    }

    /// Lines that are not all UTF-8.
    fn broken_lines(&mut self, body: &[u8]) -> Result<(), Stop> {
        for line in body.split(|byte| *byte == b'\n') {
            match std::str::from_utf8(line) {
                Ok(text) => self.lines(std::iter::once(text), &mut Sink::default())?,
                Err(error) => {
                    let at = error.valid_up_to();
                    let reason = format!("the line is not UTF-8 at byte {at}");
                    let index = self.next_index()?;
                    let fault = Fault::new(ErrorCode::InvalidJson, reason);
                    self.reject(line.trim_ascii(), index, None, fault);
                }
            }
        }
        Ok(())
    }

    /// The object that comes next in `scan`, its members in `sink`.
    #[inline]
    fn scan_event<'a>(
        &self,
        scan: &mut Scan<'a>,
        sink: &mut Sink<'a>,
    ) -> Result<Scanned<'a>, Flaw> {
        sink.parts.top.clear();
        sink.parts.data.clear();
        let start = scan.at();
        match scan.object(self.depth_max, &mut sink.parts) {
            Ok(()) => Ok(Scanned::Event(scan.since(start))),
            Err(Flaw::TooDeep) => {
                scan.skip_blindly(start)?;
                Ok(Scanned::TooDeep(scan.since(start)))
            }
            Err(flaw) => Err(flaw),
        }
    }

    /// Takes or refuses the event whose members are in `sink`.
    fn event<'a>(
        &mut self,
        event: Scanned<'a>,
        batch_id: Option<&str>,
        batch_index: u32,
        sink: &mut Sink<'a>,
    ) -> Result<(), BodyError> {
        let index = self.next_index()?;
        let (Scanned::Event(raw) | Scanned::TooDeep(raw)) = event;
        let start = raw.as_ptr().addr() - self.source;
        let place = Place { index, batch_id, batch_index, came: start..start + raw.len() };
        let taken = self.check(event, sink).and_then(|()| {
            let context = (self.arrival, self.limits);
            match normalize::read(raw, &sink.parts, context, &mut sink.cells)? {
                Some(row) => self.groups.push(&row, &sink.cells, place),
                None => Ok(()),
            }
        });
        if let Err(fault) = taken {
            let in_batch = batch_id.map(|batch_id| (batch_id, batch_index));
            self.reject(raw.as_bytes(), index, in_batch, fault);
        }
        Ok(())
    }

    fn check(&self, event: Scanned<'_>, sink: &Sink<'_>) -> Result<(), Fault> {
        let raw = match event {
            Scanned::Event(raw) => raw,
            Scanned::TooDeep(_) => {
                let reason = format!("the event is nested deeper than {} levels", self.depth_max);
                return Err(Fault::new(ErrorCode::TooDeep, reason));
            }
        };
        if raw.len() > self.limits.event_bytes_max {
            let (length, most) = (raw.len(), self.limits.event_bytes_max);
            let reason = format!("the event has {length} bytes, at most {most} are allowed");
            return Err(Fault::new(ErrorCode::EventTooLarge, reason));
        }
        let is_cloud_event =
            || sink.parts.top.iter().any(|member| slot(member.name) == Some(names::SPEC_VERSION));
        let is_other = || normalize::is_among_cloud_events(&sink.parts);
        if self.needs_spec_version && !is_cloud_event() && !is_other() {
            let reason = "a CloudEvent needs `specversion` \"1.0\"";
            return Err(Fault::new(ErrorCode::InvalidEvent, reason));
        }
        Ok(())
    }

    /// Counts an event.
    #[inline]
    fn next_index(&mut self) -> Result<u32, BodyError> {
        let index = self.received;
        if index as usize >= self.limits.batch_events_max {
            let most = self.limits.batch_events_max;
            return Err(BodyError::new(
                ErrorCode::BodyTooLarge,
                format!("the body has more than {most} events; send them in several requests"),
            ));
        }
        self.received += 1;
        Ok(index)
    }

    #[cold]
    fn reject(&mut self, event: &[u8], index: u32, in_batch: Option<(&str, u32)>, fault: Fault) {
        let (payload, reason) = letter::keep(event, fault.reason);
        let glimpse = std::str::from_utf8(event).map(normalize::glimpse).unwrap_or_default();
        let own = glimpse.namespace.as_deref().and_then(|text| Namespace::parse(text).ok());
        let namespace = own.unwrap_or_else(|| self.arrival.namespace.clone());
        // The id that it would have had, so that it is the same event when it is sent again.
        let in_batch = in_batch.map(|(batch_id, index)| id_in_batch(&namespace, batch_id, index));
        self.rejected.push(Rejected {
            index,
            namespace,
            code: fault.code,
            reason,
            id: glimpse.id.or(in_batch),
            event_type: glimpse.event_type,
            source: glimpse.source,
            payload,
        });
    }
}

/// The text of an event, its members read or not.
#[derive(Clone, Copy, Debug)]
enum Scanned<'a> {
    Event(&'a str),
    TooDeep(&'a str),
}

fn not_an_object() -> Fault {
    Fault::new(ErrorCode::InvalidEvent, "an event must be a JSON object")
}

#[cold]
fn broken(text: &str, flaw: Flaw) -> BodyError {
    match flaw {
        Flaw::Syntax(at) if at >= text.len() => {
            BodyError::new(ErrorCode::InvalidJson, "the JSON ends too early")
        }
        Flaw::Syntax(at) => {
            let start = text.floor_char_boundary(at);
            let near: String = text[start..].chars().take(20).collect();
            BodyError::new(
                ErrorCode::InvalidJson,
                format!("the JSON is broken at byte {at}, near {near:?}"),
            )
        }
        Flaw::TooDeep => BodyError::new(ErrorCode::TooDeep, "the JSON is nested too deep"),
    }
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        Self { code: error.code, reason: error.reason }
    }
}

#[cfg(test)]
mod tests;
