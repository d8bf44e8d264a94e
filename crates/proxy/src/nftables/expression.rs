//! The words of nf_tables' small virtual machine (`linux/netfilter/nf_tables.h`), as far as the rules here need them.
//!
//! A rule is a list of expressions over sixteen registers of four bytes. An expression loads, compares, looks up or acts;
//! the first comparison that fails ends the rule and the next one starts, with registers it must fill itself.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{netlink::Attributes, rules::Protocol};

/// A four-byte register; larger values take the following ones too.
#[derive(Clone, Copy)]
pub(super) struct Register(pub(super) u32);

impl Register {
    /// `NFT_REG32_00` is 8: the numbers below it name the older registers of sixteen bytes.
    fn number(self) -> u32 {
        8 + self.0
    }
}

const LIST_ELEMENT: u16 = 1;
const VERDICT_REGISTER: u32 = 0;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// `NFT_META_MARK` and `NFT_META_L4PROTO`.
const META_MARK: u32 = 3;
const META_PROTOCOL: u32 = 16;
/// `NFT_CT_STATE`, and the bit of a packet that fits no connection.
const CT_STATE: u32 = 0;
const CT_STATE_INVALID: u32 = 1;
/// `NFT_FIB_RESULT_ADDRTYPE` of the destination, and `RTN_LOCAL`.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 2;
const ADDRESS_TYPE_LOCAL: u32 = 2;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const GOTO: i32 = -4;
const JUMP: i32 = -3;
const DROP: i32 = 0;

const IPPROTO_ICMP: u8 = 1;
const ICMP_REDIRECT: u8 = 5;
const ICMP_PORT_UNREACHABLE: u8 = 3;
const REJECT_WITH_ICMP: u32 = 0;
const REJECT_WITH_RESET: u32 = 1;

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: without it, two connections masqueraded at once can be given the same port.
const RANDOM_PORTS: u32 = 1 << 4;

/// What a dynamic set does with an element.
#[derive(Clone, Copy)]
pub(super) enum Remember {
    Add = 0,
    Refresh = 1,
    Forget = 2,
}

/// The expressions of one rule.
#[derive(Default, Clone)]
pub(super) struct Expressions(pub(super) Attributes);

impl Expressions {
    fn push(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nest(LIST_ELEMENT, |element| {
            element.text(1, name).nest(2, fill);
        });
        self
    }

    fn load(self, base: u32, offset: u32, length: u32, to: Register) -> Self {
        self.push("payload", |a| {
            a.be32(1, to.number()).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    pub(super) fn load_source(self, to: Register) -> Self {
        self.load(NETWORK_HEADER, 12, 4, to)
    }

    pub(super) fn load_destination(self, to: Register) -> Self {
        self.load(NETWORK_HEADER, 16, 4, to)
    }

    pub(super) fn load_protocol(self, to: Register) -> Self {
        self.push("meta", |a| {
            a.be32(1, to.number()).be32(2, META_PROTOCOL);
        })
    }

    /// The same place for TCP, UDP and SCTP.
    pub(super) fn load_destination_port(self, to: Register) -> Self {
        self.load(TRANSPORT_HEADER, 2, 2, to)
    }

    pub(super) fn load_zero(self, to: Register) -> Self {
        self.push("immediate", |a| {
            a.be32(1, to.number()).nest(2, |data| {
                data.be32(1, 0);
            });
        })
    }

    /// A random number below `modulus`.
    pub(super) fn draw(self, modulus: u32, to: Register) -> Self {
        self.push("numgen", |a| {
            a.be32(1, to.number()).be32(2, modulus).be32(3, 1).be32(4, 0);
        })
    }

    fn compare(self, register: Register, operator: u32, value: &[u8]) -> Self {
        self.push("cmp", |a| {
            a.be32(1, register.number()).be32(2, operator).nest(3, |data| {
                data.bytes(1, value);
            });
        })
    }

    fn mask(self, register: Register, mask: [u8; 4], xor: [u8; 4]) -> Self {
        self.push("bitwise", |a| {
            a.be32(1, register.number()).be32(2, register.number()).be32(3, 4);
            a.nest(4, |data| {
                data.bytes(1, &mask);
            });
            a.nest(5, |data| {
                data.bytes(1, &xor);
            });
        })
    }

    fn compare_range(self, register: Register, operator: u32, range: Ipv4Net) -> Self {
        self.mask(register, range.netmask().octets(), [0; 4]).compare(register, operator, &range.network().octets())
    }

    pub(super) fn only_from(self, range: Ipv4Net, scratch: Register) -> Self {
        self.load_source(scratch).compare_range(scratch, EQUAL, range)
    }

    pub(super) fn only_to(self, range: Ipv4Net, scratch: Register) -> Self {
        self.load_destination(scratch).compare_range(scratch, EQUAL, range)
    }

    pub(super) fn only_not_to(self, range: Ipv4Net, scratch: Register) -> Self {
        self.load_destination(scratch).compare_range(scratch, NOT_EQUAL, range)
    }

    /// The destination is one of the node's own addresses.
    pub(super) fn only_to_this_node(self, scratch: Register) -> Self {
        self.push("fib", |a| {
            a.be32(1, scratch.number()).be32(2, FIB_ADDRESS_TYPE).be32(3, FIB_OF_DESTINATION);
        })
        .compare(scratch, EQUAL, &ADDRESS_TYPE_LOCAL.to_ne_bytes())
    }

    pub(super) fn only_tcp(self, scratch: Register) -> Self {
        self.load_protocol(scratch).compare(scratch, EQUAL, &[Protocol::Tcp.number()])
    }

    pub(super) fn only_icmp_redirects(self, scratch: Register) -> Self {
        let icmp = self.load_protocol(scratch).compare(scratch, EQUAL, &[IPPROTO_ICMP]);
        icmp.load(TRANSPORT_HEADER, 0, 1, scratch).compare(scratch, EQUAL, &[ICMP_REDIRECT])
    }

    pub(super) fn only_of_no_connection(self, scratch: Register) -> Self {
        let state = self.push("ct", |a| {
            a.be32(1, scratch.number()).be32(2, CT_STATE);
        });
        state.mask(scratch, CT_STATE_INVALID.to_ne_bytes(), [0; 4]).compare(scratch, NOT_EQUAL, &[0; 4])
    }

    /// Finds the key in the registers from `key` on; the rule ends where it is not found.
    pub(super) fn only_in_set(self, set: &str, key: Register) -> Self {
        self.push("lookup", |a| {
            a.text(1, set).be32(2, key.number());
        })
    }

    pub(super) fn look_up(self, map: &str, key: Register, to: Register) -> Self {
        self.push("lookup", |a| {
            a.text(1, map).be32(2, key.number()).be32(3, to.number());
        })
    }

    /// Goes where the verdict map says.
    pub(super) fn follow(self, map: &str, key: Register) -> Self {
        self.push("lookup", |a| {
            a.text(1, map).be32(2, key.number()).be32(3, VERDICT_REGISTER);
        })
    }

    pub(super) fn remember(self, what: Remember, map: &str, key: Register, data: Register, seconds: u32) -> Self {
        self.push("dynset", |a| {
            a.text(1, map).be32(3, what as u32).be32(4, key.number()).be32(5, data.number());
            if !matches!(what, Remember::Forget) {
                a.be64(6, u64::from(seconds) * 1000);
            }
        })
    }

    /// Sets one bit of the packet's mark.
    pub(super) fn mark(self, bit: u32, scratch: Register) -> Self {
        let loaded = self.push("meta", |a| {
            a.be32(1, scratch.number()).be32(2, META_MARK);
        });
        loaded.mask(scratch, (!bit).to_ne_bytes(), bit.to_ne_bytes()).push("meta", |a| {
            a.be32(2, META_MARK).be32(3, scratch.number());
        })
    }

    pub(super) fn only_marked(self, bit: u32, scratch: Register) -> Self {
        let loaded = self.push("meta", |a| {
            a.be32(1, scratch.number()).be32(2, META_MARK);
        });
        loaded.mask(scratch, bit.to_ne_bytes(), [0; 4]).compare(scratch, NOT_EQUAL, &[0; 4])
    }

    /// Rewrites the destination to the address and port in two registers.
    pub(super) fn send_to(self, address: Register, port: Register) -> Self {
        self.push("nat", |a| {
            a.be32(1, 1).be32(2, libc::AF_INET as u32).be32(3, address.number()).be32(5, port.number());
        })
    }

    pub(super) fn masquerade(self) -> Self {
        self.push("masq", |a| {
            a.be32(1, RANDOM_PORTS);
        })
    }

    pub(super) fn reset(self) -> Self {
        self.push("reject", |a| {
            a.be32(1, REJECT_WITH_RESET);
        })
    }

    pub(super) fn port_unreachable(self) -> Self {
        self.push("reject", |a| {
            a.be32(1, REJECT_WITH_ICMP).bytes(2, &[ICMP_PORT_UNREACHABLE]);
        })
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.push("immediate", |a| {
            a.be32(1, VERDICT_REGISTER).nest(2, |data| verdict(data, code, chain));
        })
    }

    pub(super) fn drop(self) -> Self {
        self.verdict(DROP, None)
    }

    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(JUMP, Some(chain))
    }

    pub(super) fn go_to(self, chain: &str) -> Self {
        self.verdict(GOTO, Some(chain))
    }
}

/// The data of an element of a verdict map.
pub(super) fn go_to(data: &mut Attributes, chain: &str) {
    verdict(data, GOTO, Some(chain));
}

fn verdict(data: &mut Attributes, code: i32, chain: Option<&str>) {
    data.nest(2, |verdict| {
        verdict.bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict.text(2, chain);
        }
    });
}

/// An address in the order of the wire, one register wide.
pub(super) fn address_bytes(address: Option<Ipv4Addr>) -> [u8; 4] {
    address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()
}

/// A port in the order of the wire, padded to a register.
pub(super) fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// A protocol number, padded to a register.
pub(super) fn protocol_bytes(protocol: Protocol) -> [u8; 4] {
    [protocol.number(), 0, 0, 0]
}
