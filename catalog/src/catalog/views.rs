//! Views: created, adopted, loaded, changed, renamed, dropped.
//!
//! A view is a pointer to a metadata file as a table is, moved by the same swap. Files of a view
//! are never deleted by a drop: it has only its small metadata files, and whoever dropped it by
//! mistake registers it again.

use super::{
    Catalog,
    change::COMMIT_RETRIES,
    create, location_rules,
    write::{CHANGED_BYTES_MAX, NewFile, check_length, check_made, is_made, lost_every_race},
};
use crate::{
    error::CatalogError,
    metadata_file,
    metastore::{
        ChangeSet, Levels, NameKind, NamePage, NewTable, ObjectKey, PointerSwap, TableOrigin,
        TableRow,
    },
    view::{self, ViewRequirement},
};
use iceberg::{
    TableIdent, ViewUpdate,
    spec::{Schema, ViewMetadata, ViewVersion},
};
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

/// The property with which a view's metadata files lie elsewhere below its location.
const METADATA_PATH: &str = "write.metadata.path";

/// A view as it stands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadedView {
    /// Its current metadata.
    pub metadata: Arc<ViewMetadata>,
    /// The file that holds it.
    pub metadata_location: String,
    /// The pointer's version.
    pub version: i64,
}

/// A new view.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// Its name.
    pub name: String,
    /// The columns of its result.
    pub schema: Schema,
    /// Its first version.
    pub version: ViewVersion,
    /// Where it lies; inside the warehouse, ending in the view's uuid, when none.
    pub location: Option<String>,
    /// Its properties.
    pub properties: HashMap<String, String>,
}

/// Changes to one view, all or none.
#[derive(Clone, Debug)]
pub struct ViewChange {
    /// Which view.
    pub view: TableIdent,
    /// What must hold.
    pub requirements: Vec<ViewRequirement>,
    /// What changes, in order.
    pub updates: Vec<ViewUpdate>,
}

/// The views of a catalog.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a>(&'a Catalog);

impl Catalog {
    /// Its views.
    #[must_use]
    pub fn views(&self) -> Views<'_> {
        Views(self)
    }
}

impl Views<'_> {
    /// Creates a view and its first metadata file.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `AlreadyExists`, `Invalid`, `LocationForbidden`, `Storage`.
    pub async fn create(
        self,
        levels: &Levels,
        view: CreateView,
    ) -> Result<LoadedView, CatalogError> {
        let ident = create::ident(levels, &view.name)?;
        self.check_is_free(&ident).await?;
        let uuid = Uuid::new_v4();
        let location = match &view.location {
            Some(location) => self.0.free_location(location, uuid).await?,
            None => self.0.default_location(levels, uuid).await?,
        };
        let CreateView { schema, version, properties, .. } = view;
        let metadata = view::create(uuid, location, schema, version, properties)?;
        let file = self.new_file(&ident, &metadata, None).await?;
        let (metadata_location, length) = (file.location.clone(), file.bytes.len());
        let new = new_view(&ident, &metadata, &metadata_location);
        check_made(&self.0.swap(vec![file], &[new], &[]).await?, &ident)?;
        Ok(self.remember(metadata, length, metadata_location, 1))
    }

    /// Adopts an existing metadata file as a view, whose location has to pass `may_lie`.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `AlreadyExists`, `Invalid` when there is no view's metadata in it,
    /// `LocationForbidden`, `Storage`, what `may_lie` says.
    pub async fn register(
        self,
        levels: &Levels,
        name: &str,
        metadata_location: &str,
        may_lie: &(impl Fn(&str) -> Result<(), CatalogError> + Sync),
    ) -> Result<LoadedView, CatalogError> {
        let ident = create::ident(levels, name)?;
        self.check_is_free(&ident).await?;
        let location = self.0.inner.storage.normalize(metadata_location)?;
        if !self.0.inner.storage.exists(location.as_str()).await? {
            return Err(CatalogError::Invalid(format!(
                "Metadata file does not exist: {metadata_location}"
            )));
        }
        let metadata: ViewMetadata = self.0.foreign_metadata(location.as_str()).await?;
        may_lie(metadata.location())?;
        let own = location_rules::check_view(
            &self.0.inner.storage,
            metadata.location(),
            metadata.properties(),
        )?;
        let location = own.admit(location.as_str())?.to_string();
        let comes = TableOrigin::Registered { needs: vec![location.clone()] };
        let new = NewTable { comes, ..new_view(&ident, &metadata, &location) };
        check_made(&self.0.swap(Vec::new(), &[new], &[]).await?, &ident)?;
        Ok(LoadedView { metadata: Arc::new(metadata), metadata_location: location, version: 1 })
    }

    /// A view as it stands now. Parsed metadata is cached by file.
    ///
    /// # Errors
    /// `NoSuchView` (also when the namespace is missing), `MissingMetadata`, `Storage`.
    pub async fn load(self, view: &TableIdent) -> Result<LoadedView, CatalogError> {
        let row = self.0.metastore().view(view.namespace.as_ref(), &view.name).await?;
        let row = row.ok_or_else(|| CatalogError::NoSuchView(view.to_string()))?;
        let metadata = self.0.view_metadata_of(row.known()).await?;
        Ok(LoadedView { metadata, metadata_location: row.metadata_location, version: row.version })
    }

    /// Whether there is a view of this name.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn has(self, view: &TableIdent) -> Result<bool, CatalogError> {
        Ok(self.0.metastore().view(view.namespace.as_ref(), &view.name).await?.is_some())
    }

    /// Names of the views in a namespace, in order.
    ///
    /// # Errors
    /// `NoSuchNamespace`; else the metastore's.
    pub async fn names(self, levels: &Levels) -> Result<Vec<String>, CatalogError> {
        self.0.metastore().names(NameKind::View, levels, NamePage::ALL).await
    }

    /// A view for a client, whose metadata file is there as far as [`super::VerifyAtLoad`] says.
    ///
    /// # Errors
    /// As [`Views::load`].
    pub async fn load_present(self, view: &TableIdent) -> Result<LoadedView, CatalogError> {
        let loaded = self.load(view).await?;
        self.0.verify(&loaded.metadata_location).await?;
        Ok(loaded)
    }

    /// A view as one of its metadata files has it, whether or not it is there any more.
    ///
    /// # Errors
    /// `NoSuchView` when the file is not the view's, `MissingMetadata`, `Invalid`, `Storage`.
    pub(crate) async fn load_file(
        self,
        uuid: Uuid,
        file: &str,
    ) -> Result<LoadedView, CatalogError> {
        let metadata = match self.0.metastore().table_by_uuid(uuid).await? {
            Some(row) => {
                let metadata_location = file.to_owned();
                self.0.view_metadata_of(TableRow { metadata_location, ..row }.known()).await?
            }
            None => Arc::new(self.0.foreign_metadata::<ViewMetadata>(file).await?),
        };
        if metadata.uuid() != uuid {
            return Err(CatalogError::NoSuchView(uuid.to_string()));
        }
        Ok(LoadedView { metadata, metadata_location: file.to_owned(), version: 0 })
    }

    /// Applies a change to a view; one that changes nothing, as one that is sent again, is a
    /// success. A lost race is retried on the new metadata as long as the requirements still hold.
    ///
    /// # Errors
    /// `NoSuchView`, `CommitFailed`, `CommitStateUnknown`, `Invalid`, `LocationForbidden`, `Storage`.
    pub async fn commit(self, mut change: ViewChange) -> Result<LoadedView, CatalogError> {
        for update in &mut change.updates {
            if let ViewUpdate::SetLocation { location } = update {
                *location =
                    location_rules::for_a_table(&self.0.inner.storage, location)?.to_string();
            }
        }
        let _queue = self.0.inner.locks.lock(std::iter::once(&change.view)).await;
        for _ in 0..=COMMIT_RETRIES {
            let base = self.load(&change.view).await?;
            view::check_requirements(&change.requirements, &base.metadata)?;
            let metadata = view::apply_updates(&base.metadata, &change.updates)?;
            if metadata == *base.metadata {
                let made = (metadata.uuid(), base.metadata_location.as_str());
                self.0.metastore().keep_request(Some(made)).await?;
                return Ok(base);
            }
            let moved_to = (base.metadata.location() != metadata.location())
                .then(|| metadata.location().to_owned());
            // Before anything is written there: it may be another's place.
            if let Some(location) = &moved_to {
                self.0.free_location(location, base.metadata.uuid()).await?;
            }
            let file = self.new_file(&change.view, &metadata, Some(&base)).await?;
            let (metadata_location, length) = (file.location.clone(), file.bytes.len());
            let swap = PointerSwap {
                uuid: base.metadata.uuid(),
                expected_version: base.version,
                metadata_location: metadata_location.clone(),
                moved_to,
                watermark: None,
                acked: None,
                acked_anew: None,
                snapshots: Vec::new(),
                removed_snapshots: Vec::new(),
                obsolete: Vec::new(),
                parts: Vec::new(),
                changes: ChangeSet::changing(&change.requirements, &change.updates),
            };
            if is_made(&self.0.swap(vec![file], &[], &[swap]).await?, &change.view)? {
                self.0.inner.view_cache.remove(&base.metadata_location);
                return Ok(self.remember(metadata, length, metadata_location, base.version + 1));
            }
        }
        Err(lost_every_race(&change.view))
    }

    /// Removes a view from the catalog; its files stay.
    ///
    /// # Errors
    /// `NoSuchView`.
    pub async fn drop(self, view: &TableIdent) -> Result<(), CatalogError> {
        let row = self.0.metastore().drop_view(view.namespace.as_ref(), &view.name).await?;
        self.0.inner.view_cache.remove(&row.metadata_location);
        Ok(())
    }

    /// Gives a view another name or namespace. Its files stay where they are.
    ///
    /// # Errors
    /// `NoSuchView`, `NoSuchNamespace` for the target's, `AlreadyExists`, `Invalid`.
    pub async fn rename(self, from: &TableIdent, to: &TableIdent) -> Result<(), CatalogError> {
        crate::names::check_new(&to.name)?;
        self.0.check_view_name(to)?;
        let from = ObjectKey::new(from.namespace.as_ref(), &from.name);
        let to = ObjectKey::new(to.namespace.as_ref(), &to.name);
        self.0.metastore().rename_view(from, to).await
    }

    /// A view as it was just made.
    fn remember(
        self,
        metadata: ViewMetadata,
        length: usize,
        metadata_location: String,
        version: i64,
    ) -> LoadedView {
        let metadata = Arc::new(metadata);
        self.0.inner.view_cache.insert(&metadata_location, &metadata, length);
        LoadedView { metadata, metadata_location, version }
    }

    /// The next metadata file of a view, once everything the view names is allowed.
    async fn new_file(
        self,
        view: &TableIdent,
        metadata: &ViewMetadata,
        base: Option<&LoadedView>,
    ) -> Result<NewFile, CatalogError> {
        let storage = &self.0.inner.storage;
        let own = location_rules::check_view(storage, metadata.location(), metadata.properties())?;
        let name = metadata_file::name(base.map_or(0, |base| base.version), Uuid::new_v4());
        let location = match metadata.properties().get(METADATA_PATH) {
            Some(folder) => format!("{}/{name}", storage.normalize(folder)?),
            None => format!("{own}/metadata/{name}"),
        };
        let bytes = encode(metadata);
        let before = async || base.map_or(0, |base| encode(&base.metadata).len());
        check_length(view, bytes.len(), CHANGED_BYTES_MAX, before).await?;
        Ok(NewFile { location, bytes: bytes.into(), deferred: Vec::new() })
    }

    async fn check_is_free(self, view: &TableIdent) -> Result<(), CatalogError> {
        self.0.check_view_name(view)?;
        let levels = view.namespace.as_ref();
        self.0.check_namespace(levels).await?;
        let taken = if self.has(view).await? {
            format!("View already exists: {view}")
        } else if self.0.metastore().table(levels, &view.name).await?.is_some() {
            format!("Table with same name already exists: {view}")
        } else {
            return Ok(());
        };
        Err(CatalogError::AlreadyExists(taken))
    }
}

fn encode(metadata: &ViewMetadata) -> Vec<u8> {
    metadata_file::encode(&view::to_json(metadata))
}

fn new_view(view: &TableIdent, metadata: &ViewMetadata, metadata_location: &str) -> NewTable {
    NewTable {
        kind: NameKind::View,
        levels: view.namespace.as_ref().clone(),
        name: view.name.clone(),
        uuid: metadata.uuid(),
        metadata_location: metadata_location.to_owned(),
        location: metadata.location().to_owned(),
        snapshots: Vec::new(),
        comes: TableOrigin::Created,
        changes: ChangeSet::making(&view::making(metadata)),
    }
}

#[cfg(test)]
pub(super) mod tests;
