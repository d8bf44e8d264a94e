//! What becomes of a claim (upstream: syncClaim, syncUnboundClaim, syncBoundClaim; pvcprotection processPVC).

use api::volumes::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION};
use api::{Context, EventType, Key, Plan, Pod, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{class, drop_finalizer, note, provision};
use crate::{pods, refusals};

/// Phase of a claim.
pub(super) fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Decides about one claim.
pub(super) fn decide(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(claim) = world.get::<PersistentVolumeClaim>(&key.namespace, &key.name) else { return Plan::nothing() };
    let mut round = Round { key, claim, world, plan: Plan::nothing() };
    if let Some(refusal) = context.refused.filter(|refusal| !refusals::is_outdated(refusal)) {
        round.tell(EventType::Warning, "ProvisioningFailed", refusal.message.clone());
    }
    if !round.protect() {
        if volumes::annotation(&claim.metadata, BIND_COMPLETED).is_some() {
            round.keep_bound();
        } else {
            round.bind();
        }
    }
    round.plan
}

struct Round<'a> {
    key: &'a Key,
    claim: &'a PersistentVolumeClaim,
    world: &'a Snapshot,
    plan: Plan,
}

impl Round<'_> {
    /// Holds a claim while it is used; true if that is all there is to do now.
    fn protect(&mut self) -> bool {
        let meta = &self.claim.metadata;
        let protected = volumes::has_finalizer(meta, CLAIM_PROTECTION);
        if meta.deletion_timestamp.is_none() {
            if !protected {
                let mut claim = self.claim.clone();
                claim.metadata.finalizers.get_or_insert_default().push(CLAIM_PROTECTION.into());
                self.plan.writes.push(Write::Update(claim.into_body()));
            }
            return !protected;
        }
        if !protected {
            return true;
        }
        if let Some(pod) = volumes::users(meta, self.world).next() {
            self.plan.why.push(format!("is deleted once no pod uses it, now {} does", pods::name(pod)));
            return false;
        }
        let mut claim = self.claim.clone();
        drop_finalizer(&mut claim.metadata, CLAIM_PROTECTION);
        self.plan.writes.push(Write::Update(claim.into_body()));
        true
    }

    /// A claim that was bound stays so, or is lost.
    fn keep_bound(&mut self) {
        let name = volumes::volume_name(self.claim);
        if name.is_empty() {
            let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lose("ClaimLost", message);
        }
        let Some(volume) = self.world.get::<PersistentVolume>("", name) else {
            return self.lose("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
        };
        let free = volumes::claim_ref(volume).is_none();
        if free || volumes::is_for(volume, self.claim) {
            return self.tie(volume);
        }
        self.lose("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly");
    }

    fn lose(&mut self, reason: &'static str, message: &str) {
        self.plan.why.push(message.to_owned());
        if phase(self.claim) == "Lost" {
            return;
        }
        let mut claim = self.claim.clone();
        claim.status.get_or_insert_default().phase = Some("Lost".into());
        self.plan.writes.push(Write::Status(claim.into_body()));
        self.plan.writes.push(Write::Event(self.note(EventType::Warning, reason, message.to_owned())));
    }

    fn bind(&mut self) {
        let named = volumes::volume_name(self.claim);
        if !named.is_empty() {
            return self.bind_to(named);
        }
        let class = class(self.claim, self.world);
        let waits = class.is_some_and(volumes::waits_for_consumer)
            && volumes::annotation(&self.claim.metadata, volumes::SELECTED_NODE).is_none();
        if let Some(volume) = volumes::candidates(self.claim, self.world, waits).into_iter().next() {
            return self.tie(volume);
        }
        match volumes::class_of_claim(self.claim) {
            _ if waits => self.tell_wait(),
            None if volumes::default_class(self.world).is_some() => self.give_class(),
            None | Some("") => {
                let message = "no persistent volumes available for this claim and no storage class is set";
                self.tell(EventType::Normal, "FailedBinding", message.into());
            }
            Some(name) => provision::volume(self.claim, name, self.world, &mut self.plan),
        }
    }

    /// A claim from before there was a default class gets it (upstream: assignDefaultStorageClass).
    fn give_class(&mut self) {
        let Some(class) = volumes::default_class(self.world) else { return };
        let mut claim = self.claim.clone();
        claim.spec.get_or_insert_default().storage_class_name.clone_from(&class.metadata.name);
        self.plan.writes.push(Write::Update(claim.into_body()));
    }

    fn bind_to(&mut self, name: &str) {
        let Some(volume) = self.world.get::<PersistentVolume>("", name) else {
            return self.plan.why.push(format!("waits for the volume {name}, which is not there"));
        };
        if volumes::claim_ref(volume).is_none() {
            return match volumes::mismatch(self.claim, volume) {
                None => self.tie(volume),
                Some(why) => {
                    let message = format!("Cannot bind to requested volume \"{name}\": {why}");
                    self.tell(EventType::Warning, "VolumeMismatch", message);
                }
            };
        }
        if volumes::is_for(volume, self.claim) {
            return self.tie(volume);
        }
        let message = format!("volume \"{name}\" already bound to a different claim.");
        self.tell(EventType::Warning, "FailedBinding", message);
    }

    fn tell_wait(&mut self) {
        let name = self.claim.metadata.name.as_deref().unwrap_or("");
        let pods = self.world.unbound_pods().filter(|pod| pod.metadata.namespace == self.claim.metadata.namespace);
        let waiting: Vec<&Pod> = pods.filter(|pod| volumes::claims_of(pod).any(|used| used == name)).collect();
        match waiting.first() {
            Some(pod) => {
                // Mostly it is placed in this very turn: nobody need be told.
                self.plan.why.push(format!("waiting for pod {} to be scheduled", pods::name(pod)));
            }
            None => {
                let message = "waiting for first consumer to be created before binding";
                self.tell(EventType::Normal, "WaitForFirstConsumer", message.into());
            }
        }
    }

    /// Makes both halves say the same: first what they are bound to, then, when that is written, their phases.
    fn tie(&mut self, volume: &PersistentVolume) {
        let (bound_volume, bound_claim) = (volumes::tied(volume, self.claim), tied_claim(self.claim, volume));
        let volume_changed = bound_volume.spec != volume.spec || bound_volume.metadata != volume.metadata;
        let claim_changed = bound_claim.spec != self.claim.spec || bound_claim.metadata != self.claim.metadata;
        if volume_changed {
            self.plan.writes.push(Write::Update(bound_volume.into_body()));
        }
        if claim_changed {
            self.plan.writes.push(Write::Update(bound_claim.into_body()));
        }
        if volume_changed || claim_changed {
            return;
        }
        let mut claim = self.claim.clone();
        let (spec, status) = (volume.spec.clone().unwrap_or_default(), claim.status.get_or_insert_default());
        status.phase = Some("Bound".into());
        status.access_modes = spec.access_modes;
        // A volume that grew later is told by who made it grow.
        if status.capacity.is_none() {
            status.capacity = spec.capacity;
        }
        if claim.status != self.claim.status {
            self.plan.writes.push(Write::Status(claim.into_body()));
        }
    }

    fn tell(&mut self, kind: EventType, reason: &'static str, message: String) {
        self.plan.why.push(message.clone());
        let note = self.note(kind, reason, message);
        self.plan.events.push(note);
    }

    fn note(&self, kind: EventType, reason: &'static str, message: String) -> api::EventNote {
        note(self.key.clone(), &self.claim.metadata, kind, reason, message)
    }
}

fn tied_claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> PersistentVolumeClaim {
    let mut bound = claim.clone();
    let annotations = bound.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.into(), "yes".into());
    if volumes::volume_name(claim).is_empty() {
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        bound.spec.get_or_insert_default().volume_name.clone_from(&volume.metadata.name);
    }
    bound
}
