//! `create`: from files, or made from flags. Mirrors kubectl `pkg/cmd/create`.

mod access;
mod config;
mod ingress;
mod misc;
mod service;
mod workload;

use http::Method;
use serde_json::{Value, json};

use super::apply::{validation, with_last_applied};
use super::{edit, raw};
use crate::change::{DryRun, DryRunFlag, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files};
use crate::print::{self, Output};
use crate::session::Session;

/// Create objects from files, or one from flags.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    record: Record,
    /// Only the objects of the files with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// Change the objects in an editor first.
    #[arg(long)]
    edit: bool,
    /// Lines of the file in the editor end as on Windows, with --edit.
    #[arg(long)]
    windows_line_endings: bool,
    /// Send the file to this path of the server as it is.
    #[arg(long, value_name = "URI")]
    raw: Option<String>,
}

/// Flags of everything that creates.
#[derive(clap::Args, Clone, Debug)]
pub struct Making {
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) dry_run: DryRunFlag,
    /// Keep what was asked for in an annotation, for a later `apply`.
    #[arg(long)]
    pub(crate) save_config: bool,
    /// strict (true), warn or ignore (false) unknown and duplicate fields.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    pub(crate) validate: String,
    /// Name the changes are made under.
    #[arg(long, default_value = "kubectl-create")]
    pub(crate) field_manager: String,
}

#[derive(clap::Subcommand)]
enum What {
    #[command(visible_alias = "ns")]
    Namespace(misc::NamespaceOptions),
    #[command(visible_alias = "deploy")]
    Deployment(workload::DeploymentOptions),
    Job(workload::JobOptions),
    #[command(visible_alias = "cj")]
    Cronjob(workload::CronJobOptions),
    #[command(visible_alias = "cm")]
    Configmap(config::ConfigMapOptions),
    Secret(config::SecretOptions),
    #[command(visible_alias = "svc")]
    Service(service::ServiceOptions),
    #[command(visible_alias = "ing")]
    Ingress(ingress::IngressOptions),
    #[command(visible_alias = "sa")]
    Serviceaccount(misc::ServiceAccountOptions),
    Role(access::RoleOptions),
    Clusterrole(access::ClusterRoleOptions),
    Rolebinding(access::RoleBindingOptions),
    Clusterrolebinding(access::ClusterRoleBindingOptions),
    #[command(visible_alias = "resourcequota")]
    Quota(misc::QuotaOptions),
    #[command(visible_alias = "pdb")]
    Poddisruptionbudget(misc::BudgetOptions),
    #[command(visible_alias = "pc")]
    Priorityclass(misc::PriorityClassOptions),
    Token(misc::TokenOptions),
}

/// Creates.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.what {
        Some(What::Namespace(options)) => misc::namespace(session, options).await,
        Some(What::Deployment(options)) => workload::deployment(session, options).await,
        Some(What::Job(options)) => workload::job(session, options).await,
        Some(What::Cronjob(options)) => workload::cron_job(session, options).await,
        Some(What::Configmap(options)) => config::config_map(session, options).await,
        Some(What::Secret(options)) => config::secret(session, options).await,
        Some(What::Service(options)) => service::service(session, options).await,
        Some(What::Ingress(options)) => ingress::ingress(session, options).await,
        Some(What::Serviceaccount(options)) => misc::service_account(session, options).await,
        Some(What::Role(options)) => access::role(session, options).await,
        Some(What::Clusterrole(options)) => access::cluster_role(session, options).await,
        Some(What::Rolebinding(options)) => access::role_binding(session, options).await,
        Some(What::Clusterrolebinding(options)) => access::cluster_role_binding(session, options).await,
        Some(What::Quota(options)) => misc::quota(session, options).await,
        Some(What::Poddisruptionbudget(options)) => misc::budget(session, options).await,
        Some(What::Priorityclass(options)) => misc::priority_class(session, options).await,
        Some(What::Token(options)) => misc::token(session, options).await,
        None => from_files(session, options).await,
    }
}

async fn from_files(session: &mut Session, options: Options) -> Result<()> {
    if options.files.is_empty() {
        return Err(Error::told("must specify one of -f and -k"));
    }
    if let Some(path) = &options.raw {
        let others = [
            ("--edit", options.edit),
            ("--selector (-l)", options.selector.is_some()),
            ("--output", options.making.output.output.is_some()),
        ];
        if let Some((flag, _)) = others.iter().find(|(_, given)| *given) {
            return Err(Error::told(format!("--raw and {flag} are mutually exclusive")));
        }
        return raw::send(session, Method::POST, path, &options.files).await;
    }
    options.record.warn(session)?;
    let dry_run = options.making.dry_run.strategy(session)?;
    validation(&options.making.validate)?;
    let ask = Ask { files: options.files.clone(), selector: options.selector.clone(), ..Ask::default() };
    let (found, mut errors) = objects::find(session, &ask).await?;
    if found.is_empty() && errors.is_empty() {
        return Err(Error::told("no objects passed to create"));
    }
    for mut item in found {
        if options.edit {
            let Some(edited) = edit::before_create(session, &item.object, options.windows_line_endings)? else {
                session.warn("Edit cancelled, saved file was empty.")?;
                continue;
            };
            item.object = edited;
        }
        options.record.annotate(session, &mut item.object);
        match post(session, &options.making, dry_run, &item.object).await {
            Ok(created) => {
                print::done(session, &options.making.output, &created, &format!("created{}", dry_run.suffix()))?;
            }
            Err(error) => errors.push(error.about("creating", &item.source)),
        }
    }
    session.pass_on_warnings()?;
    Error::several(errors)
}

/// Sends an object; with `--dry-run=client` it stays here.
pub(super) async fn post(session: &mut Session, making: &Making, dry_run: DryRun, object: &Value) -> Result<Value> {
    let object = if making.save_config { with_last_applied(object) } else { object.clone() };
    if dry_run == DryRun::Client {
        return Ok(object);
    }
    let client = session.client()?;
    let discovery = client.discovery().await?;
    let (api_version, kind) = (object.text("apiVersion"), object.text("kind"));
    let resource = discovery.kind(api_version, kind).ok_or_else(not_served)?;
    let current = session.namespace()?;
    let written = object.text("metadata.namespace");
    let namespace = if written.is_empty() { current.as_str() } else { written };
    let mut query = dry_run.query(&making.field_manager);
    query.push(("fieldValidation", validation(&making.validate)?.into()));
    client.post(&resource.path(Some(namespace), None), &query, &object).await
}

/// Creates what a generator made, and says so.
pub(super) async fn make(session: &mut Session, making: &Making, mut object: Value, namespaced: bool) -> Result<()> {
    let dry_run = making.dry_run.strategy(session)?;
    making.output.format()?;
    if namespaced && session.namespace_given() {
        object["metadata"]["namespace"] = session.namespace()?.into();
    }
    let created = post(session, making, dry_run, &object).await.map_err(|error| match error.status_code() {
        0 => error,
        _ => failed_to_create(error, &object),
    })?;
    print::made(session, &making.output, &created, &format!("created{}", dry_run.suffix()))
}

/// `failed to create deployment: …`, for the generators whose upstream says so.
fn failed_to_create(error: Error, object: &Value) -> Error {
    let prefixed = matches!(
        object.text("kind"),
        "Deployment"
            | "Job"
            | "CronJob"
            | "ConfigMap"
            | "Secret"
            | "RoleBinding"
            | "Role"
            | "ClusterRoleBinding"
            | "Service"
            | "ServiceAccount"
            | "PriorityClass"
            | "PodDisruptionBudget"
            | "ResourceQuota"
            | "Ingress"
    );
    let words = match object.text("kind") {
        "Service" => format!("{} service", object.text("spec.type")),
        "PodDisruptionBudget" => "poddisruptionbudgets".into(),
        "ResourceQuota" => "quota".into(),
        kind => kind.to_lowercase(),
    };
    match (prefixed, error.reason().is_empty()) {
        (true, false) => Error::told(format!("failed to create {words}: {}", error.inner_message())),
        _ => error,
    }
}

/// What a server says that does not know the path.
fn not_served() -> Error {
    let message = "the server could not find the requested resource";
    Error::refused(json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": message}))
}

/// Name and empty timestamp, as Go's encoder writes them.
pub(super) fn metadata(name: &str) -> Value {
    json!({"creationTimestamp": null, "name": name})
}

/// `key=value` pairs of a flag.
pub(super) fn pair<'a>(text: &'a str, what: &str) -> Result<(&'a str, &'a str)> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| Error::told(format!("invalid {what} {text:?}, expected key=value")))
}

/// Creates a service made from another object: the words of `expose`.
pub(super) async fn make_exposed(session: &mut Session, making: &Making, mut object: Value) -> Result<()> {
    let dry_run = making.dry_run.strategy(session)?;
    if session.namespace_given() || dry_run == DryRun::Client {
        object["metadata"]["namespace"] = session.namespace()?.into();
    }
    let making = Making { field_manager: "kubectl-expose".into(), ..making.clone() };
    let created = post(session, &making, dry_run, &object).await?;
    print::made(session, &making.output, &created, &format!("exposed{}", dry_run.suffix()))
}
