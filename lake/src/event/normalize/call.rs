//! Calls of the analytics libraries of Segment and RudderStack: `track`, `identify`, `page`,
//! `screen`, `group`, `alias`.
//!
//! A call is known by its `messageId`, however often the library sends it: what it says of the
//! sending is no content. `properties` or `traits` are its `data`.

use super::{CellValue, EventDraft, find, identifier};
use crate::event::{
    json::{self, JsonKind, JsonMember, JsonValue},
    names, time,
};
use std::borrow::Cow;

/// The types of calls.
const TYPES: [&str; 6] =
    ["\"track\"", "\"identify\"", "\"page\"", "\"screen\"", "\"group\"", "\"alias\""];

/// Members that say when a call was sent and received: the server between may change the time of
/// the event by these, too.
const OF_SENDING: [&str; 4] =
    ["\"sentAt\"", "\"receivedAt\"", "\"timestamp\"", "\"originalTimestamp\""];

/// What a call says where the event itself says nothing.
#[derive(Debug)]
pub(super) struct AnalyticsCall<'a> {
    /// Its type, where that is missing.
    pub(super) event_type: Option<&'static str>,
    /// Its `messageId`.
    pub(super) id: Option<String>,
    /// Its `originalTimestamp`.
    pub(super) ts: Option<JsonValue<'a>>,
    /// Its `properties` or `traits`.
    pub(super) data: Option<JsonValue<'a>>,
}

impl<'m, 'a> EventDraft<'m, 'a> {
    /// Takes what the call says for what the event itself does not say; `data` are the members of
    /// the call's data.
    pub(super) fn take_call(&mut self, call: AnalyticsCall<'a>, data: &'m [JsonMember<'a>]) {
        self.change.event_type = call.event_type;
        self.change.id = call.id;
        self.change.ts = call.ts;
        if let Some(value) = call.data
            && !self.has(names::DATA)
        {
            self.put(names::DATA, CellValue::Text(Cow::Borrowed(value.raw)));
            self.data = data;
        }
    }

    /// The call that this event is, if it is one.
    pub(super) fn call(&self, is_in_batch: bool) -> Option<AnalyticsCall<'a>> {
        // Whatever a call has that makes it one is no column.
        if !self.is_lossy || self.has(names::SPEC_VERSION) {
            return None;
        }
        let event_type = match self.value(names::TYPE) {
            Some(value) if is_in_batch || TYPES.contains(&value.raw) => None,
            Some(_) => return None,
            None => Some(self.type_of_call()?),
        };
        let message = find(self.top, "messageId").and_then(identifier);
        let data = ["properties", "traits"].into_iter().find_map(|name| find(self.top, name));
        if message.is_none() && data.is_none() {
            return None;
        }
        let ts = find(self.top, "originalTimestamp").filter(|value| time::parse(*value).is_some());
        Some(AnalyticsCall { event_type, id: message.map(Cow::into_owned), ts, data })
    }

    /// The type of a call that does not say it, as those to an address of its own for each type.
    fn type_of_call(&self) -> Option<&'static str> {
        let has = |name| find(self.top, name).is_some();
        let is_somebody = self.value(names::column("user_id")).is_some()
            || self.value(names::column("anonymous_id")).is_some();
        let event = self.value(names::column("event"));
        match (event, is_somebody) {
            (Some(event), true) if matches!(event.kind, JsonKind::Plain | JsonKind::Escaped) => {
                Some("track")
            }
            (None, true) if has("previousId") => Some("alias"),
            (None, true) if has("groupId") => Some("group"),
            (None, true) if has("traits") => Some("identify"),
            _ => None,
        }
    }
}

/// The members of a call that are content.
pub(super) fn content<'a>(members: &[JsonMember<'a>]) -> Vec<JsonMember<'a>> {
    members.iter().filter(|member| !OF_SENDING.contains(&member.name.raw)).copied().collect()
}

/// The members of the call's `data`.
pub(super) fn data<'a>(call: &AnalyticsCall<'a>) -> Vec<JsonMember<'a>> {
    call.data.map(json::members_of).unwrap_or_default()
}
