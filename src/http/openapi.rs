//! The description of the API, in the form of OpenAPI 3.1: made from the table of routes and from
//! `schemas/openapi/types.json`, which has the schemas of the types that its rows name.
//!
//! `schemas/openapi/icecore.json` is exactly what [`document`] returns; a test holds it to that.

use crate::http::{
    guard::RouteNeed,
    routes::{ROUTES, Route},
};
use icecore_catalog::access::Action;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::any::type_name;

/// Schemas by the names of their types, as the tests of `icecore-schemas` write them.
const TYPES: &str = include_str!("../../schemas/openapi/types.json");

/// The path of a type.
type TypePath = fn() -> &'static str;

/// What a route is for readers: what it does, takes and answers.
#[derive(Clone, Copy, Debug)]
pub struct RouteOperation {
    /// What it does; empty for another name of a route, which is not described.
    pub summary: &'static str,
    /// A header that it reads, and what for.
    pub header: Option<(&'static str, &'static str)>,
    query: Option<TypePath>,
    body: BodyContent,
    answer: BodyContent,
    /// What an answer of this body means by its status.
    answers: &'static [(u16, &'static str)],
    /// What an error means by its status.
    errors: &'static [(u16, &'static str)],
}

/// What a body is.
#[derive(Clone, Copy, Debug)]
enum BodyContent {
    /// There is none.
    Nothing,
    /// JSON of this type.
    Json(TypePath),
    /// One of these media types.
    Media(&'static [&'static str]),
}

impl RouteOperation {
    /// An operation that takes and answers nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            summary: "",
            header: None,
            query: None,
            body: BodyContent::Nothing,
            answer: BodyContent::Nothing,
            answers: &[],
            errors: &[],
        }
    }
}

/// The rows of the table say by these what a route is for readers.
impl Route {
    /// What it does.
    pub(super) const fn about(mut self, summary: &'static str) -> Self {
        self.operation.summary = summary;
        self
    }

    /// A header that it reads, and what for.
    pub(super) const fn header(mut self, name: &'static str, about: &'static str) -> Self {
        self.operation.header = Some((name, about));
        self
    }

    /// Its query parameters are the members of this type.
    pub(super) const fn query<T>(mut self) -> Self {
        self.operation.query = Some(type_name::<T>);
        self
    }

    /// Its body is JSON of this type.
    pub(super) const fn takes<T>(mut self) -> Self {
        self.operation.body = BodyContent::Json(type_name::<T>);
        self
    }

    /// Its body is of one of these media types.
    pub(super) const fn takes_media(mut self, media: &'static [&'static str]) -> Self {
        self.operation.body = BodyContent::Media(media);
        self
    }

    /// Its answer is JSON of this type, with these statuses.
    pub(super) const fn answers<T>(mut self, answers: &'static [(u16, &'static str)]) -> Self {
        self.operation.answer = BodyContent::Json(type_name::<T>);
        self.operation.answers = answers;
        self
    }

    /// Its answer is of one of these media types.
    pub(super) const fn answers_media(
        mut self,
        media: &'static [&'static str],
        answers: &'static [(u16, &'static str)],
    ) -> Self {
        self.operation.answer = BodyContent::Media(media);
        self.operation.answers = answers;
        self
    }

    /// Errors of its own, beside those of the right that it needs.
    pub(super) const fn refuses(mut self, errors: &'static [(u16, &'static str)]) -> Self {
        self.operation.errors = errors;
        self
    }
}

/// What the parts of a path are, and their schemas.
fn path_part(name: &str, need: RouteNeed) -> Value {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    match (name, need) {
        ("namespace", RouteNeed::InCatalog(_)) => {
            text("Its catalog name, levels apart by %1F, or as its events name it")
        }
        ("namespace", _) => text("As its events name it, or its catalog name"),
        ("table", _) => text("The table"),
        ("name", _) => text("A branch or tag"),
        ("view", _) => text("A view of the catalog"),
        ("collection", _) => text("The collection, as its events name it"),
        ("key", _) => text("The key of a document; a `/` in it is written %2F"),
        ("thing", _) => text("A collection, or a key that one collection alone has"),
        ("hold", _) => text("A legal hold"),
        ("branch", _) => text("A branch of the namespace"),
        ("erasure", _) => text("The id of an erasure, as its first answer has it"),
        ("job", _) => {
            text("A job that the list of jobs has with `is_run_by_hand`, such as compact")
        }
        ("id", _) => text("The id of a dead letter or token, as lists have it"),
        ("uuid", _) => json!({
            "description": "The uuid of a dropped table, as the list of them has it",
            "schema": { "type": "string", "format": "uuid" },
        }),
        ("provider", _) => json!({
            "description": "github, stripe, slack, svix, standard-webhooks, shopify, linear, workos, generic, or any other name",
            "schema": { "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$" },
        }),
        _ => text(""),
    }
}

/// What a caller needs, in words.
fn right(need: RouteNeed) -> Option<String> {
    let scope = |action: Action, place: &str| {
        format!("With access control on it takes `{}` {place}.", action.name())
    };
    match need {
        RouteNeed::Open => None,
        RouteNeed::AnyToken => Some("With access control on it takes a valid token.".to_owned()),
        RouteNeed::In(action) | RouteNeed::InCatalog(action) => {
            Some(scope(action, "in the namespace"))
        }
        RouteNeed::Somewhere(action) => Some(scope(action, "in some namespace")),
        RouteNeed::Everywhere(action) => Some(scope(action, "in every namespace")),
    }
}

/// Errors that follow from the right alone.
fn errors_of(need: RouteNeed) -> &'static [(u16, &'static str)] {
    const UNKNOWN: (u16, &str) = (401, "No token, or none that is valid");
    const FORBIDDEN: (u16, &str) = (403, "The token does not allow it");
    match need {
        RouteNeed::Open => &[],
        RouteNeed::AnyToken => &[UNKNOWN],
        RouteNeed::Somewhere(_) | RouteNeed::Everywhere(_) => &[UNKNOWN, FORBIDDEN],
        RouteNeed::In(_) | RouteNeed::InCatalog(_) => {
            &[UNKNOWN, FORBIDDEN, (404, "No such namespace, or none that the token may know of")]
        }
    }
}

/// The schemas of types.
#[derive(Deserialize)]
struct TypeSet {
    /// Of query parameters: a member is one.
    parameters: Map<String, Value>,
    /// Of bodies, and of what they refer to.
    schemas: Map<String, Value>,
}

fn describe(route: &Route, types: &TypeSet) -> Value {
    let RouteOperation { summary, header, query, body, answer, answers, errors } = route.operation;
    let mut parameters: Vec<Value> = path_parameters(route).collect();
    if let Some(query) = query {
        parameters.extend(query_parameters(&types.parameters[name_of(query)]));
    }
    if let Some((name, about)) = header {
        let schema = json!({ "type": "string" });
        parameters
            .push(json!({ "name": name, "in": "header", "description": about, "schema": schema }));
    }
    let mut responses = Map::new();
    for (status, about) in errors_of(route.need).iter().chain(errors) {
        add_response(&mut responses, *status, about, Some(json_of("Error")));
    }
    for (status, about) in answers {
        add_response(&mut responses, *status, about, content(answer));
    }
    let mut operation = json!({ "summary": summary, "responses": responses });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(content) = content(body) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    match right(route.need) {
        Some(right) => operation["description"] = right.into(),
        None => operation["security"] = json!([]),
    }
    operation
}

fn path_parameters(route: &Route) -> impl Iterator<Item = Value> {
    let names = route.path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    names.map(|(name, _)| {
        let mut parameter = path_part(name, route.need);
        parameter["name"] = name.into();
        parameter["in"] = "path".into();
        parameter["required"] = true.into();
        parameter
    })
}

/// The members of a type as parameters.
fn query_parameters(schema: &Value) -> Vec<Value> {
    let required = schema["required"].as_array();
    let members = schema["properties"].as_object();
    let parameter = |(name, member): (&String, &Value)| {
        let mut member = member.clone();
        let about = member.as_object_mut().and_then(|member| member.remove("description"));
        let is_required = required.is_some_and(|names| names.iter().any(|other| other == name));
        json!({
            "name": name,
            "in": "query",
            "description": about,
            "required": is_required,
            "schema": member,
        })
    };
    members.into_iter().flatten().map(parameter).collect()
}

fn content(content: BodyContent) -> Option<Value> {
    match content {
        BodyContent::Nothing | BodyContent::Media([]) => None,
        BodyContent::Json(body) => Some(json_of(name_of(body))),
        BodyContent::Media(media) => {
            let media = media.iter().map(|media| ((*media).to_owned(), json!({})));
            Some(Value::Object(media.collect()))
        }
    }
}

/// JSON of the type of this name.
fn json_of(name: &str) -> Value {
    let reference = format!("#/components/schemas/{name}");
    json!({ "application/json": { "schema": { "$ref": reference } } })
}

fn name_of(path: TypePath) -> &'static str {
    path().rsplit("::").next().unwrap_or_default()
}

/// Adds a response; what another of its status says stands before it.
fn add_response(
    responses: &mut Map<String, Value>,
    status: u16,
    about: &str,
    content: Option<Value>,
) {
    let response = responses.entry(status.to_string()).or_insert_with(|| json!({}));
    let before = response["description"].as_str().map(|before| format!("{before}; {about}"));
    response["description"] = before.unwrap_or_else(|| about.to_owned()).into();
    if let Some(content) = content {
        response["content"] = content;
    }
}

/// The document over all routes.
#[must_use]
pub fn document() -> String {
    let types: TypeSet = serde_json::from_str(TYPES).expect("a test reads it too");
    let mut paths = Map::new();
    for route in ROUTES.iter().filter(|route| !route.operation.summary.is_empty()) {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = describe(route, &types);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Icecore",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything outside /catalog, which is Apache Iceberg's REST catalog protocol.",
        },
        // While access control is off nobody needs a token.
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": types.schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, an OAuth access token or a JWT, when access control is on",
                },
            },
        },
    });
    let mut text = serde_json::to_string_pretty(&document).expect("its keys are texts");
    text.push('\n');
    text
}
