//! Transcripts: text files, and pages of the guide, that are documentation and test at once.
//!
//! In a page (`NAME.md`) what is fenced as ```` ```console ```` is played, the rest is for the reader; its translation (`NAME.zh-CN.md`) has
//! the same blocks.
//!
//! A line `$ COMMAND` is run in a shell; the lines below it are what it prints, standard error after standard output and
//! `[exit CODE]` last when it fails. A line `# TEXT` is for the reader. A line `...` stands for any lines.
//! What differs from run to run is masked: `<age>`, `<time>`, `<ip>`, `<uid>`, `<who>`, `<version>`, `<hash-N>` (numbered as they appear)
//! and `<pod>`.
//! Spaces count only as separators, rows of a table in any order are the same. A command that only looks is repeated
//! until it shows what it should. `UPDATE_EXPECT=1` writes down what was printed where it differs.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::ages;
use crate::cluster::{Cluster, Kubectl, PATIENCE, eventually};

/// Commands that change nothing.
const LOOKS: [&str; 5] =
    ["kubectl get ", "kubectl describe ", "kubectl rollout history ", "kubectl logs ", "kubectl top "];
/// What newer versions of kubectl add to the name of what they deleted.
const DELETED_FROM: &str = " from default namespace";
/// What some versions of kubectl say beside the matter: since 1.15, and since 1.36.
const CHATTER: [fn(&str) -> bool; 2] = [
    |line| line == "Flag --record has been deprecated, --record will be removed in the future",
    |line| line.starts_with("Warning: resource ") && line.contains(" was previously managed with 'kubectl apply'."),
];

/// Where a block of a page begins.
const FENCE: &str = "```console";

/// Runs the transcript `NAME` in `tests/transcripts`, or the page of that name in the guide, and compares.
pub fn play(name: &str, cluster: &Cluster, kubectl: &Kubectl) {
    play_and(name, cluster, kubectl, |_| {});
}

/// As [`play`]; `then` is told of every command once it has run.
pub fn play_and(name: &str, cluster: &Cluster, kubectl: &Kubectl, mut then: impl FnMut(&str)) {
    let page = name.strip_suffix(".md");
    let path = if page.is_some() { guide().join(name) } else { folder().join(name) };
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut masks = Masks::default();
    let mut played = String::new();
    let mut differences = String::new();
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for part in parse(&text, page.is_some()) {
        let Part::Step { command, expected } = part else {
            let Part::Text(line) = part else { continue };
            writeln!(played, "{line}").unwrap();
            continue;
        };
        let printed = run(cluster, kubectl, command, &expected, &mut masks);
        then(command);
        let shown = printed.as_ref().unwrap_or(&expected);
        write!(played, "$ {command}\n{shown}").unwrap();
        if let Some(printed) = &printed {
            write!(differences, "$ {command}\n--- expected\n{expected}--- printed\n{printed}").unwrap();
            if !update {
                break;
            }
        }
    }
    if update && played != text {
        fs::write(&path, &played).unwrap();
    } else {
        assert!(differences.is_empty(), "{name}: UPDATE_EXPECT=1 takes over what is printed\n{differences}");
    }
    if let Some(page) = page {
        translate(&played, &guide().join(format!("{page}.zh-CN.md")), update);
    }
}

/// Checks that a translation has the blocks of its page; `update` writes them there.
fn translate(page: &str, translation: &Path, update: bool) {
    let text = fs::read_to_string(translation).unwrap_or_else(|error| panic!("{}: {error}", translation.display()));
    let mut blocks = blocks(page).into_iter();
    let mut translated = String::new();
    for (index, part) in text.split(FENCE).enumerate() {
        if index == 0 {
            translated.push_str(part);
            continue;
        }
        let (_, rest) = part.split_once("\n```").expect("every block ends");
        let block = blocks.next().unwrap_or_default();
        write!(translated, "{FENCE}{block}\n```{rest}").unwrap();
    }
    assert_eq!(blocks.next(), None, "{} lacks a block of its page", translation.display());
    if update && translated != text {
        fs::write(translation, translated).unwrap();
    } else {
        assert!(translated == text, "{}: UPDATE_EXPECT=1 takes the blocks over", translation.display());
    }
}

/// What is between the fences of a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split(FENCE).skip(1).filter_map(|part| Some(part.split_once("\n```")?.0)).collect()
}

/// The folder of the guide.
pub fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide")
}

/// The folder of transcripts and of the manifests that they use.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

enum Part<'a> {
    /// For the reader: kept as it is.
    Text(&'a str),
    /// A command and what it should print.
    Step { command: &'a str, expected: String },
}

fn parse(text: &str, page: bool) -> Vec<Part<'_>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut played = !page;
    for line in text.lines() {
        if page && line.starts_with("```") {
            played = line == FENCE;
            parts.push(Part::Text(line));
            continue;
        }
        if !played {
            parts.push(Part::Text(line));
            continue;
        }
        match (line.strip_prefix("$ "), parts.last_mut()) {
            (Some(command), _) => parts.push(Part::Step { command, expected: String::new() }),
            (None, Some(Part::Step { expected, .. })) if !line.is_empty() && !line.starts_with("# ") => {
                expected.push_str(line);
                expected.push('\n');
            }
            _ => parts.push(Part::Text(line)),
        }
    }
    parts
}

/// What the command printed, if it is not what was expected.
fn run(cluster: &Cluster, kubectl: &Kubectl, command: &str, expected: &str, masks: &mut Masks) -> Option<String> {
    let attempt = || {
        let mut tried = masks.clone();
        let printed = tried.mask(&terminal(&cluster.shell(kubectl, command)));
        if same(expected, &printed) { Ok(tried) } else { Err((tried, printed)) }
    };
    let looks = LOOKS.iter().any(|look| command.starts_with(look));
    let patience = if looks { PATIENCE } else { Duration::ZERO };
    let (tried, printed) = match eventually(patience, attempt) {
        Ok(tried) => (tried, None),
        Err((tried, printed)) => (tried, Some(printed)),
    };
    *masks = tried;
    printed
}

/// What a terminal would show.
fn terminal(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join("");
    let both = both.replace(DELETED_FROM, "");
    let lines = both.lines().map(str::trim_end).filter(|line| !CHATTER.iter().any(|is_said| is_said(line)));
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    if !output.status.success() {
        writeln!(text, "[exit {}]", output.status.code().unwrap_or(-1)).unwrap();
    }
    text
}

/// Compares line by line, words by words; `...` in `expected` stands for any lines.
fn same(expected: &str, printed: &str) -> bool {
    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }
    fn matches(expected: &[&str], printed: &[&str]) -> bool {
        match (expected.split_first(), printed.split_first()) {
            (Some((&"...", rest)), _) => (0..=printed.len()).any(|skip| matches(rest, &printed[skip..])),
            (Some((wanted, wanted_rest)), Some((line, rest))) => {
                words(wanted) == words(line) && matches(wanted_rest, rest)
            }
            (None, None) => true,
            _ => false,
        }
    }
    matches(&expected.lines().collect::<Vec<_>>(), &printed.lines().collect::<Vec<_>>())
}

/// Replaces what differs from run to run.
#[derive(Clone, Default)]
struct Masks {
    hashes: Vec<String>,
}

impl Masks {
    /// Masks what a terminal showed; empty lines, which end tables, go.
    fn mask(&mut self, text: &str) -> String {
        let paragraphs: Vec<Vec<&str>> =
            text.lines().collect::<Vec<_>>().split(|line| line.is_empty()).map(<[_]>::to_vec).collect();
        paragraphs.iter().flat_map(|lines| self.paragraph(lines)).map(|line| line + "\n").collect()
    }

    fn paragraph(&mut self, lines: &[&str]) -> Vec<String> {
        let table = lines.iter().position(|line| ages::is_header(line)).unwrap_or(lines.len());
        let mut lines: Vec<String> = ages::mask(lines).iter().map(|line| self.words(line)).collect();
        lines[..table].iter_mut().for_each(|line| *line = requested(&replica_sets(&time(line))));
        lines[table..].iter_mut().for_each(|line| *line = programs(line));
        align(&mut lines[table..]);
        lines
    }

    /// Masks names and addresses in a line.
    fn words(&mut self, line: &str) -> String {
        let part_of_word = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
        let mut masked = String::new();
        let mut rest = line;
        while let Some(start) = rest.find(part_of_word) {
            let end = rest[start..].find(|letter| !part_of_word(letter)).map_or(rest.len(), |length| start + length);
            masked.push_str(&rest[..start]);
            // A full stop ends the sentence, not the word.
            let word = rest[start..end].trim_end_matches('.');
            let end = start + word.len().max(1);
            let word = &rest[start..end];
            let is_hash = masked.ends_with("pod-template-hash=");
            masked.push_str(&if is_hash { self.hash(word) } else { self.word(word) });
            rest = &rest[end..];
        }
        masked + rest
    }

    fn word(&mut self, word: &str) -> String {
        let numbers: Vec<&str> = word.split('.').collect();
        if numbers.len() == 4 && numbers.iter().all(|number| number.parse::<u8>().is_ok()) {
            return "<ip>".into();
        }
        let parts: Vec<&str> = word.split('-').collect();
        match parts.as_slice() {
            [a, b, c, d, e] if [a, b, c, d, e].map(|part| part.len()) == [8, 4, 4, 4, 12] => "<uid>".into(),
            [owner @ .., hash, pod] if !owner.is_empty() && random(hash, 6..=10) && random(pod, 5..=5) => {
                format!("{}-{}-<pod>", owner.join("-"), self.hash(hash))
            }
            [owner @ .., hash, pod] if !owner.is_empty() && is_digest(hash) && random(pod, 5..=5) => {
                format!("{}-{}-<pod>", owner.join("-"), self.hash(hash))
            }
            [owner @ .., pod] if !owner.is_empty() && random(pod, 5..=5) => format!("{}-<pod>", owner.join("-")),
            [hash] if is_digest(hash) => self.hash(hash),
            [owner @ .., hash] if !owner.is_empty() && is_digest(hash) => {
                format!("{}-{}", owner.join("-"), self.hash(hash))
            }
            [owner @ .., hash] if !owner.is_empty() && random(hash, 6..=10) => {
                format!("{}-{}", owner.join("-"), self.hash(hash))
            }
            _ => word.to_owned(),
        }
    }

    fn hash(&mut self, hash: &str) -> String {
        let known = self.hashes.iter().position(|known| known == hash);
        let index = known.unwrap_or_else(|| {
            self.hashes.push(hash.to_owned());
            self.hashes.len() - 1
        });
        format!("<hash-{}>", index + 1)
    }
}

/// Generated parts of names have letters that spell no words.
fn random(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.chars().all(|letter| "bcdfghjklmnpqrstvwxz2456789".contains(letter))
}

/// What `rolling-update` names its controllers by.
fn is_digest(text: &str) -> bool {
    text.len() == 32 && text.chars().all(|letter| letter.is_ascii_hexdigit())
}

/// The cells of a table's row; two spaces or more are between them.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// Old ReplicaSets by name: kubectl has them by age, and those of the same second by their random hash.
fn replica_sets(line: &str) -> String {
    let Some(listed) = line.strip_prefix("OldReplicaSets:") else { return line.to_owned() };
    let mut listed: Vec<&str> = listed.trim().split("), ").map(|one| one.trim_end_matches(')')).collect();
    listed.sort_unstable();
    let listed: Vec<String> =
        listed.iter().map(|one| if one.contains('(') { format!("{one})") } else { (*one).into() }).collect();
    format!("OldReplicaSets:  {}", listed.join(", "))
}

/// Masks who asked for a rollout, when and with which program.
fn requested(line: &str) -> String {
    let end = line.find(api::account::REQUESTED).map(|start| start + api::account::REQUESTED.len());
    end.map_or_else(|| line.to_owned(), |end| format!("{}: <who>", &line[..end]))
}

/// Masks the versions of programs in a table's row.
fn programs(line: &str) -> String {
    line.split(' ').map(program).collect::<Vec<_>>().join(" ")
}

/// Masks the version of a program: `kubectl/v1.32.3`.
fn program(word: &str) -> String {
    match word.split_once('/') {
        Some((name @ ("kubectl" | "kapstan"), version)) if version.contains('.') => format!("{name}/<version>"),
        _ => word.to_owned(),
    }
}

/// Masks the value of `CreationTimestamp:` and its like.
fn time(line: &str) -> String {
    match line.split_once("Timestamp:").or_else(|| line.split_once("Time:")) {
        Some((name, value)) if value.contains(':') => {
            let label = &line[..line.len() - value.len()];
            let spaces = value.len() - value.trim_start().len();
            assert!(label.starts_with(name));
            format!("{label}{}<time>", &value[..spaces])
        }
        _ => line.to_owned(),
    }
}

/// Aligns a table anew after masking; what `get` lists is sorted, since random names have no order.
fn align(lines: &mut [String]) {
    if lines.is_empty() {
        return;
    }
    let indent = lines[0].len() - lines[0].trim_start().len();
    let gap = if indent == 0 { 3 } else { 2 };
    if indent == 0 {
        lines[1..].sort();
    }
    let rows: Vec<Vec<String>> =
        lines.iter().map(|line| cells(line).into_iter().map(str::to_owned).collect()).collect();
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (line, row) in lines.iter_mut().zip(&rows).filter(|(_, row)| row.len() == columns) {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}{:gap$}", "", width = *width));
        *line = format!("{:indent$}{}", "", padded.collect::<String>().trim_end());
    }
}
