//! `replace`. Mirrors kubectl `pkg/cmd/replace/replace.go`.

use http::Method;

use super::raw;
use crate::change::{DryRun, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files};
use crate::print;
use crate::session::Session;
use crate::verbs::create::Making;
use crate::verbs::delete::Deletion;

/// Replace objects by what files say.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    record: Record,
    #[command(flatten)]
    deletion: Deletion,
    /// Replace a subresource, such as status or scale.
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    /// PUT the file to this path of the server as it is.
    #[arg(long, value_name = "URI")]
    raw: Option<String>,
}

/// Replaces.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if options.files.is_empty() {
        return Err(Error::told("must specify --filename to replace").hinted("name a file with -f"));
    }
    options.deletion.check()?;
    if let Some(path) = &options.raw {
        if options.making.output.output.is_some() {
            return Err(Error::told("--raw and --output are mutually exclusive"));
        }
        return raw::send(session, Method::PUT, path, &options.files).await;
    }
    options.record.warn(session)?;
    let dry_run = options.making.dry_run.strategy(session)?;
    let ask = Ask { files: options.files.clone(), ..Ask::default() };
    let (found, mut errors) = objects::find(session, &ask).await?;
    let client = session.client()?;
    for mut item in found {
        options.record.annotate(session, &mut item.object);
        if options.making.save_config {
            item.object = super::apply::with_last_applied(&item.object);
        }
        if options.deletion.force && dry_run == DryRun::No {
            match options.deletion.delete_and_wait(session, &item).await {
                Ok(()) => session.say(format!("{} {:?} deleted", item.resource.printed_kind(), item.name))?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            let path = item.resource.path(item.namespace.as_deref(), None);
            let created = client.post(&path, &dry_run.query("kubectl-replace"), &item.object).await?;
            print::done(session, &options.making.output, &created, "replaced")?;
            continue;
        }
        if dry_run == DryRun::Client {
            print::done(session, &options.making.output, &item.object, "replaced (dry run)")?;
            continue;
        }
        let mut query = dry_run.query("kubectl-replace");
        query.push(("fieldValidation", super::apply::validation(&options.making.validate)?.into()));
        let outcome = async {
            if !item.object.has("metadata.resourceVersion") {
                let live = client.get(&item.path(), &[]).await?;
                item.object["metadata"]["resourceVersion"] = live.text("metadata.resourceVersion").into();
            }
            let path = match &options.subresource {
                Some(subresource) => format!("{}/{subresource}", item.path()),
                None => item.path(),
            };
            client.put(&path, &query, &item.object).await
        };
        match outcome.await {
            Ok(replaced) => {
                print::done(session, &options.making.output, &replaced, &format!("replaced{}", dry_run.suffix()))?;
            }
            Err(error) => errors.push(error.about("replacing", &item.source)),
        }
    }
    Error::several(errors)
}
