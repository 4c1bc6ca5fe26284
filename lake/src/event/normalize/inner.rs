//! The objects inside an event whose members fill columns: `do`, `_meta` and `data`.
//!
//! A member of the event itself always wins over one of these.

use super::EventDraft;
use crate::event::{
    json::{self, JsonValue},
    names::{self, COLUMNS, KnownName},
};

/// The columns that were filled from one object inside the event, with the rank of the name.
#[derive(Debug)]
pub(super) struct NestedColumns([Option<u16>; COLUMNS]);

impl Default for NestedColumns {
    fn default() -> Self {
        Self([None; COLUMNS])
    }
}

impl<'a> EventDraft<'_, 'a> {
    /// Whether the columns hold all of the object.
    pub(super) fn put_durable_object(
        &mut self,
        inner: &mut NestedColumns,
        value: JsonValue<'a>,
    ) -> bool {
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
            kept &= self.put_inner(inner, KnownName { slot: column, rank: 0 }, member.value);
        });
        kept
    }

    /// `_meta` keeps its text, so what does not fit a column is not lost.
    pub(super) fn meta(&mut self) {
        let Some(value) = self.value(names::META) else { return };
        let mut inner = NestedColumns::default();
        json::each_member(value, |member| {
            if let Some(known) = self.known(&member)
                && [names::SCHEMA_VERSION, names::SOURCE, names::RETRIES].contains(&known.slot)
            {
                self.put_inner(&mut inner, known, member.value);
            }
        });
    }

    /// `data` keeps its text, so what does not fit a column is not lost.
    pub(super) fn described_in_data(&mut self, event_type: &str) {
        let is_change = event_type.starts_with("cdc.") && !self.is_filled(names::OP);
        let data = self.data;
        let mut inner = NestedColumns::default();
        let mut inner_object = NestedColumns::default();
        for member in data {
            let Some(known) = self.known(member) else { continue };
            match known.slot {
                names::DO => {
                    self.put_durable_object(&mut inner_object, member.value);
                }
                names::NAMESPACE if event_type.starts_with("rpc.") => {
                    let known = KnownName { slot: names::RPC_NAMESPACE, rank: u16::MAX };
                    self.put_inner(&mut inner, known, member.value);
                }
                names::CODE if event_type == "ws.close" => {
                    let known = KnownName { slot: names::CLOSE_CODE, rank: u16::MAX };
                    self.put_inner(&mut inner, known, member.value);
                }
                slot if slot < COLUMNS
                    && (names::is_found_in_data(slot) || (is_change && names::is_change(slot))) =>
                {
                    self.put_inner(&mut inner, known, member.value);
                }
                _ => {}
            }
        }
    }

    /// As [`Self::put_if_it_fits`], for a member of an object inside the event. Of several names for
    /// one column the same one wins as in the event, and of one name the last.
    fn put_inner(
        &mut self,
        inner: &mut NestedColumns,
        known: KnownName,
        value: JsonValue<'a>,
    ) -> bool {
        let column = known.slot;
        if self.is_filled(column) {
            match inner.0[column] {
                Some(rank) if known.rank <= rank => self.take_back(column),
                _ => return false,
            }
        }
        let is_kept = self.put_if_it_fits(column, value);
        if self.is_filled(column) {
            inner.0[column] = Some(known.rank);
        }
        is_kept
    }

    fn take_back(&mut self, column: usize) {
        self.filled.remove(column);
        self.cells.retain(|(other, _)| usize::from(*other) != column);
    }
}
