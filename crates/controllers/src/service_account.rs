//! What every namespace has: the ServiceAccount `default`, and the certificate of the cluster's authority in the
//! ConfigMap `kube-root-ca.crt`.
//!
//! Mirrors upstream's `pkg/controller/serviceaccount/serviceaccounts_controller.go` and
//! `pkg/controller/certificates/rootcacertpublisher/publisher.go`. The certificate is the one that the server keeps in
//! `kube-system`; where it keeps none (in a simulation, say) none is handed out. Never touches what else a ServiceAccount
//! or a ConfigMap says.

use api::{Key, Kind, Plan, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The account of pods that name none.
pub const DEFAULT: &str = "default";
/// The ConfigMap with the certificate of the cluster's authority, and its key in there.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// Where the server itself keeps that certificate.
const HOME: &str = "kube-system";
/// Says to a reader what the ConfigMap is for.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal \
     service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

/// Decides about one namespace.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let namespace = world.get::<Namespace>("", &key.name);
    if namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
        return Plan::nothing();
    }
    let account = world.get::<ServiceAccount>(&key.name, DEFAULT).is_none().then(|| Write::Create(account(&key.name)));
    Plan { writes: account.into_iter().chain(root_ca(&key.name, world)).collect(), ..Plan::nothing() }
}

/// True for what this decision keeps in every namespace.
pub fn is_kept(kind: Kind, name: &str) -> bool {
    (kind == Kind::ServiceAccount && name == DEFAULT) || (kind == Kind::ConfigMap && name == ROOT_CA)
}

/// True for the certificate that all others are copies of.
pub fn is_source(kind: Kind, namespace: &str, name: &str) -> bool {
    kind == Kind::ConfigMap && namespace == HOME && name == ROOT_CA
}

fn account(namespace: &str) -> api::Body {
    ServiceAccount { metadata: named(namespace, DEFAULT), ..ServiceAccount::default() }.into_body()
}

/// Makes the copy, or puts it right.
fn root_ca(namespace: &str, world: &Snapshot) -> Option<Write> {
    let source = world.get::<ConfigMap>(HOME, ROOT_CA).filter(|_| namespace != HOME)?;
    let Some(copy) = world.get::<ConfigMap>(namespace, ROOT_CA) else {
        let mut metadata = named(namespace, ROOT_CA);
        metadata.annotations = Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into());
        let made = ConfigMap { metadata, data: source.data.clone(), ..ConfigMap::default() };
        return Some(Write::Create(made.into_body()));
    };
    let mut right = copy.clone();
    right.data.clone_from(&source.data);
    right.binary_data = None;
    (right != *copy).then(|| Write::Update(right.into_body()))
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use api::Propagation;
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::testing::World;

    fn show(world: &World) -> String {
        let kinds = [Kind::ServiceAccount, Kind::ConfigMap];
        let objects = kinds.iter().flat_map(|kind| world.snapshot.objects(*kind, None));
        let data = |object: &api::Object| {
            let data = object.get::<ConfigMap>().and_then(|map| map.data.clone());
            data.into_iter().flatten().map(|(key, value)| format!(" {key}={value}")).collect::<String>()
        };
        objects.map(|object| format!("{}{}\n", object.key(), data(object))).collect()
    }

    fn namespace(world: &mut World, name: &str) {
        world.user_creates(Kind::Namespace, json!({ "metadata": { "name": name } }));
    }

    fn map(namespace: &str, text: &str) -> serde_json::Value {
        json!({ "metadata": { "name": ROOT_CA, "namespace": namespace, "uid": "m" }, "data": { "ca.crt": text } })
    }

    #[test]
    fn every_namespace_has_an_account_and_the_certificate() {
        let mut world = World::new();
        namespace(&mut world, "default");
        world.settle();
        assert_eq!(show(&world), "ServiceAccount default/default\n", "without a certificate there is none to copy");
        namespace(&mut world, "kube-system");
        world.user_creates(Kind::ConfigMap, map("kube-system", "PEM"));
        world.settle();
        let whole = show(&world);
        expect![[r#"
            ServiceAccount default/default
            ServiceAccount kube-system/default
            ConfigMap default/kube-root-ca.crt ca.crt=PEM
            ConfigMap kube-system/kube-root-ca.crt ca.crt=PEM
        "#]]
        .assert_eq(&whole);
        // What is deleted or changed comes back.
        world.user_deletes(Kind::ServiceAccount, "default", Propagation::Background);
        world.user_deletes(Kind::ConfigMap, ROOT_CA, Propagation::Background);
        world.settle();
        assert_eq!(show(&world), whole);
        world.user_edits::<ConfigMap>(ROOT_CA, |map| map.data = Some([("ca.crt".into(), "FORGED".into())].into()));
        world.settle();
        assert_eq!(show(&world), whole);
        world.wake_all();
        assert_eq!(world.settle(), 0);
    }

    #[test]
    fn a_namespace_that_ends_gets_nothing() {
        let mut world = World::new();
        let ending = json!({ "metadata": { "name": "default", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "finalizers": ["other"] } });
        world.store(Kind::Namespace, ending);
        world.wake_all();
        world.settle();
        assert_eq!(show(&world), "");
    }
}
