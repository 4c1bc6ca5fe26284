//! Rows to Arrow columns, a set of builders for each namespace.
//!
//! A column is made when its first value comes and is filled up with nulls then: what an event
//! does not say costs nothing.

use crate::event::{
    EventKey, FormerKey, NamespaceEvents, RequestContext, cloud_event_key, event_key,
    names::{self, COLUMNS, KINDS},
    normalize::{CellValue, EventFault, EventRow},
    rows,
};
use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringArray,
        StringBuilder, TimestampMicrosecondArray,
    },
    datatypes::Schema,
    record_batch::RecordBatch,
};
use icecore_schemas::{columns::ColumnKind, error_code::ErrorCode, names::Namespace};
use std::{collections::HashMap, ops::Range, sync::Arc};
use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_128;

/// Where an event stands.
#[derive(Clone, Debug)]
pub(crate) struct EventPlace<'b> {
    /// In the body, from 0.
    pub(crate) index: u32,
    /// Its batch, if that has an id.
    pub(crate) batch_id: Option<&'b str>,
    /// In the batch, from 0.
    pub(crate) batch_index: u32,
    /// In the bytes of all events.
    pub(crate) came: Range<usize>,
}

/// The accepted events so far.
#[derive(Debug)]
pub(crate) struct NamespaceBuilders<'r> {
    arrival: &'r RequestContext,
    groups: Vec<NamespaceBuilder>,
    by_text: HashMap<String, usize>,
    /// The group of the event before: mostly also that of the next.
    last: usize,
}

#[derive(Debug)]
struct NamespaceBuilder {
    namespace: Namespace,
    columns: Vec<Option<ColumnBuilder>>,
    ts: Vec<i64>,
    keys: Vec<EventKey>,
    index: Vec<u32>,
    former: Vec<FormerKey>,
    came: Vec<Range<usize>>,
}

/// A column's values so far; rows after them have none.
#[derive(Debug)]
struct ColumnBuilder {
    rows: usize,
    values: ValueBuilder,
}

#[derive(Debug)]
enum ValueBuilder {
    Text(StringBuilder),
    Long(Int64Builder),
    Int(Int32Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
}

impl<'r> NamespaceBuilders<'r> {
    pub(crate) fn new(arrival: &'r RequestContext) -> Self {
        Self { arrival, groups: Vec::new(), by_text: HashMap::new(), last: 0 }
    }

    /// Adds a row; the only reason to refuse it is its namespace.
    pub(crate) fn push(
        &mut self,
        row: &EventRow<'_>,
        cells: &[(u16, CellValue<'_>)],
        place: EventPlace<'_>,
    ) -> Result<(), EventFault> {
        let number = self.group(row.namespace.as_deref())?;
        let group = &mut self.groups[number];
        let mut ulid = [0; ulid::ULID_LEN];
        let derived;
        let id = match (&row.id, place.batch_id, &self.arrival.again) {
            (Some(id), ..) => id.as_ref(),
            (None, Some(batch_id), _) => {
                derived = id_in_batch(&group.namespace, batch_id, place.batch_index);
                &derived
            }
            (None, None, Some(again)) => {
                derived = id_again(&again.id, place.index);
                &derived
            }
            (None, None, None) => {
                let id = Ulid(self.arrival.first_id.0.wrapping_add(u128::from(place.index)));
                id.array_to_str(&mut ulid)
            }
        };
        let before = group.ts.len();
        let key = match &row.cloud_source {
            Some(source) => cloud_event_key(&group.namespace, source, id),
            None => event_key(&group.namespace, id),
        };
        group.keys.push(EventKey { id: key, content: row.content });
        if let Some(former) = &row.former {
            let id = event_key(&group.namespace, former.id.as_deref().unwrap_or(id));
            let key = EventKey { id, content: former.content };
            group.former.push(FormerKey { row: before, key, is_certain: former.is_certain });
        }
        group.index.push(place.index);
        group.came.push(place.came);
        group.ts.push(row.ts_us);
        group.text(names::ID, before, id);
        for (column, cell) in cells {
            group.cell(usize::from(*column), before, cell);
        }
        if let Some(id) = &self.arrival.correlation_id
            && !cells.iter().any(|(column, _)| usize::from(*column) == names::CORRELATION_ID)
        {
            group.text(names::CORRELATION_ID, before, id);
        }
        if let Some(batch_id) = place.batch_id.or_else(|| self.arrival.batch_id())
            && !row.has_batch_id
        {
            group.text(names::BATCH_ID, before, batch_id);
        }
        Ok(())
    }

    /// The number of the namespace's group.
    fn group(&mut self, text: Option<&str>) -> Result<usize, EventFault> {
        let text = text.unwrap_or_else(|| self.arrival.namespace.text());
        if self.groups.get(self.last).is_some_and(|group| group.namespace.text() == text) {
            return Ok(self.last);
        }
        if let Some(number) = self.by_text.get(text) {
            self.last = *number;
            return Ok(self.last);
        }
        let namespace = Namespace::parse(text).map_err(|invalid| {
            EventFault::new(ErrorCode::InvalidNamespace, format!("`ns`: {invalid}"))
        })?;
        self.last = self.groups.len();
        self.by_text.insert(text.to_owned(), self.last);
        self.groups.push(NamespaceBuilder::new(namespace));
        Ok(self.last)
    }

    pub(crate) fn finish(self) -> Vec<NamespaceEvents> {
        let now_us = self.arrival.now_us;
        self.groups.into_iter().map(|group| group.finish(now_us)).collect()
    }
}

/// The id of an event without one in a batch with one: the same whenever the batch is sent again.
pub(crate) fn id_in_batch(namespace: &Namespace, batch_id: &str, index: u32) -> String {
    let text = format!("{}\0{batch_id}\0{index}", namespace.name());
    format!("{:032x}", xxh3_128(text.as_bytes()))
}

/// The id of an event without one that is sent again: that of the first event of its dead letter
/// is `id`, the others' follow from it.
fn id_again(id: &str, index: u32) -> String {
    if index == 0 { id.to_owned() } else { format!("{id}-{index}") }
}

impl NamespaceBuilder {
    fn new(namespace: Namespace) -> Self {
        let columns = std::iter::repeat_with(|| None).take(COLUMNS).collect();
        Self {
            namespace,
            columns,
            ts: Vec::new(),
            keys: Vec::new(),
            index: Vec::new(),
            former: Vec::new(),
            came: Vec::new(),
        }
    }

    /// The values of a column, with `rows` rows before the one that the caller appends.
    #[inline]
    fn column(&mut self, column: usize, rows: usize) -> &mut ValueBuilder {
        let column = self.columns[column].get_or_insert_with(|| ColumnBuilder::new(KINDS[column]));
        if column.rows < rows {
            column.values.append_nulls(rows - column.rows);
        }
        column.rows = rows + 1;
        &mut column.values
    }

    #[inline]
    fn text(&mut self, column: usize, rows: usize, text: &str) {
        if let ValueBuilder::Text(builder) = self.column(column, rows) {
            builder.append_value(text);
        }
    }

    #[inline]
    fn cell(&mut self, column: usize, rows: usize, cell: &CellValue<'_>) {
        match (self.column(column, rows), cell) {
            (ValueBuilder::Text(builder), CellValue::Text(text)) => builder.append_value(text),
            (ValueBuilder::Long(builder), CellValue::Long(number)) => builder.append_value(*number),
            (ValueBuilder::Int(builder), CellValue::Long(number)) => {
                builder.append_option(i32::try_from(*number).ok());
            }
            (ValueBuilder::Double(builder), CellValue::Double(number)) => {
                builder.append_value(*number)
            }
            (ValueBuilder::Bool(builder), CellValue::Bool(flag)) => builder.append_value(*flag),
            (values, cell) => unreachable!("{cell:?} was made for another column than {values:?}"),
        }
    }

    fn finish(mut self, now_us: i64) -> NamespaceEvents {
        let rows = self.ts.len();
        let schema = rows::known_event_schema();
        let time = |values: Vec<i64>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone(rows::UTC))
        };
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for column in 0..COLUMNS {
            let array = match column {
                names::TS => Some(time(std::mem::take(&mut self.ts))),
                names::INGESTED_AT => Some(time(vec![now_us; rows])),
                names::NS => {
                    Some(Arc::new(StringArray::new_repeated(self.namespace.text(), rows)) as _)
                }
                _ => self.columns[column].take().map(|builder| builder.finish(rows)),
            };
            if let Some(array) = array {
                fields.push(Arc::clone(&schema.fields()[column]));
                arrays.push(array);
            }
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .expect("every column has the schema's type and a value or null for every row");
        let Self { namespace, keys, index, came, former, .. } = self;
        NamespaceEvents { namespace, rows, keys, index, came, former, same: Vec::new() }
    }
}

impl ColumnBuilder {
    fn new(kind: ColumnKind) -> Self {
        let values = match kind {
            ColumnKind::String => ValueBuilder::Text(StringBuilder::new()),
            ColumnKind::Long | ColumnKind::Timestamptz => ValueBuilder::Long(Int64Builder::new()),
            ColumnKind::Int => ValueBuilder::Int(Int32Builder::new()),
            ColumnKind::Double => ValueBuilder::Double(Float64Builder::new()),
            ColumnKind::Boolean => ValueBuilder::Bool(BooleanBuilder::new()),
        };
        Self { rows: 0, values }
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        self.values.append_nulls(rows - self.rows);
        match self.values {
            ValueBuilder::Text(mut builder) => Arc::new(builder.finish()),
            ValueBuilder::Long(mut builder) => Arc::new(builder.finish()),
            ValueBuilder::Int(mut builder) => Arc::new(builder.finish()),
            ValueBuilder::Double(mut builder) => Arc::new(builder.finish()),
            ValueBuilder::Bool(mut builder) => Arc::new(builder.finish()),
        }
    }
}

impl ValueBuilder {
    fn append_nulls(&mut self, count: usize) {
        match self {
            Self::Text(builder) => builder.append_nulls(count),
            Self::Long(builder) => builder.append_nulls(count),
            Self::Int(builder) => builder.append_nulls(count),
            Self::Double(builder) => builder.append_nulls(count),
            Self::Bool(builder) => builder.append_nulls(count),
        }
    }
}
