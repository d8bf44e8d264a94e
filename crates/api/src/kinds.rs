//! The one table of kinds: what the API serves, how it is named, and which typed body stands behind it.
//!
//! Everything generic (routes, discovery, storage keys, decoding) is derived from this table; a new kind is a new row
//! (checklist: CONTRIBUTING.md). Mirrors what upstream spreads over `pkg/registry/*/storage` and `pkg/apis/*/register.go`.

use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
    storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster as a whole.
    Cluster,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct KindInfo {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Name of the kind.
    pub kind: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name as a person types it.
    pub singular: &'static str,
    /// Abbreviations.
    pub short_names: &'static [&'static str],
    /// Where it lives.
    pub scope: Scope,
    /// Names of subresources.
    pub subresources: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub categories: &'static [&'static str],
}

impl KindInfo {
    /// `group/version`, or only the version for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, or only the plural for the core group: how messages name a resource.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Kind.group`, or only the kind for the core group: how `Invalid` errors name a kind.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// A type that is the body of a kind.
pub trait Typed: Sized {
    /// The kind it is the body of.
    const KIND: Kind;
    /// The typed body, when `body` is of this kind.
    fn of(body: &Body) -> Option<&Self>;
    /// As [`Typed::of`], by value.
    fn take(body: Body) -> Option<Self>;
    /// Wraps a typed value.
    fn into_body(self) -> Body;
}

macro_rules! kinds {
    ($( $variant:ident: $ty:ty, $group:literal $version:literal $plural:literal $singular:literal $short:tt $scope:ident sub $subs:tt cat $cats:tt; )*) => {
        /// A kind of object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $( #[doc = concat!("`", $plural, "`")] $variant, )* }

        /// The typed content of an object: one variant per kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Body { $( #[doc = concat!("A ", stringify!($variant), ".")] $variant(Box<$ty>), )* }

        impl Kind {
            /// Every kind, in table order.
            pub const ALL: &'static [Kind] = &[ $( Kind::$variant, )* ];
            /// Number of kinds.
            pub const COUNT: usize = Self::ALL.len();

            /// The row of this kind.
            pub fn info(self) -> &'static KindInfo {
                match self { $( Kind::$variant => {
                    const INFO: KindInfo = KindInfo {
                        group: $group, version: $version, kind: stringify!($variant), plural: $plural, singular: $singular,
                        short_names: &$short, scope: Scope::$scope, subresources: &$subs, categories: &$cats,
                    };
                    &INFO
                } )* }
            }

            /// Decodes a JSON value into the typed body. Types were checked by the schema before; what still fails is told as serde words it.
            pub fn decode(self, value: serde_json::Value) -> Result<Body, serde_json::Error> {
                Ok(match self { $( Kind::$variant => Body::$variant(Box::new(serde_json::from_value::<$ty>(value)?)), )* })
            }

            /// Decodes stored JSON bytes.
            pub fn decode_slice(self, json: &[u8]) -> Result<Body, serde_json::Error> {
                Ok(match self { $( Kind::$variant => Body::$variant(Box::new(serde_json::from_slice::<$ty>(json)?)), )* })
            }
        }

        impl Body {
            /// The kind of this body.
            pub fn kind(&self) -> Kind { match self { $( Body::$variant(_) => Kind::$variant, )* } }
            /// The object's metadata.
            pub fn meta(&self) -> &ObjectMeta { match self { $( Body::$variant(body) => &body.metadata, )* } }
            /// The object's metadata, to be changed.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta { match self { $( Body::$variant(body) => &mut body.metadata, )* } }
            /// The object's JSON, with `apiVersion` and `kind`.
            pub fn encode(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(2048);
                match self { $( Body::$variant(body) => serde_json::to_writer(&mut out, body), )* }.expect("typed objects always encode");
                out
            }
            /// The object as a JSON value.
            pub fn to_value(&self) -> serde_json::Value {
                match self { $( Body::$variant(body) => serde_json::to_value(body), )* }.expect("typed objects always encode")
            }
        }

        $( impl Typed for $ty {
            const KIND: Kind = Kind::$variant;
            fn of(body: &Body) -> Option<&Self> { match body { Body::$variant(body) => Some(body), _ => None } }
            fn take(body: Body) -> Option<Self> { match body { Body::$variant(body) => Some(*body), _ => None } }
            fn into_body(self) -> Body { Body::$variant(Box::new(self)) }
        } )*
    };
}

kinds! {
    Namespace: core::Namespace, "" "v1" "namespaces" "namespace" ["ns"] Cluster sub ["status", "finalize"] cat [];
    Node: core::Node, "" "v1" "nodes" "node" ["no"] Cluster sub ["status"] cat [];
    Pod: crate::pod::Pod, "" "v1" "pods" "pod" ["po"] Namespaced sub ["status", "log", "binding", "eviction", "exec", "attach", "portforward", "proxy"] cat ["all"];
    Service: core::Service, "" "v1" "services" "service" ["svc"] Namespaced sub ["status"] cat ["all"];
    Endpoints: core::Endpoints, "" "v1" "endpoints" "endpoints" ["ep"] Namespaced sub [] cat [];
    ConfigMap: core::ConfigMap, "" "v1" "configmaps" "configmap" ["cm"] Namespaced sub [] cat [];
    Secret: core::Secret, "" "v1" "secrets" "secret" [] Namespaced sub [] cat [];
    ServiceAccount: core::ServiceAccount, "" "v1" "serviceaccounts" "serviceaccount" ["sa"] Namespaced sub ["token"] cat [];
    ResourceQuota: core::ResourceQuota, "" "v1" "resourcequotas" "resourcequota" ["quota"] Namespaced sub ["status"] cat [];
    LimitRange: core::LimitRange, "" "v1" "limitranges" "limitrange" ["limits"] Namespaced sub [] cat [];
    ReplicationController: core::ReplicationController, "" "v1" "replicationcontrollers" "replicationcontroller" ["rc"] Namespaced sub ["status", "scale"] cat ["all"];
    PersistentVolumeClaim: core::PersistentVolumeClaim, "" "v1" "persistentvolumeclaims" "persistentvolumeclaim" ["pvc"] Namespaced sub ["status"] cat [];
    PersistentVolume: core::PersistentVolume, "" "v1" "persistentvolumes" "persistentvolume" ["pv"] Cluster sub ["status"] cat [];
    Event: core::Event, "" "v1" "events" "event" ["ev"] Namespaced sub [] cat [];
    Deployment: apps::Deployment, "apps" "v1" "deployments" "deployment" ["deploy"] Namespaced sub ["status", "scale"] cat ["all"];
    ReplicaSet: apps::ReplicaSet, "apps" "v1" "replicasets" "replicaset" ["rs"] Namespaced sub ["status", "scale"] cat ["all"];
    DaemonSet: apps::DaemonSet, "apps" "v1" "daemonsets" "daemonset" ["ds"] Namespaced sub ["status"] cat ["all"];
    StatefulSet: apps::StatefulSet, "apps" "v1" "statefulsets" "statefulset" ["sts"] Namespaced sub ["status", "scale"] cat ["all"];
    ControllerRevision: apps::ControllerRevision, "apps" "v1" "controllerrevisions" "controllerrevision" [] Namespaced sub [] cat [];
    Job: batch::Job, "batch" "v1" "jobs" "job" [] Namespaced sub ["status"] cat ["all"];
    CronJob: batch::CronJob, "batch" "v1" "cronjobs" "cronjob" ["cj"] Namespaced sub ["status"] cat ["all"];
    HorizontalPodAutoscaler: autoscaling::HorizontalPodAutoscaler, "autoscaling" "v2" "horizontalpodautoscalers" "horizontalpodautoscaler" ["hpa"] Namespaced sub ["status"] cat ["all"];
    EndpointSlice: discovery::EndpointSlice, "discovery.k8s.io" "v1" "endpointslices" "endpointslice" [] Namespaced sub [] cat [];
    Ingress: networking::Ingress, "networking.k8s.io" "v1" "ingresses" "ingress" ["ing"] Namespaced sub ["status"] cat [];
    IngressClass: networking::IngressClass, "networking.k8s.io" "v1" "ingressclasses" "ingressclass" [] Cluster sub [] cat [];
    PodDisruptionBudget: policy::PodDisruptionBudget, "policy" "v1" "poddisruptionbudgets" "poddisruptionbudget" ["pdb"] Namespaced sub ["status"] cat [];
    Lease: coordination::Lease, "coordination.k8s.io" "v1" "leases" "lease" [] Namespaced sub [] cat [];
    StorageClass: storage::StorageClass, "storage.k8s.io" "v1" "storageclasses" "storageclass" ["sc"] Cluster sub [] cat [];
    ClusterRole: rbac::ClusterRole, "rbac.authorization.k8s.io" "v1" "clusterroles" "clusterrole" [] Cluster sub [] cat [];
    ClusterRoleBinding: rbac::ClusterRoleBinding, "rbac.authorization.k8s.io" "v1" "clusterrolebindings" "clusterrolebinding" [] Cluster sub [] cat [];
    Role: rbac::Role, "rbac.authorization.k8s.io" "v1" "roles" "role" [] Namespaced sub [] cat [];
    RoleBinding: rbac::RoleBinding, "rbac.authorization.k8s.io" "v1" "rolebindings" "rolebinding" [] Namespaced sub [] cat [];
    APIService: apiregistration::APIService, "apiregistration.k8s.io" "v1" "apiservices" "apiservice" [] Cluster sub ["status"] cat ["api-extensions"];
}

impl Kind {
    /// The kind served under `group`, `version` and the plural name `plural`.
    pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| {
            let info = kind.info();
            info.group == group && info.version == version && info.plural == plural
        })
    }

    /// The kind with this `apiVersion` and name.
    pub fn by_name(api_version: &str, name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.info().kind == name && kind.info().api_version() == api_version)
    }

    /// The kind stored under `plural[.group]`.
    pub fn by_storage_name(resource: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.info().resource() == resource)
    }

    /// True if objects live in a namespace.
    pub fn namespaced(self) -> bool {
        self.info().scope == Scope::Namespaced
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().kind)
    }
}
