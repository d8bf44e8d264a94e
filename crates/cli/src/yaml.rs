//! YAML as kubectl reads it: scalars of YAML 1.1, in which `0400` is octal, `yes` is true and `1_000` is a number, and merge keys (`<<`).
//!
//! Mirrors sigs.k8s.io/yaml (`goyaml.v2/resolve.go`, `goyaml.v2/decode.go` and `convertToJSONableObject`). The parser below speaks
//! YAML 1.2: what it takes for text comes as a piece of the source, and what stands before that piece tells whether it was quoted.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The documents of a text, one after the other, up to the first that cannot be read: the parser would tell the same error for ever.
pub fn documents(text: &str) -> impl Iterator<Item = Result<Value, serde_yaml::Error>> {
    let (source, mut is_over) = (Source(text), false);
    serde_yaml::Deserializer::from_str(text).map_while(move |document| {
        let read = (!is_over).then(|| source.deserialize(document))?;
        is_over = read.is_err();
        Some(read)
    })
}

/// The text that is read.
#[derive(Clone, Copy)]
struct Source<'t>(&'t str);

impl Source<'_> {
    /// Whether a piece of the source is neither quoted nor said to be text (`!!str`).
    fn is_plain(self, piece: &str) -> bool {
        let start = piece.as_ptr().addr().checked_sub(self.0.as_ptr().addr());
        let Some(before) = start.and_then(|start| self.0.get(..start)) else { return false };
        let mut words = before.split_whitespace().rev();
        let mut last = words.next().unwrap_or_default();
        if last.starts_with('&') {
            last = words.next().unwrap_or_default();
        }
        !before.ends_with(['"', '\'']) && last != "!!str"
    }
}

impl<'t> DeserializeSeed<'t> for Source<'t> {
    type Value = Value;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Source<'t> {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    /// A document that says nothing.
    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        float(value as f64)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        float(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        float(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_borrowed_str<E: Error>(self, value: &'t str) -> Result<Value, E> {
        let is_more = if self.is_plain(value) { resolved(value) } else { None };
        is_more.unwrap_or_else(|| Ok(value.into()))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'t>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut object, mut sources) = (Map::new(), Vec::new());
        while let Some(key) = entries.next_key_seed(self)? {
            let value = entries.next_value_seed(self)?;
            match key {
                Value::String(key) if key == "<<" => sources.push(value),
                Value::String(key) => drop(object.insert(key, value)),
                // A key that is a number or a switch is named as JSON writes it.
                Value::Bool(_) | Value::Number(_) => drop(object.insert(key.to_string(), value)),
                other => return Err(Error::custom(format!("unsupported map key: {other}"))),
            }
        }
        for source in sources {
            merge(&mut object, source)?;
        }
        Ok(object.into())
    }
}

/// Takes over what the object does not say itself; of several sources the earlier one wins.
fn merge<E: Error>(object: &mut Map<String, Value>, source: Value) -> Result<(), E> {
    match source {
        Value::Object(more) => {
            for (key, value) in more {
                object.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(sources) if sources.iter().all(Value::is_object) => {
            sources.into_iter().try_for_each(|source| merge(object, source))
        }
        _ => Err(Error::custom("map merge requires map or sequence of maps as the value")),
    }
}

/// What YAML 1.1 sees in a plain scalar that YAML 1.2 takes for text.
fn resolved<E: Error>(plain: &str) -> Option<Result<Value, E>> {
    match plain {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(Ok(true.into())),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(Ok(false.into())),
        _ => {}
    }
    if !plain.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-')) {
        return None;
    }
    let digits = plain.replace('_', "");
    if let Some(number) = integer(&digits) {
        return Some(Ok(number.into()));
    }
    // Rust reads `inf` and `nan`, too.
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    digits.parse().ok().filter(|_| is_decimal).map(float)
}

/// As Go's `strconv.ParseInt` reads it with base 0.
fn integer(text: &str) -> Option<Number> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2), ("0", 8)];
    let based = prefixed.iter().find_map(|(prefix, base)| digits.strip_prefix(prefix).map(|rest| (rest, *base)));
    let (digits, base) = based.filter(|_| digits != "0").unwrap_or((digits, 10));
    if !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    let amount = u64::from_str_radix(digits, base).ok()?;
    match is_negative {
        true => 0_i64.checked_sub_unsigned(amount).map(Number::from),
        false => Some(amount.into()),
    }
}

/// A whole number is written without a fraction, as by Go.
fn float<E: Error>(value: f64) -> Result<Value, E> {
    let number = match value.to_string().parse::<i64>() {
        Ok(whole) => Some(Number::from(whole)),
        Err(_) => Number::from_f64(value),
    };
    let wrong = || Error::custom(format!("json: unsupported value: {value}"));
    number.map(Value::Number).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn read(text: &str) -> String {
        let told = |document: Result<Value, serde_yaml::Error>| match document {
            Ok(value) => value.to_string(),
            Err(error) => error.to_string(),
        };
        documents(text).map(told).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn scalars_of_yaml_1_1() {
        let scalars = [
            "0400",
            "-0400",
            "0o400",
            "08",
            "0",
            "00",
            "-0",
            "+5",
            "1_000",
            "0b1_1",
            "0x1F",
            "yes",
            "On",
            "n",
            "OFF",
            "true",
            "~",
            "1e3",
            "1.0",
            "1.",
            ".5",
            "1_0.5",
            "12:30:45",
            "2001-01-01",
            "1.2.3",
            "-",
            "+",
            "1-2",
            "+inf",
            "infinity",
            "9223372036854775807",
            "18446744073709551615",
            "100000000000000000000",
            "-9223372036854775808",
            "0xg",
            "yes please",
            "größe",
        ];
        let lines = scalars.map(|scalar| format!("{scalar} -> {}\n", read(&format!("k: {scalar}"))));
        expect![[r#"
            0400 -> {"k":256}
            -0400 -> {"k":-256}
            0o400 -> {"k":256}
            08 -> {"k":8}
            0 -> {"k":0}
            00 -> {"k":0}
            -0 -> {"k":0}
            +5 -> {"k":5}
            1_000 -> {"k":1000}
            0b1_1 -> {"k":3}
            0x1F -> {"k":31}
            yes -> {"k":true}
            On -> {"k":true}
            n -> {"k":false}
            OFF -> {"k":false}
            true -> {"k":true}
            ~ -> {"k":null}
            1e3 -> {"k":1000}
            1.0 -> {"k":1}
            1. -> {"k":1}
            .5 -> {"k":0.5}
            1_0.5 -> {"k":10.5}
            12:30:45 -> {"k":"12:30:45"}
            2001-01-01 -> {"k":"2001-01-01"}
            1.2.3 -> {"k":"1.2.3"}
            - -> block sequence entries are not allowed in this context at line 1 column 4
            + -> {"k":"+"}
            1-2 -> {"k":"1-2"}
            +inf -> {"k":"+inf"}
            infinity -> {"k":"infinity"}
            9223372036854775807 -> {"k":9223372036854775807}
            18446744073709551615 -> {"k":18446744073709551615}
            100000000000000000000 -> {"k":1e+20}
            -9223372036854775808 -> {"k":-9223372036854775808}
            0xg -> {"k":"0xg"}
            yes please -> {"k":"yes please"}
            größe -> {"k":"größe"}
        "#]]
        .assert_eq(&lines.concat());
    }

    #[test]
    fn what_is_quoted_or_said_to_be_text_is_text() {
        let text = "[\"0400\", 'yes', !!str 0400, &a !!str no, &b yes, *a, *b, \"größe\", 0400]\n---\na: |\n  0400\nb: >-\n  yes\nc: {\"c\":\"on\",d: on}";
        expect![[r#"
            ["0400","yes","0400","no",true,"no",true,"größe",256]
            {"a":"0400\n","b":"yes","c":{"c":"on","d":true}}"#]]
        .assert_eq(&read(text));
    }

    #[test]
    fn documents_that_say_nothing() {
        expect![[r#"
            "null"
            "null"
            "null\n{\"a\":1}\nnull"
        "#]]
        .assert_eq(&["", "# only words\n", "---\n---\na: 1\n---\n"].map(|text| format!("{:?}\n", read(text))).concat());
    }

    #[test]
    fn keys_and_merges() {
        let text = "\
base: &base {a: 1, b: 2}
more: &more {b: 3, c: 4}
one: {<<: *base, b: 5}
two: {<<: [*base, *more]}
late: {b: 5, <<: *base}
wrong: {1: x, yes: y, 0400: z, 1.5: f}
---
a: {<<: 5}
---
? [a]
: b
";
        expect![[r#"
            {"base":{"a":1,"b":2},"late":{"a":1,"b":5},"more":{"b":3,"c":4},"one":{"a":1,"b":5},"two":{"a":1,"b":2,"c":4},"wrong":{"1":"x","1.5":"f","256":"z","true":true}}
            a: map merge requires map or sequence of maps as the value at line 8 column 4"#]]
        .assert_eq(&read(text));
    }
}
