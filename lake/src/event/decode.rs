//! A body's bytes to rows: finds the events in each format and hands each to `normalize`.
//!
//! Every event of a sound body ends up accepted or rejected, in body order.

mod batch;
mod converted;
mod fault;
pub mod file_ids;
pub(in crate::event) mod take;
mod values;

use crate::event::{
    BodyError, BodyFormat, DecodedBody, EventLimits, RejectedEvent, RequestContext, SourceBytes,
    avro,
    build::NamespaceBuilders,
    cloud,
    json::{EventParts, JsonError, JsonKind, JsonScanner, NESTING_MAX},
    names,
    normalize::{CellValue, EventFault},
};
use batch::{
    BRANCH_OF_ALL, BatchMembers, BatchSigns, batch_id_of, batch_members, check_batch_id, guess,
    is_call_list, is_changefeed, is_tombstone, look_ahead, rest_of_batch, slot,
};
use converted::ConvertedTexts;
use fault::{broken, not_an_object, not_utf8, other_encoding};
use icecore_schemas::error_code::ErrorCode;
use std::{collections::HashMap, sync::Arc};
use take::EventText;

/// Decodes a whole body, already decompressed, and returns its events and the `batchId` of a body
/// `{"events":[…],"batchId"}`.
///
/// In JSON, an object with an array `events` and without a member of an event, such as `type` or `op`,
/// is a batch; any other object is one event. An event with a member `specversion` is a CloudEvent in
/// every format. With [`RequestContext::cloud_event`] the body is the `data` of one CloudEvent whatever
/// the format says.
///
/// # Errors
/// [`BodyError`] when there are no events to be found: broken JSON around them, a wrong Avro
/// header, more events than allowed. A broken event inside a sound body is a
/// [`crate::event::RejectedEvent`] instead.
pub fn decode(
    body: &[u8],
    format: BodyFormat,
    arrival: &RequestContext,
    limits: &EventLimits,
) -> Result<(DecodedBody, Option<String>), BodyError> {
    let mut reading = ReadMode::Guess;
    loop {
        match decode_body(body, format, arrival, limits, reading) {
            Ok(decoded) => return Ok(decoded),
            Err(PassEnd::Body(error)) => return Err(error),
            Err(PassEnd::Again(next)) => {
                assert!(next != reading, "each way of reading leads to another one or none");
                reading = next;
            }
        }
    }
}

/// How a body's first object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadMode {
    /// It may be a batch; its id, where that comes last, is guessed.
    Guess,
    /// It may be a batch, and is looked through for its id first.
    LookAhead,
    /// It is an event.
    Event,
}

/// Why a pass ends early.
enum PassEnd {
    Body(BodyError),
    /// What was thought of the body was wrong: once more.
    Again(ReadMode),
}

impl From<BodyError> for PassEnd {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

fn decode_body(
    body: &[u8],
    format: BodyFormat,
    arrival: &RequestContext,
    limits: &EventLimits,
    reading: ReadMode,
) -> Result<(DecodedBody, Option<String>), PassEnd> {
    let mut pass = DecodePass::new(body, arrival, limits, reading);
    let whole = body;
    let body = body.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(body);
    let mut made = ConvertedTexts::default();
    let mut batch_id = None;
    let mut sink = EventBuffers::default();
    if !arrival.cloud_event.is_empty() {
        let (text, fault) = cloud::event_text(whole, &arrival.cloud_event);
        made = ConvertedTexts::of(&[text]);
        pass.source = made.text.as_ptr().addr();
        match fault {
            Some(fault) => {
                let index = pass.next_index()?;
                pass.reject(made.text.as_bytes(), index, None, fault);
            }
            None => pass.lines(made.texts(), &mut sink)?,
        }
    } else if format == BodyFormat::Avro {
        made = ConvertedTexts::of(&avro::events(body, limits)?);
        pass.source = made.text.as_ptr().addr();
        pass.lines(made.texts(), &mut sink)?;
    } else {
        if let Some(known) = other_encoding(body) {
            return Err(BodyError::new(ErrorCode::InvalidJson, known).into());
        }
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(_) if format == BodyFormat::Ndjson => "",
            Err(error) => return Err(not_utf8(error.valid_up_to()).into()),
        };
        pass.needs_spec_version =
            matches!(format, BodyFormat::CloudEvent | BodyFormat::CloudEventBatch);
        match format {
            BodyFormat::Ndjson if text.is_empty() => pass.broken_lines(body)?,
            BodyFormat::Ndjson => pass.lines(text.split('\n'), &mut sink)?,
            BodyFormat::JsonSequence => pass.values(text, &mut sink)?,
            _ => batch_id = pass.json(text, &mut sink)?,
        }
    }
    let (redacted, shared) = (pass.redacted, pass.shared_of);
    let decoded = DecodedBody {
        received: pass.received as usize,
        copied: pass.copied,
        accepted: pass.groups.finish(),
        rejected: pass.rejected,
        source: SourceBytes { bytes: made.text.into(), redacted, shared },
        is_webhook: false,
        branch: pass.branch,
    };
    Ok((decoded, batch_id))
}

/// How some systems begin a file of UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Buffers of the event at hand, kept from one event to the next.
#[derive(Default)]
struct EventBuffers<'a> {
    parts: EventParts<'a>,
    cells: Vec<(u16, CellValue<'a>)>,
}

/// One way through a body.
struct DecodePass<'r> {
    arrival: &'r RequestContext,
    limits: &'r EventLimits,
    depth_max: usize,
    reading: ReadMode,
    needs_spec_version: bool,
    body: &'r [u8],
    /// Whether the body may have events of a Tail Worker, once somebody asked.
    is_trace_body: Option<bool>,
    /// Events without their credentials, by their place in the body.
    redacted: HashMap<u32, String>,
    /// In a batch of calls, what it has for all of them; mostly nothing, the empty text.
    shared: Option<Arc<str>>,
    /// The events that got it, by their place in the body.
    shared_of: HashMap<u32, Arc<str>>,
    /// Where the bytes of all events begin.
    source: usize,
    received: u32,
    /// Bytes of copies, see [`take::COPIED_BYTES_MAX`].
    copied: usize,
    groups: NamespaceBuilders<'r>,
    rejected: Vec<RejectedEvent>,
    /// The branch that the batch names.
    branch: Option<String>,
}

impl<'r> DecodePass<'r> {
    fn new(
        body: &'r [u8],
        arrival: &'r RequestContext,
        limits: &'r EventLimits,
        reading: ReadMode,
    ) -> Self {
        Self {
            body,
            is_trace_body: None,
            shared: None,
            shared_of: HashMap::new(),
            arrival,
            limits,
            depth_max: limits.depth_max.min(NESTING_MAX),
            reading,
            needs_spec_version: false,
            source: body.as_ptr().addr(),
            redacted: HashMap::new(),
            received: 0,
            copied: 0,
            groups: NamespaceBuilders::new(arrival),
            rejected: Vec::new(),
            branch: None,
        }
    }

    /// A body of one JSON text; returns its batch id.
    fn json<'a>(
        &mut self,
        text: &'a str,
        sink: &mut EventBuffers<'a>,
    ) -> Result<Option<String>, PassEnd> {
        let broken = |flaw| PassEnd::Body(broken(text, flaw));
        let mut scan = JsonScanner::new(text);
        match scan.peek() {
            None => Err(BodyError::new(ErrorCode::InvalidRequest, "the body is empty").into()),
            Some(b'[') => {
                self.array(&mut scan, text, None, sink)?;
                self.rest(&scan, text, sink)?;
                Ok(None)
            }
            Some(b'{') => {
                if self.reading != ReadMode::Event
                    && let Some(batch_id) = self.batch(text, sink)?
                {
                    return Ok(batch_id);
                }
                let event = self.scan_event(&mut scan, sink).map_err(broken)?;
                self.event(event, None, 0, sink)?;
                self.rest(&scan, text, sink)?;
                Ok(None)
            }
            Some(b'n') if is_tombstone(text) => {
                self.next_index()?;
                Ok(None)
            }
            Some(_) => Err(BodyError::new(
                ErrorCode::InvalidJson,
                "the body must be JSON (Content-Type: application/json): an event, an array of events or {\"events\":[…]}",
            )
            .into()),
        }
    }

    /// A batch, event by event, and its id; none when the text turns out to be no batch, before
    /// anything was taken from it.
    fn batch<'a>(
        &mut self,
        text: &'a str,
        sink: &mut EventBuffers<'a>,
    ) -> Result<Option<Option<String>>, PassEnd> {
        let broken = |flaw| PassEnd::Body(broken(text, flaw));
        let mut scan = JsonScanner::new(text);
        scan.expect(b'{').map_err(broken)?;
        let mut batch_id = None;
        let mut signs = BatchSigns::default();
        if scan.take(b'}') {
            return Ok(None);
        }
        loop {
            let name = scan.name().map_err(broken)?;
            scan.expect(b':').map_err(broken)?;
            signs.add(name, scan.rest());
            match slot(name) {
                _ if signs.is_event => return Ok(None),
                Some(names::EVENT_LIST) if scan.peek() == Some(b'[') => {
                    if is_call_list(name) && !self.is_call_batch(text) {
                        return Ok(None);
                    }
                    break;
                }
                Some(names::WRAPPED) if scan.peek() == Some(b'[') && is_changefeed(text) => break,
                Some(names::BATCH_ID) => {
                    batch_id = batch_id_of(scan.value(self.depth_max).map_err(broken)?);
                }
                // A single event may be too deep: that is for its own scan to find.
                _ => match scan.value(self.depth_max) {
                    Err(JsonError::TooDeep) => return Ok(None),
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
            batch_id = match self.reading {
                ReadMode::LookAhead => look_ahead(scan.clone()),
                _ => guess(text),
            };
        }
        let before = self.received;
        // One that is too long is told once it is sure that this is a batch.
        let fault = check_batch_id(batch_id.as_deref()).err();
        let start = scan.at();
        self.array(&mut scan, text, batch_id.as_deref().filter(|_| fault.is_none()), sink)?;
        let list = scan.since(start);
        self.shared = None;
        let rest = rest_of_batch(&mut scan, signs).map_err(broken)?;
        if rest.signs.are_of_event(self.received == before) && !is_changefeed(text) {
            return Err(PassEnd::Again(ReadMode::Event));
        }
        if !is_known && rest.batch_id != batch_id {
            return Err(PassEnd::Again(ReadMode::LookAhead));
        }
        let namespace = self.arrival.namespace.text();
        if let Some(reason) = fault.or_else(|| rest.signs.check(list, namespace).err()) {
            return Err(BodyError::new(ErrorCode::InvalidRequest, reason).into());
        }
        self.branch = rest.signs.branch();
        let received = self.received;
        self.rest(&scan, text, sink)?;
        if received != self.received && rest.signs.check_line().is_err() {
            return Err(BodyError::new(ErrorCode::InvalidRequest, BRANCH_OF_ALL).into());
        }
        Ok(Some(batch_id))
    }

    /// An array of events.
    fn array<'a>(
        &mut self,
        scan: &mut JsonScanner<'a>,
        text: &str,
        batch_id: Option<&str>,
        sink: &mut EventBuffers<'a>,
    ) -> Result<(), PassEnd> {
        let broken = |flaw| PassEnd::Body(broken(text, flaw));
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
                    Err(JsonError::TooDeep) => scan.skip_blindly(start).map_err(broken)?,
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
        sink: &mut EventBuffers<'a>,
    ) -> Result<(), PassEnd> {
        for line in lines {
            // Files that were put one after another have their marks in the middle.
            let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
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
    fn line<'a>(&mut self, line: &'a str, sink: &mut EventBuffers<'a>) -> Result<(), PassEnd> {
        let refuse = |pass: &mut Self, fault| {
            let index = pass.next_index()?;
            pass.reject(line.as_bytes(), index, None, fault);
            Ok(())
        };
        let mut scan = JsonScanner::new(line);
        if scan.peek() != Some(b'{') {
            let whole = scan.value(NESTING_MAX).and_then(|value| scan.end().map(|()| value));
            return match whole {
                Ok(value) if value.kind == JsonKind::Array => {
                    self.array(&mut JsonScanner::new(value.raw), line, None, sink)
                }
                Ok(_) => refuse(self, not_an_object()),
                Err(_) if values::are_several(line) => self.values(line, sink),
                Err(flaw) => refuse(self, broken(line, flaw).into()),
            };
        }
        let mut event = match self.scan_event(&mut scan, sink) {
            Ok(event) => event,
            Err(flaw) => return refuse(self, broken(line, flaw).into()),
        };
        if let Err(flaw) = scan.end() {
            return match values::are_several(line) {
                true => self.values(line, sink),
                false => refuse(self, broken(line, flaw).into()),
            };
        }
        if let EventText::TooDeep(_) = event {
            // It may be a batch with an event that is too deep.
            sink.parts.top.clear();
            let whole = JsonScanner::new(line).object(NESTING_MAX, &mut sink.parts);
            if whole.is_ok() && batch_members(&sink.parts.top).is_some() {
                event = EventText::Event(line);
            }
        }
        let members = match event {
            EventText::Event(_) => batch_members(&sink.parts.top),
            EventText::TooDeep(_) => None,
        };
        match members {
            Some(BatchMembers { list, batch_id, is_call_list, signs }) => {
                let namespace = self.arrival.namespace.text();
                let checked = check_batch_id(batch_id.as_deref())
                    .and_then(|()| signs.check(list, namespace))
                    .and_then(|()| signs.check_line());
                if let Err(reason) = checked {
                    return refuse(self, EventFault::new(ErrorCode::InvalidEvent, reason));
                }
                // It may say `main` where the request names another one.
                self.branch = self.branch.take().or_else(|| signs.branch());
                let is_calls = is_call_list && self.is_call_batch(line);
                debug_assert_eq!(is_calls, is_call_list);
                self.array(&mut JsonScanner::new(list), line, batch_id.as_deref(), sink)?;
                self.shared = None;
                Ok(())
            }
            None => Ok(self.event(event, None, 0, sink)?),
        }
    }

    /// Lines that are not all UTF-8.
    fn broken_lines(&mut self, body: &[u8]) -> Result<(), PassEnd> {
        for line in body.split(|byte| *byte == b'\n') {
            match std::str::from_utf8(line) {
                Ok(text) => self.lines(std::iter::once(text), &mut EventBuffers::default())?,
                Err(error) => {
                    let at = error.valid_up_to();
                    let reason = format!("the line is not UTF-8 at byte {at}");
                    let index = self.next_index()?;
                    let fault = EventFault::new(ErrorCode::InvalidJson, reason);
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
        scan: &mut JsonScanner<'a>,
        sink: &mut EventBuffers<'a>,
    ) -> Result<EventText<'a>, JsonError> {
        sink.parts.top.clear();
        sink.parts.data.clear();
        sink.parts.is_in_call_batch = self.shared.is_some();
        let start = scan.at();
        match scan.object(self.depth_max, &mut sink.parts) {
            Ok(()) => Ok(EventText::Event(scan.since(start))),
            Err(JsonError::TooDeep) => {
                scan.skip_blindly(start)?;
                Ok(EventText::TooDeep(scan.since(start)))
            }
            Err(flaw) => Err(flaw),
        }
    }

    /// Counts an event.
    #[inline]
    fn next_index(&mut self) -> Result<u32, BodyError> {
        let index = self.received;
        if index as usize >= self.limits.batch_events_max {
            let most = self.limits.batch_events_max;
            return Err(BodyError::new(
                ErrorCode::TooManyEvents,
                format!("the body has more than {most} events; send them in several requests"),
            ));
        }
        self.received += 1;
        Ok(index)
    }
}

#[cfg(test)]
mod tests;
