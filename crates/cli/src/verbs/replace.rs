//! `replace`. Mirrors kubectl `pkg/cmd/replace/replace.go`.

use crate::change::{DryRun, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files};
use crate::print;
use crate::session::Session;
use crate::verbs::create::Making;

/// Replace objects by what files say.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    record: Record,
    /// Delete and create anew.
    #[arg(long)]
    force: bool,
}

/// Replaces.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if options.files.is_empty() {
        return Err(Error::told("must specify --filename to replace").hinted("name a file with -f"));
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
        if options.force && dry_run == DryRun::No {
            match super::delete::delete_and_wait(session, &item).await {
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
            client.put(&item.path(), &query, &item.object).await
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
