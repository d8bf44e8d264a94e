//! `get`: look at objects. Mirrors kubectl `pkg/cmd/get/get.go` and `sorter.go`.

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::client::{JSON, TABLE};
use crate::discovery::Resource;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found, Target};
use crate::print::{self, Format, Output, jsonpath, table};
use crate::session::Session;

/// Display one or many objects.
///
/// Examples:
///   kapstan get pods -o wide
///   kapstan get deploy,rs,pods -l app=web
///   kapstan get deployment/web -o jsonpath='{.status.readyReplicas}'
///   kapstan get pods -w
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE [NAME...], TYPE/NAME..., or TYPE1,TYPE2.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    output: Output,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// Field selector, such as status.phase=Running.
    #[arg(long)]
    field_selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Print no line of headers.
    #[arg(long)]
    no_headers: bool,
    /// A last column with the labels.
    #[arg(long)]
    show_labels: bool,
    /// The kind before names.
    #[arg(long)]
    show_kind: bool,
    /// A column for each of these labels; may be repeated, takes commas.
    #[arg(long, short = 'L', value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Sort by this field, such as .metadata.creationTimestamp.
    #[arg(long)]
    sort_by: Option<String>,
    /// After listing, watch for changes.
    #[arg(long, short)]
    watch: bool,
    /// Watch for changes without listing first.
    #[arg(long)]
    watch_only: bool,
    /// With --watch, print the kind of each event.
    #[arg(long)]
    output_watch_events: bool,
    /// An object that is not there is no error.
    #[arg(long)]
    ignore_not_found: bool,
    /// Objects asked for at once; 0 is all.
    #[arg(long, default_value_t = 500)]
    chunk_size: u32,
    /// A subresource instead of the object: status or scale.
    #[arg(long)]
    subresource: Option<String>,
    /// Print what the server answers to this path.
    #[arg(long)]
    raw: Option<String>,
    /// Let the server make the tables.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    server_print: bool,
}

impl Options {
    /// The field to sort by.
    fn order(&self) -> Option<&str> {
        self.sort_by.as_deref().filter(|field| !field.is_empty())
    }
}

/// Looks and prints.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if let Some(path) = &options.raw {
        let text = session.client()?.text(path, &[]).await?;
        return session.print(text);
    }
    let format = options.output.get_format()?;
    if options.words.is_empty() && options.files.is_empty() {
        let about = format!(
            "You must specify the type of resource to get. Use \"{} api-resources\" for a complete list of supported resources.\n\nerror: Required resource not specified.\nUse \"{} explain <resource>\" for a detailed description of that resource (e.g. {} explain pods).\nSee '{} get -h' for help and examples",
            session.program, session.program, session.program, session.program
        );
        return Err(Error::bare(about));
    }
    if options.output_watch_events && !options.watch && !options.watch_only {
        return Err(Error::told("--output-watch-events option can only be used with --watch or --watch-only"));
    }
    let (targets, errors) = targets(session, &options).await?;
    if options.watch || options.watch_only {
        Error::several(errors)?;
        return watch(session, &options, &format, targets).await;
    }
    match format {
        Format::Human { wide } => tables(session, &options, (targets, errors), wide).await,
        format => whole(session, &options, &format, (targets, errors)).await,
    }
}

fn ask(options: &Options) -> Ask {
    Ask {
        words: options.words.clone(),
        files: options.files.clone(),
        selector: options.selector.clone(),
        field_selector: options.field_selector.clone(),
        all: true,
        all_namespaces: options.all_namespaces,
        live: true,
        local: false,
        ..Ask::default()
    }
}

/// What is asked for; what files name and cannot be asked for is told beside it.
async fn targets(session: &mut Session, options: &Options) -> Result<(Vec<Target>, Vec<Error>)> {
    if options.files.is_empty() {
        return Ok((objects::targets(session, &ask(options)).await?, Vec::new()));
    }
    if !options.words.is_empty() {
        return Err(Error::told(
            "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
        ));
    }
    let (manifests, mut errors) = options.files.read(session).await?;
    let mut targets = Vec::new();
    for manifest in manifests {
        match objects::place(session, manifest).await {
            Ok(Found { resource, namespace, name, .. }) => {
                targets.push(Target { resource, namespace, name: Some(name) });
            }
            Err(error) => errors.push(error),
        }
    }
    Ok((targets, errors))
}

fn path(options: &Options, target: &Target) -> String {
    match &options.subresource {
        Some(subresource) => format!("{}/{subresource}", target.path()),
        None => target.path(),
    }
}

/// Tables, one for each type.
async fn tables(
    session: &mut Session,
    options: &Options,
    (targets, mut errors): (Vec<Target>, Vec<Error>),
    wide: bool,
) -> Result<()> {
    let mut groups: Vec<(Resource, Value)> = Vec::new();
    for target in &targets {
        match table_of(session, options, target).await {
            Ok(found) => match groups.last_mut().filter(|(resource, _)| *resource == target.resource) {
                Some((_, table)) => append(table, found),
                None => groups.push((target.resource.clone(), found)),
            },
            Err(error) if options.ignore_not_found && error.is_not_found() => {}
            Err(error) if target.name.is_none() => {
                errors.push(objects::about_list(error, &target.resource, &ask(options)));
            }
            Err(error) => errors.push(objects::elsewhere(session, error, target).await),
        }
    }
    session.pass_on_warnings()?;
    let show_kind = options.show_kind || groups.iter().any(|(resource, _)| *resource != groups[0].0);
    let mut printed = 0;
    for (resource, mut table) in groups {
        if table.list("rows").is_empty() {
            continue;
        }
        if let Some(field) = options.order() {
            sort_rows(&mut table, field)?;
        }
        let style = style(options, wide, show_kind.then(|| resource.printed_kind()), resource.namespaced);
        let text = table::Printer::default().print(&table, &style);
        if printed > 0 && !options.no_headers {
            session.say("")?;
        }
        session.print(text)?;
        printed += 1;
    }
    if printed == 0 && errors.is_empty() && !options.ignore_not_found {
        let somewhere = targets.iter().any(|target| target.resource.namespaced) && !options.all_namespaces;
        let nothing = match somewhere {
            true => format!("No resources found in {} namespace.", session.namespace()?),
            false => "No resources found".to_owned(),
        };
        session.warn(nothing)?;
    }
    Error::several(errors)
}

fn style(options: &Options, wide: bool, kind: Option<String>, namespaced: bool) -> table::Style {
    table::Style {
        wide,
        no_headers: options.no_headers,
        show_labels: options.show_labels,
        label_columns: options.label_columns.clone(),
        namespace: options.all_namespaces && namespaced,
        kind,
        event: options.output_watch_events,
    }
}

fn append(table: &mut Value, more: Value) {
    let Value::Object(mut more) = more else { return };
    if let (Some(rows), Some(Value::Array(new))) = (table["rows"].as_array_mut(), more.remove("rows")) {
        rows.extend(new);
    }
}

fn query(options: &Options, target: &Target) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    if target.name.is_none() {
        query.extend(objects::selectors(&ask(options)));
        if options.chunk_size > 0 {
            query.push(("limit", options.chunk_size.to_string()));
        }
    }
    query
}

/// A table of a target: the server's, or one of NAME and AGE.
async fn table_of(session: &mut Session, options: &Options, target: &Target) -> Result<Value> {
    let client = session.client()?;
    let mut query = query(options, target);
    if options.order().is_some() {
        query.push(("includeObject", "Object".into()));
    }
    let accept = if options.server_print { format!("{TABLE},{JSON}") } else { JSON.to_owned() };
    let mut whole: Option<Value> = None;
    let mut token = String::new();
    loop {
        let mut asked = query.clone();
        if !token.is_empty() {
            asked.push(("continue", token));
        }
        let page = client.json(Method::GET, &path(options, target), &asked, &accept, None).await?;
        token = page.text("metadata.continue").to_owned();
        let page = match page.text("kind") {
            "Table" => page,
            _ if page["items"].is_array() => table::plain(page.list("items")),
            _ => table::plain(std::slice::from_ref(&page)),
        };
        match &mut whole {
            Some(first) => append(first, page),
            None => whole = Some(page),
        }
        if token.is_empty() {
            return Ok(whole.unwrap_or_default());
        }
    }
}

fn sort_rows(table: &mut Value, field: &str) -> Result<()> {
    let Some(rows) = table["rows"].as_array_mut() else { return Ok(()) };
    let objects: Vec<Value> = rows.iter().map(|row| row["object"].clone()).collect();
    let order = sorted(&objects, field)?;
    *rows = order.into_iter().map(|index| std::mem::take(&mut rows[index])).collect();
    Ok(())
}

/// The order of objects by a field. Unlike kubectl, which shows nothing, a field that no object has is an error in a table too.
fn sorted(objects: &[Value], field: &str) -> Result<Vec<usize>> {
    let template = match field {
        "." | "{}" | "{.}" => jsonpath::Template::parse("{.}", true)?,
        field => jsonpath::Template::field(field)?,
    };
    let shown = field.trim_start_matches('{').trim_end_matches('}').trim_start_matches('.');
    let shown = format!("{{.{shown}}}");
    let keys: Vec<Option<Value>> =
        objects.iter().map(|object| Ok(template.values(object)?.into_iter().next())).collect::<Result<_>>()?;
    if !objects.is_empty() && keys.iter().all(Option::is_none) {
        return Err(Error::told(format!("couldn't find any field with path {shown:?} in the list of objects"))
            .hinted("fields are written as in .metadata.name"));
    }
    let kind = keys.iter().flatten().find_map(|key| match key {
        Value::Object(_) => Some("map"),
        Value::Array(_) => Some("slice"),
        _ => None,
    });
    if let Some(kind) = kind.filter(|_| objects.len() > 1) {
        return Err(Error::told(format!("field {shown} is an unsortable type: {kind}")));
    }
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by(|one, other| compare(keys[*one].as_ref(), keys[*other].as_ref()));
    Ok(order)
}

fn compare(one: Option<&Value>, other: Option<&Value>) -> std::cmp::Ordering {
    match (one, other) {
        (None, None) => std::cmp::Ordering::Equal,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (Some(_), None) => std::cmp::Ordering::Greater,
        (Some(Value::String(one)), Some(Value::String(other))) => {
            let amounts = api::quantity::Amount::parse(one).ok().zip(api::quantity::Amount::parse(other).ok());
            match amounts {
                Some((left, right)) => left.cmp(&right),
                None => natural(one, other),
            }
        }
        (Some(one), Some(other)) => one.as_f64().partial_cmp(&other.as_f64()).unwrap_or(std::cmp::Ordering::Equal),
    }
}

/// Numbers inside texts are compared by value, as kubectl's sorter does it: `web-2` before `web-10`.
fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    let chunks = |text: &str| -> Vec<String> {
        let mut chunks: Vec<String> = Vec::new();
        for letter in text.chars() {
            match chunks.last_mut() {
                Some(last) if last.ends_with(|end: char| end.is_ascii_digit()) == letter.is_ascii_digit() => {
                    last.push(letter)
                }
                _ => chunks.push(letter.to_string()),
            }
        }
        chunks
    };
    let (left, right) = (chunks(one), chunks(other));
    for (a, b) in left.iter().zip(&right) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

/// Whole objects, for yaml, json, templates and names.
async fn whole(
    session: &mut Session,
    options: &Options,
    format: &Format,
    (targets, mut errors): (Vec<Target>, Vec<Error>),
) -> Result<()> {
    let client = session.client()?;
    let mut items = Vec::new();
    // One object that was named is printed alone; everything else is a list.
    let alone = targets.len() == 1 && targets[0].name.is_some();
    for target in &targets {
        let found = match &target.name {
            Some(_) => client.get(&path(options, target), &[]).await.map(|object| vec![object]),
            None => {
                let query = objects::selectors(&ask(options));
                client
                    .list(&target.resource, target.namespace.as_deref(), &query)
                    .await
                    .map(|mut list| objects::items(&mut list))
            }
        };
        match found {
            Ok(found) => items.extend(found),
            Err(error) if options.ignore_not_found && error.is_not_found() => {}
            Err(error) if target.name.is_none() => {
                errors.push(objects::about_list(error, &target.resource, &ask(options)));
            }
            Err(error) => errors.push(objects::elsewhere(session, error, target).await),
        }
    }
    session.pass_on_warnings()?;
    // As with kubectl, of files that are not all there nothing is printed in these forms.
    if !options.files.is_empty() && !errors.is_empty() {
        return Error::several(errors);
    }
    if let Some(field) = options.order() {
        let order = sorted(&items, field)?;
        items = order.into_iter().map(|index| std::mem::take(&mut items[index])).collect();
    }
    let by_name = matches!(format, Format::Name | Format::Columns(_));
    if alone && items.is_empty() || by_name && items.is_empty() && !errors.is_empty() {
        return Error::several(errors);
    }
    let text = match format {
        Format::Columns(columns) => {
            let mut text = columns.table(&items);
            if options.no_headers {
                text = text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned());
            }
            text
        }
        Format::Name => items.iter().map(|item| print::name(item) + "\n").collect(),
        format if alone => print::object(format, &items[0], options.output.show_managed_fields)?,
        format => print::object(format, &print::list(items), options.output.show_managed_fields)?,
    };
    session.print(text)?;
    Error::several(errors)
}

/// Lists, then prints every change.
async fn watch(session: &mut Session, options: &Options, format: &Format, targets: Vec<Target>) -> Result<()> {
    let [target] = targets.as_slice() else {
        return Err(Error::told("you may only specify a single resource type"));
    };
    let client = session.client()?;
    let human = match format {
        Format::Human { wide } => Some(*wide),
        _ => None,
    };
    let kind = options.show_kind.then(|| target.resource.printed_kind());
    let style = style(options, human.unwrap_or(false), kind, target.resource.namespaced);
    let accept = if human.is_some() { format!("{TABLE},{JSON}") } else { JSON.to_owned() };
    let collection = target.resource.path(target.namespace.as_deref(), None);
    let mut query = objects::selectors(&ask(options));
    if let Some(name) = &target.name {
        client.get(&target.path(), &[]).await?;
        query.push(("fieldSelector", format!("metadata.name={name}")));
    }
    let mut printer = table::Printer::default();
    let first = client.json(Method::GET, &collection, &query, &accept, None).await?;
    if !options.watch_only {
        match first.text("kind") {
            "Table" => {
                if !first.list("rows").is_empty() {
                    let text = printer.print_event(&first, &style, "ADDED");
                    session.print(text)?;
                }
            }
            _ => {
                for item in first.list("items") {
                    let mut item = item.clone();
                    item["kind"] = target.resource.kind.clone().into();
                    item["apiVersion"] = target.resource.api_version().into();
                    show_event(session, options, format, "ADDED", &item)?;
                }
            }
        }
    }
    let mut columns = first["columnDefinitions"].clone();
    query.push(("watch", "true".into()));
    query.push(("resourceVersion", first.text("metadata.resourceVersion").to_owned()));
    let mut events = client.watch(&collection, &query, &accept).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let (what, object) = (event.text("type"), &event["object"]);
        match (what, object.text("kind")) {
            ("ERROR", _) => return Err(Error::refused(object.clone())),
            ("BOOKMARK", _) => {}
            (_, "Table") => {
                let mut table = object.clone();
                if table.list("columnDefinitions").is_empty() {
                    table["columnDefinitions"] = columns.clone();
                } else {
                    columns = table["columnDefinitions"].clone();
                }
                let text = printer.print_event(&table, &style, what);
                session.print(text)?;
            }
            _ => show_event(session, options, format, what, object)?,
        }
    }
    Ok(())
}

fn show_event(session: &mut Session, options: &Options, format: &Format, what: &str, object: &Value) -> Result<()> {
    let managed = options.output.show_managed_fields;
    let mut text = match options.output_watch_events && matches!(format, Format::Json | Format::Yaml) {
        true => print::object(format, &json!({"type": what, "object": object}), managed)?,
        false => print::object(format, object, managed)?,
    };
    if matches!(format, Format::Yaml) {
        text = format!("---\n{text}");
    }
    session.print(text)
}
