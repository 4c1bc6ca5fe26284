//! Secrets that webhook providers sign with, by namespace and provider.
//!
//! A signature is checked by making it again, so the secrets themselves are kept, beside the tokens'
//! hashes: who reads the metastore can sign as a provider. Its one invariant: of a namespace and
//! provider there are at most [`SECRETS_MAX`], the newest ones.

use crate::{
    error::CatalogError,
    metastore::{Metastore, failed},
};
use sqlx::AnyConnection;

/// Secrets of one provider that are valid at once: the new and the old one while it is replaced.
pub const SECRETS_MAX: i64 = 2;
/// Most secrets altogether.
const ALL_MAX: i64 = 10_000;

/// The table. The namespace need not be there yet.
pub(in crate::metastore) const STEP: &str = r#"
CREATE TABLE webhook_secrets (
    number BIGSERIAL,
    namespace TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    sent_to TEXT NOT NULL,
    scheme TEXT NOT NULL,
    secret TEXT NOT NULL,
    since_ms BIGINT NOT NULL
);
CREATE INDEX webhook_secrets_of_provider ON webhook_secrets (namespace, provider, number);
"#;

/// A secret.
#[derive(Clone)]
pub struct WebhookSecret {
    /// The catalog's name of the namespace.
    pub namespace: String,
    /// The provider, as it is in the path.
    pub provider: String,
    /// The namespace as its events name it.
    pub sent_to: String,
    /// How the provider signs.
    pub scheme: String,
    /// The secret itself.
    pub secret: String,
    /// Since when, ms since 1970.
    pub since_ms: i64,
}

impl std::fmt::Debug for WebhookSecret {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSecret")
            .field("namespace", &self.namespace)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

type SecretRow = (String, String, String, String, String, i64);

fn read((namespace, provider, sent_to, scheme, secret, since_ms): SecretRow) -> WebhookSecret {
    WebhookSecret { namespace, provider, sent_to, scheme, secret, since_ms }
}

impl Metastore {
    /// Adds a secret, durable on return; the one before it stays valid, older ones do not. The same
    /// secret once more changes nothing but its place.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] when there are too many; [`CatalogError::Metastore`].
    pub async fn set_webhook_secret(&self, new: &WebhookSecret) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_secrets")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed("count webhook secrets"))?;
        if ALL_MAX <= count {
            let text =
                format!("there are {count} webhook secrets, which is the maximum: delete some");
            return Err(CatalogError::Invalid(text));
        }
        sqlx::query(
            "DELETE FROM webhook_secrets WHERE namespace = $1 AND provider = $2 AND secret = $3",
        )
        .bind(&new.namespace)
        .bind(&new.provider)
        .bind(&new.secret)
        .execute(&mut *tx)
        .await
        .map_err(failed("set a webhook secret"))?;
        sqlx::query(
            "INSERT INTO webhook_secrets (namespace, provider, sent_to, scheme, secret, since_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&new.namespace)
        .bind(&new.provider)
        .bind(&new.sent_to)
        .bind(&new.scheme)
        .bind(&new.secret)
        .bind(new.since_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed("set a webhook secret"))?;
        sqlx::query(
            "DELETE FROM webhook_secrets WHERE namespace = $1 AND provider = $2 AND number NOT IN
                 (SELECT number FROM webhook_secrets WHERE namespace = $1 AND provider = $2
                  ORDER BY number DESC LIMIT $3)",
        )
        .bind(&new.namespace)
        .bind(&new.provider)
        .bind(SECRETS_MAX)
        .execute(&mut *tx)
        .await
        .map_err(failed("set a webhook secret"))?;
        self.commit_without_event(tx, "set a webhook secret").await
    }

    /// The valid secrets of a provider, the newest first.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn webhook_secrets(
        &self,
        namespace: &str,
        provider: &str,
    ) -> Result<Vec<WebhookSecret>, CatalogError> {
        let rows: Vec<SecretRow> = sqlx::query_as(
            "SELECT namespace, provider, sent_to, scheme, secret, since_ms FROM webhook_secrets
             WHERE namespace = $1 AND provider = $2 ORDER BY number DESC",
        )
        .bind(namespace)
        .bind(provider)
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("find webhook secrets"))?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// All of them, by namespace and provider, the newest of each first.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn all_webhook_secrets(&self) -> Result<Vec<WebhookSecret>, CatalogError> {
        let rows: Vec<SecretRow> = sqlx::query_as(
            "SELECT namespace, provider, sent_to, scheme, secret, since_ms FROM webhook_secrets
             ORDER BY namespace, provider, number DESC",
        )
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("list webhook secrets"))?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// Removes a provider's secrets, durable on return; false when there was none.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn delete_webhook_secrets(
        &self,
        namespace: &str,
        provider: &str,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.begin().await?;
        let statement = "DELETE FROM webhook_secrets WHERE namespace = $1 AND provider = $2";
        let removed = sqlx::query(statement)
            .bind(namespace)
            .bind(provider)
            .execute(&mut *tx)
            .await
            .map_err(failed("delete webhook secrets"))?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        self.commit_without_event(tx, "delete webhook secrets").await.map(|()| true)
    }
}

/// Removes the secrets of a namespace that is being dropped: whoever makes one of its name starts
/// without any.
pub(in crate::metastore) async fn forget_namespace(
    tx: &mut AnyConnection,
    namespace: &str,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM webhook_secrets WHERE namespace = $1")
        .bind(namespace)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(failed("forget a namespace's webhook secrets"))
}
