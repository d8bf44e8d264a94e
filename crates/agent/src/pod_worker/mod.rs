//! Carries out the plan of one pod: one task from the first sight of the pod until nothing is left of it.
//!
//! The worker owns what is known of its pod. Words from outside (a new version of the pod, its deletion, an exit) and
//! outcomes of its own steps arrive one at a time; after each it plans, begins the new steps and tells the API what
//! changed. It decides nothing itself ([`crate::plan`], [`crate::probes`], [`crate::status`] do) and never touches
//! another pod. Stopping the agent drops the worker; containers run on and are adopted at the next start.

mod work;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    clock::Clock,
    drained::Drained,
    events::Recorder,
    plan::{PodPlan, Step, plan},
    pod_on_node::{Failure, Outcome, PodOnNode, Stage, container_spec},
    probes::Kind,
    report::{self, ReportError},
    resolv_conf::Dns,
    runtime::{Exit, PodSeen, Runtime},
    status::{Conditions, Host, agrees, status},
    volumes,
    written::Written,
};
pub use work::forget;
use work::{Stopping, Work};

/// Words waiting for one worker.
const WORDS: usize = 64;
/// A pod that comes up faster than this is not reported as pending first.
const PENDING_UNSAID: SignedDuration = SignedDuration::from_millis(50);
/// First and longest wait after a refused write.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// How often volumes that show API objects are brought up to date (`syncFrequency`).
const VOLUMES_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// Steps that may follow each other at once; more is a mistake in the plan.
const PLANS_IN_A_ROW: usize = 100;

/// What all workers of a node share.
pub struct Workshop {
    /// The API.
    pub client: Client,
    /// Containers.
    pub runtime: Runtime,
    /// Events.
    pub recorder: Recorder,
    /// Whether requests still reach a pod; `None`: nobody sends any.
    pub drained: Option<Drained>,
    /// Time.
    pub clock: Clock,
    /// Name of the node.
    pub node: String,
    /// Address of the node.
    pub host_ip: IpAddr,
    /// `<data-dir>/pods`.
    pub pods_dir: PathBuf,
    /// `<data-dir>/volumes`.
    pub volumes_dir: PathBuf,
    /// Thousandths of a core that pods may use.
    pub cpu_milli: i64,
    /// Bytes of memory that pods may use.
    pub memory_bytes: i64,
    /// How pods find names.
    pub dns: Dns,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Word {
    /// The pod changed.
    Pod(Arc<Pod>),
    /// Its API object is gone.
    Gone,
    /// A container ended.
    Exited {
        /// Its id.
        id: String,
        /// How.
        exit: Exit,
    },
    /// It does not fit on the node.
    Refused(Failure),
}

/// Starts the worker of a pod that the API has and, if `seen`, the runtime runs. Its task ends when nothing is left.
pub fn start(
    shop: Arc<Workshop>,
    pod: Arc<Pod>,
    seen: Option<PodSeen>,
) -> (mpsc::Sender<Word>, impl Future<Output = ()>) {
    let (sender, words) = mpsc::channel(WORDS);
    (sender, PodWorker::new(shop, pod, seen).run(words))
}

struct PodWorker {
    shop: Arc<Workshop>,
    pod: Arc<Pod>,
    seen: PodOnNode,
    conditions: Conditions,
    /// Steps under way.
    tasks: JoinSet<()>,
    outcomes: mpsc::Sender<Outcome>,
    /// Exits of containers, by id, that were heard of before their starts.
    early: HashMap<String, Exit>,
    /// Instances whose preStop hook was begun.
    hooked: HashSet<String>,
    /// When volumes that show API objects are brought up to date.
    volumes_at: Option<Timestamp>,
    /// Held while its volumes are written.
    volumes: Arc<tokio::sync::Mutex<()>>,
    reporting: Reporting,
    over: bool,
}

/// Where the writes of the status stand.
struct Reporting {
    written: Written<Vec<u8>>,
    /// The last status waits for the one under way.
    last_waits: bool,
    /// Not before, after a refusal.
    retry_at: Option<Instant>,
    retry_wait: Duration,
    /// Counts writes that were taken.
    landed: watch::Sender<u64>,
    answers: mpsc::Sender<Answer>,
}

type Answer = (Vec<u8>, Result<(), ReportError>);

impl PodWorker {
    fn new(shop: Arc<Workshop>, pod: Arc<Pod>, seen: Option<PodSeen>) -> PodWorker {
        shop.runtime.introduce(&pod);
        let now = shop.clock.now();
        let mut known = PodOnNode::adopt(&pod, seen.as_ref(), now);
        known.drains =
            shop.drained.is_some() && pod.spec.as_deref().is_some_and(|spec| spec.host_network != Some(true));
        PodWorker {
            conditions: Conditions::of(pod.status.as_ref()),
            seen: known,
            tasks: JoinSet::new(),
            outcomes: mpsc::channel(1).0,
            early: HashMap::new(),
            hooked: HashSet::new(),
            volumes_at: None,
            volumes: Arc::default(),
            reporting: Reporting {
                written: Written::default(),
                last_waits: false,
                retry_at: None,
                retry_wait: RETRY_FIRST,
                landed: watch::Sender::new(0),
                answers: mpsc::channel(1).0,
            },
            over: false,
            shop,
            pod,
        }
    }

    async fn run(mut self, mut words: mpsc::Receiver<Word>) {
        let (outcomes, mut arriving) = mpsc::channel(WORDS);
        let (answers, mut answered) = mpsc::channel(1);
        self.outcomes = outcomes;
        self.reporting.answers = answers;
        // What was said before the first plan: a refusal, above all.
        while let Ok(word) = words.try_recv() {
            self.hear(word);
        }
        loop {
            let wake_at = self.advance();
            if self.over {
                return work::forget(&self.work().pod_dir()).await;
            }
            tokio::select! {
                Some(outcome) = arriving.recv() => self.take(outcome),
                Some((body, answer)) = answered.recv() => self.answered(body, answer),
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                word = words.recv() => match word {
                    Some(word) => self.hear(word),
                    // The node is shutting down.
                    None => return,
                },
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.shop.clock.now()
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Pod(pod) => {
                self.seen.follow(&pod);
                self.pod = pod;
                self.mind_what_is_told();
            }
            Word::Gone => self.seen.gone = true,
            Word::Exited { id, exit } => self.exited(id, exit),
            Word::Refused(failure) => self.begin(Step::Fail(failure)),
        }
        if self.seen.gone {
            self.seen.finished = false;
        }
    }

    fn take(&mut self, outcome: Outcome) {
        let now = self.now();
        tracing::debug!(pod = self.pod.metadata.name, ip = ?self.seen.ip, ?outcome);
        let started = if let Outcome::Started(seen) = &outcome { Some(seen.id.clone()) } else { None };
        let notes = self.seen.apply(&self.pod, outcome, now);
        self.shop.recorder.pod(&self.pod, notes, now);
        if let Some(exit) = started.as_ref().and_then(|id| self.early.remove(id)) {
            self.exited(started.unwrap_or_default(), exit);
        }
    }

    /// What ends at once may be heard of before its start is: it waits for that.
    fn exited(&mut self, id: String, exit: Exit) {
        match self.last_words(&id, &exit) {
            Some(message) => self.take(Outcome::Exited { id, exit, message }),
            None if self.seen.is_starting() => drop(self.early.insert(id, exit)),
            None => {}
        }
    }

    /// Plans, begins what is to begin, and reports; returns when to look again.
    fn advance(&mut self) -> Instant {
        let (mut wake_at, mut rests) = (None, false);
        for _ in 0..PLANS_IN_A_ROW {
            let PodPlan { steps, wake_at: at } = plan(&self.pod, &self.seen, self.now());
            wake_at = at;
            rests = steps.is_empty();
            if rests {
                break;
            }
            for step in steps {
                self.begin(step);
            }
        }
        if !rests {
            tracing::error!(pod = self.pod.metadata.name, seen = ?self.seen, "the plan of this pod does not come to rest");
        }
        let probe_at = self.probe();
        let volumes_at = self.refresh_volumes();
        let look_at = self.look_again();
        let report_at = self.report();
        let planned = [wake_at, probe_at, volumes_at, look_at, report_at].into_iter().flatten().min();
        let planned = planned.map(|at| Instant::now() + self.shop.clock.until(at));
        let retry = self.reporting.retry_at.filter(|_| !self.reporting.written.is_under_way());
        // An hour is only a long time: nothing is due.
        [planned, retry].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    // ---- steps -----------------------------------------------------------------------------------------------------

    fn begin(&mut self, step: Step) {
        let now = self.now();
        tracing::debug!(pod = self.pod.metadata.name, ip = ?self.seen.ip, ?step);
        let notes = self.seen.begin(&self.pod, &step, now);
        self.shop.recorder.pod(&self.pod, notes, now);
        let work = self.work();
        match step {
            Step::PrepareVolumes => self.spawn(work.prepare_volumes()),
            Step::StartSandbox => self.spawn(work.start_sandbox()),
            Step::Pull { container, image, policy } => self.spawn(work.pull(container, image, policy)),
            Step::Start { container, attempt } => self.spawn(work.start(container, attempt)),
            Step::PostStart { container, id } => self.spawn(work.post_start(container, id)),
            Step::Withdraw { container, until } => {
                // A container that is replaced gets requests until its "not ready" has been written. A write that is
                // on its way says what was true before.
                let landed = *self.reporting.landed.borrow() + 1 + u64::from(self.reporting.written.is_under_way());
                let status_first = container.is_some().then(|| (self.reporting.landed.subscribe(), landed));
                self.spawn(work.withdraw(container, until, status_first));
            }
            Step::Stop { container, id, until, .. } => {
                let hook = self.hooked.insert(id.clone());
                let run = self.seen.container(&container).and_then(|known| known.running.as_ref());
                let attempt = run.map_or(0, |run| run.attempt);
                self.spawn(work.stop(Stopping { container, id, attempt, until, hook }));
            }
            Step::StopSandbox => self.spawn(work.stop_sandbox()),
            Step::Finish => self.finish(),
            Step::Forget => self.over = true,
            Step::TellBackOff { .. } | Step::Fail(_) | Step::Leave { .. } => {}
        }
    }

    /// The last status must not be overtaken by the one before it.
    fn finish(&mut self) {
        self.reporting.last_waits = self.reporting.written.is_under_way();
        if !self.reporting.last_waits {
            let body = self.body(self.now());
            let work = self.work();
            self.spawn(work.finish(body));
        }
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    fn work(&self) -> Work {
        Work {
            shop: self.shop.clone(),
            pod: self.pod.clone(),
            pod_ip: self.seen.ip,
            outcomes: self.outcomes.clone(),
            volumes: self.volumes.clone(),
        }
    }

    /// What the container of this id said at its end, if it said something; `None` if none of that id runs.
    fn last_words(&self, id: &str, exit: &Exit) -> Option<Option<String>> {
        let container = self.seen.containers.iter().find(|one| one.running.as_ref().is_some_and(|run| run.id == id))?;
        let attempt = container.running.as_ref()?.attempt;
        let spec = container_spec(&self.pod, &container.name);
        Some(spec.and_then(|spec| self.work().last_words(spec, attempt, exit.code)))
    }

    // ---- probes ----------------------------------------------------------------------------------------------------

    fn probe(&mut self) -> Option<Timestamp> {
        let now = self.now();
        let mut wake_at: Option<Timestamp> = None;
        let mut begun = Vec::new();
        for container in &mut self.seen.containers {
            let Some(spec) = container_spec(&self.pod, &container.name) else { continue };
            let (Some(run), Some(probes)) = (&container.running, &mut container.probes) else { continue };
            if !run.post_started || run.doomed.is_some() {
                continue;
            }
            let (kinds, at) = probes.due(spec, run.since, now);
            wake_at = [wake_at, at].into_iter().flatten().min();
            for kind in kinds {
                // A pod that leaves is stopped anyway; only its readiness still interests somebody.
                if self.seen.leaving.is_none() || kind == Kind::Readiness {
                    probes.begin(kind);
                    begun.push((spec.clone(), run.id.clone(), kind));
                }
            }
        }
        for (spec, id, kind) in begun {
            let work = self.work();
            self.spawn(work.probe(spec, id, kind));
        }
        wake_at
    }

    // ---- volumes ---------------------------------------------------------------------------------------------------

    fn refresh_volumes(&mut self) -> Option<Timestamp> {
        let stand = self.seen.volumes == Stage::Done && self.seen.leaving.is_none();
        if !stand || self.shop.runtime.is_simulated() || !volumes::may_change(&self.pod) {
            self.volumes_at = None;
            return None;
        }
        let now = self.now();
        match self.volumes_at {
            Some(at) if at > now => {}
            Some(_) => {
                let work = self.work();
                self.spawn(work.refresh_volumes());
                self.volumes_at = Some(now + VOLUMES_EVERY);
            }
            None => self.volumes_at = Some(now + VOLUMES_EVERY),
        }
        self.volumes_at
    }

    // ---- status ----------------------------------------------------------------------------------------------------

    fn body(&mut self, now: Timestamp) -> Vec<u8> {
        let host = Host { ip: self.shop.host_ip.to_string() };
        let status = status(&self.pod, &self.seen, &host, &mut self.conditions, now);
        report::status_patch(&self.pod, &status, &self.conditions)
    }

    /// Minds what the API has: a write that was late may have come after a newer one.
    fn mind_what_is_told(&mut self) {
        let host = Host { ip: self.shop.host_ip.to_string() };
        let status = status(&self.pod, &self.seen, &host, &mut self.conditions.clone(), self.now());
        let agrees = self.pod.status.as_ref().is_some_and(|told| agrees(told, &status));
        self.reporting.written.seen(agrees);
    }

    /// Looks once more whether the API has what was written; returns when to do that.
    fn look_again(&mut self) -> Option<Timestamp> {
        let time = self.reporting.written.look_at()?;
        if time > self.now() {
            return Some(time);
        }
        self.mind_what_is_told();
        None
    }

    /// Writes the status if it is another one; returns when to come back.
    fn report(&mut self) -> Option<Timestamp> {
        if self.seen.gone || self.seen.finished || self.reporting.written.is_under_way() {
            return None;
        }
        // Once nothing runs any more the last status is about to be written.
        if self.seen.leaving.is_some() && !self.seen.busy() && self.pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        if self.reporting.retry_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let now = self.now();
        if let Some(at) = self.pending_unsaid(now) {
            return Some(at);
        }
        let body = self.body(now);
        if self.reporting.written.is(&body) {
            return None;
        }
        self.reporting.written.begin();
        self.reporting.retry_at = None;
        let (client, pod, answers) = (self.shop.client.clone(), self.pod.clone(), self.reporting.answers.clone());
        self.tasks.spawn(async move {
            let answer = report::write_status(&client, &pod, body.clone()).await;
            // Nobody listens any more when the worker is over.
            let _ = answers.send((body, answer)).await;
        });
        None
    }

    /// A pod that is just coming up is about to be running: one write instead of two.
    fn pending_unsaid(&self, now: Timestamp) -> Option<Timestamp> {
        let fresh = self.reporting.written.is_empty()
            && self.seen.failure.is_none()
            && self
                .seen
                .containers
                .iter()
                .all(|one| one.running.is_none() && one.last.is_none() && one.trouble.is_none());
        let until = self.seen.since + PENDING_UNSAID;
        (fresh && until > now).then_some(until)
    }

    fn answered(&mut self, body: Vec<u8>, answer: Result<(), ReportError>) {
        let now = self.now();
        let reporting = &mut self.reporting;
        match answer {
            Ok(()) => {
                reporting.written.taken(body, now);
                reporting.retry_wait = RETRY_FIRST;
                reporting.landed.send_modify(|count| *count += 1);
            }
            // The watch brings the deletion; until then there is nothing to write to.
            Err(ReportError::Gone) => {
                reporting.written.failed();
                reporting.retry_at = Some(Instant::now() + RETRY_LONGEST);
            }
            Err(error) => {
                reporting.written.failed();
                let name = self.pod.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!("the status of pod {name} could not be written, trying again: {error}");
                reporting.retry_at = Some(Instant::now() + reporting.retry_wait);
                reporting.retry_wait = (reporting.retry_wait * 2).min(RETRY_LONGEST);
            }
        }
        if self.reporting.last_waits {
            self.finish();
        }
    }
}
