//! `rolling-update`: replaces the pods of a ReplicationController, one by one, from the client.
//!
//! Mirrors kubectl 1.17 `pkg/kubectl/cmd/rollingupdate.go` and `pkg/kubectl/rolling_updater.go`; kubectl has it no more. What is decided
//! is in `plan.rs` (sizes) and `controllers.rs` (objects); this file does it. Everything it has to know to go on after an interruption
//! is in annotations of the two controllers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::change::{DryRun, DryRunFlag, MERGE};
use crate::client::Client;
use crate::discovery::Resource;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects;
use crate::print::{self, Format, Output};
use crate::session::Session;
use crate::time::flag;
use crate::verbs::rollout::{live::is_ready, revisions::is_controlled_by};

mod controllers;
mod plan;

use controllers::{DESIRED, NEXT, ORIGINAL, SOURCE};
use plan::{Bounds, Sizes};

/// Between two looks for something that takes no time on most clusters.
const SHORTLY: Duration = Duration::from_millis(100);
/// How long a deleted controller may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// Replace the pods of a replication controller one by one by pods of another image or of another manifest.
///
/// A new controller grows while the old one shrinks; in the end the old one is deleted. Without NEW_NAME the new one gets the old
/// name. After an interruption or a timeout the same command goes on; --rollback, alone or after the same command, goes back. A
/// Deployment does this by itself: see `rollout`.
///
/// Examples:
///   kapstan rolling-update frontend --image=image:v2
///   kapstan rolling-update frontend-v1 frontend-v2 --image=image:v2
///   kapstan rolling-update frontend-v1 -f frontend-v2.json
///   kapstan rolling-update frontend --rollback
///   kapstan rolling-update frontend --image=image:v2 --rollback=true
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// NAME of the controller, and the NEW_NAME it shall have.
    words: Vec<String>,
    /// The new image; must not be the one it has.
    #[arg(long)]
    image: Option<String>,
    /// File with the new controller; - is standard input.
    #[arg(long, short, value_name = "FILE")]
    filename: Vec<String>,
    /// Go back to how it was before an update that is under way.
    #[arg(long)]
    rollback: bool,
    /// Time to wait between updating pods.
    #[arg(long, default_value = "1m0s", value_parser = flag, value_name = "DURATION")]
    update_period: Duration,
    /// Time between two looks at a controller.
    #[arg(long, default_value = "3s", value_parser = flag, value_name = "DURATION")]
    poll_interval: Duration,
    /// How long there may be no progress.
    #[arg(long, default_value = "5m0s", value_parser = flag, value_name = "DURATION")]
    timeout: Duration,
    /// The container that gets the image; needed if there are several.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// The label that tells the two controllers apart, with --image.
    #[arg(long, default_value = "deployment", value_name = "KEY")]
    deployment_label_key: String,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    output: Output,
}

/// What becomes of the controllers in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The old one goes, the new one takes its name.
    Rename,
    /// The old one goes.
    Delete,
    /// The one that was to come goes.
    Back,
}

/// Updates.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    check(session, &options)?;
    let dry_run = options.dry_run.strategy(session)?;
    if dry_run == DryRun::Server {
        return Err(Error::told("--dry-run=server is not possible: an update is many steps")
            .hinted("--dry-run=client prints the controllers"));
    }
    let format = options.output.format()?;
    let update = Update::new(session, &options).await?;
    let name = options.words[0].clone();
    let outcome = tokio::select! {
        outcome = update.run(session, &options, dry_run) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Error::bare("interrupted").hinted(go_on(&update.program, &name))),
    };
    let Some(done) = outcome? else { return Ok(()) };
    match format {
        Format::Human { .. } => {
            session.say(format!("replicationcontroller {:?} rolling updated", done.text("metadata.name")))
        }
        _ => print::done(session, &options.output, &done, "rolling updated"),
    }
}

fn go_on(program: &str, name: &str) -> String {
    format!(
        "both controllers are left as they are: the same command goes on, `{program} rolling-update {name} --rollback` goes back"
    )
}

fn check(session: &Session, options: &Options) -> Result<()> {
    let wrong = |message: &str| Err(session.usage("rolling-update", message));
    let (file, image) = (!options.filename.is_empty(), options.image.is_some());
    match (options.rollback, file, image) {
        _ if options.deployment_label_key.is_empty() => wrong("--deployment-label-key can not be empty"),
        _ if options.filename.len() > 1 => wrong("May only specify a single filename for new controller"),
        (false, false, false) => wrong("Must specify --filename or --image for new controller"),
        (_, true, true) => wrong("--filename and --image can not both be specified"),
        _ if options.words.is_empty() => wrong("Must specify the controller to update"),
        _ if options.words.get(1) == Some(&options.words[0]) => {
            wrong("The new name must be another than the controller's; without a new name it keeps its own")
        }
        _ if options.words.len() > 2 => wrong("Must specify at most two names: the controller's, and its new one"),
        _ => Ok(()),
    }
}

/// The means of an update.
struct Update {
    program: String,
    client: Client,
    resource: Resource,
    pods: Resource,
    namespace: String,
    period: Duration,
    interval: Duration,
    timeout: Duration,
}

impl Update {
    async fn new(session: &mut Session, options: &Options) -> Result<Update> {
        let (period, interval, timeout) = (options.update_period, options.poll_interval, options.timeout);
        let client = session.client()?;
        let discovery = client.discovery().await?;
        let resource = discovery.resource("replicationcontrollers")?.clone();
        let pods = discovery.resource("pods")?.clone();
        let program = session.program.clone();
        Ok(Update { program, client, resource, pods, namespace: session.namespace()?, period, interval, timeout })
    }

    /// The whole update; gives the controller that is there in the end, or nothing for a dry run.
    async fn run(&self, session: &mut Session, options: &Options, dry_run: DryRun) -> Result<Option<Value>> {
        let name = &options.words[0];
        let keeps_name = options.words.len() == 1;
        let old = match self.get(name).await {
            Ok(old) => old,
            Err(error) if error.is_not_found() && options.image.is_some() && keeps_name => {
                return self.finish_renaming(name, error).await.map(Some);
            }
            Err(error) => return Err(error),
        };
        if options.rollback {
            return self.back(session, options, old, dry_run).await;
        }
        let (old, new, end) = match &options.image {
            Some(image) => {
                let new = self.next_with_image(session, options, &old, image).await?;
                if dry_run == DryRun::No {
                    let key = &options.deployment_label_key;
                    (self.mark_old(old, &new, key).await?, new, if keeps_name { End::Rename } else { End::Delete })
                } else {
                    return dry(session, &old, &new, options).map(|()| None);
                }
            }
            None => {
                let new = self.next_from_file(session, options, &old).await?;
                if dry_run != DryRun::No {
                    return dry(session, &old, &new, options).map(|()| None);
                }
                (old, new, End::Delete)
            }
        };
        let (new, existed) = self.create(&old, new).await?;
        let told = if existed { "Continuing update with existing controller" } else { "Created" };
        session.say(format!("{told} {}{}", new.text("metadata.name"), if existed { "." } else { "" }))?;
        let old = self.keep_original(old).await?;
        let original = controllers::count(&old, ORIGINAL).unwrap_or_else(|| old.number("spec.replicas"));
        self.roll(session, old, new, original, end).await.map(Some)
    }

    fn path(&self, name: &str) -> String {
        self.resource.path(Some(&self.namespace), Some(name))
    }

    async fn get(&self, name: &str) -> Result<Value> {
        self.client.get(&self.path(name), &[]).await
    }

    async fn find(&self, name: &str) -> Result<Option<Value>> {
        match self.get(name).await {
            Ok(controller) => Ok(Some(controller)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, name: &str, patch: &Value) -> Result<Value> {
        self.client.patch(&self.path(name), &DryRun::No.query("kubectl-rolling-update"), MERGE, patch).await
    }

    /// The controller that an interrupted update left, or a new one to be created.
    async fn next_with_image(
        &self,
        session: &mut Session,
        options: &Options,
        old: &Value,
        image: &str,
    ) -> Result<Value> {
        let named = options.words.get(1).map(String::as_str);
        if let Some(name) = named.or_else(|| controllers::annotation(old, NEXT))
            && let Some(known) = self.find(name).await?
        {
            check_under_way(&known, image, options.container.as_deref())?;
            session.say(format!("Found existing update in progress ({name}), resuming."))?;
            return Ok(known);
        }
        controllers::with_image(old, named, image, options.container.as_deref(), &options.deployment_label_key)
    }

    async fn next_from_file(&self, session: &mut Session, options: &Options, old: &Value) -> Result<Value> {
        let file = &options.filename[0];
        let (mut manifests, errors) = crate::manifests::read(session, &options.filename, false).await?;
        Error::several(errors)?;
        let manifest = match manifests.len() {
            1 => manifests.remove(0),
            0 => return Err(Error::told(format!("please make sure {file} exists and is not empty"))),
            _ => return Err(Error::told(format!("{file} specifies multiple items"))),
        };
        let placed = objects::place(session, manifest).await?;
        if placed.namespace.as_ref().is_some_and(|namespace| *namespace != self.namespace) {
            let message = format!("{file} must specify the same namespace as {}: {}", options.words[0], self.namespace);
            return Err(Error::told(message));
        }
        let mut new = controllers::from_file(placed.object, old, file)?;
        if let Some(name) = options.words.get(1) {
            new["metadata"]["name"] = name.clone().into();
        }
        controllers::check_differs(old, &new, file)?;
        Ok(new)
    }

    /// Notes the next controller on the old one, and gives it and its pods the label that tells them from the next one's.
    async fn mark_old(&self, old: Value, new: &Value, key: &str) -> Result<Value> {
        let name = old.text("metadata.name").to_owned();
        let mut patch = controllers::annotate_patch(&[(NEXT, Some(new.text("metadata.name")))]);
        if old.map("spec.selector").contains_key(key) {
            return self.patch(&name, &patch).await;
        }
        // First the template, so that pods made from now on have the label; then the pods there are; then the selector.
        let label = controllers::hash(&old);
        patch["spec"] = json!({"template": {"metadata": {"labels": {key: label}}}});
        self.patch(&name, &patch).await?;
        for pod in self.pods_of(&old).await? {
            let path = self.pods.path(Some(&self.namespace), Some(pod.text("metadata.name")));
            let labels = json!({"metadata": {"labels": {key: label}}});
            let labelled = self.client.patch(&path, &DryRun::No.query("kubectl-rolling-update"), MERGE, &labels).await;
            labelled.map(drop).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
        }
        let marked = self.patch(&name, &json!({"spec": {"selector": {key: label}}})).await?;
        self.remove_strays(&old, key, &label).await?;
        Ok(marked)
    }

    /// Deletes pods that the old controller made without the label, before it knew its new template.
    async fn remove_strays(&self, old: &Value, key: &str, label: &str) -> Result<()> {
        for pod in self.pods_of(old).await? {
            if pod.map("metadata.labels").get(key).and_then(Value::as_str) != Some(label) {
                let path = self.pods.path(Some(&self.namespace), Some(pod.text("metadata.name")));
                let deleted = self.client.delete(&path, &json!({})).await;
                deleted.map(drop).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
            }
        }
        Ok(())
    }

    /// The pods that a controller selects and that nobody else controls.
    async fn pods_of(&self, controller: &Value) -> Result<Vec<Value>> {
        let selector: Vec<String> =
            controller.labels("spec.selector").iter().map(|(key, value)| format!("{key}={value}")).collect();
        let query = [("labelSelector", selector.join(","))];
        let mut list = self.client.list(&self.pods, Some(&self.namespace), &query).await?;
        let mut pods = objects::items(&mut list);
        let uid = controller.text("metadata.uid");
        pods.retain(|pod| is_controlled_by(pod, uid) || pod.list("metadata.ownerReferences").is_empty());
        Ok(pods)
    }

    /// Creates the new controller, empty; or finds the one that an interrupted update made.
    async fn create(&self, old: &Value, new: Value) -> Result<(Value, bool)> {
        let name = new.text("metadata.name");
        if let Some(known) = self.find(name).await? {
            let (source, expected) = (controllers::annotation(&known, SOURCE), controllers::source_id(old));
            if source != Some(&expected) || controllers::count(&known, DESIRED).is_none() {
                return Err(Error::told(format!(
                    "Missing/unexpected annotations for controller {name}, expected {expected} : {}",
                    known.at("metadata.annotations")
                )));
            }
            return Ok((known, true));
        }
        let empty = controllers::empty(&new, old)?;
        let path = self.resource.path(Some(&self.namespace), None);
        Ok((self.client.post(&path, &DryRun::No.query("kubectl-rolling-update"), &empty).await?, false))
    }

    async fn keep_original(&self, old: Value) -> Result<Value> {
        if controllers::annotation(&old, ORIGINAL).is_some() {
            return Ok(old);
        }
        let size = old.number("spec.replicas").to_string();
        self.patch(old.text("metadata.name"), &controllers::annotate_patch(&[(ORIGINAL, Some(&size))])).await
    }

    /// Turns an update around: what was new shrinks, what was old grows to its former size.
    async fn back(
        &self,
        session: &mut Session,
        options: &Options,
        first: Value,
        dry_run: DryRun,
    ) -> Result<Option<Value>> {
        let name = first.text("metadata.name").to_owned();
        let of_file = match options.filename.is_empty() {
            true => None,
            false => Some(self.next_from_file(session, options, &first).await?.text("metadata.name").to_owned()),
        };
        let named = options.words.get(1).map(String::as_str).or(of_file.as_deref());
        let named = named.or_else(|| controllers::annotation(&first, NEXT));
        let missing = || {
            let error = Error::told(format!("Could not find {} to rollback.", named.unwrap_or("an update")));
            error.hinted(format!("no update of {name} is under way; `rollout undo` is for Deployments"))
        };
        let next = match named {
            Some(next) => self.find(next).await?.ok_or_else(missing)?,
            None => return Err(missing()),
        };
        if let Some(image) = &options.image {
            check_under_way(&next, image, options.container.as_deref())?;
        }
        let Some(size) = controllers::count(&first, ORIGINAL) else {
            return Err(Error::told(format!("couldn't find original replica count of {name:?}")));
        };
        if dry_run != DryRun::No {
            return dry(session, &next, &first, options).map(|()| None);
        }
        session.say(format!("Setting {name:?} replicas to {size}"))?;
        let (source, size) = (controllers::source_id(&next), size.to_string());
        let annotations = controllers::annotate_patch(&[(SOURCE, Some(&source)), (DESIRED, Some(&size))]);
        let first = self.patch(&name, &annotations).await?;
        session.say(format!("Continuing update with existing controller {name}."))?;
        let there = first.number("spec.replicas") + next.number("spec.replicas");
        self.roll(session, next, first, there, End::Back).await.map(Some)
    }

    /// Grows the new controller and shrinks the old one until the new one has its size, then cleans up.
    async fn roll(&self, session: &mut Session, old: Value, new: Value, original: i64, end: End) -> Result<Value> {
        let (old_name, new_name) = (old.text("metadata.name").to_owned(), new.text("metadata.name").to_owned());
        let desired = controllers::count(&new, DESIRED).unwrap_or_else(|| new.number("spec.replicas"));
        let bounds = Bounds::new(original, desired);
        let mut sizes = Sizes { old: old.number("spec.replicas"), new: new.number("spec.replicas"), available: 0 };
        session.say(bounds.announce(&old_name, &new_name, sizes))?;
        let mut until = Instant::now() + self.timeout;
        while !bounds.is_done(sizes) {
            let before = sizes;
            if let Some(size) = bounds.up(sizes) {
                session.say(format!("Scaling {new_name} up to {size}"))?;
                self.scale(&new_name, size).await.map_err(|error| self.timed_out(error, &old_name))?;
                sizes.new = size;
                tokio::time::sleep(self.period).await;
            }
            sizes.available = self.available(&new).await?;
            if let Some(size) = bounds.down(sizes) {
                session.say(format!("Scaling {old_name} down to {size}"))?;
                self.scale(&old_name, size).await.map_err(|error| self.timed_out(error, &old_name))?;
                sizes.old = size;
            }
            if (sizes.old, sizes.new) != (before.old, before.new) {
                until = Instant::now() + self.timeout;
            } else if until <= Instant::now() {
                return Err(
                    self.timed_out(Error::told("timed out waiting for any update progress to be made"), &old_name)
                );
            } else {
                tokio::time::sleep(self.interval.max(SHORTLY)).await;
            }
        }
        self.clean_up(session, &old_name, &new_name, end).await
    }

    async fn available(&self, controller: &Value) -> Result<i64> {
        let pods = self.pods_of(controller).await?;
        let available = pods.iter().filter(|pod| is_ready(pod) && !pod.has("metadata.deletionTimestamp")).count();
        Ok(i64::try_from(available).unwrap_or(i64::MAX))
    }

    /// Sets a controller's size and waits until it has so many pods.
    async fn scale(&self, name: &str, size: i64) -> Result<()> {
        self.patch(name, &json!({"spec": {"replicas": size}})).await?;
        let until = Instant::now() + self.timeout;
        // The first looks are quick: most clusters need no more.
        let mut pause = SHORTLY.min(self.interval);
        loop {
            let seen = self.get(name).await?;
            let observed = seen.number("metadata.generation") <= seen.number("status.observedGeneration");
            let is_reached = observed && seen.number("status.replicas") == size;
            // Somebody else has set another size: there is nothing to wait for.
            if is_reached || seen.number("spec.replicas") != size {
                return Ok(());
            }
            if until <= Instant::now() {
                return Err(Error::told(format!("timed out waiting for {name} to have {size} replicas")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.interval).max(SHORTLY);
        }
    }

    async fn clean_up(&self, session: &mut Session, old: &str, new: &str, end: End) -> Result<Value> {
        let old_or_next = if end == End::Back { "" } else { "old controller: " };
        session.say(format!("Update succeeded. Deleting {old_or_next}{old}"))?;
        self.client.delete(&self.path(old), &json!({"propagationPolicy": "Background"})).await?;
        if end == End::Rename {
            session.say(format!("Renaming {new} to {old}"))?;
            self.gone(old).await?;
            return self.rename(new, old).await;
        }
        let gone = [(SOURCE, None), (DESIRED, None), (ORIGINAL, None), (NEXT, None)];
        self.patch(new, &controllers::annotate_patch(&gone)).await
    }

    /// Deletes a controller without its pods, and creates it under the other name, which takes the pods over.
    async fn rename(&self, from: &str, to: &str) -> Result<Value> {
        let renamed = controllers::renamed(&self.get(from).await?, to);
        // For a moment the pods are nobody's, and only this process knows their controller: a copy outlives it.
        let mut copy = tempfile::Builder::new().prefix(&format!("{to}-")).suffix(".json").tempfile()?;
        std::io::Write::write_all(&mut copy, renamed.to_string().as_bytes())?;
        let copy = copy.into_temp_path();
        self.client.delete(&self.path(from), &json!({"propagationPolicy": "Orphan"})).await?;
        self.gone(from).await?;
        let path = self.resource.path(Some(&self.namespace), None);
        let created = self.client.post(&path, &DryRun::No.query("kubectl-rolling-update"), &renamed).await;
        match created {
            Ok(created) => Ok(created),
            Err(error) => {
                let kept = copy.keep().map_err(|error| Error::told(error.to_string()))?;
                Err(error.hinted(format!("the pods run on; their controller is kept: `create -f {}`", kept.display())))
            }
        }
    }

    /// An update that was interrupted after the old controller was deleted: only the name is missing.
    async fn finish_renaming(&self, name: &str, not_found: Error) -> Result<Value> {
        let mut list = self.client.list(&self.resource, Some(&self.namespace), &[]).await?;
        let is_next = |controller: &&Value| {
            controllers::annotation(controller, SOURCE).and_then(|source| source.split(':').next()) == Some(name)
        };
        match objects::items(&mut list).iter().find(is_next) {
            Some(next) => self.rename(next.text("metadata.name"), name).await,
            None => Err(not_found),
        }
    }

    fn timed_out(&self, error: Error, name: &str) -> Error {
        match error.inner_message().starts_with("timed out") {
            true => error.hinted(go_on(&self.program, name)),
            false => error,
        }
    }

    async fn gone(&self, name: &str) -> Result<()> {
        let until = Instant::now() + GONE_WITHIN;
        while self.find(name).await?.is_some() {
            if until <= Instant::now() {
                return Err(Error::told(format!("{name} is deleted and does not go")).hinted(
                    "a finalizer may hold it: look with `get rc NAME -o yaml`, then give the same command again",
                ));
            }
            tokio::time::sleep(SHORTLY).await;
        }
        Ok(())
    }
}

/// Refuses another image than that of the update under way.
fn check_under_way(next: &Value, image: &str, container: Option<&str>) -> Result<()> {
    let under_way = controllers::image(next, controllers::container_index(next, container)?);
    match under_way == image {
        true => Ok(()),
        false => Err(Error::told(format!(
            "Found existing in-progress update to image ({under_way}).\nEither continue in-progress update with --image={under_way} or rollback with --rollback"
        ))),
    }
}

fn dry(session: &mut Session, old: &Value, new: &Value, options: &Options) -> Result<()> {
    let format = options.output.format()?;
    let shown = |controller: &Value| match format {
        Format::Human { .. } => Ok(controller.text("metadata.name").to_owned()),
        _ => print::object(&format, controller, options.output.show_managed_fields),
    };
    let (from, to) = (shown(old)?, shown(new)?);
    session.say(format!("Rolling from:\n{from}\nTo:\n{to}"))
}
