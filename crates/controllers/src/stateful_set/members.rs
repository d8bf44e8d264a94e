//! The pods of a StatefulSet by number, and how they fare.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};

use api::pod_facts::number_of;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;

use crate::specs;

/// A pod and its number.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// Its number.
    pub ordinal: i32,
    /// True if it is ready.
    pub ready: bool,
    /// True if it is ready for long enough.
    pub available: bool,
    /// True while it is being ended.
    pub going: bool,
    member: api::Member<'a>,
}

impl<'a> Member<'a> {
    fn of(ordinal: i32, member: api::Member<'a>, min_ready_seconds: i32, now: Timestamp) -> Member<'a> {
        let going = member.is_deleted();
        let ready = !going && member.is_running() && member.is_ready();
        Member { ordinal, ready, available: ready && member.is_available(min_ready_seconds, now), going, member }
    }
}

impl<'a> Deref for Member<'a> {
    type Target = api::Member<'a>;

    fn deref(&self) -> &api::Member<'a> {
        &self.member
    }
}

/// All pods of a set.
pub struct Members<'a> {
    /// By number.
    pub all: BTreeMap<i32, Member<'a>>,
    /// Numbers that are to be there.
    pub wanted: Range<i32>,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
}

impl<'a> Members<'a> {
    /// Sorts the pods of a set.
    pub fn of(set: &StatefulSet, own: Vec<api::Member<'a>>, now: Timestamp) -> Members<'a> {
        let spec = specs::of_stateful_set(set);
        let wait = spec.min_ready_seconds.unwrap_or(0);
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let wanted = start..start.saturating_add(spec.replicas.unwrap_or(1));
        let name = number_of(set.metadata.name.as_deref().unwrap_or(""));
        let numbered = own.into_iter().filter_map(|member| Some((member.ordinal_in(name)?, member)));
        let all = numbered.map(|(ordinal, member)| (ordinal, Member::of(ordinal, member, wait, now))).collect();
        Members { all, wanted, min_ready_seconds: wait }
    }

    /// Number of pods that are to be there.
    pub fn replicas(&self) -> i32 {
        self.wanted.end - self.wanted.start
    }

    /// Those that are to be there, from the first.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Member<'a>> {
        self.all.range(self.wanted.clone()).map(|(_, member)| member)
    }

    /// Those that are too many, from the last.
    pub fn condemned(&self) -> impl Iterator<Item = &Member<'a>> {
        self.all.values().rev().filter(|member| !self.wanted.contains(&member.ordinal))
    }

    /// Number of pods that are to be there and are not available.
    pub fn unavailable(&self) -> i32 {
        let available = self.kept().filter(|member| member.available).count();
        self.replicas() - i32::try_from(available).unwrap_or(i32::MAX)
    }

    /// When the next ready pod becomes available only by the passing of time.
    pub fn next_available(&self) -> Option<Timestamp> {
        let waiting = self.all.values().filter(|member| member.ready && !member.available);
        waiting.filter_map(|member| member.available_at(self.min_ready_seconds)).min()
    }
}
