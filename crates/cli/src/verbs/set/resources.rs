//! `set resources`. Mirrors kubectl `pkg/cmd/set/set_resources.go`.

use api::quantity;
use serde_json::{Map, Value, json};

use super::{Change, Common, pod_spec};
use crate::change::Record;
use crate::errors::{Error, Result};
use crate::session::Session;

/// Set what containers may use and what they are promised.
///
/// Examples:
///   kapstan set resources deployment/web --limits=cpu=200m,memory=512Mi
///   kapstan set resources deployment/web -c nginx --requests=cpu=100m
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME.
    words: Vec<String>,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    record: Record,
    /// Names of the containers; * stands for any letters.
    #[arg(long, short, default_value = "*", value_name = "NAMES")]
    containers: String,
    /// The most a container may use, such as cpu=200m,memory=512Mi; 0 takes the limit away.
    #[arg(long, default_value = "")]
    limits: String,
    /// What a container is promised, such as cpu=100m,memory=256Mi.
    #[arg(long, default_value = "")]
    requests: String,
}

/// Sets them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let found = options.common.find(session, &options.words, options.selector.as_ref()).await?;
    options.common.check(session, options.selector.as_ref())?;
    if options.limits.is_empty() && options.requests.is_empty() {
        return Err(Error::told(
            "you must specify an update to requests or limits (in the form of --requests/--limits)",
        ));
    }
    let wanted = [("limits", quantities(&options.limits)?), ("requests", quantities(&options.requests)?)];
    let change = Change {
        done: "resource requirements updated",
        failed: "failed to patch resources update to pod template",
        silent_if_same: true,
    };
    let mut errors = Vec::new();
    let edit = |object: &mut Value| {
        let missing = pod_spec::missing(object);
        let spec = pod_spec::of(object).ok_or(missing)?;
        let containers = pod_spec::containers(spec, &options.containers);
        if containers.is_empty() {
            errors.push(Error::told(format!("unable to find container named {}", options.containers)));
        }
        for container in containers {
            for (what, quantities) in &wanted {
                if quantities.is_empty() {
                    continue;
                }
                if !container["resources"][what].is_object() {
                    container["resources"][what] = json!({});
                }
                for (name, quantity) in quantities {
                    container["resources"][what][name] = quantity.clone();
                }
            }
        }
        Ok(())
    };
    let outcome = options.common.apply(session, &found, &options.record, &change, edit).await;
    errors.extend(outcome.err());
    Error::several(errors)
}

fn quantities(text: &str) -> Result<Map<String, Value>> {
    let mut quantities = Map::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let wrong = || Error::told(format!("Invalid argument syntax {part}, expected <resource>=<value>"));
        let (name, value) = part.split_once('=').filter(|(_, value)| !value.contains('=')).ok_or_else(wrong)?;
        let amount = quantity::Amount::parse(value).map_err(|error| Error::told(error.to_string()))?;
        quantities.insert(name.to_owned(), amount.quantity().0.into());
    }
    Ok(quantities)
}
