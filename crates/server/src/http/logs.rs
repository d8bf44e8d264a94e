//! `GET pods/NAME/log`: checked here, read by the node that runs the pod.

use api::{Kind, Pod, Refusal};
use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::query::Query;
use super::route::Target;
use super::{Gate, reply};
use crate::nodes::{LogRequest, NodeRequest};

/// Streams a container's log.
pub async fn stream(gate: &Gate, target: &Target, query: &Query) -> Result<Response, Refusal> {
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
    let mailbox = gate.nodes.find(&node).ok_or_else(unreachable)?;
    let (reply, answer) = oneshot::channel();
    mailbox.send(NodeRequest::Logs(request, reply)).await.map_err(|_| unreachable())?;
    let lines = answer
        .await
        .map_err(|_| unreachable())?
        .map_err(|why| Refusal::bad_request(format!("container \"{container}\" in pod \"{}\" {why}", target.name)))?;
    let stream = tokio_stream(lines).map(Ok::<_, std::convert::Infallible>);
    Ok(reply::with_type(StatusCode::OK, HeaderValue::from_static("text/plain"), Body::from_stream(stream)))
}

fn tokio_stream(mut lines: tokio::sync::mpsc::Receiver<bytes::Bytes>) -> impl futures::Stream<Item = bytes::Bytes> {
    futures::stream::poll_fn(move |context| lines.poll_recv(context))
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
