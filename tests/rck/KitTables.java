package org.apache.iceberg.rest;

import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.junit.jupiter.api.BeforeEach;

/** The kit's tests of tables, with places inside the warehouse and all that Icecore supports switched on. */
public class KitTables extends RESTCompatibilityKitCatalogTests {
  /** The kit drops only two namespaces between its tests; its tests of nested ones leave others behind. */
  @BeforeEach
  void dropNested() {
    drop(Namespace.of("parent"));
  }

  private void drop(Namespace namespace) {
    if (catalog().namespaceExists(namespace)) {
      catalog().listNamespaces(namespace).forEach(this::drop);
      catalog().dropNamespace(namespace);
    }
  }

  @Override
  protected String baseTableLocation(TableIdentifier table) {
    return String.join("/", System.getProperty("kit.place"), table.namespace().toString(), table.name());
  }

  @Override
  protected boolean supportsNestedNamespaces() {
    return true;
  }

  @Override
  protected boolean supportsNamesWithSlashes() {
    return true;
  }
}
