//! YAML as kubectl writes it.
//!
//! Mirrors go-yaml v2's emitter: keys sorted, lists not indented, strings quoted only where they would be read as something else, lines
//! folded at the first space after column 80.

use serde_json::Value;

const BEST_WIDTH: usize = 80;

/// The value as a document.
pub fn text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut text, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut text, items, 0),
        other => {
            scalar(&mut text, other, 0, 0);
            text.push('\n');
        }
    }
    text
}

fn mapping(text: &mut String, map: &serde_json::Map<String, Value>, indent: usize) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by(|one, other| natural(one, other));
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 || !text.ends_with("- ") {
            spaces(text, indent);
        }
        let start = text.rfind('\n').map_or(0, |at| at + 1);
        string(text, key, indent, true);
        text.push(':');
        member(text, &map[key], indent, start);
    }
}

fn member(text: &mut String, value: &Value, indent: usize, start: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            mapping(text, map, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            sequence(text, items, indent);
        }
        other => {
            text.push(' ');
            let column = text[start..].chars().count();
            scalar(text, other, indent + 2, column);
            text.push('\n');
        }
    }
}

fn sequence(text: &mut String, items: &[Value], indent: usize) {
    for item in items {
        if !text.ends_with("- ") {
            spaces(text, indent);
        }
        text.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(text, map, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(text, items, indent + 2),
            other => {
                scalar(text, other, indent + 2, indent + 2);
                text.push('\n');
            }
        }
    }
}

fn spaces(text: &mut String, count: usize) {
    text.extend(std::iter::repeat_n(' ', count));
}

fn scalar(text: &mut String, value: &Value, indent: usize, column: usize) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Object(_) => text.push_str("{}"),
        Value::Array(_) => text.push_str("[]"),
        Value::String(value) => string_at(text, value, indent, column),
        other => text.push_str(&other.to_string()),
    }
}

fn string(text: &mut String, value: &str, indent: usize, simple_key: bool) {
    match simple_key && (value.contains(is_break) || value.is_empty()) {
        true => double_quoted(text, value, KEY, 0),
        false => string_at(text, value, if simple_key { KEY } else { indent }, if simple_key { 0 } else { indent }),
    }
}

/// The indent of what may not go on in another line.
const KEY: usize = usize::MAX;

/// `indent` is that of continued lines.
fn string_at(text: &mut String, value: &str, indent: usize, column: usize) {
    let breaks_beside_spaces = Breaks::of(value);
    let special = value.chars().any(|letter| !printable(letter)) || breaks_beside_spaces.after_space;
    let (is_literal, ends_with_space) = (value.contains('\n'), value.ends_with(' '));
    if special || ambiguous(value) && !is_literal || is_literal && (ends_with_space || indent == KEY) {
        double_quoted(text, value, indent, column);
    } else if is_literal {
        literal(text, value, indent);
    } else if plain(value) {
        folded(text, value, indent, column);
    } else if breaks_beside_spaces.before_space {
        double_quoted(text, value, indent, column);
    } else {
        text.push('\'');
        folded(text, &value.replace('\'', "''"), indent, column + 1);
        text.push('\'');
    }
}

/// Where line breaks and spaces touch: not every style can write that.
struct Breaks {
    after_space: bool,
    before_space: bool,
}

impl Breaks {
    fn of(value: &str) -> Breaks {
        let mut breaks = Breaks { after_space: false, before_space: false };
        for (first, second) in value.chars().zip(value.chars().skip(1)) {
            breaks.after_space |= first == ' ' && is_break(second);
            breaks.before_space |= is_break(first) && second == ' ';
        }
        breaks
    }
}

/// U+0085 is a break too, but not printable.
fn is_break(letter: char) -> bool {
    matches!(letter, '\n' | '\u{2028}' | '\u{2029}')
}

/// go-yaml writes no letter beyond U+FFFD as it is.
fn printable(letter: char) -> bool {
    matches!(letter, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && letter != '\u{feff}'
}

fn literal(text: &mut String, value: &str, indent: usize) {
    text.push('|');
    if value.starts_with(' ') || value.starts_with(is_break) {
        text.push('2');
    }
    let mut from_the_end = value.chars().rev();
    match (from_the_end.next().is_some_and(is_break), from_the_end.next()) {
        (false, _) => text.push('-'),
        (true, before) if before.is_none_or(is_break) => text.push('+'),
        (true, _) => {}
    }
    text.push('\n');
    let mut at_start = true;
    for letter in value.strip_suffix('\n').unwrap_or(value).chars() {
        if at_start && !is_break(letter) {
            spaces(text, indent);
        }
        text.push(letter);
        at_start = is_break(letter);
    }
}

fn folded(text: &mut String, value: &str, indent: usize, mut column: usize) {
    let letters: Vec<char> = value.chars().collect();
    let mut after_break = false;
    for (index, letter) in letters.iter().enumerate() {
        let alone = *letter == ' ' && index > 0 && letters.get(index - 1) != Some(&' ');
        let next_is_space = letters.get(index + 1).is_none_or(|next| *next == ' ');
        if is_break(*letter) {
            text.push(*letter);
            column = 0;
        } else if alone && !next_is_space && column > BEST_WIDTH && indent != KEY {
            text.push('\n');
            spaces(text, indent);
            column = indent;
        } else {
            if after_break {
                spaces(text, indent);
                column = indent;
            }
            text.push(*letter);
            column += 1;
        }
        after_break = is_break(*letter);
    }
}

fn double_quoted(text: &mut String, value: &str, indent: usize, column: usize) {
    text.push('"');
    let (mut column, mut after_space) = (column + 1, false);
    let last = value.chars().count().saturating_sub(1);
    let mut letters = value.chars().enumerate().peekable();
    while let Some((index, letter)) = letters.next() {
        let may_fold = letter == ' ' && !after_space && (1..last).contains(&index);
        if may_fold && column > BEST_WIDTH && indent != KEY {
            text.push('\n');
            spaces(text, indent);
            column = indent;
            if letters.peek().is_some_and(|(_, next)| *next == ' ') {
                text.push('\\');
                column += 1;
            }
        } else {
            let written = escaped(letter);
            column += written.chars().count();
            text.push_str(&written);
        }
        after_space = letter == ' ';
    }
    text.push('"');
}

/// A letter between double quotes.
fn escaped(letter: char) -> String {
    let short = match letter {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\0' => "\\0",
        '\u{1b}' => "\\e",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\u{85}' => "\\N",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        letter if printable(letter) => return letter.into(),
        letter => {
            return match u32::from(letter) {
                code @ ..=0xff => format!("\\x{code:02X}"),
                code @ ..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    short.to_owned()
}

/// Would be read as a boolean, a number, a null or a timestamp.
fn ambiguous(value: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "", "<<"];
    let lower = value.to_lowercase();
    let cased = value == lower || value == value.to_uppercase() || {
        let mut letters = value.chars();
        letters.next().is_some_and(|first| first.is_uppercase())
            && letters.as_str() == &lower[lower.len() - letters.as_str().len()..]
    };
    (WORDS.contains(&lower.as_str()) && cased) || number_like(value) || timestamp_like(value)
}

fn number_like(value: &str) -> bool {
    let lower = value.to_lowercase();
    let body = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    if matches!(body, ".inf" | ".nan") {
        return true;
    }
    let plain = body.replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = plain.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        }
    }
    let starts = body.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let fits = starts && plain.chars().any(|letter| letter.is_ascii_digit()) && plain.parse::<f64>().is_ok();
    fits || sexagesimal(body)
}

fn sexagesimal(body: &str) -> bool {
    let parts: Vec<&str> = body.split(':').collect();
    parts.len() > 1
        && parts.iter().all(|part| {
            !part.is_empty()
                && part.len() <= 2 + usize::from(part == &parts[0]) * 18
                && part.chars().all(|digit| digit.is_ascii_digit())
        })
        && parts[1..].iter().all(|part| part.parse::<u8>().is_ok_and(|number| number < 60))
}

fn timestamp_like(value: &str) -> bool {
    let mut parts = value.splitn(2, ['T', 't', ' ']);
    let date: Vec<&str> = parts.next().unwrap_or_default().split('-').collect();
    let digits = |text: &&str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
    date.len() == 3
        && date[0].len() == 4
        && date.iter().all(digits)
        && date[1].len() <= 2
        && date[2].len() <= 2
        && parts.next().is_none_or(|rest| rest.contains(':'))
}

fn plain(value: &str) -> bool {
    let marked = value.starts_with("---") || value.starts_with("...");
    if value.starts_with(' ') || value.ends_with(' ') || marked || value.contains(is_break) {
        return false;
    }
    let letters: Vec<char> = value.chars().collect();
    for (index, letter) in letters.iter().enumerate() {
        let followed_by_space = letters.get(index + 1).is_none_or(|next| *next == ' ');
        let first = index == 0;
        let bad = match letter {
            '#' => first || letters[index - 1] == ' ',
            ',' | '[' | ']' | '{' | '}' => first,
            '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => first,
            '-' => first && followed_by_space,
            '?' => first && followed_by_space,
            ':' => followed_by_space,
            '=' => first && letters.len() == 1,
            _ => false,
        };
        if bad {
            return false;
        }
    }
    true
}

/// go-yaml's order of keys: digits by value, letters after signs.
fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut index = 0;
    while index < one.len() && index < other.len() {
        let (left, right) = (one[index], other[index]);
        if left == right {
            index += 1;
            continue;
        }
        if left.is_ascii_digit() && right.is_ascii_digit() {
            let number = |letters: &[char]| {
                let digits: String = letters[index..].iter().take_while(|digit| digit.is_ascii_digit()).collect();
                (digits.parse::<u64>().unwrap_or(u64::MAX), digits.len())
            };
            return number(&one).cmp(&number(&other));
        }
        return match (left.is_alphabetic(), right.is_alphabetic()) {
            (true, true) | (false, false) => left.cmp(&right),
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
        };
    }
    one.len().cmp(&other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_what_needs_it() {
        let value = serde_json::json!({
            "plain": "nginx:1.9", "number": "1", "bool": "true", "colon": "a: b", "empty": "", "list": [{"a": 1, "b": [1]}, "x"],
            "lines": "one\ntwo\n", "none": {}, "quote": "it's", "star": "*", "json": "{}",
        });
        expect_test::expect![[r#"
            bool: "true"
            colon: 'a: b'
            empty: ""
            json: '{}'
            lines: |
              one
              two
            list:
            - a: 1
              b:
              - 1
            - x
            none: {}
            number: "1"
            plain: nginx:1.9
            quote: it's
            star: '*'
        "#]]
        .assert_eq(&text(&value));
    }

    /// As real kubectl prints them.
    #[test]
    fn letters_of_all_kinds_and_long_lines() {
        let words = "aaaaaaaaaa bbbbbbbbbb cccccccccc dddddddddd eeeeeeeeee ffffffffff gggggggggg ";
        let value = serde_json::json!({
            "breaks": ["x\u{2028}y\u{2029} z", "a \u{2028}b", "\u{2028}lead", "trail\u{2028}", "l1\u{2028}\nl2", "x\u{2028}y\nz"],
            "face": "\u{1f600} hi",
            "lines": ["l1\n\u{1f600}\n", "line \n trailing \n", " \n", "\n", "a\n\n\n"],
            "others": "a\u{a0}b \u{85} \u{feff} \u{fffd} é 中",
            "long": [format!("{words}\u{1f600} hhhhh iiiii"), format!("tab\t{words} hhhhh  iiiii"), format!("{words} \t x")],
        });
        expect_test::expect![[r#"
            breaks:
            - "x\Ly\P z"
            - "a \Lb"
            - '   lead'
            - 'trail '
            - |-
              l1 
              l2
            - |-
              x   y
              z
            face: "\U0001F600 hi"
            lines:
            - "l1\n\U0001F600\n"
            - "line \n trailing \n"
            - " \n"
            - |2+

            - |+
              a


            long:
            - "aaaaaaaaaa bbbbbbbbbb cccccccccc dddddddddd eeeeeeeeee ffffffffff gggggggggg \U0001F600
              hhhhh iiiii"
            - "tab\taaaaaaaaaa bbbbbbbbbb cccccccccc dddddddddd eeeeeeeeee ffffffffff gggggggggg
              \ hhhhh  iiiii"
            - "aaaaaaaaaa bbbbbbbbbb cccccccccc dddddddddd eeeeeeeeee ffffffffff gggggggggg  \t
              x"
            others: "a b \N \uFEFF � é 中"
        "#]]
        .assert_eq(&text(&value));
    }
}
