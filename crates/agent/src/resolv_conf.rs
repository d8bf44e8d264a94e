//! How the containers of a pod find names: the lines of their `resolv.conf`. Pure but for reading the node's own.
//!
//! Mirrors `GetPodDNS` (`pkg/kubelet/network/dns/dns.go`): the policy says whose name servers, the pod's own `dnsConfig` is
//! added, and what the C libraries cannot hold is left out and told.

use std::{fs, net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

/// The node's own, where every program of it looks.
const FILE: &str = "/etc/resolv.conf";
/// And where systemd-resolved keeps what stands behind its own address on the loopback device.
const FILE_BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// How many name servers (`MaxDNSNameservers`), domains (`MaxDNSSearchPaths`) and bytes of domains are taken.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// How pods on this node find names.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    /// The cluster's name server; `None`: pods use the node's.
    pub server: Option<IpAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
}

/// What a `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains in which a name is looked for.
    pub searches: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

/// The node's, for the node's own programs.
pub fn of_node() -> ResolvConf {
    read(Path::new(FILE)).unwrap_or_default()
}

/// The node's, for pods: a name server on the loopback device is none in their network.
pub fn of_node_for_pods() -> ResolvConf {
    let own = of_node();
    let reachable = |server: &String| server.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback());
    if own.servers.iter().any(reachable) { own } else { read(Path::new(FILE_BEHIND_RESOLVED)).unwrap_or(own) }
}

fn read(path: &Path) -> Option<ResolvConf> {
    fs::read_to_string(path).ok().map(|text| ResolvConf::parse(&text))
}

impl ResolvConf {
    /// Reads the text of one (`parseResolvConf`): of several `search` lines the last one counts.
    pub fn parse(text: &str) -> ResolvConf {
        let mut read = ResolvConf::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => read.servers.extend(words.next().map(str::to_owned)),
                Some("search") => read.searches = words.map(domain).collect(),
                Some("options") => read.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        read
    }

    /// Its lines.
    pub fn lines(&self) -> Vec<String> {
        let line = |key: &str, words: &[String]| (!words.is_empty()).then(|| format!("{key} {}", words.join(" ")));
        let servers = self.servers.iter().map(|server| format!("nameserver {server}"));
        servers.chain(line("search", &self.searches)).chain(line("options", &self.options)).collect()
    }

    /// Leaves out what is too much; says so in the kubelet's words (`formDNSConfigFitsLimits`).
    fn fit(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        if MAX_SERVERS < self.servers.len() {
            self.servers.truncate(MAX_SERVERS);
            said.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.servers.join(" ")
            ));
        }
        let all = self.searches.len();
        self.searches.truncate(MAX_SEARCHES);
        while MAX_SEARCH_BYTES < self.searches.join(" ").len() {
            self.searches.pop();
        }
        if self.searches.len() < all {
            said.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        said
    }
}

/// Without the dot at its end; the root stays.
fn domain(text: &str) -> String {
    let short = text.strip_suffix('.').filter(|short| !short.is_empty());
    short.unwrap_or(text).to_owned()
}

/// What a pod of `namespace` gets, and what of it had to be left out.
pub fn of_pod(spec: &PodSpec, namespace: &str, dns: &Dns, node: ResolvConf) -> (ResolvConf, Vec<String>) {
    let mut conf = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => ResolvConf::default(),
        "ClusterFirst" if spec.host_network != Some(true) => cluster_first(namespace, dns, node),
        "ClusterFirstWithHostNet" => cluster_first(namespace, dns, node),
        _ => node,
    };
    if let Some(config) = &spec.dns_config {
        add(&mut conf, config);
    }
    let left_out = conf.fit();
    (conf, left_out)
}

fn cluster_first(namespace: &str, dns: &Dns, node: ResolvConf) -> ResolvConf {
    let Some(server) = dns.server else { return node };
    let domain = &dns.domain;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    extend(&mut searches, &node.searches);
    ResolvConf { servers: vec![server.to_string()], searches, options: vec!["ndots:5".to_owned()] }
}

/// Adds what a pod wants besides; its options replace those of the same name (`appendDNSConfig`).
fn add(conf: &mut ResolvConf, config: &PodDNSConfig) {
    extend(&mut conf.servers, config.nameservers.as_deref().unwrap_or_default());
    extend(&mut conf.searches, config.searches.as_deref().unwrap_or_default());
    for option in config.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        conf.options.retain(|other| other.split(':').next() != Some(name));
        let value = option.value.as_deref().filter(|value| !value.is_empty());
        conf.options.push(value.map_or(name.to_owned(), |value| format!("{name}:{value}")));
    }
}

fn extend(list: &mut Vec<String>, more: &[String]) {
    for word in more {
        if !list.contains(word) {
            list.push(word.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const NODE: &str = "
# Made by somebody.
nameserver 192.0.2.1
nameserver 192.0.2.2   # the second
domain old.example
search first.example
search example.com. lab.example.com .
options edns0 timeout:1
";

    fn check(spec: &str, expected: Expect) {
        let dns = Dns { server: Some([10, 96, 0, 10].into()), domain: "cluster.local".into() };
        let (conf, left_out) = of_pod(&serde_yaml::from_str(spec).unwrap(), "ns", &dns, ResolvConf::parse(NODE));
        expected.assert_eq(&format!("{}\n", [conf.lines(), left_out].concat().join("\n")));
    }

    #[test]
    fn names_are_found_in_the_cluster_first() {
        check(
            "{containers: []}",
            expect![[r#"
            nameserver 10.96.0.10
            search ns.svc.cluster.local svc.cluster.local cluster.local example.com lab.example.com .
            options ndots:5
        "#]],
        );
    }

    #[test]
    fn a_pod_in_the_nodes_network_has_to_ask_for_that() {
        check(
            "{containers: [], hostNetwork: true}",
            expect![[r#"
            nameserver 192.0.2.1
            nameserver 192.0.2.2
            search example.com lab.example.com .
            options edns0 timeout:1
        "#]],
        );
        check(
            "{containers: [], hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet}",
            expect![[r#"
            nameserver 10.96.0.10
            search ns.svc.cluster.local svc.cluster.local cluster.local example.com lab.example.com .
            options ndots:5
        "#]],
        );
    }

    #[test]
    fn a_pod_finds_names_as_its_node() {
        check(
            "{containers: [], dnsPolicy: Default}",
            expect![[r#"
            nameserver 192.0.2.1
            nameserver 192.0.2.2
            search example.com lab.example.com .
            options edns0 timeout:1
        "#]],
        );
    }

    #[test]
    fn a_pod_adds_its_own() {
        let config = "{nameservers: [1.1.1.1, 10.96.0.10], searches: [svc.cluster.local, my.example], \
                      options: [{name: ndots, value: '2'}, {name: edns0}]}";
        check(
            &format!("{{containers: [], dnsConfig: {config}}}"),
            expect![[r#"
            nameserver 10.96.0.10
            nameserver 1.1.1.1
            search ns.svc.cluster.local svc.cluster.local cluster.local example.com lab.example.com . my.example
            options ndots:2 edns0
        "#]],
        );
        check(
            &format!("{{containers: [], dnsPolicy: None, dnsConfig: {config}}}"),
            expect![[r#"
            nameserver 1.1.1.1
            nameserver 10.96.0.10
            search svc.cluster.local my.example
            options ndots:2 edns0
        "#]],
        );
        check(
            &format!("{{containers: [], dnsPolicy: Default, dnsConfig: {config}}}"),
            expect![[r#"
            nameserver 192.0.2.1
            nameserver 192.0.2.2
            nameserver 1.1.1.1
            search example.com lab.example.com . svc.cluster.local my.example
            options timeout:1 ndots:2 edns0
            Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 192.0.2.1 192.0.2.2 1.1.1.1
        "#]],
        );
    }

    #[test]
    fn what_is_too_much_is_left_out_and_told() {
        let long: Vec<String> = (0..40).map(|n| format!("{n}.{}", "x".repeat(60))).collect();
        let spec = format!(
            "{{containers: [], dnsPolicy: None, dnsConfig: {{nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4], searches: [{}]}}}}",
            long.join(", ")
        );
        let (conf, left_out) =
            of_pod(&serde_yaml::from_str(&spec).unwrap(), "ns", &Dns::default(), ResolvConf::default());
        assert_eq!((conf.servers.len(), conf.searches.len(), left_out.len()), (3, 32, 2));
        expect![[r#"
            Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1.1.1.1 1.1.1.2 1.1.1.3"#]]
        .assert_eq(&left_out[0]);
    }

    #[test]
    fn without_a_name_server_of_the_cluster_pods_use_the_nodes() {
        let node = ResolvConf::parse(NODE);
        let spec = serde_yaml::from_str("{containers: []}").unwrap();
        assert_eq!(of_pod(&spec, "ns", &Dns::default(), node.clone()), (node, Vec::new()));
    }
}
