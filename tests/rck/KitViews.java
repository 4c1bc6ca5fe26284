package org.apache.iceberg.rest;

/** The kit's tests of views, with places inside the warehouse in the spelling that Icecore answers with. */
public class KitViews extends RESTCompatibilityKitViewCatalogTests {
  @Override
  protected String viewLocation(String... names) {
    return System.getProperty("kit.place") + "/" + String.join("/", names);
  }
}
