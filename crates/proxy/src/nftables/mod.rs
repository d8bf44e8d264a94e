//! The table `kapstan` in the kernel's nf_tables: what it looks like, and the messages that change it.
//!
//! ```text
//! map services   address . protocol . port          -> goto a chain        one element a frontend
//! map backends   address . protocol . port . slot   -> address . port      one element a backend
//! chain pick-3   draw a slot below 3, look it up in backends, rewrite the destination
//! ```
//! So the time a packet takes, and the number of chains, do not grow with services; a changed service changes a few elements
//! of two hash tables and nothing else. There are two further tables for session affinity (`affinity`: client -> backend,
//! filled by the kernel; `live`: backends that still count) and one, `hairpin`, for pods that reach themselves.
//!
//! It never reads rules back and never touches another table. Upstream's counterpart is `pkg/proxy/nftables/proxier.go`,
//! which has two chains per service port and one per endpoint.

mod expression;

use std::net::SocketAddrV4;

use expression::{Expressions, Register, Remember, address_bytes, go_to, port_bytes, protocol_bytes};
use ipnet::Ipv4Net;

use crate::{
    delta::{Delta, Shape},
    error::ProxyError,
    netlink::{ACK, APPEND, Attributes, CREATE, Message, Netlink},
    rules::Frontend,
};

const TABLE: &str = "kapstan";
const SERVICES: &str = "services";
const BACKENDS: &str = "backends";
const HAIRPIN: &str = "hairpin";
const AFFINITY: &str = "affinity";
const LIVE: &str = "live";
const REFUSE: &str = "refuse";

/// The packet mark for "replace the client's address", the bit that upstream's kube-proxy uses.
const MASQUERADE_MARK: u32 = 0x4000;
/// How many clients the kernel remembers a backend for; further ones get any backend.
const MAX_AFFINITY_CLIENTS: u32 = 1 << 18;
/// Bytes of set elements in one message; an attribute's length has sixteen bits.
const MAX_ELEMENT_BYTES: usize = 48 << 10;

const FAMILY_IPV4: u8 = 2;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const SET_IS_MAP: u32 = 0x8;
const SET_HAS_TIMEOUT: u32 = 0x10;
const SET_IS_DYNAMIC: u32 = 0x20;

/// The type numbers that `nft list` shows elements by; six bits each in a concatenation. The kernel does not read them.
const SHOW_ADDRESS: u32 = 7;
const SHOW_PROTOCOL: u32 = 12;
const SHOW_PORT: u32 = 13;
const SHOW_NUMBER: u32 = 19;
const SHOW_VERDICT: u32 = 0xffff_ff00;

/// Registers of a packet's frontend, as every chain fills them.
const ADDRESS: Register = Register(0);
const PROTOCOL: Register = Register(1);
const PORT: Register = Register(2);
/// First the slot, then, in the same place, the backend: address and port.
const SLOT: Register = Register(3);
const BACKEND: Register = Register(3);
const BACKEND_PORT: Register = Register(4);
/// The key of a remembered client: frontend, then client.
const CLIENT_KEY: [Register; 4] = [Register(8), Register(9), Register(10), Register(11)];
const SCRATCH: Register = Register(12);

/// Messages that only make sense together: never split over two batches.
type Unit = Vec<Message>;

/// What the table is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranges {
    pub(crate) pods: Ipv4Net,
    pub(crate) services: Ipv4Net,
}

/// Replaces whatever table there is by one with these rules.
pub(crate) fn replace(netlink: &mut Netlink, ranges: Ranges, all: &Delta) -> Result<(), ProxyError> {
    let mut units = vec![skeleton(ranges)];
    units.extend(changes(all));
    send(netlink, units)
}

/// Changes the table by a delta.
pub(crate) fn change(netlink: &mut Netlink, delta: &Delta) -> Result<(), ProxyError> {
    send(netlink, changes(delta))
}

/// Whether the table is there.
pub(crate) fn exists(netlink: &mut Netlink) -> Result<bool, ProxyError> {
    let mut ask = message(GET_TABLE, ACK, "table kapstan".into());
    ask.body.text(1, TABLE);
    match netlink.transact(&[ask]) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the table, if there is one.
pub(crate) fn remove(netlink: &mut Netlink) -> Result<(), ProxyError> {
    send(netlink, vec![vec![table(NEW_TABLE, CREATE), table(DELETE_TABLE, 0)]])
}

/// Sends units in as few batches as the socket allows. Each batch takes effect as a whole.
///
/// One is the rule. Only without root of the machine, where `wmem_max` bounds a batch, a very large change takes several, and
/// the order of [`changes`] sees to it that no packet finds half a service in between.
fn send(netlink: &mut Netlink, units: Vec<Unit>) -> Result<(), ProxyError> {
    let mut batch: Vec<Message> = Vec::new();
    let mut size = 0;
    for unit in units {
        let more: usize = unit.iter().map(Message::size).sum();
        if size + more > netlink.limit() && !batch.is_empty() {
            send_batch(netlink, std::mem::take(&mut batch))?;
            size = 0;
        }
        size += more;
        batch.extend(unit);
    }
    if batch.is_empty() { Ok(()) } else { send_batch(netlink, batch) }
}

fn send_batch(netlink: &mut Netlink, messages: Vec<Message>) -> Result<(), ProxyError> {
    let mut datagram = Vec::with_capacity(messages.len() + 2);
    datagram.push(boundary(BATCH_BEGIN));
    datagram.extend(messages);
    // The kernel answers after the commit, so the acknowledgement of the last change is that of the whole batch.
    if let Some(last) = datagram.last_mut() {
        last.flags |= ACK;
    }
    datagram.push(boundary(BATCH_END));
    netlink.transact(&datagram)
}

fn boundary(kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message {
        kind,
        flags: 0,
        body: Attributes::after(&[0, 0, high, low]),
        about: "the table kapstan as a whole".into(),
    }
}

fn message(kind: u16, flags: u16, about: String) -> Message {
    Message { kind: SUBSYSTEM << 8 | kind, flags, body: Attributes::after(&[FAMILY_IPV4, 0, 0, 0]), about }
}

fn table(kind: u16, flags: u16) -> Message {
    let mut table = message(kind, flags, "table kapstan".into());
    table.body.text(1, TABLE);
    table
}

// ---- what is always there ----

/// An empty table: sets, base chains, refusal. Removes an older one first.
fn skeleton(ranges: Ranges) -> Unit {
    let frontend = &[SHOW_ADDRESS, SHOW_PROTOCOL, SHOW_PORT];
    let backend = (shown(&[SHOW_ADDRESS, SHOW_PORT]), 8);
    let slot = &[SHOW_ADDRESS, SHOW_PROTOCOL, SHOW_PORT, SHOW_NUMBER];
    let client = &[SHOW_ADDRESS, SHOW_PROTOCOL, SHOW_PORT, SHOW_ADDRESS];
    let live = &[SHOW_ADDRESS, SHOW_PROTOCOL, SHOW_PORT, SHOW_ADDRESS, SHOW_PORT];
    let mut unit = vec![table(NEW_TABLE, CREATE), table(DELETE_TABLE, 0), table(NEW_TABLE, CREATE)];
    unit.push(set(1, SERVICES, 0, frontend, Some((SHOW_VERDICT, 0))));
    unit.push(set(2, BACKENDS, 0, slot, Some(backend)));
    unit.push(set(3, HAIRPIN, 0, &[SHOW_ADDRESS, SHOW_ADDRESS], None));
    unit.push(set(4, AFFINITY, SET_HAS_TIMEOUT | SET_IS_DYNAMIC, client, Some(backend)));
    unit.push(set(5, LIVE, 0, live, None));
    unit.extend([chain(NEW_CHAIN, REFUSE), chain(NEW_CHAIN, SERVICES)]);
    unit.extend(rules(REFUSE, refuse()));
    unit.extend(rules(SERVICES, enter(ranges)));
    let to_services = || vec![Expressions::default().jump(SERVICES)];
    for (name, kind, hook, priority, content) in [
        ("prerouting", "nat", 0, -100, to_services()),
        ("output", "nat", 3, -100, to_services()),
        ("postrouting", "nat", 4, 100, leave(ranges)),
        ("filter-forward", "filter", 2, 0, forward(ranges)),
        ("filter-output", "filter", 3, 0, say_nothing_of_shorter_ways(ranges)),
    ] {
        unit.push(base_chain(name, kind, hook, priority));
        unit.extend(rules(name, content));
    }
    unit
}

/// The first packet of a connection, from a pod, from outside or from the node itself.
fn enter(ranges: Ranges) -> Vec<Expressions> {
    let loopback = Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 8);
    let port =
        |loaded: Expressions| loaded.load_protocol(PROTOCOL).load_destination_port(PORT).follow(SERVICES, ADDRESS);
    vec![
        port(Expressions::default().load_destination(ADDRESS)),
        // No such service, or no such port: nothing beyond this node could answer either.
        Expressions::default().only_to(ranges.services, SCRATCH).go_to(REFUSE),
        // A node port. A packet from the loopback address could never be answered, so it is left alone as upstream does.
        port(Expressions::default().only_not_to(loopback, SCRATCH).only_to_this_node(SCRATCH).load_zero(ADDRESS)),
    ]
}

fn leave(ranges: Ranges) -> Vec<Expressions> {
    vec![
        // A pod that was sent to itself would answer itself directly and never be understood.
        Expressions::default()
            .load_source(Register(0))
            .load_destination(Register(1))
            .only_in_set(HAIRPIN, Register(0))
            .masquerade(),
        Expressions::default().only_marked(MASQUERADE_MARK, SCRATCH).masquerade(),
        Expressions::default().only_from(ranges.pods, SCRATCH).only_not_to(ranges.pods, SCRATCH).masquerade(),
    ]
}

/// A pod's answer that the kernel cannot match to its connection (out of its window, say) would reach the client with the
/// pod's own address; the client would reset the connection. Lost, it is sent again and matched.
fn forward(ranges: Ranges) -> Vec<Expressions> {
    vec![Expressions::default().only_from(ranges.pods, SCRATCH).only_of_no_connection(SCRATCH).drop()]
}

/// Two pods on one bridge: the kernel would tell them of the shorter way, past this node, where nothing is rewritten.
fn say_nothing_of_shorter_ways(ranges: Ranges) -> Vec<Expressions> {
    vec![Expressions::default().only_to(ranges.pods, SCRATCH).only_icmp_redirects(SCRATCH).drop()]
}

fn refuse() -> Vec<Expressions> {
    vec![Expressions::default().only_tcp(SCRATCH).reset(), Expressions::default().port_unreachable()]
}

// ---- what services need ----

/// The rules of a chain that draws a backend.
fn pick(shape: &Shape) -> Vec<Expressions> {
    let frontend = || load_frontend(shape, [ADDRESS, PROTOCOL, PORT]);
    let drawn = |from: Expressions| from.draw(shape.slots, SLOT).look_up(BACKENDS, ADDRESS, BACKEND);
    let sent = |from: Expressions| {
        let marked = if shape.masquerade { from.mark(MASQUERADE_MARK, SCRATCH) } else { from };
        marked.send_to(BACKEND, BACKEND_PORT)
    };
    let mut rules = Vec::new();
    if let Some(seconds) = shape.affinity {
        let [address, protocol, port, client] = CLIENT_KEY;
        let with_client = |from: Expressions| {
            let key = load_frontend(shape, [address, protocol, port]);
            let mut both = from;
            both.0.0.extend_from_slice(&key.0.0);
            both.load_source(client)
        };
        let remember = |from: Expressions, what| from.remember(what, AFFINITY, address, BACKEND, seconds);
        // The client is known, and its backend still counts.
        let known = with_client(frontend()).look_up(AFFINITY, address, BACKEND).only_in_set(LIVE, ADDRESS);
        rules.push(sent(remember(known, Remember::Refresh)));
        // It is not, or its backend is gone: a new one, remembered instead.
        let fresh = remember(drawn(with_client(frontend())), Remember::Forget);
        rules.push(sent(remember(fresh, Remember::Add)));
    }
    // No affinity, or no room to remember more clients.
    rules.push(sent(drawn(frontend())));
    rules
}

fn load_frontend(shape: &Shape, [address, protocol, port]: [Register; 3]) -> Expressions {
    let start = Expressions::default();
    let start = if shape.node_port { start.load_zero(address) } else { start.load_destination(address) };
    start.load_protocol(protocol).load_destination_port(port)
}

/// The messages of a delta, in an order in which every prefix leaves each service whole: what is pointed at comes before what
/// points, and goes after it; a replaced element goes and comes in one unit.
fn changes(delta: &Delta) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (shape, ()) in &delta.shapes.added {
        let name = shape.to_string();
        let mut unit = vec![chain(NEW_CHAIN, &name)];
        unit.extend(rules(&name, pick(shape)));
        units.push(unit);
    }
    let singles = |units: &mut Vec<Unit>, messages: Vec<Message>| units.extend(messages.into_iter().map(|m| vec![m]));

    let hairpin = |address: &std::net::Ipv4Addr| element(&[address.octets(), address.octets()], None);
    let live = |(frontend, backend): &(Frontend, SocketAddrV4)| {
        let [address, protocol, port] = frontend_bytes(frontend);
        element(&[address, protocol, port, backend.ip().octets(), port_bytes(backend.port())], None)
    };
    let slot = |(frontend, slot): &(Frontend, u32), backend: &SocketAddrV4| {
        let [address, protocol, port] = frontend_bytes(frontend);
        let value = [backend.ip().octets(), port_bytes(backend.port())].concat();
        element(&[address, protocol, port, slot.to_ne_bytes()], Some(Data::Value(value)))
    };
    let service = |frontend: &Frontend, shape: &Option<Shape>| {
        let chain = shape.map_or_else(|| REFUSE.to_owned(), |shape| shape.to_string());
        element(&frontend_bytes(frontend), Some(Data::GoTo(chain)))
    };

    singles(&mut units, elements(NEW_ELEMENTS, HAIRPIN, delta.hairpins.added.iter().map(|(a, ())| hairpin(a))));
    singles(&mut units, elements(NEW_ELEMENTS, LIVE, delta.live.added.iter().map(|(key, ())| live(key))));
    singles(&mut units, elements(NEW_ELEMENTS, BACKENDS, delta.slots.added.iter().map(|(key, b)| slot(key, b))));
    units.extend(swaps(BACKENDS, delta.slots.replaced.iter().map(|(key, old, new)| (slot(key, old), slot(key, new)))));
    units.extend(swaps(
        SERVICES,
        delta.services.replaced.iter().map(|(key, old, new)| (service(key, old), service(key, new))),
    ));
    singles(
        &mut units,
        elements(NEW_ELEMENTS, SERVICES, delta.services.added.iter().map(|(key, to)| service(key, to))),
    );
    singles(
        &mut units,
        elements(DELETE_ELEMENTS, SERVICES, delta.services.removed.iter().map(|(key, to)| service(key, to))),
    );
    singles(&mut units, elements(DELETE_ELEMENTS, BACKENDS, delta.slots.removed.iter().map(|(key, b)| slot(key, b))));
    singles(&mut units, elements(DELETE_ELEMENTS, LIVE, delta.live.removed.iter().map(|(key, ())| live(key))));
    singles(&mut units, elements(DELETE_ELEMENTS, HAIRPIN, delta.hairpins.removed.iter().map(|(a, ())| hairpin(a))));
    units.extend(delta.shapes.removed.iter().map(|(shape, ())| vec![chain(DELETE_CHAIN, &shape.to_string())]));
    units
}

fn frontend_bytes(frontend: &Frontend) -> [[u8; 4]; 3] {
    [address_bytes(frontend.address), protocol_bytes(frontend.protocol), port_bytes(frontend.port)]
}

// ---- messages ----

enum Data {
    Value(Vec<u8>),
    GoTo(String),
}

/// One element of a set or map, encoded.
fn element(key: &[[u8; 4]], data: Option<Data>) -> Attributes {
    let mut element = Attributes::default();
    element.nest(1, |element| {
        element.nest(1, |value| {
            value.bytes(1, &key.concat());
        });
        match data {
            Some(Data::Value(bytes)) => {
                element.nest(2, |value| {
                    value.bytes(1, &bytes);
                });
            }
            Some(Data::GoTo(chain)) => {
                element.nest(2, |value| go_to(value, &chain));
            }
            None => {}
        }
    });
    element
}

/// As few messages as the length of an attribute allows.
fn elements(kind: u16, set: &str, all: impl Iterator<Item = Attributes>) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut list: Vec<u8> = Vec::new();
    let mut flush = |list: &mut Vec<u8>| {
        if list.is_empty() {
            return;
        }
        let mut message = message(kind, if kind == NEW_ELEMENTS { CREATE } else { 0 }, format!("elements of {set}"));
        message.body.text(1, TABLE).text(2, set).nest(3, |elements| elements.0.append(list));
        messages.push(message);
    };
    for element in all {
        if list.len() + element.0.len() > MAX_ELEMENT_BYTES {
            flush(&mut list);
        }
        list.extend_from_slice(&element.0);
    }
    flush(&mut list);
    messages
}

/// How many elements are replaced in one unit, so that a unit stays far below any socket's bound.
const SWAPS_PER_UNIT: usize = 500;

/// Elements that get another value: the old one goes and the new one comes in the same batch.
fn swaps(set: &str, all: impl Iterator<Item = (Attributes, Attributes)>) -> Vec<Unit> {
    let all: Vec<(Attributes, Attributes)> = all.collect();
    let unit = |part: &[(Attributes, Attributes)]| {
        let mut unit = elements(DELETE_ELEMENTS, set, part.iter().map(|(old, _)| old.clone()));
        unit.extend(elements(NEW_ELEMENTS, set, part.iter().map(|(_, new)| new.clone())));
        unit
    };
    all.chunks(SWAPS_PER_UNIT).map(unit).collect()
}

fn chain(kind: u16, name: &str) -> Message {
    let mut chain = message(kind, if kind == NEW_CHAIN { CREATE } else { 0 }, format!("chain {name}"));
    chain.body.text(1, TABLE).text(3, name);
    chain
}

fn base_chain(name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    let mut base = chain(NEW_CHAIN, name);
    base.body.nest(4, |place| {
        place.be32(1, hook).bytes(2, &priority.to_be_bytes());
    });
    base.body.text(7, kind);
    base
}

fn rules(chain: &str, content: Vec<Expressions>) -> Vec<Message> {
    let rule = |(number, expressions): (usize, Expressions)| {
        let mut rule = message(NEW_RULE, CREATE | APPEND, format!("rule {} of chain {chain}", number + 1));
        rule.body.text(1, TABLE).text(2, chain).nest(4, |list| list.0.extend_from_slice(&expressions.0.0));
        rule
    };
    content.into_iter().enumerate().map(rule).collect()
}

/// A set (no data) or map. `data` is its type to show and its length; a verdict's length is the kernel's own affair.
fn set(id: u32, name: &str, flags: u32, key: &[u32], data: Option<(u32, u32)>) -> Message {
    let mut set = message(NEW_SET, CREATE, format!("map {name}"));
    let flags = flags | if data.is_some() { SET_IS_MAP } else { 0 };
    set.body.text(1, TABLE).text(2, name).be32(3, flags).be32(4, shown(key)).be32(5, 4 * key.len() as u32);
    if let Some((kind, length)) = data {
        set.body.be32(6, kind);
        if kind != SHOW_VERDICT {
            set.body.be32(7, length);
        }
    }
    if flags & SET_IS_DYNAMIC != 0 {
        set.body.nest(9, |description| {
            description.be32(1, MAX_AFFINITY_CLIENTS);
        });
    }
    set.body.be32(10, id);
    set
}

/// The type number of a concatenation.
fn shown(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |number, part| number << 6 | part)
}
