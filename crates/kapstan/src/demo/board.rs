//! What the demo shows while it runs: a bar a revision on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::bounds::Counted;
use super::traffic::Tally;

/// The display of one rollout.
pub struct Board {
    live: Option<Live>,
    last: String,
}

struct Live {
    screen: MultiProgress,
    revisions: BTreeMap<String, ProgressBar>,
    traffic: ProgressBar,
    replicas: u64,
}

impl Board {
    /// A board for `replicas` pods.
    pub fn new(replicas: usize) -> Board {
        let live = std::io::stdout().is_terminal().then(|| {
            let screen = MultiProgress::new();
            let traffic = screen.add(ProgressBar::new_spinner());
            traffic.set_style(style("  {spinner} {msg}"));
            Live { screen, revisions: BTreeMap::new(), traffic, replicas: replicas as u64 }
        });
        Board { live, last: String::new() }
    }

    /// Shows the pods as they are; in plain lines only what changed.
    pub fn show(&mut self, pods: &[Counted], tally: &Tally) {
        let rows = revisions(pods);
        match &mut self.live {
            Some(live) => live.show(&rows, tally),
            None => {
                let line: Vec<String> = rows.iter().map(|(image, row)| format!("{image}: {row}")).collect();
                let line = line.join("   ");
                if line != self.last && !line.is_empty() {
                    println!("    {line}");
                    self.last = line;
                }
            }
        }
    }

    /// Says a sentence.
    pub fn say(&self, text: &str) {
        match &self.live {
            // A closed terminal is the end of the show, not of the rollout.
            Some(live) => drop(live.screen.println(text)),
            None => println!("{text}"),
        }
    }

    /// Takes the bars away.
    pub fn close(self) {
        if let Some(live) = self.live {
            drop(live.screen.clear());
        }
    }
}

impl Live {
    fn show(&mut self, rows: &BTreeMap<String, Row>, tally: &Tally) {
        for (image, row) in rows {
            let bar = self.revisions.entry(image.clone()).or_insert_with(|| {
                let bar = self.screen.insert_before(&self.traffic, ProgressBar::new(self.replicas));
                bar.set_style(style("  {prefix:<14} {bar:24.green/dim} {msg}"));
                bar.set_prefix(image.clone());
                bar
            });
            bar.set_position(row.available as u64);
            bar.set_message(row.to_string());
        }
        for (image, bar) in &self.revisions {
            if !rows.contains_key(image) {
                bar.set_position(0);
                bar.set_message("gone");
            }
        }
        self.traffic.set_message(format!("{} requests, {} failed", tally.sent, tally.failed));
        self.traffic.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The pods of one revision.
#[derive(Default)]
struct Row {
    available: usize,
    starting: usize,
    terminating: usize,
    waiting: Option<String>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ready", self.available)?;
        if self.starting > 0 {
            write!(f, ", {} starting", self.starting)?;
            if let Some(waiting) = &self.waiting {
                write!(f, " ({waiting})")?;
            }
        }
        if self.terminating > 0 {
            write!(f, ", {} stopping", self.terminating)?;
        }
        Ok(())
    }
}

fn revisions(pods: &[Counted]) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for pod in pods {
        let row = rows.entry(pod.image.clone()).or_default();
        row.available += usize::from(pod.available);
        row.terminating += usize::from(pod.terminating);
        row.starting += usize::from(!pod.available && !pod.terminating);
        if !pod.available && !pod.terminating {
            row.waiting = row.waiting.take().or_else(|| pod.waiting.clone());
        }
    }
    rows
}
