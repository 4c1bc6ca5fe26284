//! What the columns of a row group take, going by the footer of its file.
//!
//! Its one invariant: a batch of so many rows as [`GroupBytes::batch_rows`] says takes no more than
//! [`BATCH_BYTES_MOST`] where the footer does not tell how long values are, whatever they are. Of a column
//! of which it tells what all of its values take together, a batch takes no more than that either.

use crate::table::file_columns::BATCH_ROWS;
use arrow::datatypes::{DataType, Schema};
use parquet::{
    arrow::ProjectionMask,
    basic::{Encoding, Type as PhysicalType},
    file::metadata::{ColumnChunkMetaData, RowGroupMetaData},
};

/// The most where each row may have the longest value of its row group, and nothing tells how many do.
pub(super) const BATCH_BYTES_MOST: u64 = 32 << 20;
/// A column of a row group that takes no more than this may be in one batch as a whole.
const SHARED_BYTES_MOST: u64 = 128 << 20;
/// The least that a row takes of each column beside texts: a number, or where its text ends.
const VALUE_BYTES: u64 = 8;

/// Bytes of a row group in some columns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupBytes {
    rows: u64,
    /// As they are stored.
    pub(super) stored: u64,
    /// Unpacked, as they are encoded.
    pub(super) plain: u64,
    /// In memory, as far as the footer tells.
    pub(super) values: u64,
    /// The most that a row takes of columns whose chunk may have one long value many times.
    longest: u64,
}

impl GroupBytes {
    /// Those of the columns in `mask`, for rows with the columns of `schema`.
    pub(super) fn of(group: &RowGroupMetaData, mask: &ProjectionMask, schema: &Schema) -> Self {
        let mut bytes = Self { rows: count(group.num_rows()).max(1), ..Self::default() };
        // A column that the file lacks is null in each row, which takes as much.
        let of_row: u64 = schema.fields().iter().map(|field| width(field.data_type())).sum();
        bytes.values = bytes.rows.saturating_mul(of_row);
        let columns = group.columns().iter().enumerate();
        for (_, column) in columns.filter(|(at, _)| mask.leaf_included(*at)) {
            bytes.add(column);
        }
        bytes
    }

    /// As they are stored and unpacked.
    pub(super) fn open(self) -> u64 {
        self.stored.saturating_add(self.plain)
    }

    fn add(&mut self, column: &ColumnChunkMetaData) {
        let plain = count(column.uncompressed_size());
        self.stored = self.stored.saturating_add(count(column.compressed_size()));
        self.plain = self.plain.saturating_add(plain);
        if 0 < column.column_descr().max_rep_level() {
            // A row may have many of them, where the width of its column tells of one.
            let values = count(column.num_values()).saturating_mul(VALUE_BYTES);
            self.values = self.values.saturating_add(values);
        }
        if column.column_type() != PhysicalType::BYTE_ARRAY {
            return;
        }
        let known = column.unencoded_byte_array_data_bytes().map(count);
        self.values = self.values.saturating_add(known.unwrap_or(plain));
        // The footer tells of all rows together: where they share what is stored, few may have most of it.
        let may_be_long = known.is_none_or(|known| plain < known && SHARED_BYTES_MOST < known);
        if may_be_long && column.encodings().any(shares_bytes) {
            self.longest = self.longest.saturating_add(plain);
        }
    }

    /// Rows of a batch that takes about so many bytes.
    pub(super) fn batch_rows(self, batch_bytes: usize) -> usize {
        let of_row = self.values.div_ceil(self.rows).max(1);
        let rows = (batch_bytes as u64 / of_row)
            .min(BATCH_BYTES_MOST / of_row.saturating_add(self.longest));
        usize::try_from(rows).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
    }
}

/// What a row takes of a column of this type beside texts, null or not.
fn width(kind: &DataType) -> u64 {
    let bytes = match kind {
        DataType::FixedSizeBinary(bytes) => u64::try_from(*bytes).unwrap_or(0),
        other => other.primitive_width().unwrap_or(0) as u64,
    };
    bytes.max(VALUE_BYTES)
}

/// Whether values of this encoding may share their bytes.
fn shares_bytes(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY | Encoding::DELTA_BYTE_ARRAY
    )
}

/// A number of a footer, which a damaged one may have below zero.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_wide_values_takes_them_in_each_row() {
        let kinds = [DataType::Int32, DataType::Utf8, DataType::FixedSizeBinary(100)];
        assert_eq!(kinds.each_ref().map(width), [8, 8, 100]);
        let bytes = GroupBytes { rows: 1_000, values: 1_000 * (1 << 20), ..GroupBytes::default() };
        assert_eq!(bytes.batch_rows(16 << 20), 16);
    }
}
