//! A warehouse that is not where the metastore's tables say: noticed at start, mended offline.
//!
//! A server that finds one does not start. It could commit none of the events that it took, and
//! every table would look broken, so nobody gets a chance to act on that.

use crate::{
    config::{Config, MetastoreUrl},
    server::{StartError, is_missing, open_metastore},
};
use icecore_catalog::{
    error::CatalogError,
    location::Location,
    metastore::Metastore,
    relocate,
    relocate::{RelocatedTable, Relocation, WarehouseMove},
    storage::Storage,
};
use icecore_lake::{blocking::blocking, table::moved_deletes, wal::folder::LogFolder};

/// Most former places of one metastore: a relocation that was stopped half way, and the folder
/// moved again, makes one more.
const FORMER_PLACES_MAX: usize = 64;

/// Refuses a start on tables that lie elsewhere.
pub(super) async fn check(metastore: &Metastore, storage: &Storage) -> Result<(), StartError> {
    match relocate::moved(metastore, storage).await? {
        Some(moved) => Err(StartError::Moved(Box::new(moved))),
        None => Ok(()),
    }
}

/// Which places, where an operator names them.
#[derive(Clone, Debug, Default)]
pub struct MovePlaces {
    /// The former one; what the metastore says where it is not named.
    pub from: Option<Location>,
    /// The new one; the configured warehouse where it is not named.
    pub to: Option<Location>,
    /// Reads everything and writes nothing.
    pub dry_run: bool,
}

/// What was moved.
#[derive(Debug, Default)]
pub struct MoveReport {
    /// Each table and view.
    pub tables: Vec<RelocatedTable>,
    /// Locations of namespaces.
    pub namespaces: u64,
    /// Files that wait to be deleted.
    pub queued: u64,
}

/// Writes the new place into the metadata of every table. No server may have the data folder open.
/// May be repeated, also after it was killed.
///
/// # Errors
/// [`StartError`]; the tables that were done stay done.
pub async fn relocate(
    config: &Config,
    places: &MovePlaces,
    now_ms: i64,
) -> Result<MoveReport, StartError> {
    let wal = config.data_dir.join("wal");
    let folder = blocking(move || wal.is_dir().then(|| LogFolder::take(&wal)).transpose()).await?;
    if let MetastoreUrl::Sqlite(path) = &config.metastore
        && is_missing(path)
    {
        return Err(invalid(format!("there is no metastore at `{}`", path.display())));
    }
    let metastore = open_metastore(config).await?;
    let root = places.to.as_ref().map_or(config.warehouse.as_str(), Location::as_str);
    let storage = Storage::open(root, &config.s3)?;
    let mut report = MoveReport::default();
    for _ in 0..FORMER_PLACES_MAX {
        let Some(moved) = former(&metastore, &storage, places).await? else { break };
        let relocation = Relocation {
            metastore: &metastore,
            storage: &storage,
            moved,
            deletes: &moved_deletes::move_deletes,
            now_ms,
            dry_run: places.dry_run,
        };
        for place in relocation.places().await? {
            let done = relocation.relocate(place).await?;
            if !done.is_done {
                return Err(invalid(format!(
                    "table `{}` was changed meanwhile: stop every server on this metastore and run \
                     this again",
                    done.place.name
                )));
            }
            report.tables.push(done);
        }
        let (namespaces, queued) = relocation.finish().await?;
        (report.namespaces, report.queued) =
            (report.namespaces + namespaces, report.queued + queued);
        if places.dry_run || places.from.is_some() {
            break;
        }
    }
    drop(folder);
    Ok(report)
}

async fn former(
    metastore: &Metastore,
    storage: &Storage,
    places: &MovePlaces,
) -> Result<Option<WarehouseMove>, StartError> {
    let to = Location::parse(storage.root()).expect("an open warehouse has a location");
    if let Some(from) = &places.from {
        return Ok(Some(WarehouseMove { from: from.clone(), to }));
    }
    match relocate::moved(metastore, storage).await? {
        Some(moved) if moved.is_one_folder() => Ok(None),
        Some(moved) if !moved.is_here => Err(invalid(moved.to_string())),
        Some(moved) => Ok(Some(WarehouseMove { from: moved.from, to })),
        None => Ok(None),
    }
}

fn invalid(text: String) -> StartError {
    CatalogError::Invalid(text).into()
}
