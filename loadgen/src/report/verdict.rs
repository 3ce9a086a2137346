//! Whether a run may be believed, and what its reader must know besides.
//!
//! Owns the verdict and its wording: which resource was short when a generator fell behind, and what of a run that may be believed is the
//! generator's own all the same. Pure.

use super::{SENT_SHARE_MIN, group, time};
use crate::hgrm::Summary;

/// Of the messages intended, the share that may wait for a connection for longer than the lag limit.
const WAITED_SHARE_MAX: f64 = 0.01;

/// Generator threads that worked for more than this share of the time bound a closed loop.
const BUSY_SHARE_MAX: f64 = 0.95;

/// What the verdict on a run is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Length of the measured time, seconds.
    pub(crate) measured_s: f64,
    pub(crate) acked: u64,
    pub(crate) unacked: u64,
    pub(crate) connections_lost: u32,
    /// For how long generator threads waited for a core, seconds.
    pub(crate) waited_for_cpu_s: f64,
    /// Open loop only.
    pub(crate) open: Option<OpenFacts>,
    /// Closed loop against a node only: share of their time in which generator threads were at work or wanted a core for it, and did not
    /// wait until the target took more.
    pub(crate) closed_busy_share: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenFacts {
    /// Messages due in the measured time.
    pub(crate) intended: u64,
    /// Of these, sent in time.
    pub(crate) sent_in_time: u64,
    /// Of these, those that may have been planned and not sent yet when the run was stopped before its time; 0 if it was not.
    pub(crate) cut_off: u64,
    pub(crate) generator_lag: Summary,
    pub(crate) lag_p99_us_max: u64,
    /// For how long the backlog was full.
    pub(crate) backlog_full_s: f64,
    pub(crate) held_back_s: f64,
    /// Share of the run in which generator threads were at work.
    pub(crate) busy_share: f64,
    /// Direct topology only.
    pub(crate) direct: Option<DirectFacts>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirectFacts {
    pub(crate) per_s_max: f64,
    pub(crate) failed: u64,
    pub(crate) unsent: u64,
    /// Messages that waited longer than the lag limit for a place or a turn.
    pub(crate) waited: u64,
    /// For how long handshakes waited for their turn, in all.
    pub(crate) limited_s: f64,
    pub(crate) pool_full_s: f64,
}

impl DirectFacts {
    /// What was short, if it was the connections. What waited for less than `least_s` in all was short of nothing.
    fn cause(&self, least_s: f64) -> Option<String> {
        let mut causes = Vec::new();
        // Those that left messages unsent are a reason of their own; they are what was short all the same.
        if self.failed > 0 {
            causes.push(format!("{} handshakes failed", group(self.failed)));
        }
        if self.limited_s > least_s {
            causes.push(format!(
                "handshakes waited {:.1} s in all for their turn ({} a second)",
                self.limited_s, self.per_s_max
            ));
        }
        if self.pool_full_s > least_s {
            causes.push(format!("for {:.1} s there was no place for a connection more", self.pool_full_s));
        }
        (!causes.is_empty()).then(|| causes.join(", "))
    }
}

impl OpenFacts {
    /// What kept messages from being sent in time, if it was not the generator.
    fn held_by(&self) -> Option<String> {
        if let Some(cause) = self.direct.and_then(|direct| direct.cause(1.0)) {
            return Some(cause);
        }
        let held = format!("the target held sends back for {:.1} s", self.held_back_s);
        if self.backlog_full_s > 0.0 {
            return Some(format!("{held} and the backlog was full for {:.1} s", self.backlog_full_s));
        }
        (self.held_back_s > 0.0).then_some(held)
    }

    /// What the generator was short of. Time for which the target held it back is not in its lag, but what fell due meanwhile has to be made
    /// up for.
    fn short_of(&self, waited_for_cpu_s: f64) -> String {
        let mut text = format!(
            "the generator was short of processor time (threads {:.0} % busy, {waited_for_cpu_s:.1} s waiting for a core)",
            100.0 * self.busy_share,
        );
        if self.backlog_full_s > 0.0 {
            text += &format!(
                ", with what fell due in {:.1} s of a full backlog to make up for",
                self.backlog_full_s
            );
        }
        text
    }

    /// Reasons of an open loop, and then what was short.
    fn reasons(&self, waited_for_cpu_s: f64) -> Vec<String> {
        let mut reasons = Vec::new();
        let lagged = self.generator_lag.p99 > self.lag_p99_us_max;
        let limit = time(self.lag_p99_us_max);
        if lagged {
            let lag = time(self.generator_lag.p99);
            reasons.push(format!("the generator lagged: p99 of its lag is {lag}, limit {limit}"));
        }
        let intended = self.intended as f64;
        // What was sent within the lag limit after the end of the time counts as in time already.
        let missing = self.intended.saturating_sub(self.sent_in_time).saturating_sub(self.cut_off);
        let short = missing as f64 > (1.0 - SENT_SHARE_MIN) * intended;
        if short {
            reasons.push(format!(
                "{} of {} intended messages were sent in time ({:.1} %, at least {:.1} % wanted)",
                group(self.sent_in_time),
                group(self.intended),
                100.0 * self.sent_in_time as f64 / intended,
                100.0 * SENT_SHARE_MIN,
            ));
        }
        let waited = self.direct.map_or(0, |direct| direct.waited);
        let waited_long = waited as f64 > WAITED_SHARE_MAX * intended;
        if waited_long {
            reasons.push(format!(
                "{} of {} messages waited longer than {limit} for a connection's place or turn ({:.0} % may)",
                group(waited),
                group(self.intended),
                100.0 * WAITED_SHARE_MAX,
            ));
        }
        if lagged {
            reasons.push(self.short_of(waited_for_cpu_s));
        }
        // Each wait keeps all that come after it waiting too: tenths of a second in all may be many messages.
        let connections = self.direct.filter(|_| waited_long).and_then(|direct| direct.cause(0.0));
        let fallback = || (!lagged).then(|| self.short_of(waited_for_cpu_s));
        let others = || if short { self.held_by().or_else(fallback) } else { None };
        reasons.extend(connections.or_else(others));
        reasons
    }
}

/// Why a run may not be believed, if so.
pub(crate) fn invalid_reason(facts: &Facts) -> Option<String> {
    let mut reasons = Vec::new();
    if facts.measured_s <= 0.0 {
        reasons.push("the run ended before the measured time began".to_owned());
    } else if facts.acked == 0 {
        reasons.push("no message was acked".to_owned());
    }
    if facts.connections_lost > 0 {
        reasons.push(format!("{} connections were lost", facts.connections_lost));
    }
    if facts.unacked > 0 {
        reasons.push(format!(
            "{} messages were sent and never answered: the percentiles do not hold them",
            group(facts.unacked)
        ));
    }
    // Their time is in no percentile either, and a share small enough to pass as sent in time may be all of the slow ones.
    if let Some(direct) = facts.open.and_then(|open| open.direct).filter(|direct| direct.unsent > 0) {
        reasons.push(format!(
            "{} handshakes failed and left {} messages unsent: the percentiles do not hold them",
            group(direct.failed),
            group(direct.unsent)
        ));
    }
    if let Some(open) = facts.open {
        reasons.extend(open.reasons(facts.waited_for_cpu_s));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// What the figures of a run hold that its target did not cause, though the run may be believed.
pub(crate) fn caveats(facts: &Facts) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(open) = facts.open.filter(|open| open.generator_lag.p99 <= open.lag_p99_us_max) {
        let lag = &open.generator_lag;
        let levels = [
            ("p99.9 and above hold", lag.p999),
            ("p99.99 and above hold", lag.p9999),
            ("the maximum holds", lag.max),
        ];
        if let Some((levels, _)) = levels.into_iter().find(|(_, at_us)| *at_us > open.lag_p99_us_max) {
            caveats.push(format!(
                "{levels} up to {} of the generator's own lag (more than {})",
                time(lag.max),
                time(open.lag_p99_us_max)
            ));
        }
    }
    if let Some(busy) = facts.closed_busy_share.filter(|busy| *busy > BUSY_SHARE_MAX) {
        caveats.push(format!(
            "the generator's threads bound this run (busy for {:.0} % of the time, {:.1} s of it without a core): the target may take more",
            100.0 * busy,
            facts.waited_for_cpu_s
        ));
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(p99: u64, p999: u64, p9999: u64, max: u64) -> Summary {
        Summary { count: 100_000, p99, p999, p9999, max, ..Summary::default() }
    }

    fn good() -> Facts {
        Facts {
            measured_s: 10.0,
            acked: 100_000,
            open: Some(OpenFacts {
                intended: 100_000,
                sent_in_time: 99_900,
                generator_lag: lag(2_000, 3_000, 4_000, 5_000),
                lag_p99_us_max: 20_000,
                ..OpenFacts::default()
            }),
            ..Facts::default()
        }
    }

    fn reason(change: impl FnOnce(&mut Facts, &mut OpenFacts)) -> String {
        let mut facts = good();
        let mut open = facts.open.unwrap();
        change(&mut facts, &mut open);
        facts.open = Some(open);
        invalid_reason(&facts).unwrap()
    }

    #[test]
    fn a_run_that_kept_its_pace_and_was_answered_is_valid() {
        assert_eq!(invalid_reason(&good()), None);
        assert_eq!(invalid_reason(&Facts { open: None, ..good() }), None);
    }

    #[test]
    fn a_lagging_generator_makes_a_run_invalid_and_the_reason_names_what_was_short() {
        let text = reason(|_, open| open.generator_lag.p99 = 21_000);
        assert_eq!(
            text,
            "the generator lagged: p99 of its lag is 21.0 ms, limit 20.0 ms; the generator was short of processor time (threads 0 % busy, 0.0 s waiting for a core)"
        );
        let text = reason(|_, open| {
            open.generator_lag.p99 = 21_000;
            open.backlog_full_s = 1.5;
            open.held_back_s = 3.0;
        });
        let expected = "(threads 0 % busy, 0.0 s waiting for a core), with what fell due in 1.5 s of a full backlog to make up for";
        assert!(text.ends_with(expected), "{text}");
    }

    /// What the target held back is in no lag: a generator without a core is not excused by a target that held something back besides.
    #[test]
    fn a_starved_generator_is_not_blamed_on_the_target() {
        let text = reason(|facts, open| {
            open.generator_lag.p99 = 2_900_000;
            open.held_back_s = 0.1;
            facts.waited_for_cpu_s = 2.8;
        });
        assert!(
            text.contains("short of processor time") && text.contains("2.8 s waiting for a core"),
            "{text}"
        );
        assert!(!text.contains("held sends back"), "{text}");
        let text = reason(|facts, open| {
            (open.generator_lag.p99, open.sent_in_time) = (2_900_000, 90_000);
            open.held_back_s = 0.1;
            facts.waited_for_cpu_s = 2.8;
        });
        let (generator, target) =
            (text.find("processor time"), text.find("the target held sends back for 0.1 s"));
        assert!(generator.is_some() && generator < target, "{text}");
        let text = reason(|_, open| (open.sent_in_time, open.held_back_s) = (90_000, 3.0));
        assert!(
            text.ends_with("the target held sends back for 3.0 s") && !text.contains("processor"),
            "{text}"
        );
    }

    #[test]
    fn a_valid_run_says_from_which_level_on_it_holds_the_generators_own_lag() {
        let caveat = |summary| {
            let open = good().open.map(|open| OpenFacts { generator_lag: summary, ..open });
            let facts = Facts { open, ..good() };
            caveats(&facts).pop()
        };
        assert_eq!(caveat(lag(2_000, 3_000, 4_000, 20_000)), None);
        assert_eq!(
            caveat(lag(2_000, 21_000, 900_000, 1_200_000)).as_deref(),
            Some("p99.9 and above hold up to 1.20 s of the generator's own lag (more than 20.0 ms)")
        );
        assert!(
            caveat(lag(2_000, 3_000, 21_000, 30_000))
                .unwrap()
                .starts_with("p99.99 and above hold up to 30.0 ms")
        );
        assert!(
            caveat(lag(2_000, 3_000, 4_000, 21_000)).unwrap().starts_with("the maximum holds up to 21.0 ms")
        );
        assert_eq!(caveat(lag(21_000, 22_000, 23_000, 24_000)), None, "that is a reason of its own");
    }

    #[test]
    fn a_closed_loop_that_its_generator_bounds_says_so_and_stays_valid() {
        let busy =
            |share| Facts { open: None, closed_busy_share: Some(share), waited_for_cpu_s: 1.5, ..good() };
        assert_eq!(
            caveats(&busy(0.99)),
            [
                "the generator's threads bound this run (busy for 99 % of the time, 1.5 s of it without a core): the target may take more"
            ]
        );
        assert_eq!(invalid_reason(&busy(0.99)), None, "it claims no rate");
        assert!(caveats(&busy(0.95)).is_empty() && caveats(&Facts { open: None, ..good() }).is_empty());
    }

    #[test]
    fn a_run_that_sent_less_than_it_intended_is_invalid() {
        let text = reason(|_, open| open.sent_in_time = 99_400);
        assert!(text.starts_with("99,400 of 100,000 intended messages were sent in time (99.4 %"), "{text}");
        // Half a percent may be missing, not more.
        let mut facts = good();
        facts.open = facts.open.map(|open| OpenFacts { sent_in_time: 99_500, ..open });
        assert_eq!(invalid_reason(&facts), None);
        // Nor more because the run was short: the lag limit after its end is in the count of those sent in time.
        let text = reason(|facts, open| {
            facts.measured_s = 1.0;
            (open.intended, open.sent_in_time) = (10_000, 9_850);
        });
        assert!(text.starts_with("9,850 of 10,000 intended messages were sent in time (98.5 %"), "{text}");
        // What a stop cut off was planned and is no shortfall.
        facts.open = facts.open.map(|open| OpenFacts { sent_in_time: 99_400, cut_off: 100, ..open });
        assert_eq!(invalid_reason(&facts), None);
    }

    #[test]
    fn a_direct_run_in_which_messages_waited_for_connections_is_invalid() {
        let direct = |waited, limited_s| {
            let mut facts = good();
            let direct = Some(DirectFacts { waited, limited_s, per_s_max: 200.0, ..DirectFacts::default() });
            facts.open = facts.open.map(|open| OpenFacts { direct, ..open });
            invalid_reason(&facts)
        };
        assert_eq!(direct(1_000, 40.0), None, "one in a hundred may");
        let text = direct(1_001, 40.0).unwrap();
        assert!(
            text.starts_with(
                "1,001 of 100,000 messages waited longer than 20.0 ms for a connection's place or turn"
            ),
            "{text}"
        );
        assert!(text.ends_with("handshakes waited 40.0 s in all for their turn (200 a second)"), "{text}");
        assert!(!direct(1_001, 0.5).unwrap().contains("processor"));
    }

    #[test]
    fn a_direct_run_that_was_short_of_connections_says_so() {
        let direct = |direct| {
            reason(|_, open| {
                open.sent_in_time = 90_000;
                open.direct = Some(direct);
            })
        };
        let text = direct(DirectFacts {
            per_s_max: 200.0,
            limited_s: 77.0,
            pool_full_s: 2.5,
            ..DirectFacts::default()
        });
        let expected = "handshakes waited 77.0 s in all for their turn (200 a second), for 2.5 s there was no place for a connection more";
        assert!(text.ends_with(expected), "{text}");
        let text = direct(DirectFacts { failed: 12, unsent: 30, ..DirectFacts::default() });
        assert!(text.starts_with("12 handshakes failed and left 30 messages unsent"), "{text}");
        assert!(text.ends_with("12 handshakes failed"), "{text}");
        assert!(direct(DirectFacts::default()).contains("short of processor time"));
    }

    #[test]
    fn a_direct_run_whose_messages_waited_names_the_connections_and_not_the_target() {
        let waited = |pool_full_s, sent_in_time| {
            reason(|_, open| {
                (open.held_back_s, open.sent_in_time) = (0.1, sent_in_time);
                let waited = open.intended / 10;
                open.direct = Some(DirectFacts { waited, pool_full_s, ..DirectFacts::default() });
            })
        };
        let text = waited(0.9, 100_000);
        assert!(text.ends_with("for 0.9 s there was no place for a connection more"), "{text}");
        assert!(!waited(0.0, 100_000).contains("the target"), "all were sent in time: nothing was held back");
        assert!(waited(0.0, 90_000).ends_with("the target held sends back for 0.1 s"));
    }

    #[test]
    fn one_message_that_a_failed_handshake_left_unsent_makes_a_direct_run_invalid() {
        let direct = |failed, unsent| {
            let mut facts = good();
            let direct = Some(DirectFacts { failed, unsent, ..DirectFacts::default() });
            facts.open = facts.open.map(|open| OpenFacts { direct, ..open });
            invalid_reason(&facts)
        };
        assert_eq!(
            direct(1, 1).as_deref(),
            Some("1 handshakes failed and left 1 messages unsent: the percentiles do not hold them")
        );
        assert_eq!(direct(0, 0), None);
        assert_eq!(direct(1, 0), None, "nothing was lost with it");
    }

    #[test]
    fn unanswered_messages_lost_connections_and_empty_runs_are_named() {
        assert!(
            reason(|facts, _| facts.unacked = 1_234).contains("1,234 messages were sent and never answered")
        );
        assert!(reason(|facts, _| facts.connections_lost = 1).contains("1 connections were lost"));
        assert!(reason(|facts, _| facts.acked = 0).contains("no message was acked"));
        assert!(reason(|facts, _| facts.measured_s = 0.0).contains("before the measured time began"));
    }
}
