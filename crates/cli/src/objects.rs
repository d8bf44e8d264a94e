//! The objects that a command line means: `TYPE NAME…`, `TYPE/NAME…`, `TYPE1,TYPE2`, `-f FILE`, with `-l`, `--all` and `-A`.
//!
//! Mirrors cli-runtime `pkg/resource/builder.go`, its rules and its words.

use clap::Args;
use serde_json::Value;

use crate::client::PAGE;
use crate::discovery::{Discovery, Resource};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::manifests;
use crate::session::Session;

/// `-f`, `-k`, `-R`.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// File, folder, URL or - (standard input) with the objects; may be repeated.
    #[arg(long, short, value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Folder of a kustomization; refused, there is no kustomize in here.
    #[arg(long, short = 'k', value_name = "DIR")]
    pub kustomize: Option<String>,
    /// Go into the folders that -f names.
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

impl Files {
    /// True if no file is named.
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty() && self.kustomize.is_none()
    }

    /// Reads the manifests, and says of which texts it cannot.
    pub async fn read(&self, session: &mut Session) -> Result<(Vec<manifests::Manifest>, Vec<Error>)> {
        if let Some(folder) = &self.kustomize {
            let error = Error::told(format!("kustomizations are not supported: {folder}"));
            return Err(error.hinted(format!("build it first: `kustomize build {folder} | kapstan apply -f -`")));
        }
        manifests::read(session, &self.filename, self.recursive).await
    }
}

/// `-l` and `--all`.
#[derive(Args, Clone, Debug, Default)]
pub struct Labels {
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    pub selector: Option<String>,
    /// Every object of the types, in the namespace.
    #[arg(long)]
    pub all: bool,
}

/// What a command line says about objects.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The words.
    pub words: Vec<String>,
    /// The files.
    pub files: Files,
    /// The selector.
    pub selector: Option<String>,
    /// The field selector.
    pub field_selector: Option<String>,
    /// Every object of the types.
    pub all: bool,
    /// In every namespace.
    pub all_namespaces: bool,
    /// Objects from files are asked for at the server.
    pub live: bool,
    /// No server is asked for anything: objects from files are taken as they are.
    pub local: bool,
    /// So many objects of a collection are asked for at once; 0 is all.
    pub page: Option<usize>,
}

/// One thing asked for: an object, or a collection.
#[derive(Clone, Debug)]
pub struct Target {
    /// Of this type.
    pub resource: Resource,
    /// In this namespace; nothing for every namespace and for what is in none.
    pub namespace: Option<String>,
    /// With this name; nothing for the collection.
    pub name: Option<String>,
}

impl Target {
    /// Its URL's path.
    pub fn path(&self) -> String {
        self.resource.path(self.namespace.as_deref(), self.name.as_deref())
    }
}

/// An object that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its type.
    pub resource: Resource,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The file it comes from; empty for the server.
    pub source: String,
    /// The object: from the server, or from the file if [`Ask::live`] is not set.
    pub object: Value,
}

impl Found {
    /// Its URL's path.
    pub fn path(&self) -> String {
        self.resource.path(self.namespace.as_deref(), Some(&self.name))
    }

    /// `deployment.apps/web`.
    pub fn printed(&self) -> String {
        format!("{}/{}", self.resource.printed_kind(), self.name)
    }
}

/// The types that a word means: `pods`, `deploy,rs`, `all`.
pub fn types(discovery: &Discovery, word: &str) -> Result<Vec<Resource>> {
    let mut found: Vec<Resource> = Vec::new();
    for part in word.split(',') {
        if part.is_empty() {
            continue;
        }
        let category = discovery.category(part);
        match category.is_empty() {
            false => found.extend(category.into_iter().cloned()),
            true => found.push(discovery.resource(part)?.clone()),
        }
    }
    Ok(found)
}

/// What the words name.
pub async fn targets(session: &mut Session, ask: &Ask) -> Result<Vec<Target>> {
    let client = session.client()?;
    let discovery = client.discovery().await?;
    let current = session.namespace()?;
    let place = |resource: &Resource| (resource.namespaced && !ask.all_namespaces).then(|| current.clone());
    let by_slash = ask.words.first().is_some_and(|word| word.contains('/'));
    if by_slash {
        if selects(ask) {
            return Err(Error::told("selectors and the all flag cannot be used when passing resource/name arguments"));
        }
        return ask.words.iter().map(|word| slash(&discovery, word, ask, &current)).collect();
    }
    if ask.words.iter().skip(1).any(|word| word.contains('/')) {
        return Err(Error::told(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
        ));
    }
    let Some((word, names)) = ask.words.split_first() else { return Ok(Vec::new()) };
    let resources = types(&discovery, word)?;
    if names.is_empty() {
        let list = |resource: &Resource| Target { namespace: place(resource), resource: resource.clone(), name: None };
        return Ok(resources.iter().map(list).collect());
    }
    if selects(ask) {
        return Err(Error::told("name cannot be provided when a selector is specified"));
    }
    if ask.all_namespaces {
        return Err(Error::told("a resource cannot be retrieved by name across all namespaces"));
    }
    let mut found = Vec::new();
    for resource in &resources {
        found.extend(names.iter().map(|name| Target {
            namespace: place(resource),
            resource: resource.clone(),
            name: Some(name.clone()),
        }));
    }
    Ok(found)
}

/// True if objects are picked by what they are, not by name.
fn selects(ask: &Ask) -> bool {
    let is_given = |selector: &Option<String>| selector.as_ref().is_some_and(|text| !text.trim().is_empty());
    is_given(&ask.selector) || is_given(&ask.field_selector)
}

fn slash(discovery: &Discovery, word: &str, ask: &Ask, current: &str) -> Result<Target> {
    let parts: Vec<&str> = word.split('/').collect();
    let [kind, name] = parts.as_slice() else {
        return Err(match parts.len() {
            1 => Error::told(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
            ),
            _ => Error::told("arguments in resource/name form may not have more than one slash"),
        });
    };
    if kind.is_empty() || name.is_empty() {
        return Err(Error::told("arguments in resource/name form must have a single resource and name"));
    }
    if ask.all_namespaces {
        return Err(Error::told("a resource cannot be retrieved by name across all namespaces"));
    }
    let resource = discovery.resource(kind)?.clone();
    let namespace = resource.namespaced.then(|| current.to_owned());
    Ok(Target { resource, namespace, name: Some((*name).to_owned()) })
}

/// The objects themselves. Errors of single objects are given back beside what was found.
pub async fn find(session: &mut Session, ask: &Ask) -> Result<(Vec<Found>, Vec<Error>)> {
    if !ask.files.is_empty() {
        if !ask.words.is_empty() {
            return Err(Error::told(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            ));
        }
        return from_files(session, ask).await;
    }
    let client = session.client()?;
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for target in targets(session, ask).await? {
        match &target.name {
            Some(name) => match client.get(&target.path(), &[]).await {
                Ok(object) => found.push(Found {
                    name: name.clone(),
                    namespace: target.namespace.clone(),
                    source: String::new(),
                    object,
                    resource: target.resource,
                }),
                Err(error) => errors.push(elsewhere(session, error, &target).await),
            },
            None => {
                if ask.selector.is_none() && ask.field_selector.is_none() && !ask.all && !ask.all_namespaces {
                    return Err(Error::told("resource(s) were provided, but no name was specified"));
                }
                let page = ask.page.unwrap_or(PAGE);
                let list = client.list_by(&target.resource, target.namespace.as_deref(), &selectors(ask), page).await;
                match list {
                    Ok(mut list) => {
                        found.extend(items(&mut list).into_iter().map(|object| of(&target.resource, object)))
                    }
                    Err(error) => errors.push(about_list(error, &target.resource, ask)),
                }
            }
        }
    }
    Ok((found, errors))
}

/// Finds the objects; the first failure ends it.
pub async fn find_all(session: &mut Session, ask: &Ask) -> Result<Vec<Found>> {
    let (found, errors) = find(session, ask).await?;
    Error::several(errors)?;
    Ok(found)
}

/// The selectors as query parameters.
pub fn selectors(ask: &Ask) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    if let Some(selector) = ask.selector.as_ref().filter(|selector| !selector.is_empty()) {
        query.push(("labelSelector", selector.clone()));
    }
    if let Some(selector) = ask.field_selector.as_ref().filter(|selector| !selector.is_empty()) {
        query.push(("fieldSelector", selector.clone()));
    }
    query
}

/// Takes a list's items.
pub fn items(list: &mut Value) -> Vec<Value> {
    match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// An object of a list.
pub fn of(resource: &Resource, object: Value) -> Found {
    let namespace = resource.namespaced.then(|| object.text("metadata.namespace").to_owned());
    Found {
        resource: resource.clone(),
        namespace,
        name: object.text("metadata.name").to_owned(),
        source: String::new(),
        object,
    }
}

/// Adds to a 404 in which other namespaces there is an object of that name.
pub async fn elsewhere(session: &mut Session, error: Error, target: &Target) -> Error {
    let (Some(name), true) = (&target.name, error.is_not_found() && target.resource.namespaced) else { return error };
    let Ok(client) = session.client() else { return error };
    let query = [("fieldSelector", format!("metadata.name={name}"))];
    let Ok(mut list) = client.list(&target.resource, None, &query).await else { return error };
    let namespaces: Vec<String> =
        items(&mut list).iter().map(|object| object.text("metadata.namespace").to_owned()).collect();
    match namespaces.as_slice() {
        [] => error,
        _ => error.hinted(format!("there is one in namespace {}; choose it with -n", namespaces.join(", "))),
    }
}

async fn from_files(session: &mut Session, ask: &Ask) -> Result<(Vec<Found>, Vec<Error>)> {
    let (manifests, mut errors) = ask.files.read(session).await?;
    let wanted = match &ask.selector {
        Some(text) => Some(api::selector::Selector::parse(text).map_err(|error| Error::told(error.to_string()))?),
        None => None,
    };
    let mut found = Vec::new();
    for manifest in manifests {
        if wanted.as_ref().is_some_and(|selector| !selector.matches(&manifest.object.labels("metadata.labels"))) {
            continue;
        }
        let placed = if ask.local { place_locally(manifest) } else { place(session, manifest).await };
        match placed {
            Ok(mut item) if ask.live => match session.client()?.get(&item.path(), &[]).await {
                Ok(object) => {
                    item.object = object;
                    found.push(item);
                }
                Err(error) => errors.push(error),
            },
            Ok(item) => found.push(item),
            Err(error) => errors.push(error),
        }
    }
    Ok((found, errors))
}

/// Takes an object from a file for what it says it is.
fn place_locally(manifest: manifests::Manifest) -> Result<Found> {
    let manifests::Manifest { source, object } = manifest;
    let (api_version, kind) = type_of(&object, &source)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let singular = kind.to_lowercase();
    let resource = Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: format!("{singular}s"),
        singular,
        kind,
        namespaced: false,
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: Vec::new(),
        subresources: Vec::new(),
    };
    let name = object.text("metadata.name").to_owned();
    Ok(Found { resource, namespace: None, name, source, object })
}

/// The type that an object names. Its metadata have to be such.
fn type_of(object: &Value, source: &str) -> Result<(String, String)> {
    let wrong: Vec<String> = ["apiVersion", "kind"].iter().filter_map(|field| not_set(object, field)).collect();
    let wrong = match wrong.as_slice() {
        [] => unexpected_version(object.text("apiVersion")),
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    };
    if let Some(wrong) = wrong {
        return Err(Error::told(format!(
            "error validating {source:?}: error validating data: {wrong}; if you choose to ignore these errors, turn validation off with --validate=false"
        )));
    }
    wrong_metadata(object).map_err(|why| Error::told(format!("unable to decode {source:?}: {why}")))?;
    Ok((object.text("apiVersion").to_owned(), object.text("kind").to_owned()))
}

fn not_set(object: &Value, field: &str) -> Option<String> {
    match object.at(field) {
        Value::Null => Some(format!("{field} not set")),
        Value::String(text) if text.is_empty() => Some(format!("{field} not set")),
        Value::String(_) => None,
        _ => Some(format!("{field} isn't string type")),
    }
}

fn unexpected_version(api_version: &str) -> Option<String> {
    (api_version.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {api_version}"))
}

/// Refuses a name that is a number, labels that are a list. Any type serves to look: all have the same metadata.
fn wrong_metadata(object: &Value) -> std::result::Result<(), String> {
    use api::schema::{check, type_of};
    let mut metadata = serde_json::json!({ "metadata": object["metadata"] });
    let checked = check(type_of(api::Kind::ConfigMap), &mut metadata);
    checked.map(drop).map_err(|problem| problem.replace("ConfigMap.metadata", "metadataOnlyObject.metadata"))
}

/// Finds the type and the namespace of an object from a file.
pub async fn place(session: &mut Session, manifest: manifests::Manifest) -> Result<Found> {
    let manifests::Manifest { source, mut object } = manifest;
    let (api_version, kind) = type_of(&object, &source)?;
    let name = object.text("metadata.name").to_owned();
    let discovery = session.client()?.discovery().await?;
    let Some(resource) = discovery.kind(&api_version, &kind).cloned() else {
        let namespace = object.text("metadata.namespace");
        let error = Error::told(format!(
            "resource mapping not found for name: {name:?} namespace: {namespace:?} from {source:?}: no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first"
        ));
        let other = discovery.resources.iter().find(|resource| resource.kind == kind);
        return Err(match other {
            Some(other) => error.hinted(format!("{kind} is served as {}", other.api_version())),
            None => error,
        });
    };
    let written = object.text("metadata.namespace").to_owned();
    let mut namespace = None;
    if resource.namespaced {
        let current = session.namespace()?;
        if !written.is_empty() && session.namespace_given() && written != current {
            return Err(Error::told(format!(
                "the namespace from the provided object {written:?} does not match the namespace {current:?}. You must pass '--namespace={written}' to perform this operation."
            )));
        }
        let chosen = if written.is_empty() { current } else { written };
        if !object["metadata"].is_object() {
            object["metadata"] = serde_json::json!({});
        }
        object["metadata"]["namespace"] = chosen.clone().into();
        namespace = Some(chosen);
    }
    Ok(Found { resource, namespace, name, source, object })
}

/// Says what was listed when the server refuses a list.
pub fn about_list(error: Error, resource: &Resource, ask: &Ask) -> Error {
    let Some(status) = error.status().filter(|_| matches!(error.status_code(), 400 | 404)) else { return error };
    let group = if resource.group.is_empty() { format!("/{}", resource.version) } else { resource.api_version() };
    let what = format!("{group}, Resource={}", resource.plural);
    let (labels, fields) = (ask.selector.clone().unwrap_or_default(), ask.field_selector.clone().unwrap_or_default());
    let mut status = status.clone();
    let message = status.text("message");
    status["message"] = match labels.is_empty() && fields.is_empty() {
        true => format!("Unable to list {what:?}: {message}").into(),
        false => format!(
            "Unable to find {what:?} that match label selector {labels:?}, field selector {fields:?}: {message}"
        )
        .into(),
    };
    Error::refused(status)
}
