//! `edit`: an object in an editor. Mirrors kubectl `pkg/cmd/util/editor/editoptions.go`.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::apply::{validation, with_last_applied};
use crate::change::{self, DryRun, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::manifests;
use crate::objects::{self, Ask, Files, Found};
use crate::print::{self, Output, yaml};
use crate::session::Session;

const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n";

/// Edit objects in the editor that KUBE_EDITOR or EDITOR names.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME... or TYPE/NAME...
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    record: Record,
    /// Edit as yaml or json.
    #[arg(long, short, default_value = "yaml")]
    output: String,
    /// Print the patch that is sent.
    #[arg(long)]
    output_patch: bool,
    /// Keep metadata.managedFields in what is edited.
    #[arg(long)]
    show_managed_fields: bool,
    /// Edit a subresource, such as status.
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    /// Keep what was saved in an annotation, for a later `apply`.
    #[arg(long)]
    save_config: bool,
    /// strict (true), warn or ignore (false) unknown and duplicate fields.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
    /// Name the changes are made under.
    #[arg(long, default_value = "kubectl-edit")]
    field_manager: String,
    /// Lines of the file in the editor end as on Windows.
    #[arg(long)]
    windows_line_endings: bool,
}

/// Opens the editor until the change is accepted or taken back.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    if options.output != "yaml" && options.output != "json" {
        return Err(Error::told("The flag 'output' must be one of yaml|json"));
    }
    let ask = Ask { words: options.words.clone(), files: options.files.clone(), live: true, ..Ask::default() };
    let found = objects::find_all(session, &ask).await?;
    if found.is_empty() {
        return Err(Error::told("You must provide one or more resources by argument or filename."));
    }
    for mut item in found {
        if let Some(subresource) = &options.subresource {
            let path = format!("{}/{subresource}", item.path());
            item.object = session.client()?.get(&path, &[]).await?;
        }
        one(session, &options, item).await?;
    }
    Ok(())
}

async fn one(session: &mut Session, options: &Options, mut item: Found) -> Result<()> {
    if let Some(meta) = item.object["metadata"].as_object_mut().filter(|_| !options.show_managed_fields) {
        meta.remove("managedFields");
    }
    let text =
        |object: &Value| if options.output == "json" { print::json_text(object) + "\n" } else { yaml::text(object) };
    let original = text(&item.object);
    let mut shown = original.clone();
    let mut failure: Option<String> = None;
    loop {
        let reasons: String = failure.iter().flat_map(|why| why.lines()).map(|line| format!("# {line}\n")).collect();
        let reasons = if reasons.is_empty() { reasons } else { reasons + "#\n" };
        let edited =
            in_editor(session, &format!("{HEADER}{reasons}{shown}"), &options.output, options.windows_line_endings)?;
        if edited.trim().is_empty() {
            return session.warn("Edit cancelled, saved file was empty.");
        }
        if edited == original && failure.is_none() {
            return session.warn("Edit cancelled, no changes made.");
        }
        if edited == shown && failure.is_some() {
            let kept = keep(&edited, &options.output)?;
            session.warn(format!("A copy of your changes has been stored to {kept:?}"))?;
            return Err(Error::told("Edit cancelled, no valid changes were saved."));
        }
        let what = format!("{} {:?}", item.resource.qualified(), item.name);
        let after = match understood(&edited) {
            Ok(after) => after,
            Err(error) => {
                session.warn(format!("error: {what} is invalid"))?;
                failure = Some(format!("{what} was not valid:\n* {}", error.inner_message()));
                shown = edited;
                continue;
            }
        };
        if after == item.object {
            return session.warn("Edit cancelled, no changes made.");
        }
        if let Err(error) = check_identity(&item, &after) {
            let kept = keep(&edited, &options.output)?;
            session.warn(format!("A copy of your changes has been stored to {kept:?}"))?;
            return Err(error);
        }
        match send(session, options, &item, after).await {
            Ok(()) => return Ok(()),
            Err(error) if error.reason() == "Invalid" => {
                session.warn(format!("error: {what} is invalid"))?;
                failure = Some(format!("{what} was not valid:\n{}", error.message()));
                shown = edited;
            }
            Err(error) => {
                let kept = keep(&edited, &options.output)?;
                let (why, next) = match error.is_not_found() {
                    true => (
                        "could not be found on the server".to_owned(),
                        format!("The edits you made on deleted resources have been saved to {kept:?}"),
                    ),
                    false => (
                        format!("could not be patched: {}", error.inner_message()),
                        format!("You can run `{} replace -f {kept}` to try this update again.", session.program),
                    ),
                };
                session.warn(format!("error: {what} {why}"))?;
                session.warn(next)?;
                return Err(Error::silent(1));
            }
        }
    }
}

/// The one object of the edited file.
fn understood(edited: &str) -> Result<Value> {
    let mut documents = manifests::documents("the edited file", edited)?;
    match (documents.pop(), documents.len()) {
        (Some(after), 0) if after.has("kind") && after.has("apiVersion") => Ok(after),
        (Some(_), 0) => Err(Error::told("apiVersion and kind are wanted")),
        _ => Err(Error::told("one object is wanted")),
    }
}

/// An edit changes an object, it makes no other one.
fn check_identity(item: &Found, after: &Value) -> Result<()> {
    let (before, after_namespace) = (item.object.text("metadata.namespace"), after.text("metadata.namespace"));
    if !after_namespace.is_empty() && after_namespace != before {
        return Err(Error::told(format!(
            "the namespace from the provided object {after_namespace:?} does not match the namespace {before:?}. You must pass '--namespace={after_namespace}' to perform this operation."
        )));
    }
    let same = |path: &str| item.object.text(path) == after.text(path);
    match ["apiVersion", "kind", "metadata.name"].into_iter().all(same) {
        true => Ok(()),
        false => Err(Error::told("At least one of apiVersion, kind and name was changed")),
    }
}

async fn send(session: &mut Session, options: &Options, item: &Found, mut after: Value) -> Result<()> {
    options.record.annotate(session, &mut after);
    if options.save_config {
        after = with_last_applied(&after);
    }
    let (media_type, patch) = change::two_way(&item.object, &after)?;
    if options.output_patch {
        session.say(format!("Patch: {}", print::html_escaped(&patch.to_string())))?;
    }
    let path = match &options.subresource {
        Some(subresource) => format!("{}/{subresource}", item.path()),
        None => item.path(),
    };
    let mut query = DryRun::No.query(&options.field_manager);
    query.push(("fieldValidation", validation(&options.validate)?.into()));
    session.client()?.patch(&path, &query, media_type, &patch).await?;
    print::done(session, &Output::default(), &item.object, "edited")
}

/// `create --edit`: the object as it was saved; nothing if the file was emptied.
pub(super) fn before_create(session: &Session, object: &Value, windows: bool) -> Result<Option<Value>> {
    let edited = in_editor(session, &format!("{HEADER}{}", yaml::text(object)), "yaml", windows)?;
    if edited.trim().is_empty() {
        return Ok(None);
    }
    let mut documents = manifests::documents("the edited file", &edited)?;
    match documents.len() {
        1 => Ok(documents.pop()),
        _ => Err(Error::told("one object is wanted")),
    }
}

/// Lets the user edit a text; gives it back without comment lines and with plain line ends.
pub(super) fn in_editor(session: &Session, text: &str, ending: &str, windows: bool) -> Result<String> {
    let environment = &session.io.environment;
    let editor =
        ["KUBE_EDITOR", "EDITOR"].iter().find_map(|name| environment.get(*name).filter(|value| !value.is_empty()));
    let editor = editor.cloned().unwrap_or_else(|| "vi".into());
    let file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(&format!(".{ending}")).tempfile()?;
    fs::write(file.path(), if windows { text.replace('\n', "\r\n") } else { text.to_owned() })?;
    // As kubectl does it: the editor may be a command with arguments.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$0\"")).arg(file.path()).status();
    let status = status.map_err(|error| Error::told(format!("unable to launch the editor {editor:?}: {error}")))?;
    if !status.success() {
        return Err(Error::told(format!("there was a problem with the editor {editor:?}")));
    }
    let edited = fs::read_to_string(file.path())?;
    Ok(edited.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
}

fn keep(text: &str, ending: &str) -> Result<String> {
    let file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(&format!(".{ending}")).tempfile()?;
    fs::write(file.path(), text)?;
    let (_, path) = file.keep().map_err(|error| Error::told(error.to_string()))?;
    Ok(path.display().to_string())
}
