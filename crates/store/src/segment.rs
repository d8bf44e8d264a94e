//! Segments: the log's files. A segment is prepared full of zeros, so that an append changes neither its size nor its block
//! map and `fdatasync` has only data to write; it is full when an append has passed that size (the append that crosses it
//! makes the file grow).
//!
//! The first append of a segment writes the segment's header too, with the revision it continues from: the chain of these
//! revisions shows whether a segment is missing.

use crate::error::{StoreError, damaged, failed};
use crate::folder::{self, LOG};
use crate::frame::{self, ALIGN, Body, Found, Header, Kind, Place, Window};
use crate::record::{Borrowed, Records};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The version of everything in the folder. Raise it when a reader of the old one would misread the new.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a file's header; a multiple of `ALIGN`, and within one sector.
pub(crate) const FILE_HEADER: usize = 64;
const FILE_MARK: u8 = 0xC3;

/// The first bytes of every file of the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FileHeader {
    pub magic: [u8; 8],
    /// The number in the file's name.
    pub number: u64,
    /// The revision that the file continues from.
    pub base: u64,
}

pub(crate) const LOG_MAGIC: [u8; 8] = *b"kapsLOG\n";

impl FileHeader {
    pub fn write(&self) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        out[0..8].copy_from_slice(&self.magic);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..28].copy_from_slice(&self.base.to_le_bytes());
        let crc = crc32fast::hash(&out[..56]);
        out[56..60].copy_from_slice(&crc.to_le_bytes());
        out[63] = FILE_MARK;
        out
    }

    /// Reads a header that is known to be complete; its place and checksum do not depend on the format's version.
    pub fn read(bytes: &[u8], magic: [u8; 8], number: u64, path: &Path) -> Result<FileHeader, StoreError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[63] != FILE_MARK || word(56) != crc32fast::hash(&bytes[..56]) || bytes[0..8] != magic {
            return Err(damaged(path, 0, "its header does not have the checksum it was written with"));
        }
        if word(8) != FORMAT {
            return Err(StoreError::Format { path: path.into(), found: word(8), known: FORMAT });
        }
        if long(12) != number {
            return Err(damaged(path, 0, format!("it was written as number {} and has been renamed", long(12))));
        }
        Ok(FileHeader { magic, number, base: long(20) })
    }
}

/// The segment that appends go to.
#[derive(Debug)]
pub(crate) struct Writer {
    pub number: u64,
    pub position: usize,
    /// Where the newest append begins.
    pub newest: usize,
    pub path: PathBuf,
    /// What the disk does to the next append.
    pub trouble: Option<Trouble>,
    file: File,
    prepared: usize,
    window: Window,
}

/// What a disk may do to an append: for those who simulate one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It takes so many bytes at most, not all of them, and has no room for the rest.
    Full {
        /// What it takes.
        bytes: usize,
    },
    /// It takes all, and cannot say that it is durable.
    SyncFails,
}

impl Writer {
    /// Takes over a file of `prepared` zeros.
    pub fn new(path: PathBuf, number: u64, file: File, prepared: u64) -> Writer {
        let (prepared, window) = (prepared as usize, Window::default());
        Writer { number, path, trouble: None, file, prepared, position: 0, newest: 0, window }
    }

    pub fn is_full(&self) -> bool {
        self.position >= self.prepared
    }

    /// Writes one frame with these bytes and makes it durable; `base` is the revision before it. `buffer` is scratch.
    pub fn append(&mut self, base: u64, revision: u64, raw: &[u8], buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        buffer.clear();
        if self.position == 0 {
            buffer.extend_from_slice(&FileHeader { magic: LOG_MAGIC, number: self.number, base }.write());
        }
        let place = Place { file: self.number, offset: self.position + buffer.len() };
        self.window.encode(Kind::Records, revision, raw, place, buffer);
        self.write(buffer).map_err(failed("write", &self.path))?;
        self.sync().map_err(failed("sync", &self.path))?;
        self.newest = self.position;
        self.position += buffer.len();
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.trouble {
            Some(Trouble::Full { bytes: room }) => {
                let taken = &bytes[..room.min(bytes.len() - 1)];
                self.file.write_all_at(taken, self.position as u64)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => self.file.write_all_at(bytes, self.position as u64),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.trouble {
            Some(Trouble::SyncFails) => Err(io::Error::other("the disk failed")),
            _ => self.file.sync_data(),
        }
    }
}

/// What is at the start of a segment file.
#[derive(Debug, PartialEq)]
pub(crate) enum Start {
    /// Nothing but zeros: prepared, never used.
    Blank,
    /// The trace of a first append that was interrupted, and its bytes.
    Torn(usize),
    /// A header.
    Base(u64),
}

/// Looks at the beginning of a segment.
pub(crate) fn start(dir: &Path, number: u64) -> Result<Start, StoreError> {
    let path = folder::file(dir, number, LOG);
    let head = read_head(&path)?;
    if head.len() == FILE_HEADER && head[FILE_HEADER - 1] != 0 {
        return FileHeader::read(&head, LOG_MAGIC, number, &path).map(|header| Start::Base(header.base));
    }
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    if frame::is_zero(&bytes) {
        return Ok(Start::Blank);
    }
    let header_only = bytes.len() <= FILE_HEADER || frame::is_zero(&bytes[FILE_HEADER..]);
    let never_synced = frame::is_zero(&head) && !frame::any_frame(&bytes, number, FILE_HEADER);
    match header_only || never_synced {
        true => Ok(Start::Torn(written(&bytes))),
        false => Err(damaged(&path, 0, "its header was overwritten")),
    }
}

fn read_head(path: &Path) -> Result<Vec<u8>, StoreError> {
    use std::io::Read;
    let mut head = Vec::with_capacity(FILE_HEADER);
    let file = File::open(path).map_err(failed("open", path))?;
    file.take(FILE_HEADER as u64).read_to_end(&mut head).map_err(failed("read", path))?;
    Ok(head)
}

/// Bytes up to the last one that is not zero.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// What reading a segment found.
#[derive(Debug, PartialEq)]
pub(crate) struct Extent {
    /// Revision of the last record, or the base.
    pub last: u64,
    /// Where the last sound frame ends.
    pub used: usize,
    /// Bytes of an interrupted write after it.
    pub torn: usize,
    /// Size of the file.
    pub size: usize,
}

/// Hands each record of the segment to `each`, in order. Only the log's last segment (`tail`) may end in a torn frame.
pub(crate) fn read(
    dir: &Path,
    number: u64,
    base: u64,
    tail: bool,
    mut each: impl FnMut(Borrowed<'_>),
) -> Result<Extent, StoreError> {
    let path = folder::file(dir, number, LOG);
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    let mut window = Window::default();
    let mut extent = Extent { last: base, used: FILE_HEADER, torn: 0, size: bytes.len() };
    while let Some((header, stored)) = next_frame(&path, &bytes, number, extent.used)? {
        let raw = window.decode(&header, stored).map_err(|what| damaged(&path, extent.used, what))?;
        extent.last = records(&path, &raw, extent.used, extent.last, &mut each)?;
        extent.used += header.stride();
    }
    extent.used = extent.used.min(bytes.len());
    let rest = &bytes[extent.used..];
    extent.torn = written(rest);
    if extent.torn > 0 && !tail {
        return Err(damaged(&path, extent.used, "a frame is incomplete, and there is a later segment"));
    }
    Ok(extent)
}

fn records(
    path: &Path,
    raw: &[u8],
    offset: usize,
    mut last: u64,
    each: &mut impl FnMut(Borrowed<'_>),
) -> Result<u64, StoreError> {
    for record in Records(raw) {
        let record = record.map_err(|what| damaged(path, offset, what))?;
        if record.revision <= last {
            return Err(damaged(path, offset, format!("revision {} follows {last}", record.revision)));
        }
        last = record.revision;
        each(record);
    }
    Ok(last)
}

/// The frame at `offset`; `None` at the end of the log, be it clean or torn; an error where bytes have changed.
fn next_frame<'a>(
    path: &Path,
    bytes: &'a [u8],
    file: u64,
    offset: usize,
) -> Result<Option<(Header, &'a [u8])>, StoreError> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let what = match frame::look(rest, Place { file, offset }) {
        Found::Nothing if frame::is_zero(rest) => return Ok(None),
        Found::Nothing => "a frame is missing before later ones",
        Found::Cut if frame::is_zero(rest.get(ALIGN..).unwrap_or_default()) => return Ok(None),
        Found::Cut | Found::Damaged => return Err(damaged(path, offset, "a frame's header fails its checksum")),
        Found::Header(header) => match frame::body(&header, rest) {
            Body::Sound(stored) => return Ok(Some((header, stored))),
            Body::Damaged if !frame::has_unwritten_sector(&header, rest, offset) => {
                return Err(damaged(path, offset, "a frame's body fails its checksum"));
            }
            Body::Cut | Body::Damaged => "a frame is incomplete before later ones",
        },
    };
    match frame::any_frame(bytes, file, offset + ALIGN) {
        true => Err(damaged(path, offset, what)),
        false => Ok(None),
    }
}
