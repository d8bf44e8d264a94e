//! `top`: what nodes and pods use. Mirrors kubectl `pkg/cmd/top`.

use api::quantity::Amount;
use serde_json::Value;

use crate::errors::{Error, Result};
use crate::json::{Json, scalar};
use crate::print::tabwriter::{GET, align};
use crate::session::Session;

const MEBIBYTE: i64 = 1 << 20;

/// Show the CPU and memory that nodes and pods use.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Of nodes.
    #[command(alias = "nodes", alias = "no")]
    Node(OfNodes),
    /// Of pods.
    #[command(alias = "pods", alias = "po")]
    Pod(OfPods),
}

#[derive(clap::Args)]
struct Which {
    /// Only of this name.
    name: Option<String>,
    /// Only with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// Print no line of headers.
    #[arg(long)]
    no_headers: bool,
    /// cpu or memory.
    #[arg(long)]
    sort_by: Option<String>,
    /// How the figures travel, true or false; they are the same either way.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    use_protocol_buffers: Option<bool>,
}

#[derive(clap::Args)]
struct OfNodes {
    #[command(flatten)]
    which: Which,
    /// Percent of what the nodes have, instead of what pods may use of it.
    #[arg(long)]
    show_capacity: bool,
}

#[derive(clap::Args)]
struct OfPods {
    #[command(flatten)]
    which: Which,
    /// Only with these fields.
    #[arg(long, allow_hyphen_values = true)]
    field_selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// A line for each container.
    #[arg(long)]
    containers: bool,
    /// The sum of all, below.
    #[arg(long)]
    sum: bool,
}

/// Asks the metrics API.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let which = match &options.what {
        What::Node(nodes) => &nodes.which,
        What::Pod(pods) => &pods.which,
    };
    if which.sort_by.as_deref().is_some_and(|by| by != "cpu" && by != "memory") {
        return Err(Error::told("--sort-by accepts only cpu or memory"));
    }
    if which.name.is_some() && which.selector.is_some() {
        return Err(Error::told("only one of NAME or --selector can be provided"));
    }
    let client = session.client()?;
    if !client.discovery().await?.groups.iter().any(|group| group.name == "metrics.k8s.io") {
        return Err(Error::told("Metrics API not available").hinted("the server does not serve metrics.k8s.io"));
    }
    match options.what {
        What::Node(nodes) => of_nodes(session, &nodes).await,
        What::Pod(pods) => of_pods(session, &pods).await,
    }
}

/// Thousandths of a core and bytes.
type Used = (i64, i64);

fn used(value: &Value) -> Used {
    let amount = |field: &str| Amount::parse(&scalar(value.at(field))).unwrap_or_default();
    (amount("cpu").milli(), amount("memory").value())
}

fn sum(all: impl Iterator<Item = Used>) -> Used {
    all.fold((0, 0), |total, one| (total.0 + one.0, total.1 + one.1))
}

fn cells((cpu, memory): Used) -> String {
    format!("{cpu}m\t{}Mi\t", memory / MEBIBYTE)
}

async fn listed(
    session: &mut Session,
    which: &Which,
    place: &str,
    resource: &str,
    fields: Option<&str>,
) -> Result<Vec<Value>> {
    let path = format!("/apis/metrics.k8s.io/v1beta1{place}/{resource}");
    let client = session.client()?;
    if let Some(name) = &which.name {
        return Ok(vec![client.get(&format!("{path}/{name}"), &[]).await?]);
    }
    Ok(client.get(&path, &selecting(which, fields)).await?.list("items").to_vec())
}

fn selecting(which: &Which, fields: Option<&str>) -> Vec<(&'static str, String)> {
    let labels = which.selector.iter().map(|selector| ("labelSelector", selector.clone()));
    labels.chain(fields.map(|fields| ("fieldSelector", fields.to_owned()))).collect()
}

/// The largest first where that is asked for, else by name.
fn sort<T: Ord>(rows: &mut [(T, Used)], which: &Which) {
    match which.sort_by.as_deref() {
        Some("cpu") => rows.sort_by_key(|(_, (cpu, _))| -cpu),
        Some("memory") => rows.sort_by_key(|(_, (_, memory))| -memory),
        _ => rows.sort_by(|one, other| one.0.cmp(&other.0)),
    }
}

async fn of_nodes(session: &mut Session, options: &OfNodes) -> Result<()> {
    let which = &options.which;
    let metrics = listed(session, which, "", "nodes", None).await?;
    if metrics.is_empty() {
        return Err(Error::told("metrics not available yet"));
    }
    let client = session.client()?;
    let nodes = match &which.name {
        Some(name) => vec![client.get(&format!("/api/v1/nodes/{name}"), &[]).await?],
        None => client.get("/api/v1/nodes", &selecting(which, None)).await?.list("items").to_vec(),
    };
    let room = if options.show_capacity { "status.capacity" } else { "status.allocatable" };
    let mut rows: Vec<(String, Used)> =
        metrics.iter().map(|one| (one.text("metadata.name").to_owned(), used(one.at("usage")))).collect();
    sort(&mut rows, which);
    let mut text = String::new();
    if !which.no_headers {
        text += "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\t\n";
    }
    for (name, (cpu, memory)) in &rows {
        let node = nodes.iter().find(|node| node.text("metadata.name") == name);
        let room = node.map(|node| used(node.at(room))).unwrap_or_default();
        let percent = |used: i64, room: i64| match room {
            0 => "<unknown>".to_owned(),
            _ => format!("{}%", i128::from(used) * 100 / i128::from(room)),
        };
        let (of_cpu, of_memory) = (percent(*cpu, room.0), percent(*memory, room.1));
        text += &format!("{name}\t{cpu}m\t{of_cpu}\t{}Mi\t{of_memory}\t\n", memory / MEBIBYTE);
    }
    for node in &nodes {
        let name = node.text("metadata.name");
        if !rows.iter().any(|(measured, _)| measured == name) {
            text += &format!("{name}\t<unknown>\t<unknown>\t<unknown>\t<unknown>\t\n");
        }
    }
    session.print(align(&text, GET))
}

async fn of_pods(session: &mut Session, options: &OfPods) -> Result<()> {
    let which = &options.which;
    let namespace = if options.all_namespaces { None } else { Some(session.namespace()?) };
    let place = namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    let fields = options.field_selector.as_deref();
    let metrics = listed(session, which, &place, "pods", fields).await?;
    if metrics.is_empty() {
        return none_measured(session, options, &place, namespace.as_deref()).await;
    }
    let named = metrics.iter().enumerate().map(|(index, one)| {
        let total = sum(one.list("containers").iter().map(|container| used(container.at("usage"))));
        ((one.text("metadata.namespace"), one.text("metadata.name"), index), total)
    });
    let mut pods: Vec<((&str, &str, usize), Used)> = named.collect();
    sort(&mut pods, which);
    let mut text = String::new();
    let spaced = if options.all_namespaces { "NAMESPACE\t" } else { "" };
    if !which.no_headers {
        let named = if options.containers { "POD\tNAME\t" } else { "NAME\t" };
        text += &format!("{spaced}{named}CPU(cores)\tMEMORY(bytes)\t\n");
    }
    for ((namespace, name, index), total) in &pods {
        let start = if options.all_namespaces { format!("{namespace}\t{name}") } else { (*name).to_owned() };
        if !options.containers {
            text += &format!("{start}\t{}\n", cells(*total));
            continue;
        }
        let containers = metrics[*index].list("containers").iter();
        let mut containers: Vec<(&str, Used)> = containers.map(|it| (it.text("name"), used(it.at("usage")))).collect();
        sort(&mut containers, which);
        containers.iter().for_each(|(name, used)| text += &format!("{start}\t{name}\t{}\n", cells(*used)));
    }
    if options.sum {
        let before = "\t".repeat(usize::from(options.all_namespaces) + usize::from(options.containers));
        text += &format!("{before}\t________\t________\t\n{before}\t{}\n", cells(sum(pods.iter().map(|pod| pod.1))));
    }
    session.print(align(&text, GET))
}

/// Nothing is known: because there are no pods, or because nobody has measured them yet.
async fn none_measured(session: &mut Session, options: &OfPods, place: &str, namespace: Option<&str>) -> Result<()> {
    let query = selecting(&options.which, options.field_selector.as_deref());
    let pods = session.client()?.get(&format!("/api/v1{place}/pods"), &query).await?;
    match (pods.list("items").is_empty(), namespace) {
        (true, Some(namespace)) => session.warn(format!("No resources found in {namespace} namespace.")),
        (true, None) => session.warn("No resources found"),
        (false, _) => Err(Error::told("metrics not available yet")),
    }
}
