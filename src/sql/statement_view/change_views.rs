//! The views over changes and the table of branches that a statement names, where nothing else has the name.

use crate::sql::{
    points::{QueryPoints, TableRead},
    statement_view::ViewDraft,
    view::{ResolvedNamespace, history::branch_rows},
};
use icecore_engine::{
    branches::BRANCHES_TABLE,
    change_views::{events_name, is_view},
    error::SqlError,
    view::{BranchesView, ChangeView},
};
use icecore_schemas::service_table::EVENTS_TABLE;

/// The view over changes that a name means, and what the view of the query has its events by, at the same point.
fn meaning(points: &QueryPoints, name: &str) -> Option<(String, String)> {
    let view = match points.versions.get(name) {
        Some((table, _)) => table.as_str(),
        None if is_view(name) => name,
        None => name.rsplit_once('@')?.0,
    };
    Some((view.to_owned(), events_name(name, view)?))
}

/// Whether a name means events of which some before them are not read. The log counts from 1.
fn lacks_earlier(points: &QueryPoints, name: &str) -> bool {
    matches!(points.point_of(name), Some(TableRead::Now(Some(range))) if 1 < range.first)
}

impl ViewDraft<'_> {
    /// A view over the changes of a namespace that has some.
    pub(super) async fn add_change_view(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        let Some((view, events)) = meaning(self.points(schema), name) else { return Ok(false) };
        if !space.has_events {
            return Ok(false);
        }
        // A view of the catalog has no versions.
        if view != name && space.has_view(self.sources, &view).await? {
            return Ok(false);
        }
        if !self.has(schema, &events) && !self.add_table(schema, space, &events).await? {
            return Ok(false);
        }
        // A patch needs the changes before it, and who sees them.
        let is_part = lacks_earlier(self.points(schema), name) || self.values_seen(space).is_some();
        let (namespace, name) = (schema.to_owned(), name.to_owned());
        let view = ChangeView { namespace, name, view, events, applies_patches: !is_part };
        if !self.view.change_views.contains(&view) {
            self.view.change_views.push(view);
        }
        Ok(true)
    }

    /// The branches of a namespace that has events.
    pub(super) async fn add_branches(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        if name != BRANCHES_TABLE || !space.has_events {
            return Ok(false);
        }
        self.check_has_versions(schema, name)?;
        if self.view.branches.iter().any(|known| known.namespace == schema) {
            return Ok(true);
        }
        let events = Box::pin(space.load(self.sources.catalog, EVENTS_TABLE)).await?;
        let rows = events.map(|events| branch_rows(&events.metadata)).unwrap_or_default();
        // The session has a schema of the namespaces that are in the view.
        self.view.namespace_mut(schema);
        self.view.branches.push(BranchesView { namespace: schema.to_owned(), rows });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_engine::seq_range::SeqRange;

    #[test]
    fn a_name_means_a_view_and_its_events_at_one_point() {
        let mut points = QueryPoints::default();
        let up_to = TableRead::Now(Some(SeqRange::up_to(3)));
        let versioned = "things FOR SEQ AS OF 3";
        points.versions.insert(versioned.to_owned(), ("things".to_owned(), up_to));
        for (name, expected) in [
            ("things", Some(("things", "events"))),
            (versioned, Some(("things", "events FOR SEQ AS OF 3"))),
            ("things@trial", Some(("things", "events@trial"))),
            ("cdc_a@b_deltas", Some(("cdc_a@b_deltas", "events"))),
            ("cdc_users_deltas@~1", Some(("cdc_users_deltas", "events@~1"))),
            ("orders@trial", None),
            ("cdc_users", None),
        ] {
            let found = meaning(&points, name);
            let found = found.as_ref().map(|(view, events)| (view.as_str(), events.as_str()));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn only_a_range_with_a_beginning_lacks_what_was_before() {
        let mut points = QueryPoints::default();
        for (first, is_lacking) in [(0, false), (1, false), (2, true)] {
            let name = format!("things BETWEEN SEQ {first} AND 3");
            let read = TableRead::Now(Some(SeqRange { first, last: 3 }));
            points.versions.insert(name.clone(), ("things".to_owned(), read));
            assert_eq!(lacks_earlier(&points, &name), is_lacking, "{name}");
        }
        assert!(!lacks_earlier(&points, "things"));
    }
}
