use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use api::volumes::{self, SELECTED_NODE};
use api::{Kind, Pod, Propagation, Snapshot};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::claim;
use crate::testing::World;

/// A world that is written line by line, and where things happen line by line:
///
/// ```text
/// class fast [waits] [retain] [default] [by somebody.example]
/// volume v1 10Gi [class fast] [for data] [on n2] [delete] [modes ReadWriteOnce,ReadWriteMany] [label a=b]
/// claim data 5Gi [class fast | no class] [named v1] [modes …] [selects a=b]
/// chosen data n1
/// pod p uses data [on n1]
/// delete claim|volume|pod|node|class NAME
/// settle
/// ```
struct Story {
    world: World,
    told: usize,
}

impl Story {
    fn new() -> Story {
        let mut world = World::new();
        for name in ["n1", "n2"] {
            let labels = json!({ "kubernetes.io/hostname": name });
            let node = json!({ "metadata": { "name": name, "uid": name, "labels": labels } });
            world.store(Kind::Node, node);
        }
        Story { world, told: 0 }
    }

    /// Does what the lines say, and tells after each `settle` what there is and what was said.
    fn play(&mut self, text: &str) -> String {
        let mut told = String::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line == "settle" {
                self.world.settle();
                told += &self.show();
            } else {
                self.happen(&line.split_whitespace().collect::<Vec<_>>());
            }
        }
        told
    }

    fn happen(&mut self, words: &[&str]) {
        let value = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
        let has = |name: &str| words.contains(&name);
        let modes: Vec<&str> = value("modes").unwrap_or("ReadWriteOnce").split(',').collect();
        let label = |name: &str| {
            value(name).map(|pair| pair.split_once('=').unwrap()).map(|(key, value)| json!({ key: value }))
        };
        let name = words.get(1).copied().unwrap_or_default();
        match words[0] {
            "class" => self.world.user_creates(Kind::StorageClass, json!({
                "metadata": { "name": name, "annotations": { "storageclass.kubernetes.io/is-default-class": has("default").to_string() } },
                "provisioner": value("by").unwrap_or("kapstan.dev/local"),
                "reclaimPolicy": if has("retain") { "Retain" } else { "Delete" },
                "volumeBindingMode": if has("waits") { "WaitForFirstConsumer" } else { "Immediate" },
            })),
            "volume" => {
                let claim = value("for").map(|claim| json!({ "namespace": "default", "name": claim }));
                let term = |node: &str| json!({ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] });
                let affinity = value("on").map(|node| json!({ "required": { "nodeSelectorTerms": [term(node)] } }));
                self.world.user_creates(Kind::PersistentVolume, json!({
                    "metadata": { "name": name, "labels": label("label"), "finalizers": ["kubernetes.io/pv-protection"] },
                    "spec": { "capacity": { "storage": words[2] }, "accessModes": modes, "storageClassName": value("class").unwrap_or(""),
                        "persistentVolumeReclaimPolicy": if has("delete") { "Delete" } else { "Retain" },
                        "hostPath": { "path": "/x" }, "claimRef": claim, "nodeAffinity": affinity },
                }));
            }
            "claim" => self.world.user_creates(Kind::PersistentVolumeClaim, json!({
                "metadata": { "name": name, "namespace": "default", "finalizers": ["kubernetes.io/pvc-protection"] },
                "spec": { "resources": { "requests": { "storage": words[2] } }, "accessModes": modes,
                    "storageClassName": if has("no") { Some("") } else { value("class") }, "volumeName": value("named").unwrap_or(""),
                    "selector": label("selects").map(|labels| json!({ "matchLabels": labels })) },
            })),
            "chosen" => self.world.user_edits::<PersistentVolumeClaim>(name, |claim| {
                claim.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.into(), words[2].into());
            }),
            "pod" => self.world.user_creates(Kind::Pod, json!({
                "metadata": { "name": name, "namespace": "default" },
                "spec": { "nodeName": value("on"), "containers": [],
                    "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": value("uses") } }] },
            })),
            "delete" => {
                let (kind, name) = (words[1], words[2]);
                let kind = match kind {
                    "claim" => Kind::PersistentVolumeClaim,
                    "volume" => Kind::PersistentVolume,
                    "node" => Kind::Node,
                    "class" => Kind::StorageClass,
                    _ => return self.world.pod_gone(name),
                };
                self.world.user_deletes(kind, name, Propagation::Background);
            }
            // The node's agent.
            "emptied" => {
                let names: Vec<String> = self.world.snapshot.list::<PersistentVolume>(None).filter_map(|volume| volume.metadata.name.clone()).collect();
                for name in names.into_iter().filter(|it| it.starts_with("pvc-")) {
                    self.world.cluster_edits::<PersistentVolume>(&name, |volume| volume.metadata.finalizers = None);
                }
            }
            other => panic!("no line begins with {other}"),
        }
    }

    fn show(&mut self) -> String {
        let mut text = String::new();
        let going = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            if meta.deletion_timestamp.is_some() { " ending" } else { "" }
        };
        for claim in self.world.snapshot.list::<PersistentVolumeClaim>(None) {
            let (name, volume) = (claim.metadata.name.as_deref().unwrap(), volumes::volume_name(claim));
            let class = volumes::class_of_claim(claim).unwrap_or("?");
            text += &format!("{name} [{class}] {} {volume}{}\n", claim::phase(claim), going(&claim.metadata));
        }
        for volume in self.world.snapshot.list::<PersistentVolume>(None) {
            let of = volumes::claim_ref(volume).and_then(|claim| claim.name.clone()).unwrap_or_default();
            let name = volume.metadata.name.as_deref().unwrap();
            text += &format!("  {name} {} {of}{}\n", volumes::phase(volume), going(&volume.metadata));
        }
        for event in self.world.events.split_off(self.told) {
            text += &format!("  > {event}\n");
        }
        self.told = self.world.events.len();
        text + "--\n"
    }
}

fn play(text: &str) -> String {
    Story::new().play(text)
}

/// Upstream: TestMatchVolume, the smallest that has all that is asked for.
#[test]
fn a_claim_gets_the_smallest_volume_that_fits() {
    let text = play(
        "volume tiny 1Gi
         volume huge 100Gi
         volume fit 5Gi
         volume other 5Gi class fast
         volume shared 5Gi modes ReadOnlyMany
         claim data 4Gi no class
         claim red 1Gi no class selects color=red
         claim none 500Gi no class
         settle
         volume red 9Gi label color=red
         settle",
    );
    expect![[r#"
        data [] Bound fit
        none [] Pending 
        red [] Pending 
          fit Bound data
          huge Available 
          other Available 
          shared Available 
          tiny Available 
          > FailedBinding no persistent volumes available for this claim and no storage class is set
          > FailedBinding no persistent volumes available for this claim and no storage class is set
        --
        data [] Bound fit
        none [] Pending 
        red [] Bound red
          fit Bound data
          huge Available 
          other Available 
          red Bound red
          shared Available 
          tiny Available 
          > FailedBinding no persistent volumes available for this claim and no storage class is set
        --
    "#]]
    .assert_eq(&text);
}

#[test]
fn what_is_named_by_hand_is_kept_for_it() {
    let text = play(
        "volume a 1Gi for data
         volume b 50Gi
         claim other 1Gi no class
         claim picky 1Gi no class named b
         settle
         claim data 1Gi no class
         claim late 1Gi no class named c
         settle
         volume c 1Gi
         claim small 90Gi no class named d
         volume d 1Gi
         settle",
    );
    expect![[r#"
        other [] Bound b
        picky [] Pending b
          a Available data
          b Bound other
          > FailedBinding volume "b" already bound to a different claim.
        --
        data [] Bound a
        late [] Pending c
        other [] Bound b
        picky [] Pending b
          a Bound data
          b Bound other
        --
        data [] Bound a
        late [] Bound c
        other [] Bound b
        picky [] Pending b
        small [] Pending d
          a Bound data
          b Bound other
          c Bound late
          d Available 
          > VolumeMismatch Cannot bind to requested volume "d": requested PV is too small
          > VolumeMismatch Cannot bind to requested volume "d": requested PV is too small
        --
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_folder_is_made_on_the_chosen_node_and_goes_with_its_claim() {
    let mut story = Story::new();
    let mut text = story.play(
        "class local waits default
         claim data 1Gi class local
         settle
         pod p uses data
         settle
         chosen data n1
         settle",
    );
    let volume = story.world.snapshot.list::<PersistentVolume>(None).next().unwrap();
    text += &format!("{}\n", serde_json::to_value(&volume.spec).unwrap());
    text += &story.play(
        "delete claim data
         settle
         delete pod p
         emptied
         settle",
    );
    expect![[r#"
        data [local] Pending 
          > WaitForFirstConsumer waiting for first consumer to be created before binding
        --
        data [local] Pending 
        --
        data [local] Bound pvc-uid-2
          pvc-uid-2 Bound data
          > ProvisioningSucceeded Successfully provisioned volume pvc-uid-2
        --
        {"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"data","namespace":"default","uid":"uid-2"},"csi":{"driver":"local.kapstan.dev","volumeHandle":"pvc-uid-2"},"nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"In","values":["n1"]}]}]}},"persistentVolumeReclaimPolicy":"Delete","storageClassName":"local","volumeMode":"Filesystem"}
          pvc-uid-2 Released data ending
        --
        --
    "#]].assert_eq(&text);
}

#[test]
fn what_cannot_be_made_is_told() {
    let text = play(
        "class local waits
         class far by somebody.example
         class none by kubernetes.io/no-provisioner
         claim many 1Gi class local modes ReadWriteMany
         claim far 1Gi class far
         claim none 1Gi class none
         claim lost 1Gi class missing
         chosen many n1
         settle
         claim gone 1Gi class local
         chosen gone n9
         settle",
    );
    expect![[r#"
        far [far] Pending 
        lost [missing] Pending 
        many [local] Pending 
        none [none] Pending 
          > ProvisioningFailed failed to provision volume with StorageClass "local": kapstan.dev/local provides ReadWriteOnce and ReadWriteOncePod, not ReadWriteMany
          > ProvisioningFailed no volume plugin matched name: kubernetes.io/no-provisioner
          > ProvisioningFailed storageclass.storage.k8s.io "missing" not found
          > ExternalProvisioning Waiting for a volume to be created either by the external provisioner 'somebody.example' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.
        --
        far [far] Pending 
        gone [local] Pending 
        lost [missing] Pending 
        many [local] Pending 
        none [none] Pending 
          > WaitForFirstConsumer waiting for first consumer to be created before binding
        --
    "#]].assert_eq(&text);
}

#[test]
fn a_claim_without_a_class_gets_the_default_when_there_is_one() {
    let text = play(
        "claim data 1Gi
         settle
         class local waits default
         settle",
    );
    expect![[r#"
        data [?] Pending 
          > FailedBinding no persistent volumes available for this claim and no storage class is set
        --
        data [local] Pending 
          > WaitForFirstConsumer waiting for first consumer to be created before binding
        --
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_claim_in_use_stays_and_a_bound_volume_too() {
    let text = play(
        "volume v 1Gi
         claim data 1Gi no class
         pod p uses data on n1
         settle
         delete volume v
         delete claim data
         settle
         delete pod p
         settle",
    );
    expect![[r#"
        data [] Bound v
          v Bound data
        --
        data [] Bound v ending
          v Bound data ending
        --
        --
    "#]]
    .assert_eq(&text);
}

/// A pod that goes in the foreground waits for the claims it owns, as a set has it that ends them with its pods. Found by
/// the simulator: the two waited for each other.
#[test]
fn a_pod_that_is_over_does_not_hold_the_claim_that_it_waits_for() {
    let mut story = Story::new();
    story.play("volume v 1Gi\nclaim data 1Gi no class\npod p uses data on n1\nsettle");
    let uid = story.world.snapshot.get::<Pod>("default", "p").unwrap().metadata.uid.clone().unwrap();
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true }]);
    story.world.user_edits::<PersistentVolumeClaim>("data", |claim| {
        claim.metadata.owner_references = serde_json::from_value(owner).unwrap();
    });
    let mut text = story.play("delete claim data\nsettle");
    let now = story.world.now;
    story.world.change_pod("p", |pod| {
        pod.metadata.deletion_timestamp = Some(Time(now));
        pod.metadata.deletion_grace_period_seconds = Some(0);
    });
    text += &story.play("settle");
    expect![[r#"
        data [] Bound v ending
          v Bound data
        --
          v Released data
        --
    "#]]
    .assert_eq(&text);
}

#[test]
fn what_becomes_of_a_volume_whose_claim_is_gone() {
    let text = play(
        "volume kept 1Gi class a
         volume doomed 1Gi class b delete
         claim a 1Gi class a
         claim b 1Gi class b
         settle
         delete claim a
         delete claim b
         settle
         claim again 1Gi class a
         settle",
    );
    expect![[r#"
        a [a] Bound kept
        b [b] Bound doomed
          doomed Bound b
          kept Bound a
        --
          doomed Failed b
          kept Released a
          > VolumeFailedDelete error getting deleter volume plugin for volume "doomed": no deletable volume plugin matched
        --
        again [a] Pending 
          doomed Failed b
          kept Released a
          > ProvisioningFailed storageclass.storage.k8s.io "a" not found
        --
    "#]].assert_eq(&text);
}

#[test]
fn a_claim_that_lost_its_volume_is_told_so() {
    let mut story = Story::new();
    let mut text = story.play(
        "volume v 1Gi
         claim data 1Gi no class
         settle",
    );
    story.world.cluster_removes(Kind::PersistentVolume, "v");
    text += &story.play("settle");
    expect![[r#"
        data [] Bound v
          v Bound data
        --
        data [] Lost v
          > ClaimLost Bound claim has lost its PersistentVolume. Data on the volume is lost!
        --
    "#]]
    .assert_eq(&text);
}

/// The machine is gone for ever, and its folders with it.
#[test]
fn a_folder_of_a_node_that_is_gone_holds_nothing() {
    let text = play(
        "class local waits
         claim data 1Gi class local
         chosen data n1
         settle
         delete claim data
         settle
         delete node n1
         settle",
    );
    expect![[r#"
        data [local] Bound pvc-uid-2
          pvc-uid-2 Bound data
          > ProvisioningSucceeded Successfully provisioned volume pvc-uid-2
        --
          pvc-uid-2 Released data ending
        --
        --
    "#]]
    .assert_eq(&text);
}

/// A claim has one volume and a volume one claim.
fn one_to_one(world: &Snapshot) {
    for claim in world.list::<PersistentVolumeClaim>(None).filter(|claim| claim::phase(claim) == "Bound") {
        let volume =
            world.get::<PersistentVolume>("", volumes::volume_name(claim)).expect("a bound claim has a volume");
        assert!(volumes::is_for(volume, claim), "{:?}", claim.metadata.name);
        assert_eq!(volumes::phase(volume), "Bound");
    }
    for volume in world.list::<PersistentVolume>(None).filter(|volume| volumes::phase(volume) == "Bound") {
        let claim =
            volumes::claim_ref(volume).and_then(|claim| claim.name.as_deref()).expect("a bound volume has a claim");
        let claim = world.get::<PersistentVolumeClaim>("default", claim).expect("which is there");
        assert_eq!(Some(volumes::volume_name(claim)), volume.metadata.name.as_deref());
    }
}

const LINES: [&str; 16] = [
    "class local waits default",
    "class far by somebody.example",
    "volume a 1Gi",
    "volume b 2Gi delete",
    "volume c 3Gi for x",
    "claim x 1Gi no class",
    "claim y 2Gi",
    "claim z 1Gi class local",
    "chosen y n1",
    "chosen z n2",
    "pod p uses x on n1",
    "pod q uses z on n2",
    "delete claim x",
    "delete claim z",
    "delete volume a",
    "delete node n1",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_comes_to_rest_and_binds_one_to_one(steps in prop::collection::vec((0..LINES.len(), 0..7usize), 1..25)) {
        let mut story = Story::new();
        for (line, pick) in steps {
            let words: Vec<&str> = LINES[line].split_whitespace().collect();
            let (kind, name) = match words[0] {
                "delete" => (words[1], words[2]),
                kind => (kind, words[1]),
            };
            let there = match kind {
                "claim" | "chosen" => story.world.snapshot.object(Kind::PersistentVolumeClaim, "default", name),
                "volume" => story.world.snapshot.object(Kind::PersistentVolume, "", name),
                "class" => story.world.snapshot.object(Kind::StorageClass, "", name),
                "node" => story.world.snapshot.object(Kind::Node, "", name),
                _ => story.world.snapshot.object(Kind::Pod, "default", name),
            };
            let fresh = there.is_none_or(|object| object.meta().deletion_timestamp.is_some());
            if matches!(words[0], "delete" | "chosen") == fresh {
                continue;
            }
            if words[0] != "delete" && words[0] != "chosen" && there.is_some() {
                continue;
            }
            if words[0] == "chosen" && there.is_some_and(|object| object.meta().annotations.as_ref().is_some_and(|all| all.contains_key(SELECTED_NODE))) {
                continue;
            }
            story.happen(&words);
            story.world.pick = Box::new(move |count| pick % count);
            story.world.settle();
            one_to_one(&story.world.snapshot);
        }
        let before = story.world.snapshot.revision();
        story.world.wake_all();
        story.world.settle();
        prop_assert_eq!(story.world.snapshot.revision(), before);
    }
}
