//! Random playbooks in random worlds, judged by the oracle.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::bench::{last_trace, plan};
use super::{journal, oracle, sim, spec};

/// `PROPTEST_CASES` for deep runs.
#[expect(clippy::disallowed_methods, reason = "a test may be told how deep to go")]
pub(crate) fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The usual runs are the same ones each time: what one in ten thousand shows must not fail whoever builds next. Deep runs
/// draw new ones.
#[expect(clippy::disallowed_methods, reason = "a test may be told how deep to go")]
fn seed() -> RngSeed {
    if std::env::var_os("PROPTEST_CASES").is_some() { RngSeed::Random } else { RngSeed::Fixed(1) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), rng_seed: seed(), max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_is_as_the_design_says(spec in spec::spec(), world in sim::world()) {
        let plan = plan(&spec.text());
        let driven = catch_unwind(AssertUnwindSafe(|| sim::drive(&plan, &world)));
        let told = |why: String| TestCaseError::fail(format!("{why}\n{}\n{}", spec.text(), last_trace()));
        let trace = match driven {
            Ok(driven) => driven.map_err(told)?,
            Err(_) => return Err(told("it panicked".to_owned())),
        };
        if let Err(why) = oracle::judge(&spec, &trace) {
            return Err(TestCaseError::fail(format!("{why}\n{}\n{}", spec.text(), journal::lines(&trace))));
        }
    }
}
