//! What a runtime would do: a step of the plan has its outcome, now or at a due time, as the profile says.

use std::{net::IpAddr, sync::Arc};

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::LifecycleHandler;

use super::{Done, Due, Fleet, SimulatedPod, What};
use crate::{
    plan::Step,
    pod_on_node::{Doing, Outcome, PodOnNode, TroubleKind, container_spec},
    probes::Probes,
    runtime::{
        ContainerSeen, Exit, ImageSeen, PodSeen,
        profile::Behaviour,
        simulated::{IMAGE_BYTES, container_id, image_id, meant_to_end, unpullable},
    },
    status::bare_id,
};

impl Fleet {
    /// Lets happen what is due.
    pub(super) fn happen(&self, known: &mut SimulatedPod, pod: &Pod, now: Timestamp) {
        while let Some(index) = known.due.iter().position(|(at, _)| *at <= now) {
            match known.due.swap_remove(index).1 {
                Due::Ready { container, id } => pass_probes(&mut known.seen, &container, &id),
                Due::Outcome(outcome) => {
                    let started = match &outcome {
                        Outcome::Started(seen) => Some(seen.clone()),
                        _ => None,
                    };
                    let notes = known.seen.apply(pod, outcome, now);
                    self.note(known.node, pod, notes, now);
                    if let Some(seen) = started {
                        self.live(known, &seen);
                    }
                }
            }
        }
    }

    fn behaviour(&self, pod: &Pod, image: &str) -> Behaviour {
        self.profile.behaviour(image, meant_to_end(pod))
    }

    /// What a container does from its start on: it becomes ready and, perhaps, ends by itself.
    pub(super) fn live(&self, known: &mut SimulatedPod, seen: &ContainerSeen) {
        let Some(pod) = known.pod.clone() else { return };
        let behaviour = self.behaviour(&pod, &seen.image);
        let since = Timestamp::from_millisecond(seen.started_at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        if let Some(container) = known.seen.containers.iter_mut().find(|one| one.name == seen.name) {
            match behaviour.ready {
                Some(SignedDuration::ZERO) => {
                    if let Some(probes) = &mut container.probes {
                        probes.pass();
                    }
                }
                ready => {
                    container.probes = Some(Probes::withheld());
                    let due = Due::Ready { container: seen.name.clone(), id: seen.id.clone() };
                    known.due.extend(ready.map(|after| (since + after, due)));
                }
            }
        }
        if let Some((after, code)) = behaviour.life {
            let exit = exit(code, 0, since + after);
            known.due.push((since + after, Due::Outcome(Outcome::Exited { id: seen.id.clone(), exit, message: None })));
        }
    }

    /// What a runtime would do: an outcome, now or later.
    pub(super) fn carry_out(
        &mut self,
        uid: &Arc<str>,
        known: &mut SimulatedPod,
        pod: &Arc<Pod>,
        step: Step,
        now: Timestamp,
    ) {
        let (at, outcome) = match step {
            Step::PrepareVolumes => (now, Outcome::VolumesReady),
            Step::StartSandbox => (now, self.sandbox(known.node, pod)),
            Step::Pull { container, image, .. } => self.pull(known.node, pod, container, image, now),
            Step::Start { container, attempt } => {
                let image = known.seen.container(&container).map(|one| one.wanted_image.clone()).unwrap_or_default();
                let at = now + self.behaviour(pod, &image).start;
                let id = container_id(uid, &container, attempt);
                let (image_id, started_at_ms) = (image_id(&image), at.as_millisecond());
                let seen = ContainerSeen { name: container, id, attempt, image, image_id, started_at_ms, exit: None };
                (at, Outcome::Started(seen))
            }
            Step::PostStart { container, id } => {
                let at = now + sleeps(pod, &container, |lifecycle| lifecycle.post_start.as_ref());
                (at, Outcome::PostStarted { container, id, failure: None })
            }
            Step::Withdraw { container, until } => return self.withdraw(uid, pod, container, until),
            Step::Stop { container, id, until, .. } => {
                let image = known.seen.container(&container).map(|one| one.wanted_image.clone()).unwrap_or_default();
                let hook = sleeps(pod, &container, |lifecycle| lifecycle.pre_stop.as_ref());
                let behaviour = self.behaviour(pod, &image);
                let stopped = now + hook + behaviour.stop;
                let (at, code) = if stopped <= until { (stopped, behaviour.stopped) } else { (until, 137) };
                let at = at.max(now);
                (at, Outcome::Exited { id, exit: exit(code, 0, at), message: None })
            }
            Step::StopSandbox => {
                self.give_back(known.node, uid, known.seen.ip);
                (now, Outcome::SandboxStopped)
            }
            Step::Finish => return self.finish(uid, known, pod, now),
            Step::Forget | Step::TellBackOff { .. } | Step::Fail(_) | Step::Leave { .. } => return,
        };
        known.due.push((at, Due::Outcome(outcome)));
    }

    fn sandbox(&mut self, node: usize, pod: &Pod) -> Outcome {
        let node = &mut self.nodes[node];
        if pod.spec.as_deref().is_some_and(|spec| spec.host_network == Some(true)) {
            return Outcome::SandboxReady(IpAddr::V4(node.ip));
        }
        match node.addresses.take() {
            Ok(ip) => Outcome::SandboxReady(IpAddr::V4(ip)),
            Err(error) => Outcome::SandboxFailed(error),
        }
    }

    fn pull(
        &mut self,
        node: usize,
        pod: &Pod,
        container: String,
        image: String,
        now: Timestamp,
    ) -> (Timestamp, Outcome) {
        let behaviour = self.behaviour(pod, &image);
        let id = image_id(&image);
        if behaviour.unpullable {
            let message = unpullable(&image);
            let kind = TroubleKind::ErrImagePull;
            return (now + behaviour.pull, Outcome::PullFailed { container, image, kind, message });
        }
        let images = &mut self.nodes[node].images;
        let here = behaviour.pull.is_zero() || !images.insert(image.clone());
        let took = if here { None } else { Some(behaviour.pull) };
        let at = now + took.unwrap_or(SignedDuration::ZERO);
        let seen = ImageSeen { id, size_bytes: IMAGE_BYTES };
        (at, Outcome::Pulled { container, image, seen, took })
    }

    fn withdraw(&mut self, uid: &Arc<str>, pod: &Arc<Pod>, container: Option<String>, until: Timestamp) {
        let Some(drained) = self.drained.clone() else { return };
        let deadline = self.clock.until(until);
        let (uid, pod) = (uid.clone(), pod.clone());
        self.tasks.spawn(async move {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let late = drained.wait_out_of_rules(namespace, &uid, deadline).await;
            Done { uid, what: What::Happened(Outcome::Withdrawn { container, late }) }
        });
    }
}

fn exit(code: i32, signal: i32, at: Timestamp) -> Exit {
    Exit { code, signal, oom_killed: false, finished_at_ms: at.as_millisecond() }
}

fn pass_probes(seen: &mut PodOnNode, name: &str, id: &str) {
    let Some(container) = seen.containers.iter_mut().find(|one| one.name == name) else { return };
    if let (Some(run), Some(probes)) = (&container.running, &mut container.probes)
        && run.id == id
        && !matches!(container.doing, Doing::Stopping(_))
    {
        probes.pass();
    }
}

/// How long a hook of a container sleeps; other hooks take no time here.
fn sleeps(
    pod: &Pod,
    container: &str,
    hook: fn(&k8s_openapi::api::core::v1::Lifecycle) -> Option<&LifecycleHandler>,
) -> SignedDuration {
    let lifecycle = container_spec(pod, container).and_then(|spec| spec.lifecycle.as_ref());
    let sleep = lifecycle.and_then(hook).and_then(|hook| hook.sleep.as_ref());
    SignedDuration::from_secs(sleep.map_or(0, |sleep| sleep.seconds.max(0)))
}

/// What ran of the pod before this process began: simulated containers live on as long as the API remembers them.
pub(super) fn ran_before(pod: &Pod) -> Option<PodSeen> {
    let status = pod.status.as_ref()?;
    let ip = status.pod_ip.as_ref()?.parse().ok();
    let told = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let running = told.filter_map(|told| {
        let since = told.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
        Some(ContainerSeen {
            name: told.name.clone(),
            id: bare_id(told.container_id.as_deref()?).to_owned(),
            attempt: told.restart_count.try_into().ok()?,
            image: told.image.clone(),
            image_id: told.image_id.clone(),
            started_at_ms: since.as_millisecond(),
            exit: None,
        })
    });
    let meta = &pod.metadata;
    Some(PodSeen {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        ip,
        containers: running.collect(),
    })
}
