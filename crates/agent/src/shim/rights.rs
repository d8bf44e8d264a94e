//! What a process may do: capabilities, `no_new_privs`, seccomp, user and groups; taken away in the one order that works.
//!
//! The bounding set first, while it can be changed; seccomp while it may be applied without `no_new_privs`; then the ids,
//! and last what uid 0 keeps. Ambient and inheritable sets stay empty, as the engines leave them. What is asked for and
//! cannot be had here is an error, never skipped.

use super::{seccomp, wire::Failure, wire::Process};
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fs;

/// Reduces the calling process to what `process` may do.
pub fn keep(process: &Process) -> Result<(), Failure> {
    let start = |what: &str, e: &dyn std::fmt::Display| Failure::Start(format!("{what}: {e}"));
    let kept = CapabilitySet::from_bits_retain(process.capabilities);
    for bit in 0..=last_capability() {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(capability) {
            rustix::thread::remove_capability_from_bounding_set(capability)
                .map_err(|e| start("cannot drop a capability", &e))?;
        }
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|e| start("no_new_privs", &e))?;
    }
    if process.seccomp {
        seccomp::apply(process.capabilities).map_err(|e| start("cannot apply the seccomp profile", &e))?;
    }
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match setgroups(&groups) {
        // A user namespace of one user forbids it; there the groups mean nothing.
        Err(Errno::EPERM) if groups.is_empty() => {}
        Err(e) => {
            return Err(Failure::Config(format!("supplementary groups {:?} cannot be set here: {e}", process.groups)));
        }
        Ok(()) => {}
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    let denied = |what: &str, id: u32, e: Errno| {
        Failure::Config(format!(
            "cannot run as {what} {id}: {e} (in a user namespace, only mapped ids exist: run the node as root)"
        ))
    };
    setresgid(gid, gid, gid).map_err(|e| denied("group", process.gid, e))?;
    setresuid(uid, uid, uid).map_err(|e| denied("user", process.uid, e))?;
    if process.uid == 0 {
        let possible = rustix::thread::capabilities(None).map_err(|e| start("capabilities", &e))?.permitted;
        let sets = CapabilitySets {
            effective: kept & possible,
            permitted: kept & possible,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets).map_err(|e| start("cannot set capabilities", &e))?;
    }
    Ok(())
}

/// The highest capability this kernel knows.
fn last_capability() -> u32 {
    fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(40)
}
