//! Landlock for files and the network, and a list of system calls that fail.
//!
//! A list of what is denied, not of what is allowed: the allocator, the runtime and the C library make
//! other calls with each version, and one that is missing in a list would end queries. What a worker could
//! reach with a call that is in neither list, Landlock and the user's rights deny.

use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::{collections::BTreeMap, path::Path};

/// What Landlock is asked for; an older kernel enforces what it knows of it.
const LANDLOCK: ABI = ABI::V6;
/// What a worker may do in its folder.
const IN_SPILL: ABI = ABI::V3;

/// Calls that fail, whatever their arguments.
const DENIED: &[i64] = &[
    // other programs and processes
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // the network, and descriptors from others
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // files beside those that Landlock knows of: their rights, owners and times
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_truncate,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_inotify_init1,
    libc::SYS_fanotify_init,
    // ways around a list of calls
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    // memory that others see
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_memfd_create,
    // rights, keys and names
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    // the system
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Calls that older processors have as well.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_mknod,
    libc::SYS_setrlimit,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
/// Those of other processors have one number on all of them.
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[SETRLIMIT];

/// Without a name in every C library.
const FCHMODAT2: i64 = 452;
/// As above.
#[cfg(not(target_arch = "x86_64"))]
const SETRLIMIT: i64 = 164;

/// With this bit a number on `x86_64` means the same call of another table.
#[cfg(target_arch = "x86_64")]
const X32_BIT: i64 = 0x4000_0000;
/// Numbers that only that table has.
#[cfg(target_arch = "x86_64")]
const X32_NUMBERS: std::ops::RangeInclusive<i64> = 512..=547;

/// The memory that this process has already, as its bound counts it; 0 where that is not known.
pub(super) fn memory_now() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Leaves this process no path but `spill`, no network, and no signal to others.
///
/// # Errors
/// What is in the way.
pub(super) fn restrict_files(spill: Option<&Path>) -> Result<(), String> {
    let restricted = || -> Result<RestrictionStatus, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rules(path_beneath_rules(spill, AccessFs::from_all(IN_SPILL)))?
            .restrict_self()
    };
    let status = restricted().map_err(|cause| cause.to_string())?;
    all_of(&status.ruleset)
}

/// An older kernel denies paths, and perhaps neither the network nor signals. The list of calls denies these as
/// well, so queries run; the operator is told that one of the two bounds is not there.
fn all_of(status: &RulesetStatus) -> Result<(), String> {
    match status {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => {
            Err("this kernel has a part of it; Linux 6.12 has all".to_owned())
        }
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
    }
}

/// Has the calls of the lists fail from now on.
///
/// # Errors
/// What is in the way.
pub(super) fn restrict_calls() -> Result<(), seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = errno(libc::EPERM);
    let program = program(rules()?, denied, arch)?;
    // Its flags are in memory, where a filter does not look: without it the C library starts threads with
    // the older call, whose flags a filter sees.
    let newer = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let unknown = self::program(newer, errno(libc::ENOSYS), arch)?;
    seccompiler::apply_filter(&unknown)?;
    seccompiler::apply_filter(&program)
}

fn errno(code: i32) -> SeccompAction {
    SeccompAction::Errno(code.unsigned_abs())
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    denied: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::Error> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// The calls that fail, with the arguments at which they do; none for always.
fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    let own = u64::from(std::process::id());
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let (equal, other) = (SeccompCmpOp::MaskedEq, SeccompCmpOp::Ne);
    let cases = [
        // A new process, and no thread of this one.
        (libc::SYS_clone, 0, equal(thread), 0),
        // Signals to others. A process that aborts sends itself one.
        (libc::SYS_kill, 0, other.clone(), own),
        (libc::SYS_tgkill, 0, other.clone(), own),
        // New bounds. Who only asks for them gives none.
        (libc::SYS_prlimit64, 2, other, 0),
    ];
    for (call, argument, operator, value) in cases {
        // Numbers have 32 bits, and addresses all of them.
        let length = if call == libc::SYS_prlimit64 {
            SeccompCmpArgLen::Qword
        } else {
            SeccompCmpArgLen::Dword
        };
        let condition = SeccompCondition::new(argument, length, operator, value)?;
        rules.insert(call, vec![SeccompRule::new(vec![condition])?]);
    }
    #[cfg(target_arch = "x86_64")]
    {
        let calls: Vec<i64> = rules.keys().copied().collect();
        let numbers = calls.into_iter().chain([libc::SYS_clone3]).chain(X32_NUMBERS);
        rules.extend(numbers.map(|call| (call | X32_BIT, Vec::new())));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::{RulesetStatus, all_of};

    #[test]
    fn a_part_of_landlock_is_not_all_of_it() {
        assert_eq!(all_of(&RulesetStatus::FullyEnforced), Ok(()));
        let part = all_of(&RulesetStatus::PartiallyEnforced).unwrap_err();
        assert!(part.contains("Linux 6.12"), "{part}");
        assert!(all_of(&RulesetStatus::NotEnforced).is_err());
    }
}
