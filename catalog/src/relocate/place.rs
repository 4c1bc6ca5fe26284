//! Whether the tables lie where the warehouse is.

use crate::{
    error::CatalogError,
    location::Location,
    metastore::{Metastore, moved::TablePlace},
    storage::Storage,
};
use std::{fmt, os::unix::fs::MetadataExt};

/// Tables whose files are looked for; where none of them has any here, the rest has not either.
const LOOKED_FOR_MAX: usize = 16;

/// A warehouse that is not where its tables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedWarehouse {
    /// Where the tables say that they are.
    pub from: Location,
    /// The warehouse that was configured.
    pub to: Location,
    /// How many tables and views say so.
    pub tables: usize,
    /// Whether their files are in the configured warehouse.
    pub is_here: bool,
}

impl fmt::Display for MovedWarehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, tables, is_here } = self;
        if *is_here {
            return write!(
                f,
                "the warehouse was moved or copied: {tables} tables and views of the metastore say \
                 that they are in `{from}`, but their files are in `{to}`. Move them back, or \
                 start with `--warehouse {from}` if the files are there too, or run `icecore \
                 catalog relocate` once with the options of this server, which writes the new \
                 location into their metadata"
            );
        }
        write!(
            f,
            "this is another warehouse: {tables} tables and views of the metastore are in \
             `{from}`, but the configured warehouse `{to}` has none of their files. Start with \
             `--warehouse {from}`; all servers on one metastore need the same warehouse, and each \
             of them must reach it. If the files were moved, move them back, or to `{to}` and run \
             `icecore catalog relocate`"
        )
    }
}

impl MovedWarehouse {
    /// Whether the two places are names of one folder, such as by a symbolic link: then nothing was
    /// moved, and the name that the tables have is as good as the other one.
    #[must_use]
    pub fn is_one_folder(&self) -> bool {
        let folder = |location: &Location| {
            let path = location.as_str().strip_prefix("file://")?;
            let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
            Some((found.dev(), found.ino()))
        };
        let from = folder(&self.from);
        from.is_some() && from == folder(&self.to)
    }
}

/// Holds the places of all tables against the warehouse. None when they lie in it.
///
/// # Errors
/// [`CatalogError::Metastore`], [`CatalogError::Storage`].
pub async fn moved(
    metastore: &Metastore,
    storage: &Storage,
) -> Result<Option<MovedWarehouse>, CatalogError> {
    let Some(to) = Location::parse(storage.root()) else { return Ok(None) };
    let places = outside(metastore.places().await?, &to);
    for place in places.iter().take(LOOKED_FOR_MAX) {
        if let Some(from) = found_here(place, &to, storage).await? {
            return Ok(Some(MovedWarehouse { from, to, tables: places.len(), is_here: true }));
        }
    }
    Ok(elsewhere(places, to))
}

/// As [`moved`], of a warehouse that has no files, because its folder is not there.
#[must_use]
pub fn elsewhere(places: Vec<TablePlace>, to: Location) -> Option<MovedWarehouse> {
    let places = outside(places, &to);
    let from = guessed(places.first()?);
    Some(MovedWarehouse { from, to, tables: places.len(), is_here: false })
}

fn outside(mut places: Vec<TablePlace>, to: &Location) -> Vec<TablePlace> {
    places.retain(|place| match Location::parse(&place.location) {
        Some(location) => !location.is_inside(to),
        // What is no location was not made by this catalog, and nothing can be said about it.
        None => false,
    });
    places
}

/// The former warehouse of a table whose metadata file is in this one: what is before the longest
/// end of its path that is found here.
async fn found_here(
    place: &TablePlace,
    to: &Location,
    storage: &Storage,
) -> Result<Option<Location>, CatalogError> {
    let Some(location) = Location::parse(&place.location) else { return Ok(None) };
    for folder in location.folders() {
        let Some(from) = Location::parse(folder) else { continue };
        let Some(here) = from.moved(&place.metadata_location, to) else { continue };
        if storage.exists(&here).await? {
            return Ok(Some(from));
        }
    }
    Ok(None)
}

/// The warehouse of a table that lies where this catalog puts tables: a folder for each level of
/// the namespace and one for the table are below it.
fn guessed(place: &TablePlace) -> Location {
    let below = place.levels.len() + 1;
    let path = place.location.trim_end_matches('/');
    let cut = path.rmatch_indices('/').nth(below - 1).map_or(path.len(), |(at, _)| at);
    Location::parse(&path[..cut])
        .or_else(|| Location::parse(path))
        .expect("a place that is held against a warehouse is a location")
}
