//! What the DNS says of a name: a pure function from what is asked and what is known to an [`Answer`].
//!
//! `Zone::at` says which records a name of the cluster has, of all types; the rest follows from that: records of the type
//! that was asked for, none but of another type (NODATA), or no such name (NXDOMAIN).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use hickory_proto::{
    ProtoError,
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, NS, PTR, SOA, SRV, TXT},
    },
};

use crate::records::{Endpoint, Id, Port, Records, Service};

/// The version of the specification of these names.
const SCHEMA_VERSION: &str = "1.1.0";
/// Seconds that an answer may be remembered, CoreDNS' default; also that a name is not there.
const TTL: u32 = 5;
/// Who is responsible for the zone and its only name server, relative to it.
const NAME_SERVER: [&str; 3] = ["kube-dns", "kube-system", "svc"];
const HOSTMASTER: [&str; 1] = ["hostmaster"];
/// All places of a service are worth the same.
const WEIGHT: u16 = 100;
/// Of a zone that nobody copies; nothing reads them.
const SERIAL: u32 = 1;
const REFRESH: i32 = 7200;
const RETRY: i32 = 1800;
const EXPIRE: i32 = 86_400;

/// What there is to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// This.
    Reply(Reply),
    /// The name is another one for something, which has to be looked up too.
    Alias {
        /// The record that says so.
        alias: Record,
        /// What it stands for.
        target: Name,
    },
    /// The name is not of this cluster: others know it.
    Elsewhere,
    /// It is, but what is known is not complete yet.
    NotYet,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Whether the name is there.
    pub code: ResponseCode,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Who says so, where there is nothing else to say.
    pub authorities: Vec<Record>,
}

/// What is known of `name`, by records of type `kind` (or all types, of ANY).
pub fn answer(zone: &Zone, records: &Records, name: &Name, kind: RecordType) -> Answer {
    let found = if let Some(labels) = zone.labels_below(name) {
        if !records.are_complete() {
            return Answer::NotYet;
        }
        zone.at(records, &labels.iter().map(String::as_str).collect::<Vec<_>>())
    } else {
        match zone.names_of(records, name) {
            names if names.is_empty() => return Answer::Elsewhere,
            names => Some(names),
        }
    };
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    if let Some([RData::CNAME(CNAME(target))]) = found.as_deref()
        && !matches!(kind, RecordType::CNAME | RecordType::ANY)
    {
        return Answer::Alias { alias: record(RData::CNAME(CNAME(target.clone()))), target: target.clone() };
    }
    let code = if found.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain };
    let asked_for = |data: &RData| kind == RecordType::ANY || data.record_type() == kind;
    let answers: Vec<Record> = found.into_iter().flatten().filter(asked_for).map(record).collect();
    let authorities = if answers.is_empty() { zone.authority().into_iter().collect() } else { Vec::new() };
    Answer::Reply(Reply { code, answers, authorities })
}

/// The cluster's domain.
#[derive(Debug, Clone)]
pub struct Zone {
    name: Name,
}

impl Zone {
    /// The zone of a domain such as `cluster.local`.
    pub fn new(domain: &str) -> Result<Zone, ProtoError> {
        let mut name = Name::from_ascii(domain)?;
        name.set_fqdn(true);
        Ok(Zone { name })
    }

    /// The labels of a name of this zone without the zone's own, in lower case; `None`: it is of another one.
    fn labels_below(&self, name: &Name) -> Option<Vec<String>> {
        if !self.name.zone_of(name) {
            return None;
        }
        let count = name.num_labels().saturating_sub(self.name.num_labels());
        let text = |label: &[u8]| String::from_utf8_lossy(label).to_lowercase();
        Some(name.iter().take(count.into()).map(text).collect())
    }

    /// All records of a name; `None`: there is no such name. Empty: there are names below it.
    fn at(&self, records: &Records, labels: &[&str]) -> Option<Vec<RData>> {
        let id = |namespace: &str, service: &str| (namespace.to_owned(), service.to_owned());
        match labels {
            [] => Some(
                [self.soa(), self.name(&NAME_SERVER).map(|name| RData::NS(NS(name)))].into_iter().flatten().collect(),
            ),
            ["dns-version"] => Some(vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))]),
            ["svc" | "pod"] => Some(Vec::new()),
            [namespace, "svc"] => records.has_namespace(namespace).then(Vec::new),
            [service, namespace, "svc"] => self.of_service(records, &id(namespace, service)),
            [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
                let ports = self.of_ports(records, &id(namespace, service), |port| is(protocol, &port.protocol));
                (!ports.is_empty()).then(Vec::new)
            }
            [hostname, service, namespace, "svc"] => of_host(records, &id(namespace, service), hostname),
            [name, protocol, service, namespace, "svc"] => {
                let asked_for = |port: &Port| is(name, &port.name) && is(protocol, &port.protocol);
                let ports = self.of_ports(records, &id(namespace, service), asked_for);
                (!ports.is_empty()).then_some(ports)
            }
            [namespace, "pod"] => records.has_namespace(namespace).then(Vec::new),
            // Of no use but to give an address a name; the specification wants them as they were in its first version.
            [address, _, "pod"] => {
                let address: Ipv4Addr = address.replace('-', ".").parse().ok()?;
                Some(vec![RData::A(address.into())])
            }
            _ => None,
        }
    }

    fn of_service(&self, records: &Records, id: &Id) -> Option<Vec<RData>> {
        match records.service(id)? {
            Service::Addressed { addresses, .. } => Some(addresses.iter().copied().map(address).collect()),
            Service::External(target) => Some(external(target).into_iter().collect()),
            Service::Headless => {
                let all: BTreeSet<IpAddr> =
                    endpoints(records, id).flat_map(|it| it.addresses.iter().copied()).collect();
                // Without any endpoint that is ready, the specification says, there is no such name.
                (!all.is_empty()).then(|| all.into_iter().map(address).collect())
            }
        }
    }

    /// Where the ports of a service lead: to the service, or of a headless one to each endpoint.
    fn of_ports(&self, records: &Records, id: &Id, asked_for: impl Fn(&Port) -> bool) -> Vec<RData> {
        let (namespace, service) = id;
        let to = |number: u16, labels: &[&str]| Some(RData::SRV(SRV::new(0, WEIGHT, number, self.name(labels)?)));
        match records.service(id) {
            Some(Service::Addressed { ports, .. }) => {
                let ports = ports.iter().filter(|port| asked_for(port));
                ports.filter_map(|port| to(port.number, &[service, namespace, "svc"])).collect()
            }
            Some(Service::Headless) => {
                let mut places = BTreeSet::new();
                for slice in records.slices(id) {
                    for port in slice.ports.iter().filter(|port| asked_for(port)) {
                        places.extend(slice.endpoints.iter().map(|it| (it.hostname(), port.number)));
                    }
                }
                let places = places.into_iter();
                places.filter_map(|(hostname, number)| to(number, &[&hostname, service, namespace, "svc"])).collect()
            }
            Some(Service::External(_)) | None => Vec::new(),
        }
    }

    /// The names of the address that a name below `arpa` stands for.
    fn names_of(&self, records: &Records, name: &Name) -> Vec<RData> {
        let Ok(network) = name.parse_arpa_name() else { return Vec::new() };
        if network.prefix_len() != network.max_prefix_len() {
            return Vec::new();
        }
        let services = records.services_at(network.addr());
        let services = services.filter_map(|(namespace, service)| self.name(&[service, namespace, "svc"]));
        let hosts = records.hosts_at(network.addr()).into_iter();
        let hosts =
            hosts.filter_map(|(hostname, service, namespace)| self.name(&[hostname, service, namespace, "svc"]));
        services.chain(hosts).map(|name| RData::PTR(PTR(name))).collect()
    }

    fn authority(&self) -> Option<Record> {
        Some(Record::from_rdata(self.name.clone(), TTL, self.soa()?))
    }

    fn soa(&self) -> Option<RData> {
        let (server, hostmaster) = (self.name(&NAME_SERVER)?, self.name(&HOSTMASTER)?);
        Some(RData::SOA(SOA::new(server, hostmaster, SERIAL, REFRESH, RETRY, EXPIRE, TTL)))
    }

    /// The name of these labels in this zone; `None`: it would be too long for one.
    fn name(&self, labels: &[&str]) -> Option<Name> {
        labels.iter().rev().try_fold(self.name.clone(), |name, label| name.prepend_label(label.as_bytes())).ok()
    }
}

/// Whether a label of a question, such as `_http`, stands for a name or protocol of a port.
fn is(label: &str, name: &str) -> bool {
    label.strip_prefix('_') == Some(name)
}

fn external(target: &str) -> Option<RData> {
    let mut name = Name::from_ascii(target).ok()?;
    name.set_fqdn(true);
    Some(RData::CNAME(CNAME(name)))
}

fn of_host(records: &Records, id: &Id, hostname: &str) -> Option<Vec<RData>> {
    records.service(id)?;
    let named = endpoints(records, id).filter(|endpoint| endpoint.hostname() == hostname);
    let all: BTreeSet<IpAddr> = named.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect();
    (!all.is_empty()).then(|| all.into_iter().map(address).collect())
}

fn endpoints<'a>(records: &'a Records, id: &Id) -> impl Iterator<Item = &'a Endpoint> {
    records.slices(id).flat_map(|slice| &slice.endpoints)
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    }
}

#[cfg(test)]
mod tests;
