//! `cargo xtask images`: nginx images under the names that tutorials use, without any registry.
//!
//! Made from Debian's own packages (nginx, the libraries it needs, busybox for a shell), which are downloaded and unpacked
//! into a scratch folder, never installed. The result is one archive as `docker save` writes it, `target/images/nginx-v1.tar`,
//! for `kapstan image import`: one layer that all images share and a small one each, with an index page, a header, a label
//! and a variable that name the version, so that a test can see who answers. The program inside is the same everywhere;
//! its label says which nginx it really is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The names that the seeds' manifests and Kubernetes' own tutorials use.
const NGINX_TAGS: [&str; 7] = ["1.7.9", "1.9.1", "1.9.2", "1.14.2", "1.16.1", "1.19-alpine", "latest"];
/// A shell to go with them.
const BUSYBOX_TAGS: [&str; 2] = ["latest", "1.28"];
/// Changes when the images do, so that an older archive is not taken for a new one.
const ARCHIVE: &str = "nginx-v1.tar";
/// Folders of packages that an image has no use for; copyright files stay.
const LEFT_OUT: [&str; 9] = [
    "usr/share/man",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/vim",
    "usr/share/apport",
    "usr/share/initramfs-tools",
    "etc/init.d",
    "lib/systemd",
];
/// Most packages followed for libraries.
const MAX_PACKAGES: usize = 40;

const HELP: &str = "cargo xtask images [--out DIR] [--data-dir DIR] [--rebuild]

Builds nginx and busybox images from Debian's packages.
  --out DIR        put the archive there as well (it is kept in target/images)
  --data-dir DIR   import it into the store of this kapstan data folder
  --rebuild        build again although an archive is there";

struct Options {
    out: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    rebuild: bool,
}

/// Runs the command with the arguments after its name.
pub fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return Ok(());
    }
    let options = options(args)?;
    let target = crate::target_folder();
    if options.rebuild {
        build(&place(&target))?;
    }
    let archive = archives(&target)?;
    println!("{}", archive.display());
    if let Some(out) = options.out {
        fs::create_dir_all(&out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
        let copy = out.join(ARCHIVE);
        fs::copy(&archive, &copy).map_err(|e| format!("cannot write {}: {e}", copy.display()))?;
        println!("{}", copy.display());
    }
    options.data_dir.map_or(Ok(()), |data_dir| import(&archive, &data_dir))
}

/// The archive for `kapstan image import`, built when it is not there yet.
pub fn archives(target: &Path) -> Result<PathBuf, String> {
    let archive = place(target);
    if !archive.exists() {
        build(&archive)?;
    }
    Ok(archive)
}

fn place(target: &Path) -> PathBuf {
    target.join("images").join(ARCHIVE)
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options { out: None, data_dir: None, rebuild: false };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut folder = || rest.next().map(PathBuf::from).ok_or_else(|| format!("{arg} needs a folder\n\n{HELP}"));
        match arg.as_str() {
            "--out" => options.out = Some(folder()?),
            "--data-dir" => options.data_dir = Some(folder()?),
            "--rebuild" => options.rebuild = true,
            other => return Err(format!("unknown argument {other}\n\n{HELP}")),
        }
    }
    Ok(options)
}

fn import(archive: &Path, data_dir: &Path) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["run", "--quiet", "--package", "kapstan", "--", "image", "import"])
        .arg(archive)
        .arg("--data-dir")
        .arg(data_dir);
    let status = command.status().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}

fn build(archive: &Path) -> Result<(), String> {
    let folder = archive.parent().ok_or("the archive has no folder")?;
    fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    let scratch = tempfile::TempDir::with_prefix_in("work-", folder)
        .map_err(|e| format!("cannot make a folder in {}: {e}", folder.display()))?;
    let packages = fetch(scratch.path())?;
    let nginx_version = packages.get("nginx").cloned().unwrap_or_default();
    let root = scratch.path().join("root");
    unpack(scratch.path(), &root)?;
    let (base, shell) = (base_layer(&root)?, shell_layer(&root)?);
    let mut out = Archive::create(&scratch.path().join(ARCHIVE))?;
    for tag in NGINX_TAGS {
        out.image(
            &format!("nginx:{tag}"),
            &[&base, &shell, &nginx_layer(tag, &nginx_version)],
            &nginx_config(tag, &nginx_version),
        )?;
    }
    for tag in BUSYBOX_TAGS {
        out.image(
            &format!("busybox:{tag}"),
            &[&users_layer(), &shell],
            &json!({ "Cmd": ["sh"], "Env": [PATH_VARIABLE] }),
        )?;
    }
    out.finish()?;
    fs::rename(scratch.path().join(ARCHIVE), archive).map_err(|e| format!("cannot write {}: {e}", archive.display()))
}

/// Downloads nginx, busybox and every library package they need; says which versions.
fn fetch(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut versions = BTreeMap::new();
    let mut open = vec!["nginx".to_owned(), "busybox-static".to_owned()];
    while let Some(package) = open.pop() {
        if versions.contains_key(&package) {
            continue;
        }
        if versions.len() >= MAX_PACKAGES {
            return Err(format!("nginx seems to need more than {MAX_PACKAGES} packages"));
        }
        let facts = output(Command::new("apt-cache").args(["show", "--no-all-versions", &package])).map_err(|e| {
            format!(
                "package {package} is not known here ({e}); this needs Debian or Ubuntu: run `apt-get update` first"
            )
        })?;
        let field =
            |name: &str| facts.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        for needed in field("Depends:").split(',').chain(field("Pre-Depends:").split(',')) {
            let needed = needed.split(['|', '(', ' ', ':']).find(|word| !word.is_empty()).unwrap_or_default();
            if needed.starts_with("lib") || needed == "zlib1g" || needed == "nginx-common" {
                open.push(needed.to_owned());
            }
        }
        versions.insert(package, field("Version:"));
    }
    let names: Vec<&String> = versions.keys().collect();
    eprintln!("downloading {}", names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "));
    // Downloads need no rights of `_apt`, which could not write into our folder.
    output(
        Command::new("apt-get")
            .args(["--quiet", "--option", "APT::Sandbox::User=", "download"])
            .args(names)
            .current_dir(folder),
    )?;
    Ok(versions)
}

/// Unpacks every package in `folder`, `/lib` and the like merged into `/usr` whether or not the packages do so themselves.
fn unpack(folder: &Path, root: &Path) -> Result<(), String> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let target = root.join("usr").join(name);
        fs::create_dir_all(&target).map_err(|e| format!("cannot make {}: {e}", target.display()))?;
        std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name)).map_err(|e| e.to_string())?;
    }
    let mut packages: Vec<PathBuf> =
        files_in(folder)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    packages.sort();
    for package in packages {
        let mut unpacked = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&package)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run dpkg-deb: {e}"))?;
        let content = unpacked.stdout.take().ok_or("dpkg-deb has no output")?;
        output(
            Command::new("tar")
                .args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--directory"])
                .arg(root)
                .stdin(content),
        )?;
        let status = unpacked.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("dpkg-deb could not read {}: {status}", package.display()));
        }
    }
    Ok(())
}

const PATH_VARIABLE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const NGINX_CONF: &str = "\
# The workers of a stopping nginx (SIGQUIT) finish their requests, but no longer than Kubernetes' usual grace of 30 s allows.
user nginx;
worker_processes 1;
worker_shutdown_timeout 20s;
error_log /dev/stderr notice;
pid /run/nginx.pid;

events {
    worker_connections 1024;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    server_tokens off;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
";

const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnginx:x:101:101:nginx:/nonexistent:/bin/false\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nnginx:x:101:\nnogroup:x:65534:\n";

fn users(layer: &mut Layer) {
    layer.folder("etc", 0o755);
    layer.file("etc/passwd", 0o644, USERS);
    layer.file("etc/group", 0o644, GROUPS);
    for mount_point in ["dev", "proc", "sys"] {
        layer.folder(mount_point, 0o755);
    }
    layer.folder("root", 0o700);
    layer.folder("run", 0o755);
    layer.folder("tmp", 0o1777);
}

fn users_layer() -> Layer {
    let mut layer = Layer::default();
    users(&mut layer);
    layer
}

/// The packages but for busybox, and what nginx wants to find.
fn base_layer(root: &Path) -> Result<Layer, String> {
    let mut layer = Layer::default();
    layer.copy_all(root, root, &|path| {
        let left_out = LEFT_OUT.iter().any(|folder| {
            path.starts_with(folder) || path.strip_prefix("usr").is_ok_and(|path| path.starts_with(folder))
        });
        let document = path.starts_with("usr/share/doc") && path.extension().is_some();
        let gconv = path.components().any(|part| part.as_os_str() == "gconv");
        let busybox = path.file_name().is_some_and(|name| name == "busybox");
        !(left_out || document || gconv || busybox)
    })?;
    users(&mut layer);
    layer.file("etc/nginx/nginx.conf", 0o644, NGINX_CONF);
    layer.folder("var/log/nginx", 0o755);
    layer.link("var/log/nginx/access.log", "/dev/stdout");
    layer.link("var/log/nginx/error.log", "/dev/stderr");
    layer.folder("var/lib/nginx", 0o755);
    Ok(layer)
}

/// busybox under the names that scripts and probes call.
fn shell_layer(root: &Path) -> Result<Layer, String> {
    let busybox = ["usr/bin/busybox", "bin/busybox"]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.is_file())
        .ok_or("busybox-static holds no busybox")?;
    let applets = output(Command::new(&busybox).arg("--list"))?;
    let mut layer = Layer::default();
    layer.folder("usr", 0o755);
    layer.folder("usr/bin", 0o755);
    layer.link("bin", "usr/bin");
    layer.entries.insert(PathBuf::from("usr/bin/busybox"), Entry::Copy { mode: 0o755, from: busybox });
    for applet in applets.lines().filter(|applet| *applet != "busybox" && !applet.contains('/')) {
        layer.link(&format!("usr/bin/{applet}"), "busybox");
    }
    Ok(layer)
}

/// What makes one tag different from the next.
fn nginx_layer(tag: &str, real_version: &str) -> Layer {
    let page = format!(
        "<!DOCTYPE html>\n<html>\n<head><title>Welcome to nginx!</title></head>\n<body>\n<h1>Welcome to nginx!</h1>\n<p>image: nginx:{tag}</p>\n<p>program: Debian's nginx {real_version}</p>\n</body>\n</html>\n"
    );
    // All pages are of the year 1970: their times and lengths do not tell them apart.
    let server = format!(
        "server {{\n    listen 80 default_server;\n    server_name localhost;\n    add_header X-Image-Version {tag} always;\n    location / {{\n        root /usr/share/nginx/html;\n        index index.html index.htm;\n        etag off;\n        if_modified_since off;\n    }}\n}}\n"
    );
    let mut layer = Layer::default();
    for folder in
        ["etc", "etc/nginx", "etc/nginx/conf.d", "usr", "usr/share", "usr/share/nginx", "usr/share/nginx/html"]
    {
        layer.folder(folder, 0o755);
    }
    layer.file("usr/share/nginx/html/index.html", 0o644, &page);
    layer.file("etc/nginx/conf.d/default.conf", 0o644, &server);
    layer
}

fn nginx_config(tag: &str, real_version: &str) -> Value {
    json!({
        "Env": [PATH_VARIABLE, format!("NGINX_VERSION={tag}")],
        "Entrypoint": ["nginx"],
        "Cmd": ["-g", "daemon off;"],
        "ExposedPorts": { "80/tcp": {} },
        "StopSignal": "SIGQUIT",
        "Labels": { "org.opencontainers.image.version": tag, "org.opencontainers.image.title": "nginx", "dev.kapstan.nginx.debian-version": real_version },
    })
}

enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Copy { mode: u32, from: PathBuf },
    Link { target: PathBuf },
}

/// Files of one layer, by path; everything belongs to root.
#[derive(Default)]
struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Layer {
    fn folder(&mut self, path: &str, mode: u32) {
        self.entries.insert(path.into(), Entry::Folder { mode });
    }

    fn file(&mut self, path: &str, mode: u32, content: &str) {
        self.entries.insert(path.into(), Entry::File { mode, content: content.into() });
    }

    fn link(&mut self, path: &str, target: &str) {
        self.entries.insert(path.into(), Entry::Link { target: target.into() });
    }

    fn copy_all(&mut self, root: &Path, folder: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<(), String> {
        for from in files_in(folder)? {
            let path = from.strip_prefix(root).map_err(|e| e.to_string())?.to_owned();
            let found = fs::symlink_metadata(&from).map_err(|e| format!("cannot read {}: {e}", from.display()))?;
            if !keep(&path) {
                continue;
            }
            let mode = found.mode() & 0o7777;
            if found.is_dir() {
                self.entries.insert(path, Entry::Folder { mode });
                self.copy_all(root, &from, keep)?;
            } else if found.is_symlink() {
                let target = fs::read_link(&from).map_err(|e| e.to_string())?;
                self.entries.insert(path, Entry::Link { target });
            } else {
                self.entries.insert(path, Entry::Copy { mode, from });
            }
        }
        Ok(())
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.sparse(false);
        for (path, entry) in &self.entries {
            append(&mut builder, path, entry).map_err(|e| format!("cannot add {}: {e}", path.display()))?;
        }
        builder.into_inner().map_err(|e| e.to_string())
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match entry {
        Entry::Folder { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            builder.append_data(&mut header, path, io::empty())
        }
        Entry::File { mode, content } => {
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_slice())
        }
        Entry::Copy { mode, from } => {
            let content = fs::read(from)?;
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_slice())
        }
        Entry::Link { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, path, target)
        }
    }
}

/// An archive as `docker save` writes it.
struct Archive {
    builder: tar::Builder<File>,
    images: Vec<Value>,
    written: BTreeSet<String>,
}

impl Archive {
    fn create(path: &Path) -> Result<Archive, String> {
        let file = File::create(path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        Ok(Archive { builder: tar::Builder::new(file), images: Vec::new(), written: BTreeSet::new() })
    }

    fn image(&mut self, name: &str, layers: &[&Layer], config: &Value) -> Result<(), String> {
        eprintln!("building {name}");
        let mut diff_ids = Vec::new();
        let mut paths = Vec::new();
        for layer in layers {
            let content = layer.write()?;
            let digest = hex::encode(Sha256::digest(&content));
            let path = format!("{digest}/layer.tar");
            self.add(&path, &content)?;
            diff_ids.push(format!("sha256:{digest}"));
            paths.push(path);
        }
        let config = json!({
            "architecture": architecture()?, "os": "linux", "created": "1970-01-01T00:00:00Z", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": layers.iter().map(|_| json!({ "created_by": "cargo xtask images" })).collect::<Vec<_>>(),
        });
        let config = serde_json::to_vec(&config).map_err(|e| e.to_string())?;
        let path = format!("{}.json", hex::encode(Sha256::digest(&config)));
        self.add(&path, &config)?;
        self.images.push(json!({ "Config": path, "RepoTags": [name], "Layers": paths }));
        Ok(())
    }

    fn add(&mut self, path: &str, content: &[u8]) -> Result<(), String> {
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        self.builder
            .append_data(&mut header, path, content)
            .map_err(|e| format!("cannot write {path} into the archive: {e}"))
    }

    fn finish(mut self) -> Result<(), String> {
        let list = serde_json::to_vec(&self.images).map_err(|e| e.to_string())?;
        self.add("manifest.json", &list)?;
        let mut file = self.builder.into_inner().map_err(|e| e.to_string())?;
        file.flush().and_then(|()| file.sync_all()).map_err(|e| e.to_string())
    }
}

/// This machine's architecture as images name it.
fn architecture() -> Result<&'static str, String> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "riscv64" => Ok("riscv64"),
        other => Err(format!("there are no names for images of {other} here")),
    }
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    list().map_err(|e| format!("cannot list {}: {e}", folder.display()))
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|e| format!("cannot run {program}: {e}"))?;
    if !done.status.success() {
        return Err(format!("{program} failed: {}", String::from_utf8_lossy(&done.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
