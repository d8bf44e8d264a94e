//! Looks whether the servers behind APIServices answer, and writes it into the condition `Available`.
//!
//! At once when an APIService, its Service or the endpoints change, and every half minute. The look is a request for the
//! list of the version's resources, which discovery shows then. Mirrors `kube-aggregator/pkg/controllers/status/{local,
//! remote}`.

use std::collections::HashMap;
use std::time::Duration;

use api::{Key, Kind, Typed};
use axum::body::Body as HttpBody;
use futures::StreamExt;
use http::Request;
use http::header::ACCEPT;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Backend, Unavailable, backend, identify, is_remote};
use crate::authorize::User;
use crate::door::{Part, Requester};
use crate::http::Gate;
use crate::turn::Action;
use crate::writer;

const AVAILABLE: &str = "Available";
/// Upstream's names of who looks.
const LOOKER: &str = "system:kube-aggregator";
/// Longest time a look may take.
const LOOK: Duration = Duration::from_secs(5);
/// How often a server that answers is looked at, and longest pause after one that does not.
const AGAIN: Duration = Duration::from_secs(30);
/// First pause after a server that does not answer; it doubles.
const RETRY: Duration = Duration::from_millis(500);
/// Looks at once.
const AT_ONCE: usize = 8;

/// What was looked at last, and when it is to be looked at again.
struct Looked {
    at: Result<Backend, Unavailable>,
    failures: u32,
    due: Instant,
}

/// Looks until the server stops.
pub async fn keep_checking(gate: Gate, mut stopping: watch::Receiver<bool>) {
    let mut changes = [Kind::APIService, Kind::Service, Kind::EndpointSlice].map(|kind| gate.published.follow(kind));
    let mut looked: HashMap<String, Looked> = HashMap::new();
    loop {
        changes.iter_mut().for_each(|change| drop(change.borrow_and_update()));
        look_around(&gate, &mut looked).await;
        let next = looked.values().map(|looked| looked.due).min();
        let [services, targets, slices] = &mut changes;
        let ended = tokio::select! {
            changed = services.changed() => changed.is_err(),
            // Without APIServices the endpoints of others are nobody's concern here.
            changed = targets.changed(), if next.is_some() => changed.is_err(),
            changed = slices.changed(), if next.is_some() => changed.is_err(),
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => false,
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        if ended {
            return;
        }
    }
}

/// Looks at every server that has changed or whose time has come.
async fn look_around(gate: &Gate, looked: &mut HashMap<String, Looked>) {
    let world = gate.published.snapshot();
    let (remote, local): (Vec<&APIService>, Vec<&APIService>) =
        world.list::<APIService>(None).partition(|service| is_remote(service));
    {
        let exists = |name: &str| remote.iter().any(|it| it.metadata.name.as_deref() == Some(name));
        looked.retain(|name, _| exists(name));
        gate.aggregator.retain(exists);
    }
    for service in local {
        write(gate, service, &condition("True", "Local", "Local APIServices are always available")).await;
    }
    let now = Instant::now();
    let mut looks = Vec::new();
    for service in remote {
        let (name, at) = (service.metadata.name.clone().unwrap_or_default(), backend(service, &world));
        let known = looked.get(&name).filter(|known| known.at == at);
        let failures = known.map_or(0, |known| known.failures);
        if known.is_none_or(|known| known.due <= now) {
            looks.push(look_at(gate.clone(), name, service.clone(), at, failures));
        }
    }
    let looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
    looked.extend(looks.collect::<Vec<_>>().await);
}

/// Looks at one server and writes what was found.
async fn look_at(
    gate: Gate,
    name: String,
    service: APIService,
    at: Result<Backend, Unavailable>,
    failures: u32,
) -> (String, Looked) {
    let found = match &at {
        Ok(backend) => {
            look(&gate, &service, backend).await.map_err(|error| condition("False", "FailedDiscoveryCheck", &error))
        }
        Err(Unavailable { reason, message }) => Err(condition("False", reason, message)),
    };
    let (told, resources) = match found {
        Ok(resources) => (condition("True", "Passed", "all checks passed"), Some(resources)),
        Err(condition) => (condition, None),
    };
    let failures = if resources.is_some() { 0 } else { failures + 1 };
    gate.aggregator.note(&name, resources);
    write(&gate, &service, &told).await;
    // Where nobody can be asked nothing but a change helps.
    let retry = at.is_ok() && failures > 0;
    let pause = if retry { RETRY.saturating_mul(1 << failures.min(10)).min(AGAIN) } else { AGAIN };
    (name, Looked { at, failures, due: Instant::now() + pause })
}

/// Asks for the resources of the version.
async fn look(gate: &Gate, service: &APIService, backend: &Backend) -> Result<Vec<Value>, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let path = format!("/apis/{}/{}", spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
    let mut request = Request::new(HttpBody::empty());
    *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static("application/json"));
    let groups = vec!["system:masters".to_owned()];
    identify(request.headers_mut(), &User { name: LOOKER.into(), groups, ..User::default() });
    let failing = |error: String| format!("failing or missing response from {error}");
    let answered = tokio::time::timeout(LOOK, async {
        let answer = gate.aggregator.dialer.send(backend, request).await.map_err(failing)?;
        if !answer.status().is_success() {
            let address = backend.addresses[0];
            let code = answer.status().as_u16();
            return Err(failing(format!("https://{address}{path}: bad status from https://{address}{path}: {code}")));
        }
        let bytes = axum::body::to_bytes(answer.into_body(), api::limits::PASSED_ON_ANSWER_BYTES).await;
        bytes.map_err(|error| failing(format!("https://{}{path}: {error}", backend.addresses[0])))
    });
    let bytes =
        answered.await.map_err(|_| format!("timed out waiting for https://{}{path}", backend.addresses[0]))??;
    let list: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(list["resources"].as_array().cloned().unwrap_or_default())
}

fn condition(status: &str, reason: &str, message: &str) -> APIServiceCondition {
    APIServiceCondition {
        type_: AVAILABLE.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: None,
    }
}

/// True if the last look found the server.
pub fn is_available(service: &APIService) -> bool {
    let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == AVAILABLE && condition.status == "True")
}

/// The APIService with that condition; none if it says so already.
fn settled(service: &APIService, told: &APIServiceCondition, now: Timestamp) -> Option<APIService> {
    let mut settled = service.clone();
    let conditions = settled.status.get_or_insert_default().conditions.get_or_insert_default();
    match conditions.iter_mut().find(|condition| condition.type_ == told.type_) {
        Some(known) => {
            if known.status != told.status {
                known.last_transition_time = Some(Time(now));
            }
            known.status.clone_from(&told.status);
            known.reason.clone_from(&told.reason);
            known.message.clone_from(&told.message);
        }
        None => conditions.push(APIServiceCondition { last_transition_time: Some(Time(now)), ..told.clone() }),
    }
    (settled != *service).then_some(settled)
}

async fn write(gate: &Gate, service: &APIService, told: &APIServiceCondition) {
    let Some(mut settled) = settled(service, told, writer::clock()) else { return };
    // Only the status is written, and only this task writes it.
    settled.metadata.resource_version = None;
    let name = settled.metadata.name.clone().unwrap_or_default();
    let key = Key::new(Kind::APIService, "", name.as_str());
    let action = Action::Update(key, Part::Status, settled.into_body());
    if let Err(refusal) = gate.submit(action, Requester::new(LOOKER, "kapstan"), false).await {
        tracing::debug!(name, refusal.message, "the availability of an APIService was not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_since_when() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let new = APIService::default();
        let failing = settled(&new, &condition("False", "MissingEndpoints", "none"), at(1)).unwrap();
        assert!(!is_available(&failing));
        assert_eq!(settled(&failing, &condition("False", "MissingEndpoints", "none"), at(2)), None);
        let other = settled(&failing, &condition("False", "FailedDiscoveryCheck", "refused"), at(3)).unwrap();
        let passed = settled(&other, &condition("True", "Passed", "all checks passed"), at(4)).unwrap();
        assert!(is_available(&passed));
        let since = |service: &APIService| {
            let condition = service.status.clone().unwrap().conditions.unwrap().remove(0);
            (condition.reason.unwrap(), condition.last_transition_time.unwrap().0.as_second())
        };
        assert_eq!(since(&other), ("FailedDiscoveryCheck".into(), 1));
        assert_eq!(since(&passed), ("Passed".into(), 4));
    }
}
