//! What goes wrong, worded as kubectl words it, with hints of our own.
//!
//! Mirrors kubectl `pkg/cmd/util/helpers.go` (`checkErr`, `StandardErrorMessage`, `MultilineError`). A hint is a line of its own on
//! standard error that starts with `hint: `; scripts that read kubectl's words find them unchanged.

use std::io;

use serde_json::Value;

use crate::json::Json;

/// The result of everything a verb does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that ends a command, or one of several that it goes on after.
#[derive(Debug)]
pub struct Error {
    what: What,
    hints: Vec<String>,
    exit_code: u8,
}

#[derive(Debug)]
enum What {
    /// Printed after `error: `.
    Told(String),
    /// Printed as it is.
    Bare(String),
    /// The server did not answer; printed as it is.
    Away(String),
    /// A `Status` of the server.
    Refused(Box<Value>),
    /// Several failures, printed one after the other.
    Several(Vec<Error>),
    /// Nothing is printed.
    Silent,
}

impl Error {
    fn of(what: What) -> Error {
        Error { what, hints: Vec::new(), exit_code: 1 }
    }

    /// `error: MESSAGE`.
    pub fn told(message: impl Into<String>) -> Error {
        Error::of(What::Told(message.into()))
    }

    /// The message alone.
    pub fn bare(message: impl Into<String>) -> Error {
        Error::of(What::Bare(message.into()))
    }

    /// `error: MESSAGE`, then where to read about the verb.
    pub fn usage(program: &str, verb: &str, message: &str) -> Error {
        Error::told(format!("{message}\nSee '{program} {verb} -h' for help and examples"))
    }

    /// The message alone, about a server that does not answer.
    pub fn away(message: impl Into<String>) -> Error {
        Error::of(What::Away(message.into()))
    }

    /// What the server answered.
    pub fn refused(status: Value) -> Error {
        Error::of(What::Refused(Box::new(status)))
    }

    /// Ends the command with a code and without a word.
    pub fn silent(exit_code: u8) -> Error {
        Error { exit_code, ..Error::of(What::Silent) }
    }

    /// One failure stands for itself; more are printed one after the other.
    pub fn several(mut errors: Vec<Error>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::of(What::Several(errors))),
        }
    }

    /// As kubectl prints an aggregate: `error: ` stands before a single failure only.
    pub fn aggregate(messages: Vec<String>) -> Result<()> {
        match messages.as_slice() {
            [one] => Err(Error::told(one)),
            _ => Error::several(messages.into_iter().map(Error::bare).collect()),
        }
    }

    /// Adds what to do next.
    pub fn hinted(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// Ends the process with this code.
    pub fn exiting(mut self, exit_code: u8) -> Error {
        self.exit_code = exit_code;
        self
    }

    /// The code the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The `reason` of the server's `Status`, or nothing.
    pub fn reason(&self) -> &str {
        match &self.what {
            What::Refused(status) => status.text("reason"),
            _ => "",
        }
    }

    /// The `code` of the server's `Status`, or 0.
    pub fn status_code(&self) -> i64 {
        match &self.what {
            What::Refused(status) => status.number("code"),
            _ => 0,
        }
    }

    /// The server's `Status`.
    pub fn status(&self) -> Option<&Value> {
        match &self.what {
            What::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// True if no server answered.
    pub fn is_away(&self) -> bool {
        matches!(self.what, What::Away(_))
    }

    /// True for the server's 404.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Says which file it was about: `error when creating "web.yaml": …`.
    pub fn about(mut self, doing: &str, source: &str) -> Error {
        match &mut self.what {
            What::Refused(status) => {
                let message = format!("error when {doing} {source:?}: {}", status.text("message"));
                status["message"] = message.into();
            }
            What::Told(message) => *message = format!("error when {doing} {source:?}: {message}"),
            _ => {}
        }
        self
    }

    /// What kubectl would print, without hints.
    pub fn message(&self) -> String {
        match &self.what {
            What::Told(message) if message.starts_with("error: ") => message.clone(),
            What::Told(message) => format!("error: {message}"),
            What::Bare(message) | What::Away(message) => message.clone(),
            What::Refused(status) => refusal(status),
            What::Several(errors) => errors.iter().map(Error::message_of_many).collect::<Vec<_>>().join("\n"),
            What::Silent => String::new(),
        }
    }

    /// What kubectl prints of one failure of several (`MultipleErrors`): no `error: `, and no words of its own for what is invalid.
    fn message_of_many(&self) -> String {
        match &self.what {
            What::Refused(status) if status.text("reason") == "Invalid" => {
                format!("Error from server (Invalid): {}", status.text("message"))
            }
            What::Told(_) => self.inner_message(),
            _ => self.message(),
        }
    }

    /// The message without `error: `, for use inside another message.
    pub fn inner_message(&self) -> String {
        match &self.what {
            What::Told(message) | What::Bare(message) | What::Away(message) => message.clone(),
            What::Refused(status) => status.text("message").to_owned(),
            What::Several(_) => format!("[{}]", self.parts().join(", ")),
            What::Silent => self.message(),
        }
    }

    /// The messages of its parts, without `error: `; its own if it is one failure.
    pub fn parts(&self) -> Vec<String> {
        match &self.what {
            What::Several(errors) => errors.iter().flat_map(Error::parts).collect(),
            _ => vec![self.inner_message()],
        }
    }

    /// The hints, its own and those of its parts.
    pub fn hints(&self) -> Vec<String> {
        let mut hints = match &self.what {
            What::Several(errors) => errors.iter().flat_map(Error::hints).collect(),
            _ => Vec::new(),
        };
        hints.extend(self.hints.iter().cloned());
        hints.dedup();
        hints
    }
}

fn refusal(status: &Value) -> String {
    let (reason, message) = (status.text("reason"), status.text("message"));
    match reason {
        "Invalid" => invalid(status),
        "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
        "" => format!("Error from server: {message}"),
        _ => format!("Error from server ({reason}): {message}"),
    }
}

fn invalid(status: &Value) -> String {
    let message = status.text("message");
    if status["details"].is_null() {
        let more = if message.is_empty() { String::new() } else { format!(": {message}") };
        return format!("The request is invalid{more}");
    }
    let (kind, name) = (status.text("details.kind"), status.text("details.name"));
    let mut causes: Vec<String> = Vec::new();
    for cause in status.list("details.causes") {
        let text = format!("{}: {}", cause.text("field"), cause.text("message"));
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    let start = match (kind.is_empty() && name.is_empty(), message.is_empty() || !causes.is_empty()) {
        (false, _) => format!("The {kind} {name:?} is invalid"),
        (true, false) => format!("The request is invalid: {message}"),
        (true, true) => "The request is invalid".to_owned(),
    };
    match causes.as_slice() {
        [] => start,
        [cause] => format!("{start}: {cause}"),
        _ => format!("{start}: \n{}", causes.iter().map(|cause| format!("* {cause}\n")).collect::<String>().trim_end()),
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        // Who reads our output has seen enough: not a failure to talk about.
        if error.kind() == io::ErrorKind::BrokenPipe { Error::silent(1) } else { Error::told(error.to_string()) }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::told(error.to_string())
    }
}
