//! Whether this node has pods of a Service: what balancers outside the cluster ask before they send the node anything.
//!
//! A Service of type LoadBalancer whose traffic stays on the node (`externalTrafficPolicy: Local`) has a port for that,
//! `healthCheckNodePort`. Mirrors kube-proxy's `pkg/proxy/healthcheck/service_health.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use crate::rules::{State, name_of, service_of, state};

/// Requests of one port that are answered at a time.
const REQUESTS: usize = 64;
/// Bytes of a request that are read.
const REQUEST_BYTES: usize = 8 * 1024;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a port that another program has is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What the node says of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Pods on this node that take new connections.
    pub local_endpoints: usize,
}

/// What the node `node_name` says, by port. Pods that come to their end do not count: balancers are to look elsewhere in time.
pub fn health(services: &[&Service], slices: &[&EndpointSlice], node_name: &str) -> BTreeMap<u16, Health> {
    let asked = services.iter().filter_map(|service| Some((port(service)?, name_of(service))));
    asked
        .map(|(port, (namespace, name))| {
            let own = slices.iter().filter(|slice| service_of(slice) == Some((namespace, name)));
            let endpoints = own.flat_map(|slice| slice.endpoints.iter().flatten());
            let here = endpoints.filter(|endpoint| endpoint.node_name.as_deref() == Some(node_name));
            let ready = here.filter(|endpoint| matches!(state(endpoint), State::Ready));
            let addresses: BTreeSet<&String> = ready.filter_map(|endpoint| endpoint.addresses.first()).collect();
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            (port, Health { namespace, name, local_endpoints: addresses.len() })
        })
        .collect()
}

fn port(service: &Service) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    let asked =
        spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
    u16::try_from(spec.health_check_node_port?).ok().filter(|port| asked && *port != 0)
}

/// The answer to any request.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { namespace, name, local_endpoints } = self;
        // Names have no letters that JSON would write otherwise.
        let body = format!(
            "{{\"service\":{{\"namespace\":\"{namespace}\",\"name\":\"{name}\"}},\
             \"localEndpoints\":{local_endpoints},\"serviceProxyHealthy\":true}}"
        );
        let status = if *local_endpoints > 0 { "200 OK" } else { "503 Service Unavailable" };
        write!(f, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n")?;
        write!(f, "X-Load-Balancing-Endpoint-Weight: {local_endpoints}\r\n")?;
        write!(f, "Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }
}

/// The ports at which the node answers. A port is closed when nobody speaks for it any more.
#[derive(Default)]
pub(crate) struct Ports {
    open: BTreeMap<u16, watch::Sender<Health>>,
}

impl Ports {
    /// Answers so from now on, and at no other port.
    pub(crate) fn answer(&mut self, wanted: BTreeMap<u16, Health>) {
        self.open.retain(|port, _| wanted.contains_key(port));
        for (port, health) in wanted {
            if let Some(open) = self.open.get(&port) {
                open.send_replace(health);
                continue;
            }
            let (speaker, told) = watch::channel(health);
            self.open.insert(port, speaker);
            tokio::spawn(serve(port, told));
        }
    }
}

/// Serves a port until nobody speaks for it.
async fn serve(port: u16, mut told: watch::Receiver<Health>) {
    let open = async {
        loop {
            match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
                Ok(listener) => return listener,
                Err(error) => tracing::warn!(port, %error, again_in = ?RETRY, "cannot listen for health checks"),
            }
            sleep(RETRY).await;
        }
    };
    let answers = told.clone();
    tokio::select! {
        () = async { answer(open.await, answers).await } => {}
        () = async { while told.changed().await.is_ok() {} } => {}
    }
}

async fn answer(listener: TcpListener, told: watch::Receiver<Health>) {
    let room = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PATIENCE).await;
            continue;
        };
        let answer = told.borrow().to_string();
        tokio::spawn(async move {
            // A client that does not take its answer has none.
            let _ = timeout(PATIENCE, answer_one(stream, &answer)).await;
            drop(permit);
        });
    }
}

/// Reads the head of a request, whatever it asks, and answers.
async fn answer_one(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < REQUEST_BYTES {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn pods_on_the_node_that_take_connections_are_counted() {
        let service = |name: &str, more: &str| -> Service {
            let text = format!("{{metadata: {{name: {name}, namespace: d}}, spec: {{type: LoadBalancer, {more}}}}}");
            serde_yaml::from_str(&text).unwrap()
        };
        let services = [
            service("web", "externalTrafficPolicy: Local, healthCheckNodePort: 30100"),
            service("none", "externalTrafficPolicy: Local, healthCheckNodePort: 30101"),
            service("everywhere", "externalTrafficPolicy: Cluster"),
        ];
        let slice: EndpointSlice = serde_yaml::from_str(
            "
metadata: {name: web-1, namespace: d, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.244.0.2], nodeName: here}
- {addresses: [10.244.0.2], nodeName: here}
- {addresses: [10.244.0.3], nodeName: here, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.244.1.2], nodeName: there}
",
        )
        .unwrap();
        let all: Vec<&Service> = services.iter().collect();
        let told = health(&all, &[&slice], "here");
        let table: String = told.iter().map(|(port, health)| format!("{port}\n{health}\n").replace('\r', "")).collect();
        expect![[r#"
            30100
            HTTP/1.1 200 OK
            Content-Type: application/json
            X-Content-Type-Options: nosniff
            X-Load-Balancing-Endpoint-Weight: 1
            Content-Length: 88
            Connection: close

            {"service":{"namespace":"d","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}
            30101
            HTTP/1.1 503 Service Unavailable
            Content-Type: application/json
            X-Content-Type-Options: nosniff
            X-Load-Balancing-Endpoint-Weight: 0
            Content-Length: 89
            Connection: close

            {"service":{"namespace":"d","name":"none"},"localEndpoints":0,"serviceProxyHealthy":true}
        "#]]
        .assert_eq(&table);
    }

    #[tokio::test]
    async fn a_request_is_answered_as_things_are_now() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = |local_endpoints| Health { namespace: "d".into(), name: "web".into(), local_endpoints };
        let (speaker, told) = watch::channel(health(1));
        tokio::spawn(answer(listener, told));
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: n\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text.lines().next().unwrap().to_owned()
        };
        assert_eq!(ask().await, "HTTP/1.1 200 OK");
        speaker.send_replace(health(0));
        assert_eq!(ask().await, "HTTP/1.1 503 Service Unavailable");
    }
}
