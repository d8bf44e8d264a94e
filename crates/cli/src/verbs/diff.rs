//! `diff`: what `apply` would change. Mirrors kubectl `pkg/cmd/diff/diff.go`.

use std::fs;
use std::process::Command;

use http::Method;
use serde_json::Value;

use super::apply::{three_way, without_last_applied};
use crate::client::JSON;
use crate::errors::{Error, Result};
use crate::objects::{self, Ask, Files};
use crate::print::yaml;
use crate::session::Session;

/// Compare files with what is in the cluster. Exit code 1: they differ; more: it failed.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    files: Files,
    /// Only the objects of the files with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// With metadata.managedFields.
    #[arg(long)]
    show_managed_fields: bool,
    /// Let the server merge (server-side apply).
    #[arg(long)]
    server_side: bool,
    /// Take over fields of other managers, with --server-side.
    #[arg(long)]
    force_conflicts: bool,
    /// Name the changes would be made under.
    #[arg(long)]
    field_manager: Option<String>,
}

/// Compares by `diff -u -N`, or by what KUBECTL_EXTERNAL_DIFF names.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if options.force_conflicts && !options.server_side {
        return Err(Error::told("--force-conflicts only works with --server-side").exiting(2));
    }
    if options.files.is_empty() {
        return Err(Error::told("must specify one of -f and -k").exiting(2));
    }
    let ask = Ask { files: options.files.clone(), selector: options.selector.clone(), ..Ask::default() };
    let found = objects::find_all(session, &ask).await.map_err(|error| error.exiting(2))?;
    let folder = |name: &str| tempfile::Builder::new().prefix(name).tempdir();
    let (live, merged) = (folder("LIVE-")?, folder("MERGED-")?);
    let client = session.client()?;
    for item in found {
        let usual = if options.server_side { "kubectl" } else { "kubectl-client-side-apply" };
        let manager = options.field_manager.clone().unwrap_or_else(|| usual.into());
        let mut dry_run = vec![("dryRun", "All".to_owned()), ("fieldManager", manager)];
        // What is remembered of an apply is no difference.
        let wanted = without_last_applied(&item.object);
        let before = match client.get(&item.path(), &[]).await {
            Ok(before) => Some(before),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.exiting(2)),
        };
        let after = match &before {
            _ if options.server_side => {
                dry_run.push(("force", options.force_conflicts.to_string()));
                let body = Some(("application/apply-patch+yaml", item.object.to_string().into_bytes()));
                client.json(Method::PATCH, &item.path(), &dry_run, JSON, body).await
            }
            None => client.post(&item.resource.path(item.namespace.as_deref(), None), &dry_run, &wanted).await,
            Some(before) => {
                let (media_type, patch) = three_way(before, &wanted)?;
                client.patch(&item.path(), &dry_run, media_type, &patch).await
            }
        };
        let after = after.map_err(|error| error.exiting(2))?;
        let group = item.resource.api_version().replace('/', ".");
        let name =
            format!("{group}.{}.{}.{}", item.resource.kind, item.namespace.clone().unwrap_or_default(), item.name);
        let text = |object: &Value| yaml::text(&shown(object, options.show_managed_fields));
        if let Some(before) = &before {
            fs::write(live.path().join(&name), text(before))?;
        }
        fs::write(merged.path().join(&name), text(&after))?;
    }
    let program = session.io.environment.get("KUBECTL_EXTERNAL_DIFF").filter(|text| !text.is_empty()).cloned();
    let program = program.unwrap_or_else(|| "diff -u -N".into());
    let mut words = program.split_whitespace();
    let output = Command::new(words.next().unwrap_or("diff")).args(words).arg(live.path()).arg(merged.path()).output();
    let output = output.map_err(|error| Error::told(format!("failed to run {program:?}: {error}")).exiting(2))?;
    session.print(String::from_utf8_lossy(&output.stdout))?;
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(Error::silent(1)),
        code => Err(Error::told(format!("{program:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
            .exiting(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(2))),
    }
}

/// An object as it is compared: values of secrets stay hidden.
fn shown(object: &Value, managed_fields: bool) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object["metadata"].as_object_mut().filter(|_| !managed_fields) {
        meta.remove("managedFields");
    }
    if object["kind"] == "Secret" {
        for value in object["data"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            *value = "***".into();
        }
    }
    object
}
