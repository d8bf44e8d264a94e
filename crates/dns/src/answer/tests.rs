use std::fmt::Write;

use expect_test::{Expect, expect};
use k8s_openapi::{
    api::{core::v1, discovery::v1 as discovery},
    serde::de::DeserializeOwned,
};
use kube::runtime::watcher::Event;

use super::*;

/// What the names of a cluster are made from.
const SERVICES: &str = "
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}
---
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20, 'fd00::20']
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP}, {port: 9}]
---
metadata: {name: db, namespace: default}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
metadata: {name: idle, namespace: default}
spec: {clusterIP: None}
---
metadata: {name: shop, namespace: other}
spec: {type: ExternalName, externalName: Shop.example.com}
---
metadata: {name: near, namespace: other}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
";

const SLICES: &str = "
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.2]}]
---
metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432, protocol: TCP}]
endpoints:
- {addresses: [10.244.0.4], hostname: db-1, conditions: {ready: true}}
- {addresses: [10.244.0.3], hostname: db-0}
- {addresses: [10.244.0.5], hostname: db-2, conditions: {ready: false}}
- {addresses: [10.244.0.6]}
---
metadata: {name: db-6, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
ports: [{name: sql, port: 15432}]
endpoints: [{addresses: ['fd00::3'], hostname: db-0}]
---
metadata: {name: idle-1, namespace: default, labels: {kubernetes.io/service-name: idle}}
addressType: IPv4
ports: []
endpoints: [{addresses: [10.244.0.7], conditions: {ready: false}}]
---
metadata: {name: lost, namespace: default, labels: {kubernetes.io/service-name: gone}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.244.0.8], hostname: lost}]
";

fn parse<T: DeserializeOwned>(documents: &str) -> Vec<T> {
    documents.split("---\n").map(|document| serde_yaml::from_str(document).expect(document)).collect()
}

fn list<T>(objects: Vec<T>) -> impl Iterator<Item = Event<T>> {
    let all = objects.into_iter().map(Event::InitApply);
    std::iter::once(Event::Init).chain(all).chain(std::iter::once(Event::InitDone))
}

fn records(services: &str, slices: &str) -> Records {
    let mut records = Records::default();
    list(parse(services)).for_each(|event| records.learn_service(event));
    list(parse(slices)).for_each(|event| records.learn_slice(event));
    records
}

/// One line a question, `NAME TYPE`; what is answered, below it.
fn ask(records: &Records, questions: &str) -> String {
    let zone = Zone::new("cluster.local").unwrap();
    let mut text = String::new();
    for question in questions.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, kind) = question.split_once(' ').unwrap();
        writeln!(text, "{question}").unwrap();
        match answer(&zone, records, &Name::from_ascii(format!("{name}.")).unwrap(), kind.parse().unwrap()) {
            Answer::Reply(reply) => {
                if reply.code != ResponseCode::NoError || reply.answers.is_empty() {
                    writeln!(text, "  {:?}", reply.code).unwrap();
                }
                reply.answers.iter().for_each(|record| writeln!(text, "  {record}").unwrap());
                reply.authorities.iter().for_each(|record| writeln!(text, "  by {record}").unwrap());
            }
            Answer::Alias { alias, .. } => writeln!(text, "  {alias}\n  and then that").unwrap(),
            Answer::Elsewhere => text.push_str("  elsewhere\n"),
            Answer::NotYet => text.push_str("  not yet\n"),
        }
    }
    text
}

fn check(questions: &str, expected: Expect) {
    expected.assert_eq(&ask(&records(SERVICES, SLICES), questions));
}

#[test]
fn services_have_names() {
    check(
        "kubernetes.default.svc.cluster.local A
         web.default.svc.cluster.local A
         web.default.svc.cluster.local AAAA
         Web.Default.SVC.Cluster.Local A
         web.default.svc.cluster.local ANY
         kubernetes.default.svc.cluster.local AAAA
         web.other.svc.cluster.local A
         web.svc.cluster.local A
         web.default.cluster.local A",
        expect![[r#"
            kubernetes.default.svc.cluster.local A
              kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1
            web.default.svc.cluster.local A
              web.default.svc.cluster.local. 5 IN A 10.96.0.20
            web.default.svc.cluster.local AAAA
              web.default.svc.cluster.local. 5 IN AAAA fd00::20
            Web.Default.SVC.Cluster.Local A
              Web.Default.SVC.Cluster.Local. 5 IN A 10.96.0.20
            web.default.svc.cluster.local ANY
              web.default.svc.cluster.local. 5 IN A 10.96.0.20
              web.default.svc.cluster.local. 5 IN AAAA fd00::20
            kubernetes.default.svc.cluster.local AAAA
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            web.other.svc.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            web.svc.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            web.default.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn headless_services_lead_to_their_endpoints() {
    check(
        "db.default.svc.cluster.local A
         db.default.svc.cluster.local AAAA
         db-0.db.default.svc.cluster.local A
         db-0.db.default.svc.cluster.local AAAA
         db-1.db.default.svc.cluster.local AAAA
         db-2.db.default.svc.cluster.local A
         10-244-0-6.db.default.svc.cluster.local A
         10-244-0-2.web.default.svc.cluster.local A
         idle.default.svc.cluster.local A
         lost.gone.default.svc.cluster.local A",
        expect![[r#"
            db.default.svc.cluster.local A
              db.default.svc.cluster.local. 5 IN A 10.244.0.3
              db.default.svc.cluster.local. 5 IN A 10.244.0.4
              db.default.svc.cluster.local. 5 IN A 10.244.0.6
            db.default.svc.cluster.local AAAA
              db.default.svc.cluster.local. 5 IN AAAA fd00::3
            db-0.db.default.svc.cluster.local A
              db-0.db.default.svc.cluster.local. 5 IN A 10.244.0.3
            db-0.db.default.svc.cluster.local AAAA
              db-0.db.default.svc.cluster.local. 5 IN AAAA fd00::3
            db-1.db.default.svc.cluster.local AAAA
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            db-2.db.default.svc.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            10-244-0-6.db.default.svc.cluster.local A
              10-244-0-6.db.default.svc.cluster.local. 5 IN A 10.244.0.6
            10-244-0-2.web.default.svc.cluster.local A
              10-244-0-2.web.default.svc.cluster.local. 5 IN A 10.244.0.2
            idle.default.svc.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            lost.gone.default.svc.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn ports_with_names_are_found() {
    check(
        "_http._tcp.web.default.svc.cluster.local SRV
         _dns._udp.web.default.svc.cluster.local SRV
         _dns._tcp.web.default.svc.cluster.local SRV
         _sql._tcp.db.default.svc.cluster.local SRV
         _sql._tcp.db.default.svc.cluster.local A
         _tcp.web.default.svc.cluster.local SRV
         _sctp.web.default.svc.cluster.local SRV",
        expect![[r#"
            _http._tcp.web.default.svc.cluster.local SRV
              _http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local.
            _dns._udp.web.default.svc.cluster.local SRV
              _dns._udp.web.default.svc.cluster.local. 5 IN SRV 0 100 53 web.default.svc.cluster.local.
            _dns._tcp.web.default.svc.cluster.local SRV
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            _sql._tcp.db.default.svc.cluster.local SRV
              _sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 100 15432 10-244-0-6.db.default.svc.cluster.local.
              _sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 100 15432 db-0.db.default.svc.cluster.local.
              _sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 100 15432 db-1.db.default.svc.cluster.local.
            _sql._tcp.db.default.svc.cluster.local A
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            _tcp.web.default.svc.cluster.local SRV
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            _sctp.web.default.svc.cluster.local SRV
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn names_that_stand_for_others() {
    check(
        "shop.other.svc.cluster.local A
         shop.other.svc.cluster.local CNAME
         near.other.svc.cluster.local AAAA",
        expect![[r#"
            shop.other.svc.cluster.local A
              shop.other.svc.cluster.local. 5 IN CNAME Shop.example.com.
              and then that
            shop.other.svc.cluster.local CNAME
              shop.other.svc.cluster.local. 5 IN CNAME Shop.example.com.
            near.other.svc.cluster.local AAAA
              near.other.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.
              and then that
        "#]],
    );
}

#[test]
fn addresses_have_names() {
    check(
        "1.0.96.10.in-addr.arpa PTR
         20.0.96.10.in-addr.arpa PTR
         0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR
         3.0.244.10.in-addr.arpa PTR
         3.0.244.10.in-addr.arpa A
         6.0.244.10.in-addr.arpa PTR
         5.0.244.10.in-addr.arpa PTR
         8.0.244.10.in-addr.arpa PTR
         0.244.10.in-addr.arpa PTR",
        expect![[r#"
            1.0.96.10.in-addr.arpa PTR
              1.0.96.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local.
            20.0.96.10.in-addr.arpa PTR
              20.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local.
            0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR
              0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR web.default.svc.cluster.local.
            3.0.244.10.in-addr.arpa PTR
              3.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.default.svc.cluster.local.
            3.0.244.10.in-addr.arpa A
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            6.0.244.10.in-addr.arpa PTR
              elsewhere
            5.0.244.10.in-addr.arpa PTR
              elsewhere
            8.0.244.10.in-addr.arpa PTR
              elsewhere
            0.244.10.in-addr.arpa PTR
              elsewhere
        "#]],
    );
}

#[test]
fn the_zone_has_a_top() {
    check(
        "cluster.local SOA
         cluster.local NS
         cluster.local A
         dns-version.cluster.local TXT
         svc.cluster.local A
         default.svc.cluster.local A
         nowhere.svc.cluster.local A
         10-244-0-9.default.pod.cluster.local A
         somewhere.default.pod.cluster.local A
         example.com A
         local A
         notcluster.local A",
        expect![[r#"
            cluster.local SOA
              cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            cluster.local NS
              cluster.local. 5 IN NS kube-dns.kube-system.svc.cluster.local.
            cluster.local A
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            dns-version.cluster.local TXT
              dns-version.cluster.local. 5 IN TXT 1.1.0
            svc.cluster.local A
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            default.svc.cluster.local A
              NoError
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            nowhere.svc.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            10-244-0-9.default.pod.cluster.local A
              10-244-0-9.default.pod.cluster.local. 5 IN A 10.244.0.9
            somewhere.default.pod.cluster.local A
              NXDomain
              by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            example.com A
              elsewhere
            local A
              elsewhere
            notcluster.local A
              elsewhere
        "#]],
    );
}

#[test]
fn before_all_is_known_nothing_is_denied() {
    let mut records = Records::default();
    list(parse(SERVICES)).for_each(|event| records.learn_service(event));
    expect![[r#"
        web.default.svc.cluster.local A
          not yet
        example.com A
          elsewhere
    "#]]
    .assert_eq(&ask(&records, "web.default.svc.cluster.local A\nexample.com A"));
}

#[test]
fn changes_are_followed() {
    let mut records = records(SERVICES, SLICES);
    let mut slice = parse::<discovery::EndpointSlice>(SLICES).swap_remove(1);
    slice.endpoints.as_mut().unwrap().retain(|endpoint| endpoint.hostname.as_deref() == Some("db-2"));
    slice.endpoints.as_mut().unwrap()[0].conditions = None;
    records.learn_slice(Event::Apply(slice));
    let mut web = parse::<v1::Service>(SERVICES).swap_remove(1);
    let spec = web.spec.as_mut().unwrap();
    (spec.cluster_ip, spec.cluster_ips) = (Some("10.96.0.21".into()), None);
    records.learn_service(Event::Apply(web));
    records.learn_service(Event::Delete(parse::<v1::Service>(SERVICES).swap_remove(0)));
    const QUESTIONS: &str = "
        db.default.svc.cluster.local A
        3.0.244.10.in-addr.arpa PTR
        5.0.244.10.in-addr.arpa PTR
        20.0.96.10.in-addr.arpa PTR
        21.0.96.10.in-addr.arpa PTR
        1.0.96.10.in-addr.arpa PTR
        kubernetes.default.svc.cluster.local A";
    expect![[r#"
        db.default.svc.cluster.local A
          db.default.svc.cluster.local. 5 IN A 10.244.0.5
        3.0.244.10.in-addr.arpa PTR
          elsewhere
        5.0.244.10.in-addr.arpa PTR
          5.0.244.10.in-addr.arpa. 5 IN PTR db-2.db.default.svc.cluster.local.
        20.0.96.10.in-addr.arpa PTR
          elsewhere
        21.0.96.10.in-addr.arpa PTR
          21.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local.
        1.0.96.10.in-addr.arpa PTR
          elsewhere
        kubernetes.default.svc.cluster.local A
          NXDomain
          by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
    "#]].assert_eq(&ask(&records, QUESTIONS));

    // A list that has less: what is not in it is gone.
    let few: Vec<v1::Service> = parse(SERVICES).into_iter().take(1).collect();
    list(few).for_each(|event| records.learn_service(event));
    list(Vec::new()).for_each(|event| records.learn_slice(event));
    expect![[r#"
        db.default.svc.cluster.local A
          NXDomain
          by cluster.local. 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
        3.0.244.10.in-addr.arpa PTR
          elsewhere
        5.0.244.10.in-addr.arpa PTR
          elsewhere
        20.0.96.10.in-addr.arpa PTR
          elsewhere
        21.0.96.10.in-addr.arpa PTR
          elsewhere
        1.0.96.10.in-addr.arpa PTR
          1.0.96.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local.
        kubernetes.default.svc.cluster.local A
          kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1
    "#]].assert_eq(&ask(&records, QUESTIONS));
    assert_eq!(format!("{records:?}").matches("10.244").count(), 0, "nothing is left behind");
}
