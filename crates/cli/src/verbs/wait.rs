//! `wait`: until objects are as wanted. Mirrors kubectl `pkg/cmd/wait` (wait.go, condition.go, delete.go, json.go).

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use crate::client::{Client, JSON};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found, Labels};
use crate::print::{self, Output, jsonpath};
use crate::session::Session;
use crate::time::flag;

/// How long a wait without end is.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Wait for a condition, a field's value, or the deletion of objects.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    output: Output,
    /// Field selector.
    #[arg(long)]
    field_selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// create, delete, condition=NAME[=VALUE], or jsonpath='{PATH}'[=VALUE].
    #[arg(long = "for")]
    what: Option<String>,
    /// How long to wait; 0 looks once, negative waits a week.
    #[arg(long, default_value = "30s", value_parser = limit, allow_hyphen_values = true, value_name = "DURATION")]
    timeout: Duration,
    /// Look at the objects of the files as they are, without a server.
    #[arg(long)]
    local: bool,
}

enum Wanted {
    Create,
    Delete,
    Condition { name: String, value: String },
    Path { template: jsonpath::Template, value: Option<String> },
}

fn limit(text: &str) -> std::result::Result<Duration, String> {
    match text.strip_prefix('-') {
        Some(text) => flag(text).map(|_| WEEK),
        None => flag(text),
    }
}

/// Waits for every object.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let wanted = wanted(options.what.as_deref().unwrap_or_default())?;
    let timeout = options.timeout;
    let until = tokio::time::Instant::now() + timeout;
    let ask = Ask {
        words: options.words.clone(),
        files: options.files.clone(),
        selector: options.labels.selector.clone(),
        field_selector: options.field_selector.clone(),
        all: options.labels.all,
        all_namespaces: options.all_namespaces,
        live: !options.local,
        local: options.local,
        ..Ask::default()
    };
    if options.local {
        return locally(session, &options, &wanted, &ask).await;
    }
    if matches!(wanted, Wanted::Create) {
        return await_created(session, &options, &ask, until).await;
    }
    let (found, mut errors) = objects::find(session, &ask).await?;
    errors.retain(|error| !(matches!(wanted, Wanted::Delete) && error.is_not_found()));
    if found.is_empty() && errors.is_empty() {
        return match wanted {
            Wanted::Delete => Ok(()),
            _ => Err(Error::told("no matching resources found")),
        };
    }
    for item in found {
        let outcome = match timeout.is_zero() {
            true => look_once(session, &options, &wanted, &item),
            false => one(session, &options, &wanted, &item, until).await,
        };
        errors.extend(outcome.err());
    }
    Error::several(errors)
}

/// Nothing that is only read will change: what is not met now never is.
async fn locally(session: &mut Session, options: &Options, wanted: &Wanted, ask: &Ask) -> Result<()> {
    if options.files.is_empty() {
        return Err(Error::told("--local requires --filename: the server is not asked for the objects"));
    }
    for item in objects::find_all(session, ask).await? {
        look_once(session, options, wanted, &item)?;
    }
    Ok(())
}

/// Judges an object as it was found.
fn look_once(session: &mut Session, options: &Options, wanted: &Wanted, item: &Found) -> Result<()> {
    match met(wanted, &item.object) {
        true => print::done(session, &options.output, &item.object, "condition met"),
        false => Err(Error::told(format!("condition not met for {}/{}", item.resource.plural, item.name))),
    }
}

fn late(item: &Found) -> Error {
    Error::told(format!("timed out waiting for the condition on {}/{}", item.resource.plural, item.name))
}

fn wanted(text: &str) -> Result<Wanted> {
    let lower = text.to_lowercase();
    if lower == "delete" {
        return Ok(Wanted::Delete);
    }
    if lower == "create" {
        return Ok(Wanted::Create);
    }
    if let Some(rest) = text.strip_prefix("condition=") {
        let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
        return Ok(Wanted::Condition { name: name.to_owned(), value: value.to_owned() });
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        if rest.is_empty() {
            return Err(Error::told("jsonpath expression cannot be empty"));
        }
        let (path, value) = match rest.rfind('}').filter(|_| rest.starts_with('{')) {
            Some(end) if end + 1 == rest.len() => (rest, None),
            // What is behind the path and no value makes it no path.
            Some(end) => match rest[end + 1..].strip_prefix('=') {
                Some(value) => (&rest[..=end], Some(value)),
                None => (rest, None),
            },
            None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
        };
        if value == Some("") {
            return Err(Error::told(
                "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{.status.readyReplicas}'=3",
            ));
        }
        let value = value.map(|value| value.trim_matches('\'').trim_matches('"').to_owned());
        return Ok(Wanted::Path { template: jsonpath::Template::field(path)?, value });
    }
    Err(Error::told(format!("unrecognized condition: {text:?}")))
}

async fn one(
    session: &mut Session,
    options: &Options,
    wanted: &Wanted,
    item: &Found,
    until: tokio::time::Instant,
) -> Result<()> {
    let client = session.client()?;
    if let Wanted::Delete = wanted {
        let uid = item.object.text("metadata.uid").to_owned();
        let gone = super::delete::await_gone(session, item, &uid, Duration::ZERO);
        tokio::time::timeout_at(until, gone).await.map_err(|_| late(item))??;
        return print::done(session, &options.output, &item.object, "condition met");
    }
    let reached = self::until(&client, item, |object| met(wanted, object));
    tokio::time::timeout_at(until, reached).await.map_err(|_| late(item))??;
    print::done(session, &options.output, &item.object, "condition met")
}

fn met(wanted: &Wanted, object: &Value) -> bool {
    match wanted {
        Wanted::Condition { name, value } => {
            let condition = object
                .list("status.conditions")
                .iter()
                .find(|condition| condition.text("type").eq_ignore_ascii_case(name));
            condition.is_some_and(|condition| {
                let observed =
                    condition.at("observedGeneration").as_i64().or(object.at("status.observedGeneration").as_i64());
                let current = observed.is_none_or(|observed| observed >= object.number("metadata.generation"));
                current && condition.text("status").eq_ignore_ascii_case(value)
            })
        }
        Wanted::Path { template, value } => match (template.values(object).unwrap_or_default().as_slice(), value) {
            ([], _) => false,
            (_, None) => true,
            ([one], Some(value)) => jsonpath::printed(one) == *value,
            _ => false,
        },
        Wanted::Create | Wanted::Delete => false,
    }
}

/// Watches one object until it is as wanted, through restarts of the server.
pub async fn until(client: &Client, item: &Found, met: impl Fn(&Value) -> bool) -> Result<()> {
    let collection = item.resource.path(item.namespace.as_deref(), None);
    let by_name = ("fieldSelector", format!("metadata.name={}", item.name));
    loop {
        let (namespace, by_name) = (item.namespace.as_deref(), std::slice::from_ref(&by_name));
        let list = client.patiently(async || client.list(&item.resource, namespace, by_name).await).await?;
        if list.list("items").first().is_some_and(&met) {
            return Ok(());
        }
        let revision = list.text("metadata.resourceVersion").to_owned();
        let query = [by_name[0].clone(), ("watch", "true".into()), ("resourceVersion", revision)];
        let mut events = client.patiently(async || client.watch(&collection, &query, JSON).await).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            match event.text("type") {
                "ADDED" | "MODIFIED" if met(&event["object"]) => return Ok(()),
                "ERROR" => break,
                _ => {}
            }
        }
    }
}

async fn await_created(session: &mut Session, options: &Options, ask: &Ask, until: tokio::time::Instant) -> Result<()> {
    /// Between two looks: a list of names may be of several types, which no single watch follows.
    const PAUSE: Duration = Duration::from_millis(200);
    loop {
        let (found, errors) = objects::find(session, ask).await?;
        let there = !found.is_empty() && errors.is_empty();
        if there {
            for item in found {
                print::done(session, &options.output, &item.object, "condition met")?;
            }
            return Ok(());
        }
        if let Some(error) = errors.into_iter().find(|error| !error.is_not_found()) {
            return Err(error);
        }
        if tokio::time::Instant::now() >= until {
            return Err(Error::told("timed out waiting for the condition"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
