//! Who may do what: role-based access control over the snapshot. Pure.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac`. Deny is the default; members of `system:masters` may do anything.

use std::collections::BTreeMap;

use api::kinds::KindInfo;
use api::{Refusal, Snapshot};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name, such as `kubernetes-admin`.
    pub name: String,
    /// Uid, where the user is an object.
    pub uid: String,
    /// Groups, such as `system:masters`.
    pub groups: Vec<String>,
    /// What else is known, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user with the rights of the cluster's administrator: the binary itself.
    pub fn system() -> User {
        let groups = vec!["system:masters".into(), "system:authenticated".into()];
        User { name: "system:kapstan".into(), groups, ..User::default() }
    }

    /// True for those who may do anything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
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

/// The same as a review asks for it: of a resource that may not be there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `get`, `list`, `create` …
    pub verb: &'a str,
    /// Group, empty for the core group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Name of the subresource, empty for none.
    pub subresource: &'a str,
    /// Namespace, empty for the whole cluster.
    pub namespace: &'a str,
    /// Name of the object, empty for none.
    pub name: &'a str,
}

impl<'a> Attributes<'a> {
    fn asked(&self) -> Asked<'a> {
        let Attributes { verb, info, subresource, namespace, name } = *self;
        Asked { verb, group: info.group, resource: info.plural, subresource, namespace, name }
    }
}

/// Refuses with upstream's words unless a rule allows it.
pub fn authorize(world: &Snapshot, user: &User, asked: &Attributes) -> Result<(), Refusal> {
    let refused = |why| Refusal::forbidden_resource(asked.info, asked.name, why);
    allowed(world, user, &asked.asked()).map_err(refused)
}

/// The same of a resource that another server serves.
pub fn authorize_extension(world: &Snapshot, user: &User, asked: &Asked) -> Result<(), Refusal> {
    allowed(world, user, asked).map_err(|why| {
        let Asked { resource, group, name, .. } = asked;
        let quoted = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let mut refusal = Refusal::new(403, "Forbidden", format!("{resource}.{group}{quoted} is forbidden: {why}"));
        (refusal.kind, refusal.name) = ((*resource).to_owned(), (*name).to_owned());
        refusal
    })
}

/// Fine if a rule allows it; else why not.
fn allowed(world: &Snapshot, user: &User, asked: &Asked) -> Result<(), String> {
    if review(world, user, asked).is_some() {
        return Ok(());
    }
    let resource = if asked.subresource.is_empty() {
        asked.resource.to_owned()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let place = if asked.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", asked.namespace)
    };
    Err(format!(
        "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, asked.verb, asked.group
    ))
}

/// The same for a path that is no object's, such as `/metrics`.
pub fn authorize_path(world: &Snapshot, user: &User, verb: &str, path: &str) -> Result<(), Refusal> {
    if review_path(world, user, verb, path).is_some() {
        return Ok(());
    }
    let message = format!("forbidden: User \"{}\" cannot {verb} path \"{path}\"", user.name);
    Err(Refusal::new(403, "Forbidden", message))
}

/// Why this user may do this, as reviews tell it; `None` if nothing allows it.
pub fn review(world: &Snapshot, user: &User, asked: &Asked) -> Option<String> {
    if user.is_master() {
        return Some(String::new());
    }
    allowed_by(world, user, asked.namespace, |rule| allows(rule, asked))
}

/// As [`review`], for a path.
pub fn review_path(world: &Snapshot, user: &User, verb: &str, path: &str) -> Option<String> {
    if user.is_master() {
        return Some(String::new());
    }
    allowed_by(world, user, "", |rule| allows_path(rule, verb, path))
}

/// All rules that hold for a user in a namespace.
pub fn rules_for<'a>(world: &'a Snapshot, user: &User, namespace: &str) -> Vec<&'a PolicyRule> {
    granted(world, user, namespace).flat_map(|grant| grant.rules).collect()
}

/// A binding that names the user, and what it gives.
struct Grant<'a> {
    /// `ClusterRoleBinding "x"`, as reasons name it.
    binding: String,
    role: &'a RoleRef,
    subject: &'a Subject,
    rules: &'a [PolicyRule],
}

fn granted<'a>(world: &'a Snapshot, user: &User, namespace: &str) -> impl Iterator<Item = Grant<'a>> {
    let cluster_wide = world.list::<ClusterRoleBinding>(None).filter_map(move |binding| {
        let subject = named(binding.subjects.as_deref(), user, "")?;
        let name = binding.metadata.name.as_deref().unwrap_or("");
        let rules = rules(world, &binding.role_ref, "");
        Some(Grant { binding: format!("ClusterRoleBinding \"{name}\""), role: &binding.role_ref, subject, rules })
    });
    let bindings = (!namespace.is_empty()).then(|| world.list::<RoleBinding>(Some(namespace)));
    let namespaced = bindings.into_iter().flatten().filter_map(move |binding| {
        let home = binding.metadata.namespace.as_deref().unwrap_or("");
        let subject = named(binding.subjects.as_deref(), user, home)?;
        let name = binding.metadata.name.as_deref().unwrap_or("");
        let rules = rules(world, &binding.role_ref, home);
        Some(Grant { binding: format!("RoleBinding \"{name}/{home}\""), role: &binding.role_ref, subject, rules })
    });
    cluster_wide.chain(namespaced).collect::<Vec<_>>().into_iter()
}

fn allowed_by(world: &Snapshot, user: &User, namespace: &str, allows: impl Fn(&PolicyRule) -> bool) -> Option<String> {
    let grant = granted(world, user, namespace).find(|grant| grant.rules.iter().any(&allows))?;
    let subject = match (grant.subject.kind.as_str(), grant.subject.namespace.as_deref()) {
        ("ServiceAccount", Some(namespace)) => format!("{}/{namespace}", grant.subject.name),
        _ => grant.subject.name.clone(),
    };
    Some(format!(
        "RBAC: allowed by {} of {} \"{}\" to {} \"{subject}\"",
        grant.binding, grant.role.kind, grant.role.name, grant.subject.kind
    ))
}

/// The first of the subjects that is the user.
fn named<'a>(subjects: Option<&'a [Subject]>, user: &User, namespace: &str) -> Option<&'a Subject> {
    subjects.into_iter().flatten().find(|subject| match subject.kind.as_str() {
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

fn has(list: Option<&Vec<String>>, wanted: &str) -> bool {
    list.into_iter().flatten().any(|entry| entry == "*" || entry == wanted)
}

fn allows(rule: &PolicyRule, asked: &Asked) -> bool {
    let resource_matches = rule.resources.iter().flatten().any(|entry| match entry.split_once('/') {
        _ if entry == "*" => true,
        Some((resource, subresource)) => {
            (resource == "*" || resource == asked.resource) && subresource == asked.subresource
        }
        None => entry == asked.resource && asked.subresource.is_empty(),
    });
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(Some(&rule.verbs), asked.verb)
        && has(rule.api_groups.as_ref(), asked.group)
        && resource_matches
        && (names.is_empty() || names.iter().any(|name| name == asked.name))
}

fn allows_path(rule: &PolicyRule, verb: &str, path: &str) -> bool {
    let matches = |entry: &String| match entry.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => entry == path,
    };
    has(Some(&rule.verbs), verb) && rule.non_resource_urls.iter().flatten().any(matches)
}
