//! What upstream's `strategicpatch` tests hold as facts, told on real types.

use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::{Value, json};

use super::*;
use crate::schema::table;

fn apply(kind: &str, original: &str, patch: &str) -> String {
    let id = table().definition(kind).unwrap();
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    match strategic(id, read(original), read(patch)) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

const POD: &str = "io.k8s.api.core.v1.PodSpec";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.DeploymentSpec";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const SERVICE: &str = "io.k8s.api.core.v1.ServiceSpec";

#[test]
fn cases() {
    let cases = [
        // Maps: add, change, delete, null of a field that is not there.
        (
            CONFIG_MAP,
            r#"{"data":{"a":"1","b":"2"}}"#,
            r#"{"data":{"a":"3","b":null,"c":"4"}}"#,
            r#"{"data":{"a":"3","c":"4"}}"#,
        ),
        (CONFIG_MAP, r#"{}"#, r#"{"data":{"a":"1","b":null}}"#, r#"{"data":{"a":"1"}}"#),
        (CONFIG_MAP, r#"{"data":{"a":"1"}}"#, r#"{"data":null}"#, "{}"),
        (CONFIG_MAP, r#"{"data":{"a":"1"}}"#, "{}", r#"{"data":{"a":"1"}}"#),
        // $patch on maps.
        (CONFIG_MAP, r#"{"data":{"a":"1"}}"#, r#"{"data":{"$patch":"replace","b":"2"}}"#, r#"{"data":{"b":"2"}}"#),
        (CONFIG_MAP, r#"{"data":{"a":"1"}}"#, r#"{"data":{"$patch":"delete"}}"#, r#"{"data":{}}"#),
        (
            CONFIG_MAP,
            r#"{"data":{"a":"1"}}"#,
            r#"{"data":{"$patch":"merge"}}"#,
            "error: unknown patch type: merge in map: map[$patch:merge]",
        ),
        (CONFIG_MAP, r#"{"data":{"a":"1"}}"#, r#"{"$patch":"replace","immutable":true}"#, r#"{"immutable":true}"#),
        (CONFIG_MAP, r#"{}"#, r#"{"data":{"$patch":"delete"}}"#, "{}"),
        // Merged lists: change in place, order of the live list is kept, new items of the patch where the order tells.
        (
            POD,
            r#"{"containers":[{"name":"a","image":"1"},{"name":"b","image":"1"}]}"#,
            r#"{"containers":[{"name":"b","image":"2"}]}"#,
            r#"{"containers":[{"image":"1","name":"a"},{"image":"2","name":"b"}]}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"containers":[{"name":"b"}]}"#,
            r#"{"containers":[{"name":"b"},{"name":"a"}]}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
            r#"{"containers":[{"name":"a","$patch":"delete"}]}"#,
            r#"{"containers":[{"name":"b"}]}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
            r#"{"containers":[{"$patch":"replace"},{"name":"c"}]}"#,
            r#"{"containers":[{"name":"c"}]}"#,
        ),
        (POD, r#"{"containers":[{"name":"a"}]}"#, r#"{"containers":[{"$patch":"replace"}]}"#, r#"{"containers":[]}"#),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"containers":[{"name":"a","$patch":"merge"}]}"#,
            "error: merging lists cannot yet be specified in the patch",
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"containers":[{"image":"x"}]}"#,
            "error: map: map[image:x] does not contain declared merge key: name",
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"containers":["x"]}"#,
            "error: list element types are not identical: [[map[name:a]] [x]]",
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"containers":[[]]}"#,
            "error: list element types are not identical: [[map[name:a]] [[]]]",
        ),
        (
            POD,
            r#"{}"#,
            r#"{"containers":[{"name":"a","$patch":"delete"},{"name":"b","image":null}]}"#,
            r#"{"containers":[{"name":"b"}]}"#,
        ),
        // Lists in items, and deletes of what is not there.
        (
            POD,
            r#"{"containers":[{"name":"a","env":[{"name":"x","value":"1"},{"name":"y","value":"2"}]}]}"#,
            r#"{"containers":[{"name":"a","env":[{"name":"y","value":"3"},{"name":"z","$patch":"delete"}]}]}"#,
            r#"{"containers":[{"env":[{"name":"x","value":"1"},{"name":"y","value":"3"}],"name":"a"}]}"#,
        ),
        // The merge key of ports is containerPort alone, though their list key is (containerPort, protocol).
        (
            POD,
            r#"{"containers":[{"name":"a","ports":[{"containerPort":53,"protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]}]}"#,
            r#"{"containers":[{"name":"a","ports":[{"containerPort":53,"name":"dns"}]}]}"#,
            r#"{"containers":[{"name":"a","ports":[{"containerPort":53,"name":"dns","protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]}]}"#,
        ),
        (
            SERVICE,
            r#"{"ports":[{"port":80,"targetPort":"a"}]}"#,
            r#"{"ports":[{"port":80,"targetPort":8080},{"port":443}]}"#,
            r#"{"ports":[{"port":80,"targetPort":8080},{"port":443}]}"#,
        ),
        // Lists without a merge strategy are replaced.
        (
            POD,
            r#"{"tolerations":[{"key":"a"}]}"#,
            r#"{"tolerations":[{"key":"b"}]}"#,
            r#"{"tolerations":[{"key":"b"}]}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a","command":["x","y"]}]}"#,
            r#"{"containers":[{"name":"a","command":["z"]}]}"#,
            r#"{"containers":[{"command":["z"],"name":"a"}]}"#,
        ),
        // Lists of scalars with the merge strategy.
        (META, r#"{"finalizers":["a","b"]}"#, r#"{"finalizers":["b","c"]}"#, r#"{"finalizers":["a","b","c"]}"#),
        (
            META,
            r#"{"finalizers":["a","b","c"]}"#,
            r#"{"$deleteFromPrimitiveList/finalizers":["b"]}"#,
            r#"{"finalizers":["a","c"]}"#,
        ),
        (
            META,
            r#"{"finalizers":["a","b"]}"#,
            r#"{"$deleteFromPrimitiveList/finalizers":["a"],"$setElementOrder/finalizers":["c","b"],"finalizers":["c"]}"#,
            r#"{"finalizers":["c","b"]}"#,
        ),
        (META, r#"{}"#, r#"{"$deleteFromPrimitiveList/finalizers":["a"]}"#, "{}"),
        (
            META,
            r#"{"finalizers":["a"]}"#,
            r#"{"$deleteFromPrimitiveList":["a"]}"#,
            "error: invalid patch format of primitive list",
        ),
        // $setElementOrder.
        (
            POD,
            r#"{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#,
            r#"{"$setElementOrder/containers":[{"name":"c"},{"name":"a"}]}"#,
            r#"{"containers":[{"name":"b"},{"name":"c"},{"name":"a"}]}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#,
            r#"{"$setElementOrder/containers":[{"name":"c"},{"name":"d"},{"name":"a"}],"containers":[{"name":"d","image":"1"},{"name":"b","$patch":"delete"}]}"#,
            r#"{"containers":[{"name":"c"},{"image":"1","name":"d"},{"name":"a"}]}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"x"}]}"#,
            "error: The order in patch list:\n[map[name:x]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b"},{"name":"a"}]}"#,
            "error: The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
        ),
        (
            POD,
            r#"{}"#,
            r#"{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"a","image":"1"}]}"#,
            r#"{"containers":[{"image":"1","name":"a"}]}"#,
        ),
        (POD, r#"{}"#, r#"{"$setElementOrder/containers":[{"name":"a"}]}"#, "{}"),
        (POD, r#"{}"#, r#"{"$setElementOrder":[]}"#, "error: invalid patch format of setElementOrder list"),
        (
            POD,
            r#"{"containers":[{"name":"a"}]}"#,
            r#"{"$setElementOrder/containers":[{"image":"a"}]}"#,
            "error: map: map[image:a] does not contain declared merge key: name",
        ),
        // $retainKeys: unions.
        (
            DEPLOYMENT,
            r#"{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}"#,
            r#"{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}"#,
            r#"{"strategy":{"type":"Recreate"}}"#,
        ),
        (
            POD,
            r#"{"volumes":[{"name":"v","emptyDir":{}}]}"#,
            r#"{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/x"}}]}"#,
            r#"{"volumes":[{"hostPath":{"path":"/x"},"name":"v"}]}"#,
        ),
        (
            DEPLOYMENT,
            r#"{"strategy":{"type":"x"}}"#,
            r#"{"strategy":{"$retainKeys":["type"],"rollingUpdate":{}}}"#,
            "error: invalid patch format of retainKeys",
        ),
        (
            DEPLOYMENT,
            r#"{"strategy":{"type":"x"}}"#,
            r#"{"strategy":{"$retainKeys":"type"}}"#,
            "error: invalid patch format of retainKeys",
        ),
        // A value of another kind replaces.
        (
            DEPLOYMENT,
            r#"{"replicas":1,"paused":true}"#,
            r#"{"replicas":"x","paused":{"a":null}}"#,
            r#"{"paused":{},"replicas":"x"}"#,
        ),
        (
            DEPLOYMENT,
            r#"{"foo":{"a":1}}"#,
            r#"{"foo":{"a":2}}"#,
            "error: unable to find api field in struct DeploymentSpec for the json field \"foo\"",
        ),
    ];
    for (kind, original, patch, wanted) in cases {
        assert_eq!(apply(kind, original, patch), wanted, "{original} + {patch}");
    }
}

/// (kind, last applied, wanted, live, two-way patch from live to wanted, three-way patch)
#[test]
fn patches_are_made_as_kubectl_makes_them() {
    let cases = [
        (
            CONFIG_MAP,
            r#"{"data":{"a":"1","b":"2"}}"#,
            r#"{"data":{"a":"2"}}"#,
            r#"{"data":{"a":"1","b":"2","c":"3"}}"#,
            r#"{"data":{"a":"2","b":null,"c":null}}"#,
            r#"{"data":{"a":"2","b":null}}"#,
        ),
        (
            POD,
            r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
            r#"{"containers":[{"name":"c"},{"name":"a","image":"2"}]}"#,
            r#"{"containers":[{"name":"a","image":"1"},{"name":"b"},{"name":"side"}]}"#,
            r#"{"$setElementOrder/containers":[{"name":"c"},{"name":"a"}],"containers":[{"name":"c"},{"image":"2","name":"a"},{"$patch":"delete","name":"b"},{"$patch":"delete","name":"side"}]}"#,
            r#"{"$setElementOrder/containers":[{"name":"c"},{"name":"a"}],"containers":[{"name":"c"},{"image":"2","name":"a"},{"$patch":"delete","name":"b"}]}"#,
        ),
        (
            META,
            r#"{"finalizers":["a","b"]}"#,
            r#"{"finalizers":["a","c"]}"#,
            r#"{"finalizers":["a","b","x"]}"#,
            r#"{"$deleteFromPrimitiveList/finalizers":["b","x"],"$setElementOrder/finalizers":["a","c"],"finalizers":["c"]}"#,
            r#"{"$deleteFromPrimitiveList/finalizers":["b"],"$setElementOrder/finalizers":["a","c"],"finalizers":["c"]}"#,
        ),
        (
            DEPLOYMENT,
            r#"{}"#,
            r#"{"strategy":{"type":"Recreate"}}"#,
            r#"{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}"#,
            r#"{"strategy":{"$retainKeys":["type"],"rollingUpdate":null,"type":"Recreate"}}"#,
            r#"{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}"#,
        ),
        (
            POD,
            r#"{}"#,
            r#"{"tolerations":[{"key":"a"}]}"#,
            r#"{"tolerations":[{"key":"b"}]}"#,
            r#"{"tolerations":[{"key":"a"}]}"#,
            r#"{"tolerations":[{"key":"a"}]}"#,
        ),
        (POD, r#"{}"#, r#"{"containers":[{"name":"a"}]}"#, r#"{"containers":[{"name":"a"}]}"#, "{}", "{}"),
    ];
    for (kind, last, wanted, live, two, three) in cases {
        let id = table().definition(kind).unwrap();
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(two_way(id, read(live), read(wanted)).unwrap().to_string(), two);
        let patch = three_way(id, read(last), read(wanted), read(live)).unwrap();
        assert_eq!(patch.to_string(), three);
        assert_eq!(strategic(id, read(live), two_way(id, read(live), read(wanted)).unwrap()).unwrap(), read(wanted));
    }
}

/// A pod spec with merged lists in merged lists, unions, maps and plain lists.
fn any_pod() -> impl Strategy<Value = Value> {
    let named = |names: &[&'static str]| subsequence(names.to_vec(), 0..=names.len()).prop_shuffle();
    let env = named(&["A", "B", "C"]).prop_map(|names| {
        names.iter().map(|name| json!({ "name": name, "value": name.to_lowercase() })).collect::<Vec<_>>()
    });
    let container = (prop::option::of(env), prop::option::of(named(&["x", "y"])), 0..3u8);
    let containers = named(&["a", "b", "c", "d"]).prop_flat_map(move |names| {
        let filled = prop::collection::vec(container.clone(), names.len());
        filled.prop_map(move |filled| -> Value {
            let each = names.iter().zip(filled).map(|(name, (env, command, image))| {
                let mut container = json!({ "name": name, "image": image.to_string() });
                env.into_iter().for_each(|env| container["env"] = env.into());
                command.into_iter().for_each(|command| container["command"] = command.into());
                container
            });
            each.collect()
        })
    });
    let volumes = named(&["v", "w"]).prop_flat_map(|names| {
        let kinds = prop::collection::vec(any::<bool>(), names.len());
        kinds.prop_map(move |kinds| -> Value {
            let volume = |(name, empty): (&&str, bool)| match empty {
                true => json!({ "name": name, "emptyDir": {} }),
                false => json!({ "name": name, "hostPath": { "path": "/" } }),
            };
            names.iter().zip(kinds).map(volume).collect()
        })
    });
    let selector = prop::collection::btree_map("[a-c]", "[0-9]", 0..3);
    (containers, volumes, selector).prop_map(|(containers, volumes, selector)| {
        json!({ "containers": containers, "volumes": volumes, "nodeSelector": selector })
    })
}

proptest! {
    #[test]
    fn a_made_patch_leads_where_it_should(from in any_pod(), to in any_pod()) {
        let id = table().definition(POD).unwrap();
        let patch = two_way(id, from.clone(), to.clone()).unwrap();
        let mut reached = strategic(id, from, patch).unwrap();
        let mut wanted = to;
        for value in [&mut reached, &mut wanted] {
            crate::schema::check(id, value).unwrap();
        }
        prop_assert_eq!(reached, wanted);
    }
}
