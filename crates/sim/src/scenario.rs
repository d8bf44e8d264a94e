//! Scenarios: commands and what they print, on a simulated cluster of three nodes where nothing breaks but by command.
//!
//! A script is text. Lines that begin with `$` are commands in `kubectl`'s grammar (a small part of it), or `wait 20s`,
//! `crash`, `power off|on NODE` and `work APP 300m` (what there is to do for an app, shared by its ready pods); lines that begin with `|` are the manifest of the command above them. What is
//! printed stands below, and is what [`play`] writes anew: a scenario is a test, a demonstration and documentation. Every
//! invariant is asked after every change.

use std::sync::Arc;

use api::patch::PatchType;
use api::{Key, Kind, Object, Propagation};
use bytes::Bytes;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use server::door::{DeleteOptions, Part};

use crate::cluster::{Cluster, Settings};
use crate::facts;
use crate::letters::{Ask, Letter};
use crate::people::{NAMESPACE, drained};
use crate::without_hash;

/// Seconds after which the three nodes are there.
const BEGUN: i64 = 3;

/// Plays a script and gives it back with what its commands print now.
pub fn play(script: &str) -> Result<String, String> {
    let mut stage = Stage { cluster: Cluster::staged(Settings::of(1, true)), namespace: NAMESPACE.to_owned() };
    stage.cluster.pass(BEGUN).map_err(|breach| breach.to_string())?;
    stage.cluster.told();
    let mut played = String::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ") else {
            if line.starts_with('#') || line.is_empty() {
                played += &format!("{line}\n");
            }
            continue;
        };
        played += &format!("{line}\n");
        let mut manifest = String::new();
        while let Some(text) = lines.next_if(|line| line.starts_with('|')) {
            played += &format!("{text}\n");
            manifest += &format!("{}\n", text.trim_start_matches('|').strip_prefix(' ').unwrap_or(""));
        }
        let printed = stage.perform(command, &manifest).map_err(|error| format!("{line}: {error}"))?;
        played += &printed;
    }
    Ok(played)
}

struct Stage {
    cluster: Cluster,
    /// That of the command.
    namespace: String,
}

impl Stage {
    fn perform(&mut self, command: &str, manifest: &str) -> Result<String, String> {
        let mut words: Vec<&str> = command.split_whitespace().filter(|word| *word != "kubectl").collect();
        let flag = words.iter().position(|word| *word == "-n").filter(|at| at + 1 < words.len());
        let named = flag.map(|at| words.drain(at..at + 2).nth(1).unwrap_or_default());
        self.namespace = named.unwrap_or(NAMESPACE).to_owned();
        match words.as_slice() {
            ["wait", time] => {
                let seconds = time.trim_end_matches('s').parse().map_err(|_| format!("no time: {time}"))?;
                self.cluster.pass(seconds).map_err(|breach| breach.to_string())?;
                Ok(self.cluster.told())
            }
            ["crash"] => {
                self.cluster.stop().map_err(|breach| breach.to_string())?;
                Ok(self.cluster.told())
            }
            ["work", app, amount] => {
                let milli = amount.strip_suffix('m').and_then(|text| text.parse().ok());
                self.cluster.work(app, milli.ok_or_else(|| format!("no work: {amount}"))?);
                Ok(String::new())
            }
            ["power", switch, node] => {
                let index = node.trim_start_matches('n').parse::<usize>().map_err(|_| format!("no node: {node}"))? - 1;
                self.cluster.switch(index, *switch == "on");
                Ok(self.cluster.told())
            }
            ["create" | "apply", ..] => self.create(manifest),
            ["get", what] => self.get(kind(what)?),
            ["scale", target, replicas] => {
                let count: i32 = number(replicas, "--replicas=")?;
                self.merge(target, json!({ "spec": { "replicas": count } }), "scaled")
            }
            ["set", "image", target, image] => {
                let image = image.split_once('=').map_or(*image, |(_, image)| image);
                let patch =
                    json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image }]);
                self.patch(target, PatchType::Json, &patch, "image updated")
            }
            ["rollout", "pause", target] => self.merge(target, json!({ "spec": { "paused": true } }), "paused"),
            ["rollout", "resume", target] => self.merge(target, json!({ "spec": { "paused": false } }), "resumed"),
            ["rollout", "undo", target] => self.undo(target, None),
            ["rollout", "undo", target, revision] => self.undo(target, Some(number(revision, "--to-revision=")?)),
            ["patch", target, "-p", ..] => {
                let (_, text) = command.split_once("-p ").ok_or("no patch")?;
                let patch = serde_json::from_str(text.trim_matches('\'')).map_err(|error| error.to_string())?;
                self.merge(target, patch, "patched")
            }
            ["cordon", node] => {
                let patch = json!({ "spec": { "unschedulable": true } });
                self.merge(&format!("node/{node}"), patch, "cordoned")
            }
            ["drain", node] => self.drain(node),
            ["delete", target] => self.delete(target, None),
            ["delete", target, "--cascade=foreground"] => self.delete(target, Some(Propagation::Foreground)),
            ["delete", target, "--cascade=orphan"] => self.delete(target, Some(Propagation::Orphan)),
            _ => Err("no such command".to_owned()),
        }
    }

    fn create(&mut self, manifest: &str) -> Result<String, String> {
        let body: Value = serde_yaml::from_str(manifest).map_err(|error| error.to_string())?;
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let kind = Kind::by_name(&text("apiVersion"), &text("kind")).ok_or("no such kind")?;
        let body = kind.decode(body).map_err(|error| error.to_string())?;
        let namespace = if kind.namespaced() { self.namespace.as_str() } else { "" };
        let name = body.meta().name.clone().unwrap_or_default();
        let key = Key::new(kind, namespace, name);
        self.ask(Ask::Create(key.namespace.clone(), body), &key, "created")
    }

    /// All evictions at once, as several hands would send them; what is refused is asked for again every few seconds.
    fn drain(&mut self, name: &str) -> Result<String, String> {
        let world = self.cluster.world();
        let node = world.get::<Node>("", name).ok_or_else(|| format!("no node: {name}"))?;
        let letters = drained(node, world);
        self.cluster.arrive_together(letters);
        self.cluster.pass(0).map_err(|breach| breach.to_string())?;
        Ok(format!("node/{name} cordoned\n{}", self.cluster.told()))
    }

    fn delete(&mut self, target: &str, propagation: Option<Propagation>) -> Result<String, String> {
        let key = self.key(target)?;
        let options = DeleteOptions { propagation, ..Default::default() };
        self.ask(Ask::Delete(key.clone(), options), &key, "deleted")
    }

    fn merge(&mut self, target: &str, patch: Value, done: &str) -> Result<String, String> {
        self.patch(target, PatchType::Merge, &patch, done)
    }

    fn patch(&mut self, target: &str, how: PatchType, patch: &Value, done: &str) -> Result<String, String> {
        let key = self.key(target)?;
        self.ask(Ask::Patch(key.clone(), Part::Main, how, Bytes::from(patch.to_string())), &key, done)
    }

    fn undo(&mut self, target: &str, revision: Option<i64>) -> Result<String, String> {
        let key = self.key(target)?;
        let world = self.cluster.world();
        let object = world.at(&key).ok_or("there is no such object")?;
        let mut recorded: Vec<(i64, Value)> = match object.get::<Deployment>() {
            Some(deployment) => {
                let sets = facts::sets(deployment, world);
                sets.into_iter().map(|set| (facts::revision(set), recorded_in(set))).collect()
            }
            None => {
                let revisions = world.controlled_by::<ControllerRevision>(object.uid());
                revisions.filter_map(|it| Some((it.revision, it.data.as_ref()?.0.clone()))).collect()
            }
        };
        recorded.sort_by_key(|(number, _)| *number);
        let found = match revision {
            Some(wanted) => recorded.into_iter().find(|(number, _)| *number == wanted),
            None => recorded.into_iter().rev().nth(1),
        };
        let (_, patch) = found.ok_or("there is no such revision")?;
        self.patch(target, PatchType::Strategic, &patch, "rolled back")
    }

    /// `kind/name`.
    fn key(&self, target: &str) -> Result<Key, String> {
        let (word, name) = target.split_once('/').ok_or_else(|| format!("KIND/NAME is wanted: {target}"))?;
        let kind = kind(word)?;
        Ok(Key::new(kind, if kind.namespaced() { self.namespace.as_str() } else { "" }, name))
    }

    /// Asks, and prints the answer.
    fn ask(&mut self, ask: Ask, key: &Key, done: &str) -> Result<String, String> {
        let info = key.kind.info();
        let group = if info.group.is_empty() { String::new() } else { format!(".{}", info.group) };
        let words = match done {
            "deleted" if !key.kind.namespaced() => format!("{}{group} \"{}\" deleted", info.singular, key.name),
            "deleted" => format!("{}{group} \"{}\" deleted from {} namespace", info.singular, key.name, key.namespace),
            _ => format!("{}{group}/{} {done}", info.singular, key.name),
        };
        self.cluster.send_in(Letter::of_person(ask, words)).map_err(|breach| breach.to_string())
    }

    fn get(&self, kind: Kind) -> Result<String, String> {
        let world = self.cluster.world();
        let namespace = kind.namespaced().then_some(self.namespace.as_str());
        let objects: Vec<Arc<Object>> = world.objects(kind, namespace).cloned().collect();
        if objects.is_empty() {
            return Ok(match namespace {
                Some(namespace) => format!("No resources found in {namespace} namespace.\n"),
                None => "No resources found\n".to_owned(),
            });
        }
        let table = server::Table::new(kind, "v1", "None").at(self.cluster.now()).render(&objects, 0, None, None);
        Ok(aligned(&table))
    }
}

/// A template as a ReplicaSet has it, as the patch that brings it back.
fn recorded_in(set: &ReplicaSet) -> Value {
    let mut template = serde_json::to_value(without_hash(facts::template(set))).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

fn number<T: std::str::FromStr>(word: &str, before: &str) -> Result<T, String> {
    word.strip_prefix(before).and_then(|text| text.parse().ok()).ok_or_else(|| format!("{before}N is wanted: {word}"))
}

fn kind(word: &str) -> Result<Kind, String> {
    let named = |kind: &&Kind| {
        let info = kind.info();
        info.plural == word || info.singular == word || info.short_names.contains(&word)
    };
    Kind::ALL.iter().find(named).copied().ok_or_else(|| format!("no such kind: {word}"))
}

/// The columns that are always shown, under their headings.
fn aligned(table: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let columns = list(&table["columnDefinitions"]);
    let shown: Vec<usize> = (0..columns.len()).filter(|at| columns[*at]["priority"] == 0).collect();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut rows = vec![shown.iter().map(|at| text(&columns[*at]["name"]).to_uppercase()).collect::<Vec<String>>()];
    for row in list(&table["rows"]) {
        let cells = list(&row["cells"]);
        rows.push(shown.iter().map(|at| cells.get(*at).map(text).unwrap_or_default()).collect());
    }
    let widths: Vec<usize> =
        (0..shown.len()).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}
