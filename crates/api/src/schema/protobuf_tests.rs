//! Bodies built by hand, byte by byte as kubectl builds them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::wire::Message;
use super::*;

fn nested(parts: &[(u32, &[u8])]) -> Vec<u8> {
    let mut message = Message::default();
    parts.iter().for_each(|(number, bytes)| message.bytes(*number, bytes));
    message.0
}

fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta = nested(&[(1, api_version.as_bytes()), (2, kind.as_bytes())]);
    [MAGIC, &nested(&[(1, &type_meta), (2, object), (3, b""), (4, b"")])].concat()
}

#[test]
fn deployment_as_kubectl_sends_it() {
    let meta =
        |name: &str| nested(&[(1, name.as_bytes()), (8, b""), (11, &nested(&[(1, b"app"), (2, name.as_bytes())]))]);
    let limits = nested(&[(1, b"cpu"), (2, &nested(&[(1, b"500m")]))]);
    let container = nested(&[(1, b"nginx"), (2, b"nginx:1.9.1"), (5, b""), (8, &nested(&[(1, &limits)])), (14, b"")]);
    let mut volume_source = Message::default();
    volume_source.message(2, &Message(nested(&[(1, b"")])));
    let volume = nested(&[(1, b"scratch"), (2, &volume_source.0)]);
    let pod = nested(&[(1, &volume), (2, &container)]);
    let template = nested(&[(1, &meta("web")), (2, &pod)]);
    let mut spec = Message::default();
    spec.varint(1, 3);
    spec.bytes(2, &nested(&[(1, &nested(&[(1, b"app"), (2, b"web")]))]));
    spec.bytes(3, &template);
    let mut surge = Message::default();
    surge.varint(1, 1);
    surge.varint(2, 0);
    surge.bytes(3, b"25%");
    spec.bytes(4, &nested(&[(1, b"RollingUpdate"), (2, &nested(&[(2, &surge.0)]))]));
    let deployment = nested(&[(1, &meta("web")), (2, &spec.0), (3, b"")]);

    let mut value = protobuf_to_json(&body("apps/v1", "Deployment", &deployment)).unwrap();
    let id = table().kind("apps/v1", "Deployment").unwrap();
    assert_eq!(crate::schema::check(id, &mut value), Ok(vec![]));
    assert_eq!(
        value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
                "template": {
                    "metadata": {"name": "web", "labels": {"app": "web"}},
                    "spec": {
                        "volumes": [{"name": "scratch", "emptyDir": {}}],
                        "containers": [{"name": "nginx", "image": "nginx:1.9.1", "resources": {"limits": {"cpu": "500m"}}}],
                    },
                },
            },
            "status": {},
        })
    );
}

#[test]
fn delete_options_of_any_group() {
    let mut options = Message::default();
    options.varint(1, 30);
    options.bytes(4, b"Background");
    let value = protobuf_to_json(&body("apps/v1", "DeleteOptions", &options.0)).unwrap();
    assert_eq!(
        value,
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 30, "propagationPolicy": "Background"})
    );
}

#[test]
fn secret_bytes_become_base64() {
    let entry = nested(&[(1, b"key"), (2, b"\xff\x00")]);
    let value = protobuf_to_json(&body("v1", "Secret", &nested(&[(2, &entry)]))).unwrap();
    assert_eq!(value["data"], json!({"key": "/wA="}));
}

#[test]
fn bad_bodies_are_refused() {
    let told = |body: &[u8]| protobuf_to_json(body).unwrap_err().to_string();
    assert_eq!(told(b"{}"), "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
    assert_eq!(told(b"k8s\0\x12\x05ab"), "unexpected EOF");
    assert_eq!(told(&body("x/v1", "Foo", b"")), "no kind \"Foo\" is registered for version \"x/v1\"");
    assert_eq!(
        told(&body("v1", "Pod", &nested(&[(1, &nested(&[(1, b"\xff")]))]))),
        "proto: invalid content of field name"
    );
    assert_eq!(told(&body("v1", "Pod", b"\x08\x01")), "proto: wrong wireType for field metadata");
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (api_version, kind) in [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Secret"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")] {
            let _: Result<Value> = protobuf_to_json(&body(api_version, kind, &bytes));
        }
    }
}
