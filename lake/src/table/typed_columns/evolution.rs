//! What becomes of a collection's table with another schema of its documents: columns come, or get wider.
//!
//! Its one invariant: a column keeps its name, its field id and every value that it can have.

use crate::table::typed_columns::{
    MISFITS, MISFITS_DOC, SCHEMA, TypedColumn, TypedColumns, TypedMember,
    json_schema::DocumentSchema, names::column_name,
};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{NestedField, NestedFieldRef, PrimitiveType, Schema, TableMetadata, Type},
};
use icecore_catalog::snapshot::TableEvolution;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Why a schema cannot follow the one that a table has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvolutionError {
    /// Columns would go or become narrower.
    #[error(
        "columns are only added or widened, and this schema is narrower than the registered one: {}; keep what is there",
        .0.join("; ")
    )]
    Narrower(Vec<String>),
    /// No name is left for the column of a member.
    #[error("property `{0}` makes the name of another column: leave it out")]
    Name(String),
}

/// A column that comes or gets wider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnChange {
    /// The column.
    pub column: String,
    /// What it was; none for a new one.
    pub before: Option<String>,
    /// What it is then.
    pub now: String,
}

/// What a schema makes of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaEvolution {
    columns: Vec<TypedColumn>,
    changes: Vec<ColumnChange>,
    text: String,
}

impl SchemaEvolution {
    /// Compares a schema with that of a table.
    ///
    /// # Errors
    /// [`EvolutionError`] names what differs.
    pub fn of(table: &TableMetadata, wanted: &DocumentSchema) -> Result<Self, EvolutionError> {
        let known = TypedColumns::of(table);
        let mut members: HashMap<&str, &TypedMember> =
            wanted.members().iter().map(|member| (member.member.as_str(), member)).collect();
        let (mut columns, mut changes, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for column in known.columns() {
            let before = &column.of;
            let Some(now) = members.remove(before.member.as_str()) else {
                lost.push(format!("property `{}` is gone", before.member));
                continue;
            };
            lost.extend(narrowed(before, now));
            if before != now {
                changes.push(ColumnChange {
                    column: column.name.clone(),
                    before: Some(described(before)),
                    now: described(now),
                });
            }
            columns.push(TypedColumn { name: column.name.clone(), of: now.clone() });
        }
        if !lost.is_empty() {
            return Err(EvolutionError::Narrower(lost));
        }
        let fields = table.current_schema().as_struct().fields();
        let mut taken: HashSet<String> =
            fields.iter().map(|field| field.name.to_lowercase()).collect();
        // In the order of the schema, so that names do not depend on anything else.
        for member in wanted.members().iter().filter(|it| members.contains_key(it.member.as_str()))
        {
            let name = column_name(&member.member, &mut taken)
                .ok_or_else(|| EvolutionError::Name(member.member.clone()))?;
            let (column, now) = (name.clone(), described(member));
            changes.push(ColumnChange { column, before: None, now });
            columns.push(TypedColumn { name, of: member.clone() });
        }
        Ok(Self { columns, changes, text: wanted.text().to_owned() })
    }

    /// The columns that the table has then, without [`MISFITS`].
    #[must_use]
    pub fn columns(&self) -> &[TypedColumn] {
        &self.columns
    }

    /// Those that come or get wider.
    #[must_use]
    pub fn changes(&self) -> &[ColumnChange] {
        &self.changes
    }

    /// What a commit on this very table changes; none where it has all of it.
    ///
    /// # Errors
    /// Iceberg's, for a schema that cannot be.
    pub fn evolution(
        &self,
        table: &TableMetadata,
    ) -> Result<Option<TableEvolution>, iceberg::Error> {
        /// The schema that was added last.
        const LAST: i32 = -1;
        let mut updates = Vec::new();
        if !self.changes.is_empty() {
            let schema = self.schema(table)?;
            updates.push(TableUpdate::AddSchema { schema });
            updates.push(TableUpdate::SetCurrentSchema { schema_id: LAST });
        }
        if TypedColumns::registered(table) != Some(self.text.as_str()) {
            let property = (SCHEMA.to_owned(), self.text.clone());
            updates.push(TableUpdate::SetProperties { updates: [property].into() });
        }
        if updates.is_empty() {
            return Ok(None);
        }
        let requirements = vec![
            TableRequirement::UuidMatch { uuid: table.uuid() },
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: table.current_schema_id() },
            TableRequirement::LastAssignedFieldIdMatch {
                last_assigned_field_id: table.last_column_id(),
            },
        ];
        Ok(Some(TableEvolution { requirements, updates }))
    }

    /// The table's columns as they are then. Those that are there keep their places and ids.
    fn schema(&self, table: &TableMetadata) -> Result<Schema, iceberg::Error> {
        let before = table.current_schema();
        let known = before.as_struct().fields();
        let own = |name: &str| self.columns.iter().find(|column| column.name == name);
        let mut fields: Vec<NestedFieldRef> = known
            .iter()
            .map(|field| match own(&field.name) {
                Some(column) => column.field(field.id),
                None => Arc::clone(field),
            })
            .collect();
        let is_known = |name: &str| known.iter().any(|field| field.name == name);
        let mut ids = table.last_column_id() + 1..;
        let mut next_id = || ids.next().unwrap_or(i32::MAX);
        if !is_known(MISFITS) {
            let kind = Type::Primitive(PrimitiveType::Int);
            let misfits = NestedField::optional(next_id(), MISFITS, kind).with_doc(MISFITS_DOC);
            fields.push(Arc::new(misfits));
        }
        for column in self.columns.iter().filter(|column| !is_known(&column.name)) {
            fields.push(column.field(next_id()));
        }
        Schema::builder()
            .with_fields(fields)
            .with_identifier_field_ids(before.identifier_field_ids())
            .build()
    }
}

/// What is not wanted any more that was; nothing where the second takes all that the first does.
fn narrowed(before: &TypedMember, now: &TypedMember) -> Vec<String> {
    let name = &before.member;
    let mut lost = Vec::new();
    if !before.kind.widens_to(now.kind) {
        lost.push(format!("property `{name}` is {}, and would be {}", before.kind, now.kind));
    }
    if before.nullable && !now.nullable {
        lost.push(format!("property `{name}` may be null, and would not be"));
    }
    if !before.required && now.required {
        lost.push(format!("property `{name}` may be missing, and would not be"));
    }
    lost
}

/// A member as changes tell of it.
fn described(member: &TypedMember) -> String {
    let mut text = member.kind.to_string();
    if !member.nullable {
        text.push_str(" not null");
    }
    if member.required {
        text.push_str(" required");
    }
    text
}
