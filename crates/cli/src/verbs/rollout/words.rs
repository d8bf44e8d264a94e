//! How far a rollout is, in kubectl's words: an object in, a line out. Pure.
//!
//! Mirrors kubectl `pkg/polymorphichelpers/rollout_status.go`.

use serde_json::Value;

use crate::errors::{Error, Result};
use crate::json::Json;

/// What is to be told of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It goes on.
    Going(String),
    /// It is over.
    Done(String),
}

impl Told {
    /// The line.
    pub fn line(&self) -> &str {
        match self {
            Told::Going(line) | Told::Done(line) => line,
        }
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        matches!(self, Told::Done(_))
    }
}

/// Whether there are words for a kind.
pub fn has(kind: &str) -> bool {
    matches!(kind, "Deployment" | "DaemonSet" | "StatefulSet")
}

/// The line about a workload; `revision` is the one that is wanted, or 0.
pub fn status(object: &Value, revision: i64) -> Result<Told> {
    match object.text("kind") {
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        _ => deployment(object, revision),
    }
}

fn deployment(object: &Value, revision: i64) -> Result<Told> {
    let name = object.text("metadata.name");
    if revision > 0 {
        let running = super::revisions::number(object);
        let Some(running) = running else {
            return Err(Error::told(format!("cannot get the revision of deployment {name:?}: no revision annotation")));
        };
        if running != revision {
            return Err(Error::told(format!(
                "desired revision ({revision}) is different from the running revision ({running})"
            )));
        }
    }
    if object.number("status.observedGeneration") < object.number("metadata.generation") {
        return Ok(Told::Going("Waiting for deployment spec update to be observed...".into()));
    }
    if condition(object, "Progressing").is_some_and(|found| found.text("reason") == "ProgressDeadlineExceeded") {
        return Err(Error::told(format!("deployment {name:?} exceeded its progress deadline")));
    }
    let (wanted, updated) = (object.number("spec.replicas"), object.number("status.updatedReplicas"));
    let (all, available) = (object.number("status.replicas"), object.number("status.availableReplicas"));
    let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
    Ok(if updated < wanted {
        Told::Going(format!("{waiting} {updated} out of {wanted} new replicas have been updated..."))
    } else if updated < all {
        Told::Going(format!("{waiting} {} old replicas are pending termination...", all - updated))
    } else if available < updated {
        Told::Going(format!("{waiting} {available} of {updated} updated replicas are available..."))
    } else {
        Told::Done(format!("deployment {name:?} successfully rolled out"))
    })
}

fn daemon_set(object: &Value) -> Result<Told> {
    only_rolling(object)?;
    if object.number("status.observedGeneration") < object.number("metadata.generation") {
        return Ok(Told::Going("Waiting for daemon set spec update to be observed...".into()));
    }
    let name = object.text("metadata.name");
    let wanted = object.number("status.desiredNumberScheduled");
    let (updated, available) =
        (object.number("status.updatedNumberScheduled"), object.number("status.numberAvailable"));
    let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
    Ok(if updated < wanted {
        Told::Going(format!("{waiting} {updated} out of {wanted} new pods have been updated..."))
    } else if available < wanted {
        Told::Going(format!("{waiting} {available} of {wanted} updated pods are available..."))
    } else {
        Told::Done(format!("daemon set {name:?} successfully rolled out"))
    })
}

fn stateful_set(object: &Value) -> Result<Told> {
    only_rolling(object)?;
    let observed = object.number("status.observedGeneration");
    if observed == 0 || observed < object.number("metadata.generation") {
        return Ok(Told::Going("Waiting for statefulset spec update to be observed...".into()));
    }
    let (wanted, ready) = (object.number("spec.replicas"), object.number("status.readyReplicas"));
    let updated = object.number("status.updatedReplicas");
    if ready < wanted {
        return Ok(Told::Going(format!("Waiting for {} pods to be ready...", wanted - ready)));
    }
    if object.has("spec.updateStrategy.rollingUpdate") {
        let moving = wanted - object.number("spec.updateStrategy.rollingUpdate.partition");
        return Ok(if updated < moving {
            Told::Going(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {moving} new pods have been updated..."
            ))
        } else {
            Told::Done(format!("partitioned roll out complete: {updated} new pods have been updated..."))
        });
    }
    let (update, current) = (object.text("status.updateRevision"), object.text("status.currentRevision"));
    Ok(if update != current {
        Told::Going(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        ))
    } else {
        let count = object.number("status.currentReplicas");
        Told::Done(format!("statefulset rolling update complete {count} pods at revision {current}..."))
    })
}

fn only_rolling(object: &Value) -> Result<()> {
    match object.text("spec.updateStrategy.type") {
        "RollingUpdate" => Ok(()),
        _ => Err(Error::told("rollout status is only available for RollingUpdate strategy type")),
    }
}

/// A condition of a status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.list("status.conditions").iter().find(|condition| condition.text("type") == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(object: Value) -> String {
        match status(&object, 0) {
            Ok(Told::Going(line)) => line,
            Ok(Told::Done(line)) => format!("done: {line}"),
            Err(error) => error.message(),
        }
    }

    fn deployment(status: Value) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status})
    }

    #[test]
    fn deployments() {
        let lines = [
            json!({"observedGeneration": 1}),
            json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "availableReplicas": 3}),
            json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}),
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}),
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
        ];
        expect_test::expect![[r#"
            Waiting for deployment spec update to be observed...
            Waiting for deployment "web" rollout to finish: 1 out of 3 new replicas have been updated...
            Waiting for deployment "web" rollout to finish: 1 old replicas are pending termination...
            Waiting for deployment "web" rollout to finish: 2 of 3 updated replicas are available...
            done: deployment "web" successfully rolled out
            error: deployment "web" exceeded its progress deadline"#]]
        .assert_eq(&lines.map(|status| told(deployment(status))).join("\n"));
    }

    #[test]
    fn sets() {
        let set = |kind: &str, strategy: Value, status: Value| json!({"kind": kind, "metadata": {"name": "db", "generation": 1}, "spec": {"replicas": 3, "updateStrategy": strategy}, "status": status});
        let rolling = || json!({"type": "RollingUpdate"});
        let partition = || json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        let lines = [
            set("DaemonSet", json!({"type": "OnDelete"}), json!({})),
            set(
                "DaemonSet",
                rolling(),
                json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1}),
            ),
            set(
                "DaemonSet",
                rolling(),
                json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}),
            ),
            set("StatefulSet", rolling(), json!({"observedGeneration": 1, "readyReplicas": 1})),
            set("StatefulSet", partition(), json!({"observedGeneration": 1, "readyReplicas": 3, "updatedReplicas": 1})),
            set("StatefulSet", partition(), json!({"observedGeneration": 1, "readyReplicas": 3, "updatedReplicas": 2})),
            set(
                "StatefulSet",
                rolling(),
                json!({"observedGeneration": 1, "readyReplicas": 3, "updatedReplicas": 2, "updateRevision": "db-2", "currentRevision": "db-1"}),
            ),
            set(
                "StatefulSet",
                rolling(),
                json!({"observedGeneration": 1, "readyReplicas": 3, "currentReplicas": 3, "updateRevision": "db-2", "currentRevision": "db-2"}),
            ),
        ];
        expect_test::expect![[r#"
            error: rollout status is only available for RollingUpdate strategy type
            Waiting for daemon set "db" rollout to finish: 1 out of 2 new pods have been updated...
            done: daemon set "db" successfully rolled out
            Waiting for 2 pods to be ready...
            Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...
            done: partitioned roll out complete: 2 new pods have been updated...
            waiting for statefulset rolling update to complete 2 pods at revision db-2...
            done: statefulset rolling update complete 3 pods at revision db-2..."#]]
        .assert_eq(&lines.map(told).join("\n"));
    }
}
