//! `create role|clusterrole|rolebinding|clusterrolebinding`. Mirrors kubectl `create_role.go` and its neighbours.

use serde_json::{Value, json};

use super::{Making, make, metadata, pair};
use crate::errors::{Error, Result};
use crate::session::Session;

/// What can be done with resources.
const VERBS: [&str; 14] = [
    "*",
    "get",
    "delete",
    "list",
    "create",
    "update",
    "patch",
    "watch",
    "proxy",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
];
const API_GROUP: &str = "rbac.authorization.k8s.io";

/// Create a role.
#[derive(clap::Args)]
pub struct RoleOptions {
    /// Its name.
    name: String,
    /// What is allowed: get, list, watch, create, ...
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// On which resources: pods, deployments.apps, pods/log, ...
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    /// Only on objects of this name; may be repeated.
    #[arg(long, value_delimiter = ',')]
    resource_name: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// Create a cluster role.
#[derive(clap::Args)]
pub struct ClusterRoleOptions {
    /// Its name.
    name: String,
    /// What is allowed: get, list, watch, create, ...
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// On which resources: pods, deployments.apps, pods/log, ...
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    /// Only on objects of this name; may be repeated.
    #[arg(long, value_delimiter = ',')]
    resource_name: Vec<String>,
    /// On which paths, such as /metrics.
    #[arg(long = "non-resource-url", value_delimiter = ',')]
    non_resource_url: Vec<String>,
    /// KEY=VALUE: made of the cluster roles with this label.
    #[arg(long, value_delimiter = ',')]
    aggregation_rule: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// Create a role binding.
#[derive(clap::Args)]
pub struct RoleBindingOptions {
    /// Its name.
    name: String,
    /// The role.
    #[arg(long)]
    role: Option<String>,
    #[command(flatten)]
    binding: Binding,
}

/// Create a cluster role binding.
#[derive(clap::Args)]
pub struct ClusterRoleBindingOptions {
    /// Its name.
    name: String,
    #[command(flatten)]
    binding: Binding,
}

/// To whom.
#[derive(clap::Args)]
pub struct Binding {
    /// The cluster role.
    #[arg(long)]
    clusterrole: Option<String>,
    /// A group that gets it; may be repeated.
    #[arg(long, value_delimiter = ',')]
    group: Vec<String>,
    /// NAMESPACE:NAME of a service account that gets it; may be repeated.
    #[arg(long, value_delimiter = ',')]
    serviceaccount: Vec<String>,
    #[command(flatten)]
    making: Making,
}

async fn rules(session: &mut Session, verbs: &[String], resources: &[String], names: &[String]) -> Result<Vec<Value>> {
    if verbs.is_empty() {
        return Err(Error::told("at least one verb must be specified"));
    }
    if resources.is_empty() {
        return Err(Error::told("at least one resource must be specified"));
    }
    for verb in verbs.iter().filter(|verb| !VERBS.contains(&verb.as_str())) {
        session.warn(format!("Warning: '{verb}' is not a standard resource verb"))?;
    }
    let discovery = session.client()?.discovery().await?;
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for text in resources {
        let (word, subresource) = text.split_once('/').map_or((text.as_str(), None), |(word, sub)| (word, Some(sub)));
        let (group, plural) = match word {
            "*" => ("*".to_owned(), "*".to_owned()),
            word => {
                let found = discovery
                    .resource(word)
                    .map_err(|_| Error::told(format!("the server doesn't have a resource type {word:?}")))?;
                (found.group.clone(), found.plural.clone())
            }
        };
        let name = subresource.map_or(plural.clone(), |subresource| format!("{plural}/{subresource}"));
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, names)) => names.push(name),
            None => groups.push((group, vec![name])),
        }
    }
    let rule = |(group, resources): (String, Vec<String>)| {
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        if !names.is_empty() {
            rule["resourceNames"] = names.into();
        }
        rule
    };
    Ok(groups.into_iter().map(rule).collect())
}

pub(super) async fn role(session: &mut Session, options: RoleOptions) -> Result<()> {
    let rules = rules(session, &options.verb, &options.resource, &options.resource_name).await?;
    let object = json!({
        "apiVersion": format!("{API_GROUP}/v1"), "kind": "Role", "metadata": metadata(&options.name), "rules": rules,
    });
    make(session, &options.making, object, true).await
}

pub(super) async fn cluster_role(session: &mut Session, options: ClusterRoleOptions) -> Result<()> {
    let mut object = json!({
        "apiVersion": format!("{API_GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata(&options.name), "rules": null,
    });
    if !options.aggregation_rule.is_empty() {
        let mut labels = json!({});
        for text in &options.aggregation_rule {
            let (key, value) = pair(text, "aggregation rule")?;
            labels[key] = value.into();
        }
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        return make(session, &options.making, object, false).await;
    }
    let mut all = match (options.resource.is_empty(), options.non_resource_url.is_empty()) {
        (true, false) => Vec::new(),
        _ => rules(session, &options.verb, &options.resource, &options.resource_name).await?,
    };
    if !options.non_resource_url.is_empty() {
        all.push(json!({"nonResourceURLs": options.non_resource_url, "verbs": options.verb}));
    }
    object["rules"] = all.into();
    make(session, &options.making, object, false).await
}

fn binding(session: &mut Session, kind: &str, name: &str, role: (&str, &str), to: &Binding) -> Result<Value> {
    let mut subjects = Vec::new();
    let named = |kind: &str, name: &String| json!({"apiGroup": API_GROUP, "kind": kind, "name": name});
    // Here the flag `--user` names who is bound, not a user of the kubeconfig.
    let users = std::mem::take(&mut session.global.user);
    subjects.extend(users.iter().flat_map(|user| user.split(',')).map(|user| named("User", &user.to_owned())));
    subjects.extend(to.group.iter().map(|group| named("Group", group)));
    for account in &to.serviceaccount {
        let (namespace, name) = account
            .split_once(':')
            .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
            .ok_or_else(|| Error::told("serviceaccount must be <namespace>:<name>"))?;
        subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    let mut object = json!({
        "apiVersion": format!("{API_GROUP}/v1"),
        "kind": kind,
        "metadata": metadata(name),
        "roleRef": {"apiGroup": API_GROUP, "kind": role.0, "name": role.1},
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    Ok(object)
}

pub(super) async fn role_binding(session: &mut Session, options: RoleBindingOptions) -> Result<()> {
    let role = match (&options.role, &options.binding.clusterrole) {
        (Some(role), None) => ("Role", role.as_str()),
        (None, Some(role)) => ("ClusterRole", role.as_str()),
        _ => return Err(Error::told("exactly one of clusterrole or role must be specified")),
    };
    let object = binding(session, "RoleBinding", &options.name, role, &options.binding)?;
    make(session, &options.binding.making, object, true).await
}

pub(super) async fn cluster_role_binding(session: &mut Session, options: ClusterRoleBindingOptions) -> Result<()> {
    let role = options
        .binding
        .clusterrole
        .as_deref()
        .ok_or_else(|| Error::told("required flag(s) \"clusterrole\" not set"))?;
    let object = binding(session, "ClusterRoleBinding", &options.name, ("ClusterRole", role), &options.binding)?;
    make(session, &options.binding.making, object, false).await
}
