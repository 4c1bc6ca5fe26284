use super::*;
use crate::guard;

fn tables(sql: &str) -> StatementTables {
    wanted(&guard::check(sql).unwrap().statement, "shop", QueryScope::Namespace).unwrap()
}

fn name(catalog: Option<&str>, schema: &str, table: &str) -> QualifiedName {
    let catalog = catalog.map(str::to_owned);
    QualifiedName { catalog, schema: schema.to_owned(), table: table.to_owned() }
}

#[test]
fn names_of_the_own_namespace_are_told_from_others() {
    let found = tables(
        "WITH a AS (SELECT 1) SELECT 1 FROM a, events, shop.t, icecore.shop.u, bank.events, \
         events.files, icecore.bank.t, bank.events.files, \"a.b\".t",
    );
    assert_eq!(found.named, ["events", "t", "u"]);
    assert_eq!(found.wanted, WantedTables::Named(found.named.clone()));
    let mut qualified = found.qualified;
    qualified.sort();
    let mut expected = [
        name(None, "bank", "events"),
        name(None, "events", "files"),
        name(Some("icecore"), "bank", "t"),
        name(Some("bank"), "events", "files"),
        name(None, "a.b", "t"),
    ];
    expected.sort();
    assert_eq!(qualified, expected);
}

#[test]
fn namespaces_are_listed_where_they_are_compared_with() {
    for (sql, listed) in [
        ("SELECT 1 FROM information_schema.tables WHERE table_schema = 'bank'", vec!["bank"]),
        ("SELECT 1 FROM information_schema.tables t WHERE 'bank' = t.table_schema", vec!["bank"]),
        (
            "SELECT 1 FROM information_schema.columns WHERE table_schema IN ('c', 'bank', 'shop')",
            vec!["bank", "c"],
        ),
        ("SELECT 1 FROM information_schema.tables WHERE table_name = 'bank'", vec![]),
        ("SELECT 1 FROM events WHERE table_schema = 'bank'", vec![]),
        ("SHOW TABLES FROM bank", vec!["bank"]),
        ("SHOW TABLES IN \"Bank\"", vec!["Bank"]),
        ("SHOW TABLES", vec![]),
    ] {
        assert_eq!(tables(sql).listed, listed, "{sql}");
    }
    for (sql, expected) in [
        ("SHOW SCHEMAS", true),
        ("SELECT 1 FROM icecore.information_schema.schemata", true),
        ("SHOW TABLES", false),
        ("SHOW COLUMNS FROM events", false),
        ("SELECT 1 FROM schemata", false),
    ] {
        assert_eq!(tables(sql).lists_namespaces, expected, "{sql}");
    }
    let many: Vec<String> = (0..=LISTED_MAX).map(|n| format!("'n{n}'")).collect();
    let sql = format!(
        "SELECT 1 FROM information_schema.tables WHERE table_schema IN ({})",
        many.join(", ")
    );
    let statement = guard::check(&sql).unwrap().statement;
    let refused = wanted(&statement, "shop", QueryScope::Namespace).unwrap_err();
    assert!(refused.to_string().contains("50 namespaces"), "{refused}");
}

#[test]
fn a_name_that_is_not_there_names_its_namespace() {
    for (outside_of, namespace) in [
        (name(None, "bank", "t"), "`bank`"),
        (name(Some("icecore"), "bank", "t"), "`bank`"),
        (name(Some("bank"), "t", "files"), "`bank`"),
    ] {
        let text = outside(&outside_of, "shop").to_string();
        assert!(text.contains(&format!("no namespace {namespace}")), "{text}");
    }
}
