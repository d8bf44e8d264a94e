//! Volumes that outlive their pods: on simulated nodes by transcript, and with containers that write and read.

use std::fs;

use crate::cluster::{Kubectl, PATIENCE, Setup, eventually};
use crate::containers::{staged, told, tools};
use crate::transcript;

/// Pods take a moment to stop: kubectl looks at a deleted pod and then lists it to watch it, and one that was gone and came
/// back in between, under its name, it waits for until that is deleted.
const PROFILE: &str = "images:\n- {image: 'nginx:*', startTime: 10ms, timeToReady: 50ms, stopTime: 500ms}\n";

#[test]
fn volumes() {
    let Some(kubectl) = Kubectl::current() else { return };
    story(&kubectl);
}

#[test]
fn volumes_by_our_own_voice() {
    story(&Kubectl::ours());
}

fn story(kubectl: &Kubectl) {
    let cluster = Setup::simulated(3).profile(PROFILE).start();
    for manifest in ["db.yaml", "claim.yaml", "user.yaml", "wrong.yaml", "disk.yaml"] {
        fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    }
    transcript::play("volumes.txt", &cluster, kubectl);
}

const SET: &str = r#"apiVersion: apps/v1
kind: StatefulSet
metadata: {name: log}
spec:
  serviceName: log
  replicas: 1
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: log
        image: "nginx:1.7.9"
        command: [sh, -c, "echo $(cat /data/sub/lives | wc -l) lives before; echo life >> /data/sub/lives; exec sleep 1000"]
        readinessProbe: {exec: {command: [test, -s, /data/sub/lives]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data/sub, subPath: sub}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

#[test]
fn what_a_container_wrote_is_found_by_the_next() {
    if !staged("volumes::what_a_container_wrote_is_found_by_the_next") {
        return;
    }
    let Some(tools) = tools() else { return };
    let cluster = crate::containers::node(&tools);
    fs::write(cluster.folder().join("log.yaml"), SET).unwrap();
    told(&cluster, &tools, "kubectl apply -f log.yaml");
    told(&cluster, &tools, "kubectl rollout status sts/log --timeout=60s");
    told(&cluster, &tools, "kubectl delete pod log-0");
    told(&cluster, &tools, "kubectl rollout status sts/log --timeout=60s");
    assert_eq!(told(&cluster, &tools, "kubectl logs log-0"), "1 lives before\n");

    // A second pod sees it, and may only read it when it says so.
    let reader = r#"kubectl run reader --image=nginx:1.7.9 --restart=Never --overrides='{"spec":{"containers":[{"name":"reader","image":"nginx:1.7.9",
        "command":["sh","-c","cat /log/sub/lives; echo x > /log/sub/lives"],"volumeMounts":[{"name":"log","mountPath":"/log"}]}],
        "volumes":[{"name":"log","persistentVolumeClaim":{"claimName":"data-log-0","readOnly":true}}]}}'"#;
    told(&cluster, &tools, reader);
    told(&cluster, &tools, "kubectl wait --for=jsonpath={.status.phase}=Failed pod/reader --timeout=60s");
    let said = told(&cluster, &tools, "kubectl logs reader");
    assert!(said.starts_with("life\nlife\n") && said.contains("Read-only file system"), "{said}");

    // With the claim goes the folder.
    let folders = || fs::read_dir(cluster.data_dir().join("volumes")).map_or(0, Iterator::count);
    assert_eq!(folders(), 1);
    told(&cluster, &tools, "kubectl delete pod reader");
    told(&cluster, &tools, "kubectl delete sts log");
    told(&cluster, &tools, "kubectl wait --for=delete pvc/data-log-0 --timeout=60s || true");
    told(&cluster, &tools, "kubectl wait --for=delete pv --all --timeout=60s || true");
    assert_eq!(told(&cluster, &tools, "kubectl get pv,pvc -o name"), "");
    assert_eq!(folders(), 0);
}

/// Its first container ends, the next one stays.
const SETTINGS: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: slow, level: low}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: reader
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, "test -e /scratch/lived || { touch /scratch/lived; exit 3; }; exec sleep 1000"]
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /mode, subPath: mode}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - name: settings
    configMap: {name: settings, defaultMode: 0400, items: [{key: mode, path: mode}, {key: level, path: deep/level, mode: 0440}]}
  - {name: scratch, emptyDir: {}}
"#;

#[test]
fn what_objects_say_is_seen_in_containers_and_follows_them() {
    if !staged("volumes::what_objects_say_is_seen_in_containers_and_follows_them") {
        return;
    }
    let Some(tools) = tools() else { return };
    let mut cluster = crate::containers::node(&tools);
    fs::write(cluster.folder().join("settings.yaml"), SETTINGS).unwrap();
    told(&cluster, &tools, "kubectl apply -f settings.yaml");
    const PAST: &str = "kubectl get pod reader -o jsonpath='{.status.containerStatuses[0].restartCount} \
                        {.status.containerStatuses[0].lastState.terminated.exitCode}'";
    let past = || {
        let told = told(&cluster, &tools, PAST);
        (told == "1 3").then_some(()).ok_or(told)
    };
    eventually(PATIENCE, past).unwrap();
    const LOOK: &str = "kubectl exec reader -- sh -c 'readlink /settings/mode; readlink /settings/deep; stat -L -c %a /settings/mode /settings/deep/level; \
                        cat /settings/mode /settings/deep/level /mode'";
    assert_eq!(told(&cluster, &tools, LOOK), "..data/mode\n..data/deep\n400\n440\nslowlowslow");

    // A node that comes back writes what changed while it was away. What is mounted by a path of its own stays.
    told(&cluster, &tools, r#"kubectl patch configmap settings -p '{"data":{"mode":"fast"}}'"#);
    cluster.kill();
    cluster.restart();
    let follows = || {
        let output = cluster.shell(&tools.kubectl, LOOK);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.ends_with("fastlowslow").then_some(()).ok_or(text)
    };
    eventually(PATIENCE, follows).unwrap();
    assert_eq!(told(&cluster, &tools, PAST), "1 3");
    told(&cluster, &tools, "kubectl delete pod reader");
}
