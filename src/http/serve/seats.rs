//! Who has a connection: at most so many together and of one address, and some more for probes.
//!
//! When all are taken, a new connection gets the seat of one that has no request: the longest in
//! its head, else the longest idle. So clients that only start requests keep nobody out.

use futures::FutureExt;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// Longest a client may take to send a request's head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest a client may take nothing of what is written to it.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest a connection goes on reading what its client still sends after the last answer.
const LINGER_TIME_MAX: Duration = Duration::from_secs(30);
/// A connection without a request keeps its seat for this long whoever comes.
const EVICT_AFTER: Duration = Duration::from_secs(1);
/// Connections beside the ordinary ones; they answer probes, and other requests in their turn.
const RESERVE: usize = 64;

/// All seats. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSeats(Arc<SeatsInner>);

#[derive(Debug)]
struct SeatsInner {
    ordinary_max: usize,
    peer_max: usize,
    /// Requests on reserve seats wait for these.
    turns: Arc<Semaphore>,
    taken: Mutex<HashMap<u64, TakenSeat>>,
    freed: Notify,
}

#[derive(Debug)]
struct TakenSeat {
    peer: IpAddr,
    lane: SeatLane,
    state: Arc<ConnectionState>,
    /// The seat's own turn, while it is an ordinary one.
    _turn: Option<OwnedSemaphorePermit>,
}

/// What a seat is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatLane {
    /// Every request.
    Ordinary,
    /// Probes at once, other requests when an ordinary seat is free.
    Reserve,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// A head is on its way.
    Head,
    /// Nothing since the last answer.
    Idle,
    /// A request is being answered.
    Request,
    /// The last answer is written; what the client still sends is dropped.
    Closing,
}

#[derive(Debug)]
struct ConnectionState {
    phase: Mutex<(ConnectionPhase, Instant)>,
    blocked: Mutex<Option<Instant>>,
    /// Whether the server ends, and waits for nobody who still sends.
    stops: AtomicBool,
    evicted: Notify,
}

/// A connection's place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSeat {
    seats: ConnectionSeats,
    number: u64,
    peer: IpAddr,
    lane: SeatLane,
    state: Arc<ConnectionState>,
}

/// A request of a connection, until its answer is written.
#[derive(Debug)]
pub(super) struct RunningRequest(Arc<ConnectionState>);

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole values go in and out, so a panic elsewhere leaves nothing half done.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionSeats {
    /// So many ordinary seats; one address has three quarters of them at most.
    pub(super) fn new(ordinary_max: usize) -> Self {
        Self(Arc::new(SeatsInner {
            ordinary_max,
            peer_max: (ordinary_max - ordinary_max / 4).max(1),
            turns: Arc::new(Semaphore::new(ordinary_max)),
            taken: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// A seat for a connection from `peer`, once there is one. Cancel-safe.
    pub(super) async fn take(&self, peer: IpAddr) -> ConnectionSeat {
        loop {
            let freed = self.0.freed.notified();
            if let Some(seat) = self.try_take(peer) {
                return seat;
            }
            // Some may be there for long enough by then.
            let _freed = timeout(EVICT_AFTER, freed).await;
        }
    }

    fn try_take(&self, peer: IpAddr) -> Option<ConnectionSeat> {
        let mut taken = locked(&self.0.taken);
        let ordinary = |seat: &TakenSeat| seat.lane == SeatLane::Ordinary;
        let of_peer = |seat: &TakenSeat| seat.peer == peer;
        if self.0.peer_max <= count(&taken, |seat| ordinary(seat) && of_peer(seat)) {
            evict(&mut taken, |seat| ordinary(seat) && of_peer(seat));
        } else if self.0.ordinary_max <= count(&taken, ordinary) {
            evict(&mut taken, ordinary);
        }
        let is_free = count(&taken, |seat| ordinary(seat) && of_peer(seat)) < self.0.peer_max;
        // Whoever was evicted gives its turn back before this one is asked for.
        let turn = Arc::clone(&self.0.turns).try_acquire_owned().ok().filter(|_| is_free);
        let lane = match &turn {
            Some(_) => SeatLane::Ordinary,
            None => SeatLane::Reserve,
        };
        if lane == SeatLane::Reserve && RESERVE <= count(&taken, |seat| seat.lane == lane) {
            evict(&mut taken, |seat| seat.lane == lane)?;
        }
        let state = Arc::new(ConnectionState {
            phase: Mutex::new((ConnectionPhase::Head, Instant::now())),
            blocked: Mutex::default(),
            stops: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        let number = (0..).find(|number| !taken.contains_key(number))?;
        taken.insert(number, TakenSeat { peer, lane, state: Arc::clone(&state), _turn: turn });
        Some(ConnectionSeat { seats: self.clone(), number, peer, lane, state })
    }

    /// Ends a connection that has no request, if there is one.
    pub(super) fn evict(&self) {
        evict(&mut locked(&self.0.taken), |_| true);
    }
}

fn count(taken: &HashMap<u64, TakenSeat>, of: impl Fn(&TakenSeat) -> bool) -> usize {
    taken.values().filter(|&seat| of(seat)).count()
}

/// Takes the seat of a connection without a request: a head before an idle one, of the address that
/// has most of them, the oldest first.
fn evict(taken: &mut HashMap<u64, TakenSeat>, of: impl Fn(&TakenSeat) -> bool) -> Option<()> {
    let mut peers: HashMap<IpAddr, usize> = HashMap::new();
    for seat in taken.values().filter(|&seat| of(seat)) {
        *peers.entry(seat.peer).or_default() += 1;
    }
    let victim = taken
        .iter()
        .filter(|&(_, seat)| of(seat))
        .filter_map(|(number, seat)| {
            let (phase, since) = *locked(&seat.state.phase);
            let rank = (phase == ConnectionPhase::Idle, usize::MAX - peers[&seat.peer], since);
            let is_free = phase != ConnectionPhase::Request && EVICT_AFTER < since.elapsed();
            is_free.then_some((rank, *number))
        })
        .min()?
        .1;
    taken.remove(&victim)?.state.evicted.notify_one();
    Some(())
}

impl ConnectionSeat {
    /// Who sits there.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// What it is for.
    pub(super) fn lane(&self) -> SeatLane {
        self.lane
    }

    /// A request's head is there.
    pub(super) fn request(&self) -> RunningRequest {
        *locked(&self.state.phase) = (ConnectionPhase::Request, Instant::now());
        RunningRequest(Arc::clone(&self.state))
    }

    /// A turn among the requests on ordinary seats.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        let inner = &self.seats.0;
        loop {
            let turn = Arc::clone(&inner.turns).acquire_owned();
            // At first without a wait, then by and by for a seat that nobody uses any more.
            if let Some(turn) = turn.now_or_never() {
                return turn.expect("turns are never closed");
            }
            evict(&mut locked(&inner.taken), |seat| seat.lane == SeatLane::Ordinary);
            let turn = Arc::clone(&inner.turns).acquire_owned();
            if let Ok(turn) = timeout(EVICT_AFTER, turn).await {
                return turn.expect("turns are never closed");
            }
        }
    }

    /// Bytes arrived.
    pub(super) fn received(&self) {
        let mut phase = locked(&self.state.phase);
        if phase.0 == ConnectionPhase::Idle {
            *phase = (ConnectionPhase::Head, Instant::now());
        }
    }

    /// The client took something of what was written, or takes nothing now.
    pub(super) fn written(&self, is_blocked: bool) {
        let mut blocked = locked(&self.state.blocked);
        *blocked = match is_blocked {
            true => Some(blocked.unwrap_or_else(Instant::now)),
            false => None,
        };
    }

    /// The last answer is written. Whether what the client still sends is read.
    pub(super) fn lingers(&self) -> bool {
        let mut phase = locked(&self.state.phase);
        if phase.0 != ConnectionPhase::Closing {
            *phase = (ConnectionPhase::Closing, Instant::now());
        }
        !self.state.stops.load(Ordering::SeqCst)
    }

    /// From now on nothing is read after the last answer.
    pub(super) fn stop(&self) {
        self.state.stops.store(true, Ordering::SeqCst);
    }

    /// What takes too long, if something does.
    pub(super) fn overdue(&self) -> Option<&'static str> {
        let (phase, since) = *locked(&self.state.phase);
        if phase == ConnectionPhase::Head && HEAD_TIME_MAX < since.elapsed() {
            return Some("the request's head did not arrive in time");
        }
        if phase == ConnectionPhase::Closing && LINGER_TIME_MAX < since.elapsed() {
            return Some("the client goes on after the last answer");
        }
        let blocked = *locked(&self.state.blocked);
        let is_stuck = blocked.is_some_and(|since| WRITE_TIME_MAX < since.elapsed());
        is_stuck.then_some("the answer is not read")
    }

    /// Returns when another connection got the seat. Cancel-safe.
    pub(super) async fn evicted(&self) {
        self.state.evicted.notified().await;
    }
}

impl Drop for ConnectionSeat {
    fn drop(&mut self) {
        let mut taken = locked(&self.seats.0.taken);
        // After an eviction the number may be another's.
        if taken.get(&self.number).is_some_and(|seat| Arc::ptr_eq(&seat.state, &self.state)) {
            taken.remove(&self.number);
        }
        drop(taken);
        self.seats.0.freed.notify_one();
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        *locked(&self.0.phase) = (ConnectionPhase::Idle, Instant::now());
    }
}

#[cfg(test)]
mod tests;
