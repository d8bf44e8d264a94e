//! The command line's grammar. A doc comment here is the help text.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Rolling upgrades of applications: planned before they start, explained while they run, dropping no request.
#[derive(Parser)]
#[command(name = "kapstan", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the control plane and, as root, a node on this machine.
    Server(ServerOptions),
    /// Join simulated nodes to a cluster, kapstan's or any Kubernetes.
    Agent(AgentOptions),
    /// See the main job in a minute: a throw-away cluster, three versions, steady requests.
    Demo(DemoOptions),
    /// Look after the images of the node on this machine.
    #[command(subcommand)]
    Image(ImageCommand),
    /// The web server inside the demo's images.
    #[command(hide = true)]
    Web {
        /// What it answers.
        #[arg(long)]
        version_name: String,
    },
}

/// Options of `kapstan server`.
#[derive(clap::Args)]
pub struct ServerOptions {
    /// Folder for everything that is kept [default: /var/lib/kapstan, or kapstan below the XDG data folder].
    #[arg(long, env = "KAPSTAN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port of the API; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Where to write the administrator's kubeconfig [default: admin.kubeconfig in the data folder].
    #[arg(long)]
    pub write_kubeconfig: Option<PathBuf>,
    /// Run no node on this machine.
    #[arg(long)]
    pub no_agent: bool,
    /// Number of simulated nodes: pods on them run and become ready without containers.
    #[arg(long, default_value_t = 0)]
    pub simulated_nodes: usize,
    /// How simulated pods behave: a YAML file of image patterns with delays and faults.
    #[arg(long)]
    pub simulated_profile: Option<PathBuf>,
    /// Where to ask for images of a registry first, written `HOST=URL`, besides what registries.yaml in the data folder
    /// says; may be given several times.
    #[arg(long, value_name = "HOST=URL")]
    pub registry_mirror: Vec<String>,
    /// Processes that a container may have at once; as many as the machine allows if it is not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub container_max_pids: Option<u64>,
    /// The store: `embedded`.
    #[arg(long, default_value = "embedded")]
    pub store: String,
}

/// Options of `kapstan agent`.
#[derive(clap::Args)]
pub struct AgentOptions {
    /// Number of simulated nodes to join.
    #[arg(long)]
    pub simulated: usize,
    /// How simulated pods behave: a YAML file of image patterns with delays and faults.
    #[arg(long)]
    pub simulated_profile: Option<PathBuf>,
    /// The first part of the nodes' names.
    #[arg(long, default_value = "simulated")]
    pub name_prefix: String,
    /// Address of a kapstan server, such as https://127.0.0.1:6443; needs --token.
    #[arg(long, requires = "token")]
    pub server: Option<String>,
    /// The server's join token: the file pki/join.token in its data folder.
    #[arg(long, env = "KAPSTAN_TOKEN", requires = "server")]
    pub token: Option<String>,
    /// Kubeconfig of the cluster to join, when --server is not given.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// Options of `kapstan demo`.
#[derive(clap::Args)]
pub struct DemoOptions {
    /// Simulate the nodes even where containers are possible.
    #[arg(long)]
    pub simulated: bool,
}

/// The commands of `kapstan image`.
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Take in an archive as `docker save` writes it, or an OCI layout (folder or archive).
    Import {
        /// The archive or folder.
        path: PathBuf,
        #[command(flatten)]
        place: ImagePlace,
    },
    /// Build an image from a small Containerfile: FROM, COPY, ADD, ENV, WORKDIR, USER, EXPOSE, LABEL, STOPSIGNAL, ENTRYPOINT, CMD.
    Build {
        /// Name of the image, such as web:v2.
        #[arg(short, long)]
        tag: String,
        /// The Containerfile [default: Containerfile or Dockerfile in DIR].
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Folder that COPY takes from.
        dir: PathBuf,
        #[command(flatten)]
        place: ImagePlace,
    },
    /// List the images.
    Ls {
        #[command(flatten)]
        place: ImagePlace,
    },
    /// Delete an image.
    Rm {
        /// Its name.
        name: String,
        #[command(flatten)]
        place: ImagePlace,
    },
    /// Fetch an image from its registry.
    Pull {
        /// Its name.
        name: String,
        #[command(flatten)]
        place: ImagePlace,
    },
}

/// Where the images are.
#[derive(clap::Args)]
pub struct ImagePlace {
    /// The server's data folder [default: as for `kapstan server`].
    #[arg(long, env = "KAPSTAN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}
