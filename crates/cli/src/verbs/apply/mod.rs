//! `apply`: bring objects to what files say. Mirrors kubectl `pkg/cmd/apply/apply.go` and `patcher.go`; `last_applied.rs` has
//! what looks at the annotation that it remembers by, `prune.rs` what deletes by it.

mod last_applied;
mod prune;

use http::Method;
use serde_json::{Value, json};

use crate::change::{self, DryRun, DryRunFlag, Record};
use crate::client::JSON;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found};
use crate::print::{self, Format, Output};
use crate::session::Session;
use crate::verbs::delete::Deletion;

/// The annotation that remembers what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How often a patch is made anew when another writer was quicker.
const ATTEMPTS: usize = 5;

/// Apply files to the cluster: what is not there is created, what differs is changed.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(flatten)]
    applying: Applying,
    #[command(subcommand)]
    remembered: Option<Remembered>,
}

#[derive(clap::Subcommand)]
enum Remembered {
    #[command(name = "edit-last-applied")]
    Edit(last_applied::EditOptions),
    #[command(name = "set-last-applied")]
    Set(last_applied::SetOptions),
    #[command(name = "view-last-applied")]
    View(last_applied::ViewOptions),
}

#[derive(clap::Args)]
struct Applying {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    record: Record,
    /// Only the objects of the files with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// Take over changes that others made to applied fields.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    overwrite: bool,
    #[command(flatten)]
    deletion: Deletion,
    /// Let the server merge (server-side apply).
    #[arg(long)]
    server_side: bool,
    /// Take over fields of other managers, with --server-side.
    #[arg(long)]
    force_conflicts: bool,
    /// Name the changes are made under.
    #[arg(long)]
    field_manager: Option<String>,
    /// strict (true), warn or ignore (false) unknown and duplicate fields.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    validate: String,
    /// Then delete what an earlier apply made and no file names; needs -l or --all.
    #[arg(long)]
    prune: bool,
    /// Let --prune look through every object of its kinds.
    #[arg(long)]
    all: bool,
    /// A kind that --prune looks through, instead of its own list; may be repeated.
    #[arg(long, value_name = "GROUP/VERSION/KIND")]
    prune_allowlist: Vec<String>,
    /// Apply to a subresource, such as status; with --server-side.
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
}

/// How the server checks fields, from `--validate`.
pub fn validation(text: &str) -> Result<&'static str> {
    match text {
        "true" | "strict" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "false" | "ignore" => Ok("Ignore"),
        other => Err(Error::told(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ))),
    }
}

/// Applies, or looks at what was applied.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.remembered {
        Some(Remembered::Edit(options)) => last_applied::edit(session, options).await,
        Some(Remembered::Set(options)) => last_applied::set(session, options).await,
        Some(Remembered::View(options)) => last_applied::view(session, options).await,
        None => apply(session, options.applying).await,
    }
}

/// Refuses flags that exclude each other, in kubectl's order.
fn check(options: &Applying, dry_run: DryRun) -> Result<()> {
    let (by_server, force) = (options.server_side, options.deletion.force);
    let selected = options.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    let wrong = [
        (options.force_conflicts && !by_server, "--force-conflicts only works with --server-side"),
        (options.subresource.is_some() && !by_server, "--subresource can only be specified for --server-side"),
        (
            by_server && dry_run == DryRun::Client,
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ),
        (force && by_server, "--force cannot be used with --server-side"),
        (force && dry_run == DryRun::Server, "--dry-run=server cannot be used with --force"),
        (options.all && selected, "cannot set --all and --selector at the same time"),
        (
            options.prune && !options.all && !selected,
            "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector",
        ),
        (
            options.prune && by_server,
            "--prune is in alpha and doesn't currently work on objects created by server-side apply",
        ),
    ];
    wrong.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(Error::told(why)))
}

/// Applies every object; goes on after failures, but for deleting what no file names.
async fn apply(session: &mut Session, options: Applying) -> Result<()> {
    options.record.warn(session)?;
    let dry_run = options.dry_run.strategy(session)?;
    let format = options.output.format()?;
    let pruned = match options.prune {
        true => Some(prune::kinds(&*session.client()?.discovery().await?, &options.prune_allowlist)?),
        false => None,
    };
    check(&options, dry_run)?;
    if options.files.is_empty() {
        return Err(Error::told("must specify one of -f and -k"));
    }
    let ask = Ask { files: options.files.clone(), selector: options.selector.clone(), ..Ask::default() };
    let (found, mut errors) = objects::find(session, &ask).await?;
    if found.is_empty() && errors.is_empty() {
        return Err(Error::told("no objects passed to apply"));
    }
    let mut named = prune::Named::default();
    let mut whole = Vec::new();
    for mut item in found {
        options.record.annotate(session, &mut item.object);
        let outcome = match options.server_side {
            true => server_side(session, &options, dry_run, &item).await,
            false => one(session, &options, dry_run, &item).await,
        };
        match outcome {
            Ok((applied, done)) => {
                named.add(&item, &applied);
                match format {
                    Format::Human { .. } | Format::Name => print::done(session, &options.output, &applied, &done)?,
                    _ => whole.push(applied),
                }
            }
            Err(error) => errors.push(error),
        }
    }
    session.pass_on_warnings()?;
    Error::several(errors)?;
    // In the other forms all is printed as one, once nothing has failed.
    match whole.len() {
        0 => {}
        1 => print::done(session, &options.output, &whole[0], "")?,
        _ => print_all(session, &options, &format, whole)?,
    }
    match pruned {
        Some(kinds) => prune::prune(session, &options, dry_run, &kinds, &named).await,
        None => Ok(()),
    }
}

/// Several objects as one; the list itself is a type that kubectl knows, so that its members have their order.
fn print_all(session: &mut Session, options: &Applying, format: &Format, whole: Vec<Value>) -> Result<()> {
    let list = json!({"apiVersion": "v1", "items": whole, "kind": "List", "metadata": {}});
    let text = print::object(format, &list, options.output.show_managed_fields)?;
    let Format::Json = format else { return session.print(text) };
    let plain = print::object(format, &json!({"items": list["items"]}), options.output.show_managed_fields)?;
    let head = "{\n    \"kind\": \"List\",\n    \"apiVersion\": \"v1\",\n    \"metadata\": {},\n";
    session.print(plain.replacen("{\n", head, 1))
}

fn retrieving(item: &Found) -> String {
    format!("retrieving current configuration of:\n{}\nfrom server for:", described(item))
}

/// Applies one object: what it became, and what was done with it.
async fn one(session: &mut Session, options: &Applying, dry_run: DryRun, item: &Found) -> Result<(Value, String)> {
    if item.name.is_empty() {
        let generated = item.object.text("metadata.generateName");
        return Err(match generated.is_empty() {
            true => Error::told("resource name may not be empty").about(&retrieving(item), &item.source),
            false => Error::told(format!("from {generated}: cannot use generate name with apply")),
        });
    }
    let client = session.client()?;
    let wanted = with_last_applied(&item.object);
    let manager = options.field_manager.as_deref().unwrap_or("kubectl-client-side-apply");
    let mut query = dry_run.query(manager);
    query.push(("fieldValidation", validation(&options.validate)?.into()));
    let mut live = match client.get(&item.path(), &[]).await {
        Ok(live) => live,
        Err(error) if error.is_not_found() => {
            let created = match dry_run {
                DryRun::Client => wanted,
                _ => {
                    let path = item.resource.path(item.namespace.as_deref(), None);
                    client.post(&path, &query, &wanted).await.map_err(|error| error.about("creating", &item.source))?
                }
            };
            return Ok((created, format!("created{}", dry_run.suffix())));
        }
        Err(error) => {
            return Err(error.about(&retrieving(item), &item.source));
        }
    };
    if !live.map("metadata.annotations").contains_key(LAST_APPLIED) {
        let text = format!(
            "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by {} apply. {} apply should only be used on resources created declaratively by either {} create --save-config or {} apply. The missing annotation will be patched automatically.",
            item.resource.plural, item.name, session.program, session.program, session.program, session.program
        );
        session.warn(text)?;
    }
    if dry_run == DryRun::Client {
        let (_, patch) = three_way(&live, &wanted)?;
        let shown = api::patch::merge(live, &patch).map_err(|refusal| Error::refused(refusal.to_value()))?;
        return Ok((shown, "configured (dry run)".into()));
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (media_type, patch) = three_way(&live, &wanted)?;
        if patch.as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok((live, format!("unchanged{}", dry_run.suffix())));
        }
        match client.patch(&item.path(), &query, media_type, &patch).await {
            Ok(changed) => return Ok((changed, format!("configured{}", dry_run.suffix()))),
            Err(error) if error.reason() == "Conflict" && attempt < ATTEMPTS => {
                live = client.get(&item.path(), &[]).await?;
            }
            Err(error) if options.deletion.force && matches!(error.reason(), "Conflict" | "Invalid") => {
                options.deletion.delete_and_wait(session, item).await?;
                let path = item.resource.path(item.namespace.as_deref(), None);
                let created = client.post(&path, &query, &wanted).await?;
                return Ok((created, "configured".into()));
            }
            Err(error) => {
                let error = error.about("patching", &item.source);
                let doing = format!(
                    "applying patch:\n{}\nto:\n{}\nfor:",
                    print::html_escaped(&patch.to_string()),
                    described(item)
                );
                return Err(error.about(&doing, &item.source));
            }
        }
    }
}

fn described(item: &Found) -> String {
    let (group_version, plural, kind) = (item.resource.api_version(), &item.resource.plural, &item.resource.kind);
    format!(
        "Resource: \"{group_version}, Resource={plural}\", GroupVersionKind: \"{}, Kind={kind}\"\nName: {:?}, Namespace: {:?}",
        if item.resource.group.is_empty() { format!("/{group_version}") } else { group_version.clone() },
        item.name,
        item.namespace.clone().unwrap_or_default()
    )
    .replace(
        &format!("\"{group_version}, Resource"),
        &if item.resource.group.is_empty() { format!("\"/{group_version}, Resource") } else { format!("\"{group_version}, Resource") },
    )
}

async fn server_side(
    session: &mut Session,
    options: &Applying,
    dry_run: DryRun,
    item: &Found,
) -> Result<(Value, String)> {
    let client = session.client()?;
    let mut query = dry_run.query(options.field_manager.as_deref().unwrap_or("kubectl"));
    query.push(("force", options.force_conflicts.to_string()));
    query.push(("fieldValidation", validation(&options.validate)?.into()));
    let body = Some(("application/apply-patch+yaml", item.object.to_string().into_bytes()));
    let path = match &options.subresource {
        Some(subresource) => format!("{}/{subresource}", item.path()),
        None => item.path(),
    };
    let applied = client.json(Method::PATCH, &path, &query, JSON, body).await;
    match applied {
        Ok(applied) => Ok((applied, format!("serverside-applied{}", dry_run.suffix()))),
        Err(error) if matches!(error.status_code(), 415 | 405 | 501) => {
            Err(error.hinted("this server has no server-side apply: leave --server-side away"))
        }
        Err(error) => Err(error),
    }
}

/// The object without the annotation that remembers another.
pub fn without_last_applied(object: &Value) -> Value {
    let mut plain = object.clone();
    if !plain["metadata"]["annotations"].is_object() {
        plain["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = plain["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    plain
}

/// The object with the annotation that remembers it.
pub fn with_last_applied(object: &Value) -> Value {
    let mut plain = without_last_applied(object);
    let text = print::html_escaped(&plain.to_string()) + "\n";
    change::annotate(&mut plain, LAST_APPLIED, &text);
    plain
}

/// What `live` becomes when `wanted` is applied.
pub fn applied(live: &Value, wanted: &Value) -> Result<Value> {
    let (_, patch) = three_way(live, &with_last_applied(wanted))?;
    match change::type_id(wanted) {
        Some(id) => api::patch::strategic(id, live.clone(), patch).map_err(|error| Error::told(error.to_string())),
        None => api::patch::merge(live.clone(), &patch).map_err(|refusal| Error::refused(refusal.to_value())),
    }
}

/// The patch that brings `live` to `wanted`, dropping what was applied before and is not wanted any more.
pub fn three_way(live: &Value, wanted: &Value) -> Result<(&'static str, Value)> {
    let last = live.map("metadata.annotations").get(LAST_APPLIED).and_then(Value::as_str).unwrap_or("{}");
    let last: Value = serde_json::from_str(last)?;
    match change::type_id(wanted) {
        Some(id) => api::patch::three_way(id, last, wanted.clone(), live.clone())
            .map(|patch| (change::STRATEGIC, patch))
            .map_err(|error| Error::told(error.to_string())),
        None => Ok((change::MERGE, merge_three_way(&last, wanted, live))),
    }
}

/// Changes and additions against what is live, deletions against what was applied last.
fn merge_three_way(last: &Value, wanted: &Value, live: &Value) -> Value {
    let mut patch = only(&change::merge_difference(live, wanted), false);
    let deletions = only(&change::merge_difference(last, wanted), true);
    merge(&mut patch, deletions);
    patch
}

/// Keeps the nulls of a merge patch, or everything but them.
fn only(patch: &Value, nulls: bool) -> Value {
    let Some(map) = patch.as_object() else { return patch.clone() };
    let keep = |(key, value): (&String, &Value)| match value {
        Value::Null => nulls.then(|| (key.clone(), Value::Null)),
        Value::Object(_) => {
            let inner = only(value, nulls);
            (!inner.as_object().is_some_and(serde_json::Map::is_empty)).then(|| (key.clone(), inner))
        }
        other => (!nulls).then(|| (key.clone(), other.clone())),
    };
    map.iter().filter_map(keep).collect::<serde_json::Map<_, _>>().into()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}
