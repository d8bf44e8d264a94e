//! Whole objects in, upstream's sentences out: each case is a good object with one thing changed.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::kinds::{Body, Kind};
use crate::{defaults, prepare, validate};

fn body(kind: Kind, json: Value) -> Body {
    let mut body = kind.decode(json).unwrap();
    defaults::apply(&mut body);
    prepare::create(&mut body);
    body
}

fn message(errors: validate::Errors, body: &Body) -> String {
    errors.refuse(body).err().map_or_else(|| "fine".to_owned(), |refusal| refusal.message)
}

/// Changes one place of an object: `/spec/replicas = -1`. A missing value removes the place.
fn with(object: &Value, change: &str) -> Value {
    let mut object = object.clone();
    let (path, value) = change.split_once(" = ").unwrap_or((change, "null"));
    let patch = if change.contains(" = ") {
        json!([{"op": "add", "path": path, "value": serde_json::from_str::<Value>(value).unwrap()}])
    } else {
        json!([{"op": "remove", "path": path}])
    };
    json_patch::patch(&mut object, &serde_json::from_value::<json_patch::Patch>(patch).unwrap()).unwrap();
    object
}

/// Creates the object once for each change.
fn creating(kind: Kind, object: &Value, changes: &[&str], expected: Expect) {
    let table: String = changes
        .iter()
        .map(|change| {
            let new = body(kind, with(object, change));
            format!("{change}\n    {}\n", message(validate::create(&new), &new))
        })
        .collect();
    expected.assert_eq(&table);
}

/// Updates the object once for each change.
fn updating(kind: Kind, object: &Value, changes: &[&str], expected: Expect) {
    let old = body(kind, object.clone());
    let table: String = changes
        .iter()
        .map(|change| {
            let mut new = kind.decode(with(&old.to_value(), change)).unwrap();
            defaults::apply(&mut new);
            prepare::update(&mut new, &old);
            format!("{change}\n    {}\n", message(validate::update(&new, &old), &new))
        })
        .collect();
    expected.assert_eq(&table);
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1.7.9"}]},
            },
        },
    })
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], "volumes": [{"name": "v"}]},
    })
}

fn service() -> Value {
    json!({
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

#[test]
fn deployments() {
    let changes = [
        "/metadata/labels = {\"a\": \"b\"}",
        "/metadata/name = \"Web_1\"",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/labels = {\"a b\": \"c\"}",
        "/metadata/ownerReferences = [{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"name\": \"\", \"uid\": \"u\"}]",
        "/metadata/finalizers = [\"mine\"]",
        "/spec/selector",
        "/spec/selector = {\"matchLabels\": {}}",
        "/spec/selector/matchLabels/app = \"other\"",
        "/spec/selector/matchExpressions = [{\"key\": \"app\", \"operator\": \"Is\"}]",
        "/spec/replicas = -1",
        "/spec/template/spec/restartPolicy = \"Never\"",
        "/spec/template/spec/containers = []",
        "/spec/template/spec/containers/0/image",
        "/spec/strategy = {\"type\": \"Blue\"}",
        "/spec/strategy = {\"type\": \"Recreate\", \"rollingUpdate\": {\"maxSurge\": 1}}",
        "/spec/strategy = {\"rollingUpdate\": {\"maxSurge\": 0, \"maxUnavailable\": 0}}",
        "/spec/strategy = {\"rollingUpdate\": {\"maxSurge\": \"x\", \"maxUnavailable\": \"101%\"}}",
        "/spec/strategy = {\"rollingUpdate\": {\"maxSurge\": -1, \"maxUnavailable\": \"50%\"}}",
        "/spec/minReadySeconds = 600",
        "/spec/progressDeadlineSeconds = -1",
        "/spec/revisionHistoryLimit = 0",
        "/spec/template/spec/volumes = [{\"name\": \"v\", \"csi\": {\"driver\": \"d\"}}]",
    ];
    creating(
        Kind::Deployment,
        &deployment(),
        &changes,
        expect![[r#"
            /metadata/labels = {"a": "b"}
                fine
            /metadata/name = "Web_1"
                Deployment.apps "Web_1" is invalid: metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            /metadata/name
                Deployment.apps "" is invalid: metadata.name: Required value: name or generateName is required
            /metadata/namespace
                Deployment.apps "web" is invalid: metadata.namespace: Required value
            /metadata/labels = {"a b": "c"}
                Deployment.apps "web" is invalid: metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            /metadata/ownerReferences = [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]
                Deployment.apps "web" is invalid: metadata.ownerReferences.name: Invalid value: "": must not be empty
            /metadata/finalizers = ["mine"]
                Deployment.apps "web" is invalid: metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified
            /spec/selector
                Deployment.apps "web" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`]
            /spec/selector = {"matchLabels": {}}
                Deployment.apps "web" is invalid: spec.selector: Invalid value: {"matchLabels":{}}: empty selector is invalid for deployment
            /spec/selector/matchLabels/app = "other"
                Deployment.apps "web" is invalid: spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
            /spec/selector/matchExpressions = [{"key": "app", "operator": "Is"}]
                Deployment.apps "web" is invalid: [spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator, spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Is"}],"matchLabels":{"app":"web"}}: invalid label selector]
            /spec/replicas = -1
                Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0
            /spec/template/spec/restartPolicy = "Never"
                Deployment.apps "web" is invalid: spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            /spec/template/spec/containers = []
                Deployment.apps "web" is invalid: spec.template.spec.containers: Required value
            /spec/template/spec/containers/0/image
                Deployment.apps "web" is invalid: spec.template.spec.containers[0].image: Required value
            /spec/strategy = {"type": "Blue"}
                Deployment.apps "web" is invalid: spec.strategy: Unsupported value: {"type":"Blue"}: supported values: "Recreate", "RollingUpdate"
            /spec/strategy = {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}
                Deployment.apps "web" is invalid: spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
            /spec/strategy = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}
                Deployment.apps "web" is invalid: spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0
            /spec/strategy = {"rollingUpdate": {"maxSurge": "x", "maxUnavailable": "101%"}}
                Deployment.apps "web" is invalid: [spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%'), spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%]
            /spec/strategy = {"rollingUpdate": {"maxSurge": -1, "maxUnavailable": "50%"}}
                Deployment.apps "web" is invalid: spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0
            /spec/minReadySeconds = 600
                Deployment.apps "web" is invalid: spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds
            /spec/progressDeadlineSeconds = -1
                Deployment.apps "web" is invalid: [spec.progressDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0, spec.progressDeadlineSeconds: Invalid value: -1: must be greater than minReadySeconds]
            /spec/revisionHistoryLimit = 0
                fine
            /spec/template/spec/volumes = [{"name": "v", "csi": {"driver": "d"}}]
                Deployment.apps "web" is invalid: spec.template.spec.volumes[0].csi: Forbidden: not supported by kapstan: this source of volumes
        "#]],
    );
}

#[test]
fn changed_deployments() {
    let changes = [
        "/spec/replicas = 5",
        "/spec/selector/matchLabels = {\"app\": \"other\"}",
        "/spec/template/spec/containers/0/image = \"nginx:1.9.1\"",
        "/metadata/uid = \"other\"",
        "/metadata/name = \"other\"",
    ];
    updating(
        Kind::Deployment,
        &deployment(),
        &changes,
        expect![[r#"
        /spec/replicas = 5
            fine
        /spec/selector/matchLabels = {"app": "other"}
            Deployment.apps "web" is invalid: [spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`, spec.selector: Invalid value: {"matchLabels":{"app":"other"}}: field is immutable]
        /spec/template/spec/containers/0/image = "nginx:1.9.1"
            fine
        /metadata/uid = "other"
            Deployment.apps "web" is invalid: metadata.uid: Invalid value: "other": field is immutable
        /metadata/name = "other"
            Deployment.apps "other" is invalid: metadata.name: Invalid value: "other": field is immutable
    "#]],
    );
}

#[test]
fn replica_sets() {
    let changes = [
        "/spec/replicas = 0",
        "/spec/template",
        "/spec/selector",
        "/spec/selector/matchLabels/app = \"other\"",
        "/spec/minReadySeconds = -3",
    ];
    creating(
        Kind::ReplicaSet,
        &deployment(),
        &changes,
        expect![[r#"
        /spec/replicas = 0
            fine
        /spec/template
            ReplicaSet.apps "web" is invalid: [spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`, spec.template.spec.containers: Required value]
        /spec/selector
            ReplicaSet.apps "web" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`]
        /spec/selector/matchLabels/app = "other"
            ReplicaSet.apps "web" is invalid: spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        /spec/minReadySeconds = -3
            ReplicaSet.apps "web" is invalid: spec.minReadySeconds: Invalid value: -3: must be greater than or equal to 0
    "#]],
    );
}

#[test]
fn statuses() {
    let old = body(Kind::Deployment, deployment());
    let changes = [
        "/status = {\"replicas\": 2, \"updatedReplicas\": 2, \"readyReplicas\": 1, \"availableReplicas\": 1}",
        "/status = {\"replicas\": 1, \"updatedReplicas\": 2, \"readyReplicas\": -1}",
        "/status = {\"replicas\": 3, \"readyReplicas\": 1, \"availableReplicas\": 2}",
    ];
    let table: String = changes
        .iter()
        .map(|change| {
            let mut new = Kind::Deployment.decode(with(&old.to_value(), change)).unwrap();
            prepare::update_status(&mut new, &old);
            format!("{change}\n    {}\n", message(validate::update_status(&new, &old), &new))
        })
        .collect();
    expect![[r#"
        /status = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1}
            fine
        /status = {"replicas": 1, "updatedReplicas": 2, "readyReplicas": -1}
            Deployment.apps "web" is invalid: [status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas, status.readyReplicas: Invalid value: -1: must be greater than or equal to 0, status.availableReplicas: Invalid value: 0: cannot be greater than readyReplicas]
        /status = {"replicas": 3, "readyReplicas": 1, "availableReplicas": 2}
            Deployment.apps "web" is invalid: status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas
    "#]].assert_eq(&table);
}

/// Each case: the restart policy, how the container ended, and what is said of it then.
#[test]
fn containers_that_have_ended_for_good_stay_so() {
    let status = |name: &str, state: Value| json!({ "name": name, "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state });
    let cases = [("Always", 0), ("OnFailure", 0), ("OnFailure", 1), ("Never", 0), ("Never", 1)];
    let mut table = String::new();
    for (policy, code) in cases {
        let mut pod = body(Kind::Pod, pod()).to_value();
        pod["spec"]["restartPolicy"] = json!(policy);
        pod["spec"]["initContainers"] = json!([{ "name": "side", "image": "x", "restartPolicy": "Always" }]);
        let said = |state: Value| {
            let mut pod = pod.clone();
            pod["status"] = json!({ "containerStatuses": [status("c", state.clone())], "initContainerStatuses": [status("side", state)] });
            Kind::Pod.decode(pod).unwrap()
        };
        let (old, new) = (said(json!({ "terminated": { "exitCode": code } })), said(json!({ "running": {} })));
        let again = said(json!({ "terminated": { "exitCode": 137 } }));
        assert!(validate::update_status(&again, &old).0.is_empty());
        table += &format!("{policy}, {code}: {}\n", message(validate::update_status(&new, &old), &new));
    }
    expect![[r#"
        Always, 0: fine
        OnFailure, 0: Pod "p" is invalid: status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state
        OnFailure, 1: fine
        Never, 0: Pod "p" is invalid: status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state
        Never, 1: Pod "p" is invalid: status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state
    "#]].assert_eq(&table);
}

#[test]
fn pods() {
    let changes = [
        "/metadata/labels = {\"a\": \"b\"}",
        "/metadata/annotations = {\"controller.kubernetes.io/pod-deletion-cost\": \"+1\"}",
        "/spec/containers/0/name = \"C\"",
        "/spec/containers/1 = {\"name\": \"c\", \"image\": \"x\"}",
        "/spec/containers/0/image = \"\"",
        "/spec/containers/0/image = \" nginx\"",
        "/spec/containers/0/imagePullPolicy = \"Sometimes\"",
        "/spec/containers/0/ports = [{\"containerPort\": 0}, {\"containerPort\": 80, \"protocol\": \"ICMP\", \"name\": \"-\"}]",
        "/spec/containers/0/ports = [{\"containerPort\": 80, \"hostPort\": 80}, {\"containerPort\": 81, \"hostPort\": 80}]",
        "/spec/containers/0/ports = [{\"containerPort\": 80, \"name\": \"a\"}, {\"containerPort\": 81, \"name\": \"a\"}]",
        "/spec/containers/0/env = [{\"name\": \"\"}, {\"name\": \"A=\"}, {\"name\": \"B\", \"valueFrom\": {}}]",
        "/spec/containers/0/env = [{\"name\": \"A\", \"valueFrom\": {\"fieldRef\": {\"fieldPath\": \"metadata.labels['a']\"}}}]",
        "/spec/containers/0/env = [{\"name\": \"A\", \"valueFrom\": {\"fieldRef\": {\"fieldPath\": \"spec.image\"}}}]",
        "/spec/containers/0/env = [{\"name\": \"A\", \"valueFrom\": {\"fieldRef\": {\"fieldPath\": \"status.phase\"}}}]",
        "/spec/containers/0/env = [{\"name\": \"A\", \"value\": \"x\", \"valueFrom\": {\"secretKeyRef\": {\"name\": \"s\", \"key\": \"k/\"}}}]",
        "/spec/containers/0/envFrom = [{}]",
        "/spec/containers/0/volumeMounts = [{\"name\": \"w\", \"mountPath\": \"\"}]",
        "/spec/containers/0/volumeMounts = [{\"name\": \"v\", \"mountPath\": \"/a\"}, {\"name\": \"v\", \"mountPath\": \"/a\", \"subPath\": \"../b\"}]",
        "/spec/containers/0/resources = {\"limits\": {\"cpu\": \"1\"}, \"requests\": {\"cpu\": \"2\"}}",
        "/spec/containers/0/resources = {\"limits\": {\"cpu\": \"-1\", \"memory\": \"1 Gi\", \"gold\": \"1\", \"a.b/c\": \"1500m\"}}",
        "/spec/containers/0/resources = {\"requests\": {\"a.b/c\": \"1\"}}",
        "/spec/containers/0/livenessProbe = {}",
        "/spec/containers/0/livenessProbe = {\"exec\": {\"command\": []}, \"successThreshold\": 2}",
        "/spec/containers/0/livenessProbe = {\"httpGet\": {\"port\": 0, \"scheme\": \"FTP\"}, \"tcpSocket\": {\"port\": 1}}",
        "/spec/containers/0/readinessProbe = {\"tcpSocket\": {\"port\": 80}, \"periodSeconds\": -1, \"terminationGracePeriodSeconds\": 1}",
        "/spec/containers/0/lifecycle = {\"preStop\": {\"sleep\": {\"seconds\": 31}}}",
        "/spec/containers/0/securityContext = {\"runAsUser\": -1, \"privileged\": true, \"allowPrivilegeEscalation\": false}",
        "/spec/initContainers = [{\"name\": \"c\", \"image\": \"x\", \"readinessProbe\": {\"tcpSocket\": {\"port\": 80}}}]",
        "/spec/initContainers = [{\"name\": \"i\", \"image\": \"x\", \"restartPolicy\": \"Always\", \"startupProbe\": {\"tcpSocket\": {\"port\": 80}}}]",
        "/spec/volumes = [{\"name\": \"v\"}, {\"name\": \"v\", \"secret\": {}}, {\"name\": \"\", \"hostPath\": {\"path\": \"/..\"}}]",
        "/spec/volumes = [{\"name\": \"v\", \"secret\": {\"secretName\": \"s\"}, \"emptyDir\": {\"sizeLimit\": \"-1\"}}]",
        "/spec/volumes = [{\"name\": \"v\", \"configMap\": {\"name\": \"c\", \"defaultMode\": 512, \"items\": [{\"key\": \"k\", \"path\": \"/x\"}]}}]",
        "/spec/volumes = [{\"name\": \"v\", \"persistentVolumeClaim\": {\"claimName\": \"c\"}}]",
        "/spec/restartPolicy = \"Maybe\"",
        "/spec/dnsPolicy = \"None\"",
        "/spec/nodeSelector = {\"a\": \"b c\"}",
        "/spec/activeDeadlineSeconds = 0",
        "/spec/hostNetwork = true",
        "/spec/tolerations = [{\"operator\": \"Equal\"}, {\"key\": \"a\", \"operator\": \"Exists\", \"value\": \"b\", \"tolerationSeconds\": 1}]",
        "/spec/tolerations = [{\"key\": \"a\", \"operator\": \"In\", \"effect\": \"Stop\"}]",
        "/spec/affinity = {\"nodeAffinity\": {\"requiredDuringSchedulingIgnoredDuringExecution\": {\"nodeSelectorTerms\": []}}}",
        "/spec/affinity = {\"podAntiAffinity\": {\"preferredDuringSchedulingIgnoredDuringExecution\": [{\"weight\": 0, \"podAffinityTerm\": {\"topologyKey\": \"\"}}]}}",
        "/spec/topologySpreadConstraints = [{\"maxSkew\": 0, \"topologyKey\": \"\", \"whenUnsatisfiable\": \"Cry\"}]",
        "/spec/securityContext = {\"fsGroup\": -1, \"sysctls\": [{\"name\": \"A\", \"value\": \"1\"}], \"seccompProfile\": {\"type\": \"Localhost\"}}",
        "/spec/os = {\"name\": \"windows\"}",
        "/spec/resourceClaims = [{\"name\": \"r\"}]",
        "/spec/ephemeralContainers = [{\"name\": \"e\", \"image\": \"x\"}]",
        "/spec/hostname = \"a.b\"",
        "/spec/serviceAccountName = \"A\"",
    ];
    creating(
        Kind::Pod,
        &pod(),
        &changes,
        expect![[r#"
            /metadata/labels = {"a": "b"}
                fine
            /metadata/annotations = {"controller.kubernetes.io/pod-deletion-cost": "+1"}
                Pod "p" is invalid: metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit integer
            /spec/containers/0/name = "C"
                Pod "p" is invalid: spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            /spec/containers/1 = {"name": "c", "image": "x"}
                Pod "p" is invalid: spec.containers[1].name: Duplicate value: "c"
            /spec/containers/0/image = ""
                Pod "p" is invalid: spec.containers[0].image: Required value
            /spec/containers/0/image = " nginx"
                Pod "p" is invalid: spec.containers[0].image: Invalid value: " nginx": must not have leading or trailing whitespace
            /spec/containers/0/imagePullPolicy = "Sometimes"
                Pod "p" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"
            /spec/containers/0/ports = [{"containerPort": 0}, {"containerPort": 80, "protocol": "ICMP", "name": "-"}]
                Pod "p" is invalid: [spec.containers[0].ports[0].containerPort: Required value, spec.containers[0].ports[1].name: Invalid value: "-": must contain at least one letter (a-z), spec.containers[0].ports[1].name: Invalid value: "-": must not begin or end with a hyphen, spec.containers[0].ports[1].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"]
            /spec/containers/0/ports = [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]
                Pod "p" is invalid: spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"
            /spec/containers/0/ports = [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]
                Pod "p" is invalid: spec.containers[0].ports[1].name: Duplicate value: "a"
            /spec/containers/0/env = [{"name": ""}, {"name": "A="}, {"name": "B", "valueFrom": {}}]
                Pod "p" is invalid: [spec.containers[0].env[0].name: Required value, spec.containers[0].env[1].name: Invalid value: "A=": a valid environment variable name must consist only of printable ASCII characters other than '=', spec.containers[0].env[2].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`]
            /spec/containers/0/env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]
                fine
            /spec/containers/0/env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.image"}}}]
                Pod "p" is invalid: spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.image": error converting fieldPath: field label not supported: spec.image
            /spec/containers/0/env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]
                Pod "p" is invalid: spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
            /spec/containers/0/env = [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k/"}}}]
                Pod "p" is invalid: [spec.containers[0].env[0].valueFrom.secretKeyRef.key: Invalid value: "k/": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+'), spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty]
            /spec/containers/0/envFrom = [{}]
                Pod "p" is invalid: spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
            /spec/containers/0/volumeMounts = [{"name": "w", "mountPath": ""}]
                Pod "p" is invalid: [spec.containers[0].volumeMounts[0].name: Not found: "w", spec.containers[0].volumeMounts[0].mountPath: Required value]
            /spec/containers/0/volumeMounts = [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a", "subPath": "../b"}]
                Pod "p" is invalid: [spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique, spec.containers[0].volumeMounts.subPath: Invalid value: "../b": must not contain '..']
            /spec/containers/0/resources = {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}
                Pod "p" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            /spec/containers/0/resources = {"limits": {"cpu": "-1", "memory": "1 Gi", "gold": "1", "a.b/c": "1500m"}}
                Pod "p" is invalid: [spec.containers[0].resources.limits[a.b/c]: Invalid value: "1500m": must be an integer, spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0, spec.containers[0].resources.limits[gold]: Invalid value: "gold": must be a standard resource type or fully qualified, spec.containers[0].resources.limits[gold]: Invalid value: "gold": must be a standard resource for containers, spec.containers[0].resources.limits[memory]: Invalid value: "1 Gi": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', spec.containers[0].resources.requests[a.b/c]: Invalid value: "1500m": must be an integer, spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0, spec.containers[0].resources.requests[gold]: Invalid value: "gold": must be a standard resource type or fully qualified, spec.containers[0].resources.requests[gold]: Invalid value: "gold": must be a standard resource for containers, spec.containers[0].resources.requests[memory]: Invalid value: "1 Gi": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$']
            /spec/containers/0/resources = {"requests": {"a.b/c": "1"}}
                Pod "p" is invalid: spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources
            /spec/containers/0/livenessProbe = {}
                Pod "p" is invalid: spec.containers[0].livenessProbe: Required value: must specify a handler type
            /spec/containers/0/livenessProbe = {"exec": {"command": []}, "successThreshold": 2}
                Pod "p" is invalid: [spec.containers[0].livenessProbe.exec.command: Required value, spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1]
            /spec/containers/0/livenessProbe = {"httpGet": {"port": 0, "scheme": "FTP"}, "tcpSocket": {"port": 1}}
                Pod "p" is invalid: [spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS", spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type]
            /spec/containers/0/readinessProbe = {"tcpSocket": {"port": 80}, "periodSeconds": -1, "terminationGracePeriodSeconds": 1}
                Pod "p" is invalid: [spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0, spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes]
            /spec/containers/0/lifecycle = {"preStop": {"sleep": {"seconds": 31}}}
                Pod "p" is invalid: spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)
            /spec/containers/0/securityContext = {"runAsUser": -1, "privileged": true, "allowPrivilegeEscalation": false}
                Pod "p" is invalid: [spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive, spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true,"runAsUser":-1}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true]
            /spec/initContainers = [{"name": "c", "image": "x", "readinessProbe": {"tcpSocket": {"port": 80}}}]
                Pod "p" is invalid: [spec.initContainers[0].name: Duplicate value: "c", spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always]
            /spec/initContainers = [{"name": "i", "image": "x", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 80}}}]
                fine
            /spec/volumes = [{"name": "v"}, {"name": "v", "secret": {}}, {"name": "", "hostPath": {"path": "/.."}}]
                Pod "p" is invalid: [spec.volumes[1].secret.secretName: Required value, spec.volumes[1].name: Duplicate value: "v", spec.volumes[2].hostPath.path: Invalid value: "/..": must not contain '..', spec.volumes[2].name: Required value]
            /spec/volumes = [{"name": "v", "secret": {"secretName": "s"}, "emptyDir": {"sizeLimit": "-1"}}]
                Pod "p" is invalid: [spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity, spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type]
            /spec/volumes = [{"name": "v", "configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "k", "path": "/x"}]}}]
                Pod "p" is invalid: [spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive, spec.volumes[0].configMap.items[0].path: Invalid value: "/x": must be a relative path]
            /spec/volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
                fine
            /spec/restartPolicy = "Maybe"
                Pod "p" is invalid: spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"
            /spec/dnsPolicy = "None"
                Pod "p" is invalid: spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
            /spec/nodeSelector = {"a": "b c"}
                Pod "p" is invalid: spec.nodeSelector: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            /spec/activeDeadlineSeconds = 0
                Pod "p" is invalid: spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
            /spec/hostNetwork = true
                fine
            /spec/tolerations = [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b", "tolerationSeconds": 1}]
                Pod "p" is invalid: [spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys", spec.tolerations[1].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set, spec.tolerations[1].operator: Invalid value: "b": value must be empty when `operator` is 'Exists']
            /spec/tolerations = [{"key": "a", "operator": "In", "effect": "Stop"}]
                Pod "p" is invalid: [spec.tolerations[0].operator: Unsupported value: "In": supported values: "Equal", "Exists", spec.tolerations[0].effect: Unsupported value: "Stop": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"]
            /spec/affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
                Pod "p" is invalid: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term
            /spec/affinity = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": ""}}]}}
                Pod "p" is invalid: [spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100, spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty, spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: "": name part must be non-empty, spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')]
            /spec/topologySpreadConstraints = [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Cry"}]
                Pod "p" is invalid: [spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero, spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty, spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway"]
            /spec/securityContext = {"fsGroup": -1, "sysctls": [{"name": "A", "value": "1"}], "seccompProfile": {"type": "Localhost"}}
                Pod "p" is invalid: [spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive, spec.securityContext.sysctls[0].name: Invalid value: "A": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$, spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost]
            /spec/os = {"name": "windows"}
                Pod "p" is invalid: spec.os.name: Forbidden: not supported by kapstan: nodes run Linux
            /spec/resourceClaims = [{"name": "r"}]
                Pod "p" is invalid: spec.resourceClaims: Forbidden: not supported by kapstan: dynamic resource allocation
            /spec/ephemeralContainers = [{"name": "e", "image": "x"}]
                Pod "p" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create
            /spec/hostname = "a.b"
                Pod "p" is invalid: spec.hostname: Invalid value: "a.b": must not contain dots
            /spec/serviceAccountName = "A"
                Pod "p" is invalid: spec.serviceAccountName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
}

#[test]
fn changed_pods() {
    let mut object = pod();
    object["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists", "effect": "NoExecute"}]);
    object["spec"]["activeDeadlineSeconds"] = json!(10);
    let changes = [
        "/spec/containers/0/image = \"nginx:2\"",
        "/spec/containers/0/image = \"\"",
        "/spec/containers/0/command = [\"x\"]",
        "/spec/containers/1 = {\"name\": \"d\", \"image\": \"x\"}",
        "/spec/activeDeadlineSeconds = 5",
        "/spec/activeDeadlineSeconds = 50",
        "/spec/activeDeadlineSeconds",
        "/spec/tolerations/0/tolerationSeconds = 5",
        "/spec/tolerations/1 = {\"operator\": \"Exists\"}",
        "/spec/tolerations = []",
        "/spec/nodeName = \"n\"",
        "/spec/terminationGracePeriodSeconds = 1",
        "/metadata/labels = {\"a\": \"b\"}",
    ];
    updating(
        Kind::Pod,
        &object,
        &changes,
        expect![[r#"
        /spec/containers/0/image = "nginx:2"
            fine
        /spec/containers/0/image = ""
            Pod "p" is invalid: spec.containers[0].image: Required value
        /spec/containers/0/command = ["x"]
            Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        /spec/containers/1 = {"name": "d", "image": "x"}
            Pod "p" is invalid: spec.containers: Forbidden: pod updates may not add or remove containers
        /spec/activeDeadlineSeconds = 5
            fine
        /spec/activeDeadlineSeconds = 50
            Pod "p" is invalid: spec.activeDeadlineSeconds: Invalid value: 50: must be less than or equal to previous value
        /spec/activeDeadlineSeconds
            Pod "p" is invalid: spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value
        /spec/tolerations/0/tolerationSeconds = 5
            fine
        /spec/tolerations/1 = {"operator": "Exists"}
            fine
        /spec/tolerations = []
            Pod "p" is invalid: spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
        /spec/nodeName = "n"
            Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        /spec/terminationGracePeriodSeconds = 1
            Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        /metadata/labels = {"a": "b"}
            fine
    "#]],
    );
}

#[test]
fn services() {
    let changes = [
        "/metadata/name = \"1-s\"",
        "/metadata/name = \"s.t\"",
        "/spec/ports = []",
        "/spec/ports/0/port = 0",
        "/spec/ports/0/protocol = \"ICMP\"",
        "/spec/ports/0/targetPort = \"\"",
        "/spec/ports/0/targetPort = \"a_b\"",
        "/spec/ports/0/nodePort = 30000",
        "/spec/ports/1 = {\"port\": 80}",
        "/spec/ports = [{\"port\": 80, \"name\": \"a\"}, {\"port\": 81, \"name\": \"a\"}]",
        "/spec/type = \"Magic\"",
        "/spec/type = \"ExternalName\"",
        "/spec/clusterIP = \"None\"",
        "/spec/clusterIP = \"x\"",
        "/spec/clusterIPs = [\"10.96.0.1\"]",
        "/spec/externalIPs = [\"127.0.0.1\"]",
        "/spec/sessionAffinity = \"Cookie\"",
        "/spec/sessionAffinity = \"ClientIP\"",
        "/spec/externalTrafficPolicy = \"Local\"",
        "/spec/internalTrafficPolicy = \"x\"",
        "/spec/loadBalancerSourceRanges = [\"10.0.0.0/33\"]",
        "/spec/ipFamilies = [\"IPv6\"]",
        "/spec/selector = {\"a\": \"-\"}",
    ];
    creating(
        Kind::Service,
        &service(),
        &changes,
        expect![[r#"
            /metadata/name = "1-s"
                fine
            /metadata/name = "s.t"
                Service "s.t" is invalid: metadata.name: Invalid value: "s.t": must not contain dots
            /spec/ports = []
                Service "s" is invalid: spec.ports: Required value
            /spec/ports/0/port = 0
                Service "s" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]
            /spec/ports/0/protocol = "ICMP"
                Service "s" is invalid: spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            /spec/ports/0/targetPort = ""
                fine
            /spec/ports/0/targetPort = "a_b"
                Service "s" is invalid: spec.ports[0].targetPort: Invalid value: "a_b": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            /spec/ports/0/nodePort = 30000
                Service "s" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
            /spec/ports/1 = {"port": 80}
                Service "s" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value, spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}]
            /spec/ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]
                Service "s" is invalid: spec.ports[1].name: Duplicate value: "a"
            /spec/type = "Magic"
                Service "s" is invalid: spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
            /spec/type = "ExternalName"
                Service "s" is invalid: spec.externalName: Required value
            /spec/clusterIP = "None"
                fine
            /spec/clusterIP = "x"
                Service "s" is invalid: spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            /spec/clusterIPs = ["10.96.0.1"]
                Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.1"]: must be empty when `clusterIP` is not specified
            /spec/externalIPs = ["127.0.0.1"]
                Service "s" is invalid: spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            /spec/sessionAffinity = "Cookie"
                Service "s" is invalid: spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"
            /spec/sessionAffinity = "ClientIP"
                fine
            /spec/externalTrafficPolicy = "Local"
                Service "s" is invalid: spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services
            /spec/internalTrafficPolicy = "x"
                Service "s" is invalid: spec.internalTrafficPolicy: Unsupported value: "x": supported values: "Cluster", "Local"
            /spec/loadBalancerSourceRanges = ["10.0.0.0/33"]
                Service "s" is invalid: [spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer', spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)]
            /spec/ipFamilies = ["IPv6"]
                fine
            /spec/selector = {"a": "-"}
                Service "s" is invalid: spec.selector: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        "#]],
    );
}

#[test]
fn changed_services() {
    let mut object = service();
    object["spec"]["clusterIP"] = "10.96.0.9".into();
    let changes = [
        "/spec/clusterIP = \"10.96.0.8\"",
        "/spec/clusterIP",
        "/spec/clusterIPs = [\"10.96.0.8\"]",
        "/spec/ports/0/port = 81",
        "/spec/type = \"NodePort\"",
    ];
    updating(
        Kind::Service,
        &object,
        &changes,
        expect![[r#"
            /spec/clusterIP = "10.96.0.8"
                Service "s" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set
            /spec/clusterIP
                fine
            /spec/clusterIPs = ["10.96.0.8"]
                Service "s" is invalid: [spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set, spec.clusterIPs: Invalid value: ["10.96.0.8"]: first value must match `clusterIP`]
            /spec/ports/0/port = 81
                fine
            /spec/type = "NodePort"
                fine
        "#]],
    );
}

#[test]
fn configuration() {
    let config = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}});
    creating(
        Kind::ConfigMap,
        &config,
        &[
            "/data = {\"a/b\": \"\"}",
            "/data = {\"..\": \"\"}",
            "/binaryData = {\"a\": \"eA==\"}",
            "/metadata/generateName = \"X-\"",
        ],
        expect![[r#"
            /data = {"a/b": ""}
                ConfigMap "c" is invalid: data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            /data = {"..": ""}
                ConfigMap "c" is invalid: data[..]: Invalid value: "..": must not be '..'
            /binaryData = {"a": "eA=="}
                ConfigMap "c" is invalid: data[a]: Invalid value: "a": duplicate of key present in binaryData
            /metadata/generateName = "X-"
                fine
        "#]],
    );
    let mut large = config.clone();
    large["data"]["a"] = "x".repeat(1024 * 1024 + 1).into();
    let large = body(Kind::ConfigMap, large);
    expect![[r#"ConfigMap "c" is invalid: []: Too long: may not be more than 1048576 bytes"#]]
        .assert_eq(&message(validate::create(&large), &large));
    let secret = json!({"metadata": {"name": "s", "namespace": "default"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}});
    let changes = [
        "/data/tls.key = \"eA==\"",
        "/data",
        "/type = \"kubernetes.io/dockerconfigjson\"",
        "/type = \"kubernetes.io/basic-auth\"",
        "/type = \"kubernetes.io/service-account-token\"",
    ];
    creating(
        Kind::Secret,
        &secret,
        &changes,
        expect![[r#"
        /data/tls.key = "eA=="
            fine
        /data
            Secret "s" is invalid: [data[tls.crt]: Required value, data[tls.key]: Required value]
        /type = "kubernetes.io/dockerconfigjson"
            Secret "s" is invalid: data[.dockerconfigjson]: Required value
        /type = "kubernetes.io/basic-auth"
            Secret "s" is invalid: [data[username]: Required value, data[password]: Required value]
        /type = "kubernetes.io/service-account-token"
            Secret "s" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required value
    "#]],
    );
    let mut fixed = secret;
    fixed["immutable"] = true.into();
    fixed["data"]["tls.key"] = "eA==".into();
    let changes = ["/data/tls.key = \"eQ==\"", "/immutable = false", "/type = \"Opaque\""];
    updating(
        Kind::Secret,
        &fixed,
        &changes,
        expect![[r#"
        /data/tls.key = "eQ=="
            Secret "s" is invalid: data: Forbidden: field is immutable when `immutable` is set
        /immutable = false
            Secret "s" is invalid: immutable: Forbidden: field is immutable when `immutable` is set
        /type = "Opaque"
            Secret "s" is invalid: type: Invalid value: "Opaque": field is immutable
    "#]],
    );
}

#[test]
fn others() {
    let namespace = json!({"metadata": {"name": "n"}});
    creating(
        Kind::Namespace,
        &namespace,
        &["/metadata/name = \"a.b\"", "/metadata/namespace = \"x\""],
        expect![[r#"
        /metadata/name = "a.b"
            Namespace "a.b" is invalid: metadata.name: Invalid value: "a.b": must not contain dots
        /metadata/namespace = "x"
            Namespace "n" is invalid: metadata.namespace: Forbidden: not allowed on this type
    "#]],
    );
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.244.0.0/24"]}, "status": {"capacity": {"cpu": "2"}}});
    let changes = [
        "/spec/taints = [{\"key\": \"a\", \"effect\": \"NoSchedule\"}, {\"key\": \"a\", \"effect\": \"NoSchedule\"}, {\"key\": \"\", \"effect\": \"\"}]",
        "/status/capacity/memory = \"-1\"",
        "/spec/podCIDRs = [\"x\"]",
    ];
    creating(
        Kind::Node,
        &node,
        &changes,
        expect![[r#"
            /spec/taints = [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "", "effect": ""}]
                Node "n" is invalid: [metadata.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a"}: taints must be unique by key and effect pair, metadata.taints[2].key: Invalid value: "": name part must be non-empty, metadata.taints[2].key: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), metadata.taints[2].effect: Required value]
            /status/capacity/memory = "-1"
                Node "n" is invalid: [status.capacity.memory: Invalid value: "-1": must be greater than or equal to 0, status.allocatable.memory: Invalid value: "-1": must be greater than or equal to 0]
            /spec/podCIDRs = ["x"]
                Node "n" is invalid: spec.podCIDRs[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
        "#]],
    );
    updating(
        Kind::Node,
        &node,
        &["/spec/podCIDRs = [\"10.244.1.0/24\"]", "/spec/unschedulable = true"],
        expect![[r#"
            /spec/podCIDRs = ["10.244.1.0/24"]
                fine
            /spec/unschedulable = true
                fine
        "#]],
    );
    let slice = json!({"metadata": {"name": "s", "namespace": "d"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
    let changes = [
        "/addressType = \"X\"",
        "/endpoints = [{\"addresses\": []}, {\"addresses\": [\"::1\"]}, {\"addresses\": [\"127.0.0.1\"]}, {\"addresses\": [\"x\"]}]",
        "/ports = [{\"port\": 80}, {\"port\": 81}]",
        "/endpoints/0/hints = {\"forZones\": [{\"name\": \"a\"}, {\"name\": \"a\"}], \"forNodes\": [{\"name\": \"A\"}]}",
    ];
    creating(
        Kind::EndpointSlice,
        &slice,
        &changes,
        expect![[r#"
            /addressType = "X"
                EndpointSlice.discovery.k8s.io "s" is invalid: addressType: Unsupported value: "X": supported values: "FQDN", "IPv4", "IPv6"
            /endpoints = [{"addresses": []}, {"addresses": ["::1"]}, {"addresses": ["127.0.0.1"]}, {"addresses": ["x"]}]
                EndpointSlice.discovery.k8s.io "s" is invalid: [endpoints[0].addresses: Required value: must contain at least 1 address, endpoints[1].addresses: Invalid value: "::1": must be an IPv4 address, endpoints[1].addresses[0]: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128), endpoints[2].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128), endpoints[3].addresses[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)]
            /ports = [{"port": 80}, {"port": 81}]
                EndpointSlice.discovery.k8s.io "s" is invalid: ports[1].name: Duplicate value: ""
            /endpoints/0/hints = {"forZones": [{"name": "a"}, {"name": "a"}], "forNodes": [{"name": "A"}]}
                EndpointSlice.discovery.k8s.io "s" is invalid: [endpoints[0].hints.forZones[1].name: Duplicate value: "a", endpoints[0].hints.forNodes[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')]
        "#]],
    );
    updating(
        Kind::EndpointSlice,
        &slice,
        &["/addressType = \"IPv6\""],
        expect![[r#"
            /addressType = "IPv6"
                EndpointSlice.discovery.k8s.io "s" is invalid: addressType: Invalid value: "IPv6": field is immutable
        "#]],
    );
    creating(
        Kind::ServiceAccount,
        &json!({"metadata": {"name": "a", "namespace": "d"}}),
        &["/imagePullSecrets = [{\"name\": \"login\"}]"],
        expect![[r#"
            /imagePullSecrets = [{"name": "login"}]
                ServiceAccount "a" is invalid: imagePullSecrets: Forbidden: not supported by kapstan: logins for registries are in the node's registries.yaml
        "#]],
    );
    let binding = json!({"metadata": {"name": "system:b"}, "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]});
    let changes = [
        "/roleRef/kind = \"Role\"",
        "/roleRef/name = \"\"",
        "/subjects/0/kind = \"Robot\"",
        "/subjects/0 = {\"kind\": \"ServiceAccount\", \"name\": \"a\"}",
    ];
    creating(
        Kind::ClusterRoleBinding,
        &binding,
        &changes,
        expect![[r#"
        /roleRef/kind = "Role"
            ClusterRoleBinding.rbac.authorization.k8s.io "system:b" is invalid: roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
        /roleRef/name = ""
            ClusterRoleBinding.rbac.authorization.k8s.io "system:b" is invalid: roleRef.name: Required value
        /subjects/0/kind = "Robot"
            ClusterRoleBinding.rbac.authorization.k8s.io "system:b" is invalid: subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"
        /subjects/0 = {"kind": "ServiceAccount", "name": "a"}
            ClusterRoleBinding.rbac.authorization.k8s.io "system:b" is invalid: subjects[0].namespace: Required value
    "#]],
    );
    updating(
        Kind::ClusterRoleBinding,
        &binding,
        &["/roleRef/name = \"other\""],
        expect![[r#"
        /roleRef/name = "other"
            ClusterRoleBinding.rbac.authorization.k8s.io "system:b" is invalid: roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"other"}: cannot change roleRef
    "#]],
    );
    let role = json!({"metadata": {"name": "a/b", "namespace": "d"}, "rules": [{"verbs": []}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
    creating(
        Kind::Role,
        &role,
        &["/metadata/labels = {}"],
        expect![[r#"
        /metadata/labels = {}
            Role.rbac.authorization.k8s.io "a/b" is invalid: [metadata.name: Invalid value: "a/b": may not contain '/', rules[0].verbs: Required value: verbs must contain at least one value, rules[0].apiGroups: Required value: resource rules must supply at least one api group, rules[0].resources: Required value: resource rules must supply at least one resource, rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs]
    "#]],
    );
}

#[test]
fn refusals_carry_every_cause() {
    let mut object = deployment();
    object["spec"]["replicas"] = json!(-1);
    object["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    let new = body(Kind::Deployment, object);
    let refusal = validate::create(&new).refuse(&new).unwrap_err();
    expect![[r#"
        {
          "apiVersion": "v1",
          "code": 422,
          "details": {
            "causes": [
              {
                "field": "spec.replicas",
                "message": "Invalid value: -1: must be greater than or equal to 0",
                "reason": "FieldValueInvalid"
              },
              {
                "field": "spec.template.metadata.labels",
                "message": "Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                "reason": "FieldValueInvalid"
              }
            ],
            "group": "apps",
            "kind": "Deployment",
            "name": "web"
          },
          "kind": "Status",
          "message": "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`]",
          "metadata": {},
          "reason": "Invalid",
          "status": "Failure"
        }"#]].assert_eq(&serde_json::to_string_pretty(&refusal.to_value()).unwrap());
}

proptest! {
    /// Whatever a client sends, it gets an answer.
    #[test]
    fn never_panics(path in "/(spec|metadata)/[a-zA-Z]{1,12}", value in "(\"[ -~]{0,8}\"|-?[0-9]{1,12}|true|\\[\\]|\\{\\})") {
        for (kind, object) in [(Kind::Pod, pod()), (Kind::Deployment, deployment()), (Kind::Service, service())] {
            let value: Value = serde_json::from_str(&value).unwrap_or_default();
            let change = format!("{path} = {value}");
            if let Ok(mut new) = kind.decode(with(&object, &change)) {
                defaults::apply(&mut new);
                prepare::create(&mut new);
                let _ = validate::create(&new);
            }
        }
    }
}

/// Kinds that are judged before they are served.
fn judging<T>(
    object: &Value,
    changes: &[&str],
    default: fn(&mut T),
    judge: fn(&T) -> validate::Errors,
    expected: Expect,
) where
    T: serde::de::DeserializeOwned,
{
    let table: String = changes
        .iter()
        .map(|change| {
            let mut new: T = serde_json::from_value(with(object, change)).unwrap();
            default(&mut new);
            let errors = judge(&new).0;
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("{change}\n    {}\n", if found.is_empty() { "fine".to_owned() } else { found.join("\n    ") })
        })
        .collect();
    expected.assert_eq(&table);
}

#[test]
fn jobs() {
    let job = json!({
        "metadata": {"name": "j", "namespace": "d", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    });
    let changes = [
        "/spec/parallelism = 3",
        "/spec/completions = -1",
        "/spec/template/spec/restartPolicy",
        "/spec/template/metadata = {\"labels\": {\"job-name\": \"x\"}}",
        "/spec/selector = {\"matchLabels\": {\"a\": \"b\"}}",
        "/spec/completionMode = \"Indexed\"",
        "/spec/completionMode = \"Random\"",
        "/spec/backoffLimitPerIndex = 1",
        "/spec/podFailurePolicy = {\"rules\": [{\"action\": \"FailIndex\"}, {\"action\": \"FailJob\", \"onExitCodes\": {\"operator\": \"In\", \"values\": [3, 0, 3]}}]}",
        "/metadata/uid",
    ];
    let default = |job: &mut k8s_openapi::api::batch::v1::Job| {
        defaults::batch::job(job);
        prepare::create_job(job);
    };
    judging(
        &job,
        &changes,
        default,
        validate::batch::create_job,
        expect![[r#"
        /spec/parallelism = 3
            fine
        /spec/completions = -1
            spec.completions: Invalid value: -1: must be greater than or equal to 0
        /spec/template/spec/restartPolicy
            spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"
        /spec/template/metadata = {"labels": {"job-name": "x"}}
            spec.template.metadata.labels[job-name]: Invalid value: {"batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"j","controller-uid":"u","job-name":"x"}: must be 'j'
        /spec/selector = {"matchLabels": {"a": "b"}}
            spec.selector: Invalid value: {"matchLabels":{"a":"b","batch.kubernetes.io/controller-uid":"u"}}: `selector` not auto-generated
            spec.template.metadata.labels: Invalid value: {"batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"j","controller-uid":"u","job-name":"j"}: `selector` does not match template `labels`
        /spec/completionMode = "Indexed"
            fine
        /spec/completionMode = "Random"
            spec.completionMode: Unsupported value: "Random": supported values: "NonIndexed", "Indexed"
        /spec/backoffLimitPerIndex = 1
            spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode
        /spec/podFailurePolicy = {"rules": [{"action": "FailIndex"}, {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 0, 3]}}]}
            spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set
            spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required
            spec.podFailurePolicy.rules[1].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator
            spec.podFailurePolicy.rules[1].onExitCodes.values[2]: Duplicate value: 3
            spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: [3,0,3]: must be ordered
        /metadata/uid
            metadata.uid: Required value
    "#]],
    );
    let cron = json!({
        "metadata": {"name": "c", "namespace": "d"},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job["spec"]}},
    });
    let changes = [
        "/spec/suspend = true",
        "/spec/schedule = \"\"",
        "/spec/schedule = \"* * *\"",
        "/spec/schedule = \"TZ=UTC * * * * *\"",
        "/spec/timeZone = \"Europe/Zürich\"",
        "/spec/timeZone = \"Local\"",
        "/spec/concurrencyPolicy = \"Maybe\"",
        "/spec/jobTemplate/spec/manualSelector = true",
        "/metadata/name = \"a-name-that-is-longer-than-the-fifty-two-characters-allowed\"",
    ];
    judging(
        &cron,
        &changes,
        defaults::batch::cron_job,
        validate::batch::create_cron_job,
        expect![[r#"
        /spec/suspend = true
            fine
        /spec/schedule = ""
            spec.schedule: Required value
        /spec/schedule = "* * *"
            spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]
        /spec/schedule = "TZ=UTC * * * * *"
            spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
        /spec/timeZone = "Europe/Zürich"
            spec.timeZone: Invalid value: "Europe/Zürich": unknown time zone Europe/Zürich
        /spec/timeZone = "Local"
            spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones
        /spec/concurrencyPolicy = "Maybe"
            spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"
        /spec/jobTemplate/spec/manualSelector = true
            spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"
        /metadata/name = "a-name-that-is-longer-than-the-fifty-two-characters-allowed"
            metadata.name: Invalid value: "a-name-that-is-longer-than-the-fifty-two-characters-allowed": must be no more than 52 characters
    "#]],
    );
}

#[test]
fn daemon_and_stateful_sets() {
    let changes = [
        "/spec/minReadySeconds = 1",
        "/spec/selector",
        "/spec/updateStrategy = {\"type\": \"Never\"}",
        "/spec/updateStrategy = {\"rollingUpdate\": {\"maxUnavailable\": 0}}",
        "/spec/updateStrategy = {\"rollingUpdate\": {\"maxUnavailable\": 1, \"maxSurge\": \"10%\"}}",
    ];
    judging(
        &deployment(),
        &changes,
        defaults::apps::daemon_set,
        validate::apps::create_daemon_set,
        expect![[r#"
            /spec/minReadySeconds = 1
                fine
            /spec/selector
                spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
            /spec/updateStrategy = {"type": "Never"}
                spec.updateStrategy: Unsupported value: {"type":"Never"}: supported values: "RollingUpdate", "OnDelete"
            /spec/updateStrategy = {"rollingUpdate": {"maxUnavailable": 0}}
                spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0
            /spec/updateStrategy = {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": "10%"}}
                spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "10%": may not be set when maxUnavailable is non-zero
        "#]],
    );
    let changes = [
        "/spec/serviceName = \"s\"",
        "/spec/serviceName = \"S\"",
        "/metadata/name = \"a.b\"",
        "/spec/podManagementPolicy = \"Random\"",
        "/spec/updateStrategy = {\"type\": \"OnDelete\", \"rollingUpdate\": {}}",
        "/spec/updateStrategy = {\"type\": \"RollingUpdate\", \"rollingUpdate\": {\"partition\": -1, \"maxUnavailable\": 0}}",
        "/spec/persistentVolumeClaimRetentionPolicy = {\"whenDeleted\": \"Burn\"}",
    ];
    judging(
        &deployment(),
        &changes,
        defaults::apps::stateful_set,
        validate::apps::create_stateful_set,
        expect![[r#"
        /spec/serviceName = "s"
            fine
        /spec/serviceName = "S"
            spec.serviceName: Invalid value: "S": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        /metadata/name = "a.b"
            metadata.name: Invalid value: "a.b": must not contain dots
        /spec/podManagementPolicy = "Random"
            spec.podManagementPolicy: Invalid value: "Random": must be 'OrderedReady' or 'Parallel'
        /spec/updateStrategy = {"type": "OnDelete", "rollingUpdate": {}}
            spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'
        /spec/updateStrategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": -1, "maxUnavailable": 0}}
            spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0
            spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0
        /spec/persistentVolumeClaimRetentionPolicy = {"whenDeleted": "Burn"}
            spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Burn": supported values: "Retain", "Delete"
    "#]],
    );
}

#[test]
fn budgets_and_autoscalers() {
    let budget = json!({"metadata": {"name": "b", "namespace": "d"}, "spec": {"minAvailable": 1}});
    let changes =
        ["/spec/maxUnavailable = 1", "/spec/minAvailable = \"101%\"", "/spec/unhealthyPodEvictionPolicy = \"x\""];
    judging(
        &budget,
        &changes,
        |_| {},
        |new| validate::policy::pod_disruption_budget(new, None),
        expect![[r#"
        /spec/maxUnavailable = 1
            spec: Invalid value: {"maxUnavailable":1,"minAvailable":1}: minAvailable and maxUnavailable cannot be both set
        /spec/minAvailable = "101%"
            spec.minAvailable: Invalid value: "101%": must not be greater than 100%
        /spec/unhealthyPodEvictionPolicy = "x"
            spec.unhealthyPodEvictionPolicy: Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyBudget"
    "#]],
    );
    let autoscaler = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    let described = |version: &str| {
        let target = json!({"type": "Value", "value": "1"});
        let about = json!({"apiVersion": version, "kind": "Service", "name": "web"});
        let metric =
            json!({"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": about, "target": target}});
        format!("/spec/metrics = [{metric}]")
    };
    let of_container = json!({"type": "ContainerResource", "containerResource": {"name": "gold", "container": "A",
        "target": {"type": "AverageValue", "averageValue": "1"}}});
    let of_pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "0"}}});
    let changes = [
        "/spec/minReplicas = 4",
        "/spec/maxReplicas = 0",
        "/spec/maxReplicas = -1",
        "/spec/scaleTargetRef/name = \"\"",
        "/spec/scaleTargetRef/apiVersion = \"v1\"",
        "/spec/scaleTargetRef/apiVersion = \"a/b/c\"",
        "/spec/scaleTargetRef = {\"kind\": \"ReplicationController\", \"name\": \"web\"}",
        &described("v1"),
        &described("a/b/c"),
        &format!("/spec/metrics = [{of_container}]"),
        &format!("/spec/metrics = [{of_pods}]"),
        "/spec/metrics = [{\"type\": \"Luck\"}]",
    ];
    judging(
        &autoscaler,
        &changes,
        defaults::autoscaling::horizontal_pod_autoscaler_v2,
        |new| validate::policy::horizontal_pod_autoscaler_v2(new, None),
        expect![[r#"
            /spec/minReplicas = 4
                spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`
            /spec/maxReplicas = 0
                spec.maxReplicas: Required value: must be set and greater than 0
                spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`
            /spec/maxReplicas = -1
                spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1
                spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`
            /spec/scaleTargetRef/name = ""
                spec.scaleTargetRef.name: Required value
            /spec/scaleTargetRef/apiVersion = "v1"
                spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group
            /spec/scaleTargetRef/apiVersion = "a/b/c"
                spec.scaleTargetRef.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
            /spec/scaleTargetRef = {"kind": "ReplicationController", "name": "web"}
                fine
            /spec/metrics = [{"object":{"describedObject":{"apiVersion":"v1","kind":"Service","name":"web"},"metric":{"name":"m"},"target":{"type":"Value","value":"1"}},"type":"Object"}]
                fine
            /spec/metrics = [{"object":{"describedObject":{"apiVersion":"a/b/c","kind":"Service","name":"web"},"metric":{"name":"m"},"target":{"type":"Value","value":"1"}},"type":"Object"}]
                spec.metrics[0].object.describedObject.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
            /spec/metrics = [{"containerResource":{"container":"A","name":"gold","target":{"averageValue":"1","type":"AverageValue"}},"type":"ContainerResource"}]
                spec.metrics[0].containerResource.name: Invalid value: "gold": must be a standard resource type or fully qualified
                spec.metrics[0].containerResource.name: Invalid value: "gold": must be a standard resource for containers
                spec.metrics[0].containerResource.container: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            /spec/metrics = [{"pods":{"metric":{"name":"m"},"target":{"averageValue":"0","type":"AverageValue"}},"type":"Pods"}]
                spec.metrics[0].pods.target.averageValue: Invalid value: "0": must be positive
            /spec/metrics = [{"type": "Luck"}]
                spec.metrics[0].type: Unsupported value: "Luck": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
        "#]],
    );
}

#[test]
fn api_services() {
    let remote = json!({"metadata": {"name": "v1.metrics.example"}, "spec": {"group": "metrics.example", "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "service": {"namespace": "d", "name": "adapter"}}});
    let changes = [
        "/spec/insecureSkipTLSVerify = true",
        "/metadata/name = \"v1.other\"",
        "/spec/group = \"\"",
        "/spec/version = \"1\"",
        "/spec/groupPriorityMinimum = 20001",
        "/spec/versionPriority = 0",
        "/spec/service = {\"port\": 70000}",
        "/spec/service = null",
    ];
    creating(
        Kind::APIService,
        &remote,
        &changes,
        expect![[r#"
        /spec/insecureSkipTLSVerify = true
            fine
        /metadata/name = "v1.other"
            APIService.apiregistration.k8s.io "v1.other" is invalid: metadata.name: Invalid value: "v1.other": must be `spec.version+"."+spec.group`: "v1.metrics.example"
        /spec/group = ""
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: metadata.name: Invalid value: "v1.metrics.example": must be `spec.version+"."+spec.group`: "v1."
        /spec/version = "1"
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: [metadata.name: Invalid value: "v1.metrics.example": must be `spec.version+"."+spec.group`: "1.metrics.example", spec.version: Invalid value: "1": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')]
        /spec/groupPriorityMinimum = 20001
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000
        /spec/versionPriority = 0
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: spec.versionPriority: Invalid value: 0: must be positive and less than 1000
        /spec/service = {"port": 70000}
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: [spec.service.namespace: Required value, spec.service.name: Required value, spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive]
        /spec/service = null
            fine
    "#]],
    );
    let bundle = with(&remote, "/spec/caBundle = \"YWJj\"");
    let changes = ["/spec/insecureSkipTLSVerify = true", "/spec/service = null"];
    creating(
        Kind::APIService,
        &bundle,
        &changes,
        expect![[r#"
        /spec/insecureSkipTLSVerify = true
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present
        /spec/service = null
            APIService.apiregistration.k8s.io "v1.metrics.example" is invalid: spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle
    "#]],
    );
}

#[test]
fn ingresses() {
    let ingress = json!({
        "metadata": {"name": "i", "namespace": "default"},
        "spec": {"rules": [{"host": "a.example", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
        ]}}], "tls": [{"hosts": ["a.example"], "secretName": "s"}]},
    });
    let changes = [
        "/metadata/labels = {\"a\": \"b\"}",
        "/metadata/name = \"I\"",
        "/spec = {}",
        "/spec = {\"rules\": []}",
        "/spec/ingressClassName = \"A_B\"",
        "/spec/rules/0/host = \"10.0.0.1\"",
        "/spec/rules/0/host = \"*.example\"",
        "/spec/rules/0/host = \"a.*\"",
        "/spec/rules/0/host = \"A\"",
        "/spec/rules/0/http/paths = []",
        "/spec/rules/0/http/paths/0/pathType",
        "/spec/rules/0/http/paths/0/pathType = \"Regex\"",
        "/spec/rules/0/http/paths/0/path = \"a//b/..\"",
        "/spec/rules/0/http/paths/0/path",
        "/spec/rules/0/http/paths/0/backend = {}",
        "/spec/rules/0/http/paths/0/backend/resource = {\"kind\": \"K\", \"name\": \"n\"}",
        "/spec/rules/0/http/paths/0/backend = {\"resource\": {\"apiGroup\": \"A\", \"kind\": \"\", \"name\": \"a/b\"}}",
        "/spec/rules/0/http/paths/0/backend/service/name = \"\"",
        "/spec/rules/0/http/paths/0/backend/service/name = \"1a\"",
        "/spec/rules/0/http/paths/0/backend/service/name = \"a.b\"",
        "/spec/rules/0/http/paths/0/backend/service/port = {}",
        "/spec/rules/0/http/paths/0/backend/service/port = {\"number\": 99999}",
        "/spec/rules/0/http/paths/0/backend/service/port = {\"name\": \"http\", \"number\": 80}",
        "/spec/rules/0/http/paths/0/backend/service/port = {\"name\": \"HTTP!\"}",
        "/spec/defaultBackend = {\"service\": {\"name\": \"x\", \"port\": {\"name\": \"\"}}}",
        "/spec/tls/0/hosts = [\"*.a.example\", \"*a\", \"B\"]",
        "/spec/tls/0/secretName = \"S_S\"",
        "/metadata/annotations = {\"kubernetes.io/ingress.class\": \"old\"}",
    ];
    creating(
        Kind::Ingress,
        &ingress,
        &changes,
        expect![[r#"
        /metadata/labels = {"a": "b"}
            fine
        /metadata/name = "I"
            Ingress.networking.k8s.io "I" is invalid: metadata.name: Invalid value: "I": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        /spec = {}
            Ingress.networking.k8s.io "i" is invalid: spec: Invalid value: null: either `defaultBackend` or `rules` must be specified
        /spec = {"rules": []}
            Ingress.networking.k8s.io "i" is invalid: spec: Invalid value: []: either `defaultBackend` or `rules` must be specified
        /spec/ingressClassName = "A_B"
            Ingress.networking.k8s.io "i" is invalid: spec.ingressClassName: Invalid value: "A_B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        /spec/rules/0/host = "10.0.0.1"
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address
        /spec/rules/0/host = "*.example"
            fine
        /spec/rules/0/host = "a.*"
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].host: Invalid value: "a.*": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        /spec/rules/0/host = "A"
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].host: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        /spec/rules/0/http/paths = []
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths: Required value
        /spec/rules/0/http/paths/0/pathType
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified
        /spec/rules/0/http/paths/0/pathType = "Regex"
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].pathType: Unsupported value: "Regex": supported values: "Exact", "ImplementationSpecific", "Prefix"
        /spec/rules/0/http/paths/0/path = "a//b/.."
            Ingress.networking.k8s.io "i" is invalid: [spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must be an absolute path, spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must not contain '//', spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": cannot end with '/..']
        /spec/rules/0/http/paths/0/path
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].path: Invalid value: "": must be an absolute path
        /spec/rules/0/http/paths/0/backend = {}
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required
        /spec/rules/0/http/paths/0/backend/resource = {"kind": "K", "name": "n"}
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend: Invalid value: "": cannot set both resource and service backends
        /spec/rules/0/http/paths/0/backend = {"resource": {"apiGroup": "A", "kind": "", "name": "a/b"}}
            Ingress.networking.k8s.io "i" is invalid: [spec.rules[0].http.paths[0].backend.resource.apiGroup: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), spec.rules[0].http.paths[0].backend.resource.kind: Required value, spec.rules[0].http.paths[0].backend.resource.name: Invalid value: "a/b": may not contain '/']
        /spec/rules/0/http/paths/0/backend/service/name = ""
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend.service.name: Required value
        /spec/rules/0/http/paths/0/backend/service/name = "1a"
            fine
        /spec/rules/0/http/paths/0/backend/service/name = "a.b"
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend.service.name: Invalid value: "a.b": must not contain dots
        /spec/rules/0/http/paths/0/backend/service/port = {}
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend: Required value: port name or number is required
        /spec/rules/0/http/paths/0/backend/service/port = {"number": 99999}
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend.service.port.number: Invalid value: 99999: must be between 1 and 65535, inclusive
        /spec/rules/0/http/paths/0/backend/service/port = {"name": "http", "number": 80}
            Ingress.networking.k8s.io "i" is invalid: spec.rules[0].http.paths[0].backend: Invalid value: "": cannot set both port name & port number
        /spec/rules/0/http/paths/0/backend/service/port = {"name": "HTTP!"}
            Ingress.networking.k8s.io "i" is invalid: [spec.rules[0].http.paths[0].backend.service.port.name: Invalid value: "HTTP!": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), spec.rules[0].http.paths[0].backend.service.port.name: Invalid value: "HTTP!": must contain at least one letter (a-z)]
        /spec/defaultBackend = {"service": {"name": "x", "port": {"name": ""}}}
            Ingress.networking.k8s.io "i" is invalid: spec.defaultBackend: Required value: port name or number is required
        /spec/tls/0/hosts = ["*.a.example", "*a", "B"]
            Ingress.networking.k8s.io "i" is invalid: [spec.tls[0].hosts[1]: Invalid value: "*a": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), spec.tls[0].hosts[2]: Invalid value: "B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')]
        /spec/tls/0/secretName = "S_S"
            Ingress.networking.k8s.io "i" is invalid: spec.tls[0].secretName: Invalid value: "S_S": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        /metadata/annotations = {"kubernetes.io/ingress.class": "old"}
            fine
    "#]],
    );
    let annotated = with(&ingress, "/spec/ingressClassName = \"new\"");
    creating(
        Kind::Ingress,
        &annotated,
        &["/metadata/annotations = {\"kubernetes.io/ingress.class\": \"old\"}"],
        expect![[r#"
            /metadata/annotations = {"kubernetes.io/ingress.class": "old"}
                Ingress.networking.k8s.io "i" is invalid: annotations.kubernetes.io/ingress.class: Invalid value: "old": must match `ingressClassName` when both are specified
        "#]],
    );
}

#[test]
fn ingress_classes() {
    let class = json!({
        "metadata": {"name": "c"},
        "spec": {"controller": "example.com/it", "parameters": {"kind": "K", "name": "n"}},
    });
    let changes = [
        "/metadata/labels = {\"a\": \"b\"}",
        "/spec/controller",
        "/spec/controller = \"plain\"",
        "/spec/controller = \"A/b c\"",
        "/spec/parameters/kind = \"\"",
        "/spec/parameters/name = \"..\"",
        "/spec/parameters/apiGroup = \"A\"",
        "/spec/parameters/scope = \"Galaxy\"",
        "/spec/parameters/scope = \"Namespace\"",
        "/spec/parameters/namespace = \"default\"",
    ];
    creating(
        Kind::IngressClass,
        &class,
        &changes,
        expect![[r#"
        /metadata/labels = {"a": "b"}
            fine
        /spec/controller
            IngressClass.networking.k8s.io "c" is invalid: spec.controller: Required value
        /spec/controller = "plain"
            IngressClass.networking.k8s.io "c" is invalid: spec.controller: Invalid value: "plain": must be a domain-prefixed path (such as "acme.io/foo")
        /spec/controller = "A/b c"
            IngressClass.networking.k8s.io "c" is invalid: [spec.controller: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), spec.controller: Invalid value: "b c": Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')]
        /spec/parameters/kind = ""
            IngressClass.networking.k8s.io "c" is invalid: spec.parameters.kind: Required value
        /spec/parameters/name = ".."
            IngressClass.networking.k8s.io "c" is invalid: spec.parameters.name: Invalid value: "..": may not be '..'
        /spec/parameters/apiGroup = "A"
            IngressClass.networking.k8s.io "c" is invalid: spec.parameters.apiGroup: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        /spec/parameters/scope = "Galaxy"
            IngressClass.networking.k8s.io "c" is invalid: spec.parameters.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespace"
        /spec/parameters/scope = "Namespace"
            IngressClass.networking.k8s.io "c" is invalid: spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'
        /spec/parameters/namespace = "default"
            IngressClass.networking.k8s.io "c" is invalid: spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'
    "#]],
    );
    updating(
        Kind::IngressClass,
        &class,
        &["/spec/controller = \"example.com/other\""],
        expect![[r#"
        /spec/controller = "example.com/other"
            IngressClass.networking.k8s.io "c" is invalid: spec.controller: Invalid value: "example.com/other": field is immutable
    "#]],
    );
}

/// Upstream: TestMutableSchedulingDirectivesForSuspendedJobs, TestMutablePodResourcesForSuspendedJobs.
#[test]
fn what_may_change_of_a_suspended_job() {
    let job = |suspend: bool, status: Value, spec: Value| -> k8s_openapi::api::batch::v1::Job {
        let mut pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "c:v1" }] });
        pod.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let job = json!({ "metadata": { "name": "pi", "namespace": "d", "resourceVersion": "1", "uid": "u" },
            "spec": { "suspend": suspend, "selector": {}, "template": { "spec": pod } }, "status": status });
        let mut job = serde_json::from_value(job).unwrap();
        defaults::batch::job(&mut job);
        job
    };
    let rests = |active: i32| json!({ "active": active, "conditions": [{ "type": "Suspended", "status": "True" }] });
    let bigger =
        json!({ "containers": [{ "name": "c", "image": "c:v1", "resources": { "requests": { "cpu": "2" } } }] });
    let elsewhere = json!({ "nodeSelector": { "disk": "fast" } });
    let newer = json!({ "containers": [{ "name": "c", "image": "c:v2" }] });
    let may = |suspend: bool, status: Value, change: &Value| {
        let errors = validate::batch::update_job(
            &job(suspend, status.clone(), change.clone()),
            &job(suspend, status, json!({})),
        );
        errors.0.is_empty()
    };
    for change in [&bigger, &elsewhere] {
        assert!(may(true, rests(0), change), "{change}");
        assert!(!may(true, rests(1), change), "a pod is at work: {change}");
        assert!(!may(true, json!({}), change), "it is not told to be suspended: {change}");
        assert!(!may(false, rests(0), change), "it is not suspended: {change}");
    }
    assert!(!may(true, rests(0), &newer));
}
