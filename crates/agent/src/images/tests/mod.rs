//! What the image store promises, tried on archives and registries made for each test.

use std::{fs, path::Path};

use super::*;

mod archives;
mod builds;
mod layers;
mod mounts;
mod registry;

/// A store in a folder that goes away.
fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

/// One entry of an archive: kind, path, mode, content or link target.
#[derive(Clone, Copy)]
enum Item<'a> {
    File(&'a str, u32, &'a str),
    Folder(&'a str, u32),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Xattr(&'a str, &'a str, &'a str),
}

/// An archive whose paths nobody checked: `tar::Builder` refuses to write the evil ones.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        let (path, content) = match *item {
            Item::File(path, mode, content) => {
                header.set_mode(mode);
                header.set_size(content.len() as u64);
                (path, content)
            }
            Item::Folder(path, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(mode);
                (path, "")
            }
            Item::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                raw(&mut header.as_old_mut().linkname, target);
                (path, "")
            }
            Item::HardLink(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_mode(0o644);
                raw(&mut header.as_old_mut().linkname, target);
                (path, "")
            }
            Item::Xattr(path, key, value) => {
                builder.append_pax_extensions([(format!("SCHILY.xattr.{key}").as_str(), value.as_bytes())]).unwrap();
                header.set_mode(0o644);
                (path, "")
            }
        };
        raw(&mut header.as_old_mut().name, path);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn raw(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// A configuration for these layers.
fn config_for(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest_of(layer)).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": oci_spec::image::Arch::default().to_string(), "os": "linux",
        "config": { "Cmd": ["/hello"], "Env": ["A=1"], "StopSignal": "SIGQUIT" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
    .unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Everything below a folder, one line each: kind, permissions, path, content.
fn listing(root: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let mut lines = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            let found = fs::symlink_metadata(&path).unwrap();
            let mode = found.permissions().mode() & 0o7777;
            lines.push(if found.is_dir() {
                open.push(path.clone());
                let opaque = rustix::fs::lgetxattr(&path, unpack::OPAQUE, &mut [0u8; 8]).is_ok();
                format!("{shown}/ {mode:o}{}", if opaque { " opaque" } else { "" })
            } else if found.is_symlink() {
                format!("{shown} -> {}", fs::read_link(&path).unwrap().display())
            } else if unpack::is_whiteout(&found) {
                format!("{shown} whiteout")
            } else {
                let content = fs::read_to_string(&path).unwrap();
                format!("{shown} {mode:o} {content:?}")
            });
        }
    }
    lines.sort();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Says that a test does not run here, also when what tests print is not shown: `cargo xtask test` counts these lines.
fn skipped(why: &str) {
    std::io::Write::write_all(&mut std::io::stdout(), format!("\nskipped: {why}\n").as_bytes()).unwrap();
}

/// Mounts need root; says so once for each test that is left out.
fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        skipped("mounting needs root or a user namespace (try `unshare -Urm`)");
    }
    can
}
