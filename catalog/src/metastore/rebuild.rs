//! All names of a catalog, and a metastore that gets them back: for a repair of one that was lost.
//!
//! Its one invariant: what comes back comes in one transaction, into a metastore that has nothing. So a
//! repair that is killed has done nothing or everything.

use super::{
    DropTerms, Levels, Metastore, NewTable, Properties, SEPARATOR, failed, fence,
    holds::{self, LegalHold},
    namespaces, outbox,
    outbox::RequestChanges,
    places, row_accounts, stored, tables, trash,
};
use crate::{error::CatalogError, row_sum::RowSum};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use uuid::Uuid;

/// Everything that has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogNames {
    /// Namespaces with their properties, those above before those below.
    pub namespaces: Vec<(Levels, Properties)>,
    /// Tables and views, dropped tables that are remembered too.
    pub names: Vec<ListedName>,
}

/// A table or view and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedName {
    /// Its identity.
    pub uuid: Uuid,
    /// Its namespace.
    pub levels: Levels,
    /// Its name, which of a dropped table is the one that it had.
    pub name: String,
    /// Whether it is there.
    pub state: NameState,
    /// Whether dropping and renaming it are refused.
    #[serde(default)]
    pub is_protected: bool,
}

/// Whether what has a name is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum NameState {
    /// A table.
    Table,
    /// A view.
    View,
    /// A dropped table that can be restored.
    Dropped {
        /// When it was dropped, ms since 1970.
        dropped_ms: i64,
        /// Until when it can be restored.
        until_ms: i64,
        /// Whether its files are deleted after that.
        purge: bool,
    },
    /// A dropped table whose files are being deleted.
    Purged,
}

/// What a metastore is rebuilt with.
#[derive(Clone, Debug, Default)]
pub struct MetastoreContents {
    /// Namespaces with their properties, those above before those below.
    pub namespaces: Vec<(Levels, Properties)>,
    /// Tables and views, in namespaces of these.
    pub tables: Vec<ReturningTable>,
    /// What may not go for its age.
    pub holds: Vec<LegalHold>,
    /// Who has the marks of the tables, and its base; none where nobody is known.
    pub holder: Option<(Uuid, u64)>,
}

/// A table or view that comes back.
#[derive(Clone, Debug)]
pub struct ReturningTable {
    /// As a new one would be made.
    pub table: NewTable,
    /// Its version, from which it goes on.
    pub version: i64,
    /// Position and last number of the rows that it has of the holder of the fence.
    pub mark: Option<(u64, u64)>,
    /// The sum of the rows that it has of the holder of the fence, as far as its snapshots tell.
    pub acked: Option<RowSum>,
    /// Whether dropping and renaming it are refused.
    pub is_protected: bool,
    /// It comes back to the trash.
    pub dropped: Option<DropTerms>,
}

/// kind, uuid, namespace, name, uuid if protected, when dropped, until when, purge, purging.
type NameRow = (String, String, String, String, String, i64, i64, i64, i64);

impl Metastore {
    /// All names. What is made meanwhile may be missing.
    ///
    /// # Errors
    /// `Metastore`.
    pub(crate) async fn all_names(&self) -> Result<CatalogNames, CatalogError> {
        // One statement: a table that is dropped or restored meanwhile is in one of the two.
        let rows: Vec<NameRow> = sqlx::query_as(
            "SELECT t.kind, t.uuid, t.namespace, t.name, coalesce(p.uuid, ''),
                 CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT)
             FROM tables AS t LEFT JOIN protected AS p ON p.uuid = t.uuid
             UNION ALL
             SELECT 'dropped', uuid, namespace, name, '', dropped_ms, until_ms, purge, purging
             FROM trash ORDER BY 3, 4, 2",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(failed("read all names"))?;
        let names = rows.into_iter().map(into_name).collect::<Result<_, _>>()?;
        // After the tables, so that none is without its namespace unless that was dropped since.
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT path, properties FROM namespaces ORDER BY path")
                .fetch_all(&mut *self.reader().await?)
                .await
                .map_err(failed("read all names"))?;
        let broken = |cause| failed("read a namespace")(sqlx::Error::Decode(Box::new(cause)));
        let namespaces = rows.into_iter().map(|(path, properties)| {
            Ok((levels(&path), serde_json::from_str(&properties).map_err(broken)?))
        });
        let mut namespaces: Vec<(Levels, Properties)> =
            namespaces.collect::<Result<_, CatalogError>>()?;
        namespaces.sort();
        Ok(CatalogNames { namespaces, names })
    }

    /// How many tables are protected.
    ///
    /// # Errors
    /// `Metastore`.
    pub(crate) async fn count_protected(&self) -> Result<u64, CatalogError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM protected")
            .fetch_one(&self.database.readers)
            .await
            .map_err(failed("count protected tables"))?;
        Ok(count.cast_unsigned())
    }

    /// How many changes after this one were more than commits to a table.
    ///
    /// # Errors
    /// `Metastore`.
    pub(crate) async fn count_name_changes(&self, after: u64) -> Result<u64, CatalogError> {
        let count: i64 = sqlx::query_scalar(
            r#"SELECT count(*) FROM outbox
               WHERE number > $1 AND operation NOT LIKE '%"operation-type":"update-table"%'"#,
        )
        .bind(stored(after)?)
        .fetch_one(&self.database.readers)
        .await
        .map_err(failed("count changes of names"))?;
        Ok(count.cast_unsigned())
    }

    /// Refuses a metastore that has anything.
    ///
    /// # Errors
    /// `Invalid` says what to do; `Metastore`.
    pub async fn check_is_empty(&self) -> Result<(), CatalogError> {
        check_is_empty(&mut *self.reader().await?).await
    }

    /// Gives everything to a metastore that has nothing, in one transaction. Durable on return.
    ///
    /// # Errors
    /// `Invalid` of a metastore that has something, and of tables that overlap; `AlreadyExists` of two
    /// of one name; `Metastore`.
    pub async fn rebuild(&self, contents: &MetastoreContents) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        places::lock(&mut tx).await?;
        check_is_empty(&mut tx).await?;
        let epoch = match contents.holder {
            Some((holder, base)) => fence::give(&mut tx, holder, base).await?,
            None => 0,
        };
        let mut operations = Vec::new();
        for (levels, properties) in &contents.namespaces {
            namespaces::create(&mut tx, levels, properties).await?;
            operations.push(outbox::made_namespace(levels, properties));
        }
        for hold in &contents.holds {
            holds::add(&mut tx, hold).await?;
        }
        // One that was dropped may have had the name of another that is there.
        let (dropped, there): (Vec<_>, Vec<_>) =
            contents.tables.iter().partition(|table| table.dropped.is_some());
        for returning in dropped.into_iter().chain(there) {
            bring_back(&mut tx, returning, epoch).await?;
            operations.push(outbox::created(&returning.table));
            if let Some(terms) = &returning.dropped {
                let key = returning.table.key();
                trash::add(&mut tx, key, terms).await?;
                let row = tables::drop(&mut tx, returning.table.kind, key).await?;
                operations.push(outbox::dropped(key, &row, terms.purge));
            }
        }
        let told = RequestChanges { origin: self.origin.clone(), operations };
        self.end_all(tx, "rebuild the metastore", &[told]).await
    }
}

/// Adds a table as it was, to the namespace that it was in.
async fn bring_back(
    tx: &mut AnyConnection,
    returning: &ReturningTable,
    epoch: u64,
) -> Result<(), CatalogError> {
    tables::create(tx, &returning.table).await?;
    let uuid = returning.table.uuid.to_string();
    sqlx::query("UPDATE tables SET version = $1 WHERE uuid = $2")
        .bind(returning.version)
        .bind(&uuid)
        .execute(&mut *tx)
        .await
        .map_err(failed("bring back a table"))?;
    if let Some((position, last_seq)) = returning.mark {
        sqlx::query("UPDATE tables SET epoch = $1, position = $2, last_seq = $3 WHERE uuid = $4")
            .bind(stored(epoch)?)
            .bind(stored(position)?)
            .bind(stored(last_seq)?)
            .bind(&uuid)
            .execute(&mut *tx)
            .await
            .map_err(failed("bring back a watermark"))?;
    }
    row_accounts::add_acked(tx, returning.table.uuid, returning.acked).await?;
    if returning.is_protected {
        sqlx::query("INSERT INTO protected VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(&uuid)
            .execute(tx)
            .await
            .map_err(failed("protect a table"))?;
    }
    Ok(())
}

/// One in which something was made and dropped again is not empty: a start takes it for one that is in use.
async fn check_is_empty(connection: &mut AnyConnection) -> Result<(), CatalogError> {
    let there: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM namespaces) + (SELECT count(*) FROM tables)
              + (SELECT count(*) FROM trash) + (SELECT value FROM counters WHERE name = 'event')",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("look for names"))?;
    if there == 0 {
        return Ok(());
    }
    Err(CatalogError::Invalid(
        "the metastore is not empty, something was made in it: a repair never changes what is there. To \
         rebuild it, move the SQLite file away or name an empty database".to_owned(),
    ))
}

fn into_name(row: NameRow) -> Result<ListedName, CatalogError> {
    let (kind, uuid, namespace, name, protected, dropped_ms, until_ms, purge, purging) = row;
    let broken = |cause| failed("read a name")(sqlx::Error::Decode(Box::new(cause)));
    Ok(ListedName {
        uuid: Uuid::parse_str(&uuid).map_err(broken)?,
        levels: levels(&namespace),
        name,
        state: match kind.as_str() {
            "view" => NameState::View,
            "dropped" if purging != 0 => NameState::Purged,
            "dropped" => NameState::Dropped { dropped_ms, until_ms, purge: purge != 0 },
            _ => NameState::Table,
        },
        is_protected: !protected.is_empty(),
    })
}

fn levels(path: &str) -> Levels {
    path.split(SEPARATOR).map(str::to_owned).collect()
}
