//! Which pods are replaced by the next template now.
//!
//! Mirrors the end of updateStatefulSet and updateStatefulSetAfterInvariantEstablished
//! (`pkg/controller/statefulset/stateful_set_control.go`): from the last number down to the partition, never more than
//! `maxUnavailable` unavailable. One difference, on purpose (k/k#67250): a pod that is not ready and has an outdated
//! template is replaced though others before it are not ready either, or it would wait for ever for a pod that nobody
//! mends. As long as pods of the wanted template are on their way, it waits for them, so that a template that turns out
//! bad takes no more than `maxUnavailable` pods, however many follow each other.

use api::int_or_string::{Round, scaled};
use api::pod_facts::number_of;
use k8s_openapi::api::apps::v1::StatefulSetSpec;

use super::members::{Member, Members};

/// How templates are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Numbers below this one (counted from the first) keep their template.
    pub partition: i32,
    /// Pods that may be unavailable.
    pub max_unavailable: i32,
}

impl Pace {
    /// Reads the strategy; `None` when pods are replaced only as somebody deletes them.
    pub fn of(spec: &StatefulSetSpec) -> Option<Pace> {
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let all = spec.replicas.unwrap_or(1);
        let unavailable = rolling.max_unavailable.map_or(1, |value| scaled(&value, all, Round::Down).unwrap_or(0));
        Some(Pace { partition: rolling.partition.unwrap_or(0), max_unavailable: unavailable.max(1) })
    }
}

/// A revision, by its name and by what pods tell of it ([`number_of`] the name).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision<'a> {
    /// Its name.
    pub name: &'a str,
    number: u64,
}

impl<'a> Revision<'a> {
    /// The one of this name.
    pub fn of(name: &'a str) -> Revision<'a> {
        Revision { name, number: number_of(name) }
    }

    /// True if the pod was made of it.
    pub fn made(self, pod: &Member) -> bool {
        pod.revision() == self.number
    }
}

/// What pods are and will be made of.
#[derive(Clone, Copy)]
pub struct Revisions<'a> {
    /// Of the template that all pods had last.
    pub current: Revision<'a>,
    /// Of the template that is wanted.
    pub update: Revision<'a>,
}

impl<'a> Revisions<'a> {
    /// The revision that the pod at `index` (its number, counted from the first) is to have.
    pub fn at(self, index: i32, pace: Option<Pace>) -> Revision<'a> {
        if pace.is_some_and(|pace| index < pace.partition) { self.current } else { self.update }
    }
}

/// The pods to be replaced now, from the last. One that ended is made again anyway. `held` is true while pods have to wait for their predecessors.
pub fn replaced<'m, 'a>(members: &'m Members<'a>, revisions: Revisions, pace: Pace, held: bool) -> Vec<&'m Member<'a>> {
    let is_outdated = |member: &&Member| {
        let wanted = revisions.at(member.ordinal - members.wanted.start, Some(pace));
        !member.going && !member.has_ended() && !wanted.made(member)
    };
    // One that ended is not: it may itself be waiting, to be made again, for one that is to be replaced.
    let is_on_its_way =
        |member: &&Member| !member.available && !is_outdated(member) && (member.going || !member.has_ended());
    let on_their_way = members.kept().filter(is_on_its_way).count();
    let room = usize::try_from(pace.max_unavailable).unwrap_or(0);
    let broken = members.kept().rev().filter(is_outdated).filter(|member| !member.ready);
    let mut replaced: Vec<&Member> = broken.take(room.saturating_sub(on_their_way)).collect();
    if !held {
        let room = usize::try_from(pace.max_unavailable - members.unavailable()).unwrap_or(0);
        let updated = |member: &&Member| revisions.update.made(member);
        let good = members.kept().rev().filter(|member| member.ordinal - members.wanted.start >= pace.partition);
        replaced.extend(good.filter(|member| !member.going && !updated(member) && member.available).take(room));
    }
    replaced
}
