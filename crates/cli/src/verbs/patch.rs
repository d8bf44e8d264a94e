//! `patch`: change fields of an object. Mirrors kubectl `pkg/cmd/patch/patch.go`.

use std::fs;

use serde_json::Value;

use crate::change::{self, DryRun, DryRunFlag, Record};
use crate::errors::{Error, Result};
use crate::manifests;
use crate::objects::{self, Ask, Files};
use crate::print::{self, Output};
use crate::session::Session;

/// Change fields of objects by a strategic merge patch, a JSON merge patch or a JSON patch.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    record: Record,
    /// The patch, as JSON or YAML.
    #[arg(long, short, allow_hyphen_values = true)]
    patch: Option<String>,
    /// A file with the patch.
    #[arg(long)]
    patch_file: Option<String>,
    /// json, merge or strategic.
    #[arg(long = "type", default_value = "strategic")]
    patch_type: String,
    /// Patch a subresource: status or scale.
    #[arg(long)]
    subresource: Option<String>,
    /// Name the changes are made under.
    #[arg(long, default_value = "kubectl-patch")]
    field_manager: String,
    /// Change the objects of the files as they are, without a server.
    #[arg(long)]
    local: bool,
}

/// Patches.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let dry_run = options.dry_run.strategy(session)?;
    let media_type = match options.patch_type.to_lowercase().as_str() {
        "strategic" => change::STRATEGIC,
        "merge" => change::MERGE,
        "json" => change::JSON_PATCH,
        other => return Err(Error::told(format!("--type must be one of [json merge strategic], not {other:?}"))),
    };
    let text = match (&options.patch, &options.patch_file) {
        (Some(_), Some(_)) => return Err(Error::told("cannot specify --patch and --patch-file together")),
        (None, None) => {
            return Err(Error::told("must specify --patch or --patch-file containing the contents of the patch"));
        }
        (Some(text), None) => text.clone(),
        (None, Some(path)) => fs::read_to_string(path)
            .map_err(|error| Error::told(format!("unable to read patch file: open {path}: {error}")))?,
    };
    let mut documents = manifests::documents("the patch", &text)
        .map_err(|error| Error::told(format!("unable to parse {text:?}: {}", error.inner_message())))?;
    if documents.len() != 1 {
        return Err(Error::told(format!("unable to parse {text:?}: one document is wanted")));
    }
    let patch = documents.remove(0);
    if options.local && options.files.is_empty() {
        return Err(Error::told("--local requires --filename: the server is not asked for the objects"));
    }
    let ask = Ask {
        words: options.words.clone(),
        files: options.files.clone(),
        live: !options.local,
        local: options.local,
        ..Ask::default()
    };
    let (found, mut errors) = objects::find(session, &ask).await?;
    for item in found {
        match one(session, &options, dry_run, media_type, &patch, &item).await {
            Ok((after, operation)) => print::done_apart(session, &options.output, &after, &operation)?,
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}

async fn one(
    session: &mut Session,
    options: &Options,
    dry_run: DryRun,
    media_type: &str,
    patch: &Value,
    item: &objects::Found,
) -> Result<(Value, String)> {
    let after = match dry_run {
        _ if options.local => locally(item.object.clone(), patch, media_type)?,
        DryRun::Client => locally(item.object.clone(), patch, media_type)?,
        _ => {
            let path = match &options.subresource {
                Some(subresource) => format!("{}/{subresource}", item.path()),
                None => item.path(),
            };
            session.client()?.patch(&path, &dry_run.query(&options.field_manager), media_type, patch).await?
        }
    };
    let same = after == item.object;
    if let (Some(cause), DryRun::No, false) = (options.record.cause(session), dry_run, options.local) {
        let note = serde_json::json!({"metadata": {"annotations": {change::CHANGE_CAUSE: cause}}});
        session.client()?.patch(&item.path(), &dry_run.query(&options.field_manager), change::MERGE, &note).await?;
    }
    // kubectl does not say that it is a dry run.
    let operation = format!("patched{}", if same { " (no change)" } else { "" });
    Ok((after, operation))
}

fn locally(before: Value, patch: &Value, media_type: &str) -> Result<Value> {
    let refused = |refusal: api::Refusal| Error::refused(refusal.to_value());
    match media_type {
        change::JSON_PATCH => api::patch::json_patch(before, patch.clone()).map_err(refused),
        change::MERGE => api::patch::merge(before, patch).map_err(refused),
        _ => match change::type_id(&before) {
            Some(id) => {
                api::patch::strategic(id, before, patch.clone()).map_err(|error| Error::told(error.to_string()))
            }
            None => Err(Error::told("strategic merge patch is not supported for this kind").hinted("use --type=merge")),
        },
    }
}
