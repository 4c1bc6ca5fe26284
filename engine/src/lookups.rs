//! Look-ups of texts by their whole value: which files cannot have them, as their bloom filters say.
//!
//! DataFusion asks bloom filters too, of each file that it opens, and reads them anew each time. Here they
//! are kept, and asked before a file is planned. Its one invariant: a file is left out only if each of its
//! row groups has a bloom filter of the column, and none of them has any of the values.

use crate::{file_failure::of_read_footer, footers};
use arrow::datatypes::Schema as ArrowSchema;
use datafusion::{
    common::ScalarValue,
    datasource::physical_plan::parquet::metadata::DFParquetMetadata,
    error::DataFusionError,
    execution::cache::cache_manager::FileMetadataCache,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList, utils::split_conjunction},
    object_store::{ObjectMeta, ObjectStore, path::Path as Key},
};
use iceberg::spec::{PrimitiveType, Schema, Type};
use icecore_catalog::byte_cache::ByteCache;
use parquet::{
    basic::Type as PhysicalType, bloom_filter::Sbbf, errors::ParquetError,
    file::metadata::ParquetMetaData,
};
use std::{ops::Range, sync::Arc};

/// Most bytes of bloom filters that are kept; one of a million values takes about a megabyte.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Most bytes of the bloom filters of one column of a file that are read for a look-up.
const COLUMN_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a block of a bloom filter, by the Parquet format.
const BLOCK_BYTES: usize = 32;
/// Most values that are looked up at once: with more, some file mostly has one.
pub(super) const VALUES_MAX: usize = 64;

/// What rows have to have in a column: one of these texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub(super) field_id: i32,
    pub(super) values: Vec<String>,
}

impl Lookup {
    /// Those that all rows have to meet for which `filters` are true.
    #[must_use]
    pub fn all(filters: &[Expr], columns: &Schema, schema: &ArrowSchema) -> Vec<Self> {
        let conditions = filters.iter().flat_map(split_conjunction);
        let lookup = |condition| {
            let (name, values) = values_of(condition, text_of)?;
            schema.field_with_name(name).ok()?;
            // A name with a dot is not a path here.
            let column = columns.as_struct().field_by_name(name)?;
            let is_text = *column.field_type == Type::Primitive(PrimitiveType::String);
            let is_short = values.len() <= VALUES_MAX;
            (is_text && is_short).then_some(Self { field_id: column.id, values })
        };
        conditions.filter_map(lookup).collect()
    }

    fn may_be_in(&self, filters: &[Sbbf]) -> bool {
        self.values.iter().any(|value| filters.iter().any(|filter| filter.check(value.as_str())))
    }
}

/// The column and the values that one condition allows it, of the literals that `value_of` takes.
pub(super) fn values_of<T>(
    condition: &Expr,
    value_of: fn(&ScalarValue) -> Option<T>,
) -> Option<(&str, Vec<T>)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _))
                | (Expr::Literal(value, _), Expr::Column(column)) => {
                    Some((column.name.as_str(), vec![value_of(value)?]))
                }
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (name, mut values) = values_of(left, value_of)?;
            let (other, more) = values_of(right, value_of)?;
            values.extend(more);
            (name == other).then_some((name, values))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let values = list.iter().map(|item| match item {
                Expr::Literal(value, _) => value_of(value),
                _ => None,
            });
            Some((column.name.as_str(), values.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn text_of(value: &ScalarValue) -> Option<String> {
    value.try_as_str()?.map(str::to_owned)
}

/// Where footers and bloom filters of files are read.
#[derive(Clone, Copy, Debug)]
pub struct FooterSource<'a> {
    /// The files.
    pub store: &'a dyn ObjectStore,
    /// Footers that were read already.
    pub cache: &'a Arc<dyn FileMetadataCache>,
    /// Bytes of a file's end that are read at first.
    pub bytes_first: usize,
}

impl FooterSource<'_> {
    /// The footer of a file, with its page index.
    ///
    /// # Errors
    /// It does not read.
    pub async fn footer(self, file: &ObjectMeta) -> Result<Arc<ParquetMetaData>, DataFusionError> {
        // DataFusion would copy one without a page index, to look for the index again.
        if let Some(footer) = footers::kept(self.cache, file) {
            return Ok(footer);
        }
        DFParquetMetadata::new(self.store, file)
            .with_metadata_size_hint(Some(self.bytes_first))
            .with_file_metadata_cache(Some(Arc::clone(self.cache)))
            .fetch_metadata()
            .await
            .map_err(|cause| of_read_footer(&file.location, cause))
    }

    /// The bloom filters of a column, one for each row group; none if one of them lacks it.
    async fn bloom_filters(
        self,
        file: &ObjectMeta,
        field_id: i32,
    ) -> Result<Option<Vec<Sbbf>>, DataFusionError> {
        let footer = self.footer(file).await?;
        let Some(ranges) = ranges_of(&footer, field_id) else { return Ok(None) };
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if COLUMN_BYTES_MAX < bytes {
            return Ok(None);
        }
        let read = self.store.get_ranges(&file.location, &ranges).await?;
        if read.len() != ranges.len() {
            return Ok(None);
        }
        let filters: Result<Vec<Sbbf>, ParquetError> =
            read.iter().map(|bytes| Sbbf::from_bytes(bytes)).collect();
        let filters = filters.map_err(DataFusionError::from)?;
        // One without a block has no answer.
        Ok(Some(filters).filter(|filters| filters.iter().all(|filter| 0 < filter.num_blocks())))
    }
}

/// The column of this type with this field id, if the file has it outside of structs.
pub(super) fn leaf_of(
    footer: &ParquetMetaData,
    field_id: i32,
    kind: PhysicalType,
) -> Option<usize> {
    let leaves = footer.file_metadata().schema_descr().columns();
    let mut found = leaves.iter().enumerate().filter(|(_, leaf)| {
        let info = leaf.self_type().get_basic_info();
        info.has_id() && info.id() == field_id
    });
    let (at, leaf) = found.next()?;
    let is_of_kind = leaf.physical_type() == kind;
    let is_plain = is_of_kind && leaf.path().parts().len() == 1;
    (is_plain && found.next().is_none()).then_some(at)
}

/// Where the bloom filters of a column are, one for each row group; none if one of them lacks it.
fn ranges_of(footer: &ParquetMetaData, field_id: i32) -> Option<Vec<Range<u64>>> {
    let at = leaf_of(footer, field_id, PhysicalType::BYTE_ARRAY)?;
    let ranges = footer.row_groups().iter().map(|group| {
        let column = group.columns().get(at)?;
        let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
        let length = u64::try_from(column.bloom_filter_length()?).ok()?;
        Some(start..start.checked_add(length)?)
    });
    ranges.collect()
}

/// The bloom filters of a column of a file; none where it has not all of them.
type ColumnFilters = Option<Arc<Vec<Sbbf>>>;

/// Bloom filters that were read already, by file, its size and column. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BloomFilters(Arc<ByteCache<(Key, u64, i32), ColumnFilters>>);

impl Default for BloomFilters {
    fn default() -> Self {
        Self::with_share(1)
    }
}

impl BloomFilters {
    /// A cache of the usual bytes divided by `share`.
    ///
    /// # Panics
    /// `share` is zero.
    #[must_use]
    pub fn with_share(share: usize) -> Self {
        Self(Arc::new(ByteCache::new(KEPT_BYTES_MAX / share)))
    }

    /// Whether a file may have a row for all of `lookups`.
    pub async fn may_have(
        &self,
        source: FooterSource<'_>,
        file: &ObjectMeta,
        lookups: &[Lookup],
    ) -> bool {
        for lookup in lookups {
            let filters = self.of_column(source, file, lookup.field_id).await;
            if filters.is_some_and(|filters| !lookup.may_be_in(&filters)) {
                return false;
            }
        }
        true
    }

    /// Whether a file has bloom filters of one of the columns of `lookups` at least.
    pub async fn are_in(
        &self,
        source: FooterSource<'_>,
        file: &ObjectMeta,
        lookups: &[Lookup],
    ) -> bool {
        for lookup in lookups {
            if self.of_column(source, file, lookup.field_id).await.is_some() {
                return true;
            }
        }
        false
    }

    async fn of_column(
        &self,
        source: FooterSource<'_>,
        file: &ObjectMeta,
        field_id: i32,
    ) -> ColumnFilters {
        let key = (file.location.clone(), file.size, field_id);
        if let Some(kept) = self.0.get(&key) {
            return kept;
        }
        // A file that does not read is left to its reader, who says what is wrong with it.
        let filters = source.bloom_filters(file, field_id).await.ok()?.map(Arc::new);
        let blocks = filters.iter().flat_map(|all| all.iter()).map(Sbbf::num_blocks);
        let bytes = key.0.as_ref().len() + BLOCK_BYTES * blocks.sum::<usize>();
        self.0.insert(key, filters.clone(), bytes);
        filters
    }
}

#[cfg(test)]
mod tests;
