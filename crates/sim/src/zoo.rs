//! The bug zoo: known bugs of real systems, put back one by one, to see that the invariants bite.
//!
//! A bug is [`Minds`] that show a decision a slightly wrong world, change its plan, or forget to wake it. Nothing here is
//! ever part of a server: the zoo stands between the turn and the real decisions only in a simulated cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::template_hash::template_hash;
use api::{Body, Change, Context, Key, Kind, Object, Plan, Pod, Propagation, Refusal, Snapshot, Typed, Write};
use controllers::Controller;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use server::minds::Minds;

use crate::behind::Behind;
use crate::disk::Fault;
use crate::facts;
use crate::{Ending, Settings, dream, dream_behind, run, without_hash};

macro_rules! bugs {
    ($( $bug:ident $name:literal $story:literal; )*) => {
        /// A bug that somebody had.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $( #[doc = $story] $bug, )* }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[ $( Bug::$bug, )* ];
            /// A short name.
            pub fn name(self) -> &'static str { match self { $( Bug::$bug => $name, )* } }
            /// What is wrong, and who had it.
            pub fn story(self) -> &'static str { match self { $( Bug::$bug => $story, )* } }
        }
    };
}

bugs! {
    CeilUnavailable "ceil-unavailable" "maxUnavailable in percent is rounded up";
    SurgeTooMuch "surge-off-by-one" "one pod more than maxSurge (k8s #99513)";
    TerminatingAvailable "terminating-available" "terminating pods count as available (k8s #95498)";
    RunningAvailable "running-available" "old pods go before the new ones are ready";
    MinReadyIgnored "min-ready-ignored" "ready counts as available at once (k8s #108266)";
    DeadlineFromCreation "deadline-from-creation" "the progress deadline counts from the Deployment's creation";
    NeverRequeued "never-requeued" "nothing looks again when minReadySeconds are over (k8s #39785)";
    RecreateOverlaps "recreate-overlaps" "Recreate does not wait for terminating pods (k8s #27362)";
    PausedRolls "paused-rolls" "a paused Deployment rolls on";
    HistoryTakesActive "history-takes-active" "the history limit takes the oldest set, whatever it is";
    RevisionRestarts "revision-restarts" "a new set gets revision 1 again";
    CollisionStuck "collision-stuck" "a name that is taken stops the rollout for ever (k8s #29735)";
    DoneTooEarly "done-too-early" "status says all is available as soon as it is asked for";
    GenerationAhead "observed-early" "observedGeneration names what was not looked at";
    AvailableTooEarly "available-too-early" "a Deployment is told to be available as soon as it is asked for";
    RolloutWavers "rollout-wavers" "the new set is made smaller when nothing else is to do";
    RolloutChurns "rollout-churns" "pods of the new set are ended and made again, as if somebody scaled";
    ControllerTellsWanted "controller-tells-wanted" "a ReplicationController tells of as many ready pods as are wanted";
    LostWakeController "lost-wake-controller" "pods that get ready do not wake their ReplicationController";
    NotesForEver "notes-for-ever" "a Deployment notes every second that it is not done";
    StaleCache "stale-cache" "sets decide on the last world but one, without expectations (k8s #129795)";
    CreatedTwice "created-twice" "a create that timed out is sent again (k8s #67662)";
    AdoptsAll "adopts-all" "adoption minds only a part of the selector (k8s #24946)";
    EndsAvailable "ends-available" "scaling down ends available pods before others";
    DeletedSetCreates "deleted-set-creates" "a set that is being deleted makes up for its pods";
    EndpointsKeepTerminating "endpoints-terminating" "a terminating pod is still sent requests (k8s #43576)";
    EndpointsUnready "endpoints-unready" "a pod gets requests before it is ready";
    CollectsLive "collects-live" "the collector does not find an owner that is there (k8s #88097)";
    CollectsByName "collects-by-name" "the collector takes a new owner of the same name for the old one (k8s #65200)";
    OrphansTaken "orphans-taken" "cascade=orphan lets go of nobody";
    ForegroundHurries "foreground-hurries" "a foreground deletion does not wait";
    OverCommits "over-commits" "the scheduler does not count what pods ask for";
    BindsCordoned "binds-cordoned" "the scheduler takes a cordoned node";
    LostWakeSet "lost-wake-set" "a pod that goes does not wake its set (a missed watch event)";
    LostWakeDeployment "lost-wake-deployment" "a set that gets on does not wake its Deployment";
    NeverQuiet "never-quiet" "every resync writes (a hot loop)";
    UndoLosesFields "undo-loses-fields" "undo brings back the image but not the rest of the template";
    HistoryTwice "history-twice" "a template that is wanted again is recorded once more";
    HistoryRestarts "history-restarts" "a new ControllerRevision gets number 1 again";
    HistoryTakesUsed "history-takes-used" "the limit takes the oldest ControllerRevision, though pods are of it";
    DaemonDoubles "daemon-doubles" "a daemon pod is made while the old one still ends";
    DaemonMissesNode "daemon-misses-node" "a node that joins does not wake DaemonSets";
    DaemonHurries "daemon-hurries" "an update goes on before the new daemon pods are ready (k8s #123232)";
    DaemonRollsAlways "daemon-rolls-always" "OnDelete is taken for RollingUpdate";
    StatefulUnordered "stateful-unordered" "pods are made and ended in any order";
    StatefulHurries "stateful-hurries" "the next pod does not wait until the one before is ready";
    StatefulPartition "stateful-partition" "the partition is passed";
    NeverLate "never-late" "nothing looks when the progress deadline has passed";
    StatefulStuck "stateful-stuck" "a pod of a broken revision is not replaced by one of a good one (k8s #67250)";
    StatefulForces "stateful-forces" "pods are deleted without grace, so that one name runs twice";
    JobCountsTwice "job-counts-twice" "a pod is counted when it is noted and again when it is let go";
    JobForgetsLabels "job-forgets-labels" "what was changed while a Job was suspended is forgotten";
    JobForgetsEnding "job-forgets-ending" "podReplacementPolicy Failed does not wait for pods that end";
    JobNeverGivesUp "job-never-gives-up" "the back-off limit is not minded (k8s #62382)";
    CronAlwaysStarts "cron-always-starts" "Forbid does not see the Job that runs";
    CronForgets "cron-forgets" "lastScheduleTime is lost, and a time comes twice";
    CronPutOff "cron-put-off" "a run of `@every` is put off by as long as the one before it took";
    NamespaceHurries "namespace-hurries" "what pods use goes before them (KEP-5080)";
    NamespaceGoesFull "namespace-goes-full" "a namespace is let go with what is in it";
    ClaimsUnprotected "claims-unprotected" "a deleted claim goes while pods use it";
    VolumesAnywhere "volumes-anywhere" "a pod is put where its volume is not";
    PolicyIgnored "policy-ignored" "claims go with pods that are too many, whatever the policy says";
    BudgetCountsUnready "budget-counts-unready" "a budget takes pods that are not ready for healthy";
    BudgetLate "budget-late" "a budget looks at the pods as they were before the last change";
    QuotaNotCharged "quota-not-charged" "what one turn makes is charged to the quota when it is over";
    QuotaUnseen "quota-unseen" "pods that come and go do not wake the quota's status";
    QuotaGivesUp "quota-gives-up" "who was refused for a quota does not try again";
    AutoscalerCountsSurge "autoscaler-counts-surge" "the surge of a rollout counts as replicas (k8s #72775)";
    AutoscalerExceeds "autoscaler-exceeds" "maxReplicas is passed";
    AutoscalerHurries "autoscaler-hurries" "the autoscaler's behaviour is not minded";
    BehindUnaware "behind-unaware" "controllers with caches do not wait for their own writes (k8s #129795)";
    AnsweredEarly "answered-early" "writes are acknowledged before they are durable";
    AppendedLate "appended-late" "a turn is acknowledged when the one before it is in the log";
    SyncIgnored "sync-ignored" "a failed sync is taken for done, and what follows for durable (PostgreSQL's fsync)";
    TornServed "torn-served" "what a crash left of an append is taken for written";
}

/// The taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Decisions with a bug.
struct Zoo {
    bug: Bug,
    /// What the stale cache holds.
    last: Mutex<Option<Snapshot>>,
    /// What was there when a quota was last looked at.
    charged: Mutex<Option<Snapshot>>,
}

/// Runs a seed with a bug put back.
pub fn run_with(bug: Bug, seed: u64, trace: bool) -> Ending {
    if bug == Bug::BehindUnaware {
        let minds = Arc::new(Behind::new(seed, false));
        return run(Settings { minds, behind: true, ..Settings::of(seed, trace) });
    }
    let undo = if bug == Bug::UndoLosesFields { loses_fields } else { without_hash };
    let minds = Arc::new(Zoo { bug, last: Mutex::default(), charged: Mutex::default() });
    let disk = match bug {
        Bug::AppendedLate => Some(Fault::AppendsLate),
        Bug::SyncIgnored => Some(Fault::IgnoresFailure),
        Bug::TornServed => Some(Fault::ServesTorn),
        _ => None,
    };
    run(Settings { minds, undo, answers_early: bug == Bug::AnsweredEarly, disk, ..Settings::of(seed, trace) })
}

/// What it took to find a bug.
pub struct Found {
    /// Seeds run, the failing one included.
    pub seeds: u64,
    /// What broke.
    pub breach: String,
}

/// Runs seeds from 1 on until the bug shows, at most `most`. What breaks without the bug as well does not count.
pub fn hunt(bug: Bug, most: u64) -> Option<Found> {
    (1..=most).find_map(|seed| {
        let real = if bug == Bug::BehindUnaware { dream_behind } else { dream };
        let breach = run_with(bug, seed, false).breach.filter(|_| real(seed, false).breach.is_none())?;
        Some(Found { seeds: seed, breach: breach.to_string() })
    })
}

fn loses_fields(mut template: PodTemplateSpec) -> PodTemplateSpec {
    for container in template.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        container.resources = None;
    }
    without_hash(template)
}

/// The world with every `T` changed. Versions stay, so that what is decided is taken.
fn seen<T: Typed + Clone>(world: &Snapshot, change: impl Fn(&mut T)) -> Snapshot {
    let mut view = world.clone();
    for object in world.objects(T::KIND, None) {
        let Some(typed) = object.get::<T>() else { continue };
        let mut typed = typed.clone();
        change(&mut typed);
        view.put(Object::written(typed.into_body(), object.revision));
    }
    view
}

fn rolling(deployment: &mut Deployment, change: impl Fn(&mut k8s_openapi::api::apps::v1::RollingUpdateDeployment)) {
    let strategy = deployment.spec.as_mut().and_then(|spec| spec.strategy.as_mut());
    if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_mut()) {
        change(rolling);
    }
}

fn set_ready(pod: &mut Pod, since: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(PodCondition {
        type_: "Ready".into(),
        status: "True".into(),
        last_transition_time: Some(Time(since)),
        ..Default::default()
    });
}

impl Minds for Zoo {
    fn control(&self, who: Controller, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        if self.bug == Bug::QuotaGivesUp && context.refused.is_some_and(|refusal| refusal.code == 403) {
            return Plan::nothing();
        }
        if who == Controller::ResourceQuota {
            *self.charged.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.clone());
        }
        let view = self.view(who, world);
        let mut plan = controllers::reconcile(who, key, view.as_ref().unwrap_or(world), context);
        self.spoil(who, key, world, context, &mut plan);
        plan
    }

    fn schedule(&self, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        let view = match self.bug {
            Bug::OverCommits => Some(seen::<Pod>(world, |pod| {
                for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
                    container.resources = None;
                }
            })),
            Bug::BindsCordoned => Some(seen::<Node>(world, |node| {
                if let Some(spec) = &mut node.spec {
                    spec.unschedulable = None;
                    // The node lifecycle controller says the same by a taint.
                    spec.taints.iter_mut().for_each(|taints| taints.retain(|taint| taint.key != UNSCHEDULABLE));
                }
            })),
            Bug::VolumesAnywhere => Some(seen::<PersistentVolume>(world, |volume| {
                if let Some(spec) = &mut volume.spec {
                    spec.node_affinity = None;
                }
            })),
            _ => None,
        };
        scheduler::decide(key, view.as_ref().unwrap_or(world), context)
    }

    fn within_quota(
        &self,
        world: &Snapshot,
        before: Option<&Body>,
        after: &Body,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        let charged = charged.as_ref().filter(|_| self.bug == Bug::QuotaNotCharged);
        server::door::within_quota(charged.unwrap_or(world), before, after, now)
    }

    fn wakes(&self, change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Controller, Key)) {
        controllers::wakes(change, world, &mut |who, key| {
            let lost = match self.bug {
                Bug::LostWakeSet => {
                    change.after.is_none() && change.kind() == Kind::Pod && who == Controller::ReplicaSet
                }
                Bug::QuotaUnseen => change.kind() == Kind::Pod && who == Controller::ResourceQuota,
                Bug::LostWakeController => {
                    let made_or_gone = change.before.is_none() || change.after.is_none();
                    change.kind() == Kind::Pod && key.kind == Kind::ReplicationController && !made_or_gone
                }
                Bug::DaemonMissesNode => {
                    change.kind() == Kind::Node && change.before.is_none() && who == Controller::DaemonSet
                }
                Bug::LostWakeDeployment => change.kind() == Kind::ReplicaSet && who == Controller::Deployment,
                _ => false,
            };
            if !lost {
                wake(who, key);
            }
        });
    }
}

impl Zoo {
    /// The world as the bug sees it; `None` where it sees nothing wrong.
    fn view(&self, who: Controller, world: &Snapshot) -> Option<Snapshot> {
        match (self.bug, who) {
            (Bug::ClaimsUnprotected, Controller::PersistentVolume) => Some(seen::<Pod>(world, |pod| {
                if let Some(spec) = &mut pod.spec {
                    spec.volumes = None;
                }
            })),
            (Bug::PolicyIgnored, Controller::StatefulSet) => Some(seen::<StatefulSet>(world, |set| {
                if let Some(spec) = &mut set.spec {
                    let policy = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
                    policy.when_scaled = Some("Delete".into());
                }
            })),
            (Bug::CeilUnavailable, Controller::Deployment) => Some(seen::<Deployment>(world, |deployment| {
                let replicas = facts::replicas(deployment);
                rolling(deployment, |rolling| {
                    if let Some(IntOrString::String(text)) = &rolling.max_unavailable {
                        let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
                        rolling.max_unavailable = Some(IntOrString::Int((percent * replicas + 99) / 100));
                    }
                });
            })),
            (Bug::SurgeTooMuch, Controller::Deployment) => Some(seen::<Deployment>(world, |deployment| {
                let (surge, _) = facts::bounds(deployment);
                rolling(deployment, |rolling| rolling.max_surge = Some(IntOrString::Int(surge + 1)));
            })),
            (Bug::TerminatingAvailable, Controller::Deployment)
            | (Bug::EndpointsKeepTerminating, Controller::Endpoints) => Some(seen::<Pod>(world, |pod| {
                pod.metadata.deletion_timestamp = None;
            })),
            (Bug::RunningAvailable, Controller::Deployment)
            | (Bug::DaemonHurries, Controller::DaemonSet)
            | (Bug::StatefulHurries, Controller::StatefulSet)
            | (Bug::EndpointsUnready, Controller::Endpoints)
            | (Bug::BudgetCountsUnready, Controller::Disruption) => {
                Some(seen::<Pod>(world, |pod| set_ready(pod, Timestamp::MIN)))
            }
            (Bug::MinReadyIgnored, Controller::Deployment) => Some(seen::<Pod>(world, |pod| {
                if facts::ready_since(pod).is_some() {
                    set_ready(pod, Timestamp::UNIX_EPOCH);
                }
            })),
            (Bug::DeadlineFromCreation, Controller::Deployment) => Some(seen::<Deployment>(world, |deployment| {
                let created = deployment.metadata.creation_timestamp.clone();
                let conditions = deployment.status.as_mut().and_then(|status| status.conditions.as_mut());
                for condition in conditions.into_iter().flatten() {
                    condition.last_update_time.clone_from(&created);
                }
            })),
            (Bug::RecreateOverlaps, Controller::Deployment) | (Bug::DaemonDoubles, Controller::DaemonSet) => {
                let mut view = world.clone();
                let leaving: Vec<Key> = world
                    .objects(Kind::Pod, None)
                    .filter(|object| facts::is_deleted(object.meta()))
                    .map(|object| object.key())
                    .collect();
                for key in leaving {
                    view.remove(&key, world.revision());
                }
                Some(view)
            }
            (Bug::PausedRolls, Controller::Deployment) => Some(seen::<Deployment>(world, |deployment| {
                if let Some(spec) = &mut deployment.spec {
                    spec.paused = None;
                }
            })),
            (Bug::StaleCache, Controller::ReplicaSet) | (Bug::BudgetLate, Controller::Disruption) => {
                let mut last = self.last.lock().ok()?;
                last.replace(world.clone())
            }
            (Bug::AdoptsAll, Controller::ReplicaSet) => Some(seen::<ReplicaSet>(world, |set| {
                let labels = set.spec.as_mut().and_then(|spec| spec.selector.match_labels.as_mut());
                if let Some(labels) = labels.filter(|labels| labels.len() > 1) {
                    labels.remove(facts::HASH);
                }
            })),
            (Bug::DeletedSetCreates, Controller::ReplicaSet) => Some(seen::<ReplicaSet>(world, |set| {
                set.metadata.deletion_timestamp = None;
            })),
            (Bug::CollectsLive, Controller::GarbageCollector) => Some(seen::<Deployment>(world, |deployment| {
                deployment.metadata.uid = Some("another".into());
            })),
            (Bug::CollectsByName, Controller::GarbageCollector) => Some(by_name(world)),
            _ => self.view_of_others(who, world),
        }
    }

    fn view_of_others(&self, who: Controller, world: &Snapshot) -> Option<Snapshot> {
        match (self.bug, who) {
            (Bug::HistoryTwice, Controller::DaemonSet | Controller::StatefulSet) => Some(forget_old_templates(world)),
            (Bug::DaemonRollsAlways, Controller::DaemonSet) => Some(seen::<DaemonSet>(world, |set| {
                if let Some(spec) = &mut set.spec {
                    spec.update_strategy = None;
                }
            })),
            (Bug::StatefulUnordered, Controller::StatefulSet) => Some(seen::<StatefulSet>(world, |set| {
                if let Some(spec) = &mut set.spec {
                    spec.pod_management_policy = Some("Parallel".into());
                }
            })),
            (Bug::StatefulPartition, Controller::StatefulSet) => Some(seen::<StatefulSet>(world, |set| {
                let strategy = set.spec.as_mut().and_then(|spec| spec.update_strategy.as_mut());
                if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_mut()) {
                    rolling.partition = None;
                }
            })),
            (Bug::JobForgetsEnding, Controller::Job) => Some(seen::<Job>(world, |job| {
                if let Some(spec) = &mut job.spec {
                    spec.pod_replacement_policy = None;
                }
            })),
            (Bug::JobNeverGivesUp, Controller::Job) => Some(seen::<Job>(world, |job| {
                if let Some(spec) = &mut job.spec {
                    spec.backoff_limit = None;
                }
            })),
            (Bug::JobForgetsLabels, Controller::Job) => Some(seen::<Job>(world, |job| {
                let meta = job.spec.as_mut().and_then(|spec| spec.template.metadata.as_mut());
                meta.and_then(|meta| meta.labels.as_mut()).map(|labels| labels.remove("tier"));
            })),
            (Bug::CronAlwaysStarts, Controller::CronJob) => Some(seen::<CronJob>(world, |cron_job| {
                cron_job.spec.concurrency_policy = None;
            })),
            (Bug::CronForgets, Controller::CronJob) => Some(seen::<CronJob>(world, |cron_job| {
                cron_job.status.get_or_insert_default().last_schedule_time = None;
            })),
            (Bug::AutoscalerCountsSurge, Controller::HorizontalPodAutoscaler) => {
                Some(seen::<Deployment>(world, |deployment| {
                    let pods = facts::sets(deployment, world).iter().map(|set| facts::active(set, world)).sum();
                    if let Some(spec) =
                        deployment.spec.as_mut().filter(|spec| spec.replicas.is_some_and(|it| it < pods))
                    {
                        spec.replicas = Some(pods);
                    }
                }))
            }
            (Bug::AutoscalerExceeds, Controller::HorizontalPodAutoscaler) => {
                Some(seen::<HorizontalPodAutoscaler>(world, |autoscaler| autoscaler.spec.max_replicas += 1))
            }
            (Bug::AutoscalerHurries, Controller::HorizontalPodAutoscaler) => {
                Some(seen::<HorizontalPodAutoscaler>(world, |autoscaler| autoscaler.spec.behavior = None))
            }
            _ => None,
        }
    }

    /// Changes a plan as the bug would.
    fn spoil(&self, who: Controller, key: &Key, world: &Snapshot, context: &Context, plan: &mut Plan) {
        match (self.bug, who) {
            (Bug::NeverRequeued, _) | (Bug::NeverLate, Controller::Deployment) => plan.wake_at = None,
            (Bug::NeverQuiet, Controller::Deployment) => never_quiet(key, world, context.now, plan),
            (Bug::RolloutWavers, Controller::Deployment) => shrink_new(key, world, context.now, false, plan),
            (Bug::RolloutChurns, Controller::Deployment) => shrink_new(key, world, context.now, true, plan),
            (Bug::NotesForEver, Controller::Deployment) => note_look(key, world, context.now, plan),
            (Bug::ControllerTellsWanted, Controller::ReplicaSet) => plan.writes.iter_mut().for_each(tell_wanted),
            (Bug::HistoryTakesActive, Controller::Deployment) => take_oldest(key, world, plan),
            (Bug::CreatedTwice, Controller::ReplicaSet) => {
                let made = plan.writes.iter().find(|write| matches!(write, Write::Create(_))).cloned();
                plan.writes.extend(made);
            }
            (Bug::EndsAvailable, Controller::ReplicaSet) => end_available(key, world, context.now, plan),
            (Bug::OrphansTaken, Controller::GarbageCollector) => forget_finalizer(key, world, "orphan", plan),
            (Bug::ForegroundHurries, Controller::GarbageCollector) => {
                forget_finalizer(key, world, "foregroundDeletion", plan)
            }
            (Bug::NamespaceHurries, Controller::Namespace) if !plan.writes.is_empty() => {
                empty_at_once(key, world, plan)
            }
            (Bug::NamespaceGoesFull, Controller::Namespace) if !plan.writes.is_empty() => let_go(key, world, plan),
            (Bug::StatefulStuck, Controller::StatefulSet) => keep_broken(world, plan),
            (Bug::StatefulForces, Controller::StatefulSet) => {
                for write in &mut plan.writes {
                    if let Write::Delete { key, uid, .. } = write {
                        *write = Write::Remove { key: key.clone(), uid: uid.clone() };
                    }
                }
            }
            (Bug::HistoryRestarts, Controller::DaemonSet | Controller::StatefulSet) => {
                for write in &mut plan.writes {
                    if let Write::Create(Body::ControllerRevision(revision)) = write {
                        revision.revision = 1;
                    }
                }
            }
            (Bug::HistoryTakesUsed, Controller::DaemonSet | Controller::StatefulSet) => {
                take_oldest_revision(key, world, plan)
            }
            (Bug::CronPutOff, Controller::CronJob) => put_off(key, world, context.now, plan),
            (Bug::JobCountsTwice, Controller::Job) => plan.writes.iter_mut().for_each(count_at_once),
            (_, Controller::Deployment) => plan.writes.iter_mut().for_each(|write| self.spoil_write(write)),
            _ => {}
        }
    }

    fn spoil_write(&self, write: &mut Write) {
        match (self.bug, write) {
            (Bug::RevisionRestarts, Write::Create(body)) => {
                let notes = body.meta_mut().annotations.get_or_insert_default();
                notes.insert(facts::REVISION.into(), "1".into());
            }
            (Bug::CollisionStuck, Write::Create(Body::ReplicaSet(set))) => {
                let owner = set.metadata.owner_references.iter().flatten().next().map(|owner| owner.name.clone());
                let hash = template_hash(&without_hash(facts::template(set)), None);
                set.metadata.name = Some(format!("{}-{hash}", owner.unwrap_or_default()));
            }
            (Bug::DoneTooEarly, Write::Status(Body::Deployment(deployment))) => {
                let wanted = Some(facts::replicas(deployment)).filter(|wanted| *wanted > 0);
                let status = deployment.status.get_or_insert_default();
                status.replicas = wanted;
                status.updated_replicas = wanted;
                status.ready_replicas = wanted;
                status.available_replicas = wanted;
            }
            (Bug::AvailableTooEarly, Write::Status(Body::Deployment(deployment))) => {
                let conditions = deployment.status.get_or_insert_default().conditions.get_or_insert_default();
                let told = conditions.iter_mut().filter(|condition| condition.type_ == "Available");
                told.for_each(|condition| condition.status = "True".into());
            }
            (Bug::GenerationAhead, Write::Status(Body::Deployment(deployment))) => {
                let status = deployment.status.get_or_insert_default();
                status.observed_generation = status.observed_generation.map(|generation| generation + 1);
            }
            _ => {}
        }
    }
}

/// Owners are found by name: references get the uid of what has the name now.
fn by_name(world: &Snapshot) -> Snapshot {
    let mut uids: BTreeMap<(String, String), String> = BTreeMap::new();
    for object in world.objects(Kind::Deployment, None).chain(world.objects(Kind::ReplicaSet, None)) {
        uids.insert((object.namespace().to_owned(), object.name().to_owned()), object.uid().to_owned());
    }
    seen::<ReplicaSet>(world, |set| {
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        for owner in set.metadata.owner_references.iter_mut().flatten() {
            if let Some(uid) = uids.get(&(namespace.clone(), owner.name.clone())) {
                owner.uid.clone_from(uid);
            }
        }
    })
}

fn never_quiet(key: &Key, world: &Snapshot, now: Timestamp, plan: &mut Plan) {
    let Some(deployment) = world.get::<Deployment>(&key.namespace, &key.name) else { return };
    plan.wake_by(now + SignedDuration::from_secs(60));
    if plan.writes.is_empty() {
        let mut body = deployment.clone();
        body.metadata.annotations.get_or_insert_default().insert("synced".into(), now.to_string());
        plan.writes.push(Write::Update(body.into_body()));
    }
}

/// Makes the new set smaller by one when there is nothing else to do, once in a moment. `stealthily`: as if it had been made
/// for another number of replicas.
fn shrink_new(key: &Key, world: &Snapshot, now: Timestamp, stealthily: bool, plan: &mut Plan) {
    let deployment = world.get::<Deployment>(&key.namespace, &key.name);
    let Some(deployment) = deployment.filter(|it| plan.writes.is_empty() && !facts::is_deleted(&it.metadata)) else {
        return;
    };
    let (wanted, replicas) = (facts::wanted(deployment), facts::replicas(deployment));
    let mut sets = facts::sets(deployment, world).into_iter();
    let Some(new) = sets.find(|set| facts::same_template(&facts::template(set), &wanted)) else { return };
    let mut body = new.clone();
    let notes = body.metadata.annotations.get_or_insert_default();
    let is_of_this_moment = notes.insert("shrunk".into(), now.to_string()) == Some(now.to_string());
    if facts::size(new) != replicas || replicas < 2 || facts::is_paused(deployment) || is_of_this_moment {
        return;
    }
    if stealthily {
        notes.insert(facts::DESIRED.into(), (replicas - 1).to_string());
        plan.writes.push(Write::Update(body.clone().into_body()));
        body.metadata.resource_version = None;
    }
    body.spec.get_or_insert_default().replicas = Some(replicas - 1);
    plan.writes.push(Write::Update(body.into_body()));
    plan.wake_by(now + SignedDuration::from_secs(5));
}

/// Every second a rollout that is not done is noted down.
fn note_look(key: &Key, world: &Snapshot, now: Timestamp, plan: &mut Plan) {
    let Some(deployment) = world.get::<Deployment>(&key.namespace, &key.name) else { return };
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = facts::replicas(deployment);
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    if counts.iter().all(|count| count.unwrap_or(0) == wanted) {
        return;
    }
    plan.wake_by(now + SignedDuration::from_secs(1));
    if !plan.writes.is_empty() {
        return;
    }
    let mut body = deployment.clone();
    body.metadata.annotations.get_or_insert_default().insert("looked".into(), now.to_string());
    plan.writes.push(Write::Update(body.into_body()));
}

fn tell_wanted(write: &mut Write) {
    if let Write::Status(Body::ReplicationController(controller)) = write {
        let wanted = controller.spec.as_ref().and_then(|spec| spec.replicas).filter(|wanted| *wanted > 0);
        controller.status.get_or_insert_default().ready_replicas = wanted;
    }
}

fn take_oldest(key: &Key, world: &Snapshot, plan: &mut Plan) {
    let Some(deployment) = world.get::<Deployment>(&key.namespace, &key.name) else { return };
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut sets = facts::sets(deployment, world);
    if sets.len() as i32 <= limit + 1 || !plan.writes.is_empty() {
        return;
    }
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
    let oldest = &sets[0].metadata;
    plan.writes.push(Write::Delete {
        key: Key::new(Kind::ReplicaSet, key.namespace.clone(), facts::name(oldest)),
        uid: facts::uid(oldest).to_owned(),
        propagation: Propagation::Background,
    });
}

/// Templates of all revisions but the newest of each workload are others than they are.
fn forget_old_templates(world: &Snapshot) -> Snapshot {
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    let owner = |it: &ControllerRevision| api::object::controller_of(&it.metadata).map(|owner| owner.uid.clone());
    for revision in world.list::<ControllerRevision>(None) {
        let number = newest.entry(owner(revision).unwrap_or_default()).or_default();
        *number = revision.revision.max(*number);
    }
    seen::<ControllerRevision>(world, |revision| {
        if newest.get(&owner(revision).unwrap_or_default()) != Some(&revision.revision)
            && let Some(template) = revision.data.as_mut().and_then(|data| data.0.pointer_mut("/spec/template/spec"))
        {
            template["hostname"] = "forgotten".into();
        }
    })
}

fn take_oldest_revision(key: &Key, world: &Snapshot, plan: &mut Plan) {
    let Some(object) = world.at(key).filter(|_| plan.writes.is_empty()) else { return };
    let mut revisions: Vec<&ControllerRevision> = world.controlled_by(object.uid()).collect();
    revisions.sort_by_key(|revision| revision.revision);
    if let [oldest, _, ..] = revisions.as_slice() {
        plan.writes.push(Write::Delete {
            key: Key::new(Kind::ControllerRevision, key.namespace.clone(), facts::name(&oldest.metadata)),
            uid: facts::uid(&oldest.metadata).to_owned(),
            propagation: Propagation::Background,
        });
    }
}

/// The next run of `@every` is due a period from now on, whenever the last one was.
fn put_off(key: &Key, world: &Snapshot, now: Timestamp, plan: &mut Plan) {
    let cron_job = world.get::<CronJob>(&key.namespace, &key.name);
    let period = cron_job.and_then(|it| it.spec.schedule.strip_prefix("@every ")?.strip_suffix('s')?.parse().ok());
    if let Some(period) = period.filter(|_| plan.wake_at.is_some()) {
        plan.wake_at = Some(now + SignedDuration::from_secs(period));
    }
}

fn end_available(key: &Key, world: &Snapshot, now: Timestamp, plan: &mut Plan) {
    let Some(set) = world.get::<ReplicaSet>(&key.namespace, &key.name) else { return };
    let mut available =
        facts::pods(set, world).into_iter().filter(|pod| facts::is_available(pod, facts::wait(set), now));
    for write in &mut plan.writes {
        if let (Write::Delete { key, uid, .. }, true) = (write, true)
            && key.kind == Kind::Pod
            && let Some(pod) = available.next()
        {
            key.name = facts::name(&pod.metadata).to_owned();
            *uid = facts::uid(&pod.metadata).to_owned();
        }
    }
}

/// Who is not ready is waited for.
fn keep_broken(world: &Snapshot, plan: &mut Plan) {
    let is_broken = |key: &Key| {
        let pod = world.get::<Pod>(&key.namespace, &key.name);
        pod.is_some_and(|pod| facts::is_active(pod) && facts::ready_since(pod).is_none())
    };
    plan.writes.retain(|write| !matches!(write, Write::Delete { key, .. } if key.kind == Kind::Pod && is_broken(key)));
}

/// What is noted to have ended is counted, too.
fn count_at_once(write: &mut Write) {
    let Write::Status(Body::Job(job)) = write else { return };
    let status = job.status.get_or_insert_default();
    let noted = status.uncounted_terminated_pods.as_ref().and_then(|noted| noted.succeeded.as_ref());
    let noted = noted.map_or(0, |uids| uids.len() as i32);
    if noted > 0 {
        status.succeeded = Some(status.succeeded.unwrap_or(0) + noted);
    }
}

fn empty_at_once(key: &Key, world: &Snapshot, plan: &mut Plan) {
    let kinds = Kind::ALL.iter().filter(|kind| kind.namespaced());
    let objects = kinds.flat_map(|kind| world.objects(*kind, Some(&key.name)));
    let stay = objects.filter(|object| !facts::is_deleted(object.meta()));
    plan.writes.extend(stay.map(|object| Write::Delete {
        key: object.key(),
        uid: object.uid().to_owned(),
        propagation: Propagation::Background,
    }));
}

fn let_go(key: &Key, world: &Snapshot, plan: &mut Plan) {
    let Some(namespace) = world.get::<Namespace>("", &key.name) else { return };
    let mut body = namespace.clone();
    body.spec.get_or_insert_default().finalizers = None;
    plan.writes = vec![Write::Finalize(body.into_body())];
}

/// The finalizer goes, and nothing else is done for it.
fn forget_finalizer(key: &Key, world: &Snapshot, finalizer: &str, plan: &mut Plan) {
    let Some(object) = world.at(key) else { return };
    if object.meta().finalizers.iter().flatten().all(|it| it != finalizer) {
        return;
    }
    let mut body = object.body.clone();
    if let Some(finalizers) = &mut body.meta_mut().finalizers {
        finalizers.retain(|it| it != finalizer);
    }
    plan.writes = vec![Write::Update(body)];
}
