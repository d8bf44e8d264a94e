//! PATCH bodies in, objects or refusals out.

use serde_json::{Value, json};

use super::*;

fn patched(patch_type: PatchType, body: &str, mode: Mode) -> String {
    let original = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "paused": true}});
    match apply(Kind::Deployment, patch_type, &|| Ok(original.clone()), body.as_bytes(), mode) {
        Ok((value, warnings)) => format!("{value} {}", warnings.join("; ")).trim_end().to_owned(),
        Err(refusal) => {
            let causes: Vec<&str> = refusal.causes.iter().map(|cause| cause.message.as_str()).collect();
            format!("{} {} {} | {}", refusal.code, refusal.reason, refusal.message, causes.join(", "))
        }
    }
}

#[test]
fn cases() {
    use PatchType::{Json, Merge, Strategic};
    let cases = [
        (
            Merge,
            Mode::Warn,
            r#"{"spec":{"replicas":3,"paused":null}}"#,
            r#"{"metadata":{"name":"web"},"spec":{"replicas":3}}"#,
        ),
        (
            Merge,
            Mode::Strict,
            r#"{"spec":{"foo":3}}"#,
            r#"422 Invalid  "" is invalid: patch: Invalid value: "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"foo\":3,\"paused\":true,\"replicas\":1}}": strict decoding error: unknown field "spec.foo" | Invalid value: "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"foo\":3,\"paused\":true,\"replicas\":1}}": strict decoding error: unknown field "spec.foo""#,
        ),
        (Merge, Mode::Warn, "[]", "400 BadRequest Invalid JSON Patch | "),
        (
            Strategic,
            Mode::Warn,
            r#"{"spec":{"replicas":3,"foo":1}}"#,
            r#"{"metadata":{"name":"web"},"spec":{"paused":true,"replicas":3}} unknown field "spec.foo""#,
        ),
        (
            Strategic,
            Mode::Warn,
            r#"{"spec":{"replicas":"x"}}"#,
            r#"422 Invalid  "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32 | Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32"#,
        ),
        (
            Strategic,
            Mode::Warn,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            r#"422 Invalid  "" is invalid: patch: Invalid value: "map[metadata:map[labels:map[a:1]]]": cannot convert int64 to string | Invalid value: "map[metadata:map[labels:map[a:1]]]": cannot convert int64 to string"#,
        ),
        (
            Strategic,
            Mode::Warn,
            r#"{"spec":7}"#,
            r#"422 Invalid  "" is invalid: patch: Invalid value: "map[spec:7]": cannot restore struct from: int64 | Invalid value: "map[spec:7]": cannot restore struct from: int64"#,
        ),
        (
            Strategic,
            Mode::Warn,
            r#"{"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}"#,
            r#"{"metadata":{"name":"web"},"spec":{"paused":true,"replicas":1,"template":{"spec":{"containers":[{"image":"x"}]}}}}"#,
        ),
        (
            Strategic,
            Mode::Warn,
            "[]",
            "400 BadRequest json: cannot unmarshal array into Go value of type map[string]interface {} | ",
        ),
        (
            Json,
            Mode::Warn,
            r#"[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":3},{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
            r#"{"metadata":{"labels":{"a":"b"},"name":"web"},"spec":{"paused":true,"replicas":3}}"#,
        ),
        (
            Json,
            Mode::Warn,
            r#"[{"op":"test","path":"/spec/replicas","value":2}]"#,
            "422 Invalid the server rejected our request due to an error in our request | testing value /spec/replicas failed: test failed",
        ),
        (
            Json,
            Mode::Warn,
            r#"[{"op":"remove","path":"/spec/nothing"}]"#,
            "422 Invalid the server rejected our request due to an error in our request | remove operation does not apply: doc is missing path: \"/spec/nothing\": missing value",
        ),
        (
            Json,
            Mode::Warn,
            r#"[{"op":"replace","path":"/spec/nothing","value":1}]"#,
            "422 Invalid the server rejected our request due to an error in our request | replace operation does not apply: doc is missing key: /spec/nothing: missing value",
        ),
        (
            Json,
            Mode::Warn,
            r#"[{"op":"frob","path":"/spec"}]"#,
            "422 Invalid the server rejected our request due to an error in our request | Unexpected kind: frob",
        ),
        (
            Json,
            Mode::Warn,
            r#"{"op":"test"}"#,
            "400 BadRequest error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch | ",
        ),
        (
            Json,
            Mode::Warn,
            r#"[{"op":"add","path":"/spec/foo","value":1,"x":1}]"#,
            r#"{"metadata":{"name":"web"},"spec":{"paused":true,"replicas":1}} json patch unknown field "[0].x"; unknown field "spec.foo""#,
        ),
        (Json, Mode::Warn, "[", "400 BadRequest error decoding patch: EOF while parsing a list at line 1 column 1 | "),
    ];
    for (patch_type, mode, body, wanted) in cases {
        assert_eq!(patched(patch_type, body, mode), wanted, "{body}");
    }
}

#[test]
fn operations_are_bounded() {
    let operation = json!({"op": "test", "path": "/spec/replicas", "value": 1});
    let body = Value::from(vec![operation; limits::JSON_PATCH_OPERATIONS + 1]).to_string();
    let told = patched(PatchType::Json, &body, Mode::Warn);
    assert_eq!(
        told,
        "413 RequestEntityTooLarge Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001 | "
    );
}

#[test]
fn media_types() {
    assert_eq!(PatchType::from_media_type("application/merge-patch+json; charset=utf-8"), Some(PatchType::Merge));
    assert_eq!(PatchType::from_media_type("application/apply-patch+yaml"), None);
}
