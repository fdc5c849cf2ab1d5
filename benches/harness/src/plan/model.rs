//! Which load model is asked for, and whether everything else that was said goes with it.

use super::{Load, Refusal, Settings};
use crate::scenario::Scenario;

impl Settings {
    /// The load model, where the scenario leaves it open: said, or told by a setting that no other has.
    pub(super) fn model(&self, scenario: Scenario) -> &str {
        let inferred = if self.steps.is_some() {
            "steps"
        } else if self.ramp.is_some() {
            "ramp"
        } else if self.burst.is_some() {
            "burst"
        } else if self.rate.is_some() || scenario.has_crowd() {
            "rate"
        } else {
            "closed"
        };
        self.load.as_deref().unwrap_or(inferred)
    }

    /// Refuses what was said of a load, but not of this one: it would change nothing.
    pub(super) fn ensure_used(&self, scenario: Scenario, load: &Load) -> Result<(), Refusal> {
        let is_closed = matches!(load, Load::Closed { .. });
        let is_churn = matches!(load, Load::Churn { .. });
        let thinks = is_closed && scenario != Scenario::Pipelined;
        let ends = (is_churn && scenario != Scenario::HalfClose) || matches!(load, Load::Storm { .. });
        let is_broadcast = matches!(load, Load::Broadcast { .. });
        // The model of a scenario that brings its own load goes by that scenario's name.
        let model = if matches!(load, Load::Open { .. }) { self.model(scenario) } else { "" };
        let is_open = !model.is_empty();
        let said = [
            ("steps", self.steps.is_some(), model == "steps"),
            ("ramp", self.ramp.is_some(), model == "ramp"),
            ("burst", self.burst.is_some(), model == "burst"),
            ("rate", self.rate.is_some(), is_broadcast || matches!(model, "rate" | "poisson" | "burst")),
            ("think", self.think.is_some(), thinks),
            ("think-spread", self.think_spread.is_some(), thinks && self.think.is_some()),
            ("depth", self.depth.is_some(), is_open || (is_closed && scenario != Scenario::PingPong)),
            ("active", self.active.is_some(), is_open || (is_closed && self.ramp_up.is_none())),
            ("end", self.end.is_some(), ends),
            ("requests", self.requests.is_some(), is_churn),
            ("publish", self.publish.is_some(), is_broadcast),
        ];
        let Some((field, ..)) = said.into_iter().find(|(_, is_said, is_used)| *is_said && !is_used) else {
            return Ok(());
        };
        let whole = match load {
            Load::Open { .. } => format!("the load model {model}"),
            Load::Idle if self.load.is_some() => "the load model idle".to_owned(),
            Load::Closed { .. } if field == "think-spread" && thinks => "a load without --think".to_owned(),
            Load::Closed { .. } if field == "active" => "a load with --ramp-up".to_owned(),
            _ if scenario == Scenario::Load => "a closed loop".to_owned(),
            _ => format!("the scenario {}", scenario.name()),
        };
        Err(Refusal::new(field, format!("{whole} does nothing with it: leave it out")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::super::{Arrivals, Load};

    #[test]
    fn a_setting_that_one_model_has_alone_tells_the_model() {
        for flags in ["--rate 1000 --burst 50", "--load burst --burst 50 --rate 1000"] {
            let load = plan(flags).unwrap().load;
            let Load::Open { profile, arrivals: Arrivals::Bursts { size: 50 }, .. } = load else {
                panic!("{flags}: {load:?}");
            };
            assert_eq!(profile, super::super::Profile::constant(1_000.0, 10.0));
        }
        let steps = plan("--scenario hostile --steps 10x1s,20x1s").unwrap();
        assert_eq!(steps.duration.as_secs(), 2, "the scenario's rate is a default");
    }

    #[test]
    fn what_a_load_does_not_use_is_refused() {
        for (flags, field) in [
            ("--rate 1000 --steps 10x1s", "--rate"),
            ("--rate 1000 --ramp 0..20", "--rate"),
            ("--steps 10x1s --ramp 0..20", "--ramp"),
            ("--load poisson --rate 10 --burst 5", "--burst"),
            ("--rate 1000 --think 5ms", "--think"),
            ("--think-spread exponential", "--think-spread"),
            ("--scenario pipelined --think 5ms", "--think"),
            ("--scenario ping-pong --depth 8", "--depth"),
            ("--scenario wake-storm --rate 50", "--rate"),
            ("--scenario churn --rate 50", "--rate"),
            ("--scenario churn --depth 5", "--depth"),
            ("--load idle --active 20", "--active"),
            ("--ramp-up 1s --active 20", "--active"),
            ("--scenario idle-hold --active 20", "--active"),
            ("--end rst", "--end"),
            ("--scenario half-close --end fin", "--end"),
            ("--scenario reset-storm --requests 2", "--requests"),
            ("--requests 2", "--requests"),
            ("--publish 127.0.0.1:1", "--publish"),
        ] {
            let refusal = plan(flags).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{field}: ")), "{flags}: {refusal}");
            assert!(refusal.contains(" with it: leave it out"), "{flags}: {refusal}");
        }
    }

    #[test]
    fn what_a_load_uses_is_not() {
        for flags in [
            "--load poisson --rate 10 --depth 3 --active 20",
            "--depth 8 --active 20 --think 5ms --think-spread exponential",
            "--scenario pipelined --depth 8",
            "--scenario ping-pong --think 5ms",
            "--scenario churn --end rst --requests 3",
            "--scenario half-close --requests 3",
            "--scenario reset-storm --end fin",
            "--scenario broadcast --rate 10 --publish 127.0.0.1:1",
            "--scenario partly-active --rate 10 --active 5",
            "--scenario hostile --rate 10 --hostile 5",
        ] {
            plan(flags).unwrap_or_else(|refusal| panic!("{flags}: {refusal}"));
        }
    }
}
