//! `create service`. Mirrors kubectl `create_service.go`.

use serde_json::{Value, json};

use super::{Making, make, metadata};
use crate::errors::{Error, Result};
use crate::session::Session;

/// Create a service.
#[derive(clap::Args)]
pub struct ServiceOptions {
    #[command(subcommand)]
    what: Service,
}

#[derive(clap::Subcommand)]
enum Service {
    /// Reached inside the cluster.
    Clusterip {
        /// Its name.
        name: String,
        /// PORT[:TARGET]; may be repeated.
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
        /// Its address, or None for a headless service.
        #[arg(long)]
        clusterip: Option<String>,
        #[command(flatten)]
        making: Making,
    },
    /// Reached on a port of every node.
    Nodeport {
        /// Its name.
        name: String,
        /// PORT[:TARGET]; may be repeated.
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
        /// Port on the nodes.
        #[arg(long)]
        node_port: Option<u16>,
        #[command(flatten)]
        making: Making,
    },
    /// Reached through a load balancer.
    Loadbalancer {
        /// Its name.
        name: String,
        /// PORT[:TARGET]; may be repeated.
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
        #[command(flatten)]
        making: Making,
    },
    /// A name for another name.
    Externalname {
        /// Its name.
        name: String,
        /// The other name.
        #[arg(long, required = true)]
        external_name: String,
        /// PORT[:TARGET]; may be repeated.
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
        #[command(flatten)]
        making: Making,
    },
}

fn ports(tcp: &[String]) -> Result<Vec<Value>> {
    let invalid =
        |text: &str| Error::told(format!("invalid port format '{text}', expected 'port' or 'port:targetPort'"));
    tcp.iter()
        .map(|text| {
            let (port, target) = text.split_once(':').unwrap_or((text, text));
            let number: u16 = port.parse().map_err(|_| invalid(text))?;
            let target_port = target.parse::<u16>().map_or_else(|_| Value::from(target), Value::from);
            let name = if text.contains(':') { format!("{port}-{target}") } else { port.to_owned() };
            Ok(json!({"name": name, "port": number, "protocol": "TCP", "targetPort": target_port}))
        })
        .collect()
}

fn object(name: &str, service_type: &str, tcp: &[String]) -> Result<Value> {
    let mut meta = metadata(name);
    meta["labels"] = json!({"app": name});
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"app": name}, "type": service_type},
        "status": {"loadBalancer": {}},
    });
    let ports = ports(tcp)?;
    if !ports.is_empty() {
        object["spec"]["ports"] = ports.into();
    }
    Ok(object)
}

pub(super) async fn service(session: &mut Session, options: ServiceOptions) -> Result<()> {
    let needs_ports = || Error::told("at least one tcp port specifier must be provided");
    match options.what {
        Service::Clusterip { name, tcp, clusterip, making } => {
            if tcp.is_empty() && clusterip.as_deref() != Some("None") {
                return Err(needs_ports());
            }
            let mut object = object(&name, "ClusterIP", &tcp)?;
            if let Some(address) = clusterip {
                object["spec"]["clusterIP"] = address.into();
            }
            make(session, &making, object, true).await
        }
        Service::Nodeport { name, tcp, node_port, making } => {
            if tcp.is_empty() {
                return Err(needs_ports());
            }
            let mut object = object(&name, "NodePort", &tcp)?;
            if let Some(port) = node_port {
                object["spec"]["ports"][0]["nodePort"] = port.into();
            }
            make(session, &making, object, true).await
        }
        Service::Loadbalancer { name, tcp, making } => {
            if tcp.is_empty() {
                return Err(needs_ports());
            }
            make(session, &making, object(&name, "LoadBalancer", &tcp)?, true).await
        }
        Service::Externalname { name, external_name, tcp, making } => {
            let mut object = object(&name, "ExternalName", &tcp)?;
            object["spec"]["externalName"] = external_name.into();
            make(session, &making, object, true).await
        }
    }
}
