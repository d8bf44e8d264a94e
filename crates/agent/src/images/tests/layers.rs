//! Layers: what they become on disk, and what they must not reach.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use expect_test::expect;

use super::*;

fn unpack_into(folder: &Path, layer: &[u8]) -> Result<unpack::Unpacked, String> {
    unpack::unpack(layer, folder, owners())
}

fn listed(items: &[Item<'_>]) -> String {
    let folder = tempfile::tempdir().unwrap();
    unpack_into(folder.path(), &archive(items)).unwrap();
    listing(folder.path())
}

#[test]
fn a_layer_becomes_what_overlayfs_wants() {
    let folder = tempfile::tempdir().unwrap();
    let layer = archive(&[
        Item::Folder("./", 0o755),
        Item::Folder("etc/", 0o750),
        Item::File("etc/motd", 0o644, "hello\n"),
        Item::File("bin/tool", 0o4755, "elf"),
        Item::HardLink("bin/again", "bin/tool"),
        Item::Symlink("sbin", "bin"),
        Item::File("sbin/through-link", 0o600, "x"),
        Item::Symlink("abs", "/etc"),
        Item::File("abs/inside", 0o644, "y"),
        Item::File("etc/.wh.passwd", 0o644, ""),
        Item::File("opt/.wh..wh..opq", 0o644, ""),
        Item::File(".wh..wh.plnk", 0o644, ""),
        Item::File("/leading/slash", 0o644, "z"),
        Item::Folder("closed", 0o500),
        Item::File("closed/file", 0o400, "c"),
    ]);
    let unpacked = unpack_into(folder.path(), &layer).unwrap();
    expect![[r#"
        abs -> /etc
        bin/ 755
        bin/again 4755 "elf"
        bin/tool 4755 "elf"
        closed/ 500
        closed/file 400 "c"
        etc/ 750
        etc/inside 644 "y"
        etc/motd 644 "hello\n"
        etc/passwd whiteout
        leading/ 755
        leading/slash 644 "z"
        opt/ 755 opaque
        sbin -> bin
    "#]]
    .assert_eq(&listing(folder.path()).replace("bin/through-link 600 \"x\"\n", ""));
    let inode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().ino();
    assert_eq!(inode("bin/tool"), inode("bin/again"));
    assert_eq!(fs::metadata(folder.path().join("etc")).unwrap().mtime(), 1_000_000);
    assert!(folder.path().join("bin/through-link").exists());
    assert_eq!(unpacked.diff_id, digest_of(&layer));
    assert_eq!(unpacked.size_bytes, 6 + 3 + 1 + 1 + 1 + 1);
    assert!(!unpacked.opaque_root);
}

#[test]
fn gzip_zstd_and_plain_give_the_same() {
    let layer = archive(&[Item::File("a", 0o644, "text")]);
    for packed in [layer.clone(), gzip(&layer), zstd::encode_all(layer.as_slice(), 3).unwrap()] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(unpack_into(folder.path(), &packed).unwrap().diff_id, digest_of(&layer));
        assert_eq!(listing(folder.path()), "a 644 \"text\"\n");
    }
}

#[test]
fn evil_layers_reach_nothing_outside() {
    let evil: &[&[Item<'_>]] = &[
        &[Item::File("../escaped", 0o644, "")],
        &[Item::File("a/../../escaped", 0o644, "")],
        &[Item::File("/../escaped", 0o644, "")],
        &[Item::Symlink("out", "../.."), Item::File("out/escaped", 0o644, "")],
        &[Item::Symlink("out", "/.."), Item::Folder("out/escaped", 0o755)],
        &[Item::HardLink("stolen", "../secret")],
        &[Item::Symlink("up", "../.."), Item::HardLink("stolen", "up/secret")],
        &[Item::Symlink("link", "../secret"), Item::File("link", 0o644, "overwritten")],
        &[Item::File(".wh...", 0o644, "")],
        &[Item::File(".wh..", 0o644, "")],
        &[Item::File(".wh.", 0o644, "")],
        &[Item::Symlink("out", ".."), Item::File("out/.wh.secret", 0o644, "")],
        &[Item::Symlink("out", ".."), Item::File("out/.wh..wh..opq", 0o644, "")],
        &[Item::Symlink("loop", "loop"), Item::File("loop/x", 0o644, "")],
        &[Item::Symlink("a", "b"), Item::Symlink("b", "a"), Item::File("a/x", 0o644, "")],
        &[Item::Xattr("x", "trusted.overlay.redirect", "/../../secret")],
        &[Item::Xattr("x", "user.overlay.redirect", "/../../secret")],
        &[Item::File("file", 0o644, ""), Item::File("file/below", 0o644, "")],
        &[Item::File("./", 0o644, "")],
        &[Item::HardLink("self", "")],
        &[Item::HardLink("root", "/")],
    ];
    let mut seen = String::new();
    for items in evil {
        let outside = tempfile::tempdir().unwrap();
        let (secret, inside) = (outside.path().join("secret"), outside.path().join("layer"));
        fs::write(&secret, "secret").unwrap();
        fs::create_dir(&inside).unwrap();
        let outcome = unpack_into(&inside, &archive(items));
        seen += &format!("{}\n", outcome.map_or_else(|e| e, |_| "taken, inside".to_owned()));
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        let mut left: Vec<_> = names_in(outside.path()).unwrap();
        left.sort();
        assert_eq!(left, ["layer", "secret"]);
        assert!(rustix::fs::lgetxattr(outside.path(), unpack::OPAQUE, &mut [0u8; 8]).is_err());
    }
    expect![[r#"
        entry "../escaped" leads out of the image with '..'
        entry "a/../../escaped" leads out of the image with '..'
        entry "/../escaped" leads out of the image with '..'
        taken, inside
        taken, inside
        entry "stolen" leads out of the image with '..'
        entry "stolen" cannot be linked to its target in this layer: No such file or directory (os error 2)
        taken, inside
        entry ".wh..." is a whiteout of no file name
        entry ".wh.." is a whiteout of no file name
        entry ".wh." is a whiteout of no file name
        taken, inside
        taken, inside
        entry "loop/x" passes through too many symbolic links
        entry "a/x" passes through too many symbolic links
        entry "x" has the attribute trusted.overlay.redirect, which belongs to overlayfs
        entry "x" has the attribute user.overlay.redirect, which belongs to overlayfs
        entry "file/below" passes through file, which is not a folder
        entry "./" would replace the image's root
        entry "self" is a link without a target
        entry "root" is a hard link to the image's root
    "#]]
    .assert_eq(&seen);
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    expect![[r#"
        both 644 "mine"
        replaced/ 755 opaque
        replaced/new 644 "n"
        was/ 755 opaque
        was/new 644 "n"
    "#]]
    .assert_eq(&listed(&[
        Item::File("both", 0o644, "mine"),
        Item::File(".wh.both", 0o644, ""),
        Item::File(".wh.replaced", 0o644, ""),
        Item::Folder("replaced", 0o755),
        Item::File("replaced/new", 0o644, "n"),
        Item::File("was/new", 0o644, "n"),
        Item::File(".wh.was", 0o644, ""),
    ]));
}

#[test]
fn later_entries_replace_earlier_ones() {
    expect![[r#"
        dir/ 700
        file 600 "second"
        link 644 "no longer a link"
    "#]]
    .assert_eq(&listed(&[
        Item::File("file", 0o644, "first"),
        Item::File("file", 0o600, "second"),
        Item::Symlink("link", "file"),
        Item::File("link", 0o644, "no longer a link"),
        Item::Folder("dir", 0o755),
        Item::Folder("dir", 0o700),
    ]));
}

#[test]
fn extended_attributes_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let layer = archive(&[
        Item::Xattr("labelled", "user.note", "kept"),
        Item::Xattr("elsewhere", "security.selinux", "ignored"),
    ]);
    unpack_into(folder.path(), &layer).unwrap();
    let mut value = [0u8; 16];
    let read = rustix::fs::lgetxattr(folder.path().join("labelled"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..read], b"kept");
}

#[test]
fn owners_are_kept_when_root() {
    if owners() != Owners::Keep {
        super::skipped("keeping owners needs root");
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o4750);
    header.set_uid(1234);
    header.set_gid(4321);
    header.set_size(0);
    builder.append_data(&mut header, "owned", io::empty()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    unpack_into(folder.path(), &builder.into_inner().unwrap()).unwrap();
    let found = fs::metadata(folder.path().join("owned")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.permissions().mode() & 0o7777), (1234, 4321, 0o4750));
}

#[test]
fn damaged_layers_are_refused() {
    let layer = archive(&[Item::File("a", 0o644, &"text".repeat(5000))]);
    let packed = gzip(&layer);
    let mut flipped = layer.clone();
    flipped[100] ^= 1; // in the header: its checksum is wrong
    for bad in [&layer[..layer.len() / 2], &packed[..packed.len() / 2], &flipped, b"no archive at all".as_slice()] {
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack_into(folder.path(), bad).is_err());
    }
}
