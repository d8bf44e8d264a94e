//! The default seccomp profile: system calls that a container has no business with fail with `EPERM`.
//!
//! Has the effect of the container engines' default profile (`RuntimeDefault`) for what their documentation lists as
//! blocked, tied to capabilities in the same way: a container that holds `CAP_SYS_TIME` may set the clock. A call the
//! kernel got after this table was written fails with `ENOSYS`, so that nothing new slips through. Written as BPF by hand:
//! forty instructions need no library. It never kills: refused calls return an error that programs report.

use std::io;

/// Bit number of capabilities used here.
mod capability {
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const SYS_MODULE: u32 = 16;
    pub const SYS_RAWIO: u32 = 17;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_PACCT: u32 = 20;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_BOOT: u32 = 22;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_TIME: u32 = 25;
    pub const SYS_TTY_CONFIG: u32 = 26;
    pub const SYSLOG: u32 = 34;
    pub const BPF: u32 = 39;
    pub const PERFMON: u32 = 38;
}

/// The last call known to this table (`file_setattr`); the numbers of newer calls are the same on every architecture.
const LAST_KNOWN: i64 = 469;
/// x86-64 programs may also call through the x32 table, whose numbers have this bit: refused as a whole.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;
/// `AUDIT_ARCH_*` of the architecture this is built for.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
/// Flags of `clone` that make namespaces.
const CLONE_NAMESPACES: u32 = 0x7E02_0000;

/// Calls refused unless the container holds one of the capabilities.
fn guarded() -> Vec<(&'static [u32], Vec<i64>)> {
    use capability::*;
    use libc::*;
    vec![
        (&[], vec![SYS_add_key, SYS_keyctl, SYS_request_key, SYS_kexec_load, SYS_kexec_file_load, SYS_userfaultfd]),
        (
            &[],
            vec![
                SYS_io_uring_setup,
                SYS_io_uring_enter,
                SYS_io_uring_register,
                SYS_nfsservctl,
                SYS_swapon,
                SYS_swapoff,
            ],
        ),
        (
            &[SYS_ADMIN],
            vec![SYS_mount, SYS_umount2, SYS_pivot_root, SYS_setns, SYS_unshare, SYS_quotactl, SYS_fanotify_init],
        ),
        (
            &[SYS_ADMIN],
            vec![SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_move_mount, SYS_open_tree, SYS_mount_setattr],
        ),
        (&[SYS_ADMIN], vec![SYS_sethostname, SYS_setdomainname, SYS_quotactl_fd, SYS_lookup_dcookie]),
        (&[SYS_ADMIN, BPF], vec![SYS_bpf]),
        (&[SYS_ADMIN, PERFMON], vec![SYS_perf_event_open]),
        (&[SYS_ADMIN, SYSLOG], vec![SYS_syslog]),
        (&[SYS_TTY_CONFIG], vec![SYS_vhangup]),
        (&[SYS_BOOT], vec![SYS_reboot]),
        (&[SYS_MODULE], vec![SYS_init_module, SYS_finit_module, SYS_delete_module]),
        (&[SYS_PACCT], vec![SYS_acct]),
        (
            &[SYS_PTRACE],
            vec![SYS_kcmp, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_process_madvise],
        ),
        (&[SYS_NICE], vec![SYS_mbind, SYS_get_mempolicy, SYS_set_mempolicy, SYS_move_pages, SYS_migrate_pages]),
        (&[SYS_TIME], vec![SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex]),
        (&[DAC_READ_SEARCH], vec![SYS_open_by_handle_at]),
        #[cfg(target_arch = "x86_64")]
        (&[SYS_RAWIO], vec![SYS_iopl, SYS_ioperm]),
        #[cfg(target_arch = "x86_64")]
        (&[], vec![SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl]),
    ]
}

/// One BPF instruction (`struct sock_filter`).
type Instruction = libc::sock_filter;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
#[cfg(target_arch = "x86_64")]
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7FFF_0000;
const ERRNO: u32 = 0x0005_0000;
/// Offsets within `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

fn instruction(code: u16, k: u32, then: u8, other: u8) -> Instruction {
    Instruction { code, jt: then, jf: other, k }
}

fn refuse(errno: i32) -> Instruction {
    instruction(RETURN, ERRNO | errno as u32, 0, 0)
}

/// The filter for a container that holds `capabilities` (bit mask).
fn program(capabilities: u64) -> Vec<Instruction> {
    let holds = |needed: &[u32]| needed.iter().any(|bit| capabilities & (1 << bit) != 0);
    let mut program = vec![
        instruction(LOAD, ARCH, 0, 0),
        instruction(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        refuse(libc::ENOSYS),
        instruction(LOAD, NUMBER, 0, 0),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([instruction(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1), refuse(libc::ENOSYS)]);
    program.extend([instruction(JUMP_GREATER, LAST_KNOWN as u32, 0, 1), refuse(libc::ENOSYS)]);
    for (needed, calls) in guarded() {
        if !holds(needed) {
            for call in calls {
                program.extend([instruction(JUMP_EQUAL, call as u32, 0, 1), refuse(libc::EPERM)]);
            }
        }
    }
    if !holds(&[capability::SYS_ADMIN]) {
        // clone3's flags lie in memory, out of a filter's sight; libraries fall back to clone on ENOSYS.
        program.extend([instruction(JUMP_EQUAL, libc::SYS_clone3 as u32, 0, 1), refuse(libc::ENOSYS)]);
        program.extend([
            instruction(JUMP_EQUAL, libc::SYS_clone as u32, 0, 3),
            instruction(LOAD, FIRST_ARGUMENT, 0, 0),
            instruction(JUMP_ANY_BIT, CLONE_NAMESPACES, 0, 1),
            refuse(libc::EPERM),
        ]);
    }
    program.push(instruction(RETURN, ALLOW, 0, 0));
    program
}

/// Binds the calling thread and what it executes to the profile. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
#[expect(unsafe_code, reason = "the kernel takes the filter by pointer")]
pub fn apply(capabilities: u64) -> io::Result<()> {
    let mut program = program(capabilities);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the instructions it points to live until the call returns; the kernel copies them.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter as *const libc::sock_fprog) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BPF machine as small as the filter needs.
    fn run(program: &[Instruction], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let i = program[at];
            let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            at += 1;
            match i.code {
                LOAD => a = [number, arch, 0, 0, argument][i.k as usize / 4],
                JUMP_EQUAL => at += jump(a == i.k),
                JUMP_GREATER => at += jump(a > i.k),
                JUMP_GREATER_OR_EQUAL => at += jump(a >= i.k),
                JUMP_ANY_BIT => at += jump(a & i.k != 0),
                RETURN => return i.k,
                other => panic!("{other}"),
            }
        }
    }

    fn verdict(capabilities: u64, call: i64, argument: u32) -> u32 {
        run(&program(capabilities), ARCHITECTURE, call as u32, argument)
    }

    #[test]
    fn calls_are_allowed_and_refused() {
        let (eperm, enosys) = (ERRNO | libc::EPERM as u32, ERRNO | libc::ENOSYS as u32);
        assert_eq!(verdict(0, libc::SYS_openat, 0), ALLOW);
        assert_eq!(verdict(0, libc::SYS_mount, 0), eperm);
        assert_eq!(verdict(1 << capability::SYS_ADMIN, libc::SYS_mount, 0), ALLOW);
        assert_eq!(verdict(u64::MAX, libc::SYS_keyctl, 0), eperm);
        assert_eq!(verdict(0, libc::SYS_clone, libc::SIGCHLD as u32), ALLOW);
        assert_eq!(verdict(0, libc::SYS_clone, libc::CLONE_NEWUSER as u32), eperm);
        assert_eq!(verdict(0, libc::SYS_clone3, 0), enosys);
        assert_eq!(verdict(0, LAST_KNOWN + 1, 0), enosys);
        assert_eq!(verdict(u64::MAX, libc::SYS_openat | 0x4000_0000, 0), enosys);
        assert_eq!(run(&program(0), 0x4000_0003, 1, 0), enosys, "another architecture's table");
    }

    #[test]
    fn what_the_shim_does_after_applying_it_is_allowed() {
        for call in [libc::SYS_setgroups, libc::SYS_setresuid, libc::SYS_capset, libc::SYS_prctl, libc::SYS_execve] {
            assert_eq!(verdict(0, call, 0), ALLOW);
        }
    }
}
