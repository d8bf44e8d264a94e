//! Carries out the plan of one pod: one task from the first sight of the pod until nothing is left of it.
//!
//! The worker owns what is known of its pod. Words from outside (a new version of the pod, its deletion, an exit) and
//! outcomes of its own steps arrive one at a time; after each it plans, begins the new steps and tells the API what
//! changed. It decides nothing itself ([`crate::plan`], [`crate::probes`], [`crate::status`] do) and never touches
//! another pod. Stopping the agent drops the worker; containers run on and are adopted at the next start.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Container, LifecycleHandler, Secret, Service};
use kube::{Api, Client, api::ListParams};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    clock::Clock,
    drained::Drained,
    environment::{self, Place, Sources},
    events::Recorder,
    plan::{PodPlan, Step, plan},
    pod_on_node::{Failure, Note, Outcome, PodOnNode, Stage, TroubleKind, container_spec},
    probe_io,
    probes::{Kind, Probed, tcp_ports},
    report::{self, ReportError},
    resolv_conf::{self, Dns, ResolvConf},
    runtime::{ContainerSpec, Exit, PodSeen, PullPolicy, Runtime, RuntimeError},
    specs,
    status::{Conditions, Host, agrees, status},
    volumes,
    written::Written,
};

/// Words waiting for one worker.
const WORDS: usize = 64;
/// A pod that comes up faster than this is not reported as pending first.
const PENDING_UNSAID: SignedDuration = SignedDuration::from_millis(50);
/// First and longest wait after a refused write.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Wait after the runtime failed to stop something.
const STOP_RETRY: Duration = Duration::from_secs(1);
/// Longest run of a postStart hook.
const POST_START_LONGEST: Duration = Duration::from_secs(600);
/// How often volumes that show API objects are brought up to date (`syncFrequency`).
const VOLUMES_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// What a container is left at least after its preStop hook (`minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// Bytes of last words that are kept (`MaxContainerTerminationMessageLength`).
const LAST_WORDS_BYTES: usize = 4096;
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
    written: Written,
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
                return;
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
        let mut wake_at = None;
        for _ in 0..PLANS_IN_A_ROW {
            let PodPlan { steps, wake_at: at } = plan(&self.pod, &self.seen, self.now());
            wake_at = at;
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.begin(step);
            }
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
            Step::Forget => {
                work.forget();
                self.over = true;
            }
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

/// What one step needs: it runs beside the worker and sends outcomes back.
struct Work {
    shop: Arc<Workshop>,
    pod: Arc<Pod>,
    pod_ip: Option<IpAddr>,
    outcomes: mpsc::Sender<Outcome>,
    volumes: Arc<tokio::sync::Mutex<()>>,
}

/// What is stopped, and how.
struct Stopping {
    container: String,
    id: String,
    attempt: u32,
    /// When it is killed.
    until: Timestamp,
    /// Run its preStop hook first.
    hook: bool,
}

impl Work {
    async fn tell(&self, outcome: Outcome) {
        // The worker is over: nobody needs to know.
        let _ = self.outcomes.send(outcome).await;
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn pod_dir(&self) -> PathBuf {
        self.shop.pods_dir.join(self.uid())
    }

    /// Its sockets are among the node's.
    fn host_network(&self) -> bool {
        self.pod.spec.as_deref().is_some_and(|spec| spec.host_network == Some(true))
    }

    fn place(&self) -> Place {
        Place {
            node: self.shop.node.clone(),
            host_ip: self.shop.host_ip,
            pod_ip: self.pod_ip,
            cpu_milli: self.shop.cpu_milli,
            memory_bytes: self.shop.memory_bytes,
        }
    }

    async fn prepare_volumes(self) {
        if self.shop.runtime.is_simulated() {
            return self.tell(Outcome::VolumesReady).await;
        }
        let made = self.write_volumes().await;
        self.tell(made.map_or_else(Outcome::VolumesFailed, |()| Outcome::VolumesReady)).await;
    }

    /// What cannot be read now stays as it was.
    async fn refresh_volumes(self) {
        if let Err(error) = self.write_volumes().await {
            tracing::warn!("the volumes of pod {} stay as they are: {error}", self.uid());
        }
    }

    async fn write_volumes(&self) -> Result<(), String> {
        let _alone = self.volumes.lock().await;
        let (client, folders) = (&self.shop.client, &self.shop.volumes_dir);
        volumes::prepare(client, &self.pod, &self.pod_dir(), &self.place(), folders).await
    }

    async fn start_sandbox(self) {
        let spec = specs::sandbox(&self.pod, &self.shop.dns.domain, self.resolv_conf());
        let outcome = match self.shop.runtime.start_sandbox(&spec).await {
            Ok(_) if spec.host_network => Outcome::SandboxReady(self.shop.host_ip),
            Ok(sandbox) => Outcome::SandboxReady(sandbox.ip),
            Err(error) => Outcome::SandboxFailed(error.to_string()),
        };
        self.tell(outcome).await;
    }

    /// How it finds names; what had to be left out is told.
    fn resolv_conf(&self) -> Vec<String> {
        let simulated = self.shop.runtime.is_simulated();
        let node = if simulated { ResolvConf::default() } else { resolv_conf::of_node_for_pods() };
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let spec = self.pod.spec.as_deref().cloned().unwrap_or_default();
        let (conf, left_out) = resolv_conf::of_pod(&spec, namespace, &self.shop.dns, node);
        let note = |message| Note { warning: true, reason: "DNSConfigForming", message, container: None };
        let notes = left_out.into_iter().map(note).collect();
        self.shop.recorder.pod(&self.pod, notes, self.shop.clock.now());
        conf.lines()
    }

    /// Looks for the image on the node first, so that a pull is announced only when there is one.
    async fn pull(self, container: String, image: String, policy: PullPolicy) {
        if policy == PullPolicy::IfNotPresent
            && let Ok(seen) = self.shop.runtime.ensure_image(&image, PullPolicy::Never).await
        {
            return self.tell(Outcome::Pulled { container, image, seen, took: None }).await;
        }
        if policy != PullPolicy::Never {
            self.tell(Outcome::PullBegan { container: container.clone(), image: image.clone() }).await;
        }
        let begun = Instant::now();
        let outcome = match self.shop.runtime.ensure_image(&image, policy).await {
            Ok(seen) => {
                let took = SignedDuration::try_from(begun.elapsed()).ok().filter(|_| policy != PullPolicy::Never);
                Outcome::Pulled { container, image, seen, took }
            }
            Err(error) => {
                let kind = match error {
                    RuntimeError::InvalidImageName(_) => TroubleKind::InvalidImageName,
                    RuntimeError::ImageNeverPull(_) => TroubleKind::ErrImageNeverPull,
                    _ => TroubleKind::ErrImagePull,
                };
                Outcome::PullFailed { container, image, kind, message: error.to_string() }
            }
        };
        self.tell(outcome).await;
    }

    async fn start(self, container: String, attempt: u32) {
        let outcome = match self.container(&container, attempt).await {
            Err(message) => Outcome::ConfigFailed { container, message },
            Ok(spec) => match self.shop.runtime.start_container(&spec).await {
                Ok(seen) => Outcome::Started(seen),
                Err(RuntimeError::NotFound(_)) => Outcome::SandboxLost,
                Err(RuntimeError::Sandbox(message)) => Outcome::SandboxFailed(message),
                Err(RuntimeError::ContainerConfig(message)) => Outcome::ConfigFailed { container, message },
                Err(error) => Outcome::StartFailed { container, message: error.to_string() },
            },
        };
        self.tell(outcome).await;
    }

    async fn container(&self, name: &str, attempt: u32) -> Result<ContainerSpec, String> {
        let spec = container_spec(&self.pod, name).ok_or("the container is not in the pod")?;
        let pod_dir = self.pod_dir();
        if self.shop.runtime.is_simulated() {
            return specs::container(&self.pod, spec, attempt, Vec::new(), Vec::new(), &pod_dir);
        }
        if specs::asks_for_labels(&self.pod, spec) && kernel_labels() {
            return Err("securityContext.seLinuxOptions is not supported on a node with SELinux".into());
        }
        let sources = self.sources(spec).await?;
        let env = environment::build(&self.pod, spec, &sources, &self.place())?;
        let mounts = volumes::mounts(&self.pod, spec, &pod_dir, &env)?;
        let built = specs::container(&self.pod, spec, attempt, env, mounts, &pod_dir)?;
        prepare_folder(&pod_dir, name, attempt).map_err(|error| format!("preparing {}: {error}", pod_dir.display()))?;
        Ok(built)
    }

    async fn sources(&self, spec: &Container) -> Result<Sources, String> {
        let client = &self.shop.client;
        let needs = environment::needs(spec);
        let mut sources = Sources::default();
        let words = |error: kube::Error| error.to_string();
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), self.namespace());
        for name in needs.config_maps {
            if let Some(found) = config_maps.get_opt(&name).await.map_err(words)? {
                sources.config_maps.insert(name, found);
            }
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), self.namespace());
        for name in needs.secrets {
            if let Some(found) = secrets.get_opt(&name).await.map_err(words)? {
                sources.secrets.insert(name, found);
            }
        }
        if self.pod.spec.as_deref().is_none_or(|spec| spec.enable_service_links != Some(false)) {
            let services: Api<Service> = Api::namespaced(client.clone(), self.namespace());
            sources.services = services.list(&ListParams::default()).await.map_err(words)?.items;
        }
        if self.namespace() != "default" || sources.services.is_empty() {
            let services: Api<Service> = Api::namespaced(client.clone(), "default");
            sources.services.extend(services.get_opt("kubernetes").await.map_err(words)?);
        }
        Ok(sources)
    }

    async fn post_start(self, container: String, id: String) {
        let handler = container_spec(&self.pod, &container)
            .and_then(|spec| Some((spec, spec.lifecycle.as_ref()?.post_start.as_ref()?)));
        let failure = match handler {
            Some((spec, handler)) => self.hook(spec, &id, handler, POST_START_LONGEST).await.err(),
            None => None,
        };
        let failure = failure.map(|error| format!("PostStartHook failed: {error}"));
        self.tell(Outcome::PostStarted { container, id, failure }).await;
    }

    async fn hook(
        &self,
        spec: &Container,
        id: &str,
        handler: &LifecycleHandler,
        longest: Duration,
    ) -> Result<(), String> {
        let ip = self.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        if let Some(exec) = &handler.exec {
            let argv = exec.command.clone().unwrap_or_default();
            let told =
                self.shop.runtime.exec(self.uid(), id, &argv, longest).await.map_err(|error| error.to_string())?;
            return match told.code {
                0 => Ok(()),
                code => Err(format!("command '{}' exited with {code}: {}", argv.join(" "), told.output.trim_end())),
            };
        }
        if let Some(sleep) = &handler.sleep {
            let asked = Duration::from_secs(sleep.seconds.max(0).unsigned_abs());
            tokio::time::sleep(asked.min(longest)).await;
            return Ok(());
        }
        if self.shop.runtime.is_simulated() {
            return Ok(());
        }
        if let Some(get) = &handler.http_get {
            return probe_io::http_get(get, spec, &ip, longest).await;
        }
        match &handler.tcp_socket {
            Some(_) => Err("tcpSocket is not supported in lifecycle hooks: use exec, httpGet or sleep".into()),
            None => Ok(()),
        }
    }

    async fn withdraw(
        self,
        container: Option<String>,
        until: Timestamp,
        status_first: Option<(watch::Receiver<u64>, u64)>,
    ) {
        let deadline = self.shop.clock.until(until);
        let begun = Instant::now();
        if let Some((mut landed, wanted)) = status_first {
            // When time is over it is stopped all the same; the wait for the proxies then says so.
            let _ = tokio::time::timeout(deadline, landed.wait_for(|count| *count >= wanted)).await;
        }
        let left = || deadline.saturating_sub(begun.elapsed());
        let late = match &self.shop.drained {
            Some(drained) => drained.wait_out_of_rules(self.namespace(), self.uid(), left()).await,
            None => None,
        };
        if !self.host_network() {
            self.shop.runtime.wait_accepted(self.uid(), left()).await;
        }
        self.tell(Outcome::Withdrawn { container, late }).await;
    }

    async fn stop(self, Stopping { container, id, attempt, until, hook }: Stopping) {
        let spec = container_spec(&self.pod, &container);
        let handler = spec.and_then(|spec| Some((spec, spec.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        let mut least = Duration::ZERO;
        let grace = self.shop.clock.until(until);
        if let Some((spec, handler)) = handler.filter(|_| hook && !grace.is_zero()) {
            least = LEAST_GRACE;
            let ended = tokio::time::timeout(grace, self.hook(spec, &id, handler, grace)).await;
            let failure = match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("PreStopHook failed: {error}")),
                Err(_) => Some(format!("PreStopHook did not end within the grace period of {}s", grace.as_secs())),
            };
            if let Some(message) = failure {
                self.tell(Outcome::PreStopFailed { container: container.clone(), message }).await;
            }
        }
        let exit = loop {
            let left = self.shop.clock.until(until).max(least);
            match self.shop.runtime.stop_container(self.uid(), &id, left).await {
                Ok(exit) => break exit,
                Err(RuntimeError::NotFound(_)) => break self.lost(),
                Err(error) => {
                    tracing::warn!("container {container} of pod {} could not be stopped: {error}", self.uid());
                    tokio::time::sleep(STOP_RETRY).await;
                }
            }
        };
        let message = spec.and_then(|spec| self.last_words(spec, attempt, exit.code));
        self.tell(Outcome::Exited { id, exit, message }).await;
    }

    /// How a container ended that the runtime no longer knows.
    fn lost(&self) -> Exit {
        Exit { code: 137, signal: 0, oom_killed: false, finished_at_ms: self.shop.clock.now().as_millisecond() }
    }

    /// What the container wrote to its termination message file, or the end of its log where it asks for that.
    fn last_words(&self, spec: &Container, attempt: u32, code: i32) -> Option<String> {
        let pod_dir = self.pod_dir();
        let mut words = std::fs::read(specs::termination_path(&pod_dir, &spec.name, attempt)).unwrap_or_default();
        let from_log = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if words.is_empty() && from_log && code != 0 {
            words = crate::logs::last_lines(&specs::log_path(&pod_dir, &spec.name, attempt));
        }
        words.truncate(LAST_WORDS_BYTES);
        let text = String::from_utf8_lossy(&words).into_owned();
        (!text.is_empty()).then_some(text)
    }

    async fn stop_sandbox(self) {
        if self.shop.drained.is_some() && !self.host_network() {
            self.shop.runtime.wait_delivered(self.uid()).await;
        }
        while let Err(error) = self.shop.runtime.stop_sandbox(self.uid()).await {
            tracing::warn!("the sandbox of pod {} could not be taken down: {error}", self.uid());
            tokio::time::sleep(STOP_RETRY).await;
        }
        volumes::release(&self.pod, &self.pod_dir());
        self.tell(Outcome::SandboxStopped).await;
    }

    /// The last status, then the DELETE, each until it is taken or the pod is gone.
    async fn finish(self, body: Vec<u8>) {
        let client = &self.shop.client;
        until_taken(|| async {
            match report::write_status(client, &self.pod, body.clone()).await {
                // It will not be taken later either, and the pod is to go.
                Err(ReportError::Refused(why)) => {
                    tracing::warn!("the last status of pod {} is left out: {why}", self.uid());
                    Ok(())
                }
                other => other,
            }
        })
        .await;
        until_taken(|| report::delete(client, &self.pod)).await;
        self.tell(Outcome::Finished).await;
    }

    /// Logs go with the pod.
    fn forget(&self) {
        let pod_dir = self.pod_dir();
        match std::fs::remove_dir_all(&pod_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{} could not be removed: {error}", pod_dir.display());
            }
            _ => {}
        }
    }

    async fn probe(self, spec: Container, id: String, kind: Kind) {
        let failure = self.ask(&spec, &id, kind).await.err();
        let container = spec.name;
        let probed = Probed { failure };
        let _ = self.outcomes.send(Outcome::Probed { container, id, kind, probed }).await;
    }

    async fn ask(&self, spec: &Container, id: &str, kind: Kind) -> Result<(), String> {
        if let Runtime::Simulated(simulated) = &self.shop.runtime {
            return simulated.probe(self.uid(), id);
        }
        if kind == Kind::Listening {
            let listens = self.shop.runtime.listens(self.uid(), &tcp_ports(spec)).await;
            return if listens { Ok(()) } else { Err("it does not listen on its ports yet".into()) };
        }
        let Some(probe) = kind.of(spec) else { return Ok(()) };
        let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs().into());
        let ip = self.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        if let Some(get) = &probe.http_get {
            return probe_io::http_get(get, spec, &ip, timeout).await;
        }
        if let Some(socket) = &probe.tcp_socket {
            return probe_io::tcp_socket(socket, spec, &ip, timeout).await;
        }
        if let Some(grpc) = &probe.grpc {
            return probe_io::grpc(grpc, &ip, timeout).await;
        }
        let argv = probe.exec.as_ref().and_then(|exec| exec.command.clone()).unwrap_or_default();
        let told = self.shop.runtime.exec(self.uid(), id, &argv, timeout).await.map_err(|error| error.to_string())?;
        if told.code == 0 { Ok(()) } else { Err(told.output) }
    }
}

async fn until_taken<F: Future<Output = Result<(), ReportError>>>(mut send: impl FnMut() -> F) {
    let mut wait = RETRY_FIRST;
    loop {
        match send().await {
            Ok(()) | Err(ReportError::Gone) => return,
            Err(error) => {
                tracing::warn!("a pod's end could not be reported, trying again: {error}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_LONGEST);
            }
        }
    }
}

/// Makes the folder of a container's logs and the file of its last words; logs of the life before last go.
fn prepare_folder(pod_dir: &std::path::Path, container: &str, attempt: u32) -> std::io::Result<()> {
    let folder = specs::container_dir(pod_dir, container);
    std::fs::create_dir_all(&folder)?;
    let words = specs::termination_path(pod_dir, container, attempt);
    std::fs::write(&words, b"")?;
    std::fs::set_permissions(&words, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    for entry in std::fs::read_dir(&folder)?.flatten() {
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.split('.').next()).and_then(|number| number.parse::<u32>().ok());
        if number.is_some_and(|number| number + 1 < attempt) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the kernel enforces labels: it has their file system only if it began with them.
fn kernel_labels() -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|text| text.lines().any(|line| line.ends_with("\tselinuxfs")))
}
