//! What is to be done for a pod, told as stories.

use crate::story::play;
use expect_test::{Expect, expect};

fn check(pod: &str, script: &str, expected: Expect) {
    expected.assert_eq(&play(pod, script));
}

#[test]
fn a_pod_comes_up_and_goes() {
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "go\n delete 30\n gone",
        expect![[r#"
            > go
               0 volumes
               0 sandbox
               0 pull web:v1
                   Normal Pulled: Container image "web:v1" already present on machine
               0 start c 0
                   Normal Created: Created container: c
                   Normal Started: Started container c
                 = Running, Ready True, c running ready
            > delete 30
               0 leave within 30s
               0 stop c0 within 30s
                   Normal Killing: Stopping container c
               0 stop sandbox
               0 finish
                 = Succeeded, Ready False, c Completed 0
            > gone
               0 forget
        "#]],
    );
}

#[test]
fn an_image_that_is_not_there_backs_off() {
    check(
        "spec: {containers: [{name: c, image: web:v9}]}",
        "refuse web:v9 manifest unknown\n wait 45\n accept web:v9\n wait 40",
        expect![[r#"
                > refuse web:v9 manifest unknown
                   0 volumes
                   0 sandbox
                   0 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                     = Pending, Ready False, c ErrImagePull
                > wait 45
                   2 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                     = Pending, Ready False, c ImagePullBackOff
                  10 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                     = Pending, Ready False, c ErrImagePull
                  12 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                     = Pending, Ready False, c ImagePullBackOff
                  30 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                     = Pending, Ready False, c ErrImagePull
                  32 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                     = Pending, Ready False, c ImagePullBackOff
                > accept web:v9
                > wait 40
                  70 pull web:v9
                       Normal Pulled: Container image "web:v9" already present on machine
                  70 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
            "#]],
    );
}

#[test]
fn a_container_that_crashes_is_restarted_ever_later() {
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "go\n exit c 1\n exit c 1\n wait 10\n exit c 0\n wait 20\n wait 700\n exit c 1\n exit c 1\n wait 10",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > exit c 1
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x1 after Error 1 ready
                > exit c 1
                     = Running, Ready False, c Error 1 x1 after Error 1
                > wait 10
                   2 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x1 after Error 1
                  10 start c 2
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x2 after Error 1 ready
                > exit c 0
                     = Running, Ready False, c Completed 0 x2 after Error 1
                > wait 20
                  12 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x2 after Completed 0
                  30 start c 3
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x3 after Completed 0 ready
                > wait 700
                > exit c 1
                 730 start c 4
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x4 after Error 1 ready
                > exit c 1
                     = Running, Ready False, c Error 1 x4 after Error 1
                > wait 10
                 732 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x4 after Error 1
                 740 start c 5
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x5 after Error 1 ready
            "#]],
    );
}

#[test]
fn between_two_lives_a_container_shows_how_the_last_one_ended() {
    check(
        "spec: {containers: [{name: c, image: web:v1, imagePullPolicy: Always}]}",
        "go\n hold pull\n exit c 1",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold pull
                > exit c 1
                   0 pull web:v1
                     = Running, Ready False, c Error 1
            "#]],
    );
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "go\n hold start\n exit c 0",
        expect![[r#"
            > go
               0 volumes
               0 sandbox
               0 pull web:v1
                   Normal Pulled: Container image "web:v1" already present on machine
               0 start c 0
                   Normal Created: Created container: c
                   Normal Started: Started container c
                 = Running, Ready True, c running ready
            > hold start
            > exit c 0
               0 start c 1
                   Normal Pulled: Container image "web:v1" already present on machine
                 = Running, Ready False, c Completed 0
        "#]],
    );
}

#[test]
fn a_new_agent_remembers_how_containers_ended() {
    check(
        "spec: {containers: [{name: c, image: web:v1}, {name: d, image: web:v1}]}",
        "go\n exit c 1\n new agent\n exit c 2\n new agent\n wait 2\n new agent\n wait 20\n exit d 0\n new agent",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running ready, d running ready
                > exit c 1
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x1 after Error 1 ready, d running ready
                > new agent
                   0 volumes
                > exit c 2
                     = Running, Ready False, c Error 2 x1 after Error 1, d running ready
                > new agent
                   0 volumes
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 2
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x2 after Error 2 ready, d running ready
                > wait 2
                > new agent
                   2 volumes
                > wait 20
                > exit d 0
                  22 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                  22 start d 1
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running x2 after Error 2 ready, d running x1 after Completed 0 ready
                > new agent
                  22 volumes
            "#]],
    );
}

#[test]
fn a_sandbox_that_breaks_down_is_made_again_and_all_begins_anew() {
    check(
        "spec: {initContainers: [{name: i, image: web:v1}], containers: [{name: c, image: web:v1}, {name: d, image: web:v1}]}",
        "go\n exit i 0\n break sandbox\n exit c 137\n exit d 137\n wait 1\n exit i 0",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start i 0
                       Normal Created: Created container: i
                       Normal Started: Started container i
                     = Pending, Ready False, i running, c PodInitializing, d PodInitializing
                > exit i 0
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, i Completed 0 ready, c running ready, d running ready
                > break sandbox
                > exit c 137
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal SandboxChanged: Pod sandbox changed, it will be killed and re-created.
                     = Running, Ready False, i PodInitializing, c Error 137, d running ready
                > exit d 137
                     = Running, Ready False, i PodInitializing, c Error 137, d Error 137
                > wait 1
                   1 sandbox
                   1 start i 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: i
                       Normal Started: Started container i
                     = Running, Ready False, i running x1, c Error 137, d Error 137
                > exit i 0
                   1 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   1 start d 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, i Completed 0 x1 ready, c running x1 after Error 137 ready, d running x1 after Error 137 ready
            "#]],
    );
}

#[test]
fn a_changed_image_replaces_the_container_in_place() {
    check(
        "spec: {containers: [{name: c, image: web:v1}, {name: d, image: other:v1}]}",
        "drains\n image c web:v2\n image c web:v3\n image c web:v1",
        expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 pull other:v1
                       Normal Pulled: Container image "other:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running ready, d running ready
                > image c web:v2
                   0 pull web:v2
                       Normal Pulled: Container image "web:v2" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running, d running ready
                   0 stop c0 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                   0 start c 1
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x1 after Completed 0 ready, d running ready
                > image c web:v3
                   0 pull web:v3
                       Normal Pulled: Container image "web:v3" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running x1 after Completed 0, d running ready
                   0 stop c1 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                   0 start c 2
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x2 after Completed 0 ready, d running ready
                > image c web:v1
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running x2 after Completed 0, d running ready
                   0 stop c2 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                   0 start c 3
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x3 after Completed 0 ready, d running ready
            "#]],
    );
}

#[test]
fn a_container_that_is_replaced_is_not_ready_until_the_next_one_is() {
    check(
        "spec: {containers: [{name: c, image: web:v1, readinessProbe: {tcpSocket: {port: 80}}}]}",
        "drains\n probe c readiness ok\n hold withdraw\n hold stop\n image c web:v2\n probe c readiness ok\n out c\n probe c readiness ok\n exit c 0\n probe c readiness ok",
        expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running
                > probe c readiness ok
                     = Running, Ready True, c running ready
                > hold withdraw
                > hold stop
                > image c web:v2
                   0 pull web:v2
                       Normal Pulled: Container image "web:v2" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running
                > probe c readiness ok
                > out c
                   0 stop c0 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                > probe c readiness ok
                > exit c 0
                   0 start c 1
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running x1 after Completed 0
                > probe c readiness ok
                     = Running, Ready True, c running x1 after Completed 0 ready
            "#]],
    );
}

#[test]
fn a_change_that_is_taken_back_in_time_stops_nothing() {
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "drains\n hold withdraw\n image c web:v2\n image c web:v1\n out c",
        expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold withdraw
                > image c web:v2
                   0 pull web:v2
                       Normal Pulled: Container image "web:v2" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running
                > image c web:v1
                     = Running, Ready True, c running ready
                > out c
            "#]],
    );
}

#[test]
fn the_old_container_runs_on_while_the_new_image_cannot_be_had() {
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "drains\n refuse web:v9 manifest unknown\n image c web:v9\n wait 5\n image c web:v1",
        expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > refuse web:v9 manifest unknown
                > image c web:v9
                   0 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                > wait 5
                   2 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                > image c web:v1
            "#]],
    );
}

#[test]
fn nothing_is_stopped_before_it_is_out_of_the_rules() {
    check(
        "spec: {containers: [{name: c, image: web:v1}], terminationGracePeriodSeconds: 60}",
        "drains\n hold withdraw\n delete 60\n wait 3\n out",
        expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold withdraw
                > delete 60
                   0 leave within 60s
                   0 withdraw pod within 10s
                > wait 3
                > out
                   3 stop c0 within 57s
                       Normal Killing: Stopping container c
                   3 stop sandbox
                   3 finish
                     = Succeeded, Ready False, c Completed 0
            "#]],
    );
}

#[test]
fn a_second_deletion_shortens_the_grace() {
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "go\n hold stop\n delete 30\n wait 5\n delete 2\n delete 20",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold stop
                > delete 30
                   0 leave within 30s
                   0 stop c0 within 30s
                       Normal Killing: Stopping container c
                > wait 5
                > delete 2
                   5 leave within 2s
                   5 stop c0 within 2s
                > delete 20
            "#]],
    );
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    check(
        "spec: {initContainers: [{name: a, image: i}, {name: s, image: s, restartPolicy: Always}, {name: b, image: i}], containers: [{name: c, image: web:v1}]}",
        "go\n exit a 1\n exit a 0\n exit b 0\n delete 30",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull i
                       Normal Pulled: Container image "i" already present on machine
                   0 start a 0
                       Normal Created: Created container: a
                       Normal Started: Started container a
                     = Pending, Ready False, a running, s ContainerCreating, b PodInitializing, c PodInitializing
                > exit a 1
                   0 start a 1
                       Normal Pulled: Container image "i" already present on machine
                       Normal Created: Created container: a
                       Normal Started: Started container a
                     = Pending, Ready False, a running x1 after Error 1, s ContainerCreating, b PodInitializing, c PodInitializing
                > exit a 0
                   0 pull s
                       Normal Pulled: Container image "s" already present on machine
                   0 start s 0
                       Normal Created: Created container: s
                       Normal Started: Started container s
                   0 pull i
                       Normal Pulled: Container image "i" already present on machine
                   0 start b 0
                       Normal Created: Created container: b
                       Normal Started: Started container b
                     = Pending, Ready False, a Completed 0 x1 after Error 1 ready, s running ready, b running, c PodInitializing
                > exit b 0
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, a Completed 0 x1 after Error 1 ready, s running ready, b Completed 0 ready, c running ready
                > delete 30
                   0 leave within 30s
                   0 stop c0 within 30s
                       Normal Killing: Stopping container c
                   0 stop s0 within 30s
                       Normal Killing: Stopping container s
                   0 stop sandbox
                   0 finish
                     = Succeeded, Ready False, a Completed 0 x1 after Error 1 ready, s Completed 0, b Completed 0 ready, c Completed 0
            "#]],
    );
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    check(
        "spec: {restartPolicy: Never, initContainers: [{name: a, image: i}], containers: [{name: c, image: web:v1}]}",
        "go\n exit a 3",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull i
                       Normal Pulled: Container image "i" already present on machine
                   0 start a 0
                       Normal Created: Created container: a
                       Normal Started: Started container a
                     = Pending, Ready False, a running, c PodInitializing
                > exit a 3
                   0 leave within 30s
                   0 stop sandbox
                     = Failed, Ready False, a Error 3, c PodInitializing
            "#]],
    );
}

#[test]
fn a_pod_comes_to_its_end_by_itself() {
    check(
        "spec: {restartPolicy: OnFailure, containers: [{name: c, image: job:v1}, {name: d, image: job:v1}]}",
        "go\n exit c 0\n exit d 1\n exit d 0\n delete 30\n gone",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull job:v1
                       Normal Pulled: Container image "job:v1" already present on machine
                   0 pull job:v1
                       Normal Pulled: Container image "job:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running ready, d running ready
                > exit c 0
                     = Running, Ready False, c Completed 0, d running ready
                > exit d 1
                   0 start d 1
                       Normal Pulled: Container image "job:v1" already present on machine
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready False, c Completed 0, d running x1 after Error 1 ready
                > exit d 0
                   0 leave within 30s
                   0 stop sandbox
                     = Succeeded, Ready False, c Completed 0, d Completed 0 x1 after Error 1
                > delete 30
                   0 finish
                > gone
                   0 forget
            "#]],
    );
}

#[test]
fn a_sidecar_does_not_keep_a_job_alive() {
    check(
        "spec: {restartPolicy: Never, initContainers: [{name: s, image: s, restartPolicy: Always}], containers: [{name: c, image: job:v1}]}",
        "go\n exit c 0",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull s
                       Normal Pulled: Container image "s" already present on machine
                   0 start s 0
                       Normal Created: Created container: s
                       Normal Started: Started container s
                   0 pull job:v1
                       Normal Pulled: Container image "job:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, s running ready, c running ready
                > exit c 0
                   0 leave within 30s
                   0 stop s0 within 30s
                       Normal Killing: Stopping container s
                   0 stop sandbox
                     = Succeeded, Ready False, s Completed 0, c Completed 0
            "#]],
    );
}

#[test]
fn a_deadline_ends_a_pod() {
    check(
        "spec: {activeDeadlineSeconds: 60, terminationGracePeriodSeconds: 5, containers: [{name: c, image: web:v1}]}",
        "go\n wait 61",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > wait 61
                  60 fail DeadlineExceeded
                       Warning DeadlineExceeded: Pod was active on the node longer than the specified deadline
                  60 leave within 5s
                  60 stop c0 within 5s
                       Normal Killing: Stopping container c
                  60 stop sandbox
                     = Failed (DeadlineExceeded), Ready False, c Completed 0
            "#]],
    );
}

#[test]
fn probes_condemn_and_restart() {
    check(
        "spec:
  containers:
  - name: c
    image: web:v1
    startupProbe: {tcpSocket: {port: 80}, failureThreshold: 2}
    livenessProbe: {tcpSocket: {port: 80}, failureThreshold: 1, terminationGracePeriodSeconds: 3}
    readinessProbe: {tcpSocket: {port: 80}}
",
        "go\n probe c startup ok\n probe c readiness ok\n probe c liveness connection refused\n probe c startup refused\n probe c startup refused",
        expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running
                > probe c startup ok
                > probe c readiness ok
                     = Running, Ready True, c running ready
                > probe c liveness connection refused
                       Warning Unhealthy: Liveness probe failed: connection refused
                   0 stop c0 within 3s
                       Normal Killing: Container c failed liveness probe, will be restarted
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running x1 after Completed 0
                > probe c startup refused
                       Warning Unhealthy: Startup probe failed: refused
                > probe c startup refused
                       Warning Unhealthy: Startup probe failed: refused
                   0 stop c1 within 30s
                       Normal Killing: Container c failed startup probe, will be restarted
                     = Running, Ready False, c Completed 0 x1 after Completed 0
            "#]],
    );
}

#[test]
fn a_hook_after_the_start_counts() {
    check(
        "spec: {containers: [{name: c, image: web:v1, lifecycle: {postStart: {exec: {command: [x]}}}}]}",
        "hold postStart\n go\n delete 1",
        expect![[r#"
                > hold postStart
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 postStart c
                     = Running, Ready False, c running
                > go
                > delete 1
                   0 leave within 1s
                   0 stop c0 within 1s
                       Normal Killing: Stopping container c
                   0 stop sandbox
                   0 finish
                     = Succeeded, Ready False, c Completed 0
            "#]],
    );
    check(
        "spec: {containers: [{name: c, image: web:v1, lifecycle: {postStart: {exec: {command: [x]}}}}]}",
        "refuse postStart it broke\n hold start",
        expect![[r#"
                > refuse postStart it broke
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 postStart c
                       Warning FailedPostStartHook: it broke
                   0 stop c0 within 30s
                       Normal Killing: FailedPostStartHook: container c will be restarted
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 postStart c
                       Warning FailedPostStartHook: it broke
                   0 stop c1 within 30s
                       Normal Killing: FailedPostStartHook: container c will be restarted
                     = Running, Ready False, c Completed 0 x1 after Completed 0
                > hold start
            "#]],
    );
}

#[test]
fn a_container_that_cannot_start_backs_off() {
    check(
        "spec: {containers: [{name: c, image: web:v1}]}",
        "refuse c no such file\n wait 15\n accept c\n wait 20",
        expect![[r#"
                > refuse c no such file
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Warning Failed: Error: no such file
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Warning Failed: Error: no such file
                     = Running, Ready False, c RunContainerError x1 after StartError 128
                > wait 15
                   2 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x1 after StartError 128
                  10 start c 2
                       Normal Pulled: Container image "web:v1" already present on machine
                       Warning Failed: Error: no such file
                     = Running, Ready False, c RunContainerError x2 after StartError 128
                  12 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x2 after StartError 128
                > accept c
                > wait 20
                  30 start c 3
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x3 after StartError 128 ready
            "#]],
    );
}
