//! The pure rules of a view's commit: do the requirements hold, and what do the updates make of it.
//!
//! Nothing here does IO or reads a clock. The history of a view never goes back in time, whatever
//! the clock of the client that replaces it says.

use crate::error::CatalogError;
use iceberg::{
    ViewUpdate,
    spec::{Schema, ViewFormatVersion, ViewMetadata, ViewMetadataBuilder, ViewVersion},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// How many versions a view keeps.
const HISTORY_PROPERTY: &str = "version.history.num-entries";

/// What must hold for a change of a view.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum ViewRequirement {
    /// It is still this view.
    #[serde(rename = "assert-view-uuid")]
    UuidMatch {
        /// Its identity.
        uuid: Uuid,
    },
}

/// A view's metadata as files and answers hold it: versions and schemas in the order of their ids.
///
/// # Panics
/// Never: metadata that was built always serializes.
#[must_use]
pub fn to_json(metadata: &ViewMetadata) -> Value {
    let mut json = serde_json::to_value(metadata).expect("view metadata has only string keys");
    for (list, id) in [("versions", "version-id"), ("schemas", "schema-id")] {
        if let Some(items) = json.get_mut(list).and_then(Value::as_array_mut) {
            items.sort_by_key(|item| item[id].as_i64());
        }
    }
    json
}

/// Checks `requirements`, with the messages of the Java reference (`Requirement failed: …`).
///
/// # Errors
/// [`CatalogError::CommitFailed`] names the first requirement that does not hold.
pub(crate) fn check_requirements(
    requirements: &[ViewRequirement],
    base: &ViewMetadata,
) -> Result<(), CatalogError> {
    for ViewRequirement::UuidMatch { uuid } in requirements {
        if *uuid != base.uuid() {
            return Err(CatalogError::CommitFailed(format!(
                "Requirement failed: view UUID does not match: expected {uuid} != {}",
                base.uuid()
            )));
        }
    }
    Ok(())
}

/// A new view with this first version.
///
/// # Errors
/// [`CatalogError::IllegalArgument`] says what does not fit.
pub(crate) fn create(
    uuid: Uuid,
    location: String,
    schema: Schema,
    version: ViewVersion,
    properties: HashMap<String, String>,
) -> Result<ViewMetadata, CatalogError> {
    check_version(&version)?;
    check_history(&properties)?;
    let builder =
        ViewMetadataBuilder::new(location, schema, version, ViewFormatVersion::V1, properties);
    let built = builder.and_then(|builder| builder.assign_uuid(uuid).build());
    Ok(built.map_err(|cause| invalid(&cause))?.metadata)
}

/// The updates that make this view from nothing, with all its versions.
pub(crate) fn making(view: &ViewMetadata) -> Vec<ViewUpdate> {
    let mut updates = vec![
        ViewUpdate::AssignUuid { uuid: view.uuid() },
        ViewUpdate::UpgradeFormatVersion { format_version: view.format_version() },
        ViewUpdate::SetLocation { location: view.location().to_owned() },
    ];
    let mut schemas: Vec<_> = view.schemas_iter().collect();
    schemas.sort_by_key(|schema| schema.schema_id());
    updates.extend(schemas.into_iter().map(|schema| ViewUpdate::AddSchema {
        schema: schema.as_ref().clone(),
        last_column_id: None,
    }));
    let mut versions: Vec<_> = view.versions().collect();
    versions.sort_by_key(|version| version.version_id());
    updates.extend(
        versions
            .into_iter()
            .map(|version| ViewUpdate::AddViewVersion { view_version: version.as_ref().clone() }),
    );
    updates.push(ViewUpdate::SetCurrentViewVersion { view_version_id: view.current_version_id() });
    if !view.properties().is_empty() {
        updates.push(ViewUpdate::SetProperties { updates: view.properties().clone() });
    }
    updates
}

/// Applies `updates` to `base`; the result equals `base` when they change nothing.
///
/// # Errors
/// [`CatalogError::IllegalArgument`] names the update that does not fit.
pub(crate) fn apply_updates(
    base: &ViewMetadata,
    updates: &[ViewUpdate],
) -> Result<ViewMetadata, CatalogError> {
    let latest = base.history().iter().map(|entry| entry.timestamp_ms()).max();
    let mut builder = base.clone().into_builder();
    for update in updates {
        builder = apply(builder, update.clone(), base, latest)?;
    }
    Ok(builder.build().map_err(|cause| invalid(&cause))?.metadata)
}

fn apply(
    builder: ViewMetadataBuilder,
    update: ViewUpdate,
    base: &ViewMetadata,
    latest: Option<i64>,
) -> Result<ViewMetadataBuilder, CatalogError> {
    let applied = match update {
        ViewUpdate::AssignUuid { uuid } if uuid == base.uuid() => Ok(builder),
        ViewUpdate::AssignUuid { .. } => {
            return Err(CatalogError::IllegalArgument("Cannot reassign uuid".to_owned()));
        }
        ViewUpdate::UpgradeFormatVersion { format_version } => {
            builder.upgrade_format_version(format_version)
        }
        ViewUpdate::AddSchema { schema, .. } => Ok(builder.add_schema(schema)),
        ViewUpdate::SetLocation { location } => Ok(builder.set_location(location)),
        ViewUpdate::SetProperties { updates } => {
            check_history(&updates)?;
            builder.set_properties(updates)
        }
        ViewUpdate::RemoveProperties { removals } => Ok(builder.remove_properties(&removals)),
        ViewUpdate::AddViewVersion { view_version } => {
            check_version(&view_version)?;
            builder.add_version(not_before(view_version, latest))
        }
        ViewUpdate::SetCurrentViewVersion { view_version_id } => {
            builder.set_current_version_id(view_version_id)
        }
    };
    applied.map_err(|cause| invalid(&cause))
}

/// The same version, made no earlier than the view's last change.
fn not_before(version: ViewVersion, latest: Option<i64>) -> ViewVersion {
    let Some(latest) = latest.filter(|latest| version.timestamp_ms() < *latest) else {
        return version;
    };
    ViewVersion::builder()
        .with_version_id(version.version_id())
        .with_schema_id(version.schema_id())
        .with_timestamp_ms(latest)
        .with_summary(version.summary().clone())
        .with_representations(version.representations().clone())
        .with_default_catalog(version.default_catalog().cloned())
        .with_default_namespace(version.default_namespace().clone())
        .build()
}

fn check_version(version: &ViewVersion) -> Result<(), CatalogError> {
    if version.representations().is_empty() {
        let text = "Cannot create view without specifying a query";
        return Err(CatalogError::IllegalArgument(text.to_owned()));
    }
    Ok(())
}

/// A view keeps at least its current version.
fn check_history(properties: &HashMap<String, String>) -> Result<(), CatalogError> {
    match properties.get(HISTORY_PROPERTY).map(|text| (text, text.parse::<u32>())) {
        None => Ok(()),
        Some((_, Ok(entries))) if entries > 0 => Ok(()),
        Some((text, _)) => Err(CatalogError::IllegalArgument(format!(
            "{HISTORY_PROPERTY} must be positive but was {text}"
        ))),
    }
}

fn invalid(cause: &iceberg::Error) -> CatalogError {
    CatalogError::IllegalArgument(cause.message().to_owned())
}

#[cfg(test)]
mod tests;
