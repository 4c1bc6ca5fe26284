//! Tokens and what they grant.
//!
//! Its one invariant: an access token has no grants of its own but those its API token has now, and
//! is gone with it.

pub mod webhooks;

use super::{Metastore, SEPARATOR, database::RowLock, failed, path};
use crate::{
    error::CatalogError,
    metastore::Levels,
    principal::{AccessScope, Action},
};
use sqlx::{AnyConnection, AssertSqlSafe};

/// Most API tokens.
pub const TOKENS_MAX: i64 = 10_000;
/// Most access tokens that one API token has at a time; the oldest give way.
const ACCESS_TOKENS_MAX: i64 = 1_000;

/// The tables of tokens. The grant's namespace is a key of `namespaces` that need not be there yet;
/// the empty text is every namespace.
pub(super) const TABLES: &str = r#"
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    parent TEXT REFERENCES tokens (id) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    name TEXT NOT NULL,
    home TEXT,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    last_used_ms BIGINT
);
CREATE INDEX tokens_of_parent ON tokens (parent, created_ms);
CREATE INDEX tokens_by_end ON tokens (expires_ms);
CREATE TABLE grants (
    token TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    action TEXT NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (token, action, namespace)
);
CREATE INDEX grants_on_namespace ON grants (namespace);
"#;

/// An API token to add.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What finds it.
    pub id: String,
    /// Hash of its secret.
    pub hash: String,
    /// What people call it.
    pub name: String,
    /// The namespace of what it sends without naming one.
    pub home: Option<String>,
    /// What it may do.
    pub scopes: Vec<AccessScope>,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// When it ends, if it does.
    pub expires_ms: Option<i64>,
}

/// An access token to add below an API token.
#[derive(Clone, Debug)]
pub(crate) struct NewAccessToken {
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) hash: String,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: i64,
}

/// An API token as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// What finds it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The namespace of what it sends without naming one.
    pub home: Option<String>,
    /// What it may do.
    pub scopes: Vec<AccessScope>,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// When it ends, if it does.
    pub expires_ms: Option<i64>,
    /// When it was last used, to about a minute.
    pub last_used_ms: Option<i64>,
}

/// What is known about a token that somebody shows: its own hash and end, and its API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundToken {
    pub(crate) hash: String,
    /// The earlier end of both.
    pub(crate) expires_ms: Option<i64>,
    /// The end of the API token.
    pub(crate) owner_expires_ms: Option<i64>,
    /// The API token: itself, or the one it was made from.
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) home: Option<String>,
    pub(crate) scopes: Vec<AccessScope>,
}

type FoundRow = (
    String,
    Option<i64>,
    String,
    String,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

impl Metastore {
    /// Adds an API token, durable on return.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] when there are [`TOKENS_MAX`] already; [`CatalogError::Metastore`].
    pub async fn add_token(&self, token: &NewToken) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens WHERE parent IS NULL")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed("count tokens"))?;
        if TOKENS_MAX <= count {
            let text = format!("there are {count} tokens, which is the maximum: revoke some first");
            return Err(CatalogError::Invalid(text));
        }
        sqlx::query(
            "INSERT INTO tokens (id, hash, name, home, created_ms, expires_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&token.id)
        .bind(&token.hash)
        .bind(&token.name)
        .bind(token.home.as_deref())
        .bind(token.created_ms)
        .bind(token.expires_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed("add a token"))?;
        for scope in &token.scopes {
            sqlx::query("INSERT INTO grants VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(&token.id)
                .bind(scope.action.name())
                .bind(path(&scope.namespace))
                .execute(&mut *tx)
                .await
                .map_err(failed("add a token"))?;
        }
        if let Some(call) = &self.origin.call {
            call.about(&format!("{} {}", token.id, token.name));
        }
        self.commit_without_event(tx, "add a token").await
    }

    /// Every API token, the oldest first.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn tokens(&self) -> Result<Vec<ApiToken>, CatalogError> {
        type TokenRow = (String, String, Option<String>, i64, Option<i64>, Option<i64>);
        let mut tx = self.database.readers.begin().await.map_err(failed("begin"))?;
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT id, name, home, created_ms, expires_ms, last_used_ms FROM tokens
             WHERE parent IS NULL ORDER BY created_ms, id",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(failed("list tokens"))?;
        let grants: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT token, action, namespace FROM grants ORDER BY token, namespace, action",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(failed("list tokens"))?;
        let mut tokens = Vec::with_capacity(rows.len());
        for (id, name, home, created_ms, expires_ms, last_used_ms) in rows {
            let first = grants.partition_point(|(token, ..)| *token < id);
            let own = grants[first..].iter().take_while(|(token, ..)| *token == id);
            let scopes = own.map(|(_, action, at)| scope(action, at)).collect::<Result<_, _>>()?;
            tokens.push(ApiToken { id, name, home, scopes, created_ms, expires_ms, last_used_ms });
        }
        Ok(tokens)
    }

    /// Removes an API token and every access token made from it; false when there was none.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn revoke_token(&self, id: &str) -> Result<bool, CatalogError> {
        let mut tx = self.begin().await?;
        let removed = sqlx::query("DELETE FROM tokens WHERE id = $1 AND parent IS NULL")
            .bind(id)
            .execute(&mut *tx)
            .await
            .map_err(failed("revoke a token"))?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        self.commit_without_event(tx, "revoke a token").await.map(|()| true)
    }

    /// What is known about the token of this id, with the grants it has now.
    pub(crate) async fn find_token(&self, id: &str) -> Result<Option<FoundToken>, CatalogError> {
        let rows: Vec<FoundRow> = sqlx::query_as(
            "SELECT shown.hash, shown.expires_ms, owner.id, owner.name, owner.home,
                    owner.expires_ms, grants.action, grants.namespace
             FROM tokens AS shown
             JOIN tokens AS owner ON owner.id = coalesce(shown.parent, shown.id)
             LEFT JOIN grants ON grants.token = owner.id
             WHERE shown.id = $1",
        )
        .bind(id)
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("find a token"))?;
        let mut found: Option<FoundToken> = None;
        for (hash, own_end, owner, name, home, owner_end, action, namespace) in rows {
            let found = found.get_or_insert_with(|| FoundToken {
                hash,
                expires_ms: own_end.into_iter().chain(owner_end).min(),
                owner_expires_ms: owner_end,
                owner,
                name,
                home,
                scopes: Vec::new(),
            });
            if let Some((action, namespace)) = action.zip(namespace) {
                found.scopes.push(scope(&action, &namespace)?);
            }
        }
        Ok(found)
    }

    /// Adds an access token; false when its API token is gone.
    pub(crate) async fn add_access_token(
        &self,
        token: &NewAccessToken,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.begin().await?;
        if !is_there(&mut tx, &token.parent).await? {
            return Ok(false);
        }
        sqlx::query(
            "DELETE FROM tokens WHERE id IN
                 (SELECT id FROM tokens WHERE parent = $1
                  ORDER BY created_ms DESC, id LIMIT $2 OFFSET $3)",
        )
        .bind(&token.parent)
        .bind(ACCESS_TOKENS_MAX)
        .bind(ACCESS_TOKENS_MAX - 1)
        .execute(&mut *tx)
        .await
        .map_err(failed("make room for an access token"))?;
        sqlx::query(
            "INSERT INTO tokens (id, parent, hash, name, created_ms, expires_ms)
             VALUES ($1, $2, $3, '', $4, $5)",
        )
        .bind(&token.id)
        .bind(&token.parent)
        .bind(&token.hash)
        .bind(token.created_ms)
        .bind(token.expires_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed("add an access token"))?;
        self.commit_without_event(tx, "add an access token").await.map(|()| true)
    }

    /// Notes when API tokens were used.
    pub(crate) async fn note_token_use(&self, uses: &[(String, i64)]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for (id, at_ms) in uses {
            sqlx::query("UPDATE tokens SET last_used_ms = $1 WHERE id = $2")
                .bind(*at_ms)
                .bind(id)
                .execute(&mut *tx)
                .await
                .map_err(failed("note the use of a token"))?;
        }
        tx.commit().await.map_err(failed("note the use of a token"))
    }

    /// Removes access tokens that have ended; API tokens stay listed until they are revoked.
    pub(crate) async fn forget_ended_tokens(&self, now_ms: i64) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM tokens WHERE expires_ms <= $1 AND parent IS NOT NULL")
            .bind(now_ms)
            .execute(&self.database.writer)
            .await
            .map(|_| ())
            .map_err(failed("forget access tokens that ended"))
    }
}

/// Takes back every grant on a namespace that is being dropped and on all below it, which are gone
/// or were never there, in the same transaction: new ones of their names start without any.
pub(super) async fn forget_namespace(
    tx: &mut AnyConnection,
    namespace: &str,
) -> Result<(), CatalogError> {
    let first_below = format!("{namespace}{SEPARATOR}");
    // The character after the separator: what is below comes before it and nothing else does.
    let first_after = format!("{namespace} ");
    sqlx::query("DELETE FROM grants WHERE namespace = $1 OR namespace >= $2 AND namespace < $3")
        .bind(namespace)
        .bind(first_below)
        .bind(first_after)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(failed("take back the grants on a namespace"))
}

/// Whether the API token is there, and keeps it until the transaction ends.
async fn is_there(tx: &mut AnyConnection, id: &str) -> Result<bool, CatalogError> {
    let lock = RowLock::Share.clause(tx);
    let query = format!("SELECT id FROM tokens WHERE id = $1 AND parent IS NULL{lock}");
    let found: Option<String> = sqlx::query_scalar(AssertSqlSafe(query))
        .bind(id)
        .fetch_optional(tx)
        .await
        .map_err(failed("find a token"))?;
    Ok(found.is_some())
}

fn scope(action: &str, namespace: &str) -> Result<AccessScope, CatalogError> {
    let action: Action = action.parse().map_err(|cause| {
        failed("read a grant")(sqlx::Error::Decode(
            Box::<dyn std::error::Error + Send + Sync>::from(format!("{cause}")),
        ))
    })?;
    let levels = namespace.split(SEPARATOR).map(str::to_owned);
    let namespace = if namespace.is_empty() { Levels::new() } else { levels.collect() };
    Ok(AccessScope { action, namespace })
}

#[cfg(test)]
mod tests;
