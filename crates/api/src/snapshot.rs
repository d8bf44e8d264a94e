//! The whole cluster at one revision: persistent maps, so that a clone is a handful of pointers.
//!
//! Decisions and readers get a `Snapshot` and nothing else. Indexes are kept with every write, so that no decision
//! has to walk all pods to find its own.

use std::ops::Deref;
use std::sync::Arc;

use crate::Pod;
use imbl::OrdMap;

use crate::node_load::NodeLoad;
use crate::object::{Change, Key, Kind, Object, Typed, controller_of};
use crate::pod_facts::{Facts, number};
use crate::quota::Account;
use crate::selector::Selector;

/// `namespace/name`.
type Path = Arc<str>;
/// Where a pod is among those of its namespace: by [`Facts::kin`], then by a number of its path, which most often tells two
/// apart without a look at the paths.
type Alike = (u64, u64, Path);
/// The pods of a namespace.
type Pods = OrdMap<Alike, (Arc<Object>, Facts)>;

/// Where an ended pod is among all: evicted ones first, then the oldest, by the second when they were made.
type Ended = (bool, i64, Path);

/// Every object at one revision.
#[derive(Clone)]
pub struct Snapshot {
    revision: u64,
    kinds: [OrdMap<Path, Arc<Object>>; Kind::COUNT],
    /// Dependents by owner uid. Objects without a controller are also under the empty uid.
    owned: OrdMap<Arc<str>, OrdMap<(Kind, Path), Dependent>>,
    /// Pods by node name; those that no node has yet are under the empty name.
    on_node: OrdMap<Arc<str>, OrdMap<Path, Arc<Object>>>,
    /// Pods that keep others away from where they are (required anti-affinity): few, but each pod placed has to mind them.
    keeping_away: OrdMap<Path, Arc<Object>>,
    /// Pods of each namespace, those with the same labels side by side.
    alike: OrdMap<Arc<str>, Pods>,
    /// Pods that have ended and that nobody has asked to leave.
    ended: OrdMap<Ended, Arc<Object>>,
    /// What the pods of each node ask for.
    load: OrdMap<Arc<str>, Arc<NodeLoad>>,
    /// What the objects of each namespace that has a quota take.
    accounts: OrdMap<Arc<str>, Arc<Account>>,
}

/// An object under one of its owners. A map an owner, and what is asked most often told beside the object: a walk over
/// thousands of pods neither compares uids nor looks into pods that it does not want.
#[derive(Clone)]
struct Dependent {
    object: Arc<Object>,
    /// Those of the object: here they are found in the order of the walk.
    facts: Facts,
    /// True if this owner is its controller.
    controlled: bool,
}

/// A pod among those that have something in common. Its facts are told without a look at the pod.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    object: &'a Arc<Object>,
    facts: &'a Facts,
}

impl<'a> Member<'a> {
    fn of(dependent: &'a Dependent) -> Member<'a> {
        Member { object: &dependent.object, facts: &dependent.facts }
    }

    /// The pod itself.
    pub fn pod(&self) -> &'a Pod {
        self.object.get().expect("members are pods")
    }
}

impl Deref for Member<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        self.facts
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot {
            revision: 0,
            kinds: std::array::from_fn(|_| OrdMap::new()),
            owned: OrdMap::new(),
            on_node: OrdMap::new(),
            keeping_away: OrdMap::new(),
            alike: OrdMap::new(),
            ended: OrdMap::new(),
            load: OrdMap::new(),
            accounts: OrdMap::new(),
        }
    }
}

impl Snapshot {
    /// Revision of the last write it holds.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Declares that everything up to `revision` is in (a store that was compacted may end on a deletion).
    pub fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The object at `kind`, `namespace` (empty for none) and `name`.
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.kinds[kind as usize].get(format!("{namespace}/{name}").as_str())
    }

    /// The object of this key.
    pub fn at(&self, key: &Key) -> Option<&Arc<Object>> {
        self.object(key.kind, &key.namespace, &key.name)
    }

    /// The typed object of this name.
    pub fn get<T: Typed>(&self, namespace: &str, name: &str) -> Option<&T> {
        self.object(T::KIND, namespace, name).and_then(|object| object.get())
    }

    /// All objects of a kind, of one namespace or of all (`None`), in order of namespace and name.
    pub fn objects<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        self.objects_after(kind, namespace, None)
    }

    /// As [`Snapshot::objects`], beginning behind the path `after` (`namespace/name`): the next page of a list.
    pub fn objects_after<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&str>,
        after: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let map = &self.kinds[kind as usize];
        let prefix: Path = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default().into();
        // No name holds a character below '-', so a trailing NUL is the least key greater than `after`.
        let start: Path = after.map_or_else(|| prefix.clone(), |after| format!("{after}\0").into());
        Box::new(map.range(start..).take_while(move |(path, _)| path.starts_with(&*prefix)).map(|(_, object)| object))
    }

    /// All typed objects of a kind, of one namespace or of all.
    pub fn list<'a, T: Typed + 'a>(&'a self, namespace: Option<&str>) -> impl Iterator<Item = &'a T> {
        self.objects(T::KIND, namespace).filter_map(|object| object.get())
    }

    /// Number of objects of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].len()
    }

    /// Objects of any kind that name `uid` as one of their owners.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        self.owned.get(uid).into_iter().flatten().map(|(_, dependent)| &dependent.object)
    }

    /// Objects of type `T` whose controller is `uid`.
    pub fn controlled_by<'a, T: Typed + 'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a T> + use<'a, T> {
        self.controlled(T::KIND, uid).filter_map(|dependent| dependent.object.get())
    }

    /// Pods whose controller is `uid`.
    pub fn members<'a>(&'a self, uid: &str) -> impl Iterator<Item = Member<'a>> + use<'a> {
        self.controlled(Kind::Pod, uid).map(Member::of)
    }

    fn controlled<'a>(&'a self, kind: Kind, uid: &str) -> impl Iterator<Item = &'a Dependent> + use<'a> {
        let dependents = self.owned.get(uid).into_iter();
        dependents
            .flat_map(move |dependents| dependents.range((kind, Path::from(""))..))
            .take_while(move |((other, _), _)| *other == kind)
            .map(|(_, dependent)| dependent)
            .filter(|dependent| dependent.controlled)
    }

    /// Objects of type `T` in `namespace` that no controller manages.
    pub fn orphans<'a, T: Typed + 'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a T> + use<'a, T> {
        self.uncontrolled(T::KIND, namespace).filter_map(|dependent| dependent.object.get())
    }

    /// Pods in `namespace` that no controller manages.
    pub fn orphan_members<'a>(&'a self, namespace: &str) -> impl Iterator<Item = Member<'a>> + use<'a> {
        self.uncontrolled(Kind::Pod, namespace).map(Member::of)
    }

    fn uncontrolled<'a>(&'a self, kind: Kind, namespace: &str) -> impl Iterator<Item = &'a Dependent> + use<'a> {
        let prefix: Path = format!("{namespace}/").into();
        let orphans = self.owned.get(NOBODY).into_iter();
        let start = prefix.clone();
        orphans
            .flat_map(move |orphans| orphans.range((kind, start.clone())..))
            .take_while(move |((other, path), _)| *other == kind && path.starts_with(&*prefix))
            .map(|(_, dependent)| dependent)
    }

    /// Pods bound to a node.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.on_node.get(node).into_iter().flat_map(OrdMap::values).filter_map(|object| object.get())
    }

    /// Pods bound to a node, as objects, behind the path `after`.
    pub fn pod_objects_on<'a>(
        &'a self,
        node: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let start = Path::from(after.map_or_else(String::new, |after| format!("{after}\0")));
        let pods = self.on_node.get(node).into_iter();
        pods.flat_map(move |pods| pods.range(start.clone()..)).map(|(_, object)| object)
    }

    /// Pods that no node has yet, in order of namespace and name.
    pub fn unbound_pods<'a>(&'a self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.pods_on("")
    }

    /// Pods with required anti-affinity, in order of namespace and name.
    pub fn pods_keeping_away(&self) -> impl Iterator<Item = &Pod> {
        self.keeping_away.iter().filter_map(|(_, object)| object.get())
    }

    /// Pods of a namespace that a selector means, in no order that means something. Each kin is judged once, unless the
    /// selector tells kin apart.
    pub fn labelled<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = Member<'a>> + use<'a> {
        let each = selector.tells_kin_apart();
        let fits = |member: &Member| selector.matches(member.pod().metadata.labels.as_ref());
        let pods = self.alike.get(namespace).into_iter();
        pods.flat_map(kins)
            .filter(move |(pods, kin)| each || of_kin(pods, *kin).next().is_some_and(|one| fits(&one)))
            .flat_map(|(pods, kin)| of_kin(pods, kin))
            .filter(move |member| !each || fits(member))
    }

    /// How many pods have ended and are not leaving.
    pub fn ended_pods(&self) -> usize {
        self.ended.len()
    }

    /// These pods, evicted ones first, then the oldest (upstream: byEvictionAndCreationTimestamp of
    /// `pkg/controller/podgc/gc_controller.go`).
    pub fn ended_pods_first_to_go(&self) -> impl Iterator<Item = &Pod> {
        self.ended.values().filter_map(|object| object.get())
    }

    /// What the pods bound to a node ask for; `None` when no pod is bound to it.
    pub fn load(&self, node: &str) -> Option<&NodeLoad> {
        self.load.get(node).map(|load| &**load)
    }

    /// What the objects of a namespace take; `None` where no quota bounds them.
    pub fn account(&self, namespace: &str) -> Option<&Account> {
        self.accounts.get(namespace).map(|account| &**account)
    }

    /// Puts an object in place of what had its key, and gives the change.
    pub fn put(&mut self, object: Arc<Object>) -> Change {
        self.advance(object.revision);
        let path: Path = object.key().path().into();
        let before = self.kinds[object.kind() as usize].insert(path.clone(), object.clone());
        if let Some(before) = &before {
            self.unindex(&path, before, Some(&object));
        }
        self.index(&path, &object);
        self.book(before.as_deref(), Some(&object));
        Change { revision: object.revision, before, after: Some(object) }
    }

    /// Takes an object out at `revision`; `None` if it was not there.
    pub fn remove(&mut self, key: &Key, revision: u64) -> Option<Change> {
        let path: Path = key.path().into();
        let before = self.kinds[key.kind as usize].remove(&path)?;
        self.advance(revision);
        self.unindex(&path, &before, None);
        self.book(Some(&before), None);
        Some(Change { revision, before: Some(before), after: None })
    }

    /// Keeps the account of the namespace: opened with its first quota, by a walk, and closed with its last.
    fn book(&mut self, before: Option<&Object>, after: Option<&Object>) {
        let Some(object) = after.or(before) else { return };
        let namespace: Arc<str> = object.namespace().into();
        if let Some(account) = self.accounts.get_mut(&namespace) {
            let account = Arc::make_mut(account);
            before.into_iter().for_each(|object| account.subtract(&object.body));
            after.into_iter().for_each(|object| account.add(&object.body));
            if account.has_no_quota() {
                self.accounts.remove(&namespace);
            }
        } else if object.kind() == Kind::ResourceQuota && after.is_some() {
            let mut account = Account::default();
            let kinds = Kind::ALL.iter().filter(|kind| kind.namespaced());
            let all = kinds.flat_map(|kind| self.objects(*kind, Some(&namespace)));
            all.for_each(|object| account.add(&object.body));
            self.accounts.insert(namespace, Arc::new(account));
        }
    }

    fn index(&mut self, path: &Path, object: &Arc<Object>) {
        for (owner, controlled) in owners(object) {
            let dependent = Dependent { object: object.clone(), facts: *object.facts(), controlled };
            inner(&mut self.owned, owner).insert((object.kind(), path.clone()), dependent);
        }
        let Some(node) = node_of(object) else { return };
        inner(&mut self.on_node, node).insert(path.clone(), object.clone());
        inner(&mut self.alike, object.namespace()).insert(alike(path, object), (object.clone(), *object.facts()));
        if keeps_away(object) {
            self.keeping_away.insert(path.clone(), object.clone());
        }
        if let Some(place) = ended(path, object) {
            self.ended.insert(place, object.clone());
        }
        if let (false, Some(pod)) = (node.is_empty(), object.get::<Pod>()) {
            if let Some(load) = self.load.get_mut(node) {
                return Arc::make_mut(load).add(pod);
            }
            let mut load = NodeLoad::default();
            load.add(pod);
            self.load.insert(node.into(), Arc::new(load));
        }
    }

    /// Takes `object` out of the indexes. Where `next`, which comes in its place, is found as well, that overwrites it.
    fn unindex(&mut self, path: &Path, object: &Arc<Object>, next: Option<&Object>) {
        for (owner, _) in owners(object) {
            if !next.is_some_and(|next| owners(next).any(|(other, _)| other == owner)) {
                take(&mut self.owned, owner, &(object.kind(), path.clone()));
            }
        }
        let Some(node) = node_of(object) else { return };
        if next.and_then(node_of) != Some(node) {
            take(&mut self.on_node, node, path);
        }
        if next.is_none_or(|next| next.facts().kin() != object.facts().kin()) {
            take(&mut self.alike, object.namespace(), &alike(path, object));
        }
        if keeps_away(object) {
            self.keeping_away.remove(path);
        }
        if let Some(place) = ended(path, object) {
            self.ended.remove(&place);
        }
        if let (Some(pod), Some(load)) = (object.get::<Pod>(), self.load.get_mut(node)) {
            let load = Arc::make_mut(load);
            load.subtract(pod);
            if load.is_empty() {
                self.load.remove(node);
            }
        }
    }
}

/// Stands for the uid of the controller that an object does not have.
const NOBODY: &str = "";

/// The map at `key`, made if it is not there.
fn inner<'a, K: Ord + Clone, V: Clone>(
    maps: &'a mut OrdMap<Arc<str>, OrdMap<K, V>>,
    key: &str,
) -> &'a mut OrdMap<K, V> {
    if !maps.contains_key(key) {
        maps.insert(key.into(), OrdMap::new());
    }
    maps.get_mut(key).expect("it was put there if it was missing")
}

/// Removes an entry from the map at `key`, and the map with its last entry.
fn take<K: Ord + Clone, V: Clone>(maps: &mut OrdMap<Arc<str>, OrdMap<K, V>>, key: &str, entry: &K) {
    let Some(map) = maps.get_mut(key) else { return };
    map.remove(entry);
    if map.is_empty() {
        maps.remove(key);
    }
}

/// Uids the object is indexed under, each with whether it controls the object: its owners, and nobody where nobody does.
fn owners(object: &Object) -> impl Iterator<Item = (&str, bool)> {
    let meta = object.meta();
    let controller = controller_of(meta).map(|owner| owner.uid.as_str());
    let orphan = controller.is_none().then_some((NOBODY, false));
    let named = meta.owner_references.iter().flatten().map(|owner| owner.uid.as_str());
    named.map(move |uid| (uid, controller == Some(uid))).chain(orphan)
}

/// The node a pod is bound to, empty while it is bound to none; `None` for what is no pod.
fn node_of(object: &Object) -> Option<&str> {
    let spec = object.get::<Pod>()?.spec.as_ref();
    Some(spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default())
}

fn alike(path: &Path, object: &Object) -> Alike {
    (object.facts().kin(), number(&**path), path.clone())
}

/// The place of a pod among those that have ended, if it has and stays.
fn ended(path: &Path, object: &Object) -> Option<Ended> {
    let facts = object.facts();
    let pod = object.get::<Pod>().filter(|_| facts.has_ended() && !facts.is_deleted())?;
    let status = pod.status.as_ref();
    let evicted = status
        .is_some_and(|status| status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some("Evicted"));
    let made = pod.metadata.creation_timestamp.as_ref().map_or(i64::MIN, |time| time.0.as_second());
    Some((!evicted, made, path.clone()))
}

/// The kins among these pods.
fn kins(pods: &Pods) -> impl Iterator<Item = (&Pods, u64)> {
    let first = |from: u64| pods.range((from, 0, Path::from(""))..).next().map(|((kin, ..), _)| *kin);
    std::iter::successors(first(0), move |kin| first(kin.checked_add(1)?)).map(move |kin| (pods, kin))
}

/// Those of one kin.
fn of_kin(pods: &Pods, kin: u64) -> impl Iterator<Item = Member<'_>> {
    pods.range((kin, 0, Path::from(""))..)
        .take_while(move |((other, ..), _)| *other == kin)
        .map(|(_, (object, facts))| Member { object, facts })
}

/// True for a pod with required anti-affinity.
fn keeps_away(object: &Object) -> bool {
    let affinity =
        object.get::<Pod>().and_then(|pod| pod.spec.as_deref()?.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    terms.is_some_and(|terms| !terms.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pod_facts::{self, OWN_LABELS, number_of};
    use crate::pod_resources;

    const OWNERS: [&str; 3] = ["", "u1", "u2"];
    const NODES: [&str; 3] = ["", "n1", "n2"];

    const LABELS: [Option<&str>; 3] = [None, Some("a"), Some("b")];
    const PHASES: [&str; 4] = ["Pending", "Running", "Succeeded", "Failed"];

    /// What a pod is, by number: its owner, whether that controls it, its node, its labels, its phase.
    type Made = (usize, bool, usize, usize, usize);
    /// Whether it is being deleted, whether it is ready (if that is known), and when that was noted (if it was).
    type State = (bool, Option<bool>, Option<i64>);
    /// A write: which of ten pods, and what it is; or its removal.
    type Step = (usize, Option<(Made, State)>);

    fn made() -> impl Strategy<Value = (Made, State)> {
        let made = (0..3usize, any::<bool>(), 0..3usize, 0..3usize, 0..4usize);
        (made, (any::<bool>(), any::<Option<bool>>(), prop::option::of(-3..3i64)))
    }

    fn pod(number: usize, made: Made, state: State, revision: u64) -> Arc<Object> {
        let (owner, controls, node, labels, phase) = made;
        let (deleted, ready, since) = state;
        let owners = match OWNERS[owner] {
            "" => json!([]),
            uid => json!([{ "apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": controls }]),
        };
        let time = |since: i64| jiff::Timestamp::from_millisecond(since * 1_234_567).unwrap();
        let condition = ready.map(|ready| {
            json!({ "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since.map(time) })
        });
        let name = format!("p-{number}");
        // Kin may differ by what only one of a set has.
        let told = LABELS[labels].map(|value| match number % 3 {
            0 => json!({ "app": value }),
            1 => {
                json!({ "app": value, pod_facts::POD_NAME_LABEL: name, pod_facts::POD_INDEX_LABEL: number.to_string() })
            }
            _ => json!({ "app": value, pod_facts::POD_INDEX_LABEL: "7", pod_facts::REVISION_LABEL: "r" }),
        });
        let index =
            number.is_multiple_of(2).then(|| json!({ pod_facts::COMPLETION_INDEX: (number as i32 - 4).to_string() }));
        let pod = json!({
            "metadata": {
                "namespace": "ns", "name": name, "uid": (!number.is_multiple_of(5)).then(|| format!("uid-{number}")), "ownerReferences": owners, "labels": told, "annotations": index,
                "deletionTimestamp": deleted.then(|| time(0)),
                "finalizers": (number % 4 == 1).then_some([pod_facts::JOB_TRACKING_FINALIZER]),
            },
            "spec": { "nodeName": NODES[node], "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
            "status": { "phase": PHASES[phase], "startTime": since.map(time), "conditions": condition.into_iter().collect::<Vec<_>>() },
        });
        Object::recovered(Kind::Pod, pod.to_string().into(), revision, &mut crate::PodSpecs::default()).unwrap()
    }

    fn names<'a>(objects: impl Iterator<Item = &'a Pod>) -> Vec<String> {
        objects.map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    /// True if what is kept beside a pod is what the pod says.
    fn facts_hold(member: &Member) -> bool {
        let pod = member.pod();
        let available = |wait| pod_facts::available_at(pod, wait) == member.available_at(wait);
        (member.has_ended(), member.is_deleted(), member.is_active())
            == (pod_facts::has_ended(pod), pod_facts::is_deleted(pod), pod_facts::is_active(pod))
            && (member.is_ready(), member.ready_since()) == (pod_facts::is_ready(pod), pod_facts::ready_since(pod))
            && (member.has_succeeded(), member.has_failed())
                == (pod_facts::phase(pod) == "Succeeded", pod_facts::phase(pod) == "Failed")
            && (member.is_running(), member.is_pending())
                == (pod_facts::phase(pod) == "Running", pod_facts::phase(pod) == "Pending")
            && member.has_started() == pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
            && (member.is_tracked(), member.is_named()) == (pod_facts::is_tracked(pod), pod_facts::is_named(pod))
            && member.completion_index() == pod_facts::completion_index(pod)
            && member.ordinal_in(number_of("p")) == pod_facts::numbered(pod).map(|(_, number)| number)
            && member.ordinal_in(number_of("q")).is_none()
            && member.revision() == labels_of(pod).get(pod_facts::REVISION_LABEL).map_or(0, |label| number_of(label))
            && member.node()
                == pod
                    .spec
                    .as_deref()
                    .and_then(|spec| spec.node_name.as_deref())
                    .filter(|node| !node.is_empty())
                    .map_or(0, number_of)
            && member.uid() == pod.metadata.uid.as_deref().map_or(0, number_of)
            && member.requests() == pod.spec.as_deref().map_or(0, pod_resources::fingerprint)
            && member.controller() == controller_of(&pod.metadata).map(|owner| number(&owner.uid))
            && available(0)
            && available(7)
    }

    fn labels_of(pod: &Pod) -> BTreeMap<String, String> {
        pod.metadata.labels.clone().unwrap_or_default()
    }

    /// The labels without those that only one of a set has.
    fn common(pod: &Pod) -> BTreeMap<String, String> {
        labels_of(pod).into_iter().filter(|(key, _)| !OWN_LABELS.contains(&key.as_str())).collect()
    }

    proptest! {
        #[test]
        fn the_indexes_say_what_a_walk_over_all_objects_says(
            steps in prop::collection::vec((0..10usize, prop::option::weighted(0.8, made())), 0..60),
        ) {
            let mut world = Snapshot::default();
            let mut model: BTreeMap<String, Made> = BTreeMap::new();
            let mut leaving: BTreeMap<String, bool> = BTreeMap::new();
            for (revision, (number, what)) in (1u64..).zip(steps as Vec<Step>) {
                let name = format!("p-{number}");
                match what {
                    Some((made, state)) => {
                        world.put(pod(number, made, state, revision));
                        leaving.insert(name.clone(), state.0);
                        model.insert(name, made);
                    }
                    None => {
                        let gone = world.remove(&Key::new(Kind::Pod, "ns", name.as_str()), revision);
                        prop_assert_eq!(gone.is_some(), model.remove(&name).is_some());
                    }
                }
                let over = |(name, made): &(&String, &Made)| PHASES[made.4].ends_with("ed") && !leaving[*name];
                let ended: Vec<String> = model.iter().filter(over).map(|(name, _)| name.clone()).collect();
                prop_assert_eq!(world.ended_pods(), ended.len());
                prop_assert_eq!(names(world.ended_pods_first_to_go()), ended);
                let fitting = |fits: &dyn Fn(Made) -> bool| -> Vec<String> {
                    model.iter().filter(|(_, made)| fits(**made)).map(|(name, _)| name.clone()).collect()
                };
                for (index, uid) in OWNERS.iter().enumerate().skip(1) {
                    let dependents = world.dependents(uid).map(|object| object.name().to_owned()).collect::<Vec<_>>();
                    prop_assert_eq!(dependents, fitting(&|(owner, ..)| owner == index));
                    let controlled = fitting(&|(owner, controls, ..)| owner == index && controls);
                    prop_assert_eq!(names(world.members(uid).map(|member| member.pod())), controlled.as_slice());
                    prop_assert_eq!(names(world.controlled_by(uid)), controlled);
                }
                let orphans = fitting(&|(owner, controls, ..)| owner == 0 || !controls);
                prop_assert_eq!(names(world.orphan_members("ns").map(|member| member.pod())), orphans.as_slice());
                prop_assert_eq!(names(world.orphans("ns")), orphans);
                prop_assert!(names(world.orphans("n")).is_empty());
                let members = || world.members("u1").chain(world.members("u2")).chain(world.orphan_members("ns"));
                prop_assert!(members().all(|member| facts_hold(&member)));
                for (one, other) in members().zip(members().skip(1)) {
                    prop_assert_eq!(one.kin() == other.kin(), common(one.pod()) == common(other.pod()));
                }
                for value in LABELS {
                    let selector = Selector::parse(&value.map_or("!app".to_owned(), |value| format!("app={value}"))).unwrap();
                    let labelled = world.labelled("ns", &selector);
                    let mut labelled = names(labelled.inspect(|member| assert!(facts_hold(member))).map(|member| member.pod()));
                    labelled.sort_unstable();
                    prop_assert_eq!(labelled, fitting(&|(.., labels, _)| LABELS[labels] == value));
                }
                for selector in ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index notin (7,4)"] {
                    let selector = Selector::parse(selector).unwrap();
                    let mut labelled = names(world.labelled("ns", &selector).map(|member| member.pod()));
                    labelled.sort_unstable();
                    let walked = world.list::<Pod>(None).filter(|pod| selector.matches(pod.metadata.labels.as_ref()));
                    prop_assert_eq!(labelled, names(walked));
                }
                prop_assert_eq!(world.labelled("n", &Selector::everything()).count(), 0);
                for (index, node) in NODES.iter().enumerate() {
                    let there = fitting(&|(_, _, node, ..)| node == index);
                    let loading = fitting(&|(.., node, _, phase)| node == index && PHASES[phase] != "Succeeded" && PHASES[phase] != "Failed");
                    let pods = world.load(node).map_or(0, |load| load.pods) as usize;
                    prop_assert_eq!(pods, if index == 0 { 0 } else { loading.len() });
                    let after = world.pod_objects_on(node, Some("ns/p-4")).map(|object| object.name().to_owned());
                    let later = there.iter().filter(|name| name.as_str() > "p-4").cloned().collect::<Vec<_>>();
                    prop_assert_eq!(after.collect::<Vec<_>>(), later);
                    prop_assert_eq!(names(world.pods_on(node)), there);
                }
            }
        }
    }
}
