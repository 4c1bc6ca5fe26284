//! Rows of the table by their methods.

use crate::http::{
    guard::RouteNeed,
    openapi::RouteOperation,
    routes::{Handler, Route},
};

pub(super) const fn get(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "GET", path, need, operation: RouteOperation::new(), handler }
}

pub(super) const fn post(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "POST", path, need, operation: RouteOperation::new(), handler }
}

pub(super) const fn put(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "PUT", path, need, operation: RouteOperation::new(), handler }
}

pub(super) const fn delete(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "DELETE", path, need, operation: RouteOperation::new(), handler }
}

pub(super) const fn options(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "OPTIONS", path, need, operation: RouteOperation::new(), handler }
}
