//! The whole cluster at one revision: persistent maps, so that a clone is a handful of pointers.
//!
//! Decisions and readers get a `Snapshot` and nothing else. Indexes are kept with every write, so that no decision
//! has to walk all pods to find its own.

use std::sync::Arc;

use imbl::OrdMap;
use k8s_openapi::api::core::v1::Pod;

use crate::node_load::NodeLoad;
use crate::object::{Change, Key, Kind, Object, Typed, controller_of};

/// `namespace/name`.
type Path = Arc<str>;

/// Every object at one revision.
#[derive(Clone)]
pub struct Snapshot {
    revision: u64,
    kinds: [OrdMap<Path, Arc<Object>>; Kind::COUNT],
    /// Dependents by owner uid. Objects without a controller are also under the empty uid.
    owned: OrdMap<(Arc<str>, Kind, Path), Arc<Object>>,
    /// Pods by node name; those that no node has yet are under the empty name.
    on_node: OrdMap<(Arc<str>, Path), Arc<Object>>,
    /// Pods that keep others away from where they are (required anti-affinity): few, but each pod placed has to mind them.
    keeping_away: OrdMap<Path, Arc<Object>>,
    /// What the pods of each node ask for.
    load: OrdMap<Arc<str>, Arc<NodeLoad>>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot {
            revision: 0,
            kinds: std::array::from_fn(|_| OrdMap::new()),
            owned: OrdMap::new(),
            on_node: OrdMap::new(),
            keeping_away: OrdMap::new(),
            load: OrdMap::new(),
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
        let uid: Arc<str> = uid.into();
        let start = (uid.clone(), Kind::ALL[0], Path::from(""));
        self.owned.range(start..).take_while(move |((owner, _, _), _)| *owner == uid).map(|(_, object)| object)
    }

    /// Objects of type `T` whose controller is `uid`.
    pub fn controlled_by<'a, T: Typed + 'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let owner = uid.to_owned();
        let uid: Arc<str> = uid.into();
        let start = (uid.clone(), T::KIND, Path::from(""));
        self.owned
            .range(start..)
            .take_while(move |((owner, kind, _), _)| *owner == uid && *kind == T::KIND)
            .filter(move |(_, object)| controller_of(object.meta()).is_some_and(|controller| controller.uid == owner))
            .filter_map(|(_, object)| object.get())
    }

    /// Objects of type `T` in `namespace` that no controller manages.
    pub fn orphans<'a, T: Typed + 'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let none: Arc<str> = "".into();
        let prefix: Path = format!("{namespace}/").into();
        let start = (none.clone(), T::KIND, prefix.clone());
        self.owned
            .range(start..)
            .take_while(move |((owner, kind, path), _)| {
                *owner == none && *kind == T::KIND && path.starts_with(&*prefix)
            })
            .filter_map(|(_, object)| object.get())
    }

    /// Pods bound to a node.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
        let node: Arc<str> = node.into();
        let start = (node.clone(), Path::from(""));
        self.on_node
            .range(start..)
            .take_while(move |((name, _), _)| *name == node)
            .filter_map(|(_, object)| object.get())
    }

    /// Pods bound to a node, as objects, behind the path `after`.
    pub fn pod_objects_on<'a>(
        &'a self,
        node: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let node: Arc<str> = node.into();
        let start = (node.clone(), Path::from(after.map_or_else(String::new, |after| format!("{after}\0"))));
        self.on_node.range(start..).take_while(move |((name, _), _)| *name == node).map(|(_, object)| object)
    }

    /// Pods that no node has yet, in order of namespace and name.
    pub fn unbound_pods<'a>(&'a self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.pods_on("")
    }

    /// Pods with required anti-affinity, in order of namespace and name.
    pub fn pods_keeping_away(&self) -> impl Iterator<Item = &Pod> {
        self.keeping_away.iter().filter_map(|(_, object)| object.get())
    }

    /// What the pods bound to a node ask for; `None` when no pod is bound to it.
    pub fn load(&self, node: &str) -> Option<&NodeLoad> {
        self.load.get(node).map(|load| &**load)
    }

    /// Puts an object in place of what had its key, and gives the change.
    pub fn put(&mut self, object: Arc<Object>) -> Change {
        self.advance(object.revision);
        let path: Path = object.key().path().into();
        let before = self.kinds[object.kind() as usize].insert(path.clone(), object.clone());
        if let Some(before) = &before {
            self.unindex(&path, before);
        }
        self.index(&path, &object);
        Change { revision: object.revision, before, after: Some(object) }
    }

    /// Takes an object out at `revision`; `None` if it was not there.
    pub fn remove(&mut self, key: &Key, revision: u64) -> Option<Change> {
        let path: Path = key.path().into();
        let before = self.kinds[key.kind as usize].remove(&path)?;
        self.advance(revision);
        self.unindex(&path, &before);
        Some(Change { revision, before: Some(before), after: None })
    }

    fn index(&mut self, path: &Path, object: &Arc<Object>) {
        for owner in owners(object) {
            self.owned.insert((owner, object.kind(), path.clone()), object.clone());
        }
        let Some(node) = node_of(object) else { return };
        self.on_node.insert((node.clone(), path.clone()), object.clone());
        if keeps_away(object) {
            self.keeping_away.insert(path.clone(), object.clone());
        }
        if let (false, Some(pod)) = (node.is_empty(), object.get::<Pod>()) {
            let mut load = self.load.get(&node).cloned().unwrap_or_default();
            Arc::make_mut(&mut load).add(pod);
            self.load.insert(node, load);
        }
    }

    fn unindex(&mut self, path: &Path, object: &Arc<Object>) {
        for owner in owners(object) {
            self.owned.remove(&(owner, object.kind(), path.clone()));
        }
        let Some(node) = node_of(object) else { return };
        self.on_node.remove(&(node.clone(), path.clone()));
        if keeps_away(object) {
            self.keeping_away.remove(path);
        }
        if let (Some(pod), Some(load)) = (object.get::<Pod>(), self.load.get(&node)) {
            let mut load = load.clone();
            Arc::make_mut(&mut load).subtract(pod);
            if load.is_empty() {
                self.load.remove(&node)
            } else {
                self.load.insert(node, load)
            };
        }
    }
}

/// Uids the object is indexed under: its owners, and the empty uid when nobody controls it.
fn owners(object: &Object) -> impl Iterator<Item = Arc<str>> {
    let meta = object.meta();
    let orphan = controller_of(meta).is_none().then(|| Arc::from(""));
    meta.owner_references.iter().flatten().map(|owner| Arc::from(owner.uid.as_str())).chain(orphan)
}

/// The node a pod is bound to, empty while it is bound to none; `None` for what is no pod.
fn node_of(object: &Object) -> Option<Arc<str>> {
    let spec = object.get::<Pod>()?.spec.as_ref();
    Some(spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().into())
}

/// True for a pod with required anti-affinity.
fn keeps_away(object: &Object) -> bool {
    let affinity = object.get::<Pod>().and_then(|pod| pod.spec.as_ref()?.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    terms.is_some_and(|terms| !terms.is_empty())
}
