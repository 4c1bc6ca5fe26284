//! Points of a branch: its head, and what is looked for among its events.
//!
//! A branch has no tail in the log, so its newest event is that of its snapshot.

use crate::http::{
    error::ApiError,
    points::{FoundPoint, ReadCaller, statement, texts, time_text},
};
use icecore_catalog::catalog::LoadedTable;
use icecore_lake::{branch::Branch, event::bookmark::moment_seq, table::schema::foreign_ident};
use icecore_schemas::{
    as_of::AsOf, error_code::ErrorCode, point::MAIN_BRANCH, service_table::EVENTS_TABLE,
};
use serde_json::{Value, json};

/// Most branches that an error lists.
const LISTED_MAX: usize = 20;
/// The last event of those that follow.
const LAST: &str = "SELECT CAST(max(seq) AS bigint) AS seq FROM";

impl ReadCaller<'_> {
    /// The last event of a branch.
    ///
    /// # Errors
    /// 404 for a branch that is not there; else as queries.
    pub(super) async fn head_of(self, branch: &str) -> Result<FoundPoint, ApiError> {
        // What reads as a snapshot or a time, or is empty, is the name of no branch.
        if !matches!(branch.parse::<AsOf>(), Ok(AsOf::Reference(_))) {
            return Err(self.no_branch(branch).await);
        }
        match Box::pin(self.referred(json!(branch))).await {
            Ok(found) if found.branch.as_deref() == Some(branch) => Ok(found),
            // A tag, or a ref that another engine made.
            Ok(_) => Err(self.no_branch(branch).await),
            Err(error) if error.code() == ErrorCode::NotFound => Err(self.no_branch(branch).await),
            Err(error) => Err(error),
        }
    }

    /// What a snapshot or tag stands for that is a state of the branch that the request names; of any branch where it
    /// names none. `head` is the newest event of the branch.
    pub(super) async fn referred_on(
        self,
        branch: Option<&str>,
        head: &FoundPoint,
        as_of: Value,
    ) -> Result<FoundPoint, ApiError> {
        let found = Box::pin(self.referred(as_of)).await?;
        if let Some(branch) = branch
            && found.branch.as_deref().unwrap_or(MAIN_BRANCH) != branch
        {
            let text = format!(
                "the point is no state of branch `{branch}`: leave the branch out, or name a point of it such as seq:17"
            );
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
        if head.branch.is_none() {
            Box::pin(self.check_kept(&found)).await?;
        }
        Ok(found)
    }

    /// Refuses a state that a branch had and that none leads to any more: no event of a branch or of `main` names it.
    async fn check_kept(self, found: &FoundPoint) -> Result<(), ApiError> {
        let Some(snapshot) = found.snapshot.filter(|_| found.branch.is_none()) else {
            return Ok(());
        };
        let Some(table) = self.events().await else { return Ok(()) };
        if !Branch::is_lost(&table.metadata, snapshot) {
            return Ok(());
        }
        let text = format!(
            "the point is a state that its branch does not have any more: read it in SQL, as events FOR VERSION AS OF {snapshot}"
        );
        Err(ApiError::new(ErrorCode::InvalidRequest, text))
    }

    /// The last event with a bookmark among those up to `head`.
    ///
    /// # Errors
    /// 404 where there is none, 410 where it was removed; else as queries.
    pub(in crate::http) async fn bookmark_on(
        self,
        head: &FoundPoint,
        bookmark: &str,
    ) -> Result<u64, ApiError> {
        let Some(branch) = &head.branch else { return Box::pin(self.bookmark(bookmark)).await };
        let found = match moment_seq(bookmark) {
            // The moments before restores and merges are of `main`.
            Some(seq) => {
                let last = head.seq.unwrap_or(0).min(self.shared_with_main(branch).await);
                Some(seq).filter(|seq| *seq <= last)
            }
            None => {
                let sql = format!("{LAST} {} WHERE bookmark = $1", head.events());
                self.number(statement(&sql, vec![bookmark.into()])).await?
            }
        };
        found.ok_or_else(|| {
            let text = format!("no event of branch `{branch}` has bookmark `{bookmark}`");
            ApiError::new(ErrorCode::NotFound, text)
        })
    }

    /// The last event up to which a branch has the events of `main`; 0 where it is not known.
    async fn shared_with_main(self, branch: &str) -> u64 {
        let table = self.events().await;
        let shared =
            table.and_then(|table| Branch::of(&table.metadata, branch)?.main_seq(&table.metadata));
        shared.unwrap_or(0)
    }

    /// Table `events`, which a statement of the caller has read; none where it does not load any more.
    async fn events(self) -> Option<LoadedTable> {
        let ident = foreign_ident(self.levels, EVENTS_TABLE)?;
        self.app.catalog.tables().load(&ident).await.ok()
    }

    /// The last event of a branch that was acknowledged up to a time, wherever it was.
    pub(super) async fn acknowledged_on(
        self,
        head: &FoundPoint,
        us: i64,
    ) -> Result<FoundPoint, ApiError> {
        let time = time_text(us)?;
        let sql =
            format!("{LAST} {} WHERE ingested_at <= CAST('{time}' AS timestamptz)", head.events());
        let found = self.number(statement(&sql, Vec::new())).await?;
        Ok(head.with_seq(found.unwrap_or(0)))
    }

    /// The error for a branch that is not there.
    async fn no_branch(self, name: &str) -> ApiError {
        let sql = format!("SELECT name FROM branches ORDER BY name LIMIT {LISTED_MAX}");
        let listed = match self.ask(statement(&sql, Vec::new())).await {
            Ok(answer) => texts(answer, "name").await,
            Err(error) => Err(error),
        };
        // That the branch is not there is what counts.
        let listed = listed.unwrap_or_default().into_iter();
        let names: Vec<String> = listed.map(|name| format!(", `{name}`")).collect();
        let text =
            format!("there is no branch `{name}`: the namespace has `main`{}", names.concat());
        ApiError::new(ErrorCode::NotFound, text)
    }
}
