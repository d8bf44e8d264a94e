//! Reading the logs of containers.
//!
//! Lines lie in CRI format (`<time> stdout|stderr F|P <text>`) under `<data-dir>/pods/<uid>/<container>/<attempt>.log`;
//! older parts of the same instance beside it as `<attempt>.log.<suffix>`. Reading never keeps more than a part of a
//! file in memory. Mirrors `pkg/kubelet/kuberuntime/logs/logs.go`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::mpsc;

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;
/// Chunks waiting for a slow reader.
const CHUNKS_WAITING: usize = 4;
/// How often a followed file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Lines that `FallbackToLogsOnError` shows (`MaxContainerTerminationMessageLogLines`).
const LAST_LINES: usize = 80;
/// Bytes of them (`MaxContainerTerminationMessageLogLength`).
const LAST_LINES_BYTES: usize = 2048;

/// Which part of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Go on when the end is reached, until the container has ended.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines not older than this.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// The instance before the present one.
    pub previous: bool,
}

/// Why a log cannot be read; worded as the API server passes it on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It has not been started.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating")]
    NotStarted {
        /// The container.
        container: String,
        /// Its pod.
        pod: String,
    },
    /// There is no earlier instance.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// The container.
        container: String,
        /// Its pod.
        pod: String,
    },
    /// The file cannot be read.
    #[error("reading the log of container \"{container}\" in pod \"{pod}\": {source}")]
    Io {
        /// The container.
        container: String,
        /// Its pod.
        pod: String,
        /// Why.
        source: io::Error,
    },
}

/// The pod whose log is read.
#[derive(Clone, Debug)]
pub struct Whose {
    /// Uid of the pod.
    pub uid: String,
    /// Its name, for errors.
    pub pod: String,
    /// The container.
    pub container: String,
}

/// The log as a stream of bytes. `running` tells a follower whether more may come; it is asked each time the end of
/// the file is reached.
pub async fn read<F: Fn() -> bool + Send + 'static>(
    data_dir: &Path,
    whose: Whose,
    options: Options,
    running: F,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<F>, LogError> {
    let folder = data_dir.join("pods").join(&whose.uid).join(&whose.container);
    let opened = tokio::task::spawn_blocking({
        let options = options.clone();
        move || open(&folder, &whose, &options)
    });
    let reader = opened.await.map_err(|error| LogError::Io {
        container: String::new(),
        pod: String::new(),
        source: io::Error::other(error),
    })??;
    let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || pump(reader, &options, &chunks, &running));
    Ok(futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }))
}

/// The files of one instance, oldest first; the last is the one that grows.
fn files(folder: &Path, attempt: u32) -> io::Result<Vec<PathBuf>> {
    let live = format!("{attempt}.log");
    let mut rotated = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(&live).is_some_and(|rest| rest.starts_with('.')) {
            rotated.push(name);
        }
    }
    // Suffixes are either times, which sort as they were made, or numbers, of which the highest is the oldest.
    let number =
        |name: &str| name.rsplit('.').next().and_then(|suffix| suffix.parse::<u32>().ok()).filter(|n| *n < 1000);
    rotated.sort_by(|one, other| match (number(one), number(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        _ => one.cmp(other),
    });
    let mut files: Vec<_> = rotated.iter().map(|name| folder.join(name)).collect();
    files.push(folder.join(live));
    Ok(files)
}

fn attempts(folder: &Path) -> Vec<u32> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok());
    let mut attempts: Vec<u32> = numbers.collect();
    attempts.sort_unstable();
    attempts
}

fn open(folder: &Path, whose: &Whose, options: &Options) -> Result<LogReader, LogError> {
    let (container, pod) = (whose.container.clone(), whose.pod.clone());
    let mut attempts = attempts(folder);
    if options.previous {
        attempts.pop();
    }
    let Some(attempt) = attempts.last() else {
        return Err(match options.previous {
            true => LogError::NoPrevious { container, pod },
            false => LogError::NotStarted { container, pod },
        });
    };
    let failed = |source| LogError::Io { container: container.clone(), pod: pod.clone(), source };
    let files = files(folder, *attempt).map_err(failed)?;
    let start = match options.tail_lines {
        Some(lines) => tail_start(&files, lines).map_err(failed)?,
        None => (0, 0),
    };
    LogReader::open(files, start).map_err(failed)
}

/// File and offset at which the last `lines` whole lines begin.
fn tail_start(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let mut begins: VecDeque<(usize, u64)> = VecDeque::new();
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut fresh = true;
    for (index, path) in files.iter().enumerate() {
        let mut reader = BufReader::new(File::open(path)?);
        let (mut offset, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if length == 0 {
                break;
            }
            if fresh {
                begins.push_back((index, offset));
                if begins.len() > wanted {
                    begins.pop_front();
                }
            }
            // Parts of a long line belong together.
            fresh = parse(&line).is_none_or(|line| line.whole);
            offset += length as u64;
        }
        if index + 1 == files.len() && wanted == 0 {
            return Ok((index, offset));
        }
    }
    Ok(begins.front().copied().unwrap_or((0, 0)))
}

struct LogReader {
    files: Vec<PathBuf>,
    index: usize,
    file: BufReader<File>,
    partial: Vec<u8>,
}

impl LogReader {
    fn open(files: Vec<PathBuf>, (index, offset): (usize, u64)) -> io::Result<LogReader> {
        let mut file = File::open(&files[index])?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(LogReader { files, index, file: BufReader::new(file), partial: Vec::new() })
    }

    /// The next whole line of the file, or `None` at what is the end now.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            self.file.read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if self.index + 1 >= self.files.len() {
                return Ok(None);
            }
            self.partial.clear();
            self.index += 1;
            self.file = BufReader::new(File::open(&self.files[self.index])?);
        }
    }

    /// A followed file that was rotated goes on under its own name as a new file.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let Some(path) = self.files.last() else { return Ok(false) };
        let Ok(now) = std::fs::metadata(path) else { return Ok(false) };
        if now.ino() == self.file.get_ref().metadata()?.ino() {
            return Ok(false);
        }
        self.partial.clear();
        self.file = BufReader::new(File::open(path)?);
        Ok(true)
    }
}

fn pump(
    mut reader: LogReader,
    options: &Options,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
    running: &dyn Fn() -> bool,
) {
    let mut left = options.limit_bytes.unwrap_or(u64::MAX);
    let mut out = BytesMut::new();
    let mut line_begins = true;
    loop {
        match reader.next() {
            Ok(Some(line)) => {
                append(&mut out, &line, options, &mut line_begins);
                if out.len() < CHUNK {
                    continue;
                }
            }
            Ok(None) => {}
            Err(error) => {
                let _ = chunks.blocking_send(Err(error));
                return;
            }
        }
        let full = out.len() >= CHUNK;
        let keep = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        out.truncate(keep);
        left -= keep as u64;
        if !out.is_empty() && chunks.blocking_send(Ok(out.split().freeze())).is_err() {
            return;
        }
        if left == 0 {
            return;
        }
        if full {
            continue;
        }
        // The end, for now.
        if !options.follow || chunks.is_closed() {
            return;
        }
        let more = running();
        match reader.follow_rotation() {
            Ok(true) => continue,
            Ok(false) if more => std::thread::sleep(LOOK_EVERY),
            // What was written between the last look and the end is still to be read.
            _ => return drain(reader, options, chunks, left, line_begins),
        }
    }
}

fn drain(
    mut reader: LogReader,
    options: &Options,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
    left: u64,
    mut line_begins: bool,
) {
    let mut out = BytesMut::new();
    while let Ok(Some(line)) = reader.next() {
        append(&mut out, &line, options, &mut line_begins);
    }
    out.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(out.len()));
    if !out.is_empty() {
        let _ = chunks.blocking_send(Ok(out.freeze()));
    }
}

struct Line<'a> {
    time: &'a str,
    /// False: a part of a long line, more follows.
    whole: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let _stream = parts.next()?;
    let whole = parts.next()?.first() == Some(&b'F');
    Some(Line { time, whole, text: parts.next().unwrap_or_default() })
}

fn append(out: &mut BytesMut, line: &[u8], options: &Options, line_begins: &mut bool) {
    let Some(line) = parse(line) else { return };
    let old = |since: Timestamp| line.time.parse::<Timestamp>().is_ok_and(|time| time < since);
    if options.since.is_some_and(old) {
        return;
    }
    if options.timestamps && *line_begins {
        out.extend_from_slice(line.time.as_bytes());
        out.extend_from_slice(b" ");
    }
    out.extend_from_slice(line.text);
    *line_begins = line.whole;
    if line.whole {
        out.extend_from_slice(b"\n");
    }
}

/// The last bytes of a file, at most so many, however long it is or gets.
pub fn end_of(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes as u64)))?;
    let mut end = Vec::new();
    file.take(bytes as u64).read_to_end(&mut end)?;
    Ok(end)
}

/// The end of a log, for the message of a container that failed.
pub fn last_lines(path: &Path) -> Vec<u8> {
    // Every line carries some forty bytes of time and stream beside its text.
    let end = end_of(path, LAST_LINES_BYTES + LAST_LINES * 64).unwrap_or_default();
    let lines: Vec<_> = end.split_inclusive(|byte| *byte == b'\n').collect();
    let mut out = BytesMut::new();
    for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
        append(&mut out, line, &Options::default(), &mut true);
    }
    let cut = out.len().saturating_sub(LAST_LINES_BYTES);
    out.split_off(cut).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::io::Write as _;

    fn whose() -> Whose {
        Whose { uid: "u".into(), pod: "p".into(), container: "c".into() }
    }

    fn node(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pods/u/c");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        dir
    }

    async fn text(dir: &Path, options: Options) -> String {
        match read(dir, whose(), options, || false).await {
            Ok(stream) => {
                let parts: Vec<_> = stream.map(|part| part.unwrap()).collect().await;
                String::from_utf8(parts.concat()).unwrap()
            }
            Err(error) => format!("error: {error}"),
        }
    }

    const ONE: &str =
        "2026-01-01T00:00:01.5Z stdout F first\n2026-01-01T00:00:02Z stderr P sec\n2026-01-01T00:00:02Z stderr F ond\n";

    #[tokio::test]
    async fn lines_are_put_together_cut_and_dated() {
        let dir = node(&[
            ("0.log", "2026-01-01T00:00:00Z stdout F old\n"),
            ("1.log.1", ONE),
            ("1.log", "2026-01-01T00:00:03Z stdout F third\n"),
        ]);
        let dir = dir.path();
        assert_eq!(text(dir, Options::default()).await, "first\nsecond\nthird\n");
        assert_eq!(text(dir, Options { tail_lines: Some(2), ..Options::default() }).await, "second\nthird\n");
        assert_eq!(text(dir, Options { tail_lines: Some(0), ..Options::default() }).await, "");
        assert_eq!(text(dir, Options { limit_bytes: Some(8), ..Options::default() }).await, "first\nse");
        assert_eq!(text(dir, Options { previous: true, ..Options::default() }).await, "old\n");
        let since = "2026-01-01T00:00:02Z".parse().ok();
        let dated = text(dir, Options { since, timestamps: true, ..Options::default() }).await;
        assert_eq!(dated, "2026-01-01T00:00:02Z second\n2026-01-01T00:00:03Z third\n");
    }

    #[tokio::test]
    async fn a_line_without_its_end_is_shown_so() {
        let dir = node(&[("1.log", "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:01Z stdout P DONE\n")]);
        assert_eq!(text(dir.path(), Options::default()).await, "one\nDONE");
        assert_eq!(text(dir.path(), Options { tail_lines: Some(1), ..Options::default() }).await, "DONE");
        assert_eq!(last_lines(&dir.path().join("pods/u/c/1.log")), b"one\nDONE");
    }

    #[tokio::test]
    async fn what_is_not_there_is_said() {
        let dir = node(&[]);
        assert_eq!(
            text(dir.path(), Options::default()).await,
            "error: container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        let previous = Options { previous: true, ..Options::default() };
        assert_eq!(
            text(dir.path(), previous).await,
            "error: previous terminated container \"c\" in pod \"p\" not found"
        );
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_written_later_and_ends_with_the_container() {
        let dir = node(&[("0.log", "2026-01-01T00:00:01Z stdout F one\n")]);
        let (running, is_running) = tokio::sync::watch::channel(true);
        let options = Options { follow: true, ..Options::default() };
        let stream = read(dir.path(), whose(), options, move || *is_running.borrow()).await.unwrap();
        let mut stream = Box::pin(stream);
        assert_eq!(stream.next().await.unwrap().unwrap(), "one\n");
        let mut log = File::options().append(true).open(dir.path().join("pods/u/c/0.log")).unwrap();
        log.write_all(b"2026-01-01T00:00:02Z stdout F two\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "two\n");
        log.write_all(b"2026-01-01T00:00:03Z stdout F three\n").unwrap();
        running.send(false).unwrap();
        let rest: Vec<_> = stream.map(|part| part.unwrap()).collect().await;
        assert_eq!(rest.concat(), b"three\n");
    }
}
