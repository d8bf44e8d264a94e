//! `api-versions`. Mirrors kubectl `pkg/cmd/apiresources/apiversions.go`.

use crate::errors::Result;
use crate::session::Session;

/// List the API versions that the server has, as group/version.
#[derive(clap::Args)]
pub struct Options {}

/// Lists.
pub async fn run(session: &mut Session, _: Options) -> Result<()> {
    let discovery = session.client()?.discovery().await?;
    let mut versions: Vec<String> = Vec::new();
    for group in &discovery.groups {
        let slash = if group.name.is_empty() { "" } else { "/" };
        versions.extend(group.versions.iter().map(|version| format!("{}{slash}{version}", group.name)));
    }
    versions.sort();
    versions.iter().try_for_each(|version| session.say(version))
}
