//! `GET pods/NAME/log`: checked here, read by the node that runs the pod.

use api::{Kind, Pod, Refusal};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::query::Query;
use super::route::Target;
use super::streams::Upgrade;
use super::{Gate, reply};
use crate::nodes::{LogRequest, NodeRequest};

/// The log in the messages of a WebSocket (upstream: `wsstream.NewDefaultReaderProtocols`).
const OVER_WEBSOCKET: [&str; 1] = ["binary.k8s.io"];

/// Streams a container's log; over a WebSocket if that is asked for.
pub async fn stream(gate: &Gate, target: &Target, query: &Query, request: HttpRequest) -> Result<Response, Refusal> {
    if Upgrade::is_websocket(request.headers()) {
        let upgrade = Upgrade::agree(request, &OVER_WEBSOCKET, &[]).await?;
        let lines = lines(gate, target, query).await?;
        return Ok(upgrade.accept(|carrier| carrier.send(lines)));
    }
    let stream = tokio_stream(lines(gate, target, query).await?).map(Ok::<_, std::convert::Infallible>);
    Ok(reply::with_type(StatusCode::OK, HeaderValue::from_static("text/plain"), Body::from_stream(stream)))
}

async fn lines(gate: &Gate, target: &Target, query: &Query) -> Result<Receiver<Bytes>, Refusal> {
    let snapshot = gate.snapshot();
    let pod: &Pod =
        snapshot.get(&target.namespace, &target.name).ok_or_else(|| Refusal::not_found(Kind::Pod, &target.name))?;
    let request = request(pod, target, query)?;
    let container = request.container.clone();
    let node = pod.spec.as_deref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    if node.is_empty() {
        return Err(Refusal::bad_request(format!("pod {} does not have a host assigned", target.name)));
    }
    let unreachable =
        || Refusal::unavailable(format!("node \"{node}\" gives no logs: it is simulated or not connected"));
    if !request.previous
        && let Some(why) = waits(pod, &container)
    {
        let name = &target.name;
        return Err(Refusal::bad_request(format!(
            "container \"{container}\" in pod \"{name}\" is waiting to start: {why}"
        )));
    }
    let mailbox = gate.nodes.find(&node).ok_or_else(unreachable)?;
    let (reply, answer) = oneshot::channel();
    mailbox.send(NodeRequest::Logs(request, reply)).await.map_err(|_| unreachable())?;
    answer.await.map_err(|_| unreachable())?.map_err(Refusal::bad_request)
}

fn tokio_stream(mut lines: Receiver<Bytes>) -> impl futures::Stream<Item = Bytes> {
    futures::stream::poll_fn(move |context| lines.poll_recv(context))
}

/// Why a container that has not run yet does not, if its pod says so (upstream: `kubelet_pods.go`, validateContainerLogStatus).
fn waits(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let own = all.into_iter().find(|one| one.name == container)?;
    let never_ran = own.last_state.as_ref().is_none_or(|last| last.terminated.is_none());
    let waiting = own.state.as_ref()?.waiting.as_ref().filter(|_| never_ran)?;
    Some(match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        reason => reason.to_owned(),
    })
}

fn request(pod: &Pod, target: &Target, query: &Query) -> Result<LogRequest, Refusal> {
    let positive = |name: &str| -> Result<Option<u64>, Refusal> {
        query
            .number(name)?
            .map(|number| {
                u64::try_from(number).map_err(|_| Refusal::bad_request(format!("{name} must not be negative")))
            })
            .transpose()
    };
    let since_ms = match (query.text("sinceTime"), query.number("sinceSeconds")?) {
        ("", None) => None,
        ("", Some(seconds)) => Some(Timestamp::now().as_millisecond() - seconds * 1000),
        (time, _) => Some(
            time.parse::<Timestamp>()
                .map_err(|error| Refusal::bad_request(format!("sinceTime \"{time}\": {error}")))?
                .as_millisecond(),
        ),
    };
    Ok(LogRequest {
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        namespace: target.namespace.clone(),
        pod: target.name.clone(),
        container: container(pod, query.text("container"))?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: positive("tailLines")?,
        since_ms,
        limit_bytes: positive("limitBytes")?,
    })
}

/// The container that is meant (upstream: `registry/core/pod/strategy.go: validateContainer`).
pub fn container(pod: &Pod, asked: &str) -> Result<String, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let spec = pod.spec.clone().unwrap_or_default();
    let main: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    match (asked, main.as_slice()) {
        ("", [only]) => Ok((*only).to_owned()),
        ("", many) => {
            let init_list = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(Refusal::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{init_list}",
                many.join(" ")
            )))
        }
        (asked, _) if main.contains(&asked) || init.contains(&asked) => Ok(asked.to_owned()),
        (asked, _) => Err(Refusal::bad_request(format!("container {asked} is not valid for pod {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn waits_of(state: Value, last: Value) -> Option<String> {
        let status = json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                             "state": state, "lastState": last });
        let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [] }, "status": { "containerStatuses": [status] } });
        let Ok(api::Body::Pod(pod)) = Kind::Pod.decode(pod) else { panic!("a pod") };
        waits(&pod, "c")
    }

    #[test]
    fn why_there_is_no_log_yet() {
        let waiting = |reason: &str| waits_of(json!({ "waiting": { "reason": reason } }), json!({}));
        assert_eq!(waiting("ContainerCreating").as_deref(), Some("ContainerCreating"));
        assert_eq!(waiting("ErrImagePull").as_deref(), Some("image can't be pulled"));
        assert_eq!(waiting("ImagePullBackOff").as_deref(), Some("trying and failing to pull image"));
        assert_eq!(waiting("CreateContainerConfigError").as_deref(), Some("CreateContainerConfigError"));
        assert_eq!(waits_of(json!({ "running": {} }), json!({})), None);
        let before = json!({ "terminated": { "exitCode": 1 } });
        assert_eq!(
            waits_of(json!({ "waiting": { "reason": "CrashLoopBackOff" } }), before),
            None,
            "the last one has a log"
        );
    }
}
