//! Rows that the service takes out because it was asked to: those of a sender that is erased, and those of a type
//! that are too old.

use super::{DAY_MS, HOUR_MS, World};
use icecore_schemas::erasure::{ErasureList, ErasureReport, ErasureStatus};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;

/// The type of which rows are kept for a day, as the settings say.
const SHORT_LIVED: &str = "t1";
const KEPT_MS: i64 = DAY_MS;
/// Most rounds of the job until an erasure is done, which takes a few for each branch and state. One that waits for
/// ever is a failure and not a test that hangs.
const ROUNDS_MAX: usize = 500;

/// The rows of a sender that are to go from everywhere.
#[derive(Debug)]
pub(super) struct PlannedErasure {
    actor: String,
    ids: BTreeSet<String>,
    /// Tags at snapshots that have such rows in their files.
    tags: BTreeSet<String>,
}

/// Events that are too old.
#[derive(Debug)]
pub(super) struct OldEvents {
    /// Those of which the whole day is: none of a file that says what retention asks for stays.
    whole_days: BTreeSet<String>,
}

impl World {
    /// Erases the rows of a sender that `main` has.
    pub(super) async fn erase(&mut self, pick: usize) -> Result<(), String> {
        let Some(planned) = Box::pin(self.plan_erasure(pick)).await? else { return Ok(()) };
        self.erase_rows(&planned).await?;
        self.check_erased(&planned).await
    }

    /// Commits the log, and picks a sender of whom `main` has rows.
    pub(super) async fn plan_erasure(
        &mut self,
        pick: usize,
    ) -> Result<Option<PlannedErasure>, String> {
        self.commit().await?;
        let Some((seen, _)) = self.observe().await? else { return Ok(None) };
        let Some(head) = seen.head() else { return Ok(None) };
        let events = self.model.rows(head)?.ids().filter_map(|id| self.events.get(id));
        let actors: BTreeSet<&String> = events.map(|event| &event.actor).collect();
        let Some(actor) = actors.iter().nth(pick % actors.len().max(1)) else { return Ok(None) };
        let actor = (*actor).clone();
        let of_actor = self.events.iter().filter(|(_, event)| event.actor == actor);
        let ids: BTreeSet<String> = of_actor.map(|(id, _)| id.clone()).collect();
        let mut tags = BTreeSet::new();
        for (name, at) in self.model.names.iter().filter(|(name, _)| name.starts_with("tag")) {
            let snapshot = seen.metadata.snapshot_by_id(*at).ok_or("a tag is at no snapshot")?;
            if self.disk.has_any(snapshot, &ids).await {
                tags.insert(name.clone());
            }
        }
        let heads = self.model.names.values().copied().chain([head]).collect();
        self.model.expect_removal(ids.clone(), heads);
        Ok(Some(PlannedErasure { actor, ids, tags }))
    }

    /// Begins an erasure, and returns when it is done.
    pub(super) async fn erase_rows(&self, planned: &PlannedErasure) -> Result<(), String> {
        let body = json!({"subject": {"actor": planned.actor}});
        let (status, answer) = self.call(Method::POST, "/v1/shop/erase", &body).await;
        match answer["erasure"].as_str() {
            Some(id) if status == 202 => self.finish_erasure(id).await,
            Some(_) | None => Err(format!("an erasure is answered by {status} {answer}")),
        }
    }

    /// Returns when those that were begun before are done.
    pub(super) async fn finish_erasures(&self) -> Result<(), String> {
        let list: ErasureList = self.server().get("/v1/shop/erase").await.json().await.unwrap();
        for begun in list.erasures.iter().filter(|begun| !begun.dry_run) {
            self.finish_erasure(&begun.erasure).await?;
        }
        Ok(())
    }

    /// How far an erasure is. An error and no panic: after one nobody would let a job go on from its failpoint, and
    /// the test would hang.
    async fn erasure(&self, id: &str) -> Result<ErasureReport, String> {
        let answer = self.server().get(&format!("/v1/shop/erase/{id}")).await;
        answer.json().await.map_err(|cause| format!("the report of erasure `{id}`: {cause}"))
    }

    /// Returns when an erasure is done. Time passes while it waits for others.
    async fn finish_erasure(&self, id: &str) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            let now = self.erasure(id).await?;
            if now.status == ErasureStatus::Done {
                return Ok(());
            }
            if now.status.is_ended() {
                return Err(format!("an erasure failed: {now:?}"));
            }
            if now.waits.is_some() || now.status == ErasureStatus::Files {
                self.clock.advance_ms(2 * HOUR_MS);
            }
            self.wake_erasures().await?;
        }
        Err(format!("an erasure does not end: {:?}", self.erasure(id).await?))
    }

    /// Asks for the rows of nobody to be counted, which wakes the job. It does a step of each erasure before it
    /// is through with the count.
    async fn wake_erasures(&self) -> Result<(), String> {
        let nobody = json!({"subject": {"id": "nobody"}, "dry_run": true});
        let (status, answer) = self.call(Method::POST, "/v1/shop/erase", &nobody).await;
        let Some(id) = answer["erasure"].as_str() else {
            return Err(format!("a dry run is answered by {status} {answer}"));
        };
        loop {
            let counted = self.erasure(id).await?;
            // One that failed is tried again in the next round, beside another one.
            if counted.status.is_ended() || counted.error.is_some() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// No file of a retained snapshot has a row of the sender, tags that had some are gone, and branches have all
    /// other rows.
    pub(super) async fn check_erased(&mut self, planned: &PlannedErasure) -> Result<(), String> {
        let PlannedErasure { actor, ids, tags } = planned;
        let Some((seen, _)) = self.observe().await? else { return Ok(()) };
        for snapshot in &seen.snapshots {
            if self.disk.has_any(snapshot, ids).await {
                let id = snapshot.snapshot_id();
                return Err(format!(
                    "files of snapshot {id} have rows of `{actor}`, who was erased"
                ));
            }
        }
        let found = self.found_names().await?;
        for (name, before) in &self.model.names {
            let now = found.get(name).copied();
            let is_right = match now {
                None => tags.contains(name),
                Some(now) if now == *before => true,
                Some(now) => {
                    let left = self.model.rows(*before)?.without(ids);
                    name.starts_with("branch") && *self.model.rows(now)? == left
                }
            };
            if !is_right {
                return Err(format!("an erasure moved `{name}` from {before} to {now:?}"));
            }
        }
        if let Some(name) = found.keys().find(|name| !self.model.names.contains_key(*name)) {
            return Err(format!("an erasure made `{name}`"));
        }
        self.model.names = found;
        self.model.end_removal();
        self.counts.erased += 1;
        Ok(())
    }

    /// Commits the log, and takes old rows out of `main`.
    pub(super) async fn retain(&mut self) -> Result<(), String> {
        self.commit().await?;
        let old = self.plan_retention();
        self.finish_retention(&old).await
    }

    /// Which events are too old now.
    pub(super) fn plan_retention(&mut self) -> OldEvents {
        let until_ms = self.clock.now_ms() - KEPT_MS;
        let is_old = |ts_ms: i64| ts_ms <= until_ms;
        let day_end = |ts_ms: i64| (ts_ms.div_euclid(DAY_MS) + 1) * DAY_MS;
        let short_lived = || self.events.iter().filter(|(_, event)| event.kind == SHORT_LIVED);
        let old = short_lived().filter(|(_, event)| is_old(event.ts_ms));
        let whole_days = short_lived().filter(|(_, event)| is_old(day_end(event.ts_ms)));
        let ids = old.map(|(id, _)| id.clone()).collect();
        let whole_days = whole_days.map(|(id, _)| id.clone()).collect();
        self.model.expect_removal(ids, Vec::new());
        OldEvents { whole_days }
    }

    /// Runs the job, which goes on where another run ended.
    pub(super) async fn finish_retention(&mut self, old: &OldEvents) -> Result<(), String> {
        let report = self.report_of("retention").await;
        let Some((seen, _)) = self.observe().await? else { return Ok(()) };
        self.model.end_removal();
        self.counts.retained += u64::from(report["rows"].as_u64().is_some_and(|rows| 0 < rows));
        // Files of other engines need not say what is asked of them, and stay; the report tells of them.
        let Some(head) = seen.head().filter(|_| report["skipped"] == json!([])) else {
            return Ok(());
        };
        match self.model.rows(head)?.ids().find(|id| old.whole_days.contains(*id)) {
            Some(id) => Err(format!("`{id}` is too old, and stays: {report}")),
            None => Ok(()),
        }
    }
}
