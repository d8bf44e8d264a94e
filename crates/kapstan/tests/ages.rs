//! Ages in tables: what stands under `AGE` and its like is masked; `10m` of CPU under another heading is not.

/// Headings of columns in which there are ages, among other words.
const AGED: [&str; 9] =
    ["AGE", "Age", "LAST SEEN", "FIRST SEEN", "LAST SCHEDULE", "DURATION", "RESTARTS", "ENDED", "AFTER"];

/// Masks ages in the tables of a text, given and returned line by line.
pub fn mask(lines: &[&str]) -> Vec<String> {
    let mut columns = Vec::new();
    let masked = lines.iter().map(|line| {
        if line.is_empty() {
            columns.clear();
        }
        if is_header(line) {
            columns = aged_columns(line);
        }
        columns.iter().rev().fold((*line).to_owned(), |line, (start, end)| under(&line, *start, *end))
    });
    masked.collect()
}

/// True for the headings of a table with ages.
pub fn is_header(line: &str) -> bool {
    headings(line).iter().any(|(_, heading)| matches!(*heading, "AGE" | "Age" | "LAST SEEN"))
}

/// True for `5m3s`, `10d`, `<invalid>`: what an age looks like, and some quantities, too.
pub fn is_age(word: &str) -> bool {
    let units = word.chars().filter(|letter| "smhdy".contains(*letter)).count();
    let ends = word.ends_with(['s', 'm', 'h', 'd', 'y']) && word.starts_with(|letter: char| letter.is_ascii_digit());
    word == "<invalid>" || ends && word.chars().filter(char::is_ascii_digit).count() + units == word.len()
}

/// Where each heading starts; two spaces or more are between them.
fn headings(line: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    for part in line.split("  ") {
        let heading = part.trim();
        if !heading.is_empty() {
            found.push((at + part.len() - part.trim_start().len(), heading));
        }
        at += part.len() + 2;
    }
    found
}

fn aged_columns(line: &str) -> Vec<(usize, usize)> {
    let headings = headings(line);
    let ends = headings.iter().skip(1).map(|(start, _)| *start).chain([usize::MAX]);
    let columns = headings.iter().zip(ends);
    columns.filter(|((_, heading), _)| AGED.contains(heading)).map(|((start, _), end)| (*start, end)).collect()
}

/// Masks the ages between two places of a row, counted in characters.
fn under(row: &str, start: usize, end: usize) -> String {
    let letters: Vec<char> = row.chars().collect();
    let (start, end) = (start.min(letters.len()), end.min(letters.len()));
    let [before, cell, after] =
        [&letters[..start], &letters[start..end], &letters[end..]].map(|part| part.iter().collect::<String>());
    let mut masked = cell.clone();
    for word in cell.split([' ', '(', ')']).filter(|word| is_age(word)) {
        masked = masked.replacen(word, "<age>", 1);
    }
    before + &masked + &after
}

#[test]
fn ages_are_told_from_quantities() {
    let text = "NAME   CPU   RESTARTS     AGE\nweb    10m   1 (5s ago)   10m\n\nNAME   CPU\nweb    10m";
    let lines: Vec<&str> = text.lines().collect();
    let masked = "NAME   CPU   RESTARTS     AGE\nweb    10m   1 (<age> ago)   <age>\n\nNAME   CPU\nweb    10m";
    assert_eq!(mask(&lines).join("\n"), masked);
}
