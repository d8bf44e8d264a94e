//! What a container sees as `/`: its image, `/proc`, `/dev`, `/sys`, volumes, and nothing else of the node.
//!
//! Runs in the container's process before it becomes the container, in a mount namespace of its own. Works alike as root
//! and in a user namespace, for it makes no device nodes: the node's `/dev/null` and so on are bound in, and everything
//! else is mounted `nodev`, so that a device node made inside is dead. Every place is looked up with the image as root
//! (`openat2`), so that a symlink in an image or volume cannot lead out of it. Same layout as the engines' default
//! (runtime-spec `config-linux.md`, containerd `pkg/oci/mounts.go`).

use super::{cgroup::Cgroup, wire::ContainerPlan};
use crate::runtime::Mount;
use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2, stat, symlinkat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
    },
};
use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path},
};

/// Devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links every `/dev` has.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
/// Size of `/dev/shm`; the engines' default.
const SHARED_MEMORY: &str = "65536k";
/// What would tell about or reach into the node.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What may be read, not written.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What failed, in words.
type Result<T> = std::result::Result<T, String>;

/// Turns the calling process's `/` into the container's.
pub fn enter(plan: &ContainerPlan, cgroup: Option<&Cgroup>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("cannot make a mount namespace: {e}"))?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|e| format!("cannot detach the node's mounts: {e}"))?;
    let root = attach_root(plan)?;
    mount_kernel_files(&root, plan)?;
    if let Some(cgroup) = cgroup {
        show_groups(&root, plan, cgroup)?;
    }
    mount_devices(&root, plan)?;
    mount_volumes(&root, plan)?;
    if !plan.privileged {
        restrict(&root)?;
    }
    make_directory(&root, &plan.process.cwd)?;
    become_root(&root)?;
    if plan.read_only_root {
        let here = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| format!("/: {e}"))?;
        set_attributes(&here, libc::MOUNT_ATTR_RDONLY, false)
            .map_err(|e| format!("cannot make the root file system read-only: {e}"))?;
    }
    Ok(())
}

fn attach_root(plan: &ContainerPlan) -> Result<OwnedFd> {
    let attributes = if plan.privileged { 0 } else { libc::MOUNT_ATTR_NODEV };
    let tree = clone_tree(&plan.rootfs, attributes)?;
    let open_root = || open(&plan.rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let failed = |e: Errno| format!("root file system {}: {e}", plan.rootfs.display());
    attach(&tree, &open_root().map_err(failed)?)?;
    open_root().map_err(failed)
}

fn mount_kernel_files(root: &OwnedFd, plan: &ContainerPlan) -> Result<()> {
    let quiet =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    attach(&new_file_system("proc", &[], quiet)?, &make_directory(root, Path::new("/proc"))?)?;
    let sys_attributes = if plan.privileged { quiet } else { quiet | MountAttrFlags::MOUNT_ATTR_RDONLY };
    let sys = match new_file_system("sysfs", &[], sys_attributes) {
        Ok(sys) => sys,
        // A user namespace may show only the network it owns; the node's own view is bound instead.
        Err(_) => clone_tree(Path::new("/sys"), sys_attributes.bits().into())?,
    };
    attach(&sys, &make_directory(root, Path::new("/sys"))?)
}

/// A container sees its own control groups where programs look for their limits, and no others.
fn show_groups(root: &OwnedFd, plan: &ContainerPlan, cgroup: &Cgroup) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| format!("cannot make a control group namespace: {e}"))?;
    let place = Path::new("/sys/fs/cgroup");
    let quiet =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    let views = cgroup.views();
    if views.iter().any(|(name, _)| !name.is_empty()) {
        attach(&new_file_system("tmpfs", &[("mode", "755"), ("size", "4k")], quiet)?, &make_directory(root, place)?)?;
    }
    let attributes = if plan.privileged { quiet } else { quiet | MountAttrFlags::MOUNT_ATTR_RDONLY };
    for (name, directory) in views {
        let target = if name.is_empty() { place.to_owned() } else { place.join(name) };
        attach(&clone_tree(&directory, attributes.bits().into())?, &make_directory(root, &target)?)?;
    }
    Ok(())
}

fn mount_devices(root: &OwnedFd, plan: &ContainerPlan) -> Result<()> {
    let dev = make_directory(root, Path::new("/dev"))?;
    if plan.privileged {
        attach(&clone_tree(Path::new("/dev"), 0)?, &dev)?;
    } else {
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
        attach(&new_file_system("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)?, &dev)?;
        let dev = make_directory(root, Path::new("/dev"))?;
        for device in DEVICES {
            let node = Path::new("/dev").join(device);
            attach(&clone_tree(&node, 0)?, &make_file(root, &node)?)?;
        }
        for (target, link) in DEVICE_LINKS {
            symlinkat(target, &dev, link).map_err(|e| format!("/dev/{link}: {e}"))?;
        }
    }
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let terminals = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    // Group 5 (tty) may have no meaning in a user namespace of one user.
    let pts =
        new_file_system("devpts", &terminals, quiet).or_else(|_| new_file_system("devpts", &terminals[..2], quiet))?;
    attach(&pts, &make_directory(root, Path::new("/dev/pts"))?)?;
    let quiet = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
    attach(&new_file_system("mqueue", &[], quiet)?, &make_directory(root, Path::new("/dev/mqueue"))?)
}

fn mount_volumes(root: &OwnedFd, plan: &ContainerPlan) -> Result<()> {
    let mut mounts: Vec<&Mount> = plan.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count()); // what lies inside another comes after it
    mounts.into_iter().try_for_each(|mount| {
        let mut attributes = if plan.privileged { 0 } else { libc::MOUNT_ATTR_NODEV };
        if mount.read_only {
            attributes |= libc::MOUNT_ATTR_RDONLY;
        }
        let tree = clone_tree(&mount.source, attributes)?;
        let directory = stat(&mount.source).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFDIR);
        let place = if directory { make_directory(root, &mount.target)? } else { make_file(root, &mount.target)? };
        attach(&tree, &place)
    })
}

fn restrict(root: &OwnedFd) -> Result<()> {
    for path in MASKED {
        let Some(place) = find(root, Path::new(path))? else { continue };
        let directory = rustix::fs::fstat(&place).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFDIR);
        let cover = if directory {
            new_file_system("tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?
        } else {
            clone_tree(Path::new("/dev/null"), 0)?
        };
        attach(&cover, &place)?;
    }
    for path in READ_ONLY {
        let Some(place) = find(root, Path::new(path))? else { continue };
        let tree = open_tree(&place, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH).map_err(|e| format!("{path}: {e}"))?;
        set_attributes(&tree, libc::MOUNT_ATTR_RDONLY, true).map_err(|e| format!("{path}: {e}"))?;
        attach(&tree, &place)?;
    }
    Ok(())
}

fn become_root(root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root).map_err(|e| format!("cannot enter the root file system: {e}"))?;
    // The old root is stacked under the new one, at the same place, and taken off.
    rustix::process::pivot_root(".", ".").map_err(|e| format!("cannot pivot into the root file system: {e}"))?;
    unmount(".", UnmountFlags::DETACH).map_err(|e| format!("cannot let go of the node's file system: {e}"))?;
    rustix::process::chdir("/").map_err(|e| format!("/: {e}"))
}

const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

fn clone_tree(source: &Path, attributes: u64) -> Result<OwnedFd> {
    let failed = |what: &str, e: String| format!("{what} {}: {e}", source.display());
    let tree = open_tree(CWD, source, CLONE).map_err(|e| failed("cannot bind", e.to_string()))?;
    if attributes != 0 {
        set_attributes(&tree, attributes, true).map_err(|e| failed("cannot restrict the mount of", e.to_string()))?;
    }
    Ok(tree)
}

fn new_file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let make = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(&context, *key, *value)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(|e: Errno| format!("cannot mount {kind}: {e}"))
}

fn attach(tree: &OwnedFd, place: &OwnedFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags).map_err(|e| format!("cannot mount at {}: {e}", name_of(place)))
}

fn name_of(place: &OwnedFd) -> String {
    std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}

#[expect(unsafe_code, reason = "mount_setattr(2) has no safe wrapper yet")]
fn set_attributes(tree: &OwnedFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and `attr` is read only during the call, with its true size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr as *const libc::mount_attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What is at `path` inside `root`, if anything.
fn find(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    match openat2(root, inside, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn make_directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    make(root, path, &|parent, name| mkdirat(parent, name, Mode::from_raw_mode(0o755)))
}

fn make_file(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    make(root, path, &|parent, name| openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop))
}

fn make(root: &OwnedFd, path: &Path, create: &dyn Fn(&OwnedFd, &OsStr) -> rustix::io::Result<()>) -> Result<OwnedFd> {
    if let Some(found) = find(root, path)? {
        return Ok(found);
    }
    let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
        return Err(format!("{} is not a place inside a container", path.display()));
    };
    let folder = make_directory(root, parent)?;
    match create(&folder, name) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(format!("cannot make {} in the container: {e}", path.display())),
    }
    find(root, path)?.ok_or_else(|| format!("{} is a link to nowhere", path.display()))
}

/// Mounts the memory that a pod's containers share as `/dev/shm`; what was mounted there before is taken off.
pub fn mount_shared_memory(place: &Path) -> io::Result<()> {
    unmount_shared_memory(place);
    let flags =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    let memory =
        new_file_system("tmpfs", &[("mode", "1777"), ("size", SHARED_MEMORY)], flags).map_err(io::Error::other)?;
    let place = open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    attach(&memory, &place).map_err(io::Error::other)
}

/// Takes it off.
pub fn unmount_shared_memory(place: &Path) {
    let _ = unmount(place, UnmountFlags::DETACH);
}

/// A view of a program that nobody can write through. A shim is executed from one: a container that gets hold of its
/// runtime's program, by way of `/proc/self/exe`, cannot change the file on the node.
pub fn read_only_view(program: &Path) -> io::Result<OwnedFd> {
    let view = |path: &Path| clone_tree(path, libc::MOUNT_ATTR_RDONLY).map_err(io::Error::other);
    view(program).or_else(|error| {
        // A process that has left the mount namespace it was executed in reaches its program by name only.
        let named = std::fs::read_link(program)?;
        let same = |a: &Path, b: &Path| {
            Ok::<_, Errno>((stat(a)?.st_dev, stat(a)?.st_ino) == (stat(b)?.st_dev, stat(b)?.st_ino))
        };
        if same(program, &named)? { view(&named) } else { Err(error) }
    })
}

/// Where `path` leads with `root` as `/`; used to read an image's own files.
pub fn open_inside(root: &Path, path: &Path) -> io::Result<std::fs::File> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let inside = path.strip_prefix("/").unwrap_or(path);
    Ok(openat2(root.as_fd(), inside, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)?.into())
}
