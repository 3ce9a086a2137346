//! Whether a run may be believed.
//!
//! Owns the verdict and its wording: which resource was short when a generator fell behind. Pure.

use super::{SENT_SHARE_MIN, group, time};

/// What the verdict on a run is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Length of the measured time, seconds.
    pub(crate) measured_s: f64,
    pub(crate) acked: u64,
    pub(crate) unacked: u64,
    pub(crate) connections_lost: u32,
    /// Open loop only.
    pub(crate) open: Option<OpenFacts>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenFacts {
    pub(crate) rate_per_s: f64,
    /// Messages due in the measured time.
    pub(crate) intended: u64,
    /// Of these, sent in time.
    pub(crate) sent_in_time: u64,
    pub(crate) generator_lag_p99_us: u64,
    pub(crate) lag_p99_us_max: u64,
    /// For how long the backlog was full.
    pub(crate) backlog_full_s: f64,
    pub(crate) held_back_s: f64,
    /// For how long generator threads waited for a core.
    pub(crate) waited_for_cpu_s: f64,
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
    /// For how long handshakes waited for their turn, in all.
    pub(crate) limited_s: f64,
    pub(crate) pool_full_s: f64,
}

impl DirectFacts {
    /// What was short, if it was the connections.
    fn cause(&self) -> Option<String> {
        let mut causes = Vec::new();
        // Those that left messages unsent are a reason of their own; they are what was short all the same.
        if self.failed > 0 {
            causes.push(format!("{} handshakes failed", group(self.failed)));
        }
        // What waits for less than a second in all is short of nothing.
        if self.limited_s > 1.0 {
            causes.push(format!(
                "handshakes waited {:.1} s in all for their turn ({} a second)",
                self.limited_s, self.per_s_max
            ));
        }
        if self.pool_full_s > 1.0 {
            causes.push(format!("for {:.1} s there was no place for a connection more", self.pool_full_s));
        }
        (!causes.is_empty()).then(|| causes.join(", "))
    }
}

impl OpenFacts {
    /// What was short when an open loop fell behind.
    fn cause(&self) -> String {
        if let Some(cause) = self.direct.as_ref().and_then(DirectFacts::cause) {
            return cause;
        }
        if self.backlog_full_s > 0.0 {
            format!(
                "the target held sends back for {:.1} s and the backlog was full for {:.1} s",
                self.held_back_s, self.backlog_full_s
            )
        } else if self.held_back_s > 0.0 {
            format!("the target held sends back for {:.1} s", self.held_back_s)
        } else {
            format!(
                "the generator was short of processor time (threads {:.0} % busy, {:.1} s waiting for a core)",
                100.0 * self.busy_share,
                self.waited_for_cpu_s
            )
        }
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
        let mut late = Vec::new();
        if open.generator_lag_p99_us > open.lag_p99_us_max {
            let (lag, limit) = (time(open.generator_lag_p99_us), time(open.lag_p99_us_max));
            late.push(format!("the generator lagged: p99 of its lag is {lag}, limit {limit}"));
        }
        // At the end of the time one lag limit's worth of messages may be under way.
        let slack = open.rate_per_s * open.lag_p99_us_max as f64 / 1e6;
        let short = open.intended.saturating_sub(open.sent_in_time) as f64;
        if short > slack.max((1.0 - SENT_SHARE_MIN) * open.intended as f64) {
            late.push(format!(
                "{} of {} intended messages were sent in time ({:.1} %, at least {:.1} % wanted)",
                group(open.sent_in_time),
                group(open.intended),
                100.0 * open.sent_in_time as f64 / open.intended as f64,
                100.0 * SENT_SHARE_MIN,
            ));
        }
        if !late.is_empty() {
            late.push(open.cause());
            reasons.append(&mut late);
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            measured_s: 10.0,
            acked: 100_000,
            open: Some(OpenFacts {
                rate_per_s: 10_000.0,
                intended: 100_000,
                sent_in_time: 99_900,
                generator_lag_p99_us: 2_000,
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
        let text = reason(|_, open| open.generator_lag_p99_us = 21_000);
        assert_eq!(
            text,
            "the generator lagged: p99 of its lag is 21.0 ms, limit 20.0 ms; the generator was short of processor time (threads 0 % busy, 0.0 s waiting for a core)"
        );
        let text = reason(|_, open| {
            open.generator_lag_p99_us = 21_000;
            open.backlog_full_s = 1.5;
            open.held_back_s = 3.0;
        });
        assert!(
            text.ends_with("the target held sends back for 3.0 s and the backlog was full for 1.5 s"),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_sent_less_than_it_intended_is_invalid() {
        let text = reason(|_, open| open.sent_in_time = 99_400);
        assert!(text.starts_with("99,400 of 100,000 intended messages were sent in time (99.4 %"), "{text}");
        // Half a percent may be missing, not more.
        let mut facts = good();
        facts.open = facts.open.map(|open| OpenFacts { sent_in_time: 99_500, ..open });
        assert_eq!(invalid_reason(&facts), None);
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
