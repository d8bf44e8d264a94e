//! What is known of Services and EndpointSlices, in the few words that names need. Pure: it learns from the events of
//! watches and is asked by [`answer`](crate::answer::answer).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{core::v1, discovery::v1 as discovery};
use kube::{ResourceExt, runtime::watcher::Event};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub(crate) type Id = (String, String);

/// All that names are made from.
#[derive(Debug, Default)]
pub struct Records {
    services: Listed<Service>,
    slices: Listed<Slice>,
    /// Names of the slices of a service, which are all in its namespace.
    slices_of: BTreeMap<Id, BTreeSet<String>>,
    /// Services and slices in which an address is.
    services_at: BTreeMap<IpAddr, BTreeSet<Id>>,
    slices_at: BTreeMap<IpAddr, BTreeSet<Id>>,
}

/// Objects of one kind.
#[derive(Debug)]
struct Listed<T> {
    objects: BTreeMap<Id, T>,
    /// During a list: what was known before and has not come up yet.
    doubted: BTreeSet<Id>,
    /// Whether there was a whole list yet.
    complete: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Listed { objects: BTreeMap::new(), doubted: BTreeSet::new(), complete: false }
    }
}

/// A Service.
#[derive(Debug)]
pub(crate) enum Service {
    /// With addresses of its own.
    Addressed { addresses: Vec<IpAddr>, ports: Vec<Port> },
    /// Without: its name leads to its endpoints.
    Headless,
    /// Another name for something elsewhere.
    External(String),
}

/// A port with a name; the others have no records.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// In lower case.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

/// An EndpointSlice of a service.
#[derive(Debug)]
pub(crate) struct Slice {
    service: String,
    pub(crate) ports: Vec<Port>,
    /// Those that are ready. Of a service with `publishNotReadyAddresses` the slice says that all are.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An endpoint that is ready.
#[derive(Debug)]
pub(crate) struct Endpoint {
    hostname: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Endpoint {
    /// Its own part of its names: its host name, or else its first address with dashes, as CoreDNS has it.
    pub(crate) fn hostname(&self) -> String {
        let dashed = || self.addresses.first().map(|address| address.to_string().replace(['.', ':'], "-"));
        self.hostname.clone().or_else(dashed).unwrap_or_default()
    }
}

impl Records {
    /// Whether all is known: before that, that a name is not here says nothing.
    pub fn are_complete(&self) -> bool {
        self.services.complete && self.slices.complete
    }

    /// Takes an event of the watch of Services.
    pub fn learn_service(&mut self, event: Event<v1::Service>) {
        match event {
            Event::Init => self.services.doubt(),
            Event::InitApply(service) | Event::Apply(service) => {
                let id = id(&service);
                self.forget_service(&id);
                if let Some(service) = read_service(&service) {
                    if let Service::Addressed { addresses, .. } = &service {
                        note(&mut self.services_at, addresses, &id);
                    }
                    self.services.objects.insert(id, service);
                }
            }
            Event::Delete(service) => self.forget_service(&id(&service)),
            Event::InitDone => {
                self.services.complete = true;
                for id in std::mem::take(&mut self.services.doubted) {
                    self.forget_service(&id);
                }
            }
        }
    }

    /// Takes an event of the watch of EndpointSlices.
    pub fn learn_slice(&mut self, event: Event<discovery::EndpointSlice>) {
        match event {
            Event::Init => self.slices.doubt(),
            Event::InitApply(slice) | Event::Apply(slice) => {
                let id = id(&slice);
                self.forget_slice(&id);
                if let Some(slice) = read_slice(&slice) {
                    let service = (id.0.clone(), slice.service.clone());
                    self.slices_of.entry(service).or_default().insert(id.1.clone());
                    note(&mut self.slices_at, slice.addresses(), &id);
                    self.slices.objects.insert(id, slice);
                }
            }
            Event::Delete(slice) => self.forget_slice(&id(&slice)),
            Event::InitDone => {
                self.slices.complete = true;
                for id in std::mem::take(&mut self.slices.doubted) {
                    self.forget_slice(&id);
                }
            }
        }
    }

    fn forget_service(&mut self, id: &Id) {
        self.services.doubted.remove(id);
        if let Some(Service::Addressed { addresses, .. }) = self.services.objects.remove(id) {
            strike(&mut self.services_at, &addresses, id);
        }
    }

    fn forget_slice(&mut self, id: &Id) {
        self.slices.doubted.remove(id);
        let Some(slice) = self.slices.objects.remove(id) else { return };
        strike(&mut self.slices_at, slice.addresses(), id);
        let service = (id.0.clone(), slice.service);
        if let Some(names) = self.slices_of.get_mut(&service) {
            names.remove(&id.1);
            if names.is_empty() {
                self.slices_of.remove(&service);
            }
        }
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        let from = (namespace.to_owned(), String::new());
        self.services.objects.range(from..).next().is_some_and(|((other, _), _)| other == namespace)
    }

    pub(crate) fn service(&self, id: &Id) -> Option<&Service> {
        self.services.objects.get(id)
    }

    /// The slices of a service.
    pub(crate) fn slices(&self, service: &Id) -> impl Iterator<Item = &Slice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.objects.get(&(service.0.clone(), name.clone())))
    }

    /// The services that have an address.
    pub(crate) fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Id> {
        self.services_at.get(&address).into_iter().flatten()
    }

    /// Host name, service and namespace of the endpoints that have an address and were given a host name.
    pub(crate) fn hosts_at(&self, address: IpAddr) -> BTreeSet<(&str, &str, &str)> {
        let slices = self.slices_at.get(&address).into_iter().flatten();
        let slices = slices.filter_map(|id| Some((id, self.slices.objects.get(id)?)));
        let hosts = slices.flat_map(|(id, slice)| {
            let here = slice.endpoints.iter().filter(move |endpoint| endpoint.addresses.contains(&address));
            here.filter_map(move |endpoint| {
                Some((endpoint.hostname.as_deref()?, slice.service.as_str(), id.0.as_str()))
            })
        });
        hosts
            .filter(|(_, service, namespace)| self.service(&((*namespace).into(), (*service).into())).is_some())
            .collect()
    }
}

impl<T> Listed<T> {
    fn doubt(&mut self) {
        self.doubted = self.objects.keys().cloned().collect();
    }
}

impl Slice {
    fn addresses(&self) -> impl IntoIterator<Item = &IpAddr> {
        self.endpoints.iter().flat_map(|endpoint| &endpoint.addresses)
    }
}

fn id(object: &impl ResourceExt) -> Id {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn note<'a>(index: &mut BTreeMap<IpAddr, BTreeSet<Id>>, addresses: impl IntoIterator<Item = &'a IpAddr>, id: &Id) {
    for address in addresses {
        index.entry(*address).or_default().insert(id.clone());
    }
}

fn strike<'a>(index: &mut BTreeMap<IpAddr, BTreeSet<Id>>, addresses: impl IntoIterator<Item = &'a IpAddr>, id: &Id) {
    for address in addresses {
        if let Some(ids) = index.get_mut(address) {
            ids.remove(id);
            if ids.is_empty() {
                index.remove(address);
            }
        }
    }
}

fn read_service(service: &v1::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return spec.external_name.clone().map(Service::External);
    }
    let address = spec.cluster_ip.as_deref().filter(|address| !address.is_empty())?;
    if address == "None" {
        return Some(Service::Headless);
    }
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    let all = if all.is_empty() { std::slice::from_ref(spec.cluster_ip.as_ref()?) } else { all };
    let addresses = all.iter().filter_map(|address| address.parse().ok()).collect();
    let ports = spec.ports.iter().flatten();
    let ports = ports.filter_map(|port| read_port(port.name.as_deref(), port.protocol.as_deref(), port.port)).collect();
    Some(Service::Addressed { addresses, ports })
}

fn read_slice(slice: &discovery::EndpointSlice) -> Option<Slice> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
    let ports = slice.ports.iter().flatten();
    let ports =
        ports.filter_map(|port| read_port(port.name.as_deref(), port.protocol.as_deref(), port.port?)).collect();
    let ready = |endpoint: &&discovery::Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let endpoints = slice.endpoints.iter().flatten().filter(ready).map(|endpoint| Endpoint {
        hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
        addresses: endpoint.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
    });
    let endpoints = endpoints.filter(|endpoint| !endpoint.addresses.is_empty()).collect();
    Some(Slice { service, ports, endpoints })
}

fn read_port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    let name = name.filter(|name| !name.is_empty())?.to_owned();
    let protocol = protocol.unwrap_or("TCP").to_lowercase();
    Some(Port { name, protocol, number: u16::try_from(number).ok()? })
}
