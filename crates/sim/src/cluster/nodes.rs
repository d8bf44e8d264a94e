//! Nodes: what happens on them and what they send, their signs of life and their reports of usage.

use std::collections::{BTreeMap, BTreeSet};

use api::heard::NODE_LEASES;
use api::patch::PatchType;
use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report as UsageReport, Used};
use api::{Kind, Object, Pod};
use bytes::Bytes;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node as NodeObject;
use rand::Rng;
use server::door::{DeleteOptions, Part};

use super::{Cluster, Event, namespace, start};
use crate::invariants::Breach;
use crate::letters::{Ask, Letter, Sender};
use crate::node::{Around, Effect, NodeEvent, Reply, Report};
use crate::people::NAMESPACE;
use crate::{facts, people, volumes};

/// Seconds between two reports of what is used.
const REPORT: i64 = 15;
/// Seconds between two signs of life of a node.
const BEAT: i64 = 20;
/// ... when no sign is lost any more.
const BEAT_AT_REST: i64 = 35;

impl Cluster {
    pub(super) fn on_node(&mut self, index: usize, event: NodeEvent) -> Result<(), Breach> {
        let live: Vec<&BTreeSet<String>> =
            self.nodes.iter().zip(&self.proxies).filter(|(node, _)| node.up).map(|(_, proxy)| proxy).collect();
        let now = self.now();
        let mut around = Around {
            world: &self.durable,
            proxies: &live,
            proxies_are_well: !self.slow_proxies,
            random: &mut self.random,
            slow: self.faults.slow,
            now,
        };
        let effects = self.nodes[index].take(event, &mut around);
        for effect in effects {
            match effect {
                // One look sees to every pod: more than one a second would beget ever more.
                Effect::Later(seconds, NodeEvent::Look) if !self.looks.insert((index, self.seconds + seconds)) => {}
                Effect::Later(seconds, event) => self.schedule(seconds, Event::Node(index, event)),
                Effect::Send(object, life, report) => self.send(index, &object, life, report),
                Effect::Started(name) => self.one_process(&name)?,
                Effect::Breach(invariant, message) => return Err(Breach::new(invariant, message)),
            }
        }
        Ok(())
    }

    /// The process of a node goes on: it sees all that has happened meanwhile, and looks.
    pub(super) fn go_on(&mut self, index: usize) -> Result<(), Breach> {
        if !self.nodes[index].is_stopped() {
            return Ok(());
        }
        let name = self.nodes[index].name.clone();
        self.trace.tell(self.seconds, "process", || format!("of {name} goes on"));
        for event in self.nodes[index].go_on() {
            self.on_node(index, event)?;
        }
        self.schedule(0, Event::Proxy(index));
        self.schedule(0, Event::Node(index, NodeEvent::Look));
        Ok(())
    }

    /// I3: of a pod's name there is one process, on whatever node.
    fn one_process(&self, name: &str) -> Result<(), Breach> {
        let running: Vec<&str> =
            self.nodes.iter().filter(|node| node.runs_pod(name)).map(|node| node.name.as_str()).collect();
        if running.len() < 2 {
            return Ok(());
        }
        Err(Breach::new("I3 one process", format!("pod {name} runs on {} at once", running.join(" and "))))
    }

    /// Nodes that have power and a network renew their Leases, and those that were given up say that they live.
    pub(super) fn beat(&mut self) {
        let wait = if self.healed_at.is_some() { BEAT_AT_REST } else { BEAT };
        self.schedule(wait, Event::Beat);
        if self.writer.is_none() {
            return;
        }
        let now = self.now();
        // A server sees to it at every start that these are there; what is made first here may have been lost.
        let missing = |name: &&str| self.durable.object(Kind::Namespace, "", name).is_none();
        self.inbox.extend([NAMESPACE, NODE_LEASES].iter().copied().filter(missing).map(namespace));
        for node in self.nodes.iter().filter(|node| node.is_heard()) {
            let Some(object) = self.durable.get::<NodeObject>("", &node.name) else { continue };
            self.inbox.push(people::renewal(&node.name, &self.durable, now));
            self.inbox.extend(volumes::let_go(&node.name, &self.durable));
            self.inbox.extend((!api::node_fit::is_ready(object)).then(|| people::revival(&node.name, now)));
        }
        if !self.inbox.is_empty() {
            self.want_serve(self.seconds);
        }
    }

    /// Nodes that can be reached tell what their pods use, all at once: the pods of an app that are ready share the work
    /// there is for it, and all others do next to nothing.
    pub(super) fn report_usage(&mut self) {
        self.schedule(REPORT, Event::Report);
        let Some(writer) = &mut self.writer else { return };
        let mut sharing: BTreeMap<&str, i64> = BTreeMap::new();
        for pod in self.durable.list::<Pod>(Some(NAMESPACE)).filter(|pod| facts::is_active(pod)) {
            *sharing.entry(facts::app(pod)).or_default() += i64::from(facts::ready_since(pod).is_some());
        }
        for node in self.nodes.iter().filter(|node| node.is_heard()) {
            let pods = self.durable.pods_on(&node.name).filter(|pod| facts::is_active(pod)).map(|pod| {
                let sharers = sharing.get(facts::app(pod)).copied().unwrap_or(0);
                let works = facts::ready_since(pod).is_some() && sharers > 0;
                let milli = if works { self.people.load(facts::app(pod)) / sharers } else { 1 };
                let used = Used { cpu_nano: u64::try_from(milli).unwrap_or(0) * 1_000_000, memory_bytes: 1 };
                let containers = vec![ContainerUsage { name: "c".into(), used }];
                PodUsage { uid: facts::uid(&pod.metadata).to_owned(), window_ms: None, containers }
            });
            let pods: Vec<PodUsage> = pods.collect();
            let at_ms = (start() + SignedDuration::from_secs(self.seconds)).as_millisecond();
            let window_ms = (REPORT as u32) * 1_000;
            let usage = NodeUsage { at_ms, window_ms, used: Used::default(), pods };
            self.usage.take(UsageReport { node: node.name.clone(), usage });
        }
        writer.observe(self.usage.clone());
    }

    fn send(&mut self, index: usize, object: &Object, life: u32, report: Report) {
        let (key, uid) = (object.key(), object.uid().to_owned());
        let ask = match &report {
            Report::Status(body) | Report::Last(body) => {
                Ask::Patch(key, Part::Status, PatchType::Strategic, Bytes::from(body.clone()))
            }
            Report::Delete => {
                let uid = Some(uid.clone());
                Ask::Delete(key, DeleteOptions { grace_period_seconds: Some(0), uid, ..Default::default() })
            }
        };
        let sender = Sender::Agent(index, uid.clone(), life, report.clone());
        let letter = Letter { sender, ask, words: String::new(), expects: None };
        let again = NodeEvent::Answer(uid, life, report, Reply::Again);
        let trouble = self.faults.bad_network > 0 && self.random.random_ratio(self.faults.bad_network, 1000);
        if !self.nodes[index].is_heard() {
            return self.schedule(5, Event::Node(index, again));
        }
        match if trouble { self.random.random_range(0..3) } else { 9 } {
            // Lost.
            0 => self.schedule(5, Event::Node(index, again)),
            // Late.
            1 => {
                let wait = self.random.random_range(1..=15);
                self.schedule(wait, Event::Arrive(letter));
            }
            // Twice: the second time as nobody's.
            2 => {
                let wait = self.random.random_range(0..=2);
                let again = Letter { sender: Sender::Person, ..letter.clone() };
                self.schedule(0, Event::Arrive(letter));
                if matches!(again.ask, Ask::Patch(..)) {
                    self.schedule(wait, Event::Arrive(again));
                }
            }
            _ => self.schedule(0, Event::Arrive(letter)),
        }
    }
}
