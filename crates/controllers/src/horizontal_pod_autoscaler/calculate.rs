//! From what pods use to how many there should be: numbers only.
//!
//! Mirrors `pkg/controller/podautoscaler/replica_calculator.go` (GetResourceReplicas, calcPlainMetricReplicas,
//! getUsageRatioReplicaCount, GetObjectPerPodMetricReplicas) and `metrics/utilization.go`, whole numbers cut off where
//! upstream cuts them off. What differs: pods beyond the replicas asked for (the surge of a rollout) share the work but ask
//! for no replicas of their own; see docs/decisions/0010-autoscaling.md.

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
        return Ok(found(if tolerance.covers(ratio) { current } else { measured.replicas(current) }));
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
    let replicas = load.replicas(current);
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

    /// How the target would be met if only the replicas asked for were there. More pods than those are the surge of a
    /// rollout. Nobody can tell from numbers whether they share the work (as requests are) or whether each has its own
    /// amount (as memory often is), so more are wanted only if each pod is above the target, and fewer only if the
    /// replicas alone would be below it.
    fn per_replica(&self, current: i32) -> f64 {
        let surge = (self.pods as f64 / f64::from(current.max(1))).max(1.0);
        let (alone, shared) = (self.ratio, self.ratio * surge);
        if alone > 1.0 {
            alone
        } else if shared < 1.0 {
            shared
        } else {
            1.0
        }
    }

    fn replicas(&self, current: i32) -> i32 {
        let asked = usize::try_from(current).unwrap_or(0).max(1);
        let counted = if self.ratio > 1.0 { self.pods.min(asked) } else { self.pods };
        (self.ratio * counted as f64).ceil() as i32
    }
}

/// Replicas for a value that is aimed at as a whole, `ready` of which work now. Upstream counts the ready pods either
/// way; here those of a surge are not counted, and pods that are missing are no reason to want fewer.
pub fn by_ratio(current: i32, ready: usize, used: i64, target: i64, tolerance: Tolerance) -> i32 {
    let ratio = used as f64 / target as f64;
    let asked = f64::from(current);
    if current == 0 {
        ratio.ceil() as i32
    } else if tolerance.covers(ratio) {
        current
    } else if ratio < 1.0 {
        (ratio * asked).ceil() as i32
    } else {
        ((ratio * (ready as f64).min(asked)).ceil() as i32).max(current)
    }
}

/// Replicas for a value that they share, and how much each has of it now.
pub fn by_share(current: i32, used: i64, target: i64, tolerance: Tolerance) -> (i32, i64) {
    let (used, target, asked) = (used as f64, target as f64, f64::from(current));
    let replicas = if tolerance.covers(used / (target * asked)) { current } else { (used / target).ceil() as i32 };
    (replicas, (used / asked.max(1.0)).ceil() as i64)
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
            ("ScaleUpCMUnreadyHotCpuNoLessScale", "3 at 15000: 50000 10000 30000"),
            ("ScaleUpCMUnreadyHotCpuScaleWouldScaleDown", "3 at 15000: 50000 15000 30000"),
            ("PlainMetricMissingMetricsNoChangeEq", "5 at 20000: 20000 19000 21000 ? ?"),
            ("DuringRollingUpdateWithMaxSurgeCM", "2 at 17000: 10000 10000 ?"),
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
            ScaleUpCMUnreadyHotCpuNoLessScale: 6 (30000m)
            ScaleUpCMUnreadyHotCpuScaleWouldScaleDown: 7 (31666m)
            PlainMetricMissingMetricsNoChangeEq: 5 (20000m)
            DuringRollingUpdateWithMaxSurgeCM: 2 (10000m)
        "#]]
        .assert_eq(&table);
    }

    /// `3 (1 ready) 50000/10000` is a value aimed at as a whole, `3 each 20000/5000` one that the replicas share.
    fn value_case(text: &str) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let current: i32 = words[0].parse().unwrap();
        let (used, target) = words.last().unwrap().split_once('/').unwrap();
        let number = |text: &str| text.parse().unwrap_or(i64::MAX);
        let (used, target) = (number(used), number(target));
        if words[1] == "each" {
            let (replicas, average) = by_share(current, used, target, TOLERANCE);
            return format!("{replicas} ({average}m)");
        }
        let ready = words[1].trim_start_matches('(').parse().unwrap();
        by_ratio(current, ready, used, target, TOLERANCE).to_string()
    }

    /// The cases of upstream's `replica_calculator_test.go`, by their names there. One differs on purpose: with a value of
    /// twice the target upstream wants two of three replicas (CMExternalIgnoresUnreadyPods), because one pod is ready.
    #[test]
    fn upstream_cases_of_single_values() {
        let cases = [
            ("ScaleUpOverflow", "3 (3 ready) max/1"),
            ("ExternalPerPodMetricReplicaOverflow", "1 each max/1"),
            ("ExternalPerPodMetricUsageOverflow", "1 each max/max"),
            ("ScaleUpCMObject", "3 (3 ready) 20000/15000"),
            ("ScaleUpCMPerPodObject", "3 each 20000/5000"),
            ("ScaleUpCMObjectIgnoresUnreadyPods", "3 (1 ready) 50000/10000"),
            ("ScaleUpCMExternal", "1 (1 ready) 8600/4400"),
            ("ScaleUpCMExternalIgnoresUnreadyPods", "3 (1 ready) 8600/4400"),
            ("ScaleUpPerPodCMExternal", "3 each 8600/2150"),
            ("ScaleDownPerPodCMObject", "5 each 6000/2000"),
            ("ScaleDownCMObject", "5 (5 ready) 12000/20000"),
            ("ScaleDownCMExternal", "5 (5 ready) 8600/14334"),
            ("ScaleDownPerPodCMExternal", "5 each 8600/2867"),
            ("ToleranceCMObject", "3 (3 ready) 20666/20000"),
            ("TolerancePerPodCMObject", "4 each 20166/5000"),
            ("ToleranceCMExternal", "3 (3 ready) 8600/8888"),
            ("TolerancePerPodCMExternal", "3 each 8600/2900"),
            ("ExternalMetricUsageOverflow", "3 (3 ready) max/max"),
            ("from nothing", "0 (0 ready) 25000/10000"),
            ("nothing stays nothing", "0 (0 ready) 0/10000"),
            ("from nothing, shared", "0 each 25000/10000"),
            ("a rollout has more ready pods than replicas", "10 (13 ready) 12000/10000"),
            ("a rollout has fewer", "10 (7 ready) 8000/10000"),
        ];
        let table = cases.map(|(name, line)| format!("{name}: {}\n", value_case(line))).concat();
        expect![[r#"
            ScaleUpOverflow: 2147483647
            ExternalPerPodMetricReplicaOverflow: 2147483647 (9223372036854775807m)
            ExternalPerPodMetricUsageOverflow: 1 (9223372036854775807m)
            ScaleUpCMObject: 4
            ScaleUpCMPerPodObject: 4 (6667m)
            ScaleUpCMObjectIgnoresUnreadyPods: 5
            ScaleUpCMExternal: 2
            ScaleUpCMExternalIgnoresUnreadyPods: 3
            ScaleUpPerPodCMExternal: 4 (2867m)
            ScaleDownPerPodCMObject: 3 (1200m)
            ScaleDownCMObject: 3
            ScaleDownCMExternal: 3
            ScaleDownPerPodCMExternal: 3 (1720m)
            ToleranceCMObject: 3
            TolerancePerPodCMObject: 4 (5042m)
            ToleranceCMExternal: 3
            TolerancePerPodCMExternal: 3 (2867m)
            ExternalMetricUsageOverflow: 3
            from nothing: 3
            nothing stays nothing: 0
            from nothing, shared: 3 (25000m)
            a rollout has more ready pods than replicas: 12
            a rollout has fewer: 8
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
            // Nor do they if each of them has an amount of its own that no other takes from it.
            let alike = pods(count + surge, each, start, mute);
            let rolled = wanted(current, &alike, Target::Average(target), TOLERANCE).unwrap();
            prop_assert!(rolled.replicas <= calm.replicas.max(current), "{rolled:?} {calm:?}");
        }

        #[test]
        fn a_rollout_never_raises_the_number_for_a_single_value(
            current in 1..50i32, ready in 0..100usize, used in 0..1_000_000i64, target in 1..100_000i64,
        ) {
            let calm = by_ratio(current, current as usize, used, target, TOLERANCE);
            let rolled = by_ratio(current, ready, used, target, TOLERANCE);
            prop_assert!(rolled <= calm.max(current), "{rolled} {calm}");
            prop_assert!(calm.min(current) <= rolled, "{rolled} {calm}");
        }
    }
}
