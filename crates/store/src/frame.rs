//! Frames: a checksummed header, an LZ4 body, and an end mark; the unit that is durable as a whole or not at all.
//!
//! Pure. How a torn frame is told from a damaged one: segments are zeros before they are written, and a disk writes whole
//! sectors. So a write that a crash interrupted leaves whole sectors of zeros, or a file that ends early; every header and
//! every body ends in a mark that is never zero, and a header never crosses a sector's border. Anything else that fails its
//! checksum was complete once and has changed since. etcd's `wal/decoder.go` (`isTornEntry`) argues the same way.
//! A checksum covers the file's number and the offset too, so a frame that landed in the wrong place is not believed.
//!
//! A body is compressed against the `WINDOW` bytes written before it in the same file: pods of one ReplicaSet differ in a
//! few bytes only.

use lz4_flex::block::{compress_into_with_dict, decompress_into_with_dict, get_maximum_output_size};

/// Frames begin at multiples of this, so that a header lies in one sector.
pub(crate) const ALIGN: usize = 32;
const HEADER: usize = 32;
/// The smallest unit that a disk writes at once.
const SECTOR: usize = 512;
const HEADER_MARK: u8 = 0xA5;
const BODY_MARK: u8 = 0x5A;
/// How far back a body may refer, LZ4's own limit; what it costs and saves is in `docs/decisions/0001-store.md`.
const WINDOW: usize = 64 << 10;
/// How many times smaller bodies get at the least, most of the time.
const EXPECTED_RATIO: usize = 2;
/// A header that claims a larger body than this is not believed.
const MAX_RAW: u32 = 1 << 30;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records.
    Records = 1,
    /// The end of a snapshot.
    End = 2,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The number of the file.
    pub file: u64,
    /// The header's offset in it.
    pub offset: usize,
}

/// A header that passed its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub kind: Kind,
    /// Revision of the frame's last record.
    pub revision: u64,
    /// Bytes of the compressed body.
    stored: u32,
    /// Bytes of the body.
    raw: u32,
    body_crc: u32,
}

/// What is found where a frame may begin.
#[derive(Debug)]
pub(crate) enum Found {
    /// Zeros, or the end of the file.
    Nothing,
    /// A header that was not written to its end.
    Cut,
    /// Bytes that were never written like this.
    Damaged,
    /// A header.
    Header(Header),
}

impl Header {
    /// Bytes of header, body and mark, without padding.
    pub fn length(&self) -> usize {
        HEADER + self.stored as usize + 1
    }

    /// Bytes until the next frame.
    pub fn stride(&self) -> usize {
        self.length().next_multiple_of(ALIGN)
    }

    fn write(&self, place: Place) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..4].copy_from_slice(&self.stored.to_le_bytes());
        out[4..8].copy_from_slice(&self.raw.to_le_bytes());
        out[8..16].copy_from_slice(&self.revision.to_le_bytes());
        out[16..20].copy_from_slice(&self.body_crc.to_le_bytes());
        out[20] = self.kind as u8;
        let crc = checksum(place, &out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out[31] = HEADER_MARK;
        out
    }

    fn read(bytes: &[u8], place: Place) -> Option<Header> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match bytes[20] {
            1 => Kind::Records,
            2 => Kind::End,
            _ => return None,
        };
        let revision = u64::from(word(8)) | u64::from(word(12)) << 32;
        let header = Header { kind, revision, stored: word(0), raw: word(4), body_crc: word(16) };
        let sound = bytes[28..32] == [0, 0, 0, HEADER_MARK] && word(24) == checksum(place, &bytes[..24]);
        (sound && header.raw <= MAX_RAW).then_some(header)
    }
}

/// Looks at the place where a frame may begin; `bytes` starts there and reaches to the end of the file.
pub(crate) fn look(bytes: &[u8], place: Place) -> Found {
    let head = &bytes[..bytes.len().min(HEADER)];
    if is_zero(head) {
        return Found::Nothing;
    }
    match head.len() == HEADER && head[HEADER - 1] != 0 {
        true => Header::read(head, place).map_or(Found::Damaged, Found::Header),
        false => Found::Cut,
    }
}

/// The state of a frame's body.
#[derive(Debug, PartialEq)]
pub(crate) enum Body<'a> {
    /// Complete and unchanged; still compressed.
    Sound(&'a [u8]),
    /// Not written to its end.
    Cut,
    /// Complete once, changed since.
    Damaged,
}

/// Checks the body of a frame; `bytes` starts at its header.
pub(crate) fn body<'a>(header: &Header, bytes: &'a [u8]) -> Body<'a> {
    let Some((&mark, stored)) = bytes.get(HEADER..header.length()).and_then(<[u8]>::split_last) else {
        return Body::Cut;
    };
    if mark == BODY_MARK && crc32fast::hash(stored) == header.body_crc {
        return Body::Sound(stored);
    }
    Body::Damaged
}

/// Whether the frame looks as an interrupted write leaves it: a sector (or what it has of one) of nothing but zeros.
/// `offset` is the header's place in the file, `bytes` starts there.
pub(crate) fn has_unwritten_sector(header: &Header, bytes: &[u8], offset: usize) -> bool {
    let frame = &bytes[..header.length().min(bytes.len())];
    let first = (SECTOR - offset % SECTOR).min(frame.len());
    let (head, rest) = frame.split_at(first);
    is_zero(head) || rest.chunks(SECTOR).any(is_zero) || frame.last() == Some(&0)
}

/// Whether there is a complete frame at or after `from`. Each frame is synced before the next is written, so if there is
/// one, everything before it was durable once.
pub(crate) fn any_frame(bytes: &[u8], file: u64, from: usize) -> bool {
    (from.next_multiple_of(ALIGN)..bytes.len()).step_by(ALIGN).any(|offset| {
        let rest = &bytes[offset..];
        match look(rest, Place { file, offset }) {
            Found::Header(header) => matches!(body(&header, rest), Body::Sound(_)),
            _ => false,
        }
    })
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Folding whole chunks lets the compiler use wide registers: four megabytes of zeros are read at every start.
    bytes.chunks(SECTOR).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

fn checksum(place: Place, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.file.to_le_bytes());
    hasher.update(&(place.offset as u64).to_le_bytes());
    hasher.update(header);
    hasher.finalize()
}

/// The last bytes that went into a file, uncompressed; writer and reader keep the same.
#[derive(Debug, Default)]
pub(crate) struct Window(Vec<u8>);

impl Window {
    /// Compresses `raw` into a frame at `place`, appended to `out` and padded to the next frame's place.
    pub fn encode(&mut self, kind: Kind, revision: u64, raw: &[u8], place: Place, out: &mut Vec<u8>) {
        let start = out.len();
        // Most bodies shrink to a tenth, short and first ones to less; room for the worst case would be the largest buffer of
        // all.
        let room = [raw.len() / EXPECTED_RATIO, get_maximum_output_size(raw.len())];
        let stored = room.into_iter().find_map(|room| {
            out.resize(start + HEADER + room, 0);
            compress_into_with_dict(raw, &mut out[start + HEADER..], &self.0).ok()
        });
        let stored = stored.expect("the output has the size that LZ4 asks for");
        out.truncate(start + HEADER + stored);
        let body_crc = crc32fast::hash(&out[start + HEADER..]);
        let header = Header { kind, revision, stored: stored as u32, raw: raw.len() as u32, body_crc };
        out[start..start + HEADER].copy_from_slice(&header.write(place));
        out.push(BODY_MARK);
        out.resize(start + header.stride(), 0);
        self.push(raw);
    }

    /// The body of a frame, decompressed.
    pub fn decode(&mut self, header: &Header, stored: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut raw = vec![0; header.raw as usize];
        match decompress_into_with_dict(stored, &mut raw, &self.0) {
            Ok(length) if length == raw.len() => {
                self.push(&raw);
                Ok(raw)
            }
            _ => Err("a body cannot be decompressed"),
        }
    }

    fn push(&mut self, raw: &[u8]) {
        let tail = &raw[raw.len().saturating_sub(WINDOW)..];
        let surplus = (self.0.len() + tail.len()).saturating_sub(WINDOW);
        self.0.drain(..surplus);
        self.0.extend_from_slice(tail);
    }
}
