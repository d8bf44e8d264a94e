//! What goes wrong in a run: every seed turns a random part of the faults on (swarm testing), because faults that are
//! always all there hide each other.

use rand::Rng;
use rand::rngs::StdRng;

/// The faults of one run. Numbers are chances: of 1000 for each occasion.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// F1: the server crashes between two commits.
    pub crash: u32,
    /// F1, F4: turns are on their way to the disk when it crashes; some of them get there, unanswered.
    pub slow_disk: bool,
    /// F5: the disk is full, or a sync fails.
    pub bad_disk: u32,
    /// F2: watches are late, or are cut.
    pub late_watch: bool,
    /// F4: requests are late, are lost, or arrive twice.
    pub bad_network: u32,
    /// F7: nodes lose power, agents restart, partitions.
    pub nodes: bool,
    /// F7: what nodes say does not arrive, though they are told all.
    pub one_way: bool,
    /// F7: the processes of nodes are stopped for a while, and go on.
    pub stops: bool,
    /// F12: machines join.
    pub joins: bool,
    /// F8: clocks are off and step.
    pub clocks: bool,
    /// F9: bad images among the edits.
    pub bad_images: bool,
    /// F9: slow pulls, slow starts, slow stops.
    pub slow: bool,
    /// F9: containers crash, readiness flaps.
    pub flapping: bool,
    /// F10: people delete, orphan and make again.
    pub deletes: bool,
    /// F10: people edit labels, adopt and release.
    pub labels: bool,
    /// F15: who owns what is another one.
    pub relations: bool,
    /// F10: people change the strategy, limits and deadlines.
    pub terms: bool,
    /// F11, F12: nodes are cordoned or emptied and let in again, or leave for good.
    pub cordons: bool,
    /// F13: somebody has taken the name of the next ReplicaSet.
    pub collisions: bool,
    /// F14: a second writer works from outdated objects.
    pub second_writer: bool,
    /// F11: new pods are refused for a while.
    pub refusals: bool,
    /// F17: proxies lag.
    pub late_proxies: bool,
}

impl Faults {
    /// A random mix.
    pub fn mix(random: &mut StdRng) -> Faults {
        let mut on = |percent: u32| random.random_ratio(percent, 100);
        Faults {
            crash: if on(50) { 60 } else { 0 },
            slow_disk: on(40),
            bad_disk: if on(25) { 15 } else { 0 },
            late_watch: on(40),
            bad_network: if on(40) { 150 } else { 0 },
            nodes: on(40),
            clocks: on(25),
            bad_images: on(50),
            slow: on(60),
            flapping: on(40),
            deletes: on(50),
            labels: on(30),
            relations: on(20),
            terms: on(40),
            cordons: on(30),
            collisions: on(30),
            second_writer: on(30),
            late_proxies: on(25),
            refusals: on(30),
            one_way: on(25),
            stops: on(25),
            joins: on(30),
        }
    }

    /// The names of those that are on.
    pub fn words(&self) -> String {
        let all = [
            ("crash", self.crash > 0),
            ("slow-disk", self.slow_disk),
            ("bad-disk", self.bad_disk > 0),
            ("late-watch", self.late_watch),
            ("bad-network", self.bad_network > 0),
            ("nodes", self.nodes),
            ("clocks", self.clocks),
            ("bad-images", self.bad_images),
            ("slow", self.slow),
            ("flapping", self.flapping),
            ("deletes", self.deletes),
            ("labels", self.labels),
            ("relations", self.relations),
            ("terms", self.terms),
            ("cordons", self.cordons),
            ("collisions", self.collisions),
            ("second-writer", self.second_writer),
            ("late-proxies", self.late_proxies),
            ("refusals", self.refusals),
            ("one-way", self.one_way),
            ("stops", self.stops),
            ("joins", self.joins),
        ];
        all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }
}
