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
    Node(Which),
    /// Of pods.
    #[command(alias = "pods", alias = "po")]
    Pod(Which),
}

#[derive(clap::Args)]
struct Which {
    /// Only of this name.
    name: Option<String>,
    /// Only with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Print no line of headers.
    #[arg(long)]
    no_headers: bool,
    /// cpu or memory.
    #[arg(long)]
    sort_by: Option<String>,
}

/// Asks the metrics API.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let client = session.client()?;
    if !client.discovery().await?.groups.iter().any(|group| group.name == "metrics.k8s.io") {
        return Err(Error::told("Metrics API not available").hinted("the server does not serve metrics.k8s.io"));
    }
    match options.what {
        What::Node(which) => nodes(session, &which).await,
        What::Pod(which) => pods(session, &which).await,
    }
}

fn usage(values: &[&Value]) -> (i64, i64) {
    let sum = |field: &str| -> i64 {
        values.iter().filter_map(|value| Amount::parse(&scalar(value.at(field))).ok()).map(Amount::milli).sum()
    };
    (sum("cpu"), sum("memory") / 1000)
}

async fn listed(session: &mut Session, which: &Which, resource: &str, namespace: Option<&str>) -> Result<Vec<Value>> {
    let place = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    let path = format!("/apis/metrics.k8s.io/v1beta1{place}/{resource}");
    let client = session.client()?;
    if let Some(name) = &which.name {
        return Ok(vec![client.get(&format!("{path}/{name}"), &[]).await?]);
    }
    let query: Vec<_> = which.selector.iter().map(|selector| ("labelSelector", selector.clone())).collect();
    Ok(client.get(&path, &query).await?.list("items").to_vec())
}

fn sort(rows: &mut [(String, (i64, i64))], which: &Which) {
    match which.sort_by.as_deref() {
        Some("cpu") => rows.sort_by_key(|(_, (cpu, _))| -cpu),
        Some("memory") => rows.sort_by_key(|(_, (_, memory))| -memory),
        _ => rows.sort_by(|one, other| one.0.cmp(&other.0)),
    }
}

async fn nodes(session: &mut Session, which: &Which) -> Result<()> {
    let metrics = listed(session, which, "nodes", None).await?;
    let all = session.client()?.get("/api/v1/nodes", &[]).await?;
    let mut rows: Vec<_> =
        metrics.iter().map(|one| (one.text("metadata.name").to_owned(), usage(&[one.at("usage")]))).collect();
    sort(&mut rows, which);
    let mut text = String::new();
    if !which.no_headers {
        text += "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\n";
    }
    for (name, (cpu, memory)) in rows {
        let node = all.list("items").iter().find(|node| node.text("metadata.name") == name);
        let room = node.map(|node| usage(&[node.at("status.allocatable")])).unwrap_or_default();
        let percent =
            |used: i64, room: i64| if room == 0 { "<unknown>".into() } else { format!("{}%", used * 100 / room) };
        text += &format!(
            "{name}\t{cpu}m\t{}\t{}Mi\t{}\n",
            percent(cpu, room.0),
            memory / MEBIBYTE,
            percent(memory, room.1)
        );
    }
    session.print(align(&text, GET))
}

async fn pods(session: &mut Session, which: &Which) -> Result<()> {
    let namespace = if which.all_namespaces { None } else { Some(session.namespace()?) };
    let metrics = listed(session, which, "pods", namespace.as_deref()).await?;
    if metrics.is_empty() {
        return session.warn(format!("No resources found in {} namespace.", namespace.unwrap_or_default()));
    }
    let mut rows: Vec<_> = metrics
        .iter()
        .map(|one| {
            let containers: Vec<&Value> =
                one.list("containers").iter().map(|container| container.at("usage")).collect();
            let name = one.text("metadata.name");
            let start = if which.all_namespaces {
                format!("{}\t{name}", one.text("metadata.namespace"))
            } else {
                name.to_owned()
            };
            (start, usage(&containers))
        })
        .collect();
    sort(&mut rows, which);
    let mut text = String::new();
    if !which.no_headers {
        text += if which.all_namespaces { "NAMESPACE\t" } else { "" };
        text += "NAME\tCPU(cores)\tMEMORY(bytes)\n";
    }
    rows.iter().for_each(|(name, (cpu, memory))| text += &format!("{name}\t{cpu}m\t{}Mi\n", memory / MEBIBYTE));
    session.print(align(&text, GET))
}
