use super::*;
use iceberg::{
    TableIdent,
    spec::{NestedField, PrimitiveType, Schema, Type},
};
use icecore_catalog::{
    catalog::CreateTable,
    metastore::{Metastore, Properties},
    storage::{S3Options, Storage},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// Tables, as `namespace.name`, and the watch that looks for their files, two in one tick.
struct Rig {
    _folder: TempDir,
    catalog: Catalog,
    owner: LogOwnership,
    files: Vec<PathBuf>,
}

impl Rig {
    async fn new(tables: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let root = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&root, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("m.db")).await.unwrap();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(|| 1_760_000_000_000));
        let mut files = Vec::new();
        for (namespace, name) in tables.iter().map(|table| table.split_once('.').unwrap()) {
            let levels = vec![namespace.to_owned()];
            catalog.namespaces().ensure(&levels, &Properties::new()).await.unwrap();
            let field = NestedField::optional(1, "x", Type::Primitive(PrimitiveType::Long));
            let schema = Schema::builder().with_fields([Arc::new(field)]).build().unwrap();
            let table = CreateTable::plain(name, schema);
            let made = catalog.tables().create(&levels, table).await.unwrap();
            files.push(PathBuf::from(made.metadata_location.strip_prefix("file://").unwrap()));
        }
        Self { _folder: folder, catalog, owner: LogOwnership::first(), files }
    }

    fn watch(&self) -> MetadataWatch {
        MetadataWatch { files_max: 2, ..MetadataWatch::new(&self.owner, &self.catalog) }
    }

    /// Whether the server is not ready because of this file.
    fn names(&self, file: &Path) -> bool {
        let told = self.owner.obstacle_texts();
        told.iter().any(|text| text.contains(&format!("{}` of", file.display())))
    }
}

fn set_aside(file: &Path) -> PathBuf {
    let aside = file.with_extension("aside");
    fs::rename(file, &aside).unwrap();
    aside
}

#[tokio::test]
async fn files_that_are_still_missing_after_the_store_failed_are_told_again() {
    let rig = Rig::new(&["n.t"]).await;
    let file = &rig.files[0];
    let aside = set_aside(file);
    let mut watch = rig.watch();
    assert_eq!(watch.tick().await.unwrap(), Progress::Idle);
    assert!(rig.names(file));
    // A link to itself does not read: nothing is known of the file below.
    let folder = file.parent().unwrap();
    let folder_aside = set_aside(folder);
    std::os::unix::fs::symlink(folder, folder).unwrap();
    watch.tick().await.unwrap_err();
    assert!(rig.owner.obstacle_texts().is_empty());
    fs::remove_file(folder).unwrap();
    fs::rename(folder_aside, folder).unwrap();
    assert_eq!(watch.tick().await.unwrap(), Progress::Idle);
    assert!(rig.names(file));
    fs::rename(aside, file).unwrap();
    assert_eq!(watch.tick().await.unwrap(), Progress::Done);
    assert!(rig.owner.obstacle_texts().is_empty());
}

#[tokio::test]
async fn a_tick_goes_on_where_the_one_before_ended() {
    let rig = Rig::new(&["n.t1", "n.t2", "n.t3", "n.t4", "n.t5"]).await;
    let aside: Vec<PathBuf> = rig.files[..4].iter().map(|file| set_aside(file)).collect();
    let mut watch = rig.watch();
    assert_eq!(watch.tick().await.unwrap(), Progress::More);
    assert!(!rig.owner.obstacle_texts().is_empty(), "it is not ready yet");
    assert_eq!(watch.tick().await.unwrap(), Progress::More);
    assert_eq!(watch.tick().await.unwrap(), Progress::Idle);
    let named = |rig: &Rig| rig.files.iter().map(|file| rig.names(file)).collect::<Vec<_>>();
    assert_eq!(named(&rig), [true, true, true, true, false]);
    // Only these are looked for from now on, and no longer once they are not named.
    fs::rename(&aside[0], &rig.files[0]).unwrap();
    fs::rename(&aside[1], &rig.files[1]).unwrap();
    while watch.tick().await.unwrap() == Progress::More {}
    assert_eq!(named(&rig), [false, false, true, true, false]);
    fs::rename(&aside[2], &rig.files[2]).unwrap();
    fs::rename(&aside[3], &rig.files[3]).unwrap();
    let gone = TableIdent::from_strs(["n", "t3"]).unwrap();
    rig.catalog.tables().drop(&gone, false).await.unwrap();
    set_aside(&rig.files[2]);
    assert_eq!(watch.tick().await.unwrap(), Progress::Done);
    assert!(rig.owner.obstacle_texts().is_empty());
}

#[tokio::test]
async fn files_of_one_namespace_of_many_keep_the_server_from_nothing() {
    let rig = Rig::new(&["a.t", "a.u", "b.t", "c.t"]).await;
    let round = async |watch: &mut MetadataWatch| {
        while watch.tick().await.unwrap() == Progress::More {}
        rig.owner.obstacle_texts().len()
    };
    let aside: Vec<PathBuf> = rig.files.iter().map(|file| set_aside(file)).collect();
    let put_back = |at: usize| fs::rename(&aside[at], &rig.files[at]).unwrap();
    let mut watch = rig.watch();
    assert_eq!(round(&mut watch).await, 1, "all are gone");
    put_back(3);
    assert_eq!(round(&mut watch).await, 1, "two are another warehouse's");
    put_back(2);
    assert_eq!(round(&mut watch).await, 0, "one is its own matter");
    assert_eq!(watch.tick().await.unwrap(), Progress::Idle, "and is looked for");
    put_back(0);
    put_back(1);
    assert_eq!(watch.tick().await.unwrap(), Progress::Done);
}
