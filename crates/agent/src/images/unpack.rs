//! Unpacks one image layer into a folder that overlayfs can use as it is.
//!
//! Mirrors containerd's `pkg/archive/tar.go` (`applyNaive`) and the OCI image specification (`layer.md`). A layer comes
//! from strangers: nothing it names may land outside the folder, whatever `..`, absolute paths, symbolic or hard links
//! and whiteouts it uses. Symbolic links on the way to an entry are followed as if the folder were `/`.
//! Deleted files become 0/0 character devices and opaque folders get `user.overlay.opaque`, the one form that works
//! with and without a user namespace (mount option `userxattr`). It never decides which layers to keep.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest, Sha256};
use tar::EntryType;

/// Most bytes one layer may have unpacked.
pub const MAX_LAYER_BYTES: u64 = 64 << 30;
/// Most entries one layer may have.
pub const MAX_LAYER_ENTRIES: u64 = 4_000_000;
/// Most symbolic links followed on the way to one entry, as the kernel allows.
const MAX_LINKS: usize = 40;
/// Most components of one path.
const MAX_DEPTH: usize = 1024;
/// Read-ahead of compressed layers.
const READ_BUFFER: usize = 128 << 10;

/// Marks a folder that hides what lower layers have in it.
pub(super) const OPAQUE: &str = "user.overlay.opaque";

/// What to do with the owners that a layer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Set them: we are root, and every id exists here.
    Keep,
    /// All files belong to whoever unpacks: there are no other ids (a user namespace of one user).
    Mine,
}

/// A layer that was unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// `sha256:…` of the uncompressed archive, to be compared with the image's configuration.
    pub diff_id: String,
    /// Bytes of all files.
    pub size_bytes: u64,
    /// The layer hides everything below it.
    pub opaque_root: bool,
}

/// Unpacks the layer that `reader` gives (plain, gzip or zstd) into the empty folder `into`.
pub fn unpack(reader: impl Read, into: &Path, owners: Owners) -> Result<Unpacked, String> {
    let mut stream = Digesting {
        inner: decompress(reader).map_err(|e| format!("cannot be read: {e}"))?,
        sha256: Sha256::new(),
        bytes: 0,
    };
    let mut layer = Layer { root: into, owners, folders: BTreeMap::new(), size_bytes: 0, opaque_root: false };
    layer.unpack_all(&mut stream)?;
    io::copy(&mut stream, &mut io::sink()).map_err(|e| format!("cannot be read to its end: {e}"))?;
    layer.finish_folders()?;
    let diff_id = format!("sha256:{}", hex::encode(stream.sha256.finalize()));
    Ok(Unpacked { diff_id, size_bytes: layer.size_bytes, opaque_root: layer.opaque_root })
}

/// Media types lie more often than first bytes do, so the first bytes decide (as Docker does it).
pub(super) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    let start = reader.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader)?),
        _ => Box::new(reader),
    })
}

/// Counts and hashes what passes through, and ends when there is too much of it.
struct Digesting<R> {
    inner: R,
    sha256: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..read]);
        self.bytes += read as u64;
        if self.bytes > MAX_LAYER_BYTES {
            return Err(io::Error::other(format!("it is larger than {MAX_LAYER_BYTES} bytes unpacked")));
        }
        Ok(read)
    }
}

/// What a folder is to look like once everything in it is there.
struct Folder {
    mode: u32,
    modified: i64,
}

struct Layer<'a> {
    root: &'a Path,
    owners: Owners,
    folders: BTreeMap<PathBuf, Folder>,
    size_bytes: u64,
    opaque_root: bool,
}

impl Layer<'_> {
    fn unpack_all(&mut self, stream: impl Read) -> Result<(), String> {
        let mut archive = tar::Archive::new(stream);
        let entries = archive.entries().map_err(|e| format!("is not a tar archive: {e}"))?;
        for (count, entry) in entries.enumerate() {
            if count as u64 >= MAX_LAYER_ENTRIES {
                return Err(format!("has more than {MAX_LAYER_ENTRIES} entries"));
            }
            let mut entry = entry.map_err(|e| format!("is damaged after {count} entries: {e}"))?;
            let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            self.unpack_entry(&mut entry).map_err(|problem| format!("entry {shown:?} {problem}"))?;
        }
        Ok(())
    }

    fn unpack_entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), String> {
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = components(&entry.path_bytes())?;
        let Some((name, parent)) = path.split_last() else {
            return self.describe_root(entry);
        };
        let parent = self.folder(parent)?;
        match name.as_bytes().strip_prefix(b".wh.") {
            Some(b".wh..opq") => self.make_opaque(&parent),
            Some(meta) if meta.starts_with(b".wh.") => Ok(()), // bookkeeping of aufs: every runtime leaves it out
            Some(b"" | b"." | b"..") => Err("is a whiteout of no file name".to_owned()),
            Some(hidden) => self.hide(&parent.join(OsStr::from_bytes(hidden))),
            None => self.place(entry, &parent.join(name)),
        }
    }

    /// The real folder that a path in the image means; symbolic links are followed inside the image, what is missing is made.
    fn folder(&mut self, path: &[OsString]) -> Result<PathBuf, String> {
        let mut pending: VecDeque<OsString> = path.iter().cloned().collect();
        let mut inside = PathBuf::new();
        let mut links = 0;
        while let Some(component) = pending.pop_front() {
            if component == ".." {
                inside.pop();
                continue;
            }
            let next = self.root.join(&inside).join(&component);
            match fs::symlink_metadata(&next) {
                Ok(found) if found.is_symlink() => {
                    links += 1;
                    let target = fs::read_link(&next).map_err(|e| e.to_string())?;
                    if links > MAX_LINKS || pending.len() > MAX_DEPTH {
                        return Err("passes through too many symbolic links".to_owned());
                    }
                    if target.is_absolute() {
                        inside.clear();
                    }
                    for part in link_components(&target).into_iter().rev() {
                        pending.push_front(part);
                    }
                }
                Ok(found) if found.is_dir() => inside.push(component),
                Ok(_) => return Err(format!("passes through {}, which is not a folder", component.display())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.make_folder(&next)?;
                    inside.push(component);
                }
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(self.root.join(inside))
    }

    fn make_folder(&mut self, path: &Path) -> Result<(), String> {
        fs::create_dir(path).map_err(|e| format!("cannot be made: {e}"))?;
        self.folders.insert(path.to_owned(), Folder { mode: 0o755, modified: 0 });
        Ok(())
    }

    fn describe_root(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), String> {
        if entry.header().entry_type() != EntryType::Directory {
            return Err("would replace the image's root".to_owned());
        }
        let root = self.root.to_owned();
        self.describe_folder(entry, &root)
    }

    fn make_opaque(&mut self, folder: &Path) -> Result<(), String> {
        self.opaque_root |= folder == self.root;
        set_xattr(folder, OPAQUE, b"y")
            .map_err(|e| format!("cannot be marked opaque (does this file system have user xattrs?): {e}"))
    }

    /// A whiteout hides what lower layers have; what this very layer has under the name stays.
    fn hide(&mut self, path: &Path) -> Result<(), String> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => self.make_opaque(path),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|e| format!("cannot be made a whiteout: {e}"))
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn place(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), String> {
        let kind = entry.header().entry_type();
        let replaced_whiteout = self.make_room(kind, path)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.place_file(entry, path),
            EntryType::Directory => {
                if !path.is_dir() {
                    self.make_folder(path)?;
                }
                if replaced_whiteout {
                    self.make_opaque(path)?;
                }
                self.describe_folder(entry, path)
            }
            EntryType::Symlink => self.place_symlink(entry, path),
            EntryType::Link => self.place_hard_link(entry, path),
            EntryType::Fifo | EntryType::Char | EntryType::Block => self.place_special(entry, path),
            other => Err(format!("has the unknown type {:?}", other.as_byte() as char)),
        }
    }

    /// Removes what an earlier entry of this layer put there; says whether that was a whiteout.
    fn make_room(&mut self, kind: EntryType, path: &Path) -> Result<bool, String> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e.to_string()),
        };
        if found.is_dir() {
            if kind != EntryType::Directory {
                fs::remove_dir(path).map_err(|e| format!("would replace a folder: {e}"))?;
                self.folders.remove(path);
            }
            return Ok(false);
        }
        fs::remove_file(path).map_err(|e| format!("cannot replace an earlier entry: {e}"))?;
        Ok(is_whiteout(&found))
    }

    fn place_file(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), String> {
        let xattrs = xattrs(entry)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| format!("cannot be made: {e}"))?;
        let written = io::copy(entry, &mut file).map_err(|e| format!("cannot be written: {e}"))?;
        self.size_bytes += written;
        self.describe(entry, path, &xattrs)?;
        set_mode(&file, mode(entry)?)?;
        set_modified(path, modified(entry)?)
    }

    fn place_symlink(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), String> {
        let xattrs = xattrs(entry)?;
        let target = link_name(entry)?;
        std::os::unix::fs::symlink(OsStr::from_bytes(&target), path).map_err(|e| format!("cannot be made: {e}"))?;
        self.describe(entry, path, &xattrs)?;
        set_modified(path, modified(entry)?)
    }

    fn place_hard_link(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), String> {
        let target = components(&link_name(entry)?)?;
        let (name, parent) = target.split_last().ok_or("is a hard link to the image's root")?;
        let target = self.folder(parent)?.join(name);
        // `hard_link` does not follow a symbolic link at the end, so the target lies inside the image too.
        fs::hard_link(&target, path).map_err(|e| format!("cannot be linked to its target in this layer: {e}"))
    }

    fn place_special(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), String> {
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Fifo => FileType::Fifo,
            EntryType::Char => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        if self.owners == Owners::Mine && kind != FileType::Fifo {
            // As containerd does in a user namespace: device files cannot be made there; the runtime gives a container its own.
            tracing::warn!(path = %path.display(), "device file of an image left out: only root can make one");
            return Ok(());
        }
        let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default).map_err(|e| e.to_string());
        let device = rustix::fs::makedev(number(header.device_major())?, number(header.device_minor())?);
        let mode = mode(entry)?;
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)
            .map_err(|e| format!("cannot be made: {e}"))?;
        self.describe(entry, path, &[])?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| e.to_string())?;
        set_modified(path, modified(entry)?)
    }

    fn describe_folder(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), String> {
        let xattrs = xattrs(entry)?;
        self.describe(entry, path, &xattrs)?;
        self.folders.insert(path.to_owned(), Folder { mode: mode(entry)?, modified: modified(entry)? });
        Ok(())
    }

    /// Owner, then extended attributes: a change of owner clears a file's capabilities.
    fn describe(
        &self,
        entry: &tar::Entry<'_, impl Read>,
        path: &Path,
        xattrs: &[(String, Vec<u8>)],
    ) -> Result<(), String> {
        if self.owners == Owners::Keep {
            let id = |n: io::Result<u64>| {
                n.map_err(|e| e.to_string())
                    .and_then(|n| u32::try_from(n).map_err(|_| format!("has the owner {n}, which is no id")))
            };
            let (user, group) = (id(entry.header().uid())?, id(entry.header().gid())?);
            rustix::fs::chownat(
                CWD,
                path,
                Some(Uid::from_raw(user)),
                Some(Gid::from_raw(group)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|e| format!("cannot be given to {user}:{group}: {e}"))?;
        }
        for (name, value) in xattrs {
            match set_xattr(path, name, value) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    tracing::warn!(path = %path.display(), name, "this file system cannot keep an image's extended attribute")
                }
                Err(e) => return Err(format!("cannot be given the extended attribute {name}: {e}")),
            }
        }
        Ok(())
    }

    /// Deepest first, so that a folder closed to us is closed last.
    fn finish_folders(&self) -> Result<(), String> {
        for (path, folder) in self.folders.iter().rev() {
            let finish = || {
                let handle = File::open(path).map_err(|e| e.to_string())?;
                set_modified(path, folder.modified)?;
                set_mode(&handle, folder.mode)
            };
            finish().map_err(|problem| {
                format!("folder {:?} cannot be finished: {problem}", path.strip_prefix(self.root).unwrap_or(path))
            })?;
        }
        Ok(())
    }
}

/// True for overlayfs' mark of a deleted file.
pub(super) fn is_whiteout(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    found.file_type().is_char_device() && found.rdev() == 0
}

/// The parts of an entry's path; a leading `/` means the image's root, `..` is refused.
fn components(path: &[u8]) -> Result<Vec<OsString>, String> {
    if path.contains(&0) {
        return Err("has a zero byte in its path".to_owned());
    }
    let mut parts = Vec::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err("leads out of the image with '..'".to_owned()),
        }
    }
    if parts.len() > MAX_DEPTH {
        return Err(format!("is nested deeper than {MAX_DEPTH} folders"));
    }
    Ok(parts)
}

/// The parts of a symbolic link's target, `..` kept: it is resolved inside the image, where `/..` is `/`.
fn link_components(target: &Path) -> Vec<OsString> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    target.components().filter_map(keep).collect()
}

fn link_name(entry: &tar::Entry<'_, impl Read>) -> Result<Vec<u8>, String> {
    match entry.link_name_bytes() {
        Some(name) if !name.is_empty() && !name.contains(&0) => Ok(OsString::from_vec(name.into_owned()).into_vec()),
        _ => Err("is a link without a target".to_owned()),
    }
}

fn mode(entry: &tar::Entry<'_, impl Read>) -> Result<u32, String> {
    entry.header().mode().map(|mode| mode & 0o7777).map_err(|e| e.to_string())
}

fn modified(entry: &tar::Entry<'_, impl Read>) -> Result<i64, String> {
    let seconds = entry.header().mtime().map_err(|e| e.to_string())?;
    i64::try_from(seconds).map_err(|_| format!("has the modification time {seconds}, which is no time"))
}

/// Extended attributes as GNU tar, BSD tar and Go write them; overlayfs' own are refused: they could make a layer show
/// files that are not its own.
fn xattrs(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions().map_err(|e| e.to_string())? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension.map_err(|e| e.to_string())?;
        let key = extension.key().map_err(|e| e.to_string())?;
        if key.starts_with("GNU.sparse.") {
            return Err("is a sparse file in PAX form, which is not supported".to_owned());
        }
        let Some(name) = key.strip_prefix("SCHILY.xattr.") else { continue };
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            return Err(format!("has the attribute {name}, which belongs to overlayfs"));
        }
        // Labels of the machine that built the image mean nothing here.
        if name != "security.selinux" {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
}

fn set_mode(file: &File, mode: u32) -> Result<(), String> {
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(|e| format!("cannot be given mode {mode:o}: {e}"))
}

fn set_modified(path: &Path, seconds: i64) -> Result<(), String> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| format!("cannot be given its time: {e}"))
}
