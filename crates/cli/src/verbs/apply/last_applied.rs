//! `apply view-last-applied|set-last-applied|edit-last-applied`: the annotation that `apply` remembers by.
//!
//! Mirrors kubectl `pkg/cmd/apply/apply_{view,set,edit}_last_applied.go`.

use serde_json::{Value, json};

use super::{LAST_APPLIED, validation};
use crate::change::{DryRun, DryRunFlag, MERGE};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::manifests;
use crate::objects::{self, Ask, Files, Found};
use crate::print::{self, Output, yaml};
use crate::session::Session;
use crate::verbs::edit;

/// Show what was applied last.
#[derive(clap::Args)]
pub struct ViewOptions {
    #[command(flatten)]
    which: Which,
    /// yaml or json.
    #[arg(long, short, default_value = "yaml")]
    output: String,
}

/// Set the remembered configuration to what files say, and nothing else.
#[derive(clap::Args)]
pub struct SetOptions {
    #[command(flatten)]
    files: Files,
    /// Also where nothing is remembered yet.
    #[arg(long)]
    create_annotation: bool,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    output: Output,
}

/// Edit the remembered configuration in the editor that KUBE_EDITOR or EDITOR names.
#[derive(clap::Args)]
pub struct EditOptions {
    #[command(flatten)]
    which: Which,
    /// yaml or json.
    #[arg(long, short, default_value = "yaml")]
    output: String,
    /// Name the changes are made under.
    #[arg(long, default_value = "kubectl-last-applied")]
    field_manager: String,
    /// strict (true), warn or ignore (false) unknown and duplicate fields.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
    /// Lines of the file in the editor end as on Windows.
    #[arg(long)]
    windows_line_endings: bool,
}

/// The objects that a line names.
#[derive(clap::Args)]
struct Which {
    /// TYPE NAME... or TYPE/NAME...
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    /// Every object of the types, in the namespace.
    #[arg(long)]
    all: bool,
}

impl Which {
    async fn find(&self, session: &mut Session) -> Result<Vec<Found>> {
        let ask = Ask {
            words: self.words.clone(),
            files: self.files.clone(),
            selector: self.selector.clone(),
            all: self.all,
            live: true,
            ..Ask::default()
        };
        objects::find_all(session, &ask).await
    }
}

pub(super) async fn view(session: &mut Session, options: ViewOptions) -> Result<()> {
    check(session, &options.output, "view")?;
    for item in options.which.find(session).await? {
        let text = shown(&remembered(&item)?, &options.output);
        session.print(text)?;
    }
    Ok(())
}

pub(super) async fn set(session: &mut Session, options: SetOptions) -> Result<()> {
    let dry_run = options.dry_run.strategy(session)?;
    let ask = Ask { files: options.files.clone(), ..Ask::default() };
    for wanted in objects::find_all(session, &ask).await? {
        let live = session.client()?.get(&wanted.path(), &[]).await?;
        let is_remembered = live.map("metadata.annotations").contains_key(LAST_APPLIED);
        if !is_remembered && !options.create_annotation {
            return Err(Error::told(format!(
                "no last-applied-configuration annotation found on resource: {}, to create the annotation, run the command with --create-annotation",
                wanted.name
            )));
        }
        let item = Found { object: live, ..wanted.clone() };
        if item.object.map("metadata.annotations").get(LAST_APPLIED) == Some(&memory(&wanted.object)) {
            session.say(format!("set-last-applied {}: no changes required.", item.name))?;
            continue;
        }
        let changed = match dry_run {
            DryRun::Client => item.object.clone(),
            _ => write(session, &item, &wanted.object, &dry_run.query("kubectl-last-applied")).await?,
        };
        print::done(session, &options.output, &changed, &format!("configured{}", dry_run.suffix()))?;
    }
    Ok(())
}

pub(super) async fn edit(session: &mut Session, options: EditOptions) -> Result<()> {
    check(session, &options.output, "edit")?;
    for item in options.which.find(session).await? {
        let before = remembered(&item)?;
        let (text, windows) = (shown(&before, &options.output), options.windows_line_endings);
        let edited = edit::in_editor(session, &text, &options.output, windows)?;
        let documents = manifests::documents("the edited file", &edited)?;
        let [after] = documents.as_slice() else { return Err(Error::told("one object is wanted")) };
        if *after == before {
            session.warn("Edit cancelled, no changes made.")?;
            continue;
        }
        let mut query = DryRun::No.query(&options.field_manager);
        query.push(("fieldValidation", validation(&options.validate)?.into()));
        let changed = write(session, &item, after, &query).await?;
        print::done(session, &Output::default(), &changed, "edited")?;
    }
    Ok(())
}

fn check(session: &Session, output: &str, action: &str) -> Result<()> {
    if matches!(output, "yaml" | "json") {
        return Ok(());
    }
    let wrong = format!("Unexpected -o output mode: {output}, the flag 'output' must be one of yaml|json");
    Err(session.usage(&format!("apply {action}-last-applied"), &wrong))
}

fn remembered(item: &Found) -> Result<Value> {
    let text = item.object.map("metadata.annotations").get(LAST_APPLIED).and_then(Value::as_str);
    let text = text.ok_or_else(|| {
        Error::told(format!("no last-applied-configuration annotation found on resource: {}", item.name))
    })?;
    Ok(serde_json::from_str(text)?)
}

/// Two spaces a level here, where `get -o json` has four.
fn shown(object: &Value, output: &str) -> String {
    if output == "json" { format!("{object:#}\n") } else { yaml::text(object) }
}

async fn write(session: &mut Session, item: &Found, wanted: &Value, query: &[(&'static str, String)]) -> Result<Value> {
    let patch = json!({ "metadata": { "annotations": { LAST_APPLIED: memory(wanted) } } });
    session.client()?.patch(&item.path(), query, MERGE, &patch).await
}

/// The annotation's value for an object, which does not remember itself.
fn memory(object: &Value) -> Value {
    let mut plain = object.clone();
    if let Some(metadata) = plain["metadata"].as_object_mut() {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        metadata.retain(|name, value| name != "annotations" || value.as_object().is_some_and(|map| !map.is_empty()));
    }
    (print::html_escaped(&plain.to_string()) + "\n").into()
}
