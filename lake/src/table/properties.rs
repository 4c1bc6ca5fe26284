//! What the table properties of the service may say.
//!
//! The catalog asks at a commit that sets one, as it knows nothing of events. Its one invariant: what is refused here is
//! what those who read the property could not go by.

use crate::table::{compaction, erasure::foreign, promoted};
use iceberg::spec::TableMetadata;
use icecore_catalog::retention::{self, ROWS_KEPT};
use icecore_schemas::retention::RetentionRules;

/// Why a property of the table says nothing with this value, and what to write; none where it does, and where nobody
/// reads the property of such a table.
#[must_use]
pub fn fault(table: &TableMetadata, key: &str, value: &str) -> Option<String> {
    let is_ours = retention::is_managed(table);
    match key {
        compaction::SWITCH => compaction::switch_fault(value),
        ROWS_KEPT if is_ours => {
            let problem = value.parse::<RetentionRules>().err()?;
            Some(format!("its property `{ROWS_KEPT}`: {problem}"))
        }
        promoted::PROMOTED_PATHS if is_ours => {
            let problem = promoted::check(value).err()?;
            Some(format!("its property `{key}`: {problem}"))
        }
        _ => foreign::property_fault(table, key),
    }
}

#[cfg(test)]
mod tests;
