//! One run of a command: its handles, its environment, its global flags, and the client that is made when it is first needed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use clap::Args;

use crate::client::Client;
use crate::errors::{Error, Result};
use crate::kubeconfig;

/// What a command reads and writes. Tests give buffers.
pub struct Io {
    /// Standard input.
    pub stdin: Box<dyn Read + Send>,
    /// Standard output.
    pub stdout: Box<dyn Write>,
    /// Standard error.
    pub stderr: Box<dyn Write>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Whether standard output is a terminal.
    pub terminal: bool,
}

impl Io {
    /// The handles of this process.
    pub fn process() -> Io {
        Io {
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            terminal: io::IsTerminal::is_terminal(&io::stdout()),
        }
    }
}

/// Flags that every verb takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Path of the kubeconfig file.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig to use (the user who is bound, for `create rolebinding`).
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Vec<String>,
    /// Namespace of this request.
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Address and port of the API server.
    #[arg(long, short, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token to authenticate with.
    #[arg(long, global = true, hide_short_help = true)]
    pub token: Option<String>,
    /// Name for basic authentication.
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    pub username: Option<String>,
    /// Password for basic authentication.
    #[arg(long, global = true, hide_short_help = true, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// User name to act as.
    #[arg(long = "as", global = true, hide_short_help = true, value_name = "USER")]
    pub act_as: Option<String>,
    /// Group to act as; may be repeated.
    #[arg(long = "as-group", global = true, hide_short_help = true, value_name = "GROUP")]
    pub act_as_group: Vec<String>,
    /// Uid to act as; refused, the connection has no header for it.
    #[arg(long = "as-uid", global = true, hide = true, value_name = "UID")]
    pub act_as_uid: Option<String>,
    /// Path of a certificate file for the certificate authority.
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub certificate_authority: Option<String>,
    /// Path of a client certificate file.
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub client_certificate: Option<String>,
    /// Path of a client key file.
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub client_key: Option<String>,
    /// Do not check the server's certificate. Makes the connection insecure.
    #[arg(long, global = true, hide_short_help = true)]
    pub insecure_skip_tls_verify: bool,
    /// Name to check the server's certificate with.
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// How long to wait for a single request, such as 1s or 2m; 0 is without end.
    #[arg(long, global = true, default_value = "0", hide_short_help = true, value_name = "DURATION")]
    pub request_timeout: String,
    /// Folder for discovery caches; accepted, nothing is cached on disk.
    #[arg(long, global = true, hide = true)]
    pub cache_dir: Option<String>,
    /// Accepted: answers are not compressed anyway.
    #[arg(long, global = true, hide = true)]
    pub disable_compression: bool,
    /// Accepted: nothing is held back before it is logged.
    #[arg(long, global = true, hide = true, value_name = "DURATION")]
    pub log_flush_frequency: Option<String>,
    /// What to measure of the command itself: none; the others are refused.
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// File for what --profile measures; accepted, nothing is measured.
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub profile_output: Option<String>,
    /// Refuse to talk to a server of another version.
    #[arg(long, global = true, hide_short_help = true)]
    pub match_server_version: bool,
    /// Treat warnings of the server as errors.
    #[arg(long, global = true, hide_short_help = true)]
    pub warnings_as_errors: bool,
    /// How much to tell about requests: 6 and more prints each.
    #[arg(short, long = "v", global = true, default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
}

impl Global {
    /// Refuses what is understood and not done.
    fn check(&self) -> Result<()> {
        if self.act_as_uid.as_ref().is_some_and(|uid| !uid.is_empty()) {
            return Err(Error::told("--as-uid is not supported: name the user with --as"));
        }
        match self.profile.as_deref() {
            None | Some("" | "none") => Ok(()),
            Some("cpu" | "heap" | "goroutine" | "threadcreate" | "block" | "mutex" | "trace") => {
                Err(Error::told("--profile is not supported: the command measures nothing of itself"))
            }
            Some(other) => Err(Error::told(format!("unknown profile '{other}'"))),
        }
    }
}

/// One run of a command.
pub struct Session {
    /// Handles and environment.
    pub io: Io,
    /// Global flags.
    pub global: Global,
    /// How the program was called: `kapstan` or `kubectl`.
    pub program: String,
    /// The words after the program's name, as they were typed.
    pub argv: Vec<String>,
    /// What the program can do beside the verbs.
    pub own: clap::Command,
    /// YAML documents that were printed and that another one is to be set off from.
    pub documents: usize,
    client: Option<Client>,
}

impl Session {
    /// A run that has not talked to a server yet.
    pub fn new(io: Io, global: Global, program: String, argv: Vec<String>, own: clap::Command) -> Session {
        Session { io, global, program, argv, own, documents: 0, client: None }
    }

    /// The client of the cluster that flags, environment and files name. Cheap to clone.
    pub fn client(&mut self) -> Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        self.global.check()?;
        let place = kubeconfig::place(&self.global, &self.io.environment)?;
        let client = Client::connect(place, &self.global)?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// The namespace of the request: the flag's, the context's, or `default`.
    pub fn namespace(&mut self) -> Result<String> {
        match &self.global.namespace {
            Some(namespace) if !namespace.is_empty() => Ok(namespace.clone()),
            _ => Ok(self.client()?.default_namespace().to_owned()),
        }
    }

    /// True if the namespace was given as a flag.
    pub fn namespace_given(&self) -> bool {
        self.global.namespace.as_ref().is_some_and(|namespace| !namespace.is_empty())
    }

    /// Prints a line.
    pub fn say(&mut self, line: impl AsRef<str>) -> Result<()> {
        Ok(writeln!(self.io.stdout, "{}", line.as_ref())?)
    }

    /// Prints text as it is.
    pub fn print(&mut self, text: impl AsRef<str>) -> Result<()> {
        self.io.stdout.write_all(text.as_ref().as_bytes())?;
        Ok(self.io.stdout.flush()?)
    }

    /// Prints a line to standard error.
    pub fn warn(&mut self, line: impl AsRef<str>) -> Result<()> {
        Ok(writeln!(self.io.stderr, "{}", line.as_ref())?)
    }

    /// Prints an error and its hints, for commands that go on after it.
    pub fn report(&mut self, error: &Error) -> Result<()> {
        let message = error.message();
        if !message.is_empty() {
            self.warn(message)?;
        }
        for hint in error.hints() {
            self.warn(format!("hint: {hint}"))?;
        }
        Ok(())
    }

    /// Prints the warnings that the server sent since the last call.
    pub fn pass_on_warnings(&mut self) -> Result<()> {
        let Some(client) = self.client.clone() else { return Ok(()) };
        for warning in client.take_warnings() {
            self.warn(format!("Warning: {warning}"))?;
        }
        Ok(())
    }

    /// An error that points to the verb's help.
    pub fn usage(&self, verb: &str, message: &str) -> Error {
        Error::usage(&self.program, verb, message)
    }
}
