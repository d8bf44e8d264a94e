//! The node's own way to services (`linux/rtnetlink.h`).
//!
//! A process on the node that connects to a service address needs a route before the rules can rewrite the destination, and a
//! node without a default route has none. A route over the loopback device is enough: no packet ever takes it, because the
//! rules rewrite or refuse every one, and the kernel then routes the rewritten packet anew. It is independent of what the
//! bridge is called, and its source address is the node's first global one.

use ipnet::Ipv4Net;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    error::ProxyError,
    netlink::{ACK, Attributes, CREATE, Message, Netlink, REPLACE},
};

const NEW_LINK: u16 = 16;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const FAMILY_IPV4: u8 = 2;
const TABLE_MAIN: u8 = 254;
const MADE_BY_ADMINISTRATOR: u8 = 4;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;
const DESTINATION: u16 = 1;
const OUTPUT_DEVICE: u16 = 4;
const PRIORITY: u16 = 6;
/// Any other route to these addresses comes first.
const METRIC: u32 = 9999;
/// The loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;
const UP: u32 = 1;

pub(crate) fn open() -> Result<Netlink, ProxyError> {
    Netlink::open(NETLINK_ROUTE).map_err(|source| ProxyError::Socket {
        protocol: "NETLINK_ROUTE",
        option: "CONFIG_INET",
        source,
    })
}

/// Makes the route; the loopback device has to be up for it.
pub(crate) fn add(netlink: &mut Netlink, services: Ipv4Net) -> Result<(), ProxyError> {
    let mut fixed = vec![0; 4];
    fixed.extend_from_slice(&LOOPBACK.to_ne_bytes());
    fixed.extend_from_slice(&UP.to_ne_bytes());
    fixed.extend_from_slice(&UP.to_ne_bytes());
    let up =
        Message { kind: NEW_LINK, flags: ACK, body: Attributes::after(&fixed), about: "the loopback device".into() };
    netlink.transact(&[up])?;
    netlink.transact(&[route(NEW_ROUTE, CREATE | REPLACE, services)])
}

/// Removes the route, if it is there.
pub(crate) fn remove(netlink: &mut Netlink, services: Ipv4Net) -> Result<(), ProxyError> {
    match netlink.transact(&[route(DELETE_ROUTE, 0, services)]) {
        Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

fn route(kind: u16, flags: u16, services: Ipv4Net) -> Message {
    let length = services.prefix_len();
    let mut body = Attributes::after(&[
        FAMILY_IPV4,
        length,
        0,
        0,
        TABLE_MAIN,
        MADE_BY_ADMINISTRATOR,
        SCOPE_LINK,
        TYPE_UNICAST,
        0,
        0,
        0,
        0,
    ]);
    body.bytes(DESTINATION, &services.network().octets());
    body.bytes(OUTPUT_DEVICE, &LOOPBACK.to_ne_bytes());
    body.bytes(PRIORITY, &METRIC.to_ne_bytes());
    Message { kind, flags: flags | ACK, body, about: format!("the route to services {services}") }
}
