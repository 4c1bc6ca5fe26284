//! How a table is partitioned and what its columns are, over all of its history.

use super::values::{self, column, data_type};
use arrow::{
    array::{ArrayRef, StructArray},
    datatypes::{DataType, Field, Fields},
};
use datafusion::error::DataFusionError;
use iceberg::spec::{
    Literal, PrimitiveLiteral, PrimitiveType, Struct, TableMetadata, Transform, Type,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// The fields of all partition specs as one, as Iceberg's metadata tables show partitions; and the columns
/// that files have bounds of.
#[derive(Debug, Default)]
pub(super) struct TableLayout {
    partition: Vec<PartitionColumn>,
    /// For each spec, where its partitions have the value of each of those fields.
    places: HashMap<i32, Vec<Option<usize>>>,
    /// The columns with a value of their own, by name.
    pub(super) leaves: Vec<LeafColumn>,
}

#[derive(Debug)]
struct PartitionColumn {
    id: i32,
    name: String,
    kind: PrimitiveType,
    is_void: bool,
}

/// A column that holds values and not other columns.
#[derive(Debug)]
pub(super) struct LeafColumn {
    /// Its field id.
    pub(super) id: i32,
    /// Its name, with those of the columns around it.
    pub(super) name: String,
    /// Its type.
    pub(super) kind: PrimitiveType,
}

impl TableLayout {
    /// The layout of a table. A field whose column is in no schema any more, and so has no type, is left
    /// out.
    pub(super) fn of(metadata: &TableMetadata) -> Self {
        let mut specs: Vec<_> = metadata.partition_specs_iter().collect();
        // The newest first: it has the names of today.
        specs.sort_by_key(|spec| std::cmp::Reverse(spec.spec_id()));
        let mut fields: BTreeMap<i32, PartitionColumn> = BTreeMap::new();
        for field in specs.iter().flat_map(|spec| spec.fields()) {
            let Some(kind) = type_of(metadata, field.source_id, field.transform) else { continue };
            let is_void = field.transform == Transform::Void;
            match fields.get_mut(&field.field_id) {
                Some(known) if known.is_void && !is_void => {
                    (known.kind, known.is_void) = (kind, false);
                }
                Some(_) => (),
                None => {
                    let (id, name) = (field.field_id, field.name.clone());
                    fields.insert(id, PartitionColumn { id, name, kind, is_void });
                }
            }
        }
        let mut partition: Vec<PartitionColumn> = fields.into_values().collect();
        let mut names = HashSet::new();
        // The younger of two of one name keeps it.
        for field in partition.iter_mut().rev() {
            if !names.insert(field.name.clone()) {
                field.name = format!("{}_{}", field.name, field.id);
            }
        }
        let places = specs.iter().map(|spec| {
            let place = |column: &PartitionColumn| {
                spec.fields().iter().position(|f| f.field_id == column.id)
            };
            (spec.spec_id(), partition.iter().map(place).collect::<Vec<_>>())
        });
        let places = places.collect();
        Self { partition, places, leaves: leaves(metadata) }
    }

    /// Whether any spec has a field.
    pub(super) fn is_partitioned(&self) -> bool {
        !self.partition.is_empty()
    }

    /// The type of a partition.
    pub(super) fn partition_type(&self) -> DataType {
        DataType::Struct(self.fields())
    }

    fn fields(&self) -> Fields {
        let fields = self.partition.iter().map(|field| column(&field.name, data_type(&field.kind)));
        fields.collect::<Vec<Field>>().into()
    }

    /// Partitions of files, each with the spec of its file.
    pub(super) fn partitions<'a>(
        &self,
        rows: &(impl Iterator<Item = (i32, &'a Struct)> + Clone),
    ) -> Result<ArrayRef, DataFusionError> {
        let mut arrays = Vec::with_capacity(self.partition.len());
        for (at, field) in self.partition.iter().enumerate() {
            let literals = rows.clone().map(|(spec, partition)| {
                let place = *self.places.get(&spec)?.get(at)?;
                primitive(partition.fields().get(place?)?.as_ref())
            });
            arrays.push(values::values(&field.kind, literals)?);
        }
        Ok(Arc::new(StructArray::try_new(self.fields(), arrays, None)?))
    }
}

fn primitive(literal: Option<&Literal>) -> Option<&PrimitiveLiteral> {
    match literal {
        Some(Literal::Primitive(value)) => Some(value),
        _ => None,
    }
}

/// The type of a partition field's values.
pub(super) fn type_of(
    metadata: &TableMetadata,
    source: i32,
    transform: Transform,
) -> Option<PrimitiveType> {
    let current = metadata.current_schema().field_by_id(source);
    let field = current
        .or_else(|| metadata.schemas_iter().find_map(|schema| schema.field_by_id(source)))?;
    match transform.result_type(&field.field_type).ok()? {
        Type::Primitive(kind) => Some(kind),
        _ => None,
    }
}

fn leaves(metadata: &TableMetadata) -> Vec<LeafColumn> {
    let schema = metadata.current_schema();
    let names = schema.field_id_to_name_map().iter();
    let leaves = names.filter_map(|(id, name)| {
        let kind = schema.field_by_id(*id)?.field_type.as_primitive_type()?;
        Some(LeafColumn { id: *id, name: name.clone(), kind: kind.clone() })
    });
    let mut leaves: Vec<LeafColumn> = leaves.collect();
    leaves.sort_by(|one, other| one.name.cmp(&other.name));
    leaves
}
