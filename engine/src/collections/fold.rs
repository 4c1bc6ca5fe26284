//! The aggregates over the changes of one document: what it is, what it was, and what is odd about the changes.
//!
//! Rows may come in any order and in any parts: what is kept of a group is a [`Changes`], which is merged by `seq`.

mod columns;

use crate::error::SqlError;
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, LargeBinaryBuilder, ListArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, TimeUnit},
};
use columns::{ChangeColumns, DocumentColumns, anomaly_columns, anomaly_members, members_of};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err, exec_err, plan_err},
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature,
        Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use icecore_lake::collection::changes::Changes;
use std::sync::Arc;

/// The name of the aggregate whose answers are the versions of a document.
pub const DOCUMENT_VERSIONS: &str = "document_versions";
/// The name of the aggregate whose answers are the anomalies among the changes of a document.
const DOCUMENT_ANOMALIES: &str = "document_anomalies";
/// The name of the aggregate whose answer is the document.
pub(super) const FOLD_CHANGES: &str = "fold_changes";

/// The arguments that a change is made of: `seq`, `op`, `ts`, `after`, `patch`, `store`, `actor`, `bookmark`, `id`.
const CHANGE_ARGUMENTS: usize = 9;
/// Those with what a row of a base has besides: `version`, which says that it is one, and `created_at`.
pub(super) const FOLD_ARGUMENTS: usize = CHANGE_ARGUMENTS + 2;
/// Those of a change with what its source said of the state around it: `before`, `lsn`, `version`.
const CLAIMED_ARGUMENTS: usize = CHANGE_ARGUMENTS + 3;
/// Where the time is among them.
const TIME_ARGUMENT: usize = 2;
/// Most versions of one document in an answer: each has the whole document.
const VERSIONS_MAX: usize = 10_000;
/// Most anomalies of one document in an answer, the oldest first.
const ANOMALIES_MAX: usize = 10_000;
/// Most bytes of the versions in an answer beyond those of the changes: a short patch makes a whole document.
const VERSIONS_BYTES_MAX: usize = 64 << 20;
/// How often a text is there: where it is kept, and in the answer.
const COPIES: usize = 2;

/// The document that a base and the changes since make of one key; null where there is none.
#[must_use]
pub fn fold_changes() -> AggregateUDF {
    of_kind(FoldKind::Document)
}

/// The versions that the changes make of one document, as a list.
#[must_use]
pub fn document_versions() -> AggregateUDF {
    of_kind(FoldKind::Versions)
}

/// The anomalies among the changes of one document, as a list.
#[must_use]
pub fn document_anomalies() -> AggregateUDF {
    of_kind(FoldKind::Anomalies)
}

fn of_kind(kind: FoldKind) -> AggregateUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    AggregateUDF::from(ChangeFold { kind, signature })
}

/// What is made of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FoldKind {
    /// The document after them.
    Document,
    /// Each version on the way.
    Versions,
    /// What there is to say of the changes.
    Anomalies,
}

impl FoldKind {
    fn changes(self) -> Changes {
        match self {
            Self::Document => Changes::latest(),
            Self::Versions | Self::Anomalies => Changes::default(),
        }
    }

    /// The members of a document or of an anomaly, in an answer of this type.
    fn members(self, answer: &DataType) -> Result<Fields, DataFusionError> {
        match (self, answer) {
            (Self::Document, DataType::Struct(members)) => Ok(members.clone()),
            (Self::Versions | Self::Anomalies, DataType::List(item)) => match item.data_type() {
                DataType::Struct(members) => Ok(members.clone()),
                other => exec_err!("an item has members, and {other} has none"),
            },
            (_, other) => exec_err!("{other} is no type of such an answer"),
        }
    }

    /// What the groups make, one row each.
    fn answers(self, groups: Vec<Changes>, members: &Fields) -> Result<ArrayRef, DataFusionError> {
        match self {
            Self::Versions => Ok(Arc::new(version_lists(groups, members, VERSIONS_BYTES_MAX)?)),
            Self::Anomalies => Ok(Arc::new(anomaly_lists(&groups, members)?)),
            Self::Document => {
                let mut columns = DocumentColumns::new(members);
                for changes in groups {
                    columns.push(changes.document().as_ref());
                }
                Ok(Arc::new(columns.finish(members)?))
            }
        }
    }
}

/// The versions that the groups make, a list each. Their documents may take as many bytes as the changes do, and
/// `bytes_max` more.
fn version_lists(
    groups: Vec<Changes>,
    members: &Fields,
    bytes_max: usize,
) -> Result<ListArray, DataFusionError> {
    let mut spare = groups.iter().map(Changes::size).fold(bytes_max, usize::saturating_add);
    let mut columns = DocumentColumns::new(members);
    let mut lengths = Vec::with_capacity(groups.len());
    for changes in groups {
        let mut count = 0;
        changes.each_version(|version| -> Result<(), DataFusionError> {
            count += 1;
            if VERSIONS_MAX < count {
                return Err(too_many(&format!("more than {VERSIONS_MAX} versions")));
            }
            let bytes = version.doc.as_ref().map_or(0, String::len);
            let Some(left) = spare.checked_sub(bytes) else {
                return Err(too_many(&format!(
                    "versions of more than {bytes_max} bytes beyond its changes"
                )));
            };
            spare = left;
            columns.push(Some(&version));
            Ok(())
        })?;
        lengths.push(count);
    }
    list_of(columns.finish(members)?, lengths)
}

/// The anomalies that the groups have, a list each.
fn anomaly_lists(groups: &[Changes], members: &Fields) -> Result<ListArray, DataFusionError> {
    let mut anomalies = Vec::new();
    let mut lengths = Vec::with_capacity(groups.len());
    for changes in groups {
        let mut found = changes.anomalies();
        found.truncate(ANOMALIES_MAX);
        lengths.push(found.len());
        anomalies.extend(found);
    }
    list_of(anomaly_columns(&anomalies, members)?, lengths)
}

/// Items as lists of these lengths.
fn list_of(items: StructArray, lengths: Vec<usize>) -> Result<ListArray, DataFusionError> {
    let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(ListArray::try_new(item, offsets, Arc::new(items), None)?)
}

fn too_many(what: &str) -> DataFusionError {
    DataFusionError::External(Box::new(SqlError::Limit(format!(
        "a document has {what}; read a part of its changes, by seq"
    ))))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ChangeFold {
    kind: FoldKind,
    signature: Signature,
}

impl AggregateUDFImpl for ChangeFold {
    fn name(&self) -> &'static str {
        match self.kind {
            FoldKind::Document => FOLD_CHANGES,
            FoldKind::Versions => DOCUMENT_VERSIONS,
            FoldKind::Anomalies => DOCUMENT_ANOMALIES,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let wanted = match self.kind {
            FoldKind::Document => FOLD_ARGUMENTS,
            FoldKind::Versions => CHANGE_ARGUMENTS,
            FoldKind::Anomalies => CLAIMED_ARGUMENTS,
        };
        if types.len() != wanted {
            return plan_err!(
                "`{}` takes {wanted} arguments, not {}: seq, op, ts, after, patch, store, actor, bookmark, id{}",
                self.name(),
                types.len(),
                if self.kind == FoldKind::Anomalies { ", before, lsn, version" } else { "" }
            );
        }
        let zone = match &types[TIME_ARGUMENT] {
            DataType::Timestamp(_, zone) => zone.clone(),
            other => return plan_err!("`{}` takes a time as `ts`, not {other}", self.name()),
        };
        let time = DataType::Timestamp(TimeUnit::Microsecond, zone);
        let mut taken = vec![DataType::Int64, DataType::Utf8View, time.clone()];
        taken.resize(CHANGE_ARGUMENTS, DataType::Utf8View);
        match self.kind {
            FoldKind::Document => taken.extend([DataType::Int64, time]),
            FoldKind::Versions => {}
            FoldKind::Anomalies => {
                taken.extend([DataType::Utf8View, DataType::Int64, DataType::Int64]);
            }
        }
        Ok(taken)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        let Some(time) = types.get(TIME_ARGUMENT) else {
            return plan_err!("`{}` takes a time as `ts`", self.name());
        };
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        Ok(match self.kind {
            FoldKind::Document => DataType::Struct(members_of(time)),
            FoldKind::Versions => list(DataType::Struct(members_of(time))),
            FoldKind::Anomalies => list(DataType::Struct(anomaly_members())),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        let name = format!("{}[changes]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::LargeBinary, true))])
    }

    fn accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let mut groups = self.groups(&args)?;
        groups.reach(1);
        Ok(Box::new(ChangesOfOne { groups }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        Ok(Box::new(self.groups(&args)?))
    }
}

impl ChangeFold {
    fn groups(&self, args: &AccumulatorArgs<'_>) -> Result<ChangeGroups, DataFusionError> {
        if args.is_distinct {
            return plan_err!(
                "a change that comes twice counts once: remove DISTINCT from `{}`",
                self.name()
            );
        }
        let members = self.kind.members(args.return_field.data_type())?;
        Ok(ChangeGroups { kind: self.kind, members, groups: Vec::new(), bytes: 0 })
    }
}

/// The changes of several documents.
#[derive(Debug)]
struct ChangeGroups {
    kind: FoldKind,
    members: Fields,
    groups: Vec<Changes>,
    /// Of all of them.
    bytes: usize,
}

impl ChangeGroups {
    /// Makes room for so many groups.
    fn reach(&mut self, count: usize) {
        let kind = self.kind;
        while self.groups.len() < count {
            let changes = kind.changes();
            self.bytes += changes.size();
            self.groups.push(changes);
        }
    }

    /// Changes one group, and what is known of its size.
    fn change<T>(&mut self, group: usize, change: impl FnOnce(&mut Changes) -> T) -> T {
        let changes = &mut self.groups[group];
        let before = changes.size();
        let answer = change(changes);
        self.bytes = (self.bytes + changes.size()).saturating_sub(before);
        answer
    }

    /// Takes groups out.
    fn take(&mut self, emit: EmitTo) -> Vec<Changes> {
        let taken = emit.take_needed(&mut self.groups);
        let bytes: usize = taken.iter().map(Changes::size).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }
}

impl GroupsAccumulator for ChangeGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.reach(count);
        let columns = ChangeColumns::of(values)?;
        for (row, group) in groups.iter().enumerate() {
            if filter.is_some_and(|filter| !filter.is_valid(row) || !filter.value(row)) {
                continue;
            }
            if let Some(base) = columns.base(row) {
                self.change(*group, |changes| changes.merge(Changes::of_base(base)));
            } else if let Some(new) = columns.change(row) {
                self.change(*group, |changes| changes.push_row(&new));
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.reach(count);
        let [states] = states else { return exec_err!("changes have a state of one column") };
        let states = states.as_binary::<i64>();
        for (row, group) in groups.iter().enumerate() {
            let is_out = filter.is_some_and(|filter| !filter.is_valid(row) || !filter.value(row));
            if is_out || states.is_null(row) {
                continue;
            }
            let merged = self.change(*group, |changes| changes.merge_bytes(states.value(row)));
            merged.map_err(|cause| exec_datafusion_err!("{cause}"))?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        let groups = self.take(emit);
        self.kind.answers(groups, &self.members)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        let groups = self.take(emit);
        let bytes: usize = groups.iter().map(Changes::size).sum();
        let mut states = LargeBinaryBuilder::with_capacity(groups.len(), bytes);
        let mut state = Vec::new();
        for changes in groups {
            state.clear();
            changes.write(&mut state);
            states.append_value(&state);
        }
        Ok(vec![Arc::new(states.finish()) as ArrayRef])
    }

    fn size(&self) -> usize {
        self.bytes * COPIES + size_of_val(self)
    }
}

/// The changes of one document, where there are no groups.
#[derive(Debug)]
struct ChangesOfOne {
    groups: ChangeGroups,
}

impl ChangesOfOne {
    /// Takes the changes out, as groups are.
    fn with<T>(
        &mut self,
        take: impl FnOnce(&mut ChangeGroups) -> Result<T, DataFusionError>,
    ) -> Result<T, DataFusionError> {
        let taken = take(&mut self.groups);
        self.groups.reach(1);
        taken
    }
}

impl Accumulator for ChangesOfOne {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        let rows = values.first().map_or(0, |column| column.len());
        self.groups.update_batch(values, &vec![0; rows], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let rows = states.first().map_or(0, |column| column.len());
        self.groups.merge_batch(states, &vec![0; rows], None, 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        let states = self.with(|groups| groups.state(EmitTo::All))?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let answer = self.with(|groups| groups.evaluate(EmitTo::All))?;
        ScalarValue::try_from_array(&answer, 0)
    }

    fn size(&self) -> usize {
        self.groups.size()
    }
}

#[cfg(test)]
mod tests;
