//! Which names the tables and views of a warehouse get back. Pure.
//!
//! The lists of names say most of it. What is in none of them was made after the newest one, or had left
//! the catalog before it: its last change tells which. What was made after gets a name of what it is.
//! Its one invariant: no two get one name, and none overlaps another.

use super::{FoundTable, RecoveredTable, RecoveryNote, RecoveryOptions};
use crate::{
    catalog::{Catalog, create::folder_of, name_list::NameList},
    location::Location,
    metastore::{
        ChangeSet, DropTerms, Levels, ListedName, NameKind, NameState, NewTable, Properties,
        ReturningTable, TableOrigin, holds::LegalHold,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};
use uuid::Uuid;

/// A table that changed so shortly before the list was written may have been made while it was.
const LIST_MARGIN_MS: i64 = 60_000;
/// How long dropped tables stay in the trash at least after they came back to it: who repairs looks at
/// them first.
const TRASH_MIN_MS: i64 = 7 * 86_400_000;
/// The namespace of what is in no namespace's folder.
const NAMESPACE: &str = "recovered";

/// Namespaces and the names of everything.
#[derive(Debug, Default)]
pub struct RecoveredNames {
    /// Namespaces with their properties, those above before those below.
    pub namespaces: BTreeMap<Levels, Properties>,
    /// Tables and views.
    pub tables: Vec<RecoveredTable>,
    /// The legal holds of all lists.
    pub holds: Vec<LegalHold>,
}

/// What names are taken from.
pub(super) struct NameSources<'a> {
    catalog: &'a Catalog,
    /// Of metastores of which none was rebuilt in the place of another, the newest first.
    lists: &'a [NameList],
    /// What the newest list that has it says.
    listed: HashMap<Uuid, &'a ListedName>,
    options: RecoveryOptions,
}

/// Whether a table or view comes back, and under which name if that is known.
enum NameVerdict {
    Listed(ListedName),
    /// It was made after the newest list, or there is none.
    Unlisted,
    /// It had left the catalog.
    Left(&'static str),
}

/// What is taken already.
#[derive(Default)]
struct TakenNames {
    names: HashSet<(Levels, String)>,
    uuids: HashSet<Uuid>,
    places: BTreeSet<String>,
}

impl<'a> NameSources<'a> {
    /// The names that lists have, of which the newest comes first.
    pub(super) fn new(
        catalog: &'a Catalog,
        lists: &'a [NameList],
        options: RecoveryOptions,
    ) -> Self {
        let mut listed = HashMap::new();
        for list in lists.iter().rev() {
            listed.extend(list.names.iter().map(|name| (name.uuid, name)));
        }
        Self { catalog, lists, listed, options }
    }

    /// Whatever was held in any metastore stays held: who repairs can end that.
    fn holds(&self) -> Vec<LegalHold> {
        let holds = self.lists.iter().rev().flat_map(|list| &list.holds);
        let holds: BTreeMap<(&Levels, &str), &LegalHold> =
            holds.map(|hold| ((&hold.levels, hold.name.as_str()), hold)).collect();
        holds.into_values().cloned().collect()
    }

    /// Names what was found.
    pub(super) fn name(
        &self,
        mut found: Vec<FoundTable>,
        notes: &mut Vec<RecoveryNote>,
    ) -> RecoveredNames {
        let mut recovered = RecoveredNames { holds: self.holds(), ..RecoveredNames::default() };
        for namespace in self.lists.iter().rev().flat_map(|list| &list.namespaces) {
            recovered.namespaces.insert(namespace.levels.clone(), namespace.properties.clone());
        }
        let folders: HashMap<String, Levels> =
            recovered.namespaces.keys().map(|levels| (folder_of(levels), levels.clone())).collect();
        // What has a name keeps it; of what has none, the newest gets the name of what it is.
        let rank = |table: &FoundTable| match self.verdict(table) {
            NameVerdict::Listed(listed) if !matches!(listed.state, NameState::Dropped { .. }) => 0,
            NameVerdict::Listed(_) => 1,
            NameVerdict::Unlisted => 2,
            NameVerdict::Left(_) => 3,
        };
        found.sort_by_cached_key(|table| (rank(table), Reverse(table.at_ms), table.uuid));
        let mut taken = TakenNames::default();
        for table in found {
            let place = table.location.to_string();
            if let Some(text) = taken.refusal(&table) {
                notes.push(RecoveryNote::new(place, text));
                continue;
            }
            let mut listed = match self.verdict(&table) {
                NameVerdict::Listed(listed) => listed,
                // Of one that is listed the files were being deleted.
                NameVerdict::Left(_)
                    if self.options.with_dropped && !self.listed.contains_key(&table.uuid) =>
                {
                    self.named(&table, &folders, &taken, true)
                }
                NameVerdict::Unlisted => self.named(&table, &folders, &taken, false),
                NameVerdict::Left(text) => {
                    notes.push(RecoveryNote::new(place, text));
                    continue;
                }
            };
            if !self.is_listed(&table) {
                let name = format!("{}.{}", listed.levels.join("."), listed.name);
                let text = format!("is in no list of names: it comes back as `{name}`");
                notes.push(RecoveryNote::new(&place, text));
            }
            if taken.has(&listed) {
                // Two metastores were in use one after the other.
                listed.name = format!("{}_{}", listed.name, table.uuid.simple());
                let text =
                    format!("has the name of one that changed later: it is `{}`", listed.name);
                notes.push(RecoveryNote::new(&place, text));
            }
            taken.take(&table, &listed);
            for depth in 1..=listed.levels.len() {
                let levels = listed.levels[..depth].to_vec();
                recovered.namespaces.entry(levels).or_default();
            }
            recovered.tables.push(self.returning(table, listed));
        }
        recovered
    }

    fn is_listed(&self, table: &FoundTable) -> bool {
        matches!(self.verdict(table), NameVerdict::Listed(_))
    }

    fn verdict(&self, table: &FoundTable) -> NameVerdict {
        match self.listed.get(&table.uuid) {
            Some(ListedName { state: NameState::Purged, .. }) => {
                NameVerdict::Left("was dropped, and its files were being deleted: it is left out")
            }
            Some(listed) => NameVerdict::Listed(ListedName::clone(listed)),
            None => match self.lists.iter().map(|list| list.at_ms).min() {
                Some(at_ms) if table.at_ms.saturating_add(LIST_MARGIN_MS) < at_ms => {
                    NameVerdict::Left(
                        "is in no current list of names and did not change since: it was dropped, and \
                         is left out; with --with-dropped it comes back",
                    )
                }
                Some(_) | None => NameVerdict::Unlisted,
            },
        }
    }

    /// A name for what has none.
    fn named(
        &self,
        table: &FoundTable,
        folders: &HashMap<String, Levels>,
        taken: &TakenNames,
        was_dropped: bool,
    ) -> ListedName {
        let unknown = || vec![NAMESPACE.to_owned()];
        let levels = self.levels_of(&table.location, folders).unwrap_or_else(unknown);
        let of_columns = || table.is_managed.then(|| self.own_name(&table.columns)).flatten();
        let own = table.own_name.as_deref().or_else(of_columns);
        let is_free = |name: &str| !taken.names.contains(&(levels.clone(), name.to_owned()));
        let name = match own {
            Some(own) if !was_dropped && is_free(own) => own.to_owned(),
            Some(own) => format!("{own}_{}", table.uuid.simple()),
            None => format!("recovered_{}", table.uuid.simple()),
        };
        let state = match table.kind {
            NameKind::Table => NameState::Table,
            NameKind::View => NameState::View,
        };
        ListedName { uuid: table.uuid, levels, name, state, is_protected: false }
    }

    /// Which table of the service has these columns: the one that shares most with them.
    fn own_name(&self, columns: &HashSet<String>) -> Option<&'static str> {
        let tables = self.catalog.inner.options.reserved.tables.iter();
        let shared = tables.map(|own| {
            let both = own.columns.iter().filter(|column| columns.contains(column.name)).count();
            let all = own.columns.len() + columns.len() - both;
            (both * 1000 / all.max(1), own.name)
        });
        shared.max().filter(|(share, _)| 0 < *share).map(|(_, name)| name)
    }

    /// The namespace whose folder a table lies in.
    fn levels_of(&self, location: &Location, folders: &HashMap<String, Levels>) -> Option<Levels> {
        let below = location.as_str().strip_prefix(self.catalog.storage().root())?;
        let (folder, _) = below.strip_prefix('/')?.rsplit_once('/')?;
        if let Some(levels) = folders.get(folder) {
            return Some(levels.clone());
        }
        let levels: Levels = folder.split('/').map(level).collect::<Option<_>>()?;
        (folder_of(&levels) == folder).then_some(levels)
    }

    fn returning(&self, found: FoundTable, listed: ListedName) -> RecoveredTable {
        let dropped = match listed.state {
            NameState::Dropped { dropped_ms, until_ms, purge } => {
                let least = self.catalog.now_ms().saturating_add(TRASH_MIN_MS);
                Some(DropTerms { dropped_ms, until_ms: until_ms.max(least), purge })
            }
            NameState::Table | NameState::View | NameState::Purged => None,
        };
        let table = NewTable {
            kind: found.kind,
            levels: listed.levels,
            name: listed.name,
            uuid: found.uuid,
            metadata_location: found.metadata_location,
            location: found.location.to_string(),
            snapshots: found.snapshots,
            comes: TableOrigin::Created,
            changes: ChangeSet::default(),
        };
        let version = i64::try_from(found.number).unwrap_or(i64::MAX - 1).saturating_add(1);
        let is_protected = listed.is_protected;
        RecoveredTable {
            returning: ReturningTable {
                table,
                version,
                mark: None,
                acked: found.acked,
                is_protected,
                dropped,
            },
            is_managed: found.is_managed,
            last_seq: found.last_seq,
            position: found.position,
        }
    }
}

impl TakenNames {
    /// Why a table cannot come back beside those that do.
    fn refusal(&self, table: &FoundTable) -> Option<&'static str> {
        if self.uuids.contains(&table.uuid) {
            return Some("has the identity of a table that changed later: it is left out");
        }
        let place = table.location.as_str();
        let below = format!("{place}/");
        let overlaps = self.places.contains(place)
            || table.location.folders().any(|folder| self.places.contains(folder))
            || self.places.range(below.clone()..).next().is_some_and(|it| it.starts_with(&below));
        overlaps.then_some("overlaps the folder of another table: it is left out")
    }

    fn has(&self, listed: &ListedName) -> bool {
        let is_there = !matches!(listed.state, NameState::Dropped { .. });
        is_there && self.names.contains(&(listed.levels.clone(), listed.name.clone()))
    }

    fn take(&mut self, table: &FoundTable, listed: &ListedName) {
        self.uuids.insert(table.uuid);
        self.places.insert(table.location.to_string());
        if !matches!(listed.state, NameState::Dropped { .. }) {
            self.names.insert((listed.levels.clone(), listed.name.clone()));
        }
    }
}

/// The level of a namespace whose folder this is; none where the name says too little.
fn level(folder: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(folder.len());
    let mut rest = folder.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'.' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
