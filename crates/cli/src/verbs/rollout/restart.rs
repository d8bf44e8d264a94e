//! `rollout restart`. Mirrors kubectl `pkg/cmd/rollout/rollout_restart.go`.

use serde_json::{Value, json};

use super::Which;
use super::pause::steer;
use crate::errors::Result;
use crate::json::Json;
use crate::print::Output;
use crate::session::Session;

/// The annotation of the template that makes it a new one.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Replace every pod of a workload by a fresh one, as its strategy says.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
    /// Name under which the change is kept in managed fields.
    #[arg(long, default_value = "kubectl-rollout", hide_short_help = true)]
    field_manager: String,
}

/// Restarts.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let change = |object: &mut Value| {
        if !super::words::has(object.text("kind")) {
            return Err("restarting is not supported");
        }
        if object.flag("spec.paused") {
            return Err("can't restart paused deployment (run rollout resume first)");
        }
        let metadata = &mut object["spec"]["template"]["metadata"];
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][RESTARTED_AT] = now.clone().into();
        Ok(())
    };
    steer(session, &options.which, &options.output, &options.field_manager, "restarted", change).await
}
