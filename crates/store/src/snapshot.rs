//! Snapshots: every live object as of one revision, in a file of frames that ends in a count. Written beside the appends, on
//! any thread; a snapshot counts only once [`crate::Store::adopt`] has given it its name.

use crate::error::{StoreError, damaged, failed};
use crate::folder::{self, SNAPSHOT};
use crate::frame::{self, Body, Found, Header, Kind, Place, Window};
use crate::record::{self, Borrowed, Records};
use crate::segment::{FILE_HEADER, FileHeader};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"kapsSNP\n";
/// Records are gathered to frames of about this many bytes, each synced, so that no append waits long for the disk.
const FRAME: usize = 256 << 10;

/// Writes a snapshot from another thread than the writer's: see [`crate::Store::snapshotter`].
#[derive(Clone, Debug)]
pub struct Snapshotter {
    pub(crate) dir: PathBuf,
}

/// A complete, synced snapshot file that has no name yet; hand it to [`crate::Store::adopt`]. Dropping it removes the file.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) size: Size,
    path: PathBuf,
    published: bool,
}

/// How large a snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes of the file.
    pub file: u64,
    /// Keys and values in it.
    pub live: u64,
    pub objects: u64,
}

impl Snapshotter {
    /// Writes every object that is live at `revision`: key, revision of its last write, value. Takes a moment; appends go on
    /// meanwhile. One at a time: a second one with the same revision would write the same file.
    pub fn write<'a>(
        &self,
        revision: u64,
        live: impl Iterator<Item = (&'a str, u64, &'a [u8])>,
    ) -> Result<Snapshot, StoreError> {
        let path = folder::unfinished(&folder::file(&self.dir, revision, SNAPSHOT));
        let file = folder::create_file(&path)?;
        // From here on a failure drops it, which gives the space back.
        let mut snapshot = Snapshot { revision, size: Size::default(), path, published: false };
        let mut writer = Writer { path: snapshot.path.clone(), revision, file, offset: 0, window: Window::default() };
        snapshot.size = writer.write_all(live)?;
        Ok(snapshot)
    }
}

impl Snapshot {
    /// The revision it was written at.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn publish(mut self, dir: &Path) -> Result<(), StoreError> {
        folder::publish(&self.path, &folder::file(dir, self.revision, SNAPSHOT))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.published {
            // The next `open` removes what cannot be removed now.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

struct Writer {
    path: PathBuf,
    revision: u64,
    file: File,
    offset: usize,
    window: Window,
}

impl Writer {
    fn write_all<'a>(&mut self, live: impl Iterator<Item = (&'a str, u64, &'a [u8])>) -> Result<Size, StoreError> {
        let header = FileHeader { magic: MAGIC, number: self.revision, base: self.revision };
        self.write(&header.write())?;
        let mut size = Size::default();
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        for (key, revision, value) in live {
            let record = Borrowed { revision, key, value: Some(value) };
            size.objects += 1;
            size.live += record.size() as u64;
            record::encode(record, &mut raw);
            if raw.len() >= FRAME {
                self.frame(Kind::Records, &mut raw, &mut out)?;
            }
        }
        if !raw.is_empty() {
            self.frame(Kind::Records, &mut raw, &mut out)?;
        }
        raw.extend_from_slice(&size.objects.to_le_bytes());
        self.frame(Kind::End, &mut raw, &mut out)?;
        self.file.sync_all().map_err(failed("sync", &self.path))?;
        size.file = self.offset as u64;
        Ok(size)
    }

    fn frame(&mut self, kind: Kind, raw: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), StoreError> {
        out.clear();
        let place = Place { file: self.revision, offset: self.offset };
        self.window.encode(kind, self.revision, raw, place, out);
        raw.clear();
        self.write(out)?;
        self.file.sync_data().map_err(failed("sync", &self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))?;
        self.offset += bytes.len();
        Ok(())
    }
}

/// Hands each object of a snapshot to `each`. A snapshot was complete when it got its name, so whatever is wrong with it is
/// damage.
pub(crate) fn read(dir: &Path, revision: u64, mut each: impl FnMut(Borrowed<'_>)) -> Result<Size, StoreError> {
    let path = folder::file(dir, revision, SNAPSHOT);
    let mut reader = Reader::open(path, revision)?;
    let mut size = Size::default();
    while let Some(raw) = reader.records(size.objects)? {
        for record in Records(&raw) {
            let record = record.map_err(|what| reader.damaged(what))?;
            size.objects += 1;
            size.live += record.size() as u64;
            each(record);
        }
    }
    size.file = reader.offset as u64;
    Ok(size)
}

struct Reader {
    path: PathBuf,
    revision: u64,
    file: BufReader<File>,
    offset: usize,
    window: Window,
}

impl Reader {
    fn open(path: PathBuf, revision: u64) -> Result<Reader, StoreError> {
        let file = BufReader::new(File::open(&path).map_err(failed("open", &path))?);
        let mut reader = Reader { path, revision, file, offset: 0, window: Window::default() };
        let mut header = vec![0; FILE_HEADER];
        reader.fill(&mut header)?;
        FileHeader::read(&header, MAGIC, revision, &reader.path)?;
        reader.offset = FILE_HEADER;
        Ok(reader)
    }

    /// The next frame of records; `None` at the end, which must name the number of objects read.
    fn records(&mut self, objects: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut bytes = vec![0; frame::ALIGN];
        self.fill(&mut bytes)?;
        let place = Place { file: self.revision, offset: self.offset };
        let Found::Header(header) = frame::look(&bytes, place) else {
            return Err(self.damaged("a frame's header fails its checksum"));
        };
        bytes.resize(header.stride(), 0);
        self.fill(&mut bytes[frame::ALIGN..])?;
        let raw = self.decode(&header, &bytes)?;
        if header.kind == Kind::End && raw != objects.to_le_bytes() {
            return Err(self.damaged("it does not hold as many objects as were written"));
        }
        self.offset += bytes.len();
        Ok((header.kind == Kind::Records).then_some(raw))
    }

    fn decode(&mut self, header: &Header, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        match frame::body(header, bytes) {
            Body::Sound(stored) => {
                self.window.decode(header, stored).map_err(|what| damaged(&self.path, self.offset, what))
            }
            Body::Cut | Body::Damaged => Err(self.damaged("a frame's body fails its checksum")),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => failed("read", &self.path)(error),
        })
    }

    fn damaged(&self, what: &str) -> StoreError {
        damaged(&self.path, self.offset, what)
    }
}
