//! Makes an image from a list of files and a configuration: one layer on top of a base, or of nothing.
//!
//! The layer is written as an archive and taken in the way every other layer is, so a built image and an imported one
//! cannot differ. Files land where symbolic links of the base lead to, and folders of the base keep their rights. The same
//! files and configuration give the same image id. It runs nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use oci_spec::image::{Config, HistoryBuilder, ImageConfiguration};
use sha2::{Digest, Sha256};

use super::{Error, Image, Store, merged::Merged, tagged};

/// Most files of one layer that is built.
const MAX_FILES: usize = 200_000;

/// A file to be put into an image.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// Where in the image, absolute.
    pub path: PathBuf,
    /// Permission bits: `0o755`.
    pub mode: u32,
    /// User and group id.
    pub owner: (u32, u32),
    /// What it is.
    pub content: Content,
}

/// What a file in an image is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file with this content, of the year 1970.
    Bytes(Vec<u8>),
    /// A copy of a file on this machine, with its time.
    HostFile(PathBuf),
    /// A folder.
    Folder,
    /// A symbolic link to there.
    Symlink(PathBuf),
}

impl FileEntry {
    /// An entry of root's.
    pub fn new(path: impl Into<PathBuf>, mode: u32, content: Content) -> FileEntry {
        FileEntry { path: path.into(), mode, owner: (0, 0), content }
    }
}

impl Store {
    /// Makes the image `name`: `base` (or nothing) plus `files`, with the base's configuration after `change`.
    pub fn build(
        &self,
        name: &str,
        base: Option<&str>,
        files: &[FileEntry],
        change: impl FnOnce(&mut Config),
    ) -> Result<Image, Error> {
        let name = tagged(name)?;
        let _adding = self.adding()?;
        let base = base.map(|base| self.find(base)?.ok_or_else(|| Error::NotFound(base.to_owned()))).transpose()?;
        let mut config = base.map_or_else(ImageConfiguration::default, |base| base.config);
        let tree = self.tree_of(&config)?;
        let mut settings = config.config().clone().unwrap_or_default();
        change(&mut settings);
        config.set_config(Some(settings));
        let layer = if files.is_empty() { None } else { Some(self.write_layer(&tree, files)?) };
        let known = config.rootfs().diff_ids().len();
        if let Some((diff_id, _)) = &layer {
            config.rootfs_mut().diff_ids_mut().push(diff_id.clone());
        }
        let step = HistoryBuilder::default().created_by("kapstan image build").empty_layer(layer.is_none()).build();
        let step = step.map_err(|e| Error::Build(e.to_string()))?;
        config.history_mut().get_or_insert_default().push(step);
        let config = sorted_json(&config)?;
        let mut layers = |index: usize| match &layer {
            Some((_, archive)) if index == known => reopen(archive),
            _ => Err(Error::Io("a layer of the base image was deleted meanwhile; try again".to_owned())),
        };
        self.install(&config, &mut layers, &[name], None, false)
    }

    /// The files of the image `name`, to be looked at without mounting it.
    pub fn tree(&self, name: &str) -> Result<Merged, Error> {
        let image = self.find(name)?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        self.tree_of(&image.config)
    }

    fn tree_of(&self, config: &ImageConfiguration) -> Result<Merged, Error> {
        Ok(Merged::new(self.lower(config)?))
    }

    fn write_layer(&self, tree: &Merged, files: &[FileEntry]) -> Result<(String, File), Error> {
        let tmp = self.path("tmp");
        let wrong = |e: io::Error| Error::io("cannot write a layer in", &tmp, e);
        let entries = with_parents(tree, files)?;
        let archive = tempfile::tempfile_in(&tmp).map_err(wrong)?;
        let mut out = Digesting { out: io::BufWriter::new(archive), sha256: Sha256::new() };
        let mut builder = tar::Builder::new(&mut out);
        builder.sparse(false);
        for (path, entry) in &entries {
            append(&mut builder, path, entry)?;
        }
        builder.finish().map_err(wrong)?;
        drop(builder);
        let diff_id = format!("sha256:{}", hex::encode(out.sha256.finalize()));
        Ok((diff_id, out.out.into_inner().map_err(|e| wrong(e.into_error()))?))
    }
}

/// Every entry by its real path, after all folders that lead to it.
fn with_parents(tree: &Merged, files: &[FileEntry]) -> Result<BTreeMap<PathBuf, FileEntry>, Error> {
    let mut entries = BTreeMap::new();
    for file in files {
        let (Some(parent), Some(name)) = (file.path.parent(), file.path.file_name()) else {
            if matches!(file.content, Content::Folder) && file.path == Path::new("/") {
                continue;
            }
            return Err(Error::Build(format!("{} is not a path of a file in an image", file.path.display())));
        };
        let parent = tree.find(parent)?.path;
        for folder in parent.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            if !entries.contains_key(folder) {
                entries.insert(folder.to_owned(), as_in(tree, folder)?);
            }
        }
        let path = parent.join(name);
        if matches!(file.content, Content::Folder) && tree.find(&path)?.on_disk.is_some_and(|found| found.is_dir()) {
            let path = tree.find(&path)?.path;
            entries.insert(path.clone(), as_in(tree, &path)?);
            continue;
        }
        entries.insert(path, file.clone());
        if entries.len() > MAX_FILES {
            return Err(Error::Build(format!("an image takes at most {MAX_FILES} files at once")));
        }
    }
    Ok(entries)
}

/// A folder as the base image has it, or a plain new one.
fn as_in(tree: &Merged, folder: &Path) -> Result<FileEntry, Error> {
    let mut entry = FileEntry::new(folder, 0o755, Content::Folder);
    if let Some(found) = tree.find(folder)?.on_disk {
        let metadata = fs::symlink_metadata(&found).map_err(|e| Error::io("cannot look at", &found, e))?;
        if !metadata.is_dir() {
            return Err(Error::Build(format!("/{} is not a folder in the base image", folder.display())));
        }
        entry.mode = metadata.mode() & 0o7777;
        entry.owner = (metadata.uid(), metadata.gid());
    }
    Ok(entry)
}

fn append(builder: &mut tar::Builder<impl Write>, path: &Path, entry: &FileEntry) -> Result<(), Error> {
    let wrong = |e: io::Error| Error::Build(format!("cannot add /{} to the image: {e}", path.display()));
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(entry.owner.0.into());
    header.set_gid(entry.owner.1.into());
    header.set_mtime(0);
    header.set_size(0);
    match &entry.content {
        Content::Bytes(bytes) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice()).map_err(wrong)
        }
        Content::HostFile(source) => {
            let file = File::open(source).map_err(|e| Error::io("cannot read", source, e))?;
            let metadata = file.metadata().map_err(|e| Error::io("cannot read", source, e))?;
            if !metadata.is_file() {
                return Err(Error::Build(format!("{} is not a regular file", source.display())));
            }
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(metadata.len());
            header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
            builder.append_data(&mut header, path, file.take(metadata.len())).map_err(wrong)
        }
        Content::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, path, io::empty()).map_err(wrong)
        }
        Content::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).map_err(wrong)
        }
    }
}

/// With sorted keys, so that equal configurations have equal digests.
fn sorted_json(config: &ImageConfiguration) -> Result<Vec<u8>, Error> {
    let value = serde_json::to_value(config).map_err(|e| Error::Build(e.to_string()))?;
    serde_json::to_vec(&sorted(value)).map_err(|e| Error::Build(e.to_string()))
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            let ordered: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            ordered.into_iter().collect()
        }
        serde_json::Value::Array(list) => list.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn reopen(archive: &File) -> Result<Box<dyn Read>, Error> {
    let again = || -> io::Result<File> {
        let mut file = archive.try_clone()?;
        file.rewind()?;
        Ok(file)
    };
    Ok(Box::new(again().map_err(|e| Error::Io(format!("cannot read the layer just built: {e}")))?))
}

/// Hashes what is written.
struct Digesting<W> {
    out: W,
    sha256: Sha256,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
