//! Changing objects: dry runs, field managers, `--record`.
//!
//! Mirrors kubectl `pkg/cmd/util/helpers.go` (`GetDryRunStrategy`) and cli-runtime `genericclioptions/record_flags.go`.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::errors::{Error, Result};
use crate::grammar::{self, Word};
use crate::json::Json;
use crate::session::Session;

/// The annotation that `--record` writes and `rollout history` shows.
pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// `--dry-run`.
#[derive(Args, Clone, Debug, Default)]
pub struct DryRunFlag {
    /// none, server or client: with client only print what would be sent, with server send it without keeping it.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "unchanged", value_name = "STRATEGY")]
    dry_run: String,
}

/// Whether changes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// They are.
    No,
    /// Nothing is sent.
    Client,
    /// The server says what would happen.
    Server,
}

impl DryRunFlag {
    /// Understands the flag.
    pub fn strategy(&self, session: &mut Session) -> Result<DryRun> {
        match self.dry_run.as_str() {
            "none" | "" => Ok(DryRun::No),
            "client" => Ok(DryRun::Client),
            "server" => Ok(DryRun::Server),
            "unchanged" => {
                session.warn("W --dry-run is deprecated and can be replaced with --dry-run=client.")?;
                Ok(DryRun::Client)
            }
            "true" | "1" | "t" => {
                session.warn(format!(
                    "W --dry-run={} is deprecated (boolean value) and can be replaced with --dry-run=client.",
                    self.dry_run
                ))?;
                Ok(DryRun::Client)
            }
            "false" | "0" | "f" => {
                session.warn(format!(
                    "W --dry-run={} is deprecated (boolean value) and can be replaced with --dry-run=none.",
                    self.dry_run
                ))?;
                Ok(DryRun::No)
            }
            other => Err(Error::told(format!(
                "Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."
            ))),
        }
    }
}

impl DryRun {
    /// ` (dry run)`, ` (server dry run)` or nothing: what is added to a printed operation.
    pub fn suffix(self) -> &'static str {
        match self {
            DryRun::No => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }

    /// The query of a changing request by `manager`.
    pub fn query(self, manager: &str) -> Vec<(&'static str, String)> {
        let mut query = vec![("fieldManager", manager.to_owned())];
        if self == DryRun::Server {
            query.push(("dryRun", "All".into()));
        }
        query
    }
}

/// `--record`.
#[derive(Args, Clone, Debug, Default)]
pub struct Record {
    /// Write the command into the annotation kubernetes.io/change-cause. Deprecated by kubectl.
    #[arg(long)]
    pub record: bool,
}

impl Record {
    /// True if it was asked for.
    pub fn is_given(&self) -> bool {
        self.record
    }

    /// Says that it is deprecated, as kubectl does.
    pub fn warn(&self, session: &mut Session) -> Result<()> {
        match self.record {
            true => session.warn("Flag --record has been deprecated, --record will be removed in the future"),
            false => Ok(()),
        }
    }

    /// The command, if it is to be recorded.
    pub fn cause(&self, session: &Session) -> Option<String> {
        self.record.then(|| cause(&session.program, &session.argv))
    }

    /// Writes the annotation into an object.
    pub fn annotate(&self, session: &Session, object: &mut Value) {
        if let Some(cause) = self.cause(session) {
            annotate(object, CHANGE_CAUSE, &cause);
        }
    }
}

/// Sets an annotation.
pub fn annotate(object: &mut Value, key: &str, value: &str) {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][key] = value.into();
}

/// `kubectl set image deploy/web web=web:v2 --record=true`: the words first, then the flags in their order.
fn cause(program: &str, argv: &[String]) -> String {
    let mut words =
        vec![Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy().into_owned())];
    let mut flags = Vec::new();
    for word in grammar::split(argv) {
        match word {
            Word::Plain(word) => words.push(word),
            Word::Flag { name, value, .. } => flags.push(format!("--{name}={value}")),
            Word::Rest(rest) => words.extend(rest),
        }
    }
    words.extend(flags);
    words.join(" ")
}

/// Sends a patch that was made from two versions of an object, in the form its kind takes.
pub async fn patch_two_way(
    session: &mut Session,
    found: &crate::objects::Found,
    after: &Value,
    dry_run: DryRun,
    manager: &str,
) -> Result<Value> {
    if dry_run == DryRun::Client || found.object == *after {
        return Ok(after.clone());
    }
    let (media_type, patch) = two_way(&found.object, after)?;
    session.client()?.patch(&found.path(), &dry_run.query(manager), media_type, &patch).await
}

/// The patch from one version of an object to another, with its media type: strategic for built-in kinds.
pub fn two_way(before: &Value, after: &Value) -> Result<(&'static str, Value)> {
    match type_id(before) {
        Some(id) => api::patch::two_way(id, before.clone(), after.clone())
            .map(|patch| (STRATEGIC, patch))
            .map_err(|error| Error::told(error.to_string())),
        None => Ok((MERGE, merge_difference(before, after))),
    }
}

/// Media type of a strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Media type of a JSON merge patch.
pub const MERGE: &str = "application/merge-patch+json";
/// Media type of a JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// The built-in type of an object.
pub fn type_id(object: &Value) -> Option<api::schema::TypeId> {
    api::schema::table().kind(object.text("apiVersion"), object.text("kind"))
}

/// A JSON merge patch from one value to another.
pub fn merge_difference(before: &Value, after: &Value) -> Value {
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return after.clone() };
    let mut patch = serde_json::Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(other) if other.is_object() && value.is_object() => {
                patch.insert(key.clone(), merge_difference(other, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// `--overrides`: a patch of what a generator makes.
#[derive(Args, Clone, Debug)]
pub struct Overrides {
    /// JSON that changes the object before it is created.
    #[arg(long, value_name = "JSON")]
    overrides: Option<String>,
    /// How --overrides is meant: json, merge or strategic.
    #[arg(long, default_value = "merge", value_name = "TYPE")]
    override_type: String,
}

impl Overrides {
    /// The object with the patch (kubectl: `pkg/cmd/util/override_options.go`).
    pub fn apply(&self, object: Value) -> Result<Value> {
        let Some(text) = self.overrides.as_deref().filter(|text| !text.is_empty()) else { return Ok(object) };
        let patch: Value = serde_json::from_str(text)?;
        let refused = |refusal: api::Refusal| Error::refused(refusal.to_value());
        match self.override_type.as_str() {
            "json" => api::patch::json_patch(object, patch).map_err(refused),
            "merge" => api::patch::merge(object, &patch).map_err(refused),
            "strategic" => {
                let id = type_id(&object).ok_or_else(|| Error::told("the object has no built-in type"))?;
                api::patch::strategic(id, object, patch).map_err(|error| Error::told(error.to_string()))
            }
            other => Err(Error::told(format!("invalid override type: {other}"))),
        }
    }
}
