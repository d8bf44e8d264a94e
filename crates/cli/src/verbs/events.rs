//! `events`: what was told of objects, oldest first. Mirrors kubectl `pkg/cmd/events` (events.go, event_printer.go).

use futures::StreamExt;
use serde_json::Value;

use crate::client::{Client, JSON, PAGE};
use crate::discovery::Resource;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects;
use crate::print::tabwriter::Columns;
use crate::print::{self, Format, Output};
use crate::session::Session;
use crate::time;

/// Show events, oldest first.
///
/// Examples:
///   kapstan events
///   kapstan events --for deployment/web --watch
///   kapstan events --types=Warning -A
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// Only those about this object.
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only those of these types: Normal, Warning.
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Then follow: print each as it comes.
    #[arg(long, short)]
    watch: bool,
    /// Print no line of headers.
    #[arg(long)]
    no_headers: bool,
    /// Events asked for at once; 0 is all.
    #[arg(long, default_value_t = PAGE, value_name = "NUMBER")]
    chunk_size: usize,
    #[command(flatten)]
    output: Output,
    /// As with kubectl, words mean nothing here: --for names an object.
    #[arg(hide = true)]
    _words: Vec<String>,
}

/// Shows them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    for kind in &options.types {
        if !["normal", "warning"].contains(&kind.to_lowercase().as_str()) {
            return Err(Error::told("valid --types are Normal or Warning"));
        }
    }
    let format = options.output.format()?;
    let client = session.client()?;
    let discovery = client.discovery().await?;
    let resource = discovery.resources.iter().find(|resource| resource.plural == "events" && resource.group.is_empty());
    let resource = resource.ok_or_else(|| Error::told("the server doesn't have a resource type \"events\""))?.clone();
    let current = session.namespace()?;
    let namespace = (!options.all_namespaces).then_some(current.as_str());
    let query = match &options.about {
        Some(about) => selector(&discovery, about)?,
        None => Vec::new(),
    };
    let mut list = client.list_by(&resource, namespace, &query, options.chunk_size).await?;
    let version = list.text("metadata.resourceVersion").to_owned();
    let mut events = objects::items(&mut list);
    events.retain(|event| is_wanted(event, &options.types));
    let mut printer =
        Printer { headed: options.no_headers, namespace: options.all_namespaces, columns: Columns::default() };
    if options.watch {
        // As with kubectl, what was told before comes in the server's order.
        for event in &events {
            printer.print(session, &format, event, &options.output)?;
        }
        return follow(session, &client, (&resource, namespace), (query, version), &options, &mut printer).await;
    }
    events.sort_by_key(last_seen);
    if events.is_empty() {
        return session.warn(match namespace {
            Some(namespace) => format!("No events found in {namespace} namespace."),
            None => "No events found.".to_owned(),
        });
    }
    if let Format::Human { .. } = &format {
        let lines = printer.lines(&events);
        return session.print(lines);
    }
    list["items"] = events.into();
    list["kind"] = "EventList".into();
    list["apiVersion"] = resource.api_version().into();
    session.print(print::object(&format, &list, options.output.show_managed_fields)?)
}

/// Prints events in columns that stay.
struct Printer {
    headed: bool,
    namespace: bool,
    columns: Columns,
}

impl Printer {
    fn print(&mut self, session: &mut Session, format: &Format, event: &Value, output: &Output) -> Result<()> {
        let text = match format {
            Format::Human { .. } => self.lines(std::slice::from_ref(event)),
            format => print::object(format, event, output.show_managed_fields)?,
        };
        session.print(text)
    }

    /// The lines of events, headers before the first.
    fn lines(&mut self, events: &[Value]) -> String {
        let mut rows = Vec::new();
        if !std::mem::replace(&mut self.headed, true) {
            let namespace = self.namespace.then_some("NAMESPACE");
            let names = namespace.into_iter().chain(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
            rows.push(names.map(str::to_owned).collect());
        }
        rows.extend(events.iter().map(|event| self.row(event)));
        self.columns.lines(&rows)
    }

    fn row(&self, event: &Value) -> Vec<String> {
        let object = format!("{}/{}", event.text("involvedObject.kind"), event.text("involvedObject.name"));
        let told = ["type", "reason"].map(|field| event.text(field).to_owned());
        let mut cells = vec![interval(event)];
        cells.extend(told);
        cells.extend([object, event.text("message").trim().to_owned()]);
        if self.namespace {
            cells.insert(0, event.text("metadata.namespace").to_owned());
        }
        cells
    }
}

/// The events about `TYPE/NAME`.
fn selector(discovery: &crate::discovery::Discovery, about: &str) -> Result<Vec<(&'static str, String)>> {
    let parts =
        about.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty() && !name.contains('/'));
    let (kind, name) = parts.ok_or_else(|| Error::told("--for must be in resource/name form"))?;
    let resource = discovery.resource(kind)?;
    let version = resource.api_version();
    let fields =
        format!("involvedObject.apiVersion={version},involvedObject.kind={},involvedObject.name={name}", resource.kind);
    Ok(vec![("fieldSelector", fields)])
}

/// Prints each event from a version on; ends with the watch.
async fn follow(
    session: &mut Session,
    client: &Client,
    (resource, namespace): (&Resource, Option<&str>),
    (mut query, version): (Vec<(&'static str, String)>, String),
    options: &Options,
    printer: &mut Printer,
) -> Result<()> {
    query.extend([("watch", "true".into()), ("resourceVersion", version)]);
    let mut events = client.watch(&resource.path(namespace, None), &query, JSON).await?;
    let format = options.output.format()?;
    while let Some(told) = events.next().await {
        let told = told?;
        let event = told.at("object");
        match told.text("type") {
            "ERROR" => return Err(Error::refused(event.clone())),
            "ADDED" | "MODIFIED" if is_wanted(event, &options.types) => {
                printer.print(session, &format, event, &options.output)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_wanted(event: &Value, types: &[String]) -> bool {
    types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(event.text("type")))
}

/// When it was last told; what is written down is compared as text.
fn last_seen(event: &Value) -> String {
    let times = ["series.lastObservedTime", "lastTimestamp", "eventTime"].map(|path| event.text(path));
    times.into_iter().find(|time| !time.is_empty()).unwrap_or_default().to_owned()
}

/// How long ago an event was told, and how often since when.
pub fn interval(event: &Value) -> String {
    let told = event.text("eventTime");
    let first = time::age(if told.is_empty() { event.text("firstTimestamp") } else { told });
    if event.has("series") {
        let last = time::age(event.text("series.lastObservedTime"));
        format!("{last} (x{} over {first})", event.number("series.count"))
    } else if event.number("count") > 1 {
        format!("{} (x{} over {first})", time::age(event.text("lastTimestamp")), event.number("count"))
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_and_types() {
        let event = |kind: &str, last: &str| json!({"type": kind, "lastTimestamp": last});
        let micro = json!({"type": "Normal", "eventTime": "2026-01-01T00:00:02.000000Z"});
        let mut events = [event("Warning", "2026-01-01T00:00:03Z"), micro, event("Normal", "2026-01-01T00:00:01Z")];
        events.sort_by_key(last_seen);
        let seconds: Vec<String> = events.iter().map(|event| last_seen(event)[17..19].to_owned()).collect();
        assert_eq!(seconds, ["01", "02", "03"]);
        let warnings = events.iter().filter(|event| is_wanted(event, &["warning".to_owned()])).count();
        assert_eq!(warnings, 1);
    }
}
