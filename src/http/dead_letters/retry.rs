//! Sends dead letters again, through the same decoding and the same log as any event.
//!
//! Its one invariant: a letter's event has the same id whenever it is sent, and what becomes of it is
//! durable together with the letter's new row, so a retry that broke off is simply run again.

use super::rows::{
    LetterCursor, LetterFilter, NewestLetter, newest, page_of_ids, payloads, text_at,
};
use crate::{
    http::{
        AppState, body,
        error::ApiError,
        health::not_taken,
        ingest::{
            admission::{shelters, turn_away},
            decode_body, expected,
        },
        json, parse_namespace,
        query_string::QueryParameters,
    },
    ingest::{LetterChange, Submission},
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use icecore_catalog::{access::Principal, body::parse_object};
use icecore_lake::event::{
    BodyFormat, DecodedBody, RedriveContext, RequestContext, RequestIds,
    dead_letter::{DeadLetter, LetterStatus},
    webhook::WebhookDelivery,
};
use icecore_schemas::{
    dead_letters::{RetryLetters, RetryParameters, RetryReply},
    error_code::ErrorCode,
    names::Namespace,
    point::MAIN_BRANCH,
};
use std::collections::HashMap;

/// Ids of a page.
const PAGE_LETTERS: usize = 500;
/// Letters whose payloads are asked for at once.
const PAYLOADS_MAX: usize = 100;
/// Letters on their way to the log at once.
const IN_WORK_MAX: usize = 32;
/// Most ids that a request may name.
const IDS_MAX: usize = 2_000;
/// What an Avro object container file begins with.
const AVRO: &[u8] = b"Obj\x01";

/// What became of the letters so far.
#[derive(Clone, Copy, Debug, Default)]
struct RetryTally {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    missing: u64,
}

#[derive(Clone, Copy, Debug)]
enum RetryOutcome {
    Accepted,
    Duplicate,
    Rejected,
}

impl RetryTally {
    fn count(&mut self, outcome: RetryOutcome) {
        match outcome {
            RetryOutcome::Accepted => self.accepted += 1,
            RetryOutcome::Duplicate => self.duplicates += 1,
            RetryOutcome::Rejected => self.rejected += 1,
        }
    }
}

/// Who sends again, and how.
struct LetterSender {
    app: AppState,
    principal: Principal,
    asked: Namespace,
    backfill: bool,
    dry_run: bool,
}

/// `POST /v1/{ns}/dead-letters/retry`: on return every letter that it counts has its new row in the
/// log, and every event that it counts is durable.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 503; run it again then.
pub(in crate::http) async fn retry(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
    QueryParameters(parameters): QueryParameters<RetryParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.owner.check().map_err(|reason| not_taken(Some(&principal), &reason))?;
    let asked = parse_namespace(&namespace)?;
    let body = body::read(&app, &headers, body).await?;
    let selection = selection(&body.bytes)?;
    let sender = LetterSender {
        asked,
        backfill: parameters.backfill,
        dry_run: selection.dry_run,
        principal,
        app,
    };
    let tally = match selection.ids {
        Some(ids) => sender.named(&ids).await?,
        None => sender.pending(selection.reason).await?,
    };
    let RetryTally { accepted, duplicates, rejected, missing } = tally;
    let retried = accepted + duplicates + rejected;
    let dry_run = sender.dry_run;
    Ok(json(200, &RetryReply { retried, accepted, duplicates, rejected, missing, dry_run }))
}

fn selection(bytes: &[u8]) -> Result<RetryLetters, ApiError> {
    let wrong = |text: String| ApiError::new(ErrorCode::InvalidRequest, text);
    let form = "{\"ids\": [\"…\"]}, {\"reason\": \"CODE\"} or {\"all\": true}, with \"dry_run\"?";
    let selection: RetryLetters = parse_object(bytes)
        .map_err(|problem| wrong(format!("the body is not {form}: {problem}")))?;
    let named = [selection.ids.is_some(), selection.reason.is_some(), selection.all];
    if named.into_iter().filter(|is_named| *is_named).count() != 1 {
        return Err(wrong(format!("select dead letters with one of {form}")));
    }
    if selection.ids.as_ref().is_some_and(|ids| IDS_MAX < ids.len()) {
        return Err(wrong(format!("at most {IDS_MAX} ids at a time")));
    }
    Ok(selection)
}

impl LetterSender {
    /// Every letter that is pending now, or those of one reason.
    async fn pending(&self, reason: Option<String>) -> Result<RetryTally, ApiError> {
        let status = Some(LetterStatus::Pending.as_str().to_owned());
        let wanted = LetterFilter { reason, status, ..LetterFilter::until(&self.app) };
        let mut cursor = LetterCursor::after(None);
        let mut tally = RetryTally::default();
        while !cursor.is_at_end {
            let ids =
                page_of_ids(&self.app, &self.asked, &wanted, &mut cursor, PAGE_LETTERS).await?;
            let mut letters = newest(&self.app, &self.asked, &ids).await?;
            letters.retain(|letter| wanted.includes(letter));
            self.send(letters, &mut tally).await?;
        }
        Ok(tally)
    }

    /// Those of these ids that there are; others are counted. One that was taken already is a duplicate.
    async fn named(&self, ids: &[String]) -> Result<RetryTally, ApiError> {
        let mut ids = ids.to_vec();
        ids.sort();
        ids.dedup();
        let mut tally = RetryTally::default();
        for ids in ids.chunks(PAGE_LETTERS) {
            let mut letters = newest(&self.app, &self.asked, ids).await?;
            letters.retain(|letter| !letter.is_discarded());
            tally.missing += (ids.len() - letters.len()) as u64;
            letters.retain(|letter| {
                if letter.row.status == LetterStatus::Redriven {
                    tally.count(RetryOutcome::Duplicate);
                }
                letter.row.status == LetterStatus::Pending
            });
            self.send(letters, &mut tally).await?;
        }
        Ok(tally)
    }

    async fn send(
        &self,
        letters: Vec<NewestLetter>,
        tally: &mut RetryTally,
    ) -> Result<(), ApiError> {
        for letters in letters.chunks(PAYLOADS_MAX) {
            let ids: Vec<String> = letters.iter().map(|letter| letter.row.id.clone()).collect();
            let mut waiting: HashMap<String, NewestLetter> =
                ids.iter().cloned().zip(letters.iter().cloned()).collect();
            let mut answer = payloads(&self.app, &self.asked, &ids).await?;
            while let Some(batch) = answer.batches.next().await {
                let batch = batch?;
                let mut whole = Vec::new();
                for row in 0..batch.num_rows() {
                    let Some(id) = text_at(&batch, "id", row) else { continue };
                    let Some(mut letter) = waiting.remove(&id) else { continue };
                    let Some(payload) = text_at(&batch, "payload", row) else { continue };
                    letter.row.payload = payload;
                    whole.push(letter);
                }
                let mut outcomes = stream::iter(whole)
                    .map(|letter| self.send_one(letter))
                    .buffer_unordered(IN_WORK_MAX);
                while let Some(outcome) = outcomes.try_next().await? {
                    tally.count(outcome);
                }
            }
        }
        Ok(())
    }

    /// Sends one letter as if its event came now, but for what depends on when it came first.
    async fn send_one(&self, letter: NewestLetter) -> Result<RetryOutcome, ApiError> {
        let app = &self.app;
        let namespace = letter.namespace(&self.asked);
        let sent_to = letter.sent_to(&self.asked);
        let row = letter.row;
        let body = Bytes::from(row.bytes().into_owned());
        let bytes = body.len();
        let (mut decoded, batch_id) = if row.is_webhook() {
            let delivery = WebhookDelivery::of_letter(&row, body);
            (delivery.decoded(sent_to, letter.first_us, app.clock.now_us()), None)
        } else {
            match self.decoded(&row, sent_to, letter.first_us, body).await {
                Ok(decoded) => decoded,
                // The log has what is wrong with it; the others are sent all the same.
                Err(_) => return Ok(RetryOutcome::Rejected),
            }
        };
        // It was refused for the branch that it names, and would come to `main`.
        if decoded.branch.as_deref().is_some_and(|branch| branch != MAIN_BRANCH) {
            return Ok(RetryOutcome::Rejected);
        }
        let received = decoded.received as u64;
        let shelters = shelters(&self.principal, &namespace);
        let turned_away = turn_away(&mut decoded, &self.principal, &shelters);
        if !turned_away.is_empty() {
            return Ok(RetryOutcome::Rejected);
        }
        let bytes = bytes + decoded.copied;
        let submission = Submission {
            decoded,
            request: RequestIds {
                batch_id: batch_id.or_else(|| row.batch_id.clone()),
                correlation_id: row.correlation_id.clone(),
            },
            atomic: false,
            bytes,
            shelters,
            dry_run: self.dry_run,
            letters: LetterChange::Redriven(namespace, Box::new(row)),
            ..Submission::default()
        };
        let receipt = match Box::pin(expected::append(app, submission)).await {
            Ok(receipt) => receipt,
            // What it expects cannot be looked at; the others are sent all the same.
            Err(error)
                if [ErrorCode::InvalidRequest, ErrorCode::QueryLimit].contains(&error.code()) =>
            {
                return Ok(RetryOutcome::Rejected);
            }
            Err(error) => return Err(error),
        };
        let refused = receipt.refused.len() as u64;
        let new = received - refused - receipt.duplicates;
        if !self.dry_run {
            app.metrics.count_events(received - refused, receipt.duplicates, 0);
        }
        Ok(match (new, receipt.duplicates, refused) {
            (0, 0, 1..) => RetryOutcome::Rejected,
            (0, 1.., _) => RetryOutcome::Duplicate,
            _ => RetryOutcome::Accepted,
        })
    }

    async fn decoded(
        &self,
        row: &DeadLetter,
        namespace: Namespace,
        received_us: i64,
        body: Bytes,
    ) -> Result<(DecodedBody, Option<String>), ApiError> {
        let arrival = RequestContext {
            now_us: self.app.clock.now_us(),
            namespace,
            first_id: self.app.ids.first_of_run(),
            cloud_event: Vec::new(),
            correlation_id: row.correlation_id.clone(),
            request_id: None,
            again: Some(RedriveContext {
                id: row.event_id.clone().unwrap_or_else(|| row.id.clone()),
                batch_id: row.batch_id.clone(),
                received_us,
            }),
        };
        let format = if body.starts_with(AVRO) { BodyFormat::Avro } else { BodyFormat::Json };
        decode_body(&self.app, body, format, arrival, self.backfill).await
    }
}
