//! Whether a scan's filters run inside the Parquet reader: only where that saves more than it costs.
//!
//! There, the columns of the filter are decoded first, and of the others the pages that have rows left. Columns that
//! both the filter and the answer need may be decoded twice, and rows are handed on in small pieces. The manifests
//! say how many bytes the columns have.

use arrow::datatypes::Schema as ArrowSchema;
use datafusion::logical_expr::Expr;
use iceberg::spec::Schema;
use icecore_catalog::scan::manifests::PlannedFiles;
use std::collections::HashSet;

/// Whether in these files the columns of `projection` beside those of `filters` have as many bytes as those. Without
/// filters, and where a manifest does not tell, they run in the reader.
#[must_use]
pub fn pays_in_reader(
    files: &PlannedFiles,
    (columns, schema): (&Schema, &ArrowSchema),
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
) -> bool {
    let filtered: HashSet<&str> =
        filters.iter().flat_map(Expr::column_refs).map(|column| column.name.as_str()).collect();
    if filtered.is_empty() {
        return true;
    }
    let read = schema.fields().iter().enumerate();
    let read = read.filter(|(at, _)| projection.is_none_or(|projection| projection.contains(at)));
    let others = read.map(|(_, field)| field.name().as_str());
    let others = others.filter(|name| !filtered.contains(name));
    let of_filters = bytes(files, columns, filtered.iter().copied());
    let of_others = bytes(files, columns, others);
    match (of_filters, of_others) {
        (Some(of_filters), Some(of_others)) => of_filters <= of_others,
        _ => true,
    }
}

/// Bytes of these columns in all files; none if one is not told.
fn bytes<'a>(
    files: &PlannedFiles,
    columns: &Schema,
    names: impl Iterator<Item = &'a str>,
) -> Option<u64> {
    let mut sum = 0_u64;
    for name in names {
        let field = columns.as_struct().field_by_name(name)?;
        for file in files {
            let Some(known) = file.column(field.id) else { continue };
            match known.bytes {
                Some(bytes) => sum = sum.saturating_add(bytes),
                // A column without values need not be in the file.
                None if known.nulls.is_some() && known.nulls == known.values => (),
                None => return None,
            }
        }
    }
    Some(sum)
}
