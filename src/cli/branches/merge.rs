//! `icecore branches diff` and `icecore branches merge`: what a branch of a namespace changed, and its way into another
//! one.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns},
        client::{ClientRequest, ServerClient, refused},
        collections::{printable, say_json, say_next, short},
        counted, remark,
        restore::ask,
        say,
    },
    config::Config,
};
use clap::{Args, ValueEnum};
use icecore_catalog::body::parse_object;
use icecore_schemas::{
    branch_merge::{
        BranchDiff, BranchDiffEntry, BranchMergeReport, MergeConflict, MergePolicy, NewBranchMerge,
    },
    collections::DocumentChange,
    point::MAIN_BRANCH,
    restore::{LeftDocument, SampleChange},
};
use reqwest::Method;
use serde_json::json;

/// Which branch, and how it is printed.
#[derive(Debug, Args)]
struct ComparedBranch {
    /// The branch
    name: String,
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// The other branch
    #[arg(long, value_name = "BRANCH", default_value = MAIN_BRANCH)]
    into: String,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// What a branch is compared with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ComparedState {
    /// What both had at the last event in common
    Common,
    /// What the other branch has now
    Head,
}

/// What becomes of conflicts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ConflictPolicy {
    /// Nothing is merged
    Fail,
    /// The other branch keeps its values
    Ours,
    /// The values of the merged branch
    Theirs,
}

/// `icecore branches diff`
#[derive(Debug, Args)]
pub struct DiffBranch {
    #[command(flatten)]
    branch: ComparedBranch,
    /// With what it is compared
    #[arg(long, value_enum, default_value = "common")]
    against: ComparedState,
    /// Only documents behind this one, as an earlier page says
    #[arg(long)]
    after: Option<String>,
    /// Most documents
    #[arg(long)]
    limit: Option<usize>,
}

/// `icecore branches merge`
#[derive(Debug, Args)]
pub struct MergeBranch {
    #[command(flatten)]
    branch: ComparedBranch,
    /// What becomes of members that both changed to different values
    #[arg(long, value_enum, default_value = "fail")]
    policy: ConflictPolicy,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before
    #[arg(long)]
    yes: bool,
}

impl ComparedBranch {
    fn client(&self, config: &Config) -> ServerClient {
        ServerClient::new(config, self.url.as_deref())
    }

    fn path(&self, below: &str) -> String {
        format!("/v1/{}/branches/{}/{below}", escape_ns(&self.ns), escape(&self.name))
    }
}

/// Prints what a branch has otherwise.
///
/// # Errors
/// [`CliError::Client`].
pub(super) async fn diff(config: &Config, command: &DiffBranch) -> Result<(), CliError> {
    let DiffBranch { branch, against, after, limit } = command;
    let against = match against {
        ComparedState::Common => "common",
        ComparedState::Head => "head",
    };
    let mut path = branch.path("diff");
    path.push_str(&format!("?into={}&against={against}", escape(&branch.into)));
    for (name, value) in [("after", after.clone()), ("limit", limit.map(|it| it.to_string()))] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape(&value)));
        }
    }
    let found: BranchDiff = branch.client(config).read(Method::GET, &path, None).await?;
    if branch.json {
        return say_json(&found);
    }
    say(&format!(
        "{} added, {} changed, {} removed on branch {} up to seq {}",
        counted(found.added, "document"),
        found.changed,
        found.removed,
        branch.name,
        found.head_seq,
    ))?;
    if found.docs.is_empty() {
        return Ok(());
    }
    let row = |it: &BranchDiffEntry| {
        let change = match it.change {
            DocumentChange::Added => "added",
            DocumentChange::Changed => "changed",
            DocumentChange::Removed => "removed",
        };
        vec![
            change.to_owned(),
            printable(&it.collection),
            printable(&it.key),
            short(it.before.as_deref()),
            short(it.after.as_deref()),
        ]
    };
    let rows: Vec<Vec<String>> = found.docs.iter().map(row).collect();
    say(aligned(&["change", "collection", "key", "before", "after"], &rows).trim_end())?;
    say_next(found.next.as_deref());
    Ok(())
}

/// Shows what would change, asks, and merges.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Usage`] where nobody can be asked, [`CliError::Refused`] for who says no.
pub(super) async fn merge(config: &Config, command: &MergeBranch) -> Result<(), CliError> {
    let client = command.branch.client(config);
    if command.dry_run || !command.yes {
        let planned = send(&client, command, true).await?;
        if command.dry_run {
            return show(&planned, command.branch.json);
        }
        ask(&question(&planned), "merge")?;
    }
    let report = send(&client, command, false).await?;
    show(&report, command.branch.json)?;
    if let (Some(undo), false) = (&report.undo_bookmark, command.branch.json) {
        remark(&format!("to undo it, restore the namespace to bookmark:{undo}"));
    }
    Ok(())
}

async fn send(
    client: &ServerClient,
    MergeBranch { branch, policy, .. }: &MergeBranch,
    dry_run: bool,
) -> Result<BranchMergeReport, CliError> {
    let policy = match policy {
        ConflictPolicy::Fail => MergePolicy::Fail,
        ConflictPolicy::Ours => MergePolicy::Ours,
        ConflictPolicy::Theirs => MergePolicy::Theirs,
    };
    let body = json!(NewBranchMerge { into: branch.into.clone(), policy, dry_run });
    let headers = [
        ("content-type", "application/json".to_owned()),
        // A repeat goes on with what was done, and does nothing twice.
        ("idempotency-key", uuid::Uuid::new_v4().to_string()),
    ];
    let path = branch.path("merge");
    let (method, body) = (Method::POST, body.to_string().into());
    let request = ClientRequest { method, path: &path, headers: &headers, body };
    let (status, bytes) = client.send_retrying(&request).await?;
    if !status.is_success() {
        return Err(refused(status, &bytes).into());
    }
    parse_object(&bytes).map_err(|reason| client.foreign(&bytes, reason).into())
}

fn question(planned: &BranchMergeReport) -> String {
    let BranchMergeReport { branch, into, inserted, updated, deleted, conflicting, .. } = planned;
    format!(
        "{} of {into} would be inserted, {updated} updated, {deleted} deleted; {} with conflicts. Merge {branch}? [y/N]",
        counted(*inserted, "document"),
        counted(*conflicting, "document"),
    )
}

fn show(report: &BranchMergeReport, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return say(&json!(report).to_string());
    }
    let BranchMergeReport { branch, into, head_seq, fast_forward, .. } = report;
    let verb = if report.dry_run { "would be merged" } else { "merged" };
    let forward = if *fast_forward { ", fast-forward" } else { "" };
    say(&format!("{branch} {verb} into {into} up to seq {head_seq}{forward}"))?;
    let row = |name: &str, counts: [u64; 4]| {
        let mut row = vec![printable(name)];
        row.extend(counts.map(|count| count.to_string()));
        row
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for part in &report.collections {
        let counts = [part.inserted, part.updated, part.deleted, part.conflicting];
        rows.push(row(&part.name, counts));
    }
    let all = [report.inserted, report.updated, report.deleted, report.conflicting];
    rows.push(row("all", all));
    let header = ["collection", "inserted", "updated", "deleted", "conflicting"];
    say(aligned(&header, &rows).trim_end())?;
    for SampleChange { collection, key, change, before, after } in &report.sample {
        say(&printable(&format!("{collection}/{key} {change}: {before} -> {after}")))?;
    }
    for MergeConflict { collection, key, paths, .. } in &report.conflicts {
        let paths: Vec<&str> = paths.iter().map(|path| place(path)).collect();
        say(&printable(&format!("conflict in {collection}/{key}: {}", paths.join(", "))))?;
    }
    if report.overwritten != 0 {
        let overwritten = counted(report.overwritten, "document");
        say(&format!(
            "{overwritten} of {into} written right before the changes and overwritten; icecore history has what was written"
        ))?;
    }
    for LeftDocument { collection, key } in &report.overwritten_documents {
        say(&printable(&format!("{collection}/{key} overwritten")))?;
    }
    if let Some(tag) = &report.tag {
        say(&format!("tag of events before it: {tag}"))?;
    }
    Ok(())
}

/// A member as a reader has it.
fn place(path: &str) -> &str {
    if path.is_empty() { "the whole document" } else { path }
}
