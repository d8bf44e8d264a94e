//! `expose`: a service for what runs. Mirrors kubectl `pkg/cmd/expose/expose.go`.

use serde_json::{Value, json};

use crate::change::{Overrides, Record};
use crate::errors::{Error, Result};
use crate::json::{Json, scalar};
use crate::objects::{self, Ask, Files};
use crate::session::Session;
use crate::verbs::create::{self, Making};

/// Make a service for a deployment, replica set, replication controller, service or pod.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    record: Record,
    #[command(flatten)]
    overrides: Overrides,
    /// Port of the service; without it, the ports of the containers.
    #[arg(long)]
    port: Option<String>,
    /// Port of the pods: a number or a name.
    #[arg(long)]
    target_port: Option<String>,
    /// Name of the service; without it, that of the object.
    #[arg(long)]
    name: Option<String>,
    /// TCP, UDP or SCTP.
    #[arg(long)]
    protocol: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    #[arg(long = "type")]
    service_type: Option<String>,
    /// Labels of the pods; without it, the object's selector.
    #[arg(long)]
    selector: Option<String>,
    /// Labels of the service.
    #[arg(long, short = 'l')]
    labels: Option<String>,
    /// Address of the service, or None.
    #[arg(long)]
    cluster_ip: Option<String>,
    /// A further address.
    #[arg(long)]
    external_ip: Option<String>,
    /// Name of an ExternalName service.
    #[arg(long)]
    external_name: Option<String>,
    /// None or ClientIP.
    #[arg(long)]
    session_affinity: Option<String>,
    /// Address of a load balancer.
    #[arg(long)]
    load_balancer_ip: Option<String>,
}

/// Makes the service.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let ask = Ask { words: options.words.clone(), files: options.files.clone(), live: true, ..Ask::default() };
    let found = objects::find_all(session, &ask).await?;
    if found.is_empty() {
        return Err(Error::told("You must provide one or more resources by argument or filename."));
    }
    for item in found {
        let object = service(session, &options, &item.object)?;
        create::make_exposed(session, &options.making, object).await?;
    }
    Ok(())
}

fn service(session: &Session, options: &Options, object: &Value) -> Result<Value> {
    let selector = match &options.selector {
        Some(text) => labels(text)?,
        None => selector_of(object)?,
    };
    let name = options.name.clone().unwrap_or_else(|| object.text("metadata.name").to_owned());
    let mut meta = json!({"creationTimestamp": null, "name": name});
    let own = match &options.labels {
        Some(text) => labels(text)?,
        None => object.at("metadata.labels").clone(),
    };
    if own.as_object().is_some_and(|labels| !labels.is_empty()) {
        meta["labels"] = own;
    }
    let ports = ports(options, object)?;
    let mut spec = json!({"selector": selector});
    if !ports.is_empty() {
        spec["ports"] = ports.into();
    }
    let fields = [
        ("type", &options.service_type),
        ("clusterIP", &options.cluster_ip),
        ("externalName", &options.external_name),
        ("sessionAffinity", &options.session_affinity),
        ("loadBalancerIP", &options.load_balancer_ip),
    ];
    for (field, value) in fields {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            spec[field] = value.clone().into();
        }
    }
    if let Some(address) = &options.external_ip {
        spec["externalIPs"] = json!([address]);
    }
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec, "status": {"loadBalancer": {}},
    });
    options.record.annotate(session, &mut service);
    options.overrides.apply(service)
}

fn labels(text: &str) -> Result<Value> {
    let mut labels = json!({});
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| Error::told(format!("unexpected label spec: {part}")))?;
        labels[key] = value.into();
    }
    Ok(labels)
}

fn selector_of(object: &Value) -> Result<Value> {
    let kind = object.text("kind");
    match kind {
        "Deployment" | "ReplicaSet" => {
            if !object.list("spec.selector.matchExpressions").is_empty() {
                return Err(Error::told("couldn't convert expressions - \"...\" to map-based selector format"));
            }
            Ok(object.at("spec.selector.matchLabels").clone())
        }
        "ReplicationController" | "Service" => match object.map("spec.selector").is_empty() {
            true => Err(Error::told(format!("the {} has no pod selector set", kind.to_lowercase()))),
            false => Ok(object.at("spec.selector").clone()),
        },
        "Pod" => match object.map("metadata.labels").is_empty() {
            true => Err(Error::told("the pod has no labels and cannot be exposed")),
            false => Ok(object.at("metadata.labels").clone()),
        },
        _ => {
            let group = object.text("apiVersion").split_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            Err(Error::told(format!("cannot expose a {kind}{dot}{group}")))
        }
    }
}

fn ports(options: &Options, object: &Value) -> Result<Vec<Value>> {
    let declared: Vec<&Value> = match object.text("kind") {
        "Service" => object.list("spec.ports").iter().collect(),
        "Pod" => object.list("spec.containers").iter().flat_map(|container| container.list("ports")).collect(),
        _ => {
            object.list("spec.template.spec.containers").iter().flat_map(|container| container.list("ports")).collect()
        }
    };
    let number = |port: &Value| scalar(if port.has("port") { port.at("port") } else { port.at("containerPort") });
    let wanted: Vec<String> = match &options.port {
        Some(text) => text.split(',').map(str::to_owned).collect(),
        None => declared.iter().map(|port| number(port)).collect(),
    };
    let headless =
        options.cluster_ip.as_deref() == Some("None") || options.service_type.as_deref() == Some("ExternalName");
    if wanted.is_empty() && !headless {
        return Err(Error::told("couldn't find port via --port flag or introspection"));
    }
    let many = wanted.len() > 1;
    wanted
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let port: u16 =
                text.parse().map_err(|_| Error::told(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))?;
            let from_object = declared.iter().find(|known| number(known) == *text).map(|known| known.text("protocol"));
            let protocol =
                options.protocol.as_deref().or(from_object.filter(|protocol| !protocol.is_empty())).unwrap_or("TCP");
            let target = match &options.target_port {
                Some(target) => target.parse::<u16>().map_or_else(|_| Value::from(target.as_str()), Value::from),
                None => port.into(),
            };
            let mut made = json!({"port": port, "protocol": protocol, "targetPort": target});
            if many {
                made["name"] = format!("port-{}", index + 1).into();
            }
            Ok(made)
        })
        .collect()
}
