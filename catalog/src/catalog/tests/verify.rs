//! Metadata files that are gone, on a local disk and in a bucket.

use super::*;
use crate::catalog::views::tests::new_view;

/// Two catalogs over the same stores, of which the second has read nothing yet.
async fn over(
    storage: Storage,
    verify_at_load: VerifyAtLoad,
) -> (tempfile::TempDir, Catalog, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let open = || {
        let options = CatalogOptions { verify_at_load, ..CatalogOptions::default() };
        let (storage, metastore) = (storage.clone(), metastore.clone());
        Catalog::with_options("icecore", storage, metastore, Arc::new(|| NOW), options)
    };
    let (catalog, other) = (open(), open());
    catalog.namespaces().ensure(&suite::levels("a"), &Properties::new()).await.unwrap();
    (folder, catalog, other)
}

/// Whether a process that knows what was in the files says that they are gone. One that has to
/// read them always does.
async fn notices(storage: Storage, verify_at_load: VerifyAtLoad) -> bool {
    let (_folder, catalog, other) = over(storage, verify_at_load).await;
    let table = create(&catalog, "a.t").await;
    let view = catalog.views().create(&suite::levels("a"), new_view("v")).await.unwrap();
    catalog.tables().load_present(&ident("a.t")).await.unwrap();
    catalog.views().load_present(&ident("a.v")).await.unwrap();
    for location in [&table.metadata_location, &view.metadata_location] {
        catalog.storage().delete(location).await.unwrap();
    }
    let missing = |cause: CatalogError, location: &str| {
        assert!(matches!(&cause, CatalogError::MissingMetadata(_)), "{cause:?}");
        assert_eq!(cause.to_string(), format!("Failed to open input stream for file: {location}"));
    };
    let read = other.tables().load_present(&ident("a.t")).await;
    missing(read.unwrap_err(), &table.metadata_location);
    let read = other.views().load_present(&ident("a.v")).await;
    missing(read.unwrap_err(), &view.metadata_location);
    // Nobody could register it anywhere, so it stays.
    let left = catalog.tables().unregister(&ident("a.t")).await;
    missing(left.unwrap_err(), &table.metadata_location);

    let tables = catalog.tables().load_present(&ident("a.t")).await.map(drop);
    let views = catalog.views().load_present(&ident("a.v")).await.map(drop);
    assert_eq!(tables.is_err(), views.is_err());
    let noticed = tables.is_err();
    tables.map_or_else(|cause| missing(cause, &table.metadata_location), |()| ());
    noticed
}

#[tokio::test]
async fn a_load_says_that_the_metadata_file_is_gone_where_it_is_told_to_look() {
    for (verify, on_disk, in_a_bucket) in [
        (VerifyAtLoad::Always, true, true),
        (VerifyAtLoad::OnLocalDisk, true, false),
        (VerifyAtLoad::Never, false, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let disk = Storage::open(&warehouse, &S3Options::default()).unwrap();
        assert_eq!(notices(disk, verify).await, on_disk, "{verify:?}");
        let bucket = Storage::bucket_in_memory("s3://bucket/warehouse");
        assert_eq!(notices(bucket, verify).await, in_a_bucket, "{verify:?}");
    }
}
