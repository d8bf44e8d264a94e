//! Looks into an image without mounting it: what overlayfs would show, found by looking through the layers.
//!
//! Mirrors the kernel's look-up (`fs/overlayfs/namei.c`): the uppermost layer that has a name decides, folders merge,
//! whiteouts and opaque folders hide what is below. Symbolic links are followed inside the image. It writes nothing.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{
    Error,
    unpack::{OPAQUE, is_whiteout},
};

/// Most symbolic links followed for one path, as the kernel allows.
const MAX_LINKS: usize = 40;

/// The layers of an image as one tree.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    layers: Vec<PathBuf>,
}

/// What a name in the tree is.
enum Node {
    /// A folder, with its parts in the layers, uppermost first.
    Folder(Vec<PathBuf>),
    /// Anything else, with its place on disk.
    Leaf(PathBuf),
}

/// Where a path leads.
#[derive(Debug)]
pub struct Found {
    /// The path in the image without symbolic links, relative to its root.
    pub path: PathBuf,
    /// Its place on disk; `None` when the image has nothing there.
    pub on_disk: Option<PathBuf>,
}

impl Merged {
    /// Of layers, uppermost first.
    pub(super) fn new(layers: Vec<PathBuf>) -> Merged {
        Merged { layers }
    }

    /// Follows `path` from the image's root. What is missing is taken as it is written.
    pub fn find(&self, path: &Path) -> Result<Found, Error> {
        let wrong = |e: io::Error| Error::io("cannot look at (in the image)", path, e);
        let mut pending = parts(path);
        let mut above: Vec<(OsString, Option<Vec<PathBuf>>)> = Vec::new();
        let mut leaf = None;
        let mut links = 0;
        while let Some(part) = pending.pop_front() {
            if part == ".." {
                above.pop();
                leaf = None;
                continue;
            }
            let folders = above.last().map_or(Some(&self.layers), |(_, folders)| folders.as_ref());
            match folders.map(|folders| child(folders, &part)).transpose().map_err(wrong)?.flatten() {
                Some(Node::Leaf(place)) if place.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(wrong(io::Error::other("too many symbolic links")));
                    }
                    let target = fs::read_link(&place).map_err(wrong)?;
                    if target.is_absolute() {
                        above.clear();
                    }
                    for part in parts(&target).into_iter().rev() {
                        pending.push_front(part);
                    }
                }
                Some(Node::Folder(folders)) => above.push((part, Some(folders))),
                Some(Node::Leaf(place)) => {
                    above.push((part, None));
                    leaf = Some(place);
                }
                None => {
                    above.push((part, None));
                    leaf = None;
                }
            }
        }
        let on_disk = match above.last() {
            None => self.layers.first().cloned(),
            Some((_, Some(folders))) => folders.first().cloned(),
            Some((_, None)) => leaf,
        };
        Ok(Found { path: above.into_iter().map(|(part, _)| part).collect(), on_disk })
    }
}

fn child(folders: &[PathBuf], name: &OsStr) -> io::Result<Option<Node>> {
    let mut found = Vec::new();
    for folder in folders {
        let place = folder.join(name);
        match fs::symlink_metadata(&place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(metadata) if is_whiteout(&metadata) => break,
            Ok(metadata) if metadata.is_dir() => {
                let opaque = is_opaque(&place);
                found.push(place);
                if opaque {
                    break;
                }
            }
            Ok(_) if found.is_empty() => return Ok(Some(Node::Leaf(place))),
            Ok(_) => break,
        }
    }
    Ok((!found.is_empty()).then_some(Node::Folder(found)))
}

fn is_opaque(folder: &Path) -> bool {
    rustix::fs::lgetxattr(folder, OPAQUE, &mut [0u8; 8]).is_ok()
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(keep).collect()
}
