//! How a worker gives up what it does not need, before it reads its first byte.
//!
//! It keeps its memory up to a bound, the folder for what does not fit into it, and the pipes that it was
//! started with. Its one invariant: nothing here is ever given back, and a part that this system lacks is
//! named and leaves out no other.

#[cfg(target_os = "linux")]
mod linux;

use rlimit::Resource;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a worker may take of the machine.
#[derive(Clone, Debug)]
pub struct WorkerLimits {
    /// Memory that its query may use.
    pub memory_bytes_max: u64,
    /// The folder for what does not fit, if there is one.
    pub spill: Option<PathBuf>,
    /// Most bytes in it.
    pub spill_bytes_max: u64,
}

/// How a worker is locked in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockReport {
    /// What this system does not enforce, and why; nothing where all of it is.
    pub missing: Vec<String>,
}

/// What a process takes beside the memory of its query: stacks, of which the system counts every byte
/// whether it is used or not, caches of file metadata, and what the allocator keeps.
const OVERHEAD_BYTES: u64 = 1 << 30;

/// What a file may be longer than all of them together: the engine notices its own bound after a write, and
/// this one ends the process.
const FILE_SLACK_BYTES: u64 = 256 << 20;

/// Locks this process in for good. It has one thread at this moment: some of the parts hold for the calling
/// thread and those that it starts later.
#[must_use]
pub fn restrict(limits: &WorkerLimits) -> LockReport {
    let mut missing = Vec::new();
    let mut note = |what: &str, done: Result<(), String>| {
        if let Err(cause) = done {
            missing.push(format!("{what}: {cause}"));
        }
    };
    let bound = |resource: Resource, bytes: u64| {
        resource.set(bytes, bytes).map_err(|cause| cause.to_string())
    };
    note("bound of core dumps", bound(Resource::CORE, 0));
    let file = match limits.spill_bytes_max {
        0 => 0,
        bytes => bytes.saturating_add(FILE_SLACK_BYTES),
    };
    note("bound of file sizes", bound(Resource::FSIZE, file));
    let memory = limits.memory_bytes_max.saturating_add(OVERHEAD_BYTES);
    #[cfg(target_os = "linux")]
    {
        // Bounds of several workers may be more than the machine has: then one of them ends, and not the server.
        // Where the system does not take it, its own choice is most often the same.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let memory = memory.saturating_add(linux::memory_now());
        note("bound of memory", bound(Resource::DATA, memory));
        note("Landlock", linux::restrict_files(limits.spill.as_deref()));
        note("seccomp", linux::restrict_calls().map_err(|cause| cause.to_string()));
    }
    #[cfg(not(target_os = "linux"))]
    {
        note("bound of memory", bound(Resource::DATA, memory));
        note("Landlock and seccomp", Err("they are parts of Linux".to_owned()));
    }
    LockReport { missing }
}
