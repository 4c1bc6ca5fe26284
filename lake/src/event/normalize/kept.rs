//! An event that `icecore wal export` took from another log, where it was kept whole.
//!
//! Its members are the columns that it had there, and one more is its text as it came. The row is the
//! one that it was, and it is known by what its text is known by: whichever of it and the event itself
//! is sent again is a repeat.

use super::{CellValue, EventDraft, EventFault, EventRow, content, is_cloud_event, read};
use crate::event::{
    EventLimits, RequestContext,
    json::{self, EventParts, JsonScanner},
    names, webhook,
};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_64;

impl<'a> EventDraft<'_, 'a> {
    /// The text as it came. An export has columns beside it and nothing else, so with members that
    /// nobody knows it is the sender's own member.
    pub(super) fn kept_text(&self) -> Option<Cow<'a, str>> {
        let text = self.value(names::KEPT_EVENT).filter(|_| !self.is_lossy)?.text()?;
        let is_whole = self.is_delivery() || text.trim_start().starts_with('{');
        is_whole.then_some(text)
    }

    fn is_delivery(&self) -> bool {
        let event_type = self.value(names::TYPE).and_then(|value| value.text());
        event_type.is_some_and(|text| webhook::is_delivery(&text))
    }

    pub(super) fn kept(
        mut self,
        text: Cow<'a, str>,
        arrival: &RequestContext,
        limits: &EventLimits,
    ) -> Result<EventRow<'a>, EventFault> {
        let content = content_of(&text, arrival, limits);
        // As the rows of a table are known that are read again.
        let source = || self.value(names::SOURCE)?.text().map(Cow::into_owned);
        let cloud_source = is_cloud_event(&text).then(|| source().unwrap_or_default());
        let is_delivery = self.is_delivery();
        self.put(names::PAYLOAD, CellValue::Text(text));
        let row = self.finish(arrival, limits)?;
        let content = match &row.id {
            Some(id) if is_delivery => webhook::content(id),
            _ => content,
        };
        Ok(EventRow { content, cloud_source, former: None, ..row })
    }
}

/// What the text says, as a number.
fn content_of(text: &str, arrival: &RequestContext, limits: &EventLimits) -> u64 {
    let mut parts = EventParts::default();
    if JsonScanner::new(text).object(json::NESTING_MAX, &mut parts).is_err() {
        return xxh3_64(text.as_bytes()).max(1);
    }
    // It was let in when it came.
    let limits = EventLimits { ts_past_us: None, ..limits.clone() };
    match read(text, &parts, arrival, &limits, &mut Vec::new()) {
        Ok(Some(row)) => row.content,
        _ => content(&parts.top),
    }
}
