use expect_test::expect;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::terms::{Strategy, fenceposts};
use crate::testing::{World, deployment_status, masked, show};
use crate::{Controller, pods};
use api::{Kind, Pod, Refusal, Write};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

fn plan(text: &str) -> String {
    show(&World::read(text).plan(Controller::Deployment, Kind::Deployment, "web"))
}

fn set_image(deployment: &mut Deployment, image: &str) {
    let spec = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.containers[0].image = Some(image.into());
}

/// Sizes of the sets after one decision, in order of their names; hashes are left out.
fn sizes(text: &str) -> String {
    let mut world = World::read(text);
    let plan = world.plan(Controller::Deployment, Kind::Deployment, "web");
    let mut sizes: Vec<(String, i32)> = Vec::new();
    for set in world.snapshot.list::<ReplicaSet>(None) {
        sizes.push((set.metadata.name.clone().unwrap(), set.spec.as_ref().unwrap().replicas.unwrap()));
    }
    for write in plan.writes {
        let (Write::Update(body) | Write::Create(body)) = &write else { continue };
        let api::Body::ReplicaSet(set) = body else { continue };
        let name = set.metadata.name.clone().unwrap();
        sizes.retain(|(old, _)| *old != name);
        sizes.push((name, set.spec.as_ref().unwrap().replicas.unwrap()));
    }
    sizes.sort();
    world.events.clear();
    sizes.iter().map(|(name, size)| format!("{} {size}", masked(name))).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_new_deployment_gets_its_first_set() {
    expect![[r#"
        create ReplicaSet web-<hash> replicas 4 desired-replicas=4 max-replicas=5 revision=1 of web
        event ScalingReplicaSet Scaled up replica set web-<hash> to 4
        status Deployment web revision 1 replicas 0 updated 0 ready 0 available 0 unavailable 4
          Progressing=True NewReplicaSetCreated (Created new replica set "web-<hash>")
          Available=False MinimumReplicasUnavailable (Deployment does not have minimum availability.)
        wake at 2026-01-01T12:10:01Z
    "#]]
    .assert_eq(&plan("deploy web 4 surge 1 unavailable 1"));
}

/// Upstream: TestResolveFenceposts, and the examples told beside ResolveFenceposts.
#[test]
fn fenceposts_as_upstream() {
    let value = |text: &str| text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int);
    let cases = [
        ("0%", "0%", 0),
        ("39%", "39%", 10),
        ("oops", "39%", 10),
        ("0", "39%", 10),
        ("39%", "0", 10),
        ("0", "0", 10),
        ("0%", "1%", 2),
        ("0%", "1%", 1),
        ("1%", "25%", 2),
        ("1%", "25%", 1),
        ("1%", "0%", 2),
        ("25%", "25%", 4),
        ("1", "1", 4),
    ];
    let table: String = cases
        .map(|(surge, unavailable, replicas)| {
            let (more, less) = fenceposts(&value(surge), &value(unavailable), replicas);
            format!("surge {surge} unavailable {unavailable} of {replicas}: {more} more, {less} less\n")
        })
        .concat();
    expect![[r#"
        surge 0% unavailable 0% of 0: 0 more, 1 less
        surge 39% unavailable 39% of 10: 4 more, 3 less
        surge oops unavailable 39% of 10: 0 more, 3 less
        surge 0 unavailable 39% of 10: 0 more, 3 less
        surge 39% unavailable 0 of 10: 4 more, 0 less
        surge 0 unavailable 0 of 10: 0 more, 1 less
        surge 0% unavailable 1% of 2: 0 more, 1 less
        surge 0% unavailable 1% of 1: 0 more, 1 less
        surge 1% unavailable 25% of 2: 1 more, 0 less
        surge 1% unavailable 25% of 1: 1 more, 0 less
        surge 1% unavailable 0% of 2: 1 more, 0 less
        surge 25% unavailable 25% of 4: 1 more, 1 less
        surge 1 unavailable 1 of 4: 1 more, 1 less
    "#]]
    .assert_eq(&table);
}

/// Upstream: TestDeploymentController_reconcileNewReplicaSet, TestNewRSNewReplicas.
#[test]
fn new_pods_as_far_as_the_surge_allows() {
    let cases = [(10, 0, 10, 0), (10, 2, 10, 0), (10, 2, 5, 0), (10, 2, 10, 2), (10, 2, 2, 11)];
    let table: String = cases
        .map(|(replicas, surge, old, new)| {
            // As upstream's test has it, no old pod may go. Old pods are all not ready, so that none is spare.
            let sizes = sizes(&format!(
                "deploy web {replicas} image v2 surge {surge} unavailable 0
                 rs web-a {old} image v1 ready 0
                 rs web-b {new} image v2 ready 0"
            ));
            format!("{replicas} surge {surge}, old {old}, new {new}: {sizes}\n")
        })
        .concat();
    expect![[r#"
        10 surge 0, old 10, new 0: web-a 9, web-b 0
        10 surge 2, old 10, new 0: web-a 10, web-b 2
        10 surge 2, old 5, new 0: web-a 5, web-b 7
        10 surge 2, old 10, new 2: web-a 10, web-b 2
        10 surge 2, old 2, new 11: web-a 2, web-b 10
    "#]]
    .assert_eq(&table);
}

/// Upstream: TestDeploymentController_reconcileOldReplicaSets, cleanupUnhealthyReplicas and
/// scaleDownOldReplicaSetsForRollingUpdate.
#[test]
fn old_pods_as_far_as_availability_allows() {
    let cases = [
        (10, 0, 10, 10, 0, 0),
        (10, 2, 10, 10, 0, 0),
        (10, 2, 10, 8, 0, 0),
        (10, 2, 10, 9, 0, 0),
        (10, 2, 8, 8, 2, 0),
        (10, 2, 10, 1, 0, 0),
        (10, 2, 10, 10, 2, 2),
    ];
    let table: String = cases
        .map(|(replicas, unavailable, old, old_ready, new, new_ready)| {
            let sizes = sizes(&format!(
                "deploy web {replicas} image v2 surge 0 unavailable {unavailable}
                 rs web-a {old} image v1 ready {old_ready}
                 rs web-b {new} image v2 ready {new_ready}"
            ));
            format!("{replicas} unavailable {unavailable}, old {old_ready}/{old}, new {new_ready}/{new}: {sizes}\n")
        })
        .concat();
    expect![[r#"
        10 unavailable 0, old 10/10, new 0/0: web-a 9, web-b 0
        10 unavailable 2, old 10/10, new 0/0: web-a 8, web-b 0
        10 unavailable 2, old 8/10, new 0/0: web-a 8, web-b 0
        10 unavailable 2, old 9/10, new 0/0: web-a 8, web-b 0
        10 unavailable 2, old 8/8, new 0/2: web-a 8, web-b 2
        10 unavailable 2, old 1/10, new 0/0: web-a 8, web-b 0
        10 unavailable 2, old 10/10, new 2/2: web-a 6, web-b 2
    "#]]
    .assert_eq(&table);
}

/// Upstream: SetNewReplicaSetAnnotations. What belongs to the Deployment itself is not handed on.
#[test]
fn annotations_are_handed_on() {
    let mut world = World::read("deploy web 1 image v1\nrs web-a 1 image v1 revision 1 desired 1 max 2");
    world.user_changes("web", |deployment| {
        let annotations = [
            ("kubernetes.io/change-cause", "kubectl set image"),
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
            ("deployment.kubernetes.io/revision", "1"),
        ];
        let owned = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        deployment.metadata.annotations = Some(owned.into());
    });
    expect![[r#"
        update ReplicaSet web-a replicas 1 desired-replicas=1 max-replicas=2 revision=1 change-cause=kubectl set image of web
        status Deployment web revision 1 replicas 1 updated 1 ready 1 available 1 unavailable 0
          Available=True MinimumReplicasAvailable (Deployment has minimum availability.)
          Progressing=True NewReplicaSetAvailable (ReplicaSet "web-a" has successfully progressed.)
    "#]].assert_eq(&show(&world.plan(Controller::Deployment, Kind::Deployment, "web")));
}

/// Replicas before and after, surge before and after, the new set (none if negative), the old sets from young to old.
type ScalingCase = (i32, i32, i32, i32, i32, &'static [i32]);

/// Upstream: TestScale. The sets were sized for `from`; now `to` are wanted.
#[test]
fn scaling_in_proportion_as_upstream() {
    let cases: [ScalingCase; 16] = [
        (10, 12, 0, 0, 10, &[]),
        (10, 5, 0, 0, 10, &[]),
        (5, 10, 0, 0, 2, &[3]),
        (5, 3, 0, 0, 2, &[3]),
        (9, 4, 0, 0, 8, &[1]),
        (7, 10, 0, 0, 2, &[3, 2]),
        (13, 8, 0, 0, 2, &[8, 3]),
        (3, 4, 0, 0, 1, &[1, 1]),
        (3, 2, 0, 0, 1, &[1, 1]),
        (4, 5, 0, 0, -1, &[2, 2]),
        (6, 0, 0, 0, 3, &[2, 1]),
        (5, 6, 0, 0, 0, &[0, 0]),
        (3, 5, 0, 0, 1, &[1, 1]),
        (10, 20, 2, 2, 6, &[6]),
        (10, 50, 3, 6, 5, &[8]),
        (10, 14, 0, 0, -1, &[7, 3]),
    ];
    let table: String = cases
        .map(|(from, to, surge_before, surge, new, old)| {
            let mut world = String::new();
            let count = old.len();
            for (index, size) in old.iter().enumerate().rev() {
                let set = ["c", "b", "a"][index + 3 - count - 1];
                let sized = format!("desired {from} max {}", from + surge_before);
                world += &format!("rs web-{set} {size} image v-{set} {sized}\n");
            }
            if new >= 0 {
                world += &format!("rs web-d {new} image v9 desired {from} max {}\n", from + surge_before);
            }
            let deploy = format!("deploy web {to} image v9 surge {surge} unavailable 0 paused\n");
            format!("{from} -> {to}: {}\n", sizes(&(deploy + &world)))
        })
        .concat();
    expect![[r#"
        10 -> 12: web-d 12
        10 -> 5: web-d 5
        5 -> 10: web-b 6, web-d 4
        5 -> 3: web-b 2, web-d 1
        9 -> 4: web-b 0, web-d 4
        7 -> 10: web-b 3, web-c 4, web-d 3
        13 -> 8: web-b 2, web-c 5, web-d 1
        3 -> 4: web-b 1, web-c 1, web-d 2
        3 -> 2: web-b 0, web-c 1, web-d 1
        4 -> 5: web-b 2, web-c 3
        6 -> 0: web-b 0, web-c 0, web-d 0
        5 -> 6: web-b 0, web-c 0, web-d 6
        3 -> 5: web-b 1, web-c 2, web-d 2
        10 -> 20: web-b 11, web-d 11
        10 -> 50: web-b 34, web-d 22
        10 -> 14: web-b 4, web-c 10
    "#]]
    .assert_eq(&table);
}

/// Upstream: TestScale, "saturated but broken new replica set does not affect old pods".
#[test]
fn a_broken_new_set_does_not_cost_old_pods() {
    let text = "deploy web 2 image v2 surge 1 unavailable 1 paused
                rs web-a 1 image v1 desired 2 max 3
                rs web-b 2 image v2 ready 0 desired 2 max 3";
    expect!["web-a 1, web-b 2"].assert_eq(&sizes(text));
}

/// The share that upstream's proportions would take from the only available pods goes to those that are not.
#[test]
fn scaling_down_spares_available_pods() {
    let text = "deploy web 5 image v2 surge 2 unavailable 1
                rs web-a 8 image v1 desired 10 max 13
                rs web-b 5 image v2 ready 0 desired 10 max 13";
    expect!["web-a 4, web-b 3"].assert_eq(&sizes(text));
}

/// The fourth document: 4 replicas, one more, one less.
#[test]
fn a_rolling_update_from_begin_to_end() {
    let mut world = World::read("deploy web 4 image v1 surge 1 unavailable 1");
    world.check = bounds;
    world.wake_all();
    for _ in 0..3 {
        world.settle();
        world.run_nodes();
    }
    world.settle();
    world.events.clear();
    let mut text = world.show();
    world.user_changes("web", |deployment| set_image(deployment, "v2"));
    for round in 0..20 {
        world.settle();
        let scaling = world.events.drain(..).filter(|event| event.starts_with("ScalingReplicaSet"));
        let events: Vec<String> = scaling.map(|event| event.replace("ScalingReplicaSet ", "")).collect();
        let why = world.plan(Controller::Deployment, Kind::Deployment, "web").why;
        text += &format!("round {round}\n");
        let hide = |text: &str| text.split(' ').map(masked).collect::<Vec<_>>().join(" ");
        events.iter().for_each(|event| text += &format!("  {}\n", hide(event)));
        why.iter().for_each(|why| text += &format!("  {}\n", hide(why)));
        if events.is_empty() && why.is_empty() {
            break;
        }
        world.run_nodes();
    }
    let deployment = world.snapshot.get::<Deployment>("default", "web").unwrap();
    text += &deployment_status(deployment.status.as_ref().unwrap());
    text += "\n";
    text += &world.show();
    expect![[r#"
        web-<hash> 4: 4 ready of 4 pods
        round 0
          Scaled up replica set web-<hash> to 1
          Scaled down replica set web-<hash> to 3
          Scaled up replica set web-<hash> to 2
          waits for 2 of 2 new pods to become ready: web-<hash>-00007 has no node yet, likewise web-<hash>-00008
          may not stop another of 3 old pods: 3 available, at least 3 needed
          may not start another new pod: 5 pods are there, at most 5 allowed
        round 1
          waits for 2 of 2 new pods to become ready: web-<hash>-00007 has not been started by node n1 yet, likewise web-<hash>-00008
          may not stop another of 3 old pods: 3 available, at least 3 needed
          may not start another new pod: 5 pods are there, at most 5 allowed
        round 2
          Scaled down replica set web-<hash> to 1
          Scaled up replica set web-<hash> to 4
          waits for 2 of 4 new pods to become ready: web-<hash>-00009 has no node yet, likewise web-<hash>-00010
          may not stop another of 1 old pods: 3 available, at least 3 needed
        round 3
          waits for 2 of 4 new pods to become ready: web-<hash>-00009 has not been started by node n1 yet, likewise web-<hash>-00010
          may not stop another of 1 old pods: 3 available, at least 3 needed
        round 4
          Scaled down replica set web-<hash> to 0
        round 5
         replicas 4 updated 4 ready 4 available 4 unavailable 0
          Available=True MinimumReplicasAvailable (Deployment has minimum availability.)
          Progressing=True NewReplicaSetAvailable (ReplicaSet "web-<hash>" has successfully progressed.)
        web-<hash> 0: 0 ready of 0 pods
        web-<hash> 4: 4 ready of 4 pods
    "#]].assert_eq(&text);
}

/// Every pod of a rollout is made once and ended once; all else is written once a step, however many pods there are.
#[test]
fn a_rollout_costs_little() {
    let mut world = World::read("deploy web 200 image v1 surge 25% unavailable 25%");
    let settle = |world: &mut World| {
        let mut writes = 0;
        for _ in 0..30 {
            writes += world.settle();
            world.run_nodes();
        }
        writes
    };
    world.wake_all();
    settle(&mut world);
    world.user_changes("web", |deployment| set_image(deployment, "v2"));
    let writes = settle(&mut world);
    assert!(writes < 2 * 200 + 60, "{writes} writes for 200 pods");
}

/// True if the set that made the pod has no more pods than it is to have.
fn own_size_is_kept(world: &api::Snapshot, pod: &Pod) -> bool {
    let owner = api::object::controller_of(&pod.metadata).unwrap();
    let set = world.get::<ReplicaSet>("default", &owner.name).unwrap();
    let active = world.controlled_by::<Pod>(&owner.uid).filter(|pod| pods::is_active(pod));
    active.count() as i32 <= size(set)
}

/// No act of ours takes an available pod too many, or makes a pod too many. When a user lowers a bound in the middle of
/// a rollout, pods that are lost may still be replaced up to the sizes the sets have, but no set may grow.
fn bounds(before: &api::Snapshot, world: &api::Snapshot, write: &Write, now: jiff::Timestamp) {
    for deployment in world.list::<Deployment>(None) {
        let terms = super::terms::Terms::of(deployment);
        let uid = deployment.metadata.uid.as_deref().unwrap();
        let (mut there, mut available, mut sizes, mut occupied) = (0, 0, 0, 0);
        for set in world.controlled_by::<ReplicaSet>(uid) {
            let pods = world.controlled_by::<Pod>(set.metadata.uid.as_deref().unwrap());
            let active: Vec<&Pod> = pods.filter(|pod| pods::is_active(pod)).collect();
            let good = active.iter().filter(|pod| pods::is_available(pod, terms.min_ready_seconds, now));
            there += active.len() as i32;
            available += good.count() as i32;
            sizes += size(set);
            occupied += size(set).max(active.len() as i32);
        }
        let (most, least) = (terms.max_pods(), terms.min_available());
        match write {
            Write::Create(api::Body::Pod(pod)) => {
                // Where a rolling update becomes a Recreate, the pods of sets that are to have none may still be there
                // when another set makes up for one that it lost.
                let replaces = terms.strategy == Strategy::Recreate && own_size_is_kept(world, pod);
                assert!(
                    replaces || there <= most.max(sizes),
                    "{there} pods, at most {most} allowed, sizes are {sizes}"
                );
            }
            Write::Create(api::Body::ReplicaSet(set)) | Write::Update(api::Body::ReplicaSet(set)) => {
                let old = before.get::<ReplicaSet>("default", set.metadata.name.as_deref().unwrap()).map_or(0, size);
                assert!(size(set) <= old || occupied <= most, "grew to {occupied}, at most {most} allowed");
            }
            Write::Delete { key, .. } if key.kind == Kind::Pod && terms.strategy != Strategy::Recreate => {
                let deleted = before.get::<Pod>("default", &key.name).unwrap();
                let counted = pods::is_active(deleted) && pods::is_available(deleted, terms.min_ready_seconds, now);
                assert!(
                    !counted || available >= least,
                    "{available} available without {}, at least {least} needed",
                    key.name
                );
            }
            _ => {}
        }
    }
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().unwrap().replicas.unwrap()
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let terminating = "deploy web 3 image v2 recreate
                       rs web-a 0 image v1 terminating 1 revision 1";
    let running = "deploy web 3 image v2 recreate
                   rs web-a 3 image v1 revision 1";
    let gone = "deploy web 3 image v2 recreate
                rs web-a 0 image v1 revision 1";
    expect![[r#"
        update ReplicaSet web-a replicas 0 desired-replicas=3 max-replicas=3 revision=1 of web
        event ScalingReplicaSet Scaled down replica set web-a to 0
        why waits for 3 old pods to end: web-a-0, web-a-1, web-a-2
        --
        status Deployment web replicas 0 updated 0 ready 0 available 0 unavailable 0 terminating 1
          Available=False MinimumReplicasUnavailable (Deployment does not have minimum availability.)
        why waits for 1 old pods to end: web-a-0
        --
        create ReplicaSet web-<hash> replicas 3 desired-replicas=3 max-replicas=3 revision=2 of web
        event ScalingReplicaSet Scaled up replica set web-<hash> to 3
        status Deployment web revision 2 replicas 0 updated 0 ready 0 available 0 unavailable 3
          Progressing=True NewReplicaSetCreated (Created new replica set "web-<hash>")
          Available=False MinimumReplicasUnavailable (Deployment does not have minimum availability.)
        wake at 2026-01-01T12:10:01Z
    "#]]
    .assert_eq(&[running, terminating, gone].map(plan).join("--\n"));
}

/// A pod that was taken out of its set by its labels while it ended is counted nowhere, but it still runs. Found by the
/// simulator: the Deployment waited for ever.
#[test]
fn recreate_goes_on_when_a_pod_is_gone_that_nobody_selects_any_more() {
    let mut world = World::read("deploy web 3 image v2 recreate\nrs web-a 0 image v1 terminating 1 revision 1");
    world.wake_all();
    world.settle();
    world.change_pod("web-a-0", |pod| pod.metadata.labels = None);
    world.settle();
    assert_eq!(world.pods(), ["web-a-0"]);
    world.pod_gone("web-a-0");
    world.settle();
    assert_eq!(world.pods().len(), 3);
}

/// Found by the simulator: pods were deleted and a rollout undone in one turn, and the set had not told of it yet.
#[test]
fn nothing_is_done_by_pods_that_were_lost_a_moment_ago() {
    let text = "deploy web 2 image v1 surge 1 unavailable 0
                rs web-a 2 image v1 revision 1 desired 2 max 3";
    let done = |world: &World| {
        show(&world.plan(Controller::Deployment, Kind::Deployment, "web")).contains("NewReplicaSetAvailable")
    };
    let mut world = World::read(text);
    assert!(done(&world));
    world.user_deletes(Kind::Pod, "web-a-0", api::Propagation::Background);
    assert!(!done(&world));
}

/// What is about to leave a set replaces nothing: a pod that somebody took out by its labels, a set that is being deleted.
/// Found by the simulator: old pods were ended for them.
#[test]
fn nobody_counts_on_what_is_about_to_leave() {
    let text = "deploy web 2 image v2 surge 1 unavailable 0
                rs web-a 2 image v1 revision 1 desired 2 max 3
                rs web-b 1 image v2 revision 2 desired 2 max 3";
    let shrinks = |world: &World| {
        let plan = world.plan(Controller::Deployment, Kind::Deployment, "web");
        show(&plan).contains("update ReplicaSet web-a replicas 1")
    };
    let mut world = World::read(text);
    assert!(shrinks(&world));
    world.change_pod("web-b-0", |pod| pod.metadata.labels = None);
    assert!(!shrinks(&world));
    let mut world = World::read(text);
    world.user_deletes(Kind::ReplicaSet, "web-b", api::Propagation::Foreground);
    assert!(!shrinks(&world));
}

#[test]
fn paused_only_scales() {
    let text = "deploy web 6 image v2 paused
                rs web-a 4 image v1 revision 1 desired 4 max 5";
    expect![[r#"
        update ReplicaSet web-a replicas 6 desired-replicas=6 max-replicas=8 revision=1 of web
        event ScalingReplicaSet Scaled up replica set web-a to 6
        status Deployment web replicas 4 updated 0 ready 4 available 4 unavailable 2
          Progressing=Unknown DeploymentPaused (Deployment is paused)
          Available=False MinimumReplicasUnavailable (Deployment does not have minimum availability.)
        why is paused: the changed template is not rolled out before it is resumed
    "#]]
    .assert_eq(&plan(text));
}

#[test]
fn rollback_renumbers_the_old_set() {
    let text = "deploy web 2 image v1
                rs web-a 0 image v1 revision 1 desired 2 max 3
                rs web-b 2 image v2 revision 2 desired 2 max 3";
    expect![[r#"
        update ReplicaSet web-a replicas 1 desired-replicas=2 max-replicas=3 revision=3 revision-history=1 of web
        event ScalingReplicaSet Scaled up replica set web-a to 1
        status Deployment web revision 3 replicas 2 updated 0 ready 2 available 2 unavailable 1
          Available=True MinimumReplicasAvailable (Deployment has minimum availability.)
          Progressing=True ReplicaSetUpdated (ReplicaSet "web-a" is progressing.)
        why may not stop another of 2 old pods: 2 available, at least 2 needed
        why may not start another new pod: 3 pods are asked for, at most 3 allowed
        wake at 2026-01-01T12:10:01Z
    "#]]
    .assert_eq(&plan(text));
}

#[test]
fn refused_creation_is_told_and_tried_again() {
    let mut world = World::read("deploy web 2 image v1");
    let refusal = Refusal::forbidden(Kind::ReplicaSet, "web-x", "exceeded quota: few");
    world.refuse(Controller::Deployment, Kind::Deployment, "web", refusal);
    expect![[r#"
        status Deployment web revision 1 replicas 0 updated 0 ready 0 available 0 unavailable 2
          Progressing=False ReplicaSetCreateError (Failed to create new replica set "web-<hash>": replicasets.apps "web-x" is forbidden: exceeded quota: few)
          Available=False MinimumReplicasUnavailable (Deployment does not have minimum availability.)
        create ReplicaSet web-<hash> replicas 2 desired-replicas=2 max-replicas=3 revision=1 of web
        event ScalingReplicaSet Scaled up replica set web-<hash> to 2
        event ReplicaSetCreateError Failed to create new replica set "web-<hash>": replicasets.apps "web-x" is forbidden: exceeded quota: few
        why Failed to create new replica set "web-<hash>": replicasets.apps "web-x" is forbidden: exceeded quota: few
    "#]].assert_eq(&show(&world.plan(Controller::Deployment, Kind::Deployment, "web")));
}

#[test]
fn what_cannot_be_made_is_not_done_though_no_pod_is_wanted() {
    let mut world = World::read(
        "deploy web 0 image v2
         rs web-a 0 image v1 revision 1 desired 0 max 0",
    );
    let refusal = Refusal::forbidden(Kind::ReplicaSet, "web-x", "exceeded quota: few");
    world.refuse(Controller::Deployment, Kind::Deployment, "web", refusal);
    let told = show(&world.plan(Controller::Deployment, Kind::Deployment, "web"));
    assert!(told.contains("Progressing=False ReplicaSetCreateError"), "{told}");
    assert!(!told.contains("has successfully progressed"), "{told}");
}

#[test]
fn a_taken_name_counts_as_collision() {
    let mut world = World::read("deploy web 1 image v1");
    let hash = {
        let deployment = world.snapshot.get::<Deployment>("default", "web").unwrap();
        api::template_hash::template_hash(&deployment.spec.as_ref().unwrap().template, None)
    };
    let other = format!(
        "deploy web 1 image v1
         rs web-{hash} 0 image other orphan"
    );
    world = World::read(&other);
    world.wake_all();
    world.settle();
    let deployment = world.snapshot.get::<Deployment>("default", "web").unwrap();
    // The stranger matches the selector and is adopted as an old set; the name is taken all the same.
    assert_eq!(deployment.status.as_ref().unwrap().collision_count, Some(1));
    assert_eq!(world.snapshot.list::<ReplicaSet>(None).count(), 2);
}

#[test]
fn history_is_cut() {
    let text = "deploy web 1 image v4 history 1
                rs web-a 0 image v1 revision 1 desired 1 max 2
                rs web-b 0 image v2 revision 2 desired 1 max 2
                rs web-c 0 image v3 revision 3 desired 1 max 2
                rs web-d 1 image v4 revision 4 desired 1 max 2";
    expect![[r#"
        delete ReplicaSet web-a
        delete ReplicaSet web-b
        status Deployment web revision 4 replicas 1 updated 1 ready 1 available 1 unavailable 0
          Available=True MinimumReplicasAvailable (Deployment has minimum availability.)
          Progressing=True NewReplicaSetAvailable (ReplicaSet "web-d" has successfully progressed.)
    "#]]
    .assert_eq(&plan(text));
}

/// Upstream: TestDeploymentTimedOut, TestRequeueStuckDeployment.
#[test]
fn a_stuck_rollout_passes_its_deadline() {
    let mut world = World::read("deploy web 2 image v1 deadline 60");
    world.wake_all();
    world.settle();
    let told = |world: &World| {
        let deployment = world.snapshot.get::<Deployment>("default", "web").unwrap();
        let conditions = deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let progressing = conditions.iter().find(|condition| condition.type_ == "Progressing").unwrap();
        format!("{} {}", progressing.status, progressing.reason.clone().unwrap())
    };
    let mut text = format!("at once: {}\n", told(&world));
    for seconds in [60, 1, 600] {
        world.advance(seconds);
        let writes = world.settle();
        text += &format!("{seconds} s later: {} ({writes} writes)\n", told(&world));
    }
    for _ in 0..2 {
        world.run_nodes();
        world.settle();
    }
    text += &format!("in the end: {}\n", told(&world));
    expect![[r#"
        at once: True ReplicaSetUpdated
        60 s later: True ReplicaSetUpdated (0 writes)
        1 s later: False ProgressDeadlineExceeded (1 writes)
        600 s later: False ProgressDeadlineExceeded (0 writes)
        in the end: True NewReplicaSetAvailable
    "#]]
    .assert_eq(&text);
}

#[test]
fn adopts_and_releases_sets() {
    let adopt = "deploy web 1 image v1
                 rs web-a 1 image v1 orphan";
    let mut world = World::read(
        "deploy web 1 image v1
         rs web-a 1 image v1",
    );
    let mut set = world.snapshot.get::<ReplicaSet>("default", "web-a").unwrap().clone();
    set.metadata.labels = None;
    world.store(Kind::ReplicaSet, serde_json::to_value(&set).unwrap());
    let release = show(&world.plan(Controller::Deployment, Kind::Deployment, "web"));
    expect![[r#"
        update ReplicaSet web-a replicas 1 of web
        update ReplicaSet web-a replicas 1
    "#]]
    .assert_eq(&(plan(adopt) + &release));
}

mod properties {
    use super::*;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    /// Something that happens to a Deployment.
    #[derive(Clone, Debug)]
    enum Act {
        Image(u8),
        Replicas(i32),
        Pause(bool),
        Bounds(i32, i32),
        Recreate(bool),
        Ready(usize, bool),
        Fail(usize),
        DeletePod(usize),
        Nodes,
        Pass(i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            2 => (1u8..5).prop_map(Act::Image),
            2 => (0i32..9).prop_map(Act::Replicas),
            1 => any::<bool>().prop_map(Act::Pause),
            1 => (0i32..4, 0i32..4).prop_map(|(surge, unavailable)| Act::Bounds(surge, unavailable)),
            1 => prop::bool::weighted(0.3).prop_map(Act::Recreate),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(pod, ready)| Act::Ready(pod, ready)),
            1 => any::<usize>().prop_map(Act::Fail),
            1 => any::<usize>().prop_map(Act::DeletePod),
            3 => Just(Act::Nodes),
            2 => (1i64..30).prop_map(Act::Pass),
        ]
    }

    fn of_user(act: &Act) -> bool {
        matches!(act, Act::Image(_) | Act::Replicas(_) | Act::Pause(_) | Act::Bounds(..) | Act::Recreate(_))
    }

    fn perform(world: &mut World, act: &Act) {
        let running = |name: &String| !crate::pods::has_ended(world.snapshot.get("default", name).unwrap());
        let pods: Vec<String> = world.pods().into_iter().filter(running).collect();
        let pod = |index: usize| (!pods.is_empty()).then(|| pods[index % pods.len()].clone());
        let rolling = |deployment: &mut Deployment, json: serde_json::Value| {
            deployment.spec.as_mut().unwrap().strategy = serde_json::from_value(json).unwrap();
        };
        match *act {
            Act::Image(image) => world.user_changes("web", |it| set_image(it, &format!("v{image}"))),
            Act::Replicas(replicas) => {
                world.user_changes("web", |it| it.spec.as_mut().unwrap().replicas = Some(replicas));
            }
            Act::Pause(paused) => world.user_changes("web", |it| it.spec.as_mut().unwrap().paused = Some(paused)),
            Act::Bounds(surge, unavailable) => world.user_changes("web", |it| {
                let bounds = serde_json::json!({ "maxSurge": surge, "maxUnavailable": unavailable });
                rolling(it, serde_json::json!({ "type": "RollingUpdate", "rollingUpdate": bounds }));
            }),
            Act::Recreate(true) => {
                world.user_changes("web", |it| rolling(it, serde_json::json!({ "type": "Recreate" })));
            }
            Act::Recreate(false) => {}
            Act::Ready(index, ready) => {
                if let Some(name) = pod(index) {
                    world.change_pod(&name, |pod| {
                        pod.spec.as_mut().unwrap().node_name = Some("n1".into());
                    });
                    world.set_ready(&name, ready);
                }
            }
            Act::Fail(index) => {
                if let Some(name) = pod(index) {
                    world.change_pod(&name, |pod| {
                        let status = pod.status.get_or_insert_default();
                        status.phase = Some("Failed".into());
                        status.conditions = None;
                    });
                }
            }
            Act::DeletePod(index) => {
                if let Some(name) = pod(index) {
                    world.user_deletes(Kind::Pod, &name, api::Propagation::Background);
                }
            }
            Act::Nodes => world.run_nodes(),
            Act::Pass(seconds) => world.advance(seconds),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens, and in whatever order decisions are made: no bound is broken, the decisions come to rest,
        /// in the end the wanted pods and only they are there, and then nothing is written any more.
        #[test]
        fn bounds_hold_and_the_end_is_reached(
            acts in prop::collection::vec((act(), any::<bool>()), 1..25),
            min_ready in prop_oneof![Just(0), Just(5)],
            seed in any::<u64>(),
        ) {
            let mut world = World::read(&format!("deploy web 4 image v1 surge 1 unavailable 1 min-ready {min_ready}"));
            world.check = bounds;
            let mut state = seed;
            world.pick = Box::new(move |choices| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % choices
            });
            world.wake_all();
            world.settle();
            for (act, burst) in &acts {
                if of_user(act) {
                    world.settle();
                }
                perform(&mut world, act);
                // Several things may happen to pods before they are decided about. What a user wants is decided first:
                // a set cannot know that its size is outdated.
                if !*burst || of_user(act) {
                    world.settle();
                }
            }
            world.user_changes("web", |it| it.spec.as_mut().unwrap().paused = None);
            for _ in 0..60 {
                world.settle();
                world.run_nodes();
                world.advance(6);
            }
            world.settle();
            let deployment = world.snapshot.get::<Deployment>("default", "web").unwrap().clone();
            let spec = deployment.spec.as_ref().unwrap();
            let replicas = spec.replicas.unwrap();
            let status = deployment.status.clone().unwrap();
            prop_assert_eq!(status.available_replicas.unwrap_or(0), replicas);
            prop_assert_eq!(status.updated_replicas.unwrap_or(0), replicas);
            prop_assert_eq!(status.replicas.unwrap_or(0), replicas);
            prop_assert_eq!(status.observed_generation, deployment.metadata.generation);
            for set in world.snapshot.list::<ReplicaSet>(None) {
                let wanted = set.spec.as_ref().unwrap().template.as_ref().unwrap().spec == spec.template.spec;
                prop_assert_eq!(set.spec.as_ref().unwrap().replicas.unwrap(), if wanted { replicas } else { 0 });
            }
            world.wake_all();
            prop_assert_eq!(world.settle(), 0, "something is written though all is as it should be");
        }
    }
}

/// How each rollout ended is noted on its set, if it is known who asked for it.
#[test]
fn each_rollout_has_an_account() {
    let ask = |world: &mut World, image: &str| {
        let requested = api::account::Requested {
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now),
            by: "ada".into(),
            with: "test".into(),
        };
        world.user_changes("web", |deployment| {
            set_image(deployment, image);
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(api::account::REQUESTED.into(), requested.text());
        });
    };
    let show = |world: &World| {
        let mut sets: Vec<&ReplicaSet> = world.snapshot.list::<ReplicaSet>(None).collect();
        sets.sort_by_key(|set| set.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone());
        let told = sets.into_iter().map(|set| {
            let image = set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0]
                .image
                .clone()
                .unwrap();
            let asked = api::account::Requested::of(&set.metadata).map(|asked| asked.at.0.to_string());
            let ended = api::account::Ended::of(&set.metadata).map(|ended| ended.text());
            format!("{image} asked {} ended {}\n", asked.unwrap_or_default(), ended.unwrap_or_default())
        });
        told.collect::<String>()
    };
    let run = |world: &mut World| {
        for _ in 0..20 {
            world.settle();
            world.run_nodes();
        }
    };
    let mut world = World::read("deploy web 2 surge 1 unavailable 0 deadline 60");
    world.wake_all();
    run(&mut world);
    let mut text = show(&world);
    world.advance(10);
    ask(&mut world, "v2");
    run(&mut world);
    text += "-- v2 completes\n";
    text += &show(&world);
    world.advance(10);
    ask(&mut world, "v3");
    world.settle();
    world.advance(100);
    world.settle();
    text += "-- v3 makes no progress\n";
    text += &show(&world);
    ask(&mut world, "v4");
    world.settle();
    world.advance(5);
    ask(&mut world, "v2");
    run(&mut world);
    text += "-- v4 is undone\n";
    text += &show(&world);
    expect![[r#"
        v1 asked  ended 
        -- v2 completes
        v1 asked  ended 
        v2 asked 2026-01-01T12:00:10Z ended {"how":"completed","at":"2026-01-01T12:00:10Z"}
        -- v3 makes no progress
        v1 asked  ended 
        v2 asked 2026-01-01T12:00:10Z ended {"how":"completed","at":"2026-01-01T12:00:10Z"}
        v3 asked 2026-01-01T12:00:20Z ended {"how":"failed","at":"2026-01-01T12:02:00Z"}
        -- v4 is undone
        v1 asked  ended 
        v3 asked 2026-01-01T12:00:20Z ended {"how":"failed","at":"2026-01-01T12:02:00Z"}
        v4 asked 2026-01-01T12:02:00Z ended {"how":"superseded","at":"2026-01-01T12:02:05Z","undone":true}
        v2 asked 2026-01-01T12:02:05Z ended {"how":"completed","at":"2026-01-01T12:02:05Z"}
    "#]]
    .assert_eq(&text);
}
