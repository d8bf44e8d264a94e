//! The images of the tests, made under the names that `e2e.test --list-images` prints.
//!
//! Two folders are what all begin with: busybox, and agnhost with the programs that tests run beside it (curl, dig, nc). Those and a shell that
//! keeps every environment variable come from Debian's packages with the libraries that they load. Images of which nothing is asked here
//! (volume servers, CSI drivers) are not made.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, capture};

/// Debian's packages of the programs, and where in them the programs are.
const PACKAGES: [&str; 5] = ["bash", "bind9-dnsutils", "curl", "libc-bin", "netcat-openbsd"];
const TOOLS: [(&str, &str); 6] = [
    ("bin/curl", "usr/bin/curl"),
    ("bin/dig", "usr/bin/dig"),
    ("bin/getent", "usr/bin/getent"),
    ("bin/nc", "bin/nc.openbsd"),
    ("bin/nslookup", "usr/bin/nslookup"),
    ("bin/sh", "bin/bash"),
];
/// The shell that `PATH` finds first; one test wants what busybox's own says.
const SHELL: [(&str, &str); 1] = [("usr/local/bin/sh", "bin/bash")];
/// What the C library loads by itself to find names.
const LOADED_LATER: [&str; 2] = ["lib/x86_64-linux-gnu/libnss_dns.so.2", "lib/x86_64-linux-gnu/libnss_files.so.2"];
/// Where the packages are, within the build folder.
const DEBIAN: &str = "tools/e2e";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// Fetches what they are made from, while there is a way out.
pub fn fetch(target: &Path) -> Result<(), String> {
    packages(&target.join(DEBIAN))?;
    busybox(target).map(drop)
}

fn busybox(target: &Path) -> Result<PathBuf, String> {
    setup::tools(target).busybox.ok_or_else(|| "there is no busybox: see `cargo xtask test`".into())
}

/// Makes all of them in the store of a server.
pub fn make(kapstan: &Path, target: &Path, programs: &Path, data: &Path) -> Result<(), String> {
    let (busybox, debian) = (busybox(target)?, packages(&target.join(DEBIAN))?);
    let listed = capture(Command::new(programs.join("e2e.test")).arg("--list-images"))?;
    let mut listed: Vec<&str> = listed.lines().collect();
    // Some begin with others.
    listed.sort_by_key(|image| !matches!(name(image), "agnhost" | "busybox"));
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let failed = |error: String| format!("the files of the images: {error}");
    for (folder, tools) in [("busybox", &SHELL[..]), ("agnhost", &TOOLS[..])] {
        root(&scratch.path().join(folder), &busybox).and_then(|root| add(&root, &debian, tools)).map_err(failed)?;
    }
    let files = |from: PathBuf, to: &str| copy(&from, &scratch.path().join(to)).map_err(failed);
    files(programs.join("agnhost"), "agnhost/agnhost")?;
    symlink("agnhost", scratch.path().join("agnhost/agnhost-2")).map_err(|error| failed(error.to_string()))?;
    files(programs.join("nnp"), "nonewprivs/usr/local/bin/nnp")?;
    let nnp = scratch.path().join("nonewprivs/usr/local/bin/nnp");
    fs::set_permissions(nnp, fs::Permissions::from_mode(0o6755)).map_err(|error| failed(error.to_string()))?;
    let source = programs.join("source/test/images");
    for file in ["localhost.crt", "localhost.key"] {
        files(source.join("agnhost/porter").join(file), &format!("agnhost/{file}"))?;
    }
    for page in ["nautilus", "kitten"] {
        files(source.join(page).join("html/data.json"), &format!("{page}/data.json"))?;
    }
    let tag = |name: &str| listed.iter().find(|image| self::name(image) == name).copied().unwrap_or_default();
    let (agnhost, busybox) = (tag("agnhost"), tag("busybox"));
    for image in &listed {
        let Some(text) = containerfile(name(image), agnhost, busybox) else { continue };
        fs::write(scratch.path().join("Containerfile"), text).map_err(|error| error.to_string())?;
        let mut build = Command::new(kapstan);
        build.args(["image", "build", "--tag", image, "--data-dir"]).arg(data).arg(scratch.path());
        capture(&mut build)?;
    }
    Ok(())
}

/// `agnhost` of `registry.k8s.io/e2e-test-images/agnhost:2.63.0`.
fn name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

/// What an image of this name is made from.
fn containerfile(name: &str, agnhost: &str, busybox: &str) -> Option<String> {
    let scratch = |folder: &str, rest: &str| {
        format!("FROM scratch\nCOPY {folder}/ /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n{rest}\n")
    };
    Some(match name {
        "busybox" => scratch("busybox", "CMD [\"sh\"]"),
        "agnhost" | "glibc-dns-testing" => scratch("agnhost", "ENTRYPOINT [\"/agnhost\"]\nCMD [\"pause\"]"),
        "pause" => scratch("agnhost", "ENTRYPOINT [\"/agnhost\", \"pause\"]"),
        // nginx is only asked to run.
        "nginx" => format!("FROM {busybox}\nEXPOSE 80\nCMD [\"httpd\", \"-f\", \"-h\", \"/etc\"]\n"),
        "nautilus" | "kitten" => format!("FROM {agnhost}\nCOPY {name}/ /\nCMD [\"test-webserver\"]\n"),
        "nonroot" => format!("FROM {busybox}\nUSER 1234\n"),
        "nonewprivs" => format!("FROM {busybox}\nCOPY nonewprivs/ /\nCMD [\"nnp\"]\n"),
        _ => return None,
    })
}

/// Debian's packages and all that they need, unpacked into one folder.
fn packages(folder: &Path) -> Result<PathBuf, String> {
    let ready = folder.join("ready");
    if ready.exists() {
        return Ok(folder.to_owned());
    }
    println!("conformance: Debian's packages {} (unpacked, not installed)", PACKAGES.join(", "));
    let mut needed = Command::new("apt-cache");
    needed.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
    let needed = capture(needed.args(["--no-replaces", "--no-enhances"]).args(PACKAGES))?;
    let left_out = |name: &str| ["perl", "debconf", "cdebconf", "dpkg", "tar"].iter().any(|it| name.starts_with(it));
    let named = |line: &&str| line.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && !left_out(line);
    for package in needed.lines().filter(named).collect::<BTreeSet<&str>>() {
        setup::fetch_package(package, folder)?;
    }
    fs::write(ready, "").map_err(|error| error.to_string())?;
    Ok(folder.to_owned())
}

/// busybox under all its names, and the folders that programs expect.
fn root(root: &Path, busybox: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| error.to_string();
    for name in ["bin", "tmp", "etc", "usr", "data", "uploads", "lib64", "lib/x86_64-linux-gnu", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(name)).map_err(failed)?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).map_err(failed)?;
    fs::copy(busybox, root.join("bin/busybox")).map_err(failed)?;
    symlink("bin", root.join("sbin")).and_then(|()| symlink("../bin", root.join("usr/bin"))).map_err(failed)?;
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
                 user-defined-in-image:x:1000:1000::/:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).map_err(failed)?;
    let groups = "root:x:0:\nnobody:x:65534:\nuser-defined-in-image:x:1000:\n\
                  group-defined-in-image:x:50000:user-defined-in-image\n";
    fs::write(root.join("etc/group"), groups).map_err(failed)?;
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n").map_err(failed)?;
    let applets = capture(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).map_err(failed)?;
    }
    Ok(root.to_owned())
}

/// Programs of Debian's packages with the libraries that they load.
fn add(root: &Path, debian: &Path, tools: &[(&str, &str)]) -> Result<(), String> {
    let mut libraries: BTreeSet<PathBuf> = LOADED_LATER.iter().map(PathBuf::from).collect();
    for (to, from) in tools {
        let program = root.join(to);
        let _ = fs::remove_file(&program);
        copy(&debian.join(from), &program)?;
        let shown =
            capture(Command::new("chroot").arg(debian).args([&format!("/{LOADER}"), "--list", &format!("/{from}")]))?;
        let paths = shown.split_whitespace().filter(|word| word.starts_with("/lib/") || word.starts_with("/usr/lib/"));
        libraries.extend(paths.map(|path| PathBuf::from(path.trim_start_matches('/'))));
    }
    copy(&debian.join(LOADER), &root.join(LOADER))?;
    for library in libraries {
        let to = root.join("lib/x86_64-linux-gnu").join(library.file_name().unwrap_or_default());
        copy(&debian.join(&library), &to)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", from.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::copy(from, to).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_their_names() {
        assert_eq!(name("registry.k8s.io/e2e-test-images/agnhost:2.63.0"), "agnhost");
        let of = |name: &str| containerfile(name, "agnhost:1", "busybox:1");
        assert_eq!(of("nonroot").as_deref(), Some("FROM busybox:1\nUSER 1234\n"));
        assert_eq!(of("kitten").as_deref(), Some("FROM agnhost:1\nCOPY kitten/ /\nCMD [\"test-webserver\"]\n"));
        assert_eq!(of("csi-attacher"), None);
    }
}
