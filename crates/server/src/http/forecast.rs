//! `POST /kapstan/v1/plan/KIND/NAMESPACE/NAME` with a workload as its body: what would happen if it were written. Behind `rollout plan`.

use api::schema::Mode;
use api::{Key, Kind, Refusal, limits};
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use tokio::sync::Semaphore;

use super::{Gate, reply, write};
use crate::authorize::{Attributes, User, authorize};
use crate::decode;
use crate::forecast::forecast;
use crate::writer::clock;

/// Forecasts at once; others wait.
static ROOM: Semaphore = Semaphore::const_new(limits::FORECASTS);

/// Answers with the course of the rollout. Who asks needs the right to make the change, as for a dry run.
pub async fn answer(
    gate: &Gate,
    user: &User,
    kind: Kind,
    namespace: &str,
    name: &str,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    if !matches!(kind, Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet) {
        return Err(Refusal::bad_request(format!("{kind} has no rollouts")));
    }
    let world = gate.snapshot();
    let verb = if world.at(&Key::new(kind, namespace, name)).is_some() { "update" } else { "create" };
    authorize(&world, user, &Attributes { verb, info: kind.info(), subresource: "", namespace, name })?;
    let body = write::read_body(request.into_body()).await?;
    let mut wanted = decode::object(kind, &body, Mode::Strict)?.body;
    let meta = wanted.meta_mut();
    meta.namespace = Some(namespace.to_owned());
    meta.name = Some(name.to_owned());
    let _place = ROOM.acquire().await.map_err(Refusal::internal)?;
    let told =
        tokio::task::spawn_blocking(move || forecast(&world, wanted, clock())).await.map_err(Refusal::internal)??;
    let told = serde_json::to_value(told).map_err(Refusal::internal)?;
    Ok(reply::json(&told))
}
