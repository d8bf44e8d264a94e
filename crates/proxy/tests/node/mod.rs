//! A node with pods, made of network namespaces without a way out. They are held by file descriptors only, so that nothing is
//! left behind however a test ends.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "these are tests, in functions of their own")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    thread,
    time::Duration,
};

use futures::TryStreamExt;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use proxy::{Options, Proxy};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::route::RouteScope,
};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace.
#[derive(Clone)]
pub struct Space(pub Arc<File>);

impl Space {
    /// `None` where this user may not make one.
    pub fn new() -> Option<Space> {
        let made = thread::spawn(|| -> io::Result<File> {
            #[expect(unsafe_code, reason = "only this thread, which ends here, leaves its namespace")]
            unsafe {
                rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)?;
            }
            File::open("/proc/thread-self/ns/net")
        });
        match made.join().expect("the thread that makes a namespace") {
            Ok(file) => Some(Space(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => panic!("network namespace: {error}"),
        }
    }

    /// Runs `work` inside; what it opens stays inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The same in the background.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let space = self.clone();
        thread::spawn(move || {
            space.enter();
            work()
        })
    }

    fn enter(&self) {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(self.0.as_fd(), kind).expect("enter a network namespace");
    }

    fn netlink<T: Send>(&self, work: impl AsyncFnOnce(Handle) -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = new_connection().unwrap();
                tokio::spawn(connection);
                work(handle).await
            })
        })
    }
}

/// How pods are attached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Layout {
    /// A /32 and everything by way of the node: what kapstan's own nodes do.
    Routed,
    /// The same with `br_netfilter` looking into the bridge.
    RoutedWithBridgeFilter,
    /// An on-link subnet, which needs `br_netfilter`.
    OnLinkWithBridgeFilter,
}

/// A node's namespace with a bridge.
pub struct Node {
    pub space: Space,
    layout: Layout,
}

/// Says that a test does not run here, also when what tests print is not shown: `cargo xtask test` counts these lines.
fn skipped(why: &str) {
    std::io::Write::write_all(&mut std::io::stdout(), format!("\nskipped: {why}\n").as_bytes()).unwrap();
}

impl Node {
    /// `None` where namespaces are not allowed: the test says that it is skipped.
    pub fn new(layout: Layout) -> Option<Node> {
        let Some(space) = Space::new() else {
            skipped("making network namespaces needs root (or a user namespace)");
            return None;
        };
        let bridge_filter = space.run(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            let wanted = if layout == Layout::Routed { "0" } else { "1" };
            fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", wanted).is_ok()
        });
        if !bridge_filter && layout != Layout::Routed {
            skipped("br_netfilter is not there");
            return None;
        }
        space.netlink(async |links: Handle| {
            up(&links, "lo").await;
            links.link().add(LinkBridge::new("bridge").build()).execute().await.unwrap();
            let bridge = index(&links, "bridge").await;
            links.address().add(bridge, GATEWAY.into(), 24).execute().await.unwrap();
            up(&links, "bridge").await;
        });
        Some(Node { space, layout })
    }

    /// A pod at 10.244.0.`number`.
    pub fn pod(&self, number: u8) -> Pod {
        let space = Space::new().expect("one was made before");
        let address = Ipv4Addr::new(10, 244, 0, number);
        let port = format!("pod{number}");
        let target = space.0.as_raw_fd();
        let port_name = port.clone();
        self.space.netlink(async move |links: Handle| {
            links.link().add(LinkVeth::new(&port_name, "eth0").build()).execute().await.unwrap();
            let peer = index(&links, "eth0").await;
            links.link().set(LinkUnspec::new_with_index(peer).setns_by_fd(target).build()).execute().await.unwrap();
            let (port, bridge) = (index(&links, &port_name).await, index(&links, "bridge").await);
            links.link().set(LinkUnspec::new_with_index(port).controller(bridge).up().build()).execute().await.unwrap();
            links.link().set_port(LinkBridgePort::new(port).hairpin(true).build()).execute().await.unwrap();
        });
        let routed = self.layout != Layout::OnLinkWithBridgeFilter;
        space.netlink(async move |links: Handle| {
            up(&links, "lo").await;
            let device = index(&links, "eth0").await;
            let prefix = if routed { 32 } else { 24 };
            links.address().add(device, address.into(), prefix).execute().await.unwrap();
            up(&links, "eth0").await;
            if routed {
                let gateway = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(GATEWAY, 32);
                let gateway = gateway.output_interface(device).scope(RouteScope::Link).build();
                links.route().add(gateway).execute().await.unwrap();
            }
            links.route().add(RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).build()).execute().await.unwrap();
        });
        Pod { space, address }
    }

    /// A machine beside the node, at 192.0.2.2; the node is 192.0.2.1 there. It knows no way to pods.
    pub fn neighbour(&self) -> Pod {
        let space = Space::new().expect("one was made before");
        let target = space.0.as_raw_fd();
        self.space.netlink(async move |links: Handle| {
            links.link().add(LinkVeth::new("outside", "eth0").build()).execute().await.unwrap();
            let peer = index(&links, "eth0").await;
            links.link().set(LinkUnspec::new_with_index(peer).setns_by_fd(target).build()).execute().await.unwrap();
            let here = index(&links, "outside").await;
            links.address().add(here, Ipv4Addr::new(192, 0, 2, 1).into(), 24).execute().await.unwrap();
            up(&links, "outside").await;
        });
        let address = Ipv4Addr::new(192, 0, 2, 2);
        space.netlink(async move |links: Handle| {
            let device = index(&links, "eth0").await;
            links.address().add(device, address.into(), 24).execute().await.unwrap();
            up(&links, "eth0").await;
        });
        Pod { space, address }
    }

    pub fn proxy(&self) -> Proxy {
        let options = Options {
            node_name: "here".into(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            answered_here: BTreeMap::new(),
        };
        self.space.run(|| Proxy::open(options)).expect("open the proxy")
    }
}

async fn index(links: &Handle, name: &str) -> u32 {
    links.link().get().match_name(name.to_owned()).execute().try_next().await.unwrap().unwrap().header.index
}

async fn up(links: &Handle, name: &str) {
    let index = index(links, name).await;
    links.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}

/// A pod's namespace.
#[derive(Clone)]
pub struct Pod {
    pub space: Space,
    pub address: Ipv4Addr,
}

impl Pod {
    /// A server that greets with `name`, then echoes. It says who the client is to `?`.
    pub fn serve(&self, port: u16, name: u8) -> Server {
        let address = SocketAddrV4::new(self.address, port);
        let listener = self.space.run(|| TcpListener::bind(address)).unwrap();
        Server::start(self.space.clone(), listener, address, name)
    }
}

/// A TCP server in a pod.
pub struct Server {
    pub address: SocketAddrV4,
    space: Space,
    listener: Option<TcpListener>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(space: Space, listener: TcpListener, address: SocketAddrV4, name: u8) -> Server {
        let accept_from = listener.try_clone().unwrap();
        let accepting = thread::spawn(move || {
            while let Ok((connection, _)) = accept_from.accept() {
                connection.set_nonblocking(false).unwrap();
                thread::spawn(move || converse(connection, name));
            }
        });
        Server { address, space, listener: Some(listener), accepting: Some(accepting) }
    }

    /// Stops as a server does on SIGTERM: takes what has already come, then listens no more; connections go on.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        // A blocked accept needs one more connection to see that it shall not block any more.
        listener.set_nonblocking(true).unwrap();
        let _ = self.space.run(|| TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn converse(mut connection: TcpStream, name: u8) {
    let _ = connection.write_all(&[name]);
    let mut byte = [0];
    while matches!(connection.read(&mut byte), Ok(1)) {
        if connection.write_all(&byte).is_err() {
            break;
        }
    }
    let _ = connection.shutdown(Shutdown::Both);
}

/// Connects from the calling thread's namespace; returns the connection and the server's name.
pub fn call(to: SocketAddrV4) -> io::Result<(TcpStream, u8)> {
    let mut connection = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut name = [0];
    connection.read_exact(&mut name)?;
    Ok((connection, name[0]))
}

/// One question and answer.
pub fn echo(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"x")?;
    connection.read_exact(&mut [0])
}

pub fn service(name: &str, address: [u8; 4], protocol: &str, port: u16) -> Service {
    let address = Ipv4Addr::from(address).to_string();
    Service {
        metadata: ObjectMeta { name: Some(name.into()), namespace: Some("default".into()), ..ObjectMeta::default() },
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.clone()),
            cluster_ips: Some(vec![address]),
            ports: Some(vec![ServicePort {
                port: port.into(),
                protocol: Some(protocol.into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Slices of a service: one for each port that backends use.
pub fn slices(service: &str, protocol: &str, backends: &[SocketAddrV4]) -> Vec<EndpointSlice> {
    let slice = |backend: &SocketAddrV4| EndpointSlice {
        address_type: "IPv4".into(),
        metadata: ObjectMeta {
            name: Some(format!("{service}-{backend}")),
            namespace: Some("default".into()),
            labels: Some([("kubernetes.io/service-name".to_owned(), service.to_owned())].into()),
            ..ObjectMeta::default()
        },
        ports: Some(vec![EndpointPort {
            port: Some(backend.port().into()),
            protocol: Some(protocol.into()),
            ..EndpointPort::default()
        }]),
        endpoints: Some(vec![Endpoint {
            addresses: vec![backend.ip().to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            ..Endpoint::default()
        }]),
    };
    backends.iter().map(slice).collect()
}

/// Puts these services in force.
pub fn apply(proxy: &mut Proxy, services: &[Service], slices: &[EndpointSlice]) -> proxy::Applied {
    let services: Vec<&Service> = services.iter().collect();
    let slices: Vec<&EndpointSlice> = slices.iter().collect();
    proxy.apply(&services, &slices).expect("apply")
}
