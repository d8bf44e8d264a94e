//! What has to change in the kernel to get from one [`RuleSet`] to the next. Pure, like the rules.
//!
//! The kernel keeps a backend in a numbered *slot* of its frontend, and a packet draws a number. So that a rolling update
//! costs what it changes and not what it has, a backend that stays keeps its slot: see [`keep_slots`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::rules::{Frontend, Protocol, Road, RuleSet};

/// How a backend is drawn. Roads of one shape share one chain, so that chains do not grow with services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// How many slots to draw from; at least one.
    pub slots: u32,
    /// Seconds of session affinity.
    pub affinity: Option<u32>,
    /// Whether this is a node port, whose frontend has no address.
    pub node_port: bool,
    /// Whether the client's address is replaced.
    pub masquerade: bool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pick-{}", self.slots)?;
        if let Some(seconds) = self.affinity {
            write!(f, "-affinity-{seconds}")?;
        }
        if self.node_port {
            f.write_str("-node")?;
        }
        if self.masquerade {
            f.write_str("-masquerade")?;
        }
        Ok(())
    }
}

/// The shape of a road; `None` when there is nothing to draw from and connections are refused.
fn shape(frontend: &Frontend, road: &Road) -> Option<Shape> {
    let slots = u32::try_from(road.backends.len()).ok().filter(|slots| *slots != 0)?;
    Some(Shape { slots, affinity: road.affinity, node_port: frontend.address.is_none(), masquerade: road.masquerade })
}

/// Differences between two maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<K, V> {
    /// Keys that are new.
    pub added: Vec<(K, V)>,
    /// Keys whose value is another one: before, after.
    pub replaced: Vec<(K, V, V)>,
    /// Keys that are gone.
    pub removed: Vec<(K, V)>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Changes<K, V> {
    fn between(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        let mut changes = Changes { added: vec![], replaced: vec![], removed: vec![] };
        for (key, after) in new {
            match old.get(key) {
                None => changes.added.push((key.clone(), after.clone())),
                Some(before) if before != after => changes.replaced.push((key.clone(), before.clone(), after.clone())),
                Some(_) => {}
            }
        }
        changes
            .removed
            .extend(old.iter().filter(|(key, _)| !new.contains_key(key)).map(|(k, v)| (k.clone(), v.clone())));
        changes
    }
}

/// All changes from one rule set to the next, as the kernel's tables see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The rule set that the kernel holds afterwards, its backends in the order of their slots.
    pub next: RuleSet,
    /// Frontends that changed.
    pub changed: Vec<Frontend>,
    /// Frontends that lost a backend, so that flows to it may be left.
    pub left: Vec<Frontend>,
    /// Chains, one per shape.
    pub shapes: Changes<Shape, ()>,
    /// Which chain a frontend goes to; `None` refuses.
    pub services: Changes<Frontend, Option<Shape>>,
    /// Which backend is in a slot.
    pub slots: Changes<(Frontend, u32), SocketAddrV4>,
    /// Backends that may be remembered for a client.
    pub live: Changes<(Frontend, SocketAddrV4), ()>,
    /// Addresses of all backends, to recognise a pod that reaches itself.
    pub hairpins: Changes<Ipv4Addr, ()>,
}

impl Delta {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Frontends of a protocol that changed, with the backends they have now: flows to others are strays.
    pub fn present(&self, protocol: Protocol) -> BTreeMap<Frontend, &[SocketAddrV4]> {
        let changed = self.changed.iter().filter(|frontend| frontend.protocol == protocol);
        changed
            .map(|frontend| (*frontend, self.next.roads.get(frontend).map_or(&[][..], |road| &road.backends)))
            .collect()
    }
}

/// What changes from `old`, which the kernel holds, to `new`.
pub fn diff(old: &RuleSet, new: &RuleSet) -> Delta {
    let mut next = new.clone();
    for (frontend, road) in &mut next.roads {
        if let Some(before) = old.roads.get(frontend) {
            road.backends = keep_slots(&before.backends, &road.backends);
        }
    }
    let changed = changed_frontends(old, &next);
    let part = |set: &RuleSet| -> Vec<(Frontend, Road)> {
        changed.iter().filter_map(|frontend| Some((*frontend, set.roads.get(frontend)?.clone()))).collect()
    };
    let (before, after) = (part(old), part(&next));
    let nothing = RuleSet::default();
    let (whole_before, whole_after) = if changed.is_empty() { (&nothing, &nothing) } else { (old, &next) };
    Delta {
        shapes: Changes::between(&shapes(whole_before), &shapes(whole_after)),
        hairpins: Changes::between(&addresses(whole_before), &addresses(whole_after)),
        services: Changes::between(&services(&before), &services(&after)),
        slots: Changes::between(&slots(&before), &slots(&after)),
        live: Changes::between(&live(&before), &live(&after)),
        left: before
            .iter()
            .filter(|(frontend, road)| lost_one(road, next.roads.get(frontend)))
            .map(|(f, _)| *f)
            .collect(),
        changed,
        next,
    }
}

fn changed_frontends(old: &RuleSet, new: &RuleSet) -> Vec<Frontend> {
    let all: BTreeSet<&Frontend> = old.roads.keys().chain(new.roads.keys()).collect();
    all.into_iter().filter(|frontend| old.roads.get(frontend) != new.roads.get(frontend)).copied().collect()
}

fn lost_one(before: &Road, after: Option<&Road>) -> bool {
    let after: BTreeSet<&SocketAddrV4> = after.into_iter().flat_map(|road| &road.backends).collect();
    before.backends.iter().any(|backend| !after.contains(backend))
}

/// Puts `new` into an order in which every backend that stays keeps its place, as far as there are places:
/// newcomers take the places of those who left, and the last ones move down when there are fewer.
pub fn keep_slots(old: &[SocketAddrV4], new: &[SocketAddrV4]) -> Vec<SocketAddrV4> {
    let wanted: BTreeSet<SocketAddrV4> = new.iter().copied().collect();
    let seated: BTreeSet<SocketAddrV4> =
        old.iter().take(wanted.len()).copied().filter(|b| wanted.contains(b)).collect();
    let mut waiting = wanted.difference(&seated).copied();
    let keep = |slot: usize| old.get(slot).copied().filter(|backend| seated.contains(backend));
    (0..wanted.len()).filter_map(|slot| keep(slot).or_else(|| waiting.next())).collect()
}

fn shapes(set: &RuleSet) -> BTreeMap<Shape, ()> {
    set.roads.iter().filter_map(|(frontend, road)| Some((shape(frontend, road)?, ()))).collect()
}

fn addresses(set: &RuleSet) -> BTreeMap<Ipv4Addr, ()> {
    set.roads.values().flat_map(|road| &road.backends).map(|backend| (*backend.ip(), ())).collect()
}

fn services(roads: &[(Frontend, Road)]) -> BTreeMap<Frontend, Option<Shape>> {
    roads.iter().map(|(frontend, road)| (*frontend, shape(frontend, road))).collect()
}

fn slots(roads: &[(Frontend, Road)]) -> BTreeMap<(Frontend, u32), SocketAddrV4> {
    let slots_of = |(frontend, road): &(Frontend, Road)| {
        let frontend = *frontend;
        (0u32..).zip(road.backends.clone()).map(move |(slot, backend)| ((frontend, slot), backend))
    };
    roads.iter().flat_map(slots_of).collect()
}

fn live(roads: &[(Frontend, Road)]) -> BTreeMap<(Frontend, SocketAddrV4), ()> {
    let remembered = roads.iter().filter(|(_, road)| road.affinity.is_some());
    remembered.flat_map(|(frontend, road)| road.backends.iter().map(|backend| ((*frontend, *backend), ()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backend(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, n), 80)
    }

    fn road(backends: Vec<SocketAddrV4>) -> RuleSet {
        let frontend = Frontend { address: Some(Ipv4Addr::new(10, 96, 0, 1)), protocol: Protocol::Tcp, port: 80 };
        let road = Road { service: "default/web".into(), backends, affinity: None, masquerade: false };
        RuleSet { roads: [(frontend, road)].into(), refused: BTreeSet::new() }
    }

    #[test]
    fn one_pod_replaced_by_another_costs_one_slot() {
        let old = road(vec![backend(1), backend(2), backend(3)]);
        let delta = diff(&old, &road(vec![backend(2), backend(3), backend(9)]));
        assert_eq!(delta.slots.replaced.len(), 1);
        assert_eq!((delta.slots.added.len(), delta.slots.removed.len()), (0, 0));
        assert_eq!(delta.services.replaced, []);
        assert_eq!(delta.shapes.added, []);
    }

    #[test]
    fn nothing_to_do_between_equals() {
        let set = road(vec![backend(1), backend(2)]);
        let other_order = road(vec![backend(2), backend(1)]);
        assert!(diff(&set, &set).is_empty());
        assert!(diff(&other_order, &set).is_empty(), "the order of slots is the kernel's own affair");
    }

    #[test]
    fn frontends_that_lost_a_backend_are_named() {
        let mut old = road(vec![backend(1)]);
        let frontend = Frontend { address: None, protocol: Protocol::Udp, port: 53 };
        let dns = Road { service: "d".into(), backends: vec![backend(5)], affinity: None, masquerade: false };
        old.roads.insert(frontend, dns);
        let new = road(vec![backend(2)]);
        assert_eq!(diff(&old, &new).present(Protocol::Udp), BTreeMap::from([(frontend, &[][..])]));
        assert_eq!(diff(&old, &new).present(Protocol::Tcp).len(), 1);
        assert_eq!(diff(&new, &old).left, [*new.roads.keys().next().unwrap()], "a new frontend has lost nothing");
    }

    proptest! {
        #[test]
        fn slots_hold_exactly_what_is_wanted(old in proptest::collection::btree_set(0u8..20, 0..12), new in proptest::collection::btree_set(0u8..20, 0..12), turn in 0usize..12) {
            let mut old: Vec<_> = old.into_iter().map(backend).collect();
            let by = turn % old.len().max(1);
            old.rotate_left(by);
            let new: Vec<_> = new.into_iter().map(backend).collect();
            let next = keep_slots(&old, &new);
            let mut sorted = next.clone();
            sorted.sort();
            prop_assert_eq!(&sorted, &new);
            for (slot, stays) in old.iter().enumerate().filter(|(slot, b)| *slot < new.len() && new.contains(b)) {
                prop_assert_eq!(next[slot], *stays, "a backend that stays keeps its slot");
            }
        }
    }
}
