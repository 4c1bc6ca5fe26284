use super::*;
use crate::catalog::tests::{create, house, ident, set};

#[tokio::test]
async fn the_list_is_written_when_names_change_and_not_with_every_commit() {
    let house = house().await;
    let catalog = &house.catalog;
    let upkeep = catalog.upkeep();
    let mut listed = ListedThrough::default();
    create(catalog, "a.t").await;
    assert!(upkeep.list_names(&mut listed).await.unwrap());
    assert!(!upkeep.list_names(&mut listed).await.unwrap());
    catalog.commit(set("a.t", "k", "v")).await.unwrap();
    assert!(!upkeep.list_names(&mut listed).await.unwrap());
    catalog.tables().rename(&ident("a.t"), &ident("a.u")).await.unwrap();
    assert!(upkeep.list_names(&mut listed).await.unwrap());
    catalog.metastore().protect_table(&vec!["a".to_owned()], "u", true).await.unwrap();
    assert!(upkeep.list_names(&mut listed).await.unwrap());
    let (levels, name) = (vec!["a".to_owned()], "case-7".to_owned());
    let hold = LegalHold { levels, name, reason: None, since_ms: 5 };
    catalog.metastore().set_hold(&hold).await.unwrap();
    assert!(upkeep.list_names(&mut listed).await.unwrap());
    // Another process finds it right.
    let mut others = ListedThrough::default();
    assert!(!house.other.upkeep().list_names(&mut others).await.unwrap());
    let lists: Vec<String> =
        house.files().await.into_iter().filter(|file| catalog.is_list(file)).collect();
    assert_eq!(lists.len(), 1);
    let list = catalog.read_list(&lists[0]).await.unwrap().unwrap();
    assert_eq!((list.names[0].name.as_str(), list.names[0].is_protected), ("u", true));
    assert_eq!(list.holds, [hold]);
}

#[tokio::test]
async fn a_list_that_a_slower_server_wrote_over_is_written_again() {
    let house = house().await;
    let catalog = &house.catalog;
    let mut listed = ListedThrough::default();
    create(catalog, "a.t").await;
    assert!(catalog.upkeep().list_names(&mut listed).await.unwrap());
    let location = catalog.list_location(catalog.metastore().feed().await.unwrap().id);
    let right = catalog.read_list(&location).await.unwrap().unwrap();
    catalog.write_list(&NameList { names: Vec::new(), through: 0, ..right.clone() }).await.unwrap();
    assert!(catalog.upkeep().list_names(&mut listed).await.unwrap());
    assert!(catalog.read_list(&location).await.unwrap().unwrap().says_as(&right));
    assert!(!catalog.upkeep().list_names(&mut listed).await.unwrap());
}

#[tokio::test]
async fn no_table_lies_in_the_folder_of_the_list() {
    let house = house().await;
    let storage = house.catalog.storage();
    for below in [".icecore", ".icecore/t"] {
        let location = format!("{}/{below}", storage.root());
        let refused = crate::catalog::location_rules::for_a_table(storage, &location);
        assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{below}");
    }
}
