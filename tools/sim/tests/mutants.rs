//! Mutation tests: each broken rule of the protocol must be found within a bounded number of seeds.
//! One that survives shows that an oracle or a behaviour is missing.

mod staged;

use hybster_proto::ids::{ReplicaId, View};
use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::shape::Shape;
use hybster_sim::{
    Behaviour, Flood, Layout, Lie, Options, RogueTrick, Scenario, Trick, run_scenario,
};
use hybster_tss::RequestAuthenticator;

/// Runs scenarios with a broken rule until a property does not hold; the seed and the property.
fn hunt(
    mutant: Mutant,
    seeds: u64,
    scenario: impl Fn(u64) -> Scenario,
) -> Option<(u64, &'static str)> {
    choose(Some(mutant));
    let found = (0..seeds).find_map(|seed| {
        let report =
            run_scenario(scenario(seed), &Options { last_events: 0, ..Options::default() });
        // Nothing but greedy clients is wrong there, or nothing at all.
        let has_correct_leader = matches!(
            mutant,
            Mutant::ClientsUnlimited
                | Mutant::ForwardsUnlimited
                | Mutant::SuspectsUnsent
                | Mutant::FullWindowCounts
                | Mutant::SlownessCounts
                | Mutant::AnswersOvertake
        );
        let is_suspected = has_correct_leader && report.counters.view > 0;
        let suspected = is_suspected.then_some("no correct leader is suspected");
        let property = report.violation.map(|violation| violation.property).or(suspected);
        property.map(|property| (seed, property))
    });
    choose(None);
    found
}

/// Byzantine scenarios in which one liar has some behaviours more.
fn liar(seed: u64, behaviours: &[Behaviour]) -> Scenario {
    let mut scenario = Scenario::byzantine(seed);
    // Something must go on that can be spoilt, and no run needs to wait for long.
    scenario.patience_us = 10_000_000;
    let liar = scenario.hosts.first().map_or(ReplicaId(0), |(liar, _)| *liar);
    scenario.hosts.retain(|(replica, _)| *replica != liar);
    scenario.hosts.extend(behaviours.iter().map(|behaviour| (liar, *behaviour)));
    scenario
}

fn views(ppm: u32) -> Behaviour {
    Behaviour::ViewLiar { ppm, spam_ppm: 0 }
}

fn scenario(mutant: Mutant, seed: u64) -> Scenario {
    let ppm = 300_000;
    match mutant {
        Mutant::CommitUnverified => staged::lonely_commit(seed, Some(2), Behaviour::HollowVoter),
        Mutant::LinkUnverified => {
            staged::lonely_commit(seed, None, Behaviour::ViewAttack(Lie::ForgeLink))
        }
        Mutant::LastLinkAlone => staged::hidden_link(seed),
        Mutant::ChainNotJoined => staged::hidden_view(seed),
        Mutant::MergeAllViews => staged::old_prepares(seed),
        Mutant::NoVouching | Mutant::ReachUnchecked | Mutant::PreparedUnverified => {
            liar(seed, &[views(800_000), Behaviour::Splitter { ppm: 300_000 }])
        }
        Mutant::ViewChangeQuorum => {
            liar(seed, &[Behaviour::FalseAck { ppm }, Behaviour::Splitter { ppm: 100_000 }])
        }
        Mutant::TransitionUnchecked => {
            liar(seed, &[Behaviour::NewViewLiar { ppm }, Behaviour::NewViewForger { ppm }])
        }
        Mutant::HoldUnchecked => liar(seed, &[Behaviour::Withholder]),
        Mutant::KindIgnored | Mutant::NoopPrevious => {
            liar(seed, &[Behaviour::OrderLiar(Trick::NoopOver, 20_000)])
        }
        Mutant::BatchDigest => liar(seed, &[Behaviour::OrderLiar(Trick::BodySwap, 100_000)]),
        Mutant::RequestMac => liar(seed, &[Behaviour::OrderLiar(Trick::Forge, 100_000)]),
        Mutant::DuplicateExecution | Mutant::WatermarkIgnored => {
            liar(seed, &[Behaviour::OrderLiar(Trick::Again, 100_000)])
        }
        Mutant::CheckpointOfOne => liar(seed, &[Behaviour::CheckpointLiar { ppm }]),
        Mutant::PageUnchecked => liar(seed, &[Behaviour::StateLiar { ppm }]),
        Mutant::RelayedAlways => staged::relays_lost(seed),
        Mutant::TagIgnored | Mutant::ReplyTagIgnored => {
            let mut scenario = Scenario::random(seed);
            scenario.copy_client(0);
            scenario
        }
        Mutant::OneReply => liar(seed, &[Behaviour::ReplyLiar { ppm }]),
        Mutant::ClockUnchecked => liar(seed, &[Behaviour::OrderLiar(Trick::FalseTime, 100_000)]),
        Mutant::ReissuedTime => {
            liar(seed, &[Behaviour::Retimer { ppm: 800_000 }, Behaviour::Splitter { ppm }])
        }
        Mutant::ClientsUnlimited => staged::clients::greedy(seed, RogueTrick::Volume),
        Mutant::ForwardsUnlimited | Mutant::SuspectsUnsent => staged::clients::detour(seed),
        Mutant::FullWindowCounts => staged::slow::full_window(seed),
        Mutant::FullWindowExcuses => staged::slow::left_out(seed),
        Mutant::SlownessCounts => staged::slow::small_window(seed, Layout::Split, 60_000),
        Mutant::AnswersOvertake => staged::slow::few_requests(seed),
        Mutant::RoomNotAwaited => staged::clients::large_replies(seed),
        Mutant::PeersUnlimited => staged::resources::flood(seed, Flood::Batches),
        Mutant::VouchesUnsaved => staged::restarts::after_a_transfer(seed),
        Mutant::RepliesUngated => staged::restarts::without_the_leader(seed),
        Mutant::AsksOnceForLater => staged::away::away(seed),
        Mutant::CopyTrusted => staged::restarts::from_a_copy(seed),
        Mutant::FirstTellersSuffice => staged::restarts::from_a_copy_that_one_knows(seed),
        Mutant::LeavesUntold => staged::restarts::from_a_copy_that_hears_nothing(seed),
        Mutant::LeavingUntold => staged::restarts::from_a_copy_of_an_earlier_view(seed),
        Mutant::MessagesUngated
        | Mutant::LeavingUnlogged
        | Mutant::TruncatesEarly
        | Mutant::SummaryUncounted => staged::restarts::now_and_then(seed),
        // A vote is one of three.
        Mutant::VotesUnlogged => {
            let five = Shape { restarts: true, replicas: Some(5), ..Shape::default() };
            five.scenario(seed)
        }
        Mutant::AnswersUnlimited => staged::resources::unread_answers(seed),
        _ => Scenario::random(seed),
    }
}

/// `HYBSTER_MUTANT_SEEDS=5000` searches longer.
fn is_found(mutant: Mutant, seeds: u64) {
    let more = std::env::var("HYBSTER_MUTANT_SEEDS").ok().and_then(|n| n.parse().ok());
    let found = hunt(mutant, more.unwrap_or(seeds), |seed| scenario(mutant, seed));
    println!("{mutant:?}: {found:?}");
    assert!(found.is_some(), "{mutant:?} survives {seeds} seeds");
}

/// The rule that requests are checked is looked for in groups with MACs and with signatures.
#[test]
fn unchecked_signatures_are_found() {
    let found = hunt(Mutant::RequestMac, 200, |seed| {
        let mut scenario = scenario(Mutant::RequestMac, seed);
        scenario.group.request_authenticator = RequestAuthenticator::Ed25519;
        scenario
    });
    assert!(found.is_some());
}

/// The staged attacks fail against the unbroken rules.
#[test]
fn staged_attacks_are_harmless() {
    use Behaviour::{HollowVoter, ViewAttack};
    for seed in 0..60 {
        let attacks = [
            staged::lonely_commit(seed, Some(2), HollowVoter),
            staged::lonely_commit(seed, None, ViewAttack(Lie::ForgeLink)),
            staged::lonely_commit(seed, Some(1), ViewAttack(Lie::HideLink)),
            staged::hidden_link(seed),
            staged::hidden_view(seed),
            staged::old_prepares(seed),
        ];
        for attack in attacks {
            run_scenario(attack, &Options::default()).assert_good();
        }
    }
}

/// Who asks again is answered straight, however busy the others are.
#[test]
fn lost_relays_keep_nobody_waiting() {
    for seed in 0..8 {
        run_scenario(staged::relays_lost(seed), &Options::default()).assert_good();
    }
}

/// Runs in which view 2 is established although only its leader's NEW-VIEW-ACK vouches for view 1.
fn acknowledged_views(mutant: Option<Mutant>) -> usize {
    choose(mutant);
    let used = |seed: &u64| {
        let report = run_scenario(staged::belated_new_view(*seed), &Options::default());
        report.assert_good();
        report.new_views.iter().any(|v| v.view == View(2) && !v.acks.is_empty())
    };
    let count = (0..60).filter(used).count();
    choose(None);
    count
}

/// Without NEW-VIEW-ACKs a view is lost and a later one follows, since everybody has entered the
/// belated view by then: that is slower, not wrong, and only a count can tell.
#[test]
fn no_acks() {
    let (with, without) = (acknowledged_views(None), acknowledged_views(Some(Mutant::NoAcks)));
    println!("NoAcks: {with} of 60 views are saved by NEW-VIEW-ACKs, {without} with the mutant");
    assert!(with >= 10 && without == 0);
}

/// Views that groups without any fault enter, when the service takes longer than a request may wait.
fn views_of_a_slow_service(layout: Layout, mutant: Option<Mutant>) -> u64 {
    choose(mutant);
    let views = (0..10).map(|seed| {
        let mut scenario = Scenario::calm("slow service", seed, 1, 2);
        (scenario.layout, scenario.service_us) = (layout, 60_000);
        run_scenario(scenario, &Options::default()).counters.view
    });
    let views = views.sum();
    choose(None);
    views
}

#[test]
fn suspects_unasked() {
    let views = |mutant| views_of_a_slow_service(Layout::Split, mutant);
    let views = [None, Some(Mutant::SuspectsUnasked)].map(views);
    println!("{views:?} views, without and with SuspectsUnasked");
    assert!(views[0] == 0 && views[1] > 0);
}

#[test]
fn hold_ups_count() {
    let views = |mutant| views_of_a_slow_service(Layout::Fused, mutant);
    let views = [None, Some(Mutant::HoldUpsCount)].map(views);
    println!("{views:?} views, without and with HoldUpsCount");
    assert!(views[0] == 0 && views[1] > 0);
}

/// Without the rules for slow wires a group leaves its view without any fault, or sends much in vain. They
/// are hunted in `wires.rs`: `a_group_that_knows_nothing_of_wires_fails_on_slow_ones` and
/// `what_helps_on_wires_that_become_much_slower`, and in `turns.rs`; that timeouts do not shrink blindly in the
/// core's `timeouts.rs`; the rule for views that are not finished in `views.rs`: `views_in_haste`; those for the end
/// of an epoch in `epochs.rs`.
macro_rules! mutants {
    ($($(#[$mark:meta])* $name:ident: $mutant:ident in $seeds:literal;)*) => {
        $(#[test] $(#[$mark])* fn $name() { is_found(Mutant::$mutant, $seeds); })*

        #[test]
        fn every_mutant_is_hunted() {
            // Those of PBFT are hunted in `pbft_mutants.rs`.
            let of_pbft = |mutant: &Mutant| format!("{mutant:?}").starts_with("Pbft");
            let others = [Mutant::NoAcks, Mutant::SuspectsUnasked, Mutant::HoldUpsCount];
            let of_wires = [
                Mutant::WireIgnored,
                Mutant::HeldIgnored,
                Mutant::ShrinksBlindly,
                Mutant::BusyWireIgnored,
                Mutant::AloneWaitsLonger,
            ];
            let of_views = [Mutant::ViewsInHaste];
            let of_turns = [
                Mutant::TurnsIgnored,
                Mutant::TurnsUncounted,
                Mutant::ProposesTwice,
                Mutant::AsksAll,
                Mutant::RateOfMoments,
            ];
            let of_epochs =
                [Mutant::BoundaryUncertified, Mutant::LivesIgnored, Mutant::ChangesUnlimited];
            let hunted =
                [&others[..], &of_wires, &of_views, &of_turns, &of_epochs, &[$(Mutant::$mutant),*]].concat();
            assert!(Mutant::ALL.iter().all(|it| of_pbft(it) || hunted.contains(it)));
        }
    };
}

mutants! {
    commit_quorum: CommitQuorum in 500;
    commit_twice: CommitTwice in 500;
    commit_unverified: CommitUnverified in 500;
    view_change_quorum: ViewChangeQuorum in 500;
    no_vouching: NoVouching in 500;
    merge_all_views: MergeAllViews in 2_000;
    last_link_alone: LastLinkAlone in 500;
    chain_not_joined: ChainNotJoined in 500;
    link_unverified: LinkUnverified in 500;
    reach_unchecked: ReachUnchecked in 500;
    prepared_unverified: PreparedUnverified in 500;
    transition_unchecked: TransitionUnchecked in 500;
    hold_unchecked: HoldUnchecked in 500;
    window_unchecked: WindowUnchecked in 500;
    duplicate_execution: DuplicateExecution in 500;
    watermark_ignored: WatermarkIgnored in 500;
    tag_ignored: TagIgnored in 500;
    reply_tag_ignored: ReplyTagIgnored in 500;
    kind_ignored: KindIgnored in 500;
    noop_previous: NoopPrevious in 500;
    batch_digest: BatchDigest in 500;
    request_mac: RequestMac in 500;
    checkpoint_of_one: CheckpointOfOne in 500;
    page_unchecked: PageUnchecked in 500;
    one_reply: OneReply in 500;
    late_never: LateNever in 500;
    relayed_always: RelayedAlways in 100;
    thrifty_during_queries: ThriftyDuringQueries in 500;
    two_copies: TwoCopies in 500;
    nothing_ahead: NothingAhead in 500;
    new_again: NewAgain in 500;
    clock_unchecked: ClockUnchecked in 500;
    early_reissued: EarlyReissued in 500;
    reissued_time: ReissuedTime in 500;
    time_goes_back: TimeGoesBack in 500;
    randomness_of_view: RandomnessOfView in 500;
    clients_unlimited: ClientsUnlimited in 20;
    room_not_awaited: RoomNotAwaited in 20;
    forwards_unlimited: ForwardsUnlimited in 20;
    suspects_unsent: SuspectsUnsent in 20;
    peers_unlimited: PeersUnlimited in 20;
    answers_unlimited: AnswersUnlimited in 20;
    left_outside: LeftOutside in 500;
    vouches_unsaved: VouchesUnsaved in 500;
    truncates_early: TruncatesEarly in 500;
    summary_uncounted: SummaryUncounted in 500;
    replies_ungated: RepliesUngated in 500;
    messages_ungated: MessagesUngated in 500;
    votes_unlogged: VotesUnlogged in 500;
    copy_trusted: CopyTrusted in 500;
    asks_once_for_later: AsksOnceForLater in 500;
    first_tellers_suffice: FirstTellersSuffice in 500;
    leaves_untold: LeavesUntold in 500;
    leaving_untold: LeavingUntold in 500;
    leaving_unlogged: LeavingUnlogged in 500;
    full_window_counts: FullWindowCounts in 20;
    full_window_excuses: FullWindowExcuses in 20;
    slowness_counts: SlownessCounts in 500;
    answers_overtake: AnswersOvertake in 10_000;
}

/// A smaller run of the same kind is found, and it still fails without the search.
#[test]
fn a_failing_run_shrinks() {
    choose(Some(Mutant::DuplicateExecution));
    let first = scenario(Mutant::DuplicateExecution, 1);
    let shrunk = hybster_sim::shrink::shrink(first.clone(), 150).expect("the run fails");
    let again = run_scenario(shrunk.scenario.clone(), &Options::default());
    choose(None);
    let operations =
        |s: &Scenario| s.clients.iter().map(|c| c.operations * c.sessions).sum::<u32>();
    assert!(operations(&shrunk.scenario) < operations(&first));
    assert!(shrunk.scenario.faults.len() <= first.faults.len());
    let property = |report: &hybster_sim::Report| {
        report.violation.as_ref().map(|violation| violation.property)
    };
    assert_eq!(property(&again), Some("exactly once"));
    assert_eq!(property(&shrunk.report), Some("exactly once"));
    assert_eq!(again.hash, shrunk.report.hash);
    assert!(hybster_sim::shrink::shrink(Scenario::random(1), 5).is_none());
}
