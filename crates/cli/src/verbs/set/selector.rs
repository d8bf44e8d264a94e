//! `set selector`. Mirrors kubectl `pkg/cmd/set/set_selector.go`: only for Services.

use serde_json::{Map, Value};

use super::{Change, Common};
use crate::change::Record;
use crate::errors::{Error, Result};
use crate::session::Session;

/// Set the selector of a service: the one given takes the place of the one it has.
///
/// Examples:
///   kapstan set selector service/web app=web,track=stable
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME, then the selector.
    words: Vec<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    record: Record,
    /// Only change the object if this is its resourceVersion.
    #[arg(long, value_name = "VERSION")]
    resource_version: Option<String>,
}

/// Sets it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let Some((text, objects)) = options.words.split_last() else {
        return Err(Error::told("one selector is required"));
    };
    let parsed = api::selector::Selector::parse(text).map_err(|error| Error::told(error.to_string()))?;
    let mut found = options.common.find(session, objects, None).await?;
    if found.iter().any(|item| item.resource.kind != "Service") {
        return Err(Error::told("setting a selector is only supported for Services"));
    }
    let selector = labels(text, &parsed)?;
    if options.resource_version.is_some() {
        for item in &mut found {
            // So that it becomes part of the patch: the server refuses it when the object has changed since.
            item.object["metadata"]["resourceVersion"] = Value::Null;
        }
    }
    let change = Change { done: "selector updated", failed: "", silent_if_same: false };
    let edit = |object: &mut Value| {
        object["spec"]["selector"] = selector.clone().into();
        if let Some(version) = &options.resource_version {
            object["metadata"]["resourceVersion"] = version.clone().into();
        }
        Ok(())
    };
    options.common.apply(session, &found, &options.record, &change, edit).await
}

/// `a=b,c=d`; a Service's selector knows nothing else.
fn labels(text: &str, selector: &api::selector::Selector) -> Result<Map<String, Value>> {
    let mut labels = Map::new();
    for requirement in selector.requirements() {
        let is_equal = matches!(requirement.operator(), api::selector::Operator::In | api::selector::Operator::Equals);
        match (is_equal, requirement.values()) {
            (true, [value]) => labels.insert(requirement.key().to_owned(), value.clone().into()),
            _ => return Err(Error::told(format!("match expression {text:?} not supported on this object"))),
        };
    }
    Ok(labels)
}
