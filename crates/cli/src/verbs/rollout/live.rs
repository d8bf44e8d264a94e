//! The live view of a rollout: a bar for each revision, the pods that move, what it waits for, and the time it has left.
//!
//! [`frame`] is pure: what is seen in, lines out. It only looks: leaving it changes nothing. No colours are used, so NO_COLOR has
//! nothing to switch off.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;

use super::revisions::{self, Revision};
use super::words;
use crate::client::Client;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::Found;
use crate::session::Session;
use crate::time;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Cells of a bar.
const BAR: usize = 24;
/// A bar with fewer cells says nothing.
const SHORTEST_BAR: usize = 4;
/// Most pods that are shown by name, and most reasons.
const MOST_PODS: usize = 8;
const MOST_REASONS: usize = 4;
/// Width of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;

/// Everything that a frame shows.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The Deployment, DaemonSet or StatefulSet.
    pub workload: Value,
    /// Its revisions, the oldest first.
    pub revisions: Vec<Revision>,
    /// Its pods.
    pub pods: Vec<Value>,
    /// What it waits for.
    pub why: Vec<String>,
}

/// Whether the terminal can go back to draw over what it shows: one that cannot is given plain lines.
pub fn can_draw(environment: &BTreeMap<String, String>) -> bool {
    environment.get("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

/// Shows a rollout until it is over.
pub async fn follow(session: &mut Session, item: &Found, revision: i64) -> Result<()> {
    let client = session.client()?;
    let terminal = console::Term::stdout();
    // The last picture stays, also when the time is over or the user leaves: it is what was watched.
    let screen = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout()).with_finish(ProgressFinish::Abandon);
    screen.set_style(ProgressStyle::with_template("{msg}").expect("a message is a template"));
    let mut picture = Vec::new();
    let outcome = loop {
        let scene = match look(&client, item).await {
            Ok(scene) => scene,
            // Its last picture stays until the server is back.
            Err(error) if error.is_away() && !picture.is_empty() => {
                screen.set_message(format!("{}\n  the server does not answer; trying again", picture.join("\n")));
                screen.tick();
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) if error.is_not_found() => break Err(Error::told("object has been deleted")),
            Err(error) => break Err(error),
        };
        let size = terminal.size_checked().map(|(rows, columns)| (usize::from(columns), usize::from(rows)));
        let (width, height) = size.unwrap_or((USUAL_WIDTH, usize::MAX));
        picture = frame(&scene, Timestamp::now(), width, height);
        screen.set_message(picture.join("\n"));
        screen.tick();
        match words::status(&scene.workload, revision) {
            Ok(told) if told.is_done() => break Ok(told),
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(error) => break Err(error),
        }
    };
    screen.abandon();
    session.say(outcome?.line())
}

async fn look(client: &Client, item: &Found) -> Result<Scene> {
    let workload = client.get(&item.path(), &[]).await?;
    let item = Found { object: workload, ..item.clone() };
    let selector = revisions::selector(item.object.at("spec.selector"));
    let revisions = revisions::of(client, &item).await?;
    let pods_path = client.discovery().await?.resource("pods")?.clone();
    let mut list = client.list(&pods_path, item.namespace.as_deref(), &[("labelSelector", selector)]).await?;
    let owners: Vec<&str> = std::iter::once(&item.object)
        .chain(revisions.iter().map(|revision| &revision.object))
        .map(|owner| owner.text("metadata.uid"))
        .collect();
    let mut pods = crate::objects::items(&mut list);
    pods.retain(|pod| owners.iter().any(|uid| revisions::is_controlled_by(pod, uid)));
    // Other clusters do not say; the view is complete without.
    let why = super::reasons(client, &item).await.unwrap_or_default();
    Ok(Scene { workload: item.object, revisions, pods, why })
}

/// How the pods of a revision are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    ready: usize,
    starting: usize,
    terminating: usize,
}

/// The lines of one picture, which fit the terminal: what is told first and last stays, then bars and reasons, then pods.
pub fn frame(scene: &Scene, now: Timestamp, width: usize, height: usize) -> Vec<String> {
    let mut lines = match words::status(&scene.workload, 0) {
        Ok(told) => vec![told.line().to_owned()],
        Err(error) => vec![error.inner_message()],
    };
    let clock = clock(&scene.workload, now);
    // The cursor stands on a line of its own.
    let mut room = height.saturating_sub(lines.len() + usize::from(clock.is_some()) + 1);
    let mut take = |mut some: Vec<String>| {
        some.truncate(room);
        room -= some.len();
        some
    };
    let bars = take(bars(scene, width));
    let why = scene.why.iter().take(MOST_REASONS).flat_map(|reason| wrapped(&format!("  why: {reason}"), width));
    let why = take(why.collect());
    lines.extend(bars);
    lines.extend(take(moving(scene)));
    lines.extend(why);
    lines.extend(clock);
    lines.into_iter().map(|line| cut(&line, width)).collect()
}

/// A line in pieces that are not too wide, the later ones indented.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "       ";
    let mut lines = Vec::new();
    let mut here = line.chars().take_while(|letter| *letter == ' ').collect::<String>();
    let mut is_empty = true;
    for word in line.split_whitespace() {
        if !is_empty && width < here.chars().count() + 1 + word.chars().count() {
            lines.push(std::mem::replace(&mut here, INDENT.to_owned()));
            is_empty = true;
        }
        here += if is_empty { "" } else { " " };
        here += word;
        is_empty = false;
    }
    lines.push(here);
    lines
}

fn bars(scene: &Scene, width: usize) -> Vec<String> {
    let counts = counts(scene);
    let most = counts.values().map(|count| count.ready + count.starting + count.terminating).max().unwrap_or(0);
    let wanted = scene.workload.number("spec.replicas").max(scene.workload.number("status.desiredNumberScheduled"));
    let whole = most.max(usize::try_from(wanted).unwrap_or(0)).max(1);
    let shown: Vec<(&Revision, Count)> = scene
        .revisions
        .iter()
        .enumerate()
        .filter_map(|(index, revision)| {
            let count = counts.get(revision_key(revision)).copied();
            let is_newest = index + 1 == scene.revisions.len();
            (count.is_some() || is_newest).then(|| (revision, count.unwrap_or_default()))
        })
        .collect();
    let image = |revision: &Revision| revisions::images(&revision.template);
    let widest = shown.iter().map(|(revision, _)| image(revision).chars().count()).max().unwrap_or(0);
    let start = |revision: &Revision| format!("  revision {}  {:<widest$}", revision.number, image(revision));
    let fits = |(revision, count): &(&Revision, Count)| {
        start(revision).chars().count() + BAR + tally(*count).chars().count() + 4 <= width
    };
    if !shown.iter().all(fits) {
        return narrow(&shown, whole, width);
    }
    let line = |(revision, count): &(&Revision, Count)| {
        format!("{}  {}  {}", start(revision), bar(*count, whole, BAR), tally(*count))
    };
    shown.iter().map(line).collect()
}

/// Two lines for a revision: its image, then its bar, as long as the counts leave room, and the counts.
fn narrow(shown: &[(&Revision, Count)], whole: usize, width: usize) -> Vec<String> {
    let longest = shown.iter().map(|(_, count)| tally(*count).chars().count()).max().unwrap_or(0);
    let wide = width.saturating_sub(longest + 6).min(BAR);
    let lines = |(revision, count): &(&Revision, Count)| {
        let counts = tally(*count);
        let bar = if wide < SHORTEST_BAR { String::new() } else { bar(*count, whole, wide) + "  " };
        [
            format!("  revision {}  {}", revision.number, revisions::images(&revision.template)),
            format!("    {bar}{counts}"),
        ]
    };
    shown.iter().flat_map(lines).collect()
}

/// `█` ready, `▒` starting, `░` terminating, `·` not there.
fn bar(count: Count, whole: usize, wide: usize) -> String {
    let mut cells = String::new();
    let mut pods = 0;
    let mut drawn = 0;
    for (letter, some) in [('█', count.ready), ('▒', count.starting), ('░', count.terminating)] {
        pods += some;
        let end = pods * wide / whole;
        cells.extend(std::iter::repeat_n(letter, end - drawn));
        drawn = end;
    }
    cells.extend(std::iter::repeat_n('·', wide - drawn));
    cells
}

fn tally(count: Count) -> String {
    let parts = [(count.ready, "ready"), (count.starting, "starting"), (count.terminating, "terminating")];
    let parts: Vec<String> =
        parts.iter().filter(|(some, _)| 0 < *some).map(|(some, what)| format!("{some} {what}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn counts(scene: &Scene) -> BTreeMap<&str, Count> {
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for pod in &scene.pods {
        let count = counts.entry(pod_key(pod)).or_default();
        match (pod.has("metadata.deletionTimestamp"), is_ready(pod)) {
            (true, _) => count.terminating += 1,
            (false, true) => count.ready += 1,
            (false, false) => count.starting += 1,
        }
    }
    counts
}

fn pod_key(pod: &Value) -> &str {
    let labels = pod.map("metadata.labels");
    let hash = labels.get(revisions::HASH).or_else(|| labels.get("controller-revision-hash"));
    hash.and_then(Value::as_str).unwrap_or_default()
}

/// The label value that the pods of a revision have.
fn revision_key(revision: &Revision) -> &str {
    let object = &revision.object;
    match pod_key(object) {
        // Pods of a StatefulSet name the whole ControllerRevision, those of a DaemonSet its hash.
        hash if hash.is_empty() || is_of_stateful_set(object) => object.text("metadata.name"),
        hash => hash,
    }
}

fn is_of_stateful_set(object: &Value) -> bool {
    object.list("metadata.ownerReferences").iter().any(|owner| owner.text("kind") == "StatefulSet")
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    words::condition(pod, "Ready").is_some_and(|ready| ready.text("status") == "True")
}

fn moving(scene: &Scene) -> Vec<String> {
    let mut pods: Vec<&Value> =
        scene.pods.iter().filter(|pod| pod.has("metadata.deletionTimestamp") || !is_ready(pod)).collect();
    pods.sort_by_key(|pod| pod.text("metadata.name").to_owned());
    let widest = pods.iter().map(|pod| pod.text("metadata.name").len()).max().unwrap_or(0);
    let line = |pod: &&Value| format!("    {:<widest$}  {}", pod.text("metadata.name"), state(pod));
    let mut lines: Vec<String> = pods.iter().take(MOST_PODS).map(line).collect();
    if MOST_PODS < pods.len() {
        lines.push(format!("    and {} more", pods.len() - MOST_PODS));
    }
    lines
}

/// What a pod does, in a word or two.
pub fn state(pod: &Value) -> String {
    if pod.has("metadata.deletionTimestamp") {
        return "Terminating".into();
    }
    let statuses = pod.list("status.initContainerStatuses").iter().chain(pod.list("status.containerStatuses"));
    for status in statuses {
        for kind in ["state.waiting.reason", "state.terminated.reason"] {
            let reason = status.text(kind);
            if !matches!(reason, "" | "Completed" | "PodInitializing") {
                return reason.to_owned();
            }
        }
    }
    let unscheduled = words::condition(pod, "PodScheduled").filter(|condition| condition.text("status") == "False");
    match (unscheduled, pod.text("status.phase")) {
        (Some(condition), _) => format!("Pending: {}", condition.text("message")),
        (None, "Running") => "Running, not ready".into(),
        (None, "") => "Pending".into(),
        (None, phase) => phase.to_owned(),
    }
}

/// Time since the last progress, and how much is left.
fn clock(workload: &Value, now: Timestamp) -> Option<String> {
    let progressing = words::condition(workload, "Progressing")?;
    let last: Timestamp = progressing.text("lastUpdateTime").parse().ok()?;
    let since = (now.as_second() - last.as_second()).max(0);
    let deadline = workload.number("spec.progressDeadlineSeconds");
    let left = match deadline {
        0 => String::new(),
        _ if deadline < since => ", the deadline has passed".into(),
        _ => format!(", {} to the deadline", time::human(deadline - since)),
    };
    Some(format!("  last progress {} ago{left}", time::human(since)))
}

fn cut(line: &str, width: usize) -> String {
    match line.char_indices().nth(width.saturating_sub(1)) {
        Some((end, _)) if width < line.chars().count() => format!("{}…", &line[..end]),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, hash: &str, ready: bool, more: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"pod-template-hash": hash}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        api::patch::merge(pod.take(), &more).unwrap()
    }

    fn revision(number: i64, hash: &str, image: &str) -> Revision {
        Revision {
            number,
            object: json!({"metadata": {"name": format!("web-{hash}"), "labels": {"pod-template-hash": hash}}}),
            template: json!({"spec": {"containers": [{"image": image}]}}),
        }
    }

    #[test]
    fn terminals_that_cannot_go_back() {
        let can =
            |kind: Option<&str>| can_draw(&kind.map(|kind| ("TERM".to_owned(), kind.to_owned())).into_iter().collect());
        assert_eq!([Some("xterm"), Some("dumb"), Some(""), None].map(can), [true, false, false, false]);
    }

    #[test]
    fn a_picture_of_a_rollout() {
        let scene = Scene {
            workload: json!({
                "kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 4, "progressDeadlineSeconds": 600},
                "status": {"observedGeneration": 2, "replicas": 5, "updatedReplicas": 2, "availableReplicas": 3,
                    "conditions": [{"type": "Progressing", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]},
            }),
            revisions: vec![
                revision(1, "old", "nginx:1.7.9"),
                revision(2, "gone", "nginx:1.8"),
                revision(3, "new", "nginx:1.161"),
            ],
            pods: vec![
                pod("web-old-a", "old", true, json!({})),
                pod("web-old-b", "old", true, json!({})),
                pod("web-old-c", "old", true, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:09Z"}})),
                pod("web-new-a", "new", true, json!({})),
                pod(
                    "web-new-b",
                    "new",
                    false,
                    json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}),
                ),
            ],
            why: vec!["1 new pod is not ready: web-new-b: ImagePullBackOff".into()],
        };
        let now = "2026-01-01T00:00:12Z".parse().unwrap();
        expect_test::expect![[r#"
            Waiting for deployment "web" rollout to finish: 2 out of 4 new replicas have been updated...
              revision 1  nginx:1.7.9  ████████████░░░░░░······  2 ready, 1 terminating
              revision 3  nginx:1.161  ██████▒▒▒▒▒▒············  1 ready, 1 starting
                web-new-b  ImagePullBackOff
                web-old-c  Terminating
              why: 1 new pod is not ready: web-new-b: ImagePullBackOff
              last progress 12s ago, 9m48s to the deadline"#]]
        .assert_eq(&frame(&scene, now, 100, 50).join("\n"));
        assert_eq!(frame(&scene, now, 20, 50)[0], "Waiting for deploym…");
        expect_test::expect![[r#"
            Waiting for deployment "web" rollout to…
              revision 1  nginx:1.7.9
                ██████░░░···  2 ready, 1 terminating
              revision 3  nginx:1.161
                ███▒▒▒······  1 ready, 1 starting
                web-new-b  ImagePullBackOff
                web-old-c  Terminating
              why: 1 new pod is not ready:
                   web-new-b: ImagePullBackOff
              last progress 12s ago, 9m48s to the d…"#]]
        .assert_eq(&frame(&scene, now, 40, 50).join("\n"));
        expect_test::expect![[r#"
            Waiting for deployment "web" rollout to finish: 2 out of 4 new replicas have been updated...
              revision 1  nginx:1.7.9  ████████████░░░░░░······  2 ready, 1 terminating
              revision 3  nginx:1.161  ██████▒▒▒▒▒▒············  1 ready, 1 starting
              why: 1 new pod is not ready: web-new-b: ImagePullBackOff
              last progress 12s ago, 9m48s to the deadline"#]]
        .assert_eq(&frame(&scene, now, 100, 6).join("\n"));
    }
}
