//! The name of a pod template: a short hash that is the same for equal templates.
//!
//! Plays the part of upstream's ComputeHash (`pkg/controller/controller_utils.go`) and SafeEncodeString
//! (apimachinery `pkg/util/rand`): same alphabet, but hashed over canonical JSON, so that it does not depend on how a
//! struct is laid out in memory and stays the same from one version of kapstan to the next.

use std::hash::Hasher;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The label that carries the hash; it is no part of what is hashed.
pub const POD_TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// No vowels, so that no words; no characters that look alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template. `collision_count` tells templates apart whose hashes clash.
pub fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut json = serde_json::to_value(template).expect("a pod template is always representable as JSON");
    if let Some(labels) = json.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH_LABEL);
        if labels.is_empty() {
            json["metadata"].as_object_mut().expect("it holds labels").remove("labels");
        }
    }
    let mut hash = Fnv1a::default();
    write_canonical(&json, &mut hash);
    if let Some(count) = collision_count {
        hash.write(&count.to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

/// Maps any text onto characters that are safe in names and spell no words, one for one byte.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// FNV-1a with 32 bits.
struct Fnv1a(u32);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Hasher for Fnv1a {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn finish(&self) -> u64 {
        u64::from(self.0)
    }
}

/// JSON with sorted keys and no blanks, whatever order the map type keeps.
fn write_canonical(value: &Value, out: &mut Fnv1a) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            out.write(b"{");
            for (name, field) in sorted {
                write_scalar(&Value::from(name.as_str()), out);
                out.write(b":");
                write_canonical(field, out);
                out.write(b",");
            }
            out.write(b"}");
        }
        Value::Array(items) => {
            out.write(b"[");
            for item in items {
                write_canonical(item, out);
                out.write(b",");
            }
            out.write(b"]");
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &Value, out: &mut Fnv1a) {
    out.write(value.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn template(json: Value) -> PodTemplateSpec {
        serde_json::from_value(json).unwrap()
    }

    fn nginx(image: &str) -> Value {
        serde_json::json!({
            "metadata": {"labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "nginx", "image": image}]},
        })
    }

    /// If this fails, every Deployment of every cluster would roll out anew after an upgrade of kapstan.
    #[test]
    fn stays_the_same_for_ever() {
        let hashes = [("nginx:1.7.9", None), ("nginx:1.7.9", Some(1)), ("nginx:1.9.1", None)]
            .map(|(image, collisions)| template_hash(&template(nginx(image)), collisions));
        expect!["5f5d8696c4 7d7bc45ff5 7fd4b485b4"].assert_eq(&hashes.join(" "));
    }

    #[test]
    fn the_hash_label_is_not_hashed() {
        let mut labelled = nginx("a");
        labelled["metadata"]["labels"][POD_TEMPLATE_HASH_LABEL] = "x".into();
        assert_eq!(template_hash(&template(labelled), None), template_hash(&template(nginx("a")), None));
    }

    #[test]
    fn encodes_as_upstream() {
        assert_eq!(safe_encode(""), "");
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
        assert!(safe_encode("hello").bytes().all(|b| ALPHABET.contains(&b)));
    }
}
