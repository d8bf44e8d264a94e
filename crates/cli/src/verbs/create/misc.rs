//! `create namespace|serviceaccount|quota|poddisruptionbudget|priorityclass|token`. Mirrors the files of those names in kubectl
//! `pkg/cmd/create`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Making, make, metadata};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::print::Output;
use crate::session::Session;

/// Create a namespace.
#[derive(clap::Args)]
pub struct NamespaceOptions {
    /// Its name.
    name: String,
    #[command(flatten)]
    making: Making,
}

/// Create a service account.
#[derive(clap::Args)]
pub struct ServiceAccountOptions {
    /// Its name.
    name: String,
    #[command(flatten)]
    making: Making,
}

/// Create a quota.
#[derive(clap::Args)]
pub struct QuotaOptions {
    /// Its name.
    name: String,
    /// RESOURCE=AMOUNT, with commas.
    #[arg(long, value_delimiter = ',')]
    hard: Vec<String>,
    /// For which objects, with commas.
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// Create a pod disruption budget.
#[derive(clap::Args)]
pub struct BudgetOptions {
    /// Its name.
    name: String,
    /// Label selector of the pods.
    #[arg(long)]
    selector: Option<String>,
    /// Number or percentage of pods that must stay.
    #[arg(long)]
    min_available: Option<String>,
    /// Number or percentage of pods that may be away.
    #[arg(long)]
    max_unavailable: Option<String>,
    #[command(flatten)]
    making: Making,
}

/// Create a priority class.
#[derive(clap::Args)]
pub struct PriorityClassOptions {
    /// Its name.
    name: String,
    /// The priority.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    value: i32,
    /// For pods without a class.
    #[arg(long)]
    global_default: bool,
    /// What it is for.
    #[arg(long, default_value = "")]
    description: String,
    /// PreemptLowerPriority or Never.
    #[arg(long, default_value = "PreemptLowerPriority")]
    preemption_policy: String,
    #[command(flatten)]
    making: Making,
}

/// Ask for a token of a service account.
#[derive(clap::Args)]
pub struct TokenOptions {
    /// The service account.
    name: String,
    /// For whom it is valid; may be repeated.
    #[arg(long)]
    audience: Vec<String>,
    /// How long it is valid, such as 10m.
    #[arg(long, value_parser = crate::time::flag, value_name = "DURATION")]
    duration: Option<Duration>,
    /// Pod, Secret or Node: it is valid for as long as this object is there.
    #[arg(long, value_name = "KIND")]
    bound_object_kind: Option<String>,
    /// Name of the object that it is bound to.
    #[arg(long, value_name = "NAME")]
    bound_object_name: Option<String>,
    /// Uid of the object that it is bound to; without it, that of the object there is.
    #[arg(long, value_name = "UID")]
    bound_object_uid: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn namespace(session: &mut Session, options: NamespaceOptions) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": metadata(&options.name), "spec": {}, "status": {},
    });
    make(session, &options.making, object, false).await
}

pub(super) async fn service_account(session: &mut Session, options: ServiceAccountOptions) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(&options.name)});
    make(session, &options.making, object, true).await
}

pub(super) async fn quota(session: &mut Session, options: QuotaOptions) -> Result<()> {
    let mut spec = json!({});
    for text in &options.hard {
        let wrong = || Error::told(format!("Invalid argument syntax {text}, expected <resource>=<value>"));
        let (resource, amount) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        api::quantity::Amount::parse(amount).map_err(|error| Error::told(error.to_string()))?;
        spec["hard"][resource] = amount.into();
    }
    if !options.scopes.is_empty() {
        spec["scopes"] = options.scopes.clone().into();
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata(&options.name), "spec": spec, "status": {},
    });
    make(session, &options.making, object, true).await
}

pub(super) async fn budget(session: &mut Session, options: BudgetOptions) -> Result<()> {
    let selector = options.selector.as_deref().ok_or_else(|| Error::told("a selector must be specified"))?;
    let number_or_percent = |text: &str| text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from);
    let mut spec = json!({"selector": label_selector(selector)?});
    match (&options.min_available, &options.max_unavailable) {
        (Some(text), None) => spec["minAvailable"] = number_or_percent(text),
        (None, Some(text)) => spec["maxUnavailable"] = number_or_percent(text),
        (Some(_), Some(_)) => {
            return Err(Error::told("min-available and max-unavailable cannot be both specified"));
        }
        _ => return Err(Error::told("one of min-available or max-unavailable must be specified")),
    }
    let object = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(&options.name),
        "spec": spec,
        "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
    });
    make(session, &options.making, object, true).await
}

fn label_selector(text: &str) -> Result<Value> {
    let parsed = api::selector::Selector::parse(text).map_err(|error| Error::told(error.to_string()))?;
    let mut selector = json!({});
    for requirement in parsed.requirements() {
        match requirement.operator() {
            api::selector::Operator::Equals => {
                selector["matchLabels"][requirement.key()] = requirement.values()[0].clone().into();
            }
            _ => return Err(Error::told(format!("the selector {text:?} is too much for a flag: write a manifest"))),
        }
    }
    Ok(selector)
}

pub(super) async fn priority_class(session: &mut Session, options: PriorityClassOptions) -> Result<()> {
    let mut object = json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": metadata(&options.name),
        "preemptionPolicy": options.preemption_policy,
        "value": options.value,
    });
    if !options.description.is_empty() {
        object["description"] = options.description.into();
    }
    if options.global_default {
        object["globalDefault"] = true.into();
    }
    make(session, &options.making, object, false).await
}

pub(super) async fn token(session: &mut Session, options: TokenOptions) -> Result<()> {
    let namespace = session.namespace()?;
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{}/token", options.name);
    let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    if !options.audience.is_empty() {
        request["spec"]["audiences"] = options.audience.clone().into();
    }
    if let Some(bound) = bound_object(&options)? {
        request["spec"]["boundObjectRef"] = bound;
    }
    if let Some(duration) = options.duration {
        if duration.subsec_nanos() != 0 {
            return Err(Error::told("--duration cannot be expressed in units less than seconds"));
        }
        request["spec"]["expirationSeconds"] = duration.as_secs().into();
    }
    let answer = session
        .client()?
        .post(&path, &[], &request)
        .await
        .map_err(|error| Error::told(format!("failed to create token: {}", error.inner_message())))?;
    match options.output.output.is_some() {
        true => crate::print::made(session, &options.output, &answer, "created"),
        false => session.say(answer.text("status.token")),
    }
}

/// What a token is bound to.
fn bound_object(options: &TokenOptions) -> Result<Option<Value>> {
    let [name, uid] = [&options.bound_object_name, &options.bound_object_uid].map(|text| text.as_deref().unwrap_or(""));
    let Some(kind) = options.bound_object_kind.as_deref().filter(|kind| !kind.is_empty()) else {
        let given = [("name", name), ("uid", uid)].into_iter().find(|(_, value)| !value.is_empty());
        return given.map_or(Ok(None), |(flag, _)| {
            Err(Error::told(format!("--bound-object-{flag} can only be set if --bound-object-kind is provided")))
        });
    };
    if !matches!(kind, "Node" | "Pod" | "Secret") {
        return Err(Error::told("supported --bound-object-kind values are Node, Pod, Secret"));
    }
    if name.is_empty() {
        return Err(Error::told("--bound-object-name is required if --bound-object-kind is provided"));
    }
    let mut bound = json!({"kind": kind, "apiVersion": "v1", "name": name});
    if !uid.is_empty() {
        bound["uid"] = uid.into();
    }
    Ok(Some(bound))
}
