//! The demo's images: this very program and the libraries it was loaded with, three times, each with another version.

use std::collections::BTreeSet;
use std::path::PathBuf;

use agent::images::{Content, FileEntry, Store};

/// Builds `web:v1`, `web:v2` and `web:v3` into the node's store.
pub fn build(store: &Store, versions: &[&str]) -> Result<(), String> {
    let program = std::fs::read_link("/proc/self/exe").map_err(|error| format!("this program's own file: {error}"))?;
    let mut files = vec![FileEntry::new("/kapstan", 0o755, Content::HostFile(program.clone()))];
    files.extend(
        libraries(&program)?.into_iter().map(|path| FileEntry::new(path.clone(), 0o755, Content::HostFile(path))),
    );
    for folder in ["/tmp", "/proc", "/dev", "/sys", "/etc"] {
        files.push(FileEntry::new(folder, 0o755, Content::Folder));
    }
    let base = "web:base";
    store.build(base, None, &files, |_| {}).map_err(|error| error.to_string())?;
    for version in versions {
        let command = ["/kapstan", "web", "--version-name", version].map(str::to_owned).to_vec();
        let built = store.build(&format!("web:{version}"), Some(base), &[], |config| {
            config.set_entrypoint(Some(command));
        });
        built.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The shared libraries this process was loaded with, the loader among them.
fn libraries(program: &std::path::Path) -> Result<BTreeSet<PathBuf>, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let mapped = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| path.starts_with('/'));
    let mut found: BTreeSet<PathBuf> = mapped.map(PathBuf::from).filter(|path| path != program).collect();
    // Programs name the loader by a path of its own, which is often a link to the file that is mapped.
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].into_iter().map(PathBuf::from);
    found.extend(loaders.filter(|path| path.exists()));
    Ok(found)
}
