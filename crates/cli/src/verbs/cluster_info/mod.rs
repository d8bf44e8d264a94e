//! `cluster-info`. Mirrors kubectl `pkg/cmd/clusterinfo/clusterinfo.go`.

mod dump;

use crate::errors::Result;
use crate::json::Json;
use crate::session::Session;

/// Say where the cluster is, or dump what is in it.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    Dump(dump::Options),
}

/// Says it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.what {
        Some(What::Dump(options)) => dump::run(session, options).await,
        None => places(session).await,
    }
}

async fn places(session: &mut Session) -> Result<()> {
    let client = session.client()?;
    let query = [("labelSelector", "kubernetes.io/cluster-service=true".to_owned())];
    let services = client.get("/api/v1/namespaces/kube-system/services", &query).await?;
    let server = client.server().to_owned();
    // Colours only for a person who wants them.
    let coloured = session.io.terminal && !session.io.environment.contains_key("NO_COLOR");
    let paint =
        |text: &str, code: &str| if coloured { format!("\u{1b}[0;{code}m{text}\u{1b}[0m") } else { text.to_owned() };
    session.say(format!("{} is running at {}", paint("Kubernetes control plane", "32"), paint(&server, "33")))?;
    for service in services.list("items") {
        let name = service.text("metadata.name");
        let shown =
            service.labels("metadata.labels").get("kubernetes.io/name").cloned().unwrap_or_else(|| name.to_owned());
        let port = service.list("spec.ports").first().map(|port| port.text("name")).filter(|port| !port.is_empty());
        let path = port.map_or(name.to_owned(), |port| format!("{name}:{port}"));
        let link = format!("{server}/api/v1/namespaces/kube-system/services/{path}/proxy");
        session.say(format!("{} is running at {}", paint(&shown, "32"), paint(&link, "33")))?;
    }
    session
        .say(format!("\nTo further debug and diagnose cluster problems, use '{} cluster-info dump'.", session.program))
}
