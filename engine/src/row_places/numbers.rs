//! Which files have a row with a whole number, as hashes of a column's values tell.
//!
//! Bounds tell little of a column such as `seq` in files that are merged by another one: each file has numbers between
//! the same bounds. Its one invariant: a file is left out only if none of its rows has the hash of a number that is
//! looked up.

use crate::{
    lookups::{FooterSource, VALUES_MAX, leaf_of, values_of},
    row_places::{KeptColumn, RowPlaces, hash_of_bytes, is_short, read, row_count},
};
use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{Int64Type, Schema as ArrowSchema},
};
use datafusion::{
    common::ScalarValue,
    logical_expr::{Expr, utils::split_conjunction},
    object_store::{ObjectMeta, ObjectStore},
};
use iceberg::spec::{PrimitiveType, Schema, Type};
use parquet::{
    basic::Type as PhysicalType,
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
        statistics::Statistics,
    },
};
use std::{iter, sync::Arc};

/// What rows have to have in a column: one of these whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberLookup {
    field_id: i32,
    values: Vec<i64>,
}

impl NumberLookup {
    /// Those that all rows have to meet for which `filters` are true.
    #[must_use]
    pub fn all(filters: &[Expr], columns: &Schema, schema: &ArrowSchema) -> Vec<Self> {
        let conditions = filters.iter().flat_map(split_conjunction);
        let lookup = |condition| {
            let (name, values) = values_of(condition, number_of)?;
            schema.field_with_name(name).ok()?;
            // A name with a dot is not a path here.
            let column = columns.as_struct().field_by_name(name)?;
            let is_long = *column.field_type == Type::Primitive(PrimitiveType::Long);
            let is_short = values.len() <= VALUES_MAX;
            (is_long && is_short).then_some(Self { field_id: column.id, values })
        };
        conditions.filter_map(lookup).collect()
    }

    /// Whether one of the numbers has one of these hashes, which are in ascending order.
    fn may_be_in(&self, hashes: &[u32]) -> bool {
        self.values.iter().any(|value| hashes.binary_search(&hash_of_number(*value)).is_ok())
    }
}

fn number_of(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int64(number) => *number,
        _ => None,
    }
}

impl RowPlaces {
    /// Whether a file may have a row with one of the numbers of each of `lookups`. It may where that is not known, and a
    /// file that does not read is left to its reader.
    pub async fn may_have_numbers(
        &self,
        source: FooterSource<'_>,
        store: &Arc<dyn ObjectStore>,
        file: &ObjectMeta,
        lookups: &[NumberLookup],
    ) -> bool {
        for lookup in lookups {
            let hashes = self.sorted_hashes(source, store, file, lookup.field_id).await;
            if hashes.is_some_and(|hashes| !lookup.may_be_in(&hashes)) {
                return false;
            }
        }
        true
    }

    /// The hashes of a column in ascending order, from the second time on that they are asked for.
    async fn sorted_hashes(
        &self,
        source: FooterSource<'_>,
        store: &Arc<dyn ObjectStore>,
        file: &ObjectMeta,
        field_id: i32,
    ) -> Option<Arc<Vec<u32>>> {
        let key = (file.location.clone(), file.size, field_id);
        let key_bytes = key.0.as_ref().len();
        match self.kept.get(&key) {
            Some(KeptColumn::Numbers(kept)) => return kept,
            Some(KeptColumn::Hashes(_)) => return None,
            Some(KeptColumn::Asked) => (),
            None => {
                self.kept.insert(key, KeptColumn::Asked, key_bytes);
                return None;
            }
        }
        let footer = source.footer(file).await.ok()?;
        let hashes = match self.rare_leaf(&footer, field_id) {
            Some(leaf) => read(&footer, store, file, leaf, hashes_of).await.ok(),
            None => None,
        };
        let hashes = hashes.map(|mut hashes| {
            hashes.sort_unstable();
            Arc::new(hashes)
        });
        let bytes = hashes.as_ref().map_or(0, |hashes| size_of_val(hashes.as_slice()));
        self.kept.insert(key, KeptColumn::Numbers(hashes.clone()), bytes + key_bytes);
        hashes
    }

    /// The column of a file with this field id, where there is room for its hashes and each row may have a number of its
    /// own: a few numbers that are frequent are in most files.
    fn rare_leaf(&self, footer: &ParquetMetaData, field_id: i32) -> Option<usize> {
        let leaf = leaf_of(footer, field_id, PhysicalType::INT64)?;
        let has_room = self.count_with_room(iter::once(row_count(footer) as u64)) == 1;
        let is_wide = footer.row_groups().iter().all(|group| is_wide(group, leaf));
        (has_room && is_wide && is_short(footer, leaf)).then_some(leaf)
    }
}

/// Whether there are as many numbers between the bounds of a column as rows.
fn is_wide(group: &RowGroupMetaData, leaf: usize) -> bool {
    let statistics = group.columns().get(leaf).and_then(ColumnChunkMetaData::statistics);
    let Some(Statistics::Int64(bounds)) = statistics else { return false };
    let width = bounds.min_opt().zip(bounds.max_opt()).map(|(low, high)| high.saturating_sub(*low));
    width.is_some_and(|width| group.num_rows() <= width.saturating_add(1))
}

/// A row without a value may have any hash: it is none that a look-up finds.
fn hashes_of(column: &ArrayRef) -> Option<Vec<u32>> {
    let numbers = column.as_primitive_opt::<Int64Type>()?;
    Some(numbers.iter().map(|number| number.map_or(0, hash_of_number)).collect())
}

fn hash_of_number(number: i64) -> u32 {
    hash_of_bytes(&number.to_le_bytes())
}

#[cfg(test)]
mod tests;
