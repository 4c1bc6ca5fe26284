//! Rows that Debezium's transformation `ExtractNewRecordState` made of envelopes: the row's columns,
//! and beside them what was asked for of the envelope, as `__op`, `__lsn`, `__source_ts_ms`.
//!
//! All other members are columns of the row, whatever they are called: a column `type` or `id` is no
//! type and no id of an event.

use super::{ChangeOperation, ChangeSource, find, origin::field, time_of};
use crate::event::{
    json::JsonKind,
    names,
    normalize::{CellValue, EventDraft},
};
use std::borrow::Cow;

impl EventDraft<'_, '_> {
    /// Whether this is such a row: nothing else says what was done to it.
    pub(super) fn is_flat_row(&self) -> bool {
        self.has_fields && self.flat_op().is_some()
    }

    /// What was done. A row that is kept with a note that it was not deleted was written, be it for
    /// the first time or not.
    fn flat_op(&self) -> Option<&'static str> {
        let text = |name| find(self.top, name).and_then(|value| value.text());
        let op = text("__op").and_then(|text| match &*text {
            "c" => Some("c"),
            "u" => Some("u"),
            "d" => Some("d"),
            "r" => Some("r"),
            "t" => Some("t"),
            _ => None,
        });
        let deleted = || {
            let value = find(self.top, "__deleted")?;
            match (value.kind, value.raw) {
                (JsonKind::Bool, "true") | (_, "\"true\"") => Some("d"),
                (JsonKind::Bool, _) | (_, "\"false\"") => Some("u"),
                _ => None,
            }
        };
        op.or_else(deleted)
    }

    /// Fills the columns of the change.
    pub(super) fn flat_row(&mut self) {
        self.is_lossy = true;
        let Some(op) = self.flat_op() else { return };
        let origin = ChangeSource::fields(self.top);
        self.present = names::SlotSet::NONE;
        let operation = ChangeOperation { op: super::op(op), text: Cow::Borrowed(op) };
        if let Some(op) = operation.op {
            self.put(names::OP, CellValue::Text(Cow::Borrowed(op)));
            let columns = self.top.iter().filter(|member| field(member).is_none());
            let columns: Vec<&str> = columns.map(|member| member.text).collect();
            let image = if op == "d" { names::BEFORE } else { names::AFTER };
            let row = format!("{{{}}}", columns.join(","));
            self.put(image, CellValue::Text(Cow::Owned(row)));
        }
        self.describe(&origin, &operation);
        self.change.ts = find(self.top, "__ts_ms").or_else(|| time_of(&origin));
        self.change.is_ts_loose = true;
    }
}
