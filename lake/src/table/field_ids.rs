//! Which field of a data file is which column of the table.
//!
//! Its one invariant: field ids decide (Iceberg specification, "Column Projection"), never a name that
//! the file has an id for. A file without ids is read by the table's name mapping, and where there is
//! none by name.

use crate::table::partition::field_id;
use arrow::datatypes::{DataType, Fields, Schema};
use iceberg::spec::{DEFAULT_SCHEMA_NAME_MAPPING, NameMapping, NestedField, TableMetadata};
use std::collections::HashMap;

/// Names of files that have no field ids, as the table's property `schema.name-mapping.default`
/// gives them: aliases by field id.
#[derive(Clone, Debug, Default)]
pub struct FieldAliases(Option<HashMap<i32, Vec<String>>>);

/// The table's property for names is not what Iceberg has there.
#[derive(Debug, thiserror::Error)]
#[error("the table's property `schema.name-mapping.default` is not a name mapping: {0}")]
pub struct NameMappingError(String);

impl FieldAliases {
    /// What the table's property says.
    ///
    /// # Errors
    /// [`NameMappingError`].
    pub fn of(table: &TableMetadata) -> Result<Self, NameMappingError> {
        let Some(text) = table.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) else {
            return Ok(Self::default());
        };
        let mapping: NameMapping =
            serde_json::from_str(text).map_err(|cause| NameMappingError(cause.to_string()))?;
        let mut names = HashMap::new();
        let mut open: Vec<_> = mapping.fields().iter().collect();
        while let Some(field) = open.pop() {
            if let Some(id) = field.field_id() {
                names.insert(id, field.names().to_vec());
            }
            open.extend(field.fields().iter().map(AsRef::as_ref));
        }
        Ok(Self(Some(names)))
    }

    /// Whether the table has such a mapping.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    fn has(&self, column: &NestedField, name: &str) -> bool {
        match &self.0 {
            // A field that the mapping leaves out is in no file without ids.
            Some(names) => {
                names.get(&column.id).is_some_and(|names| names.iter().any(|n| n == name))
            }
            None => column.name == name,
        }
    }
}

/// How fields of one file are found.
#[derive(Clone, Copy, Debug)]
pub struct FieldFinder<'a> {
    /// Whether the file has field ids.
    pub has_ids: bool,
    /// Names for a file without.
    pub aliases: &'a FieldAliases,
}

impl<'a> FieldFinder<'a> {
    /// For a file with these columns.
    #[must_use]
    pub fn of(file: &Schema, aliases: &'a FieldAliases) -> Self {
        let has_ids = file.fields().iter().any(|field| field_id(field).is_some());
        Self { has_ids, aliases }
    }

    /// The place of a column among these fields of the file.
    #[must_use]
    pub fn find(&self, fields: &Fields, column: &NestedField) -> Option<usize> {
        fields.iter().position(|field| {
            if self.has_ids {
                field_id(field) == Some(column.id)
            } else {
                self.aliases.has(column, field.name())
            }
        })
    }

    /// The same for a field that may be inside of structs: the places of these and its own, from the
    /// outermost. In a file without ids only the outermost fields are found.
    #[must_use]
    pub fn path(&self, fields: &Fields, column: &NestedField) -> Option<Vec<usize>> {
        if let Some(at) = self.find(fields, column) {
            return Some(vec![at]);
        }
        let structs = fields.iter().enumerate().filter(|_| self.has_ids);
        structs.into_iter().find_map(|(at, field)| match field.data_type() {
            DataType::Struct(inner) => {
                let inner = self.path(inner, column)?;
                Some([vec![at], inner].concat())
            }
            _ => None,
        })
    }
}
