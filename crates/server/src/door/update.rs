//! Changing an object: preconditions, what may be touched, defaults, validation, and whether anything changed at all.

use api::{Body, Key, Kind, Refusal};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Call, Outcome, Part, admission, requested};

pub(super) fn update(call: &mut Call, current: &Body, part: Part, mut new: Body) -> Result<Outcome, Refusal> {
    check_preconditions(current, &new)?;
    keep_system_metadata(current, &mut new);
    match part {
        Part::Status => api::prepare::update_status(&mut new, current),
        Part::Finalize => finalize(&mut new, current),
        Part::Main | Part::Scale => {
            admission::before_update(&mut new);
            api::prepare::update(&mut new, current);
        }
    }
    // A pod's spec is as it was and has its defaults: to set them again would copy what pods share.
    if !(part == Part::Status && matches!(new, Body::Pod(_))) {
        api::defaults::apply(&mut new);
    }
    if part != Part::Status {
        admission::on_update(call, current, &mut new)?;
    }
    requested::note(call, Some(current), &mut new);
    if new == *current {
        return Ok(Outcome::Unchanged);
    }
    let problems = match part {
        Part::Status => api::validate::update_status(&new, current),
        Part::Main | Part::Scale | Part::Finalize => api::validate::update(&new, current),
    };
    problems.refuse(current)?;
    if may_go(&new) { Ok(Outcome::Remove(new)) } else { Ok(Outcome::Write(new)) }
}

pub(super) fn bind(call: &mut Call, key: &Key, uid: &str, node: &str) -> Result<Outcome, Refusal> {
    let current = call.world.at(key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?;
    let Body::Pod(pod) = &current.body else {
        return Err(Refusal::bad_request(format!("only pods are bound to nodes, not {}", key.kind)));
    };
    if !uid.is_empty() && current.uid() != uid {
        return Err(Refusal::conflict(key.kind, &key.name, uid_differs(uid, current.uid())));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", key.name);
        return Err(Refusal::conflict(key.kind, &key.name, why));
    }
    let assigned = pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
    if !assigned.is_empty() {
        let why = format!("pod {} is already assigned to node \"{assigned}\"", key.name);
        return Err(Refusal::conflict(key.kind, &key.name, why));
    }
    let mut bound = pod.clone();
    bound.spec.get_or_insert_default().node_name = Some(node.to_owned());
    let conditions = bound.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(k8s_openapi::api::core::v1::PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(Time(call.now)),
        observed_generation: bound.metadata.generation,
        ..Default::default()
    });
    Ok(Outcome::Write(Body::Pod(bound)))
}

fn check_preconditions(current: &Body, new: &Body) -> Result<(), Refusal> {
    let (kind, meta, wanted) = (current.kind(), current.meta(), new.meta());
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(uid) = given(&wanted.uid)
        && meta.uid.as_ref() != Some(&uid)
    {
        let why = uid_differs(&uid, meta.uid.as_deref().unwrap_or(""));
        return Err(Refusal::conflict(kind, name(current), why));
    }
    if let Some(version) = given(&wanted.resource_version)
        && meta.resource_version.as_ref() != Some(&version)
    {
        return Err(Refusal::modified(kind, name(current)));
    }
    let named = wanted.name.as_deref().unwrap_or("");
    if named != name(current) {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            name(current)
        )));
    }
    if wanted.namespace.as_deref().unwrap_or("") != meta.namespace.as_deref().unwrap_or("") {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// What only the system sets stays as it is, whatever the client sent.
fn keep_system_metadata(current: &Body, new: &mut Body) {
    let (old, meta) = (current.meta(), new.meta_mut());
    meta.uid.clone_from(&old.uid);
    meta.resource_version.clone_from(&old.resource_version);
    meta.creation_timestamp.clone_from(&old.creation_timestamp);
    meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    meta.generation = old.generation;
    meta.self_link = None;
    meta.managed_fields.clone_from(&old.managed_fields);
    meta.generate_name.clone_from(&old.generate_name);
}

fn finalize(new: &mut Body, current: &Body) {
    if let (Body::Namespace(new), Body::Namespace(old)) = (new, current) {
        let finalizers = new.spec.take().and_then(|spec| spec.finalizers);
        **new = (**old).clone();
        new.spec.get_or_insert_default().finalizers = finalizers;
    }
}

/// True once nothing holds a deleted object back.
fn may_go(body: &Body) -> bool {
    let meta = body.meta();
    let held = meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
        || matches!(body, Body::Namespace(namespace) if namespace.spec.as_ref()
            .and_then(|spec| spec.finalizers.as_ref()).is_some_and(|finalizers| !finalizers.is_empty()));
    let grace_left = body.kind() == Kind::Pod && meta.deletion_grace_period_seconds != Some(0);
    meta.deletion_timestamp.is_some() && !held && !grace_left
}

fn name(body: &Body) -> &str {
    body.meta().name.as_deref().unwrap_or("")
}

pub(super) fn uid_differs(wanted: &str, actual: &str) -> String {
    format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}")
}

#[cfg(test)]
mod tests {
    use api::{Object, Pod, Snapshot, Typed};
    use expect_test::expect;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::Ids;
    use super::*;
    use crate::minds::Real;

    /// What becomes of a pod of the first generation whose tolerations are replaced by these.
    fn tolerating(given: &Value) -> String {
        let pod = json!({ "metadata": { "name": "p", "namespace": "d", "generation": 1, "uid": "u" },
            "spec": { "containers": [{ "name": "c", "image": "web:v1", "terminationMessagePolicy": "File", "imagePullPolicy": "Always" }] } });
        let mut old = Kind::Pod.decode(pod).unwrap();
        api::defaults::apply(&mut old);
        admission::before_update(&mut old);
        let mut new = old.clone();
        if let Body::Pod(pod) = &mut new {
            pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(given.clone()).unwrap();
        }
        let mut world = Snapshot::default();
        world.put(Object::written(old, 1));
        let (now, mut ids) = (Timestamp::UNIX_EPOCH, Ids::from_seed(1));
        let mut call = Call { world: &world, now, ids: &mut ids, requester: None, minds: &Real };
        match call.update(&Key::new(Kind::Pod, "d", "p"), Part::Main, new) {
            Ok(Outcome::Write(body)) => {
                let pod = Pod::of(&body).unwrap();
                let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
                let keys: Vec<&str> = tolerations.filter_map(|toleration| toleration.key.as_deref()).collect();
                format!("generation {} {}\n", pod.metadata.generation.unwrap(), keys.join(" "))
            }
            Ok(other) => format!("{other:?}\n"),
            Err(refusal) => format!("{}\n", refusal.message),
        }
    }

    #[test]
    fn a_changed_pod_has_the_tolerations_that_every_pod_has() {
        let kept = json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9 });
        let own = json!({ "key": "a", "operator": "Exists", "effect": "NoSchedule" });
        let given = [json!(null), json!([]), json!([own]), json!([kept, own])];
        expect![[r#"
            Unchanged
            Unchanged
            generation 2 a node.kubernetes.io/not-ready node.kubernetes.io/unreachable
            generation 2 node.kubernetes.io/not-ready a node.kubernetes.io/unreachable
        "#]]
        .assert_eq(&given.iter().map(tolerating).collect::<String>());
    }
}
