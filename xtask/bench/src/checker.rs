//! Watches the pods of a Deployment as any client can, and checks after every event what a rolling update promises:
//! no more pods than `replicas + maxSurge`, no fewer available than `replicas - maxUnavailable`.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinHandle;

use crate::client::{Access, Client};
use crate::process::Conditions;

/// Pods of one namespace that carry a label.
pub const PODS: &str = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb";
/// How long the server may be away before the watch gives up.
const ATTEMPTS: usize = 2_000;

/// What the watcher has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Pods that are there, those that are going included.
    pub pods: usize,
    /// Pods that are not being deleted.
    pub active: usize,
    /// Those of them that are ready.
    pub available: usize,
    /// Most active pods since the bounds were set.
    pub most_active: usize,
    /// Fewest available pods since then.
    pub least_available: usize,
    /// Events since then.
    pub events: usize,
    /// The first event that broke a bound.
    pub broken: Option<String>,
    bounds: Option<(usize, usize)>,
    lost: Option<String>,
}

/// The watcher; ends with this value.
pub struct Checker {
    seen: Sender<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    /// Begins to watch.
    pub fn start(access: Access) -> Checker {
        let seen = Sender::new(Seen::default());
        let tell = seen.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = follow(&access, &tell).await {
                tell.send_modify(|seen| seen.lost = Some(error));
            }
        });
        Checker { seen, task }
    }

    /// From now on there must be at most `most` active pods and at least `least` available ones.
    pub fn set_bounds(&self, most: usize, least: usize) {
        self.seen.send_modify(|seen| {
            seen.bounds = Some((most, least));
            (seen.most_active, seen.least_available, seen.events) = (seen.active, seen.available, 0);
        });
    }

    /// Waits until what was seen is as wanted.
    pub async fn wait(&self, wanted: impl FnMut(&Seen) -> bool, within: Duration) -> Result<Seen, String> {
        let mut seen = self.follow();
        let mut wanted = wanted;
        let reached = seen.wait_for(|seen| seen.lost.is_some() || wanted(seen));
        let seen = match tokio::time::timeout(within, reached).await {
            Ok(Ok(seen)) => seen.clone(),
            _ => return Err(format!("not there within {within:?}: {:?}", *self.seen.borrow())),
        };
        seen.lost.clone().map_or(Ok(seen), Err)
    }

    /// What was seen, or how a bound was broken.
    pub fn verdict(&self) -> Result<Seen, String> {
        let seen = self.seen.borrow().clone();
        seen.broken.clone().map_or(Ok(seen), Err)
    }

    fn follow(&self) -> Receiver<Seen> {
        self.seen.subscribe()
    }
}

#[derive(Deserialize)]
struct Pods {
    metadata: ListMeta,
    items: Vec<Pod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    status: Conditions,
    /// Of the `Status` of an ERROR.
    #[serde(default)]
    code: u16,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    deletion_timestamp: Option<String>,
}

/// (not being deleted, available)
type State = (bool, bool);

fn state(pod: &Pod) -> State {
    let active = pod.metadata.deletion_timestamp.is_none();
    (active, active && pod.status.is_ready())
}

/// Lists once, then watches; goes on where it was when the connection ends.
async fn follow(access: &Access, seen: &Sender<Seen>) -> Result<(), String> {
    let mut client = access.connect().await?;
    let mut pods = HashMap::new();
    let mut revision = String::new();
    let mut attempts = 0;
    loop {
        let round = round(&client, &mut pods, &mut revision, seen).await;
        attempts = if round.is_ok() { 0 } else { attempts + 1 };
        if attempts > ATTEMPTS {
            return round;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Ok(again) = access.connect().await {
            client = again;
        }
    }
}

async fn round(
    client: &Client,
    pods: &mut HashMap<String, State>,
    revision: &mut String,
    seen: &Sender<Seen>,
) -> Result<(), String> {
    if revision.is_empty() {
        let list: Pods = client.get(PODS).await?;
        *pods = list.items.iter().map(|pod| (pod.metadata.uid.clone(), state(pod))).collect();
        *revision = list.metadata.resource_version;
        seen.send_modify(|seen| recount(seen, pods));
    }
    let mut watch = client.watch(&format!("{PODS}&watch=true&resourceVersion={revision}")).await?;
    while let Some(event) = watch.next::<Pod>().await {
        let event = event?;
        if event.kind == "ERROR" {
            if event.object.code == 410 {
                revision.clear();
            }
            return Err(format!("the watch of the pods ended with {}", event.object.code));
        }
        let Pod { metadata, .. } = &event.object;
        revision.clone_from(&metadata.resource_version);
        let after = (event.kind != "DELETED").then(|| state(&event.object));
        let before = match after {
            Some(state) => pods.insert(metadata.uid.clone(), state),
            None => pods.remove(&metadata.uid),
        };
        seen.send_modify(|seen| count(seen, before, after, revision));
    }
    Ok(())
}

fn recount(seen: &mut Seen, pods: &HashMap<String, State>) {
    seen.pods = pods.len();
    seen.active = pods.values().filter(|(active, _)| *active).count();
    seen.available = pods.values().filter(|(_, available)| *available).count();
}

fn count(seen: &mut Seen, before: Option<State>, after: Option<State>, revision: &str) {
    let change = |number: usize, part: fn(State) -> bool| {
        number + usize::from(after.is_some_and(part)) - usize::from(before.is_some_and(part))
    };
    seen.pods = change(seen.pods, |_| true);
    seen.active = change(seen.active, |(active, _)| active);
    seen.available = change(seen.available, |(_, available)| available);
    seen.events += 1;
    seen.most_active = seen.most_active.max(seen.active);
    seen.least_available = seen.least_available.min(seen.available);
    let Some((most, least)) = seen.bounds else { return };
    if (seen.active > most || seen.available < least) && seen.broken.is_none() {
        seen.broken = Some(format!(
            "at revision {revision} there were {} pods (at most {most}) and {} available (at least {least})",
            seen.active, seen.available
        ));
    }
}
