//! Questions about rights: who is this, may they, what may they. Nothing of it is stored.
//!
//! Mirrors upstream's `pkg/registry/authentication/{tokenreview,selfsubjectreview}` and
//! `pkg/registry/authorization/*`: a review is posted and comes back with its status filled in.

use api::Refusal;
use api::kinds::{KindInfo, Scope};
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReviewSpec, SelfSubjectRulesReviewSpec,
    SubjectAccessReviewSpec,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Gate, negotiate, reply, write};
use crate::authorize::{Asked, Attributes, User, authorize, review, review_path, rules_for};
use crate::decode;
use crate::tokens::ISSUER;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const VERSION: &str = "v1";

const fn row(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
) -> KindInfo {
    KindInfo {
        group,
        version: VERSION,
        kind,
        plural,
        singular,
        short_names: &[],
        scope,
        subresources: &[],
        categories: &[],
    }
}

/// What can be asked, as discovery lists it.
pub static RESOURCES: [KindInfo; 6] = [
    row(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", Scope::Cluster),
    row(AUTHENTICATION, "TokenReview", "tokenreviews", "tokenreview", Scope::Cluster),
    row(
        AUTHORIZATION,
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        Scope::Namespaced,
    ),
    row(
        AUTHORIZATION,
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        Scope::Cluster,
    ),
    row(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview", Scope::Cluster),
    row(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview", Scope::Cluster),
];

/// What a path of these groups points at.
#[derive(Clone, Debug)]
pub struct Target {
    info: &'static KindInfo,
    namespace: String,
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.info.kind == other.info.kind && self.namespace == other.namespace
    }
}

impl Eq for Target {}

impl Target {
    /// Parses a path of these groups.
    pub fn parse(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
        let (namespace, plural) = match *rest {
            [plural] => ("", plural),
            ["namespaces", namespace, plural] => (namespace, plural),
            _ => return None,
        };
        let info =
            RESOURCES.iter().find(|info| info.group == group && info.version == version && info.plural == plural);
        let info = info.filter(|info| (info.scope == Scope::Namespaced) != namespace.is_empty())?;
        Some(Target { info, namespace: namespace.to_owned() })
    }
}

/// Answers a question.
pub async fn answer(gate: &Gate, user: &User, target: &Target, request: HttpRequest) -> Result<Response, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let world = gate.snapshot();
    let asked =
        Attributes { verb: "create", info: target.info, subresource: "", namespace: &target.namespace, name: "" };
    authorize(&world, user, &asked)?;
    negotiate::plain(request.headers())?;
    let media = write::media_type(request.headers());
    let body = write::json_body(write::read_body(request.into_body()).await?, &media)?;
    let mut value = decode::document(&body)?;
    check_kind(target.info, &value)?;
    let status = match target.info.kind {
        "SelfSubjectReview" => json!({ "userInfo": told(user) }),
        "TokenReview" => token(gate, &spec(&value)?)?,
        "SelfSubjectAccessReview" => {
            let spec: SelfSubjectAccessReviewSpec = spec(&value)?;
            access(&world, user, spec.resource_attributes, spec.non_resource_attributes, target)?
        }
        "SelfSubjectRulesReview" => rules(&world, user, &spec(&value)?)?,
        _ => subject(&world, spec(&value)?, target)?,
    };
    value["apiVersion"] = target.info.api_version().into();
    value["kind"] = target.info.kind.into();
    value["status"] = status;
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    Ok(reply::bytes(StatusCode::CREATED, Bytes::from(value.to_string())))
}

fn check_kind(info: &KindInfo, value: &Value) -> Result<(), Refusal> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    if (version.is_empty() || version == info.api_version()) && (kind.is_empty() || kind == info.kind) {
        return Ok(());
    }
    Err(Refusal::bad_request(format!(
        "the API version in the data ({version}, Kind={kind}) does not match the expected API version ({}, Kind={})",
        info.api_version(),
        info.kind
    )))
}

fn spec<T: DeserializeOwned + Default>(value: &Value) -> Result<T, Refusal> {
    let Some(spec) = value.get("spec").filter(|spec| !spec.is_null()) else { return Ok(T::default()) };
    serde_json::from_value(spec.clone()).map_err(|error| Refusal::bad_request(format!("spec: {error}")))
}

fn invalid(target: &Target, field: &str, value: &str, why: &str) -> Refusal {
    let info = target.info;
    let message = format!("{}.{} \"\" is invalid: {field}: Invalid value: {value}: {why}", info.kind, info.group);
    Refusal::new(422, "Invalid", message)
}

fn told(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
    }
}

fn token(gate: &Gate, spec: &TokenReviewSpec) -> Result<Value, Refusal> {
    let token = spec.token.as_str();
    if token.is_empty() {
        return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = spec.audiences.clone().filter(|audiences| !audiences.is_empty());
    let audiences = audiences.unwrap_or_else(|| vec![ISSUER.to_owned()]);
    Ok(match gate.authenticator.user(token, &audiences) {
        Ok((user, audiences)) => json!({ "authenticated": true, "user": told(&user), "audiences": audiences }),
        Err(why) => json!({ "user": {}, "error": why }),
    })
}

fn subject(world: &api::Snapshot, spec: SubjectAccessReviewSpec, target: &Target) -> Result<Value, Refusal> {
    let user = User {
        name: spec.user.unwrap_or_default(),
        uid: spec.uid.unwrap_or_default(),
        groups: spec.groups.unwrap_or_default(),
        extra: spec.extra.unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(invalid(target, "spec.user", "\"\"", "at least one of user or group must be specified"));
    }
    if !target.namespace.is_empty() {
        let asked = spec.resource_attributes.as_ref().and_then(|asked| asked.namespace.as_deref()).unwrap_or("");
        if asked != target.namespace {
            let why = format!("namespace on resource doesn't match: \"{}\"", target.namespace);
            return Err(invalid(target, "spec.resourceAttributes.namespace", &format!("\"{asked}\""), &why));
        }
    }
    access(world, &user, spec.resource_attributes, spec.non_resource_attributes, target)
}

fn access(
    world: &api::Snapshot,
    user: &User,
    resource: Option<ResourceAttributes>,
    path: Option<NonResourceAttributes>,
    target: &Target,
) -> Result<Value, Refusal> {
    let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let allowed = match (resource, path) {
        (Some(asked), None) => {
            let parts = [
                text(&asked.verb),
                text(&asked.group),
                text(&asked.resource),
                text(&asked.subresource),
                text(&asked.namespace),
                text(&asked.name),
            ];
            let [verb, group, resource, subresource, namespace, name] = parts.each_ref().map(String::as_str);
            review(world, user, &Asked { verb, group, resource, subresource, namespace, name })
        }
        (None, Some(asked)) => review_path(world, user, &text(&asked.verb), &text(&asked.path)),
        (given, _) => {
            let value = if given.is_some() { "{}" } else { "null" };
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid(target, "spec.resourceAttributes", value, why));
        }
    };
    Ok(match allowed {
        Some(reason) if reason.is_empty() => json!({ "allowed": true }),
        Some(reason) => json!({ "allowed": true, "reason": reason }),
        None => json!({ "allowed": false }),
    })
}

fn rules(world: &api::Snapshot, user: &User, spec: &SelfSubjectRulesReviewSpec) -> Result<Value, Refusal> {
    let namespace = spec.namespace.as_deref().unwrap_or("");
    if namespace.is_empty() {
        return Err(Refusal::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules_for(world, user, namespace) {
        if rule.resources.as_ref().is_some_and(|resources| !resources.is_empty()) {
            let mut told = json!({ "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources });
            if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
                told["resourceNames"] = json!(names);
            }
            resources.push(told);
        }
        if rule.non_resource_urls.as_ref().is_some_and(|paths| !paths.is_empty()) {
            paths.push(json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }));
        }
    }
    Ok(json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false }))
}

#[cfg(test)]
mod tests {
    use api::{Kind, Object, Snapshot};
    use expect_test::expect;

    use super::*;

    /// Jane may read pods in `d`, and `/metrics`; developers may change one ConfigMap anywhere.
    fn world() -> Snapshot {
        let mut world = Snapshot::default();
        let role = |kind: Kind, name: &str, rules: Value| {
            let namespace = if kind == Kind::Role { "d" } else { "" };
            (kind, json!({ "metadata": { "name": name, "namespace": namespace }, "rules": rules }))
        };
        let binding = |kind: Kind, role: Kind, name: &str, subject: Value| {
            let namespace = if kind == Kind::RoleBinding { "d" } else { "" };
            let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": role.info().kind, "name": name });
            (
                kind,
                json!({ "metadata": { "name": name, "namespace": namespace }, "roleRef": role, "subjects": [subject] }),
            )
        };
        let jane = json!({ "kind": "User", "name": "jane" });
        let objects = [
            role(
                Kind::Role,
                "reader",
                json!([{ "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"] }]),
            ),
            binding(Kind::RoleBinding, Kind::Role, "reader", jane.clone()),
            role(Kind::ClusterRole, "scraper", json!([{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }])),
            binding(Kind::ClusterRoleBinding, Kind::ClusterRole, "scraper", jane),
            role(
                Kind::ClusterRole,
                "tuner",
                json!([{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["tuning"], "verbs": ["update"] }]),
            ),
            binding(
                Kind::ClusterRoleBinding,
                Kind::ClusterRole,
                "tuner",
                json!({ "kind": "Group", "name": "developers" }),
            ),
        ];
        for (kind, value) in objects {
            world.put(Object::written(kind.decode(value).unwrap(), world.revision() + 1));
        }
        world
    }

    fn shown(answer: Result<Value, Refusal>) -> String {
        answer.map_or_else(|refusal| format!("{} {}", refusal.code, refusal.message), |value| value.to_string())
    }

    #[test]
    fn what_others_may() {
        let world = world();
        let ask = |path: &[&str], spec: Value| {
            let target = Target::parse(AUTHORIZATION, VERSION, path).unwrap();
            shown(
                serde_json::from_value(spec).map_err(Refusal::internal).and_then(|spec| subject(&world, spec, &target)),
            )
        };
        let anywhere = ["subjectaccessreviews"];
        let in_d = ["namespaces", "d", "localsubjectaccessreviews"];
        let resource = |verb: &str, resource: &str, namespace: &str| json!({ "verb": verb, "resource": resource, "namespace": namespace });
        let tuning = |name: &str| json!({ "verb": "update", "resource": "configmaps", "namespace": "e", "name": name });
        let log = json!({ "verb": "get", "resource": "pods", "subresource": "log", "namespace": "d", "name": "p" });
        let cases = [
            ask(&anywhere, json!({ "user": "jane", "resourceAttributes": resource("get", "pods", "d") })),
            ask(&anywhere, json!({ "user": "jane", "resourceAttributes": log })),
            ask(&anywhere, json!({ "user": "jane", "resourceAttributes": resource("delete", "pods", "d") })),
            ask(&anywhere, json!({ "user": "jane", "resourceAttributes": resource("get", "pods", "") })),
            ask(&anywhere, json!({ "user": "joe", "groups": ["developers"], "resourceAttributes": tuning("tuning") })),
            ask(&anywhere, json!({ "groups": ["developers"], "resourceAttributes": tuning("other") })),
            ask(
                &anywhere,
                json!({ "user": "joe", "groups": ["system:masters"], "resourceAttributes": tuning("other") }),
            ),
            ask(&anywhere, json!({ "user": "jane", "nonResourceAttributes": { "verb": "get", "path": "/metrics" } })),
            ask(&anywhere, json!({ "user": "jane", "nonResourceAttributes": { "verb": "get", "path": "/logs" } })),
            ask(&anywhere, json!({ "resourceAttributes": resource("get", "pods", "d") })),
            ask(&anywhere, json!({ "user": "jane" })),
            ask(&in_d, json!({ "user": "jane", "resourceAttributes": resource("get", "pods", "d") })),
            ask(&in_d, json!({ "user": "jane", "resourceAttributes": resource("get", "pods", "e") })),
        ];
        expect![[r#"
            {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"reader/d\" of Role \"reader\" to User \"jane\""}
            {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"reader/d\" of Role \"reader\" to User \"jane\""}
            {"allowed":false}
            {"allowed":false}
            {"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"tuner\" of ClusterRole \"tuner\" to Group \"developers\""}
            {"allowed":false}
            {"allowed":true}
            {"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"scraper\" of ClusterRole \"scraper\" to User \"jane\""}
            {"allowed":false}
            422 SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified
            422 SubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified
            {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"reader/d\" of Role \"reader\" to User \"jane\""}
            422 LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "e": namespace on resource doesn't match: "d"
        "#]].assert_eq(&(cases.join("\n") + "\n"));
    }

    #[test]
    fn what_one_may_oneself() {
        let (world, jane) =
            (world(), User { name: "jane".into(), groups: vec!["developers".into()], ..User::default() });
        let of = |namespace: &str| {
            let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
            shown(rules(&world, &jane, &spec))
        };
        expect![[r#"
            {"incomplete":false,"nonResourceRules":[{"nonResourceURLs":["/metrics"],"verbs":["get"]}],"resourceRules":[{"apiGroups":[""],"resourceNames":["tuning"],"resources":["configmaps"],"verbs":["update"]},{"apiGroups":[""],"resources":["pods","pods/log"],"verbs":["get","list"]}]}
            {"incomplete":false,"nonResourceRules":[{"nonResourceURLs":["/metrics"],"verbs":["get"]}],"resourceRules":[{"apiGroups":[""],"resourceNames":["tuning"],"resources":["configmaps"],"verbs":["update"]}]}
            400 no namespace on request
        "#]].assert_eq(&format!("{}\n{}\n{}\n", of("d"), of("e"), of("")));
    }

    #[test]
    fn paths_and_kinds_of_reviews() {
        let parsed = |group: &str, path: &[&str]| Target::parse(group, VERSION, path).is_some();
        assert!(parsed(AUTHORIZATION, &["subjectaccessreviews"]) && parsed(AUTHENTICATION, &["tokenreviews"]));
        assert!(parsed(AUTHORIZATION, &["namespaces", "d", "localsubjectaccessreviews"]));
        assert!(!parsed(AUTHORIZATION, &["localsubjectaccessreviews"]) && !parsed(AUTHORIZATION, &["tokenreviews"]));
        assert!(!parsed(AUTHORIZATION, &["namespaces", "d", "subjectaccessreviews"]));
        let info = &RESOURCES[1];
        assert_eq!(check_kind(info, &json!({})), Ok(()));
        assert_eq!(
            check_kind(info, &json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview" })),
            Ok(())
        );
        let refusal = check_kind(info, &json!({ "apiVersion": "v1", "kind": "Pod" })).unwrap_err();
        let why = "the API version in the data (v1, Kind=Pod) does not match the expected API version (authentication.k8s.io/v1, Kind=TokenReview)";
        assert_eq!((refusal.code, refusal.message.as_str()), (400, why));
    }
}
