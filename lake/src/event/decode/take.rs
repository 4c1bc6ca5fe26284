//! One event is taken or refused, once its members are known.
//!
//! An event may be read a second time with another text: without its credentials, or with what a
//! batch of calls says of all of them.

use super::{DecodePass, EventBuffers};
use crate::event::{
    BodyError, MERGE_BEGUN, MERGE_COMPLETED, MERGE_ID, RejectedEvent,
    build::{EventPlace, id_in_batch},
    dead_letter,
    decode::batch::{batch_members, slot},
    json::JsonScanner,
    names,
    normalize::{self, EventFault, EventRow},
    redact,
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};
use std::sync::Arc;

/// The member that a batch of calls may have for all of its calls.
const SHARED_NAME: &str = "\"context\"";

/// An event with what its batch has for all of its events.
pub(in crate::event) fn with_shared(event: &str, shared: &str) -> String {
    let open = event.strip_suffix('}').expect("an object ends with its brace").trim_ascii_end();
    let comma = if open == "{" { "" } else { "," };
    format!("{open}{comma}{SHARED_NAME}:{shared}}}")
}

/// Most bytes of a body that are copies of what it says once for all of its events: the `context`
/// and the id of a batch, the request's correlation id. A few bytes may ask for any number of them.
pub(super) const COPIED_BYTES_MAX: usize = 32 << 20;

/// An event that another log kept whole comes as its columns and its text, in which each quote has a
/// backslash.
const KEPT_TIMES: usize = 4;

/// Digits of an id behind [`MERGE_ID`].
const MERGE_DIGITS: usize = 16;

fn is_merge_id(id: &str) -> bool {
    let Some((digits, rest)) =
        id.strip_prefix(MERGE_ID).and_then(|id| id.split_at_checked(MERGE_DIGITS))
    else {
        return false;
    };
    let is_mark = rest.ends_with(MERGE_BEGUN) || rest.ends_with(MERGE_COMPLETED);
    is_mark && rest.starts_with('-') && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cold]
fn merge_id() -> EventFault {
    let reason = "an `id` of `merge-` and 16 hexadecimal digits with `-begun` or `-completed` at its end tells of a merge of branches; send another `id`";
    EventFault::new(ErrorCode::InvalidEvent, reason)
}

/// The text of an event, its members read or not.
#[derive(Clone, Copy, Debug)]
pub(super) enum EventText<'a> {
    Event(&'a str),
    TooDeep(&'a str),
}

impl DecodePass<'_> {
    /// Takes or refuses the event whose members are in `sink`.
    pub(super) fn event<'a>(
        &mut self,
        event: EventText<'a>,
        batch_id: Option<&str>,
        batch_index: u32,
        sink: &mut EventBuffers<'a>,
    ) -> Result<(), BodyError> {
        let index = self.next_index()?;
        let (EventText::Event(raw) | EventText::TooDeep(raw)) = event;
        let start = raw.as_ptr().addr() - self.source;
        let place = EventPlace { index, batch_id, batch_index, came: start..start + raw.len() };
        let in_batch = batch_id.or_else(|| self.arrival.batch_id());
        let ids = [in_batch, self.arrival.correlation_id.as_deref()];
        self.count_copied(ids.into_iter().flatten().map(str::len).sum())?;
        if let Err(fault) = self.check(event, sink) {
            self.refuse(raw, &place, fault);
            return Ok(());
        }
        if self.lacks_shared(sink) {
            return self.take_with_shared(raw, &place);
        }
        match self.read(raw, sink) {
            // Nothing to store.
            Ok(None) => {}
            Ok(Some(row)) => self.take(raw, &row, sink, &place),
            Err(fault) => self.refuse(raw, &place, fault),
        }
        Ok(())
    }

    #[inline]
    fn read<'a>(
        &self,
        raw: &'a str,
        sink: &mut EventBuffers<'a>,
    ) -> Result<Option<EventRow<'a>>, EventFault> {
        normalize::read(raw, &sink.parts, self.arrival, self.limits, &mut sink.cells)
    }

    #[inline]
    fn take(
        &mut self,
        raw: &str,
        row: &EventRow<'_>,
        sink: &EventBuffers<'_>,
        place: &EventPlace<'_>,
    ) {
        if row.is_trace
            && self.limits.redact
            && let Some(text) = redact::redact(raw)
        {
            return self.take_redacted(&text, place);
        }
        self.store(raw, row, sink, place);
    }

    #[inline]
    fn store(
        &mut self,
        raw: &str,
        row: &EventRow<'_>,
        sink: &EventBuffers<'_>,
        place: &EventPlace<'_>,
    ) {
        if !self.limits.takes_merge_ids && row.id.as_deref().is_some_and(is_merge_id) {
            return self.refuse(raw, place, merge_id());
        }
        if let Err(fault) = self.groups.push(row, &sink.cells, place.clone()) {
            self.refuse(raw, place, fault);
        }
    }

    /// Reads the event in another text than it came in.
    fn read_again<'a>(
        &self,
        text: &'a str,
        sink: &mut EventBuffers<'a>,
    ) -> Result<Option<EventRow<'a>>, EventFault> {
        sink.parts.is_in_call_batch = self.shared.is_some();
        JsonScanner::new(text)
            .object(self.depth_max, &mut sink.parts)
            .map_err(|flaw| EventFault::from(super::broken(text, flaw)))?;
        self.read(text, sink)
    }

    #[cold]
    fn take_redacted(&mut self, text: &str, place: &EventPlace<'_>) {
        let mut sink = EventBuffers::default();
        match self.read_again(text, &mut sink) {
            Ok(None) => {}
            Ok(Some(row)) => {
                self.redacted.insert(place.index, text.to_owned());
                self.store(text, &row, &sink, place);
            }
            Err(fault) => self.refuse(text, place, fault),
        }
    }

    /// Takes the event with what its batch has for all of its events.
    #[cold]
    fn take_with_shared(&mut self, raw: &str, place: &EventPlace<'_>) -> Result<(), BodyError> {
        let shared = Arc::clone(self.shared.as_ref().expect("an event that lacks it has it here"));
        let length = shared.len();
        if let Err(fault) = self.check_size(raw.len() + length, " with its batch's `context`") {
            self.refuse(raw, place, fault);
            return Ok(());
        }
        self.count_copied(length)?;
        let text = with_shared(raw, &shared);
        let mut sink = EventBuffers::default();
        match self.read_again(&text, &mut sink) {
            Ok(None) => {}
            Ok(Some(row)) => {
                self.shared_of.insert(place.index, shared);
                self.take(&text, &row, &sink, place);
            }
            Err(fault) => self.refuse(&text, place, fault),
        }
        Ok(())
    }

    /// Whether the event's batch has something for all of its events that this one has not.
    fn lacks_shared(&self, sink: &EventBuffers<'_>) -> bool {
        let has_own = || sink.parts.top.iter().any(|member| member.name.raw == SHARED_NAME);
        self.shared.as_deref().is_some_and(|shared| !shared.is_empty()) && !has_own()
    }

    /// Counts what an event has of what is said once for all.
    fn count_copied(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.copied += bytes;
        if self.copied <= COPIED_BYTES_MAX {
            return Ok(());
        }
        let most = COPIED_BYTES_MAX >> 20;
        let reason = format!(
            "the batch's `context`, its `batchId` and `x-correlation-id` are copied to each of its \
             events, which makes more than {most} MiB; send smaller batches"
        );
        Err(BodyError::new(ErrorCode::BodyTooLarge, reason))
    }

    fn check_size(&self, length: usize, with: &str) -> Result<(), EventFault> {
        let most = self.limits.event_bytes_max;
        if length <= most {
            return Ok(());
        }
        let reason = format!("the event has {length} bytes{with}, at most {most} are allowed");
        Err(EventFault::new(ErrorCode::EventTooLarge, reason))
    }

    fn check(&self, event: EventText<'_>, sink: &EventBuffers<'_>) -> Result<(), EventFault> {
        let raw = match event {
            EventText::Event(raw) => raw,
            EventText::TooDeep(_) => {
                let reason = format!("the event is nested deeper than {} levels", self.depth_max);
                return Err(EventFault::new(ErrorCode::TooDeep, reason));
            }
        };
        let has = |wanted| sink.parts.top.iter().any(|member| slot(member.name) == Some(wanted));
        let is_large = self.limits.event_bytes_max < raw.len();
        let times = if is_large && has(names::KEPT_EVENT) { KEPT_TIMES } else { 1 };
        self.check_size(raw.len() / times, "")?;
        let is_cloud_event = || has(names::SPEC_VERSION);
        let is_other = || normalize::is_among_cloud_events(&sink.parts);
        if self.needs_spec_version && !is_cloud_event() && !is_other() {
            let reason = "a CloudEvent needs `specversion` \"1.0\"";
            return Err(EventFault::new(ErrorCode::InvalidEvent, reason));
        }
        Ok(())
    }

    fn refuse(&mut self, raw: &str, place: &EventPlace<'_>, fault: EventFault) {
        let in_batch = place.batch_id.map(|batch_id| (batch_id, place.batch_index));
        self.reject(raw.as_bytes(), place.index, in_batch, fault);
    }

    #[cold]
    pub(super) fn reject(
        &mut self,
        event: &[u8],
        index: u32,
        in_batch: Option<(&str, u32)>,
        fault: EventFault,
    ) {
        let salvage = std::str::from_utf8(event).map(normalize::salvage).unwrap_or_default();
        let (payload, reason) = match self.redacted(event, salvage.event_type.as_deref()) {
            Some(text) => (text, fault.reason),
            None => dead_letter::keep(event, fault.reason),
        };
        let own = salvage.namespace.as_deref().and_then(|text| Namespace::parse(text).ok());
        let namespace = own.unwrap_or_else(|| self.arrival.namespace.clone());
        // The id that it would have had, so that it is the same event when it is sent again.
        let in_batch = in_batch.map(|(batch_id, index)| id_in_batch(&namespace, batch_id, index));
        self.rejected.push(RejectedEvent {
            index,
            namespace,
            kept_in: None,
            code: fault.code,
            actual_version: None,
            reason,
            id: salvage.id.or(in_batch),
            event_type: salvage.event_type,
            source: salvage.source,
            payload,
        });
    }

    /// What is refused without its credentials, if it has any and may be of a Tail Worker.
    fn redacted(&mut self, event: &[u8], event_type: Option<&str>) -> Option<String> {
        if !self.limits.redact {
            return None;
        }
        let text = String::from_utf8_lossy(event);
        let is_trace = match event_type {
            Some(event_type) => redact::is_trace_type(event_type) || redact::has_script(&text),
            // A part of something broken may be anything that is in the body.
            None => self.may_be_trace(),
        };
        if is_trace { redact::redact(&text) } else { None }
    }

    /// Whether the body may have events of a Tail Worker.
    fn may_be_trace(&mut self) -> bool {
        let body = self.body;
        let of_body = || redact::may_be_trace(&String::from_utf8_lossy(body));
        *self.is_trace_body.get_or_insert_with(of_body)
    }

    /// Whether the text is a batch of calls, which no event is; if so, notes what it has for all of
    /// them.
    pub(super) fn is_call_batch(&mut self, text: &str) -> bool {
        let mut sink = EventBuffers::default();
        // A broken batch is found to be one where it is read.
        let _broken = JsonScanner::new(text).object(super::NESTING_MAX, &mut sink.parts);
        let top = &sink.parts.top;
        if batch_members(top).is_none() {
            return false;
        }
        let shared = top.iter().rfind(|member| member.name.raw == SHARED_NAME);
        let shared = shared.map(|member| member.value);
        let shared = shared.filter(|value| value.kind == super::JsonKind::Object);
        self.shared = Some(shared.map_or_else(|| "".into(), |value| value.raw.into()));
        true
    }
}
