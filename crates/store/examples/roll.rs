//! How many bytes a rolled pod costs: a Deployment of PODS (1000) replicas is replaced, in turns of 1 to 64 pods, with the objects a
//! server writes for it (pods in five states, events, ReplicaSets, Deployment, EndpointSlices of 100).
//! Then the folder is opened again, as after a crash. `cargo run --release -p store --example roll -- DIR [PODS]`

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;
use store::{Batch, Limits, Record, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SLICE: u64 = 100;
/// Old pods have the numbers of the new ones plus this.
const OLD: u64 = 1 << 32;

/// A number that looks random but is always the same for the same pod and purpose.
fn number(pod: u64, purpose: u64) -> u64 {
    let mut state = (pod << 8 | purpose).wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ state >> 31
}

fn uid(pod: u64, purpose: u64) -> String {
    let (high, low) = (number(pod, purpose), number(pod, purpose + 100));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

fn name(pod: u64) -> String {
    format!("web-6bdf57fdf7-{:05x}", number(pod, 1) & 0xfffff)
}

fn time(revision: u64) -> String {
    format!("2026-01-02T03:{:02}:{:02}Z", revision / 6000 % 60, revision / 100 % 60)
}

/// The pod in the state after its `state`th write.
fn pod(pod: u64, state: u32, revision: u64) -> String {
    let node = if state > 0 { format!(r#""nodeName":"node-{:03}","#, number(pod, 2) % 100) } else { String::new() };
    let deletion = if state > 2 {
        format!(r#""deletionGracePeriodSeconds":30,"deletionTimestamp":"{}","#, time(revision))
    } else {
        String::new()
    };
    let status = match state {
        0 => r#"{"phase":"Pending","qosClass":"Burstable"}"#.to_owned(),
        1 => format!(
            r#"{{"conditions":[{{"lastTransitionTime":"{}","status":"True","type":"PodScheduled"}}],"phase":"Pending","qosClass":"Burstable"}}"#,
            time(revision)
        ),
        _ => running(pod, revision),
    };
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"creationTimestamp":"{}",{deletion}"generateName":"web-6bdf57fdf7-","labels":{{"app":"web","pod-template-hash":"6bdf57fdf7"}},"name":"{}","namespace":"default","ownerReferences":[{{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web-6bdf57fdf7","uid":"{}"}}],"resourceVersion":"{revision}","uid":"{}"}},"spec":{{"containers":[{{"image":"nginx:1.16.1","imagePullPolicy":"IfNotPresent","name":"nginx","ports":[{{"containerPort":80,"protocol":"TCP"}}],"readinessProbe":{{"failureThreshold":3,"httpGet":{{"path":"/healthz","port":80,"scheme":"HTTP"}},"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1}},"resources":{{"limits":{{"cpu":"100m","memory":"64Mi"}},"requests":{{"cpu":"10m","memory":"16Mi"}}}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,{node}"preemptionPolicy":"PreemptLowerPriority","priority":0,"restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{{}},"serviceAccount":"default","serviceAccountName":"default","terminationGracePeriodSeconds":30,"tolerations":[{{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300}},{{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}}]}},"status":{status}}}"#,
        time(revision),
        name(pod),
        uid(0, 3),
        uid(pod, 4)
    )
}

fn running(pod: u64, revision: u64) -> String {
    let condition = |kind: &str| {
        format!(r#"{{"lastProbeTime":null,"lastTransitionTime":"{}","status":"True","type":"{kind}"}}"#, time(revision))
    };
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition).join(",");
    format!(
        r#"{{"conditions":[{conditions}],"containerStatuses":[{{"containerID":"kapstan://{:016x}{:016x}{:016x}{:016x}","image":"nginx:1.16.1","imageID":"sha256:23b4dcdf0d34d4a129755fc6f52e1c6e23bb34ea011b315d87e193033bcd1b68","lastState":{{}},"name":"nginx","ready":true,"restartCount":0,"started":true,"state":{{"running":{{"startedAt":"{}"}}}}}}],"hostIP":"192.168.{}.{}","phase":"Running","podIP":"{}","podIPs":[{{"ip":"{}"}}],"qosClass":"Burstable","startTime":"{}"}}"#,
        number(pod, 5),
        number(pod, 6),
        number(pod, 7),
        number(pod, 8),
        time(revision),
        number(pod, 2) % 100,
        number(pod, 2) % 250,
        address(pod),
        address(pod),
        time(revision)
    )
}

fn address(pod: u64) -> String {
    format!("10.244.{}.{}", number(pod, 2) % 100, number(pod, 9) % 254)
}

fn event(about: u64, reason: &str, message: &str, revision: u64) -> String {
    format!(
        r#"{{"apiVersion":"v1","count":1,"eventTime":null,"firstTimestamp":"{0}","involvedObject":{{"apiVersion":"v1","kind":"Pod","name":"{1}","namespace":"default","resourceVersion":"{revision}","uid":"{2}"}},"kind":"Event","lastTimestamp":"{0}","message":"{message}","metadata":{{"creationTimestamp":"{0}","name":"{1}.{revision:016x}","namespace":"default","resourceVersion":"{revision}","uid":"{3}"}},"reason":"{reason}","reportingComponent":"","reportingInstance":"","source":{{"component":"kubelet","host":"node-{4:03}"}},"type":"Normal"}}"#,
        time(revision),
        name(about),
        uid(about, 4),
        uid(revision, 10),
        number(about, 2) % 100
    )
}

/// A workload whose numbers change with every turn.
fn workload(kind: &str, revision: u64) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"{kind}","metadata":{{"generation":{revision},"name":"web","namespace":"default","resourceVersion":"{revision}","uid":"{}"}},"spec":{},"status":{{"availableReplicas":{revision},"readyReplicas":{revision},"replicas":1000,"updatedReplicas":{revision}}}}}"#,
        uid(0, 3),
        pod(0, 0, 1)
    )
}

/// The slice that holds this pod's endpoint, with the pods that came before it.
fn slice(pod: u64, revision: u64) -> String {
    let endpoint = |of: u64| {
        format!(
            r#"{{"addresses":["{}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{:03}","targetRef":{{"kind":"Pod","name":"{}","namespace":"default","uid":"{}"}}}}"#,
            address(of),
            number(of, 2) % 100,
            name(of),
            uid(of, 4)
        )
    };
    let first = pod / SLICE * SLICE;
    let members: Vec<u64> = (first..first + SLICE).map(|of| if of <= pod { of } else { of + OLD }).collect();
    let endpoints: Vec<String> = members.into_iter().map(endpoint).collect();
    format!(
        r#"{{"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{}],"kind":"EndpointSlice","metadata":{{"generation":{revision},"labels":{{"kubernetes.io/service-name":"web"}},"name":"web-{first}","namespace":"default","resourceVersion":"{revision}"}},"ports":[{{"port":80,"protocol":"TCP"}}]}}"#,
        endpoints.join(",")
    )
}

/// Gathers one turn.
#[derive(Default)]
struct Turn {
    revision: u64,
    records: Vec<Record>,
}

impl Turn {
    fn put(&mut self, key: String, value: impl FnOnce(u64) -> String) {
        self.revision += 1;
        self.records.push(Record { revision: self.revision, key, value: Some(value(self.revision).into()) });
    }

    fn delete(&mut self, key: String) {
        self.revision += 1;
        self.records.push(Record { revision: self.revision, key, value: None });
    }

    fn event(&mut self, about: u64, reason: &str, message: &str) {
        let key = format!("events/default/{}.{:016x}", name(about), self.revision + 1);
        self.put(key, |revision| event(about, reason, message, revision));
    }

    fn commit(&mut self, store: &mut Store) -> Result<()> {
        Ok(store.append(&[Batch { records: std::mem::take(&mut self.records) }])?)
    }
}

/// Rolls all pods, `at_once` in a turn.
fn roll(store: &mut Store, pods: u64, at_once: u64) -> Result<()> {
    let mut turn = Turn::default();
    for first in (0..pods).step_by(at_once as usize) {
        let new: Vec<u64> = (first..pods.min(first + at_once)).collect();
        for state in 0..4 {
            for &of in &new {
                change(&mut turn, of, state);
            }
            if state == 2 {
                turn.put("endpointslices.discovery.k8s.io/default/web".into(), |revision| slice(first, revision));
            }
            turn.put("replicasets.apps/default/web-6bdf57fdf7".into(), |revision| workload("ReplicaSet", revision));
            turn.put("deployments.apps/default/web".into(), |revision| workload("Deployment", revision));
            turn.commit(store)?;
        }
        new.iter().for_each(|&of| turn.delete(format!("pods/default/{}", name(of + OLD))));
        turn.commit(store)?;
    }
    Ok(())
}

/// One write of a new pod, and those of the old pod it replaces.
fn change(turn: &mut Turn, of: u64, state: u32) {
    let (subject, message) = match state {
        0 => (of, "Successfully assigned default/web to a node"),
        2 => (of, "Started container nginx"),
        _ => (of + OLD, "Stopping container nginx"),
    };
    turn.put(format!("pods/default/{}", name(subject)), |revision| pod(subject, state, revision));
    if state != 1 {
        turn.event(subject, ["Scheduled", "", "Started", "Killing"][state as usize], message);
    }
}

/// Bytes that this process caused to be sent to the disk, by whole pages, as the kernel accounts them.
fn process_writes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no write_bytes in /proc/self/io")?;
    Ok(line.parse()?)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let dir = Path::new(arguments.get(1).ok_or("usage: roll DIR [PODS]")?).join("roll");
    let pods: u64 = arguments.get(2).map_or(Ok(1000), |text| text.parse())?;
    println!("pods_a_turn | per pod: object_bytes log_bytes write_bytes fsyncs microseconds | log_mb reopen_ms");
    for at_once in [1, 8, 16, 64] {
        let _ = fs::remove_dir_all(&dir);
        let mut store = Store::open(&dir, Limits::default())?.0;
        let (disk, start) = (process_writes()?, Instant::now());
        roll(&mut store, pods, at_once)?;
        let (elapsed, stats, written) = (start.elapsed(), store.stats(), process_writes()? - disk);
        drop(store);
        let start = Instant::now();
        let reopened = Store::open(&dir, Limits::default())?;
        println!(
            "{at_once} | {} {} {} {:.2} {:.0} | {:.1} {:.1}",
            stats.appended_bytes / pods,
            stats.log_bytes / pods,
            written / pods,
            stats.fsyncs as f64 / pods as f64,
            elapsed.as_secs_f64() * 1e6 / pods as f64,
            stats.log_bytes as f64 / 1e6,
            start.elapsed().as_secs_f64() * 1e3,
        );
        drop(reopened);
    }
    Ok(fs::remove_dir_all(&dir)?)
}
