//! `icecore collections NAME --schema` and `--set-schema`: the typed columns of a collection.

use crate::cli::{
    CliError,
    admin::{aligned, escape},
    client::ServerClient,
    collections::{ReaderArgs, printable, say_json},
    remark, say,
};
use icecore_schemas::collection_schema::{CollectionSchema, ColumnChange, SchemaRegistration};
use reqwest::Method;
use serde_json::Value;
use std::{fs, path::Path};

/// Prints the schema of a collection.
pub(super) async fn show(
    client: &ServerClient,
    reader: &ReaderArgs,
    collection: &str,
) -> Result<(), CliError> {
    let path = reader.path(&[&escape(collection), "schema"], &[]);
    let found: CollectionSchema = client.read(Method::GET, &path, None).await?;
    if reader.json {
        return say_json(&found);
    }
    say_json(&found.schema)
}

/// Registers the schema in a file, and prints what it changes.
pub(super) async fn register(
    client: &ServerClient,
    reader: &ReaderArgs,
    collection: &str,
    file: &Path,
    dry_run: bool,
) -> Result<(), CliError> {
    let text = fs::read(file).map_err(|source| CliError::Io {
        operation: format!("read `{}`", file.display()),
        source,
    })?;
    let schema: Value = serde_json::from_slice(&text)
        .map_err(|cause| CliError::Usage(format!("`{}` is no JSON: {cause}", file.display())))?;
    let dry_run = dry_run.then(|| "true".to_owned());
    let path = reader.path(&[&escape(collection), "schema"], &[("dry_run", dry_run)]);
    let made: SchemaRegistration = client.read(Method::PUT, &path, Some(&schema)).await?;
    if reader.json {
        return say_json(&made);
    }
    let row = |it: &ColumnChange| {
        let before = it.before.clone().unwrap_or_else(|| "-".to_owned());
        vec![printable(&it.column), before, it.now.clone()]
    };
    let rows: Vec<Vec<String>> = made.changes.iter().map(row).collect();
    match rows.is_empty() {
        true => say("no column changes")?,
        false => say(aligned(&["column", "before", "now"], &rows).trim_end())?,
    }
    if made.dry_run {
        remark("this was a dry run: nothing is changed");
    }
    if let Some(pending) = made.pending {
        remark(&format!("the rows get their values by a later refresh: {pending}"));
    }
    Ok(())
}
