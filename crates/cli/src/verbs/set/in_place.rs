//! `set image --in-place`: the running pods of a Deployment get an image, one after the other. Ours.
//!
//! A pod keeps its node, its address and its volumes; its container is started anew. The Deployment itself is not touched, so that
//! its controllers have nothing to replace: pods that are made later have its image. Works on any cluster: a pod's image may be
//! changed by the API, and the node's agent does the rest. What is picked and what is seen is decided by pure functions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fits;
use crate::change::{DryRun, JSON_PATCH};
use crate::client::Client;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Found};
use crate::session::Session;
use crate::verbs::rollout::{live, revisions};

/// Between two looks at a pod.
const LOOK: Duration = Duration::from_millis(200);
/// A Deployment without a progress deadline waits so long for one pod.
const USUAL_DEADLINE: i64 = 600;
/// Reasons with which a container waits that do not pass by themselves, or not soon.
const FAILURES: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ImageInspectError",
];

/// One run of it.
struct Upgrade<'a> {
    client: Client,
    deployment: &'a Found,
    images: &'a [(String, String)],
    limit: Duration,
}

/// Gives the images to pods of a Deployment.
pub async fn run(
    session: &mut Session,
    found: &[Found],
    images: &[(String, String)],
    replicas: Option<usize>,
    timeout: Option<Duration>,
    dry_run: DryRun,
) -> Result<()> {
    let [deployment] = found else {
        return Err(Error::told("--in-place takes one deployment"));
    };
    if deployment.resource.kind != "Deployment" {
        let error = Error::told(format!("--in-place takes a deployment, not {}", deployment.printed()));
        return Err(error.hinted("the image of a single pod is changed by `set image pod/NAME CONTAINER=IMAGE`"));
    }
    let most = most_unavailable(&deployment.object)?;
    let limit = timeout.unwrap_or_else(|| deadline(&deployment.object));
    let upgrade = Upgrade { client: session.client()?, deployment, images, limit };
    let pods = upgrade.pods().await?;
    let chosen = choose(&pods, images, replicas.unwrap_or(usize::MAX));
    if let Some(name) = images.iter().map(|(name, _)| name).find(|name| !pods.is_empty() && !has_container(&pods, name))
    {
        return Err(Error::told(format!("unable to find container named {name:?}")));
    }
    let count = chosen.len();
    for (index, pod) in chosen.iter().enumerate() {
        let name = pod.text("metadata.name");
        let from_to = describe(pod, images);
        if dry_run != DryRun::No {
            if dry_run == DryRun::Server {
                upgrade.ask(name, dry_run).await?;
            }
            session.say(format!("pod/{name} image updated in place: {from_to}{}", dry_run.suffix()))?;
            continue;
        }
        session.say(format!("[{}/{count}] pod/{name}: {from_to}", index + 1))?;
        let outcome = tokio::select! {
            outcome = upgrade.one(name, most) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Error::told(format!("interrupted while pod/{name} is upgraded"))),
        };
        outcome.map_err(|error| stopped(error, session, deployment, pod, (index, count)))?;
        session.say(format!("[{}/{count}] pod/{name} is ready", index + 1))?;
    }
    if count == 0 {
        return session.say(unchanged(&deployment.printed(), &pods, images));
    }
    if dry_run != DryRun::No {
        return Ok(());
    }
    session.say(format!("{} image updated in place ({count} of {} pods)", deployment.printed(), pods.len()))?;
    remind(session, deployment, images)
}

/// Says that new pods will have the Deployment's image, if that is another one.
fn remind(session: &mut Session, deployment: &Found, images: &[(String, String)]) -> Result<()> {
    let template = deployment.object.at("spec.template");
    let differs = |container: &Value| wanted(container, images).is_some_and(|image| image != container.text("image"));
    if !template.list("spec.containers").iter().any(differs) {
        return Ok(());
    }
    let own = revisions::images(template);
    session.warn(format!(
        "hint: the Deployment itself is unchanged: pods that it makes later run {own}; `{} set image {} {}` changes that",
        session.program,
        deployment.printed().replace(".apps/", "/"),
        pairs(images),
    ))
}

impl Upgrade<'_> {
    /// The pods of the Deployment's ReplicaSets, the ones that are leaving excepted.
    async fn pods(&self) -> Result<Vec<Value>> {
        let selector = revisions::selector(self.deployment.object.at("spec.selector"));
        let sets = revisions::controlled(&self.client, "replicasets.apps", self.deployment, &selector).await?;
        let pods = self.client.discovery().await?.resource("pods")?.clone();
        let namespace = self.deployment.namespace.as_deref();
        let mut list = self.client.list(&pods, namespace, &[("labelSelector", selector)]).await?;
        let mut pods = objects::items(&mut list);
        pods.retain(|pod| {
            let owned = sets.iter().any(|set| revisions::is_controlled_by(pod, set.text("metadata.uid")));
            owned && !pod.has("metadata.deletionTimestamp")
        });
        Ok(pods)
    }

    /// Sends the change of a pod that is only to be tried.
    async fn ask(&self, name: &str, dry_run: DryRun) -> Result<Value> {
        let pods = self.client.discovery().await?.resource("pods")?.clone();
        let path = pods.path(self.deployment.namespace.as_deref(), Some(name));
        let pod = self.client.get(&path, &[]).await?;
        let query = dry_run.query("kubectl-set");
        self.client.patch(&path, &query, JSON_PATCH, &patch(&pod, self.images)).await
    }

    /// Upgrades a pod and waits until it runs the images and is ready.
    async fn one(&self, name: &str, most: i64) -> Result<()> {
        let until = Instant::now() + self.limit;
        self.room(name, most, until).await?;
        let pods = self.client.discovery().await?.resource("pods")?.clone();
        let path = pods.path(self.deployment.namespace.as_deref(), Some(name));
        let before = self.client.get(&path, &[]).await?;
        let told = self.events(&before).await?;
        let query = DryRun::No.query("kubectl-set");
        let patch = patch(&before, self.images);
        // A pod that a stopped run has changed already is only waited for.
        let changed = match patch.as_array().is_none_or(Vec::is_empty) {
            true => before.clone(),
            false => self.client.patch(&path, &query, JSON_PATCH, &patch).await?,
        };
        let generation = changed.number("metadata.generation");
        loop {
            let pod = self.client.get(&path, &[]).await?;
            let failure = self.failure(&pod, &told).await?;
            match progress(&pod, &before, generation, self.images) {
                Progress::Ready => return Ok(()),
                Progress::Going(_) if failure.is_some() => {
                    return Err(Error::told(format!("pod/{name}: {}", failure.unwrap_or_default())));
                }
                Progress::Failed(why) => return Err(Error::told(format!("pod/{name}: {why}"))),
                Progress::Going(state) if until <= Instant::now() => {
                    return Err(Error::told(format!("pod/{name} is not ready in time: {state}")));
                }
                Progress::Going(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What was told of a pod.
    async fn events(&self, pod: &Value) -> Result<Vec<Value>> {
        let events = self.client.discovery().await?.resource("events")?.clone();
        let about = format!("involvedObject.name={}", pod.text("metadata.name"));
        let mut list =
            self.client.list(&events, self.deployment.namespace.as_deref(), &[("fieldSelector", about)]).await?;
        Ok(objects::items(&mut list))
    }

    /// A failure to get an image that was told of since `before`. Some agents pull before they stop the old container, so that
    /// its status stays as it was.
    async fn failure(&self, pod: &Value, before: &[Value]) -> Result<Option<String>> {
        let known = |event: &Value| {
            before.iter().any(|old| {
                old.text("metadata.uid") == event.text("metadata.uid") && old.number("count") == event.number("count")
            })
        };
        let images: Vec<&str> = self.images.iter().map(|(_, image)| image.as_str()).collect();
        let events = self.events(pod).await?;
        let failed = events.iter().find(|event| {
            let message = event.text("message");
            let is_about = images.iter().any(|image| message.contains(image));
            matches!(event.text("reason"), "Failed" | "InspectFailed" | "ErrImageNeverPull")
                && is_about
                && !known(event)
        });
        Ok(failed.map(|event| event.text("message").to_owned()))
    }

    /// Waits until one more pod may be unavailable; a pod that already is costs nothing.
    async fn room(&self, name: &str, most: i64, until: Instant) -> Result<()> {
        loop {
            let deployment = self.client.get(&self.deployment.path(), &[]).await?;
            let pods = self.pods().await?;
            let itself_down = pods.iter().any(|pod| pod.text("metadata.name") == name && !live::is_ready(pod));
            let ready = pods.iter().filter(|pod| live::is_ready(pod)).count();
            let missing = deployment.number("spec.replicas") - i64::try_from(ready).unwrap_or(i64::MAX);
            if missing < most || itself_down {
                return Ok(());
            }
            if until <= Instant::now() {
                return Err(Error::told(format!("{missing} pods are not ready already, and maxUnavailable is {most}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How far the upgrade of a pod is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Going(String),
    Ready,
    Failed(String),
}

fn progress(pod: &Value, before: &Value, generation: i64, images: &[(String, String)]) -> Progress {
    if pod.has("metadata.deletionTimestamp") || pod.text("metadata.uid") != before.text("metadata.uid") {
        return Progress::Failed("it is deleted".into());
    }
    let mut all_run = true;
    for container in pod.list("spec.containers") {
        let name = container.text("name");
        let Some(image) = wanted(container, images) else { continue };
        if container.text("image") != image {
            return Progress::Failed(format!("somebody else has set {name} to {}", container.text("image")));
        }
        let status = status_of(pod, name);
        let reason = status.text("state.waiting.reason");
        if FAILURES.contains(&reason) {
            return Progress::Failed(format!(
                "{name} does not run {image}: {reason}: {}",
                status.text("state.waiting.message")
            ));
        }
        let old = status_of(before, name);
        let is_the_one = status.text("containerID") != old.text("containerID") || runs(old, image);
        all_run &= is_the_one && status.has("state.running") && status.flag("ready");
    }
    // Where the agent says which version of the pod it knows, it has to know this one.
    let observed = pod.number("status.observedGeneration");
    match all_run && live::is_ready(pod) && (observed == 0 || generation <= observed) {
        true => Progress::Ready,
        false => Progress::Going(live::state(pod)),
    }
}

static NONE: Value = Value::Null;

fn status_of<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod.list("status.containerStatuses").iter().find(|status| status.text("name") == name).unwrap_or(&NONE)
}

/// Whether a container runs an image, as its status says: registries and default tags may be spelled out there, or be a digest.
fn runs(status: &Value, image: &str) -> bool {
    let shown = status.text("image");
    let tagged = format!("{image}:latest");
    let same = |wanted: &str| shown == wanted || shown.strip_suffix(wanted).is_some_and(|front| front.ends_with('/'));
    same(image) || same(&tagged) || shown.starts_with("sha256:")
}

/// The image that a container is to have.
fn wanted<'a>(container: &Value, images: &'a [(String, String)]) -> Option<&'a str> {
    let named = images.iter().find(|(name, _)| fits(container.text("name"), name));
    named.map(|(_, image)| image.as_str())
}

fn has_container(pods: &[Value], name: &str) -> bool {
    pods.iter().flat_map(|pod| pod.list("spec.containers")).any(|container| fits(container.text("name"), name))
}

fn is_done(pod: &Value, images: &[(String, String)]) -> bool {
    let has = |container: &Value| {
        let status = status_of(pod, container.text("name"));
        wanted(container, images).is_none_or(|image| image == container.text("image") && runs(status, image))
    };
    pod.list("spec.containers").iter().all(has) && live::is_ready(pod)
}

/// What is said when no pod is upgraded.
fn unchanged(name: &str, pods: &[Value], images: &[(String, String)]) -> String {
    let done = pods.iter().filter(|pod| is_done(pod, images)).count();
    match done == pods.len() {
        true => format!("{name} needs no change: its pods have the image"),
        false => format!("{name} is unchanged: {done} of {} pods have the image, no more are asked for", pods.len()),
    }
}

/// The pods to upgrade: those that need it, unready ones first, so that they cost nothing. `count` is how many shall have the image.
fn choose(pods: &[Value], images: &[(String, String)], count: usize) -> Vec<Value> {
    let done = pods.iter().filter(|pod| is_done(pod, images)).count();
    let mut chosen: Vec<Value> = pods.iter().filter(|pod| !is_done(pod, images)).cloned().collect();
    chosen.sort_by_key(|pod| (live::is_ready(pod), pod.text("metadata.name").to_owned()));
    chosen.truncate(count.saturating_sub(done));
    chosen
}

/// A JSON patch as the seed's program sends it: only images.
fn patch(pod: &Value, images: &[(String, String)]) -> Value {
    let containers = pod.list("spec.containers").iter().enumerate();
    let operations = containers.filter_map(|(index, container)| {
        let image = wanted(container, images).filter(|image| *image != container.text("image"))?;
        Some(json!({"op": "replace", "path": format!("/spec/containers/{index}/image"), "value": image}))
    });
    Value::Array(operations.collect())
}

fn describe(pod: &Value, images: &[(String, String)]) -> String {
    let changes = pod.list("spec.containers").iter().filter_map(|container| {
        let image = wanted(container, images)?;
        Some(format!("{} {} -> {image}", container.text("name"), container.text("image")))
    });
    changes.collect::<Vec<_>>().join(", ")
}

fn pairs(images: &[(String, String)]) -> String {
    images.iter().map(|(name, image)| format!("{name}={image}")).collect::<Vec<_>>().join(" ")
}

/// Adds to a failure how to go on and how to go back.
fn stopped(error: Error, session: &Session, deployment: &Found, pod: &Value, (done, count): (usize, usize)) -> Error {
    let command = format!("{} set image deployment/{}", session.program, deployment.name);
    let old: Vec<String> = pod
        .list("spec.containers")
        .iter()
        .map(|container| format!("{}={}", container.text("name"), container.text("image")))
        .collect();
    error
        .hinted(format!("stopped after {done} of {count} pods; the others are as they were"))
        .hinted(format!("to go on, give the same command again; to go back: {command} {} --in-place", old.join(" ")))
}

/// How many pods may be unavailable at once. Mirrors deployment/util `ResolveFenceposts`, without a surge: there is none in place.
fn most_unavailable(deployment: &Value) -> Result<i64> {
    let replicas = deployment.number("spec.replicas");
    let value = deployment.at("spec.strategy.rollingUpdate.maxUnavailable");
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    match (value.as_i64(), percent) {
        (Some(0), _) | (_, Some(0)) => {
            let error = Error::told(format!(
                "maxUnavailable of deployment {} is 0, and a pod is unavailable while it changes in place",
                deployment.text("metadata.name")
            ));
            Err(error.hinted("allow one with `patch deployment … maxUnavailable: 1`, or roll out without --in-place"))
        }
        (Some(count), _) => Ok(count),
        // Rounded down as everywhere, but a share that rounds to nothing is one: or nothing could ever change.
        (None, Some(percent)) => Ok((replicas * percent / 100).max(1)),
        (None, None) => Ok(1),
    }
}

fn deadline(deployment: &Value) -> Duration {
    let seconds = match deployment.number("spec.progressDeadlineSeconds") {
        0 => USUAL_DEADLINE,
        seconds => seconds,
    };
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<(String, String)> {
        vec![("nginx".into(), "nginx:2".into())]
    }

    fn pod(name: &str, image: &str, ready: bool, id: &str) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"containers": [{"name": "side", "image": "side:1"}, {"name": "nginx", "image": image}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}],
                "containerStatuses": [{"name": "nginx", "image": format!("docker.io/library/{image}"), "containerID": id, "ready": ready, "state": {"running": {}}}]},
        })
    }

    #[test]
    fn chooses_who_needs_it() {
        let pods = [
            pod("a", "nginx:1", true, "1"),
            pod("b", "nginx:2", true, "2"),
            pod("c", "nginx:1", false, "3"),
            pod("d", "nginx:2", false, "4"),
        ];
        let names = |count| {
            let chosen = choose(&pods, &images(), count);
            chosen.iter().map(|pod| pod.text("metadata.name").to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(usize::MAX), "c d a");
        assert_eq!(names(2), "c");
        assert_eq!(names(1), "");
        assert_eq!(
            patch(&pods[0], &images()).to_string(),
            r#"[{"op":"replace","path":"/spec/containers/1/image","value":"nginx:2"}]"#
        );
    }

    #[test]
    fn ready_only_with_a_new_container() {
        let before = pod("a", "nginx:1", true, "1");
        let going = |pod: &Value| progress(pod, &before, 2, &images());
        assert!(matches!(going(&pod("a", "nginx:2", true, "1")), Progress::Going(_)));
        assert!(matches!(going(&pod("a", "nginx:2", false, "2")), Progress::Going(_)));
        assert_eq!(going(&pod("a", "nginx:2", true, "2")), Progress::Ready);
        // Back to what still runs, since the image in between never came: nothing has to be started anew.
        let mut between = pod("a", "nginx:9", true, "1");
        between["status"]["containerStatuses"][0]["image"] = "nginx:2".into();
        assert!(!is_done(&between, &[("nginx".into(), "nginx:9".into())]));
        assert_eq!(progress(&pod("a", "nginx:2", true, "1"), &between, 3, &images()), Progress::Ready);
        let mut failed = pod("a", "nginx:2", false, "1");
        failed["status"]["containerStatuses"][0]["state"] =
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        assert_eq!(
            going(&failed),
            Progress::Failed("nginx does not run nginx:2: ImagePullBackOff: no such image".into())
        );
    }

    #[test]
    fn how_many_at_once() {
        let deployment = |value: Value| {
            most_unavailable(
                &json!({"metadata": {"name": "web"}, "spec": {"replicas": 5, "strategy": {"rollingUpdate": {"maxUnavailable": value}}}}),
            )
        };
        assert_eq!(deployment(json!(2)).unwrap(), 2);
        assert_eq!(deployment(json!("50%")).unwrap(), 2);
        assert_eq!(deployment(json!("10%")).unwrap(), 1);
        assert!(deployment(json!(0)).unwrap_err().message().contains("maxUnavailable of deployment web is 0"));
    }
}
