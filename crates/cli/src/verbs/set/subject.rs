//! `set subject`. Mirrors kubectl `pkg/cmd/set/set_subject.go`.

use serde_json::{Value, json};

use super::{Change, Common};
use crate::change::Record;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;

const API_GROUP: &str = "rbac.authorization.k8s.io";

/// Give the role of bindings to more users, groups and service accounts.
///
/// Examples:
///   kapstan set subject rolebinding/readers --user=jane --group=staff
///   kapstan set subject clusterrolebinding/readers --serviceaccount=default:robot
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME of role bindings; --user names the users.
    words: Vec<String>,
    /// Group; may be repeated.
    #[arg(long, value_delimiter = ',')]
    group: Vec<String>,
    /// Service account as NAMESPACE:NAME; may be repeated.
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE:NAME")]
    serviceaccount: Vec<String>,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Adds them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    // Here the flag `--user` names who is bound, not a user of the kubeconfig.
    let users = std::mem::take(&mut session.global.user);
    options.common.check(session, options.selector.as_ref())?;
    let subjects = subjects(&users, &options)?;
    let found = options.common.find(session, &options.words, options.selector.as_ref()).await?;
    let change =
        Change { done: "subjects updated", failed: "failed to patch subjects to rolebinding:", silent_if_same: true };
    let edit = |object: &mut Value| {
        if !matches!(object.text("kind"), "RoleBinding" | "ClusterRoleBinding") {
            return Err(format!("{} has no subjects", object.text("kind")));
        }
        let there = object.list("subjects").to_vec();
        let more = subjects.iter().filter(|subject| !there.contains(subject));
        let all: Vec<Value> = there.iter().chain(more).cloned().collect();
        object["subjects"] = all.into();
        Ok(())
    };
    options.common.apply(session, &found, &Record::default(), &change, edit).await
}

fn subjects(users: &[String], options: &Options) -> Result<Vec<Value>> {
    let named = |kind: &str, name: &str| json!({"apiGroup": API_GROUP, "kind": kind, "name": name});
    let mut subjects: Vec<Value> =
        users.iter().flat_map(|users| users.split(',')).map(|user| named("User", user)).collect();
    subjects.extend(options.group.iter().map(|group| named("Group", group)));
    for account in &options.serviceaccount {
        let parts = account.split_once(':').filter(|(_, name)| !name.is_empty() && !name.contains(':'));
        let (namespace, name) = parts.ok_or_else(|| Error::told("serviceaccount must be <namespace>:<name>"))?;
        subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    match subjects.is_empty() {
        true => Err(Error::told("you must specify at least one value of user, group or serviceaccount")),
        false => Ok(subjects),
    }
}
