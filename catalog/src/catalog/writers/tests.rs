use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

/// How many minutes files stay after `now`, in minutes since the first load.
fn minutes_left(loads: WriterLoads, now: i64) -> Option<i64> {
    let now_ms = NOW_MS + now * MINUTE_MS;
    stay_until(loads, now_ms).map(|until_ms| (until_ms - now_ms) / MINUTE_MS)
}

fn loads(last: i64, refreshed_ms: i64) -> WriterLoads {
    WriterLoads { since_ms: NOW_MS, loaded_ms: NOW_MS + last * MINUTE_MS, refreshed_ms }
}

#[test]
fn files_stay_for_a_while_after_a_load() {
    let reader = loads(0, 0);
    assert_eq!([0, 1, 2, 3].map(|now| minutes_left(reader, now)), [Some(2), Some(1), None, None]);
    let writer = loads(0, NOW_MS);
    let left = [0, 2, 14, 15].map(|now| minutes_left(writer, now));
    assert_eq!(left, [Some(15), Some(13), Some(1), None]);
    let long_ago = loads(0, NOW_MS - WRITER_KNOWN_MS);
    assert_eq!(minutes_left(long_ago, 2), None, "nobody knows any more");
}

#[test]
fn loads_without_end_leave_time_to_merge() {
    for (refreshed_ms, most) in [(0, 10), (NOW_MS, 60)] {
        for now in 0..300 {
            let left = minutes_left(loads(now, refreshed_ms), now);
            let is_open = most <= now % (most + OPEN_MS / MINUTE_MS);
            assert_eq!(left.is_none(), is_open, "{now} of {most}");
            assert!(left.is_none_or(|left| now % (most + 5) + left <= most), "{now} of {most}");
        }
    }
}

#[test]
fn files_stay_for_no_load_of_a_clock_that_is_far_ahead() {
    let ahead = loads(1, 0);
    assert_eq!(minutes_left(ahead, 0), Some(3), "another server's is a minute ahead");
    assert_eq!(minutes_left(loads(2, 0), 0), None);
    assert_eq!(minutes_left(loads(1_000_000, 0), 0), None);
}

#[test]
fn a_load_is_written_once_in_a_while_and_what_is_news_at_once() {
    let (noted, table) = (NotedWriters::default(), Uuid::from_u128(1));
    let claim = |at_ms, is_refresh| {
        let load = noted.claim(table, WriterLoad { at_ms, is_refresh });
        load.map(|load| load.is_refresh)
    };
    assert_eq!(claim(0, false), Some(false));
    assert_eq!(claim(NOTE_EVERY_MS - 1, false), None);
    let again_ms = NOTE_EVERY_MS - 1 + OPENING_MS;
    assert_eq!(claim(again_ms, true), Some(true), "it loads it again");
    assert_eq!([claim(again_ms + 1, true), claim(again_ms + 1, false)], [None, None]);
    assert_eq!(claim(again_ms + NOTE_EVERY_MS, false), Some(false));
    assert_eq!(claim(0, false), Some(false), "the clock was set back");
    noted.forget(table);
    assert_eq!(claim(0, true), Some(true));
}

#[test]
fn an_engine_that_loads_a_table_twice_to_open_it_is_no_writer() {
    let (noted, table) = (NotedWriters::default(), Uuid::from_u128(1));
    for statement in 0..100 {
        let at_ms = statement * NOTE_EVERY_MS;
        let opened = noted.claim(table, WriterLoad { at_ms, is_refresh: false });
        assert_eq!(opened, Some(WriterLoad { at_ms, is_refresh: false }));
        let at_ms = at_ms + 200;
        assert_eq!(noted.claim(table, WriterLoad { at_ms, is_refresh: true }), None);
    }
}
