//! The voice: commands a person types, in kubectl's grammar, against kapstan and any Kubernetes cluster.
//!
//! # How it is laid out
//!
//! * [`run`] is the whole: argv and handles in, exit code out. Tests give buffers and need no process.
//! * `verbs/` has one file per verb. Its `Options` struct is a clap `Args`, **its doc comment is the help**, and
//!   `pub async fn run(session: &mut Session, options: Options) -> Result<()>` does it. Nouns with sub-verbs are folders
//!   (`verbs/set/mod.rs`, `verbs/set/image.rs`).
//! * **To add a verb**: write the file, add it to the `verbs!` table in `verbs/mod.rs` (one line). Nothing else.
//! * `Session` (session.rs) holds the handles (`session.say(line)`, `session.warn(line)`), the environment, the global flags and the
//!   client (`session.client()?`, `session.namespace()?`).
//! * `Client` (client.rs) sends requests: `get`, `list`, `post`, `put`, `patch`, `delete`, `lines` (watch, logs). Objects are
//!   `serde_json::Value`; `json::Json` reads fields by path: `object.text("spec.nodeName")`, `object.number("spec.replicas")`.
//! * `Discovery`/`Resource` (discovery.rs): which resource a word means; `resource.path(namespace, name)` is its URL.
//! * `objects.rs`: the objects a command line means: `TYPE NAME…`, `TYPE/NAME`, `-f`, `-l`, `--all`. Flatten `objects::Files` and
//!   `objects::Labels` into your options and call `objects::find`.
//! * `manifests.rs` reads files, and `web.rs` what URLs name; `change.rs` sends changes (dry run, field manager) and `--record`s them; `print/` prints: flatten `print::Output` (`-o`)
//!   and call `print::done(session, &output, &object, "scaled")` for `deployment.apps/web scaled`.
//! * `complete.rs` answers shells that ask for what may come next, by the grammar and by the cluster.
//! * `remote.rs`: streams into a container, over a WebSocket; `terminal.rs`: the user's own terminal while one runs.
//! * Errors (errors.rs): `Error::told("…")` prints `error: …`; the server's `Status` prints as kubectl prints it; add `.hinted("…")`.
//!
//! It never starts a pager, never asks where kubectl does not, and never swallows a flag: what is not supported is refused.

// Doc comments of arguments are help texts: `PORT[:TARGET]` there is no link.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags, rustdoc::bare_urls)]
// Streams to the user are written by one thread; nothing here crosses threads.
#![allow(clippy::await_holding_refcell_ref)]

pub mod change;
pub mod client;
mod complete;
pub mod discovery;
pub mod errors;
pub mod grammar;
pub mod json;
pub mod kubeconfig;
pub mod manifests;
pub mod objects;
pub mod print;
pub mod remote;
pub mod session;
pub mod terminal;
pub mod time;
pub mod verbs;
pub mod web;
mod yaml;

use std::path::Path;
use std::process::ExitCode;

pub use errors::{Error, Result};
pub use session::{Io, Session};

/// Runs the command that `argv` says (the program's name first). `own` is what the program can do besides: it is in manual pages
/// and completions.
pub fn run(argv: &[String], own: clap::Command, io: Io) -> ExitCode {
    let program = argv
        .first()
        .map_or("kapstan", |path| Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or("kapstan"));
    let words = argv.get(1..).unwrap_or_default();
    let (global, verb) = match complete::is_asked(words) {
        true => Default::default(),
        false => match grammar::parse(program, words, &own) {
            Ok(parsed) => (parsed.global, Some(parsed.verb)),
            Err(stop) => return stop.tell(io),
        },
    };
    let mut session = Session::new(io, global, program.to_owned(), words.to_vec(), own);
    // One thread is enough for a command; many are not needed for many requests.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let outcome = match verb {
                Some(verb) => verbs::perform(&mut session, verb).await,
                None => complete::run(&mut session, words).await,
            };
            session.pass_on_warnings()?;
            outcome
        }),
        Err(error) => Err(Error::from(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = session.report(&error);
            ExitCode::from(if told.is_ok() { error.exit_code() } else { 1 })
        }
    }
}
