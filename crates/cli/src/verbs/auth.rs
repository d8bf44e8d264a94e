//! `auth can-i` and `auth whoami`. Mirrors kubectl `pkg/cmd/auth` (cani.go, whoami.go).

use serde_json::json;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::print::tabwriter::{GET, align};
use crate::print::{self, Output};
use crate::session::Session;
use crate::verbs::describe;

/// Ask what is allowed, and who one is.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// May I do VERB on TYPE, TYPE/NAME or a path? Exit code 1 says no.
    CanI {
        /// VERB [TYPE | TYPE/NAME | /PATH].
        words: Vec<String>,
        /// Say it by the exit code alone.
        #[arg(long, short)]
        quiet: bool,
        /// Everything that is allowed.
        #[arg(long)]
        list: bool,
        /// In every namespace.
        #[arg(long, short = 'A')]
        all_namespaces: bool,
        /// A subresource, such as log.
        #[arg(long)]
        subresource: Option<String>,
        /// Print no line of headers, with --list.
        #[arg(long)]
        no_headers: bool,
    },
    /// Who am I to the server?
    Whoami {
        #[command(flatten)]
        output: Output,
    },
}

const KNOWN_VERBS: [&str; 16] = [
    "*",
    "approve",
    "attest",
    "bind",
    "create",
    "delete",
    "deletecollection",
    "escalate",
    "get",
    "impersonate",
    "list",
    "patch",
    "sign",
    "update",
    "use",
    "watch",
];

/// Asks.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.what {
        What::Whoami { output } => whoami(session, &output).await,
        What::CanI { list: true, all_namespaces, no_headers, .. } => list(session, all_namespaces, no_headers).await,
        What::CanI { words, quiet, all_namespaces, subresource, .. } => {
            can_i(session, &words, quiet, all_namespaces, subresource).await
        }
    }
}

async fn can_i(
    session: &mut Session,
    words: &[String],
    quiet: bool,
    all: bool,
    subresource: Option<String>,
) -> Result<()> {
    let [verb, object, more @ ..] = words else {
        return Err(Error::told("you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' for help and examples.".replace("kubectl", &session.program)));
    };
    if !KNOWN_VERBS.contains(&verb.as_str()) && !object.starts_with('/') {
        session.warn(format!("Warning: verb '{verb}' is not a known verb\n"))?;
    }
    let client = session.client()?;
    let mut spec = json!({});
    if object.starts_with('/') {
        spec["nonResourceAttributes"] = json!({"path": object, "verb": verb});
    } else {
        let (word, name) = object
            .split_once('/')
            .map_or((object.as_str(), more.first().map(String::as_str)), |(word, name)| (word, Some(name)));
        let discovery = client.discovery().await?;
        let mut attributes = json!({"verb": verb});
        match discovery.find(word) {
            Some(resource) => {
                attributes["resource"] = resource.plural.clone().into();
                attributes["group"] = resource.group.clone().into();
                if !resource.namespaced && !all {
                    session.warn(format!(
                        "Warning: resource '{}' is not namespace scoped{}\n",
                        resource.plural,
                        if resource.group.is_empty() {
                            String::new()
                        } else {
                            format!(" in group '{}'", resource.group)
                        }
                    ))?;
                }
            }
            None => {
                if word != "*" {
                    session.warn(format!("Warning: the server doesn't have a resource type '{word}'\n"))?;
                }
                attributes["resource"] = word.into();
            }
        }
        if !all {
            attributes["namespace"] = session.namespace()?.into();
        }
        if let Some(name) = name {
            attributes["name"] = name.into();
        }
        if let Some(subresource) = subresource {
            attributes["subresource"] = subresource.into();
        }
        spec["resourceAttributes"] = attributes;
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &[], &review).await?;
    let allowed = answer.flag("status.allowed");
    if !quiet {
        let reason = answer.text("status.reason");
        let why = if reason.is_empty() || allowed { String::new() } else { format!(" - {reason}") };
        session.say(format!("{}{why}", if allowed { "yes" } else { "no" }))?;
    }
    if allowed { Ok(()) } else { Err(Error::silent(1)) }
}

async fn list(session: &mut Session, all: bool, no_headers: bool) -> Result<()> {
    let namespace = if all { String::new() } else { session.namespace()? };
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
    let answer = session.client()?.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &[], &review).await?;
    let mut text = String::new();
    if !no_headers {
        text += "Resources\tNon-Resource URLs\tResource Names\tVerbs\n";
    }
    let rules = [answer.list("status.resourceRules"), answer.list("status.nonResourceRules")].concat();
    for row in describe::access::rows(&rules) {
        text += &format!("{row}\n");
    }
    session.print(align(&text, GET))
}

async fn whoami(session: &mut Session, output: &Output) -> Result<()> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = session.client()?.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &[], &review).await.map_err(|error| match error.is_not_found() {
        true => Error::told("the selfsubjectreviews API is not enabled in the cluster\nenable APISelfSubjectReview feature gate and authentication.k8s.io/v1alpha1 or authentication.k8s.io/v1beta1 API"),
        false => error,
    })?;
    if output.output.is_some() || output.template.is_some() {
        let text = print::object(&output.format()?, &answer, output.show_managed_fields)?;
        return session.print(text);
    }
    let info = answer.at("status.userInfo");
    let mut text = format!("ATTRIBUTE\tVALUE\nUsername\t{}\n", info.text("username"));
    if info.has("uid") {
        text += &format!("UID\t{}\n", info.text("uid"));
    }
    let words =
        |values: &[serde_json::Value]| values.iter().filter_map(|value| value.as_str()).collect::<Vec<_>>().join(" ");
    if !info.list("groups").is_empty() {
        text += &format!("Groups\t[{}]\n", words(info.list("groups")));
    }
    for (key, values) in info.map("extra") {
        text += &format!("Extra: {key}\t[{}]\n", words(values.as_array().map_or(&[], Vec::as_slice)));
    }
    session.print(align(&text, GET))
}
