//! Which event a bookmark names, and what is known of one whose event retention removed.

use crate::sql::{
    SqlInner,
    points::{PointReader, QueryPoints, invalid, of_table, without_versions},
    view::{ResolvedNamespace, history::oldest_of_main},
    visibility,
};
use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use iceberg::spec::TableMetadata;
use icecore_catalog::ancestors;
use icecore_engine::{
    error::SqlError,
    references::WantedTables,
    stop::QuerySignal,
    versions::{self, PointExpr},
    view::{TableView, View},
    visibility::VisibleRows,
};
use icecore_lake::{
    event::bookmark::{minted_seq, moment_seq},
    table::retention::REMOVED_FIRST_SEQ,
};
use icecore_schemas::{as_of::AsOf, service_table::EVENTS_TABLE};
use std::sync::Arc;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
struct BookmarkSearch<'a> {
    levels: &'a [String],
    table: &'a str,
    bookmark: &'a str,
    /// The last event that counts; none for all.
    until: Option<u64>,
    /// Which events are seen: one that is not has no bookmark here.
    visible: &'a [VisibleRows],
}

impl SqlInner {
    /// The last event with a bookmark, of those up to `until` that the reader sees.
    ///
    /// # Errors
    /// [`SqlError::Gone`] where retention removed it, [`SqlError::NotFound`] where nothing is known of it;
    /// [`SqlError::Forbidden`] for a table of which the reader sees no rows.
    pub(super) async fn seq_of(
        &self,
        reader: PointReader<'_>,
        table: &str,
        bookmark: &PointExpr,
        until: Option<u64>,
        signal: &Arc<QuerySignal>,
    ) -> Result<u64, SqlError> {
        let Some(bookmark) = versions::text_of(bookmark) else {
            return Err(invalid("BOOKMARK AS OF takes a bookmark in single quotes"));
        };
        let levels = reader.levels;
        // Before what a view reads is looked for: that may be in namespaces that only who asks may read.
        if let Some(space) = ResolvedNamespace::find(self.sources(), levels).await?
            && space.has_view(self.sources(), table).await?
        {
            return Err(invalid(format!(
                "view `{table}` takes no BOOKMARK AS OF, as it may read several tables: write FOR SEQ AS OF with the `seq` of that event behind it, or FOR TIMESTAMP AS OF"
            )));
        }
        let wanted = WantedTables::Named(vec![table.to_owned()]);
        let view = Box::pin(self.sources().view(levels, &wanted, &QueryPoints::default())).await?;
        // What is read stays readable while the pin lives.
        let (mut view, _pin) = view;
        // A collection's documents have the bookmarks of their last changes alone, and a view those of its rows.
        let is_table = view.collections.is_empty() && view.change_views.is_empty();
        let table = if is_table { table } else { EVENTS_TABLE };
        view.collections.clear();
        view.change_views.clear();
        let Some(now) = view.table(table).cloned() else {
            return Err(without_versions(table));
        };
        let visible = self.rows_seen(reader, &view.namespace);
        if !visible.is_empty() {
            visibility::check_table(&now)?;
        }
        let search = BookmarkSearch { levels, table, bookmark, until, visible: &visible };
        // The moment before a restore need not be that of an event. It comes first: anybody could give an event its
        // bookmark.
        let last = until.map_or(now.last_seq, |until| until.min(now.last_seq));
        if let Some(seq) = moment_seq(bookmark).filter(|seq| *seq <= last) {
            return Ok(seq);
        }
        if let Some(seq) = Box::pin(self.last_seq(&search, view, signal)).await? {
            return Ok(seq);
        }
        Err(Box::pin(self.missing(&search, &now, signal)).await?)
    }

    /// Which rows of the namespace the reader sees; empty for every row.
    fn rows_seen(
        &self,
        PointReader { levels, principal }: PointReader<'_>,
        namespace: &str,
    ) -> Vec<VisibleRows> {
        let principal = principal.filter(|_| self.options.filters_visibility);
        let values = principal.and_then(|principal| visibility::values_seen(principal, levels));
        let namespace = namespace.to_owned();
        values.map(|values| VisibleRows { namespace, values }).into_iter().collect()
    }

    /// The last event with the bookmark that is seen in this view.
    async fn last_seq(
        &self,
        search: &BookmarkSearch<'_>,
        view: View,
        signal: &Arc<QuerySignal>,
    ) -> Result<Option<u64>, SqlError> {
        let bound = search.until.map(|seq| format!(" AND seq <= {seq}")).unwrap_or_default();
        let is_named = format!("bookmark = '{}'{bound}", search.bookmark.replace('\'', "''"));
        let view = View { visible: search.visible.to_vec(), ..view };
        self.last_seq_where(search, &is_named, view, signal).await
    }

    async fn last_seq_where(
        &self,
        BookmarkSearch { levels, table, .. }: &BookmarkSearch<'_>,
        condition: &str,
        view: View,
        signal: &Arc<QuerySignal>,
    ) -> Result<Option<u64>, SqlError> {
        let sql = format!(
            "SELECT CAST(max(seq) AS BIGINT) FROM \"{}\" WHERE {condition}",
            table.replace('"', "\"\"")
        );
        let value = self.value(levels, &sql, view, 0, signal).await;
        let value = value.map_err(|cause| of_table(table, cause))?;
        let seqs = value.as_ref().and_then(|it| it.as_primitive_opt::<Int64Type>());
        let seq = seqs.filter(|seqs| seqs.is_valid(0)).map(|seqs| seqs.value(0));
        Ok(seq.and_then(|seq| u64::try_from(seq).ok()))
    }

    /// The error for a bookmark that no event of the table has now. Its event was removed where the last snapshot
    /// before all removals has it, or where its text names the `seq` of an event that was acknowledged and is in the
    /// table no more.
    async fn missing(
        &self,
        search: &BookmarkSearch<'_>,
        now: &TableView,
        signal: &Arc<QuerySignal>,
    ) -> Result<SqlError, SqlError> {
        let BookmarkSearch { levels, table, bookmark, until, .. } = *search;
        let gone = |nearest: Option<i64>| SqlError::Gone {
            text: format!(
                "the event of table `{table}` with bookmark `{bookmark}` was removed; `nearest` has a snapshot that can be read instead"
            ),
            nearest: nearest.map(|id| id.to_string()).into_iter().collect(),
        };
        let wanted = WantedTables::Named(vec![table.to_owned()]);
        if let Some(before) = now.metadata.as_deref().and_then(before_removals) {
            let as_of = Some(AsOf::Snapshot(before));
            let points = QueryPoints { as_of, ..QueryPoints::default() };
            let view = Box::pin(self.sources().view(levels, &wanted, &points)).await?;
            let (view, _pin) = view;
            if Box::pin(self.last_seq(search, view, signal)).await?.is_some() {
                return Ok(gone(Some(before)));
            }
        }
        let last = until.map_or(now.last_seq, |until| until.min(now.last_seq));
        if let Some(seq) = minted_seq(bookmark).filter(|seq| (1..=last).contains(seq)) {
            let points = QueryPoints::default();
            let (view, _pin) = Box::pin(self.sources().view(levels, &wanted, &points)).await?;
            // The event that is there has another bookmark, so none ever had this one, or it is not seen.
            let is_of_it = format!("seq = {seq}");
            let there = Box::pin(self.last_seq_where(search, &is_of_it, view, signal)).await?;
            if there.is_none() {
                return Ok(gone(oldest_of_main(now)));
            }
        }
        Ok(SqlError::NotFound(format!("no event of table `{table}` has bookmark `{bookmark}`")))
    }
}

/// The retained snapshot that the first known removal was made from.
fn before_removals(metadata: &TableMetadata) -> Option<i64> {
    let all = ancestors::of(metadata, metadata.current_snapshot_id());
    let removals = all.filter(|snapshot| {
        snapshot.summary().additional_properties.contains_key(REMOVED_FIRST_SEQ)
    });
    let before = removals.filter_map(|snapshot| snapshot.parent_snapshot_id());
    before.filter(|id| metadata.snapshot_by_id(*id).is_some()).last()
}
