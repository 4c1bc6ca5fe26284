//! What keeps events of branches out of `main` of a table of the service.

use crate::{
    ancestors,
    error::CatalogError,
    retention::{self, BRANCH},
};
use iceberg::spec::TableMetadata;

/// Refuses to take `main` of a table of the service to a snapshot that was made for a branch, or to one that was built
/// on such a snapshot: its rows have numbers that the next rows of `main` get, too.
///
/// # Errors
/// [`CatalogError::Invalid`].
pub(super) fn check_main(base: &TableMetadata, new: &TableMetadata) -> Result<(), CatalogError> {
    let (before, after) = (base.current_snapshot_id(), new.current_snapshot_id());
    if before == after || !retention::is_managed(base) {
        return Ok(());
    }
    let came = ancestors::of(new, after).take_while(|it| Some(it.snapshot_id()) != before);
    let mut branches = came.filter_map(|it| it.summary().additional_properties.get(BRANCH));
    match branches.next() {
        None => Ok(()),
        Some(branch) => Err(CatalogError::Invalid(format!(
            "this server writes to the table: `main` cannot go to branch `{branch}`, whose rows have numbers that \
             others of `main` get as well; merge it with `POST /v1/{{namespace}}/branches/{branch}/merge`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `main` has snapshot 1, and 2 on it. Snapshots 3 and 4 are of a branch of 2, the second one of another engine, and
    /// 5 is of another engine on 2.
    fn at(main: i64, is_managed: bool) -> TableMetadata {
        let parents = [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(3)), (5, Some(2))];
        let snapshots = parents.map(|(id, parent)| {
            let mut summary = json!({ "operation": "append" });
            if id == 3 {
                summary[BRANCH] = json!("trial");
            }
            json!({
                "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": id,
                "timestamp-ms": id * 1_000, "manifest-list": "file:///w/t/metadata/l.avro",
                "summary": summary, "schema-id": 0,
            })
        });
        serde_json::from_value(json!({
            "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
            "location": "file:///w/t", "last-sequence-number": 5, "last-updated-ms": 9_000,
            "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
            "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
            "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
            "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
            "properties": { (retention::MANAGED): is_managed.to_string() },
            "current-snapshot-id": main, "snapshots": snapshots,
            "snapshot-log": [{ "timestamp-ms": 9_000, "snapshot-id": main }],
            "refs": { "main": { "type": "branch", "snapshot-id": main } },
        }))
        .unwrap()
    }

    #[test]
    fn main_does_not_go_to_a_branch_of_the_service() {
        for (before, after, is_taken) in
            [(2, 2, true), (2, 5, true), (1, 2, true), (2, 3, false), (2, 4, false), (1, 4, false)]
        {
            let checked = check_main(&at(before, true), &at(after, true));
            assert_eq!(checked.is_ok(), is_taken, "{before} to {after}: {checked:?}");
            assert!(check_main(&at(before, false), &at(after, false)).is_ok());
        }
    }
}
