//! Netlink: messages out, acknowledgements in. Knows the framing (`linux/netlink.h`) and nothing of what is said.
//!
//! The kernel works a request off before `send` returns, so every answer is already waiting then and nothing here blocks.
//! All numbers of nf_tables and conntrack are big-endian; the framing itself is in the machine's own order.

use std::io;

use netlink_sys::{Socket, SocketAddr};

use crate::error::ProxyError;

pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
const REQUEST: u16 = 0x1;
const ANSWER_CAPPED: u16 = 0x100;
const ANSWER_HAS_WORDS: u16 = 0x200;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const ATTRIBUTE_WORDS: u16 = 1;
const ATTRIBUTE_NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// The send buffer asked for, which bounds one atomic batch: enough for tens of thousands of services.
const SEND_BUFFER: usize = 64 << 20;
/// Room for acknowledgements: one for each message that failed.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The largest datagram the kernel answers with is 32 KiB; an error repeats the header of its message only.
const ANSWER_BUFFER: usize = 128 << 10;
/// The kernel keeps a little of the send buffer for itself.
const SEND_BUFFER_RESERVE: usize = 4096;

/// Attributes under construction: length, kind, value, padded to four bytes, nested at will.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes(pub(crate) Vec<u8>);

impl Attributes {
    /// Starts with the fixed part that comes before the attributes of a message.
    pub(crate) fn after(fixed: &[u8]) -> Self {
        Attributes(fixed.to_vec())
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest_kind(kind, |inner| inner.0.extend_from_slice(value))
    }

    /// A string, with the zero byte that the kernel expects.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest_kind(kind, |inner| {
            inner.0.extend_from_slice(value.as_bytes());
            inner.0.push(0);
        })
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        self.nest_kind(kind | ATTRIBUTE_NESTED, fill)
    }

    /// Callers keep an attribute below 64 KiB: only lists of set elements grow, and they are cut (`nftables::elements`).
    fn nest_kind(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("attributes are cut below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// The attributes in `bytes`: kind without flags, and value. Stops at the first that is cut off.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// One request to the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Attributes,
    /// What it is about, for messages to people: `chain pick-3`.
    pub(crate) about: String,
}

impl Message {
    pub(crate) fn size(&self) -> usize {
        HEADER + self.body.0.len()
    }

    fn write(&self, sequence: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(self.size()).expect("a message holds a few attributes below 64 KiB each");
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&self.body.0);
    }
}

/// The kernel said no.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) object: String,
    pub(crate) errno: i32,
    /// The kernel's own explanation, often empty.
    pub(crate) words: String,
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it, wherever it is used later.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    /// How many bytes one datagram may have.
    limit: usize,
}

impl Netlink {
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Old kernels have neither; then errors are only larger and less talkative.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        // The forced size needs the machine's root, not only that of a user namespace; without it `wmem_max` is the bound.
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER).is_err() {
            rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        }
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        // The kernel reports twice what may be used.
        let limit = (rustix::net::sockopt::socket_send_buffer_size(&socket)? / 2).saturating_sub(SEND_BUFFER_RESERVE);
        Ok(Netlink { socket, sequence: 1, limit })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn lower_limit(&mut self, bytes: usize) {
        self.limit = self.limit.min(bytes);
    }

    /// Sends all messages as one datagram and waits for the acknowledgement of those that asked for one.
    /// The first refusal is the result.
    pub(crate) fn transact(&mut self, messages: &[Message]) -> Result<(), ProxyError> {
        let first = self.send(messages)?;
        let wants_answer = messages.iter().any(|message| message.flags & ACK != 0);
        let mut answered = !wants_answer;
        let mut refusal = None;
        self.answers(&about(messages), |kind, flags, sequence, payload| {
            if kind != TYPE_ERROR {
                return true;
            }
            match errno(payload) {
                0 => answered = true,
                errno => {
                    let index = sequence.wrapping_sub(first) as usize;
                    let object = messages.get(index).map_or_else(|| about(messages), |message| message.about.clone());
                    refusal.get_or_insert(Refusal { object, errno, words: words(flags, payload) });
                }
            }
            true
        })?;
        match refusal {
            Some(refusal) => Err(ProxyError::refused(refusal)),
            None if answered => Ok(()),
            None => Err(exchange(&about(messages), io::Error::other("the kernel did not acknowledge it"))),
        }
    }

    /// Asks for a list and hands each answer's body to `each`.
    pub(crate) fn dump(&mut self, message: &Message, mut each: impl FnMut(&[u8])) -> Result<(), ProxyError> {
        self.send(std::slice::from_ref(message))?;
        let mut refusal = None;
        let mut done = false;
        // A long list is produced while it is read: there is always a next part until the end is announced.
        while !done {
            let seen = self.answers(&message.about, |kind, flags, _, payload| {
                match kind {
                    TYPE_DONE => done = true,
                    TYPE_ERROR => {
                        done = true;
                        let errno = errno(payload);
                        if errno != 0 {
                            let words = words(flags, payload);
                            refusal = Some(Refusal { object: message.about.clone(), errno, words });
                        }
                    }
                    _ => each(payload),
                }
                !done
            })?;
            if seen == 0 && !done {
                return Err(exchange(&message.about, io::Error::other("the kernel's list has no end")));
            }
        }
        refusal.map_or(Ok(()), |refusal| Err(ProxyError::refused(refusal)))
    }

    fn send(&mut self, messages: &[Message]) -> Result<u32, ProxyError> {
        let first = self.sequence;
        let mut datagram = Vec::with_capacity(messages.iter().map(Message::size).sum());
        for message in messages {
            message.write(self.sequence, &mut datagram);
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.socket
            .send_to(&datagram, &SocketAddr::new(0, 0), 0)
            .map_err(|source| exchange(&about(messages), source))?;
        Ok(first)
    }

    /// Hands every waiting answer (kind, flags, sequence, payload) to `each` until it returns false; says how many there were.
    fn answers(&self, about: &str, mut each: impl FnMut(u16, u16, u32, &[u8]) -> bool) -> Result<usize, ProxyError> {
        let mut seen = 0;
        loop {
            let mut buffer = Vec::with_capacity(ANSWER_BUFFER);
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(exchange(about, error)),
            }
            let mut rest = buffer.as_slice();
            while let Some((kind, flags, sequence, payload, length)) = header(rest) {
                seen += 1;
                if !each(kind, flags, sequence, payload) {
                    return Ok(seen);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn exchange(object: &str, source: io::Error) -> ProxyError {
    ProxyError::Exchange { object: object.to_owned(), source }
}

fn about(messages: &[Message]) -> String {
    messages.first().map_or_else(String::new, |message| message.about.clone())
}

fn header(bytes: &[u8]) -> Option<(u16, u16, u32, &[u8], usize)> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(number(0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
    Some((kind, flags, number(8)?, bytes.get(HEADER..length)?, length))
}

/// The error number of an answer; zero is an acknowledgement.
fn errno(payload: &[u8]) -> i32 {
    let number = payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    number.wrapping_neg()
}

/// The kernel's explanation, which follows the message it repeats: the whole of it, or only its header when capped.
fn words(flags: u16, payload: &[u8]) -> String {
    if flags & ANSWER_HAS_WORDS == 0 {
        return String::new();
    }
    let repeated = payload.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
    let repeated = if flags & ANSWER_CAPPED != 0 { HEADER } else { repeated.next_multiple_of(4) };
    let found = payload.get(4 + repeated..).and_then(|rest| attribute(rest, ATTRIBUTE_WORDS));
    found.map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()).unwrap_or_default()
}
