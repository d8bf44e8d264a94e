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
        #[arg(long, allow_negative_numbers = true)]
        node_port: Option<i32>,
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

/// Mirrors kubectl `create_service.go: parsePorts`, its words and Go's.
fn ports(tcp: &[String]) -> Result<Vec<Value>> {
    tcp.iter()
        .map(|text| {
            let mut parts = text.split(':');
            let port = parts.next().unwrap_or_default();
            let number = port_number(port)?;
            let target = match parts.next() {
                None => Value::from(number),
                Some(target) => target_port(target)?,
            };
            Ok(json!({"name": text.replace(':', "-"), "port": number, "protocol": "TCP", "targetPort": target}))
        })
        .collect()
}

fn port_number(text: &str) -> Result<u16> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Error::told(format!("strconv.ParseUint: parsing {text:?}: {why}"))
    })
}

fn target_port(text: &str) -> Result<Value> {
    let wrong = match text.parse::<i32>() {
        Ok(number) => api::names::port_number(number),
        Err(_) => api::names::port_name(text),
    };
    match wrong.is_empty() {
        true => Ok(text.parse::<i32>().map_or_else(|_| text.into(), Value::from)),
        false => Err(Error::told(wrong.join(","))),
    }
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

pub(super) async fn service(session: &mut Session, mut options: ServiceOptions) -> Result<()> {
    let (Service::Clusterip { tcp, .. }
    | Service::Nodeport { tcp, .. }
    | Service::Loadbalancer { tcp, .. }
    | Service::Externalname { tcp, .. }) = &mut options.what;
    tcp.retain(|text| !text.is_empty());
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
            if let (Some(port), Some(ports)) =
                (node_port.filter(|port| *port != 0), object["spec"]["ports"].as_array_mut())
            {
                ports.iter_mut().for_each(|one| one["nodePort"] = port.into());
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
