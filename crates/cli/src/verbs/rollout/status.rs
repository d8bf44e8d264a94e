//! `rollout status`: follow a rollout to its end. Mirrors kubectl `pkg/cmd/rollout/rollout_status.go`.
//!
//! On a terminal it is live (`live.rs`); elsewhere it prints kubectl's lines.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde_json::Value;

use super::words::{self, Told};
use super::{Which, group_kind, live};
use crate::client::JSON;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Found};
use crate::session::Session;
use crate::time::flag;

/// Follow the rollout of a deployment, a daemon set or a stateful set until it is over.
///
/// Ends with 0 when it is complete, with 1 when it failed or the time is over. Leaving it, or Ctrl-C, leaves the rollout alone.
///
/// Examples:
///   kapstan rollout status deployment/web
///   kapstan rollout status deployment/web --timeout=2m
///   kapstan rollout status deployment/web --watch=false
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Follow it to its end; false only looks once.
    #[arg(long, short, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    watch: bool,
    /// Fail if another revision than this is rolled out; 0 is the newest.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "NUMBER")]
    revision: i64,
    /// How long to wait, such as 1s, 2m, 3h; 0 is without end.
    #[arg(long, default_value = "0s", value_parser = flag, value_name = "DURATION")]
    timeout: Duration,
    /// Print kubectl's plain lines also on a terminal.
    #[arg(long)]
    plain: bool,
}

/// Follows.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if options.revision < 0 {
        return Err(Error::told(format!("revision must be a positive integer: {}", options.revision)));
    }
    let (found, mut errors) = options.which.find(session).await?;
    super::say_if_none(session, &found, &errors)?;
    for item in &found {
        if !words::has(&item.resource.kind) {
            errors.push(Error::told(format!("no status viewer has been implemented for {}", group_kind(item))));
            continue;
        }
        errors.extend(one(session, item, &options).await.err());
    }
    Error::several(errors)
}

async fn one(session: &mut Session, item: &Found, options: &Options) -> Result<()> {
    let is_live = options.watch && session.io.terminal && !options.plain && live::can_draw(&session.io.environment);
    let look = async {
        if is_live && !words::status(&item.object, options.revision)?.is_done() {
            live::follow(session, item, options.revision).await
        } else {
            lines(session, item, options).await
        }
    };
    // Without a limit it waits for longer than anybody does.
    let limit = if options.timeout.is_zero() { Duration::MAX } else { options.timeout };
    let outcome = tokio::select! {
        outcome = look => Some(outcome),
        () = tokio::time::sleep(limit) => Some(Err(late(session, item))),
        _ = tokio::signal::ctrl_c() => None,
    };
    outcome.unwrap_or_else(|| Err(left(session, item)))
}

/// What is said when the time is over: the rollout goes on.
fn late(session: &Session, item: &Found) -> Error {
    let (program, what) = named(session, item);
    let error = Error::told("timed out waiting for the condition");
    error.hinted(format!("the rollout goes on; what it waits for: {program} rollout why {what}"))
}

fn named<'s>(session: &'s Session, item: &Found) -> (&'s str, String) {
    (&session.program, format!("{}/{}", item.resource.singular, item.name))
}

/// What is said to who leaves with Ctrl-C.
fn left(session: &Session, item: &Found) -> Error {
    let (program, what) = named(session, item);
    let error = Error::bare(format!("\nThe rollout of {what} goes on, nobody watches it."));
    error
        .hinted(format!("to watch it again: {program} rollout status {what}"))
        .hinted(format!("to hold it: {program} rollout pause {what}; to go back: {program} rollout undo {what}"))
}

/// kubectl's lines, one for each change of the object.
async fn lines(session: &mut Session, item: &Found, options: &Options) -> Result<()> {
    let client = session.client()?;
    let path = item.resource.path(item.namespace.as_deref(), None);
    let one = ("fieldSelector", format!("metadata.name={}", item.name));
    loop {
        // The list is what a watch starts from; after a watch that broke off it tells what was missed.
        let list = async || client.json(Method::GET, &path, std::slice::from_ref(&one), JSON, None).await;
        let mut list = client.patiently(list).await?;
        let version = list.text("metadata.resourceVersion").to_owned();
        for mut object in objects::items(&mut list) {
            object["kind"] = item.resource.kind.clone().into();
            if tell(session, &object, options)? {
                return Ok(());
            }
        }
        let query = [one.clone(), ("watch", "true".into()), ("resourceVersion", version)];
        let mut events = client.patiently(async || client.watch(&path, &query, JSON).await).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            match event.text("type") {
                "ADDED" | "MODIFIED" if tell(session, event.at("object"), options)? => return Ok(()),
                "DELETED" => return Err(Error::told("object has been deleted")),
                // The history that the watch was to start from is gone: look again.
                "ERROR" => break,
                _ => {}
            }
        }
    }
}

/// Prints the line about an object; true if there is no more to wait for.
fn tell(session: &mut Session, object: &Value, options: &Options) -> Result<bool> {
    let told = words::status(object, options.revision)?;
    session.say(told.line())?;
    Ok(matches!(told, Told::Done(_)) || !options.watch)
}
