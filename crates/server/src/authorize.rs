//! Who may do what: role-based access control over the snapshot. Pure.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac`. Deny is the default; members of `system:masters` may do anything.

use api::kinds::KindInfo;
use api::{Refusal, Snapshot};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name, such as `kubernetes-admin`.
    pub name: String,
    /// Groups, such as `system:masters`.
    pub groups: Vec<String>,
}

impl User {
    /// A user with the rights of the cluster's administrator: the binary itself.
    pub fn system() -> User {
        User { name: "system:kapstan".into(), groups: vec!["system:masters".into(), "system:authenticated".into()] }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `get`, `list`, `create` …
    pub verb: &'a str,
    /// The resource: a stored kind's row, or that of what is served without being stored.
    pub info: &'static KindInfo,
    /// Name of the subresource, empty for none.
    pub subresource: &'a str,
    /// Namespace, empty for the whole cluster.
    pub namespace: &'a str,
    /// Name of the object, empty for none.
    pub name: &'a str,
}

/// Refuses with upstream's words unless a rule allows it.
pub fn authorize(world: &Snapshot, user: &User, asked: &Attributes) -> Result<(), Refusal> {
    if user.groups.iter().any(|group| group == "system:masters") || allowed(world, user, asked) {
        return Ok(());
    }
    let info = asked.info;
    let resource = if asked.subresource.is_empty() {
        info.plural.to_owned()
    } else {
        format!("{}/{}", info.plural, asked.subresource)
    };
    let place = if asked.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", asked.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, asked.verb, info.group
    );
    Err(Refusal::forbidden_resource(info, asked.name, why))
}

fn allowed(world: &Snapshot, user: &User, asked: &Attributes) -> bool {
    let cluster_wide = world
        .list::<ClusterRoleBinding>(None)
        .filter(|binding| names(binding.subjects.as_deref(), user, ""))
        .any(|binding| rules(world, &binding.role_ref, "").iter().any(|rule| allows(rule, asked)));
    if cluster_wide || asked.namespace.is_empty() {
        return cluster_wide;
    }
    world
        .list::<RoleBinding>(Some(asked.namespace))
        .filter(|binding| names(binding.subjects.as_deref(), user, asked.namespace))
        .any(|binding| rules(world, &binding.role_ref, asked.namespace).iter().any(|rule| allows(rule, asked)))
}

fn names(subjects: Option<&[Subject]>, user: &User, namespace: &str) -> bool {
    subjects.into_iter().flatten().any(|subject| match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => {
            let home = subject.namespace.as_deref().unwrap_or(namespace);
            user.name == format!("system:serviceaccount:{home}:{}", subject.name)
        }
        _ => false,
    })
}

fn rules<'a>(world: &'a Snapshot, role: &RoleRef, namespace: &str) -> &'a [PolicyRule] {
    let rules = match role.kind.as_str() {
        "ClusterRole" => world.get::<ClusterRole>("", &role.name).and_then(|role| role.rules.as_deref()),
        "Role" => world.get::<Role>(namespace, &role.name).and_then(|role| role.rules.as_deref()),
        _ => None,
    };
    rules.unwrap_or_default()
}

fn allows(rule: &PolicyRule, asked: &Attributes) -> bool {
    let info = asked.info;
    let has = |list: Option<&Vec<String>>, wanted: &str| {
        list.into_iter().flatten().any(|entry| entry == "*" || entry == wanted)
    };
    let resource_matches = rule.resources.iter().flatten().any(|entry| match entry.split_once('/') {
        _ if entry == "*" => true,
        Some((resource, subresource)) => {
            (resource == "*" || resource == info.plural) && subresource == asked.subresource
        }
        None => entry == info.plural && asked.subresource.is_empty(),
    });
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(Some(&rule.verbs), asked.verb)
        && has(rule.api_groups.as_ref(), info.group)
        && resource_matches
        && (names.is_empty() || names.iter().any(|name| name == asked.name))
}
