//! Making an object: name, uid, defaults, admission, validation.

use api::{Body, Kind, Refusal, limits};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Call, admission, requested};

pub(super) fn create(call: &mut Call, namespace: &str, mut draft: Body) -> Result<Body, Refusal> {
    let kind = draft.kind();
    settle_namespace(call, kind, namespace, &mut draft)?;
    if draft.meta().resource_version.as_deref().is_some_and(|version| !version.is_empty()) {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    settle_name(call, kind, namespace, &mut draft)?;
    let meta = draft.meta_mut();
    meta.uid = Some(call.ids.uid());
    meta.creation_timestamp = Some(Time(call.now));
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    api::defaults::apply(&mut draft);
    admission::on_create(call, &mut draft)?;
    requested::note(call, None, &mut draft);
    // Preparation reads what defaults and admission have made of the object.
    api::prepare::create(&mut draft);
    call.minds.within_quota(call.world, None, &draft, call.now)?;
    api::validate::create(&draft).refuse(&draft)?;
    Ok(draft)
}

fn settle_namespace(call: &Call, kind: Kind, namespace: &str, draft: &mut Body) -> Result<(), Refusal> {
    let meta = draft.meta_mut();
    if !kind.namespaced() {
        meta.namespace = None;
        return Ok(());
    }
    let given = meta.namespace.get_or_insert_default();
    if given.is_empty() {
        *given = namespace.to_owned();
    } else if given != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = meta.name.clone().unwrap_or_default();
    let Some(home) = call.world.object(Kind::Namespace, "", namespace) else {
        return Err(Refusal::not_found(Kind::Namespace, namespace));
    };
    if home.meta().deletion_timestamp.is_some() {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Refusal::forbidden(kind, &name, why));
    }
    Ok(())
}

fn settle_name(call: &mut Call, kind: Kind, namespace: &str, draft: &mut Body) -> Result<(), Refusal> {
    let place = if kind.namespaced() { namespace } else { "" };
    let name = draft.meta().name.clone().unwrap_or_default();
    if !name.is_empty() {
        return match call.world.object(kind, place, &name) {
            Some(_) => Err(Refusal::already_exists(kind, &name)),
            None => Ok(()),
        };
    }
    let Some(base) = draft.meta().generate_name.clone().filter(|base| !base.is_empty()) else {
        return Ok(()); // validation says that a name is required
    };
    for _ in 0..limits::GENERATE_NAME_ATTEMPTS {
        let name = call.ids.generated_name(&base);
        if call.world.object(kind, place, &name).is_none() {
            draft.meta_mut().name = Some(name);
            return Ok(());
        }
    }
    Err(Refusal::already_exists(kind, &base))
}
