//! Commits that would bring rows back: of clients that put old work on a new head without looking.

use super::{late_client::*, places::strict, row_delta::*, *};
use iceberg::spec::Operation;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use std::collections::BTreeSet;

/// A table with the data files `f1` and `f2` of ten rows each, and a catalog that looks.
pub(super) async fn two_files() -> (House, Catalog) {
    let house = house().await;
    let catalog = strict(&house);
    let made = create(&catalog, "a.t").await;
    let both = Work { operation: "append", adds: &[("f1", 10), ("f2", 10)], ..Work::default() };
    catalog.commit(put(&catalog, &made, 1, both).await).await.unwrap();
    (house, catalog)
}

pub(super) async fn commit(
    catalog: &Catalog,
    id: i64,
    work: Work<'_>,
) -> Result<LoadedTable, CatalogError> {
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    catalog.commit(put(catalog, &head, id, work).await).await
}

async fn names(catalog: &Catalog) -> Vec<String> {
    files(catalog).await.into_iter().map(|(name, _)| name).collect()
}

/// After `first`, `second` is refused with a text that has `why` in it, and the table is as it was.
async fn check_refused(first: Work<'_>, second: Work<'_>, why: &str) {
    let (_house, catalog) = two_files().await;
    commit(&catalog, 2, first).await.unwrap();
    let before = files(&catalog).await;
    let lost = commit(&catalog, 3, second).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{why}: {lost:?}") };
    assert!(text.contains(why), "{text}");
    assert_eq!(files(&catalog).await, before);
}

const REWRITE: Work<'static> = Work {
    operation: "replace",
    removes: &["f1"],
    adds: &[("f1-small", 10)],
    made_at: None,
    deletes: &[],
    lists: &[],
};
pub(super) const UPDATE: Work<'static> =
    Work { operation: "overwrite", adds: &[("f1-new", 9)], ..REWRITE };
pub(super) const DELETE: Work<'static> = Work {
    operation: "delete",
    removes: &[],
    adds: &[],
    made_at: None,
    deletes: &[("d1", "f1")],
    lists: &[],
};

#[tokio::test]
async fn files_that_are_not_live_are_not_removed_again() {
    for first in [UPDATE, Work { operation: "delete", adds: &[], ..REWRITE }] {
        check_refused(first, REWRITE, "removes `file://").await;
        check_refused(first, Work { adds: &[], ..UPDATE }, "/data/f1`, which is not live").await;
    }
    // An update of the client's own second snapshot is no race.
    let (_house, catalog) = two_files().await;
    commit(&catalog, 2, UPDATE).await.unwrap();
    let again = Work { removes: &["f1-new"], adds: &[("f1-newer", 9)], ..UPDATE };
    commit(&catalog, 3, again).await.unwrap();
    assert_eq!(names(&catalog).await, ["f1-newer", "f2"]);
}

#[tokio::test]
async fn files_that_are_not_live_are_not_listed_again() {
    let lists = Work { operation: "append", removes: &[], adds: &[], lists: &["f1"], ..REWRITE };
    check_refused(UPDATE, lists, "lists `file://").await;
    // Nor twice.
    check_refused(DELETE, lists, "/data/f1`, which is not live").await;
}

#[tokio::test]
async fn a_file_that_is_about_to_be_deleted_is_not_added_again() {
    let (_house, catalog) = two_files().await;
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    let again = Work { operation: "append", adds: &[("f9", 5)], ..Work::default() };
    let change = put(&catalog, &head, 2, again).await;
    let location = format!("{}/data/f9", head.metadata.location());
    let file = ObsoleteFile { location: location.clone(), not_before_ms: i64::MAX };
    catalog.metastore().add_obsolete(&[file]).await.unwrap();
    for _ in 0..2 {
        let refused = catalog.commit(change.clone()).await;
        let Err(CatalogError::Invalid(text)) = &refused else { panic!("{refused:?}") };
        assert!(text.contains("f9` is about to be deleted"), "{text}");
    }
    catalog.metastore().forget_obsolete(&[location]).await.unwrap();
    catalog.commit(change).await.unwrap();
    assert_eq!(names(&catalog).await, ["f1", "f2", "f9"]);
}

#[tokio::test]
async fn rows_of_files_that_are_not_live_are_not_deleted() {
    check_refused(UPDATE, DELETE, "/data/f1`, which is not live any more").await;
    check_refused(REWRITE, DELETE, "/data/f1`, which is not live any more").await;
    let (_house, catalog) = two_files().await;
    let own =
        Work { operation: "overwrite", adds: &[("f3", 1)], deletes: &[("d3", "f3")], ..DELETE };
    commit(&catalog, 2, own).await.unwrap();
    commit(&catalog, 3, DELETE).await.unwrap();
    assert_eq!(names(&catalog).await, ["d1", "d3", "f1", "f2", "f3"]);
}

#[tokio::test]
async fn a_rewrite_whose_files_got_deletes_is_refused() {
    // Told by the number that the files come with, and by the rows.
    check_refused(DELETE, Work { made_at: Some(1), ..REWRITE }, "/data/f1`, of which").await;
    let fewer = Work { made_at: Some(1), adds: &[("f1-small", 9)], ..REWRITE };
    check_refused(DELETE, fewer, "since it was read").await;
    check_refused(DELETE, REWRITE, "/data/f1` without the deletes of its rows").await;
    let both = Work { removes: &["f1", "f2"], adds: &[("both", 20)], ..REWRITE };
    check_refused(DELETE, both, "it adds 20 rows in the place of 19").await;
    let gone = Work { removes: &[], adds: &[("f1-small", 10)], ..REWRITE };
    check_refused(UPDATE, gone, "a file that it rewrites is not live").await;
    // One that has seen them is none of these.
    for seen in [
        Work { made_at: Some(2), adds: &[("f1-small", 9)], ..REWRITE },
        Work { adds: &[("f1-small", 9)], ..REWRITE },
        Work { made_at: Some(1), removes: &["f2"], adds: &[("f2-small", 10)], ..REWRITE },
    ] {
        let (_house, catalog) = two_files().await;
        commit(&catalog, 2, DELETE).await.unwrap();
        commit(&catalog, 3, seen).await.unwrap();
    }
}

#[tokio::test]
async fn a_branch_does_not_leave_its_head_for_a_commit_that_was_built_before() {
    let (_house, catalog) = two_files().await;
    let base = catalog.tables().load(&ident("a.t")).await.unwrap();
    let late = put(&catalog, &base, 2, UPDATE).await;
    commit(&catalog, 3, Work { removes: &["f2"], adds: &[("f2-new", 9)], ..UPDATE }).await.unwrap();
    // It asserts nothing, and has the next number.
    let mut updates = serde_json::to_value(&late.updates).unwrap();
    updates[0]["snapshot"]["sequence-number"] = json!(3);
    let late = TableChange {
        requirements: Vec::new(),
        updates: serde_json::from_value(updates).unwrap(),
        ..late
    };
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("does not come after snapshot 3"), "{text}");
    assert_eq!(names(&catalog).await, ["f1", "f2-new"]);
}

/// A client that puts its old list on the new head, whatever it says that it does.
#[tokio::test]
async fn a_list_of_an_older_head_does_not_drop_what_came_since() {
    let operations = ["append", "delete", "overwrite", "replace"];
    let removals: [&[&str]; 2] = [&[], &["f1"]];
    for (operation, removes) in operations.iter().flat_map(|it| removals.map(|of| (*it, of))) {
        let (_house, catalog) = two_files().await;
        let base = catalog.tables().load(&ident("a.t")).await.unwrap();
        let late = put(&catalog, &base, 2, Work { operation, removes, ..Work::default() }).await;
        let append = Work { operation: "append", adds: &[("f3", 5)], ..Work::default() };
        commit(&catalog, 3, append).await.unwrap();
        let mut updates = serde_json::to_value(&late.updates).unwrap();
        updates[0]["snapshot"]["parent-snapshot-id"] = json!(3);
        updates[0]["snapshot"]["sequence-number"] = json!(3);
        updates[0]["snapshot"]["summary"]["deleted-data-files"] = json!(removes.len().to_string());
        let lost = catalog.commit(change("a.t", on_main(Some(3)), updates)).await;
        let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
        assert!(text.contains("leaves out `") && text.contains("/data/f3`"), "{text}");
        assert_eq!(names(&catalog).await, ["f1", "f2", "f3"]);
    }
}

#[tokio::test]
async fn a_manifest_whose_files_are_said_to_be_removed_may_be_left_out() {
    let (_house, catalog) = two_files().await;
    let all = Work { operation: "delete", removes: &["f1", "f2"], adds: &[], ..REWRITE };
    commit(&catalog, 2, all).await.unwrap();
    // Without the manifest that says so.
    catalog.commit(emptied(&catalog, 4, json!({"operation": "append"})).await).await.unwrap();
    assert!(names(&catalog).await.is_empty());
}

/// What a client sends that puts an empty list on the head.
async fn emptied(catalog: &Catalog, id: i64, summary: Value) -> TableChange {
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    let parent = head.metadata.current_snapshot_id();
    let empty = own_list(&head, id);
    let output = catalog.storage().file_io().new_output(&empty).unwrap().writer().await.unwrap();
    let number = head.metadata.next_sequence_number();
    ManifestListWriter::v2(output, id, parent, number).close().await.unwrap();
    let mut updates = add_snapshot(&head, id, &empty);
    updates[0]["snapshot"]["summary"] = summary;
    change("a.t", on_main(parent), updates)
}

/// As ClickHouse does it. One that counts the files has to know all of them.
#[tokio::test]
async fn a_table_may_be_truncated_by_an_empty_list() {
    for (summary, is_made) in [
        (json!({"operation": "overwrite"}), true),
        (json!({"operation": "delete"}), true),
        (json!({"operation": "delete", "deleted-data-files": "2"}), true),
        (json!({"operation": "delete", "deleted-data-files": "1"}), false),
        (json!({"operation": "append"}), false),
        (json!({"operation": "replace"}), false),
    ] {
        let (_house, catalog) = two_files().await;
        let told = catalog.commit(emptied(&catalog, 2, summary.clone()).await).await;
        assert_eq!(told.is_ok(), is_made, "{summary}: {told:?}");
        assert_eq!(names(&catalog).await.is_empty(), is_made, "{summary}");
    }
}

/// The files of a foreign commit are read before its turn comes.
#[tokio::test]
async fn a_commit_with_many_files_does_not_hold_up_ours() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let head = catalog.tables().load(&table).await.unwrap();
    let foreign = put(&catalog, &head, 2, UPDATE).await;
    let own = own_append(&head, "own", 1);
    let held = catalog.inner.locks.lock(std::iter::once(&table)).await;
    let storage = catalog.storage();
    let release = async {
        while catalog.waiting_commits() == 0 {
            tokio::task::yield_now().await;
        }
        // Whoever reads them now finds nothing.
        let written = storage.list(head.metadata.location()).await.unwrap();
        let mut taken = Vec::new();
        for file in written.into_iter().filter(|file| file.contains("/m2-")) {
            taken.push((file.clone(), storage.get(&file).await.unwrap()));
            storage.delete(&file).await.unwrap();
        }
        drop(held);
        taken
    };
    let (made, taken) = tokio::join!(catalog.commit(foreign), release);
    made.unwrap();
    assert_eq!(taken.len(), 2);
    for (file, bytes) in taken {
        storage.put(&file, bytes).await.unwrap();
    }
    catalog.add_snapshot(&table, own).await.unwrap();
    assert_eq!(names(&catalog).await, ["f1-new", "f2", "own"]);
}

/// What one of several clients is about.
#[derive(Clone, Debug)]
enum Deed {
    Append,
    /// Of our own log.
    OwnAppend,
    /// Takes a file out with its rows.
    Drop(String),
    /// Writes a file anew without one of its rows.
    Copy(String, u32),
    /// Deletes a row by its place.
    Delete(String, u32),
    /// Makes one file of some.
    Rewrite(Vec<String>, bool),
    /// The same by this catalog.
    OwnRewrite(Vec<String>),
}

/// Rows of data files, and rows that delete files delete of a data file.
#[derive(Default)]
struct Model {
    data: HashMap<String, BTreeSet<u32>>,
    deletes: HashMap<String, (String, u32)>,
    /// The rows that are there by what clients were told.
    alive: BTreeSet<u32>,
    next: u32,
}

impl Model {
    fn new_name(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    fn new_rows(&mut self) -> BTreeSet<u32> {
        self.next += 3;
        (self.next - 3..self.next).collect()
    }

    /// The rows of live data files that no live delete file deletes.
    fn rows(&self, live: &[String]) -> Vec<(String, BTreeSet<u32>)> {
        let mut found = Vec::new();
        for (name, rows) in live.iter().filter_map(|name| self.data.get_key_value(name)) {
            let deleted = live.iter().filter_map(|name| self.deletes.get(name));
            let deleted: BTreeSet<u32> =
                deleted.filter(|(about, _)| about == name).map(|(_, row)| *row).collect();
            found.push((name.clone(), rows - &deleted));
        }
        found
    }

    fn any_deed(&self, random: &mut StdRng, live: &[String]) -> Deed {
        let files: Vec<_> =
            self.rows(live).into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
        let Some((file, rows)) = files.choose(random).cloned() else { return Deed::Append };
        let row = *rows.iter().choose(random).unwrap();
        match random.random_range(0..12) {
            0..2 => Deed::Append,
            2 => Deed::OwnAppend,
            3 => Deed::Drop(file),
            4..6 => Deed::Copy(file, row),
            6..9 => Deed::Delete(file, row),
            _ => {
                let other = files.iter().find(|(name, _)| *name != file);
                let other = other.map(|(name, _)| name.clone());
                let both = other.into_iter().chain([file]).collect();
                match random.random_range(0..3) {
                    0 => Deed::OwnRewrite(both),
                    how => Deed::Rewrite(both, how == 1),
                }
            }
        }
    }
}

/// A client of one deed.
struct Client<'a> {
    catalog: &'a Catalog,
    table: &'a TableIdent,
    id: i64,
    /// What it has read, with the rows of the files.
    base: &'a LoadedTable,
    rows: &'a [(String, BTreeSet<u32>)],
}

impl Client<'_> {
    fn rows_in(&self, name: &String) -> BTreeSet<u32> {
        self.rows.iter().find(|(file, _)| file == name).unwrap().1.clone()
    }

    /// Carries out a deed and tells whether it was.
    async fn act(&self, deed: &Deed, model: &mut Model) -> bool {
        let (file, delete) = (model.new_name("f"), model.new_name("d"));
        let (made, gone): (BTreeSet<u32>, BTreeSet<u32>) = match deed {
            Deed::Append | Deed::OwnAppend => (model.new_rows(), BTreeSet::new()),
            Deed::Drop(name) => (BTreeSet::new(), model.data[name].clone()),
            Deed::Copy(name, row) => {
                let gone = BTreeSet::from([*row]);
                (&self.rows_in(name) - &gone, gone)
            }
            Deed::Delete(_, row) => (BTreeSet::new(), BTreeSet::from([*row])),
            Deed::Rewrite(names, _) | Deed::OwnRewrite(names) => {
                (names.iter().flat_map(|name| self.rows_in(name)).collect(), BTreeSet::new())
            }
        };
        let adds = [(file.as_str(), made.len() as u64)];
        let adds = if made.is_empty() { &[][..] } else { &adds[..] };
        let (removes, operation) = match deed {
            Deed::Append | Deed::OwnAppend => (Vec::new(), "append"),
            Deed::Drop(name) => (vec![name.as_str()], "delete"),
            Deed::Copy(name, _) => (vec![name.as_str()], "overwrite"),
            Deed::Delete(..) => (Vec::new(), "delete"),
            Deed::Rewrite(names, _) | Deed::OwnRewrite(names) => {
                (names.iter().map(String::as_str).collect(), "replace")
            }
        };
        let work = Work { operation, removes: &removes, adds, ..Work::default() };
        let number = self.base.metadata.last_sequence_number();
        let is_done = match deed {
            Deed::OwnAppend => {
                let append = own_append(self.base, &file, self.id.unsigned_abs());
                self.catalog.add_snapshot(self.table, append).await.is_ok()
            }
            Deed::OwnRewrite(_) => self.rewrite(work).await,
            Deed::Delete(about, row) => {
                let deletes = [(delete.as_str(), about.as_str())];
                let is_done = self.send(Work { deletes: &deletes, ..work }, true).await;
                if is_done {
                    model.deletes.insert(delete.clone(), (about.clone(), *row));
                }
                is_done
            }
            Deed::Copy(..) => self.send(work, false).await,
            Deed::Rewrite(_, true) => self.send(Work { made_at: Some(number), ..work }, true).await,
            _ => self.send(work, true).await,
        };
        if is_done {
            model.alive = &(&model.alive - &gone) | &made;
            model.data.insert(file, made);
        }
        is_done
    }

    /// Sends its work on what it has read; a client that is blind puts it on the newest state as it
    /// is if it came too late.
    async fn send(&self, work: Work<'_>, is_blind: bool) -> bool {
        let on = async |base: &LoadedTable, id| {
            let change = put(self.catalog, base, id, work).await;
            self.catalog.commit(TableChange { table: self.table.clone(), ..change }).await
        };
        let mut told = on(self.base, self.id).await;
        if is_blind && matches!(told, Err(CatalogError::CommitFailed(_))) {
            let head = self.catalog.tables().load(self.table).await.unwrap();
            told = on(&head, self.id + 1).await;
        }
        assert!(matches!(told, Ok(_) | Err(CatalogError::CommitFailed(_))), "{told:?}");
        told.is_ok()
    }

    async fn rewrite(&self, work: Work<'_>) -> bool {
        let file = |(name, rows): &(&str, u64)| rows_of(self.base, name, *rows);
        let rewrite = NewSnapshot {
            operation: Operation::Replace,
            read: self.base.metadata.current_snapshot_id(),
            removed: work.removes.iter().map(|name| rows_of(self.base, name, 10)).collect(),
            added: work.adds.iter().map(file).collect(),
            ..NewSnapshot::default()
        };
        let told = self.catalog.add_snapshot(self.table, rewrite).await;
        assert!(matches!(told, Ok(_) | Err(CatalogError::CommitFailed(_))), "{told:?}");
        told.is_ok()
    }
}

pub(super) fn own_append(table: &LoadedTable, name: &str, position: u64) -> NewSnapshot {
    NewSnapshot {
        added: vec![rows_of(table, name, 3)],
        mark: Some(MarkMove {
            watermark: Watermark { epoch: 1, position, last_seq: position },
            since: 0,
        }),
        ..NewSnapshot::default()
    }
}

/// Clients that read one state and commit one after the other, at two processes. `LARGE=1` has a thousand
/// rounds; the short form meets each kind of deed, refused and done, many times.
#[tokio::test]
async fn however_clients_interleave_no_deleted_row_comes_back_and_none_is_doubled() {
    const FOR_EACH_TABLE: i64 = 5;
    let rounds = if std::env::var_os("LARGE").is_some() { 1_000 } else { 100 };
    let house = house().await;
    let catalogs = [strict(&house), strict(&house)];
    let mut random = StdRng::seed_from_u64(10);
    let (mut model, mut refused, mut done) = (Model::default(), 0, 0);
    let mut table = ident("a.t");
    for round in 0..rounds {
        if round % FOR_EACH_TABLE == 0 {
            table = ident(&format!("a.t{round}"));
            create(&catalogs[0], &format!("a.t{round}")).await;
            model = Model::default();
        }
        let base = catalogs[0].tables().load(&table).await.unwrap();
        let live = names_of(&catalogs[0], &base).await;
        let rows = model.rows(&live);
        let mut deeds = Vec::new();
        for client in 0..random.random_range(2..4) {
            let deed = model.any_deed(&mut random, &live);
            let catalog = &catalogs[random.random_range(0..2)];
            let id = 1 + (round % FOR_EACH_TABLE) * 10 + client * 2;
            let client = Client { catalog, table: &table, id, base: &base, rows: &rows };
            match client.act(&deed, &mut model).await {
                true => done += 1,
                false => refused += 1,
            }
            deeds.push(deed);
        }
        let now = catalogs[1].tables().load(&table).await.unwrap();
        let found = model.rows(&names_of(&catalogs[1], &now).await);
        let mut found: Vec<u32> = found.into_iter().flat_map(|(_, rows)| rows).collect();
        found.sort_unstable();
        let alive: Vec<u32> = model.alive.iter().copied().collect();
        assert_eq!(found, alive, "round {round}: {deeds:?}");
    }
    assert!(rounds / 4 < refused && rounds / 2 < done, "{refused} refused, {done} done");
}

async fn names_of(catalog: &Catalog, table: &LoadedTable) -> Vec<String> {
    let mut found = Vec::new();
    for manifest in listed(catalog, table).await {
        let loaded = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
        let live = loaded.entries().iter().filter(|entry| entry.is_alive());
        found.extend(live.map(|entry| entry.file_path().rsplit('/').next().unwrap().to_owned()));
    }
    found
}
