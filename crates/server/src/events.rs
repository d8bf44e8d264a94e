//! Turns the notes of decisions into `Event` objects: equal ones are counted, old ones go.
//!
//! Upstream: client-go `tools/record/events_cache.go` (aggregation), `registry/core/event` (time to live).

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::{Body, Change, EventNote, EventType, Key, Kind, Snapshot, limits};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// Remembers which events were recorded, to count repeats and to end them in time.
///
/// There are thousands of them, so notes are known by their fingerprints; what was found by one is compared.
#[derive(Clone, Default)]
pub struct Recorder {
    known: HashMap<u64, Arc<Key>>,
    /// All events that there are, whoever made them: when each was written last, and the same oldest first.
    written: HashMap<Arc<Key>, Timestamp>,
    ages: BTreeSet<(Timestamp, Arc<Key>)>,
    serial: u64,
    /// How much each source may still say about an object, by the fingerprint of both.
    budgets: HashMap<u64, Budget>,
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
        let mut recorder = Recorder::default();
        for object in world.objects(Kind::Event, None) {
            let seen = object.get::<Event>().and_then(last_seen).unwrap_or(Timestamp::UNIX_EPOCH);
            recorder.age(Arc::new(object.key()), Some(seen));
        }
        recorder
    }

    /// Takes note of the events that were written or removed at `now`, those of clients too.
    pub fn note<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>, now: Timestamp) {
        for change in changes.into_iter().filter(|change| change.kind() == Kind::Event) {
            self.age(Arc::new(change.object().key()), change.after.is_some().then_some(now));
        }
    }

    fn age(&mut self, key: Arc<Key>, written: Option<Timestamp>) {
        if let Some((key, before)) = self.written.remove_entry(&key) {
            self.ages.remove(&(before, key));
        }
        if let Some(written) = written {
            self.written.insert(key.clone(), written);
            self.ages.insert((written, key));
        }
    }

    /// The write that records `note` at `now`; `None` when its source has said too much about the object.
    pub fn record(&mut self, note: &EventNote, world: &Snapshot, now: Timestamp) -> Option<Recorded> {
        if limits::EVENTS <= self.budgets.len() {
            self.budgets.clear();
        }
        let budget = self.budgets.entry(fingerprint(&(note.source, &note.uid)));
        if !budget.or_insert(Budget { left: BURST, since: now }).spend(now) {
            return None;
        }
        Some(self.write(note, world, now))
    }

    fn write(&mut self, note: &EventNote, world: &Snapshot, now: Timestamp) -> Recorded {
        let print = fingerprint(note);
        if let Some(key) = self.known.get(&print)
            && let Some(event) = world.at(key).and_then(|object| object.get::<Event>())
            && is_of(event, note)
        {
            let mut event = event.clone();
            event.count = Some(event.count.unwrap_or(1) + 1);
            event.last_timestamp = Some(Time(now));
            return Recorded::Count(Key::clone(key), Body::Event(Box::new(event)));
        }
        self.serial += 1;
        let event = Body::Event(Box::new(new_event(note, self.serial, now)));
        if self.known.len() >= limits::EVENTS {
            self.known.clear();
        }
        self.known.insert(print, Arc::new(event.key()));
        Recorded::Create(event)
    }

    /// Events that have had their time, or are too many: as many of them as one turn may delete, oldest first.
    pub fn outdated(&self, now: Timestamp) -> Vec<Key> {
        let surplus = self.ages.len().saturating_sub(limits::EVENTS);
        let is_old = |written: Timestamp| limits::EVENT_TTL_SECONDS <= now.duration_since(written).as_secs();
        let oldest = self.ages.iter().enumerate().take(limits::TURN_WRITES);
        let gone = oldest.take_while(|(index, (written, _))| *index < surplus || is_old(*written));
        gone.map(|(_, (_, key))| Key::clone(key)).collect()
    }
}

fn fingerprint(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// True for an event that tells what `note` tells.
fn is_of(event: &Event, note: &EventNote) -> bool {
    event.involved_object.uid.as_ref() == Some(&note.uid)
        && event.reason.as_deref() == Some(note.reason)
        && event.message.as_ref() == Some(&note.message)
        && event.reporting_component.as_deref() == Some(note.source)
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let repeated = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let time = event.last_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref());
    repeated.or(time.map(|time| time.0))
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

#[cfg(test)]
mod tests {
    use api::Object;

    use super::*;

    fn note(message: &str) -> EventNote {
        EventNote {
            regarding: Key::new(Kind::Pod, "default", "web"),
            uid: "u".into(),
            kind: EventType::Normal,
            reason: "Pulled",
            message: message.into(),
            source: "kubelet",
        }
    }

    /// Records and stores; gives the name and the count.
    fn record(recorder: &mut Recorder, world: &mut Snapshot, note: &EventNote) -> (String, i32) {
        let (Recorded::Create(body) | Recorded::Count(_, body)) =
            recorder.record(note, world, Timestamp::UNIX_EPOCH).expect("there is budget left");
        let object = Object::written(body, world.revision() + 1);
        let count = object.get::<Event>().and_then(|event| event.count).expect("each is counted");
        world.put(object.clone());
        (object.name().to_owned(), count)
    }

    #[test]
    fn what_is_said_again_is_counted_and_what_only_has_its_fingerprint_is_not() {
        let (mut recorder, mut world) = (Recorder::default(), Snapshot::default());
        let (first, _) = record(&mut recorder, &mut world, &note("one"));
        assert_eq!(record(&mut recorder, &mut world, &note("one")), (first.clone(), 2));
        let (second, count) = record(&mut recorder, &mut world, &note("two"));
        assert!(second != first && count == 1);
        let wrong = Arc::new(Key::new(Kind::Event, "default", first.as_str()));
        recorder.known.insert(fingerprint(&note("three")), wrong);
        let (third, count) = record(&mut recorder, &mut world, &note("three"));
        assert!(third != first && count == 1);
    }

    #[test]
    fn every_event_has_its_time_whoever_wrote_it() {
        let mut recorder = Recorder::default();
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("a time in this century");
        let event = |name: &str| {
            let value = serde_json::json!({ "metadata": { "name": name, "namespace": "default" } });
            Object::written(Kind::Event.decode(value).expect("an event"), 1)
        };
        let written = |name: &str| Change { revision: 1, before: None, after: Some(event(name)) };
        let gone = |recorder: &Recorder, seconds: i64| -> Vec<String> {
            recorder.outdated(at(seconds)).into_iter().map(|key| key.name).collect()
        };
        recorder.note(&[written("a"), written("b"), written("c")], at(0));
        recorder.note(&[written("b")], at(10));
        recorder.note(&[Change { revision: 2, before: Some(event("c")), after: None }], at(10));
        assert_eq!(gone(&recorder, limits::EVENT_TTL_SECONDS - 1), [""; 0]);
        assert_eq!(gone(&recorder, limits::EVENT_TTL_SECONDS), ["a"]);
        assert_eq!(gone(&recorder, limits::EVENT_TTL_SECONDS + 10), ["a", "b"]);
        let many: Vec<Change> = (0..limits::EVENTS).map(|number| written(&format!("n{number}"))).collect();
        recorder.note(&many, at(20));
        assert_eq!(gone(&recorder, 20), ["a", "b"]);
    }

    #[test]
    fn who_says_too_much_is_not_heard() {
        let (mut recorder, world) = (Recorder::default(), Snapshot::default());
        let heard = |recorder: &mut Recorder, seconds: i64| {
            let now = Timestamp::from_second(seconds).expect("a time in this century");
            (0..).take_while(|number| recorder.record(&note(&number.to_string()), &world, now).is_some()).count()
        };
        assert_eq!(heard(&mut recorder, 0), BURST as usize);
        assert_eq!(heard(&mut recorder, REFILL_SECONDS - 1), 0);
        assert_eq!(heard(&mut recorder, 2 * REFILL_SECONDS), 2);
    }
}
