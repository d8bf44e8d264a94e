//! `cargo xtask bench`: measures a release build of the program, through HTTPS, with the durable store and RBAC on.
//!
//! Each row starts its own processes on a fresh data folder, listens on loopback only, and leaves nothing behind. One
//! table beside the peer's figures, also as JSON.

mod checker;
mod client;
mod deployment;
mod figures;
mod peer;
mod process;
mod rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use figures::{Figure, shown};
use rows::{ALL, Row, Settings};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "cargo xtask bench [ROW...] [--runs N] [--json FILE] [--binary FILE]

Measures kapstan and prints one table beside the figures of Kubernetes 1.20.2 with etcd 3.4.23.
  ROW            rows whose names begin so; all of them if none is named
  --runs N       measure so often and take the median [default: 3]
  --json FILE    write the table as JSON as well, `-` for standard output
  --binary FILE  the program to measure [default: a release build of this workspace]";
/// Longest measurement of one row.
const ROW_WITHIN: Duration = Duration::from_secs(600);
const MOST_RUNS: usize = 50;

struct Options {
    rows: Vec<(&'static str, Row)>,
    settings: Settings,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measured = options(&args).and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(run(options))
    });
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: &[String]) -> Result<Options, String> {
    let beside = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("kapstan");
    let mut options = Options { rows: Vec::new(), settings: Settings { binary: beside, runs: 3 }, json: None };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{arg} needs a value\n\n{HELP}"));
        match arg.as_str() {
            "--json" => options.json = Some(value()?.into()),
            "--binary" => options.settings.binary = value()?.into(),
            "--runs" => {
                let runs = value()?.parse().map_err(|e| format!("--runs: {e}"))?;
                options.settings.runs = if (1..=MOST_RUNS).contains(&runs) { runs } else { return Err(HELP.into()) };
            }
            "--help" | "-h" => return Err(HELP.into()),
            name => {
                let found: Vec<_> = ALL.into_iter().filter(|(row, _)| row.starts_with(name)).collect();
                if found.is_empty() {
                    let known: Vec<&str> = ALL.iter().map(|(row, _)| *row).collect();
                    return Err(format!("no row begins with {name}; there are {}\n\n{HELP}", known.join(", ")));
                }
                options.rows.extend(found);
            }
        }
    }
    if options.rows.is_empty() {
        options.rows = ALL.to_vec();
    }
    Ok(options)
}

/// Measures all rows; false if one of them has no figures.
async fn run(options: Options) -> Result<bool, String> {
    let mut results = Vec::new();
    for (name, row) in &options.rows {
        eprintln!("{name}: {}", row.title());
        let measured = tokio::select! {
            measured = tokio::time::timeout(ROW_WITHIN, row.measure(&options.settings)) =>
                measured.unwrap_or_else(|_| Err(format!("not measured within {ROW_WITHIN:?}"))),
            () = interrupted() => return Err("interrupted".into()),
        };
        if let Err(problem) = &measured {
            eprintln!("    {problem}");
        }
        results.push((*name, row.title(), measured));
    }
    let table = table(&results);
    let json = document(&results, &options.settings);
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => println!("{json:#}"),
        Some(path) => {
            std::fs::write(path, format!("{json:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("{table}");
        }
        None => println!("{table}"),
    }
    Ok(results.iter().all(|(_, _, measured)| measured.is_ok()))
}

/// Returns at SIGINT or SIGTERM.
async fn interrupted() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

type Measured = (&'static str, String, Result<Vec<Figure>, String>);

fn table(results: &[Measured]) -> String {
    let mut text =
        String::from("| | kapstan | Kubernetes 1.20.2 + etcd 3.4.23 | ratio | aim |\n|---|---:|---:|---:|---:|\n");
    for (row, title, measured) in results {
        text.push_str(&format!("| **{title}** | | | | |\n"));
        match measured {
            Ok(figures) => figures.iter().for_each(|figure| text.push_str(&line(row, figure))),
            Err(problem) => text.push_str(&format!("| no figures: {problem} | | | | |\n")),
        }
    }
    text.push_str(&format!("\nload average {}\n", load()));
    text
}

fn line(row: &str, figure: &Figure) -> String {
    let (peer, aim) = peer::known(row, &figure.name);
    let text = |value: Option<f64>| value.map_or_else(String::new, |value| shown(value, figure.unit));
    let ratio =
        peer.filter(|_| figure.value > 0.0).map_or_else(String::new, |peer| format!("{:.1}", peer / figure.value));
    format!("| {} | {} | {} | {ratio} | {} |\n", figure.name, shown(figure.value, figure.unit), text(peer), text(aim))
}

fn document(results: &[Measured], settings: &Settings) -> Value {
    let figure = |row: &str, figure: &Figure| {
        let (peer, aim) = peer::known(row, &figure.name);
        json!({
            "figure": figure.name, "unit": format!("{:?}", figure.unit).to_lowercase(),
            "value": figure.value, "runs": figure.runs, "peer": peer, "aim": aim,
        })
    };
    let row = |(name, title, measured): &Measured| match measured {
        Ok(figures) => json!({
            "row": name, "title": title, "figures": figures.iter().map(|one| figure(name, one)).collect::<Vec<_>>(),
        }),
        Err(problem) => json!({ "row": name, "title": title, "problem": problem }),
    };
    json!({
        "peer": "Kubernetes 1.20.2 with etcd 3.4.23", "runs": settings.runs, "load": load(),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "rows": results.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The machine's load averages: figures of a busy machine are worth less.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
