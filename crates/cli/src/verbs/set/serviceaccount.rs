//! `set serviceaccount`. Mirrors kubectl `pkg/cmd/set/set_serviceaccount.go`.

use serde_json::Value;

use super::{Change, Common, pod_spec};
use crate::change::Record;
use crate::errors::{Error, Result};
use crate::session::Session;

/// Set the service account that pods run as.
///
/// Examples:
///   kapstan set serviceaccount deployment/web web-account
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME, then the service account's name.
    words: Vec<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    record: Record,
}

/// Sets it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    options.common.check(session, None)?;
    let Some((account, objects)) = options.words.split_last() else {
        return Err(Error::told("serviceaccount is required"));
    };
    let found = options.common.find(session, objects, None).await?;
    let change =
        Change { done: "serviceaccount updated", failed: "failed to patch ServiceAccountName", silent_if_same: false };
    let edit = |object: &mut Value| {
        let missing = pod_spec::missing(object);
        let spec = pod_spec::of(object).ok_or(missing)?;
        spec["serviceAccountName"] = account.clone().into();
        Ok(())
    };
    options.common.apply(session, &found, &options.record, &change, edit).await
}
