use super::*;
use std::net::Ipv4Addr;

fn peer(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

fn take(seats: &ConnectionSeats, n: u8) -> ConnectionSeat {
    seats.try_take(peer(n)).expect("there is a seat")
}

/// The seat has been in its phase for longer than a new one is left alone.
fn grow_old(seat: &ConnectionSeat) {
    locked(&seat.state.phase).1 -= EVICT_AFTER * 2;
}

fn is_evicted(seat: &ConnectionSeat) -> bool {
    use futures::FutureExt;
    seat.evicted().now_or_never().is_some()
}

#[test]
fn who_only_starts_requests_gives_way_and_who_has_one_does_not() {
    let seats = ConnectionSeats::new(4);
    let [busy, idle, old, young] = [1, 2, 3, 4].map(|n| take(&seats, n));
    let _request = busy.request();
    drop(idle.request());
    for seat in [&busy, &idle, &old] {
        grow_old(seat);
    }
    let next = take(&seats, 5);
    assert_eq!(
        (next.lane(), is_evicted(&old), is_evicted(&idle)),
        (SeatLane::Ordinary, true, false)
    );
    let after = take(&seats, 6);
    assert_eq!((after.lane(), is_evicted(&idle)), (SeatLane::Ordinary, true));
    // The others are busy or have just come.
    let reserve = take(&seats, 7);
    assert_eq!(reserve.lane(), SeatLane::Reserve);
    assert!(!is_evicted(&busy) && !is_evicted(&young));
    drop((old, idle, reserve, next));
    assert_eq!(take(&seats, 8).lane(), SeatLane::Ordinary);
}

#[test]
fn one_address_has_a_share() {
    let seats = ConnectionSeats::new(8);
    let mut held: Vec<ConnectionSeat> = (0..6).map(|_| take(&seats, 1)).collect();
    let requests: Vec<RunningRequest> = held.iter().map(ConnectionSeat::request).collect();
    held.push(take(&seats, 1));
    assert_eq!(held[6].lane(), SeatLane::Reserve, "it has three quarters of the seats");
    assert_eq!(take(&seats, 2).lane(), SeatLane::Ordinary);
    drop(requests);
    held.iter().for_each(grow_old);
    let next = take(&seats, 1);
    assert_eq!(next.lane(), SeatLane::Ordinary);
    assert_eq!(held.iter().filter(|seat| is_evicted(seat)).count(), 1, "its own gives way");
}

#[test]
fn the_reserve_has_a_bound_too() {
    let seats = ConnectionSeats::new(1);
    let ordinary = take(&seats, 1);
    let _request = ordinary.request();
    let reserve: Vec<ConnectionSeat> = (0..RESERVE).map(|_| take(&seats, 2)).collect();
    assert!(reserve.iter().all(|seat| seat.lane() == SeatLane::Reserve));
    assert!(seats.try_take(peer(3)).is_none(), "all of them have just come");
    reserve.iter().for_each(grow_old);
    assert_eq!(take(&seats, 3).lane(), SeatLane::Reserve);
}

#[test]
fn what_takes_too_long_is_told() {
    let seats = ConnectionSeats::new(1);
    let seat = take(&seats, 1);
    assert_eq!(seat.overdue(), None);
    locked(&seat.state.phase).1 -= HEAD_TIME_MAX * 2;
    assert!(seat.overdue().unwrap().contains("head"));
    let request = seat.request();
    locked(&seat.state.phase).1 -= HEAD_TIME_MAX * 2;
    assert_eq!(seat.overdue(), None, "a request has a time of its own");
    seat.written(true);
    *locked(&seat.state.blocked) = Some(Instant::now() - WRITE_TIME_MAX * 2);
    seat.written(true);
    assert!(seat.overdue().unwrap().contains("not read"));
    seat.written(false);
    drop(request);
    assert_eq!(seat.overdue(), None);
    seat.received();
    locked(&seat.state.phase).1 -= HEAD_TIME_MAX * 2;
    assert!(seat.overdue().is_some(), "the next head has no more time than the first");
}

#[test]
fn who_goes_on_sending_after_the_last_answer_is_cut_off() {
    let seat = take(&ConnectionSeats::new(1), 1);
    assert!(seat.lingers());
    assert_eq!(seat.overdue(), None);
    locked(&seat.state.phase).1 -= LINGER_TIME_MAX * 2;
    assert!(seat.lingers());
    assert_eq!(seat.overdue(), Some("the client goes on after the last answer"));
    seat.stop();
    assert!(!seat.lingers(), "a server that ends waits for nobody");
}
