//! Pulls, from a registry that lives as long as its test.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse,
};
use expect_test::expect;
use serde_json::json;

use super::*;
use crate::runtime::{PullPolicy, RuntimeError};

/// Media type and content, by path.
#[derive(Default)]
struct Served {
    files: Mutex<HashMap<String, (String, Vec<u8>)>>,
    manifests_given: AtomicUsize,
    /// What the header `Authorization` must be, if it must be there.
    login: Mutex<Option<String>>,
}

struct Registry {
    address: std::net::SocketAddr,
    served: Arc<Served>,
}

impl Registry {
    async fn start() -> Registry {
        let served = Arc::new(Served::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(served.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Registry { address, served }
    }

    fn put(&self, path: String, media_type: &str, content: Vec<u8>) -> serde_json::Value {
        let descriptor = json!({ "mediaType": media_type, "digest": digest_of(&content), "size": content.len() });
        self.served.files.lock().unwrap().insert(path, (media_type.to_owned(), content));
        descriptor
    }

    /// Serves an image of these layers; gives its manifest's descriptor.
    fn image(&self, repository: &str, tag: &str, layers: &[Vec<u8>]) -> serde_json::Value {
        let blob = |media_type: &str, content: Vec<u8>| {
            self.put(format!("/v2/{repository}/blobs/{}", digest_of(&content)), media_type, content)
        };
        let config = blob("application/vnd.oci.image.config.v1+json", config_for(layers));
        let layers: Vec<_> =
            layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip(layer))).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers });
        self.manifest(repository, tag, "application/vnd.oci.image.manifest.v1+json", &manifest)
    }

    fn manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        manifest: &serde_json::Value,
    ) -> serde_json::Value {
        let content = serde_json::to_vec(manifest).unwrap();
        self.put(format!("/v2/{repository}/manifests/{}", digest_of(&content)), media_type, content.clone());
        self.put(format!("/v2/{repository}/manifests/{tag}"), media_type, content)
    }
}

async fn answer(State(served): State<Arc<Served>>, headers: HeaderMap, uri: Uri) -> impl IntoResponse {
    let path = uri.path();
    let given = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if served.login.lock().unwrap().is_some() && given != *served.login.lock().unwrap() {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"test\"".to_owned())], Vec::new());
    }
    if path == "/v2/" {
        return (StatusCode::OK, [("content-type", "application/json".to_owned())], b"{}".to_vec());
    }
    if path.contains("/manifests/") {
        served.manifests_given.fetch_add(1, Ordering::SeqCst);
    }
    match served.files.lock().unwrap().get(path) {
        Some((media_type, content)) => (StatusCode::OK, [("content-type", media_type.clone())], content.clone()),
        None => {
            let code = if path.contains("/manifests/") { "MANIFEST_UNKNOWN" } else { "BLOB_UNKNOWN" };
            let body = json!({ "errors": [{ "code": code, "message": "unknown" }] }).to_string();
            (StatusCode::NOT_FOUND, [("content-type", "application/json".to_owned())], body.into_bytes())
        }
    }
}

fn layers(text: &str) -> Vec<Vec<u8>> {
    vec![archive(&[Item::File("base", 0o644, "base")]), archive(&[Item::File("page", 0o644, text)])]
}

/// A store whose docker.io is the registry, and nothing else.
fn mirrored(folder: &Path, registry: &Registry) -> Store {
    let yaml =
        format!("registries:\n  docker.io:\n    mirrors: [\"http://{}\"]\n    upstream: false\n", registry.address);
    fs::write(folder.join("registries.yaml"), yaml).unwrap();
    Store::open(folder).unwrap()
}

fn message(error: RuntimeError, registry: &Registry) -> String {
    assert!(matches!(error, RuntimeError::ImagePull(_)), "{error:?}");
    error.to_string().replace(&registry.address.to_string(), "REGISTRY")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_by_tag_and_by_digest() {
    let registry = Registry::start().await;
    let descriptor = registry.image("team/web", "v1", &layers("one"));
    let (_folder, store) = store();
    let name = format!("{}/team/web:v1", registry.address);
    let seen = store.ensure(&name, PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!((seen.id, seen.size_bytes), (digest_of(&config_for(&layers("one"))), 7));
    let by_digest = format!("{}/team/web@{}", registry.address, descriptor["digest"].as_str().unwrap());
    assert!(store.get(&by_digest).is_some());
    let (_folder, other) = super::store();
    other.ensure(&by_digest, PullPolicy::Always).await.unwrap();
    assert_eq!(other.list().unwrap()[0].name, by_digest);
    assert!(names_in(&store.path("tmp")).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_docker_hub_names() {
    let registry = Registry::start().await;
    registry.image("library/nginx", "1.16.1", &layers("one"));
    let folder = tempfile::tempdir().unwrap();
    let store = mirrored(folder.path(), &registry);
    store.ensure("nginx:1.16.1", PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(store.list().unwrap()[0].name, "nginx:1.16.1");
    let error = store.ensure("nginx:1.161", PullPolicy::IfNotPresent).await.unwrap_err();
    expect![[r#"failed to pull and unpack image "docker.io/library/nginx:1.161": failed to resolve reference "docker.io/library/nginx:1.161": docker.io/library/nginx:1.161: not found"#]]
        .assert_eq(&message(error, &registry));
    assert!(Store::open_with_mirrors(folder.path(), &["docker.io=http://10.1.1.1".to_owned()]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_policies() {
    let registry = Registry::start().await;
    registry.image("library/web", "v1", &layers("one"));
    let folder = tempfile::tempdir().unwrap();
    let store = mirrored(folder.path(), &registry);
    let error = store.ensure("web:v1", PullPolicy::Never).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::ImageNeverPull(text) if text == "Container image \"web:v1\" is not present with pull policy of Never"),
        "{error:?}"
    );
    let error = store.ensure("web:", PullPolicy::IfNotPresent).await.unwrap_err();
    assert!(matches!(error, RuntimeError::InvalidImageName(_)));
    let first = store.ensure("web:v1", PullPolicy::IfNotPresent).await.unwrap().id;
    registry.image("library/web", "v1", &layers("two"));
    assert_eq!(store.ensure("web:v1", PullPolicy::IfNotPresent).await.unwrap().id, first);
    let second = store.ensure("web:v1", PullPolicy::Always).await.unwrap().id;
    assert_ne!(second, first);
    // The layer that only the first had goes at the next sweep.
    assert_eq!(store.sweep().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_image_needs_no_registry_even_under_always() {
    let (_folder, store) = store();
    store.build("web", None, &[], |_| {}).unwrap();
    let id = store.get("web").unwrap().id;
    assert_eq!(store.ensure("web:latest", PullPolicy::Always).await.unwrap().id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_own_architecture_is_chosen() {
    let registry = Registry::start().await;
    let ours = registry.image("library/web", "ours", &layers("ours"));
    let other = registry.image("library/web", "other", &layers("other"));
    let entry = |mut descriptor: serde_json::Value, architecture: &str| {
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    };
    let architecture = oci_spec::image::Arch::default().to_string();
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": [entry(other.clone(), "s390x"), entry(ours, &architecture)] });
    let descriptor = registry.manifest("library/web", "multi", index_type, &index);
    let folder = tempfile::tempdir().unwrap();
    let store = mirrored(folder.path(), &registry);
    let seen = store.ensure("web:multi", PullPolicy::Always).await.unwrap();
    assert_eq!(seen.id, digest_of(&config_for(&layers("ours"))));
    assert!(store.get(&format!("web@{}", descriptor["digest"].as_str().unwrap())).is_some());

    let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": [entry(other, "s390x")] });
    registry.manifest("library/web", "foreign", index_type, &index);
    let error = store.ensure("web:foreign", PullPolicy::Always).await.unwrap_err();
    let text = message(error, &registry);
    assert!(text.contains("no match for platform in manifest: not found"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_share_one_pull() {
    let registry = Registry::start().await;
    registry.image("library/web", "v1", &layers("one"));
    let folder = tempfile::tempdir().unwrap();
    let store = mirrored(folder.path(), &registry);
    let pulls = (0..20).map(|_| store.ensure("web:v1", PullPolicy::Always));
    for outcome in futures::future::join_all(pulls).await {
        outcome.unwrap();
    }
    assert_eq!(registry.served.manifests_given.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_is_found_out() {
    let registry = Registry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = mirrored(folder.path(), &registry);
    let mut seen = String::new();
    let layer = gzip(&layers("one")[1]);
    let blob = format!("/v2/library/web/blobs/{}", digest_of(&layer));
    let lies: [(&str, Option<Vec<u8>>); 3] = [
        ("missing", None),
        ("changed", Some(vec![7; layer.len()])),
        ("longer", Some([layer.clone(), vec![0; 10]].concat())),
    ];
    for (tag, lie) in lies {
        registry.image("library/web", tag, &layers("one"));
        match lie {
            Some(content) => drop(registry.put(blob.clone(), "application/octet-stream", content)),
            None => drop(registry.served.files.lock().unwrap().remove(&blob)),
        }
        let error = store.ensure(&format!("web:{tag}"), PullPolicy::IfNotPresent).await.unwrap_err();
        seen += &message(error, &registry).replace(&digest_of(&layer), "BLOB");
        seen.push('\n');
    }
    expect![[r#"
        failed to pull and unpack image "docker.io/library/web:missing": failed to copy blob BLOB: Registry error: url http://REGISTRY/v2/library/web/blobs/BLOB, envelope: OCI API errors: [OCI API error: unknown]
        failed to pull and unpack image "docker.io/library/web:changed": failed to copy blob BLOB: Digest error: Invalid digest. Expected BLOB, got sha256:d37df6f5b7150e69fc713077a1c0e220862c5271667d6661e2b5c0f5b0752ffc
        failed to pull and unpack image "docker.io/library/web:longer": failed to copy blob BLOB: the registry sent more bytes than the manifest says
    "#]].assert_eq(&seen);
    assert!(store.list().unwrap().is_empty());
    store.sweep().unwrap();
    assert!(names_in(&store.path("tmp")).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_a_pull_fails_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!("registries:\n  docker.io:\n    mirrors: [\"http://{address}\"]\n    upstream: false\n");
    fs::write(folder.path().join("registries.yaml"), yaml).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let start = Instant::now();
    let error = store.ensure("nginx:1.161", PullPolicy::IfNotPresent).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    expect![[r#"failed to pull and unpack image "docker.io/library/nginx:1.161": failed to resolve reference "docker.io/library/nginx:1.161": failed to do request: Head "http://REGISTRY/v2/library/nginx/manifests/1.161": dial tcp REGISTRY: connect: connection refused"#]]
        .assert_eq(&error.to_string().replace(&address.to_string(), "REGISTRY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_login() {
    let registry = Registry::start().await;
    registry.image("team/web", "v1", &layers("one"));
    *registry.served.login.lock().unwrap() = Some("Basic c29tZW9uZTpzZWNyZXQ=".to_owned());
    let name = format!("{}/team/web:v1", registry.address);
    let with_password = |password: &str| {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.yaml");
        let yaml =
            format!("registries:\n  \"{}\":\n    username: someone\n    password: {password}\n", registry.address);
        fs::write(&path, yaml).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (Store::open(folder.path()).unwrap(), folder)
    };
    let (store, _folder) = with_password("secret");
    store.ensure(&name, PullPolicy::IfNotPresent).await.unwrap();
    let (store, _folder) = with_password("wrong");
    let text = message(store.ensure(&name, PullPolicy::IfNotPresent).await.unwrap_err(), &registry);
    assert!(text.contains("pull access denied"), "{text}");
    assert!(!text.contains("wrong"), "{text}");
}
