//! Facts about the table and the checker, in the words a client sees.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::table::{ListType, Wrap};
use super::*;
use crate::kinds::Kind;

fn outcome(kind: Kind, body: &str, mode: Mode) -> String {
    match read(kind, body.as_bytes(), mode) {
        Ok((value, warnings)) if warnings.is_empty() => value.to_string(),
        Ok((value, warnings)) => format!("{value} warnings: {}", warnings.join("; ")),
        Err(refusal) => format!("{} {}", refusal.code, refusal.message),
    }
}

#[test]
fn every_served_kind_is_in_the_table() {
    for kind in Kind::ALL {
        assert!(table().get(type_of(*kind)).field("metadata").is_some(), "{kind}");
    }
}

#[test]
fn merge_and_list_keys_are_known() {
    let spec = table().get(table().definition("io.k8s.api.core.v1.PodSpec").unwrap());
    let volumes = spec.field("volumes").unwrap();
    assert!(volumes.merge && volumes.retain_keys && volumes.merge_key == "name" && volumes.wrap == Wrap::List);
    let container = table().get(table().definition("io.k8s.api.core.v1.Container").unwrap());
    let ports = container.field("ports").unwrap();
    assert_eq!(
        (ports.merge_key, ports.list_keys, ports.list_type),
        ("containerPort", "containerPort,protocol", Some(ListType::Map))
    );
    let volume = table().get(table().definition("io.k8s.api.core.v1.Volume").unwrap());
    assert!(volume.field("configMap").unwrap().inlined == "VolumeSource", "inlined fields are seen");
}

#[test]
fn bodies_are_checked_and_normalised() {
    let cases = [
        // A wrong type is told as Go's decoder tells it.
        (
            Mode::Warn,
            r#"{"spec":{"replicas":"three"}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            Mode::Warn,
            r#"{"spec":{"replicas":1.5}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            Mode::Ignore,
            r#"{"spec":{"replicas":3000000000}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            Mode::Warn,
            r#"{"spec":{"template":{"spec":{"containers":{"name":"a"}}}}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            Mode::Warn,
            r#"{"spec":{"template":{"spec":{"containers":["a"]}}}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
        ),
        (
            Mode::Warn,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            Mode::Warn,
            r#"{"metadata":{"labels":[]}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            Mode::Warn,
            r#"{"spec":{"strategy":{"type":7}}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field DeploymentStrategy.spec.strategy.type of type v1.DeploymentStrategyType",
        ),
        (
            Mode::Warn,
            r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            Mode::Warn,
            r#"[]"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal array into Go value of type v1.Deployment",
        ),
        // Unknown and repeated fields: all of them, by the mode.
        (
            Mode::Strict,
            r#"{"spec":{"foo":1,"template":{"spec":{"containers":[{"nmae":"x"}]}}},"bar":2}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].nmae\", unknown field \"bar\"",
        ),
        (
            Mode::Strict,
            r#"{"spec":{"replicas":1,"replicas":2}}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: duplicate field \"spec.replicas\"",
        ),
        (
            Mode::Warn,
            r#"{"spec":{"foo":1,"replicas":1,"replicas":2}}"#,
            r#"{"spec":{"replicas":2}} warnings: unknown field "spec.foo"; duplicate field "spec.replicas""#,
        ),
        (Mode::Ignore, r#"{"spec":{"foo":1,"replicas":1,"replicas":2}}"#, r#"{"spec":{"replicas":2}}"#),
        // What Go would not print is not kept; what it would is.
        (
            Mode::Strict,
            r#"{"spec":{"replicas":0,"paused":false,"minReadySeconds":0,"revisionHistoryLimit":null,"selector":{"matchLabels":{}}}}"#,
            r#"{"spec":{"replicas":0,"selector":{}}}"#,
        ),
        (
            Mode::Strict,
            r#"{"metadata":{"labels":{"a":null},"creationTimestamp":null},"spec":{"template":{"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[null,{"command":[null]}]}}}}"#,
            r#"{"metadata":{"labels":{"a":""}},"spec":{"template":{"spec":{"containers":[{},{"command":[""]}],"volumes":[{"emptyDir":{},"name":"v"}]}}}}"#,
        ),
        (
            Mode::Strict,
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":0}},"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":1,"memory":"0.5Gi"}}}]}}}}"#,
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":0}},"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1","memory":"512Mi"}}}]}}}}"#,
        ),
        (
            Mode::Strict,
            r#"{"kind":7}"#,
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field Deployment.TypeMeta.kind of type string",
        ),
    ];
    for (mode, body, wanted) in cases {
        assert_eq!(outcome(Kind::Deployment, body, mode), wanted, "{body}");
    }
}

#[test]
fn broken_text_is_told() {
    let told = outcome(Kind::Pod, "{\"a\":", Mode::Warn);
    assert!(told.starts_with("400 the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: "), "{told}");
    assert!(told.ends_with("(7b2261223a)"), "{told}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "spec",
        "metadata",
        "containers",
        "template",
        "name",
        "labels",
        "ports",
        "resources",
        "limits",
        "status",
        "data",
        "volumes",
        "x",
        "",
        "creationTimestamp",
        "strategy",
        "maxSurge",
        "annotations",
        "managedFields",
        "fieldsV1",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(names.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn checking_never_panics_and_settles(value in any_json()) {
        for kind in [Kind::Deployment, Kind::Pod, Kind::ConfigMap, Kind::Secret, Kind::Node] {
            let mut once = value.clone();
            if check(type_of(kind), &mut once).is_ok() {
                let mut twice = once.clone();
                prop_assert_eq!(check(type_of(kind), &mut twice), Ok(vec![]));
                prop_assert_eq!(&twice, &once);
                prop_assert!(kind.decode(once.clone()).is_ok(), "{}", once);
            }
        }
    }
}

#[test]
fn a_time_that_has_to_be_there_is_go_s_zero_when_it_is_not() {
    let status = |condition: Value| {
        let service = json!({ "status": { "conditions": [condition] } }).to_string();
        let value = read(Kind::Service, service.as_bytes(), Mode::Strict).unwrap().0;
        assert!(Kind::Service.decode(value.clone()).is_ok());
        value["status"]["conditions"][0]["lastTransitionTime"].clone()
    };
    let condition = json!({ "type": "A", "status": "True", "reason": "R", "message": "" });
    let with = |time: Value| {
        let mut condition = condition.clone();
        condition["lastTransitionTime"] = time;
        status(condition)
    };
    assert_eq!((status(condition.clone()), with(Value::Null)), (ZERO_TIME.into(), ZERO_TIME.into()));
    assert_eq!(with("2026-01-01T00:00:00Z".into()), "2026-01-01T00:00:00Z");
}

#[test]
fn what_the_checker_accepts_the_typed_bodies_decode() {
    let (value, _) = read(
        Kind::Pod,
        json!({"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"containers":[null]}})
            .to_string()
            .as_bytes(),
        Mode::Strict,
    )
    .unwrap();
    assert!(Kind::Pod.decode(value).is_ok());
}
