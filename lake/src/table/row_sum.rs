//! The sum of the rows of a table, by id and `seq`.
//!
//! The sum itself is [`RowSum`]; here is what counts of a row. Its one invariant: a row has the same hash
//! in the log, in whichever file it is written to, and under whatever columns are added to it.

use crate::table::typed_columns::is_typed;
use arrow::{array::AsArray, datatypes::Int64Type, record_batch::RecordBatch};
use iceberg::spec::{PrimitiveType, Schema, Type};
use icecore_catalog::row_sum::RowSum;
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The columns that tell a row from every other, by their names.
const ID: &str = "id";
const SEQ: &str = "seq";

/// The columns that the rows of a table are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowKeys {
    /// Field ids of id and `seq`.
    ids: [i32; 2],
}

impl RowKeys {
    /// Those of a table; none where its rows have no id or no `seq`, and so no sum. A member `id` of documents tells
    /// no rows apart: files of before its column lack it.
    #[must_use]
    pub fn of(schema: &Schema) -> Option<Self> {
        let column = |name: &str, kind: PrimitiveType| {
            let field = schema.field_by_name(name)?;
            let is_own = *field.field_type == Type::Primitive(kind) && !is_typed(field);
            is_own.then_some(field.id)
        };
        let ids = [column(ID, PrimitiveType::String)?, column(SEQ, PrimitiveType::Long)?];
        Some(Self { ids })
    }

    /// Their field ids: what has to be read for a sum.
    #[must_use]
    pub fn columns(self) -> Vec<i32> {
        self.ids.to_vec()
    }
}

/// The sum of rows as they are read of several files; clones count together.
#[derive(Clone, Debug, Default)]
pub(in crate::table) struct ReadSum(Arc<Mutex<RowSum>>);

impl ReadSum {
    pub(in crate::table) fn add(&self, rows: RowSum) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.merge(rows);
    }

    pub(in crate::table) fn get(&self) -> RowSum {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sum of these rows, which have their columns under the names of the table. One hash for each row.
#[must_use]
pub fn sum_of(rows: &RecordBatch) -> RowSum {
    let mut sum = RowSum::default();
    let ids = rows.column_by_name(ID).and_then(|column| column.as_string_opt::<i32>());
    let seqs = rows.column_by_name(SEQ).and_then(|column| column.as_primitive_opt::<Int64Type>());
    for (id, seq) in ids.into_iter().flatten().zip(seqs.into_iter().flatten()) {
        sum.add(hash_of(id.unwrap_or_default(), seq.unwrap_or_default()));
    }
    sum
}

/// What a row adds to a sum.
#[must_use]
pub fn hash_of(id: &str, seq: i64) -> u128 {
    xxh3_128_with_seed(id.as_bytes(), seq.cast_unsigned())
}

#[cfg(test)]
mod tests;
