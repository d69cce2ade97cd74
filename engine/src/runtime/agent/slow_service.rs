//! How an agent whose stages share a thread goes about a service that takes long.
//!
//! What has arrived is handled, and what was certified is on its way, before the service is called: peers
//! wait for the one and not for the other. So its inputs are held back until the network was polled
//! once more, and are handled one a turn. Where the service is fast, none of this happens. What waits is
//! bounded as the execution stage's queue is, by the windows of the pillars.
//!
//! Where what leaves waits for the log, the service does so too: else what was certified would leave after
//! the call. It waits for what had been logged when its turn came, and no longer than its last long call took.
//!
//! A handshake takes several polls, with a round trip between them. If each were a call of the service
//! away from the next one, nobody could connect to a replica that is always busy. So while somebody
//! connects, the network has an eighth of the time: after a call, so much of what that took. Whoever connects
//! all the time takes no more than that from the service.

use std::collections::VecDeque;

use hybster_proto::output::{Input, ToExecution};
use hybster_proto::time::Time;

/// How long the service is watched after a turn took long, in microseconds, and counts as slow after it
/// was the reason.
const SLOW_FOR_US: u64 = 1_000_000;
/// How long the first call may wait for the log, in microseconds.
const FIRST_CALL_US: u64 = 50_000;
/// While somebody connects, the network has this part of the time that the service took.
const CONNECTING: u64 = 8;
/// So it does until something is known of it.
const UNKNOWN: Time = Time(u64::MAX);

/// What an agent knows of its service, and inputs that wait for it, by stage.
#[derive(Debug)]
pub(super) struct SlowService {
    watched_until: Time,
    slow_until: Time,
    held: VecDeque<(usize, Input)>,
    /// Whether a turn has ended since the first one began to wait.
    gave_way: bool,
    /// Until when the service waits for somebody who connects, by the host's clock.
    waits_until: Time,
    /// How long the last long call took, in microseconds.
    took_us: u64,
    /// The end of the log that the next call waits for, and until when, by the host's clock.
    awaited: Option<(u64, Time)>,
}

impl SlowService {
    pub(super) fn new() -> Self {
        let held = VecDeque::new();
        Self {
            watched_until: UNKNOWN,
            slow_until: UNKNOWN,
            held,
            gave_way: false,
            waits_until: Time(0),
            took_us: FIRST_CALL_US,
            awaited: None,
        }
    }

    /// Whether the next call waits for the log, which ends at `end` and has released what leaves up to
    /// `released`.
    pub(super) fn awaits_log(&mut self, end: u64, released: u64, host: Time) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let until = host.after_us(self.took_us);
        let (end, until) = *self.awaited.get_or_insert((end, until));
        released < end && host < until
    }

    /// Whether the service is watched, and calls of it go through here.
    #[inline]
    pub(super) fn is_watched(&self, now: Time) -> bool {
        now < self.watched_until || !self.held.is_empty()
    }

    /// Whether an input must wait for the end of a turn.
    pub(super) fn must_wait(&self, now: Time) -> bool {
        now < self.slow_until || !self.held.is_empty()
    }

    pub(super) fn hold(&mut self, stage: usize, input: Input) {
        self.held.push_back((stage, input));
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the service waits for the network now, if somebody connects.
    pub(super) fn may_give_time(&self, host: Time) -> bool {
        host < self.waits_until
    }

    /// The input to handle in this turn, if it is time for one. `is_idle`: nothing else is to be done;
    /// `is_connecting`: somebody connects.
    pub(super) fn next(
        &mut self,
        is_idle: bool,
        is_connecting: bool,
        host: Time,
    ) -> Option<(usize, Input)> {
        if self.held.is_empty() {
            return None;
        }
        if is_connecting && self.may_give_time(host) {
            return None;
        }
        let is_due = is_idle || self.gave_way;
        self.gave_way = !is_due;
        if is_due { self.held.pop_front() } else { None }
    }

    /// A turn took long, maybe for the service.
    pub(super) fn suspect(&mut self, now: Time) {
        if self.watched_until != UNKNOWN {
            self.watched_until = now.after_us(SLOW_FOR_US);
        }
    }

    /// The service was called and took this long, in microseconds, until `host`, and that was long or not.
    pub(super) fn called(&mut self, took_us: u64, is_long: bool, now: Time, host: Time) {
        self.awaited = None;
        if is_long {
            self.took_us = took_us;
            self.slow_until = now.after_us(SLOW_FOR_US);
            self.watched_until = self.slow_until;
            self.waits_until = host.after_us(took_us / CONNECTING);
        } else if self.slow_until == UNKNOWN {
            (self.slow_until, self.watched_until) = (now, now);
        }
    }
}

/// Whether the service is called for an input and may take its time, or the order with such inputs matters.
pub(super) fn takes_service_time(input: &Input) -> bool {
    use ToExecution::{Committed, Halt, Install};
    matches!(input, Input::Execution(Committed { .. } | Install { .. } | Halt))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a call takes, in microseconds.
    const CALL_US: u64 = 800_000;

    fn slow() -> SlowService {
        let mut service = SlowService::new();
        service.called(CALL_US, true, Time(0), Time(0));
        service
    }

    fn input() -> Input {
        Input::Execution(ToExecution::Halt)
    }

    #[test]
    fn a_service_that_is_fast_is_called_at_once() {
        let mut service = SlowService::new();
        assert!(service.is_watched(Time(0)) && service.must_wait(Time(0)), "it is not known yet");
        service.called(5, false, Time(0), Time(5));
        assert!(!service.is_watched(Time(1)) && !service.must_wait(Time(1)));
    }

    #[test]
    fn a_call_waits_for_the_log_as_it_was_and_not_for_a_disk_that_is_slower_than_itself() {
        let mut service = slow();
        assert!(!service.awaits_log(9, 0, Time(5)), "nothing is to be called");
        service.hold(0, input());
        assert!(service.awaits_log(10, 0, Time(5)));
        assert!(service.awaits_log(20, 9, Time(6)), "what was logged before is not released");
        assert!(!service.awaits_log(20, 10, Time(7)), "what was logged since leaves later");
        assert!(!service.awaits_log(20, 9, Time(5 + CALL_US)));
        service.called(CALL_US, true, Time(9), Time(9));
        assert!(service.awaits_log(20, 10, Time(9)), "the next one waits for that");
    }

    /// Numbers from a seed.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % end
        }
    }

    /// Whatever else there is to do and whoever connects: the next input is handled in the second turn
    /// after the network has had its part of the time, in the order in which they came.
    #[test]
    fn every_input_that_is_held_back_is_handled_in_time() {
        for seed in 0..200 {
            let mut numbers = Numbers(seed);
            let (mut service, mut host) = (slow(), Time(0));
            let (mut held, mut handled, mut turns, mut due) = (0, 0, 0, Time(CALL_US / CONNECTING));
            for _ in 0..1000 {
                if numbers.below(3) == 0 {
                    service.hold(held, input());
                    held += 1;
                }
                let (is_idle, is_connecting) = (numbers.below(2) == 0, numbers.below(4) > 0);
                turns += u64::from(service.is_waiting() && host >= due);
                if let Some((number, _)) = service.next(is_idle, is_connecting, host) {
                    assert_eq!(number, handled, "seed {seed}");
                    assert!(host >= due || !is_connecting, "seed {seed}: somebody connects");
                    let took_us = CALL_US + numbers.below(CALL_US);
                    host = host.after_us(took_us);
                    service.called(took_us, true, host, host);
                    (handled, turns, due) = (handled + 1, 0, host.after_us(took_us / CONNECTING));
                }
                assert!(turns < 2, "seed {seed}: {handled} of {held}");
                host = host.after_us(numbers.below(20_000));
            }
            assert!(handled > 50, "seed {seed}: {handled} of {held}");
        }
    }

    #[test]
    fn the_service_does_not_wait_when_nobody_connects() {
        let mut service = slow();
        service.hold(0, input());
        assert!(service.next(true, true, Time(CALL_US / CONNECTING - 1)).is_none());
        assert!(service.may_give_time(Time(CALL_US / CONNECTING - 1)));
        assert!(service.next(true, false, Time(1)).is_some());
    }
}
