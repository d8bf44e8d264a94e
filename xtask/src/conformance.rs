//! `cargo xtask conformance`: Kubernetes' own end-to-end tests against kapstan.
//!
//! Built once with Go from the modules `k8s.io/*` into `target/upstream`, beside what `cargo xtask upstream` builds there. The images that
//! the tests ask for are made under their names (`images`), from the tests' own programs and Debian's packages; no registry is asked.
//! `docs/conformance.md` says what is expected.

mod images;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::setup::capture;
use crate::upstream;

/// Address of the real node.
const NODE: &str = "192.168.77.1";
/// Set for the process inside the namespaces.
const STAGE: &str = "KAPSTAN_CONFORMANCE_STAGE";
const FOCUS: &str = r"\[sig-apps\].*\[Conformance\]";
/// Tests that need processes: commands that end with some exit code, answers over HTTP, probes that are broken on purpose.
const NEEDS_CONTAINERS: &str = "serve a basic image|Burst scaling|Scaling should happen|should perform rolling updates and roll backs|\
    pod failure policy|Indexed job with completion|backoffLimitPerIndex|FailIndex|tasks sometimes fail|maxFailedIndexes|successPolicy";
/// Images that cannot be pulled, and commands that take their time.
const PROFILE: &str = r#"images:
- {image: "*webserver:404", unpullable: true}
- {image: "*:nonexistent", unpullable: true}
- {image: "*:non-existent", unpullable: true}
- {image: "*/pause:*", runTime: 24h}
- {image: "*/busybox:*", runTime: 300s}
events: true
"#;

const HELP: &str = "cargo xtask conformance [--simulated] [--focus REGEX] [--skip REGEX]

Runs Kubernetes' end-to-end tests against a release build (by default the conformance tests of sig-apps;
--focus '\\[sig-node\\].*\\[Conformance\\]' those of another group).
  --simulated     on two simulated nodes, without the tests that need containers; else on a real node in namespaces of its own (root)
  --focus REGEX   which tests
  --skip REGEX    which of them not";

struct Options {
    simulated: bool,
    focus: String,
    skip: String,
}

/// Builds what is missing and runs the tests.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let Some(options) = options(arguments)? else {
        println!("{HELP}");
        return Ok(());
    };
    let target = crate::target_folder();
    let programs = target.join("upstream");
    if std::env::var_os(STAGE).is_some() {
        network()?;
        return play(&options, &target, &programs);
    }
    build(&programs)?;
    capture(Command::new("cargo").args(["build", "--quiet", "--release", "--package", "kapstan"]))?;
    if options.simulated {
        return play(&options, &target, &programs);
    }
    images::fetch(&target)?;
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    inside.arg(std::env::current_exe().map_err(|error| error.to_string())?).arg("conformance").args(arguments);
    let status = inside.env(STAGE, "1").status().map_err(|error| format!("unshare: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the tests in namespaces of their own failed; real nodes need root".into())
    }
}

/// A network without a way out. The node needs an address that is not loopback's: node ports are asked for there.
fn network() -> Result<(), String> {
    let prefix = format!("{NODE}/24");
    let steps: [&[&str]; 4] = [
        &["link", "set", "lo", "up"],
        &["link", "add", "nodes", "type", "bridge"],
        &["addr", "add", &prefix, "dev", "nodes"],
        &["link", "set", "nodes", "up"],
    ];
    steps.iter().try_for_each(|step| capture(Command::new("ip").args(*step)).map(drop))
}

fn options(arguments: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options { simulated: false, focus: FOCUS.into(), skip: String::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut regex = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a REGEX\n\n{HELP}"));
        match argument.as_str() {
            "--simulated" => options.simulated = true,
            "--focus" => options.focus = regex()?,
            "--skip" => options.skip = regex()?,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other}\n\n{HELP}")),
        }
    }
    Ok(Some(options))
}

fn build(programs: &Path) -> Result<(), String> {
    let missing = |name: &str| !programs.join(name).is_file();
    fs::create_dir_all(programs).map_err(|error| format!("{}: {error}", programs.display()))?;
    if !["e2e.test", "kubectl", "agnhost", "nnp"].into_iter().any(missing) {
        return Ok(());
    }
    let source = upstream::source(programs)?;
    let packages =
        [("kubectl", "./cmd/kubectl"), ("agnhost", "./test/images/agnhost"), ("nnp", "./test/images/nonewprivs")];
    for (name, package) in packages {
        if missing(name) {
            println!("conformance: building {name} with Go");
            upstream::build(&source, &["build"], package, &programs.join(name))?;
        }
    }
    if missing("e2e.test") {
        println!("conformance: building e2e.test with Go, which takes some minutes");
        upstream::build(&source, &["test", "-c", "-vet=off"], "./test/e2e", &programs.join("e2e.test"))?;
    }
    Ok(())
}

/// One server, one run of the tests; everything it leaves is in `target/conformance`.
fn play(options: &Options, target: &Path, programs: &Path) -> Result<(), String> {
    let report = target.join("conformance").join(if options.simulated { "simulated" } else { "real" });
    let _ = fs::remove_dir_all(&report);
    fs::create_dir_all(&report).map_err(|error| format!("{}: {error}", report.display()))?;
    let kapstan = target.join("release/kapstan");
    let server = Server::start(&kapstan, &report, options.simulated)?;
    if !options.simulated {
        images::make(&kapstan, target, programs, &server.data)?;
    }
    let skip = [options.simulated.then_some(NEEDS_CONTAINERS), Some(options.skip.as_str())];
    let skip: Vec<&str> = skip.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    let log = report.join("e2e.log");
    let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    println!("conformance: {}; its log: {}", options.focus, log.display());
    let mut tests = Command::new(programs.join("e2e.test"));
    tests
        .args(["--provider=skeleton", "--kube-api-content-type=application/json", "--minStartupPods=0"])
        .args(["--node-schedulable-timeout=1m", "--system-pods-startup-timeout=1m"])
        .args(["--system-daemonsets-startup-timeout=30s", "--dump-logs-on-failure=false", "--disable-log-dump"])
        .args(["--ginkgo.v", "--ginkgo.no-color", "--ginkgo.timeout=24h", "--ginkgo.seed=1"])
        .arg(format!("--num-nodes={}", if options.simulated { 2 } else { 1 }))
        .arg(format!("--kubeconfig={}", server.data.join("admin.kubeconfig").display()))
        .arg(format!("--kubectl-path={}", programs.join("kubectl").display()))
        .arg(format!("--report-dir={}", report.display()))
        .arg(format!("--ginkgo.focus={}", options.focus));
    if !skip.is_empty() {
        tests.arg(format!("--ginkgo.skip={}", skip.join("|")));
    }
    tests.stderr(output.try_clone().map_err(|error| error.to_string())?).stdout(output);
    let _ = tests.status().map_err(|error| format!("e2e.test: {error}"))?;
    drop(server);
    let junit = report.join("junit_01.xml");
    let text =
        fs::read_to_string(&junit).map_err(|error| format!("{}: {error}; see {}", junit.display(), log.display()))?;
    told(&text, &log)
}

/// The score; an error if a test failed.
fn told(junit: &str, log: &Path) -> Result<(), String> {
    let score = score(junit);
    let named = |wanted: &'static str| score.iter().filter(move |(_, status)| status == wanted);
    for (name, _) in named("failed") {
        println!("failed: {name}");
    }
    let (passed, failed) = (named("passed").count(), named("failed").count());
    println!("conformance: {passed} passed, {failed} failed");
    match (passed, failed) {
        (0, 0) => Err(format!("no test was run; see {}", log.display())),
        (_, 0) => Ok(()),
        _ => Err(format!("{failed} tests failed; see {}", log.display())),
    }
}

/// Names and states of the tests in a report, without those that were left out.
fn score(junit: &str) -> Vec<(String, String)> {
    let cases = junit.split("<testcase ").skip(1);
    let field = |case: &str, name: &str| {
        let (_, rest) = case.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.replace("&gt;", ">").replace("&#39;", "'").replace("&amp;", "&"))
    };
    let read = cases.filter_map(|case| {
        let status = field(case, "status")?;
        let state = if matches!(status.as_str(), "passed" | "skipped" | "pending") { status } else { "failed".into() };
        Some((field(case, "name")?, state))
    });
    // Nodes of the suite itself, such as its reports, have other names.
    read.filter(|(name, state)| name.starts_with("[It]") && !matches!(state.as_str(), "skipped" | "pending")).collect()
}

/// A server of its own, ended when it is dropped.
struct Server {
    child: Child,
    data: PathBuf,
}

impl Server {
    fn start(kapstan: &Path, report: &Path, simulated: bool) -> Result<Server, String> {
        let data = report.join("data");
        let profile = report.join("profile.yaml");
        let log = File::create(report.join("server.log")).map_err(|error| error.to_string())?;
        let mut command = Command::new(kapstan);
        let listen = format!("{}:0", if simulated { "127.0.0.1" } else { NODE });
        command.args(["server", "--listen", &listen, "--data-dir"]).arg(&data).stderr(log).stdout(Stdio::piped());
        if simulated {
            fs::write(&profile, PROFILE).map_err(|error| error.to_string())?;
            command.args(["--no-agent", "--simulated-nodes", "2", "--simulated-profile"]).arg(&profile);
        }
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", kapstan.display()))?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let server = Server { child, data };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        if line.starts_with("ready ") {
            Ok(server)
        } else {
            Err(format!("the server did not start; see {}", report.join("server.log").display()))
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = capture(Command::new("kill").arg(self.child.id().to_string()));
        if let Err(error) = ended.and_then(|_| self.child.wait().map_err(|error| error.to_string())) {
            eprintln!("the server does not end: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_counted() {
        let junit = r#"<testsuite>
            <testcase name="[SynchronizedBeforeSuite]" classname="e2e" status="passed" time="0.1"></testcase>
            <testcase name="[It] [sig-apps] Job should run &gt; once" classname="e2e" status="passed" time="1"></testcase>
            <testcase name="[It] [sig-apps] Job can&#39;t wait" classname="e2e" status="timedout" time="1"><failure></failure></testcase>
            <testcase name="[It] [sig-node] Pods" classname="e2e" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
        </testsuite>"#;
        let told = score(junit).into_iter().map(|(name, state)| format!("{state}: {name}\n")).collect::<String>();
        assert_eq!(told, "passed: [It] [sig-apps] Job should run > once\nfailed: [It] [sig-apps] Job can't wait\n");
    }
}
