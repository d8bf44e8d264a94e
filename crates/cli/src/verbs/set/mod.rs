//! `set`: change one field of objects. Mirrors kubectl `pkg/cmd/set`; `set image --in-place` is ours.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::change::{self, DryRun, DryRunFlag, Record};
use crate::errors::{Error, Result};
use crate::objects::{self, Ask, Files, Found};
use crate::print::{self, Output};
use crate::session::Session;

pub mod env;
pub mod image;
pub mod in_place;
pub mod pod_spec;
pub mod resolve;
pub mod resources;
pub mod selector;
pub mod serviceaccount;
pub mod subject;

/// Set one field of objects: image, resources, env, selector, serviceaccount, subject.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Env(env::Options),
    Image(image::Options),
    Resources(resources::Options),
    Selector(selector::Options),
    #[command(alias = "sa")]
    Serviceaccount(serviceaccount::Options),
    Subject(subject::Options),
}

/// Does it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.what {
        What::Env(options) => env::run(session, options).await,
        What::Image(options) => image::run(session, options).await,
        What::Resources(options) => resources::run(session, options).await,
        What::Selector(options) => selector::run(session, options).await,
        What::Serviceaccount(options) => serviceaccount::run(session, options).await,
        What::Subject(options) => subject::run(session, options).await,
    }
}

/// What every `set` takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    #[command(flatten)]
    files: Files,
    /// Every object of the types, in the namespace.
    #[arg(long)]
    all: bool,
    /// Only change the files' objects and print them; no server is asked.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    output: Output,
    /// Name under which the change is kept in managed fields.
    #[arg(long, default_value = "kubectl-set", hide_short_help = true)]
    field_manager: String,
}

/// What becomes of an object: changed in place; an error says why it cannot be.
pub type Outcome = Result<(), String>;

/// A change that is made of many objects.
pub struct Change<'a> {
    /// `image updated`.
    pub done: &'a str,
    /// `failed to patch image update to pod template`.
    pub failed: &'a str,
    /// Objects that the change leaves as they are: nothing is said of them.
    pub silent_if_same: bool,
}

impl Common {
    /// Finds the objects that words and files name.
    pub async fn find(&self, session: &mut Session, words: &[String], selector: Option<&String>) -> Result<Vec<Found>> {
        if self.local && !words.is_empty() {
            return Err(Error::told(
                "you must specify resources by --filename when --local is set.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'",
            ));
        }
        if words.is_empty() && self.files.is_empty() {
            return Err(Error::told(
                "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
            ));
        }
        let ask = Ask {
            words: words.to_vec(),
            files: self.files.clone(),
            selector: selector.cloned(),
            all: self.all,
            live: !self.local,
            local: self.local,
            ..Ask::default()
        };
        objects::find_all(session, &ask).await
    }

    /// Refuses flags that exclude each other.
    pub fn check(&self, session: &mut Session, selector: Option<&String>) -> Result<DryRun> {
        let dry_run = self.dry_run.strategy(session)?;
        self.output.format()?;
        if self.all && selector.is_some_and(|selector| !selector.is_empty()) {
            return Err(Error::told("cannot set --all and --selector at the same time"));
        }
        if self.local && dry_run == DryRun::Server {
            return Err(Error::told("cannot specify --local and --dry-run=server - did you mean --dry-run=client?"));
        }
        Ok(dry_run)
    }

    /// Changes the objects one after the other and prints each; failures are told at the end.
    pub async fn apply(
        &self,
        session: &mut Session,
        found: &[Found],
        record: &Record,
        change: &Change<'_>,
        mut edit: impl FnMut(&mut Value) -> Outcome,
    ) -> Result<()> {
        let dry_run = self.check(session, None)?;
        let mut errors = Vec::new();
        for item in found {
            let mut after = item.object.clone();
            if let Err(why) = edit(&mut after) {
                errors.push(Error::told(format!("{}/{} {why}", item.resource.plural, item.name)));
                continue;
            }
            record.annotate(session, &mut after);
            if after == item.object && change.silent_if_same {
                continue;
            }
            let sent = self.send(session, item, &after, dry_run, change).await;
            let printed = sent.and_then(|(changed, suffix)| {
                print::made(session, &self.output, &changed, &format!("{}{suffix}", change.done))
            });
            errors.extend(printed.err());
        }
        Error::several(errors)
    }

    async fn send(
        &self,
        session: &mut Session,
        item: &Found,
        after: &Value,
        dry_run: DryRun,
        change: &Change<'_>,
    ) -> Result<(Value, &'static str)> {
        if self.local || dry_run == DryRun::Client {
            return Ok((after.clone(), dry_run.suffix()));
        }
        let changed = change::patch_two_way(session, item, after, dry_run, &self.field_manager).await;
        match changed {
            Ok(changed) => Ok((changed, dry_run.suffix())),
            Err(error) if change.failed.is_empty() => Err(error),
            Err(error) => Err(Error::told(format!("{} {}", change.failed, error.inner_message()))),
        }
    }
}

/// Splits `TYPE NAME a=b c=d` into objects and pairs. Mirrors kubectl `GetResourcesAndPairs`.
pub fn split_pairs(words: &[String], what: &str) -> Result<(Vec<String>, Vec<String>)> {
    let is_pair = |word: &str| word.find('=').is_some_and(|at| at > 0) || (word.ends_with('-') && word != "-");
    let first = words.iter().position(|word| is_pair(word)).unwrap_or(words.len());
    let (objects, pairs) = words.split_at(first);
    if let Some(late) = pairs.iter().find(|word| !is_pair(word)) {
        return Err(Error::told(format!("all resources must be specified before {what} changes: {late}")));
    }
    Ok((objects.to_vec(), pairs.to_vec()))
}

/// Whether a name fits a pattern with `*`. Mirrors what kubectl's `selectString` is for.
pub fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            rest.is_empty()
                || (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| fits(&name[at..], rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (name, pattern, wanted) in [
            ("web", "*", true),
            ("web", "web", true),
            ("web", "we", false),
            ("web-1", "web-*", true),
            ("a-b-c", "a*c", true),
            ("a-b", "a*c", false),
        ] {
            assert_eq!(fits(name, pattern), wanted, "{name} {pattern}");
        }
    }

    #[test]
    fn objects_before_pairs() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (objects, pairs) = split_pairs(&words("deploy web a=b c-"), "image").unwrap();
        assert_eq!((objects.join(" "), pairs.join(" ")), ("deploy web".into(), "a=b c-".into()));
        let error = split_pairs(&words("deploy a=b web"), "image").unwrap_err();
        assert_eq!(error.message(), "error: all resources must be specified before image changes: web");
    }
}
