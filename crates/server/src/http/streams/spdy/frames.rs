//! SPDY frames: bytes in, frames out, and back. Pure; a header block depends on all that came before it, so each direction
//! of a connection has one [`Reader`] and one [`Writer`].
//!
//! Mirrors what `moby/spdystream` (`spdy/read.go`, `spdy/write.go`) sends and takes. Settings and window updates are read
//! over: kubectl has no use for them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::dictionary;

/// Bytes before what a frame holds.
const HEAD: usize = 8;
/// Bytes of a header block, unpacked.
const HEADERS_MAX: usize = 64 << 10;
/// Bytes of a control frame; one of data is bounded by its three bytes of length.
const CONTROL_MAX: usize = 64 << 10;
const CONTROL: u16 = 0x8000;
const VERSION: u16 = 3;
const LAST: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Names and values.
pub type Headers = Vec<(String, String)>;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// Nothing follows.
        last: bool,
        /// The bytes.
        bytes: Bytes,
    },
    /// A new stream.
    SynStream {
        /// The stream.
        stream: u32,
        /// Its opener sends nothing on it.
        last: bool,
        /// What it is for.
        headers: Headers,
    },
    /// A stream is taken.
    SynReply {
        /// The stream.
        stream: u32,
        /// What there is to say about it.
        headers: Headers,
    },
    /// A stream is broken off.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// A sign of life, to be sent back.
    Ping(u32),
    /// No more streams are opened.
    GoAway,
    /// Something without meaning here.
    Other(u16),
}

/// Reads frames.
pub struct Reader {
    unpacked: Decompress,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { unpacked: Decompress::new(true) }
    }
}

impl Reader {
    /// Takes the first whole frame off `buffer`; `None` when more bytes are needed. After an error nothing more can be read.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
        if buffer.len() < HEAD {
            return Ok(None);
        }
        let (start, flags_and_length) = ((&buffer[..4]).get_u32(), (&buffer[4..8]).get_u32());
        let (flags, length) = ((flags_and_length >> 24) as u8, (flags_and_length & 0xff_ffff) as usize);
        let control = (start >> 16) as u16 & CONTROL != 0;
        if control && CONTROL_MAX < length {
            return Err(format!("a control frame of {length} bytes, more than {CONTROL_MAX}"));
        }
        if buffer.len() < HEAD + length {
            buffer.reserve(HEAD + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEAD);
        let bytes = buffer.split_to(length).freeze();
        let last = flags & LAST != 0;
        if !control {
            return Ok(Some(Frame::Data { stream: start, last, bytes }));
        }
        let version = (start >> 16) as u16 & !CONTROL;
        if version != VERSION {
            return Err(format!("SPDY version {version}, not {VERSION}"));
        }
        self.control(start as u16, last, bytes).map(Some)
    }

    fn control(&mut self, kind: u16, last: bool, mut bytes: Bytes) -> Result<Frame, String> {
        let short = |_| format!("a control frame of type {kind} is too short");
        let mut number = || bytes.try_get_u32().map_err(short);
        Ok(match kind {
            SYN_STREAM => {
                let (stream, _associated) = (number()? & 0x7fff_ffff, number()?);
                bytes.try_get_u16().map_err(short)?; // priority and slot
                Frame::SynStream { stream, last, headers: self.headers(&bytes)? }
            }
            SYN_REPLY => Frame::SynReply { stream: number()?, headers: self.headers(&bytes)? },
            RST_STREAM => Frame::Reset { stream: number()?, status: number()? },
            PING => Frame::Ping(number()?),
            GOAWAY => Frame::GoAway,
            HEADERS => {
                number()?;
                // Of no interest, but later blocks are packed with it.
                self.headers(&bytes)?;
                Frame::Other(HEADERS)
            }
            other => Frame::Other(other),
        })
    }

    fn headers(&mut self, packed: &[u8]) -> Result<Headers, String> {
        let block = self.unpack(packed)?;
        let mut block = block.as_slice();
        let short = |_| "a header block is too short".to_owned();
        let mut headers = Vec::new();
        for _ in 0..block.try_get_u32().map_err(short)? {
            headers.push((text(&mut block)?, text(&mut block)?));
        }
        Ok(headers)
    }

    fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, String> {
        let start = self.unpacked.total_in();
        let mut block = Vec::with_capacity(1 << 10);
        loop {
            let taken = (self.unpacked.total_in() - start) as usize;
            let before = (taken, block.len());
            let step = self.unpacked.decompress_vec(&packed[taken..], &mut block, FlushDecompress::Sync);
            if let Err(error) = step {
                error.needs_dictionary().ok_or_else(|| format!("a header block: {error}"))?;
                self.unpacked.set_dictionary(&dictionary()).map_err(|error| format!("a header block: {error}"))?;
                continue;
            }
            let taken = (self.unpacked.total_in() - start) as usize;
            if block.len() < block.capacity() {
                if taken == packed.len() {
                    return Ok(block);
                }
                if before == (taken, block.len()) {
                    return Err("a header block that does not end".into());
                }
            } else if HEADERS_MAX <= block.len() {
                return Err(format!("a header block of more than {HEADERS_MAX} bytes"));
            } else {
                block.reserve(block.len());
            }
        }
    }
}

fn text(block: &mut &[u8]) -> Result<String, String> {
    let length = block.try_get_u32().map_err(|_| "a header block is too short".to_owned())? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or("a header is longer than its block")?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| "a header is no text".into())
}

/// Writes frames.
pub struct Writer {
    packed: Compress,
}

impl Default for Writer {
    fn default() -> Writer {
        let mut packed = Compress::new(Compression::best(), true);
        packed.set_dictionary(&dictionary()).expect("nothing has been packed yet, so the dictionary can be set");
        Writer { packed }
    }
}

impl Writer {
    /// Appends a frame to `out`.
    pub fn put(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Data { stream, last, bytes } => {
                out.put_u32(*stream);
                out.put_u32(u32::from(*last) << 24 | bytes.len() as u32);
                out.extend_from_slice(bytes);
            }
            Frame::SynStream { stream, last, headers } => {
                let mut body = vec![];
                body.put_u32(*stream);
                body.put_u32(0);
                body.put_u16(0);
                self.pack(headers, &mut body);
                control(SYN_STREAM, *last, &body, out);
            }
            Frame::SynReply { stream, headers } => {
                let mut body = stream.to_be_bytes().to_vec();
                self.pack(headers, &mut body);
                control(SYN_REPLY, false, &body, out);
            }
            Frame::Reset { stream, status } => {
                control(RST_STREAM, false, &[stream.to_be_bytes(), status.to_be_bytes()].concat(), out);
            }
            Frame::Ping(id) => control(PING, false, &id.to_be_bytes(), out),
            Frame::GoAway => control(GOAWAY, false, &[0; 8], out),
            Frame::Other(kind) => control(*kind, false, &[], out),
        }
    }

    fn pack(&mut self, headers: &Headers, body: &mut Vec<u8>) {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(part.len() as u32);
            block.extend(part.as_bytes());
        }
        let start = self.packed.total_in();
        loop {
            body.reserve(block.len() + 64);
            let taken = (self.packed.total_in() - start) as usize;
            let packed = self.packed.compress_vec(&block[taken..], body, FlushCompress::Sync);
            packed.expect("packing into memory does not fail");
            let taken = (self.packed.total_in() - start) as usize;
            if taken == block.len() && body.len() < body.capacity() {
                return;
            }
        }
    }
}

fn control(kind: u16, last: bool, body: &[u8], out: &mut BytesMut) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(last) << 24 | body.len() as u32);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// Frames as a person reads them.
    fn shown(frame: &Frame) -> String {
        let list =
            |headers: &Headers| headers.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
        let end = |last: &bool| if *last { " last" } else { "" };
        match frame {
            Frame::Data { stream, last, bytes } => {
                format!("{stream}: {:?}{}", String::from_utf8_lossy(bytes), end(last))
            }
            Frame::SynStream { stream, last, headers } => format!("{stream}: open{}{}", list(headers), end(last)),
            Frame::SynReply { stream, headers } => format!("{stream}: taken{}", list(headers)),
            Frame::Reset { stream, status } => format!("{stream}: reset {status}"),
            Frame::Ping(id) => format!("ping {id}"),
            Frame::GoAway => "go away".into(),
            Frame::Other(kind) => format!("other {kind}"),
        }
    }

    fn read(bytes: &[u8]) -> String {
        let (mut reader, mut buffer, mut text) = (Reader::default(), BytesMut::from(bytes), String::new());
        loop {
            match reader.take(&mut buffer) {
                Ok(Some(frame)) => text += &(shown(&frame) + "\n"),
                Ok(None) if buffer.is_empty() => return text,
                Ok(None) => return format!("{text}{} bytes wait\n", buffer.len()),
                Err(error) => return format!("{text}error: {error}\n"),
            }
        }
    }

    fn headers(text: &str) -> Headers {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    fn conversation() -> Vec<Frame> {
        vec![
            Frame::SynStream { stream: 1, last: false, headers: headers("streamtype=error port=80 requestid=0") },
            Frame::SynStream { stream: 3, last: true, headers: headers("streamtype=data port=80 requestid=0") },
            Frame::SynReply { stream: 1, headers: Vec::new() },
            Frame::Data { stream: 3, last: false, bytes: Bytes::from_static(b"GET / HTTP/1.1\r\n") },
            Frame::Data { stream: 3, last: true, bytes: Bytes::new() },
            Frame::Ping(7),
            Frame::Reset { stream: 1, status: 5 },
            Frame::GoAway,
        ]
    }

    fn written(frames: &[Frame]) -> Vec<u8> {
        let (mut writer, mut out) = (Writer::default(), BytesMut::new());
        frames.iter().for_each(|frame| writer.put(frame, &mut out));
        out.to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        expect![[r#"
            1: open streamtype=error port=80 requestid=0
            3: open streamtype=data port=80 requestid=0 last
            1: taken
            3: "GET / HTTP/1.1\r\n"
            3: "" last
            ping 7
            1: reset 5
            go away
        "#]]
        .assert_eq(&read(&written(&conversation())));
    }

    /// Two streams as zlib itself packs their headers, with the dictionary, the second with what the first taught.
    #[test]
    fn what_others_write_is_read() {
        expect![[r#"
            1: open streamtype=stdout
            3: open streamtype=resize
        "#]]
        .assert_eq(&read(&hex::decode(FOREIGN).unwrap()));
    }

    const FOREIGN: &str = "800300010000002a0000000100000000000078f9e3c6a7c202a62346703a2b294a4dcc851625c0149b925f5a02000000ffff800300010000001700000003000000000000c22e072c48803107000000ffff";

    #[test]
    fn frames_may_be_cut_anywhere() {
        let bytes = written(&conversation());
        for cut in 0..bytes.len() {
            let (mut reader, mut buffer, mut frames) = (Reader::default(), BytesMut::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(frame) = reader.take(&mut buffer).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, conversation());
        }
    }

    /// Whatever comes, it is read or refused, and never for ever.
    #[test]
    fn damaged_bytes_do_no_harm() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let whole = written(&conversation());
        for _ in 0..5_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            read(&bytes);
        }
    }

    #[test]
    fn what_is_not_spdy_is_refused() {
        let mut large =
            written(&[Frame::SynStream { stream: 1, last: false, headers: vec![("a".into(), "x".repeat(99_999))] }]);
        expect![[r#"
            error: a header block of more than 65536 bytes
        "#]]
        .assert_eq(&read(&large));
        let length = large.len();
        large[12..].fill(0xff);
        assert!(read(&large).starts_with("error: a header block"), "{}", read(&large));
        large.truncate(length - 1);
        assert!(read(&large).ends_with(" bytes wait\n"));
        assert_eq!(read(&[0x80, 2, 0, 1, 0, 0, 0, 0]), "error: SPDY version 2, not 3\n");
        assert_eq!(read(&[0x80, 3, 0, 1, 0, 1, 0, 1]), "error: a control frame of 65537 bytes, more than 65536\n");
        assert_eq!(read(&[0x80, 3, 0, 6, 0, 0, 0, 1, 9]), "error: a control frame of type 6 is too short\n");
        assert_eq!(read(&[0x80, 3, 0, 4, 0, 0, 0, 1, 9]), "other 4\n");
    }
}
