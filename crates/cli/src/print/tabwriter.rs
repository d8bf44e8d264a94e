//! Columns that are as wide as their widest cell.
//!
//! Mirrors Go's `text/tabwriter`: a column is a run of neighbouring lines that have a tab after that cell, so texts with several
//! tables in them come out as upstream's do.

/// How columns are made.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// The least width of a column, padding included.
    pub least: usize,
    /// Spaces after the widest cell.
    pub padding: usize,
}

/// `kubectl get`.
pub const GET: Style = Style { least: 6, padding: 3 };
/// `kubectl describe`.
pub const DESCRIBE: Style = Style { least: 0, padding: 2 };

/// Aligns a text whose cells end with tabs.
pub fn align(text: &str, style: Style) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut writer = Writer { lines: &lines, style, widths: Vec::new(), text: String::new() };
    writer.block(0, lines.len());
    // `split` sees an empty line after the last newline.
    writer.text.pop();
    writer.text
}

/// Columns of `kubectl get` that remember how wide they were: lines that come later stay in them.
#[derive(Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Aligns rows of cells.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            // The last cell of a line is not a column: nothing comes after it.
            for (index, cell) in row.iter().take(row.len().saturating_sub(1)).enumerate() {
                if self.widths.len() <= index {
                    self.widths.push(GET.least);
                }
                self.widths[index] = self.widths[index].max(cell.chars().count() + GET.padding);
            }
        }
        let mut text = String::new();
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < row.len() {
                    let gap = self.widths[index].saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', gap));
                }
            }
            text.push('\n');
        }
        text
    }
}

struct Writer<'a> {
    lines: &'a [Vec<&'a str>],
    style: Style,
    widths: Vec<usize>,
    text: String,
}

impl Writer<'_> {
    fn block(&mut self, first: usize, end: usize) {
        let column = self.widths.len();
        let has_column = |line: usize| column + 1 < self.lines[line].len();
        let mut start = first;
        let mut line = first;
        while line < end {
            if !has_column(line) {
                line += 1;
                continue;
            }
            self.write(start, line);
            start = line;
            let mut width = self.style.least;
            while line < end && has_column(line) {
                width = width.max(self.lines[line][column].chars().count() + self.style.padding);
                line += 1;
            }
            self.widths.push(width);
            self.block(start, line);
            self.widths.pop();
            start = line;
        }
        self.write(start, end);
    }

    fn write(&mut self, first: usize, end: usize) {
        for cells in &self.lines[first..end] {
            for (index, cell) in cells.iter().enumerate() {
                self.text.push_str(cell);
                if let Some(width) = self.widths.get(index) {
                    let used = cell.chars().count();
                    self.text.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
                }
            }
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_neighbouring_lines() {
        let text = "Name:\tweb\nLabels:\tapp=web\n\ttier=front\nEvents:\n  Type\tReason\n  ----\t------\n";
        expect_test::expect![[r#"
            Name:    web
            Labels:  app=web
                     tier=front
            Events:
              Type  Reason
              ----  ------
        "#]]
        .assert_eq(&align(text, DESCRIBE));
    }
}
