//! What a path means. One grammar for every kind; there is no handler per kind.

use api::Kind;
use api::kinds::KindInfo;
use api::versions::VERSIONS;

use super::absent::Absent;
use super::{measured, reviews};

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A collection, an object or a subresource.
    Resource(Target),
    /// `/api/v1/namespaces/NAMESPACE/pods/POD/proxy`, with what is below it: a pod's own paths. The same for a Service.
    Proxy(Kind, String, String),
    /// `/`.
    Paths,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// A kind of which there is never an object.
    Absent(&'static Absent),
    /// `/.well-known/openid-configuration`: who issues tokens.
    Issuer,
    /// `/openid/v1/jwks`: the keys that tokens are checked with.
    IssuerKeys,
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz`, with what is below them.
    Health,
    /// `/metrics`.
    Metrics,
    /// `/apis/authentication.k8s.io/v1/…` and `/apis/authorization.k8s.io/v1/…`.
    Review(reviews::Target),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3Index,
    /// `/openapi/v3/…`: the path of a group version, such as `apis/apps/v1`.
    OpenApiV3(String),
    /// `/apis/metrics.k8s.io/v1beta1/…`.
    Measured(measured::Target),
    /// Where agents report what is used.
    Usage,
    /// `/kapstan/v1/why/KIND/NAMESPACE/NAME`: what a workload waits for.
    Why(Kind, String, String),
    /// `/kapstan/v1/plan/KIND/NAMESPACE/NAME`: what a change of a workload would do.
    Plan(Kind, String, String),
    /// Nothing is served here.
    Unknown,
}

/// What a resource path points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// How it is served here: as it is stored, or in another version.
    pub info: &'static KindInfo,
    /// Namespace; empty for cluster-wide kinds and for lists over all namespaces.
    pub namespace: String,
    /// Name of one object, empty for the collection.
    pub name: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
}

impl Route {
    /// Parses a path without its query.
    pub fn parse(path: &str) -> Route {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] | ["index.html"] => Route::Paths,
            ["api"] => Route::CoreVersions,
            ["apis"] => Route::Groups,
            ["apis", group] => Route::Group((*group).to_owned()),
            ["api", version] => Route::GroupVersion(String::new(), (*version).to_owned()),
            ["apis", group, version] => Route::GroupVersion((*group).to_owned(), (*version).to_owned()),
            ["api", "v1", "namespaces", namespace, "pods", pod, "proxy", ..] => {
                Route::Proxy(Kind::Pod, (*namespace).to_owned(), (*pod).to_owned())
            }
            ["api", "v1", "namespaces", namespace, "services", service, "proxy", ..] => {
                Route::Proxy(Kind::Service, (*namespace).to_owned(), (*service).to_owned())
            }
            ["api", version, rest @ ..] => resource("", version, rest),
            ["apis", measured::GROUP, measured::VERSION, rest @ ..] => {
                measured::Target::parse(rest).map_or(Route::Unknown, Route::Measured)
            }
            ["apis", group, version, rest @ ..] => {
                let absent = rest.first().filter(|_| rest.len() == 1).and_then(|it| Absent::find(group, version, it));
                match (absent, reviews::Target::parse(group, version, rest)) {
                    (Some(absent), _) => Route::Absent(absent),
                    (_, Some(target)) => Route::Review(target),
                    (None, None) => resource(group, version, rest),
                }
            }
            [".well-known", "openid-configuration"] => Route::Issuer,
            ["openid", "v1", "jwks"] => Route::IssuerKeys,
            ["version"] => Route::Version,
            ["healthz" | "livez" | "readyz", ..] => Route::Health,
            ["metrics"] => Route::Metrics,
            ["openapi", "v2"] => Route::OpenApiV2,
            ["openapi", "v3"] => Route::OpenApiV3Index,
            ["openapi", "v3", rest @ ..] => Route::OpenApiV3(rest.join("/")),
            ["kapstan", "v1", "usage"] => Route::Usage,
            ["kapstan", "v1", "why", kind, namespace, name] => ours(Route::Why, kind, namespace, name),
            ["kapstan", "v1", "plan", kind, namespace, name] => ours(Route::Plan, kind, namespace, name),
            _ => Route::Unknown,
        }
    }
}

impl Route {
    /// True for a path that is no object's and needs a right of its own.
    pub fn is_path(&self) -> bool {
        matches!(
            self,
            Route::Paths
                | Route::CoreVersions
                | Route::Groups
                | Route::Group(_)
                | Route::GroupVersion(..)
                | Route::Metrics
                | Route::Issuer
                | Route::IssuerKeys
                | Route::OpenApiV2
                | Route::OpenApiV3Index
                | Route::OpenApiV3(_)
        )
    }
}

/// A path of ours about one object.
fn ours(route: fn(Kind, String, String) -> Route, plural: &str, namespace: &str, name: &str) -> Route {
    let kind = Kind::ALL.iter().find(|candidate| candidate.info().plural == plural);
    kind.map_or(Route::Unknown, |kind| route(*kind, namespace.to_owned(), name.to_owned()))
}

/// The kind of a collection, and how it is served.
fn served(group: &str, version: &str, plural: &str) -> Option<(Kind, &'static KindInfo)> {
    let is_meant = |info: &KindInfo| info.group == group && info.version == version && info.plural == plural;
    let other = || VERSIONS.iter().find(|it| is_meant(&it.info)).map(|it| (it.kind, &it.info));
    Kind::by_resource(group, version, plural).map(|kind| (kind, kind.info())).or_else(other)
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    // `/namespaces/NAME/status` is a subresource of the namespace, `/namespaces/NAME/pods` is a collection in it.
    let namespaced = match rest {
        ["namespaces", namespace, plural, tail @ ..] => {
            served(group, version, plural).filter(|(kind, _)| kind.namespaced()).map(|found| (found, *namespace, tail))
        }
        _ => None,
    };
    let ((kind, info), namespace, tail) = match (namespaced, rest) {
        (Some(found), _) => found,
        (None, [plural, tail @ ..]) => match served(group, version, plural) {
            Some(found) => (found, "", tail),
            None => return Route::Unknown,
        },
        (None, []) => return Route::Unknown,
    };
    let (name, subresource) = match tail {
        [] => ("", String::new()),
        [name] => (*name, String::new()),
        [name, subresource] => (*name, (*subresource).to_owned()),
        [..] => return Route::Unknown,
    };
    if kind.namespaced() && namespace.is_empty() && !name.is_empty() {
        return Route::Unknown;
    }
    if !subresource.is_empty() && !info.subresources.contains(&subresource.as_str()) {
        return Route::Unknown;
    }
    Route::Resource(Target { kind, info, namespace: namespace.to_owned(), name: name.to_owned(), subresource })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<(Kind, String, String, String)> {
        match Route::parse(path) {
            Route::Resource(target) => Some((target.kind, target.namespace, target.name, target.subresource)),
            _ => None,
        }
    }

    #[test]
    fn paths_of_resources() {
        let expect = |kind, namespace: &str, name: &str, sub: &str| {
            Some((kind, namespace.to_owned(), name.to_owned(), sub.to_owned()))
        };
        assert_eq!(target("/api/v1/pods"), expect(Kind::Pod, "", "", ""));
        assert_eq!(target("/api/v1/namespaces/a/pods/p/log"), expect(Kind::Pod, "a", "p", "log"));
        assert_eq!(target("/api/v1/namespaces/a"), expect(Kind::Namespace, "", "a", ""));
        assert_eq!(target("/api/v1/namespaces/a/finalize"), expect(Kind::Namespace, "", "a", "finalize"));
        assert_eq!(
            target("/apis/apps/v1/namespaces/a/deployments/d/scale"),
            expect(Kind::Deployment, "a", "d", "scale")
        );
        assert_eq!(target("/api/v1/pods/p"), None);
        assert_eq!(target("/api/v1/namespaces/a/pods/p/nope"), None);
        for rest in ["", "/", "/a/b/"] {
            let route = Route::parse(&format!("/api/v1/namespaces/a/pods/p:80/proxy{rest}"));
            assert_eq!(route, Route::Proxy(Kind::Pod, "a".into(), "p:80".into()));
        }
        assert_eq!(target("/apis/apps/v1beta1/deployments"), None);
    }

    #[test]
    fn other_versions_are_served_under_their_names() {
        let served = |path: &str| match Route::parse(path) {
            Route::Resource(target) => format!("{} {}", target.kind, target.info.api_version()),
            other => format!("{other:?}"),
        };
        assert_eq!(served("/api/v1/events"), "Event v1");
        assert_eq!(served("/apis/events.k8s.io/v1/namespaces/a/events/e"), "Event events.k8s.io/v1");
        assert_eq!(
            served("/apis/autoscaling/v1/namespaces/a/horizontalpodautoscalers/h/status"),
            "HorizontalPodAutoscaler autoscaling/v1"
        );
        assert_eq!(served("/apis/events.k8s.io/v1beta1/events"), "Unknown");
    }
}
