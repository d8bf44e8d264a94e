//! The turn: one task owns the state. It takes the waiting requests, passes each through the door, runs every woken
//! decision to rest, and hands the whole turn to the committer as one durable batch.
//!
//! Nothing else writes. A decision therefore always sees its own last write, and several objects can change at once.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use api::plan::CREATED;
use api::{
    Body, Change, Context, EventNote, EventType, Heard, Key, Kind, Object, Plan, PodSpecs, Propagation, Refusal,
    Snapshot, Usage, Write,
};
use api::{limits, status};
use controllers::Controller;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::commit::Turn;
use crate::door::{self, Call, DeleteOptions, Ids, Outcome, Part, Patch, Requester};
use crate::events::{Recorded, Recorder};
use crate::minds::{Minds, Real};
use crate::why::Whys;

/// A write a client asks for.
pub struct Request {
    /// What to do.
    pub action: Action,
    /// Who asks for it.
    pub requester: Requester,
    /// True: answer as if, store nothing.
    pub dry_run: bool,
    /// Where the answer goes, once the turn is durable.
    pub reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// The verbs that write.
pub enum Action {
    /// Make an object in a namespace.
    Create(String, Body),
    /// Replace a part of an object.
    Update(Key, Part, Body),
    /// Replace the replicas of an object, as a `Scale`.
    Scale(Key, Value),
    /// Patch a part of an object; `true` in the last place makes it when it is not there.
    Patch(Key, Part, Box<Patch>),
    /// Put a pod on a node.
    Bind(Key, String, String),
    /// End a pod, if its budget allows it.
    Evict(Key, DeleteOptions),
    /// End an object.
    Delete(Key, DeleteOptions),
    /// End all of these objects.
    DeleteAll(Vec<Key>, DeleteOptions),
}

/// What a client is answered.
pub enum Answer {
    /// The object as it then was.
    Object {
        /// The object.
        object: Arc<Object>,
        /// True if it was made.
        created: bool,
        /// What its writer should be told.
        warnings: Vec<String>,
    },
    /// Nothing but the fact that it is done.
    Done(Value),
    /// The objects that were deleted.
    Deleted(Vec<Arc<Object>>),
}

/// What can be woken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Decision {
    Control(Controller, Key),
    Schedule(Key),
}

/// A decision whose last plan was refused.
#[derive(Clone)]
struct Setback {
    attempts: u32,
    refusal: Refusal,
}

/// First and longest pause after a refused plan.
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(60);

/// The owner of the state. A clone is another cluster that goes its own way from here.
#[derive(Clone)]
pub struct Writer {
    world: Snapshot,
    usage: Usage,
    specs: PodSpecs,
    ids: Ids,
    recorder: Recorder,
    /// Decisions of this wave and of the next. A wave runs in the order of [`Decision`], so that what settles how many
    /// pods there shall be is decided before what makes and ends them.
    wave: BTreeSet<Decision>,
    next_wave: BTreeSet<Decision>,
    alarms: BTreeSet<(Timestamp, Decision)>,
    alarm_of: HashMap<Decision, Timestamp>,
    setbacks: HashMap<Decision, Setback>,
    heard: Heard,
    why: Arc<Whys>,
    minds: Arc<dyn Minds>,
}

impl Writer {
    /// A writer over the recovered state; every decision is woken once.
    pub fn new(world: Snapshot, ids: Ids, why: Arc<Whys>) -> Writer {
        Writer::with_minds(world, ids, why, Arc::new(Real))
    }

    /// As [`Writer::new`], with decisions that are not quite the real ones.
    pub fn with_minds(world: Snapshot, ids: Ids, why: Arc<Whys>, minds: Arc<dyn Minds>) -> Writer {
        let specs = PodSpecs::of(&world);
        let mut writer = Writer { minds, specs, ..Writer::at_rest(world, ids, why) };
        let mut woken = Vec::new();
        controllers::wake_all(&writer.world, &mut |who, key| woken.push(Decision::Control(who, key)));
        scheduler::wake_all(&writer.world, &mut |key| woken.push(Decision::Schedule(key)));
        woken.into_iter().for_each(|decision| writer.wake(decision));
        writer
    }

    /// A writer that decides nothing but what requests call for.
    pub fn at_rest(world: Snapshot, ids: Ids, why: Arc<Whys>) -> Writer {
        Writer {
            recorder: Recorder::recover(&world),
            ids,
            wave: BTreeSet::new(),
            next_wave: BTreeSet::new(),
            alarms: BTreeSet::new(),
            alarm_of: HashMap::new(),
            setbacks: HashMap::new(),
            heard: Heard::default(),
            why,
            minds: Arc::new(Real),
            world,
            usage: Usage::default(),
            specs: PodSpecs::default(),
        }
    }

    /// Takes one turn at `now`: `next` hands over the waiting requests, one a call.
    pub fn take_turn(&mut self, next: &mut dyn FnMut() -> Option<Request>, now: Timestamp) -> Turn {
        let mut turn = Turn::default();
        self.heard.tick(now);
        self.serve(&mut turn, next, now);
        turn.asked = turn.changes.len();
        self.ring_alarms(now);
        self.decide(&mut turn, now);
        self.close(turn, now)
    }

    fn close(&mut self, turn: Turn, now: Timestamp) -> Turn {
        self.recorder.note(&turn.changes, now);
        Turn { world: self.world.clone(), ..turn }
    }

    /// What nodes and pods use, for the decisions of the turns to come.
    pub fn observe(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// True if decisions are left over that no request has to come for.
    pub fn has_decisions(&self) -> bool {
        !self.wave.is_empty() || !self.next_wave.is_empty()
    }

    /// When a decision has to be made although nothing changed.
    pub fn next_alarm(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(time, _)| *time)
    }

    /// When a decision whose plan was refused is made again.
    pub fn next_retry(&self) -> Option<Timestamp> {
        let mut alarms = self.alarms.iter();
        alarms.find(|(_, decision)| self.setbacks.contains_key(decision)).map(|(time, _)| *time)
    }

    /// The state, turns that are not yet durable included.
    pub fn world(&self) -> &Snapshot {
        &self.world
    }

    /// Deletes events that have had their time, as part of a turn of their own.
    pub fn keep_house(&mut self, now: Timestamp) -> Turn {
        let mut turn = Turn::default();
        self.drop_outdated_events(&mut turn, now);
        self.close(turn, now)
    }

    fn serve(&mut self, turn: &mut Turn, next: &mut dyn FnMut() -> Option<Request>, now: Timestamp) {
        for _ in 0..limits::TURN_REQUESTS {
            let Some(request) = next() else { return };
            let answer = self.act(turn, request.action, &request.requester, request.dry_run, now);
            turn.answers.push((request.reply, answer));
            if turn.changes.len() >= limits::TURN_WRITES {
                return;
            }
        }
    }

    fn act(
        &mut self,
        turn: &mut Turn,
        action: Action,
        requester: &Requester,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let mut call =
            Call { world: &self.world, now, ids: &mut self.ids, requester: Some(requester), minds: &*self.minds };
        let mut warnings = Vec::new();
        let mut status_written = false;
        let (key, outcome) = match action {
            Action::Create(namespace, body) => {
                let body = call.create(&namespace, body)?;
                let object = self.write(turn, body, dry_run)?;
                return Ok(Answer::Object { object, created: true, warnings: Vec::new() });
            }
            Action::Update(key, part, body) => {
                status_written = part == Part::Status;
                let outcome = call.update(&key, part, body)?;
                (key, outcome)
            }
            Action::Scale(key, scale) => {
                let outcome = call.update_scale(&key, &scale)?;
                (key, outcome)
            }
            Action::Patch(key, part, patch) => {
                let (outcome, told) = call.patch(&key, part, &patch)?;
                warnings = told;
                status_written = part == Part::Status;
                (key, outcome)
            }
            Action::Bind(key, uid, node) => {
                let outcome = call.bind(&key, &uid, &node)?;
                self.settle(turn, &key, outcome, dry_run)?;
                return Ok(Answer::Done(status::created()));
            }
            Action::Evict(key, options) => return self.evict(turn, &key, options, dry_run, now),
            Action::Delete(key, options) => return self.delete(turn, &key, &options, dry_run, now),
            Action::DeleteAll(keys, options) => {
                let mut deleted = Vec::new();
                for key in keys {
                    let before = self.world.at(&key).cloned();
                    match self.delete(turn, &key, &options, dry_run, now) {
                        Ok(_) => deleted.extend(before),
                        Err(refusal) if refusal.code == 404 => {}
                        Err(refusal) => return Err(refusal),
                    }
                }
                return Ok(Answer::Deleted(deleted));
            }
        };
        let object = self.settle(turn, &key, outcome, dry_run)?;
        if status_written
            && !dry_run
            && let Some(teller) = controllers::status_teller(key.kind)
        {
            self.wake(Decision::Control(teller, key));
        }
        Ok(Answer::Object { object, created: false, warnings })
    }

    /// Takes from the pod's budget, says in the pod's status why it ends, and deletes it: all or nothing.
    fn evict(
        &mut self,
        turn: &mut Turn,
        key: &Key,
        mut options: DeleteOptions,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let pod = self.world.at(key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?;
        door::delete(pod, &options, now)?;
        self.look_at_budgets(turn, &key.namespace, now);
        for status in door::evict(&self.world, key, now)? {
            let key = status.key();
            let mut call = Call { world: &self.world, now, ids: &mut self.ids, requester: None, minds: &*self.minds };
            let outcome = call.update(&key, Part::Status, status)?;
            self.settle(turn, &key, outcome, dry_run)?;
        }
        // It was asked for before the pod's status was written.
        options.resource_version = None;
        self.delete(turn, key, &options, dry_run, now)?;
        Ok(Answer::Done(status::created()))
    }

    /// Decides anew what the budgets of a namespace allow, where something has happened since: an eviction is judged by the
    /// pods as they are at this revision, not as they were when the turn began.
    fn look_at_budgets(&mut self, turn: &mut Turn, namespace: &str, now: Timestamp) {
        let first = Decision::Control(Controller::Disruption, Key::new(Kind::PodDisruptionBudget, namespace, ""));
        let of = |decision: &&Decision| matches!(decision, Decision::Control(Controller::Disruption, key) if key.namespace == namespace);
        let woken = |wave: &BTreeSet<Decision>| wave.range(first.clone()..).take_while(of).cloned().collect::<Vec<_>>();
        for decision in [woken(&self.wave), woken(&self.next_wave)].concat() {
            self.wave.remove(&decision);
            self.next_wave.remove(&decision);
            self.decide_one(turn, decision, now);
        }
    }

    fn delete(
        &mut self,
        turn: &mut Turn,
        key: &Key,
        options: &DeleteOptions,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let object = self.world.at(key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?.clone();
        let outcome = door::delete(&object, options, now)?;
        let removed = matches!(outcome, Outcome::Remove(_));
        let last = self.settle(turn, key, outcome, dry_run)?;
        if removed && key.kind != Kind::Pod {
            return Ok(Answer::Done(status::deleted(key, object.uid())));
        }
        Ok(Answer::Object { object: last, created: false, warnings: Vec::new() })
    }

    /// Does what the door said, and gives the object as it then is (or last was).
    fn settle(&mut self, turn: &mut Turn, key: &Key, outcome: Outcome, dry_run: bool) -> Result<Arc<Object>, Refusal> {
        match outcome {
            Outcome::Write(body) => self.write(turn, body, dry_run),
            Outcome::Unchanged => self.world.at(key).cloned().ok_or_else(|| Refusal::not_found(key.kind, &key.name)),
            Outcome::Remove(body) => {
                let revision = self.world.revision() + 1;
                let last = Object::written(body, revision);
                if !dry_run && let Some(mut change) = self.world.remove(key, revision) {
                    // Watchers are shown the last state with the revision of the removal.
                    change.before = Some(last.clone());
                    self.changed(turn, change);
                }
                Ok(last)
            }
        }
    }

    fn write(&mut self, turn: &mut Turn, mut body: Body, dry_run: bool) -> Result<Arc<Object>, Refusal> {
        self.specs.share(&mut body);
        // What is only tried has the revision of what is there, and none if nothing is.
        let there = || self.world.at(&body.key()).map_or(0, |object| object.revision);
        let revision = if dry_run { there() } else { self.world.revision() + 1 };
        let object = Object::written(body, revision);
        if object.json.len() > limits::OBJECT_BYTES {
            return Err(Refusal::too_large(limits::OBJECT_BYTES));
        }
        if !dry_run {
            let change = self.world.put(object.clone());
            self.changed(turn, change);
        }
        Ok(object)
    }

    fn changed(&mut self, turn: &mut Turn, change: Change) {
        self.heard.note(&change);
        let mut woken = Vec::new();
        self.minds.wakes(&change, &self.world, &mut |who, key| woken.push(Decision::Control(who, key)));
        scheduler::wakes(&change, &self.world, &mut |key| woken.push(Decision::Schedule(key)));
        woken.into_iter().for_each(|decision| self.wake(decision));
        self.wake_refused(&change);
        turn.changes.push(change);
    }

    /// A quota that is another one, or gone, may let in who was refused: nobody waits for his next attempt.
    fn wake_refused(&mut self, change: &Change) {
        let spec = |side: &Option<Arc<Object>>| Some(side.as_ref()?.get::<ResourceQuota>()?.spec.clone());
        if change.kind() != Kind::ResourceQuota || spec(&change.before) == spec(&change.after) {
            return;
        }
        let namespace = change.object().namespace();
        let here = |decision: &&Decision| match decision {
            Decision::Control(_, key) | Decision::Schedule(key) => key.namespace == namespace,
        };
        let refused: Vec<Decision> = self.setbacks.keys().filter(here).cloned().collect();
        refused.into_iter().for_each(|decision| self.wake(decision));
    }

    fn wake(&mut self, decision: Decision) {
        if !self.wave.contains(&decision) {
            self.next_wave.insert(decision);
        }
    }

    fn ring_alarms(&mut self, now: Timestamp) {
        while let Some((time, _)) = self.alarms.first()
            && *time <= now
            && let Some((_, decision)) = self.alarms.pop_first()
        {
            self.alarm_of.remove(&decision);
            self.wake(decision);
        }
    }

    fn set_alarm(&mut self, decision: &Decision, time: Timestamp) {
        if let Some(old) = self.alarm_of.insert(decision.clone(), time) {
            self.alarms.remove(&(old, decision.clone()));
        }
        self.alarms.insert((time, decision.clone()));
    }

    /// Runs woken decisions until none is left or the turn is full.
    fn decide(&mut self, turn: &mut Turn, now: Timestamp) {
        for _ in 0..limits::TURN_DECISIONS {
            if turn.changes.len() >= limits::TURN_WRITES {
                return;
            }
            if self.wave.is_empty() {
                std::mem::swap(&mut self.wave, &mut self.next_wave);
            }
            let Some(decision) = self.wave.pop_first() else { return };
            self.decide_one(turn, decision, now);
        }
    }

    fn decide_one(&mut self, turn: &mut Turn, decision: Decision, now: Timestamp) {
        let plan = {
            let refused = self.setbacks.get(&decision).map(|setback| &setback.refusal);
            let (world, minds) = (&self.world, &self.minds);
            let context = Context { now, refused, usage: &self.usage, heard: &self.heard };
            catch_unwind(AssertUnwindSafe(|| match &decision {
                Decision::Control(who, key) => minds.control(*who, key, world, &context),
                Decision::Schedule(key) => minds.schedule(key, world, &context),
            }))
        };
        let Ok(plan) = plan else {
            tracing::error!(?decision, "a decision panicked; it backs off and the cluster goes on");
            self.note_failure(turn, &decision, now);
            self.back_off(decision, Refusal::internal("the decision panicked"), now);
            return;
        };
        match plan.wake_at {
            Some(time) => self.set_alarm(&decision, time.max(now)),
            None => self.clear_alarm(&decision),
        }
        let decided_nothing = plan.writes.is_empty();
        match self.carry_out(turn, &decision, plan, now) {
            Ok(()) if decided_nothing => {}
            Ok(()) => {
                if self.setbacks.remove(&decision).is_some() {
                    self.note_refusal(&decision, None);
                }
            }
            Err(refusal) => self.back_off(decision, refusal, now),
        }
    }

    fn note_refusal(&self, decision: &Decision, refusal: Option<&Refusal>) {
        if let Decision::Control(who, key) = decision {
            self.why.note(*who, key, refusal);
        }
    }

    fn clear_alarm(&mut self, decision: &Decision) {
        if let Some(old) = self.alarm_of.remove(decision) {
            self.alarms.remove(&(old, decision.clone()));
        }
    }

    /// Carries a plan out, write by write; the first refusal ends it.
    fn carry_out(&mut self, turn: &mut Turn, decision: &Decision, plan: Plan, now: Timestamp) -> Result<(), Refusal> {
        let mut result = Ok(());
        let mut created = String::new();
        for write in plan.writes {
            if let Decision::Control(who, _) = decision
                && let Err(why) = controllers::rights::check(*who, &write)
            {
                tracing::error!(?decision, why, "a plan was refused");
                self.note_failure(turn, decision, now);
                result = Err(Refusal::internal(why));
                break;
            }
            result = self.apply(turn, write, &mut created, now);
            if result.is_err() {
                break;
            }
        }
        for note in &plan.events {
            self.record(turn, note, now);
        }
        result
    }

    /// Carries one write out; `created` keeps the name of the last object made.
    fn apply(&mut self, turn: &mut Turn, write: Write, created: &mut String, now: Timestamp) -> Result<(), Refusal> {
        let mut call = Call { world: &self.world, now, ids: &mut self.ids, requester: None, minds: &*self.minds };
        let (key, outcome) = match write {
            Write::Create(body) => {
                let namespace = body.meta().namespace.clone().unwrap_or_default();
                let body = call.create(&namespace, body)?;
                *created = body.meta().name.clone().unwrap_or_default();
                return self.write(turn, body, false).map(drop);
            }
            Write::Event(mut note) => {
                note.message = note.message.replace(CREATED, created);
                self.record(turn, &note, now);
                return Ok(());
            }
            Write::Remove { key, uid } => {
                let options = DeleteOptions { uid: Some(uid), grace_period_seconds: Some(0), ..Default::default() };
                return self.end(turn, &key, &options, now);
            }
            Write::Update(body) => {
                let key = body.key();
                let outcome = call.update(&key, Part::Main, body)?;
                (key, outcome)
            }
            Write::Status(body) => {
                let key = body.key();
                let outcome = call.update(&key, Part::Status, body)?;
                (key, outcome)
            }
            Write::Finalize(body) => {
                let key = body.key();
                let outcome = call.update(&key, Part::Finalize, body)?;
                (key, outcome)
            }
            Write::Bind { pod, uid, node } => {
                let outcome = call.bind(&pod, &uid, &node)?;
                (pod, outcome)
            }
            Write::Delete { key, uid, propagation } => {
                let options = DeleteOptions {
                    uid: Some(uid),
                    propagation: (propagation != Propagation::Background).then_some(propagation),
                    ..Default::default()
                };
                return self.end(turn, &key, &options, now);
            }
        };
        if matches!(outcome, Outcome::Unchanged) {
            return Ok(());
        }
        self.settle(turn, &key, outcome, false).map(drop)
    }

    /// Deletes for a decision: what is gone already is as it wanted.
    fn end(&mut self, turn: &mut Turn, key: &Key, options: &DeleteOptions, now: Timestamp) -> Result<(), Refusal> {
        match self.delete(turn, key, options, false, now) {
            Err(refusal) if refusal.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    fn record(&mut self, turn: &mut Turn, note: &EventNote, now: Timestamp) {
        let Some(recorded) = self.recorder.record(note, &self.world, now) else { return };
        let mut call = Call { world: &self.world, now, ids: &mut self.ids, requester: None, minds: &*self.minds };
        let outcome = match recorded {
            Recorded::Create(body) => {
                let namespace = body.meta().namespace.clone().unwrap_or_default();
                call.create(&namespace, body).map(|body| (None, Outcome::Write(body)))
            }
            Recorded::Count(key, body) => call.update(&key, Part::Main, body).map(|outcome| (Some(key), outcome)),
        };
        // An event that cannot be stored (its namespace is going, say) must not stop what it tells of.
        match outcome {
            Ok((_, Outcome::Write(body))) => drop(self.write(turn, body, false)),
            Ok(_) => {}
            Err(refusal) => tracing::debug!(%refusal, reason = note.reason, "event not recorded"),
        }
    }

    fn note_failure(&mut self, turn: &mut Turn, decision: &Decision, now: Timestamp) {
        let key = match decision {
            Decision::Control(_, key) | Decision::Schedule(key) => key,
        };
        let Some(object) = self.world.at(key) else { return };
        let note = EventNote {
            regarding: key.clone(),
            uid: object.uid().to_owned(),
            kind: EventType::Warning,
            reason: "InternalError",
            message: "a decision about this object failed inside kapstan; it will be tried again, see the server's log"
                .into(),
            source: "kapstan",
        };
        self.record(turn, &note, now);
    }

    fn back_off(&mut self, decision: Decision, refusal: Refusal, now: Timestamp) {
        self.note_refusal(&decision, Some(&refusal));
        let setback =
            self.setbacks.entry(decision.clone()).or_insert(Setback { attempts: 0, refusal: refusal.clone() });
        let first_time = setback.attempts == 0;
        setback.attempts += 1;
        setback.refusal = refusal;
        let pause = (BACK_OFF_FIRST * 2u32.saturating_pow(setback.attempts.min(16))).min(BACK_OFF_LONGEST);
        if first_time {
            // Decided once more at once, so that the object's status tells of the refusal.
            self.wake(decision);
        } else {
            let pause = SignedDuration::try_from(pause).unwrap_or_default();
            let again = now.checked_add(pause).unwrap_or(now);
            // What time alone changes is told in time, also by who is refused.
            let planned = self.alarm_of.get(&decision).copied().filter(|planned| *planned > now);
            self.set_alarm(&decision, planned.map_or(again, |planned| planned.min(again)));
        }
    }

    fn drop_outdated_events(&mut self, turn: &mut Turn, now: Timestamp) {
        for key in self.recorder.outdated(now) {
            if let Err(refusal) = self.delete(turn, &key, &DeleteOptions::default(), false, now) {
                tracing::debug!(%refusal, "outdated event not deleted");
            }
        }
    }
}
