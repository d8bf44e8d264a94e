//! Flows to backends that a frontend no longer has (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! The kernel keeps sending a flow to the backend it once chose, and for an established TCP connection that is what is
//! wanted: it is left alone until it ends. Three kinds of flow need care when a backend leaves:
//! - A UDP client that never changes its port would talk to nobody for ever: [`forget`] deletes its flow, and its next packet
//!   draws a new backend. Upstream: `pkg/proxy/conntrack/cleanup.go`.
//! - A TCP handshake that was under way when the rules changed still ends at the old backend. [`settle`] waits until there is
//!   none, which takes a round trip: only then is it true that the backend gets nothing new. Before it looks it lets every
//!   packet pass that a processor may still be holding to the old rules. Upstream has no counterpart.
//! - A TCP flow whose last packets got lost with its pod: [`bury`] deletes it. Upstream has no counterpart.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::thread::{MembarrierCommand, membarrier};

use crate::{
    error::ProxyError,
    netlink::{ACK, Attributes, DUMP, Message, Netlink, attribute},
    rules::{Frontend, Protocol},
};

/// How long handshakes are waited for. One takes a round trip in the pod network, on a machine so busy that packets wait for
/// a processor some hundred milliseconds; what takes longer gets no answer at all, from a backend that is dead already.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AFTER: Duration = Duration::from_micros(200);

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const FAMILY_IPV4: u8 = 2;
const NESTED: u16 = 0x8000;

/// Attributes of a flow: `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_STATUS`, `CTA_PROTOINFO`, `CTA_ID`, `CTA_STATUS_MASK`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_STATE: u16 = 4;
const ID: u16 = 12;
const STATUS_MASK: u16 = 26;
/// Attributes of a tuple.
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const SOURCE: u16 = 1;
const DESTINATION: u16 = 2;
const PROTOCOL: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// `IPS_ASSURED`: the handshake is complete. `IPS_DST_NAT`: the destination was rewritten.
const ASSURED: u32 = 1 << 2;
const REWRITTEN: u32 = 1 << 5;
/// `TCP_CONNTRACK_SYN_SENT` and `TCP_CONNTRACK_SYN_RECV`.
const HANDSHAKE: [u8; 2] = [1, 2];
/// `TCP_CONNTRACK_TIME_WAIT`.
const ENDED: [u8; 1] = [7];

/// Frontends with the backends they have now.
pub(crate) type Present<'a> = BTreeMap<Frontend, &'a [SocketAddrV4]>;

/// Deletes UDP flows to these frontends that do not lead to one of their backends. Returns how many.
pub(crate) fn forget(netlink: &mut Netlink, udp: &Present<'_>) -> Result<usize, ProxyError> {
    if udp.is_empty() {
        return Ok(0);
    }
    let mut deletions = Vec::new();
    netlink.dump(&message(GET, DUMP, "the list of UDP flows"), |body| {
        let flow = body.get(4..).unwrap_or_default();
        if is_stray(flow, Protocol::Udp, udp) == Some(true) {
            deletions.extend(deletion(flow));
        }
    })?;
    delete(netlink, &deletions)
}

/// Waits until no handshake with a former backend of these frontends is under way. Those that do not end are deleted: the
/// client's next attempt draws a new backend. Returns how many these were.
pub(crate) fn settle(netlink: &mut Netlink, tcp: &Present<'_>) -> Result<usize, ProxyError> {
    if tcp.is_empty() {
        return Ok(0);
    }
    pass_old_rules();
    // Kernels before 5.16 do not know the filter and list everything, hence the look at each flow.
    let mut list = message(GET, DUMP, "the list of TCP handshakes");
    list.body.be32(STATUS, REWRITTEN).be32(STATUS_MASK, REWRITTEN | ASSURED);
    let start = Instant::now();
    loop {
        let mut under_way = Vec::new();
        netlink.dump(&list, |body| {
            let flow = body.get(4..).unwrap_or_default();
            if is_in(flow, &HANDSHAKE) && is_stray(flow, Protocol::Tcp, tcp) == Some(true) {
                under_way.extend(deletion(flow));
            }
        })?;
        if under_way.is_empty() {
            return Ok(0);
        }
        if start.elapsed() > SETTLE_LIMIT {
            return delete(netlink, &under_way);
        }
        sleep(LOOK_AGAIN_AFTER);
    }
}

/// Returns once every packet that was being judged by the rules as they were is on its way, and known to connection
/// tracking: packets are judged inside an RCU read section, and the barrier waits until each of those has ended.
fn pass_old_rules() {
    if let Err(error) = membarrier(MembarrierCommand::Global) {
        tracing::debug!(%error, "no barrier: a packet under way to a former backend may be overlooked");
    }
}

/// Deletes TCP flows that were sent to these addresses: their pods are gone. A flow whose end got lost with its pod stays
/// known for minutes; a client that uses the same port again would be sent to nobody. Returns how many.
///
/// Flows that ended in order are left alone: the kernel replaces one by the next from the same port, and that often gets
/// the same memory and so the same id. A deletion that comes a moment late would hit the new flow and cut its connection.
/// One that the pod has reset is not replaced (`nf_conntrack_tcp_packet` in `nf_conntrack_proto_tcp.c`).
pub(crate) fn bury(netlink: &mut Netlink, gone: &BTreeSet<Ipv4Addr>) -> Result<usize, ProxyError> {
    if gone.is_empty() {
        return Ok(0);
    }
    let mut list = message(GET, DUMP, "the list of TCP flows");
    list.body.be32(STATUS, REWRITTEN).be32(STATUS_MASK, REWRITTEN);
    let mut deletions = Vec::new();
    netlink.dump(&list, |body| {
        let flow = body.get(4..).unwrap_or_default();
        let is_gone = backend_of(flow, Protocol::Tcp).is_some_and(|backend| gone.contains(backend.ip()));
        if is_gone && !is_in(flow, &ENDED) {
            deletions.extend(deletion(flow));
        }
    })?;
    delete(netlink, &deletions)
}

/// Deletes flows by name; one that ended meanwhile is as wanted. Returns how many were named.
fn delete(netlink: &mut Netlink, deletions: &[Message]) -> Result<usize, ProxyError> {
    for deletion in deletions {
        match netlink.transact(std::slice::from_ref(deletion)) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            result => result?,
        }
    }
    Ok(deletions.len())
}

/// Where a flow of this protocol is sent in truth.
fn backend_of(flow: &[u8], protocol: Protocol) -> Option<SocketAddrV4> {
    let (original, reply) = (attribute(flow, ORIGINAL)?, attribute(flow, REPLY)?);
    let same = attribute(attribute(original, PORTS)?, PROTOCOL)? == [protocol.number()];
    same.then(|| end(reply, SOURCE, SOURCE_PORT)).flatten()
}

fn message(kind: u16, flags: u16, about: &str) -> Message {
    Message {
        kind: SUBSYSTEM << 8 | kind,
        flags,
        body: Attributes::after(&[FAMILY_IPV4, 0, 0, 0]),
        about: about.into(),
    }
}

/// Whether a flow to one of the frontends leads to none of its backends; `None` for flows of another protocol.
fn is_stray(flow: &[u8], protocol: Protocol, present: &Present<'_>) -> Option<bool> {
    let (original, reply) = (attribute(flow, ORIGINAL)?, attribute(flow, REPLY)?);
    if attribute(attribute(original, PORTS)?, PROTOCOL)? != [protocol.number()] {
        return None;
    }
    let target = end(original, DESTINATION, DESTINATION_PORT)?;
    let backend = end(reply, SOURCE, SOURCE_PORT)?;
    let at = |address| present.get(&Frontend { address, protocol, port: target.port() });
    Some(match at(Some(*target.ip())) {
        Some(backends) => !backends.contains(&backend),
        // A node port: only flows that were sent elsewhere are services'; others are the node's own sockets'.
        None => at(None).is_some_and(|backends| backend.ip() != target.ip() && !backends.contains(&backend)),
    })
}

fn end(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let octets: [u8; 4] = attribute(attribute(tuple, ADDRESSES)?, address)?.try_into().ok()?;
    let port: [u8; 2] = attribute(attribute(tuple, PORTS)?, port)?.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(octets), u16::from_be_bytes(port)))
}

/// Whether a TCP flow is in one of these states.
fn is_in(flow: &[u8], states: &[u8]) -> bool {
    let state = attribute(flow, PROTOCOL_STATE).and_then(|info| attribute(attribute(info, 1)?, 1));
    state.and_then(|state| state.first()).is_some_and(|state| states.contains(state))
}

/// Names the flow by its tuple and its id, so that a new flow with the same ends is rarely hit.
fn deletion(flow: &[u8]) -> Option<Message> {
    let mut message = message(DELETE, ACK, "a flow to a backend that is gone");
    message.body.bytes(ORIGINAL | NESTED, attribute(flow, ORIGINAL)?).bytes(ID, attribute(flow, ID)?);
    Some(message)
}
