//! I27: a workload whose decision never comes to rest, and one whose decision fails, delay nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{Body, Context, Key, Kind, Plan, Pod, Snapshot, Write};
use controllers::Controller;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;
use server::door::{Ids, Part, Requester};
use server::minds::{Minds, Real};
use server::turn::{Action, Request, Writer};
use server::why::Whys;
use tokio::sync::oneshot;

/// Each decision about `hot` makes a pod, which calls for the next; those about `broken` panic; the others are the real ones.
#[derive(Default)]
struct Troubled {
    written: AtomicUsize,
}

impl Minds for Troubled {
    fn control(&self, who: Controller, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        match (who, key.name.as_str()) {
            (Controller::ReplicaSet, "broken") => panic!("as a test wants it"),
            (Controller::ReplicaSet, "hot") => {
                let Some(set) = world.get::<ReplicaSet>(&key.namespace, &key.name) else { return Plan::nothing() };
                let number = self.written.fetch_add(1, Ordering::Relaxed);
                let pod = one_more(set, number);
                Plan { writes: vec![Write::Create(pod)], ..Plan::nothing() }
            }
            _ => controllers::reconcile(who, key, world, context),
        }
    }
}

fn one_more(set: &ReplicaSet, number: usize) -> Body {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "hot", "uid": set.metadata.uid, "controller": true });
    let body = json!({
        "metadata": { "name": format!("hot-{number}"), "namespace": "default", "labels": { "app": "hot" }, "ownerReferences": [owner] },
        "spec": { "containers": [{ "name": "c", "image": "web:1" }] },
    });
    Kind::Pod.decode(body).expect("it is well formed")
}

fn set(name: &str, replicas: i32) -> Body {
    let labels = json!({ "app": name });
    let container = json!({ "name": "c", "image": "web:1" });
    let body = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
    } });
    Kind::ReplicaSet.decode(body).expect("it is well formed")
}

fn turn(writer: &mut Writer, actions: Vec<Action>) -> usize {
    let mut actions = actions.into_iter();
    let mut next = || {
        let (requester, reply) = (Requester::new("user", "test"), oneshot::channel().0);
        actions.next().map(|action| Request { action, requester, dry_run: false, reply })
    };
    let now = Timestamp::from_second(1_767_225_600).expect("a time in this century");
    let turn = writer.take_turn(&mut next, now);
    let refused = turn.answers.iter().find_map(|(_, answer)| answer.as_ref().err());
    assert_eq!(refused, None, "a request was refused");
    turn.changes.len()
}

fn pods_of_quiet(writer: &Writer) -> usize {
    let world = writer.world();
    let Some(set) = world.get::<ReplicaSet>("default", "quiet") else { return 0 };
    world.controlled_by::<Pod>(set.metadata.uid.as_deref().unwrap_or("")).count()
}

/// Turns until the set has its pods, and until it has those that it is scaled to then.
fn turns(minds: Arc<dyn Minds>, others: &[&str]) -> [usize; 2] {
    let mut writer = Writer::with_minds(Snapshot::default(), Ids::from_seed(1), Arc::new(Whys::default()), minds);
    let namespace = Kind::Namespace.decode(json!({ "metadata": { "name": "default" } })).expect("it is well formed");
    let mut first = vec![Action::Create(String::new(), namespace)];
    first.extend(others.iter().map(|name| Action::Create("default".into(), set(name, 1))));
    first.push(Action::Create("default".into(), set("quiet", 3)));
    let until = |writer: &mut Writer, actions: Vec<Action>, pods: usize| {
        let mut most = turn(writer, actions);
        let mut turns = 1;
        while pods_of_quiet(writer) < pods {
            most = most.max(turn(writer, Vec::new()));
            turns += 1;
            assert!(turns < 100, "it has {} pods of {pods}", pods_of_quiet(writer));
        }
        assert!(most <= 2 * api::limits::TURN_WRITES, "{most} changes in a turn");
        turns
    };
    let made = until(&mut writer, first, 3);
    let key = Key::new(Kind::ReplicaSet, "default", "quiet");
    let scaled = until(&mut writer, vec![Action::Update(key, Part::Main, set("quiet", 5))], 5);
    [made, scaled]
}

#[test]
fn a_hot_and_a_broken_workload_delay_nobody() {
    let alone = turns(Arc::new(Real), &[]);
    let troubled = Arc::new(Troubled::default());
    let beside = turns(troubled.clone(), &["broken", "hot"]);
    assert!(troubled.written.load(Ordering::Relaxed) > 100, "the hot one came to rest: this test would show nothing");
    assert_eq!(beside, alone);
}
