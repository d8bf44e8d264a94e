//! `cp`: files into a container and out of it, by a `tar` in the container. Mirrors kubectl `pkg/cmd/cp/cp.go`.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects;
use crate::remote::{Ask, Remote, Said};
use crate::session::Session;
use crate::verbs::exec;

/// Pieces of an archive on their way.
const WAITING: usize = 16;
/// How long what makes pods may take to make one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an archive that are sent at once.
const CHUNK: usize = 32 << 10;

/// Copy files and folders to and from containers.
#[derive(clap::Args)]
pub struct Options {
    /// SOURCE and DESTINATION; one of them is [NAMESPACE/]POD:PATH.
    words: Vec<String>,
    /// The container.
    #[arg(long, short)]
    container: Option<String>,
    /// Do not keep owners and permissions in the container.
    #[arg(long)]
    no_preserve: bool,
    /// How often a copy from a container that broke off is taken up again; negative is without end.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true, value_name = "NUMBER")]
    retries: i64,
}

/// A file here or in a pod.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    namespace: Option<String>,
    pod: Option<String>,
    file: String,
}

impl Spec {
    fn parse(text: &str) -> Result<Spec> {
        let wrong = || Error::told("filespec must match the canonical format: [[namespace/]pod:]file/path");
        let Some((pod, file)) = text.split_once(':') else {
            return Ok(Spec { namespace: None, pod: None, file: text.to_owned() });
        };
        match pod.split('/').collect::<Vec<_>>().as_slice() {
            [""] => Err(wrong()),
            [pod] => Ok(Spec { namespace: None, pod: Some((*pod).to_owned()), file: file.to_owned() }),
            [namespace, pod] => Ok(Spec {
                namespace: Some((*namespace).to_owned()),
                pod: Some((*pod).to_owned()),
                file: file.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

/// Copies.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let [source, destination] = options.words.as_slice() else {
        return Err(Error::told("source and destination are required"));
    };
    let (source, destination) = (Spec::parse(source)?, Spec::parse(destination)?);
    if source.pod.is_some() && destination.pod.is_some() {
        return Err(Error::told("one of src or dest must be a local file specification"));
    }
    if source.file.is_empty() || destination.file.is_empty() {
        return Err(Error::told("filepath can not be empty"));
    }
    match (&source.pod, &destination.pod) {
        (Some(pod), _) => {
            let place = Place::find(session, &options, source.namespace.as_ref(), pod).await?;
            place.fetch(session, &source.file, Path::new(&destination.file), options.retries).await
        }
        (None, Some(pod)) => {
            let file = PathBuf::from(&source.file);
            if fs::symlink_metadata(&file).is_err() {
                return Err(Error::told(format!("{} doesn't exist in local filesystem", source.file)));
            }
            let place = Place::find(session, &options, destination.namespace.as_ref(), pod).await?;
            place.send(session, file, destination.file, options.no_preserve).await
        }
        (None, None) => Err(Error::told("one of src or dest must be a remote file specification")),
    }
}

/// A container in which commands are run.
struct Place {
    path: String,
    container: String,
}

impl Place {
    async fn find(session: &mut Session, options: &Options, namespace: Option<&String>, pod: &str) -> Result<Place> {
        if let Some(namespace) = namespace {
            session.global.namespace = Some(namespace.clone());
        }
        let word = pod.to_owned();
        let (_, pod) = exec::pod(session, Some(&word), objects::Files::default(), PATIENCE).await?;
        exec::running(&pod, "exec into")?;
        let container = match &options.container {
            Some(named) => named.clone(),
            None => exec::container(session, &pod, None, false)?.text("name").to_owned(),
        };
        Ok(Place { path: exec::path(&pod, "exec"), container })
    }

    /// Runs a command with input; its output goes to `output`, its errors to the user.
    async fn run(
        &self,
        session: &mut Session,
        command: &[&str],
        input: Option<Receiver<Bytes>>,
        output: Option<&Sender<Bytes>>,
        taken: &mut u64,
    ) -> Result<()> {
        let ask = Ask {
            path: self.path.clone(),
            container: self.container.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin: input.is_some(),
            tty: false,
        };
        let remote = Remote::open(&session.client()?, &ask).await?;
        let (said, mut heard) = mpsc::channel(WAITING);
        let show = async {
            while let Some(piece) = heard.recv().await {
                match (piece, output) {
                    (Said::Output(bytes), Some(output)) => {
                        *taken += bytes.len() as u64;
                        // Who takes it may have seen enough: the end of an archive is padded.
                        drop(output.send(bytes).await);
                    }
                    (Said::Output(_), None) => {}
                    (Said::Error(bytes), _) => session.io.stderr.write_all(&bytes)?,
                }
            }
            Ok::<_, Error>(())
        };
        let (ended, shown) = tokio::join!(remote.carry(input, None, said), show);
        shown.and(ended)
    }

    /// A folder that is there takes the source in; otherwise the source gets the destination's name.
    async fn send(&self, session: &mut Session, source: PathBuf, destination: String, no_preserve: bool) -> Result<()> {
        let mut destination = destination;
        if self.run(session, &["test", "-d", &destination], None, None, &mut 0).await.is_ok() {
            let name = fs::canonicalize(&source)?.file_name().map(|name| name.to_string_lossy().into_owned());
            destination = format!("{}/{}", destination.trim_end_matches('/'), name.unwrap_or_default());
        }
        let destination = destination.trim_end_matches('/').to_owned();
        let (folder, name) = match destination.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((folder, name)) => (folder, name),
            None => ("", destination.as_str()),
        };
        let mut command = vec!["tar"];
        if no_preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        command.extend(["-xmf", "-"]);
        if !folder.is_empty() {
            command.extend(["-C", folder]);
        }
        let (pieces, archive) = mpsc::channel(WAITING);
        let name = name.to_owned();
        let packed = std::thread::spawn(move || pack(&source, &name, ToChannel { pieces, buffer: Vec::new() }));
        let ran = self.run(session, &command, Some(archive), None, &mut 0).await;
        let packed = packed.join().map_err(|_| Error::told("packing the files panicked"))?;
        // When nobody takes the archive any more, why is the other side's to say.
        ran?;
        packed.map_err(Error::from)
    }

    async fn fetch(&self, session: &mut Session, source: &str, destination: &Path, retries: i64) -> Result<()> {
        let (pieces, archive) = mpsc::channel(WAITING);
        let prefix = inside(source);
        let base = prefix.rsplit('/').next().unwrap_or_default();
        let target = if destination.is_dir() && !base.is_empty() && base != "." {
            destination.join(base)
        } else {
            destination.to_owned()
        };
        let places = Unpack { prefix: prefix.clone(), destination: destination.to_owned(), single: target };
        let unpacked = std::thread::spawn(move || places.unpack(FromChannel { pieces: archive, rest: Bytes::new() }));
        let ran = self.archive(session, source, pieces, retries).await;
        let unpacked = unpacked.join().map_err(|_| Error::told("unpacking the files panicked"))?;
        ran?;
        for warning in unpacked? {
            session.warn(warning)?;
        }
        Ok(())
    }
}

impl Place {
    /// Sends the archive of a file or folder to `pieces`; one that breaks off is taken up where it was.
    async fn archive(&self, session: &mut Session, source: &str, pieces: Sender<Bytes>, retries: i64) -> Result<()> {
        let (mut taken, mut tries) = (0, 0);
        let mut ran = self.run(session, &["tar", "cf", "-", source], None, Some(&pieces), &mut taken).await;
        while let Err(error) = &ran {
            // A command that ended by itself had its say.
            let is_told = error.message().starts_with("command terminated with exit code");
            if is_told || retries >= 0 && tries >= retries {
                break;
            }
            tries += 1;
            session.say(format!("Resuming copy at {taken} bytes, retry {tries}/{retries}"))?;
            let rest = format!("tar cf - {} | tail -c+{}", quoted(source), taken + 1);
            ran = self.run(session, &["sh", "-c", &rest], None, Some(&pieces), &mut taken).await;
        }
        if ran.is_err() && tries > 0 {
            session.say(format!("Dropping out copy after {tries} retries"))?;
        }
        ran
    }
}

/// A word as a shell takes it for itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The path as `tar` names it: no slash at its start, nothing that leads out.
fn inside(path: &str) -> String {
    let parts = Path::new(path).components().fold(Vec::new(), |mut parts, part| {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
        parts
    });
    parts.join("/")
}

fn pack(source: &Path, name: &str, to: ToChannel) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    if fs::symlink_metadata(source)?.is_dir() {
        archive.append_dir_all(name, source)?;
    } else {
        archive.append_path_with_name(source, name)?;
    }
    archive.into_inner()?.flush()
}

/// Where what comes out of a container goes.
struct Unpack {
    /// What the names in the archive begin with.
    prefix: String,
    /// A folder's files go into it.
    destination: PathBuf,
    /// A single file becomes it.
    single: PathBuf,
}

impl Unpack {
    /// Writes the files; gives what the user has to know.
    fn unpack(&self, from: FromChannel) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let mut archive = tar::Archive::new(from);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            let clean = inside(&name);
            let rest = match clean.strip_prefix(&self.prefix) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') || self.prefix.is_empty() => rest,
                _ => return Err(Error::told("tar contents corrupted")),
            };
            if Path::new(&name).components().any(|part| part == Component::ParentDir) {
                warnings.push(format!("warning: file {name:?} is outside target destination, skipping"));
                continue;
            }
            let kind = entry.header().entry_type();
            let rest = rest.trim_start_matches('/');
            let path = match (rest.is_empty(), kind.is_dir()) {
                (true, true) => self.destination.clone(),
                (true, false) => self.single.clone(),
                (false, _) => self.destination.join(rest),
            };
            let failed = |error: io::Error| Error::told(format!("{}: {error}", path.display()));
            if kind.is_dir() {
                fs::create_dir_all(&path).map_err(failed)?;
                continue;
            }
            if !kind.is_file() {
                // A link out of a container could lead anywhere here.
                let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
                warnings.push(format!("warning: skipping symlink: {:?} -> {link:?}", path.display().to_string()));
                continue;
            }
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                fs::create_dir_all(folder).map_err(failed)?;
            }
            let mut file = fs::File::create(&path).map_err(failed)?;
            io::copy(&mut entry, &mut file).map_err(failed)?;
        }
        Ok(warnings)
    }
}

/// An archive on its way into a container.
struct ToChannel {
    pieces: Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        if bytes.is_empty() {
            return Ok(());
        }
        self.pieces.blocking_send(bytes).map_err(|_| io::Error::other("the container takes no more of it"))
    }
}

/// An archive on its way out of a container.
struct FromChannel {
    pieces: Receiver<Bytes>,
    rest: Bytes,
}

impl Read for FromChannel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_here_and_there() {
        let spec = |namespace: Option<&str>, pod: Option<&str>, file: &str| Spec {
            namespace: namespace.map(Into::into),
            pod: pod.map(Into::into),
            file: file.into(),
        };
        assert_eq!(Spec::parse("/tmp/a").unwrap(), spec(None, None, "/tmp/a"));
        assert_eq!(Spec::parse("web:/a").unwrap(), spec(None, Some("web"), "/a"));
        assert_eq!(Spec::parse("ns/web:a/b").unwrap(), spec(Some("ns"), Some("web"), "a/b"));
        assert!(Spec::parse(":/a").is_err());
        assert!(Spec::parse("a/b/c:/a").is_err());
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
        assert_eq!(["/etc/passwd", "../../x", "a/../../b", "./a//b/"].map(inside), ["etc/passwd", "x", "b", "a/b"]);
    }

    /// Packs by hand: a library would refuse such names.
    #[test]
    fn an_archive_writes_only_where_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let (pieces, archive) = mpsc::channel(99);
        let mut builder = tar::Builder::new(ToChannel { pieces, buffer: Vec::new() });
        for name in ["src/one", "src/deep/two", "src/../../out"] {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(4);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, &b"text"[..]).unwrap();
        }
        builder.into_inner().unwrap().flush().unwrap();
        let target = folder.path().join("target");
        let places = Unpack { prefix: "src".into(), destination: target.clone(), single: target.clone() };
        let outcome = places.unpack(FromChannel { pieces: archive, rest: Bytes::new() });
        assert!(outcome.is_err() || !folder.path().join("out").exists());
        assert_eq!(fs::read_to_string(target.join("one")).unwrap(), "text");
        assert_eq!(fs::read_to_string(target.join("deep/two")).unwrap(), "text");
        assert!(!folder.path().join("out").exists() && !folder.path().parent().unwrap().join("out").exists());
    }
}
