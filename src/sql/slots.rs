//! How many queries run at the same time: together, of one namespace, of one token.
//!
//! A query has its slot until nothing of it runs any more, also when its answer ended long before.
//! Whoever finds no free slot waits for a moment, in the order of arrival.

use icecore_engine::{error::SqlError, guard::CheckedStatement, stop::QuerySignal};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Longest a query waits for a slot.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Most queries that wait, of one namespace and together.
const WAITING_NAMESPACE_MAX: usize = 16;
const WAITING_MAX: usize = 64;
/// Slots for statements that read no table: they end within milliseconds and are not kept waiting
/// by those that do not.
const SMALL_MAX: usize = 2;
/// A query that still runs this long after its end is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How many queries may run at once.
#[derive(Clone, Copy, Debug)]
pub struct SlotsMax {
    /// All.
    pub all: usize,
    /// Those of one namespace.
    pub namespace: usize,
    /// Those of one token.
    pub token: usize,
}

/// Whose query it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryOwner {
    /// The namespace it asks.
    pub namespace: String,
    /// The token that is shown, or another identity; none while access control is off.
    pub token: Option<String>,
}

/// What a query takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuerySize {
    /// It has no table: its work is bounded by its length.
    Small,
    /// Whatever it takes.
    Any,
}

impl QuerySize {
    /// Of a statement that the guard let through.
    #[must_use]
    pub fn of(statement: &CheckedStatement) -> Self {
        if statement.reads_tables() { Self::Any } else { Self::Small }
    }
}

/// Who shares a bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum SlotGroup {
    Namespace(String),
    Token(String),
}

/// The slots of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QuerySlots(Arc<SlotsInner>);

#[derive(Debug)]
struct SlotsInner {
    max: SlotsMax,
    all: Arc<Semaphore>,
    small: Arc<Semaphore>,
    books: Mutex<SlotBooks>,
}

#[derive(Debug, Default)]
struct SlotBooks {
    groups: HashMap<SlotGroup, Arc<Semaphore>>,
    waiting: HashMap<String, usize>,
    running: BTreeMap<u64, (QueryOwner, Arc<QuerySignal>)>,
    next: u64,
}

/// A slot, free again when it is dropped.
#[derive(Debug)]
pub struct QuerySlot {
    slots: QuerySlots,
    number: u64,
    /// In the order in which they were taken.
    permits: Vec<OwnedSemaphorePermit>,
}

impl QuerySlots {
    /// Slots that are all free.
    #[must_use]
    pub fn new(max: SlotsMax) -> Self {
        Self(Arc::new(SlotsInner {
            max,
            all: Arc::new(Semaphore::new(max.all)),
            small: Arc::new(Semaphore::new(SMALL_MAX)),
            books: Mutex::default(),
        }))
    }

    /// The most slots that can be taken at a time.
    #[must_use]
    pub fn most(max: SlotsMax) -> usize {
        max.all + SMALL_MAX
    }

    /// A slot for a query of `asker`, once there is one.
    ///
    /// # Errors
    /// [`SqlError::Busy`] says what holds the slots.
    pub async fn take(
        &self,
        asker: &QueryOwner,
        size: QuerySize,
        signal: &Arc<QuerySignal>,
    ) -> Result<QuerySlot, SqlError> {
        let mut bounds = Vec::new();
        if size == QuerySize::Small {
            bounds.push((Arc::clone(&self.0.small), "statements without a table".to_owned()));
        } else {
            let namespace = SlotGroup::Namespace(asker.namespace.clone());
            let told = format!("other queries of namespace `{}`", asker.namespace);
            bounds.push((self.group(namespace, self.0.max.namespace), told));
            if let Some(token) = &asker.token {
                let told = "other queries of this token".to_owned();
                bounds.push((self.group(SlotGroup::Token(token.clone()), self.0.max.token), told));
            }
            bounds.push((Arc::clone(&self.0.all), "other queries".to_owned()));
        }
        let until = signal.deadline().min(Instant::now() + WAIT_MAX);
        let _waiting = self.wait(asker)?;
        // From the narrow to the wide: who waits for its own kind keeps nobody else waiting.
        let mut slot = QuerySlot { slots: self.clone(), number: 0, permits: Vec::new() };
        for (bound, told) in bounds {
            let permit = timeout_at(until, bound.acquire_owned()).await;
            let permit = permit.map_err(|_| self.busy(&told))?;
            slot.permits.push(permit.expect("the bounds are never closed"));
        }
        let mut books = self.0.books();
        books.next += 1;
        slot.number = books.next;
        books.running.insert(slot.number, (asker.clone(), Arc::clone(signal)));
        drop(books);
        Ok(slot)
    }

    fn group(&self, group: SlotGroup, max: usize) -> Arc<Semaphore> {
        let mut books = self.0.books();
        // Those that nobody has or waits for are forgotten.
        books.groups.retain(|_, bound| 1 < Arc::strong_count(bound));
        let bound = books.groups.entry(group).or_insert_with(|| Arc::new(Semaphore::new(max)));
        Arc::clone(bound)
    }

    fn wait(&self, asker: &QueryOwner) -> Result<QueuePlace, SqlError> {
        let mut books = self.0.books();
        let all: usize = books.waiting.values().sum();
        let waiting = books.waiting.entry(asker.namespace.clone()).or_default();
        if WAITING_NAMESPACE_MAX <= *waiting || WAITING_MAX <= all {
            let text = format!("{all} queries are already waiting for a slot; try again later");
            return Err(SqlError::Busy(text));
        }
        *waiting += 1;
        Ok(QueuePlace { slots: self.clone(), namespace: asker.namespace.clone() })
    }

    fn busy(&self, told: &str) -> SqlError {
        let (running, stuck) = (self.running(), self.stuck());
        let ending = match stuck {
            0 => String::new(),
            _ => format!(", {stuck} of them past their deadline"),
        };
        SqlError::Busy(format!(
            "too many {told} are running ({running} in all{ending}); try again when one has ended, or raise sql.concurrent_max, sql.concurrent_per_namespace or sql.concurrent_per_token"
        ))
    }

    /// How many queries wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.books().waiting.values().sum()
    }

    /// How many queries run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.books().running.len()
    }

    /// How many queries go on although they were to end some time ago.
    #[must_use]
    pub fn stuck(&self) -> usize {
        let books = self.0.books();
        books.running.values().filter(|(_, signal)| STUCK_AFTER < signal.over_for()).count()
    }
}

impl SlotsInner {
    // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
    fn books(&self) -> MutexGuard<'_, SlotBooks> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QuerySlot {
    fn drop(&mut self) {
        let Some((asker, signal)) = self.slots.0.books().running.remove(&self.number) else {
            return;
        };
        let late = signal.over_for();
        if STUCK_AFTER < late {
            let namespace = &asker.namespace;
            tracing::warn!(%namespace, late_ms = late.as_millis(), "a query kept running after its end");
        }
    }
}

/// A place in the queue.
struct QueuePlace {
    slots: QuerySlots,
    namespace: String,
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut books = self.slots.0.books();
        if let Some(waiting) = books.waiting.get_mut(&self.namespace) {
            *waiting -= 1;
            if *waiting == 0 {
                books.waiting.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests;
