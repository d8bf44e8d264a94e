//! Takes images from archives: OCI layouts (folder or tar) and what `docker save` writes.
//!
//! Mirrors `docker load` and `ctr images import`: several images and several names an image; when an archive is both
//! (Docker since version 25), Docker's `manifest.json` decides. Entries are found by seeking; nothing is copied out but a
//! compressed archive, which is unpacked aside first. An archive comes from strangers: paths stay inside it, digests are
//! checked, documents are bounded.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::{Error, Image, MAX_DOCUMENT_BYTES, Name, Store, digest_of, hex_of, parse_config, tagged, unpack};

/// Most entries of an archive, its images' layers counted as one each.
const MAX_ARCHIVE_ENTRIES: usize = 100_000;
/// Most bytes of an archive once a compression around it is taken off.
const MAX_ARCHIVE_BYTES: u64 = 256 << 30;
/// Most symbolic links followed to one layer.
const MAX_LINKS: usize = 8;
/// How deep indexes may refer to indexes.
const MAX_INDEX_DEPTH: usize = 4;

/// The full name, as containerd writes it into an index.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The name or only the tag, as the OCI specification has it.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An image that came out of an archive.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its names, short form.
    pub names: Vec<String>,
    /// The image.
    pub image: Image,
}

impl Store {
    /// Imports every image of an archive or OCI layout folder. `name` names an image that comes without a name; when the
    /// archive gives only a tag, `name` gives the rest.
    pub fn import(&self, source: &Path, name: Option<&str>) -> Result<Vec<Imported>, Error> {
        let _adding = self.adding()?;
        let archive = self.open_archive(source)?;
        let imported = match archive.document("manifest.json")? {
            Some(list) => self.import_docker(&archive, &list, name),
            None => match archive.document("index.json")? {
                Some(index) => self.import_layout(&archive, &index, name),
                None => Err(Error::Format(
                    "it has neither index.json (OCI layout) nor manifest.json (docker save)".to_owned(),
                )),
            },
        };
        imported.map_err(|error| Error::Format(format!("cannot import {}: {error}", source.display())))
    }

    fn open_archive(&self, source: &Path) -> Result<Archive, Error> {
        let io = |e| Error::io("cannot open", source, e);
        if source.is_dir() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(Archive::Folder(rustix::fs::open(source, flags, Mode::empty()).map_err(|e| io(e.into()))?));
        }
        let mut file = File::open(source).map_err(io)?;
        let mut start = [0; 4];
        let read = file.read(&mut start).map_err(io)?;
        file.rewind().map_err(io)?;
        if matches!(start[..read], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            file = self.decompress_aside(file).map_err(io)?;
        }
        let no_archive = |error| {
            Error::Format(format!(
                "cannot import {}: it is no tar archive (an OCI layout, or what docker save writes): {error}",
                source.display()
            ))
        };
        Archive::index(file).map_err(no_archive)
    }

    fn decompress_aside(&self, file: File) -> io::Result<File> {
        let mut plain = tempfile::tempfile_in(self.path("tmp"))?;
        let written = io::copy(&mut unpack::decompress(file)?.take(MAX_ARCHIVE_BYTES + 1), &mut plain)?;
        if written > MAX_ARCHIVE_BYTES {
            return Err(io::Error::other(format!("it is larger than {MAX_ARCHIVE_BYTES} bytes")));
        }
        plain.flush()?;
        plain.rewind()?;
        Ok(plain)
    }

    fn import_docker(&self, archive: &Archive, list: &[u8], name: Option<&str>) -> Result<Vec<Imported>, Error> {
        let images: Vec<Saved> =
            serde_json::from_slice(list).map_err(|e| Error::Format(format!("its manifest.json is not valid: {e}")))?;
        let mut imported = Vec::new();
        for saved in images {
            let mut names = saved.repo_tags.iter().flatten().map(|tag| tagged(tag)).collect::<Result<Vec<_>, _>>()?;
            if names.is_empty() {
                names.push(nameless(name)?);
            }
            let config = archive.required_document(&saved.config)?;
            let expected = parse_config(&config)?.rootfs().diff_ids().len();
            if expected != saved.layers.len() {
                return Err(Error::Format(format!(
                    "{} names {expected} layers, the archive has {}",
                    saved.config,
                    saved.layers.len()
                )));
            }
            let mut layers = |index: usize| archive.layer(&saved.layers[index]);
            let image = self.install(&config, &mut layers, &names, None, false)?;
            imported.push(Imported { names: names.iter().map(Name::familiar).collect(), image });
        }
        Ok(imported)
    }

    fn import_layout(&self, archive: &Archive, index: &[u8], name: Option<&str>) -> Result<Vec<Imported>, Error> {
        let index: ImageIndex =
            serde_json::from_slice(index).map_err(|e| Error::Format(format!("its index.json is not valid: {e}")))?;
        // The same image may stand there once for each of its names.
        let mut images: BTreeMap<String, (Descriptor, Vec<Name>)> = BTreeMap::new();
        for descriptor in index.manifests() {
            let (_, names) =
                images.entry(descriptor.digest().to_string()).or_insert_with(|| (descriptor.clone(), Vec::new()));
            names.extend(annotated_name(descriptor, name)?);
        }
        let mut imported = Vec::new();
        for (digest, (descriptor, mut names)) in images {
            let Some(manifest) = archive.manifest(&descriptor, MAX_INDEX_DEPTH)? else { continue };
            if names.is_empty() {
                names.push(nameless(name)?);
            }
            let config = archive.blob(manifest.config())?;
            let mut layers = |index: usize| match manifest.layers().get(index) {
                Some(layer) => archive.layer(&blob_path(layer)?),
                None => Err(Error::Format(format!("image {digest} has fewer layers than its configuration says"))),
            };
            let image = self.install(&config, &mut layers, &names, Some(&digest), false)?;
            imported.push(Imported { names: names.iter().map(Name::familiar).collect(), image });
        }
        if imported.is_empty() {
            return Err(Error::Format(format!("it has no image for linux/{}", Arch::default())));
        }
        Ok(imported)
    }
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn nameless(name: Option<&str>) -> Result<Name, Error> {
    match name {
        Some(name) => tagged(name),
        None => Err(Error::Format("it holds an image without a name; give it one with --name".to_owned())),
    }
}

/// The name an index gives to an image; a bare tag is completed by `base`.
fn annotated_name(descriptor: &Descriptor, base: Option<&str>) -> Result<Option<Name>, Error> {
    let annotation = |key: &str| descriptor.annotations().as_ref().and_then(|all| all.get(key));
    if let Some(full) = annotation(CONTAINERD_NAME) {
        return tagged(full).map(Some);
    }
    match (annotation(OCI_NAME), base) {
        (Some(full), _) if full.contains(['/', ':']) => tagged(full).map(Some),
        (Some(tag), Some(base)) => tagged(&format!("{}:{tag}", tagged(base)?.family())).map(Some),
        (Some(tag), None) => Err(Error::Format(format!(
            "it gives its image only the tag {tag:?}; give the rest of the name with --name"
        ))),
        (None, _) => Ok(None),
    }
}

/// Whether an index's entry is an image for this machine; an entry that does not say is looked into.
pub(super) fn fits(descriptor: &Descriptor) -> bool {
    match descriptor.platform() {
        Some(platform) => *platform.os() == Os::Linux && *platform.architecture() == Arch::default(),
        None => true,
    }
}

fn blob_path(descriptor: &Descriptor) -> Result<String, Error> {
    if descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(Error::Format(format!(
            "blob {} is to be fetched from elsewhere (a foreign layer), which is not supported",
            descriptor.digest()
        )));
    }
    Ok(format!("blobs/sha256/{}", hex_of(descriptor.digest().as_ref())?))
}

/// Where an archive's files are.
enum Archive {
    Folder(OwnedFd),
    Tar { file: File, entries: BTreeMap<PathBuf, Entry> },
}

enum Entry {
    File { at: u64, bytes: u64 },
    Link(PathBuf),
}

impl Archive {
    fn index(file: File) -> io::Result<Archive> {
        let mut entries = BTreeMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let entry = entry?;
            if entries.len() >= MAX_ARCHIVE_ENTRIES {
                return Err(io::Error::other(format!("it has more than {MAX_ARCHIVE_ENTRIES} entries")));
            }
            let Some(path) = inside(&entry.path()?) else {
                return Err(io::Error::other(format!("its entry {:?} leads out of it", entry.path()?)));
            };
            let link = |target: Option<PathBuf>, from: &Path| {
                target.and_then(|target| inside(&from.join(target))).map(Entry::Link)
            };
            let found = match entry.header().entry_type() {
                tar::EntryType::Regular => Some(Entry::File { at: entry.raw_file_position(), bytes: entry.size() }),
                tar::EntryType::Symlink => {
                    link(entry.link_name()?.map(Into::into), path.parent().unwrap_or(Path::new("")))
                }
                tar::EntryType::Link => link(entry.link_name()?.map(Into::into), Path::new("")),
                _ => None,
            };
            if let Some(found) = found {
                entries.insert(path, found);
            }
        }
        Ok(Archive::Tar { file, entries })
    }

    /// A file and its size; `None` when it is not there.
    fn open(&self, path: &str) -> io::Result<Option<(File, u64, u64)>> {
        match self {
            Archive::Folder(folder) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve) {
                    Ok(file) => {
                        let file = File::from(file);
                        let bytes = file.metadata()?.len();
                        Ok(Some((file, 0, bytes)))
                    }
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(e) => Err(e.into()),
                }
            }
            Archive::Tar { file, entries } => {
                let mut path = inside(Path::new(path)).unwrap_or_default();
                for _ in 0..MAX_LINKS {
                    match entries.get(&path) {
                        Some(Entry::File { at, bytes }) => return Ok(Some((file.try_clone()?, *at, *bytes))),
                        Some(Entry::Link(target)) => path.clone_from(target),
                        None => return Ok(None),
                    }
                }
                Err(io::Error::other("too many symbolic links"))
            }
        }
    }

    fn reader(&self, path: &str) -> Result<Option<(Slice, u64)>, Error> {
        let opened = self.open(path).map_err(|e| Error::io("cannot read", Path::new(path), e))?;
        Ok(opened.map(|(file, at, bytes)| (Slice { file, at, left: bytes }, bytes)))
    }

    fn document(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((mut reader, bytes)) = self.reader(path)? else { return Ok(None) };
        if bytes > MAX_DOCUMENT_BYTES {
            return Err(Error::Format(format!("its {path} has {bytes} bytes, more than {MAX_DOCUMENT_BYTES}")));
        }
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map_err(|e| Error::io("cannot read", Path::new(path), e))?;
        Ok(Some(text))
    }

    fn required_document(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.document(path)?.ok_or_else(|| Error::Format(format!("{path:?} is missing in it")))
    }

    fn layer(&self, path: &str) -> Result<Box<dyn Read>, Error> {
        match self.reader(path)? {
            Some((reader, _)) => Ok(Box::new(reader)),
            None => Err(Error::Format(format!("layer {path:?} is missing in it"))),
        }
    }

    /// A small blob, its digest checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let blob = self.required_document(&blob_path(descriptor)?)?;
        let (expected, found) = (descriptor.digest().to_string(), digest_of(&blob));
        if expected != found {
            return Err(Error::Format(format!("blob {expected} is damaged: its content has the digest {found}")));
        }
        Ok(blob)
    }

    /// The manifest that `descriptor` leads to on this machine; `None` when it leads to none.
    fn manifest(&self, descriptor: &Descriptor, depth: usize) -> Result<Option<ImageManifest>, Error> {
        if !fits(descriptor) {
            return Ok(None);
        }
        let blob = self.blob(descriptor)?;
        let invalid =
            |e: serde_json::Error| Error::Format(format!("manifest {} is not valid: {e}", descriptor.digest()));
        if !is_index(descriptor.media_type(), &blob) {
            return serde_json::from_slice(&blob).map(Some).map_err(invalid);
        }
        let index: ImageIndex = serde_json::from_slice(&blob).map_err(invalid)?;
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::Format(format!("its indexes are nested deeper than {MAX_INDEX_DEPTH}")));
        };
        for inner in index.manifests() {
            if let Some(manifest) = self.manifest(inner, depth)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }
}

fn is_index(media_type: &MediaType, blob: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        manifests: Option<serde::de::IgnoredAny>,
    }
    *media_type == MediaType::ImageIndex
        || serde_json::from_slice::<Probe>(blob).is_ok_and(|probe| probe.manifests.is_some())
}

/// A path within an archive without `.` and with `..` resolved; `None` when it leads out.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// A part of a file, read by position: slices of one archive do not disturb each other.
struct Slice {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
