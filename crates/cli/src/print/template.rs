//! The part of Go's `text/template` that kubectl users write: fields, `range`, `if`, `with`, variables, `printf`, `index`, `len`,
//! `break`, `continue`, `define`, `template`, `block`, comparisons, `exists`, `base64decode`. Anything else is refused by name.
//!
//! Mirrors Go's text/template and cli-runtime `pkg/printers/template.go`.

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::Value;

use crate::errors::{Error, Result};
use crate::print::columns::go_text;

/// Loops inside each other, and calls.
const DEEPEST: usize = 32;
/// Cells that a width of `printf` may ask for.
const WIDEST: usize = 10_000;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
    /// What `define` and `block` named.
    named: Named,
    allow_missing: bool,
}

#[derive(Debug)]
enum Node {
    Call(String, Option<Pipe>),
    Assign(String, Pipe),
    Break,
    Continue,
    Text(String),
    Print(Pipe),
    Set(String, Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range { names: Vec<String>, pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
}

type Named = BTreeMap<String, Vec<Node>>;
type Pipe = Vec<Vec<Term>>;

#[derive(Debug)]
enum Term {
    Dot,
    Path(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Pipe, Vec<String>),
}

const FUNCTIONS: [&str; 18] = [
    "printf",
    "print",
    "println",
    "index",
    "len",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "not",
    "exists",
    "base64decode",
    "html",
    "urlquery",
];

impl Template {
    /// Understands a template.
    pub fn parse(text: &str, allow_missing: bool) -> Result<Template> {
        let pieces = pieces(text)?;
        let mut parser = Parser { pieces, at: 0, depth: 0, loops: 0, named: Named::new() };
        let (nodes, end) = parser.nodes()?;
        if let Some(word) = end {
            return Err(wrong(&format!("unexpected {{{{{word}}}}}")));
        }
        Ok(Template { nodes, named: parser.named, allow_missing })
    }

    /// The text for an object.
    pub fn run(&self, object: &Value) -> Result<String> {
        let mut state = State {
            variables: vec![("$".into(), object.clone())],
            text: String::new(),
            allow_missing: self.allow_missing,
            named: &self.named,
            flow: Flow::On,
            calls: 0,
        };
        state.run(&self.nodes, object)?;
        Ok(state.text)
    }
}

fn wrong(why: &str) -> Error {
    Error::told(format!("error parsing template: template: output:1: {why}"))
}

fn failed(why: &str) -> Error {
    Error::told(format!("error executing template: template: output: {why}"))
}

enum Piece {
    Text(String),
    Action(Vec<String>),
}

fn pieces(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some(start) = rest.find("{{") {
        let mut before = &rest[..start];
        if trim_next {
            before = before.trim_start();
        }
        let mut inner = &rest[start + 2..];
        if let Some(trimmed) = inner.strip_prefix("- ") {
            inner = trimmed;
            before = before.trim_end();
        }
        pieces.push(Piece::Text(before.to_owned()));
        let end = end_of_action(inner).ok_or_else(|| wrong("unclosed action"))?;
        let mut action = &inner[..end];
        rest = &inner[end + 2..];
        trim_next = action.ends_with(" -");
        if trim_next {
            action = &action[..action.len() - 2];
        }
        let comment = action.trim().starts_with("/*");
        if !comment {
            pieces.push(Piece::Action(tokens(action)?));
        }
    }
    pieces.push(Piece::Text(if trim_next { rest.trim_start().to_owned() } else { rest.to_owned() }));
    Ok(pieces)
}

fn end_of_action(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote: Option<u8> = None;
    let mut index = 0;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(b'"'), b'\\') => index += 1,
            (Some(open), byte) if open == byte => quote = None,
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(index + 1) == Some(&b'}') => return Some(index),
            _ => {}
        }
        index += 1;
    }
    None
}

fn tokens(text: &str) -> Result<Vec<String>> {
    let letters: Vec<char> = text.chars().collect();
    let mut tokens: Vec<String> = Vec::new();
    let mut index = 0;
    while index < letters.len() {
        let letter = letters[index];
        if letter.is_whitespace() {
            index += 1;
            continue;
        }
        let start = index;
        match letter {
            '"' | '`' => {
                index += 1;
                while index < letters.len() && letters[index] != letter {
                    index += 1 + usize::from(letter == '"' && letters[index] == '\\');
                }
                if index >= letters.len() {
                    return Err(wrong("unterminated quoted string"));
                }
                index += 1;
            }
            '(' | '|' | ',' => index += 1,
            ')' => {
                index += 1;
                while index < letters.len()
                    && (letters[index] == '.' || letters[index].is_alphanumeric() || letters[index] == '_')
                {
                    index += 1;
                }
            }
            ':' if letters.get(index + 1) == Some(&'=') => index += 2,
            '=' => index += 1,
            _ => {
                while index < letters.len()
                    && !letters[index].is_whitespace()
                    && !matches!(letters[index], '(' | ')' | '|' | ',' | '"' | '`' | ':' | '=')
                {
                    index += 1;
                }
                if index == start {
                    return Err(wrong(&format!("unexpected {letter:?} in command")));
                }
            }
        }
        tokens.push(letters[start..index].iter().collect());
    }
    Ok(tokens)
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
    depth: usize,
    /// Loops around what is parsed.
    loops: usize,
    named: Named,
}

impl Parser {
    /// Nodes up to `end` or `else`, which is given back.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>)> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(wrong("too many blocks inside each other"));
        }
        let mut nodes = Vec::new();
        while self.at < self.pieces.len() {
            let piece = std::mem::replace(&mut self.pieces[self.at], Piece::Text(String::new()));
            self.at += 1;
            let words = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(words) => words,
            };
            let first = words.first().map(String::as_str).unwrap_or_default();
            match first {
                "" => return Err(wrong("missing value for command")),
                "end" | "else" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(words.join(" "))));
                }
                "if" | "with" => nodes.push(self.condition(first == "if", &words[1..])?),
                "range" => nodes.push(self.range(&words[1..])?),
                "break" | "continue" if self.loops == 0 => {
                    return Err(wrong(&format!("{{{{{first}}}}} outside {{{{range}}}}")));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" => drop(self.define(&words)?),
                "block" => {
                    let name = self.define(&words)?;
                    nodes.push(Node::Call(name, Some(pipe(&words[2..])?)));
                }
                "template" => {
                    let given = words.get(2..).filter(|rest| !rest.is_empty());
                    nodes.push(Node::Call(named(&words)?, given.map(pipe).transpose()?));
                }
                variable if variable.starts_with('$') && words.get(1).is_some_and(|word| word == "=") => {
                    nodes.push(Node::Assign(variable.to_owned(), pipe(&words[2..])?));
                }
                variable if variable.starts_with('$') && words.get(1).is_some_and(|word| word == ":=") => {
                    nodes.push(Node::Set(variable.to_owned(), pipe(&words[2..])?));
                }
                _ => nodes.push(Node::Print(pipe(&words)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    /// The body of `define` and `block`; gives its name.
    fn define(&mut self, words: &[String]) -> Result<String> {
        let name = named(words)?;
        let loops = std::mem::take(&mut self.loops);
        let (body, end) = self.nodes()?;
        self.loops = loops;
        if end.as_deref() != Some("end") {
            return Err(wrong("unexpected EOF"));
        }
        self.named.insert(name.clone(), body);
        Ok(name)
    }

    fn condition(&mut self, is_if: bool, words: &[String]) -> Result<Node> {
        let pipe = pipe(words)?;
        let (body, mut end) = self.nodes()?;
        let mut otherwise = Vec::new();
        if let Some(more) = end.as_deref().and_then(|end| end.strip_prefix("else if ")) {
            let words = tokens(more)?;
            otherwise.push(self.condition(true, &words)?);
            end = Some("end".into());
        } else if end.as_deref() == Some("else") {
            (otherwise, end) = self.nodes()?;
        }
        if end.as_deref() != Some("end") {
            return Err(wrong("unexpected EOF"));
        }
        Ok(if is_if { Node::If(pipe, body, otherwise) } else { Node::With(pipe, body, otherwise) })
    }

    fn range(&mut self, words: &[String]) -> Result<Node> {
        let assigned = words.iter().position(|word| word == ":=");
        let names = match assigned {
            Some(end) => words[..end].iter().filter(|word| *word != ",").cloned().collect(),
            None => Vec::new(),
        };
        let pipe = pipe(&words[assigned.map_or(0, |at| at + 1)..])?;
        self.loops += 1;
        let (body, mut end) = self.nodes()?;
        self.loops -= 1;
        let mut otherwise = Vec::new();
        if end.as_deref() == Some("else") {
            (otherwise, end) = self.nodes()?;
        }
        if end.as_deref() != Some("end") {
            return Err(wrong("unexpected EOF"));
        }
        Ok(Node::Range { names, pipe, body, otherwise })
    }
}

/// The quoted name behind `define`, `block` and `template`.
fn named(words: &[String]) -> Result<String> {
    match words.get(1).map(|word| term(word)).transpose()? {
        Some(Term::Literal(Value::String(name))) => Ok(name),
        _ => Err(wrong(&format!("{} needs a quoted name", words[0]))),
    }
}

fn pipe(words: &[String]) -> Result<Pipe> {
    if words.is_empty() {
        return Err(wrong("missing value for command"));
    }
    let mut at = 0;
    let pipe = commands(words, &mut at, 0)?;
    if at < words.len() {
        return Err(wrong(&format!("unexpected {:?}", words[at])));
    }
    Ok(pipe)
}

fn commands(words: &[String], at: &mut usize, depth: usize) -> Result<Pipe> {
    if depth > DEEPEST {
        return Err(wrong("too many parentheses inside each other"));
    }
    let mut pipe: Pipe = vec![Vec::new()];
    while let Some(word) = words.get(*at) {
        match word.as_str() {
            "|" => pipe.push(Vec::new()),
            word if word.starts_with(')') => break,
            "(" => {
                *at += 1;
                let inner = commands(words, at, depth + 1)?;
                let close = words.get(*at).ok_or_else(|| wrong("unclosed left paren"))?;
                let path = fields(close.trim_start_matches(')'));
                pipe.last_mut().expect("one command is always there").push(Term::Nested(inner, path));
            }
            word => pipe.last_mut().expect("one command is always there").push(term(word)?),
        }
        *at += 1;
    }
    if pipe.iter().any(Vec::is_empty) {
        return Err(wrong("missing value for command"));
    }
    Ok(pipe)
}

fn fields(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn term(word: &str) -> Result<Term> {
    if word == "." {
        return Ok(Term::Dot);
    }
    if word.starts_with('.') {
        return Ok(Term::Path(fields(word)));
    }
    if word.starts_with('$') {
        let (name, path) = word.split_once('.').map_or((word, ""), |(name, path)| (name, path));
        return Ok(Term::Variable(name.to_owned(), fields(path)));
    }
    if let Some(inner) = word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return Ok(Term::Literal(Value::String(unescape(inner))));
    }
    if let Some(inner) = word.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return Ok(Term::Literal(Value::String(inner.to_owned())));
    }
    match word {
        "true" => return Ok(Term::Literal(Value::Bool(true))),
        "false" => return Ok(Term::Literal(Value::Bool(false))),
        "nil" => return Ok(Term::Literal(Value::Null)),
        _ => {}
    }
    if let Ok(number) = word.parse::<serde_json::Number>() {
        return Ok(Term::Literal(Value::Number(number)));
    }
    match FUNCTIONS.contains(&word) {
        true => Ok(Term::Function(word.to_owned())),
        false => Err(wrong(&format!("function {word:?} not defined"))),
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            letter => out.push(letter),
        }
    }
    out
}

/// Where a loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct State<'a> {
    named: &'a Named,
    flow: Flow,
    /// Templates inside each other.
    calls: usize,
    variables: Vec<(String, Value)>,
    text: String,
    allow_missing: bool,
}

impl State<'_> {
    fn run(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        let depth = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
            if self.flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(depth.max(1));
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<()> {
        match node {
            Node::Text(text) => self.text.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.text.push_str(&shown(&value));
            }
            Node::Break => self.flow = Flow::Break,
            Node::Continue => self.flow = Flow::Continue,
            Node::Call(name, pipe) => {
                let value = pipe.as_ref().map(|pipe| self.pipe(pipe, dot)).transpose()?.unwrap_or_default();
                self.call_template(name, value)?;
            }
            Node::Assign(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| failed(&format!("undefined variable {name:?}")))?.1 = value;
            }
            Node::Set(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(pipe, body, otherwise) => {
                let chosen = if truth(&self.pipe(pipe, dot)?) { body } else { otherwise };
                for node in chosen {
                    self.node(node, dot)?;
                    if self.flow != Flow::On {
                        break;
                    }
                }
            }
            Node::With(pipe, body, otherwise) => {
                let value = self.pipe(pipe, dot)?;
                if truth(&value) { self.run(body, &value)? } else { self.run(otherwise, dot)? }
            }
            Node::Range { names, pipe, body, otherwise } => {
                let value = self.pipe(pipe, dot)?;
                let items: Vec<(Value, Value)> = match value {
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(index, item)| (index.into(), item)).collect()
                    }
                    Value::Object(map) => map.into_iter().map(|(key, item)| (key.into(), item)).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(failed(&format!("range can't iterate over {}", go_text(&other)))),
                };
                if items.is_empty() {
                    return self.run(otherwise, dot);
                }
                for (key, item) in items {
                    let depth = self.variables.len();
                    match names.as_slice() {
                        [one] => self.variables.push((one.clone(), item.clone())),
                        [first, second] => {
                            self.variables.push((first.clone(), key));
                            self.variables.push((second.clone(), item.clone()));
                        }
                        _ => {}
                    }
                    self.run(body, &item)?;
                    self.variables.truncate(depth);
                    if std::mem::replace(&mut self.flow, Flow::On) == Flow::Break {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn call_template(&mut self, name: &str, value: Value) -> Result<()> {
        let named = self.named;
        let body = named.get(name).ok_or_else(|| failed(&format!("template {name:?} not defined")))?;
        if self.calls == DEEPEST {
            return Err(failed("exceeded maximum template depth"));
        }
        // It sees no variables but its own.
        let outer = std::mem::replace(&mut self.variables, vec![("$".into(), value.clone())]);
        self.calls += 1;
        let outcome = self.run(body, &value);
        self.calls -= 1;
        self.variables = outer;
        outcome
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value> {
        let mut value: Option<Value> = None;
        for command in pipe {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or_default())
    }

    fn command(&mut self, terms: &[Term], dot: &Value, piped: Option<Value>) -> Result<Value> {
        let Some((first, rest)) = terms.split_first() else { return Ok(Value::Null) };
        if let Term::Function(name) = first {
            let mut arguments = rest.iter().map(|term| self.term(term, dot)).collect::<Result<Vec<_>>>()?;
            arguments.extend(piped);
            return call(name, &arguments);
        }
        if !rest.is_empty() || piped.is_some() {
            return Err(failed("can't give argument to non-function"));
        }
        self.term(first, dot)
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value> {
        match term {
            Term::Dot => Ok(dot.clone()),
            Term::Path(path) => self.field(dot, path),
            Term::Variable(name, path) => {
                let found =
                    self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                let value = found.ok_or_else(|| failed(&format!("undefined variable {name:?}")))?;
                self.field(&value, path)
            }
            Term::Literal(value) => Ok(value.clone()),
            Term::Function(name) => call(name, &[]),
            Term::Nested(pipe, path) => {
                let value = self.pipe(pipe, dot)?;
                self.field(&value, path)
            }
        }
    }

    fn field(&self, value: &Value, path: &[String]) -> Result<Value> {
        let mut here = value;
        for name in path {
            here = match here {
                Value::Object(map) => match map.get(name) {
                    Some(next) => next,
                    None if self.allow_missing => return Ok(Value::Null),
                    None => return Err(failed(&format!("map has no entry for key {name:?}"))),
                },
                Value::Null => return Err(failed(&format!("nil pointer evaluating interface {{}}.{name}"))),
                _ => return Err(failed(&format!("can't evaluate field {name} in type interface {{}}"))),
            };
        }
        Ok(here.clone())
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "<no value>".into() } else { go_text(value) }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let argument = |index: usize| {
        arguments
            .get(index)
            .ok_or_else(|| failed(&format!("wrong number of args for {name}: want at least {}", index + 1)))
    };
    Ok(match name {
        "printf" => printf(&shown(argument(0)?), &arguments[1..]).into(),
        "print" => arguments.iter().map(shown).collect::<Vec<_>>().join("").into(),
        "println" => (arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        "len" => match argument(0)? {
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            Value::String(text) => text.len().into(),
            _ => return Err(failed("error calling len: len of nil pointer")),
        },
        "index" => {
            let mut here = argument(0)?.clone();
            for key in &arguments[1..] {
                here = match (&here, key) {
                    (Value::Array(items), Value::Number(number)) => {
                        let index = number.as_u64().and_then(|index| usize::try_from(index).ok());
                        index
                            .and_then(|index| items.get(index))
                            .cloned()
                            .ok_or_else(|| failed(&format!("error calling index: index out of range: {number}")))?
                    }
                    (Value::Object(map), Value::String(key)) => map.get(key).cloned().unwrap_or_default(),
                    _ => return Err(failed("error calling index: cannot index that")),
                };
            }
            here
        }
        "and" => arguments.iter().find(|value| !truth(value)).or(arguments.last()).cloned().unwrap_or_default(),
        "or" => arguments.iter().find(|value| truth(value)).or(arguments.last()).cloned().unwrap_or_default(),
        "not" => (!truth(argument(0)?)).into(),
        "eq" => {
            let first = argument(0)?;
            argument(1)?;
            arguments[1..].iter().any(|other| same(first, other)).into()
        }
        "ne" => (!same(argument(0)?, argument(1)?)).into(),
        "lt" => order(argument(0)?, argument(1)?)?.is_lt().into(),
        "le" => order(argument(0)?, argument(1)?)?.is_le().into(),
        "gt" => order(argument(0)?, argument(1)?)?.is_gt().into(),
        "ge" => order(argument(0)?, argument(1)?)?.is_ge().into(),
        "exists" => {
            let mut here = argument(0)?.clone();
            for key in &arguments[1..] {
                let next = match key {
                    Value::String(key) => here.get(key).cloned(),
                    Value::Number(number) => {
                        number.as_u64().and_then(|index| here.get(usize::try_from(index).ok()?).cloned())
                    }
                    _ => None,
                };
                match next {
                    Some(value) => here = value,
                    None => return Ok(Value::Bool(false)),
                }
            }
            Value::Bool(true)
        }
        "base64decode" => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(argument(0)?.as_str().unwrap_or_default())
                .map_err(|error| failed(&format!("error calling base64decode: {error}")))?;
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        _ => return Err(failed(&format!("function {name:?} is not supported"))),
    })
}

fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn order(one: &Value, other: &Value) -> Result<std::cmp::Ordering> {
    match (one, other) {
        (Value::String(one), Value::String(other)) => Ok(one.cmp(other)),
        _ => one
            .as_f64()
            .zip(other.as_f64())
            .and_then(|(one, other)| one.partial_cmp(&other))
            .ok_or_else(|| failed("incompatible types for comparison")),
    }
}

/// Go's `fmt.Sprintf`, for the values that JSON has.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = arguments.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut how = How::default();
        while let Some(flag) = letters.next_if(|flag| "+-# 0".contains(*flag)) {
            how.flags.push(flag);
        }
        how.width = digits(&mut letters).unwrap_or(0);
        if letters.next_if_eq(&'.').is_some() {
            how.precision = Some(digits(&mut letters).unwrap_or(0));
        }
        match letters.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => out.push_str(&match next.next() {
                Some(value) => how.formatted(verb, value),
                None => format!("%!{verb}(MISSING)"),
            }),
        }
    }
    let extra: Vec<String> = next.map(|value| format!("{}={}", go_type(value), go_text(value))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn digits(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut text = String::new();
    while let Some(digit) = letters.next_if(char::is_ascii_digit) {
        text.push(digit);
    }
    // No column is wider; a larger number would only fill the memory.
    text.parse::<usize>().ok().map(|width| width.min(WIDEST))
}

/// The flags, the width and the precision of a verb.
#[derive(Default)]
struct How {
    flags: String,
    width: usize,
    precision: Option<usize>,
}

impl How {
    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    fn formatted(&self, verb: char, value: &Value) -> String {
        if verb == 'T' {
            return self.padded(go_type(value).into(), false);
        }
        let wrong = || match value {
            Value::Null => format!("%!{verb}(<nil>)"),
            value => format!("%!{verb}({}={})", go_type(value), go_text(value)),
        };
        let whole = value.as_i64();
        let text = match (verb, value) {
            ('v', Value::Null) => return self.padded("<nil>".into(), false),
            ('v' | 'd', Value::Number(_)) if whole.is_some() => return self.number(whole, 10),
            ('x', Value::Number(_)) if whole.is_some() => return self.number(whole, 16),
            ('X', Value::Number(_)) if whole.is_some() => return self.number(whole, 16).to_uppercase(),
            ('o', Value::Number(_)) if whole.is_some() => return self.number(whole, 8),
            ('b', Value::Number(_)) if whole.is_some() => return self.number(whole, 2),
            ('c', Value::Number(_)) => {
                let letter = whole.and_then(|code| char::from_u32(u32::try_from(code).ok()?));
                letter.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
            }
            ('f' | 'F', Value::Number(number)) if whole.is_none() => {
                let number = number.as_f64().unwrap_or_default();
                return self
                    .padded(self.signed(number >= 0.0, format!("{number:.*}", self.precision.unwrap_or(6))), true);
            }
            ('v' | 'g', Value::Number(number)) => {
                return self.padded(self.signed(number.as_f64() >= Some(0.0), number.to_string()), true);
            }
            ('t' | 'v', Value::Bool(is)) => is.to_string(),
            ('q', Value::String(text)) => format!("{text:?}"),
            ('x', Value::String(text)) => hex::encode(text),
            ('s' | 'v', Value::String(text)) => match self.precision {
                Some(most) => text.chars().take(most).collect(),
                None => text.clone(),
            },
            ('s' | 'v', Value::Array(_) | Value::Object(_)) => go_text(value),
            _ => return wrong(),
        };
        self.padded(text, false)
    }

    fn number(&self, whole: Option<i64>, radix: u32) -> String {
        let whole = whole.unwrap_or_default();
        let size = whole.unsigned_abs();
        let digits = match radix {
            2 => format!("{size:b}"),
            8 => format!("{size:o}"),
            16 => format!("{size:x}"),
            _ => size.to_string(),
        };
        let digits = format!("{digits:0>width$}", width = self.precision.unwrap_or(0));
        let digits = if whole < 0 { format!("-{digits}") } else { digits };
        // A precision says how many digits there are: zeros fill nothing then.
        self.padded(self.signed(0 <= whole, digits), self.precision.is_none())
    }

    fn signed(&self, positive: bool, text: String) -> String {
        match (positive, self.has('+'), self.has(' ')) {
            (true, true, _) => format!("+{text}"),
            (true, false, true) => format!(" {text}"),
            _ => text,
        }
    }

    /// Fills up to the width, with zeros behind the sign if they are asked for and make sense.
    fn padded(&self, text: String, zeros: bool) -> String {
        let gap = self.width.saturating_sub(text.chars().count());
        if self.has('-') {
            return text + &" ".repeat(gap);
        }
        if zeros && self.has('0') {
            let sign = text.len() - text.trim_start_matches(['+', '-', ' ']).len();
            return format!("{}{}{}", &text[..sign], "0".repeat(gap), &text[sign..]);
        }
        " ".repeat(gap) + &text
    }
}

/// Go's name for the type of a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates() {
        let object = json!({"items": [{"n": "a", "p": [80]}, {"n": "b"}], "m": {"k.x": "v"}, "e": "aGk="});
        let run = |text: &str| {
            Template::parse(text, true)
                .and_then(|template| template.run(&object))
                .unwrap_or_else(|error| error.message())
        };
        assert_eq!(run("{{range .items}}{{.n}}{{if .p}}:{{index .p 0}}{{end}} {{end}}"), "a:80 b ");
        assert_eq!(run("{{range $i, $x := .items}}{{$i}}={{$x.n}},{{end}}"), "0=a,1=b,");
        assert_eq!(run(r#"{{printf "%-3s|" (index .m "k.x")}}{{len .items}}"#), "v  |2");
        assert_eq!(
            run(
                r#"{{printf "%03d|%5d|%-5d|%x|%05.1f|%s|%t|%+d|%q|%6s|%.2s" 2 3 4 255 1.5 "a" true 3 "x" "ab" "abc"}}"#
            ),
            r#"002|    3|4    |ff|001.5|a|true|+3|"x"|    ab|ab"#
        );
        assert_eq!(
            run(r#"{{printf "%03d|%s|%d|%d|%v" -2 7 "a"}} {{printf "a" 1}}"#),
            "-02|%!s(int64=7)|%!d(string=a)|%!d(MISSING)|%!v(MISSING) a%!(EXTRA int64=1)"
        );
        assert_eq!(run(r#"{{define "x"}}<{{.n}}>{{end}}{{range .items}}{{template "x" .}}{{end}}"#), "<a><b>");
        assert_eq!(run(r#"{{block "x" .e}}[{{.}}]{{end}}{{template "x"}}"#), "[aGk=][<no value>]");
        assert_eq!(run("{{range .items}}{{.n}}{{if .p}}{{continue}}{{end}}!{{break}}{{end}}"), "ab!");
        assert_eq!(run("{{$x := 1}}{{range .items}}{{$x = .n}}{{end}}{{$x}}"), "b");
        assert!(run("{{break}}").contains("{{break}} outside {{range}}"));
        assert!(run(r#"{{define "x"}}{{template "x"}}{{end}}{{template "x"}}"#).contains("maximum template depth"));
        assert!(run(r#"{{template "y"}}"#).contains("template \"y\" not defined"));
        assert_eq!(run("{{.missing}} {{.e | base64decode}}"), "<no value> hi");
        assert_eq!(run(r#"{{if eq (len .items) 3}}x{{else if not .zzz}}y{{else}}z{{end}}"#), "y");
    }
}
