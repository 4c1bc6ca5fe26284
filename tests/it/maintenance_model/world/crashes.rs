//! Faults and kills: work ends at a failpoint, and a new server finishes what it left.

use super::{
    HOUR_MS, World, open_storage,
    removals::{OldEvents, PlannedErasure},
};
use crate::clocks::{copy_running, put_back};
use icecore::{maintenance::obsolete::DeleteObsolete, tasks::Job};
use icecore_catalog::snapshot::READER_GRACE_MS;
use icecore_lake::faults::Failpoints;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    pin::pin,
    sync::{Arc, Barrier},
};

/// What passes by a failpoint.
enum PassingWork {
    /// A request to this path.
    Call(String),
    /// An erasure, up to its end.
    Erasure(PlannedErasure),
    /// A run of retention.
    Retention(OldEvents),
}

async fn meet(barrier: &Arc<Barrier>) {
    let barrier = Arc::clone(barrier);
    tokio::task::spawn_blocking(move || barrier.wait()).await.unwrap();
}

fn path_of(job: &str) -> String {
    format!("/admin/jobs/{job}?namespace=shop")
}

impl World {
    /// What passes by a failpoint; none where there is nothing to do.
    async fn work_at(&mut self, point: &str) -> Result<Option<PassingWork>, String> {
        let job = point.split_once('.').map_or(point, |(job, _)| job);
        let (has_some, path) = match (job, point) {
            ("flush", _) => (!self.model.log().is_empty(), "/v1/shop/commit".to_owned()),
            ("erase", _) => {
                let planned = Box::pin(self.plan_erasure(self.turn)).await?;
                return Ok(planned.map(PassingWork::Erasure));
            }
            ("retention", _) => {
                self.commit().await?;
                let has_some = self.would_do(job).await;
                return Ok(has_some.then(|| PassingWork::Retention(self.plan_retention())));
            }
            ("orphans", _) | (_, "expire.before_removal") => {
                (self.look().await.is_some(), path_of(job))
            }
            _ => (self.would_do(job).await, path_of(job)),
        };
        Ok(has_some.then_some(PassingWork::Call(path)))
    }

    /// Whether a job finds something to do.
    async fn would_do(&self, job: &str) -> bool {
        let path = format!("{}&dry_run=true", path_of(job));
        let (_, report) = self.call(Method::POST, &path, &json!({})).await;
        let is_some = |count: &Value| count.as_u64().is_some_and(|count| 0 < count);
        is_some(&report["files"]["before"]) || (job == "expire" && is_some(&report["tables"]))
    }

    /// Starts the work, and waits until it has ended, in whatever way.
    async fn pass(&self, work: &PassingWork) -> Result<(), String> {
        let path = match work {
            PassingWork::Call(path) => path.clone(),
            PassingWork::Retention(_) => path_of("retention"),
            PassingWork::Erasure(planned) => return self.erase_rows(planned).await,
        };
        self.server().post(&path, "application/json", "").await;
        Ok(())
    }

    /// Finishes on a new server what was begun on another one.
    async fn finish(&mut self, work: &PassingWork) -> Result<(), String> {
        match work {
            PassingWork::Call(_) => Ok(()),
            PassingWork::Erasure(planned) => {
                self.commit().await?;
                self.finish_erasures().await?;
                self.check_erased(planned).await
            }
            PassingWork::Retention(old) => self.finish_retention(old).await,
        }
    }

    /// The work at a failpoint fails once, and a new server goes on.
    pub(super) async fn fail(&mut self, point: &'static str) -> Result<(), String> {
        if point.starts_with("obsolete.") {
            self.stop_deletion(point).await;
            return Ok(());
        }
        let Some(work) = Box::pin(self.work_at(point)).await? else { return Ok(()) };
        self.restart(Failpoints::parse(&format!("{point}=error")).unwrap()).await;
        self.counts.faults += 1;
        // Some are tried again at once.
        self.pass(&work).await?;
        self.restart(Failpoints::default()).await;
        Box::pin(self.finish(&work)).await
    }

    /// The process ends at a failpoint as by `kill -9`, and a new one finds what it left.
    pub(super) async fn kill(&mut self, point: &'static str) -> Result<(), String> {
        if point.starts_with("obsolete.") {
            self.stop_deletion(point).await;
            return Ok(());
        }
        let Some(work) = Box::pin(self.work_at(point)).await? else { return Ok(()) };
        let (faults, barrier) = Failpoints::meeting(point);
        self.restart(faults).await;
        let (left, running) =
            (tempfile::tempdir().unwrap(), self.server().folder.path().to_owned());
        let is_met = {
            let mut met = pin!(meet(&barrier));
            let mut pass = pin!(self.pass(&work));
            // Both are waited for to their ends below.
            let ended = tokio::select! {
                () = &mut met => None,
                ended = &mut pass => Some(ended),
            };
            match ended {
                None => {
                    copy_running(&running, left.path());
                    meet(&barrier).await;
                    pass.await?;
                    true
                }
                Some(ended) => {
                    tokio::join!(met, meet(&barrier));
                    ended?;
                    false
                }
            }
        };
        let folder = self.stop().await;
        if is_met {
            self.counts.faults += 1;
            put_back(&folder, &left);
            // The folder of that name is another one.
            self.disk.storage = open_storage(&folder);
        }
        self.start_in(folder, Failpoints::default()).await;
        Box::pin(self.finish(&work)).await
    }

    /// The deletion of files, which is a job of this process, ends in its middle, and the next one goes on.
    async fn stop_deletion(&mut self, point: &str) {
        self.clock.advance_ms(READER_GRACE_MS + HOUR_MS);
        let faults = Failpoints::parse(&format!("{point}=error")).unwrap();
        let mut job = DeleteObsolete::new(self.catalog.clone()).with_faults(faults);
        self.counts.faults += u64::from(job.tick().await.is_err());
        self.wait(0).await;
    }
}
