//! The cluster: the real turn over the real store (`disk.rs`), nodes, a network, and time that moves from one event to the next.
//!
//! Everything that happens is an [`Event`] in one ordered map; events of one second are ordered by random numbers drawn
//! from the seed. Nothing else decides an order, so a seed is a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent::pod_on_node::Outcome;
use agent::probes::{Kind as ProbeKind, Probed};
use api::heard::NODE_LEASES;
use api::patch::PatchType;
use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report as UsageReport, Used};
use api::{Kind, Object, Pod, Refusal, Snapshot, Usage};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node as NodeObject;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::commit::Turn;
use server::door::{DeleteOptions, Ids, Part, Requester};
use server::minds::{Minds, Real};
use server::turn::{Answer, Request, Writer};
use server::why::Whys;
use tokio::sync::oneshot;

use crate::behind::HOLD_FROM_BEHIND;
use crate::disk::{self, Disk, Stored};
use crate::facts;
use crate::faults::Faults;
use crate::healing;
use crate::invariants::{Breach, Taken, Witness, told_ready};
use crate::letters::{Ask, Letter, Sender};
use crate::node::{Around, Effect, Node, NodeEvent, Reply, Report};
use crate::people::{self, NAMESPACE, People, Undo, pick};
use crate::refusing::Refusing;
use crate::trace::Trace;
use crate::{volumes, without_hash};

/// Seconds after healing within which the cluster has to come to rest.
const REST_WITHIN: i64 = 1_500;
/// Seconds without a write (events and leases apart) after which a healed cluster is at rest: longer than anything waits.
const QUIET: i64 = 700;
/// Seconds after healing when what was not there yet is put right, too.
const HEAL_AGAIN: i64 = 90;
/// Seconds between two reports of what is used.
const REPORT: i64 = 15;
/// Seconds in which the cluster is set up: what is lost then is asked for again.
const SET_UP: i64 = 12;
/// Seconds between two signs of life of a node.
const BEAT: i64 = 20;
/// ... when no sign is lost any more.
const BEAT_AT_REST: i64 = 35;
/// Events of one run; more is a loop.
const EVENTS: usize = 60_000;
/// Changes of one turn; more is a loop.
const TURN_CHANGES: usize = 600;
/// Turns within one second; more is a loop.
const TURNS_A_SECOND: usize = 400;

/// What a run is made of.
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// Who decides.
    pub minds: Arc<dyn Minds>,
    /// How people undo.
    pub undo: Undo,
    /// Keep a trace.
    pub trace: bool,
    /// A bug: requests are answered before the store has them.
    pub answers_early: bool,
    /// A bug of the disk.
    pub disk: Option<disk::Fault>,
    /// Those who decide are behind: only what holds nevertheless is asked, and nothing durable is lost.
    pub behind: bool,
}

impl Settings {
    /// A run as things are.
    pub fn of(seed: u64, trace: bool) -> Settings {
        Settings {
            seed,
            minds: Arc::new(Real),
            undo: without_hash,
            trace,
            answers_early: false,
            disk: None,
            behind: false,
        }
    }
}

/// What came of a run.
pub struct Ending {
    /// The seed.
    pub seed: u64,
    /// The broken invariant, if one broke.
    pub breach: Option<Breach>,
    /// Virtual seconds.
    pub seconds: i64,
    /// Commits.
    pub commits: u64,
    /// Changes.
    pub changes: u64,
    /// Crashes of the server.
    pub crashes: u64,
    /// Lines, if they were wanted.
    pub trace: Vec<String>,
    /// A number for all that was committed: the same for the same run.
    pub digest: u64,
}

/// Something that happens.
enum Event {
    /// The server takes a turn.
    Serve,
    /// The store has taken the oldest turn.
    Commit,
    /// The server starts again.
    Restart,
    /// A request arrives.
    Arrive(Letter),
    /// Something happens on a node.
    Node(usize, NodeEvent),
    /// A node gets its power back.
    PowerOn(usize),
    /// A node can be reached again.
    Reconnect(usize),
    /// The watch of a node is made again after it was cut.
    Watch(usize),
    /// New pods are let in again.
    Admit,
    /// The proxy of a node follows.
    Proxy(usize),
    /// The nodes show that they live.
    Beat,
    /// The nodes tell what is used.
    Report,
    /// People act.
    People,
    /// Something breaks.
    Fault,
    /// Faults stop, people put right what they did.
    Heal,
    /// The rest is put right, which was not there yet.
    HealAgain,
}

/// A turn on its way to the disk.
struct Flight {
    turn: Turn,
    letters: Vec<Letter>,
    taken: Taken,
}

/// A whole cluster.
pub struct Cluster {
    settings: Settings,
    faults: Faults,
    random: StdRng,
    seconds: i64,
    /// Boxed: the map moves its entries about.
    events: BTreeMap<(i64, u32, u64), Box<Event>>,
    serial: u64,
    writer: Option<Writer>,
    serve_at: Option<i64>,
    turns_now: (i64, usize),
    inbox: Vec<Letter>,
    flights: VecDeque<Flight>,
    /// Where the server may crash.
    disk: Option<Disk>,
    /// What is committed.
    durable: Snapshot,
    /// Objects up to this revision are those that were read back when the server started last.
    read_back: u64,
    witness: Witness,
    /// What the server has been told of what is used; it forgets that when it ends.
    usage: Usage,
    nodes: Vec<Node>,
    left: BTreeSet<usize>,
    /// Looks that agents have planned: the node and the second.
    looks: BTreeSet<(usize, i64)>,
    proxies: Vec<BTreeSet<String>>,
    people: People,
    server_skew: i64,
    /// New pods are refused.
    refuses: Arc<AtomicBool>,
    healed_at: Option<i64>,
    last_write: i64,
    starts: u64,
    slow_proxies: bool,
    /// What the last person was answered.
    heard: String,
    report: Ending,
    trace: Trace,
}

/// Runs one seed.
pub fn run(settings: Settings) -> Ending {
    let mut cluster = Cluster::new(settings);
    let outcome = cluster.live();
    cluster.report.breach = outcome.err();
    if let Some(breach) = &cluster.report.breach {
        let words = breach.to_string();
        cluster.trace.tell(cluster.seconds, "BREACH", || words);
        cluster.trace.remains(&cluster.durable);
        cluster.nodes.iter().for_each(|node| cluster.trace.lines.extend(node.words()));
    }
    cluster.report.seconds = cluster.seconds;
    cluster.report.trace = std::mem::take(&mut cluster.trace.lines);
    cluster.report
}

impl Cluster {
    fn new(settings: Settings) -> Cluster {
        let mut random = StdRng::seed_from_u64(settings.seed);
        let mut faults = Faults::mix(&mut random);
        if settings.behind {
            (faults.crash, faults.bad_disk) = (0, 0);
        }
        let nodes = random.random_range(3..=5);
        // What is never read back need not be written.
        let disk = (faults.crash + faults.bad_disk > 0).then(|| Disk::new(settings.seed, settings.disk));
        let mut cluster = Cluster::with(settings, random, faults, nodes, disk);
        cluster.people.bound(&mut cluster.random);
        cluster.begin();
        cluster
    }

    /// A cluster of three nodes where nothing happens but what is commanded.
    pub(crate) fn staged(settings: Settings) -> Cluster {
        let random = StdRng::seed_from_u64(settings.seed);
        let disk = Some(Disk::new(settings.seed, settings.disk));
        let mut cluster = Cluster::with(settings, random, Faults { slow: true, ..Faults::default() }, 3, disk);
        cluster.make_nodes();
        cluster
    }

    fn with(mut settings: Settings, mut random: StdRng, faults: Faults, nodes: u8, disk: Option<Disk>) -> Cluster {
        let (minds, refuses) = Refusing::wrap(settings.minds);
        settings.minds = minds;
        let seed = settings.seed;
        let mut nodes: Vec<Node> = (1..=nodes).map(Node::new).collect();
        // An agent's clock may be wrong, but it never steps: it counts from its start.
        for node in nodes.iter_mut().filter(|_| faults.clocks) {
            node.skew = random.random_range(-4..=4);
        }
        let apps = random.random_range(1..=3);
        let people = People::new(apps, &mut random);
        let mut cluster = Cluster {
            trace: Trace { on: settings.trace, ..Trace::default() },
            // Endpoints that come late let proxies go on for as long.
            slow_proxies: faults.late_proxies || settings.behind,
            witness: Witness::new(Snapshot::default(), if settings.behind { HOLD_FROM_BEHIND } else { &[] }),
            settings,
            faults,
            random,
            seconds: 0,
            events: BTreeMap::new(),
            serial: 0,
            writer: None,
            serve_at: None,
            turns_now: (0, 0),
            inbox: Vec::new(),
            flights: VecDeque::new(),
            disk,
            durable: Snapshot::default(),
            read_back: 0,
            usage: Usage::default(),
            nodes,
            left: BTreeSet::new(),
            looks: BTreeSet::new(),
            proxies: Vec::new(),
            people,
            server_skew: 0,
            refuses,
            healed_at: None,
            last_write: 0,
            starts: 0,
            heard: String::new(),
            report: Ending {
                seed,
                breach: None,
                seconds: 0,
                commits: 0,
                changes: 0,
                crashes: 0,
                trace: Vec::new(),
                digest: 0xcbf2_9ce4_8422_2325,
            },
        };
        cluster.proxies = vec![BTreeSet::new(); cluster.nodes.len()];
        cluster
    }

    fn make_nodes(&mut self) {
        self.schedule(0, Event::Restart);
        let mut letters = vec![namespace(NAMESPACE), namespace(NODE_LEASES)];
        letters.extend(self.nodes.iter().map(|node| people::node(&node.name)));
        for letter in letters {
            self.schedule(1, Event::Arrive(letter));
        }
        self.schedule(SET_UP, Event::Beat);
    }

    /// What is there at first, and when what follows begins.
    fn begin(&mut self) {
        let words = self.faults.words();
        self.trace.tell(0, "faults", || words);
        self.make_nodes();
        self.schedule(1, Event::Arrive(volumes::class()));
        for letter in self.people.first(&mut self.random) {
            self.schedule(2, Event::Arrive(letter));
        }
        // Where something happens every minute, a few minutes have to go by.
        let longest = if self.people.have_schedule() { 300 } else { 150 };
        let chaos = self.random.random_range(40..=longest);
        self.schedule(5, Event::People);
        self.schedule(8, Event::Fault);
        self.schedule(chaos, Event::Heal);
        self.schedule(chaos + HEAL_AGAIN, Event::HealAgain);
        if self.people.measure() {
            self.schedule(SET_UP, Event::Report);
        }
    }

    fn live(&mut self) -> Result<(), Breach> {
        for _ in 0..EVENTS {
            let Some(((second, ..), event)) = self.events.pop_first() else { return self.is_over().map(|_| ()) };
            self.seconds = second;
            let rests = self.healed_at.is_some_and(|at| second > self.last_write.max(at + HEAL_AGAIN) + QUIET);
            if rests && self.is_over()? {
                return Ok(());
            }
            if self.healed_at.is_some_and(|at| self.last_write > at + REST_WITHIN) {
                return Err(Breach::new("I24 quiet", format!("still writes {REST_WITHIN}s after all faults stopped")));
            }
            self.happen(*event)?;
        }
        Err(Breach::new("I28 bounded work", format!("{EVENTS} events and no end")))
    }

    /// Nothing more will happen: is all as it should be? Then rollouts that were left stuck are mended, and it goes on.
    fn is_over(&mut self) -> Result<bool, Breach> {
        healing::judge(&self.durable, &self.usage, self.now())?;
        self.nodes.iter().filter(|node| node.up).try_for_each(|node| self.nothing_outlives_its_pod(node))?;
        let mended = people::mend(&self.durable);
        if mended.is_empty() {
            return Ok(true);
        }
        self.trace.tell(self.seconds, "MEND", || "rollouts that were left stuck get a good image".into());
        self.arrive_together(mended);
        self.healed_at = Some(self.seconds);
        Ok(false)
    }

    /// I21: when all is quiet no process is left of a pod that is gone.
    fn nothing_outlives_its_pod(&self, node: &Node) -> Result<(), Breach> {
        let there: BTreeSet<&str> = self.durable.pod_objects_on(&node.name, None).map(|pod| pod.uid()).collect();
        match node.running().into_iter().find(|(uid, _)| !there.contains(uid.as_str())) {
            Some((uid, id)) => {
                let message = format!("container {id} runs on {}, but its pod {uid} is gone", node.name);
                Err(Breach::new("I21 nothing outlives its pod", message))
            }
            None => Ok(()),
        }
    }

    fn schedule(&mut self, after_seconds: i64, event: Event) {
        self.serial += 1;
        let tie = self.random.random::<u32>();
        self.events.insert((self.seconds + after_seconds.max(0), tie, self.serial), Box::new(event));
    }

    /// Requests that arrive in this order, one right behind the other.
    pub(crate) fn arrive_together(&mut self, letters: Vec<Letter>) {
        let tie = self.random.random::<u32>();
        for letter in letters {
            self.serial += 1;
            self.events.insert((self.seconds, tie, self.serial), Box::new(Event::Arrive(letter)));
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Breach> {
        match event {
            // One that was planned for later, and was overtaken, is for nothing.
            Event::Serve if self.serve_at.is_some_and(|at| at <= self.seconds) => self.serve()?,
            Event::Serve => {}
            Event::Commit => self.commit_those_waiting()?,
            Event::Restart => self.restart()?,
            Event::Arrive(letter) => self.arrive(letter),
            Event::Node(index, event) => {
                if matches!(event, NodeEvent::Look) {
                    self.looks.remove(&(index, self.seconds));
                }
                self.on_node(index, event)?;
            }
            Event::PowerOn(index) => {
                let name = self.nodes[index].name.clone();
                self.trace.tell(self.seconds, "power", || format!("{name} is back"));
                self.nodes[index].up = !self.left.contains(&index);
                self.schedule(0, Event::Node(index, NodeEvent::Look));
            }
            Event::Reconnect(index) => {
                self.nodes[index].reachable = true;
                self.schedule(0, Event::Node(index, NodeEvent::Look));
            }
            Event::Watch(index) => {
                self.nodes[index].deaf = false;
                self.schedule(0, Event::Node(index, NodeEvent::Look));
            }
            Event::Admit => self.refuses.store(false, Ordering::Relaxed),
            Event::Proxy(index) => self.proxies[index] = told_ready(&self.durable),
            Event::Beat => self.beat(),
            Event::Report => self.report_usage(),
            Event::People => self.people_act(),
            Event::Fault => self.break_something(),
            Event::Heal => self.heal(),
            Event::HealAgain => self.put_right(),
        }
        Ok(())
    }

    /// The true time.
    pub(crate) fn now(&self) -> Timestamp {
        start() + SignedDuration::from_secs(self.seconds)
    }

    // ---- on a stage ------------------------------------------------------------------------------------------------

    /// What the store has.
    pub(crate) fn world(&self) -> &Snapshot {
        &self.durable
    }

    /// Lets so many seconds go by.
    pub(crate) fn pass(&mut self, seconds: i64) -> Result<(), Breach> {
        let until = self.seconds + seconds;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((second, ..), event) = entry.remove_entry();
            self.seconds = second;
            self.happen(*event)?;
        }
        self.seconds = until;
        Ok(())
    }

    /// Sends a request in and gives the answer.
    pub(crate) fn send_in(&mut self, letter: Letter) -> Result<String, Breach> {
        self.heard.clear();
        self.schedule(0, Event::Arrive(letter));
        while self.heard.is_empty()
            && let Some(((second, ..), event)) = self.events.pop_first()
        {
            self.seconds = second;
            self.happen(*event)?;
        }
        Ok(std::mem::take(&mut self.heard))
    }

    /// The lines of the trace since they were last asked for, without what people said.
    pub(crate) fn told(&mut self) -> String {
        let lines = std::mem::take(&mut self.trace.lines);
        lines.iter().filter(|line| !line.contains(" person ")).map(|line| format!("{line}\n")).collect()
    }

    /// From now on there is so much work for an app, in thousandths of a core; nodes tell of it at their next report.
    pub(crate) fn work(&mut self, app: &str, milli: i64) {
        if !self.people.measure() {
            self.schedule(0, Event::Report);
        }
        self.people.set_load(app, milli);
    }

    /// Ends the server's process; it starts again after a while.
    pub(crate) fn stop(&mut self) -> Result<(), Breach> {
        self.crash()
    }

    /// Takes the power from a node or gives it back.
    pub(crate) fn switch(&mut self, index: usize, on: bool) {
        if on {
            return self.schedule(0, Event::PowerOn(index));
        }
        let name = self.nodes[index].name.clone();
        self.trace.tell(self.seconds, "power", || format!("{name} has none"));
        self.nodes[index].lose_power();
    }

    // ---- the server ------------------------------------------------------------------------------------------------

    fn arrive(&mut self, letter: Letter) {
        if self.writer.is_none() {
            return self.bounce_unanswered(letter);
        }
        self.inbox.push(letter);
        self.want_serve(self.seconds);
    }

    fn want_serve(&mut self, at: i64) {
        if self.serve_at.is_none_or(|planned| planned > at) {
            self.serve_at = Some(at);
            self.schedule(at - self.seconds, Event::Serve);
        }
    }

    fn serve(&mut self) -> Result<(), Breach> {
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
    fn commit_those_waiting(&mut self) -> Result<(), Breach> {
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
    fn crash(&mut self) -> Result<(), Breach> {
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
    fn restart(&mut self) -> Result<(), Breach> {
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

    // ---- nodes -----------------------------------------------------------------------------------------------------

    fn on_node(&mut self, index: usize, event: NodeEvent) -> Result<(), Breach> {
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
    fn beat(&mut self) {
        let wait = if self.healed_at.is_some() { BEAT_AT_REST } else { BEAT };
        self.schedule(wait, Event::Beat);
        if self.writer.is_none() {
            return;
        }
        let now = self.now();
        // A server sees to it at every start that these are there; what is made first here may have been lost.
        let missing = |name: &&str| self.durable.object(Kind::Namespace, "", name).is_none();
        self.inbox.extend([NAMESPACE, NODE_LEASES].iter().copied().filter(missing).map(namespace));
        for node in self.nodes.iter().filter(|node| node.up && node.reachable) {
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
    fn report_usage(&mut self) {
        self.schedule(REPORT, Event::Report);
        let Some(writer) = &mut self.writer else { return };
        let mut sharing: BTreeMap<&str, i64> = BTreeMap::new();
        for pod in self.durable.list::<Pod>(Some(NAMESPACE)).filter(|pod| facts::is_active(pod)) {
            *sharing.entry(facts::app(pod)).or_default() += i64::from(facts::ready_since(pod).is_some());
        }
        for node in self.nodes.iter().filter(|node| node.up && node.reachable) {
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
        if !self.nodes[index].reachable {
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

    // ---- people and faults -----------------------------------------------------------------------------------------

    fn people_act(&mut self) {
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

    fn break_something(&mut self) {
        if self.healed_at.is_some() {
            return;
        }
        let wait = self.random.random_range(1..=10);
        self.schedule(wait, Event::Fault);
        let index = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..10) {
            0 if self.faults.nodes => self.lose_power(index),
            1 if self.faults.nodes => {
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

    fn heal(&mut self) {
        self.trace.tell(self.seconds, "HEAL", || "faults stop, people put right what they did".into());
        self.faults = Faults::default();
        self.healed_at = Some(self.seconds);
        self.server_skew = 0;
        self.refuses.store(false, Ordering::Relaxed);
        for index in 0..self.nodes.len() {
            self.nodes[index].reachable = true;
            self.nodes[index].deaf = false;
            self.nodes[index].up = !self.left.contains(&index);
            self.schedule(0, Event::Node(index, NodeEvent::Look));
            self.schedule(0, Event::Proxy(index));
        }
        self.put_right();
    }

    /// What people did is undone, and machines that left are struck off: that request may have been lost.
    fn put_right(&mut self) {
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

/// True where something is made that all depend on: nodes, namespaces, classes. Who does that sees to it.
fn makes_for_all(letter: &Letter) -> bool {
    matches!(&letter.ask, Ask::Create(_, body) if !body.kind().namespaced())
}

/// The first moment of every run.
fn start() -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("a time in this century")
}

fn namespace(name: &str) -> Letter {
    let body = Kind::Namespace.decode(serde_json::json!({ "metadata": { "name": name } }));
    let ask = Ask::Create(String::new(), body.expect("a namespace needs no more than a name"));
    Letter::of_person(ask, format!("makes namespace {name}"))
}
