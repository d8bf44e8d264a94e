//! What a server serves, and which resource a word means.
//!
//! Mirrors client-go `discovery` (aggregated discovery, with the older per-version lists where that is not served) and `restmapper`
//! (`shortcut.go`, `category_expansion.go`).

use futures::future::join_all;
use http::Method;
use serde_json::Value;

use crate::client::{Client, JSON, escape, read};
use crate::errors::{Error, Result};
use crate::json::Json;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// A resource: what a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version in the group.
    pub version: String,
    /// Kind of its objects.
    pub kind: String,
    /// The name in URLs.
    pub plural: String,
    /// One of it.
    pub singular: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// Groups of resources it is in, such as `all`.
    pub categories: Vec<String>,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<String>,
}

impl Resource {
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, `pods`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `deployment.apps`, `pod`: what stands before the slash of a printed name.
    pub fn printed_kind(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    /// Path of the collection, or of an object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}", self.api_version());
        if let (true, Some(namespace)) = (self.namespaced, namespace.filter(|namespace| !namespace.is_empty())) {
            path.push_str(&format!("/namespaces/{}", escape(namespace)));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{}", escape(name)));
        }
        path
    }

    /// Whether a verb is possible.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// A group and its versions, the preferred one first.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name; empty for the core group.
    pub name: String,
    /// Its versions.
    pub versions: Vec<String>,
}

/// Everything that a server serves.
#[derive(Debug, Default)]
pub struct Discovery {
    /// In the order of preference.
    pub resources: Vec<Resource>,
    /// In the server's order.
    pub groups: Vec<Group>,
}

impl Discovery {
    /// Asks the server.
    pub async fn read(client: &Client) -> Result<Discovery> {
        let (core, named) = futures::join!(ask(client, "/api"), ask(client, "/apis"));
        let (core, named) = (core?, named?);
        let mut discovery = Discovery::default();
        if core.text("kind") == "APIGroupDiscoveryList" && named.text("kind") == "APIGroupDiscoveryList" {
            discovery.add_aggregated(&core);
            discovery.add_aggregated(&named);
        } else {
            discovery.add_lists(client, &core, &named).await?;
        }
        Ok(discovery)
    }

    fn add_aggregated(&mut self, list: &Value) {
        for group in list.list("items") {
            let name = group.text("metadata.name");
            let versions = group.list("versions");
            self.groups.push(Group {
                name: name.to_owned(),
                versions: versions.iter().map(|version| version.text("version").to_owned()).collect(),
            });
            for version in versions {
                for entry in version.list("resources") {
                    self.resources.push(Resource {
                        group: name.to_owned(),
                        version: version.text("version").to_owned(),
                        kind: entry.text("responseKind.kind").to_owned(),
                        plural: entry.text("resource").to_owned(),
                        singular: entry.text("singularResource").to_owned(),
                        namespaced: entry.text("scope") == "Namespaced",
                        short_names: strings(entry.list("shortNames")),
                        categories: strings(entry.list("categories")),
                        verbs: strings(entry.list("verbs")),
                        subresources: entry
                            .list("subresources")
                            .iter()
                            .map(|sub| sub.text("subresource").to_owned())
                            .collect(),
                    });
                }
            }
        }
    }

    async fn add_lists(&mut self, client: &Client, core: &Value, named: &Value) -> Result<()> {
        let mut paths: Vec<(String, String)> = Vec::new();
        let versions = strings(core.list("versions"));
        paths.extend(versions.iter().map(|version| (format!("/api/{version}"), String::new())));
        self.groups.push(Group { name: String::new(), versions });
        for group in named.list("groups") {
            let name = group.text("name").to_owned();
            let preferred = group.text("preferredVersion.version").to_owned();
            let mut versions: Vec<String> =
                group.list("versions").iter().map(|version| version.text("version").to_owned()).collect();
            versions.sort_by_key(|version| *version != preferred);
            paths.extend(versions.iter().map(|version| (format!("/apis/{name}/{version}"), name.clone())));
            self.groups.push(Group { name, versions });
        }
        let lists = join_all(paths.iter().map(|(path, _)| client.get(path, &[]))).await;
        for (list, (path, group)) in lists.into_iter().zip(&paths) {
            // One group whose server is away must not hide the others.
            let Ok(list) = list else { continue };
            let version = path.rsplit('/').next().unwrap_or_default();
            self.add_list(&list, group, version);
        }
        Ok(())
    }

    fn add_list(&mut self, list: &Value, group: &str, version: &str) {
        let first = self.resources.len();
        for entry in list.list("resources") {
            let name = entry.text("name");
            if let Some((plural, subresource)) = name.split_once('/') {
                let owner = self.resources[first..].iter_mut().find(|resource| resource.plural == plural);
                owner.into_iter().for_each(|resource| resource.subresources.push(subresource.to_owned()));
                continue;
            }
            let kind = entry.text("kind").to_owned();
            let singular = entry.text("singularName");
            self.resources.push(Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: name.to_owned(),
                singular: if singular.is_empty() { kind.to_lowercase() } else { singular.to_owned() },
                kind,
                namespaced: entry.flag("namespaced"),
                short_names: strings(entry.list("shortNames")),
                categories: strings(entry.list("categories")),
                verbs: strings(entry.list("verbs")),
                subresources: Vec::new(),
            });
        }
    }

    /// The resource that a word means: `deploy`, `deployments.apps`, `deployments.v1.apps`, `Deployment`.
    pub fn resource(&self, word: &str) -> Result<&Resource> {
        self.find(word).ok_or_else(|| self.unknown(word))
    }

    /// Like [`Discovery::resource`], without an error.
    pub fn find(&self, word: &str) -> Option<&Resource> {
        let lower = word.to_lowercase();
        let (name, rest) = match lower.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (lower.as_str(), None),
        };
        let fits = |resource: &&Resource| match rest {
            None => true,
            Some(rest) => {
                resource.group == rest
                    || resource.group.starts_with(&format!("{rest}."))
                    || rest == resource.version && resource.group.is_empty()
                    || rest == format!("{}.{}", resource.version, resource.group)
            }
        };
        let named = |resource: &&Resource| {
            resource.plural == name || resource.singular == name || resource.kind.to_lowercase() == name
        };
        let short = |resource: &&Resource| resource.short_names.iter().any(|short| short == name);
        let listed = || self.resources.iter().filter(fits);
        listed().find(named).or_else(|| listed().find(short))
    }

    /// The resource of a manifest's apiVersion and kind.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// The resources of a category.
    pub fn category(&self, name: &str) -> Vec<&Resource> {
        let mut seen: Vec<&Resource> = Vec::new();
        for resource in &self.resources {
            let known = seen.iter().any(|other| other.plural == resource.plural && other.group == resource.group);
            if resource.categories.iter().any(|category| category == name) && resource.can("list") && !known {
                seen.push(resource);
            }
        }
        seen
    }

    fn unknown(&self, word: &str) -> Error {
        let error = Error::told(format!("the server doesn't have a resource type \"{word}\""));
        let names = self.resources.iter().flat_map(|resource| [&resource.plural, &resource.singular]);
        // Abbreviations of a few letters are near everything.
        let short = self.resources.iter().flat_map(|resource| &resource.short_names).filter(|name| 3 < name.len());
        let near = closest(word, names.map(String::as_str)).or_else(|| closest(word, short.map(String::as_str)));
        match near {
            Some(name) => error.hinted(format!("did you mean \"{name}\"?")),
            None => error.hinted("`kapstan api-resources` lists the types that the server has"),
        }
    }
}

async fn ask(client: &Client, path: &str) -> Result<Value> {
    let answer = client.send(Method::GET, path, &[], AGGREGATED, None).await;
    match answer {
        Ok(answer) => Ok(serde_json::from_slice(&read(answer).await?)?),
        Err(error) if matches!(error.status_code(), 404 | 403) => Ok(Value::Null),
        Err(error) if error.status_code() == 406 => client.json(Method::GET, path, &[], JSON, None).await,
        Err(error) => Err(error),
    }
}

fn strings(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The name that was probably meant, if one is near.
pub fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = (word.chars().count() / 3).clamp(1, 3);
    let far = |name: &str| match name.starts_with(&word) && word.chars().count() >= SHORTEST_START {
        true => near,
        false => distance(&word, name),
    };
    names
        .map(|name| (far(name), name))
        .filter(|(far, _)| *far <= near)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// Letters of a word that may be the start of a longer one.
const SHORTEST_START: usize = 3;

/// The number of letters to change, add, leave out or swap with their neighbour (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for left in 0..one.len() {
        let mut row = vec![left + 1];
        for right in 0..other.len() {
            let same = usize::from(one[left] != other[right]);
            let mut best = (rows[left][right] + same).min(rows[left][right + 1] + 1).min(row[right] + 1);
            let swapped = left > 0 && right > 0 && one[left] == other[right - 1] && one[left - 1] == other[right];
            if swapped {
                best = best.min(rows[left - 1][right - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}
