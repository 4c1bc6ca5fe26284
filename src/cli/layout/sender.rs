//! Sends the events of a file in requests that a server takes, and counts what became of them.

use crate::cli::{
    CliError,
    client::{ClientError, ServerClient},
    ingest::{
        BACKFILL, BATCH_BYTES_MAX, BATCH_EVENTS_MAX, REFUSED_SHOWN_MAX, TOO_LARGE, halves,
        send_body,
    },
    layout::report::EventCounts,
    remark,
};
use bytes::Bytes;
use icecore_schemas::batch::{EventError, IngestReply};
use indicatif::ProgressBar;

/// Sends to one server.
pub(in crate::cli) struct EventSender<'a> {
    pub(in crate::cli) client: &'a ServerClient,
    pub(in crate::cli) bar: &'a ProgressBar,
    /// How many problems were shown.
    pub(in crate::cli) shown: u64,
}

/// The events of a file that wait for a request.
#[derive(Debug, Default)]
pub(in crate::cli) struct EventBatch {
    body: Vec<u8>,
    places: Vec<u64>,
}

impl EventBatch {
    /// Adds the line of an event at this place of its file.
    pub(in crate::cli) fn push(&mut self, line: &str, place: u64) {
        self.body.extend_from_slice(line.as_bytes());
        self.places.push(place);
    }

    /// Whether it has as much as a request may have.
    pub(in crate::cli) fn is_full(&self) -> bool {
        BATCH_EVENTS_MAX <= self.places.len() || BATCH_BYTES_MAX <= self.body.len()
    }
}

impl EventSender<'_> {
    /// Sends a batch of a file. Where the server says that a body is too large, its halves are sent.
    ///
    /// # Errors
    /// [`CliError::Client`].
    pub(in crate::cli) async fn send(
        &mut self,
        file: &str,
        namespace: &str,
        batch: EventBatch,
        counts: &mut EventCounts,
    ) -> Result<(), CliError> {
        if batch.places.is_empty() {
            return Ok(());
        }
        let mut bodies = vec![(Bytes::from(batch.body), batch.places.as_slice())];
        while let Some((body, places)) = bodies.pop() {
            let media = "application/x-ndjson";
            match send_body(self.client, BACKFILL, namespace, media, body.clone()).await {
                Ok(reply) => self.count(file, places, &reply, counts),
                Err(CliError::Client(ClientError::Refused { status: TOO_LARGE, text, .. })) => {
                    if let [place] = places {
                        counts.unsent += 1;
                        self.show(&format!("{file}:{place}: not sent: {text}"));
                        continue;
                    }
                    bodies.extend(halves(&body, places));
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }

    fn count(&mut self, file: &str, places: &[u64], reply: &IngestReply, counts: &mut EventCounts) {
        let rejected = reply.errors.len() as u64;
        counts.duplicates += reply.duplicates;
        counts.rejected += rejected;
        counts.accepted += reply.received.saturating_sub(reply.duplicates + rejected);
        for EventError { index, code, reason, .. } in &reply.errors {
            let place = places.get(usize::try_from(*index).unwrap_or(usize::MAX));
            let place = place.map_or_else(String::new, |place| format!(":{place}"));
            self.show(&format!("{file}{place}: {}: {reason}", code.as_str()));
        }
    }

    /// Says the first problems as they come.
    fn show(&mut self, text: &str) {
        self.shown += 1;
        if REFUSED_SHOWN_MAX < self.shown {
            return;
        }
        self.bar.suspend(|| remark(text));
        if self.shown == REFUSED_SHOWN_MAX {
            self.bar.suspend(|| remark("further problems are counted, not shown"));
        }
    }
}
