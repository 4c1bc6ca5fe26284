//! A statement whose answer a terminal shows: what it says while it runs, and how a person ends it.

use crate::cli::{
    CliError,
    client::ServerClient,
    remark, say,
    sql::{
        SqlCommand,
        answer::AnswerReader,
        box_table,
        rows::{ROWS_LISTED_MAX, ROWS_SHOWN_MAX, RowReader, ShownRows},
    },
};
use std::{
    io::{IsTerminal, Write},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// When a statement that still runs says so, and how often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How wide a terminal is that does not say it.
const WIDTH_DEFAULT: usize = 80;

/// How the rows of an answer are shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScreenStyle {
    /// A block of lines for each row, in place of a table.
    pub(super) is_expanded: bool,
    /// Without the time that a statement took.
    pub(super) hides_time: bool,
    /// With the rows in the middle.
    pub(super) is_list: bool,
}

/// How wide the terminal on stdout is; none if there is none.
pub(super) fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
    Some(if columns == 0 { WIDTH_DEFAULT } else { usize::from(columns) })
}

/// Runs a statement and shows its rows on a terminal of that width.
///
/// # Errors
/// [`CliError::Client`], [`CliError::Arrow`], [`CliError::Io`].
pub(super) async fn show(
    client: &ServerClient,
    command: &SqlCommand,
    sql: &str,
    style: ScreenStyle,
    width: usize,
) -> Result<(), CliError> {
    let started = Instant::now();
    let ends = if style.is_list { ROWS_LISTED_MAX } else { ROWS_SHOWN_MAX };
    let rows = read(client, command, sql, ends).await?;
    let time = (!style.hides_time).then(|| started.elapsed());
    say(&match style.is_expanded {
        true => box_table::expanded(&rows, width, time),
        false => box_table::table(&rows, width, time),
    })
}

/// What `work` gives, or none when Ctrl-C came before. The work is then dropped, which closes its
/// connection, and the server ends the query.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    let interrupted = async {
        // Where signals cannot be watched, Ctrl-C ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    // Only one of the two is wanted, so neither is polled again.
    tokio::select! {
        done = work => Some(done),
        () = interrupted => {
            remark("cancelled");
            None
        }
    }
}

async fn read(
    client: &ServerClient,
    command: &SqlCommand,
    sql: &str,
    ends: usize,
) -> Result<ShownRows, CliError> {
    let count = AtomicUsize::new(0);
    let reading = async {
        let accept = command.format().accept();
        let as_of = command.as_of.as_deref();
        let mut answer = AnswerReader::open(client, &command.ns, sql, as_of, accept).await?;
        let mut rows = RowReader::new(ends);
        while let Some(bytes) = answer.next().await? {
            rows.push(bytes)?;
            count.store(rows.count(), Ordering::Relaxed);
        }
        rows.finish()
    };
    let mut reading = Box::pin(reading);
    let started = Instant::now();
    let mut progress = ProgressLine::new();
    let mut ticks = tokio::time::interval_at(started + PROGRESS_EVERY, PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        // Reading goes on where it stood, as it is polled in place; a tick that is lost is one line less.
        tokio::select! {
            rows = &mut reading => return rows,
            _ = ticks.tick() => progress.show(started.elapsed(), count.load(Ordering::Relaxed)),
        }
    }
}

/// A line on stderr that is written over, and gone when this is dropped.
struct ProgressLine {
    is_terminal: bool,
    is_shown: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), is_shown: false }
    }

    fn show(&mut self, elapsed: Duration, rows: usize) {
        if !self.is_terminal {
            return;
        }
        self.is_shown = true;
        // There is nowhere left to report that stderr is closed.
        let _ = write!(
            std::io::stderr(),
            "\r{} s, {rows} rows; Ctrl-C cancels\x1b[K",
            elapsed.as_secs()
        );
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_shown {
            // As above.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
