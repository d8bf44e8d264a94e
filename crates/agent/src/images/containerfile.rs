//! `kapstan image build`: the part of a Containerfile that needs no build container.
//!
//! FROM (`scratch` or an image that is here), COPY and ADD of local files, ENV, WORKDIR, USER, EXPOSE, LABEL, STOPSIGNAL,
//! ENTRYPOINT and CMD, with the meaning that Docker's reference gives them; the files of all COPYs become one layer. All
//! else is refused with its line and what to do instead. It runs nothing and fetches nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use oci_spec::image::Config;

use super::{Content, Error, FileEntry, Image, Store};

/// Most bytes of a Containerfile.
const MAX_BYTES: u64 = 1 << 20;
/// Most files copied into one image.
const MAX_FILES: usize = 200_000;
/// Deepest folder copied.
const MAX_DEPTH: usize = 256;

impl Store {
    /// Builds the image `name` from the files in `context`, as `containerfile` says (by default `Containerfile` or
    /// `Dockerfile` in `context`).
    pub fn build_containerfile(
        &self,
        name: &str,
        context: &Path,
        containerfile: Option<&Path>,
    ) -> Result<Image, Error> {
        let path = match containerfile {
            Some(path) => path.to_owned(),
            None => default_containerfile(context)?,
        };
        let text = read(&path)?;
        refuse_ignore_files(context)?;
        let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let context = context.canonicalize().map_err(|e| Error::io("cannot open", context, e))?;
        let mut plan = Plan {
            store: self,
            context,
            base: None,
            started: false,
            files: BTreeMap::new(),
            config: Config::default(),
            own_cmd: false,
        };
        for (line, instruction) in instructions(&text) {
            plan.take(&instruction).map_err(|problem| Error::Build(format!("{shown} line {line}: {problem}")))?;
        }
        if !plan.started {
            return Err(Error::Build(format!(
                "{shown} has no FROM; start it with FROM scratch or FROM an image of `kapstan image ls`"
            )));
        }
        let files: Vec<FileEntry> = plan.files.into_values().collect();
        let config = plan.config;
        self.build(name, plan.base.as_deref(), &files, |base| *base = config)
    }
}

fn default_containerfile(context: &Path) -> Result<PathBuf, Error> {
    let candidates = ["Containerfile", "Dockerfile"].map(|name| context.join(name));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::Build(format!("{} has neither Containerfile nor Dockerfile; name one with -f", context.display()))
    })
}

fn read(path: &Path) -> Result<String, Error> {
    let found = fs::metadata(path).map_err(|e| Error::io("cannot read", path, e))?;
    if found.len() > MAX_BYTES {
        return Err(Error::Build(format!("{} is larger than {MAX_BYTES} bytes", path.display())));
    }
    fs::read_to_string(path).map_err(|e| Error::io("cannot read", path, e))
}

fn refuse_ignore_files(context: &Path) -> Result<(), Error> {
    for name in [".containerignore", ".dockerignore"] {
        if fs::metadata(context.join(name)).is_ok_and(|found| found.len() > 0) {
            return Err(Error::Build(format!(
                "{name} is not supported: COPY the wanted files one by one, or from a folder of their own, and remove it"
            )));
        }
    }
    Ok(())
}

/// Instructions with the line they start on: comments left out, continued lines joined.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || (trimmed.is_empty() && open.is_none()) {
            continue;
        }
        let (start, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        match trimmed.strip_suffix('\\') {
            Some(part) => {
                joined.push_str(part);
                joined.push(' ');
                open = Some((start, joined));
            }
            None => {
                joined.push_str(trimmed);
                found.push((start, joined));
            }
        }
    }
    found.extend(open);
    found
}

/// What the instructions so far come to.
struct Plan<'a> {
    store: &'a Store,
    context: PathBuf,
    base: Option<String>,
    started: bool,
    files: BTreeMap<PathBuf, FileEntry>,
    config: Config,
    own_cmd: bool,
}

impl Plan<'_> {
    fn take(&mut self, instruction: &str) -> Result<(), String> {
        let (word, rest) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
        let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
        if !self.started && word != "FROM" {
            return Err(format!("{word} before FROM; start with FROM scratch or FROM an image"));
        }
        if rest.is_empty() {
            return Err(format!("{word} needs an argument"));
        }
        match word.as_str() {
            "FROM" => self.from(rest),
            "COPY" => self.copy(rest),
            "ADD" => self.add(rest),
            "ENV" => self.env(rest),
            "LABEL" => self.label(rest),
            "WORKDIR" => self.work_dir(rest),
            "USER" => self.single(rest).map(|user| {
                self.config.set_user(Some(user));
            }),
            "STOPSIGNAL" => self.single(rest).map(|signal| {
                self.config.set_stop_signal(Some(signal));
            }),
            "EXPOSE" => self.expose(rest),
            "ENTRYPOINT" => self.entrypoint(rest),
            "CMD" => command(rest).map(|cmd| {
                self.own_cmd = true;
                self.config.set_cmd(Some(cmd));
            }),
            "RUN" => Err("RUN is not supported: kapstan starts no build containers; run the step beforehand and COPY its result, or import an image built elsewhere with `kapstan image import`".to_owned()),
            "ARG" => Err("ARG is not supported: write the value, or set it with ENV".to_owned()),
            "HEALTHCHECK" => Err("HEALTHCHECK is not supported: Kubernetes uses the pod's probes".to_owned()),
            "VOLUME" => Err("VOLUME is not supported: declare the volume in the pod".to_owned()),
            "SHELL" => Err("SHELL is not supported: write ENTRYPOINT and CMD as a JSON list".to_owned()),
            "MAINTAINER" => Err("MAINTAINER is not supported: use LABEL org.opencontainers.image.authors=…".to_owned()),
            "ONBUILD" => Err("ONBUILD is not supported: write the instruction in the image that needs it".to_owned()),
            other => Err(format!("{other} is not an instruction known here (FROM, COPY, ADD, ENV, WORKDIR, USER, EXPOSE, LABEL, STOPSIGNAL, ENTRYPOINT, CMD)")),
        }
    }

    fn from(&mut self, rest: &str) -> Result<(), String> {
        if self.started {
            return Err(
                "a second FROM (a multi-stage build) is not supported: build the other image by itself and FROM it"
                    .to_owned(),
            );
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        let image = match words[..] {
            [image] => image,
            [image, as_word, _] if as_word.eq_ignore_ascii_case("AS") => image,
            _ => return Err("write FROM IMAGE".to_owned()),
        };
        if image.starts_with("--") || image.contains('$') {
            return Err(format!("FROM {image} is not supported: write FROM IMAGE without flags and variables"));
        }
        self.started = true;
        if image != "scratch" {
            let base = self.store.find(image).map_err(|e| e.to_string())?;
            let base = base.ok_or_else(|| Error::NotFound(image.to_owned()).to_string())?;
            self.config = base.config.config().clone().unwrap_or_default();
            self.base = Some(image.to_owned());
        }
        Ok(())
    }

    fn words(&self, text: &str) -> Result<Vec<String>, String> {
        words(text, &|name| self.variable(name))
    }

    fn variable(&self, name: &str) -> String {
        let mut known = self.config.env().iter().flatten().filter_map(|pair| pair.split_once('='));
        known.rfind(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.to_owned())
    }

    fn single(&self, rest: &str) -> Result<String, String> {
        match <[String; 1]>::try_from(self.words(rest)?) {
            Ok([word]) => Ok(word),
            Err(words) => Err(format!("takes one argument, not {}", words.len())),
        }
    }

    /// `NAME=VALUE …`, or the old `NAME VALUE`.
    fn pairs(&self, rest: &str) -> Result<Vec<(String, String)>, String> {
        let words = self.words(rest)?;
        if words.first().is_some_and(|first| !first.contains('=')) {
            return match rest.split_once(char::is_whitespace) {
                Some((name, value)) => Ok(vec![(name.to_owned(), self.words(value.trim())?.join(" "))]),
                None => Err(format!("write {rest}=VALUE")),
            };
        }
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not NAME=VALUE")),
        };
        words.iter().map(pair).collect()
    }

    fn env(&mut self, rest: &str) -> Result<(), String> {
        let mut env = self.config.env().clone().unwrap_or_default();
        for (name, value) in self.pairs(rest)? {
            env.retain(|known| known.split_once('=').is_none_or(|(key, _)| key != name));
            env.push(format!("{name}={value}"));
        }
        self.config.set_env(Some(env));
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Result<(), String> {
        let pairs = self.pairs(rest)?;
        self.config.labels_mut().get_or_insert_default().extend(pairs);
        Ok(())
    }

    fn expose(&mut self, rest: &str) -> Result<(), String> {
        let mut ports = self.config.exposed_ports().clone().unwrap_or_default();
        for word in self.words(rest)? {
            let (number, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
            if number.parse::<u16>().is_err() || !["tcp", "udp", "sctp"].contains(&protocol) {
                return Err(format!("{word:?} is not a port: write 80, 80/tcp or 53/udp"));
            }
            let port = format!("{number}/{protocol}");
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        self.config.set_exposed_ports(Some(ports));
        Ok(())
    }

    fn entrypoint(&mut self, rest: &str) -> Result<(), String> {
        self.config.set_entrypoint(Some(command(rest)?));
        if !self.own_cmd {
            // The base's arguments belong to the base's entrypoint.
            self.config.set_cmd(None);
        }
        Ok(())
    }

    fn work_dir(&mut self, rest: &str) -> Result<(), String> {
        let path = self.in_image(&self.single(rest)?)?;
        self.put(FileEntry::new(&path, 0o755, Content::Folder))?;
        self.config.set_working_dir(Some(path.to_string_lossy().into_owned()));
        Ok(())
    }

    fn add(&mut self, rest: &str) -> Result<(), String> {
        for word in self.words(rest)?.iter().filter(|word| !word.starts_with("--")) {
            if word.contains("://") || word.starts_with("git@") {
                return Err(format!("ADD of {word} is not supported: fetch it beforehand and COPY it"));
            }
            let archive = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tar.zst"]
                .iter()
                .any(|end| word.ends_with(end));
            if archive {
                return Err(format!(
                    "ADD would unpack {word}, which is not supported: unpack it beforehand and COPY the folder, or COPY the archive as it is"
                ));
            }
        }
        self.copy(rest)
    }

    fn copy(&mut self, rest: &str) -> Result<(), String> {
        if rest.contains("<<") {
            return Err("here-documents are not supported: put the text into a file and COPY it".to_owned());
        }
        let (flags, rest) = self.copy_flags(rest)?;
        let words = if rest.starts_with('[') { json_list(rest)? } else { self.words(rest)? };
        let Some((target, sources)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
            return Err("write COPY SOURCE… TARGET".to_owned());
        };
        let path = self.in_image(target)?;
        let into = target.ends_with('/') || target == "." || sources.len() > 1 || self.is_folder(&path);
        for source in sources {
            let found = self.in_context(source)?;
            if found.is_dir() {
                self.put(FileEntry { path: path.clone(), mode: 0o755, owner: flags.owner, content: Content::Folder })?;
                self.copy_folder(&found, &path, &flags, 0)?;
            } else {
                let name = Path::new(source).file_name().ok_or_else(|| format!("{source:?} has no file name"))?;
                let path = if into { path.join(name) } else { path.clone() };
                self.copy_file(&found, path, &flags)?;
            }
        }
        Ok(())
    }

    fn copy_flags<'t>(&self, mut rest: &'t str) -> Result<(CopyFlags, &'t str), String> {
        let mut flags = CopyFlags::default();
        while let Some(flag) = rest.split_whitespace().next().filter(|word| word.starts_with("--")) {
            match flag.split_once('=') {
                Some(("--chmod", mode)) => {
                    flags.mode = Some(
                        u32::from_str_radix(mode, 8)
                            .map_err(|_| format!("{flag}: write an octal number, --chmod=755"))?,
                    )
                }
                Some(("--chown", owner)) => {
                    flags.owner = parse_owner(owner).ok_or_else(|| format!("{flag}: write numbers, --chown=UID:GID"))?
                }
                _ => return Err(format!("{flag} is not supported (--chmod and --chown are)")),
            }
            rest = rest[flag.len()..].trim_start();
        }
        Ok((flags, rest))
    }

    fn copy_folder(&mut self, from: &Path, to: &Path, flags: &CopyFlags, depth: usize) -> Result<(), String> {
        let wrong = |e: io::Error| format!("cannot read {}: {e}", from.display());
        if depth > MAX_DEPTH {
            return Err(format!("{} is nested deeper than {MAX_DEPTH} folders", from.display()));
        }
        for entry in fs::read_dir(from).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let (from, to, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type().map_err(wrong)?);
            if kind.is_dir() {
                let mode = flags.mode.unwrap_or(entry.metadata().map_err(wrong)?.mode() & 0o7777);
                self.put(FileEntry { path: to.clone(), mode, owner: flags.owner, content: Content::Folder })?;
                self.copy_folder(&from, &to, flags, depth + 1)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&from).map_err(wrong)?;
                self.put(FileEntry { path: to, mode: 0o777, owner: flags.owner, content: Content::Symlink(target) })?;
            } else {
                self.copy_file(&from, to, flags)?;
            }
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, to: PathBuf, flags: &CopyFlags) -> Result<(), String> {
        let metadata = fs::metadata(from).map_err(|e| format!("cannot read {}: {e}", from.display()))?;
        if !metadata.is_file() {
            return Err(format!("{} is neither a file, a folder nor a link", from.display()));
        }
        let mode = flags.mode.unwrap_or(metadata.mode() & 0o7777);
        self.put(FileEntry { path: to, mode, owner: flags.owner, content: Content::HostFile(from.to_owned()) })
    }

    fn put(&mut self, entry: FileEntry) -> Result<(), String> {
        self.files.insert(entry.path.clone(), entry);
        if self.files.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files; COPY less"));
        }
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        if let Some(entry) = self.files.get(path) {
            return matches!(entry.content, Content::Folder);
        }
        let in_base = |base: &String| {
            self.store
                .tree(base)
                .and_then(|tree| tree.find(path))
                .is_ok_and(|found| found.on_disk.is_some_and(|found| found.is_dir()))
        };
        path == Path::new("/") || self.base.as_ref().is_some_and(in_base)
    }

    /// An absolute path in the image; relative ones start at the working folder.
    fn in_image(&self, path: &str) -> Result<PathBuf, String> {
        let start = Path::new(self.config.working_dir().as_deref().unwrap_or("/"));
        let mut clean = PathBuf::from("/");
        for component in start.join(path).components() {
            match component {
                Component::Normal(part) => clean.push(part),
                Component::ParentDir => drop(clean.pop()),
                _ => {}
            }
        }
        Ok(clean)
    }

    /// A file of the build folder; whatever leads out of it is refused.
    fn in_context(&self, source: &str) -> Result<PathBuf, String> {
        if source.contains(['*', '?', '[']) {
            return Err(format!("{source}: patterns are not supported; name the files, or COPY the folder"));
        }
        let path = self.context.join(source.trim_start_matches('/'));
        let found =
            path.canonicalize().map_err(|e| format!("{source}: {e} (paths are relative to the build folder)"))?;
        if !found.starts_with(&self.context) {
            return Err(format!("{source} lies outside of the build folder; copy it in there first"));
        }
        Ok(found)
    }
}

#[derive(Default)]
struct CopyFlags {
    mode: Option<u32>,
    owner: (u32, u32),
}

fn parse_owner(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Some((user.parse().ok()?, group.parse().ok()?))
}

/// `["a", "b"]`, or a line for the image's shell.
fn command(rest: &str) -> Result<Vec<String>, String> {
    if rest.starts_with('[') {
        return json_list(rest);
    }
    Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()])
}

fn json_list(text: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(text)
        .map_err(|e| format!("{text} is not a JSON list of texts ({e}); write [\"one\", \"two\"] with double quotes"))
}

/// Splits a line into words as a shell does: quotes, backslashes, `$NAME` and `${NAME}` (not within single quotes).
fn words(text: &str, variable: &dyn Fn(&str) -> String) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => found.extend(word.take()),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().push(rest.next().ok_or("ends with a backslash")?),
            ('$', None | Some('"')) => {
                let value = variable(&variable_name(&mut rest)?);
                word.get_or_insert_default().push_str(&value);
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("has a quote that is not closed".to_owned());
    }
    found.extend(word);
    Ok(found)
}

fn variable_name(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let braces = rest.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if name.is_empty() || (braces && rest.next() != Some('}')) {
        return Err("only $NAME and ${NAME} are expanded; write \\$ for a dollar sign".to_owned());
    }
    Ok(name)
}
