//! Events as two event buses deliver them over HTTP: AWS EventBridge, and Azure Event Grid in its own
//! schema. They call type, time and data by other names, and their types are any text.
//!
//! Source: "Event structure" of EventBridge's reference, "Event Grid event schema" of Azure's.

use super::{EventDraft, find};
use crate::event::{
    json::{JsonKind, JsonMember, JsonValue},
    names,
};

/// What EventBridge adds to an event that it sends again out of an archive.
const REPLAY_NAME: &str = "\"replay-name\"";

impl<'m, 'a> EventDraft<'m, 'a> {
    /// Takes an event of a bus as what it is; its data, if that stands under another name.
    pub(super) fn bus_event(&mut self) -> Option<Option<JsonValue<'a>>> {
        if self.has(names::SPEC_VERSION) {
            return None;
        }
        if let (Some(name), Some(detail)) = (self.number("detail-type"), self.number("detail"))
            && self.is_text(name)
            && self.value(names::SOURCE).is_some()
            && self.value(names::TIME).is_some()
        {
            self.point(names::TYPE, name);
            self.point(names::TS, self.member[names::TIME] as usize);
            self.forget(names::TIME);
            self.point(names::DATA, detail);
            // It is the envelope's, and not one of what the event is about.
            self.forget(names::column("version"));
            self.has_free_type = true;
            let data = self.top[detail].value;
            return Some(Some(data).filter(|data| data.kind == JsonKind::Object));
        }
        let name = self.has(names::EVENT_TYPE).then(|| self.member[names::EVENT_TYPE] as usize)?;
        let time = self.number("eventTime")?;
        let is_grid = find(self.top, "subject").is_some() && self.has(names::DATA);
        if !is_grid || !self.is_text(name) || self.value(names::ID).is_none() {
            return None;
        }
        self.point(names::TYPE, name);
        if !self.has(names::TS) {
            self.point(names::TS, time);
        }
        if let Some(topic) = self.number("topic")
            && !self.has(names::SOURCE)
        {
            self.point(names::SOURCE, topic);
        }
        self.has_free_type = true;
        Some(None)
    }

    /// The number of the member with this name.
    fn number(&self, name: &str) -> Option<usize> {
        let is = |member: &JsonMember<'_>| {
            member.name.raw.get(1..member.name.raw.len() - 1) == Some(name)
        };
        self.top.iter().rposition(is)
    }

    fn is_text(&self, number: usize) -> bool {
        self.top[number].value.text().is_some_and(|text| !text.is_empty())
    }

    /// Lets a slot mean another member.
    fn point(&mut self, slot: usize, number: usize) {
        self.present.add(slot);
        self.member[slot] = number as u32;
    }
}

/// The members of an event that are content.
pub(super) fn content<'a>(members: &[JsonMember<'a>]) -> Vec<JsonMember<'a>> {
    members.iter().filter(|member| member.name.raw != REPLAY_NAME).copied().collect()
}
