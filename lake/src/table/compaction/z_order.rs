//! Rows in the order of one column, or in Z-order of two, for files of days that are over.
//!
//! With one column rows that are alike in it are in the order of `seq`. With two the values of each column are
//! ranked among the rows that are held at a time, and the bits of both ranks, stretched to the same range, are
//! interleaved. So rows that are alike in either column come near one another, and the bounds of pages and row
//! groups leave out most of the others. Such files claim no sort order: the table has none by these columns.
//!
//! Its one invariant: no row comes or goes.

use crate::{
    blocking::blocking,
    table::{
        compaction::day,
        layout::{FileLayout, WriteError},
        partition::field_id,
    },
};
use arrow::{
    array::{ArrayRef, UInt32Array},
    compute::{concat_batches, take_record_batch},
    error::ArrowError,
    record_batch::RecordBatch,
    row::{RowConverter, Rows, SortField},
};
use iceberg::spec::{SortOrder, TableMetadata};
use icecore_catalog::{
    commit::merge_order::{self, MERGE_ORDER},
    scan::manifests::PlannedFile,
};
use std::{mem, sync::Arc};

/// About the most bytes of rows that are put in order together; they are held three times meanwhile.
const HELD_BYTES_MAX: usize = 32 << 20;
const DAY_MS: i64 = 86_400_000;
/// The column by which rows are in order that are alike in the only one of the property.
const SEQ: &str = "seq";

/// The columns of the order, by their field ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZOrder {
    /// One column, of which the order is the plain one, and `seq` where the table has it.
    Column {
        /// The column.
        id: i32,
        /// `seq`.
        seq: Option<i32>,
    },
    /// Two.
    Pair([i32; 2]),
}

impl ZOrder {
    /// What a table's property asks for; none without it.
    ///
    /// # Errors
    /// What is wrong with the property.
    pub(super) fn of(table: &TableMetadata) -> Result<Option<Self>, String> {
        let Some(text) = table.properties().get(MERGE_ORDER) else { return Ok(None) };
        let schema = table.current_schema();
        let seq = || {
            let field = schema.field_by_name(SEQ)?;
            field.field_type.is_primitive().then_some(field.id)
        };
        Ok(match merge_order::columns(text, schema)?.as_slice() {
            [] => None,
            [id] => Some(Self::Column { id: *id, seq: seq() }),
            [one, other, ..] => Some(Self::Pair([*one, *other])),
        })
    }

    /// The order of these files once they are merged: none where their day may still get rows.
    pub(super) fn of_files(table: &TableMetadata, files: &[Arc<PlannedFile>]) -> Option<Self> {
        let order = Self::of(table).ok().flatten()?;
        files.iter().all(|file| is_over(table, file)).then_some(order)
    }

    /// Whether a file needs no order of the table's to be merged: another one is made.
    pub(super) fn is_for(table: &TableMetadata, file: &PlannedFile) -> bool {
        is_over(table, file) && matches!(Self::of(table), Ok(Some(_)))
    }

    /// The same rows in order.
    fn sorted(self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut order: Vec<u32> = (0_u32..).take(rows.num_rows()).collect();
        match self {
            Self::Column { id, seq } => {
                let ids = [Some(id), seq];
                let columns = ids.into_iter().flatten().map(|id| column_of(rows, id));
                let values = comparable(&columns.collect::<Result<Vec<_>, _>>()?)?;
                order.sort_by_key(|row| values.row(*row as usize));
            }
            Self::Pair(ids) => {
                let mut keys = vec![0_u64; rows.num_rows()];
                for (at, id) in ids.into_iter().enumerate() {
                    for (key, rank) in keys.iter_mut().zip(ranks(column_of(rows, id)?)?) {
                        *key |= spread(rank) << (1 - at);
                    }
                }
                order.sort_by_key(|row| keys[*row as usize]);
            }
        }
        take_record_batch(rows, &UInt32Array::from(order))
    }
}

/// The column with a field id.
fn column_of(rows: &RecordBatch, id: i32) -> Result<&ArrayRef, ArrowError> {
    let mut fields = rows.schema_ref().fields().iter();
    let at = fields.position(|field| field_id(field) == Some(id)).ok_or_else(|| {
        let text = format!("rows lack the column with id {id}, which orders them");
        ArrowError::InvalidArgumentError(text)
    })?;
    Ok(rows.column(at))
}

/// Values of columns as bytes that compare as the values do.
fn comparable(columns: &[&ArrayRef]) -> Result<Rows, ArrowError> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let columns: Vec<ArrayRef> = columns.iter().map(|column| Arc::clone(column)).collect();
    RowConverter::new(fields.collect())?.convert_columns(&columns)
}

/// Whether the day of a file is over: the table was changed after it.
fn is_over(table: &TableMetadata, file: &PlannedFile) -> bool {
    let today = table.last_updated_ms().div_euclid(DAY_MS);
    day(table, file).is_some_and(|day| i64::from(day) < today)
}

/// For each row the place of its value among the different ones, from 0 to all bits set.
fn ranks(column: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
    let values = comparable(&[column])?;
    let mut order: Vec<usize> = (0..column.len()).collect();
    order.sort_unstable_by(|one, other| values.row(*one).cmp(&values.row(*other)));
    let (mut ranks, mut rank) = (vec![0_u64; column.len()], 0_u64);
    for pair in order.windows(2) {
        rank += u64::from(values.row(pair[0]) != values.row(pair[1]));
        ranks[pair[1]] = rank;
    }
    let most = rank.max(1);
    Ok(ranks.into_iter().map(|rank| (rank * u64::from(u32::MAX) / most) as u32).collect())
}

/// The bits of a number, each with a free one above it.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

/// How files are laid out that claim no order.
pub(super) fn unsorted(layout: FileLayout) -> FileLayout {
    FileLayout { sort_order: Arc::new(SortOrder::unsorted_order()), ..layout }
}

/// Rows that are held until they are put in order.
#[derive(Debug)]
pub(super) struct ZOrderRows {
    order: ZOrder,
    held: Vec<RecordBatch>,
    bytes: usize,
}

impl ZOrderRows {
    pub(super) fn new(order: ZOrder) -> Self {
        Self { order, held: Vec::new(), bytes: 0 }
    }

    /// Takes rows; gives those that are held, in order, once they are many.
    pub(super) async fn add(
        &mut self,
        rows: RecordBatch,
    ) -> Result<Option<RecordBatch>, WriteError> {
        self.bytes += rows.get_array_memory_size();
        self.held.push(rows);
        if self.bytes < HELD_BYTES_MAX {
            return Ok(None);
        }
        self.take().await
    }

    /// The rows that are held, in order; none where there are none.
    pub(super) async fn take(&mut self) -> Result<Option<RecordBatch>, WriteError> {
        let (order, held) = (self.order, mem::take(&mut self.held));
        self.bytes = 0;
        let Some(schema) = held.first().map(RecordBatch::schema) else { return Ok(None) };
        let sorted = blocking(move || order.sorted(&concat_batches(&schema, &held)?));
        sorted.await.map(Some).map_err(WriteError::Split)
    }
}

#[cfg(test)]
mod tests;
