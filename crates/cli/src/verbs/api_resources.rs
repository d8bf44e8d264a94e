//! `api-resources`. Mirrors kubectl `pkg/cmd/apiresources/apiresources.go`.

use crate::discovery::{Discovery, Resource};
use crate::errors::{Error, Result};
use crate::print::tabwriter::{GET, align};
use crate::session::Session;

/// List the types of objects that the server has.
#[derive(clap::Args)]
pub struct Options {
    /// wide or name.
    #[arg(long, short)]
    output: Option<String>,
    /// Only of this group.
    #[arg(long)]
    api_group: Option<String>,
    /// Only what is in namespaces (false: only what is not).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    namespaced: Option<bool>,
    /// Only what has all these verbs.
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only of these categories.
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// name or kind.
    #[arg(long)]
    sort_by: Option<String>,
    /// Print no line of headers.
    #[arg(long)]
    no_headers: bool,
    /// Use cached lists; accepted, there is no cache.
    #[arg(long)]
    cached: bool,
}

/// Lists.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let wide = match options.output.as_deref() {
        None | Some("") => false,
        Some("wide") => true,
        Some("name") => false,
        Some(other) => return Err(Error::told(format!("--output {other} is not available"))),
    };
    let discovery = session.client()?.discovery().await?;
    let mut shown = preferred(&discovery);
    shown.retain(|resource| fits(&options, resource));
    match options.sort_by.as_deref() {
        Some("kind") => shown.sort_by(|one, other| one.kind.cmp(&other.kind)),
        Some("name") => shown.sort_by(|one, other| one.plural.cmp(&other.plural)),
        None | Some("") => shown.sort_by(|one, other| (&one.group, &one.plural).cmp(&(&other.group, &other.plural))),
        Some(other) => return Err(Error::told(format!("--sort-by accepts only name or kind, not {other}"))),
    }
    if options.output.as_deref() == Some("name") {
        return shown.iter().try_for_each(|resource| session.say(resource.qualified()));
    }
    let mut text = String::new();
    if !options.no_headers {
        text += "NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND";
        text += if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" };
    }
    for resource in shown {
        let (name, short) = (&resource.plural, resource.short_names.join(","));
        let (version, inside, kind) = (resource.api_version(), resource.namespaced, &resource.kind);
        text += &format!("{name}\t{short}\t{version}\t{inside}\t{kind}");
        if wide {
            let mut verbs = resource.verbs.clone();
            verbs.sort();
            text += &format!("\t{}\t{}", verbs.join(","), resource.categories.join(","));
        }
        text.push('\n');
    }
    session.print(align(&text, GET))
}

/// Each resource in the version that its group prefers.
pub fn preferred(discovery: &Discovery) -> Vec<&Resource> {
    let mut found: Vec<&Resource> = Vec::new();
    for resource in &discovery.resources {
        if !found.iter().any(|other| other.group == resource.group && other.plural == resource.plural) {
            found.push(resource);
        }
    }
    found
}

fn fits(options: &Options, resource: &Resource) -> bool {
    options.api_group.as_ref().is_none_or(|group| *group == resource.group)
        && options.namespaced.is_none_or(|inside| inside == resource.namespaced)
        && options.verbs.iter().all(|verb| resource.can(verb))
        && options.categories.iter().all(|category| resource.categories.contains(category))
        && !resource.verbs.is_empty()
}
