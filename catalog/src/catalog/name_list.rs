//! The names of a catalog, listed in its warehouse: what the metadata files do not say.
//!
//! A metadata file knows its table's identity, but neither its name nor its namespace, nor that it was
//! dropped or is held. So the list is written anew whenever names change, in one file for each metastore, and
//! [`super::recovery`] rebuilds a lost metastore by it. Its one invariant: a list says what the metastore
//! had at one moment, after the time that is in it. It may be some seconds old, and nothing but a repair
//! goes by it.

use super::{Catalog, Upkeep};
use crate::{
    error::CatalogError,
    metastore::{CatalogNames, Levels, ListedName, Properties, holds::LegalHold},
    storage,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The folder of the warehouse that is the catalog's own; no table lies in it.
pub(super) const FOLDER: &str = ".icecore";
/// What the names of lists begin and end with.
const PREFIX: &str = "names-";
const SUFFIX: &str = ".json";
/// Form of the list.
const FORMAT: u32 = 1;
/// So many changes in one look are taken for changes of names without a count.
const COUNTED_MAX: u64 = 10_000;

/// What a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct NameList {
    format: u32,
    /// Names the metastore.
    pub(super) metastore: u64,
    /// The number of the last change that it had seen.
    pub(super) through: u64,
    /// A time before the names were read, ms since 1970.
    pub(super) at_ms: i64,
    /// The metastores that this one was rebuilt in the place of, whose lists are over.
    #[serde(default)]
    pub(super) follows: Vec<u64>,
    /// Who held the fence.
    pub(super) fence: Option<ListedFence>,
    pub(super) namespaces: Vec<ListedNamespace>,
    /// Tables and views, those of the trash too.
    pub(super) names: Vec<ListedName>,
    /// Legal holds. Lists of earlier versions have none.
    #[serde(default)]
    pub(super) holds: Vec<LegalHold>,
}

/// Who held the fence; its epoch changes with every start and is of no use to another metastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedFence {
    pub(super) holder: Uuid,
    pub(super) base: u64,
}

/// A namespace and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedNamespace {
    pub(super) levels: Levels,
    pub(super) properties: Properties,
}

/// Up to where the list is known to be right.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListedThrough(Option<ListMark>);

#[derive(Clone, Copy, Debug)]
struct ListMark {
    change: u64,
    protected: u64,
    /// How many holds there were, and since when the newest.
    holds: (i64, i64),
}

impl Upkeep<'_> {
    /// Writes the list of names where they have changed since it was written; says whether it did.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`], [`CatalogError::Storage`].
    pub async fn list_names(self, listed: &mut ListedThrough) -> Result<bool, CatalogError> {
        let metastore = self.0.metastore();
        let feed = metastore.feed().await?;
        let protected = metastore.count_protected().await?;
        let holds = metastore.count_holds().await?;
        let mark = ListMark { change: feed.last, protected, holds };
        if let Some(before) = listed.0 {
            let is_same = (before.protected, before.holds) == (protected, holds)
                && (before.change == feed.last
                    || (feed.last.saturating_sub(before.change) < COUNTED_MAX
                        && metastore.count_name_changes(before.change).await? == 0));
            if is_same {
                listed.0 = Some(mark);
                return Ok(false);
            }
        }
        // The time comes first: what is made after it may be missing.
        let at_ms = self.0.now_ms();
        let mut list = self.0.list_of_names(feed.id, feed.last, at_ms).await?;
        let location = self.0.list_location(feed.id);
        let before = self.0.read_list(&location).await?;
        list.follows = before.as_ref().map_or_else(Vec::new, |before| before.follows.clone());
        let is_right = match &before {
            None => list.is_empty(),
            // Another server that uses this metastore may have seen more since.
            Some(before) => {
                let is_newer = list.through < before.through && list.at_ms < before.at_ms;
                is_newer || before.says_as(&list)
            }
        };
        if !is_right {
            self.0.write_list(&list).await?;
        }
        // What was written is looked at once more: another server may have written over it meanwhile.
        listed.0 = is_right.then_some(mark);
        Ok(!is_right)
    }
}

impl NameList {
    fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.names.is_empty() && self.holds.is_empty()
    }

    /// Whether both say the same, whenever that was.
    fn says_as(&self, other: &Self) -> bool {
        let is_held = (self.fence, &self.holds) == (other.fence, &other.holds);
        is_held && self.namespaces == other.namespaces && self.names == other.names
    }
}

impl Catalog {
    async fn list_of_names(
        &self,
        metastore: u64,
        through: u64,
        at_ms: i64,
    ) -> Result<NameList, CatalogError> {
        let CatalogNames { namespaces, names } = self.metastore().all_names().await?;
        let fence = self.metastore().fence().await?;
        let holds = self.metastore().all_holds().await?;
        Ok(NameList {
            format: FORMAT,
            metastore,
            through,
            at_ms,
            follows: Vec::new(),
            fence: fence.map(|fence| ListedFence { holder: fence.holder, base: fence.base }),
            namespaces: namespaces
                .into_iter()
                .map(|(levels, properties)| ListedNamespace { levels, properties })
                .collect(),
            names,
            holds,
        })
    }

    /// Lists the names of a metastore that was rebuilt in the place of others.
    pub(super) async fn list_rebuilt(&self, follows: Vec<u64>) -> Result<(), CatalogError> {
        let feed = self.metastore().feed().await?;
        let list = self.list_of_names(feed.id, feed.last, self.now_ms()).await?;
        self.write_list(&NameList { follows, ..list }).await
    }

    async fn write_list(&self, list: &NameList) -> Result<(), CatalogError> {
        let bytes = serde_json::to_vec(list).map_err(|cause| {
            CatalogError::Invalid(format!("the names of the catalog are no JSON: {cause}"))
        })?;
        self.storage().put(&self.list_location(list.metastore), bytes.into()).await
    }

    fn list_location(&self, metastore: u64) -> String {
        format!("{}/{FOLDER}/{PREFIX}{metastore:016x}{SUFFIX}", self.storage().root())
    }

    /// Whether a file of the warehouse is a list of names.
    pub(super) fn is_list(&self, location: &str) -> bool {
        let name = location
            .strip_prefix(self.storage().root())
            .and_then(|rest| rest.strip_prefix('/')?.strip_prefix(FOLDER)?.strip_prefix('/'));
        name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
    }

    /// What a list says; none where it is not there or is no list that this version knows.
    pub(super) async fn read_list(&self, location: &str) -> Result<Option<NameList>, CatalogError> {
        let bytes = match self.storage().get(location).await {
            Err(cause) if storage::is_missing(&cause) => return Ok(None),
            read => read?,
        };
        let list = serde_json::from_slice::<NameList>(&bytes).ok();
        Ok(list.filter(|list| list.format == FORMAT))
    }
}

#[cfg(test)]
mod tests;
