//! Clients of one table and compaction, in random order, held against what should be there.

use super::*;
use crate::ancestors;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use std::collections::BTreeSet;

/// A state of the table that a client may have read.
#[derive(Clone)]
struct ReadState {
    table: LoadedTable,
    /// Its live data files, with the rows that no delete file deletes.
    rows: BTreeMap<String, BTreeSet<u32>>,
    /// Its live delete files, each with its data file.
    deletes: Vec<(String, String)>,
}

/// What the files of a table hold, and what should be there by what clients were told.
#[derive(Default)]
struct TableModel {
    data: HashMap<String, BTreeSet<u32>>,
    deletes: HashMap<String, (String, u32)>,
    alive: BTreeSet<u32>,
    next: u32,
}

impl TableModel {
    fn name(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    /// A snapshot as readers see it.
    async fn state(&self, catalog: &Catalog, table: &LoadedTable, list: &str) -> ReadState {
        let mut names = Vec::new();
        for manifest in listed_in(catalog, list).await {
            let loaded = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
            let live = loaded.entries().iter().filter(|entry| entry.is_alive());
            names.extend(live.map(|it| it.file_path().rsplit('/').next().unwrap().to_owned()));
        }
        let deleted: Vec<_> =
            names.iter().filter_map(|name| self.deletes.get_key_value(name)).collect();
        let mut rows = BTreeMap::new();
        for (name, of_file) in names.iter().filter_map(|name| self.data.get_key_value(name)) {
            let gone = deleted.iter().filter(|(_, (about, _))| about == name);
            let gone: BTreeSet<u32> = gone.map(|(_, (_, row))| *row).collect();
            assert!(rows.insert(name.clone(), of_file - &gone).is_none(), "{name} is there twice");
        }
        let about = |(name, (about, _)): (&String, &(String, u32))| (name.clone(), about.clone());
        let deletes = deleted.into_iter().map(about).collect();
        ReadState { table: table.clone(), rows, deletes }
    }

    /// One commit of somebody who read `state`; whether it was made.
    async fn step(
        &mut self,
        catalog: &Catalog,
        id: i64,
        state: &ReadState,
        random: &mut StdRng,
    ) -> bool {
        let read = &state.table;
        let filled: Vec<_> = state.rows.iter().filter(|(_, rows)| !rows.is_empty()).collect();
        let (new, kind) = (self.name("f"), random.random_range(0..8));
        let picked = filled.choose(random).map(|(name, rows)| ((*name).clone(), (*rows).clone()));
        let Some((name, rows)) = picked.filter(|_| 2 <= kind) else {
            let made: BTreeSet<u32> = (self.next..self.next + 3).collect();
            self.next += 3;
            let adds = [(new.as_str(), 3)];
            let work = Work { operation: "append", adds: &adds, ..Work::default() };
            let is_made = catalog.commit(put(catalog, read, id, work).await).await.is_ok();
            assert!(is_made, "an append is never refused");
            self.alive.extend(&made);
            self.data.insert(new, made);
            return true;
        };
        let row = *rows.iter().choose(random).unwrap();
        let left: BTreeSet<u32> = rows.iter().copied().filter(|it| *it != row).collect();
        let told = match kind {
            2..4 => {
                let delete = self.name("d");
                let deletes = [(delete.as_str(), name.as_str())];
                let work = Work { deletes: &deletes, ..DELETE };
                let told = catalog.commit(put(catalog, read, id, work).await).await;
                if told.is_ok() {
                    self.deletes.insert(delete, (name, row));
                }
                told
            }
            4..6 => {
                let adds = [(new.as_str(), left.len() as u64)];
                let change = copy_on_write(catalog, read, id, &[name.as_str()], &adds).await;
                self.data.insert(new, left);
                catalog.commit(change).await
            }
            _ => return self.merge(catalog, state, new).await,
        };
        if told.is_ok() {
            self.alive.remove(&row);
        }
        assert!(matches!(told, Ok(_) | Err(CatalogError::CommitFailed(_))), "{told:?}");
        told.is_ok()
    }

    /// A compaction of ours of all files.
    async fn merge(&mut self, catalog: &Catalog, state: &ReadState, new: String) -> bool {
        let merged: Vec<(&str, u64)> =
            state.rows.keys().map(|name| (name.as_str(), self.data[name].len() as u64)).collect();
        let all: BTreeSet<u32> = state.rows.values().flatten().copied().collect();
        let of_live = state.deletes.iter().filter(|(_, about)| state.rows.contains_key(about));
        let deletes: Vec<_> =
            of_live.map(|(name, about)| (name.as_str(), about.as_str())).collect();
        let added = [(new.as_str(), all.len() as u64)];
        let snapshot = compaction(&state.table, &merged, &deletes, &added);
        self.data.insert(new.clone(), all);
        let told = catalog.add_snapshot(&ident("a.t"), snapshot.clone()).await;
        assert!(matches!(told, Ok(_) | Err(CatalogError::CommitFailed(_))), "{told:?}");
        told.is_ok() || self.carry(catalog, state, (new.as_str(), snapshot)).await
    }

    /// The same compaction with the deletes that came since it was built, as places of its output.
    async fn carry(
        &mut self,
        catalog: &Catalog,
        state: &ReadState,
        (new, mut snapshot): (&str, NewSnapshot),
    ) -> bool {
        let table = load(catalog).await;
        let head = table.metadata.current_snapshot().unwrap();
        let now = self.state(catalog, &table, head.manifest_list()).await;
        if !state.rows.keys().all(|name| now.rows.contains_key(name)) {
            return false;
        }
        let of_inputs = now.deletes.iter().filter(|delete| state.rows.contains_key(&delete.1));
        let since: Vec<_> =
            of_inputs.filter(|delete| !state.deletes.contains(delete)).cloned().collect();
        for (old, about) in since {
            let (row, name) = (self.deletes[&old].1, self.name("e"));
            snapshot.deletes.push(carried(&table, &name, new));
            self.deletes.insert(name, (new.to_owned(), row));
            snapshot.removed.push(delete(&table, (old.as_str(), Some(about.as_str()))));
        }
        snapshot.deletes_read = Some(head.snapshot_id());
        let told = catalog.add_snapshot(&ident("a.t"), snapshot).await;
        assert!(matches!(told, Ok(_) | Err(CatalogError::CommitFailed(_))), "{told:?}");
        told.is_ok()
    }
}

#[tokio::test]
async fn whatever_is_taken_back_every_snapshot_has_the_rows_that_it_should() {
    const STEPS: i64 = 40;
    let tables = if std::env::var_os("LARGE").is_some() { 8 } else { 4 };
    let (mut taken_back, mut refused) = (0, 0);
    for seed in 0..tables {
        let house = house().await;
        let catalog = strict(&house);
        let mut random = StdRng::seed_from_u64(seed);
        let mut model = TableModel::default();
        let made = create(&catalog, "a.t").await;
        let empty = ReadState { table: made, rows: BTreeMap::new(), deletes: Vec::new() };
        model.step(&catalog, 1, &empty, &mut random).await;
        let (mut states, mut rows_of_all) = (Vec::new(), HashMap::<i64, Vec<u32>>::new());
        for step in 2..STEPS {
            let table = load(&catalog).await;
            let line: Vec<_> = ancestors::of(&table.metadata, table.metadata.current_snapshot_id())
                .take_while(|it| !rows_of_all.contains_key(&it.snapshot_id()))
                .cloned()
                .collect();
            for snapshot in line.iter().rev() {
                let state = model.state(&catalog, &table, snapshot.manifest_list()).await;
                let mut rows: Vec<u32> = state.rows.values().flatten().copied().collect();
                rows.sort_unstable();
                let summary = snapshot.summary();
                if summary.operation == Operation::Replace {
                    let before = &rows_of_all[&snapshot.parent_snapshot_id().unwrap()];
                    assert_eq!(&rows, before, "seed {seed}, step {step}");
                }
                let kind = summary.additional_properties.get(COMPACTION);
                taken_back += u32::from(kind.is_some_and(|kind| kind == commit::TAKEN_BACK));
                rows_of_all.insert(snapshot.snapshot_id(), rows);
                // Of several snapshots of one commit a client reads the last one.
                if table.metadata.current_snapshot_id() == Some(snapshot.snapshot_id()) {
                    states.push(state);
                }
            }
            let head = &rows_of_all[&table.metadata.current_snapshot_id().unwrap()];
            let alive: Vec<u32> = model.alive.iter().copied().collect();
            assert_eq!(head, &alive, "seed {seed}, step {step}");
            let recent = states.len().saturating_sub(4);
            let state = states[recent..].choose(&mut random).unwrap().clone();
            refused += u32::from(!model.step(&catalog, step, &state, &mut random).await);
        }
    }
    assert!(0 < taken_back && 0 < refused, "{taken_back} taken back, {refused} refused");
}
