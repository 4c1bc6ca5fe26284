//! Names: of tables and views, which share them, renamed and listed.

use super::{id, levels, swap, with_table};
use crate::{
    error::CatalogError,
    metastore::{
        ChangeSet, Levels, Metastore, NameKind, NamePage, NewTable, ObjectKey, Properties,
        SwapOutcome, TableOrigin,
    },
};

/// A name that PostgreSQL cannot even be asked for is nobody's, on every database alike, and what is
/// too long for an index is refused before it gets there.
pub(crate) async fn names_that_nothing_has(store: &Metastore) {
    let a = levels("a");
    store.create_namespace(&a, &Properties::new()).await.unwrap();
    let odd = vec!["a\0".to_owned()];
    assert_eq!(store.namespace(&odd).await.unwrap(), None);
    assert_eq!(store.table(&a, "t\0").await.unwrap(), None);
    assert_eq!(store.view(&odd, "v").await.unwrap(), None);
    let missing = store.drop_namespace(&odd).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))), "{missing:?}");
    let missing = store.names(NameKind::Table, &odd, NamePage::ALL).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))), "{missing:?}");
    let missing = store.namespaces(&odd).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))), "{missing:?}");
    let missing = store.drop_table(&a, "t\0").await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))), "{missing:?}");
    let missing = store.rename_table(ObjectKey::new(&a, "t\0"), ObjectKey::new(&a, "u")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))), "{missing:?}");
    let missing = store.protect_table(&a, "t\0", true).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))), "{missing:?}");
    for levels in [odd, vec!["\n".to_owned()], vec!["x".repeat(256)], vec!["x".to_owned(); 33]] {
        let refused = store.create_namespace(&levels, &Properties::new()).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{refused:?}");
    }
    // Letters that do not compress, as many as there may be.
    let letter = |n: u32| char::from_u32(0x1_0000 + n * 7919 % 0xffff).unwrap();
    let longest = |from: u32, count: u32| (from..from + count).map(letter).collect::<String>();
    let deep = vec![longest(0, 255)];
    store.create_namespace(&deep, &Properties::new()).await.unwrap();
    let new = NewTable {
        kind: NameKind::Table,
        levels: deep.clone(),
        name: longest(255, 255),
        uuid: id(1),
        metadata_location: "m1".to_owned(),
        location: "s3://b/1".to_owned(),
        snapshots: Vec::new(),
        comes: TableOrigin::Created,
        changes: ChangeSet::default(),
    };
    store.commit_with_new(&[new], &[]).await.unwrap();
    assert!(store.table(&deep, &longest(255, 255)).await.unwrap().is_some());
}

pub(crate) async fn views(store: &Metastore) {
    let (a, b) = (levels("a"), levels("b"));
    for levels in [&a, &b] {
        store.create_namespace(levels, &Properties::new()).await.unwrap();
    }
    let new = |number, name: &str, kind| NewTable {
        kind,
        levels: levels("a"),
        name: name.to_owned(),
        uuid: id(number),
        metadata_location: format!("m{number}"),
        location: format!("s3://b/{number}"),
        snapshots: Vec::new(),
        comes: TableOrigin::Created,
        changes: ChangeSet::default(),
    };
    let add = async |new: NewTable| store.commit_with_new(&[new], &[]).await;
    add(new(1, "t", NameKind::Table)).await.unwrap();
    add(new(2, "v", NameKind::View)).await.unwrap();

    let names = async |kind, levels: &Levels, page| store.names(kind, levels, page).await;
    // One name is one thing, whatever it is.
    for (name, kind, text) in [
        ("t", NameKind::Table, "Table already exists: a.t"),
        ("t", NameKind::View, "Table with same name already exists: a.t"),
        ("v", NameKind::View, "View already exists: a.v"),
        ("v", NameKind::Table, "View with same name already exists: a.v"),
    ] {
        let taken = add(new(3, name, kind)).await;
        assert!(matches!(taken, Err(CatalogError::AlreadyExists(found)) if found == text));
    }
    assert_eq!(store.tables(&a).await.unwrap(), ["t"]);
    assert_eq!(names(NameKind::View, &a, NamePage::ALL).await.unwrap(), ["v"]);
    assert_eq!(store.table(&a, "v").await.unwrap(), None);
    assert_eq!(store.view(&a, "t").await.unwrap(), None);
    let row = store.view(&a, "v").await.unwrap().unwrap();
    assert_eq!((row.uuid, row.version, row.metadata_location.as_str()), (id(2), 1, "m2"));
    let missing = names(NameKind::View, &levels("none"), NamePage::ALL).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))));
    // It moves as a table does.
    assert_eq!(store.commit(&[swap(id(2), 1, "v2")]).await.unwrap(), SwapOutcome::Done);
    assert_eq!(store.commit(&[swap(id(2), 1, "v3")]).await.unwrap(), SwapOutcome::Lost(id(2)));
    assert_eq!(store.view(&a, "v").await.unwrap().unwrap().metadata_location, "v2");

    // Each call finds only its own kind, and full namespaces stay.
    let wrong = store.drop_table(&a, "v").await;
    assert!(matches!(wrong, Err(CatalogError::NoSuchTable(name)) if name == "a.v"));
    let wrong = store.drop_view(&a, "t").await;
    assert!(matches!(wrong, Err(CatalogError::NoSuchView(name)) if name == "a.t"));
    let wrong = store.rename_table(ObjectKey::new(&a, "v"), ObjectKey::new(&b, "v")).await;
    assert!(matches!(wrong, Err(CatalogError::NoSuchTable(_))));
    let wrong = store.rename_view(ObjectKey::new(&a, "t"), ObjectKey::new(&b, "t")).await;
    assert!(matches!(wrong, Err(CatalogError::NoSuchView(_))));
    for (number, onto, what) in [(4, "t", "Table"), (6, "v", "View")] {
        let expected = format!("Cannot rename a.x to a.{onto}. {what} already exists");
        add(new(number, "x", NameKind::View)).await.unwrap();
        let taken = store.rename_view(ObjectKey::new(&a, "x"), ObjectKey::new(&a, onto)).await;
        assert!(matches!(taken, Err(CatalogError::AlreadyExists(text)) if text == expected));
        store.drop_view(&a, "x").await.unwrap();
        add(new(number + 1, "x", NameKind::Table)).await.unwrap();
        let taken = store.rename_table(ObjectKey::new(&a, "x"), ObjectKey::new(&a, onto)).await;
        assert!(matches!(taken, Err(CatalogError::AlreadyExists(text)) if text == expected));
        store.drop_table(&a, "x").await.unwrap();
    }
    let nowhere =
        store.rename_view(ObjectKey::new(&a, "v"), ObjectKey::new(&levels("none"), "v")).await;
    assert!(matches!(nowhere, Err(CatalogError::NoSuchNamespace(_))));
    store.rename_view(ObjectKey::new(&a, "v"), ObjectKey::new(&a, "v")).await.unwrap();
    store.rename_view(ObjectKey::new(&a, "v"), ObjectKey::new(&b, "w")).await.unwrap();
    let full = store.drop_namespace(&b).await;
    assert!(matches!(full, Err(CatalogError::NamespaceNotEmpty(_))));
    assert_eq!(store.drop_view(&b, "w").await.unwrap().uuid, id(2));
    store.drop_namespace(&b).await.unwrap();
}

/// Lists are cut where they are read, so a page costs the same however long its list is.
pub(crate) async fn pages(store: &Metastore) {
    const NAMES: u128 = 300;
    let a = levels("a");
    store.create_namespace(&a, &Properties::new()).await.unwrap();
    let new = |n: u128| NewTable {
        kind: if n.is_multiple_of(2) { NameKind::Table } else { NameKind::View },
        levels: a.clone(),
        name: format!("{}{n}", ["é", "Z", "a", "b "][n as usize / 2 % 4]),
        uuid: id(n),
        metadata_location: "m".to_owned(),
        location: format!("s3://b/{n}"),
        snapshots: Vec::new(),
        comes: TableOrigin::Created,
        changes: ChangeSet::default(),
    };
    let all: Vec<NewTable> = (0..NAMES).map(new).collect();
    store.commit_with_new(&all, &[]).await.unwrap();
    for kind in [NameKind::Table, NameKind::View] {
        let of_kind = all.iter().filter(|new| new.kind == kind);
        let mut expected: Vec<&str> = of_kind.map(|new| new.name.as_str()).collect();
        expected.sort_unstable();
        let (mut paged, mut pages): (Vec<String>, _) = (Vec::new(), 0);
        loop {
            let after = paged.last().cloned().unwrap_or_default();
            let page = store.names(kind, &a, NamePage { after: &after, limit: 7 }).await.unwrap();
            assert!(page.len() <= 7);
            pages += 1;
            paged.extend(page.iter().cloned());
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!((paged, pages), (expected.iter().map(|name| (*name).to_owned()).collect(), 22));
    }
    let below = |n: u32| vec!["a".to_owned(), format!("{n:02}")];
    for n in 0..20 {
        store.create_namespace(&below(n), &Properties::new()).await.unwrap();
    }
    let page = store.namespaces_of(&a, NamePage { after: "04", limit: 3 }).await.unwrap();
    assert_eq!(page, [below(5), below(6), below(7)]);
    let first = store.namespaces_of(&a, NamePage { after: "", limit: 1 }).await.unwrap();
    assert_eq!(first, [below(0)]);
    let last = store.namespaces_of(&a, NamePage { after: "18", limit: 5 }).await.unwrap();
    assert_eq!(last, [below(19)]);
    let deepest = vec!["a".to_owned(), "03".to_owned(), "x".to_owned()];
    for made in [&deepest, &levels("a b"), &levels("ab")] {
        store.create_namespace(made, &Properties::new()).await.unwrap();
    }
    let all = store.namespaces_from(&a, usize::MAX).await.unwrap();
    assert_eq!((all.len(), &all[0], all.contains(&deepest)), (22, &a, true));
    assert_eq!(store.namespaces_from(&below(3), 9).await.unwrap(), [below(3), deepest]);
    assert!(store.namespaces_from(&levels("none"), 9).await.unwrap().is_empty());
    assert_eq!(store.namespaces_from(&Levels::new(), 99).await.unwrap().len(), 24);
    assert_eq!(store.namespaces_from(&Levels::new(), 1).await.unwrap(), [a]);
}

pub(crate) async fn one_of_many_racing_renames_gets_the_name(store: &Metastore) {
    for number in 1..=8 {
        with_table(store, number).await;
    }
    let a = levels("a");
    let names: Vec<String> = (1..=8).map(|number| format!("t{number}")).collect();
    let races = names
        .iter()
        .map(|name| store.rename_table(ObjectKey::new(&a, name), ObjectKey::new(&a, "wanted")));
    let renamed = futures::future::join_all(races).await;
    assert_eq!(renamed.iter().filter(|result| result.is_ok()).count(), 1, "{renamed:?}");
    let lost =
        |result: &&Result<(), CatalogError>| matches!(result, Err(CatalogError::AlreadyExists(_)));
    assert_eq!(renamed.iter().filter(lost).count(), 7, "{renamed:?}");
    assert_eq!(store.tables(&a).await.unwrap().len(), 8);
}
