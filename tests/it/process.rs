//! A server as a process of its own, which may be ended at any moment and started again.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::oneshot;

/// Lines of its log that are shown when a process does not start.
const LOG_LINES_MAX: usize = 20;

/// A running `icecore serve`; it is ended with `kill -9` when it goes out of scope.
pub(crate) struct Process {
    pub(crate) url: String,
    arguments: Vec<String>,
    child: Child,
    /// Ends with the process, with what it logged.
    reader: Option<JoinHandle<Vec<String>>>,
}

impl Process {
    /// Starts a server on a free port and waits until it listens.
    pub(crate) async fn start(settings: &[(&str, String)]) -> Self {
        let arguments = serve(settings);
        let (child, url, reader) = spawn(command(), &arguments).await;
        Self { url, arguments, child, reader }
    }

    /// As [`Process::start`], by a shell that runs `before` first.
    pub(crate) async fn start_after(before: &str, settings: &[(&str, String)]) -> Self {
        let arguments = serve(settings);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before} && exec \"$0\" \"$@\"")]).arg(binary());
        let (child, url, reader) = spawn(plain(shell), &arguments).await;
        Self { url, arguments, child, reader }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most files that it may have open now.
    pub(crate) fn open_files_max(&self) -> u64 {
        open_files_max(&self.child.id().to_string()).0
    }

    /// `kill -9`, and a new process with the same settings.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.kill();
        (self.child, self.url, self.reader) = spawn(command(), &self.arguments).await;
    }

    /// SIGTERM; whether it then ends well within `patience`.
    pub(crate) async fn terminate(&mut self, patience: Duration) -> bool {
        let told = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(told.unwrap().success());
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        let ended = async {
            loop {
                looks.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    break status;
                }
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok_and(|status| status.success())
    }

    /// The CPU time that it has taken so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // What follows the name, which may have spaces: user and system time in hundredths.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    /// The lines that it logged until its end, which is now if it did not come before.
    pub(crate) fn log(mut self) -> Vec<String> {
        self.kill();
        self.reader.take().unwrap().join().unwrap()
    }

    /// `kill -9`; nothing of it goes on.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a call to a server of its own on `folder`, which ends in it at this failpoint.
pub(crate) async fn post_and_die(folder: &Path, failpoint: &str, path: &str, body: String) {
    let answer = post_until_death(folder, failpoint, path, body).await;
    assert!(answer.is_err(), "{failpoint}: {answer:?}");
}

/// The same on a server with more settings, and without a body.
pub(crate) async fn post_and_die_with(
    folder: &Path,
    failpoint: &str,
    path: &str,
    more: &[(&str, &str)],
) {
    let call = (reqwest::Method::POST, path);
    let answer = die_in(folder, failpoint, call, String::new(), more).await;
    assert!(answer.is_err(), "{failpoint}: {answer:?}");
}

/// As [`post_and_die`], where the answer may come before.
pub(crate) async fn post_until_death(
    folder: &Path,
    failpoint: &str,
    path: &str,
    body: String,
) -> reqwest::Result<reqwest::Response> {
    call_until_death(folder, failpoint, (reqwest::Method::POST, path), body).await
}

/// The same with any method.
pub(crate) async fn call_until_death(
    folder: &Path,
    failpoint: &str,
    call: (reqwest::Method, &str),
    body: String,
) -> reqwest::Result<reqwest::Response> {
    die_in(folder, failpoint, call, body, &[]).await
}

async fn die_in(
    folder: &Path,
    failpoint: &str,
    (method, path): (reqwest::Method, &str),
    body: String,
    more: &[(&str, &str)],
) -> reqwest::Result<reqwest::Response> {
    let small = [("wal.segment_bytes", "1MiB"), ("commit.interval", "10min")];
    let alone = [("compaction.enabled", "off"), ("failpoints", failpoint)];
    let folder = [("data_dir", folder.to_str().unwrap())];
    let settings: Vec<(&str, String)> = [&small[..], &alone, &folder, more]
        .concat()
        .into_iter()
        .map(|(key, value)| (key, value.to_owned()))
        .collect();
    let mut server = Process::start(&settings).await;
    let path = format!("{}{path}", server.url);
    let answer = reqwest::Client::new().request(method, path).body(body).send().await;
    assert!(!server.child.wait().unwrap().success());
    answer
}

/// The binary to test: `ICECORE_BIN`, else the one that belongs to these tests.
pub(crate) fn binary() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_icecore").into();
    std::env::var_os("ICECORE_BIN").map_or_else(built, PathBuf::from)
}

/// What starts a server.
fn serve(settings: &[(&str, String)]) -> Vec<String> {
    // No table appears because a test takes long, unless it asks for that.
    let seldom = [("collections.refresh_interval", "24h".to_owned())];
    let more = [("listen", "127.0.0.1:0".to_owned()), ("wal.disk_free_min", "0".to_owned())];
    let settings = flags(&[&seldom[..], settings, &more].concat());
    std::iter::once("serve".to_owned()).chain(settings).collect()
}

/// The most files that a process may have open, and the most that it may let itself have.
pub(crate) fn open_files_max(process: &str) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    // An unlimited one is no number.
    let mut most = line.split_whitespace().skip(3).map(|word| word.parse().unwrap_or(u64::MAX));
    (most.next().unwrap(), most.next().unwrap())
}

/// Settings as a command line has them.
fn flags(settings: &[(&str, String)]) -> Vec<String> {
    let pairs =
        settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
    pairs.collect()
}

/// The binary, without what the environment of the tests would set.
pub(crate) fn command() -> Command {
    plain(Command::new(binary()))
}

/// As [`command`], for a user whom the modes of files bind: they bind root without two of its rights.
/// None where root cannot give them up, as in a container without `CAP_SETPCAP`.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is told")]
pub(crate) fn bound_command() -> Option<Command> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o500)).unwrap();
    if fs::write(folder.path().join("probe"), "").is_err() {
        return Some(command());
    }
    let bound = || {
        let mut bound = Command::new("setpriv");
        bound.arg("--bounding-set=-dac_override,-dac_read_search");
        bound
    };
    let probe = bound().arg("touch").arg(folder.path().join("another")).output();
    // What `touch` exits with when it may not.
    if probe.is_ok_and(|probe| probe.status.code() == Some(1)) {
        let mut bound = bound();
        bound.arg(binary());
        return Some(plain(bound));
    }
    eprintln!("not tested: root cannot give up its rights here (`setpriv --bounding-set`)");
    None
}

fn plain(mut command: Command) -> Command {
    // It takes every such variable for a setting.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ICECORE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end with `input` on stdin.
pub(crate) fn run(arguments: &[&str], settings: &[(&str, String)], input: &[u8]) -> Output {
    run_with(command(), arguments, settings, input)
}

/// As [`run`], with what starts the binary.
pub(crate) fn run_with(
    mut command: Command,
    arguments: &[&str],
    settings: &[(&str, String)],
    input: &[u8],
) -> Output {
    command.args(arguments).args(flags(settings)).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that ends early closes its end.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

async fn spawn(
    mut command: Command,
    arguments: &[String],
) -> (Child, String, Option<JoinHandle<Vec<String>>>) {
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = child.stderr.take().unwrap();
    let (say, hear) = oneshot::channel();
    let reader = thread::spawn(move || read_log(log, say));
    match hear.await.unwrap() {
        Ok(url) => (child, url, Some(reader)),
        Err(log) => panic!("the server ended before it listened:\n{log}"),
    }
}

/// Says where the server listens, or what its log ended with when it does not; reads on until the
/// server ends, which would wait for a reader otherwise.
fn read_log(log: ChildStderr, say: oneshot::Sender<Result<String, String>>) -> Vec<String> {
    let (mut say, mut all) = (Some(say), Vec::new());
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        if line.contains("listening on")
            && let Some(found) = line.find("http://")
            && let Some(say) = say.take()
        {
            let is_url = |c: &char| c.is_ascii_alphanumeric() || ":/.".contains(*c);
            // Who started the process may be gone.
            let _heard = say.send(Ok(line[found..].chars().take_while(is_url).collect()));
        }
        all.push(line);
    }
    if let Some(say) = say {
        let last = &all[all.len().saturating_sub(LOG_LINES_MAX)..];
        // As above.
        let _heard = say.send(Err(last.join("\n")));
    }
    all
}
