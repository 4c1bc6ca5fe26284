//! `icecore collections`, `docs`, `history` and `diff`: documents as they are and as they were.

mod address;
mod schema;

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns, shown},
        client::ServerClient,
        counted, remark, say,
    },
    config::{Config, units::write_bytes},
};
use clap::Args;
use icecore_schemas::collections::{
    CollectionDiff, CollectionEntry, CollectionList, CollectionReply, DiffEntry, DocumentChange,
    DocumentEntry, DocumentHistory, DocumentList, DocumentReply, VersionEntry,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use std::path::PathBuf;

/// Characters of a document that a table shows.
const DOCUMENT_LETTERS_MAX: usize = 80;

/// What an address cannot have in a URL. Its `/`, `@` and `%` say what the parts of it are.
const ESCAPED_IN_ADDRESS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Whose documents are read, and how they are printed.
#[derive(Debug, Args)]
struct ReaderArgs {
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// `icecore collections`
#[derive(Debug, Args)]
pub struct CollectionsCommand {
    /// One collection; all of them when left out
    name: Option<String>,
    /// Only names behind this one
    #[arg(long, conflicts_with = "name")]
    after: Option<String>,
    /// Print the JSON Schema of the collection
    #[arg(long, requires = "name")]
    schema: bool,
    /// Register the JSON Schema in this file: its properties are typed columns of the collection's table
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with = "schema")]
    set_schema: Option<PathBuf>,
    /// Only tell what the schema would change
    #[arg(long, requires = "set_schema")]
    dry_run: bool,
    /// The branch whose documents are counted; main when left out
    #[arg(long)]
    branch: Option<String>,
    #[command(flatten)]
    reader: ReaderArgs,
}

/// `icecore docs`
#[derive(Debug, Args)]
pub struct DocsCommand {
    /// The collection; or the address of a document, such as users/u-1, users/u-1@v17, users/u-1@~1,
    /// users/u-1@2024-01-08 or users/u-1@trial
    collection: String,
    /// The key of a document; all documents when left out
    key: Option<String>,
    /// The point: seq:17, bookmark:…, time:2026-11-20T12:00:00Z, snapshot:…, tag:…, branch:…, before:BATCH, or ~1
    /// for a document; now when left out
    #[arg(long)]
    at: Option<String>,
    /// The branch whose events the point is of; main when left out
    #[arg(long)]
    branch: Option<String>,
    /// Only keys behind this one
    #[arg(long, conflicts_with = "key")]
    after: Option<String>,
    /// Most documents
    #[arg(long, conflicts_with = "key")]
    limit: Option<usize>,
    #[command(flatten)]
    reader: ReaderArgs,
}

/// `icecore history`
#[derive(Debug, Args)]
pub struct HistoryCommand {
    /// The collection; or the address of a document, such as users/u-1
    collection: String,
    /// The key of the document, behind a collection
    key: Option<String>,
    /// Only versions before the one with this seq
    #[arg(long)]
    after: Option<u64>,
    /// Most versions
    #[arg(long)]
    limit: Option<usize>,
    /// The branch; main when left out
    #[arg(long)]
    branch: Option<String>,
    #[command(flatten)]
    reader: ReaderArgs,
}

/// `icecore diff`
#[derive(Debug, Args)]
pub struct DiffCommand {
    /// The collection; or the collection at the earlier point, such as users@v3, users@2024-01-08 or users@nightly
    collection: String,
    /// The collection at the later point, such as users@v9; now when left out
    #[arg(value_name = "LATER", conflicts_with_all = ["from", "to"])]
    later: Option<String>,
    /// The earlier point, as `icecore docs --at` takes it
    #[arg(long)]
    from: Option<String>,
    /// The later point; now when left out
    #[arg(long)]
    to: Option<String>,
    /// The branch whose events both points are of, but for branch:…; main when left out
    #[arg(long)]
    branch: Option<String>,
    /// Only keys behind this one
    #[arg(long)]
    after: Option<String>,
    /// Most documents
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    reader: ReaderArgs,
}

impl ReaderArgs {
    fn client(&self, config: &Config) -> ServerClient {
        ServerClient::new(config, self.url.as_deref())
    }

    /// A path below the collections of the namespace.
    fn path(&self, below: &[&str], parameters: &[(&str, Option<String>)]) -> String {
        let mut path = format!("/v1/{}/collections", escape_ns(&self.ns));
        for part in below {
            path.push('/');
            path.push_str(part);
        }
        with_parameters(path, parameters)
    }

    /// The path of the document that an address means.
    fn thing(&self, address: &str, parameters: &[(&str, Option<String>)]) -> String {
        let address = utf8_percent_encode(address, ESCAPED_IN_ADDRESS);
        with_parameters(format!("/v1/{}/things/{address}", escape_ns(&self.ns)), parameters)
    }
}

fn with_parameters(mut path: String, parameters: &[(&str, Option<String>)]) -> String {
    let mut mark = '?';
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        path.push(mark);
        mark = '&';
        path.push_str(&format!("{name}={}", escape(value)));
    }
    path
}

/// Prints the collections of a namespace, or one of them; or shows or registers the schema of one.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Io`] for a file that does not read, [`CliError::Usage`] for one without JSON.
pub async fn collections(config: &Config, command: &CollectionsCommand) -> Result<(), CliError> {
    let CollectionsCommand { name, after, branch, schema, set_schema, dry_run, reader } = command;
    let client = reader.client(config);
    match (name, set_schema) {
        (Some(name), Some(file)) => {
            return schema::register(&client, reader, name, file, *dry_run).await;
        }
        (Some(name), None) if *schema => return schema::show(&client, reader, name).await,
        _ => (),
    }
    let (entries, next) = match name {
        Some(name) => {
            let path = reader.path(&[&escape(name)], &[("branch", branch.clone())]);
            let reply: CollectionReply = client.read(Method::GET, &path, None).await?;
            if reader.json {
                return say_json(&reply);
            }
            (vec![reply.entry], None)
        }
        None => {
            let parameters = [("after", after.clone()), ("branch", branch.clone())];
            let path = reader.path(&[], &parameters);
            let list: CollectionList = client.read(Method::GET, &path, None).await?;
            if reader.json {
                return say_json(&list);
            }
            (list.collections, list.next)
        }
    };
    let row = |it: &CollectionEntry| {
        vec![
            printable(&it.name),
            it.documents.to_string(),
            it.deleted.to_string(),
            write_bytes(it.bytes),
            it.last_seq.to_string(),
            shown(it.applied_seq.as_ref()),
            it.lag_ms.map_or_else(|| "-".to_owned(), |lag| format!("{lag} ms")),
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    let header = ["collection", "documents", "deleted", "bytes", "last_seq", "applied_seq", "lag"];
    say(aligned(&header, &rows).trim_end())?;
    say_next(next.as_deref());
    Ok(())
}

/// Prints the documents of a collection, or one of them.
///
/// # Errors
/// [`CliError::Client`].
pub async fn docs(config: &Config, command: &DocsCommand) -> Result<(), CliError> {
    let DocsCommand { collection, key, at, branch, after, limit, reader } = command;
    let client = reader.client(config);
    if let Some(key) = key {
        let parameters = [("at", at.clone()), ("branch", branch.clone())];
        let path = reader.path(&[&escape(collection), "docs", &escape(key)], &parameters);
        return document(&client, reader, &path).await;
    }
    // A page is asked of a collection, which may have the sign in its name.
    if collection.contains('/') && after.is_none() && limit.is_none() {
        let path = reader.thing(collection, &[("v", at.clone()), ("branch", branch.clone())]);
        return document(&client, reader, &path).await;
    }
    let collection = escape(collection);
    let limit = limit.map(|limit| limit.to_string());
    let parameters = [
        ("at", at.clone()),
        ("branch", branch.clone()),
        ("after", after.clone()),
        ("limit", limit),
    ];
    let path = reader.path(&[&collection, "docs"], &parameters);
    let list: DocumentList = client.read(Method::GET, &path, None).await?;
    if reader.json {
        return say_json(&list);
    }
    let row = |it: &DocumentEntry| {
        vec![
            printable(&it.key),
            it.version.to_string(),
            it.seq.to_string(),
            shown(it.updated_at.as_ref()),
            short(Some(&it.doc)),
        ]
    };
    let rows: Vec<Vec<String>> = list.docs.iter().map(row).collect();
    say(aligned(&["key", "version", "seq", "updated_at", "doc"], &rows).trim_end())?;
    say_next(list.next.as_deref());
    Ok(())
}

/// Prints the document that a path has.
async fn document(client: &ServerClient, reader: &ReaderArgs, path: &str) -> Result<(), CliError> {
    let reply: DocumentReply = client.read(Method::GET, path, None).await?;
    if reader.json {
        return say_json(&reply);
    }
    let DocumentReply { doc, version, seq, updated_at, actor, .. } = reply;
    say(doc.get())?;
    let (time, actor) = (shown(updated_at.as_ref()), actor.map(|actor| printable(&actor)));
    remark(&format!("version {version}, seq {seq}, {time}, by {}", shown(actor.as_ref())));
    Ok(())
}

/// Prints the versions of a document.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Usage`] where no document is named.
pub async fn history(config: &Config, command: &HistoryCommand) -> Result<(), CliError> {
    let HistoryCommand { collection, key, after, limit, branch, reader } = command;
    let (collection, key) = address::document(collection, key.as_deref())?;
    let parameters = [
        ("branch", branch.clone()),
        ("after", after.map(|after| after.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let path = reader.path(&[&escape(&collection), "docs", &escape(&key), "history"], &parameters);
    let found: DocumentHistory = reader.client(config).read(Method::GET, &path, None).await?;
    if reader.json {
        return say_json(&found);
    }
    let row = |it: &VersionEntry| {
        let change = it.patch.as_deref().map_or_else(
            || short(it.doc.as_deref()),
            |patch| format!("patch {}", short(Some(patch))),
        );
        vec![
            it.version.to_string(),
            it.seq.to_string(),
            shown(it.op.as_ref()),
            shown(it.ts.as_ref()),
            shown(it.actor.as_deref().map(printable).as_ref()),
            change,
        ]
    };
    let rows: Vec<Vec<String>> = found.history.iter().map(row).collect();
    say(aligned(&["version", "seq", "op", "ts", "actor", "change"], &rows).trim_end())?;
    say_next(found.next.map(|next| next.to_string()).as_deref());
    Ok(())
}

/// Prints what is different in a collection at two points.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Usage`] where no earlier point is named, or two collections are.
pub async fn diff(config: &Config, command: &DiffCommand) -> Result<(), CliError> {
    let DiffCommand { collection, later, from, to, branch, after, limit, reader } = command;
    let options = (from.as_deref(), to.as_deref());
    let points = address::compared(collection, later.as_deref(), options)?;
    let parameters = [
        ("branch", branch.clone()),
        ("from", Some(points.from)),
        ("to", points.to),
        ("after", after.clone()),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let path = reader.path(&[&escape(&points.collection), "diff"], &parameters);
    let found: CollectionDiff = reader.client(config).read(Method::GET, &path, None).await?;
    if reader.json {
        return say_json(&found);
    }
    say(&format!(
        "{} added, {} changed, {} removed between seq {} and {}",
        counted(found.added, "document"),
        found.changed,
        found.removed,
        found.from_seq,
        found.to_seq,
    ))?;
    if found.docs.is_empty() {
        return Ok(());
    }
    let row = |it: &DiffEntry| {
        let change = match it.change {
            DocumentChange::Added => "added",
            DocumentChange::Changed => "changed",
            DocumentChange::Removed => "removed",
        };
        vec![
            change.to_owned(),
            printable(&it.key),
            short(it.before.as_deref()),
            short(it.after.as_deref()),
        ]
    };
    let rows: Vec<Vec<String>> = found.docs.iter().map(row).collect();
    say(aligned(&["change", "key", "before", "after"], &rows).trim_end())?;
    say_next(found.next.as_deref());
    Ok(())
}

/// Prints an answer as JSON with the numbers that its documents have.
///
/// # Errors
/// [`CliError::Io`].
pub(super) fn say_json(answer: &impl Serialize) -> Result<(), CliError> {
    say(&serde_json::to_string(answer).expect("its members are texts, numbers and JSON"))
}

/// Says what lists the next page.
pub(super) fn say_next(next: Option<&str>) {
    if let Some(next) = next {
        remark(&format!("there are more: --after '{}' lists them", printable(next)));
    }
}

/// A text that a terminal takes for no command.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The beginning of a document, or a dash for none.
pub(super) fn short(doc: Option<&RawValue>) -> String {
    let Some(doc) = doc else { return "-".to_owned() };
    let mut letters = doc.get().chars();
    let mut text: String = letters.by_ref().take(DOCUMENT_LETTERS_MAX).collect();
    if letters.next().is_some() {
        text.push('…');
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_in_paths() {
        let reader = ReaderArgs { ns: "shop.example".to_owned(), json: false, url: None };
        let at = [("at", Some("time:2026-11-20T12:00:00+01:00".to_owned())), ("limit", None)];
        assert_eq!(
            reader.path(&["users", "docs", &escape("a/b@c")], &at),
            "/v1/shop%2Eexample/collections/users/docs/a%2Fb%40c\
             ?at=time%3A2026%2D11%2D20T12%3A00%3A00%2B01%3A00"
        );
    }

    #[test]
    fn an_address_keeps_the_signs_that_part_it() {
        let reader = ReaderArgs { ns: "shop".to_owned(), json: false, url: None };
        let no_version: [(&str, Option<String>); 1] = [("v", None)];
        assert_eq!(
            reader.thing("users/a%40b c?@v3", &no_version),
            "/v1/shop/things/users/a%40b%20c%3F@v3"
        );
        let version = [("v", Some("seq:3".to_owned()))];
        assert_eq!(reader.thing("users/ü", &version), "/v1/shop/things/users/%C3%BC?v=seq%3A3");
    }

    #[test]
    fn a_long_document_is_cut() {
        let long = serde_json::value::to_raw_value(&"x".repeat(100)).unwrap();
        assert_eq!(short(Some(&long)).chars().count(), DOCUMENT_LETTERS_MAX + 1);
        assert_eq!(short(None), "-");
    }
}
