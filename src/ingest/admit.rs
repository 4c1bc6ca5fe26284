//! One submission's verdict: which events are new, which are repeats, which are refused.
//!
//! A draft has already changed the id index and the ledger; [`AdmittedBatch::undo`] takes that back
//! as long as no later draft was made.

use crate::ingest::{
    COMPARED_MAX, LetterChange, OpenQuestions, RefusedEvent, Submission, UndecidedEvent, bookmark,
    dedup::IdIndex,
    expected::{ExpectedVersions, VersionCheck},
    ledger::NamespaceLedger,
    letters::{self, KnownLetter},
    refusal::{RefusalReason, aborted, refuse},
    verdict::{EventVerdict, NamespaceState},
};
use arrow::{
    array::{AsArray, BooleanArray},
    compute::filter_record_batch,
    record_batch::RecordBatch,
};
use icecore_lake::{
    event::{
        EventKey, FormerKey, NamespaceEvents, RejectedEvent, RequestIds, SourceBytes,
        dead_letter::{self, DeadLetter, LetterStatus, letter_rows},
        rows,
    },
    ids::IdGenerator,
    wal::WalError,
};
use icecore_schemas::{
    error_code::ErrorCode,
    names::Namespace,
    service_table::{RecordKind, ServiceTables},
};
use std::collections::{HashMap, HashSet};
use ulid::Ulid;

/// What verdicts rest on.
#[derive(Debug)]
pub(super) struct DedupState {
    pub(super) index: IdIndex,
    pub(super) ledger: NamespaceLedger,
    pub(super) types_max: usize,
    pub(super) ids: IdGenerator,
    /// Some of them have rows that are copies of events.
    pub(super) tables: ServiceTables,
    /// Until when, in ms since 1970, events are known under their former identities too.
    pub(super) former_until_ms: Option<i64>,
}

/// New events of one namespace.
#[derive(Debug)]
pub(super) struct AcceptedRows {
    pub(super) namespace: Namespace,
    pub(super) first_seq: u64,
    pub(super) rows: RecordBatch,
    pub(super) keys: Vec<EventKey>,
    /// Types that the namespace did not have before.
    pub(super) types: Vec<String>,
}

/// New rows of one namespace for a table whose rows are counted for it alone.
#[derive(Debug)]
pub(super) struct CountedRows {
    pub(super) kind: RecordKind,
    pub(super) namespace: Namespace,
    pub(super) first: u64,
    pub(super) rows: RecordBatch,
    /// What is noted of them among the ids.
    keys: Vec<u128>,
}

#[derive(Debug, Default)]
pub(super) struct AdmittedBatch {
    pub(super) taken: Vec<AcceptedRows>,
    pub(super) duplicates: u64,
    pub(super) ranges: Vec<(Namespace, u64, u64)>,
    pub(super) refused: Vec<RefusedEvent>,
    pub(super) counted: Vec<CountedRows>,
    claimed: Vec<Namespace>,
    questions: OpenQuestions,
}

/// Which group of a submission is judged, and how.
#[derive(Clone, Copy)]
struct GroupPlace<'a> {
    group: usize,
    expected: Option<&'a ExpectedVersions>,
    knows_former: bool,
    /// Whether its new events keep the `seq`s that they get here.
    gives_seq: bool,
}

/// A submission's verdict.
#[derive(Debug)]
pub(super) enum AdmissionOutcome {
    Decided(AdmittedBatch),
    /// Nothing has changed.
    Undecided(Box<Submission>, OpenQuestions),
}

impl AdmittedBatch {
    /// Judges a submission, or asks about events whose id has another content, if it may.
    ///
    /// # Errors
    /// The id index cannot be read; then nothing has changed.
    pub(super) fn judge(
        dedup: &mut DedupState,
        mut submission: Box<Submission>,
        now_us: i64,
        may_ask: bool,
    ) -> Result<AdmissionOutcome, WalError> {
        for letter in std::mem::take(&mut submission.lost_letters) {
            letters::close(&mut dedup.index, &letter.to_string())?;
        }
        let mut draft = Self::default();
        let mut rejected = std::mem::take(&mut submission.decoded.rejected);
        let broken = rejected.len();
        let knows_former = dedup.former_until_ms.is_some_and(|until_ms| now_us / 1000 < until_ms);
        // An event with a conflict takes the others of its atomic batch with it.
        let gives_seq = !submission.atomic && !submission.dry_run;
        let source = &submission.decoded.source;
        for (group, events) in submission.decoded.accepted.iter().enumerate() {
            let expected = submission.expected.get(group);
            let place = GroupPlace { group, expected, knows_former, gives_seq };
            if let Err(cause) = draft.judge_events(dedup, place, events, source, &mut rejected) {
                draft.undo(dedup);
                return Err(cause);
            }
        }
        if submission.decoded.is_webhook {
            rejected.iter_mut().for_each(|one| one.reason = dead_letter::of_webhook(&one.reason));
        }
        // What is stored is looked at elsewhere, then the submission comes again: nothing of this look
        // at it may stay.
        let asked =
            if may_ask { draft.ask_for_letters(dedup, &submission, &rejected) } else { Ok(()) };
        if asked.is_err() || (may_ask && !draft.questions.is_empty()) {
            draft.undo(dedup);
            asked?;
            rejected.truncate(broken);
            submission.decoded.rejected = rejected;
            return Ok(AdmissionOutcome::Undecided(submission, draft.questions));
        }
        let Submission { decoded, request, atomic, shelters, dry_run, letters, .. } = *submission;
        let is_none = atomic && !rejected.is_empty();
        if is_none {
            rejected.extend(aborted(&decoded, &rejected));
        }
        rejected.sort_by_key(|one| one.index);
        // A dry run, and a batch that fails as a whole, are judged as if they were taken, because an
        // event's verdict depends on those before it. Then index and ledger get everything back.
        if is_none || dry_run {
            draft.undo(dedup);
            let told =
                Self { duplicates: draft.duplicates, ranges: draft.ranges, ..Self::default() };
            draft = if is_none { Self::default() } else { told };
            draft.refused = rejected.into_iter().map(|one| refused(one, None)).collect();
            return Ok(AdmissionOutcome::Decided(draft));
        }
        draft.copy_events(dedup);
        let is_of_letter = matches!(letters, LetterChange::Redriven(..));
        let kept = draft.change_letters(dedup, letters, rejected, now_us).and_then(|left| {
            let (kept, others): (Vec<RejectedEvent>, Vec<RejectedEvent>) =
                left.into_iter().partition(|one| is_of_letter || has_letter(one));
            draft.refused.extend(others.into_iter().map(|one| refused(one, None)));
            draft.keep_refused(dedup, kept, &request, &shelters, now_us)
        });
        if let Err(cause) = kept {
            draft.undo(dedup);
            return Err(cause);
        }
        draft.refused.sort_by_key(|refused| refused.index);
        Ok(AdmissionOutcome::Decided(draft))
    }

    /// Adds the events that are rows of other tables as well.
    fn copy_events(&mut self, DedupState { ledger, tables, .. }: &mut DedupState) {
        for AcceptedRows { namespace, rows, .. } in &self.taken {
            for table in tables.iter() {
                let Some(rows) = rows::copies(table, rows) else { continue };
                let (kind, namespace) = (table.kind, namespace.clone());
                let first = ledger.entry(&namespace).give(kind, rows.num_rows());
                self.counted.push(CountedRows { kind, namespace, first, rows, keys: Vec::new() });
            }
        }
    }

    /// Adds the next rows of dead letters; gives what was refused and is in none of them.
    fn change_letters(
        &mut self,
        dedup: &mut DedupState,
        letters: LetterChange,
        mut rejected: Vec<RejectedEvent>,
        now_us: i64,
    ) -> Result<Vec<RejectedEvent>, WalError> {
        let (namespace, rows): (_, Vec<DeadLetter>) = match letters {
            LetterChange::Unchanged => return Ok(rejected),
            LetterChange::Discarded(namespace, letters) => {
                (namespace, letters.into_iter().map(DeadLetter::discarded).collect())
            }
            // What is refused of a letter with several events has letters of its own then.
            LetterChange::Redriven(namespace, letter) if self.has_any() || rejected.is_empty() => {
                (namespace, vec![letter.redriven()])
            }
            LetterChange::Redriven(namespace, letter) => {
                let id = letter.id.clone();
                let next = letter.refused_again(&rejected[0]);
                let same = |one| refused(one, Some(id.clone()));
                self.refused.extend(rejected.drain(..).map(same));
                (namespace, vec![next])
            }
        };
        // Where another namespace owns the catalog name, the table of letters is that one's.
        let namespace = self.claim(dedup, &namespace).err().unwrap_or(namespace);
        let kind = RecordKind::DeadLetters;
        let first = dedup.ledger.entry(&namespace).give(kind, rows.len());
        self.counted.push(CountedRows {
            kind,
            namespace,
            first,
            rows: letter_rows(&rows, now_us),
            keys: Vec::new(),
        });
        let keys = &mut self.counted.last_mut().expect("it was pushed right before").keys;
        for letter in rows.iter().filter(|letter| letter.status != LetterStatus::Pending) {
            keys.extend(letters::close(&mut dedup.index, &letter.id)?);
        }
        Ok(rejected)
    }

    /// Whether an event was taken, now or before.
    fn has_any(&self) -> bool {
        self.duplicates > 0 || !self.taken.is_empty()
    }

    fn judge_events(
        &mut self,
        dedup: &mut DedupState,
        GroupPlace { group, expected, knows_former, gives_seq }: GroupPlace<'_>,
        events: &NamespaceEvents,
        source: &SourceBytes,
        rejected: &mut Vec<RejectedEvent>,
    ) -> Result<(), WalError> {
        let count = events.keys.len();
        let last_seq = match self.enter(dedup, &events.namespace) {
            Ok(last_seq) => last_seq,
            Err(reason) => {
                rejected.extend((0..count).map(|row| refuse(events, source, row, &reason)));
                return Ok(());
            }
        };
        let DedupState { index, ledger, types_max, .. } = dedup;
        let types = events.rows.column_by_name("type").and_then(|types| types.as_string_opt());
        let entry = ledger.entry(&events.namespace);
        let former: &[FormerKey] = if knows_former { &events.former } else { &[] };
        let mut namespace_state = NamespaceState {
            index,
            entry,
            types,
            types_max: *types_max,
            former,
            same: &events.same,
            gives_seq,
            versions: expected.map(VersionCheck::new),
            asks: Vec::new(),
        };
        // Pushed before the first look-up, so that an error finds everything to undo.
        self.taken.push(AcceptedRows {
            namespace: events.namespace.clone(),
            first_seq: last_seq + 1,
            rows: events.rows.clone(),
            keys: Vec::with_capacity(count),
            types: Vec::new(),
        });
        let taken = self.taken.last_mut().expect("it was pushed right before");
        let mut keep = Vec::with_capacity(count);
        let mut range: Option<(u64, u64)> = None;
        for (row, key) in events.keys.iter().enumerate() {
            let verdict = namespace_state.judge(row, *key, taken)?;
            keep.push(matches!(verdict, EventVerdict::New(_)));
            match verdict {
                EventVerdict::New(seq) => range = Some(widened(range, seq)),
                EventVerdict::Repeat(seq) => {
                    range = Some(widened(range, seq));
                    self.duplicates += 1;
                }
                EventVerdict::Refused(reason) => {
                    rejected.push(refuse(events, source, row, &reason))
                }
            }
        }
        // Beyond the bound nothing is compared, and the verdict stays as it is.
        let room = COMPARED_MAX.saturating_sub(self.questions.events.len());
        let asks = namespace_state.asks.into_iter().take(room);
        self.questions.events.extend(asks.map(|(row, seq)| UndecidedEvent { group, row, seq }));
        if taken.keys.len() < count {
            taken.rows = filter_record_batch(&events.rows, &BooleanArray::from(keep))
                .expect("there is one flag a row");
        }
        taken.rows = bookmark::mint(taken.rows.clone(), taken.first_seq, &taken.keys);
        self.taken.pop_if(|taken| taken.keys.is_empty());
        self.ranges.extend(range.map(|(first, last)| (events.namespace.clone(), first, last)));
        Ok(())
    }

    /// The namespace's last `seq`, or why it takes no events.
    fn enter(
        &mut self,
        dedup: &mut DedupState,
        namespace: &Namespace,
    ) -> Result<u64, RefusalReason> {
        if namespace.is_reserved() && !dedup.ledger.has(namespace) {
            return Err(RefusalReason::NameReserved);
        }
        self.claim(dedup, namespace).map_err(|owner| RefusalReason::NameTaken { owner })
    }

    /// The namespace's last `seq`, or who owns its catalog name.
    fn claim(&mut self, dedup: &mut DedupState, namespace: &Namespace) -> Result<u64, Namespace> {
        let known = dedup.ledger.has(namespace);
        let last = dedup.ledger.claim(namespace)?.last(RecordKind::Events);
        if !known {
            self.claimed.push(namespace.clone());
        }
        Ok(last)
    }

    /// Notes the dead letters that refused events have, where they would get one.
    fn ask_for_letters(
        &mut self,
        dedup: &mut DedupState,
        submission: &Submission,
        rejected: &[RejectedEvent],
    ) -> Result<(), WalError> {
        let Submission { request, shelters, letters, .. } = submission;
        if submission.atomic || submission.dry_run || !matches!(letters, LetterChange::Unchanged) {
            return Ok(());
        }
        let mut look = letters::LetterLookup::new(dedup.ledger.log());
        for one in rejected.iter().filter(|one| has_letter(one)) {
            let Some(keeper) = self.letter_keeper(dedup, one.keeper(), shelters) else { continue };
            let batch_id = request.batch_id.as_deref();
            let known = look.of(&dedup.index, &keeper, one, batch_id)?;
            let has_room = self.questions.letters.len() < COMPARED_MAX;
            if let (KnownLetter::Letter(id), true) = (known, has_room) {
                self.questions.letters.push((keeper, id));
            }
        }
        Ok(())
    }

    /// Dead letters for what is refused and has none yet.
    fn keep_refused(
        &mut self,
        dedup: &mut DedupState,
        rejected: Vec<RejectedEvent>,
        request: &RequestIds,
        shelters: &[Namespace],
        now_us: i64,
    ) -> Result<(), WalError> {
        let mut by_namespace: Vec<(Namespace, Vec<RejectedEvent>)> = Vec::new();
        let mut places = HashMap::new();
        // Grouped in order of arrival: each namespace gets one run of numbers and one run of ids.
        for one in rejected {
            let Some(keeper) = self.letter_keeper(dedup, one.keeper(), shelters) else {
                self.refused.push(refused(one, None));
                continue;
            };
            let place = *places.entry(keeper.clone()).or_insert_with(|| {
                by_namespace.push((keeper, Vec::new()));
                by_namespace.len() - 1
            });
            by_namespace[place].1.push(one);
        }
        let mut look = letters::LetterLookup::new(dedup.ledger.log());
        for (namespace, rejected) in by_namespace {
            let first_id = dedup.ids.first_of_run();
            let (mut new, mut notes) = (Vec::new(), Vec::new());
            // What was refused before finds the letter that it has, and adds none.
            for one in rejected {
                match look.of(&dedup.index, &namespace, &one, request.batch_id.as_deref())? {
                    KnownLetter::Letter(id) => {
                        self.refused.push(refused(one, Some(id.to_string())))
                    }
                    KnownLetter::Nothing(key) => {
                        notes.push((key, Ulid(first_id.0 + new.len() as u128)));
                        new.push(one);
                    }
                }
            }
            if new.is_empty() {
                continue;
            }
            notes.iter().for_each(|(key, id)| letters::note(&mut dedup.index, *key, *id));
            let kind = RecordKind::DeadLetters;
            let first = dedup.ledger.entry(&namespace).give(kind, new.len());
            let rows = dead_letter::rejected_rows(&new, request, now_us, first_id);
            let keys = notes.iter().map(|(key, _)| *key).collect();
            self.counted.push(CountedRows { kind, namespace, first, rows, keys });
            let named = new.into_iter().zip(notes);
            self.refused.extend(named.map(|(one, (_, id))| refused(one, Some(id.to_string()))));
        }
        Ok(())
    }

    /// The namespace that keeps a dead letter: its own, or a shelter where another has the name; none
    /// where the sender may send nowhere but to a reserved name.
    fn letter_keeper(
        &mut self,
        dedup: &mut DedupState,
        own: &Namespace,
        shelters: &[Namespace],
    ) -> Option<Namespace> {
        let mut owner = None;
        for place in std::iter::once(own).chain(shelters) {
            match self.enter(dedup, place) {
                Ok(_) => return Some(place.clone()),
                Err(RefusalReason::NameTaken { owner: other }) => owner = Some(other),
                Err(_) => (),
            }
        }
        owner
    }

    fn undo(&mut self, dedup: &mut DedupState) {
        self.taken.iter().for_each(|taken| taken.undo(dedup));
        self.counted.iter().for_each(|counted| counted.undo(dedup));
        for namespace in &self.claimed {
            dedup.ledger.release(namespace);
        }
    }
}

impl CountedRows {
    /// Makes letters unknown again, and gives the numbers back: those after them are given back, too.
    pub(super) fn undo(&self, dedup: &mut DedupState) {
        self.keys.iter().for_each(|key| dedup.index.forget(*key));
        dedup.ledger.entry(&self.namespace).take_back(self.kind, self.first);
    }
}

impl AcceptedRows {
    /// Makes ids and types unknown again, and gives their `seq`s back: those after them are given
    /// back, too.
    pub(super) fn undo(&self, dedup: &mut DedupState) {
        for key in &self.keys {
            dedup.index.forget(key.id);
        }
        let new: HashSet<&String> = self.types.iter().collect();
        let entry = dedup.ledger.entry(&self.namespace);
        entry.types.retain(|text| !new.contains(text));
        entry.take_back(RecordKind::Events, self.first_seq);
    }
}

fn widened(range: Option<(u64, u64)>, seq: u64) -> (u64, u64) {
    range.map_or((seq, seq), |(first, last)| (seq.min(first), seq.max(last)))
}

/// Whether a dead letter keeps what is refused. Nothing is wrong with an event that expects another version: its sender
/// makes another one of what is there. One that came out of a letter is kept: its sender has long gone.
fn has_letter(rejected: &RejectedEvent) -> bool {
    rejected.code != ErrorCode::VersionMismatch
}

fn refused(rejected: RejectedEvent, dead_letter: Option<String>) -> RefusedEvent {
    RefusedEvent {
        index: rejected.index,
        id: rejected.id,
        code: rejected.code,
        actual_version: rejected.actual_version,
        reason: rejected.reason,
        dead_letter,
    }
}
