//! Which pod has which address of the node's range. Pure: what is taken is told at start from the pods' own records, which
//! are the durable truth. An address that was freed is given out last, so that a connection to a pod that is gone does
//! not reach another.

use std::{collections::BTreeSet, net::Ipv4Addr, str::FromStr};

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

impl Cidr {
    /// Bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address: the bridge's.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network + 1)
    }

    /// Addresses a pod can have: neither the network, nor the gateway, nor broadcast.
    fn pods(self) -> std::ops::RangeInclusive<u32> {
        self.network + 2..=self.network + (1 << (32 - self.prefix)) - 2
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("{text:?} is not an address range such as 10.244.0.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (address, prefix): (Ipv4Addr, u8) =
            (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        if !(8..=29).contains(&prefix) {
            return Err(format!("{text:?}: a node's range has between /8 and /29"));
        }
        Ok(Cidr { network: address.to_bits() & (u32::MAX << (32 - prefix)), prefix })
    }
}

/// The addresses of a node's pods.
#[derive(Debug)]
pub struct Addresses {
    cidr: Cidr,
    taken: BTreeSet<u32>,
    last: u32,
}

impl Addresses {
    /// All of `cidr` free.
    pub fn new(cidr: Cidr) -> Addresses {
        Addresses { cidr, taken: BTreeSet::new(), last: *cidr.pods().start() - 1 }
    }

    /// Marks an address as taken; false when it is another pod's, or not of this node.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        let mine = self.cidr.pods().contains(&bits) && self.taken.insert(bits);
        if mine {
            self.last = self.last.max(bits);
        }
        mine
    }

    /// A free address, the one freed longest ago; `None` when the node is full.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, end) = (*self.cidr.pods().start(), *self.cidr.pods().end());
        let free = |bits: &u32| !self.taken.contains(bits);
        let bits = (self.last + 1..=end).find(free).or_else(|| (first..=end).find(free))?;
        self.taken.insert(bits);
        self.last = bits;
        Some(Ipv4Addr::from_bits(bits))
    }

    /// Gives an address back.
    pub fn free(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_given_out_in_turn() {
        let mut addresses = Addresses::new("10.244.3.7/29".parse().unwrap());
        let mut next = || addresses.allocate().map(|a| a.to_string());
        let given: Vec<_> = (0..6).map(|_| next()).collect();
        let expected =
            ["10.244.3.2", "10.244.3.3", "10.244.3.4", "10.244.3.5", "10.244.3.6"].map(|a| Some(a.to_owned()));
        assert_eq!(given[..5], expected);
        assert_eq!(given[5], None, "broadcast is nobody's");
        addresses.free("10.244.3.3".parse().unwrap());
        assert_eq!(addresses.allocate(), Some("10.244.3.3".parse().unwrap()));
    }

    #[test]
    fn what_was_freed_comes_last() {
        let mut addresses = Addresses::new("10.0.0.0/24".parse().unwrap());
        let first = addresses.allocate().unwrap();
        addresses.free(first);
        assert_ne!(addresses.allocate().unwrap(), first);
        assert!(!addresses.take("10.0.1.5".parse().unwrap()));
        assert!(addresses.take("10.0.0.9".parse().unwrap()));
        assert!(!addresses.take("10.0.0.9".parse().unwrap()));
    }

    #[test]
    fn bad_ranges_are_refused() {
        for text in ["10.0.0.0", "10.0.0.0/31", "10.0.0/24", "x/24"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
