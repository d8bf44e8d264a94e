//! Selectors: which objects are meant, by label or by field.
//!
//! Mirrors apimachinery `pkg/labels/selector.go`, `pkg/fields/selector.go`, `pkg/apis/meta/v1/helpers.go` and the
//! field label conversions of each kind. A text that cannot be understood is refused with upstream's words; nothing is
//! guessed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use thiserror::Error;

use crate::names;
use crate::pod_facts::OWN_LABELS;

/// A selector that cannot be understood. The text is what a client is told, with 400 BadRequest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label is there with one of the values.
    In,
    /// The label is missing, or has none of the values.
    NotIn,
    /// The label is there with this value; prints as `=`.
    Equals,
    /// The label is missing, or has another value; prints as `!=`.
    NotEquals,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is a whole number larger than the value.
    GreaterThan,
    /// The label is a whole number smaller than the value.
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// The label it is about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// A requirement, checked as upstream's NewRequirement checks it.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors: Vec<String> = Vec::new();
        check_key(key, "key").unwrap_or_else(|error| errors.push(error.0));
        let list = || serde_json::Value::from(values.clone());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                errors.push(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned(),
                );
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                errors.push(format!(
                    "values: Invalid value: {}: exact-match compatibility requires one single value",
                    list()
                ));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                errors.push(format!(
                    "values: Invalid value: {}: values set must be empty for exists and does not exist",
                    list()
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    errors.push(format!(
                        "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                        list()
                    ));
                }
                for (i, value) in values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err()) {
                    errors.push(format!(
                        "values[{i}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                errors.push(format!("values[{i}][{key}]: Invalid value: {value:?}: {}", problems.join("; ")));
            }
        }
        match errors.len() {
            0 => Ok(Self { key: key.to_owned(), operator, values }),
            1 => Err(SelectorError(errors.remove(0))),
            _ => Err(SelectorError(format!("[{}]", errors.join(", ")))),
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        match self.operator {
            Operator::In | Operator::Equals => found.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn | Operator::NotEquals => !found.is_some_and(|value| self.values.contains(value)),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan => self.compare(found, |label, limit| label > limit),
            Operator::LessThan => self.compare(found, |label, limit| label < limit),
        }
    }

    fn compare(&self, found: Option<&String>, holds: fn(i64, i64) -> bool) -> bool {
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
        match (number(found), number(self.values.first())) {
            (Some(label), Some(limit)) => holds(label, limit),
            _ => false,
        }
    }
}

/// Conditions on labels, all of which have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    nothing: bool,
    requirements: Vec<Requirement>,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self { nothing: false, requirements: Vec::new() }
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { nothing: true, requirements: Vec::new() }
    }

    /// True when it matches every object.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Matches objects that carry all these labels. An empty set matches every object.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self { nothing: false, requirements: labels.iter().map(equals).collect() }
    }

    /// The selector of a workload. None matches nothing, an empty one everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(Requirement::new(
                &expression.key,
                operator,
                expression.values.clone().unwrap_or_default(),
            )?);
        }
        Ok(Self::sorted(requirements))
    }

    /// Reads `a=b,c!=d,e in (x,y),!f,g`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { tokens: tokens(text), position: 0 }.selector().map(Self::sorted)
    }

    /// Whether an object with these labels is meant.
    pub fn matches<'a>(&self, labels: impl Into<Option<&'a BTreeMap<String, String>>>) -> bool {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        let labels = labels.into().unwrap_or(&NO_LABELS);
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// True if it asks for a label by which pods of one [kin](crate::pod_facts::Facts::kin) differ.
    pub fn tells_kin_apart(&self) -> bool {
        self.requirements.iter().any(|requirement| OWN_LABELS.contains(&requirement.key.as_str()))
    }

    fn sorted(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { nothing: false, requirements }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.values.first().map_or("", String::as_str);
        let list = || {
            let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
            values.sort_unstable();
            values.join(",")
        };
        match self.operator {
            Operator::In => write!(f, "{} in ({})", self.key, list()),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, list()),
            Operator::Equals => write!(f, "{}={first}", self.key),
            Operator::NotEquals => write!(f, "{}!={first}", self.key),
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{first}", self.key),
            Operator::LessThan => write!(f, "{}<{first}", self.key),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    /// Special characters that make no symbol.
    Unknown(String),
    End,
}

impl Token {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Word(word) => Cow::Borrowed(word),
            Self::Symbol(symbol) => Cow::Borrowed(symbol),
            Self::Unknown(text) => Cow::Owned(format!("error expected: keyword found '{text}'")),
            Self::End => Cow::Borrowed(""),
        }
    }
}

/// Longest first, so that `==` is not read as `=` twice.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", "<", ">"];

fn tokens(text: &str) -> Vec<Token> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let is_special = |c: char| "=!(),<>".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while let Some(first) = rest.chars().next() {
        if is_special(first) {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
            let length = symbol.map_or(1, str::len);
            tokens.push(symbol.map_or_else(|| Token::Unknown(rest[..length].to_owned()), Token::Symbol));
            rest = &rest[length..];
        } else {
            let end = rest.find(|c| is_special(c) || is_blank(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(is_blank);
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn selector(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(found(other, ", expected: !, identifier, or 'end of string'")),
            }
            let requirement = self
                .requirement()
                .map_err(|error| SelectorError(format!("unable to parse requirement: {}", error.0)))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") if matches!(self.peek(), Token::Word(_) | Token::Symbol("!")) => {}
                Token::Symbol(",") => return Err(found(self.peek(), ", expected: identifier after ','")),
                other => return Err(found(&other, ", expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = *self.peek() == Token::Symbol("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(found(&other, ", expected: identifier")),
        };
        check_key(&key, "<nil>")?;
        let ends = matches!(self.peek(), Token::End | Token::Symbol(","));
        if absent {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if ends {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.value_list()?,
            _ => vec![self.single_value()?],
        };
        Requirement::new(&key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.next() {
            Token::Word(word) if word == "in" => Ok(Operator::In),
            Token::Word(word) if word == "notin" => Ok(Operator::NotIn),
            Token::Symbol("=" | "==") => Ok(Operator::Equals),
            Token::Symbol("!=") => Ok(Operator::NotEquals),
            Token::Symbol(">") => Ok(Operator::GreaterThan),
            Token::Symbol("<") => Ok(Operator::LessThan),
            other => Err(found(&other, ", expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn single_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(word) => Ok(word),
            other => Err(found(&other, ", expected: identifier")),
        }
    }

    /// `(x,y)`; `()` and `(,)` hold the empty value.
    fn value_list(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(found(&other, " expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Token::Word(word) => {
                    let word = word.clone();
                    self.next();
                    word
                }
                Token::Symbol("," | ")") => String::new(),
                other => return Err(found(other, ", expected: ',', or identifier")),
            });
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => break,
                other => return Err(found(&other, ", expected: ',' or ')'")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn found(token: &Token, expected: &str) -> SelectorError {
    SelectorError(format!("found '{}'{expected}", token.text()))
}

fn check_key(key: &str, path: &str) -> Result<(), SelectorError> {
    let problems = names::qualified_name(key);
    if problems.is_empty() {
        return Ok(());
    }
    Err(SelectorError(format!("{path}: Invalid value: {key:?}: {}", problems.join("; "))))
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The path of the field, as `spec.nodeName`.
    pub field: Cow<'static, str>,
    /// True for `=`, false for `!=`.
    pub equal: bool,
    /// What the field is compared with.
    pub value: String,
}

/// Conditions on fields, all of which have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// Reads `spec.nodeName=n1,status.phase!=Failed` for a kind, and refuses fields that the kind cannot be selected by.
    pub fn parse(group: &str, kind: &str, text: &str) -> Result<Self, SelectorError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let not_understood = || SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, equal, value) = split_term(term).ok_or_else(not_understood)?;
            let value = unescape(value)?;
            if field.is_empty() && value.is_empty() {
                continue;
            }
            requirements.push(FieldRequirement { field: known_field(group, kind, field)?, equal, value });
        }
        Ok(Self(requirements))
    }

    /// True when it matches every object.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// The one value that a field has to have, if there is one: what an index can be asked for.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether an object is meant; `lookup` gives its fields, empty when absent.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.0.iter().all(|r| (lookup(&r.field) == r.value.as_str()) == r.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}{value}", r.field, if r.equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at =
        term.char_indices().map(|(i, _)| i).find(|&i| term[i..].starts_with("!=") || term[i..].starts_with('='))?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, false, value));
    }
    let value = rest.strip_prefix("==").unwrap_or(&rest[1..]);
    Some((field, true, value))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let invalid =
        |sequence: String| SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}"));
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(other) => return Err(invalid(format!("\\{other}"))),
                None => return Err(invalid("\\".to_owned())),
            },
            // Upstream prints the rune as a number.
            ',' | '=' => {
                let message = format!("invalid field selector: unescaped character in value: {}", u32::from(c));
                return Err(SelectorError(message));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "metadata.namespace",
    "metadata.name",
];

const POD_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

/// The fields a kind can be selected by; none when it knows only its name and namespace.
fn fields_of(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    Some(match (group, kind) {
        ("", "Pod") => POD_FIELDS,
        ("", "Node") => &["metadata.name", "spec.unschedulable"],
        ("", "ReplicationController") => &["metadata.name", "metadata.namespace", "status.replicas"],
        ("", "Event") => EVENT_FIELDS,
        ("", "Namespace") => &["status.phase", "metadata.name"],
        ("", "PersistentVolume") => &["metadata.name", "spec.storageClassName", "status.phase"],
        ("", "Secret") => &["type", "metadata.namespace", "metadata.name"],
        ("", "Service") => &["metadata.namespace", "metadata.name", "spec.clusterIP", "spec.type"],
        ("batch", "Job") => &["metadata.name", "metadata.namespace", "status.successful"],
        ("certificates.k8s.io", "CertificateSigningRequest") => &["metadata.name", "spec.signerName"],
        _ => return None,
    })
}

fn known_field(group: &str, kind: &str, field: &str) -> Result<Cow<'static, str>, SelectorError> {
    let asked = field;
    let field = renamed(group, kind, field)?;
    match fields_of(if kind == "Event" { "" } else { group }, kind) {
        Some(fields) => fields
            .iter()
            .find(|known| **known == field)
            .map(|known| Cow::Borrowed(*known))
            .ok_or_else(|| unsupported(asked)),
        None if matches!(field, "metadata.name" | "metadata.namespace") => Ok(Cow::Owned(field.to_owned())),
        None => Err(SelectorError(format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ))),
    }
}

/// Old names of fields, and the names that events.k8s.io gives to the fields of an event.
fn renamed<'a>(group: &str, kind: &str, field: &'a str) -> Result<&'a str, SelectorError> {
    match (group, kind, field) {
        ("", "Pod", "spec.host") => Ok("spec.nodeName"),
        ("events.k8s.io", "Event", _) => Ok(match field {
            "regarding.kind" => "involvedObject.kind",
            "regarding.namespace" => "involvedObject.namespace",
            "regarding.name" => "involvedObject.name",
            "regarding.uid" => "involvedObject.uid",
            "regarding.apiVersion" => "involvedObject.apiVersion",
            "regarding.resourceVersion" => "involvedObject.resourceVersion",
            "regarding.fieldPath" => "involvedObject.fieldPath",
            "reportingController" => "reportingComponent",
            "reason" | "type" | "metadata.namespace" | "metadata.name" => field,
            _ => return Err(unsupported(field)),
        }),
        _ => Ok(field),
    }
}

fn unsupported(field: &str) -> SelectorError {
    SelectorError(format!("field label not supported: {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn parsed_and_printed() {
        let texts = [
            "",
            "a=b",
            "a==b",
            "x=a,y=b,z=c",
            "a!=b",
            "!f,g",
            "e in (y,x)",
            "e notin (x)",
            "x in (foo,,baz),y,z notin ()",
            "a=",
            "a=,b",
            "in in (in)",
            " a  = b , c ",
            "x>1,z<5",
            "app.kubernetes.io/name=web",
            "a b",
            "a=b,",
            ",a",
            "a=b c",
            "a in x",
            "a in (x",
            "a===b",
            "x>abc",
            "a@=b",
            "!a=b",
            "a=b!c",
        ];
        let table = texts
            .map(|text| match Selector::parse(text) {
                Ok(selector) => format!("{text:?} -> {selector}\n"),
                Err(error) => format!("{text:?} is refused: {error}\n"),
            })
            .concat();
        expect![[r#"
            "" -> 
            "a=b" -> a=b
            "a==b" -> a=b
            "x=a,y=b,z=c" -> x=a,y=b,z=c
            "a!=b" -> a!=b
            "!f,g" -> !f,g
            "e in (y,x)" -> e in (x,y)
            "e notin (x)" -> e notin (x)
            "x in (foo,,baz),y,z notin ()" -> x in (,baz,foo),y,z notin ()
            "a=" -> a=
            "a=,b" -> a=,b
            "in in (in)" -> in in (in)
            " a  = b , c " -> a=b,c
            "x>1,z<5" -> x>1,z<5
            "app.kubernetes.io/name=web" -> app.kubernetes.io/name=web
            "a b" is refused: unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt
            "a=b," is refused: found '', expected: identifier after ','
            ",a" is refused: found ',', expected: !, identifier, or 'end of string'
            "a=b c" is refused: found 'c', expected: ',' or 'end of string'
            "a in x" is refused: unable to parse requirement: found 'x' expected: '('
            "a in (x" is refused: unable to parse requirement: found '', expected: ',' or ')'
            "a===b" is refused: unable to parse requirement: found '=', expected: identifier
            "x>abc" is refused: unable to parse requirement: values[0]: Invalid value: "abc": for 'Gt', 'Lt' operators, the value must be an integer
            "a@=b" is refused: unable to parse requirement: <nil>: Invalid value: "a@": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            "!a=b" is refused: found '=', expected: ',' or 'end of string'
            "a=b!c" is refused: found '!', expected: ',' or 'end of string'
        "#]].assert_eq(&table);
    }

    #[test]
    fn matching() {
        let cases = [
            ("", "a=b", true),
            ("a=b", "a=b,c=d", true),
            ("a=b", "", false),
            ("a!=b", "", true),
            ("a!=b", "a=b", false),
            ("a in (b,c)", "a=c", true),
            ("a notin (b,c)", "a=c", false),
            ("a", "a=", true),
            ("!a", "a=", false),
            ("a=", "a=", true),
            ("a=", "", false),
            ("x>1", "x=2", true),
            ("x<1", "x=z", false),
        ];
        for (selector, object, expected) in cases {
            assert_eq!(Selector::parse(selector).unwrap().matches(&labels(object)), expected, "{selector} on {object}");
        }
        assert!(!Selector::nothing().matches(None));
        assert!(Selector::everything().matches(None));
    }

    #[test]
    fn label_selectors() {
        let selector: LabelSelector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}],
        }))
        .unwrap();
        let selector = Selector::from_label_selector(Some(&selector)).unwrap();
        assert_eq!(selector.to_string(), "a in (x,y),b=1,!c");
        assert!(Selector::from_label_selector(Some(&LabelSelector::default())).unwrap().is_everything());
        assert!(!Selector::from_label_selector(None).unwrap().matches(&labels("a=b")));
    }

    #[test]
    fn field_selectors() {
        let texts = [
            ("", "Pod", "spec.nodeName=n1,status.phase!=Succeeded"),
            ("", "Pod", "spec.host==n1"),
            ("", "Pod", "spec.image=x"),
            ("apps", "Deployment", "metadata.name=web"),
            ("apps", "Deployment", "spec.replicas=1"),
            ("", "Event", "involvedObject.name=a\\,b,involvedObject.uid="),
            ("events.k8s.io", "Event", "regarding.name=x"),
            ("events.k8s.io", "Event", "involvedObject.name=x"),
            ("", "Pod", "metadata.name"),
            ("", "Pod", "metadata.name=a=b"),
            ("", "Pod", "metadata.name=a\\b"),
            ("", "Pod", ""),
        ];
        let table = texts
            .map(|(group, kind, text)| match FieldSelector::parse(group, kind, text) {
                Ok(selector) => format!("{kind} {text:?} -> {selector}\n"),
                Err(error) => format!("{kind} {text:?} is refused: {error}\n"),
            })
            .concat();
        expect![[r#"
            Pod "spec.nodeName=n1,status.phase!=Succeeded" -> spec.nodeName=n1,status.phase!=Succeeded
            Pod "spec.host==n1" -> spec.nodeName=n1
            Pod "spec.image=x" is refused: field label not supported: spec.image
            Deployment "metadata.name=web" -> metadata.name=web
            Deployment "spec.replicas=1" is refused: "spec.replicas" is not a known field selector: only "metadata.name", "metadata.namespace"
            Event "involvedObject.name=a\\,b,involvedObject.uid=" -> involvedObject.name=a\,b,involvedObject.uid=
            Event "regarding.name=x" -> involvedObject.name=x
            Event "involvedObject.name=x" is refused: field label not supported: involvedObject.name
            Pod "metadata.name" is refused: invalid selector: 'metadata.name'; can't understand 'metadata.name'
            Pod "metadata.name=a=b" is refused: invalid field selector: unescaped character in value: 61
            Pod "metadata.name=a\\b" is refused: invalid field selector: invalid escape sequence: \b
            Pod "" -> 
        "#]].assert_eq(&table);
    }

    #[test]
    fn fields_that_are_absent_are_empty() {
        let selector = FieldSelector::parse("", "Pod", "spec.nodeName=,status.phase!=Failed").unwrap();
        assert!(selector.matches(|field| Cow::Borrowed(if field == "status.phase" { "Running" } else { "" })));
        assert_eq!(selector.exact("spec.nodeName"), Some(""));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\\n,=!()<>é]{0,24}") {
            let _ = Selector::parse(&text);
            let _ = FieldSelector::parse("", "Pod", &text);
        }

        #[test]
        fn printing_and_parsing_again_is_the_same(keys in prop::collection::vec("[a-z]{1,4}( in \\((x|y|x,z)\\)|=a|!=b|)", 0..5)) {
            let selector = Selector::parse(&keys.join(",")).unwrap();
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
