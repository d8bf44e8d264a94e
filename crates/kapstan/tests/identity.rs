//! Who asks, and what they may.

use std::fs;
use std::time::Duration;

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Setup};
use crate::raw::{DEPLOYMENTS, MAPS, PODS, Raw, deployment, refusal};

/// A connection to the cluster that proves itself with `identity` only.
async fn connect(cluster: &Cluster, identity: AuthInfo) -> Raw {
    let mut file = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    file.auth_infos[0].auth_info = Some(identity);
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Raw::of(Client::try_from(config).unwrap())
}

/// A certificate for a user of some groups, signed by the cluster's own authority.
fn certificate(cluster: &Cluster, user: &str, groups: &[&str]) -> AuthInfo {
    let pki = cluster.data_dir().join("pki");
    let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
    let authority = Issuer::from_ca_cert_pem(&read("ca.crt"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, user);
    groups.iter().for_each(|group| parameters.distinguished_name.push(DnType::OrganizationName, *group));
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let path = |ending: &str| cluster.folder().join(format!("{user}.{ending}")).to_str().unwrap().to_owned();
    fs::write(path("crt"), parameters.signed_by(&key, &authority).unwrap().pem()).unwrap();
    fs::write(path("key"), key.serialize_pem()).unwrap();
    AuthInfo { client_certificate: Some(path("crt")), client_key: Some(path("key")), ..Default::default() }
}

#[tokio::test]
async fn nobody_sees_nothing_but_health() {
    let cluster = Setup::bare().start();
    let nobody = connect(&cluster, AuthInfo::default()).await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(path).await.0, 200, "{path}");
    }
    for path in ["/api", "/apis", "/api/v1", PODS, "/openapi/v3", "/metrics", "/kapstan/v1/why/deployments/default/a"] {
        assert_eq!(refusal(&nobody.get(path).await), "401 Unauthorized: Unauthorized", "{path}");
    }
    assert_eq!(nobody.post(MAPS, json!({ "metadata": { "name": "a" } })).await.0, 401);
    let wrong = connect(&cluster, AuthInfo { token: Some("wrong".to_owned().into()), ..Default::default() }).await;
    assert_eq!(wrong.get(PODS).await.0, 401);
}

#[tokio::test]
async fn a_user_may_what_rules_say() {
    let cluster = Setup::bare().start();
    let admin = Raw::connect(&cluster).await;
    let jane = connect(&cluster, certificate(&cluster, "jane", &["developers"])).await;
    assert_eq!(
        refusal(&jane.get(PODS).await),
        "403 Forbidden: pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \
         \"default\""
    );
    let rules = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let group = json!({ "kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io" });
    let role = json!({ "kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io" });
    let binding = json!({ "metadata": { "name": "developers" }, "roleRef": role, "subjects": [group] });
    let (code, made) = admin.post(&format!("{rules}/rolebindings"), binding).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(jane.post(DEPLOYMENTS, deployment("web", 0)).await.0, 201);
    assert_eq!(
        jane.merge(&format!("{DEPLOYMENTS}/web"), json!({ "metadata": { "labels": { "a": "b" } } })).await.0,
        200
    );
    assert_eq!(
        refusal(&jane.get("/api/v1/namespaces/kube-system/pods").await),
        "403 Forbidden: pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \
         \"kube-system\""
    );
    assert_eq!(
        refusal(&jane.post(&format!("{rules}/rolebindings"), json!({ "metadata": { "name": "more" } })).await),
        "403 Forbidden: rolebindings.rbac.authorization.k8s.io is forbidden: User \"jane\" cannot create resource \
         \"rolebindings\" in API group \"rbac.authorization.k8s.io\" in the namespace \"default\""
    );
    admin.delete(&format!("{rules}/rolebindings/developers"), Value::Null).await;
    assert_eq!(jane.get(DEPLOYMENTS).await.0, 403);
}

#[tokio::test]
async fn another_authority_counts_for_nothing() {
    let (cluster, other) = (Setup::bare().start(), Setup::bare().start());
    let stranger = certificate(&other, "kubernetes-admin", &["system:masters"]);
    let mut file = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    file.auth_infos[0].auth_info = Some(stranger);
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let refused = client.apiserver_version().await;
    assert!(refused.is_err(), "{refused:?}");
}

/// Whoever connects and says nothing is let go.
#[test]
fn silence_is_not_waited_for() {
    use std::io::Read;
    let cluster = Setup::bare().start();
    let address = cluster.url().replace("https://", "");
    let mut silent = std::net::TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
}
