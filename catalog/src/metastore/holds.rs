//! Legal holds: while a namespace has one, nothing of it is deleted for its age.
//!
//! A hold covers the namespaces below its own as well. Its one invariant: a hold goes by its removal
//! alone, so it outlives a namespace that is dropped and made again, and a metastore that is lost.

use super::{
    Levels, Metastore, ObjectKey, SEPARATOR,
    database::RowLock,
    failed,
    namespaces::{is_storable, require},
    path,
};
use crate::error::CatalogError;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

/// Most holds altogether.
const HOLDS_MAX: i64 = 10_000;

pub(super) const STEP: &str = r#"
CREATE TABLE holds (
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    reason TEXT,
    since_ms BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);
"#;

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LegalHold {
    /// The namespace.
    pub levels: Levels,
    /// Its name there.
    pub name: String,
    /// Why, where somebody said so.
    pub reason: Option<String>,
    /// Since when, ms since 1970.
    pub since_ms: i64,
}

impl LegalHold {
    /// Why nothing of what it covers may go.
    #[must_use]
    pub fn obstacle(&self) -> String {
        let Self { levels, name, reason, .. } = self;
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("the namespace `{}` is held by `{name}`{reason}", levels.join("."))
    }
}

type HoldRow = (String, String, Option<String>, i64);

fn read((namespace, name, reason, since_ms): HoldRow) -> LegalHold {
    let levels = namespace.split(SEPARATOR).map(str::to_owned).collect();
    LegalHold { levels, name, reason, since_ms }
}

impl Metastore {
    /// Holds a namespace, durable on return. One that has a hold of this name keeps it, with its time, and
    /// the reason is the new one.
    ///
    /// # Errors
    /// `NoSuchNamespace`; [`CatalogError::Invalid`] when there are too many; `Metastore`.
    pub async fn set_hold(&self, hold: &LegalHold) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        require(&mut tx, &hold.levels, RowLock::Share).await?;
        let others: i64 =
            sqlx::query_scalar("SELECT count(*) FROM holds WHERE namespace <> $1 OR name <> $2")
                .bind(path(&hold.levels))
                .bind(&hold.name)
                .fetch_one(&mut *tx)
                .await
                .map_err(failed("count the holds"))?;
        if HOLDS_MAX <= others {
            let text = format!("there are {others} holds, which is the maximum: remove some");
            return Err(CatalogError::Invalid(text));
        }
        add(&mut tx, hold).await?;
        self.commit_without_event(tx, "hold a namespace").await
    }

    /// The holds that a namespace itself has, by name.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn holds(&self, levels: &Levels) -> Result<Vec<LegalHold>, CatalogError> {
        if !is_storable(ObjectKey { levels, name: "" }) {
            return Ok(Vec::new());
        }
        let rows: Vec<HoldRow> = sqlx::query_as(
            "SELECT namespace, name, reason, since_ms FROM holds WHERE namespace = $1 ORDER BY name",
        )
        .bind(path(levels))
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("list the holds"))?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// All holds, by namespace and name.
    ///
    /// # Errors
    /// `Metastore`.
    pub(crate) async fn all_holds(&self) -> Result<Vec<LegalHold>, CatalogError> {
        let rows: Vec<HoldRow> = sqlx::query_as(
            "SELECT namespace, name, reason, since_ms FROM holds ORDER BY namespace, name",
        )
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("list the holds"))?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// How many holds there are, and the time of the newest: what changes with them.
    ///
    /// # Errors
    /// `Metastore`.
    pub(crate) async fn count_holds(&self) -> Result<(i64, i64), CatalogError> {
        sqlx::query_as("SELECT count(*), coalesce(max(since_ms), CAST(0 AS BIGINT)) FROM holds")
            .fetch_one(&self.database.readers)
            .await
            .map_err(failed("count the holds"))
    }

    /// A hold that covers a namespace: its own or one of those above it.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn hold_over(&self, levels: &Levels) -> Result<Option<LegalHold>, CatalogError> {
        for depth in 1..=levels.len() {
            let mut holds = self.holds(&levels[..depth].to_vec()).await?.into_iter();
            if let Some(first) = holds.next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Removes a hold, durable on return; false when there was none.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn remove_hold(&self, levels: &Levels, name: &str) -> Result<bool, CatalogError> {
        if !is_storable(ObjectKey { levels, name }) {
            return Ok(false);
        }
        let mut tx = self.begin_change().await?;
        let removed = sqlx::query("DELETE FROM holds WHERE namespace = $1 AND name = $2")
            .bind(path(levels))
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(failed("remove a hold"))?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        self.commit_without_event(tx, "remove a hold").await.map(|()| true)
    }
}

/// Adds a hold; one of this name there gets the new reason.
pub(super) async fn add(tx: &mut AnyConnection, hold: &LegalHold) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO holds (namespace, name, reason, since_ms) VALUES ($1, $2, $3, $4)
         ON CONFLICT (namespace, name) DO UPDATE SET reason = excluded.reason",
    )
    .bind(path(&hold.levels))
    .bind(&hold.name)
    .bind(hold.reason.as_deref())
    .bind(hold.since_ms)
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(failed("hold a namespace"))
}

#[cfg(test)]
mod tests;
