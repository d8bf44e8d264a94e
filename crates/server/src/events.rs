//! Turns the notes of decisions into `Event` objects: equal ones are counted, old ones go.
//!
//! Upstream: client-go `tools/record/events_cache.go` (aggregation), `registry/core/event` (time to live).

use std::collections::{HashMap, VecDeque};

use api::{Body, EventNote, EventType, Key, Kind, Snapshot, limits};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// Remembers which events were recorded, to count repeats and to end them in time.
#[derive(Clone, Default)]
pub struct Recorder {
    known: HashMap<EventNote, Key>,
    /// Oldest first; an event that was counted again appears again.
    ages: VecDeque<(Timestamp, Key)>,
    serial: u64,
    /// How much each source may still say about an object.
    budgets: HashMap<(&'static str, String), Budget>,
}

/// Events one source may record about one object at once, and seconds until it may record one more (upstream: client-go
/// `EventSourceObjectSpamFilter`).
const BURST: u32 = 25;
const REFILL_SECONDS: i64 = 300;

/// What is left of a burst.
#[derive(Clone)]
struct Budget {
    left: u32,
    since: Timestamp,
}

impl Budget {
    fn spend(&mut self, now: Timestamp) -> bool {
        let refills = now.duration_since(self.since).as_secs() / REFILL_SECONDS;
        if 0 < refills {
            self.left = u32::try_from(refills).unwrap_or(BURST).saturating_add(self.left).min(BURST);
            self.since = now;
        }
        let may = 0 < self.left;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// What recording a note comes to.
pub enum Recorded {
    /// A new event.
    Create(Body),
    /// The same event once more.
    Count(Key, Body),
}

impl Recorder {
    /// Takes in the events that were stored before.
    pub fn recover(world: &Snapshot) -> Recorder {
        let mut ages: Vec<(Timestamp, Key)> = world
            .objects(Kind::Event, None)
            .filter_map(|object| Some((last_seen(object.get::<Event>()?)?, object.key())))
            .collect();
        ages.sort();
        Recorder { known: HashMap::new(), ages: ages.into(), ..Recorder::default() }
    }

    /// The write that records `note` at `now`; `None` when its source has said too much about the object.
    pub fn record(&mut self, note: &EventNote, world: &Snapshot, now: Timestamp) -> Option<Recorded> {
        if limits::EVENTS <= self.budgets.len() {
            self.budgets.clear();
        }
        let budget = self.budgets.entry((note.source, note.uid.clone()));
        if !budget.or_insert(Budget { left: BURST, since: now }).spend(now) {
            return None;
        }
        Some(self.write(note, world, now))
    }

    fn write(&mut self, note: &EventNote, world: &Snapshot, now: Timestamp) -> Recorded {
        if let Some(key) = self.known.get(note)
            && let Some(event) = world.at(key).and_then(|object| object.get::<Event>())
        {
            let mut event = event.clone();
            event.count = Some(event.count.unwrap_or(1) + 1);
            event.last_timestamp = Some(Time(now));
            self.ages.push_back((now, key.clone()));
            return Recorded::Count(key.clone(), Body::Event(Box::new(event)));
        }
        self.serial += 1;
        let event = new_event(note, self.serial, now);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let key = Key::new(Kind::Event, namespace, event.metadata.name.clone().unwrap_or_default());
        if self.known.len() >= limits::EVENTS {
            self.known.clear();
        }
        self.known.insert(note.clone(), key.clone());
        self.ages.push_back((now, key));
        Recorded::Create(Body::Event(Box::new(event)))
    }

    /// Events that have had their time, or are too many.
    pub fn outdated(&mut self, world: &Snapshot, now: Timestamp) -> Vec<Key> {
        let mut gone = Vec::new();
        while let Some((seen, key)) = self.ages.front() {
            let age_seconds = now.duration_since(*seen).as_secs();
            if age_seconds < limits::EVENT_TTL_SECONDS && self.ages.len() <= limits::EVENTS {
                break;
            }
            let current = world.at(key).and_then(|object| last_seen(object.get::<Event>()?));
            if current.is_some_and(|last| last <= *seen) {
                gone.push(key.clone());
            }
            self.ages.pop_front();
        }
        gone
    }
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let time = event.last_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref());
    time.map(|time| time.0)
}

fn new_event(note: &EventNote, serial: u64, now: Timestamp) -> Event {
    let about = &note.regarding;
    let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
    let stamp = now.as_nanosecond() as u64 + serial;
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{stamp:x}", about.name)),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            api_version: Some(about.kind.info().api_version()),
            kind: Some(about.kind.info().kind.to_owned()),
            name: Some(about.name.clone()),
            namespace: Some(about.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: Some(note.uid.clone()),
            ..Default::default()
        },
        type_: Some(match note.kind {
            EventType::Normal => "Normal".into(),
            EventType::Warning => "Warning".into(),
        }),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.clone()),
        source: Some(EventSource { component: Some(note.source.to_owned()), ..Default::default() }),
        reporting_component: Some(note.source.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Default::default()
    }
}
