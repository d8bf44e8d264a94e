//! When a container's probes are due and what their results mean.
//!
//! Pure: the probes themselves are made by [`crate::probe_io`]. Mirrors the kubelet's `pkg/kubelet/prober/worker.go`:
//! thresholds count results in a row, a startup probe holds back the others, and a container that a failed probe
//! condemned is not probed again. One thing is better here: until a readiness probe has succeeded once it is tried
//! with gaps that double from a tenth of a second up to its period, so that a pod is not kept waiting for a whole period
//! because it was asked a moment too early. Another: a container that has no readiness probe but names the TCP ports it
//! serves is ready once it listens on them, and not as soon as its process exists; a service would send it requests that
//! nobody takes yet. Ports that never listen hold it back for a few seconds only.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

/// First gap between readiness probes that have not yet succeeded.
const EAGER_GAP: SignedDuration = SignedDuration::from_millis(100);

/// First and longest gap between looks whether a container listens.
const LOOK_FIRST: SignedDuration = SignedDuration::from_millis(10);
const LOOK_LONGEST: SignedDuration = SignedDuration::from_millis(200);
/// After that time a container that does not listen on its ports is taken for ready all the same: naming a port is
/// information, not a promise.
const LISTENS_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// The three probes of Kubernetes, and one of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Has it come up at all?
    Startup,
    /// Must it be restarted?
    Liveness,
    /// May it get requests?
    Readiness,
    /// Does it listen on the ports it names? Asked only where there is no readiness probe, and only until it does.
    Listening,
}

impl Kind {
    /// As messages begin with it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
            Kind::Listening => "Listening",
        }
    }

    /// The probe of this kind that the container asks for.
    pub fn of(self, spec: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => spec.startup_probe.as_ref(),
            Kind::Liveness => spec.liveness_probe.as_ref(),
            Kind::Readiness => spec.readiness_probe.as_ref(),
            Kind::Listening => None,
        }
    }
}

/// The TCP ports that a container names.
pub fn tcp_ports(spec: &Container) -> Vec<u16> {
    let ports = spec.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|name| name == "TCP"));
    ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect()
}

/// What one probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// `None`: success; otherwise what was seen.
    pub failure: Option<String>,
}

/// What a result changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `started` or `ready` is another now.
    Changed,
    /// The container must be stopped (and restarted as its policy says).
    Kill,
}

/// State of a container instance's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    startup: Option<OneProbe>,
    liveness: Option<OneProbe>,
    readiness: Option<OneProbe>,
    listening: Option<OneProbe>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OneProbe {
    /// The standing result.
    good: bool,
    /// The last results in a row: what they said and how many.
    streak: (bool, i32),
    /// Not before; `None`: after the initial delay.
    next_at: Option<Timestamp>,
    /// Being made.
    under_way: bool,
    /// Has succeeded at least once.
    succeeded: bool,
    /// The gap used last while eager.
    gap: SignedDuration,
    /// No further probes of this instance.
    held: bool,
    /// When the first result came.
    since: Option<Timestamp>,
}

impl OneProbe {
    fn new(good: bool) -> OneProbe {
        OneProbe {
            good,
            streak: (good, 0),
            next_at: None,
            under_way: false,
            succeeded: false,
            gap: SignedDuration::ZERO,
            held: false,
            since: None,
        }
    }
}

impl OneProbe {
    /// Takes in whether the container listens; the first yes is the last question.
    fn looked(&mut self, listens: bool, now: Timestamp) -> Option<Verdict> {
        self.under_way = false;
        let since = *self.since.get_or_insert(now);
        if listens || LISTENS_WITHIN <= now.duration_since(since) {
            (self.good, self.held) = (true, true);
            return Some(Verdict::Changed);
        }
        self.gap = (self.gap * 2).clamp(LOOK_FIRST, LOOK_LONGEST);
        self.next_at = Some(now + self.gap);
        None
    }
}

impl Probes {
    /// The state before the first probe; `None` for a container without probes.
    pub fn of(spec: &Container) -> Option<Box<Probes>> {
        let probes = Probes {
            startup: spec.startup_probe.as_ref().map(|_| OneProbe::new(false)),
            liveness: spec.liveness_probe.as_ref().map(|_| OneProbe::new(true)),
            readiness: spec.readiness_probe.as_ref().map(|_| OneProbe::new(false)),
            listening: (spec.readiness_probe.is_none() && !tcp_ports(spec).is_empty()).then(|| OneProbe::new(false)),
        };
        let all = [&probes.startup, &probes.liveness, &probes.readiness, &probes.listening];
        let any = all.into_iter().any(Option::is_some);
        any.then(|| Box::new(probes))
    }

    /// Simulated: not ready until [`Probes::pass`], whatever probes the container has.
    pub fn withheld() -> Box<Probes> {
        Box::new(Probes { startup: None, liveness: None, readiness: Some(OneProbe::new(false)), listening: None })
    }

    /// The startup probe has passed, or there is none.
    pub fn started(&self) -> bool {
        self.startup.as_ref().is_none_or(|probe| probe.good)
    }

    /// Started, and the readiness probe passes; without one, it listens on the ports it names.
    pub fn ready(&self) -> bool {
        let passes = |probe: &Option<OneProbe>| probe.as_ref().is_none_or(|probe| probe.good);
        self.started() && passes(&self.readiness) && passes(&self.listening)
    }

    /// The probes to make now, and when to ask again.
    pub fn due(&self, spec: &Container, running_since: Timestamp, now: Timestamp) -> (Vec<Kind>, Option<Timestamp>) {
        let mut kinds = Vec::new();
        let mut wake_at = None;
        for &kind in self.active() {
            let Some(state) = self.state(kind).filter(|state| !state.under_way && !state.held) else { continue };
            let delay = kind.of(spec).and_then(|probe| probe.initial_delay_seconds);
            let at = state.next_at.unwrap_or(running_since + seconds(delay, 0));
            if at <= now {
                kinds.push(kind);
            } else {
                wake_at = Some(wake_at.map_or(at, |other: Timestamp| other.min(at)));
            }
        }
        (kinds, wake_at)
    }

    /// The startup probe alone, until it has passed.
    fn active(&self) -> &'static [Kind] {
        if self.started() { &[Kind::Liveness, Kind::Readiness, Kind::Listening] } else { &[Kind::Startup] }
    }

    fn state(&self, kind: Kind) -> Option<&OneProbe> {
        match kind {
            Kind::Startup => self.startup.as_ref(),
            Kind::Liveness => self.liveness.as_ref(),
            Kind::Readiness => self.readiness.as_ref(),
            Kind::Listening => self.listening.as_ref(),
        }
    }

    fn state_mut(&mut self, kind: Kind) -> Option<&mut OneProbe> {
        match kind {
            Kind::Startup => self.startup.as_mut(),
            Kind::Liveness => self.liveness.as_mut(),
            Kind::Readiness => self.readiness.as_mut(),
            Kind::Listening => self.listening.as_mut(),
        }
    }

    /// A probe is being made.
    pub fn begin(&mut self, kind: Kind) {
        if let Some(state) = self.state_mut(kind) {
            state.under_way = true;
        }
    }

    /// Takes in a result.
    pub fn observe(&mut self, spec: &Container, kind: Kind, success: bool, now: Timestamp) -> Option<Verdict> {
        if kind == Kind::Listening {
            return self.listening.as_mut()?.looked(success, now);
        }
        let probe = kind.of(spec)?;
        let period = seconds(probe.period_seconds, 10);
        let state = self.state_mut(kind)?;
        state.under_way = false;
        state.succeeded |= success;
        state.gap = match kind == Kind::Readiness && !state.succeeded {
            true => (state.gap * 2).clamp(EAGER_GAP, EAGER_GAP.max(period)).min(period),
            false => period,
        };
        state.next_at = Some(now + state.gap);
        state.streak = if state.streak.0 == success { (success, state.streak.1 + 1) } else { (success, 1) };
        let threshold = match success {
            true => probe.success_threshold.unwrap_or(1).max(1),
            false => probe.failure_threshold.unwrap_or(3).max(1),
        };
        if state.streak.1 < threshold {
            return None;
        }
        let changed = state.good != success;
        state.good = success;
        if !success && kind != Kind::Readiness {
            state.held = true;
            return Some(Verdict::Kill);
        }
        changed.then_some(Verdict::Changed)
    }

    /// A container that was ready before the agent restarted is taken for ready until a probe says otherwise.
    pub fn trust(&mut self, started: bool, ready: bool) {
        if let Some(startup) = &mut self.startup {
            startup.good = started;
        }
        if let Some(readiness) = &mut self.readiness {
            readiness.good = ready;
            readiness.succeeded = ready;
        }
        if let Some(listening) = &mut self.listening {
            listening.good = ready;
            listening.held = ready;
        }
    }

    /// Simulated containers pass their probes at a given moment.
    pub fn pass(&mut self) {
        self.trust(true, true);
    }
}

fn seconds(given: Option<i32>, default: i64) -> SignedDuration {
    SignedDuration::from_secs(given.map_or(default, i64::from).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write as _;

    /// Plays results against a container, one line each: when the probe was made and what it changed.
    fn check(spec: &str, results: &[bool], expected: Expect) {
        let spec: Container = serde_json::from_str(spec).unwrap();
        let since = Timestamp::UNIX_EPOCH;
        let mut probes = Probes::of(&spec).unwrap();
        let mut now = since;
        let mut told = String::new();
        for result in results {
            let (kinds, wake_at) = probes.due(&spec, since, now);
            let kind = match kinds.first() {
                Some(kind) => *kind,
                None => {
                    let Some(wake_at) = wake_at else { break };
                    now = wake_at;
                    probes.due(&spec, since, now).0[0]
                }
            };
            probes.begin(kind);
            let verdict = probes.observe(&spec, kind, *result, now);
            let at = now.as_millisecond();
            let (started, ready) = (probes.started(), probes.ready());
            writeln!(told, "{at} {kind:?} {result} {verdict:?} started={started} ready={ready}").unwrap();
        }
        expected.assert_eq(&told);
    }

    #[test]
    fn a_container_without_a_readiness_probe_is_ready_once_it_listens() {
        let spec: Container = serde_json::from_str(r#"{"name":"c","ports":[{"containerPort":80}]}"#).unwrap();
        let mut probes = Probes::of(&spec).unwrap();
        let mut now = Timestamp::UNIX_EPOCH;
        assert!(!probes.ready());
        for _ in 0..3 {
            let (kinds, _) = probes.due(&spec, Timestamp::UNIX_EPOCH, now);
            assert_eq!(kinds, [Kind::Listening]);
            assert_eq!(probes.observe(&spec, Kind::Listening, false, now), None);
            now = probes.due(&spec, Timestamp::UNIX_EPOCH, now).1.unwrap();
        }
        assert_eq!(probes.observe(&spec, Kind::Listening, true, now), Some(Verdict::Changed));
        assert!(probes.ready());
        assert_eq!(probes.due(&spec, Timestamp::UNIX_EPOCH, now), (Vec::new(), None), "it is asked no more");
    }

    #[test]
    fn a_port_that_never_listens_holds_it_back_for_a_while_only() {
        let spec: Container = serde_json::from_str(r#"{"name":"c","ports":[{"containerPort":80}]}"#).unwrap();
        let mut probes = Probes::of(&spec).unwrap();
        let mut now = Timestamp::UNIX_EPOCH;
        while !probes.ready() {
            probes.observe(&spec, Kind::Listening, false, now);
            now = probes.due(&spec, Timestamp::UNIX_EPOCH, now).1.unwrap_or(now);
            assert!(now < Timestamp::UNIX_EPOCH + LISTENS_WITHIN * 2);
        }
        assert!(LISTENS_WITHIN <= now.duration_since(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn readiness_is_tried_eagerly_then_by_period() {
        check(
            r#"{"name":"c","readinessProbe":{"tcpSocket":{"port":80},"initialDelaySeconds":1,"periodSeconds":2}}"#,
            &[false, false, false, true, true, false, false, false],
            expect![[r#"
                1000 Readiness false None started=true ready=false
                1100 Readiness false None started=true ready=false
                1300 Readiness false None started=true ready=false
                1700 Readiness true Some(Changed) started=true ready=true
                3700 Readiness true None started=true ready=true
                5700 Readiness false None started=true ready=true
                7700 Readiness false None started=true ready=true
                9700 Readiness false Some(Changed) started=true ready=false
            "#]],
        );
    }

    #[test]
    fn a_startup_probe_holds_the_others_back() {
        check(
            r#"{"name":"c","startupProbe":{"tcpSocket":{"port":80},"periodSeconds":1,"failureThreshold":3},
                "livenessProbe":{"tcpSocket":{"port":80},"periodSeconds":5,"failureThreshold":2}}"#,
            &[false, false, true, true, false, false, true],
            expect![[r#"
                0 Startup false None started=false ready=false
                1000 Startup false None started=false ready=false
                2000 Startup true Some(Changed) started=true ready=true
                2000 Liveness true None started=true ready=true
                7000 Liveness false None started=true ready=true
                12000 Liveness false Some(Kill) started=true ready=true
            "#]],
        );
    }

    #[test]
    fn a_startup_probe_kills_at_its_threshold() {
        check(
            r#"{"name":"c","startupProbe":{"tcpSocket":{"port":80},"periodSeconds":1,"failureThreshold":2}}"#,
            &[false, false, false],
            expect![[r#"
                0 Startup false None started=false ready=false
                1000 Startup false Some(Kill) started=false ready=false
            "#]],
        );
    }
}
