//! `rollout history --details`: when each revision was asked for, by whom and with which program, and how its rollout ended. Ours.
//!
//! A kapstan server keeps an account of it (`api::account`). Elsewhere managed fields tell the program that wrote the newest template,
//! and the status how far it is.

use api::account::{ENDED, Ended, How, REQUESTED, Requested};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::history::cause;
use super::revisions::{self, Revision};
use super::words;
use crate::json::Json;
use crate::objects::Found;
use crate::print::tabwriter;
use crate::time;

/// Numbers that a ReplicaSet had before it was gone back to.
const EARLIER: &str = "deployment.kubernetes.io/revision-history";
const UNKNOWN: &str = "<unknown>";

/// The table.
pub fn table(item: &Found, known: &[Revision]) -> String {
    let newest = known.last().map_or(0, |revision| revision.number);
    let mut text = "REVISION\tAGE\tBY\tWITH\tIMAGES\tENDED\tCHANGE-CAUSE\n".to_owned();
    for revision in known {
        let current = (revision.number == newest).then_some(&item.object);
        let requested: Option<Requested> = account(&revision.object, REQUESTED);
        let created = revision.object.text("metadata.creationTimestamp");
        let since = requested.as_ref().map_or_else(|| created.to_owned(), |requested| requested.at.0.to_string());
        let (by, with) = match &requested {
            Some(requested) => (requested.by.as_str(), requested.with.as_str()),
            None => (UNKNOWN, current.and_then(author).unwrap_or(UNKNOWN)),
        };
        text.push_str(&format!(
            "{}\t{}\t{by}\t{with}\t{}\t{}\t{}\n",
            revision.number,
            time::age(&since),
            revisions::images(&revision.template),
            ending(revision, requested.as_ref(), current),
            cause(revision),
        ));
    }
    tabwriter::align(&text, tabwriter::DESCRIBE)
}

fn account<T: DeserializeOwned>(object: &Value, name: &str) -> Option<T> {
    serde_json::from_str(revisions::annotation(object, name)?).ok()
}

/// Who wrote the pod template last, as the server's managed fields have it.
fn author(workload: &Value) -> Option<&str> {
    let wrote_template =
        |entry: &&Value| entry.at("fieldsV1").get("f:spec").is_some_and(|spec| spec.get("f:template").is_some());
    let entries = workload.list("metadata.managedFields");
    let last = entries.iter().filter(wrote_template).max_by_key(|entry| entry.text("time"))?;
    Some(last.text("manager"))
}

/// How a rollout ended, or that it has not; `current` is the workload if the revision is its newest.
fn ending(revision: &Revision, requested: Option<&Requested>, current: Option<&Value>) -> String {
    let ended: Option<Ended> = account(&revision.object, ENDED);
    let how = match (requested.zip(ended), current) {
        (Some((requested, ended)), _) => past(requested, &ended),
        (None, Some(workload)) => present(workload),
        (None, None) => "superseded".to_owned(),
    };
    how + &earlier(revision)
}

fn past(requested: &Requested, ended: &Ended) -> String {
    let taken = time::human(ended.at.0.as_second() - requested.at.0.as_second());
    let undone = if ended.undone { ", undone" } else { "" };
    match ended.how {
        How::Completed => format!("completed in {taken}{undone}"),
        How::Failed => format!("failed after {taken}{undone}"),
        How::Superseded if ended.undone => format!("undone after {taken}"),
        How::Superseded => format!("superseded after {taken}"),
    }
}

fn present(workload: &Value) -> String {
    let [partition, updated, replicas] =
        ["spec.updateStrategy.rollingUpdate.partition", "status.updatedReplicas", "spec.replicas"]
            .map(|path| workload.number(path));
    if partition > 0 && updated < replicas {
        return format!("in progress: {updated} of {replicas} pods, partition {partition}");
    }
    let progressing = words::condition(workload, "Progressing").map(|condition| condition.text("reason"));
    match (words::status(workload, 0), progressing) {
        (Ok(told), _) if told.is_done() => "completed",
        (_, Some("ProgressDeadlineExceeded")) => "failed: no progress until the deadline",
        _ if workload.flag("spec.paused") => "paused",
        _ => "in progress",
    }
    .to_owned()
}

/// A revision that was gone back to had other numbers before.
fn earlier(revision: &Revision) -> String {
    match revisions::annotation(&revision.object, EARLIER).filter(|earlier| !earlier.is_empty()) {
        Some(earlier) => format!(" (was {earlier} too)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endings() {
        let told = |ended: &str| {
            let requested = r#"{"at":"2026-01-01T12:00:00Z","by":"ada","with":"kubectl/v1.32.3"}"#;
            let object = json!({ "metadata": { "annotations": { REQUESTED: requested, ENDED: ended } } });
            let revision = Revision { number: 1, template: Value::Null, object };
            let requested = account(&revision.object, REQUESTED);
            ending(&revision, requested.as_ref(), None)
        };
        assert_eq!(told(r#"{"how":"completed","at":"2026-01-01T12:00:12Z"}"#), "completed in 12s");
        assert_eq!(
            told(r#"{"how":"completed","at":"2026-01-01T12:00:12Z","undone":true}"#),
            "completed in 12s, undone"
        );
        assert_eq!(told(r#"{"how":"failed","at":"2026-01-01T12:10:01Z","undone":true}"#), "failed after 10m, undone");
        assert_eq!(told(r#"{"how":"superseded","at":"2026-01-01T12:00:03Z"}"#), "superseded after 3s");
        assert_eq!(told(r#"{"how":"superseded","at":"2026-01-01T12:00:03Z","undone":true}"#), "undone after 3s");
        assert_eq!(told("?"), "superseded");
    }
}
