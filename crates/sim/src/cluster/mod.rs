//! The cluster: the real turn over the real store (`disk.rs`), nodes, a network, and time that moves from one event to the next.
//!
//! Everything that happens is an [`Event`] in one ordered map; events of one second are ordered by random numbers drawn
//! from the seed. Nothing else decides an order, so a seed is a run.

mod chaos;
mod nodes;
mod serving;
mod stage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::heard::NODE_LEASES;
use api::{Kind, Snapshot, Usage};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::commit::Turn;
use server::minds::{Minds, Real};
use server::turn::Writer;

use crate::behind::HOLD_FROM_BEHIND;
use crate::disk::Disk;
use crate::faults::Faults;
use crate::invariants::{Breach, Taken, Witness, told_ready};
use crate::letters::{Ask, Letter};
use crate::node::{Node, NodeEvent};
use crate::people::{NAMESPACE, People, Undo};
use crate::refusing::Refusing;
use crate::trace::Trace;
use crate::{disk, healing, people, volumes, without_hash};

/// Seconds after healing within which the cluster has to come to rest.
const REST_WITHIN: i64 = 1_500;
/// Seconds without a write (events and leases apart) after which a healed cluster is at rest: longer than anything waits.
const QUIET: i64 = 700;
/// Seconds after healing when what was not there yet is put right, too.
const HEAL_AGAIN: i64 = 90;
/// Seconds in which the cluster is set up: what is lost then is asked for again.
const SET_UP: i64 = 12;
/// Events of one run; more is a loop.
const EVENTS: usize = 60_000;

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
    /// The process of a node goes on after it was stopped.
    GoOn(usize),
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
                self.nodes[index].mute = false;
                self.schedule(0, Event::Node(index, NodeEvent::Look));
            }
            Event::GoOn(index) => self.go_on(index)?,
            Event::Watch(index) => {
                self.nodes[index].deaf = false;
                self.schedule(0, Event::Node(index, NodeEvent::Look));
            }
            Event::Admit => self.refuses.store(false, Ordering::Relaxed),
            Event::Proxy(index) if self.nodes[index].is_stopped() => {}
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
