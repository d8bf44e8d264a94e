use std::net::Ipv4Addr;

use hickory_proto::rr::{RData, rdata::A};
use kube::runtime::watcher::Event;

use super::*;
use crate::elsewhere::{by_datagram, by_stream};

const SERVICES: [&str; 3] = [
    "{metadata: {name: web, namespace: ns}, spec: {clusterIP: 10.96.0.20}}",
    "{metadata: {name: shop, namespace: ns}, spec: {type: ExternalName, externalName: shop.example.com}}",
    "{metadata: {name: near, namespace: ns}, spec: {type: ExternalName, externalName: web.ns.svc.cluster.local}}",
];

/// A name server that knows `SERVICES` and asks these others; where it answers over UDP and over TCP.
async fn start(others: Vec<SocketAddr>) -> [SocketAddr; 2] {
    let mut records = Records::default();
    records.learn_service(Event::Init);
    for service in SERVICES {
        records.learn_service(Event::InitApply(serde_yaml::from_str(service).unwrap()));
    }
    records.learn_service(Event::InitDone);
    records.learn_slice(Event::Init);
    records.learn_slice(Event::InitDone);
    let server = Server::bind(Ipv4Addr::LOCALHOST.into()).await.unwrap();
    let addresses = [server.udp_address().unwrap(), server.tcp_address().unwrap()];
    tokio::spawn(server.run(Knowledge {
        zone: Zone::new("cluster.local").unwrap(),
        records: Arc::new(RwLock::new(records)),
        name_servers: Box::new(move || others.clone()),
    }));
    addresses
}

/// Another name server: has `count` addresses for every name.
async fn other(count: u8) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // The same port of the other protocol may be somebody's.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let answer = move |bytes: &[u8], over: Over| {
        let request = read(bytes).unwrap();
        let record = |n| Record::from_rdata(request.question.name().clone(), 60, RData::A(A::new(192, 0, 2, n)));
        let reply =
            Reply { code: ResponseCode::NoError, answers: (0..count).map(record).collect(), authorities: Vec::new() };
        request.answer(reply, limit(&request, over)).unwrap()
    };
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            udp.send_to(&answer(&buffer[..length], Over::Udp), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let message = read_message(&mut stream).await.unwrap().unwrap();
            write_message(&mut stream, &answer(&message, Over::Tcp)).await.unwrap();
        }
    });
    address
}

/// What is answered, in words: code, whether it was cut off, number of records, and the first and the last.
async fn said(server: SocketAddr, name: &str, over: Over) -> String {
    let mut question = Message::query();
    question.queries.push(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let question = question.to_vec().unwrap();
    let answer = match over {
        Over::Tcp => by_stream(server, &question).await.unwrap(),
        _ => by_datagram(server, &question).await.unwrap(),
    };
    let answer = Message::from_vec(&answer).unwrap();
    let cut = if answer.metadata.truncation { " cut" } else { "" };
    let mut text = format!("{:?}{cut} {}", answer.metadata.response_code, answer.answers.len());
    for record in answer.answers.first().into_iter().chain(answer.answers.last()) {
        text += &format!(", {} {}", record.name, record.data);
    }
    text
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_here() {
    let [udp, tcp] = start(Vec::new()).await;
    let web = "NoError 1, web.ns.svc.cluster.local. 10.96.0.20, web.ns.svc.cluster.local. 10.96.0.20";
    assert_eq!(said(udp, "web.ns.svc.cluster.local.", Over::Udp).await, web);
    assert_eq!(said(tcp, "web.ns.svc.cluster.local.", Over::Tcp).await, web);
    assert_eq!(said(udp, "no.ns.svc.cluster.local.", Over::Udp).await, "NXDomain 0");
    assert_eq!(
        said(udp, "near.ns.svc.cluster.local.", Over::Udp).await,
        "NoError 2, near.ns.svc.cluster.local. web.ns.svc.cluster.local., web.ns.svc.cluster.local. 10.96.0.20"
    );
}

#[tokio::test]
async fn other_names_are_asked_elsewhere() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let [udp, tcp] = start(vec![silent.local_addr().unwrap(), other(100).await]).await;
    let all = "NoError 100, example.com. 192.0.2.0, example.com. 192.0.2.99";
    let (by_udp, by_tcp, aliased) = tokio::join!(
        said(udp, "example.com.", Over::Udp),
        said(tcp, "example.com.", Over::Tcp),
        said(tcp, "shop.ns.svc.cluster.local.", Over::Tcp),
    );
    assert!(by_udp.starts_with("NoError cut "), "{by_udp}");
    assert_eq!(by_tcp, all);
    assert_eq!(aliased, "NoError 101, shop.ns.svc.cluster.local. shop.example.com., shop.example.com. 192.0.2.99");
}

#[tokio::test]
async fn without_an_answer_from_elsewhere_there_is_a_failure() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let [udp, tcp] = start(vec![gone]).await;
    assert_eq!(said(udp, "example.com.", Over::Udp).await, "ServFail 0");
    assert_eq!(said(tcp, "shop.ns.svc.cluster.local.", Over::Tcp).await, "ServFail 0");
}
