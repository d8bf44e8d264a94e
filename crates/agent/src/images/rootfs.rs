//! A container's root file system: an overlay of the image's layers and a folder that takes the writes.
//!
//! ```text
//! <container folder>/rootfs   what the container sees
//! <container folder>/upper    what it changed
//! <container folder>/work     overlayfs' own
//! ```
//!
//! Mirrors containerd's overlayfs snapshotter, `userxattr` and `volatile` included: what a container wrote outside its
//! volumes lives no longer than the container, so it is never synced. Uses the mount API of Linux 5.2 and later
//! (`lowerdir+` from 6.5 on) and falls back to `mount(2)`. It works in a user namespace that has a mount namespace of its
//! own. It never mounts over what is mounted.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use oci_spec::image::ImageConfiguration;
use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
    },
};

use super::{Error, Store, Use, digest_of, hex_of, make_open_folder};

/// Most bytes of the options of `mount(2)`: one page, with its final zero.
const MAX_MOUNT_OPTIONS: usize = 4095;
/// `f_type` of overlayfs.
const OVERLAYFS: u64 = 0x794c_7630;

/// A mounted root file system.
#[derive(Clone, Debug)]
pub struct RootFs {
    /// Where it is mounted.
    pub path: PathBuf,
    /// What the image runs, as whom, with which environment.
    pub config: ImageConfiguration,
    /// `sha256:…` of that configuration.
    pub image_id: String,
}

impl Store {
    /// Mounts a fresh root file system made of `image` in the folder `dir`. What an earlier, no longer mounted one left
    /// there is removed; one that is still mounted is an error.
    pub fn mount_rootfs(&self, image: &str, dir: &Path) -> Result<RootFs, Error> {
        let _adding = self.adding()?;
        let target = self.target(image)?.ok_or_else(|| Error::NotFound(image.to_owned()))?;
        let image = self.load(&target.config)?;
        fs::create_dir_all(dir).map_err(|e| Error::io("cannot make", dir, e))?;
        let dir = dir.canonicalize().map_err(|e| Error::io("cannot open", dir, e))?;
        let overlay = Overlay {
            lower: self.lower(&image.config)?,
            upper: dir.join("upper"),
            work: dir.join("work"),
            root: dir.join("rootfs"),
        };
        if is_mount_point(&overlay.root)? {
            return Err(Error::Mount(format!("{} is mounted already; unmount it first", overlay.root.display())));
        }
        overlay.remove_folders()?;
        self.record_use(&dir, &image.id)?;
        if let Err(error) = overlay.mount() {
            overlay.remove_folders()?;
            self.forget_use(&dir)?;
            return Err(error);
        }
        Ok(RootFs { path: overlay.root, config: image.config, image_id: image.id })
    }

    /// Unmounts the root file system in `dir` and deletes what the container wrote. Does nothing when there is none.
    pub fn unmount_rootfs(&self, dir: &Path) -> Result<(), Error> {
        let Ok(dir) = dir.canonicalize() else { return self.forget_use(dir) };
        let overlay =
            Overlay { lower: Vec::new(), upper: dir.join("upper"), work: dir.join("work"), root: dir.join("rootfs") };
        overlay.unmount()?;
        overlay.remove_folders()?;
        self.forget_use(&dir)
    }

    /// The image's layers as overlayfs wants them: uppermost first, nothing below one that hides all.
    pub(super) fn lower(&self, config: &ImageConfiguration) -> Result<Vec<PathBuf>, Error> {
        let mut lower = Vec::new();
        for diff_id in config.rootfs().diff_ids().iter().rev() {
            let content = self.layer(diff_id)?.join("fs");
            if !lower.contains(&content) {
                lower.push(content);
            }
            if self.layer_record(diff_id)?.opaque_root {
                break;
            }
        }
        if lower.is_empty() {
            lower.push(self.path("empty"));
        }
        Ok(lower)
    }

    fn record_use(&self, dir: &Path, id: &str) -> Result<(), Error> {
        self.forget_use(dir)?;
        let record = self.path("uses").join(format!("{}-{}", folder_key(dir)?, hex_of(id)?));
        std::os::unix::fs::symlink(dir, &record).map_err(|e| Error::io("cannot make", &record, e))
    }

    /// The last container of an image without a name takes the image with it.
    fn forget_use(&self, dir: &Path) -> Result<(), Error> {
        let key = folder_key(dir)?;
        let is_ours = |used: &Use| used.record.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&key));
        for used in self.uses()?.into_iter().filter(is_ours) {
            absent_is_fine(fs::remove_file(&used.record)).map_err(|e| Error::io("cannot remove", &used.record, e))?;
            let named = self.inner.refs.read()?.images.into_values().any(|target| target.config == used.config);
            if !named {
                self.sweep()?;
            }
        }
        Ok(())
    }
}

/// A name for a container folder that fits into a file name.
fn folder_key(dir: &Path) -> Result<String, Error> {
    hex_of(&digest_of(dir.as_os_str().as_bytes()))
}

struct Overlay {
    lower: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
}

impl Overlay {
    fn mount(&self) -> Result<(), Error> {
        for folder in [&self.upper, &self.work, &self.root] {
            make_open_folder(folder)?;
        }
        let Err(error) = self.mount_by_descriptor() else { return Ok(()) };
        // Either the kernel is older than an option, or a path is longer than the 255 bytes that `fsconfig` takes.
        let error = match error {
            Errno::NOSYS | Errno::INVAL => match self.mount_by_options() {
                None => Errno::NAMETOOLONG,
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
            },
            error => error,
        };
        Err(Error::Mount(format!(
            "cannot mount the root file system at {}: {error}: {}",
            self.root.display(),
            self.explain(error)
        )))
    }

    fn mount_by_descriptor(&self) -> rustix::io::Result<()> {
        let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&overlay, "source", "overlay")?;
        for lower in &self.lower {
            fsconfig_set_string(&overlay, "lowerdir+", lower)?;
        }
        fsconfig_set_string(&overlay, "upperdir", &self.upper)?;
        fsconfig_set_string(&overlay, "workdir", &self.work)?;
        fsconfig_set_flag(&overlay, "userxattr")?;
        fsconfig_set_flag(&overlay, "volatile")?;
        fsconfig_create(&overlay)?;
        let mounted = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(&mounted, "", CWD, &self.root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    /// `None`: the options do not fit into a page.
    fn mount_by_options(&self) -> Option<rustix::io::Result<()>> {
        let mut options = b"userxattr,volatile,lowerdir=".to_vec();
        for (index, lower) in self.lower.iter().enumerate() {
            if index > 0 {
                options.push(b':');
            }
            push_escaped(&mut options, lower);
        }
        for (key, path) in [(b",upperdir=".as_slice(), &self.upper), (b",workdir=".as_slice(), &self.work)] {
            options.extend_from_slice(key);
            push_escaped(&mut options, path);
        }
        if options.len() > MAX_MOUNT_OPTIONS {
            return None;
        }
        let options = std::ffi::CString::new(options).ok()?;
        Some(mount("overlay", &self.root, "overlay", MountFlags::empty(), Some(options.as_c_str())))
    }

    fn explain(&self, error: Errno) -> String {
        if self.upper.parent().is_some_and(is_overlayfs) {
            return "the data folder lies on overlayfs (as everything inside a container does), which cannot hold the upper layer of another \
                    overlay; put --data-dir on a volume, a disk or a tmpfs"
                .to_owned();
        }
        match error {
            Errno::PERM | Errno::ACCESS => "run as root, or in a user namespace with a mount namespace of its own".to_owned(),
            Errno::NODEV => "this kernel has no overlayfs; try `modprobe overlay`".to_owned(),
            Errno::NAMETOOLONG => "the paths of the layers are too long; use a shorter --data-dir".to_owned(),
            _ => "the data folder needs a file system with user xattrs and d_type (ext4, xfs, btrfs, or tmpfs from Linux 6.6 on), and Linux 5.11 or later; `dmesg` says more".to_owned(),
        }
    }

    fn unmount(&self) -> Result<(), Error> {
        match unmount(&self.root, UnmountFlags::NOFOLLOW) {
            // Not mounted, or not there at all.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            // Someone still looks into it: gone from sight now, freed when they leave.
            Err(Errno::BUSY) => unmount(&self.root, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                .map_err(|e| Error::io("cannot unmount", &self.root, e)),
            Err(e) => Err(Error::io("cannot unmount", &self.root, e)),
        }
    }

    /// The mount point goes first and by `rmdir`: should it be mounted after all, nothing of the container is deleted.
    fn remove_folders(&self) -> Result<(), Error> {
        absent_is_fine(fs::remove_dir(&self.root)).map_err(|e| Error::io("cannot remove", &self.root, e))?;
        for folder in [&self.upper, &self.work] {
            absent_is_fine(fs::remove_dir_all(folder)).map_err(|e| Error::io("cannot remove", folder, e))?;
        }
        Ok(())
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// overlayfs' options separate by `,` and `:` and escape with `\`.
fn push_escaped(options: &mut Vec<u8>, path: &Path) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

fn is_overlayfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == OVERLAYFS)
}

/// A mount point is on another device than its parent; overlays always have one of their own.
fn is_mount_point(path: &Path) -> Result<bool, Error> {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| fs::symlink_metadata(p).map(|found| found.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => Ok(own != parent),
        (Err(e), _) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot look at", path, e)),
        _ => Ok(false),
    }
}
