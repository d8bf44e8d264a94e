//! `cordon`, `uncordon`, `drain`, `taint`: looking after nodes. Mirrors kubectl `pkg/cmd/drain`, `pkg/drain` and `pkg/cmd/taint`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::change::{self, DryRun, DryRunFlag};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Found};
use crate::print;
use crate::session::Session;
use crate::time::{self, parse_duration};

/// Between two tries to evict a pod that a budget protects.
const EVICTION_PAUSE: Duration = Duration::from_secs(5);

/// Mark nodes: no new pods on them (cordon), or pods again (uncordon).
#[derive(clap::Args)]
pub struct CordonOptions {
    /// The nodes.
    nodes: Vec<String>,
    /// Nodes with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    #[command(flatten)]
    dry_run: DryRunFlag,
}

/// Take a node out of service: no new pods, and those on it are evicted.
#[derive(clap::Args)]
pub struct DrainOptions {
    #[command(flatten)]
    cordon: CordonOptions,
    /// Pods that nothing will make anew are evicted too.
    #[arg(long)]
    force: bool,
    /// Pods of daemon sets stay and are no reason to stop.
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Pods with emptyDir volumes are evicted too; their data is lost.
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Seconds pods get to end; negative is their own.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// How long to try; 0 is without end.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Delete pods instead of evicting them: budgets are not asked.
    #[arg(long)]
    disable_eviction: bool,
    /// Only pods with these labels.
    #[arg(long)]
    pod_selector: Option<String>,
    /// Do not wait for pods that are being deleted for longer than so many seconds; 0 waits for all.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    skip_wait_for_delete_timeout: i64,
    /// Pods asked for at once; 0 is all.
    #[arg(long, default_value_t = 500, value_name = "NUMBER")]
    chunk_size: usize,
}

/// Set and remove taints: KEY=VALUE:EFFECT, KEY:EFFECT-, KEY-.
#[derive(clap::Args)]
pub struct TaintOptions {
    /// nodes NAME... TAINT...
    words: Vec<String>,
    #[command(flatten)]
    dry_run: DryRunFlag,
    /// Change taints that are there.
    #[arg(long)]
    overwrite: bool,
    /// Every node.
    #[arg(long)]
    all: bool,
    /// Nodes with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    #[command(flatten)]
    output: print::Output,
    /// Name the changes are made under.
    #[arg(long, default_value = "kubectl-taint")]
    field_manager: String,
    /// strict (true), warn or ignore (false) unknown and duplicate fields.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
}

async fn nodes(session: &mut Session, options: &CordonOptions, verb: &str) -> Result<Vec<Found>> {
    if options.nodes.is_empty() && options.selector.is_none() {
        return Err(session.usage(verb, &format!("USAGE: {verb} NODE [flags]")));
    }
    if !options.nodes.is_empty() && options.selector.is_some() {
        return Err(Error::told("cannot specify both a node name and a --selector option"));
    }
    let mut words: Vec<String> = options.nodes.clone();
    if !words.first().is_some_and(|word| word.contains('/')) {
        words.insert(0, "nodes".into());
    }
    let ask = Ask { words, selector: options.selector.clone(), live: true, ..Ask::default() };
    objects::find_all(session, &ask).await
}

async fn mark(session: &mut Session, node: &Found, unschedulable: bool, dry_run: DryRun) -> Result<()> {
    let word = if unschedulable { "cordoned" } else { "uncordoned" };
    if node.object.flag("spec.unschedulable") == unschedulable {
        return session.say(format!("node/{} already {word}{}", node.name, dry_run.suffix()));
    }
    if dry_run != DryRun::Client {
        let value = if unschedulable { Value::Bool(true) } else { Value::Null };
        let patch = json!({"spec": {"unschedulable": value}});
        session.client()?.patch(&node.path(), &dry_run.query("kubectl-drain"), change::STRATEGIC, &patch).await?;
    }
    session.say(format!("node/{} {word}{}", node.name, dry_run.suffix()))
}

/// `cordon`.
pub async fn cordon(session: &mut Session, options: CordonOptions) -> Result<()> {
    let dry_run = options.dry_run.strategy(session)?;
    for node in nodes(session, &options, "cordon").await? {
        mark(session, &node, true, dry_run).await?;
    }
    Ok(())
}

/// `uncordon`.
pub async fn uncordon(session: &mut Session, options: CordonOptions) -> Result<()> {
    let dry_run = options.dry_run.strategy(session)?;
    for node in nodes(session, &options, "uncordon").await? {
        mark(session, &node, false, dry_run).await?;
    }
    Ok(())
}

/// `drain`.
pub async fn drain(session: &mut Session, options: DrainOptions) -> Result<()> {
    let dry_run = options.cordon.dry_run.strategy(session)?;
    let timeout = parse_duration(&options.timeout)
        .ok_or_else(|| Error::told(format!("invalid argument {:?} for \"--timeout\" flag", options.timeout)))?;
    let nodes = nodes(session, &options.cordon, "drain").await?;
    for node in &nodes {
        mark(session, node, true, dry_run).await?;
    }
    for (index, node) in nodes.iter().enumerate() {
        let work = empty(session, &options, node, dry_run);
        let outcome = match timeout.is_zero() {
            true => work.await,
            false => tokio::time::timeout(timeout, work)
                .await
                .unwrap_or_else(|_| Err(Error::told(format!("global timeout reached: {}", options.timeout)))),
        };
        match outcome {
            Ok(()) => session.say(format!("node/{} drained{}", node.name, dry_run.suffix()))?,
            Err(error) => {
                let why = error.inner_message();
                session.warn(format!(
                    "error: unable to drain node {:?} due to error: {why}, continuing command...",
                    node.name
                ))?;
                session.warn("There are pending nodes to be drained:")?;
                for pending in &nodes[index..] {
                    session.warn(format!(" {}", pending.name))?;
                }
                return Err(Error::bare(why));
            }
        }
    }
    Ok(())
}

async fn empty(session: &mut Session, options: &DrainOptions, node: &Found, dry_run: DryRun) -> Result<()> {
    let client = session.client()?;
    let mut query = vec![("fieldSelector", format!("spec.nodeName={}", node.name))];
    if let Some(selector) = &options.pod_selector {
        query.push(("labelSelector", selector.clone()));
    }
    let pods = client.discovery().await?.resource("pods")?.clone();
    let list = client.list_by(&pods, None, &query, options.chunk_size).await?;
    let (mut leaving, mut blocked, mut ignored) = (Vec::new(), Blocked::default(), Vec::new());
    for pod in list.list("items").iter().filter(|pod| !is_given_up(pod, options)) {
        sort_pod(pod, options, &mut leaving, &mut blocked, &mut ignored);
    }
    let blocked = blocked.message();
    if !blocked.is_empty() {
        return Err(Error::told(blocked));
    }
    if !ignored.is_empty() {
        session.warn(format!("Warning: ignoring DaemonSet-managed Pods: {}", ignored.join(", ")))?;
    }
    for pod in &leaving {
        let (namespace, name) = (pod.text("metadata.namespace"), pod.text("metadata.name"));
        let verb = if options.disable_eviction { "deleting" } else { "evicting" };
        session.say(format!("{verb} pod {namespace}/{name}{}", dry_run.suffix()))?;
        if dry_run == DryRun::No {
            evict(session, options, pod).await?;
        }
    }
    for pod in leaving.iter().filter(|_| dry_run == DryRun::No) {
        let found = objects::of(client.discovery().await?.resource("pods")?, pod.clone());
        super::delete::await_gone(session, &found, pod.text("metadata.uid"), Duration::ZERO).await?;
        session.say(format!("pod/{} {}", found.name, if options.disable_eviction { "deleted" } else { "evicted" }))?;
    }
    Ok(())
}

/// True if the pod is being deleted for so long that nobody waits for it.
fn is_given_up(pod: &Value, options: &DrainOptions) -> bool {
    let since = time::since(pod.text("metadata.deletionTimestamp"));
    options.skip_wait_for_delete_timeout > 0
        && since.is_some_and(|seconds| seconds > options.skip_wait_for_delete_timeout)
}

#[derive(Default)]
struct Blocked {
    unmanaged: Vec<String>,
    local: Vec<String>,
    daemons: Vec<String>,
}

impl Blocked {
    fn message(&self) -> String {
        let parts = [
            (&self.daemons, "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"),
            (&self.local, "cannot delete Pods with local storage (use --delete-emptydir-data to override)"),
            (&self.unmanaged, "cannot delete cannot delete Pods that declare no controller (use --force to override)"),
        ];
        let texts: Vec<String> = parts
            .iter()
            .filter(|(pods, _)| !pods.is_empty())
            .map(|(pods, why)| format!("{why}: {}", pods.join(", ")))
            .collect();
        if texts.len() > 1 { format!("[{}]", texts.join(", ")) } else { texts.concat() }
    }
}

fn sort_pod(
    pod: &Value,
    options: &DrainOptions,
    leaving: &mut Vec<Value>,
    blocked: &mut Blocked,
    ignored: &mut Vec<String>,
) {
    let name = format!("{}/{}", pod.text("metadata.namespace"), pod.text("metadata.name"));
    let finished = matches!(pod.text("status.phase"), "Succeeded" | "Failed");
    if pod.map("metadata.annotations").contains_key("kubernetes.io/config.mirror") {
        return;
    }
    let owner = pod.list("metadata.ownerReferences").iter().find(|owner| owner.flag("controller"));
    if owner.is_some_and(|owner| owner.text("kind") == "DaemonSet") && !finished {
        return if options.ignore_daemonsets { ignored.push(name) } else { blocked.daemons.push(name) };
    }
    if pod.list("spec.volumes").iter().any(|volume| volume.has("emptyDir"))
        && !finished
        && !options.delete_emptydir_data
    {
        return blocked.local.push(name);
    }
    if owner.is_none() && !finished && !options.force {
        return blocked.unmanaged.push(name);
    }
    leaving.push(pod.clone());
}

async fn evict(session: &mut Session, options: &DrainOptions, pod: &Value) -> Result<()> {
    let client = session.client()?;
    let (namespace, name) = (pod.text("metadata.namespace"), pod.text("metadata.name"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let mut delete = json!({});
    if options.grace_period >= 0 {
        delete["gracePeriodSeconds"] = options.grace_period.into();
    }
    if options.disable_eviction {
        return client.delete(&path, &delete).await.map(|_| ());
    }
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace}, "deleteOptions": delete,
    });
    loop {
        match client.post(&format!("{path}/eviction"), &[], &eviction).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.status_code() == 429 => {
                let why = error.inner_message();
                session
                    .warn(format!("error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {why}"))?;
                tokio::time::sleep(EVICTION_PAUSE).await;
            }
            Err(error) => return Err(error.about(&format!("evicting pods/{name:?} -n"), namespace)),
        }
    }
}

/// `taint`.
pub async fn taint(session: &mut Session, options: TaintOptions) -> Result<()> {
    let dry_run = options.dry_run.strategy(session)?;
    let is_taint = |word: &String| word.contains(':') || word.contains('=') || word.ends_with('-');
    let first = options.words.iter().position(is_taint).unwrap_or(options.words.len());
    let (words, taints) = options.words.split_at(first);
    if words.is_empty() {
        return Err(Error::told("one or more resources must be specified as <resource> <name>"));
    }
    if taints.is_empty() {
        return Err(Error::told("at least one taint update is required"));
    }
    let (set, removed) = parse_taints(taints).map_err(|error| session.usage("taint", &error.inner_message()))?;
    let ask = Ask {
        words: words.to_vec(),
        selector: options.selector.clone(),
        all: options.all,
        live: true,
        ..Ask::default()
    };
    for node in objects::find_all(session, &ask).await? {
        let mut kept: Vec<Value> = node.object.list("spec.taints").to_vec();
        let same = |one: &Value, other: &Value| one["key"] == other["key"] && one["effect"] == other["effect"];
        if !options.overwrite {
            let there: Vec<&Value> = set.iter().filter(|new| kept.iter().any(|old| same(old, new))).collect();
            if let Some(new) = there.first() {
                return Err(Error::told(format!(
                    "node {} already has {} taint(s) with same effect(s) and --overwrite is false",
                    node.name,
                    new.text("key")
                )));
            }
        }
        let before = kept.len();
        for (key, effect) in &removed {
            kept.retain(|taint| taint.text("key") != key || !effect.is_empty() && taint.text("effect") != effect);
        }
        if kept.len() == before && !removed.is_empty() && set.is_empty() {
            let (key, effect) = &removed[0];
            let what = if effect.is_empty() { key.clone() } else { format!("{key}:{effect}") };
            return Err(Error::told(format!("taint {what:?} not found")));
        }
        kept.retain(|old| !set.iter().any(|new| same(old, new)));
        let mut wanted = set.clone();
        wanted.extend(kept);
        let mut after = node.object.clone();
        after["spec"]["taints"] = wanted.clone().into();
        if dry_run != DryRun::Client {
            let patch = json!({"spec": {"taints": if wanted.is_empty() { Value::Null } else { wanted.into() }}, "metadata": {"resourceVersion": node.object.text("metadata.resourceVersion")}});
            let mut query = dry_run.query(&options.field_manager);
            query.push(("fieldValidation", super::apply::validation(&options.validate)?.into()));
            after = session.client()?.patch(&node.path(), &query, change::MERGE, &patch).await?;
        }
        let operation = match (set.is_empty(), options.overwrite) {
            (true, _) => "untainted",
            (false, true) => "modified",
            (false, false) => "tainted",
        };
        print::done(session, &options.output, &after, &format!("{operation}{}", dry_run.suffix()))?;
    }
    Ok(())
}

type Removed = Vec<(String, String)>;

fn parse_taints(words: &[String]) -> Result<(Vec<Value>, Removed)> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for word in words {
        if let Some(rest) = word.strip_suffix('-') {
            let (key, effect) = rest.split_once(':').unwrap_or((rest, ""));
            let key = key.split('=').next().unwrap_or(key);
            removed.push((key.to_owned(), effect.to_owned()));
            continue;
        }
        let (pair, effect) = word.split_once(':').ok_or_else(|| Error::told(format!("invalid taint spec: {word}")))?;
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(Error::told(format!("invalid taint effect: {effect}, unsupported taint effect")));
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut taint = json!({"effect": effect, "key": key});
        if !value.is_empty() {
            taint["value"] = value.into();
        }
        set.push(taint);
    }
    Ok((set, removed))
}
