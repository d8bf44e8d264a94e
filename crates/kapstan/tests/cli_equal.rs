//! The same commands by kubectl and by our own verbs against the same server: outputs, errors and exit codes are equal.
//!
//! `cli/commands.txt` has the commands. Each program works in a namespace and on a node of its own; what differs from run to run (ages,
//! times, addresses, random names) is masked, our hints are left out.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use crate::ages::{self, is_age};
use crate::cluster::{Cluster, PATIENCE, Setup, eventually, skipped};

/// The image that the fourth seed cannot find.
pub const PROFILE: &str = "images:\n- {image: 'nginx:1.161', unpullable: true}\n";
/// What edits for `edit`.
const EDITOR: &str = "sed -i s/nginx:1.16.1/nginx:1.16.2/";

/// Commands that change nothing: repeated until both print the same (what `rollout status` tells on its way is another each time).
const LOOKS: [&str; 5] = ["get ", "describe ", "events ", "rollout history ", "rollout status "];

/// Who runs the commands.
struct Voice {
    folder: PathBuf,
    namespace: &'static str,
    node: &'static str,
}

impl Voice {
    fn new(cluster: &Cluster, program: &Path, namespace: &'static str, node: &'static str) -> Voice {
        let folder = cluster.folder().join(format!("voice-{namespace}"));
        fs::create_dir(&folder).unwrap();
        symlink(program, folder.join("kubectl")).unwrap();
        // A certificate with its key, and a key of another.
        let keys = [(); 2].map(|()| KeyPair::generate().unwrap());
        let certificate = CertificateParams::default().self_signed(&keys[0]).unwrap();
        let write = |ending: &str, text: String| fs::write(folder.join(format!("kubeconfig.{ending}")), text).unwrap();
        write("crt", certificate.pem());
        write("key", keys[0].serialize_pem());
        write("other.key", keys[1].serialize_pem());
        Voice { folder, namespace, node }
    }

    /// What the command printed, masked.
    fn say(&self, cluster: &Cluster, line: &str) -> String {
        let file = self.folder.join("kubeconfig");
        let line = line.replace("NS", self.namespace).replace("NODE", self.node);
        let line = line.replace("FILE", &file.display().to_string());
        // `by 'EDITOR' edit …` names the editor.
        let (editor, line) = line
            .strip_prefix("by '")
            .and_then(|rest| rest.split_once("' "))
            .map_or((EDITOR.to_owned(), line.clone()), |(editor, line)| (editor.to_owned(), line.to_owned()));
        let elsewhere = line.starts_with("config ") || line.starts_with("__complete ");
        let namespace = if elsewhere { String::new() } else { format!(" -n {}", self.namespace) };
        let (line, rest) = line
            .split_once(" -- ")
            .map_or((line.as_str(), String::new()), |(line, rest)| (line, format!(" -- {rest}")));
        let path = format!("{}:{}", self.folder.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec kubectl {line}{namespace}{rest}")).env("PATH", path);
        shell
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("HOME", cluster.folder())
            .env("KUBE_EDITOR", editor)
            .stdin(Stdio::null());
        shell.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli"));
        self.mask(&shell.output().unwrap())
    }

    fn mask(&self, output: &Output) -> String {
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let err: String =
            err.lines().filter(|line| !line.starts_with("hint: ")).map(|line| format!("{line}\n")).collect();
        // What kubectl logs beside its messages comes and goes.
        let err: String = err.lines().filter(|line| !is_log(line)).map(|line| format!("{line}\n")).collect();
        let text = format!("{out}--- error\n{err}--- exit {}\n", output.status.code().unwrap_or(-1));
        let text = without_repairs(&text);
        let lines: Vec<&str> = text.lines().collect();
        let text = ages::mask(&lines).join("\n");
        let text = text.replace(&self.folder.display().to_string(), "FOLDER");
        let text = text.replace(self.namespace, "NS").replace("simulated-0", "NODE").replace("simulated-1", "NODE");
        text.lines().map(|line| masked(line) + "\n").collect()
    }
}

/// What is told without the events of Kubernetes' server about an address of a Service that it gave but does not find yet: it
/// tells them of some Services and not of others.
fn without_repairs(text: &str) -> String {
    let repairs = |line: &&str| line.contains("ClusterIPNotAllocated");
    if !text.lines().any(|line| repairs(&line)) {
        return text.to_owned();
    }
    let mut lines: Vec<&str> = text.lines().filter(|line| !repairs(line)).collect();
    let title = lines.iter().position(|line| line.trim() == "Events:");
    let is_row =
        |line: &&str| line.starts_with("  ") && !line.trim_start().starts_with("Type ") && !line.contains("----");
    if let Some(title) = title.filter(|title| !lines[title + 1..].iter().any(is_row)) {
        lines.splice(title..=title + 2, ["Events:  <none>"]);
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn events_of_repairs_are_left_out() {
    let head = "Name:  web\nEvents:\n  Type     Reason                 Age  From                           Message\n";
    let rule = "  ----     ------                 ---  ----                           -------\n";
    let repair = "  Warning  ClusterIPNotAllocated  2s   ipallocator-repair-controller  Cluster IP is not allocated; repairing\n";
    let other = "  Normal   Other                  2s   somebody                       Something\n";
    assert_eq!(without_repairs(&[head, rule, repair].concat()), "Name:  web\nEvents:  <none>\n");
    assert_eq!(without_repairs(&[head, rule, repair, other].concat()), [head, rule, other].concat());
    assert_eq!(without_repairs(&[head, rule, other].concat()), [head, rule, other].concat());
}

/// Masks the words of a line that differ from run to run; runs of spaces, which follow their widths, become two.
fn masked(line: &str) -> String {
    if line.starts_with("  renewTime") || line.contains("RenewTime:") {
        return "RENEWED".into();
    }
    // Who asked for a rollout names the program.
    let line = line.find(api::account::REQUESTED).map_or(line, |start| &line[..start]);
    let line = times(&stamps(line));
    let mut text = String::new();
    let mut word = String::new();
    for letter in line.chars().chain(['\n']) {
        if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.') {
            word.push(letter);
            continue;
        }
        text.push_str(&masked_word(&std::mem::take(&mut word)));
        text.push(letter);
    }
    let text = text.trim_end().to_owned();
    let indent = text.len() - text.trim_start().len();
    let cells: Vec<&str> = text.trim_start().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let cells: Vec<String> = cells.into_iter().map(rule).collect();
    format!("{}{}", &text[..indent], cells.join("  "))
}

/// The line under a column's name is as long as the name.
fn rule(cell: &str) -> String {
    if cell.len() > 2 && cell.chars().all(|letter| letter == '-') { "---".into() } else { cell.to_owned() }
}

/// `Mon, 02 Jan 2006 15:04:05 +0000` and `resourceVersion: "12"`.
fn times(line: &str) -> String {
    let line = match line.find(" +0000") {
        Some(end) if end >= 25 => format!("{}TIME{}", &line[..end - 25], &line[end + 6..]),
        _ => line.to_owned(),
    };
    match line.trim_start().split_once(':') {
        Some((name, value))
            if name.trim_matches('"').replace(' ', "").eq_ignore_ascii_case("resourceversion")
                && !value.trim().trim_matches(['"', ',']).is_empty() =>
        {
            format!("{name}: VERSION")
        }
        _ => line,
    }
}

/// `2006-01-02T15:04:05Z`.
fn stamps(line: &str) -> String {
    const LENGTH: usize = "2006-01-02T15:04:05Z".len();
    let digits = |at: usize, text: &str| text[at..].starts_with(|letter: char| letter.is_ascii_digit());
    let mut text = line.to_owned();
    let ends: Vec<usize> = line.match_indices('Z').map(|(at, _)| at + 1).rev().collect();
    for end in ends {
        let Some(start) = end.checked_sub(LENGTH).filter(|start| line.is_char_boundary(*start)) else { continue };
        if line[start..end].matches([':', '-', 'T']).count() == 5 && digits(start, line) {
            text.replace_range(start..end, "TIME");
        }
    }
    text
}

fn masked_word(word: &str) -> String {
    if word.starts_with("kubectl-edit-") {
        return "kubectl-edit-RANDOM".into();
    }
    let parts: Vec<&str> = word.split('-').collect();
    let numbers: Vec<&str> = word.split('.').collect();
    if numbers.len() == 4 && numbers.iter().all(|number| number.parse::<u8>().is_ok()) {
        return "ADDRESS".into();
    }
    if parts.len() == 5 && word.len() == 36 || word.len() == 64 && word.chars().all(|letter| letter.is_ascii_hexdigit())
    {
        return "ID".into();
    }
    if word.parse::<u16>().is_ok_and(|port| (30000..32768).contains(&port)) {
        return "PORT".into();
    }
    // Outside a table `10m` may be CPU as well.
    if is_age(word) && !word.trim_end_matches('m').chars().all(|letter| letter.is_ascii_digit()) {
        return "AGE".into();
    }
    let random = |part: &&str| {
        (part.len() == 5 || (7..=10).contains(&part.len()))
            && part.chars().all(|letter| "bcdfghjklmnpqrstvwxz2456789".contains(letter))
    };
    if parts.iter().skip(1).any(&random) || parts.len() == 1 && word.len() >= 7 && random(&word) {
        let masked: Vec<&str> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| if random(part) && (index > 0 || parts.len() == 1) { "RANDOM" } else { *part })
            .collect();
        return masked.join("-");
    }
    word.to_owned()
}

/// A line of a log: `E1128 19:46:02.804512  26393 websocket.go:296] …`.
fn is_log(line: &str) -> bool {
    let (level, rest) = line.split_at_checked(1).unwrap_or_default();
    let date = rest.get(..4).is_some_and(|date| date.bytes().all(|byte| byte.is_ascii_digit()));
    ["E", "W", "I"].contains(&level) && date && rest[4..].starts_with(' ') && rest.contains("] ")
}

/// Rows in any order: random names have none.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.sort_unstable();
    lines
}

/// The kubectl to compare with.
pub fn real_kubectl() -> Option<PathBuf> {
    let named = std::env::var_os("KAPSTAN_KUBECTL").map(PathBuf::from);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&folders).map(|folder| folder.join("kubectl")).find(|path| path.exists()))
}

#[test]
fn our_verbs_print_what_kubectl_prints() {
    let Some(kubectl) = real_kubectl() else { return skipped("no kubectl; set KAPSTAN_KUBECTL") };
    compare(&Setup::simulated(2).profile(PROFILE).start(), &kubectl);
}

/// Runs every command by both and compares what they print.
pub fn compare(cluster: &Cluster, kubectl: &Path) {
    let theirs = Voice::new(cluster, kubectl, "of-mars", "simulated-0");
    let ours = Voice::new(cluster, Path::new(env!("CARGO_BIN_EXE_kapstan")), "of-moon", "simulated-1");
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/commands.txt");
    let commands = fs::read_to_string(commands).unwrap();
    let commands = commands.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut differences = String::new();
    let mut compared = 0;
    for line in commands {
        *seen.entry(line).or_default() += 1;
        let both = || {
            let (expected, printed) = (theirs.say(cluster, line), ours.say(cluster, line));
            if sorted(&expected) == sorted(&printed) { Ok(()) } else { Err((expected, printed)) }
        };
        // One of the two may have looked a little early.
        let looks = LOOKS.iter().any(|look| line.starts_with(look));
        compared += 1;
        if let Err((expected, printed)) = eventually(if looks { PATIENCE } else { Duration::ZERO }, both) {
            differences += &format!("$ kubectl {line}\n=== kubectl\n{expected}=== kapstan\n{printed}\n");
        }
    }
    assert!(differences.is_empty(), "of {compared} commands these differ:\n{differences}");
    assert!(compared >= 150, "{compared}");
}
