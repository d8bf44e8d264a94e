//! The same as an ordinary user: uid 65534 outside, uid 0 of a user namespace of one user inside, as the demo runs where
//! there is no root. Control groups cannot be written there, device nodes cannot be made, and no other user exists.

use crate::{
    room::Room,
    runner::{Test, run_test},
};
use agent::runtime::RuntimeError;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl, wait::WaitStatus, wait::waitpid},
    unistd::{ForkResult, Gid, Uid, chown, fork, getegid, geteuid, setgroups, setresgid, setresuid},
};
use std::{fs, path::Path};

/// An ordinary user: nobody.
const USER: u32 = 65534;

pub fn all() -> Vec<(&'static str, Test)> {
    vec![("user_namespace", |room| Box::pin(containers_run(room)))]
}

pub fn run_here(name: &str, folder: &Path) -> i32 {
    if geteuid().is_root() {
        become_nobody(folder);
    }
    let (user, group) = (geteuid(), getegid());
    prctl::set_dumpable(true).unwrap();
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER) {
        println!("  skipped: this machine allows no user namespaces ({error})");
        return 0;
    }
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).unwrap();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID).unwrap();
    become_first(name, folder)
}

fn become_nobody(folder: &Path) {
    chown(folder, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(USER), Gid::from_raw(USER), Gid::from_raw(USER)).unwrap();
    setresuid(Uid::from_raw(USER), Uid::from_raw(USER), Uid::from_raw(USER)).unwrap();
}

#[expect(unsafe_code, reason = "fork(2): this process has one thread")]
fn become_first(name: &str, folder: &Path) -> i32 {
    // SAFETY: no thread has been started.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        },
        ForkResult::Child => {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
            let (_, test) = all().into_iter().find(|(known, _)| *known == name).unwrap();
            run_test(test, folder)
        }
    }
}

async fn containers_run(mut room: Room) {
    let (pod, _) = room.start_pod("web").await;
    let line = "id -u; cat /proc/1/comm; echo x > /dev/null && echo null; ls /dev/pts | head -n 1; grep -c eth0 /proc/net/dev; ls /sys/class/net | head -n 1; hostname; echo own > /file; exit 3";
    let mut spec = room.shell(&pod, line);
    spec.security.seccomp_default = true;
    spec.limits.cpu_shares = Some(2);
    let (exit, log) = room.run(&spec).await;
    expect_test::expect![[r#"
        stdout F 0
        stdout F sh
        stdout F null
        stdout F ptmx
        stdout F 1
        stdout F eth0
        stdout F web
    "#]]
    .assert_eq(&log);
    assert_eq!(exit.code, 3);
    refused(&room, &pod).await;
    let seen = room.native.start_container(&room.shell(&pod, "sleep 1000")).await.unwrap();
    let result = room.native.exec(&pod.uid, &seen.id, &["hostname".into()], crate::room::SOON).await.unwrap();
    assert_eq!(result.output, "web\n");
    room.native.stop_sandbox(&pod.uid).await.unwrap();
}

async fn refused(room: &Room, pod: &agent::runtime::SandboxSpec) {
    let mut bounded = room.shell(pod, "true");
    bounded.limits.memory_bytes = Some(64 << 20);
    let error = room.refusal(&bounded).await;
    assert!(
        matches!(&error, RuntimeError::ContainerConfig(why) if why.contains("control groups cannot be written")),
        "{error}"
    );
    let mut other = room.shell(pod, "true");
    other.security.run_as_user = Some(101);
    let error = room.refusal(&other).await;
    assert!(matches!(&error, RuntimeError::ContainerConfig(why) if why.contains("cannot run as")), "{error}");
    let among_all = agent::runtime::SandboxSpec { host_pid: true, ..room.pod("node") };
    room.native.start_sandbox(&among_all).await.unwrap();
    let error = room.refusal(&room.shell(&among_all, "true")).await;
    assert!(matches!(&error, RuntimeError::ContainerConfig(why) if why.contains("hostPID needs")), "{error}");
    room.native.stop_sandbox(&among_all.uid).await.unwrap();
}
