//! Who may write what: a row a decision. The door refuses a plan that writes anything else, so that a mistake in one
//! decision cannot harm what is another's.
//!
//! Plays the part of upstream's roles for controllers (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/controller_policy.go`).
//! Events may be told by all.

use api::{Kind, Write};

use crate::Controller;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It is made.
    Create,
    /// Metadata or spec are changed.
    Update,
    /// The status is changed.
    Status,
    /// The finalizers of a namespace are changed.
    Finalize,
    /// A pod is put on a node.
    Bind,
    /// It is taken out without grace.
    Remove,
    /// Its end is asked for.
    Delete,
}

use Verb::{Create, Delete, Finalize, Remove, Status, Update};

/// What a decision may do: to objects of some kinds, or of all.
enum Row {
    Only(&'static [(Kind, &'static [Verb])]),
    AnyKind(&'static [Verb]),
    AnyKindAnd(&'static [Verb], &'static [(Kind, &'static [Verb])]),
}

/// Pods of a workload are made, adopted and let go, and ended.
const KEEP: &[Verb] = &[Create, Update, Delete];

fn row(who: Controller) -> Row {
    use Kind::{
        ConfigMap, ControllerRevision, CronJob, DaemonSet, Deployment, EndpointSlice, Endpoints,
        HorizontalPodAutoscaler, Job, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
        PodDisruptionBudget, ReplicaSet, ReplicationController, ResourceQuota, ServiceAccount, StatefulSet,
    };
    match who {
        Controller::Deployment => Row::Only(&[(Deployment, &[Update, Status]), (ReplicaSet, KEEP)]),
        Controller::ReplicaSet => {
            Row::Only(&[(ReplicaSet, &[Status]), (ReplicationController, &[Status]), (Pod, KEEP)])
        }
        Controller::DaemonSet => Row::Only(&[(DaemonSet, &[Status]), (Pod, KEEP), (ControllerRevision, KEEP)]),
        Controller::StatefulSet => Row::Only(&[
            (StatefulSet, &[Status]),
            (Pod, KEEP),
            (ControllerRevision, KEEP),
            (PersistentVolumeClaim, &[Create, Update]),
        ]),
        Controller::PersistentVolume => Row::Only(&[
            (PersistentVolumeClaim, &[Update, Status]),
            (PersistentVolume, &[Create, Update, Status, Delete]),
        ]),
        Controller::CronJob => Row::Only(&[(CronJob, &[Status]), (Job, &[Create, Delete])]),
        Controller::Job => Row::Only(&[(Job, &[Status, Delete]), (Pod, KEEP)]),
        Controller::HorizontalPodAutoscaler => Row::Only(&[
            (HorizontalPodAutoscaler, &[Update, Status]),
            (Deployment, &[Update]),
            (ReplicaSet, &[Update]),
            (StatefulSet, &[Update]),
            (ReplicationController, &[Update]),
        ]),
        Controller::Endpoints => Row::Only(&[(Endpoints, KEEP), (EndpointSlice, KEEP)]),
        Controller::ResourceQuota => Row::Only(&[(ResourceQuota, &[Status])]),
        Controller::Disruption => Row::Only(&[(PodDisruptionBudget, &[Status])]),
        Controller::NodeLifecycle => Row::Only(&[(Node, &[Update, Status]), (Pod, &[Status])]),
        Controller::ServiceAccount => Row::Only(&[(ServiceAccount, &[Create]), (ConfigMap, &[Create, Update])]),
        Controller::TaintEviction => Row::Only(&[(Pod, &[Status, Delete])]),
        Controller::PodGarbageCollector => Row::Only(&[(Pod, &[Status, Remove])]),
        Controller::GarbageCollector => Row::AnyKind(&[Update, Delete]),
        Controller::Namespace => Row::AnyKindAnd(&[Delete], &[(Namespace, &[Status, Finalize])]),
    }
}

/// Fine if `who` may write this; else what it may not.
pub fn check(who: Controller, write: &Write) -> Result<(), String> {
    let Some((kind, verb)) = asked(write) else { return Ok(()) };
    let among = |rows: &[(Kind, &[Verb])]| rows.iter().any(|(of, verbs)| *of == kind && verbs.contains(&verb));
    let may = match row(who) {
        Row::Only(rows) => among(rows),
        Row::AnyKind(verbs) => verbs.contains(&verb),
        Row::AnyKindAnd(verbs, rows) => verbs.contains(&verb) || among(rows),
    };
    if may { Ok(()) } else { Err(format!("the decision {who:?} may not {verb:?} objects of kind {kind}")) }
}

fn asked(write: &Write) -> Option<(Kind, Verb)> {
    Some(match write {
        Write::Create(body) => (body.kind(), Create),
        Write::Update(body) => (body.kind(), Update),
        Write::Status(body) => (body.kind(), Status),
        Write::Finalize(body) => (body.kind(), Finalize),
        Write::Bind { .. } => (Kind::Pod, Verb::Bind),
        Write::Remove { key, .. } => (key.kind, Remove),
        Write::Delete { key, .. } => (key.kind, Delete),
        Write::Event(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use api::{Key, Propagation};

    use super::*;

    #[test]
    fn nobody_may_write_what_is_anothers() {
        let delete = |kind: Kind| Write::Delete {
            key: Key::new(kind, "default", "x"),
            uid: String::new(),
            propagation: Propagation::Background,
        };
        let bind = Write::Bind { pod: Key::new(Kind::Pod, "default", "x"), uid: String::new(), node: "n1".into() };
        assert_eq!(check(Controller::ReplicaSet, &delete(Kind::Pod)), Ok(()));
        assert_eq!(check(Controller::GarbageCollector, &delete(Kind::Secret)), Ok(()));
        assert_eq!(
            check(Controller::Deployment, &delete(Kind::Pod)),
            Err("the decision Deployment may not Delete objects of kind Pod".into())
        );
        assert_eq!(
            check(Controller::Disruption, &delete(Kind::Pod)),
            Err("the decision Disruption may not Delete objects of kind Pod".into())
        );
        assert_eq!(
            check(Controller::ReplicaSet, &bind),
            Err("the decision ReplicaSet may not Bind objects of kind Pod".into())
        );
    }
}
