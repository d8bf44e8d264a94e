//! The tests.

use crate::{
    room::{IMAGE, Room, SOON, log_of, options, until, until_logged},
    runner::{Test, groups_of, processes_of_pod, shims_of},
};
use agent::runtime::{
    ContainerSpec, Limits, Mount, PullPolicy, RuntimeError, SandboxSpec, Security,
    native::{Native, Options},
};
use expect_test::expect;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration, time::Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// Names and tests, in step.
macro_rules! tests {
    ($($name:ident)*) => {
        pub fn all() -> Vec<(&'static str, Test)> {
            vec![$((stringify!($name), |room| Box::pin($name(room)))),*]
        }
    };
}

tests! {
    logs_and_exit_codes
    a_killed_container_exits_with_137
    memory_limits_kill
    limits_are_in_the_control_group
    the_node_bounds_the_processes_of_a_container
    environment_and_command
    users
    file_systems_are_guarded
    rights_are_taken_away
    volumes
    the_image_says_which_signal_stops
    a_deaf_container_is_killed
    commands_run_inside
    people_run_commands
    people_have_terminals
    people_attach
    ports_are_reached
    missing_programs
    bad_configurations
    terminals_and_input
    parameters_of_the_kernel
    log_files_are_rotated
    pods_talk
    host_network
    processes_and_memory_of_the_node
    processes_among_the_nodes_end_with_their_container
    a_new_agent_takes_over
    a_dead_shim
    a_sandbox_starts_once
    stopping_leaves_nothing
    of_what_has_ended_the_last_stays
    many_at_once
    containers_share_memory
    a_half_made_sandbox_is_made_again
    a_shim_leaves_the_agents_unit
    an_agent_killed_at_any_time_leaves_nothing_lost
}

async fn logs_and_exit_codes(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let (exit, log) = room.run(&room.shell(&pod, "echo out; echo err >&2; printf unfinished; exit 7")).await;
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P unfinished"]);
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, 0, false));
    let age = jiff::Timestamp::now().as_millisecond() - exit.finished_at_ms;
    assert!((0..60_000).contains(&age));
    let (exit, log) = room.run(&room.shell(&pod, "head -c 40000 /dev/zero | tr '\\0' x")).await;
    assert_eq!(exit.code, 0);
    let shapes: Vec<(&str, usize)> = log.lines().map(|l| (&l[..8], l.len() - 9)).collect();
    assert_eq!(shapes, [("stdout P", 16384), ("stdout P", 16384), ("stdout P", 7232)]);
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn a_killed_container_exits_with_137(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let seen = room.native.start_container(&room.shell(&pod, "exec sleep 1000")).await.unwrap();
    let first = processes_of_pod(&pod).into_iter().max().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    let exit = room.exit_of(&seen).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, false));
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn memory_limits_kill(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.limits.memory_bytes = Some(32 << 20);
    let (exit, _) = room.run(&spec).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    spec.limits.memory_bytes = Some(512 << 20);
    let (exit, _) = room.run(&spec).await;
    assert_eq!((exit.code, exit.oom_killed), (0, false));
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn limits_are_in_the_control_group(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "sleep 1000");
    spec.limits = Limits { cpu_shares: Some(512), cpu_milli: Some(250), memory_bytes: Some(64 << 20), pids: Some(20) };
    let seen = room.native.start_container(&spec).await.unwrap();
    let read = |v1: &str, v2: &str| {
        let (controller, file) = v1.split_once('/').unwrap();
        let group = format!("kapstan/{}/{}", pod.uid, seen.id);
        let v1 = format!("/sys/fs/cgroup/{controller}/{group}/{file}");
        fs::read_to_string(v1)
            .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/{group}/{v2}")))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read("pids/pids.max", "pids.max"), "20");
    assert!(["25000", "25000 100000"].contains(&read("cpu/cpu.cfs_quota_us", "cpu.max").as_str()));
    assert!(["512", "20"].contains(&read("cpu/cpu.shares", "cpu.weight").as_str()));
    assert!(!read("memory/cgroup.procs", "cgroup.procs").is_empty());
    let line = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max; grep -E ':(memory)?:' /proc/self/cgroup; \
         echo 1 > /sys/fs/cgroup/pids/pids.max || echo 1 > /sys/fs/cgroup/pids.max";
    let inside = room.native.exec(&pod.uid, &seen.id, &["sh", "-c", line].map(String::from), SOON).await.unwrap();
    let lines: Vec<&str> = inside.output.lines().collect();
    assert_eq!(lines[0], (64 << 20).to_string(), "a container sees its limits: {}", inside.output);
    assert!(lines[1].ends_with(":/"), "and not where it is: {}", inside.output);
    assert!(inside.output.contains("Read-only file system"), "{}", inside.output);
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn the_node_bounds_the_processes_of_a_container(room: Room) {
    let folder = room.folder.clone();
    drop(room);
    let (native, exits) = Native::open(Options { container_pids: Some(3000), ..options(&folder) }).await.unwrap();
    let room = Room { folder, native, exits };
    let (pod, _) = room.start_pod("web").await;
    let seen = room.native.start_container(&room.shell(&pod, "sleep 1000")).await.unwrap();
    let line = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max";
    let inside = room.native.exec(&pod.uid, &seen.id, &["sh", "-c", line].map(String::from), SOON).await.unwrap();
    assert!(inside.output.starts_with("3000"), "{}", inside.output);
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn environment_and_command(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(
        &pod,
        "env | sort; pwd; hostname; cat /etc/hostname; tail -n 1 /etc/hosts | cut -f 2; cat /etc/resolv.conf",
    );
    spec.env = vec![("MINE".into(), "a b=c".into()), ("FROM_IMAGE".into(), "no".into())];
    spec.working_dir = Some("/made/for/it".into());
    let (_, log) = room.run(&spec).await;
    expect![[r#"
        stdout F FROM_IMAGE=no
        stdout F HOME=/root
        stdout F HOSTNAME=web
        stdout F MINE=a b=c
        stdout F PATH=/bin
        stdout F PWD=/made/for/it
        stdout F SHLVL=1
        stdout F /made/for/it
        stdout F web
        stdout F web
        stdout F web
        stdout F nameserver 10.96.0.10
    "#]]
    .assert_eq(&log);
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn users(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "id -u; id -g; id -G; echo $HOME; echo to-stderr > /dev/stderr");
    spec.security.run_as_user = Some(101);
    let (_, log) = room.run(&spec).await;
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort();
    assert_eq!(lines, ["stderr F to-stderr", "stdout F /home/web", "stdout F 101", "stdout F 102", "stdout F 102 7"]);
    spec.security = Security {
        run_as_user: Some(5000),
        run_as_group: Some(6000),
        supplemental_groups: vec![7000],
        ..Security::default()
    };
    let (_, log) = room.run(&spec).await;
    assert!(log.contains("stdout F 5000\nstdout F 6000\nstdout F 6000 7000\n"), "{log}");
    spec.security = Security { run_as_non_root: true, ..Security::default() };
    assert!(matches!(room.refusal(&spec).await, RuntimeError::ContainerConfig(why) if why.contains("runAsNonRoot")));
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn file_systems_are_guarded(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let pods = options(&room.folder).data_dir.join("pods");
    assert_eq!(fs::metadata(pods).unwrap().permissions().mode() & 0o777, 0o700, "not for the machine's other users");
    let tries = "for f in /file /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do (echo x > $f) 2>/dev/null && echo wrote $f; done; \
         wc -c < /proc/interrupts; ls /sys/firmware | wc -l; echo ok > /dev/null; echo ok > /dev/shm/x; head -c 4 /dev/zero | wc -c; \
         ls /proc/self/fd | tr '\\n' ' '; echo; cat /proc/1/comm; mknod /tmp-disk b 1 1 2>/dev/null; dd if=/tmp-disk of=/dev/null count=1 2>&1 | head -n 1";
    let spec = room.shell(&pod, tries);
    let (_, log) = room.run(&spec).await;
    expect![[r#"
        stdout F wrote /file
        stdout F 0
        stdout F 0
        stdout F 4
        stdout F 0 1 2 3 
        stdout F sh
        stdout F dd: can't open '/tmp-disk': Permission denied
    "#]]
    .assert_eq(&log);
    let mut spec = spec;
    spec.args = vec!["(echo x > /file) 2>/dev/null || echo refused; echo x > /dev/shm/x && echo shm".into()];
    spec.security.read_only_root = true;
    let (_, log) = room.run(&spec).await;
    assert_eq!(log, "stdout F refused\nstdout F shm\n");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn rights_are_taken_away(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let line = "grep -E 'CapPrm|CapEff|CapBnd|CapAmb|CapInh|NoNewPrivs|Seccomp:' /proc/self/status; unshare -m true 2>&1 | head -n 1; hostname other 2>&1";
    let mut spec = room.shell(&pod, line);
    spec.security.seccomp_default = true;
    spec.security.allow_privilege_escalation = false;
    let (_, log) = room.run(&spec).await;
    expect![[r#"
        stdout F CapInh:	0000000000000000
        stdout F CapPrm:	00000000a80425fb
        stdout F CapEff:	00000000a80425fb
        stdout F CapBnd:	00000000a80425fb
        stdout F CapAmb:	0000000000000000
        stdout F NoNewPrivs:	1
        stdout F Seccomp:	2
        stdout F unshare: unshare(0x20000): Operation not permitted
        stdout F hostname: sethostname: Operation not permitted
    "#]]
    .assert_eq(&log);
    spec.security = Security {
        run_as_user: Some(101),
        allow_privilege_escalation: true,
        seccomp_default: true,
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Security::default()
    };
    let (_, log) = room.run(&spec).await;
    assert!(log.contains("CapPrm:\t0000000000000000") && log.contains("CapBnd:\t0000000000000400"), "{log}");
    assert!(log.contains("NoNewPrivs:\t0") && log.contains("Seccomp:\t2"), "{log}");
    spec.security = Security { privileged: true, ..Security::default() };
    spec.args = vec!["unshare -m true && test -e /dev/kmsg && echo all rights".into()];
    let (_, log) = room.run(&spec).await;
    assert_eq!(log, "stdout F all rights\n");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn volumes(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let (writable, fixed, file) = (room.folder.join("writable"), room.folder.join("fixed"), room.folder.join("file"));
    for folder in [&writable, &fixed] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(&file, "from the node\n").unwrap();
    fs::write(fixed.join("read"), "me\n").unwrap();
    let line = "echo written > /data/f; cat /data/inner/read; (echo x > /data/inner/x) 2>&1 | cut -d : -f 3; cat /escape/config; ls /etc";
    let mut spec = room.shell(&pod, line);
    let mount =
        |source: &Path, target: &str, read_only| Mount { source: source.to_owned(), target: target.into(), read_only };
    // The inner one is named first; a link in the image leads nowhere but into the image.
    spec.mounts = vec![
        mount(&fixed, "/data/inner", true),
        mount(&writable, "/data", false),
        mount(&file, "/escape/config", true),
    ];
    let (_, log) = room.run(&spec).await;
    expect![[r#"
        stdout F me
        stdout F  Read-only file system
        stdout F from the node
        stdout F config
        stdout F group
        stdout F hostname
        stdout F hosts
        stdout F passwd
        stdout F resolv.conf
    "#]]
    .assert_eq(&log);
    assert_eq!(fs::read_to_string(writable.join("f")).unwrap(), "written\n");
    assert!(!Path::new("/etc/config").exists());
    spec.mounts = vec![mount(&room.folder.join("missing"), "/data", false)];
    assert!(room.refusal(&spec).await.to_string().contains("missing: No such file or directory"));
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn the_image_says_which_signal_stops(room: Room) {
    ignore_quit();
    let (pod, _) = room.start_pod("web").await;
    let line = "trap 'echo quit; exit 3' QUIT; trap 'echo term; exit 4' TERM; trap 'echo user; exit 5' USR1; echo up; while :; do sleep 0.01; done";
    let mut spec = room.shell(&pod, line);
    for (signal, code, word) in [(None, 3, "quit"), (Some("SIGTERM"), 4, "term"), (Some("USR1"), 5, "user")] {
        spec.stop_signal = signal.map(String::from);
        spec.attempt += 1;
        spec.log_path = room.folder.join(format!("{word}.log"));
        let seen = room.native.start_container(&spec).await.unwrap();
        until_logged(&spec, "up").await;
        let exit = room.native.stop_container(&pod.uid, &seen.id, SOON).await.unwrap();
        assert_eq!((exit.code, log_of(&spec)), (code, format!("stdout F up\nstdout F {word}\n")));
        let again = room.native.stop_container(&pod.uid, &seen.id, SOON).await.unwrap();
        assert_eq!(again, exit, "stopping twice is no error");
    }
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn a_deaf_container_is_killed(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let seen = room.native.start_container(&room.shell(&pod, "sleep 1000 & wait")).await.unwrap();
    let start = Instant::now();
    let exit = room.native.stop_container(&pod.uid, &seen.id, Duration::from_millis(300)).await.unwrap();
    assert_eq!((exit.code, exit.signal), (137, 9));
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(5));
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn commands_run_inside(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "sleep 1000");
    spec.security.run_as_user = Some(101);
    spec.env = vec![("COLOUR".into(), "green".into())];
    spec.limits.pids = Some(50);
    let seen = room.native.start_container(&spec).await.unwrap();
    let run = |line: &str, timeout| {
        let argv = ["sh", "-c", line].map(String::from);
        let (native, pod, id) = (room.native.clone(), pod.uid.clone(), seen.id.clone());
        async move { native.exec(&pod, &id, &argv, timeout).await }
    };
    let result = run("echo $COLOUR; id -u; hostname; echo err >&2; cat /proc/1/comm; exit 9", SOON).await.unwrap();
    assert_eq!((result.code, result.output.as_str()), (9, "green\n101\nweb\nerr\nsleep\n"));
    let result = run("head -c 100000 /dev/zero | tr '\\0' x", SOON).await.unwrap();
    assert_eq!((result.code, result.output.len()), (0, 10 << 10));
    let late = run("sleep 1000", Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(late.to_string(), "command timed out after 200ms");
    let missing = room.native.exec(&pod.uid, &seen.id, &["nope".into()], SOON).await.unwrap_err();
    assert!(missing.to_string().contains(r#"exec: "nope": executable file not found in $PATH: unknown"#), "{missing}");
    let all =
        futures::future::join_all((0..20).map(|n| run(Box::leak(format!("echo {n}").into_boxed_str()), SOON))).await;
    let outputs: Vec<String> = all.into_iter().map(|result| result.unwrap().output).collect();
    assert_eq!(outputs, (0..20).map(|n| format!("{n}\n")).collect::<Vec<_>>());
    let start = Instant::now();
    let exit = room.native.stop_container(&pod.uid, &seen.id, Duration::ZERO).await.unwrap();
    assert_eq!(exit.code, 137);
    assert!(start.elapsed() < Duration::from_secs(5), "no command holds the container");
    let gone = room.native.exec(&pod.uid, &seen.id, &["true".into()], SOON).await.unwrap_err();
    assert!(matches!(gone, RuntimeError::NotFound(_)), "{gone}");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

/// What comes until the end; a terminal that hangs up says so with an error.
async fn all_of(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut text)).await.expect("an end in time");
    drop(read);
    String::from_utf8(text).unwrap()
}

/// What comes until `text` has come.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut chunk = [0; 1024];
        let length = tokio::time::timeout(SOON, stream.read(&mut chunk)).await.expect("more in time").unwrap();
        assert!(length > 0, "no {text:?} in {seen:?}");
        seen.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    seen
}

fn shell_words(line: &str) -> Vec<String> {
    ["sh", "-c", line].map(String::from).to_vec()
}

async fn people_run_commands(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "echo up; sleep 1000");
    spec.env = vec![("MINE".into(), "yes".into())];
    spec.working_dir = Some("/work".into());
    spec.security.run_as_user = Some(101);
    let seen = room.native.start_container(&spec).await.unwrap();
    let line = "echo $MINE $(pwd) $(id -u); cat; echo err >&2; exit 3";
    let mut session = room.native.interact(&pod.uid, &seen.id, shell_words(line), false).await.unwrap();
    session.input.take().unwrap().write_all(b"typed").await.unwrap();
    assert_eq!(all_of(&mut session.output).await, "yes /work 101\ntyped");
    assert_eq!(all_of(&mut session.error.unwrap()).await, "err\n");
    assert_eq!(session.ended.unwrap().await.unwrap().unwrap(), 3);

    let mut session = room.native.interact(&pod.uid, &seen.id, vec!["nothere".into()], false).await.unwrap();
    assert_eq!(all_of(&mut session.output).await, "");
    let why = session.ended.unwrap().await.unwrap().unwrap_err().to_string();
    assert!(why.contains("exec: \"nothere\": executable file not found in $PATH"), "{why}");

    // Much of both, at once.
    let session = room.native.interact(&pod.uid, &seen.id, shell_words("cat; cat /dev/null"), false).await.unwrap();
    let (mut input, mut output) = (session.input.unwrap(), session.output);
    let much = vec![b'x'; 3 << 20];
    let (written, read) =
        tokio::join!(async { input.write_all(&much).await.map(|()| drop(input)) }, all_of(&mut output));
    written.unwrap();
    assert_eq!(read.len(), much.len());

    // The end of whom it is for ends a process that waits for input.
    let line = "read line; exit 4";
    let session = room.native.interact(&pod.uid, &seen.id, shell_words(line), false).await.unwrap();
    let ended = session.ended;
    drop((session.input, session.output, session.error));
    assert_eq!(ended.unwrap().await.unwrap().unwrap(), 4);
    room.native.stop_sandbox(&pod.uid).await.unwrap();
    let exit = room.exit_of(&seen).await;
    assert_eq!(exit.code, 137);
}

async fn people_have_terminals(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let seen = room.native.start_container(&room.shell(&pod, "sleep 1000")).await.unwrap();
    let mut session = room.native.interact(&pod.uid, &seen.id, vec!["sh".into()], true).await.unwrap();
    session.terminal.as_ref().unwrap().resize(123, 45).unwrap();
    let mut input = session.input.take().unwrap();
    input.write_all(b"stty size; echo $TERM; tty; exit 5\n").await.unwrap();
    let text = all_of(&mut session.output).await;
    assert!(text.contains("45 123\r\nxterm\r\n/dev/pts/"), "{text}");
    assert_eq!(session.ended.unwrap().await.unwrap().unwrap(), 5);

    // Who leaves hangs up.
    let line = "trap 'echo hung >/tmp/hung; exit 0' HUP; echo ready; while :; do sleep 0.01; done";
    let mut session = room.native.interact(&pod.uid, &seen.id, shell_words(line), true).await.unwrap();
    read_until(&mut session.output, "ready").await;
    let ended = session.ended.take();
    drop(session);
    assert!(ended.unwrap().await.unwrap().is_ok());

    // One that is gone before anybody looks.
    for _ in 0..10 {
        let mut session = room.native.interact(&pod.uid, &seen.id, shell_words("echo short"), true).await.unwrap();
        assert_eq!(all_of(&mut session.output).await, "short\r\n");
    }
    let missing = room.native.interact(&pod.uid, &seen.id, vec!["nothere".into()], true).await;
    let why = match missing {
        Err(error) => error.to_string(),
        Ok(session) => session.ended.unwrap().await.unwrap().unwrap_err().to_string(),
    };
    assert!(why.contains("executable file not found in $PATH"), "{why}");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn people_attach(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "while read line; do echo out $line; echo err $line >&2; done; echo end");
    spec.stdin = true;
    let seen = room.native.start_container(&spec).await.unwrap();
    let mut one = room.native.attach(&pod.uid, &seen.id, false).await.unwrap();
    let mut two = room.native.attach(&pod.uid, &seen.id, false).await.unwrap();
    two.input = None;
    one.input.as_mut().unwrap().write_all(b"1\n").await.unwrap();
    for session in [&mut one, &mut two] {
        read_until(&mut session.output, "out 1\n").await;
        read_until(session.error.as_mut().unwrap(), "err 1\n").await;
    }
    drop(two);
    one.input.as_mut().unwrap().write_all(b"2\n").await.unwrap();
    one.input = None;
    room.native.end_input(&pod.uid, &seen.id).await.unwrap();
    assert_eq!(all_of(&mut one.output).await, "out 2\nend\n");
    assert_eq!(room.exit_of(&seen).await.code, 0);
    assert!(room.native.attach(&pod.uid, &seen.id, false).await.is_err(), "it has ended");
    let mut log: Vec<String> = log_of(&spec).lines().map(String::from).collect();
    log.sort();
    assert_eq!(log, ["stderr F err 1", "stderr F err 2", "stdout F end", "stdout F out 1", "stdout F out 2"]);

    let mut spec = room.shell(&pod, "stty -echo; echo go; read line; stty size; echo got $line");
    (spec.stdin, spec.tty, spec.name) = (true, true, "terminal".into());
    spec.log_path = room.folder.join("terminal.log");
    let seen = room.native.start_container(&spec).await.unwrap();
    until_logged(&spec, "go").await;
    let mut session = room.native.attach(&pod.uid, &seen.id, true).await.unwrap();
    session.terminal.as_ref().unwrap().resize(90, 30).unwrap();
    session.input.as_mut().unwrap().write_all(b"it\n").await.unwrap();
    assert_eq!(all_of(&mut session.output).await, "30 90\r\ngot it\r\n");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn ports_are_reached(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    room.native.start_container(&room.shell(&pod, "nc -ll -p 8080 -e cat")).await.unwrap();
    let connected = async {
        loop {
            match room.native.connect(&pod.uid, 8080).await {
                Ok(connected) => return connected,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    let mut connection = tokio::time::timeout(SOON, connected).await.expect("it listens in time");
    connection.write_all(b"echo").await.unwrap();
    connection.shutdown().await.unwrap();
    assert_eq!(all_of(&mut connection).await, "echo");
    let why = room.native.connect(&pod.uid, 9).await.unwrap_err().to_string();
    assert!(why.starts_with("failed to connect to localhost:9 inside the pod: IPv4: dial 127.0.0.1:9: "), "{why}");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn missing_programs(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut messages = String::new();
    for program in ["nope", "/bin/nope", "/script", "/etc", "/etc/passwd/x"] {
        let mut spec = room.shell(&pod, "");
        spec.command = vec![program.into()];
        spec.args.clear();
        messages += &format!("{}\n", room.refusal(&spec).await);
    }
    expect![[r#"
        unable to start container process: exec: "nope": executable file not found in $PATH: unknown
        unable to start container process: exec: "/bin/nope": stat /bin/nope: no such file or directory: unknown
        unable to start container process: exec: "/script": permission denied: unknown
        unable to start container process: exec: "/etc": is a directory: unknown
        unable to start container process: exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory: unknown
    "#]]
    .assert_eq(&messages);
    assert_eq!(room.seen(&pod.uid).await.unwrap().containers, [], "what never ran is not listed");
    let folder = options(&room.folder).data_dir.join("pods").join(&pod.uid).join("containers");
    assert_eq!(fs::read_dir(folder).map_or(0, Iterator::count), 0, "and leaves nothing on disk");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn bad_configurations(room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut messages = String::new();
    let mut refuse = async |change: &dyn Fn(&mut ContainerSpec)| {
        let mut spec = room.shell(&pod, "true");
        change(&mut spec);
        messages += &format!("{}\n", room.refusal(&spec).await);
    };
    refuse(&|spec| spec.stop_signal = Some("SIGNOPE".into())).await;
    refuse(&|spec| spec.security.add_capabilities = vec!["FLY".into()]).await;
    refuse(&|spec| spec.working_dir = Some("relative".into())).await;
    refuse(&|spec| spec.security.run_as_user = Some(1 << 40)).await;
    refuse(&|spec| spec.pod_uid = "nobody".into()).await;
    expect![[r#"
        unknown stop signal "SIGNOPE"
        unknown capability "FLY"
        the working directory relative is not an absolute path
        runAsUser 1099511627776 is not an id
        pod "nobody" not found
    "#]]
    .assert_eq(&messages);
    let mut spec = room.shell(&pod, "true");
    spec.image = "missing:v1".into();
    room.refusal(&spec).await;
    assert!(matches!(
        room.native.ensure_image("missing:v1", PullPolicy::Never).await,
        Err(RuntimeError::ImageNeverPull(_))
    ));
    assert!(room.native.ensure_image(IMAGE, PullPolicy::IfNotPresent).await.unwrap().id.starts_with("sha256:"));
    let sandbox = SandboxSpec { uid: "../escape".into(), ..pod.clone() };
    assert!(room.native.start_sandbox(&sandbox).await.is_err());
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn parameters_of_the_kernel(mut room: Room) {
    let own = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_unprivileged_port_start", "80")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let look = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start | tr '\\n' ' '";
    for (name, sysctls, expected) in [("tuned", own, "1 80 "), ("plain", vec![], "0 1024 ")] {
        let pod = SandboxSpec { sysctls, ..room.pod(name) };
        room.native.start_sandbox(&pod).await.unwrap();
        let (exit, log) = room.run_named(&pod, name, look).await;
        assert!(exit.code == 0 && log.contains(expected), "{name}: {log}");
        room.native.stop_sandbox(&pod.uid).await.unwrap();
    }
    let sysctls = vec![("net.ipv4.ping_group_range".to_owned(), "no numbers".to_owned())];
    let pod = SandboxSpec { sysctls, ..room.pod("wrong") };
    let refused = room.native.start_sandbox(&pod).await.unwrap_err();
    room.native.stop_sandbox(&pod.uid).await.unwrap();
    assert!(refused.to_string().contains("sysctl net.ipv4.ping_group_range: Invalid argument"), "{refused}");
}

async fn terminals_and_input(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let mut spec =
        room.shell(&pod, "test -t 0 && test -t 1 && test -t 2 && tty; echo $TERM; : > /dev/tty && echo own; exit 4");
    spec.tty = true;
    let (exit, log) = room.run(&spec).await;
    assert_eq!(
        (exit.code, log.replace('\r', "")),
        (4, "stdout F /dev/pts/0\nstdout F xterm\nstdout F own\n".into()),
        "{log}"
    );
    let mut spec = room.shell(&pod, "cat; echo input closed");
    let (_, log) = room.run(&spec).await;
    assert_eq!(log, "stdout F input closed\n");
    spec.stdin = true;
    let seen = room.native.start_container(&spec).await.unwrap();
    let exit = room.native.stop_container(&pod.uid, &seen.id, Duration::from_millis(100)).await.unwrap();
    assert_eq!(exit.code, 137, "it waited for input");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn log_files_are_rotated(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let spec = room
        .shell(&pod, "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 30000000");
    let (exit, _) = room.run(&spec).await;
    assert_eq!(exit.code, 0);
    let files = agent::shim::rotated(&spec.log_path).unwrap();
    assert!((3..5).contains(&files.len()), "{files:?}");
    let lines: usize =
        files.iter().chain([&spec.log_path]).map(|file| fs::read_to_string(file).unwrap().lines().count()).sum();
    assert_eq!(lines, 30_000_000_usize.div_ceil(71), "no line is lost");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn pods_talk(mut room: Room) {
    let (server, sandbox) = room.start_pod("server").await;
    let (client, other) = room.start_pod("client").await;
    assert_ne!(sandbox.ip, other.ip);
    let web = room.shell(&server, "mkdir /www; echo hello > /www/index.html; echo up; exec httpd -f -p 80 -h /www");
    room.native.start_container(&web).await.unwrap();
    until_logged(&web, "up").await;
    let line = format!(
        "until wget -q -O - http://{}/ 2>/dev/null; do sleep 0.01; done; ping -c 1 -W 5 10.244.0.1 | grep -c '1 packets received'; ping -c 1 127.0.0.1 | grep -c received; ip route",
        sandbox.ip
    );
    let (_, log) = room.run(&room.shell(&client, &line)).await;
    let expected = format!(
        "stdout F hello\nstdout F 1\nstdout F 1\nstdout F default via 10.244.0.1 dev eth0  src {}\nstdout F 10.244.0.1 dev eth0 scope link\n",
        other.ip
    );
    assert_eq!(log.replace(" \n", "\n"), expected);
    // The node reaches its pods too.
    std::net::TcpStream::connect((sandbox.ip, 80)).unwrap();
    for pod in [server, client] {
        room.native.stop_sandbox(&pod.uid).await.unwrap();
    }
}

async fn host_network(mut room: Room) {
    let mut spec = room.pod("node");
    spec.host_network = true;
    let sandbox = room.native.start_sandbox(&spec).await.unwrap();
    assert_eq!(sandbox.ip.to_string(), "10.244.0.1");
    let (_, log) = room.run(&room.shell(&spec, "ip link show kapstan0 | grep -c kapstan0")).await;
    assert_eq!(log, "stdout F 1\n");
    room.native.stop_sandbox(&spec.uid).await.unwrap();
}

async fn processes_and_memory_of_the_node(mut room: Room) {
    const NAMES: &str = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc";
    let of_node = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let (own, _) = room.start_pod("own").await;
    let (_, log) = room.run_named(&own, "own", NAMES).await;
    assert!(["pid", "ipc"].iter().all(|kind| !log.contains(&of_node(kind))), "{log}");
    let mut spec = room.pod("node");
    (spec.host_pid, spec.host_ipc) = (true, true);
    room.native.start_sandbox(&spec).await.unwrap();
    let (_, log) = room.run_named(&spec, "node", NAMES).await;
    assert_eq!(log, format!("stdout F {}\nstdout F {}\n", of_node("pid"), of_node("ipc")));
    let shared = tempfile::Builder::new().prefix("kapstan-").tempfile_in("/dev/shm").unwrap();
    let (exit, _) = room.run_named(&spec, "memory", &format!("test -e {}", shared.path().display())).await;
    assert_eq!(exit.code, 0, "the node's memory, not the pod's own");
    for pod in [own, spec] {
        room.native.stop_sandbox(&pod.uid).await.unwrap();
    }
}

async fn processes_among_the_nodes_end_with_their_container(mut room: Room) {
    let mut spec = room.pod("node");
    spec.host_pid = true;
    room.native.start_sandbox(&spec).await.unwrap();
    let (exit, _) = room.run_named(&spec, "ends", "sleep 1000 & exit 3").await;
    assert_eq!(exit.code, 3);
    assert_eq!(processes_of_pod(&spec), Vec::<i32>::new());

    let mut stays = room.shell(&spec, "sleep 1000 & echo up; wait");
    stays.stop_signal = Some("SIGTERM".into());
    let seen = room.native.start_container(&stays).await.unwrap();
    until_logged(&stays, "up").await;
    let told = room.native.exec(&spec.uid, &seen.id, &["true".into()], SOON).await.unwrap();
    assert_eq!(told.code, 0);
    let exit = room.native.stop_container(&spec.uid, &seen.id, SOON).await.unwrap();
    assert_eq!(
        (exit.code, processes_of_pod(&spec)),
        (143, vec![]),
        "by SIGTERM: it is no first process, which may be deaf to it"
    );

    let lost = ContainerSpec { attempt: 1, ..room.shell(&spec, "sleep 1000 & echo again; wait") };
    let seen = room.native.start_container(&lost).await.unwrap();
    until_logged(&lost, "again").await;
    for pid in shims_of(&spec) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    room.exit_of(&seen).await;
    room.native.start_sandbox(&spec).await.unwrap();
    assert_eq!(processes_of_pod(&spec), Vec::<i32>::new());
    room.native.stop_sandbox(&spec.uid).await.unwrap();
}

async fn a_new_agent_takes_over(room: Room) {
    let (pod, sandbox) = room.start_pod("web").await;
    let gate = room.folder.join("gate");
    fs::create_dir(&gate).unwrap();
    let mut stays =
        room.shell(&pod, "echo $$; echo before; until test -e /gate/go; do sleep 0.01; done; echo after; sleep 1000");
    stays.mounts = vec![Mount { source: gate.clone(), target: "/gate".into(), read_only: true }];
    let mut ends = room.shell(&pod, "until test -e /gate/end; do sleep 0.01; done; exit 42");
    ends.mounts = stays.mounts.clone();
    ends.name = "ends".into();
    ends.log_path = room.folder.join("ends.log");
    let stays_seen = room.native.start_container(&stays).await.unwrap();
    let ends_seen = room.native.start_container(&ends).await.unwrap();
    until_logged(&stays, "before").await;
    let folder = room.folder.clone();
    drop(room);
    fs::write(gate.join("end"), "").unwrap();
    let record = options(&folder)
        .data_dir
        .join("pods")
        .join(&pod.uid)
        .join("containers")
        .join(&ends_seen.id)
        .join("container.json");
    until(|| fs::read_to_string(&record).unwrap().contains("\"code\":42")).await;
    let mut room = Room::come_back(&folder).await;
    let seen = room.seen(&pod.uid).await.unwrap();
    assert_eq!(seen.ip, Some(sandbox.ip));
    let codes: Vec<Option<i32>> = seen.containers.iter().map(|c| c.exit.as_ref().map(|exit| exit.code)).collect();
    assert_eq!(codes, [None, Some(42)], "what ended meanwhile is reported");
    assert_eq!(seen.containers[0], stays_seen, "what runs was not touched");
    fs::write(gate.join("go"), "").unwrap();
    until_logged(&stays, "after").await;
    // Its shim obeys the new agent.
    let again = room.native.start_sandbox(&pod).await.unwrap();
    assert_eq!(again.ip, sandbox.ip);
    let (exit, _) = room.run_named(&pod, "later", "exit 5").await;
    assert_eq!(exit.code, 5);
    let (other, fresh) = room.start_pod("other").await;
    assert_ne!(fresh.ip, sandbox.ip, "the address is still taken");
    for pod in [pod, other] {
        room.native.stop_sandbox(&pod.uid).await.unwrap();
    }
}

async fn a_dead_shim(mut room: Room) {
    let (pod, sandbox) = room.start_pod("web").await;
    let spec = room.shell(&pod, "echo up; sleep 1000");
    let seen = room.native.start_container(&spec).await.unwrap();
    until_logged(&spec, "up").await;
    for pid in shims_of(&pod) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let exit = room.exit_of(&seen).await;
    assert_eq!((exit.code, exit.signal), (137, 9));
    until(|| processes_of_pod(&pod).is_empty()).await;
    assert_eq!(room.seen(&pod.uid).await.unwrap().ip, None);
    let again = room.native.start_sandbox(&pod).await.unwrap();
    assert_eq!(again.ip, sandbox.ip, "a pod keeps its address");
    let mut room = room.restart_agent().await;
    let (exit, _) = room.run_named(&pod, "next", "exit 6").await;
    assert_eq!(exit.code, 6);
    assert_eq!(room.seen(&pod.uid).await.unwrap().containers.len(), 1, "the lost one is still on record");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn a_sandbox_starts_once(room: Room) {
    let spec = room.pod("web");
    let all = futures::future::join_all((0..5).map(|_| room.native.start_sandbox(&spec))).await;
    let addresses: std::collections::BTreeSet<_> = all.into_iter().map(|sandbox| sandbox.unwrap().ip).collect();
    assert_eq!(addresses.len(), 1);
    let shims = shims_of(&spec);
    assert_eq!(shims.len(), 1);
    let score = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    let may_be_spared =
        rustix::thread::capabilities(None).unwrap().effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    assert_eq!(score(shims[0]), if may_be_spared { "-998" } else { "0" });
    let flags = nix::sys::statvfs::statvfs(format!("/proc/{}/exe", shims[0]).as_str()).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "a container cannot write the shim's program");
    let container = room.shell(&spec, "sleep 1000");
    let first = room.native.start_container(&container).await.unwrap();
    assert!(processes_of_pod(&spec).into_iter().all(|pid| score(pid) == "0"));
    assert_eq!(room.native.start_container(&container).await.unwrap(), first);
    room.native.stop_sandbox(&spec.uid).await.unwrap();
    room.native.stop_sandbox(&spec.uid).await.unwrap();
}

async fn stopping_leaves_nothing(room: Room) {
    let links = || fs::read_to_string("/proc/net/dev").unwrap().lines().filter(|line| line.contains("veth")).count();
    let mounts =
        || fs::read_to_string("/proc/self/mounts").unwrap().lines().filter(|line| line.contains("kapstan-")).count();
    let mounts_before = mounts();
    let (pod, _) = room.start_pod("web").await;
    let mut spec = room.shell(&pod, "sleep 1000 & sleep 1000");
    for attempt in 0..3 {
        spec.attempt = attempt;
        room.native.start_container(&spec).await.unwrap();
    }
    assert_eq!((links(), mounts() - mounts_before), (1, 4), "three root file systems and /dev/shm");
    assert!(!groups_of(&pod.uid).is_empty() && !processes_of_pod(&pod).is_empty());
    room.native.stop_sandbox(&pod.uid).await.unwrap();
    assert_eq!((links(), mounts()), (0, mounts_before));
    assert_eq!(groups_of(&pod.uid), [] as [std::path::PathBuf; 0]);
    until(|| processes_of_pod(&pod).is_empty()).await;
    assert!(room.seen(&pod.uid).await.is_none());
    let data = options(&room.folder).data_dir;
    for folder in ["pods", "run"] {
        assert_eq!(fs::read_dir(data.join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert!(spec.log_path.exists(), "the log stays");
}

/// As a shell does for what it runs in the background; containers must not inherit it.
#[expect(unsafe_code, reason = "signal(2): a signal is only ignored")]
fn ignore_quit() {
    // SAFETY: no handler of ours is installed.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGQUIT, nix::sys::signal::SigHandler::SigIgn) }
        .unwrap();
}

async fn of_what_has_ended_the_last_stays(mut room: Room) {
    let mounts =
        || fs::read_to_string("/proc/self/mounts").unwrap().lines().filter(|line| line.contains("kapstan-")).count();
    let (pod, _) = room.start_pod("web").await;
    let mounts_before = mounts();
    let mut spec = room.shell(&pod, "exit 3");
    for attempt in 0..4 {
        spec.attempt = attempt;
        let seen = room.native.start_container(&spec).await.unwrap();
        assert_eq!(room.exit_of(&seen).await.code, 3);
    }
    let kept: Vec<u32> = room.seen(&pod.uid).await.unwrap().containers.iter().map(|one| one.attempt).collect();
    assert_eq!((kept, mounts() - mounts_before), (vec![2, 3], 2));
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn many_at_once(room: Room) {
    let pods: Vec<SandboxSpec> = (0..12).map(|n| room.pod(&format!("web-{n}"))).collect();
    let start = async |pod: &SandboxSpec| {
        room.native.start_sandbox(pod).await.unwrap();
        let spec = room.shell(pod, "trap 'exit 0' QUIT; echo up; while :; do sleep 0.05; done");
        let seen = room.native.start_container(&spec).await.unwrap();
        until_logged(&spec, "up").await;
        seen
    };
    let containers = futures::future::join_all(pods.iter().map(start)).await;
    assert_eq!(room.native.list().await.unwrap().iter().filter(|pod| pod.containers[0].exit.is_none()).count(), 12);
    let stop = async |(pod, seen): (&SandboxSpec, &agent::runtime::ContainerSeen)| {
        let exit = room.native.stop_container(&pod.uid, &seen.id, SOON).await.unwrap();
        room.native.stop_sandbox(&pod.uid).await.unwrap();
        exit.code
    };
    let codes = futures::future::join_all(pods.iter().zip(&containers).map(stop)).await;
    assert_eq!(codes, [0; 12]);
}

async fn containers_share_memory(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let (other, _) = room.start_pod("other").await;
    room.run_named(&pod, "writer", "echo shared > /dev/shm/x").await;
    let (_, log) = room.run_named(&pod, "reader", "cat /dev/shm/x; df /dev/shm | tail -n 1 | grep -c 65536").await;
    assert_eq!(log, "stdout F shared\nstdout F 1\n");
    let (_, log) = room.run_named(&other, "stranger", "ls /dev/shm").await;
    assert_eq!(log, "");
    for pod in [pod, other] {
        room.native.stop_sandbox(&pod.uid).await.unwrap();
    }
}

async fn a_half_made_sandbox_is_made_again(room: Room) {
    let (pod, sandbox) = room.start_pod("web").await;
    let shim = shims_of(&pod);
    let record = options(&room.folder).data_dir.join("pods").join(&pod.uid).join("sandbox.json");
    let text = fs::read_to_string(&record).unwrap();
    let folder = room.folder.clone();
    drop(room);
    fs::write(&record, text.replace("\"complete\":true", "\"complete\":false")).unwrap();
    let mut room = Room::come_back(&folder).await;
    assert_eq!(room.seen(&pod.uid).await.unwrap().ip, None);
    assert_eq!(room.native.start_sandbox(&pod).await.unwrap().ip, sandbox.ip);
    assert_ne!(shims_of(&pod), shim);
    let (exit, _) = room.run_named(&pod, "main", "ping -c 1 10.244.0.1").await;
    assert_eq!(exit.code, 0);
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

/// As under systemd, where the agent is a unit that is killed as a whole.
async fn a_shim_leaves_the_agents_unit(room: Room) {
    let root = Path::new("/sys/fs/cgroup/systemd");
    if !root.join("cgroup.procs").exists() {
        println!("  skipped: no systemd hierarchy of cgroup v1 here");
        return;
    }
    let unit = root.join(format!("kapstan-test-{}.service", std::process::id()));
    fs::create_dir(&unit).unwrap();
    let me = std::process::id().to_string();
    fs::write(unit.join("cgroup.procs"), &me).unwrap();
    let (pod, _) = room.start_pod("web").await;
    fs::write(root.join("cgroup.procs"), &me).unwrap();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", shims_of(&pod)[0])).unwrap();
    let left = fs::read_to_string(unit.join("cgroup.procs")).unwrap();
    fs::remove_dir(&unit).unwrap();
    assert!(groups.contains(&format!("name=systemd:/kapstan/{}/shim\n", pod.uid)), "{groups}");
    assert_eq!(left, "");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

/// An agent that is killed in the middle of whatever it does: the next one finds every pod and can end it.
async fn an_agent_killed_at_any_time_leaves_nothing_lost(room: Room) {
    let folder = room.folder.clone();
    drop(room);
    let mounts = || -> Vec<String> {
        let all = fs::read_to_string("/proc/self/mounts").unwrap();
        all.lines().filter(|line| line.contains("kapstan-")).map(String::from).collect()
    };
    for round in 0..20 {
        let mut agent = std::process::Command::new("/proc/self/exe").arg("--churn").arg(&folder).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(60 + 17 * round)).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        let mut room = Room::come_back(&folder).await;
        let pods = room.native.list().await.unwrap();
        if std::env::var_os("VERBOSE").is_some() {
            println!("{round}: {pods:?} {:?}", mounts());
        }
        for seen in &pods {
            let spec = SandboxSpec {
                uid: seen.uid.clone(),
                name: seen.name.clone(),
                hostname: "again".into(),
                ..room.pod("again")
            };
            room.native.start_sandbox(&spec).await.unwrap();
            let (exit, _) = room.run_named(&spec, &format!("works-{round}"), "ping -c 1 10.244.0.1").await;
            assert_eq!(exit.code, 0, "a pod that was found works");
            room.native.stop_sandbox(&seen.uid).await.unwrap();
        }
        assert_eq!(mounts(), [""; 0], "round {round}");
        let data = options(&folder).data_dir;
        assert_eq!(fs::read_dir(data.join("pods")).unwrap().count(), 0, "round {round}");
        assert_eq!(fs::read_dir(data.join("run")).unwrap().count(), 0, "round {round}");
    }
}

/// What that agent does, until it is killed.
pub fn churn(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let room = Room::come_back(folder).await;
        loop {
            let (pod, _) = room.start_pod("churn").await;
            let spec = room.shell(&pod, "sleep 1000");
            let seen = room.native.start_container(&spec).await.unwrap();
            room.native.exec(&pod.uid, &seen.id, &["true".into()], SOON).await.unwrap();
            room.native.stop_container(&pod.uid, &seen.id, Duration::ZERO).await.unwrap();
            room.native.remove_container(&pod.uid, &seen.id).await.unwrap();
            room.native.start_container(&spec).await.unwrap();
            room.native.stop_sandbox(&pod.uid).await.unwrap();
        }
    });
}

/// Fails while containers run.
pub async fn panics(room: Room) {
    for name in ["one", "two"] {
        let (pod, _) = room.start_pod(name).await;
        room.native.start_container(&room.shell(&pod, "sleep 1000 & sleep 1000")).await.unwrap();
    }
    std::panic::set_hook(Box::new(|_| {}));
    panic!("on purpose");
}
