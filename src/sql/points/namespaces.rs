//! The points of tables that are not looked for in the query's own namespace: those of other namespaces, and those
//! behind views of the catalog that have a point.
//!
//! Behind such a view, a namespace has a name of its own, that with the words of the point behind it: its tables are
//! others than those that the statement reads without the point.

use crate::sql::points::{QueryPoints, TableRead, invalid};
use icecore_engine::{
    error::SqlError,
    versions::{TableVersion, VersionPoint},
};
use icecore_schemas::{
    names::RESERVED_NAMES,
    query::{NamespaceBasis, QueryBasis},
};

impl QueryPoints {
    /// Those of tables of other namespaces without any of their own. A basis that is sent has none of their tables.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        let basis = self.basis.as_ref().map(|_| QueryBasis::default());
        Self { as_of: self.as_of.clone(), basis, ..Self::default() }
    }

    /// Those of the tables of a namespace that the statement writes so; none for the query's own.
    pub(super) fn of_namespace(&mut self, namespace: Option<&str>) -> &mut Self {
        let Some(namespace) = namespace else { return self };
        let elsewhere = self.elsewhere();
        self.others.entry(namespace.to_owned()).or_insert(elsewhere)
    }

    /// Notes what an answer that is to be made again had of other namespaces.
    pub(super) fn repeat_others(&mut self) {
        let Some(basis) = &self.basis else { return };
        let others = basis.namespaces.iter().map(|(namespace, part)| {
            let NamespaceBasis { seq, branch, snapshots } = part.clone();
            let basis = QueryBasis { seq, branch, snapshots, ..QueryBasis::default() };
            (namespace.clone(), Self { basis: Some(basis), ..Self::default() })
        });
        self.others = others.collect();
    }

    /// Those of the tables of a namespace that is not the query's own; none where it has none.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Option<&Self> {
        let behind_view = || self.behind_views.get(self.words_of(namespace)?);
        self.others.get(namespace).or_else(behind_view)
    }

    /// The words of the point in the name that a namespace has behind a view of the catalog.
    #[must_use]
    pub fn words_of(&self, namespace: &str) -> Option<&str> {
        let all = self.behind_views.keys().map(String::as_str);
        all.filter(|words| namespace.ends_with(*words)).max_by_key(|words| words.len())
    }

    /// Notes the point of a table for those that it reads, where it is a view of the catalog.
    pub(super) fn hold(
        &mut self,
        version: &TableVersion,
        read: &TableRead,
    ) -> Result<(), SqlError> {
        // The `seq` of a bookmark is looked for in one table. A view of the catalog has none.
        if matches!(version.point, VersionPoint::Bookmark(_)) {
            return Ok(());
        }
        let words = version.words();
        let held = self.behind_views.get(words).and_then(|points| points.every.as_ref());
        if held.is_some_and(|held| held != read) {
            return Err(invalid(format!(
                "the versions of two tables are both written as `{words}`; write shorter expressions"
            )));
        }
        let every = Some(read.clone());
        for (namespace, points) in &mut self.others {
            if namespace.ends_with(words) {
                points.every.clone_from(&every);
            }
        }
        let points = Self { every, as_of: None, ..self.elsewhere() };
        self.behind_views.insert(words.to_owned(), points);
        Ok(())
    }
}

/// The namespace that a table with a version has in the statement; none for the query's own.
pub(super) fn other_namespace<'a>(
    version: &'a TableVersion,
    own: &str,
) -> Result<Option<&'a str>, SqlError> {
    let TableVersion { schema, table, point, .. } = version;
    let Some(schema) = schema.as_deref().filter(|schema| *schema != own) else { return Ok(None) };
    if RESERVED_NAMES.contains(&schema) {
        return Err(invalid(format!(
            "`{schema}.{table}` has no versions: only tables of namespaces have some"
        )));
    }
    match point {
        VersionPoint::Bookmark(_) => Err(invalid(format!(
            "FOR BOOKMARK AS OF is for tables of the query's own namespace: write `{schema}.{table}` with FOR SEQ AS OF, or ask in that namespace"
        ))),
        VersionPoint::Time(_)
        | VersionPoint::Version(_)
        | VersionPoint::Seq(_)
        | VersionPoint::BranchSeq(..)
        | VersionPoint::SeqRange(..) => Ok(Some(schema)),
    }
}
