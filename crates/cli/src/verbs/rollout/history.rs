//! `rollout history`. Mirrors kubectl `pkg/polymorphichelpers/history.go`; `--details` is ours.

use serde_json::Value;

use super::revisions::{self, Revision};
use super::{Which, details, unsupported, words};
use crate::change::CHANGE_CAUSE;
use crate::errors::{Error, Result};
use crate::objects::Found;
use crate::print::{self, Format, Output, tabwriter};
use crate::session::Session;
use crate::verbs::describe::Page;

/// The revisions of a workload, and why each was made.
///
/// Examples:
///   kapstan rollout history deployment/web
///   kapstan rollout history deployment/web --revision=3
///   kapstan rollout history deployment/web --details
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Show this revision with its pod template; 0 is all of them.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "NUMBER")]
    revision: i64,
    /// Also show when each was made, by whom, with which images, and how it ended.
    #[arg(long, conflicts_with_all = ["revision", "output"])]
    details: bool,
    #[command(flatten)]
    output: Output,
}

/// Shows them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if options.revision < 0 {
        return Err(Error::told(format!("revision must be a positive integer: {}", options.revision)));
    }
    let format = options.output.format()?;
    let (found, mut errors) = options.which.find(session).await?;
    for item in &found {
        errors.extend(one(session, item, &options, &format).await.err());
    }
    Error::several(errors)
}

async fn one(session: &mut Session, item: &Found, options: &Options, format: &Format) -> Result<()> {
    if !words::has(&item.resource.kind) {
        return Err(unsupported(item, "history viewer", "history"));
    }
    let mut known = revisions::of(&session.client()?, item).await?;
    if options.revision > 0 {
        known.retain(|revision| revision.number == options.revision);
        if known.is_empty() {
            return Err(Error::told("unable to find the specified revision"));
        }
    }
    if !matches!(format, Format::Human { .. }) {
        return objects(session, item, options, format, &known);
    }
    let text = match known.as_slice() {
        [] => "No rollout history found.".to_owned(),
        [revision] if options.revision > 0 => template_text(&template_with_cause(revision)),
        known if options.details => details::table(item, known),
        known => table(known),
    };
    let with_revision = match options.revision {
        0 => String::new(),
        number => format!("with revision #{number}"),
    };
    session.say(format!("{} {with_revision}\n{text}", item.printed()))
}

/// With `-o`: the ReplicaSets, or the workload as each revision had it.
fn objects(session: &mut Session, item: &Found, options: &Options, format: &Format, known: &[Revision]) -> Result<()> {
    for (index, revision) in known.iter().enumerate() {
        let object = match item.resource.kind.as_str() {
            "Deployment" => revision.object.clone(),
            _ => revisions::restored(&item.object, &revision.object)?,
        };
        if index > 0 && matches!(format, Format::Yaml) {
            session.say("---")?;
        }
        session.print(print::object(format, &object, options.output.show_managed_fields)?)?;
    }
    Ok(())
}

/// What the revision was made for.
pub(super) fn cause(revision: &Revision) -> &str {
    revisions::annotation(&revision.object, CHANGE_CAUSE).filter(|cause| !cause.is_empty()).unwrap_or("<none>")
}

fn table(known: &[Revision]) -> String {
    let rows = known.iter().map(|revision| format!("{}\t{}\n", revision.number, cause(revision)));
    tabwriter::align(&format!("REVISION\tCHANGE-CAUSE\n{}", rows.collect::<String>()), tabwriter::DESCRIBE)
}

/// The template of a revision, with what caused it among its annotations.
fn template_with_cause(revision: &Revision) -> Value {
    let mut template = revision.template.clone();
    if let Some(cause) = revisions::annotation(&revision.object, CHANGE_CAUSE).filter(|cause| !cause.is_empty()) {
        if !template["metadata"]["annotations"].is_object() {
            template["metadata"]["annotations"] = serde_json::json!({});
        }
        template["metadata"]["annotations"][CHANGE_CAUSE] = cause.into();
    }
    template
}

/// A pod template as `describe` shows it.
pub fn template_text(template: &Value) -> String {
    let mut page = Page::default();
    page.template(template);
    page.unaligned()
}
