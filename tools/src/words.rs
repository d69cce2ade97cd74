//! What replicas tell, in words for people: reasons of dropped messages and refused links, and text that
//! is safe to print.

use hybster_net::Reason;
use hybster_proto::output::Reject;

/// Of a reason that a newer replica tells.
pub(crate) const UNKNOWN: &str = "a reason that this program does not know";

/// Text that somebody else wrote, without what would speak to the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A reason of `rejections[].reason`; one that this program does not know is none.
pub(crate) fn reject(name: &str) -> Option<Reject> {
    Reject::ALL.iter().copied().find(|reason| format!("{reason:?}") == name)
}

/// A reason of `refusals[].reason`; one that this program does not know is none.
pub(crate) fn refusal(name: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.name() == name)
}

/// What was the matter with the messages.
pub(crate) const fn of_reject(reason: Reject) -> &'static str {
    match reason {
        Reject::Malformed => "no message of its kind: another version, or a faulty sender",
        Reject::WrongSender => "the sender may not send such: a faulty sender",
        Reject::WrongView => "of another view than the present: usual around a view change",
        Reject::OutOfWindow => "too old or too far ahead: usual when a replica catches up",
        Reject::BadCertificate => "its certificate is not valid: a faulty sender, or another key",
        Reject::BadRequest => "a request is not authentic: a faulty client or replica",
        Reject::BadBatch => "a batch is not the one that was announced: a faulty sender",
        Reject::BadPreparedSet => "a view change that leaves something out: a faulty sender",
        Reject::BadChain => "a view change with steps missing: a faulty sender",
        Reject::BadQuorum => "too few replicas vouch for it: a faulty sender",
        Reject::BadTransition => "a new view that does not continue the old: a faulty leader",
        Reject::Untimely => "the time of a batch is far from this clock: compare clocks",
        Reject::Irrelevant => "known already, or come too late: usual, others are faster",
        Reject::Overload => "more than there is room for: a flood, or a slow replica",
        _ => UNKNOWN,
    }
}

/// What was the matter with a link.
pub(crate) const fn of_refusal(reason: Reason) -> &'static str {
    match reason {
        Reason::Garbage => "no link of this protocol: a scanner, or a wrong port",
        Reason::TooLong => "a frame longer than its limit: a faulty program",
        Reason::BadMac => "a frame was forged or damaged on its way",
        Reason::HandshakeFailed => "the handshake failed: a client that ended, or another program",
        Reason::UnknownKey => "a key that is not in group.toml: another group's, or an older file",
        Reason::ConfigurationMismatch => "another group.toml: give every machine the same",
        Reason::Version => "another version of the link protocol: upgrade all",
        Reason::Timeout => "the handshake did not end in time: a slow wire, or a scanner",
        Reason::Capacity => "more connections than are allowed",
        Reason::CipherMismatch => "another link_cipher in group.toml: give every machine the same",
        Reason::Direction => {
            "connected in the wrong direction: addresses in group.toml are confused"
        }
        Reason::Malformed => "a frame without well-formed messages: a faulty program",
        Reason::SlowReader => "a client did not read its replies for 10 s",
        Reason::CounterExhausted => {
            "the link was used up, and is made again: usual after very long"
        }
        Reason::RefusedByPeer => "the other side refused this one: its log says why",
        Reason::BadRequest => "a client sent what is malformed, not its own, or not proved",
        Reason::ServiceMismatch => "another service, or a version that is not compatible",
        Reason::Unresolved => "the name of a host could not be looked up: ask the name service",
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use hybster_proto::wire::kind;
    use hybster_sim::display::kind_name;

    use super::*;
    use crate::document;

    #[test]
    fn the_operations_guide_explains_every_reason() {
        let rejects = Reject::ALL.iter().map(|reason| {
            let alarm = if reason.is_fault() { "yes" } else { "" };
            format!("| `{reason:?}` | {} | {alarm} |\n", of_reject(*reason))
        });
        document::has_part("OPERATIONS.md", "rejections", &rejects.collect::<String>());
        let refusals = Reason::ALL
            .iter()
            .map(|reason| format!("| `{}` | {} |\n", reason.name(), of_refusal(*reason)));
        document::has_part("OPERATIONS.md", "refusals", &refusals.collect::<String>());
    }

    #[test]
    fn what_others_wrote_does_not_speak_to_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc \u{e4}"), "a\u{fffd}[2Jb\u{fffd}c \u{e4}");
    }

    #[test]
    fn every_reason_and_kind_has_words_of_its_own() {
        for reason in Reject::ALL {
            assert_eq!(reject(&format!("{reason:?}")), Some(*reason));
            let words = of_reject(*reason);
            assert!(words != UNKNOWN && words.len() <= 61, "{words} has no room in `hybster top`");
        }
        for reason in Reason::ALL {
            assert_eq!(refusal(reason.name()), Some(*reason));
            assert_ne!(of_refusal(*reason), UNKNOWN, "{reason:?}");
        }
        let names: std::collections::BTreeSet<_> = (1..=kind::LAST_SEEN).map(kind_name).collect();
        assert_eq!(names.len(), usize::from(kind::LAST_SEEN), "a kind has no name: {names:?}");
        assert!(!names.contains("unknown"), "a kind has no name");
    }
}
