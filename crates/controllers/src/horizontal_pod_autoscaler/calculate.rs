//! From what pods use to how many there should be: numbers only.
//!
//! Mirrors `pkg/controller/podautoscaler/replica_calculator.go` (GetResourceReplicas, calcPlainMetricReplicas) and
//! `metrics/utilization.go`, whole numbers cut off where upstream cuts them off. What differs: pods beyond the replicas
//! asked for (the surge of a rollout) share the work but ask for no replicas of their own; see
//! docs/decisions/0010-autoscaling.md.

/// What one pod uses and asks for, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What it uses.
    pub used: i64,
    /// What its containers request; 0 where only averages are compared.
    pub requested: i64,
}

/// The pods of a target, sorted by what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// At work, and measured.
    pub ready: Vec<Sample>,
    /// Not at work yet: what they request.
    pub unready: Vec<i64>,
    /// At work but not measured: what they request.
    pub missing: Vec<i64>,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Percent of what is requested.
    Utilization(i32),
    /// Thousandths for each pod.
    Average(i64),
}

/// How far off the target is still on it.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Below.
    pub down: f64,
    /// Above.
    pub up: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Replicas there should be.
    pub replicas: i32,
    /// Percent of the requests used, where that is aimed at.
    pub utilization: Option<i32>,
    /// Thousandths that a pod uses on average.
    pub average: i64,
}

/// Replicas that the pods' work asks for, where `current` are asked for now.
pub fn wanted(current: i32, pods: &Pods, target: Target, tolerance: Tolerance) -> Result<Wanted, String> {
    if pods.ready.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let measured = Load::of(&pods.ready, target)?;
    let found = |replicas: i32| Wanted { replicas, utilization: measured.utilization, average: measured.average };
    let ratio = measured.per_replica(current);
    let room = usize::try_from(current).unwrap_or(0).saturating_sub(pods.ready.len());
    let missing = &pods.missing[..pods.missing.len().min(room)];
    let unready = &pods.unready[..pods.unready.len().min(room - missing.len())];
    let held_back = !unready.is_empty() && ratio > 1.0;
    if !held_back && missing.is_empty() {
        return Ok(found(if tolerance.covers(ratio) { current } else { measured.replicas() }));
    }
    let mut assumed = pods.ready.clone();
    if ratio < 1.0 {
        assumed
            .extend(missing.iter().map(|requested| Sample { used: all_of(*requested, target), requested: *requested }));
    } else if ratio > 1.0 {
        assumed.extend(missing.iter().map(|requested| Sample { used: 0, requested: *requested }));
    }
    if held_back {
        assumed.extend(unready.iter().map(|requested| Sample { used: 0, requested: *requested }));
    }
    let load = Load::of(&assumed, target)?;
    let assumed_ratio = load.per_replica(current);
    let turned = (ratio < 1.0 && assumed_ratio > 1.0) || (ratio > 1.0 && assumed_ratio < 1.0);
    if tolerance.covers(assumed_ratio) || turned {
        return Ok(found(current));
    }
    let replicas = load.replicas();
    let crossed = (assumed_ratio < 1.0 && replicas > current) || (assumed_ratio > 1.0 && replicas < current);
    Ok(found(if crossed { current } else { replicas }))
}

/// On the way down a pod that nobody has measured is taken for fully used.
fn all_of(requested: i64, target: Target) -> i64 {
    match target {
        Target::Utilization(percent) => requested * i64::from(percent.max(100)) / 100,
        Target::Average(average) => average,
    }
}

/// What a number of pods use together, compared with the target.
struct Load {
    pods: usize,
    ratio: f64,
    utilization: Option<i32>,
    average: i64,
}

impl Load {
    fn of(samples: &[Sample], target: Target) -> Result<Load, String> {
        let pods = samples.len();
        let used: i64 = samples.iter().map(|sample| sample.used).sum();
        let average = used / i64::try_from(pods).unwrap_or(i64::MAX);
        let (ratio, utilization) = match target {
            Target::Average(target) => (average as f64 / target as f64, None),
            Target::Utilization(target) => {
                let requested: i64 = samples.iter().map(|sample| sample.requested).sum();
                if requested == 0 {
                    return Err("no metrics returned matched known pods".into());
                }
                let percent = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
                (f64::from(percent) / f64::from(target), Some(percent))
            }
        };
        Ok(Load { pods, ratio, utilization, average })
    }

    /// How the target would be met if the replicas asked for did all of the work. More pods than those are the surge of
    /// a rollout: that they share the work is no reason to want fewer or more.
    fn per_replica(&self, current: i32) -> f64 {
        let replicas = f64::from(current.max(1));
        self.ratio * (self.pods as f64 / replicas).max(1.0)
    }

    /// Pods that would do the work of these, each on target.
    fn replicas(&self) -> i32 {
        // Casting from a float stops at the bounds of the number.
        (self.ratio * self.pods as f64).ceil() as i32
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const TOLERANCE: Tolerance = Tolerance { down: 0.1, up: 0.1 };

    /// `3 at 30%: 300/1000 ~500/1000 ?/1000`: replicas, target, pods (`~` unready, `?` not measured).
    fn case(line: &str) -> String {
        let (head, list) = line.split_once(": ").unwrap();
        let (current, target) = head.split_once(" at ").unwrap();
        let target = match target.strip_suffix('%') {
            Some(percent) => Target::Utilization(percent.parse().unwrap()),
            None => Target::Average(target.parse().unwrap()),
        };
        let mut pods = Pods::default();
        for pod in list.split(' ') {
            let (used, requested) = pod.split_once('/').unwrap_or((pod, "0"));
            let requested = requested.parse().unwrap();
            match used.as_bytes()[0] {
                b'?' => pods.missing.push(requested),
                b'~' => pods.unready.push(requested),
                _ => pods.ready.push(Sample { used: used.parse().unwrap(), requested }),
            }
        }
        match wanted(current.parse().unwrap(), &pods, target, TOLERANCE) {
            Ok(Wanted { replicas, utilization: Some(percent), average }) => {
                format!("{replicas} ({percent}%, {average}m)")
            }
            Ok(Wanted { replicas, average, .. }) => format!("{replicas} ({average}m)"),
            Err(error) => error,
        }
    }

    /// The cases of upstream's `replica_calculator_test.go`, by their names there.
    #[test]
    fn upstream_cases() {
        let cases = [
            ("ScaleUp", "3 at 30%: 300/1000 500/1000 700/1000"),
            ("ScaleUpUnreadyLessScale", "3 at 30%: ~300/1000 500/1000 700/1000"),
            ("ScaleUpUnreadyNoScale", "3 at 30%: 400/1000 ~500/1000 ~700/1000"),
            ("ScaleUpIgnoresFailedPods", "2 at 30%: 500/1000 700/1000"),
            ("ScaleUpCM", "3 at 15000: 20000 10000 30000"),
            ("ScaleDown", "5 at 50%: 100/1000 300/1000 500/1000 250/1000 250/1000"),
            ("ScaleDownCM", "5 at 20000: 12000 12000 12000 12000 12000"),
            ("ScaleDownExcludeUnreadyPods", "5 at 50%: 100/1000 300/1000 500/1000 ~250/1000 ~250/1000"),
            ("Tolerance", "3 at 100%: 1010/900 1030/1000 1020/1100"),
            ("ToleranceCM", "3 at 20000: 20000 21000 21000"),
            ("MissingMetrics", "4 at 100%: 400/1000 95/1000 ?/1000 ?/1000"),
            ("EmptyMetrics", "4 at 100%: ?/1000 ?/1000 ?/1000 ?/1000"),
            ("EmptyCPURequest", "1 at 100%: 200/0"),
            ("MissingMetricsNoChangeEq", "2 at 100%: 1000/1000 ?/1000"),
            ("MissingMetricsNoChangeGt", "2 at 100%: 1900/1000 ?/1000"),
            ("MissingMetricsNoChangeLt", "2 at 100%: 600/1000 ?/1000"),
            ("MissingMetricsUnreadyChange", "3 at 50%: ~100/1000 450/1000 ?/1000"),
            ("MissingMetricsUnreadyScaleUp", "3 at 50%: ~100/1000 2000/1000 ?/1000"),
            ("MissingMetricsUnreadyScaleDown", "4 at 50%: ~100/1000 100/1000 100/1000 ?/1000"),
        ];
        let table = cases.map(|(name, line)| format!("{name}: {}\n", case(line))).concat();
        expect![[r#"
            ScaleUp: 5 (50%, 500m)
            ScaleUpUnreadyLessScale: 4 (60%, 600m)
            ScaleUpUnreadyNoScale: 3 (40%, 400m)
            ScaleUpIgnoresFailedPods: 4 (60%, 600m)
            ScaleUpCM: 4 (20000m)
            ScaleDown: 3 (28%, 280m)
            ScaleDownCM: 3 (12000m)
            ScaleDownExcludeUnreadyPods: 2 (30%, 300m)
            Tolerance: 3 (102%, 1020m)
            ToleranceCM: 3 (20666m)
            MissingMetrics: 3 (24%, 247m)
            EmptyMetrics: did not receive metrics for targeted pods (pods might be unready)
            EmptyCPURequest: no metrics returned matched known pods
            MissingMetricsNoChangeEq: 2 (100%, 1000m)
            MissingMetricsNoChangeGt: 2 (190%, 1900m)
            MissingMetricsNoChangeLt: 2 (60%, 600m)
            MissingMetricsUnreadyChange: 3 (45%, 450m)
            MissingMetricsUnreadyScaleUp: 4 (200%, 2000m)
            MissingMetricsUnreadyScaleDown: 3 (10%, 100m)
        "#]]
        .assert_eq(&table);
    }

    /// What upstream gets wrong while a rollout has more pods than replicas.
    #[test]
    fn a_surge_asks_for_nothing() {
        let cases = [
            ("the work of ten, done by thirteen", "10 at 50%: ", "385/1000 ", 13),
            ("a little more than ten do, within the tolerance", "10 at 50%: ", "415/1000 ", 13),
            ("the same without a surge", "10 at 50%: ", "540/1000 ", 10),
        ];
        let mut table = String::new();
        for (name, head, pod, count) in cases {
            let line = format!("{head}{}", pod.repeat(count));
            table += &format!("{name}: {}\n", case(line.trim_end()));
        }
        let idle = format!("10 at 50%: {}~0/1000 ~0/1000 ~0/1000", "250/1000 ".repeat(10));
        let mute = format!("10 at 50%: {}?/1000 ?/1000 ?/1000", "250/1000 ".repeat(10));
        table += &format!("half the work, three start: {}\n", case(&idle));
        table += &format!("half the work, three not measured yet: {}\n", case(&mute));
        expect![[r#"
            the work of ten, done by thirteen: 10 (38%, 385m)
            a little more than ten do, within the tolerance: 10 (41%, 415m)
            the same without a surge: 10 (54%, 540m)
            half the work, three start: 5 (25%, 250m)
            half the work, three not measured yet: 5 (25%, 250m)
        "#]]
        .assert_eq(&table);
    }

    proptest! {
        #[test]
        fn pods_beyond_the_replicas_never_raise_the_number(
            current in 1..50i32, surge in 0..20usize, start in 0..20usize, mute in 0..20usize, each in 1..5_000i64, target in 100..5_000i64,
        ) {
            let pods = |ready: usize, used: i64, unready: usize, missing: usize| Pods {
                ready: vec![Sample { used, requested: 0 }; ready],
                unready: vec![0; unready],
                missing: vec![0; missing],
            };
            let count = current as usize;
            let calm = wanted(current, &pods(count, each, 0, 0), Target::Average(target), TOLERANCE).unwrap();
            let same_work = each * i64::from(current) / (count + surge) as i64;
            let surging = pods(count + surge, same_work, start, mute);
            let rolled = wanted(current, &surging, Target::Average(target), TOLERANCE).unwrap();
            prop_assert!(rolled.replicas <= calm.replicas.max(current), "{rolled:?} {calm:?}");
        }
    }
}
