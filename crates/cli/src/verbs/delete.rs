//! `delete`: delete objects, and wait until they are gone. Mirrors kubectl `pkg/cmd/delete/delete.go`.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::raw;
use crate::change::{DryRun, DryRunFlag};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found, Labels};
use crate::session::Session;
use crate::time::flag;

/// Delete objects by file, name, label, or all of a type.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    dry_run: DryRunFlag,
    /// Field selector, such as status.phase=Failed.
    #[arg(long)]
    field_selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// What happens to what the object owns: background, foreground or orphan.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "background", default_missing_value = "background")]
    cascade: String,
    /// Seconds a pod gets to end; negative is the pod's own.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// Delete at once, without waiting for the containers to end.
    #[arg(long)]
    force: bool,
    /// Like --grace-period=1.
    #[arg(long)]
    now: bool,
    /// Wait until the objects are gone.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    wait: bool,
    /// How long to wait; 0 follows the object.
    #[arg(long, default_value = "0s", value_parser = flag, value_name = "DURATION")]
    timeout: Duration,
    /// What is not there is no error; with -l and --all it never is.
    #[arg(long)]
    ignore_not_found: bool,
    /// name: print only names.
    #[arg(long, short)]
    output: Option<String>,
    /// Name the objects and ask before they are deleted.
    #[arg(long, short)]
    interactive: bool,
    /// Send DELETE to this path of the server.
    #[arg(long, value_name = "URI")]
    raw: Option<String>,
}

/// How other verbs delete.
#[derive(clap::Args, Clone, Debug)]
pub struct Deletion {
    /// What happens to what a deleted object owns: background, foreground or orphan.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "background", default_missing_value = "background")]
    cascade: String,
    /// Seconds a deleted pod gets to end; negative is the pod's own.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// Delete and make anew: apply what cannot be changed, replace everything. A grace period of 0 needs it.
    #[arg(long)]
    pub force: bool,
    /// How long to wait for a deletion; 0 is without end.
    #[arg(long, default_value = "0s", value_parser = flag, value_name = "DURATION")]
    timeout: Duration,
    /// Wait until deleted objects are gone.
    #[arg(long)]
    wait: bool,
}

impl Deletion {
    /// The flags that mean nothing without --force.
    pub fn check(&self) -> Result<()> {
        let given = [("--grace-period", self.grace_period >= 0), ("--timeout", !self.timeout.is_zero())];
        match given.iter().find(|(_, given)| *given && !self.force) {
            Some((flag, _)) => Err(Error::told(format!("{flag} must have --force specified"))),
            None => Ok(()),
        }
    }

    /// Deletes one object, and waits until it is gone if that is asked for.
    pub async fn delete(&self, session: &mut Session, item: &Found) -> Result<()> {
        self.end(session, item, self.wait).await
    }

    /// Deletes one object and waits until it is gone.
    pub async fn delete_and_wait(&self, session: &mut Session, item: &Found) -> Result<()> {
        self.end(session, item, true).await
    }

    /// The options of a DELETE.
    pub fn body(&self, session: &mut Session) -> Result<Value> {
        let policy = policy(session, &self.cascade)?;
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        // Zero without --force would not wait for the containers: one second is as short as it gets.
        let grace =
            if self.force { self.grace_period } else { self.grace_period.max(i64::from(self.grace_period == 0)) };
        if grace >= 0 {
            body["gracePeriodSeconds"] = grace.into();
        }
        Ok(body)
    }

    async fn end(&self, session: &mut Session, item: &Found, wait: bool) -> Result<()> {
        let body = self.body(session)?;
        let answer = session.client()?.delete(&item.path(), &body).await?;
        let uid = if answer.has("details.uid") { answer.text("details.uid") } else { answer.text("metadata.uid") };
        if wait { await_gone(session, item, uid, self.timeout).await } else { Ok(()) }
    }
}

/// Deletes, then waits.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if let Some(path) = &options.raw {
        if options.interactive {
            return Err(Error::told("--interactive can not be used with --raw"));
        }
        if options.output.is_some() {
            return Err(Error::told("--raw and --output are mutually exclusive"));
        }
        return raw::send(session, Method::DELETE, path, &options.files).await;
    }
    let dry_run = options.dry_run.strategy(session)?;
    let policy = policy(session, &options.cascade)?;
    check(&options)?;
    let quiet = match options.output.as_deref() {
        None | Some("") => false,
        Some("name") => true,
        Some(other) => {
            return Err(Error::told(format!("unexpected -o output mode: {other}. We only support '-o name'")));
        }
    };
    let many = options.labels.all || options.labels.selector.is_some() || options.field_selector.is_some();
    let ask = Ask {
        words: options.words.clone(),
        files: options.files.clone(),
        selector: options.labels.selector.clone(),
        field_selector: options.field_selector.clone(),
        all: options.labels.all,
        all_namespaces: options.all_namespaces,
        ..Ask::default()
    };
    if options.words.is_empty() && options.files.is_empty() {
        return Err(Error::told(
            "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
        ));
    }
    let named = options.files.is_empty() && !many;
    let (found, mut errors) = match named {
        // Names are not looked up first: the server's answer to DELETE says whether they are there.
        true => (targets(session, &ask).await?, Vec::new()),
        false => objects::find(session, &ask).await?,
    };
    if found.is_empty() && errors.is_empty() {
        return match quiet {
            true => Ok(()),
            false => session.say("No resources found"),
        };
    }
    if options.interactive && !is_confirmed(session, &found)? {
        session.say("deletion is cancelled")?;
        return Error::several(errors);
    }
    if options.force && grace(&options) == 0 {
        session.warn("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.")?;
    }
    if session.namespace_given() && found.iter().any(|item| item.namespace.is_none()) {
        session.warn("Warning: deleting cluster-scoped resources, not scoped to the provided namespace")?;
    }
    let mut gone = Vec::new();
    for item in found {
        match delete(session, &options, dry_run, policy, &item).await {
            Ok(uid) => {
                let line = match quiet {
                    true => item.printed(),
                    false => {
                        let how = if options.force && grace(&options) == 0 { "force deleted" } else { "deleted" };
                        format!("{} {:?} {how}{}", item.resource.printed_kind(), item.name, dry_run.suffix())
                    }
                };
                session.say(line)?;
                gone.push((item, uid));
            }
            Err(error) if error.is_not_found() && (options.ignore_not_found || many) => {}
            Err(error) => {
                let target = objects::Target {
                    resource: item.resource.clone(),
                    namespace: item.namespace.clone(),
                    name: Some(item.name.clone()),
                };
                let error = if item.source.is_empty() { error } else { error.about("deleting", &item.source) };
                errors.push(objects::elsewhere(session, error, &target).await);
            }
        }
    }
    session.pass_on_warnings()?;
    if options.wait && dry_run == DryRun::No {
        for (item, uid) in gone {
            await_gone(session, &item, &uid, options.timeout).await?;
        }
    }
    Error::several(errors)
}

/// Asks before anything is deleted.
fn is_confirmed(session: &mut Session, found: &[Found]) -> Result<bool> {
    session.say(format!("You are about to delete the following {} resource(s):", found.len()))?;
    for item in found {
        session.say(item.printed())?;
    }
    session.print("Do you want to continue? (y/n): ")?;
    session.io.stdout.flush()?;
    let mut answer = String::new();
    BufReader::new(&mut session.io.stdin).read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

async fn targets(session: &mut Session, ask: &Ask) -> Result<Vec<Found>> {
    let targets = objects::targets(session, ask).await?;
    let named = targets.into_iter().map(|target| match target.name {
        Some(name) => Ok(Found {
            resource: target.resource,
            namespace: target.namespace,
            name,
            source: String::new(),
            object: Value::Null,
        }),
        None => Err(Error::told("resource(s) were provided, but no name was specified")),
    });
    named.collect()
}

fn check(options: &Options) -> Result<()> {
    if options.labels.all && options.labels.selector.is_some() {
        return Err(Error::told("cannot set --all and --selector at the same time"));
    }
    if options.labels.all && options.field_selector.is_some() {
        return Err(Error::told("setting 'all' parameter but found a non empty selector. "));
    }
    if options.labels.all {
        refuse_names_with_all(&options.words)?;
    }
    if options.now && options.grace_period != -1 {
        return Err(Error::told("--now and --grace-period cannot be specified together"));
    }
    if options.force && (options.grace_period > 0 || options.now) {
        return Err(Error::told("--force and --grace-period greater than 0 cannot be specified together"));
    }
    Ok(())
}

/// `--all` is a selector of everything: nothing is deleted by a name that stands beside it.
fn refuse_names_with_all(words: &[String]) -> Result<()> {
    match words {
        [first, ..] if first.contains('/') => {
            Err(Error::told("selectors and the all flag cannot be used when passing resource/name arguments"))
        }
        [_, _, ..] => Err(Error::told("name cannot be provided when a selector is specified")),
        _ => Ok(()),
    }
}

/// Seconds to ask for; negative asks for none.
fn grace(options: &Options) -> i64 {
    match (options.now, options.force, options.grace_period) {
        (true, _, _) => 1,
        (_, true, -1) => 0,
        // Zero without --force would not wait for the containers: one second is as short as it gets.
        (_, false, 0) => 1,
        (_, _, seconds) => seconds,
    }
}

fn policy(session: &mut Session, cascade: &str) -> Result<&'static str> {
    let old = |session: &mut Session, new: &str| {
        session.warn(format!(
            "warning: --cascade={cascade} is deprecated (boolean value) and can be replaced with --cascade={new}."
        ))
    };
    match cascade {
        "background" => Ok("Background"),
        "foreground" => Ok("Foreground"),
        "orphan" => Ok("Orphan"),
        "true" => old(session, "background").map(|()| "Background"),
        "false" => old(session, "orphan").map(|()| "Orphan"),
        other => Err(Error::told(format!(
            "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
        ))),
    }
}

async fn delete(
    session: &mut Session,
    options: &Options,
    dry_run: DryRun,
    policy: &str,
    item: &Found,
) -> Result<String> {
    let client = session.client()?;
    if dry_run == DryRun::Client {
        return Ok(String::new());
    }
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    if grace(options) >= 0 {
        body["gracePeriodSeconds"] = grace(options).into();
    }
    if dry_run == DryRun::Server {
        body["dryRun"] = json!(["All"]);
    }
    let answer = client.delete(&item.path(), &body).await?;
    let uid = answer.text("details.uid");
    Ok(if uid.is_empty() { answer.text("metadata.uid").to_owned() } else { uid.to_owned() })
}

/// Watches until the object with this uid is not there any more. A timeout of zero is none.
pub async fn await_gone(session: &mut Session, item: &Found, uid: &str, timeout: Duration) -> Result<()> {
    let follow = follow(session, item, uid);
    if timeout.is_zero() {
        return follow.await;
    }
    let late = || Error::told(format!("timed out waiting for the condition on {}/{}", item.resource.plural, item.name));
    tokio::time::timeout(timeout, follow).await.map_err(|_| late())?
}

async fn follow(session: &mut Session, item: &Found, uid: &str) -> Result<()> {
    let client = session.client()?;
    let collection = item.resource.path(item.namespace.as_deref(), None);
    let by_name = ("fieldSelector", format!("metadata.name={}", item.name));
    loop {
        let list = client.patiently(async || client.get(&collection, std::slice::from_ref(&by_name)).await).await?;
        let here = list.list("items").first();
        if here.is_none_or(|object| !uid.is_empty() && object.text("metadata.uid") != uid) {
            return Ok(());
        }
        let revision = list.text("metadata.resourceVersion").to_owned();
        let query = [by_name.clone(), ("watch", "true".into()), ("resourceVersion", revision)];
        let mut events =
            client.patiently(async || client.watch(&collection, &query, crate::client::JSON).await).await?;
        while let Some(event) = events.next().await {
            if event?.text("type") == "DELETED" {
                return Ok(());
            }
        }
        // The watch has ended: look again.
    }
}
