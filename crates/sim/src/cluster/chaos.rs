//! What goes wrong: people act, things break, and in the end all of it is put right.

use std::sync::atomic::Ordering;

use agent::pod_on_node::Outcome;
use agent::probes::{Kind as ProbeKind, Probed};
use api::Kind;
use k8s_openapi::api::core::v1::Node as NodeObject;
use rand::Rng;

use super::{Cluster, Event};
use crate::faults::Faults;
use crate::invariants::told_ready;
use crate::node::{Node, NodeEvent};
use crate::people::pick;
use crate::{people, volumes};

/// Most machines of a run.
const MOST_NODES: usize = 7;

impl Cluster {
    pub(super) fn people_act(&mut self) {
        if self.healed_at.is_some() {
            return;
        }
        for _ in 0..self.random.random_range(1..=3) {
            let letters = self.people.act(&self.durable, &self.faults, self.settings.undo, &mut self.random);
            self.arrive_together(letters);
        }
        let wait = self.random.random_range(1..=14);
        self.schedule(wait, Event::People);
    }

    pub(super) fn break_something(&mut self) {
        if self.healed_at.is_some() {
            return;
        }
        let wait = self.random.random_range(1..=10);
        self.schedule(wait, Event::Fault);
        let index = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..13) {
            0 if self.faults.nodes => self.lose_power(index),
            1 if self.faults.nodes && !self.nodes[index].is_stopped() => {
                let name = self.nodes[index].name.clone();
                self.trace.tell(self.seconds, "agent", || format!("of {name} restarts"));
                self.nodes[index].restart_agent();
                self.schedule(1, Event::Node(index, NodeEvent::Look));
            }
            2 if self.faults.nodes => {
                let name = self.nodes[index].name.clone();
                self.trace.tell(self.seconds, "network", || format!("{name} is cut off"));
                self.nodes[index].reachable = false;
                let wait = self.random.random_range(5..=50);
                self.schedule(wait, Event::Reconnect(index));
            }
            3 if self.faults.clocks => {
                self.server_skew = self.random.random_range(-4..=4);
                let skew = self.server_skew;
                self.trace.tell(self.seconds, "clock", || format!("the server's is {skew}s off"));
            }
            4 | 5 if self.faults.flapping => self.disturb_container(index),
            8 if self.faults.late_watch => {
                let name = self.nodes[index].name.clone();
                self.trace.tell(self.seconds, "watch", || format!("of {name} is cut"));
                self.nodes[index].deaf = true;
                let wait = self.random.random_range(3..=30);
                self.schedule(wait, Event::Watch(index));
            }
            9 if self.faults.refusals => {
                self.trace.tell(self.seconds, "door", || "new pods are refused".into());
                self.refuses.store(true, Ordering::Relaxed);
                let wait = self.random.random_range(3..=40);
                self.schedule(wait, Event::Admit);
            }
            10 if self.faults.one_way => {
                let name = self.nodes[index].name.clone();
                self.trace.tell(self.seconds, "network", || format!("nothing arrives from {name}"));
                self.nodes[index].mute = true;
                let wait = self.random.random_range(5..=50);
                self.schedule(wait, Event::Reconnect(index));
            }
            11 if self.faults.stops && self.nodes[index].up => self.stop_process(index),
            12 if self.faults.joins && self.nodes.len() < MOST_NODES => self.join(),
            6 if self.faults.cordons => self.close_or_open(),
            7 if self.faults.cordons && self.left.is_empty() && self.random.random_ratio(1, 3) => self.leave(index),
            _ => {}
        }
    }

    fn lose_power(&mut self, index: usize) {
        let name = self.nodes[index].name.clone();
        self.trace.tell(self.seconds, "power", || format!("{name} has none"));
        self.nodes[index].lose_power();
        let wait = self.random.random_range(3..=60);
        self.schedule(wait, Event::PowerOn(index));
    }

    /// The node's process is stopped, and goes on after a while. Its proxy sends to whom it sent to until then.
    fn stop_process(&mut self, index: usize) {
        let name = self.nodes[index].name.clone();
        self.trace.tell(self.seconds, "process", || format!("of {name} is stopped"));
        self.nodes[index].stop();
        self.slow_proxies = true;
        let wait = self.random.random_range(3..=60);
        self.schedule(wait, Event::GoOn(index));
    }

    /// One more machine.
    fn join(&mut self) {
        let index = self.nodes.len();
        let mut node = Node::new(u8::try_from(index + 1).unwrap_or(u8::MAX));
        if self.faults.clocks {
            node.skew = self.random.random_range(-4..=4);
        }
        let name = node.name.clone();
        self.trace.tell(self.seconds, "machine", || format!("{name} joins"));
        self.nodes.push(node);
        self.proxies.push(told_ready(&self.durable));
        self.schedule(0, Event::Arrive(people::node(&name)));
    }

    /// The machine goes and does not come back; its Node object is deleted.
    fn leave(&mut self, index: usize) {
        self.left.insert(index);
        self.nodes[index].lose_power();
        let key = api::Key::new(Kind::Node, "", self.nodes[index].name.clone());
        let wait = self.random.random_range(0..=20);
        self.schedule(wait, Event::Arrive(people::delete(key, None)));
    }

    fn disturb_container(&mut self, index: usize) {
        let running = self.nodes[index].running();
        let Some((uid, id)) = pick(&running.iter().collect::<Vec<_>>(), &mut self.random).cloned() else { return };
        let (life, boot) = (self.nodes[index].life(), self.nodes[index].boot());
        if self.random.random_bool(0.3) {
            return self.schedule(0, Event::Node(index, NodeEvent::Exit(uid, id, 137, boot)));
        }
        let probe = |cluster: &mut Cluster, wait: i64, failure: Option<String>| {
            let kind = ProbeKind::Readiness;
            let outcome = Outcome::Probed { container: "c".into(), id: id.clone(), kind, probed: Probed { failure } };
            cluster.schedule(wait, Event::Node(index, NodeEvent::Came(uid.clone(), life, outcome)));
        };
        probe(self, 0, Some("flaps".into()));
        let wait = self.random.random_range(1..=8);
        probe(self, wait, None);
    }

    fn close_or_open(&mut self) {
        let nodes: Vec<&NodeObject> = self.durable.list::<NodeObject>(None).collect();
        let Some(node) = pick(&nodes, &mut self.random) else { return };
        let closed = node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true);
        let empties = people::is_tainted(node) || self.random.random_ratio(1, 5);
        let letter = if empties { people::taint(node) } else { people::cordon(node, closed) };
        self.schedule(0, Event::Arrive(letter));
    }

    pub(super) fn heal(&mut self) {
        self.trace.tell(self.seconds, "HEAL", || "faults stop, people put right what they did".into());
        self.faults = Faults::default();
        self.healed_at = Some(self.seconds);
        self.server_skew = 0;
        self.refuses.store(false, Ordering::Relaxed);
        for index in 0..self.nodes.len() {
            self.nodes[index].reachable = true;
            self.nodes[index].deaf = false;
            self.nodes[index].mute = false;
            self.nodes[index].up = !self.left.contains(&index);
            self.schedule(0, Event::Node(index, NodeEvent::Look));
            self.schedule(0, Event::Proxy(index));
            self.schedule(0, Event::GoOn(index));
        }
        self.put_right();
    }

    /// What people did is undone, and machines that left are struck off: that request may have been lost.
    pub(super) fn put_right(&mut self) {
        for letter in people::put_right(&self.durable) {
            self.schedule(0, Event::Arrive(letter));
        }
        let left = self.left.iter().map(|index| self.nodes[*index].name.clone()).collect();
        for letter in volumes::put_right(&self.durable, &left) {
            self.schedule(0, Event::Arrive(letter));
        }
        for index in self.left.clone() {
            let key = api::Key::new(Kind::Node, "", self.nodes[index].name.clone());
            self.schedule(0, Event::Arrive(people::delete(key, None)));
        }
    }
}
