//! A container's log file, as the CRI has it: `<time> stdout F <line>`, one file for both streams.
//!
//! Mirrors containerd's CRI logger (`internal/cri/io/logger.go`): a line longer than 16 KiB is written in parts tagged
//! `P`, its end and every shorter line `F`; what is left when a stream ends counts as a line. Rotation mirrors the kubelet
//! (`pkg/kubelet/logs/container_log_manager.go`): at 10 MiB the file is renamed with a time stamp, five files are kept.
//! It never blocks a container: what cannot be written (a full disk) is dropped, and said once in the shim's own log.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The kubelet's longest line; longer ones are cut into parts.
pub const LINE_MAX: usize = 16 << 10;
/// Size at which a log file is put aside.
pub const FILE_MAX: u64 = 10 << 20;
/// Files kept, the current one included.
pub const FILES_KEPT: usize = 5;

/// Which of a container's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Cuts one stream into log lines.
pub struct Lines {
    stream: Stream,
    rest: Vec<u8>,
}

impl Lines {
    /// Lines of `stream`.
    pub fn new(stream: Stream) -> Lines {
        Lines { stream, rest: Vec::new() }
    }

    /// Appends the whole lines that `bytes` completes to `out`.
    pub fn push(&mut self, mut bytes: &[u8], now: &str, out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.rest.extend_from_slice(&bytes[..end]);
            self.cut_long(now, out);
            self.line("F", now, self.rest.len(), out);
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        self.cut_long(now, out);
    }

    /// Appends what is left without a line's end: a part of one (upstream: containerd `internal/cri/io: redirectLogs`).
    pub fn finish(&mut self, now: &str, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.line("P", now, self.rest.len(), out);
        }
    }

    fn cut_long(&mut self, now: &str, out: &mut Vec<u8>) {
        while self.rest.len() > LINE_MAX {
            self.line("P", now, LINE_MAX, out);
        }
    }

    fn line(&mut self, tag: &str, now: &str, length: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{now} {} {tag} ", self.stream.word()).as_bytes());
        out.extend(self.rest.drain(..length));
        out.push(b'\n');
    }
}

/// The file, rotated.
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    failing: bool,
}

impl LogFile {
    /// Opens `path` to append; its folder is made when missing.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { path: path.to_owned(), file, size, failing: false })
    }

    /// Writes lines; rotates first when the file has grown enough.
    pub fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        match self.rotate_when_full().and_then(|()| self.file.write_all(lines)) {
            Ok(()) => {
                self.size += lines.len() as u64;
                self.failing = false;
            }
            Err(error) => {
                if !self.failing {
                    eprintln!("log {} cannot be written, lines are lost: {error}", self.path.display());
                }
                self.failing = true;
            }
        }
    }

    fn rotate_when_full(&mut self) -> io::Result<()> {
        if self.size < FILE_MAX {
            return Ok(());
        }
        let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S.%6f").to_string();
        fs::rename(&self.path, with_suffix(&self.path, &stamp))?;
        self.file = append(&self.path)?;
        self.size = 0;
        for old in rotated(&self.path)?.iter().rev().skip(FILES_KEPT - 1) {
            fs::remove_file(old)?;
        }
        Ok(())
    }
}

/// Files put aside for the log at `path`, oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&name))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

/// The time as log lines have it.
pub fn time_stamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn lines(pieces: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::new(Stream::Stdout), Vec::new());
        for piece in pieces {
            lines.push(piece, "T", &mut out);
        }
        lines.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_tagged_and_the_rest_is_a_part() {
        expect![[r#"
            T stdout F one
            T stdout F two
            T stdout F 
            T stdout P end
        "#]]
        .assert_eq(&lines(&[b"o", b"ne\ntwo\n", b"\ne", b"nd"]));
    }

    #[test]
    fn a_long_line_is_cut_into_parts() {
        let long = vec![b'x'; 2 * LINE_MAX + 1];
        let text = lines(&[&long, b"\n"]);
        let parts: Vec<(&str, usize)> = text.lines().map(|l| (&l[9..10], l.len() - 11)).collect();
        assert_eq!(parts, [("P", LINE_MAX), ("P", LINE_MAX), ("F", 1)]);
        let exact = vec![b'x'; LINE_MAX];
        assert_eq!(lines(&[&exact, b"\n"]).lines().count(), 1, "a line of just that length is whole");
    }

    #[test]
    fn five_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/0.log");
        let mut log = LogFile::open(&path).unwrap();
        for _ in 0..8 {
            log.size = FILE_MAX;
            log.write(b"line\n");
        }
        assert_eq!(rotated(&path).unwrap().len(), FILES_KEPT - 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n");
    }

    #[test]
    fn the_time_is_as_the_kubelet_reads_it() {
        let stamp = time_stamp();
        assert_eq!(stamp.len(), "2006-01-02T15:04:05.000000000Z".len(), "{stamp}");
        assert!(stamp.ends_with('Z'));
    }
}
