//! One worker as the server has it: a child with two pipes, killed when it is let go.

use crate::sql::{
    worker::lock::LockReport,
    workers::{
        WorkerOptions,
        frames::{self, FromWorker, ToWorker, WorkerStart},
    },
};
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use icecore_engine::error::SqlError;
use icecore_schemas::{columns::EVENTS, service_table::SERVICE_TABLES};
use std::{
    fs::DirBuilder,
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixStream as Pair, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    runtime::Handle,
    task::JoinHandle,
};

/// Bytes that are read from a worker at once.
const READ_BYTES: usize = 256 << 10;
/// What a worker may write into the server's log in its life.
const LOGGED_BYTES_MAX: usize = 64 << 10;
/// Of that, what is looked at when it ended.
const LAST_WORDS_BYTES: usize = 4 << 10;
/// How long an end is waited for that has begun, and how often it is looked for.
const END_PATIENCE: Duration = Duration::from_secs(1);
const END_LOOK: Duration = Duration::from_millis(5);
/// What a worker's allocator is told. It takes memory as it is needed, so that the bound is one of what is used.
/// Operators free and take large pieces all the time, and a page that was given back costs more than what is computed
/// in it. So what is freed stays for 100 ms, the largest pieces for a second, and then until the system is short of
/// memory.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MIMALLOC_ARENA_EAGER_COMMIT", "0"),
    ("MIMALLOC_PURGE_DELAY", "100"),
    ("MIMALLOC_PURGE_DECOMMITS", "0"),
];
/// The signal of a process that was killed from outside.
const SIGKILL: i32 = 9;
/// What the program says when the allocator has no more.
const NO_MEMORY: &str = "memory allocation of ";

type FrameStream = BoxStream<'static, io::Result<(FromWorker, Bytes)>>;

/// A worker that runs.
pub(super) struct WorkerProcess {
    child: Child,
    frames: FrameStream,
    output: OwnedWriteHalf,
    /// What it wrote to stderr last, once it ended.
    last_words: JoinHandle<String>,
    spill: Option<PathBuf>,
    /// How it is locked in, once it said so.
    lock: Option<LockReport>,
    /// How many queries it had.
    pub(super) queries: usize,
}

impl std::fmt::Debug for WorkerProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerProcess").field("id", &self.child.id()).finish_non_exhaustive()
    }
}

impl WorkerProcess {
    /// Starts one, the `number`th; it is ready when it is asked the first time. The thread is one of the
    /// runtime that uses it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn start(options: &WorkerOptions, root: &str, number: u64) -> io::Result<Self> {
        let (mut ours, theirs) = Pair::pair()?;
        let (errors, their_errors) = Pair::pair()?;
        let spill = match &options.spill {
            Some(folder) => {
                // The worker has another folder of its own.
                let folder = std::path::absolute(folder.join(number.to_string()))?;
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                Some(folder)
            }
            None => None,
        };
        let mut command = Command::new(&options.program);
        command.arg("sql-worker");
        command.arg(format!("--memory-bytes-max={}", options.memory_bytes_max));
        command.arg(format!("--spill-bytes-max={}", options.spill_bytes_max));
        if let Some(folder) = &spill {
            command.arg("--spill").arg(folder);
        }
        // No key of the server is in its environment.
        command.env_clear().envs(ALLOCATOR).current_dir("/");
        // Ctrl-C is the server's, which lets its queries end.
        command.process_group(0);
        command.stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)));
        command.stdout(Stdio::from(OwnedFd::from(theirs)));
        command.stderr(Stdio::from(OwnedFd::from(their_errors)));
        let child = command.spawn()?;
        // With it go our copies of its ends: the pipes end with the process.
        drop(command);
        let mut guard = ChildGuard { child: Some(child) };
        frames::write_frame(&mut ours, &ToWorker::Open(beginning(options, root)), &[])?;
        ours.set_nonblocking(true)?;
        errors.set_nonblocking(true)?;
        let (input, output) = UnixStream::from_std(ours)?.into_split();
        let errors = UnixStream::from_std(errors)?;
        let child = guard.child.take().ok_or_else(|| io::Error::other("it has started"))?;
        let last_words = Handle::current().spawn(pass_on(child.id(), errors));
        let input = BufReader::with_capacity(READ_BYTES, input);
        // A frame that is half read stays so when whoever waits for it looks elsewhere meanwhile.
        let frames = stream::unfold(input, |mut input| async move {
            let frame = frames::receive_frame::<FromWorker>(&mut input).await.transpose()?;
            Some((frame, input))
        });
        let frames = frames.fuse().boxed();
        Ok(Self { child, frames, output, last_words, spill, lock: None, queries: 0 })
    }

    /// What it says next.
    ///
    /// # Errors
    /// [`SqlError`] says how it ended.
    pub(super) async fn hear(&mut self) -> Result<(FromWorker, Bytes), SqlError> {
        match self.frames.next().await {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(cause)) => {
                let text = "a worker says what workers do not say";
                tracing::error!(error = &cause as &dyn std::error::Error, "{text}");
                Err(self.end().await)
            }
            None => Err(self.end().await),
        }
    }

    /// Tells it something.
    ///
    /// # Errors
    /// [`SqlError`] says how it ended.
    pub(super) async fn tell(&mut self, said: &ToWorker, body: &[u8]) -> Result<(), SqlError> {
        match frames::send_frame(&mut self.output, said, body).await {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(error = &cause as &dyn std::error::Error, "it cannot be sent");
                let text =
                    "the query, or what it reads, does not fit into one message to its worker";
                Err(SqlError::Internal(text.to_owned()))
            }
            Err(_) => Err(self.end().await),
        }
    }

    /// How it is locked in, which is the first that it says.
    ///
    /// # Errors
    /// [`SqlError`] says how it ended.
    pub(super) async fn lock(&mut self) -> Result<LockReport, SqlError> {
        if let Some(lock) = &self.lock {
            return Ok(lock.clone());
        }
        match self.hear().await? {
            (FromWorker::Hello(lock), _) => Ok(self.lock.insert(lock).clone()),
            _ => Err(SqlError::Internal("a worker does not say how it is locked in".to_owned())),
        }
    }

    /// Its folder for what does not fit into memory.
    pub(super) fn spill(&self) -> Option<&Path> {
        self.spill.as_deref()
    }

    /// Whether it ended by itself, or was ended from outside.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, as the query's sender is told. One that has not ended is killed.
    async fn end(&mut self) -> SqlError {
        let status = self.status().await;
        let last_words = tokio::time::timeout(END_PATIENCE, &mut self.last_words).await;
        let last_words = last_words.ok().and_then(Result::ok).unwrap_or_default();
        let status = status.map_or_else(|| "killed by the server".to_owned(), |it| it.to_string());
        tracing::warn!(worker = self.child.id(), status, "the worker of a query ended");
        of_end(&status, &last_words)
    }

    async fn status(&mut self) -> Option<ExitStatus> {
        let mut waited = Duration::ZERO;
        while waited < END_PATIENCE {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => tokio::time::sleep(END_LOOK).await,
                Err(_) => return None,
            }
            waited += END_LOOK;
        }
        None
    }
}

/// What the sender of a query is told whose worker ended so.
fn of_end(status: &str, last_words: &str) -> SqlError {
    if last_words.contains(NO_MEMORY) {
        return SqlError::Limit(
            "the query needs more memory than its worker may take (sql.memory_bytes_max); select fewer columns or rows".to_owned(),
        );
    }
    if status.contains(&format!("signal: {SIGKILL}")) {
        return SqlError::Limit(
            "the worker of the query was killed, as a rule because this machine has no memory left; lower sql.memory_bytes_max, or select fewer columns or rows".to_owned(),
        );
    }
    SqlError::Internal(format!(
        "the worker of the query ended ({status}); the server and other queries go on"
    ))
}

/// A child that is killed where its start does not come to its end.
struct ChildGuard {
    child: Option<Child>,
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            kill(child);
        }
    }
}

impl Drop for WorkerProcess {
    /// Returns when the process is gone, which takes some milliseconds: what it held is free then.
    fn drop(&mut self) {
        kill(&mut self.child);
        if let Some(folder) = &self.spill
            && let Err(cause) = std::fs::remove_dir_all(folder)
        {
            let folder = folder.display();
            tracing::warn!(error = &cause as &dyn std::error::Error, %folder, "a folder of a worker stays");
        }
    }
}

fn kill(child: &mut Child) {
    let ended = child.kill().and_then(|()| child.wait());
    if let Err(cause) = ended {
        tracing::warn!(error = &cause as &dyn std::error::Error, "a worker cannot be killed");
    }
}

/// What a worker has to know before its first query.
fn beginning(options: &WorkerOptions, root: &str) -> WorkerStart {
    let tables = &options.tables;
    let trial = tables.iter().nth(SERVICE_TABLES.len());
    WorkerStart {
        root: root.to_owned(),
        memory_bytes_max: options.memory_bytes_max,
        trial_columns: tables.events().columns.len().saturating_sub(EVENTS.len()),
        trial_table: trial.map_or(0, |table| table.columns.len()),
    }
}

/// Passes what a worker writes to stderr on to the log, up to a bound; the end of it is kept.
async fn pass_on(worker: u32, mut errors: UnixStream) -> String {
    let (mut logged, mut kept) = (0, String::new());
    let mut bytes = vec![0; LAST_WORDS_BYTES];
    loop {
        let length = match errors.read(&mut bytes).await {
            Ok(0) | Err(_) => return kept,
            Ok(length) => length,
        };
        let text = String::from_utf8_lossy(&bytes[..length]);
        if logged < LOGGED_BYTES_MAX {
            text.lines().for_each(|line| tracing::warn!(worker, "{line}"));
        }
        logged += length;
        kept.push_str(&text);
        let cut = kept.len().saturating_sub(LAST_WORDS_BYTES);
        let cut = (cut..=kept.len()).find(|at| kept.is_char_boundary(*at)).unwrap_or(0);
        kept.drain(..cut);
    }
}

#[cfg(test)]
mod tests {
    use super::of_end;
    use icecore_engine::error::SqlError;

    #[test]
    fn an_end_says_whether_memory_was_why() {
        let of = |status: &str, words: &str| of_end(status, words);
        let aborted = "signal: 6 (SIGABRT)";
        let no_memory = of(aborted, "memory allocation of 9999 bytes failed\n");
        assert!(
            matches!(no_memory, SqlError::Limit(text) if text.contains("sql.memory_bytes_max"))
        );
        assert!(matches!(of("signal: 9 (SIGKILL)", ""), SqlError::Limit(_)));
        let other = of(aborted, "thread 'sql' has overflowed its stack");
        assert!(matches!(other, SqlError::Internal(text) if text.contains(aborted)));
        assert!(matches!(of("exit status: 1", ""), SqlError::Internal(_)));
    }
}
