//! kubectl's JSONPath templates: `{.items[*].metadata.name}`, filters, `range … end`, quoted text.
//!
//! Mirrors client-go `util/jsonpath` (parser.go, jsonpath.go), including how values are printed.

use serde_json::Value;

use crate::errors::{Error, Result};

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
    allow_missing: bool,
}

#[derive(Debug, Clone)]
enum Part {
    /// Printed as it is.
    Text(String),
    /// A path whose values are printed, with spaces between them.
    Path(Vec<Step>),
    /// What is repeated for each value of a path.
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone)]
enum Step {
    Root,
    Field(String),
    Wildcard,
    Recursive,
    Slice { start: Option<i64>, end: Option<i64>, step: Option<i64> },
    Union(Vec<Vec<Step>>),
    Filter { left: Operand, operator: String, right: Operand },
}

#[derive(Debug, Clone)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
    Nothing,
}

impl Template {
    /// Understands a template; without braces it is one expression, as kubectl takes it.
    pub fn parse(text: &str, allow_missing: bool) -> Result<Template> {
        let mut parser = Parser { letters: text.chars().collect(), at: 0 };
        let (parts, ended) = parser.parts(false)?;
        if ended {
            return Err(wrong(text, "not in range, nothing to end"));
        }
        Ok(Template { parts, allow_missing })
    }

    /// Understands a bare field path, with or without braces and a leading dot: `metadata.name`.
    pub fn field(text: &str) -> Result<Template> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Template { parts: Vec::new(), allow_missing: true });
        }
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        if matches!(inner, "" | ".") || inner.contains(['{', '}']) {
            return Err(Error::told(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'",
            ));
        }
        let dot = if inner.starts_with(['.', '[', '$']) { "" } else { "." };
        Template::parse(&format!("{{{dot}{inner}}}"), true)
    }

    /// The text for an object.
    pub fn run(&self, object: &Value) -> Result<String> {
        let mut text = String::new();
        self.write(&self.parts, object, object, &mut text)?;
        Ok(text)
    }

    /// The values of its paths.
    pub fn values(&self, object: &Value) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        for part in &self.parts {
            if let Part::Path(steps) = part {
                values.extend(self.walk(steps, object, object)?.into_iter().cloned());
            }
        }
        Ok(values)
    }

    fn write(&self, parts: &[Part], here: &Value, root: &Value, text: &mut String) -> Result<()> {
        for part in parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Path(steps) => {
                    let values = self.walk(steps, here, root)?;
                    text.push_str(&values.into_iter().map(printed).collect::<Vec<_>>().join(" "));
                }
                Part::Range(steps, body) => {
                    for value in self.walk(steps, here, root)? {
                        self.write(body, value, root, text)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn walk<'a>(&self, steps: &[Step], here: &'a Value, root: &'a Value) -> Result<Vec<&'a Value>> {
        let mut current = vec![here];
        for step in steps {
            current = self.step(step, current, root)?;
        }
        Ok(current)
    }

    fn step<'a>(&self, step: &Step, current: Vec<&'a Value>, root: &'a Value) -> Result<Vec<&'a Value>> {
        let mut next = Vec::new();
        match step {
            Step::Root => next.push(root),
            Step::Field(name) => {
                for value in &current {
                    next.extend(value.get(name));
                }
                if next.is_empty() && !current.is_empty() && !self.allow_missing {
                    return Err(failed(&format!("{name} is not found")));
                }
            }
            Step::Wildcard => {
                for value in current {
                    match value {
                        Value::Array(items) => next.extend(items),
                        Value::Object(map) => next.extend(map.values()),
                        _ => {}
                    }
                }
            }
            Step::Recursive => current.into_iter().for_each(|value| descend(value, &mut next)),
            Step::Slice { start, end, step } => {
                for value in current.into_iter().filter(|value| !value.is_null()) {
                    let Value::Array(items) = value else {
                        return Err(failed(&format!("{} is not array or slice", printed(value))));
                    };
                    next.extend(slice(items, *start, *end, *step)?);
                }
            }
            Step::Union(paths) => {
                for path in paths {
                    for value in &current {
                        next.extend(self.walk(path, value, root)?);
                    }
                }
            }
            Step::Filter { left, operator, right } => {
                for value in current {
                    let Value::Array(items) = value else {
                        if value.is_null() {
                            continue;
                        }
                        return Err(failed(&format!(
                            "{} is not array or slice and cannot be filtered",
                            printed(value)
                        )));
                    };
                    for item in items {
                        if self.passes(left, operator, right, item, root)? {
                            next.push(item);
                        }
                    }
                }
            }
        }
        Ok(next)
    }

    fn passes(&self, left: &Operand, operator: &str, right: &Operand, item: &Value, root: &Value) -> Result<bool> {
        let lenient = Template { parts: Vec::new(), allow_missing: true };
        let get = |operand: &Operand| -> Result<Option<Value>> {
            Ok(match operand {
                Operand::Path(steps) => lenient.walk(steps, item, root)?.first().map(|value| (*value).clone()),
                Operand::Value(value) => Some(value.clone()),
                Operand::Nothing => None,
            })
        };
        let Some(left) = get(left)? else { return Ok(false) };
        if operator == "exists" {
            return Ok(true);
        }
        let Some(right) = get(right)? else { return Ok(false) };
        let order = match (&left, &right) {
            (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
            (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
            (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
            _ => None,
        };
        Ok(match operator {
            "==" => order.is_some_and(std::cmp::Ordering::is_eq),
            "!=" => !order.is_some_and(std::cmp::Ordering::is_eq),
            "<" => order.is_some_and(std::cmp::Ordering::is_lt),
            ">" => order.is_some_and(std::cmp::Ordering::is_gt),
            "<=" => order.is_some_and(std::cmp::Ordering::is_le),
            ">=" => order.is_some_and(std::cmp::Ordering::is_ge),
            _ => return Err(failed(&format!("unrecognized filter operator {operator}"))),
        })
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, found)),
        Value::Object(map) => map.values().for_each(|item| descend(item, found)),
        _ => {}
    }
}

fn slice(items: &[Value], start: Option<i64>, end: Option<i64>, step: Option<i64>) -> Result<Vec<&Value>> {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { index + length } else { index };
    let first = from_end(start.unwrap_or(0));
    let last = from_end(end.unwrap_or(length));
    let single = start.is_some() && end == start.map(|start| start + 1) && step.is_none();
    if single && !(0..length).contains(&first) {
        return Err(failed(&format!("array index out of bounds: index {first}, length {length}")));
    }
    let step =
        usize::try_from(step.unwrap_or(1)).ok().filter(|step| *step > 0).ok_or_else(|| failed("step must be > 0"))?;
    let first = usize::try_from(first.clamp(0, length)).unwrap_or(0);
    // A last index of -1 wrapped to 0 means to the end: `[-1:]` and `[-1]`.
    let last = if start.is_some_and(|start| start < 0) && end == Some(0) { length } else { last };
    let last = usize::try_from(last.clamp(0, length)).unwrap_or(0);
    Ok(items.get(first..last.max(first)).unwrap_or_default().iter().step_by(step).collect())
}

/// A value as it is printed: strings bare, the rest as JSON.
pub fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => super::html_escaped(&other.to_string()),
    }
}

fn failed(why: &str) -> Error {
    Error::told(format!("error executing jsonpath: {why}"))
}

fn wrong(text: &str, why: &str) -> Error {
    Error::told(format!("error parsing jsonpath {text}, {why}"))
}

struct Parser {
    letters: Vec<char>,
    at: usize,
}

impl Parser {
    fn error(&self, why: &str) -> Error {
        wrong(&self.letters.iter().collect::<String>(), why)
    }

    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn take(&mut self, letter: char) -> bool {
        let there = self.peek() == Some(letter);
        self.at += usize::from(there);
        there
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Texts and actions up to the end, or up to `{end}`.
    fn parts(&mut self, in_range: bool) -> Result<(Vec<Part>, bool)> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        while let Some(letter) = self.peek() {
            if letter != '{' {
                literal.push(letter);
                self.at += 1;
                continue;
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            self.at += 1;
            if self.action(&mut parts)? {
                if !in_range {
                    return Ok((parts, true));
                }
                return Ok((parts, true));
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if in_range {
            return Err(self.error("unterminated range: {end} is missing"));
        }
        Ok((parts, false))
    }

    /// What is inside braces; true for `end`.
    fn action(&mut self, parts: &mut Vec<Part>) -> Result<bool> {
        loop {
            self.skip_spaces();
            match self.peek() {
                None => return Err(self.error("unclosed action")),
                Some('}') => {
                    self.at += 1;
                    return Ok(false);
                }
                Some(quote @ ('"' | '\'')) => parts.push(Part::Text(self.quoted(quote)?)),
                Some(letter) if letter.is_alphabetic() => {
                    let word = self.word();
                    match word.as_str() {
                        "end" => {
                            self.skip_spaces();
                            if !self.take('}') {
                                return Err(self.error("unclosed action"));
                            }
                            return Ok(true);
                        }
                        "range" => {
                            self.skip_spaces();
                            let steps = self.path()?;
                            self.skip_spaces();
                            if !self.take('}') {
                                return Err(self.error("unclosed action"));
                            }
                            let (body, _) = self.parts(true)?;
                            parts.push(Part::Range(steps, body));
                            return Ok(false);
                        }
                        other => return Err(self.error(&format!("unrecognized identifier {other}"))),
                    }
                }
                Some(_) => {
                    let before = self.at;
                    let steps = self.path()?;
                    if self.at == before {
                        let letter = self.peek().unwrap_or(' ');
                        return Err(self
                            .error(&format!("unrecognized character in action: U+{:04X} '{letter}'", letter as u32)));
                    }
                    parts.push(Part::Path(steps));
                }
            }
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(letter) = self.peek().filter(|letter| letter.is_alphanumeric() || *letter == '_') {
            word.push(letter);
            self.at += 1;
        }
        word
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        self.at += 1;
        let mut text = String::new();
        while let Some(letter) = self.peek() {
            self.at += 1;
            match letter {
                '\\' => {
                    let escaped = self.peek().ok_or_else(|| self.error("unterminated quoted string"))?;
                    self.at += 1;
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                }
                letter if letter == quote => return Ok(text),
                letter => text.push(letter),
            }
        }
        Err(self.error("unterminated quoted string"))
    }

    fn path(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some('$') => {
                    self.at += 1;
                    steps.push(Step::Root);
                }
                Some('@') => self.at += 1,
                Some('.') => {
                    self.at += 1;
                    if self.take('.') {
                        steps.push(Step::Recursive);
                        if self.peek() == Some('[') {
                            continue;
                        }
                    }
                    if self.take('*') {
                        steps.push(Step::Wildcard);
                        continue;
                    }
                    let name = self.field_name();
                    if !name.is_empty() {
                        steps.push(Step::Field(name));
                    }
                }
                Some('[') => {
                    self.at += 1;
                    let step = self.brackets()?;
                    steps.push(step);
                }
                Some('*') => {
                    self.at += 1;
                    steps.push(Step::Wildcard);
                }
                _ => return Ok(steps),
            }
        }
    }

    fn field_name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.peek() {
            if letter == '\\' {
                self.at += 1;
                name.extend(self.peek());
                self.at += 1;
                continue;
            }
            if matches!(
                letter,
                '.' | '[' | ']' | '}' | '{' | ',' | '(' | ')' | '"' | '\'' | '=' | '<' | '>' | '!' | '$' | '@' | '*'
            ) || letter.is_whitespace()
            {
                break;
            }
            name.push(letter);
            self.at += 1;
        }
        name
    }

    fn brackets(&mut self) -> Result<Step> {
        self.skip_spaces();
        if self.take('?') {
            return self.filter();
        }
        if self.take('*') {
            self.close()?;
            return Ok(Step::Wildcard);
        }
        let mut paths: Vec<Vec<Step>> = Vec::new();
        loop {
            self.skip_spaces();
            match self.peek() {
                Some('\'') => paths.push(self.key()?),
                Some('.' | '$' | '@') => paths.push(self.path()?),
                Some(letter) if letter == '-' || letter == ':' || letter.is_ascii_digit() => {
                    paths.push(vec![self.range_of_indexes()?]);
                }
                _ => {
                    let rest = self.letters[self.at..].iter().take_while(|letter| **letter != ']');
                    return Err(self.error(&format!("invalid array index {}", rest.collect::<String>())));
                }
            }
            self.skip_spaces();
            if !self.take(',') {
                break;
            }
        }
        self.close()?;
        match (paths.len(), paths.first().map(Vec::len)) {
            (1, Some(1)) => Ok(paths.remove(0).remove(0)),
            _ => Ok(Step::Union(paths)),
        }
    }

    /// A quoted key is a path too: the dots in it separate names unless a backslash stands before them.
    fn key(&mut self) -> Result<Vec<Step>> {
        self.at += 1;
        let rest = &self.letters[self.at..];
        let length = rest.iter().position(|letter| *letter == '\'');
        let length = length.ok_or_else(|| self.error("unterminated quoted string"))?;
        let mut inner = Parser { letters: std::iter::once('.').chain(rest[..length].iter().copied()).collect(), at: 0 };
        let steps = inner.path()?;
        let is_path = inner.at == inner.letters.len() && !steps.is_empty();
        let whole: String = rest[..length].iter().collect();
        self.at += length + 1;
        Ok(if is_path { steps } else { vec![Step::Field(whole)] })
    }

    fn close(&mut self) -> Result<()> {
        self.skip_spaces();
        if self.take(']') { Ok(()) } else { Err(self.error("unterminated array")) }
    }

    fn range_of_indexes(&mut self) -> Result<Step> {
        let start = self.number();
        if !self.take(':') {
            let start = start.ok_or_else(|| self.error("invalid array index"))?;
            return Ok(Step::Slice { start: Some(start), end: Some(start + 1), step: None });
        }
        let end = self.number();
        let step = if self.take(':') { self.number() } else { None };
        // Without a step it might look like a single index.
        Ok(Step::Slice { start, end, step: Some(step.unwrap_or(1)) })
    }

    fn number(&mut self) -> Option<i64> {
        let mut text = String::new();
        while let Some(letter) = self.peek().filter(|letter| *letter == '-' || letter.is_ascii_digit()) {
            text.push(letter);
            self.at += 1;
        }
        text.parse().ok()
    }

    fn filter(&mut self) -> Result<Step> {
        self.skip_spaces();
        if !self.take('(') {
            return Err(self.error("invalid filter"));
        }
        let left = self.operand()?;
        self.skip_spaces();
        let mut operator = String::new();
        while let Some(letter) = self.peek().filter(|letter| matches!(letter, '=' | '!' | '<' | '>')) {
            operator.push(letter);
            self.at += 1;
        }
        let right = if operator.is_empty() { Operand::Nothing } else { self.operand()? };
        self.skip_spaces();
        if !self.take(')') {
            return Err(self.error("unterminated filter"));
        }
        self.close()?;
        let operator = if operator.is_empty() { "exists".into() } else { operator };
        Ok(Step::Filter { left, operator, right })
    }

    fn operand(&mut self) -> Result<Operand> {
        self.skip_spaces();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => Ok(Operand::Value(Value::String(self.quoted(quote)?))),
            Some('@' | '.' | '$' | '[') => Ok(Operand::Path(self.path()?)),
            Some(_) => {
                let mut word = String::new();
                while let Some(letter) =
                    self.peek().filter(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_'))
                {
                    word.push(letter);
                    self.at += 1;
                }
                match word.parse::<serde_json::Number>() {
                    Ok(number) => Ok(Operand::Value(Value::Number(number))),
                    Err(_) => match word.as_str() {
                        "true" => Ok(Operand::Value(Value::Bool(true))),
                        "false" => Ok(Operand::Value(Value::Bool(false))),
                        _ => Err(self.error(&format!("unrecognized identifier {word}"))),
                    },
                }
            }
            None => Err(self.error("unterminated filter")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(template: &str) -> String {
        let object = json!({"items": [
            {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1},
            {"metadata": {"name": "b"}, "n": 2},
        ]});
        Template::parse(template, true)
            .and_then(|template| template.run(&object))
            .unwrap_or_else(|error| error.message())
    }

    #[test]
    fn fields_of_columns() {
        let told = |text: &str| match Template::field(text) {
            Ok(template) => format!("{:?}", template.values(&json!({"a": {"b": 1}})).unwrap()),
            Err(error) => error.inner_message()[..22].to_owned(),
        };
        let all: Vec<String> = ["a.b", ".a.b", "{a.b}", "{.a.b}", "", "{}", "{.a}{.b}", "{.a"].map(told).to_vec();
        assert_eq!(all[..5], ["[Number(1)]", "[Number(1)]", "[Number(1)]", "[Number(1)]", "[]"]);
        assert_eq!(all[5..], ["unexpected path string"; 3]);
    }

    #[test]
    fn templates() {
        assert_eq!(run("{.items[*].metadata.name}"), "a b");
        assert_eq!(run("{.items[0].metadata.labels.x\\.y/z}"), "1");
        assert_eq!(run("{range .items[*]}{.metadata.name}={.n}{\"\\n\"}{end}"), "a=1\nb=2\n");
        assert_eq!(run("{.items[?(@.n>1)].metadata.name}"), "b");
        assert_eq!(run("{.items[?(@.metadata.name==\"a\")].n}"), "1");
        assert_eq!(run("{.items[-1].metadata.name}"), "b");
        assert_eq!(run("{.items[0:1].n}"), "1");
        assert_eq!(run("{..name}"), "a b");
        assert_eq!(run("{.items[0]['metadata.name','n']}"), "a 1");
        assert_eq!(run("{.items[*]['metadata.name', 'n']}"), "a b 1 2");
        assert_eq!(run("{.items[0].metadata.labels['x\\.y/z']}{.items[0].metadata.labels['x.y/z']}"), "1");
        assert_eq!(run("x{.missing}y"), "xy");
        assert_eq!(run("{.items[0].metadata}"), r#"{"labels":{"x.y/z":"1"},"name":"a"}"#);
    }
}
