//! What a server holds of the machine's memory beyond what it needs (docs/decisions/0018-memory.md).
//!
//! Heaps grow in small steps and give large blocks back. And the pages of the program that only the start ran through are
//! given back: the kernel maps sixteen around each one that is touched, so that a start which visits all rooms once leaves
//! most of the code counted as the process's memory.

use std::ops::Range;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

/// How long after it is ready a server has its nodes and watches, and has done once what it does every few seconds.
const SETTLED: Duration = Duration::from_secs(30);

/// Bytes by which a heap grows; there is one a thread.
#[cfg(target_env = "gnu")]
const STEP: i32 = 16 << 10;

/// Has heaps grow in steps of 16 KB, not 128. That it is told at all keeps glibc from raising the size from which blocks
/// are the system's again as soon as they are freed (mallopt(3)): else the buffers of one large write stay for ever.
pub fn keep_heaps_small() {
    #[cfg(target_env = "gnu")]
    set_step();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
fn set_step() {
    // SAFETY: takes two numbers, and may be called at any time.
    unsafe { libc::mallopt(libc::M_TOP_PAD, STEP) };
}

/// Gives the pages of the start back, now and once more when all is settled.
pub async fn give_start_back() {
    give_program_back();
    tokio::time::sleep(SETTLED).await;
    give_program_back();
}

/// Unmaps the program's code and constants. They stay in the kernel's cache of the file and are mapped again as they are
/// needed, in microseconds. Does nothing where the kernel does not tell or refuses: then more memory is counted.
fn give_program_back() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    unwritten(&maps, &program.to_string_lossy()).for_each(unmap);
}

#[expect(unsafe_code, reason = "what is never written is the same when it is mapped again")]
fn unmap(range: Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the range is a whole mapping of the program's file that nobody has ever written; its pages are read from the
    // file again when they are touched.
    let given = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) };
    if let Err(error) = given {
        tracing::debug!(%error, "the pages of the start stay");
    }
}

/// Where the constants and the code of `program` are mapped, by what `/proc/self/maps` says. What is mapped behind the
/// code was written by the loader before it was protected.
fn unwritten<'a>(maps: &'a str, program: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut behind_code = false;
    let mappings = maps.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (fields.nth(3)? == program).then_some((rights, address(start)?..address(end)?))
    });
    mappings.filter_map(move |(rights, range)| {
        let never_written = !behind_code && matches!(rights, "r--p" | "r-xp");
        behind_code |= rights == "r-xp";
        never_written.then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_ever_wrote_is_given_back() {
        let maps = "\
5600000-5601000 r--p 00000000 fe:00 1 /bin/kapstan
5601000-5a01000 r-xp 00001000 fe:00 1 /bin/kapstan
5a01000-5a02000 r--p 00401000 fe:00 1 /bin/kapstan
5a02000-5a03000 rw-p 00402000 fe:00 1 /bin/kapstan
6000000-6001000 rw-p 00000000 00:00 0 [heap]
7000000-7001000 r-xp 00000000 fe:00 2 /lib/libc.so.6
7100000-7101000 r-xp 00000000 00:00 0
7200000-7201000 r-xp 00000000 00:00 0 [vdso]";
        let given: Vec<_> = unwritten(maps, "/bin/kapstan").collect();
        assert_eq!(given, [0x5600000..0x5601000, 0x5601000..0x5a01000]);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap();
        let before = mapped();
        give_program_back();
        assert!(unwritten(&before, &std::env::current_exe().unwrap().to_string_lossy()).count() >= 2, "{before}");
    }
}
