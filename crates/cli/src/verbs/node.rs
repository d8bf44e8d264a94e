//! `cordon`, `uncordon`, `drain`, `taint`: looking after nodes. Mirrors kubectl `pkg/cmd/drain`, `pkg/drain` and `pkg/cmd/taint`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::change::{self, DryRun, DryRunFlag};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Found};
use crate::print;
use crate::session::Session;
use crate::time;

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
    #[arg(long, default_value = "0s", value_parser = time::flag, value_name = "DURATION")]
    timeout: Duration,
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
    let timeout = options.timeout;
    if options.pod_selector.as_ref().is_some_and(|text| api::selector::Selector::parse(text).is_err()) {
        return Err(Error::told("--pod-selector=<pod_selector> must be a valid label selector"));
    }
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
                .unwrap_or_else(|_| Err(Error::told(format!("global timeout reached: {}", time::in_go(timeout))))),
        };
        match outcome {
            Ok(()) => session.say(format!("node/{} drained{}", node.name, dry_run.suffix()))?,
            Err(error) => {
                session.warn(format!(
                    "error: unable to drain node {:?} due to error: {}, continuing command...",
                    node.name,
                    error.inner_message()
                ))?;
                session.warn("There are pending nodes to be drained:")?;
                for pending in &nodes[index..] {
                    session.warn(format!(" {}", pending.name))?;
                }
                // Several reasons stand on a line each.
                return Error::several(error.parts().into_iter().map(Error::bare).collect());
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
    let mut sorted = Sorted::default();
    for pod in list.list("items").iter().filter(|pod| !is_given_up(pod, options)) {
        sorted.add(pod, options);
    }
    Error::several(sorted.reasons().into_iter().map(Error::bare).collect())?;
    let warnings = sorted.warnings();
    if !warnings.is_empty() {
        session.warn(format!("Warning: {}", warnings.join("; ")))?;
    }
    let leaving = sorted.leaving;
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

/// What becomes of a node's pods. The names are those of pods, with their namespaces.
#[derive(Default)]
struct Sorted {
    leaving: Vec<Value>,
    /// No reason to stop, but worth a word.
    ignored_daemons: Vec<String>,
    lost: Vec<String>,
    /// Reasons to stop.
    unmanaged: Vec<String>,
    local: Vec<String>,
    daemons: Vec<String>,
}

impl Sorted {
    fn add(&mut self, pod: &Value, options: &DrainOptions) {
        let name = format!("{}/{}", pod.text("metadata.namespace"), pod.text("metadata.name"));
        let finished = matches!(pod.text("status.phase"), "Succeeded" | "Failed");
        if pod.map("metadata.annotations").contains_key("kubernetes.io/config.mirror") {
            return;
        }
        let owner = pod.list("metadata.ownerReferences").iter().find(|owner| owner.flag("controller"));
        if owner.is_some_and(|owner| owner.text("kind") == "DaemonSet") && !finished {
            let list = if options.ignore_daemonsets { &mut self.ignored_daemons } else { &mut self.daemons };
            return list.push(name);
        }
        let is_local = pod.list("spec.volumes").iter().any(|volume| volume.has("emptyDir"));
        if is_local && !finished && !options.delete_emptydir_data {
            return self.local.push(name);
        }
        if owner.is_none() && !finished {
            match options.force {
                true => self.lost.push(name),
                false => return self.unmanaged.push(name),
            }
        }
        self.leaving.push(pod.clone());
    }

    /// Why the node is not drained, as kubectl words it.
    fn reasons(&self) -> Vec<String> {
        told([
            (&self.daemons, "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"),
            (&self.local, "cannot delete Pods with local storage (use --delete-emptydir-data to override)"),
            (&self.unmanaged, "cannot delete cannot delete Pods that declare no controller (use --force to override)"),
        ])
    }

    fn warnings(&self) -> Vec<String> {
        told([
            (&self.ignored_daemons, "ignoring DaemonSet-managed Pods"),
            (&self.lost, "deleting Pods that declare no controller"),
        ])
    }
}

fn told<const N: usize>(parts: [(&Vec<String>, &str); N]) -> Vec<String> {
    let some = parts.iter().filter(|(pods, _)| !pods.is_empty());
    some.map(|(pods, what)| format!("{what}: {}", pods.join(", "))).collect()
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
    let change = changes(session, &options)?;
    let selector = options.selector.clone().filter(|selector| !selector.is_empty());
    // With --all and a selector the names do not matter.
    let words = if options.all || selector.is_some() { &change.words[..1] } else { &change.words[..] };
    let ask = Ask { words: words.to_vec(), selector, all: options.all, live: true, ..Ask::default() };
    let mut errors = Vec::new();
    for node in objects::find_all(session, &ask).await? {
        let wanted = match change.apply(&node, options.overwrite) {
            Ok(wanted) => wanted,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let mut after = node.object.clone();
        after["spec"]["taints"] = wanted.clone().into();
        if dry_run != DryRun::Client {
            let patch = json!({"spec": {"taints": if wanted.is_empty() { Value::Null } else { wanted.into() }}, "metadata": {"resourceVersion": node.object.text("metadata.resourceVersion")}});
            let mut query = dry_run.query(&options.field_manager);
            query.push(("fieldValidation", super::apply::validation(&options.validate)?.into()));
            after = session.client()?.patch(&node.path(), &query, change::MERGE, &patch).await?;
        }
        let operation = match (change.set.is_empty(), options.overwrite) {
            (true, _) => "untainted",
            (false, true) => "modified",
            (false, false) => "tainted",
        };
        print::made_apart(session, &options.output, &after, operation)?;
    }
    Error::several(errors)
}

/// What a command line says about taints.
struct Taints {
    words: Vec<String>,
    set: Vec<Value>,
    /// Keys and effects; no effect is every one.
    removed: Vec<(String, String)>,
}

/// Understands the words, and refuses what excludes itself.
fn changes(session: &Session, options: &TaintOptions) -> Result<Taints> {
    let is_taint = |word: &String| word.contains(':') || word.contains('=') || word.ends_with('-');
    let first = options.words.iter().position(is_taint).unwrap_or(options.words.len());
    let (words, taints) = options.words.split_at(first);
    let Some(kind) = words.first() else {
        return Err(Error::told("one or more resources must be specified as <resource> <name>"));
    };
    if taints.is_empty() {
        return Err(Error::told("at least one taint update is required"));
    }
    let (set, removed) = parse_taints(taints).map_err(|error| session.usage("taint", &error.inner_message()))?;
    let kind = kind.to_lowercase();
    let kind = kind.split('/').next().unwrap_or_default();
    if !matches!(kind, "node" | "nodes" | "no") {
        return Err(Error::told(format!("invalid resource type {kind}, only node types are supported")));
    }
    let has_selector = options.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    if options.all && has_selector {
        return Err(Error::told("setting 'all' parameter with a non empty selector is prohibited"));
    }
    if words.len() == 1 && !words[0].contains('/') && !options.all && !has_selector {
        return Err(Error::told("at least one resource name must be specified since 'all' parameter is not set"));
    }
    let conflicts: Vec<String> = set
        .iter()
        .flat_map(|new| removed.iter().map(move |old| (new, old)))
        .filter(|(new, (key, effect))| new.text("key") == key && (effect.is_empty() || new.text("effect") == effect))
        .map(|(_, (key, effect))| format!("{key}={effect}"))
        .collect();
    if !conflicts.is_empty() {
        return Err(Error::told(format!(
            "can not both modify and remove the following taint(s) in the same command: {}",
            conflicts.join(", ")
        )));
    }
    Ok(Taints { words: words.to_vec(), set, removed })
}

fn same(one: &Value, other: &Value) -> bool {
    one["key"] == other["key"] && one["effect"] == other["effect"]
}

impl Taints {
    /// The taints that a node has afterwards.
    fn apply(&self, node: &Found, overwrite: bool) -> Result<Vec<Value>> {
        let before = node.object.list("spec.taints");
        let there: Vec<&str> = self
            .set
            .iter()
            .filter(|new| before.iter().any(|old| same(old, new)))
            .map(|taint| taint.text("key"))
            .collect();
        if !overwrite && !there.is_empty() {
            return Err(Error::told(format!(
                "node {} already has {} taint(s) with same effect(s) and --overwrite is false",
                node.name,
                there.join(",")
            )));
        }
        let removes = |(key, effect): &(String, String), taint: &Value| {
            taint.text("key") == key && (effect.is_empty() || taint.text("effect") == effect)
        };
        let missing = self.removed.iter().filter(|removed| !before.iter().any(|taint| removes(removed, taint)));
        let missing = missing.map(|(key, effect)| {
            let what = if effect.is_empty() { key.clone() } else { format!("{key}:{effect}") };
            format!("taint {what:?} not found")
        });
        Error::aggregate(missing.collect())?;
        let kept = before.iter().filter(|old| {
            !self.removed.iter().any(|removed| removes(removed, old)) && !self.set.iter().any(|new| same(old, new))
        });
        Ok(self.set.iter().chain(kept).cloned().collect())
    }
}

type Removed = Vec<(String, String)>;

fn parse_taints(words: &[String]) -> Result<(Vec<Value>, Removed)> {
    let (mut set, mut removed) = (Vec::<Value>::new(), Vec::new());
    for word in words {
        if let Some(rest) = word.strip_suffix('-') {
            let (key, effect) = rest.split_once(':').unwrap_or((rest, ""));
            let key = key.split('=').next().unwrap_or(key);
            removed.push((key.to_owned(), effect.to_owned()));
            continue;
        }
        let invalid = |why: &str| Error::told(format!("invalid taint spec: {word}{why}"));
        let Some((pair, effect)) = word.split_once(':') else {
            let why = api::names::qualified_name(word).join("; ");
            return Err(invalid(&if why.is_empty() { why } else { format!(", {why}") }));
        };
        if effect.contains(':') {
            return Err(invalid(""));
        }
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(Error::told(format!("invalid taint effect: {effect}, unsupported taint effect")));
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.contains('=') {
            return Err(invalid(""));
        }
        let wrong: Vec<String> =
            api::names::label_value(value).into_iter().chain(api::names::qualified_name(key)).collect();
        if !wrong.is_empty() {
            return Err(invalid(&format!(", {}", wrong.join("; "))));
        }
        let mut taint = json!({"effect": effect, "key": key});
        if !value.is_empty() {
            taint["value"] = value.into();
        }
        if set.iter().any(|known| same(known, &taint)) {
            return Err(Error::told(format!(
                "duplicated taints with the same key and effect: {{{key} {value} {effect} <nil>}}"
            )));
        }
        set.push(taint);
    }
    Ok((set, removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_of_a_command_line() {
        let parsed = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            match parse_taints(&words) {
                Ok((set, removed)) => format!("{} {removed:?}", Value::Array(set)),
                Err(error) => error.inner_message().split(" and must").next().unwrap_or_default().to_owned(),
            }
        };
        expect_test::expect![[r#"
            [{"effect":"NoSchedule","key":"k","value":"v"},{"effect":"NoExecute","key":"k"}] [("a", ""), ("b", "NoExecute")]
            duplicated taints with the same key and effect: {k 2 NoSchedule <nil>}
            invalid taint effect: Soon, unsupported taint effect
            invalid taint spec: k
            invalid taint spec: a b:NoSchedule, name part must consist of alphanumeric characters, '-', '_' or '.',
        "#]]
        .assert_eq(&format!(
            "{}\n{}\n{}\n{}\n{}\n",
            parsed(&["k=v:NoSchedule", "k:NoExecute", "a-", "b:NoExecute-"]),
            parsed(&["k=1:NoSchedule", "k=2:NoSchedule"]),
            parsed(&["k:Soon"]),
            parsed(&["k"]),
            parsed(&["a b:NoSchedule"]),
        ));
    }

    #[test]
    fn pods_that_hold_a_node_and_pods_that_are_lost() {
        let options = |force: bool| DrainOptions {
            cordon: CordonOptions { nodes: Vec::new(), selector: None, dry_run: DryRunFlag::default() },
            force,
            ignore_daemonsets: force,
            delete_emptydir_data: force,
            grace_period: -1,
            timeout: Duration::ZERO,
            disable_eviction: false,
            pod_selector: None,
            skip_wait_for_delete_timeout: 0,
            chunk_size: 0,
        };
        let owned = |kind: &str| json!([{"controller": true, "kind": kind}]);
        let pods = [
            json!({"metadata": {"namespace": "n", "name": "bare"}}),
            json!({"metadata": {"namespace": "n", "name": "local"}, "spec": {"volumes": [{"emptyDir": {}}]}}),
            json!({"metadata": {"namespace": "n", "name": "daemon", "ownerReferences": owned("DaemonSet")}}),
            json!({"metadata": {"namespace": "n", "name": "made", "ownerReferences": owned("ReplicaSet")}}),
            json!({"metadata": {"namespace": "n", "name": "done"}, "status": {"phase": "Succeeded"}}),
        ];
        let mut told = String::new();
        for force in [false, true] {
            let mut sorted = Sorted::default();
            pods.iter().for_each(|pod| sorted.add(pod, &options(force)));
            let leaving: Vec<&str> = sorted.leaving.iter().map(|pod| pod.text("metadata.name")).collect();
            told += &format!("{:#?} {:?} {leaving:?}\n", sorted.reasons(), sorted.warnings());
        }
        expect_test::expect![[r#"
            [
                "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): n/daemon",
                "cannot delete Pods with local storage (use --delete-emptydir-data to override): n/local",
                "cannot delete cannot delete Pods that declare no controller (use --force to override): n/bare",
            ] [] ["made", "done"]
            [] ["ignoring DaemonSet-managed Pods: n/daemon", "deleting Pods that declare no controller: n/bare, n/local"] ["bare", "local", "made", "done"]
        "#]]
        .assert_eq(&told);
    }
}
