//! The story: v1 is served, v2 rolls out, an image that does not exist gets stuck and is undone, v3 rolls out; all the
//! while requests keep coming and every bound is watched.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::board::Board;
use super::bounds::{Bounds, Extremes};
use super::traffic::{Tally, Traffic};
use super::{images, web};
use crate::node::{self, Node};
use agent::runtime::profile::Profile;

const NAMESPACE: &str = "default";
const NAME: &str = "web";
const REPLICAS: usize = 4;
const MAX_SURGE: usize = 1;
const MAX_UNAVAILABLE: usize = 1;
/// The revision annotation of Deployments and ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Longest time a step may take.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often the display looks.
const FRAME: Duration = Duration::from_millis(60);
/// Requests go on this long before and after the rollouts.
const CALM: Duration = Duration::from_millis(700);

/// A line of the closing table.
struct Chapter {
    title: String,
    took: Duration,
    extremes: Option<Extremes>,
}

/// Plays the whole story.
pub fn play(with_containers: bool, folder: &Path) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime does not start: {error}"))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = told(with_containers, folder) => outcome,
            interrupted = crate::serve::wait_for_signal() => {
                interrupted?;
                println!("\ninterrupted: the demo's cluster is gone");
                Ok(ExitCode::from(130))
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn told(with_containers: bool, folder: &Path) -> Result<ExitCode, String> {
    let started = Instant::now();
    let options = server::Options { data_dir: folder.to_owned(), listen: SocketAddr::from(([127, 0, 0, 1], 0)) };
    let server = server::Server::start(&options).await.map_err(|error| error.to_string())?;
    let client = Client::new(server.router.clone(), NAMESPACE);
    let node = if with_containers {
        let cgroups = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let node = Node::start(
            &node::Options {
                data_dir: folder.to_owned(),
                name: "demo".into(),
                cgroups,
                mirrors: Vec::new(),
                container_pids: None,
            },
            &server,
        )
        .await?;
        images::build(node.images(), &["v1", "v2", "v3"])?;
        Some(node)
    } else {
        node::start_simulated(client.clone(), 4, "simulated", simulation()?);
        None
    };
    println!("A throw-away cluster serves after {} ms: {}", started.elapsed().as_millis(), place(with_containers));
    let stage = Stage::open(client).await?;
    let chapters = stage.tell(with_containers).await;
    if let Some(node) = node {
        node.stop().await;
    }
    server.stop().await;
    let (chapters, tally) = chapters?;
    Ok(report(&chapters, tally.as_ref(), started.elapsed()))
}

/// Simulated pods take a moment, and one image is not to be had.
fn simulation() -> Result<Profile, String> {
    Profile::parse(
        "images: [{image: \"web:v9\", unpullable: true}, {image: \"*\", startTime: 200ms, timeToReady: 500ms}]",
    )
}

fn place(with_containers: bool) -> &'static str {
    if with_containers { "real containers, in namespaces of its own with no route out." } else { "simulated nodes." }
}

/// The cluster as the story uses it.
struct Stage {
    client: Client,
    deployments: Api<Deployment>,
    bounds: Bounds,
    target: SocketAddr,
}

impl Stage {
    /// Applies the Deployment and the Service.
    async fn open(client: Client) -> Result<Stage, String> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
        let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        let bounds = Bounds::watch(client.clone(), NAMESPACE, "app=web");
        deployments.create(&PostParams::default(), &deployment("web:v1")?).await.map_err(told_by_api)?;
        let service = services.create(&PostParams::default(), &service()?).await.map_err(told_by_api)?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        let address = address.parse().map_err(|_| format!("the service has no address: \"{address}\""))?;
        Ok(Stage { client, deployments, bounds, target: SocketAddr::new(address, 80) })
    }

    async fn tell(&self, with_containers: bool) -> Result<(Vec<Chapter>, Option<Tally>), String> {
        let mut chapters = Vec::new();
        println!("\n1. kapstan runs web:v1, {REPLICAS} replicas, at {}", self.target);
        chapters.push(self.wait_complete("start web:v1", None, Instant::now()).await?);
        chapters[0].extremes = None; // there is nothing to keep available before the first version is up
        let traffic = if with_containers {
            self.wait_served().await?;
            Some(Traffic::start(self.target))
        } else {
            None
        };
        tokio::time::sleep(CALM).await;

        println!(
            "\n2. a new version: web:v1 -> web:v2 (at most {MAX_SURGE} pod more, at most {MAX_UNAVAILABLE} unavailable)"
        );
        chapters.push(self.roll("v1 -> v2", "web:v2", traffic.as_ref()).await?);

        println!("\n3. a mistake: web:v2 -> web:v9, an image that does not exist");
        chapters.push(self.mistake(traffic.as_ref()).await?);

        println!("\n4. the next version: web:v2 -> web:v3");
        chapters.push(self.roll("v2 -> v3", "web:v3", traffic.as_ref()).await?);
        tokio::time::sleep(CALM).await;
        let tally = match traffic {
            Some(traffic) => Some(traffic.stop().await),
            None => None,
        };
        Ok((chapters, tally))
    }

    /// Until the first version is served: a Deployment is complete a moment before every proxy has heard of its pods, and until
    /// then the Service refuses.
    async fn wait_served(&self) -> Result<(), String> {
        let served = async {
            while TcpStream::connect(self.target).await.is_err() {
                tokio::time::sleep(FRAME).await;
            }
        };
        let refused = |_| format!("the Service at {} refuses after {PATIENCE:?}", self.target);
        tokio::time::timeout(PATIENCE, served).await.map_err(refused)
    }

    async fn roll(&self, title: &str, image: &str, traffic: Option<&Traffic>) -> Result<Chapter, String> {
        self.bounds.reset();
        let started = Instant::now();
        self.set_image(image).await?;
        self.wait_complete(title, traffic, started).await
    }

    /// A rollout that cannot succeed: shows why, and undoes it.
    async fn mistake(&self, traffic: Option<&Traffic>) -> Result<Chapter, String> {
        self.bounds.reset();
        let started = Instant::now();
        self.set_image("web:v9").await?;
        let mut board = Board::new(REPLICAS);
        let stuck = async {
            loop {
                let pods = self.bounds.pods();
                board.show(&pods, &tally(traffic));
                let reason = pods.iter().find_map(|pod| pod.waiting.clone().filter(|reason| reason.contains("Image")));
                if let Some(reason) = reason {
                    return reason;
                }
                tokio::time::sleep(FRAME).await;
            }
        };
        let reason = tokio::time::timeout(PATIENCE, stuck).await.map_err(|_| "web:v9 did not get stuck".to_owned())?;
        board.say(&format!("    stuck: {reason}. Why, in the controller's words:"));
        for sentence in self.why_about(&reason).await? {
            board.say(&format!("      - {sentence}"));
        }
        board.close();
        println!("    undo:");
        self.undo().await?;
        self.wait_complete("v2 -> v9, undone", traffic, started).await
    }

    async fn wait_complete(&self, title: &str, traffic: Option<&Traffic>, started: Instant) -> Result<Chapter, String> {
        let mut board = Board::new(REPLICAS);
        let complete = async {
            loop {
                board.show(&self.bounds.pods(), &tally(traffic));
                let deployment = self.deployments.get_status(NAME).await.map_err(told_by_api)?;
                if is_complete(&deployment) {
                    board.show(&self.bounds.pods(), &tally(traffic));
                    return Ok::<_, String>(());
                }
                tokio::time::sleep(FRAME).await;
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, complete).await;
        board.close();
        if outcome.is_err() {
            let why = self.why().await.unwrap_or_default().join("; ");
            return Err(format!("{title}: not complete after {PATIENCE:?}: {why}"));
        }
        outcome.unwrap_or(Ok(()))?;
        let took = started.elapsed();
        println!("    done in {:.1} s", took.as_secs_f32());
        Ok(Chapter { title: title.to_owned(), took, extremes: self.bounds.extremes() })
    }

    async fn set_image(&self, image: &str) -> Result<(), String> {
        let patch =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "web", "image": image }] } } } });
        let patched = self.deployments.patch(NAME, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(told_by_api)
    }

    /// What `kubectl rollout undo` does: the template of the revision before the last.
    async fn undo(&self) -> Result<(), String> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = sets.list(&ListParams::default().labels("app=web")).await.map_err(told_by_api)?;
        let mut by_revision: BTreeMap<u64, ReplicaSet> = BTreeMap::new();
        for set in all {
            let revision = set.metadata.annotations.as_ref().and_then(|all| all.get(REVISION)?.parse().ok());
            by_revision.insert(revision.unwrap_or(0), set);
        }
        let before = by_revision.into_values().rev().nth(1).and_then(|set| set.spec?.template);
        let mut template = before.ok_or("there is no revision to go back to")?;
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove("pod-template-hash");
        }
        let operations = json!([{ "op": "replace", "path": "/spec/template", "value": template }]);
        let request = hyper::Request::patch(format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"))
            .header(hyper::header::CONTENT_TYPE, "application/json-patch+json")
            .body(operations.to_string().into_bytes())
            .map_err(|error| error.to_string())?;
        self.client.request::<Value>(request).await.map(drop).map_err(told_by_api)
    }

    /// The reasons, as soon as they name `reason`: the controller hears of it a moment after the pod's status shows it.
    async fn why_about(&self, reason: &str) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + CALM;
        loop {
            let sentences = self.why().await?;
            if sentences.iter().any(|sentence| sentence.contains(reason)) || deadline <= Instant::now() {
                return Ok(sentences);
            }
            tokio::time::sleep(FRAME).await;
        }
    }

    async fn why(&self) -> Result<Vec<String>, String> {
        let path = format!("/kapstan/v1/why/deployments/{NAMESPACE}/{NAME}");
        let request = hyper::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let answer: Value = self.client.request(request).await.map_err(told_by_api)?;
        let sentences = answer["why"].as_array().cloned().unwrap_or_default();
        Ok(sentences.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

fn tally(traffic: Option<&Traffic>) -> Tally {
    traffic.map(Traffic::tally).unwrap_or_default()
}

fn deployment(image: &str) -> Result<Deployment, String> {
    let probe = json!({ "httpGet": { "path": "/", "port": web::PORT }, "periodSeconds": 1 });
    let value = json!({
        "metadata": { "name": NAME, "labels": { "app": "web" } },
        "spec": {
            "replicas": REPLICAS,
            "strategy": { "rollingUpdate": { "maxSurge": MAX_SURGE, "maxUnavailable": MAX_UNAVAILABLE } },
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{
                    "name": "web", "image": image, "imagePullPolicy": "IfNotPresent",
                    "ports": [{ "containerPort": web::PORT }], "readinessProbe": probe,
                }] },
            },
        },
    });
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn service() -> Result<Service, String> {
    let value = json!({
        "metadata": { "name": NAME },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": web::PORT }] },
    });
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn is_complete(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = REPLICAS as i32;
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == Some(wanted)
        && status.replicas == Some(wanted)
        && status.available_replicas == Some(wanted)
}

fn told_by_api(error: kube::Error) -> String {
    error.to_string()
}

/// Prints the table; the exit code says whether every promise was kept.
fn report(chapters: &[Chapter], tally: Option<&Tally>, took: Duration) -> ExitCode {
    let (least, most) = (REPLICAS - MAX_UNAVAILABLE, REPLICAS + MAX_SURGE);
    println!("\n  rollout             time   available pods (allowed)   most pods (allowed)");
    let mut kept = true;
    for chapter in chapters {
        let time = format!("{:.1} s", chapter.took.as_secs_f32());
        match &chapter.extremes {
            Some(seen) => {
                kept &= seen.fewest_available >= least && seen.most_pods <= most;
                let available = format!("{} to {} (at least {least})", seen.fewest_available, seen.most_available);
                println!("  {:<18} {time:>6}   {available:<24}   {} (at most {most})", chapter.title, seen.most_pods);
            }
            None => println!("  {:<18} {time:>6}", chapter.title),
        }
    }
    if let Some(tally) = tally {
        let versions: Vec<String> =
            tally.versions.iter().map(|(version, count)| format!("{version} {count}")).collect();
        println!("\n  requests sent {}, failed {}; answered by {}", tally.sent, tally.failed, versions.join(", "));
        println!("  slowest answer {} ms", tally.slowest.as_millis());
        for failure in &tally.failures {
            println!("    failed: {failure}");
        }
        kept &= tally.failed == 0 && tally.sent > 0;
    }
    println!("  the whole demo took {:.1} s", took.as_secs_f32());
    println!("\n{}", if kept { "Every promise was kept." } else { "A promise was broken: see above." });
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
