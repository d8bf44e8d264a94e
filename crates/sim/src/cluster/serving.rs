//! The server: requests become turns, the store takes them, and what was asked is answered; how it ends and starts again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::{Kind, Pod, Refusal, Usage};
use jiff::SignedDuration;
use rand::Rng;
use server::commit::Turn;
use server::door::{Ids, Requester};
use server::turn::{Answer, Request, Writer};
use server::why::Whys;
use tokio::sync::oneshot;

use super::{Cluster, Event, Flight, SET_UP};
use crate::disk::Stored;
use crate::facts;
use crate::invariants::{Breach, Taken};
use crate::letters::{Ask, Letter, Sender};
use crate::node::{NodeEvent, Reply, Report};

/// Changes of one turn; more is a loop.
const TURN_CHANGES: usize = 600;
/// Turns within one second; more is a loop.
const TURNS_A_SECOND: usize = 400;

impl Cluster {
    pub(super) fn arrive(&mut self, letter: Letter) {
        if self.writer.is_none() {
            return self.bounce_unanswered(letter);
        }
        self.inbox.push(letter);
        self.want_serve(self.seconds);
    }

    pub(super) fn want_serve(&mut self, at: i64) {
        if self.serve_at.is_none_or(|planned| planned > at) {
            self.serve_at = Some(at);
            self.schedule(at - self.seconds, Event::Serve);
        }
    }

    pub(super) fn serve(&mut self) -> Result<(), Breach> {
        self.serve_at = None;
        let now = self.now() + SignedDuration::from_secs(self.server_skew);
        let Some(writer) = &mut self.writer else { return Ok(()) };
        self.turns_now =
            if self.turns_now.0 == self.seconds { (self.seconds, self.turns_now.1 + 1) } else { (self.seconds, 1) };
        if self.turns_now.1 > TURNS_A_SECOND {
            return Err(Breach::new("I28 bounded work", "turn after turn without a second going by"));
        }
        let letters = std::mem::take(&mut self.inbox);
        let mut requests = letters.iter();
        let mut next = || {
            let letter = requests.next()?;
            Some(Request {
                action: letter.ask.action(),
                requester: Requester::new("user", "sim"),
                dry_run: false,
                reply: oneshot::channel().0,
            })
        };
        let turn = writer.take_turn(&mut next, now);
        let (rests, alarm) = (!writer.has_decisions(), writer.next_alarm());
        let refuses = self.refuses.load(Ordering::Relaxed);
        let taken = Taken { now, rests, refuses, usage: self.usage.clone() };
        self.flights.push_back(Flight { turn, letters, taken });
        let crashes = self.faults.crash > 0 && self.random.random_ratio(self.faults.crash, 1000);
        if crashes {
            return self.crash();
        }
        let slow = self.faults.slow_disk && self.random.random_ratio(1, 3);
        let wait = if slow { self.random.random_range(0..=2) } else { 0 };
        self.schedule(wait, Event::Commit);
        if !rests {
            self.want_serve(self.seconds);
        } else if let Some(alarm) = alarm {
            let due = alarm.duration_since(now).as_secs().max(0);
            // An alarm that is due now was set by this very turn: it rings in the next second at the earliest.
            self.want_serve(self.seconds + due.max(1));
        }
        Ok(())
    }

    /// The store takes the oldest turn, and perhaps some behind it with the same sync. If it fails, the server ends.
    pub(super) fn commit_those_waiting(&mut self) -> Result<(), Breach> {
        let waiting = self.flights.len();
        if waiting == 0 {
            return Ok(());
        }
        let together = if waiting > 1 { self.random.random_range(1..=waiting) } else { 1 };
        let trouble = self.faults.bad_disk > 0 && self.random.random_ratio(self.faults.bad_disk, 1000);
        let group = self.flights.drain(..together).collect();
        if self.store(group, true, trouble)? { Ok(()) } else { self.die() }
    }

    /// Makes turns durable together; false if the store failed.
    fn store(&mut self, group: Vec<Flight>, answered: bool, trouble: bool) -> Result<bool, Breach> {
        let turns: Vec<&Turn> = group.iter().map(|flight| &flight.turn).collect();
        let stored = self.disk.as_mut().map_or(Ok(Stored::Acknowledged), |disk| disk.commit(&turns, trouble))?;
        let (durable, answered) = match stored {
            Stored::Acknowledged | Stored::ThenFailed => (true, answered),
            Stored::Unanswered { durable } => (durable, false),
        };
        for flight in group {
            if durable {
                self.commit(flight, answered)?;
            } else {
                flight.letters.into_iter().for_each(|letter| self.bounce_unanswered(letter));
            }
        }
        let fails = !matches!(stored, Stored::Acknowledged);
        if fails {
            let words = if durable { "what it was given is there" } else { "what it was given is lost" };
            self.trace.tell(self.seconds, "disk", || format!("fails; {words}"));
        }
        Ok(!fails)
    }

    /// The store has a turn: it is judged, answered, and seen by all who watch.
    fn commit(&mut self, flight: Flight, answered: bool) -> Result<(), Breach> {
        let Flight { turn, letters, taken } = flight;
        self.trace.commit(self.seconds, &turn.changes);
        if turn.changes.len() > TURN_CHANGES {
            let message = format!("{} changes in one turn of a few dozen pods", turn.changes.len());
            return Err(Breach::new("I28 bounded work", message));
        }
        self.witness.see(&turn, &taken)?;
        self.durable = turn.world;
        if self.witness.world().revision() != self.durable.revision() {
            return Err(Breach::new("I17 list and watch", "what was watched is not what is listed"));
        }
        self.count(&turn.changes);
        self.spread(&turn.changes);
        if answered {
            let answers = turn.answers.into_iter().map(|(_, answer)| answer);
            for (letter, answer) in letters.into_iter().zip(answers) {
                self.answer(letter, answer)?;
            }
        } else {
            letters.into_iter().for_each(|letter| self.bounce_unanswered(letter));
        }
        Ok(())
    }

    fn count(&mut self, changes: &[api::Change]) {
        self.report.commits += 1;
        self.report.changes += changes.len() as u64;
        for change in changes {
            let bytes = change.after.as_ref().map_or(&[][..], |object| &object.json[..]);
            for byte in bytes.iter().step_by(7) {
                self.report.digest = (self.report.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            if !matches!(change.kind(), Kind::Event | Kind::Lease) {
                self.last_write = self.seconds;
            }
        }
    }

    /// Wakes the nodes and proxies that watch what changed.
    fn spread(&mut self, changes: &[api::Change]) {
        let mut nodes = BTreeSet::new();
        for pod in changes.iter().flat_map(|it| it.before.iter().chain(&it.after)).filter_map(|it| it.get::<Pod>()) {
            nodes.insert(facts::node(pod).to_owned());
        }
        for index in 0..self.nodes.len() {
            if nodes.contains(&self.nodes[index].name) {
                let late = self.faults.late_watch && self.random.random_ratio(1, 3);
                let wait = if late { self.random.random_range(0..=6) } else { 0 };
                self.schedule(wait, Event::Node(index, NodeEvent::Look));
            }
        }
        if changes.iter().any(|change| change.kind() == Kind::EndpointSlice) {
            for index in 0..self.proxies.len() {
                let late = self.faults.late_proxies && self.random.random_ratio(1, 4);
                let wait = if late { self.random.random_range(1..=15) } else { 0 };
                self.schedule(wait, Event::Proxy(index));
            }
        }
    }

    fn answer(&mut self, letter: Letter, answer: Result<Answer, Refusal>) -> Result<(), Breach> {
        if self.trace.on && matches!(letter.sender, Sender::Person | Sender::Drain) {
            self.heard = match &answer {
                Ok(_) => format!("{}\n", letter.words),
                Err(refusal) => format!("Error from server ({}): {}\n", refusal.reason, refusal.message),
            };
            let words = match &answer {
                Ok(_) => letter.words.clone(),
                Err(refusal) => format!("{} — refused: {refusal}", letter.words),
            };
            self.trace.tell(self.seconds, "person", || words);
        }
        if let (Some(wanted), Ok(Answer::Object { object, .. })) = (&letter.expects, &answer)
            && facts::template_of(object).is_some_and(|template| !facts::same_template(wanted, &template))
        {
            let message = format!("{}, but the template is another one", letter.words);
            return Err(Breach::new("I10 undo", message));
        }
        if let (Sender::Beat, Err(refusal)) = (&letter.sender, &answer) {
            self.trace.tell(self.seconds, "beat", || format!("of {} is refused: {refusal}", letter.ask.key()));
        }
        if matches!(&answer, Err(refusal) if refusal.code == 429) && matches!(letter.sender, Sender::Drain) {
            self.evict_again(letter);
            return Ok(());
        }
        let Sender::Agent(index, uid, life, report) = letter.sender else { return Ok(()) };
        let reply = match answer {
            Ok(_) => Reply::Taken,
            Err(refusal) if refusal.code == 404 || (refusal.code == 409 && report == Report::Delete) => Reply::Gone,
            Err(refusal) if refusal.code == 409 => Reply::Again,
            // What an agent said before it was started anew came late, of a container that it started once more since: one
            // that has ended stays so, and the agent tries until this one has ended, too.
            Err(refusal) if refusal.code == 422 && refusal.message.contains("non-terminated state") => Reply::Again,
            Err(refusal) => {
                let message = format!("what the agent says of {} is refused: {refusal}", letter.ask.key());
                return Err(Breach::new("agents are heard", message));
            }
        };
        self.schedule(0, Event::Node(index, NodeEvent::Answer(uid, life, report, reply)));
        Ok(())
    }

    /// Who drains a node asks again every few seconds, until the faults stop.
    fn evict_again(&mut self, letter: Letter) {
        if self.healed_at.is_none() {
            self.schedule(5, Event::Arrive(letter));
        }
    }

    /// The answer was lost with the server. An agent tries again; so do those who set the cluster up or put it right.
    fn bounce_unanswered(&mut self, letter: Letter) {
        if let Sender::Agent(index, uid, life, report) = letter.sender {
            self.schedule(1, Event::Node(index, NodeEvent::Answer(uid, life, report, Reply::Again)));
        } else if matches!(letter.sender, Sender::Drain) {
            self.evict_again(letter);
        } else if !matches!(letter.sender, Sender::Beat)
            && (self.seconds < SET_UP || self.healed_at.is_some() || makes_for_all(&letter))
        {
            self.schedule(1, Event::Arrive(letter));
        }
    }

    /// The process is gone. Some turns had reached the disk, though nobody was told.
    pub(super) fn crash(&mut self) -> Result<(), Breach> {
        let survive = self.random.random_range(0..=self.flights.len());
        let lost = self.flights.len() - survive;
        self.trace.tell(self.seconds, "CRASH", || format!("the server; {survive} turns survive, {lost} are lost"));
        self.writer = None;
        for _ in 0..survive {
            let Some(flight) = self.flights.pop_front() else { break };
            if !self.store(vec![flight], false, false)? {
                return self.die();
            }
        }
        let lost: Vec<&Turn> = self.flights.iter().map(|flight| &flight.turn).collect();
        self.disk.as_mut().map_or(Ok(()), |disk| disk.crash(&lost))?;
        self.die()
    }

    /// What the server had in memory is lost; it starts again after a while.
    fn die(&mut self) -> Result<(), Breach> {
        self.report.crashes += 1;
        self.writer = None;
        self.usage = Usage::default();
        self.serve_at = None;
        for flight in std::mem::take(&mut self.flights) {
            if self.settings.answers_early {
                let answers = flight.turn.answers.into_iter().map(|(_, answer)| answer);
                for (letter, answer) in flight.letters.into_iter().zip(answers) {
                    self.answer(letter, answer)?;
                }
                continue;
            }
            flight.letters.into_iter().for_each(|letter| self.bounce_unanswered(letter));
        }
        std::mem::take(&mut self.inbox).into_iter().for_each(|letter| self.bounce_unanswered(letter));
        let down = self.random.random_range(0..=4);
        self.schedule(down, Event::Restart);
        Ok(())
    }

    /// The server reads back what the store has.
    pub(super) fn restart(&mut self) -> Result<(), Breach> {
        if self.writer.is_some() {
            return Ok(());
        }
        self.starts += 1;
        let world = match &mut self.disk {
            Some(disk) => disk.open(&self.durable, self.read_back)?,
            None => self.durable.clone(),
        };
        self.read_back = self.durable.revision();
        let ids = Ids::from_seed(self.settings.seed.wrapping_mul(1_000).wrapping_add(self.starts));
        let minds = self.settings.minds.clone();
        self.writer = Some(Writer::with_minds(world, ids, Arc::new(Whys::default()), minds));
        self.trace.tell(self.seconds, "start", || "the server is up".into());
        self.serve_at = None;
        self.want_serve(self.seconds);
        for index in 0..self.nodes.len() {
            self.schedule(0, Event::Node(index, NodeEvent::Look));
        }
        Ok(())
    }
}

/// True where something is made that all depend on: nodes, namespaces, classes. Who does that sees to it.
fn makes_for_all(letter: &Letter) -> bool {
    matches!(&letter.ask, Ask::Create(_, body) if !body.kind().namespaced())
}
