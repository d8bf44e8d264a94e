//! What one step of a plan comes to: it is done beside the worker, and its outcomes are sent back.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Container, LifecycleHandler, Secret, Service};
use kube::{Api, api::ListParams};
use tokio::sync::{mpsc, watch};

use super::{RETRY_FIRST, RETRY_LONGEST, Workshop};
use crate::{
    environment::{self, Place, Sources},
    pod_on_node::{Note, Outcome, TroubleKind, container_spec},
    probe_io,
    probes::{Kind, Probed, tcp_ports},
    report::{self, ReportError},
    resolv_conf::{self, ResolvConf},
    runtime::{ContainerSpec, Exit, PullPolicy, Runtime, RuntimeError},
    specs, volumes,
};

/// Wait after the runtime failed to stop something.
const STOP_RETRY: Duration = Duration::from_secs(1);
/// Longest run of a postStart hook.
const POST_START_LONGEST: Duration = Duration::from_secs(600);
/// What a container is left at least after its preStop hook (`minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// Bytes of last words that are kept (`MaxContainerTerminationMessageLength`).
const LAST_WORDS_BYTES: usize = 4096;

/// What one step needs: it runs beside the worker and sends outcomes back.
pub(super) struct Work {
    pub(super) shop: Arc<Workshop>,
    pub(super) pod: Arc<Pod>,
    pub(super) pod_ip: Option<IpAddr>,
    pub(super) outcomes: mpsc::Sender<Outcome>,
    /// Held while its volumes are written.
    pub(super) volumes: Arc<tokio::sync::Mutex<()>>,
}

/// What is stopped, and how.
pub(super) struct Stopping {
    pub(super) container: String,
    pub(super) id: String,
    pub(super) attempt: u32,
    /// When it is killed.
    pub(super) until: Timestamp,
    /// Run its preStop hook first.
    pub(super) hook: bool,
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

    pub(super) fn pod_dir(&self) -> PathBuf {
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

    pub(super) async fn prepare_volumes(self) {
        if self.shop.runtime.is_simulated() {
            return self.tell(Outcome::VolumesReady).await;
        }
        let made = self.write_volumes().await;
        self.tell(made.map_or_else(Outcome::VolumesFailed, |()| Outcome::VolumesReady)).await;
    }

    /// What cannot be read now stays as it was.
    pub(super) async fn refresh_volumes(self) {
        if let Err(error) = self.write_volumes().await {
            tracing::warn!("the volumes of pod {} stay as they are: {error}", self.uid());
        }
    }

    async fn write_volumes(&self) -> Result<(), String> {
        let _alone = self.volumes.lock().await;
        let (client, folders) = (&self.shop.client, &self.shop.volumes_dir);
        volumes::prepare(client, &self.pod, &self.pod_dir(), &self.place(), folders).await
    }

    pub(super) async fn start_sandbox(self) {
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
    pub(super) async fn pull(self, container: String, image: String, policy: PullPolicy) {
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

    pub(super) async fn start(self, container: String, attempt: u32) {
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

    pub(super) async fn post_start(self, container: String, id: String) {
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

    pub(super) async fn withdraw(
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

    pub(super) async fn stop(self, Stopping { container, id, attempt, until, hook }: Stopping) {
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
    pub(super) fn last_words(&self, spec: &Container, attempt: u32, code: i32) -> Option<String> {
        let pod_dir = self.pod_dir();
        // Whatever it wrote there, the end counts (upstream: ReadAtMost of `pkg/util/tail`).
        let path = specs::termination_path(&pod_dir, &spec.name, attempt);
        let mut words = crate::logs::end_of(&path, LAST_WORDS_BYTES).unwrap_or_default();
        let from_log = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if words.is_empty() && from_log && code != 0 {
            words = crate::logs::last_lines(&specs::log_path(&pod_dir, &spec.name, attempt));
        }
        let text = String::from_utf8_lossy(&words).into_owned();
        (!text.is_empty()).then_some(text)
    }

    pub(super) async fn stop_sandbox(self) {
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
    pub(super) async fn finish(self, body: Vec<u8>) {
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

    pub(super) async fn probe(self, spec: Container, id: String, kind: Kind) {
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

/// Nothing of the pod is kept: its logs and what is in its volumes go with it.
pub async fn forget(pod_dir: &std::path::Path) {
    match tokio::fs::remove_dir_all(pod_dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{} could not be removed: {error}", pod_dir.display());
        }
        _ => {}
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
