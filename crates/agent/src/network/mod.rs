//! Pod networking of one node: a bridge, and for each pod an address and a pair of linked interfaces.
//!
//! A pod gets one address with a `/32` mask and sends everything through the bridge's address: even two pods of one node
//! talk by routing, not by switching. So every packet of a Service passes the node's connection tracking both ways, and
//! translation needs no `br_netfilter` module. Everything goes through netlink, no program is run. Never does it write
//! packet rules (that is the proxy's), reach other nodes, or touch links that it did not make.

mod addresses;

pub use addresses::{Addresses, Cidr};

use crate::runtime::RuntimeError;
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoVeth},
    packet_route::route::RouteScope,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
};

/// In a fresh namespace the loopback interface is the first, and the pod's is made as the second.
const LOOPBACK: u32 = 1;
const POD_INTERFACE: u32 = 2;
/// Name of a pod's interface, inside.
const POD_INTERFACE_NAME: &str = "eth0";
/// The kernel cuts off longer names of interfaces.
const INTERFACE_NAME_MAX: usize = 15;

/// The node's end of its pods' network.
pub struct Network {
    handle: Handle,
    bridge: u32,
    gateway: Ipv4Addr,
    driver: tokio::task::JoinHandle<()>,
}

impl Network {
    /// Makes the bridge, or takes over one that is there, and lets the node forward packets.
    pub async fn open(bridge: &str, cidr: Cidr) -> Result<Network, RuntimeError> {
        let failed = |what: &str, e: &dyn std::fmt::Display| RuntimeError::Sandbox(format!("pod network: {what}: {e}"));
        if bridge.len() > INTERFACE_NAME_MAX {
            return Err(RuntimeError::Sandbox(format!("{bridge:?} is too long for the name of an interface")));
        }
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| failed("netlink", &e))?;
        let driver = tokio::spawn(connection);
        let gateway = cidr.gateway();
        if link_index(&handle, bridge).await.is_none() {
            handle.link().add(LinkBridge::new(bridge).build()).execute().await.map_err(|e| {
                failed(
                    &format!(
                        "cannot make the bridge {bridge} (a node with real containers needs root, or `--no-agent`)"
                    ),
                    &e,
                )
            })?;
        }
        let index = link_index(&handle, bridge).await.ok_or_else(|| failed(bridge, &"the bridge vanished"))?;
        match handle.address().add(index, gateway.into(), cidr.prefix()).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EEXIST => {}
            other => other.map_err(|e| failed("cannot give the bridge its address", &e))?,
        }
        handle
            .link()
            .set(LinkUnspec::new_with_index(index).address(hardware_address(gateway)).up().build())
            .execute()
            .await
            .map_err(|e| failed("cannot start the bridge", &e))?;
        forward(bridge).map_err(|e| failed("cannot let the node forward packets", &e))?;
        Ok(Network { handle, bridge: index, gateway, driver })
    }

    /// Links the network namespace of process `pid` to the bridge and gives it `address`.
    pub async fn attach(&self, pod_uid: &str, pid: i32, address: Ipv4Addr) -> Result<(), RuntimeError> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            RuntimeError::Sandbox(format!("network of pod {pod_uid}: {what}: {e}"))
        };
        let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(|e| failed("its namespace is gone", &e))?;
        self.detach(pod_uid).await; // what an earlier sandbox of the pod left
        let peer = LinkUnspec::new_with_index(POD_INTERFACE)
            .name(POD_INTERFACE_NAME)
            .address(hardware_address(address))
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkVeth::new(&interface_of(pod_uid), POD_INTERFACE_NAME)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(self.bridge)
            .up()
            .build();
        self.handle.link().add(pair).execute().await.map_err(|e| failed("cannot link it to the bridge", &e))?;
        let index = link_index(&self.handle, &interface_of(pod_uid)).await;
        let index = index.ok_or_else(|| failed("cannot link it to the bridge", &"its interface vanished"))?;
        // A pod that reaches itself by way of a service goes out where it came in, where the bridge filters (`br_netfilter`).
        let port = LinkBridgePort::new(index).hairpin(true).build();
        self.handle.link().set_port(port).execute().await.map_err(|e| failed("cannot set up its port", &e))?;
        let gateway = self.gateway;
        inside(namespace, async move |handle| configure(handle, address, gateway).await)
            .await
            .map_err(|e| failed("cannot configure its interface", &e))
    }

    /// Takes the pod's interface away; the namespace's end goes with it. Missing is fine.
    pub async fn detach(&self, pod_uid: &str) {
        let Some(index) = link_index(&self.handle, &interface_of(pod_uid)).await else { return };
        match self.handle.link().del(index).execute().await {
            // Its namespace went meanwhile, and took it along.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {}
            Err(error) => tracing::warn!(pod_uid, %error, "the pod's interface stays"),
            Ok(()) => {}
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The hardware address that goes with an address, always the same. A bridge that was given none borrows the lowest one
/// of its pods' interfaces: it would change as pods come and go, and what pods send to the old one until they have asked
/// again is lost. Likewise for what the node sends to a pod that has another's former address.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58], address.octets().as_slice()].concat()
}

/// The pod's interface as the node sees it.
fn interface_of(pod_uid: &str) -> String {
    let digest = hex::encode(Sha256::digest(pod_uid));
    format!("veth{}", &digest[..INTERFACE_NAME_MAX - 4])
}

async fn link_index(handle: &Handle, name: &str) -> Option<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.ok().flatten().map(|link| link.header.index)
}

async fn configure(handle: Handle, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute().await?;
    handle.address().add(POD_INTERFACE, address.into(), 32).execute().await?;
    handle.link().set(LinkUnspec::new_with_index(POD_INTERFACE).up().build()).execute().await?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(POD_INTERFACE)
        .scope(RouteScope::Link);
    handle.route().add(to_gateway.build()).execute().await?;
    let to_all =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(POD_INTERFACE).pref_source(address);
    handle.route().add(to_all.build()).execute().await
}

/// Runs netlink work in another network namespace: a thread enters it and ends with the work.
async fn inside<W, F>(namespace: File, work: W) -> Result<(), String>
where
    W: FnOnce(Handle) -> F + Send + 'static,
    F: Future<Output = Result<(), rtnetlink::Error>>,
{
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let run = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| e.to_string())?;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(|e| e.to_string())?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                work(handle).await.map_err(|e| e.to_string())
            })
        };
        let _ = done.send(run());
    });
    result.await.unwrap_or_else(|_| Err("the thread that works there panicked".into()))
}

/// Pods reach each other through the node: it forwards, and does not tell them of a shorter way.
fn forward(bridge: &str) -> std::io::Result<()> {
    let set = |path: String, value: &str| {
        let current = fs::read_to_string(&path).unwrap_or_default();
        if current.trim() == value {
            Ok(())
        } else {
            fs::write(&path, value).map_err(|e| std::io::Error::new(e.kind(), format!("{path}: {e}")))
        }
    };
    set("/proc/sys/net/ipv4/ip_forward".into(), "1")?;
    set("/proc/sys/net/ipv4/conf/all/send_redirects".into(), "0")?;
    set(format!("/proc/sys/net/ipv4/conf/{bridge}/send_redirects"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit() {
        assert_eq!(interface_of("3c1b2f0e-7f9e-4d4e-9a43-000000000001").len(), INTERFACE_NAME_MAX);
    }
}
