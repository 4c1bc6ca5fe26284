//! The branches of collections' tables that have the documents of a branch, for other engines: refreshed by hand, and
//! dropped with the branch.

use crate::{
    http::{
        AppState,
        branches::{append::BranchHead, create::BranchRequest, events, head, writable},
        error::ApiError,
        guard,
        jobs::materialize::erasures_of,
        record::ChangeCaller,
    },
    maintenance::erasure::Erasures,
    sql::{
        collection_refresh::{CommitCheck, RefreshedCollection, branch::BranchState},
        materialized::RefreshCaller,
    },
};
use futures::FutureExt;
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
};
use icecore_lake::{
    branch::Branch,
    collection::{TABLE_PREFIX, table_name},
    table::schema::{TableIdent, ident},
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace, service_table::EVENTS_TABLE};
use std::sync::Arc;
use tracing::warn;

/// Why the branch of a table is not refreshed now.
const IS_ERASING: &str = "an erasure takes documents of the collection out of its table: refresh the branch when the erasure is done; GET /v1/{ns}/erase tells how far it is";
/// Most tables that are looked at: a namespace has fewer collections.
const TABLES_MAX: usize = 2000;

/// Which branch of whose tables is refreshed.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct DocumentsRequest<'a> {
    /// Whose collections they are, as the path has it.
    pub(in crate::http) namespace: &'a str,
    /// Its levels in the catalog.
    pub(in crate::http) levels: &'a [String],
    /// The collection.
    pub(in crate::http) collection: &'a str,
    /// The branch.
    pub(in crate::http) branch: &'a str,
    /// Whether all documents are written anew.
    pub(in crate::http) is_full: bool,
}

/// Has the table of a collection follow a branch. Durable on return.
///
/// # Errors
/// 404 without such a branch, or where it has no changes of the collection, 409 where the table has another branch or
/// tag of the name, while an erasure takes rows out or has yet to prove that documents of the collection are gone, and
/// where the branch was dropped meanwhile, 429, 503.
pub(in crate::http) async fn refresh(
    app: &AppState,
    caller: &ChangeCaller,
    request: DocumentsRequest<'_>,
) -> Result<RefreshedCollection, ApiError> {
    let DocumentsRequest { levels, collection, .. } = request;
    let namespace = writable(app, caller, levels, request.namespace).await?;
    // Who drops or squashes the branch takes this turn as well. Who writes to it does not wait.
    let _turn = app.restore_turns.take(&[namespace.name()]).await?;
    // Before the events are read: what began in between is told at the commit.
    let erasures = erasures_of(&app.erasures, levels).await?;
    // An earlier snapshot of the table may have rows that an erasure has taken out of the later ones.
    let by_caller = BranchRequest { app, caller, levels, namespace: &namespace };
    by_caller.check_erasures().await?;
    // The proof would take documents of others with these keys for those of the subject, and they would go once more.
    if app.erasures.takes_documents_of(levels, collection).await? {
        return Err(ApiError::new(ErrorCode::Conflict, IS_ERASING));
    }
    let table = events(app, &namespace).await?;
    let BranchHead { branch, snapshot, seq } =
        head(app, &namespace, &table, request.branch).await?;
    let catalog = app.catalog.on_behalf_of(caller.principal.id());
    // An erasure that begins later sees the branch of the table: it looks through all that is retained once readers
    // have had their time.
    let read = ReadState {
        catalog: app.catalog.clone(),
        erasures: app.erasures.clone(),
        levels: levels.to_vec(),
        events: ident(&namespace, EVENTS_TABLE),
        branch: branch.name.clone(),
        created_at: branch.created_at,
        known: erasures.clone(),
    };
    let check = read.commit_check();
    let by = RefreshCaller { catalog, ids: &app.ids, erasures };
    let metadata = Arc::clone(&table.metadata);
    let state = BranchState { branch, events: metadata, head: snapshot, seq };
    let (place, read) = ((levels, collection), (&state, &check));
    let done = Box::pin(app.sql.refresh_branch(&by, place, read, request.is_full)).await?;
    // `DELETE …/tables/events/refs/{name}` and other engines take no turn.
    let now = events(app, &namespace).await?;
    if !is_still_there(&now, request.branch, state.branch.created_at) {
        let (table, catalog) = (table_name(collection), &by.catalog);
        app.flush.drop_documents(catalog, &namespace, (table.as_str(), request.branch)).await?;
        let text = format!(
            "branch `{}` was dropped meanwhile: name another one, or make it again",
            request.branch
        );
        return Err(ApiError::new(ErrorCode::Conflict, text));
    }
    Ok(done)
}

/// What documents are read of.
#[derive(Clone, Debug)]
struct ReadState {
    catalog: Catalog,
    erasures: Erasures,
    levels: Vec<String>,
    /// Table `events`.
    events: TableIdent,
    branch: String,
    created_at: i64,
    /// The erasures that the namespace had had.
    known: Option<String>,
}

impl ReadState {
    /// Refuses a commit where the branch is gone, or another erasure of the namespace began or ended. Whoever asked for
    /// the refresh may be gone by then, and with it the turn that those who drop the branch wait for.
    async fn check(&self) -> Result<(), CatalogError> {
        let failed = |why: &str| Err(CatalogError::CommitFailed(format!("Commit failed: {why}")));
        let table = self.catalog.tables().load(&self.events).await?;
        if !is_still_there(&table, &self.branch, self.created_at) {
            return failed("the branch was dropped meanwhile: name another one, or make it again");
        }
        match erasures_of(&self.erasures, &self.levels).await {
            Ok(now) if now == self.known => Ok(()),
            Ok(_) => failed("an erasure began or ended meanwhile: refresh again"),
            Err(cause) => {
                let why = with_causes(&cause);
                Err(CatalogError::Busy(format!("erasures are not known, refresh again: {why}")))
            }
        }
    }

    fn commit_check(self) -> CommitCheck {
        Arc::new(move || {
            let state = self.clone();
            async move { state.check().await }.boxed()
        })
    }
}

/// Whether a branch is the one that was made then.
fn is_still_there(events: &LoadedTable, branch: &str, created_at: i64) -> bool {
    Branch::of(&events.metadata, branch).is_some_and(|now| now.created_at == created_at)
}

/// Drops the branches of this name that tables of collections have of a branch that is gone. One that cannot be dropped
/// is logged and stays until the next branch of the name is made, or dropped.
pub(super) async fn drop_left(
    app: &AppState,
    catalog: &Catalog,
    namespace: &Namespace,
    branch: &str,
) {
    let names = match catalog.metastore().tables(&guard::levels(namespace)).await {
        Ok(names) => names,
        Err(cause) => return warn_left(namespace, (None, branch), &cause),
    };
    let tables = names.iter().filter(|name| name.starts_with(TABLE_PREFIX));
    for table in tables.take(TABLES_MAX) {
        match app.flush.drop_documents(catalog, namespace, (table.as_str(), branch)).await {
            // A table that is dropped meanwhile has none.
            Ok(()) | Err(CatalogError::NoSuchTable(_)) => (),
            Err(cause) => warn_left(namespace, (Some(table.as_str()), branch), &cause),
        }
    }
}

fn warn_left(namespace: &Namespace, (table, branch): (Option<&str>, &str), cause: &CatalogError) {
    let text = "documents of a branch that is gone stay";
    warn!(%namespace, table, branch, error = cause as &dyn std::error::Error, "{text}");
}
