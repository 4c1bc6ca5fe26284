//! What can still be read of an event that is refused, for its dead letter.

use super::{CellValue, EventDraft, convert};
use crate::event::{
    json::{self, EventParts},
    names,
};
use std::borrow::Cow;

/// What can be said of an event that is refused.
#[derive(Debug, Default)]
pub(crate) struct SalvagedFields {
    pub(crate) id: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) source: Option<String>,
}

/// What can be read of an event that is refused.
pub(crate) fn salvage(raw: &str) -> SalvagedFields {
    let mut parts = EventParts::default();
    // A broken event still shows the members before the break.
    let _broken = json::JsonScanner::new(raw).object(json::NESTING_MAX, &mut parts);
    let mut cells = Vec::new();
    let draft = EventDraft::new(raw, &parts.top, &parts.data, &mut cells, names::COLUMNS);
    let text = |slot| {
        let value = draft.value(slot)?;
        match convert(slot, value) {
            Some(CellValue::Text(text)) => Some(text.into_owned()),
            _ => None,
        }
    };
    let meta = || draft.value(names::META).map(json::members_of).unwrap_or_default();
    let meta_source = || {
        let source = meta().into_iter().find(|member| member.name.raw == "\"source\"")?;
        source.value.text().map(Cow::into_owned)
    };
    SalvagedFields {
        id: draft.value(names::ID).and_then(super::identifier).map(Cow::into_owned),
        namespace: text(names::NS),
        event_type: text(names::TYPE),
        source: text(names::SOURCE).or_else(meta_source),
    }
}

/// The sender's retry count, where it can be read.
pub(crate) fn retries(raw: &str) -> Option<i32> {
    let mut parts = EventParts::default();
    // As in `salvage`.
    let _broken = json::JsonScanner::new(raw).object(json::NESTING_MAX, &mut parts);
    let mut cells = Vec::new();
    let mut draft = EventDraft::new(raw, &parts.top, &parts.data, &mut cells, names::COLUMNS);
    if let Some(value) = draft.value(names::RETRIES) {
        draft.put_if_it_fits(names::RETRIES, value);
    }
    draft.meta();
    cells.iter().find_map(|(slot, cell)| match cell {
        CellValue::Long(retries) if usize::from(*slot) == names::RETRIES => {
            i32::try_from(*retries).ok()
        }
        _ => None,
    })
}
