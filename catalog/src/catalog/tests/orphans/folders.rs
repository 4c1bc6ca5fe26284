//! Folders of tables that never were: which of them go, and which are left.

use super::*;

const DATA: &str = "data/0a/01JD0000000000000000000000.parquet";
const MANIFEST: &str = "metadata/snap-1.avro";

/// Leaves a folder as a statement does that is killed, with files of three days.
async fn leave_folder(catalog: &Catalog, names: &[&str]) -> Vec<String> {
    let folder = format!("{}/a/{}", catalog.storage().root(), Uuid::new_v4());
    let mut files = Vec::new();
    for name in names {
        let file = format!("{folder}/{name}");
        catalog.storage().put(&file, Bytes::from_static(b"x")).await.unwrap();
        if catalog.storage().is_local() {
            set_time(&file, NOW - 3 * DAY_MS);
        }
        files.push(file);
    }
    files
}

fn folder_of_file(file: &str) -> String {
    file.split_once("/data/").unwrap().0.to_owned()
}

/// What a run finds, and how many files it queues.
async fn sweep_folders(catalog: &Catalog) -> (Vec<String>, u64) {
    let found = catalog.orphans().search_folders(&suite::levels("a"), 0).await.unwrap();
    let (mut files, mut queued) = (Vec::new(), 0);
    for folder in &found {
        files.extend(folder.orphans().iter().map(|file| file.location.clone()));
        catalog.orphans().mark_folder(folder).await.unwrap();
        queued += catalog.orphans().queue_folder(folder).await.unwrap().files;
    }
    (files, queued)
}

#[tokio::test]
async fn a_folder_of_a_table_that_was_never_made_goes_when_it_was_seen_so_a_day_before() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let catalog = strict(&house);
        create(&catalog, "a.t").await;
        let files = house.files().await;
        let left = leave_folder(&catalog, &[DATA, MANIFEST]).await;
        assert_eq!(sweep_folders(&catalog).await, (left.clone(), 0), "seen first");
        assert_eq!(sweep_folders(&catalog).await, (left.clone(), 0), "at once again");
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        // One of its files was written since: all wait another day.
        set_time(&left[0], NOW - 2 * DAY_MS);
        assert_eq!(sweep_folders(&catalog).await, (left.clone(), 0));
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep_folders(&catalog).await, (left, 2));
        assert_eq!(sweep_folders(&catalog).await, (Vec::new(), 0), "what is queued is left");
        delete_queued(&house).await;
        assert_eq!(house.files().await, files);
    }
}

#[tokio::test]
async fn a_folder_of_which_anything_else_is_known_stays() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let catalog = strict(&house);
        // A table that was dropped without its files, one of another writer, and one that is written now.
        leave_folder(&catalog, &[DATA, "metadata/00000-a.metadata.json"]).await;
        leave_folder(&catalog, &[DATA, "data/part-0.parquet"]).await;
        leave_folder(&catalog, &["data/0a/00000-0-a.parquet"]).await;
        let written =
            leave_folder(&catalog, &[DATA, "data/0b/01JD0000000000000000000001.parquet"]).await;
        set_time(&written[1], NOW - HOUR_MS);
        let outside = format!("{}/a/plain/{DATA}", catalog.storage().root());
        catalog.storage().put(&outside, Bytes::from_static(b"x")).await.unwrap();
        set_time(&outside, NOW - 3 * DAY_MS);
        // Tables whose metadata files are lost: one is there, one can be restored.
        for name in ["a.there", "a.dropped"] {
            let made = create(&catalog, name).await;
            if name == "a.dropped" {
                house.catalog.tables().drop(&ident(name), false).await.unwrap();
            }
            catalog.storage().delete(&made.metadata_location).await.unwrap();
            let file = in_table(&made, DATA);
            catalog.storage().put(&file, Bytes::from_static(b"x")).await.unwrap();
            set_time(&file, NOW - 3 * DAY_MS);
        }
        assert_eq!(sweep_folders(&catalog).await, (Vec::new(), 0));
        // Where tables may name each other's files, nothing is known.
        let left = leave_folder(&catalog, &[DATA]).await;
        assert_eq!(sweep_folders(&house.catalog).await, (Vec::new(), 0));
        assert_eq!(sweep_folders(&catalog).await, (left, 0));
    }
}

#[tokio::test]
async fn a_table_that_comes_to_the_place_meanwhile_keeps_its_files() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let catalog = strict(&house);
        let left = leave_folder(&catalog, &[DATA]).await;
        sweep_folders(&catalog).await;
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        let found = catalog.orphans().search_folders(&suite::levels("a"), 0).await.unwrap();
        assert!(found[0].is_due());
        let table = CreateTable { location: Some(folder_of_file(&left[0])), ..new_table("late") };
        catalog.tables().create(&suite::levels("a"), table).await.unwrap();
        assert_eq!(catalog.orphans().queue_folder(&found[0]).await.unwrap().files, 0);
        assert_eq!(queued(&catalog).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_statement_that_commits_after_its_files_were_queued_is_refused() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let catalog = strict(&house);
        let levels = suite::levels("a");
        let staged = catalog.tables().stage_first(&levels, new_table("late")).await.unwrap();
        let file = format!("{}/{DATA}", staged.location());
        catalog.storage().put(&file, Bytes::from_static(b"x")).await.unwrap();
        set_time(&file, NOW - 3 * DAY_MS);
        sweep_folders(&catalog).await;
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep_folders(&catalog).await, (vec![file.clone()], 1));
        let added = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(file.clone())
            .file_format(DataFileFormat::Parquet)
            .record_count(1)
            .file_size_in_bytes(1)
            .partition(Struct::empty())
            .partition_spec_id(0)
            .build()
            .unwrap();
        // Its files may be queued after the look at those that it names.
        let unnamed = NewSnapshot::default();
        let late = catalog.tables().create_filled(ident("a.late"), staged.clone(), unnamed).await;
        let Err(CatalogError::Invalid(text)) = &late else { panic!("{late:?}") };
        assert!(text.contains(&file), "{text}");
        let rows = NewSnapshot { added: vec![added], ..NewSnapshot::default() };
        for _ in ["queued", "deleted"] {
            let (staged, rows) = (staged.clone(), rows.clone());
            let late = catalog.tables().create_filled(ident("a.late"), staged, rows).await;
            let Err(CatalogError::Invalid(text)) = &late else { panic!("{late:?}") };
            assert!(text.contains(&file), "{text}");
            delete_queued(&house).await;
        }
    }
}

#[tokio::test]
async fn a_folder_in_a_bucket_goes_by_the_times_of_the_store() {
    let (_folder, catalog, clock) = in_a_bucket().await;
    let storage = catalog.storage();
    let left = leave_folder(&catalog, &[DATA, MANIFEST]).await;
    let own = storage.normalize(&folder_of_file(&left[0])).unwrap();
    let files = storage.list_files(&own).unwrap().next_page().await.unwrap();
    let written_ms = files.iter().filter_map(|file| file.modified_ms).max().unwrap();
    clock.store(written_ms + DAY_MS - 1, Ordering::SeqCst);
    assert_eq!(sweep_folders(&catalog).await, (Vec::new(), 0), "younger than a day");
    clock.fetch_add(1, Ordering::SeqCst);
    assert_eq!(sweep_folders(&catalog).await, (left.clone(), 0));
    clock.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep_folders(&catalog).await, (left.clone(), 2));
    clock.fetch_add(DAY_MS, Ordering::SeqCst);
    while catalog.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
    assert!(!storage.exists(&left[0]).await.unwrap());
}
