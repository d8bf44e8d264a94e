//! `rollout plan`: what a rollout will do, before it starts. Ours.
//!
//! The server runs the very decisions of its controllers and its scheduler over a copy of its state; this asks for the course and tells
//! it. Nothing is changed.

use serde_json::Value;

use crate::client::{Client, escape};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found};
use crate::print::tabwriter;
use crate::session::Session;
use crate::time;
use crate::verbs::rollout::revisions;
use crate::verbs::set::{pod_spec, split_pairs};
use crate::verbs::{apply, rollout};

/// Steps that are shown; of a longer course the middle is left out.
const STEPS_SHOWN: usize = 40;

/// Show what a rollout will do, before it starts.
///
/// Tells the steps in which pods are replaced, how many there are at once, how many are available, and what would block it: nodes without
/// room, quotas, images that cannot be pulled right now. Every new pod that gets a place is taken to become ready.
///
/// Without a change it tells what is left of the current rollout, or what a paused one will do when it is resumed. With --to-revision it tells
/// what `rollout undo` would do.
///
/// Examples:
///   kapstan rollout plan deployment/web web=web:v2
///   kapstan rollout plan deployment/web --to-revision=3
///   kapstan rollout plan -f web.yaml
///   kapstan set resources deployment/web --limits=cpu=2 --dry-run=server -o yaml | kapstan rollout plan -f -
///   kapstan rollout plan deployment/web
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME, then CONTAINER=IMAGE... for the images to be set; * stands for every container.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    /// The revision that is gone back to; 0 is the one before the current.
    #[arg(long, allow_negative_numbers = true, value_name = "NUMBER")]
    to_revision: Option<i64>,
}

/// Asks and tells.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let (words, images) = split_pairs(&options.words, "image")?;
    if options.to_revision.is_some() && !(images.is_empty() && options.files.is_empty()) {
        return Err(Error::told("--to-revision goes back to a template as it was: give no images or files beside it"));
    }
    if words.is_empty() && options.files.is_empty() {
        return Err(Error::told("required resource not specified"));
    }
    let from_files = !options.files.is_empty();
    let ask = Ask {
        words,
        files: options.files.clone(),
        selector: options.selector.clone(),
        all: true,
        live: !from_files,
        ..Ask::default()
    };
    let (found, mut errors) = objects::find(session, &ask).await?;
    rollout::say_if_none(session, &found, &errors)?;
    for item in &found {
        errors.extend(one(session, item, &images, from_files, options.to_revision).await.err());
    }
    Error::several(errors)
}

async fn one(
    session: &mut Session,
    item: &Found,
    images: &[String],
    from_file: bool,
    to_revision: Option<i64>,
) -> Result<()> {
    if !rollout::words::has(&item.resource.kind) {
        return Err(rollout::unsupported(item, "planner", "plan").hinted(rollout::OF_WHAT));
    }
    let client = session.client()?;
    let live = if from_file { live(&client, item).await? } else { Some(item.object.clone()) };
    let mut wanted = match &live {
        Some(live) if from_file => apply::applied(live, &item.object)?,
        _ => item.object.clone(),
    };
    set_images(&mut wanted, images)?;
    if let Some(number) = to_revision {
        let known = if number < 0 { Vec::new() } else { revisions::of(&client, item).await? };
        wanted = revisions::gone_back(item, revisions::target(&known, number, item)?)?;
    }
    let was_paused = wanted.flag("spec.paused");
    if was_paused {
        wanted["spec"]["paused"] = false.into();
    }
    let path = format!(
        "/kapstan/v1/plan/{}/{}/{}",
        item.resource.plural,
        escape(item.namespace.as_deref().unwrap_or_default()),
        escape(&item.name)
    );
    let course = client.post(&path, &[], &wanted).await.map_err(|error| match error.status_code() {
        404 if !error.message().contains("namespaces") => {
            Error::told(format!("{} makes no plans: only kapstan's own server does", client.server()))
        }
        _ => error,
    })?;
    session.print(told(item, live.as_ref(), &wanted, &course, was_paused))
}

async fn live(client: &Client, item: &Found) -> Result<Option<Value>> {
    match client.get(&item.path(), &[]).await {
        Ok(live) => Ok(Some(live)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_images(object: &mut Value, images: &[String]) -> Result<()> {
    for (name, image) in images.iter().filter_map(|pair| pair.split_once('=')) {
        let missing = pod_spec::missing(object);
        let spec = pod_spec::of(object).ok_or_else(|| Error::told(missing))?;
        let containers = pod_spec::containers(spec, name);
        if containers.is_empty() {
            return Err(Error::told(format!("unable to find container named {name:?}")));
        }
        containers.into_iter().for_each(|container| container["image"] = image.into());
    }
    Ok(())
}

/// The whole page.
fn told(item: &Found, live: Option<&Value>, wanted: &Value, course: &Value, was_paused: bool) -> String {
    let steps = course.list("steps");
    let mut text = format!("{}{}\n", item.printed(), revisions(course));
    if was_paused {
        text += "  is paused: this is what it will do once it is resumed\n";
    }
    if steps.is_empty() && course.flag("completes") {
        return text + "  nothing to do: every pod has the template already\n";
    }
    let mut rows = changes(live, wanted);
    rows.push(("strategy", strategy(wanted)));
    if live.is_some() {
        rows.push(("pods", "are replaced by new ones; none is changed in place".to_owned()));
    }
    rows.push(("at once", at_once(course)));
    let rows: String = rows.iter().map(|(name, value)| format!("  {name}\t{value}\n")).collect();
    text += &tabwriter::align(&rows, tabwriter::DESCRIBE);
    text += &table(course);
    text + &ending(item, wanted, course)
}

/// `: revision 2 -> 3`.
fn revisions(course: &Value) -> String {
    let [from, to, back] = ["fromRevision", "toRevision", "backTo"].map(|name| course.number(name));
    match (from, to) {
        (0, 0) => String::new(),
        (0, to) => format!(": revision {to}, the first"),
        (from, to) if from == to => format!(": revision {to}"),
        (from, to) if back > 0 => {
            format!(": revision {from} -> {to} (the template of revision {back}{})", then(course))
        }
        (from, to) => format!(": revision {from} -> {to}"),
    }
}

/// What is known against the revision that is gone back to.
fn then(course: &Value) -> &'static str {
    match (course.text("endedThen.how"), course.flag("endedThen.undone")) {
        ("failed", _) => ", which failed",
        (_, true) => ", which was undone",
        _ => "",
    }
}

/// What becomes of the images, and whether more than images changes.
fn changes(live: Option<&Value>, wanted: &Value) -> Vec<(&'static str, String)> {
    const CONTAINERS: &str = "spec.template.spec.containers";
    let mut rows = Vec::new();
    for container in wanted.list(CONTAINERS) {
        let (name, image) = (container.text("name"), container.text("image"));
        let before = live.map_or(&[][..], |live| live.list(CONTAINERS)).iter().find(|old| old.text("name") == name);
        match before.map(|old| old.text("image")) {
            Some(old) if old != image => rows.push(("image", format!("{name}: {old} -> {image}"))),
            Some(_) => {}
            None => rows.push(("image", format!("{name}: {image}"))),
        }
    }
    let (before, after) = (live.map_or(0, |live| live.number("spec.replicas")), wanted.number("spec.replicas"));
    if live.is_some() && wanted.has("spec.replicas") && before != after {
        rows.push(("replicas", format!("{before} -> {after}")));
    }
    rows
}

fn strategy(wanted: &Value) -> String {
    let at = if wanted.has("spec.strategy") { "spec.strategy" } else { "spec.updateStrategy" };
    let strategy = wanted.at(at);
    let kind = match strategy.text("type") {
        "" => "RollingUpdate",
        kind => kind,
    };
    let terms = strategy.map("rollingUpdate").iter().map(|(name, value)| match value {
        Value::String(text) => format!(", {name} {text}"),
        other => format!(", {name} {other}"),
    });
    let wait = match wanted.number("spec.minReadySeconds") {
        0 => String::new(),
        seconds => format!(", a pod counts once it is ready for {seconds}s"),
    };
    format!("{kind}{}{wait}", terms.collect::<String>())
}

/// The most pods and the fewest available ones along the way.
fn at_once(course: &Value) -> String {
    let steps = course.list("steps");
    let pods = |step: &Value| step.number("old") + step.number("new");
    let most = steps.iter().map(pods).chain([course.number("pods")]).max().unwrap_or(0);
    let fewest =
        steps.iter().map(|step| step.number("available")).chain([course.number("available")]).min().unwrap_or(0);
    let ending = steps.iter().map(|step| step.number("ending")).max().unwrap_or(0);
    let beside = if ending > 0 { format!(", beside up to {ending} that are ending") } else { String::new() };
    let least = if course.number("pods") > 0 { format!("; at least {fewest} available") } else { String::new() };
    format!("at most {most} pods{beside}{least}")
}

fn table(course: &Value) -> String {
    let steps = course.list("steps");
    let waits = steps.iter().any(|step| step.number("seconds") > 0);
    let mut rows = format!("STEP\t{}START\tSTOP\tOLD\tNEW\tAVAILABLE\n", if waits { "AFTER\t" } else { "" });
    let hidden = steps.len().saturating_sub(STEPS_SHOWN);
    for (index, step) in steps.iter().enumerate() {
        if hidden > 0 && (STEPS_SHOWN / 2..STEPS_SHOWN / 2 + hidden).contains(&index) {
            if index == STEPS_SHOWN / 2 {
                rows += &format!("({hidden} more)\n");
            }
            continue;
        }
        let after = if waits { format!("{}\t", time::human(step.number("seconds"))) } else { String::new() };
        let [start, stop, old, new, available] =
            ["started", "stopped", "old", "new", "available"].map(|name| step.number(name));
        rows += &format!("{}\t{after}{start}\t{stop}\t{old}\t{new}\t{available}\n", index + 1);
    }
    if steps.is_empty() { String::new() } else { tabwriter::align(&rows, tabwriter::DESCRIBE) }
}

fn ending(item: &Found, wanted: &Value, course: &Value) -> String {
    let texts =
        |name: &str| -> Vec<String> { course.list(name).iter().filter_map(Value::as_str).map(str::to_owned).collect() };
    let unpullable = texts("unpullable");
    let mut text = String::new();
    for image in &unpullable {
        text += &format!("blocked: nodes fail to pull {image} right now\n");
    }
    for note in &texts("budgets") {
        text += &format!("note: {note}\n");
    }
    if course.flag("completes") {
        let last = course.list("steps").last().map_or(0, |step| step.number("seconds"));
        let at_least = if last > 0 { format!(", not before {}", time::human(last)) } else { String::new() };
        return text + &format!("complete if every new pod becomes ready{at_least}\n");
    }
    text += &format!("{} gets no further:\n", item.printed());
    let why = texts("why").into_iter().chain(held(wanted));
    text + &why.map(|why| format!("  {why}\n")).collect::<String>()
}

/// What holds a rollout that waits for nothing: its strategy leaves the rest to somebody.
fn held(wanted: &Value) -> Option<String> {
    let strategy = wanted.at("spec.updateStrategy");
    match (strategy.text("type"), strategy.number("rollingUpdate.partition")) {
        ("OnDelete", _) => Some("under OnDelete a pod gets the new template once somebody deletes it".to_owned()),
        (_, partition @ 1..) => {
            Some(format!("its partition holds back the pods with numbers below {partition}: they keep their template"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_that_its_strategy_holds_says_so() {
        let strategy = |strategy: Value| held(&json!({"spec": {"updateStrategy": strategy}})).unwrap_or_default();
        let texts = [
            strategy(json!({"type": "OnDelete"})),
            strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})),
            strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
            held(&json!({"spec": {"strategy": {"type": "Recreate"}}})).unwrap_or_default(),
        ];
        expect_test::expect![[r#"
            under OnDelete a pod gets the new template once somebody deletes it
            its partition holds back the pods with numbers below 2: they keep their template


        "#]]
        .assert_eq(&(texts.join("\n") + "\n"));
    }
}
