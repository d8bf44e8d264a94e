//! Files that change all at once: how volumes that show API objects are written.
//!
//! The files are in a folder that is named after the time, `..data` is a link to that folder, and what a container sees by
//! their names are links through `..data`. A change is another folder, to which `..data` is turned in one step: whoever
//! reads sees the old files or the new ones, never some of each, and a program that watches `..data` learns of it. Mirrors
//! `AtomicWriter` (`pkg/volume/util/atomic_writer.go`); beyond that a file that did not change keeps its time, what a writer
//! left that was killed is cleared away, and what was written as a plain file becomes a link.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

/// The link to the folder that counts.
const DATA: &str = "..data";
/// The same link before it takes the other's place.
const NEXT: &str = "..data_tmp";
/// Names that begin so are the writer's own.
const RESERVED: &str = "..";
/// Folders are open to whoever gets to them.
const FOLDER_MODE: u32 = 0o755;

/// Path within the volume → content, and mode if it has one of its own.
pub type Files = BTreeMap<String, (Vec<u8>, Option<i32>)>;

/// Who may read the files.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Mode of files that have none of their own.
    pub mode: i32,
    /// Group that they belong to, and that can read them.
    pub group: Option<u32>,
}

/// Makes the volume in `dir` show these files and no others. Two writers of one volume must not be at it at a time.
pub fn write(dir: &Path, files: &Files, access: Access) -> Result<(), String> {
    let files = files.iter().map(|(name, file)| Ok((clean(name)?, file))).collect::<Result<Clean, String>>()?;
    let shown: BTreeSet<&OsStr> = files.keys().filter_map(|path| path.iter().next()).collect();
    let current = dir.join(DATA);
    let write = || {
        let fresh = if holds(&current, &files) { None } else { Some(write_folder(dir, &current, &files, access)?) };
        // Before the turn, so that who learns of it finds them.
        shown.iter().try_for_each(|name| show(dir, name))?;
        fresh.map_or(Ok(()), |fresh| turn(dir, &fresh))?;
        clear(dir, &shown)
    };
    write().map_err(|error: io::Error| format!("writing {}: {error}", dir.display()))
}

type Clean<'a> = BTreeMap<PathBuf, &'a (Vec<u8>, Option<i32>)>;

/// The path without detours; refuses those that lead out of the volume, and those of the writer itself (`validatePath`).
fn clean(name: &str) -> Result<PathBuf, String> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    match path.to_str() {
        _ if !plain => Err(format!("path {name:?} leads out of the volume")),
        Some("") | None => Err(format!("path {name:?} names no file")),
        Some(text) if text.starts_with(RESERVED) => Err(format!("path {name:?} must not start with '..'")),
        Some(_) => Ok(path),
    }
}

/// Whether these files are there, and no others.
fn holds(folder: &Path, files: &Clean) -> bool {
    let there = files_below(folder).unwrap_or_default();
    folder.exists()
        && there.len() == files.len()
        && files.iter().all(|(path, (content, _))| fs::read(folder.join(path)).is_ok_and(|old| old == *content))
}

fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files_below(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Writes the files to a folder of their own; returns its name.
fn write_folder(dir: &Path, current: &Path, files: &Clean, access: Access) -> io::Result<String> {
    let name = format!("{RESERVED}{}.{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
    let folder = dir.join(&name);
    make_folder(&folder)?;
    for (path, (content, mode)) in files {
        for parent in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            make_folder(&folder.join(parent))?;
        }
        let target = folder.join(path);
        fs::write(&target, content)?;
        set_access(&target, mode.unwrap_or(access.mode), access.group)?;
        keep_time(&target, &current.join(path), content)?;
    }
    Ok(name)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE)),
    }
}

fn set_access(path: &Path, mode: i32, group: Option<u32>) -> io::Result<()> {
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
    // A group that must be able to read gets that right, as the kubelet gives it.
    let mode = if group.is_some() { mode | 0o040 } else { mode };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    group.map_or(Ok(()), |group| chown(path, None, Some(group)))
}

/// The age of a token is that of its file.
fn keep_time(path: &Path, before: &Path, content: &[u8]) -> io::Result<()> {
    match fs::read(before) {
        Ok(old) if old == content => {
            let time = fs::metadata(before)?.modified()?;
            fs::File::options().write(true).open(path)?.set_modified(time)
        }
        _ => Ok(()),
    }
}

/// Makes `name` a link to what the folder that counts has by that name.
fn show(dir: &Path, name: &OsStr) -> io::Result<()> {
    let (link, target) = (dir.join(name), Path::new(DATA).join(name));
    if fs::read_link(&link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    // A `subPath` that was not there was made as a folder.
    if link.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(&link)?;
    }
    replace_link(dir, &target, &link)
}

fn turn(dir: &Path, folder: &str) -> io::Result<()> {
    replace_link(dir, Path::new(folder), &dir.join(DATA))
}

/// At every moment there is what was at `link`, or the new link.
fn replace_link(dir: &Path, target: &Path, link: &Path) -> io::Result<()> {
    let next = dir.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &next)?;
    fs::rename(&next, link)
}

/// Removes folders that do not count any more and the names of files that are gone. Folders that a `subPath` asked for stay.
fn clear(dir: &Path, shown: &BTreeSet<&OsStr>) -> io::Result<()> {
    let counts = fs::read_link(dir.join(DATA))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (name, folder) = (entry.file_name(), entry.file_type()?.is_dir());
        let own = name.as_encoded_bytes().starts_with(RESERVED.as_bytes());
        if name == DATA || counts.as_os_str() == name || shown.contains(name.as_os_str()) {
            continue;
        } else if own && folder {
            fs::remove_dir_all(entry.path())?;
        } else if !folder {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::time::{Duration, SystemTime};

    const ACCESS: Access = Access { mode: 0o640, group: None };

    fn files(texts: &[(&str, &str)]) -> Files {
        texts.iter().map(|(name, text)| ((*name).to_owned(), (text.as_bytes().to_vec(), None))).collect()
    }

    fn put(dir: &Path, texts: &[(&str, &str)]) {
        write(dir, &files(texts), ACCESS).unwrap();
    }

    /// All that is in a volume; the folder that counts is called TIME.
    fn seen(dir: &Path) -> String {
        let time = fs::read_link(dir.join(DATA)).unwrap().display().to_string();
        let mut lines = Vec::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let found = path.symlink_metadata().unwrap();
                let mode = found.permissions().mode() & 0o777;
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                lines.push(if found.is_symlink() {
                    format!("{name} -> {}\n", fs::read_link(&path).unwrap().display())
                } else if found.is_dir() {
                    folders.push(path);
                    format!("{name}/ {mode:o}\n")
                } else {
                    format!("{name} {mode:o} {}\n", fs::read_to_string(&path).unwrap())
                });
            }
        }
        let mut lines: Vec<String> = lines.into_iter().map(|line| line.replace(&time, "TIME")).collect();
        lines.sort();
        lines.concat()
    }

    #[test]
    fn names_are_links_through_the_folder_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = files(&[("a", "one"), ("./sub/b", "two"), ("sub/deep/c", "three")]);
        first.insert("d".into(), (b"four".to_vec(), Some(0o400)));
        write(dir.path(), &first, ACCESS).unwrap();
        expect![[r#"
            ..data -> TIME
            TIME/ 755
            TIME/a 640 one
            TIME/d 400 four
            TIME/sub/ 755
            TIME/sub/b 640 two
            TIME/sub/deep/ 755
            TIME/sub/deep/c 640 three
            a -> ..data/a
            d -> ..data/d
            sub -> ..data/sub
        "#]]
        .assert_eq(&seen(dir.path()));
        put(dir.path(), &[("a", "five"), ("sub/b", "two"), ("e", "six")]);
        expect![[r#"
            ..data -> TIME
            TIME/ 755
            TIME/a 640 five
            TIME/e 640 six
            TIME/sub/ 755
            TIME/sub/b 640 two
            a -> ..data/a
            e -> ..data/e
            sub -> ..data/sub
        "#]]
        .assert_eq(&seen(dir.path()));
        put(dir.path(), &[]);
        expect![[r#"
            ..data -> TIME
            TIME/ 755
        "#]]
        .assert_eq(&seen(dir.path()));
    }

    #[test]
    fn who_has_the_folder_open_sees_what_was_there_until_they_look_again() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &[("a", "1"), ("b", "1")]);
        let folder = |dir: &Path| fs::read_link(dir.join(DATA)).unwrap();
        let before = folder(dir.path());
        put(dir.path(), &[("a", "1"), ("b", "1")]);
        assert_eq!(folder(dir.path()), before, "what is there already is not written");
        put(dir.path(), &[("a", "1"), ("b", "2")]);
        assert_ne!(folder(dir.path()), before);
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn a_file_that_did_not_change_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &[("token", "t"), ("ca", "1")]);
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(dir.path().join("token")).unwrap().set_modified(hour_ago).unwrap();
        put(dir.path(), &[("token", "t"), ("ca", "2")]);
        let written = |name: &str| fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
        assert_eq!(written("token"), hour_ago);
        assert!(written("ca") > hour_ago);
    }

    #[test]
    fn what_others_left_is_made_right() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["sub", "..2026_01_01_00_00_00.1", "asked-for"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in ["a", "gone", "sub/b", "..2026_01_01_00_00_00.1/a"] {
            fs::write(dir.path().join(file), "old").unwrap();
        }
        symlink("..2026_01_01_00_00_00.1", dir.path().join(NEXT)).unwrap();
        put(dir.path(), &[("a", "one"), ("sub/b", "two")]);
        expect![[r#"
            ..data -> TIME
            TIME/ 755
            TIME/a 640 one
            TIME/sub/ 755
            TIME/sub/b 640 two
            a -> ..data/a
            asked-for/ 755
            sub -> ..data/sub
        "#]]
        .assert_eq(&seen(dir.path()));
    }

    #[test]
    fn names_may_not_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/etc/passwd", "a/../../b", "", ".", "..data", "..x/y", "..."] {
            assert!(write(dir.path(), &files(&[(bad, "")]), ACCESS).is_err(), "{bad}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        put(dir.path(), &[("a/..b", "fine")]);
    }
}
