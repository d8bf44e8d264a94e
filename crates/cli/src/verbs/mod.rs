//! The verbs: one file each. The doc comment of a file's `Options` is its help.

use crate::errors::Result;
use crate::session::Session;

pub mod annotate;
pub mod api_resources;
pub mod api_versions;
pub mod apply;
pub mod attach;
pub mod auth;
pub mod autoscale;
pub mod cluster_info;
pub mod completion;
pub mod config;
pub mod cordon;
pub mod cp;
pub mod create;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod drain;
pub mod edit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod expose;
pub mod get;
pub mod label;
pub mod logs;
pub mod man;
mod node;
pub mod options;
pub mod patch;
pub mod port_forward;
mod raw;
pub mod replace;
pub mod rolling_update;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod taint;
pub mod top;
pub mod uncordon;
pub mod version;
pub mod wait;

/// The one table of verbs: the grammar and the dispatch.
macro_rules! verbs {
    ($($verb:ident => $module:ident,)*) => {
        /// A verb and its options.
        #[derive(clap::Subcommand)]
        #[allow(missing_docs)]
        pub enum Verb { $($verb($module::Options),)* }

        /// Does what the verb says.
        pub async fn perform(session: &mut Session, verb: Verb) -> Result<()> {
            match verb { $(Verb::$verb(options) => Box::pin($module::run(session, options)).await,)* }
        }
    };
}

verbs! {
    Annotate => annotate,
    ApiResources => api_resources,
    ApiVersions => api_versions,
    Apply => apply,
    Attach => attach,
    Auth => auth,
    Autoscale => autoscale,
    ClusterInfo => cluster_info,
    Completion => completion,
    Config => config,
    Cordon => cordon,
    Cp => cp,
    Create => create,
    Delete => delete,
    Describe => describe,
    Diff => diff,
    Drain => drain,
    Edit => edit,
    Events => events,
    Exec => exec,
    Explain => explain,
    Expose => expose,
    Get => get,
    Label => label,
    Logs => logs,
    Man => man,
    Options => options,
    Patch => patch,
    PortForward => port_forward,
    Replace => replace,
    RollingUpdate => rolling_update,
    Rollout => rollout,
    Run => run,
    Scale => scale,
    Set => set,
    Taint => taint,
    Top => top,
    Uncordon => uncordon,
    Version => version,
    Wait => wait,
}
