//! Columns of changes as documents are folded from them, and of the documents.

use crate::collections::fold::CHANGE_ARGUMENTS;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int64Array, Int64Builder, PrimitiveArray, PrimitiveBuilder,
        StringViewArray, StringViewBuilder, StructArray,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Field, Fields, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{common::exec_err, error::DataFusionError};
use icecore_lake::collection::{COLUMNS, ChangeAnomaly, ChangeOp, Document, changes::ChangeRow};
use icecore_schemas::columns::ColumnKind;
use std::sync::Arc;

/// The members of a document: the columns of a collection but for the key.
pub(super) fn members_of(time: &DataType) -> Fields {
    let members = COLUMNS.iter().filter(|column| column.name != "key").map(|column| {
        let kind = match column.kind {
            ColumnKind::Long => DataType::Int64,
            ColumnKind::Timestamptz => time.clone(),
            ColumnKind::String | ColumnKind::Int | ColumnKind::Double | ColumnKind::Boolean => {
                DataType::Utf8View
            }
        };
        Field::new(column.name, kind, true)
    });
    members.collect()
}

/// The members of an anomaly.
pub(super) fn anomaly_members() -> Fields {
    Fields::from(vec![
        Field::new("seq", DataType::Int64, true),
        Field::new("kind", DataType::Utf8View, true),
        Field::new("reason", DataType::Utf8View, true),
    ])
}

/// Anomalies as columns in the order of their members.
pub(super) fn anomaly_columns(
    anomalies: &[ChangeAnomaly],
    members: &Fields,
) -> Result<StructArray, DataFusionError> {
    let seqs = anomalies.iter().map(|anomaly| anomaly.seq);
    let kinds: StringViewArray =
        anomalies.iter().map(|anomaly| Some(anomaly.kind.name())).collect();
    let reasons: StringViewArray = anomalies.iter().map(|anomaly| anomaly.kind.reason()).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(seqs)), Arc::new(kinds), Arc::new(reasons)];
    Ok(StructArray::try_new(members.clone(), columns, None)?)
}

/// The arguments of one batch.
pub(super) struct ChangeColumns<'a> {
    seq: &'a Int64Array,
    op: &'a StringViewArray,
    ts: &'a PrimitiveArray<TimestampMicrosecondType>,
    after: &'a StringViewArray,
    patch: &'a StringViewArray,
    store: &'a StringViewArray,
    actor: &'a StringViewArray,
    bookmark: &'a StringViewArray,
    id: &'a StringViewArray,
    /// What rows of a base have.
    base: Option<(&'a Int64Array, &'a PrimitiveArray<TimestampMicrosecondType>)>,
    /// What the source said: `before`, `lsn`, `version`.
    claims: Option<(&'a StringViewArray, &'a Int64Array, &'a Int64Array)>,
}

impl<'a> ChangeColumns<'a> {
    /// The arguments, in the order of the aggregate.
    pub(super) fn of(values: &'a [ArrayRef]) -> Result<Self, DataFusionError> {
        let [seq, op, ts, after, patch, store, actor, bookmark, id, others @ ..] = values else {
            return exec_err!("a change is made of {CHANGE_ARGUMENTS} columns");
        };
        let (base, claims) = match others {
            [version, created_at] => {
                (Some((version.as_primitive::<Int64Type>(), created_at.as_primitive())), None)
            }
            [before, lsn, version] => {
                let numbers = (lsn.as_primitive(), version.as_primitive());
                (None, Some((before.as_string_view(), numbers.0, numbers.1)))
            }
            _ => (None, None),
        };
        Ok(Self {
            seq: seq.as_primitive(),
            op: op.as_string_view(),
            ts: ts.as_primitive(),
            after: after.as_string_view(),
            patch: patch.as_string_view(),
            store: store.as_string_view(),
            actor: actor.as_string_view(),
            bookmark: bookmark.as_string_view(),
            id: id.as_string_view(),
            base,
            claims,
        })
    }

    /// The operation and the time of a row; none where it is no change.
    fn known(&self, row: usize) -> Option<(i64, ChangeOp, i64)> {
        let is_whole = self.seq.is_valid(row) && self.op.is_valid(row) && self.ts.is_valid(row);
        if !is_whole {
            return None;
        }
        Some((self.seq.value(row), ChangeOp::from_code(self.op.value(row))?, self.ts.value(row)))
    }

    /// The change of a row of events, with what its source said of the state around it.
    pub(super) fn change(&self, row: usize) -> Option<ChangeRow<'a>> {
        let (seq, op, ts) = self.known(row)?;
        let number = |column: &Int64Array| column.is_valid(row).then(|| column.value(row));
        let (before, lsn, version) = match self.claims {
            Some((before, lsn, version)) => (text(before, row), number(lsn), number(version)),
            None => (None, None, None),
        };
        Some(ChangeRow {
            seq,
            op,
            ts,
            after: text(self.after, row),
            patch: text(self.patch, row),
            store: text(self.store, row),
            actor: text(self.actor, row),
            bookmark: text(self.bookmark, row),
            event_id: text(self.id, row).unwrap_or_default(),
            before,
            lsn,
            version,
        })
    }

    /// The document of a row of a base; none for any other row.
    pub(super) fn base(&self, row: usize) -> Option<Document> {
        let (versions, created) = self.base.filter(|(versions, _)| versions.is_valid(row))?;
        let (seq, op, updated_at) = self.known(row)?;
        let created_at = if created.is_valid(row) { created.value(row) } else { updated_at };
        let owned = |column: &StringViewArray| text(column, row).map(str::to_owned);
        Some(Document {
            doc: owned(self.after),
            op,
            store: owned(self.store),
            version: versions.value(row),
            created_at,
            updated_at,
            actor: owned(self.actor),
            bookmark: owned(self.bookmark),
            seq,
            event_id: owned(self.id).unwrap_or_default(),
        })
    }
}

fn text(column: &StringViewArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// Documents as they become columns.
pub(super) struct DocumentColumns {
    doc: StringViewBuilder,
    op: StringViewBuilder,
    store: StringViewBuilder,
    version: Int64Builder,
    created_at: PrimitiveBuilder<TimestampMicrosecondType>,
    updated_at: PrimitiveBuilder<TimestampMicrosecondType>,
    actor: StringViewBuilder,
    bookmark: StringViewBuilder,
    seq: Int64Builder,
    event_id: StringViewBuilder,
    is_there: Vec<bool>,
}

impl DocumentColumns {
    pub(super) fn new(members: &Fields) -> Self {
        let kind = |name: &str| members.find(name).map(|(_, member)| member.data_type().clone());
        let time = |name: &str| {
            let builder = PrimitiveBuilder::<TimestampMicrosecondType>::new();
            match kind(name) {
                Some(kind @ DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                    builder.with_data_type(kind)
                }
                _ => builder,
            }
        };
        Self {
            doc: StringViewBuilder::new(),
            op: StringViewBuilder::new(),
            store: StringViewBuilder::new(),
            version: Int64Builder::new(),
            created_at: time("created_at"),
            updated_at: time("updated_at"),
            actor: StringViewBuilder::new(),
            bookmark: StringViewBuilder::new(),
            seq: Int64Builder::new(),
            event_id: StringViewBuilder::new(),
            is_there: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, known: Option<&Document>) {
        self.is_there.push(known.is_some());
        self.doc.append_option(known.and_then(|it| it.doc.as_deref()));
        self.op.append_option(known.map(|it| it.op.code()));
        self.store.append_option(known.and_then(|it| it.store.as_deref()));
        self.version.append_option(known.map(|it| it.version));
        self.created_at.append_option(known.map(|it| it.created_at));
        self.updated_at.append_option(known.map(|it| it.updated_at));
        self.actor.append_option(known.and_then(|it| it.actor.as_deref()));
        self.bookmark.append_option(known.and_then(|it| it.bookmark.as_deref()));
        self.seq.append_option(known.map(|it| it.seq));
        self.event_id.append_option(known.map(|it| it.event_id.as_str()));
    }

    /// The columns in the order of the members.
    pub(super) fn finish(mut self, members: &Fields) -> Result<StructArray, DataFusionError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.doc.finish()),
            Arc::new(self.op.finish()),
            Arc::new(self.store.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.created_at.finish()),
            Arc::new(self.updated_at.finish()),
            Arc::new(self.actor.finish()),
            Arc::new(self.bookmark.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.event_id.finish()),
        ];
        let nulls = NullBuffer::from(self.is_there);
        Ok(StructArray::try_new(members.clone(), columns, Some(nulls))?)
    }
}
