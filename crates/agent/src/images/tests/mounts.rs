//! Root file systems: built, mounted, written to, unmounted.

use super::*;

fn entry(path: &str, content: &str) -> FileEntry {
    FileEntry::new(path, 0o644, Content::Bytes(content.as_bytes().to_vec()))
}

/// Unmounts also when the test fails.
struct Container(PathBuf);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.join("rootfs"), rustix::mount::UnmountFlags::DETACH);
    }
}

fn container(folder: &tempfile::TempDir) -> Container {
    Container(folder.path().join("pods/uid/web-0"))
}

#[test]
fn a_built_image_is_mounted_written_to_and_gone_again() {
    if !can_mount() {
        return;
    }
    let (folder, store) = store();
    store
        .build("base:v1", None, &[entry("/etc/a", "lower"), entry("/etc/b", "b"), entry("/data/x", "x")], |_| {})
        .unwrap();
    store
        .build("web:v1", Some("base:v1"), &[entry("/etc/a", "upper")], |config| {
            config.set_cmd(Some(vec!["/hello".to_owned()]));
        })
        .unwrap();
    let dir = container(&folder);
    let rootfs = store.mount_rootfs("web:v1", &dir.0).unwrap();
    assert_eq!(rootfs.image_id, store.get("web:v1").unwrap().id);
    assert_eq!(rootfs.config.config().as_ref().unwrap().cmd().as_deref(), Some(["/hello".to_owned()].as_slice()));
    assert_eq!(listing(&rootfs.path), "data/ 755\ndata/x 644 \"x\"\netc/ 755\netc/a 644 \"upper\"\netc/b 644 \"b\"\n");
    fs::write(rootfs.path.join("etc/a"), "changed").unwrap();
    fs::remove_file(rootfs.path.join("etc/b")).unwrap();
    fs::remove_dir_all(rootfs.path.join("data")).unwrap();

    // Still mounted: not mounted over, and its layers outlive their names.
    assert!(store.mount_rootfs("web:v1", &dir.0).unwrap_err().to_string().contains("is mounted already"));
    store.remove("base:v1").unwrap();
    let removed = store.remove("web:v1").unwrap();
    assert_eq!((removed.used_by, removed.layers_deleted), (vec![dir.0.canonicalize().unwrap()], 0));
    assert_eq!(fs::read_to_string(rootfs.path.join("etc/a")).unwrap(), "changed");
    assert!(store.mount_rootfs("web:v1", &folder.path().join("other")).is_err());

    store.unmount_rootfs(&dir.0).unwrap();
    assert_eq!(names_in(&dir.0).unwrap(), Vec::<String>::new());
    assert!(names_in(&store.path("layers")).unwrap().is_empty());
    store.unmount_rootfs(&dir.0).unwrap();
}

#[test]
fn a_container_starts_afresh() {
    if !can_mount() {
        return;
    }
    let (folder, store) = store();
    store.build("web:v1", None, &[entry("/a", "image")], |_| {}).unwrap();
    let dir = container(&folder);
    let rootfs = store.mount_rootfs("web:v1", &dir.0).unwrap();
    fs::write(rootfs.path.join("a"), "container").unwrap();
    // As after a crash of the machine: no longer mounted, its files still there.
    rustix::mount::unmount(&rootfs.path, rustix::mount::UnmountFlags::empty()).unwrap();
    let rootfs = store.mount_rootfs("web:v1", &dir.0).unwrap();
    assert_eq!(fs::read_to_string(rootfs.path.join("a")).unwrap(), "image");
    store.unmount_rootfs(&dir.0).unwrap();
}

#[test]
fn whiteouts_and_opaque_folders_hide_what_is_below() {
    if !can_mount() {
        return;
    }
    let (folder, store) = store();
    let layers = vec![
        archive(&[Item::File("a/gone", 0o644, ""), Item::File("a/kept", 0o644, "k"), Item::File("b/gone", 0o644, "")]),
        archive(&[
            Item::File("a/.wh.gone", 0o644, ""),
            Item::File("b/.wh..wh..opq", 0o644, ""),
            Item::File("b/new", 0o644, "n"),
        ]),
    ];
    let mut source =
        |index: usize| -> Result<Box<dyn Read>, Error> { Ok(Box::new(io::Cursor::new(layers[index].clone()))) };
    store.install(&config_for(&layers), &mut source, &[Name::parse("web:v1").unwrap()], None, false).unwrap();
    let dir = container(&folder);
    let rootfs = store.mount_rootfs("web:v1", &dir.0).unwrap();
    assert_eq!(listing(&rootfs.path), "a/ 755\na/kept 644 \"k\"\nb/ 755\nb/new 644 \"n\"\n");
    store.unmount_rootfs(&dir.0).unwrap();

    // The same without mounting.
    let tree = store.tree("web:v1").unwrap();
    let there = |path: &str| tree.find(Path::new(path)).unwrap().on_disk.is_some();
    assert_eq!(["/a/kept", "/a/gone", "/b/new", "/b/gone", "/b"].map(there), [true, false, true, false, true]);
}

#[test]
fn a_layer_that_hides_everything_hides_everything() {
    if !can_mount() {
        return;
    }
    let (folder, store) = store();
    let layers = vec![
        archive(&[Item::File("old", 0o644, "")]),
        archive(&[Item::File(".wh..wh..opq", 0o644, ""), Item::File("new", 0o644, "n")]),
    ];
    let mut source =
        |index: usize| -> Result<Box<dyn Read>, Error> { Ok(Box::new(io::Cursor::new(layers[index].clone()))) };
    store.install(&config_for(&layers), &mut source, &[Name::parse("web:v1").unwrap()], None, false).unwrap();
    let dir = container(&folder);
    let rootfs = store.mount_rootfs("web:v1", &dir.0).unwrap();
    assert_eq!(listing(&rootfs.path), "new 644 \"n\"\n");
    store.unmount_rootfs(&dir.0).unwrap();
}

#[test]
fn many_layers_and_long_paths_are_mounted_or_refused_with_a_reason() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(200));
    let store = Store::open(&deep).unwrap();
    let layers: Vec<Vec<u8>> = (0..5).map(|n| archive(&[Item::File(&format!("file-{n}"), 0o644, "x")])).collect();
    let mut source =
        |index: usize| -> Result<Box<dyn Read>, Error> { Ok(Box::new(io::Cursor::new(layers[index].clone()))) };
    store.install(&config_for(&layers), &mut source, &[Name::parse("web:v1").unwrap()], None, false).unwrap();
    let dir = Container(deep.join("pods/web"));
    let rootfs = store.mount_rootfs("web:v1", &dir.0).unwrap();
    assert_eq!(names_in(&rootfs.path).unwrap().len(), 5);
    store.unmount_rootfs(&dir.0).unwrap();

    let layers: Vec<Vec<u8>> = (0..40).map(|n| archive(&[Item::File(&format!("file-{n}"), 0o644, "x")])).collect();
    let mut source =
        |index: usize| -> Result<Box<dyn Read>, Error> { Ok(Box::new(io::Cursor::new(layers[index].clone()))) };
    store.install(&config_for(&layers), &mut source, &[Name::parse("web:v2").unwrap()], None, false).unwrap();
    let error = store.mount_rootfs("web:v2", &dir.0).unwrap_err().to_string();
    assert!(error.contains("use a shorter --data-dir"), "{error}");
    assert!(names_in(&store.path("uses")).unwrap().is_empty());

    let shallow = tempfile::tempdir().unwrap();
    let store = Store::open(shallow.path()).unwrap();
    let layers: Vec<Vec<u8>> = (0..150).map(|n| archive(&[Item::File(&format!("file-{n}"), 0o644, "x")])).collect();
    let mut source =
        |index: usize| -> Result<Box<dyn Read>, Error> { Ok(Box::new(io::Cursor::new(layers[index].clone()))) };
    store.install(&config_for(&layers), &mut source, &[Name::parse("web:v3").unwrap()], None, false).unwrap();
    let dir = Container(shallow.path().join("web"));
    let rootfs = store.mount_rootfs("web:v3", &dir.0).unwrap();
    assert_eq!(names_in(&rootfs.path).unwrap().len(), 150);
    store.unmount_rootfs(&dir.0).unwrap();
}

#[test]
fn the_data_folder_on_overlayfs_is_explained() {
    if !can_mount() {
        return;
    }
    let (folder, outer) = store();
    outer.build("web:v1", None, &[entry("/a", "x")], |_| {}).unwrap();
    let dir = container(&folder);
    let rootfs = outer.mount_rootfs("web:v1", &dir.0).unwrap();
    let inner = Store::open(&rootfs.path.join("kapstan"));
    let explained = inner.and_then(|inner| {
        inner.build("web:v1", None, &[entry("/a", "x")], |_| {})?;
        inner.mount_rootfs("web:v1", &rootfs.path.join("kapstan/web")).map(drop)
    });
    let error = explained.unwrap_err().to_string();
    assert!(error.contains("put --data-dir on a volume"), "{error}");
    outer.unmount_rootfs(&dir.0).unwrap();
}
