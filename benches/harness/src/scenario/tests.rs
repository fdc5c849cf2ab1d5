//! That each assertion of each scenario can fail: facts are doctored until it does.

use super::half_open::{Left, Vanished};
use super::*;
use crate::engine::CrowdTally;
use crate::plan::tests::plan;

/// What breaks an assertion.
type Doctor = fn(&mut Tally);

/// A plan of twelve connections, half as many beside them where the scenario has such.
fn plan_of(scenario: Scenario) -> Plan {
    let more = match scenario {
        Scenario::Broadcast => "--publish 127.0.0.1:8 --rate 100",
        Scenario::Pipelined => "--depth 16",
        scenario if scenario.has_crowd() => "--hostile 50",
        _ => "",
    };
    let name = scenario.name();
    plan(&format!("--scenario {name} --connections 12 --duration 500ms --every 100ms {more}")).unwrap()
}

/// What is counted where all goes well.
fn tally_of(plan: &Plan) -> Tally {
    let connections = plan.connections as u64;
    let rounds = match (&plan.load, plan.waves) {
        (Load::Storm { rounds, .. }, _) => *rounds,
        (_, waves) => waves.map_or(0, |waves| waves.rounds),
    };
    let others = plan.crowd.count as u64;
    let crowd = CrowdTally {
        opened: others,
        answered: others,
        standing: others,
        members_acted: others,
        members_met: others,
        members_intact: others,
        members_owed_much: others,
        owed_most: 1 << 20,
        ..CrowdTally::default()
    };
    let wave = Wave { sent: connections, answered: connections, last_ns: 1_000_000 };
    let mut tally = Tally {
        asked: 500,
        answered: 500,
        waves: vec![wave; rounds as usize],
        cycles: 30,
        owed_at_the_end: 30,
        loaded: plan.active_in_all() as u64,
        published: 10,
        delivered: 10 * connections,
        crowd,
        ..Tally::default()
    };
    tally.counts.connections_opened = connections;
    tally
}

fn checks_of(plan: &Plan, tally: &Tally) -> Vec<Check> {
    let vanished = (plan.scenario == Scenario::HalfOpen).then_some(&VANISHED);
    checks(&Facts { plan, tally, vanished })
}

const VANISHED: Vanished =
    Vanished::Done { peers: 6, left: Some(Left { before: 0, then: 6, at_the_end: 6 }) };

/// Everything that can go wrong in the numbers, one at a time.
const DOCTORS: [(&str, Doctor); 19] = [
    ("a connection was not opened", |tally| tally.counts.connections_opened -= 1),
    ("a connection was lost", |tally| tally.counts.connections_lost += 1),
    ("a request was not answered", |tally| tally.answered -= 1),
    ("nothing was asked", |tally| (tally.asked, tally.answered) = (0, 0)),
    ("little was asked", |tally| (tally.asked, tally.answered) = (100, 100)),
    ("a wave was not answered on one", |tally| {
        if let Some(wave) = tally.waves.last_mut() {
            wave.answered -= 1
        }
    }),
    ("a wave left one out", |tally| {
        if let Some(wave) = tally.waves.last_mut() {
            (wave.sent, wave.answered) = (wave.sent - 1, wave.answered - 1);
        }
    }),
    ("a wave did not come", |tally| tally.waves.truncate(tally.waves.len().saturating_sub(1))),
    ("no connection came and went", |tally| tally.cycles = 0),
    ("a connection ended badly", |tally| tally.ended_badly = 1),
    ("a line did not reach one", |tally| tally.delivered -= 1),
    ("a line reached one twice", |tally| tally.delivered += 1),
    ("nothing was published", |tally| (tally.published, tally.delivered) = (0, 0)),
    ("one of the others did nothing", |tally| {
        tally.crowd.members_acted = tally.crowd.members_acted.saturating_sub(1);
        tally.crowd.members_met = tally.crowd.members_met.saturating_sub(1);
    }),
    ("all of the others were refused", |tally| {
        tally.crowd.refused = tally.crowd.opened;
        (tally.crowd.opened, tally.crowd.members_acted) = (0, 0);
    }),
    ("one that was to be idle carried load", |tally| tally.loaded += 1),
    ("a storm hit one that was owed nothing", |tally| tally.owed_at_the_end -= 1),
    ("one of the slow readers left little unread", |tally| {
        tally.crowd.members_owed_much = tally.crowd.members_owed_much.saturating_sub(1);
    }),
    ("one of the slow ones got nothing", |tally| {
        tally.crowd.members_intact = tally.crowd.members_intact.saturating_sub(1);
    }),
];

/// The checks that do not hold when this has gone wrong.
fn broken_by(scenario: Scenario, what: &str) -> Vec<String> {
    let plan = plan_of(scenario);
    let mut tally = tally_of(&plan);
    let (_, doctor) = DOCTORS.iter().find(|(name, _)| *name == what).unwrap();
    doctor(&mut tally);
    checks_of(&plan, &tally).into_iter().filter(|check| !check.held).map(|check| check.name).collect()
}

#[test]
fn all_holds_where_all_goes_well() {
    for (scenario, name, _) in ALL {
        let plan = plan_of(scenario);
        let checks = checks_of(&plan, &tally_of(&plan));
        assert!(!checks.is_empty() && checks.iter().all(|check| check.held), "{name}: {checks:#?}");
    }
}

#[test]
fn every_check_of_every_scenario_can_fail() {
    for (scenario, name, _) in ALL {
        let plan = plan_of(scenario);
        let broken: Vec<String> = DOCTORS.iter().flat_map(|(what, _)| broken_by(scenario, what)).collect();
        for check in checks_of(&plan, &tally_of(&plan)) {
            // What of peers that vanish is asserted is not in the tally, and has tests of its own.
            let is_elsewhere = check.name == "peers vanished";
            assert!(is_elsewhere || broken.contains(&check.name), "{name}: nothing breaks `{}`", check.name);
        }
    }
}

#[test]
fn what_goes_wrong_is_found_by_the_check_that_is_about_it() {
    for (scenario, what, check) in [
        (Scenario::Load, "a connection was not opened", "all opened"),
        (Scenario::Load, "a request was not answered", "all answered"),
        (Scenario::PingPong, "nothing was asked", "all answered"),
        (Scenario::Pipelined, "little was asked", "in order"),
        (Scenario::IdleHold, "a connection was lost", "none lost"),
        (Scenario::IdleHold, "a wave left one out", "used after the hold"),
        (Scenario::PartlyActive, "a wave was not answered on one", "idle ones used at the end"),
        (Scenario::PartlyActive, "a request was not answered", "all answered"),
        (Scenario::PartlyActive, "one that was to be idle carried load", "the others idle"),
        (Scenario::ConnectStorm, "a wave was not answered on one", "used after the storm"),
        (Scenario::ConnectStorm, "a connection was not opened", "all opened"),
        (Scenario::WakeStorm, "a wave did not come", "woken"),
        (Scenario::WakeStorm, "a wave left one out", "woken"),
        (Scenario::ResetStorm, "a wave was not answered on one", "back after resets"),
        (Scenario::ReconnectStorm, "a wave left one out", "back after ends"),
        (Scenario::Churn, "no connection came and went", "came and went"),
        (Scenario::Churn, "a connection ended badly", "came and went"),
        (Scenario::HalfClose, "a connection ended badly", "came and went"),
        (Scenario::HalfClose, "a request was not answered", "all answered"),
        (Scenario::ResetStorm, "a storm hit one that was owed nothing", "requests in flight"),
        (Scenario::ResetStorm, "no connection came and went", "requests in flight"),
        (Scenario::SlowReader, "one of the slow ones got nothing", "slow ones intact"),
        (Scenario::SlowReader, "one of the slow readers left little unread", "much left unread"),
        (Scenario::SlowWriter, "one of the slow ones got nothing", "slow ones intact"),
        (Scenario::SlowWriter, "one of the others did nothing", "the others were there"),
        (Scenario::Slowloris, "one of the others did nothing", "the others were there"),
        (Scenario::Slowloris, "all of the others were refused", "the others were there"),
        (Scenario::Hostile, "one of the others did nothing", "the others were there"),
        (Scenario::Hostile, "a request was not answered", "honest ones answered"),
        (Scenario::Hostile, "a connection was lost", "none lost"),
        (Scenario::HalfOpen, "one of the others did nothing", "the others were there"),
        (Scenario::Broadcast, "a line did not reach one", "every line to everybody"),
        (Scenario::Broadcast, "a line reached one twice", "every line to everybody"),
        (Scenario::Broadcast, "nothing was published", "every line to everybody"),
    ] {
        let broken = broken_by(scenario, what);
        assert!(broken.iter().any(|name| name == check), "{}: {what}: {broken:?}", scenario.name());
    }
}

#[test]
fn what_became_of_the_others_is_told_and_not_judged() {
    let plan = plan_of(Scenario::Slowloris);
    let mut tally = tally_of(&plan);
    let detail = |tally: &Tally| {
        let check = checks_of(&plan, tally).pop().unwrap();
        assert!(check.held, "{check:?}");
        check.detail.unwrap()
    };
    assert!(detail(&tally).contains("6 standing at the end: the target has no deadline"));
    (tally.crowd.cut_off, tally.crowd.standing) = (6, 0);
    assert!(detail(&tally).contains("6 cut off by the target, 0 standing"));
}
