//! The verbs: one file each. The doc comment of a file's `Options` is its help.

use crate::errors::Result;
use crate::session::Session;

pub mod get;
pub mod version;

/// The one table of verbs: the grammar and the dispatch.
macro_rules! verbs {
    ($($verb:ident => $module:ident,)*) => {
        /// A verb and its options.
        #[derive(clap::Subcommand)]
        #[allow(missing_docs)]
        pub enum Verb { $($verb($module::Options),)* }

        /// Does what the verb says.
        pub async fn run(session: &mut Session, verb: Verb) -> Result<()> {
            match verb { $(Verb::$verb(options) => Box::pin($module::run(session, options)).await,)* }
        }
    };
}

verbs! {
    Get => get,
    Version => version,
}
